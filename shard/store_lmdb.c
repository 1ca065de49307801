/* SHELL. The store on LMDB: transactions, reads, scan.
 *
 * Six tables: log_0 and log_1 (lsn -> record, appended only, so a commit dirties just the last
 * pages), rooms, slots, meta, and rows (what rooms with handlers keep). Keys are native 64-bit
 * integers; in meta names, in rows bytes that sort by table, room and name. Sync mode is full:
 * mdb_txn_commit returns when the data pages are synced and the meta page after them.
 *
 * No WRITEMAP (a stray store cannot damage the file, a full disk is an error and not SIGBUS), one
 * environment, one write transaction at a time, one read transaction that is reset after every use:
 * a reader left open would make the file grow without bound.
 *
 * Pages that a commit frees are LMDB's to reuse only after the commit that follows. Trims free many
 * in one, and when they have nothing left nothing follows, because appends are refused: so a
 * refusal behind such a commit makes one more of a single small row (release_pages).
 *
 * Errors: no space is an answer; everything else that the disk refuses ends the process
 * (store_die). */
#include <endian.h>

#include "common/limits.h"
#include "shard/store_lmdb_internal.h"
#include "shard/store_lmdb_record.h"

static struct lmdb_store *self_of(struct store *s)
{
    STOA_ASSERT(s->vtable == &store_lmdb_vtable);
    return (struct lmdb_store *)(void *)s;
}

static MDB_val key_of(uint64_t *number)
{
    return (MDB_val){sizeof *number, number};
}

static uint64_t number_of(const MDB_val *key)
{
    uint64_t number = 0;
    if (key->mv_size == sizeof number)
        memcpy(&number, key->mv_data, sizeof number);
    return number;
}

static struct slice slice_of_val(const MDB_val *v)
{
    return slice_of(v->mv_data, v->mv_size);
}

/* ---- write transaction ---- */

static int lmdb_begin(struct store *base)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->write == NULL);
    TRY(store_outcome(s, "begin", mdb_txn_begin(s->env, NULL, 0, &s->write)));
    store_space_begin(s);
    return ERR_OK;
}

static int lmdb_append(struct store *base, unsigned class_no, const struct store_record *record)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->write != NULL && class_no < STORE_CLASSES);
    uint64_t lsn = record->lsn;
    MDB_val key = key_of(&lsn), value = {record_size(record), NULL};
    TRY(store_space_take(s, value.mv_size));
    TRY(store_outcome(
        s, "append",
        mdb_put(s->write, s->log_dbi[class_no], &key, &value, MDB_APPEND | MDB_RESERVE)));
    record_write(record, value.mv_data);
    return ERR_OK;
}

static int lmdb_put_room(struct store *base, const struct store_room *room)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->write != NULL && room->room_id != 0);
    uint64_t id = room->room_id;
    MDB_val key = key_of(&id), value = {room_row_size(room), NULL};
    TRY(store_outcome(s, "put room", mdb_put(s->write, s->rooms, &key, &value, MDB_RESERVE)));
    room_row_write(room, value.mv_data);
    return ERR_OK;
}

static int delete_key(struct lmdb_store *s, MDB_dbi dbi, MDB_val key)
{
    STOA_ASSERT(s->write != NULL);
    s->removes = true;
    int rc = mdb_del(s->write, dbi, &key, NULL);
    return rc == MDB_NOTFOUND ? ERR_OK : store_outcome(s, "delete", rc);
}

static int lmdb_delete_room(struct store *base, uint64_t room_id)
{
    struct lmdb_store *s = self_of(base);
    return delete_key(s, s->rooms, key_of(&room_id));
}

static int lmdb_remove(struct store *base, unsigned class_no, uint64_t lsn)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(class_no < STORE_CLASSES);
    return delete_key(s, s->log_dbi[class_no], key_of(&lsn));
}

/* A damaged record at the oldest end goes as well, unseen: what it was the index does not know. */
static int lmdb_trim(struct store *base, unsigned class_no, int64_t before, size_t max,
                     void (*gone)(void *ctx, const struct store_record *record), void *ctx,
                     size_t *trimmed)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->write != NULL && class_no < STORE_CLASSES);
    MDB_cursor *cursor;
    *trimmed = 0;
    TRY(store_outcome(s, "trim", mdb_cursor_open(s->write, s->log_dbi[class_no], &cursor)));
    int code = ERR_OK;
    while (*trimmed < max) {
        MDB_val key, value;
        struct store_record record;
        int rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
        if (rc == MDB_NOTFOUND)
            break;
        code = store_outcome(s, "trim", rc);
        if (code != ERR_OK)
            break;
        if (record_read(number_of(&key), slice_of_val(&value), &record) == ERR_OK) {
            if (record.ts > before)
                break;
            gone(ctx, &record);
        }
        s->removes = true;
        code = store_outcome(s, "trim", mdb_cursor_del(cursor, 0));
        if (code != ERR_OK)
            break;
        ++*trimmed;
    }
    mdb_cursor_close(cursor);
    return code;
}

struct row_key {
    uint8_t bytes[ROW_KEY_MAX_BYTES];
};

static MDB_val row_key_of(struct row_key *key, enum store_table table, uint64_t room_id,
                          struct slice name)
{
    return (MDB_val){row_key_write(table, room_id, name, key->bytes), key->bytes};
}

/* The value that it replaces frees pages. */
static int lmdb_put_row(struct store *base, const struct store_row *row)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->write != NULL);
    struct row_key bytes;
    MDB_val key = row_key_of(&bytes, row->table, row->room_id, row->name);
    MDB_val value = {ROW_HEADER_BYTES + row->value.size, NULL};
    s->removes = true;
    TRY(store_space_take(s, value.mv_size));
    TRY(store_outcome(s, "put row", mdb_put(s->write, s->rows, &key, &value, MDB_RESERVE)));
    row_write(slice_of_val(&key), row->value, value.mv_data);
    return ERR_OK;
}

static int lmdb_delete_row(struct store *base, enum store_table table, uint64_t room_id,
                           struct slice name)
{
    struct lmdb_store *s = self_of(base);
    struct row_key bytes;
    return delete_key(s, s->rows, row_key_of(&bytes, table, room_id, name));
}

static MDB_val name_of(const char *name)
{
    return (MDB_val){strlen(name), (void *)(uintptr_t)name};
}

/* Key and value of one small row, with its checksum. */
static int put_small(struct lmdb_store *s, MDB_dbi dbi, MDB_val key, uint64_t number)
{
    STOA_ASSERT(s->write != NULL);
    uint64_t le = htole64(number);
    MDB_val value = {SMALL_HEADER_BYTES + sizeof le, NULL};
    TRY(store_outcome(s, "put", mdb_put(s->write, dbi, &key, &value, MDB_RESERVE)));
    small_write(slice_of_val(&key), slice_of(&le, sizeof le), value.mv_data);
    return ERR_OK;
}

static int commit_now(struct lmdb_store *s)
{
    STOA_ASSERT(s->write != NULL);
    int64_t start = store_mono_ns();
    size_t txn_id = mdb_txn_id(s->write);
    uint64_t live = store_space_live(s, s->write);
    int rc = mdb_txn_commit(s->write); /* frees it, whatever it answers */
    s->write = NULL;
    int code = store_commit_outcome(s, txn_id, rc);
    if (code == ERR_OK) {
        s->live_pages = live;
        s->holds_back = s->removes;
        metric_observe_ns(s->commit_seconds, store_mono_ns() - start);
    }
    if (code != ERR_OK || --s->commits_until_look == 0)
        store_space_look(s);
    return code;
}

/* After a refusal: the next append finds the pages that the last commit freed. */
static void release_pages(struct lmdb_store *s)
{
    static const char name[] = "released";
    if (!s->holds_back || lmdb_begin(&s->base) != ERR_OK)
        return;
    s->holds_back = false;
    if (put_small(s, s->meta, name_of(name), mdb_txn_id(s->write)) == ERR_OK) {
        (void)commit_now(s);
    } else {
        mdb_txn_abort(s->write);
        s->write = NULL;
    }
}

static int lmdb_commit(struct store *base)
{
    struct lmdb_store *s = self_of(base);
    int code = commit_now(s);
    if (code != ERR_OK)
        release_pages(s);
    return code;
}

static void lmdb_abort(struct store *base)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->write != NULL);
    mdb_txn_abort(s->write);
    s->write = NULL;
    if (!s->refused)
        return;
    store_space_look(s);
    release_pages(s);
}

static int small_number(const MDB_val *key, const MDB_val *bytes, uint64_t *number)
{
    struct slice value;
    TRY(small_read(slice_of_val(key), slice_of_val(bytes), &value));
    if (value.size != sizeof *number)
        return ERR_CORRUPT;
    memcpy(number, value.data, sizeof *number);
    *number = le64toh(*number);
    return ERR_OK;
}

static int lmdb_put_slots(struct store *base, const struct store_slot *slots, size_t count)
{
    struct lmdb_store *s = self_of(base);
    for (size_t i = 0; i < count; i++) {
        uint64_t number = slots[i].slot;
        TRY(put_small(s, s->slots, key_of(&number), slots[i].epoch));
    }
    return ERR_OK;
}

static int lmdb_put_meta(struct store *base, const char *name, uint64_t value)
{
    struct lmdb_store *s = self_of(base);
    return put_small(s, s->meta, name_of(name), value);
}

/* ---- reading ---- */

/* A damaged length must not lead beyond the file. A value lies within one page, or at the start of
 * a run of pages of its own, whose first page says how many they are (page header of LMDB 0.9: 16
 * bytes, the last four of a run's are its length). */
static bool is_within_its_page(const struct lmdb_store *s, const MDB_val *v)
{
    enum { PAGE_HEADER = 16, RUN_LENGTH = 12 };
    const uint8_t *at = v->mv_data;
    size_t offset = (uintptr_t)at & (s->page_bytes - 1);
    if (offset + v->mv_size <= s->page_bytes)
        return true;
    if (offset != PAGE_HEADER || v->mv_size > VALUE_MAX_BYTES)
        return false;
    uint32_t pages;
    memcpy(&pages, at - PAGE_HEADER + RUN_LENGTH, sizeof pages);
    return PAGE_HEADER + v->mv_size <= pages * s->page_bytes;
}

static int lmdb_read_begin(struct store *base)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(!s->reading);
    int rc = mdb_txn_renew(s->read);
    for (unsigned i = 0; rc == 0 && i < STORE_CLASSES; i++) {
        rc = mdb_cursor_renew(s->read, s->read_cursor[i]);
        s->read_at[i] = 0;
    }
    if (rc != 0)
        store_die(s, "read", rc);
    s->reading = true;
    return ERR_OK;
}

static int lmdb_read(struct store *base, unsigned class_no, uint64_t lsn, struct store_record *out)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->reading && class_no < STORE_CLASSES);
    MDB_cursor *cursor = s->read_cursor[class_no];
    MDB_val key, value;
    int rc = MDB_NOTFOUND;
    if (s->read_at[class_no] != 0 && lsn == s->read_at[class_no] + 1) {
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
        if (rc == 0 && number_of(&key) != lsn)
            rc = MDB_NOTFOUND;
    }
    if (rc == MDB_NOTFOUND) {
        key = key_of(&lsn);
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_KEY);
    }
    s->read_at[class_no] = rc == 0 ? lsn : 0;
    if (rc == MDB_NOTFOUND)
        return ERR_NOT_FOUND;
    if (rc != 0 || !is_within_its_page(s, &value))
        return ERR_CORRUPT;
    return record_read(lsn, slice_of_val(&value), out);
}

static int lmdb_read_row(struct store *base, enum store_table table, uint64_t room_id,
                         struct slice name, struct slice *value)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->reading);
    struct row_key bytes;
    MDB_val key = row_key_of(&bytes, table, room_id, name), found;
    int rc = mdb_get(s->read, s->rows, &key, &found);
    if (rc == MDB_NOTFOUND)
        return ERR_NOT_FOUND;
    if (rc != 0 || !is_within_its_page(s, &found))
        return ERR_CORRUPT;
    return row_read(slice_of_val(&key), slice_of_val(&found), value);
}

/* A tree that cannot be read on is a damaged row without a name. */
static void lmdb_read_rows(struct store *base, enum store_table table, uint64_t room_id,
                           void (*visit)(void *ctx, int code, const struct store_row *row),
                           void *ctx)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->reading);
    struct row_key bytes;
    MDB_val prefix = row_key_of(&bytes, table, room_id, slice_of(NULL, 0)), key = prefix, value;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(s->read, s->rows, &cursor);
    if (rc != 0)
        store_die(s, "read rows", rc);
    rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    for (; rc == 0; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        struct store_row row;
        if (key.mv_size < prefix.mv_size ||
            memcmp(key.mv_data, prefix.mv_data, prefix.mv_size) != 0)
            break;
        int code = row_key_read(slice_of_val(&key), &row);
        if (code != ERR_OK)
            row = (struct store_row){.table = table, .room_id = room_id};
        else if (!is_within_its_page(s, &value))
            code = ERR_CORRUPT;
        else
            code = row_read(slice_of_val(&key), slice_of_val(&value), &row.value);
        if (code != ERR_OK)
            row.value = slice_of(NULL, 0);
        visit(ctx, code, &row);
    }
    mdb_cursor_close(cursor);
    const struct store_row unknown = {.table = table, .room_id = room_id};
    if (rc != 0 && rc != MDB_NOTFOUND)
        visit(ctx, ERR_CORRUPT, &unknown);
}

static void lmdb_read_end(struct store *base)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->reading);
    mdb_txn_reset(s->read);
    s->reading = false;
}

static int lmdb_get_meta(struct store *base, const char *name, uint64_t *value)
{
    struct lmdb_store *s = self_of(base);
    MDB_val key = name_of(name), bytes;
    MDB_txn *txn = s->write;
    int rc = txn == NULL ? mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) : 0;
    if (rc != 0)
        store_die(s, "get meta", rc);
    int code = ERR_NOT_FOUND;
    if (mdb_get(txn, s->meta, &key, &bytes) == 0)
        code = small_number(&key, &bytes, value);
    if (txn != s->write)
        mdb_txn_abort(txn);
    return code;
}

/* ---- scan ---- */

struct scan {
    struct lmdb_store *s;
    const struct store_visitor *visitor;
    unsigned class_no;
    uint64_t damaged_rows; /* of slots and rooms, and rows whose key says nothing */
};

static void scan_slot(struct scan *scan, const MDB_val *key, const MDB_val *value)
{
    struct store_slot slot = {.slot = (uint16_t)number_of(key)};
    if (number_of(key) < SLOT_COUNT && small_number(key, value, &slot.epoch) == ERR_OK)
        scan->visitor->slot(scan->visitor->ctx, &slot);
    else
        scan->damaged_rows++;
}

static void scan_room(struct scan *scan, const MDB_val *key, const MDB_val *value)
{
    struct store_room room;
    if (room_row_read(number_of(key), slice_of_val(value), &room) == ERR_OK)
        scan->visitor->room(scan->visitor->ctx, &room);
    else
        scan->damaged_rows++;
}

static void scan_record(struct scan *scan, const MDB_val *key, const MDB_val *value)
{
    const struct store_visitor *visitor = scan->visitor;
    struct store_record record;
    if (record_read(number_of(key), slice_of_val(value), &record) == ERR_OK)
        visitor->record(visitor->ctx, scan->class_no, &record);
    else
        visitor->damaged(visitor->ctx, scan->class_no, number_of(key));
}

static void scan_row(struct scan *scan, const MDB_val *key, const MDB_val *value)
{
    const struct store_visitor *visitor = scan->visitor;
    struct store_row row;
    if (row_key_read(slice_of_val(key), &row) != ERR_OK) {
        scan->damaged_rows++;
    } else if (row_read(slice_of_val(key), slice_of_val(value), &row.value) == ERR_OK) {
        visitor->row(visitor->ctx, &row);
    } else {
        row.value = slice_of(NULL, 0);
        visitor->damaged_row(visitor->ctx, &row);
    }
}

static int scan_table(struct scan *scan, MDB_txn *txn, MDB_dbi dbi,
                      void (*each)(struct scan *scan, const MDB_val *key, const MDB_val *value))
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(txn, dbi, &cursor);
    if (rc != 0)
        store_die(scan->s, "scan", rc);
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        if (!is_within_its_page(scan->s, &value))
            value.mv_size = 0; /* which no checksum fits */
        each(scan, &key, &value);
    }
    mdb_cursor_close(cursor);
    if (rc == MDB_NOTFOUND)
        return ERR_OK;
    LOG(scan->s->log, LOG_ERROR, "store.damaged", LOG_STR("dir", scan->s->dir),
        LOG_STR("why", mdb_strerror(rc)));
    return ERR_CORRUPT;
}

static int lmdb_scan(struct store *base, const struct store_visitor *visitor)
{
    struct scan scan = {.s = self_of(base), .visitor = visitor};
    MDB_txn *txn;
    int rc = mdb_txn_begin(scan.s->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        store_die(scan.s, "scan", rc);
    int code = scan_table(&scan, txn, scan.s->slots, scan_slot);
    if (code == ERR_OK)
        code = scan_table(&scan, txn, scan.s->rooms, scan_room);
    for (; code == ERR_OK && scan.class_no < STORE_CLASSES; scan.class_no++)
        code = scan_table(&scan, txn, scan.s->log_dbi[scan.class_no], scan_record);
    if (code == ERR_OK && visitor->row != NULL)
        code = scan_table(&scan, txn, scan.s->rows, scan_row);
    mdb_txn_abort(txn);
    if (scan.damaged_rows > 0)
        LOG(scan.s->log, LOG_ERROR, "store.damaged", LOG_STR("dir", scan.s->dir),
            LOG_U64("slot_and_room_rows", scan.damaged_rows));
    return code;
}

/* ---- space and figures ---- */

static bool lmdb_has_space(struct store *base)
{
    struct lmdb_store *s = self_of(base);
    if (!s->space)
        store_space_look(s);
    return s->space;
}

static void lmdb_stats(struct store *base, struct store_stats *out)
{
    struct lmdb_store *s = self_of(base);
    MDB_txn *txn;
    MDB_stat stat;
    store_space_look(s);
    *out = (struct store_stats){.bytes = s->live_pages * s->page_bytes,
                                .file_bytes = s->file_pages * s->page_bytes,
                                .disk_free_bytes = s->disk_free_bytes,
                                .sync_probe_ns = s->sync_probe_ns};
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        store_die(s, "stats", rc);
    for (unsigned i = 0; i < STORE_CLASSES; i++)
        if (mdb_stat(txn, s->log_dbi[i], &stat) == 0)
            out->records[i] = stat.ms_entries;
    mdb_txn_abort(txn);
}

const struct store_vtable store_lmdb_vtable = {
    .scan = lmdb_scan,
    .begin = lmdb_begin,
    .append = lmdb_append,
    .put_room = lmdb_put_room,
    .delete_room = lmdb_delete_room,
    .put_slots = lmdb_put_slots,
    .put_row = lmdb_put_row,
    .delete_row = lmdb_delete_row,
    .trim = lmdb_trim,
    .remove = lmdb_remove,
    .commit = lmdb_commit,
    .abort = lmdb_abort,
    .read_begin = lmdb_read_begin,
    .read = lmdb_read,
    .read_row = lmdb_read_row,
    .read_rows = lmdb_read_rows,
    .read_end = lmdb_read_end,
    .put_meta = lmdb_put_meta,
    .get_meta = lmdb_get_meta,
    .has_space = lmdb_has_space,
    .stats = lmdb_stats,
};
