/* Rooms of Stoa in C: what a plug-in gives and gets. C11 or C++; it links against nothing.
 *
 * A plug-in is a shared library with one exported symbol, stoa_room_plugin, which returns the table
 * of its handlers. A room type names the file: `types: { counter: { handler: rooms/counter.so } }`.
 *
 *     static stoa_room_rc on_event(stoa_room_ctx *ctx, void *mem, stoa_room_bytes event)
 *     {
 *         stoa_room_rc rc = host->save(ctx, event);
 *         return rc ? rc : host->broadcast(ctx, event, NULL);
 *     }
 *     static const stoa_room_vtable room = {
 *         .abi = STOA_ROOM_ABI, .size = sizeof room, .name = "echo", .open = open, .on_event =
 * on_event}; const stoa_room_vtable *stoa_room_plugin(uint32_t host_abi)
 *     {
 *         return host_abi == STOA_ROOM_ABI ? &room : NULL;
 *     }
 *
 * Segments. One call of a handler is one segment. Nothing else touches the room meanwhile. What it
 * did (state, connections' states, alarm, events, sends) is committed in one transaction when it
 * returns, and only then is anything sent; if the disk has no space, nothing of it happened. What a
 * handler did before it failed stays, unless `rollback` is set. A sibling's answer and the end of a
 * sleep come in a segment of their own, by a stoa_room_reply.
 *
 * Values are JSON text in UTF-8, not NUL-terminated. Bytes given to a handler or by the host live
 * until the segment ends; bytes passed to the host are copied at once. Contexts and connections die
 * with the segment: keep ids and sessions.
 *
 * Threads. All calls come from the shard's one thread. A handler that takes long stops every room
 * of the shard, and one that crashes ends it: its supervisor starts it again, sockets stay. Do not
 * block, and do not call the host from other threads. One library serves all rooms of its type, and
 * every type that names it: what belongs to a room goes into its companion (load), which is lost
 * whenever the room leaves memory; what must last goes into the state.
 *
 * ABI. Tables only grow at their end, and `size` says how far they go. Check host->size before you
 * use what is newer than the version that you need. */
#ifndef STOA_ROOM_H
#define STOA_ROOM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STOA_ROOM_ABI 1u

#if defined(__GNUC__)
#define STOA_ROOM_EXPORT __attribute__((visibility("default")))
#else
#define STOA_ROOM_EXPORT
#endif

typedef struct stoa_room_bytes {
    const char *p;
    size_t n;
} stoa_room_bytes;
/* STOA_ROOM_TEXT("abc"): the bytes of a string literal. */
#define STOA_ROOM_TEXT(literal) ((stoa_room_bytes){(literal), sizeof(literal) - 1})

typedef struct stoa_room_ctx stoa_room_ctx;   /* one segment of one room */
typedef struct stoa_room_conn stoa_room_conn; /* a connection of that room */

typedef enum stoa_room_rc {
    STOA_ROOM_OK,
    STOA_ROOM_NONE,         /* no state, no alarm, no such member; from on_call: no such method */
    STOA_ROOM_E_ROOM,       /* RoomError: state, alarm, a call that breaks a rule */
    STOA_ROOM_E_UPGRADE,    /* UpgradeError */
    STOA_ROOM_E_SEND,       /* SendError */
    STOA_ROOM_E_BROADCAST,  /* BroadcastError */
    STOA_ROOM_E_TOO_LARGE,  /* AttachmentTooLargeError */
    STOA_ROOM_E_VALIDATION, /* RoomValidationError */
    STOA_ROOM_E_EXECUTION,  /* RoomExecutionError: callers do not see its text */
    STOA_ROOM_E_NOT_FOUND,  /* RoomNotFoundError */
    STOA_ROOM_E_OTHER       /* any other tag: a method's own code, Busy, Unknown ... */
} stoa_room_rc;

typedef struct stoa_room_error {
    stoa_room_rc rc;
    const char *tag;      /* "RoomError" */
    const char *message;  /* "" if there is none */
    stoa_room_bytes data; /* JSON; n 0: none */
    unsigned status;      /* HTTP; 0: the tag's own */
} stoa_room_error;

typedef enum stoa_room_phase {
    STOA_ROOM_ON_CONNECT,
    STOA_ROOM_ON_EVENT,
    STOA_ROOM_ON_CLOSE,
    STOA_ROOM_ON_ALARM,
    STOA_ROOM_ON_CALL,
    STOA_ROOM_ON_DECODE_ERROR
} stoa_room_phase;

typedef struct stoa_room_close_info {
    unsigned code; /* WebSocket; 1006: it vanished */
    stoa_room_bytes reason;
    int clean;     /* by a Close frame */
    int replaced;  /* another connection took its id */
    int recovered; /* noticed after a crash of the shard or its gateway */
} stoa_room_close_info;

/* (`to`, else those with any of `tags`, else everybody) less `except`. A name in `to` and `except`
 * is a session or an id. NULL is not given; `to` or `tags` given with 0 names is nobody. */
typedef struct stoa_room_recipients {
    const stoa_room_bytes *tags, *to, *except;
    size_t n_tags, n_to, n_except;
} stoa_room_recipients;

typedef struct stoa_room_publish {
    stoa_room_recipients who;
    stoa_room_bytes conflate; /* joiners get only the newest event with the same; n 0: none */
    int ephemeral;            /* not stored: for those who are connected now */
} stoa_room_publish;

/* The answer of a sibling, or the end of a sleep, in a segment of its own. rc OK: `value` is the
 * answer; else host->error(ctx) says more. What it returns counts as the handler's own result. The
 * connection of the handler may have gone (connection(ctx) is NULL then).
 * ctx NULL: it will never come (the room is reset or the shard ends); free `ud`, do no more. */
typedef stoa_room_rc (*stoa_room_reply)(stoa_room_ctx *ctx, void *mem, stoa_room_rc rc,
                                        stoa_room_bytes value, void *ud);

/* What the host does for a handler. A function that returns an rc other than OK and NONE has
 * changed nothing, and host->error(ctx) says why; a handler may return that rc as its own. */
typedef struct stoa_room_host {
    uint32_t abi;
    uint32_t size; /* of this table */

    /* ---- the room ---- */
    stoa_room_bytes (*name)(stoa_room_ctx *ctx); /* "counter" of the room counter:main */
    stoa_room_bytes (*id)(stoa_room_ctx *ctx);   /* "main" */
    /* Whose socket sent the event, connects or closes; NULL: methods, alarms, direct sends. */
    stoa_room_conn *(*connection)(stoa_room_ctx *ctx);
    /* Why on_alarm runs again; NULL: it does not. */
    const char *(*system_failure)(stoa_room_ctx *ctx);
    int64_t (*now_ms)(stoa_room_ctx *ctx); /* since 1970; the same within a segment */
    uint64_t (*random)(stoa_room_ctx *ctx);
    void (*print)(stoa_room_ctx *ctx, stoa_room_bytes text); /* a line of the shard's log */
    void *(*alloc)(stoa_room_ctx *ctx, size_t size); /* zeroed; freed when the segment ends */

    /* ---- failures ---- */
    /* Why the last call failed, or what on_error was told; valid until the next failure. */
    const stoa_room_error *(*error)(stoa_room_ctx *ctx);
    /* Says why a handler fails; returns rc, to be returned. */
    stoa_room_rc (*fail)(stoa_room_ctx *ctx, stoa_room_rc rc, const char *message);
    /* A method's own error as its caller is to see it: code at most 63 bytes, status an HTTP one or
     * 0 (500), message "" or NULL for the code, data JSON or n 0. Returns STOA_ROOM_E_OTHER. */
    stoa_room_rc (*fail_with)(stoa_room_ctx *ctx, const char *code, unsigned status,
                              const char *message, stoa_room_bytes data);
    /* on_connect and identify: refuses the upgrade with that HTTP status (400 to 599) and text.
     * Returns STOA_ROOM_E_UPGRADE. */
    stoa_room_rc (*refuse)(stoa_room_ctx *ctx, unsigned status, const char *text);

    /* ---- state: one JSON value of at most 2 MiB ---- */
    stoa_room_rc (*recall)(stoa_room_ctx *ctx, stoa_room_bytes *state); /* NONE: never saved */
    /* `state_version` of the table that saved what recall gives. */
    unsigned (*state_version)(stoa_room_ctx *ctx);
    stoa_room_rc (*save)(stoa_room_ctx *ctx, stoa_room_bytes state);
    /* When the handler returns: deletes state, alarm and retained events. Connections stay. */
    void (*purge)(stoa_room_ctx *ctx);

    /* ---- connections, oldest first; open ones, and the one of a running on_close ---- */
    /* tag.p NULL: of any tag; prev NULL: the first; NULL: no more. */
    stoa_room_conn *(*next)(stoa_room_ctx *ctx, stoa_room_bytes tag, stoa_room_conn *prev);
    size_t (*count)(stoa_room_ctx *ctx, stoa_room_bytes tag);
    stoa_room_conn *(*by_id)(stoa_room_ctx *ctx, stoa_room_bytes id); /* the oldest with it */
    stoa_room_bytes (*conn_session)(stoa_room_conn *c);               /* unique, never used again */
    stoa_room_bytes (*conn_id)(stoa_room_conn *c);
    stoa_room_bytes (*conn_tag)(stoa_room_conn *c, size_t i); /* p NULL: it has no more */
    stoa_room_bytes (*conn_state)(stoa_room_conn *c);         /* JSON */
    stoa_room_bytes (*conn_meta)(stoa_room_conn *c); /* JSON in on_connect, afterwards n 0 */
    int (*conn_is_open)(stoa_room_conn *c);
    stoa_room_rc (*set_state)(stoa_room_ctx *ctx, stoa_room_conn *c, stoa_room_bytes state);
    /* For this connection; not kept, never replayed. */
    stoa_room_rc (*send)(stoa_room_ctx *ctx, stoa_room_conn *c, stoa_room_bytes message);
    /* code 1000, 1001, 1003, 1007 to 1014, 3000 to 4999; reason at most 123 bytes. */
    stoa_room_rc (*close)(stoa_room_ctx *ctx, stoa_room_conn *c, unsigned code,
                          stoa_room_bytes reason);

    /* ---- to many ---- */
    /* For those who are connected now; not kept. who NULL: everybody. */
    stoa_room_rc (*broadcast)(stoa_room_ctx *ctx, stoa_room_bytes message,
                              const stoa_room_recipients *who);
    /* An event of the room: stored, ordered, replayed. wish NULL: to everybody. */
    stoa_room_rc (*publish)(stoa_room_ctx *ctx, stoa_room_bytes message,
                            const stoa_room_publish *wish);
    /* JSON array of stored events {"id","ts","data"} behind the id `after` (n 0: from the oldest),
     * at most `limit` (0: 100; at most 1000). Without what this segment publishes. */
    stoa_room_rc (*log)(stoa_room_ctx *ctx, stoa_room_bytes after, unsigned limit,
                        stoa_room_bytes *events);

    /* ---- alarm: one a room; scheduling replaces it, the past is at once ---- */
    stoa_room_rc (*schedule_in)(stoa_room_ctx *ctx, int64_t ms);
    stoa_room_rc (*schedule_at)(stoa_room_ctx *ctx, int64_t unix_ms);
    void (*cancel_schedule)(stoa_room_ctx *ctx);
    stoa_room_rc (*next_alarm)(stoa_room_ctx *ctx, int64_t *unix_ms); /* NONE: none */

    /* ---- what takes time: at most one of these a segment, and only from a handler that then
     * returns OK; `reply` (may be NULL) runs later ---- */
    stoa_room_rc (*sleep)(stoa_room_ctx *ctx, int64_t ms, stoa_room_reply reply, void *ud);
    /* Runs the sibling's on_event. */
    stoa_room_rc (*room_send)(stoa_room_ctx *ctx, stoa_room_bytes name, stoa_room_bytes id,
                              stoa_room_bytes event, stoa_room_reply reply, void *ud);
    /* Its state, or null. */
    stoa_room_rc (*room_state)(stoa_room_ctx *ctx, stoa_room_bytes name, stoa_room_bytes id,
                               stoa_room_reply reply, void *ud);
    /* To its connections; nothing runs there. */
    stoa_room_rc (*room_broadcast)(stoa_room_ctx *ctx, stoa_room_bytes name, stoa_room_bytes id,
                                   stoa_room_bytes message, stoa_room_reply reply, void *ud);
    /* Its on_call; `value` is the result. */
    stoa_room_rc (*room_call)(stoa_room_ctx *ctx, stoa_room_bytes name, stoa_room_bytes id,
                              stoa_room_bytes method, stoa_room_bytes input, stoa_room_reply reply,
                              void *ud);

    /* ---- answers of on_call ---- */
    /* What the method returns: JSON; without it null. */
    stoa_room_rc (*result)(stoa_room_ctx *ctx, stoa_room_bytes value);
    int (*streams)(stoa_room_ctx *ctx); /* the caller takes items; else they become an array */
    stoa_room_rc (*item)(stoa_room_ctx *ctx, stoa_room_bytes value);

    /* ---- JSON: enough to take a value apart and to put one together ---- */
    /* The member of an object, as JSON; p NULL: not there, or not an object. */
    stoa_room_bytes (*json_get)(stoa_room_bytes object, const char *member);
    /* The text of a JSON string. NONE: it is something else. */
    stoa_room_rc (*json_text)(stoa_room_ctx *ctx, stoa_room_bytes value, stoa_room_bytes *text);
    /* Text as a JSON string, quoted. */
    stoa_room_bytes (*json_quote)(stoa_room_ctx *ctx, stoa_room_bytes text);
    int (*json_valid)(stoa_room_bytes value);
    /* The elements of an array, each as JSON. NONE: it is no array. */
    stoa_room_rc (*json_items)(stoa_room_ctx *ctx, stoa_room_bytes array,
                               const stoa_room_bytes **items, size_t *count);
} stoa_room_host;

/* Who a connection is. All n 0 or 0 unless set. */
typedef struct stoa_room_identity {
    stoa_room_bytes id;    /* n 0: the shard draws one */
    stoa_room_bytes tags;  /* JSON array of at most 10 strings */
    stoa_room_bytes state; /* JSON */
    stoa_room_bytes meta;  /* JSON, seen in on_connect only */
} stoa_room_identity;

/* What the plug-in says of its rooms; the configuration wins. 0 and NULL: as usual. */
typedef struct stoa_room_traits {
    const char *on_duplicate;      /* "allow", "replace", "reject": a second one with the same id */
    unsigned max_connections;      /* 1 to 32768 */
    unsigned max_connection_state; /* bytes of JSON, at most 16384; usually 2048 */
    unsigned alarm_retries;        /* at most 100; usually 6; STOA_ROOM_NO_RETRIES: none */
    unsigned state_version;        /* kept beside each state that is saved */
    int rollback;                  /* a segment that fails leaves nothing */
    int exclusive;                 /* nothing else runs in the room while it waits for a reply */
    const char *auto_request;      /* a frame with exactly this text ... */
    const char *auto_response;     /* ... is answered with this one, and nothing runs */
} stoa_room_traits;
#define STOA_ROOM_NO_RETRIES 0xffffffffu

/* The plug-in. Every member after `name` may be NULL. It must live as long as the library. */
typedef struct stoa_room_vtable {
    uint32_t abi;  /* STOA_ROOM_ABI */
    uint32_t size; /* sizeof(stoa_room_vtable) */
    const char *name;
    const stoa_room_traits *traits;

    /* Once for each type that names the library, before anything else. `config`: JSON. Not OK: the
     * type is not loaded. *why may say more. */
    stoa_room_rc (*open)(const stoa_room_host *host, stoa_room_bytes config, const char **why);
    void (*shut)(void);

    /* A pure function of the request {"query","claims","headers","ip","client_state"}, before the
     * room is touched: of ctx only alloc, fail, refuse and the JSON functions work. */
    stoa_room_rc (*identify)(stoa_room_ctx *ctx, stoa_room_bytes request,
                             stoa_room_identity *identity);

    /* The room's companion in memory, lost whenever the room leaves it. */
    void *(*load)(stoa_room_ctx *ctx);
    void (*unload)(void *mem);

    /* Whether a value is one of the room's: not OK refuses it at the border, and *why may say what
     * is wrong. Of events in, states, connections' states, messages out. */
    stoa_room_rc (*decode_event)(stoa_room_bytes value, const char **why);
    stoa_room_rc (*decode_state)(stoa_room_bytes value, const char **why);
    stoa_room_rc (*decode_connection)(stoa_room_bytes value, const char **why);
    stoa_room_rc (*encode_broadcast)(stoa_room_bytes value, const char **why);

    /* Before the 101. Not OK: the upgrade is refused, with 500 or as host->refuse says. */
    stoa_room_rc (*on_connect)(stoa_room_ctx *ctx, void *mem);
    /* A frame, or a direct send (connection(ctx) is NULL). */
    stoa_room_rc (*on_event)(stoa_room_ctx *ctx, void *mem, stoa_room_bytes event);
    /* Once for each connection that was accepted. */
    stoa_room_rc (*on_close)(stoa_room_ctx *ctx, void *mem, const stoa_room_close_info *info);
    /* At least once; not OK: again, after 2, 4, 8 ... s. */
    stoa_room_rc (*on_alarm)(stoa_room_ctx *ctx, void *mem);
    /* A method: `method` is "say" or "router.ping", `input` JSON or n 0. NONE: there is no such. */
    stoa_room_rc (*on_call)(stoa_room_ctx *ctx, void *mem, stoa_room_bytes method,
                            stoa_room_bytes input);
    /* A frame that is not JSON, or that decode_event refused. */
    stoa_room_rc (*on_decode_error)(stoa_room_ctx *ctx, void *mem, stoa_room_bytes raw,
                                    const stoa_room_error *error);
    /* A handler failed. OK: it is dealt with; else the failure stands. */
    stoa_room_rc (*on_error)(stoa_room_ctx *ctx, void *mem, stoa_room_phase phase,
                             const stoa_room_error *error);
} stoa_room_vtable;

/* The only exported symbol. NULL: the plug-in does not work with this host. */
STOA_ROOM_EXPORT const stoa_room_vtable *stoa_room_plugin(uint32_t host_abi);

#ifdef __cplusplus
}
#endif

#endif
