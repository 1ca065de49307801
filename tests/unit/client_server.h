/* Test support: a process that answers libstoa as a router with a shard behind it would, over
 * ZeroMQ. The beginning of a key says how; publishes:
 *     ok:       acknowledged; the payload is the event's number and becomes its seq; numbers of a
 *               key must follow each other, else the process ends with 3
 *     mute:     no answer
 *     pair:     the answer waits for the next publish under trigger:, and leaves before that one's
 *     trigger:  see pair:
 * and calls:
 *     echo:     answered with their input; those that take items get 1, 2 and 3 before
 *     flood:    as many items of FLOOD_ITEM_BYTES as the input says, and an end
 *     mute:     no answer
 */
#ifndef STOA_TESTS_CLIENT_SERVER_H
#define STOA_TESTS_CLIENT_SERVER_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/hash.h"
#include "common/shell/process.h"
#include "proto/shell/link.h"

#define SERVER_KEYS 64
#define FLOOD_ITEM_BYTES (512 * KIB)

struct served {
    char key[32];
    uint64_t pid, pseq, number;
};

static struct loop *server_loop;
static struct hub *server_hub;
static struct served served[SERVER_KEYS];
static uint64_t server_held; /* cid under pair: that waits */

static struct served *served_of(struct slice key)
{
    for (unsigned i = 0; i < SERVER_KEYS; i++) {
        struct served *e = &served[i];
        if (e->key[0] == '\0')
            snprintf(e->key, sizeof e->key, "%.*s", (int)key.size, (const char *)key.data);
        if (strlen(e->key) == key.size && memcmp(e->key, key.data, key.size) == 0)
            return e;
    }
    _exit(4);
}

static void server_pack(uint32_t peer, uint64_t cid, uint64_t seq, bool dup)
{
    struct message m = {.type = MSG_PACK, .cid = cid, .slot = SLOT_UNKNOWN};
    m.pack.room_epoch = 1;
    m.pack.seq = seq;
    m.pack.count = 1;
    m.pack.dup = dup;
    hub_send(server_hub, peer, &m);
}

static void server_publish(uint32_t peer, const struct message *m)
{
    struct served *e = served_of(m->key);
    char text[24];
    snprintf(text, sizeof text, "%.*s", (int)m->pub.payloads.at[0].size,
             (const char *)m->pub.payloads.at[0].data);
    uint64_t number = strtoull(text, NULL, 10);
    if (m->pub.pid != e->pid && m->pub.pseq == 1) {
        e->pid = m->pub.pid;
        e->pseq = 0;
    }
    uint64_t expected = m->pub.pid == e->pid ? e->pseq + 1 : 1;
    if (e->number == 0 || number > e->number) {
        if (m->pub.pseq != expected) {
            struct message nack = {.type = MSG_NACK, .cid = m->cid, .slot = SLOT_UNKNOWN};
            nack.nack.code = NACK_ORDER;
            nack.nack.expected = expected;
            hub_send(server_hub, peer, &nack);
            return;
        }
        if (e->number != 0 && number != e->number + 1)
            _exit(3);
    }
    bool dup = number <= e->number;
    e->pseq = m->pub.pseq > e->pseq ? m->pub.pseq : e->pseq;
    e->number = dup ? e->number : number;
    server_pack(peer, m->cid, number, dup);
}

static bool key_begins(struct slice key, const char *text)
{
    return key.size >= strlen(text) && memcmp(key.data, text, strlen(text)) == 0;
}

static void server_result(uint32_t peer, uint64_t cid, struct slice json, bool more)
{
    struct message m = {.type = MSG_RESULT, .cid = cid, .slot = SLOT_UNKNOWN};
    m.result.json = json;
    m.result.more = more;
    hub_send(server_hub, peer, &m);
}

static void server_call(uint32_t peer, const struct message *m)
{
    static char item[FLOOD_ITEM_BYTES];
    static const char *const items[] = {"1", "2", "3"};
    memset(item, '7', sizeof item);
    if (key_begins(m->key, "echo:")) {
        for (size_t i = 0; m->call.streams && i < sizeof items / sizeof *items; i++)
            server_result(peer, m->cid, slice_text(items[i]), true);
        server_result(peer, m->cid, m->call.input, false);
    } else if (key_begins(m->key, "flood:")) {
        for (unsigned n = (unsigned)(m->call.input.data[0] - '0') * 10; n > 0; n--)
            server_result(peer, m->cid, slice_of(item, sizeof item), true);
        server_result(peer, m->cid, slice_text("true"), false);
    }
}

static void server_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    (void)ctx;
    (void)packet;
    if (m->type == MSG_CALL)
        server_call(peer, m);
    if (m->type != MSG_PUB || key_begins(m->key, "mute:"))
        return;
    if (key_begins(m->key, "pair:")) {
        server_held = m->cid;
        return;
    }
    if (key_begins(m->key, "trigger:")) {
        server_pack(peer, server_held, 1, false);
        server_pack(peer, m->cid, 1, false);
        return;
    }
    server_publish(peer, m);
}

static void server_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    (void)ctx;
    (void)peer;
    (void)info;
}

static void server_down(void *ctx, uint32_t peer)
{
    (void)ctx;
    (void)peer;
}

static int64_t server_turn(void *ctx, struct tick now)
{
    (void)ctx;
    hub_tick(server_hub, now);
    hub_flush(server_hub, now);
    return hub_deadline(server_hub);
}

static void server_term(void *ctx, struct tick now)
{
    (void)ctx;
    (void)now;
    _exit(0);
}

static void server_run(const char *endpoint)
{
    const struct loop_handler handler = {.turn = server_turn, .on_term = server_term};
    const struct hub_self self = {.role = ROLE_ROUTER,
                                  .boot = process_random(),
                                  .cluster = cluster_id(slice_text("stoa")),
                                  .name = "server",
                                  .version = "1",
                                  .win_msgs = 512,
                                  .win_bytes = 8 * MIB};
    const struct hub_handler hub = {
        .on_up = server_up, .on_down = server_down, .on_message = server_message};
    struct strbuf why = {0};
    server_loop = loop_create(&handler);
    struct links *links = links_create(server_loop, NULL, NULL);
    const struct hub_ports ports = links_ports(links);
    server_hub = hub_create(&self, &hub, &ports, NULL, metrics_create(), process_random());
    links_attach(links, server_hub);
    if (links_listen(links, 0, endpoint, &why) != ERR_OK)
        _exit(5);
    loop_run(server_loop);
}

/* Before anything of ZeroMQ exists in this process. */
static pid_t server_start(const char *endpoint)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    server_run(endpoint);
    _exit(6);
}

#endif
