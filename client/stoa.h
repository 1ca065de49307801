/* libstoa: publish events to a Stoa cluster, and ask its rooms, from C or C++.
 *
 *     stoa *s;
 *     char why[256];
 *     stoa_options options = STOA_OPTIONS_INIT;
 *     options.routers = "tcp://127.0.0.1:7100";
 *     options.threaded = 1;
 *     if (stoa_open(&s, &options, why) != STOA_OK) ...
 *     stoa_publish(s, "upload:abc123", json, strlen(json), NULL, NULL); // returns when it is on
 * disk stoa_result *r; if (stoa_call(s, "poll:lunch", "totals", NULL, 0, NULL, &r) == STOA_OK)
 *         puts(r->data); // JSON
 *     stoa_result_free(r);
 *     stoa_close(s, 5000);
 *
 * Order: events of one key are stored in the order in which they were submitted, whatever is lost,
 * refused and sent again meanwhile. Nothing that was acknowledged is ever lost or stored twice.
 *
 * Threads: what publishes and what asks rooms may be called by any thread at any time between
 * stoa_open and stoa_close. stoa_poll has one caller. With `.threaded` a thread of the library
 * turns its loop and runs the callbacks; without it that is the work of stoa_poll, and a
 * stoa_publish or stoa_call that waits turns the loop itself (without running the callbacks of
 * others). stoa_close must be the last call. After fork the child may only _exit or exec.
 *
 * The library installs no signal handler, writes to no file descriptor that it has not made, and
 * has no global state. Subscribing comes with a later version. */
#ifndef STOA_H
#define STOA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define STOA_API __attribute__((visibility("default")))
#else
#define STOA_API
#endif

#define STOA_VERSION "0.1.0"

/* What functions return and callbacks are told. "Done" is stored, for an event, and handled and on
 * disk, for what a room was asked. */
enum {
    STOA_OK = 0,         /* done (an ephemeral event: released) */
    STOA_TIMEOUT = -1,   /* not done in time, and certainly not done: try again */
    STOA_UNKNOWN = -2,   /* maybe done: try again with the same idempotency key to learn it */
    STOA_BUSY = -3,      /* the queue is full (ephemeral: refused for now): not done, try later */
    STOA_TOO_LARGE = -4, /* payload, batch, input or names beyond the limits */
    STOA_DENIED = -5,    /* this client may not do that there */
    STOA_DISK = -6,      /* the cluster's disk was full until the timeout: not done */
    STOA_MISSED = -7,    /* a streaming call: done, but items may be missing or have come twice */
    STOA_INVALID = -8,   /* an argument breaks a rule */
    STOA_NOMEM = -9,
    STOA_CLOSED = -10, /* stoa_close has begun */
    STOA_ROOM = -11    /* the room answered with an error: stoa_result has it */
};

typedef struct stoa stoa;

/* Where an event stands in its key's history. Written as text it is base36(epoch)-seq. */
typedef struct stoa_id {
    uint64_t epoch; /* 0 for an ephemeral event */
    uint64_t seq;   /* of a batch: its last event */
    int duplicate;  /* 1: it had been stored by an earlier publish; the id is that one's */
} stoa_id;

typedef struct stoa_slice {
    const void *data;
    size_t size;
} stoa_slice;

enum { STOA_LOG_DEBUG, STOA_LOG_INFO, STOA_LOG_WARN, STOA_LOG_ERROR };

typedef struct stoa_options {
    size_t size; /* STOA_OPTIONS_INIT sets it */
    /* Required. One endpoint or several with commas: "tcp://host:7100", "host:7100",
     * "ipc:///path". All are connected, one is used, another takes over when it is lost. */
    const char *routers;
    const char *cluster; /* NULL: "stoa"; must be the cluster's name */
    const char *name;    /* how the cluster's logs call this publisher; NULL: "libstoa" */
    int threaded;        /* 1: a thread of the library turns the loop and runs the callbacks */
    int timeout_ms;      /* of a publish, 0: 30000 */
    /* Events accepted and not yet reported; beyond either a publish is STOA_BUSY. */
    size_t queue_max_events; /* 0: 65536 */
    size_t queue_max_bytes;  /* 0: 64 MiB */
    /* CURVE, Z85 text of 40 characters each; not used for ipc. NULL: links are in clear. The secret
     * key is enough: the public key follows from it, and the routers' is taken to be the same pair
     * unless curve_server_key names another. */
    const char *curve_public_key;
    const char *curve_secret_key;
    const char *curve_server_key;
    /* One line without a newline; called from stoa_poll, a waiting stoa_publish, stoa_open,
     * stoa_close or the library's thread. It must not call the library. */
    void (*log_fn)(void *arg, int level, const char *line);
    void *log_arg;
    int log_level; /* lines below it are dropped; 0 is STOA_LOG_DEBUG */
} stoa_options;
#ifdef __cplusplus
static inline stoa_options stoa_options_init(void)
{
    stoa_options o = stoa_options();
    o.size = sizeof o;
    return o;
}
#define STOA_OPTIONS_INIT stoa_options_init()
#else
#define STOA_OPTIONS_INIT            \
    {                                \
        .size = sizeof(stoa_options) \
    }
#endif

typedef struct stoa_publish_options {
    size_t size;                 /* STOA_PUBLISH_OPTIONS_INIT sets it */
    const char *conflate;        /* a reader that catches up gets only the newest of each value */
    int ephemeral;               /* 1: to whoever is live now; never stored, never sent twice */
    const char *idempotency_key; /* 1 to 255 bytes; NULL: a new event */
    int timeout_ms;              /* 0: the timeout of stoa_options */
    /* Whom it is for, now and on replay: connections that have one of `tags` and whose id is in
     * `to`, but not in `except`. NULL: not said. A list without a name admits nobody (of `except`:
     * keeps nobody out). Names are UTF-8, together at most 4 KiB. */
    const char *const *tags;
    size_t n_tags;
    const char *const *to;
    size_t n_to;
    const char *const *except;
    size_t n_except;
} stoa_publish_options;
#ifdef __cplusplus
static inline stoa_publish_options stoa_publish_options_init(void)
{
    stoa_publish_options o = stoa_publish_options();
    o.size = sizeof o;
    return o;
}
#define STOA_PUBLISH_OPTIONS_INIT stoa_publish_options_init()
#else
#define STOA_PUBLISH_OPTIONS_INIT            \
    {                                        \
        .size = sizeof(stoa_publish_options) \
    }
#endif

/* The outcome of a stoa_publish_async. `id` is valid for the call, and NULL unless status is
 * STOA_OK. */
typedef void stoa_ack_fn(void *arg, int status, const stoa_id *id);

/* Connects in the background: it succeeds without a cluster too. On failure `err` has the reason in
 * words; err may be NULL. */
STOA_API int stoa_open(stoa **out, const stoa_options *options, char err[256]);
/* Waits up to timeout_ms for what is under way, reports the rest as STOA_UNKNOWN (callbacks run
 * here), frees. NULL is fine. Not from a callback. */
STOA_API void stoa_close(stoa *s, int timeout_ms);

/* For an event loop of any kind: readable (level-triggered) when stoa_poll has something to do.
 * Not to be read, written or closed. With .threaded there is nothing to poll: -1. */
STOA_API int stoa_fd(stoa *s);
/* Does what is to be done, waiting at most timeout_ms for something to do (0: does not wait,
 * negative: waits as long as it takes), and runs callbacks. Returns the number of callbacks that
 * ran, or STOA_INVALID with .threaded or from a callback. */
STOA_API int stoa_poll(stoa *s, int timeout_ms);

/* Publishes and waits for the acknowledgement. `options` and `id` may be NULL. Bytes are copied. */
STOA_API int stoa_publish(stoa *s, const char *key, const void *data, size_t size,
                          const stoa_publish_options *options, stoa_id *id);
/* Publishes and returns at once; `fn` (may be NULL) is told the outcome, exactly once, when this
 * returned STOA_OK. Never blocks: STOA_BUSY when the queue is full. */
STOA_API int stoa_publish_async(stoa *s, const char *key, const void *data, size_t size,
                                const stoa_publish_options *options, stoa_ack_fn *fn, void *arg);
/* Several events (1 to 256, together at most 1 MiB), all or none, contiguous; waits. */
STOA_API int stoa_publish_batch(stoa *s, const char *key, const stoa_slice *events, size_t n,
                                const stoa_publish_options *options, stoa_id *last);

/* ---- rooms: actors with a handler, in Lua or C (docs/rooms.md) ---- */

/* What came of a call. The library makes it and owns what it points to; all texts are UTF-8, end
 * with a zero byte and are never NULL. */
typedef struct stoa_result {
    int status;      /* 200, or the HTTP status of the error */
    int duplicate;   /* 1: it had been done by an earlier attempt, and this is its answer */
    const char *tag; /* of an error: "RoomFull", "NoHandler", "Unknown", the room's own; or "" */
    const char *message; /* of an error: what to do about it; or "" */
    const char *data; /* JSON: the value ("null": none); of an error what the room added, or "" */
    size_t data_size;
} stoa_result;

/* An item of a streaming method; `json` ends with a zero byte and is valid for the call. */
typedef void stoa_item_fn(void *arg, const char *json, size_t size);

typedef struct stoa_call_options {
    size_t size; /* STOA_CALL_OPTIONS_INIT sets it */
    /* 1 to 255 bytes: for five minutes a call with the same key to the same room is answered again
     * and does nothing. NULL: a new call. Retries within the library never run twice. */
    const char *idempotency_key;
    int timeout_ms; /* 0: the timeout of stoa_options */
    /* stoa_call: takes the items of a method that streams, in order, each before the outcome: on
     * the thread that waits, or where callbacks run. NULL: `data` is the array of them all. Items
     * that are not taken are kept up to 16 MiB; beyond it the outcome is STOA_MISSED. */
    stoa_item_fn *on_item;
    void *item_arg;
} stoa_call_options;
#ifdef __cplusplus
static inline stoa_call_options stoa_call_options_init(void)
{
    stoa_call_options o = stoa_call_options();
    o.size = sizeof o;
    return o;
}
#define STOA_CALL_OPTIONS_INIT stoa_call_options_init()
#else
#define STOA_CALL_OPTIONS_INIT            \
    {                                     \
        .size = sizeof(stoa_call_options) \
    }
#endif

/* Each of these waits until it is done or its time is over, and returns STOA_OK or what went wrong.
 * `options` and `out` may be NULL. *out is what came of it, for stoa_result_free; NULL when the
 * call was not begun (STOA_INVALID, TOO_LARGE, BUSY, CLOSED, NOMEM as an argument's or the queue's
 * fault). Bytes are copied; `data` of size 0 may be NULL.
 *
 * Calls of one room are sent in the order in which they were submitted, but one that must be sent
 * again may be overtaken: who needs an order waits. At most 256 are under way at a time; more wait
 * in the queue, which they share with events. */

/* An event for the room's on_event: one JSON value. */
STOA_API int stoa_send(stoa *s, const char *key, const void *event, size_t size,
                       const stoa_call_options *options, stoa_result **out);
/* A method that the room exports; input: one JSON value or nothing. */
STOA_API int stoa_call(stoa *s, const char *key, const char *method, const void *input, size_t size,
                       const stoa_call_options *options, stoa_result **out);
/* The room's state as JSON; null when it has none. Runs nothing. */
STOA_API int stoa_state(stoa *s, const char *key, const stoa_call_options *options,
                        stoa_result **out);
/* The open connections, an array of {id, tags, state}; with `tag` (or NULL) those that have it. */
STOA_API int stoa_connections(stoa *s, const char *key, const char *tag,
                              const stoa_call_options *options, stoa_result **out);
/* One JSON value to all its connections; no handler runs. */
STOA_API int stoa_broadcast(stoa *s, const char *key, const void *message, size_t size,
                            const stoa_call_options *options, stoa_result **out);
/* Closes all its sockets, with a WebSocket close code (1000, 1001, 1008, 1011 to 1013, 3000 to
 * 4999; 0: 1000). Done when the gateways are told. */
STOA_API int stoa_close_room(stoa *s, const char *key, int code, const stoa_call_options *options,
                             stoa_result **out);
/* Runs on_alarm now, whether one was due or not. */
STOA_API int stoa_fire_alarm(stoa *s, const char *key, const stoa_call_options *options,
                             stoa_result **out);
/* Drops a key's retained events and, with a handler, its state and alarm; `data`: {"purged": ID},
 * the last one's. */
STOA_API int stoa_purge(stoa *s, const char *key, const stoa_call_options *options,
                        stoa_result **out);
STOA_API void stoa_result_free(stoa_result *result); /* NULL is fine */

/* The same, returning at once: `fn` (may be NULL) is told the outcome, exactly once, when they
 * returned STOA_OK; `result` is valid for the call and never NULL. They never block. */
typedef void stoa_result_fn(void *arg, int status, const stoa_result *result);
STOA_API int stoa_send_async(stoa *s, const char *key, const void *event, size_t size,
                             const stoa_call_options *options, stoa_result_fn *fn, void *arg);
STOA_API int stoa_call_async(stoa *s, const char *key, const char *method, const void *input,
                             size_t size, const stoa_call_options *options, stoa_result_fn *fn,
                             void *arg);
STOA_API int stoa_state_async(stoa *s, const char *key, const stoa_call_options *options,
                              stoa_result_fn *fn, void *arg);
STOA_API int stoa_connections_async(stoa *s, const char *key, const char *tag,
                                    const stoa_call_options *options, stoa_result_fn *fn,
                                    void *arg);
STOA_API int stoa_broadcast_async(stoa *s, const char *key, const void *message, size_t size,
                                  const stoa_call_options *options, stoa_result_fn *fn, void *arg);
STOA_API int stoa_close_room_async(stoa *s, const char *key, int code,
                                   const stoa_call_options *options, stoa_result_fn *fn, void *arg);
STOA_API int stoa_fire_alarm_async(stoa *s, const char *key, const stoa_call_options *options,
                                   stoa_result_fn *fn, void *arg);
STOA_API int stoa_purge_async(stoa *s, const char *key, const stoa_call_options *options,
                              stoa_result_fn *fn, void *arg);

/* ---- words ---- */

/* Writes "epoch-seq" as subscribers see it; returns its length, 0 for an id without epoch. */
STOA_API size_t stoa_id_text(const stoa_id *id, char text[40]);
STOA_API const char *stoa_strerror(int code); /* never NULL */
STOA_API const char *stoa_version(void);

#ifdef __cplusplus
}
#endif

#endif
