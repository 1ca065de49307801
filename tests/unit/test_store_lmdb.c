/* SHELL. Tests of the store on LMDB against real files: round trips, kills, damage, full and
 * failing disks. A failing disk is this program's own pwrite, writev, fdatasync and statvfs, which
 * stand before libc's for liblmdb as well. */
#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/rng.h"
#include "shard/store_lmdb.h"

/* ---- a disk that fails when told to ---- */

static struct {
    bool sync_fails;   /* EIO */
    bool short_writes; /* half of what was asked */
    bool meta_full;    /* the next write of less than a page: ENOSPC */
    bool shows_full;   /* statvfs: nothing free */
} disk;

int fdatasync(int fd)
{
    if (disk.sync_fails) {
        errno = EIO;
        return -1;
    }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}

ssize_t writev(int fd, const struct iovec *iov, int n)
{
    return ((ssize_t(*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev"))(
        fd, iov, disk.short_writes ? n / 2 : n);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at)
{
    if (disk.meta_full && size < 4096) {
        disk.meta_full = false;
        errno = ENOSPC;
        return -1;
    }
    return ((ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite"))(
        fd, bytes, disk.short_writes ? size / 2 : size, at);
}

int statvfs(const char *path, struct statvfs *out)
{
    int rc = ((int (*)(const char *, struct statvfs *))dlsym(RTLD_NEXT, "statvfs"))(path, out);
    if (disk.shows_full)
        out->f_bavail = 0;
    return rc;
}

/* ---- fixture ---- */

static char base[64], dir[96];
static struct strbuf why, lines;
static struct metrics *metrics;
static struct log test_log;

static void collect(void *ctx, const char *line, size_t size)
{
    strbuf_put((struct strbuf *)ctx, line, size);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

static void setup(void)
{
    snprintf(base, sizeof base, "/tmp/stoa-store-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(base));
    snprintf(dir, sizeof dir, "%s/a/data", base);
    test_log = (struct log){.write = collect, .ctx = &lines};
    metrics = metrics_create();
}

static void teardown(void)
{
    nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    metrics_destroy(&metrics);
    strbuf_free(&why);
    strbuf_free(&lines);
}

static const struct store_lmdb_options usual = {
    .dir = dir, .cluster = 7, .cluster_name = "north", .map_bytes = 1 << 30, .slot_seed = 3};

static int open_as(struct store **s, struct store_lmdb_options options)
{
    strbuf_reset(&why);
    return store_lmdb_open(s, &options, &test_log, metrics, &why);
}

static struct store *open_usual(void)
{
    struct store *s = NULL;
    int code = open_as(&s, usual);
    ck_assert_msg(code == ERR_OK, "%s", strbuf_cstr(&why));
    return s;
}

static bool says(struct strbuf *text, const char *what)
{
    return strstr(strbuf_cstr(text), what) != NULL;
}

/* ---- records ---- */

static uint8_t payload_bytes[1 << 20];

/* Every field follows from the lsn, so that a reader can check all of it. */
static struct store_record record_of(uint64_t lsn, size_t size)
{
    struct store_record r = {.lsn = lsn,
                             .room_id = lsn % 7 + 1,
                             .seq = lsn * 3,
                             .ts = (int64_t)lsn * 10,
                             .pid = lsn * 5,
                             .pseq = lsn + 1,
                             .batch_index = (uint32_t)lsn % 4,
                             .batch_count = 4,
                             .flags = (uint32_t)lsn % 8,
                             .slot = (uint16_t)(lsn % 16384)};
    memset(r.msg_id, (int)(lsn % 251), sizeof r.msg_id);
    memset(payload_bytes, 'a' + (int)(lsn % 26), size);
    char text[32];
    int n = snprintf(text, sizeof text, "payload-%08lu;", (unsigned long)lsn);
    memcpy(payload_bytes, text, (size_t)n < size ? (size_t)n : size);
    r.payload = slice_of(payload_bytes, size);
    if (lsn % 3 == 0)
        r.conflate = slice_text("progress");
    if (lsn % 5 == 0)
        r.filter = slice_text("\x91\xa1z");
    return r;
}

static bool same_record(const struct store_record *a, size_t size)
{
    struct store_record b = record_of(a->lsn, size);
    return a->room_id == b.room_id && a->seq == b.seq && a->ts == b.ts && a->pid == b.pid &&
           a->pseq == b.pseq && a->batch_index == b.batch_index &&
           a->batch_count == b.batch_count && a->flags == b.flags && a->slot == b.slot &&
           memcmp(a->msg_id, b.msg_id, 16) == 0 && slice_equal(a->conflate, b.conflate) &&
           slice_equal(a->filter, b.filter) && slice_equal(a->payload, b.payload);
}

static int append(struct store *s, unsigned class_no, uint64_t lsn, size_t size)
{
    struct store_record r = record_of(lsn, size);
    return s->vtable->append(s, class_no, &r);
}

/* One transaction of `n` records. */
static int append_many(struct store *s, uint64_t first, uint64_t n, size_t size)
{
    int code = s->vtable->begin(s);
    for (uint64_t i = 0; code == ERR_OK && i < n; i++)
        code = append(s, 0, first + i, size);
    if (code == ERR_OK)
        return s->vtable->commit(s);
    s->vtable->abort(s);
    return code;
}

struct seen {
    uint64_t slots, rooms, records, damaged;
    uint64_t last_lsn, damaged_lsn;
    bool ascending, intact;
    size_t size; /* of payloads; 0: whatever */
    struct store_slot slot;
    struct store_room room;
};

static void see_slot(void *ctx, const struct store_slot *slot)
{
    struct seen *seen = ctx;
    seen->slots++;
    seen->slot = *slot;
}

static void see_room(void *ctx, const struct store_room *room)
{
    struct seen *seen = ctx;
    seen->rooms++;
    seen->room = *room;
}

static void see_record(void *ctx, unsigned class_no, const struct store_record *record)
{
    struct seen *seen = ctx;
    (void)class_no;
    seen->records++;
    seen->ascending &= record->lsn > seen->last_lsn;
    seen->intact &= same_record(record, seen->size ? seen->size : record->payload.size);
    seen->last_lsn = record->lsn;
}

static void see_damaged(void *ctx, unsigned class_no, uint64_t lsn)
{
    struct seen *seen = ctx;
    (void)class_no;
    seen->damaged++;
    seen->damaged_lsn = lsn;
}

static int scan(struct store *s, struct seen *seen, size_t size)
{
    const struct store_visitor visitor = {.ctx = seen,
                                          .slot = see_slot,
                                          .room = see_room,
                                          .record = see_record,
                                          .damaged = see_damaged};
    *seen = (struct seen){.ascending = true, .intact = true, .size = size};
    return s->vtable->scan(s, &visitor);
}

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
    nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS); /* no teardown after an abort */
    (void)append(s, 0, 10, 300);
}
END_TEST

/* ---- trim ---- */

struct gone {
    uint64_t count, last_lsn;
};

static void see_gone(void *ctx, const struct store_record *record)
{
    struct gone *gone = ctx;
    ck_assert(record->lsn == gone->last_lsn + 1 && same_record(record, record->payload.size));
    gone->count++;
    gone->last_lsn = record->lsn;
}

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

/* ---- kills ---- */

/* Commits batches of ten for ever, telling after each how far it is. */
_Noreturn static void commit_for_ever(int tell)
{
    struct store *s = open_usual();
    for (uint64_t lsn = 1;; lsn += 10) {
        uint64_t last = lsn + 9;
        if (append_many(s, lsn, 10, 300) != ERR_OK ||
            write(tell, &last, sizeof last) != sizeof last)
            _exit(1);
    }
}

START_TEST(killed_in_mid_load)
{
    struct rng rng;
    rng_seed(&rng, 40 + (uint64_t)_i);
    int tell[2];
    ck_assert_int_eq(pipe(tell), 0);
    pid_t child = fork();
    if (child == 0)
        commit_for_ever(tell[1]);
    close(tell[1]);
    uint64_t acked = 0, more;
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
    ck_assert_int_eq(append_many(s, seen.last_lsn + 1, 10, 300), ERR_OK);
    store_lmdb_close(&s);
}
END_TEST

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

/* ---- damage ---- */

#define DAMAGE_RECORDS 120

static size_t damage_size(uint64_t lsn)
{
    return lsn % 10 == 0 ? 5000 : 300;
}

static void file_path(char *out, size_t size)
{
    snprintf(out, size, "%s/data.mdb", dir);
}

static uint8_t *file_read(size_t *size)
{
    char path[128];
    file_path(path, sizeof path);
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = mem_alloc(*size);
    ck_assert_uint_eq(fread(bytes, 1, *size, f), *size);
    fclose(f);
    return bytes;
}

static void file_poke(size_t at, uint8_t byte)
{
    char path[128];
    file_path(path, sizeof path);
    int fd = open(path, O_WRONLY);
    ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

/* Where the stored record of `lsn` begins; all were written once. */
static size_t place_of(const uint8_t *file, size_t size, uint64_t lsn, size_t *length)
{
    char text[32];
    snprintf(text, sizeof text, "payload-%08lu;", (unsigned long)lsn);
    const uint8_t *at = memmem(file, size, text, strlen(text));
    ck_assert_ptr_nonnull(at);
    struct store_record r = record_of(lsn, damage_size(lsn));
    size_t before = 80 + r.conflate.size + r.filter.size;
    *length = before + r.payload.size;
    return (size_t)(at - file) - before;
}

static void damage_prepare(void)
{
    struct store *s = open_usual();
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    for (uint64_t lsn = 1; lsn <= DAMAGE_RECORDS; lsn++)
        ck_assert_int_eq(append(s, 0, lsn, damage_size(lsn)), ERR_OK);
    ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
    store_lmdb_close(&s);
}

START_TEST(damaged_record_is_not_served)
{
    struct rng rng;
    size_t size;
    rng_seed(&rng, 99);
    damage_prepare();
    uint8_t *file = file_read(&size);
    for (int round = 0; round < 150; round++) {
        size_t length;
        uint64_t lsn = 1 + rng_below(&rng, DAMAGE_RECORDS);
        size_t at = place_of(file, size, lsn, &length);
        at += rng_below(&rng, round % 2 ? 84 : length); /* headers often */
        file_poke(at, file[at] ^ (uint8_t)(1u << rng_below(&rng, 8)));
        struct store *s = open_usual();
        struct seen seen;
        struct store_record r;
        ck_assert_int_eq(scan(s, &seen, 0), ERR_OK);
        ck_assert_msg(seen.damaged == 1 && seen.damaged_lsn == lsn && seen.intact &&
                          seen.records == DAMAGE_RECORDS - 1,
                      "lsn %lu, byte %zu", (unsigned long)lsn, at);
        ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
        ck_assert_int_eq(s->vtable->read(s, 0, lsn, &r), ERR_CORRUPT);
        ck_assert_int_eq(s->vtable->read(s, 0, lsn % DAMAGE_RECORDS + 1, &r), ERR_OK);
        s->vtable->read_end(s);
        store_lmdb_close(&s);
        file_poke(at, file[at]);
    }
    mem_free(file);
}
END_TEST

/* A bit anywhere: in records, in keys, in the heads of pages. The file is refused, or what it gives
 * out is what was written and the rest is named as damaged; nothing is silently gone. */
START_TEST(no_flipped_bit_goes_unseen)
{
    struct rng rng;
    size_t size;
    int refused = 0;
    rng_seed(&rng, 5);
    damage_prepare();
    uint8_t *file = file_read(&size);
    for (int round = 0; round < 400; round++) {
        size_t at = rng_below(&rng, 60) * 4096 + rng_below(&rng, round % 4 ? 48 : 4096);
        file_poke(at, file[at] ^ (uint8_t)(1u << rng_below(&rng, 8)));
        struct store *s = NULL;
        struct seen seen;
        int code = open_as(&s, usual);
        if (code == ERR_OK) {
            ck_assert_int_eq(scan(s, &seen, 0), ERR_OK);
            ck_assert_msg(seen.intact && seen.records + seen.damaged == DAMAGE_RECORDS,
                          "page %zu, byte %zu", at / 4096, at % 4096);
            store_lmdb_close(&s);
        } else {
            ck_assert_msg(says(&why, "is damaged"), "page %zu, byte %zu: %s", at / 4096, at % 4096,
                          strbuf_cstr(&why));
            refused++;
        }
        file_poke(at, file[at]);
    }
    ck_assert_int_gt(refused, 20);
    mem_free(file);
}
END_TEST

START_TEST(short_file_is_refused)
{
    char path[128];
    struct store *s = NULL;
    damage_prepare();
    file_path(path, sizeof path);
    ck_assert_int_eq(truncate(path, 65536), 0);
    ck_assert_int_eq(open_as(&s, usual), ERR_CORRUPT);
    ck_assert(says(&why, "beyond the end of the file"));
}
END_TEST

START_TEST(damaged_record_is_trimmed)
{
    size_t size, length, n;
    damage_prepare();
    uint8_t *file = file_read(&size);
    size_t at = place_of(file, size, 1, &length);
    file_poke(at + 90, file[at + 90] ^ 1);
    mem_free(file);
    struct store *s = open_usual();
    struct gone gone = {.last_lsn = 1};
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
    ck_assert_int_eq(s->vtable->trim(s, 0, 50, 100, see_gone, &gone, &n), ERR_OK);
    ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
    ck_assert(n == 5 && gone.count == 4);
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

/* ---- disks that fail ---- */

/* Commits in a child with the disk as `break_it` makes it; returns how the child ended. */
static int commit_in_child(void (*break_it)(void))
{
    pid_t child = fork();
    if (child == 0) {
        struct store *s = open_usual();
        if (append_many(s, 1, 10, 300) != ERR_OK)
            _exit(1);
        break_it();
        (void)append_many(s, 11, 200, 300);
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return status;
}

static void break_sync(void)
{
    disk.sync_fails = true;
}

static void break_writes(void)
{
    disk.short_writes = true;
}

START_TEST(failed_sync_ends_the_process)
{
    int status = commit_in_child(break_sync);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    struct store *s = NULL;
    ck_assert_int_eq(open_as(&s, usual), ERR_REFUSED);
    ck_assert(says(&why, "--after-eio"));
    struct store_lmdb_options options = usual;
    options.after_eio = true;
    ck_assert_int_eq(open_as(&s, options), ERR_OK);
    struct seen seen;
    ck_assert_int_eq(scan(s, &seen, 300), ERR_OK);
    ck_assert(seen.records == 10 && seen.intact);
    store_lmdb_close(&s);
    s = open_usual(); /* the marker is gone */
    store_lmdb_close(&s);
}
END_TEST

START_TEST(short_write_on_a_roomy_disk_ends_the_process)
{
    int status = commit_in_child(break_writes);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}
END_TEST

static void survives(struct store *s)
{
    struct seen seen;
    ck_assert_int_eq(append_many(s, 11, 200, 300), ERR_NO_SPACE);
    disk.short_writes = disk.meta_full = disk.shows_full = false;
    ck_assert_int_eq(scan(s, &seen, 300), ERR_OK);
    ck_assert(seen.records == 10 && seen.intact);
    ck_assert_int_eq(append_many(s, 11, 200, 300), ERR_OK);
    ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
    struct store_record r;
    ck_assert_int_eq(s->vtable->read(s, 0, 210, &r), ERR_OK);
    s->vtable->read_end(s);
    store_lmdb_close(&s);
    s = open_usual();
    ck_assert_int_eq(scan(s, &seen, 300), ERR_OK);
    ck_assert(seen.records == 210 && seen.intact);
    store_lmdb_close(&s);
}

START_TEST(short_write_on_a_full_disk_is_no_space)
{
    struct store *s = open_usual();
    ck_assert_int_eq(append_many(s, 1, 10, 300), ERR_OK);
    disk.short_writes = disk.shows_full = true;
    survives(s);
    ck_assert(!says(&lines, "store.reopened"));
}
END_TEST

START_TEST(full_disk_at_the_meta_page)
{
    struct store *s = open_usual();
    ck_assert_int_eq(append_many(s, 1, 10, 300), ERR_OK);
    disk.meta_full = true;
    survives(s);
    ck_assert(says(&lines, "store.reopened"));
}
END_TEST

START_TEST(full_map)
{
    struct store_lmdb_options options = usual;
    options.map_bytes = 12 << 20;
    struct store *s = NULL;
    ck_assert_int_eq(open_as(&s, options), ERR_OK);
    uint64_t lsn = 1;
    for (; append_many(s, lsn, 20, 3000) == ERR_OK; lsn += 20)
        ck_assert_uint_lt(lsn, 5000);
    ck_assert(!s->vtable->has_space(s));
    struct gone gone = {0};
    size_t n;
    for (int i = 0; i < 30; i++) {
        ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
        ck_assert_int_eq(s->vtable->trim(s, 0, INT64_MAX, 50, see_gone, &gone, &n), ERR_OK);
        ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
    }
    ck_assert(s->vtable->has_space(s));
    for (int i = 0; i < 10; i++, lsn += 20)
        ck_assert_int_eq(append_many(s, lsn, 20, 3000), ERR_OK);
    store_lmdb_close(&s);
}
END_TEST

START_TEST(space_below_the_reserve)
{
    struct store_lmdb_options options = usual;
    options.reserve_bytes = 64 << 20;
    struct store *s = NULL;
    ck_assert_int_eq(open_as(&s, options), ERR_OK);
    ck_assert(s->vtable->has_space(s));
    disk.shows_full = true;
    for (uint64_t lsn = 1; lsn <= 64; lsn++) /* looks now and then */
        ck_assert_int_eq(append_many(s, lsn, 1, 10), ERR_OK);
    ck_assert(!s->vtable->has_space(s));
    disk.shows_full = false;
    ck_assert(s->vtable->has_space(s));
    ck_assert(says(&lines, "store.full") && says(&lines, "store.space"));
    store_lmdb_close(&s);
}
END_TEST

/* ---- a real small disk ---- */

/* In a mount namespace of this process, so that it goes with it. */
static bool mount_small(void)
{
    snprintf(dir, sizeof dir, "%s/data", base);
    if (mkdir(dir, 0700) == 0 && unshare(CLONE_NEWNS) == 0 &&
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("none", dir, "tmpfs", 0, "size=20m") == 0)
        return true;
    fprintf(stderr, "test_store_lmdb: cannot mount a small disk (%s): skipped\n", strerror(errno));
    return false;
}

static uint64_t fill(struct store *s, uint64_t lsn, size_t size)
{
    int code;
    for (; (code = append_many(s, lsn, 20, size)) == ERR_OK; lsn += 20)
        ck_assert_uint_lt(lsn, 100000);
    ck_assert_int_eq(code, ERR_NO_SPACE);
    return lsn;
}

static void trim_some(struct store *s, struct gone *gone, int turns)
{
    for (int i = 0; i < turns; i++) {
        size_t n;
        ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
        ck_assert_int_eq(s->vtable->trim(s, 0, INT64_MAX, 40, see_gone, gone, &n), ERR_OK);
        ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
    }
}

START_TEST(disk_filled_by_ourselves)
{
    static const size_t sizes[] = {300, 3000, 50000};
    if (!mount_small())
        return;
    struct store *s = open_usual();
    struct gone gone = {0};
    struct seen seen;
    uint64_t lsn = 1;
    for (size_t i = 0; i < 3; i++) {
        uint64_t full = fill(s, lsn, sizes[i]);
        ck_assert_int_eq(scan(s, &seen, 0), ERR_OK);
        ck_assert(seen.intact && seen.last_lsn == full - 1 && seen.damaged == 0);
        trim_some(s, &gone, (int)((full - gone.last_lsn) / 40) - 2);
        ck_assert_int_eq(append_many(s, full, 20, sizes[i]), ERR_OK);
        lsn = full + 20;
    }
    store_lmdb_close(&s);
    s = open_usual();
    ck_assert_int_eq(scan(s, &seen, 0), ERR_OK);
    ck_assert(seen.intact && seen.last_lsn == lsn - 1);
    store_lmdb_close(&s);
    ck_assert_int_eq(umount2(dir, MNT_DETACH), 0);
}
END_TEST

START_TEST(disk_filled_by_others)
{
    static uint8_t zero[1 << 16];
    if (!mount_small())
        return;
    char path[128];
    snprintf(path, sizeof path, "%s/others", dir);
    struct store *s = open_usual();
    struct gone gone = {0};
    struct seen seen;
    ck_assert_int_eq(append_many(s, 1, 2000, 300), ERR_OK);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    while (write(fd, zero, sizeof zero) > 0)
        continue;
    close(fd);
    uint64_t lsn = fill(s, 2001, 300);
    trim_some(s, &gone, 20);
    store_lmdb_close(&s); /* a start on a full disk */
    s = open_usual();
    trim_some(s, &gone, 20);
    ck_assert_int_eq(scan(s, &seen, 300), ERR_OK);
    ck_assert(seen.intact && seen.last_lsn == lsn - 1 && seen.records == lsn - 1 - gone.count);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(append_many(s, lsn, 1000, 300), ERR_OK);
    store_lmdb_close(&s);
    ck_assert_int_eq(umount2(dir, MNT_DETACH), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store_lmdb");
    TCase *t = tcase_create("store_lmdb");
    suite_add_tcase(suite, t);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, round_trip);
    tcase_add_test(t, reads);
    tcase_add_test(t, abort_leaves_nothing);
    tcase_add_test_raise_signal(t, lsn_is_never_reused, SIGABRT);
    tcase_add_test(t, trim_takes_the_oldest);
    tcase_add_test(t, file_keeps_its_size);
    tcase_add_loop_test(t, killed_in_mid_load, 0, 8);
    tcase_add_test(t, ended_in_mid_transaction);
    tcase_add_test(t, damaged_record_is_not_served);
    tcase_add_test(t, no_flipped_bit_goes_unseen);
    tcase_add_test(t, short_file_is_refused);
    tcase_add_test(t, damaged_record_is_trimmed);
    tcase_add_test(t, second_opener_is_refused);
    tcase_add_test(t, foreign_directory_is_refused);
    tcase_add_test(t, other_format_is_refused);
    tcase_add_test(t, bad_directory_is_refused);
    tcase_add_test(t, failed_sync_ends_the_process);
    tcase_add_test(t, short_write_on_a_roomy_disk_ends_the_process);
    tcase_add_test(t, short_write_on_a_full_disk_is_no_space);
    tcase_add_test(t, full_disk_at_the_meta_page);
    tcase_add_test(t, full_map);
    tcase_add_test(t, space_below_the_reserve);
    tcase_add_test(t, disk_filled_by_ourselves);
    tcase_add_test(t, disk_filled_by_others);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
