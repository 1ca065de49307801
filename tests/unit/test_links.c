/* Links over real ZeroMQ sockets on a real loop: order, no stall, death and return of a peer,
 * HANDOVER, hostile senders, addresses that do not work. test_links_curve.c has the keys. */
#include "links_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/hash.h"

static const char *endpoint_of(int i)
{
    return i == 0 ? ipc : tcp;
}
static void pair_up(const char *endpoint)
{
    server = end_create(NULL);
    dialer = end_create(NULL);
    end_listen(server, endpoint);
    end_dial(dialer, endpoint);
    await(both_up);
}

/* ---- order and stalls ---- */
START_TEST(packets_arrive_in_order_both_ways)
{
    pair_up(endpoint_of(_i));
    ticking = false;
    step = stream_step;
    loop_run(loop);
    ck_assert_uint_eq(server->received, STREAM_PACKETS);
    ck_assert_uint_eq(dialer->received, STREAM_PACKETS);
    ck_assert_uint_eq(server->ups + dialer->ups, 2);
    ck_assert_uint_eq(server->downs + dialer->downs, 0);
}
END_TEST

/* The workload that stalls a loop which trusts ZMQ_FD: every receive is followed by a send. */
#define ECHO_DIALERS 64
#define ECHO_ROUNDS 400

static unsigned echo_done;

static void echo_again(struct end *e, uint32_t peer, const struct message *m)
{
    ck_assert_uint_eq(m->cid, e->sent);
    if (e->sent == ECHO_ROUNDS) {
        if (++echo_done == ECHO_DIALERS)
            loop_stop(loop);
        return;
    }
    struct message next = *m;
    next.cid = ++e->sent;
    hub_send(e->hub, peer, &next);
}

static bool all_dialers_up(void)
{
    for (unsigned i = 1; i < n_ends; i++)
        if (ends[i].peer == 0)
            return false;
    return true;
}

static void echo_start(struct tick now)
{
    for (unsigned i = 1; i < n_ends; i++)
        if (ends[i].sent == 0)
            end_send_numbered(&ends[i], now);
}

START_TEST(echoes_of_many_never_stall)
{
    server = end_create(NULL);
    server->echo = true;
    end_listen(server, endpoint_of(_i));
    for (unsigned i = 0; i < ECHO_DIALERS; i++) {
        struct end *e = end_create(NULL);
        e->on_message = echo_again;
        end_dial(e, endpoint_of(_i));
    }
    await(all_dialers_up);
    ticking = false;
    step = echo_start;
    loop_run(loop);
    ck_assert_uint_eq(server->received, ECHO_DIALERS * ECHO_ROUNDS);
}
END_TEST

/* Around the size up to which packets are copied, and up to the largest. */
static const size_t body_sizes[] = {0,    1,     1900,  2047, 2048,
                                    2049, 65535, 65536, MIB,  BODY_MAX_BYTES};
#define N_BODY_SIZES (sizeof body_sizes / sizeof *body_sizes)

static void body_check(struct end *e, uint32_t peer, const struct message *m)
{
    (void)peer;
    struct slice body = m->answer.json;
    ck_assert_uint_eq(body.size, body_sizes[e->received - 1]);
    ck_assert_uint_eq(m->answer.status, crc32c(0, body.data, body.size));
    if (e->received == N_BODY_SIZES)
        loop_stop(loop);
}

START_TEST(bodies_of_all_sizes_arrive_unchanged)
{
    pair_up(endpoint_of(_i));
    server->on_message = body_check;
    uint8_t *bytes = mem_alloc(BODY_MAX_BYTES);
    process_random_bytes(bytes, BODY_MAX_BYTES);
    for (size_t i = 0; i < N_BODY_SIZES; i++) {
        struct message m = {.type = MSG_ANSWER, .slot = SLOT_UNKNOWN};
        m.answer.json = slice_of(bytes, body_sizes[i]);
        m.answer.status = crc32c(0, bytes, body_sizes[i]);
        hub_send(dialer->hub, dialer->peer, &m);
    }
    loop_run(loop);
    ck_assert_uint_eq(server->received, N_BODY_SIZES);
    mem_free(bytes);
}
END_TEST

/* ---- death and return; the other end is a process of its own: this program with arguments ---- */

static pid_t child;

static void child_start(const char *how, const char *endpoint)
{
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        execl("/proc/self/exe", "test_links", how, endpoint, (char *)NULL);
        _exit(127);
    }
}

static void child_kill(void)
{
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
}

static void greet_step(struct tick now)
{
    if (ends[0].peer != 0 && ends[0].sent == 0)
        end_send_numbered(&ends[0], now);
}

static int child_main(const char *how, const char *endpoint)
{
    process_die_with_parent();
    ends_begin();
    struct end *e = end_create(NULL);
    if (strcmp(how, "listen") == 0)
        end_listen(e, endpoint);
    else
        end_dial(e, endpoint);
    if (strcmp(how, "greet") == 0)
        step = greet_step;
    loop_run(loop);
    hub_goodbye(e->hub, loop_now(loop));
    ends_finish();
    return 0;
}

static struct end *me;

static bool me_up(void)
{
    return me->peer != 0;
}

static bool me_down(void)
{
    return me->peer == 0;
}

START_TEST(a_killed_listener_is_noticed_and_found_again)
{
    me = end_create(NULL);
    end_dial(me, endpoint_of(_i)); /* before anybody listens */
    uint64_t boot = 0;
    for (unsigned life = 1; life <= 3; life++) {
        child_start("listen", endpoint_of(_i));
        await(me_up);
        ck_assert_uint_eq(me->ups, life);
        ck_assert_uint_ne(me->peer_boot, boot);
        boot = me->peer_boot;
        child_kill();
        await(me_down);
        ck_assert_uint_eq(me->downs, life);
    }
}
END_TEST

START_TEST(a_killed_dialer_is_noticed_and_comes_back)
{
    me = end_create(NULL);
    end_listen(me, endpoint_of(_i));
    child_start("dial", endpoint_of(_i));
    await(me_up);
    uint64_t boot = me->peer_boot;
    child_kill();
    await(me_down);
    child_start("dial", endpoint_of(_i));
    await(me_up);
    ck_assert_uint_ne(me->peer_boot, boot);
    ck_assert_uint_eq(me->ups, 2);
    child_kill();
}
END_TEST

static bool me_greeted(void)
{
    return me->received == 1;
}

START_TEST(goodbye_is_sent_before_the_process_ends)
{
    me = end_create(NULL);
    end_listen(me, endpoint_of(_i));
    child_start("greet", endpoint_of(_i));
    await(me_greeted); /* it knows that it is up */
    ck_assert_int_eq(kill(child, SIGTERM), 0);
    await(me_down);
    ck_assert_msg(end_logged(me, "goodbye"), "%s", strbuf_cstr(&me->logged));
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
END_TEST

/* ---- senders that are no Stoa process ---- */

static void *raw_connect(const char *endpoint, const char *identity)
{
    void *zmq = raw_open(identity);
    ck_assert_int_eq(zmq_connect(zmq, endpoint), 0);
    return zmq;
}

static int64_t raw_wait_answer(void *zmq)
{
    uint8_t bytes[4096];
    int n = zmq_recv(zmq, bytes, sizeof bytes, ZMQ_DONTWAIT);
    struct packet_reader r;
    if (n < 0 || packet_open(slice_of(bytes, (size_t)n), &r) != ERR_OK)
        return -1;
    return (int64_t)r.header.incarnation;
}

static bool second_raw_welcomed(void)
{
    return raw_wait_answer(raw_socket[1]) == 222;
}

static bool server_up_twice(void)
{
    return server->ups == 2;
}
/* Two connections with one routing id: the newer one gets the answers. */
START_TEST(a_routing_id_is_handed_over_to_the_newer_connection)
{
    server = end_create(NULL);
    end_listen(server, endpoint_of(_i));
    raw_context = zmq_ctx_new();
    raw_socket[0] = raw_connect(endpoint_of(_i), "same");
    raw_hello(raw_socket[0], 111);
    await(server_up);
    uint32_t first = server->peer;
    raw_socket[1] = raw_connect(endpoint_of(_i), "same");
    raw_hello(raw_socket[1], 222);
    await(server_up_twice);
    ck_assert_uint_eq(server->downs, 1);
    ck_assert_uint_eq(server->peer, first);
    await(second_raw_welcomed);
    zmq_close(raw_socket[0]);
    zmq_close(raw_socket[1]);
    zmq_ctx_term(raw_context);
}
END_TEST

static bool server_down_twice(void)
{
    return server->downs == 2;
}

/* What the older connection still sends finds no reader, and libzmq stops reading it: its
 * heartbeats would end the process once that connection breaks. */
START_TEST(data_behind_a_handover_does_no_harm)
{
    int linger_ms = 1000;
    server = end_create(NULL);
    end_listen(server, endpoint_of(_i));
    raw_context = zmq_ctx_new();
    raw_socket[0] = raw_connect(endpoint_of(_i), "same");
    raw_hello(raw_socket[0], 111);
    await(server_up);
    raw_socket[1] = raw_connect(endpoint_of(_i), "same");
    raw_hello(raw_socket[1], 222);
    await(server_up_twice);
    ck_assert_int_eq(zmq_send(raw_socket[0], "late", 4, 0), 4);
    zmq_setsockopt(raw_socket[0], ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zmq_close(raw_socket[0]);
    await(server_down_twice); /* the newer one falls silent: the loop still turns by then */
    zmq_close(raw_socket[1]);
    zmq_ctx_term(raw_context);
}
END_TEST

static bool dialer_up(void)
{
    return dialer->peer != 0;
}

START_TEST(strangers_do_not_disturb)
{
    pair_up(endpoint_of(_i));
    raw_context = zmq_ctx_new();
    void *raw = raw_connect(endpoint_of(_i), NULL);
    zmq_send(raw, "", 0, 0);
    zmq_send(raw, "garbage", 7, 0);
    zmq_send(raw, "one", 3, ZMQ_SNDMORE);
    zmq_send(raw, "two", 3, ZMQ_SNDMORE);
    zmq_send(raw, "three", 5, 0);
    uint8_t *large = mem_zalloc(PACKET_MAX_BYTES + 2 * KIB); /* ends its connection, no other */
    zmq_send(raw, large, PACKET_MAX_BYTES + 2 * KIB, 0);
    mem_free(large);
    void *other = raw_connect(endpoint_of(_i), NULL);
    raw_hello(other, 5);
    await(server_up_twice);
    ck_assert_uint_eq(server->downs, 0);
    ck_assert(dialer_up());
    ticking = false;
    server->peer = hub_next_up(server->hub, 0);
    step = stream_step;
    loop_run(loop);
    zmq_close(raw);
    zmq_close(other);
    zmq_ctx_term(raw_context);
}
END_TEST
/* ---- addresses ---- */

static const struct {
    const char *endpoint;
    bool listen;
    int code;
    const char *text;
} bad_endpoints[] = {
    {"", false, ERR_INVALID, "host:port"},
    {"localhost", false, ERR_INVALID, "host:port"},
    {":7100", false, ERR_INVALID, "host:port"},
    {"host:", false, ERR_INVALID, "port"},
    {"host:0", false, ERR_INVALID, "port"},
    {"host:65536", false, ERR_INVALID, "port"},
    {"host:71x0", false, ERR_INVALID, "port"},
    {"*:7100", false, ERR_INVALID, "listen"},
    {"::1:7100", false, ERR_INVALID, "brackets"},
    {"udp://host:7100", false, ERR_INVALID, "tcp://"},
    {"tcp://lo;127.0.0.1:7100", false, ERR_INVALID, "host:port"},
    {"ipc://", true, ERR_INVALID, "path"},
    {"ipc://@abstract", true, ERR_INVALID, "path"},
    {"ipc:///tmp/no/such/directory/socket", true, ERR_IO, "create it"},
    {"ipc:///etc/passwd/socket", true, ERR_IO, "not a directory"},
    {"ipc:///etc/passwd", true, ERR_REFUSED, "not a socket"},
    {"192.0.2.1:7100", true, ERR_IO, "does not have that address"},
    {"no-such-host.invalid:7100", true, ERR_INVALID, "use an address"},
    {"ipc:///tmp/"
     "longer-0123456789012345678901234567890123456789012345678901234567890123456789012345678901"
     "234567890123456789",
     true, ERR_INVALID, "at most 107"},
};

START_TEST(addresses_that_do_not_work_are_explained)
{
    struct strbuf why = {0};
    struct end *e = end_create(NULL);
    const char *endpoint = bad_endpoints[_i].endpoint;
    int code = bad_endpoints[_i].listen ? links_listen(e->links, 0, endpoint, &why)
                                        : links_dial(e->links, hub_dial(e->hub), endpoint, &why);
    ck_assert_msg(code == bad_endpoints[_i].code, "%s: %s, %s", endpoint, err_name(code),
                  strbuf_cstr(&why));
    ck_assert_msg(strstr(strbuf_cstr(&why), bad_endpoints[_i].text) != NULL, "%s",
                  strbuf_cstr(&why));
    ck_assert_ptr_null(strchr(strbuf_cstr(&why), '\n'));
    strbuf_free(&why);
}
END_TEST

START_TEST(an_address_in_use_is_refused)
{
    struct strbuf why = {0};
    server = end_create(NULL);
    dialer = end_create(NULL);
    end_listen(server, endpoint_of(_i));
    int code = links_listen(dialer->links, 0, endpoint_of(_i), &why);
    ck_assert(code == ERR_IO || code == ERR_REFUSED);
    ck_assert(strstr(strbuf_cstr(&why), "another process listens there") != NULL);
    ck_assert(strstr(strbuf_cstr(&why), endpoint_of(_i)) != NULL);
    strbuf_free(&why);
    end_dial(dialer, endpoint_of(_i)); /* and the first one still serves */
    await(both_up);
}
END_TEST

START_TEST(socket_files_are_private_and_stale_ones_replaced)
{
    const char *path = ipc + strlen("ipc://");
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    close(fd); /* the file stays, as after kill -9 */
    pair_up(ipc);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert(S_ISSOCK(st.st_mode));
    ck_assert_int_eq(st.st_mode & 0777, 0600);
}
END_TEST

START_TEST(names_and_bare_addresses_are_understood)
{
    server = end_create(NULL);
    dialer = end_create(NULL);
    char bare[64], name[64];
    const char *port = strrchr(tcp, ':') + 1;
    snprintf(name, sizeof name, "localhost:%s", port);
    snprintf(bare, sizeof bare, "127.0.0.1:%s", port);
    end_listen(server, name);
    end_dial(dialer, bare);
    await(both_up);
}
END_TEST

/* ---- the loop itself ---- */

static unsigned turns;
static int64_t wake_ns;

static int64_t deadline_turn(void *ctx, struct tick now)
{
    (void)ctx;
    turns++;
    if (wake_ns == 0)
        wake_ns = now.mono_ns + 20 * NS_PER_MS;
    if (now.mono_ns >= wake_ns)
        loop_stop(loop);
    return wake_ns;
}

START_TEST(the_loop_sleeps_until_the_deadline)
{
    loop_destroy(&loop);
    const struct loop_handler handler = {.turn = deadline_turn, .on_term = ends_term};
    loop = loop_create(&handler);
    loop_run(loop);
    ck_assert_int_ge(clock_now().mono_ns, wake_ns);
    ck_assert_uint_lt(turns, 10); /* it slept, it did not spin */
}
END_TEST

static unsigned work_left = 1000, reloads;

static bool work_pending(void *ctx)
{
    (void)ctx;
    if (work_left == 0)
        return false;
    work_left--;
    return true;
}

static int64_t work_turn(void *ctx, struct tick now)
{
    (void)ctx;
    (void)now;
    turns++;
    if (work_left == 0)
        (void)raise(SIGHUP);
    return TICK_NEVER;
}

static void on_reload(void *ctx, struct tick now)
{
    (void)ctx;
    (void)now;
    if (++reloads == 2)
        (void)raise(SIGTERM);
}

START_TEST(the_loop_works_off_sources_and_owns_its_signals)
{
    loop_destroy(&loop);
    const struct loop_handler handler = {
        .turn = work_turn, .on_term = ends_term, .on_reload = on_reload};
    loop = loop_create(&handler);
    loop_add_source(loop, work_pending, NULL);
    loop_run(loop); /* with nothing else to wake it, it must not sleep before the work is done */
    ck_assert_uint_eq(work_left, 0);
    ck_assert_uint_ge(turns, 1000);
    ck_assert_uint_ge(reloads, 2);
}
END_TEST

static void add(TCase *tc)
{
    tcase_add_loop_test(tc, packets_arrive_in_order_both_ways, 0, 2);
    tcase_add_loop_test(tc, echoes_of_many_never_stall, 0, 2);
    tcase_add_loop_test(tc, bodies_of_all_sizes_arrive_unchanged, 0, 2);
    tcase_add_loop_test(tc, a_killed_listener_is_noticed_and_found_again, 0, 2);
    tcase_add_loop_test(tc, a_killed_dialer_is_noticed_and_comes_back, 0, 2);
    tcase_add_loop_test(tc, goodbye_is_sent_before_the_process_ends, 0, 2);
    tcase_add_loop_test(tc, a_routing_id_is_handed_over_to_the_newer_connection, 0, 2);
    tcase_add_loop_test(tc, data_behind_a_handover_does_no_harm, 0, 2);
    tcase_add_loop_test(tc, strangers_do_not_disturb, 0, 2);
    tcase_add_loop_test(tc, addresses_that_do_not_work_are_explained, 0,
                        sizeof bad_endpoints / sizeof *bad_endpoints);
    tcase_add_loop_test(tc, an_address_in_use_is_refused, 0, 2);
    tcase_add_test(tc, socket_files_are_private_and_stale_ones_replaced);
    tcase_add_test(tc, names_and_bare_addresses_are_understood);
    tcase_add_test(tc, the_loop_sleeps_until_the_deadline);
    tcase_add_test(tc, the_loop_works_off_sources_and_owns_its_signals);
}

int main(int argc, char **argv)
{
    return argc == 3 ? child_main(argv[1], argv[2]) : links_suite("links", add);
}
