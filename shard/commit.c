/* CORE. The transaction of a turn: what was decided becomes durable, and only then leaves.
 *
 * Deciding changes the rooms at once, so that the next message of the turn sees its predecessor;
 * every change is noted. ERR_OK keeps them and lets out answers and deliveries. ERR_NO_SPACE takes
 * all of them back, newest first, to exactly what was before, and every answer of the turn becomes
 * NACK DISK. No other failure returns from the store. */
#include "shard/state.h"

#include "common/mutant.h"

#define FULL_PAUSE_NS (200 * NS_PER_MS)

/* ---- noting ---- */

struct stage *turn_stage(struct shard *s, struct room *room)
{
    struct turn *t = &s->turn;
    if (room->stage == 0) {
        *VEC_PUSH(&t->stages, struct stage) =
            (struct stage){.room = room,
                           .room_id = room->room_id,
                           .epoch = room->epoch,
                           .head = room->head,
                           .floor = room->floor,
                           .gone = room->gone,
                           .transients = room->transients,
                           .rows = room->rows,
                           .retained_bytes = room->retained_bytes,
                           .transient_bytes = room->transient_bytes,
                           .touched = room->touched,
                           .allowance = room->allowance,
                           .floor_reason = room->floor_reason};
        room->stage = (uint32_t)t->stages.count;
    }
    return &VEC_AT(&t->stages, struct stage)[room->stage - 1];
}

void turn_note_pid(struct shard *s, struct room *room, uint64_t pid)
{
    *VEC_PUSH(&s->turn.pids, struct pid_before) =
        (struct pid_before){.room = room, .pid = pid, .before = dedupe_pid(room->dedupe, pid)};
}

struct answer *turn_answer(struct shard *s, const struct op *op)
{
    struct answer *a = VEC_PUSH(&s->turn.answers, struct answer);
    *a = (struct answer){.asker = op->asker, .room = op->room, .uncounted = op->kind != OP_PUBLISH};
    return a;
}

struct answer *turn_reply(struct shard *s, struct room *room, struct asker asker,
                          struct reply *reply)
{
    struct answer *a = VEC_PUSH(&s->turn.answers, struct answer);
    *a = (struct answer){
        .asker = asker, .room = room, .kind = ANSWER_REPLY, .uncounted = true, .reply = reply};
    s->turn.joined |= reply->m.type == MSG_JOINED;
    return a;
}

bool turn_begin(struct shard *s)
{
    if (s->turn.open)
        return !s->turn.failed;
    int code = s->store->vtable->begin(s->store);
    STOA_ASSERT(code == ERR_OK || code == ERR_NO_SPACE);
    s->turn.open = code == ERR_OK;
    s->turn.failed |= code != ERR_OK;
    return s->turn.open;
}

bool turn_check(struct shard *s, int code)
{
    STOA_ASSERT(code == ERR_OK || code == ERR_NO_SPACE);
    if (code != ERR_OK)
        s->turn.failed = true;
    else
        s->turn.writes++;
    return code == ERR_OK;
}

/* ---- keeping or taking back ---- */

static void settle(struct shard *s)
{
    struct turn *t = &s->turn;
    trim_settle(s);
    actors_settle(s);
    for (size_t i = 0; i < t->stages.count; i++) {
        struct stage *stage = &VEC_AT(&t->stages, struct stage)[i];
        struct room *room = stage->room;
        if (stage->records > 0) {
            room_count_publish(room, s->clock_ms, stage->records);
            trim_ids(room);
            room_retain_exactly(s, room);
        }
        trim_schedule(s, room);
    }
    if (t->durable > 0)
        metric_observe(s->metric.commit_events, t->durable);
    s->published += t->durable;
}

static void stage_rollback(struct shard *s, const struct stage *stage)
{
    struct room *room = stage->room;
    for (uint32_t i = 0; i < stage->records; i++)
        retain_pop_newest(room->retain);
    for (uint32_t i = 0; i < stage->ids && !STOA_MUTANT(ROLLBACK_KEEPS_IDS); i++)
        dedupe_pop_newest(room->dedupe);
    if (room->retain && retain_count(room->retain) == 0)
        retain_destroy(&room->retain);
    if (room->dedupe && dedupe_count(room->dedupe) + dedupe_pids(room->dedupe) == 0)
        dedupe_destroy(&room->dedupe);
    if (room->room_id != stage->room_id)
        rooms_unbirth(s, room);
    room->epoch = stage->epoch;
    if (!STOA_MUTANT(ROLLBACK_KEEPS_HEAD))
        room->head = stage->head;
    room->floor = stage->floor;
    room->floor_reason = stage->floor_reason;
    room->gone = stage->gone;
    room->transients = stage->transients;
    room->rows = stage->rows;
    room->retained_bytes = stage->retained_bytes;
    room->transient_bytes = stage->transient_bytes;
    room->touched = stage->touched;
    room->allowance = stage->allowance;
}

static void rollback(struct shard *s)
{
    struct turn *t = &s->turn;
    for (size_t i = t->pids.count; i-- > 0;) {
        const struct pid_before *p = &VEC_AT(&t->pids, struct pid_before)[i];
        if (p->before.pid)
            dedupe_pid_set(p->room->dedupe, p->before);
        else
            dedupe_pid_remove(p->room->dedupe, p->pid);
    }
    for (size_t i = t->stages.count; i-- > 0;)
        stage_rollback(s, &VEC_AT(&t->stages, struct stage)[i]);
    s->retained_events = t->retained_events;
    s->retained_bytes = t->retained_bytes;
    if (t->asked) /* let trims go alone for a while */
        s->full_until_ns = s->now.mono_ns + FULL_PAUSE_NS;
    trim_rollback(s);
    actors_rollback(s);
    for (size_t i = 0; i < t->answers.count; i++) {
        struct answer *a = &VEC_AT(&t->answers, struct answer)[i];
        if (a->kind == ANSWER_REPLY && reply_fails(a->reply))
            continue;
        a->kind = ANSWER_NACK;
        a->code = NACK_DISK;
        a->expected = a->retry_ms = 0;
    }
    LOG(s->log, LOG_WARN, "shard.disk_full", LOG_U64("refused", t->answers.count));
}

/* True: everything noted is on disk (or nothing needed to be). */
static bool store_finish(struct shard *s)
{
    struct turn *t = &s->turn;
    if (!t->open)
        return !t->failed;
    t->open = false;
    if (t->failed || t->writes == 0) {
        s->store->vtable->abort(s->store);
        return !t->failed;
    }
    int code = s->store->vtable->commit(s->store);
    STOA_ASSERT(code == ERR_OK || code == ERR_NO_SPACE);
    s->commits += code == ERR_OK;
    return code == ERR_OK || STOA_MUTANT(COMMIT_ERROR_KEPT);
}

/* ---- letting out ---- */

static void nack_send(struct shard *s, struct asker asker, struct slice key, uint16_t slot,
                      const struct msg_nack *nack)
{
    if (!asker_is_there(s, asker))
        return;
    struct message m = {.type = MSG_NACK, .cid = asker.cid, .slot = slot, .key = key};
    m.ep = slot < SLOT_COUNT ? s->slot_epoch[slot] : 0;
    m.nack = *nack;
    hub_send(s->hub, asker.peer, &m);
}

void send_nack(struct shard *s, struct asker asker, struct slice key, uint16_t slot,
               enum nack_code code, uint64_t expected)
{
    const struct msg_nack nack = {.code = code, .expected = expected};
    nack_send(s, asker, key, slot, &nack);
}

static void answer_nack(struct shard *s, const struct answer *a)
{
    const struct msg_nack nack = {
        .code = a->code, .expected = a->expected, .retry_ms = a->retry_ms};
    nack_send(s, a->asker, room_key(a->room), a->room->slot, &nack);
}

static void send_pack(struct shard *s, const struct answer *a)
{
    if (!asker_is_there(s, a->asker))
        return;
    struct message m = {.type = MSG_PACK, .cid = a->asker.cid, .slot = a->room->slot};
    m.ep = s->slot_epoch[a->room->slot];
    m.key = room_key(a->room);
    m.pack.room_epoch = a->epoch;
    m.pack.seq = a->seq;
    m.pack.count = a->count;
    m.pack.dup = a->dup;
    m.pack.window_ms = (uint64_t)room_window_ms(s, a->room);
    hub_send(s->hub, a->asker.peer, &m);
}

static void answer_send(struct shard *s, const struct answer *a)
{
    if (a->kind == ANSWER_REPLY)
        reply_send(s, a);
    else if (a->kind == ANSWER_NACK)
        answer_nack(s, a);
    else
        send_pack(s, a);
    if (a->uncounted)
        return;
    if (a->kind == ANSWER_NACK)
        metrics_publish(s, RESULT_REFUSED + a->code, 1);
    else if (a->dup)
        metrics_publish(s, RESULT_DUPLICATE, 1);
    else
        metrics_publish(s, a->epoch ? RESULT_OK : RESULT_EPHEMERAL, 1);
}

static void turn_clear(struct shard *s)
{
    struct turn *t = &s->turn;
    for (size_t i = 0; i < t->ops.count; i++)
        op_destroy(VEC_AT(&t->ops, struct op *)[i]);
    for (size_t i = 0; i < t->answers.count; i++)
        mem_free(VEC_AT(&t->answers, struct answer)[i].reply);
    for (size_t i = 0; i < t->kept.count; i++)
        mem_free(VEC_AT(&t->kept, void *)[i]);
    for (size_t i = 0; i < t->stages.count; i++) {
        struct room *room = VEC_AT(&t->stages, struct stage)[i].room;
        room->stage = 0;
        rooms_drop_if_blank(s, room);
    }
    struct vec *lists[] = {&t->answers, &t->staged,  &t->stages, &t->pids, &t->ops,  &t->gone,
                           &t->removed, &t->expired, &t->actors, &t->kept, &t->dones};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        lists[i]->count = 0;
    memset(t->trim_ts, 0, sizeof t->trim_ts);
    t->failed = t->asked = t->joined = false;
    t->events = t->bytes = t->durable = t->writes = 0;
    t->code_ns = 0;
}

static bool is_joined(const struct answer *a)
{
    return a->kind == ANSWER_REPLY && a->reply->m.type == MSG_JOINED;
}

/* Who joined is told first, as what it is sent follows. Deliveries leave before other answers:
 * somebody watches them, while an ack waits in a publisher's window. */
static void let_out(struct shard *s, bool deliveries, bool answers)
{
    struct turn *t = &s->turn;
    for (size_t i = 0; answers && t->joined && i < t->answers.count; i++) {
        const struct answer *a = &VEC_AT(&t->answers, struct answer)[i];
        if (is_joined(a))
            answer_send(s, a);
    }
    for (size_t i = 0; deliveries && i < t->stages.count; i++)
        deliver_stage(s, &VEC_AT(&t->stages, struct stage)[i]);
    for (size_t i = 0; answers && i < t->answers.count; i++) {
        const struct answer *a = &VEC_AT(&t->answers, struct answer)[i];
        if (!is_joined(a))
            answer_send(s, a);
    }
}

static void reply_early(struct shard *s, enum message_type type)
{
    for (size_t i = 0; i < s->turn.answers.count; i++) {
        const struct answer *a = &VEC_AT(&s->turn.answers, struct answer)[i];
        if (a->kind == ANSWER_REPLY && a->reply->m.type == type)
            answer_send(s, a);
    }
    hub_flush(s->hub, s->now);
}

void turn_finish(struct shard *s)
{
    actors_write(s);
    if (STOA_MUTANT(JOINED_BEFORE_COMMIT))
        reply_early(s, MSG_JOINED);
    if (STOA_MUTANT(RESULT_BEFORE_COMMIT))
        reply_early(s, MSG_RESULT);
    if (STOA_MUTANT(INPUT_ACK_BEFORE_COMMIT))
        reply_early(s, MSG_INPUT_ACK);
    if (STOA_MUTANT(ACK_BEFORE_COMMIT) || STOA_MUTANT(DELIVER_BEFORE_COMMIT)) {
        let_out(s, STOA_MUTANT(DELIVER_BEFORE_COMMIT), STOA_MUTANT(ACK_BEFORE_COMMIT));
        hub_flush(s->hub, s->now);
    }
    bool kept = store_finish(s);
    if (kept)
        settle(s);
    else
        rollback(s);
    let_out(s, kept, true);
    turn_clear(s);
}

void turn_free(struct shard *s)
{
    struct turn *t = &s->turn;
    struct vec *lists[] = {&t->answers, &t->staged,  &t->stages, &t->pids, &t->ops,  &t->gone,
                           &t->removed, &t->expired, &t->actors, &t->kept, &t->dones};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        vec_free(lists[i]);
}
