/* SHELL. stoa status and stoa top: tables made from the gateway's JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "client/cli/http.h"

#define COLUMNS_MAX 12
#define CELL_MAX 128
#define SAMPLE_MS 1000 /* between the two looks that a rate is made of */

struct column {
    const char *field, *title;
    int width; /* as printed; grows with the cells */
};

static void cell_of(struct slice row, const char *field, char out[CELL_MAX])
{
    struct json_value v = json_get(row, field);
    struct strbuf text = {0};
    if (v.type == JSON_STRING)
        json_unescape(v, &text);
    else if (v.type != JSON_NONE && v.type != JSON_NULL)
        strbuf_put_slice(&text, v.raw);
    else
        strbuf_put_text(&text, "-");
    snprintf(out, CELL_MAX, "%.*s", SLICE_FMT(strbuf_slice(&text)));
    for (char *c = out; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?'; /* a terminal obeys control characters */
    strbuf_free(&text);
}

static void print_table(struct slice rows, struct column *columns, size_t n)
{
    char cell[CELL_MAX];
    struct json_iter it = json_members(rows);
    for (size_t i = 0; i < n; i++)
        columns[i].width = (int)strlen(columns[i].title);
    while (json_next(&it))
        for (size_t i = 0; i < n; i++) {
            cell_of(it.value.raw, columns[i].field, cell);
            int width = (int)strlen(cell);
            columns[i].width = width > columns[i].width ? width : columns[i].width;
        }
    for (size_t i = 0; i < n; i++)
        printf("%-*s%s", columns[i].width, columns[i].title, i + 1 < n ? "  " : "\n");
    it = json_members(rows);
    while (json_next(&it))
        for (size_t i = 0; i < n; i++) {
            cell_of(it.value.raw, columns[i].field, cell);
            printf("%-*s%s", columns[i].width, cell, i + 1 < n ? "  " : "\n");
        }
}

static void show(const struct cli *cli, struct slice rows, struct column *columns, size_t n)
{
    if (!cli->json) {
        print_table(rows, columns, n);
        return;
    }
    struct json_iter it = json_members(rows);
    while (json_next(&it))
        printf("%.*s\n", SLICE_FMT(it.value.raw));
}

/* What a process counts, of the events that it is there for. */
static double count_of(struct slice row)
{
    static const char *const fields[] = {"deliveries", "forwarded", "published"};
    char digits[32] = "0";
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        struct json_value v = json_get(row, fields[i]);
        if (v.type == JSON_NUMBER && v.raw.size < sizeof digits) {
            snprintf(digits, sizeof digits, "%.*s", SLICE_FMT(v.raw));
            break;
        }
    }
    return strtod(digits, NULL);
}

/* The row of the same process, in the same life; empty: none. */
static struct slice row_like(struct slice rows, struct slice wanted)
{
    struct json_iter it = json_members(rows);
    while (json_next(&it))
        if (slice_equal(json_get(it.value.raw, "name").raw, json_get(wanted, "name").raw) &&
            slice_equal(json_get(it.value.raw, "boot").raw, json_get(wanted, "boot").raw))
            return it.value.raw;
    return slice_of(NULL, 0);
}

/* The rows of `after`, each with "per_second". */
static void put_rates(struct slice before, struct slice after, double seconds, struct strbuf *out)
{
    struct json_iter it = json_members(after);
    strbuf_put_byte(out, '[');
    while (json_next(&it)) {
        struct slice row = it.value.raw, old = row_like(before, row);
        double rate = old.size > 0 ? (count_of(row) - count_of(old)) / seconds : 0;
        if (out->size > 1)
            strbuf_put_byte(out, ',');
        strbuf_put(out, row.data, row.size - 1); /* without its brace */
        strbuf_printf(out, ",\"per_second\":%.0f}", rate);
    }
    strbuf_put_byte(out, ']');
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* What is wrong with rooms' code: below the table, when there is anything. */
static void show_quarantine(const struct cli *cli)
{
    static struct column columns[] = {
        {"key", "QUARANTINED", 0}, {"whole_type", "WHOLE TYPE", 0}, {"why", "WHY", 0}};
    const struct http_call call = {.method = "GET"};
    struct http_result r;
    http_run(cli, "/quarantine", &call, &r);
    struct slice body = strbuf_slice(&r.body);
    if (r.status == 200 && json_valid(body)) {
        struct json_value rooms = json_get(body, "rooms"), refused = json_get(body, "refused");
        struct json_iter it = json_members(rooms.type == JSON_ARRAY ? rooms.raw : slice_text("[]"));
        if (json_next(&it)) {
            putchar('\n');
            print_table(rooms.raw, columns, sizeof columns / sizeof *columns);
        }
        it = json_members(refused.type == JSON_ARRAY ? refused.raw : slice_text("[]"));
        char name[CELL_MAX];
        while (json_next(&it)) {
            struct strbuf why = {0};
            json_unescape(json_get(it.value.raw, "why"), &why);
            cell_of(it.value.raw, "name", name);
            printf("\n%s refused the last reload; what ran before runs on:\n", name);
            for (size_t i = 0; i < why.size; i++)
                putchar(why.data[i] == '\n' || (why.data[i] >= 0x20 && why.data[i] != 0x7f)
                            ? why.data[i]
                            : '?');
            putchar('\n');
            strbuf_free(&why);
        }
    }
    http_result_free(&r);
}

int command_status(struct cli *cli, int argc, char **argv)
{
    static struct column columns[] = {{"name", "NAME", 0},       {"role", "ROLE", 0},
                                      {"version", "VERSION", 0}, {"address", "ADDRESS", 0},
                                      {"slots", "SLOTS", 0},     {"rooms", "ROOMS", 0},
                                      {"events", "EVENTS", 0},   {"up", "UP", 0},
                                      {"sockets", "SOCKETS", 0}, {"per_second", "PER SECOND", 0}};
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return EXIT_USAGE;
    if (optind < argc)
        return cli_misuse(cli, "status takes no arguments");
    struct http_result first, second;
    const struct timespec pause = {.tv_sec = SAMPLE_MS / 1000,
                                   .tv_nsec = SAMPLE_MS % 1000 * 1000000};
    if (!http_get(cli, "/status", &first))
        return EXIT_FAILED;
    int64_t started = now_ms();
    nanosleep(&pause, NULL);
    double seconds = (double)(now_ms() - started) / 1000;
    bool fine = http_get(cli, "/status", &second);
    if (fine) {
        struct strbuf rows = {0};
        put_rates(json_get(strbuf_slice(&first.body), "processes").raw,
                  json_get(strbuf_slice(&second.body), "processes").raw, seconds, &rows);
        show(cli, strbuf_slice(&rows), columns, sizeof columns / sizeof *columns);
        strbuf_free(&rows);
        http_result_free(&second);
        if (!cli->json)
            show_quarantine(cli);
    }
    http_result_free(&first);
    return fine ? EXIT_OK : EXIT_FAILED;
}

int command_top(struct cli *cli, int argc, char **argv)
{
    static struct column columns[] = {{"key", "KEY", 0},
                                      {"per_second", "PER SECOND", 0},
                                      {"gateways", "GATEWAYS", 0},
                                      {"events", "RETAINED", 0},
                                      {"bytes", "BYTES", 0}};
    static const struct option own[] = {{"limit", required_argument, NULL, 'n'}, {0}};
    uint64_t limit = 20;
    for (int c; (c = cli_option(cli, argc, argv, "n:", own)) != -1;)
        if (c != 'n' || !cli_number(cli, "--limit", optarg, 1, 1000, &limit))
            return EXIT_USAGE;
    if (optind < argc)
        return cli_misuse(cli, "top takes no arguments");
    char target[32];
    snprintf(target, sizeof target, "/top?limit=%u", (unsigned)limit);
    struct http_result r;
    if (!http_get(cli, target, &r))
        return EXIT_FAILED;
    show(cli, json_get(strbuf_slice(&r.body), "rooms").raw, columns,
         sizeof columns / sizeof *columns);
    http_result_free(&r);
    return EXIT_OK;
}
