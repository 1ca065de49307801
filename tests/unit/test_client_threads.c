/* The whole of libstoa over ipc: several threads, foreign event loops, closing, taking over. */
#include "client_server.h"

#include <check.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <zmq.h>

#include <stoa.h>

#define THREADS 4
#define EVENTS 400

enum driving { LIBRARY_THREAD, WAITERS, POLLER };

static char directory[64];
static char endpoints[2][96];
static pid_t servers[2];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned reports; /* callbacks that ran; under the lock */
static bool stop_polling;

static void set_up(void)
{
    snprintf(directory, sizeof directory, "/tmp/stoa-client-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    for (int i = 0; i < 2; i++) {
        snprintf(endpoints[i], sizeof endpoints[i], "ipc://%s/router-%d", directory, i);
        servers[i] = server_start(endpoints[i]);
        ck_assert_int_gt(servers[i], 0);
    }
}

/* A server that was asked to end and had no complaint ends with 0. */
static void server_stop(int i, int signal)
{
    int status;
    if (servers[i] == 0)
        return;
    char path[96];
    struct stat unused;
    snprintf(path, sizeof path, "%s", endpoints[i] + strlen("ipc://"));
    while (stat(path, &unused) != 0 && waitpid(servers[i], &status, WNOHANG) == 0)
        (void)poll(NULL, 0, 1); /* it has not got so far */
    kill(servers[i], signal);
    ck_assert_int_eq(waitpid(servers[i], &status, 0), servers[i]);
    if (signal == SIGTERM)
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    servers[i] = 0;
    (void)unlink(path);
}

static void tear_down(void)
{
    server_stop(0, SIGTERM);
    server_stop(1, SIGTERM);
    ck_assert_int_eq(rmdir(directory), 0);
}

static stoa *open_with(stoa_options *o)
{
    stoa *s;
    char why[256] = "";
    if (!o->routers)
        o->routers = endpoints[0];
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
    char key[16];
    bool only_waits;
    uint64_t last_seq; /* of its callbacks, which one thread runs */
    unsigned submitted;
};

static void on_ack(void *arg, int status, const stoa_id *id)
{
    struct worker *w = arg;
    ck_assert_int_eq(status, STOA_OK);
    ck_assert_uint_gt(id->seq, w->last_seq);
    w->last_seq = id->seq;
    reported();
}

static void publish_number(struct worker *w, unsigned n)
{
    char text[16];
    stoa_id id;
    size_t size = (size_t)snprintf(text, sizeof text, "%u", n);
    int code;
    if (w->only_waits || n % 16 == 0) {
        while ((code = stoa_publish(w->s, w->key, text, size, NULL, &id)) == STOA_BUSY)
            sched_yield();
        ck_assert_int_eq(code, STOA_OK);
        ck_assert_uint_eq(id.seq, n);
        return;
    }
    while ((code = stoa_publish_async(w->s, w->key, text, size, NULL, on_ack, w)) == STOA_BUSY)
        sched_yield();
    ck_assert_int_eq(code, STOA_OK);
    w->submitted++;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    for (unsigned n = 1; n <= EVENTS; n++)
        publish_number(w, n);
    return NULL;
}

static void *poll_on(void *arg)
{
    bool stop = false;
    while (!stop) {
        ck_assert_int_ge(stoa_poll(arg, 20), 0);
        pthread_mutex_lock(&lock);
        stop = stop_polling;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

START_TEST(four_threads)
{
    enum driving driving = (enum driving)_i;
    stoa_options o = STOA_OPTIONS_INIT;
    struct worker workers[THREADS] = {0};
    pthread_t poller;
    unsigned submitted = 0;
    o.threaded = driving == LIBRARY_THREAD;
    o.queue_max_events = 100; /* so that it is full at times */
    stoa *s = open_with(&o);
    if (driving == POLLER)
        ck_assert_int_eq(pthread_create(&poller, NULL, poll_on, s), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        struct worker *w = &workers[i];
        w->s = s;
        w->only_waits = driving == WAITERS;
        snprintf(w->key, sizeof w->key, "ok:%u", i);
        ck_assert_int_eq(pthread_create(&w->thread, NULL, work, w), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        submitted += workers[i].submitted;
    }
    await_reports(submitted);
    if (driving == POLLER) {
        pthread_mutex_lock(&lock);
        stop_polling = true;
        pthread_mutex_unlock(&lock);
        pthread_join(poller, NULL);
    }
    stoa_close(s, 1000);
    ck_assert_uint_eq(reports, submitted);
}
END_TEST

/* Half-way the router is killed; the other one knows nothing of what was stored. */
START_TEST(another_router)
{
    char routers[200];
    stoa_options o = STOA_OPTIONS_INIT;
    struct worker w = {.key = "ok:a"};
    snprintf(routers, sizeof routers, "%s, %s", endpoints[0], endpoints[1]);
    o.routers = routers;
    o.threaded = 1;
    w.s = open_with(&o);
    for (unsigned n = 1; n < 160; n++)
        publish_number(&w, n);
    await_reports(20);
    server_stop(0, SIGKILL);
    for (unsigned n = 160; n <= 320; n++)
        publish_number(&w, n);
    await_reports(w.submitted);
    stoa_close(w.s, 1000);
    ck_assert_uint_eq(reports, w.submitted);
}
END_TEST

/* ---- foreign loops ---- */

static void note(void *arg, int status, const stoa_id *id)
{
    (void)id;
    ck_assert_int_eq(status, *(const int *)arg);
    reported();
}

static int ok_status = STOA_OK, unknown_status = STOA_UNKNOWN;

static bool readable(stoa *s, int timeout_ms)
{
    struct pollfd p = {.fd = stoa_fd(s), .events = POLLIN};
    return poll(&p, 1, timeout_ms) == 1;
}

START_TEST(nothing_but_the_descriptor)
{
    stoa *s = open_plain(false);
    char text[16];
    unsigned ran = 0;
    for (unsigned n = 1; n <= 3 * EVENTS; n++) {
        snprintf(text, sizeof text, "%u", n);
        ck_assert_int_eq(stoa_publish_async(s, "ok:a", text, strlen(text), NULL, note, &ok_status),
                         STOA_OK);
        if (n % 100 == 0)
            ran += (unsigned)stoa_poll(s, 0);
    }
    while (reports < 3 * EVENTS) {
        ck_assert(readable(s, -1));
        ck_assert(readable(s, 0)); /* looking does not change it */
        ran += (unsigned)stoa_poll(s, 0);
    }
    ck_assert_uint_eq(ran, 3 * EVENTS);
    while (readable(s, 0)) /* and it becomes quiet */
        ck_assert_int_eq(stoa_poll(s, 0), 0);
    stoa_close(s, 0);
}
END_TEST

/* One who waits turns the loop, and leaves callbacks to stoa_poll: the descriptor says so. */
START_TEST(waiting_leaves_callbacks_to_poll)
{
    stoa *s = open_plain(false);
    ck_assert_int_eq(stoa_publish_async(s, "ok:a", "1", 1, NULL, note, &ok_status), STOA_OK);
    ck_assert_int_eq(stoa_publish(s, "ok:a", "2", 1, NULL, NULL), STOA_OK);
    ck_assert_uint_eq(reports, 0);
    ck_assert(readable(s, 0));
    ck_assert(readable(s, 0));
    ck_assert_int_eq(stoa_poll(s, -1), 1);
    ck_assert_uint_eq(reports, 1);
    stoa_close(s, 0);
}
END_TEST

START_TEST(poll_belongs_to_who_has_no_thread)
{
    stoa *s = open_plain(true);
    ck_assert_int_eq(stoa_fd(s), -1);
    ck_assert_int_eq(stoa_poll(s, 0), STOA_INVALID);
    stoa_close(s, 0);
    ck_assert_int_eq(stoa_fd(NULL), -1);
    ck_assert_int_eq(stoa_poll(NULL, 0), STOA_INVALID);
    stoa_close(NULL, 0);
}
END_TEST

/* ---- callbacks that call ---- */

static stoa *calling;
static struct timespec returned_at;

static void publish_from_callback(void *arg, int status, const stoa_id *id)
{
    bool *threaded = arg;
    (void)id;
    ck_assert_int_eq(status, STOA_OK);
    ck_assert_int_eq(stoa_poll(calling, 0), STOA_INVALID);
    ck_assert_int_eq(stoa_publish_async(calling, "pair:a", "1", 1, NULL, note, &ok_status),
                     STOA_OK);
    ck_assert_int_eq(stoa_publish(calling, "trigger:a", "1", 1, NULL, NULL), STOA_OK);
    ck_assert(*threaded || readable(calling, 0));
    pthread_mutex_lock(&lock);
    clock_gettime(CLOCK_MONOTONIC, &returned_at);
    pthread_mutex_unlock(&lock);
}

static int64_t since_return_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - returned_at.tv_sec) * 1000 + (now.tv_nsec - returned_at.tv_nsec) / 1000000;
}

/* What becomes known while a callback waits is reported next, not with the next heartbeat. Several
 * rounds, of which one must be fast: a slow machine is not a fault. */
START_TEST(callbacks_may_publish)
{
    bool threaded = _i == 1, prompt = false;
    calling = open_plain(threaded);
    for (unsigned n = 1; n <= 6 && !prompt; n++) {
        char text[16];
        snprintf(text, sizeof text, "%u", n);
        ck_assert_int_eq(stoa_publish_async(calling, "ok:a", text, strlen(text), NULL,
                                            publish_from_callback, &threaded),
                         STOA_OK);
        while (!threaded && reports < n)
            ck_assert_int_ge(stoa_poll(calling, -1), 0);
        await_reports(n);
        prompt = since_return_ms() < LINK_HEARTBEAT_MS / 2;
    }
    ck_assert(prompt);
    stoa_close(calling, 1000);
}
END_TEST

/* ---- bounds and ends ---- */

START_TEST(the_queue_is_bounded)
{
    static char big[KIB];
    stoa_options o = STOA_OPTIONS_INIT;
    const stoa_slice batch[2] = {{"a", 1}, {"b", 1}};
    o.threaded = 1;
    o.queue_max_events = 4;
    o.queue_max_bytes = 64 * KIB;
    stoa *s = open_with(&o);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(stoa_publish_async(s, "mute:a", "x", 1, NULL, note, &unknown_status),
                         STOA_OK);
    ck_assert_int_eq(stoa_publish_batch(s, "ok:a", batch, 2, NULL, NULL), STOA_BUSY);
    ck_assert_int_eq(stoa_publish(s, "ok:a", "1", 1, NULL, NULL), STOA_OK);
    ck_assert_int_eq(stoa_publish_async(s, "mute:a", "x", 1, NULL, NULL, NULL), STOA_OK);
    ck_assert_int_eq(stoa_publish(s, "ok:a", "1", 1, NULL, NULL), STOA_BUSY);
    stoa_close(s, 0);
    ck_assert_uint_eq(reports, 3);
    o.queue_max_bytes = 512;
    s = open_with(&o);
    ck_assert_int_eq(stoa_publish_async(s, "mute:b", big, sizeof big, NULL, NULL, NULL), STOA_OK);
    ck_assert_int_eq(stoa_publish_async(s, "mute:b", "x", 1, NULL, NULL, NULL), STOA_BUSY);
    stoa_close(s, 0);
}
END_TEST

static void *publish_and_learn(void *arg)
{
    static int code;
    code = stoa_publish(arg, "mute:b", "x", 1, NULL, NULL);
    return &code;
}

START_TEST(close_reports_unknown)
{
    stoa *s = open_plain(_i == 1);
    pthread_t waiter;
    void *result;
    ck_assert_int_eq(stoa_publish(s, "ok:a", "1", 1, NULL, NULL), STOA_OK);
    ck_assert_int_eq(pthread_create(&waiter, NULL, publish_and_learn, s), 0);
    for (int i = 0; i < 300; i++)
        ck_assert_int_eq(stoa_publish_async(s, "mute:a", "x", 1, NULL, note, &unknown_status),
                         STOA_OK);
    /* The waiting thread must be within its call before the client may be closed: its publish is
     * there when the queue holds 301. */
    stoa_publish_options brief = STOA_PUBLISH_OPTIONS_INIT;
    brief.timeout_ms = 300;
    ck_assert_int_eq(stoa_publish(s, "mute:c", "x", 1, &brief, NULL), STOA_UNKNOWN);
    stoa_close(s, 50);
    pthread_join(waiter, &result);
    ck_assert_int_eq(*(int *)result, STOA_UNKNOWN);
    ck_assert_uint_eq(reports, 300);
}
END_TEST

static int code_in_callback;

static void wait_for_nothing(void *arg, int status, const stoa_id *id)
{
    (void)id;
    ck_assert_int_eq(status, STOA_OK);
    reported();
    code_in_callback = stoa_publish(arg, "mute:a", "x", 1, NULL, NULL);
}

/* A callback that waits does not hold up the closing for as long as its publish may take. */
START_TEST(close_frees_a_waiting_callback)
{
    stoa_options o = STOA_OPTIONS_INIT;
    o.threaded = 1;
    o.timeout_ms = INT_MAX;
    stoa *s = open_with(&o);
    ck_assert_int_eq(stoa_publish_async(s, "ok:a", "1", 1, NULL, wait_for_nothing, s), STOA_OK);
    await_reports(1);
    stoa_close(s, 0);
    ck_assert(code_in_callback == STOA_UNKNOWN || code_in_callback == STOA_CLOSED);
}
END_TEST

START_TEST(a_time_limit_is_kept)
{
    stoa_options o = STOA_OPTIONS_INIT;
    stoa_publish_options brief = STOA_PUBLISH_OPTIONS_INIT;
    brief.timeout_ms = 100;
    o.threaded = _i == 1;
    o.routers = "ipc:///nowhere/at/all";
    stoa *s = open_with(&o);
    ck_assert_int_eq(stoa_publish(s, "ok:a", "1", 1, &brief, NULL), STOA_TIMEOUT);
    stoa_close(s, 1000);
}
END_TEST

/* ---- arguments ---- */

START_TEST(options_are_checked)
{
    static const char *const routers[] = {
        NULL,      "",
        " , ",     "udp://a:1",
        "a",       "a:0",
        "a:65536", "tcp://a:b",
        "ipc://",  "a:1,b:1,c:1,d:1,e:1,f:1,g:1,h:1,i:1,j:1,k:1,l:1,m:1,n:1,o:1,p:1,q:1,r:1"};
    stoa *s;
    char why[256];
    ck_assert_int_eq(stoa_open(NULL, NULL, why), STOA_INVALID);
    ck_assert_int_eq(stoa_open(&s, NULL, NULL), STOA_INVALID);
    for (unsigned i = 0; i < sizeof routers / sizeof *routers; i++) {
        stoa_options o = STOA_OPTIONS_INIT;
        o.routers = routers[i];
        why[0] = '\0';
        ck_assert_int_eq(stoa_open(&s, &o, why), STOA_INVALID);
        ck_assert_ptr_null(s);
        ck_assert_str_ne(why, "");
    }
    stoa_options o = STOA_OPTIONS_INIT;
    o.routers = endpoints[0];
    o.curve_public_key = "short";
    ck_assert_int_eq(stoa_open(&s, &o, why), STOA_INVALID);
    ck_assert_ptr_nonnull(strstr(why, "curve_secret_key"));
    char public_key[41], secret_key[41], other[41];
    ck_assert_int_eq(zmq_curve_keypair(public_key, secret_key), 0);
    o.curve_secret_key = secret_key;
    ck_assert_int_eq(stoa_open(&s, &o, why), STOA_INVALID); /* "short" is not its public key */
    ck_assert_ptr_nonnull(strstr(why, "curve_public_key"));
    ck_assert_ptr_null(strstr(why, secret_key));
    o.curve_public_key = public_key;
    o.curve_server_key = "short";
    ck_assert_int_eq(stoa_open(&s, &o, why), STOA_INVALID);
    ck_assert_ptr_nonnull(strstr(why, "curve_server_key"));
    ck_assert_int_eq(zmq_curve_keypair(other, secret_key), 0);
    o.curve_server_key = public_key;
    o.curve_public_key = NULL; /* the secret one is enough */
    o.log_fn = NULL;
    ck_assert_int_eq(stoa_open(&s, &o, why), STOA_OK);
    stoa_close(s, 0);
}
END_TEST

START_TEST(publishes_are_checked)
{
    static char big[PAYLOAD_HARD_MAX_BYTES + 1], key[KEY_MAX_BYTES + 2], name[257];
    static stoa_slice many[BATCH_MAX_EVENTS + 1];
    stoa_publish_options o = STOA_PUBLISH_OPTIONS_INIT;
    stoa *s = open_plain(true);
    memset(key, 'k', sizeof key - 1);
    memset(name, 'n', sizeof name - 1);
    const char *const bad_keys[] = {NULL, "", "$stoa", "a\nb", "\xff", key};
    for (unsigned i = 0; i < sizeof bad_keys / sizeof *bad_keys; i++)
        ck_assert_int_eq(stoa_publish(s, bad_keys[i], "1", 1, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_publish(s, "k", NULL, 1, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_publish(s, "k", big, sizeof big, NULL, NULL), STOA_TOO_LARGE);
    ck_assert_int_eq(stoa_publish_batch(s, "k", many, 0, NULL, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_publish_batch(s, "k", many, BATCH_MAX_EVENTS + 1, NULL, NULL),
                     STOA_TOO_LARGE);
    o.idempotency_key = "";
    ck_assert_int_eq(stoa_publish(s, "k", "1", 1, &o, NULL), STOA_INVALID);
    o.idempotency_key = name;
    ck_assert_int_eq(stoa_publish(s, "k", "1", 1, &o, NULL), STOA_INVALID);
    o.idempotency_key = NULL;
    o.timeout_ms = -1;
    ck_assert_int_eq(stoa_publish(s, "k", "1", 1, &o, NULL), STOA_INVALID);
    ck_assert_int_eq(stoa_publish(NULL, "k", "1", 1, NULL, NULL), STOA_INVALID);
    stoa_close(s, 0);
    for (int code = -20; code < 5; code++)
        ck_assert_ptr_nonnull(stoa_strerror(code));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("client_threads");
    TCase *t = tcase_create("threads");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_loop_test(t, four_threads, LIBRARY_THREAD, POLLER + 1);
    tcase_add_test(t, another_router);
    tcase_add_test(t, nothing_but_the_descriptor);
    tcase_add_test(t, waiting_leaves_callbacks_to_poll);
    tcase_add_test(t, poll_belongs_to_who_has_no_thread);
    tcase_add_loop_test(t, callbacks_may_publish, 0, 2);
    tcase_add_test(t, the_queue_is_bounded);
    tcase_add_loop_test(t, close_reports_unknown, 0, 2);
    tcase_add_test(t, close_frees_a_waiting_callback);
    tcase_add_loop_test(t, a_time_limit_is_kept, 0, 2);
    tcase_add_test(t, options_are_checked);
    tcase_add_test(t, publishes_are_checked);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
