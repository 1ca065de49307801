/* SHELL. The supervisor of a local cluster: starts the processes, restarts what dies with growing
 * pauses, tells when everything is ready, and stops gateways, extra programs, routers, shards, in
 * this order.
 *
 * Children end with their parent (--supervised), so a supervisor killed with SIGKILL leaves nobody.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/cli/local.h"

#define RESTART_MIN_MS 100
#define RESTART_MAX_MS 2000
#define STEADY_MS 10000 /* a process that ran so long starts with the shortest pause again */
#define READY_WITHIN_MS 120000
#define REFUSALS_MAX 6 /* some 3 s: what an earlier supervisor left behind is gone by then */
#define TURN_MS 50
#define STOP_WITHIN_MS 70000 /* a gateway's drain takes up to 60 s */

static const char *const stop_order[] = {"gateway", "", "router", "shard"};

static void say(const struct local *l, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void say(const struct local *l, const char *format, ...)
{
    va_list values;
    if (l->cli->quiet)
        return;
    va_start(values, format);
    vprintf(format, values);
    va_end(values);
    putchar('\n');
    fflush(stdout);
}

/* In the child. Only what is safe between fork and exec. */
static _Noreturn void become(const struct local *l, const struct process *p, int log, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(0);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    if (p->monitor[0] == '\0' && chdir(l->data) != 0)
        _exit(126);
    execv(p->argv[0], p->argv);
    dprintf(STDERR_FILENO, "stoa up: cannot run %s: %s\n", p->argv[0], strerror(errno));
    _exit(127);
}

static void start(struct local *l, struct process *p)
{
    struct strbuf path = {0};
    strbuf_printf(&path, "%s/logs/%s.log", l->data, p->name);
    int log = open(strbuf_cstr(&path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pid_t parent = getpid();
    strbuf_free(&path);
    p->again_ms = 0;
    p->ready = false;
    p->started_ms = local_now_ms();
    p->pid = fork();
    if (p->pid == 0) {
        dup2(in, STDIN_FILENO);
        become(l, p, log, parent);
    }
    close(log);
    close(in);
}

/* Asks the monitor: GET /readyz answers 200. */
static bool is_ready(const struct process *p)
{
    static const char request[] =
        "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    char answer[64] = "", host[32];
    const char *colon = strrchr(p->monitor, ':');
    if (colon == NULL)
        return true;
    snprintf(host, sizeof host, "%.*s", (int)(colon - p->monitor), p->monitor);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10))};
    struct timeval patience = {.tv_sec = 1};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, host, &address.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    bool ready = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                 send(fd, request, sizeof request - 1, MSG_NOSIGNAL) > 0 &&
                 recv(fd, answer, sizeof answer - 1, 0) > 12 &&
                 strncmp(answer, "HTTP/1.1 200", 12) == 0;
    close(fd);
    return ready;
}

static struct process *by_pid(struct local *l, pid_t pid)
{
    for (size_t i = 0; i < l->n_processes; i++)
        if (l->processes[i].pid == pid)
            return &l->processes[i];
    return NULL;
}

/* Takes in what ended; `restart`: it is started again after a pause. True when anything ended. */
static bool reap(struct local *l, bool restart)
{
    int status;
    bool any = false;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        struct process *p = by_pid(l, pid);
        if (p == NULL)
            continue;
        int64_t now = local_now_ms();
        p->pid = 0;
        any = true;
        if (!restart)
            continue;
        p->refusals = p->ready || WIFSIGNALED(status) ? 0 : p->refusals + 1;
        if (now - p->started_ms > STEADY_MS || p->pause_ms == 0)
            p->pause_ms = RESTART_MIN_MS;
        p->again_ms = now + p->pause_ms;
        if (WIFSIGNALED(status))
            say(l, "%s was ended by signal %d; restarting in %d ms", p->name, WTERMSIG(status),
                (int)p->pause_ms);
        else
            say(l, "%s ended with status %d; restarting in %d ms (logs/%s.log says why)", p->name,
                WEXITSTATUS(status), (int)p->pause_ms, p->name);
        p->pause_ms = p->pause_ms * 2 < RESTART_MAX_MS ? p->pause_ms * 2 : RESTART_MAX_MS;
    }
    return any;
}

static bool start_due(struct local *l)
{
    bool any = false;
    int64_t now = local_now_ms();
    for (size_t i = 0; i < l->n_processes; i++) {
        struct process *p = &l->processes[i];
        if (p->pid == 0 && p->again_ms <= now) {
            start(l, p);
            any = true;
        }
    }
    return any;
}

static bool all_ready(struct local *l)
{
    bool all = true;
    for (size_t i = 0; i < l->n_processes; i++) {
        struct process *p = &l->processes[i];
        if (p->pid != 0 && !p->ready && (p->ready = is_ready(p)) && p->monitor[0] != '\0')
            say(l, "  %s is ready", p->name);
        all = all && p->ready;
    }
    return all;
}

/* Kinds are "gateway", "router", "shard", and "" for extra programs, which have no monitor. */
static bool is_kind(const struct process *p, const char *kind)
{
    if (kind[0] == '\0')
        return p->monitor[0] == '\0';
    return p->monitor[0] != '\0' && strncmp(p->name, kind, strlen(kind)) == 0;
}

static bool any_running(const struct local *l, const char *kind)
{
    for (size_t i = 0; i < l->n_processes; i++)
        if (l->processes[i].pid != 0 && is_kind(&l->processes[i], kind))
            return true;
    return false;
}

static void signal_kind(const struct local *l, const char *kind, int number)
{
    for (size_t i = 0; i < l->n_processes; i++)
        if (l->processes[i].pid != 0 && is_kind(&l->processes[i], kind))
            kill(l->processes[i].pid, number);
}

/* Ends one kind and waits for it; a second request to stop, or too long a drain, ends it at once.
 */
static void stop_kind(struct local *l, const char *kind, const sigset_t *signals)
{
    int64_t end = local_now_ms() + STOP_WITHIN_MS;
    const struct timespec wait = {.tv_nsec = TURN_MS * 1000000};
    signal_kind(l, kind, SIGTERM);
    while (any_running(l, kind)) {
        int number = sigtimedwait(signals, NULL, &wait);
        if (number == SIGTERM || number == SIGINT || local_now_ms() > end)
            signal_kind(l, kind, SIGKILL);
        reap(l, false);
    }
}

static int stop_all(struct local *l, const sigset_t *signals)
{
    say(l, "stopping");
    for (size_t i = 0; i < sizeof stop_order / sizeof *stop_order; i++)
        stop_kind(l, stop_order[i], signals);
    return EXIT_OK;
}

static void tell_ready(int fd, const char *verdict)
{
    if (fd >= 0 && write(fd, verdict, strlen(verdict)) < 0)
        return; /* nobody waits any more */
}

/* The last line of a process's log: a program that refuses to start says why in one line. */
static void put_last_line(const struct local *l, const struct process *p, struct strbuf *out)
{
    struct strbuf path = {0};
    char text[2048];
    strbuf_printf(&path, "%s/logs/%s.log", l->data, p->name);
    int fd = open(strbuf_cstr(&path), O_RDONLY | O_CLOEXEC);
    off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    off_t from = end > (off_t)sizeof text ? end - (off_t)sizeof text : 0;
    ssize_t n = fd >= 0 ? pread(fd, text, sizeof text, from) : 0;
    while (n > 0 && text[n - 1] == '\n')
        n--;
    ssize_t start = n > 0 ? n : 0;
    while (start > 0 && text[start - 1] != '\n')
        start--;
    strbuf_put(out, text + start, (size_t)(n > start ? n - start : 0));
    if (fd >= 0)
        close(fd);
    strbuf_free(&path);
}

/* False: the cluster will not become ready, `why` says why. */
static bool hopeful(const struct local *l, int64_t patience_ms, struct strbuf *why)
{
    for (size_t i = 0; i < l->n_processes; i++) {
        const struct process *p = &l->processes[i];
        if (p->refusals < REFUSALS_MAX)
            continue;
        strbuf_printf(why, "%s does not start: ", p->name);
        put_last_line(l, p, why);
        return false;
    }
    if (local_now_ms() <= patience_ms)
        return true;
    strbuf_printf(why, "not ready within %d s; the files in %s/logs say why",
                  READY_WITHIN_MS / 1000, l->data);
    return false;
}

static int give_up(struct local *l, int ready_fd, const sigset_t *signals, struct strbuf *why)
{
    cli_fail(l->cli, "%s", strbuf_cstr(why));
    tell_ready(ready_fd, "-");
    tell_ready(ready_fd, strbuf_cstr(why));
    strbuf_free(why);
    stop_all(l, signals);
    return EXIT_FAILED;
}

int local_supervise(struct local *l, int ready_fd)
{
    sigset_t signals;
    const struct timespec wait = {.tv_nsec = TURN_MS * 1000000};
    bool ready = false;
    int64_t patience = local_now_ms() + READY_WITHIN_MS;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    for (;;) {
        bool changed = start_due(l);
        int number = sigtimedwait(&signals, NULL, &wait);
        changed = reap(l, true) || changed;
        if (changed && !local_note(l))
            cli_fail(l->cli, "cannot write %s/run/cluster.json", l->data);
        if (number == SIGTERM || number == SIGINT)
            return stop_all(l, &signals);
        for (size_t i = 0; number == SIGHUP && i < sizeof stop_order / sizeof *stop_order; i++)
            if (stop_order[i][0] != '\0')
                signal_kind(l, stop_order[i], SIGHUP);
        bool all = all_ready(l);
        struct strbuf why = {0};
        if (!all && !ready && !hopeful(l, patience, &why))
            return give_up(l, ready_fd, &signals, &why);
        if (!ready && all) {
            ready = true;
            tell_ready(ready_fd, "+");
        }
    }
}
