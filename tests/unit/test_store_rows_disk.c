/* SHELL. Rows of rooms with handlers in files: damaged ones, full disks, kills, a file that the
 * version before has left. */
#include <check.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/rng.h"
#include "store_rig.h"
#include "store_rows.h"

/* ---- files: damage ---- */

#define ROWS 160

static size_t row_size(uint64_t i)
{
    return i % 20 == 0 ? 5000 : 100;
}

static void row_text(uint64_t i, char *out, size_t size)
{
    memset(out, 'a' + (int)(i % 26), row_size(i));
    int n = snprintf(out, size, "value-%04llu;", (unsigned long long)i);
    out[n] = '.';
}

/* Two leaves and more, some values with pages of their own. */
static void write_rows(void)
{
    struct store *s = open_usual();
    char value[5000], name[32];
    begin(s);
    for (uint64_t i = 0; i < ROWS; i++) {
        row_text(i, value, sizeof value);
        snprintf(name, sizeof name, "name-%04llu;", (unsigned long long)i);
        ck_assert_int_eq(
            put_bytes(s, TABLE_CONNECTION, 1 + i / 10 * 2, name, slice_of(value, row_size(i))),
            ERR_OK);
    }
    commit(s);
    store_lmdb_close(&s);
}

struct tally {
    uint64_t sound, damaged;
    uint64_t last_damaged;
};

static uint64_t row_number(const struct store_row *row)
{
    char name[32] = "";
    ck_assert(row->name.size == 10 && row->table == TABLE_CONNECTION);
    memcpy(name, row->name.data, row->name.size);
    uint64_t i = strtoull(name + 5, NULL, 10);
    ck_assert(strncmp(name, "name-", 5) == 0 && row->room_id == 1 + i / 10 * 2);
    return i;
}

static void tally_row(void *ctx, const struct store_row *row)
{
    struct tally *t = ctx;
    char value[5000];
    uint64_t i = row_number(row);
    row_text(i, value, sizeof value);
    ck_assert(slice_equal(row->value, slice_of(value, row_size(i))));
    t->sound++;
}

static void tally_damaged(void *ctx, const struct store_row *row)
{
    struct tally *t = ctx;
    t->last_damaged = row_number(row);
    ck_assert_uint_eq(row->value.size, 0);
    t->damaged++;
}

static struct tally tally(struct store *s)
{
    struct tally t = {0};
    scan_rows(s, &t, tally_row, tally_damaged);
    return t;
}

static void count_codes(void *ctx, int code, const struct store_row *row)
{
    struct tally *t = ctx;
    if (code == ERR_OK)
        tally_row(t, row);
    else
        tally_damaged(t, row);
}

/* Changes a byte in every copy of a value: pages that were split keep stale ones. */
static void poke_copies(const uint8_t *file, size_t size, const char *wanted, size_t at,
                        uint8_t flip)
{
    const uint8_t *from = file, *found;
    while ((found = memmem(from, size - (size_t)(from - file), wanted, strlen(wanted)))) {
        size_t place = (size_t)(found - file) + at;
        file_poke(place, file[place] ^ flip);
        from = found + 1;
    }
    ck_assert(from != file);
}

/* A damaged value is one row's misfortune. */
START_TEST(damaged_row_is_not_served)
{
    struct rng rng;
    size_t size;
    rng_seed(&rng, 12);
    write_rows();
    uint8_t *file = file_read(&size);
    for (int round = 0; round < 60; round++) {
        char wanted[32];
        uint64_t i = rng_below(&rng, ROWS);
        snprintf(wanted, sizeof wanted, "value-%04llu;", (unsigned long long)i);
        size_t at = rng_below(&rng, row_size(i));
        poke_copies(file, size, wanted, at, (uint8_t)(1u << rng_below(&rng, 8)));
        struct store *s = open_usual();
        struct tally t = tally(s), of_room = {0};
        ck_assert_msg(t.sound == ROWS - 1 && t.damaged == 1 && t.last_damaged == i,
                      "row %llu, byte %zu", (unsigned long long)i, at);
        struct slice value;
        snprintf(wanted, sizeof wanted, "name-%04llu;", (unsigned long long)i);
        uint64_t room = 1 + i / 10 * 2;
        ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
        ck_assert_int_eq(s->vtable->read_row(s, TABLE_CONNECTION, room, slice_text(wanted), &value),
                         ERR_CORRUPT);
        s->vtable->read_rows(s, TABLE_CONNECTION, room, count_codes, &of_room);
        s->vtable->read_end(s);
        ck_assert(of_room.sound == 9 && of_room.damaged == 1 && of_room.last_damaged == i);
        if (round % 10 == 0) { /* and is replaced like any other */
            begin(s);
            put(s, TABLE_CONNECTION, room, wanted, "anew");
            commit(s);
            ck_assert_str_eq(one_row(s, TABLE_CONNECTION, room, wanted), "anew");
            store_lmdb_close(&s);
            rig_clean();
            write_rows();
            mem_free(file);
            file = file_read(&size);
        } else {
            store_lmdb_close(&s);
            snprintf(wanted, sizeof wanted, "value-%04llu;", (unsigned long long)i);
            poke_copies(file, size, wanted, at, 0);
        }
    }
    mem_free(file);
}
END_TEST

/* A bit anywhere: the file is refused, or every row is there, or named as damaged. */
START_TEST(no_flipped_bit_hides_a_row)
{
    struct rng rng;
    size_t size;
    int refused = 0, damaged = 0;
    rng_seed(&rng, 60 + (uint64_t)_i);
    write_rows();
    uint8_t *file = file_read(&size);
    const uint8_t *from = memmem(file, size, "name-0000;", 10);
    ck_assert_ptr_nonnull(from);
    for (int round = 0; round < 300; round++) {
        size_t at = rng_below(&rng, 40) * 4096 + rng_below(&rng, round % 4 ? 48 : 4096);
        if (round % 2) { /* the head, key and sums of a row */
            char wanted[32];
            snprintf(wanted, sizeof wanted, "name-%04d;", (int)rng_below(&rng, ROWS));
            const uint8_t *key = memmem(file, size, wanted, 10);
            at = (size_t)(key - file) - 17 + rng_below(&rng, 36);
        }
        file_poke(at, file[at] ^ (uint8_t)(1u << rng_below(&rng, 8)));
        struct store *s = NULL;
        int code = open_as(&s, usual);
        if (code == ERR_OK) {
            struct tally t = tally(s);
            ck_assert_msg(t.sound + t.damaged == ROWS && t.damaged <= 1, "page %zu, byte %zu",
                          at / 4096, at % 4096);
            for (uint64_t i = 0; i < ROWS; i++) {
                char name[32];
                snprintf(name, sizeof name, "name-%04llu;", (unsigned long long)i);
                ck_assert_str_ne(one_row(s, TABLE_CONNECTION, 1 + i / 10 * 2, name),
                                 "ERR_NOT_FOUND");
            }
            damaged += t.damaged > 0;
            store_lmdb_close(&s);
        } else {
            ck_assert_msg(says(&why, "is damaged"), "page %zu, byte %zu: %s", at / 4096, at % 4096,
                          strbuf_cstr(&why));
            refused++;
        }
        file_poke(at, file[at]);
    }
    ck_assert_int_gt(refused, 30);
    ck_assert_int_gt(damaged, 10);
    mem_free(file);
}
END_TEST

/* ---- files: space ---- */

static uint8_t state[2 << 20];

static int put_state(struct store *s, uint64_t room_id)
{
    begin(s);
    int code = put_bytes(s, TABLE_STATE, room_id, "", slice_of(state, sizeof state));
    if (code == ERR_OK)
        return s->vtable->commit(s);
    s->vtable->abort(s);
    return code;
}

/* States of the largest size, replaced between records that come and go. */
START_TEST(file_keeps_its_size)
{
    struct store *s = open_usual();
    struct gone gone = {0};
    struct store_stats half, end;
    uint64_t lsn = 1;
    for (int turn = 0; turn < 240; turn++) {
        size_t n;
        if (turn == 120)
            s->vtable->stats(s, &half);
        begin(s);
        for (int i = 0; i < 20; i++, lsn++)
            ck_assert_int_eq(append(s, 0, lsn, lsn % 50 == 0 ? 20000 : 300), ERR_OK);
        ck_assert_int_eq(s->vtable->trim(s, 0, ((int64_t)lsn - 500) * 10, 80, see_gone, &gone, &n),
                         ERR_OK);
        ck_assert_int_eq(put_bytes(s, TABLE_STATE, 1 + (uint64_t)turn % 3, "",
                                   slice_of(state, sizeof state - (size_t)turn * 1000)),
                         ERR_OK);
        commit(s);
    }
    s->vtable->stats(s, &end);
    ck_assert_uint_gt(end.bytes, 5 << 20);
    ck_assert_uint_lt(end.bytes, 9 << 20);
    ck_assert_uint_eq(end.file_bytes, half.file_bytes);
    begin(s);
    for (uint64_t room = 1; room <= 3; room++)
        delete_named(s, TABLE_STATE, room, "");
    commit(s);
    s->vtable->stats(s, &end);
    ck_assert_uint_lt(end.bytes, 2 << 20);
    store_lmdb_close(&s);
}
END_TEST

/* Nothing of a refused transaction happened; what was there stays; deleting makes space again. */
START_TEST(full_map)
{
    struct store_lmdb_options options = usual;
    struct store *s = NULL;
    struct seen seen;
    uint64_t rooms = 0;
    memset(state, 's', sizeof state);
    options.map_bytes = 24 << 20;
    ck_assert_int_eq(open_as(&s, options), ERR_OK);
    while (put_state(s, rooms + 1) == ERR_OK)
        ck_assert_uint_lt(++rooms, 100);
    ck_assert_uint_ge(rooms, 5);
    begin(s);
    ck_assert_int_eq(append(s, 0, 1, 300), ERR_OK);
    ck_assert_int_eq(put_bytes(s, TABLE_STATE, 50, "", slice_of(state, sizeof state)),
                     ERR_NO_SPACE);
    s->vtable->abort(s);
    ck_assert_int_eq(scan(s, &seen, 300), ERR_OK);
    ck_assert_uint_eq(seen.records, 0);
    ck_assert_str_eq(one_row(s, TABLE_STATE, 50, ""), "ERR_NOT_FOUND");
    for (uint64_t room = 1; room <= rooms; room++)
        ck_assert_uint_eq(strlen(rows_of(s, TABLE_STATE, room)), sizeof state + 6);
    for (uint64_t room = 1; room <= 4; room++) {
        begin(s);
        delete_named(s, TABLE_STATE, room, "");
        commit(s);
    }
    if (put_state(s, 50) != ERR_OK)
        ck_assert_int_eq(put_state(s, 50), ERR_OK);
    store_lmdb_close(&s);
    s = open_usual();
    ck_assert_uint_eq(strlen(rows_of(s, TABLE_STATE, 50)), sizeof state + 7);
    store_lmdb_close(&s);
}
END_TEST

START_TEST(full_disk_takes_nothing_of_it)
{
    struct store *s = open_usual();
    begin(s);
    put(s, TABLE_STATE, 1, "", "before");
    commit(s);
    disk.short_writes = disk.shows_full = true;
    ck_assert_int_eq(put_state(s, 1), ERR_NO_SPACE);
    disk.short_writes = disk.shows_full = false;
    ck_assert_str_eq(one_row(s, TABLE_STATE, 1, ""), "before");
    ck_assert_int_eq(put_state(s, 1), ERR_OK);
    store_lmdb_close(&s);
}
END_TEST

/* ---- files: kills, versions ---- */

/* Each transaction: ten records, and the last one's lsn as the room's state and as a row. */
_Noreturn static void commit_for_ever(int tell)
{
    struct store *s = open_usual();
    for (uint64_t lsn = 10;; lsn += 10) {
        char number[32];
        snprintf(number, sizeof number, "%llu", (unsigned long long)lsn);
        begin(s);
        for (uint64_t i = lsn - 9; i <= lsn; i++)
            ck_assert_int_eq(append(s, 0, i, 300), ERR_OK);
        put(s, TABLE_STATE, 1, "", number);
        put(s, TABLE_DONE, 1, number, number);
        if (lsn > 50) {
            snprintf(number, sizeof number, "%llu", (unsigned long long)lsn - 50);
            delete_named(s, TABLE_DONE, 1, number);
        }
        commit(s);
        if (write(tell, &lsn, sizeof lsn) != sizeof lsn)
            _exit(1);
    }
}

static void count_row(void *ctx, int code, const struct store_row *row)
{
    ck_assert(code == ERR_OK && slice_equal(row->name, row->value));
    ++*(uint64_t *)ctx;
}

START_TEST(killed_in_mid_load)
{
    struct rng rng;
    uint64_t acked = 0, more, done = 0;
    int tell[2];
    rng_seed(&rng, 90 + (uint64_t)_i);
    ck_assert_int_eq(pipe(tell), 0);
    pid_t child = fork();
    if (child == 0)
        commit_for_ever(tell[1]);
    close(tell[1]);
    for (uint64_t n = 20 + rng_below(&rng, 200); n > 0; n--)
        ck_assert_int_eq(read(tell[0], &acked, sizeof acked), sizeof acked);
    kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    while (read(tell[0], &more, sizeof more) == sizeof more)
        acked = more;
    close(tell[0]);
    struct seen seen;
    struct store *s = open_usual();
    ck_assert_int_eq(scan(s, &seen, 300), ERR_OK);
    ck_assert_uint_ge(seen.records, acked);
    ck_assert(seen.records == seen.last_lsn && seen.records % 10 == 0);
    ck_assert(seen.intact && seen.ascending && seen.damaged == 0);
    ck_assert_uint_eq(strtoull(one_row(s, TABLE_STATE, 1, ""), NULL, 10), seen.last_lsn);
    ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
    s->vtable->read_rows(s, TABLE_DONE, 1, count_row, &done);
    s->vtable->read_end(s);
    ck_assert_uint_eq(done, 5);
    ck_assert_int_eq(append_many(s, seen.last_lsn + 1, 10, 300), ERR_OK);
    store_lmdb_close(&s);
}
END_TEST

/* What a program of the version before has left: no table of rows. */
static void drop_rows(void)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi rows;
    ck_assert_int_eq(mdb_env_create(&env), 0);
    ck_assert_int_eq(mdb_env_set_maxdbs(env, 8), 0);
    ck_assert_int_eq(mdb_env_open(env, dir, 0, 0600), 0);
    ck_assert_int_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    ck_assert_int_eq(mdb_dbi_open(txn, "rows", 0, &rows), 0);
    ck_assert_int_eq(mdb_drop(txn, rows, 1), 0);
    ck_assert_int_eq(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

START_TEST(file_of_the_version_before)
{
    struct seen seen;
    struct store *s = open_usual();
    ck_assert_int_eq(append_many(s, 1, 100, 300), ERR_OK);
    begin(s);
    put(s, TABLE_STATE, 1, "", "gone with its table");
    commit(s);
    store_lmdb_close(&s);
    drop_rows();
    for (int opened = 0; opened < 2; opened++) {
        s = open_usual();
        ck_assert_int_eq(scan(s, &seen, 300), ERR_OK);
        ck_assert(seen.records == 100 && seen.intact);
        ck_assert_str_eq(all_rows(s), opened ? "0/1/=new\n" : "");
        begin(s);
        put(s, TABLE_STATE, 1, "", "new");
        commit(s);
        store_lmdb_close(&s);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store_rows_disk");
    TCase *t = tcase_create("store_rows_disk");
    suite_add_tcase(suite, t);
    tcase_add_checked_fixture(t, rig_setup, rig_teardown);
    tcase_add_test(t, damaged_row_is_not_served);
    tcase_add_loop_test(t, no_flipped_bit_hides_a_row, 0, 2);
    tcase_add_test(t, file_keeps_its_size);
    tcase_add_test(t, full_map);
    tcase_add_test(t, full_disk_takes_nothing_of_it);
    tcase_add_loop_test(t, killed_in_mid_load, 0, 8);
    tcase_add_test(t, file_of_the_version_before);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
