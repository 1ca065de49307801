/* CORE. All rooms with handlers: what comes in for them, what is due, and what the scan at start
 * found of them. Everything that runs goes through the room's FIFO, in the order of arrival. */
#include "shard/actor.h"
#include "shard/quarantine.h"

#include "common/mutant.h"

void actors_create(struct shard *s)
{
    list_init(&s->actors);
    list_init(&s->dones);
    s->waits = map_create(s->map_seed);
    s->done_by_id = map_create(s->map_seed);
    s->start_ns = s->now.mono_ns;
}

void actors_destroy(struct shard *s)
{
    while (!list_empty(&s->actors))
        actor_drop(s, LIST_ENTRY(s->actors.next, struct actor, lru), NULL);
    while (!list_empty(&s->dones)) {
        struct done *d = LIST_ENTRY(s->dones.next, struct done, by_age);
        list_remove(&d->by_age);
        buf_unref(d->value);
        mem_free(d);
    }
    map_destroy(&s->waits);
    map_destroy(&s->done_by_id);
    heap_free(&s->waits_due);
}

/* ---- found at start ---- */

void actor_row(struct shard *s, const struct store_row *row)
{
    struct room *room = (struct room *)map_get(s->by_id, map_id(&row->room_id));
    if (!room) {
        metric_add(s->metric.orphans, 1);
        return;
    }
    room->rows++;
    struct alarm alarm = {0};
    switch (row->table) {
    case TABLE_CONNECTION:
        if (!STOA_MUTANT(RECOVER_ALL_THERE))
            member_watch(s, room, s->start_ns);
        break;
    case TABLE_ALARM:
        if (row_alarm(row->value, &alarm)) {
            room->alarm_dead = alarm.dead;
            s->alarms_dead += alarm.dead;
            if (!alarm.dead && !STOA_MUTANT(RECOVER_NO_ALARM))
                heap_set(&s->alarms, &room->alarm, alarm.due_ms);
        }
        strbuf_free(&alarm.why);
        break;
    case TABLE_DONE:
        done_row(s, room, row);
        break;
    case TABLE_QUARANTINE:
        quarantine_row(s, room, row);
        break;
    default:
        break;
    }
}

/* ---- intake ---- */

static enum nack_code intake_check(const struct shard *s, const struct message *m, uint32_t *bytes)
{
    struct slice session = m->type == MSG_JOIN    ? m->join.session
                           : m->type == MSG_LEAVE ? m->leave.session
                                                  : m->input.session;
    *bytes = 0;
    if (m->type == MSG_CALL) {
        *bytes = (uint32_t)m->call.input.size;
        if (m->call.verb > VERB_RELEASE)
            return NACK_INVALID;
    } else if (session.size < 1 || session.size > SESSION_MAX_BYTES) {
        return NACK_INVALID;
    }
    if (m->type == MSG_INPUT)
        *bytes = (uint32_t)m->input.frame.size;
    if (m->type == MSG_JOIN)
        *bytes = (uint32_t)m->join.request.size;
    if (*bytes > s->payload_max_bytes)
        return NACK_TOOBIG;
    return s->draining && m->type != MSG_LEAVE ? NACK_BUSY : NACK_NONE;
}

static void refuse(struct shard *s, uint32_t peer, const struct message *m, uint16_t slot,
                   enum nack_code code)
{
    struct asker asker = asker_of(s, peer, m);
    if (m->type == MSG_JOIN || m->type == MSG_CALL) {
        send_nack(s, asker, m->key, slot, code, 0);
        return;
    }
    if (m->type != MSG_INPUT)
        return; /* a connection that ended is missed when it is not confirmed */
    const struct room *room = rooms_find(s, m->key);
    const struct connection *c =
        room && room->actor ? member_find(room->actor, m->input.session) : NULL;
    struct message reply = {.type = MSG_INPUT_ACK, .slot = slot, .key = m->key};
    reply.ep = slot < SLOT_COUNT ? s->slot_epoch[slot] : 0;
    reply.input_ack.session = m->input.session;
    reply.input_ack.counter = c ? c->counter : 0;
    reply.input_ack.code = code;
    hub_send(s->hub, peer, &reply);
}

static struct op *op_of(const struct message *m, uint32_t bytes, struct buf *packet)
{
    struct op *op = op_create(0);
    op->packet = buf_ref(packet);
    op->bytes = bytes;
    switch (m->type) {
    case MSG_JOIN:
        op->kind = OP_JOIN;
        op->join = m->join;
        break;
    case MSG_LEAVE:
        op->kind = OP_LEAVE;
        op->leave = m->leave;
        break;
    case MSG_INPUT:
        op->kind = OP_INPUT;
        op->input = m->input;
        break;
    default:
        op->kind = OP_CALL;
        op->call = m->call;
        break;
    }
    return op;
}

void actors_intake(struct shard *s, uint32_t peer, const struct message *m, struct buf *packet)
{
    uint16_t slot;
    uint32_t bytes = 0;
    enum nack_code code = slot_check(s, m, &slot);
    if (code == NACK_NONE)
        code = intake_check(s, m, &bytes);
    struct room *room = code == NACK_NONE ? rooms_find(s, m->key) : NULL;
    if (room && m->type != MSG_LEAVE && !fifo_has_room(room, bytes))
        code = NACK_BUSY;
    if (code != NACK_NONE) {
        refuse(s, peer, m, slot, code);
        return;
    }
    if (room && m->type == MSG_CALL && wait_is_reentrant(room, m->call.chain)) {
        wait_refuse_reentrant(s, peer, m);
        return;
    }
    struct op *op = op_of(m, bytes, packet);
    op->asker = asker_of(s, peer, m);
    fifo_push(&s->ready, room ? room : rooms_open(s, m->key, slot), op);
}

/* ---- due ---- */

static void push_due(struct shard *s, struct room *room, enum op_kind kind)
{
    struct op *op = op_create(0);
    op->kind = kind;
    fifo_push(&s->ready, room, op);
}

void actors_due(struct shard *s)
{
    struct heap_node *node;
    while ((node = heap_pop_due(&s->alarms, s->clock_ms)) != NULL)
        push_due(s, LIST_ENTRY(node, struct room, alarm), OP_ALARM);
    while ((node = heap_pop_due(&s->confirms, s->now.mono_ns)) != NULL)
        push_due(s, LIST_ENTRY(node, struct room, confirm), OP_CONFIRM);
    while ((node = heap_pop_due(&s->waits_due, s->now.mono_ns)) != NULL)
        wait_is_due(s, LIST_ENTRY(node, struct waiting, due));
}

int64_t actors_deadline(const struct shard *s)
{
    int64_t due = heap_next(&s->confirms), alarm_ms = heap_next(&s->alarms);
    if (heap_next(&s->waits_due) < due)
        due = heap_next(&s->waits_due);
    if (alarm_ms == TICK_NEVER)
        return due;
    int64_t alarm_ns = s->now.mono_ns + max_i64(alarm_ms - s->clock_ms, 0) * NS_PER_MS;
    return alarm_ns < due ? alarm_ns : due;
}

/* ---- decide ---- */

static void nack(struct shard *s, struct op *op, enum nack_code code)
{
    struct answer *a = turn_answer(s, op);
    a->kind = ANSWER_NACK;
    a->code = code;
}

void actors_refuse(struct shard *s, struct op *op, enum nack_code code)
{
    struct actor nobody = {.room = op->room};
    struct task t = {.actor = &nobody, .waiter = op->waiter};
    struct fault fault = {0};
    if (op->kind == OP_CALL && op->waiter != 0) {
        fault_set(&fault, "RoomError", "the room refused the call: %s", nack_name(code));
        fault.status = 503;
        reply_result(s, &t, &fault, (struct slice){0}, false, false);
        fault_free(&fault);
    } else if (op->kind == OP_JOIN || op->kind == OP_CALL) {
        nack(s, op, code);
    }
}

static void decide_no_handler(struct shard *s, struct op *op)
{
    struct actor nobody = {.room = op->room};
    struct task t = {.actor = &nobody, .asker = op->asker, .waiter = op->waiter};
    struct fault fault = {0};
    fault_set(&fault, "NoHandler", "rooms of this type have no handler");
    if (op->kind == OP_JOIN)
        reply_joined(s, op->room, op->asker, op->join.session, NULL, &fault);
    else if (op->kind == OP_CALL)
        reply_result(s, &t, &fault, (struct slice){0}, false, false);
    else if (op->kind == OP_INPUT)
        reply_close_session(s, op->room, op->asker, op->input.session, 1012, (struct slice){0});
    fault_free(&fault);
}

void actors_decide(struct shard *s, struct op *op)
{
    struct room *room = op->room;
    *VEC_PUSH(&s->turn.ops, struct op *) = op;
    (void)turn_stage(s, room);
    if (!slot_owned(s, room->slot)) {
        actors_refuse(s, op, NACK_NOTOWNER);
        return;
    }
    if (!room_handler(s, room)) {
        decide_no_handler(s, op);
        return;
    }
    switch (op->kind) {
    case OP_CALL:
        call_decide(s, op);
        break;
    case OP_ALARM:
        alarm_decide(s, op);
        break;
    case OP_RESUME:
        wait_decide(s, op);
        break;
    default:
        member_decide(s, op);
        break;
    }
    fifo_settle(&s->ready, room);
}

/* ---- links and types ---- */

void actors_client_gone(struct shard *s, uint32_t peer, struct room *room)
{
    bool lost = false;
    for (uint32_t i = 0; i < room->n_links; i++) {
        if (room->links[i].peer != peer)
            continue;
        room->links[i].peer = 0;
        room->links[i].lost_ns = s->now.mono_ns;
        lost = true;
    }
    for (size_t i = 0; room->actor && i < room->actor->connections.count; i++) {
        struct connection *c = VEC_AT(&room->actor->connections, struct connection *)[i];
        if (c->peer == peer)
            member_unconfirm(s, c);
    }
    if (lost)
        member_watch(s, room, s->now.mono_ns);
}

void actors_retyped(struct shard *s, struct room *room)
{
    struct actor *a = room->actor;
    if (!a || a->handler == room_handler(s, room))
        return;
    LIST_EACH(at, after, &a->waiting)
    {
        const struct task *t = &LIST_ENTRY(at, struct waiting, in_actor)->task;
        if (t->asker.peer != 0)
            send_nack(s, t->asker, room_key(room), room->slot, NACK_BUSY, 0);
    }
    actor_drop(s, a, NULL);
    rooms_drop_if_blank(s, room);
}

/* ---- invariants ---- */

void actors_validate(const struct shard *s, const struct room *room)
{
    const struct actor *a = room->actor;
    STOA_ASSERT(a || !room->held);
    if (!a)
        return;
    STOA_ASSERT(a->room == room && !a->touched && !a->segment && a->dirty.count == 0);
    STOA_ASSERT(!room->links && map_count(a->by_session) == a->connections.count);
    uint64_t before = 0;
    for (size_t i = 0; i < a->connections.count; i++) {
        const struct connection *c = VEC_AT(&a->connections, struct connection *)[i];
        STOA_ASSERT(c->number > before && c->actor == a && !c->dirty);
        STOA_ASSERT(c->peer == 0 || s->clients[c->peer]);
        STOA_ASSERT(c->counter == c->durable);
        before = c->number;
    }
}
