/* SHELL. What every program does around its loop: random seed, logging to stderr, raising the
 * descriptor limit as far as allowed, dying with its supervisor, version. */
#ifndef STOA_COMMON_SHELL_PROCESS_H
#define STOA_COMMON_SHELL_PROCESS_H

#include "common/log.h"

#define STOA_VERSION "0.1.0"

uint64_t process_random(void); /* getrandom */
void process_random_bytes(void *out, size_t size);
struct log process_log(const char *role, enum log_level level,
                       enum log_format format); /* to stderr */
void process_raise_nofile(void);                /* soft limit up to the hard one */
void process_die_with_parent(void); /* PR_SET_PDEATHSIG SIGTERM; for supervised children */
/* Reads a whole file of at most `max` bytes into malloc'd, NUL-terminated memory; NULL with errno
 * set. */
char *process_read_file(const char *path, size_t max, size_t *size);

#endif
