/* CORE. Requests to routes. Paths are compared as they were sent; what stands in a path or query as
 * a key is percent-decoded once, here. */
#include "common/utf8.h"
#include "gateway/core.h"
#include "gateway/uploadista.h"

const char *exchange_cors(struct exchange *x)
{
    return strbuf_cstr(&x->cors);
}

void exchange_error(struct exchange *x, const char *tag, const char *message)
{
    answer_error(x->g, x->client, exchange_cors(x), tag, message, "");
}

void exchange_json(struct exchange *x, struct slice body)
{
    answer(x->g, x->client, exchange_cors(x), 200, "application/json", body, "");
}

static bool exchange_valid(struct exchange *x)
{
    if (key_valid(strbuf_slice(&x->key), false))
        return true;
    exchange_error(x, "BadKey",
                   "a key is 1 to 256 bytes of UTF-8 without control characters and does not begin "
                   "with $");
    return false;
}

bool exchange_admit(struct exchange *x, enum right right)
{
    return exchange_who(x) && exchange_valid(x) && exchange_allow(x, right, strbuf_slice(&x->key));
}

bool exchange_key(struct exchange *x, enum right right)
{
    strbuf_reset(&x->key);
    if (http_query_get(x->request->query, "key", &x->key) != ERR_OK)
        strbuf_reset(&x->key); /* an empty key is refused with the reason */
    return exchange_admit(x, right);
}

static bool digits_read(struct slice text, uint64_t *out)
{
    uint64_t value = 0;
    if (text.size == 0 || text.size > 15)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *out = value;
    return true;
}

bool exchange_number(struct exchange *x, const char *name, uint64_t least, uint64_t most,
                     uint64_t *out)
{
    struct strbuf text = {0};
    struct strbuf message = {0};
    uint64_t value = 0;
    int found = http_query_get(x->request->query, name, &text);
    bool fine = found == ERR_NOT_FOUND;
    if (found == ERR_OK && digits_read(strbuf_slice(&text), &value) && value >= least &&
        value <= most) {
        *out = value;
        fine = true;
    }
    if (!fine) {
        strbuf_printf(&message, "%s: a number from %llu to %llu", name, (unsigned long long)least,
                      (unsigned long long)most);
        exchange_error(x, "BadRequest", strbuf_cstr(&message));
    }
    strbuf_free(&text);
    strbuf_free(&message);
    return fine;
}

static bool replay_read(struct slice text, struct start *start)
{
    if (slice_is(text, "all")) {
        start->kind = START_ALL;
        return true;
    }
    if (slice_is(text, "none"))
        return true;
    if (!digits_read(text, &start->last))
        return false;
    if (start->last > 0)
        start->kind = START_LAST;
    return true;
}

/* Of an event stream, `filter=none`: events that are for others too, for who may manage the key;
 * anybody else has his own all the same. */
static bool filter_read(struct exchange *x, struct start *start)
{
    struct strbuf filter = {0};
    int found = http_query_get(x->request->query, "filter", &filter);
    bool none = found == ERR_OK && slice_is(strbuf_slice(&filter), "none");
    start->overhears = none && identity_may(x->who, RIGHT_MANAGE, strbuf_slice(&x->key));
    strbuf_free(&filter);
    return none || found == ERR_NOT_FOUND;
}

bool start_from_request(struct exchange *x, bool stream, struct start *start)
{
    struct strbuf after = {0};
    struct strbuf replay = {0};
    struct slice last_id = http_header_get(x->request, "Last-Event-ID");
    int has_after = http_query_get(x->request->query, "after", &after);
    int has_replay = http_query_get(x->request->query, "replay", &replay);
    const char *tag = NULL;
    struct strbuf conflate = {0};
    *start = (struct start){.kind = START_LIVE};
    if (http_query_get(x->request->query, "conflate", &conflate) != ERR_NOT_FOUND) {
        start->whole = slice_is(strbuf_slice(&conflate), "none");
        if (!start->whole)
            tag = "BadRequest";
    }
    strbuf_free(&conflate);
    if (stream && !filter_read(x, start))
        tag = "BadRequest";
    if (has_replay == ERR_INVALID ||
        (has_replay == ERR_OK && !replay_read(strbuf_slice(&replay), start)))
        tag = "BadRequest";
    if (has_replay == ERR_NOT_FOUND && x->replay && !replay_read(slice_text(x->replay), start))
        tag = "BadRequest";
    if (has_after == ERR_INVALID)
        tag = "BadId";
    if (has_after == ERR_OK || (stream && last_id.size > 0)) {
        struct slice id = stream && last_id.size > 0 ? last_id : strbuf_slice(&after);
        start->kind = START_AFTER;
        start->last = 0;
        if (event_id_parse(id, &start->after) != ERR_OK)
            tag = "BadId";
    }
    strbuf_free(&after);
    strbuf_free(&replay);
    if (tag)
        exchange_error(x, tag,
                       *tag == 'B' && tag[3] == 'I'
                           ? "after, Last-Event-ID: an id as it was received, or 0 for everything"
                           : "replay: all, none or a number of events; conflate: none; filter: "
                             "none");
    return tag == NULL;
}

/* ---- sockets and streams ---- */

void upgrade_required(struct exchange *x, const char *message)
{
    answer_error(x->g, x->client, exchange_cors(x), "UpgradeRequired", message,
                 "Upgrade: websocket\r\n");
}

static void raw_socket(struct exchange *x)
{
    struct start start;
    if (exchange_admit(x, RIGHT_SUBSCRIBE) && start_from_request(x, false, &start))
        route_socket(x, &dialect_raw, &start);
}

/* One segment of the tail, decoded onto x->key; *rest: behind its '/', data NULL when there is
 * none. */
static bool segment_take(struct exchange *x, struct slice path, struct slice *rest)
{
    const uint8_t *slash = path.size ? memchr(path.data, '/', path.size) : NULL;
    size_t size = slash ? (size_t)(slash - path.data) : path.size;
    *rest = slash ? slice_of(slash + 1, path.size - size - 1) : slice_of(NULL, 0);
    return http_decode(slice_of(path.data, size), false, &x->key) == ERR_OK;
}

/* "{type}/{id}" or "{type}/{id}/{verb}" in the tail: the key, and the raw verb. False: answered. */
static bool room_path(struct exchange *x, struct slice *type, struct slice *verb)
{
    struct slice rest;
    strbuf_reset(&x->key);
    bool fine = segment_take(x, x->tail, &rest);
    *type = slice_of(x->tail.data, rest.data ? x->tail.size - rest.size - 1 : x->tail.size);
    strbuf_put_byte(&x->key, ':');
    if (!rest.data || type->size == 0) {
        exchange_error(x, "NotFound", "the path is /{type}/{id}");
        return false;
    }
    size_t before = x->key.size;
    if (!segment_take(x, rest, verb) || !fine || x->key.size == before) {
        strbuf_reset(&x->key); /* refused as a key, with the reason */
        return exchange_admit(x, RIGHT_SUBSCRIBE);
    }
    return true;
}

static void on_ws(struct exchange *x)
{
    struct slice type, verb;
    if (!room_path(x, &type, &verb))
        return;
    if (verb.data)
        exchange_error(x, "NotFound", "the path is /ws/{type}/{id}; encode a slash as %2F");
    else if (!x->request->upgrade)
        upgrade_required(x, "open this address as a WebSocket");
    else
        raw_socket(x);
}

/* Whether an Accept header admits an event stream. */
static bool accepts_stream(struct slice accept)
{
    static const char *const ranges[] = {"text/event-stream", "text/*", "*/*"};
    bool admitted = accept.size == 0;
    for (size_t at = 0; at < accept.size && !admitted;) {
        const uint8_t *comma = memchr(accept.data + at, ',', accept.size - at);
        size_t end = comma ? (size_t)(comma - accept.data) : accept.size;
        const uint8_t *semicolon = memchr(accept.data + at, ';', end - at);
        size_t stop = semicolon ? (size_t)(semicolon - accept.data) : end;
        struct slice range = slice_of(accept.data + at, stop - at);
        for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
            admitted |= http_header_has_token(range, ranges[i]);
        at = end + 1;
    }
    return admitted;
}

static void event_stream(struct exchange *x)
{
    struct start start;
    if (!accepts_stream(http_header_get(x->request, "Accept")))
        upgrade_required(x, "open a WebSocket, or accept text/event-stream");
    else if (exchange_admit(x, RIGHT_SUBSCRIBE) && start_from_request(x, true, &start))
        route_socket(x, &dialect_sse, &start);
}

struct slice key_type(struct slice key)
{
    const uint8_t *colon = key.size ? memchr(key.data, ':', key.size) : NULL;
    return colon ? slice_of(key.data, (size_t)(colon - key.data)) : slice_text("events");
}

static const struct gateway_type *type_find(const struct gateway_options *o, struct slice type)
{
    for (size_t i = 0; i < o->n_types; i++)
        if (slice_is(type, o->types[i].name))
            return &o->types[i];
    return NULL;
}

bool type_declared(const struct gateway *g, struct slice type)
{
    return type_find(&g->options, type) != NULL;
}

const struct gateway_type *type_of_key(const struct gateway *g, struct slice key)
{
    static const struct gateway_type plain = {.name = "events"};
    const struct gateway_type *type = type_find(&g->options, key_type(key));
    if (!type)
        type = type_find(&g->options, slice_text("events")); /* as an undeclared one is */
    return type ? type : &plain;
}

static const struct gateway_type *handler_find(const struct gateway_options *o, struct slice key)
{
    const struct gateway_type *type = type_find(o, key_type(key));
    return type && type->has_handler ? type : NULL;
}

const struct gateway_type *type_with_handler(const struct gateway *g, struct slice key)
{
    return handler_find(&g->options, key);
}

bool type_presence(const struct gateway *g, struct slice key)
{
    const struct gateway_type *type = type_with_handler(g, key);
    return type && type->presence;
}

/* Who was promised presence, of a room that tells none any more. */
static void presence_withdraw(struct gateway *g, const struct room *room)
{
    LIST_EACH(cursor, after, &room->subs)
    {
        struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_room);
        if (sub->presence)
            sub->session->dialect->end(g, sub, 1012,
                                       slice_text("this room tells no presence any more"));
    }
}

void gateway_retypes(struct gateway *g, const struct gateway_type *types, size_t n_types,
                     struct tick now)
{
    const struct gateway_options before = g->options;
    g->now = now;
    g->options.types = types;
    g->options.n_types = n_types;
    LIST_EACH(cursor, after, &g->rooms_all)
    {
        struct room *room = LIST_ENTRY(cursor, struct room, all);
        bool had = handler_find(&before, room_key(room)) != NULL;
        if (had != (type_with_handler(g, room_key(room)) != NULL))
            room_end(g, room, 1012, slice_text("the rules of this room have changed"));
        else if (!type_presence(g, room_key(room)))
            presence_withdraw(g, room);
    }
}

bool exchange_serves(struct exchange *x)
{
    static const char *const usual[] = {"events", NULL};
    const char *const *served = x->route && x->route->types ? x->route->types : usual;
    struct slice type = key_type(strbuf_slice(&x->key));
    if (!type_declared(x->g, type))
        type = slice_text("events");
    for (; *served; served++)
        if (slice_is(type, *served))
            return true;
    exchange_error(x, "Forbidden",
                   served == usual + 1
                       ? "this route serves keys of the type events: open /ws/{type}/{id}, "
                         "/api/{type}/{id}/events or /stoa"
                       : "this route does not serve keys of this type: see its types in routes");
    return false;
}

void route_events(struct exchange *x)
{
    if (!exchange_serves(x))
        return;
    if (x->request->upgrade)
        raw_socket(x);
    else
        event_stream(x);
}

static void on_events(struct exchange *x)
{
    static const char *const names[] = {"key", "uploadId", "jobId"};
    unsigned keys = 0;
    strbuf_reset(&x->key);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int found = http_query_get(x->request->query, names[i], &x->key);
        keys += found != ERR_NOT_FOUND;
        if (found == ERR_INVALID)
            strbuf_reset(&x->key);
    }
    if (keys > 1)
        exchange_error(x, "BadRequest", "give exactly one of key, uploadId, jobId");
    else
        route_events(x);
}

static void on_stoa(struct exchange *x)
{
    struct slice protocols = http_header_get(x->request, "Sec-WebSocket-Protocol");
    if (!x->request->upgrade)
        upgrade_required(x, "open this address as a WebSocket with subprotocol stoa.v1");
    else if (!http_header_has_token(protocols, "stoa.v1"))
        exchange_error(x, "BadRequest", "this address speaks the subprotocol stoa.v1: ask for it");
    else if (exchange_maybe_who(x))
        route_socket(x, &dialect_v1, NULL);
}

/* ---- plain routes ---- */

static void on_page(struct exchange *x)
{
    struct gateway *g = x->g;
    if (g->options.page.size == 0)
        exchange_error(x, "NotFound", "this gateway has no page; see /status");
    else
        answer(g, x->client, exchange_cors(x), 200, "text/html; charset=utf-8", g->options.page,
               "");
}

static void on_log(struct exchange *x)
{
    if (exchange_key(x, RIGHT_SUBSCRIBE))
        route_log(x);
}

static void on_purge(struct exchange *x)
{
    if (exchange_key(x, RIGHT_MANAGE))
        route_purge(x);
}

static bool has_handler(const struct exchange *x)
{
    return type_with_handler(x->g, strbuf_slice(&x->key)) != NULL;
}

static void on_connections(struct exchange *x)
{
    if (!exchange_key(x, RIGHT_MANAGE))
        return;
    if (has_handler(x))
        route_room_connections(x);
    else
        route_connections(x);
}

static void on_close(struct exchange *x)
{
    if (exchange_key(x, RIGHT_MANAGE))
        route_close(x);
}

static void on_release(struct exchange *x)
{
    if (exchange_key(x, RIGHT_MANAGE))
        route_room_release(x);
}

static void no_handler(struct exchange *x)
{
    exchange_error(x, "NoHandler", "this room has no handler; publish to it instead");
}

static void route_presence(struct exchange *x)
{
    if (type_presence(x->g, strbuf_slice(&x->key)))
        route_room_presence(x);
    else
        exchange_error(x, "NotFound",
                       "rooms of this type do not count members: set presence: true under its name "
                       "in types, or see /api/{type}/{id}/connections");
}

static void on_presence(struct exchange *x)
{
    if (!exchange_key(x, RIGHT_SUBSCRIBE))
        return;
    if (has_handler(x))
        route_presence(x);
    else
        no_handler(x);
}

/* ---- /api/{type}/{id}[/{verb}] ---- */

/* What needs a handler, of a room that has none. */
static void needs_handler(struct exchange *x, struct slice type)
{
    if (type_declared(x->g, type))
        no_handler(x);
    else
        exchange_error(x, "NoSuchType", "no room type of this name is declared");
}

static const struct {
    const char *verb;
    enum http_method method;
    enum right right;
    void (*run)(struct exchange *x);      /* of a room without a handler; NULL: needs one */
    void (*run_room)(struct exchange *x); /* of a room with a handler */
} api[] = {
    {"connections", HTTP_M_GET, RIGHT_MANAGE, route_connections, route_room_connections},
    {"log", HTTP_M_GET, RIGHT_SUBSCRIBE, route_log, route_log},
    {"close", HTTP_M_POST, RIGHT_MANAGE, route_close, route_close},
    {"send", HTTP_M_POST, RIGHT_SEND, no_handler, route_room_send},
    {"broadcast", HTTP_M_POST, RIGHT_MANAGE, no_handler, route_room_broadcast},
    {"state", HTTP_M_GET, RIGHT_MANAGE, NULL, route_room_state},
    {"presence", HTTP_M_GET, RIGHT_SUBSCRIBE, NULL, route_presence},
    {"alarm", HTTP_M_POST, RIGHT_MANAGE, NULL, route_room_alarm},
};

static void method_refused(struct exchange *x, const char *allow)
{
    struct strbuf headers = {0};
    strbuf_printf(&headers, "Allow: %s\r\n", allow);
    answer_error(x->g, x->client, exchange_cors(x), "MethodNotAllowed",
                 "this address does not take this method; see the Allow header",
                 strbuf_cstr(&headers));
    strbuf_free(&headers);
}

static enum http_method method_of(const struct exchange *x)
{
    return x->request->method == HTTP_M_HEAD ? HTTP_M_GET : x->request->method;
}

/* As exchange_admit: by the right to call, or because the token names this method. */
static bool admit_call(struct exchange *x, struct slice raw)
{
    struct strbuf method = {0};
    bool named = exchange_who(x) && x->who && http_decode(raw, false, &method) == ERR_OK &&
                 identity_may_call(x->who, strbuf_slice(&x->key), strbuf_slice(&method));
    strbuf_free(&method);
    return named ? exchange_valid(x) : x->asked && exchange_admit(x, RIGHT_CALL);
}

static void api_verb(struct exchange *x, struct slice type, struct slice verb)
{
    if (slice_is(verb, "events") && x->request->method == HTTP_M_GET) {
        event_stream(x); /* what /events is for other types; a method may have this name too */
        return;
    }
    for (size_t i = 0; i < sizeof api / sizeof *api; i++) {
        if (!slice_is(verb, api[i].verb))
            continue;
        if (method_of(x) != api[i].method)
            method_refused(x, api[i].method == HTTP_M_GET ? "GET, HEAD, OPTIONS" : "POST, OPTIONS");
        else if (!exchange_admit(x, api[i].right))
            return;
        else if (has_handler(x))
            api[i].run_room(x);
        else if (api[i].run)
            api[i].run(x);
        else
            needs_handler(x, type);
        return;
    }
    if (memchr(verb.data, '/', verb.size) || verb.size == 0)
        exchange_error(x, "NotFound", "the path is /api/{type}/{id}/{verb}");
    else if (method_of(x) != HTTP_M_POST)
        method_refused(x, "POST, OPTIONS");
    else if (!admit_call(x, verb))
        return;
    else if (has_handler(x))
        route_room_method(x, verb);
    else
        needs_handler(x, type);
}

static void on_api(struct exchange *x)
{
    struct slice type, verb;
    if (!room_path(x, &type, &verb))
        return;
    if (verb.data)
        api_verb(x, type, verb);
    else if (x->request->method != HTTP_M_DELETE)
        method_refused(x, "DELETE, OPTIONS");
    else if (exchange_admit(x, RIGHT_MANAGE))
        route_purge(x);
}

/* ---- the table ---- */

enum { GET = 1, HEAD = 2, POST = 4, DELETE = 8, ANY = GET | HEAD | POST | DELETE };

static const struct route {
    const char *path;
    bool prefix;
    unsigned methods;
    void (*run)(struct exchange *x);
} routes[] = {
    {"/", false, GET | HEAD, on_page},
    {"/ws/", true, GET, on_ws},
    {"/events", false, GET, on_events},
    {"/stoa", false, GET, on_stoa},
    {"/publish", false, POST, route_publish},
    {"/log", false, GET | HEAD, on_log},
    {"/log", false, DELETE, on_purge},
    {"/connections", false, GET | HEAD, on_connections},
    {"/presence", false, GET | HEAD, on_presence},
    {"/close", false, POST, on_close},
    {"/revoke", false, POST, route_revoke},
    {"/keys", false, GET | HEAD, route_keys},
    {"/status", false, GET | HEAD, route_status},
    {"/top", false, GET | HEAD, route_top},
    {"/quarantine", false, GET | HEAD, route_quarantine},
    {"/quarantine", false, DELETE, on_release},
    {"/api/", true, ANY, on_api},
    {"/uploadista/", true, GET, route_uploadista},
    {"/iterator", false, ANY, route_orpc},
};

static unsigned method_bit(enum http_method method)
{
    switch (method) {
    case HTTP_M_GET:
        return GET;
    case HTTP_M_HEAD:
        return HEAD;
    case HTTP_M_POST:
        return POST;
    case HTTP_M_DELETE:
        return DELETE;
    default:
        return 0;
    }
}

static bool route_matches(const struct route *r, struct exchange *x)
{
    struct slice path = x->request->path;
    size_t size = strlen(r->path);
    if (!r->prefix)
        return slice_is(path, r->path);
    if (path.size < size || memcmp(path.data, r->path, size) != 0)
        return false;
    x->tail = slice_of(path.data + size, path.size - size);
    return true;
}

static void methods_put(struct strbuf *out, unsigned methods)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "DELETE"};
    for (unsigned i = 0; i < 4; i++)
        if (methods & 1u << i)
            strbuf_printf(out, "%s, ", names[i]);
    strbuf_put_text(out, "OPTIONS");
}

static void preflight(struct exchange *x, const char *allow)
{
    struct strbuf headers = {0};
    strbuf_printf(&headers, "Allow: %s\r\n", allow);
    if (x->cors.size > 0)
        strbuf_printf(&headers,
                      "Access-Control-Allow-Methods: %s\r\n"
                      "Access-Control-Allow-Headers: Authorization, Content-Type, "
                      "Idempotency-Key, Last-Event-ID, Stoa-Conflate, Stoa-Ephemeral, "
                      "Stoa-Format\r\n"
                      "Access-Control-Max-Age: 600\r\n",
                      allow);
    answer(x->g, x->client, exchange_cors(x), 204, NULL, slice_of(NULL, 0), strbuf_cstr(&headers));
    strbuf_free(&headers);
}

static void dispatch(struct exchange *x)
{
    unsigned methods = 0;
    unsigned wanted = method_bit(x->request->method);
    if (own_route_find(x)) {
        methods = GET;
        if (wanted == GET) {
            own_route_run(x);
            return;
        }
    }
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (!route_matches(&routes[i], x))
            continue;
        methods |= routes[i].methods;
        if (routes[i].methods & wanted) {
            routes[i].run(x);
            return;
        }
    }
    if (methods == 0) {
        exchange_error(x, "NotFound", "there is nothing at this address");
        return;
    }
    struct strbuf allow = {0};
    methods_put(&allow, methods);
    if (x->request->method == HTTP_M_OPTIONS)
        preflight(x, strbuf_cstr(&allow));
    else
        method_refused(x, strbuf_cstr(&allow));
    strbuf_free(&allow);
}

void gateway_request(struct gateway *g, uint64_t client, const struct http_request *request,
                     struct tick now)
{
    g->now = now;
    struct exchange x = {.g = g, .client = client, .request = request};
    if (access_check(&x))
        dispatch(&x);
    identity_unref(x.who);
    strbuf_free(&x.cors);
    strbuf_free(&x.key);
    strbuf_free(&x.id);
    mem_free(x.viewer);
}
