/* Test support: one end of a link, i.e. a hub on real ZeroMQ sockets on the process's loop. It
 * counts what happens and checks that numbered messages arrive in order. It is also used in child
 * processes, outside of any test, so it asserts without Check. */
#ifndef STOA_TESTS_LINKS_END_H
#define STOA_TESTS_LINKS_END_H

#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "common/shell/process.h"
#include "proto/shell/link.h"

struct end {
    char name[16];
    struct links *links;
    struct hub *hub;
    struct metrics *metrics;
    struct log log;
    struct strbuf logged;
    uint32_t peer; /* the one other end, while up */
    uint64_t peer_boot;
    unsigned ups, downs;
    uint64_t sent, received; /* numbered messages */
    bool echo;               /* every message goes back */
    void (*on_message)(struct end *e, uint32_t peer, const struct message *m);
};

#define ENDS_MAX 80
static struct end ends[ENDS_MAX];
static unsigned n_ends;
static struct loop *loop;
static void (*step)(struct tick now); /* the test's part of a turn */
static bool ticking; /* without ticks no heartbeat can cover up for a message left lying */

static void end_log(void *ctx, const char *line, size_t size)
{
    strbuf_put(&((struct end *)ctx)->logged, line, size);
}

static bool end_logged(struct end *e, const char *text)
{
    return e->logged.size > 0 && strstr(strbuf_cstr(&e->logged), text) != NULL;
}

static void end_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    struct end *e = ctx;
    e->peer = peer;
    e->peer_boot = info->boot;
    e->ups++;
}

static void end_down(void *ctx, uint32_t peer)
{
    struct end *e = ctx;
    if (e->peer == peer)
        e->peer = 0;
    e->downs++;
}

static void end_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    (void)packet;
    struct end *e = ctx;
    e->received++;
    if (e->on_message)
        e->on_message(e, peer, m);
    else if (e->echo)
        hub_send(e->hub, peer, m);
    else
        STOA_ASSERT(m->cid == e->received);
}

static struct end *end_create_as(enum role role, const struct links_curve *curve)
{
    STOA_ASSERT(n_ends < ENDS_MAX);
    struct end *e = &ends[n_ends];
    snprintf(e->name, sizeof e->name, "end-%u", n_ends++);
    e->log = (struct log){.level = LOG_DEBUG, .write = end_log, .ctx = e};
    e->metrics = metrics_create();
    e->links = links_create(loop, curve, &e->log);
    struct hub_self self = {
        .role = role, .boot = process_random(), .cluster = 1, .name = e->name, .version = "1"};
    const struct hub_handler handler = {
        .ctx = e, .on_up = end_up, .on_down = end_down, .on_message = end_message};
    struct hub_ports ports = links_ports(e->links);
    e->hub = hub_create(&self, &handler, &ports, &e->log, e->metrics, process_random());
    links_attach(e->links, e->hub);
    return e;
}

/* A role nobody objects to, on either side. */
static struct end *end_create(const struct links_curve *curve)
{
    return end_create_as(ROLE_PUBLISHER, curve);
}

static void end_destroy(struct end *e)
{
    links_destroy(&e->links);
    hub_destroy(&e->hub);
    metrics_destroy(&e->metrics);
    strbuf_free(&e->logged);
}

static int end_listen(struct end *e, const char *endpoint)
{
    struct strbuf why = {0};
    int code = links_listen(e->links, 0, endpoint, &why);
    if (code != ERR_OK)
        fprintf(stderr, "%s\n", strbuf_cstr(&why));
    STOA_ASSERT(code == ERR_OK);
    strbuf_free(&why);
    return code;
}

static uint32_t end_dial(struct end *e, const char *endpoint)
{
    struct strbuf why = {0};
    uint32_t peer = hub_dial(e->hub);
    int code = links_dial(e->links, peer, endpoint, &why);
    if (code != ERR_OK)
        fprintf(stderr, "%s\n", strbuf_cstr(&why));
    STOA_ASSERT(code == ERR_OK);
    strbuf_free(&why);
    return peer;
}

/* Sends message number sent + 1 as a packet of its own. */
static void end_send_numbered(struct end *e, struct tick now)
{
    struct message m = {.type = MSG_PURGE, .cid = ++e->sent, .slot = SLOT_UNKNOWN};
    m.key = slice_text("upload:a");
    hub_send(e->hub, e->peer, &m);
    hub_flush(e->hub, now);
}

static int64_t ends_turn(void *ctx, struct tick now)
{
    (void)ctx;
    int64_t deadline = TICK_NEVER;
    for (unsigned i = 0; i < n_ends; i++)
        if (ticking && ends[i].hub)
            hub_tick(ends[i].hub, now);
    if (step)
        step(now);
    for (unsigned i = 0; i < n_ends; i++) {
        if (!ends[i].hub)
            continue;
        hub_flush(ends[i].hub, now);
        if (ticking && hub_deadline(ends[i].hub) < deadline)
            deadline = hub_deadline(ends[i].hub);
    }
    return deadline;
}

static void ends_term(void *ctx, struct tick now)
{
    (void)ctx;
    (void)now;
    loop_stop(loop);
}

static bool (*awaited)(void);

static void await_step(struct tick now)
{
    (void)now;
    if (awaited())
        loop_stop(loop);
}

/* Runs the loop until `condition` holds; the test's time limit is the only clock. */
static void await(bool (*condition)(void))
{
    if (condition())
        return;
    awaited = condition;
    step = await_step;
    loop_run(loop);
    step = NULL;
}

static void ends_begin(void)
{
    const struct loop_handler handler = {.turn = ends_turn, .on_term = ends_term};
    loop = loop_create(&handler);
    ticking = true;
}

static void ends_finish(void)
{
    for (unsigned i = 0; i < n_ends; i++)
        end_destroy(&ends[i]);
    n_ends = 0;
    loop_destroy(&loop);
}

#endif
