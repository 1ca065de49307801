/* SHELL. The program that main.c runs: its parts, how they are put together and taken apart. */
#ifndef STOA_SHARD_SHELL_PROGRAM_H
#define STOA_SHARD_SHELL_PROGRAM_H

#include "common/config.h"
#include "common/shell/launch.h"
#include "common/shell/loop.h"
#include "common/shell/monitor.h"
#include "proto/shell/link.h"
#include "shard/shard.h"
#include "shard/shell_guard.h"
#include "shard/shell_rooms.h"
#include "shard/store_lmdb.h"

struct program {
    struct launch launch;
    bool after_eio;
    struct config config;
    char name[32];
    struct log log;
    struct metrics *metrics;
    struct loop *loop;
    struct links *links;
    struct store *store;
    struct guard *guard;
    struct guard_verdict verdict; /* on the last process */
    struct shard *shard;
    struct type_codes codes, fresh_codes; /* in force; of a reload that is being decided */
    struct monitor *monitor;
    ev_check woken;
    ev_timer give_back; /* memory to the system */
    double cold_before; /* fewest cold rooms since it last gave any */
    int64_t stop_ns;    /* draining: when the loop ends; 0: not */
};

/* Everything up to the listening sockets. On failure a one-line reason; program_stop either way. */
MUST_USE int program_start(struct program *p, const struct loop_handler *handler,
                           struct strbuf *why);
void program_stop(struct program *p);
/* Loads what a reload would run (launch.accept): false, with the reason, and nothing has changed.
 */
bool program_accept(void *ctx, const struct config *fresh, struct strbuf *changed,
                    struct strbuf *why);
/* Puts the types of a freshly loaded configuration in force, with the code that was accepted; takes
 * it. */
void program_reload(struct program *p, struct config *fresh);

#endif
