/* CORE. What the shard's core asks of its disk. Two implementations: store_lmdb.c (files) and
 * store_mem.c (tests and the simulator, with fault hooks).
 *
 * Layout: one append-only log per retention class, keyed by lsn (shard-wide, ascending, never
 * reused), so that a commit dirties only the last pages; small tables for rooms, slots and meta
 * that are touched rarely. All indexes live in the core and are rebuilt by scan.
 *
 * One write transaction at a time: begin, appends and puts, then commit or abort. commit returns
 * when the data is on disk (sync mode full). Results: ERR_OK        durable ERR_NO_SPACE  nothing
 * of the transaction happened (map or disk full); the store goes on Every other failure of the disk
 * ends the process inside the store (abort; on EIO after writing a sticky marker), because after a
 * failed sync nobody knows what is on disk.
 *
 * A record is guarded by CRC32C over all of it; a record that fails its check is never given out.
 */
#ifndef STOA_SHARD_STORE_H
#define STOA_SHARD_STORE_H

#include "common/err.h"
#include "common/slice.h"

#define STORE_CLASSES 2 /* 0: short retention, 1: long */

struct store_record {
    uint64_t lsn;
    uint64_t room_id; /* random, never 0; names the row in rooms */
    uint64_t seq;
    int64_t ts; /* ms, hybrid clock of the slot */
    uint8_t msg_id[16];
    uint64_t pid;
    uint64_t pseq;
    uint32_t batch_index; /* place in its publish, from 0 */
    uint32_t batch_count; /* events of its publish, from 1 */
    uint32_t flags;       /* EVENT_JSON, EVENT_UTF8, EVENT_TRANSIENT */
    uint16_t slot;
    struct slice conflate;
    struct slice filter;
    struct slice payload;
};

struct store_room {
    uint64_t room_id;
    uint64_t epoch;
    uint64_t head;    /* at the time the row was written; the log may be ahead */
    uint64_t floor;   /* highest seq gone by then (trimmed, evicted, purged) */
    int64_t floor_ts; /* ts of the newest message id forgotten by then */
    int64_t touched;  /* ms, hybrid: for expiry of the row */
    uint16_t slot;
    uint8_t class_no;
    uint8_t purged; /* floor was last raised by a purge */
    struct slice key;
};

/* What rooms with handlers keep beside their log, by room and name. */
enum store_table {
    TABLE_STATE,      /* name empty; the room's one value */
    TABLE_CONNECTION, /* name: its session */
    TABLE_ALARM,      /* name empty */
    TABLE_DONE,       /* name: a message id; the answer that it got */
    TABLE_QUARANTINE, /* name empty; why its handler is not run any more */
    STORE_TABLES
};
#define STORE_ROW_NAME_MAX_BYTES 64
#define STORE_ROW_VALUE_MAX_BYTES (3 * 1024 * 1024)

struct store_row {
    enum store_table table;
    uint64_t room_id;
    struct slice name;
    struct slice value;
};

struct store_slot {
    uint16_t slot;
    uint64_t epoch; /* OWNED(slot, epoch): this file holds the token */
};

struct store_stats {
    uint64_t records[STORE_CLASSES];
    uint64_t bytes; /* used by live pages */
    uint64_t file_bytes;
    uint64_t disk_free_bytes;
    int64_t sync_probe_ns; /* one write + fdatasync in the data directory, at open; 0: none */
};

/* Called by scan in this order: all slots, all rooms, the records of each class in lsn order, then
 * all rows by table, room and name. Slices live for the call. A record whose bytes are damaged is
 * reported by `damaged` with what its key tells, a row by `damaged_row` without a value. */
struct store_visitor {
    void *ctx;
    void (*slot)(void *ctx, const struct store_slot *slot);
    void (*room)(void *ctx, const struct store_room *room);
    void (*record)(void *ctx, unsigned class_no, const struct store_record *record);
    void (*damaged)(void *ctx, unsigned class_no, uint64_t lsn);
    void (*row)(void *ctx, const struct store_row *row);         /* NULL: rows are not visited */
    void (*damaged_row)(void *ctx, const struct store_row *row); /* value is empty */
};

struct store {
    const struct store_vtable *vtable;
};

struct store_vtable {
    MUST_USE int (*scan)(struct store *s, const struct store_visitor *visitor);

    MUST_USE int (*begin)(struct store *s);
    /* Ascending lsn. Any error below: abort the transaction, it cannot commit. */
    MUST_USE int (*append)(struct store *s, unsigned class_no, const struct store_record *record);
    MUST_USE int (*put_room)(struct store *s,
                             const struct store_room *room); /* insert or replace */
    MUST_USE int (*delete_room)(struct store *s, uint64_t room_id);
    MUST_USE int (*put_slots)(struct store *s, const struct store_slot *slots, size_t count);
    /* Deletes from the oldest end of a class records with ts <= before, at most `max`; each is
     * shown to `gone` (payload included) before it goes. *trimmed: how many. Stops at the first
     * that stays. */
    MUST_USE int (*trim)(struct store *s, unsigned class_no, int64_t before, size_t max,
                         void (*gone)(void *ctx, const struct store_record *record), void *ctx,
                         size_t *trimmed);
    /* Deletes one record wherever it is (evicted by count or bytes); absent is fine. */
    MUST_USE int (*remove)(struct store *s, unsigned class_no, uint64_t lsn);
    /* Inserts or replaces; deletes (absent is fine). */
    MUST_USE int (*put_row)(struct store *s, const struct store_row *row);
    MUST_USE int (*delete_row)(struct store *s, enum store_table table, uint64_t room_id,
                               struct slice name);
    MUST_USE int (*commit)(struct store *s);
    void (*abort)(struct store *s);

    /* Reads see the last commit. read_begin .. read_end within one call of the core; slices live
     * until read_end. read: ERR_NOT_FOUND, ERR_CORRUPT. Sequential lsns are cheap. */
    MUST_USE int (*read_begin)(struct store *s);
    MUST_USE int (*read)(struct store *s, unsigned class_no, uint64_t lsn,
                         struct store_record *out);
    /* ERR_NOT_FOUND, ERR_CORRUPT. */
    MUST_USE int (*read_row)(struct store *s, enum store_table table, uint64_t room_id,
                             struct slice name, struct slice *value);
    /* Every row of a table and room by name, damaged ones with ERR_CORRUPT and an empty value. */
    void (*read_rows)(struct store *s, enum store_table table, uint64_t room_id,
                      void (*visit)(void *ctx, int code, const struct store_row *row), void *ctx);
    void (*read_end)(struct store *s);

    /* A small durable value by name ("trim_ts.0"), inside the open transaction. */
    MUST_USE int (*put_meta)(struct store *s, const char *name, uint64_t value);
    MUST_USE int (*get_meta)(struct store *s, const char *name,
                             uint64_t *value); /* ERR_NOT_FOUND */

    /* False when free space is below the reserve: the core refuses publishes, trims go on. */
    bool (*has_space)(struct store *s);
    void (*stats)(struct store *s, struct store_stats *out);
};

#endif
