/* CORE. Visitors: requests to every route, sensible ones and hostile ones, and frames that no
 * dialect has, in the middle of the storm. Each is answered, or its connection ends; an answer has
 * a status of the contract, a refusal a tag, and nothing that a visitor asks changes what the
 * history tells: they publish to keys of their own, and nothing that is stored. Their choices come
 * from a generator of their own. asks.c has what they ask. */
#include "sim.h"

#include "common/json.h"

#define ACTS 150              /* of each, in a storm of any length */
#define STREAMS_NS (100 * MS) /* a visitor does not stay */
#define BURST_MAX 300         /* frames at once: more than a socket may have under way */

static uint64_t choose(struct visitor *v, uint64_t bound)
{
    return rng_below(&v->rng, bound);
}

static void visitor_soon(struct visitor *v)
{
    event_set(v->world, &v->act, (int64_t)choose(v, 2 * (uint64_t)v->world->dice.storm_ns / ACTS));
}

/* ---- what comes back ---- */

static void on_answered(struct socket *s, unsigned status, struct slice body)
{
    struct visitor *v = OWNER_OF(s, struct visitor, socket);
    v->open = false;
    if (status < 200 || status > 504 || (status >= 300 && status < 400))
        world_fail(v->world, "a visitor is answered %u", status);
    if (v->calls && status == 200)
        made_told(v->world, v->room, v->floor, body);
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
    bool v1 = OWNER_OF(s, struct visitor, socket)->talks;
    if (v1 && (!json_valid(text) || json_type_of(text) != JSON_OBJECT))
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

struct texts { /* of one request, alive until it is given to the gateway */
    struct strbuf path, query, body, values[ASK_HEADERS_MAX];
};

static void texts_free(struct texts *t)
{
    strbuf_free(&t->path);
    strbuf_free(&t->query);
    strbuf_free(&t->body);
    for (unsigned i = 0; i < ASK_HEADERS_MAX; i++)
        strbuf_free(&t->values[i]);
}

static struct slice filled(struct visitor *v, const char *text, struct strbuf *out)
{
    ask_fill(v->world, &v->rng, text, out);
    return strbuf_slice(out);
}

/* Where a request comes from is anything, now and then. */
static void odd_headers(struct visitor *v, struct http_request *r)
{
    bool has_origin = http_header_get(r, "Origin").data != NULL;
    if (!has_origin && choose(v, 4) == 0)
        request_header(r, "ORIGIN", odd_origins[choose(v, odd_origins_count)]);
    if (choose(v, 40) == 0)
        request_header(r, "origin", odd_origins[choose(v, odd_origins_count)]);
    if (choose(v, 12) == 0)
        r->headers[0].value = slice_text(odd_hosts[choose(v, odd_hosts_count)]);
    if (choose(v, 60) == 0)
        r->headers[0].name = slice_text("X-Host");
}

static void ask(struct visitor *v, struct process *gateway)
{
    const struct ask *a = &asks[choose(v, asks_count)];
    struct texts t = {0};
    struct http_request r = request_make(a->method, "", "");
    r.path = filled(v, a->path, &t.path);
    r.query = filled(v, a->query, &t.query);
    r.body = filled(v, a->body, &t.body);
    for (unsigned i = 0; i < ASK_HEADERS_MAX && a->headers[i].name; i++) {
        request_header(&r, a->headers[i].name, "");
        r.headers[r.n_headers - 1].value = filled(v, a->headers[i].value, &t.values[i]);
    }
    odd_headers(v, &r);
    if (choose(v, 12) == 0)
        r.method = (enum http_method)choose(v, HTTP_M_OTHER + 1);
    if (slice_is(r.path, "/publish") && !http_header_get(&r, "Stoa-Ephemeral").data)
        request_header(&r, "Stoa-Ephemeral", "1");
    r.upgrade = r.method == HTTP_M_GET && choose(v, 3) == 0;
    v->open = true;
    v->asked = a;
    v->until_ns = v->world->now_ns + STREAMS_NS;
    (void)socket_request(&v->socket, gateway, choose(v, 60) == 0 ? NULL : &r);
    texts_free(&t);
}

static void call(struct visitor *v, struct process *gateway)
{
    char path[32];
    v->room = (unsigned)choose(v, COUNTERS);
    v->floor = v->world->highest[v->room];
    snprintf(path, sizeof path, "/api/made/c%u/count", v->room);
    struct http_request r = request_make(HTTP_M_POST, path, "");
    v->open = true;
    (void)socket_request(&v->socket, gateway, &r);
}

static void talk_once(struct visitor *v)
{
    struct strbuf text = {0};
    const char *frame = frames[choose(v, frames_count)];
    bool binary = choose(v, 60) == 0;
    ask_fill(v->world, &v->rng, frame, &text);
    if (binary)
        socket_send(&v->socket, strbuf_slice(&text), false);
    else
        socket_say(&v->socket, strbuf_cstr(&text));
    strbuf_free(&text);
}

static void talk(struct visitor *v, struct process *gateway)
{
    if (!v->open) {
        struct http_request request = request_make(HTTP_M_GET, "/stoa", "");
        request_header(&request, "Sec-WebSocket-Protocol", "stoa.v1");
        request.upgrade = true;
        v->open = true;
        (void)socket_request(&v->socket, gateway, &request);
        return;
    }
    if (choose(v, 30) == 0) /* reads nothing, and talks on */
        v->socket.stalled = !v->socket.stalled;
    if (choose(v, 80) == 0) {
        socket_leave(&v->socket);
        v->open = false;
    } else if (choose(v, 500) == 0) {
        for (unsigned i = 0; i < BURST_MAX && v->open; i++)
            socket_say(&v->socket, "{\"pub\":\"guest0\",\"data\":1,\"ephemeral\":true,\"ref\":1}");
    } else {
        talk_once(v);
    }
    visitor_soon(v);
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
    else if (v->calls && !v->open)
        call(v, gateway);
    else if (!v->open)
        ask(v, gateway);
    else {
        if (v->socket.established && choose(v, 2))
            socket_say(&v->socket, choose(v, 4) ? MADE_TEXT "6}" : "ping");
        if (choose(v, 4) == 0) {
            v->socket.stalled = true;
            event_stop(v->world, &v->socket.read);
        }
        visitor_soon(v);
    }
}

void visitors_add(struct world *w)
{
    if (!w->guests)
        return;
    for (unsigned i = 0; i < VISITORS_MAX; i++) {
        struct visitor *v = &w->visitors[i];
        v->act.fire = visitor_act;
        v->world = v->socket.world = w;
        v->socket.handler = &handler;
        v->socket.lag_ns = 2 * MS;
        v->talks = i == 0;
        v->calls = i >= VISITORS_MAX - 2;
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
