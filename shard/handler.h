/* CORE. The code of a room type, as the shard runs it: one interface for a Lua file, for a C
 * plug-in and for what is built in.
 *
 * The shard loads a handler from text or from a library that the program has read or opened for it,
 * and calls it for one room at a time. All that a handler wants of the world goes through its
 * context (context.h): state, connections, sends, alarms, siblings, time, chance. So the same
 * handler runs in the shard, in the test runner and in the simulator.
 *
 * A handler runs in segments. `run` begins the first one; when it ends with RUN_YIELDED, the run
 * waits for what it asked of its context (a sleep, a sibling's answer), and `resume` begins the
 * next. What a segment did is buffered in its context and becomes durable and visible at its end,
 * or not at all. */
#ifndef STOA_SHARD_HANDLER_H
#define STOA_SHARD_HANDLER_H

#include <stdbool.h>

#include "common/err.h"
#include "common/slice.h"
#include "common/strbuf.h"
#include "shard/schema.h"

struct context;
struct handler;
struct run; /* the handler's own: an invocation that yielded */

/* What went wrong, as callers see it: the same words in Lua, in C, over HTTP and on sockets. */
struct fault {
    char tag[64];          /* "RoomError", "AttachmentTooLargeError", or a method's own code */
    unsigned status;       /* HTTP; 0: the tag's own */
    struct strbuf message; /* of a RoomExecutionError it is for the log only */
    struct strbuf data;    /* JSON; empty: none */
};
void fault_set(struct fault *f, const char *tag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void fault_free(struct fault *f);

enum phase {
    PHASE_CONNECT, /* a connection's upgrade; its 101 waits for the end */
    PHASE_EVENT,   /* a frame, or a direct send */
    PHASE_CLOSE,
    PHASE_ALARM,
    PHASE_CALL,         /* a method */
    PHASE_DECODE_ERROR, /* the frame of a PHASE_EVENT did not decode */
    PHASE_ERROR,        /* one of the others failed; coming back means that it is handled */
    PHASE_COUNT
};
const char *phase_name(enum phase phase); /* "connect" ... as metrics and on_error have it */

struct invocation {
    enum phase phase;
    struct slice input;        /* EVENT, DECODE_ERROR: the frame; CALL: JSON, empty: none */
    struct slice meta;         /* CALL: how parts of the input are typed (proto/typed.h), JSON;
                                  empty: not said */
    struct slice method;       /* CALL: "say", "router.ping" */
    bool streams;              /* CALL: the caller takes items */
    unsigned code;             /* CLOSE: WebSocket code */
    struct slice reason;       /* CLOSE */
    bool clean;                /* CLOSE: by a Close frame */
    bool replaced;             /* CLOSE: another connection took its id */
    bool recovered;            /* CLOSE: noticed after a crash of shard or gateway */
    enum phase failed;         /* ERROR: which one */
    const struct fault *fault; /* ERROR, DECODE_ERROR: how */
};

enum run_end {
    RUN_DONE,
    RUN_ABSENT,    /* the handler has nothing for this phase (CALL: no such method) */
    RUN_FAILED,    /* *fault says how; what the segment did before stays, unless `rollback` */
    RUN_UNDECODED, /* EVENT: the frame is not one of the room's; nothing ran */
    RUN_KILLED,    /* over its budget: *fault says so; what the segment did is dropped */
    RUN_YIELDED,   /* waits; *run holds it */
};

/* What a run that yielded is woken with. */
struct wake {
    const struct fault *fault; /* NULL: it went well */
    struct slice value;        /* JSON of a sibling's answer; empty for a sleep */
};

/* Who a connection is to its room; answered before the room is touched. The slices are the
 * handler's until its next call. */
struct persona {
    struct slice id;      /* empty: the shard draws one */
    struct slice tags;    /* JSON array of strings; empty: none */
    struct slice state;   /* JSON; empty: null */
    struct slice meta;    /* JSON, seen in PHASE_CONNECT only; empty: null */
    unsigned status;      /* refused with this HTTP status; 0: welcome */
    struct slice refusal; /* text of the refusal */
    bool stopped;         /* it failed because it was over its budget */
};

struct handler_vtable {
    void (*destroy)(struct handler *h);
    /* A pure function of the request, JSON {"query","claims","headers","ip","client_state"}. False:
     * *fault says what failed. */
    bool (*identify)(struct handler *h, struct slice request, struct persona *out,
                     struct fault *fault);
    /* The room's companion in memory, lost whenever the room leaves it. May return NULL. */
    void *(*load)(struct handler *h, struct context *ctx);
    void (*unload)(struct handler *h, void *mem);
    /* One segment. *result takes the JSON that a method returns. RUN_YIELDED sets *run. */
    enum run_end (*run)(struct handler *h, struct context *ctx, void *mem,
                        const struct invocation *what, struct run **run, struct strbuf *result,
                        struct fault *fault);
    /* The next segment. Frees *run and sets it to NULL unless it yields again. */
    enum run_end (*resume)(struct handler *h, struct context *ctx, void *mem, struct run **run,
                           const struct wake *wake, struct strbuf *result, struct fault *fault);
    /* The room will not go on with it (restart, reset). */
    void (*abandon)(struct handler *h, struct run **run);
};

enum on_duplicate { DUPLICATE_ALLOW, DUPLICATE_REPLACE, DUPLICATE_REJECT };

/* What a handler's file says of its rooms; the configuration wins where it says something. */
struct handler_traits {
    enum on_duplicate on_duplicate;
    unsigned max_connections;      /* 1..32768 */
    unsigned max_connection_state; /* bytes of JSON, at most 16384 */
    unsigned alarm_retries;        /* 0..100 */
    unsigned state_version;
    bool rollback;               /* a failing segment leaves nothing */
    bool exclusive;              /* nothing else runs while a run waits */
    struct strbuf auto_request;  /* a frame with exactly this text ... */
    struct strbuf auto_response; /* ... is answered with this one by the gateway; empty: none */
};
#define HANDLER_TRAITS_DEFAULT                                                     \
    {                                                                              \
        .max_connections = 32768, .max_connection_state = 2048, .alarm_retries = 6 \
    }

struct handler {
    const struct handler_vtable *vtable;
    struct handler_traits traits;
    struct schema *schemas[BOUNDARY_COUNT]; /* of its type; borrowed; NULL: everything fits */
};
/* Whether valid JSON may pass a boundary of its rooms. False: *fault says why not, by `tag`. */
bool handler_admits(const struct handler *h, enum boundary boundary, struct slice json,
                    const char *tag, struct fault *fault);

#endif
