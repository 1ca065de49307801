/* CORE. What is asked of a room with a handler, by HTTP or in a stoa.v1 frame: a direct send, a
 * broadcast, a method, the alarm, its state, its connections. Each is a CALL to the shard that owns
 * the key and is kept until its RESULT or its deadline. It is sent again under the same msg_id when
 * the shard could not take it or its link went down; the shard answers what it has done already.
 *
 *   sent --RESULT--> done      --NACK BUSY RATE MOVED NOTOWNER FROZEN--> waiting, backing off
 *        --link down--> uncertain: sent again when somebody owns the slot
 *   deadline, or LOSSES_MAX links lost under it: a read 503; else 504 Unknown when an attempt is
 * unanswered or uncertain, else 503: surely nothing has run
 *
 * A stream's items go to a session as they come; an HTTP client gets them in one array. */
#include "common/json.h"
#include "common/mutant.h"
#include "common/utf8.h"
#include "gateway/core.h"

#define STREAM_MAX_BYTES MIB /* of items collected for one answer */
#define CALL_NAME_MAX_BYTES 256
#define LOSSES_MAX 3 /* it may be this very call that ends the shard's process each time */

struct room_call {
    struct call call;
    struct timer timer; /* the deadline, or the next attempt */
    struct waiter waiter;
    uint64_t client;
    enum call_verb verb;
    bool by_session, typed, idempotent;
    bool sent;      /* an attempt is under way */
    bool uncertain; /* an earlier attempt may have run */
    uint8_t nack;   /* the last refusal, enum nack_code */
    uint32_t attempts;
    uint32_t losses; /* attempts whose link went down */
    uint16_t slot;
    int64_t deadline_ns;
    uint8_t msg_id[16];
    size_t bytes;                       /* charged to g->publish_bytes */
    struct strbuf items;                /* of a stream, joined by ',' */
    struct slice key, name, input, ref; /* point behind the struct */
};

static struct room_call *room_call_of(struct call *call)
{
    return LIST_ENTRY(call, struct room_call, call);
}

static bool only_reads(enum call_verb verb)
{
    return verb == VERB_STATE || verb == VERB_CONNECTIONS || verb == VERB_PRESENCE;
}

/* ---- one call's memory ---- */

static struct slice bytes_take(uint8_t **at, struct slice from)
{
    if (from.size > 0)
        memcpy(*at, from.data, from.size);
    struct slice copy = slice_of(*at, from.size);
    *at += from.size;
    return copy;
}

static struct room_call *room_call_create(struct gateway *g, const struct call_order *order)
{
    size_t size = sizeof(struct room_call) + order->key.size + order->name.size +
                  order->input.size + order->ref.size;
    struct room_call *c = mem_alloc(size);
    memset(c, 0, sizeof *c);
    uint8_t *at = (uint8_t *)(c + 1);
    c->key = bytes_take(&at, order->key);
    c->name = bytes_take(&at, order->name);
    c->input = bytes_take(&at, order->input);
    c->ref = bytes_take(&at, order->ref);
    c->verb = order->verb;
    c->by_session = order->by_session;
    c->typed = order->typed;
    c->idempotent = order->idempotent;
    memcpy(c->msg_id, order->msg_id, sizeof c->msg_id);
    c->slot = slot_of(c->key, g->options.slot_seed);
    c->bytes = size;
    g->publish_bytes += size;
    return c;
}

void room_call_destroy(struct gateway *g, struct call *call)
{
    struct room_call *c = room_call_of(call);
    waiter_drop(g, &c->waiter);
    timer_stop(g, &c->timer);
    call_end(g, call);
    g->publish_bytes -= c->bytes;
    strbuf_free(&c->items);
    mem_free(c);
}

/* ---- ends ---- */

static void error_of_room_put(struct strbuf *out, const struct msg_result *r, unsigned status,
                              bool with_status)
{
    /* What a handler raised is for the author's eyes: the shard's log has it. */
    struct slice text = slice_is(r->tag, "RoomExecutionError")
                            ? slice_text("the room's handler failed; the shard's log says how")
                            : r->text;
    strbuf_put_text(out, "{\"tag\":");
    json_quote(out, r->tag);
    strbuf_put_text(out, ",\"message\":");
    json_quote(out, text);
    if (r->json.size > 0 && json_valid(r->json)) {
        strbuf_put_text(out, ",\"data\":");
        strbuf_put_slice(out, r->json);
    }
    if (with_status)
        strbuf_printf(out, ",\"status\":%u", status);
    strbuf_put_byte(out, '}');
}

/* A room's own error: its tag and text are its author's. */
static void room_call_fail_with(struct gateway *g, struct room_call *c, const struct msg_result *r)
{
    struct strbuf out = {0}, tag = {0};
    strbuf_put_slice(&tag, r->tag);
    unsigned status =
        r->status >= 400 && r->status <= 599 ? (unsigned)r->status : tag_status(strbuf_cstr(&tag));
    struct session *s = c->by_session ? session_find(g, c->client) : NULL;
    refused_note(g, tag_known(strbuf_cstr(&tag)) ? strbuf_cstr(&tag) : "RoomError",
                 "a room answered with an error");
    if (!c->by_session)
        strbuf_put_text(&out, "{\"error\":");
    error_of_room_put(&out, r, status, c->by_session);
    if (!c->by_session)
        strbuf_put_byte(&out, '}');
    if (s)
        s->dialect->call_done(g, s, c->ref, slice_of(NULL, 0), strbuf_slice(&out));
    else if (c->waiter.waiting)
        answer(g, c->client, c->waiter.cors ? c->waiter.cors : "", status, "application/json",
               strbuf_slice(&out), status == 503 || status == 429 ? "Retry-After: 1\r\n" : "");
    strbuf_free(&out);
    strbuf_free(&tag);
    room_call_destroy(g, &c->call);
}

/* An error of ours. */
static void room_call_fail(struct gateway *g, struct room_call *c, const char *tag,
                           const char *message)
{
    struct session *s = c->by_session ? session_find(g, c->client) : NULL;
    struct strbuf out = {0};
    if (s) {
        refused_note(g, tag, message);
        error_put(&out, tag, message, true);
        s->dialect->call_done(g, s, c->ref, slice_of(NULL, 0), strbuf_slice(&out));
    } else {
        waiter_error(g, &c->waiter, tag, message);
    }
    strbuf_free(&out);
    room_call_destroy(g, &c->call);
}

static void room_call_expired(struct gateway *g, struct room_call *c)
{
    if (!only_reads(c->verb) && (c->sent || c->uncertain))
        room_call_fail(g, c, "Unknown",
                       c->idempotent ? "no answer in time; it may have run: retry with the same "
                                       "key to learn it"
                                     : "no answer in time; it may have run, and without an "
                                       "Idempotency-Key a retry runs it anew");
    else if (c->nack == NACK_BUSY || c->nack == NACK_RATE)
        room_call_fail(g, c, "Busy", "the room is busy; nothing has run, retry later");
    else
        room_call_fail(g, c, "Moving", "no shard answers for this key just now; retry later");
}

/* ---- attempts ---- */

static void room_call_wait(struct gateway *g, struct room_call *c, int64_t delay_ms)
{
    int64_t due = g->now.mono_ns + delay_ms * NS_PER_MS;
    c->sent = false;
    c->call.peer = 0;
    timer_set(g, &c->timer, due < c->deadline_ns ? due : c->deadline_ns);
}

static void room_call_send(struct gateway *g, struct room_call *c)
{
    uint32_t owner = slots_owner(g->slots, c->slot).peer;
    if (owner == 0) {
        room_call_wait(g, c, READ_RETRY_MS);
        return;
    }
    /* A new number, so that an answer to the last attempt does not mix with this one's. */
    call_end(g, &c->call);
    call_begin(g, &c->call, CALL_ROOM, owner);
    strbuf_reset(&c->items);
    c->sent = true;
    c->attempts++;
    timer_set(g, &c->timer, c->deadline_ns);
    if (STOA_MUTANT(CALL_NEW_ID))
        rng_bytes(&g->rng, c->msg_id, sizeof c->msg_id);
    struct message m = {.type = MSG_CALL, .cid = c->call.cid, .slot = c->slot, .key = c->key};
    m.call.verb = c->verb;
    memcpy(m.call.msg_id, c->msg_id, sizeof m.call.msg_id);
    m.call.name = c->name;
    m.call.streams = (c->by_session ? CALL_STREAMS : 0) | (c->typed ? CALL_TYPED : 0);
    m.call.input = c->input;
    hub_send(g->hub, owner, &m);
}

static void room_call_fire(struct gateway *g, struct timer *t)
{
    struct room_call *c = LIST_ENTRY(t, struct room_call, timer);
    if (g->now.mono_ns >= c->deadline_ns || c->losses == LOSSES_MAX)
        room_call_expired(g, c);
    else
        room_call_send(g, c);
}

static void room_call_back_off(struct gateway *g, struct room_call *c, uint64_t wished_ms)
{
    room_call_wait(g, c, (int64_t)retry_delay_ms(g, c->attempts, wished_ms));
}

/* An earlier attempt may still run: only its answer tells. */
static void room_call_limited(struct gateway *g, struct room_call *c, uint64_t retry_ms)
{
    if (c->uncertain) {
        c->nack = NACK_RATE;
        room_call_back_off(g, c, retry_ms);
    } else if (c->by_session) {
        room_call_fail(g, c, "RateLimited", RATE_ROOM_TEXT);
    } else {
        waiter_limited(g, &c->waiter, RATE_ROOM_TEXT, retry_ms);
        room_call_destroy(g, &c->call);
    }
}

void room_call_on_nack(struct gateway *g, struct call *call, const struct message *m)
{
    struct room_call *c = room_call_of(call);
    switch (m->nack.code) {
    case NACK_RATE:
        room_call_limited(g, c, m->nack.retry_ms);
        return;
    case NACK_BUSY:
    case NACK_MOVED:
    case NACK_NOTOWNER:
    case NACK_FROZEN:
        c->nack = (uint8_t)m->nack.code;
        room_call_back_off(g, c, m->nack.retry_ms);
        return;
    case NACK_STALE:
        room_call_fail(g, c, "Unknown", "too late to learn whether it has run");
        return;
    case NACK_DISK:
        if (c->uncertain)
            room_call_expired(g, c);
        else
            room_call_fail(g, c, "DiskFull", "the shard's disk is full; nothing was changed");
        return;
    case NACK_TOOBIG:
        room_call_fail(g, c, "TooLarge", "the shard refused the input for its size");
        return;
    case NACK_DENIED:
        room_call_fail(g, c, "Forbidden", "this call is refused");
        return;
    default:
        room_call_fail(g, c, "BadRequest", "the shard refused the call");
    }
}

/* Nothing is filed or freed here: g->calls is being walked. */
void room_call_peer_down(struct gateway *g, struct call *call)
{
    struct room_call *c = room_call_of(call);
    c->uncertain |= c->sent;
    c->losses += c->sent;
    room_call_wait(g, c, READ_RETRY_MS);
}

/* ---- results ---- */

static void room_call_item(struct gateway *g, struct room_call *c, struct slice item)
{
    struct session *s = c->by_session ? session_find(g, c->client) : NULL;
    if (item.size == 0)
        item = slice_text("null");
    if (c->by_session) {
        if (s)
            s->dialect->call_item(g, s, c->ref, item);
        return;
    }
    if (c->items.size > 0)
        strbuf_put_byte(&c->items, ',');
    strbuf_put_slice(&c->items, item);
}

/* The value that the caller sees. */
static void value_put(struct strbuf *out, const struct room_call *c, const struct msg_result *r)
{
    bool returned = r->json.size > 0 && !slice_is(r->json, "null");
    if (c->verb == VERB_SEND || c->verb == VERB_BROADCAST || c->verb == VERB_ALARM) {
        strbuf_put_text(out, r->dup && c->idempotent ? "{\"ok\":true,\"duplicate\":true}"
                                                     : "{\"ok\":true}");
    } else if (c->items.size > 0) {
        strbuf_put_byte(out, '[');
        strbuf_put_slice(out, strbuf_slice(&c->items));
        if (returned) {
            strbuf_put_byte(out, ',');
            strbuf_put_slice(out, r->json);
        }
        strbuf_put_byte(out, ']');
    } else {
        strbuf_put_slice(out, r->json.size > 0 ? r->json : slice_text("null"));
    }
}

static void room_call_done(struct gateway *g, struct room_call *c, const struct msg_result *r)
{
    struct session *s = c->by_session ? session_find(g, c->client) : NULL;
    struct strbuf out = {0};
    value_put(&out, c, r);
    if (s)
        s->dialect->call_done(g, s, c->ref, strbuf_slice(&out), slice_of(NULL, 0));
    else if (c->waiter.waiting)
        answer(g, c->client, c->waiter.cors ? c->waiter.cors : "", 200, "application/json",
               strbuf_slice(&out), r->dup && c->idempotent ? "Stoa-Duplicate: 1\r\n" : "");
    strbuf_free(&out);
    room_call_destroy(g, &c->call);
}

void room_call_on_result(struct gateway *g, struct call *call, const struct message *m)
{
    struct room_call *c = room_call_of(call);
    const struct msg_result *r = &m->result;
    if (r->status != 0)
        room_call_fail_with(g, c, r);
    else if (r->json.size > 0 && !json_valid(r->json))
        room_call_fail(g, c, "RoomExecutionError", "the room answered with something not JSON");
    else if (c->items.size > 0 && c->items.size + r->json.size > STREAM_MAX_BYTES)
        room_call_fail(g, c, "RoomError",
                       "the stream is larger than 1 MiB; take it over stoa.v1, item by item");
    else if (r->more)
        room_call_item(g, c, r->json);
    else
        room_call_done(g, c, r);
}

/* ---- beginning ---- */

const char *room_call_check(struct gateway *g, struct call_order *order,
                            struct slice idempotency_key, const char **message)
{
    bool says = order->verb == VERB_SEND || order->verb == VERB_BROADCAST;
    uint8_t digest[32];
    *message = "the input is at most gateway.limits.message bytes (524288 by default)";
    if (order->input.size > g->options.payload_max_bytes)
        return "TooLarge";
    *message = "what is sent to a room is one JSON value";
    if (says && !json_valid(order->input))
        return "RoomValidationError";
    *message = "a method's input is one JSON value, or nothing";
    if (order->input.size > 0 && !json_valid(order->input))
        return "BadRequest";
    *message = "a method's name is 1 to 256 bytes of UTF-8";
    if (order->verb == VERB_METHOD &&
        (order->name.size == 0 || order->name.size > CALL_NAME_MAX_BYTES ||
         !utf8_valid(order->name)))
        return "NoSuchMethod";
    *message = "Idempotency-Key: 1 to 255 bytes";
    if (order->idempotent &&
        (idempotency_key.size == 0 || idempotency_key.size > IDEMPOTENCY_KEY_MAX_BYTES))
        return "BadRequest";
    if (order->idempotent) {
        sha256(digest, idempotency_key.data, idempotency_key.size);
        memcpy(order->msg_id, digest, sizeof order->msg_id);
    } else if (!only_reads(order->verb)) {
        rng_bytes(&g->rng, order->msg_id, sizeof order->msg_id);
    }
    return NULL;
}

const char *room_call_begin(struct gateway *g, uint64_t client, const char *cors,
                            const struct call_order *order, const char **message)
{
    if (g->publish_bytes >= PENDING_PUBLISH_MAX_BYTES) {
        *message = "too much waits here for answers; nothing has run, retry later";
        return "Busy";
    }
    struct room_call *c = room_call_create(g, order);
    c->client = client;
    c->deadline_ns =
        g->now.mono_ns + (only_reads(c->verb) ? READ_TIMEOUT_MS : PUBLISH_TIMEOUT_MS) * NS_PER_MS;
    c->timer.fire = room_call_fire;
    if (!c->by_session)
        waiter_begin(g, &c->waiter, client, cors);
    call_begin(g, &c->call, CALL_ROOM, 0);
    room_call_send(g, c);
    return NULL;
}

/* ---- routes: x->key is set and admitted ---- */

static void room_call_route(struct exchange *x, enum call_verb verb, struct slice name,
                            struct slice input)
{
    const char *message = "the body is JSON as it is: send it as Content-Type: application/json";
    struct slice idempotency_key = http_header_get(x->request, "Idempotency-Key");
    if (input.size > 0 && !http_may_be_json(x->request)) {
        exchange_error(x, "UnsupportedType", message);
        return;
    }
    message = "Idempotency-Key: at most one";
    struct call_order order = {
        .verb = verb, .key = strbuf_slice(&x->key), .name = name, .input = input};
    order.idempotent = idempotency_key.data != NULL && !only_reads(verb);
    const char *tag = http_header_repeated(x->request, "Idempotency-Key") ? "BadRequest" : NULL;
    if (!tag)
        tag = room_call_check(x->g, &order, idempotency_key, &message);
    if (!tag)
        tag = room_call_begin(x->g, x->client, exchange_cors(x), &order, &message);
    if (tag)
        exchange_error(x, tag, message);
}

static const struct slice nothing;

void route_room_send(struct exchange *x)
{
    room_call_route(x, VERB_SEND, nothing, x->request->body);
}

void route_room_broadcast(struct exchange *x)
{
    room_call_route(x, VERB_BROADCAST, nothing, x->request->body);
}

void route_room_alarm(struct exchange *x)
{
    room_call_route(x, VERB_ALARM, nothing, nothing);
}

void route_room_release(struct exchange *x)
{
    room_call_route(x, VERB_RELEASE, nothing, nothing);
}

void route_room_state(struct exchange *x)
{
    room_call_route(x, VERB_STATE, nothing, nothing);
}

void route_room_connections(struct exchange *x)
{
    struct strbuf tag = {0};
    int found = http_query_get(x->request->query, "tag", &tag);
    if (found == ERR_NOT_FOUND)
        strbuf_reset(&tag);
    if (found == ERR_INVALID || tag.size > CALL_NAME_MAX_BYTES || !utf8_valid(strbuf_slice(&tag)))
        exchange_error(x, "BadRequest", "tag: at most 256 bytes of UTF-8");
    else if (found == ERR_OK && tag.size == 0)
        exchange_json(x, slice_text("[]")); /* no tag is empty */
    else
        room_call_route(x, VERB_CONNECTIONS, strbuf_slice(&tag), nothing);
    strbuf_free(&tag);
}

void route_room_presence(struct exchange *x)
{
    room_call_route(x, VERB_PRESENCE, nothing, nothing);
}

void route_room_method(struct exchange *x, struct slice raw)
{
    struct strbuf name = {0};
    if (http_decode(raw, false, &name) != ERR_OK)
        strbuf_reset(&name); /* refused, with the reason */
    room_call_route(x, VERB_METHOD, strbuf_slice(&name), x->request->body);
    strbuf_free(&name);
}
