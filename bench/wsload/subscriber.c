/* SHELL. Sockets that listen. */
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "load.h"

static void ended(struct load *l, struct subscriber *s)
{
    if (s->link.fd >= 0)
        link_close(l, &s->link);
    if (s->was_open) {
        l->figures.closed++;
    } else {
        l->figures.failed++;
        l->connecting--;
    }
}

static void opened(struct load *l, struct subscriber *s, uint64_t now)
{
    s->link.state = STATE_OPEN;
    s->was_open = true;
    l->figures.opened++;
    l->connecting--;
    histogram_add(&l->figures.connect, now - s->begun_ns);
}

void subscriber_start(struct load *l, uint32_t index)
{
    struct subscriber *s = &l->subscribers[index];
    s->link.id = index;
    s->link.room = index % l->options.rooms;
    s->begun_ns = now_ns();
    l->connecting++;
    link_dial(l, &s->link, &l->sub);
    if (s->link.fd < 0)
        ended(l, s);
}

/* ---- messages ---- */

static void stream_take(struct load *l, struct subscriber *s, struct slice bytes, uint64_t now)
{
    struct slice tail;
    bool joined = s->fragment.size > 0;
    if (joined) {
        strbuf_put_slice(&s->fragment, bytes);
        bytes = strbuf_slice(&s->fragment);
    }
    (void)delivery_scan(l, s, bytes, now, &tail);
    if (joined) {
        memmove(s->fragment.data, tail.data, tail.size);
        s->fragment.size = tail.size;
    } else {
        strbuf_put_slice(&s->fragment, tail);
    }
}

static void message_take(struct load *l, struct subscriber *s, struct slice message, uint64_t now)
{
    if (s->link.state == STATE_WAITING) {
        struct slice mark = l->ready.pieces[0].text;
        if (memmem(message.data, message.size, mark.data, mark.size))
            opened(l, s, now);
        if (!l->options.stream)
            return;
    }
    if (l->options.stream)
        stream_take(l, s, message, now);
    else if (!delivery_scan(l, s, message, now, NULL))
        l->figures.ignored++;
}

/* A message of several frames. */
static void fragment_take(struct load *l, struct subscriber *s, const struct frame *f, uint64_t now)
{
    if (f->opcode != OP_MORE)
        strbuf_reset(&s->fragment);
    strbuf_put_slice(&s->fragment, f->payload);
    if (!f->final)
        return;
    message_take(l, s, strbuf_slice(&s->fragment), now);
    strbuf_reset(&s->fragment);
}

/* False: the connection ends. */
static bool frame_take(struct load *l, struct subscriber *s, const struct frame *f, uint64_t now)
{
    if (f->opcode == OP_CLOSE)
        return false;
    if (f->opcode == OP_PONG)
        return true;
    if (f->opcode == OP_PING) {
        strbuf_reset(&l->text);
        frame_put(&l->text, OP_PONG, f->payload);
        return link_send(&s->link, strbuf_slice(&l->text));
    }
    if ((f->final && f->opcode != OP_MORE) || l->options.stream)
        message_take(l, s, f->payload, now);
    else
        fragment_take(l, s, f, now);
    return true;
}

/* What is left of `input`. */
static struct slice frames_take(struct load *l, struct subscriber *s, struct slice input,
                                uint64_t now)
{
    struct frame f;
    int64_t size;
    while ((size = frame_read(input, &f)) != 0) {
        if (size < 0 || !frame_take(l, s, &f, now)) {
            s->link.state = STATE_CLOSED;
            break;
        }
        input = slice_of(input.data + size, input.size - (size_t)size);
    }
    return input;
}

/* ---- events ---- */

static bool inits_send(struct load *l, struct subscriber *s)
{
    for (uint32_t i = 0; i < l->options.n_inits; i++) {
        struct fill fill = fill_of(l, s->link.room, s->link.id);
        fill.index = s->link.id;
        strbuf_reset(&l->payload);
        template_put(&l->payload, &l->inits[i], &fill);
        strbuf_reset(&l->text);
        frame_put(&l->text, l->options.init_binary ? OP_BINARY : OP_TEXT,
                  strbuf_slice(&l->payload));
        if (!link_send(&s->link, strbuf_slice(&l->text)))
            return false;
    }
    return true;
}

static void connected(struct load *l, struct subscriber *s, uint32_t events)
{
    static bool told;
    if (!link_connected(&s->link)) {
        if (!told)
            fprintf(stderr, "wsload: connect: %s\n", strerror(errno));
        told = true;
        ended(l, s);
        return;
    }
    if (!(events & EPOLLOUT))
        return;
    s->link.state = STATE_UPGRADING;
    link_rewatch(l, &s->link, EPOLLIN);
    if (!upgrade_send(l, &s->link, &l->sub))
        ended(l, s);
}

/* What is left of `input`. */
static struct slice upgraded(struct load *l, struct subscriber *s, struct slice input, uint64_t now)
{
    int size = upgrade_read(input);
    if (size == 0)
        return input;
    if (size < 0 || !inits_send(l, s)) {
        s->link.state = STATE_CLOSED;
        return input;
    }
    if (l->options.ready)
        s->link.state = STATE_WAITING;
    else
        opened(l, s, now);
    return slice_of(input.data + size, input.size - (size_t)size);
}

void subscriber_event(struct load *l, struct subscriber *s, uint32_t events)
{
    if (s->link.fd < 0)
        return;
    if (s->link.state == STATE_CONNECTING) {
        connected(l, s, events);
        return;
    }
    struct slice input = link_receive(l, &s->link);
    if (!input.data) {
        ended(l, s);
        return;
    }
    if (input.size == 0)
        return;
    uint64_t now = now_ns();
    if (s->link.state == STATE_UPGRADING)
        input = upgraded(l, s, input, now);
    if (s->link.state == STATE_WAITING || s->link.state == STATE_OPEN)
        input = frames_take(l, s, input, now);
    if (s->link.state == STATE_CLOSED)
        ended(l, s);
    else
        link_keep(&s->link, input);
}
