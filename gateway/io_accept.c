/* SHELL. The listening socket. What every connection needs is set on it once and inherited: no
 * delay, and a send buffer of a fixed size, so that a client that does not read holds a bounded
 * part of the kernel's memory and is noticed early. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/io_client.h"

#define ACCEPTS_PER_TURN 256
#define BACKLOG 4096
#define SEND_BUFFER_BYTES (256 * KIB)
#define VANISHED_MS 120000 /* what was sent is not acknowledged */
#define PAUSE_MS 100       /* after running out of descriptors */

struct acceptor {
    ev_io watcher;
    int64_t resume_ns; /* 0: not paused */
};

static void to_in6(const struct sockaddr_storage *from, struct in6_addr *out)
{
    if (from->ss_family == AF_INET6) {
        *out = ((const struct sockaddr_in6 *)(const void *)from)->sin6_addr;
        return;
    }
    memset(out, 0, sizeof *out);
    out->s6_addr[10] = out->s6_addr[11] = 0xff;
    memcpy(out->s6_addr + 12, &((const struct sockaddr_in *)(const void *)from)->sin_addr, 4);
}

static void on_acceptable(struct ev_loop *ev, ev_io *watcher, int events)
{
    (void)events;
    struct io *io = watcher->data;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage from = {0};
        socklen_t size = sizeof from;
        int fd =
            accept4(watcher->fd, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
            continue;
        if (fd < 0 && errno == EAGAIN)
            return;
        if (fd < 0) {
            LOG(io->log, LOG_WARN, "gateway.accept", LOG_STR("error", strerror(errno)));
            ev_io_stop(ev, watcher);
            io->acceptor->resume_ns = io_now(io).mono_ns + PAUSE_MS * NS_PER_MS;
            return;
        }
        metric_add(io->accepted, 1);
        if (io->n_clients >= io->limits.sockets + CLIENTS_RESERVE) {
            close(fd);
            continue;
        }
        struct in6_addr address;
        to_in6(&from, &address);
        http_start(io, fd, &address, io->n_clients >= io->limits.sockets);
    }
}

void accept_resume(struct io *io, int64_t mono_ns)
{
    struct acceptor *a = io->acceptor;
    if (!a || a->resume_ns == 0 || mono_ns < a->resume_ns)
        return;
    a->resume_ns = 0;
    ev_io_start(io->ev, &a->watcher);
}

int64_t accept_deadline(const struct io *io)
{
    return io->acceptor && io->acceptor->resume_ns ? io->acceptor->resume_ns : TICK_NEVER;
}

void io_stop_listening(struct io *io)
{
    if (!io->acceptor)
        return;
    ev_io_stop(io->ev, &io->acceptor->watcher);
    close(io->acceptor->watcher.fd);
    mem_free(io->acceptor);
    io->acceptor = NULL;
}

/* "host:port", "[::1]:port", ":port". NULL: malformed or unknown. The result is freed by
 * freeaddrinfo. */
static struct addrinfo *resolve(const char *address)
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon[1] == '\0')
        return NULL;
    size_t size = (size_t)(colon - address);
    const char *from = address;
    if (size >= 2 && address[0] == '[' && address[size - 1] == ']') {
        from++;
        size -= 2;
    }
    char *host = mem_strndup(from, size);
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    bool any = size == 0 || strcmp(host, "*") == 0;
    int code = getaddrinfo(any ? NULL : host, colon + 1, &hints, &found);
    mem_free(host);
    return code == 0 ? found : NULL;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, address, sizeof in6);
    return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

bool io_is_loopback(const char *address)
{
    struct addrinfo *found = resolve(address);
    bool all = found != NULL;
    for (struct addrinfo *a = found; a; a = a->ai_next)
        all = all && is_loopback(a->ai_addr);
    if (found)
        freeaddrinfo(found);
    return all;
}

static int open_listener(const struct addrinfo *a)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int on = 1;
    int send_buffer = SEND_BUFFER_BYTES;
    unsigned vanished = VANISHED_MS;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &vanished, sizeof vanished);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static void put_bound(int fd, struct strbuf *bound)
{
    struct sockaddr_storage at = {0};
    socklen_t size = sizeof at;
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    if (getsockname(fd, (struct sockaddr *)&at, &size) != 0 ||
        getnameinfo((struct sockaddr *)&at, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    strbuf_printf(bound, at.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

int io_listen(struct io *io, const char *address, struct strbuf *bound, struct strbuf *why)
{
    struct addrinfo *found = resolve(address);
    if (!found) {
        strbuf_printf(why, "gateway.listen: \"%s\" is not host:port of this machine", address);
        return ERR_INVALID;
    }
    int fd = -1;
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
        fd = open_listener(a);
    freeaddrinfo(found);
    if (fd < 0) {
        strbuf_printf(why, "gateway.listen: cannot listen on %s: %s", address, strerror(errno));
        return ERR_IO;
    }
    put_bound(fd, bound);
    io->acceptor = mem_zalloc(sizeof *io->acceptor);
    ev_io_init(&io->acceptor->watcher, on_acceptable, fd, EV_READ);
    io->acceptor->watcher.data = io;
    ev_io_start(io->ev, &io->acceptor->watcher);
    return ERR_OK;
}
