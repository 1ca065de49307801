/* CORE. The shard's side of world.h: its life, its store, its clock, and waiting for answers. */
#include "shard/room_test/world.h"

#include <stdio.h>

#include "common/mem.h"
#include "shard/actor.h"
#include "shard/room_test/internal.h"
#include "shard/store_mem.h"

#define CLUSTER 1
#define SLOT_SEED 1
#define STEP_MS 500 /* less than a link's heartbeat */
#define TURNS_MAX \
    100000 /* of one moment: a room whose alarm is always due does not stop the test */

void world_answer_free(struct world_answer *a)
{
    strbuf_free(&a->tag);
    strbuf_free(&a->text);
    strbuf_free(&a->json);
}

/* ---- life ---- */

static int shard_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct world *w = ctx;
    if (peer == w->peer)
        *VEC_PUSH(&w->to_gateway, struct buf *) = buf_copy(packet, size);
    return ERR_OK;
}

static void shard_forget(void *ctx, uint32_t peer)
{
    struct world *w = ctx;
    if (peer == w->peer)
        w->peer = 0;
}

struct world *world_create(struct log *log)
{
    struct world *w = mem_zalloc(sizeof *w);
    w->now = (struct tick){.mono_ns = NS_PER_S, .wall_ms = WORLD_BEGIN_MS};
    rng_seed(&w->rng, 1);
    w->log = log;
    w->store = store_mem_create();
    w->types[w->n_types++] =
        (struct shard_type){.name = mem_strdup("events"),
                            .retention = {.age_ms = 3600000, .count = 10000, .bytes = 16 * MIB}};
    gateway_create(w);
    return w;
}

static void packets_drop(struct vec *packets)
{
    for (size_t i = 0; i < packets->count; i++)
        buf_unref(VEC_AT(packets, struct buf *)[i]);
    packets->count = 0;
}

void world_stop(struct world *w, bool gateways_too)
{
    if (!w->shard)
        return;
    shard_destroy(&w->shard);
    metrics_destroy(&w->shard_metrics);
    store_mem_crash(w->store);
    packets_drop(&w->to_shard);
    packets_drop(&w->to_gateway);
    for (size_t i = 0; gateways_too && i < w->connections.count; i++) {
        struct world_connection *c = VEC_AT(&w->connections, struct world_connection *)[i];
        if (c->open)
            c->close_code = 1006;
        c->open = false;
    }
}

void world_destroy(struct world **world)
{
    struct world *w = *world;
    if (!w)
        return;
    world_stop(w, false);
    gateway_destroy(w);
    packets_drop(&w->to_shard);
    packets_drop(&w->to_gateway);
    vec_free(&w->to_shard);
    vec_free(&w->to_gateway);
    for (size_t i = 0; i < w->n_types; i++)
        mem_free((char *)w->types[i].name);
    store_mem_destroy(&w->store);
    mem_free(w);
    *world = NULL;
}

void world_type(struct world *w, const struct shard_type *type)
{
    size_t i = 0;
    while (i < w->n_types && strcmp(w->types[i].name, type->name) != 0)
        i++;
    STOA_ASSERT(i < WORLD_TYPES_MAX);
    const char *name = i < w->n_types ? w->types[i].name : mem_strdup(type->name);
    w->n_types += i == w->n_types;
    w->types[i] = *type;
    w->types[i].name = name;
    if (w->shard)
        shard_retypes(w->shard, w->types, w->n_types);
}

void world_start(struct world *w)
{
    struct shard_options options = {.self = {.role = ROLE_SHARD,
                                             .boot = ++w->boots,
                                             .cluster = CLUSTER,
                                             .name = "shard-0",
                                             .version = "test"},
                                    .slot_seed = SLOT_SEED,
                                    .types = w->types,
                                    .n_types = w->n_types,
                                    .grant = true,
                                    .grant_lo = 0,
                                    .grant_hi = SLOT_COUNT - 1,
                                    .seed = w->boots,
                                    .payload_max_bytes = PAYLOAD_MAX_BYTES};
    struct hub_ports ports = {.ctx = w, .send = shard_send, .forget = shard_forget};
    w->shard_metrics = metrics_create();
    w->shard = shard_create(&options, w->store, &ports, w->log, w->shard_metrics, w->now);
    w->peer = 0;
    gateway_connect(w);
    world_pump(w);
}

/* ---- time ---- */

int64_t world_now_ms(const struct world *w)
{
    return w->now.wall_ms;
}

uint64_t world_random(struct world *w)
{
    return rng_u64(&w->rng);
}

static void packets_feed(struct world *w)
{
    shard_tick(w->shard, w->now);
    for (size_t i = 0; i < w->to_shard.count; i++) {
        struct buf *packet = VEC_AT(&w->to_shard, struct buf *)[i];
        if (w->peer == 0)
            w->peer = hub_accept(shard_hub(w->shard), 0, w->now);
        hub_packet(shard_hub(w->shard), w->peer, packet, w->now);
        buf_unref(packet);
    }
    w->to_shard.count = 0;
}

void world_pump(struct world *w)
{
    bool moved = true;
    hub_tick(w->hub, w->now);
    hub_flush(w->hub, w->now);
    for (unsigned i = 0; moved && i < TURNS_MAX; i++) {
        packets_feed(w);
        moved = shard_turn(w->shard, w->now);
        moved |= gateway_turn(w);
        moved |= w->to_shard.count > 0;
    }
}

/* One step of the clock, at most `ms`. */
static int64_t step(struct world *w, int64_t ms)
{
    int64_t step_ms = ms < STEP_MS ? ms : STEP_MS;
    int64_t due_ms = (shard_deadline(w->shard) - w->now.mono_ns + NS_PER_MS - 1) / NS_PER_MS;
    if (due_ms < step_ms)
        step_ms = due_ms > 1 ? due_ms : 1;
    w->now.mono_ns += step_ms * NS_PER_MS;
    w->now.wall_ms += step_ms;
    for (size_t i = 0; i < w->connections.count; i++) {
        struct world_connection *c = VEC_AT(&w->connections, struct world_connection *)[i];
        if (c->stalled && c->again_ms <= w->now.wall_ms)
            gateway_inputs_send(w, c);
    }
    world_pump(w);
    return step_ms;
}

void world_wait(struct world *w, int64_t ms)
{
    world_pump(w);
    while (ms > 0)
        ms -= step(w, ms);
}

void world_fill(struct world *w, unsigned nth)
{
    store_mem_fill(w->store, nth);
    world_pump(w);
}

/* ---- answers ---- */

void world_ask(struct world *w, struct message *m, struct world_answer *out)
{
    int64_t left = WORLD_PATIENCE_MS;
    w->answer = out;
    gateway_send(w, m);
    w->awaited = m->cid;
    world_pump(w);
    while (w->awaited != 0 && left > 0)
        left -= step(w, left);
    if (w->awaited != 0) {
        out->status = 504;
        strbuf_put_text(&out->tag, "Unknown");
        strbuf_printf(&out->text, "no answer within %d s of the test's clock",
                      WORLD_PATIENCE_MS / 1000);
    }
    w->awaited = 0;
    w->answer = NULL;
}

void world_call(struct world *w, struct slice key, enum call_verb verb, struct slice name,
                struct slice input, struct world_answer *out)
{
    struct message m = {.type = MSG_CALL, .slot = SLOT_UNKNOWN, .key = key};
    uint64_t id = ++w->last_msg_id;
    *out = (struct world_answer){0};
    m.call.verb = verb;
    m.call.name = name;
    m.call.input = input;
    memcpy(m.call.msg_id, &id, sizeof id);
    world_ask(w, &m, out);
}

void world_purge(struct world *w, struct slice key, struct world_answer *out)
{
    struct message m = {.type = MSG_PURGE, .slot = SLOT_UNKNOWN, .key = key};
    *out = (struct world_answer){0};
    world_ask(w, &m, out);
}

void world_log(struct world *w, struct slice key, struct world_answer *out)
{
    *out = (struct world_answer){0};
    strbuf_put_byte(&out->json, '[');
    w->log_after = w->log_epoch = 0;
    do {
        struct message m = {.type = MSG_REPLAY_REQ, .slot = SLOT_UNKNOWN, .key = key};
        m.replay_req.epoch = w->log_epoch;
        m.replay_req.after = w->log_after;
        m.replay_req.max_bytes = REPLAY_PAGE_MAX_BYTES;
        w->log_more = false;
        world_ask(w, &m, out);
    } while (w->log_more);
    strbuf_put_byte(&out->json, ']');
}

/* ---- what no message tells ---- */

struct alarm_search {
    struct slice key;
    uint64_t room_id;
    struct alarm alarm;
};

static void none_slot(void *ctx, const struct store_slot *slot)
{
    (void)ctx, (void)slot;
}

static void room_look(void *ctx, const struct store_room *room)
{
    struct alarm_search *search = ctx;
    if (slice_equal(room->key, search->key))
        search->room_id = room->room_id;
}

static void none_record(void *ctx, unsigned class_no, const struct store_record *record)
{
    (void)ctx, (void)class_no, (void)record;
}

static void none_damaged(void *ctx, unsigned class_no, uint64_t lsn)
{
    (void)ctx, (void)class_no, (void)lsn;
}

static void none_damaged_row(void *ctx, const struct store_row *row)
{
    (void)ctx, (void)row;
}

static void row_look(void *ctx, const struct store_row *row)
{
    struct alarm_search *search = ctx;
    if (row->table == TABLE_ALARM && row->room_id == search->room_id &&
        !row_alarm(row->value, &search->alarm))
        search->alarm.set = false;
}

bool world_alarm(struct world *w, struct slice key, int64_t *due_ms)
{
    struct alarm_search search = {.key = key};
    const struct store_visitor visitor = {.ctx = &search,
                                          .slot = none_slot,
                                          .room = room_look,
                                          .record = none_record,
                                          .damaged = none_damaged,
                                          .row = row_look,
                                          .damaged_row = none_damaged_row};
    int code = w->store->vtable->scan(w->store, &visitor);
    STOA_ASSERT(code == ERR_OK);
    bool set = search.alarm.set && !search.alarm.dead;
    *due_ms = search.alarm.due_ms;
    strbuf_free(&search.alarm.why);
    return set;
}
