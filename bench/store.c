/* SHELL. What the store alone can do on this machine's disk: durable events per second by size of
 * the commit, and the speed of the scan at start. One line a figure.
 *
 *   bench_store [DIRECTORY]      a directory to be made in it, and removed (default: here) */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/mem.h"
#include "common/tick.h"
#include "shard/store_lmdb.h"

#define PAYLOAD_BYTES 300
#define SECONDS 2
#define COMMITS_MAX 100000

static uint64_t next_lsn = 1;
static uint8_t payload[PAYLOAD_BYTES];
static int64_t took[COMMITS_MAX];

static int64_t mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static void must(int code, const char *what)
{
    if (code == ERR_OK)
        return;
    fprintf(stderr, "bench_store: %s: %s\n", what, err_name(code));
    exit(1);
}

static int compare_ns(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void commit_of(struct store *s, unsigned events)
{
    must(s->vtable->begin(s), "begin");
    for (unsigned i = 0; i < events; i++) {
        uint64_t lsn = next_lsn++;
        const struct store_record record = {.lsn = lsn,
                                            .room_id = lsn % 1000 + 1,
                                            .seq = lsn / 1000 + 1,
                                            .ts = (int64_t)lsn,
                                            .msg_id = {(uint8_t)lsn, 1},
                                            .batch_count = 1,
                                            .payload = slice_of(payload, sizeof payload)};
        must(s->vtable->append(s, 0, &record), "append");
    }
    must(s->vtable->commit(s), "commit");
}

static void run_commits(struct store *s, unsigned events)
{
    size_t n = 0;
    int64_t start = mono_ns(), last = start;
    while (last - start < SECONDS * NS_PER_S && n < COMMITS_MAX) {
        commit_of(s, events);
        int64_t now = mono_ns();
        took[n++] = now - last;
        last = now;
    }
    qsort(took, n, sizeof *took, compare_ns);
    printf("commits of %3u x %d B  %9.0f events/s   commit p50 %.3f ms  p99 %.3f ms\n", events,
           PAYLOAD_BYTES, (double)(n * events) / ((double)(last - start) / NS_PER_S),
           (double)took[n / 2] / NS_PER_MS, (double)took[n - 1 - n / 100] / NS_PER_MS);
}

static void see_slot(void *ctx, const struct store_slot *slot)
{
    (void)ctx, (void)slot;
}

static void see_room(void *ctx, const struct store_room *room)
{
    (void)ctx, (void)room;
}

static void see_record(void *ctx, unsigned class_no, const struct store_record *record)
{
    (void)class_no, (void)record;
    ++*(uint64_t *)ctx;
}

static void see_damaged(void *ctx, unsigned class_no, uint64_t lsn)
{
    (void)ctx, (void)class_no;
    fprintf(stderr, "bench_store: record %lu is damaged\n", (unsigned long)lsn);
}

static void run_scan(struct store *s)
{
    uint64_t records = 0;
    const struct store_visitor visitor = {.ctx = &records,
                                          .slot = see_slot,
                                          .room = see_room,
                                          .record = see_record,
                                          .damaged = see_damaged};
    int64_t start = mono_ns();
    must(s->vtable->scan(s, &visitor), "scan");
    double seconds = (double)(mono_ns() - start) / NS_PER_S;
    printf("scan                   %9.0f records/s  %lu records, checksums verified\n",
           (double)records / seconds, (unsigned long)records);
}

/* What a start costs before the scan: every page of the tree is checked. */
static void run_open(struct store **s, const struct store_lmdb_options *options,
                     struct metrics *metrics)
{
    struct strbuf why = {0};
    struct store_stats stats;
    store_lmdb_close(s);
    int64_t start = mono_ns();
    must(store_lmdb_open(s, options, NULL, metrics, &why), "open");
    double seconds = (double)(mono_ns() - start) / NS_PER_S;
    (*s)->vtable->stats(*s, &stats);
    printf("open                   %9.0f records/s  %.3f s, pages checked\n",
           (double)stats.records[0] / seconds, seconds);
    strbuf_free(&why);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    char dir[512];
    struct strbuf why = {0};
    struct store *s;
    struct store_stats stats;
    struct metrics *metrics = metrics_create();
    snprintf(dir, sizeof dir, "%s/bench-store-XXXXXX", argc > 1 ? argv[1] : ".");
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        return 1;
    }
    memset(payload, 'x', sizeof payload);
    const struct store_lmdb_options options = {.dir = dir, .cluster_name = "bench"};
    if (store_lmdb_open(&s, &options, NULL, metrics, &why) != ERR_OK) {
        fprintf(stderr, "bench_store: %s\n", strbuf_cstr(&why));
        return 1;
    }
    s->vtable->stats(s, &stats);
    printf("write + fdatasync      %9.3f ms median\n", (double)stats.sync_probe_ns / NS_PER_MS);
    static const unsigned sizes[] = {1, 64, 512};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        run_commits(s, sizes[i]);
    run_open(&s, &options, metrics);
    run_scan(s);
    store_lmdb_close(&s);
    metrics_destroy(&metrics);
    strbuf_free(&why);
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
