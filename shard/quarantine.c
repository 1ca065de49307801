/* CORE. Quarantine of rooms: see quarantine.h. What is quarantined is held by key in a map of its
 * own, which is nearly always empty: rooms, even those put away, need not know. */
#include "shard/quarantine.h"
#include "shard/actor.h"

#include "common/json.h"
#include "proto/wire.h"

#define HEAD_BYTES 12 /* of a row: u32 flags, i64 since when; then why, as text */
#define WHOLE_TYPE 1u
#define WHY_MAX_BYTES 256
#define STRIKERS_MAX 1024 /* the one that was quiet longest is forgotten */
#define STRIKES_WITHIN_NS (STRIKES_WITHIN_MS * NS_PER_MS)

struct quarantined {
    struct list all;
    int64_t since_ms;
    bool whole_type; /* of the room: it began with this one */
    bool beginning;  /* its row goes with this turn */
    bool ending;     /* the row is deleted with this turn */
    struct strbuf why;
    struct buf *key;
};

struct striker {
    struct list by_age;
    int64_t at_ns[STRIKES_MAX - 1]; /* the last ones, oldest first */
    unsigned strikes;
    struct buf *key;
};

struct quarantine {
    struct map *by_key; /* struct quarantined, owned */
    struct list all;
    struct map *strikers; /* struct striker by key, owned */
    struct list by_age;   /* the same, quiet longest first */
    size_t whole_types;
    struct vec changed; /* struct quarantined *: by this turn */
    struct metric *count, *dropped, *stops;
};

void quarantine_create(struct shard *s)
{
    struct quarantine *q = (struct quarantine *)mem_zalloc(sizeof *q);
    q->by_key = map_create(s->map_seed);
    q->strikers = map_create(s->map_seed);
    list_init(&q->all);
    list_init(&q->by_age);
    q->count = metrics_gauge(s->metrics, "stoa_rooms_quarantined", "",
                             "Rooms and types whose handlers are not run any more.");
    q->dropped = metrics_counter(s->metrics, "stoa_quarantined_frames_total", "",
                                 "Frames that were dropped because their room is quarantined.");
    q->stops = metrics_counter(s->metrics, "stoa_handler_stops_total", "",
                               "Handlers that were stopped over their budget.");
    s->quarantine = q;
}

static void striker_free(struct quarantine *q, struct striker *striker)
{
    (void)map_remove(q->strikers, buf_slice(striker->key));
    list_remove(&striker->by_age);
    buf_unref(striker->key);
    mem_free(striker);
}

static struct quarantined *add(struct quarantine *q, struct slice key, bool whole_type)
{
    struct quarantined *e = (struct quarantined *)mem_zalloc(sizeof *e);
    e->key = buf_copy_slice(key);
    e->whole_type = whole_type;
    list_push_back(&q->all, &e->all);
    map_put(q->by_key, buf_slice(e->key), e);
    q->whole_types += whole_type;
    metric_set(q->count, (double)map_count(q->by_key));
    return e;
}

static void forget(struct quarantine *q, struct quarantined *e)
{
    (void)map_remove(q->by_key, buf_slice(e->key));
    list_remove(&e->all);
    q->whole_types -= e->whole_type;
    metric_set(q->count, (double)map_count(q->by_key));
    strbuf_free(&e->why);
    buf_unref(e->key);
    mem_free(e);
}

void quarantine_destroy(struct shard *s)
{
    struct quarantine *q = s->quarantine;
    while (!list_empty(&q->all))
        forget(q, LIST_ENTRY(q->all.next, struct quarantined, all));
    while (!list_empty(&q->by_age))
        striker_free(q, LIST_ENTRY(q->by_age.next, struct striker, by_age));
    map_destroy(&q->by_key);
    map_destroy(&q->strikers);
    vec_free(&q->changed);
    mem_free(q);
    s->quarantine = NULL;
}

/* ---- asking ---- */

static struct slice type_part(struct slice key)
{
    const uint8_t *colon = (const uint8_t *)memchr(key.data, ':', key.size);
    return slice_of(key.data, colon ? (size_t)(colon - key.data) : 0);
}

static struct quarantined *of_room(const struct quarantine *q, struct slice key)
{
    return (struct quarantined *)map_get(q->by_key, key);
}

bool room_quarantined(const struct shard *s, const struct room *room)
{
    const struct quarantine *q = s->quarantine;
    if (list_empty(&q->all))
        return false;
    if (of_room(q, room_key(room)))
        return true;
    struct slice type = type_part(room_key(room));
    if (q->whole_types == 0)
        return false;
    LIST_EACH(at, after, &q->all)
    {
        const struct quarantined *e = LIST_ENTRY(at, struct quarantined, all);
        if (e->whole_type && slice_equal(type_part(buf_slice(e->key)), type))
            return true;
    }
    return false;
}

void quarantine_fault(struct fault *out)
{
    fault_set(out, "RoomError",
              "the room is quarantined: its code did not stop by itself; nothing has run. "
              "stoa status says why, stoa room release ends it");
    out->status = 503;
}

void quarantine_dropped(struct shard *s)
{
    metric_add(s->quarantine->dropped, 1);
}

size_t quarantine_count(const struct shard *s)
{
    return map_count(s->quarantine->by_key);
}

void quarantine_list(const struct shard *s, struct strbuf *out, size_t limit)
{
    size_t n = 0;
    LIST_EACH(at, after, &s->quarantine->all)
    {
        const struct quarantined *e = LIST_ENTRY(at, struct quarantined, all);
        if (n++ >= limit)
            return;
        strbuf_put_text(out, n > 1 ? ",{\"key\":" : "{\"key\":");
        json_quote(out, buf_slice(e->key));
        strbuf_put_text(out, ",\"type\":");
        json_quote(out, type_part(buf_slice(e->key)));
        strbuf_printf(out, ",\"whole_type\":%s,\"since\":%lld,\"why\":",
                      e->whole_type ? "true" : "false", (long long)e->since_ms);
        json_quote(out, strbuf_slice(&e->why));
        strbuf_put_byte(out, '}');
    }
}

/* ---- beginning and end ---- */

static void row_put(struct shard *s, struct room *room, const struct quarantined *e)
{
    strbuf_reset(&s->row);
    uint8_t *head = strbuf_reserve(&s->row, HEAD_BYTES);
    wire_put_le32(head, e->whole_type ? WHOLE_TYPE : 0);
    wire_put_le64(head + 4, (uint64_t)e->since_ms);
    strbuf_commit(&s->row, HEAD_BYTES);
    strbuf_put_slice(&s->row, strbuf_slice(&e->why));
    s->turn.asked = true;
    if (!turn_begin(s) || !publish_born(s, room, room->head))
        return;
    struct store_row row = {
        .table = TABLE_QUARANTINE, .room_id = room->room_id, .value = strbuf_slice(&s->row)};
    if (turn_check(s, s->store->vtable->put_row(s->store, &row)))
        room->rows++;
}

static void begin(struct shard *s, struct room *room, bool whole_type, struct slice why)
{
    struct quarantine *q = s->quarantine;
    if (of_room(q, room_key(room)))
        return;
    struct quarantined *e = add(q, room_key(room), whole_type);
    e->since_ms = s->clock_ms;
    e->beginning = true;
    strbuf_put(&e->why, why.data, why.size < WHY_MAX_BYTES ? why.size : WHY_MAX_BYTES);
    *VEC_PUSH(&q->changed, struct quarantined *) = e;
    row_put(s, room, e);
}

void quarantine_row(struct shard *s, const struct room *room, const struct store_row *row)
{
    if (row->value.size < HEAD_BYTES || of_room(s->quarantine, room_key(room)))
        return;
    struct quarantined *e =
        add(s->quarantine, room_key(room), (wire_get_le32(row->value.data) & WHOLE_TYPE) != 0);
    e->since_ms = (int64_t)wire_get_le64(row->value.data + 4);
    strbuf_put(&e->why, row->value.data + HEAD_BYTES, row->value.size - HEAD_BYTES);
    LOG(s->log, LOG_WARN, "room.quarantined_still", LOG_SLICE("key", room_key(room)),
        LOG_STR("whole_type", e->whole_type ? "yes" : "no"),
        LOG_SLICE("why", strbuf_slice(&e->why)));
}

void quarantine_suspects(struct shard *s, const struct shard_options *options)
{
    for (size_t i = 0; i < options->n_suspects; i++) {
        const struct shard_suspect *suspect = &options->suspects[i];
        const struct message m = {.slot = SLOT_UNKNOWN, .key = suspect->key};
        uint16_t slot;
        if (slot_check(s, &m, &slot) != NACK_NONE)
            continue;
        struct room *room = rooms_open(s, suspect->key, slot);
        (void)turn_stage(s, room);
        begin(s, room, suspect->whole_type, suspect->why);
    }
    if (options->n_suspects > 0)
        turn_finish(s);
}

bool quarantine_release(struct shard *s, struct room *room)
{
    struct quarantine *q = s->quarantine;
    struct quarantined *e = of_room(q, room_key(room));
    if (!e || e->beginning || e->ending)
        return e != NULL;
    s->turn.asked = true;
    if (!turn_begin(s) ||
        !turn_check(s, s->store->vtable->delete_row(s->store, TABLE_QUARANTINE, room->room_id,
                                                    (struct slice){0})))
        return true;
    room->rows--;
    e->ending = true;
    *VEC_PUSH(&q->changed, struct quarantined *) = e;
    return true;
}

/* ---- strikes ---- */

static struct striker *striker_of(struct quarantine *q, struct slice key)
{
    struct striker *striker = (struct striker *)map_get(q->strikers, key);
    if (!striker) {
        if (map_count(q->strikers) == STRIKERS_MAX)
            striker_free(q, LIST_ENTRY(q->by_age.next, struct striker, by_age));
        striker = (struct striker *)mem_zalloc(sizeof *striker);
        striker->key = buf_copy_slice(key);
        list_init(&striker->by_age);
        map_put(q->strikers, buf_slice(striker->key), striker);
    }
    list_remove(&striker->by_age);
    list_push_back(&q->by_age, &striker->by_age);
    return striker;
}

void quarantine_strike(struct shard *s, struct actor *a, const char *in, struct slice why)
{
    struct quarantine *q = s->quarantine;
    struct striker *striker = striker_of(q, room_key(a->room));
    metric_add(q->stops, 1);
    if (striker->strikes == STRIKES_MAX - 1 &&
        s->now.mono_ns - striker->at_ns[0] <= STRIKES_WITHIN_NS) {
        struct strbuf text = {0};
        strbuf_printf(&text, "stopped %d times within %d s, last in %s: %.*s", STRIKES_MAX,
                      STRIKES_WITHIN_MS / 1000, in, SLICE_FMT(why));
        begin(s, a->room, false, strbuf_slice(&text));
        strbuf_free(&text);
        striker_free(q, striker);
        return;
    }
    if (striker->strikes == STRIKES_MAX - 1)
        memmove(striker->at_ns, striker->at_ns + 1, sizeof striker->at_ns - sizeof *striker->at_ns);
    else
        striker->strikes++;
    striker->at_ns[striker->strikes - 1] = s->now.mono_ns;
}

/* ---- the turn's end ---- */

/* Its memory goes, and runs that wait in it are told. */
static void actor_forget(struct shard *s, struct actor *a)
{
    struct fault fault = {0};
    struct room *room = a->room;
    fault_set(&fault, "RoomExecutionError", "the room was quarantined meanwhile");
    actor_drop(s, a, &fault);
    fault_free(&fault);
    rooms_drop_if_blank(s, room);
}

/* All whose code stops or begins to run now. */
static void actors_forget(struct shard *s, const struct quarantined *e)
{
    struct slice key = buf_slice(e->key), type = type_part(key);
    LIST_EACH(at, after, &s->actors)
    {
        struct actor *a = LIST_ENTRY(at, struct actor, lru);
        struct slice other = room_key(a->room);
        if (slice_equal(other, key) || (e->whole_type && slice_equal(type_part(other), type)))
            actor_forget(s, a);
    }
}

void quarantine_settle(struct shard *s)
{
    struct quarantine *q = s->quarantine;
    for (size_t i = 0; i < q->changed.count; i++) {
        struct quarantined *e = VEC_AT(&q->changed, struct quarantined *)[i];
        actors_forget(s, e);
        LOG(s->log, e->ending ? LOG_INFO : LOG_ERROR,
            e->ending ? "room.released" : "room.quarantined", LOG_SLICE("key", buf_slice(e->key)),
            LOG_STR("whole_type", e->whole_type ? "yes" : "no"),
            LOG_SLICE("why", strbuf_slice(&e->why)));
        e->beginning = false;
        if (e->ending)
            forget(q, e);
    }
    q->changed.count = 0;
}

void quarantine_rollback(struct shard *s)
{
    struct quarantine *q = s->quarantine;
    for (size_t i = 0; i < q->changed.count; i++) {
        struct quarantined *e = VEC_AT(&q->changed, struct quarantined *)[i];
        e->ending = false;
        if (e->beginning)
            forget(q, e);
    }
    q->changed.count = 0;
}
