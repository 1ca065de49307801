/* SHELL. How every program starts: its flags become overrides of the configuration (flags win over
 * environment over file), with the options that all of them have in common. */
#ifndef STOA_COMMON_SHELL_LAUNCH_H
#define STOA_COMMON_SHELL_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "common/log.h"

#define LAUNCH_OVERRIDES_MAX 16

struct launch_flag {
    const char *name;  /* "--" NAME; NULL ends the table */
    const char *field; /* the configuration's field that its argument sets, or NULL */
    bool *set;         /* without a field: what a switch sets, or NULL */
    const char **text; /* without both: where its argument goes (borrowed from argv) */
};

struct launch {
    const char *program;                       /* "stoa-shard": in front of every message */
    const char *usage;                         /* whole text of --help */
    const char *config_path;                   /* -c, --config; NULL: not given */
    bool supervised;                           /* --supervised: end with the parent process */
    char *overrides[LAUNCH_OVERRIDES_MAX + 1]; /* owned, NULL-terminated: for config_load */
    size_t n_overrides;
    /* Has a say in a reload, behind the configuration's own checks: appends to `changed` what else
     * does, or returns false and the reason in `why`. NULL: none. */
    bool (*accept)(void *ctx, const struct config *fresh, struct strbuf *changed,
                   struct strbuf *why);
    void *accept_ctx;
};

/* Reads the arguments: the common ones (-c --config, --set FIELD=VALUE, --supervised, -h --help, -V
 * --version) and `flags`. Returns -1 to go on, else the exit code (help and version: 0; usage: 2,
 * told on stderr).
 */
int launch_read(struct launch *l, int argc, char **argv, const struct launch_flag *flags);
void launch_free(struct launch *l);
/* "debug", "info", "warn", "error"; anything else, and NULL: info. */
enum log_level launch_log_level(const char *text);
/* A log to stderr as the configuration's log.format and log.level say. */
struct log launch_log(const char *role, const char *format, const char *level);
/* SIGHUP: reads the configuration anew, as at the start, and lets the log follow it. The log
 * tells what differs from `running`, or why it is refused (false: everything stays as it is). The
 * caller frees `fresh` either way. */
bool launch_reload(const struct launch *l, struct log *log, const struct config *running,
                   struct config *fresh);

#endif
