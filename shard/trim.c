/* CORE. What leaves the disk, and when.
 *
 * Retention is exact and logical: it raises floors (rooms.c). Records stay longer, because the log
 * is also the memory of message ids. They go in two ways, both inside transactions:
 *   by age     from the oldest end of a class, once older than the longest window of its rooms: one
 *              range, no row is touched unless a room's last record goes
 *   by room    what count, bytes or a purge put below the floor, once older than the shortest
 *              window (5 min): a hot room must not keep an hour of evicted records. The room's row
 *              is written in the same transaction with floor_ts raised, so that a retry of a
 *              forgotten message is answered STALE, never stored again.
 * Both are bounded: twice of what a turn appends, or IDLE_RECORDS in a turn of its own.
 *
 * Rows of rooms that have nothing left and nobody subscribed go after a day beyond retention. What
 * their floor_ts said is then said by the class. */
#include "shard/state.h"

#include "common/mutant.h"

#define IDLE_RECORDS 1000
#define LOOK_NS (5 * NS_PER_S)       /* between looks at the oldest ends */
#define LOOK_AGAIN_NS (1 * NS_PER_S) /* when something went, or failed */
#define EXPIRY_NS (10 * NS_PER_S)
#define EXPIRY_ROOMS 1000
#define NEVER_MS INT64_MAX

/* ---- which record may go ---- */

/* The class's own trimming takes it, cheaper. */
static bool left_to_class(const struct shard *s, const struct room *room, const struct retained *e)
{
    int64_t window = room_window_ms(s, room);
    return window != INT64_MAX && e->ts + window <= s->clock_ms &&
           class_window_ms(s, room->class_no) != INT64_MAX;
}

/* When the record may be removed for its room alone, NEVER_MS: not by this way. */
static int64_t removal_due(const struct shard *s, const struct room *room, uint64_t seq)
{
    const struct retained *e = retain_at(room->retain, seq);
    int64_t window = room_window_ms(s, room);
    if (seq > room->floor) {
        bool never_by_class =
            window != INT64_MAX && class_window_ms(s, room->class_no) == INT64_MAX;
        return never_by_class ? e->ts + window + 1 : NEVER_MS;
    }
    if (left_to_class(s, room, e))
        return NEVER_MS;
    bool no_id = seq <= room->ids_floor || retain_is_transient(room->retain, seq);
    return no_id ? s->clock_ms : e->ts + IDEMPOTENCY_WINDOW_MIN_MS;
}

void trim_schedule(struct shard *s, struct room *room)
{
    int64_t due = room->retain ? removal_due(s, room, retain_first(room->retain)) : NEVER_MS;
    if (due == NEVER_MS)
        heap_remove(&s->removals, &room->removal);
    else
        heap_set(&s->removals, &room->removal, due);
}

void trim_ids(struct room *room)
{
    while (room->dedupe && dedupe_count(room->dedupe) > IDEMPOTENCY_IDS_PER_ROOM_MAX) {
        uint64_t last = dedupe_forget_oldest(room->dedupe);
        room->ids_floor = last;
        room->floor_ts = max_i64(room->floor_ts, retain_at(room->retain, last)->ts);
    }
}

/* ---- deciding ---- */

static bool put_row_after(struct shard *s, const struct room *room, uint64_t upto, int64_t ts)
{
    struct store_room row;
    room_row(room, &row);
    if (upto > row.floor) {
        row.floor = upto;
        row.purged = 0;
    }
    row.floor_ts = max_i64(row.floor_ts, ts);
    return turn_check(s, s->store->vtable->put_room(s->store, &row));
}

/* Returns how many records went. */
static size_t remove_of_room(struct shard *s, struct room *room, size_t max)
{
    (void)turn_stage(s, room);
    room_retain_exactly(s, room);
    heap_remove(&s->removals, &room->removal);
    *VEC_PUSH(&s->turn.removed, struct room *) = room;
    uint64_t first = retain_first(room->retain);
    uint64_t seq = first;
    while (seq <= room->floor && seq - first < max && removal_due(s, room, seq) <= s->clock_ms) {
        uint64_t lsn = retain_at(room->retain, seq)->lsn;
        if (!turn_check(s, s->store->vtable->remove(s->store, room->class_no, lsn)))
            return 0;
        seq++;
    }
    if (seq == first)
        return 0;
    int64_t ts = retain_at(room->retain, seq - 1)->ts;
    *VEC_PUSH(&s->turn.gone, struct gone) = (struct gone){.room = room, .upto = seq - 1, .ts = ts};
    (void)put_row_after(s, room, seq - 1, ts);
    return seq - first;
}

static size_t remove_due(struct shard *s, size_t max)
{
    size_t done = 0;
    if (s->now.mono_ns < s->removal_pause_ns)
        return 0;
    while (done < max && heap_next(&s->removals) <= s->clock_ms && turn_begin(s)) {
        struct heap_node *node = heap_pop_due(&s->removals, s->clock_ms);
        done += remove_of_room(s, LIST_ENTRY(node, struct room, removal), max - done);
        if (s->turn.failed)
            break;
    }
    return done;
}

struct trim_visit {
    struct shard *s;
    unsigned class_no;
};

static void on_gone(void *ctx, const struct store_record *record)
{
    const struct trim_visit *visit = (const struct trim_visit *)ctx;
    struct shard *s = visit->s;
    struct turn *t = &s->turn;
    t->trim_ts[visit->class_no] = max_i64(t->trim_ts[visit->class_no], record->ts);
    struct room *room = (struct room *)map_get(s->by_id, map_id(&record->room_id));
    if (!room)
        return;
    struct gone *last = t->gone.count ? &VEC_AT(&t->gone, struct gone)[t->gone.count - 1] : NULL;
    if (!last || last->room != room || !last->by_age) {
        last = VEC_PUSH(&t->gone, struct gone);
        *last = (struct gone){.room = room, .by_age = true};
    }
    last->upto = record->seq;
    last->ts = record->ts;
}

static bool put_class_meta(struct shard *s, unsigned class_no)
{
    char name[] = "trim_ts.0";
    name[sizeof name - 2] = (char)('0' + class_no);
    const struct store_vtable *store = s->store->vtable;
    return turn_check(s, store->put_meta(s->store, name, (uint64_t)s->turn.trim_ts[class_no])) &&
           turn_check(s, store->put_meta(s->store, "next_lsn", s->next_lsn));
}

static size_t trim_class(struct shard *s, unsigned class_no, size_t max)
{
    int64_t window = class_window_ms(s, class_no);
    if (window == INT64_MAX || max == 0 || !turn_begin(s))
        return 0;
    struct trim_visit visit = {.s = s, .class_no = class_no};
    size_t first = s->turn.gone.count, trimmed = 0;
    size_t writes = s->turn.writes;
    if (!turn_check(s, s->store->vtable->trim(s->store, class_no,
                                              s->clock_ms -
                                                  window / (STOA_MUTANT(TRIM_CLASS) ? 100 : 1) - 1,
                                              max, on_gone, &visit, &trimmed)))
        return 0;
    s->turn.writes = writes + trimmed;
    for (size_t i = first; i < s->turn.gone.count; i++) {
        const struct gone g = VEC_AT(&s->turn.gone, struct gone)[i];
        if (g.upto == g.room->head && !put_row_after(s, g.room, g.upto, g.ts))
            return 0;
    }
    if (trimmed > 0)
        (void)put_class_meta(s, class_no);
    return trimmed;
}

static size_t trim_classes(struct shard *s, size_t max)
{
    size_t done = 0;
    for (unsigned c = 0; c < STORE_CLASSES && !s->turn.failed; c++)
        done += trim_class(s, c, max - done);
    s->trim_due_ns = s->now.mono_ns + (done >= max ? 0 : done > 0 ? LOOK_AGAIN_NS : LOOK_NS);
    return done;
}

/* ---- rows ---- */

static bool row_expired(const struct shard *s, const struct cold_room *room)
{
    int64_t age = key_retention(s, cold_key(room))->age_ms;
    return room->rows == 0 && age > 0 && s->clock_ms - room->touched > age + ROOM_META_MIN_MS;
}

static void expire_rows(struct shard *s)
{
    s->expiry_due_ns = s->now.mono_ns + EXPIRY_NS;
    for (size_t n = 0; n < EXPIRY_ROOMS && !s->turn.failed; n++) {
        struct cold_room *room = (struct cold_room *)map_next(s->cold, &s->expiry_cursor);
        if (!room) {
            s->expiry_cursor = 0;
            break;
        }
        if (!row_expired(s, room) || !turn_begin(s))
            continue;
        if (!turn_check(s, s->store->vtable->delete_room(s->store, room->room_id)))
            break;
        *VEC_PUSH(&s->turn.expired, struct cold_room *) = room;
        s->turn.trim_ts[room->class_no] = max_i64(
            max_i64(s->turn.trim_ts[room->class_no], s->trim_ts[room->class_no]), room->floor_ts);
        (void)put_class_meta(s, room->class_no);
    }
}

/* ---- the step ---- */

bool trim_step(struct shard *s, bool idle)
{
    size_t max = idle ? IDLE_RECORDS : 2 * s->turn.durable;
    if (max == 0)
        return false;
    for (unsigned c = 0; c < STORE_CLASSES; c++)
        s->turn.trim_ts[c] = s->trim_ts[c];
    size_t done = remove_due(s, max);
    bool look = s->trim_due_ns <= s->now.mono_ns;
    if (look && done < max && !s->turn.failed)
        (void)trim_classes(s, max - done);
    if (s->expiry_due_ns <= s->now.mono_ns && !s->turn.failed)
        expire_rows(s);
    return !s->turn.failed && (done >= max || s->trim_due_ns <= s->now.mono_ns);
}

static void forget(struct shard *s, const struct gone *gone)
{
    struct room *room = gone->room;
    room_floor_raise(s, room, gone->upto, MISS_EXPIRED);
    if (!STOA_MUTANT(FLOOR_TS_FORGOTTEN))
        room->floor_ts = max_i64(room->floor_ts, gone->ts);
    while (room->retain && retain_first(room->retain) <= gone->upto) {
        retain_pop_oldest(room->retain);
        if (retain_count(room->retain) == 0)
            retain_destroy(&room->retain);
    }
    if (room->dedupe)
        dedupe_forget(room->dedupe, gone->upto);
    if (room->dedupe && dedupe_count(room->dedupe) + dedupe_pids(room->dedupe) == 0)
        dedupe_destroy(&room->dedupe);
    trim_schedule(s, room);
}

void trim_settle(struct shard *s)
{
    struct turn *t = &s->turn;
    for (size_t i = 0; i < t->gone.count; i++)
        forget(s, &VEC_AT(&t->gone, struct gone)[i]);
    for (size_t i = 0; i < t->removed.count; i++)
        trim_schedule(s, VEC_AT(&t->removed, struct room *)[i]);
    for (unsigned c = 0; c < STORE_CLASSES; c++) {
        s->trim_ts[c] = max_i64(s->trim_ts[c], t->trim_ts[c]);
        s->class_floor_ts[c] = max_i64(s->class_floor_ts[c], t->trim_ts[c]);
    }
    for (size_t i = 0; i < t->expired.count; i++)
        cold_free(s, VEC_AT(&t->expired, struct cold_room *)[i]);
}

void trim_rollback(struct shard *s)
{
    struct turn *t = &s->turn;
    for (size_t i = 0; i < t->removed.count; i++)
        trim_schedule(s, VEC_AT(&t->removed, struct room *)[i]);
    bool alone = !t->asked; /* with appends: those failed, so try without them at once */
    s->removal_pause_ns = s->now.mono_ns + (alone ? LOOK_AGAIN_NS : 0);
    s->trim_due_ns = s->removal_pause_ns;
}

int64_t trim_deadline(const struct shard *s)
{
    int64_t due = s->trim_due_ns < s->expiry_due_ns ? s->trim_due_ns : s->expiry_due_ns;
    int64_t removal_ms = heap_next(&s->removals);
    if (removal_ms == TICK_NEVER)
        return due;
    int64_t ahead_ms = max_i64(removal_ms - s->clock_ms, 0);
    int64_t removal_ns = max_i64(s->now.mono_ns + ahead_ms * NS_PER_MS, s->removal_pause_ns);
    return removal_ns < due ? removal_ns : due;
}
