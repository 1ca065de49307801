/* SHELL. A neutral load generator for WebSocket fan-out: one thread, one epoll, nothing of Stoa's
 * own protocol, so that every system is driven by the same code.
 *
 * Every payload published is {"wl":RUN,"r":ROOM,"s":SEQ,"t":NS,"p":"xxx..."} of exactly --size
 * bytes. t is CLOCK_MONOTONIC: with a --rate when it was meant to leave, so that a server that
 * stalls is charged for the wait; without one when it left. s counts from 1 in each room. A
 * subscriber finds "wl" anywhere in what it receives and takes the next four integers, so a server
 * may wrap or re-encode the payload as long as the order of its keys stays.
 *
 *   main.c        options; what follows what      phases.c     connect, publish, drain, replay
 *   subscriber.c  sockets that listen             delivery.c   what they receive, accounted
 *   publisher.c   who publishes: HTTP, WebSocket, TCP or a command, one line a publish
 *   link.c        sockets, upgrades, frames       template.c   texts with {room} and the like
 *   server.c      the servers' CPU and memory     report.c     histograms and the line of JSON */
#ifndef WSLOAD_LOAD_H
#define WSLOAD_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/strbuf.h"
#include "common/tick.h"

/* ---- options ---- */

#define INITS_MAX 8
#define PIDS_MAX 64
#define PAYLOAD_MAX_BYTES 60000

struct options {
    const char *url, *pub, *pub_command, *body, *pub_init, *ready, *room_format, *tokens;
    const char *inits[INITS_MAX];
    uint32_t n_inits, conns, rooms, size, pub_conns, pipeline, connecting, replay;
    int64_t count, window; /* count -1: as long as the duration */
    double rate, duration, warmup, drain, hold, connect_timeout, settle;
    int pids[PIDS_MAX];
    uint32_t n_pids;
    bool init_binary; /* inits are sent as binary frames */
    bool stream;      /* payloads may be packed or split over frames */
    bool spread;      /* any room on any publishing connection */
    bool no_pub;
};

/* ---- figures ---- */

/* Log-linear: 128 steps a power of two, less than 0.8 % off. */
#define HISTOGRAM_STEP_BITS 7
#define HISTOGRAM_SIZE ((44 - HISTOGRAM_STEP_BITS + 2) << HISTOGRAM_STEP_BITS)
struct histogram {
    uint64_t at[HISTOGRAM_SIZE], count, max, sum;
};

struct server_use {
    double cpu_s, rss_kib, pss_kib;
};

struct figures {
    struct histogram delivery, ack, connect;
    uint64_t opened, failed, closed;
    uint64_t ignored, gaps, dups, out_of_order;
    uint64_t delivered_all; /* without duplicates; of all that was published */
    uint64_t delivered;     /* published in the measured window or behind it */
    uint64_t delivered_window;
    uint64_t expected_all, expected;
    uint64_t published_all, published;
    uint64_t acked_all, acked_window;
    uint64_t bad_status, reconnects, backlog_max, stalls;
    int last_bad_status;
    uint64_t last_ns; /* the newest delivery */
    double connect_s, publish_s, self_cpu_s, wall_s, replay_s;
    struct server_use before, connected, held_from, held, begun, ended;
};

/* ---- texts ---- */

enum piece_kind {
    PIECE_TEXT,
    PIECE_ROOM,
    PIECE_INDEX,
    PIECE_TOKEN,
    PIECE_NUMBER,
    PIECE_PAYLOAD,
    PIECE_ESCAPED,
    PIECE_SIZE
};
#define PIECES_MAX 64
struct template
{
    struct {
        enum piece_kind kind;
        struct slice text;
    } pieces[PIECES_MAX];
    size_t count;
};

struct fill {
    struct slice room;
    uint64_t index, number;
    struct slice payload, token;
};

/* ---- links ---- */

struct target {
    bool http, websocket;
    char host[64];
    uint16_t port;
    struct template path;
};

enum link_kind { LINK_SUBSCRIBER, LINK_HTTP, LINK_WEBSOCKET, LINK_TCP, LINK_COMMAND };
enum link_state { STATE_CLOSED, STATE_CONNECTING, STATE_UPGRADING, STATE_WAITING, STATE_OPEN };
struct link {
    int fd;
    enum link_kind kind;
    enum link_state state;
    uint32_t id, room;
    struct strbuf rest; /* input that is not complete */
};

#define ORDER_WINDOW 1024 /* a message that is later by more counts as a duplicate */
struct subscriber {
    struct link link; /* first */
    bool was_open;
    uint32_t last, received;
    uint64_t seen[ORDER_WINDOW / 64], hash, begun_ns;
    struct strbuf fragment; /* of a message, or the tail of a stream */
};

struct message {
    uint32_t room, seq;
    uint64_t ns;
};

struct queue {
    struct message *at;
    uint32_t head, tail, capacity; /* a power of two */
};

struct publisher {
    struct link link; /* first */
    int write_fd;     /* a command's input */
    struct strbuf out;
    size_t sent;
    struct queue waiting, under_way;
    uint32_t next_room;
    bool wants_write;
};

struct room {
    char name[64];
    uint32_t name_size, published, listeners;
};

#define INPUT_BYTES (1u << 18)
struct load {
    struct options options;
    struct figures figures;
    struct target sub, pub;
    struct template ready, inits[INITS_MAX], body, pub_init;
    struct room *rooms;
    struct slice *tokens; /* lines of --tokens */
    size_t n_tokens;
    struct subscriber *subscribers;
    struct publisher *publishers;
    int poll;
    int command_pid; /* 0: none */
    uint32_t run, next_connect, connecting, next_publisher, next_room;
    uint64_t measured_from, measured_to, window_base;
    struct strbuf text, payload; /* scratch */
    uint8_t input[INPUT_BYTES];
};

uint64_t now_ns(void);
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- template.c ---- */
/* `escapes`: \r \n \t \\ \xNN are read. */
void template_compile(struct template *t, const char *text, bool escapes);
void template_put(struct strbuf *out, const struct template *t, const struct fill *fill);
struct fill fill_of(const struct load *l, uint32_t room, uint64_t number);

/* ---- link.c ---- */
void target_parse(struct target *t, const char *url);
void link_watch(struct load *l, struct link *k, uint32_t events);
void link_rewatch(struct load *l, struct link *k, uint32_t events);
void link_dial(struct load *l, struct link *k, const struct target *t); /* fd -1: it failed */
bool link_connected(const struct link *k); /* false: errno says why not */
void link_close(struct load *l, struct link *k);
bool link_send(struct link *k, struct slice bytes);
/* Input of the link: what was left, and what is there now. Size 0: nothing; data NULL: it ended. */
struct slice link_receive(struct load *l, struct link *k);
void link_keep(struct link *k, struct slice rest);
bool upgrade_send(struct load *l, struct link *k, const struct target *t);
/* Bytes of the answer; 0: not complete; -1: refused. */
int upgrade_read(struct slice input);
void frame_put(struct strbuf *out, uint8_t opcode, struct slice payload);

enum { OP_MORE = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };
struct frame {
    uint8_t opcode;
    bool final;
    struct slice payload;
};
/* The frame at the start of `input`: its size, 0: not complete, -1: too large. */
int64_t frame_read(struct slice input, struct frame *f);

/* ---- delivery.c ---- */
/* Takes the payloads of a message; *tail: where an incomplete one begins (a stream). NULL: a
 * message has one. False: there was none. */
bool delivery_scan(struct load *l, struct subscriber *s, struct slice text, uint64_t now,
                   struct slice *tail);

/* ---- subscriber.c ---- */
void subscriber_start(struct load *l, uint32_t index);
void subscriber_event(struct load *l, struct subscriber *s, uint32_t events);

/* ---- publisher.c ---- */
void publishers_start(struct load *l);
void publisher_event(struct load *l, struct publisher *p, uint32_t events);
void publisher_account(struct load *l, uint32_t room, uint64_t ns);
void publisher_emit(struct load *l, struct publisher *p, struct message m);
void publisher_flush(struct load *l, struct publisher *p);
void publisher_pump(struct load *l, struct publisher *p); /* from its waiting messages */
bool publisher_is_counted(const struct publisher *p);     /* its publishes are answered */
void queue_push(struct queue *q, struct message m);

/* ---- phases.c ---- */
void phase_rest(struct load *l, double seconds);
void phase_connect(struct load *l);
void phase_publish(struct load *l);
void phase_replay_publish(struct load *l);
void phase_replay(struct load *l);

/* ---- server.c ---- */
struct server_use server_use(const struct load *l, bool memory);
double self_cpu_s(void);

/* ---- report.c ---- */
void histogram_add(struct histogram *h, uint64_t ns);
void report(const struct load *l);

#endif
