/* Rooms asked through the whole of libstoa over ipc: several threads, items while others wait,
 * callbacks that ask, bounds, closing. */
#include "client_server.h"

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>

#include <stoa.h>

#define THREADS 4
#define CALLS 150

enum driving { LIBRARY_THREAD, WAITERS, POLLER };

static char directory[64], endpoint[96];
static pid_t server;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned reports; /* outcomes told by callbacks; under the lock */
static bool stop_polling;

static void set_up(void)
{
    snprintf(directory, sizeof directory, "/tmp/stoa-client-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(endpoint, sizeof endpoint, "ipc://%s/router", directory);
    reports = 0;
    stop_polling = false;
    server = server_start(endpoint);
    ck_assert_int_gt(server, 0);
}

static void tear_down(void)
{
    int status;
    kill(server, SIGKILL);
    ck_assert_int_eq(waitpid(server, &status, 0), server);
    (void)unlink(endpoint + strlen("ipc://"));
    ck_assert_int_eq(rmdir(directory), 0);
}

static stoa *open_with(stoa_options *o)
{
    stoa *s;
    char why[256] = "";
    o->routers = endpoint;
    int code = stoa_open(&s, o, why);
    ck_assert_msg(code == STOA_OK, "%s", why);
    return s;
}

static stoa *open_plain(bool threaded)
{
    stoa_options o = STOA_OPTIONS_INIT;
    o.threaded = threaded;
    return open_with(&o);
}

static void reported(void)
{
    pthread_mutex_lock(&lock);
    reports++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void await_reports(unsigned n)
{
    pthread_mutex_lock(&lock);
    while (reports < n)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

/* ---- several threads ---- */

struct worker {
    stoa *s;
    pthread_t thread;
    unsigned number, submitted;
    bool only_waits;
};

struct question { /* on its way */
    char input[32];
    unsigned items;
    bool streams;
};

static void on_item(void *arg, const char *json, size_t size)
{
    struct question *q = arg;
    ck_assert_uint_eq(size, 1);
    ck_assert_uint_eq(json[0] - '0', ++q->items);
}

static void on_result(void *arg, int status, const stoa_result *result)
{
    struct question *q = arg;
    ck_assert_int_eq(status, STOA_OK);
    ck_assert_str_eq(result->data, q->input);
    ck_assert_uint_eq(q->items, q->streams ? 3 : 0);
    free(q);
    reported();
}

static void ask_one(struct worker *w, unsigned n)
{
    struct question *q = calloc(1, sizeof *q);
    stoa_call_options o = STOA_CALL_OPTIONS_INIT;
    size_t size = (size_t)snprintf(q->input, sizeof q->input, "[%u,%u]", w->number, n);
    q->streams = n % 3 == 0;
    o.on_item = q->streams ? on_item : NULL;
    o.item_arg = q;
    int code;
    if (w->only_waits || n % 8 == 0) {
        stoa_result *r;
        while ((code = stoa_call(w->s, "echo:1", "m", q->input, size, &o, &r)) == STOA_BUSY)
            sched_yield();
        on_result(q, code, r);
        stoa_result_free(r);
        return;
    }
    while ((code = stoa_call_async(w->s, "echo:1", "m", q->input, size, &o, on_result, q)) ==
           STOA_BUSY)
        sched_yield();
    ck_assert_int_eq(code, STOA_OK);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    for (unsigned n = 0; n < CALLS; n++)
        ask_one(w, n);
    return NULL;
}

static void *poll_until_told(void *arg)
{
    stoa *s = arg;
    for (;;) {
        pthread_mutex_lock(&lock);
        bool stop = stop_polling;
        pthread_mutex_unlock(&lock);
        if (stop)
            return NULL;
        ck_assert_int_ge(stoa_poll(s, 5), 0);
    }
}

START_TEST(four_threads)
{
    enum driving driving = (enum driving)_i;
    stoa *s = open_plain(driving == LIBRARY_THREAD);
    struct worker workers[THREADS] = {{0}};
    pthread_t poller;
    if (driving == POLLER)
        ck_assert_int_eq(pthread_create(&poller, NULL, poll_until_told, s), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.s = s, .number = i, .only_waits = driving == WAITERS};
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    await_reports(THREADS * CALLS);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_join(workers[i].thread, NULL), 0);
    if (driving == POLLER) {
        pthread_mutex_lock(&lock);
        stop_polling = true;
        pthread_mutex_unlock(&lock);
        ck_assert_int_eq(pthread_join(poller, NULL), 0);
    }
    stoa_close(s, 1000);
    ck_assert_uint_eq(reports, THREADS * CALLS);
}
END_TEST

/* ---- items ---- */

static void *wait_for_echo(void *arg)
{
    stoa_result *r;
    ck_assert_int_eq(stoa_send(arg, "echo:2", "5", 1, NULL, &r), STOA_OK);
    ck_assert_str_eq(r->data, "5");
    stoa_result_free(r);
    return NULL;
}

static void item_that_waits(void *arg, const char *json, size_t size)
{
    pthread_t other;
    stoa_result *r;
    (void)json;
    (void)size;
    /* Another thread gets its answer although this one, which had driven, does something else ...
     */
    ck_assert_int_eq(pthread_create(&other, NULL, wait_for_echo, arg), 0);
    ck_assert_int_eq(pthread_join(other, NULL), 0);
    /* ... and it may ask, too. */
    ck_assert_int_eq(stoa_call(arg, "echo:3", "m", "\"in\"", 4, NULL, &r), STOA_OK);
    ck_assert_str_eq(r->data, "\"in\"");
    stoa_result_free(r);
    reported();
}

START_TEST(others_go_on_while_an_item_is_taken)
{
    stoa *s = open_plain(_i == 1);
    stoa_call_options o = STOA_CALL_OPTIONS_INIT;
    o.on_item = item_that_waits;
    o.item_arg = s;
    ck_assert_int_eq(stoa_call(s, "echo:1", "m", NULL, 0, &o, NULL), STOA_OK);
    ck_assert_uint_eq(reports, 3);
    stoa_close(s, 1000);
}
END_TEST

#ifndef __SANITIZE_THREAD__
struct flood {
    unsigned items;
    int status;
    bool told;
};

static void flood_item(void *arg, const char *json, size_t size)
{
    struct flood *f = arg;
    ck_assert_uint_eq(size, FLOOD_ITEM_BYTES);
    ck_assert_int_eq(json[size - 1], '7');
    ck_assert_int_eq(json[size], '\0');
    f->items++;
}

static void flood_end(void *arg, int status, const stoa_result *result)
{
    struct flood *f = arg;
    ck_assert_str_eq(result->data, "true");
    f->status = status;
    f->told = true;
}

START_TEST(items_that_nobody_takes_are_bounded)
{
    stoa *s = open_plain(false);
    stoa_call_options o = STOA_CALL_OPTIONS_INIT;
    struct flood f = {0};
    o.on_item = flood_item;
    o.item_arg = &f;
    ck_assert_int_eq(stoa_call_async(s, "flood:1", "m", "6", 1, &o, flood_end, &f), STOA_OK);
    /* A call that waits turns the loop, and runs no callbacks of others; the answer to it comes
     * behind the flood. */
    stoa_result *r;
    ck_assert_int_eq(stoa_call(s, "echo:1", "m", "1", 1, NULL, &r), STOA_OK);
    stoa_result_free(r);
    ck_assert_uint_eq(f.items, 0);
    while (!f.told)
        ck_assert_int_ge(stoa_poll(s, 1000), 0);
    ck_assert_int_eq(f.status, STOA_MISSED);
    ck_assert_uint_eq(f.items, 32); /* 16 MiB of 30 */
    f = (struct flood){0};
    ck_assert_int_eq(stoa_call(s, "flood:1", "m", "6", 1, &o, NULL), STOA_OK); /* taken at once */
    ck_assert_uint_eq(f.items, 60);
    stoa_close(s, 1000);
}
END_TEST
#endif

START_TEST(items_come_to_who_wants_no_outcome)
{
    stoa *s = open_plain(false);
    stoa_call_options o = STOA_CALL_OPTIONS_INIT;
    struct question q = {.streams = true};
    o.on_item = on_item;
    o.item_arg = &q;
    ck_assert_int_eq(stoa_call_async(s, "echo:1", "m", NULL, 0, &o, NULL, NULL), STOA_OK);
    while (q.items < 3)
        ck_assert_int_ge(stoa_poll(s, 1000), 0);
    stoa_close(s, 1000);
}
END_TEST

/* ---- bounds, closing ---- */

START_TEST(the_queue_is_shared_and_bounded)
{
    stoa_options o = STOA_OPTIONS_INIT;
    o.queue_max_events = 2;
    stoa *s = open_with(&o);
    stoa_result *r = (stoa_result *)(void *)s; /* anything: it is set */
    ck_assert_int_eq(stoa_call_async(s, "mute:1", "m", NULL, 0, NULL, NULL, NULL), STOA_OK);
    ck_assert_int_eq(stoa_publish_async(s, "mute:1", "1", 1, NULL, NULL, NULL), STOA_OK);
    ck_assert_int_eq(stoa_call_async(s, "mute:1", "m", NULL, 0, NULL, NULL, NULL), STOA_BUSY);
    ck_assert_int_eq(stoa_call(s, "mute:1", "m", NULL, 0, NULL, &r), STOA_BUSY);
    ck_assert_ptr_null(r);
    stoa_close(s, 0);
}
END_TEST

static void unknown_result(void *arg, int status, const stoa_result *result)
{
    (void)arg;
    ck_assert_int_eq(status, STOA_UNKNOWN);
    ck_assert_str_eq(result->tag, "Unknown");
    reported();
}

START_TEST(close_reports_unknown)
{
    stoa *s = open_plain(_i == 1);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(stoa_send_async(s, "mute:1", "1", 1, NULL, unknown_result, NULL), STOA_OK);
    ck_assert_int_eq(stoa_state_async(s, "mute:1", NULL, unknown_result, NULL), STOA_OK);
    stoa_close(s, 20);
    ck_assert_uint_eq(reports, 4);
}
END_TEST

static void callback_that_waits(void *arg, int status, const stoa_result *result)
{
    stoa_call_options o = STOA_CALL_OPTIONS_INIT;
    stoa_result *r;
    (void)result;
    ck_assert_int_eq(status, STOA_OK);
    reported();
    o.on_item = on_item;
    int code = stoa_call(arg, "mute:1", "m", NULL, 0, &o, &r);
    ck_assert(code == STOA_UNKNOWN || code == STOA_CLOSED);
    stoa_result_free(r);
    reported();
}

START_TEST(close_frees_a_waiting_callback)
{
    stoa *s = open_plain(true);
    ck_assert_int_eq(stoa_send_async(s, "echo:1", "1", 1, NULL, callback_that_waits, s), STOA_OK);
    await_reports(1);
    stoa_close(s, 0);
    ck_assert_uint_eq(reports, 2);
}
END_TEST

START_TEST(a_time_limit_is_kept)
{
    stoa *s = open_plain(_i == 1);
    stoa_call_options o = STOA_CALL_OPTIONS_INIT;
    stoa_result *r;
    ck_assert_int_eq(stoa_call(s, "echo:1", "m", NULL, 0, NULL, NULL),
                     STOA_OK); /* the link is up */
    o.timeout_ms = 100;
    ck_assert_int_eq(stoa_call(s, "mute:1", "m", NULL, 0, &o, &r), STOA_UNKNOWN);
    ck_assert_int_eq(r->status, 504);
    ck_assert_str_eq(r->data, "");
    stoa_result_free(r);
    ck_assert_int_eq(stoa_state(s, "mute:1", &o, &r), STOA_TIMEOUT);
    stoa_result_free(r);
    stoa_result_free(NULL);
    stoa_close(s, 0);
}
END_TEST

START_TEST(each_function_checks_what_it_is_given)
{
    stoa *s = open_plain(false);
    stoa_result *r;
    ck_assert_int_eq(stoa_send(s, NULL, "1", 1, NULL, &r), STOA_INVALID);
    ck_assert_ptr_null(r);
    ck_assert_int_eq(stoa_send(NULL, "k", "1", 1, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_send(s, "k", "", 0, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_broadcast(s, "k", "{", 1, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_call(s, "k", NULL, NULL, 0, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_state(s, "$k", NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_connections(s, "k", "\xff", NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_close_room(s, "k", 1, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_fire_alarm(s, "", NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_purge(s, "", NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_broadcast_async(s, "k", "{", 1, NULL, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_close_room_async(s, "k", 1, NULL, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_connections_async(s, "", NULL, NULL, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_fire_alarm_async(s, "", NULL, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_purge_async(s, "", NULL, NULL, NULL), STOA_INVALID);
    stoa_close(s, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("client_rooms");
    TCase *t = tcase_create("rooms");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, four_threads, LIBRARY_THREAD, POLLER + 1);
    tcase_add_loop_test(t, others_go_on_while_an_item_is_taken, 0, 2);
#ifndef __SANITIZE_THREAD__ /* it looks long for what it is to suppress in packets of libzmq */
    tcase_add_test(t, items_that_nobody_takes_are_bounded);
#endif
    tcase_add_test(t, items_come_to_who_wants_no_outcome);
    tcase_add_test(t, the_queue_is_shared_and_bounded);
    tcase_add_loop_test(t, close_reports_unknown, 0, 2);
    tcase_add_test(t, close_frees_a_waiting_callback);
    tcase_add_loop_test(t, a_time_limit_is_kept, 0, 2);
    tcase_add_test(t, each_function_checks_what_it_is_given);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
