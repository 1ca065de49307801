/* CORE. The shard's state and what its files call of each other. Nobody outside shard/ includes it.
 *
 *   shard.c     life, packets in, the turn        publish.c  intake and decision of a publish
 *   commit.c    the transaction of a turn          deliver.c  subscribers, credit, DELIVER, RESYNC
 *   replay.c    positions, misses, pages           trim.c     retention, removal, expiry of rooms
 *   recover.c   the scan at start                  ask.c      questions of operators
 *   rooms.c     the table of rooms, slots, floors   actors.c  rooms with handlers, all of them
 *   cold.c      rooms of which only the row matters
 *   rate.c      how much may come to a room        reboot.c   gateways that start anew
 *   quarantine.c  rooms whose code is not run     watch.c    how long code runs
 *
 * The order of a turn is the promise of the shard:
 *   decide (memory changes, undo is noted) -> trim -> commit -> settle -> answers, DELIVERs
 *                                                        \-> rollback -> NACK DISK
 * Between decide and settle no packet is handled, so nobody ever reads what is not on disk. */
#ifndef STOA_SHARD_STATE_H
#define STOA_SHARD_STATE_H

#include "common/map.h"
#include "common/rng.h"
#include "shard/fifo.h"
#include "shard/handler.h"
#include "shard/room.h"
#include "shard/shard.h"
#include "shard/vec.h"

struct type {
    char *name; /* owned */
    size_t name_size;
    struct retention retention;
    double rate;             /* of all that comes to a room, a second; 0: no limit */
    struct handler *handler; /* borrowed; NULL: events */
    bool presence;
    struct metric *errors[PHASE_COUNT];
    struct metric *seconds[PHASE_COUNT]; /* NULL: nobody watches */
    uint8_t class_no;                    /* of new rooms */
    uint32_t rooms[STORE_CLASSES]; /* rooms of this type by the class that they were born into */
};

/* A gateway, router or publisher whose link is up. */
struct client {
    enum role role;
    uint32_t life;
    uint16_t round;    /* of complete lists (SUBSYNC full) */
    bool listing;      /* in the middle of one */
    int64_t since_ns;  /* gateways: when this boot of it was first heard, as far as known */
    uint64_t granted;  /* packet bytes that it takes since HELLO */
    struct vec dirty;  /* struct room *: RESYNC is due; room->dirty_refs counts it */
    struct vec parked; /* struct parked: pages that wait for credit */
};

/* A gateway's link that is down, while its connections may be waited for. */
struct past {
    uint32_t life; /* of the link */
    uint64_t boot;
    int64_t since_ns; /* client.since_ns */
    int64_t heard_ns; /* its last word */
    int64_t lost_ns;
    bool over; /* another boot has taken its place */
    char name[65];
};

struct parked {
    uint64_t cid;
    struct msg_replay_req request;
    struct buf *key; /* owned */
};

enum answer_kind { ANSWER_PACK, ANSWER_NACK, ANSWER_REPLY };

/* What a room with a handler says, its bytes included. */
struct reply {
    struct message m;
    uint64_t waiter;  /* RESULT: for a run of this shard; 0: for the asker */
    uint64_t durable; /* INPUT_ACK: the counter if the turn fails */
    size_t used, size;
    uint8_t bytes[];
};

/* An answer to a call with an id. */
struct done {
    struct list by_age; /* in shard->dones, oldest first */
    struct room *room;  /* borrowed: it stays while it has any */
    uint64_t room_id;   /* with the id: the key */
    uint8_t msg_id[16];
    int64_t until_ms;
    struct buf *value; /* of its row, while that is not on disk; else NULL */
};

struct answer { /* leaves after the commit */
    struct asker asker;
    struct room *room;
    enum answer_kind kind;
    enum nack_code code;
    uint64_t expected;
    uint64_t retry_ms;
    uint64_t epoch, seq, count;
    bool dup;
    bool uncounted;      /* not a publish */
    struct reply *reply; /* owned */
};

struct staged { /* an event of the running turn */
    struct event_item item;
    uint32_t next; /* place + 1 of the room's next one, 0: last */
};

struct stage { /* a room of the running turn, and how it was before */
    struct room *room;
    uint64_t room_id, epoch, head, floor, gone, retained_bytes, transient_bytes;
    uint32_t transients, rows;
    int64_t touched;
    struct bucket allowance;
    uint8_t floor_reason;
    uint32_t records;     /* pushed to its index */
    uint32_t ids;         /* added to its dedupe */
    uint32_t first, last; /* staged events, place + 1 */
};

struct pid_before {
    struct room *room;
    uint64_t pid; /* the key: before.pid is 0 when it was unknown */
    struct dedupe_pid before;
};

struct gone { /* records of a room that the running transaction deletes */
    struct room *room;
    uint64_t upto;
    int64_t ts;
    bool by_age; /* from the oldest end of a class */
};

struct turn {
    bool open;                      /* the store's transaction */
    bool failed;                    /* ERR_NO_SPACE on the way */
    bool asked;                     /* publishers' writes were tried, not trims alone */
    size_t events, bytes;           /* taken from FIFOs */
    int64_t code_ns;                /* rooms' code has run for */
    size_t durable;                 /* events appended */
    size_t writes;                  /* of any kind */
    struct vec answers;             /* struct answer */
    struct vec staged;              /* struct staged */
    struct vec stages;              /* struct stage */
    struct vec pids;                /* struct pid_before */
    struct vec ops;                 /* struct op *, owned: payloads live until delivered */
    struct vec gone;                /* struct gone */
    struct vec removed;             /* struct room *: taken out of `removals` */
    struct vec expired;             /* struct cold_room *: rows deleted */
    struct vec actors;              /* struct actor *: to be written */
    struct vec kept;                /* void *, owned: what staged events point into */
    struct vec dones;               /* struct done *: new */
    size_t dones_gone;              /* of the oldest end of shard->dones */
    bool joined;                    /* there is a JOINED among the answers */
    int64_t trim_ts[STORE_CLASSES]; /* newest record trimmed, 0: none */
    uint64_t retained_events, retained_bytes; /* before */
};

struct ask_wait;   /* ask.c */
struct quarantine; /* quarantine.c */

struct shard_metrics {
    struct metric *publish[16]; /* by enum publish_result */
    struct metric *commit_events, *retained_bytes, *retained_events;
    struct metric *rooms_stored, *rooms_cold, *rooms_subscribed;
    struct metric *slots_owned;
    struct metric *missed[MISS_EPOCH + 1];
    struct metric *deliveries, *resyncs, *orphans, *damaged;
    struct metric *alarms_dead, *undecoded;
};

enum publish_result {
    RESULT_OK,
    RESULT_DUPLICATE,
    RESULT_EPHEMERAL,
    RESULT_REFUSED, /* + enum nack_code */
};

struct shard {
    struct hub *hub;
    struct store *store; /* borrowed */
    struct log *log;
    struct metrics *metrics;
    struct shard_metrics metric;
    struct hub_self self;
    struct rng rng;
    uint64_t slot_seed;
    uint64_t map_seed;
    uint64_t payload_max_bytes;
    struct tick now;
    int64_t clock_ms; /* hybrid: never runs backwards, not even over a restart */

    struct type types[SHARD_TYPES_MAX];
    size_t n_types;

    uint64_t slot_epoch[SLOT_COUNT]; /* 0: not ours */
    unsigned slots_owned;

    struct map *rooms;    /* by key; owns */
    struct map *by_id;    /* those of them with an epoch */
    struct map *cold;     /* struct cold_room by key; owns. A key is in one of both */
    struct list ready;    /* rooms with queued ops */
    struct heap removals; /* rooms by the time when their oldest record may go, ms */
    size_t rooms_subscribed;
    uint64_t retained_events, retained_bytes;

    struct client *clients[PEERS_MAX + 1]; /* owned; NULL: not up */
    uint32_t lives;
    struct vec past; /* struct past */

    uint64_t next_lsn;
    int64_t class_floor_ts[STORE_CLASSES]; /* messages first sent by then are stale, if unknown */
    int64_t trim_ts[STORE_CLASSES];        /* durable part of it */
    struct turn turn;
    bool has_space;
    int64_t full_until_ns; /* a commit found no space: nothing is appended before */
    bool draining;
    int64_t trim_due_ns;      /* next look at the oldest ends */
    int64_t removal_pause_ns; /* no removal before: the last transaction of trims alone failed */
    int64_t expiry_due_ns;    /* next stretch of the walk over cold rooms */
    size_t expiry_cursor;
    int64_t cold_due_ns; /* next stretch of the walk for rooms to put away */
    size_t cold_cursor;

    struct list actors;    /* rooms with handlers in memory, longest unused first */
    struct heap alarms;    /* of rooms: wall clock, ms */
    struct heap confirms;  /* of rooms: ns */
    struct map *waits;     /* runs that wait, by number; owned by their actors */
    struct heap waits_due; /* ns */
    uint64_t last_wait;
    struct map *done_by_id; /* struct done, owned */
    struct list dones;
    int64_t start_ns;
    uint64_t turns;
    uint64_t alarms_dead;
    struct quarantine *quarantine;
    struct shard_watch watch;
    struct strbuf refused; /* the reload that was not taken, why; empty: all were */

    struct map *asks; /* by cid: struct ask_wait, owned */
    uint32_t last_ask;

    struct vec scratch;    /* struct event_item or struct mark, within one call */
    struct strbuf encoded; /* one DELIVER for several gateways */
    struct strbuf row;     /* one value, within one call */
    uint64_t commits, published;
};

/* ---- rooms.c ---- */
struct room *rooms_find(struct shard *s, struct slice key); /* a cold one is opened */
struct room *rooms_open(struct shard *s, struct slice key, uint16_t slot); /* finds or creates */
/* Into the table, with its type; the class is the room's. */
void rooms_add(struct shard *s, struct room *room);
void rooms_free(struct shard *s, struct room *room);
/* Frees the room if nothing needs it: no event ever, nobody subscribed, nothing queued. */
void rooms_drop_if_blank(struct shard *s, struct room *room);
void rooms_birth(struct shard *s, struct room *room, uint64_t room_id, uint64_t epoch);
void rooms_unbirth(struct shard *s, struct room *room);
void rooms_retype(struct shard *s, struct room *room);
void types_set(struct shard *s, const struct shard_type *types, size_t n_types);
void types_free(struct shard *s);
const struct retention *room_retention(const struct shard *s, const struct room *room);
const struct retention *key_retention(const struct shard *s, struct slice key);
struct handler *room_handler(const struct shard *s, const struct room *room); /* NULL: events */
/* How long ids of its publishes are remembered; INT64_MAX: for ever. */
int64_t room_window_ms(const struct shard *s, const struct room *room);
/* The shortest of all types: what WELCOME announces. */
int64_t types_window_ms(const struct shard *s);
int64_t class_window_ms(const struct shard *s, unsigned class_no);
/* Unknown messages first sent at or before it are stale. 0: none are. */
int64_t room_floor_ts(const struct shard *s, const struct room *room);
void room_floor_raise(struct shard *s, struct room *room, uint64_t to, enum miss_reason reason);
/* Applies retention: what is over age, count or bytes now is below the floor. */
void room_retain_exactly(struct shard *s, struct room *room);
void room_row(const struct room *room, struct store_room *row);
bool slot_owned(const struct shard *s, uint16_t slot);
/* The message's slot if this shard serves it; else the code to refuse with. A higher epoch than
 * ours fences the slot: we stop serving it. */
enum nack_code slot_check(struct shard *s, const struct message *m, uint16_t *slot);

/* ---- reboot.c ---- */
void reboot_up(struct shard *s, uint32_t peer, const struct peer_info *info); /* a gateway is */
void reboot_down(struct shard *s, uint32_t peer); /* and what came by it is unconfirmed */
/* Whether nobody will confirm what came by this link. */
bool reboot_is_over(const struct shard *s, uint32_t life);

/* ---- rate.c ---- */
/* Takes `n` of what the room may get, within its turn. Else *retry_ms says when it may be asked
 * again, and nothing is taken. */
bool room_rate_take(struct shard *s, struct room *room, uint32_t n, uint64_t *retry_ms);
/* Whether forgetting the room lets nobody say more than its type's rate. */
bool room_rate_forgets(const struct shard *s, const struct room *room);

/* ---- publish.c ---- */
void publish_intake(struct shard *s, uint32_t peer, const struct message *m, struct buf *packet);
void purge_intake(struct shard *s, uint32_t peer, const struct message *m);
void publish_decide(struct shard *s, struct op *op);
void metrics_publish(struct shard *s, unsigned result, uint64_t n);
struct asker asker_of(const struct shard *s, uint32_t peer, const struct message *m);
/* The room has an id, an epoch and a row that says `head`. False: no space. */
bool publish_born(struct shard *s, struct room *room, uint64_t head);
/* Appends an event to the log and to what is delivered; sets prev and seq. `record` says what the
 * item does not: message id, publisher, batch. False: no space. */
bool publish_append(struct shard *s, struct room *room, struct event_item *item,
                    struct store_record *record);
/* Delivered behind the commit, kept nowhere. */
void publish_ephemeral(struct shard *s, struct room *room, struct event_item *item);
/* Nothing of what is retained can be read any more. */
void publish_purge(struct shard *s, struct room *room);
uint32_t payload_flags(struct slice payload); /* EVENT_JSON, EVENT_UTF8 */

/* ---- commit.c ---- */
struct stage *turn_stage(struct shard *s, struct room *room);
struct answer *turn_answer(struct shard *s, const struct op *op);
bool reply_fails(struct reply *reply); /* false: NACK DISK says it */
void reply_send(struct shard *s, const struct answer *a);
struct answer *turn_reply(struct shard *s, struct room *room, struct asker asker,
                          struct reply *reply);
void turn_note_pid(struct shard *s, struct room *room, uint64_t pid);
/* Opens the transaction if it is not. False: no space, the turn fails. */
bool turn_begin(struct shard *s);
/* Notes the result of a store's call. False: no space, the turn fails. */
bool turn_check(struct shard *s, int code);
/* Commits or rolls back and lets out what was waiting for it. */
void turn_finish(struct shard *s);
void turn_free(struct shard *s);
void send_nack(struct shard *s, struct asker asker, struct slice key, uint16_t slot,
               enum nack_code code, uint64_t expected);

/* ---- deliver.c ---- */
void deliver_stage(struct shard *s, const struct stage *stage);
void deliver_sub(struct shard *s, uint32_t peer, const struct message *m);
void deliver_unsub(struct shard *s, uint32_t peer, const struct message *m);
void deliver_subsync(struct shard *s, uint32_t peer, const struct message *m);
void deliver_credit(struct shard *s, uint32_t peer, const struct message *m);
void deliver_close(struct shard *s, uint32_t peer, const struct message *m);
void deliver_client_gone(struct shard *s, uint32_t peer);
/* Drops the client's list of dirty rooms and its parked pages. */
void deliver_client_free(struct shard *s, struct client *client);
bool deliver_has_credit(const struct shard *s, uint32_t peer, size_t bytes);
/* Bytes of an item in a message's head, exactly or a little more. */
size_t item_head_bytes(const struct event_item *item);

/* ---- replay.c ---- */
struct resume {
    uint64_t base; /* what follows is given from here */
    bool passed;   /* nothing that the reader could have got lies between its position and base */
    bool missed;
    uint64_t miss_from, miss_to;
    enum miss_reason reason;
};
/* Where a reader at (epoch, seq) goes on in a room whose retention was just applied. */
struct resume replay_position(const struct room *room, enum replay_mode mode, uint64_t epoch,
                              uint64_t seq);
void replay_answer(struct shard *s, uint32_t peer, const struct message *m);
void replay_unpark(struct shard *s, uint32_t peer);

/* ---- trim.c ---- */
/* Adds deletions to the turn's transaction (or opens one); true: more could go at once. */
bool trim_step(struct shard *s, bool idle);
void trim_settle(struct shard *s);
void trim_rollback(struct shard *s);
void trim_schedule(struct shard *s, struct room *room);
int64_t trim_deadline(const struct shard *s);
/* Forgets the oldest ids of a room that has too many. */
void trim_ids(struct room *room);

/* ---- cold.c ---- */
void cold_create(struct shard *s);
void cold_destroy(struct shard *s);
struct room *cold_open(struct shard *s, struct slice key); /* NULL: no cold room of this key */
/* Puts away those of the next `rooms` in the walk that are cold, not touched for idle_ms. Between
 * turns. Returns false at the end of the walk; the next one begins anew. */
bool cold_walk(struct shard *s, size_t rooms, int64_t idle_ms);
void cold_step(struct shard *s);
int64_t cold_deadline(const struct shard *s);
void cold_free(struct shard *s, struct cold_room *cold);

/* ---- recover.c ---- */
void recover(struct shard *s, const struct shard_options *options);

/* ---- actors.c: rooms with handlers ---- */
void actors_create(struct shard *s);
void actors_destroy(struct shard *s);
void actor_row(struct shard *s, const struct store_row *row); /* found at start */
/* A JOIN, LEAVE, INPUT or CALL. */
void actors_intake(struct shard *s, uint32_t peer, const struct message *m, struct buf *packet);
/* What is due goes into FIFOs. */
void actors_due(struct shard *s);
void actors_decide(struct shard *s, struct op *op);
/* Rows of all actors that the turn touched, and answers that nobody asks for any more. */
void actors_write(struct shard *s);
void actors_settle(struct shard *s);
void actors_rollback(struct shard *s);
/* Rooms that had nothing to do for long leave memory. */
void actors_idle(struct shard *s);
void actors_client_gone(struct shard *s, uint32_t peer, struct room *room);
void actors_retyped(struct shard *s, struct room *room); /* its handler may be another one now */
/* The answer to a call to a room of another shard: RESULT or NACK. */
void wait_from_afar(struct shard *s, const struct message *m);
int64_t actors_deadline(const struct shard *s);
void actors_validate(const struct shard *s, const struct room *room);
/* ---- done.c ---- */
struct done *done_find(struct shard *s, const struct room *room, const uint8_t id[16]);
/* The row's value, in `out`; false: it is damaged. */
bool done_read(struct shard *s, const struct done *done, struct strbuf *out);
void done_add(struct shard *s, struct room *room, const uint8_t id[16], struct slice value);
void done_row(struct shard *s, struct room *room, const struct store_row *row);
void done_forget(struct shard *s); /* within a turn: rows that are too old */
void done_settle(struct shard *s);
void done_rollback(struct shard *s);

/* ---- ask.c ---- */
void ask_answer(struct shard *s, uint32_t peer, const struct message *m);
void ask_collect(struct shard *s, uint32_t peer, const struct message *m);
void ask_tick(struct shard *s);
void ask_client_gone(struct shard *s, uint32_t peer);
int64_t ask_deadline(const struct shard *s);
void ask_free(struct shard *s);

/* ---- shard.c ---- */
void shard_claim(struct shard *s, uint32_t peer);
void shard_claim_all(struct shard *s);
/* Whether the asker's link is still the one that it asked on. */
bool asker_is_there(const struct shard *s, struct asker asker);
static inline int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

#endif
