/* SHELL. What callers' threads do: publish, wait, poll. stoa_rooms.c has calls. */
#include <limits.h>

#include "client/stoa_internal.h"
#include "common/mem.h"

/* ---- into the queue ---- */

static struct publish_order order_of(const stoa *s, const char *key, const stoa_slice *parts,
                                     size_t n, const stoa_publish_options *options)
{
    return (struct publish_order){.key = slice_text(key),
                                  .parts = parts,
                                  .n_parts = n,
                                  .options = options,
                                  .default_timeout_ms = s->timeout_ms};
}

static int make(stoa *s, const char *key, const stoa_slice *parts, size_t n,
                const stoa_publish_options *options, struct publish **out)
{
    if (!s || !key)
        return STOA_INVALID;
    struct publish_order order = order_of(s, key, parts, n, options);
    int code = publish_check(&order);
    if (code != STOA_OK)
        return code;
    *out = publish_create(&order);
    return *out ? STOA_OK : STOA_NOMEM;
}

/* One is let in when nothing is queued, however large. */
int queue_take(stoa *s, size_t count, size_t bytes)
{
    if (s->closing)
        return STOA_CLOSED;
    if (s->queued_events > 0 && (s->queued_events + count > s->queue_max_events ||
                                 s->queued_bytes + bytes > s->queue_max_bytes))
        return STOA_BUSY;
    s->queued_events += count;
    s->queued_bytes += bytes;
    turn_wake(s);
    return STOA_OK;
}

/* Under the lock. */
static int enqueue(stoa *s, struct publish *p)
{
    int code = queue_take(s, p->n_parts, p->bytes);
    if (code == STOA_OK)
        list_push_back(&s->intake, &p->node);
    return code;
}

int stoa_publish_async(stoa *s, const char *key, const void *data, size_t size,
                       const stoa_publish_options *options, stoa_ack_fn *fn, void *arg)
{
    const stoa_slice part = {data, size};
    struct publish *p = NULL;
    int code = make(s, key, &part, 1, options, &p);
    if (code != STOA_OK)
        return code;
    p->fn = fn;
    p->arg = arg;
    pthread_mutex_lock(&s->lock);
    code = enqueue(s, p);
    pthread_mutex_unlock(&s->lock);
    if (code != STOA_OK)
        publish_destroy(p);
    return code;
}

/* ---- waiting ---- */

static bool library_thread(const stoa *s)
{
    return s->threaded && pthread_equal(pthread_self(), s->thread) != 0;
}

/* Whether this thread may turn the loop now. The library's thread may from a callback: it is not
 * within a turn then. */
static bool may_drive(const stoa *s)
{
    return s->threaded ? library_thread(s) : !s->driven && !s->closing;
}

/* A callback waits, and stoa_close waits for it: nobody will turn the loop. */
static void leave_unknown(struct waiter *w)
{
    if (w->publish)
        w->publish->waiter = NULL;
    if (w->call) {
        w->call->waiter = NULL;
        w->call->on_item = NULL;
    }
    w->publish = NULL;
    w->call = NULL;
    list_remove(&w->node);
    w->status = STOA_UNKNOWN;
}

/* Runs the callback for items, with nothing held; others may drive meanwhile. */
static void tell_items(stoa *s, struct waiter *w)
{
    list_remove(&w->node);
    if (!s->driven)
        turn_release(s);
    while (!list_empty(&w->items)) {
        struct call_item *item = LIST_ENTRY(w->items.next, struct call_item, node);
        list_remove(&item->node);
        if (w->call)
            w->call->held_bytes -= item->size;
        pthread_mutex_unlock(&s->lock);
        w->on_item(w->item_arg, item->json, item->size);
        mem_free(item);
        pthread_mutex_lock(&s->lock);
    }
    if (!w->done)
        list_push_back(&s->waiters, &w->node);
}

void await_outcome(stoa *s, struct waiter *w)
{
    list_push_back(&s->waiters, &w->node);
    while (!w->done || !list_empty(&w->items)) {
        if (!list_empty(&w->items)) {
            tell_items(s, w);
            continue;
        }
        if (s->closing && library_thread(s)) {
            leave_unknown(w);
            return;
        }
        if (!may_drive(s)) {
            waiter_wait(s, w, TICK_NEVER);
            continue;
        }
        bool nested = s->driven;
        s->driven = true;
        pthread_mutex_unlock(&s->lock);
        turn(s, -1);
        pthread_mutex_lock(&s->lock);
        if (!nested)
            turn_release(s);
    }
}

static int publish_and_wait(stoa *s, struct publish *p, stoa_id *id)
{
    struct waiter w;
    waiter_begin(s, &w);
    p->waiter = &w;
    w.publish = p;
    pthread_mutex_lock(&s->lock);
    int code = enqueue(s, p);
    if (code == STOA_OK) {
        s->inside++;
        await_outcome(s, &w);
        code = w.status;
        if (--s->inside == 0 && s->closing)
            pthread_cond_signal(&s->left);
    } else {
        publish_destroy(p);
    }
    pthread_mutex_unlock(&s->lock);
    if (id)
        *id = w.id;
    waiter_end(s, &w);
    return code;
}

int stoa_publish_batch(stoa *s, const char *key, const stoa_slice *events, size_t n,
                       const stoa_publish_options *options, stoa_id *last)
{
    struct publish *p = NULL;
    int code = make(s, key, events, n, options, &p);
    return code == STOA_OK ? publish_and_wait(s, p, last) : code;
}

int stoa_publish(stoa *s, const char *key, const void *data, size_t size,
                 const stoa_publish_options *options, stoa_id *id)
{
    const stoa_slice part = {data, size};
    return stoa_publish_batch(s, key, &part, 1, options, id);
}

/* ---- polling ---- */

int stoa_fd(stoa *s)
{
    return s && !s->threaded ? s->user_epoll : -1;
}

static int64_t until_of(int timeout_ms)
{
    return timeout_ms < 0 ? TICK_NEVER : tick_now().mono_ns + timeout_ms * NS_PER_MS;
}

/* Under the lock: waits while another thread drives and there is nothing to report. */
static void wait_driven(stoa *s, int64_t until_ns)
{
    struct waiter w;
    waiter_begin(s, &w);
    s->poller = &w;
    while (s->driven && !report_waits(s) && tick_now().mono_ns < until_ns)
        waiter_wait(s, &w, until_ns);
    s->poller = NULL;
    waiter_end(s, &w);
}

static int left_ms(int64_t until_ns)
{
    if (until_ns == TICK_NEVER)
        return -1;
    int64_t left = (until_ns - tick_now().mono_ns + NS_PER_MS - 1) / NS_PER_MS;
    return left <= 0 ? 0 : left < INT_MAX ? (int)left : INT_MAX;
}

int stoa_poll(stoa *s, int timeout_ms)
{
    if (!s || s->threaded || s->calling)
        return STOA_INVALID;
    int64_t until = until_of(timeout_ms);
    pthread_mutex_lock(&s->lock);
    wait_driven(s, until);
    bool drive = !s->driven;
    bool wait = !report_waits(s);
    s->driven = true;
    pthread_mutex_unlock(&s->lock);
    if (drive) {
        turn(s, wait ? left_ms(until) : 0);
        pthread_mutex_lock(&s->lock);
        turn_release(s);
        pthread_mutex_unlock(&s->lock);
    }
    return report_run(s);
}
