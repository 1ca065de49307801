/* SHELL. Space: how much the map, the disk and the file itself still have, and how fast the disk
 * syncs.
 *
 *   0 .............. first_free_page ... zeroed_pages ... file_pages ............ map_pages
 *   [ live | reused ][ zeroed ahead     | allocated ahead ][ what the disk may give ]
 *
 * LMDB copies on write, so deletes need pages too. Two things keep trims going when nothing else
 * goes: records and rows are refused while RESERVE_PAGES are left, and the file is allocated ahead
 * of LMDB, so that a disk filled by somebody else does not stop it. The file never shrinks: pages
 * freed by trims count as space, or a shard that filled its disk would never recover.
 *
 * A block that was allocated but never written is turned into a written one by the first sync that
 * covers it, which then has to write the file's metadata too: a third of a small commit's time on
 * ext4 (bench/store.c). So the next few blocks are written with zeros before LMDB comes to them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/tick.h"
#include "shard/store_lmdb_internal.h"

#define RESERVE_PAGES 64
#define COMMIT_PAGES 32 /* tree and free list of one commit, beside its records */
#define GROW_MIN_BYTES ((uint64_t)4 * MIB)
#define GROW_MAX_BYTES ((uint64_t)32 * MIB)
#define ZERO_BYTES ((size_t)256 * KIB) /* at a time; the last half of it starts the next */
#define LOOK_EVERY_COMMITS 64          /* 20 to 200 ms under load */
#define PROBES 9
#define PROBE_BYTES 4096

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- the file ---- */

static bool file_allocate(struct lmdb_store *s, uint64_t pages)
{
    off_t old = (off_t)(s->file_pages * s->page_bytes), size = (off_t)(pages * s->page_bytes);
    int rc;
    do
        rc = fallocate(s->file_fd, 0, old, size - old);
    while (rc != 0 && errno == EINTR);
    if (rc == 0)
        s->file_pages = pages;
    else if (errno == EOPNOTSUPP || errno == ENOSYS)
        s->no_allocate = true;
    return rc == 0 || s->no_allocate;
}

/* Makes the file reach at least `pages`, and some more so that this is rare. */
static bool file_reach(struct lmdb_store *s, uint64_t pages)
{
    if (pages <= s->file_pages || s->no_allocate)
        return true;
    if (s->cannot_grow || pages > s->map_pages)
        return false;
    uint64_t ahead = s->file_pages * s->page_bytes / 8;
    ahead = ahead < GROW_MIN_BYTES ? GROW_MIN_BYTES : min_u64(ahead, GROW_MAX_BYTES);
    if (file_allocate(s, min_u64(pages + ahead / s->page_bytes, s->map_pages)) ||
        file_allocate(s, pages))
        return true;
    s->cannot_grow = true;
    return false;
}

/* Where blocks move when they are written (btrfs, zfs) zeros would only cost. */
bool store_space_in_place(int fd)
{
    struct statfs disk;
    return fstatfs(fd, &disk) == 0 &&
           (disk.f_type == EXT4_SUPER_MAGIC || disk.f_type == XFS_SUPER_MAGIC);
}

/* Their way to the disk starts here, so that the next sync finds most of them there. A failure is
 * left to that sync to meet: nothing that matters is in these blocks. */
static void file_zero_ahead(struct lmdb_store *s)
{
    static const uint8_t zeros[ZERO_BYTES];
    if (s->zeroed_pages < s->first_free_page)
        s->zeroed_pages = s->first_free_page;
    uint64_t ahead = (s->zeroed_pages - s->first_free_page) * s->page_bytes;
    if (!s->in_place || s->no_allocate || ahead > ZERO_BYTES / 2)
        return;
    uint64_t upto = min_u64(s->zeroed_pages + ZERO_BYTES / s->page_bytes, s->file_pages);
    if (upto <= s->zeroed_pages)
        return;
    off_t at = (off_t)(s->zeroed_pages * s->page_bytes);
    ssize_t put = pwrite(s->file_fd, zeros, (upto - s->zeroed_pages) * s->page_bytes, at);
    if (put > 0)
        (void)sync_file_range(s->file_fd, at, put, SYNC_FILE_RANGE_WRITE);
    s->zeroed_pages = upto;
}

void store_space_begin(struct lmdb_store *s)
{
    MDB_envinfo info;
    mdb_env_info(s->env, &info);
    s->first_free_page = info.me_last_pgno + 1;
    s->write_bytes = 0;
    s->cannot_grow = s->refused = s->removes = false;
    (void)file_reach(s, s->first_free_page + COMMIT_PAGES + RESERVE_PAGES);
    file_zero_ahead(s);
}

static bool space_for(struct lmdb_store *s, size_t bytes)
{
    s->write_bytes += bytes + s->page_bytes / 64; /* node and key */
    /* A page holds at least two records, or a record its own pages: never more than twice. */
    uint64_t pages = 2 * s->write_bytes / s->page_bytes + COMMIT_PAGES + RESERVE_PAGES;
    if (s->live_pages + pages > s->map_pages)
        return false;
    return file_reach(s, s->first_free_page + pages) || s->live_pages + pages <= s->first_free_page;
}

int store_space_take(struct lmdb_store *s, size_t bytes)
{
    if (space_for(s, bytes))
        return ERR_OK;
    s->refused = true;
    return ERR_NO_SPACE;
}

uint64_t store_space_live(const struct lmdb_store *s, MDB_txn *txn)
{
    enum { FREE_LIST, NAMES }; /* LMDB's own two tables */
    const MDB_dbi tables[] = {FREE_LIST, NAMES,   s->log_dbi[0], s->log_dbi[1],
                              s->rooms,  s->rows, s->slots,      s->meta};
    uint64_t pages = 2; /* of the environment */
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        MDB_stat stat;
        if (mdb_stat(txn, tables[i], &stat) == 0)
            pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
    }
    return pages;
}

void store_space_look(struct lmdb_store *s)
{
    struct statvfs disk;
    struct stat file;
    s->commits_until_look = LOOK_EVERY_COMMITS;
    if (statvfs(s->dir, &disk) == 0)
        s->disk_free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (fstat(s->file_fd, &file) == 0)
        s->file_pages = (uint64_t)file.st_size / s->page_bytes;
    uint64_t inside = s->file_pages > s->live_pages ? s->file_pages - s->live_pages : 0;
    uint64_t turn = 2 * COMMIT_MAX_BYTES / s->page_bytes + COMMIT_PAGES + RESERVE_PAGES;
    bool map_ok = s->live_pages <= s->map_pages / 10 * 9 && s->live_pages + turn <= s->map_pages;
    bool disk_ok = s->disk_free_bytes + inside * s->page_bytes >= s->reserve_bytes;
    if (s->space != (map_ok && disk_ok))
        LOG(s->log, s->space ? LOG_WARN : LOG_INFO, s->space ? "store.full" : "store.space",
            LOG_STR("dir", s->dir), LOG_U64("disk_free_bytes", s->disk_free_bytes),
            LOG_U64("file_free_bytes", inside * s->page_bytes),
            LOG_U64("map_free_bytes",
                    (s->map_pages - min_u64(s->live_pages, s->map_pages)) * s->page_bytes));
    s->space = map_ok && disk_ok;
    metric_set(s->disk_free, (double)s->disk_free_bytes);
}

/* ---- the disk's speed ---- */

int64_t store_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static int compare_ns(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Median of a few 4 KiB writes with fdatasync: what every acknowledgement costs at least. A full
 * disk has no answer; a failing one is not opened. */
int store_probe_sync(struct lmdb_store *s, struct strbuf *why)
{
    struct strbuf path = {0};
    uint8_t page[PROBE_BYTES];
    int64_t took[PROBES];
    strbuf_printf(&path, "%s/sync-probe", s->dir);
    int fd = open(strbuf_cstr(&path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int n = 0, error = 0;
    memset(page, 0x55, sizeof page);
    for (; fd >= 0 && n < PROBES; n++) {
        int64_t start = store_mono_ns();
        if (pwrite(fd, page, sizeof page, 0) != (ssize_t)sizeof page || fdatasync(fd) != 0) {
            error = errno;
            break;
        }
        took[n] = store_mono_ns() - start;
    }
    if (fd >= 0) {
        close(fd);
        unlink(strbuf_cstr(&path));
    }
    strbuf_free(&path);
    if (error == EIO) {
        strbuf_printf(why, "the disk under %s fails (EIO): replace it", s->dir);
        return ERR_IO;
    }
    if (n > 0) {
        qsort(took, (size_t)n, sizeof *took, compare_ns);
        s->sync_probe_ns = took[n / 2];
        metric_set(s->sync_seconds, (double)s->sync_probe_ns / 1e9);
    }
    return ERR_OK;
}
