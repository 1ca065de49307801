/* SHELL. How much room the disk and the map still have, and how fast the disk syncs.
 *
 * Deletes need pages too (copy on write), so publishes are refused while there is still a reserve:
 * that is what lets trims go on with a full disk and service come back by itself. Free pages within
 * the file count: after trims the file keeps its size, but LMDB reuses them. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/tick.h"
#include "shard/store_lmdb_internal.h"

#define LOOK_EVERY_COMMITS 64
#define DELETE_RESERVE_PAGES 64 /* the design's reserve for deletes */
#define COMFORT_FREE_BYTES \
    (8 * (uint64_t)MIB) /* free pages within the file that make up for a full disk */
#define PROBES 9

/* Pages on LMDB's free list. Costs a walk over it, so it is asked only when space is short. */
static uint64_t free_list_pages(struct lmdb_store *s)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    uint64_t pages = 0;
    if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0)
        return 0;
    if (mdb_cursor_open(txn, 0, &cursor) == 0) {
        MDB_val key, value;
        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
            size_t count = 0;
            if (value.mv_size >= sizeof count)
                memcpy(&count, value.mv_data, sizeof count);
            pages += count;
        }
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return pages;
}

void store_look_at_space(struct lmdb_store *s)
{
    struct statvfs disk;
    MDB_envinfo info;
    s->commits_until_look = LOOK_EVERY_COMMITS;
    if (statvfs(s->dir, &disk) == 0)
        s->free_disk_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    metric_set(s->disk_free, (double)s->free_disk_bytes);
    mdb_env_info(s->env, &info);
    uint64_t used = info.me_last_pgno + 1;
    bool map_short = used > s->map_pages / 10 * 9,
         disk_short = s->free_disk_bytes < s->reserve_bytes;
    s->space = !map_short && !disk_short;
    s->write_full = false;
    if (s->space)
        return;
    uint64_t inside = free_list_pages(s);
    uint64_t grow = map_short ? s->map_pages - used : 0;
    s->free_pages = inside + (disk_short ? 0 : grow);
    s->space = inside * s->page_bytes >= COMFORT_FREE_BYTES;
    s->write_full = s->free_pages < DELETE_RESERVE_PAGES;
}

static int compare_ns(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* Median of a few 4 KiB writes with fdatasync: what every acknowledgement will at least cost. */
void store_probe_sync(struct lmdb_store *s)
{
    struct strbuf path = {0};
    char page[4096];
    int64_t took[PROBES];
    strbuf_printf(&path, "%s/sync-probe", s->dir);
    int fd = open(strbuf_cstr(&path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int n = 0;
    memset(page, 0x55, sizeof page);
    for (; fd >= 0 && n < PROBES; n++) {
        int64_t start = mono_ns();
        if (pwrite(fd, page, sizeof page, 0) != (ssize_t)sizeof page || fdatasync(fd) != 0)
            break;
        took[n] = mono_ns() - start;
    }
    if (fd >= 0) {
        close(fd);
        unlink(strbuf_cstr(&path));
    }
    strbuf_free(&path);
    if (n == 0)
        return;
    qsort(took, (size_t)n, sizeof *took, compare_ns);
    s->sync_probe_ns = took[n / 2];
    metric_set(s->sync_seconds, (double)s->sync_probe_ns / 1e9);
}
