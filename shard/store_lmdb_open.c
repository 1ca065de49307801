/* SHELL. Opening and closing a shard's data directory, and everything that forbids it.
 *
 *   lock       flock for the process's life: one shard per directory
 *   io-error   left by a process that met EIO: what the disk holds is then unknown
 *   data.mdb   LMDB's file; its table `meta` says schema, cluster, node
 *   new/       where that file is made: it gets its name once it is whole and synced, so a power
 *              cut during the very first start leaves nothing that looks like a damaged file
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/mem.h"
#include "shard/store_lmdb_internal.h"
#include "shard/store_lmdb_record.h"

#define SCHEMA "stoa-shard-1"
#define MAP_DEFAULT_BYTES (UINT64_C(64) << 30)

/* File systems on which locks and memory maps do not hold; numbers of statfs(2). */
#define NFS_MAGIC 0x6969
#define CIFS_MAGIC 0xff534d42
#define SMB2_MAGIC 0xfe534d42

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
    if (statfs(dir, &fs) != 0) {
        strbuf_printf(why, "%s: %s", dir, strerror(errno));
        return ERR_IO;
    }
    uint32_t type = (uint32_t)fs.f_type;
    if (type == NFS_MAGIC || type == CIFS_MAGIC || type == SMB2_MAGIC) {
        strbuf_printf(why,
                      "%s lies on a network file system, where locks and memory maps do not "
                      "hold: use a local disk or a block volume (shard.data_dir)",
                      dir);
        return ERR_REFUSED;
    }
    if (access(dir, W_OK | X_OK) != 0) {
        strbuf_printf(why,
                      "%s: %s: a shard writes its directory; make it writable for this user, "
                      "or give another one (shard.data_dir)",
                      dir, strerror(errno));
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
        strbuf_printf(why,
                      "another shard is running on %s: pid %s: stop it, or give another directory "
                      "(shard.data_dir)",
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

static int env_failed(const struct lmdb_store *s, int rc, struct strbuf *why)
{
    const char *advice = rc == ENOSPC   ? "free some disk space"
                         : rc == ENOMEM ? "set a smaller shard.map_size"
                                        : "check the disk, or restore a backup";
    strbuf_printf(why, "%s/data.mdb: %s: %s", s->dir, mdb_strerror(rc), advice);
    return ERR_IO;
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

/* ---- identity ---- */

static uint64_t map_size(const struct store_lmdb_options *options)
{
    struct statvfs disk;
    uint64_t size = options->map_bytes ? options->map_bytes : MAP_DEFAULT_BYTES;
    if (options->map_bytes == 0 && statvfs(options->dir, &disk) == 0)
        size = (uint64_t)disk.f_blocks * disk.f_frsize;
    if (size > MAP_DEFAULT_BYTES && options->map_bytes == 0)
        size = MAP_DEFAULT_BYTES;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    return size / page * page;
}

struct identity {
    struct lmdb_store *s;
    MDB_txn *txn;
    int rc; /* first error of LMDB */
};

static void identity_put(struct identity *id, const char *name, struct slice value)
{
    STOA_ASSERT(value.size <= SMALL_MAX_BYTES);
    uint8_t bytes[SMALL_HEADER_BYTES + SMALL_MAX_BYTES];
    MDB_val key = {strlen(name), (void *)(uintptr_t)name};
    MDB_val row = {SMALL_HEADER_BYTES + value.size, bytes};
    small_write(slice_text(name), value, bytes);
    if (id->rc == 0)
        id->rc = mdb_put(id->txn, id->s->meta, &key, &row, 0);
}

static bool identity_get(struct identity *id, const char *name, struct slice *value)
{
    MDB_val key = {strlen(name), (void *)(uintptr_t)name}, row;
    return mdb_get(id->txn, id->s->meta, &key, &row) == 0 &&
           small_read(slice_text(name), slice_of(row.mv_data, row.mv_size), value) == ERR_OK;
}

static bool identity_is(struct identity *id, const char *name, uint64_t number)
{
    struct slice value;
    return identity_get(id, name, &value) && slice_equal(value, slice_of(&number, sizeof number));
}

static void random_bytes(uint8_t *out, size_t size)
{
    while (size > 0) {
        ssize_t n = getrandom(out, size, 0);
        STOA_ASSERT(n > 0 || errno == EINTR);
        out += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
}

static void identity_create(struct identity *id, const struct store_lmdb_options *options)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t created = (uint64_t)now.tv_sec;
    struct slice name = slice_text(options->cluster_name);
    name.size = name.size > SMALL_MAX_BYTES ? SMALL_MAX_BYTES : name.size;
    random_bytes(id->s->node, sizeof id->s->node);
    identity_put(id, "schema", slice_text(SCHEMA));
    identity_put(id, "cluster", slice_of(&options->cluster, sizeof options->cluster));
    identity_put(id, "cluster_name", name);
    identity_put(id, "slot_seed", slice_of(&options->slot_seed, sizeof options->slot_seed));
    identity_put(id, "node", slice_of(id->s->node, sizeof id->s->node));
    identity_put(id, "created", slice_of(&created, sizeof created));
}

/* One damaged value here could let a forgotten message in again or give out an lsn twice. */
static bool values_are_sound(struct identity *id)
{
    MDB_cursor *cursor;
    MDB_val key, row;
    struct slice value;
    bool sound = true;
    id->rc = mdb_cursor_open(id->txn, id->s->meta, &cursor);
    if (id->rc != 0)
        return true;
    while (sound && mdb_cursor_get(cursor, &key, &row, MDB_NEXT) == 0)
        sound = small_read(slice_of(key.mv_data, key.mv_size), slice_of(row.mv_data, row.mv_size),
                           &value) == ERR_OK;
    mdb_cursor_close(cursor);
    return sound;
}

static int identity_check(struct identity *id, const struct store_lmdb_options *options,
                          struct strbuf *why)
{
    struct slice schema = {0}, name = {0}, node;
    const char *dir = id->s->dir;
    if (!identity_get(id, "schema", &schema) || !slice_is(schema, SCHEMA)) {
        strbuf_printf(why,
                      "%s is of format \"%.*s\", this program reads \"%s\": use the release "
                      "that wrote it, or another directory (shard.data_dir)",
                      dir, SLICE_FMT(schema), SCHEMA);
        return ERR_REFUSED;
    }
    (void)identity_get(id, "cluster_name", &name);
    if (!identity_is(id, "cluster", options->cluster)) {
        strbuf_printf(why,
                      "%s belongs to cluster \"%.*s\", this one is \"%s\": correct "
                      "cluster.name, or give another directory (shard.data_dir)",
                      dir, SLICE_FMT(name), options->cluster_name);
        return ERR_REFUSED;
    }
    if (!identity_is(id, "slot_seed", options->slot_seed)) {
        strbuf_printf(why,
                      "%s was written with another cluster.seed: its keys would not be found; "
                      "restore the seed",
                      dir);
        return ERR_REFUSED;
    }
    if (!values_are_sound(id) || !identity_get(id, "node", &node) ||
        node.size != sizeof id->s->node) {
        strbuf_printf(why, "%s: table meta is damaged: restore a backup", dir);
        return ERR_REFUSED;
    }
    memcpy(id->s->node, node.data, node.size);
    return ERR_OK;
}

/* A new directory gets its identity; an old one must be ours. */
static int identify(struct lmdb_store *s, const struct store_lmdb_options *options,
                    struct strbuf *why)
{
    struct identity id = {.s = s};
    MDB_stat meta, slots, rooms;
    int code = ERR_OK;
    id.rc = mdb_txn_begin(s->env, NULL, 0, &id.txn);
    if (id.rc == 0) {
        bool told = mdb_stat(id.txn, s->meta, &meta) == 0 &&
                    mdb_stat(id.txn, s->slots, &slots) == 0 &&
                    mdb_stat(id.txn, s->rooms, &rooms) == 0;
        STOA_ASSERT(told);
        s->is_new = slots.ms_entries == 0 && rooms.ms_entries == 0;
        if (meta.ms_entries == 0)
            identity_create(&id, options);
        else
            code = identity_check(&id, options, why);
        if (id.rc == 0 && code == ERR_OK)
            id.rc = mdb_txn_commit(id.txn);
        else
            mdb_txn_abort(id.txn);
    }
    if (id.rc != 0)
        code = env_failed(s, id.rc, why);
    return code;
}

/* ---- making the file ---- */

#define NEW "new"

static char *path_in(const struct lmdb_store *s, const char *name)
{
    struct strbuf path = {0};
    strbuf_printf(&path, "%s/%s", s->dir, name);
    char *text = mem_strdup(strbuf_cstr(&path));
    strbuf_free(&path);
    return text;
}

static void remove_new(const struct lmdb_store *s)
{
    static const char *const names[] = {NEW "/data.mdb", NEW "/lock.mdb"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_in(s, names[i]);
        (void)unlink(path);
        mem_free(path);
    }
    char *path = path_in(s, NEW);
    (void)rmdir(path);
    mem_free(path);
}

/* The whole of an environment in `in_new`, on disk when it is closed. */
static int make_env(struct lmdb_store *s, char *in_new, const struct store_lmdb_options *options,
                    struct strbuf *why)
{
    char *dir = s->dir;
    TRY(make_directory(in_new, why));
    s->dir = in_new;
    int rc = store_env_open(s);
    int code = rc != 0 ? env_failed(s, rc, why) : identify(s, options, why);
    if (rc == 0)
        store_env_close(s);
    s->dir = dir;
    return code;
}

/* Makes data.mdb where there is none; the directory is synced before the store is used. */
static int make_file(struct lmdb_store *s, const struct store_lmdb_options *options,
                     struct strbuf *why)
{
    char *file = path_in(s, "data.mdb"), *in_new = path_in(s, NEW);
    char *made = path_in(s, NEW "/data.mdb");
    struct stat st;
    bool there = stat(file, &st) == 0 ? st.st_size > 0 : errno != ENOENT;
    remove_new(s);
    int code = there ? ERR_OK : make_env(s, in_new, options, why);
    if (!there && code == ERR_OK && rename(made, file) != 0) {
        strbuf_printf(why, "%s: %s", file, strerror(errno));
        code = ERR_IO;
    }
    remove_new(s);
    mem_free(made);
    mem_free(in_new);
    mem_free(file);
    return code;
}

/* ---- opening ---- */

/* A name is durable only when the directory that holds it is: of the files, of the data directory,
 * and of the one that may have been made for it (data/shard-0). */
static int sync_directories(const char *dir, struct strbuf *why)
{
    static const char *const ups[] = {".", "..", "../.."};
    int code = ERR_OK;
    for (size_t i = 0; code == ERR_OK && i < sizeof ups / sizeof *ups; i++) {
        struct strbuf path = {0};
        strbuf_printf(&path, "%s/%s", dir, ups[i]);
        int fd = open(strbuf_cstr(&path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && fsync(fd) != 0 && errno != EINVAL) {
            strbuf_printf(why, "%s: %s while syncing the directory: check the disk",
                          strbuf_cstr(&path), strerror(errno));
            code = ERR_IO;
        }
        if (fd >= 0)
            close(fd);
        strbuf_free(&path);
    }
    return code;
}

static int open_steps(struct lmdb_store *s, const struct store_lmdb_options *options,
                      struct strbuf *why)
{
    TRY(make_directory(s->dir, why));
    TRY(check_filesystem(s->dir, why));
    TRY(take_lock(s, why));
    TRY(check_marker(s, options->after_eio, why));
    store_guard(s);
    TRY(store_check_file(s->dir, s->log, why));
    s->map_bytes = map_size(options);
    TRY(make_file(s, options, why));
    int rc = store_env_open(s);
    if (rc != 0)
        return env_failed(s, rc, why);
    TRY(identify(s, options, why));
    if (s->is_new)
        TRY(sync_directories(s->dir, why));
    TRY(store_probe_sync(s, why));
    s->space = true;
    store_space_look(s);
    LOG(s->log, LOG_INFO, "store.open", LOG_STR("dir", s->dir),
        LOG_U64("map_bytes", s->map_pages * s->page_bytes),
        LOG_U64("live_bytes", s->live_pages * s->page_bytes),
        LOG_U64("disk_free_bytes", s->disk_free_bytes),
        LOG_REAL("sync_ms", (double)s->sync_probe_ns / NS_PER_MS));
    return ERR_OK;
}

int store_lmdb_open(struct store **out, const struct store_lmdb_options *options, struct log *log,
                    struct metrics *metrics, struct strbuf *why)
{
    struct lmdb_store *s = mem_zalloc(sizeof *s);
    s->base.vtable = &store_lmdb_vtable;
    s->dir = mem_strdup(options->dir);
    s->lock_fd = s->file_fd = -1;
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
    store_env_close(s);
    store_unguard(s);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    mem_free(s->dir);
    mem_free(s);
}

/* A crash between making the file and the grant leaves it new: the grant happens at the next start.
 */
bool store_lmdb_is_new(const struct store *store)
{
    return ((const struct lmdb_store *)(const void *)store)->is_new;
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
    if (code == ERR_OK)
        return store->vtable->commit(store);
    store->vtable->abort(store);
    return code;
}
