/* SHELL. Command line of stoa-gateway. */
#ifndef STOA_GATEWAY_IO_FLAGS_H
#define STOA_GATEWAY_IO_FLAGS_H

#include <stdbool.h>
#include <stddef.h>

#define FLAG_OVERRIDES_MAX 16

struct flags {
    const char *config_path; /* NULL: the default places */
    const char *page_path;
    char *name;
    bool supervised;
    char *overrides[FLAG_OVERRIDES_MAX + 1]; /* for config_load; allocated texts */
    size_t n_overrides;
};

/* Ends the process for --help, --version (0) and what is not understood (2). */
void flags_parse(struct flags *f, int argc, char **argv);
void flags_free(struct flags *f);

#endif
