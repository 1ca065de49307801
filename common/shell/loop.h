/* SHELL. The event loop of every program: libev, one thread, owned signals, the clock. The order
 * within a turn is fixed: ready file descriptors and timers, then `turn` (the core works), then the
 * link adapters check for messages that their edge-triggered descriptors no longer announce, then
 * sleep. */
#ifndef STOA_COMMON_SHELL_LOOP_H
#define STOA_COMMON_SHELL_LOOP_H

#include <ev.h>
#include <stdbool.h>

#include "common/tick.h"

struct loop;

struct loop_handler {
    void *ctx;
    /* Once per turn, after events. Returns the next deadline (mono_ns) or TICK_NEVER; a deadline in
     * the past means: do not sleep. */
    int64_t (*turn)(void *ctx, struct tick now);
    void (*on_term)(void *ctx,
                    struct tick now); /* SIGTERM, SIGINT: drain; a second one exits 1 at once */
    void (*on_reload)(void *ctx, struct tick now); /* SIGHUP; may be NULL */
};

/* One loop a process at a time: it owns SIGTERM, SIGINT and SIGHUP from here on. */
struct loop *loop_create(const struct loop_handler *handler);
void loop_destroy(struct loop **l);
struct ev_loop *loop_ev(struct loop *l);
struct tick loop_now(const struct loop *l); /* time of this turn; refreshed after each wake-up */
struct tick clock_now(void);                /* reads both clocks */
/* A source of work that the loop's descriptors may not announce (a ZeroMQ socket): `pending` is
 * asked before every sleep and must do a bounded piece of work, returning true if it did any or if
 * there is more: then the loop takes another turn before it sleeps. */
void loop_add_source(struct loop *l, bool (*pending)(void *ctx), void *ctx);
/* Undoes it; not from within a source. */
void loop_remove_source(struct loop *l, bool (*pending)(void *ctx), void *ctx);
void loop_run(struct loop *l); /* until loop_stop */
void loop_stop(struct loop *l);

#endif
