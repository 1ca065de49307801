/* SHELL. A program that asks rooms through libstoa, for the process tests: bin/stoa-asker.
 *
 *     stoa-asker ROUTERS CLUSTER poll|thread
 *
 * Each line of its input is something to ask, eight fields between tabs:
 *     NUMBER HOW VERB KEY NAME INPUT IDEMPOTENCY-KEY TIMEOUT_MS
 * HOW: "w" waits for it before the next line is read, "a" does not; with an "i" behind it items of
 * streams are taken. VERB: send call state connections broadcast close alarm purge; NAME: the
 * method, the tag or the close code. Empty fields are not given.
 *
 * Its output, a line each, fields between tabs:
 *     NUMBER item JSON
 *     NUMBER CODE STATUS DUPLICATE TAG MESSAGE DATA
 * with CODE as returned or told to the callback; STATUS and what follows is missing where there is
 * no result. It ends with its input, when everything is told. */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <stoa.h>

#define FIELDS 8
#define CLOSE_WITHIN_MS 20000

struct question {
    char number[32];
};

static stoa *client;

static void told(const char *number, int code, const stoa_result *r)
{
    flockfile(stdout);
    if (r)
        printf("%s\t%d\t%d\t%d\t%s\t%s\t%s\n", number, code, r->status, r->duplicate, r->tag,
               r->message, r->data);
    else
        printf("%s\t%d\n", number, code);
    fflush(stdout);
    funlockfile(stdout);
}

static void on_item(void *arg, const char *json, size_t size)
{
    const struct question *q = arg;
    flockfile(stdout);
    printf("%s\titem\t%.*s\n", q->number, (int)size, json);
    fflush(stdout);
    funlockfile(stdout);
}

static void on_result(void *arg, int code, const stoa_result *result)
{
    struct question *q = arg;
    told(q->number, code, result);
    free(q);
}

static int ask(char **f, const stoa_call_options *o, stoa_result **out)
{
    const char *verb = f[2], *key = f[3], *name = f[4], *input = f[5];
    size_t size = strlen(input);
    if (strcmp(verb, "send") == 0)
        return stoa_send(client, key, input, size, o, out);
    if (strcmp(verb, "call") == 0)
        return stoa_call(client, key, name, input, size, o, out);
    if (strcmp(verb, "state") == 0)
        return stoa_state(client, key, o, out);
    if (strcmp(verb, "connections") == 0)
        return stoa_connections(client, key, *name ? name : NULL, o, out);
    if (strcmp(verb, "broadcast") == 0)
        return stoa_broadcast(client, key, input, size, o, out);
    if (strcmp(verb, "close") == 0)
        return stoa_close_room(client, key, (int)strtol(name, NULL, 10), o, out);
    if (strcmp(verb, "alarm") == 0)
        return stoa_fire_alarm(client, key, o, out);
    return stoa_purge(client, key, o, out);
}

static int ask_async(char **f, const stoa_call_options *o, struct question *q)
{
    const char *verb = f[2], *key = f[3], *name = f[4], *input = f[5];
    size_t size = strlen(input);
    if (strcmp(verb, "send") == 0)
        return stoa_send_async(client, key, input, size, o, on_result, q);
    if (strcmp(verb, "call") == 0)
        return stoa_call_async(client, key, name, input, size, o, on_result, q);
    if (strcmp(verb, "state") == 0)
        return stoa_state_async(client, key, o, on_result, q);
    if (strcmp(verb, "connections") == 0)
        return stoa_connections_async(client, key, *name ? name : NULL, o, on_result, q);
    if (strcmp(verb, "broadcast") == 0)
        return stoa_broadcast_async(client, key, input, size, o, on_result, q);
    if (strcmp(verb, "close") == 0)
        return stoa_close_room_async(client, key, (int)strtol(name, NULL, 10), o, on_result, q);
    if (strcmp(verb, "alarm") == 0)
        return stoa_fire_alarm_async(client, key, o, on_result, q);
    return stoa_purge_async(client, key, o, on_result, q);
}

static void line_run(char *line)
{
    char *f[FIELDS];
    for (int i = 0; i < FIELDS; i++) {
        f[i] = strsep(&line, "\t");
        if (!f[i]) {
            fprintf(stderr, "stoa-asker: a line has %d fields\n", FIELDS);
            exit(2);
        }
    }
    struct question *q = calloc(1, sizeof *q);
    stoa_call_options o = STOA_CALL_OPTIONS_INIT;
    snprintf(q->number, sizeof q->number, "%s", f[0]);
    o.idempotency_key = *f[6] ? f[6] : NULL;
    o.timeout_ms = (int)strtol(f[7], NULL, 10);
    if (strchr(f[1], 'i')) {
        o.on_item = on_item;
        o.item_arg = q;
    }
    if (f[1][0] == 'a') {
        int code = ask_async(f, &o, q);
        if (code == STOA_OK)
            return;
        told(q->number, code, NULL);
    } else {
        stoa_result *r;
        int code = ask(f, &o, &r);
        told(q->number, code, r);
        stoa_result_free(r);
    }
    free(q);
}

/* Whole lines of what has come; false: the input has ended. */
static bool input_read(void)
{
    static char text[1 << 20];
    static size_t size;
    ssize_t n = read(0, text + size, sizeof text - size - 1);
    if (n <= 0)
        return false;
    size += (size_t)n;
    text[size] = '\0';
    char *at = text, *end;
    while ((end = strchr(at, '\n')) != NULL) {
        *end = '\0';
        line_run(at);
        at = end + 1;
    }
    size -= (size_t)(at - text);
    memmove(text, at, size);
    return true;
}

static void on_log(void *arg, int level, const char *line)
{
    (void)arg;
    (void)level;
    fprintf(stderr, "%s\n", line);
}

int main(int argc, char **argv)
{
    char why[256];
    stoa_options options = STOA_OPTIONS_INIT;
    if (argc != 4) {
        fprintf(stderr, "usage: stoa-asker ROUTERS CLUSTER poll|thread\n");
        return 2;
    }
    options.routers = argv[1];
    options.cluster = argv[2];
    options.threaded = strcmp(argv[3], "thread") == 0;
    options.log_fn = on_log;
    options.log_level = STOA_LOG_WARN;
    if (stoa_open(&client, &options, why) != STOA_OK) {
        fprintf(stderr, "stoa-asker: %s\n", why);
        return 1;
    }
    struct pollfd watched[2] = {{.fd = 0, .events = POLLIN},
                                {.fd = stoa_fd(client), .events = POLLIN}};
    for (bool open = true; open;) {
        if (poll(watched, 2, -1) < 0 && errno != EINTR)
            return 1;
        if (watched[1].revents != 0)
            stoa_poll(client, 0);
        if (watched[0].revents != 0)
            open = input_read();
    }
    stoa_close(client, CLOSE_WITHIN_MS);
    return 0;
}
