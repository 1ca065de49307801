/* SHELL. The store of rows.h. The row of a record: TABLE_DONE, its class for a room, its lsn for a
 * name. The row of a room: TABLE_STATE, with the lsn of the room's newest record. Their bytes
 * follow from the lsn, in sizes that lie in a page or in pages of their own. */
#include "rows.h"

#include <endian.h>

#include "common/hash.h"
#include "common/mem.h"
#include "shard/vec.h"

#define VALUE_MAX (200 * 1024)

struct rows_store {
    struct store base;
    struct store *inner;
    struct vec gone; /* uint64_t: lsns of the running trim */
};

static struct rows_store *rows_of(struct store *s)
{
    return (struct rows_store *)(void *)s;
}

static struct store *inner_of(struct store *s)
{
    return rows_of(s)->inner;
}

/* ---- what rows hold ---- */

static size_t value_size(uint64_t lsn, bool of_room)
{
    uint64_t dice = lsn * UINT64_C(0x9e3779b97f4a7c15) >> 20;
    if (!of_room)
        return dice % 40 ? dice % 200 : 6000;
    if (dice % 16)
        return dice % 3000;
    return dice % 256 ? 30000 : VALUE_MAX;
}

/* In a buffer that the next call overwrites. */
static struct slice value_of(uint64_t lsn, bool of_room)
{
    static uint64_t words[1 + VALUE_MAX / 8];
    size_t size = 8 + value_size(lsn, of_room) / 8 * 8;
    for (size_t i = 0; i < size / 8; i++)
        words[i] = i == 0 ? lsn : lsn * 31 + i;
    return slice_of(words, size);
}

static struct slice name_of(uint64_t lsn)
{
    static uint64_t big;
    big = htobe64(lsn);
    return slice_of(&big, sizeof big);
}

static uint64_t lsn_of(struct slice name)
{
    uint64_t big = 0;
    memcpy(&big, name.data, name.size < sizeof big ? name.size : sizeof big);
    return be64toh(big);
}

/* ---- the store ---- */

static int rows_scan(struct store *s, const struct store_visitor *visitor)
{
    struct store_visitor without_rows = *visitor;
    without_rows.row = without_rows.damaged_row = NULL;
    return inner_of(s)->vtable->scan(inner_of(s), &without_rows);
}

static int rows_begin(struct store *s)
{
    return inner_of(s)->vtable->begin(inner_of(s));
}

static int rows_append(struct store *s, unsigned class_no, const struct store_record *record)
{
    struct store *inner = inner_of(s);
    TRY(inner->vtable->append(inner, class_no, record));
    struct store_row row = {TABLE_DONE, 1 + class_no, name_of(record->lsn),
                            value_of(record->lsn, false)};
    TRY(inner->vtable->put_row(inner, &row));
    row = (struct store_row){
        .table = TABLE_STATE, .room_id = record->room_id, .value = value_of(record->lsn, true)};
    return inner->vtable->put_row(inner, &row);
}

static int rows_put_room(struct store *s, const struct store_room *room)
{
    return inner_of(s)->vtable->put_room(inner_of(s), room);
}

static int rows_delete_room(struct store *s, uint64_t room_id)
{
    struct store *inner = inner_of(s);
    TRY(inner->vtable->delete_row(inner, TABLE_STATE, room_id, slice_of(NULL, 0)));
    return inner->vtable->delete_room(inner, room_id);
}

static int rows_put_slots(struct store *s, const struct store_slot *slots, size_t count)
{
    return inner_of(s)->vtable->put_slots(inner_of(s), slots, count);
}

static int row_goes(struct store *inner, unsigned class_no, uint64_t lsn)
{
    return inner->vtable->delete_row(inner, TABLE_DONE, 1 + class_no, name_of(lsn));
}

struct trimming {
    struct vec *lsns;
    void (*gone)(void *ctx, const struct store_record *record);
    void *ctx;
};

static void on_gone(void *ctx, const struct store_record *record)
{
    const struct trimming *t = ctx;
    *VEC_PUSH(t->lsns, uint64_t) = record->lsn;
    t->gone(t->ctx, record);
}

static int rows_trim(struct store *s, unsigned class_no, int64_t before, size_t max,
                     void (*gone)(void *ctx, const struct store_record *record), void *ctx,
                     size_t *trimmed)
{
    struct rows_store *r = rows_of(s);
    struct trimming t = {&r->gone, gone, ctx};
    r->gone.count = 0;
    TRY(r->inner->vtable->trim(r->inner, class_no, before, max, on_gone, &t, trimmed));
    for (size_t i = 0; i < r->gone.count; i++)
        TRY(row_goes(r->inner, class_no, VEC_AT(&r->gone, uint64_t)[i]));
    return ERR_OK;
}

static int rows_remove(struct store *s, unsigned class_no, uint64_t lsn)
{
    struct store *inner = inner_of(s);
    TRY(inner->vtable->remove(inner, class_no, lsn));
    return row_goes(inner, class_no, lsn);
}

static int rows_commit(struct store *s)
{
    return inner_of(s)->vtable->commit(inner_of(s));
}

static void rows_abort(struct store *s)
{
    inner_of(s)->vtable->abort(inner_of(s));
}

static int rows_read_begin(struct store *s)
{
    return inner_of(s)->vtable->read_begin(inner_of(s));
}

static int rows_read(struct store *s, unsigned class_no, uint64_t lsn, struct store_record *out)
{
    return inner_of(s)->vtable->read(inner_of(s), class_no, lsn, out);
}

static void rows_read_end(struct store *s)
{
    inner_of(s)->vtable->read_end(inner_of(s));
}

static int rows_put_meta(struct store *s, const char *name, uint64_t value)
{
    return inner_of(s)->vtable->put_meta(inner_of(s), name, value);
}

static int rows_get_meta(struct store *s, const char *name, uint64_t *value)
{
    return inner_of(s)->vtable->get_meta(inner_of(s), name, value);
}

static bool rows_has_space(struct store *s)
{
    return inner_of(s)->vtable->has_space(inner_of(s));
}

static void rows_stats(struct store *s, struct store_stats *out)
{
    inner_of(s)->vtable->stats(inner_of(s), out);
}

/* ---- what a room's handler would keep: no type here has one ---- */

static int no_put_row(struct store *s, const struct store_row *row)
{
    (void)s, (void)row;
    STOA_ASSERT(false);
}

static int no_delete_row(struct store *s, enum store_table table, uint64_t room_id,
                         struct slice name)
{
    (void)s, (void)table, (void)room_id, (void)name;
    return ERR_OK;
}

static int no_read_row(struct store *s, enum store_table table, uint64_t room_id, struct slice name,
                       struct slice *value)
{
    (void)s, (void)table, (void)room_id, (void)name, (void)value;
    return ERR_NOT_FOUND;
}

static void no_read_rows(struct store *s, enum store_table table, uint64_t room_id,
                         void (*visit)(void *ctx, int code, const struct store_row *row), void *ctx)
{
    (void)s, (void)table, (void)room_id, (void)visit, (void)ctx;
}

static const struct store_vtable vtable = {
    .scan = rows_scan,
    .begin = rows_begin,
    .append = rows_append,
    .put_room = rows_put_room,
    .delete_room = rows_delete_room,
    .put_slots = rows_put_slots,
    .trim = rows_trim,
    .remove = rows_remove,
    .put_row = no_put_row,
    .delete_row = no_delete_row,
    .commit = rows_commit,
    .abort = rows_abort,
    .read_begin = rows_read_begin,
    .read = rows_read,
    .read_row = no_read_row,
    .read_rows = no_read_rows,
    .read_end = rows_read_end,
    .put_meta = rows_put_meta,
    .get_meta = rows_get_meta,
    .has_space = rows_has_space,
    .stats = rows_stats,
};

struct store *rows_store_create(struct store *inner)
{
    struct rows_store *r = mem_zalloc(sizeof *r);
    r->base.vtable = &vtable;
    r->inner = inner;
    return &r->base;
}

void rows_store_destroy(struct store **s)
{
    if (*s == NULL)
        return;
    vec_free(&rows_of(*s)->gone);
    mem_free(*s);
    *s = NULL;
}

/* ---- rows against records ---- */

struct live {
    uint64_t lsn, room_id;
    unsigned class_no;
    bool has_row;
};
struct room_row {
    uint64_t room_id, lsn; /* 0: damaged */
};
struct look {
    struct vec records, rooms; /* struct live, by class and lsn; struct room_row, by room_id */
    bool damaged;
    enum rows_verdict verdict;
    struct strbuf *why;
};

static void fault(struct look *l, enum rows_verdict v, const char *what, uint64_t a, uint64_t b)
{
    if (l->verdict == ROWS_GOOD)
        strbuf_printf(l->why, "rows: %s (%llu, %llu)", what, (unsigned long long)a,
                      (unsigned long long)b);
    l->verdict = l->verdict == ROWS_GOOD ? v : l->verdict;
}

static void look_slot(void *ctx, const struct store_slot *slot)
{
    (void)ctx, (void)slot;
}

static void look_room(void *ctx, const struct store_room *room)
{
    (void)ctx, (void)room;
}

static void look_record(void *ctx, unsigned class_no, const struct store_record *record)
{
    struct look *l = ctx;
    *VEC_PUSH(&l->records, struct live) = (struct live){record->lsn, record->room_id, class_no, 0};
}

static void look_damaged(void *ctx, unsigned class_no, uint64_t lsn)
{
    (void)class_no;
    if (!((struct look *)ctx)->damaged)
        fault(ctx, ROWS_WRONG, "a damaged record in a sound file", lsn, 0);
}

static struct live *find_record(const struct look *l, unsigned class_no, uint64_t lsn)
{
    size_t low = 0, high = l->records.count;
    struct live *at = VEC_AT(&l->records, struct live);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct live *r = &at[middle];
        bool before = r->class_no != class_no ? r->class_no < class_no : r->lsn < lsn;
        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < l->records.count && at[low].class_no == class_no && at[low].lsn == lsn;
    return found ? &at[low] : NULL;
}

/* A row was met, sound or not. */
static void met_row(struct look *l, const struct store_row *row, bool sound)
{
    if (row->table == TABLE_STATE) {
        uint64_t lsn = 0;
        if (sound)
            memcpy(&lsn, row->value.data, sizeof lsn);
        *VEC_PUSH(&l->rooms, struct room_row) = (struct room_row){row->room_id, lsn};
        return;
    }
    struct live *record = find_record(l, (unsigned)row->room_id - 1, lsn_of(row->name));
    if (record)
        record->has_row = true;
    else if (!l->damaged)
        fault(l, ROWS_WRONG, "a row without its record", row->room_id, lsn_of(row->name));
}

static void look_row(void *ctx, const struct store_row *row)
{
    struct look *l = ctx;
    bool of_room = row->table == TABLE_STATE;
    uint64_t lsn = of_room ? 0 : lsn_of(row->name);
    bool shaped =
        of_room ? row->name.size == 0 : row->table == TABLE_DONE && row->name.size == sizeof lsn;
    if (of_room && row->value.size >= sizeof lsn)
        memcpy(&lsn, row->value.data, sizeof lsn);
    if (!shaped || !slice_equal(row->value, value_of(lsn, of_room)))
        fault(l, ROWS_WRONG, "a row that nobody wrote", row->room_id, lsn);
    else
        met_row(l, row, true);
}

static void look_damaged_row(void *ctx, const struct store_row *row)
{
    struct look *l = ctx;
    if (!l->damaged)
        fault(l, ROWS_WRONG, "a damaged row in a sound file", row->room_id, row->table);
    met_row(l, row, false);
}

static const struct room_row *find_room(const struct look *l, uint64_t room_id)
{
    size_t low = 0, high = l->rooms.count;
    const struct room_row *at = VEC_AT(&l->rooms, struct room_row);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (at[middle].room_id < room_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < l->rooms.count && at[low].room_id == room_id ? &at[low] : NULL;
}

enum rows_verdict rows_check(struct store *s, bool damaged, struct strbuf *why)
{
    struct look l = {.damaged = damaged, .why = why};
    const struct store_visitor visitor = {.ctx = &l,
                                          .slot = look_slot,
                                          .room = look_room,
                                          .record = look_record,
                                          .damaged = look_damaged,
                                          .row = look_row,
                                          .damaged_row = look_damaged_row};
    struct store *inner = inner_of(s);
    if (inner->vtable->scan(inner, &visitor) != ERR_OK)
        fault(&l, ROWS_WRONG, "the scan ends early", 0, 0);
    for (size_t i = 0; i < l.records.count; i++) {
        const struct live *record = &VEC_AT(&l.records, struct live)[i];
        const struct room_row *room = find_room(&l, record->room_id);
        if (!record->has_row)
            fault(&l, ROWS_LOST, "a record without its row", record->class_no, record->lsn);
        else if (!room)
            fault(&l, ROWS_LOST, "a room without its row", record->room_id, record->lsn);
        else if (room->lsn != 0 && room->lsn < record->lsn)
            fault(&l, ROWS_LOST, "an old row of a room", room->lsn, record->lsn);
    }
    vec_free(&l.records);
    vec_free(&l.rooms);
    return l.verdict;
}
