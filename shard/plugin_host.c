/* CORE. What a plug-in may call: context.h in the words of client/stoa_room.h. Every function
 * checks what it can, as a plug-in's mistake must not become the shard's: bytes without an address
 * are empty, and what needs a room is refused in identify, where there is none. */
#include "shard/plugin_internal.h"

#include <stdalign.h>
#include <stddef.h>

#include "common/json.h"
#include "common/utf8.h"

#define BORDER(member_) (x->plugin->code.member_)

void *segment_alloc(struct stoa_room_ctx *x, size_t size)
{
    size_t left = x->arena ? PLUGIN_ARENA_BYTES - x->arena_used : 0;
    size_t step = (size | (alignof(max_align_t) - 1)) + 1; /* two of size 0 differ, too */
    if (size < left && step <= left) {
        uint8_t *memory = memset(x->arena + x->arena_used, 0, size);
        x->arena_used += step;
        return memory;
    }
    void *memory = mem_zalloc(size);
    *VEC_PUSH(&x->memory, void *) = memory;
    return memory;
}

static stoa_room_rc done(struct stoa_room_ctx *x, bool ok)
{
    return ok ? STOA_ROOM_OK : failed(x);
}

/* False: no room here. */
static bool in_room(struct stoa_room_ctx *x)
{
    if (x->ctx)
        return true;
    (void)fault_rc(x, STOA_ROOM_E_ROOM, "identify may not touch the room");
    return false;
}

static struct connection *connection_of(stoa_room_conn *c)
{
    return (struct connection *)(void *)c;
}

static stoa_room_conn *conn_of(struct connection *c)
{
    return (stoa_room_conn *)(void *)c;
}

/* What the plug-in's own check says of a value that crosses its border. */
static stoa_room_rc border(struct stoa_room_ctx *x,
                           stoa_room_rc (*check)(stoa_room_bytes, const char **),
                           stoa_room_bytes value, stoa_room_rc rc, const char *what)
{
    const char *why = NULL;
    if (!check || !json_valid(slice_in(value)) || check(value, &why) == STOA_ROOM_OK)
        return STOA_ROOM_OK; /* the host says itself of what is not JSON */
    return why ? fault_rc(x, rc, "%s", why) : fault_rc(x, rc, "%s is not one of the room's", what);
}

/* ---- the room ---- */

static stoa_room_bytes host_name(stoa_room_ctx *x)
{
    return bytes_of(x->ctx ? context_type(x->ctx) : (struct slice){0});
}

static stoa_room_bytes host_id(stoa_room_ctx *x)
{
    return bytes_of(x->ctx ? context_id(x->ctx) : (struct slice){0});
}

static stoa_room_conn *host_connection(stoa_room_ctx *x)
{
    return x->ctx ? conn_of(context_connection(x->ctx)) : NULL;
}

static const char *host_system_failure(stoa_room_ctx *x)
{
    return x->ctx ? context_system_failure(x->ctx) : NULL;
}

static int64_t host_now_ms(stoa_room_ctx *x)
{
    return x->ctx ? context_now_ms(x->ctx) : 0;
}

static uint64_t host_random(stoa_room_ctx *x)
{
    return x->ctx ? context_random(x->ctx) : 0;
}

static void host_print(stoa_room_ctx *x, stoa_room_bytes text)
{
    if (x->ctx)
        context_print(x->ctx, slice_in(text));
}

/* ---- failures ---- */

static const stoa_room_error *host_error(stoa_room_ctx *x)
{
    return &x->error;
}

static stoa_room_rc host_fail(stoa_room_ctx *x, stoa_room_rc rc, const char *message)
{
    return fault_rc(x, rc, "%s", message ? message : "");
}

static stoa_room_rc host_fail_with(stoa_room_ctx *x, const char *code, unsigned status,
                                   const char *message, stoa_room_bytes data)
{
    if (!code)
        code = "";
    fault_set(&x->fault, code, "%s", message && message[0] ? message : code);
    x->fault.status = status >= 400 && status < 600 ? status : 0;
    if (json_valid(slice_in(data)))
        strbuf_put_slice(&x->fault.data, slice_in(data));
    return failed(x);
}

static stoa_room_rc host_refuse(stoa_room_ctx *x, unsigned status, const char *text)
{
    fault_set(&x->fault, "UpgradeError", "%s", text ? text : "");
    x->fault.status = status >= 400 && status < 600 ? status : 500;
    return failed(x);
}

/* ---- state ---- */

static stoa_room_rc host_recall(stoa_room_ctx *x, stoa_room_bytes *state)
{
    struct slice found;
    *state = (stoa_room_bytes){0};
    if (!in_room(x))
        return STOA_ROOM_E_ROOM;
    if (!context_recall(x->ctx, &found))
        return STOA_ROOM_NONE;
    stoa_room_rc rc =
        border(x, BORDER(decode_state), bytes_of(found), STOA_ROOM_E_ROOM, "the stored state");
    if (rc == STOA_ROOM_OK)
        *state = bytes_of(found);
    return rc;
}

static unsigned host_state_version(stoa_room_ctx *x)
{
    return x->ctx ? context_state_version(x->ctx) : 0;
}

static stoa_room_rc host_save(stoa_room_ctx *x, stoa_room_bytes state)
{
    if (!in_room(x))
        return STOA_ROOM_E_ROOM;
    stoa_room_rc rc = border(x, BORDER(decode_state), state, STOA_ROOM_E_ROOM, "the state");
    return rc ? rc : done(x, context_save(x->ctx, slice_in(state), &x->fault));
}

static void host_purge(stoa_room_ctx *x)
{
    if (in_room(x))
        context_purge(x->ctx);
}

/* ---- connections ---- */

static stoa_room_conn *host_next(stoa_room_ctx *x, stoa_room_bytes tag, stoa_room_conn *prev)
{
    struct connection *c = connection_of(prev);
    if (!x->ctx)
        return NULL;
    do {
        c = context_next(x->ctx, c);
    } while (c && tag.p && !connection_has_tag(c, slice_in(tag)));
    return conn_of(c);
}

static size_t host_count(stoa_room_ctx *x, stoa_room_bytes tag)
{
    size_t count = 0;
    if (x->ctx && !tag.p)
        return context_count(x->ctx);
    for (stoa_room_conn *c = NULL; (c = host_next(x, tag, c));)
        count++;
    return count;
}

static stoa_room_conn *host_by_id(stoa_room_ctx *x, stoa_room_bytes id)
{
    return x->ctx ? conn_of(context_by_id(x->ctx, slice_in(id))) : NULL;
}

static stoa_room_bytes host_conn_session(stoa_room_conn *c)
{
    return bytes_of(connection_session(connection_of(c)));
}

static stoa_room_bytes host_conn_id(stoa_room_conn *c)
{
    return bytes_of(connection_id(connection_of(c)));
}

static stoa_room_bytes host_conn_tag(stoa_room_conn *c, size_t i)
{
    return bytes_of(connection_tag(connection_of(c), i));
}

static stoa_room_bytes host_conn_state(stoa_room_conn *c)
{
    return bytes_of(connection_state(connection_of(c)));
}

static stoa_room_bytes host_conn_meta(stoa_room_conn *c)
{
    return bytes_of(connection_meta(connection_of(c)));
}

static int host_conn_is_open(stoa_room_conn *c)
{
    return connection_is_open(connection_of(c));
}

static stoa_room_rc host_set_state(stoa_room_ctx *x, stoa_room_conn *c, stoa_room_bytes state)
{
    if (!in_room(x))
        return STOA_ROOM_E_ROOM;
    stoa_room_rc rc = STOA_ROOM_OK;
    if (json_type_of(slice_in(state)) != JSON_NULL) /* null is none */
        rc =
            border(x, BORDER(decode_connection), state, STOA_ROOM_E_ROOM, "the connection's state");
    return rc ? rc
              : done(x, context_set_state(x->ctx, connection_of(c), slice_in(state), &x->fault));
}

static stoa_room_rc host_send(stoa_room_ctx *x, stoa_room_conn *c, stoa_room_bytes message)
{
    if (!in_room(x))
        return STOA_ROOM_E_ROOM;
    stoa_room_rc rc = border(x, BORDER(encode_broadcast), message, STOA_ROOM_E_SEND, "the message");
    return rc ? rc : done(x, context_send(x->ctx, connection_of(c), slice_in(message), &x->fault));
}

static stoa_room_rc host_close(stoa_room_ctx *x, stoa_room_conn *c, unsigned code,
                               stoa_room_bytes reason)
{
    if (!in_room(x))
        return STOA_ROOM_E_ROOM;
    return done(x, context_close(x->ctx, connection_of(c), code, slice_in(reason), &x->fault));
}

/* ---- to many ---- */

static const struct slice *names_of(struct stoa_room_ctx *x, const stoa_room_bytes *at,
                                    size_t count)
{
    if (!at)
        return NULL;
    struct slice *names = segment_alloc(x, (count + 1) * sizeof *names);
    for (size_t i = 0; i < count; i++)
        names[i] = slice_in(at[i]);
    return names;
}

static struct recipients recipients_of(struct stoa_room_ctx *x, const stoa_room_recipients *who)
{
    if (!who)
        return (struct recipients){0};
    return (struct recipients){.tags = names_of(x, who->tags, who->n_tags),
                               .n_tags = who->tags ? who->n_tags : 0,
                               .to = names_of(x, who->to, who->n_to),
                               .n_to = who->to ? who->n_to : 0,
                               .except = names_of(x, who->except, who->n_except),
                               .n_except = who->except ? who->n_except : 0};
}

static stoa_room_rc host_broadcast(stoa_room_ctx *x, stoa_room_bytes message,
                                   const stoa_room_recipients *who)
{
    if (!in_room(x))
        return STOA_ROOM_E_ROOM;
    stoa_room_rc rc =
        border(x, BORDER(encode_broadcast), message, STOA_ROOM_E_BROADCAST, "the message");
    const struct recipients to = recipients_of(x, who);
    return rc ? rc : done(x, context_broadcast(x->ctx, slice_in(message), &to, &x->fault));
}

static stoa_room_rc host_publish(stoa_room_ctx *x, stoa_room_bytes message,
                                 const stoa_room_publish *wish)
{
    if (!in_room(x))
        return STOA_ROOM_E_ROOM;
    stoa_room_rc rc =
        border(x, BORDER(encode_broadcast), message, STOA_ROOM_E_BROADCAST, "the event");
    struct publish_wish to = {.who = recipients_of(x, wish ? &wish->who : NULL)};
    if (wish) {
        to.conflate = slice_in(wish->conflate);
        to.ephemeral = wish->ephemeral != 0;
    }
    return rc ? rc : done(x, context_publish(x->ctx, slice_in(message), &to, &x->fault));
}

/* The bytes of a strbuf for the rest of the segment. */
static stoa_room_bytes hand_over(struct stoa_room_ctx *x, struct strbuf *b)
{
    stoa_room_bytes bytes = bytes_of(strbuf_slice(b));
    if (b->data)
        *VEC_PUSH(&x->memory, void *) = b->data;
    *b = (struct strbuf){0};
    return bytes;
}

static stoa_room_rc host_log(stoa_room_ctx *x, stoa_room_bytes after, unsigned limit,
                             stoa_room_bytes *events)
{
    struct strbuf out = {0};
    *events = (stoa_room_bytes){0};
    if (!in_room(x))
        return STOA_ROOM_E_ROOM;
    bool ok = context_log(x->ctx, slice_in(after), limit, &out, &x->fault);
    if (ok)
        *events = hand_over(x, &out);
    strbuf_free(&out);
    return done(x, ok);
}

/* ---- alarm ---- */

static stoa_room_rc host_schedule_at(stoa_room_ctx *x, int64_t unix_ms)
{
    if (!in_room(x))
        return STOA_ROOM_E_ROOM;
    return done(x, context_schedule_at(x->ctx, unix_ms, &x->fault));
}

static stoa_room_rc host_schedule_in(stoa_room_ctx *x, int64_t ms)
{
    int64_t now = host_now_ms(x), after = ms > 0 ? ms : 0;
    return host_schedule_at(x, after > INT64_MAX - now ? INT64_MAX : now + after);
}

static void host_cancel_schedule(stoa_room_ctx *x)
{
    if (in_room(x))
        context_cancel(x->ctx);
}

static stoa_room_rc host_next_alarm(stoa_room_ctx *x, int64_t *unix_ms)
{
    *unix_ms = 0;
    return x->ctx && context_next_alarm(x->ctx, unix_ms) ? STOA_ROOM_OK : STOA_ROOM_NONE;
}

/* ---- what takes time ---- */

static stoa_room_rc waits(struct stoa_room_ctx *x, bool ok, stoa_room_reply reply, void *ud)
{
    if (!ok)
        return failed(x);
    x->waits = true;
    x->reply = reply;
    x->ud = ud;
    return STOA_ROOM_OK;
}

static stoa_room_rc host_sleep(stoa_room_ctx *x, int64_t ms, stoa_room_reply reply, void *ud)
{
    if (!in_room(x))
        return STOA_ROOM_E_ROOM;
    return waits(x, context_sleep(x->ctx, ms, &x->fault), reply, ud);
}

static stoa_room_rc sibling(struct stoa_room_ctx *x, enum sibling_verb verb, stoa_room_bytes name,
                            stoa_room_bytes id, stoa_room_bytes method, stoa_room_bytes input,
                            stoa_room_reply reply, void *ud)
{
    if (!in_room(x))
        return STOA_ROOM_E_ROOM;
    bool ok = context_sibling(x->ctx, verb, slice_in(name), slice_in(id), slice_in(method),
                              slice_in(input), &x->fault);
    return waits(x, ok, reply, ud);
}

static stoa_room_rc host_room_send(stoa_room_ctx *x, stoa_room_bytes name, stoa_room_bytes id,
                                   stoa_room_bytes event, stoa_room_reply reply, void *ud)
{
    return sibling(x, SIBLING_SEND, name, id, (stoa_room_bytes){0}, event, reply, ud);
}

static stoa_room_rc host_room_state(stoa_room_ctx *x, stoa_room_bytes name, stoa_room_bytes id,
                                    stoa_room_reply reply, void *ud)
{
    const stoa_room_bytes none = {0};
    return sibling(x, SIBLING_STATE, name, id, none, none, reply, ud);
}

static stoa_room_rc host_room_broadcast(stoa_room_ctx *x, stoa_room_bytes name, stoa_room_bytes id,
                                        stoa_room_bytes message, stoa_room_reply reply, void *ud)
{
    return sibling(x, SIBLING_BROADCAST, name, id, (stoa_room_bytes){0}, message, reply, ud);
}

static stoa_room_rc host_room_call(stoa_room_ctx *x, stoa_room_bytes name, stoa_room_bytes id,
                                   stoa_room_bytes method, stoa_room_bytes input,
                                   stoa_room_reply reply, void *ud)
{
    return sibling(x, SIBLING_CALL, name, id, method, input, reply, ud);
}

/* ---- answers of on_call ---- */

static bool answers(struct stoa_room_ctx *x, stoa_room_bytes value)
{
    if (x->phase != PHASE_CALL)
        (void)fault_rc(x, STOA_ROOM_E_ROOM, "only methods answer");
    else if (!json_valid(slice_in(value)))
        (void)fault_rc(x, STOA_ROOM_E_ROOM, "the answer is not JSON");
    else
        return true;
    return false;
}

static stoa_room_rc host_result(stoa_room_ctx *x, stoa_room_bytes value)
{
    if (!answers(x, value))
        return STOA_ROOM_E_ROOM;
    strbuf_reset(&x->result);
    strbuf_put_slice(&x->result, slice_in(value));
    return STOA_ROOM_OK;
}

static int host_streams(stoa_room_ctx *x)
{
    return x->streams;
}

static stoa_room_rc host_item(stoa_room_ctx *x, stoa_room_bytes value)
{
    if (!answers(x, value))
        return STOA_ROOM_E_ROOM;
    x->items = true;
    return done(x, context_item(x->ctx, slice_in(value), &x->fault));
}

/* ---- JSON ---- */

static stoa_room_bytes host_json_get(stoa_room_bytes object, const char *member)
{
    struct json_value found;
    if (!member || !json_find(slice_in(object), member, &found))
        return (stoa_room_bytes){0};
    return bytes_of(found.raw);
}

static stoa_room_rc host_json_text(stoa_room_ctx *x, stoa_room_bytes value, stoa_room_bytes *text)
{
    struct slice raw = slice_in(value);
    struct strbuf out = {0};
    *text = (stoa_room_bytes){0};
    if (json_type_of(raw) != JSON_STRING || !json_valid(raw) ||
        !json_unescape((struct json_value){JSON_STRING, raw}, &out)) {
        strbuf_free(&out);
        return STOA_ROOM_NONE;
    }
    strbuf_put_byte(&out, 0); /* for those who print it; not counted, and never NULL */
    out.size--;
    *text = hand_over(x, &out);
    return STOA_ROOM_OK;
}

static stoa_room_bytes host_json_quote(stoa_room_ctx *x, stoa_room_bytes text)
{
    struct strbuf out = {0};
    json_quote(&out, slice_in(text));
    return hand_over(x, &out);
}

static stoa_room_rc host_json_items(stoa_room_ctx *x, stoa_room_bytes array,
                                    const stoa_room_bytes **items, size_t *count)
{
    struct slice text = slice_in(array);
    struct strbuf out = {0};
    *items = NULL;
    *count = 0;
    if (json_type_of(text) != JSON_ARRAY || !json_valid(text))
        return STOA_ROOM_NONE;
    for (struct json_iter it = json_members(text); json_next(&it); ++*count) {
        const stoa_room_bytes item = bytes_of(it.value.raw);
        strbuf_put(&out, &item, sizeof item);
    }
    *items = (const stoa_room_bytes *)(const void *)hand_over(x, &out).p;
    return STOA_ROOM_OK;
}

static int host_json_valid(stoa_room_bytes value)
{
    return json_valid(slice_in(value));
}

const stoa_room_host plugin_host = {
    .abi = STOA_ROOM_ABI,
    .size = sizeof plugin_host,
    .name = host_name,
    .id = host_id,
    .connection = host_connection,
    .system_failure = host_system_failure,
    .now_ms = host_now_ms,
    .random = host_random,
    .print = host_print,
    .alloc = segment_alloc,
    .error = host_error,
    .fail = host_fail,
    .fail_with = host_fail_with,
    .refuse = host_refuse,
    .recall = host_recall,
    .state_version = host_state_version,
    .save = host_save,
    .purge = host_purge,
    .next = host_next,
    .count = host_count,
    .by_id = host_by_id,
    .conn_session = host_conn_session,
    .conn_id = host_conn_id,
    .conn_tag = host_conn_tag,
    .conn_state = host_conn_state,
    .conn_meta = host_conn_meta,
    .conn_is_open = host_conn_is_open,
    .set_state = host_set_state,
    .send = host_send,
    .close = host_close,
    .broadcast = host_broadcast,
    .publish = host_publish,
    .log = host_log,
    .schedule_in = host_schedule_in,
    .schedule_at = host_schedule_at,
    .cancel_schedule = host_cancel_schedule,
    .next_alarm = host_next_alarm,
    .sleep = host_sleep,
    .room_send = host_room_send,
    .room_state = host_room_state,
    .room_broadcast = host_room_broadcast,
    .room_call = host_room_call,
    .result = host_result,
    .streams = host_streams,
    .item = host_item,
    .json_get = host_json_get,
    .json_text = host_json_text,
    .json_quote = host_json_quote,
    .json_valid = host_json_valid,
    .json_items = host_json_items,
};
