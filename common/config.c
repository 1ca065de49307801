/* SHELL. Loading a configuration: defaults, then the file, the environment and the flags, each over
 * what was before; then what only the whole can show to be wrong. */
#include "common/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_internal.h"
#include "common/hash.h"
#include "common/mem.h"
#include "common/template.h"

#define FILE_MAX_BYTES (1u << 20)
#define SECRET_MAX_BYTES 65536
#define FILE_DEFAULT "stoa.yaml"

void config_problem(struct strbuf *why, const char *where, const char *path, const char *format,
                    ...)
{
    char text[1024];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    if (why->size > 0)
        strbuf_put_byte(why, '\n');
    if (path && *path != '\0')
        strbuf_printf(why, "%s: %s: %s", where, path, text);
    else
        strbuf_printf(why, "%s: %s", where, text);
}

/* ---- origins ---- */

static struct origin *origin_find(const struct config *c, const char *path)
{
    const struct origins *origins = c->origin_;
    for (size_t i = 0; i < origins->count; i++)
        if (strcmp(origins->at[i].path, path) == 0)
            return &origins->at[i];
    return NULL;
}

void config_note_origin(struct config *c, const char *path, const char *from)
{
    struct origins *origins = c->origin_;
    struct origin *known = origin_find(c, path);
    if (known) {
        mem_free(known->from);
        known->from = mem_strdup(from);
        return;
    }
    origins->at = mem_realloc(origins->at, (origins->count + 1) * sizeof *origins->at);
    origins->at[origins->count++] = (struct origin){mem_strdup(path), mem_strdup(from)};
}

const char *config_origin(const struct config *c, const char *path)
{
    const struct origin *known = origin_find(c, path);
    return known ? known->from : "default";
}

/* ---- defaults, types, routes, peers ---- */

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

#define TYPES_PREFIX "types.*."
#define ROUTES_PREFIX "routes.*."
#define PEERS_PREFIX "cluster.peers.*."
#define KEYS_PREFIX "auth.keys.*."

static bool is_single(const struct field *f)
{
    return !has_prefix(f->path, TYPES_PREFIX) && !has_prefix(f->path, ROUTES_PREFIX) &&
           !has_prefix(f->path, PEERS_PREFIX) && !has_prefix(f->path, KEYS_PREFIX);
}

/* Sets the defaults of the fields below `prefix`; NULL: of all that are there once. */
static void set_defaults(void *base, const char *prefix)
{
    struct strbuf why = {0};
    for (size_t i = 0; i < config_n_fields; i++) {
        const struct field *f = &config_fields[i];
        if (f->preset && (prefix ? has_prefix(f->path, prefix) : is_single(f))) {
            bool fine = config_value_set(f, base, f->preset, NULL, &why);
            STOA_ASSERT(fine);
        }
    }
    strbuf_free(&why);
}

struct config_type *config_type_named(struct config *c, struct slice name)
{
    for (size_t i = 0; i < c->n_types; i++)
        if (slice_is(name, c->types[i].name))
            return &c->types[i];
    if (c->n_types == CONFIG_TYPES_MAX)
        return NULL;
    struct config_type *type = &c->types[c->n_types++];
    type->name = mem_strndup((const char *)name.data, name.size);
    set_defaults(type, TYPES_PREFIX);
    return type;
}

void *config_route_new(struct config *c)
{
    if (c->n_routes == CONFIG_LIST_MAX)
        return NULL;
    struct config_route *route = &c->routes[c->n_routes++];
    set_defaults(route, ROUTES_PREFIX);
    return route;
}

void *config_peer_new(struct config *c)
{
    return c->cluster.n_peers == CONFIG_LIST_MAX ? NULL : &c->cluster.peers[c->cluster.n_peers++];
}

void *config_auth_key_new(struct config *c)
{
    return c->auth.n_keys == CONFIG_LIST_MAX ? NULL : &c->auth.keys[c->auth.n_keys++];
}

typedef void field_visitor(void *ctx, const char *path, const struct field *f, const void *base);

/* The fields below `prefix`, of the instance whose own path is in `path`. */
static void each_below(const char *prefix, struct strbuf *path, const void *base,
                       field_visitor *each, void *ctx)
{
    size_t own = path->size;
    for (size_t i = 0; i < config_n_fields; i++) {
        const struct field *f = &config_fields[i];
        if (!has_prefix(f->path, prefix))
            continue;
        strbuf_printf(path, ".%s", f->path + strlen(prefix));
        each(ctx, strbuf_cstr(path), f, base);
        path->size = own;
    }
    strbuf_reset(path);
}

void config_each(const struct config *c,
                 void (*each)(void *ctx, const char *path, const struct field *f, const void *base),
                 void *ctx)
{
    struct strbuf path = {0};
    for (size_t i = 0; i < config_n_fields; i++) {
        const struct field *f = &config_fields[i];
        if (is_single(f))
            each(ctx, f->path, f, c);
    }
    for (size_t i = 0; i < c->cluster.n_peers; i++) {
        strbuf_printf(&path, "cluster.peers[%zu]", i);
        each_below(PEERS_PREFIX, &path, &c->cluster.peers[i], each, ctx);
    }
    for (size_t i = 0; i < c->auth.n_keys; i++) {
        strbuf_printf(&path, "auth.keys[%zu]", i);
        each_below(KEYS_PREFIX, &path, &c->auth.keys[i], each, ctx);
    }
    for (size_t i = 0; i < c->n_types; i++) {
        strbuf_printf(&path, "types.%s", c->types[i].name);
        each_below(TYPES_PREFIX, &path, &c->types[i], each, ctx);
    }
    for (size_t i = 0; i < c->n_routes; i++) {
        strbuf_printf(&path, "routes[%zu]", i);
        each_below(ROUTES_PREFIX, &path, &c->routes[i], each, ctx);
    }
    strbuf_free(&path);
}

/* ---- files ---- */

/* The whole file, NUL-terminated and owned by the caller, or NULL and the reason. */
static char *read_file(const char *path, size_t max, size_t *size, struct strbuf *why)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        strbuf_put_text(why, strerror(errno));
        return NULL;
    }
    char *bytes = mem_alloc(max + 2);
    *size = fread(bytes, 1, max + 1, file);
    const char *problem = ferror(file) ? "cannot be read" : *size > max ? "is too large" : NULL;
    fclose(file);
    bytes[*size] = '\0';
    if (!problem)
        return bytes;
    strbuf_put_text(why, problem);
    mem_free(bytes);
    return NULL;
}

bool config_secret_file(const struct field *f, void *base, const char *path, const char *directory,
                        struct strbuf *why)
{
    struct strbuf full = {0};
    size_t size;
    if (directory && path[0] != '/')
        strbuf_printf(&full, "%s/", directory);
    strbuf_put_text(&full, path);
    strbuf_printf(why, "%s: ", strbuf_cstr(&full));
    char *text = read_file(strbuf_cstr(&full), SECRET_MAX_BYTES, &size, why);
    strbuf_free(&full);
    if (!text)
        return false;
    bool has_nul = strlen(text) != size;
    while (size > 0 && isspace((unsigned char)text[size - 1]))
        text[--size] = '\0';
    const char *begin = text + strspn(text, " \t\r\n");
    bool fine = !has_nul && *begin != '\0' && config_value_set(f, base, begin, NULL, why);
    if (has_nul)
        strbuf_put_text(why, "holds a NUL; a secret is text (base64, say)");
    else if (*begin == '\0')
        strbuf_put_text(why, "is empty");
    mem_free(text);
    return fine;
}

static int load_file(struct config *c, const char *path, bool must, struct strbuf *why)
{
    struct strbuf reason = {0};
    size_t size;
    char *text = read_file(path, FILE_MAX_BYTES, &size, &reason);
    if (!text) {
        bool absent = errno == ENOENT && !must;
        if (!absent)
            config_problem(why, path, NULL, "%s", strbuf_cstr(&reason));
        strbuf_free(&reason);
        return absent ? ERR_OK : ERR_IO;
    }
    const char *slash = strrchr(path, '/');
    char *directory =
        slash ? mem_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : mem_strdup(".");
    int code = config_yaml_apply(c, path, directory, slice_of(text, size), why);
    mem_free(directory);
    mem_free(text);
    strbuf_free(&reason);
    return code;
}

/* ---- environment and flags ---- */

static void variable_name(const char *path, const char *suffix, struct strbuf *out)
{
    strbuf_reset(out);
    strbuf_put_text(out, "STOA_");
    for (; *path != '\0'; path++)
        strbuf_put_byte(out, *path == '.' ? '_' : (uint8_t)toupper((unsigned char)*path));
    strbuf_put_text(out, suffix);
}

static int apply_variable(struct config *c, const struct field *f, bool is_file, struct strbuf *why)
{
    struct strbuf name = {0}, reason = {0};
    variable_name(f->path, is_file ? "_FILE" : "", &name);
    const char *text = getenv(strbuf_cstr(&name));
    bool fine = true;
    if (text && *text != '\0') {
        fine = is_file ? config_secret_file(f, c, text, NULL, &reason)
                       : config_value_set(f, c, text, NULL, &reason);
        if (fine)
            config_note_origin(c, f->path, strbuf_cstr(&name));
        else
            config_problem(why, strbuf_cstr(&name), f->path, "%s", strbuf_cstr(&reason));
    }
    strbuf_free(&name);
    strbuf_free(&reason);
    return fine ? ERR_OK : ERR_INVALID;
}

static int apply_environment(struct config *c, struct strbuf *why)
{
    int code = ERR_OK;
    for (size_t i = 0; i < config_n_fields; i++) {
        const struct field *f = &config_fields[i];
        if (!is_single(f) || config_holds_list(f))
            continue;
        if (config_has_twin(f) && apply_variable(c, f, true, why) != ERR_OK)
            code = ERR_INVALID;
        if (apply_variable(c, f, false, why) != ERR_OK)
            code = ERR_INVALID;
    }
    return code;
}

/* "dotted.path=value"; a list's entries are joined by ','. */
static int apply_override(struct config *c, const char *text, struct strbuf *why)
{
    const char *equals = strchr(text, '=');
    STOA_ASSERT(equals);
    bool is_file;
    char *path = mem_strndup(text, (size_t)(equals - text));
    struct strbuf reason = {0};
    const struct field *f = config_field(slice_text(path), &is_file);
    bool fine = false;
    if (!f || !is_single(f))
        strbuf_put_text(&reason, "unknown field");
    else
        fine = is_file ? config_secret_file(f, c, equals + 1, NULL, &reason)
                       : config_value_set(f, c, equals + 1, NULL, &reason);
    if (fine)
        config_note_origin(c, f->path, "flag");
    else
        config_problem(why, "flag", path, "%s", strbuf_cstr(&reason));
    strbuf_free(&reason);
    mem_free(path);
    return fine ? ERR_OK : ERR_INVALID;
}

/* ---- the whole ---- */

static bool replay_ok(const char *text)
{
    return !text || strcmp(text, "all") == 0 || strcmp(text, "none") == 0 ||
           (*text != '\0' && strlen(text) < 10 && strspn(text, "0123456789") == strlen(text));
}

static void check_list(const struct config *c, const char *path, const struct config_list *list,
                       struct strbuf *why)
{
    for (size_t i = 0; i < list->count; i++)
        for (size_t j = i + 1; j < list->count; j++)
            if (strcmp(list->at[i], list->at[j]) == 0)
                config_problem(why, config_origin(c, path), path, "%s stands there twice",
                               list->at[i]);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_peer(const struct config_peer *a, const struct config_peer *b)
{
    return same_text(a->key, b->key) && same_text(a->role, b->role) && same_text(a->name, b->name);
}

static void check_peers(const struct config *c, struct strbuf *why)
{
    const struct config_peer *peers = c->cluster.peers;
    for (size_t i = 0; i < c->cluster.n_peers; i++) {
        char path[40];
        snprintf(path, sizeof path, "cluster.peers[%zu]", i);
        size_t first = 0;
        while (!same_peer(&peers[first], &peers[i]))
            first++;
        if (!peers[i].key || !peers[i].role)
            config_problem(why, "configuration", path, "needs a key and a role");
        else if (first < i)
            config_problem(why, "configuration", path, "says the same as cluster.peers[%zu]",
                           first);
        if (peers[i].name && (*peers[i].name == '\0' || strlen(peers[i].name) > 64))
            config_problem(why, "configuration", path, "a name has 1 to 64 bytes");
    }
    if (c->cluster.n_peers > 0 && c->cluster.curve.allowed.count > 0)
        config_problem(why, config_origin(c, "cluster.curve.allowed"), "cluster.curve.allowed",
                       "lists keys that may be every role, and cluster.peers says which may be "
                       "which: move them there");
}

bool config_type_has_handler(const struct config_type *type)
{
    return type->handler && strcmp(type->handler, "events") != 0;
}

static bool header_ok(const char *name)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";
    size_t n = strlen(name);
    return n <= 64 && strspn(name, letters) == n;
}

static void check_schemas(const struct config *c, const struct config_type *type,
                          struct strbuf *why)
{
    const struct {
        const char *name, *file;
    } all[] = {{"state", type->schemas.state},
               {"connection", type->schemas.connection},
               {"event", type->schemas.event},
               {"broadcast", type->schemas.broadcast}};
    char path[128];
    for (size_t i = 0; i < sizeof all / sizeof *all && !config_type_has_handler(type); i++) {
        snprintf(path, sizeof path, "types.%s.schemas.%s", type->name, all[i].name);
        if (all[i].file)
            config_problem(why, config_origin(c, path), path,
                           "a type without a handler keeps payloads of any bytes as they are and "
                           "has no schemas");
    }
}

static void check_type(const struct config *c, const struct config_type *type, struct strbuf *why)
{
    char path[128];
    snprintf(path, sizeof path, "types.%s.handler", type->name);
    if (strcmp(type->name, "events") == 0 && config_type_has_handler(type))
        config_problem(why, config_origin(c, path), path,
                       "keys without a type are of this one and run no code: declare a type of "
                       "another name");
    snprintf(path, sizeof path, "types.%s.presence", type->name);
    if (type->presence && !config_type_has_handler(type))
        config_problem(
            why, config_origin(c, path), path,
            "needs a handler: a member is a connection id, and only a handler's identify "
            "says whose connection it is");
    snprintf(path, sizeof path, "types.%s.headers", type->name);
    for (size_t i = 0; i < type->headers.count; i++)
        if (!header_ok(type->headers.at[i]))
            config_problem(why, config_origin(c, path), path, "\"%s\" is no header's name",
                           type->headers.at[i]);
    check_list(c, path, &type->headers, why);
    check_schemas(c, type, why);
}

const char *config_entry_origin(const struct config *c, const char *path, const char *const *fields,
                                size_t n_fields)
{
    char field[64];
    for (size_t i = 0; i < n_fields; i++) {
        snprintf(field, sizeof field, "%s.%s", path, fields[i]);
        const struct origin *known = origin_find(c, field);
        if (known)
            return known->from;
    }
    return "configuration";
}

/* Path and key fit together; of the orpc dialect {chn} is in the token. */
static bool route_fits(const struct config_route *r, struct strbuf *why)
{
    static const char channel[] = "{chn}";
    char *key = mem_strdup(r->key), *at;
    while (strcmp(r->dialect, "orpc") == 0 && (at = strstr(key, channel)) != NULL)
        memmove(at, at + strlen(channel), strlen(at + strlen(channel)) + 1);
    bool fits = template_check(r->path, key, why);
    mem_free(key);
    return fits;
}

static void check_route(const struct config *c, size_t place, struct strbuf *why)
{
    static const char *const fields[] = {"path",        "key",   "replay", "dialect",
                                         "signing_key", "retry", "types"};
    const struct config_route *r = &c->routes[place];
    char path[32];
    struct strbuf reason = {0};
    snprintf(path, sizeof path, "routes[%zu]", place);
    const char *where = config_entry_origin(c, path, fields, sizeof fields / sizeof *fields);
    if (!r->path || r->path[0] != '/' || !r->key)
        config_problem(why, where, path, "needs a path that begins with '/' and a key");
    else if (!route_fits(r, &reason))
        config_problem(why, where, path, "%s", strbuf_cstr(&reason));
    if (!replay_ok(r->replay))
        config_problem(why, where, path, "replay is \"%s\"; it can be all, none or a number",
                       r->replay);
    strbuf_free(&reason);
}

static int check_whole(struct config *c, struct strbuf *why)
{
    size_t before = why->size;
    config_keys_complete(c, why);
    check_peers(c, why);
    config_auth_check(c, why);
    if (strlen(c->cluster.name) == 0 || strlen(c->cluster.name) > 64)
        config_problem(why, config_origin(c, "cluster.name"), "cluster.name",
                       "a name has 1 to 64 bytes");
    check_list(c, "cluster.routers", &c->cluster.routers, why);
    check_list(c, "cluster.shards", &c->cluster.shards, why);
    for (size_t i = 0; i < c->n_types; i++)
        check_type(c, &c->types[i], why);
    for (size_t i = 0; i < c->n_routes; i++)
        check_route(c, i, why);
    return why->size == before ? ERR_OK : ERR_INVALID;
}

int config_load(struct config *out, const char *path, const char *const *overrides,
                struct strbuf *why)
{
    *out = (struct config){.origin_ = mem_zalloc(sizeof(struct origins))};
    set_defaults(out, NULL);
    config_type_named(out, slice_text("events"));
    if (!path)
        path = getenv("STOA_CONFIG");
    bool must = path && *path != '\0';
    int code = load_file(out, must ? path : FILE_DEFAULT, must, why);
    int from_environment = apply_environment(out, why);
    if (code == ERR_OK)
        code = from_environment;
    for (size_t i = 0; overrides && overrides[i]; i++) {
        int from_flag = apply_override(out, overrides[i], why);
        if (code == ERR_OK)
            code = from_flag;
    }
    if (code == ERR_OK)
        code = check_whole(out, why);
    out->gateway.origins_set = origin_find(out, "gateway.origins") != NULL;
    return code;
}

static void free_below(void *base, const char *prefix)
{
    for (size_t i = 0; i < config_n_fields; i++) {
        const struct field *f = &config_fields[i];
        if (!(prefix ? has_prefix(f->path, prefix) : is_single(f)))
            continue;
        config_value_clear(f, base);
        if (config_holds_list(f))
            mem_free(((struct config_list *)(void *)((char *)base + f->offset))->at);
    }
}

void config_free(struct config *c)
{
    struct origins *origins = c->origin_;
    free_below(c, NULL);
    for (size_t i = 0; i < c->n_types; i++) {
        free_below(&c->types[i], TYPES_PREFIX);
        mem_free(c->types[i].name);
    }
    for (size_t i = 0; i < c->n_routes; i++)
        free_below(&c->routes[i], ROUTES_PREFIX);
    for (size_t i = 0; i < c->auth.n_keys; i++)
        free_below(&c->auth.keys[i], KEYS_PREFIX);
    for (size_t i = 0; i < c->cluster.n_peers; i++)
        free_below(&c->cluster.peers[i], PEERS_PREFIX);
    for (size_t i = 0; origins && i < origins->count; i++) {
        mem_free(origins->at[i].path);
        mem_free(origins->at[i].from);
    }
    if (origins)
        mem_free(origins->at);
    mem_free(origins);
    *c = (struct config){0};
}

/* ---- derived ---- */

enum { HASH_OF_SEED = 1 }; /* 2: cluster_id */

uint64_t config_slot_seed(const struct config *c)
{
    return c->cluster.seed != 0
               ? c->cluster.seed
               : hash_bytes(c->cluster.name, strlen(c->cluster.name), HASH_OF_SEED);
}

uint64_t config_cluster_id(const struct config *c)
{
    return cluster_id(slice_text(c->cluster.name));
}

void config_router_gateway_endpoint(const char *router, struct strbuf *out)
{
    const char *colon = strrchr(router, ':');
    if (has_prefix(router, "ipc://") || !colon) {
        strbuf_printf(out, "%s.gateway", router);
        return;
    }
    strbuf_put(out, router, (size_t)(colon + 1 - router));
    strbuf_put_u64(out, strtoul(colon + 1, NULL, 10) + 1);
}
