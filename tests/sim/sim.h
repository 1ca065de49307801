/* CORE. The simulator's world: the shipped cores of shards, routers, gateways and libstoa in one
 * thread and virtual time. Everything that a seed decides comes from one generator, so that a seed
 * is a run, to the byte.
 *
 *   main.c     seeds, mutants, the command line       faults.c   the fault dice and the storm
 *   world.c    time and events, one whole run         readers.c  subscribers: raw, stoa.v1, SSE
 *   process.c  processes: start, turn, crash, clock   posters.c  publishers over HTTP and stoa.v1
 *   net.c      connections and their faults           library.c  publishers with libstoa
 *   disk.c     disks with crashes around commits      intruder.c valid messages in the wrong place
 *   socket.c   clients' connections to gateways       visitors.c requests to every route
 *   guests.c   what one seed in four has besides      asks.c     what visitors ask and say
 *   wild.c     peers that are no friends              made.c     rooms with a handler
 *   truth.c    what is durable; own checks            final.c    the log as it is read at the end
 *   tally.c    rooms that keep an account             members.c  who uses them
 *   watchers.c who asks who is there
 *
 * Time is one heap of events; whatever happens at once happens in the order of the heap, which is a
 * function of the run so far. Processes turn a drawn time after their input, so that inputs of one
 * turn collect as they do in a loop. */
#ifndef STOA_TESTS_SIM_H
#define STOA_TESTS_SIM_H

#include <stdio.h>
#include <stdlib.h>

#include "client/call.h"
#include "client/publisher.h"
#include "common/hash.h"
#include "common/heap.h"
#include "common/list.h"
#include "common/mem.h"
#include "common/rng.h"
#include "gateway/gateway.h"
#include "history.h"
#include "router/router.h"
#include "shard/handler.h"
#include "shard/shard.h"
#include "shard/store_mem.h"
#include "shard/vec.h"

#define SLOT_SEED 42
#define CLUSTER 7
#define WALL_START_MS INT64_C(1700000000000)
#define MS NS_PER_MS
#define KEYS_MAX 6
#define SHARDS_MAX 3
#define ROUTERS_COUNT 2
#define GATEWAYS_MAX 3
#define LIBRARIES_MAX 2
#define PROCESSES_MAX (SHARDS_MAX + ROUTERS_COUNT + GATEWAYS_MAX + LIBRARIES_MAX + 2)
#define CONNS_MAX 48
#define READERS_MAX 10
#define POSTERS_MAX 6
#define VISITORS_MAX 6
#define GUEST_KEYS 12 /* of the guests' own */
#define ASK_HEADERS_MAX 2
#define ORIGIN_ALLOWED "http://localhost:3000"
#define PARTS_MAX 4
#define CONFLATES 3
#define TYPES_COUNT 2
#define COUNTERS 2    /* rooms that count: made.c */
#define TALLY_ROOMS 3 /* the last one is quiet: nobody joins it */
#define MEMBERS_MAX 6
#define CALLERS_MAX 5
#define WATCHERS_MAX 4
#define WATCHED_ROOMS 2
#define MADE_TEXT "{\"made\":"
#define LOST_MAX 4

enum kind { SHARD, ROUTER, GATEWAY, LIBRARY, INTRUDER, IMPOSTOR, KINDS };

struct world;
struct process;

/* ---- time ---- */

struct event {
    struct heap_node node;
    void (*fire)(struct event *e);
};

/* ---- what a seed draws before anything happens ---- */

enum trouble {
    FAULT_RESET,
    FAULT_CUT,
    FAULT_ISOLATE,
    FAULT_SLOW,
    FAULT_KILL,
    FAULT_FUSE,
    FAULT_COMMIT,
    FAULT_PAUSE,
    FAULT_FULL,
    FAULT_IO,
    FAULT_CLOCK,
    FAULT_LEAP,
    FAULT_DRAIN,
    FAULT_EMPTY,
    FAULT_ROLLBACK,
    FAULT_RETYPE,
    FAULTS
};

struct dice {
    unsigned count[KINDS];
    unsigned keys, readers, posters;
    int64_t storm_ns;
    int64_t delay_ns, jitter_ns;   /* of a packet */
    int64_t think_ns;              /* of a process, at most */
    int64_t pace_ns;               /* mean time between publishes of one publisher */
    unsigned loss, twice, shuffle; /* of 1000 packets; all 0: a connection is a FIFO */
    unsigned pipe_max;             /* packets in a pipe: the high-water mark */
    unsigned weight[FAULTS];
    int64_t fault_ns; /* mean time between faults */
    struct retention retention[TYPES_COUNT];
    size_t payload_max;
    bool days;           /* pass on the shards' clocks: rows of idle rooms expire */
    unsigned fat;        /* of 1000 payloads that are of any size up to payload_max */
    size_t kernel_bytes; /* what a client's socket takes before bytes count as queued */
    size_t queue_factor; /* a queued byte counts as so many: small worlds, long queues */
    unsigned conflate, ephemeral, batch, idempotent, purge; /* of 1000 publishes */
};

/* ---- the network ---- */

struct parcel {
    struct parcel *next;
    int64_t at_ns;
    struct buf *bytes;
};

struct pipe {
    struct event arrival;
    struct conn *conn;
    bool to_dialer;
    bool cut;
    struct parcel *first;
    unsigned count;
    int64_t last_ns;
    int64_t slow_until_ns;
    unsigned slow_factor;
};

struct conn {
    struct event heal;   /* the end of a cut */
    struct event change; /* the next attempt to connect, or the end of a silent death */
    struct world *world;
    struct process *dialer, *listener;
    uint32_t dialed, accepted; /* numbers in the hubs; accepted 0: not heard of */
    bool connected, told;      /* told: the dialer's hub knows it */
    bool dead;                 /* the other side is gone and nobody said so */
    struct pipe to_listener, to_dialer;
};

/* ---- disks ---- */

enum commit_end { COMMIT_KEEPS, COMMIT_LOSES_AND_DIES, COMMIT_KEEPS_AND_DIES };

struct disk {
    struct store base;
    struct store *inner; /* store_mem; outlives the process */
    struct process *process;
    struct store *old;    /* a copy of it, to be put back one day; NULL: none */
    uint64_t old_lsn;     /* the copy holds what is below */
    bool fresh;           /* it holds no slots yet: they are granted */
    bool open;            /* a transaction is */
    bool granting;        /* the transaction grants them */
    unsigned commit_fuse; /* commits until `commit_end` happens, 0: never */
    enum commit_end commit_end;
    unsigned io_fuse; /* calls until one fails and the process ends, 0: never */
    int64_t full_until_ns;
    unsigned full_odds;  /* of 1000 calls that fail while it is full */
    bool full_seen;      /* has_space says so */
    int64_t clock_ms;    /* the latest wall clock that the shard was told */
    struct vec appended; /* struct fact of the open transaction */
    struct vec rooms;    /* struct row of it */
    struct vec removed;  /* uint64_t: lsns of it */
    struct vec expired;  /* uint64_t: room ids of it */
    struct vec by_lsn;   /* struct place of every record ever made durable */
    bool broken;         /* a call of the transaction failed: it must not be committed */
};

/* ---- processes ---- */

struct process {
    struct event wake, restart, resume;
    struct world *world;
    enum kind kind;
    unsigned index;
    char name[16];
    uint32_t who;
    uint64_t boots;
    uint8_t node_generation;
    bool up, paused, doomed, draining;
    unsigned fuse;                /* packets and writes until it dies, 0: none */
    int64_t ppm;                  /* its monotonic clock's drift */
    int64_t wall_ms, wall_tenths; /* offset, and rate in tenths */
    struct gateway *gateway;
    struct router *router;
    struct shard *shard;
    struct publisher *publisher;
    struct hub *hub;  /* an intruder's own, or an impostor's */
    int64_t noise_ns; /* when they say something next */
    bool stranger;    /* an impostor that does not even say that it is a shard */
    bool quiet;       /* an impostor that has claimed nothing since the storm */
    struct disk *disk;
    struct conn *conns[CONNS_MAX];
    unsigned n_conns;
};

/* ---- messages and the truth about them ---- */

struct fact { /* a durable event */
    uint32_t msg;
    uint16_t part, parts;
    uint16_t conflate;
    uint32_t size;
    int64_t ts;
    unsigned key;
    uint64_t room_id, seq, lsn;
};

struct row {
    uint64_t room_id, epoch, purged;
    unsigned key;
};

struct place {
    struct epoch_log *log;
    uint64_t seq;
};

struct epoch_log {
    uint64_t epoch, room_id;
    unsigned shard;
    struct vec facts;            /* struct fact by seq - 1 */
    uint64_t purged;             /* through this seq */
    uint64_t old_purged;         /* in the copy of its disk */
    uint64_t trimmed;            /* told to the oracle */
    uint64_t floor, upto, bytes; /* cursor of the bytes rule: bytes of (floor, upto] */
    uint64_t aged;               /* through this seq by age */
    bool lost;                   /* with its disk */
    bool expired;                /* the room's row is gone, a day after its last event */
};

struct key_truth {
    char name[24];
    struct position acked; /* some id that a publisher was told */
    uint32_t label;
    unsigned type;
    uint16_t slot;
    struct vec logs; /* struct epoch_log *: in order of birth */
};

/* Of a payload; a batch over HTTP is JSON. FORM_TYPED: around it, what oRPC publishes. */
enum form { FORM_JSON, FORM_TEXT, FORM_BYTES, FORM_TYPED };
/* Whom a message is for. Nobody has a name here: what is for some is for nobody who reads keys. */
enum whom { FOR_ALL, FOR_SOME, FOR_ALL_BUT_SOME, WHOM_COUNT };

struct msg {
    unsigned key;
    uint16_t parts, conflate;
    enum form form;
    enum whom whom;
    bool ephemeral, named; /* named: it has an idempotency key */
    bool maybe;            /* some try's outcome is open or was unknown */
    bool acked, refused;   /* refused: some try was surely not stored */
    bool by_request;       /* over HTTP or stoa.v1 */
    bool forgotten;        /* its record is gone, and with it the memory of its id */
    uint32_t who;
    uint16_t stored;
    uint64_t epoch, last;           /* where it is stored */
    struct position lost[LOST_MAX]; /* and where it was, on disks that are no more; latest first */
    uint64_t acked_epoch, acked_seq;
    unsigned tries;
    int64_t first_ns;
};

/* ---- clients of gateways ---- */

struct socket;
struct socket_handler {
    void (*answered)(struct socket *s, unsigned status, struct slice body);
    void (*opened)(struct socket *s);
    void (*frame)(struct socket *s, struct slice payload);
    void (*stream)(struct socket *s, struct slice text); /* event stream: lines up to a blank one */
    void (*closed)(struct socket *s, unsigned code);
};

struct socket { /* lives in its owner */
    struct event read;
    struct world *world;
    const struct socket_handler *handler;
    uint64_t id; /* 0: unused */
    struct process *gateway;
    struct list node;      /* in the world's open sockets */
    struct strbuf in, out; /* out: said while the gateway was stopped, each ended by NUL */
    unsigned status;       /* answer that waits to be read */
    bool upgraded, established, opened, streaming, answered, ended;
    bool stalled;
    unsigned code;
    size_t counted; /* queued bytes as told */
    int64_t lag_ns; /* the client reads so late, at most */
};

struct position_held {
    struct position pos;
    bool known;
};

struct beginning {
    enum history_what start;
    struct position after;
    uint64_t number;
};

struct reader {
    struct event act;
    struct socket socket;
    struct world *world;
    unsigned index;
    uint32_t who;
    enum { READER_V1, READER_RAW, READER_SSE } dialect;
    unsigned keys; /* bits; raw and SSE: one */
    bool open;
    struct position_held held[KEYS_MAX];
    unsigned subscribed;              /* bits: a subscribe is in the history and not closed */
    struct beginning again[KEYS_MAX]; /* of a second sub of a key, until its verdict */
    unsigned anew;                    /* bits: one is under way */
    unsigned told;                    /* bits: the first word has come */
    unsigned leaving;                 /* bits: unsub is said */
    bool stubborn;                    /* reads nothing for long */
    int64_t woken_ns;                 /* when it last went on reading */
    int64_t stalled_ns;               /* since when */
    unsigned deceived;                /* bits: holds what a disk no longer does, and was not told */
    bool slow;                        /* has been so for as long as a gateway bears */
    struct position opened;           /* raw and SSE from now on: the log's end when "now" began */
    bool from_now;
    int64_t connected_ns;
    unsigned greedy; /* bits: has asked for all and got nothing yet */
};

struct poster {
    struct event act;
    struct socket socket;
    struct world *world;
    unsigned index;
    uint32_t who;
    bool v1; /* publishes by frames of one socket, else by requests */
    bool open, waiting, purging;
    uint32_t msg; /* being published, 0: none */
};

struct library {
    struct event act;
    struct process *process;
    struct world *world;
    uint32_t who;
    uint64_t pseq[KEYS_MAX];
};

struct ask {
    enum http_method method;
    const char *path, *query, *body;
    struct {
        const char *name, *value;
    } headers[ASK_HEADERS_MAX];
};

struct visitor {
    struct event act;
    struct socket socket;
    struct world *world;
    struct rng rng;
    bool talks; /* says frames, else asks */
    bool open;
    int64_t until_ns; /* a stream is left then */
    bool calls;       /* counts, again and again */
    unsigned room;
    uint64_t floor;
    const struct ask *asked; /* last */
};

struct orphan {
    struct process *gateway;
    uint64_t id;
};

struct truth {
    struct key_truth keys[KEYS_MAX];
    struct vec msgs; /* struct msg, from 1 */
};

/* ---- the world ---- */

struct counters {
    uint64_t events, packets, crashes, commits, lost_commits, acks, deliveries, duplicates, misses;
    uint64_t messages, faults[FAULTS], entries, steps, pauses, excused, ns;
    uint64_t rolled, put_back_told, put_back_untold; /* runs, readers */
};

struct world {
    uint64_t seed;
    bool verbose, failed, storm;
    bool rolled;  /* a disk was put back in time: promises are void, the oracle is not asked */
    bool excused; /* something known and listed happened: the oracle is not asked */
    char why[512];
    int64_t now_ns;
    uint64_t trace, fired;
    struct rng rng;
    bool guests; /* guests.c */
    struct rng odd;
    struct log log;
    struct handler made;
    struct vec told[COUNTERS]; /* uint64_t: counts */
    uint64_t highest[COUNTERS];
    struct tally *tally;       /* NULL: no guests */
    struct members *members;   /* likewise */
    struct watchers *watchers; /* likewise */
    struct heap events;
    struct dice dice;
    struct process processes[PROCESSES_MAX];
    unsigned n_processes;
    struct conn conns[CONNS_MAX];
    unsigned n_conns;
    struct disk disks[SHARDS_MAX];
    struct reader readers[READERS_MAX];
    struct poster posters[POSTERS_MAX];
    struct visitor visitors[VISITORS_MAX];
    struct library libraries[LIBRARIES_MAX];
    struct list sockets;
    uint64_t last_socket;
    struct vec orphans; /* struct orphan: the gateway has still to hear that they are gone */
    struct event fault, leap;
    bool skewed;     /* clocks have jumped, one by one */
    bool long_pause; /* of a process: every reader may look slow */
    int64_t lost_ns; /* when a disk was emptied last; -1: never */
    int64_t leap_ns; /* when a shard's clock last passed a window of ids at once; -1: never */
    struct truth truth;
    struct history *history;
    uint32_t conflates[WHOM_COUNT][CONFLATES + 1];
    struct metrics *metrics;
    struct counters *counters;
    struct message_arena arena; /* of traces */
};

#define TRACE(w, ...)                      \
    do {                                   \
        if ((w)->verbose)                  \
            world_trace((w), __VA_ARGS__); \
    } while (0)
#define OWNER_OF(e, type, member) ((type *)(void *)((char *)(e)-offsetof(type, member)))

/* world.c */
struct outcome { /* what a run told */
    bool failed;
    char why[512];
    uint64_t trace;
};
void world_run(uint64_t seed, bool verbose, struct history *history, struct metrics *metrics,
               struct counters *counters, struct outcome *run);
void world_trace(const struct world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void world_fail(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void event_set(struct world *w, struct event *e, int64_t in_ns);
void event_stop(struct world *w, struct event *e);
uint64_t draw(struct world *w, uint64_t bound); /* 0..bound-1; bound 0: 0 */
bool chance(struct world *w, unsigned of_thousand);
int64_t draw_ns(struct world *w, int64_t mean_ns); /* 0..2*mean */
void world_mix(struct world *w, const void *bytes, size_t size);
struct process *world_process(struct world *w, enum kind kind, unsigned index);
void world_run_for(struct world *w, int64_t ns);

/* process.c */
void processes_add(struct world *w);
void process_start(struct process *p);
void process_crash(struct process *p, const char *why);
void process_pause(struct process *p, int64_t ns);
void process_drain(struct process *p);
void process_soon(struct process *p);   /* an input came: a turn is due */
void process_settle(struct process *p); /* after a call of the core: dies if it is doomed */
bool process_runs(const struct process *p);
struct tick process_now(const struct process *p);
struct hub *process_hub(const struct process *p);

/* net.c */
void net_connect(struct world *w, struct process *dialer, struct process *listener,
                 uint32_t dialed);
int net_send(void *process, uint32_t peer, const void *packet, size_t size);
void net_forget(void *process, uint32_t peer);
void net_reset(struct conn *c, int64_t again_ns);
void net_cut(struct pipe *p, int64_t ns);
void net_up(struct process *p);
void net_down(struct process *p);
void net_resumed(struct process *p);
void net_free(struct world *w);
bool net_dead_process_sends(struct process *p); /* counts the fuse; true: nothing leaves */

/* disk.c */
void disk_create(struct disk *d, struct process *p);
void disk_destroy(struct disk *d);
void disk_empty(struct disk *d);
void disk_keep(struct disk *d);     /* makes the copy */
void disk_put_back(struct disk *d); /* and this puts it in place */
void disk_crashed(struct disk *d);

/* socket.c */
struct gateway_ports socket_ports(struct process *p);
/* NULL: bytes that the program cannot read as a request. */
bool socket_request(struct socket *s, struct process *gateway, const struct http_request *request);
void socket_say(struct socket *s, const char *text);
void socket_send(struct socket *s, struct slice bytes,
                 bool text); /* lost if its gateway is paused */
void socket_leave(struct socket *s);
void socket_unstall(struct socket *s);
void sockets_establish(struct process *gateway);
void sockets_resumed(struct process *gateway);
void sockets_down(struct process *gateway);
void socket_free(struct socket *s);
struct process *gateway_pick(struct world *w); /* NULL: none is up */
struct http_request request_make(enum http_method method, const char *path, const char *query);
void request_header(struct http_request *r, const char *name, const char *value);

/* The room types, with "made" if there are guests. Returns their number. */
size_t types_of(struct world *w, struct shard_type types[TYPES_COUNT + 1]);

/* made.c */
void made_begin(struct world *w);
void made_end(struct world *w);
void made_told(struct world *w, unsigned room, uint64_t floor, struct slice body);

/* tally.c: the first five are the handler's, for its rooms */
bool tally_is(const struct context *ctx);
bool tally_identify(struct world *w, struct slice request, struct persona *out);
enum run_end tally_run(struct world *w, struct context *ctx, const struct invocation *what,
                       struct run **run, struct strbuf *result, struct fault *fault);
enum run_end tally_resume(struct world *w, struct context *ctx, struct run **run,
                          struct strbuf *result, struct fault *fault);
void tally_begin(struct world *w);
void tally_end(struct world *w);
void tally_lost(struct process *shard); /* with its disk */
void tally_entry(struct world *w, unsigned room, struct history_entry e);
uint64_t tally_msg(struct world *w);              /* a new one */
void tally_failed(struct world *w, uint64_t msg); /* tried once, and told that it failed */
void tally_final(struct world *w);                /* gives the accounts to the oracle */

/* members.c */
void members_add(struct world *w);
void members_free(struct world *w);

/* watchers.c: the first two are the handler's, for the rooms that do nothing */
bool watchers_is(const struct context *ctx);
bool watchers_identify(struct slice request, struct persona *out);
void watchers_add(struct world *w);
void watchers_check(struct world *w);
void watchers_free(struct world *w);

/* guests.c, asks.c */
void guests_begin(struct world *w);
struct log *guests_log(struct world *w);
void guests_gateway(struct process *p, struct gateway_options *o);
void guests_turn(struct process *p);
enum form guests_form(struct world *w);
extern const struct ask asks[];
extern const char *const odd_origins[], *const odd_hosts[], *const frames[];
extern const size_t asks_count, odd_origins_count, odd_hosts_count, frames_count;
void ask_fill(struct world *w, struct rng *rng, const char *text, struct strbuf *out);

/* readers.c, posters.c, visitors.c, library.c, intruder.c */
void visitors_add(struct world *w);
void visitors_check(struct world *w);
void visitors_free(struct world *w);
void readers_add(struct world *w);
void readers_put_back(struct world *w, unsigned key, uint64_t epoch, uint64_t seq);
void readers_check(struct world *w); /* everybody is at the end */
void readers_free(struct world *w);
void posters_add(struct world *w);
void posters_free(struct world *w);
void library_up(struct process *p, const struct hub_ports *ports, const struct hub_self *self);
void library_down(struct process *p);
void library_turn(struct process *p);
/* Asks a room; `told` hears the outcome, also when the process dies. False: it does not run. */
bool library_ask(struct world *w, unsigned index, const struct call_order *order,
                 stoa_result_fn *told, void *arg);
void intruder_up(struct process *p, const struct hub_ports *ports, const struct hub_self *self);
void intruder_turn(struct process *p);
/* wild.c */
void wild_ports(struct process *p, struct hub_ports *ports);
void wild_noise(struct process *p, struct tick now);
int64_t wild_deadline(const struct process *p);
void impostor_up(struct process *p, const struct hub_ports *ports, const struct hub_self *self);
void impostor_turn(struct process *p);

/* faults.c */
void dice_roll(struct world *w);
void faults_begin(struct world *w);
void faults_heal(struct world *w);
const char *fault_name(enum trouble fault);

/* truth.c */
void truth_create(struct world *w);
void truth_destroy(struct world *w);
struct msg *truth_msg(struct world *w, uint32_t number);
uint32_t truth_draw(struct world *w, uint32_t who, bool ordered, bool named);
void truth_submit(struct world *w, uint32_t number, uint64_t pseq);
/* The payload of one event of a message: JSON, or what begins like it and is text, or bytes. */
void truth_payload(struct world *w, uint32_t number, unsigned part, struct strbuf *out);
bool truth_parse(struct slice payload, uint32_t *number, unsigned *part);
/* What an event's JSON has as data, or as base64; decoded into `out` there. */
struct slice truth_data(struct slice event, struct strbuf *out);
void truth_answer(struct world *w, uint32_t number, uint32_t who, enum history_what what,
                  struct position id, bool dup);
void truth_append(struct disk *d, const struct store_record *record);
void truth_room(struct disk *d, const struct store_room *row);
void truth_commit(struct disk *d);
void truth_abort(struct disk *d);
void truth_lost(struct disk *d);
void truth_kept(struct disk *d);
void truth_put_back(struct disk *d);
void truth_removed(struct disk *d, uint64_t lsn);
void truth_expired(struct disk *d, uint64_t room_id);
void truth_subscribe(struct world *w, uint32_t who, unsigned key, enum history_what start,
                     struct position after, uint64_t number);
struct verdict {
    enum history_what status;
    const struct position *head; /* NULL: not told */
    struct position from, to;
    enum history_reason reason;
};
void truth_verdict(struct world *w, uint32_t who, unsigned key, const struct verdict *v);
/* A verdict from the JSON of a `missed`; false: it is none. */
bool truth_missed(struct slice json, struct verdict *v);
/* `id` has no seq where the dialect tells none, and the epoch of what came before. True: it was a
 * stored event, and this is its id. */
bool truth_deliver(struct world *w, uint32_t who, unsigned key, struct position *id,
                   struct slice payload, bool first_of_all);
/* Whether the event stands in more than one history, of which one was lost. */
bool truth_doubtful(struct world *w, struct slice payload);
struct position truth_end(struct world *w, unsigned key); /* of the log, as it is on the disk */
/* The last event up to there that is for readers; seq 0: there is none. */
uint64_t truth_seen(struct world *w, unsigned key, struct position end);
/* Whether worlds of this kind publish what is for some, and typed payloads. */
bool truth_picky(const struct world *w);
/* Whether a reader that began at `end` may get `id` first. */
bool truth_follows(struct world *w, unsigned key, struct position end, struct position id);
void truth_allow_all(struct world *w);
void truth_close(struct world *w, uint32_t who, unsigned key); /* KEYS_MAX: all */
void truth_entry(struct world *w, enum history_op op, uint32_t who);
struct epoch_log *truth_log(struct world *w, unsigned key, uint64_t epoch);
uint64_t truth_floor(struct world *w, unsigned key, struct epoch_log *log); /* may be gone */
/* Tells the oracle that everything through `seq` may be gone, if that is so. */
void truth_allow(struct world *w, unsigned key, struct epoch_log *log, uint64_t seq);
bool json_id(struct slice object, const char *name, struct position *out);

/* final.c */
void final_check(struct world *w);

#endif
