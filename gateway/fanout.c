/* CORE. From events to bytes on many connections. Events of one room that arrive in one turn are
 * framed once per dialect into one packed buffer, and every subscriber is given a part of that same
 * buffer: all of it, or from a later frame on when it already has the first ones. Where a dialect's
 * frames carry what a client chose (orpc: what it called its stream), they are framed once for all
 * who chose the same; most do.
 *
 *   events     |  41  |  42  |  42e |  43  |          42e: ephemeral, carries the head's seq
 *   raw pack   [hdr pp|hdr pp|hdr pp|hdr pp]
 *   offsets    0      a      b      c      d          a subscriber at 42 gets [b, d)
 *
 * Only when an event of the pack is not for everybody is each subscriber looked at event by event;
 * who then gets them all, or one stretch of them, is still given a part of the shared buffer. */
#include "common/json.h"
#include "common/mutant.h"
#include "gateway/core.h"
#include "proto/filter.h"

#define COPY_MAX_BYTES (64 * KIB) /* a smaller pack is copied out of the scratch buffer */

#define FORM_PROBES 4 /* places where a form may be */

void packs_begin(struct packs *p, const struct room *room, uint64_t epoch,
                 const struct event *events, size_t count)
{
    *p = (struct packs){
        .events = events, .count = count, .source = {.epoch = epoch}, .key = room_key(room)};
}

/* The scratch buffer's memory becomes a buf of its own when copying it would cost more. */
static struct buf *scratch_take(struct gateway *g)
{
    if (g->scratch.size <= COPY_MAX_BYTES)
        return buf_copy_slice(strbuf_slice(&g->scratch));
    struct buf *b = buf_wrap(g->scratch.data, g->scratch.size, mem_free, g->scratch.data);
    g->scratch = (struct strbuf){0};
    return b;
}

static void pack_build(struct gateway *g, struct packs *p, struct pack *pack,
                       const struct session *s)
{
    if (pack->capacity < p->count + 1) {
        pack->capacity = 2 * (p->count + 1);
        pack->offsets = mem_realloc(pack->offsets, pack->capacity * sizeof *pack->offsets);
    }
    if (s->dialect->index == DIALECT_V1) {
        strbuf_reset(&g->quoted);
        json_quote(&g->quoted, p->key);
        p->source.quoted_key = strbuf_slice(&g->quoted);
    }
    p->source.form = s->form;
    strbuf_reset(&g->scratch);
    for (size_t i = 0; i < p->count; i++) {
        pack->offsets[i] = g->scratch.size;
        s->dialect->encode(&g->scratch, &p->source, &p->events[i]);
    }
    pack->offsets[p->count] = g->scratch.size;
    pack->bytes = scratch_take(g);
}

static void pack_drop(struct pack *pack)
{
    buf_unref(pack->bytes);
    pack->bytes = NULL;
    pack->form = NULL;
}

static bool same_form(const struct form *a, const struct form *b)
{
    return a == b ||
           (a->hash == b->hash && a->retry_ms == b->retry_ms && slice_equal(a->id, b->id));
}

/* Where the pack of this form is, or may be built. */
static struct pack *form_place(struct gateway *g, const struct form *form)
{
    struct pack *first = &g->forms[form->hash % FORMS_MAX];
    for (unsigned i = 0; i < FORM_PROBES; i++) {
        struct pack *at = &g->forms[(form->hash + i) % FORMS_MAX];
        if (!at->form || same_form(at->form, form))
            return at;
    }
    pack_drop(first);
    return first;
}

static struct pack *pack_for(struct gateway *g, struct packs *p, const struct session *s)
{
    struct pack *pack = s->form ? form_place(g, s->form) : &g->packs[s->dialect->index];
    if (!pack->bytes) {
        pack_build(g, p, pack, s);
        pack->form = s->form;
        p->formed |= s->form != NULL;
    }
    return pack;
}

/* Of a key without a handler a connection is who its token says. */
static bool admits(const struct subscription *sub, struct slice filter)
{
    const struct member *mb = sub->member;
    const struct identity *who = subscription_identity(sub);
    if (mb)
        return filter_admits(filter, slice_of(mb->name, mb->name_size), mb->id, mb->tags,
                             mb->n_tags);
    return who ? filter_admits(filter, slice_of(NULL, 0), who->id, who->tags.at, who->tags.count)
               : filter_admits(filter, slice_of(NULL, 0), slice_of(NULL, 0), NULL, 0);
}

/* A transient event is for those who are there when it happens. */
static bool is_for(const struct packs *p, const struct subscription *sub, const struct event *e)
{
    const struct member *mb = sub->member;
    struct position before = {p->source.epoch, e->seq - 1};
    if (!p->live && e->ts < sub->since_ms)
        return false;
    if ((e->flags & EVENT_PRESENCE) && !presence_is_for(sub, &p->source, e->seq))
        return false;
    if ((e->flags & EVENT_TRANSIENT) && !p->live && !member_owed(mb, before) &&
        !STOA_MUTANT(BROADCAST_REPLAYED))
        return false;
    if (e->filter.size == 0 || STOA_MUTANT(RECIPIENTS_IGNORED))
        return true;
    if (sub->overhears && !(e->flags & EVENT_TRANSIENT))
        return true;
    if (p->live && !mb && orpc_is_stale(sub->session) && filter_chooses(e->filter))
        return false;
    return admits(sub, e->filter);
}

size_t packs_newest(const struct packs *p, const struct subscription *sub, size_t to, uint64_t most,
                    size_t *count)
{
    size_t from = to;
    for (*count = 0; from > 0 && *count < most; from--)
        *count += is_for(p, sub, &p->events[from - 1]);
    return from;
}

/* Where the next stretch of events for the subscription begins and ends. */
static bool stretch_next(const struct packs *p, const struct subscription *sub, size_t *from,
                         size_t *end, size_t to)
{
    for (*from = *end; *from < to && !is_for(p, sub, &p->events[*from]); ++*from)
        ;
    if (*from == to)
        return false;
    for (*end = *from + 1; *end < to && is_for(p, sub, &p->events[*end]); ++*end)
        ;
    return true;
}

/* The stretches behind each other, in a buffer of their own. Returns the events in it. */
static size_t stretches_write(struct gateway *g, const struct packs *p, const struct pack *pack,
                              const struct subscription *sub, size_t from, size_t end, size_t to)
{
    size_t count = 0;
    strbuf_reset(&g->picked);
    do {
        strbuf_put(&g->picked, pack->bytes->data + pack->offsets[from],
                   pack->offsets[end] - pack->offsets[from]);
        count += end - from;
    } while (stretch_next(p, sub, &from, &end, to));
    struct buf *bytes = buf_copy_slice(strbuf_slice(&g->picked));
    session_write(g, sub->session, bytes, 0, bytes->size);
    buf_unref(bytes);
    return count;
}

static void picky_write(struct gateway *g, struct packs *p, const struct subscription *sub,
                        size_t from, size_t to)
{
    size_t end = from, next;
    if (!stretch_next(p, sub, &from, &end, to))
        return;
    const struct pack *pack = pack_for(g, p, sub->session);
    const size_t *offsets = pack->offsets;
    for (next = end; next < to && !is_for(p, sub, &p->events[next]); next++)
        ;
    size_t count = end - from;
    if (next < to)
        count = stretches_write(g, p, pack, sub, from, end, to);
    else
        session_write(g, sub->session, pack->bytes, offsets[from], offsets[end] - offsets[from]);
    metric_add(g->m.deliveries, count);
}

static bool is_picky(const struct packs *p, const struct subscription *sub)
{
    return p->picky || (!p->live && sub->since_ms != 0);
}

/* The next event for the session carries a comment: it is framed for it alone. Returns where what
 * is behind it begins. */
static size_t commented_write(struct gateway *g, struct packs *p, const struct subscription *sub,
                              size_t from, size_t to)
{
    struct session *s = sub->session;
    while (from < to && is_picky(p, sub) && !is_for(p, sub, &p->events[from]))
        from++;
    if (from == to)
        return to;
    p->source.form = s->form;
    strbuf_reset(&g->scratch);
    s->dialect->encode(&g->scratch, &p->source, &p->events[from]);
    strbuf_free(&s->form->comment);
    struct buf *bytes = buf_copy_slice(strbuf_slice(&g->scratch));
    session_write(g, s, bytes, 0, bytes->size);
    buf_unref(bytes);
    metric_add(g->m.deliveries, 1);
    return from + 1;
}

static void part_write(struct gateway *g, struct packs *p, const struct subscription *sub,
                       size_t from, size_t to)
{
    if (sub->session->form && sub->session->form->comment.size > 0)
        from = commented_write(g, p, sub, from, to);
    if (from == to)
        return;
    if (is_picky(p, sub)) {
        picky_write(g, p, sub, from, to);
        return;
    }
    const struct pack *pack = pack_for(g, p, sub->session);
    const size_t *offsets = pack->offsets;
    session_write(g, sub->session, pack->bytes, offsets[from], offsets[to] - offsets[from]);
    metric_add(g->m.deliveries, to - from);
}

void packs_write(struct gateway *g, struct packs *p, const struct subscription *sub, size_t from,
                 size_t to)
{
    STOA_ASSERT(from < to && to <= p->count);
    size_t cut = to;
    if (sub->session->dialect->take) {
        sub->session->dialect->take(g, sub, p->events + from, to - from);
        return;
    }
    if (sub->presence && sub->presence->list.size > 0)
        for (cut = from; cut < to; cut++)
            if (presence_due(sub, (struct position){p->source.epoch, p->events[cut].seq - 1}))
                break;
    if (cut == to) {
        part_write(g, p, sub, from, to);
        return;
    }
    if (cut > from)
        part_write(g, p, sub, from, cut);
    presence_tell(g, sub);
    part_write(g, p, sub, cut, to);
}

void packs_end(struct gateway *g, struct packs *p)
{
    for (unsigned i = 0; i < DIALECT_COUNT; i++)
        pack_drop(&g->packs[i]);
    for (unsigned i = 0; i < FORMS_MAX && p->formed; i++)
        pack_drop(&g->forms[i]);
}

/* ---- a room's queue ---- */

static void queue_grow(struct gateway *g, struct room *room)
{
    if (room->events_capacity == 0 && g->spare_events) {
        room->events = g->spare_events;
        room->events_capacity = g->spare_capacity;
        g->spare_events = NULL;
        return;
    }
    room->events_capacity = room->events_capacity ? 2 * room->events_capacity : 4;
    room->events = mem_realloc(room->events, room->events_capacity * sizeof *room->events);
}

void fanout_push(struct gateway *g, struct room *room, const struct event_item *item,
                 struct buf *packet)
{
    if (room->n_events == room->events_capacity)
        queue_grow(g, room);
    struct event *e = &room->events[room->n_events++];
    *e = event_of(item);
    e->packet = buf_ref(packet);
    room->events_bytes += item->payload.size;
    room->filtered |= item->filter.size > 0 || (item->flags & EVENT_PRESENCE);
    if (list_empty(&room->dirty))
        list_push_back(&g->rooms_dirty, &room->dirty);
    if (room->events_bytes >= FANOUT_MAX_BYTES)
        fanout_flush(g, room);
}

void fanout_discard(struct gateway *g, struct room *room)
{
    for (uint32_t i = 0; i < room->n_events; i++)
        buf_unref(room->events[i].packet);
    if (room->events && !g->spare_events && room->events_capacity <= COMMIT_MAX_EVENTS) {
        g->spare_events = room->events;
        g->spare_capacity = room->events_capacity;
    } else {
        mem_free(room->events);
    }
    room->events = NULL;
    room->n_events = room->events_capacity = 0;
    room->events_bytes = 0;
    room->filtered = false;
    room->flushed = room->last;
    list_remove(&room->dirty);
}

/* How many of the first events a reader at `seq` already has. An ephemeral event carries the seq of
 * the event before it. */
static size_t events_behind(const struct event *events, size_t count, uint64_t seq)
{
    size_t lo = 0;
    size_t hi = count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        bool ephemeral = (events[mid].flags & EVENT_EPHEMERAL) != 0;
        if (events[mid].seq > seq || (ephemeral && events[mid].seq == seq))
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* A timestamp is a shard's word, and may be anything. */
static int64_t age_ns(int64_t now_ms, int64_t ts)
{
    if (ts >= now_ms)
        return 0;
    uint64_t ms = (uint64_t)now_ms - (uint64_t)ts;
    return ms < INT64_MAX / NS_PER_MS ? (int64_t)ms * NS_PER_MS : INT64_MAX;
}

static void observe_delays(struct gateway *g, const struct room *room)
{
    for (uint32_t i = 0; i < room->n_events; i++)
        metric_observe_ns(g->m.delivery, age_ns(g->now.wall_ms, room->events[i].ts));
}

void fanout_flush(struct gateway *g, struct room *room)
{
    struct packs packs;
    packs_begin(&packs, room, room->epoch, room->events, room->n_events);
    packs.live = true;
    packs.picky = room->filtered;
    LIST_EACH(cursor, after, &room->subs)
    {
        struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_room);
        if (sub->state != SUBS_LIVE)
            continue;
        if (sub->session->queued > CONN_QUEUE_MAX_BYTES) {
            subscription_lag(g, sub);
            continue;
        }
        size_t skip = sub->pos.seq <= room->flushed && sub->pos.seq < room->events[0].seq
                          ? 0
                          : events_behind(room->events, room->n_events, sub->pos.seq);
        if (STOA_MUTANT(FANOUT_REPEATS))
            skip = 0;
        if (skip == room->n_events)
            continue;
        packs_write(g, &packs, sub, skip, room->n_events);
        sub->pos = room_position(room);
        presence_reach(g, sub);
    }
    packs_end(g, &packs);
    observe_delays(g, room);
    fanout_discard(g, room);
}
