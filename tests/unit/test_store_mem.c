/* The store in memory keeps the contract of store.h, faults included. */
#include "shard/store_mem.h"

#include <check.h>
#include <stdlib.h>

struct seen {
    size_t slots, rooms, records, damaged;
    uint64_t last_lsn, head;
};

static void on_slot(void *ctx, const struct store_slot *slot)
{
    (void)slot;
    ((struct seen *)ctx)->slots++;
}
static void on_room(void *ctx, const struct store_room *room)
{
    struct seen *seen = ctx;
    seen->rooms++;
    seen->head = room->head;
    ck_assert(slice_is(room->key, "key"));
}
static void on_record(void *ctx, unsigned class_no, const struct store_record *record)
{
    struct seen *seen = ctx;
    (void)class_no;
    seen->records++;
    ck_assert_uint_gt(record->lsn, seen->last_lsn);
    seen->last_lsn = record->lsn;
}
static void on_damaged(void *ctx, unsigned class_no, uint64_t lsn)
{
    (void)class_no;
    (void)lsn;
    ((struct seen *)ctx)->damaged++;
}

static struct seen scan(struct store *s)
{
    struct seen seen = {0};
    const struct store_visitor v = {
        .ctx = &seen, .slot = on_slot, .room = on_room, .record = on_record, .damaged = on_damaged};
    ck_assert_int_eq(s->vtable->scan(s, &v), ERR_OK);
    return seen;
}

static int append(struct store *s, uint64_t lsn)
{
    struct store_record r = {.lsn = lsn,
                             .room_id = 9,
                             .seq = lsn,
                             .ts = (int64_t)lsn * 10,
                             .batch_count = 1,
                             .conflate = slice_text("c"),
                             .payload = slice_text("payload")};
    return s->vtable->append(s, 0, &r);
}

static int put_room(struct store *s, uint64_t head)
{
    struct store_room row = {.room_id = 9, .epoch = 1, .head = head, .key = slice_text("key")};
    return s->vtable->put_room(s, &row);
}

static void fill(struct store *s, uint64_t from, uint64_t to)
{
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    for (uint64_t lsn = from; lsn <= to; lsn++)
        ck_assert_int_eq(append(s, lsn), ERR_OK);
    ck_assert_int_eq(put_room(s, to), ERR_OK);
    ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
}

static void count_gone(void *ctx, const struct store_record *record)
{
    (void)record;
    ++*(size_t *)ctx;
}

START_TEST(what_is_committed_stays_the_rest_does_not)
{
    struct store *s = store_mem_create();
    fill(s, 1, 3);
    uint64_t meta = 0;
    ck_assert_int_eq(s->vtable->get_meta(s, "m", &meta), ERR_NOT_FOUND);
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    ck_assert_int_eq(append(s, 4), ERR_OK);
    ck_assert_int_eq(put_room(s, 4), ERR_OK);
    ck_assert_int_eq(s->vtable->remove(s, 0, 1), ERR_OK);
    ck_assert_int_eq(s->vtable->put_meta(s, "m", 5), ERR_OK);
    struct store_slot slot = {.slot = 3, .epoch = 1};
    ck_assert_int_eq(s->vtable->put_slots(s, &slot, 1), ERR_OK);
    store_mem_crash(s);
    struct seen seen = scan(s);
    ck_assert_uint_eq(seen.records, 3);
    ck_assert_uint_eq(seen.head, 3);
    ck_assert_uint_eq(seen.slots, 0);
    ck_assert_int_eq(s->vtable->get_meta(s, "m", &meta), ERR_NOT_FOUND);
    ck_assert_uint_eq(store_mem_commits(s), 1);
    store_mem_destroy(&s);
}
END_TEST

START_TEST(trim_stops_at_the_first_that_stays)
{
    struct store *s = store_mem_create();
    fill(s, 1, 300);
    size_t gone = 0, trimmed = 0;
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    ck_assert_int_eq(s->vtable->remove(s, 0, 2), ERR_OK);
    ck_assert_int_eq(s->vtable->remove(s, 0, 2), ERR_OK); /* absent is fine */
    ck_assert_int_eq(s->vtable->trim(s, 0, 2950, 1000, count_gone, &gone, &trimmed), ERR_OK);
    ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
    ck_assert_uint_eq(gone, 294);
    ck_assert_uint_eq(trimmed, 294);
    ck_assert_uint_eq(scan(s).records, 5);
    struct store_record r;
    ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
    ck_assert_int_eq(s->vtable->read(s, 0, 295, &r), ERR_NOT_FOUND);
    ck_assert_int_eq(s->vtable->read(s, 0, 296, &r), ERR_OK);
    ck_assert(slice_is(r.payload, "payload") && slice_is(r.conflate, "c"));
    s->vtable->read_end(s);
    store_mem_damage(s, 0, 297);
    ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
    ck_assert_int_eq(s->vtable->read(s, 0, 297, &r), ERR_CORRUPT);
    s->vtable->read_end(s);
    ck_assert_uint_eq(scan(s).damaged, 1);
    ck_assert_uint_eq(scan(s).records, 4);
    store_mem_destroy(&s);
}
END_TEST

START_TEST(a_full_disk_takes_deletions_only)
{
    struct store *s = store_mem_create();
    fill(s, 1, 3);
    store_mem_fill(s, 2);
    fill(s, 4, 4);
    ck_assert(s->vtable->has_space(s));
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    ck_assert_int_eq(append(s, 5), ERR_OK);
    ck_assert_int_eq(s->vtable->commit(s), ERR_NO_SPACE);
    ck_assert(!s->vtable->has_space(s));
    ck_assert_uint_eq(scan(s).records, 4);
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    ck_assert_int_eq(append(s, 5), ERR_NO_SPACE);
    s->vtable->abort(s);
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    ck_assert_int_eq(s->vtable->remove(s, 0, 1), ERR_OK);
    ck_assert_int_eq(s->vtable->delete_room(s, 9), ERR_OK);
    ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
    ck_assert_uint_eq(scan(s).rooms, 0);
    ck_assert_uint_eq(scan(s).records, 3);
    store_mem_fill(s, 0);
    ck_assert(s->vtable->has_space(s));
    fill(s, 5, 6);
    struct store_stats stats;
    s->vtable->stats(s, &stats);
    ck_assert_uint_eq(stats.records[0], 5);
    store_mem_destroy(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store_mem");
    TCase *tcase = tcase_create("store_mem");
    tcase_add_test(tcase, what_is_committed_stays_the_rest_does_not);
    tcase_add_test(tcase, trim_stops_at_the_first_that_stays);
    tcase_add_test(tcase, a_full_disk_takes_deletions_only);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
