/* SHELL. Rows of rooms with handlers: the contract of store.h against both stores, the two against
 * each other by random transactions, and the faults of the store in memory. */
#include <check.h>

#include "common/rng.h"
#include "shard/store_mem.h"
#include "store_rig.h"
#include "store_rows.h"

enum kind { IN_MEMORY, ON_DISK, KINDS };

static struct store *open_kind(int kind)
{
    return kind == IN_MEMORY ? store_mem_create() : open_usual();
}

static void close_kind(struct store **s, int kind)
{
    if (kind == IN_MEMORY)
        store_mem_destroy(s);
    else
        store_lmdb_close(s);
}

/* As after the end of the process. */
static void reopen_kind(struct store **s, int kind)
{
    if (kind == IN_MEMORY) {
        store_mem_crash(*s);
    } else {
        store_lmdb_close(s);
        *s = open_usual();
    }
}

/* ---- the contract, of both ---- */

START_TEST(insert_replace_delete)
{
    struct store *s = open_kind(_i);
    ck_assert_str_eq(one_row(s, TABLE_STATE, 9, ""), "ERR_NOT_FOUND");
    ck_assert_str_eq(all_rows(s), "");
    begin(s);
    put(s, TABLE_STATE, 9, "", "first");
    put(s, TABLE_CONNECTION, 9, "s1", "");
    delete_named(s, TABLE_ALARM, 9, ""); /* absent is fine */
    commit(s);
    ck_assert_str_eq(one_row(s, TABLE_STATE, 9, ""), "first");
    ck_assert_str_eq(one_row(s, TABLE_CONNECTION, 9, "s1"), "");
    ck_assert_str_eq(one_row(s, TABLE_CONNECTION, 9, "s"), "ERR_NOT_FOUND");
    ck_assert_str_eq(one_row(s, TABLE_CONNECTION, 9, "s11"), "ERR_NOT_FOUND");
    ck_assert_str_eq(one_row(s, TABLE_CONNECTION, 8, "s1"), "ERR_NOT_FOUND");
    ck_assert_str_eq(one_row(s, TABLE_DONE, 9, "s1"), "ERR_NOT_FOUND");
    begin(s);
    put(s, TABLE_STATE, 9, "", "second, which is longer");
    put(s, TABLE_STATE, 9, "", "third");
    delete_named(s, TABLE_CONNECTION, 9, "s1");
    put(s, TABLE_CONNECTION, 9, "s2", "here for a moment");
    delete_named(s, TABLE_CONNECTION, 9, "s2");
    commit(s);
    ck_assert_str_eq(all_rows(s), "0/9/=third\n");
    reopen_kind(&s, _i);
    ck_assert_str_eq(all_rows(s), "0/9/=third\n");
    close_kind(&s, _i);
}
END_TEST

START_TEST(ordered_by_table_room_and_name)
{
    struct store *s = open_kind(_i);
    begin(s);
    put(s, TABLE_DONE, 2, "b", "8");
    put(s, TABLE_CONNECTION, 0x100, "b", "6");
    put(s, TABLE_CONNECTION, 0xff, "ab", "4");
    put(s, TABLE_CONNECTION, 0xff, "b", "5");
    put(s, TABLE_CONNECTION, 0xff, "a", "3");
    put(s, TABLE_CONNECTION, 0xff, "", "2");
    put(s, TABLE_CONNECTION, UINT64_MAX, "", "7");
    put(s, TABLE_STATE, 0xff, "", "1");
    commit(s);
    ck_assert_str_eq(all_rows(s), "0/ff/=1\n1/ff/=2\n1/ff/a=3\n1/ff/ab=4\n1/ff/b=5\n1/100/b=6\n"
                                  "1/ffffffffffffffff/=7\n3/2/b=8\n");
    ck_assert_str_eq(rows_of(s, TABLE_CONNECTION, 0xff),
                     "1/ff/=2\n1/ff/a=3\n1/ff/ab=4\n1/ff/b=5\n");
    ck_assert_str_eq(rows_of(s, TABLE_CONNECTION, UINT64_MAX), "1/ffffffffffffffff/=7\n");
    ck_assert_str_eq(rows_of(s, TABLE_CONNECTION, 0xfe), "");
    ck_assert_str_eq(rows_of(s, TABLE_DONE, 2), "3/2/b=8\n");
    ck_assert_str_eq(rows_of(s, TABLE_DONE, 3), "");
    close_kind(&s, _i);
}
END_TEST

START_TEST(abort_leaves_nothing)
{
    struct store *s = open_kind(_i);
    begin(s);
    put(s, TABLE_STATE, 1, "", "one");
    put(s, TABLE_STATE, 2, "", "two");
    commit(s);
    begin(s);
    put(s, TABLE_STATE, 1, "", "other");
    put(s, TABLE_STATE, 1, "", "another");
    delete_named(s, TABLE_STATE, 1, "");
    put(s, TABLE_STATE, 1, "", "third");
    delete_named(s, TABLE_STATE, 2, "");
    delete_named(s, TABLE_STATE, 3, "");
    put(s, TABLE_STATE, 3, "", "three");
    put(s, TABLE_CONNECTION, 3, "s", "");
    ck_assert_int_eq(append(s, 0, 5, 300), ERR_OK);
    s->vtable->abort(s);
    ck_assert_str_eq(all_rows(s), "0/1/=one\n0/2/=two\n");
    begin(s);
    delete_named(s, TABLE_STATE, 1, "");
    delete_named(s, TABLE_STATE, 2, "");
    commit(s);
    ck_assert_str_eq(all_rows(s), "");
    close_kind(&s, _i);
}
END_TEST

/* Reads see the last commit, inside a transaction too. */
START_TEST(reads_in_a_transaction)
{
    struct store *s = open_kind(_i);
    struct store_record r;
    begin(s);
    put(s, TABLE_STATE, 1, "", "one");
    put(s, TABLE_CONNECTION, 1, "a", "a");
    put(s, TABLE_CONNECTION, 1, "c", "c");
    ck_assert_int_eq(append(s, 0, 1, 300), ERR_OK);
    ck_assert_int_eq(append(s, 0, 2, 300), ERR_OK);
    commit(s);
    for (int twice = 0; twice < 2; twice++) {
        begin(s);
        put(s, TABLE_STATE, 1, "", "other");
        delete_named(s, TABLE_CONNECTION, 1, "a");
        put(s, TABLE_CONNECTION, 1, "b", "b");
        ck_assert_int_eq(append(s, 0, 3, 300), ERR_OK);
        ck_assert_int_eq(s->vtable->remove(s, 0, 1), ERR_OK);
        ck_assert_str_eq(one_row(s, TABLE_STATE, 1, ""), "one");
        ck_assert_str_eq(one_row(s, TABLE_CONNECTION, 1, "b"), "ERR_NOT_FOUND");
        ck_assert_str_eq(rows_of(s, TABLE_CONNECTION, 1), "1/1/a=a\n1/1/c=c\n");
        ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
        ck_assert_int_eq(s->vtable->read(s, 0, 1, &r), ERR_OK);
        ck_assert(same_record(&r, 300));
        ck_assert_int_eq(s->vtable->read(s, 0, 2, &r), ERR_OK);
        ck_assert_int_eq(s->vtable->read(s, 0, 3, &r), ERR_NOT_FOUND);
        s->vtable->read_end(s);
        if (twice)
            commit(s);
        else
            s->vtable->abort(s);
    }
    ck_assert_str_eq(all_rows(s), "0/1/=other\n1/1/b=b\n1/1/c=c\n");
    ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
    ck_assert_int_eq(s->vtable->read(s, 0, 1, &r), ERR_NOT_FOUND);
    ck_assert_int_eq(s->vtable->read(s, 0, 3, &r), ERR_OK);
    s->vtable->read_end(s);
    close_kind(&s, _i);
}
END_TEST

/* Names and values are bytes of any kind, up to their bounds. */
START_TEST(bounds)
{
    static uint8_t name[STORE_ROW_NAME_MAX_BYTES], big[STORE_ROW_VALUE_MAX_BYTES];
    static const uint8_t zeros[3];
    static const size_t sizes[] = {sizeof big, 2 << 20, 5000, 1, 0, sizeof big};
    struct rng rng;
    struct store *s = open_kind(_i);
    rng_seed(&rng, 3);
    rng_bytes(&rng, big, sizeof big);
    memset(name, 0xff, sizeof name);
    const struct store_row odd = {TABLE_DONE, 1, slice_of(zeros, 3), slice_of(zeros, 2)};
    struct slice value;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const struct store_row row = {TABLE_DONE, 1, slice_of(name, sizeof name),
                                      slice_of(big, sizes[i])};
        begin(s);
        ck_assert_int_eq(s->vtable->put_row(s, &row), ERR_OK);
        ck_assert_int_eq(s->vtable->put_row(s, &odd), ERR_OK);
        commit(s);
        reopen_kind(&s, _i);
        ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
        ck_assert_int_eq(s->vtable->read_row(s, TABLE_DONE, 1, row.name, &value), ERR_OK);
        ck_assert(slice_equal(value, row.value));
        ck_assert_int_eq(s->vtable->read_row(s, TABLE_DONE, 1, odd.name, &value), ERR_OK);
        ck_assert(slice_equal(value, odd.value));
        s->vtable->read_end(s);
    }
    close_kind(&s, _i);
}
END_TEST

/* Random transactions on both: each tells the same after each of them. */
START_TEST(both_tell_the_same)
{
    static const char *const names[] = {"", "a", "ab", "b", "session-of-a-connection"};
    struct store *stores[KINDS] = {open_kind(IN_MEMORY), open_kind(ON_DISK)};
    struct rng rng;
    struct strbuf told = {0};
    rng_seed(&rng, 70 + (uint64_t)_i);
    for (int turn = 0; turn < 120; turn++) {
        begin(stores[0]), begin(stores[1]);
        for (uint64_t n = rng_below(&rng, 30); n > 0; n--) {
            enum store_table table = (enum store_table)rng_below(&rng, STORE_TABLES);
            uint64_t room = 1 + (rng_below(&rng, 12) << rng_below(&rng, 60));
            const char *name = names[rng_below(&rng, 5)];
            char value[5000];
            size_t size = rng_below(&rng, 10) ? rng_below(&rng, 60) : sizeof value;
            memset(value, 'a' + (int)rng_below(&rng, 26), sizeof value);
            bool deletes = rng_below(&rng, 3) == 0;
            for (int k = 0; k < KINDS && deletes; k++)
                delete_named(stores[k], table, room, name);
            for (int k = 0; k < KINDS && !deletes; k++)
                ck_assert_int_eq(put_bytes(stores[k], table, room, name, slice_of(value, size)),
                                 ERR_OK);
        }
        bool aborts = rng_below(&rng, 4) == 0, reopens = rng_below(&rng, 8) == 0;
        for (int k = 0; k < KINDS; k++) {
            if (aborts)
                stores[k]->vtable->abort(stores[k]);
            else
                commit(stores[k]);
            if (reopens)
                reopen_kind(&stores[k], k);
        }
        strbuf_reset(&told);
        strbuf_put_text(&told, all_rows(stores[0]));
        ck_assert_str_eq(all_rows(stores[1]), strbuf_cstr(&told));
        for (enum store_table table = 0; table < STORE_TABLES; table++) {
            uint64_t room = 1 + rng_below(&rng, 12);
            strbuf_reset(&told);
            strbuf_put_text(&told, rows_of(stores[0], table, room));
            ck_assert_str_eq(rows_of(stores[1], table, room), strbuf_cstr(&told));
        }
    }
    strbuf_free(&told);
    for (int k = 0; k < KINDS; k++)
        close_kind(&stores[k], k);
}
END_TEST

/* ---- faults of the store in memory ---- */

START_TEST(memory_full_and_damaged)
{
    struct store *s = store_mem_create();
    begin(s);
    put(s, TABLE_STATE, 1, "", "one");
    put(s, TABLE_STATE, 2, "", "two");
    commit(s);
    store_mem_damage_row(s, TABLE_STATE, 1, slice_text(""));
    ck_assert_str_eq(all_rows(s), "0/1/!\n0/2/=two\n");
    ck_assert_str_eq(rows_of(s, TABLE_STATE, 1), "0/1/!\n");
    ck_assert_str_eq(one_row(s, TABLE_STATE, 1, ""), "ERR_CORRUPT");
    store_mem_fill(s, 2);
    begin(s);
    put(s, TABLE_STATE, 1, "", "anew");
    commit(s);
    begin(s);
    put(s, TABLE_STATE, 2, "", "lost");
    ck_assert_int_eq(s->vtable->commit(s), ERR_NO_SPACE);
    begin(s);
    ck_assert_int_eq(put_bytes(s, TABLE_STATE, 2, "", slice_text("x")), ERR_NO_SPACE);
    s->vtable->abort(s);
    begin(s);
    delete_named(s, TABLE_STATE, 2, "");
    commit(s);
    ck_assert_str_eq(all_rows(s), "0/1/=anew\n");
    store_mem_destroy(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store_rows");
    TCase *t = tcase_create("store_rows");
    suite_add_tcase(suite, t);
    tcase_add_checked_fixture(t, rig_setup, rig_teardown);
    tcase_add_loop_test(t, insert_replace_delete, 0, KINDS);
    tcase_add_loop_test(t, ordered_by_table_room_and_name, 0, KINDS);
    tcase_add_loop_test(t, abort_leaves_nothing, 0, KINDS);
    tcase_add_loop_test(t, reads_in_a_transaction, 0, KINDS);
    tcase_add_loop_test(t, bounds, 0, KINDS);
    tcase_add_loop_test(t, both_tell_the_same, 0, 4);
    tcase_add_test(t, memory_full_and_damaged);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
