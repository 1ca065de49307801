/* CORE. A room with a handler while it is in memory, and the segment that is running. Nobody
 * outside shard/ includes it.
 *
 *   actor.c    in and out of memory: rows read on waking, written at the end of a turn
 *   member.c   connections: JOIN, LEAVE, INPUT, confirmation after a restart
 *   segment.c  runs a handler: segment by segment, on_error, what it leaves behind
 *   context.c  what a handler asks for (context.h), buffered in the segment
 *   alarm.c    due alarms, retries     call.c  CALL: direct sends, methods, state; answers kept
 *
 * A segment buffers everything. At its end it is applied to the actor at once (the next segment of
 * the turn sees it) and to the turn: log items are appended, rows are marked dirty and written once
 * before the commit, answers wait behind the output gate. If the commit finds no space, every actor
 * that the turn touched leaves memory without a trace: what is on disk is the truth. */
#ifndef STOA_SHARD_ACTOR_H
#define STOA_SHARD_ACTOR_H

#include "shard/context.h"
#include "shard/state.h"

#define ACTOR_IDLE_MS 10000        /* without events it leaves memory */
#define MEMBER_CONFIRM_MS 15000    /* after a restart or a lost link a connection is waited for */
#define CALL_ANSWER_KEPT_MS 300000 /* retries with the same id get it */
#define SESSION_MAX_BYTES 64
#define SEGMENT_MAX_BYTES (64 * MIB) /* all that one segment may send, change and close */

struct connection {
    struct actor *actor;
    char session[SESSION_MAX_BYTES + 1];
    uint8_t session_size;
    uint32_t peer, life; /* its gateway's link; 0: not confirmed since the restart */
    uint64_t number;     /* order of acceptance in the room */
    uint64_t counter;    /* last input that was handled */
    struct strbuf id, state, meta;
    struct strbuf tags_json;             /* ["a","b"] */
    struct slice tags[CONTEXT_TAGS_MAX]; /* unescaped, into tag_text */
    struct strbuf tag_text;
    uint8_t n_tags;
    bool joining;  /* on_connect has not ended */
    bool closing;  /* told to close; counts as gone, on_close is still to come */
    bool replaced; /* by another of its id */
    bool dirty;    /* its row differs from the disk's */
};

struct alarm {
    bool set;
    int64_t due_ms;
    uint32_t attempt;  /* failed ones so far */
    bool running;      /* on_alarm runs for it, or failed and is to run again: not what a handler
                          sees as scheduled; scheduling anew clears it */
    bool dead;         /* failed for good; kept to be seen */
    struct strbuf why; /* of the last failure */
};

/* A sleep or a sibling's answer that a run waits for. */
struct waiting {
    struct list in_actor;
    struct run *run;
    struct invocation what; /* slices into `kept` */
    struct strbuf kept;
    char session[SESSION_MAX_BYTES + 1]; /* of the connection that it runs for; empty: none */
    struct asker asker;                  /* who gets the answer; peer 0: nobody */
    bool is_sleep;
    int64_t due_ns; /* end of the sleep, or deadline of the sibling */
    uint64_t cid;   /* of the CALL to the sibling */
};

struct actor {
    struct room *room;
    struct list lru; /* in shard->actors, longest unused first */
    int64_t used_ms;
    struct handler *handler; /* of the type; borrowed */
    void *mem;               /* the handler's companion */
    bool has_state;
    unsigned state_version;
    struct strbuf state;
    struct vec connections; /* struct connection *, owned, by number */
    uint64_t next_number;
    struct alarm alarm;
    struct list waiting; /* struct waiting */
    bool state_dirty, alarm_dirty;
    bool touched;            /* by the running turn; in shard->turn.actors */
    struct segment *segment; /* running, or NULL */
};

enum output_kind { OUTPUT_BROADCAST, OUTPUT_PUBLISH, OUTPUT_EPHEMERAL };
struct output {
    enum output_kind kind;
    uint32_t filter_at, filter_size; /* in segment->bytes: encoded filter (proto/filter.h) */
    uint32_t conflate_at, conflate_size;
    uint32_t payload_at, payload_size;
};
struct state_change { /* one a connection: the last */
    struct connection *connection;
    uint32_t at, size;
};
struct close_wish {
    struct connection *connection;
    unsigned code;
    uint32_t reason_at, reason_size;
};

struct context {
    struct shard *s;
    struct actor *actor;
    struct connection *connection; /* NULL: none */
    struct segment *segment;
    enum phase phase;
    const char *system_failure;
    int64_t now_ms;
};

enum wait_kind { WAIT_NONE, WAIT_SLEEP, WAIT_SIBLING };

struct segment {
    struct strbuf
        bytes;          /* what outputs, changes and closes point into, at most SEGMENT_MAX_BYTES */
    struct vec outputs; /* struct output, in order; several may share a payload */
    struct vec states;  /* struct state_change, by number of the connection */
    struct vec closes;  /* struct close_wish, by number of the connection */
    struct vec kept;    /* void *: memory that grew or was replaced, for slices given out */
    bool state_set;
    struct strbuf state;
    enum { ALARM_KEPT, ALARM_SET, ALARM_CANCELLED } alarm;
    int64_t alarm_ms;
    bool purge;
    enum wait_kind wait;
    int64_t sleep_ms;
    enum sibling_verb verb;
    struct strbuf sibling_key, sibling_method, sibling_input;
    struct vec items; /* struct slice-like places of streamed items: struct state_change without
                         connection */
};

/* ---- context.c ---- */
void segment_begin(struct segment *g); /* empty; each is followed by its segment_free */
void segment_free(struct segment *g);
/* Copies `s` into bytes; slices into it stay good. False: it would be too much. */
bool segment_keep(struct segment *g, struct slice s, uint32_t *at);
/* ---- context_send.c: whether the running segment told it to close ---- */
bool connection_leaves(const struct connection *c);

#endif
