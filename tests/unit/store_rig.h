/* SHELL. What the tests of the store on LMDB share: a directory, records whose every field follows
 * from their lsn, and a disk that fails when told to. */
#ifndef STOA_TESTS_STORE_RIG_H
#define STOA_TESTS_STORE_RIG_H

#include "common/log.h"
#include "shard/store_lmdb.h"

/* What pwrite, writev, fdatasync and statvfs do, for liblmdb as well. */
struct disk {
    bool sync_fails;   /* EIO */
    bool short_writes; /* half of what was asked */
    bool meta_full;    /* the next write of less than a page: ENOSPC */
    bool shows_full;   /* statvfs: nothing free */
};
extern struct disk disk;

extern char base[64], dir[96]; /* the data directory lies in base, which goes at the end */
extern struct strbuf why;      /* of the last open_as */
extern struct strbuf lines;    /* of the log */
extern const struct store_lmdb_options usual;

struct seen {
    uint64_t slots, rooms, records, damaged;
    uint64_t last_lsn, damaged_lsn;
    bool ascending, intact;
    size_t size; /* of payloads; 0: whatever */
    struct store_slot slot;
    struct store_room room;
};

struct gone {
    uint64_t count, last_lsn;
};

void rig_setup(void);
void rig_teardown(void);
void rig_log_to_stderr(void);
int open_as(struct store **s, struct store_lmdb_options options);
struct store *open_usual(void);
bool says(struct strbuf *text, const char *what);
struct store_record record_of(uint64_t lsn, size_t size);
bool same_record(const struct store_record *a, size_t size);
int append(struct store *s, unsigned class_no, uint64_t lsn, size_t size);
int append_many(struct store *s, uint64_t first, uint64_t n, size_t size);
int scan(struct store *s, struct seen *seen, size_t size);
void see_gone(void *ctx, const struct store_record *record);
void file_path(char *out, size_t size);
uint8_t *file_read(size_t *size);
void file_poke(size_t at, uint8_t byte);
void rig_clean(void);

#endif
