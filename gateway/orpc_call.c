/* CORE. Methods of a room, called by clients of the orpc dialect. A call is known to the shard's
 * side by a number of our own, so that an answer to one that was aborted finds nobody, whatever the
 * client calls its next.
 *
 *   -> {"i":"3","p":{"u":"/call","b":{"json":{"path":["router","ping"],"input":…}}}}
 *   <- {"i":"3","p":{"b":{"json":…}}}                                     what it returned
 *   <- {"i":"3","p":{"h":{"content-type":"text/event-stream"}}}           or, of one that streams,
 *      {"i":"3","t":3,"p":{"e":"message","d":{"json":…}}} …               its items, and "done"
 *
 * A path of several names is a nested method, which a room calls by its dotted name. A room returns
 * JSON: `null` stands for nothing too, and is given as nothing, as oRPC gives what is void. */
#include "gateway/orpc.h"

struct orpc_call {
    struct list in_orpc;
    uint64_t number;
    bool streams; /* an item has come */
    size_t id_size;
    uint8_t id[];
};

/* ---- what runs ---- */

static struct slice call_id(const struct orpc_call *c)
{
    return slice_of(c->id, c->id_size);
}

static struct orpc_call *call_open(struct orpc *o, struct slice id)
{
    struct orpc_call *c = mem_zalloc(sizeof *c + id.size);
    c->number = ++o->last_call;
    c->id_size = id.size;
    memcpy(c->id, id.data, id.size);
    list_push_back(&o->calls, &c->in_orpc);
    return c;
}

static void call_close(struct orpc_call *c)
{
    list_remove(&c->in_orpc);
    mem_free(c);
}

static struct orpc_call *call_of_id(const struct orpc *o, struct slice id)
{
    LIST_EACH(at, after, &o->calls)
    {
        struct orpc_call *c = LIST_ENTRY(at, struct orpc_call, in_orpc);
        if (slice_equal(call_id(c), id))
            return c;
    }
    return NULL;
}

static struct orpc_call *call_of_ref(const struct orpc *o, struct slice ref)
{
    uint64_t number;
    if (!json_u64((struct json_value){JSON_NUMBER, ref}, &number))
        return NULL;
    LIST_EACH(at, after, &o->calls)
    {
        struct orpc_call *c = LIST_ENTRY(at, struct orpc_call, in_orpc);
        if (c->number == number)
            return c;
    }
    return NULL;
}

bool orpc_call_runs(const struct orpc *o, struct slice id)
{
    return call_of_id(o, id) != NULL;
}

void orpc_call_abort(struct orpc *o, struct slice id)
{
    struct orpc_call *c = call_of_id(o, id);
    if (c)
        call_close(c);
}

void orpc_calls_free(struct orpc *o)
{
    while (!list_empty(&o->calls))
        call_close(LIST_ENTRY(o->calls.next, struct orpc_call, in_orpc));
}

/* ---- errors ---- */

const char *orpc_code(struct slice tag, unsigned *status)
{
    static const struct {
        const char *tag, *code;
        unsigned status;
    } codes[] = {
        {"BadRequest", "BAD_REQUEST", 400},
        {"BadKey", "BAD_REQUEST", 400},
        {"RoomValidationError", "BAD_REQUEST", 400},
        {"Unauthorized", "UNAUTHORIZED", 401},
        {"TokenExpired", "UNAUTHORIZED", 401},
        {"Forbidden", "FORBIDDEN", 403},
        {"NoHandler", "NOT_FOUND", 404},
        {"NoSuchType", "NOT_FOUND", 404},
        {"RoomFull", "CONFLICT", 409},
        {"Duplicate", "CONFLICT", 409},
        {"TooLarge", "PAYLOAD_TOO_LARGE", 413},
        {"RateLimited", "TOO_MANY_REQUESTS", 429},
        {"NoSuchMethod", "INTERNAL_SERVER_ERROR", 500}, /* as the original has it */
        {"RoomError", "INTERNAL_SERVER_ERROR", 500},
        {"RoomExecutionError", "INTERNAL_SERVER_ERROR", 500},
        {"Busy", "SERVICE_UNAVAILABLE", 503},
        {"Moving", "SERVICE_UNAVAILABLE", 503},
        {"DiskFull", "SERVICE_UNAVAILABLE", 503},
        {"Draining", "SERVICE_UNAVAILABLE", 503},
        {"Unknown", "GATEWAY_TIMEOUT", 504},
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (!slice_is(tag, codes[i].tag))
            continue;
        *status = codes[i].status;
        return codes[i].code;
    }
    return NULL;
}

const char *orpc_code_of_status(unsigned status)
{
    static const struct {
        unsigned status;
        const char *code;
    } codes[] = {
        {400, "BAD_REQUEST"},
        {401, "UNAUTHORIZED"},
        {403, "FORBIDDEN"},
        {404, "NOT_FOUND"},
        {405, "METHOD_NOT_SUPPORTED"},
        {406, "NOT_ACCEPTABLE"},
        {408, "TIMEOUT"},
        {409, "CONFLICT"},
        {412, "PRECONDITION_FAILED"},
        {413, "PAYLOAD_TOO_LARGE"},
        {415, "UNSUPPORTED_MEDIA_TYPE"},
        {422, "UNPROCESSABLE_CONTENT"},
        {429, "TOO_MANY_REQUESTS"},
        {501, "NOT_IMPLEMENTED"},
        {502, "BAD_GATEWAY"},
        {503, "SERVICE_UNAVAILABLE"},
        {504, "GATEWAY_TIMEOUT"},
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].status == status)
            return codes[i].code;
    return "INTERNAL_SERVER_ERROR";
}

/* {"tag","message","data"?,"status"} as {"defined","code",…}. What went wrong within a room is for
 * its author. Returns the status. */
static unsigned error_translate(struct strbuf *out, struct slice error)
{
    struct strbuf tag = {0}, message = {0};
    uint64_t given = 500;
    (void)json_unescape(json_get(error, "tag"), &tag);
    (void)json_unescape(json_get(error, "message"), &message);
    (void)json_u64(json_get(error, "status"), &given);
    unsigned status = (unsigned)given;
    const char *code = orpc_code(strbuf_slice(&tag), &status);
    if (code && strcmp(code, "INTERNAL_SERVER_ERROR") == 0)
        orpc_error_put(out, slice_text(code), status, slice_text("Internal server error"),
                       slice_of(NULL, 0));
    else
        orpc_error_put(out, code ? slice_text(code) : strbuf_slice(&tag), status,
                       strbuf_slice(&message), json_get(error, "data").raw);
    strbuf_free(&tag);
    strbuf_free(&message);
    return status;
}

static void say_error(struct gateway *g, struct session *s, const struct orpc_call *c,
                      struct slice error)
{
    struct strbuf translated = {0}, *out;
    unsigned status = error_translate(&translated, error);
    if (c->streams) {
        out = orpc_say_begin(g, call_id(c), ",\"t\":3,\"p\":{\"e\":\"error\",\"d\":{\"json\":");
    } else {
        out = orpc_say_begin(g, call_id(c), ",\"p\":{\"s\":");
        strbuf_printf(out, "%u,\"b\":{\"json\":", status);
    }
    strbuf_put_slice(out, strbuf_slice(&translated));
    strbuf_put_text(out, "}}}");
    orpc_say(g, s);
    strbuf_free(&translated);
}

/* ---- what comes back ---- */

/* What the method has published goes out before its answer: the caller sees its own events first,
 * as the original has it. */
static void room_flush(struct gateway *g, const struct orpc *o)
{
    struct room *room = room_find(g, strbuf_slice(&o->key));
    if (room && room->n_events > 0)
        fanout_flush(g, room);
}

static void value_put(struct strbuf *out, struct slice json)
{
    bool nothing = json.size == 0 || slice_is(json, "null");
    strbuf_put_byte(out, '{');
    if (!nothing) {
        strbuf_put_text(out, "\"json\":");
        strbuf_put_slice(out, json);
    }
    strbuf_put_text(out, "}}}");
}

void orpc_call_item(struct gateway *g, struct session *s, struct slice ref, struct slice item)
{
    struct orpc_call *c = call_of_ref(s->orpc, ref);
    if (!c)
        return;
    room_flush(g, s->orpc);
    if (!c->streams) {
        c->streams = true;
        (void)orpc_say_begin(g, call_id(c),
                             ",\"p\":{\"h\":{\"content-type\":\"text/event-stream\"}}}");
        orpc_say(g, s);
    }
    struct strbuf *out =
        orpc_say_begin(g, call_id(c), ",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":");
    strbuf_put_slice(out, item);
    strbuf_put_text(out, "}}}");
    orpc_say(g, s);
}

void orpc_call_done(struct gateway *g, struct session *s, struct slice ref, struct slice ok,
                    struct slice error)
{
    struct orpc_call *c = call_of_ref(s->orpc, ref);
    STOA_ASSERT(s->pubs > 0);
    s->pubs--;
    if (!c)
        return;
    room_flush(g, s->orpc);
    if (error.size > 0) {
        say_error(g, s, c, error);
    } else {
        struct strbuf *out = orpc_say_begin(
            g, call_id(c), c->streams ? ",\"t\":3,\"p\":{\"e\":\"done\",\"d\":" : ",\"p\":{\"b\":");
        value_put(out, ok);
        orpc_say(g, s);
    }
    call_close(c);
}

/* ---- what is called ---- */

/* The names of `path`, joined by dots; *first: the size of the first one. False: it is none. */
static bool path_read(struct json_value path, struct strbuf *name, size_t *first)
{
    if (path.type != JSON_ARRAY)
        return false;
    struct json_iter it = json_members(path.raw);
    size_t count = 0;
    for (; json_next(&it); count++) {
        if (count > 0)
            strbuf_put_byte(name, '.');
        if (it.value.type != JSON_STRING || !json_unescape(it.value, name))
            return false;
        if (count == 0)
            *first = name->size;
    }
    return count > 0;
}

static void refuse_method(struct gateway *g, struct session *s, struct slice id,
                          struct slice method)
{
    struct strbuf message = {0};
    strbuf_put_text(&message, "Method \"");
    strbuf_put_slice(&message, method);
    strbuf_put_text(&message, "\" is not allowed.");
    orpc_refuse(g, s, id, "FORBIDDEN", 403, strbuf_cstr(&message));
    strbuf_free(&message);
}

static void refuse_by_tag(struct gateway *g, struct session *s, struct slice id, const char *tag,
                          const char *message)
{
    unsigned status = 500;
    const char *code = orpc_code(slice_text(tag), &status);
    refused_note(g, tag, message);
    if (!code || status == 500)
        orpc_refuse(g, s, id, "INTERNAL_SERVER_ERROR", 500, "Internal server error");
    else
        orpc_refuse(g, s, id, code, status, message);
}

static void over_rate(struct gateway *g, struct session *s, struct slice id)
{
    refuse_by_tag(g, s, id, "RateLimited", RATE_SOCKET_TEXT);
    if (!type_of_key(g, strbuf_slice(&s->orpc->key))->drops)
        session_close(g, s, 1008, slice_text(RATE_SOCKET_TEXT));
}

/* [type, "input", segment ...] as [type, segment ...], behind a comma. False: it is of another
 * part. */
static bool mark_rebase(struct slice mark, struct strbuf *out)
{
    struct json_iter it = json_members(mark);
    struct strbuf first = {0};
    bool ours = json_next(&it);
    struct slice type = it.value.raw;
    ours = ours && json_next(&it) && json_unescape(it.value, &first) &&
           slice_is(strbuf_slice(&first), "input");
    strbuf_free(&first);
    if (!ours)
        return false;
    strbuf_put_text(out, ",[");
    strbuf_put_slice(out, type);
    while (json_next(&it)) {
        strbuf_put_byte(out, ',');
        strbuf_put_slice(out, it.value.raw);
    }
    strbuf_put_byte(out, ']');
    return true;
}

/* The input, with what meta says of its parts. False: meta says nothing of it, and `typed` is
 * empty.
 */
static bool input_typed(struct slice input, struct json_value meta, struct strbuf *typed)
{
    struct strbuf marks = {0};
    struct json_iter it = json_members(meta.type == JSON_ARRAY ? meta.raw : slice_text("[]"));
    bool any = false;
    while (json_next(&it))
        any |= mark_rebase(it.value.raw, &marks);
    if (any) {
        strbuf_put_text(typed, "{\"json\":");
        strbuf_put_slice(typed, input);
        strbuf_put_text(typed, ",\"meta\":[");
        strbuf_put_slice(typed, slice_of(marks.data + 1, marks.size - 1));
        strbuf_put_text(typed, "]}");
    }
    strbuf_free(&marks);
    return any;
}

static void method_begin(struct gateway *g, struct session *s, struct slice id, struct slice name,
                         struct slice input, bool typed)
{
    const char *message = "this channel's room has no methods", *tag = NULL;
    struct orpc *o = s->orpc;
    struct call_order order = {.verb = VERB_METHOD,
                               .key = strbuf_slice(&o->key),
                               .name = name,
                               .input = input,
                               .typed = typed,
                               .by_session = true};
    if (!type_with_handler(g, order.key)) {
        refuse_by_tag(g, s, id, "NoHandler", message);
        return;
    }
    if (s->pubs >= PUBS_PER_SOCKET_MAX) {
        tag = "Busy";
        message = "too much in flight on this socket: wait for answers";
    }
    if (!tag)
        tag = room_call_check(g, &order, slice_of(NULL, 0), &message);
    if (tag) {
        refuse_by_tag(g, s, id, tag, message);
        return;
    }
    struct orpc_call *c = call_open(o, id);
    struct strbuf ref = {0};
    strbuf_put_u64(&ref, c->number);
    order.ref = strbuf_slice(&ref);
    tag = room_call_begin(g, s->client, "", &order, &message);
    if (tag) {
        call_close(c);
        refuse_by_tag(g, s, id, tag, message);
    } else {
        s->pubs++;
    }
    strbuf_free(&ref);
}

void orpc_call(struct gateway *g, struct session *s, const struct orpc_frame *f)
{
    struct orpc *o = s->orpc;
    struct json_value json = {0};
    struct strbuf name = {0}, typed = {0};
    size_t first = 0;
    if (f->body.type == JSON_OBJECT)
        json = json_get(f->body.raw, "json");
    if (!f->fit) {
        orpc_refuse_malformed(g, s, f->id);
    } else if (json.type != JSON_OBJECT || !path_read(json_get(json.raw, "path"), &name, &first)) {
        orpc_refuse(g, s, f->id, "BAD_REQUEST", 400, "Input validation failed");
    } else if (!identity_may_call(s->identity, strbuf_slice(&o->key), slice_of(name.data, first))) {
        refuse_method(g, s, f->id, slice_of(name.data, first));
    } else if (!rate_take(g, s, strbuf_slice(&o->key))) {
        over_rate(g, s, f->id);
    } else {
        struct slice input = json_get(json.raw, "input").raw;
        bool is_typed = input_typed(input, json_get(f->body.raw, "meta"), &typed);
        method_begin(g, s, f->id, strbuf_slice(&name), is_typed ? strbuf_slice(&typed) : input,
                     is_typed);
    }
    strbuf_free(&name);
    strbuf_free(&typed);
}
