/* The store on disk: what is committed is there after a crash, what is damaged is never given out,
 * what must not be opened is refused, a full disk is an answer. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/rng.h"
#include "shard/store_lmdb.h"

static char dir[64];
static struct metrics *metrics;
static struct store *store;

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

static void setup(void)
{
    strcpy(dir, "/tmp/stoa-store-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    metrics = metrics_create();
}

static void teardown(void)
{
    store_lmdb_close(&store);
    metrics_destroy(&metrics);
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static int open_as(struct store **out, const char *at, const char *cluster, bool after_eio,
                   struct strbuf *why)
{
    struct store_lmdb_options options = {.dir = at,
                                         .cluster = strlen(cluster),
                                         .cluster_name = cluster,
                                         .map_bytes = 1 << 28,
                                         .after_eio = after_eio};
    return store_lmdb_open(out, &options, NULL, metrics, why);
}

static void open_store(void)
{
    struct strbuf why = {0};
    int code = open_as(&store, dir, "test", false, &why);
    ck_assert_msg(code == ERR_OK, "%s", strbuf_cstr(&why));
    strbuf_free(&why);
}

static struct store_record record_of(uint64_t lsn, size_t size)
{
    static uint8_t bytes[70000];
    memset(bytes, (int)(lsn & 0xff), size);
    struct store_record r = {.lsn = lsn,
                             .room_id = 1 + lsn % 7,
                             .seq = lsn,
                             .ts = (int64_t)lsn * 10,
                             .pid = lsn * 3,
                             .pseq = lsn,
                             .batch_count = 1,
                             .flags = 3,
                             .slot = (uint16_t)(lsn % 16384),
                             .conflate = slice_text("progress"),
                             .filter = slice_text("f"),
                             .payload = slice_of(bytes, size)};
    memset(r.msg_id, (int)lsn, sizeof r.msg_id);
    return r;
}

static void append_some(uint64_t from, uint64_t to, size_t size)
{
    ck_assert_int_eq(store->vtable->begin(store), ERR_OK);
    for (uint64_t lsn = from; lsn <= to; lsn++) {
        struct store_record r = record_of(lsn, size);
        ck_assert_int_eq(store->vtable->append(store, 0, &r), ERR_OK);
    }
    ck_assert_int_eq(store->vtable->commit(store), ERR_OK);
}

struct found {
    uint64_t slots, rooms, records, damaged, last, bad;
};

static void on_slot(void *ctx, const struct store_slot *slot)
{
    struct found *f = ctx;
    f->slots += slot->epoch == 5;
}
static void on_room(void *ctx, const struct store_room *room)
{
    struct found *f = ctx;
    f->rooms += slice_is(room->key, "upload:abc") && room->epoch == 9 && room->floor_ts == -4;
}
static void on_record(void *ctx, unsigned class_no, const struct store_record *record)
{
    struct found *f = ctx;
    struct store_record want = record_of(record->lsn, record->payload.size);
    f->records++;
    f->bad += class_no != 0 || record->lsn <= f->last ||
              !slice_equal(record->payload, want.payload) || record->seq != want.seq ||
              memcmp(record->msg_id, want.msg_id, 16) != 0;
    f->last = record->lsn;
}
static void on_damaged(void *ctx, unsigned class_no, uint64_t lsn)
{
    struct found *f = ctx;
    f->damaged++;
    f->bad += class_no != 0 || lsn == 0;
}

static struct found scan_all(void)
{
    struct found f = {0};
    struct store_visitor v = {&f, on_slot, on_room, on_record, on_damaged};
    ck_assert_int_eq(store->vtable->scan(store, &v), ERR_OK);
    return f;
}

START_TEST(round_trip)
{
    open_store();
    ck_assert(store_lmdb_is_new(store));
    ck_assert_int_eq(store_lmdb_boot(store, 77), ERR_OK);
    append_some(1, 100, 300);
    ck_assert_int_eq(store->vtable->begin(store), ERR_OK);
    struct store_room room = {
        .room_id = 4, .epoch = 9, .floor_ts = -4, .key = slice_text("upload:abc"), .class_no = 1};
    struct store_slot slots[2] = {{3, 5}, {16383, 5}};
    ck_assert_int_eq(store->vtable->put_room(store, &room), ERR_OK);
    ck_assert_int_eq(store->vtable->put_slots(store, slots, 2), ERR_OK);
    ck_assert_int_eq(store->vtable->put_meta(store, "trim_ts.0", 12), ERR_OK);
    ck_assert_int_eq(store->vtable->commit(store), ERR_OK);
    store_lmdb_close(&store);
    open_store();
    ck_assert(!store_lmdb_is_new(store));
    struct found f = scan_all();
    ck_assert_uint_eq(f.records, 100);
    ck_assert_uint_eq(f.slots, 2);
    ck_assert_uint_eq(f.rooms, 1);
    ck_assert_uint_eq(f.bad + f.damaged, 0);
    uint64_t value = 0;
    ck_assert_int_eq(store->vtable->get_meta(store, "trim_ts.0", &value), ERR_OK);
    ck_assert_uint_eq(value, 12);
    ck_assert_int_eq(store->vtable->get_meta(store, "nothing", &value), ERR_NOT_FOUND);
}
END_TEST

START_TEST(reads_find_every_record_in_any_order)
{
    open_store();
    append_some(1, 50, 100);
    append_some(60, 90, 5000);
    ck_assert_int_eq(store->vtable->read_begin(store), ERR_OK);
    struct store_record r;
    for (uint64_t lsn = 1; lsn <= 100; lsn++)
        ck_assert_int_eq(store->vtable->read(store, 0, lsn, &r),
                         lsn <= 50 || (lsn >= 60 && lsn <= 90) ? ERR_OK : ERR_NOT_FOUND);
    for (uint64_t lsn = 90; lsn >= 60; lsn--) {
        ck_assert_int_eq(store->vtable->read(store, 0, lsn, &r), ERR_OK);
        ck_assert_uint_eq(r.lsn, lsn);
        ck_assert_uint_eq(r.payload.size, 5000);
    }
    ck_assert_int_eq(store->vtable->read(store, 1, 1, &r), ERR_NOT_FOUND);
    store->vtable->read_end(store);
}
END_TEST

START_TEST(aborted_work_is_gone)
{
    open_store();
    append_some(1, 5, 100);
    ck_assert_int_eq(store->vtable->begin(store), ERR_OK);
    struct store_record r = record_of(6, 100);
    ck_assert_int_eq(store->vtable->append(store, 0, &r), ERR_OK);
    store->vtable->abort(store);
    ck_assert_uint_eq(scan_all().records, 5);
}
END_TEST

static uint64_t trimmed_seen;
static void on_gone(void *ctx, const struct store_record *record)
{
    (void)ctx;
    trimmed_seen += record->payload.size == 1000;
}

START_TEST(trimming_keeps_the_file_steady)
{
    open_store();
    uint64_t next = 1, oldest = 1;
    struct store_stats before = {0}, after;
    for (int round = 0; round < 300; round++) {
        append_some(next, next + 49, 1000);
        next += 50;
        if (next - oldest <= 1000)
            continue;
        size_t trimmed;
        ck_assert_int_eq(store->vtable->begin(store), ERR_OK);
        ck_assert_int_eq(store->vtable->trim(store, 0, (int64_t)(oldest + 49) * 10, 1000, on_gone,
                                             NULL, &trimmed),
                         ERR_OK);
        ck_assert_uint_eq(trimmed, 50);
        ck_assert_int_eq(store->vtable->commit(store), ERR_OK);
        oldest += 50;
        if (round == 100)
            store->vtable->stats(store, &before);
    }
    store->vtable->stats(store, &after);
    ck_assert_uint_eq(after.records[0], 1000);
    ck_assert_uint_eq(trimmed_seen, next - 1 - 1000);
    ck_assert_uint_le(after.file_bytes, before.file_bytes + before.file_bytes / 4);
    ck_assert_int_eq(store->vtable->begin(store), ERR_OK);
    ck_assert_int_eq(store->vtable->remove(store, 0, next - 1), ERR_OK);
    ck_assert_int_eq(store->vtable->remove(store, 0, next + 1), ERR_OK);
    ck_assert_int_eq(store->vtable->commit(store), ERR_OK);
    ck_assert_uint_eq(scan_all().records, 999);
}
END_TEST

/* The child tells every commit after it returned; whatever it told must be there after SIGKILL. */
START_TEST(nothing_committed_is_lost_by_kill)
{
    uint64_t told = 0;
    for (int round = 0; round < 20; round++) {
        int pipes[2];
        ck_assert_int_eq(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0) {
            open_store();
            for (uint64_t lsn = told + 1;; lsn += 3) {
                append_some(lsn, lsn + 2, 700);
                uint64_t last = lsn + 2;
                if (write(pipes[1], &last, sizeof last) != sizeof last)
                    _exit(1);
            }
        }
        close(pipes[1]);
        for (int n = 0; n < 5 + round * 7; n++)
            ck_assert_int_eq(read(pipes[0], &told, sizeof told), sizeof told);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        for (uint64_t last; read(pipes[0], &last, sizeof last) == sizeof last;)
            told = last;
        close(pipes[0]);
        open_store();
        struct found f = scan_all();
        ck_assert_uint_ge(f.last, told);
        ck_assert_uint_eq(f.records, f.last);
        ck_assert_uint_eq(f.bad + f.damaged, 0);
        told = f.last;
        store_lmdb_close(&store);
    }
}
END_TEST

START_TEST(damaged_bytes_are_never_given_out)
{
    open_store();
    for (uint64_t lsn = 1; lsn <= 2000; lsn += 10)
        append_some(lsn, lsn + 9, 300);
    store_lmdb_close(&store);
    char path[80];
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    int fd = open(path, O_RDWR);
    uint8_t page[4096];
    uint64_t hit = 0;
    /* Flip one byte within payloads (runs of the lsn's byte) all over the file, never page headers.
     */
    for (off_t at = 4096 * 4; pread(fd, page, sizeof page, at) == (ssize_t)sizeof page;
         at += (off_t)sizeof page)
        for (size_t i = 2000; i < 2100; i++)
            if (page[i] == page[i - 1] && page[i] == page[i + 1] && page[i] == page[i + 40] &&
                page[i] != 0) {
                uint8_t flipped = page[i] ^ 0x10;
                ck_assert_int_eq(pwrite(fd, &flipped, 1, at + (off_t)i), 1);
                hit++;
                break;
            }
    close(fd);
    ck_assert_uint_gt(hit, 20);
    open_store();
    struct found f = scan_all();
    ck_assert_uint_gt(f.damaged, 20);
    ck_assert_uint_eq(f.records + f.damaged, 2000);
    ck_assert_uint_eq(f.bad, 0);
}
END_TEST

static void refused(const char *cluster, const char *word)
{
    struct strbuf why = {0};
    struct store *other = NULL;
    ck_assert_int_eq(open_as(&other, dir, cluster, false, &why), ERR_REFUSED);
    ck_assert_ptr_null(other);
    ck_assert_msg(strstr(strbuf_cstr(&why), word) != NULL, "%s", strbuf_cstr(&why));
    strbuf_free(&why);
}

START_TEST(second_opener_is_refused)
{
    open_store();
    char pid[32];
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    refused("test", pid);
}
END_TEST

START_TEST(foreign_cluster_is_refused)
{
    open_store();
    store_lmdb_close(&store);
    refused("another", "belongs to cluster 'test', not to 'another'");
    open_store();
}
END_TEST

START_TEST(io_error_marker_is_sticky)
{
    open_store();
    store_lmdb_close(&store);
    char path[80];
    snprintf(path, sizeof path, "%s/io-error", dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    refused("test", "--after-eio");
    refused("test", "--after-eio");
    struct strbuf why = {0};
    ck_assert_int_eq(open_as(&store, dir, "test", true, &why), ERR_OK);
    store_lmdb_close(&store);
    open_store();
    strbuf_free(&why);
}
END_TEST

/* Fills a small file system: answers, no crash; trims work in between; service comes back. */
START_TEST(full_disk_is_an_answer)
{
    if (mount("none", dir, "tmpfs", 0, "size=6m") != 0) {
        printf("full_disk_is_an_answer: not checked, mount is not permitted (%s)\n",
               strerror(errno));
        return;
    }
    struct store_lmdb_options options = {.dir = dir,
                                         .cluster = 4,
                                         .cluster_name = "test",
                                         .map_bytes = 1 << 28,
                                         .reserve_bytes = 1 << 20};
    struct strbuf why = {0};
    ck_assert_int_eq(store_lmdb_open(&store, &options, NULL, metrics, &why), ERR_OK);
    uint64_t lsn = 1;
    int code = ERR_OK;
    while (code == ERR_OK && lsn < 20000) {
        ck_assert_int_eq(store->vtable->begin(store), ERR_OK);
        for (int i = 0; i < 10 && code == ERR_OK; i++) {
            struct store_record r = record_of(lsn + (uint64_t)i, 1000);
            code = store->vtable->append(store, 0, &r);
        }
        if (code != ERR_OK)
            store->vtable->abort(store);
        else
            code = store->vtable->commit(store);
        lsn += code == ERR_OK ? 10 : 0;
    }
    ck_assert_int_eq(code, ERR_NO_SPACE);
    ck_assert(!store->vtable->has_space(store));
    ck_assert_uint_eq(scan_all().records, lsn - 1);
    /* Room from outside: an operator frees or adds space. */
    ck_assert_int_eq(mount("none", dir, "tmpfs", MS_REMOUNT, "size=24m"), 0);
    ck_assert(store->vtable->has_space(store));
    append_some(lsn, lsn + 99, 1000);
    ck_assert_uint_eq(scan_all().records, lsn + 99);
    store_lmdb_close(&store);
    ck_assert_int_eq(umount2(dir, MNT_DETACH), 0);
    strbuf_free(&why);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store_lmdb");
    TCase *t = tcase_create("store");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, round_trip);
    tcase_add_test(t, reads_find_every_record_in_any_order);
    tcase_add_test(t, aborted_work_is_gone);
    tcase_add_test(t, trimming_keeps_the_file_steady);
    tcase_add_test(t, nothing_committed_is_lost_by_kill);
    tcase_add_test(t, damaged_bytes_are_never_given_out);
    tcase_add_test(t, second_opener_is_refused);
    tcase_add_test(t, foreign_cluster_is_refused);
    tcase_add_test(t, io_error_marker_is_sticky);
    tcase_add_test(t, full_disk_is_an_answer);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
