/* SHELL. stoa status and stoa top: tables made from the gateway's JSON. */
#include <stdio.h>
#include <stdlib.h>

#include "client/cli/http.h"

#define COLUMNS_MAX 12
#define CELL_MAX 64

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

static int show(struct cli *cli, const char *target, const char *member, struct column *columns,
                size_t n)
{
    struct http_result r;
    if (!http_get(cli, target, &r))
        return EXIT_FAILED;
    struct slice rows = json_get(strbuf_slice(&r.body), member).raw;
    if (cli->json) {
        struct json_iter it = json_members(rows);
        while (json_next(&it))
            printf("%.*s\n", SLICE_FMT(it.value.raw));
    } else {
        print_table(rows, columns, n);
    }
    http_result_free(&r);
    return EXIT_OK;
}

int command_status(struct cli *cli, int argc, char **argv)
{
    static struct column columns[] = {{"name", "NAME", 0},
                                      {"role", "ROLE", 0},
                                      {"version", "VERSION", 0},
                                      {"slots", "SLOTS", 0},
                                      {"rooms", "ROOMS", 0},
                                      {"events", "EVENTS", 0},
                                      {"up", "UP", 0},
                                      {"sockets", "SOCKETS", 0},
                                      {"published", "PUBLISHED", 0},
                                      {"deliveries", "DELIVERIES", 0}};
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return EXIT_USAGE;
    if (optind < argc)
        return cli_misuse(cli, "status takes no arguments");
    return show(cli, "/status", "processes", columns, sizeof columns / sizeof *columns);
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
    return show(cli, target, "rooms", columns, sizeof columns / sizeof *columns);
}
