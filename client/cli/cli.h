/* SHELL. What the commands of `stoa` share: global options, messages, exit codes. Each command is
 * one function in the file of its group; main.c has the table. */
#ifndef STOA_CLIENT_CLI_H
#define STOA_CLIENT_CLI_H

#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>

#include "common/err.h"
#include "common/json.h"
#include "common/strbuf.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNKNOWN = 3 };

struct cli {
    const char *command; /* "publish": in front of messages */
    const char *help;    /* whole text of its --help */
    const char *server;  /* a gateway's URL without a trailing slash */
    const char *router;  /* --router, NULL: publish through the gateway */
    const char *token;   /* NULL: none */
    const char *config;  /* --config, NULL: the default */
    double timeout_s;
    bool json, quiet;
};

/* getopt_long with the command's own options beside the global ones. `own` ends with a zero entry;
 * its values are returned, global options are taken in. -1: end of options; '?' : told on stderr,
 * exit 2. */
int cli_option(struct cli *cli, int argc, char **argv, const char *own_short,
               const struct option *own);
/* "stoa publish: TEXT" on stderr; returns EXIT_FAILED. */
int cli_fail(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same with a hint at --help; returns EXIT_USAGE. */
int cli_misuse(const struct cli *cli, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A decimal number of an option within bounds; tells what is wrong on stderr. */
bool cli_number(const struct cli *cli, const char *option, const char *text, uint64_t min,
                uint64_t max, uint64_t *out);

/* What a command sends: of a file, or as given, or of standard input ("-" and nothing given). Tells
 * what is wrong on stderr. */
int cli_input(const struct cli *cli, const char *file, const char *given, struct strbuf *out);

struct command {
    const char *name;
    int (*run)(struct cli *cli, int argc, char **argv);
    const char *summary;
    const char *help;
};
extern const struct command cli_commands[]; /* ends with a NULL name */

int command_publish(struct cli *cli, int argc, char **argv);
int command_tail(struct cli *cli, int argc, char **argv);
int command_log(struct cli *cli, int argc, char **argv);
int command_room(struct cli *cli, int argc, char **argv);
int command_keys(struct cli *cli, int argc, char **argv);
int command_status(struct cli *cli, int argc, char **argv);
int command_top(struct cli *cli, int argc, char **argv);
int command_up(struct cli *cli, int argc, char **argv);
int command_down(struct cli *cli, int argc, char **argv);
int command_logs(struct cli *cli, int argc, char **argv);
int command_reload(struct cli *cli, int argc, char **argv);
int command_config(struct cli *cli, int argc, char **argv);
int command_token(struct cli *cli, int argc, char **argv);
int command_keygen(struct cli *cli, int argc, char **argv);
int command_bench(struct cli *cli, int argc, char **argv);

#endif
