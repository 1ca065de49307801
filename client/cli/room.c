/* SHELL. stoa room: what may be asked of a room with a handler, over HTTP. What changes a room is
 * asked under one idempotency key until it is known to be done. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "client/cli/http.h"
#include "client/cli/local.h"
#include "common/limits.h"

struct room_wish {
    const char *tag, *code, *file;
    char idempotency[IDEMPOTENCY_KEY_MAX_BYTES + 1];
    struct strbuf target; /* "/api/chat/lobby" and what follows */
    struct strbuf body;
};

static void print_line(const struct cli *cli, struct slice json)
{
    if (!cli->quiet)
        printf("%.*s\n", SLICE_FMT(json));
}

/* "chat:lobby" into "/api/chat/lobby". */
static bool target_begin(struct room_wish *w, const char *key)
{
    const char *colon = strchr(key, ':');
    if (colon == NULL || colon == key || colon[1] == '\0')
        return false;
    strbuf_put_text(&w->target, "/api/");
    http_encode(&w->target, slice_of(key, (size_t)(colon - key)));
    strbuf_put_byte(&w->target, '/');
    http_encode(&w->target, slice_text(colon + 1));
    return true;
}

/* Asks until it is known to be done. */
static int change(const struct cli *cli, struct room_wish *w, const char *method)
{
    struct strbuf header = {0};
    struct http_result r;
    bool maybe = false;
    strbuf_printf(&header, "Idempotency-Key: %s", w->idempotency);
    const char *const headers[] = {"Content-Type: application/json", strbuf_cstr(&header), NULL};
    const struct http_call call = {method, strbuf_slice(&w->body), headers, 0};
    http_persist(cli, strbuf_cstr(&w->target), &call, true, &r, &maybe);
    int status = r.status == 200 ? EXIT_OK : http_complain(cli, &r);
    if (status == EXIT_OK)
        print_line(cli, strbuf_slice(&r.body));
    if (maybe) {
        cli_fail(cli, "it may have run: the same command with -k %s tells", w->idempotency);
        status = EXIT_UNKNOWN;
    }
    http_result_free(&r);
    strbuf_free(&header);
    return status;
}

static int verb_state(const struct cli *cli, struct room_wish *w, char **args)
{
    struct http_result r;
    (void)args;
    strbuf_put_text(&w->target, "/state");
    if (!http_get(cli, strbuf_cstr(&w->target), &r))
        return EXIT_FAILED;
    print_line(cli, strbuf_slice(&r.body));
    http_result_free(&r);
    return EXIT_OK;
}

static void print_connection(const struct cli *cli, struct slice row)
{
    struct strbuf id = {0};
    if (cli->json) {
        printf("%.*s\n", SLICE_FMT(row));
        return;
    }
    json_unescape(json_get(row, "id"), &id);
    struct slice tags = json_get(row, "tags").raw, state = json_get(row, "state").raw;
    printf("%s\t%.*s\t%.*s\n", strbuf_cstr(&id), SLICE_FMT(tags), SLICE_FMT(state));
    strbuf_free(&id);
}

static int verb_connections(const struct cli *cli, struct room_wish *w, char **args)
{
    struct http_result r;
    (void)args;
    strbuf_put_text(&w->target, "/connections");
    if (w->tag != NULL)
        http_query_add(&w->target, "tag", slice_text(w->tag));
    if (!http_get(cli, strbuf_cstr(&w->target), &r))
        return EXIT_FAILED;
    struct json_iter it = json_members(strbuf_slice(&r.body));
    while (json_next(&it))
        print_connection(cli, it.value.raw);
    http_result_free(&r);
    return EXIT_OK;
}

static int say(const struct cli *cli, struct room_wish *w, const char *verb, const char *given)
{
    strbuf_put_text(&w->target, verb);
    int status = cli_input(cli, w->file, given, &w->body);
    return status == EXIT_OK ? change(cli, w, "POST") : status;
}

static int verb_send(const struct cli *cli, struct room_wish *w, char **args)
{
    return say(cli, w, "/send", args[0]);
}

static int verb_broadcast(const struct cli *cli, struct room_wish *w, char **args)
{
    return say(cli, w, "/broadcast", args[0]);
}

static int verb_call(const struct cli *cli, struct room_wish *w, char **args)
{
    if (args[0] == NULL)
        return cli_misuse(cli, "give a key and a method");
    strbuf_put_byte(&w->target, '/');
    http_encode(&w->target, slice_text(args[0]));
    if (w->file == NULL && args[1] == NULL) /* a method needs no input */
        return change(cli, w, "POST");
    return say(cli, w, "", args[1]);
}

static int verb_alarm(const struct cli *cli, struct room_wish *w, char **args)
{
    (void)args;
    strbuf_put_text(&w->target, "/alarm");
    return change(cli, w, "POST");
}

static int verb_close(const struct cli *cli, struct room_wish *w, char **args)
{
    (void)args;
    strbuf_put_text(&w->target, "/close");
    if (w->code != NULL)
        http_query_add(&w->target, "code", slice_text(w->code));
    return change(cli, w, "POST");
}

static int verb_purge(const struct cli *cli, struct room_wish *w, char **args)
{
    (void)args;
    return change(cli, w, "DELETE");
}

static const struct {
    const char *name;
    int args; /* behind the key, at most */
    int (*run)(const struct cli *cli, struct room_wish *w, char **args);
} verbs[] = {{"state", 0, verb_state}, {"connections", 0, verb_connections},
             {"send", 1, verb_send},   {"broadcast", 1, verb_broadcast},
             {"call", 2, verb_call},   {"alarm", 0, verb_alarm},
             {"close", 0, verb_close}, {"purge", 0, verb_purge}};

static int verb_run(const struct cli *cli, struct room_wish *w, const char *name, int argc,
                    char **args)
{
    size_t i = 0;
    while (i < sizeof verbs / sizeof *verbs && strcmp(verbs[i].name, name) != 0)
        i++;
    if (i == sizeof verbs / sizeof *verbs)
        return cli_misuse(cli, "no verb \"%s\"", name);
    if (argc < 1 || !target_begin(w, args[0]))
        return cli_misuse(cli, "give a room's key, TYPE:ID");
    if (argc - 1 > verbs[i].args)
        return cli_misuse(cli, "more than %s takes", name);
    return verbs[i].run(cli, w, args + 1);
}

/* The shard's program knows how to load code. Comes back only when it cannot be run. */
static int check(const struct cli *cli, const char *path)
{
    char program[PATH_MAX];
    if (!local_program(cli, "stoa-shard", program))
        return EXIT_FAILED;
    const char *argv[] = {program, "--check-room", path, NULL, NULL, NULL, NULL};
    size_t argc = 3;
    if (cli->json)
        argv[argc++] = "--json";
    if (cli->config != NULL) {
        argv[argc++] = "--config";
        argv[argc++] = cli->config;
    }
    execv(program, (char *const *)argv);
    return cli_fail(cli, "%s: %s", program, strerror(errno));
}

/* Tests of rooms have a program, too. */
static int test(const struct cli *cli, char **files)
{
    char program[PATH_MAX];
    if (!local_program(cli, "stoa-room-test", program))
        return EXIT_FAILED;
    files[-1] = program; /* the verb's place */
    execv(program, files - 1);
    return cli_fail(cli, "%s: %s", program, strerror(errno));
}

int command_room(struct cli *cli, int argc, char **argv)
{
    static const struct option own[] = {{"idempotency-key", required_argument, NULL, 'k'},
                                        {"file", required_argument, NULL, 'f'},
                                        {"tag", required_argument, NULL, 't'},
                                        {"code", required_argument, NULL, 'c'},
                                        {0}};
    struct room_wish w = {0};
    http_random_key(w.idempotency);
    for (int c; (c = cli_option(cli, argc, argv, "k:f:t:c:", own)) != -1;) {
        if (c == 'k' && (strlen(optarg) == 0 || strlen(optarg) > IDEMPOTENCY_KEY_MAX_BYTES))
            return cli_misuse(cli, "-k takes 1 to %d bytes", IDEMPOTENCY_KEY_MAX_BYTES);
        if (c == 'k')
            snprintf(w.idempotency, sizeof w.idempotency, "%s", optarg);
        else if (c == 'f')
            w.file = optarg;
        else if (c == 't')
            w.tag = optarg;
        else if (c == 'c')
            w.code = optarg;
        else
            return EXIT_USAGE;
    }
    if (optind == argc)
        return cli_misuse(
            cli, "say what: state, connections, send, broadcast, call, alarm, close, purge, "
                 "check or test");
    const char *verb = argv[optind++];
    int status;
    bool checks = strcmp(verb, "check") == 0, tests = strcmp(verb, "test") == 0;
    if (!checks && !tests)
        status = verb_run(cli, &w, verb, argc - optind, argv + optind);
    else if (argc == optind || (checks && argc - optind != 1))
        status = cli_misuse(cli, checks ? "give one file" : "give test files");
    else
        status = checks ? check(cli, argv[optind]) : test(cli, argv + optind);
    strbuf_free(&w.target);
    strbuf_free(&w.body);
    return status;
}
