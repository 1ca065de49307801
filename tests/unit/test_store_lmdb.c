/* SHELL. Tests of the store on LMDB against real files: round trips, trims, who may open. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mem.h"
#include "store_rig.h"

/* ---- what is written is read ---- */

START_TEST(round_trip)
{
    struct store *s = open_usual();
    ck_assert(store_lmdb_is_new(s));
    static const size_t sizes[] = {0, 1, 300, 2000, 2100, 5000, 1 << 19};
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    for (uint64_t i = 0; i < 7; i++)
        ck_assert_int_eq(append(s, i % 2, i + 1, sizes[i]), ERR_OK);
    const struct store_slot slots[] = {{4, 9}, {16383, 1}};
    const struct store_room room = {.room_id = 77,
                                    .epoch = 5,
                                    .head = 6,
                                    .floor = 2,
                                    .floor_ts = -3,
                                    .touched = 8,
                                    .slot = 4,
                                    .class_no = 1,
                                    .purged = 1,
                                    .key = slice_text("upload:abc")};
    const struct store_room other = {.room_id = 78, .epoch = 5, .key = slice_text("x")};
    ck_assert_int_eq(s->vtable->put_slots(s, slots, 2), ERR_OK);
    ck_assert_int_eq(s->vtable->put_room(s, &room), ERR_OK);
    ck_assert_int_eq(s->vtable->put_room(s, &other), ERR_OK);
    ck_assert_int_eq(s->vtable->delete_room(s, 78), ERR_OK);
    ck_assert_int_eq(s->vtable->delete_room(s, 79), ERR_OK);
    ck_assert_int_eq(s->vtable->put_meta(s, "next_lsn", 8), ERR_OK);
    ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
    for (int reopened = 0; reopened < 2; reopened++) {
        struct seen seen;
        uint64_t value = 0;
        ck_assert_int_eq(scan(s, &seen, 0), ERR_OK);
        ck_assert(seen.slots == 2 && seen.rooms == 1 && seen.records == 7 && seen.damaged == 0);
        ck_assert(seen.intact && seen.slot.slot == 16383 && seen.slot.epoch == 1);
        ck_assert(seen.room.room_id == 77 && seen.room.floor_ts == -3 && seen.room.purged == 1);
        ck_assert(seen.room.head == 6 && seen.room.class_no == 1 && seen.room.slot == 4);
        ck_assert_int_eq(s->vtable->get_meta(s, "next_lsn", &value), ERR_OK);
        ck_assert_uint_eq(value, 8);
        ck_assert_int_eq(s->vtable->get_meta(s, "nothing", &value), ERR_NOT_FOUND);
        store_lmdb_close(&s);
        s = open_usual();
        ck_assert(!store_lmdb_is_new(s));
    }
    store_lmdb_close(&s);
}
END_TEST

START_TEST(reads)
{
    struct store *s = open_usual();
    struct store_record r;
    ck_assert_int_eq(append_many(s, 1, 500, 300), ERR_OK);
    ck_assert_int_eq(append_many(s, 600, 100, 300), ERR_OK);
    ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
    static const uint64_t order[] = {1, 2, 3, 40, 39, 41, 500, 600, 601, 1, 699};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        ck_assert_int_eq(s->vtable->read(s, 0, order[i], &r), ERR_OK);
        ck_assert(r.lsn == order[i] && same_record(&r, 300));
    }
    static const uint64_t absent[] = {0, 501, 599, 700, UINT64_MAX};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        ck_assert_int_eq(s->vtable->read(s, 0, absent[i], &r), ERR_NOT_FOUND);
    ck_assert_int_eq(s->vtable->read(s, 1, 1, &r), ERR_NOT_FOUND);
    ck_assert_int_eq(s->vtable->read(s, 0, 2, &r), ERR_OK);
    s->vtable->read_end(s);
    /* the next reading sees the next commit */
    ck_assert_int_eq(append_many(s, 700, 1, 300), ERR_OK);
    ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
    ck_assert_int_eq(s->vtable->read(s, 0, 700, &r), ERR_OK);
    s->vtable->read_end(s);
    store_lmdb_close(&s);
}
END_TEST

START_TEST(abort_leaves_nothing)
{
    struct store *s = open_usual();
    struct seen seen;
    ck_assert_int_eq(append_many(s, 1, 3, 300), ERR_OK);
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    ck_assert_int_eq(append(s, 0, 4, 300), ERR_OK);
    ck_assert_int_eq(s->vtable->put_meta(s, "x", 1), ERR_OK);
    s->vtable->abort(s);
    uint64_t value;
    ck_assert_int_eq(s->vtable->get_meta(s, "x", &value), ERR_NOT_FOUND);
    ck_assert_int_eq(append_many(s, 4, 1, 100), ERR_OK); /* the lsn was never given away */
    ck_assert_int_eq(scan(s, &seen, 0), ERR_OK);
    ck_assert(seen.records == 4 && seen.intact);
    store_lmdb_close(&s);
}
END_TEST

START_TEST(lsn_is_never_reused)
{
    struct store *s = open_usual();
    ck_assert_int_eq(append_many(s, 10, 1, 300), ERR_OK);
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    rig_clean(); /* no teardown after an abort */
    (void)append(s, 0, 10, 300);
}
END_TEST

/* ---- trim ---- */

START_TEST(trim_takes_the_oldest)
{
    struct store *s = open_usual();
    struct gone gone = {0};
    struct seen seen;
    size_t n;
    ck_assert_int_eq(append_many(s, 1, 100, 300), ERR_OK);
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    ck_assert_int_eq(s->vtable->trim(s, 0, 400, 30, see_gone, &gone, &n), ERR_OK);
    ck_assert_uint_eq(n, 30);
    ck_assert_int_eq(s->vtable->trim(s, 0, 400, 30, see_gone, &gone, &n), ERR_OK);
    ck_assert_uint_eq(n, 10); /* ts 400 itself goes, 410 stays */
    ck_assert_int_eq(s->vtable->trim(s, 1, 400, 30, see_gone, &gone, &n), ERR_OK);
    ck_assert_uint_eq(n, 0);
    ck_assert_int_eq(s->vtable->remove(s, 0, 50), ERR_OK);
    ck_assert_int_eq(s->vtable->remove(s, 0, 50), ERR_OK);
    ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
    ck_assert(gone.count == 40 && gone.last_lsn == 40);
    ck_assert_int_eq(scan(s, &seen, 0), ERR_OK);
    ck_assert(seen.records == 59 && seen.intact && seen.last_lsn == 100);
    struct store_stats stats;
    s->vtable->stats(s, &stats);
    ck_assert(stats.records[0] == 59 && stats.records[1] == 0);
    ck_assert(stats.bytes > 0 && stats.bytes <= stats.file_bytes && stats.disk_free_bytes > 0);
    store_lmdb_close(&s);
}
END_TEST

START_TEST(file_keeps_its_size)
{
    struct store *s = open_usual();
    struct gone gone = {0};
    struct store_stats half, end;
    uint64_t lsn = 1;
    for (int turn = 0; turn < 1200; turn++) {
        size_t n;
        if (turn == 600)
            s->vtable->stats(s, &half);
        ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
        for (int i = 0; i < 40; i++, lsn++)
            ck_assert_int_eq(append(s, 0, lsn, lsn % 50 == 0 ? 20000 : 300), ERR_OK);
        ck_assert_int_eq(s->vtable->trim(s, 0, ((int64_t)lsn - 8000) * 10, 80, see_gone, &gone, &n),
                         ERR_OK);
        ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
        ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
        struct store_record r;
        ck_assert_int_eq(s->vtable->read(s, 0, lsn - 1, &r), ERR_OK);
        s->vtable->read_end(s);
    }
    s->vtable->stats(s, &end);
    ck_assert_uint_eq(end.file_bytes, half.file_bytes);
    ck_assert_uint_lt(end.file_bytes, 24 << 20);
    store_lmdb_close(&s);
}
END_TEST

/* ---- an end in mid-transaction; kills are test_store_rows_disk.c's ---- */

START_TEST(ended_in_mid_transaction)
{
    struct store *s = open_usual();
    ck_assert_int_eq(append_many(s, 1, 5, 300), ERR_OK);
    store_lmdb_close(&s);
    pid_t child = fork();
    if (child == 0) {
        s = open_usual();
        if (s->vtable->begin(s) != ERR_OK)
            _exit(1);
        for (uint64_t lsn = 6; lsn < 2000; lsn++)
            if (append(s, 0, lsn, 3000) != ERR_OK)
                _exit(1);
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    struct seen seen;
    s = open_usual();
    ck_assert_int_eq(scan(s, &seen, 300), ERR_OK);
    ck_assert(seen.records == 5 && seen.intact);
    store_lmdb_close(&s);
}
END_TEST

/* ---- who may open ---- */

START_TEST(second_opener_is_refused)
{
    struct store *s = open_usual(), *second = NULL;
    char pid[32];
    snprintf(pid, sizeof pid, "pid %ld:", (long)getpid());
    ck_assert_int_eq(open_as(&second, usual), ERR_REFUSED);
    ck_assert_ptr_null(second);
    ck_assert(says(&why, "another shard is running") && says(&why, pid));
    ck_assert_int_eq(append_many(s, 1, 1, 10), ERR_OK);
    store_lmdb_close(&s);
    s = open_usual();
    store_lmdb_close(&s);
}
END_TEST

START_TEST(foreign_directory_is_refused)
{
    uint8_t node[16], again[16];
    struct store *s = open_usual(), *other = NULL;
    store_lmdb_node(s, node);
    ck_assert_int_eq(store_lmdb_boot(s, 5), ERR_OK);
    store_lmdb_close(&s);
    struct store_lmdb_options options = usual;
    options.cluster = 8;
    options.cluster_name = "south";
    ck_assert_int_eq(open_as(&other, options), ERR_REFUSED);
    ck_assert(says(&why, "belongs to cluster \"north\"") && says(&why, "\"south\""));
    options = usual;
    options.slot_seed = 4;
    ck_assert_int_eq(open_as(&other, options), ERR_REFUSED);
    ck_assert(says(&why, "cluster.seed"));
    s = open_usual();
    store_lmdb_node(s, again);
    ck_assert_mem_eq(node, again, 16);
    uint64_t boot;
    ck_assert_int_eq(s->vtable->get_meta(s, "boot", &boot), ERR_OK);
    ck_assert_uint_eq(boot, 5);
    store_lmdb_close(&s);
}
END_TEST

START_TEST(other_format_is_refused)
{
    static const char *const texts[] = {"stoa-shard-", "created"};
    static const char *const reasons[] = {"is of format", "table meta is damaged"};
    struct store *s = open_usual();
    size_t size;
    store_lmdb_close(&s);
    uint8_t *file = file_read(&size);
    for (int i = 0; i < 2; i++) {
        /* every copy of the page */
        size_t skip = strlen(texts[i]) + (i ? 5 : 0);
        const uint8_t *from = file, *at;
        while ((at = memmem(from, size - (size_t)(from - file), texts[i], strlen(texts[i])))) {
            from = at + 1;
            file_poke((size_t)(at - file) + skip, at[skip] ^ 1);
        }
        ck_assert_int_eq(open_as(&s, usual), ERR_REFUSED);
        ck_assert_msg(says(&why, reasons[i]), "%s", strbuf_cstr(&why));
        from = file;
        while ((at = memmem(from, size - (size_t)(from - file), texts[i], strlen(texts[i])))) {
            from = at + 1;
            file_poke((size_t)(at - file) + skip, at[skip]);
        }
    }
    mem_free(file);
    s = open_usual();
    store_lmdb_close(&s);
}
END_TEST

START_TEST(bad_directory_is_refused)
{
    struct store *s = NULL;
    struct store_lmdb_options options = usual;
    options.dir = "/proc/nothing";
    ck_assert_int_eq(open_as(&s, options), ERR_IO);
    ck_assert(says(&why, "/proc/nothing"));
    options.dir = "/dev/null";
    ck_assert_int_eq(open_as(&s, options), ERR_IO);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store_lmdb");
    TCase *t = tcase_create("store_lmdb");
    suite_add_tcase(suite, t);
    tcase_add_checked_fixture(t, rig_setup, rig_teardown);
    tcase_add_test(t, round_trip);
    tcase_add_test(t, reads);
    tcase_add_test(t, abort_leaves_nothing);
    tcase_add_test_raise_signal(t, lsn_is_never_reused, SIGABRT);
    tcase_add_test(t, trim_takes_the_oldest);
    tcase_add_test(t, file_keeps_its_size);
    tcase_add_test(t, ended_in_mid_transaction);
    tcase_add_test(t, second_opener_is_refused);
    tcase_add_test(t, foreign_directory_is_refused);
    tcase_add_test(t, other_format_is_refused);
    tcase_add_test(t, bad_directory_is_refused);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
