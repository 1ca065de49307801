/* SHELL. stoa-check: judges a history of JSON lines. Exit code 0: lawful, 1: violations, 2: the
 * input cannot be judged. */
#include <stdio.h>
#include <stdlib.h>

#include "history.h"

#define USAGE                                                                         \
    "usage: stoa-check [FILE]          judge a history (- or none: standard input)\n" \
    "       stoa-check --generate N [SEED]   write a lawful one of about N entries\n" \
    "exit codes: 0 lawful, 1 violations, 2 bad input\n"

static int generate(const char *count, const char *seed)
{
    char *end;
    unsigned long long n = strtoull(count, &end, 10);
    if (*end || n == 0) {
        fputs(USAGE, stderr);
        return 2;
    }
    struct history *h = history_create();
    history_generate(h, n, seed ? strtoull(seed, NULL, 10) : 1);
    struct strbuf out = {0};
    history_dump(h, &out);
    bool good = fwrite(out.data, 1, out.size, stdout) == out.size && fflush(stdout) == 0;
    strbuf_free(&out);
    history_destroy(&h);
    return good ? 0 : 2;
}

static int judge(struct history *h, FILE *in)
{
    char *line = NULL, why[120];
    size_t capacity = 0;
    unsigned long long number = 0;
    ssize_t size;
    int code = 0;
    while (code == 0 && (size = getline(&line, &capacity, in)) >= 0) {
        number++;
        if (size && line[size - 1] == '\n')
            size--;
        if (history_read(h, slice_of(line, (size_t)size), why) != ERR_OK) {
            fprintf(stderr, "stoa-check: line %llu: %s\n", number, why);
            code = 2;
        }
    }
    free(line);
    if (code == 0 && ferror(in)) {
        fputs("stoa-check: the input cannot be read\n", stderr);
        code = 2;
    }
    if (code)
        return code;
    const struct history_report *r = history_check(h);
    struct strbuf out = {0};
    history_print(h, r, &out);
    fwrite(out.data, 1, out.size, stdout);
    strbuf_free(&out);
    return r->bad[0] ? 2 : r->violations ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc >= 3 && argc <= 4 && strcmp(argv[1], "--generate") == 0)
        return generate(argv[2], argc > 3 ? argv[3] : NULL);
    if (argc > 2 || (argc == 2 && argv[1][0] == '-' && argv[1][1])) {
        fputs(USAGE, stderr);
        return 2;
    }
    bool named = argc == 2 && strcmp(argv[1], "-") != 0;
    FILE *in = named ? fopen(argv[1], "r") : stdin;
    if (!in) {
        fprintf(stderr, "stoa-check: %s cannot be opened\n", argv[1]);
        return 2;
    }
    struct history *h = history_create();
    int code = judge(h, in);
    history_destroy(&h);
    if (named)
        fclose(in);
    return code;
}
