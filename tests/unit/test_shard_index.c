/* The two indexes of a room against plain arrays: records with conflation, message ids with
 * publishers. And what an idle room costs. */
#include "test_shard_rig.h"

#include "common/map.h"
#include "shard/dedupe.h"
#include "shard/retain.h"
#include "shard/room.h"

#define STEPS 20000
#define SPAN 4096

struct plain {
    uint64_t lsn[SPAN];
    unsigned conflate[SPAN];
    uint64_t first, next; /* seqs */
};

static void check_retain(const struct retain *r, const struct plain *p)
{
    retain_validate(r);
    ck_assert_uint_eq(retain_count(r), p->next - p->first);
    for (uint64_t seq = p->first; seq < p->next; seq++) {
        ck_assert_uint_eq(retain_at(r, seq)->lsn, p->lsn[seq % SPAN]);
        bool newer = false;
        for (uint64_t later = seq + 1; later < p->next; later++)
            newer |=
                p->conflate[seq % SPAN] && p->conflate[later % SPAN] == p->conflate[seq % SPAN];
        ck_assert(retain_superseded(r, seq) == newer);
    }
}

START_TEST(records_are_found_by_seq)
{
    struct rng rng;
    rng_seed(&rng, 11);
    struct plain p = {.first = 5, .next = 5};
    struct retain *r = retain_create();
    for (uint64_t step = 1; step <= STEPS; step++) {
        uint64_t what = rng_below(&rng, step % 2000 < 1000 ? 10 : 3);
        if (what >= 2 && p.next - p.first < 300) {
            unsigned conflate = (unsigned)rng_below(&rng, 8);
            unsigned filter = (unsigned)rng_below(&rng, 3);
            char value[2] = {(char)('a' + conflate), 0}, readers[2] = {(char)('a' + filter), 0};
            p.lsn[p.next % SPAN] = step;
            p.conflate[p.next % SPAN] = conflate ? 3 * conflate + filter : 0;
            retain_push(r, p.next++, step, (int64_t)step, 1, slice_text(conflate ? value : ""),
                        slice_text(filter ? readers : ""));
        } else if (what == 1 && p.next > p.first) {
            retain_pop_newest(r);
            p.next--;
        } else if (p.next > p.first) {
            retain_pop_oldest(r);
            p.first++;
        }
        if (step % 97 == 0)
            check_retain(r, &p);
    }
    retain_destroy(&r);
}
END_TEST

START_TEST(ids_are_forgotten_oldest_first)
{
    struct rng rng;
    rng_seed(&rng, 12);
    struct dedupe *d = dedupe_create(1);
    uint64_t first = 1, next = 1; /* the id of the n-th publish is n, it ends at seq 2n */
    for (uint64_t step = 1; step <= STEPS; step++) {
        uint64_t what = rng_below(&rng, step % 4000 < 2000 ? 8 : 3);
        uint8_t id[16];
        if (what >= 2) {
            rig_id(id, next);
            dedupe_add(d, id, 2 * next, 2);
            dedupe_pid_set(
                d, (struct dedupe_pid){.pid = 1 + next % 50, .pseq = next, .seq = 2 * next});
            next++;
        } else if (next > first) {
            dedupe_forget(d,
                          2 * first + (what == 0)); /* half of the next publish changes nothing */
            first++;
        }
        if (step % 101 != 0)
            continue;
        dedupe_validate(d);
        ck_assert_uint_eq(dedupe_count(d), next - first);
        struct dedupe_hit hit;
        for (uint64_t n = first > 20 ? first - 20 : 1; n < next + 5; n++) {
            rig_id(id, n);
            ck_assert(dedupe_find(d, id, &hit) == (n >= first && n < next));
            ck_assert(n < first || n >= next || (hit.last == 2 * n && hit.count == 2));
        }
        for (uint64_t n = next > 50 ? next - 50 : 1; n < next; n++)
            ck_assert_uint_eq(dedupe_pid(d, 1 + n % 50).pseq, n >= first ? n : 0);
    }
    dedupe_destroy(&d);
}
END_TEST

START_TEST(an_idle_subscribed_room_is_small)
{
    struct map *map = map_create(1);
    enum { ROOMS = 10000, KEY = 32, MALLOC_OVERHEAD = 16 };
    /* room with key, one subscriber, its place in the map, what malloc adds to the two. */
    struct room **rooms = mem_zalloc(ROOMS * sizeof *rooms);
    for (size_t i = 0; i < ROOMS; i++) {
        char key[KEY + 1];
        snprintf(key, sizeof key, "upload:%025zu", i);
        rooms[i] = room_create(slice_text(key), 1);
        (void)room_subscribe(rooms[i], 1);
        map_put(map, room_key(rooms[i]), rooms[i]);
    }
    size_t each = sizeof(struct room) + KEY + sizeof(struct subscriber) + 2 * MALLOC_OVERHEAD +
                  map_bytes(map) / ROOMS;
    ck_assert_uint_le(each, 512);
    for (size_t i = 0; i < ROOMS; i++)
        room_destroy(&rooms[i]);
    mem_free(rooms);
    map_destroy(&map);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {records_are_found_by_seq, ids_are_forgotten_oldest_first,
                                  an_idle_subscribed_room_is_small};
    return rig_run("shard_index", tests, sizeof tests / sizeof *tests);
}
