/* CORE. A reader that wants nothing but what comes from now on has no other sign than the answer to
 * its request that "now" has begun. So its upgrade (or the head of its event stream) is held until
 * the room is subscribed at its shard, and the position at that moment is where it begins: whatever
 * is published after the 101 reaches it. Readers that name a position, or want everything, miss
 * nothing by being answered at once. Who joins a room with a handler is answered when that has let
 * it in, and is refused in its words. A hold that lasts longer than UPGRADE_TIMEOUT_MS ends with
 * 503. */
#include "gateway/core.h"

#include "common/mutant.h"

struct hold {
    struct session *session;
    struct list in_order; /* in g->holds, by due_ns */
    int64_t due_ns;
    char *cors; /* owned header lines */
};

static void hold_free(struct hold *h)
{
    h->session->hold = NULL;
    list_remove(&h->in_order);
    mem_free(h->cors);
    mem_free(h);
}

/* Tells the client and starts the dialect. */
static void session_answer(struct gateway *g, struct session *s, const char *cors)
{
    if (s->dialect != &dialect_sse) {
        g->ports.upgrade(g->ports.ctx, s->client, s->dialect == &dialect_v1 ? "stoa.v1" : NULL);
        return;
    }
    struct http_response head = {
        .status = 200, .content_type = "text/event-stream", .headers = slice_text(cors)};
    g->ports.stream(g->ports.ctx, s->client, &head);
    stream_begin(g, s);
    session_established(g, s);
}

static bool must_hold(const struct session *s)
{
    if (list_empty(&s->subs))
        return false;
    const struct subscription *sub = LIST_ENTRY(s->subs.next, struct subscription, in_session);
    return (sub->member && !STOA_MUTANT(JOIN_UNAWAITED)) ||
           (sub->start == START_LIVE && !STOA_MUTANT(HOLD_SKIPPED));
}

/* Pins where the reader begins: between this and its first frame the room may go on. */
static void pin(const struct session *s)
{
    struct subscription *sub = LIST_ENTRY(s->subs.next, struct subscription, in_session);
    if (sub->member)
        return; /* it begins where it was let in, or where it wished */
    sub->pos = room_position(sub->room);
    sub->pinned = true;
}

static bool settled(const struct session *s)
{
    const struct subscription *sub = LIST_ENTRY(s->subs.next, struct subscription, in_session);
    return room_settled(sub->room) && !sub->member;
}

void session_admit(struct gateway *g, struct session *s, const char *cors)
{
    if (!must_hold(s)) {
        session_answer(g, s, cors);
        return;
    }
    if (settled(s)) {
        pin(s);
        session_answer(g, s, cors);
        return;
    }
    struct hold *h = mem_zalloc(sizeof *h);
    h->session = s;
    h->due_ns = g->now.mono_ns + UPGRADE_TIMEOUT_MS * NS_PER_MS;
    h->cors = mem_strdup(cors);
    s->hold = h;
    list_push_back(&g->holds, &h->in_order);
    if (!heap_has(&g->hold_timer.node))
        timer_set(g, &g->hold_timer, h->due_ns);
}

void hold_release(struct gateway *g, struct session *s)
{
    struct hold *h = s->hold;
    struct strbuf cors = {0};
    strbuf_put_text(&cors, h->cors);
    hold_free(h);
    pin(s);
    session_answer(g, s, strbuf_cstr(&cors));
    strbuf_free(&cors);
}

/* Frees the session and the hold. Returns the client, and the header lines of its answer. */
static uint64_t hold_end(struct gateway *g, struct session *s, struct strbuf *cors)
{
    uint64_t client = s->client;
    strbuf_put_text(cors, s->hold->cors);
    session_free(g, s, 1006, slice_of(NULL, 0), false);
    return client;
}

void hold_refuse(struct gateway *g, struct session *s, const char *tag, const char *message)
{
    struct strbuf cors = {0};
    uint64_t client = hold_end(g, s, &cors);
    answer_error(g, client, strbuf_cstr(&cors), tag, message, "");
    strbuf_free(&cors);
}

void hold_refuse_room(struct gateway *g, struct session *s, const struct refusal *r)
{
    struct strbuf cors = {0};
    uint64_t client = hold_end(g, s, &cors);
    answer_refusal(g, client, strbuf_cstr(&cors), r);
    strbuf_free(&cors);
}

void hold_drop(struct session *s)
{
    if (s->hold)
        hold_free(s->hold);
}

static void hold_fire(struct gateway *g, struct timer *t)
{
    while (!list_empty(&g->holds)) {
        struct hold *h = LIST_ENTRY(g->holds.next, struct hold, in_order);
        if (h->due_ns > g->now.mono_ns) {
            timer_set(g, t, h->due_ns);
            return;
        }
        hold_refuse(g, h->session, "Moving",
                    "the key's shard does not answer just now; connect again");
    }
}

void hold_init(struct gateway *g)
{
    list_init(&g->holds);
    g->hold_timer.fire = hold_fire;
}
