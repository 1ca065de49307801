/* The monitor listener over real sockets on its own loop: routes, methods, bounds, slow clients. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/shell/monitor.h"

static struct loop *loop;
static struct monitor *monitor;
static struct metrics *metrics;
static struct metric *gauge;
static uint16_t port;
static bool ready;
static unsigned refreshed;

/* The client's side, driven from the loop's turn: what is to be sent goes out in pieces of `piece`
 * bytes, what comes is collected until the server closes. */
static struct client {
    int fd;
    const char *request;
    size_t sent, size, piece;
    struct strbuf answer;
    bool closed;
} client;

static int64_t client_turn(void *ctx, struct tick now)
{
    (void)ctx;
    if (client.sent < client.size) {
        size_t left = client.size - client.sent;
        size_t piece = left < client.piece ? left : client.piece;
        ssize_t n =
            send(client.fd, client.request + client.sent, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            client.sent += (size_t)n;
    }
    uint8_t bytes[4096];
    ssize_t n = recv(client.fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0)
        strbuf_put(&client.answer, bytes, (size_t)n);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        client.closed = true;
        loop_stop(loop);
    }
    return now.mono_ns;
}

static void on_term(void *ctx, struct tick now)
{
    (void)ctx;
    (void)now;
}

static bool on_ready(void *ctx, struct strbuf *why)
{
    (void)ctx;
    if (!ready)
        strbuf_put_text(why, "index is being rebuilt");
    return ready;
}

static void on_refresh(void *ctx)
{
    (void)ctx;
    metric_set(gauge, ++refreshed);
}

static int connect_to(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static uint16_t free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static int listen_at(const char *address, struct monitor **out, struct strbuf *why)
{
    const struct monitor_handler handler = {.ready = on_ready, .refresh = on_refresh};
    return monitor_listen(out, loop, address, &handler, metrics, why);
}

static void set_up(void)
{
    const struct loop_handler handler = {.turn = client_turn, .on_term = on_term};
    struct strbuf why = {0};
    char address[32];
    loop = loop_create(&handler);
    metrics = metrics_create();
    gauge = metrics_gauge(metrics, "stoa_test_gauge", "", "A gauge.");
    port = free_port();
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    ck_assert_msg(listen_at(address, &monitor, &why) == ERR_OK, "%s", strbuf_cstr(&why));
    strbuf_free(&why);
}

static void tear_down(void)
{
    monitor_close(&monitor);
    loop_destroy(&loop);
    metrics_destroy(&metrics);
    strbuf_free(&client.answer);
}

static const char *exchange_in_pieces(const char *request, size_t piece)
{
    strbuf_reset(&client.answer);
    client = (struct client){.fd = connect_to(),
                             .request = request,
                             .size = strlen(request),
                             .piece = piece,
                             .answer = client.answer};
    loop_run(loop);
    close(client.fd);
    return strbuf_cstr(&client.answer);
}

static const char *exchange(const char *request)
{
    return exchange_in_pieces(request, SIZE_MAX);
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static bool ends(const char *text, const char *with)
{
    size_t size = strlen(text), tail = strlen(with);
    return size >= tail && strcmp(text + size - tail, with) == 0;
}

START_TEST(health)
{
    const char *answer = exchange("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    ck_assert(starts(answer, "HTTP/1.1 200 OK\r\n"));
    ck_assert(strstr(answer, "Content-Length: 3\r\n"));
    ck_assert(strstr(answer, "Connection: close\r\n"));
    ck_assert(ends(answer, "\r\n\r\nok\n"));
}
END_TEST

START_TEST(readiness_says_why_not)
{
    const char *answer = exchange("GET /readyz?verbose=1 HTTP/1.1\r\n\r\n");
    ck_assert(starts(answer, "HTTP/1.1 503 "));
    ck_assert(ends(answer, "\r\n\r\nindex is being rebuilt\n"));
    ready = true;
    ck_assert(starts(exchange("GET /readyz HTTP/1.1\r\n\r\n"), "HTTP/1.1 200 "));
}
END_TEST

START_TEST(metrics_are_refreshed_and_rendered)
{
    const char *answer = exchange("GET /metrics HTTP/1.1\r\n\r\n");
    ck_assert(starts(answer, "HTTP/1.1 200 "));
    ck_assert(strstr(answer, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    ck_assert(strstr(answer, "\nstoa_test_gauge 1\n"));
    ck_assert(strstr(exchange("GET /metrics HTTP/1.1\r\n\r\n"), "\nstoa_test_gauge 2\n"));
}
END_TEST

START_TEST(an_answer_larger_than_the_socket_buffers)
{
    char name[64];
    for (unsigned i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "stoa_test_series_%u_with_a_long_name", i);
        metrics_counter(metrics, name, "", "One of many, with a help text to make it longer.");
    }
    const char *answer = exchange("GET /metrics HTTP/1.1\r\n\r\n");
    const char *body = strstr(answer, "\r\n\r\n") + 4;
    const char *length = strstr(answer, "Content-Length: ") + strlen("Content-Length: ");
    ck_assert_uint_gt(strlen(body), 1000000);
    ck_assert_uint_eq(strtoul(length, NULL, 10), strlen(body));
}
END_TEST

START_TEST(head_has_no_body)
{
    const char *answer = exchange("HEAD /healthz HTTP/1.1\r\n\r\n");
    ck_assert(starts(answer, "HTTP/1.1 200 "));
    ck_assert(strstr(answer, "Content-Length: 3\r\n"));
    ck_assert(ends(answer, "\r\n\r\n"));
}
END_TEST

static const struct {
    const char *request, *status;
} refusals[] = {
    {"POST /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 405 "},
    {"DELETE /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 "},
    {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "},
    {"GET /healthz/ HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "},
    {"GET /healthz\r\n\r\n", "HTTP/1.1 400 "},
    {"GET /healthz HTTP/2.0\r\n\r\n", "HTTP/1.1 400 "},
    {"\r\n\r\n", "HTTP/1.1 400 "},
    {"\x16\x03\x01 nonsense\r\n\r\n", "HTTP/1.1 400 "},
};

START_TEST(other_requests_are_refused)
{
    const char *answer = exchange(refusals[_i].request);
    ck_assert_msg(starts(answer, refusals[_i].status), "%s", answer);
    if (starts(answer, "HTTP/1.1 405 "))
        ck_assert(strstr(answer, "\r\nAllow: GET, HEAD\r\n"));
}
END_TEST

START_TEST(a_request_may_come_byte_by_byte)
{
    const char *request = "GET /healthz HTTP/1.1\r\nHost: somewhere\r\nUser-Agent: x\r\n\r\n";
    ck_assert(starts(exchange_in_pieces(request, 1), "HTTP/1.1 200 "));
}
END_TEST

START_TEST(a_head_is_bounded)
{
    char *request = mem_zalloc(10001);
    int size = snprintf(request, 100, "GET /healthz HTTP/1.1\r\nX: ");
    memset(request + size, 'a', 10000 - size);
    const char *answer = exchange(request);
    ck_assert(starts(answer, "HTTP/1.1 431 "));
    mem_free(request);
}
END_TEST

START_TEST(a_silent_client_is_dropped)
{
    ck_assert_str_eq(exchange("GET /healthz HT"), "");
    ck_assert(client.closed);
}
END_TEST

START_TEST(connections_are_bounded)
{
    enum { BOUND = 16 };
    int idle[BOUND];
    for (unsigned i = 0; i < BOUND; i++)
        idle[i] = connect_to();
    /* closed without an answer, whereas the idle ones are kept */
    ck_assert_str_eq(exchange("GET /healthz HTTP/1.1\r\n\r\n"), "");
    for (unsigned i = 0; i < BOUND; i++) {
        char byte;
        ck_assert_int_eq(recv(idle[i], &byte, 1, MSG_DONTWAIT), -1);
        ck_assert_int_eq(errno, EAGAIN);
    }
    for (unsigned i = 0; i < BOUND; i++)
        close(idle[i]);
    const char *answer = "";
    while (answer[0] == '\0') /* until the loop has seen the first of them go */
        answer = exchange("GET /healthz HTTP/1.1\r\n\r\n");
    ck_assert(starts(answer, "HTTP/1.1 200 "));
}
END_TEST

START_TEST(addresses_that_do_not_work_are_explained)
{
    struct strbuf why = {0};
    struct monitor *second = NULL;
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    ck_assert_int_eq(listen_at(address, &second, &why), ERR_IO);
    ck_assert(strstr(strbuf_cstr(&why), address) != NULL);
    ck_assert(strstr(strbuf_cstr(&why), "in use") != NULL);
    static const char *const bad[] = {"8090", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:123456",
                                      ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        strbuf_reset(&why);
        ck_assert_int_eq(listen_at(bad[i], &second, &why), ERR_INVALID);
        ck_assert(strstr(strbuf_cstr(&why), "host:port") != NULL);
    }
    ck_assert_ptr_null(second);
    strbuf_free(&why);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("monitor");
    TCase *tc = tcase_create("http");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, health);
    tcase_add_test(tc, readiness_says_why_not);
    tcase_add_test(tc, metrics_are_refreshed_and_rendered);
    tcase_add_test(tc, an_answer_larger_than_the_socket_buffers);
    tcase_add_test(tc, head_has_no_body);
    tcase_add_loop_test(tc, other_requests_are_refused, 0, sizeof refusals / sizeof *refusals);
    tcase_add_test(tc, a_request_may_come_byte_by_byte);
    tcase_add_test(tc, a_head_is_bounded);
    tcase_add_test(tc, a_silent_client_is_dropped);
    tcase_add_test(tc, connections_are_bounded);
    tcase_add_test(tc, addresses_that_do_not_work_are_explained);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
