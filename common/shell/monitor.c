/* SHELL. The monitor listener: one request a connection, answered whole, then closed.
 *
 *   READ    bytes until the blank line that ends the head (4 KiB at most)
 *   WRITE   the answer, as fast as the peer takes it
 *   LINGER  our side is shut; what the peer still sends is read and dropped, because closing over
 *           unread bytes would reset the connection under the answer
 *
 * Five seconds after it was accepted a connection is closed, whatever its state. */
#include "common/shell/monitor.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/mem.h"

#define MONITOR_CONNECTIONS_MAX 16
#define MONITOR_HEAD_MAX_BYTES (4 * KIB)
#define MONITOR_TIMEOUT_S 5.
#define MONITOR_BACKLOG 16
#define MONITOR_PAUSE_S 1. /* out of descriptors */

enum state { STATE_FREE, STATE_READ, STATE_WRITE, STATE_LINGER };

struct connection {
    struct monitor *monitor;
    enum state state;
    int fd;
    ev_io io;
    ev_timer timeout;
    size_t head_size;
    char head[MONITOR_HEAD_MAX_BYTES];
    struct strbuf answer;
    size_t written;
};

struct monitor {
    struct loop *loop;
    struct monitor_handler handler;
    struct metrics *metrics; /* borrowed */
    int fd;
    ev_io io;
    ev_timer pause;
    struct connection connections[MONITOR_CONNECTIONS_MAX];
};

static void connection_close(struct connection *c)
{
    struct ev_loop *ev = loop_ev(c->monitor->loop);
    ev_io_stop(ev, &c->io);
    ev_timer_stop(ev, &c->timeout);
    (void)close(c->fd);
    strbuf_free(&c->answer);
    c->state = STATE_FREE;
}

/* ---- answers ---- */

static void answer_put(struct connection *c, const char *status, const char *type,
                       const struct strbuf *body, bool head_only)
{
    strbuf_printf(&c->answer,
                  "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                  "Cache-Control: no-store\r\n%sConnection: close\r\n\r\n",
                  status, type, body->size,
                  strncmp(status, "405", 3) == 0 ? "Allow: GET, HEAD\r\n" : "");
    if (!head_only)
        strbuf_put(&c->answer, body->data, body->size);
}

static void answer_text(struct connection *c, const char *status, const char *text, bool head_only)
{
    struct strbuf body = {0};
    strbuf_printf(&body, "%s\n", text);
    answer_put(c, status, "text/plain; charset=utf-8", &body, head_only);
    strbuf_free(&body);
}

static void answer_ready(struct connection *c, bool head_only)
{
    const struct monitor_handler *h = &c->monitor->handler;
    struct strbuf why = {0};
    if (h->ready(h->ctx, &why))
        answer_text(c, "200 OK", "ready", head_only);
    else
        answer_text(c, "503 Service Unavailable", why.size ? strbuf_cstr(&why) : "not ready",
                    head_only);
    strbuf_free(&why);
}

static void answer_metrics(struct connection *c, bool head_only)
{
    const struct monitor_handler *h = &c->monitor->handler;
    struct strbuf body = {0};
    if (h->refresh)
        h->refresh(h->ctx);
    metrics_render(c->monitor->metrics, &body);
    answer_put(c, "200 OK", "text/plain; version=0.0.4; charset=utf-8", &body, head_only);
    strbuf_free(&body);
}

/* `line` is the request line without its end: METHOD SP target SP HTTP/1.x */
static void answer_request(struct connection *c, char *line)
{
    char *target = strchr(line, ' ');
    char *version = target ? strchr(target + 1, ' ') : NULL;
    if (!version || strncmp(version, " HTTP/1.", 8) != 0) {
        answer_text(c, "400 Bad Request", "not an HTTP/1 request", false);
        return;
    }
    *target++ = *version = '\0';
    target[strcspn(target, "?")] = '\0';
    bool head_only = strcmp(line, "HEAD") == 0;
    if (!head_only && strcmp(line, "GET") != 0)
        answer_text(c, "405 Method Not Allowed", "this listener only reads: GET or HEAD", false);
    else if (strcmp(target, "/healthz") == 0)
        answer_text(c, "200 OK", "ok", head_only);
    else if (strcmp(target, "/readyz") == 0)
        answer_ready(c, head_only);
    else if (strcmp(target, "/metrics") == 0)
        answer_metrics(c, head_only);
    else
        answer_text(c, "404 Not Found", "here are /healthz, /readyz and /metrics", head_only);
}

/* ---- connections ---- */

static void connection_watch(struct connection *c, int events)
{
    struct ev_loop *ev = loop_ev(c->monitor->loop);
    ev_io_stop(ev, &c->io);
    ev_io_set(&c->io, c->fd, events);
    ev_io_start(ev, &c->io);
}

static void connection_write(struct connection *c)
{
    while (c->written < c->answer.size) {
        ssize_t n = send(c->fd, c->answer.data + c->written, c->answer.size - c->written,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n < 0) {
            connection_close(c);
            return;
        }
        c->written += (size_t)n;
    }
    (void)shutdown(c->fd, SHUT_WR);
    c->state = STATE_LINGER;
    connection_watch(c, EV_READ);
}

static void connection_answer(struct connection *c)
{
    c->state = STATE_WRITE;
    connection_watch(c, EV_WRITE);
    connection_write(c);
}

/* Answers once the head is complete, or can no longer become so. */
static void head_check(struct connection *c)
{
    c->head[c->head_size] = '\0';
    bool complete = strstr(c->head, "\r\n\r\n") || strstr(c->head, "\n\n");
    if (memchr(c->head, '\0', c->head_size)) {
        answer_text(c, "400 Bad Request", "a zero byte in the head", false);
    } else if (complete) {
        c->head[strcspn(c->head, "\r\n")] = '\0';
        answer_request(c, c->head);
    } else if (c->head_size == sizeof c->head - 1) {
        answer_text(c, "431 Request Header Fields Too Large", "the head is too large", false);
    } else {
        return;
    }
    connection_answer(c);
}

static void connection_read(struct connection *c)
{
    ssize_t n =
        recv(c->fd, c->head + c->head_size, sizeof c->head - 1 - c->head_size, MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (n <= 0) {
        connection_close(c);
        return;
    }
    c->head_size += (size_t)n;
    head_check(c);
}

static void connection_discard(struct connection *c)
{
    char sink[1024];
    ssize_t n = recv(c->fd, sink, sizeof sink, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK))
        connection_close(c);
}

static void on_connection(struct ev_loop *ev, ev_io *w, int events)
{
    (void)ev;
    (void)events;
    struct connection *c = w->data;
    if (c->state == STATE_READ)
        connection_read(c);
    else if (c->state == STATE_WRITE)
        connection_write(c);
    else
        connection_discard(c);
}

static void on_timeout(struct ev_loop *ev, ev_timer *w, int events)
{
    (void)ev;
    (void)events;
    connection_close(w->data);
}

static void connection_open(struct monitor *m, struct connection *c, int fd)
{
    *c = (struct connection){.monitor = m, .state = STATE_READ, .fd = fd};
    ev_io_init(&c->io, on_connection, fd, EV_READ);
    ev_timer_init(&c->timeout, on_timeout, MONITOR_TIMEOUT_S, 0.);
    c->io.data = c->timeout.data = c;
    ev_io_start(loop_ev(m->loop), &c->io);
    ev_timer_start(loop_ev(m->loop), &c->timeout);
}

static void on_pause_end(struct ev_loop *ev, ev_timer *w, int events)
{
    (void)events;
    struct monitor *m = w->data;
    ev_io_start(ev, &m->io);
}

/* A connection too many is closed at once: whoever asks so often can ask again. */
static void on_accept(struct ev_loop *ev, ev_io *w, int events)
{
    (void)events;
    struct monitor *m = w->data;
    int fd = accept4(m->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
        /* The connection stays in the queue and would wake the loop for ever. */
        ev_io_stop(ev, &m->io);
        ev_timer_set(&m->pause, MONITOR_PAUSE_S, 0.);
        ev_timer_start(ev, &m->pause);
    }
    if (fd < 0)
        return;
    for (size_t i = 0; i < MONITOR_CONNECTIONS_MAX; i++) {
        if (m->connections[i].state == STATE_FREE) {
            connection_open(m, &m->connections[i], fd);
            return;
        }
    }
    (void)close(fd);
}

/* ---- listening ---- */

/* "host:port", "[v6]:port", ":port"; cut in two. */
static int address_split(const char *address, char host[256], char port[8], struct strbuf *why)
{
    const char *colon = strrchr(address, ':');
    size_t size = colon ? (size_t)(colon - address) : 0;
    if (!colon || size >= 256 || strlen(colon + 1) == 0 || strlen(colon + 1) > 5 ||
        colon[1 + strspn(colon + 1, "0123456789")] != '\0') {
        strbuf_printf(why, "monitor.listen \"%s\": host:port is wanted, as in 127.0.0.1:8090",
                      address);
        return ERR_INVALID;
    }
    bool bracketed = size >= 2 && address[0] == '[' && address[size - 1] == ']';
    snprintf(host, 256, "%.*s", (int)(bracketed ? size - 2 : size), address + (bracketed ? 1 : 0));
    snprintf(port, 8, "%s", colon + 1);
    return ERR_OK;
}

static int socket_listen(const struct addrinfo *at)
{
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, MONITOR_BACKLOG) == 0)
        return fd;
    int error = errno;
    (void)close(fd);
    errno = error;
    return -1;
}

static int address_listen(const char *address, int *fd, struct strbuf *why)
{
    char host[256], port[8];
    TRY(address_split(address, host, port, why));
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    bool any = host[0] == '\0' || strcmp(host, "*") == 0;
    int rc = getaddrinfo(any ? NULL : host, port, &hints, &found);
    if (rc != 0) {
        strbuf_printf(why, "monitor.listen \"%s\": %s", address, gai_strerror(rc));
        return ERR_INVALID;
    }
    *fd = -1;
    for (const struct addrinfo *at = found; at && *fd < 0; at = at->ai_next)
        *fd = socket_listen(at);
    int error = errno;
    freeaddrinfo(found);
    if (*fd >= 0)
        return ERR_OK;
    strbuf_printf(why, "cannot listen on %s for the monitor: %s; give another --monitor address",
                  address, strerror(error));
    return ERR_IO;
}

int monitor_listen(struct monitor **out, struct loop *loop, const char *address,
                   const struct monitor_handler *handler, struct metrics *metrics,
                   struct strbuf *why)
{
    int fd;
    STOA_ASSERT(handler->ready);
    TRY(address_listen(address, &fd, why));
    struct monitor *m = mem_zalloc(sizeof *m);
    m->loop = loop;
    m->handler = *handler;
    m->metrics = metrics;
    m->fd = fd;
    ev_io_init(&m->io, on_accept, fd, EV_READ);
    ev_timer_init(&m->pause, on_pause_end, MONITOR_PAUSE_S, 0.);
    m->io.data = m->pause.data = m;
    ev_io_start(loop_ev(loop), &m->io);
    *out = m;
    return ERR_OK;
}

void monitor_close(struct monitor **monitor)
{
    struct monitor *m = *monitor;
    if (!m)
        return;
    *monitor = NULL;
    for (size_t i = 0; i < MONITOR_CONNECTIONS_MAX; i++)
        if (m->connections[i].state != STATE_FREE)
            connection_close(&m->connections[i]);
    ev_io_stop(loop_ev(m->loop), &m->io);
    ev_timer_stop(loop_ev(m->loop), &m->pause);
    (void)close(m->fd);
    mem_free(m);
}
