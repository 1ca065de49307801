/* SHELL. The store on disk: LMDB, one environment per shard in its data directory. See store.h for
 * the contract and store_lmdb.c for the design. */
#ifndef STOA_SHARD_STORE_LMDB_H
#define STOA_SHARD_STORE_LMDB_H

#include "common/log.h"
#include "common/metrics.h"
#include "common/strbuf.h"
#include "shard/store.h"

struct store_lmdb_options {
    const char *dir;          /* created (0700) when absent */
    uint64_t cluster;         /* hash of the cluster's name; another one's directory is refused */
    const char *cluster_name; /* for the message */
    uint64_t
        map_bytes; /* size of the map, sparse; 0: 64 GiB or what the disk has, whichever is less */
    uint64_t reserve_bytes; /* has_space is false below this much free disk */
    bool after_eio;         /* open in spite of the sticky EIO marker (and remove it) */
    uint64_t slot_seed;     /* of slot_of: under another one every key lies in another slot */
};

/* Opens or creates. On failure ERR_REFUSED (locked by another process, another cluster, another
 * format, EIO marker, NFS), ERR_CORRUPT or ERR_IO, with a one-line reason and what to do in `why`.
 */
MUST_USE int store_lmdb_open(struct store **out, const struct store_lmdb_options *options,
                             struct log *log, struct metrics *metrics, struct strbuf *why);
/* True when the directory was empty: no slot was ever granted here. */
bool store_lmdb_is_new(const struct store *s);
void store_lmdb_node(const struct store *s, uint8_t node[16]); /* durable uuid of this directory */
/* Writes the boot number of this process start durably, before serving. */
MUST_USE int store_lmdb_boot(struct store *s, uint64_t boot);
void store_lmdb_close(struct store **s);

#endif
