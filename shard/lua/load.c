/* CORE. A room file's text becomes a handler: first line, chunk, and the fields of the table that
 * it returns, each checked. What is refused is refused with the place and with what would be right.
 */
#include "shard/lua/host.h"

#include <stdio.h>

#include "common/mem.h"

enum field_kind {
    FIELD_FUNCTION, /* one of the room's */
    FIELD_BOOLEAN,
    FIELD_INTEGER,
    FIELD_DUPLICATE,
    FIELD_PAIR, /* two texts */
    FIELD_METHODS,
};
struct field {
    const char *name;
    enum field_kind kind;
    size_t at; /* which function, or where in struct handler_traits */
    lua_Integer min, max;
};
#define TRAIT(member) offsetof(struct handler_traits, member)

static const struct field fields[] = {
    {"on_connect", FIELD_FUNCTION, FUNCTION_ON_CONNECT, 0, 0},
    {"on_event", FIELD_FUNCTION, FUNCTION_ON_EVENT, 0, 0},
    {"on_close", FIELD_FUNCTION, FUNCTION_ON_CLOSE, 0, 0},
    {"on_alarm", FIELD_FUNCTION, FUNCTION_ON_ALARM, 0, 0},
    {"on_decode_error", FIELD_FUNCTION, FUNCTION_ON_DECODE_ERROR, 0, 0},
    {"on_error", FIELD_FUNCTION, FUNCTION_ON_ERROR, 0, 0},
    {"identify", FIELD_FUNCTION, FUNCTION_IDENTIFY, 0, 0},
    {"init", FIELD_FUNCTION, FUNCTION_INIT, 0, 0},
    {"decode_event", FIELD_FUNCTION, FUNCTION_DECODE_EVENT, 0, 0},
    {"decode_state", FIELD_FUNCTION, FUNCTION_DECODE_STATE, 0, 0},
    {"decode_connection", FIELD_FUNCTION, FUNCTION_DECODE_CONNECTION, 0, 0},
    {"encode_broadcast", FIELD_FUNCTION, FUNCTION_ENCODE_BROADCAST, 0, 0},
    {"migrate", FIELD_FUNCTION, FUNCTION_MIGRATE, 0, 0},
    {"rpc", FIELD_METHODS, 0, 0, 0},
    {"on_duplicate", FIELD_DUPLICATE, TRAIT(on_duplicate), 0, 0},
    {"auto_response", FIELD_PAIR, 0, 0, 0},
    {"rollback", FIELD_BOOLEAN, TRAIT(rollback), 0, 0},
    {"exclusive", FIELD_BOOLEAN, TRAIT(exclusive), 0, 0},
    {"max_connections", FIELD_INTEGER, TRAIT(max_connections), 1, 32768},
    {"max_connection_state", FIELD_INTEGER, TRAIT(max_connection_state), 1, 16384},
    {"alarm_retries", FIELD_INTEGER, TRAIT(alarm_retries), 0, 100},
    {"state_version", FIELD_INTEGER, TRAIT(state_version), 0, INT32_MAX},
};
#define FIELDS (sizeof fields / sizeof *fields)

const char *lua_room_field(size_t i)
{
    return i < FIELDS ? fields[i].name : NULL;
}

/* ---- first line ---- */

static bool name_ok(struct slice name)
{
    if (name.size == 0 || name.size > 64)
        return false;
    for (size_t i = 0; i < name.size; i++) {
        uint8_t c = name.data[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-' || c == '.';
        if (!ok)
            return false;
    }
    return true;
}

static bool word_take(struct slice *line, struct slice *word)
{
    while (line->size > 0 && (*line->data == ' ' || *line->data == '\t' || *line->data == '\r'))
        *line = slice_of(line->data + 1, line->size - 1);
    size_t n = 0;
    while (n < line->size && !strchr(" \t\r", line->data[n]))
        n++;
    *word = slice_of(line->data, n);
    *line = slice_of(line->data + n, line->size - n);
    return n > 0;
}

static bool refused(struct lua_handler *h, struct strbuf *why, const char *text)
{
    strbuf_printf(why, "%s:1: %s; the first line is \"#!room name=NAME api=1\"", h->file_name,
                  text);
    return false;
}

bool load_header(struct lua_handler *h, struct slice *text, struct strbuf *why)
{
    if (text->size > LUA_TEXT_MAX_BYTES) {
        strbuf_printf(why, "%s: %zu bytes; a room file has at most %d", h->file_name, text->size,
                      LUA_TEXT_MAX_BYTES);
        return false;
    }
    const uint8_t *end = text->size ? (const uint8_t *)memchr(text->data, '\n', text->size) : NULL;
    struct slice line = slice_of(text->data, end ? (size_t)(end - text->data) : text->size);
    struct slice word, name = {NULL, 0};
    bool api = false;
    if (!word_take(&line, &word) || !slice_is(word, "#!room"))
        return refused(h, why, "no room file");
    while (word_take(&line, &word)) {
        if (word.size > 5 && memcmp(word.data, "name=", 5) == 0) {
            name = slice_of(word.data + 5, word.size - 5);
        } else if (word.size > 4 && memcmp(word.data, "api=", 4) == 0) {
            api = true;
            if (!slice_is(word, "api=1"))
                return refused(h, why, "this host speaks api=1 only");
        } else {
            return refused(h, why, "only name= and api= are known here");
        }
    }
    if (!name_ok(name))
        return refused(h, why, "name= is missing, or has other characters than a-z A-Z 0-9 _ - .");
    if (!api)
        return refused(h, why, "api= is missing");
    h->name = mem_strndup((const char *)name.data, name.size);
    *text = slice_of(text->data + (end ? (size_t)(end - text->data) : text->size),
                     end ? text->size - (size_t)(end - text->data) : 0);
    return true;
}

/* ---- fields ---- */

/* How many letters apart two names are (at most 31 letters each). */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[32];
    size_t n = strlen(b);
    if (n > 31 || strlen(a) > 31)
        return 32;
    for (unsigned j = 0; j <= n; j++)
        row[j] = j;
    for (unsigned i = 1; a[i - 1] != '\0'; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            unsigned least = row[j] < row[j - 1] ? row[j] : row[j - 1];
            unsigned changed = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = least + 1 < changed ? least + 1 : changed;
        }
    }
    return row[n];
}

static int unknown_field(lua_State *L, const char *name)
{
    const char *file = handler_of(L)->file_name;
    if (strcmp(name, "connection_cap") == 0)
        return error_raise(L, "LoadError",
                           "%s: field 'connection_cap' is now called "
                           "'max_connection_state'",
                           file);
    const char *near = NULL;
    unsigned best = 4;
    for (size_t i = 0; i < FIELDS; i++) {
        unsigned d = distance(name, fields[i].name);
        if (d < best) {
            best = d;
            near = fields[i].name;
        }
    }
    return error_raise(L, "LoadError", "%s: a room has no field '%s'%s%s%s", file, name,
                       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static int wrong_field(lua_State *L, const char *name, const char *right)
{
    return error_raise(L, "LoadError", "%s: field '%s' is a %s; it must be %s",
                       handler_of(L)->file_name, name, luaL_typename(L, -1), right);
}

static void integer_take(lua_State *L, const struct field *f)
{
    lua_Integer n = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : f->min - 1;
    if (n < f->min || n > f->max)
        error_raise(L, "LoadError", "%s: field '%s' must be an integer from %lld to %lld",
                    handler_of(L)->file_name, f->name, (long long)f->min, (long long)f->max);
    unsigned value = (unsigned)n;
    memcpy((char *)&handler_of(L)->base.traits + f->at, &value, sizeof value);
}

static void duplicate_take(lua_State *L, const struct field *f)
{
    static const char *const words[] = {"allow", "replace", "reject"};
    const char *word = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    for (int i = 0; i < 3; i++) {
        if (strcmp(word, words[i]) == 0) {
            handler_of(L)->base.traits.on_duplicate = (enum on_duplicate)i;
            return;
        }
    }
    wrong_field(L, f->name, "\"allow\", \"replace\" or \"reject\"");
}

static void pair_take(lua_State *L, const struct field *f)
{
    struct handler_traits *traits = &handler_of(L)->base.traits;
    struct strbuf *into[2] = {&traits->auto_request, &traits->auto_response};
    if (!lua_istable(L, -1) || lua_rawlen(L, -1) != 2)
        wrong_field(L, f->name, "{ request, response }, two texts");
    for (int i = 0; i < 2; i++) {
        lua_rawgeti(L, -1, i + 1);
        size_t size = 0;
        const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &size) : "";
        if (size == 0 || size > 2048)
            error_raise(L, "LoadError", "%s: each text of '%s' has 1 to 2048 bytes",
                        handler_of(L)->file_name, f->name);
        strbuf_reset(into[i]);
        strbuf_put(into[i], text, size);
        lua_pop(L, 1);
    }
}

static void method_check(lua_State *L, const char *name, const char *full)
{
    static const char *const reserved[] = {"send",  "broadcast",   "alarm", "close",
                                           "state", "connections", "log",   "presence"};
    const char *file = handler_of(L)->file_name;
    bool ok = name[0] != '\0' && strlen(full) <= 128 &&
              strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
                  strlen(name);
    if (!ok)
        error_raise(L, "LoadError",
                    "%s: the method '%s' has a name of other characters than a-z "
                    "A-Z 0-9 _ -, or of more than 128",
                    file, full);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
        if (strcmp(full, reserved[i]) == 0)
            error_raise(L, "LoadError",
                        "%s: the method name '%s' is reserved (also: send, "
                        "broadcast, alarm, close, state, connections, log, presence)",
                        file, full);
    }
}

/* The table on top holds methods and tables of methods: all go into `flat` under dotted names. */
static void methods_take(lua_State *L, int flat, const char *prefix, unsigned depth)
{
    const char *file = handler_of(L)->file_name;
    luaL_checkstack(L, 8, "methods");
    if (depth > 4)
        error_raise(L, "LoadError", "%s: field 'rpc' is nested deeper than 4 tables", file);
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            error_raise(L, "LoadError", "%s: field 'rpc' has a method without a name", file);
        const char *name = lua_tostring(L, -2);
        const char *full = lua_pushfstring(L, "%s%s%s", prefix, *prefix ? "." : "", name);
        method_check(L, name, full);
        if (lua_isfunction(L, -2)) {
            lua_pushvalue(L, -1);
            lua_pushvalue(L, -3);
            lua_rawset(L, flat);
        } else if (lua_istable(L, -2)) {
            lua_pushvalue(L, -2);
            methods_take(L, flat, full, depth + 1);
            lua_pop(L, 1);
        } else {
            error_raise(L, "LoadError", "%s: the method '%s' is a %s; it must be a function", file,
                        full, luaL_typename(L, -2));
        }
        lua_pop(L, 2);
    }
}

static void field_take(lua_State *L, const struct field *f)
{
    struct lua_handler *h = handler_of(L);
    switch (f->kind) {
    case FIELD_FUNCTION:
        if (!lua_isfunction(L, -1))
            wrong_field(L, f->name, "a function");
        lua_pushvalue(L, -1);
        h->functions[f->at] = luaL_ref(L, LUA_REGISTRYINDEX);
        break;
    case FIELD_BOOLEAN: {
        if (!lua_isboolean(L, -1))
            wrong_field(L, f->name, "true or false");
        bool value = lua_toboolean(L, -1);
        memcpy((char *)&h->base.traits + f->at, &value, sizeof value);
        break;
    }
    case FIELD_INTEGER:
        integer_take(L, f);
        break;
    case FIELD_DUPLICATE:
        duplicate_take(L, f);
        break;
    case FIELD_PAIR:
        pair_take(L, f);
        break;
    case FIELD_METHODS:
        if (!lua_istable(L, -1))
            wrong_field(L, f->name, "a table of functions");
        lua_rawgeti(L, LUA_REGISTRYINDEX, h->kept[KEPT_METHODS]);
        lua_insert(L, -2);
        methods_take(L, lua_gettop(L) - 1, "", 0);
        lua_remove(L, -2);
        break;
    }
}

static void fields_take(lua_State *L)
{
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        if (!name) {
            error_raise(L, "LoadError", "%s: the room's table has a field without a name",
                        handler_of(L)->file_name);
            return;
        }
        size_t i = 0;
        while (i < FIELDS && strcmp(name, fields[i].name) != 0)
            i++;
        if (i == FIELDS)
            unknown_field(L, name);
        field_take(L, &fields[i]);
        lua_pop(L, 1);
    }
}

/* ---- the chunk ---- */

static const char *text_read(lua_State *L, void *ud, size_t *size)
{
    (void)L;
    struct slice *text = (struct slice *)ud;
    const char *at = text->size ? (const char *)text->data : NULL;
    *size = text->size;
    text->size = 0;
    return at;
}

int load_enter(lua_State *L)
{
    struct lua_handler *h = handler_of(L);
    struct slice text = *(struct slice *)lua_touserdata(L, 1);
    lua_pushfstring(L, "@%s", h->file_name);
    if (lua_load(L, text_read, &text, lua_tostring(L, -1), "t") != LUA_OK)
        return error_raise(L, "LoadError", "%s", lua_tostring(L, -1));
    kept_push(L, KEPT_GLOBALS);
    lua_setupvalue(L, -2, 1);
    lua_newtable(L);
    kept_set(L, KEPT_METHODS);
    lua_call(L, 0, 1);
    if (!lua_istable(L, -1))
        return error_raise(L, "LoadError",
                           "%s: the file returns a %s; it must return the room's "
                           "table (return M)",
                           h->file_name, luaL_typename(L, -1));
    fields_take(L);
    return 0;
}

int init_enter(lua_State *L)
{
    struct lua_handler *h = handler_of(L);
    const char *why = "";
    if (h->options.env.size == 0)
        lua_newtable(L);
    else if (!value_push(L, h->options.env, &why) || !lua_istable(L, -1))
        return error_raise(L, "LoadError", "env is no JSON object: %s", why);
    lua_pushvalue(L, -1);
    kept_set(L, KEPT_ENV);
    if (lua_rawgeti(L, LUA_REGISTRYINDEX, h->functions[FUNCTION_INIT]) != LUA_TFUNCTION)
        return 0;
    lua_insert(L, -2);
    lua_call(L, 1, 0);
    return 0;
}
