/* SHELL. Files that rotted: a bit flipped, a page zeroed, an end cut off, a page that holds
 * another's bytes. The store refuses such a file and says why, or what it gives out is right and
 * what is gone is told; neither changes when the shard then works on and is started again. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"
#include "disk.h"
#include "images.h"
#include "pool.h"

#define PAGE 4096
#define TURNS_BEFORE 90
#define TURNS_AFTER 4
#define EACH 1000  /* spoiled copies of one file */
#define TXN_AT 144 /* of the number of a commit in its meta page: LMDB 0.9, 64 bits */

struct sound { /* a file, and how it came about */
    struct history *history;
    uint8_t *bytes;
    uint64_t size, used;
};

static struct sound make_sound(uint64_t seed, bool big)
{
    char dir[80], path[96];
    struct strbuf why = {0};
    struct sound s = {.history = history_create(seed, big)};
    snprintf(dir, sizeof dir, "%s/sound", run_dir);
    snprintf(path, sizeof path, "%.80s/" DISK_FILE, dir);
    const struct world_start start = {1, s.history->now, false};
    struct world *w = world_open(dir, s.history, &start, &why);
    STOA_ASSERT(w != NULL);
    for (int i = 0; i < TURNS_BEFORE; i++)
        world_turn(w);
    STOA_ASSERT(w->problem.size == 0);
    world_close(&w);
    FILE *f = fopen(path, "rb");
    STOA_ASSERT(f != NULL && fseek(f, 0, SEEK_END) == 0);
    s.size = (uint64_t)ftell(f);
    rewind(f);
    s.bytes = mem_alloc(s.size);
    STOA_ASSERT(fread(s.bytes, 1, s.size, f) == s.size);
    fclose(f);
    for (s.used = s.size; s.used > PAGE && s.bytes[s.used - 1] == 0;)
        s.used--;
    s.used = (s.used + PAGE - 1) / PAGE * PAGE;
    remove_tree(dir);
    strbuf_free(&why);
    return s;
}

/* ---- damage ---- */

static void flip(uint8_t *bytes, uint64_t used, struct rng *rng)
{
    static const uint64_t spans[] = {PAGE, PAGE, 64, 160};
    uint64_t kind = rng_below(rng, 8);
    uint64_t page = kind == 0 ? rng_below(rng, 2) : rng_below(rng, used / PAGE);
    uint64_t at = page * PAGE + rng_below(rng, kind == 0 ? 160 : spans[kind % 4]);
    bytes[at] ^= (uint8_t)(1u << rng_below(rng, 8));
}

/* The size that the file then has. */
static uint64_t spoil(uint8_t *bytes, const struct sound *s, struct rng *rng)
{
    uint64_t pages = s->used / PAGE, dice = rng_below(rng, 10);
    uint64_t page = rng_below(rng, pages), other = rng_below(rng, pages);
    if (dice < 6)
        flip(bytes, s->used, rng);
    else if (dice < 8)
        memset(bytes + page * PAGE, 0, PAGE);
    else if (dice < 9)
        memcpy(bytes + page * PAGE, s->bytes + other * PAGE, PAGE);
    else
        return rng_below(rng, s->used);
    return s->size;
}

static void write_file(const char *dir, const uint8_t *bytes, uint64_t size, uint64_t whole)
{
    char path[96];
    snprintf(path, sizeof path, "%.80s/" DISK_FILE, dir);
    FILE *f = fopen(path, "wb");
    STOA_ASSERT(f != NULL && fwrite(bytes, 1, size, f) == size);
    fclose(f);
    STOA_ASSERT(truncate(path, (off_t)whole) == 0);
}

/* ---- one of them ---- */

/* The history goes on, but only for this file. */
static struct history *own_copy(const struct history *from)
{
    static struct history *own;
    if (own == NULL)
        own = mmap(NULL, sizeof *own, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    STOA_ASSERT(own != MAP_FAILED);
    memcpy(own, from, offsetof(struct history, ops) + from->n_ops * sizeof *from->ops);
    memcpy(own->tokens, from->tokens, from->n_tokens * sizeof *from->tokens);
    return own;
}

static enum verdict try_file(const char *dir, struct history *h, uint64_t dice, struct strbuf *why)
{
    const struct check check = {
        .dir = dir, .history = h, .cut = CHECK_NOW, .damaged = true, .dice = dice};
    const struct world_start start = {2, h->now, false};
    struct world *w = world_open(dir, h, &start, why);
    if (w == NULL)
        return VERDICT_REFUSED;
    w->lenient = true;
    enum verdict v = check_world(&check, w, why);
    for (int i = 0; i < TURNS_AFTER && v == VERDICT_GOOD; i++)
        world_turn(w);
    if (v == VERDICT_GOOD && w->problem.size > 0) {
        strbuf_put_text(why, strbuf_cstr(&w->problem));
        v = VERDICT_WRONG;
    }
    world_close(&w);
    if (v != VERDICT_GOOD)
        return v;
    strbuf_put_text(why, "after more work: ");
    return check_dir(&check, why);
}

static enum verdict try_spoiled(void *ctx, unsigned worker, uint64_t task, struct strbuf *why)
{
    const struct sound *s = ctx;
    static uint8_t *bytes;
    char dir[80];
    struct rng rng;
    rng_seed(&rng, s->history->seed * 1000003 + task);
    bytes = mem_realloc(bytes, s->size);
    memcpy(bytes, s->bytes, s->used);
    uint64_t whole = s->size;
    if (task < 128) /* each bit of the numbers by which LMDB chooses the newer meta page */
        bytes[task / 64 * PAGE + TXN_AT + task % 64 / 8] ^= (uint8_t)(1u << task % 8);
    else
        whole = spoil(bytes, s, &rng);
    pool_dir(dir, sizeof dir, worker);
    remove_tree(dir);
    pool_dir(dir, sizeof dir, worker);
    write_file(dir, bytes, whole < s->used ? whole : s->used, whole);
    return try_file(dir, own_copy(s->history), rng_u64(&rng), why);
}

bool run_rot(const struct run_options *o)
{
    struct tally tally = {0};
    double start = now_seconds();
    const unsigned bad = 1u << VERDICT_WRONG | 1u << VERDICT_LOST | 1u << VERDICT_CRASHED;
    for (uint64_t done = 0, n = 0; done < o->rot; n++) {
        struct sound s = make_sound(o->seed + n, n % 4 == 3);
        uint64_t files = o->rot - done < EACH ? o->rot - done : EACH;
        pool_run("spoiled file", o->workers, files, bad, try_spoiled, &s, &tally);
        mem_free(s.bytes);
        history_free(s.history);
        done += files;
    }
    const uint64_t *v = tally.verdicts;
    uint64_t failed = v[VERDICT_WRONG] + v[VERDICT_LOST] + v[VERDICT_CRASHED];
    printf("bit rot: %llu files; refused %llu, opened and right or told %llu, ended by the store "
           "%llu; wrong %llu, lost untold %llu, crashed %llu; %.0f a second\n",
           (unsigned long long)o->rot, (unsigned long long)v[VERDICT_REFUSED],
           (unsigned long long)v[VERDICT_GOOD], (unsigned long long)v[VERDICT_ENDED],
           (unsigned long long)v[VERDICT_WRONG], (unsigned long long)v[VERDICT_LOST],
           (unsigned long long)v[VERDICT_CRASHED], (double)o->rot / (now_seconds() - start));
    return failed == 0;
}
