/* SHELL. The calls that matter are those of liblmdb 0.9.24 (pwrite, writev, fdatasync) and of the
 * store (fallocate, rename, fsync); those that neither is known to make are here as well, so that
 * an upgrade which makes them does not go unseen. */
#include "disk.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/err.h"
#include "common/mem.h"
#include "shard/vec.h"

#define REAL(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))

static struct {
    bool on;
    struct disk_recording log;
    size_t capacity;
} recorder;

static struct {
    bool armed, forever, hit;
    enum disk_fault fault;
    unsigned k, calls;
    struct vec undo; /* struct disk_event: what unsynced writes wrote over */
} spoiler;

static bool skips_syncs;

/* ---- recording ---- */

void disk_record_begin(void)
{
    STOA_ASSERT(!recorder.on);
    recorder.on = true;
    recorder.log = (struct disk_recording){0};
    recorder.capacity = 0;
}

struct disk_recording disk_record_end(void)
{
    recorder.on = false;
    return recorder.log;
}

size_t disk_recorded(void)
{
    return recorder.log.count;
}

void disk_recording_free(struct disk_recording *r)
{
    for (size_t i = 0; i < r->count; i++)
        mem_free(r->at[i].bytes);
    mem_free(r->at);
    *r = (struct disk_recording){0};
}

static void note(enum disk_kind kind, uint64_t at, uint64_t size, const void *bytes)
{
    struct disk_recording *log = &recorder.log;
    if (log->count == recorder.capacity) {
        recorder.capacity = recorder.capacity ? 2 * recorder.capacity : 1024;
        log->at = mem_realloc(log->at, recorder.capacity * sizeof *log->at);
    }
    log->at[log->count++] =
        (struct disk_event){kind, at, size, bytes ? mem_dup(bytes, size) : NULL};
}

static void note_write(int fd, uint64_t at, const void *bytes, size_t size)
{
    note(DISK_WRITE, at, size, bytes);
    if (fcntl(fd, F_GETFL) & O_DSYNC)
        note(DISK_SYNC_RANGE, at, size, NULL);
}

static bool is_data(int fd)
{
    char link[64], path[4096];
    if (!recorder.on && !spoiler.armed && !skips_syncs)
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    const char *name = strrchr(path, '/');
    return name && strcmp(name + 1, DISK_FILE) == 0;
}

static bool is_directory(int fd)
{
    struct stat st;
    return recorder.on && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

/* ---- spoiling ---- */

void disk_fail(enum disk_fault fault, unsigned k, bool forever)
{
    spoiler.armed = true;
    spoiler.hit = false;
    spoiler.calls = 0;
    spoiler.fault = fault;
    spoiler.k = k;
    spoiler.forever = forever;
}

unsigned disk_calls(void)
{
    return spoiler.calls;
}

bool disk_failed(void)
{
    return spoiler.hit;
}

void disk_heal(void)
{
    spoiler.armed = false;
}

void disk_skip_syncs(void)
{
    skips_syncs = true;
}

static void undo_forget(void)
{
    for (size_t i = 0; i < spoiler.undo.count; i++)
        mem_free(VEC_AT(&spoiler.undo, struct disk_event)[i].bytes);
    spoiler.undo.count = 0;
}

static void undo_note(int fd, uint64_t at, size_t size)
{
    if (!spoiler.armed || spoiler.fault != FAULT_EIO)
        return;
    struct disk_event *e = VEC_PUSH(&spoiler.undo, struct disk_event);
    *e = (struct disk_event){DISK_WRITE, at, size, mem_zalloc(size)};
    (void)!pread(fd, e->bytes, size, (off_t)at); /* zeros behind the end */
}

/* The kernel marks pages clean whose write-back failed: the next sync succeeds without them. */
static void undo_apply(int fd)
{
    for (size_t i = spoiler.undo.count; i-- > 0;) {
        const struct disk_event *e = &VEC_AT(&spoiler.undo, struct disk_event)[i];
        ssize_t n = REAL(pwrite)(fd, e->bytes, e->size, (off_t)e->at);
        STOA_ASSERT(n == (ssize_t)e->size);
    }
    undo_forget();
}

static bool spoils(void)
{
    if (!spoiler.armed)
        return false;
    spoiler.calls++;
    bool now = spoiler.calls == spoiler.k || (spoiler.forever && spoiler.calls > spoiler.k);
    spoiler.hit |= now;
    errno = now ? (spoiler.fault == FAULT_ENOSPC ? ENOSPC : EIO) : errno;
    return now;
}

/* ---- the calls ---- */

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at)
{
    if (!is_data(fd))
        return REAL(pwrite)(fd, bytes, size, at);
    bool bad = spoils();
    if (bad && spoiler.fault != FAULT_SHORT)
        return -1;
    if (!(fcntl(fd, F_GETFL) & O_DSYNC))
        undo_note(fd, (uint64_t)at, size);
    ssize_t n = REAL(pwrite)(fd, bytes, bad ? size / 2 : size, at);
    if (recorder.on && n > 0)
        note_write(fd, (uint64_t)at, bytes, (size_t)n);
    return n;
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
    if (!is_data(fd))
        return REAL(writev)(fd, iov, count);
    bool bad = spoils();
    if (bad && spoiler.fault != FAULT_SHORT)
        return -1;
    off_t at = lseek(fd, 0, SEEK_CUR);
    size_t all = 0;
    for (int i = 0; i < count; i++)
        all += iov[i].iov_len;
    undo_note(fd, (uint64_t)at, all);
    ssize_t n = REAL(writev)(fd, iov, bad ? count / 2 : count);
    size_t left = n > 0 ? (size_t)n : 0;
    for (int i = 0; recorder.on && left > 0; i++) {
        size_t size = iov[i].iov_len < left ? iov[i].iov_len : left;
        note_write(fd, (uint64_t)at, iov[i].iov_base, size);
        at += (off_t)size;
        left -= size;
    }
    return n;
}

/* glibc's own stdio does not come by here; who writes a data file does. */
ssize_t write(int fd, const void *bytes, size_t size)
{
    if (!is_data(fd))
        return REAL(write)(fd, bytes, size);
    const struct iovec one = {(void *)(uintptr_t)bytes, size};
    return writev(fd, &one, 1);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
    STOA_ASSERT(!is_data(fd)); /* nobody is known to call it: record it when somebody does */
    return REAL(pwritev)(fd, iov, count, at);
}

int msync(void *at, size_t size, int flags)
{
    STOA_ASSERT(!recorder.on); /* the same */
    return REAL(msync)(at, size, flags);
}

int ftruncate(int fd, off_t size)
{
    STOA_ASSERT(!is_data(fd)); /* the same */
    return REAL(ftruncate)(fd, size);
}

static int sync_with(int fd, int (*sync)(int))
{
    bool names = is_directory(fd);
    if (!names && !is_data(fd))
        return sync(fd);
    if (!names && spoils()) {
        undo_apply(fd);
        errno = spoiler.fault == FAULT_ENOSPC ? ENOSPC : EIO;
        return -1;
    }
    int rc = names || !skips_syncs ? sync(fd) : 0;
    if (!names)
        undo_forget();
    if (recorder.on && rc == 0)
        note(names ? DISK_SYNC_NAMES : DISK_SYNC, 0, 0, NULL);
    return rc;
}

int fdatasync(int fd)
{
    return sync_with(fd, REAL(fdatasync));
}

int fsync(int fd)
{
    return sync_with(fd, REAL(fsync));
}

int fallocate(int fd, int mode, off_t at, off_t size)
{
    if (!is_data(fd))
        return REAL(fallocate)(fd, mode, at, size);
    if (spoils())
        return -1;
    int rc = REAL(fallocate)(fd, mode, at, size);
    if (recorder.on && rc == 0)
        note(DISK_SIZE, (uint64_t)(at + size), 0, NULL);
    return rc;
}

int rename(const char *from, const char *to)
{
    int rc = REAL(rename)(from, to);
    const char *name = strrchr(to, '/');
    if (recorder.on && rc == 0 && name && strcmp(name + 1, DISK_FILE) == 0)
        note(DISK_NAME, 0, 0, NULL);
    return rc;
}
