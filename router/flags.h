/* SHELL. stoa-router's command line: flags that are fields of the configuration become overrides.
 */
#ifndef STOA_ROUTER_FLAGS_H
#define STOA_ROUTER_FLAGS_H

#include <stdbool.h>
#include <stddef.h>

#define ROUTER_MONITOR_DEFAULT "127.0.0.1:8091"
#define FLAGS_OVERRIDES_MAX 8

struct flags {                                /* zero-initialised by the caller */
    const char *config_path;                  /* borrowed from argv; NULL: not given */
    char *overrides[FLAGS_OVERRIDES_MAX + 1]; /* owned "field=value"; NULL-terminated */
    size_t n_overrides;
    bool supervised;
};

/* 0: go on; otherwise the exit code + 1 (help and version were printed, or what is wrong). */
int flags_read(struct flags *f, int argc, char **argv);
void flags_free(struct flags *f);

#endif
