/* SHELL. Sockets and what goes over them: connecting, the upgrade to WebSocket, frames. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define UPGRADE_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define UPGRADE_ANSWER "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define FRAME_MAX_BYTES (1u << 26)

void target_parse(struct target *t, const char *url)
{
    const char *host = strstr(url, "://");
    if (!host)
        fail("%s: not a URL", url);
    size_t scheme = (size_t)(host - url);
    t->http = scheme == 4 && memcmp(url, "http", 4) == 0;
    t->websocket = scheme == 2 && memcmp(url, "ws", 2) == 0;
    host += 3;
    size_t size = strcspn(host, ":/?");
    if (size >= sizeof t->host)
        fail("%s: the host is too long", url);
    memcpy(t->host, host, size);
    t->port = 80;
    const char *rest = host + size;
    if (*rest == ':') {
        char *end;
        t->port = (uint16_t)strtoul(rest + 1, &end, 10);
        rest = end;
    }
    template_compile(&t->path, *rest ? rest : "/", false);
}

void link_watch(struct load *l, struct link *k, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = k};
    if (epoll_ctl(l->poll, EPOLL_CTL_ADD, k->fd, &e))
        fail("epoll: %s", strerror(errno));
}

void link_rewatch(struct load *l, struct link *k, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = k};
    if (epoll_ctl(l->poll, EPOLL_CTL_MOD, k->fd, &e))
        fail("epoll: %s", strerror(errno));
}

void link_dial(struct load *l, struct link *k, const struct target *t)
{
    int one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(t->port)};
    if (inet_pton(AF_INET, t->host, &to.sin_addr) != 1)
        fail("%s: not an IPv4 address", t->host);
    k->state = STATE_CLOSED;
    k->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (k->fd < 0)
        return;
    (void)setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(k->fd, (const struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        close(k->fd);
        k->fd = -1;
        return;
    }
    k->state = STATE_CONNECTING;
    link_watch(l, k, EPOLLIN | EPOLLOUT);
}

bool link_connected(const struct link *k)
{
    int error = 0;
    socklen_t size = sizeof error;
    (void)getsockopt(k->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    errno = error;
    return error == 0;
}

void link_close(struct load *l, struct link *k)
{
    (void)epoll_ctl(l->poll, EPOLL_CTL_DEL, k->fd, NULL);
    close(k->fd);
    k->fd = -1;
    k->state = STATE_CLOSED;
}

bool link_send(struct link *k, struct slice bytes)
{
    return send(k->fd, bytes.data, bytes.size, MSG_NOSIGNAL) == (ssize_t)bytes.size;
}

struct slice link_receive(struct load *l, struct link *k)
{
    size_t kept = k->rest.size;
    if (kept >= INPUT_BYTES)
        fail("a message of more than %u bytes", INPUT_BYTES);
    if (kept > 0)
        memcpy(l->input, k->rest.data, kept);
    ssize_t got = read(k->fd, l->input + kept, INPUT_BYTES - kept);
    if (got > 0)
        return slice_of(l->input, kept + (size_t)got);
    bool nothing = got < 0 && (errno == EAGAIN || errno == EINTR);
    return slice_of(nothing ? l->input : NULL, 0);
}

void link_keep(struct link *k, struct slice rest)
{
    if (rest.size == 0 && k->rest.capacity > 4096)
        strbuf_free(&k->rest);
    strbuf_reset(&k->rest);
    strbuf_put_slice(&k->rest, rest);
}

/* ---- upgrade ---- */

bool upgrade_send(struct load *l, struct link *k, const struct target *t)
{
    struct strbuf *out = &l->text;
    struct fill fill = fill_of(l, k->room, 0);
    fill.index = k->id;
    strbuf_reset(out);
    strbuf_put_text(out, "GET ");
    template_put(out, &t->path, &fill);
    strbuf_printf(out,
                  " HTTP/1.1\r\nHost: %s:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Key: " UPGRADE_KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                  t->host, t->port);
    return link_send(k, strbuf_slice(out));
}

int upgrade_read(struct slice input)
{
    static bool told;
    const uint8_t *end = memmem(input.data, input.size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t size = (size_t)(end - input.data) + 4;
    bool ok = size > 12 && memmem(input.data, size, UPGRADE_ANSWER, sizeof UPGRADE_ANSWER - 1) &&
              memcmp(input.data, "HTTP/1.1 101", 12) == 0;
    if (!ok && !told)
        fprintf(stderr, "wsload: the upgrade is refused: %.*s\n", (int)size, input.data);
    told |= !ok;
    return ok ? (int)size : -1;
}

/* ---- frames ---- */

/* Masked by a key that changes the bytes. */
void frame_put(struct strbuf *out, uint8_t opcode, struct slice payload)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t *at = strbuf_reserve(out, payload.size + 14);
    *at++ = 0x80 | opcode;
    if (payload.size < 126) {
        *at++ = (uint8_t)(0x80 | payload.size);
    } else if (payload.size < 65536) {
        *at++ = 0x80 | 126;
        *at++ = (uint8_t)(payload.size >> 8);
        *at++ = (uint8_t)payload.size;
    } else {
        *at++ = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            *at++ = (uint8_t)((uint64_t)payload.size >> shift);
    }
    memcpy(at, mask, sizeof mask);
    at += sizeof mask;
    for (size_t i = 0; i < payload.size; i++)
        *at++ = payload.data[i] ^ mask[i & 3];
    out->size = (size_t)(at - out->data);
}

int64_t frame_read(struct slice input, struct frame *f)
{
    const uint8_t *p = input.data;
    if (input.size < 2)
        return 0;
    uint64_t size = p[1] & 127;
    size_t extra = size == 126 ? 2 : size == 127 ? 8 : 0;
    if (input.size < 2 + extra)
        return 0;
    if (extra > 0)
        size = 0;
    for (size_t i = 0; i < extra; i++)
        size = size << 8 | p[2 + i];
    if (size > FRAME_MAX_BYTES)
        return -1;
    if (input.size < 2 + extra + size)
        return 0;
    *f = (struct frame){
        .opcode = p[0] & 15, .final = p[0] >> 7, .payload = slice_of(p + 2 + extra, (size_t)size)};
    return (int64_t)(2 + extra + size);
}
