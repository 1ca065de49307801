/* CORE. What is left of a process that rooms' code ended, and what the next one makes of it.
 *
 * The program keeps a struct guard_mark in memory that outlives the process (shell_guard.h): which
 * room's code runs, whether the process was ended under it and how, and the last ends. From that
 * follows who begins in quarantine: a room that did not come back, at once; a room that crashed the
 * process GUARD_ENDS_MAX times within GUARD_WITHIN_MS; and if several rooms of one type did that
 * between them, the type. */
#ifndef STOA_SHARD_GUARD_H
#define STOA_SHARD_GUARD_H

#include <stdint.h>

#include "common/limits.h"
#include "common/strbuf.h"

#define GUARD_ENDS_MAX 3
#define GUARD_WITHIN_MS 60000

enum guard_state {
    GUARD_IDLE,    /* no room's code runs */
    GUARD_RUNS,    /* it runs; if the process is gone, it was ended from outside */
    GUARD_CRASHED, /* a signal of its own ended the process */
    GUARD_STUCK,   /* it did not come back, and the watchdog ended the process */
};

struct guard_end {
    int64_t wall_ms;
    uint16_t key_size;
    uint8_t key[KEY_MAX_BYTES];
};

struct guard_mark {
    uint32_t version; /* GUARD_VERSION; anything else is as good as nothing */
    uint32_t state;   /* enum guard_state */
    int32_t signal;   /* CRASHED: which; 0: it called exit */
    uint32_t n_ends;
    uint16_t key_size;
    char phase[16];
    uint8_t key[KEY_MAX_BYTES];
    struct guard_end ends[8]; /* oldest first */
};
#define GUARD_VERSION 1

struct guard_verdict {
    bool guilty;
    bool whole_type;
    struct strbuf key, why;
};

/* What a process that starts at `wall_ms` makes of the mark; the mark is ready for use then, and
 * has forgotten what led to a verdict. */
void guard_judge(struct guard_mark *mark, int64_t wall_ms, struct guard_verdict *out);
void guard_verdict_free(struct guard_verdict *v);

#endif
