/* SHELL. The store on LMDB: transactions, reads, scan.
 *
 * Five tables: log_0 and log_1 (lsn -> record, appended only, so a commit dirties just the last
 * pages), rooms, slots, meta. Keys are native 64-bit integers. Sync mode is full: mdb_txn_commit
 * returns when the data pages are synced and the meta page after them.
 *
 * No WRITEMAP (a stray store cannot damage the file, a full disk is an error and not SIGBUS), one
 * environment, one write transaction at a time, one read transaction that is reset after every use:
 * a reader left open would make the file grow without bound.
 *
 * Errors: no space is an answer; everything else that the disk refuses ends the process
 * (store_die). */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/mem.h"
#include "common/tick.h"
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

/* ERR_OK or ERR_NO_SPACE; anything else does not return. */
static int outcome(struct lmdb_store *s, const char *what, int rc)
{
    if (rc == MDB_SUCCESS)
        return ERR_OK;
    if (rc == MDB_MAP_FULL || rc == MDB_TXN_FULL || rc == ENOSPC || rc == EDQUOT)
        return ERR_NO_SPACE;
    store_die(s, what, rc);
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
    return outcome(s, "begin", mdb_txn_begin(s->env, NULL, 0, &s->write));
}

static int lmdb_append(struct store *base, unsigned class_no, const struct store_record *record)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->write != NULL && class_no < STORE_CLASSES);
    if (s->write_full)
        return ERR_NO_SPACE;
    uint64_t lsn = record->lsn;
    MDB_val key = key_of(&lsn), value = {record_size(record), NULL};
    TRY(outcome(s, "append",
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
    TRY(outcome(s, "put room", mdb_put(s->write, s->rooms, &key, &value, MDB_RESERVE)));
    room_row_write(room, value.mv_data);
    return ERR_OK;
}

static int delete_key(struct lmdb_store *s, MDB_dbi dbi, uint64_t number)
{
    STOA_ASSERT(s->write != NULL);
    MDB_val key = key_of(&number);
    int rc = mdb_del(s->write, dbi, &key, NULL);
    return rc == MDB_NOTFOUND ? ERR_OK : outcome(s, "delete", rc);
}

static int lmdb_delete_room(struct store *base, uint64_t room_id)
{
    struct lmdb_store *s = self_of(base);
    return delete_key(s, s->rooms, room_id);
}

static int lmdb_remove(struct store *base, unsigned class_no, uint64_t lsn)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(class_no < STORE_CLASSES);
    return delete_key(s, s->log_dbi[class_no], lsn);
}

static int lmdb_put_slots(struct store *base, const struct store_slot *slots, size_t count)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->write != NULL);
    for (size_t i = 0; i < count; i++) {
        uint64_t number = slots[i].slot, epoch = slots[i].epoch;
        MDB_val key = key_of(&number), value = key_of(&epoch);
        TRY(outcome(s, "put slot", mdb_put(s->write, s->slots, &key, &value, 0)));
    }
    return ERR_OK;
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
    TRY(outcome(s, "trim", mdb_cursor_open(s->write, s->log_dbi[class_no], &cursor)));
    int code = ERR_OK;
    while (*trimmed < max) {
        MDB_val key, value;
        struct store_record record;
        int rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
        if (rc == MDB_NOTFOUND)
            break;
        code = outcome(s, "trim", rc);
        if (code != ERR_OK)
            break;
        if (record_read(number_of(&key), slice_of_val(&value), &record) == ERR_OK) {
            if (record.ts > before)
                break;
            gone(ctx, &record);
        }
        code = outcome(s, "trim", mdb_cursor_del(cursor, 0));
        if (code != ERR_OK)
            break;
        ++*trimmed;
    }
    mdb_cursor_close(cursor);
    return code;
}

static int64_t mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static int lmdb_commit(struct store *base)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->write != NULL);
    int64_t start = mono_ns();
    int rc = mdb_txn_commit(s->write); /* frees it, whatever it answers */
    s->write = NULL;
    int code = outcome(s, "commit", rc);
    if (code == ERR_OK)
        metric_observe_ns(s->commit_seconds, mono_ns() - start);
    if (code != ERR_OK || --s->commits_until_look == 0)
        store_look_at_space(s);
    return code;
}

static void lmdb_abort(struct store *base)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->write != NULL);
    mdb_txn_abort(s->write);
    s->write = NULL;
    store_look_at_space(s);
}

static int lmdb_put_meta(struct store *base, const char *name, uint64_t value)
{
    struct lmdb_store *s = self_of(base);
    STOA_ASSERT(s->write != NULL);
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, bytes = key_of(&value);
    return outcome(s, "put meta", mdb_put(s->write, s->meta, &key, &bytes, 0));
}

/* ---- reading ---- */

void store_reader_open(struct lmdb_store *s)
{
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->read);
    for (unsigned i = 0; rc == 0 && i < STORE_CLASSES; i++)
        rc = mdb_cursor_open(s->read, s->log_dbi[i], &s->read_cursor[i]);
    if (rc != 0)
        store_die(s, "open reader", rc);
    mdb_txn_reset(s->read);
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
    if (rc != 0)
        store_die(s, "read", rc);
    return record_read(lsn, slice_of_val(&value), out);
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
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, bytes;
    MDB_txn *txn = s->write;
    if (txn == NULL && mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0)
        return ERR_NOT_FOUND;
    int rc = mdb_get(txn, s->meta, &key, &bytes);
    bool fits = rc == 0 && bytes.mv_size == sizeof *value;
    if (fits)
        *value = number_of(&bytes);
    if (txn != s->write)
        mdb_txn_abort(txn);
    return fits ? ERR_OK : ERR_NOT_FOUND;
}

/* ---- scan ---- */

static int scan_table(struct lmdb_store *s, MDB_txn *txn, MDB_dbi dbi,
                      void (*each)(const struct store_visitor *visitor, unsigned class_no,
                                   uint64_t number, struct slice value),
                      const struct store_visitor *visitor, unsigned class_no)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(txn, dbi, &cursor);
    if (rc != 0)
        store_die(s, "scan", rc);
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
        each(visitor, class_no, number_of(&key), slice_of_val(&value));
    mdb_cursor_close(cursor);
    if (rc == MDB_NOTFOUND)
        return ERR_OK;
    LOG(s->log, LOG_ERROR, "store.damaged", LOG_STR("dir", s->dir),
        LOG_STR("why", mdb_strerror(rc)));
    return rc == EIO ? ERR_IO : ERR_CORRUPT;
}

static void scan_slot(const struct store_visitor *visitor, unsigned class_no, uint64_t number,
                      struct slice value)
{
    (void)class_no;
    struct store_slot slot = {.slot = (uint16_t)number};
    if (number >= SLOT_COUNT || value.size != sizeof slot.epoch)
        return;
    memcpy(&slot.epoch, value.data, sizeof slot.epoch);
    visitor->slot(visitor->ctx, &slot);
}

static void scan_room(const struct store_visitor *visitor, unsigned class_no, uint64_t number,
                      struct slice value)
{
    (void)class_no;
    struct store_room room;
    if (room_row_read(number, value, &room) == ERR_OK)
        visitor->room(visitor->ctx, &room);
}

static void scan_record(const struct store_visitor *visitor, unsigned class_no, uint64_t number,
                        struct slice value)
{
    struct store_record record;
    if (record_read(number, value, &record) == ERR_OK)
        visitor->record(visitor->ctx, class_no, &record);
    else
        visitor->damaged(visitor->ctx, class_no, number);
}

static int lmdb_scan(struct store *base, const struct store_visitor *visitor)
{
    struct lmdb_store *s = self_of(base);
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        store_die(s, "scan", rc);
    int code = scan_table(s, txn, s->slots, scan_slot, visitor, 0);
    if (code == ERR_OK)
        code = scan_table(s, txn, s->rooms, scan_room, visitor, 0);
    for (unsigned i = 0; code == ERR_OK && i < STORE_CLASSES; i++)
        code = scan_table(s, txn, s->log_dbi[i], scan_record, visitor, i);
    mdb_txn_abort(txn);
    return code;
}

/* ---- space and figures ---- */

static bool lmdb_has_space(struct store *base)
{
    struct lmdb_store *s = self_of(base);
    if (!s->space && s->write == NULL)
        store_look_at_space(s);
    return s->space;
}

static void lmdb_stats(struct store *base, struct store_stats *out)
{
    struct lmdb_store *s = self_of(base);
    MDB_txn *txn;
    MDB_stat stat;
    MDB_envinfo info;
    *out = (struct store_stats){.disk_free_bytes = s->free_disk_bytes,
                                .sync_probe_ns = s->sync_probe_ns};
    mdb_env_info(s->env, &info);
    out->file_bytes = (info.me_last_pgno + 1) * s->page_bytes;
    if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0)
        return;
    for (unsigned i = 0; i < STORE_CLASSES; i++) {
        if (mdb_stat(txn, s->log_dbi[i], &stat) != 0)
            continue;
        out->records[i] = stat.ms_entries;
        out->bytes +=
            (stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages) * s->page_bytes;
    }
    mdb_txn_abort(txn);
}

const struct store_vtable store_lmdb_vtable = {
    .scan = lmdb_scan,
    .begin = lmdb_begin,
    .append = lmdb_append,
    .put_room = lmdb_put_room,
    .delete_room = lmdb_delete_room,
    .put_slots = lmdb_put_slots,
    .trim = lmdb_trim,
    .remove = lmdb_remove,
    .commit = lmdb_commit,
    .abort = lmdb_abort,
    .read_begin = lmdb_read_begin,
    .read = lmdb_read,
    .read_end = lmdb_read_end,
    .put_meta = lmdb_put_meta,
    .get_meta = lmdb_get_meta,
    .has_space = lmdb_has_space,
    .stats = lmdb_stats,
};
