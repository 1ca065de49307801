/* SHELL. stoa-shard --check-room, which stoa room check runs: loads a room's code, and the schemas
 * of its type, as a shard would, and shows what will hold. A schema may be checked alone. And
 * stoa-shard --check-rooms, which stoa config check runs: loads all that the configuration names.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"
#include "common/shell/process.h"
#include "shard/shell_rooms.h"

static bool same_file(const char *a, const char *b)
{
    char left[PATH_MAX], right[PATH_MAX];
    return realpath(a, left) && realpath(b, right) && strcmp(left, right) == 0;
}

static const char *duplicate_name(enum on_duplicate d)
{
    return d == DUPLICATE_ALLOW ? "allow" : d == DUPLICATE_REPLACE ? "replace" : "reject";
}

static void show_schemas(const struct config_type *type)
{
    for (int b = 0; type && b < BOUNDARY_COUNT; b++) {
        const char *file = type_schema_file(type, (enum boundary)b);
        if (file)
            printf("schemas.%s: %s\n", boundary_name((enum boundary)b), file);
    }
}

static void put_schemas(struct strbuf *out, const struct config_type *type)
{
    bool first = true;
    strbuf_put_text(out, ",\"schemas\":{");
    for (int b = 0; type && b < BOUNDARY_COUNT; b++) {
        const char *file = type_schema_file(type, (enum boundary)b);
        if (!file)
            continue;
        strbuf_printf(out, "%s\"%s\":", first ? "" : ",", boundary_name((enum boundary)b));
        json_quote(out, slice_text(file));
        first = false;
    }
    strbuf_put_byte(out, '}');
}

static void show(bool json, const struct handler_traits *t, const struct config_type *type)
{
    if (json) {
        struct strbuf out = {0};
        strbuf_put_text(&out, "{\"type\":");
        if (type)
            json_quote(&out, slice_text(type->name));
        else
            strbuf_put_text(&out, "null");
        strbuf_printf(&out,
                      ",\"on_duplicate\":\"%s\",\"max_connections\":%u,"
                      "\"max_connection_state\":%u,\"alarm_retries\":%u,\"state_version\":%u,"
                      "\"rollback\":%s,\"exclusive\":%s",
                      duplicate_name(t->on_duplicate), t->max_connections, t->max_connection_state,
                      t->alarm_retries, t->state_version, t->rollback ? "true" : "false",
                      t->exclusive ? "true" : "false");
        put_schemas(&out, type);
        strbuf_put_text(&out, "}\n");
        fwrite(out.data, 1, out.size, stdout);
        strbuf_free(&out);
        return;
    }
    if (type)
        printf("# as the type %s of the configuration has it\n", type->name);
    printf("on_duplicate: %s\nmax_connections: %u\n", duplicate_name(t->on_duplicate),
           t->max_connections);
    printf("max_connection_state: %u\n", t->max_connection_state);
    printf("alarm_retries: %u\nstate_version: %u\nrollback: %s\nexclusive: %s\n", t->alarm_retries,
           t->state_version, t->rollback ? "true" : "false", t->exclusive ? "true" : "false");
    show_schemas(type);
}

static int check_code(const char *path, const struct config *config, bool json, struct strbuf *why)
{
    struct handler *handler;
    TRY(type_code_open(&handler, path, NULL, why));
    const struct config_type *type = NULL;
    for (size_t i = 0; i < config->n_types && !type; i++)
        if (config_type_has_handler(&config->types[i]) && same_file(config->types[i].handler, path))
            type = &config->types[i];
    struct type_schemas schemas = {0};
    int code = type ? type_schemas_load(&schemas, type, why) : ERR_OK;
    if (type)
        type_code_configure(&handler->traits, type);
    if (code == ERR_OK)
        show(json, &handler->traits, type);
    type_schemas_free(&schemas);
    handler->vtable->destroy(handler);
    return code;
}

static int check_schema(const char *path, bool json, struct strbuf *why)
{
    struct schema *schema;
    struct strbuf reason = {0};
    int code = schema_file_open(&schema, path, NULL, &reason);
    if (code != ERR_OK) {
        strbuf_printf(why, "%s: %s", path, strbuf_cstr(&reason));
    } else {
        puts(json ? "{\"schema\":true}" : "the schema is fine");
        schema->destroy(schema);
    }
    strbuf_free(&reason);
    return code;
}

static bool has_suffix(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n > m && strcmp(text + n - m, suffix) == 0;
}

int room_check(const char *path, const struct config *config, bool json, struct strbuf *why)
{
    if (has_suffix(path, ".lua") || has_suffix(path, ".so"))
        return check_code(path, config, json, why);
    if (has_suffix(path, ".json"))
        return check_schema(path, json, why);
    strbuf_printf(why, "%s: a room's code is a file.lua or a file.so, a schema a file.json", path);
    return ERR_INVALID;
}

int rooms_check(const struct config *config, struct strbuf *why)
{
    struct type_codes codes;
    struct strbuf loaded = {0};
    struct log log = process_log("shard", LOG_ERROR, LOG_TEXT);
    int code = type_codes_load(&codes, NULL, config, &log, &loaded, why);
    type_codes_free(&codes);
    strbuf_free(&loaded);
    return code;
}
