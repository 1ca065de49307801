/* SHELL. Walks the pages of data.mdb before LMDB does. Our checksums guard the values; the tree
 * around them has none, and LMDB believes every offset it reads: one flipped bit in a page's head
 * is a crash at every start, or records that are silently gone. The walk touches each page of the
 * tree once and costs less than the scan that follows. No page may be met twice, or be free and in
 * use: a later commit would write over it.
 *
 * Which of the two meta pages is the younger only their numbers say, and one flipped bit can turn
 * that round: LMDB would open the commit before the last one. Each commit frees pages under its own
 * number (at least the root that it replaced), so the newest key of a tree's free list says which
 * commit made it. The other tree can be read as well: LMDB reuses only what had been freed before
 * it. A sound tree that is younger than its meta page says gets its number back.
 *
 * A meta page whose writing failed looks the same: LMDB puts its old number back over the new tree.
 * When the process ended right there, nobody was told how that commit ended, and it counts. A store
 * that goes on, after ENOSPC, mends the page first (store_mend_meta).
 *
 *   page:  u64 number | u16 - | u16 flags | u16 lower | u16 upper | u16 offsets[] .. nodes
 *          of a run: u64 number | u16 - | u16 flags | u32 pages | bytes
 *   node:  u16 low | u16 high | u16 flags | u16 key bytes | key | value
 *          low, high: size of the value; in a branch, with flags, the number of the page below
 *   table: u32 - | u16 flags | u16 depth | u64 branches, leaves, overflows, entries, root
 *   meta:  u32 magic | u32 version | u64 - | u64 - | tables free, names | u64 last page | u64 txn
 *
 * (LMDB 0.9, 64 bits, native byte order.) */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"
#include "shard/store_lmdb_internal.h"
#include "shard/store_lmdb_record.h"

enum { BRANCH = 1, LEAF = 2, OVERFLOW = 4, META = 8 }; /* flags of pages */
enum { BIG = 1, TABLE = 2 };                           /* flags of nodes */
enum { PAGE_HEAD = 16, NODE_HEAD = 8, TABLE_BYTES = 48 };
#define MAGIC 0xbeefc0deu
#define VERSION 1
#define INTEGER_KEYS 8 /* flag of a table */
#define DEPTH_MAX 32
#define NO_PAGE UINT64_MAX

struct walk {
    const uint8_t *file;
    uint64_t page_bytes, pages; /* pages: as the meta page says */
    uint8_t *met;               /* a bit for each page */
    uint64_t newest_free;       /* key of the free list */
    size_t names;               /* tables met so far */
    uint64_t number; /* of the commit that the damaged meta page tells of, 0: not known */
    uint64_t bad;    /* number of the first damaged page */
    const char *what;
};

struct table {
    uint16_t flags, depth;
    uint64_t branches, leaves, overflows, entries, root;
    bool names;          /* its values are tables */
    bool free;           /* its values are lists of free pages */
    bool rows;           /* its values hold a sum of their key */
    uint64_t least_key;  /* of integer keys: what the next one must reach; */
    struct slice before; /* of other keys: the one before it, */
    bool before_is_leaf; /* which it may be itself if that stood in a branch */
};

static uint16_t u16_at(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

static uint32_t u32_at(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

static uint64_t u64_at(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

static bool bad(struct walk *w, uint64_t page, const char *what)
{
    if (w->what == NULL) {
        w->bad = page;
        w->what = what;
    }
    return false;
}

static struct table table_at(const uint8_t *at)
{
    return (struct table){.flags = u16_at(at + 4),
                          .depth = u16_at(at + 6),
                          .branches = u64_at(at + 8),
                          .leaves = u64_at(at + 16),
                          .overflows = u64_at(at + 24),
                          .entries = u64_at(at + 32),
                          .root = u64_at(at + 40)};
}

static bool walk_table(struct walk *w, struct table t);

static bool meet(struct walk *w, uint64_t number)
{
    uint8_t bit = (uint8_t)(1u << number % 8);
    if (number < 2 || number >= w->pages)
        return bad(w, number, "number");
    if (w->met[number / 8] & bit)
        return bad(w, number, "used twice");
    w->met[number / 8] |= bit;
    return true;
}

/* Where the page begins, NULL: it is not one of these. */
static const uint8_t *page_at(struct walk *w, uint64_t number, uint16_t flags)
{
    if (!meet(w, number))
        return NULL;
    const uint8_t *page = w->file + number * w->page_bytes;
    if (u64_at(page) == number && u16_at(page + 10) == flags)
        return page;
    bad(w, number, "head");
    return NULL;
}

static bool check_free_list(struct walk *w, uint64_t number, const uint8_t *value, size_t size)
{
    uint64_t count = size >= 8 ? u64_at(value) : 0, before = NO_PAGE;
    if (size < 8 || count > size / 8 - 1)
        return bad(w, number, "free list");
    for (uint64_t i = 1; i <= count; i++) {
        uint64_t page = u64_at(value + 8 * i);
        if (page >= before)
            return bad(w, number, "free list");
        if (!meet(w, page))
            return false;
        before = page;
    }
    return true;
}

/* Which tables there are is known; LMDB would make a new one for a name that it does not find.
 * Files of earlier versions have no rows. */
static bool check_name(struct walk *w, uint64_t number, const uint8_t *node, struct table *table)
{
    static const char *const names[] = {"log_0", "log_1", "meta",
                                        "rooms", "rows",  "slots"}; /* in order */
    const uint8_t *key = node + NODE_HEAD;
    size_t size = u16_at(node + 6);
    while (w->names < sizeof names / sizeof *names) {
        const char *name = names[w->names++];
        if (!slice_is(slice_of(key, size), name))
            continue;
        table->rows = strcmp(name, "rows") == 0;
        bool integers = !table->rows && strcmp(name, "meta") != 0;
        return table->flags == (integers ? INTEGER_KEYS : 0) || bad(w, number, "table");
    }
    return bad(w, number, "a table that this release does not know");
}

static int compare_keys(struct slice a, struct slice b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common > 0 ? memcmp(a.data, b.data, common) : 0;
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

static bool check_bytes_key(struct walk *w, struct table *t, uint64_t number, const uint8_t *node,
                            bool leaf)
{
    struct slice key = slice_of(node + NODE_HEAD, u16_at(node + 6));
    int order = t->before.data != NULL ? compare_keys(key, t->before) : 1;
    t->before = key;
    bool ascends = order > 0 || (order == 0 && !t->before_is_leaf);
    t->before_is_leaf = leaf;
    return ascends || bad(w, number, "key");
}

/* Keys ascend through the tree; the one of a branch is where the pages below it begin. */
static bool check_key(struct walk *w, struct table *t, uint64_t number, const uint8_t *node,
                      bool leaf)
{
    if (!(t->flags & INTEGER_KEYS))
        return check_bytes_key(w, t, number, node, leaf);
    if (u16_at(node + 6) != 8 || u64_at(node + NODE_HEAD) < t->least_key)
        return bad(w, number, "key");
    t->least_key = u64_at(node + NODE_HEAD) + leaf;
    if (t->free)
        w->newest_free = u64_at(node + NODE_HEAD);
    return true;
}

/* The pages of a value that has its own; NULL: damaged. */
static const uint8_t *check_run(struct walk *w, struct table *t, uint64_t run, uint64_t size)
{
    const uint8_t *page = page_at(w, run, OVERFLOW);
    if (page == NULL)
        return NULL;
    uint64_t pages = u32_at(page + 12);
    bool fits = pages <= w->pages - run && PAGE_HEAD + size <= pages * w->page_bytes;
    if (!fits)
        bad(w, run, "length");
    for (uint64_t i = 1; fits && i < pages; i++)
        fits = meet(w, run + i);
    t->overflows -= pages;
    return fits ? page + PAGE_HEAD : NULL;
}

static bool check_value(struct walk *w, struct table *t, uint64_t number, const uint8_t *node)
{
    uint64_t size = u16_at(node) | (uint32_t)u16_at(node + 2) << 16;
    uint16_t flags = u16_at(node + 4);
    const uint8_t *value = node + NODE_HEAD + u16_at(node + 6);
    if (flags == BIG)
        value = check_run(w, t, u64_at(value), size);
    if (value == NULL)
        return false;
    if (t->names) {
        if (flags != TABLE || size != TABLE_BYTES)
            return bad(w, number, "table");
        struct table table = table_at(value);
        return check_name(w, number, node, &table) && walk_table(w, table);
    }
    if (flags != 0 && flags != BIG)
        return bad(w, number, "node");
    if (t->rows &&
        !row_key_is_sound(slice_of(node + NODE_HEAD, u16_at(node + 6)), slice_of(value, size)))
        return bad(w, number, "key of a row");
    return !t->free || check_free_list(w, number, value, size);
}

/* Bytes of the node in its page, 0: it does not fit. */
static uint64_t node_bytes(const struct walk *w, const uint8_t *page, uint64_t at, bool leaf)
{
    if (at % 2 != 0 || at < u16_at(page + 14) || at + NODE_HEAD > w->page_bytes)
        return 0;
    const uint8_t *node = page + at;
    uint64_t size = NODE_HEAD + (uint64_t)u16_at(node + 6);
    if (leaf && u16_at(node + 4) & BIG)
        size += 8;
    else if (leaf)
        size += u16_at(node) | (uint32_t)u16_at(node + 2) << 16;
    size += size % 2;
    return at + size <= w->page_bytes ? size : 0;
}

/* The pages below `number`, whose leaves lie `depth` levels down (1: this one). */
static bool walk_page(struct walk *w, struct table *t, uint64_t number, unsigned depth,
                      uint64_t *entries)
{
    bool leaf = depth == 1;
    const uint8_t *page = page_at(w, number, leaf ? LEAF : BRANCH);
    if (page == NULL)
        return false;
    t->leaves -= leaf;
    t->branches -= !leaf;
    uint64_t lower = u16_at(page + 12), upper = u16_at(page + 14), used = 0;
    if (lower % 2 != 0 || lower < PAGE_HEAD || lower > upper || upper > w->page_bytes)
        return bad(w, number, "bounds");
    uint64_t n = (lower - PAGE_HEAD) / 2;
    if (n < (leaf ? 1 : 2))
        return bad(w, number, "count");
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = u16_at(page + PAGE_HEAD + 2 * i), size = node_bytes(w, page, at, leaf);
        const uint8_t *node = page + at;
        used += size;
        if (size == 0)
            return bad(w, number, "node");
        uint64_t below =
            u16_at(node) | (uint64_t)u16_at(node + 2) << 16 | (uint64_t)u16_at(node + 4) << 32;
        if ((leaf || i > 0) && !check_key(w, t, number, node, leaf))
            return false;
        if (leaf ? !check_value(w, t, number, node) : !walk_page(w, t, below, depth - 1, entries))
            return false;
    }
    *entries += leaf ? n : 0;
    /* Nodes lie without gaps, so an offset that leads to a wrong place shows. */
    return used == w->page_bytes - upper || bad(w, number, "nodes");
}

static bool walk_table(struct walk *w, struct table t)
{
    uint64_t entries = 0;
    if (t.root == NO_PAGE)
        return (t.entries == 0 && t.depth == 0) || bad(w, t.root, "table");
    if (t.depth == 0 || t.depth > DEPTH_MAX)
        return bad(w, t.root, "depth");
    if (!walk_page(w, &t, t.root, t.depth, &entries))
        return false;
    if (entries != t.entries)
        return bad(w, t.root, "count of entries");
    /* What was met has been subtracted. */
    return (t.branches | t.leaves | t.overflows) == 0 || bad(w, t.root, "count of pages");
}

static const uint8_t *meta_at(const uint8_t *file, uint64_t at)
{
    const uint8_t *meta = file + at + PAGE_HEAD;
    bool sound =
        u16_at(file + at + 10) & META && u32_at(meta) == MAGIC && u32_at(meta + 4) == VERSION;
    return sound ? meta : NULL;
}

enum { TABLES_AT = 24, LAST_PAGE_AT = 120, TXN_AT = 128, META_END = 152 };

static struct table free_list_at(const uint8_t *meta)
{
    struct table t = table_at(meta + TABLES_AT);
    t.free = true;
    return t;
}

static struct table names_at(const uint8_t *meta)
{
    struct table t = table_at(meta + TABLES_AT + TABLE_BYTES);
    t.names = true;
    return t;
}

static void walk_begin(struct walk *w, uint64_t pages)
{
    mem_free(w->met);
    w->pages = pages;
    w->met = mem_zalloc((size_t)pages / 8 + 1);
    w->newest_free = 0;
}

/* The first commit has nothing to free. */
static bool is_numbered(const struct walk *w, uint64_t txn)
{
    return w->newest_free == txn || (w->newest_free == 0 && txn <= 1);
}

/* Whether the other meta page tells of an older commit, as its number says. A tree that is not
 * sound does not count; the next commit writes over that page. */
static bool check_other(struct walk *younger, uint64_t txn, const uint8_t *meta, uint64_t size)
{
    struct walk w = {.file = younger->file, .page_bytes = younger->page_bytes};
    uint64_t last = u64_at(meta + LAST_PAGE_AT);
    struct table unused = free_list_at(meta);
    bool sound = last < size / w.page_bytes && unused.flags == INTEGER_KEYS;
    if (sound) {
        walk_begin(&w, last + 1);
        sound = walk_table(&w, unused) && w.newest_free > txn && walk_table(&w, names_at(meta));
    }
    mem_free(w.met);
    if (sound)
        younger->number = w.newest_free;
    return !sound;
}

int store_mend_meta(int fd, uint64_t page_bytes)
{
    enum { TXN_IN_PAGE = PAGE_HEAD + TXN_AT, BYTES = META_END - PAGE_HEAD };
    uint8_t pages[2][META_END];
    for (unsigned i = 0; i < 2; i++)
        if (pread(fd, pages[i], META_END, (off_t)(i * page_bytes)) != META_END)
            return EIO;
    unsigned younger = u64_at(pages[1] + TXN_IN_PAGE) > u64_at(pages[0] + TXN_IN_PAGE);
    uint64_t txn = u64_at(pages[younger] + TXN_IN_PAGE) - 1;
    uint8_t *mended = pages[younger] + PAGE_HEAD;
    memcpy(mended + TXN_AT, &txn, sizeof txn);
    off_t at = (off_t)(!younger * page_bytes + PAGE_HEAD);
    if (pwrite(fd, mended, BYTES, at) != BYTES)
        return ENOSPC; /* as LMDB met it: the page is as it was */
    return fdatasync(fd) == 0 ? 0 : errno;
}

/* Both meta pages are there from the first write on; the younger one counts. */
static bool walk_file(struct walk *w, uint64_t size)
{
    const uint8_t *first = size >= META_END ? meta_at(w->file, 0) : NULL;
    w->page_bytes = first != NULL ? u32_at(first + TABLES_AT) : 0;
    if (w->page_bytes < 512 || w->page_bytes > 65536 || size < 2 * w->page_bytes)
        return bad(w, 0, "meta");
    const uint8_t *second = meta_at(w->file, w->page_bytes);
    if (second == NULL || u32_at(second + TABLES_AT) != w->page_bytes)
        return bad(w, 1, "meta");
    /* Commits take turns: even ones write page 0, odd ones page 1. */
    uint64_t even = u64_at(first + TXN_AT), odd = u64_at(second + TXN_AT);
    if (odd != even + 1 && even != odd + 1 && (even | odd) != 0)
        return bad(w, even > odd ? 0 : 1, "number of the commit");
    const uint8_t *meta = even < odd ? second : first;
    uint64_t last = u64_at(meta + LAST_PAGE_AT);
    if (last >= size / w->page_bytes)
        return bad(w, meta == second, "last page, which lies beyond the end of the file");
    struct table unused = free_list_at(meta);
    struct table names = names_at(meta);
    if (unused.flags != INTEGER_KEYS || names.flags != 0)
        return bad(w, meta == second, "table");
    walk_begin(w, last + 1);
    if (!walk_table(w, unused))
        return false;
    if (!is_numbered(w, u64_at(meta + TXN_AT)))
        return bad(w, meta == second, "number of the commit");
    uint64_t txn = u64_at(meta + TXN_AT);
    if (!check_other(w, txn, meta == second ? first : second, size))
        return bad(w, meta != second, "number of the commit");
    return walk_table(w, names);
}

static int check_mapped(struct walk *walk, const char *path, uint64_t size, struct log *log,
                        struct strbuf *why)
{
    bool sound = walk_file(walk, size);
    if (!sound && walk->number != 0) {
        off_t at = (off_t)(walk->bad * walk->page_bytes + PAGE_HEAD + TXN_AT);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        bool written = fd >= 0 && pwrite(fd, &walk->number, 8, at) == 8 && fdatasync(fd) == 0;
        if (fd >= 0)
            close(fd);
        if (written) {
            LOG(log, LOG_WARN, "store.mended", LOG_STR("file", path), LOG_U64("page", walk->bad),
                LOG_U64("commit", walk->number));
            *walk = (struct walk){.file = walk->file, .met = walk->met};
            sound = walk_file(walk, size);
        }
    }
    if (sound)
        return ERR_OK;
    strbuf_printf(why, "%s: page %llu is damaged (%s): restore a backup", path,
                  (unsigned long long)walk->bad, walk->what);
    return ERR_CORRUPT;
}

int store_check_file(const char *dir, struct log *log, struct strbuf *why)
{
    struct strbuf path = {0};
    struct stat st;
    struct walk walk = {0};
    strbuf_printf(&path, "%s/data.mdb", dir);
    int fd = open(strbuf_cstr(&path), O_RDONLY | O_CLOEXEC), code = ERR_OK;
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size == 0)
        goto done; /* new; what else is wrong LMDB will say */
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        strbuf_printf(why, "%s: %s", strbuf_cstr(&path), strerror(errno));
        code = ERR_IO;
        goto done;
    }
    walk.file = map;
    code = check_mapped(&walk, strbuf_cstr(&path), (uint64_t)st.st_size, log, why);
    mem_free(walk.met);
    munmap(map, (size_t)st.st_size);
done:
    if (fd >= 0)
        close(fd);
    strbuf_free(&path);
    return code;
}
