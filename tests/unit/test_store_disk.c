/* SHELL. Tests of the store on LMDB on bad disks: damaged, failing, full. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mem.h"
#include "common/rng.h"
#include "store_rig.h"

/* ---- damage ---- */

#define DAMAGE_RECORDS 120

static size_t damage_size(uint64_t lsn)
{
    return lsn % 10 == 0 ? 5000 : 300;
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

/* Each bit of both numbers: LMDB would take the older commit for the younger one. */
START_TEST(flipped_number_of_a_commit_loses_nothing)
{
    enum { TXN_AT = 144 }; /* in a meta page of LMDB 0.9, 64 bits */
    size_t size;
    int refused = 0, mended = 0;
    struct store *s = open_usual();
    for (uint64_t lsn = 1; lsn <= 8; lsn++) {
        ck_assert_int_eq(append_many(s, lsn, 1, 300), ERR_OK);
        store_lmdb_close(&s);
        uint8_t *file = file_read(&size);
        for (size_t bit = 0; bit < 128; bit++) {
            size_t at = bit / 64 * 4096 + TXN_AT + bit % 64 / 8;
            struct seen seen;
            file_poke(at, file[at] ^ (uint8_t)(1u << bit % 8));
            int code = open_as(&s, usual);
            if (code == ERR_OK) {
                ck_assert_int_eq(scan(s, &seen, 300), ERR_OK);
                ck_assert(seen.intact && seen.records == lsn);
                store_lmdb_close(&s);
                mended++;
            } else {
                ck_assert(code == ERR_CORRUPT && says(&why, "number of the commit"));
                refused++;
            }
            file_poke(at, file[at]);
        }
        mem_free(file);
        s = open_usual();
    }
    ck_assert(refused > 900 && mended > 0 && refused + mended == 1024);
    store_lmdb_close(&s);
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

/* What a power cut in the very first start leaves: a file that was never whole. */
START_TEST(unfinished_file_is_made_anew)
{
    static const uint8_t torn[8192] = {1, 2, 3};
    char path[160];
    struct store *s = open_usual();
    store_lmdb_close(&s);
    file_path(path, sizeof path);
    ck_assert_int_eq(unlink(path), 0);
    snprintf(path, sizeof path, "%s/new", dir);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/new/data.mdb", dir);
    FILE *f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(torn, 1, sizeof torn, f), sizeof torn);
    fclose(f);
    s = open_usual();
    ck_assert(store_lmdb_is_new(s));
    ck_assert_int_eq(access(path, F_OK), -1);
    ck_assert_int_eq(append_many(s, 1, 3, 300), ERR_OK);
    store_lmdb_close(&s);
    s = open_usual();
    store_lmdb_close(&s);
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

/* A page that cannot be read is SIGBUS: bad sectors look like this, and files cut by somebody. */
START_TEST(unreadable_page_ends_the_process_with_a_message)
{
    char path[128];
    int told[2];
    file_path(path, sizeof path);
    ck_assert_int_eq(pipe(told), 0);
    pid_t child = fork();
    if (child == 0) {
        (void)dup2(told[1], STDERR_FILENO);
        rig_log_to_stderr();
        struct store *s = open_usual();
        struct seen seen;
        if (append_many(s, 1, 200, 300) != ERR_OK || truncate(path, 3 * 4096) != 0)
            _exit(1);
        (void)scan(s, &seen, 0);
        _exit(0);
    }
    int status;
    char text[4096] = "";
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(read(told[0], text, sizeof text - 1) > 0);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    ck_assert_msg(strstr(text, "store.failed") && strstr(text, "SIGBUS"), "%s", text);
    struct store *s = NULL;
    ck_assert_int_eq(open_as(&s, usual), ERR_REFUSED);
    ck_assert(says(&why, "--after-eio"));
    close(told[0]);
    close(told[1]);
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
    ck_assert_int_eq(append_many(s, 11, 200, 300), ERR_NO_SPACE);
    ck_assert(says(&lines, "store.reopened"));
    store_lmdb_close(&s); /* before any other commit */
    s = open_usual();
    disk.meta_full = true;
    survives(s);
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
    s = open_usual(); /* long free lists are sound */
    store_lmdb_close(&s);
}
END_TEST

/* LMDB gives the pages of a commit back only after the one that follows it. When nothing else is
 * left to commit, a refused append must see to that. */
START_TEST(one_trim_makes_space)
{
    struct store_lmdb_options options = usual;
    options.map_bytes = 12 << 20;
    struct store *s = NULL;
    ck_assert_int_eq(open_as(&s, options), ERR_OK);
    uint64_t lsn = 1;
    struct gone gone = {0};
    for (uint64_t round = 0; round < 3; round++) {
        size_t n;
        for (; append_many(s, lsn, 1, 100000) == ERR_OK; lsn++)
            ck_assert_uint_lt(lsn, 1000);
        ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
        ck_assert_int_eq(s->vtable->trim(s, 0, INT64_MAX, 1000, see_gone, &gone, &n), ERR_OK);
        ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
        ck_assert_uint_eq(gone.count, lsn - 1);
        ck_assert_uint_gt(gone.count, 50 * (round + 1));
        if (append_many(s, lsn, 1, 100000) != ERR_OK)
            ck_assert_int_eq(append_many(s, lsn, 1, 100000), ERR_OK);
        ck_assert(s->vtable->has_space(s));
        lsn++;
    }
    store_lmdb_close(&s);
    s = open_usual();
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
    Suite *suite = suite_create("store_disk");
    TCase *t = tcase_create("store_disk");
    suite_add_tcase(suite, t);
    tcase_add_checked_fixture(t, rig_setup, rig_teardown);
    tcase_add_test(t, damaged_record_is_not_served);
    tcase_add_test(t, no_flipped_bit_goes_unseen);
    tcase_add_test(t, flipped_number_of_a_commit_loses_nothing);
    tcase_add_test(t, short_file_is_refused);
    tcase_add_test(t, unfinished_file_is_made_anew);
    tcase_add_test(t, damaged_record_is_trimmed);
    tcase_add_test(t, failed_sync_ends_the_process);
    tcase_add_test(t, unreadable_page_ends_the_process_with_a_message);
    tcase_add_test(t, short_write_on_a_roomy_disk_ends_the_process);
    tcase_add_test(t, short_write_on_a_full_disk_is_no_space);
    tcase_add_test(t, full_disk_at_the_meta_page);
    tcase_add_test(t, full_map);
    tcase_add_test(t, one_trim_makes_space);
    tcase_add_test(t, space_below_the_reserve);
    tcase_add_test(t, disk_filled_by_ourselves);
    tcase_add_test(t, disk_filled_by_others);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
