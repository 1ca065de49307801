/* CORE. The gateway as a whole: made and destroyed, what its hub hears, the end of a turn.
 *
 *   program -> gateway_request, _frame, ... -> routes and dialects -> hub_send -> router, shard
 *   shard -> hub -> gateway_message -> room (chain) -> its queue
 *   gateway_turn: timers, then every room with a queue is written (fanout.c), credit, hub flush */
#include "gateway/core.h"

/* ---- timers and calls ---- */

void timer_set(struct gateway *g, struct timer *t, int64_t due_ns)
{
    STOA_ASSERT(t->fire);
    heap_set(&g->timers, &t->node, due_ns);
}

void timer_stop(struct gateway *g, struct timer *t)
{
    heap_remove(&g->timers, &t->node);
}

void call_begin(struct gateway *g, struct call *call, enum call_kind kind, uint32_t peer)
{
    STOA_ASSERT(call->cid == 0);
    do {
        call->cid = ++g->last_cid;
    } while (call->cid == 0 || map_get(g->calls, map_id(&call->cid)));
    call->kind = kind;
    call->peer = peer;
    map_put(g->calls, map_id(&call->cid), call);
}

void call_end(struct gateway *g, struct call *call)
{
    if (call->cid == 0)
        return;
    map_remove(g->calls, map_id(&call->cid));
    call->cid = 0;
}

bool peer_is_router(const struct gateway *g, uint32_t peer)
{
    return peer >= 1 && peer <= g->options.n_routers;
}

struct shard_link *shard_of_peer(struct gateway *g, uint32_t peer)
{
    uint32_t first = g->options.n_routers + 1;
    return peer >= first && peer < first + g->options.n_shards ? &g->shards[peer - first] : NULL;
}

/* ---- what the hub says ---- */

static void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    struct gateway *g = ctx;
    struct shard_link *link = shard_of_peer(g, peer);
    LOG(g->log, LOG_INFO, "gateway.link_up", LOG_STR("role", role_name(info->role)),
        LOG_STR("name", info->name));
    if (link)
        sync_shard_up(g, link);
    else
        publish_router_up(g);
}

static void on_down(void *ctx, uint32_t peer)
{
    struct gateway *g = ctx;
    struct shard_link *link = shard_of_peer(g, peer);
    const struct peer_info *info = hub_info(g->hub, peer);
    LOG(g->log, LOG_WARN, "gateway.link_down", LOG_STR("name", info ? info->name : ""));
    if (link)
        sync_shard_down(g, link);
    else
        publish_router_lost(g, peer);
    size_t cursor = 0;
    struct call *call;
    while ((call = map_next(g->calls, &cursor)) != NULL) {
        if (call->peer != peer)
            continue;
        if (call->kind == CALL_LOG)
            log_peer_down(g, call);
        else if (call->kind == CALL_PURGE)
            purge_peer_down(g, call);
        else if (call->kind == CALL_ASK)
            ask_peer_down(g, call);
        else if (call->kind == CALL_ROOM)
            room_call_peer_down(g, call);
    }
}

/* The call that a message answers, if it comes from whom it was asked. A publish may be answered by
 * a router that it went through earlier. */
static struct call *answered_call(struct gateway *g, uint32_t peer, const struct message *m)
{
    struct call *call = map_get(g->calls, map_id(&m->cid));
    if (!call)
        return NULL;
    if (call->kind == CALL_PUBLISH)
        return peer_is_router(g, peer) ? call : NULL;
    return call->peer == peer ? call : NULL;
}

static void on_nack(struct gateway *g, uint32_t peer, const struct message *m)
{
    struct call *call = answered_call(g, peer, m);
    if (!call) {
        room_on_nack(g, peer, m);
        return;
    }
    switch (call->kind) {
    case CALL_PUBLISH:
        publish_on_nack(g, call, m);
        break;
    case CALL_PULL:
        pull_on_nack(g, LIST_ENTRY(call, struct pull, call));
        break;
    case CALL_LOG:
        log_on_nack(g, call, m);
        break;
    case CALL_PURGE:
        purge_on_nack(g, call, m);
        break;
    case CALL_ASK:
        ask_peer_down(g, call);
        break;
    case CALL_ROOM:
        room_call_on_nack(g, call, m);
        break;
    case CALL_JOIN:
        member_on_nack(g, call, m);
        break;
    }
}

static void on_answer(struct gateway *g, uint32_t peer, const struct message *m, struct buf *packet)
{
    struct call *call = answered_call(g, peer, m);
    if (!call)
        return;
    if (m->type == MSG_PACK && call->kind == CALL_PUBLISH)
        publish_on_pack(g, call, m);
    else if (m->type == MSG_PACK && call->kind == CALL_PURGE)
        purge_on_pack(g, call, m);
    else if (m->type == MSG_REPLAY && call->kind == CALL_PULL)
        pull_on_replay(g, peer, m, packet);
    else if (m->type == MSG_REPLAY && call->kind == CALL_LOG)
        log_on_replay(g, call, m);
    else if (m->type == MSG_ANSWER && call->kind == CALL_ASK)
        ask_on_answer(g, call, m);
    else if (m->type == MSG_RESULT && call->kind == CALL_ROOM)
        room_call_on_result(g, call, m);
    else if (m->type == MSG_JOINED && call->kind == CALL_JOIN)
        member_on_joined(g, call, m);
}

static void on_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    struct gateway *g = ctx;
    struct shard_link *link = shard_of_peer(g, peer);
    switch (m->type) {
    case MSG_PACK:
    case MSG_REPLAY:
    case MSG_ANSWER:
    case MSG_RESULT:
    case MSG_JOINED:
        on_answer(g, peer, m, packet);
        return;
    case MSG_NACK:
        on_nack(g, peer, m);
        return;
    case MSG_LOST:
        publish_router_lost(g, peer);
        return;
    default:
        break;
    }
    if (!link)
        return; /* RING: a hint that we do not need */
    switch (m->type) {
    case MSG_CLAIM:
        sync_on_claim(g, link, m);
        break;
    case MSG_SUBACK:
        room_on_suback(g, peer, m);
        break;
    case MSG_DELIVER:
        room_on_deliver(g, peer, m, packet);
        break;
    case MSG_RESYNC:
        room_on_resync(g, peer, m);
        break;
    case MSG_CLOSE:
        room_on_close(g, peer, m);
        break;
    case MSG_INPUT_ACK:
        member_on_input_ack(g, peer, m);
        break;
    case MSG_ASK:
        ask_on_ask(g, peer, m);
        break;
    default:
        break;
    }
}

/* ---- life ---- */

static void register_metrics(struct gateway *g, struct metrics *metrics)
{
    static const char *const results[PUBLISH_RESULTS] = {
        "result=\"ok\"", "result=\"duplicate\"", "result=\"rejected\"", "result=\"unavailable\"",
        "result=\"unknown\""};
    static const char *const sockets[DIALECT_COUNT] = {[DIALECT_RAW] = "dialect=\"raw\"",
                                                       [DIALECT_V1] = "dialect=\"stoa.v1\"",
                                                       [DIALECT_SSE] = "dialect=\"sse\"",
                                                       [DIALECT_UPLOADISTA] =
                                                           "dialect=\"uploadista\"",
                                                       [DIALECT_ORPC] = "dialect=\"orpc\""};
    struct gateway_metrics *m = &g->m;
    m->registry = metrics;
    for (size_t i = 0; i < PUBLISH_RESULTS; i++)
        m->publishes[i] = metrics_counter(metrics, "stoa_publish_total", results[i],
                                          "Publishes through this gateway, by result.");
    m->publish_ack = metrics_seconds(metrics, "stoa_publish_ack_seconds", "",
                                     "From a publish's arrival to its acknowledgement.");
    for (size_t i = 0; i < DIALECT_COUNT; i++)
        m->sockets[i] = metrics_gauge(metrics, "stoa_sockets", sockets[i],
                                      "Open sockets and event streams, by dialect.");
    m->deliveries = metrics_counter(metrics, "stoa_deliveries_total", "",
                                    "Events written, counted once per connection.");
    m->delivery = metrics_seconds(metrics, "stoa_delivery_seconds", "",
                                  "From an event's timestamp to its writing; once per event.");
    m->token_checks =
        metrics_counter(metrics, "stoa_token_checks_total", "",
                        "Signatures of tokens that were checked; the others were known.");
    m->dropped_frames = metrics_counter(metrics, "stoa_dropped_frames_total", "",
                                        "Frames of raw sockets that a rate let nobody hear.");
    m->lagging = metrics_gauge(metrics, "stoa_lagging_sockets", "",
                               "Connections that are not fed because they read too slowly.");
    m->rooms = metrics_gauge(metrics, "stoa_rooms", "state=\"subscribed\"",
                             "Keys that this gateway holds.");
    for (unsigned i = MISS_EXPIRED; i < MISS_REASONS; i++) {
        char label[32] = "reason=\"";
        strncat(label, miss_name(i), 16);
        strncat(label, "\"", 2);
        m->missed[i] = metrics_counter(metrics, "stoa_missed_total", label,
                                       "Readers told that events are gone, by reason.");
    }
    m->missed[MISS_NONE] = m->missed[MISS_EXPIRED];
}

struct gateway *gateway_create(const struct gateway_options *options,
                               const struct hub_ports *hub_ports, const struct gateway_ports *ports,
                               struct log *log, struct metrics *metrics)
{
    struct gateway *g = mem_zalloc(sizeof *g);
    g->options = *options;
    g->ports = *ports;
    g->log = log;
    rng_seed(&g->rng, options->seed);
    register_metrics(g, metrics);
    const struct hub_handler handler = {
        .ctx = g, .on_up = on_up, .on_down = on_down, .on_message = on_message};
    g->hub = hub_create(&options->self, &handler, hub_ports, log, metrics, rng_u64(&g->rng));
    g->slots = slots_create();
    g->rooms = map_create(rng_u64(&g->rng));
    g->sessions = map_create(rng_u64(&g->rng));
    g->waiters = map_create(rng_u64(&g->rng));
    g->calls = map_create(rng_u64(&g->rng));
    g->members = map_create(rng_u64(&g->rng));
    g->twins = map_create(rng_u64(&g->rng));
    g->shards = mem_zalloc((options->n_shards ? options->n_shards : 1) * sizeof *g->shards);
    for (unsigned i = 0; i < options->n_routers; i++)
        STOA_ASSERT(hub_dial(g->hub) == i + 1);
    for (unsigned i = 0; i < options->n_shards; i++) {
        g->shards[i].peer = hub_dial(g->hub);
        STOA_ASSERT(g->shards[i].peer == options->n_routers + i + 1);
    }
    room_init_timers(g);
    session_init(g);
    identity_init(g);
    refused_register(g);
    hold_init(g);
    member_init(g);
    pull_init(g);
    sync_init(g);
    return g;
}

/* Nobody is answered any more; pulls go with their rooms. */
static void calls_destroy(struct gateway *g)
{
    size_t cursor = 0;
    struct call *call;
    while ((call = map_next(g->calls, &cursor)) != NULL) {
        switch (call->kind) {
        case CALL_PUBLISH:
            publish_destroy(g, call);
            break;
        case CALL_LOG:
            log_destroy(g, call);
            break;
        case CALL_PURGE:
            purge_destroy(g, call);
            break;
        case CALL_ASK: /* takes its sister calls along: begin anew */
            ask_destroy(g, call);
            cursor = 0;
            break;
        case CALL_ROOM:
            room_call_destroy(g, call);
            break;
        case CALL_PULL:
        case CALL_JOIN: /* end with their rooms and sessions */
            break;
        }
    }
}

void gateway_destroy(struct gateway **g_p)
{
    struct gateway *g = *g_p;
    if (!g)
        return;
    calls_destroy(g);
    while (!list_empty(&g->sessions_all))
        session_free(g, LIST_ENTRY(g->sessions_all.next, struct session, all), 1006,
                     slice_of(NULL, 0), false);
    revoked_stop(g);
    while (!list_empty(&g->rooms_all))
        room_free(g, LIST_ENTRY(g->rooms_all.next, struct room, all));
    identity_stop(g);
    hub_destroy(&g->hub);
    slots_destroy(&g->slots);
    map_destroy(&g->rooms);
    map_destroy(&g->sessions);
    map_destroy(&g->waiters);
    map_destroy(&g->calls);
    map_destroy(&g->members);
    map_destroy(&g->twins);
    for (unsigned i = 0; i < g->options.n_shards; i++)
        mem_free(g->shards[i].marks);
    mem_free(g->shards);
    heap_free(&g->timers);
    strbuf_free(&g->scratch);
    strbuf_free(&g->control);
    strbuf_free(&g->quoted);
    strbuf_free(&g->picked);
    for (unsigned i = 0; i < DIALECT_COUNT; i++)
        mem_free(g->packs[i].offsets);
    for (unsigned i = 0; i < FORMS_MAX; i++)
        mem_free(g->forms[i].offsets);
    mem_free(g->page);
    mem_free(g->spare_events);
    buf_unref(g->beat_text);
    buf_unref(g->retry_text);
    mem_free(g);
    *g_p = NULL;
}

struct hub *gateway_hub(struct gateway *g)
{
    return g->hub;
}

/* ---- turns ---- */

void gateway_turn(struct gateway *g, struct tick now)
{
    g->now = now;
    hub_tick(g->hub, now);
    struct heap_node *due;
    while ((due = heap_pop_due(&g->timers, now.mono_ns)) != NULL) {
        struct timer *t = LIST_ENTRY(due, struct timer, node);
        t->fire(g, t);
    }
    while (!list_empty(&g->rooms_dirty))
        fanout_flush(g, LIST_ENTRY(g->rooms_dirty.next, struct room, dirty));
    if (!list_empty(&g->endings))
        member_turn(g);
    sync_credit(g);
    hub_flush(g->hub, now);
}

int64_t gateway_deadline(const struct gateway *g)
{
    int64_t own = heap_next(&g->timers);
    int64_t hub = hub_deadline(g->hub);
    return own < hub ? own : hub;
}

bool gateway_ready(const struct gateway *g, const char **why)
{
    if (g->draining) {
        *why = "draining";
        return false;
    }
    bool routed = false;
    for (uint32_t peer = 1; peer <= g->options.n_routers && !routed; peer++)
        routed = hub_is_up(g->hub, peer);
    if (!routed)
        *why = "no router answers";
    else if (!revoked_caught_up(g))
        *why = "revocations are not known yet";
    else
        return true;
    return false;
}

void gateway_drain(struct gateway *g, struct tick now, int64_t spread_ms)
{
    g->now = now;
    if (g->draining)
        return;
    g->draining = true;
    LOG(g->log, LOG_INFO, "gateway.drain", LOG_U64("sockets", map_count(g->sessions)),
        LOG_I64("spread_ms", spread_ms));
    session_drain(g, spread_ms);
}

bool gateway_drained_all(const struct gateway *g)
{
    return g->draining && map_count(g->sessions) == 0 && map_count(g->waiters) == 0 &&
           g->n_publishes == 0;
}

void gateway_reorigins(struct gateway *g, const char *const *origins)
{
    g->options.origins = origins;
}

/* ---- invariants ---- */

static void validate_room(const struct room *room)
{
    size_t subs = 0, members = 0;
    LIST_EACH(cursor, after, &room->subs)
    {
        const struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_room);
        members += sub->member != NULL;
        STOA_ASSERT(sub->room == room);
        STOA_ASSERT(sub->state != SUBS_LIVE || !sub->fresh);
        STOA_ASSERT(sub->state == SUBS_CATCHUP || !sub->pull || sub->state == SUBS_LAGGING);
        subs++;
    }
    STOA_ASSERT(subs == room->n_subs && members == room->n_members);
    STOA_ASSERT((subs == 0) == !list_empty(&room->idle));
    STOA_ASSERT((room->n_events > 0) == !list_empty(&room->dirty));
    STOA_ASSERT(room->n_events > 0 || room->flushed == room->last);
    STOA_ASSERT(!room->subscribed || room->owner != 0);
    STOA_ASSERT(room->owner != 0 || list_empty(&room->pulls));
    for (uint32_t i = 1; i < room->n_events; i++)
        STOA_ASSERT(room->events[i].seq >= room->events[i - 1].seq);
}

static void validate_session(const struct session *s)
{
    rate_validate(s);
    uint32_t subs = 0;
    uint32_t unfed = 0;
    uint32_t lagging = 0;
    LIST_EACH(cursor, after, &s->subs)
    {
        const struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_session);
        STOA_ASSERT(sub->session == s);
        subs++;
        unfed += sub->state == SUBS_CATCHUP || sub->state == SUBS_LAGGING;
        lagging += sub->state == SUBS_LAGGING;
    }
    STOA_ASSERT(subs == s->n_subs && unfed == s->n_unfed && lagging == s->n_lagging);
    STOA_ASSERT(!s->closing || subs == 0);
    STOA_ASSERT(s->dialect == &dialect_v1 || subs <= 1);
}

void gateway_validate(const struct gateway *g)
{
    size_t rooms = 0;
    size_t sessions = 0;
    LIST_EACH(cursor, after, &g->rooms_all)
    {
        validate_room(LIST_ENTRY(cursor, struct room, all));
        rooms++;
    }
    LIST_EACH(cursor, after, &g->sessions_all)
    {
        validate_session(LIST_ENTRY(cursor, struct session, all));
        sessions++;
    }
    STOA_ASSERT(rooms == map_count(g->rooms));
    STOA_ASSERT(sessions == map_count(g->sessions));
    member_validate(g);
}
