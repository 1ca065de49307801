/* CORE. Creation, subscribers and rate of a room (room.h). What needs the shard around it lives in
 * publish.c, deliver.c and trim.c. */
#include "shard/room.h"

#include "common/err.h"
#include "common/mem.h"

struct room *room_create(struct slice key, uint16_t slot)
{
    STOA_ASSERT(key.size >= 1 && key.size <= KEY_MAX_BYTES);
    struct room *room = (struct room *)mem_zalloc(sizeof *room + key.size);
    list_init(&room->ready);
    room->slot = slot;
    room->key_size = (uint16_t)key.size;
    memcpy(room->key, key.data, key.size);
    return room;
}

void room_destroy(struct room **room_p)
{
    struct room *room = *room_p;
    if (!room)
        return;
    STOA_ASSERT(!room->first_op && list_empty(&room->ready) && !heap_has(&room->removal));
    STOA_ASSERT(!room->actor && !heap_has(&room->alarm) && !heap_has(&room->confirm));
    retain_destroy(&room->retain);
    dedupe_destroy(&room->dedupe);
    mem_free(room->links);
    mem_free(room->subs);
    mem_free(room);
    *room_p = NULL;
}

/* ---- subscribers: as many as gateways, so a walk is the index ---- */

struct subscriber *room_subscriber(const struct room *room, uint32_t peer)
{
    for (uint16_t i = 0; i < room->n_subs; i++) {
        if (room->subs[i].peer == peer)
            return &room->subs[i];
    }
    return NULL;
}

struct subscriber *room_subscribe(struct room *room, uint32_t peer)
{
    struct subscriber *found = room_subscriber(room, peer);
    if (found)
        return found;
    if (room->n_subs == room->capacity_subs) {
        room->capacity_subs = (uint16_t)(room->capacity_subs ? room->capacity_subs * 2 : 1);
        room->subs =
            (struct subscriber *)mem_realloc(room->subs, room->capacity_subs * sizeof *room->subs);
    }
    room->subs[room->n_subs] = (struct subscriber){.peer = peer};
    return &room->subs[room->n_subs++];
}

bool room_unsubscribe(struct room *room, uint32_t peer)
{
    struct subscriber *found = room_subscriber(room, peer);
    if (!found)
        return false;
    *found = room->subs[--room->n_subs];
    if (room->n_subs == 0) {
        mem_free(room->subs);
        room->subs = NULL;
        room->capacity_subs = 0;
    }
    return true;
}

/* ---- rate ---- */

static struct room_rate rate_at(struct room_rate rate, int64_t now_ms)
{
    uint32_t step = (uint32_t)(now_ms / RATE_STEP_MS);
    if (step == rate.step)
        return rate;
    return (struct room_rate){.step = step, .before = step == rate.step + 1 ? rate.now : 0};
}

void room_count_publish(struct room *room, int64_t now_ms, uint32_t events)
{
    room->rate = rate_at(room->rate, now_ms);
    room->rate.now += events;
}

uint32_t room_busy(const struct room *room, int64_t now_ms)
{
    struct room_rate rate = rate_at(room->rate, now_ms);
    int64_t into = now_ms % RATE_STEP_MS;
    uint64_t faded = (uint64_t)rate.before * (uint64_t)(RATE_STEP_MS - into) / RATE_STEP_MS;
    return rate.now + (uint32_t)faded;
}

/* ---- invariants ---- */

void room_validate(const struct room *room)
{
    STOA_ASSERT((room->room_id == 0) == (room->epoch == 0));
    STOA_ASSERT(room->floor <= room->head);
    STOA_ASSERT(room->epoch != 0 || (room->head == 0 && !room->retain));
    STOA_ASSERT((room->first_op == NULL) == (room->queued_ops == 0));
    STOA_ASSERT(list_empty(&room->ready) || room->first_op);
    STOA_ASSERT(room->held || !room->first_op || !list_empty(&room->ready));
    STOA_ASSERT(room->n_subs <= room->capacity_subs);
    uint64_t bytes = 0, passing = 0, transients = 0;
    uint64_t first = room->head + 1;
    if (room->retain) {
        retain_validate(room->retain);
        STOA_ASSERT(retain_count(room->retain) > 0);
        STOA_ASSERT(retain_last(room->retain) == room->head);
        first = retain_first(room->retain);
    }
    STOA_ASSERT(first <= room->floor + 1); /* whatever is retained is on disk */
    for (uint64_t seq = room->floor + 1; seq <= room->head; seq++) {
        bool transient = retain_is_transient(room->retain, seq);
        *(transient ? &passing : &bytes) += retain_at(room->retain, seq)->size;
        transients += transient;
    }
    STOA_ASSERT(bytes == room->retained_bytes && passing == room->transient_bytes);
    STOA_ASSERT(transients == room->transients);
    STOA_ASSERT(room->gone <= room->floor);
    if (room->dedupe)
        dedupe_validate(room->dedupe);
}
