/* SHELL. Second pass: every subscription against the log that build_places found. Decides H4, H9
 * and what of H3 concerns filters and ephemeral events. */
#include "internal.h"

struct sub {
    uint32_t who;
    uint32_t key;
    uint32_t rank;
    uint32_t last; /* rank of the last delivery or verdict */
    bool open;
    bool conflated;
    bool placed; /* `at` is known */
    bool has_head;
    bool told; /* of a missing tail */
    uint8_t start;
    uint64_t aim;
    uint64_t limit; /* replay N */
    uint64_t counted;
    struct position at;
    struct position head;
    uint32_t ephemeral; /* latest submit of the ephemeral events it got, + 1 */
};

static struct sub *sub_at(struct history *h, uint32_t i)
{
    return (struct sub *)h->subs.data + i;
}

static struct sub *sub_of(struct history *h, const struct history_entry *e, uint32_t rank)
{
    uint32_t i = table_get(&h->scratch, e->key, e->who);
    if (i == NONE || !sub_at(h, i)->open) {
        violated(h, 4, e->key, rank, NONE, "%.*s gets something without a subscription",
                 SLICE_FMT(history_text(h, e->who)));
        return NULL;
    }
    return sub_at(h, i);
}

static bool aimed_at(const struct message *m, uint64_t aim)
{
    return (m->aim == 0 || (m->aim & aim)) && !(m->but & aim);
}

/* The first seq in first..last that the subscription had to get, or 0. */
static uint64_t must_see(struct history *h, const struct sub *s, uint64_t epoch, uint64_t first,
                         uint64_t last, uint32_t rank)
{
    if (first > last)
        return 0;
    const struct key *k = key_of(h, s->key);
    bool plain = !k->aimed && !(k->conflates && s->conflated);
    if (plain)
        return first;
    size_t end = k->first_place + k->n_places;
    for (size_t i = place_from(h, k, (struct position){epoch, first}); i < end; i++) {
        const struct place *p = place_at(h, i);
        if (p->epoch != epoch || p->seq > last)
            break;
        if (p->message == NONE || !aimed_at(message_at(h, p->message), s->aim) ||
            (s->conflated && p->superseded < rank))
            continue;
        return p->seq;
    }
    return 0;
}

static void on_subscribe(struct history *h, const struct history_entry *e, uint32_t rank)
{
    uint32_t *i = table_at(&h->scratch, e->key, e->who);
    if (*i != NONE)
        sub_at(h, *i)->open = false;
    *i = (uint32_t)h->subs.count;
    struct sub *s = array_add(&h->subs, sizeof *s);
    *s = (struct sub){.who = e->who,
                      .key = e->key,
                      .rank = rank,
                      .last = rank,
                      .open = true,
                      .conflated = e->conflated,
                      .start = e->what ? e->what : H_NONE,
                      .aim = e->aim,
                      .limit = e->number,
                      .at = e->id};
    s->placed = s->start == H_ALL || s->start == H_AFTER;
    if (s->start == H_ALL)
        s->at = (struct position){0, 0};
    key_of(h, e->key);
}

/* True when what follows `from` can no longer be given in full at this time. */
static bool miss_is_true(struct history *h, const struct history_entry *e)
{
    const struct epoch *to = epoch_of(h, e->key, e->to.epoch);
    /* Who reads nothing for long is passed by, whatever the log has. */
    if (e->to.seq > to->through_now && !to->lost_now && e->reason != H_SLOW)
        return false;
    if (e->from.epoch == e->to.epoch || e->from.epoch == 0)
        return e->from.seq < e->to.seq;
    const struct epoch *from = epoch_of(h, e->key, e->from.epoch);
    return from->lost_now || from->highest == 0 || e->from.seq > from->highest;
}

/* The seq that the subscription may not miss. Who asked for all gets all that there is, and no word
 * of the rest. */
static uint64_t next_of(struct history *h, const struct sub *s, uint64_t epoch)
{
    if (s->start == H_ALL && s->at.epoch == 0) {
        const struct epoch *e = epoch_of(h, s->key, epoch);
        return e->lost_now ? UINT64_MAX : e->through_now + 1;
    }
    return s->at.seq + 1;
}

static void on_missed(struct history *h, struct sub *s, const struct history_entry *e,
                      uint32_t rank)
{
    if (!miss_is_true(h, e)) {
        violated(h, 4, e->key, rank, s->rank,
                 "%.*s is told that it missed %s through %s, which was not trimmed",
                 SLICE_FMT(history_text(h, s->who)), id_text(e->from).text, id_text(e->to).text);
    } else if (s->placed && s->at.seq != e->from.seq &&
               (s->at.epoch == e->from.epoch || s->at.epoch == 0)) {
        uint64_t epoch = e->from.epoch;
        uint64_t seq = must_see(h, s, epoch, next_of(h, s, epoch), e->from.seq, rank);
        if (e->from.seq < s->at.seq || seq)
            violated(h, 4, e->key, rank, s->last,
                     "%.*s is at %s and is told of a miss that begins after %s",
                     SLICE_FMT(history_text(h, s->who)), id_text(s->at).text,
                     id_text(e->from).text);
    } else if (s->placed && s->at.epoch != e->from.epoch && s->at.epoch != 0) {
        /* Who has nothing may be told so by the history that it is about, once there was something
         * in it for him: older histories are lost, and that all through `to` is gone was checked
         * above. */
        violated(h, 4, e->key, rank, s->last, "%.*s is at %s and is told of a miss after %s",
                 SLICE_FMT(history_text(h, s->who)), id_text(s->at).text, id_text(e->from).text);
    }
    s->at = e->to;
    s->placed = true;
}

static void on_verdict(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct sub *s = sub_of(h, e, rank);
    if (!s)
        return;
    if (e->has_id && !s->has_head) {
        s->head = e->id;
        s->has_head = true;
    }
    if (e->what == H_MISSED) {
        on_missed(h, s, e, rank);
    } else if (s->start == H_NONE && e->has_id && !s->placed) {
        s->at = e->id;
        s->placed = true;
        const struct key *k = key_of(h, e->key);
        size_t i = place_from(h, k, (struct position){e->id.epoch, e->id.seq + 1});
        const struct place *p = i > k->first_place ? place_at(h, i - 1) : NULL;
        if (p && k->n_places && p->epoch == e->id.epoch && p->submitted > rank + 1)
            violated(h, 4, e->key, rank, p->submitted - 1,
                     "%.*s begins after %s, past an event that was submitted later",
                     SLICE_FMT(history_text(h, s->who)), id_text(e->id).text);
    }
    s->last = rank;
}

/* Ephemeral events: at most once, and after what was acknowledged before they were submitted. An
 * ack in a history that is lost by now says nothing of the same message in another one: there it
 * was stored later, by a retry. */
static void in_order(struct history *h, struct sub *s, const struct message *m, uint64_t epoch,
                     uint32_t rank)
{
    bool elsewhere = epoch != 0 && m->at.epoch != 0 && m->at.epoch != epoch &&
                     epoch_of(h, s->key, m->at.epoch)->lost_now;
    if (m->ack != NONE && m->ack + 1 < s->ephemeral && !elsewhere)
        violated(h, 3, s->key, rank, m->ack,
                 "message %llu comes to %.*s after an ephemeral one that was submitted later than "
                 "its ack",
                 (unsigned long long)m->msg, SLICE_FMT(history_text(h, s->who)));
    if (!m->ephemeral)
        return;
    uint32_t *seen = table_at(&h->scratch2, (uint32_t)(s - sub_at(h, 0)), m->msg);
    if (*seen != NONE)
        violated(h, 4, s->key, *seen, rank, "ephemeral message %llu comes twice to %.*s",
                 (unsigned long long)m->msg, SLICE_FMT(history_text(h, s->who)));
    *seen = rank;
    if (m->submit + 1 > s->ephemeral)
        s->ephemeral = m->submit + 1;
}

/* A delivery that does not follow what the subscription has. */
static bool check_step(struct history *h, const struct sub *s, struct position p, uint32_t rank)
{
    struct slice who = history_text(h, s->who);
    if (s->at.epoch != p.epoch && s->at.epoch != 0) {
        violated(h, 4, s->key, rank, s->last,
                 "%.*s goes from %s to %s without being told of a miss", SLICE_FMT(who),
                 id_text(s->at).text, id_text(p).text);
        return false;
    }
    if (p.seq <= s->at.seq) {
        violated(h, 4, s->key, rank, s->last, "%.*s is at %s and gets %s again", SLICE_FMT(who),
                 id_text(s->at).text, id_text(p).text);
        return false;
    }
    uint64_t seq = must_see(h, s, p.epoch, next_of(h, s, p.epoch), p.seq - 1, rank);
    if (seq)
        violated(h, 4, s->key, rank, s->last, "%.*s goes from %s to %s past seq %llu",
                 SLICE_FMT(who), id_text(s->at).text, id_text(p).text, (unsigned long long)seq);
    return true;
}

static void on_deliver(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct sub *s = sub_of(h, e, rank);
    if (!s)
        return;
    const struct message *m = e->msg ? message_find(h, e->key, e->msg) : NULL;
    struct position p = e->id;
    if (!e->has_id) {
        if (!m) {
            violated(h, 3, e->key, rank, NONE, "message %llu was never published",
                     (unsigned long long)e->msg);
            return;
        }
        if (!m->ephemeral && m->n > 1)
            history_bad(h, rank, "which event of a batch this is needs an id");
        p = m->at;
    }
    if (!m) {
        size_t i = place_from(h, key_of(h, e->key), p);
        const struct place *at = i < h->places.count ? place_at(h, i) : NULL;
        if (at && at->epoch == p.epoch && at->seq == p.seq && at->message != NONE)
            m = message_at(h, at->message);
    }
    if (m && !aimed_at(m, s->aim))
        violated(h, 3, e->key, rank, s->rank, "%.*s gets message %llu, which is not aimed at it",
                 SLICE_FMT(history_text(h, s->who)), (unsigned long long)m->msg);
    if (m)
        in_order(h, s, m, e->has_id ? e->id.epoch : 0, rank);
    bool stored = e->has_id || (m && !m->ephemeral && p.epoch);
    if (!stored)
        return;
    if (s->start == H_LAST && s->has_head && s->head.epoch == p.epoch && p.seq <= s->head.seq &&
        ++s->counted == s->limit + 1)
        violated(h, 4, e->key, rank, s->rank, "%.*s asked for %llu events and gets more",
                 SLICE_FMT(history_text(h, s->who)), (unsigned long long)s->limit);
    if (!s->placed || check_step(h, s, p, rank)) {
        s->at = p;
        s->placed = true;
    }
    s->last = rank;
}

static void on_close(struct history *h, const struct history_entry *e)
{
    if (e->key) {
        uint32_t i = table_get(&h->scratch, e->key, e->who);
        if (i != NONE)
            sub_at(h, i)->open = false;
        return;
    }
    for (size_t i = 0; i < h->keys.count; i++) {
        uint32_t s = table_get(&h->scratch, ((struct key *)h->keys.data + i)->name, e->who);
        if (s != NONE)
            sub_at(h, s)->open = false;
    }
}

static void on_deadline(struct history *h, uint32_t rank)
{
    for (uint32_t i = 0; i < h->subs.count; i++) {
        struct sub *s = sub_at(h, i);
        struct position want = key_of(h, s->key)->acked_calm;
        if (!s->open || s->told || want.epoch == 0 || (!s->placed && !s->has_head) ||
            epoch_of(h, s->key, want.epoch)->lost_now)
            continue;
        struct position at = s->placed ? s->at : s->head;
        bool behind = at.epoch != want.epoch && at.epoch != 0;
        behind = behind ||
                 (at.seq < want.seq &&
                  must_see(h, s, want.epoch, s->placed ? next_of(h, s, want.epoch) : at.seq + 1,
                           want.seq, rank) != 0);
        if (!behind)
            continue;
        s->told = true;
        violated(h, 9, s->key, rank, s->last, "%.*s is still at %s, %s was acknowledged long ago",
                 SLICE_FMT(history_text(h, s->who)), id_text(at).text, id_text(want).text);
    }
}

static void on_ack(struct history *h, const struct history_entry *e)
{
    struct key *k = key_of(h, e->key);
    if (e->what == H_ACK && e->has_id &&
        (k->acked_now.epoch != e->id.epoch ? !e->dup : k->acked_now.seq < e->id.seq))
        k->acked_now = e->id;
}

static void on_trim(struct history *h, const struct history_entry *e)
{
    struct epoch *ep = epoch_of(h, e->key, e->id.epoch);
    if (e->reason == H_EPOCH)
        ep->lost_now = true;
    else if (e->id.seq > ep->through_now)
        ep->through_now = e->id.seq;
}

static void read_entry(struct history *h, const struct history_entry *e, uint32_t rank)
{
    switch (e->op) {
    case H_SUBSCRIBE:
        on_subscribe(h, e, rank);
        break;
    case H_VERDICT:
        on_verdict(h, e, rank);
        break;
    case H_DELIVER:
        on_deliver(h, e, rank);
        break;
    case H_CLOSE:
        on_close(h, e);
        break;
    case H_ANSWER:
        on_ack(h, e);
        break;
    case H_TRIM:
        on_trim(h, e);
        break;
    case H_CALM:
        for (size_t i = 0; i < h->keys.count; i++) {
            struct key *k = (struct key *)h->keys.data + i;
            k->acked_calm = k->acked_now;
        }
        break;
    case H_DEADLINE:
        on_deadline(h, rank);
        break;
    default: /* judged in the first pass */
        break;
    }
}

void check_readers(struct history *h)
{
    table_clear(&h->scratch);
    table_clear(&h->scratch2);
    for (uint32_t i = 0; i < h->entries.count; i++)
        read_entry(h, entry_at(h, i), i);
}
