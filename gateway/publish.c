/* CORE. Publishes in flight. Each is kept until its answer or PUBLISH_TIMEOUT_MS, and sent again
 * under the same msg_id when an attempt was refused for now (NACK) or its answer may be lost (LOST,
 * link down); the shard recognises what it has already stored.
 *
 *   sent --PACK--> done      --NACK BUSY RATE MOVED NOTOWNER FROZEN--> waiting, backing off
 *        --LOST, link down--> uncertain: sent again by this or another router (ephemeral: 504)
 *        --NACK of another kind--> refused
 *   deadline: 504 Unknown when an attempt is unanswered or uncertain, else 503: surely not stored
 */
#include "gateway/core.h"

#include "common/mutant.h"

struct publish {
    struct call call;
    struct timer timer; /* the deadline, or the next attempt */
    struct waiter waiter;
    uint64_t client;
    bool by_session;
    bool idempotent, ephemeral, batch, typed;
    bool sent;      /* an attempt is under way */
    bool uncertain; /* an earlier attempt may have been stored */
    uint8_t nack;   /* the last refusal, enum nack_code */
    uint32_t attempts;
    int64_t begun_ns, deadline_ns;
    int64_t ts;
    uint8_t msg_id[16];
    size_t bytes;                            /* charged to g->publish_bytes */
    struct slice key, conflate, filter, ref; /* point behind the struct, as the parts do */
    size_t n_parts;
    struct slice parts[];
};

static struct publish *publish_of(struct call *call)
{
    return LIST_ENTRY(call, struct publish, call);
}

const char *publish_check(const struct gateway *g, const struct publish_order *order,
                          const char **message)
{
    size_t sum = 0;
    *message = "a payload is at most gateway.limits.message bytes (524288 by default), a batch 256 "
               "events and 1 MiB";
    if (order->n_parts > BATCH_MAX_EVENTS)
        return "TooLarge";
    for (size_t i = 0; i < order->n_parts; i++) {
        if (order->parts[i].size > g->options.payload_max_bytes)
            return "TooLarge";
        sum += order->parts[i].size;
    }
    if (order->n_parts > 1 && sum > BATCH_MAX_BYTES)
        return "TooLarge";
    *message = "a conflate value is 1 to 64 bytes";
    if (order->conflate.data && (order->conflate.size > CONFLATE_MAX_BYTES))
        return "BadRequest";
    return NULL;
}

void publish_id(struct gateway *g, struct publish_order *order, struct slice idempotency_key)
{
    uint8_t digest[32];
    if (order->idempotent) {
        sha256(digest, idempotency_key.data, idempotency_key.size);
        memcpy(order->msg_id, digest, sizeof order->msg_id);
    } else {
        rng_bytes(&g->rng, order->msg_id, sizeof order->msg_id);
    }
}

/* ---- one publish's memory ---- */

static struct slice bytes_take(uint8_t **at, struct slice from)
{
    if (from.size > 0)
        memcpy(*at, from.data, from.size);
    struct slice copy = slice_of(*at, from.size);
    *at += from.size;
    return copy;
}

static struct publish *publish_create(struct gateway *g, const struct publish_order *order)
{
    size_t size = sizeof(struct publish) + order->n_parts * sizeof(struct slice) + order->key.size +
                  order->conflate.size + order->filter.size + order->ref.size;
    for (size_t i = 0; i < order->n_parts; i++)
        size += order->parts[i].size;
    struct publish *p = mem_alloc(size);
    memset(p, 0, sizeof *p);
    uint8_t *at = (uint8_t *)&p->parts[order->n_parts];
    p->key = bytes_take(&at, order->key);
    p->conflate = bytes_take(&at, order->conflate);
    p->filter = bytes_take(&at, order->filter);
    p->ref = bytes_take(&at, order->ref);
    p->n_parts = order->n_parts;
    for (size_t i = 0; i < order->n_parts; i++)
        p->parts[i] = bytes_take(&at, order->parts[i]);
    memcpy(p->msg_id, order->msg_id, sizeof p->msg_id);
    p->idempotent = order->idempotent;
    p->ephemeral = order->ephemeral;
    p->batch = order->batch;
    p->typed = order->typed;
    p->by_session = order->by_session;
    p->bytes = size;
    g->publish_bytes += size;
    g->n_publishes++;
    return p;
}

void publish_destroy(struct gateway *g, struct call *call)
{
    struct publish *p = publish_of(call);
    waiter_drop(g, &p->waiter);
    timer_stop(g, &p->timer);
    call_end(g, call);
    g->publish_bytes -= p->bytes;
    g->n_publishes--;
    mem_free(p);
}

/* ---- attempts ---- */

/* The next router that is up, in turn, so that a lost one is not tried again first; 0: none. */
static uint32_t router_pick(struct gateway *g)
{
    for (uint32_t i = 0; i < g->options.n_routers; i++) {
        uint32_t router = (g->last_router + i) % g->options.n_routers + 1;
        if (hub_is_up(g->hub, router)) {
            g->last_router = router - 1;
            return router;
        }
    }
    return 0;
}

static void publish_wait(struct gateway *g, struct publish *p, int64_t delay_ns)
{
    int64_t due = g->now.mono_ns + delay_ns;
    p->sent = false;
    timer_set(g, &p->timer, due < p->deadline_ns ? due : p->deadline_ns);
}

uint64_t retry_delay_ms(struct gateway *g, uint32_t attempts, uint64_t wished_ms)
{
    uint64_t most = PUBLISH_RETRY_MIN_MS << (attempts < 6 ? attempts : 6);
    if (most > PUBLISH_RETRY_MAX_MS)
        most = PUBLISH_RETRY_MAX_MS;
    uint64_t delay = most / 2 + rng_below(&g->rng, most / 2 + 1);
    if (wished_ms > 0 && wished_ms < PUBLISH_TIMEOUT_MS)
        delay = wished_ms + rng_below(&g->rng, wished_ms / 4 + 1);
    return delay;
}

static void publish_back_off(struct gateway *g, struct publish *p, uint64_t wished_ms)
{
    publish_wait(g, p, (int64_t)retry_delay_ms(g, p->attempts, wished_ms) * NS_PER_MS);
}

static void publish_send(struct gateway *g, struct publish *p)
{
    uint32_t router = router_pick(g);
    p->call.peer = router;
    if (router == 0) { /* publish_router_up sends it, or the deadline ends it */
        publish_wait(g, p, PUBLISH_TIMEOUT_MS * NS_PER_MS);
        return;
    }
    p->sent = true;
    p->attempts++;
    timer_set(g, &p->timer, p->deadline_ns);
    struct message m = {.type = MSG_PUB, .cid = p->call.cid, .slot = SLOT_UNKNOWN, .key = p->key};
    memcpy(m.pub.msg_id, p->msg_id, sizeof m.pub.msg_id);
    m.pub.flags = (p->ephemeral ? PUB_EPHEMERAL : 0) | (p->typed ? PUB_TYPED : 0);
    m.pub.conflate = p->conflate;
    m.pub.filter = p->filter;
    m.pub.ts = p->ts;
    m.pub.payloads = (struct parts_list){p->parts, p->n_parts};
    hub_send(g->hub, router, &m);
}

/* ---- ends ---- */

static void publish_fail(struct gateway *g, struct publish *p, enum publish_result result,
                         const char *tag, const char *message)
{
    metric_add(g->m.publishes[result], 1);
    if (p->by_session) {
        struct session *s = session_find(g, p->client);
        if (s)
            v1_publish_done(g, s, p->ref, slice_of(NULL, 0), tag, message);
    } else {
        waiter_error(g, &p->waiter, tag, message);
    }
    publish_destroy(g, &p->call);
}

static void publish_unknown(struct gateway *g, struct publish *p)
{
    publish_fail(g, p, PUBLISHED_UNKNOWN, "Unknown",
                 p->idempotent ? "no answer in time; it may be stored: retry with the same key to "
                                 "learn it"
                               : "no answer in time; it may be stored, and without an "
                                 "Idempotency-Key a retry is a new event");
}

static void publish_expired(struct gateway *g, struct publish *p)
{
    if ((p->sent || p->uncertain) && !STOA_MUTANT(UNKNOWN_IS_NO))
        publish_unknown(g, p);
    else if (p->nack == NACK_BUSY || p->nack == NACK_RATE)
        publish_fail(g, p, PUBLISHED_UNAVAILABLE, "Busy",
                     "the room is busy; nothing was stored, retry later");
    else
        publish_fail(g, p, PUBLISHED_UNAVAILABLE, "Moving",
                     "no shard serves this key just now; nothing was stored, retry later");
}

static void publish_fire(struct gateway *g, struct timer *t)
{
    struct publish *p = LIST_ENTRY(t, struct publish, timer);
    if (g->now.mono_ns >= p->deadline_ns)
        publish_expired(g, p);
    else
        publish_send(g, p);
}

static void id_put(struct strbuf *out, const char *name, struct position p)
{
    strbuf_printf(out, "\"%s\":", name);
    if (p.seq == 0) {
        strbuf_put_text(out, "null");
        return;
    }
    strbuf_put_byte(out, '"');
    event_id_put(out, p);
    strbuf_put_byte(out, '"');
}

void publish_on_pack(struct gateway *g, struct call *call, const struct message *m)
{
    struct publish *p = publish_of(call);
    const struct msg_pack *pack = &m->pack;
    /* A repeat that only we know of is the first one for the client. */
    bool duplicate = pack->dup && p->idempotent;
    struct strbuf out = {0};
    strbuf_put_byte(&out, '{');
    id_put(&out, "id", (struct position){pack->room_epoch, pack->seq});
    if (p->batch) {
        uint64_t count = pack->count ? pack->count : p->n_parts;
        uint64_t first = pack->seq >= count ? pack->seq - count + 1 : 0;
        strbuf_put_byte(&out, ',');
        id_put(&out, "first", (struct position){pack->room_epoch, first});
        strbuf_printf(&out, ",\"count\":%llu", (unsigned long long)count);
    }
    strbuf_put_text(&out, duplicate ? ",\"duplicate\":true}" : ",\"duplicate\":false}");
    metric_add(g->m.publishes[duplicate ? PUBLISHED_DUPLICATE : PUBLISHED_OK], 1);
    metric_observe_ns(g->m.publish_ack, g->now.mono_ns - p->begun_ns);
    if (p->by_session) {
        struct session *s = session_find(g, p->client);
        if (s)
            v1_publish_done(g, s, p->ref, strbuf_slice(&out), NULL, NULL);
    } else {
        waiter_answer(g, &p->waiter, "application/json", strbuf_slice(&out));
    }
    strbuf_free(&out);
    publish_destroy(g, call);
}

/* What was sent before by another way may still be stored: only an answer to it tells. */
static void publish_limited(struct gateway *g, struct publish *p, uint64_t retry_ms)
{
    if (p->uncertain) {
        p->nack = NACK_RATE;
        publish_back_off(g, p, retry_ms);
    } else if (p->by_session) {
        publish_fail(g, p, PUBLISHED_REJECTED, "RateLimited", RATE_ROOM_TEXT);
    } else {
        metric_add(g->m.publishes[PUBLISHED_REJECTED], 1);
        waiter_limited(g, &p->waiter, RATE_ROOM_TEXT, retry_ms);
        publish_destroy(g, &p->call);
    }
}

void publish_on_nack(struct gateway *g, struct call *call, const struct message *m)
{
    struct publish *p = publish_of(call);
    switch (m->nack.code) {
    case NACK_RATE:
        publish_limited(g, p, m->nack.retry_ms);
        return;
    case NACK_BUSY:
    case NACK_MOVED:
    case NACK_NOTOWNER:
    case NACK_FROZEN:
        p->nack = (uint8_t)m->nack.code;
        publish_back_off(g, p, m->nack.retry_ms);
        return;
    case NACK_STALE:
        publish_unknown(g, p);
        return;
    case NACK_DISK:
        if (p->uncertain && !STOA_MUTANT(DISK_IS_NO))
            publish_unknown(g, p);
        else
            publish_fail(g, p, PUBLISHED_UNAVAILABLE, "DiskFull",
                         "the shard's disk is full; nothing was stored");
        return;
    case NACK_TOOBIG:
        publish_fail(g, p, PUBLISHED_REJECTED, "TooLarge",
                     "a payload is at most 524288 bytes, a batch 256 events and 1 MiB");
        return;
    case NACK_DENIED:
        publish_fail(g, p, PUBLISHED_REJECTED, "Forbidden", "publishing to this key is refused");
        return;
    default:
        publish_fail(g, p, PUBLISHED_REJECTED, "BadRequest", "the shard refused the publish");
    }
}

const char *publish_begin(struct gateway *g, uint64_t client, const char *cors,
                          const struct publish_order *order, const char **message)
{
    if (g->publish_bytes >= PENDING_PUBLISH_MAX_BYTES) {
        *message = "too many publishes wait here; nothing was stored, retry later";
        metric_add(g->m.publishes[PUBLISHED_UNAVAILABLE], 1);
        return "Busy";
    }
    struct publish *p = publish_create(g, order);
    p->client = client;
    p->ts = g->now.wall_ms;
    p->begun_ns = g->now.mono_ns;
    p->deadline_ns = g->now.mono_ns + PUBLISH_TIMEOUT_MS * NS_PER_MS;
    p->timer.fire = publish_fire;
    if (!p->by_session)
        waiter_begin(g, &p->waiter, client, cors);
    call_begin(g, &p->call, CALL_PUBLISH, 0);
    publish_send(g, p);
    return NULL;
}

/* ---- routers come and go ---- */

static struct publish *next_publish(struct gateway *g, size_t *cursor)
{
    struct call *call;
    while ((call = map_next(g->calls, cursor)) != NULL)
        if (call->kind == CALL_PUBLISH)
            return publish_of(call);
    return NULL;
}

/* Nothing is filed anew here and nothing ended but the call just met, so the walks over g->calls
 * stay valid. */
void publish_router_up(struct gateway *g)
{
    size_t cursor = 0;
    struct publish *p;
    while ((p = next_publish(g, &cursor)) != NULL)
        if (!p->sent && p->call.peer == 0)
            publish_send(g, p);
}

void publish_router_lost(struct gateway *g, uint32_t peer)
{
    size_t cursor = 0;
    struct publish *p;
    while ((p = next_publish(g, &cursor)) != NULL) {
        if (!p->sent || p->call.peer != peer)
            continue;
        p->uncertain = true;
        if (STOA_MUTANT(RETRY_NEW_ID))
            rng_bytes(&g->rng, p->msg_id, sizeof p->msg_id);
        if (p->ephemeral && !STOA_MUTANT(EPHEMERAL_AGAIN)) /* nobody remembers ids of ephemeral
                                                              events: it might come twice */
            publish_unknown(g, p);
        else
            publish_send(g, p);
    }
}
