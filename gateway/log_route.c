/* CORE. GET /log reads pages straight from the shard (mode ALL) until the limit, the head or
 * LOG_ANSWER_MAX_BYTES is reached; DELETE /log asks the shard to purge. While nobody serves the key
 * both wait a little (READ_TIMEOUT_MS), since a shard restarts within that.
 *
 * A reader without the right `manage` gets the events that are for his token's id and tags. `limit`
 * and `last` count those, and `more` says that one of them follows. The shard knows nothing of
 * readers: when among the newest `last` events some were not for this one, ever longer ends of the
 * log are looked through for the place from which on there are enough, and then it is read from
 * there. */
#include "common/json.h"
#include "gateway/core.h"
#include "proto/filter.h"

#define SEEK_FACTOR 8 /* how much longer an end of the log is looked through each time */

struct log_query {
    struct call call;
    struct timer timer;
    struct waiter waiter;
    struct slice key; /* points behind the struct */
    uint16_t slot;
    struct identity *reader; /* whose events are read, one reference; NULL: everybody's */
    bool filtered;           /* some were not for the reader */
    bool ndjson;
    bool tell_miss; /* the client named a position */
    bool missed;
    struct miss miss;
    struct position after, head;
    uint64_t last, limit, count;
    uint64_t wanted;      /* `last` of the request, until the place to read from is known */
    uint64_t *seqs;       /* seeking that: of the newest `wanted` for the reader, a ring; owned */
    uint64_t window;      /* seeking: in the newest so many events */
    uint64_t seen, found; /* of them, and those for the reader */
    int64_t deadline_ns;
    struct strbuf events;
};

struct purge {
    struct call call;
    struct timer timer;
    struct waiter waiter;
    struct slice key; /* points behind the struct */
    uint16_t slot;
    int64_t deadline_ns;
};

/* ---- reading ---- */

static struct log_query *query_of(struct call *call)
{
    return LIST_ENTRY(call, struct log_query, call);
}

void log_destroy(struct gateway *g, struct call *call)
{
    struct log_query *q = query_of(call);
    waiter_drop(g, &q->waiter);
    timer_stop(g, &q->timer);
    call_end(g, call);
    strbuf_free(&q->events);
    identity_unref(q->reader);
    mem_free(q->seqs);
    mem_free(q);
}

static void wait_for_owner(struct gateway *g, struct timer *t, int64_t deadline_ns)
{
    int64_t due = g->now.mono_ns + READ_RETRY_MS * NS_PER_MS;
    timer_set(g, t, due < deadline_ns ? due : deadline_ns);
}

static void query_send(struct gateway *g, struct log_query *q)
{
    uint32_t owner = slots_owner(g->slots, q->slot).peer;
    call_end(g, &q->call);
    if (owner == 0) {
        wait_for_owner(g, &q->timer, q->deadline_ns);
        call_begin(g, &q->call, CALL_LOG, 0);
        return;
    }
    call_begin(g, &q->call, CALL_LOG, owner);
    timer_set(g, &q->timer, q->deadline_ns);
    struct message m = {.type = MSG_REPLAY_REQ, .cid = q->call.cid, .slot = q->slot, .key = q->key};
    m.replay_req.epoch = q->after.epoch;
    m.replay_req.after = q->after.seq;
    m.replay_req.max_bytes = REPLAY_PAGE_MAX_BYTES;
    if (!q->filtered) /* one more tells whether there is more */
        m.replay_req.max_items = q->limit - q->count + 1;
    m.replay_req.mode = REPLAY_ALL;
    m.replay_req.last = q->last;
    hub_send(g->hub, owner, &m);
}

static void query_fire(struct gateway *g, struct timer *t)
{
    struct log_query *q = LIST_ENTRY(t, struct log_query, timer);
    if (g->now.mono_ns < q->deadline_ns) {
        query_send(g, q);
        return;
    }
    waiter_error(g, &q->waiter, "Moving", "no shard answers for this key just now; retry later");
    log_destroy(g, &q->call);
}

static void query_answer(struct gateway *g, struct log_query *q, bool more)
{
    struct strbuf out = {0};
    if (q->ndjson) {
        if (q->missed) {
            strbuf_put_text(&out, "{\"missed\":");
            miss_put(&out, &q->miss);
            strbuf_put_text(&out, "}\n");
        }
        strbuf_put_slice(&out, strbuf_slice(&q->events));
        waiter_answer(g, &q->waiter, "application/x-ndjson", strbuf_slice(&out));
        strbuf_free(&out);
        return;
    }
    strbuf_put_text(&out, "{\"key\":");
    json_quote(&out, q->key);
    strbuf_put_text(&out, ",\"head\":\"");
    event_id_put(&out, q->head);
    strbuf_put_text(&out, "\",\"events\":[");
    strbuf_put_slice(&out, strbuf_slice(&q->events));
    strbuf_put_byte(&out, ']');
    if (q->missed) {
        strbuf_put_text(&out, ",\"missed\":");
        miss_put(&out, &q->miss);
    }
    strbuf_put_text(&out, more ? ",\"more\":true}" : ",\"more\":false}");
    waiter_answer(g, &q->waiter, "application/json", strbuf_slice(&out));
    strbuf_free(&out);
}

static bool is_for_reader(struct log_query *q, const struct event_item *item)
{
    const struct identity *who = q->reader;
    if (item->flags & EVENT_TRANSIENT)
        return false;
    if (item->filter.size == 0 || !who ||
        filter_admits(item->filter, slice_of(NULL, 0), who->id, who->tags.at, who->tags.count))
        return true;
    q->filtered = true;
    return false;
}

static void query_take(struct log_query *q, uint64_t epoch, const struct event_item *item)
{
    struct event e = event_of(item);
    if (!q->ndjson && q->count > 0)
        strbuf_put_byte(&q->events, ',');
    event_json_put(&q->events, epoch, &e, item->conflate);
    if (q->ndjson)
        strbuf_put_byte(&q->events, '\n');
    q->count++;
}

static void seek_begin(struct gateway *g, struct log_query *q, uint64_t window)
{
    if (!q->seqs)
        q->seqs = mem_alloc(q->wanted * sizeof *q->seqs);
    q->window = q->last = window;
    q->seen = q->found = 0;
    query_send(g, q);
}

/* The place is known: reads from there. */
static void seek_end(struct gateway *g, struct log_query *q, uint64_t epoch)
{
    uint64_t first = q->seqs[q->found > q->wanted ? q->found % q->wanted : 0];
    mem_free(q->seqs);
    q->seqs = NULL;
    q->wanted = 0;
    q->count = 0;
    strbuf_reset(&q->events);
    q->after = (struct position){epoch, first - 1};
    query_send(g, q);
}

static void seek_on_page(struct gateway *g, struct log_query *q, const struct msg_replay *r,
                         bool goes_on)
{
    for (size_t i = 0; i < r->items.count; i++) {
        const struct event_item *item = &r->items.at[i];
        q->seen += !(item->flags & EVENT_TRANSIENT);
        if (is_for_reader(q, item))
            q->seqs[q->found++ % q->wanted] = item->seq;
    }
    if (goes_on) {
        query_send(g, q);
    } else if (q->found < q->wanted && q->seen >= q->window) {
        seek_begin(g, q, SEEK_FACTOR * q->window);
    } else if (q->found > 0) {
        seek_end(g, q, r->room_epoch);
    } else {
        strbuf_reset(&q->events);
        query_answer(g, q, false);
        log_destroy(g, &q->call);
    }
}

void log_on_replay(struct gateway *g, struct call *call, const struct message *m)
{
    struct log_query *q = query_of(call);
    const struct msg_replay *r = &m->replay;
    bool moved = !position_equal(q->after, (struct position){r->room_epoch, r->after});
    bool goes_on = moved && !r->eof, over = false;
    struct miss miss;
    if (!q->missed && q->tell_miss && replay_miss(m, q->after, &miss)) {
        q->missed = true;
        q->miss = miss;
    }
    q->head = (struct position){r->room_epoch, r->head};
    q->after = (struct position){r->room_epoch, r->after};
    q->last = 0;
    if (q->seqs) {
        seek_on_page(g, q, r, goes_on);
        return;
    }
    for (size_t i = 0; i < r->items.count && !over; i++) {
        if (!is_for_reader(q, &r->items.at[i]))
            continue;
        over = q->count == q->limit;
        if (!over)
            query_take(q, r->room_epoch, &r->items.at[i]);
    }
    if (q->wanted > 0 && q->filtered) {
        seek_begin(g, q, SEEK_FACTOR * q->wanted);
    } else if (goes_on && !over && q->events.size < LOG_ANSWER_MAX_BYTES) {
        query_send(g, q);
    } else {
        query_answer(g, q, over || !r->eof);
        log_destroy(g, call);
    }
}

void log_on_nack(struct gateway *g, struct call *call, const struct message *m)
{
    (void)m;
    log_peer_down(g, call);
}

void log_peer_down(struct gateway *g, struct call *call)
{
    struct log_query *q = query_of(call);
    call->peer = 0;
    wait_for_owner(g, &q->timer, q->deadline_ns);
}

/* Position and counts from the request; false: answered. */
static bool query_read(struct exchange *x, struct log_query *q)
{
    struct strbuf after = {0};
    int found = http_query_get(x->request->query, "after", &after);
    bool fine = true;
    q->limit = LOG_LIMIT_DEFAULT;
    if (found == ERR_OK) {
        q->tell_miss = true;
        fine = event_id_parse(strbuf_slice(&after), &q->after) == ERR_OK;
    }
    strbuf_free(&after);
    if (!fine || found == ERR_INVALID) {
        exchange_error(x, "BadId", "after: an id as it was received, or 0 for everything");
        return false;
    }
    if (!exchange_number(x, "limit", 1, LOG_LIMIT_MAX, &q->limit) ||
        !exchange_number(x, "last", 1, LOG_LIMIT_MAX, &q->last))
        return false;
    if (q->last > 0 && q->tell_miss) {
        exchange_error(x, "BadRequest", "give after or last, not both");
        return false;
    }
    q->wanted = q->last;
    if (q->last > 0)
        q->limit = q->last;
    q->ndjson =
        http_header_has_token(http_header_get(x->request, "Accept"), "application/x-ndjson");
    return true;
}

void route_log(struct exchange *x)
{
    struct gateway *g = x->g;
    struct log_query *q = mem_zalloc(sizeof *q + x->key.size);
    q->key = slice_of(q + 1, x->key.size);
    memcpy(q + 1, x->key.data, x->key.size);
    if (!query_read(x, q)) {
        mem_free(q);
        return;
    }
    if (!identity_may(x->who, RIGHT_MANAGE, q->key))
        q->reader = identity_ref(x->who);
    q->slot = slot_of(q->key, g->options.slot_seed);
    q->deadline_ns = g->now.mono_ns + READ_TIMEOUT_MS * NS_PER_MS;
    q->timer.fire = query_fire;
    waiter_begin(g, &q->waiter, x->client, exchange_cors(x));
    query_send(g, q);
}

/* ---- purging ---- */

static struct purge *purge_of(struct call *call)
{
    return LIST_ENTRY(call, struct purge, call);
}

void purge_destroy(struct gateway *g, struct call *call)
{
    struct purge *p = purge_of(call);
    waiter_drop(g, &p->waiter);
    timer_stop(g, &p->timer);
    call_end(g, call);
    mem_free(p);
}

/* A purge done twice is done once, so it may be sent again. */
static void purge_send(struct gateway *g, struct purge *p)
{
    uint32_t owner = slots_owner(g->slots, p->slot).peer;
    p->call.peer = owner;
    if (owner == 0) {
        wait_for_owner(g, &p->timer, p->deadline_ns);
        return;
    }
    timer_set(g, &p->timer, p->deadline_ns);
    struct message m = {.type = MSG_PURGE, .cid = p->call.cid, .slot = p->slot, .key = p->key};
    hub_send(g->hub, owner, &m);
}

static void purge_fire(struct gateway *g, struct timer *t)
{
    struct purge *p = LIST_ENTRY(t, struct purge, timer);
    if (g->now.mono_ns < p->deadline_ns) {
        purge_send(g, p);
        return;
    }
    if (p->call.peer)
        waiter_error(g, &p->waiter, "Unknown", "no answer in time; purge again to be sure");
    else
        waiter_error(g, &p->waiter, "Moving", "no shard serves this key just now; retry later");
    purge_destroy(g, &p->call);
}

void purge_on_pack(struct gateway *g, struct call *call, const struct message *m)
{
    struct purge *p = purge_of(call);
    struct strbuf out = {0};
    strbuf_put_text(&out, "{\"purged\":\"");
    event_id_put(&out, (struct position){m->pack.room_epoch, m->pack.seq});
    strbuf_put_text(&out, "\"}");
    waiter_answer(g, &p->waiter, "application/json", strbuf_slice(&out));
    strbuf_free(&out);
    purge_destroy(g, call);
}

void purge_on_nack(struct gateway *g, struct call *call, const struct message *m)
{
    struct purge *p = purge_of(call);
    if (m->nack.code != NACK_DISK) {
        purge_peer_down(g, call);
        return;
    }
    waiter_error(g, &p->waiter, "DiskFull", "the shard's disk is full; retry later");
    purge_destroy(g, call);
}

void purge_peer_down(struct gateway *g, struct call *call)
{
    struct purge *p = purge_of(call);
    call->peer = 0;
    wait_for_owner(g, &p->timer, p->deadline_ns);
}

void route_purge(struct exchange *x)
{
    struct gateway *g = x->g;
    struct purge *p = mem_zalloc(sizeof *p + x->key.size);
    p->key = slice_of(p + 1, x->key.size);
    memcpy(p + 1, x->key.data, x->key.size);
    p->slot = slot_of(p->key, g->options.slot_seed);
    p->deadline_ns = g->now.mono_ns + READ_TIMEOUT_MS * NS_PER_MS;
    p->timer.fire = purge_fire;
    waiter_begin(g, &p->waiter, x->client, exchange_cors(x));
    call_begin(g, &p->call, CALL_PURGE, 0);
    purge_send(g, p);
}
