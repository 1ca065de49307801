/* SHELL. Power cuts, simulated: what the real shard and store did to their file is recorded with
 * the points at which it became durable, and replayed into the files that a cut could leave.
 *
 *   durable   everything up to the last sync, and what a write through O_DSYNC covers
 *   pending   writes since then: none of them, all of them, or any sectors of 512 bytes, each in
 *             any of the versions that were written meanwhile
 *
 * The recordings have orderly restarts, and half of them a disk that is full now and then. After
 * every recorded event (a synced write counts as two, so it is also caught half done) the
 * image is opened by the real recovery and judged by check.c. */
#include "images.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/mem.h"
#include "disk.h"
#include "pool.h"

#define SECTOR 512
#define FILE_MAX ((uint64_t)64 << 20)
#define EVENTS_PER_RECORDING 700
#define WORKLOADS_EACH 3000 /* images of one recording */

struct job {
    struct history *history;
    struct disk_recording recording;
    bool named;    /* the recording has the event that names the file */
    uint64_t used; /* bytes of the file that were ever written */
    const struct run_options *options;
};

struct pending {
    const struct disk_event *event;
};

/* What a worker keeps from one image to the next. */
struct builder {
    const struct job *job;
    char dir[80], path[96];
    int fd;
    uint8_t *map;
    ino_t inode;
    uint64_t dirty; /* bytes of the file that may not be zero */
    uint8_t *base;  /* durable content */
    uint64_t base_size;
    bool name_pending, name_durable;
    struct vec pending; /* struct pending */
    uint64_t cut;
};

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- what is durable ---- */

static void apply(struct builder *b, const struct disk_event *e)
{
    if (e->kind == DISK_WRITE)
        memcpy(b->base + e->at, e->bytes, e->size);
    uint64_t end = e->at + e->size;
    if (end > b->base_size)
        b->base_size = end;
}

static void apply_range(struct builder *b, const struct disk_event *range)
{
    size_t kept = 0;
    for (size_t i = 0; i < b->pending.count; i++) {
        struct pending p = VEC_AT(&b->pending, struct pending)[i];
        const struct disk_event *e = p.event;
        bool all = range->kind == DISK_SYNC;
        if (all || (e->kind == DISK_WRITE && e->at >= range->at &&
                    e->at + e->size <= range->at + range->size))
            apply(b, e);
        else
            VEC_AT(&b->pending, struct pending)[kept++] = p;
    }
    b->pending.count = kept;
}

static void step(struct builder *b, const struct disk_event *e)
{
    bool ignore = b->job->options->ignore_syncs && b->cut > 40; /* a file that opens, at least */
    switch (e->kind) {
    case DISK_WRITE:
    case DISK_SIZE:
        *VEC_PUSH(&b->pending, struct pending) = (struct pending){e};
        break;
    case DISK_SYNC:
    case DISK_SYNC_RANGE:
        if (!ignore)
            apply_range(b, e);
        break;
    case DISK_NAME:
        b->name_pending = true;
        break;
    case DISK_SYNC_NAMES:
        b->name_durable |= b->name_pending;
        break;
    }
}

static void go_to(struct builder *b, uint64_t cut)
{
    if (cut < b->cut) {
        memset(b->base, 0, FILE_MAX);
        b->base_size = b->cut = b->pending.count = 0;
        b->name_pending = b->name_durable = false;
    }
    for (; b->cut < cut; b->cut++)
        step(b, &b->job->recording.at[b->cut]);
}

/* ---- what else may have reached the disk ---- */

enum mode { MODE_NONE, MODE_ALL, MODE_SECTORS };

static uint64_t put_some(struct builder *b, const struct disk_event *e, struct rng *rng,
                         uint64_t odds)
{
    uint64_t end = 0;
    for (uint64_t at = 0; at < e->size;) {
        uint64_t next = (e->at + at) / SECTOR * SECTOR + SECTOR - e->at;
        uint64_t stop = next < e->size ? next : e->size;
        if (rng_below(rng, 100) < odds) {
            memcpy(b->map + e->at + at, e->bytes + at, stop - at);
            end = e->at + stop;
        }
        at = stop;
    }
    return end;
}

/* The size that the file then has. */
static uint64_t put_pending(struct builder *b, enum mode mode, struct rng *rng)
{
    static const uint64_t usual[] = {3, 50, 97};
    uint64_t size = b->base_size, odds = usual[rng_below(rng, 3)];
    for (size_t i = 0; mode != MODE_NONE && i < b->pending.count; i++) {
        const struct disk_event *e = VEC_AT(&b->pending, struct pending)[i].event;
        uint64_t end;
        if (e->kind == DISK_SIZE)
            end = mode == MODE_ALL || rng_below(rng, 2) ? e->at : 0;
        else
            end = put_some(b, e, rng, mode == MODE_ALL ? 100 : odds);
        size = end > size ? end : size;
    }
    return size;
}

/* ---- the file ---- */

static void open_image(struct builder *b)
{
    struct stat st;
    if (b->fd >= 0 && stat(b->path, &st) == 0 && st.st_ino == b->inode)
        return;
    if (b->fd >= 0) {
        munmap(b->map, FILE_MAX);
        close(b->fd);
    }
    (void)unlink(b->path);
    b->fd = open(b->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    STOA_ASSERT(b->fd >= 0 && fstat(b->fd, &st) == 0);
    b->inode = st.st_ino;
    b->map = mmap(NULL, FILE_MAX, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
    STOA_ASSERT(b->map != MAP_FAILED);
    b->dirty = 0;
}

/* Recovery wrote behind what the recording used: at most what one commit of it needs. */
static void clean_image(struct builder *b)
{
    uint64_t margin = b->job->used + (1 << 20);
    STOA_ASSERT(margin < FILE_MAX && ftruncate(b->fd, (off_t)FILE_MAX) == 0);
    memcpy(b->map, b->base, b->job->used);
    memset(b->map + b->job->used, 0, b->dirty > b->job->used ? b->dirty - b->job->used : 0);
    b->dirty = margin;
}

static bool is_named(const struct builder *b, enum mode mode, struct rng *rng)
{
    if (!b->job->named || b->name_durable)
        return true;
    return b->name_pending && (mode == MODE_ALL || (mode == MODE_SECTORS && rng_below(rng, 2)));
}

static struct builder *builder_of(const struct job *job, unsigned worker)
{
    static struct builder builder = {.fd = -1};
    struct builder *b = &builder;
    if (b->job != job) {
        b->job = job;
        if (b->base == NULL)
            b->base =
                mmap(NULL, FILE_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        STOA_ASSERT(b->base != MAP_FAILED);
        pool_dir(b->dir, sizeof b->dir, worker);
        snprintf(b->path, sizeof b->path, "%.80s/" DISK_FILE, b->dir);
    }
    return b;
}

static enum verdict try_image(void *ctx, unsigned worker, uint64_t task, struct strbuf *why)
{
    const struct job *job = ctx;
    struct builder *b = builder_of(job, worker);
    uint64_t cuts = job->recording.count + 1, pass = task / cuts;
    enum mode mode = pass < 2 ? (enum mode)pass : MODE_SECTORS;
    struct rng rng;
    rng_seed(&rng, job->history->seed * 1000003 + task);
    go_to(b, task % cuts);
    open_image(b);
    clean_image(b);
    uint64_t size = put_pending(b, mode, &rng);
    STOA_ASSERT(ftruncate(b->fd, (off_t)size) == 0);
    if (!is_named(b, mode, &rng))
        (void)unlink(b->path);
    const struct check check = {
        .dir = b->dir, .history = job->history, .cut = (uint32_t)b->cut, .dice = rng_u64(&rng)};
    return check_dir(&check, why);
}

/* ---- recording ---- */

/* On a disk that has space: LMDB cannot open on another. */
static struct world *restart(struct world *w, const char *dir, unsigned life)
{
    struct strbuf why = {0};
    struct history *h = w->history;
    const struct world_start start = {life, h->now, false};
    disk_heal();
    world_close(&w);
    w = world_open(dir, h, &start, &why);
    if (w == NULL)
        printf("  while recording: %s\n", strbuf_cstr(&why));
    STOA_ASSERT(w != NULL);
    strbuf_free(&why);
    return w;
}

static void record(struct job *job, uint64_t seed, bool big)
{
    char dir[80];
    struct strbuf why = {0};
    /* On a real file system, whose kind decides what the store does (store_lmdb_space.c). */
    snprintf(dir, sizeof dir, "%s/recorded", disk_dir);
    job->history = history_create(seed, big);
    disk_record_begin();
    const struct world_start start = {1, job->history->now, false};
    struct world *w = world_open(dir, job->history, &start, &why);
    STOA_ASSERT(w != NULL);
    struct rng rng;
    rng_seed(&rng, seed);
    for (unsigned life = 2; disk_recorded() < EVENTS_PER_RECORDING;) {
        world_turn(w);
        if (seed % 2 == 1 && rng_below(&rng, 8) == 0)
            disk_fail(FAULT_ENOSPC, 1 + (unsigned)rng_below(&rng, 12), rng_below(&rng, 2));
        if (w->problem.size == 0 && rng_below(&rng, 40) == 0)
            w = restart(w, dir, life++);
    }
    disk_heal();
    job->recording = disk_record_end();
    if (w->problem.size > 0)
        printf("  while recording: %s\n", strbuf_cstr(&w->problem));
    STOA_ASSERT(w->problem.size == 0);
    world_close(&w);
    strbuf_free(&why);
    remove_tree(dir);
    for (size_t i = 0; i < job->recording.count; i++) {
        const struct disk_event *e = &job->recording.at[i];
        job->named |= e->kind == DISK_NAME;
        if (e->kind == DISK_WRITE && e->at + e->size > job->used)
            job->used = e->at + e->size;
    }
}

static void describe(const struct job *job, uint64_t counts[6])
{
    for (size_t i = 0; i < job->recording.count; i++)
        counts[job->recording.at[i].kind]++;
}

bool run_images(const struct run_options *o)
{
    struct tally tally = {0};
    uint64_t counts[6] = {0}, ops = 0;
    double start = now_seconds();
    unsigned bad = ~(1u << VERDICT_GOOD);
    for (uint64_t done = 0, n = 0; done < o->images; n++) {
        struct job job = {.options = o};
        uint64_t images = o->images - done < WORKLOADS_EACH ? o->images - done : WORKLOADS_EACH;
        record(&job, o->seed + n, n % 4 == 3);
        describe(&job, counts);
        ops += job.history->n_ops;
        pool_run("image", o->workers, images, o->ignore_syncs ? 0 : bad, try_image, &job, &tally);
        disk_recording_free(&job.recording);
        history_free(job.history);
        done += images;
    }
    double took = now_seconds() - start;
    uint64_t corrupt = tally.verdicts[VERDICT_REFUSED] + tally.verdicts[VERDICT_WRONG] +
                       tally.verdicts[VERDICT_ENDED] + tally.verdicts[VERDICT_CRASHED];
    printf("images%s: %llu of %llu publishes and %llu writes, %llu syncs, %llu synced writes; "
           "corrupt %llu, acknowledged lost %llu; %.0f a second\n",
           o->ignore_syncs ? " as if nothing were synced" : "", (unsigned long long)o->images,
           (unsigned long long)ops, (unsigned long long)counts[DISK_WRITE],
           (unsigned long long)counts[DISK_SYNC], (unsigned long long)counts[DISK_SYNC_RANGE],
           (unsigned long long)corrupt, (unsigned long long)tally.verdicts[VERDICT_LOST],
           (double)o->images / took);
    uint64_t failed = corrupt + tally.verdicts[VERDICT_LOST];
    return o->ignore_syncs ? failed > 0 : failed == 0;
}
