/* SHELL. Opening and closing a shard's data directory, and everything that forbids it.
 *
 *   lock       flock for the process's life: one shard per directory
 *   io-error   left by a process that met EIO: what the disk holds is then unknown
 *   data.mdb   LMDB's file; its table `meta` says schema, cluster, node
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/mem.h"
#include "common/shell/process.h"
#include "shard/store_lmdb_internal.h"

#define SCHEMA "stoa-shard-1"
#define TABLES 8
#define MAP_DEFAULT_BYTES (UINT64_C(64) << 30)
#define NFS_MAGIC 0x6969 /* statfs(2) */

_Noreturn void store_die(struct lmdb_store *s, const char *what, int rc)
{
    LOG(s->log, LOG_ERROR, "store.failed", LOG_STR("dir", s->dir), LOG_STR("what", what),
        LOG_STR("why", mdb_strerror(rc)));
    if (rc == EIO) {
        struct strbuf path = {0};
        strbuf_printf(&path, "%s/" STORE_EIO_MARKER, s->dir);
        int fd = open(strbuf_cstr(&path), O_WRONLY | O_CREAT | O_DSYNC | O_CLOEXEC, 0600);
        if (fd >= 0)
            close(fd);
    }
    abort();
}

/* ---- the directory ---- */

static int make_directory(const char *dir, struct strbuf *why)
{
    char *path = mem_strdup(dir);
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    int rc = mkdir(path, 0700);
    mem_free(path);
    struct stat st;
    if ((rc == 0 || errno == EEXIST) && stat(dir, &st) == 0 && S_ISDIR(st.st_mode))
        return ERR_OK;
    strbuf_printf(why, "%s: %s; give a directory that this user may write (shard.data_dir)", dir,
                  strerror(errno));
    return ERR_IO;
}

static int check_filesystem(const char *dir, struct strbuf *why)
{
    struct statfs fs;
    if (statfs(dir, &fs) == 0 && (unsigned long)fs.f_type == NFS_MAGIC) {
        strbuf_printf(
            why,
            "%s lies on NFS, where locks and memory maps do not hold; use a local disk or "
            "a block volume",
            dir);
        return ERR_REFUSED;
    }
    if (access(dir, W_OK) != 0) {
        strbuf_printf(why, "%s: %s; a shard must be able to write its directory", dir,
                      strerror(errno));
        return ERR_REFUSED;
    }
    return ERR_OK;
}

static int take_lock(struct lmdb_store *s, struct strbuf *why)
{
    struct strbuf path = {0};
    char text[32] = "";
    strbuf_printf(&path, "%s/lock", s->dir);
    s->lock_fd = open(strbuf_cstr(&path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0) {
        strbuf_printf(why, "%s: %s", strbuf_cstr(&path), strerror(errno));
        strbuf_free(&path);
        return ERR_IO;
    }
    strbuf_free(&path);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t n = pread(s->lock_fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        strbuf_printf(
            why,
            "another shard is running on %s (pid %s); stop it, or give this one its own directory",
            s->dir, text[0] ? text : "unknown");
        return ERR_REFUSED;
    }
    struct strbuf pid = {0};
    strbuf_printf(&pid, "%ld\n", (long)getpid());
    bool noted = ftruncate(s->lock_fd, 0) == 0 &&
                 pwrite(s->lock_fd, pid.data, pid.size, 0) == (ssize_t)pid.size;
    strbuf_free(&pid);
    (void)noted; /* only for the message above */
    return ERR_OK;
}

static int check_marker(struct lmdb_store *s, bool after_eio, struct strbuf *why)
{
    struct strbuf path = {0};
    int code = ERR_OK;
    strbuf_printf(&path, "%s/" STORE_EIO_MARKER, s->dir);
    if (access(strbuf_cstr(&path), F_OK) == 0) {
        if (after_eio) {
            (void)unlink(strbuf_cstr(&path));
            LOG(s->log, LOG_WARN, "store.after_eio", LOG_STR("dir", s->dir));
        } else {
            strbuf_printf(why,
                          "the disk under %s failed (EIO) while a shard ran on it: what it holds "
                          "is not known. "
                          "Check or replace it, then start once with --after-eio",
                          s->dir);
            code = ERR_REFUSED;
        }
    }
    strbuf_free(&path);
    return code;
}

/* ---- the environment ---- */

static uint64_t map_size(const struct store_lmdb_options *options)
{
    struct statvfs disk;
    uint64_t size = options->map_bytes ? options->map_bytes : MAP_DEFAULT_BYTES;
    if (options->map_bytes == 0 && statvfs(options->dir, &disk) == 0) {
        uint64_t whole = (uint64_t)disk.f_blocks * disk.f_frsize;
        size = whole < size ? whole : size;
    }
    long page = sysconf(_SC_PAGESIZE);
    return size / (uint64_t)page * (uint64_t)page;
}

static int open_tables(struct lmdb_store *s, MDB_txn *txn)
{
    static const char *const logs[STORE_CLASSES] = {"log_0", "log_1"};
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < STORE_CLASSES; i++)
        rc = mdb_dbi_open(txn, logs[i], MDB_CREATE | MDB_INTEGERKEY, &s->log_dbi[i]);
    if (rc == 0)
        rc = mdb_dbi_open(txn, "rooms", MDB_CREATE | MDB_INTEGERKEY, &s->rooms);
    if (rc == 0)
        rc = mdb_dbi_open(txn, "slots", MDB_CREATE | MDB_INTEGERKEY, &s->slots);
    if (rc == 0)
        rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &s->meta);
    return rc;
}

static int meta_get(struct lmdb_store *s, MDB_txn *txn, const char *name, MDB_val *value)
{
    MDB_val key = {strlen(name), (void *)(uintptr_t)name};
    return mdb_get(txn, s->meta, &key, value);
}

static int meta_put(struct lmdb_store *s, MDB_txn *txn, const char *name, const void *bytes,
                    size_t size)
{
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, value = {size, (void *)(uintptr_t)bytes};
    return mdb_put(txn, s->meta, &key, &value, 0);
}

/* A new directory gets its identity; an old one must be ours. Returns an LMDB code, or an enum err
 * (both are negative, so the latter comes through `code`). */
static int identify(struct lmdb_store *s, MDB_txn *txn, const struct store_lmdb_options *options,
                    int *code, struct strbuf *why)
{
    MDB_val schema, cluster, name = {0, NULL}, node;
    if (meta_get(s, txn, "schema", &schema) == MDB_NOTFOUND) {
        process_random_bytes(s->node, sizeof s->node);
        int rc = meta_put(s, txn, "schema", SCHEMA, strlen(SCHEMA));
        if (rc == 0)
            rc = meta_put(s, txn, "cluster", &options->cluster, sizeof options->cluster);
        if (rc == 0)
            rc = meta_put(s, txn, "cluster_name", options->cluster_name,
                          strlen(options->cluster_name));
        return rc != 0 ? rc : meta_put(s, txn, "node", s->node, sizeof s->node);
    }
    *code = ERR_REFUSED;
    if (schema.mv_size != strlen(SCHEMA) || memcmp(schema.mv_data, SCHEMA, schema.mv_size) != 0) {
        strbuf_printf(why, "%s was written in format '%.*s'; this program opens '%s'", s->dir,
                      (int)schema.mv_size, (const char *)schema.mv_data, SCHEMA);
        return 0;
    }
    (void)meta_get(s, txn, "cluster_name", &name);
    if (meta_get(s, txn, "cluster", &cluster) != 0 || cluster.mv_size != sizeof options->cluster ||
        memcmp(cluster.mv_data, &options->cluster, cluster.mv_size) != 0) {
        strbuf_printf(why,
                      "%s belongs to cluster '%.*s', not to '%s'; set cluster.name to its own, or "
                      "give another "
                      "directory",
                      s->dir, (int)name.mv_size, (const char *)name.mv_data, options->cluster_name);
        return 0;
    }
    if (meta_get(s, txn, "node", &node) != 0 || node.mv_size != sizeof s->node) {
        strbuf_printf(why, "%s: the node's identity is damaged", s->dir);
        return 0;
    }
    memcpy(s->node, node.mv_data, sizeof s->node);
    *code = ERR_OK;
    return 0;
}

static int open_environment(struct lmdb_store *s, const struct store_lmdb_options *options,
                            struct strbuf *why)
{
    MDB_txn *txn = NULL;
    int dead, code = ERR_OK;
    uint64_t size = map_size(options);
    int rc = mdb_env_create(&s->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(s->env, size);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(s->env, TABLES);
    if (rc == 0)
        rc = mdb_env_open(s->env, s->dir, MDB_NOTLS | MDB_NORDAHEAD, 0600);
    if (rc == 0)
        rc = mdb_reader_check(s->env, &dead);
    if (rc == 0)
        rc = mdb_txn_begin(s->env, NULL, 0, &txn);
    if (rc == 0)
        rc = open_tables(s, txn);
    if (rc == 0)
        rc = identify(s, txn, options, &code, why);
    if (rc == 0 && code == ERR_OK) {
        rc = mdb_txn_commit(txn);
        txn = NULL;
    }
    if (txn != NULL)
        mdb_txn_abort(txn);
    if (rc != 0) {
        strbuf_printf(why, "%s: %s%s", s->dir, mdb_strerror(rc),
                      rc == ENOSPC ? "; free some disk space first" : "");
        return ERR_IO;
    }
    MDB_stat stat;
    mdb_env_stat(s->env, &stat);
    s->page_bytes = stat.ms_psize;
    s->map_pages = size / stat.ms_psize;
    return code;
}

static int open_steps(struct lmdb_store *s, const struct store_lmdb_options *options,
                      struct strbuf *why)
{
    TRY(make_directory(s->dir, why));
    TRY(check_filesystem(s->dir, why));
    TRY(take_lock(s, why));
    TRY(check_marker(s, options->after_eio, why));
    TRY(open_environment(s, options, why));
    store_reader_open(s);
    store_probe_sync(s);
    store_look_at_space(s);
    return ERR_OK;
}

int store_lmdb_open(struct store **out, const struct store_lmdb_options *options, struct log *log,
                    struct metrics *metrics, struct strbuf *why)
{
    struct lmdb_store *s = mem_zalloc(sizeof *s);
    s->base.vtable = &store_lmdb_vtable;
    s->dir = mem_strdup(options->dir);
    s->lock_fd = -1;
    s->log = log;
    s->reserve_bytes = options->reserve_bytes;
    s->commit_seconds =
        metrics_seconds(metrics, "stoa_commit_seconds", "", "Time of one commit, sync included.");
    s->sync_seconds = metrics_gauge(metrics, "stoa_disk_sync_seconds", "",
                                    "Median of a 4 KiB write with fdatasync, measured at start.");
    s->disk_free = metrics_gauge(metrics, "stoa_disk_free_bytes", "",
                                 "Free space of the file system that holds the data.");
    *out = &s->base;
    int code = open_steps(s, options, why);
    if (code != ERR_OK)
        store_lmdb_close(out);
    return code;
}

void store_lmdb_close(struct store **store)
{
    struct lmdb_store *s = (struct lmdb_store *)(void *)*store;
    if (s == NULL)
        return;
    *store = NULL;
    STOA_ASSERT(s->write == NULL && !s->reading);
    for (unsigned i = 0; i < STORE_CLASSES; i++)
        if (s->read_cursor[i] != NULL)
            mdb_cursor_close(s->read_cursor[i]);
    if (s->read != NULL)
        mdb_txn_abort(s->read);
    if (s->env != NULL)
        mdb_env_close(s->env);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    mem_free(s->dir);
    mem_free(s);
}

/* ---- identity ---- */

/* New means: no slot was ever granted here. A crash between making the file and the grant leaves it
 * new, so the grant happens at the next start. */
bool store_lmdb_is_new(const struct store *store)
{
    const struct lmdb_store *s = (const struct lmdb_store *)(const void *)store;
    const MDB_dbi tables[] = {s->slots, s->rooms, s->log_dbi[0], s->log_dbi[1]};
    MDB_txn *txn;
    MDB_stat stat;
    bool empty = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) == 0;
    if (!empty)
        return false;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        empty = empty && mdb_stat(txn, tables[i], &stat) == 0 && stat.ms_entries == 0;
    mdb_txn_abort(txn);
    return empty;
}

void store_lmdb_node(const struct store *store, uint8_t node[16])
{
    const struct lmdb_store *s = (const struct lmdb_store *)(const void *)store;
    memcpy(node, s->node, sizeof s->node);
}

int store_lmdb_boot(struct store *store, uint64_t boot)
{
    TRY(store->vtable->begin(store));
    int code = store->vtable->put_meta(store, "boot", boot);
    if (code != ERR_OK) {
        store->vtable->abort(store);
        return code;
    }
    return store->vtable->commit(store);
}
