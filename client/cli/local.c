/* SHELL. The folder of a local cluster: claiming it, planning its processes, noting what runs. */
#include "client/cli/local.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/shell/process.h"
#include "common/tick.h"

enum { MONITOR_GATEWAY = 8090, MONITOR_ROUTER = 8091, MONITOR_SHARDS = 8092 };
#define SOCKET_PATH_MAX \
    100 /* sockaddr_un has 108 with its NUL; ".gateway" is added to one of them */

int64_t local_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / NS_PER_MS;
}

bool local_locate(struct local *l, const char *data)
{
    char here[2048] = "";
    l->lock = -1;
    if (data[0] != '/' && getcwd(here, sizeof here) == NULL) {
        cli_fail(l->cli, "no current directory: %s", strerror(errno));
        return false;
    }
    int n = snprintf(l->data, sizeof l->data, "%s%s%s", here, here[0] ? "/" : "", data);
    if (n < (int)sizeof l->data)
        return true;
    cli_fail(l->cli, "--data: the path is too long");
    return false;
}

static bool make_folder(const struct local *l, const char *name)
{
    struct strbuf path = {0};
    struct stat st;
    strbuf_printf(&path, "%s%s%s", l->data, name[0] ? "/" : "", name);
    bool fine = (mkdir(strbuf_cstr(&path), 0700) == 0 || errno == EEXIST) &&
                stat(strbuf_cstr(&path), &st) == 0 && S_ISDIR(st.st_mode);
    if (!fine)
        cli_fail(l->cli, "%s: %s; give another folder with --data", strbuf_cstr(&path),
                 strerror(errno));
    strbuf_free(&path);
    return fine;
}

static int open_in(const struct local *l, const char *name, int flags)
{
    struct strbuf path = {0};
    strbuf_printf(&path, "%s/%s", l->data, name);
    int fd = open(strbuf_cstr(&path), flags | O_CLOEXEC, 0600);
    strbuf_free(&path);
    return fd;
}

static long read_number(int fd)
{
    char text[32];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    return strtol(text, NULL, 10);
}

static bool write_number(int fd, long number)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%ld\n", number);
    return ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)n, 0) == n;
}

bool local_claim(struct local *l)
{
    if (!make_folder(l, "") || !make_folder(l, "run") || !make_folder(l, "logs"))
        return false;
    l->lock = open_in(l, "run/lock", O_RDWR | O_CREAT);
    if (l->lock < 0) {
        cli_fail(l->cli, "%s/run/lock: %s", l->data, strerror(errno));
        return false;
    }
    if (flock(l->lock, LOCK_EX | LOCK_NB) != 0) {
        cli_fail(l->cli,
                 "a cluster is already running on %s (pid %ld); stoa down --data %s stops it",
                 l->data, read_number(l->lock), l->data);
        return false;
    }
    return true;
}

bool local_check_shards(struct local *l)
{
    int fd = open_in(l, "shards", O_RDWR | O_CREAT);
    if (fd < 0) {
        cli_fail(l->cli, "%s/shards: %s", l->data, strerror(errno));
        return false;
    }
    long made_with = read_number(fd);
    bool fine = made_with == (long)l->shards || (made_with == 0 && write_number(fd, l->shards));
    close(fd);
    if (!fine && made_with != 0)
        cli_fail(l->cli,
                 "the data in %s was made with %ld shards; start it with --shards %ld (moving "
                 "rooms between shards comes later), or use another --data",
                 l->data, made_with, made_with);
    return fine;
}

pid_t local_supervisor(const struct local *l)
{
    int fd = open_in(l, "run/lock", O_RDWR);
    if (fd < 0)
        return 0;
    pid_t pid = 0;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        pid = (pid_t)read_number(fd);
    close(fd);
    return pid;
}

/* ---- plan ---- */

static void add_word(struct process *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void add_word(struct process *p, const char *format, ...)
{
    size_t n = 0;
    char *text = NULL;
    va_list values;
    va_start(values, format);
    STOA_ASSERT(vasprintf(&text, format, values) >= 0);
    va_end(values);
    while (p->argv[n] != NULL)
        n++;
    STOA_ASSERT(n + 1 < sizeof p->argv / sizeof *p->argv);
    p->argv[n] = mem_strdup(text);
    free(text);
}

/* 0, or why nothing can listen there. */
static int port_problem(const char *host, unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        address.sin_addr.s_addr = htonl(INADDR_ANY);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    int problem = bind(fd, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno;
    close(fd);
    return problem;
}

static bool monitor_planned(const struct local *l, const char *address)
{
    for (size_t i = 0; i < l->n_processes; i++)
        if (strcmp(l->processes[i].monitor, address) == 0)
            return true;
    return false;
}

/* The process's own port, or, since another cluster may run on this machine, the next that nobody
 * has. */
static bool plan_monitor(struct local *l, unsigned port, struct process *p)
{
    for (; port < 65536; port++) {
        char address[sizeof p->monitor];
        snprintf(address, sizeof address, "127.0.0.1:%u", port);
        if (monitor_planned(l, address) || port_problem("127.0.0.1", port) != 0)
            continue;
        memcpy(p->monitor, address, sizeof address);
        return true;
    }
    cli_fail(l->cli, "no free port for a monitor listener above %d", MONITOR_GATEWAY);
    return false;
}

bool local_program(const struct cli *cli, const char *program, char out[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 64);
    out[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(out, '/');
    snprintf(slash ? slash + 1 : out, 64, "%s", program);
    if (access(out, X_OK) == 0)
        return true;
    cli_fail(cli, "%s is missing beside this program; build or install it", program);
    return false;
}

static struct process *add_process(struct local *l, const char *role, unsigned index)
{
    char path[PATH_MAX], program[32];
    struct process *p = &l->processes[l->n_processes];
    snprintf(program, sizeof program, "stoa-%s", role);
    if (!local_program(l->cli, program, path))
        return NULL;
    snprintf(p->name, sizeof p->name, "%s-%u", role, index);
    add_word(p, "%s", path);
    if (l->cli->config != NULL) {
        add_word(p, "--config");
        add_word(p, "%s", l->cli->config);
    }
    add_word(p, "--supervised");
    add_word(p, "--index");
    add_word(p, "%u", index);
    for (unsigned list = 0; list < 2; list++) {
        struct strbuf text = {0};
        strbuf_printf(&text, "cluster.%s=", list ? "shards" : "routers");
        for (unsigned i = 0; i < (list ? l->shards : l->routers); i++)
            strbuf_printf(&text, "%sipc://%s/run/%s-%u", i ? "," : "", l->data,
                          list ? "shard" : "router", i);
        add_word(p, "--set");
        add_word(p, "%s", strbuf_cstr(&text));
        strbuf_free(&text);
    }
    l->n_processes++;
    return p;
}

static bool plan_role(struct local *l, const char *role, unsigned count, unsigned monitor)
{
    for (unsigned i = 0; i < count; i++) {
        struct process *p = add_process(l, role, i);
        if (p == NULL || !plan_monitor(l, monitor + i, p))
            return false;
        add_word(p, "--monitor");
        add_word(p, "%s", p->monitor);
        if (strcmp(role, "shard") == 0) {
            add_word(p, "--data");
            add_word(p, "%s/shard-%u", l->data, i);
        }
    }
    return true;
}

bool local_listen(struct local *l, const char *address)
{
    const char *colon = strrchr(address, ':');
    uint64_t port;
    if (colon == NULL || colon == address || (size_t)(colon - address) >= sizeof l->host) {
        cli_misuse(l->cli, "--listen takes HOST:PORT, not \"%s\"", address);
        return false;
    }
    if (!cli_number(l->cli, "--listen HOST:PORT", colon + 1, 1, 65536 - l->gateways, &port))
        return false;
    snprintf(l->host, sizeof l->host, "%.*s", (int)(colon - address), address);
    l->port = (unsigned)port;
    return true;
}

/* Gateways listen on consecutive ports from the given one. */
static bool plan_gateways(struct local *l)
{
    size_t first = l->n_processes;
    if (!plan_role(l, "gateway", l->gateways, MONITOR_GATEWAY))
        return false;
    for (unsigned i = 0; i < l->gateways; i++) {
        struct process *p = &l->processes[first + i];
        int problem = port_problem(l->host, l->port + i);
        snprintf(p->listen, sizeof p->listen, "%s:%u", l->host, l->port + i);
        if (problem != 0) {
            cli_fail(l->cli,
                     "cannot listen on %s: %s; give another address with --listen, or stop what "
                     "listens there",
                     p->listen, strerror(problem));
            return false;
        }
        add_word(p, "--listen");
        add_word(p, "%s", p->listen);
        if (l->page != NULL) {
            add_word(p, "--page");
            add_word(p, "%s", l->page);
        }
    }
    return true;
}

static bool plan_extra(struct local *l)
{
    for (size_t i = 0; i < l->n_extra; i++) {
        struct process *p = &l->processes[l->n_processes++];
        const char *name = strrchr(l->extra[i], '/');
        name = name && !memchr(l->extra[i], ' ', (size_t)(name - l->extra[i])) ? name + 1
                                                                               : l->extra[i];
        snprintf(p->name, sizeof p->name, "%.*s", (int)strcspn(name, " "), name);
        add_word(p, "/bin/sh");
        add_word(p, "-c");
        add_word(p, "exec %s", l->extra[i]);
    }
    return true;
}

bool local_plan(struct local *l)
{
    if (l->shards + l->gateways + l->routers + l->n_extra > LOCAL_PROCESSES_MAX) {
        cli_misuse(l->cli, "at most %d processes in a local cluster", LOCAL_PROCESSES_MAX);
        return false;
    }
    if (strlen(l->data) + sizeof "/run/router-99.gateway" > SOCKET_PATH_MAX) {
        cli_fail(l->cli, "the path %s is too long for sockets in it; give a shorter --data",
                 l->data);
        return false;
    }
    return plan_role(l, "shard", l->shards, MONITOR_SHARDS) &&
           plan_role(l, "router", l->routers, MONITOR_ROUTER) && plan_gateways(l) && plan_extra(l);
}

bool local_note(const struct local *l)
{
    struct strbuf text = {0};
    int fd = open_in(l, "run/cluster.json", O_WRONLY | O_CREAT | O_TRUNC);
    strbuf_printf(&text, "{\"pid\":%ld,\"processes\":[", (long)getpid());
    for (size_t i = 0; i < l->n_processes; i++) {
        const struct process *p = &l->processes[i];
        strbuf_printf(&text, "%s{\"name\":", i ? "," : "");
        json_quote(&text, slice_text(p->name));
        strbuf_printf(&text, ",\"pid\":%ld,\"listen\":\"%s\",\"monitor\":\"%s\"}", (long)p->pid,
                      p->listen, p->monitor);
    }
    strbuf_put_text(&text, "]}\n");
    bool fine = fd >= 0 && write(fd, text.data, text.size) == (ssize_t)text.size &&
                write_number(l->lock, getpid());
    if (fd >= 0)
        close(fd);
    strbuf_free(&text);
    return fine;
}

void local_free(struct local *l)
{
    for (size_t i = 0; i < l->n_processes; i++)
        for (char **word = l->processes[i].argv; *word != NULL; word++)
            mem_free(*word);
    if (l->lock >= 0)
        close(l->lock);
}
