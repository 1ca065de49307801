/* Test support: a listener and a dialer in one process, a socket file and a tcp port for them, and
 * senders that are no Stoa process. For tests, with Check; links_end.h has one end. */
#ifndef STOA_TESTS_LINKS_PAIR_H
#define STOA_TESTS_LINKS_PAIR_H

#include "links_end.h"

#include <arpa/inet.h>
#include <check.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "proto/packet.h"

static char directory[64];
static char ipc[96];
static char tcp[64];

static void free_port_endpoint(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    close(fd);
    snprintf(tcp, sizeof tcp, "tcp://127.0.0.1:%u", ntohs(at.sin_port));
}

static void set_up(void)
{
    snprintf(directory, sizeof directory, "/tmp/stoa-links-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(ipc, sizeof ipc, "ipc://%s/link", directory);
    free_port_endpoint();
    ends_begin();
}

static void tear_down(void)
{
    ends_finish();
    (void)unlink(ipc + strlen("ipc://"));
    ck_assert_int_eq(rmdir(directory), 0);
    ck_assert_uint_eq(buf_alive(), 0);
}
static struct end *server, *dialer;

static bool both_up(void)
{
    return server->peer != 0 && dialer->peer != 0;
}
#define STREAM_PACKETS 20000
#define STREAM_WINDOW 500

static void stream_step(struct tick now)
{
    while (dialer->sent < STREAM_PACKETS && dialer->sent < server->received + STREAM_WINDOW)
        end_send_numbered(dialer, now);
    while (server->sent < STREAM_PACKETS && server->sent < dialer->received + STREAM_WINDOW)
        end_send_numbered(server, now);
    if (server->received == STREAM_PACKETS && dialer->received == STREAM_PACKETS)
        loop_stop(loop);
}
static void *raw_context, *raw_socket[2];

static void *raw_open(const char *identity)
{
    void *zmq = zmq_socket(raw_context, ZMQ_DEALER);
    int linger = 0;
    ck_assert_int_eq(zmq_setsockopt(zmq, ZMQ_LINGER, &linger, sizeof linger), 0);
    if (identity)
        ck_assert_int_eq(zmq_setsockopt(zmq, ZMQ_ROUTING_ID, identity, strlen(identity)), 0);
    return zmq;
}

static void raw_hello(void *zmq, uint64_t incarnation)
{
    struct strbuf packet = {0};
    struct message m = {.type = MSG_HELLO, .slot = SLOT_UNKNOWN};
    m.hello.role = ROLE_PUBLISHER;
    m.hello.cluster = 1;
    m.hello.boot = incarnation;
    m.hello.proto_max = 1;
    m.hello.name = slice_text("raw");
    packet_begin(&packet);
    message_encode(&packet, &m);
    packet_end(&packet, 1, incarnation, 1);
    ck_assert_int_eq(zmq_send(zmq, packet.data, packet.size, 0), (int)packet.size);
    strbuf_free(&packet);
}

static bool server_up(void)
{
    return server->peer != 0;
}

/* Runs a suite of one case with the fixture. */
static int links_suite(const char *name, void (*add)(TCase *tc))
{
    Suite *suite = suite_create(name);
    TCase *tc = tcase_create("sockets");
    tcase_set_timeout(tc, 30);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    add(tc);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}

#endif
