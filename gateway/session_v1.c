/* CORE. The stoa.v1 dialect: many keys on one socket, JSON text frames. Each client frame is one
 * object with one verb. Values that are handed on (data, ref, ping) are slices of the frame, never
 * re-encoded; what the client says twice, the last one counts. */
#include "common/json.h"
#include "common/utf8.h"
#include "gateway/core.h"

/* ---- to the client ---- */

#define MIDDLE_BYTES 128 /* what stands between key and payload of an event */
_Static_assert(sizeof ",\"id\":\"\",\"ts\":-,\"base64\":\"" + EVENT_ID_MAX_BYTES + 20 <=
                   MIDDLE_BYTES,
               "id and timestamp fit");

static void v1_encode(struct strbuf *out, const struct pack_source *source, const struct event *e)
{
    if (e->flags & EVENT_PRESENCE) {
        presence_encode(out, source->quoted_key, e);
        return;
    }
    uint8_t middle[MIDDLE_BYTES];
    struct strbuf text = {.data = middle, .capacity = sizeof middle};
    bool json = (e->flags & EVENT_JSON) != 0;
    if (!(e->flags & (EVENT_EPHEMERAL | EVENT_TRANSIENT)) && source->epoch != 0) {
        strbuf_put_text(&text, ",\"id\":\"");
        event_id_put(&text, (struct position){source->epoch, e->seq});
        strbuf_put_byte(&text, '"');
    }
    strbuf_put_text(&text, ",\"ts\":");
    if (e->ts < 0)
        strbuf_put_byte(&text, '-');
    strbuf_put_u64(&text, e->ts < 0 ? -(uint64_t)e->ts : (uint64_t)e->ts);
    strbuf_put_text(&text, json ? ",\"data\":" : ",\"base64\":\"");
    size_t payload = json ? e->payload.size : base64_size(e->payload.size) + 1;
    frame_put_header(out, FRAME_TEXT, 7 + source->quoted_key.size + text.size + payload + 1);
    strbuf_put_text(out, "{\"key\":");
    strbuf_put_slice(out, source->quoted_key);
    strbuf_put(out, text.data, text.size);
    if (json) {
        strbuf_put_slice(out, e->payload);
    } else {
        base64_put(out, e->payload);
        strbuf_put_byte(out, '"');
    }
    strbuf_put_byte(out, '}');
}

/* Sends g->control as one text frame. */
static void control_send(struct gateway *g, struct session *s)
{
    session_say(g, s, strbuf_slice(&g->control));
}

static struct strbuf *control_begin(struct gateway *g, const char *text)
{
    strbuf_reset(&g->control);
    strbuf_put_text(&g->control, text);
    return &g->control;
}

static bool v1_tell(struct gateway *g, struct subscription *sub, enum sub_status status,
                    const struct miss *miss, struct position head)
{
    static const char *const names[] = {
        [SUB_LIVE] = "live", [SUB_RESUMED] = "resumed", [SUB_MISSED] = "missed"};
    struct strbuf *out = control_begin(g, "{\"sub\":");
    json_quote(out, room_key(sub->room));
    strbuf_put_text(out, ",\"status\":\"");
    strbuf_put_text(out, names[miss ? SUB_MISSED : status]);
    strbuf_put_byte(out, '"');
    if (miss) {
        strbuf_put_text(out, ",\"missed\":");
        miss_put(out, miss);
    }
    strbuf_put_text(out, ",\"head\":\"");
    event_id_put(out, head);
    strbuf_put_text(out, "\"}");
    struct session *s = sub->session;
    control_send(g, s);
    return !s->closing;
}

static void v1_end(struct gateway *g, struct subscription *sub, unsigned code, struct slice reason)
{
    struct session *s = sub->session;
    member_leave(g, sub, code, reason, true);
    struct strbuf *out = control_begin(g, "{\"unsub\":");
    json_quote(out, room_key(sub->room));
    strbuf_put_text(out, ",\"code\":");
    strbuf_put_u64(out, code);
    strbuf_put_text(out, ",\"reason\":");
    json_quote(out, reason);
    strbuf_put_byte(out, '}');
    subscription_free(g, sub);
    control_send(g, s);
}

static void v1_refused(struct gateway *g, struct subscription *sub, const struct refusal *r)
{
    struct session *s = sub->session;
    const struct room *room = sub->room;
    subscription_free(g, sub); /* the room stays for a while */
    struct strbuf *out = control_begin(g, "{\"sub\":");
    json_quote(out, room_key(room));
    strbuf_put_text(out, ",\"error\":");
    refusal_put(out, r, true);
    strbuf_put_byte(out, '}');
    refusal_note(g, r);
    control_send(g, s);
}

static void send_sub_error(struct gateway *g, struct session *s, struct slice key, const char *tag,
                           const char *message)
{
    struct strbuf *out = control_begin(g, "{\"sub\":");
    json_quote(out, key);
    strbuf_put_text(out, ",\"error\":");
    error_put(out, tag, message, true);
    strbuf_put_byte(out, '}');
    refused_note(g, tag, message);
    control_send(g, s);
}

static void ref_put(struct strbuf *out, struct slice ref)
{
    strbuf_put_text(out, "{\"ref\":");
    if (ref.size > 0)
        strbuf_put_slice(out, ref);
    else
        strbuf_put_text(out, "null");
}

static void send_ref_error(struct gateway *g, struct session *s, struct slice ref, const char *tag,
                           const char *message)
{
    struct strbuf *out = control_begin(g, "");
    ref_put(out, ref);
    strbuf_put_text(out, ",\"error\":");
    error_put(out, tag, message, true);
    strbuf_put_byte(out, '}');
    refused_note(g, tag, message);
    control_send(g, s);
}

void v1_publish_done(struct gateway *g, struct session *s, struct slice ref, struct slice ok,
                     const char *tag, const char *message)
{
    STOA_ASSERT(s->pubs > 0);
    s->pubs--;
    if (tag) {
        send_ref_error(g, s, ref, tag, message);
    } else if (ref.size > 0) {
        struct strbuf *out = control_begin(g, "");
        ref_put(out, ref);
        strbuf_put_text(out, ",\"ok\":");
        strbuf_put_slice(out, ok);
        strbuf_put_byte(out, '}');
        control_send(g, s);
    }
}

static void v1_call_done(struct gateway *g, struct session *s, struct slice ref, struct slice ok,
                         struct slice error)
{
    STOA_ASSERT(s->pubs > 0);
    s->pubs--;
    if (ref.size == 0 && error.size == 0)
        return;
    struct strbuf *out = control_begin(g, "");
    ref_put(out, ref);
    strbuf_put_text(out, error.size > 0 ? ",\"error\":" : ",\"ok\":");
    strbuf_put_slice(out, error.size > 0 ? error : ok);
    strbuf_put_byte(out, '}');
    control_send(g, s);
}

static void v1_call_item(struct gateway *g, struct session *s, struct slice ref, struct slice item)
{
    if (ref.size == 0)
        return;
    struct strbuf *out = control_begin(g, "");
    ref_put(out, ref);
    strbuf_put_text(out, ",\"item\":");
    strbuf_put_slice(out, item);
    strbuf_put_byte(out, '}');
    control_send(g, s);
}

void v1_input_done(struct gateway *g, struct session *s, struct slice ref, const char *tag,
                   const char *message)
{
    if (s->closing || s->queued > CONTROL_QUEUE_MAX)
        return; /* the next word ends it */
    if (tag) {
        send_ref_error(g, s, ref, tag, message);
        return;
    }
    struct strbuf *out = control_begin(g, "");
    ref_put(out, ref);
    strbuf_put_text(out, ",\"ok\":null}");
    control_send(g, s);
}

/* A frame that is not JSON or not one of ours, or a token that is no good. */
static void refused_frame(struct gateway *g, struct session *s, const char *tag,
                          const char *message)
{
    struct strbuf *out = control_begin(g, "{\"error\":");
    error_put(out, tag, message, false);
    strbuf_put_byte(out, '}');
    refused_note(g, tag, message);
    control_send(g, s);
    if (++s->bad_frames >= BAD_FRAMES_MAX && !s->closing)
        session_close(g, s, 1008, slice_text("too many bad frames"));
}

static void bad_frame(struct gateway *g, struct session *s, const char *message)
{
    refused_frame(g, s, "BadRequest", message);
}

/* ---- from the client ---- */

enum word {
    M_SUB,
    M_UNSUB,
    M_PUB,
    M_SEND,
    M_CALL,
    M_PING,
    M_TOKEN, /* verbs; token also goes with sub */
    M_STATE,
    M_AFTER,
    M_REPLAY,
    M_PRESENCE,
    M_REF,
    M_DATA,
    M_IDEMPOTENCY_KEY,
    M_CONFLATE,
    M_EPHEMERAL,
    M_TAGS,
    M_TO,
    M_EXCEPT,
    M_TARGETS, /* the same as `to`, as on POST /publish */
    M_EXCLUDE, /* the same as `except` */
    M_EVENT,
    M_METHOD,
    M_INPUT,
    WORD_COUNT
};
static const char *const word_names[WORD_COUNT] = {
    [M_SUB] = "sub",           [M_UNSUB] = "unsub",
    [M_PUB] = "pub",           [M_SEND] = "send",
    [M_CALL] = "call",         [M_PING] = "ping",
    [M_TOKEN] = "token",       [M_STATE] = "state",
    [M_AFTER] = "after",       [M_REPLAY] = "replay",
    [M_PRESENCE] = "presence", [M_REF] = "ref",
    [M_DATA] = "data",         [M_IDEMPOTENCY_KEY] = "idempotencyKey",
    [M_CONFLATE] = "conflate", [M_EPHEMERAL] = "ephemeral",
    [M_TAGS] = "tags",         [M_TO] = "to",
    [M_EXCEPT] = "except",     [M_EVENT] = "event",
    [M_METHOD] = "method",     [M_INPUT] = "input",
    [M_TARGETS] = "targets",   [M_EXCLUDE] = "exclude",
};

struct frame {
    struct json_value of[WORD_COUNT];
};

static void frame_read(struct slice text, struct frame *f)
{
    memset(f, 0, sizeof *f);
    struct json_iter it = json_members(text);
    while (json_next(&it))
        for (size_t i = 0; i < WORD_COUNT; i++)
            if (slice_is(it.name, word_names[i]))
                f->of[i] = it.value;
}

static bool has(const struct frame *f, enum word m)
{
    return f->of[m].type != JSON_NONE;
}

/* The text of a string member; false: it is no string. */
static bool text_of(struct json_value v, struct strbuf *out)
{
    return v.type == JSON_STRING && json_unescape(v, out);
}

/* NULL: fine. */
static const char *start_of(const struct frame *f, struct start *start, const char **message)
{
    *start = (struct start){.kind = START_LIVE};
    struct json_value after = f->of[M_AFTER];
    struct json_value replay = f->of[M_REPLAY];
    if (after.type != JSON_NONE) {
        struct strbuf id = {0};
        start->kind = START_AFTER;
        bool fine =
            text_of(after, &id) && event_id_parse(strbuf_slice(&id), &start->after) == ERR_OK;
        strbuf_free(&id);
        *message = "after: an id as it was received, in quotes, or \"0\" for everything";
        return fine ? NULL : "BadId";
    }
    if (replay.type == JSON_NONE || slice_is(replay.raw, "\"none\""))
        return NULL;
    *message = "replay: \"all\", \"none\" or a number of events";
    if (slice_is(replay.raw, "\"all\""))
        start->kind = START_ALL;
    else if (!json_u64(replay, &start->last))
        return "BadRequest";
    else if (start->last > 0)
        start->kind = START_LAST;
    return NULL;
}

/* Whether it wants to know who is there. NULL: fine. */
static const char *presence_of(const struct gateway *g, const struct frame *f, struct slice key,
                               struct start *start, const char **message)
{
    enum json_type presence = f->of[M_PRESENCE].type;
    start->presence = presence == JSON_TRUE;
    *message = "presence: true or false";
    if (presence != JSON_NONE && presence != JSON_TRUE && presence != JSON_FALSE)
        return "BadRequest";
    *message = "rooms of this type do not count members: subscribe without presence, or set "
               "presence: true under its name in types";
    return start->presence && !type_presence(g, key) ? "BadRequest" : NULL;
}

/* The request by which a key with a handler is joined; nothing for others. NULL: fine. */
static const char *join_request(const struct gateway *g, const struct session *s,
                                const struct frame *f, struct slice key, const struct identity *who,
                                struct strbuf *request, const char **message)
{
    const struct gateway_type *type = type_with_handler(g, key);
    if (!type)
        return NULL;
    *message = "this type has a handler since this socket was opened: connect again";
    if (!s->visitor)
        return "Moving";
    const struct identity *asks = who ? who : s->identity;
    return visitor_request(s->visitor, type, asks, f->of[M_STATE].raw, request, message);
}

/* Begins the key, anew if need be. `request` is taken. */
static void sub_begin(struct gateway *g, struct session *s, struct slice key,
                      const struct start *start, struct strbuf *request)
{
    struct room *room = room_find(g, key);
    struct subscription *old = room ? subscription_find(s, room) : NULL;
    if (old)
        subscription_free(g, old);
    if (s->n_subs >= g->options.keys_per_socket)
        send_sub_error(g, s, key, "BadRequest",
                       "too many keys on this socket: unsubscribe some, or open another");
    else if (!subscription_open(g, s, key, start, request->size > 0 ? request : NULL))
        send_sub_error(g, s, key, "Busy", "this gateway holds too many keys; try another");
}

static struct subscription *subscription_of(const struct gateway *g, const struct session *s,
                                            struct slice key)
{
    struct room *room = room_find(g, key);
    return room ? subscription_find(s, room) : NULL;
}

/* Whether it may subscribe: by the token that came with it (*who, a reference), or the socket's. */
static const char *grant_of(struct gateway *g, const struct session *s, const struct frame *f,
                            struct slice key, struct identity **who, const char **message)
{
    struct strbuf token = {0};
    const char *tag = NULL;
    if (!has(f, M_TOKEN) || !g->options.tokens) {
        const struct subscription *old = subscription_of(g, s, key);
        if (old && !identity_may(s->identity, RIGHT_SUBSCRIBE, key))
            *who = identity_ref(old->identity); /* begun anew, it ends with the same token */
        return session_refusal(g, s, RIGHT_SUBSCRIBE, key, slice_of(NULL, 0), message);
    }
    *message = "token: a string";
    if (!text_of(f->of[M_TOKEN], &token))
        tag = "BadRequest";
    else
        tag = identity_of_token(g, strbuf_slice(&token), who, message);
    if (!tag && !identity_may(*who, RIGHT_SUBSCRIBE, key)) {
        *message = "the token does not give this right on this key";
        tag = "Forbidden";
    }
    strbuf_free(&token);
    return tag;
}

static void on_sub(struct gateway *g, struct session *s, const struct frame *f, struct slice key)
{
    struct start start;
    const char *message = "";
    const char *tag = NULL;
    if (!key_valid(key, false)) {
        send_sub_error(g, s, key, "BadKey",
                       "a key is 1 to 256 bytes of UTF-8 without control characters and does not "
                       "begin with $");
        return;
    }
    struct identity *who = NULL;
    tag = grant_of(g, s, f, key, &who, &message);
    if (!tag)
        tag = start_of(f, &start, &message);
    if (!tag)
        tag = presence_of(g, f, key, &start, &message);
    struct strbuf request = {0};
    if (!tag)
        tag = join_request(g, s, f, key, who, &request, &message);
    start.who = who;
    if (tag)
        send_sub_error(g, s, key, tag, message);
    else
        sub_begin(g, s, key, &start, &request);
    strbuf_free(&request);
    identity_unref(who);
}

static void on_unsub(struct gateway *g, struct session *s, struct slice key)
{
    struct room *room = room_find(g, key);
    struct subscription *sub = room ? subscription_find(s, room) : NULL;
    if (sub)
        subscription_free(g, sub);
    struct strbuf *out = control_begin(g, "{\"unsub\":");
    json_quote(out, key);
    strbuf_put_byte(out, '}');
    control_send(g, s);
}

/* Whom a publish is for. A word that is not read would send it to everybody, so both names of a
 * list are known. */
static const char *filter_read(const struct frame *f, struct strbuf *filter, const char **message)
{
    if ((has(f, M_TO) && has(f, M_TARGETS)) || (has(f, M_EXCEPT) && has(f, M_EXCLUDE))) {
        *message = "to (or targets) and except (or exclude): each at most once";
        return "BadRequest";
    }
    return filter_of_arrays(f->of[M_TAGS], f->of[has(f, M_TO) ? M_TO : M_TARGETS],
                            f->of[has(f, M_EXCEPT) ? M_EXCEPT : M_EXCLUDE], filter, message);
}

/* Optional members of a publish; NULL: fine. */
static const char *order_read(struct gateway *g, const struct frame *f, struct publish_order *order,
                              struct strbuf *idempotency_key, struct strbuf *conflate,
                              struct strbuf *filter, const char **message)
{
    const char *tag = filter_read(f, filter, message);
    if (tag)
        return tag;
    *message = "idempotencyKey and conflate: strings; ephemeral: true or false";
    if (!has(f, M_DATA)) {
        *message = "a publish needs data";
        return "BadRequest";
    }
    if (has(f, M_IDEMPOTENCY_KEY)) {
        if (!text_of(f->of[M_IDEMPOTENCY_KEY], idempotency_key) || idempotency_key->size == 0 ||
            idempotency_key->size > IDEMPOTENCY_KEY_MAX_BYTES)
            return "BadRequest";
        order->idempotent = true;
    }
    if (has(f, M_CONFLATE) && !text_of(f->of[M_CONFLATE], conflate))
        return "BadRequest";
    enum json_type ephemeral = f->of[M_EPHEMERAL].type;
    if (ephemeral != JSON_NONE && ephemeral != JSON_TRUE && ephemeral != JSON_FALSE)
        return "BadRequest";
    order->ephemeral = ephemeral == JSON_TRUE;
    order->conflate = strbuf_slice(conflate);
    order->filter = strbuf_slice(filter);
    publish_id(g, order, strbuf_slice(idempotency_key));
    return NULL;
}

/* The frame is answered, and the key may end with it. */
static void over_rate(struct gateway *g, struct session *s, struct slice ref, struct slice key)
{
    send_ref_error(g, s, ref, "RateLimited", RATE_SOCKET_TEXT);
    struct subscription *sub = s->closing ? NULL : subscription_of(g, s, key);
    if (sub && !type_of_key(g, key)->drops)
        v1_end(g, sub, 1008, slice_text(RATE_SOCKET_TEXT));
}

static void on_pub(struct gateway *g, struct session *s, const struct frame *f, struct slice key)
{
    const char *message = "";
    const char *tag = NULL;
    struct strbuf idempotency_key = {0};
    struct strbuf conflate = {0};
    struct strbuf filter = {0};
    struct slice data = f->of[M_DATA].raw;
    struct publish_order order = {
        .key = key, .parts = &data, .n_parts = 1, .ref = f->of[M_REF].raw, .by_session = true};
    s->pubs++;
    if (!key_valid(key, false)) {
        tag = "BadKey";
        message = "a key is 1 to 256 bytes of UTF-8 without control characters and does not begin "
                  "with $";
    } else if ((tag = session_refusal(g, s, RIGHT_PUBLISH, key, slice_of(NULL, 0), &message))) {
        STOA_ASSERT(*message);
    } else if (s->pubs > PUBS_PER_SOCKET_MAX) {
        tag = "Busy";
        message = "too many publishes in flight on this socket: wait for answers";
    } else if (!rate_take(g, s, key)) {
        over_rate(g, s, order.ref, key);
        s->pubs--;
    } else {
        tag = order_read(g, f, &order, &idempotency_key, &conflate, &filter, &message);
        if (!tag)
            tag = publish_check(g, &order, &message);
        if (!tag)
            tag = publish_begin(g, s->client, "", &order, &message);
    }
    if (tag)
        v1_publish_done(g, s, order.ref, slice_of(NULL, 0), tag, message);
    strbuf_free(&idempotency_key);
    strbuf_free(&conflate);
    strbuf_free(&filter);
}

/* Sends a call on its way; NULL: it will be answered. */
static const char *room_verb_begin(struct gateway *g, struct session *s, const struct frame *f,
                                   struct call_order *order, const char **message)
{
    struct strbuf method = {0}, idempotency_key = {0};
    const char *tag = NULL;
    order->idempotent = has(f, M_IDEMPOTENCY_KEY);
    *message = "method and idempotencyKey: strings";
    if ((order->idempotent && !text_of(f->of[M_IDEMPOTENCY_KEY], &idempotency_key)) ||
        (order->verb == VERB_METHOD && !text_of(f->of[M_METHOD], &method)))
        tag = "BadRequest";
    order->name = strbuf_slice(&method);
    s->pubs++;
    if (!tag && s->pubs > PUBS_PER_SOCKET_MAX) {
        tag = "Busy";
        *message = "too much in flight on this socket: wait for answers";
    }
    if (!tag)
        tag = room_call_check(g, order, strbuf_slice(&idempotency_key), message);
    if (!tag)
        tag = room_call_begin(g, s->client, "", order, message);
    if (tag)
        s->pubs--;
    strbuf_free(&method);
    strbuf_free(&idempotency_key);
    return tag;
}

/* What a connection of the room says. NULL: it will be acknowledged. */
static const char *input_begin(struct gateway *g, struct member *mb, const struct frame *f,
                               const char **message)
{
    struct slice event = f->of[M_EVENT].raw;
    *message = "a connection's own events are handled once; they take no idempotencyKey";
    if (has(f, M_IDEMPOTENCY_KEY))
        return "BadRequest";
    *message = "what is sent to a room is one JSON value";
    if (event.size == 0)
        return "RoomValidationError";
    *message = "the event is at most gateway.limits.message bytes (524288 by default)";
    if (event.size > g->options.payload_max_bytes)
        return "TooLarge";
    return member_input(g, mb, event, EVENT_UTF8, f->of[M_REF].raw, message);
}

static struct member *member_of(const struct gateway *g, const struct session *s, struct slice key)
{
    struct subscription *sub = subscription_of(g, s, key);
    return sub ? sub->member : NULL;
}

/* An event of the room, to this socket alone. */
static void send_event(struct gateway *g, struct session *s, const struct room *room,
                       struct slice payload)
{
    struct event e = {.ts = g->now.wall_ms, .flags = EVENT_TRANSIENT, .payload = payload};
    e.flags |= json_valid(payload) ? EVENT_JSON : 0;
    strbuf_reset(&g->quoted);
    json_quote(&g->quoted, room_key(room));
    struct pack_source source = {.quoted_key = strbuf_slice(&g->quoted)};
    strbuf_reset(&g->scratch);
    v1_encode(&g->scratch, &source, &e);
    struct buf *bytes = buf_copy_slice(strbuf_slice(&g->scratch));
    session_write(g, s, bytes, 0, bytes->size);
    buf_unref(bytes);
}

/* What the room's auto_response answers, it does not hear: a text as a JSON string, JSON as it is
 * written. */
static bool auto_answered(struct gateway *g, struct session *s, const struct frame *f,
                          struct slice key)
{
    const struct subscription *sub = subscription_of(g, s, key);
    struct json_value event = f->of[M_EVENT];
    struct slice response;
    struct strbuf text = {0};
    bool fits = sub && sub->member && !sub->fresh && s->queued <= CONTROL_QUEUE_MAX;
    if (fits && event.type == JSON_STRING && text_of(event, &text))
        fits = member_answers(sub->member, strbuf_slice(&text), &response);
    else if (fits)
        fits = member_answers(sub->member, event.raw, &response);
    strbuf_free(&text);
    if (!fits)
        return false;
    send_event(g, s, sub->room, response);
    if (has(f, M_REF))
        v1_input_done(g, s, f->of[M_REF].raw, NULL, NULL);
    return true;
}

static const char *verb_refusal(const struct gateway *g, const struct session *s,
                                const struct frame *f, enum word verb, struct slice key,
                                const char **message)
{
    struct strbuf method = {0};
    if (verb == M_CALL && !text_of(f->of[M_METHOD], &method))
        strbuf_reset(&method); /* refused later, for who may call at all */
    const char *tag = session_refusal(g, s, verb == M_SEND ? RIGHT_SEND : RIGHT_CALL, key,
                                      strbuf_slice(&method), message);
    strbuf_free(&method);
    return tag;
}

/* A send, or a method: of a connection if the key is joined, else direct. */
static void on_room_verb(struct gateway *g, struct session *s, const struct frame *f,
                         enum word verb, struct slice key)
{
    const char *tag = NULL, *message = "";
    struct call_order order = {.verb = verb == M_SEND ? VERB_SEND : VERB_METHOD,
                               .key = key,
                               .input = f->of[verb == M_SEND ? M_EVENT : M_INPUT].raw,
                               .ref = f->of[M_REF].raw,
                               .by_session = true};
    if (!key_valid(key, false)) {
        tag = "BadKey";
        message = "a key is 1 to 256 bytes of UTF-8 without control characters and does not begin "
                  "with $";
    } else if (verb == M_SEND && auto_answered(g, s, f, key)) {
        return;
    } else if ((tag = verb_refusal(g, s, f, verb, key, &message))) {
        STOA_ASSERT(*message);
    } else if (!rate_take(g, s, key)) {
        over_rate(g, s, order.ref, key);
    } else if (verb == M_SEND && member_of(g, s, key)) {
        tag = input_begin(g, member_of(g, s, key), f, &message);
    } else if (type_with_handler(g, key)) {
        tag = room_verb_begin(g, s, f, &order, &message);
    } else if (verb == M_CALL && !type_declared(g, key_type(key))) {
        tag = "NoSuchType";
        message = "no room type of this name is declared";
    } else {
        tag = "NoHandler";
        message = "this room has no handler; publish to it instead";
    }
    if (tag)
        send_ref_error(g, s, order.ref, tag, message);
}

static void on_ping(struct gateway *g, struct session *s, struct slice raw)
{
    if (raw.size > PING_MAX_BYTES) {
        bad_frame(g, s, "a ping is at most 4096 bytes");
        return;
    }
    struct strbuf *out = control_begin(g, "{\"pong\":");
    strbuf_put_slice(out, raw);
    strbuf_put_byte(out, '}');
    control_send(g, s);
}

static void renewed(struct gateway *g, struct session *s, struct slice ref)
{
    if (ref.size == 0)
        return;
    struct strbuf *out = control_begin(g, "");
    ref_put(out, ref);
    strbuf_put_text(out, ",\"ok\":{\"expires\":");
    if (s->identity)
        strbuf_put_u64(out, (uint64_t)s->identity->expires_ms);
    else
        strbuf_put_text(out, "null");
    strbuf_put_text(out, "}}");
    control_send(g, s);
}

/* Without tokens there is nothing to renew. */
static void on_token(struct gateway *g, struct session *s, const struct frame *f)
{
    struct strbuf token = {0};
    struct identity *who = NULL;
    const char *message = "token: a string", *tag = NULL;
    struct slice ref = f->of[M_REF].raw;
    if (ref.size > REF_MAX_BYTES) {
        bad_frame(g, s, "a ref is at most 256 bytes");
        return;
    }
    if (!text_of(f->of[M_TOKEN], &token))
        tag = "BadRequest";
    else
        tag = identity_of_token(g, strbuf_slice(&token), &who, &message);
    strbuf_free(&token);
    if (!tag && who)
        tag = session_renew(g, s, who, &message);
    if (!tag)
        renewed(g, s, ref);
    else if (ref.size > 0)
        send_ref_error(g, s, ref, tag, message);
    else
        refused_frame(g, s, tag, message);
}

static void verb_run(struct gateway *g, struct session *s, const struct frame *f, enum word verb)
{
    struct strbuf key = {0};
    if (!text_of(f->of[verb], &key))
        bad_frame(g, s, "the key must be a string");
    else if (f->of[M_REF].raw.size > REF_MAX_BYTES)
        bad_frame(g, s, "a ref is at most 256 bytes");
    else if (verb == M_SUB)
        on_sub(g, s, f, strbuf_slice(&key));
    else if (verb == M_UNSUB)
        on_unsub(g, s, strbuf_slice(&key));
    else if (verb == M_PUB)
        on_pub(g, s, f, strbuf_slice(&key));
    else
        on_room_verb(g, s, f, verb, strbuf_slice(&key));
    strbuf_free(&key);
}

static void v1_frame(struct gateway *g, struct session *s, struct slice payload, bool text)
{
    struct frame f;
    if (!text || json_type_of(payload) != JSON_OBJECT || !json_valid(payload)) {
        bad_frame(g, s, "a frame is one JSON object, as text");
        return;
    }
    frame_read(payload, &f);
    unsigned verbs = 0;
    enum word verb = M_TOKEN;
    for (enum word m = M_SUB; m <= M_PING; m++) {
        if (!has(&f, m))
            continue;
        verbs++;
        verb = m;
    }
    if (verbs > 1 || (verbs == 0 && !has(&f, M_TOKEN)))
        bad_frame(g, s, "a frame has exactly one of sub, unsub, pub, send, call, ping, token");
    else if (verb == M_PING)
        on_ping(g, s, f.of[M_PING].raw);
    else if (verb == M_TOKEN)
        on_token(g, s, &f);
    else
        verb_run(g, s, &f, verb);
}

static void v1_expired(struct gateway *g, struct session *s, const char *tag, const char *reason)
{
    (void)tag;
    session_close(g, s, 1008, slice_text(reason));
}

const struct dialect dialect_v1 = {.index = DIALECT_V1,
                                   .name = "stoa.v1",
                                   .encode = v1_encode,
                                   .tell = v1_tell,
                                   .end = v1_end,
                                   .frame = v1_frame,
                                   .refused = v1_refused,
                                   .call_done = v1_call_done,
                                   .call_item = v1_call_item,
                                   .expired = v1_expired};
