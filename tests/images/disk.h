/* SHELL. What liblmdb and the store do to their file, seen and spoiled: pwrite, writev, fdatasync,
 * fallocate, rename and their kin stand here before libc's own. A recording is the list of what
 * reached the kernel and of the points at which some of it became durable. */
#ifndef STOA_TESTS_IMAGES_DISK_H
#define STOA_TESTS_IMAGES_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_FILE "data.mdb"

enum disk_kind {
    DISK_WRITE,      /* bytes, not durable yet */
    DISK_SIZE,       /* the file reaches at least `at` bytes, not durable yet */
    DISK_SYNC,       /* all of the file is durable */
    DISK_SYNC_RANGE, /* what `at`, `size` covers is (a write through an O_DSYNC descriptor) */
    DISK_NAME,       /* the file got its name */
    DISK_SYNC_NAMES, /* and that is durable */
};

struct disk_event {
    enum disk_kind kind;
    uint64_t at, size;
    uint8_t *bytes; /* of a write */
};

struct disk_recording {
    struct disk_event *at;
    size_t count;
};

/* From now on, until disk_record_end. One at a time. */
void disk_record_begin(void);
struct disk_recording disk_record_end(void);
size_t disk_recorded(void); /* events so far */
void disk_recording_free(struct disk_recording *r);

enum disk_fault {
    FAULT_EIO, /* a sync that fails so loses what it should have made durable, as the kernel does */
    FAULT_ENOSPC,
    FAULT_SHORT, /* a write takes half and says so; a sync fails with EIO */
    FAULT_KINDS
};
/* The k-th call (from 1) that writes, grows or syncs the file fails; `forever`: all after it too.
 */
void disk_fail(enum disk_fault fault, unsigned k, bool forever);
/* How many such calls there were since disk_fail. */
unsigned disk_calls(void);
bool disk_failed(void);
void disk_heal(void);
/* fdatasync and fsync of the file say yes and do nothing, like a disk that lies. */
void disk_skip_syncs(void);

#endif
