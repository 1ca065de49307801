/* CORE. The table of rooms and what belongs to each by configuration or ownership: type, retention,
 * window of message ids, floor, slot.
 *
 * A room is born by its first durable event: only then has it an id, an epoch and a row on disk.
 * Before that it exists in memory alone, while somebody is subscribed or something is queued. Its
 * class (which log it lies in) is fixed at birth; a reload of the configuration changes its
 * retention, never its class, and a class is trimmed by the longest window that any of its rooms
 * needs. */
#include "shard/state.h"

#include "common/hash.h"
#include "common/mutant.h"
#include "common/utf8.h"

/* Of broadcasts that nothing older than them keeps. */
#define TRANSIENTS_MAX 10000
#define TRANSIENT_MAX_BYTES (64 * MIB)
#define TRANSIENT_AGE_MS (5 * 60 * 1000)

#define SHORT_AGE_MAX_MS (INT64_C(6) * 3600 * 1000)

/* ---- types ---- */

static uint8_t type_class(const struct retention *r)
{
    return r->age_ms > 0 && r->age_ms <= SHORT_AGE_MAX_MS ? 0 : 1;
}

void types_free(struct shard *s)
{
    for (size_t i = 0; i < s->n_types; i++)
        mem_free(s->types[i].name);
    s->n_types = 0;
}

static void register_handler(struct shard *s, struct type *t)
{
    struct strbuf labels = {0};
    for (unsigned phase = 0; t->handler && phase < PHASE_COUNT; phase++) {
        strbuf_reset(&labels);
        strbuf_printf(&labels, "type=\"%s\",phase=\"%s\"", t->name, phase_name((enum phase)phase));
        t->errors[phase] = metrics_counter(s->metrics, "stoa_handler_errors_total",
                                           strbuf_cstr(&labels), "Handlers that failed.");
        if (s->watch.leave)
            t->seconds[phase] =
                metrics_seconds(s->metrics, "stoa_handler_seconds", strbuf_cstr(&labels),
                                "How long a handler ran at a stretch.");
    }
    strbuf_free(&labels);
}

void types_set(struct shard *s, const struct shard_type *types, size_t n_types)
{
    STOA_ASSERT(n_types >= 1 && n_types <= SHARD_TYPES_MAX);
    types_free(s);
    for (size_t i = 0; i < n_types; i++)
        s->types[i] = (struct type){.name = mem_strdup(types[i].name),
                                    .name_size = strlen(types[i].name),
                                    .retention = types[i].retention,
                                    .rate = types[i].rate,
                                    .handler = types[i].handler,
                                    .presence = types[i].presence && types[i].handler,
                                    .class_no = type_class(&types[i].retention)};
    s->n_types = n_types;
    for (size_t i = 0; i < n_types; i++)
        register_handler(s, &s->types[i]);
}

static uint8_t type_of(const struct shard *s, struct slice key)
{
    const uint8_t *colon = (const uint8_t *)memchr(key.data, ':', key.size);
    if (!colon)
        return 0;
    size_t size = (size_t)(colon - key.data);
    for (size_t i = 0; i < s->n_types; i++) {
        if (s->types[i].name_size == size && memcmp(s->types[i].name, key.data, size) == 0)
            return (uint8_t)i;
    }
    return 0;
}

void rooms_retype(struct shard *s, struct room *room)
{
    room->type = type_of(s, room_key(room));
    s->types[room->type].rooms[room->class_no]++;
}

const struct retention *room_retention(const struct shard *s, const struct room *room)
{
    return &s->types[room->type].retention;
}

const struct retention *key_retention(const struct shard *s, struct slice key)
{
    return &s->types[type_of(s, key)].retention;
}

struct handler *room_handler(const struct shard *s, const struct room *room)
{
    return s->types[room->type].handler;
}

static int64_t window_ms(const struct retention *r)
{
    if (r->age_ms <= 0)
        return INT64_MAX;
    return max_i64(r->age_ms, IDEMPOTENCY_WINDOW_MIN_MS);
}

int64_t types_window_ms(const struct shard *s)
{
    int64_t shortest = INT64_MAX;
    for (size_t i = 0; i < s->n_types; i++) {
        int64_t window = window_ms(&s->types[i].retention);
        shortest = window < shortest ? window : shortest;
    }
    return shortest;
}

int64_t room_window_ms(const struct shard *s, const struct room *room)
{
    return window_ms(room_retention(s, room));
}

int64_t class_window_ms(const struct shard *s, unsigned class_no)
{
    int64_t longest = IDEMPOTENCY_WINDOW_MIN_MS;
    for (size_t i = 0; i < s->n_types; i++) {
        const struct type *t = &s->types[i];
        if (t->class_no == class_no || t->rooms[class_no] > 0)
            longest = max_i64(longest, window_ms(&t->retention));
    }
    return longest;
}

/* ---- the table ---- */

struct room *rooms_find(struct shard *s, struct slice key)
{
    struct room *room = (struct room *)map_get(s->rooms, key);
    return room ? room : cold_open(s, key);
}

void rooms_add(struct shard *s, struct room *room)
{
    rooms_retype(s, room);
    map_put(s->rooms, room_key(room), room);
}

struct room *rooms_open(struct shard *s, struct slice key, uint16_t slot)
{
    struct room *room = rooms_find(s, key);
    if (room)
        return room;
    room = room_create(key, slot);
    room->touched = s->clock_ms;
    room->class_no = s->types[type_of(s, key)].class_no;
    rooms_add(s, room);
    return room;
}

void rooms_free(struct shard *s, struct room *room)
{
    STOA_ASSERT(room->n_subs == 0 && room->dirty_refs == 0 && room->stage == 0);
    STOA_ASSERT(room->dones == 0);
    s->types[room->type].rooms[room->class_no]--;
    if (room->room_id)
        (void)map_remove(s->by_id, map_id(&room->room_id));
    heap_remove(&s->removals, &room->removal);
    heap_remove(&s->alarms, &room->alarm);
    heap_remove(&s->confirms, &room->confirm);
    (void)map_remove(s->rooms, room_key(room));
    room_destroy(&room);
}

void rooms_drop_if_blank(struct shard *s, struct room *room)
{
    bool needed = room->epoch != 0 || room->n_subs > 0 || room->first_op || room->dirty_refs > 0 ||
                  room->stage != 0 || room->actor || room->dones > 0 || !room_rate_forgets(s, room);
    if (!needed)
        rooms_free(s, room);
}

void rooms_birth(struct shard *s, struct room *room, uint64_t room_id, uint64_t epoch)
{
    STOA_ASSERT(room->room_id == 0 && room_id != 0 && epoch != 0);
    room->room_id = room_id;
    room->epoch = epoch;
    map_put(s->by_id, map_id(&room->room_id), room);
}

void rooms_unbirth(struct shard *s, struct room *room)
{
    (void)map_remove(s->by_id, map_id(&room->room_id));
    room->room_id = room->epoch = 0;
}

void room_row(const struct room *room, struct store_room *row)
{
    *row = (struct store_room){.room_id = room->room_id,
                               .epoch = room->epoch,
                               .head = room->head,
                               .floor = room->floor,
                               .floor_ts = room->floor_ts,
                               .touched = room->touched,
                               .slot = room->slot,
                               .class_no = room->class_no,
                               .purged = room->floor_reason == MISS_PURGED,
                               .key = room_key(room)};
}

/* ---- floors ---- */

int64_t room_floor_ts(const struct shard *s, const struct room *room)
{
    return max_i64(room->floor_ts, s->class_floor_ts[room->class_no]);
}

void room_floor_raise(struct shard *s, struct room *room, uint64_t to, enum miss_reason reason)
{
    STOA_ASSERT(to <= room->head);
    if (to <= room->floor)
        return;
    for (uint64_t seq = room->floor + 1; seq <= to; seq++) {
        uint32_t size = retain_at(room->retain, seq)->size;
        if (retain_is_transient(room->retain, seq)) {
            room->transients--;
            room->transient_bytes -= size;
        } else {
            room->retained_bytes -= size;
            s->retained_bytes -= size;
            s->retained_events--;
            room->gone = seq;
        }
    }
    room->floor = to;
    room->floor_reason = (uint8_t)reason;
}

/* Broadcasts are kept for gateways that missed a delivery, and below what joiners get they need
 * not be kept longer or in greater number than that takes. */
static void pass_transients(struct shard *s, struct room *room)
{
    uint64_t to = room->floor, left = room->transients, bytes = room->transient_bytes;
    while (to < room->head && retain_is_transient(room->retain, to + 1)) {
        const struct retained *e = retain_at(room->retain, to + 1);
        if (left <= TRANSIENTS_MAX && bytes <= TRANSIENT_MAX_BYTES &&
            s->clock_ms - e->ts <= TRANSIENT_AGE_MS)
            break;
        to++;
        left--;
        bytes -= e->size;
    }
    room_floor_raise(s, room, to, MISS_EXPIRED);
}

void room_retain_exactly(struct shard *s, struct room *room)
{
    if (room->floor == room->head)
        return;
    const struct retention *r = room_retention(s, room);
    uint64_t before = room->floor, expired = room->floor;
    while (r->age_ms > 0 && expired < room->head &&
           s->clock_ms - retain_at(room->retain, expired + 1)->ts >
               r->age_ms / (1 + STOA_MUTANT(TRIM_AGE)))
        expired++;
    room_floor_raise(s, room, expired, MISS_EXPIRED);
    if (r->count > 0 && room->head - room->floor - room->transients > r->count) {
        uint64_t to = room->floor, over = room->head - to - room->transients - r->count;
        for (over += STOA_MUTANT(TRIM_COUNT); over > 0 && to < room->head; to++)
            over -= !retain_is_transient(room->retain, to + 1);
        room_floor_raise(s, room, to, MISS_EVICTED);
    }
    if (room->transients > 0)
        pass_transients(s, room);
    uint64_t evicted = room->floor, bytes = room->retained_bytes;
    while (r->bytes > 0 && bytes > r->bytes / (1 + STOA_MUTANT(TRIM_BYTES))) {
        evicted++;
        if (!retain_is_transient(room->retain, evicted))
            bytes -= retain_at(room->retain, evicted)->size;
    }
    room_floor_raise(s, room, evicted, MISS_EVICTED);
    if (room->floor != before)
        trim_schedule(s, room);
}

/* ---- slots ---- */

bool slot_owned(const struct shard *s, uint16_t slot)
{
    return s->slot_epoch[slot] != 0;
}

static void slot_fence(struct shard *s, uint16_t slot, uint64_t heard)
{
    LOG(s->log, LOG_ERROR, "shard.fenced", LOG_U64("slot", slot),
        LOG_U64("epoch", s->slot_epoch[slot]), LOG_U64("heard", heard));
    s->slot_epoch[slot] = 0;
    s->slots_owned--;
    metric_set(s->metric.slots_owned, s->slots_owned);
    shard_claim_all(s);
}

enum nack_code slot_check(struct shard *s, const struct message *m, uint16_t *slot)
{
    *slot = m->slot;
    if (!key_valid(m->key, true))
        return NACK_INVALID;
    *slot = slot_of(m->key, s->slot_seed);
    if (m->slot != SLOT_UNKNOWN && m->slot != *slot)
        return NACK_INVALID;
    if (slot_owned(s, *slot) && m->ep > s->slot_epoch[*slot])
        slot_fence(s, *slot, m->ep);
    return slot_owned(s, *slot) || STOA_MUTANT(SERVE_UNOWNED) ? NACK_NONE : NACK_NOTOWNER;
}
