/* CORE. What a handler sends: to one connection, to many, into the log; and what it does to a
 * connection. Everything is checked here and buffered in the segment.
 *
 * Recipients travel as a filter (proto/filter.h) that every gateway asks about each of its
 * connections, so a broadcast costs the shard the same for two connections and for thirty
 * thousand. A filter is bounded. A broadcast whose names do not fit is for those who are connected
 * now, so it is worked out here and goes out in several pieces, each naming its sessions. A
 * publish is also for those who come later: its `to` is split by name, and `tags` and `except` must
 * fit.
 *
 * A connection that the handler has told to close gets nothing that was sent afterwards, although
 * the close itself leaves last: its session joins `except`. */
#include "shard/actor.h"

#include "common/json.h"
#include "common/utf8.h"
#include "proto/filter.h"
#include "proto/typed.h"

#define CLOSE_REASON_MAX_BYTES 123

/* ---- one entry a connection, by its number ---- */

/* Where in `list` the entry of `c` is or belongs. Both kinds of entry begin with the connection. */
static size_t place_of(const struct vec *list, size_t item_size, const struct connection *c)
{
    size_t low = 0, high = list->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct connection *there;
        memcpy(&there, (const uint8_t *)list->at + middle * item_size, sizeof(struct connection *));
        if (there->number < c->number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void *entry_insert(struct vec *list, size_t item_size, size_t place)
{
    (void)vec_push(list, item_size);
    uint8_t *at = (uint8_t *)list->at + place * item_size;
    memmove(at + item_size, at, (list->count - 1 - place) * item_size);
    return at;
}

static struct state_change *change_of(const struct connection *c)
{
    const struct segment *g = c->actor->segment;
    if (!g)
        return NULL;
    size_t place = place_of(&g->states, sizeof(struct state_change), c);
    struct state_change *change = VEC_AT(&g->states, struct state_change);
    return place < g->states.count && change[place].connection == c ? &change[place] : NULL;
}

bool connection_leaves(const struct connection *c)
{
    const struct segment *g = c->actor->segment;
    if (!g)
        return false;
    size_t place = place_of(&g->closes, sizeof(struct close_wish), c);
    return place < g->closes.count && VEC_AT(&g->closes, struct close_wish)[place].connection == c;
}

/* ---- one connection ---- */

static bool too_much(struct fault *fault, const char *tag)
{
    fault_set(fault, tag, "one handler may send and change at most %d bytes", SEGMENT_MAX_BYTES);
    return false;
}

struct slice connection_state(const struct connection *c)
{
    const struct state_change *change = change_of(c);
    return change ? slice_of(c->actor->segment->bytes.data + change->at, change->size)
                  : strbuf_slice(&c->state);
}

bool context_set_state(struct context *ctx, struct connection *c, struct slice state,
                       struct fault *fault)
{
    struct segment *g = ctx->segment;
    unsigned most = ctx->actor->handler->traits.max_connection_state;
    if (state.size > most) {
        fault_set(fault, "AttachmentTooLargeError",
                  "the state of a connection would be %zu bytes of JSON: at most %u are possible "
                  "(max_connection_state)",
                  state.size, most);
        return false;
    }
    if (!json_valid(state)) {
        fault_set(fault, "RoomError", "the state of a connection is not JSON");
        return false;
    }
    if (!handler_admits(ctx->actor->handler, BOUNDARY_CONNECTION, state, "RoomError", fault))
        return false;
    uint32_t at;
    if (!segment_keep(g, state, &at))
        return too_much(fault, "RoomError");
    struct state_change *change = change_of(c);
    if (!change)
        change = (struct state_change *)entry_insert(&g->states, sizeof *change,
                                                     place_of(&g->states, sizeof *change, c));
    *change = (struct state_change){.connection = c, .at = at, .size = (uint32_t)state.size};
    return true;
}

static bool close_code_valid(unsigned code)
{
    return code == 1000 || code == 1001 || code == 1003 || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

bool context_close(struct context *ctx, struct connection *c, unsigned code, struct slice reason,
                   struct fault *fault)
{
    struct segment *g = ctx->segment;
    if (!close_code_valid(code)) {
        fault_set(fault, "RoomError",
                  "%u is not a code to close with: 1000, 1001, 1003, 1007 to 1014 and 3000 to 4999 "
                  "are",
                  code);
        return false;
    }
    if (reason.size > CLOSE_REASON_MAX_BYTES || !utf8_valid(reason)) {
        fault_set(fault, "RoomError", "the reason of a close is at most %d bytes of text",
                  CLOSE_REASON_MAX_BYTES);
        return false;
    }
    if (!connection_is_open(c))
        return true;
    uint32_t at;
    if (!segment_keep(g, reason, &at))
        return too_much(fault, "RoomError");
    struct close_wish *wish = (struct close_wish *)entry_insert(
        &g->closes, sizeof *wish, place_of(&g->closes, sizeof *wish, c));
    *wish = (struct close_wish){
        .connection = c, .code = code, .reason_at = at, .reason_size = (uint32_t)reason.size};
    return true;
}

/* ---- an output ---- */

struct draft {
    struct context *ctx;
    const char *tag; /* of its faults */
    struct fault *fault;
    struct slice meta;    /* how the message is typed; empty: it is plain */
    struct output output; /* all but the filter */
};

static bool is_message(const struct context *ctx, struct slice message, const char *tag,
                       struct fault *fault)
{
    if (message.size > ctx->s->payload_max_bytes)
        fault_set(fault, tag, "a message of %zu bytes is too large: at most %llu are possible",
                  message.size, (unsigned long long)ctx->s->payload_max_bytes);
    else if (!json_valid(message))
        fault_set(fault, tag, "the message is not JSON");
    else
        return true;
    return false;
}

static bool may_send(const struct context *ctx, struct slice message, const char *tag,
                     struct fault *fault)
{
    return is_message(ctx, message, tag, fault) &&
           handler_admits(ctx->actor->handler, BOUNDARY_BROADCAST, message, tag, fault);
}

/* {"json": message, "meta": meta} */
static bool type_message(const struct draft *d, struct slice message, struct slice meta,
                         struct strbuf *out)
{
    strbuf_put_text(out, "{\"json\":");
    strbuf_put_slice(out, message);
    strbuf_put_text(out, ",\"meta\":");
    strbuf_put_slice(out, meta);
    strbuf_put_byte(out, '}');
    const char *wrong = typed_check(strbuf_slice(out));
    if (wrong)
        fault_set(d->fault, d->tag, "%s", wrong);
    return !wrong && is_message(d->ctx, strbuf_slice(out), d->tag, d->fault);
}

static bool draft_keep(struct draft *d, struct slice payload, struct slice conflate)
{
    struct segment *g = d->ctx->segment;
    struct output *o = &d->output;
    o->payload_size = (uint32_t)payload.size;
    o->conflate_size = (uint32_t)conflate.size;
    return (segment_keep(g, payload, &o->payload_at) &&
            segment_keep(g, conflate, &o->conflate_at)) ||
           too_much(d->fault, d->tag);
}

/* Checks the message and takes it in, once for all pieces. */
static bool draft_begin(struct draft *d, struct slice message, struct slice conflate)
{
    if (!may_send(d->ctx, message, d->tag, d->fault))
        return false;
    if (conflate.size > CONFLATE_MAX_BYTES) {
        fault_set(d->fault, d->tag, "a conflation key is at most %d bytes", CONFLATE_MAX_BYTES);
        return false;
    }
    if (d->meta.size == 0)
        return draft_keep(d, message, conflate);
    struct strbuf typed = {0};
    d->output.typed = true;
    bool fine =
        type_message(d, message, d->meta, &typed) && draft_keep(d, strbuf_slice(&typed), conflate);
    strbuf_free(&typed);
    return fine;
}

static int draft_emit(struct draft *d, const struct filter *filter)
{
    struct segment *g = d->ctx->segment;
    struct strbuf bytes = {0};
    int code = filter_encode(&bytes, filter);
    if (code == ERR_OK && !segment_keep(g, strbuf_slice(&bytes), &d->output.filter_at))
        code = ERR_NO_SPACE;
    if (code == ERR_OK) {
        d->output.filter_size = (uint32_t)bytes.size;
        *VEC_PUSH(&g->outputs, struct output) = d->output;
    }
    strbuf_free(&bytes);
    return code;
}

/* One output for each stretch of `names` that fits a filter together with `except`. On an error
 * nothing of it stays. */
static int draft_emit_pieces(struct draft *d, struct filter_names names, struct filter_names except)
{
    struct vec *outputs = &d->ctx->segment->outputs;
    size_t before = outputs->count, most = names.count;
    for (size_t i = 0; i < names.count;) {
        size_t count = most < names.count - i ? most : names.count - i;
        const struct filter piece = {.to = {names.at + i, count}, .except = except};
        int code = draft_emit(d, &piece);
        if (code == ERR_OK) {
            i += count;
        } else if (code == ERR_TOO_LARGE && count > 1) {
            most = count / 2;
        } else {
            outputs->count = before;
            return code;
        }
    }
    return ERR_OK;
}

/* ---- names ---- */

static struct map *names_of(const struct context *ctx, const struct slice *at, size_t count)
{
    struct map *names = map_create(ctx->s->map_seed);
    for (size_t i = 0; i < count; i++) {
        if (at[i].size > 0 && !map_get(names, at[i]))
            map_put(names, at[i], (void *)&at[i]);
    }
    return names;
}

static bool named(const struct map *names, const struct connection *c)
{
    return map_get(names, connection_session(c)) ||
           (c->id.size > 0 && map_get(names, connection_id(c)));
}

static bool tagged(const struct connection *c, const struct recipients *who)
{
    for (size_t i = 0; i < who->n_tags; i++) {
        if (connection_has_tag(c, who->tags[i]))
            return true;
    }
    return false;
}

/* Sessions of those whom a broadcast reaches now. */
static void work_out(const struct context *ctx, const struct recipients *who, struct vec *sessions)
{
    struct connection *const *at = VEC_AT(&ctx->actor->connections, struct connection *);
    struct map *to = names_of(ctx, who->to, who->n_to);
    struct map *except = names_of(ctx, who->except, who->n_except);
    for (size_t i = 0; i < ctx->actor->connections.count; i++) {
        const struct connection *c = at[i];
        bool meant = who->to ? named(to, c) : !who->tags || tagged(c, who);
        if (meant && connection_is_open(c) && !named(except, c))
            *VEC_PUSH(sessions, struct slice) = connection_session(c);
    }
    map_destroy(&to);
    map_destroy(&except);
}

/* `except` and those that are about to leave. */
static void put_except(const struct context *ctx, const struct recipients *who, struct vec *names)
{
    struct connection *const *at = VEC_AT(&ctx->actor->connections, struct connection *);
    for (size_t i = 0; i < who->n_except; i++)
        *VEC_PUSH(names, struct slice) = who->except[i];
    for (size_t i = 0; i < ctx->actor->connections.count; i++) {
        bool gone = ctx->phase == PHASE_CLOSE && at[i] == ctx->connection;
        if (!gone && !connection_is_open(at[i]))
            *VEC_PUSH(names, struct slice) = connection_session(at[i]);
    }
}

static bool anybody_open(const struct context *ctx)
{
    struct connection *const *at = VEC_AT(&ctx->actor->connections, struct connection *);
    for (size_t i = 0; i < ctx->actor->connections.count; i++) {
        if (connection_is_open(at[i]))
            return true;
    }
    return false;
}

static const struct recipients everybody = {0};

static struct filter filter_of(const struct recipients *who, struct filter_names except)
{
    return (struct filter){.to = {who->to, who->n_to},
                           .tags = {who->to ? NULL : who->tags, who->n_tags},
                           .except = {except.count > 0 ? except.at : NULL, except.count}};
}

/* ---- sends ---- */

bool context_send(struct context *ctx, struct connection *c, struct slice message,
                  struct fault *fault)
{
    struct draft d = {
        .ctx = ctx, .tag = "SendError", .fault = fault, .output = {.kind = OUTPUT_BROADCAST}};
    if (!connection_is_open(c)) {
        fault_set(fault, "SendError", "the connection is closing");
        return false;
    }
    if (!draft_begin(&d, message, (struct slice){0}))
        return false;
    struct slice session = connection_session(c);
    const struct filter only = {.to = {&session, 1}};
    return draft_emit(&d, &only) == ERR_OK || too_much(fault, d.tag);
}

bool context_broadcast(struct context *ctx, struct slice message, const struct recipients *who,
                       struct fault *fault)
{
    struct draft d = {
        .ctx = ctx, .tag = "BroadcastError", .fault = fault, .output = {.kind = OUTPUT_BROADCAST}};
    who = who ? who : &everybody;
    if (!anybody_open(ctx))
        return may_send(ctx, message, d.tag, fault);
    if (!draft_begin(&d, message, (struct slice){0}))
        return false;
    struct vec names = {0};
    put_except(ctx, who, &names);
    struct filter filter =
        filter_of(who, (struct filter_names){VEC_AT(&names, struct slice), names.count});
    int code = draft_emit(&d, &filter);
    if (code == ERR_TOO_LARGE) {
        names.count = 0;
        work_out(ctx, who, &names);
        code =
            draft_emit_pieces(&d, (struct filter_names){VEC_AT(&names, struct slice), names.count},
                              (struct filter_names){0});
    }
    vec_free(&names);
    return code == ERR_OK || too_much(fault, d.tag);
}

/* The names of `to`, each recipient once: not twice the same name, and no session whose id is there
 * too. */
static void put_distinct(const struct context *ctx, const struct recipients *who, struct vec *names)
{
    struct connection *const *at = VEC_AT(&ctx->actor->connections, struct connection *);
    struct map *to = names_of(ctx, who->to, who->n_to);
    for (size_t i = 0; i < ctx->actor->connections.count; i++) {
        if (at[i]->id.size > 0 && map_get(to, connection_id(at[i])))
            (void)map_remove(to, connection_session(at[i]));
    }
    size_t cursor = 0;
    for (const struct slice *name; (name = (const struct slice *)map_next(to, &cursor));)
        *VEC_PUSH(names, struct slice) = *name;
    map_destroy(&to);
}

static bool publish_pieces(struct draft *d, const struct recipients *who)
{
    struct vec names = {0};
    int code = ERR_TOO_LARGE;
    if (d->output.conflate_size == 0 && who->to) {
        put_distinct(d->ctx, who, &names);
        code = draft_emit_pieces(
            d, (struct filter_names){VEC_AT(&names, struct slice), names.count},
            (struct filter_names){who->n_except > 0 ? who->except : NULL, who->n_except});
    }
    vec_free(&names);
    if (code == ERR_TOO_LARGE)
        fault_set(d->fault, d->tag,
                  "the names of its recipients are more than the %d bytes that an event keeps%s",
                  FILTER_MAX_BYTES,
                  d->output.conflate_size > 0 ? " (a conflated one is not split)" : "");
    else if (code != ERR_OK)
        return too_much(d->fault, d->tag);
    return code == ERR_OK;
}

bool context_publish(struct context *ctx, struct slice message, const struct publish_wish *wish,
                     struct fault *fault)
{
    static const struct publish_wish plain = {0};
    wish = wish ? wish : &plain;
    const struct recipients *who = &wish->who;
    struct draft d = {.ctx = ctx,
                      .tag = "BroadcastError",
                      .fault = fault,
                      .meta = wish->meta,
                      .output = {.kind = wish->ephemeral ? OUTPUT_EPHEMERAL : OUTPUT_PUBLISH}};
    if (!draft_begin(&d, message, wish->conflate))
        return false;
    struct filter filter = filter_of(who, (struct filter_names){who->except, who->n_except});
    int code = draft_emit(&d, &filter);
    if (code == ERR_TOO_LARGE)
        return publish_pieces(&d, who);
    return code == ERR_OK || too_much(fault, d.tag);
}

bool context_item(struct context *ctx, struct slice item, struct fault *fault)
{
    struct segment *g = ctx->segment;
    uint32_t at;
    if (!is_message(ctx, item, "SendError", fault))
        return false;
    if (!segment_keep(g, item, &at))
        return too_much(fault, "SendError");
    *VEC_PUSH(&g->items, struct state_change) =
        (struct state_change){.at = at, .size = (uint32_t)item.size};
    return true;
}
