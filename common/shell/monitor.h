/* SHELL. The monitor listener of every process: a read-only HTTP server for /healthz, /readyz and
 * /metrics. Small, bounded (16 connections, 4 KiB heads, 5 s), on the process's own loop, so that
 * /healthz proves that the loop turns. */
#ifndef STOA_COMMON_SHELL_MONITOR_H
#define STOA_COMMON_SHELL_MONITOR_H

#include "common/err.h"
#include "common/metrics.h"
#include "common/shell/loop.h"
#include "common/strbuf.h"

struct monitor;

struct monitor_handler {
    void *ctx;
    bool (*ready)(void *ctx, struct strbuf *why); /* false: 503 with the reason in words */
    void (*refresh)(void *ctx); /* sets gauges before they are rendered; may be NULL */
};

MUST_USE int monitor_listen(struct monitor **out, struct loop *loop, const char *address,
                            const struct monitor_handler *handler, struct metrics *metrics,
                            struct strbuf *why);
void monitor_close(struct monitor **m);

#endif
