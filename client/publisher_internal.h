/* CORE. What the files of the publisher share; nobody else includes it.
 *
 *   publisher.c         submitting, sending, time
 *   publisher_lane.c    lanes: going back, numbering anew, ending a publish
 *   publisher_answer.c  what the hub tells: answers, links */
#ifndef STOA_CLIENT_PUBLISHER_INTERNAL_H
#define STOA_CLIENT_PUBLISHER_INTERNAL_H

#include "client/caller.h"
#include "client/publisher.h"
#include "common/map.h"

#define CID_MAX (CALLER_CID - 1)
/* Where a WELCOME announces no window. */
#define WINDOW_DEFAULT_MESSAGES 256
#define WINDOW_DEFAULT_BYTES (1 * MIB)

struct lane {
    struct slice key;  /* points behind the struct */
    struct list queue; /* publishes in order of submission: in flight, then unsent */
    struct list *next; /* first unsent one; the head of `queue` when there is none */
    struct list node;  /* ready (may send), or idle (nothing queued), or none */
    bool idle, ready;
    uint32_t in_flight; /* with its ephemerals */
    uint32_t ephemerals;
    uint32_t attempts; /* refusals and losses since the last progress */
    uint64_t pid;
    uint64_t last_pseq;
    int64_t resume_ns;      /* sends nothing before; 0: no pause */
    int64_t progress_ns;    /* last answer or, with nothing in flight before, transmission */
    int64_t idle_ns;        /* since when it is idle */
    struct heap_node timer; /* the earlier of resume and silence, or before it */
};

struct publisher {
    struct hub *hub;
    struct caller *caller; /* shares the router with it */
    struct log *log;
    struct rng rng;
    struct tick now;
    uint32_t n_routers;
    uint32_t router; /* the one in use; 0: none is up */
    uint64_t win_messages, win_bytes;
    uint64_t in_flight, in_flight_bytes;
    uint64_t last_cid;
    size_t pending;
    struct map *lanes;   /* by key, owned */
    struct map *flying;  /* by cid */
    struct list ready;   /* lanes */
    struct list idle;    /* lanes, longest idle first */
    struct list flights; /* ephemerals in flight */
    struct list done;
    size_t n_idle;
    struct heap lane_timers, deadlines;
};

/* ---- publisher_lane.c ---- */
struct lane *lane_open(struct publisher *p, struct slice key);
void lane_forget(struct publisher *p, struct lane *l);
/* After any change: whether it is ready, idle, and when its timer goes. */
void lane_settle(struct publisher *p, struct lane *l);
/* The publish and all in flight behind it become unsent, and those behind it uncertain; itself too
 * if its answer is `lost`. */
void lane_go_back(struct publisher *p, struct lane *l, struct publish *from, bool lost);
/* Room for one more. After a second refusal in a row one publish alone finds out whether the shard
 * takes them again. */
bool lane_window_open(const struct lane *l);
/* The first publish, if it is in flight. */
struct publish *lane_first_flying(const struct lane *l);
void lane_number_anew(struct publisher *p, struct lane *l);
/* Sends nothing for a while: `wished_ms` as the refusal said, 0: by the lane's own schedule. */
void lane_pause(struct publisher *p, struct lane *l, uint64_t wished_ms);
/* The outcome is known: the publish leaves its lane. */
void lane_end(struct publisher *p, struct publish *publish, int status);
void flight_begin(struct publisher *p, struct publish *publish);
void flight_end(struct publisher *p, struct publish *publish);
static inline struct publish *publish_of(struct list *node)
{
    return LIST_ENTRY(node, struct publish, node);
}

/* ---- publisher_answer.c ---- */
struct hub_handler publisher_handler(struct publisher *p);
/* The answers of everything in flight are lost. */
void publisher_lost_all(struct publisher *p);

#endif
