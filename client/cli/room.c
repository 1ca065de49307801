/* SHELL. stoa room: what may be asked of a room with a handler, over HTTP; with
 * --router through libstoa. What changes a room is asked under one idempotency
 * key until it is known to be done. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "client/cli/http.h"
#include "client/cli/library.h"
#include "client/cli/local.h"
#include "common/limits.h"

struct room_wish {
    const char *key, *tag, *code, *file;
    char idempotency[IDEMPOTENCY_KEY_MAX_BYTES + 1];
    uint64_t close_code;  /* of `code`, 0: none given */
    struct strbuf target; /* "/api/chat/lobby" and what follows */
    struct strbuf body;
};

static void print_line(const struct cli *cli, struct slice json)
{
    if (!cli->quiet)
        printf("%.*s\n", SLICE_FMT(json));
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
    printf("%s\t", strbuf_cstr(&id));
    if (tags.size > 0) /* a member has none */
        printf("%.*s\t", SLICE_FMT(tags));
    printf("%.*s\n", SLICE_FMT(state));
    strbuf_free(&id);
}

static void print_connections(const struct cli *cli, struct slice rows)
{
    struct json_iter it = json_members(rows);
    while (json_next(&it))
        print_connection(cli, it.value.raw);
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

/* ---- over HTTP ---- */

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

static int list(const struct cli *cli, struct room_wish *w)
{
    struct http_result r;
    if (!http_get(cli, strbuf_cstr(&w->target), &r))
        return EXIT_FAILED;
    print_connections(cli, strbuf_slice(&r.body));
    http_result_free(&r);
    return EXIT_OK;
}

static int verb_connections(const struct cli *cli, struct room_wish *w, char **args)
{
    (void)args;
    strbuf_put_text(&w->target, "/connections");
    if (w->tag != NULL)
        http_query_add(&w->target, "tag", slice_text(w->tag));
    return list(cli, w);
}

static int verb_presence(const struct cli *cli, struct room_wish *w, char **args)
{
    (void)args;
    strbuf_put_text(&w->target, "/presence");
    return list(cli, w);
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

/* It may be any key, also of a type that has no handler any more. */
static int verb_release(const struct cli *cli, struct room_wish *w, char **args)
{
    (void)args;
    return change(cli, w, "DELETE");
}

/* ---- through a router ---- */

typedef int ask_fn(stoa *s, const struct room_wish *w, const char *method,
                   const stoa_call_options *how, stoa_result **out);

static int ask_state(stoa *s, const struct room_wish *w, const char *method,
                     const stoa_call_options *how, stoa_result **out)
{
    (void)method;
    return stoa_state(s, w->key, how, out);
}

static int ask_connections(stoa *s, const struct room_wish *w, const char *method,
                           const stoa_call_options *how, stoa_result **out)
{
    (void)method;
    return stoa_connections(s, w->key, w->tag, how, out);
}

static int ask_send(stoa *s, const struct room_wish *w, const char *method,
                    const stoa_call_options *how, stoa_result **out)
{
    (void)method;
    return stoa_send(s, w->key, w->body.data, w->body.size, how, out);
}

static int ask_broadcast(stoa *s, const struct room_wish *w, const char *method,
                         const stoa_call_options *how, stoa_result **out)
{
    (void)method;
    return stoa_broadcast(s, w->key, w->body.data, w->body.size, how, out);
}

static int ask_call(stoa *s, const struct room_wish *w, const char *method,
                    const stoa_call_options *how, stoa_result **out)
{
    return stoa_call(s, w->key, method, w->body.data, w->body.size, how, out);
}

static int ask_alarm(stoa *s, const struct room_wish *w, const char *method,
                     const stoa_call_options *how, stoa_result **out)
{
    (void)method;
    return stoa_fire_alarm(s, w->key, how, out);
}

static int ask_close(stoa *s, const struct room_wish *w, const char *method,
                     const stoa_call_options *how, stoa_result **out)
{
    (void)method;
    return stoa_close_room(s, w->key, (int)w->close_code, how, out);
}

static int ask_purge(stoa *s, const struct room_wish *w, const char *method,
                     const stoa_call_options *how, stoa_result **out)
{
    (void)method;
    return stoa_purge(s, w->key, how, out);
}

/* As the gateway says it. */
static void print_answer(const struct cli *cli, ask_fn *ask, const stoa_result *r)
{
    struct slice data = slice_of(r->data, r->data_size);
    if (ask == ask_connections)
        print_connections(cli, data);
    else if (ask == ask_close)
        print_line(cli, slice_text("{}"));
    else if (ask == ask_send || ask == ask_broadcast || ask == ask_alarm)
        print_line(cli,
                   slice_text(r->duplicate ? "{\"ok\":true,\"duplicate\":true}" : "{\"ok\":true}"));
    else
        print_line(cli, data);
}

static int through_router(const struct cli *cli, const struct room_wish *w, ask_fn *ask,
                          const char *method)
{
    stoa *client = library_open(cli);
    if (client == NULL)
        return EXIT_FAILED;
    stoa_call_options how = STOA_CALL_OPTIONS_INIT;
    stoa_result *r = NULL;
    how.idempotency_key = w->idempotency;
    how.timeout_ms = (int)(cli->timeout_s * 1000);
    int code = ask(client, w, method, &how, &r);
    stoa_close(client, 1000);
    if (code == STOA_OK)
        print_answer(cli, ask, r);
    else if (r != NULL)
        cli_fail(cli, "%s: %s", r->tag, r->message);
    else
        cli_fail(cli, "%s through %s", stoa_strerror(code), cli->router);
    if (code == STOA_UNKNOWN)
        cli_fail(cli, "it may have run: the same command with -k %s tells", w->idempotency);
    stoa_result_free(r);
    return code == STOA_OK ? EXIT_OK : code == STOA_UNKNOWN ? EXIT_UNKNOWN : EXIT_FAILED;
}

/* ---- the command ---- */

static const struct {
    const char *name;
    int least, most; /* words behind the key; what is said may come from standard
                        input */
    bool says;
    int (*run)(const struct cli *cli, struct room_wish *w, char **args);
    ask_fn *ask; /* NULL: only a gateway answers it */
} verbs[] = {{"state", 0, 0, false, verb_state, ask_state},
             {"connections", 0, 0, false, verb_connections, ask_connections},
             {"presence", 0, 0, false, verb_presence, NULL},
             {"send", 0, 1, true, verb_send, ask_send},
             {"broadcast", 0, 1, true, verb_broadcast, ask_broadcast},
             {"call", 1, 2, false, verb_call, ask_call},
             {"alarm", 0, 0, false, verb_alarm, ask_alarm},
             {"close", 0, 0, false, verb_close, ask_close},
             {"purge", 0, 0, false, verb_purge, ask_purge},
             {"release", 0, 0, false, verb_release, NULL}};

static int ask_by_router(const struct cli *cli, struct room_wish *w, size_t verb, char **args)
{
    const char *method = verbs[verb].least > 0 ? args[0] : NULL;
    const char *given = args[verbs[verb].least];
    int status = EXIT_OK;
    if (w->code != NULL && !cli_number(cli, "--code", w->code, 1000, 4999, &w->close_code))
        return EXIT_USAGE;
    if (verbs[verb].most > 0 && (verbs[verb].says || w->file != NULL || given != NULL))
        status = cli_input(cli, w->file, given, &w->body);
    return status == EXIT_OK ? through_router(cli, w, verbs[verb].ask, method) : status;
}

static int verb_run(const struct cli *cli, struct room_wish *w, const char *name, int argc,
                    char **args)
{
    size_t i = 0;
    while (i < sizeof verbs / sizeof *verbs && strcmp(verbs[i].name, name) != 0)
        i++;
    if (i == sizeof verbs / sizeof *verbs)
        return cli_misuse(cli, "no verb \"%s\"", name);
    bool release = verbs[i].run == verb_release;
    if (argc < 1 || (!release && !target_begin(w, args[0])))
        return cli_misuse(cli, "give a room's key, TYPE:ID");
    if (argc - 1 < verbs[i].least)
        return cli_misuse(cli, "give a key and a method");
    if (argc - 1 > verbs[i].most)
        return cli_misuse(cli, "more than %s takes", name);
    w->key = args[0];
    if (release) {
        strbuf_put_text(&w->target, "/quarantine");
        http_query_add(&w->target, "key", slice_text(args[0]));
    }
    return cli->router != NULL && verbs[i].ask != NULL ? ask_by_router(cli, w, i, args + 1)
                                                       : verbs[i].run(cli, w, args + 1);
}

/* The shard's program knows how to load code. Comes back only when it cannot be
 * run. */
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
        return cli_misuse(cli, "say what: state, connections, presence, send, broadcast, "
                               "call, alarm, close, purge, release, "
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
