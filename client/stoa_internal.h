/* SHELL. What the files behind stoa.h share.
 *
 *   stoa.c        opening, closing, options
 *   stoa_calls.c  publishing and polling: what callers' threads do
 *   turn.c        one turn of the loop, by whichever thread drives it
 *
 * Callers put publishes on the intake, under the lock, and wake the driver through an eventfd. At
 * most one thread drives at a time: the library's own (.threaded), the caller of stoa_poll, or a
 * caller that waits in stoa_publish. Publisher and transport belong to the driver; the lock hands
 * them on. Outcomes with a callback go to `reported`, and callbacks run with nothing held. */
#ifndef STOA_CLIENT_STOA_INTERNAL_H
#define STOA_CLIENT_STOA_INTERNAL_H

#include <pthread.h>

#include "client/publisher.h"
#include "client/transport.h"

/* A thread that waits: for the outcome of its publish, or for its turn to drive. */
struct waiter {
    struct list node; /* in s->waiters, until done */
    pthread_cond_t cond;
    bool done;
    int status;
    stoa_id id;
};

struct stoa {
    pthread_mutex_t lock;
    /* under the lock */
    struct list intake;   /* publishes not yet taken by the driver */
    struct list reported; /* publishes whose callbacks are to run */
    struct list waiters;
    struct waiter *poller; /* stoa_poll or stoa_close waiting while another drives; NULL: none */
    size_t queued_events, queued_bytes; /* of everything without a report */
    bool woken;                         /* the eventfd is readable */
    bool told;                          /* report_fd is readable */
    bool driven;                        /* somebody drives */
    bool closing;    /* nothing is accepted any more, and only stoa_close drives */
    bool stop;       /* the library's thread ends */
    unsigned inside; /* callers within stoa_publish */
    pthread_cond_t left;
    /* constant after stoa_open */
    bool threaded;
    pthread_t thread;
    size_t queue_max_events, queue_max_bytes;
    int timeout_ms;
    int epoll, wake_fd, timer_fd; /* what a driver waits on */
    int user_epoll, report_fd;    /* what the user waits on: `epoll` and callbacks to run */
    char *name;
    void (*log_fn)(void *arg, int level, const char *line);
    void *log_arg;
    /* the driver's */
    struct log log;
    struct metrics *metrics;
    struct transport *transport;
    struct publisher *publisher;
    int64_t armed_ns; /* what the timer is set to */
    /* of the thread that runs callbacks */
    bool calling;
};

struct tick tick_now(void);
/* ---- turn.c ---- */
/* One turn, waiting up to wait_ms (negative: for ever) for something to do. Only by the driver,
 * without the lock. */
void turn(struct stoa *s, int wait_ms);
/* Runs the callbacks of what is reported; returns how many. Without the lock. */
int turn_report(struct stoa *s);
void turn_wake(struct stoa *s); /* under the lock */
/* Under the lock: nobody drives any more; lets one who waits take over. */
void turn_release(struct stoa *s);

void waiter_begin(struct stoa *s, struct waiter *w);
void waiter_end(struct stoa *s, struct waiter *w);
/* Waits under the lock until signalled or the time has come. */
void waiter_wait(struct stoa *s, struct waiter *w, int64_t until_ns);

#endif
