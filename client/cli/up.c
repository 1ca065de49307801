/* SHELL. stoa up, down and logs: a local cluster as a user meets it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/cli/local.h"
#include "common/config.h"
#include "common/mem.h"
#include "common/shell/process.h"

#define DATA_DEFAULT "data"
#define DOWN_WITHIN_MS 120000
#define PROCESSES_EACH_MAX 16

static void nap_ms(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

static void greet(const struct local *l)
{
    if (l->cli->quiet)
        return;
    printf("Stoa runs: %u router%s, %u shard%s, %u gateway%s, data in %s\n", l->routers,
           l->routers == 1 ? "" : "s", l->shards, l->shards == 1 ? "" : "s", l->gateways,
           l->gateways == 1 ? "" : "s", l->data);
    for (size_t i = 0; i < l->n_processes; i++)
        if (l->processes[i].listen[0] != '\0')
            printf("  http://%s/\n", l->processes[i].listen);
    printf("Try:\n");
    if (l->tokens)
        printf("  export STOA_TOKEN=$(stoa token new%s%s --prefix '' "
               "--can subscribe,publish,send,call,manage)\n",
               l->cli->config ? " --config " : "", l->cli->config ? l->cli->config : "");
    printf("  stoa tail upload:abc123\n"
           "  stoa publish upload:abc123 '{\"type\":\"completed\",\"size\":1048576}'\n"
           "  curl -N -H 'Accept: text/event-stream' %s"
           "'http://%s:%u/events?key=upload:abc123&replay=all'\n",
           l->tokens ? "-H \"Authorization: Bearer $STOA_TOKEN\" " : "", l->host, l->port);
    fflush(stdout);
}

/* Watches the pipe in a child so that the greeting comes when everything is ready, in the
 * foreground too. */
static int run_foreground(struct local *l)
{
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return cli_fail(l->cli, "%s", strerror(errno));
    pid_t greeter = fork();
    if (greeter == 0) {
        char verdict = 0;
        close(pipes[1]);
        if (read(pipes[0], &verdict, 1) == 1 && verdict == '+') {
            greet(l);
            if (!l->cli->quiet)
                printf("Ctrl-C stops it.\n");
        }
        fflush(stdout);
        _exit(0);
    }
    close(pipes[0]);
    return local_supervise(l, pipes[1]);
}

static int run_detached(struct local *l)
{
    int pipes[2];
    char verdict = 0;
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return cli_fail(l->cli, "%s", strerror(errno));
    pid_t child = fork();
    if (child == 0) {
        struct strbuf path = {0};
        close(pipes[0]);
        setsid();
        strbuf_printf(&path, "%s/logs/supervisor.log", l->data);
        int log = open(strbuf_cstr(&path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600),
            in = open("/dev/null", O_RDONLY | O_CLOEXEC);
        dup2(in, STDIN_FILENO);
        dup2(log, STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        strbuf_free(&path);
        _exit(local_supervise(l, pipes[1]));
    }
    close(pipes[1]);
    if (read(pipes[0], &verdict, 1) == 1 && verdict == '+') {
        greet(l);
        if (!l->cli->quiet)
            printf("stoa down%s%s stops it.\n", strcmp(l->data, DATA_DEFAULT) ? " --data " : "",
                   l->data);
        return EXIT_OK;
    }
    struct strbuf why = {0};
    for (ssize_t n = 1; n > 0; strbuf_commit(&why, n > 0 ? (size_t)n : 0))
        n = read(pipes[0], strbuf_reserve(&why, 4096), 4096);
    waitpid(child, NULL, 0);
    cli_fail(l->cli, "%s", why.size > 0 ? strbuf_cstr(&why) : "the supervisor ended");
    strbuf_free(&why);
    return EXIT_FAILED;
}

static bool count_option(const struct cli *cli, const char *option, const char *text, unsigned *out)
{
    uint64_t number;
    if (!cli_number(cli, option, text, 1, PROCESSES_EACH_MAX, &number))
        return false;
    *out = (unsigned)number;
    return true;
}

/* Where the first gateway listens, and what --with programs learn from their environment. Returns
 * an exit code, after telling why. */
static int settle(struct local *l, const char *listen)
{
    struct config config;
    struct strbuf text = {0};
    int status = EXIT_FAILED;
    if (config_load(&config, l->cli->config, NULL, &text) != ERR_OK) {
        while (text.size > 0 && text.data[text.size - 1] == '\n')
            text.size--;
        cli_fail(l->cli, "%.*s", SLICE_FMT(strbuf_slice(&text)));
    } else if (!local_listen(l, listen ? listen : config.gateway.listen)) {
        status = EXIT_USAGE;
    } else {
        status = EXIT_OK;
        l->tokens = config.auth.mode && strcmp(config.auth.mode, "token") == 0;
        setenv("STOA_CLUSTER_NAME", config.cluster.name, 1);
        strbuf_printf(&text, "ipc://%s/run/router-0", l->data);
        setenv("STOA_ROUTER", strbuf_cstr(&text), 1);
        strbuf_reset(&text);
        strbuf_printf(&text, "http://%s:%u", l->host, l->port);
        setenv("STOA_SERVER", strbuf_cstr(&text), 1);
    }
    config_free(&config);
    strbuf_free(&text);
    return status;
}

int command_up(struct cli *cli, int argc, char **argv)
{
    static const struct option own[] = {{"detach", no_argument, NULL, 'd'},
                                        {"shards", required_argument, NULL, 'S'},
                                        {"gateways", required_argument, NULL, 'G'},
                                        {"routers", required_argument, NULL, 'R'},
                                        {"data", required_argument, NULL, 'D'},
                                        {"listen", required_argument, NULL, 'L'},
                                        {"page", required_argument, NULL, 'P'},
                                        {"with", required_argument, NULL, 'W'},
                                        {0}};
    static struct local l;
    const char *data = DATA_DEFAULT, *listen = NULL;
    bool detach = false, fine = true;
    l = (struct local){.cli = cli, .shards = 2, .gateways = 1, .routers = 1, .lock = -1};
    for (int c; fine && (c = cli_option(cli, argc, argv, "d", own)) != -1;) {
        if (c == 'd')
            detach = true;
        else if (c == 'S' || c == 'G' || c == 'R')
            fine = count_option(cli,
                                c == 'S'   ? "--shards"
                                : c == 'G' ? "--gateways"
                                           : "--routers",
                                optarg,
                                c == 'S'   ? &l.shards
                                : c == 'G' ? &l.gateways
                                           : &l.routers);
        else if (c == 'D')
            data = optarg;
        else if (c == 'L')
            listen = optarg;
        else if (c == 'P')
            l.page = optarg;
        else if (c == 'W' && l.n_extra < sizeof l.extra / sizeof *l.extra)
            l.extra[l.n_extra++] = optarg;
        else
            fine = false;
    }
    if (!fine)
        return EXIT_USAGE;
    if (optind < argc)
        return cli_misuse(cli, "up takes no arguments");
    int status = local_locate(&l, data) ? settle(&l, listen) : EXIT_FAILED;
    if (status == EXIT_OK && !(local_claim(&l) && local_check_shards(&l) && local_plan(&l)))
        status = EXIT_FAILED;
    if (status == EXIT_OK)
        status = detach ? run_detached(&l) : run_foreground(&l);
    local_free(&l);
    return status;
}

int local_data_option(struct cli *cli, int argc, char **argv, struct local *l, bool *follow)
{
    static const struct option own[] = {
        {"data", required_argument, NULL, 'D'}, {"follow", no_argument, NULL, 'f'}, {0}};
    const char *data = DATA_DEFAULT;
    for (int c; (c = cli_option(cli, argc, argv, follow ? "f" : "", own)) != -1;) {
        if (c == 'D')
            data = optarg;
        else if (c == 'f' && follow != NULL)
            *follow = true;
        else
            return EXIT_USAGE;
    }
    if (optind < argc)
        return cli_misuse(cli, "%s takes no arguments", cli->command);
    l->cli = cli;
    return local_locate(l, data) ? EXIT_OK : EXIT_FAILED;
}

int command_down(struct cli *cli, int argc, char **argv)
{
    static struct local l;
    int status = local_data_option(cli, argc, argv, &l, NULL);
    if (status != EXIT_OK)
        return status;
    pid_t pid = local_supervisor(&l);
    if (pid <= 0) {
        if (!cli->quiet)
            printf("no cluster runs on %s\n", l.data);
        return EXIT_OK;
    }
    if (kill(pid, SIGTERM) != 0)
        return cli_fail(cli, "cannot stop pid %ld: %s", (long)pid, strerror(errno));
    int64_t end = local_now_ms() + DOWN_WITHIN_MS, told = local_now_ms();
    while (local_supervisor(&l) == pid) {
        if (local_now_ms() > end)
            return cli_fail(cli, "pid %ld is still running after %d s; see %s/logs", (long)pid,
                            DOWN_WITHIN_MS / 1000, l.data);
        if (!cli->quiet && local_now_ms() - told > 2000) {
            told = local_now_ms();
            printf("waiting for the processes to finish what they do\n");
            fflush(stdout);
        }
        nap_ms(20);
    }
    if (!cli->quiet)
        printf("stopped\n");
    return EXIT_OK;
}

int command_logs(struct cli *cli, int argc, char **argv)
{
    static struct local l;
    bool follow = false;
    int status = local_data_option(cli, argc, argv, &l, &follow);
    if (status != EXIT_OK)
        return status;
    struct strbuf command = {0};
    strbuf_printf(&command, "cd -- \"$STOA_LOGS\" && exec tail -q -n %s *.log",
                  follow ? "20 -F" : "+1");
    struct strbuf path = {0};
    strbuf_printf(&path, "%s/logs", l.data);
    setenv("STOA_LOGS", strbuf_cstr(&path), 1);
    if (access(strbuf_cstr(&path), R_OK) != 0) {
        cli_fail(cli, "%s: %s; is this the folder of a local cluster? (--data)", strbuf_cstr(&path),
                 strerror(errno));
    } else {
        execl("/bin/sh", "sh", "-c", strbuf_cstr(&command), (char *)NULL);
        cli_fail(cli, "cannot run tail: %s", strerror(errno));
    }
    strbuf_free(&command);
    strbuf_free(&path);
    return EXIT_FAILED;
}
