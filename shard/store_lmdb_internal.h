/* SHELL. What the files of the LMDB store share. */
#ifndef STOA_SHARD_STORE_LMDB_INTERNAL_H
#define STOA_SHARD_STORE_LMDB_INTERNAL_H

#include <lmdb.h>

#include "shard/store_lmdb.h"

struct lmdb_store {
    struct store base; /* first: a struct store * is this */
    char *dir;         /* owned */
    int lock_fd;       /* flock held for life */
    struct log *log;
    MDB_env *env;
    MDB_dbi log_dbi[STORE_CLASSES], rooms, slots, meta;
    unsigned page_bytes;
    uint64_t map_pages;
    uint64_t reserve_bytes;

    MDB_txn *write;  /* open write transaction, NULL between */
    bool write_full; /* it began without room for new records: appends answer ERR_NO_SPACE */

    MDB_txn *read; /* reset between read_begin and the next */
    MDB_cursor *read_cursor[STORE_CLASSES];
    uint64_t read_at[STORE_CLASSES]; /* lsn that the cursor stands on, 0: nowhere */
    bool reading;

    uint64_t free_disk_bytes; /* as of the last look */
    uint64_t free_pages;      /* pages that LMDB can take without growing into a new disk block */
    bool space;
    unsigned commits_until_look;

    int64_t sync_probe_ns;
    uint8_t node[16];
    struct metric *commit_seconds, *sync_seconds, *disk_free;
};

/* Ends the process after an error that leaves the disk's content unknown; EIO leaves the marker. */
_Noreturn void store_die(struct lmdb_store *s, const char *what, int rc);

/* store_lmdb_open.c */
#define STORE_EIO_MARKER "io-error"

/* store_lmdb_space.c */
void store_look_at_space(struct lmdb_store *s);
void store_probe_sync(struct lmdb_store *s);

/* store_lmdb.c */
extern const struct store_vtable store_lmdb_vtable;
void store_reader_open(struct lmdb_store *s);

#endif
