/* CORE. A disk: store_mem with the faults of a real one around it. What a transaction did is
 * durable at its commit, or not at all; a process may die right before, right after, or of a failed
 * write or read at any call (EIO: the store ends the process). A full disk refuses calls for a
 * while, each with odds, and may or may not admit it beforehand. */
#include "sim.h"

static struct disk *disk_of(struct store *s)
{
    return (struct disk *)(void *)s;
}

/* Whether this call fails; the core hears of no space, and if it was an I/O error it does not live
 * to act on it. */
static bool fails(struct disk *d)
{
    struct world *w = d->process->world;
    if (d->process->doomed)
        return true;
    if (d->io_fuse > 0 && --d->io_fuse == 0) {
        TRACE(w, "%s: I/O error", d->process->name);
        d->process->doomed = true;
        return true;
    }
    return w->now_ns < d->full_until_ns && chance(w, d->full_odds);
}

static int outcome(struct disk *d, int code)
{
    bool failed = code == ERR_OK && fails(d);
    d->broken |= failed;
    return failed ? ERR_NO_SPACE : code;
}

static int disk_scan(struct store *s, const struct store_visitor *visitor)
{
    struct disk *d = disk_of(s);
    return d->inner->vtable->scan(d->inner, visitor);
}

static int disk_begin(struct store *s)
{
    struct disk *d = disk_of(s);
    if (fails(d))
        return ERR_NO_SPACE;
    d->open = true;
    d->broken = d->granting = false;
    return d->inner->vtable->begin(d->inner);
}

static int disk_append(struct store *s, unsigned class_no, const struct store_record *record)
{
    struct disk *d = disk_of(s);
    truth_append(d, record);
    return outcome(d, d->inner->vtable->append(d->inner, class_no, record));
}

static int disk_put_room(struct store *s, const struct store_room *room)
{
    struct disk *d = disk_of(s);
    truth_room(d, room);
    return outcome(d, d->inner->vtable->put_room(d->inner, room));
}

static int disk_delete_room(struct store *s, uint64_t room_id)
{
    struct disk *d = disk_of(s);
    truth_expired(d, room_id);
    return outcome(d, d->inner->vtable->delete_room(d->inner, room_id));
}

static int disk_put_row(struct store *s, const struct store_row *row)
{
    struct disk *d = disk_of(s);
    return outcome(d, d->inner->vtable->put_row(d->inner, row));
}

static int disk_delete_row(struct store *s, enum store_table table, uint64_t room_id,
                           struct slice name)
{
    struct disk *d = disk_of(s);
    return outcome(d, d->inner->vtable->delete_row(d->inner, table, room_id, name));
}

static int disk_put_slots(struct store *s, const struct store_slot *slots, size_t count)
{
    struct disk *d = disk_of(s);
    d->granting = true;
    return outcome(d, d->inner->vtable->put_slots(d->inner, slots, count));
}

struct trimming {
    struct disk *disk;
    void (*gone)(void *ctx, const struct store_record *record);
    void *ctx;
};

static void on_gone(void *ctx, const struct store_record *record)
{
    const struct trimming *t = ctx;
    truth_removed(t->disk, record->lsn);
    t->gone(t->ctx, record);
}

static int disk_trim(struct store *s, unsigned class_no, int64_t before, size_t max,
                     void (*gone)(void *ctx, const struct store_record *record), void *ctx,
                     size_t *trimmed)
{
    struct disk *d = disk_of(s);
    struct trimming t = {.disk = d, .gone = gone, .ctx = ctx};
    return outcome(d,
                   d->inner->vtable->trim(d->inner, class_no, before, max, on_gone, &t, trimmed));
}

static int disk_remove(struct store *s, unsigned class_no, uint64_t lsn)
{
    struct disk *d = disk_of(s);
    truth_removed(d, lsn);
    return outcome(d, d->inner->vtable->remove(d->inner, class_no, lsn));
}

static void disk_abort(struct store *s)
{
    struct disk *d = disk_of(s);
    d->open = false;
    truth_abort(d);
    d->inner->vtable->abort(d->inner);
}

static int disk_commit(struct store *s)
{
    struct disk *d = disk_of(s);
    struct world *w = d->process->world;
    if (d->broken)
        world_fail(w, "%s commits a transaction of which a call has failed", d->process->name);
    bool ends = !d->process->doomed && d->commit_fuse > 0 && --d->commit_fuse == 0;
    if ((ends && d->commit_end == COMMIT_LOSES_AND_DIES) || fails(d)) {
        d->process->doomed |= ends;
        w->counters->lost_commits++;
        disk_abort(s);
        return ERR_NO_SPACE;
    }
    d->open = false;
    int code = d->inner->vtable->commit(d->inner);
    STOA_ASSERT(code == ERR_OK);
    d->fresh &= !d->granting;
    truth_commit(d);
    w->counters->commits++;
    d->process->doomed |= ends;
    return ERR_OK;
}

static int disk_read_begin(struct store *s)
{
    struct disk *d = disk_of(s);
    return d->inner->vtable->read_begin(d->inner);
}

static int disk_read(struct store *s, unsigned class_no, uint64_t lsn, struct store_record *out)
{
    struct disk *d = disk_of(s);
    if (d->process->doomed)
        return ERR_NOT_FOUND;
    return d->inner->vtable->read(d->inner, class_no, lsn, out);
}

static int disk_read_row(struct store *s, enum store_table table, uint64_t room_id,
                         struct slice name, struct slice *value)
{
    struct disk *d = disk_of(s);
    if (d->process->doomed)
        return ERR_NOT_FOUND;
    return d->inner->vtable->read_row(d->inner, table, room_id, name, value);
}

static void disk_read_rows(struct store *s, enum store_table table, uint64_t room_id,
                           void (*visit)(void *ctx, int code, const struct store_row *row),
                           void *ctx)
{
    struct disk *d = disk_of(s);
    if (!d->process->doomed)
        d->inner->vtable->read_rows(d->inner, table, room_id, visit, ctx);
}

static void disk_read_end(struct store *s)
{
    struct disk *d = disk_of(s);
    d->inner->vtable->read_end(d->inner);
}

static int disk_put_meta(struct store *s, const char *name, uint64_t value)
{
    struct disk *d = disk_of(s);
    return outcome(d, d->inner->vtable->put_meta(d->inner, name, value));
}

static int disk_get_meta(struct store *s, const char *name, uint64_t *value)
{
    struct disk *d = disk_of(s);
    return d->inner->vtable->get_meta(d->inner, name, value);
}

static bool disk_has_space(struct store *s)
{
    const struct disk *d = disk_of(s);
    return !d->full_seen || d->process->world->now_ns >= d->full_until_ns;
}

static void disk_stats(struct store *s, struct store_stats *out)
{
    struct disk *d = disk_of(s);
    d->inner->vtable->stats(d->inner, out);
}

static const struct store_vtable vtable = {.scan = disk_scan,
                                           .begin = disk_begin,
                                           .append = disk_append,
                                           .put_room = disk_put_room,
                                           .delete_room = disk_delete_room,
                                           .put_slots = disk_put_slots,
                                           .put_row = disk_put_row,
                                           .delete_row = disk_delete_row,
                                           .trim = disk_trim,
                                           .remove = disk_remove,
                                           .commit = disk_commit,
                                           .abort = disk_abort,
                                           .read_begin = disk_read_begin,
                                           .read = disk_read,
                                           .read_row = disk_read_row,
                                           .read_rows = disk_read_rows,
                                           .read_end = disk_read_end,
                                           .put_meta = disk_put_meta,
                                           .get_meta = disk_get_meta,
                                           .has_space = disk_has_space,
                                           .stats = disk_stats};

void disk_create(struct disk *d, struct process *p)
{
    *d = (struct disk){
        .base = {.vtable = &vtable}, .inner = store_mem_create(), .process = p, .fresh = true};
}

/* ---- copies ---- */

static void copy_slot(void *ctx, const struct store_slot *slot)
{
    struct store *to = ctx;
    STOA_ASSERT(to->vtable->put_slots(to, slot, 1) == ERR_OK);
}

static void copy_room(void *ctx, const struct store_room *room)
{
    struct store *to = ctx;
    STOA_ASSERT(to->vtable->put_room(to, room) == ERR_OK);
}

static void copy_record(void *ctx, unsigned class_no, const struct store_record *record)
{
    struct store *to = ctx;
    STOA_ASSERT(to->vtable->append(to, class_no, record) == ERR_OK);
}

static void copy_damaged(void *ctx, unsigned class_no, uint64_t lsn)
{
    (void)ctx, (void)class_no, (void)lsn;
    STOA_ASSERT(false);
}

static void copy_row(void *ctx, const struct store_row *row)
{
    struct store *to = ctx;
    STOA_ASSERT(to->vtable->put_row(to, row) == ERR_OK);
}

static void copy_damaged_row(void *ctx, const struct store_row *row)
{
    (void)ctx, (void)row;
    STOA_ASSERT(false);
}

static struct store *store_copy(struct store *from)
{
    static const char *const metas[] = {"granted", "trim_ts.0", "trim_ts.1", "next_lsn"};
    struct store *to = store_mem_create();
    const struct store_visitor visitor = {.ctx = to,
                                          .slot = copy_slot,
                                          .room = copy_room,
                                          .record = copy_record,
                                          .damaged = copy_damaged,
                                          .row = copy_row,
                                          .damaged_row = copy_damaged_row};
    STOA_ASSERT(to->vtable->begin(to) == ERR_OK && from->vtable->scan(from, &visitor) == ERR_OK);
    for (size_t i = 0; i < sizeof metas / sizeof *metas; i++) {
        uint64_t value;
        if (from->vtable->get_meta(from, metas[i], &value) == ERR_OK)
            STOA_ASSERT(to->vtable->put_meta(to, metas[i], value) == ERR_OK);
    }
    STOA_ASSERT(to->vtable->commit(to) == ERR_OK);
    return to;
}

static void copy_drop(struct disk *d)
{
    if (d->old)
        store_mem_destroy(&d->old);
}

void disk_keep(struct disk *d)
{
    copy_drop(d);
    d->old = store_copy(d->inner);
    d->old_lsn = d->by_lsn.count;
    truth_kept(d);
}

void disk_put_back(struct disk *d)
{
    STOA_ASSERT(!d->process->up && d->old);
    store_mem_destroy(&d->inner);
    d->inner = d->old;
    d->old = NULL;
    truth_put_back(d);
}

void disk_destroy(struct disk *d)
{
    copy_drop(d);
    struct vec *lists[] = {&d->appended, &d->rooms, &d->removed, &d->expired, &d->by_lsn};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        vec_free(lists[i]);
    if (d->inner)
        store_mem_destroy(&d->inner);
}

void disk_crashed(struct disk *d)
{
    if (d->open)
        truth_abort(d);
    d->open = false;
    store_mem_crash(d->inner);
    d->commit_fuse = d->io_fuse = 0;
}

/* Another disk in its place: the shard starts as a new one, with a node of its own. */
void disk_empty(struct disk *d)
{
    STOA_ASSERT(!d->process->up);
    truth_lost(d);
    copy_drop(d);
    store_mem_destroy(&d->inner);
    d->inner = store_mem_create();
    d->by_lsn.count = 0;
    d->clock_ms = 0;
    d->fresh = true;
    d->process->node_generation++;
}
