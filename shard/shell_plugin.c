/* SHELL. Opens a room type's shared library. All symbols are bound now, so that a missing one
 * refuses the load and does not end the shard in the middle of a room; none is shown to other
 * libraries. The path is taken as it is, never searched for. */
#include "shard/shell_plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/mem.h"
#include "shard/plugin_handler.h"

struct library {
    void *open; /* of dlopen */
    int copy;   /* the file in memory that it was opened from: the loader knows it by this number,
                   which nobody else may get meanwhile; -1: none */
};

static void library_close(void *owner)
{
    struct library *l = owner;
    if (l->open)
        (void)dlclose(l->open);
    if (l->copy >= 0)
        close(l->copy);
    mem_free(l);
}

static int refuse(struct library *l, struct strbuf *why, const char *path, const char *reason)
{
    strbuf_printf(why, "%s: %s", path, reason);
    library_close(l);
    return ERR_INVALID;
}

/* Opens `place`, which is `path` or stands for it. */
static int library_load(struct handler **out, struct library *l, const char *place,
                        const char *path, struct slice config, struct strbuf *why)
{
    const stoa_room_vtable *(*entry)(uint32_t);
    *out = NULL;
    l->open = dlopen(place, RTLD_NOW | RTLD_LOCAL);
    if (!l->open) {
        const char *reason = dlerror();
        return refuse(l, why, path, reason ? reason : "it cannot be opened");
    }
    void *symbol = dlsym(l->open, "stoa_room_plugin");
    if (!symbol)
        return refuse(l, why, path,
                      "it has no symbol stoa_room_plugin: a room in C exports it (stoa_room.h)");
    memcpy(&entry, &symbol, sizeof entry);
    const stoa_room_vtable *table = entry(STOA_ROOM_ABI);
    if (!table)
        return refuse(l, why, path,
                      "it does not work with this shard's version of stoa_room.h: build it anew");
    const struct plugin_options options = {.config = config, .release = library_close, .owner = l};
    int code = plugin_handler_create(out, path, table, &options, why);
    if (code != ERR_OK)
        library_close(l);
    return code;
}

static struct library *library_create(int copy)
{
    struct library *l = mem_alloc(sizeof *l);
    *l = (struct library){.copy = copy};
    return l;
}

int plugin_load_file(struct handler **out, const char *path, struct slice config,
                     struct strbuf *why)
{
    struct strbuf place = {0}; /* a name without a slash would be searched for */
    strbuf_printf(&place, "%s%s", strchr(path, '/') ? "" : "./", path);
    int code = library_load(out, library_create(-1), strbuf_cstr(&place), path, config, why);
    strbuf_free(&place);
    return code;
}

static bool write_all(int fd, struct slice bytes)
{
    while (bytes.size > 0) {
        ssize_t n = write(fd, bytes.data, bytes.size);
        if (n <= 0)
            return false;
        bytes = slice_of(bytes.data + n, bytes.size - (size_t)n);
    }
    return true;
}

int plugin_load_copy(struct handler **out, const char *path, struct slice bytes,
                     struct slice config, struct strbuf *why)
{
    const char *slash = strrchr(path, '/');
    char name[128], place[64];
    (void)snprintf(name, sizeof name, "%s", slash ? slash + 1 : path);
    *out = NULL;
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0 || !write_all(fd, bytes)) {
        strbuf_printf(why,
                      "%s: it runs, and a copy of the new one cannot be made (%s): give it another "
                      "name, or restart the shard",
                      path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return ERR_IO;
    }
    (void)snprintf(place, sizeof place, "/proc/self/fd/%d", fd);
    return library_load(out, library_create(fd), place, path, config, why);
}
