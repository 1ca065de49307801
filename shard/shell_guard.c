/* SHELL. The eye on rooms' code (shell_guard.h).
 *
 *   enter: key, phase -> mark; state RUNS          leave: state IDLE
 *   SIGSEGV and the like in between: state CRASHED, then as without us
 *   the thread sees the same entry for GUARD_STUCK_MS: state STUCK, abort
 *
 * The mark is a page of a file, mapped shared: it costs a copy of the key an event and no sync,
 * because only the process may die with it, not the machine. SIGKILL leaves RUNS, which is nobody's
 * fault. The thread counts turns of its own, and takes off what the loop's thread waited for a
 * processor, so that time which the machine did not give is not held against a room. */
#include "shard/shell_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/mem.h"

#define LOOK_MS 250
#define STACK_BYTES 65536 /* of the signal handler: the room may have used up its own */

static const int signals[] = {SIGSEGV, SIGILL, SIGFPE, SIGABRT}; /* SIGBUS is the store's */
enum { SIGNALS = sizeof signals / sizeof *signals };

struct guard {
    struct log *log;
    struct guard_mark *mark; /* mapped */
    int64_t entered_ns;
    _Atomic uint64_t entries; /* odd: a room's code runs */
    bool started;
    pthread_t self, thread;
    int schedule; /* what the kernel says of the loop's thread; -1: nothing */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ending; /* under lock */
    struct sigaction before[SIGNALS];
    uint8_t *stack;
};

static struct guard *the_guard; /* of this process, for signal handlers */

static int64_t mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / NS_PER_MS;
}

/* ---- around every call ---- */

static void on_enter(void *ctx, struct slice key, const char *phase)
{
    struct guard *g = ctx;
    struct guard_mark *mark = g->mark;
    mark->key_size = (uint16_t)(key.size < KEY_MAX_BYTES ? key.size : KEY_MAX_BYTES);
    memcpy(mark->key, key.data, mark->key_size);
    size_t size = strlen(phase);
    size = size < sizeof mark->phase - 1 ? size : sizeof mark->phase - 1;
    memcpy(mark->phase, phase, size);
    mark->phase[size] = '\0';
    atomic_signal_fence(memory_order_seq_cst);
    mark->state = GUARD_RUNS;
    atomic_fetch_add_explicit(&g->entries, 1, memory_order_release);
    g->entered_ns = mono_ns();
}

static int64_t on_leave(void *ctx)
{
    struct guard *g = ctx;
    atomic_fetch_add_explicit(&g->entries, 1, memory_order_release);
    g->mark->state = GUARD_IDLE;
    return mono_ns() - g->entered_ns;
}

struct shard_watch guard_watch(struct guard *g)
{
    return (struct shard_watch){.ctx = g, .enter = on_enter, .leave = on_leave};
}

/* ---- the process ends under it ---- */

static void note_end(struct guard *g, int number)
{
    struct guard_mark *mark = g->mark;
    if (mark->state != GUARD_RUNS || !pthread_equal(pthread_self(), g->self))
        return;
    mark->signal = number;
    mark->state = GUARD_CRASHED;
    /* Only write(2): the state of everything else is unknown. */
    char line[sizeof mark->key + 64];
    size_t size = 0;
    static const char head[] = "stoa-shard: the code of a room ends the process: ";
    memcpy(line, head, sizeof head - 1);
    size = sizeof head - 1;
    memcpy(line + size, mark->key, mark->key_size);
    size += mark->key_size;
    line[size++] = '\n';
    if (write(STDERR_FILENO, line, size) < 0)
        return;
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)context;
    struct guard *g = the_guard;
    for (int i = 0; g && i < SIGNALS; i++) {
        if (signals[i] != number)
            continue;
        note_end(g, number);
        sigaction(number, &g->before[i], NULL);
    }
    /* A fault happens again when this returns; what was sent is sent again, and waits for that. */
    if (info->si_code <= 0)
        raise(number);
}

static void on_exit_of_process(void)
{
    if (the_guard)
        note_end(the_guard, 0);
}

static void signals_take(struct guard *g)
{
    static bool at_exit;
    stack_t stack;
    if (sigaltstack(NULL, &stack) == 0 && (stack.ss_flags & SS_DISABLE)) {
        g->stack = mem_alloc(STACK_BYTES);
        stack = (stack_t){.ss_sp = g->stack, .ss_size = STACK_BYTES};
        (void)sigaltstack(&stack, NULL);
    }
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_ONSTACK | SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &action, &g->before[i]);
    if (!at_exit)
        at_exit = atexit(on_exit_of_process) == 0;
}

static void signals_give_back(struct guard *g)
{
    for (int i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &g->before[i], NULL);
    if (g->stack) {
        const stack_t none = {.ss_flags = SS_DISABLE};
        (void)sigaltstack(&none, NULL);
        mem_free(g->stack);
    }
}

/* ---- the watchdog ---- */

static void end_process(struct guard *g)
{
    struct guard_mark *mark = g->mark;
    LOG(g->log, LOG_ERROR, "room.stuck", LOG_SLICE("key", slice_of(mark->key, mark->key_size)),
        LOG_STR("phase", mark->phase), LOG_I64("ms", GUARD_STUCK_MS),
        LOG_STR("now", "the process ends; the room begins in quarantine"));
    mark->state = GUARD_STUCK;
    abort();
}

/* How long the loop's thread has waited for a processor, in all: the second number. */
static int64_t waited_ns(const struct guard *g)
{
    char text[128];
    ssize_t n = g->schedule >= 0 ? pread(g->schedule, text, sizeof text - 1, 0) : 0;
    text[n > 0 ? n : 0] = '\0';
    const char *space = strchr(text, ' ');
    return space ? strtoll(space, NULL, 10) : 0;
}

static void *look_on(void *arg)
{
    struct guard *g = arg;
    uint64_t seen = 0;
    int64_t inside_ns = 0, waited_before = 0;
    pthread_mutex_lock(&g->lock);
    while (!g->ending) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        int64_t ns = until.tv_nsec + LOOK_MS * NS_PER_MS;
        until.tv_sec += ns / NS_PER_S;
        until.tv_nsec = ns % NS_PER_S;
        (void)pthread_cond_timedwait(&g->changed, &g->lock, &until);
        uint64_t entries = atomic_load_explicit(&g->entries, memory_order_acquire);
        if (entries == seen && entries % 2 == 1) {
            int64_t waited = waited_ns(g);
            int64_t given = LOOK_MS * NS_PER_MS - (waited - waited_before);
            inside_ns += given > 0 ? given : 0;
            waited_before = waited;
        } else {
            inside_ns = 0;
            waited_before = entries % 2 == 1 ? waited_ns(g) : 0;
        }
        seen = entries;
        if (inside_ns >= GUARD_STUCK_MS * NS_PER_MS && !g->ending)
            end_process(g);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

void guard_start(struct guard *g)
{
    if (g->started)
        return;
    sigset_t all, before;
    pthread_condattr_t monotonic;
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/task/%ld/schedstat", (long)gettid());
    g->schedule = open(path, O_RDONLY | O_CLOEXEC);
    sigfillset(&all);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&g->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&g->lock, NULL);
    g->self = pthread_self();
    the_guard = g;
    signals_take(g);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the loop's signals are not for the thread */
    g->started = pthread_create(&g->thread, NULL, look_on, g) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!g->started) {
        LOG(g->log, LOG_ERROR, "shard.no_watchdog", LOG_STR("error", strerror(errno)));
        signals_give_back(g);
        the_guard = NULL;
    }
}

/* ---- the mark ---- */

/* Whole from the start: a page that the disk has no space for would end the process. */
static struct guard_mark *mark_map(const char *dir, struct log *log)
{
    struct strbuf path = {0};
    strbuf_printf(&path, "%s/running", dir);
    int fd = open(strbuf_cstr(&path), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int error = fd < 0 ? errno : posix_fallocate(fd, 0, sizeof(struct guard_mark));
    void *at = MAP_FAILED;
    if (error == 0)
        at = mmap(NULL, sizeof(struct guard_mark), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (at == MAP_FAILED) {
        LOG(log, LOG_WARN, "shard.no_mark", LOG_STR("file", strbuf_cstr(&path)),
            LOG_STR("error", strerror(error ? error : errno)));
        at = mmap(NULL, sizeof(struct guard_mark), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    STOA_ASSERT(at != MAP_FAILED);
    strbuf_free(&path);
    return at;
}

struct guard *guard_open(const char *dir, struct log *log, struct guard_verdict *verdict)
{
    struct guard *g = mem_zalloc(sizeof *g);
    g->log = log;
    g->mark = mark_map(dir, log);
    guard_judge(g->mark, wall_ms(), verdict);
    return g;
}

void guard_close(struct guard **g_p)
{
    struct guard *g = *g_p;
    if (!g)
        return;
    if (g->started) {
        pthread_mutex_lock(&g->lock);
        g->ending = true;
        pthread_cond_signal(&g->changed);
        pthread_mutex_unlock(&g->lock);
        pthread_join(g->thread, NULL);
        pthread_cond_destroy(&g->changed);
        pthread_mutex_destroy(&g->lock);
        signals_give_back(g);
        the_guard = NULL;
        if (g->schedule >= 0)
            close(g->schedule);
    }
    munmap(g->mark, sizeof *g->mark);
    mem_free(g);
    *g_p = NULL;
}
