/* SHELL. Just enough of RFC 6455's client side to count what a gateway delivers. */
#include "client/cli/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/cli/http.h"
#include "common/mem.h"

#define HEAD_MAX 4096

static int dial(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int one = 1, fd = -1;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return -1;
    for (struct addrinfo *a = found; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    if (fd >= 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* Sends the request and reads the head of the answer; frames behind it go to `part`. */
static bool handshake(struct bench_socket *s, const char *host, const char *key, const char *token)
{
    struct strbuf request = {0}, target = {0};
    char head[HEAD_MAX + 1];
    size_t have = 0;
    char *end = NULL;
    strbuf_put_text(&target, "/events");
    http_query_add(&target, "key", slice_text(key));
    strbuf_printf(&request,
                  "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: "
                  "Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                  "Sec-WebSocket-Version: 13\r\n",
                  strbuf_cstr(&target), host);
    if (token)
        strbuf_printf(&request, "Authorization: Bearer %s\r\n", token);
    strbuf_put_text(&request, "\r\n");
    bool fine = send(s->fd, request.data, request.size, MSG_NOSIGNAL) == (ssize_t)request.size;
    while (fine && end == NULL) {
        ssize_t n = recv(s->fd, head + have, HEAD_MAX - have, 0);
        fine = n > 0;
        have += fine ? (size_t)n : 0;
        head[have] = '\0';
        end = strstr(head, "\r\n\r\n");
    }
    fine = fine && strncmp(head, "HTTP/1.1 101", 12) == 0;
    if (fine)
        strbuf_put(&s->part, end + 4, have - (size_t)(end + 4 - head));
    strbuf_free(&request);
    strbuf_free(&target);
    return fine;
}

bool socket_open(const struct cli *cli, const char *key, struct bench_socket *s)
{
    char host[256], *port;
    *s = (struct bench_socket){.fd = -1};
    if (strncmp(cli->server, "http://", 7) != 0) {
        cli_misuse(cli, "bench speaks plain http only, not %s", cli->server);
        return false;
    }
    snprintf(host, sizeof host, "%s", cli->server + 7);
    host[strcspn(host, "/")] = '\0';
    port = strrchr(host, ':');
    if (port != NULL)
        *port++ = '\0';
    s->fd = dial(host, port != NULL ? port : "80");
    if (s->fd >= 0 && handshake(s, cli->server + 7, key, cli->token) &&
        fcntl(s->fd, F_SETFL, O_NONBLOCK) == 0)
        return true;
    cli_fail(cli, "no WebSocket at %s: %s", cli->server, strerror(errno));
    socket_close(s);
    return false;
}

void socket_close(struct bench_socket *s)
{
    if (s->fd >= 0)
        close(s->fd);
    strbuf_free(&s->part);
    s->fd = -1;
}

/* Gives complete frames; returns the bytes used. False through *open when a Close came. */
static size_t take_frames(struct slice in, bool *open,
                          void (*on_message)(void *ctx, struct slice payload), void *ctx)
{
    size_t used = 0;
    while (in.size - used >= 2) {
        const uint8_t *p = in.data + used;
        size_t left = in.size - used, head = 2;
        uint64_t size = p[1] & 0x7f;
        if (size >= 126) {
            size_t width = size == 126 ? 2 : 8;
            head += width;
            if (left < head)
                break;
            size = 0;
            for (size_t i = 0; i < width; i++)
                size = size << 8 | p[2 + i];
        }
        if (size > SOCKET_BUFFER_BYTES * 8 || left - head < size)
            break;
        unsigned opcode = p[0] & 15;
        if (opcode == 1 || opcode == 2)
            on_message(ctx, slice_of(p + head, size));
        *open = *open && opcode != 8;
        used += head + size;
    }
    return used;
}

bool socket_read(struct bench_socket *s, uint8_t *scratch,
                 void (*on_message)(void *ctx, struct slice payload), void *ctx)
{
    bool open = true;
    ssize_t n = recv(s->fd, scratch, SOCKET_BUFFER_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    struct slice in = slice_of(scratch, (size_t)n);
    if (s->part.size > 0) {
        strbuf_put(&s->part, scratch, (size_t)n);
        in = strbuf_slice(&s->part);
    }
    size_t used = take_frames(in, &open, on_message, ctx);
    struct strbuf rest = {0};
    strbuf_put(&rest, in.data + used, in.size - used);
    strbuf_free(&s->part);
    s->part = rest;
    return open;
}
