/* SHELL. stoa log and stoa keys: listings, page by page. */
#include <stdio.h>

#include "client/cli/event.h"
#include "client/cli/http.h"

#define PAGE 1000 /* what GET /log and GET /keys give at most */

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct slice bytes, struct strbuf *out)
{
    for (size_t i = 0; i < bytes.size; i += 3) {
        size_t left = bytes.size - i;
        uint32_t bits = (uint32_t)bytes.data[i] << 16 |
                        (left > 1 ? (uint32_t)bytes.data[i + 1] << 8 : 0) |
                        (left > 2 ? bytes.data[i + 2] : 0);
        strbuf_put_byte(out, (uint8_t)letters[bits >> 18]);
        strbuf_put_byte(out, (uint8_t)letters[bits >> 12 & 63]);
        strbuf_put_byte(out, left > 1 ? (uint8_t)letters[bits >> 6 & 63] : '=');
        strbuf_put_byte(out, left > 2 ? (uint8_t)letters[bits & 63] : '=');
    }
}

bool base64_decode(struct slice text, struct strbuf *out)
{
    uint32_t bits = 0;
    unsigned have = 0;
    if (text.size % 4 != 0)
        return false;
    for (size_t i = 0; i < text.size && text.data[i] != '='; i++) {
        const char *found = text.data[i] != 0 ? strchr(letters, text.data[i]) : NULL;
        if (found == NULL)
            return false;
        bits = bits << 6 | (uint32_t)(found - letters);
        have += 6;
        if (have >= 8) {
            have -= 8;
            strbuf_put_byte(out, (uint8_t)(bits >> have));
        }
    }
    return true;
}

void event_print(const char *key, struct slice id, struct slice payload, bool raw)
{
    if (!raw && key != NULL)
        printf("%s\t", key);
    if (!raw)
        printf("%.*s\t", SLICE_FMT(id));
    fwrite(payload.data, 1, payload.size, stdout);
    putchar('\n');
}

static struct slice text_of(struct json_value v, struct strbuf *scratch)
{
    strbuf_reset(scratch);
    json_unescape(v, scratch);
    return strbuf_slice(scratch);
}

void missed_print(struct slice missed)
{
    struct strbuf from = {0}, to = {0}, reason = {0};
    json_unescape(json_get(missed, "from"), &from);
    json_unescape(json_get(missed, "to"), &to);
    json_unescape(json_get(missed, "reason"), &reason);
    fprintf(stderr, "stoa: missed %.*s..%.*s (%.*s)\n", SLICE_FMT(strbuf_slice(&from)),
            SLICE_FMT(strbuf_slice(&to)), SLICE_FMT(strbuf_slice(&reason)));
    strbuf_free(&from);
    strbuf_free(&to);
    strbuf_free(&reason);
}

/* ---- log ---- */

struct log_read {
    const char *key, *after; /* NULL: from the oldest that is retained */
    uint64_t limit, last;    /* 0: not asked for */
    bool raw;
    struct strbuf position; /* id of the last event printed */
    uint64_t printed;
};

static void print_event(const struct cli *cli, struct log_read *q, struct slice event)
{
    struct strbuf payload = {0};
    struct json_value data = json_get(event, "data");
    struct slice id = text_of(json_get(event, "id"), &q->position);
    q->printed++;
    if (cli->json) {
        printf("%.*s\n", SLICE_FMT(event));
        return;
    }
    if (data.type == JSON_NONE) {
        struct strbuf text = {0};
        base64_decode(text_of(json_get(event, "base64"), &text), &payload);
        strbuf_free(&text);
        data.raw = strbuf_slice(&payload);
    }
    event_print(NULL, id, data.raw, q->raw);
    strbuf_free(&payload);
}

/* One page. *more: another one follows. */
static bool log_page(const struct cli *cli, struct log_read *q, bool *more)
{
    struct strbuf target = {0}, number = {0};
    struct http_result r;
    strbuf_put_text(&target, "/log");
    http_query_add(&target, "key", slice_text(q->key));
    uint64_t want = q->limit > 0 && q->limit - q->printed < PAGE ? q->limit - q->printed : PAGE;
    strbuf_put_u64(&number, q->last > 0 ? q->last : want);
    if (q->position.size > 0)
        http_query_add(&target, "after", strbuf_slice(&q->position));
    else if (q->after != NULL)
        http_query_add(&target, "after", slice_text(q->after));
    http_query_add(&target, q->last > 0 ? "last" : "limit", strbuf_slice(&number));
    bool fine = http_get(cli, strbuf_cstr(&target), &r);
    strbuf_free(&target);
    strbuf_free(&number);
    if (!fine)
        return false;
    struct slice body = strbuf_slice(&r.body);
    struct json_value missed = json_get(body, "missed");
    if (missed.type == JSON_OBJECT && !cli->quiet)
        missed_print(missed.raw);
    struct json_iter it = json_members(json_get(body, "events").raw);
    uint64_t before = q->printed;
    while (json_next(&it))
        print_event(cli, q, it.value.raw);
    *more = q->last == 0 && json_get(body, "more").type == JSON_TRUE && q->printed > before &&
            (q->limit == 0 || q->printed < q->limit);
    http_result_free(&r);
    return true;
}

int command_log(struct cli *cli, int argc, char **argv)
{
    static const struct option own[] = {{"after", required_argument, NULL, 'a'},
                                        {"limit", required_argument, NULL, 'l'},
                                        {"last", required_argument, NULL, 'n'},
                                        {"raw", no_argument, NULL, 'r'},
                                        {0}};
    struct log_read q = {0};
    for (int c; (c = cli_option(cli, argc, argv, "a:l:n:r", own)) != -1;) {
        if (c == 'a')
            q.after = optarg;
        else if (c == 'r')
            q.raw = true;
        else if ((c != 'l' || !cli_number(cli, "--limit", optarg, 1, UINT32_MAX, &q.limit)) &&
                 (c != 'n' || !cli_number(cli, "--last", optarg, 1, PAGE, &q.last)))
            return EXIT_USAGE;
    }
    if (argc - optind != 1)
        return cli_misuse(cli, "give one key");
    if (q.after != NULL && q.last > 0)
        return cli_misuse(cli, "give --after or --last, not both");
    q.key = argv[optind];
    bool more = true, fine = true;
    while (fine && more)
        fine = log_page(cli, &q, &more);
    strbuf_free(&q.position);
    return fine ? EXIT_OK : EXIT_FAILED;
}

/* ---- keys ---- */

static bool keys_page(const struct cli *cli, const char *prefix, struct strbuf *after, bool *more)
{
    struct strbuf target = {0};
    struct http_result r;
    strbuf_put_text(&target, "/keys?limit=1000");
    http_query_add(&target, "prefix", slice_text(prefix));
    if (after->size > 0)
        http_query_add(&target, "after", strbuf_slice(after));
    bool fine = http_get(cli, strbuf_cstr(&target), &r);
    strbuf_free(&target);
    if (!fine)
        return false;
    struct slice body = strbuf_slice(&r.body);
    struct json_iter it = json_members(json_get(body, "keys").raw);
    bool any = false;
    while (json_next(&it)) {
        bool named = it.value.type == JSON_OBJECT;
        any = true;
        text_of(named ? json_get(it.value.raw, "key") : it.value, after);
        if (cli->json)
            printf("%.*s\n", SLICE_FMT(it.value.raw));
        else
            printf("%.*s\n", SLICE_FMT(strbuf_slice(after)));
    }
    *more = any && json_get(body, "more").type == JSON_TRUE;
    http_result_free(&r);
    return true;
}

int command_keys(struct cli *cli, int argc, char **argv)
{
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return EXIT_USAGE;
    if (argc - optind > 1)
        return cli_misuse(cli, "give one prefix at most");
    const char *prefix = optind < argc ? argv[optind] : "";
    struct strbuf after = {0};
    bool more = true, fine = true;
    while (fine && more)
        fine = keys_page(cli, prefix, &after, &more);
    strbuf_free(&after);
    return fine ? EXIT_OK : EXIT_FAILED;
}
