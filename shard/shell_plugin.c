/* SHELL. Opens a room type's shared library. All symbols are bound now, so that a missing one
 * refuses the load and does not end the shard in the middle of a room; none is shown to other
 * libraries. The path is taken as it is, never searched for. */
#include "shard/shell_plugin.h"

#include <dlfcn.h>

#include "shard/plugin_handler.h"

static void library_close(void *library)
{
    (void)dlclose(library);
}

static int refuse(void *library, struct strbuf *why, const char *path, const char *reason)
{
    strbuf_printf(why, "%s: %s", path, reason);
    if (library)
        library_close(library);
    return ERR_INVALID;
}

int plugin_load_file(struct handler **out, const char *path, struct slice config,
                     struct strbuf *why)
{
    const stoa_room_vtable *(*entry)(uint32_t);
    *out = NULL;
    struct strbuf place = {0}; /* a name without a slash would be searched for */
    strbuf_printf(&place, "%s%s", strchr(path, '/') ? "" : "./", path);
    void *library = dlopen(strbuf_cstr(&place), RTLD_NOW | RTLD_LOCAL);
    strbuf_free(&place);
    if (!library) {
        const char *reason = dlerror();
        return refuse(NULL, why, path, reason ? reason : "it cannot be opened");
    }
    void *symbol = dlsym(library, "stoa_room_plugin");
    if (!symbol)
        return refuse(library, why, path,
                      "it has no symbol stoa_room_plugin: a room in C exports it (stoa_room.h)");
    memcpy(&entry, &symbol, sizeof entry);
    const stoa_room_vtable *table = entry(STOA_ROOM_ABI);
    if (!table)
        return refuse(library, why, path,
                      "it does not work with this shard's version of stoa_room.h: build it anew");
    const struct plugin_options options = {
        .config = config, .release = library_close, .owner = library};
    int code = plugin_handler_create(out, path, table, &options, why);
    if (code != ERR_OK)
        library_close(library);
    return code;
}
