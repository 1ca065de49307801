/* CORE. The slot table. Each claimant keeps its ranges as it sent them; the table is worked out
 * anew from all of them whenever one changes, which is rare and takes some tens of microseconds; a
 * link that comes or goes changes the routing alone, unless somebody else claims the same slots.
 * Routing is then one array access.
 *
 * An epoch once heard for a slot is remembered: if its claimant withdraws, an older epoch does not
 * win again, since who held it has given the slot away. */
#include "proto/slots.h"

#include "common/list.h"
#include "common/mem.h"

struct claimant {
    struct list all; /* in slots->claimants */
    uint32_t peer;
    bool up;
    uint8_t node[16];
    uint64_t boot;
    struct slot_range *ranges; /* owned */
    size_t n_ranges;
    unsigned owned; /* slots won */
};

struct slots {
    struct list claimants;
    uint64_t heard[SLOT_COUNT];          /* highest epoch ever claimed, 0: none */
    struct claimant *winner[SLOT_COUNT]; /* NULL: nobody, or contested */
    bool contested[SLOT_COUNT];
    unsigned n_contested;
    unsigned routable; /* slots whose winner is up */
    bool rivals;       /* some slot has been claimed twice: who is up decides more than routing */
};

struct slots *slots_create(void)
{
    struct slots *s = mem_zalloc(sizeof *s);
    list_init(&s->claimants);
    return s;
}

static void claimant_free(struct claimant *c)
{
    list_remove(&c->all);
    mem_free(c->ranges);
    mem_free(c);
}

void slots_destroy(struct slots **s)
{
    if (!*s)
        return;
    LIST_EACH(cursor, after, &(*s)->claimants)
    claimant_free(LIST_ENTRY(cursor, struct claimant, all));
    mem_free(*s);
    *s = NULL;
}

static struct claimant *find(const struct slots *s, uint32_t peer)
{
    LIST_EACH(cursor, after, &s->claimants)
    {
        struct claimant *c = LIST_ENTRY(cursor, struct claimant, all);
        if (c->peer == peer)
            return c;
    }
    return NULL;
}

/* Whether two claims of one slot and epoch can both be honest: one process behind two links, or a
 * process that now runs elsewhere while its old link is down. */
static bool same_owner(const struct claimant *a, const struct claimant *b)
{
    if (memcmp(a->node, b->node, sizeof a->node) != 0)
        return false;
    return a->boot == b->boot || !a->up || !b->up;
}

static void claim_slot(struct slots *s, struct claimant *c, uint64_t slot, uint64_t epoch)
{
    struct claimant *rival = s->winner[slot];
    s->rivals |= rival || s->contested[slot];
    if (epoch < s->heard[slot] || epoch == 0)
        return;
    if (epoch > s->heard[slot]) {
        s->heard[slot] = epoch;
        s->contested[slot] = false;
        s->winner[slot] = c;
    } else if (s->contested[slot]) {
        return;
    } else if (rival && !same_owner(rival, c)) {
        s->contested[slot] = true;
        s->winner[slot] = NULL;
    } else if (!rival || !rival->up) {
        s->winner[slot] = c;
    }
}

static void claim_all(struct slots *s, struct claimant *c)
{
    for (size_t i = 0; i < c->n_ranges; i++)
        for (uint64_t slot = c->ranges[i].lo; slot <= c->ranges[i].hi; slot++)
            claim_slot(s, c, slot, c->ranges[i].epoch);
}

static void rebuild(struct slots *s)
{
    memset(s->winner, 0, sizeof s->winner);
    memset(s->contested, 0, sizeof s->contested);
    s->n_contested = s->routable = 0;
    s->rivals = false;
    LIST_EACH(cursor, after, &s->claimants)
    {
        struct claimant *c = LIST_ENTRY(cursor, struct claimant, all);
        c->owned = 0;
        claim_all(s, c);
    }
    for (unsigned slot = 0; slot < SLOT_COUNT; slot++) {
        struct claimant *c = s->winner[slot];
        s->n_contested += s->contested[slot];
        if (c) {
            c->owned++;
            s->routable += c->up;
        }
    }
}

/* The claim of somebody who had none: what others have stays, if they want other slots. */
static void extend(struct slots *s, struct claimant *c)
{
    if (!s->rivals)
        claim_all(s, c);
    if (s->rivals) {
        rebuild(s);
        return;
    }
    for (size_t i = 0; i < c->n_ranges; i++)
        for (uint64_t slot = c->ranges[i].lo; slot <= c->ranges[i].hi; slot++)
            c->owned += s->winner[slot] == c;
    s->routable += c->owned;
}

static bool ranges_valid(const struct slot_range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ranges[i].lo > ranges[i].hi || ranges[i].hi >= SLOT_COUNT)
            return false;
    return true;
}

static bool ranges_same(const struct slot_range *a, const struct slot_range *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (a[i].lo != b[i].lo || a[i].hi != b[i].hi || a[i].epoch != b[i].epoch)
            return false;
    return true;
}

void slots_claim(struct slots *s, uint32_t peer, const uint8_t node[16], uint64_t boot,
                 const struct slot_range *ranges, size_t count, struct log *log)
{
    STOA_ASSERT(peer != 0 && ranges_valid(ranges, count)); /* message_decode refuses others */
    struct claimant *c = find(s, peer);
    if (!c) {
        c = mem_zalloc(sizeof *c);
        c->peer = peer;
        list_push_back(&s->claimants, &c->all);
    }
    bool known = c->n_ranges == count && ranges_same(c->ranges, ranges, count);
    if (known && !s->rivals) { /* its link was down, or it only said so again */
        memcpy(c->node, node, sizeof c->node);
        c->boot = boot;
        s->routable += c->up ? 0 : c->owned;
        c->up = true;
        return;
    }
    bool fresh = c->n_ranges == 0;
    mem_free(c->ranges);
    c->ranges = count ? mem_dup(ranges, count * sizeof *ranges) : NULL;
    c->n_ranges = count;
    memcpy(c->node, node, sizeof c->node);
    c->boot = boot;
    c->up = true;
    unsigned contested_before = s->n_contested;
    if (fresh)
        extend(s, c);
    else
        rebuild(s);
    if (s->n_contested > contested_before)
        LOG(log, LOG_ERROR, "slots.contested", LOG_U64("peer", peer),
            LOG_U64("slots", s->n_contested));
    else if (s->n_contested < contested_before)
        LOG(log, LOG_INFO, "slots.settled", LOG_U64("peer", peer),
            LOG_U64("still_contested", s->n_contested));
}

void slots_peer_down(struct slots *s, uint32_t peer)
{
    struct claimant *c = find(s, peer);
    if (!c || !c->up)
        return;
    c->up = false;
    if (s->rivals)
        rebuild(s);
    else
        s->routable -= c->owned;
}

void slots_forget(struct slots *s, uint32_t peer)
{
    struct claimant *c = find(s, peer);
    if (!c)
        return;
    claimant_free(c);
    rebuild(s);
}

struct slot_owner slots_owner(const struct slots *s, uint16_t slot)
{
    STOA_ASSERT(slot < SLOT_COUNT);
    const struct claimant *c = s->winner[slot];
    return (struct slot_owner){.peer = c && c->up ? c->peer : 0, .epoch = s->heard[slot]};
}

unsigned slots_owned(const struct slots *s, uint32_t peer)
{
    const struct claimant *c = find(s, peer);
    return c ? c->owned : 0;
}

unsigned slots_unowned(const struct slots *s)
{
    return SLOT_COUNT - s->routable;
}
