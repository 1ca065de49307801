/* CORE. Message ids and publishers of one room (dedupe.h).
 *
 * A place of the index holds the ring place of an id + 1, 0 is empty. Removal closes the gap by
 * moving later ids of the same run back, so there are no tombstones and a lookup does not slow down
 * with age. */
#include "shard/dedupe.h"

#include "common/err.h"
#include "common/hash.h"
#include "common/mem.h"

#define FIRST_CAPACITY 4
#define SHRINK_ABOVE 64
#define FIRST_PIDS 2

struct id {
    uint8_t bytes[16];
    uint64_t last;
    uint32_t count;
    uint32_t hash;
};

struct dedupe {
    uint64_t seed;
    struct id *ring;
    uint32_t capacity;
    uint32_t first;
    uint32_t count;
    uint32_t index_mask; /* places - 1 */
    uint32_t *index;
    struct dedupe_pid *pids; /* open addressing; pid 0: empty place */
    uint32_t pids_mask;
    uint32_t pids_count;
    uint64_t pids_oldest; /* no publisher is kept by an older record */
};

struct dedupe *dedupe_create(uint64_t seed)
{
    struct dedupe *d = (struct dedupe *)mem_zalloc(sizeof *d);
    d->seed = seed;
    d->pids_oldest = UINT64_MAX;
    return d;
}

void dedupe_destroy(struct dedupe **d)
{
    if (!*d)
        return;
    mem_free((*d)->ring);
    mem_free((*d)->index);
    mem_free((*d)->pids);
    mem_free(*d);
    *d = NULL;
}

bool dedupe_is_id(const uint8_t id[16])
{
    static const uint8_t none[16];
    return memcmp(id, none, sizeof none) != 0;
}

/* ---- ids ---- */

static uint32_t ring_place(const struct dedupe *d, uint32_t nth)
{
    uint64_t place = (uint64_t)d->first + nth;
    return (uint32_t)(place < d->capacity ? place : place - d->capacity);
}

static uint32_t index_find(const struct dedupe *d, const uint8_t id[16], uint32_t hash)
{
    uint32_t at = hash & d->index_mask;
    for (; d->index[at] != 0; at = (at + 1) & d->index_mask) {
        const struct id *other = &d->ring[d->index[at] - 1];
        if (other->hash == hash && memcmp(other->bytes, id, 16) == 0)
            break;
    }
    return at;
}

static void index_remove(struct dedupe *d, uint32_t hole)
{
    for (uint32_t at = hole;;) {
        at = (at + 1) & d->index_mask;
        if (d->index[at] == 0)
            break;
        uint32_t home = d->ring[d->index[at] - 1].hash & d->index_mask;
        if (((hole - home) & d->index_mask) < ((at - home) & d->index_mask)) {
            d->index[hole] = d->index[at];
            hole = at;
        }
    }
    d->index[hole] = 0;
}

static void ring_resize(struct dedupe *d, uint32_t capacity)
{
    STOA_ASSERT(capacity >= d->count);
    struct id *ring = (struct id *)mem_alloc(capacity * sizeof *ring);
    uint64_t places = FIRST_CAPACITY;
    while (places * 3 < (uint64_t)capacity * 4)
        places *= 2;
    STOA_ASSERT(places <= UINT32_MAX);
    uint32_t *index = (uint32_t *)mem_zalloc(places * sizeof *index);
    uint32_t mask = (uint32_t)places - 1;
    for (uint32_t i = 0; i < d->count; i++) {
        ring[i] = d->ring[ring_place(d, i)];
        uint32_t at = ring[i].hash & mask;
        while (index[at] != 0)
            at = (at + 1) & mask;
        index[at] = i + 1;
    }
    mem_free(d->ring);
    mem_free(d->index);
    d->ring = ring;
    d->index = index;
    d->index_mask = mask;
    d->capacity = capacity;
    d->first = 0;
}

bool dedupe_find(const struct dedupe *d, const uint8_t id[16], struct dedupe_hit *hit)
{
    if (d->count == 0)
        return false;
    uint32_t at = index_find(d, id, (uint32_t)hash_bytes(id, 16, d->seed));
    if (d->index[at] == 0)
        return false;
    const struct id *found = &d->ring[d->index[at] - 1];
    *hit = (struct dedupe_hit){.last = found->last, .count = found->count};
    return true;
}

void dedupe_add(struct dedupe *d, const uint8_t id[16], uint64_t last, uint32_t count)
{
    STOA_ASSERT(dedupe_is_id(id) && count > 0);
    if (d->count == d->capacity)
        ring_resize(d, d->capacity ? d->capacity + d->capacity / 2 : FIRST_CAPACITY);
    struct id new_id = {
        .last = last, .count = count, .hash = (uint32_t)hash_bytes(id, 16, d->seed)};
    memcpy(new_id.bytes, id, 16);
    uint32_t at = index_find(d, id, new_id.hash);
    STOA_ASSERT(d->index[at] == 0);
    uint32_t place = ring_place(d, d->count);
    d->ring[place] = new_id;
    d->index[at] = place + 1;
    d->count++;
}

static void index_drop(struct dedupe *d, const struct id *id)
{
    uint32_t at = index_find(d, id->bytes, id->hash);
    STOA_ASSERT(d->index[at] != 0);
    index_remove(d, at);
}

void dedupe_pop_newest(struct dedupe *d)
{
    STOA_ASSERT(d->count > 0);
    index_drop(d, &d->ring[ring_place(d, d->count - 1)]);
    d->count--;
}

uint64_t dedupe_forget_oldest(struct dedupe *d)
{
    STOA_ASSERT(d->count > 0);
    uint64_t last = d->ring[d->first].last;
    index_drop(d, &d->ring[d->first]);
    d->first = ring_place(d, 1);
    d->count--;
    if (d->capacity > SHRINK_ABOVE && d->count < d->capacity / 4)
        ring_resize(d, d->capacity / 2);
    return last;
}

size_t dedupe_count(const struct dedupe *d)
{
    return d->count;
}

/* ---- publishers ---- */

static uint32_t pid_home(const struct dedupe *d, uint64_t pid)
{
    return (uint32_t)hash_bytes(&pid, sizeof pid, d->seed) & d->pids_mask;
}

static uint32_t pid_place(const struct dedupe *d, uint64_t pid)
{
    uint32_t at = pid_home(d, pid);
    while (d->pids[at].pid != 0 && d->pids[at].pid != pid)
        at = (at + 1) & d->pids_mask;
    return at;
}

static void pids_grow(struct dedupe *d)
{
    struct dedupe_pid *before = d->pids;
    uint32_t places = before ? d->pids_mask + 1 : 0;
    uint32_t grown = places ? places * 2 : FIRST_PIDS;
    d->pids = (struct dedupe_pid *)mem_zalloc(grown * sizeof *d->pids);
    d->pids_mask = grown - 1;
    for (uint32_t i = 0; i < places; i++) {
        if (before[i].pid)
            d->pids[pid_place(d, before[i].pid)] = before[i];
    }
    mem_free(before);
}

struct dedupe_pid dedupe_pid(const struct dedupe *d, uint64_t pid)
{
    return d->pids_count ? d->pids[pid_place(d, pid)] : (struct dedupe_pid){0};
}

void dedupe_pid_set(struct dedupe *d, struct dedupe_pid state)
{
    STOA_ASSERT(state.pid != 0);
    if (!d->pids || (d->pids_count + 1) * 4 > (d->pids_mask + 1) * 3)
        pids_grow(d);
    uint32_t at = pid_place(d, state.pid);
    d->pids_count += d->pids[at].pid == 0;
    d->pids[at] = state;
    if (state.seq < d->pids_oldest)
        d->pids_oldest = state.seq;
}

static void pid_remove_at(struct dedupe *d, uint32_t hole)
{
    for (uint32_t at = hole;;) {
        at = (at + 1) & d->pids_mask;
        if (d->pids[at].pid == 0)
            break;
        uint32_t home = pid_home(d, d->pids[at].pid);
        if (((hole - home) & d->pids_mask) < ((at - home) & d->pids_mask)) {
            d->pids[hole] = d->pids[at];
            hole = at;
        }
    }
    d->pids[hole] = (struct dedupe_pid){0};
    d->pids_count--;
}

void dedupe_pid_remove(struct dedupe *d, uint64_t pid)
{
    uint32_t at = pid_place(d, pid);
    STOA_ASSERT(d->pids_count > 0 && d->pids[at].pid == pid);
    pid_remove_at(d, at);
}

static void pids_forget(struct dedupe *d, uint64_t seq)
{
    if (seq < d->pids_oldest)
        return;
    uint64_t oldest = UINT64_MAX;
    for (uint32_t at = 0; d->pids_count && at <= d->pids_mask;) {
        const struct dedupe_pid *p = &d->pids[at];
        if (p->pid && p->seq <= seq) {
            pid_remove_at(d, at); /* may move another one here: look again */
            continue;
        }
        if (p->pid && p->seq < oldest)
            oldest = p->seq;
        at++;
    }
    d->pids_oldest = oldest;
}

size_t dedupe_pids(const struct dedupe *d)
{
    return d->pids_count;
}

void dedupe_forget(struct dedupe *d, uint64_t seq)
{
    while (d->count > 0 && d->ring[d->first].last <= seq)
        (void)dedupe_forget_oldest(d);
    pids_forget(d, seq);
}

void dedupe_validate(const struct dedupe *d)
{
    uint64_t last = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        const struct id *id = &d->ring[ring_place(d, i)];
        STOA_ASSERT(id->last > last && id->count > 0);
        STOA_ASSERT(d->index[index_find(d, id->bytes, id->hash)] == ring_place(d, i) + 1);
        last = id->last;
    }
    uint32_t pids = 0;
    for (uint32_t i = 0; d->pids && i <= d->pids_mask; i++) {
        if (!d->pids[i].pid)
            continue;
        pids++;
        STOA_ASSERT(pid_place(d, d->pids[i].pid) == i && d->pids[i].seq >= d->pids_oldest);
    }
    STOA_ASSERT(pids == d->pids_count);
}
