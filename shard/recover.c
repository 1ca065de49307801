/* CORE. The scan at start: slots, rooms, then records in lsn order rebuild every index.
 *
 * A room's seqs are contiguous on disk: the oldest go first, from one end. So
 *   - what is missing below the first record was trimmed;
 *   - a hole between two records, or below the head that the row knows, is a damaged record: the
 *     floor rises over it (reason epoch) and the ids that might have been in it make their age the
 *     room's floor_ts, so a retry is STALE rather than stored twice.
 * If the holes account for every damaged record, that is all. If not, one of them may have been the
 * newest record of its room, and its seq must not be given out again: every room of that class
 * without a record behind the last damaged one gets a new epoch and loses what is retained,
 * durably, once (meta damaged_lsn.<class> remembers how far that was done). Too many rooms are told
 * `missed` then, none is told something wrong. */
#include "shard/state.h"

#include "common/mutant.h"

struct damage {
    uint64_t count;
    uint64_t last_lsn;
    bool open;     /* no intact record behind it yet */
    int64_t until; /* ts of the first intact record behind the last one */
};

struct recovery {
    struct shard *s;
    struct damage damage[STORE_CLASSES];
    uint64_t missing; /* seqs in holes */
    uint64_t orphans; /* records without a room */
    uint64_t n_slots, n_rooms, n_records;
};

static void clock_at_least(struct shard *s, int64_t ms)
{
    s->clock_ms = max_i64(s->clock_ms, ms);
}

/* ---- the visitor ---- */

static void on_slot(void *ctx, const struct store_slot *slot)
{
    struct recovery *r = (struct recovery *)ctx;
    struct shard *s = r->s;
    r->n_slots++;
    if (slot->slot >= SLOT_COUNT || slot->epoch == 0)
        return;
    s->slots_owned += s->slot_epoch[slot->slot] == 0;
    s->slot_epoch[slot->slot] = slot->epoch;
}

static bool row_is_sound(struct shard *s, const struct store_room *row)
{
    return row->room_id != 0 && row->epoch != 0 && row->floor <= row->head &&
           row->class_no < STORE_CLASSES && row->slot < SLOT_COUNT && row->key.size >= 1 &&
           row->key.size <= KEY_MAX_BYTES && !rooms_find(s, row->key) &&
           !map_get(s->by_id, map_id(&row->room_id));
}

static enum miss_reason row_reason(const struct store_room *row)
{
    if (row->floor == 0)
        return MISS_NONE;
    if (row->purged)
        return MISS_PURGED;
    return row->floor == row->head ? MISS_EXPIRED : MISS_EVICTED;
}

static void on_room(void *ctx, const struct store_room *row)
{
    struct recovery *r = (struct recovery *)ctx;
    struct shard *s = r->s;
    if (!row_is_sound(s, row)) {
        LOG(s->log, LOG_ERROR, "shard.bad_row", LOG_U64("slot", row->slot));
        return;
    }
    struct room *room = rooms_open(s, row->key, row->slot);
    s->types[room->type].rooms[room->class_no]--;
    room->class_no = row->class_no;
    s->types[room->type].rooms[room->class_no]++;
    rooms_birth(s, room, row->room_id, row->epoch);
    room->head = row->head;
    room->floor = STOA_MUTANT(RECOVER_NO_FLOOR) ? 0 : row->floor;
    room->floor_reason = (uint8_t)row_reason(row);
    room->floor_ts = row->floor_ts;
    room->touched = row->touched;
    clock_at_least(s, max_i64(row->touched, row->floor_ts));
    r->n_rooms++;
}

static void forget_all(struct room *room, int64_t ts)
{
    retain_destroy(&room->retain);
    dedupe_destroy(&room->dedupe);
    room->floor_ts = max_i64(room->floor_ts, ts);
}

static void remember(struct shard *s, struct room *room, const struct store_record *record)
{
    if (!room->dedupe && (record->pid || dedupe_is_id(record->msg_id)))
        room->dedupe = dedupe_create(s->map_seed);
    struct dedupe_hit hit;
    if (dedupe_is_id(record->msg_id) && !STOA_MUTANT(RECOVER_NO_IDS) &&
        !dedupe_find(room->dedupe, record->msg_id, &hit)) {
        uint64_t last = record->seq + record->batch_count - 1 - record->batch_index;
        dedupe_add(room->dedupe, record->msg_id, last, record->batch_count);
    }
    if (record->pid)
        dedupe_pid_set(
            room->dedupe,
            (struct dedupe_pid){.pid = record->pid, .pseq = record->pseq, .seq = record->seq});
}

static void on_record(void *ctx, unsigned class_no, const struct store_record *record)
{
    struct recovery *r = (struct recovery *)ctx;
    struct shard *s = r->s;
    struct damage *damage = &r->damage[class_no];
    clock_at_least(s, record->ts);
    if (record->lsn >= s->next_lsn)
        s->next_lsn = record->lsn + 1;
    if (damage->open)
        damage->until = record->ts;
    damage->open = false;
    struct room *room = (struct room *)map_get(s->by_id, map_id(&record->room_id));
    uint64_t next = room && room->retain ? retain_last(room->retain) + 1 : 1;
    bool sound = room && room->class_no == class_no && record->seq >= next &&
                 record->batch_index < record->batch_count;
    if (!sound) {
        /* Its row was lost, so its key may be born again: what could be a retry is stale. */
        r->orphans++;
        s->class_floor_ts[class_no] = max_i64(s->class_floor_ts[class_no], record->ts);
        return;
    }
    if (room->retain && record->seq != next) {
        r->missing += record->seq - next;
        forget_all(room, record->ts);
        room->floor = record->seq - 1;
        room->floor_reason = MISS_EPOCH;
    }
    if (!room->retain) {
        room->retain = retain_create();
        if (record->seq - 1 > room->floor) {
            room->floor = record->seq - 1;
            room->floor_reason = MISS_EXPIRED;
        }
    }
    if (record->flags & EVENT_TRANSIENT)
        retain_push_transient(room->retain, record->seq, record->lsn, record->ts,
                              (uint32_t)record->payload.size);
    else
        retain_push(room->retain, record->seq, record->lsn, record->ts,
                    (uint32_t)record->payload.size, record->conflate, record->filter);
    remember(s, room, record);
    r->n_records++;
}

static void on_row(void *ctx, const struct store_row *row)
{
    struct recovery *r = (struct recovery *)ctx;
    actor_row(r->s, row);
}

static void on_damaged_row(void *ctx, const struct store_row *row)
{
    const struct recovery *r = (const struct recovery *)ctx;
    metric_add(r->s->metric.damaged, 1);
    LOG(r->s->log, LOG_ERROR, "shard.damaged_row", LOG_U64("table", row->table),
        LOG_SLICE("name", row->name));
}

static void on_damaged(void *ctx, unsigned class_no, uint64_t lsn)
{
    struct recovery *r = (struct recovery *)ctx;
    struct damage *damage = &r->damage[class_no];
    damage->count++;
    damage->last_lsn = lsn;
    damage->open = true;
    if (lsn >= r->s->next_lsn)
        r->s->next_lsn = lsn + 1;
    metric_add(r->s->metric.damaged, 1);
}

/* ---- after the scan ---- */

static void lose_retained(struct shard *s, struct room *room)
{
    room->floor = room->head;
    room->floor_reason = MISS_EPOCH;
    forget_all(room, s->clock_ms);
}

/* The head, from the last record or from the row; what the row knows and no record shows is gone.
 */
static void room_close(struct recovery *r, struct room *room)
{
    uint64_t last = room->retain ? retain_last(room->retain) : room->floor;
    if (last < room->head) {
        r->missing += room->head - last;
        lose_retained(r->s, room);
    }
    if (room->retain) {
        room->head = last - (STOA_MUTANT(RECOVER_HEAD) && last > room->floor + 1);
        room->touched = max_i64(room->touched, retain_at(room->retain, last)->ts);
    }
}

/* `lost`: what to believe when the value itself is damaged. */
static uint64_t meta_u64(struct shard *s, const char *name, uint64_t lost)
{
    uint64_t value = 0;
    int code = s->store->vtable->get_meta(s->store, name, &value);
    STOA_ASSERT(code == ERR_OK || code == ERR_NOT_FOUND || code == ERR_CORRUPT);
    if (code == ERR_CORRUPT)
        LOG(s->log, LOG_ERROR, "shard.damaged_meta", LOG_STR("name", name));
    if (code == ERR_CORRUPT)
        return lost;
    return code == ERR_OK ? value : 0;
}

static void class_meta_name(char name[32], const char *what, unsigned class_no)
{
    size_t size = strlen(what);
    memcpy(name, what, size);
    name[size] = (char)('0' + class_no);
    name[size + 1] = '\0';
}

/* New epochs for the rooms of a class that may have lost their newest record. */
static void renew_class(struct recovery *r, unsigned class_no)
{
    struct shard *s = r->s;
    const struct damage *damage = &r->damage[class_no];
    char name[32];
    class_meta_name(name, "damaged_lsn.", class_no);
    if (damage->count == 0 || damage->last_lsn <= meta_u64(s, name, 0) || !turn_begin(s))
        return;
    uint64_t renewed = 0;
    size_t cursor = 0;
    struct room *room;
    while ((room = (struct room *)map_next(s->by_id, &cursor)) != NULL) {
        uint64_t lsn = room->retain ? retain_at(room->retain, retain_last(room->retain))->lsn : 0;
        if (room->class_no != class_no || lsn > damage->last_lsn)
            continue;
        lose_retained(s, room);
        room->epoch = rng_u64(&s->rng) | 1;
        struct store_room row;
        room_row(room, &row);
        (void)turn_check(s, s->store->vtable->put_room(s->store, &row));
        renewed++;
    }
    (void)turn_check(s, s->store->vtable->put_meta(s->store, name, damage->last_lsn));
    LOG(s->log, LOG_ERROR, "shard.rooms_renewed", LOG_U64("class", class_no),
        LOG_U64("damaged", damage->count), LOG_U64("rooms", renewed));
}

/* Whether what the turn holds is durable now. */
static bool store_write(struct shard *s, const char *what)
{
    if (s->turn.open && !s->turn.failed) {
        int code = s->store->vtable->commit(s->store);
        STOA_ASSERT(code == ERR_OK || code == ERR_NO_SPACE);
        s->turn.failed = code != ERR_OK;
    } else if (s->turn.open) {
        s->store->vtable->abort(s->store);
    }
    bool written = !s->turn.failed;
    if (!written)
        LOG(s->log, LOG_ERROR, "shard.no_space_at_start", LOG_STR("lost", what));
    s->turn.open = s->turn.failed = false;
    s->turn.writes = 0;
    return written;
}

static void settle_damage(struct recovery *r)
{
    struct shard *s = r->s;
    uint64_t damaged = 0;
    for (unsigned c = 0; c < STORE_CLASSES; c++) {
        const struct damage *damage = &r->damage[c];
        damaged += damage->count;
        if (damage->count > 0)
            s->class_floor_ts[c] =
                max_i64(s->class_floor_ts[c], damage->open ? s->clock_ms : damage->until);
    }
    if (damaged == 0)
        return;
    LOG(s->log, LOG_ERROR, "shard.damaged_records", LOG_U64("count", damaged),
        LOG_U64("in_holes", r->missing));
    if (damaged == r->missing)
        return;
    for (unsigned c = 0; c < STORE_CLASSES; c++)
        renew_class(r, c);
    (void)store_write(s, "the new epochs of rooms with damaged records");
}

static void room_open_index(struct shard *s, struct room *room)
{
    for (uint64_t seq = room->floor + 1; seq <= room->head; seq++) {
        bool transient = retain_is_transient(room->retain, seq);
        *(transient ? &room->transient_bytes : &room->retained_bytes) +=
            retain_at(room->retain, seq)->size;
        room->transients += transient;
    }
    room->gone = room->floor;
    s->retained_bytes += room->retained_bytes;
    s->retained_events += room->head - room->floor - room->transients;
    trim_ids(room);
    room_retain_exactly(s, room);
    trim_schedule(s, room);
}

/* ---- a new store ---- */

static void grant_slots(struct shard *s, const struct shard_options *options)
{
    STOA_ASSERT(options->grant_lo <= options->grant_hi && options->grant_hi < SLOT_COUNT);
    size_t count = (size_t)options->grant_hi - options->grant_lo + 1;
    struct store_slot *slots = (struct store_slot *)mem_zalloc(count * sizeof *slots);
    for (size_t i = 0; i < count; i++)
        slots[i] = (struct store_slot){.slot = (uint16_t)(options->grant_lo + i), .epoch = 1};
    if (turn_begin(s) && turn_check(s, s->store->vtable->put_slots(s->store, slots, count)))
        (void)turn_check(s, s->store->vtable->put_meta(s->store, "granted", 1));
    /* A token that is not on disk is none: what was stored under it would be lost with the next
     * start, which grants nothing to a store that has rooms. */
    bool granted = store_write(s, "the grant of slots");
    for (size_t i = 0; i < count && granted; i++)
        s->slot_epoch[slots[i].slot] = 1;
    s->slots_owned = granted ? (unsigned)count : 0;
    mem_free(slots);
}

static void read_metas(struct shard *s)
{
    uint64_t lsn = meta_u64(s, "next_lsn", 0); /* the scan knows better unless all was trimmed */
    s->next_lsn = lsn > 1 ? lsn : 1;
    for (unsigned c = 0; c < STORE_CLASSES; c++) {
        char name[32];
        class_meta_name(name, "trim_ts.", c);
        s->trim_ts[c] = (int64_t)meta_u64(s, name, (uint64_t)s->clock_ms);
        s->class_floor_ts[c] = s->trim_ts[c];
        clock_at_least(s, s->trim_ts[c]);
    }
}

void recover(struct shard *s, const struct shard_options *options)
{
    struct recovery r = {.s = s};
    read_metas(s);
    const struct store_visitor visitor = {.ctx = &r,
                                          .slot = on_slot,
                                          .room = on_room,
                                          .record = on_record,
                                          .damaged = on_damaged,
                                          .row = on_row,
                                          .damaged_row = on_damaged_row};
    int code = s->store->vtable->scan(s->store, &visitor);
    STOA_ASSERT(code == ERR_OK);
    bool is_new = r.n_slots + r.n_rooms + r.n_records == 0 && meta_u64(s, "granted", 1) == 0;
    if (is_new && options->grant)
        grant_slots(s, options);
    size_t cursor = 0;
    struct room *room;
    while ((room = (struct room *)map_next(s->by_id, &cursor)) != NULL)
        room_close(&r, room);
    settle_damage(&r);
    cursor = 0;
    while ((room = (struct room *)map_next(s->by_id, &cursor)) != NULL)
        room_open_index(s, room);
    (void)cold_walk(s, SIZE_MAX, 0);
    LOG(s->log, LOG_INFO, "shard.open", LOG_U64("slots", s->slots_owned),
        LOG_U64("rooms", r.n_rooms), LOG_U64("records", r.n_records),
        LOG_U64("orphans", r.orphans));
    metric_add(s->metric.orphans, r.orphans);
}
