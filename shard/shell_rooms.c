/* SHELL. Handlers are loaded as a set. A reload loads a set beside the running one, from which it
 * borrows the handlers of files that have not changed; if a file does not load, the old set stays.
 * When the shard has the new set, what it does not borrow of the old one is destroyed. Schemas are
 * each set's own: a handler that is borrowed gets the new ones. */
#include "shard/shell_rooms.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "common/hash.h"
#include "common/mem.h"
#include "common/shell/process.h"
#include "common/tick.h"
#include "shard/lua/lua_handler.h"
#include "shard/shell_plugin.h"

#define FILE_MAX_BYTES (256u << 20)
#define SLOW_NS NS_PER_S

/* ---- what code may ask of the world before a room is there ---- */

/* The loop's CPU time when its turn began. One for the process, as the loop is: sets of code come
 * and go under it. */
static int64_t turn_cpu_ns;

static int64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static int64_t world_now_ms(void *arg)
{
    struct timespec t;
    (void)arg;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / NS_PER_MS;
}

static uint64_t world_random(void *arg)
{
    (void)arg;
    return process_random();
}

static void world_print(void *arg, struct slice line)
{
    struct type_codes *codes = arg;
    if (codes)
        LOG(codes->log, LOG_INFO, "room.print", LOG_SLICE("line", line));
}

static void world_renewed(void *arg, const char *file_name, size_t bytes)
{
    const struct type_codes *codes = arg;
    if (codes)
        LOG(codes->log, LOG_WARN, "room.memory_full", LOG_STR("file", file_name),
            LOG_U64("bytes", bytes),
            LOG_STR("now", "its state was made anew: what its rooms kept in memory is lost"));
}

static bool world_overdue(void *arg)
{
    return arg && cpu_ns() - turn_cpu_ns > SLOW_NS;
}

void type_codes_turn(const struct type_codes *codes)
{
    if (codes->count > 0)
        turn_cpu_ns = cpu_ns();
}

/* ---- one file ---- */

static bool has_suffix(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n > m && strcmp(text + n - m, suffix) == 0;
}

static char *file_read(const char *path, size_t *size, struct strbuf *why)
{
    char *text = process_read_file(path, FILE_MAX_BYTES, size);
    if (!text)
        strbuf_printf(why, "%s: %s", path, strerror(errno));
    return text;
}

static int code_open(struct handler **out, const char *path, struct slice text,
                     struct type_codes *codes, struct strbuf *why)
{
    if (has_suffix(path, ".so"))
        return plugin_load_file(out, path, slice_text(""), why);
    const struct lua_options options = {.now_ms = world_now_ms,
                                        .random = world_random,
                                        .print = world_print,
                                        .overdue = world_overdue,
                                        .renewed = world_renewed,
                                        .arg = codes};
    turn_cpu_ns = cpu_ns(); /* the load is a turn of its own */
    return lua_handler_create(out, path, text, &options, why);
}

int type_code_open(struct handler **out, const char *path, struct type_codes *codes,
                   struct strbuf *why)
{
    size_t size;
    char *text = file_read(path, &size, why);
    if (!text)
        return ERR_IO;
    int code = code_open(out, path, slice_of(text, size), codes, why);
    mem_free(text);
    return code;
}

void type_code_configure(struct handler_traits *traits, const struct config_type *type)
{
    static const char *const names[] = {[DUPLICATE_ALLOW] = "allow",
                                        [DUPLICATE_REPLACE] = "replace",
                                        [DUPLICATE_REJECT] = "reject"};
    for (size_t i = 0; type->on_duplicate && i < sizeof names / sizeof *names; i++)
        if (strcmp(type->on_duplicate, names[i]) == 0)
            traits->on_duplicate = (enum on_duplicate)i;
    if (type->max_connections > 0)
        traits->max_connections = type->max_connections;
    if (type->max_connection_state > 0)
        traits->max_connection_state = (unsigned)type->max_connection_state;
}

/* ---- a set ---- */

static struct type_code *code_of(struct type_codes *codes, const char *type)
{
    for (size_t i = 0; codes && i < codes->count; i++)
        if (strcmp(codes->at[i].type, type) == 0)
            return &codes->at[i];
    return NULL;
}

static void code_destroy(struct type_code *code)
{
    if (!code->borrowed)
        code->handler->vtable->destroy(code->handler);
    type_schemas_free(&code->schemas);
    mem_free(code->type);
    mem_free(code->path);
}

void type_codes_free(struct type_codes *codes)
{
    for (size_t i = 0; i < codes->count; i++)
        code_destroy(&codes->at[i]);
    codes->count = 0;
}

static struct type_code *code_add(struct type_codes *out, const char *type, const char *path,
                                  const uint8_t digest[32])
{
    struct type_code *code = &out->at[out->count++];
    *code = (struct type_code){.type = mem_strdup(type), .path = mem_strdup(path)};
    memcpy(code->digest, digest, sizeof code->digest);
    return code;
}

static void code_borrow(struct type_codes *out, const struct type_code *old, const char *path)
{
    struct type_code *code = code_add(out, old->type, path, old->digest);
    code->handler = old->handler;
    code->own = old->own;
    code->borrowed = true;
}

/* The loader takes a path that it has open for the library that it has open. */
static bool is_open_library(const struct type_codes *running, const char *path)
{
    for (size_t i = 0; running && i < running->count; i++)
        if (has_suffix(path, ".so") && strcmp(running->at[i].path, path) == 0)
            return true;
    return false;
}

/* False: the type has no handler; `why` says what is wrong with the file. */
static bool code_load(struct type_codes *out, struct type_codes *running,
                      const struct type_code *old, const struct config_type *type,
                      struct strbuf *why)
{
    struct handler *handler = NULL;
    uint8_t digest[32];
    size_t size;
    char *text = file_read(type->handler, &size, why);
    if (!text)
        return false;
    sha256(digest, text, size);
    bool same = old && memcmp(digest, old->digest, sizeof digest) == 0;
    struct slice bytes = slice_of(text, size);
    bool fine = same;
    if (!same && is_open_library(running, type->handler))
        fine = plugin_load_copy(&handler, type->handler, bytes, slice_text(""), why) == ERR_OK;
    else if (!same)
        fine = code_open(&handler, type->handler, bytes, running ? running : out, why) == ERR_OK;
    mem_free(text);
    if (same)
        code_borrow(out, old, type->handler);
    if (!fine || same)
        return fine;
    struct type_code *code = code_add(out, type->name, type->handler, digest);
    code->handler = handler;
    code->own = handler->traits;
    return true;
}

static void line_begin(struct strbuf *out, const struct config_type *type)
{
    if (out->size > 0)
        strbuf_put_byte(out, '\n');
    strbuf_printf(out, "types.%s.handler: ", type->name);
}

int type_codes_load(struct type_codes *out, struct type_codes *running, const struct config *config,
                    struct log *log, struct strbuf *changed, struct strbuf *why)
{
    struct strbuf problem = {0};
    size_t before = why->size;
    *out = (struct type_codes){.log = log};
    for (size_t i = 0; i < config->n_types; i++) {
        const struct config_type *type = &config->types[i];
        const struct type_code *old = code_of(running, type->name);
        strbuf_reset(&problem);
        if (!config_type_has_handler(type))
            continue;
        if (!code_load(out, running, old, type, &problem)) {
            line_begin(why, type);
            strbuf_put_slice(why, strbuf_slice(&problem));
            continue;
        }
        struct type_code *code = &out->at[out->count - 1];
        if (!code->borrowed) {
            line_begin(changed, type);
            strbuf_printf(changed, "%s is loaded", type->handler);
        }
        if (type_schemas_load(&code->schemas, type, why) == ERR_OK)
            type_schemas_diff(old ? &old->schemas : NULL, &code->schemas, type, changed);
    }
    strbuf_free(&problem);
    return why->size == before ? ERR_OK : ERR_INVALID;
}

struct handler *type_codes_handler(const struct type_codes *codes, const char *type)
{
    for (size_t i = 0; i < codes->count; i++)
        if (strcmp(codes->at[i].type, type) == 0)
            return codes->at[i].handler;
    return NULL;
}

static void codes_configure(struct type_codes *codes, const struct config *config)
{
    for (size_t i = 0; i < config->n_types; i++) {
        struct type_code *code = code_of(codes, config->types[i].name);
        if (!code)
            continue;
        struct handler_traits *traits = &code->handler->traits;
        traits->on_duplicate = code->own.on_duplicate;
        traits->max_connections = code->own.max_connections;
        traits->max_connection_state = code->own.max_connection_state;
        type_code_configure(traits, &config->types[i]);
        memcpy(code->handler->schemas, code->schemas.at, sizeof code->schemas.at);
    }
}

void type_codes_replace(struct type_codes *running, struct type_codes *fresh,
                        const struct config *config)
{
    for (size_t i = 0; i < running->count; i++) {
        const struct type_code *taken = code_of(fresh, running->at[i].type);
        running->at[i].borrowed = taken && taken->handler == running->at[i].handler;
    }
    type_codes_free(running);
    for (size_t i = 0; i < fresh->count; i++) {
        running->at[i] = fresh->at[i];
        running->at[i].borrowed = false;
    }
    running->count = fresh->count;
    running->log = fresh->log;
    fresh->count = 0;
    codes_configure(running, config);
}
