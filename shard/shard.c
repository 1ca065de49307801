/* CORE. A shard's life and its turn (shard.h); state.h says which file does what. */
#include "shard/quarantine.h"

/* After a start gateways first say again which rooms they hold; no row expires before. */
#define EXPIRY_GRACE_NS (600 * NS_PER_S)

/* ---- peers ---- */

bool asker_is_there(const struct shard *s, struct asker asker)
{
    const struct client *client = s->clients[asker.peer];
    return client && client->life == asker.life;
}

/* Owned slots as ranges of one epoch; bounded by what a head takes. */
static size_t owned_ranges(const struct shard *s, struct slot_range *ranges, size_t max)
{
    size_t count = 0;
    for (uint32_t slot = 0; slot < SLOT_COUNT && count < max;) {
        uint32_t lo = slot;
        uint64_t epoch = s->slot_epoch[lo];
        while (++slot < SLOT_COUNT && s->slot_epoch[slot] == epoch)
            continue;
        if (epoch != 0)
            ranges[count++] = (struct slot_range){.lo = lo, .hi = slot - 1, .epoch = epoch};
    }
    return count;
}

void shard_claim(struct shard *s, uint32_t peer)
{
    /* 16 bytes a range at most; a shard of more pieces than that claims the first ones. */
    enum { RANGES_MAX = (HEAD_MAX_BYTES - 1024) / 16 };
    struct slot_range *ranges =
        (struct slot_range *)mem_alloc(RANGES_MAX * sizeof(struct slot_range));
    struct message m = {.type = MSG_CLAIM, .slot = SLOT_UNKNOWN};
    m.claim.boot = s->self.boot;
    m.claim.ready = 1;
    m.claim.slots.at = ranges;
    m.claim.slots.count = owned_ranges(s, ranges, RANGES_MAX);
    hub_send(s->hub, peer, &m);
    mem_free(ranges);
}

void shard_claim_all(struct shard *s)
{
    for (uint32_t peer = hub_next_up(s->hub, 0); peer != 0; peer = hub_next_up(s->hub, peer)) {
        if (s->clients[peer])
            shard_claim(s, peer);
    }
}

static void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    struct shard *s = (struct shard *)ctx;
    STOA_ASSERT(!s->clients[peer]);
    struct client *client = (struct client *)mem_zalloc(sizeof *client);
    client->role = info->role;
    client->life = ++s->lives;
    client->granted = CREDIT_WINDOW_BYTES;
    s->clients[peer] = client;
    if (client->role == ROLE_GATEWAY)
        reboot_up(s, peer, info);
    shard_claim(s, peer);
}

static void on_down(void *ctx, uint32_t peer)
{
    struct shard *s = (struct shard *)ctx;
    struct client *client = s->clients[peer];
    STOA_ASSERT(client);
    if (client->role == ROLE_GATEWAY) {
        deliver_client_gone(s, peer);
        reboot_down(s, peer);
    }
    ask_client_gone(s, peer);
    s->clients[peer] = NULL;
    deliver_client_free(s, client);
}

/* Publishers speak to routers: what they may not do is decided there. */
static bool admits(void *ctx, unsigned door, enum role role)
{
    (void)ctx;
    (void)door;
    return role == ROLE_ROUTER || role == ROLE_GATEWAY;
}

/* ---- messages ---- */

static void answer_unknown(struct shard *s, uint32_t peer, const struct message *m)
{
    struct message reply = {.type = MSG_ERR, .cid = m->cid, .slot = SLOT_UNKNOWN};
    reply.err.code = NACK_INVALID;
    reply.err.text = slice_text("a shard does not take this message from you");
    hub_send(s->hub, peer, &reply);
}

static bool on_gateway_message(struct shard *s, uint32_t peer, const struct message *m,
                               struct buf *packet)
{
    switch (m->type) {
    case MSG_SUB:
        deliver_sub(s, peer, m);
        return true;
    case MSG_UNSUB:
        deliver_unsub(s, peer, m);
        return true;
    case MSG_SUBSYNC:
        deliver_subsync(s, peer, m);
        return true;
    case MSG_CREDIT:
        deliver_credit(s, peer, m);
        return true;
    case MSG_REPLAY_REQ:
        replay_answer(s, peer, m);
        return true;
    case MSG_ANSWER:
        ask_collect(s, peer, m);
        return true;
    case MSG_JOIN:
    case MSG_LEAVE:
    case MSG_INPUT:
        actors_intake(s, peer, m, packet);
        return true;
    default:
        return false;
    }
}

/* Answers to what a room asked of one on another shard. */
static bool on_router_message(struct shard *s, const struct message *m)
{
    if (m->type != MSG_RESULT && m->type != MSG_NACK)
        return false;
    wait_from_afar(s, m);
    return true;
}

static void on_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    struct shard *s = (struct shard *)ctx;
    const struct client *client = s->clients[peer];
    STOA_ASSERT(client);
    bool known = true;
    switch (m->type) {
    case MSG_PUB:
        publish_intake(s, peer, m, packet);
        break;
    case MSG_CALL:
        actors_intake(s, peer, m, packet);
        break;
    case MSG_CLOSE:
        deliver_close(s, peer, m);
        break;
    case MSG_PURGE:
        purge_intake(s, peer, m);
        break;
    case MSG_ASK:
        ask_answer(s, peer, m);
        break;
    default:
        known = client->role == ROLE_GATEWAY ? on_gateway_message(s, peer, m, packet)
                                             : on_router_message(s, m);
    }
    if (!known)
        answer_unknown(s, peer, m);
}

/* ---- life ---- */

static struct metric *publish_counter(struct metrics *m, const char *labels)
{
    return metrics_counter(m, "stoa_publish_total", labels,
                           "Publishes by outcome, a batch counted once.");
}

static void register_publish(struct shard_metrics *mm, struct metrics *m)
{
    static const char *const refused[] = {
        [NACK_BUSY] = "result=\"busy\"",       [NACK_RATE] = "result=\"rate\"",
        [NACK_MOVED] = "result=\"moved\"",     [NACK_NOTOWNER] = "result=\"notowner\"",
        [NACK_FROZEN] = "result=\"frozen\"",   [NACK_ORDER] = "result=\"order\"",
        [NACK_TOOBIG] = "result=\"toobig\"",   [NACK_DENIED] = "result=\"denied\"",
        [NACK_DISK] = "result=\"disk\"",       [NACK_STALE] = "result=\"stale\"",
        [NACK_INVALID] = "result=\"invalid\"",
    };
    _Static_assert(RESULT_REFUSED + NACK_INVALID < 16, "the table holds every outcome");
    mm->publish[RESULT_OK] = publish_counter(m, "result=\"ok\"");
    mm->publish[RESULT_DUPLICATE] = publish_counter(m, "result=\"duplicate\"");
    mm->publish[RESULT_EPHEMERAL] = publish_counter(m, "result=\"ephemeral\"");
    for (unsigned code = NACK_BUSY; code <= NACK_INVALID; code++)
        mm->publish[RESULT_REFUSED + code] = publish_counter(m, refused[code]);
}

static void register_metrics(struct shard_metrics *mm, struct metrics *m)
{
    static const char *const missed[] = {
        [MISS_NONE] = "reason=\"none\"",       [MISS_EXPIRED] = "reason=\"expired\"",
        [MISS_EVICTED] = "reason=\"evicted\"", [MISS_SLOW] = "reason=\"slow\"",
        [MISS_PURGED] = "reason=\"purged\"",   [MISS_EPOCH] = "reason=\"epoch\""};
    register_publish(mm, m);
    mm->commit_events =
        metrics_sizes(m, "stoa_commit_events", "", "Events made durable by one commit.");
    mm->retained_bytes =
        metrics_gauge(m, "stoa_retained_bytes", "", "Payload bytes that readers can get.");
    mm->retained_events =
        metrics_gauge(m, "stoa_retained_events", "", "Events that readers can get.");
    mm->rooms_stored = metrics_gauge(m, "stoa_rooms", "state=\"stored\"", "Rooms by state.");
    mm->rooms_cold = metrics_gauge(m, "stoa_rooms", "state=\"cold\"", "Rooms by state.");
    mm->rooms_subscribed =
        metrics_gauge(m, "stoa_rooms", "state=\"subscribed\"", "Rooms by state.");
    mm->slots_owned = metrics_gauge(m, "stoa_slots_owned", "", "Slots whose token is here.");
    for (unsigned reason = MISS_EXPIRED; reason <= MISS_EPOCH; reason++)
        mm->missed[reason] = metrics_counter(m, "stoa_missed_total", missed[reason],
                                             "Pages that began with a miss, by reason.");
    mm->deliveries = metrics_counter(m, "stoa_deliver_messages_total", "",
                                     "DELIVER messages sent, one a room, commit and gateway.");
    mm->resyncs =
        metrics_counter(m, "stoa_resync_marks_total", "", "Heads told to gateways that lag.");
    mm->orphans = metrics_counter(m, "stoa_orphan_records_total", "",
                                  "Records found at start that belong to no room.");
    mm->alarms_dead = metrics_gauge(m, "stoa_alarms_dead", "",
                                    "Rooms whose alarm failed for good, kept to be seen.");
    mm->undecoded = metrics_counter(m, "stoa_undecoded_frames_total", "",
                                    "Frames that no room could read and nobody handled.");
    mm->damaged = metrics_counter(m, "stoa_damaged_records_total", "",
                                  "Records whose checksum failed, at start or on reading.");
}

static void gauges_set(struct shard *s)
{
    metric_set(s->metric.retained_bytes, (double)s->retained_bytes);
    metric_set(s->metric.retained_events, (double)s->retained_events);
    metric_set(s->metric.rooms_stored, (double)(map_count(s->by_id) + map_count(s->cold)));
    metric_set(s->metric.rooms_cold, (double)map_count(s->cold));
    metric_set(s->metric.rooms_subscribed, (double)s->rooms_subscribed);
    metric_set(s->metric.slots_owned, s->slots_owned);
    metric_set(s->metric.alarms_dead, (double)s->alarms_dead);
}

static void clock_set(struct shard *s, struct tick now)
{
    s->now = now;
    s->clock_ms = max_i64(s->clock_ms, now.wall_ms);
}

struct shard *shard_create(const struct shard_options *options, struct store *store,
                           const struct hub_ports *ports, struct log *log, struct metrics *metrics,
                           struct tick now)
{
    struct shard *s = (struct shard *)mem_zalloc(sizeof *s);
    s->store = store;
    s->log = log;
    s->metrics = metrics;
    s->self = options->self;
    s->slot_seed = options->slot_seed;
    s->payload_max_bytes = options->payload_max_bytes;
    if (s->payload_max_bytes == 0 || s->payload_max_bytes > PAYLOAD_HARD_MAX_BYTES)
        s->payload_max_bytes = PAYLOAD_HARD_MAX_BYTES;
    rng_seed(&s->rng, options->seed);
    s->map_seed = rng_u64(&s->rng);
    s->rooms = map_create(s->map_seed);
    s->by_id = map_create(s->map_seed);
    cold_create(s);
    s->asks = map_create(s->map_seed);
    list_init(&s->ready);
    register_metrics(&s->metric, metrics);
    s->watch = options->watch;
    types_set(s, options->types, options->n_types);
    s->self.window_ms = (uint64_t)types_window_ms(s);
    s->has_space = true;
    clock_set(s, now);
    actors_create(s);
    quarantine_create(s);
    recover(s, options);
    gauges_set(s);
    s->trim_due_ns = now.mono_ns;
    s->expiry_due_ns = now.mono_ns + EXPIRY_GRACE_NS;
    const struct hub_handler handler = {
        .ctx = s, .on_up = on_up, .on_down = on_down, .on_message = on_message, .admits = admits};
    s->hub = hub_create(&s->self, &handler, ports, log, metrics, rng_u64(&s->rng));
    quarantine_suspects(s, options);
    return s;
}

static void room_discard(struct shard *s, struct room *room)
{
    for (struct op *op = fifo_take_all(room); op;) {
        struct op *next = op->next;
        op_destroy(op);
        op = next;
    }
    heap_remove(&s->removals, &room->removal);
    heap_remove(&s->alarms, &room->alarm);
    heap_remove(&s->confirms, &room->confirm);
    room_destroy(&room);
}

void shard_destroy(struct shard **s_p)
{
    struct shard *s = *s_p;
    if (!s)
        return;
    for (uint32_t peer = 1; peer <= PEERS_MAX; peer++) {
        struct client *client = s->clients[peer];
        s->clients[peer] = NULL;
        if (client)
            deliver_client_free(s, client);
    }
    ask_free(s);
    actors_destroy(s);
    quarantine_destroy(s);
    size_t cursor = 0;
    struct room *room;
    while ((room = (struct room *)map_next(s->rooms, &cursor)) != NULL)
        room_discard(s, room);
    map_destroy(&s->rooms);
    map_destroy(&s->by_id);
    cold_destroy(s);
    heap_free(&s->removals);
    heap_free(&s->alarms);
    heap_free(&s->confirms);
    turn_free(s);
    vec_free(&s->scratch);
    vec_free(&s->past);
    strbuf_free(&s->encoded);
    strbuf_free(&s->row);
    strbuf_free(&s->refused);
    types_free(s);
    hub_destroy(&s->hub);
    mem_free(s);
    *s_p = NULL;
}

struct hub *shard_hub(struct shard *s)
{
    return s->hub;
}

/* ---- the turn ---- */

static void turn_fill(struct shard *s)
{
    struct turn *t = &s->turn;
    while (!t->failed && t->events < COMMIT_MAX_EVENTS && t->bytes < COMMIT_MAX_BYTES &&
           t->code_ns < COMMIT_MAX_CODE_NS) {
        struct op *op =
            fifo_pop(&s->ready, COMMIT_MAX_EVENTS - t->events, COMMIT_MAX_BYTES - t->bytes);
        if (!op)
            break;
        t->events += op->n_parts ? op->n_parts : 1;
        t->bytes += op->bytes;
        if (op->kind == OP_PUBLISH || op->kind == OP_PURGE)
            publish_decide(s, op);
        else
            actors_decide(s, op);
    }
}

/* One transaction at most. Returns whether more is ready. */
static bool turn_run(struct shard *s)
{
    s->turn.retained_events = s->retained_events;
    s->turn.retained_bytes = s->retained_bytes;
    s->has_space = s->store->vtable->has_space(s->store) && s->now.mono_ns >= s->full_until_ns;
    s->turns++;
    actors_due(s);
    turn_fill(s);
    bool more = !s->turn.failed && trim_step(s, s->turn.durable == 0);
    turn_finish(s);
    actors_idle(s);
    cold_step(s);
    return more || !list_empty(&s->ready);
}

void shard_tick(struct shard *s, struct tick now)
{
    clock_set(s, now);
}

bool shard_turn(struct shard *s, struct tick now)
{
    clock_set(s, now);
    hub_tick(s->hub, now);
    bool more = turn_run(s);
    ask_tick(s);
    gauges_set(s);
    hub_flush(s->hub, now);
    return more;
}

int64_t shard_deadline(const struct shard *s)
{
    if (!list_empty(&s->ready))
        return s->now.mono_ns;
    int64_t due = trim_deadline(s);
    int64_t others[] = {hub_deadline(s->hub), ask_deadline(s), actors_deadline(s),
                        cold_deadline(s)};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (others[i] < due)
            due = others[i];
    }
    return due;
}

void shard_drain(struct shard *s, struct tick now)
{
    clock_set(s, now);
    s->draining = true;
    while (!list_empty(&s->ready))
        (void)turn_run(s);
    hub_flush(s->hub, now);
    hub_goodbye(s->hub, now);
}

void shard_retypes(struct shard *s, const struct shard_type *types, size_t n_types)
{
    types_set(s, types, n_types);
    size_t cursor = 0;
    struct room *room;
    while ((room = (struct room *)map_next(s->rooms, &cursor)) != NULL) {
        rooms_retype(s, room);
        actors_retyped(s, room);
    }
    cursor = 0;
    while ((room = (struct room *)map_next(s->by_id, &cursor)) != NULL) {
        room_retain_exactly(s, room);
        trim_schedule(s, room);
    }
}

void shard_refused(struct shard *s, struct slice why)
{
    strbuf_reset(&s->refused);
    strbuf_put_slice(&s->refused, why);
}

/* ---- invariants ---- */

void shard_validate(const struct shard *s)
{
    uint64_t events = 0, bytes = 0;
    size_t stored = 0, subscribed = 0, cursor = 0;
    const struct room *room;
    while ((room = (const struct room *)map_next(s->rooms, &cursor)) != NULL) {
        room_validate(room);
        STOA_ASSERT(room->stage == 0 && room->type < s->n_types);
        STOA_ASSERT(map_get(s->rooms, room_key(room)) == room);
        STOA_ASSERT(!map_get(s->cold, room_key(room)));
        bool blank = room->epoch == 0 && room->n_subs == 0 && !room->first_op &&
                     room->dirty_refs == 0 && !room->actor && room->dones == 0 &&
                     room->allowance.full_ns == 0;
        STOA_ASSERT(!blank);
        actors_validate(s, room);
        events += room->head - room->floor - room->transients;
        bytes += room->retained_bytes;
        subscribed += room->n_subs > 0;
        if (room->room_id) {
            stored++;
            STOA_ASSERT(map_get(s->by_id, map_id(&room->room_id)) == room);
        }
        for (uint16_t i = 0; i < room->n_subs; i++)
            STOA_ASSERT(s->clients[room->subs[i].peer]);
        if (room->retain)
            STOA_ASSERT(retain_at(room->retain, room->head)->lsn < s->next_lsn);
    }
    STOA_ASSERT(stored == map_count(s->by_id) && subscribed == s->rooms_subscribed);
    STOA_ASSERT(events == s->retained_events && bytes == s->retained_bytes);
    STOA_ASSERT(!s->turn.open && s->turn.ops.count == 0 && s->turn.stages.count == 0);
}
