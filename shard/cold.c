/* CORE. Cold rooms: those that have nothing in memory but what their row says. Nobody is
 * subscribed, nothing is queued, no record or message id is kept, no alarm is set, no connection is
 * known. Such a room is put into a struct of its own, a quarter of struct room, and has one place
 * in one map; it is opened again by whoever asks for its key, and what it knew is as it was:
 *
 *     struct room --- the walk finds it idle ----------> struct cold_room
 *                 <-- rooms_find, rooms_open by key ----              --- a day later --> gone
 *
 * 64 bytes, the key and its place: about 130 bytes for a key of 20, whatever its state on disk is.
 * Shards hold every room that was ever born until its row expires, so this is what most of their
 * memory is. A walk over all rooms finds those to put away, a bounded stretch a second. */
#include "shard/state.h"

#define WALK_NS (1 * NS_PER_S)
#define WALK_ROOMS 1000
#define IDLE_MS (2 * RATE_STEP_MS) /* room_busy counts no longer */

void cold_create(struct shard *s)
{
    s->cold = map_create(s->map_seed);
}

void cold_destroy(struct shard *s)
{
    size_t cursor = 0;
    struct cold_room *cold;
    while ((cold = (struct cold_room *)map_next(s->cold, &cursor)) != NULL)
        mem_free(cold);
    map_destroy(&s->cold);
}

/* ---- there and back ---- */

static bool is_cold(const struct shard *s, const struct room *room)
{
    bool keeps = room->retain || room->dedupe || room->actor || room->dones > 0 ||
                 room->n_links > 0 || heap_has(&room->alarm) || heap_has(&room->confirm) ||
                 heap_has(&room->removal);
    bool waits = room->first_op || room->held || room->dirty_refs > 0 || room->stage != 0;
    return room->epoch != 0 && room->n_subs == 0 && !keeps && !waits && room_rate_forgets(s, room);
}

static void put_away(struct shard *s, struct room *room)
{
    STOA_ASSERT(room->floor == room->head && room->transients == 0);
    struct cold_room *cold =
        (struct cold_room *)mem_alloc(offsetof(struct cold_room, key) + room->key_size);
    cold->room_id = room->room_id;
    cold->epoch = room->epoch;
    cold->head = room->head;
    cold->gone = room->gone;
    cold->floor_ts = room->floor_ts;
    cold->touched = room->touched;
    cold->rows = room->rows;
    cold->slot = room->slot;
    cold->key_size = room->key_size;
    cold->class_no = room->class_no;
    cold->floor_reason = room->floor_reason;
    cold->alarm_dead = room->alarm_dead;
    memcpy(cold->key, room->key, room->key_size);
    rooms_free(s, room);
    map_put(s->cold, cold_key(cold), cold);
}

struct room *cold_open(struct shard *s, struct slice key)
{
    struct cold_room *cold = (struct cold_room *)map_remove(s->cold, key);
    if (!cold)
        return NULL;
    struct room *room = room_create(cold_key(cold), cold->slot);
    room->class_no = cold->class_no;
    rooms_add(s, room);
    rooms_birth(s, room, cold->room_id, cold->epoch);
    room->head = room->floor = cold->head;
    room->gone = cold->gone;
    room->floor_ts = cold->floor_ts;
    room->touched = cold->touched;
    room->rows = cold->rows;
    room->floor_reason = cold->floor_reason;
    room->alarm_dead = cold->alarm_dead;
    mem_free(cold);
    return room;
}

/* ---- the walk ---- */

bool cold_walk(struct shard *s, size_t rooms, int64_t idle_ms)
{
    for (size_t n = 0; n < rooms; n++) {
        struct room *room = (struct room *)map_next(s->rooms, &s->cold_cursor);
        if (!room) {
            s->cold_cursor = 0;
            map_shrink(s->rooms);
            map_shrink(s->by_id);
            return false;
        }
        if (is_cold(s, room) && s->clock_ms - room->touched >= idle_ms)
            put_away(s, room);
        else
            rooms_drop_if_blank(s, room); /* if its rate has kept it */
    }
    return true;
}

void cold_step(struct shard *s)
{
    if (s->now.mono_ns < s->cold_due_ns)
        return;
    s->cold_due_ns = s->now.mono_ns + WALK_NS;
    (void)cold_walk(s, WALK_ROOMS, IDLE_MS);
}

int64_t cold_deadline(const struct shard *s)
{
    return map_count(s->rooms) > 0 ? s->cold_due_ns : TICK_NEVER;
}

void cold_free(struct shard *s, struct cold_room *cold)
{
    (void)map_remove(s->cold, cold_key(cold));
    mem_free(cold);
}
