/* CORE. GET /log reads pages straight from the shard (mode ALL) until the limit, the head or
 * LOG_ANSWER_MAX_BYTES is reached; DELETE /log asks the shard to purge. While nobody serves the key
 * both wait a little (READ_TIMEOUT_MS), since a shard restarts within that. */
#include "common/json.h"
#include "gateway/core.h"
#include "proto/filter.h"

struct log_query {
    struct call call;
    struct timer timer;
    struct waiter waiter;
    struct slice key; /* points behind the struct */
    uint16_t slot;
    bool ndjson;
    bool tell_miss; /* the client named a position */
    bool missed;
    struct miss miss;
    struct position after, head;
    uint64_t last, limit, count;
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
    m.replay_req.max_items = q->limit - q->count;
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

/* What a handler sent to certain connections is not for who reads the log. */
static bool is_for_readers(const struct event_item *item)
{
    static const struct slice nobody;
    return !(item->flags & EVENT_TRANSIENT) &&
           (item->filter.size == 0 || filter_admits(item->filter, nobody, nobody, NULL, 0));
}

static void query_take(struct log_query *q, uint64_t epoch, const struct event_item *item)
{
    if (!is_for_readers(item))
        return;
    struct event e = event_of(item);
    if (!q->ndjson && q->count > 0)
        strbuf_put_byte(&q->events, ',');
    event_json_put(&q->events, epoch, &e, item->conflate);
    if (q->ndjson)
        strbuf_put_byte(&q->events, '\n');
    q->count++;
}

void log_on_replay(struct gateway *g, struct call *call, const struct message *m)
{
    struct log_query *q = query_of(call);
    const struct msg_replay *r = &m->replay;
    struct miss miss;
    if (!q->missed && q->tell_miss && replay_miss(m, q->after, &miss)) {
        q->missed = true;
        q->miss = miss;
    }
    size_t i = 0;
    for (; i < r->items.count && q->count < q->limit; i++)
        query_take(q, r->room_epoch, &r->items.at[i]);
    bool moved = !position_equal(q->after, (struct position){r->room_epoch, r->after});
    bool more = !r->eof || i < r->items.count;
    q->head = (struct position){r->room_epoch, r->head};
    q->after = (struct position){r->room_epoch, r->after};
    q->last = 0;
    if (more && moved && q->count < q->limit && q->events.size < LOG_ANSWER_MAX_BYTES) {
        query_send(g, q);
        return;
    }
    query_answer(g, q, more);
    log_destroy(g, call);
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
