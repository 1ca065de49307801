/* CORE. One key on one session.
 *
 *   WAITING   the room is not subscribed at its shard, or its chain is being repaired
 *   CATCHUP   fed by pages of the log after `pos`; live events pass it by
 *   LIVE      fed by the room's queue; events with seq <= pos.seq are skipped
 *   LAGGING   too much waits on its connection: nothing is written, only `pos` is kept
 *
 *   WAITING --room settled--> LIVE (nothing to replay) or CATCHUP
 *   CATCHUP --page reaches the room's head--> LIVE --queue too long--> LAGGING --drained--> CATCHUP
 *
 * With a member it waits until that is let in as well, and what the room does from then on is for
 * it: up to the member's head it is fed from the log as anybody, behind it with the transient
 * items.
 *
 * The first word about the key (live, resumed, missed) goes out when the room's head is known and,
 * if something is replayed, the first page is there; nothing of the key precedes it. */
#include "gateway/core.h"

#include "common/mutant.h"

#define LOOK_FACTOR 4

struct subscription *subscription_open(struct gateway *g, struct session *s, struct slice key,
                                       const struct start *start, struct strbuf *request)
{
    struct room *room = room_open(g, key);
    if (!room)
        return NULL;
    struct subscription *sub = mem_zalloc(sizeof *sub);
    sub->room = room;
    sub->session = s;
    sub->pos = start->after;
    sub->last = sub->wanted = start->last;
    sub->start = (uint8_t)start->kind;
    sub->whole = start->whole;
    sub->overhears = start->overhears;
    sub->bare = start->bare;
    sub->since_ms = start->since_ms;
    sub->state = SUBS_WAITING;
    sub->fresh = true;
    list_init(&sub->in_pull);
    list_push_back(&room->subs, &sub->in_room);
    list_push_back(&s->subs, &sub->in_session);
    room->n_subs++;
    s->n_subs++;
    list_remove(&room->idle);
    subscription_identify(g, sub, start->who);
    if (start->presence)
        presence_open(sub);
    if (request)
        member_open(g, sub, request);
    if (room->owner && !room->subscribed && !room->sub_cid)
        room_sub_send(g, room);
    else
        subscription_kick(g, sub);
    /* The first word may have ended the session (raw, past a gap). */
    return sub;
}

void subscription_kick(struct gateway *g, struct subscription *sub)
{
    bool settled = room_settled(sub->room);
    if (sub->member && settled)
        member_settled(g, sub->member);
    bool may = sub->member ? sub->member->joined : settled;
    if (sub->session->hold && may)
        hold_release(g, sub->session);
    else if (sub->state == SUBS_CATCHUP)
        subscription_feed(g, sub);
    else if (sub->state == SUBS_WAITING && sub->session->established && settled && may)
        subscription_begin(g, sub);
}

static bool unfed(enum sub_state state)
{
    return state == SUBS_CATCHUP || state == SUBS_LAGGING;
}

void subscription_state(struct gateway *g, struct subscription *sub, enum sub_state state)
{
    struct session *s = sub->session;
    s->n_unfed += unfed(state);
    s->n_unfed -= unfed(sub->state);
    if (sub->state == SUBS_LAGGING && --s->n_lagging == 0) {
        list_remove(&s->lag);
        metric_move(g->m.lagging, -1);
    }
    if (state == SUBS_LAGGING && s->n_lagging++ == 0) {
        s->lag_due_ns = g->now.mono_ns + CONN_LAG_MAX_MS * NS_PER_MS;
        list_push_back(&g->lagging, &s->lag);
        if (!heap_has(&g->lag_timer.node))
            timer_set(g, &g->lag_timer, s->lag_due_ns);
        metric_move(g->m.lagging, 1);
    }
    sub->state = (uint8_t)state;
}

void subscription_free(struct gateway *g, struct subscription *sub)
{
    struct room *room = sub->room;
    member_leave(g, sub, 1000, slice_of(NULL, 0), true); /* unless it was said already */
    subscription_state(g, sub, SUBS_WAITING);
    list_remove(&sub->in_pull);
    list_remove(&sub->in_room);
    list_remove(&sub->in_session);
    sub->session->n_subs--;
    room->n_subs--;
    presence_free(sub);
    subscription_unidentify(g, sub);
    mem_free(sub);
    room_left(g, room);
}

struct subscription *subscription_find(const struct session *s, const struct room *room)
{
    LIST_EACH(cursor, after, &s->subs)
    {
        struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_session);
        if (sub->room == room)
            return sub;
    }
    return NULL;
}

/* The first word, when nothing is missed. False: the subscription is gone. */
static bool greet(struct gateway *g, struct subscription *sub, struct position head)
{
    sub->fresh = false;
    enum sub_status status = sub->start == START_LIVE ? SUB_LIVE : SUB_RESUMED;
    if (!sub->session->dialect->tell(g, sub, status, NULL, head))
        return false;
    presence_reach(g, sub);
    return true;
}

static bool begins_at_position(const struct subscription *sub)
{
    return sub->start == START_AFTER || sub->pinned;
}

/* A reader whose ids tell no history means this one; an id that is not reached yet is of another,
 * of which nothing is left: it gets what there is. */
static void bare_resolve(struct subscription *sub, struct position head)
{
    if (!sub->bare)
        return;
    sub->bare = false;
    sub->pos.epoch = head.epoch;
    if (sub->pos.seq > head.seq) {
        sub->start = START_ALL;
        sub->pos = (struct position){0};
    }
}

void subscription_begin(struct gateway *g, struct subscription *sub)
{
    const struct room *room = sub->room;
    STOA_ASSERT(sub->state == SUBS_WAITING && room_settled(room) && sub->session->established);
    struct position head = room_position(room);
    bare_resolve(sub, head);
    if (sub->pinned && sub->pos.epoch == room->epoch && sub->pos.seq >= room->flushed) {
        subscription_state(g, sub, SUBS_LIVE); /* the rest is in the room's queue, or to come */
        greet(g, sub, sub->pos);
        return;
    }
    bool nothing = begins_at_position(sub) ? position_equal(sub->pos, head)
                                           : sub->start == START_LIVE || head.seq == 0;
    if (!nothing) {
        subscription_state(g, sub, SUBS_CATCHUP);
        subscription_feed(g, sub);
        return;
    }
    sub->pos = head;
    if (!STOA_MUTANT(WISH_STAYS))
        sub->last = 0; /* there was nothing to give; what it lags behind later is all its own */
    subscription_state(g, sub, SUBS_LIVE);
    greet(g, sub, head);
}

/* Whether everything behind `pos` is in the room's queue or still to come. */
static bool reaches_live(const struct subscription *sub)
{
    const struct room *room = sub->room;
    /* A room of another epoch either has not heard of its first event, or has lost its history. */
    if (STOA_MUTANT(UNBORN_IS_LIVE) && room->epoch == 0)
        return !sub->fresh;
    return !sub->fresh && !sub->astray && sub->pos.epoch == room->epoch &&
           (sub->pos.seq >= room->flushed || STOA_MUTANT(LIVE_EARLY));
}

void subscription_feed(struct gateway *g, struct subscription *sub)
{
    STOA_ASSERT(sub->state == SUBS_CATCHUP);
    if (sub->pull || sub->session->queued > PULL_QUEUE_MAX || !sub->room->subscribed)
        return;
    if (room_settled(sub->room) && reaches_live(sub)) {
        sub->lagged = false;
        subscription_state(g, sub, SUBS_LIVE);
        return;
    }
    pull_join(g, sub);
}

void subscription_lag(struct gateway *g, struct subscription *sub)
{
    sub->lagged = true;
    subscription_state(g, sub, SUBS_LAGGING);
}

bool subscription_miss(struct gateway *g, struct subscription *sub, struct miss miss,
                       struct position head)
{
    if (sub->lagged && (miss.reason == MISS_EXPIRED || miss.reason == MISS_EVICTED))
        miss.reason = MISS_SLOW;
    metric_add(g->m.missed[miss.reason], 1);
    sub->fresh = sub->astray = false;
    sub->pos = miss.to;
    if (!sub->session->dialect->tell(g, sub, SUB_MISSED, &miss, head))
        return false;
    presence_missed(g, sub, miss.reason);
    return true;
}

/* What came behind a member's head is gone already. */
static bool owed_is_gone(const struct subscription *sub, const struct message *m)
{
    const struct member *mb = sub->member;
    return mb && m->replay.room_epoch == mb->head.epoch && m->replay.miss_to > mb->head.seq;
}

/* Words that precede the page's events. False: the subscription is gone. Who wants all there is
 * hears nothing of what is gone, unless it was there when that happened. */
static bool page_begin(struct gateway *g, struct subscription *sub, const struct message *m)
{
    struct miss miss;
    struct position head = {m->replay.room_epoch, m->replay.head};
    bool wants_all = sub->fresh && !begins_at_position(sub);
    if (wants_all && owed_is_gone(sub, m)) {
        sub->pos = sub->member->head;
        wants_all = false;
    }
    if (!wants_all && replay_miss(m, sub->pos, &miss))
        return subscription_miss(g, sub, miss, head);
    return !sub->fresh || greet(g, sub, head);
}

/* How far a page is taken. One without transient items ends for a member at its head, or where what
 * is gone ends: the rest it is owed whole. */
static uint64_t page_end(const struct subscription *sub, const struct message *m, bool owed)
{
    const struct member *mb = sub->member;
    bool without = !sub->whole || sub->last > 0;
    if (!mb || owed || !without || m->replay.room_epoch != mb->head.epoch)
        return m->replay.after;
    uint64_t cut = owed_is_gone(sub, m) ? m->replay.miss_to : mb->head.seq;
    return m->replay.after > cut ? cut : m->replay.after;
}

static size_t events_up_to(const struct packs *packs, uint64_t seq)
{
    size_t count = packs->count;
    while (count > 0 && packs->events[count - 1].seq > seq)
        count--;
    return count;
}

/* Of the newest events some may be for others: then more of them are asked for, as long as one page
 * holds them. True: a page that has enough is on its way. Else *from is where to begin. */
static bool look_further(struct gateway *g, struct subscription *sub, const struct message *m,
                         const struct packs *packs, size_t to, size_t *from)
{
    size_t count;
    if (sub->last == 0 || sub->wanted == 0 || !packs->picky)
        return false;
    if (!m->replay.eof) { /* more than a page: what the page before had */
        bool longer = sub->last > sub->wanted;
        sub->wanted = 0;
        sub->last = longer ? sub->last / LOOK_FACTOR : sub->last;
        if (longer)
            subscription_feed(g, sub);
        return longer;
    }
    *from = packs_newest(packs, sub, to, sub->wanted, &count);
    if (count == sub->wanted || m->replay.items.count < sub->last)
        return false;
    sub->last *= LOOK_FACTOR;
    subscription_feed(g, sub);
    return true;
}

void subscription_page(struct gateway *g, struct subscription *sub, const struct message *m,
                       struct packs *packs)
{
    struct position before = sub->pos;
    bool was_fresh = sub->fresh;
    uint64_t end = page_end(sub, m, member_owed(sub->member, before));
    sub->pull = NULL;
    if (sub->state != SUBS_CATCHUP)
        return;
    size_t from = 0, to = events_up_to(packs, end);
    if (look_further(g, sub, m, packs, to, &from) || !page_begin(g, sub, m))
        return;
    sub->last = 0;
    sub->astray = false;
    if (from < to)
        packs_write(g, packs, sub, from, to);
    sub->pos = (struct position){m->replay.room_epoch, end};
    presence_reach(g, sub);
    bool moved = was_fresh || !position_equal(before, sub->pos);
    if (!moved && !reaches_live(sub)) {
        /* The room and the shard disagree about the head: the room finds out first. */
        room_retry(g, sub->room);
        return;
    }
    if (m->replay.eof && sub->pos.epoch != sub->room->epoch) {
        room_repair(g, sub->room); /* settled again, the room wakes its subscriptions */
        return;
    }
    subscription_feed(g, sub);
}
