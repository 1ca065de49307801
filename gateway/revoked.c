/* CORE. Revocations: events of the key $stoa:revoked, which every gateway that asks for tokens
 * follows from its beginning, by the same room, pages and repair as any reader. Its session is
 * within the gateway: no client, nothing is written; its dialect takes the events instead.
 *
 *   POST /revoke --> event of the key, committed --> every gateway: set in memory --> open sockets
 *
 * What is heard is applied to the open sockets once for all events of a turn, and no more often
 * than each SWEEP_MS: a long list of revocations does not walk the sockets for each.
 *
 * Nobody can tell whether a token was revoked while the key cannot be read. A gateway that has
 * never read it is not ready; one that has lost it for UNKNOWN_MS lets no new token in (503), and
 * leaves open what is open. What it has heard it keeps, even if the key's shard has lost it. */
#include "gateway/core.h"
#include "gateway/revoked_set.h"

#define LOOK_MS 250      /* whether the key is still followed */
#define SWEEP_MS 100     /* between two walks over the sockets */
#define UNKNOWN_MS 10000 /* so long without the key, and no new token is let in */

static const char *const revoked_text = "the token was revoked: get a new one";

struct revoked {
    struct revoked_set *set;
    struct session reader; /* not among the gateway's sessions */
    struct timer look, sweep;
    int64_t live_ns; /* when it was last seen to be live */
    int64_t swept_ns;
    bool caught_up; /* once at least */
};

/* ---- the reader ---- */

static struct subscription *subscription_of(const struct revoked *r)
{
    return list_empty(&r->reader.subs)
               ? NULL
               : LIST_ENTRY(r->reader.subs.next, struct subscription, in_session);
}

/* Whether the key is followed just now; remembers when it was. */
static bool is_live(const struct gateway *g, struct revoked *r)
{
    const struct subscription *sub = subscription_of(r);
    if (!sub || sub->state != SUBS_LIVE || !room_settled(sub->room))
        return false;
    if (!r->caught_up)
        LOG(g->log, LOG_INFO, "gateway.revocations_known",
            LOG_U64("count", revoked_set_count(r->set)));
    r->caught_up = true;
    r->live_ns = g->now.mono_ns;
    return true;
}

static void sweep_soon(struct gateway *g, struct revoked *r)
{
    if (!heap_has(&r->sweep.node))
        timer_set(g, &r->sweep, r->swept_ns + SWEEP_MS * NS_PER_MS);
}

static void internal_take(struct gateway *g, const struct subscription *sub,
                          const struct event *events, size_t count)
{
    struct revoked *r = g->revoked;
    struct strbuf text = {0};
    (void)sub;
    for (size_t i = 0; i < count; i++) {
        struct revocation revocation;
        const char *wrong = revocation_read(events[i].payload, events[i].ts, &text, &revocation);
        if (wrong)
            LOG(g->log, LOG_ERROR, "gateway.revocation_unreadable", LOG_U64("seq", events[i].seq),
                LOG_STR("why", wrong));
        else
            revoked_set_add(r->set, &revocation, events[i].ts);
    }
    strbuf_free(&text);
    sweep_soon(g, r);
}

/* What was heard before stays in the set; what follows the gap is what is still retained. */
static bool internal_tell(struct gateway *g, struct subscription *sub, enum sub_status status,
                          const struct miss *miss, struct position head)
{
    (void)sub;
    (void)status;
    (void)head;
    if (miss)
        LOG(g->log, LOG_ERROR, "gateway.revocations_missed",
            LOG_STR("reason", miss_name(miss->reason)), LOG_U64("from", miss->from.seq),
            LOG_U64("to", miss->to.seq));
    return true;
}

static void internal_end(struct gateway *g, struct subscription *sub, unsigned code,
                         struct slice reason)
{
    (void)code;
    (void)reason;
    subscription_free(g, sub); /* look_fire begins it anew */
}

static const struct dialect dialect_internal = {.index = DIALECT_COUNT,
                                                .name = "internal",
                                                .tell = internal_tell,
                                                .end = internal_end,
                                                .take = internal_take};

static void look_fire(struct gateway *g, struct timer *t)
{
    struct revoked *r = g->revoked;
    const struct start start = {.kind = START_ALL, .whole = true};
    if (!subscription_of(r))
        (void)subscription_open(g, &r->reader, slice_text(REVOCATIONS_KEY), &start, NULL);
    (void)is_live(g, r);
    revoked_set_expire(r->set, g->now.wall_ms);
    timer_set(g, t, g->now.mono_ns + LOOK_MS * NS_PER_MS);
}

/* ---- open sockets ---- */

static void grants_sweep(struct gateway *g, struct revoked *r, struct session *s)
{
    LIST_EACH(cursor, after, &s->subs)
    {
        struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_session);
        if (sub->identity && revoked_set_has(r->set, sub->identity))
            s->dialect->end(g, sub, 1008, slice_text("Token revoked"));
        if (s->closing)
            return;
    }
}

static void sweep_fire(struct gateway *g, struct timer *t)
{
    struct revoked *r = g->revoked;
    (void)t;
    r->swept_ns = g->now.mono_ns;
    LIST_EACH(cursor, after, &g->sessions_all)
    {
        struct session *s = LIST_ENTRY(cursor, struct session, all);
        if (s->closing)
            continue;
        if (s->identity && s->identity != g->nobody && revoked_set_has(r->set, s->identity))
            session_unidentify(g, s, "Unauthorized", "Token revoked", revoked_text);
        else if (s->n_granted > 0)
            grants_sweep(g, r, s);
    }
}

/* ---- judged ---- */

bool revoked_caught_up(const struct gateway *g)
{
    return !g->revoked || g->revoked->caught_up || is_live(g, g->revoked);
}

const char *revoked_judge(const struct gateway *g, const struct identity *who, const char **message)
{
    struct revoked *r = g->revoked;
    if (!r)
        return NULL;
    if (revoked_set_has(r->set, who)) {
        *message = TOKEN_NO_GOOD;
        return "Unauthorized";
    }
    bool known =
        is_live(g, r) || (r->caught_up && g->now.mono_ns - r->live_ns < UNKNOWN_MS * NS_PER_MS);
    *message = "what tokens were revoked is not known just now; retry, or try another gateway";
    return known ? NULL : "Busy";
}

/* ---- life ---- */

void revoked_begin(struct gateway *g)
{
    if (g->revoked) {
        revoked_set_retime(g->revoked->set, g->options.token_max_ttl_ms);
        return;
    }
    struct revoked *r = mem_zalloc(sizeof *r);
    r->set = revoked_set_create(g->options.seed, g->options.token_max_ttl_ms);
    r->reader.dialect = &dialect_internal;
    r->reader.established = true;
    list_init(&r->reader.all);
    list_init(&r->reader.subs);
    list_init(&r->reader.lag);
    list_init(&r->reader.beat);
    r->look.fire = look_fire;
    r->sweep.fire = sweep_fire;
    r->swept_ns = g->now.mono_ns - SWEEP_MS * NS_PER_MS;
    g->revoked = r;
    timer_set(g, &r->look, g->now.mono_ns);
}

void revoked_stop(struct gateway *g)
{
    struct revoked *r = g->revoked;
    if (!r)
        return;
    struct subscription *sub = subscription_of(r);
    if (sub)
        subscription_free(g, sub);
    timer_stop(g, &r->look);
    timer_stop(g, &r->sweep);
    revoked_set_destroy(&r->set);
    mem_free(r);
    g->revoked = NULL;
}

/* ---- POST /revoke ---- */

/* Whether it says more than was read: a `before` that is misspelt would take back all until now. */
static bool says_more(struct slice json)
{
    unsigned members = 0;
    struct json_iter it = json_members(json);
    while (json_next(&it))
        members++;
    return members > (json_get(json, "before").type == JSON_NONE ? 1 : 2);
}

void route_revoke(struct exchange *x)
{
    struct gateway *g = x->g;
    struct strbuf text = {0}, event = {0};
    struct revocation revocation;
    const char *message = "", *tag = NULL;
    if (!exchange_allow_all(x, RIGHT_MANAGE, slice_of(NULL, 0)))
        return;
    if (!g->revoked) {
        exchange_error(x, "BadRequest", "no tokens are asked for here: set auth.mode: token");
        return;
    }
    message = revocation_read(x->request->body, g->now.wall_ms, &text, &revocation);
    if (!message && says_more(x->request->body))
        message = "one of jti, sub, key and kid, once, and at most `before`: nothing else";
    if (message) {
        tag = "BadRequest";
    } else if (revocation.before_ms > g->now.wall_ms + TOKEN_CLOCK_MARGIN_MS) {
        tag = "BadRequest";
        message = "before: lies in the future; what is not issued yet cannot be revoked";
    } else {
        revocation_put(&event, &revocation);
        struct slice payload = strbuf_slice(&event);
        struct publish_order order = {
            .key = slice_text(REVOCATIONS_KEY), .parts = &payload, .n_parts = 1};
        publish_id(g, &order, slice_of(NULL, 0));
        tag = publish_begin(g, x->client, exchange_cors(x), &order, &message);
    }
    if (tag)
        exchange_error(x, tag, message);
    strbuf_free(&text);
    strbuf_free(&event);
}
