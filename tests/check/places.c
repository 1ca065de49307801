/* SHELL. The one log behind everything that was seen: what the dump, the acks and the deliveries
 * say of each position, sorted by position and merged. Decides H1, H3, H5, and from the dump's
 * order H2, H7, H8, H11. */
#include <stdlib.h>

#include "internal.h"

static int by_position(const void *x, const void *y)
{
    const struct claim *a = x, *b = y;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? -1 : 1;
    if (a->seq != b->seq)
        return a->seq < b->seq ? -1 : 1;
    if (a->source != b->source)
        return a->source < b->source ? -1 : 1;
    return a->rank < b->rank ? -1 : a->rank > b->rank;
}

static bool is_gone(struct history *h, uint32_t key, uint64_t epoch, uint64_t seq)
{
    const struct epoch *e = epoch_of(h, key, epoch);
    return e->lost || seq <= e->through;
}

static void unpublished(struct history *h, struct place *p, const struct claim *c, uint32_t key)
{
    const struct history_entry *e = entry_at(h, c->rank);
    if (c->message != NONE || e->msg == 0 || p->told)
        return;
    violated(h, 3, key, c->rank, NONE, "message %llu at %s was never published",
             (unsigned long long)e->msg, id_text((struct position){p->epoch, p->seq}).text);
    p->told = true;
}

/* A claim that names another message than the first claim of its position. */
static void disagree(struct history *h, struct place *p, const struct claim *first,
                     const struct claim *c, uint32_t key)
{
    if (p->told || c->message == NONE || p->message == NONE || c->message == p->message)
        return;
    struct message *other = message_at(h, c->message);
    bool lost = first->source == FROM_LOG && c->source == FROM_ACK;
    if (!other->bad)
        violated(h, lost ? 1 : 3, key, c->rank, first->rank, "%s is message %llu here and %llu %s",
                 id_text((struct position){p->epoch, p->seq}).text, (unsigned long long)other->msg,
                 (unsigned long long)message_at(h, p->message)->msg,
                 first->source == FROM_LOG ? "in the final log" : "elsewhere");
    other->bad = p->told = true;
}

static void note_log(struct history *h, struct place *p, const struct claim *c, uint32_t key)
{
    if (p->in_log) {
        if (p->told)
            return;
        violated(h, 3, key, c->rank, NONE, "the final log has %s twice",
                 id_text((struct position){p->epoch, p->seq}).text);
        p->told = true;
        return;
    }
    p->in_log = true;
    if (c->message == NONE)
        return;
    struct message *m = message_at(h, c->message);
    if (m->logged++ == 0) {
        m->log = (struct position){p->epoch, p->seq};
        m->log_rank = c->rank;
        if (m->ack == NONE)
            m->at = (struct position){p->epoch, p->seq + m->n - 1};
    }
    m->log_last = p->seq;
}

static void absent(struct history *h, struct place *p, const struct claim *first,
                   const struct key *k)
{
    if (p->in_log || p->told || !k->dumped || is_gone(h, k->name, p->epoch, p->seq))
        return;
    struct message *m = p->message == NONE ? NULL : message_at(h, p->message);
    bool acked = first->source == FROM_ACK;
    p->told = true;
    if (!m || !m->bad)
        violated(h, acked ? 1 : 5, k->name, first->rank, k->head,
                 "%s was %s and is not in the final log, nor was it trimmed",
                 id_text((struct position){p->epoch, p->seq}).text,
                 acked ? "acknowledged" : "delivered");
    if (m)
        m->bad = true;
}

static void merge_claims(struct history *h)
{
    const struct claim *c = h->claims.data;
    for (size_t i = 0, end; i < h->claims.count; i = end) {
        struct key *k = (struct key *)h->keys.data + c[i].key;
        if (k->n_places == 0)
            k->first_place = (uint32_t)h->places.count;
        k->n_places++;
        struct place *p = array_add(&h->places, sizeof *p);
        *p = (struct place){.epoch = c[i].epoch,
                            .seq = c[i].seq,
                            .key = c[i].key,
                            .message = c[i].message,
                            .superseded = NONE};
        for (end = i; end < h->claims.count && c[end].key == p->key && c[end].epoch == p->epoch &&
                      c[end].seq == p->seq;
             end++) {
            if (p->message == NONE)
                p->message = c[end].message;
            unpublished(h, p, &c[end], k->name);
            disagree(h, p, &c[i], &c[end], k->name);
            if (c[end].source == FROM_LOG)
                note_log(h, p, &c[end], k->name);
        }
        absent(h, p, &c[i], k);
    }
}

size_t place_from(const struct history *h, const struct key *k, struct position p)
{
    size_t low = k->first_place, high = low + k->n_places;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct place *at = place_at(h, middle);
        if (at->epoch < p.epoch || (at->epoch == p.epoch && at->seq < p.seq))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Positions from `first` through `last` that the dump lacks: lawful when each was told of already.
 */
static void check_hole(struct history *h, const struct key *k, uint64_t epoch, uint64_t first,
                       uint64_t last)
{
    if (first > last)
        return;
    size_t end = k->first_place + k->n_places;
    uint64_t told = 0;
    for (size_t i = place_from(h, k, (struct position){epoch, first}); i < end; i++) {
        const struct place *p = place_at(h, i);
        if (p->epoch != epoch || p->seq > last)
            break;
        told += p->told;
    }
    if (told != last - first + 1)
        violated(h, 3, k->name, k->head, NONE, "the final log has a hole from %s through seq %llu",
                 id_text((struct position){epoch, first}).text, (unsigned long long)last);
}

static void check_dump(struct history *h, const struct key *k)
{
    const struct history_entry *e = entry_at(h, k->head);
    uint64_t epoch = e->id.epoch, next = e->from.seq + 1;
    uint64_t through = epoch_of(h, k->name, epoch)->through;
    if (next > through + 1)
        next = through + 1; /* a floor that no trim explains */
    for (size_t i = k->first_place; i < k->first_place + k->n_places; i++) {
        const struct place *p = place_at(h, i);
        if (!p->in_log)
            continue;
        if (p->epoch != epoch || p->seq > e->id.seq) {
            violated(h, 3, k->name, k->head, NONE,
                     "the final log has %s, which is not below its head",
                     id_text((struct position){p->epoch, p->seq}).text);
            continue;
        }
        if (p->seq <= e->from.seq) {
            violated(h, 3, k->name, k->head, NONE, "the final log has %s, which is below its floor",
                     id_text((struct position){p->epoch, p->seq}).text);
            continue;
        }
        check_hole(h, k, epoch, next, p->seq - 1);
        next = p->seq + 1;
    }
    check_hole(h, k, epoch, next, e->id.seq);
}

/* H2 and H11: how often, and how whole, the final log has a message. */
static void check_copies(struct history *h)
{
    for (uint32_t i = 0; i < h->messages.count; i++) {
        struct message *m = message_at(h, i);
        if (m->logged == 0 || m->bad)
            continue;
        bool twice = m->logged > m->n;
        uint64_t span = m->log_last - m->log.seq + 1;
        uint64_t missing = m->n - m->logged;
        bool torn = !twice && (span != m->logged ||
                               (missing && (m->log.seq <= missing ||
                                            !is_gone(h, m->key, m->log.epoch, m->log.seq - 1))));
        if (!twice && !torn)
            continue;
        m->bad = true;
        violated(h, m->ack != NONE && twice ? 2 : 11, m->key, m->submit, m->log_rank,
                 "the final log has message %llu %s", (unsigned long long)m->msg,
                 twice ? "more than once" : "in part");
    }
}

/* H7 and H8, in the order of the log. */
static void check_order(struct history *h)
{
    table_clear(&h->scratch);
    for (size_t i = 0; i < h->places.count; i++) {
        const struct place *p = place_at(h, i);
        if (p->message == NONE)
            continue;
        const struct message *m = message_at(h, p->message);
        if (m->bad || p->seq != m->at.seq || p->epoch != m->at.epoch)
            continue;
        if (m->floor != NONE) {
            const struct history_entry *before = entry_at(h, m->floor);
            if (before->id.epoch == p->epoch && p->seq <= before->id.seq) {
                violated(h, 8, m->key, m->submit, m->floor,
                         "message %llu stands at seq %llu, before one acknowledged earlier than it "
                         "was submitted",
                         (unsigned long long)m->msg, (unsigned long long)p->seq);
                continue;
            }
        }
        /* Who was told that it is unknown may see it come late, behind what it submitted since. */
        if (m->pseq == 0 || m->ack == NONE)
            continue;
        uint32_t *last = table_at(&h->scratch, m->key, m->who);
        if (*last != NONE && message_at(h, *last)->at.epoch == p->epoch &&
            message_at(h, *last)->pseq >= m->pseq)
            violated(h, 7, m->key, m->submit, message_at(h, *last)->submit,
                     "publisher %.*s: its publish %llu stands behind its publish %llu",
                     SLICE_FMT(history_text(h, m->who)), (unsigned long long)m->pseq,
                     (unsigned long long)message_at(h, *last)->pseq);
        *last = p->message;
    }
}

/* For readers: what supersedes each place, and when all before it was submitted. */
static void link_places(struct history *h)
{
    const struct place *before = NULL;
    for (size_t i = 0; i < h->places.count; before = place_at(h, i), i++) {
        struct place *p = place_at(h, i);
        if (before && before->key == p->key && before->epoch == p->epoch)
            p->submitted = before->submitted;
        if (p->message != NONE && message_at(h, p->message)->submit + 1 > p->submitted)
            p->submitted = message_at(h, p->message)->submit + 1;
    }
    table_clear(&h->scratch);
    for (size_t i = h->places.count; i-- > 0;) {
        struct place *p = place_at(h, i);
        const struct message *m = p->message == NONE ? NULL : message_at(h, p->message);
        if (!m || !m->conflate)
            continue;
        uint32_t *next = table_at(&h->scratch, p->key, m->conflate);
        if (*next != NONE && place_at(h, *next)->epoch == p->epoch) {
            const struct place *n = place_at(h, *next);
            uint32_t submit = message_at(h, n->message)->submit;
            p->superseded = submit < n->superseded ? submit : n->superseded;
        }
        *next = (uint32_t)i;
    }
}

void build_places(struct history *h)
{
    struct claim *c = h->claims.data;
    if (h->claims.count > 0)
        qsort(c, h->claims.count, sizeof *c, by_position);
    merge_claims(h);
    for (size_t i = 0; i < h->keys.count; i++) {
        const struct key *k = (struct key *)h->keys.data + i;
        if (k->dumped)
            check_dump(h, k);
    }
    check_copies(h);
    check_order(h);
    link_places(h);
}
