/* SHELL. LMDB's environment under the store, and what its errors mean.
 *
 * A failed commit leaves the environment usable as long as LMDB had not begun to write the meta
 * page; after that it refuses every transaction (MDB_PANIC) and the environment is opened anew,
 * provided that the disk still shows the last good commit.
 *
 * Full or broken? LMDB answers EIO for a short write too, which is how a file system says that it
 * is full in the middle of a block of pages. Our own descriptor tells them apart: the kernel
 * reports a failed write-back once to every open descriptor of the file.
 *
 * Pages are read through a map of the file, where a bad sector is not an error but SIGBUS: it ends
 * the process like every other EIO, with a message and the marker. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/mem.h"
#include "shard/store_lmdb_internal.h"

#define TABLES 8
#define DISK_FULL_BYTES ((uint64_t)4 * MIB) /* less than this is free on a full disk */

/* ---- opening ---- */

static int open_tables(struct lmdb_store *s)
{
    static const char *const logs[STORE_CLASSES] = {"log_0", "log_1"};
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; rc == 0 && i < STORE_CLASSES; i++)
        rc = mdb_dbi_open(txn, logs[i], MDB_CREATE | MDB_INTEGERKEY, &s->log_dbi[i]);
    if (rc == 0)
        rc = mdb_dbi_open(txn, "rooms", MDB_CREATE | MDB_INTEGERKEY, &s->rooms);
    if (rc == 0) /* files older than rooms with handlers get it here */
        rc = mdb_dbi_open(txn, "rows", MDB_CREATE, &s->rows);
    if (rc == 0)
        rc = mdb_dbi_open(txn, "slots", MDB_CREATE | MDB_INTEGERKEY, &s->slots);
    if (rc == 0)
        rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &s->meta);
    if (rc == 0) {
        s->live_pages = store_space_live(s, txn);
        return mdb_txn_commit(txn); /* writes nothing when the tables were there */
    }
    mdb_txn_abort(txn);
    return rc;
}

static int open_reader(struct lmdb_store *s)
{
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->read);
    for (unsigned i = 0; rc == 0 && i < STORE_CLASSES; i++)
        rc = mdb_cursor_open(s->read, s->log_dbi[i], &s->read_cursor[i]);
    if (s->read != NULL)
        mdb_txn_reset(s->read);
    return rc;
}

static void read_figures(struct lmdb_store *s)
{
    MDB_stat stat;
    MDB_envinfo info;
    mdb_env_stat(s->env, &stat);
    mdb_env_info(s->env, &info);
    s->page_bytes = stat.ms_psize;
    s->map_pages = info.me_mapsize / stat.ms_psize;
}

static int open_file(struct lmdb_store *s)
{
    struct strbuf path = {0};
    strbuf_printf(&path, "%s/data.mdb", s->dir);
    s->file_fd = open(strbuf_cstr(&path), O_RDWR | O_CLOEXEC);
    strbuf_free(&path);
    if (s->file_fd < 0)
        return errno;
    s->in_place = store_space_in_place(s->file_fd);
    return 0;
}

int store_env_open(struct lmdb_store *s)
{
    int dead;
    int rc = mdb_env_create(&s->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(s->env, s->map_bytes);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(s->env, TABLES);
    /* NOTLS: the reset read transaction and a write transaction live in one thread. */
    if (rc == 0)
        rc = mdb_env_open(s->env, s->dir, MDB_NOTLS, 0600);
    if (rc == 0)
        rc = mdb_reader_check(s->env, &dead);
    if (rc == 0)
        rc = open_file(s);
    if (rc == 0)
        rc = open_tables(s);
    if (rc == 0)
        rc = open_reader(s);
    if (rc == 0)
        read_figures(s);
    else
        store_env_close(s);
    return rc;
}

void store_env_close(struct lmdb_store *s)
{
    STOA_ASSERT(s->write == NULL && !s->reading);
    for (unsigned i = 0; i < STORE_CLASSES; i++) {
        if (s->read_cursor[i] != NULL)
            mdb_cursor_close(s->read_cursor[i]);
        s->read_cursor[i] = NULL;
    }
    if (s->read != NULL)
        mdb_txn_abort(s->read);
    s->read = NULL;
    if (s->env != NULL)
        mdb_env_close(s->env);
    s->env = NULL;
    if (s->file_fd >= 0)
        close(s->file_fd);
    s->file_fd = -1;
}

/* ---- errors ---- */

_Noreturn void store_die(struct lmdb_store *s, const char *what, int rc)
{
    LOG(s->log, LOG_ERROR, "store.failed", LOG_STR("dir", s->dir), LOG_STR("what", what),
        LOG_STR("why", mdb_strerror(rc)));
    if (rc == EIO) {
        struct strbuf path = {0};
        strbuf_printf(&path, "%s/" STORE_EIO_MARKER, s->dir);
        int fd = open(strbuf_cstr(&path), O_WRONLY | O_CREAT | O_DSYNC | O_CLOEXEC, 0600);
        int dir = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && write(fd, what, strlen(what)) > 0 && dir >= 0)
            (void)fsync(dir);
    }
    abort();
}

/* The shard is the only one in its process that maps a file, and has one store. */
static struct lmdb_store *guarded;

static void on_bus(int signal_no, siginfo_t *info, void *context)
{
    (void)signal_no, (void)context;
    struct lmdb_store *s = guarded;
    guarded = NULL;
    if (s != NULL && info->si_code == BUS_ADRERR)
        store_die(s, "read (SIGBUS: the disk fails, or data.mdb was cut short)", EIO);
    /* Not ours: it happens again, unhandled. */
}

void store_guard(struct lmdb_store *s)
{
    struct sigaction action = {.sa_sigaction = on_bus,
                               .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER};
    guarded = s;
    sigaction(SIGBUS, &action, NULL);
}

void store_unguard(const struct lmdb_store *s)
{
    struct sigaction usual = {.sa_handler = SIG_DFL};
    if (guarded != s)
        return;
    guarded = NULL;
    sigaction(SIGBUS, &usual, NULL);
}

static bool is_no_space(int rc)
{
    return rc == MDB_MAP_FULL || rc == MDB_TXN_FULL || rc == ENOSPC || rc == EDQUOT;
}

int store_outcome(struct lmdb_store *s, const char *what, int rc)
{
    if (rc == MDB_SUCCESS)
        return ERR_OK;
    if (!is_no_space(rc))
        store_die(s, what, rc);
    s->refused = true;
    return ERR_NO_SPACE;
}

static bool was_short_write(const struct lmdb_store *s)
{
    struct statvfs disk;
    if (fdatasync(s->file_fd) != 0)
        return false;
    /* A quota refuses to allocate while the file system still shows space. */
    return s->cannot_grow || (statvfs(s->dir, &disk) == 0 &&
                              (uint64_t)disk.f_bavail * disk.f_frsize < DISK_FULL_BYTES);
}

/* After a failed commit: the environment must answer, and show the commit before. */
static void ensure_usable(struct lmdb_store *s, size_t txn_id)
{
    MDB_txn *txn;
    MDB_envinfo info;
    int rc = mdb_txn_begin(s->env, NULL, 0, &txn);
    if (rc == MDB_PANIC) {
        rc = store_mend_meta(s->file_fd, s->page_bytes);
        store_env_close(s);
        if (rc == 0 || is_no_space(rc))
            rc = store_env_open(s);
        LOG(s->log, LOG_WARN, "store.reopened", LOG_STR("dir", s->dir));
    } else if (rc == 0) {
        mdb_txn_abort(txn);
    }
    if (rc != 0)
        store_die(s, "reopen", rc);
    mdb_env_info(s->env, &info);
    if (info.me_last_txnid >= txn_id)
        store_die(s, "a commit both failed and happened", EINVAL);
}

int store_commit_outcome(struct lmdb_store *s, size_t txn_id, int rc)
{
    if (rc == EIO && was_short_write(s))
        rc = ENOSPC;
    int code = store_outcome(s, "commit", rc);
    if (code != ERR_OK)
        ensure_usable(s, txn_id);
    return code;
}
