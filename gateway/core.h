/* CORE. What the gateway's own files share; nobody else includes it.
 *
 *   session       one WebSocket or event stream           dialect: how it speaks
 *   subscription  one key on one session                  WAITING -> CATCHUP <-> LIVE <-> LAGGING
 *   room          one key here: chain of events, subscribed once at the shard that owns it
 *   pull          one REPLAY_REQ in flight, shared by subscriptions that want the same page
 *   call          anything with a cid that a router or shard will answer
 *   waiter        an HTTP request that is answered later
 *   member        a subscription's place in a room with a handler
 *   presence      what a subscription that asked for it was told of who is there
 *
 * Ownership: the gateway owns sessions and rooms (maps), a session owns its subscriptions, a room
 * its pulls, `calls` borrows what is in flight. */
#ifndef STOA_GATEWAY_CORE_H
#define STOA_GATEWAY_CORE_H

#include "common/base36.h"
#include "common/base64.h"
#include "common/bucket.h"
#include "common/hash.h"
#include "common/heap.h"
#include "common/json.h"
#include "common/limits.h"
#include "common/list.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/rng.h"
#include "common/token/identity.h"
#include "common/token/token.h"
#include "gateway/fanout.h"
#include "gateway/gateway.h"
#include "gateway/token_cache.h"
#include "proto/slots.h"

#define ROOM_IDLE_MS 5000    /* a room without subscribers waits so long for them to come back */
#define ROOM_RETRY_MS 250    /* after a refusal by the shard */
#define DRAIN_STEP_MAX_MS 10 /* between two closes of a drain */
#define SYNC_TICK_MS 100     /* the periodic SUBSYNC is spread in steps of this */
#define PULL_TIMEOUT_MS 5000 /* a page that has not come is asked for again */
#define PULL_QUEUE_MAX                                                        \
    (64 * KIB) /* no page is asked for while more is queued on the connection \
                */
#define FANOUT_MAX_BYTES \
    (256 * KIB) /* a room's pending events are written once there are so many */
#define CONTROL_QUEUE_MAX (4 * CONN_QUEUE_MAX_BYTES) /* answers beyond it end the socket */
#define ASK_TIMEOUT_MS 1000
#define READ_TIMEOUT_MS 5000 /* GET /log, DELETE /log */
#define READ_RETRY_MS 100
#define PENDING_PUBLISH_MAX_BYTES (64 * MIB)
#define PUBS_PER_SOCKET_MAX 256
#define REF_MAX_BYTES 256
#define PING_MAX_BYTES 4096
#define LOG_ANSWER_MAX_BYTES MIB
#define MEMBER_RETRY_MS 250 /* after a refusal by the shard */
#define INPUTS_MAX 256      /* unacknowledged of one member: beyond, its socket is not read */
#define INPUTS_MAX_BYTES MIB
#define INPUTS_HARD_MAX                                                    \
    (4 * INPUTS_MAX) /* beyond, it is closed 1013: what is not read cannot \
                        come, but not every program can stop reading */
#define INPUTS_HARD_MAX_BYTES (4 * MIB)
#define MEMBER_TAGS_MAX 10
#define JOIN_REQUEST_MAX_BYTES 32768 /* of JOIN.request */
#define QUERY_PARAMETERS_MAX 100

struct session;
struct room;
struct pull;
struct viewer;

struct timer {
    struct heap_node node;
    void (*fire)(struct gateway *g, struct timer *t);
};

/* ---- calls ---- */
enum call_kind { CALL_PUBLISH, CALL_PULL, CALL_LOG, CALL_PURGE, CALL_ASK, CALL_ROOM, CALL_JOIN };
struct call {
    uint64_t cid; /* 0: not in g->calls */
    enum call_kind kind;
    uint32_t peer;
};

struct waiter {
    uint64_t client;
    bool waiting; /* false: answered, or the client has gone */
    char *cors;   /* owned header lines, or NULL */
};

/* ---- dialects ---- */
enum { DIALECT_RAW, DIALECT_V1, DIALECT_SSE, DIALECT_UPLOADISTA, DIALECT_ORPC, DIALECT_COUNT };

struct subscription;
struct refusal;

struct dialect {
    unsigned index;
    const char *name;
    /* Appends one event, framed for the wire. */
    void (*encode)(struct strbuf *out, const struct pack_source *source, const struct event *e);
    /* The first word about a key, or (miss not NULL) one about a gap. False: the subscription has
     * ended with it and is freed. */
    bool (*tell)(struct gateway *g, struct subscription *sub, enum sub_status status,
                 const struct miss *miss, struct position head);
    /* The room closes its connections: ends (and frees) the subscription. */
    void (*end)(struct gateway *g, struct subscription *sub, unsigned code, struct slice reason);
    void (*frame)(struct gateway *g, struct session *s, struct slice payload, bool text);
    bool own_tokens; /* they are signed by keys of its own, not by auth.keys */
    /* The room has refused a subscription of an open session: ends it. Of dialects that subscribe
     * by frames. */
    void (*refused)(struct gateway *g, struct subscription *sub, const struct refusal *r);
    /* What a call of the session brought, and items before it: one of `ok` and `error`, each JSON.
     * Of dialects that call. */
    void (*call_done)(struct gateway *g, struct session *s, struct slice ref, struct slice ok,
                      struct slice error);
    void (*call_item)(struct gateway *g, struct session *s, struct slice ref, struct slice item);
    /* Whom it speaks to is not let in any longer: ends the session. `reason`: "Token expired". */
    void (*expired)(struct gateway *g, struct session *s, const char *tag, const char *reason);
    /* Of a reader within the gateway: takes events instead of having them written. Else NULL. */
    void (*take)(struct gateway *g, const struct subscription *sub, const struct event *events,
                 size_t count);
    /* The upgrade went out. NULL: nothing is said before the first word about a key. */
    void (*begun)(struct gateway *g, struct session *s);
};
extern const struct dialect dialect_raw, dialect_v1, dialect_sse, dialect_uploadista, dialect_orpc;

/* ---- sessions and subscriptions ---- */
struct session {
    uint64_t client;
    const struct dialect *dialect;
    struct list all;  /* in g->sessions_all */
    struct list subs; /* of subscription.in_session */
    struct list lag;  /* in g->lagging, ordered by lag_due_ns */
    struct list beat; /* in g->streams (SSE), ordered by beat_due_ns */
    int64_t lag_due_ns, beat_due_ns;
    size_t queued; /* bytes waiting at the program, as far as known */
    uint32_t n_subs;
    uint32_t n_unfed;   /* subscriptions in CATCHUP or LAGGING */
    uint32_t n_lagging; /* subscriptions in LAGGING */
    uint32_t n_granted; /* subscriptions with a token of their own */
    uint16_t bad_frames;
    uint16_t pubs; /* publishes in flight */
    bool established;
    bool closing;              /* ports.close was called; only gateway_closed is still to come */
    bool too_slow;             /* lagged longer than CONN_LAG_MAX_MS */
    struct hold *hold;         /* its request is not answered yet; NULL: it is (hold.c) */
    struct identity *identity; /* who opened it, one reference; NULL: nobody is asked */
    struct timer expiry;       /* of the identity (identity.c) */
    struct form *form;         /* how its events are framed; NULL: as all of its dialect */
    struct orpc *orpc;         /* its stream and calls; owned, NULL: of another dialect */
    struct visitor
        *visitor; /* stoa.v1, orpc: who asked for the socket, for rooms with handlers; owned */
    struct viewer *viewer; /* uploadista: whom it was opened for; owned */
    char *farewell;        /* reason of the peer's Close frame; owned, NULL: none has come */
    uint16_t n_full;       /* members that take no more inputs: it is not read */
    struct rates *rates;   /* what it said lately, by key; owned, NULL: nothing (rate.c) */
};

enum start_kind { START_LIVE, START_AFTER, START_ALL, START_LAST };
struct start {
    enum start_kind kind;
    struct position after;
    uint64_t last;
    bool whole;           /* conflated events too, not just the newest of each value */
    bool presence;        /* it is to be told who is there */
    bool overhears;       /* events that are for others too, as far as they are retained */
    struct identity *who; /* the token that came with it, borrowed; NULL: the session's */
    bool bare;            /* START_AFTER: `after` is of whatever history there is */
    int64_t since_ms;     /* START_ALL: what is older is not wanted */
};

enum sub_state { SUBS_WAITING, SUBS_CATCHUP, SUBS_LIVE, SUBS_LAGGING };
struct subscription {
    struct room *room;
    struct session *session;
    struct list in_room, in_session;
    struct pull *pull; /* the page it waits for, or NULL */
    struct list in_pull;
    struct position pos; /* CATCHUP, LAGGING: what it has; LIVE: at least the room's, as flushed */
    uint64_t last;       /* START_LAST: until the first page, the newest to look at */
    uint64_t wanted;  /* START_LAST: of them, as many as are to be given; 0: all that are for it */
    uint8_t state;    /* enum sub_state */
    uint8_t start;    /* enum start_kind */
    bool fresh;       /* nothing was told yet */
    bool lagged;      /* a gap found now is its own fault */
    bool astray;      /* holds what the room has lost, and was not told */
    bool pinned;      /* START_LIVE, and `pos` is where it begins */
    bool whole;       /* catches up by every event */
    bool overhears;   /* no filter keeps an event from it */
    bool bare;        /* START_AFTER: the epoch of `pos` is not known yet */
    int64_t since_ms; /* of the log, what is older is not for it */
    struct member *member;     /* NULL: a key without a handler, or a reader */
    struct presence *presence; /* owned; NULL: did not ask for it */
    struct identity *identity; /* of a token of its own, one reference; NULL: the session's */
    struct timer expiry;       /* of that (identity.c) */
};

/* ---- presence (presence.c) ---- */
struct presence {
    struct strbuf list; /* what the shard said of the members; empty: told, or still to come */
    struct position at; /* as of here: what comes behind it is told by items */
    bool wanted;        /* the list is to be asked for, or under way */
    bool asked;         /* by the latest JOIN */
    bool known;         /* `at` means something */
};

/* ---- members (member.c) ---- */
struct input { /* of a connection, until the shard has it on disk */
    struct list in_member;
    uint64_t counter;
    uint32_t flags;
    struct slice frame, ref; /* behind the struct; ref: raw JSON, empty: nobody waits */
};

struct member {
    struct call call; /* JOIN in flight */
    struct subscription *sub;
    struct list joining; /* in g->joins, by due_ns: not let in yet, and no hold knows the time */
    struct list ending;  /* in g->endings: to be closed when it has what came before */
    struct list retry;   /* in g->member_retries */
    struct list inputs;
    size_t n_inputs, inputs_bytes;
    uint64_t counter; /* of the latest input */
    int64_t due_ns;
    struct strbuf request; /* JSON, until it was let in */
    struct position head;  /* items behind it are for this connection */
    struct strbuf names;   /* what id and tags point into */
    struct slice id, tags[MEMBER_TAGS_MAX];
    struct strbuf autos; /* auto_request, auto_response */
    size_t auto_request_size;
    uint8_t n_tags;
    bool announced; /* the shard may know it: it must hear of its end */
    bool joined;    /* was let in */
    bool confirmed; /* and the shard that owns the room now knows it */
    bool stalled;   /* an input was not taken: they are sent again later */
    bool full;      /* counted in session->n_full */
    uint16_t close_code;
    char *close_reason; /* owned; NULL: none */
    uint8_t name_size;
    char name[EVENT_ID_MAX_BYTES]; /* the session's: <boot>-<counter> */
};

/* ---- rooms ---- */
struct room {
    struct list all;   /* in g->rooms_all */
    struct list dirty; /* in g->rooms_dirty: has events */
    struct list idle;  /* in g->rooms_idle, by idle_due_ns */
    struct list retry; /* in g->rooms_retry */
    struct list subs;
    struct list pulls;
    struct pull *repair;  /* the chain is broken, or may be; NULL: whole */
    struct event *events; /* accepted in this turn, not yet written */
    uint32_t n_events, events_capacity;
    size_t events_bytes;
    uint64_t epoch, last; /* position of the chain, `events` included */
    uint64_t flushed;     /* seq before the first of `events` */
    int64_t idle_due_ns;
    uint32_t owner;   /* shard's peer; 0: nobody known */
    uint32_t sub_cid; /* SUB in flight */
    uint32_t n_subs;
    uint32_t n_members;
    uint16_t slot;
    uint16_t key_size;
    bool known;      /* epoch and last mean something */
    bool subscribed; /* the owner delivers to us */
    bool filtered;   /* of `events`, some are not for everybody */
    uint8_t key[];
};

struct pull {
    struct call call;
    struct room *room;
    struct list in_room;   /* in room->pulls */
    struct list in_flight; /* in g->pulls, by due_ns */
    struct list subs;      /* of subscription.in_pull */
    struct position after;
    uint64_t last;
    int64_t due_ns;
    enum replay_mode mode;
    bool repair;
};

/* ---- links to shards ---- */
struct shard_link {
    uint32_t peer;
    bool up;
    bool claimed; /* its CLAIM has come since it is up */
    uint64_t granted;
    struct mark *marks; /* SUBSYNC being put together; owned */
    size_t n_marks;
    size_t marks_bytes;
};

enum publish_result {
    PUBLISHED_OK,
    PUBLISHED_DUPLICATE,
    PUBLISHED_REJECTED,
    PUBLISHED_UNAVAILABLE,
    PUBLISHED_UNKNOWN,
    PUBLISH_RESULTS
};

#define MISS_REASONS (MISS_EPOCH + 1)

struct gateway_metrics {
    struct metric *publishes[PUBLISH_RESULTS];
    struct metric *publish_ack, *deliveries, *delivery, *lagging, *rooms, *dropped_frames;
    struct metric *token_checks;
    struct metric *sockets[DIALECT_COUNT];
    struct metric *missed[MISS_REASONS];
    struct metrics *registry; /* for labels met later: close codes, tags */
};

struct rare { /* a line of the log that comes at most once a second */
    int64_t due_ns;
    uint64_t held_back;
};

#define TAGS_MAX 32

struct gateway {
    struct gateway_options options;
    struct gateway_ports ports;
    struct hub *hub;
    struct log *log;
    struct slots *slots;
    struct rng rng;
    struct tick now; /* of the latest call that brought one */
    struct gateway_metrics m;
    struct rare refusals[TAGS_MAX], bad_closes;
    struct map *rooms;    /* by key */
    struct map *sessions; /* by client */
    struct map *waiters;  /* by client */
    struct map *calls;    /* by cid */
    struct map *members;  /* by name */
    struct token_cache *tokens;
    struct identity *nobody; /* a socket that was opened without a token: no right at all */
    struct revoked *revoked; /* NULL: nobody is asked who he is (revoked.c) */
    struct map *twins;       /* orpc: by key and id */
    uint64_t last_member, last_orpc;
    uint32_t last_cid;
    uint32_t last_router;
    size_t publish_bytes; /* held by publishes in flight */
    size_t n_publishes;
    struct list rooms_all, rooms_dirty, rooms_idle, rooms_retry;
    struct list sessions_all, lagging, streams, pulls, holds;
    struct list joins, endings, member_retries;
    struct heap timers;
    struct timer sync_timer, idle_timer, retry_timer, lag_timer, beat_timer, pull_timer,
        drain_timer, hold_timer, join_timer, member_timer;
    struct shard_link *shards; /* options.n_shards */
    size_t sync_share;         /* rooms of one SYNC_TICK_MS, in hundredths carried over */
    bool draining;
    int64_t drain_step_ns;
    struct strbuf scratch, control, quoted; /* reused buffers: packs, control frames, keys */
    struct strbuf picked;                   /* of a pack: what is for one connection */
    struct pack packs[DIALECT_COUNT];       /* at hand: of dialects without forms, */
    struct pack forms[FORMS_MAX];           /* and of forms, where their hash says */
    struct event *page;                     /* events of the page at hand */
    size_t page_capacity;
    struct event *spare_events; /* one room's queue, kept for the next */
    uint32_t spare_capacity;
    struct buf *beat_text, *retry_text;
};

static inline struct slice room_key(const struct room *room)
{
    return slice_of(room->key, room->key_size);
}
static inline struct position room_position(const struct room *room)
{
    return (struct position){room->epoch, room->last};
}
static inline const struct identity *subscription_identity(const struct subscription *sub)
{
    return sub->identity ? sub->identity : sub->session->identity;
}
static inline bool position_equal(struct position a, struct position b)
{
    return a.epoch == b.epoch && a.seq == b.seq;
}

/* ---- gateway.c ---- */
void timer_set(struct gateway *g, struct timer *t, int64_t due_ns);
void timer_stop(struct gateway *g, struct timer *t);
/* Gives the call a new cid and files it under it. */
void call_begin(struct gateway *g, struct call *call, enum call_kind kind, uint32_t peer);
void call_end(struct gateway *g, struct call *call);
bool peer_is_router(const struct gateway *g, uint32_t peer);
struct shard_link *shard_of_peer(struct gateway *g, uint32_t peer); /* NULL: not a shard */

/* ---- answer.c ---- */
bool tag_known(const char *tag); /* whether it is one of surface.md's table */
unsigned tag_status(const char *tag);
void error_put(struct strbuf *out, const char *tag, const char *message, bool with_status);
/* Counts a refusal and logs it. `message` is a constant: nothing of the input is in it. */
void refused_note(struct gateway *g, const char *tag, const char *message);
/* Whether a line about this kind of trouble may be logged: one a second, so that strangers cannot
 * fill a disk. *more: how many before it were not. */
bool rare_take(struct rare *r, struct tick now, uint64_t *more);
void refused_register(struct gateway *g); /* every tag, at zero */
void answer(struct gateway *g, uint64_t client, const char *cors, unsigned status,
            const char *content_type, struct slice body, const char *headers);
void answer_error(struct gateway *g, uint64_t client, const char *cors, const char *tag,
                  const char *message, const char *headers);
/* A refusal in the words of a room. */
struct refusal {
    unsigned status;
    struct slice tag, text;
};
void refusal_put(struct strbuf *out, const struct refusal *r, bool with_status);
void refusal_note(struct gateway *g, const struct refusal *r);
void answer_refusal(struct gateway *g, uint64_t client, const char *cors, const struct refusal *r);
/* Promises an answer for later. `cors` is copied. */
void waiter_begin(struct gateway *g, struct waiter *w, uint64_t client, const char *cors);
/* Answers, if somebody still waits; then the waiter holds nothing. */
void waiter_answer(struct gateway *g, struct waiter *w, const char *content_type,
                   struct slice body);
void waiter_error(struct gateway *g, struct waiter *w, const char *tag, const char *message);
/* 429, to be asked again in so many milliseconds. */
void waiter_limited(struct gateway *g, struct waiter *w, const char *message, uint64_t retry_ms);
void waiter_drop(struct gateway *g, struct waiter *w);

/* ---- frame.c ---- */
#define FRAME_HEADER_MAX_BYTES 10
#define FRAME_TEXT 1u
#define FRAME_BINARY 2u
/* Appends the header of one whole, unmasked frame of `size` payload bytes. */
void frame_put_header(struct strbuf *out, unsigned opcode, size_t size);
void event_id_put(struct strbuf *out, struct position p);   /* without quotes */
void miss_put(struct strbuf *out, const struct miss *miss); /* JSON {"from","to","reason"} */
struct event event_of(const struct event_item *item);       /* points into the item's packet */
void event_json_put(struct strbuf *out, uint64_t epoch, const struct event *e,
                    struct slice conflate); /* for GET /log */

/* ---- room.c ---- */
/* The room of a key, made if need be. NULL: KEYS_PER_GATEWAY_MAX. */
struct room *room_open(struct gateway *g, struct slice key);
struct room *room_find(const struct gateway *g, struct slice key);
void room_free(struct gateway *g, struct room *room);
void room_left(struct gateway *g, struct room *room); /* a subscriber has gone */
bool room_settled(const struct room *room);           /* subscribed, and the chain is whole */
void room_sub_send(struct gateway *g, struct room *room);
void room_unown(struct gateway *g, struct room *room); /* its shard's link is down, or it moved */
void room_kick(struct gateway *g, struct room *room);  /* settled: who waited goes on */
void room_repair(struct gateway *g, struct room *room);
/* A room that nothing is known of has got a history, still without an event. */
void room_born(struct room *room, struct position at);
void room_retry(struct gateway *g, struct room *room);
void room_on_suback(struct gateway *g, uint32_t peer, const struct message *m);
void room_on_deliver(struct gateway *g, uint32_t peer, const struct message *m, struct buf *packet);
void room_on_resync(struct gateway *g, uint32_t peer, const struct message *m);
/* Ends everybody's subscription of the room. */
void room_end(struct gateway *g, struct room *room, unsigned code, struct slice reason);
void room_on_close(struct gateway *g, uint32_t peer, const struct message *m);
bool room_on_nack(struct gateway *g, uint32_t peer, const struct message *m);
void room_on_page(struct gateway *g, struct room *room, const struct message *m,
                  struct buf *packet);
void room_init_timers(struct gateway *g);

/* ---- sync.c ---- */
void sync_shard_up(struct gateway *g, struct shard_link *link);
void sync_shard_down(struct gateway *g, struct shard_link *link);
void sync_on_claim(struct gateway *g, struct shard_link *link, const struct message *m);
void sync_credit(struct gateway *g);
void sync_rooms_begin(struct gateway *g); /* there is a room: the periodic check runs */
void sync_init(struct gateway *g);

/* ---- pull.c ---- */
void pull_join(struct gateway *g, struct subscription *sub);
struct pull *pull_repair(struct gateway *g, struct room *room);
void pull_cancel(struct gateway *g, struct pull *pull);
void pull_on_replay(struct gateway *g, uint32_t peer, const struct message *m, struct buf *packet);
void pull_on_nack(struct gateway *g, struct pull *pull);
void pull_init(struct gateway *g);
bool replay_miss(const struct message *m, struct position from, struct miss *miss);

/* ---- subscription.c ---- */
/* NULL: no room for another key here. `request`: it joins, by this (JSON, taken); else NULL. */
struct subscription *subscription_open(struct gateway *g, struct session *s, struct slice key,
                                       const struct start *start, struct strbuf *request);
/* Goes on when its room is settled, or it was let in. */
void subscription_kick(struct gateway *g, struct subscription *sub);
void subscription_free(struct gateway *g, struct subscription *sub);
struct subscription *subscription_find(const struct session *s, const struct room *room);
void subscription_begin(struct gateway *g, struct subscription *sub); /* WAITING, room settled */
/* Goes on as far as it can: asks for a page, or turns live. */
void subscription_feed(struct gateway *g, struct subscription *sub);
void subscription_state(struct gateway *g, struct subscription *sub, enum sub_state state);
/* A page of a pull that it joined. */
void subscription_page(struct gateway *g, struct subscription *sub, const struct message *m,
                       struct packs *packs);
/* Tells a gap and moves behind it. False: the subscription ended with it. */
bool subscription_miss(struct gateway *g, struct subscription *sub, struct miss miss,
                       struct position head);
void subscription_lag(struct gateway *g, struct subscription *sub);

/* ---- session.c ---- */
struct session *session_open(struct gateway *g, uint64_t client, const struct dialect *dialect);
struct session *session_find(const struct gateway *g, uint64_t client);
/* The connection has ended, or never began: how is for the rooms that it was in. */
void session_free(struct gateway *g, struct session *s, unsigned code, struct slice reason,
                  bool clean);
void session_established(struct gateway *g, struct session *s);
/* Ends all of its subscriptions and the connection. */
void session_close(struct gateway *g, struct session *s, unsigned code, struct slice reason);
void session_write(struct gateway *g, struct session *s, struct buf *bytes, size_t offset,
                   size_t size);
/* Sends one text frame that is no event. A client that asks without reading the answers is ended
 * before they fill the memory. */
void session_say(struct gateway *g, struct session *s, struct slice text);
void session_drained(struct gateway *g, struct session *s);
void session_init(struct gateway *g);
void stream_begin(struct gateway *g, struct session *s); /* first words of an event stream */
void session_drain(struct gateway *g, int64_t spread_ms);
void orpc_free(struct gateway *g, struct session *s); /* session_orpc.c; of any session */
bool orpc_is_stale(const struct session *s);          /* orpc_twins.c: a newer one has its id */
void session_id_put(struct strbuf *out, const struct gateway *g, const struct session *s);

/* ---- hold.c ---- */
/* Answers the request that opened the session: now, or when its room is subscribed. */
void session_admit(struct gateway *g, struct session *s, const char *cors);
void hold_release(struct gateway *g, struct session *s); /* its room is settled */
/* Answers with an error instead; the session is freed. */
void hold_refuse(struct gateway *g, struct session *s, const char *tag, const char *message);
void hold_drop(struct session *s); /* the session ends */
void hold_init(struct gateway *g);

/* The same with a room's own words. */
void hold_refuse_room(struct gateway *g, struct session *s, const struct refusal *r);

/* ---- rate.c ---- */
#define RATE_SOCKET_TEXT "too much on this socket in a short time; go slower"
#define RATE_ROOM_TEXT "too much comes to this room just now; nothing has run, retry later"
/* Whether the socket may say one more thing to the room of this key now. */
bool rate_take(struct gateway *g, struct session *s, struct slice key);
void rate_free(struct session *s);
/* A frame of a socket that cannot be answered is beyond a rate: it is dropped, or what it came by
 * is ended. */
void rate_exceeded(struct gateway *g, struct subscription *sub, const char *reason);
void rate_validate(const struct session *s);

/* ---- visitor.c ---- */
/* What a room's handler may know of who asks. NULL: no type has a handler. */
struct visitor *visitor_of(const struct gateway *g, const struct http_request *request);
/* The JSON of JOIN.request. NULL: fine, else the tag, with a message. */
const char *visitor_request(const struct visitor *v, const struct gateway_type *type,
                            const struct identity *who, struct slice client_state,
                            struct strbuf *out, const char **message);

/* ---- member.c ---- */
/* Takes the request. */
void member_open(struct gateway *g, struct subscription *sub, struct strbuf *request);
/* Tells the shard how the connection ended, and forgets it. */
void member_leave(struct gateway *g, struct subscription *sub, unsigned code, struct slice reason,
                  bool clean);
void member_settled(struct gateway *g, struct member *mb); /* its room is */
void member_unown(struct gateway *g, struct member *mb);   /* its room has no shard */
void member_again(struct gateway *g, struct member *mb);   /* joined: says JOIN once more */
/* Whether items behind this position are for it even if they come from the log. */
bool member_owed(const struct member *mb, struct position after);
/* Whether the gateway answers this text itself, and with what. */
bool member_answers(const struct member *mb, struct slice frame, struct slice *response);
/* A frame for the room. NULL: it will be acknowledged, else tag and message. */
const char *member_input(struct gateway *g, struct member *mb, struct slice frame, uint32_t flags,
                         struct slice ref, const char **message);
void member_on_joined(struct gateway *g, struct call *call, const struct message *m);
void member_on_nack(struct gateway *g, struct call *call, const struct message *m);
void member_on_input_ack(struct gateway *g, uint32_t peer, const struct message *m);
void member_on_close(struct gateway *g, uint32_t peer, const struct message *m);
void member_turn(struct gateway *g); /* behind the fan-out: those that are to end */
void member_init(struct gateway *g);
void member_validate(const struct gateway *g);

/* ---- presence.c ---- */
void presence_open(struct subscription *sub);
void presence_free(struct subscription *sub);
void presence_encode(struct strbuf *out, struct slice quoted_key, const struct event *e);
/* Whether an item of presence is for it. */
bool presence_is_for(const struct subscription *sub, const struct pack_source *source,
                     uint64_t seq);
/* Whether the members are to be told before what is behind `reached`; then presence_tell. */
bool presence_due(const struct subscription *sub, struct position reached);
void presence_tell(struct gateway *g, const struct subscription *sub);
void presence_reach(struct gateway *g, const struct subscription *sub); /* its `pos` moved */
/* False: the subscription has ended. */
bool presence_joined(struct gateway *g, struct subscription *sub, const struct msg_joined *j);
/* `pos` jumped a gap. */
void presence_missed(struct gateway *g, struct subscription *sub, enum miss_reason reason);

/* ---- session_v1.c ---- */
/* An input with a ref is handled (tag NULL) or given up. */
void v1_input_done(struct gateway *g, struct session *s, struct slice ref, const char *tag,
                   const char *message);
void v1_publish_done(struct gateway *g, struct session *s, struct slice ref, struct slice ok,
                     const char *tag, const char *message);

/* ---- publish.c ---- */
struct publish_order {
    struct slice key;
    uint8_t msg_id[16];
    bool idempotent; /* msg_id comes from the client's key */
    bool ephemeral;
    bool batch;
    bool typed; /* every part is a typed payload (proto/typed.h) */
    struct slice conflate;
    struct slice filter; /* encoded (proto/filter.h); empty: everybody */
    const struct slice *parts;
    size_t n_parts;
    struct slice ref; /* stoa.v1: raw JSON; data NULL: none given */
    bool by_session;  /* answered on the session, not by HTTP */
};
/* Checks sizes and counts; NULL: fine, else the tag, with a message. */
const char *publish_check(const struct gateway *g, const struct publish_order *order,
                          const char **message);
/* Sends. NULL: fine, else tag and message. */
const char *publish_begin(struct gateway *g, uint64_t client, const char *cors,
                          const struct publish_order *order, const char **message);
void publish_id(struct gateway *g, struct publish_order *order, struct slice idempotency_key);
void publish_on_pack(struct gateway *g, struct call *call, const struct message *m);
void publish_on_nack(struct gateway *g, struct call *call, const struct message *m);
void publish_router_up(struct gateway *g);
void publish_router_lost(struct gateway *g, uint32_t peer);
void publish_destroy(struct gateway *g, struct call *call);
/* How long to wait before the next attempt: `wished_ms` as the refusal said, 0: longer each time.
 */
uint64_t retry_delay_ms(struct gateway *g, uint32_t attempts, uint64_t wished_ms);

/* ---- publish_filter.c: whom a publish is for ---- */
/* Appends the filter that the query, or the members of a frame, ask for. NULL: fine, else the tag,
 * with a message. */
const char *filter_of_query(struct slice query, struct strbuf *out, const char **message);
const char *filter_of_arrays(struct json_value tags, struct json_value to, struct json_value except,
                             struct strbuf *out, const char **message);

/* ---- call_route.c: what is asked of rooms with handlers ---- */
struct call_order {
    enum call_verb verb;
    struct slice key;
    struct slice name;  /* VERB_METHOD: the method; VERB_CONNECTIONS: a tag, empty: all */
    struct slice input; /* JSON, empty: none */
    struct slice ref;   /* stoa.v1: raw JSON; data NULL: none given */
    bool by_session;    /* answered on the session (call_done), not by HTTP */
    bool typed;         /* the input is {"json","meta"} (proto/typed.h) */
    bool idempotent;    /* the client gave a key */
    uint8_t msg_id[16]; /* room_call_check sets it */
};
/* Checks, and sets the id. NULL: fine, else the tag, with a message. */
const char *room_call_check(struct gateway *g, struct call_order *order,
                            struct slice idempotency_key, const char **message);
/* Sends. NULL: it will be answered, else tag and message. */
const char *room_call_begin(struct gateway *g, uint64_t client, const char *cors,
                            const struct call_order *order, const char **message);
void room_call_on_result(struct gateway *g, struct call *call, const struct message *m);
void room_call_on_nack(struct gateway *g, struct call *call, const struct message *m);
void room_call_peer_down(struct gateway *g, struct call *call);
void room_call_destroy(struct gateway *g, struct call *call);

/* ---- identity.c: who asks ---- */
/* What is said of every token that is not good here, and is not over: who guesses learns nothing.
 */
#define TOKEN_NO_GOOD "the token is not valid here: get a new one"
/* Who asks by this request: *who is a reference (NULL in mode none). NULL: fine, else the error's
 * tag with a constant message. */
const char *identity_of_request(struct gateway *g, const struct http_request *request,
                                struct identity **who, const char **message);
/* The same by a token's text, as it stands in a frame. */
const char *identity_of_token(struct gateway *g, struct slice token, struct identity **who,
                              const char **message);
/* Whether the request brings a token, good or bad. False in mode none. */
bool request_has_token(const struct gateway *g, const struct http_request *request);
/* Whether it is in force now: clock and revocations. NULL: fine, else tag ("Unauthorized",
 * "TokenExpired", "Busy") and message. */
const char *identity_judge(struct gateway *g, const struct identity *who, const char **message);
/* The session is this identity's from now on (takes the reference, NULL: nobody is asked); its end
 * is enforced on a timer: dialect->expired. */
void session_identify(struct gateway *g, struct session *s, struct identity *who);
/* It is not in force any longer: the session, or the request that was to open it, ends with that.
 * `reason` is of a close frame, `message` of an answer. */
void session_unidentify(struct gateway *g, struct session *s, const char *tag, const char *reason,
                        const char *message);
/* The same for a subscription with a token of its own, from now until subscription_unidentify. */
void subscription_identify(struct gateway *g, struct subscription *sub, struct identity *who);
void subscription_unidentify(struct gateway *g, struct subscription *sub);
/* Whether a frame of the session may do this with the key: by the socket's token, or by the one
 * that came with the key. `method` is for RIGHT_CALL. NULL: fine, else tag and message. */
const char *session_refusal(const struct gateway *g, const struct session *s, enum right right,
                            struct slice key, struct slice method, const char **message);
/* The session's token is renewed: takes the reference, or refuses it with tag and message.
 * Subscriptions that it does not cover end. */
const char *session_renew(struct gateway *g, struct session *s, struct identity *who,
                          const char **message);
void identity_init(struct gateway *g);
void identity_stop(struct gateway *g);

/* ---- revoked.c: what was revoked ---- */
void revoked_begin(struct gateway *g); /* tokens are asked for: follows the key */
void revoked_stop(struct gateway *g);
bool revoked_caught_up(const struct gateway *g); /* once at least, or nobody is asked */
/* NULL: it is not revoked, as far as can be known; else tag and message. */
const char *revoked_judge(const struct gateway *g, const struct identity *who,
                          const char **message);

/* ---- routes ---- */
struct exchange {
    struct gateway *g;
    uint64_t client;
    const struct http_request *request; /* NULL: a frame of a session */
    struct identity *who;               /* once exchange_who was asked; one reference */
    bool asked;
    struct strbuf cors; /* header lines, NUL-terminated */
    struct strbuf key;
    struct slice tail;                 /* prefix routes: the path behind the prefix, raw */
    const char *replay;                /* when the request names no start; NULL: none */
    const struct gateway_route *route; /* of the configuration; NULL: a built-in one */
    struct strbuf id;                  /* uploadista: what stands for "{id}" */
    struct viewer *viewer;             /* uploadista: for the session; owned */
};
const char *exchange_cors(struct exchange *x);
void exchange_error(struct exchange *x, const char *tag, const char *message);
void exchange_json(struct exchange *x, struct slice body);
/* Finds out who asks, into x->who; answers and returns false when nobody is let in by this token.
 */
bool exchange_who(struct exchange *x);
/* The same, but a request without a token is let in, without a right (x->who: g->nobody). */
bool exchange_maybe_who(struct exchange *x);
/* Whether whoever asks may do this with the key; else answers. */
bool exchange_allow(struct exchange *x, enum right right, struct slice key);
/* The same with all keys that begin so; an empty beginning: every key there is. */
bool exchange_allow_all(struct exchange *x, enum right right, struct slice beginning);
/* The key from the query (`key` only) into x->key; answers and returns false when there is none
 * or the right is missing. */
bool exchange_key(struct exchange *x, enum right right);
/* Checks and grants x->key. */
bool exchange_admit(struct exchange *x, enum right right);
bool access_check(struct exchange *x); /* access.c: Origin and Host; fills x->cors */
/* `after`, `replay`, Last-Event-ID; answers and returns false when malformed. */
bool start_from_request(struct exchange *x, bool stream, struct start *start);
/* A number parameter; false: malformed or outside (answered). Absent: *out stays. */
bool exchange_number(struct exchange *x, const char *name, uint64_t least, uint64_t most,
                     uint64_t *out);

struct slice key_type(struct slice key); /* what stands before ':', `events` without one */
bool type_declared(const struct gateway *g, struct slice type);
const struct gateway_type *type_of_key(const struct gateway *g, struct slice key);
/* The type of the key if its rooms have a handler, else NULL. */
const struct gateway_type *type_with_handler(const struct gateway *g, struct slice key);
bool type_presence(const struct gateway *g, struct slice key); /* it counts members */
/* Raw socket or event stream of x->key, a key of the type `events`: other types have rules of
 * their own, which only routes that serve them know. */
void route_events(struct exchange *x);
/* Whether whoever's route this is serves the type of x->key; else answers. */
bool exchange_serves(struct exchange *x);
void upgrade_required(struct exchange *x, const char *message);
/* Whether a configured route has this path; fills x->route, x->key, x->replay. */
bool own_route_find(struct exchange *x);
/* Builds x->key by x->route; of the orpc dialect x->id is the channel. False: it cannot be. */
bool own_route_key(struct exchange *x);
/* x->route, or the usual one (NULL). */
void route_orpc(struct exchange *x);
void own_route_run(struct exchange *x); /* a GET of it */
void route_socket(struct exchange *x, const struct dialect *dialect, const struct start *start);
void route_publish(struct exchange *x);
void route_log(struct exchange *x);              /* x->key is set */
void route_purge(struct exchange *x);            /* x->key is set */
void route_connections(struct exchange *x);      /* x->key is set */
void route_close(struct exchange *x);            /* x->key is set */
void route_room_send(struct exchange *x);        /* x->key is set, of a type with a handler */
void route_room_broadcast(struct exchange *x);   /* as above */
void route_room_alarm(struct exchange *x);       /* as above */
void route_room_state(struct exchange *x);       /* as above */
void route_room_connections(struct exchange *x); /* as above */
void route_room_presence(struct exchange *x);    /* as above, and it counts members */
void route_room_method(struct exchange *x, struct slice raw);
void route_revoke(struct exchange *x);
void route_keys(struct exchange *x);
void route_status(struct exchange *x);
void route_top(struct exchange *x);
void route_quarantine(struct exchange *x);
void route_room_release(struct exchange *x);

/* ---- answers to log_route.c, ask_route.c ---- */
void log_on_replay(struct gateway *g, struct call *call, const struct message *m);
void log_on_nack(struct gateway *g, struct call *call, const struct message *m);
void log_peer_down(struct gateway *g, struct call *call);
void log_destroy(struct gateway *g, struct call *call);
void purge_on_pack(struct gateway *g, struct call *call, const struct message *m);
void purge_on_nack(struct gateway *g, struct call *call, const struct message *m);
void purge_peer_down(struct gateway *g, struct call *call);
void purge_destroy(struct gateway *g, struct call *call);
void ask_on_answer(struct gateway *g, struct call *call, const struct message *m);
void ask_peer_down(struct gateway *g, struct call *call);
void ask_on_ask(struct gateway *g, uint32_t peer, const struct message *m);
void ask_destroy(struct gateway *g, struct call *call);

#endif
