/* CORE. What a handler asks of its own room: state, connections as they are, alarm, waits. Writes
 * land in the running segment and nowhere else; reads look there first.
 *
 * Slices that were given out stay good until the segment ends although its buffers grow: memory
 * that is outgrown or replaced is kept in segment->kept, at most as much again as what replaced it.
 */
#include "shard/actor.h"

#include "common/json.h"
#include "common/utf8.h"

/* The last instant of ECMAScript's Date: what is beyond is a mistake of units. */
#define ALARM_MAX_MS INT64_C(8640000000000000)

/* ---- the segment's memory ---- */

void segment_begin(struct segment *g)
{
    *g = (struct segment){0};
}

void segment_free(struct segment *g)
{
    for (size_t i = 0; i < g->kept.count; i++)
        mem_free(VEC_AT(&g->kept, void *)[i]);
    struct vec *lists[] = {&g->outputs, &g->states, &g->closes, &g->kept, &g->items};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        vec_free(lists[i]);
    struct strbuf *texts[] = {&g->bytes, &g->state, &g->sibling_key, &g->sibling_method,
                              &g->sibling_input};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        strbuf_free(texts[i]);
    segment_begin(g);
}

/* Gives `b` other memory with the same bytes and room for `extra` more. */
static void move_aside(struct segment *g, struct strbuf *b, size_t extra)
{
    struct strbuf wider = {0};
    (void)strbuf_reserve(&wider, 2 * b->size + extra);
    strbuf_put_slice(&wider, strbuf_slice(b));
    if (b->data)
        *VEC_PUSH(&g->kept, void *) = b->data;
    *b = wider;
}

bool segment_keep(struct segment *g, struct slice s, uint32_t *at)
{
    if (s.size > SEGMENT_MAX_BYTES - g->bytes.size)
        return false;
    if (g->bytes.capacity - g->bytes.size < s.size)
        move_aside(g, &g->bytes, s.size);
    *at = (uint32_t)g->bytes.size;
    strbuf_put_slice(&g->bytes, s);
    return true;
}

/* ---- the room ---- */

struct slice context_key(const struct context *ctx)
{
    return room_key(ctx->actor->room);
}

/* A key without ':' belongs to the default type, which has no name of its own in it. */
static size_t type_size(struct slice key)
{
    const uint8_t *colon = (const uint8_t *)memchr(key.data, ':', key.size);
    return colon ? (size_t)(colon - key.data) : 0;
}

struct slice context_type(const struct context *ctx)
{
    struct slice key = context_key(ctx);
    return slice_of(key.data, type_size(key));
}

struct slice context_id(const struct context *ctx)
{
    struct slice key = context_key(ctx);
    size_t type = type_size(key);
    bool colon = type < key.size && key.data[type] == ':';
    size_t from = colon ? type + 1 : 0;
    return slice_of(key.data + from, key.size - from);
}

struct connection *context_connection(const struct context *ctx)
{
    return ctx->connection;
}

const char *context_system_failure(const struct context *ctx)
{
    return ctx->system_failure;
}

int64_t context_now_ms(const struct context *ctx)
{
    return ctx->now_ms;
}

uint64_t context_random(struct context *ctx)
{
    return rng_u64(&ctx->s->rng);
}

void context_print(struct context *ctx, struct slice text)
{
    LOG(ctx->s->log, LOG_INFO, "room.print", LOG_SLICE("key", context_key(ctx)),
        LOG_SLICE("text", text));
}

/* ---- state ---- */

bool context_recall(struct context *ctx, struct slice *state)
{
    const struct actor *a = ctx->actor;
    const struct segment *g = ctx->segment;
    *state = strbuf_slice(g->state_set ? &g->state : &a->state);
    return g->state_set || a->has_state;
}

unsigned context_state_version(const struct context *ctx)
{
    const struct actor *a = ctx->actor;
    return ctx->segment->state_set ? a->handler->traits.state_version : a->state_version;
}

bool context_save(struct context *ctx, struct slice state, struct fault *fault)
{
    struct segment *g = ctx->segment;
    if (state.size > CONTEXT_STATE_MAX_BYTES) {
        fault_set(fault, "RoomError",
                  "a state of %zu bytes is too large: a room keeps at most %d; spread it over "
                  "several rooms",
                  state.size, CONTEXT_STATE_MAX_BYTES);
        return false;
    }
    if (!json_valid(state)) {
        fault_set(fault, "RoomError", "the state to save is not JSON");
        return false;
    }
    if (!handler_admits(ctx->actor->handler, BOUNDARY_STATE, state, "RoomError", fault))
        return false;
    struct strbuf saved = {0};
    strbuf_put_slice(&saved, state); /* it may lie in the one that it replaces */
    if (g->state.data)
        *VEC_PUSH(&g->kept, void *) = g->state.data;
    g->state = saved;
    g->state_set = true;
    return true;
}

void context_purge(struct context *ctx)
{
    ctx->segment->purge = true;
}

/* ---- connections as they are ---- */

struct slice connection_session(const struct connection *c)
{
    return slice_of(c->session, c->session_size);
}

struct slice connection_id(const struct connection *c)
{
    return strbuf_slice(&c->id);
}

size_t connection_tags(const struct connection *c)
{
    return c->n_tags;
}

struct slice connection_tag(const struct connection *c, size_t i)
{
    return i < c->n_tags ? c->tags[i] : (struct slice){0};
}

bool connection_has_tag(const struct connection *c, struct slice tag)
{
    for (size_t i = 0; i < c->n_tags; i++) {
        if (slice_equal(c->tags[i], tag))
            return true;
    }
    return false;
}

struct slice connection_meta(const struct connection *c)
{
    return c->joining ? strbuf_slice(&c->meta) : (struct slice){0};
}

bool connection_is_open(const struct connection *c)
{
    return !c->closing && !connection_leaves(c);
}

/* What a handler sees: open ones, and the one that it is told of as gone. */
static bool is_listed(const struct context *ctx, const struct connection *c)
{
    return connection_is_open(c) || (ctx->phase == PHASE_CLOSE && c == ctx->connection);
}

/* Place of the first connection that was accepted after `number`. */
static size_t place_after(const struct vec *connections, uint64_t number)
{
    struct connection *const *at = VEC_AT(connections, struct connection *);
    size_t low = 0, high = connections->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (at[middle]->number <= number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct connection *context_next(struct context *ctx, struct connection *after)
{
    const struct vec *all = &ctx->actor->connections;
    struct connection *const *at = VEC_AT(all, struct connection *);
    for (size_t i = after ? place_after(all, after->number) : 0; i < all->count; i++) {
        if (is_listed(ctx, at[i]))
            return at[i];
    }
    return NULL;
}

size_t context_count(const struct context *ctx)
{
    const struct vec *all = &ctx->actor->connections;
    struct connection *const *at = VEC_AT(all, struct connection *);
    size_t count = 0;
    for (size_t i = 0; i < all->count; i++)
        count += is_listed(ctx, at[i]);
    return count;
}

struct connection *context_by_id(struct context *ctx, struct slice id)
{
    const struct vec *all = &ctx->actor->connections;
    struct connection *const *at = VEC_AT(all, struct connection *);
    for (size_t i = 0; i < all->count; i++) {
        if (slice_equal(connection_id(at[i]), id) && connection_is_open(at[i]))
            return at[i];
    }
    return NULL;
}

/* ---- alarm ---- */

bool context_schedule_at(struct context *ctx, int64_t unix_ms, struct fault *fault)
{
    if (unix_ms > ALARM_MAX_MS) {
        fault_set(fault, "RoomError",
                  "an alarm at %lld is beyond every calendar: the time is in "
                  "milliseconds since 1970",
                  (long long)unix_ms);
        return false;
    }
    ctx->segment->alarm = ALARM_SET;
    ctx->segment->alarm_ms = unix_ms > 0 ? unix_ms : 0;
    return true;
}

void context_cancel(struct context *ctx)
{
    ctx->segment->alarm = ALARM_CANCELLED;
}

bool context_next_alarm(const struct context *ctx, int64_t *unix_ms)
{
    const struct alarm *alarm = &ctx->actor->alarm;
    const struct segment *g = ctx->segment;
    bool pending = alarm->set && !alarm->dead && !alarm->running;
    *unix_ms = g->alarm == ALARM_SET ? g->alarm_ms : pending ? alarm->due_ms : 0;
    return g->alarm == ALARM_SET || (g->alarm == ALARM_KEPT && pending);
}

/* ---- what a run waits for ---- */

static bool may_wait(const struct context *ctx, struct fault *fault)
{
    if (ctx->segment->wait == WAIT_NONE)
        return true;
    fault_set(fault, "RoomError", "a handler waits for one thing at a time");
    return false;
}

bool context_sleep(struct context *ctx, int64_t ms, struct fault *fault)
{
    if (!may_wait(ctx, fault))
        return false;
    if (ms < 0 || ms > CONTEXT_SLEEP_MAX_MS) {
        fault_set(fault, "RoomError",
                  "a sleep of %lld ms: 0 to %d are possible; schedule an alarm for longer",
                  (long long)ms, CONTEXT_SLEEP_MAX_MS);
        return false;
    }
    ctx->segment->wait = WAIT_SLEEP;
    ctx->segment->sleep_ms = ms;
    return true;
}

static bool type_known(const struct shard *s, struct slice name)
{
    for (size_t i = 0; i < s->n_types; i++) {
        if (slice_equal(slice_of(s->types[i].name, s->types[i].name_size), name))
            return true;
    }
    return false;
}

static bool sibling_is_fit(const struct context *ctx, enum sibling_verb verb, struct slice type,
                           struct slice method, struct slice input, struct fault *fault)
{
    bool needs_input = verb == SIBLING_SEND || verb == SIBLING_BROADCAST;
    if (!type_known(ctx->s, type)) {
        fault_set(fault, "RoomNotFoundError",
                  "no room type `%.*s` is declared: name it under `types` in the configuration",
                  SLICE_FMT(type));
        fault->status = 404;
    } else if (verb == SIBLING_CALL && method.size == 0) {
        fault_set(fault, "RoomError", "a call needs the name of a method");
    } else if ((needs_input || input.size > 0) && !json_valid(input)) {
        fault_set(fault, "RoomError", "what is sent to a sibling is not JSON");
    } else if (input.size > ctx->s->payload_max_bytes) {
        fault_set(fault, "RoomError", "%zu bytes to a sibling: at most %llu are possible",
                  input.size, (unsigned long long)ctx->s->payload_max_bytes);
    } else {
        return true;
    }
    return false;
}

bool context_sibling(struct context *ctx, enum sibling_verb verb, struct slice type,
                     struct slice id, struct slice method, struct slice input, struct fault *fault)
{
    struct segment *g = ctx->segment;
    if (!may_wait(ctx, fault) || !sibling_is_fit(ctx, verb, type, method, input, fault))
        return false;
    strbuf_reset(&g->sibling_key);
    strbuf_put_slice(&g->sibling_key, type);
    strbuf_put_byte(&g->sibling_key, ':');
    strbuf_put_slice(&g->sibling_key, id);
    if (id.size == 0 || !key_valid(strbuf_slice(&g->sibling_key), false)) {
        fault_set(fault, "RoomError",
                  "a room's key is at most %d bytes of text without control characters, and its id "
                  "is not empty",
                  KEY_MAX_BYTES);
        return false;
    }
    strbuf_reset(&g->sibling_method);
    strbuf_put_slice(&g->sibling_method, method);
    strbuf_reset(&g->sibling_input);
    strbuf_put_slice(&g->sibling_input, input);
    g->wait = WAIT_SIBLING;
    g->verb = verb;
    return true;
}
