/* CORE. Clients' connections to gateways, as the io program carries them: requests and text frames
 * in, answers, event streams and frames out. A client reads a drawn time after something came;
 * until then bytes wait, and count as queued beyond what the kernel's buffers take. What a client
 * has not read when its gateway dies may be lost. */
#include "sim.h"

/* ---- requests ---- */

struct http_request request_make(enum http_method method, const char *path, const char *query)
{
    struct http_request r = {
        .method = method, .path = slice_text(path), .query = slice_text(query)};
    request_header(&r, "Host", "localhost");
    return r;
}

void request_header(struct http_request *r, const char *name, const char *value)
{
    r->headers[r->n_headers++] = (struct http_header){slice_text(name), slice_text(value)};
}

struct process *gateway_pick(struct world *w)
{
    unsigned n = w->dice.count[GATEWAY], first = (unsigned)draw(w, n);
    for (unsigned i = 0; i < n; i++) {
        struct process *p = world_process(w, GATEWAY, (first + i) % n);
        if (process_runs(p))
            return p;
    }
    return NULL;
}

/* ---- the client's side ---- */

static void socket_wake(struct socket *s)
{
    if (!s->stalled && !heap_has(&s->read.node))
        event_set(s->world, &s->read, 1000 + (int64_t)draw(s->world, (uint64_t)s->lag_ns));
}

/* The gateway's core hears that the number is dead, now or when it goes on. */
static void tell_closed(struct socket *s)
{
    struct process *p = s->gateway;
    if (!p)
        return;
    s->gateway = NULL;
    if (p->paused) {
        *VEC_PUSH(&s->world->orphans, struct orphan) = (struct orphan){p, s->id};
        return;
    }
    gateway_closed(p->gateway, s->id, s->ended ? s->code : 1006, process_now(p));
    process_soon(p);
    process_settle(p);
}

static void socket_drop(struct socket *s)
{
    tell_closed(s);
    list_remove(&s->node);
    event_stop(s->world, &s->read);
    strbuf_reset(&s->in);
    strbuf_reset(&s->out);
    s->id = 0;
}

void socket_leave(struct socket *s)
{
    if (s->id != 0)
        socket_drop(s);
}

static void read_frames(struct socket *s)
{
    struct strbuf in = s->in;
    uint64_t id = s->id;
    s->in = (struct strbuf){0};
    for (size_t at = 0; in.size - at >= 2 && s->id == id;) {
        const uint8_t *head = in.data + at;
        size_t size = head[1];
        size_t header = size == 126 ? 4 : size == 127 ? 10 : 2;
        if (header > 2)
            size = 0;
        for (size_t i = 2; i < header; i++)
            size = size << 8 | head[i];
        if ((head[0] & 15) == 1 || (head[0] & 15) == 2)
            s->handler->frame(s, slice_of(head + header, size));
        at += header + size;
    }
    strbuf_free(&in);
}

static void read_stream(struct socket *s)
{
    struct strbuf in = s->in;
    uint64_t id = s->id;
    s->in = (struct strbuf){0};
    size_t at = 0;
    while (s->id == id && at < in.size) {
        const uint8_t *end = memmem(in.data + at, in.size - at, "\n\n", 2);
        if (!end)
            break;
        s->handler->stream(s, slice_of(in.data + at, (size_t)(end + 1 - (in.data + at))));
        at = (size_t)(end + 2 - in.data);
    }
    strbuf_free(&in);
}

static void tell_drained(struct socket *s)
{
    struct process *p = s->gateway;
    if (p && p->paused)
        return; /* sockets_resumed tells it */
    s->counted = 0;
    if (!p)
        return;
    gateway_drained(p->gateway, s->id, process_now(p));
    process_soon(p);
    process_settle(p);
}

static void read_answer(struct socket *s)
{
    struct strbuf body = s->in;
    unsigned status = s->status;
    s->in = (struct strbuf){0};
    socket_drop(s);
    s->handler->answered(s, status, strbuf_slice(&body));
    strbuf_free(&body);
}

static void socket_read(struct event *e)
{
    struct socket *s = OWNER_OF(e, struct socket, read);
    uint64_t id = s->id;
    if (id == 0 || s->stalled)
        return;
    if (s->answered) {
        read_answer(s);
        return;
    }
    if ((s->established || s->streaming) && !s->opened) {
        s->opened = true;
        s->handler->opened(s);
    }
    if (s->id == id && s->in.size > 0) {
        if (s->streaming)
            read_stream(s);
        else
            read_frames(s);
    }
    if (s->id == id && s->counted > 0)
        tell_drained(s);
    if (s->id != id || !s->ended)
        return;
    unsigned code = s->code;
    socket_drop(s);
    s->handler->closed(s, code);
}

void socket_unstall(struct socket *s)
{
    s->stalled = false;
    if (s->id != 0)
        socket_wake(s);
}

static void said(struct socket *s, const char *text)
{
    struct process *p = s->gateway;
    TRACE(s->world, "%s <- client %llu: %s", p->name, (unsigned long long)s->id, text);
    gateway_frame(p->gateway, s->id, slice_text(text), true, process_now(p));
}

void socket_say(struct socket *s, const char *text)
{
    struct process *p = s->gateway;
    if (!p || s->ended)
        return;
    if (p->paused) {
        strbuf_put(&s->out, text, strlen(text) + 1);
        return;
    }
    said(s, text);
    process_soon(p);
    process_settle(p);
}

void socket_send(struct socket *s, struct slice bytes, bool text)
{
    struct process *p = s->gateway;
    if (!p || s->ended || p->paused)
        return;
    gateway_frame(p->gateway, s->id, bytes, text, process_now(p));
    process_soon(p);
    process_settle(p);
}

bool socket_request(struct socket *s, struct process *gateway, const struct http_request *request)
{
    struct world *w = s->world;
    STOA_ASSERT(s->id == 0);
    if (!process_runs(gateway))
        return false;
    s->id = ++w->last_socket;
    s->gateway = gateway;
    s->read.fire = socket_read;
    s->upgraded = s->established = s->opened = s->streaming = s->answered = s->ended = false;
    s->stalled = false;
    s->counted = 0;
    s->status = s->code = 0;
    list_init(&s->node);
    list_push_back(&w->sockets, &s->node);
    if (request) {
        TRACE(w, "%s <- client %llu: %.*s?%.*s", gateway->name, (unsigned long long)s->id,
              SLICE_FMT(request->path), SLICE_FMT(request->query));
        gateway_request(gateway->gateway, s->id, request, process_now(gateway));
    } else {
        gateway_refuse(gateway->gateway, s->id, 400, "BadRequest", "The request is malformed.");
    }
    process_soon(gateway);
    process_settle(gateway);
    return true;
}

void socket_free(struct socket *s)
{
    strbuf_free(&s->in);
    strbuf_free(&s->out);
}

/* ---- the gateway's side ---- */

static struct socket *socket_find(struct process *p, uint64_t id)
{
    LIST_EACH(cursor, after, &p->world->sockets)
    {
        struct socket *s = LIST_ENTRY(cursor, struct socket, node);
        if (s->id == id)
            return s->gateway == p ? s : NULL;
    }
    return NULL;
}

static void port_respond(void *ctx, uint64_t id, const struct http_response *r)
{
    struct process *p = ctx;
    struct socket *s = socket_find(p, id);
    if (net_dead_process_sends(p) || !s)
        return;
    TRACE(p->world, "%s -> client %llu: %u %.*s", p->name, (unsigned long long)id, r->status,
          SLICE_FMT(r->body));
    world_mix(p->world, &r->status, sizeof r->status);
    s->answered = true;
    s->status = r->status;
    strbuf_put_slice(&s->in, r->body);
    socket_wake(s);
}

static void port_stream(void *ctx, uint64_t id, const struct http_response *head)
{
    struct process *p = ctx;
    struct socket *s = socket_find(p, id);
    (void)head;
    if (net_dead_process_sends(p) || !s)
        return;
    s->streaming = true;
    socket_wake(s);
}

static void port_upgrade(void *ctx, uint64_t id, const char *subprotocol)
{
    struct process *p = ctx;
    struct socket *s = socket_find(p, id);
    (void)subprotocol;
    if (net_dead_process_sends(p) || !s)
        return;
    s->upgraded = true;
    process_soon(p);
}

static size_t port_write(void *ctx, uint64_t id, struct buf *bytes, size_t offset, size_t size)
{
    struct process *p = ctx;
    struct world *w = p->world;
    struct socket *s = socket_find(p, id);
    if (net_dead_process_sends(p) || !s)
        return 0;
    world_mix(w, bytes->data + offset, size);
    strbuf_put(&s->in, bytes->data + offset, size);
    socket_wake(s);
    if (s->in.size > w->dice.kernel_bytes)
        s->counted = (s->in.size - w->dice.kernel_bytes) * w->dice.queue_factor;
    return s->counted;
}

static void port_close(void *ctx, uint64_t id, unsigned code, struct slice reason)
{
    struct process *p = ctx;
    struct socket *s = socket_find(p, id);
    (void)reason;
    if (net_dead_process_sends(p) || !s)
        return;
    TRACE(p->world, "%s -> client %llu: close %u %.*s", p->name, (unsigned long long)id, code,
          SLICE_FMT(reason));
    s->ended = true;
    s->code = code ? code : 1006;
    if (s->stalled) /* the program drops who does not take a Close frame */
        s->stalled = false;
    socket_wake(s);
}

struct gateway_ports socket_ports(struct process *p)
{
    return (struct gateway_ports){.ctx = p,
                                  .respond = port_respond,
                                  .stream = port_stream,
                                  .upgrade = port_upgrade,
                                  .write = port_write,
                                  .close = port_close};
}

void sockets_establish(struct process *gateway)
{
    LIST_EACH(cursor, after, &gateway->world->sockets)
    {
        struct socket *s = LIST_ENTRY(cursor, struct socket, node);
        if (s->gateway != gateway || !s->upgraded || s->established || s->ended)
            continue;
        s->established = true;
        gateway_established(gateway->gateway, s->id, process_now(gateway));
        socket_wake(s);
    }
}

static void orphans_tell(struct process *gateway, bool alive)
{
    struct vec *orphans = &gateway->world->orphans;
    size_t kept = 0;
    for (size_t i = 0; i < orphans->count; i++) {
        struct orphan o = VEC_AT(orphans, struct orphan)[i];
        if (o.gateway != gateway)
            VEC_AT(orphans, struct orphan)[kept++] = o;
        else if (alive)
            gateway_closed(gateway->gateway, o.id, 1006, process_now(gateway));
    }
    orphans->count = kept;
}

void sockets_resumed(struct process *gateway)
{
    orphans_tell(gateway, true);
    LIST_EACH(cursor, after, &gateway->world->sockets)
    {
        struct socket *s = LIST_ENTRY(cursor, struct socket, node);
        if (s->gateway != gateway)
            continue;
        struct strbuf out = s->out;
        s->out = (struct strbuf){0};
        for (size_t at = 0; at < out.size && !s->ended; at += strlen((char *)out.data + at) + 1)
            said(s, (const char *)out.data + at);
        strbuf_free(&out);
        if (s->counted > 0 && s->in.size == 0) {
            s->counted = 0;
            gateway_drained(gateway->gateway, s->id, process_now(gateway));
        }
    }
    process_settle(gateway);
}

void sockets_down(struct process *gateway)
{
    struct world *w = gateway->world;
    orphans_tell(gateway, false);
    LIST_EACH(cursor, after, &w->sockets)
    {
        struct socket *s = LIST_ENTRY(cursor, struct socket, node);
        if (s->gateway != gateway)
            continue;
        s->gateway = NULL;
        s->counted = 0;
        strbuf_reset(&s->out);
        if (chance(w, 500) && !s->answered) { /* what the client has not read yet is lost */
            strbuf_reset(&s->in);
            s->stalled = false;
        }
        if (!s->ended && !s->answered)
            s->code = 1006;
        s->ended = true;
        socket_wake(s);
    }
}
