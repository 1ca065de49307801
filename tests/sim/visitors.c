/* CORE. Visitors: requests to every route, sensible ones and hostile ones, and frames that no
 * dialect has, in the middle of the storm. Each is answered, or its connection ends; an answer has
 * a status of the contract, a refusal a tag, and nothing that a visitor asks changes what the
 * history tells. Their choices come from a generator of their own, in one seed of four. */
#include "sim.h"

#include "common/json.h"

#define SEEDS_WITH 4
#define PACE_NS (40 * MS)
#define STREAMS_NS (100 * MS) /* a visitor does not stay */

static const struct ask {
    enum http_method method;
    const char *path, *query; /* %s: a key of the world */
    const char *header, *value;
} asks[] = {
    {HTTP_M_GET, "/status", "", NULL, NULL},
    {HTTP_M_GET, "/top", "limit=3", NULL, NULL},
    {HTTP_M_GET, "/top", "limit=x", NULL, NULL},
    {HTTP_M_GET, "/keys", "limit=2", NULL, NULL},
    {HTTP_M_GET, "/keys", "prefix=k&after=%s&limit=1", NULL, NULL},
    {HTTP_M_GET, "/keys", "limit=0", NULL, NULL},
    {HTTP_M_GET, "/connections", "key=%s", NULL, NULL},
    {HTTP_M_GET, "/connections", "key=%s&tag=t", NULL, NULL},
    {HTTP_M_GET, "/presence", "key=%s", NULL, NULL},
    {HTTP_M_GET, "/log", "key=%s&last=3", NULL, NULL},
    {HTTP_M_GET, "/log", "key=%s&after=0&limit=2", "Accept", "application/x-ndjson"},
    {HTTP_M_GET, "/log", "key=%s&after=zz-9", NULL, NULL},
    {HTTP_M_GET, "/log", "key=%s&after=Z", NULL, NULL},
    {HTTP_M_GET, "/log", "key=%s&limit=1001", NULL, NULL},
    {HTTP_M_GET, "/log", "", NULL, NULL},
    {HTTP_M_GET, "/events", "key=%s&replay=2", NULL, NULL},
    {HTTP_M_GET, "/events", "key=%s", "Accept", "text/html"},
    {HTTP_M_GET, "/events", "key=%s&uploadId=%s", NULL, NULL},
    {HTTP_M_GET, "/events", "key=%s&after=1", NULL, NULL},
    {HTTP_M_GET, "/events", "key=%s&replay=-1", NULL, NULL},
    {HTTP_M_GET, "/events", "key=%%00", NULL, NULL},
    {HTTP_M_GET, "/events", "key=%s", "Last-Event-ID", "!"},
    {HTTP_M_GET, "/ws/events/%s", "", NULL, NULL},
    {HTTP_M_GET, "/ws/", "", NULL, NULL},
    {HTTP_M_GET, "/stoa", "", NULL, NULL},
    {HTTP_M_GET, "/", "", NULL, NULL},
    {HTTP_M_GET, "/nothing", "", NULL, NULL},
    {HTTP_M_GET, "/api/events/%s/state", "", NULL, NULL},
    {HTTP_M_GET, "/api/events/%s/log", "last=1", NULL, NULL},
    {HTTP_M_GET, "/api/events/%s/connections", "", NULL, NULL},
    {HTTP_M_POST, "/api/events/%s/send", "", NULL, NULL},
    {HTTP_M_POST, "/api/events/%s/method", "", NULL, NULL},
    {HTTP_M_GET, "/api/", "", NULL, NULL},
    {HTTP_M_OPTIONS, "/publish", "", "Origin", "http://localhost:3000"},
    {HTTP_M_GET, "/keys", "", "Origin", "http://elsewhere.example"},
    {HTTP_M_GET, "/keys", "", "Host", "elsewhere.example"},
    {HTTP_M_POST, "/publish", "key=$x", NULL, NULL},
    {HTTP_M_POST, "/publish", "", NULL, NULL},
    {HTTP_M_POST, "/publish", "key=%s", "Idempotency-Key", ""},
    {HTTP_M_POST, "/publish", "key=%s", "Stoa-Ephemeral", "maybe"},
    {HTTP_M_POST, "/publish", "key=%s&tags=a", NULL, NULL},
    {HTTP_M_DELETE, "/publish", "key=%s", NULL, NULL},
    {HTTP_M_POST, "/close", "key=%s&code=1", NULL, NULL},
    {HTTP_M_DELETE, "/log", "key=", NULL, NULL},
};
#define ASKS (sizeof asks / sizeof *asks)

static const char *const frames[] = {"no JSON",
                                     "[]",
                                     "{}",
                                     "{\"sub\":7}",
                                     "{\"sub\":\"$x\"}",
                                     "{\"sub\":\"k\",\"after\":\"-\"}",
                                     "{\"unsub\":\"never\"}",
                                     "{\"pub\":\"k\",\"ref\":1}",
                                     "{\"pub\":\"\",\"data\":1,\"ref\":2}",
                                     "{\"send\":\"k\",\"event\":1,\"ref\":3}",
                                     "{\"call\":\"k\",\"method\":\"m\",\"ref\":4}",
                                     "{\"ping\":{\"a\":[1]}}",
                                     "{\"token\":\"t\"}",
                                     "{\"sub\":\"k\",\"unsub\":\"k\"}",
                                     "{\"sub\":\"k\",\"replay\":\"x\"}",
                                     "{\"sub\":\"k\",\"presence\":true}"};
#define FRAMES (sizeof frames / sizeof *frames)

static uint64_t choose(struct visitor *v, uint64_t bound)
{
    return rng_below(&v->rng, bound);
}

static void visitor_soon(struct visitor *v)
{
    event_set(v->world, &v->act, (int64_t)choose(v, 2 * PACE_NS));
}

/* ---- what comes back ---- */

static void on_answered(struct socket *s, unsigned status, struct slice body)
{
    struct visitor *v = OWNER_OF(s, struct visitor, socket);
    v->open = false;
    if (status < 200 || status > 504 || (status >= 300 && status < 400))
        world_fail(v->world, "a visitor is answered %u", status);
    if (status >= 400 &&
        (!json_valid(body) || json_get(json_get(body, "error").raw, "tag").type != JSON_STRING))
        world_fail(v->world, "a refusal %u without a tag: %.*s", status, SLICE_FMT(body));
    visitor_soon(v);
}

static void on_opened(struct socket *s)
{
    visitor_soon(OWNER_OF(s, struct visitor, socket));
}

static void on_frame(struct socket *s, struct slice text)
{
    if (!json_valid(text) || json_type_of(text) != JSON_OBJECT)
        world_fail(s->world, "a visitor hears %.*s", SLICE_FMT(text));
}

static void on_stream(struct socket *s, struct slice text)
{
    (void)s, (void)text; /* events of the room, which the readers judge */
}

static void on_closed(struct socket *s, unsigned code)
{
    struct visitor *v = OWNER_OF(s, struct visitor, socket);
    (void)code;
    v->open = false;
    visitor_soon(v);
}

static const struct socket_handler handler = {.answered = on_answered,
                                              .opened = on_opened,
                                              .frame = on_frame,
                                              .stream = on_stream,
                                              .closed = on_closed};

/* ---- asking ---- */

static void fill(struct visitor *v, const char *text, char *out, size_t size)
{
    const char *key = v->world->truth.keys[choose(v, v->world->dice.keys)].name;
    size_t n = 0;
    for (; *text && n + 32 < size; text++) {
        if (text[0] == '%' && text[1] == 's') {
            n += (size_t)snprintf(out + n, size - n, "%s", key);
            text++;
        } else {
            out[n++] = *text;
            text += text[0] == '%' && text[1] == '%';
        }
    }
    out[n] = '\0';
}

static void ask(struct visitor *v, struct process *gateway)
{
    const struct ask *a = &asks[choose(v, ASKS)];
    char path[96], query[128];
    fill(v, a->path, path, sizeof path);
    fill(v, a->query, query, sizeof query);
    struct http_request request = request_make(a->method, path, query);
    if (a->header)
        request_header(&request, a->header, a->value);
    request.upgrade = a->method == HTTP_M_GET && choose(v, 4) == 0;
    v->open = true;
    v->asked = a;
    v->until_ns = v->world->now_ns + STREAMS_NS;
    (void)socket_request(&v->socket, gateway, &request);
}

static void talk(struct visitor *v, struct process *gateway)
{
    if (v->open) {
        socket_say(&v->socket, frames[choose(v, FRAMES)]);
        visitor_soon(v);
        return;
    }
    struct http_request request = request_make(HTTP_M_GET, "/stoa", "");
    request_header(&request, "Sec-WebSocket-Protocol", "stoa.v1");
    request.upgrade = true;
    v->open = true;
    (void)socket_request(&v->socket, gateway, &request);
}

static void visitor_act(struct event *e)
{
    struct visitor *v = OWNER_OF(e, struct visitor, act);
    struct process *gateway = gateway_pick(v->world);
    bool staying = v->open && (v->socket.streaming || v->socket.opened);
    if (staying && (!v->world->storm || (!v->talks && v->world->now_ns >= v->until_ns))) {
        socket_leave(&v->socket);
        v->open = false;
    }
    if (!v->world->storm)
        return;
    if (!gateway || (v->open && !staying))
        visitor_soon(v);
    else if (v->talks)
        talk(v, gateway);
    else if (v->open)
        visitor_soon(v);
    else
        ask(v, gateway);
}

void visitors_add(struct world *w)
{
    if (w->seed % SEEDS_WITH != SEEDS_WITH - 1)
        return;
    for (unsigned i = 0; i < VISITORS_MAX; i++) {
        struct visitor *v = &w->visitors[i];
        v->act.fire = visitor_act;
        v->world = v->socket.world = w;
        v->socket.handler = &handler;
        v->socket.lag_ns = 2 * MS;
        v->talks = i == 0;
        rng_seed(&v->rng, w->seed ^ (UINT64_C(0x76697369746f7273) + i));
        visitor_soon(v);
    }
}

/* Nobody who asked is still waiting. */
void visitors_check(struct world *w)
{
    for (unsigned i = 0; i < VISITORS_MAX; i++) {
        const struct visitor *v = &w->visitors[i];
        if (v->open && !v->socket.streaming && !v->socket.opened && v->asked)
            world_fail(w, "a visitor waits for ever for %s?%s", v->asked->path, v->asked->query);
    }
}

void visitors_free(struct world *w)
{
    for (unsigned i = 0; i < VISITORS_MAX; i++)
        if (w->visitors[i].world)
            socket_free(&w->visitors[i].socket);
}
