/* SHELL. The eye on rooms' code while it runs: a mark that outlives the process says whose it is,
 * signals that the code raises are noted in it, and a thread ends the process when the code does
 * not come back. guard.h says what the next process makes of it. */
#ifndef STOA_SHARD_SHELL_GUARD_H
#define STOA_SHARD_SHELL_GUARD_H

#include "common/log.h"
#include "shard/guard.h"
#include "shard/shard.h"

#define GUARD_STUCK_MS 5000

struct guard;

/* Opens the mark in the data directory. `verdict` is about the last process. If the file cannot be
 * had, the guard works without a memory. */
struct guard *guard_open(const char *dir, struct log *log, struct guard_verdict *verdict);
void guard_close(struct guard **g);
/* From now on rooms' code runs here. Again: nothing. */
void guard_start(struct guard *g);
struct shard_watch guard_watch(struct guard *g);

#endif
