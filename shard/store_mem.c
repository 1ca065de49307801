/* CORE. The store in memory (store_mem.h). Records are single allocations in an array per class, in
 * lsn order; removed ones leave holes that are packed now and then.
 *
 * A transaction changes the logs and small tables at once and notes how to take each change back;
 * rows wait until it commits. Reads see the last commit, inside a transaction too. */
#include "shard/store_mem.h"

#include "common/mem.h"
#include "shard/vec.h"

#define META_NAME_MAX 32
#define SLOTS 16384

struct mem_record {
    struct store_record record; /* slices point behind the struct */
    bool damaged;
    uint8_t bytes[];
};

struct mem_log {
    struct vec records; /* struct mem_record *; NULL: removed */
    size_t first;       /* nothing before it */
    size_t live;
};

struct mem_room {
    struct store_room row; /* key points behind the struct */
    uint8_t key[];
};

struct mem_row {
    struct store_row row; /* slices point behind the struct */
    bool damaged;
    bool deletes; /* in a transaction: the row of this name goes */
    uint8_t bytes[];
};

struct mem_meta {
    char name[META_NAME_MAX];
    uint64_t value;
};

enum undo_kind { UNDO_APPEND, UNDO_REMOVE, UNDO_ROOM, UNDO_SLOT, UNDO_META };

struct undo {
    enum undo_kind kind;
    unsigned class_no;
    size_t place;
    void *before;    /* record or room as it was; NULL: absent */
    uint64_t number; /* room id, slot's or meta's value before */
    bool absent;
};

struct store_mem {
    struct store store;
    struct mem_log logs[STORE_CLASSES];
    struct vec rooms; /* struct mem_room *; few enough for a walk in tests */
    struct vec rows;  /* struct mem_row *, sorted by table, room and name */
    struct vec metas; /* struct mem_meta */
    uint64_t slots[SLOTS];
    bool open;
    bool reading;
    struct vec undo;    /* struct undo */
    struct vec garbage; /* void *: freed by commit */
    struct vec pending; /* struct mem_row *: what the transaction does to rows */
    bool filling;       /* after `left` more commits the next one fails, */
    unsigned left;
    bool full; /* and from then on so do appends */
    bool fragmented;
    uint64_t commits;
};

static struct store_mem *mem_of(struct store *s)
{
    return (struct store_mem *)(void *)s;
}

static const struct store_mem *mem_of_const(const struct store *s)
{
    return (const struct store_mem *)(const void *)s;
}

static bool is_full(const struct store_mem *s)
{
    return s->full;
}

static struct undo *note(struct store_mem *s, enum undo_kind kind)
{
    struct undo *u = VEC_PUSH(&s->undo, struct undo);
    *u = (struct undo){.kind = kind};
    return u;
}

/* ---- records ---- */

static struct mem_record **record_slot(const struct mem_log *log, size_t place)
{
    return &VEC_AT(&log->records, struct mem_record *)[place];
}

static struct slice place_bytes(uint8_t **at, struct slice from)
{
    struct slice placed = slice_of(*at, from.size);
    if (from.size > 0)
        memcpy(*at, from.data, from.size);
    *at += from.size;
    return placed;
}

static struct mem_record *record_copy(const struct store_record *from)
{
    size_t size = from->conflate.size + from->filter.size + from->payload.size;
    struct mem_record *r = (struct mem_record *)mem_zalloc(sizeof *r + size);
    r->record = *from;
    uint8_t *at = r->bytes;
    r->record.conflate = place_bytes(&at, from->conflate);
    r->record.filter = place_bytes(&at, from->filter);
    r->record.payload = place_bytes(&at, from->payload);
    return r;
}

static struct mem_record *newest(const struct mem_log *log)
{
    for (size_t i = log->records.count; i-- > log->first;) {
        if (*record_slot(log, i))
            return *record_slot(log, i);
    }
    return NULL;
}

/* Place of the lsn, or records.count. Holes have no lsn, so a hole is passed to the left. */
static size_t find_place(const struct mem_log *log, uint64_t lsn)
{
    size_t low = log->first, high = log->records.count;
    if (low < high && *record_slot(log, low) && (*record_slot(log, low))->record.lsn == lsn)
        return low; /* mostly it is the oldest that goes */
    while (low < high) {
        size_t middle = low + (high - low) / 2, at = middle;
        while (at > low && !*record_slot(log, at))
            at--;
        const struct mem_record *r = *record_slot(log, at);
        if (r && r->record.lsn == lsn)
            return at;
        if (r && r->record.lsn > lsn)
            high = at;
        else
            low = middle + 1;
    }
    return log->records.count;
}

static int mem_append(struct store *base, unsigned class_no, const struct store_record *record)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(s->open && class_no < STORE_CLASSES && record->room_id != 0);
    if (is_full(s) || s->fragmented)
        return ERR_NO_SPACE;
    struct mem_log *log = &s->logs[class_no];
    const struct mem_record *last = newest(log);
    STOA_ASSERT(!last || last->record.lsn < record->lsn);
    *VEC_PUSH(&log->records, struct mem_record *) = record_copy(record);
    log->live++;
    note(s, UNDO_APPEND)->class_no = class_no;
    return ERR_OK;
}

static void take_out(struct store_mem *s, unsigned class_no, size_t place)
{
    struct mem_log *log = &s->logs[class_no];
    struct undo *u = note(s, UNDO_REMOVE);
    u->class_no = class_no;
    u->place = place;
    u->before = *record_slot(log, place);
    *VEC_PUSH(&s->garbage, void *) = u->before;
    *record_slot(log, place) = NULL;
    log->live--;
}

static int mem_remove(struct store *base, unsigned class_no, uint64_t lsn)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(s->open && class_no < STORE_CLASSES);
    size_t place = find_place(&s->logs[class_no], lsn);
    if (place < s->logs[class_no].records.count)
        take_out(s, class_no, place);
    return ERR_OK;
}

/* A damaged record at the oldest end goes with its neighbours but is not shown: nobody knows what
 * it was. */
static int mem_trim(struct store *base, unsigned class_no, int64_t before, size_t max,
                    void (*gone)(void *ctx, const struct store_record *record), void *ctx,
                    size_t *trimmed)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(s->open && class_no < STORE_CLASSES);
    struct mem_log *log = &s->logs[class_no];
    *trimmed = 0;
    for (size_t i = log->first; i < log->records.count && *trimmed < max; i++) {
        const struct mem_record *r = *record_slot(log, i);
        if (!r)
            continue;
        if (r->record.ts > before)
            break;
        if (!r->damaged)
            gone(ctx, &r->record);
        take_out(s, class_no, i);
        (*trimmed)++;
    }
    return ERR_OK;
}

/* ---- rooms, slots, meta ---- */

static size_t room_place(const struct store_mem *s, uint64_t room_id)
{
    size_t i = 0;
    while (i < s->rooms.count && VEC_AT(&s->rooms, struct mem_room *)[i]->row.room_id != room_id)
        i++;
    return i;
}

static void room_replace(struct store_mem *s, uint64_t room_id, struct mem_room *with)
{
    size_t place = room_place(s, room_id);
    struct mem_room **rooms = VEC_AT(&s->rooms, struct mem_room *);
    if (place == s->rooms.count && with)
        *VEC_PUSH(&s->rooms, struct mem_room *) = with;
    else if (with)
        rooms[place] = with;
    else if (place < s->rooms.count)
        rooms[place] = rooms[--s->rooms.count];
}

static void room_change(struct store_mem *s, uint64_t room_id, struct mem_room *with)
{
    size_t place = room_place(s, room_id);
    struct undo *u = note(s, UNDO_ROOM);
    u->number = room_id;
    if (place < s->rooms.count) {
        u->before = VEC_AT(&s->rooms, struct mem_room *)[place];
        *VEC_PUSH(&s->garbage, void *) = u->before;
    }
    room_replace(s, room_id, with);
}

static int mem_put_room(struct store *base, const struct store_room *row)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(s->open && row->room_id != 0 && row->epoch != 0 && row->key.size > 0);
    STOA_ASSERT(row->floor <= row->head);
    struct mem_room *room = (struct mem_room *)mem_zalloc(sizeof *room + row->key.size);
    room->row = *row;
    uint8_t *at = room->key;
    room->row.key = place_bytes(&at, row->key);
    room_change(s, row->room_id, room);
    return ERR_OK;
}

static int mem_delete_room(struct store *base, uint64_t room_id)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(s->open);
    room_change(s, room_id, NULL);
    return ERR_OK;
}

static int mem_put_slots(struct store *base, const struct store_slot *slots, size_t count)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(s->open);
    for (size_t i = 0; i < count; i++) {
        STOA_ASSERT(slots[i].slot < SLOTS);
        struct undo *u = note(s, UNDO_SLOT);
        u->place = slots[i].slot;
        u->number = s->slots[slots[i].slot];
        s->slots[slots[i].slot] = slots[i].epoch;
    }
    return ERR_OK;
}

static struct mem_meta *meta_find(const struct store_mem *s, const char *name)
{
    for (size_t i = 0; i < s->metas.count; i++) {
        struct mem_meta *meta = &VEC_AT(&s->metas, struct mem_meta)[i];
        if (strcmp(meta->name, name) == 0)
            return meta;
    }
    return NULL;
}

static int mem_put_meta(struct store *base, const char *name, uint64_t value)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(s->open && strlen(name) < META_NAME_MAX);
    struct mem_meta *meta = meta_find(s, name);
    struct undo *u = note(s, UNDO_META);
    u->absent = !meta;
    if (!meta) {
        meta = VEC_PUSH(&s->metas, struct mem_meta);
        *meta = (struct mem_meta){0};
        memcpy(meta->name, name, strlen(name));
    }
    u->place = (size_t)(meta - VEC_AT(&s->metas, struct mem_meta));
    u->number = meta->value;
    meta->value = value;
    return ERR_OK;
}

static int mem_get_meta(struct store *base, const char *name, uint64_t *value)
{
    const struct mem_meta *meta = meta_find(mem_of(base), name);
    if (!meta)
        return ERR_NOT_FOUND;
    *value = meta->value;
    return ERR_OK;
}

/* ---- rows ---- */

static struct mem_row **row_at(const struct store_mem *s, size_t place)
{
    return &VEC_AT(&s->rows, struct mem_row *)[place];
}

static int compare_rows(const struct store_row *a, const struct store_row *b)
{
    if (a->table != b->table)
        return a->table < b->table ? -1 : 1;
    if (a->room_id != b->room_id)
        return a->room_id < b->room_id ? -1 : 1;
    size_t common = a->name.size < b->name.size ? a->name.size : b->name.size;
    int order = common > 0 ? memcmp(a->name.data, b->name.data, common) : 0;
    return order != 0 ? order : (a->name.size > b->name.size) - (a->name.size < b->name.size);
}

/* The first place that is not before the row. */
static size_t row_place(const struct store_mem *s, const struct store_row *row)
{
    size_t low = 0, high = s->rows.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_rows(&(*row_at(s, middle))->row, row) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct mem_row *row_find(const struct store_mem *s, const struct store_row *row)
{
    size_t place = row_place(s, row);
    bool found = place < s->rows.count && compare_rows(&(*row_at(s, place))->row, row) == 0;
    return found ? *row_at(s, place) : NULL;
}

/* Takes the change over: it becomes the row of its name, or goes together with that one. */
static void row_apply(struct store_mem *s, struct mem_row *change)
{
    size_t place = row_place(s, &change->row);
    struct mem_row *before = row_find(s, &change->row);
    if (!change->deletes && !before) {
        VEC_PUSH(&s->rows, struct mem_row *);
        memmove(row_at(s, place + 1), row_at(s, place),
                (s->rows.count - 1 - place) * sizeof(struct mem_row *));
    }
    if (!change->deletes) {
        *row_at(s, place) = change;
    } else if (before) {
        s->rows.count--;
        memmove(row_at(s, place), row_at(s, place + 1),
                (s->rows.count - place) * sizeof(struct mem_row *));
    }
    mem_free(before);
    if (change->deletes)
        mem_free(change);
}

static struct mem_row *row_change(struct store_mem *s, const struct store_row *row)
{
    STOA_ASSERT(s->open && row->table < STORE_TABLES && row->room_id != 0);
    STOA_ASSERT(row->name.size <= STORE_ROW_NAME_MAX_BYTES &&
                row->value.size <= STORE_ROW_VALUE_MAX_BYTES);
    struct mem_row *r = (struct mem_row *)mem_zalloc(sizeof *r + row->name.size + row->value.size);
    uint8_t *at = r->bytes;
    r->row = *row;
    r->row.name = place_bytes(&at, row->name);
    r->row.value = place_bytes(&at, row->value);
    *VEC_PUSH(&s->pending, struct mem_row *) = r;
    return r;
}

static int mem_put_row(struct store *base, const struct store_row *row)
{
    struct store_mem *s = mem_of(base);
    if (is_full(s) || s->fragmented)
        return ERR_NO_SPACE;
    (void)row_change(s, row);
    return ERR_OK;
}

static int mem_delete_row(struct store *base, enum store_table table, uint64_t room_id,
                          struct slice name)
{
    const struct store_row row = {.table = table, .room_id = room_id, .name = name};
    row_change(mem_of(base), &row)->deletes = true;
    return ERR_OK;
}

/* As it is shown: a damaged one without its value. */
static int row_seen(const struct mem_row *r, struct store_row *out)
{
    *out = r->row;
    if (!r->damaged)
        return ERR_OK;
    out->value = slice_of(NULL, 0);
    return ERR_CORRUPT;
}

static int mem_read_row(struct store *base, enum store_table table, uint64_t room_id,
                        struct slice name, struct slice *value)
{
    const struct store_mem *s = mem_of(base);
    const struct store_row wanted = {.table = table, .room_id = room_id, .name = name};
    STOA_ASSERT(s->reading);
    const struct mem_row *r = row_find(s, &wanted);
    if (!r)
        return ERR_NOT_FOUND;
    struct store_row row;
    TRY(row_seen(r, &row));
    *value = row.value;
    return ERR_OK;
}

static void mem_read_rows(struct store *base, enum store_table table, uint64_t room_id,
                          void (*visit)(void *ctx, int code, const struct store_row *row),
                          void *ctx)
{
    const struct store_mem *s = mem_of(base);
    const struct store_row first = {.table = table, .room_id = room_id};
    STOA_ASSERT(s->reading);
    for (size_t i = row_place(s, &first); i < s->rows.count; i++) {
        struct store_row row;
        int code = row_seen(*row_at(s, i), &row);
        if (row.table != table || row.room_id != room_id)
            break;
        visit(ctx, code, &row);
    }
}

/* ---- transactions ---- */

static int mem_begin(struct store *base)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(!s->open && !s->reading && s->undo.count == 0);
    s->open = true;
    return ERR_OK;
}

static void undo_append(struct store_mem *s, unsigned class_no)
{
    struct mem_log *log = &s->logs[class_no];
    mem_free(*record_slot(log, log->records.count - 1));
    log->records.count--;
    log->live--;
}

static void undo_one(struct store_mem *s, const struct undo *u)
{
    switch (u->kind) {
    case UNDO_APPEND:
        undo_append(s, u->class_no);
        break;
    case UNDO_REMOVE:
        *record_slot(&s->logs[u->class_no], u->place) = (struct mem_record *)u->before;
        s->logs[u->class_no].live++;
        break;
    case UNDO_ROOM: {
        size_t place = room_place(s, u->number);
        struct mem_room *now =
            place < s->rooms.count ? VEC_AT(&s->rooms, struct mem_room *)[place] : NULL;
        room_replace(s, u->number, (struct mem_room *)u->before);
        mem_free(now);
        break;
    }
    case UNDO_SLOT:
        s->slots[u->place] = u->number;
        break;
    case UNDO_META:
        VEC_AT(&s->metas, struct mem_meta)[u->place].value = u->number;
        if (u->absent)
            s->metas.count--;
        break;
    }
}

static void mem_abort(struct store *base)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(s->open);
    for (size_t i = s->undo.count; i-- > 0;)
        undo_one(s, &VEC_AT(&s->undo, struct undo)[i]);
    for (size_t i = 0; i < s->pending.count; i++)
        mem_free(VEC_AT(&s->pending, struct mem_row *)[i]);
    s->undo.count = s->garbage.count = s->pending.count = 0;
    s->open = false;
}

/* Moves the start over holes; packs when most of the array is behind it. */
static void log_tidy(struct mem_log *log)
{
    while (log->first < log->records.count && !*record_slot(log, log->first))
        log->first++;
    if (log->records.count < 64 || log->live > log->records.count / 4)
        return;
    size_t to = 0;
    for (size_t i = log->first; i < log->records.count; i++) {
        if (*record_slot(log, i))
            *record_slot(log, to++) = *record_slot(log, i);
    }
    log->records.count = to;
    log->first = 0;
}

static int mem_commit(struct store *base)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(s->open);
    bool grows = false;
    for (size_t i = 0; i < s->undo.count; i++)
        grows |= VEC_AT(&s->undo, struct undo)[i].kind == UNDO_APPEND;
    for (size_t i = 0; i < s->pending.count; i++)
        grows |= !VEC_AT(&s->pending, struct mem_row *)[i]->deletes;
    if (s->filling && s->left == 0 && grows) {
        s->full = true;
        mem_abort(base);
        return ERR_NO_SPACE;
    }
    for (size_t i = 0; i < s->garbage.count; i++)
        mem_free(VEC_AT(&s->garbage, void *)[i]);
    for (size_t i = 0; i < s->pending.count; i++)
        row_apply(s, VEC_AT(&s->pending, struct mem_row *)[i]);
    s->undo.count = s->garbage.count = s->pending.count = 0;
    s->open = false;
    s->commits++;
    s->left -= s->left > 0;
    for (unsigned c = 0; c < STORE_CLASSES; c++)
        log_tidy(&s->logs[c]);
    return ERR_OK;
}

/* ---- reading ---- */

static int mem_read_begin(struct store *base)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(!s->reading);
    s->reading = true;
    return ERR_OK;
}

/* The record of the last commit; NULL: there was none. */
static const struct mem_record *committed(const struct store_mem *s, unsigned class_no,
                                          uint64_t lsn)
{
    const struct mem_log *log = &s->logs[class_no];
    size_t place = find_place(log, lsn), appended = 0;
    for (size_t i = 0; i < s->undo.count; i++) {
        const struct undo *u = &VEC_AT(&s->undo, struct undo)[i];
        const struct mem_record *before = (const struct mem_record *)u->before;
        if (u->kind == UNDO_REMOVE && u->class_no == class_no && before->record.lsn == lsn)
            return before;
        appended += u->kind == UNDO_APPEND && u->class_no == class_no;
    }
    return place + appended < log->records.count ? *record_slot(log, place) : NULL;
}

static int mem_read(struct store *base, unsigned class_no, uint64_t lsn, struct store_record *out)
{
    const struct store_mem *s = mem_of(base);
    STOA_ASSERT(s->reading && class_no < STORE_CLASSES);
    const struct mem_record *r = committed(s, class_no, lsn);
    if (!r)
        return ERR_NOT_FOUND;
    if (r->damaged)
        return ERR_CORRUPT;
    *out = r->record;
    return ERR_OK;
}

static void mem_read_end(struct store *base)
{
    struct store_mem *s = mem_of(base);
    STOA_ASSERT(s->reading);
    s->reading = false;
}

static int mem_scan(struct store *base, const struct store_visitor *v)
{
    const struct store_mem *s = mem_of(base);
    STOA_ASSERT(!s->open);
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        const struct store_slot owned = {.slot = (uint16_t)slot, .epoch = s->slots[slot]};
        if (owned.epoch)
            v->slot(v->ctx, &owned);
    }
    for (size_t i = 0; i < s->rooms.count; i++)
        v->room(v->ctx, &VEC_AT(&s->rooms, struct mem_room *)[i]->row);
    for (unsigned c = 0; c < STORE_CLASSES; c++) {
        const struct mem_log *log = &s->logs[c];
        for (size_t i = log->first; i < log->records.count; i++) {
            const struct mem_record *r = *record_slot(log, i);
            if (r && r->damaged)
                v->damaged(v->ctx, c, r->record.lsn);
            else if (r)
                v->record(v->ctx, c, &r->record);
        }
    }
    for (size_t i = 0; v->row && i < s->rows.count; i++) {
        struct store_row row;
        if (row_seen(*row_at(s, i), &row) == ERR_OK)
            v->row(v->ctx, &row);
        else
            v->damaged_row(v->ctx, &row);
    }
    return ERR_OK;
}

static bool mem_has_space(struct store *base)
{
    return !is_full(mem_of(base));
}

static void mem_stats(struct store *base, struct store_stats *out)
{
    const struct store_mem *s = mem_of(base);
    *out = (struct store_stats){.disk_free_bytes = is_full(s) ? 0 : UINT64_C(1) << 40};
    for (unsigned c = 0; c < STORE_CLASSES; c++) {
        const struct mem_log *log = &s->logs[c];
        out->records[c] = log->live;
        for (size_t i = log->first; i < log->records.count; i++) {
            const struct mem_record *r = *record_slot(log, i);
            if (r)
                out->bytes += sizeof *r + r->record.payload.size;
        }
    }
    for (size_t i = 0; i < s->rows.count; i++)
        out->bytes += sizeof(struct mem_row) + (*row_at(s, i))->row.value.size;
    out->file_bytes = out->bytes;
}

/* ---- life and faults ---- */

static const struct store_vtable vtable = {
    .scan = mem_scan,
    .begin = mem_begin,
    .append = mem_append,
    .put_room = mem_put_room,
    .delete_room = mem_delete_room,
    .put_slots = mem_put_slots,
    .put_row = mem_put_row,
    .delete_row = mem_delete_row,
    .trim = mem_trim,
    .remove = mem_remove,
    .commit = mem_commit,
    .abort = mem_abort,
    .read_begin = mem_read_begin,
    .read = mem_read,
    .read_row = mem_read_row,
    .read_rows = mem_read_rows,
    .read_end = mem_read_end,
    .put_meta = mem_put_meta,
    .get_meta = mem_get_meta,
    .has_space = mem_has_space,
    .stats = mem_stats,
};

struct store *store_mem_create(void)
{
    struct store_mem *s = (struct store_mem *)mem_zalloc(sizeof *s);
    s->store.vtable = &vtable;
    return &s->store;
}

void store_mem_destroy(struct store **store)
{
    if (!*store)
        return;
    store_mem_crash(*store);
    struct store_mem *s = mem_of(*store);
    for (unsigned c = 0; c < STORE_CLASSES; c++) {
        for (size_t i = 0; i < s->logs[c].records.count; i++)
            mem_free(*record_slot(&s->logs[c], i));
        vec_free(&s->logs[c].records);
    }
    for (size_t i = 0; i < s->rooms.count; i++)
        mem_free(VEC_AT(&s->rooms, struct mem_room *)[i]);
    for (size_t i = 0; i < s->rows.count; i++)
        mem_free(*row_at(s, i));
    vec_free(&s->rows);
    vec_free(&s->rooms);
    vec_free(&s->metas);
    vec_free(&s->undo);
    vec_free(&s->garbage);
    vec_free(&s->pending);
    mem_free(s);
    *store = NULL;
}

void store_mem_crash(struct store *store)
{
    struct store_mem *s = mem_of(store);
    if (s->open)
        mem_abort(store);
    s->reading = false;
}

void store_mem_fill(struct store *store, unsigned nth)
{
    struct store_mem *s = mem_of(store);
    s->filling = nth > 0;
    s->left = nth > 1 ? nth - 1 : 0;
    s->full = nth == 1;
}

void store_mem_fragment(struct store *store, bool pieces)
{
    mem_of(store)->fragmented = pieces;
}

void store_mem_damage(struct store *store, unsigned class_no, uint64_t lsn)
{
    const struct mem_log *log = &mem_of(store)->logs[class_no];
    size_t place = find_place(log, lsn);
    STOA_ASSERT(place < log->records.count);
    (*record_slot(log, place))->damaged = true;
}

void store_mem_damage_row(struct store *store, enum store_table table, uint64_t room_id,
                          struct slice name)
{
    const struct store_row row = {.table = table, .room_id = room_id, .name = name};
    struct mem_row *r = row_find(mem_of(store), &row);
    STOA_ASSERT(r);
    r->damaged = true;
}

uint64_t store_mem_commits(const struct store *store)
{
    return mem_of_const(store)->commits;
}
