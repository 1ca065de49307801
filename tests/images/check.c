/* SHELL. The oracle of the store's tests. It asks the shard through messages, as a gateway does. */
#include "check.h"

#include "common/mem.h"
#include "rows.h"

#define EVENTS_MAX 100000
#define LIFE_OF_CHECKS 900000
#define RECENT_MS INT64_C(240000) /* within every idempotency window */

const char *const verdict_names[VERDICTS] = {"good",  "refused", "wrong", "acknowledged lost",
                                             "ended", "crashed"};

struct place {   /* what the event with a seq must be */
    uint32_t op; /* + 1; 0: nothing is known */
    uint32_t part;
    int64_t ts;
};

struct room_check {
    const struct check *c;
    struct world *w;
    struct strbuf *why;
    unsigned room;
    enum verdict verdict;
    /* what the history says */
    struct place *places; /* by seq */
    uint64_t total;       /* head if everything sent was stored */
    uint64_t acked_head, acked_purge, maybe_purge;
    uint64_t epoch; /* of the newest answer, 0: none */
    int64_t now_ms;
    /* what the shard says */
    bool told, eof, refused;
    uint64_t room_epoch, floor, head, reached, reason;
    uint64_t cid;
    bool answered;
};

/* Over all rooms: commits happen whole. */
struct commits {
    uint32_t newest_there, oldest_gone;
};

static enum verdict fail(struct room_check *r, enum verdict v, const char *what, uint64_t a,
                         uint64_t b)
{
    if (r->verdict == VERDICT_GOOD) {
        r->verdict = v;
        strbuf_printf(r->why, "%s: %s (%llu, %llu); floor %llu head %llu reason %llu acked %llu",
                      world_key(r->room), what, (unsigned long long)a, (unsigned long long)b,
                      (unsigned long long)r->floor, (unsigned long long)r->head,
                      (unsigned long long)r->reason, (unsigned long long)r->acked_head);
    }
    return v;
}

/* ---- the history ---- */

static bool was_sent(const struct check *c, const struct op_note *op)
{
    return op->sent_at < c->cut && (op->state != OP_REFUSED || op->acked_at > c->cut);
}

static bool was_acked(const struct check *c, const struct op_note *op)
{
    return op->state == OP_ACKED && op->acked_at <= c->cut;
}

static void add_publish(struct room_check *r, uint32_t number)
{
    const struct op_note *op = &r->c->history->ops[number];
    uint64_t last = op->state == OP_ACKED ? op->seq : r->total + op->parts;
    if (r->c->damaged && op->epoch != r->room_epoch)
        return;
    for (uint32_t i = 0; i < op->parts && last < EVENTS_MAX; i++)
        r->places[last - op->parts + 1 + i] = (struct place){number + 1, i, op->ts};
    if (last != r->total + op->parts && !r->c->damaged)
        fail(r, VERDICT_WRONG, "seq of an answer", op->seq, r->total);
    r->total = last;
    if (was_acked(r->c, op))
        r->acked_head = last;
}

/* What must be there, once the epoch that the shard shows is known. */
static void recall(struct room_check *r)
{
    const struct history *h = r->c->history;
    for (uint32_t i = 0; i < h->n_ops; i++) {
        const struct op_note *op = &h->ops[i];
        if (!was_sent(r->c, op))
            continue;
        if (op->ts > r->now_ms)
            r->now_ms = op->ts;
        if (op->room != r->room)
            continue;
        if (op->kind == OP_PUBLISH) {
            if (was_acked(r->c, op))
                r->epoch = op->epoch;
            add_publish(r, i);
        } else if (was_acked(r->c, op)) {
            r->acked_purge = r->total;
        } else {
            r->maybe_purge = r->total;
        }
    }
}

static uint64_t floor_bound(const struct room_check *r)
{
    const struct retention *keeps = world_retention(r->room);
    uint64_t bound = r->acked_purge > r->maybe_purge ? r->acked_purge : r->maybe_purge;
    if (keeps->count > 0 && r->head > keeps->count && r->head - keeps->count > bound)
        bound = r->head - keeps->count;
    while (keeps->age_ms > 0 && bound < r->head && r->places[bound + 1].op &&
           r->places[bound + 1].ts + keeps->age_ms <= r->w->now.wall_ms)
        bound++;
    return bound;
}

/* ---- the shard's answers ---- */

static void on_item(struct room_check *r, const struct event_item *item)
{
    const struct place *at = item->seq < EVENTS_MAX ? &r->places[item->seq] : NULL;
    if (item->seq != r->reached + 1)
        fail(r, VERDICT_WRONG, "order", item->seq, r->reached);
    else if (!at || !at->op)
        fail(r, VERDICT_WRONG, "an event that nobody wrote", item->seq, r->total);
    else if (!slice_equal(item->payload, world_payload(r->c->history, at->op - 1, at->part)))
        fail(r, VERDICT_WRONG, "payload", item->seq, at->op - 1);
    else if (item->ts != at->ts)
        fail(r, VERDICT_WRONG, "time", item->seq, at->op - 1);
    r->reached = item->seq;
}

static void on_page(void *ctx, const struct message *m)
{
    struct room_check *r = ctx;
    if (m->cid != r->cid)
        return;
    r->answered = true;
    if (m->type != MSG_REPLAY) {
        r->refused = r->eof = true;
        return;
    }
    if (!r->told) {
        r->told = true;
        r->room_epoch = m->replay.room_epoch;
        r->floor = r->reached = m->replay.miss_to;
        r->reason = m->replay.miss_reason;
        recall(r);
    } else if (m->replay.miss_to > r->reached) { /* found while it was read */
        r->reason = m->replay.miss_reason;
        r->floor = r->reached = m->replay.miss_to;
    }
    r->head = m->replay.head;
    for (size_t i = 0; i < m->replay.items.count; i++)
        on_item(r, &m->replay.items.at[i]);
    r->reached = m->replay.after > r->reached ? m->replay.after : r->reached;
    r->eof = m->replay.eof;
}

static void read_room(struct room_check *r)
{
    r->w->on_answer = on_page;
    r->w->ctx = r;
    while (!r->eof && r->verdict == VERDICT_GOOD) {
        struct message m = {
            .type = MSG_REPLAY_REQ, .slot = SLOT_UNKNOWN, .key = slice_text(world_key(r->room))};
        m.replay_req.epoch = r->room_epoch;
        m.replay_req.after = r->reached;
        r->answered = false;
        r->cid = world_send(r->w, m);
        world_pump(r->w);
        if (!r->answered) {
            fail(r, VERDICT_WRONG, "no answer", 0, 0);
            break;
        }
    }
    r->w->on_answer = NULL;
}

static void judge_commits(const struct room_check *r, struct commits *commits)
{
    const struct history *h = r->c->history;
    for (uint32_t i = 0; i < h->n_ops; i++) {
        const struct op_note *op = &h->ops[i];
        if (op->kind != OP_PUBLISH || op->room != r->room || op->state != OP_ACKED ||
            op->sent_at >= r->c->cut)
            continue;
        if (op->seq <= r->head && op->acked_at > commits->newest_there)
            commits->newest_there = op->acked_at;
        if (op->seq > r->head && op->acked_at < commits->oldest_gone)
            commits->oldest_gone = op->acked_at;
    }
}

static void judge(struct room_check *r)
{
    uint64_t bound = floor_bound(r);
    if (r->c->damaged) {
        /* A floor above what retention explains is told as such to whoever reads below it. */
        bool renewed = r->refused || r->room_epoch != r->epoch;
        if (!renewed && r->head < r->acked_head)
            fail(r, VERDICT_LOST, "the newest is gone, and nobody was told", r->head, bound);
        else if (!renewed && r->floor > bound && r->reason == MISS_NONE)
            fail(r, VERDICT_LOST, "gone, and nobody was told", r->floor, bound);
        else if (!r->refused && r->reached != r->head)
            fail(r, VERDICT_LOST, "the log ends early", r->reached, r->head);
        return;
    }
    if (r->refused)
        fail(r, VERDICT_LOST, "a slot is not owned", r->room, 0);
    else if (r->epoch != 0 && r->room_epoch != r->epoch)
        fail(r, VERDICT_LOST, "another epoch", r->room_epoch, r->epoch);
    else if (r->head < r->acked_head)
        fail(r, VERDICT_LOST, "head", r->head, r->acked_head);
    else if (r->head > r->total)
        fail(r, VERDICT_WRONG, "head beyond what was sent", r->head, r->total);
    else if (r->floor > bound)
        fail(r, VERDICT_LOST, "floor", r->floor, bound);
    else if (r->floor < r->acked_purge)
        fail(r, VERDICT_WRONG, "purged events are back", r->floor, r->acked_purge);
    else if (r->reached != r->head)
        fail(r, VERDICT_LOST, "the log ends early", r->reached, r->head);
    else if (r->head < r->total && r->places[r->head + 1].part != 0)
        fail(r, VERDICT_WRONG, "half a batch", r->head, r->total);
    else if (r->reason == MISS_EPOCH)
        fail(r, VERDICT_LOST, "damage is told where there is none", r->head, 0);
}

/* ---- tokens, retries ---- */

static enum verdict check_tokens(const struct check *c, const struct world *w, struct strbuf *why)
{
    const struct history *h = c->history;
    uint64_t least = 1, most = 1;
    for (size_t i = 0; i < h->n_tokens; i++) {
        if (h->tokens[i].acked_at <= c->cut && h->tokens[i].acked_at != UINT32_MAX)
            least = h->tokens[i].epoch;
        if (h->tokens[i].sent_at < c->cut)
            most = h->tokens[i].epoch;
    }
    if (c->damaged || (w->token >= least && w->token <= most))
        return VERDICT_GOOD;
    strbuf_printf(why, "token %llu, must be %llu to %llu", (unsigned long long)w->token,
                  (unsigned long long)least, (unsigned long long)most);
    return w->token < least ? VERDICT_LOST : VERDICT_WRONG;
}

struct retry {
    uint64_t cid;
    struct message answer;
    bool answered;
};

static void on_retry(void *ctx, const struct message *m)
{
    struct retry *retry = ctx;
    if (m->cid == retry->cid) {
        retry->answer = *m;
        retry->answered = true;
    }
}

static struct message say(struct world *w, struct message m)
{
    struct retry retry = {0};
    w->on_answer = on_retry;
    w->ctx = &retry;
    retry.cid = world_send(w, m);
    world_pump(w);
    w->on_answer = NULL;
    return retry.answered ? retry.answer : (struct message){.type = MSG_ERR};
}

static struct message say_again(struct world *w, size_t op)
{
    struct slice parts[8];
    return say(w, world_publish(w, op, parts));
}

/* `head`: of its room. What is there is known again; the next one after it is stored, once. */
static enum verdict check_retry(const struct check *c, struct world *w, size_t number,
                                const uint64_t *heads, struct strbuf *why)
{
    const struct op_note *op = &c->history->ops[number];
    bool there = op->seq <= heads[op->room];
    struct message m = say_again(w, number);
    bool recent = op->ts + RECENT_MS > w->now.wall_ms;
    bool good;
    if (m.type == MSG_NACK)
        good = c->damaged || (m.nack.code == NACK_STALE && there && !recent);
    else if (there || c->damaged)
        good = m.type == MSG_PACK && m.pack.dup && m.pack.seq == op->seq;
    else
        good = m.type == MSG_PACK && !m.pack.dup && m.pack.seq == heads[op->room] + op->parts;
    if (good)
        return VERDICT_GOOD;
    strbuf_printf(why, "retry of op %zu (seq %llu, head %llu): %s %s, dup %llu, seq %llu", number,
                  (unsigned long long)op->seq, (unsigned long long)heads[op->room],
                  message_name(m.type), m.type == MSG_NACK ? nack_name(m.nack.code) : "",
                  (unsigned long long)m.pack.dup, (unsigned long long)m.pack.seq);
    return there ? VERDICT_LOST : VERDICT_WRONG;
}

static enum verdict check_retries(const struct check *c, struct world *w, const uint64_t *heads,
                                  struct strbuf *why)
{
    const struct history *h = c->history;
    size_t acked = 0, gone = h->n_ops;
    for (size_t i = 0; i < h->n_ops; i++) {
        const struct op_note *op = &h->ops[i];
        if (op->kind != OP_PUBLISH || op->state != OP_ACKED || op->sent_at >= c->cut)
            continue;
        if (was_acked(c, op))
            acked = i + 1;
        if (op->seq > heads[op->room] && gone == h->n_ops)
            gone = i;
    }
    enum verdict v = VERDICT_GOOD;
    if (acked > 0) {
        size_t back = c->dice % (acked < 20 ? acked : 20);
        const struct op_note *op = &h->ops[acked - 1 - back];
        if (op->kind == OP_PUBLISH && was_acked(c, op))
            v = check_retry(c, w, acked - 1 - back, heads, why);
    }
    if (v == VERDICT_GOOD && gone < h->n_ops && !c->damaged)
        v = check_retry(c, w, gone, heads, why);
    return v;
}

/* ---- all of it ---- */

static enum verdict check_rows(const struct check *c, struct world *w, struct strbuf *why)
{
    static const enum verdict verdicts[] = {
        [ROWS_GOOD] = VERDICT_GOOD, [ROWS_WRONG] = VERDICT_WRONG, [ROWS_LOST] = VERDICT_LOST};
    return verdicts[rows_check(w->store, c->damaged, why)];
}

enum verdict check_world(const struct check *c, struct world *w, struct strbuf *why)
{
    static struct place places[EVENTS_MAX];
    uint64_t heads[WORLD_ROOMS] = {0};
    struct commits commits = {.oldest_gone = UINT32_MAX};
    enum verdict v = check_rows(c, w, why);
    if (v == VERDICT_GOOD)
        v = check_tokens(c, w, why);
    for (unsigned room = 0; v == VERDICT_GOOD && room < WORLD_ROOMS; room++) {
        struct room_check r = {.c = c, .w = w, .why = why, .room = room, .places = places};
        read_room(&r);
        if (r.verdict == VERDICT_GOOD)
            judge(&r);
        judge_commits(&r, &commits);
        heads[room] = r.head;
        v = r.verdict;
        memset(places, 0,
               (size_t)(r.total < EVENTS_MAX ? r.total + 1 : EVENTS_MAX) * sizeof *places);
    }
    if (v == VERDICT_GOOD && !c->damaged && c->cut != CHECK_NOW &&
        commits.newest_there >= commits.oldest_gone) {
        strbuf_put_text(why, "a commit is there in part");
        v = VERDICT_WRONG;
    }
    return v == VERDICT_GOOD ? check_retries(c, w, heads, why) : v;
}

static int64_t time_of_cut(const struct check *c)
{
    int64_t wall = c->cut == CHECK_NOW ? c->history->now.wall_ms : 0;
    for (size_t i = 0; i < c->history->n_ops; i++) {
        const struct op_note *op = &c->history->ops[i];
        if (op->sent_at < c->cut && op->ts > wall)
            wall = op->ts;
    }
    return wall ? wall : INT64_C(1750000000000);
}

enum verdict check_dir(const struct check *c, struct strbuf *why)
{
    const struct world_start start = {
        LIFE_OF_CHECKS, {.mono_ns = NS_PER_S, .wall_ms = time_of_cut(c)}, c->after_eio};
    struct world *w = world_open(c->dir, c->history, &start, why);
    if (w == NULL)
        return VERDICT_REFUSED;
    enum verdict v = check_world(c, w, why);
    world_close(&w);
    return v;
}

static struct message settle_one(struct history *h, struct world *w, struct op_note *op)
{
    struct message m = {
        .type = MSG_PURGE, .slot = SLOT_UNKNOWN, .key = slice_text(world_key(op->room))};
    m = op->kind == OP_PURGE ? say(w, m) : say_again(w, (size_t)(op - h->ops));
    STOA_ASSERT(m.type == MSG_PACK);
    return m;
}

void check_settle(struct history *h, struct world *w)
{
    size_t n = h->n_ops;
    for (size_t i = 0; i < n; i++) {
        struct op_note *op = &h->ops[i];
        if (op->state != OP_SENT || op->kind != OP_PUBLISH)
            continue;
        struct message m = settle_one(h, w, op);
        if (!m.pack.dup)
            op->ts = w->now.wall_ms;
        op->seq = m.pack.seq;
        op->epoch = m.pack.room_epoch;
        op->state = OP_ACKED;
    }
    for (size_t i = 0; i < n; i++) { /* again, behind everything that was published meanwhile */
        struct op_note *op = &h->ops[i];
        if (op->state != OP_SENT)
            continue;
        (void)settle_one(h, w, op);
        STOA_ASSERT(h->n_ops < WORLD_OPS_MAX);
        h->ops[h->n_ops] = *op;
        h->ops[h->n_ops++].state = OP_ACKED;
        op->state = OP_REFUSED;
    }
}
