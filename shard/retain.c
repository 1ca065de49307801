/* CORE. The ring of a room's records and its interned conflate values (retain.h has the picture).
 *
 * The map of values exists only in rooms that conflate. A value lives as long as a record in the
 * ring carries it; its number is reused afterwards. */
#include "shard/retain.h"

#include "common/err.h"
#include "common/hash.h"
#include "common/limits.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/mutant.h"
#include "shard/vec.h"

#define DIGEST_BYTES 32
#define FIRST_CAPACITY 4
#define SHRINK_ABOVE 64

struct value {
    uint64_t newest; /* seq */
    uint32_t number;
    uint32_t refs; /* records in the ring that carry it */
    uint32_t size;
    uint8_t name[];
};

struct retain {
    struct retained *ring;
    uint32_t capacity;
    uint32_t first; /* place of the oldest */
    uint32_t count;
    uint64_t first_seq;
    struct map *values;  /* name -> struct value, owned here; NULL until the first */
    struct vec numbered; /* struct value *, by number - 1; NULL: free */
    uint32_t free_from;  /* no free number below it, counted from 0 */
};

struct retain *retain_create(void)
{
    return (struct retain *)mem_zalloc(sizeof(struct retain));
}

void retain_destroy(struct retain **r_p)
{
    struct retain *r = *r_p;
    if (!r)
        return;
    for (size_t i = 0; i < r->numbered.count; i++)
        mem_free(VEC_AT(&r->numbered, struct value *)[i]);
    vec_free(&r->numbered);
    map_destroy(&r->values);
    mem_free(r->ring);
    mem_free(r);
    *r_p = NULL;
}

static struct retained *entry_at(const struct retain *r, uint64_t seq)
{
    STOA_ASSERT(seq >= r->first_seq && seq - r->first_seq < r->count);
    uint64_t place = r->first + (seq - r->first_seq);
    return &r->ring[place < r->capacity ? place : place - r->capacity];
}

static void ring_resize(struct retain *r, uint32_t capacity)
{
    STOA_ASSERT(capacity >= r->count);
    struct retained *ring = (struct retained *)mem_alloc(capacity * sizeof *ring);
    for (uint32_t i = 0; i < r->count; i++)
        ring[i] = *entry_at(r, r->first_seq + i);
    mem_free(r->ring);
    r->ring = ring;
    r->capacity = capacity;
    r->first = 0;
}

/* ---- conflate values ---- */

static struct value *value_of(const struct retain *r, uint32_t number)
{
    return VEC_AT(&r->numbered, struct value *)[number - 1];
}

static struct value *value_create(struct retain *r, struct slice name)
{
    uint32_t number = r->free_from + 1;
    while (number <= r->numbered.count && value_of(r, number))
        number++;
    if (number > r->numbered.count)
        (void)VEC_PUSH(&r->numbered, struct value *);
    struct value *v = (struct value *)mem_zalloc(sizeof *v + name.size);
    v->number = number;
    v->size = (uint32_t)name.size;
    memcpy(v->name, name.data, name.size);
    VEC_AT(&r->numbered, struct value *)[number - 1] = v;
    r->free_from = number;
    map_put(r->values, slice_of(v->name, v->size), v);
    return v;
}

static uint32_t value_carry(struct retain *r, struct slice conflate, struct slice filter,
                            uint64_t seq)
{
    uint8_t name[1 + CONFLATE_MAX_BYTES + DIGEST_BYTES] = {(uint8_t)conflate.size};
    size_t size = 1 + conflate.size;
    if (conflate.size == 0)
        return 0;
    STOA_ASSERT(conflate.size <= CONFLATE_MAX_BYTES);
    memcpy(name + 1, conflate.data, conflate.size);
    if (filter.size > 0 && !STOA_MUTANT(CONFLATE_FOR_OTHERS)) {
        sha256(name + size, filter.data, filter.size);
        size += DIGEST_BYTES;
    }
    if (!r->values)
        r->values = map_create(0);
    struct value *v = (struct value *)map_get(r->values, slice_of(name, size));
    if (!v)
        v = value_create(r, slice_of(name, size));
    v->refs++;
    v->newest = seq;
    return v->number;
}

/* NULL: the record carries none. */
static struct value *value_at(const struct retain *r, uint32_t number)
{
    return number != 0 && number != RETAIN_TRANSIENT ? value_of(r, number) : NULL;
}

static void value_drop(struct retain *r, uint32_t number)
{
    struct value *v = value_at(r, number);
    if (!v || --v->refs > 0)
        return;
    VEC_AT(&r->numbered, struct value *)[number - 1] = NULL;
    if (number - 1 < r->free_from)
        r->free_from = number - 1;
    (void)map_remove(r->values, slice_of(v->name, v->size));
    mem_free(v);
    if (map_count(r->values) == 0) {
        map_destroy(&r->values);
        vec_free(&r->numbered);
        r->free_from = 0;
    }
}

/* ---- the ring ---- */

void retain_push(struct retain *r, uint64_t seq, uint64_t lsn, int64_t ts, uint32_t size,
                 struct slice conflate, struct slice filter)
{
    STOA_ASSERT(r->count == 0 || seq == r->first_seq + r->count);
    if (r->count == 0)
        r->first_seq = seq;
    if (r->count == r->capacity)
        ring_resize(r, r->capacity ? r->capacity + r->capacity / 2 : FIRST_CAPACITY);
    r->count++;
    *entry_at(r, seq) = (struct retained){
        .lsn = lsn, .ts = ts, .size = size, .conflate = value_carry(r, conflate, filter, seq)};
}

void retain_push_transient(struct retain *r, uint64_t seq, uint64_t lsn, int64_t ts, uint32_t size)
{
    retain_push(r, seq, lsn, ts, size, (struct slice){0}, (struct slice){0});
    entry_at(r, seq)->conflate = RETAIN_TRANSIENT;
}

bool retain_is_transient(const struct retain *r, uint64_t seq)
{
    return entry_at(r, seq)->conflate == RETAIN_TRANSIENT;
}

void retain_pop_newest(struct retain *r)
{
    uint64_t seq = retain_last(r);
    uint32_t number = entry_at(r, seq)->conflate;
    struct value *v = value_at(r, number);
    if (v && v->refs > 1 && v->newest == seq) {
        /* Only after a failed commit, so a walk is fine. */
        uint64_t before = seq - 1;
        while (entry_at(r, before)->conflate != number)
            before--;
        v->newest = before;
    }
    value_drop(r, number);
    r->count--;
}

void retain_pop_oldest(struct retain *r)
{
    value_drop(r, entry_at(r, r->first_seq)->conflate);
    r->first = r->first + 1 < r->capacity ? r->first + 1 : 0;
    r->first_seq++;
    r->count--;
    if (r->capacity > SHRINK_ABOVE && r->count < r->capacity / 4)
        ring_resize(r, r->capacity / 2);
}

size_t retain_count(const struct retain *r)
{
    return r->count;
}

uint64_t retain_first(const struct retain *r)
{
    STOA_ASSERT(r->count > 0);
    return r->first_seq;
}

uint64_t retain_last(const struct retain *r)
{
    STOA_ASSERT(r->count > 0);
    return r->first_seq + r->count - 1;
}

const struct retained *retain_at(const struct retain *r, uint64_t seq)
{
    return entry_at(r, seq);
}

bool retain_superseded(const struct retain *r, uint64_t seq)
{
    uint32_t number = entry_at(r, seq)->conflate;
    const struct value *v = value_at(r, number);
    return number == RETAIN_TRANSIENT || (v && v->newest != seq);
}

void retain_validate(const struct retain *r)
{
    uint64_t refs = 0, carried = 0;
    for (size_t i = 0; i < r->numbered.count; i++) {
        const struct value *v = value_of(r, (uint32_t)i + 1);
        if (!v)
            continue;
        STOA_ASSERT(v->number == i + 1 && v->refs > 0);
        STOA_ASSERT(entry_at(r, v->newest)->conflate == v->number);
        refs += v->refs;
    }
    const struct retained *before = NULL;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct retained *e = entry_at(r, r->first_seq + i);
        carried += value_at(r, e->conflate) != NULL;
        STOA_ASSERT(!before || (before->lsn < e->lsn && before->ts <= e->ts));
        before = e;
    }
    STOA_ASSERT(refs == carried);
}
