/* SHELL. What a turn brought: outcomes and items go to the threads that wait for them or to the
 * lists of callbacks, and callbacks run. */
#include "client/stoa_internal.h"
#include "common/mem.h"

#define HELD_MAX_BYTES (16 * MIB) /* items of one call that nobody has taken */

static void queue_release(struct stoa *s, size_t count, size_t bytes)
{
    s->queued_events -= count;
    s->queued_bytes -= bytes;
}

static void wake_done(struct waiter *w, int status)
{
    w->done = true;
    w->status = status;
    w->publish = NULL;
    w->call = NULL;
    list_remove(&w->node);
    pthread_cond_signal(&w->cond);
}

/* ---- what goes to whom: under the lock ---- */

static void publish_ended(struct stoa *s, struct publish *p, struct list *garbage)
{
    if (p->fn) {
        list_push_back(&s->reported, &p->node);
        return;
    }
    if (p->waiter) {
        p->waiter->id = p->id;
        wake_done(p->waiter, p->status);
    }
    queue_release(s, p->n_parts, p->bytes);
    list_push_back(garbage, &p->node);
}

static void item_came(struct stoa *s, struct call_item *item)
{
    struct call *c = item->call;
    bool fits = c->held_bytes == 0 || c->held_bytes + item->size <= HELD_MAX_BYTES;
    if (!c->on_item || !fits) {
        c->dropped = true;
        mem_free(item);
        return;
    }
    c->held_bytes += item->size;
    list_push_back(c->waiter ? &c->waiter->items : &s->items_reported, &item->node);
    if (c->waiter)
        pthread_cond_signal(&c->waiter->cond);
}

/* Items that found no room make it an outcome with a gap. */
static void gap_note(struct call *c)
{
    if (!c->dropped || c->status != STOA_OK)
        return;
    stoa_result *whole = c->result;
    c->status = STOA_MISSED;
    c->result = call_result(200, whole->duplicate, slice_text("Missed"),
                            slice_text("items came faster than they were taken"),
                            slice_of(whole->data, whole->data_size));
    stoa_result_free(whole);
}

static void call_ended(struct stoa *s, struct call *c, struct list *garbage)
{
    struct waiter *w = c->waiter;
    gap_note(c);
    if (!w && (c->fn || c->on_item)) { /* items of it may still be on the list */
        list_push_back(&s->calls_reported, &c->node);
        return;
    }
    if (w) {
        w->result = c->result;
        c->result = NULL;
        wake_done(w, c->status);
    }
    queue_release(s, 1, c->bytes);
    list_push_back(garbage, &c->node);
}

bool report_waits(const struct stoa *s)
{
    return !list_empty(&s->reported) || !list_empty(&s->items_reported) ||
           !list_empty(&s->calls_reported);
}

void report_outcomes(struct stoa *s, bool pending)
{
    struct list *publishes = publisher_done(s->publisher), publish_garbage, call_garbage;
    struct caller *caller = publisher_caller(s->publisher);
    list_init(&publish_garbage);
    list_init(&call_garbage);
    pthread_mutex_lock(&s->lock);
    while (!list_empty(publishes)) {
        struct publish *p = LIST_ENTRY(publishes->next, struct publish, node);
        list_remove(&p->node);
        publish_ended(s, p, &publish_garbage);
    }
    while (!list_empty(caller_items(caller))) {
        struct call_item *item = LIST_ENTRY(caller_items(caller)->next, struct call_item, node);
        list_remove(&item->node);
        item_came(s, item);
    }
    while (!list_empty(caller_done(caller))) {
        struct call *c = LIST_ENTRY(caller_done(caller)->next, struct call, node);
        list_remove(&c->node);
        call_ended(s, c, &call_garbage);
    }
    if (report_waits(s)) {
        fd_raise(s->report_fd, &s->told);
        if (s->poller)
            pthread_cond_signal(&s->poller->cond);
    }
    if (pending)
        turn_wake(s);
    pthread_mutex_unlock(&s->lock);
    while (!list_empty(&publish_garbage)) {
        struct publish *p = LIST_ENTRY(publish_garbage.next, struct publish, node);
        list_remove(&p->node);
        publish_destroy(p);
    }
    while (!list_empty(&call_garbage)) {
        struct call *c = LIST_ENTRY(call_garbage.next, struct call, node);
        list_remove(&c->node);
        call_destroy(c);
    }
}

/* ---- callbacks ---- */

struct reports {
    struct list publishes, items, calls;
};

static void reports_take(struct stoa *s, struct reports *r)
{
    list_init(&r->publishes);
    list_init(&r->items);
    list_init(&r->calls);
    pthread_mutex_lock(&s->lock);
    fd_lower(s->report_fd, &s->told);
    while (!list_empty(&s->reported)) {
        struct publish *p = LIST_ENTRY(s->reported.next, struct publish, node);
        list_remove(&p->node);
        queue_release(s, p->n_parts, p->bytes);
        list_push_back(&r->publishes, &p->node);
    }
    while (!list_empty(&s->items_reported)) {
        struct call_item *item = LIST_ENTRY(s->items_reported.next, struct call_item, node);
        list_remove(&item->node);
        item->call->held_bytes -= item->size;
        list_push_back(&r->items, &item->node);
    }
    while (!list_empty(&s->calls_reported)) {
        struct call *c = LIST_ENTRY(s->calls_reported.next, struct call, node);
        list_remove(&c->node);
        queue_release(s, 1, c->bytes);
        list_push_back(&r->calls, &c->node);
    }
    pthread_mutex_unlock(&s->lock);
}

int report_run(struct stoa *s)
{
    struct reports r;
    int count = 0;
    reports_take(s, &r);
    s->calling = true;
    while (!list_empty(&r.publishes)) {
        struct publish *p = LIST_ENTRY(r.publishes.next, struct publish, node);
        list_remove(&p->node);
        p->fn(p->arg, p->status, p->status == STOA_OK ? &p->id : NULL);
        publish_destroy(p);
        count++;
    }
    while (!list_empty(&r.items)) {
        struct call_item *item = LIST_ENTRY(r.items.next, struct call_item, node);
        list_remove(&item->node);
        item->call->on_item(item->call->item_arg, item->json, item->size);
        mem_free(item);
        count++;
    }
    while (!list_empty(&r.calls)) {
        struct call *c = LIST_ENTRY(r.calls.next, struct call, node);
        list_remove(&c->node);
        if (c->fn)
            c->fn(c->arg, c->status, c->result);
        count += c->fn != NULL;
        call_destroy(c);
    }
    s->calling = false;
    return count;
}
