/* SHELL. Opening and closing a client. */
#include "client/stoa.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client/stoa_internal.h"
#include "common/base36.h"
#include "common/hash.h"
#include "common/mem.h"

#define TIMEOUT_DEFAULT_MS 30000
#define QUEUE_DEFAULT_EVENTS 65536
#define QUEUE_DEFAULT_BYTES (64 * MIB)
#define NAME_MAX_BYTES 64
#define WHY_BYTES 256

/* ---- words ---- */

const char *stoa_version(void)
{
    return STOA_VERSION;
}

const char *stoa_strerror(int code)
{
    switch (code) {
    case STOA_OK:
        return "ok";
    case STOA_TIMEOUT:
        return "not done in time: try again";
    case STOA_UNKNOWN:
        return "maybe done: try again with the same idempotency key";
    case STOA_BUSY:
        return "not done, too much is under way: try later";
    case STOA_TOO_LARGE:
        return "the event, batch or input is too large";
    case STOA_DENIED:
        return "not allowed there";
    case STOA_DISK:
        return "not done, the cluster's disk is full";
    case STOA_MISSED:
        return "done, but items may be missing";
    case STOA_INVALID:
        return "an argument is not valid";
    case STOA_NOMEM:
        return "out of memory";
    case STOA_CLOSED:
        return "the client is closed";
    case STOA_ROOM:
        return "the room answered with an error";
    default:
        return "unknown error";
    }
}

size_t stoa_id_text(const stoa_id *id, char text[40])
{
    _Static_assert(EVENT_ID_MAX_BYTES == 40, "the header's size is the format's");
    text[0] = '\0';
    if (!id || id->epoch == 0)
        return 0;
    return event_id_format(text, (struct position){id->epoch, id->seq});
}

/* ---- options ---- */

/* A program built against a newer header may only use what this library knows. */
static bool options_copy(stoa_options *out, const stoa_options *given)
{
    *out = (stoa_options)STOA_OPTIONS_INIT;
    if (!given || given->size < offsetof(stoa_options, cluster))
        return false;
    const uint8_t *bytes = (const uint8_t *)given;
    for (size_t i = sizeof *out; i < given->size; i++)
        if (bytes[i] != 0)
            return false;
    memcpy(out, given, given->size < sizeof *out ? given->size : sizeof *out);
    return true;
}

static const char *options_problem(const stoa_options *o)
{
    if (o->timeout_ms < 0)
        return "timeout_ms: 0 for the default, or milliseconds";
    if (o->name && (strlen(o->name) > NAME_MAX_BYTES || !*o->name))
        return "name: 1 to 64 bytes";
    if (o->cluster && !*o->cluster)
        return "cluster: a name, or NULL for \"stoa\"";
    return NULL;
}

static void log_write(void *ctx, const char *line, size_t size)
{
    struct stoa *s = ctx;
    char text[4097];
    size_t length = size > 0 && line[size - 1] == '\n' ? size - 1 : size;
    if (length >= sizeof text)
        length = sizeof text - 1;
    memcpy(text, line, length);
    text[length] = '\0';
    /* a line without a time begins with its level */
    int level = text[0] == 'd'   ? STOA_LOG_DEBUG
                : text[0] == 'i' ? STOA_LOG_INFO
                : text[0] == 'w' ? STOA_LOG_WARN
                                 : STOA_LOG_ERROR;
    s->log_fn(s->log_arg, level, text);
}

static void log_start(struct stoa *s, const stoa_options *o)
{
    s->log_fn = o->log_fn;
    s->log_arg = o->log_arg;
    int level = o->log_level < STOA_LOG_DEBUG ? STOA_LOG_DEBUG : o->log_level;
    s->log =
        (struct log){.level = (enum log_level)(level > STOA_LOG_ERROR ? STOA_LOG_ERROR : level),
                     .format = LOG_TEXT,
                     .write = log_write,
                     .ctx = s};
}

/* ---- making ---- */

static int descriptor_add(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    return fd < 0 || epoll < 0 ? -1 : epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static bool descriptors_open(struct stoa *s)
{
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->user_epoll = epoll_create1(EPOLL_CLOEXEC);
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->report_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return descriptor_add(s->epoll, s->wake_fd) == 0 &&
           descriptor_add(s->epoll, s->timer_fd) == 0 &&
           descriptor_add(s->user_epoll, s->epoll) == 0 &&
           descriptor_add(s->user_epoll, s->report_fd) == 0;
}

static void descriptor_close(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}

static void stoa_free(struct stoa *s)
{
    publisher_destroy(&s->publisher);
    transport_destroy(&s->transport);
    metrics_destroy(&s->metrics);
    descriptor_close(s->user_epoll);
    descriptor_close(s->epoll);
    descriptor_close(s->wake_fd);
    descriptor_close(s->report_fd);
    descriptor_close(s->timer_fd);
    pthread_cond_destroy(&s->left);
    pthread_mutex_destroy(&s->lock);
    mem_free(s->name);
    mem_free(s);
}

static struct stoa *stoa_new(const stoa_options *o)
{
    struct stoa *s = mem_zalloc(sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->left, NULL);
    list_init(&s->intake);
    list_init(&s->call_intake);
    list_init(&s->reported);
    list_init(&s->items_reported);
    list_init(&s->calls_reported);
    list_init(&s->waiters);
    s->threaded = o->threaded != 0;
    s->timeout_ms = o->timeout_ms ? o->timeout_ms : TIMEOUT_DEFAULT_MS;
    s->queue_max_events = o->queue_max_events ? o->queue_max_events : QUEUE_DEFAULT_EVENTS;
    s->queue_max_bytes = o->queue_max_bytes ? o->queue_max_bytes : QUEUE_DEFAULT_BYTES;
    s->name = mem_strdup(o->name ? o->name : "libstoa");
    s->metrics = metrics_create();
    s->armed_ns = TICK_NEVER;
    log_start(s, o);
    return s;
}

static void publisher_make(struct stoa *s, const stoa_options *o)
{
    uint64_t random[4];
    const char *cluster = o->cluster ? o->cluster : "stoa";
    STOA_ASSERT(getrandom(random, sizeof random, 0) == sizeof random);
    struct publisher_options options = {.self = {.role = ROLE_PUBLISHER,
                                                 .boot = random[0],
                                                 .cluster = cluster_id(slice_text(cluster)),
                                                 .name = s->name,
                                                 .version = STOA_VERSION},
                                        .n_routers = transport_routers(s->transport),
                                        .seed = random[1]};
    memcpy(options.self.node, &random[2], sizeof options.self.node);
    const struct hub_ports ports = transport_ports(s->transport);
    s->publisher = publisher_create(&options, &ports, s->log_fn ? &s->log : NULL, s->metrics);
}

static void *thread_main(void *arg)
{
    struct stoa *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        /* a callback that published and waited has turned the loop and left more to report */
        int wait_ms = report_waits(s) ? 0 : -1;
        pthread_mutex_unlock(&s->lock);
        turn(s, wait_ms);
        (void)report_run(s);
        pthread_mutex_lock(&s->lock);
    }
    turn_release(s);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* No signal of the program is ever delivered to the library's thread. */
static int thread_start(struct stoa *s)
{
    sigset_t all, before;
    sigfillset(&all);
    s->driven = true;
    pthread_mutex_lock(&s->lock); /* s->thread is written before anybody compares with it */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&s->thread, NULL, thread_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_mutex_unlock(&s->lock);
    return code;
}

static int start(struct stoa *s, const stoa_options *o, struct strbuf *why)
{
    if (!descriptors_open(s)) {
        strbuf_printf(why, "no descriptors: %s", strerror(errno));
        return STOA_NOMEM;
    }
    const struct transport_keys keys = {o->curve_public_key, o->curve_secret_key,
                                        o->curve_server_key};
    int code = transport_create(&s->transport, o->routers, &keys, s->epoll,
                                s->log_fn ? &s->log : NULL, why);
    if (code != ERR_OK)
        return code == ERR_INVALID ? STOA_INVALID : STOA_NOMEM;
    publisher_make(s, o);
    if (transport_start(s->transport, publisher_hub(s->publisher), tick_now(), why) != ERR_OK)
        return STOA_INVALID;
    turn_wake(s); /* the first turn looks at everything */
    int error = s->threaded ? thread_start(s) : 0;
    if (error == 0)
        return STOA_OK;
    strbuf_printf(why, "no thread: %s", strerror(error));
    return STOA_NOMEM;
}

static int refuse(char err[WHY_BYTES], int code, const char *why)
{
    if (err)
        snprintf(err, WHY_BYTES, "%s", why);
    return code;
}

int stoa_open(stoa **out, const stoa_options *options, char err[256])
{
    stoa_options o;
    if (!out)
        return refuse(err, STOA_INVALID, "no place for the result");
    *out = NULL;
    if (!options_copy(&o, options))
        return refuse(err, STOA_INVALID,
                      "options: begin with STOA_OPTIONS_INIT; this library is " STOA_VERSION
                      " and must not be older than the program's header");
    const char *problem = options_problem(&o);
    if (problem)
        return refuse(err, STOA_INVALID, problem);
    struct strbuf why = {0};
    struct stoa *s = stoa_new(&o);
    int code = start(s, &o, &why);
    if (code == STOA_OK) {
        *out = s;
    } else {
        (void)refuse(err, code, strbuf_cstr(&why));
        stoa_free(s);
    }
    strbuf_free(&why);
    return code;
}

/* ---- closing ---- */

/* Becomes the only driver. */
static void take_over(struct stoa *s)
{
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    s->stop = true;
    turn_wake(s);
    pthread_mutex_unlock(&s->lock);
    if (s->threaded)
        (void)pthread_join(s->thread, NULL);
    struct waiter w;
    pthread_mutex_lock(&s->lock);
    waiter_begin(s, &w);
    s->poller = &w;
    while (s->driven)
        waiter_wait(s, &w, TICK_NEVER);
    s->poller = NULL;
    waiter_end(s, &w);
    s->driven = true;
    pthread_mutex_unlock(&s->lock);
}

static void flush(struct stoa *s, int timeout_ms)
{
    int64_t until = tick_now().mono_ns + (timeout_ms > 0 ? timeout_ms : 0) * NS_PER_MS;
    turn(s, 0); /* takes the intake */
    (void)report_run(s);
    const struct caller *calls = publisher_caller(s->publisher);
    while (publisher_pending(s->publisher) + caller_pending(calls) > 0) {
        int64_t left = until - tick_now().mono_ns;
        if (left <= 0)
            return;
        turn(s, (int)((left + NS_PER_MS - 1) / NS_PER_MS));
        (void)report_run(s);
    }
}

void stoa_close(stoa *s, int timeout_ms)
{
    if (!s)
        return;
    take_over(s);
    flush(s, timeout_ms);
    publisher_abandon(s->publisher);
    caller_abandon(publisher_caller(s->publisher));
    hub_goodbye(publisher_hub(s->publisher), tick_now());
    turn(s, 0); /* hands the outcomes on */
    (void)report_run(s);
    pthread_mutex_lock(&s->lock);
    while (s->inside > 0)
        pthread_cond_wait(&s->left, &s->lock);
    pthread_mutex_unlock(&s->lock);
    stoa_free(s);
}
