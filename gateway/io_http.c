/* SHELL. HTTP connections: reads requests for the core, writes its answers and event streams.
 * Answers are queued by the ports and leave together with the next work, so that pipelined requests
 * share a write. */
#include "gateway/io_client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define WRITE_PIECES_MAX 64

struct http_conn {
    ev_io watcher; /* .data is the program's struct io */
    uint64_t client;
    struct http_reader *reader; /* NULL while nothing of a request is here */
    struct in6_addr peer;       /* of the TCP connection */
    struct in6_addr address;    /* behind trusted proxies */
    char ip[INET6_ADDRSTRLEN];
    bool trusted; /* the peer is a proxy: the address is known only with a request */
    bool crowded; /* let in only to be told that limits.sockets is reached */
    bool limited; /* over a limit of its address */
    bool upgrade; /* the request asks for a WebSocket */
    bool head;    /* of a HEAD request */
    bool keep;    /* the connection goes on after the answer */
    bool refused; /* the rest of what comes is thrown away */
    bool ended;   /* the client sends nothing more */
    bool resume;  /* an answer was given: look for the next request */
    uint8_t minor;
    char key[24];
    const char *subprotocol; /* constant of io_lws.c's list, or NULL */
    const char *extra;       /* headers of a refusal; constant */
};

static void on_io(struct ev_loop *ev, ev_io *watcher, int events);

static void watch(struct io *io, struct client *c, int events)
{
    ev_io *w = &c->http->watcher;
    if (ev_is_active(w) && (w->events & (EV_READ | EV_WRITE)) == events)
        return;
    ev_io_stop(io->ev, w);
    ev_io_set(w, w->fd, events);
    if (events)
        ev_io_start(io->ev, w);
}

/* Reads unless enough is here already, writes while something is queued. */
static void watch_what_is_due(struct io *io, struct client *c)
{
    struct http_conn *h = c->http;
    bool full = h->reader && c->state == CLIENT_WAITING &&
                http_reader_rest(h->reader).size >= BACKLOG_MAX_BYTES;
    bool reads = !h->ended && !full && c->state != CLIENT_ADOPTING;
    watch(io, c, (reads ? EV_READ : 0) | (c->first ? EV_WRITE : 0));
}

static struct http_reader *reader_take(struct io *io)
{
    return io->n_readers ? io->readers[--io->n_readers] : http_reader_create();
}

static void reader_give(struct io *io, struct http_conn *h)
{
    if (!h->reader)
        return;
    if (io->n_readers < READERS_KEPT) {
        http_reader_reset(h->reader);
        io->readers[io->n_readers++] = h->reader;
        h->reader = NULL;
    } else {
        http_reader_destroy(&h->reader);
    }
}

void http_start(struct io *io, int fd, const struct in6_addr *address, bool crowded)
{
    struct client *c = client_create(io);
    struct http_conn *h = mem_zalloc(sizeof *h);
    c->http = h;
    h->client = client_id(c);
    h->peer = h->address = *address;
    h->crowded = crowded;
    h->trusted = ips_trusts(io->ips, address);
    if (!h->trusted && !crowded) {
        c->ip = ip_enter(io->ips, address, &io->limits, io_now(io).mono_ns);
        h->limited = c->ip == NULL;
    }
    ip_text(address, h->ip);
    ev_io_init(&h->watcher, on_io, fd, EV_READ);
    h->watcher.data = io;
    ev_io_start(io->ev, &h->watcher);
    client_timer(io, c, HTTP_IDLE_TIMEOUT_MS);
}

void http_free(struct io *io, struct client *c)
{
    struct http_conn *h = c->http;
    if (!h)
        return;
    ev_io_stop(io->ev, &h->watcher);
    if (h->watcher.fd >= 0)
        close(h->watcher.fd);
    reader_give(io, h);
    mem_free(h);
    c->http = NULL;
}

/* --- writing --- */

/* Sends what is queued. False: the connection is broken. */
static bool flush(struct io *io, struct client *c)
{
    while (c->first) {
        struct iovec iov[WRITE_PIECES_MAX];
        struct msghdr message = {.msg_iov = iov};
        size_t offered = 0;
        for (struct piece *p = c->first; p && message.msg_iovlen < WRITE_PIECES_MAX; p = p->next) {
            iov[message.msg_iovlen++] = (struct iovec){unconst(p->buf->data + p->offset), p->size};
            offered += p->size;
        }
        ssize_t sent = sendmsg(c->http->watcher.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            return errno == EAGAIN || errno == EINTR;
        client_shift(io, c, (size_t)sent);
        if ((size_t)sent < offered)
            return true;
    }
    return true;
}

/* Closing with unread bytes would reset the connection and take the answer with it. */
static void finish(struct io *io, struct client *c)
{
    struct http_conn *h = c->http;
    if (h->ended || !h->refused) {
        client_end(io, c, 1006);
        return;
    }
    shutdown(h->watcher.fd, SHUT_WR);
    reader_give(io, h);
    c->state = CLIENT_LINGERING;
    client_timer(io, c, LINGER_MS);
    watch(io, c, EV_READ);
}

static void queue_scratch(struct io *io, struct client *c)
{
    struct buf *bytes = buf_copy_slice(strbuf_slice(&io->scratch));
    client_push(io, c, bytes, 0, bytes->size);
    buf_unref(bytes);
    if (io->scratch.capacity > PACKET_MAX_BYTES)
        strbuf_free(&io->scratch);
}

void http_respond(struct io *io, struct client *c, const struct http_response *response)
{
    struct http_conn *h = c->http;
    struct strbuf headers = {0};
    struct http_response full = *response;
    if (h->extra) {
        strbuf_put_slice(&headers, response->headers);
        strbuf_put_text(&headers, h->extra);
        full.headers = strbuf_slice(&headers);
    }
    bool keep = h->keep && !response->close && !io->draining && !h->ended && !h->refused;
    struct http_answer how = {h->head, keep, h->minor, io_now(io).wall_ms};
    strbuf_reset(&io->scratch);
    http_answer_write(&io->scratch, &full, &how);
    strbuf_free(&headers);
    queue_scratch(io, c);
    c->state = CLIENT_READING;
    c->closing = !keep;
    h->refused |= !keep && h->reader && http_reader_rest(h->reader).size > 0;
    h->extra = NULL;
    h->resume = true;
    client_timer(io, c, HTTP_IDLE_TIMEOUT_MS);
    client_work(io, c);
}

void http_stream(struct io *io, struct client *c, const struct http_response *head)
{
    struct http_answer how = {.minor = c->http->minor, .wall_ms = io_now(io).wall_ms};
    strbuf_reset(&io->scratch);
    http_stream_write(&io->scratch, head, &how);
    queue_scratch(io, c);
    c->state = CLIENT_STREAMING;
    heap_remove(&io->timers, &c->timer);
    client_work(io, c);
}

size_t http_write(struct io *io, struct client *c, struct buf *bytes, size_t offset, size_t size)
{
    if (!c->first) {
        ssize_t sent =
            send(c->http->watcher.fd, bytes->data + offset, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            client_doom(io, c);
            return 0;
        }
        if (sent > 0) {
            offset += (size_t)sent;
            size -= (size_t)sent;
        }
        if (size == 0)
            return 0;
    }
    client_push(io, c, bytes, offset, size);
    c->owes_drained = true;
    if (list_empty(&c->work))
        watch_what_is_due(io, c);
    return c->queued;
}

void http_close(struct io *io, struct client *c)
{
    c->closing = true;
    client_timer(io, c, CLOSE_TIMEOUT_MS);
    client_work(io, c);
}

/* --- reading --- */

static void refusing(struct io *io, struct client *c)
{
    c->state = CLIENT_WAITING;
    c->http->refused = true;
    io->entered = true;
}

static void refuse(struct io *io, struct client *c, unsigned status, const char *tag,
                   const char *message)
{
    refusing(io, c);
    gateway_refuse(io->gateway, client_id(c), status, tag, message);
}

static void refuse_unread(struct io *io, struct client *c, const struct http_refusal *why)
{
    struct http_conn *h = c->http;
    h->head = http_reader_is_head(h->reader);
    h->minor = (uint8_t)http_reader_minor(h->reader);
    h->extra = why->headers[0] ? why->headers : NULL;
    refusing(io, c);
    (why->for_token ? gateway_refuse_token : gateway_refuse)(io->gateway, client_id(c), why->status,
                                                             why->tag, why->message);
}

/* Whose connection this is, by the request when a trusted proxy speaks. False: over a limit. */
static bool admit(struct io *io, struct client *c, struct http_request *request)
{
    struct http_conn *h = c->http;
    if (h->trusted) {
        struct in6_addr address = h->peer;
        ips_forwarded(io->ips, request, &address);
        if (!c->ip || !ip_is(c->ip, &address)) {
            ip_leave(io->ips, c->ip);
            c->ip = ip_enter(io->ips, &address, &io->limits, io_now(io).mono_ns);
            h->limited = c->ip == NULL;
        }
        h->address = address;
        ip_text(&address, h->ip);
    }
    request->peer_ip = slice_text(h->ip);
    return !h->limited;
}

static void begin_request(struct io *io, struct client *c)
{
    struct http_conn *h = c->http;
    struct http_request request;
    http_reader_request(h->reader, &request);
    h->keep = http_reader_keep_alive(h->reader);
    h->head = http_reader_is_head(h->reader);
    h->minor = (uint8_t)http_reader_minor(h->reader);
    if (!admit(io, c, &request)) {
        refuse(io, c, 429, "RateLimited", "Too many connections from this address; wait.");
    } else if (h->crowded) {
        refuse(io, c, 503, "Busy", "This gateway has as many connections as it may have.");
    } else {
        h->upgrade = request.upgrade;
        if (request.upgrade)
            memcpy(h->key, http_header_get(&request, "sec-websocket-key").data, sizeof h->key);
        c->state = CLIENT_WAITING;
        c->known = true;
        heap_remove(&io->timers, &c->timer);
        io->entered = true;
        gateway_request(io->gateway, client_id(c), &request, io_now(io));
    }
    http_reader_done(h->reader);
}

/* Timers of a connection that is being read: a head has its time from the first byte, a body must
 * go on. */
static void time_reading(struct io *io, struct client *c, bool began)
{
    struct http_conn *h = c->http;
    if (http_reader_idle(h->reader)) {
        reader_give(io, h);
        client_timer(io, c, HTTP_IDLE_TIMEOUT_MS);
    } else if (http_reader_in_body(h->reader)) {
        client_timer(io, c, HTTP_IDLE_TIMEOUT_MS);
    } else if (began) {
        client_timer(io, c, HTTP_HEAD_TIMEOUT_MS);
    }
}

/* Takes requests from what was read until one has to wait for its answer. */
static void advance(struct io *io, struct client *c, bool began)
{
    struct http_conn *h = c->http;
    while (c->state == CLIENT_READING && !c->closing && !c->doomed && h->reader) {
        enum http_step step = http_reader_step(h->reader, io->limits.body_bytes);
        if (step == HTTP_STEP_REQUEST) {
            begin_request(io, c);
            began = true;
        } else if (step == HTTP_STEP_REFUSED) {
            refuse_unread(io, c, http_reader_refusal(h->reader));
        } else if (step == HTTP_STEP_CONTINUE) {
            strbuf_reset(&io->scratch);
            strbuf_put_text(&io->scratch, "HTTP/1.1 100 Continue\r\n\r\n");
            queue_scratch(io, c);
        } else {
            time_reading(io, c, began);
            return;
        }
    }
}

/* Flushes, and does what waits for an empty queue. */
void http_work(struct io *io, struct client *c)
{
    bool resume = c->http->resume;
    c->http->resume = false;
    if (resume && c->state == CLIENT_READING && !c->closing && c->http->reader)
        advance(io, c, true);
    if (c->doomed || !flush(io, c)) {
        client_end(io, c, 1006);
        return;
    }
    if (c->first) {
        watch_what_is_due(io, c);
        return;
    }
    if (c->state == CLIENT_ADOPTING)
        client_work(io, c);
    else if (c->closing) {
        finish(io, c);
        return;
    } else if (c->state == CLIENT_READING && c->http->ended) {
        client_end(io, c, 1006);
        return;
    }
    watch_what_is_due(io, c);
    client_tell_drained(io, c);
}

/* The client sends nothing more. Requests that are here are still answered. */
static void on_end(struct io *io, struct client *c)
{
    struct http_conn *h = c->http;
    bool answer_due = c->state == CLIENT_WAITING && !h->upgrade;
    if (!answer_due && !(c->closing && c->first)) {
        client_end(io, c, 1006);
        return;
    }
    h->ended = true;
    watch_what_is_due(io, c);
}

static void on_readable(struct io *io, struct client *c)
{
    struct http_conn *h = c->http;
    ssize_t got = recv(h->watcher.fd, io->chunk, READ_CHUNK_BYTES, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got < 0) {
        client_end(io, c, 1006);
        return;
    }
    if (got == 0) {
        on_end(io, c);
        return;
    }
    if (c->state == CLIENT_LINGERING || c->state == CLIENT_STREAMING || c->closing)
        return; /* nothing that comes now has a meaning */
    bool began = !h->reader;
    if (began)
        h->reader = reader_take(io);
    http_reader_put(h->reader, slice_of(io->chunk, (size_t)got));
    if (c->state == CLIENT_READING)
        advance(io, c, began);
    http_work(io, c);
}

static void on_io(struct ev_loop *ev, ev_io *watcher, int events)
{
    (void)ev;
    struct io *io = watcher->data;
    struct http_conn *h =
        (struct http_conn *)(void *)((char *)watcher - offsetof(struct http_conn, watcher));
    uint64_t id = h->client;
    struct client *c = client_find(io, id);
    STOA_ASSERT(c && c->http == h);
    if (events & EV_WRITE)
        http_work(io, c);
    c = client_find(io, id); /* that may have been its end */
    if (c && c->http && (events & EV_READ) && c->state != CLIENT_ADOPTING)
        on_readable(io, c);
}

/* --- time, end, upgrade --- */

void http_expired(struct io *io, struct client *c)
{
    struct http_conn *h = c->http;
    if (c->state != CLIENT_READING || c->closing || c->first || !h->reader) {
        client_end(io, c, 1006);
        return;
    }
    h->minor = (uint8_t)http_reader_minor(h->reader);
    refuse(io, c, 408, "BadRequest", "The request did not arrive in time.");
}

void http_drain(struct io *io, struct client *c)
{
    if (c->state == CLIENT_READING && !c->http->reader && !c->first)
        client_doom(io, c);
}

void http_upgrade(struct io *io, struct client *c, const char *subprotocol)
{
    STOA_ASSERT(c->http->upgrade);
    c->http->subprotocol = subprotocol;
    c->state = CLIENT_ADOPTING;
    client_timer(io, c, UPGRADE_TIMEOUT_MS);
    watch_what_is_due(io, c);
    client_work(io, c);
}

int http_hand_on(struct io *io, struct client *c, struct strbuf *bytes)
{
    struct http_conn *h = c->http;
    http_upgrade_write(bytes, slice_of(h->key, sizeof h->key), h->subprotocol);
    if (h->reader)
        strbuf_put_slice(bytes, http_reader_rest(h->reader));
    int fd = h->watcher.fd;
    ev_io_stop(io->ev, &h->watcher);
    h->watcher.fd = -1;
    http_free(io, c);
    return fd;
}
