/* SHELL. stoa-shard --check-room, which stoa room check runs: loads a room's code as a shard would,
 * and shows what will hold. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"
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

static void show(bool json, const struct handler_traits *t, const char *type)
{
    if (json) {
        struct strbuf out = {0};
        strbuf_put_text(&out, "{\"type\":");
        if (type)
            json_quote(&out, slice_text(type));
        else
            strbuf_put_text(&out, "null");
        strbuf_printf(&out,
                      ",\"on_duplicate\":\"%s\",\"max_connections\":%u,"
                      "\"max_connection_state\":%u,\"alarm_retries\":%u,\"state_version\":%u,"
                      "\"rollback\":%s,\"exclusive\":%s}\n",
                      duplicate_name(t->on_duplicate), t->max_connections, t->max_connection_state,
                      t->alarm_retries, t->state_version, t->rollback ? "true" : "false",
                      t->exclusive ? "true" : "false");
        fwrite(out.data, 1, out.size, stdout);
        strbuf_free(&out);
        return;
    }
    if (type)
        printf("# as the type %s of the configuration has it\n", type);
    printf("on_duplicate: %s\nmax_connections: %u\n", duplicate_name(t->on_duplicate),
           t->max_connections);
    printf("max_connection_state: %u\n", t->max_connection_state);
    printf("alarm_retries: %u\nstate_version: %u\nrollback: %s\nexclusive: %s\n", t->alarm_retries,
           t->state_version, t->rollback ? "true" : "false", t->exclusive ? "true" : "false");
}

static int check_code(const char *path, const struct config *config, bool json, struct strbuf *why)
{
    struct handler *handler;
    TRY(type_code_open(&handler, path, NULL, why));
    const char *type = NULL;
    for (size_t i = 0; i < config->n_types && !type; i++)
        if (config_type_has_handler(&config->types[i]) &&
            same_file(config->types[i].handler, path)) {
            type = config->types[i].name;
            type_code_configure(&handler->traits, &config->types[i]);
        }
    show(json, &handler->traits, type);
    handler->vtable->destroy(handler);
    return ERR_OK;
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
    strbuf_printf(why, "%s: a room's code is a file.lua or a file.so", path);
    return ERR_INVALID;
}
