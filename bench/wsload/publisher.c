/* SHELL. Who publishes: HTTP requests on kept connections, WebSocket frames, bytes over TCP, or
 * lines for a command, which answers each with a line. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/mem.h"
#include "load.h"

#define RECONNECTS_MAX 100000
#define QUEUE_FIRST 256u
#define OUT_PIECE_BYTES (1u << 18) /* encoded ahead; sent before what follows moves up */

/* ---- queues ---- */

void queue_push(struct queue *q, struct message m)
{
    if (q->tail - q->head == q->capacity) {
        uint32_t capacity = q->capacity ? q->capacity * 2 : QUEUE_FIRST;
        struct message *at = (struct message *)mem_alloc(capacity * sizeof *at);
        for (uint32_t i = 0; i < q->capacity; i++)
            at[i] = q->at[(q->head + i) & (q->capacity - 1)];
        mem_free(q->at);
        *q = (struct queue){.at = at, .tail = q->tail - q->head, .capacity = capacity};
    }
    q->at[q->tail++ & (q->capacity - 1)] = m;
}

static struct message queue_take(struct queue *q)
{
    return q->at[q->head++ & (q->capacity - 1)];
}

/* ---- out ---- */

bool publisher_is_counted(const struct publisher *p)
{
    return p->link.kind == LINK_HTTP || p->link.kind == LINK_COMMAND;
}

static void payload_make(struct load *l, struct message m)
{
    struct strbuf *out = &l->payload;
    strbuf_reset(out);
    strbuf_put_text(out, "{\"wl\":");
    strbuf_put_u64(out, l->run);
    strbuf_put_text(out, ",\"r\":");
    strbuf_put_u64(out, m.room);
    strbuf_put_text(out, ",\"s\":");
    strbuf_put_u64(out, m.seq);
    strbuf_put_text(out, ",\"t\":");
    strbuf_put_u64(out, m.ns);
    strbuf_put_text(out, ",\"p\":\"");
    size_t padding = out->size + 2 < l->options.size ? l->options.size - out->size - 2 : 0;
    memset(strbuf_reserve(out, padding + 1), 'x', padding);
    out->size += padding;
    strbuf_put_text(out, "\"}");
}

static void request_put(struct load *l, struct strbuf *out, const struct fill *fill)
{
    strbuf_reset(&l->text);
    template_put(&l->text, &l->body, fill);
    strbuf_put_text(out, "POST ");
    template_put(out, &l->pub.path, fill);
    strbuf_printf(out, " HTTP/1.1\r\nHost: %s:%u\r\nContent-Length: %zu\r\n\r\n", l->pub.host,
                  l->pub.port, l->text.size);
    strbuf_put_slice(out, strbuf_slice(&l->text));
}

void publisher_emit(struct load *l, struct publisher *p, struct message m)
{
    struct fill fill = fill_of(l, m.room, m.seq);
    payload_make(l, m);
    fill.payload = strbuf_slice(&l->payload);
    if (p->sent > OUT_PIECE_BYTES) {
        memmove(p->out.data, p->out.data + p->sent, p->out.size - p->sent);
        p->out.size -= p->sent;
        p->sent = 0;
    }
    if (p->link.kind == LINK_HTTP) {
        request_put(l, &p->out, &fill);
    } else if (p->link.kind == LINK_WEBSOCKET) {
        strbuf_reset(&l->text);
        template_put(&l->text, &l->body, &fill);
        frame_put(&p->out, OP_TEXT, strbuf_slice(&l->text));
    } else {
        template_put(&p->out, &l->body, &fill);
        if (p->link.kind == LINK_COMMAND)
            strbuf_put_byte(&p->out, '\n');
    }
    if (publisher_is_counted(p))
        queue_push(&p->under_way, m);
}

static void write_wanted(struct load *l, struct publisher *p, bool wanted)
{
    if (p->wants_write == wanted)
        return;
    p->wants_write = wanted;
    if (p->link.kind != LINK_COMMAND) /* a command's pipe is tried again at each turn */
        link_rewatch(l, &p->link, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void publisher_flush(struct load *l, struct publisher *p)
{
    while (p->sent < p->out.size) {
        const uint8_t *at = p->out.data + p->sent;
        size_t size = p->out.size - p->sent;
        ssize_t n = p->link.kind == LINK_COMMAND ? write(p->write_fd, at, size)
                                                 : send(p->link.fd, at, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            write_wanted(l, p, true);
            return;
        }
        if (n < 0 && errno != EINTR)
            fail("publishing: %s", strerror(errno));
        p->sent += n > 0 ? (size_t)n : 0;
    }
    strbuf_reset(&p->out);
    p->sent = 0;
    write_wanted(l, p, false);
}

void publisher_pump(struct load *l, struct publisher *p)
{
    uint32_t most = p->link.kind == LINK_HTTP ? l->options.pipeline : UINT32_MAX;
    if (p->link.state != STATE_OPEN)
        return;
    while (p->waiting.head != p->waiting.tail && p->under_way.tail - p->under_way.head < most &&
           p->out.size - p->sent < OUT_PIECE_BYTES)
        publisher_emit(l, p, queue_take(&p->waiting));
    if (p->sent < p->out.size)
        publisher_flush(l, p);
}

void publisher_account(struct load *l, uint32_t room, uint64_t ns)
{
    struct figures *f = &l->figures;
    f->published_all++;
    f->expected_all += l->rooms[room].listeners;
    if (ns >= l->measured_from && ns < l->measured_to) {
        f->published++;
        f->expected += l->rooms[room].listeners;
    }
}

/* ---- answers ---- */

static void answered(struct load *l, struct publisher *p, int status, uint64_t now)
{
    struct figures *f = &l->figures;
    if (p->under_way.head == p->under_way.tail)
        return;
    struct message m = queue_take(&p->under_way);
    f->acked_all++;
    if (now >= l->measured_from && now < l->measured_to)
        f->acked_window++;
    if (status < 200 || status > 299) {
        f->bad_status++;
        f->last_bad_status = status;
    }
    if (m.ns >= l->measured_from && m.ns < l->measured_to)
        histogram_add(&f->ack, now > m.ns ? now - m.ns : 0);
}

/* Behind the last chunk, or 0. */
static size_t chunks_skip(struct slice text, size_t at)
{
    for (;;) {
        const uint8_t *line = text.data + at;
        const uint8_t *end = memmem(line, text.size - at, "\r\n", 2);
        if (!end)
            return 0;
        size_t size = strtoul((const char *)line, NULL, 16);
        at = (size_t)(end - text.data) + 2 + size + 2;
        if (at > text.size)
            return 0;
        if (size == 0)
            return at;
    }
}

/* Size of the answer at the start, 0: not complete. */
static size_t answer_read(struct slice text, int *status)
{
    const uint8_t *end = memmem(text.data, text.size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head = (size_t)(end - text.data) + 4, length = 0;
    bool chunked = false;
    *status = head > 12 ? (int)strtol((const char *)text.data + 9, NULL, 10) : 0;
    for (const uint8_t *at = text.data; at < end;) {
        const char *line = (const char *)at;
        if (strncasecmp(line, "content-length:", 15) == 0)
            length = strtoul(line + 15, NULL, 10);
        chunked |= strncasecmp(line, "transfer-encoding:", 18) == 0;
        at = (const uint8_t *)memmem(at, (size_t)(end + 2 - at), "\r\n", 2) + 2;
    }
    if (*status == 204 || *status == 304 || *status / 100 == 1)
        return head;
    if (chunked)
        return chunks_skip(text, head);
    return text.size - head >= length ? head + length : 0;
}

/* What is left of `input`. */
static struct slice answers_take(struct load *l, struct publisher *p, struct slice input)
{
    uint64_t now = now_ns();
    int status;
    for (size_t size; (size = answer_read(input, &status)) > 0;) {
        input = slice_of(input.data + size, input.size - size);
        if (status != 100)
            answered(l, p, status, now);
    }
    return input;
}

static struct slice lines_take(struct load *l, struct publisher *p, struct slice input)
{
    uint64_t now = now_ns();
    for (const uint8_t *end; (end = memchr(input.data, '\n', input.size));) {
        size_t size = (size_t)(end - input.data) + 1;
        input = slice_of(input.data + size, input.size - size);
        answered(l, p, 200, now);
    }
    return input;
}

/* Pings are answered, what is delivered is not this socket's business. */
static struct slice frames_pass(struct load *l, struct publisher *p, struct slice input)
{
    struct frame f;
    int64_t size;
    while ((size = frame_read(input, &f)) > 0) {
        if (f.opcode == OP_CLOSE)
            fail("a publisher's socket was closed");
        if (f.opcode == OP_PING) {
            frame_put(&p->out, OP_PONG, f.payload);
            publisher_flush(l, p);
        }
        input = slice_of(input.data + size, input.size - (size_t)size);
    }
    return input;
}

/* ---- connections ---- */

/* The server ended a kept connection: what was under way goes out again. */
static void reconnect(struct load *l, struct publisher *p)
{
    struct queue again = p->under_way;
    if (++l->figures.reconnects > RECONNECTS_MAX)
        fail("the server keeps closing the publisher's connections");
    link_close(l, &p->link);
    strbuf_reset(&p->out);
    strbuf_reset(&p->link.rest);
    p->sent = 0;
    p->wants_write = false;
    p->under_way = (struct queue){0};
    while (again.head != again.tail)
        publisher_emit(l, p, queue_take(&again));
    mem_free(again.at);
    link_dial(l, &p->link, &l->pub);
    if (p->link.fd < 0)
        fail("the publisher cannot connect: %s", strerror(errno));
}

static void init_send(struct load *l, struct publisher *p)
{
    struct fill fill = fill_of(l, 0, p->link.id);
    strbuf_reset(&l->text);
    template_put(&l->text, &l->pub_init, &fill);
    if (p->link.kind == LINK_WEBSOCKET)
        frame_put(&p->out, OP_TEXT, strbuf_slice(&l->text));
    else
        strbuf_put_slice(&p->out, strbuf_slice(&l->text));
    publisher_flush(l, p);
}

static void opened(struct load *l, struct publisher *p)
{
    p->link.state = STATE_OPEN;
    if (l->options.pub_init)
        init_send(l, p);
    publisher_pump(l, p);
}

static void connected(struct load *l, struct publisher *p, uint32_t events)
{
    if (!link_connected(&p->link))
        fail("the publisher cannot connect: %s", strerror(errno));
    if (!(events & EPOLLOUT))
        return;
    link_rewatch(l, &p->link, EPOLLIN);
    if (p->link.kind != LINK_WEBSOCKET) {
        opened(l, p);
        return;
    }
    p->link.state = STATE_UPGRADING;
    if (!upgrade_send(l, &p->link, &l->pub))
        fail("the publisher cannot upgrade: %s", strerror(errno));
}

static struct slice input_take(struct load *l, struct publisher *p, struct slice input)
{
    if (p->link.state == STATE_UPGRADING) {
        int size = upgrade_read(input);
        if (size < 0)
            fail("the publisher's upgrade is refused");
        if (size == 0)
            return input;
        input = slice_of(input.data + size, input.size - (size_t)size);
        opened(l, p);
    }
    switch (p->link.kind) {
    case LINK_HTTP:
        return answers_take(l, p, input);
    case LINK_COMMAND:
        return lines_take(l, p, input);
    case LINK_WEBSOCKET:
        return frames_pass(l, p, input);
    default:
        return slice_of(input.data, 0);
    }
}

void publisher_event(struct load *l, struct publisher *p, uint32_t events)
{
    if (p->link.kind != LINK_COMMAND && p->link.state == STATE_CONNECTING) {
        connected(l, p, events);
        return;
    }
    if (events & EPOLLOUT) {
        publisher_flush(l, p);
        publisher_pump(l, p);
    }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    struct slice input = link_receive(l, &p->link);
    if (!input.data && p->link.kind == LINK_HTTP) {
        reconnect(l, p);
        return;
    }
    if (!input.data && p->link.kind == LINK_COMMAND) {
        link_close(l, &p->link);
        return;
    }
    if (!input.data)
        fail("the server closed a publisher's connection");
    if (input.size == 0)
        return;
    link_keep(&p->link, input_take(l, p, input));
    publisher_pump(l, p);
}

/* ---- starting ---- */

static void command_start(struct load *l, struct publisher *p)
{
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        fail("a pipe: %s", strerror(errno));
    l->command_pid = fork();
    if (l->command_pid < 0)
        fail("a process: %s", strerror(errno));
    if (l->command_pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execl("/bin/sh", "sh", "-c", l->options.pub_command, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    p->write_fd = in[1];
    p->link.fd = out[0];
    (void)fcntl(p->write_fd, F_SETFL, O_NONBLOCK);
    (void)fcntl(p->link.fd, F_SETFL, O_NONBLOCK);
    p->link.kind = LINK_COMMAND;
    p->link.state = STATE_OPEN;
    link_watch(l, &p->link, EPOLLIN);
}

static bool all_open(const struct load *l)
{
    uint32_t i = 0;
    while (i < l->options.pub_conns && l->publishers[i].link.state == STATE_OPEN)
        i++;
    return i == l->options.pub_conns;
}

void publishers_start(struct load *l)
{
    const uint64_t deadline = now_ns() + 5 * (uint64_t)NS_PER_S;
    l->publishers = (struct publisher *)mem_zalloc(l->options.pub_conns * sizeof *l->publishers);
    for (uint32_t i = 0; i < l->options.pub_conns; i++) {
        struct publisher *p = &l->publishers[i];
        p->link.id = i;
        p->link.room = i % l->options.rooms;
        if (l->options.pub_command) {
            command_start(l, p);
            continue;
        }
        p->link.kind = l->pub.http ? LINK_HTTP : l->pub.websocket ? LINK_WEBSOCKET : LINK_TCP;
        link_dial(l, &p->link, &l->pub);
        if (p->link.fd < 0)
            fail("the publisher cannot connect: %s", strerror(errno));
    }
    while (!all_open(l)) {
        phase_rest(l, 0.001);
        if (now_ns() > deadline)
            fail("the publisher cannot connect within 5 s");
    }
}
