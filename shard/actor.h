/* CORE. A room with a handler while it is in memory, and the segment that is running. Nobody
 * outside shard/ includes it.
 *
 *   actor.c    in and out of memory: rows read on waking, written at the end of a turn
 *   row.c      what those rows look like
 *   member.c   connections: JOIN, LEAVE, INPUT, confirmation after a restart
 *   segment.c  runs a handler: segment by segment, on_error
 *   apply.c    what a segment leaves behind in room, actor and turn
 *   wait.c     runs that sleep or wait for a sibling
 *   reply.c    what they say to gateways, behind the commit
 *   context.c  what a handler asks for (context.h), buffered in the segment
 *   alarm.c    due alarms, retries     call.c  CALL: direct sends, methods, state; answers kept
 *   presence.c who is there, for types that count members
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
#define PRESENCE_LIST_MAX_BYTES MIB  /* of members in a JOINED; the others are counted */
#define SEGMENT_MAX_BYTES (64 * MIB) /* all that one segment may send, change and close */

struct connection {
    struct actor *actor;
    char session[SESSION_MAX_BYTES + 1];
    uint8_t session_size;
    uint32_t peer, life; /* its gateway's link; peer 0: not confirmed since it was lost */
    int64_t lost_ns;     /* peer 0: since when */
    uint64_t number;     /* order of acceptance in the room */
    uint64_t counter;    /* last input that was handled */
    uint64_t durable;    /* the same as it is on disk */
    uint64_t head;       /* the room's before its on_connect: what follows is for it */
    struct strbuf id, state, meta;
    struct strbuf tags_json;             /* ["a","b"] */
    struct slice tags[CONTEXT_TAGS_MAX]; /* unescaped, into tag_text */
    struct strbuf tag_text;
    uint8_t n_tags;
    bool joining;        /* on_connect has not ended */
    bool wants_members;  /* the next JOINED lists them */
    bool closing;        /* told to close; counts as gone, on_close is still to come */
    bool replaced;       /* by another of its id */
    bool leaving;        /* on_close runs */
    bool gone;           /* on_close has run: its row goes with this turn, and then this */
    bool stored;         /* it has a row on disk */
    bool dirty;          /* its row differs from the disk's; in actor->dirty */
    uint16_t close_code; /* closing: what it was told */
    uint32_t ack;        /* place + 1 of the turn's INPUT_ACK for it */
    uint64_t ack_turn;   /* of which turn */
};

/* Whose connection it was when the room left memory; by number. */
struct link {
    uint64_t number;
    int64_t lost_ns;
    uint32_t peer, life;
};

struct alarm {
    bool set;
    int64_t due_ms;
    uint32_t attempt;  /* failed ones so far */
    bool running;      /* on_alarm runs for it, or failed and is to run again: not what a handler
                          sees as scheduled; scheduling anew clears it */
    uint64_t run;      /* number of the on_alarm that runs for it now; 0: none */
    bool dead;         /* failed for good; kept to be seen */
    struct strbuf why; /* of the last failure */
};

enum task_kind { TASK_JOIN, TASK_LEAVE, TASK_INPUT, TASK_ALARM, TASK_CALL };

/* What a run is for, from its first segment to its last. */
struct task {
    enum task_kind kind;
    struct actor *actor;
    struct connection *connection; /* NULL: none */
    struct invocation what;        /* slices in the packet */
    struct buf *packet;            /* borrowed; a run that waits holds a ref. May be NULL */
    struct asker asker;            /* JOIN, CALL: who gets the answer; peer 0: nobody */
    uint64_t waiter;               /* CALL: the run of this shard that gets it; 0: none */
    uint8_t msg_id[16];            /* CALL: zeros: none */
    struct slice chain;            /* CALL: rooms that it came through; in the packet */
    uint64_t alarm;                /* ALARM: alarm.run */
    bool listed;                   /* CALL: items become one array in `items` */
    struct strbuf items;
};

/* A run that sleeps or waits for a sibling's answer. Its connection cannot go before it ends. */
struct waiting {
    struct list in_actor;
    struct heap_node due; /* in shard->waits_due: end of the sleep, another call or deadline of the
                             sibling; ns */
    int64_t until_ns;     /* the deadline */
    uint64_t number;      /* in shard->waits */
    struct run *run;
    struct task task;
    bool is_sleep;
    bool ready;           /* it has what it waited for */
    bool answered;        /* OP_RESUME is queued */
    bool called;          /* at least once */
    struct op *call;      /* owned; to the sibling, once this turn is on disk; until it is sure that
                             it need not go again */
    struct slice sibling; /* its key, in call->packet */
    struct fault fault;   /* what to wake it with; no tag: with `value` */
    struct strbuf value;
};

struct actor {
    struct room *room;
    struct list lru; /* in shard->actors, longest unused first */
    int64_t used_ns;
    struct handler *handler; /* of the type; borrowed */
    void *mem;               /* the handler's companion */
    bool has_state;
    bool state_stored, alarm_stored; /* they have rows on disk, this turn's writes included */
    unsigned state_version;
    struct strbuf state;
    struct vec connections; /* struct connection *, owned, by number */
    struct map *by_session; /* the same */
    struct vec dirty;       /* struct connection *: their rows are written with this turn */
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
    bool typed;                      /* the payload is a typed one (proto/typed.h) */
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

/* ---- actors.c ---- */
/* A JOIN or CALL that was not run. */
void actors_refuse(struct shard *s, struct op *op, enum nack_code code);
/* ---- actor.c ---- */
struct actor *actor_wake(struct shard *s, struct room *room); /* the room's, read if it sleeps */
/* Out of memory; false: a run waits in it. */
bool actor_sleep(struct shard *s, struct actor *a);
/* The same although runs wait: they are abandoned, their askers told `fault` (NULL: nothing). */
void actor_drop(struct shard *s, struct actor *a, const struct fault *fault);
void actor_touch(struct shard *s, struct actor *a); /* this turn writes it */
/* The segment-less context of load, unload and whoever else needs one. */
struct context actor_context(struct shard *s, struct actor *a, struct segment *g);
/* ---- member.c ---- */
static inline struct slice member_session(const struct connection *c)
{
    return slice_of(c->session, c->session_size);
}
struct connection *member_find(const struct actor *a, struct slice session);
struct connection *member_create(struct actor *a, struct slice session, uint64_t number);
void member_free(struct connection *c);
void member_touch(struct connection *c);
/* Takes id, tags and state as they are in an identity or a row. False: *why says what is wrong. */
bool member_describe(struct connection *c, struct slice id, struct slice tags, struct slice state,
                     unsigned max_state, struct fault *why);
void member_decide(struct shard *s, struct op *op); /* JOIN, LEAVE, INPUT, CONFIRM */
void member_joined(struct shard *s, struct task *t, const struct fault *fault);
void member_left(struct shard *s, struct task *t);
/* Its link is lost: somebody must say that it is still there. */
void member_unconfirm(struct shard *s, struct connection *c);
void member_watch(struct shard *s, struct room *room, int64_t lost_ns);
/* ---- segment.c ---- */
void segment_run(struct shard *s, struct task *t); /* a task's first segment */
void segment_resume(struct shard *s, struct task *t, struct run *run, const struct wake *wake);
/* ---- apply.c ---- */
void segment_apply(struct shard *s, struct task *t, struct segment *g);
void actor_purge(struct shard *s, struct actor *a); /* state, alarm, retained log */
bool actor_is_heard(const struct actor *a);         /* somebody gets what it sends now */
/* A record of the room's log; false: the turn fails. Its bytes stay until the turn is let out. */
bool actor_append(struct shard *s, struct actor *a, struct event_item *item);
/* ---- presence.c ---- */
bool presence_counted(const struct shard *s, const struct room *room);
/* Tells of a connection that is in since now, or whose row goes: its id may be new, or the last. */
void presence_tell_join(struct shard *s, const struct connection *c);
void presence_tell_leave(struct shard *s, const struct connection *c);
/* Appends a JSON array of the members; returns how many did not fit. */
size_t presence_put(const struct shard *s, const struct actor *a, size_t max_bytes,
                    struct strbuf *out);
/* Appends what JOINED says of them. */
void presence_list(const struct shard *s, const struct actor *a, struct strbuf *out);
/* ---- wait.c ---- */
void wait_start(struct shard *s, struct task *t, struct segment *g, struct run *run);
void wait_is_due(struct shard *s, struct waiting *w);
void wait_decide(struct shard *s, struct op *op);   /* RESUME */
void wait_free(struct shard *s, struct waiting *w); /* abandons the run if it still has one */
/* Whether the room does nothing before this call is answered, which comes from it. */
bool wait_is_reentrant(const struct room *room, struct slice chain);
void wait_refuse_reentrant(struct shard *s, uint32_t peer, const struct message *m);
void wait_go(struct shard *s, struct actor *a); /* its turn is on disk: siblings are called */
/* A sibling's answer is on disk. */
void wait_answer(struct shard *s, uint64_t number, const struct fault *fault, struct slice value);
/* ---- alarm.c ---- */
void alarm_decide(struct shard *s, struct op *op);
void alarm_take(struct shard *s, struct actor *a);  /* it runs now, as asked: not when it is due */
void alarm_clear(struct shard *s, struct actor *a); /* there is none any more */
void alarm_ended(struct shard *s, struct task *t, const struct fault *fault);
void alarm_settle(struct shard *s, struct actor *a);
void alarm_reload(struct shard *s, struct room *room); /* from disk, after a turn that failed */
/* ---- call.c ---- */
void call_decide(struct shard *s, struct op *op);
void call_ended(struct shard *s, struct task *t, const struct fault *fault, struct slice result);
void call_item(struct shard *s, struct task *t, struct slice item);
/* ---- row.c ---- */
void row_of_connection(const struct connection *c, struct strbuf *out);
bool row_connection(struct slice value, struct connection *c);
void row_of_alarm(const struct alarm *alarm, struct strbuf *out);
bool row_alarm(struct slice value, struct alarm *alarm);
void row_of_state(unsigned version, struct slice state, struct strbuf *out);
bool row_state(struct slice value, unsigned *version, struct slice *state);
/* ---- reply.c ---- */
void reply_joined(struct shard *s, struct room *room, struct asker asker, struct slice session,
                  const struct connection *c, const struct fault *fault);
void reply_result(struct shard *s, const struct task *t, const struct fault *fault,
                  struct slice json, bool more, bool dup);
void reply_close(struct shard *s, const struct connection *c, unsigned code, struct slice reason);
void reply_close_session(struct shard *s, struct room *room, struct asker asker,
                         struct slice session, unsigned code, struct slice reason);
void reply_ack(struct shard *s, struct connection *c, enum nack_code code);
/* The input of c->counter is one too many. */
void reply_refused(struct shard *s, struct connection *c);
/* The status of a fault: its own, or its tag's. */
unsigned fault_status(const struct fault *f);
/* What a RESULT says; its status is not 0. */
void fault_of_result(const struct msg_result *result, struct fault *out);
/* What others than the log may know of it. */
struct slice fault_text(const struct fault *f);

/* ---- context.c ---- */
void segment_begin(struct segment *g); /* empty; each is followed by its segment_free */
void segment_free(struct segment *g);
/* Copies `s` into bytes; slices into it stay good. False: it would be too much. */
bool segment_keep(struct segment *g, struct slice s, uint32_t *at);
/* ---- context_send.c: whether the running segment told it to close ---- */
bool connection_leaves(const struct connection *c);

#endif
