/* CORE. A publish, from the packet into its room's FIFO (intake), and from the FIFO into the
 * transaction or to a refusal (decide).
 *
 * Intake checks what needs no room state and answers BUSY at once. Decide runs in the turn, in the
 * order of the room, and answers through the output gate even when it refuses: an ORDER that was
 * true only if this transaction commits must not be told before. The order of questions:
 *   owned?  ephemeral?  known id -> duplicate   first sent before what ids are remembered -> STALE
 *   not the publisher's next -> ORDER   no space -> DISK   too many -> RATE   else append */
#include "shard/actor.h"

#include "common/json.h"
#include "common/mutant.h"
#include "common/utf8.h"

void metrics_publish(struct shard *s, unsigned result, uint64_t n)
{
    metric_add(s->metric.publish[result], n);
}

/* ---- intake ---- */

static enum nack_code pub_check(const struct shard *s, const struct msg_pub *pub, uint32_t *bytes)
{
    if (pub->payloads.count == 0)
        return NACK_INVALID;
    if (pub->payloads.count > BATCH_MAX_EVENTS)
        return NACK_TOOBIG;
    size_t sum = 0;
    for (size_t i = 0; i < pub->payloads.count; i++) {
        if (pub->payloads.at[i].size > s->payload_max_bytes)
            return NACK_TOOBIG;
        sum += pub->payloads.at[i].size;
    }
    if (sum > BATCH_MAX_BYTES)
        return NACK_TOOBIG;
    if (pub->conflate.size > CONFLATE_MAX_BYTES || pub->filter.size > FILTER_MAX_BYTES)
        return NACK_TOOBIG;
    *bytes = (uint32_t)sum;
    return NACK_NONE;
}

static struct op *op_of(const struct msg_pub *pub, uint32_t bytes, struct buf *packet)
{
    struct op *op = op_create((uint32_t)pub->payloads.count);
    op->packet = buf_ref(packet);
    op->ephemeral = (pub->flags & PUB_EPHEMERAL) != 0;
    op->typed = (pub->flags & PUB_TYPED) != 0;
    memcpy(op->msg_id, pub->msg_id, sizeof op->msg_id);
    op->pid = pub->pid;
    op->pseq = pub->pseq;
    op->ts = pub->ts;
    op->conflate = pub->conflate;
    op->filter = pub->filter;
    op->bytes = bytes;
    for (uint32_t i = 0; i < op->n_parts; i++)
        op->parts[i] = (struct op_part){.data = pub->payloads.at[i].data,
                                        .size = (uint32_t)pub->payloads.at[i].size};
    return op;
}

struct asker asker_of(const struct shard *s, uint32_t peer, const struct message *m)
{
    return (struct asker){.peer = peer, .life = s->clients[peer]->life, .cid = m->cid};
}

static void refuse(struct shard *s, struct asker asker, const struct message *m, uint16_t slot,
                   enum nack_code code)
{
    metrics_publish(s, RESULT_REFUSED + code, 1);
    send_nack(s, asker, m->key, slot, code, 0);
}

void publish_intake(struct shard *s, uint32_t peer, const struct message *m, struct buf *packet)
{
    struct asker asker = asker_of(s, peer, m);
    uint16_t slot;
    uint32_t bytes = 0;
    enum nack_code code = slot_check(s, m, &slot);
    if (code == NACK_NONE)
        code = pub_check(s, &m->pub, &bytes);
    if (code == NACK_NONE && s->draining)
        code = NACK_BUSY;
    struct room *room = code == NACK_NONE ? rooms_find(s, m->key) : NULL;
    if (room && !fifo_has_room(room, bytes))
        code = NACK_BUSY;
    if (code != NACK_NONE) {
        refuse(s, asker, m, slot, code);
        return;
    }
    struct op *op = op_of(&m->pub, bytes, packet);
    op->asker = asker;
    fifo_push(&s->ready, room ? room : rooms_open(s, m->key, slot), op);
}

void purge_intake(struct shard *s, uint32_t peer, const struct message *m)
{
    struct asker asker = asker_of(s, peer, m);
    uint16_t slot;
    enum nack_code code = slot_check(s, m, &slot);
    if (code == NACK_NONE && s->draining)
        code = NACK_BUSY;
    struct room *room = code == NACK_NONE ? rooms_open(s, m->key, slot) : NULL;
    if (room && !fifo_has_room(room, 0))
        code = NACK_BUSY;
    if (code != NACK_NONE) {
        send_nack(s, asker, m->key, slot, code, 0);
        return;
    }
    struct op *op = op_create(0);
    op->kind = OP_PURGE;
    op->asker = asker;
    fifo_push(&s->ready, room, op);
}

/* ---- decide ---- */

uint32_t payload_flags(struct slice payload)
{
    if (json_valid(payload)) /* and so UTF-8: the scanner checks strings, the rest is ASCII */
        return EVENT_JSON | EVENT_UTF8;
    return utf8_valid(payload) ? EVENT_UTF8 : 0;
}

static void decide_flags(struct op *op)
{
    for (uint32_t i = 0; i < op->n_parts; i++) {
        struct slice payload = slice_of(op->parts[i].data, op->parts[i].size);
        op->parts[i].flags = payload_flags(payload);
        if (op->typed && (op->parts[i].flags & EVENT_JSON) && json_type_of(payload) == JSON_OBJECT)
            op->parts[i].flags |= EVENT_TYPED;
    }
}

static void answer_nack(struct shard *s, const struct op *op, enum nack_code code,
                        uint64_t expected)
{
    struct answer *a = turn_answer(s, op);
    a->kind = ANSWER_NACK;
    a->code = code;
    a->expected = expected;
}

static void answer_pack(struct shard *s, const struct op *op, uint64_t epoch, uint64_t seq,
                        uint64_t count, bool dup)
{
    struct answer *a = turn_answer(s, op);
    a->kind = ANSWER_PACK;
    a->epoch = epoch;
    a->seq = seq;
    a->count = count;
    a->dup = dup;
}

static void stage_item(struct shard *s, struct stage *stage, struct event_item item)
{
    struct turn *t = &s->turn;
    *VEC_PUSH(&t->staged, struct staged) = (struct staged){.item = item};
    uint32_t place = (uint32_t)t->staged.count;
    if (stage->last)
        VEC_AT(&t->staged, struct staged)[stage->last - 1].next = place;
    else
        stage->first = place;
    stage->last = place;
}

static struct event_item item_of(const struct shard *s, const struct op *op, uint32_t part)
{
    return (struct event_item){.ts = s->clock_ms,
                               .flags = op->parts[part].flags,
                               .conflate = op->conflate,
                               .filter = op->filter,
                               .payload = slice_of(op->parts[part].data, op->parts[part].size)};
}

void publish_ephemeral(struct shard *s, struct room *room, struct event_item *item)
{
    item->flags |= EVENT_EPHEMERAL;
    item->prev = item->seq = room->head;
    stage_item(s, turn_stage(s, room), *item);
}

/* Refused as one publish too many. */
static bool over_rate(struct shard *s, const struct op *op)
{
    uint64_t retry_ms;
    if (room_rate_take(s, op->room, op->n_parts, &retry_ms))
        return false;
    struct answer *a = turn_answer(s, op);
    a->kind = ANSWER_NACK;
    a->code = NACK_RATE;
    a->retry_ms = retry_ms;
    return true;
}

static void decide_ephemeral(struct shard *s, struct op *op)
{
    if (over_rate(s, op))
        return;
    decide_flags(op);
    for (uint32_t i = 0; i < op->n_parts; i++) {
        struct event_item item = item_of(s, op, i);
        publish_ephemeral(s, op->room, &item);
    }
    answer_pack(s, op, 0, 0, op->n_parts, false);
}

static void pid_advance(struct shard *s, const struct op *op, uint64_t seq)
{
    struct room *room = op->room;
    if (op->pid == 0)
        return;
    if (!room->dedupe)
        room->dedupe = dedupe_create(s->map_seed);
    turn_note_pid(s, room, op->pid);
    dedupe_pid_set(room->dedupe, (struct dedupe_pid){.pid = op->pid, .pseq = op->pseq, .seq = seq});
}

static uint64_t pid_expected(const struct op *op)
{
    const struct room *room = op->room;
    return room->dedupe ? dedupe_pid(room->dedupe, op->pid).pseq + 1 : 1;
}

static bool decide_duplicate(struct shard *s, const struct op *op)
{
    struct room *room = op->room;
    struct dedupe_hit hit;
    if (STOA_MUTANT(NO_DEDUPE))
        return false;
    if (!room->dedupe || !dedupe_is_id(op->msg_id) || !dedupe_find(room->dedupe, op->msg_id, &hit))
        return false;
    if (op->pid != 0 && op->pseq == pid_expected(op))
        pid_advance(s, op, hit.last);
    answer_pack(s, op, room->epoch, STOA_MUTANT(DUP_TELLS_HEAD) ? room->head : hit.last, hit.count,
                true);
    return true;
}

static bool put_row(struct shard *s, const struct room *room, uint64_t head)
{
    struct store_room row;
    room_row(room, &row);
    row.head = head;
    return turn_check(s, s->store->vtable->put_room(s->store, &row));
}

bool publish_append(struct shard *s, struct room *room, struct event_item *item,
                    struct store_record *record)
{
    struct stage *stage = turn_stage(s, room);
    uint32_t size = (uint32_t)item->payload.size;
    bool transient = (item->flags & EVENT_TRANSIENT) != 0;
    item->prev = room->head;
    item->seq = room->head + 1;
    record->lsn = s->next_lsn;
    record->room_id = room->room_id;
    record->seq = item->seq;
    record->ts = item->ts;
    record->flags = item->flags;
    record->slot = room->slot;
    record->conflate = item->conflate;
    record->filter = item->filter;
    record->payload = item->payload;
    if (!turn_check(s, s->store->vtable->append(s->store, room->class_no, record)))
        return false;
    if (!room->retain)
        room->retain = retain_create();
    if (transient)
        retain_push_transient(room->retain, item->seq, s->next_lsn++, item->ts, size);
    else
        retain_push(room->retain, item->seq, s->next_lsn++, item->ts, size, item->conflate,
                    item->filter);
    stage->records++;
    room->head = item->seq;
    *(transient ? &room->transient_bytes : &room->retained_bytes) += size;
    room->transients += transient;
    s->retained_bytes += transient ? 0 : size;
    s->retained_events += !transient;
    s->turn.durable++;
    stage_item(s, stage, *item);
    return true;
}

static bool append_part(struct shard *s, const struct op *op, uint32_t part)
{
    struct event_item item = item_of(s, op, part);
    struct store_record record = {.pid = op->pid,
                                  .pseq = op->pid ? op->pseq : 0,
                                  .batch_index = part,
                                  .batch_count = op->n_parts};
    memcpy(record.msg_id, op->msg_id, sizeof record.msg_id);
    return publish_append(s, op->room, &item, &record);
}

static uint64_t random_nonzero(struct shard *s)
{
    uint64_t n;
    do
        n = rng_u64(&s->rng);
    while (n == 0);
    return n;
}

bool publish_born(struct shard *s, struct room *room, uint64_t head)
{
    if (room->epoch != 0)
        return true;
    uint64_t room_id;
    do
        room_id = random_nonzero(s);
    while (map_get(s->by_id, map_id(&room_id)));
    rooms_birth(s, room, room_id, random_nonzero(s));
    return put_row(s, room, head);
}

static void append_publish(struct shard *s, struct op *op)
{
    struct room *room = op->room;
    struct stage *stage = turn_stage(s, room);
    s->turn.asked = true;
    if (!turn_begin(s) || !publish_born(s, room, op->n_parts))
        return;
    decide_flags(op);
    for (uint32_t i = 0; i < op->n_parts - (STOA_MUTANT(BATCH_CUT) && op->n_parts > 1); i++) {
        if (!append_part(s, op, i))
            return;
    }
    if (dedupe_is_id(op->msg_id)) {
        if (!room->dedupe)
            room->dedupe = dedupe_create(s->map_seed);
        dedupe_add(room->dedupe, op->msg_id, room->head, op->n_parts);
        stage->ids++;
    }
    pid_advance(s, op, room->head);
    room->touched = s->clock_ms;
}

static void decide_durable(struct shard *s, struct op *op)
{
    struct room *room = op->room;
    if (decide_duplicate(s, op))
        return;
    int64_t floor_ts = room_floor_ts(s, room);
    if (dedupe_is_id(op->msg_id) && floor_ts != 0 && op->ts <= floor_ts && !STOA_MUTANT(NO_STALE)) {
        answer_nack(s, op, NACK_STALE, 0);
        return;
    }
    if (op->pid != 0 && op->pseq != pid_expected(op) && !STOA_MUTANT(NO_ORDER)) {
        answer_nack(s, op, NACK_ORDER, pid_expected(op));
        return;
    }
    if (!s->has_space) {
        answer_nack(s, op, NACK_DISK, 0);
        return;
    }
    if (over_rate(s, op))
        return;
    append_publish(s, op);
    answer_pack(s, op, room->epoch, room->head, op->n_parts, false);
}

void publish_purge(struct shard *s, struct room *room)
{
    if (room->epoch != 0 && room->floor < room->head) {
        room->touched = s->clock_ms;
        s->turn.asked = true;
        room_floor_raise(s, room, room->head, MISS_PURGED);
        if (turn_begin(s))
            (void)put_row(s, room, room->head);
    }
}

static void decide_purge(struct shard *s, struct op *op)
{
    struct room *room = op->room;
    if (room->actor || (room->rows > 0 && room_handler(s, room)))
        actor_purge(s, actor_wake(s, room));
    else
        publish_purge(s, room);
    answer_pack(s, op, room->epoch, room->head, 0, false);
}

void publish_decide(struct shard *s, struct op *op)
{
    *VEC_PUSH(&s->turn.ops, struct op *) = op;
    (void)turn_stage(s, op->room);
    if (!slot_owned(s, op->room->slot) && !STOA_MUTANT(SERVE_UNOWNED))
        answer_nack(s, op, NACK_NOTOWNER, 0);
    else if (op->kind == OP_PURGE)
        decide_purge(s, op);
    else if (op->ephemeral)
        decide_ephemeral(s, op);
    else
        decide_durable(s, op);
}
