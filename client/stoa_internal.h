/* SHELL. What the files behind stoa.h share.
 *
 *   stoa.c        opening, closing, options
 *   stoa_calls.c  publishing, waiting and polling: what callers' threads do
 *   stoa_rooms.c  asking rooms, likewise
 *   turn.c        one turn of the loop, by whichever thread drives it
 *   report.c      what the turn brought: to those who wait, and by callbacks
 *
 * Callers put publishes and calls on the intakes, under the lock, and wake the driver through an
 * eventfd. At most one thread drives at a time: the library's own (.threaded), the caller of
 * stoa_poll, or a caller that waits. Publisher and transport belong to the driver; the lock hands
 * them on. Outcomes with a callback go to lists, and callbacks run with nothing held. Items of a
 * stream go to the thread that waits for their call, else to callbacks; each before its call's
 * outcome. */
#ifndef STOA_CLIENT_STOA_INTERNAL_H
#define STOA_CLIENT_STOA_INTERNAL_H

#include <pthread.h>

#include "client/caller.h"
#include "client/publisher.h"
#include "client/transport.h"

/* A thread that waits: for the outcome of its publish or call, or for its turn to drive. */
struct waiter {
    struct list node; /* in s->waiters, until done and while it does not run a callback */
    pthread_cond_t cond;
    struct publish *publish; /* what it waits for; NULL: neither, or it is done */
    struct call *call;
    struct list items; /* of the call, not yet told */
    stoa_item_fn *on_item;
    void *item_arg;
    bool done;
    int status;
    stoa_id id;
    stoa_result *result;
};

struct stoa {
    pthread_mutex_t lock;
    /* under the lock */
    struct list intake;         /* publishes not yet taken by the driver */
    struct list call_intake;    /* calls, likewise */
    struct list reported;       /* publishes whose callbacks are to run */
    struct list items_reported; /* items of calls, likewise; before ... */
    struct list calls_reported; /* ... the calls */
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
void turn_wake(struct stoa *s); /* under the lock */
/* Under the lock: nobody drives any more; lets one who waits take over. */
void turn_release(struct stoa *s);

/* ---- report.c ---- */
/* Hands on what the turn brought; `pending`: something is left to receive. Without the lock. */
void report_outcomes(struct stoa *s, bool pending);
/* Under the lock: whether there are callbacks to run. */
bool report_waits(const struct stoa *s);
/* Runs the callbacks of what is reported; returns how many. Without the lock. */
int report_run(struct stoa *s);
/* Descriptors that say that there is something to do. Under the lock. */
void fd_raise(int fd, bool *raised);
void fd_lower(int fd, bool *raised);

/* ---- stoa_calls.c ---- */
/* Under the lock: takes `count` events of `bytes` into the queue; STOA_OK, BUSY or CLOSED. */
int queue_take(struct stoa *s, size_t count, size_t bytes);
/* Under the lock, and the thread is counted in s->inside: until the outcome is known. */
void await_outcome(struct stoa *s, struct waiter *w);

void waiter_begin(struct stoa *s, struct waiter *w);
void waiter_end(struct stoa *s, struct waiter *w);
/* Waits under the lock until signalled or the time has come. */
void waiter_wait(struct stoa *s, struct waiter *w, int64_t until_ns);

#endif
