/* CORE. Connections of a room with a handler: they join, say things, leave, and each leaves once.
 *
 *   JOIN    identify -> limits, duplicates -> on_connect -> row + JOINED in one commit
 *   INPUT   the next counter runs on_event and is written with what it did; an older one is
 *           acknowledged again; a later one is a gap and waits for the gateway to send it anew
 *   LEAVE   on_close, and the row goes in the same commit
 *
 * Which link a connection comes by is known in memory only. When that is lost (a restart, a link)
 * the gateway says JOIN again; who is not confirmed within MEMBER_CONFIRM_MS is closed, recovered,
 * and so is, at once, whose gateway has started anew (reboot.c).
 */
#include "shard/actor.h"
#include "shard/quarantine.h"

#include <stdio.h>

#include "common/json.h"
#include "common/mutant.h"
#include "common/utf8.h"

#define CONFIRM_NS (MEMBER_CONFIRM_MS * NS_PER_MS)
#define ID_MAX_BYTES 256
#define TAGS_JSON_MAX_BYTES 16384
#define CONFIRM_STEP 256 /* on_closes of one op */
#define CODE_REPLACED 1012
#define CODE_LOST 1006

/* ---- one connection ---- */

struct connection *member_find(const struct actor *a, struct slice session)
{
    return (struct connection *)map_get(a->by_session, session);
}

struct connection *member_create(struct actor *a, struct slice session, uint64_t number)
{
    STOA_ASSERT(session.size >= 1 && session.size <= SESSION_MAX_BYTES);
    struct connection *c = (struct connection *)mem_zalloc(sizeof *c);
    c->actor = a;
    memcpy(c->session, session.data, session.size);
    c->session_size = (uint8_t)session.size;
    c->number = number;
    *VEC_PUSH(&a->connections, struct connection *) = c;
    map_put(a->by_session, member_session(c), c);
    return c;
}

void member_free(struct connection *c)
{
    (void)map_remove(c->actor->by_session, member_session(c));
    struct strbuf *texts[] = {&c->id, &c->state, &c->meta, &c->tags_json, &c->tag_text};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        strbuf_free(texts[i]);
    mem_free(c);
}

void member_touch(struct connection *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    *VEC_PUSH(&c->actor->dirty, struct connection *) = c;
}

void member_watch(struct shard *s, struct room *room, int64_t lost_ns)
{
    int64_t due = lost_ns + CONFIRM_NS;
    if (!heap_has(&room->confirm) || due < room->confirm.due)
        heap_set(&s->confirms, &room->confirm, due);
}

void member_unconfirm(struct shard *s, struct connection *c)
{
    c->peer = 0;
    c->lost_ns = s->now.mono_ns;
    member_watch(s, c->actor->room, c->lost_ns);
}

/* ---- who it is ---- */

static size_t characters(struct slice text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.size; i++)
        n += (text.data[i] & 0xc0) != 0x80;
    return n;
}

static bool take_tags(struct connection *c, struct slice tags, struct fault *why)
{
    size_t count;
    bool fit = json_texts(tags, &c->tag_text, c->tags, CONTEXT_TAGS_MAX, &count);
    c->n_tags = (uint8_t)count;
    if (!fit && count == CONTEXT_TAGS_MAX) {
        fault_set(why, "RoomValidationError", "more than %d tags", CONTEXT_TAGS_MAX);
        return false;
    }
    for (size_t i = 0; i < count; i++)
        fit &= characters(c->tags[i]) <= CONTEXT_TAG_MAX_CHARS;
    if (!fit) {
        fault_set(why, "RoomValidationError", "a tag is a text of at most %d characters",
                  CONTEXT_TAG_MAX_CHARS);
        return false;
    }
    for (size_t i = 0; i < c->n_tags; i++) {
        for (size_t k = 0; k < i; k++) {
            if (slice_equal(c->tags[i], c->tags[k])) {
                fault_set(why, "RoomValidationError", "a tag stands there twice");
                return false;
            }
        }
    }
    return true;
}

bool member_describe(struct connection *c, struct slice id, struct slice tags, struct slice state,
                     unsigned max_state, struct fault *why)
{
    if (id.size > ID_MAX_BYTES || !utf8_valid(id)) {
        fault_set(why, "RoomValidationError", "an id is a text of at most %d bytes", ID_MAX_BYTES);
        return false;
    }
    if (tags.size == 0)
        tags = slice_text("[]");
    if (tags.size > TAGS_JSON_MAX_BYTES || !json_valid(tags) || json_type_of(tags) != JSON_ARRAY) {
        fault_set(why, "RoomValidationError", "tags are a list of texts");
        return false;
    }
    if (!take_tags(c, tags, why))
        return false;
    if (state.size > max_state) {
        fault_set(why, "AttachmentTooLargeError", "the connection's state has %zu bytes, not %u",
                  state.size, max_state);
        return false;
    }
    strbuf_put_slice(&c->id, id);
    strbuf_put_slice(&c->tags_json, tags);
    strbuf_put_slice(&c->state, state.size > 0 ? state : slice_text("null"));
    return true;
}

/* ---- leaving ---- */

static void close_run(struct shard *s, struct connection *c, const struct op *op, unsigned code,
                      struct slice reason, bool clean, bool recovered)
{
    struct task t = {.kind = TASK_LEAVE, .actor = c->actor, .connection = c, .packet = op->packet};
    t.what = (struct invocation){.phase = PHASE_CLOSE,
                                 .code = code,
                                 .reason = reason,
                                 .clean = clean,
                                 .replaced = c->replaced,
                                 .recovered = recovered};
    c->closing = c->leaving = true;
    actor_touch(s, c->actor);
    segment_run(s, &t);
}

void member_left(struct shard *s, struct task *t)
{
    struct connection *c = t->connection;
    c->gone = true;
    member_touch(c);
    presence_tell_leave(s, c);
}

/* It is gone for everybody; on_close comes when the room is released. */
static void leave_quarantined(struct shard *s, struct connection *c, unsigned code)
{
    actor_touch(s, c->actor);
    if (!c->closing)
        c->close_code = (uint16_t)code;
    c->closing = true;
    member_touch(c);
    member_unconfirm(s, c);
}

static void decide_leave(struct shard *s, struct op *op)
{
    struct room *room = op->room;
    if (!room->actor && room->rows == 0)
        return;
    const struct msg_leave *m = &op->leave;
    struct connection *c = member_find(actor_wake(s, room), m->session);
    if (!c || c->leaving || c->gone)
        return;
    if (c->joining || !s->has_space) {
        member_unconfirm(s, c); /* on_close comes, later */
        return;
    }
    if (room_quarantined(s, room)) {
        leave_quarantined(s, c, (unsigned)m->code);
        return;
    }
    close_run(s, c, op, (unsigned)m->code, m->reason, m->clean != 0, false);
    if (STOA_MUTANT(REPLACED_CLOSES_TWICE) && c->replaced)
        close_run(s, c, op, (unsigned)m->code, m->reason, m->clean != 0, false);
}

/* As long ago as can be, if it is not waited for. */
static int64_t lost_since(const struct shard *s, const struct connection *c)
{
    return reboot_is_over(s, c->life) ? s->now.mono_ns - CONFIRM_NS : c->lost_ns;
}

static bool is_lost(const struct shard *s, const struct connection *c)
{
    return c->peer == 0 && !c->joining && !c->leaving && !c->gone &&
           lost_since(s, c) + CONFIRM_NS <= s->now.mono_ns;
}

static void lost_run(struct shard *s, struct connection *c, const struct op *op)
{
    if (STOA_MUTANT(LOST_UNTOLD)) {
        actor_touch(s, c->actor);
        c->gone = true;
        member_touch(c);
        return;
    }
    close_run(s, c, op, c->closing && c->close_code ? c->close_code : CODE_LOST, (struct slice){0},
              false, true);
}

static void decide_confirm(struct shard *s, struct op *op)
{
    struct room *room = op->room;
    if (!s->has_space) {
        heap_set(&s->confirms, &room->confirm, s->now.mono_ns + NS_PER_S);
        return;
    }
    if (room_quarantined(s, room)) {
        heap_set(&s->confirms, &room->confirm, s->now.mono_ns + QUARANTINE_LOOK_MS * NS_PER_MS);
        return;
    }
    struct actor *a = actor_wake(s, room);
    size_t closed = 0;
    for (size_t i = 0; i < a->connections.count && closed < CONFIRM_STEP; i++) {
        struct connection *c = VEC_AT(&a->connections, struct connection *)[i];
        if (!is_lost(s, c))
            continue;
        lost_run(s, c, op);
        closed++;
    }
    for (size_t i = 0; i < a->connections.count; i++) {
        const struct connection *c = VEC_AT(&a->connections, struct connection *)[i];
        if (c->peer == 0 && !c->leaving && !c->gone)
            member_watch(s, room, c->joining ? s->now.mono_ns : lost_since(s, c));
    }
}

/* ---- joining ---- */

static void refuse_join(struct shard *s, const struct op *op, const struct fault *fault)
{
    reply_joined(s, op->room, op->asker, op->join.session, NULL, fault);
}

static void confirm(struct shard *s, struct connection *c, const struct op *op)
{
    c->peer = op->asker.peer;
    c->life = op->asker.life;
    c->wants_members = op->join.members != 0;
    reply_joined(s, op->room, op->asker, member_session(c), c, NULL);
    if (c->closing)
        reply_close(s, c, c->close_code ? c->close_code : CODE_REPLACED, (struct slice){0});
}

/* The run of its on_connect, which waits. */
static void joining_again(struct connection *c, const struct op *op)
{
    c->peer = op->asker.peer;
    c->life = op->asker.life;
    c->wants_members = op->join.members != 0;
    LIST_EACH(at, after, &c->actor->waiting)
    {
        struct task *t = &LIST_ENTRY(at, struct waiting, in_actor)->task;
        if (t->kind == TASK_JOIN && t->connection == c)
            t->asker = op->asker;
    }
}

static bool counts(const struct connection *c)
{
    return !c->closing && !c->gone && (c->peer != 0 || c->joining);
}

static size_t open_count(const struct actor *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->connections.count; i++)
        n += counts(VEC_AT(&a->connections, struct connection *)[i]);
    return n;
}

/* Others of the same id: the unconfirmed ones end, the others decide. False: refused. */
static bool duplicates_pass(struct shard *s, const struct connection *c, const struct op *op,
                            struct fault *why)
{
    struct actor *a = c->actor;
    enum on_duplicate policy = a->handler->traits.on_duplicate;
    for (size_t i = 0; policy != DUPLICATE_ALLOW && i < a->connections.count; i++) {
        struct connection *other = VEC_AT(&a->connections, struct connection *)[i];
        if (other == c || other->gone || other->leaving ||
            !slice_equal(strbuf_slice(&other->id), strbuf_slice(&c->id)))
            continue;
        if (other->peer == 0 && !other->joining) {
            lost_run(s, other, op);
        } else if (!other->closing && policy == DUPLICATE_REJECT) {
            fault_set(why, "Duplicate", "the id is connected already");
            return false;
        } else if (!other->closing) {
            other->closing = other->replaced = true; /* and told so once the new one is in */
            other->close_code = 0;
        }
    }
    return true;
}

static void replaced_settle(struct shard *s, const struct connection *c, bool joined)
{
    struct actor *a = c->actor;
    for (size_t i = 0; i < a->connections.count; i++) {
        struct connection *other = VEC_AT(&a->connections, struct connection *)[i];
        if (other == c || !other->replaced || other->close_code != 0 || other->leaving ||
            !slice_equal(strbuf_slice(&other->id), strbuf_slice(&c->id)))
            continue;
        other->closing = other->replaced = joined;
        if (!joined)
            continue;
        other->close_code = CODE_REPLACED;
        member_touch(other);
        reply_close(s, other, CODE_REPLACED, slice_text("replaced"));
    }
}

/* A state that identify gives is one of the room's, as one that set_state gives. */
static bool state_fits(struct shard *s, const struct op *op, const struct handler *h,
                       struct slice state, struct fault *fault)
{
    if (state.size == 0 || handler_admits(h, BOUNDARY_CONNECTION, state, "RoomError", fault))
        return true;
    LOG(s->log, LOG_WARN, "room.identify_failed", LOG_SLICE("key", room_key(op->room)),
        LOG_STR("tag", fault->tag), LOG_SLICE("error", strbuf_slice(&fault->message)));
    return false;
}

static bool identify(struct shard *s, struct connection *c, const struct op *op,
                     struct fault *fault)
{
    struct handler *h = c->actor->handler;
    struct persona who = {0};
    watch_enter(s, op->room, "identify");
    bool known = h->vtable->identify(h, op->join.request, &who, fault);
    watch_leave(s, op->room, PHASE_COUNT);
    if (!known) {
        LOG(s->log, LOG_WARN, "room.identify_failed", LOG_SLICE("key", room_key(op->room)),
            LOG_STR("tag", fault->tag), LOG_SLICE("error", strbuf_slice(&fault->message)));
        if (who.stopped)
            quarantine_strike(s, c->actor, "identify", strbuf_slice(&fault->message));
        fault_set(fault, "UpgradeError", "the room could not tell who this is");
        return false;
    }
    if (who.status != 0) {
        fault_set(fault, "UpgradeError", "%.*s", SLICE_FMT(who.refusal));
        fault->status = who.status;
        return false;
    }
    char drawn[33];
    (void)snprintf(drawn, sizeof drawn, "%016llx%016llx", (unsigned long long)rng_u64(&s->rng),
                   (unsigned long long)rng_u64(&s->rng));
    if (!member_describe(c, who.id.size > 0 ? who.id : slice_text(drawn), who.tags, who.state,
                         h->traits.max_connection_state, fault) ||
        !state_fits(s, op, h, who.state, fault))
        return false;
    strbuf_put_slice(&c->meta, who.meta);
    return true;
}

static bool may_join(struct shard *s, struct connection *c, const struct op *op,
                     struct fault *fault)
{
    struct actor *a = c->actor;
    unsigned max = a->handler->traits.max_connections;
    if (!identify(s, c, op, fault) || !duplicates_pass(s, c, op, fault))
        return false;
    if (a->connections.count > max && open_count(a) > max) {
        replaced_settle(s, c, false);
        fault_set(fault, "RoomFull", "the room takes no more than %u connections", max);
        return false;
    }
    return true;
}

static void forget_newest(struct connection *c)
{
    struct actor *a = c->actor;
    STOA_ASSERT(VEC_AT(&a->connections, struct connection *)[a->connections.count - 1] == c);
    a->connections.count--;
    member_free(c);
}

static void join_new(struct shard *s, struct actor *a, struct op *op)
{
    struct fault fault = {0};
    struct connection *c = member_create(a, op->join.session, a->next_number);
    c->joining = true;
    c->peer = op->asker.peer;
    c->life = op->asker.life;
    c->wants_members = op->join.members != 0;
    if (may_join(s, c, op, &fault)) {
        a->next_number++;
        /* on_close of those whose place it takes was before it */
        c->head = op->room->head - (STOA_MUTANT(JOIN_HEAD_EARLY) && op->room->head > 0);
        actor_touch(s, a);
        struct task t = {.kind = TASK_JOIN,
                         .actor = a,
                         .connection = c,
                         .what = {.phase = PHASE_CONNECT},
                         .packet = op->packet,
                         .asker = op->asker};
        segment_run(s, &t);
    } else {
        refuse_join(s, op, &fault);
        forget_newest(c);
    }
    fault_free(&fault);
}

void member_joined(struct shard *s, struct task *t, const struct fault *fault)
{
    struct connection *c = t->connection;
    replaced_settle(s, c, fault == NULL);
    strbuf_free(&c->meta);
    c->joining = false;
    c->gone = fault != NULL;
    c->closing |= c->gone;
    member_touch(c);
    if (!fault)
        presence_tell_join(s, c);
    reply_joined(s, t->actor->room, t->asker, member_session(c), fault ? NULL : c, fault);
}

static void decide_join(struct shard *s, struct op *op)
{
    if (!asker_is_there(s, op->asker))
        return;
    struct room *room = op->room;
    bool again = op->join.again != 0;
    struct connection *c =
        room->actor || room->rows > 0 ? member_find(actor_wake(s, room), op->join.session) : NULL;
    if (c && c->joining && !c->gone) {
        joining_again(c, op);
    } else if (c && !c->leaving && !c->gone) {
        confirm(s, c, op);
    } else if (c || again) {
        struct fault fault = {0};
        fault_set(&fault, "UpgradeError", "the session has ended");
        fault.status = 410;
        refuse_join(s, op, &fault);
        fault_free(&fault);
    } else if (!s->has_space) {
        actors_refuse(s, op, NACK_DISK);
    } else if (room_quarantined(s, room)) {
        struct fault fault = {0};
        quarantine_fault(&fault);
        refuse_join(s, op, &fault);
        fault_free(&fault);
    } else {
        join_new(s, actor_wake(s, room), op);
    }
}

/* ---- what it says ---- */

static void input_run(struct shard *s, struct connection *c, struct op *op)
{
    struct task t = {.kind = TASK_INPUT, .actor = c->actor, .connection = c, .packet = op->packet};
    t.what = (struct invocation){.phase = PHASE_EVENT, .input = op->input.frame};
    actor_touch(s, c->actor);
    c->counter = op->input.counter;
    member_touch(c);
    reply_ack(s, c, NACK_NONE);
    if (room_quarantined(s, c->actor->room))
        quarantine_dropped(s);
    else
        segment_run(s, &t);
}

/* One too many for the room: it is passed over, for good. */
static void input_refuse(struct shard *s, struct connection *c, const struct op *op)
{
    actor_touch(s, c->actor);
    c->counter = op->input.counter;
    member_touch(c);
    reply_refused(s, c);
}

static void decide_input(struct shard *s, struct op *op)
{
    struct room *room = op->room;
    const struct msg_input *m = &op->input;
    uint64_t retry_ms;
    struct connection *c =
        room->actor || room->rows > 0 ? member_find(actor_wake(s, room), m->session) : NULL;
    if (!c || c->gone) {
        reply_close_session(s, room, op->asker, m->session, 1012, (struct slice){0});
        return;
    }
    if (c->joining || c->closing)
        return;
    if (c->peer == 0 && asker_is_there(s, op->asker)) {
        c->peer = op->asker.peer; /* who speaks is there */
        c->life = op->asker.life;
    }
    bool known = m->counter <= c->counter;
    if (known && STOA_MUTANT(INPUT_AGAIN))
        input_run(s, c, op);
    if (known)
        reply_ack(s, c, NACK_NONE);
    else if (m->counter == c->counter + 1 && !s->has_space)
        reply_ack(s, c, NACK_DISK);
    else if (m->counter == c->counter + 1 && !room_rate_take(s, room, 1, &retry_ms))
        input_refuse(s, c, op);
    else if (m->counter == c->counter + 1 || STOA_MUTANT(INPUT_GAP))
        input_run(s, c, op);
}

void member_decide(struct shard *s, struct op *op)
{
    switch (op->kind) {
    case OP_JOIN:
        decide_join(s, op);
        break;
    case OP_LEAVE:
        decide_leave(s, op);
        break;
    case OP_INPUT:
        decide_input(s, op);
        break;
    default:
        decide_confirm(s, op);
        break;
    }
}
