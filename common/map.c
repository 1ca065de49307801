/* CORE. Hash map in two arrays:
 *
 *   index:   [ 0 | 2 | 0 | 1 | 0 | 4 | 0 | 0 ]   open addressing, linear probing; entry number + 1
 *   entries: [ a | b | - | d |   ... ]           in insertion order; '-': removed, value NULL
 *
 * 24 bytes an entry plus 4 for each place of the index. Removal closes the gap in the index at once
 * (no tombstones there, so a lookup never slows down with age) and leaves a hole in entries, which
 * keeps a running iteration valid. Holes go when entries is full: with a quarter of it holes it is
 * packed in place, else it grows. So memory follows the largest count, never the number of inserts.
 */
#include "common/map.h"

#include "common/err.h"
#include "common/hash.h"
#include "common/mem.h"

#define FIRST_CAPACITY 8

struct entry {
    const uint8_t *key; /* borrowed */
    void *value;        /* NULL: a hole */
    uint32_t key_size;
    uint32_t hash;
};

struct map {
    uint64_t seed;
    struct entry *entries;
    uint32_t *index;
    uint32_t index_mask; /* size of index - 1; the size is a power of two */
    uint32_t capacity;   /* of entries */
    uint32_t first;      /* no live entry before it */
    uint32_t used;       /* entries in use, holes included */
    uint32_t count;      /* live entries */
};

struct map *map_create(uint64_t seed)
{
    struct map *m = (struct map *)mem_zalloc(sizeof *m);
    m->seed = seed;
    return m;
}

void map_destroy(struct map **m)
{
    if (!*m)
        return;
    mem_free((*m)->entries);
    mem_free((*m)->index);
    mem_free(*m);
    *m = NULL;
}

static uint32_t key_hash(const struct map *m, struct slice key)
{
    STOA_ASSERT(key.size <= UINT32_MAX);
    return (uint32_t)hash_bytes(key.data, key.size, m->seed);
}

/* The place in index of the key's entry, or the empty place where the search ended. */
static uint32_t place_find(const struct map *m, struct slice key, uint32_t hash)
{
    uint32_t place = hash & m->index_mask;
    for (; m->index[place] != 0; place = (place + 1) & m->index_mask) {
        const struct entry *e = &m->entries[m->index[place] - 1];
        if (e->hash == hash && slice_equal(slice_of(e->key, e->key_size), key))
            break;
    }
    return place;
}

static void index_add(struct map *m, uint32_t entry)
{
    uint32_t place = m->entries[entry].hash & m->index_mask;
    while (m->index[place] != 0)
        place = (place + 1) & m->index_mask;
    m->index[place] = entry + 1;
}

/* Empties a place and moves later entries of the same run back, so that each stays reachable from
 * its home place. */
static void index_remove(struct map *m, uint32_t hole)
{
    uint32_t place = hole;
    for (;;) {
        place = (place + 1) & m->index_mask;
        if (m->index[place] == 0)
            break;
        uint32_t home = m->entries[m->index[place] - 1].hash & m->index_mask;
        bool hole_is_on_its_way =
            ((hole - home) & m->index_mask) < ((place - home) & m->index_mask);
        if (hole_is_on_its_way) {
            m->index[hole] = m->index[place];
            hole = place;
        }
    }
    m->index[hole] = 0;
}

static void entries_pack(struct map *m)
{
    uint32_t to = 0;
    for (uint32_t from = m->first; from < m->used; from++) {
        if (m->entries[from].value)
            m->entries[to++] = m->entries[from];
    }
    STOA_ASSERT(to == m->count);
    m->first = 0;
    m->used = to;
}

/* Sizes the index for the capacity of entries, at most 3/4 full, and fills it anew if it changed
 * its size or if the entries moved. */
static void index_fit(struct map *m, bool moved)
{
    uint64_t before = m->index ? (uint64_t)m->index_mask + 1 : 0;
    uint64_t places = before ? before : FIRST_CAPACITY;
    while (places * 3 < (uint64_t)m->capacity * 4)
        places *= 2;
    STOA_ASSERT(places <= UINT64_C(1) << 32);
    if (places == before && !moved)
        return;
    if (places != before) {
        mem_free(m->index);
        m->index = (uint32_t *)mem_alloc(places * sizeof *m->index);
        m->index_mask = (uint32_t)(places - 1);
    }
    memset(m->index, 0, places * sizeof *m->index);
    for (uint32_t i = 0; i < m->used; i++)
        index_add(m, i);
}

static void map_make_room(struct map *m)
{
    uint32_t holes = m->used - m->count;
    if (holes > 0)
        entries_pack(m);
    if (m->capacity == 0 || holes < m->capacity / 4) {
        /* An eighth at a time: few unused entries, and the copies still come to a constant each. */
        uint64_t capacity = m->capacity + (uint64_t)m->capacity / 8 + FIRST_CAPACITY;
        STOA_ASSERT(capacity < UINT32_MAX);
        m->entries = (struct entry *)mem_realloc(m->entries, capacity * sizeof *m->entries);
        m->capacity = (uint32_t)capacity;
    }
    index_fit(m, holes > 0);
}

void map_shrink(struct map *m)
{
    uint64_t enough = m->count + (uint64_t)m->count / 8 + FIRST_CAPACITY;
    if (m->capacity < 2 * enough)
        return;
    entries_pack(m);
    m->entries = (struct entry *)mem_realloc(m->entries, enough * sizeof *m->entries);
    m->capacity = (uint32_t)enough;
    mem_free(m->index);
    m->index = NULL;
    index_fit(m, true);
}

void *map_get(const struct map *m, struct slice key)
{
    if (m->count == 0)
        return NULL;
    uint32_t place = place_find(m, key, key_hash(m, key));
    return m->index[place] ? m->entries[m->index[place] - 1].value : NULL;
}

void map_put(struct map *m, struct slice key, void *value)
{
    STOA_ASSERT(value);
    if (m->used == m->capacity)
        map_make_room(m);
    uint32_t hash = key_hash(m, key);
    uint32_t place = place_find(m, key, hash);
    STOA_ASSERT(m->index[place] == 0);
    m->entries[m->used] = (struct entry){
        .key = key.data, .value = value, .key_size = (uint32_t)key.size, .hash = hash};
    m->index[place] = ++m->used;
    m->count++;
}

void *map_remove(struct map *m, struct slice key)
{
    if (m->count == 0)
        return NULL;
    uint32_t place = place_find(m, key, key_hash(m, key));
    if (m->index[place] == 0)
        return NULL;
    struct entry *e = &m->entries[m->index[place] - 1];
    void *value = e->value;
    index_remove(m, place);
    *e = (struct entry){0};
    m->count--;
    /* Holes at the ends are given back now: taking the oldest or the newest again and again is
     * common, and stays cheap. */
    while (m->used > m->first && !m->entries[m->used - 1].value)
        m->used--;
    while (m->first < m->used && !m->entries[m->first].value)
        m->first++;
    if (m->count == 0)
        m->first = m->used = 0;
    return value;
}

size_t map_count(const struct map *m)
{
    return m->count;
}

void *map_next(const struct map *m, size_t *cursor)
{
    size_t at = *cursor > m->first ? *cursor : m->first;
    while (at < m->used && !m->entries[at].value)
        at++;
    if (at >= m->used)
        return NULL;
    *cursor = at + 1;
    return m->entries[at].value;
}

size_t map_bytes(const struct map *m)
{
    size_t places = m->index ? (size_t)m->index_mask + 1 : 0;
    return sizeof *m + m->capacity * sizeof *m->entries + places * sizeof *m->index;
}
