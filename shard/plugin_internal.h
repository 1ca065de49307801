/* CORE. Private to plugin_*.c: one segment of a plug-in, as its host sees it.
 *
 *   plugin_handler.c  struct handler_vtable on top of the plug-in's table: runs, replies, identify
 *   plugin_host.c     the table of functions that the plug-in calls
 *   plugin_fault.c    codes and tags: what failed, and how a handler ends */
#ifndef STOA_SHARD_PLUGIN_INTERNAL_H
#define STOA_SHARD_PLUGIN_INTERNAL_H

#include "shard/context.h"
#include "shard/plugin_handler.h"
#include "shard/vec.h"

struct plugin {
    struct handler handler;
    stoa_room_vtable code; /* what it does not know of is NULL */
    struct plugin_options options;
    struct strbuf id, tags, state, meta, refusal; /* of the last identity */
    uint8_t *arena; /* PLUGIN_ARENA_BYTES: the first that a segment allocates; NULL: lent to one */
};
#define PLUGIN_ARENA_BYTES 4096u

/* A run that waits. */
struct run {
    enum phase phase;
    stoa_room_reply reply; /* may be NULL */
    void *ud;
    bool streams, items;
    struct strbuf result; /* said before it waited */
};

/* What plug-ins know as stoa_room_ctx: it lives for one call into the plug-in. */
struct stoa_room_ctx {
    struct plugin *plugin;
    struct context *ctx; /* NULL in identify */
    enum phase phase;
    bool streams;
    bool items; /* it has given some */
    bool waits;
    stoa_room_reply reply;
    void *ud;
    struct strbuf result;
    struct fault fault;    /* the last failure */
    stoa_room_error error; /* the same for the plug-in; tag "": none yet */
    uint8_t *arena;        /* the plug-in's; NULL: another has it */
    size_t arena_used;
    struct vec memory; /* void *: what did not fit there */
};

extern const stoa_room_host plugin_host;

static inline stoa_room_bytes bytes_of(struct slice s)
{
    return (stoa_room_bytes){(const char *)s.data, s.size};
}
static inline struct slice slice_in(stoa_room_bytes b)
{
    return slice_of(b.p, b.p ? b.n : 0);
}

/* ---- plugin_host.c ---- */
void *segment_alloc(struct stoa_room_ctx *x, size_t size);

/* ---- plugin_fault.c ---- */
stoa_room_rc rc_of_fault(const struct fault *f);
/* x->fault was set: shows it to the plug-in; its code. */
stoa_room_rc failed(struct stoa_room_ctx *x);
/* Takes a fault from outside as the last failure. */
stoa_room_rc failed_with(struct stoa_room_ctx *x, const struct fault *f);
/* How a handler's `rc` is told: the last failure if it is of that code, else the code alone. */
void fault_of_rc(const struct stoa_room_ctx *x, stoa_room_rc rc, const char *where,
                 struct fault *out);
stoa_room_rc fault_rc(struct stoa_room_ctx *x, stoa_room_rc rc, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
