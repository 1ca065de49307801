/* CORE. Sessions: WebSockets and event streams from their birth to gateway_closed. How much waits
 * at the program for a connection (`queued`) decides whether it is fed:
 *
 *   live events    not while more than CONN_QUEUE_MAX_BYTES wait: the subscription lags
 *   pages          not asked for while more than PULL_QUEUE_MAX wait
 *   drained        everything left: who lagged catches up by pages
 *   lagging longer than CONN_LAG_MAX_MS: raw is closed 4008; the others are told `missed ... slow`
 *                  as soon as they read again, and go on from there */
#include <stdio.h>

#include "gateway/core.h"

#include "common/mutant.h"

struct session *session_open(struct gateway *g, uint64_t client, const struct dialect *dialect)
{
    struct session *s = mem_zalloc(sizeof *s);
    s->client = client;
    s->dialect = dialect;
    list_init(&s->all);
    list_init(&s->subs);
    list_init(&s->lag);
    list_init(&s->beat);
    STOA_ASSERT(!map_get(g->sessions, map_id(&s->client)));
    map_put(g->sessions, map_id(&s->client), s);
    list_push_back(&g->sessions_all, &s->all);
    return s;
}

struct session *session_find(const struct gateway *g, uint64_t client)
{
    return map_get(g->sessions, map_id(&client));
}

static void subscriptions_end(struct gateway *g, struct session *s, unsigned code,
                              struct slice reason, bool clean)
{
    while (!list_empty(&s->subs)) {
        struct subscription *sub = LIST_ENTRY(s->subs.next, struct subscription, in_session);
        member_leave(g, sub, code, reason, clean);
        subscription_free(g, sub);
    }
}

void session_free(struct gateway *g, struct session *s, unsigned code, struct slice reason,
                  bool clean)
{
    s->closing = true; /* nobody is there to be told anything */
    hold_drop(s);
    subscriptions_end(g, s, code, reason, clean);
    if (s->established)
        metric_move(g->m.sockets[s->dialect->index], -1);
    map_remove(g->sessions, map_id(&s->client));
    list_remove(&s->all);
    list_remove(&s->lag);
    list_remove(&s->beat);
    rate_free(s);
    timer_stop(g, &s->expiry);
    identity_unref(s->identity);
    mem_free(s->visitor);
    mem_free(s->viewer);
    orpc_free(g, s);
    mem_free(s->farewell);
    mem_free(s);
}

void session_established(struct gateway *g, struct session *s)
{
    if (s->closing || s->established)
        return;
    s->established = true;
    metric_move(g->m.sockets[s->dialect->index], 1);
    if (s->dialect->begun)
        s->dialect->begun(g, s);
    if (s->closing)
        return;
    LIST_EACH(cursor, after, &s->subs)
    {
        struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_session);
        subscription_kick(g, sub);
        if (s->closing)
            return;
    }
}

static struct metric *close_metric(struct gateway *g, unsigned code)
{
    char label[32];
    snprintf(label, sizeof label, "code=\"%u\"", code);
    return metrics_counter(g->m.registry, "stoa_closes_total", label,
                           "Sockets and event streams that ended, by close code (4000: other "
                           "codes).");
}

static void count_close(struct gateway *g, unsigned code)
{
    bool known = (code >= 1000 && code <= 1015) || code == 4001 || code == 4008 || code == 4010;
    bool bad = code == 1002 || code == 1007 || code == 1008 || code == 1009 || code == 4008;
    uint64_t more;
    metric_add(close_metric(g, known ? code : 4000), 1);
    if (bad && rare_take(&g->bad_closes, g->now, &more))
        LOG(g->log, LOG_INFO, "gateway.closed", LOG_U64("code", code), LOG_U64("more", more));
}

void session_close(struct gateway *g, struct session *s, unsigned code, struct slice reason)
{
    if (s->closing)
        return;
    s->closing = true;
    subscriptions_end(g, s, code ? code : 1006, reason, code != 0);
    list_remove(&s->lag);
    list_remove(&s->beat);
    count_close(g, code);
    g->ports.close(g->ports.ctx, s->client, code, reason);
}

void session_write(struct gateway *g, struct session *s, struct buf *bytes, size_t offset,
                   size_t size)
{
    if (!s->closing)
        s->queued = g->ports.write(g->ports.ctx, s->client, bytes, offset, size);
}

void session_say(struct gateway *g, struct session *s, struct slice text)
{
    if (s->closing)
        return;
    if (s->queued > CONTROL_QUEUE_MAX) {
        session_close(g, s, 4008, slice_text("too slow"));
        return;
    }
    strbuf_reset(&g->scratch);
    frame_put_header(&g->scratch, FRAME_TEXT, text.size);
    strbuf_put_slice(&g->scratch, text);
    struct buf *bytes = buf_copy_slice(strbuf_slice(&g->scratch));
    session_write(g, s, bytes, 0, bytes->size);
    buf_unref(bytes);
}

/* ---- lag ---- */

/* Somebody who lagged too long has lost what lies between; it goes on from now. */
static bool lag_forgive(struct gateway *g, struct subscription *sub)
{
    struct position head = room_position(sub->room);
    struct miss miss = {.from = sub->pos, .to = head, .reason = MISS_SLOW};
    sub->lagged = false;
    if (position_equal(sub->pos, head)) {
        subscription_state(g, sub, SUBS_CATCHUP);
        return true;
    }
    if (STOA_MUTANT(LAG_UNTOLD))
        sub->pos = head;
    else if (!subscription_miss(g, sub, miss, head))
        return false;
    subscription_state(g, sub, SUBS_CATCHUP);
    return true;
}

void session_drained(struct gateway *g, struct session *s)
{
    s->queued = 0;
    if (s->closing || s->n_unfed == 0)
        return;
    bool slow = s->too_slow;
    s->too_slow = false;
    LIST_EACH(cursor, after, &s->subs)
    {
        struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_session);
        if (sub->state == SUBS_LAGGING && slow && !lag_forgive(g, sub))
            return; /* raw: the session has ended */
        if (s->closing)
            return;
        if (sub->state == SUBS_LAGGING)
            subscription_state(g, sub, SUBS_CATCHUP);
        if (sub->state == SUBS_CATCHUP)
            subscription_feed(g, sub);
    }
}

static void lag_expired(struct gateway *g, struct session *s)
{
    list_remove(&s->lag);
    if (s->dialect->index != DIALECT_RAW) {
        s->too_slow = true;
        return;
    }
    struct subscription *sub = LIST_ENTRY(s->subs.next, struct subscription, in_session);
    subscription_miss(
        g, sub,
        (struct miss){.from = sub->pos, .to = room_position(sub->room), .reason = MISS_SLOW},
        room_position(sub->room));
}

static void lag_fire(struct gateway *g, struct timer *t)
{
    while (!list_empty(&g->lagging)) {
        struct session *s = LIST_ENTRY(g->lagging.next, struct session, lag);
        if (s->lag_due_ns > g->now.mono_ns) {
            timer_set(g, t, s->lag_due_ns);
            return;
        }
        lag_expired(g, s);
    }
}

/* ---- comments on event streams ---- */

static void beat_fire(struct gateway *g, struct timer *t)
{
    while (!list_empty(&g->streams)) {
        struct session *s = LIST_ENTRY(g->streams.next, struct session, beat);
        if (s->beat_due_ns > g->now.mono_ns) {
            timer_set(g, t, s->beat_due_ns);
            return;
        }
        if (s->queued == 0) /* else more than a comment is on its way */
            session_write(g, s, g->beat_text, 0, g->beat_text->size);
        s->beat_due_ns = g->now.mono_ns + SSE_COMMENT_INTERVAL_MS * NS_PER_MS;
        list_remove(&s->beat);
        list_push_back(&g->streams, &s->beat);
    }
}

void stream_begin(struct gateway *g, struct session *s)
{
    session_write(g, s, g->retry_text, 0, g->retry_text->size);
    s->beat_due_ns = g->now.mono_ns + SSE_COMMENT_INTERVAL_MS * NS_PER_MS;
    list_push_back(&g->streams, &s->beat);
    if (!heap_has(&g->beat_timer.node))
        timer_set(g, &g->beat_timer, s->beat_due_ns);
}

/* ---- drain ---- */

static void drain_fire(struct gateway *g, struct timer *t)
{
    LIST_EACH(cursor, after, &g->sessions_all)
    {
        struct session *s = LIST_ENTRY(cursor, struct session, all);
        if (s->closing)
            continue;
        if (s->hold)
            hold_refuse(g, s, "Draining", "this gateway is shutting down; connect to another one");
        else
            session_close(g, s, 1012, slice_text("gateway restarts"));
        if (g->drain_step_ns == 0)
            continue;
        timer_set(g, t, g->now.mono_ns + g->drain_step_ns);
        return;
    }
}

/* Spread so that clients do not come back all at once, but no slower than DRAIN_STEP_MAX_MS each: a
 * gateway with few sockets is gone at once. */
void session_drain(struct gateway *g, int64_t spread_ms)
{
    int64_t count = (int64_t)map_count(g->sessions), most = DRAIN_STEP_MAX_MS * NS_PER_MS;
    int64_t step = count > 1 ? spread_ms * NS_PER_MS / count : 0;
    g->drain_step_ns = step < most ? step : most;
    drain_fire(g, &g->drain_timer);
}

void session_init(struct gateway *g)
{
    static const unsigned codes[] = {1000, 1001, 1006, 1012, 4000, 4008, 4010};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        (void)close_metric(g, codes[i]); /* a rate needs the zero before the first one */
    list_init(&g->sessions_all);
    list_init(&g->lagging);
    list_init(&g->streams);
    g->lag_timer.fire = lag_fire;
    g->beat_timer.fire = beat_fire;
    g->drain_timer.fire = drain_fire;
    g->beat_text = buf_copy_slice(slice_text(":\n\n"));
    g->retry_text = buf_copy_slice(slice_text("retry: 1000\n\n"));
}

void session_id_put(struct strbuf *out, const struct gateway *g, const struct session *s)
{
    for (size_t i = 0; i < 4; i++)
        strbuf_printf(out, "%02x", g->options.self.node[i]);
    strbuf_printf(out, "-%llx", (unsigned long long)s->client);
}

/* ---- from requests ---- */

/* A session of many keys keeps the visitor. */
static void socket_open(struct exchange *x, const struct dialect *dialect,
                        const struct start *start, struct visitor **visitor, struct strbuf *request)
{
    struct gateway *g = x->g;
    struct session *s = session_open(g, x->client, dialect);
    session_identify(g, s, identity_ref(x->who));
    s->viewer = x->viewer;
    x->viewer = NULL;
    if (start && !subscription_open(g, s, strbuf_slice(&x->key), start, request)) {
        session_free(g, s, 1006, slice_of(NULL, 0), false);
        exchange_error(x, "Busy", "this gateway holds too many keys; try another one");
        return;
    }
    if (!start) {
        s->visitor = *visitor;
        *visitor = NULL;
    }
    session_admit(g, s, exchange_cors(x));
}

void route_socket(struct exchange *x, const struct dialect *dialect, const struct start *start)
{
    struct gateway *g = x->g;
    STOA_ASSERT(x->asked); /* nobody gets a session by forgetting to ask */
    if (g->draining) {
        exchange_error(x, "Draining", "this gateway is shutting down; connect to another one");
        return;
    }
    struct strbuf request = {0};
    struct visitor *visitor = NULL;
    const struct gateway_type *joins = NULL;
    if (dialect != &dialect_sse)
        visitor = visitor_of(g, x->request);
    if (start && visitor)
        joins = type_with_handler(g, strbuf_slice(&x->key));
    const char *message = "", *tag = joins ? visitor_request(visitor, joins, x->who,
                                                             slice_of(NULL, 0), &request, &message)
                                           : NULL;
    if (tag)
        exchange_error(x, tag, message);
    else
        socket_open(x, dialect, start, &visitor, joins ? &request : NULL);
    mem_free(visitor);
    strbuf_free(&request);
}

/* ---- from the program ---- */

void gateway_established(struct gateway *g, uint64_t client, struct tick now)
{
    g->now = now;
    struct session *s = session_find(g, client);
    if (s)
        session_established(g, s);
}

void gateway_frame(struct gateway *g, uint64_t client, struct slice payload, bool text,
                   struct tick now)
{
    g->now = now;
    struct session *s = session_find(g, client);
    if (s && s->established && !s->closing)
        s->dialect->frame(g, s, payload, text);
}

void gateway_drained(struct gateway *g, uint64_t client, struct tick now)
{
    g->now = now;
    struct session *s = session_find(g, client);
    if (s)
        session_drained(g, s);
}

void gateway_farewell(struct gateway *g, uint64_t client, struct slice reason)
{
    struct session *s = session_find(g, client);
    if (!s || s->closing || s->farewell)
        return;
    s->farewell = mem_strndup(reason.size ? (const char *)reason.data : "", reason.size);
}

void gateway_closed(struct gateway *g, uint64_t client, unsigned code, struct tick now)
{
    g->now = now;
    struct waiter *w = map_get(g->waiters, map_id(&client));
    if (w)
        waiter_drop(g, w);
    struct session *s = session_find(g, client);
    if (!s)
        return;
    if (!s->closing)
        count_close(g, code);
    char *reason = s->farewell;
    s->farewell = NULL;
    session_free(g, s, code, slice_text(reason ? reason : ""), code != 1006);
    mem_free(reason);
}
