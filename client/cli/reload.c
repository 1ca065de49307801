/* SHELL. stoa reload: asks the processes of a local cluster to read their configuration anew, and
 * tells what they made of it. What a shard would refuse is found out before anybody is asked, by
 * running its program as it was started, only to check: processes do not wait for each other, and
 * a gateway would take what the shards do not. Each one's answer is the line that it writes into
 * its log, so that is waited for: behind what the log held before the request. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/cli/local.h"
#include "common/mem.h"
#include "common/shell/process.h"

#define ANSWER_WITHIN_MS 10000
#define TURN_MS 20
#define LOG_MAX_BYTES (1 << 20) /* of one process, since the request */
#define NOTE_MAX_BYTES (1 << 16)
#define CHECK_WITHIN_S 60
#define WORDS_MAX 512 /* of a command line, of an environment */

struct answer {
    char log[4352]; /* path */
    char name[32];
    long pid;   /* 0: it does not run */
    off_t from; /* size of the log before the request */
    bool heard, refused;
};

/* The value of `name` in a log line of either format, unescaped onto `out`: name="..." or
 * "name":"...", both escaped as JSON is. */
static bool field_value(struct slice line, const char *name, struct strbuf *out)
{
    char text[32], json[32];
    int sizes[2] = {snprintf(text, sizeof text, " %s=\"", name),
                    snprintf(json, sizeof json, "\"%s\":\"", name)};
    const char *wanted[2] = {text, json};
    for (int i = 0; i < 2; i++) {
        const uint8_t *at = memmem(line.data, line.size, wanted[i], (size_t)sizes[i]);
        if (at == NULL)
            continue;
        size_t start = (size_t)(at - line.data) + (size_t)sizes[i] - 1, end = start + 1;
        while (end < line.size && line.data[end] != '"')
            end += line.data[end] == '\\' ? 2 : 1;
        if (end >= line.size)
            return false;
        return json_unescape(
            (struct json_value){.type = JSON_STRING,
                                .raw = slice_of(line.data + start, end + 1 - start)},
            out);
    }
    return false;
}

/* Adds the lines of `text` that are not in `all` yet. */
static void add_lines(struct strbuf *all, struct slice text)
{
    while (text.size > 0) {
        const uint8_t *newline = memchr(text.data, '\n', text.size);
        size_t size = newline ? (size_t)(newline - text.data) : text.size;
        struct strbuf line = {0};
        strbuf_put_byte(&line, '\n'); /* `all` begins with one, too: whole lines are compared */
        strbuf_put(&line, text.data, size);
        strbuf_put_byte(&line, '\n');
        if (size > 0 && memmem(all->data, all->size, line.data, line.size) == NULL)
            strbuf_put(all, line.data + 1, size + 1);
        strbuf_free(&line);
        size += newline ? 1 : 0;
        text = slice_of(text.data + size, text.size - size);
    }
}

/* Looks for the answer in what the log has got since. */
static void listen_to(struct answer *a, struct strbuf *changed, struct strbuf *refused)
{
    struct strbuf text = {0}, value = {0};
    int fd = open(a->log, O_RDONLY | O_CLOEXEC);
    ssize_t n =
        fd >= 0 ? pread(fd, strbuf_reserve(&text, LOG_MAX_BYTES), LOG_MAX_BYTES, a->from) : 0;
    strbuf_commit(&text, n > 0 ? (size_t)n : 0);
    if (fd >= 0)
        close(fd);
    struct slice rest = strbuf_slice(&text);
    const uint8_t *newline;
    while (!a->heard && rest.size > 0 && (newline = memchr(rest.data, '\n', rest.size)) != NULL) {
        struct slice line = slice_of(rest.data, (size_t)(newline - rest.data));
        rest = slice_of(newline + 1, rest.size - line.size - 1);
        if (memmem(line.data, line.size, ".reload", 7) == NULL)
            continue;
        strbuf_reset(&value);
        a->heard = true;
        a->refused = memmem(line.data, line.size, ".reload_refused", 15) != NULL;
        if (field_value(line, a->refused ? "why" : "changed", &value))
            add_lines(a->refused ? refused : changed, strbuf_slice(&value));
        else if (a->refused)
            add_lines(refused, slice_text("see stoa logs"));
    }
    strbuf_free(&text);
    strbuf_free(&value);
}

/* Who will answer: the processes that cluster.json notes with a monitor. */
static size_t read_note(const struct local *l, struct answer answers[LOCAL_PROCESSES_MAX])
{
    struct strbuf path = {0}, name = {0};
    size_t size = 0, n = 0;
    strbuf_printf(&path, "%s/run/cluster.json", l->data);
    char *bytes = process_read_file(strbuf_cstr(&path), NOTE_MAX_BYTES, &size);
    struct slice note = slice_of(bytes, bytes ? size : 0);
    struct json_iter it =
        json_members(json_valid(note) ? json_get(note, "processes").raw : slice_text("[]"));
    while (n < LOCAL_PROCESSES_MAX && json_next(&it)) {
        struct json_value monitor = json_get(it.value.raw, "monitor");
        struct stat st;
        strbuf_reset(&name);
        if (slice_is(monitor.raw, "\"\"") || !json_unescape(json_get(it.value.raw, "name"), &name))
            continue;
        struct answer *a = &answers[n++];
        *a = (struct answer){0};
        snprintf(a->name, sizeof a->name, "%s", strbuf_cstr(&name));
        struct json_value pid = json_get(it.value.raw, "pid");
        char digits[24];
        snprintf(digits, sizeof digits, "%.*s", SLICE_FMT(pid.raw));
        a->pid = pid.type == JSON_NUMBER ? strtol(digits, NULL, 10) : 0;
        snprintf(a->log, sizeof a->log, "%s/logs/%s.log", l->data, a->name);
        a->from = stat(a->log, &st) == 0 ? st.st_size : 0;
    }
    mem_free(bytes);
    strbuf_free(&path);
    strbuf_free(&name);
    return n;
}

/* ---- before anybody is asked ---- */

/* /proc/PID/WHAT, a list of words that end with NUL, and pointers to them. */
static bool words_read(long pid, const char *what, struct strbuf *text, char *words[WORDS_MAX],
                       size_t *n)
{
    char path[64];
    *n = 0;
    snprintf(path, sizeof path, "/proc/%ld/%s", pid, what);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = -1;
    while (fd >= 0 && text->size < LOG_MAX_BYTES &&
           (size = read(fd, strbuf_reserve(text, NOTE_MAX_BYTES), NOTE_MAX_BYTES)) > 0)
        strbuf_commit(text, (size_t)size);
    if (fd >= 0)
        close(fd);
    if (size != 0)
        return false;
    strbuf_put_byte(text, '\0');
    for (size_t at = 0; at + 1 < text->size && *n + 2 < WORDS_MAX;) {
        words[(*n)++] = (char *)text->data + at;
        at += strlen((char *)text->data + at) + 1;
    }
    words[*n] = NULL;
    return true;
}

/* In the child. */
static _Noreturn void check_run(long pid, char **argv, char **environment, int out)
{
    char here[64];
    snprintf(here, sizeof here, "/proc/%ld/cwd", pid);
    alarm(CHECK_WITHIN_S); /* a library's own code runs when it is loaded */
    if (chdir(here) == 0 && dup2(out, STDOUT_FILENO) >= 0 && dup2(out, STDERR_FILENO) >= 0)
        execve(argv[0], argv, environment);
    dprintf(out, "%s: %s", argv[0], strerror(errno));
    _exit(EXIT_FAILED);
}

/* Runs the process's program once more, as it was started, to load the configuration and all code
 * of rooms. False: that is refused, with the reason. */
static bool check(long pid, struct strbuf *why)
{
    static char check_word[] = "--check-rooms";
    struct strbuf command = {0}, environment = {0};
    char *argv[WORDS_MAX], *envp[WORDS_MAX];
    size_t n_argv, n_envp;
    int ends[2], status = 0;
    bool fine = true;
    if (words_read(pid, "cmdline", &command, argv, &n_argv) && n_argv > 0 &&
        words_read(pid, "environ", &environment, envp, &n_envp) && pipe(ends) == 0) {
        argv[n_argv++] = check_word;
        argv[n_argv] = NULL;
        pid_t child = fork();
        if (child == 0)
            check_run(pid, argv, envp, ends[1]);
        close(ends[1]);
        ssize_t n;
        while (why->size < NOTE_MAX_BYTES &&
               (n = read(ends[0], strbuf_reserve(why, 4096), 4096)) > 0)
            strbuf_commit(why, (size_t)n);
        close(ends[0]);
        fine = child < 0 || waitpid(child, &status, 0) != child || status == 0;
        if (!fine && WIFSIGNALED(status))
            strbuf_printf(why, "the check was ended by signal %d", WTERMSIG(status));
    }
    strbuf_free(&command);
    strbuf_free(&environment);
    return fine;
}

static int refuse(const struct cli *cli, struct strbuf *why)
{
    static const char program[] = "stoa-shard: ";
    while (why->size > 0 && why->data[why->size - 1] == '\n')
        why->size--;
    size_t from =
        why->size > sizeof program - 1 && memcmp(why->data, program, sizeof program - 1) == 0
            ? sizeof program - 1
            : 0;
    for (size_t i = from; i < why->size; i++)
        if (why->data[i] == '\n')
            why->data[i] = ';';
    return cli_fail(cli, "nothing was applied: %s", strbuf_cstr(why) + from);
}

/* EXIT_OK: the shards will take it. */
static int check_first(const struct cli *cli, const struct answer *answers, size_t n)
{
    struct strbuf why = {0};
    int status = EXIT_OK;
    for (size_t i = 0; i < n; i++) {
        if (answers[i].pid == 0 || strncmp(answers[i].name, "shard", 5) != 0)
            continue;
        if (!check(answers[i].pid, &why))
            status = refuse(cli, &why);
        break; /* they all load the same */
    }
    strbuf_free(&why);
    return status;
}

/* An exit code, after telling what the processes answered. */
static int tell(const struct cli *cli, const struct answer *answers, size_t n,
                const struct strbuf *changed, const struct strbuf *refused)
{
    for (size_t i = 0; i < n; i++)
        if (!answers[i].heard)
            return cli_fail(cli, "%s did not answer within %d s; see stoa logs", answers[i].name,
                            ANSWER_WITHIN_MS / 1000);
    if (refused->size > 1) {
        struct strbuf why = {0};
        for (size_t i = 1; i + 1 < refused->size; i++)
            if (refused->data[i] == '\n')
                strbuf_put_text(&why, "; ");
            else
                strbuf_put_byte(&why, refused->data[i]);
        bool all = true;
        for (size_t i = 0; i < n; i++)
            all = all && answers[i].refused;
        cli_fail(cli, "%s: %s", all ? "nothing was applied" : "not everybody has taken it",
                 strbuf_cstr(&why));
        strbuf_free(&why);
        return EXIT_FAILED;
    }
    if (changed->size > 1)
        fwrite(changed->data + 1, 1, changed->size - 1, stdout);
    else if (!cli->quiet)
        puts("nothing changed");
    return EXIT_OK;
}

int command_reload(struct cli *cli, int argc, char **argv)
{
    static struct local l;
    static struct answer answers[LOCAL_PROCESSES_MAX];
    int status = local_data_option(cli, argc, argv, &l, NULL);
    if (status != EXIT_OK)
        return status;
    pid_t pid = local_supervisor(&l);
    if (pid <= 0)
        return cli_fail(cli, "no cluster runs on %s; elsewhere send SIGHUP to each process",
                        l.data);
    size_t n = read_note(&l, answers), heard = 0;
    status = check_first(cli, answers, n);
    if (status != EXIT_OK)
        return status;
    if (kill(pid, SIGHUP) != 0)
        return cli_fail(cli, "cannot reach pid %ld: %s", (long)pid, strerror(errno));
    struct strbuf changed = {0}, refused = {0};
    int64_t end = local_now_ms() + ANSWER_WITHIN_MS;
    strbuf_put_byte(&changed, '\n');
    strbuf_put_byte(&refused, '\n');
    while (heard < n && local_now_ms() < end) {
        const struct timespec turn = {.tv_nsec = TURN_MS * 1000000};
        nanosleep(&turn, NULL);
        for (size_t i = 0; i < n; i++) {
            bool before = answers[i].heard;
            if (!before)
                listen_to(&answers[i], &changed, &refused);
            heard += answers[i].heard && !before;
        }
    }
    status = tell(cli, answers, n, &changed, &refused);
    strbuf_free(&changed);
    strbuf_free(&refused);
    return status;
}
