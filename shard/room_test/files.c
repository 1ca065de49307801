/* SHELL. See files.h. */
#include "shard/room_test/files.h"

#include <errno.h>

#include "common/json.h"
#include "common/mem.h"
#include "common/shell/process.h"
#include "shard/lua/lua_handler.h"
#include "shard/plugin_handler.h"
#include "shard/shell_plugin.h"
#include "shard/shell_rooms.h"

#define FILE_MAX_BYTES (64u << 20)

/* ---- what a configuration says of a type ---- */

static bool whole(struct json_value v, uint64_t most, uint64_t *out)
{
    return json_u64(v, out) && *out >= 1 && *out <= most;
}

static bool duplicate_take(struct config_type *config, struct json_value v)
{
    static const char *const words[] = {"\"allow\"", "\"replace\"", "\"reject\""};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!slice_is(v.raw, words[i]))
            continue;
        mem_free(config->on_duplicate);
        config->on_duplicate = mem_strndup(words[i] + 1, v.raw.size - 2);
        return true;
    }
    return false;
}

/* Beside the room's file, unless it says from where. */
static char *beside(const char *room, struct slice file)
{
    struct strbuf out = {0};
    const char *slash = room ? strrchr(room, '/') : NULL;
    if (slash && file.size > 0 && file.data[0] != '/')
        strbuf_put(&out, room, (size_t)(slash - room) + 1);
    strbuf_put_slice(&out, file);
    char *copy = mem_strdup(strbuf_cstr(&out));
    strbuf_free(&out);
    return copy;
}

static char **schema_of(struct config_type *config, struct slice name)
{
    char **const files[BOUNDARY_COUNT] = {[BOUNDARY_STATE] = &config->schemas.state,
                                          [BOUNDARY_CONNECTION] = &config->schemas.connection,
                                          [BOUNDARY_EVENT] = &config->schemas.event,
                                          [BOUNDARY_BROADCAST] = &config->schemas.broadcast};
    for (int b = 0; b < BOUNDARY_COUNT; b++) {
        if (slice_is(name, boundary_name((enum boundary)b)))
            return files[b];
    }
    return NULL;
}

static bool schemas_take(struct config_type *config, const char *room, struct json_value v,
                         struct strbuf *why)
{
    struct strbuf file = {0};
    bool fine = v.type == JSON_OBJECT;
    for (struct json_iter it = json_members(v.raw); fine && json_next(&it);) {
        char **to = schema_of(config, it.name);
        strbuf_reset(&file);
        fine = to && json_unescape(it.value, &file);
        if (!fine)
            break;
        mem_free(*to);
        *to = beside(room, strbuf_slice(&file));
    }
    strbuf_free(&file);
    if (!fine)
        strbuf_put_text(why, "schemas: files for any of state, connection, event, broadcast");
    return fine;
}

static bool field_take(struct config_type *config, const char *room, struct slice name,
                       struct json_value v, struct strbuf *why)
{
    if (slice_is(name, "schemas"))
        return schemas_take(config, room, v, why);
    uint64_t n = 0;
    if (slice_is(name, "on_duplicate")) {
        if (duplicate_take(config, v))
            return true;
        strbuf_put_text(why, "on_duplicate: allow, replace or reject");
    } else if (slice_is(name, "max_connections")) {
        if (whole(v, 32768, &n)) {
            config->max_connections = (unsigned)n;
            return true;
        }
        strbuf_put_text(why, "max_connections: 1 to 32768");
    } else if (slice_is(name, "max_connection_state")) {
        if (whole(v, 16384, &n)) {
            config->max_connection_state = n;
            return true;
        }
        strbuf_put_text(why, "max_connection_state: 1 to 16384");
    } else {
        strbuf_printf(why, "%.*s: not a field of a room type that a test may set", SLICE_FMT(name));
    }
    return false;
}

static bool config_read(struct config_type *config, const char *room, struct slice json,
                        struct strbuf *why)
{
    if (json.size == 0)
        return true;
    if (!json_valid(json) || json_type_of(json) != JSON_OBJECT) {
        strbuf_put_text(why, "what a configuration says of a type is an object");
        return false;
    }
    for (struct json_iter it = json_members(json); json_next(&it);) {
        if (!field_take(config, room, it.name, it.value, why))
            return false;
    }
    return true;
}

/* ---- a file ---- */

static int64_t room_now_ms(void *arg)
{
    return world_now_ms(((struct room_files *)arg)->world);
}

static uint64_t room_random(void *arg)
{
    return world_random(((struct room_files *)arg)->world);
}

static void room_print(void *arg, struct slice line)
{
    struct room_files *f = arg;
    f->print(f->arg, line);
}

static bool is_library(const char *path)
{
    size_t n = strlen(path);
    return n > 3 && strcmp(path + n - 3, ".so") == 0;
}

static int lua_open(struct room_files *f, const char *path, struct handler **out,
                    struct strbuf *why)
{
    size_t size;
    char *text = process_read_file(path, FILE_MAX_BYTES, &size);
    if (!text) {
        strbuf_printf(why, "%s: %s", path, strerror(errno));
        return ERR_IO;
    }
    const struct lua_options options = {
        .now_ms = room_now_ms, .random = room_random, .print = room_print, .arg = f};
    int code = lua_handler_create(out, path, slice_of(text, size), &options, why);
    mem_free(text);
    return code;
}

static int linked_open(room_entry *entry, struct handler **out, struct strbuf *why)
{
    const stoa_room_vtable *table = entry(STOA_ROOM_ABI);
    if (table)
        return plugin_handler_create(out, table->name ? table->name : "a room", table, NULL, why);
    strbuf_put_text(why, "the room does not work with this version of stoa_room.h: build it anew");
    return ERR_INVALID;
}

static int code_open(struct room_files *f, struct room_file *file, struct strbuf *why)
{
    if (!file->path)
        return linked_open(file->entry, &file->handler, why);
    if (is_library(file->path))
        return plugin_load_file(&file->handler, file->path, slice_text(""), why);
    return lua_open(f, file->path, &file->handler, why);
}

static void file_close(struct room_file *file)
{
    if (file->handler)
        file->handler->vtable->destroy(file->handler);
    file->handler = NULL;
    type_schemas_free(&file->schemas);
}

static int file_open(struct room_files *f, struct room_file *file, struct strbuf *why)
{
    TRY(code_open(f, file, why));
    bool lua = file->path && !is_library(file->path);
    if (!file->name)
        file->name =
            mem_strdup(lua ? lua_handler_name(file->handler) : plugin_handler_name(file->handler));
    file->config.name = file->name; /* what is said of its schemas names it */
    TRY(type_schemas_load(&file->schemas, &file->config, why));
    memcpy(file->handler->schemas, file->schemas.at, sizeof file->schemas.at);
    return ERR_OK;
}

static void file_install(struct room_files *f, struct room_file *file)
{
    const struct shard_type type = {
        .name = file->name,
        .handler = file->handler,
        .retention = {.age_ms = 3600000, .count = 10000, .bytes = 16 * 1024 * 1024}};
    type_code_configure(&file->handler->traits, &file->config);
    world_type(f->world, &type);
}

static void file_free(struct room_file *file)
{
    file_close(file);
    mem_free(file->path);
    mem_free(file->name);
    mem_free(file->config.on_duplicate);
    char *schemas[] = {file->config.schemas.state, file->config.schemas.connection,
                       file->config.schemas.event, file->config.schemas.broadcast};
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++)
        mem_free(schemas[i]);
}

/* ---- the set ---- */

void room_files_begin(struct room_files *f, struct log *log)
{
    f->world = world_create(log);
    f->count = 0;
    world_start(f->world);
}

void room_files_end(struct room_files *f)
{
    world_destroy(&f->world);
    for (size_t i = 0; i < f->count; i++)
        file_free(&f->at[i]);
    f->count = 0;
}

static bool is_same(const struct room_file *file, const char *path, room_entry *entry)
{
    return path && file->path ? strcmp(path, file->path) == 0
                              : !path && !file->path && file->entry == entry;
}

int room_files_add(struct room_files *f, const char *path, room_entry *entry, struct slice config,
                   const char **name, struct strbuf *why)
{
    for (size_t i = 0; i < f->count; i++) {
        *name = f->at[i].name;
        if (is_same(&f->at[i], path, entry))
            return ERR_OK;
    }
    if (f->count == ROOM_FILES_MAX) {
        strbuf_put_text(why, "too many room types");
        return ERR_INVALID;
    }
    struct room_file *file = &f->at[f->count];
    *file = (struct room_file){.path = path ? mem_strdup(path) : NULL, .entry = entry};
    int code =
        config_read(&file->config, path, config, why) ? file_open(f, file, why) : (int)ERR_INVALID;
    if (code != ERR_OK) {
        file_free(file);
        return code;
    }
    *name = file->name;
    f->count++;
    file_install(f, file);
    return ERR_OK;
}

int room_files_restart(struct room_files *f, bool gateways_too, struct strbuf *why)
{
    world_stop(f->world, gateways_too);
    for (size_t i = 0; i < f->count; i++) {
        file_close(&f->at[i]);
        int code = file_open(f, &f->at[i], why);
        if (code != ERR_OK) {
            world_destroy(&f->world);
            return code;
        }
        file_install(f, &f->at[i]);
    }
    world_start(f->world);
    return ERR_OK;
}
