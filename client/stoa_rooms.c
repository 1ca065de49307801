/* SHELL. Asking rooms: orders for the caller's core, waited for or not. */
#include "client/stoa_internal.h"

/* Who a call is for: a thread that waits, or a callback. */
struct taker {
    stoa_result **out;
    stoa_result_fn *fn;
    void *arg;
    bool waits;
};

static struct taker thread_of(stoa_result **out)
{
    if (out)
        *out = NULL;
    return (struct taker){.out = out, .waits = true};
}

static struct taker callback_of(stoa_result_fn *fn, void *arg)
{
    return (struct taker){.fn = fn, .arg = arg};
}

/* Under the lock. */
static int enqueue(stoa *s, struct call *c)
{
    int code = queue_take(s, 1, c->bytes);
    if (code == STOA_OK)
        list_push_back(&s->call_intake, &c->node);
    return code;
}

static int leave(stoa *s, struct call *c, const struct taker *taker)
{
    c->fn = taker->fn;
    c->arg = taker->arg;
    pthread_mutex_lock(&s->lock);
    int code = enqueue(s, c);
    pthread_mutex_unlock(&s->lock);
    if (code != STOA_OK)
        call_destroy(c);
    return code;
}

static int await_call(stoa *s, struct call *c, const struct taker *taker)
{
    struct waiter w;
    waiter_begin(s, &w);
    c->waiter = &w;
    w.call = c;
    w.on_item = c->on_item;
    w.item_arg = c->item_arg;
    pthread_mutex_lock(&s->lock);
    int code = enqueue(s, c);
    if (code == STOA_OK) {
        s->inside++;
        await_outcome(s, &w);
        code = w.status;
        if (--s->inside == 0 && s->closing)
            pthread_cond_signal(&s->left);
    } else {
        call_destroy(c);
    }
    pthread_mutex_unlock(&s->lock);
    if (taker->out)
        *taker->out = w.result;
    else
        stoa_result_free(w.result);
    waiter_end(s, &w);
    return code;
}

static int ask(stoa *s, const char *key, struct call_order order, const stoa_call_options *options,
               struct taker taker)
{
    if (!s || !key)
        return STOA_INVALID;
    order.key = slice_text(key);
    order.options = options;
    order.default_timeout_ms = s->timeout_ms;
    int code = call_check(&order);
    if (code != STOA_OK)
        return code;
    struct call *c = call_create(&order);
    if (!c)
        return STOA_NOMEM;
    return taker.waits ? await_call(s, c, &taker) : leave(s, c, &taker);
}

static struct call_order order_of(enum call_verb verb, const char *name, const void *input,
                                  size_t size)
{
    return (struct call_order){.type = MSG_CALL,
                               .verb = verb,
                               .name = slice_text(name ? name : ""),
                               .input = slice_of(input, size)};
}

static const struct call_order purge = {.type = MSG_PURGE};

static struct call_order close_of(int code)
{
    return (struct call_order){.type = MSG_CLOSE, .close_code = code};
}

/* ---- waiting ---- */

int stoa_send(stoa *s, const char *key, const void *event, size_t size,
              const stoa_call_options *options, stoa_result **out)
{
    return ask(s, key, order_of(VERB_SEND, NULL, event, size), options, thread_of(out));
}

int stoa_call(stoa *s, const char *key, const char *method, const void *input, size_t size,
              const stoa_call_options *options, stoa_result **out)
{
    return ask(s, key, order_of(VERB_METHOD, method, input, size), options, thread_of(out));
}

int stoa_state(stoa *s, const char *key, const stoa_call_options *options, stoa_result **out)
{
    return ask(s, key, order_of(VERB_STATE, NULL, NULL, 0), options, thread_of(out));
}

int stoa_connections(stoa *s, const char *key, const char *tag, const stoa_call_options *options,
                     stoa_result **out)
{
    return ask(s, key, order_of(VERB_CONNECTIONS, tag, NULL, 0), options, thread_of(out));
}

int stoa_broadcast(stoa *s, const char *key, const void *message, size_t size,
                   const stoa_call_options *options, stoa_result **out)
{
    return ask(s, key, order_of(VERB_BROADCAST, NULL, message, size), options, thread_of(out));
}

int stoa_close_room(stoa *s, const char *key, int code, const stoa_call_options *options,
                    stoa_result **out)
{
    return ask(s, key, close_of(code), options, thread_of(out));
}

int stoa_fire_alarm(stoa *s, const char *key, const stoa_call_options *options, stoa_result **out)
{
    return ask(s, key, order_of(VERB_ALARM, NULL, NULL, 0), options, thread_of(out));
}

int stoa_purge(stoa *s, const char *key, const stoa_call_options *options, stoa_result **out)
{
    return ask(s, key, purge, options, thread_of(out));
}

/* ---- not waiting ---- */

int stoa_send_async(stoa *s, const char *key, const void *event, size_t size,
                    const stoa_call_options *options, stoa_result_fn *fn, void *arg)
{
    return ask(s, key, order_of(VERB_SEND, NULL, event, size), options, callback_of(fn, arg));
}

int stoa_call_async(stoa *s, const char *key, const char *method, const void *input, size_t size,
                    const stoa_call_options *options, stoa_result_fn *fn, void *arg)
{
    return ask(s, key, order_of(VERB_METHOD, method, input, size), options, callback_of(fn, arg));
}

int stoa_state_async(stoa *s, const char *key, const stoa_call_options *options, stoa_result_fn *fn,
                     void *arg)
{
    return ask(s, key, order_of(VERB_STATE, NULL, NULL, 0), options, callback_of(fn, arg));
}

int stoa_connections_async(stoa *s, const char *key, const char *tag,
                           const stoa_call_options *options, stoa_result_fn *fn, void *arg)
{
    return ask(s, key, order_of(VERB_CONNECTIONS, tag, NULL, 0), options, callback_of(fn, arg));
}

int stoa_broadcast_async(stoa *s, const char *key, const void *message, size_t size,
                         const stoa_call_options *options, stoa_result_fn *fn, void *arg)
{
    return ask(s, key, order_of(VERB_BROADCAST, NULL, message, size), options,
               callback_of(fn, arg));
}

int stoa_close_room_async(stoa *s, const char *key, int code, const stoa_call_options *options,
                          stoa_result_fn *fn, void *arg)
{
    return ask(s, key, close_of(code), options, callback_of(fn, arg));
}

int stoa_fire_alarm_async(stoa *s, const char *key, const stoa_call_options *options,
                          stoa_result_fn *fn, void *arg)
{
    return ask(s, key, order_of(VERB_ALARM, NULL, NULL, 0), options, callback_of(fn, arg));
}

int stoa_purge_async(stoa *s, const char *key, const stoa_call_options *options, stoa_result_fn *fn,
                     void *arg)
{
    return ask(s, key, purge, options, callback_of(fn, arg));
}
