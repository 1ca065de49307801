/* SHELL. What subscribers receive: payloads are found, and each is accounted for: whether it is
 * new, late, twice, how long it took. */
#include "load.h"

/* False: it is a duplicate. */
static bool order_note(struct load *l, struct subscriber *s, uint32_t seq)
{
    struct figures *f = &l->figures;
    uint64_t bit = UINT64_C(1) << seq % 64, *word = &s->seen[seq % ORDER_WINDOW / 64];
    if (seq > s->last) {
        uint32_t ahead = seq - s->last;
        f->gaps += ahead - 1;
        if (ahead >= ORDER_WINDOW)
            memset(s->seen, 0, sizeof s->seen);
        for (uint32_t k = s->last + 1; ahead < ORDER_WINDOW && k < seq; k++)
            s->seen[k % ORDER_WINDOW / 64] &= ~(UINT64_C(1) << k % 64);
        *word |= bit;
        s->last = seq;
        return true;
    }
    if (s->last - seq >= ORDER_WINDOW || (*word & bit))
        return false;
    *word |= bit;
    f->out_of_order++;
    f->gaps -= f->gaps > 0;
    return true;
}

static void account(struct load *l, struct subscriber *s, uint32_t seq, uint64_t sent, uint64_t now)
{
    struct figures *f = &l->figures;
    s->received++;
    if (!order_note(l, s, seq)) {
        f->dups++;
        return;
    }
    f->delivered_all++;
    s->hash = (s->hash ^ seq) * UINT64_C(1099511628211);
    f->last_ns = now;
    if (now >= l->measured_from && now < l->measured_to)
        f->delivered_window++;
    if (sent >= l->measured_from) {
        f->delivered++;
        histogram_add(&f->delivery, now > sent ? now - sent : 0);
    }
}

/* The next "wl" with its closing quote (which may be escaped), or NULL. *cut: the text ended where
 * one may have begun. */
static const uint8_t *mark_find(const uint8_t *at, const uint8_t *end, const uint8_t **cut)
{
    while ((at = memchr(at, 'w', (size_t)(end - at)))) {
        if (end - at < 3) {
            *cut = at;
            return NULL;
        }
        if (at[1] == 'l' && (at[2] == '"' || at[2] == '\\'))
            return at;
        at++;
    }
    return NULL;
}

/* Four integers, each at most 12 other characters away. How many there are; *after: behind them. */
static int integers_read(const uint8_t *at, const uint8_t *end, uint64_t value[4],
                         const uint8_t **after)
{
    int n = 0;
    while (n < 4) {
        const uint8_t *most = end - at > 12 ? at + 12 : end;
        while (at < most && (uint8_t)(*at - '0') > 9)
            at++;
        if (at == end || (uint8_t)(*at - '0') > 9)
            break;
        uint64_t number = 0;
        for (; at < end && (uint8_t)(*at - '0') <= 9; at++)
            number = number * 10 + (uint64_t)(*at - '0');
        value[n] = number;
        if (at == end)
            break;
        n++;
    }
    *after = at;
    return n;
}

bool delivery_scan(struct load *l, struct subscriber *s, struct slice text, uint64_t now,
                   struct slice *tail)
{
    const uint8_t *at = text.data, *end = at + text.size, *cut = end;
    bool found = false;
    for (;;) {
        uint64_t value[4];
        const uint8_t *after, *mark = mark_find(at, end, &cut);
        if (!mark)
            break;
        if (integers_read(mark + 3, end, value, &after) < 4) {
            if (after == end && tail) {
                cut = mark;
                break;
            }
            at = mark + 2;
            continue;
        }
        if (value[0] == l->run && value[1] == s->link.room && value[2] > 0)
            account(l, s, (uint32_t)value[2], value[3], now);
        else
            l->figures.ignored++;
        found = true;
        if (!tail)
            break;
        at = after;
    }
    if (tail)
        *tail = slice_of(cut, (size_t)(end - cut));
    return found;
}
