/* SHELL. stoa publish: through a gateway (HTTP), retried under one idempotency key until it is
 * known to be on disk; with --router through libstoa. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/cli/http.h"
#include "client/cli/library.h"
#include "common/limits.h"
#include "common/mem.h"

#define INPUT_MAX_BYTES (2 * MIB)

struct publish {
    const char *key, *conflate, *file;
    const char *tags, *to, *except; /* names with commas between them; NULL: not given */
    char idempotency[IDEMPOTENCY_KEY_MAX_BYTES + 1];
    bool ephemeral, batch;
    struct strbuf payload;
};

static int read_stream(const struct cli *cli, FILE *in, const char *name, struct strbuf *out)
{
    while (!feof(in) && out->size <= INPUT_MAX_BYTES) {
        size_t n = fread(strbuf_reserve(out, 64 * KIB), 1, 64 * KIB, in);
        strbuf_commit(out, n);
        if (ferror(in))
            return cli_fail(cli, "cannot read %s: %s", name, strerror(errno));
    }
    if (out->size > INPUT_MAX_BYTES)
        return cli_fail(cli, "%s is larger than a publish may be (%d bytes)", name,
                        INPUT_MAX_BYTES);
    return EXIT_OK;
}

int cli_input(const struct cli *cli, const char *file, const char *given, struct strbuf *out)
{
    if (file != NULL) {
        FILE *in = fopen(file, "rb");
        if (in == NULL)
            return cli_fail(cli, "%s: %s", file, strerror(errno));
        int status = read_stream(cli, in, file, out);
        fclose(in);
        return status;
    }
    if (given == NULL || strcmp(given, "-") == 0)
        return read_stream(cli, stdin, "standard input", out);
    strbuf_put_text(out, given);
    return EXIT_OK;
}

static void print_id(const struct cli *cli, struct slice answer)
{
    if (cli->json) {
        printf("%.*s\n", SLICE_FMT(answer));
        return;
    }
    struct strbuf id = {0};
    if (!cli->quiet && json_unescape(json_get(answer, "id"), &id))
        printf("%s\n", strbuf_cstr(&id));
    strbuf_free(&id);
}

static int through_gateway(const struct cli *cli, struct publish *p)
{
    struct strbuf target = {0}, idempotency = {0}, conflate = {0};
    const char *headers[5];
    size_t n = 0;
    strbuf_put_text(&target, "/publish");
    http_query_add(&target, "key", slice_text(p->key));
    if (p->tags != NULL)
        http_query_add(&target, "tags", slice_text(p->tags));
    if (p->to != NULL)
        http_query_add(&target, "to", slice_text(p->to));
    if (p->except != NULL)
        http_query_add(&target, "except", slice_text(p->except));
    strbuf_printf(&idempotency, "Idempotency-Key: %s", p->idempotency);
    strbuf_printf(&conflate, "Stoa-Conflate: %s", p->conflate ? p->conflate : "");
    headers[n++] =
        p->batch ? "Content-Type: application/x-ndjson" : "Content-Type: application/octet-stream";
    if (p->ephemeral)
        headers[n++] = "Stoa-Ephemeral: 1";
    else
        headers[n++] = strbuf_cstr(&idempotency);
    if (p->conflate != NULL)
        headers[n++] = strbuf_cstr(&conflate);
    headers[n] = NULL;

    struct http_result r;
    bool maybe = false;
    const struct http_call call = {"POST", strbuf_slice(&p->payload), headers, 0};
    http_persist(cli, strbuf_cstr(&target), &call, !p->ephemeral, &r, &maybe);
    int status = r.status == 200 ? EXIT_OK : http_complain(cli, &r);
    if (status == EXIT_OK)
        print_id(cli, strbuf_slice(&r.body));
    if (maybe) {
        cli_fail(cli, "the event may be stored: run the same command with -k %s to learn it",
                 p->idempotency);
        status = EXIT_UNKNOWN;
    }
    http_result_free(&r);
    strbuf_free(&target);
    strbuf_free(&idempotency);
    strbuf_free(&conflate);
    return status;
}

/* Lines of a batch: each a payload; empty ones are skipped, as the gateway does. */
static size_t split_lines(struct slice text, stoa_slice *out, size_t max)
{
    size_t n = 0;
    while (text.size > 0) {
        const uint8_t *end = memchr(text.data, '\n', text.size);
        size_t size = end ? (size_t)(end - text.data) : text.size;
        size_t kept = size > 0 && text.data[size - 1] == '\r' ? size - 1 : size;
        if (kept > 0) {
            if (n == max)
                return max + 1;
            out[n++] = (stoa_slice){text.data, kept};
        }
        size += end ? 1 : 0;
        text = slice_of(text.data + size, text.size - size);
    }
    return n;
}

/* A list of an option. */
struct names {
    char *text;
    const char **at;
    size_t count;
};

static struct names names_split(const char *given)
{
    if (given == NULL)
        return (struct names){0};
    struct names names = {.text = mem_strdup(given)};
    names.at = mem_alloc((strlen(given) + 1) * sizeof *names.at);
    char *rest = NULL;
    for (char *name = strtok_r(names.text, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
        names.at[names.count++] = name;
    return names;
}

static void names_free(struct names *names)
{
    mem_free(names->text);
    mem_free(names->at);
}

static int through_router(const struct cli *cli, struct publish *p)
{
    stoa *client = library_open(cli);
    if (client == NULL)
        return EXIT_FAILED;
    stoa_publish_options how = STOA_PUBLISH_OPTIONS_INIT;
    how.conflate = p->conflate;
    how.ephemeral = p->ephemeral;
    how.idempotency_key = p->ephemeral ? NULL : p->idempotency;
    how.timeout_ms = (int)(cli->timeout_s * 1000);
    struct names tags = names_split(p->tags), to = names_split(p->to),
                 except = names_split(p->except);
    how.tags = tags.at;
    how.n_tags = tags.count;
    how.to = to.at;
    how.n_to = to.count;
    how.except = except.at;
    how.n_except = except.count;
    stoa_id id = {0};
    int code;
    if (p->batch) {
        stoa_slice lines[BATCH_MAX_EVENTS];
        size_t n = split_lines(strbuf_slice(&p->payload), lines, BATCH_MAX_EVENTS);
        code = n > 0 && n <= BATCH_MAX_EVENTS
                   ? stoa_publish_batch(client, p->key, lines, n, &how, &id)
                   : STOA_INVALID;
    } else {
        code = stoa_publish(client, p->key, p->payload.data ? (const void *)p->payload.data : "",
                            p->payload.size, &how, &id);
    }
    stoa_close(client, 1000);
    names_free(&tags);
    names_free(&to);
    names_free(&except);
    if (code == STOA_OK) {
        char text[40];
        stoa_id_text(&id, text);
        if (cli->json && p->ephemeral)
            puts("{\"id\":null,\"duplicate\":false}");
        else if (cli->json)
            printf("{\"id\":\"%s\",\"duplicate\":%s}\n", text, id.duplicate ? "true" : "false");
        else if (!cli->quiet && !p->ephemeral)
            puts(text);
        return EXIT_OK;
    }
    cli_fail(cli, "%s through %s", stoa_strerror(code), cli->router);
    return code == STOA_UNKNOWN ? EXIT_UNKNOWN : EXIT_FAILED;
}

/* Where the list of an option goes; NULL: it is none. */
static const char **list_of(struct publish *p, int option)
{
    if (option == 'T')
        return &p->tags;
    if (option == 'O')
        return &p->to;
    return option == 'X' ? &p->except : NULL;
}

int command_publish(struct cli *cli, int argc, char **argv)
{
    static const struct option own[] = {{"idempotency-key", required_argument, NULL, 'k'},
                                        {"conflate", required_argument, NULL, 'c'},
                                        {"ephemeral", no_argument, NULL, 'e'},
                                        {"batch", no_argument, NULL, 'b'},
                                        {"file", required_argument, NULL, 'f'},
                                        {"tags", required_argument, NULL, 'T'},
                                        {"to", required_argument, NULL, 'O'},
                                        {"except", required_argument, NULL, 'X'},
                                        {0}};
    struct publish p = {0};
    http_random_key(p.idempotency);
    for (int c; (c = cli_option(cli, argc, argv, "k:c:ebf:", own)) != -1;) {
        if (c == 'k' && (strlen(optarg) == 0 || strlen(optarg) > IDEMPOTENCY_KEY_MAX_BYTES))
            return cli_misuse(cli, "-k takes 1 to %d bytes", IDEMPOTENCY_KEY_MAX_BYTES);
        if (c == 'k')
            snprintf(p.idempotency, sizeof p.idempotency, "%s", optarg);
        else if (c == 'c')
            p.conflate = optarg;
        else if (c == 'e')
            p.ephemeral = true;
        else if (c == 'b')
            p.batch = true;
        else if (c == 'f')
            p.file = optarg;
        else if (list_of(&p, c) != NULL && *list_of(&p, c) != NULL)
            return cli_misuse(cli,
                              "give --tags, --to and --except once, with commas between names");
        else if (list_of(&p, c) != NULL)
            *list_of(&p, c) = optarg;
        else
            return EXIT_USAGE;
    }
    if (optind == argc || argc - optind > 2 || (p.file != NULL && argc - optind > 1))
        return cli_misuse(cli, "give a key and one payload");
    p.key = argv[optind];
    int status = cli_input(cli, p.file, optind + 1 < argc ? argv[optind + 1] : NULL, &p.payload);
    if (status == EXIT_OK)
        status = cli->router != NULL ? through_router(cli, &p) : through_gateway(cli, &p);
    strbuf_free(&p.payload);
    return status;
}
