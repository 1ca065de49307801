/* SHELL. The functions of libc below stand before libc's own, in this program and for liblmdb. */
#include "store_rig.h"

#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/mem.h"

/* ---- a disk that fails when told to ---- */

struct disk disk;

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

char base[64], dir[96];
struct strbuf why, lines;
static struct metrics *metrics;
static struct log test_log;

static void collect(void *ctx, const char *line, size_t size)
{
    strbuf_put((struct strbuf *)ctx, line, size);
}

static void tell(void *ctx, const char *line, size_t size)
{
    (void)ctx;
    (void)!write(STDERR_FILENO, line, size);
}

void rig_log_to_stderr(void)
{
    test_log = (struct log){.write = tell};
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

void rig_setup(void)
{
    snprintf(base, sizeof base, "/tmp/stoa-store-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(base));
    snprintf(dir, sizeof dir, "%s/a/data", base);
    test_log = (struct log){.write = collect, .ctx = &lines};
    metrics = metrics_create();
}

void rig_clean(void)
{
    nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void rig_teardown(void)
{
    rig_clean();
    metrics_destroy(&metrics);
    strbuf_free(&why);
    strbuf_free(&lines);
}

const struct store_lmdb_options usual = {
    .dir = dir, .cluster = 7, .cluster_name = "north", .map_bytes = 1 << 30, .slot_seed = 3};

int open_as(struct store **s, struct store_lmdb_options options)
{
    strbuf_reset(&why);
    return store_lmdb_open(s, &options, &test_log, metrics, &why);
}

struct store *open_usual(void)
{
    struct store *s = NULL;
    int code = open_as(&s, usual);
    ck_assert_msg(code == ERR_OK, "%s", strbuf_cstr(&why));
    return s;
}

bool says(struct strbuf *text, const char *what)
{
    return strstr(strbuf_cstr(text), what) != NULL;
}

/* ---- records ---- */

static uint8_t payload_bytes[1 << 20];

/* Every field follows from the lsn, so that a reader can check all of it. */
struct store_record record_of(uint64_t lsn, size_t size)
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

bool same_record(const struct store_record *a, size_t size)
{
    struct store_record b = record_of(a->lsn, size);
    return a->room_id == b.room_id && a->seq == b.seq && a->ts == b.ts && a->pid == b.pid &&
           a->pseq == b.pseq && a->batch_index == b.batch_index &&
           a->batch_count == b.batch_count && a->flags == b.flags && a->slot == b.slot &&
           memcmp(a->msg_id, b.msg_id, 16) == 0 && slice_equal(a->conflate, b.conflate) &&
           slice_equal(a->filter, b.filter) && slice_equal(a->payload, b.payload);
}

int append(struct store *s, unsigned class_no, uint64_t lsn, size_t size)
{
    struct store_record r = record_of(lsn, size);
    return s->vtable->append(s, class_no, &r);
}

/* One transaction of `n` records. */
int append_many(struct store *s, uint64_t first, uint64_t n, size_t size)
{
    int code = s->vtable->begin(s);
    for (uint64_t i = 0; code == ERR_OK && i < n; i++)
        code = append(s, 0, first + i, size);
    if (code == ERR_OK)
        return s->vtable->commit(s);
    s->vtable->abort(s);
    return code;
}

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

int scan(struct store *s, struct seen *seen, size_t size)
{
    const struct store_visitor visitor = {.ctx = seen,
                                          .slot = see_slot,
                                          .room = see_room,
                                          .record = see_record,
                                          .damaged = see_damaged};
    *seen = (struct seen){.ascending = true, .intact = true, .size = size};
    return s->vtable->scan(s, &visitor);
}

void see_gone(void *ctx, const struct store_record *record)
{
    struct gone *gone = ctx;
    ck_assert(record->lsn == gone->last_lsn + 1 && same_record(record, record->payload.size));
    gone->count++;
    gone->last_lsn = record->lsn;
}

/* ---- the file ---- */

void file_path(char *out, size_t size)
{
    snprintf(out, size, "%s/data.mdb", dir);
}

uint8_t *file_read(size_t *size)
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

void file_poke(size_t at, uint8_t byte)
{
    char path[128];
    file_path(path, sizeof path);
    int fd = open(path, O_WRONLY);
    ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}
