/* SHELL. What the files of the LMDB store share.
 *
 *   store_lmdb.c         transactions, reads, scan: the vtable
 *   store_lmdb_env.c     the environment: opening, reopening, what an error of LMDB means
 *   store_lmdb_open.c    the data directory and everything that forbids opening it
 *   store_lmdb_check.c   the file's pages, walked before LMDB believes them
 *   store_lmdb_space.c   space: map, disk, free pages; the probe of the disk's sync
 *   store_lmdb_record.c  bytes of a record, a room row, a row, a small value
 */
#ifndef STOA_SHARD_STORE_LMDB_INTERNAL_H
#define STOA_SHARD_STORE_LMDB_INTERNAL_H

#include <lmdb.h>

#include "shard/store_lmdb.h"

#define STORE_EIO_MARKER "io-error"

struct lmdb_store {
    struct store base; /* first: a struct store * is this */
    char *dir;         /* owned */
    int lock_fd;       /* flock held for life */
    int file_fd;       /* data.mdb, beside LMDB's own descriptors */
    struct log *log;
    uint64_t map_bytes; /* wanted */

    MDB_env *env;
    MDB_dbi log_dbi[STORE_CLASSES], rooms, rows, slots, meta;
    bool is_new;
    uint8_t node[16];

    MDB_txn *write; /* open write transaction, NULL between */
    uint64_t write_bytes;
    uint64_t first_free_page; /* behind everything LMDB ever used, when the transaction began */
    bool cannot_grow;         /* the disk refused during this transaction */
    bool refused;             /* something in this transaction found no space */
    bool removes;             /* records or rows go with this transaction */
    bool holds_back;          /* something went with the last commit: see store_lmdb.c */
    bool no_allocate;         /* the file system cannot allocate ahead: LMDB extends the file */
    bool in_place;            /* a block written again stays where it is: zeroing ahead pays */
    uint64_t zeroed_pages;    /* behind first_free_page, up to here, blocks are written */

    MDB_txn *read; /* reset between read_end and the next read_begin */
    MDB_cursor *read_cursor[STORE_CLASSES];
    uint64_t read_at[STORE_CLASSES]; /* lsn that the cursor stands on, 0: nowhere */
    bool reading;

    uint64_t page_bytes;
    uint64_t map_pages;
    uint64_t file_pages; /* size of the file: allocated ahead of what LMDB uses */
    uint64_t live_pages; /* in use, as of the last commit; the others are reused */
    uint64_t reserve_bytes;
    uint64_t disk_free_bytes; /* as of the last look */
    bool space;
    unsigned commits_until_look;

    int64_t sync_probe_ns;
    struct metric *commit_seconds, *sync_seconds, *disk_free;
};

int64_t store_mono_ns(void);

/* ---- store_lmdb.c ---- */
extern const struct store_vtable store_lmdb_vtable;

/* ---- store_lmdb_env.c ---- */
/* All that an environment needs to work; LMDB's code. On failure nothing is left open. */
MUST_USE int store_env_open(struct lmdb_store *s);
void store_env_close(struct lmdb_store *s);
/* ERR_OK or ERR_NO_SPACE; after any other code of LMDB it does not return. */
MUST_USE int store_outcome(struct lmdb_store *s, const char *what, int rc);
/* The same for the code of a commit of the transaction numbered `txn_id`. */
MUST_USE int store_commit_outcome(struct lmdb_store *s, size_t txn_id, int rc);
/* From here on, SIGBUS is a failed read of this store. */
void store_guard(struct lmdb_store *s);
void store_unguard(const struct lmdb_store *s);
/* Ends the process after an error that leaves the disk's content unknown; EIO leaves the marker. */
_Noreturn void store_die(struct lmdb_store *s, const char *what, int rc);

/* ---- store_lmdb_check.c ---- */
/* ERR_CORRUPT with page and reason; a file that is not there is fine. May give a meta page the
 * number back that its tree shows. */
MUST_USE int store_check_file(const char *dir, struct log *log, struct strbuf *why);
/* After a meta page could not be written: it gets the tree of the last good commit. 0 or errno. */
MUST_USE int store_mend_meta(int fd, uint64_t page_bytes);

/* ---- store_lmdb_space.c ---- */
bool store_space_in_place(int fd); /* does this file system overwrite a block where it is? */
void store_space_begin(struct lmdb_store *s); /* a write transaction has begun */
/* Room for one more record or row of this size in the open transaction? */
MUST_USE int store_space_take(struct lmdb_store *s, size_t bytes);
/* Pages in use as the transaction sees them. */
uint64_t store_space_live(const struct lmdb_store *s, MDB_txn *txn);
void store_space_look(struct lmdb_store *s);
MUST_USE int store_probe_sync(struct lmdb_store *s, struct strbuf *why);

#endif
