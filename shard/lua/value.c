/* CORE. Lua values as JSON and back.
 *
 *   null      room.null, a light userdata, so that it stays in tables
 *   number    without fraction or exponent and within 64 bits: an integer; else a float, which is
 *             written with a fraction or an exponent, in the fewest digits that read back the same
 *   string    bytes; what is not UTF-8 is written as U+FFFD
 *   array     a table with the array's metatable (room.json.array), or with the keys 1..n
 *   object    any other table, its keys strings; written in the order of their bytes, so that equal
 *             values are equal texts
 *
 * Metamethods are not asked: writing runs no code of the room. */
#include "shard/lua/host.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json.h"
#include "common/json_scan.h"
#include "common/limits.h"
#include "common/mem.h"

#define BYTES_PER_STEP 8

bool value_is_null(lua_State *L, int index)
{
    return lua_islightuserdata(L, index) && !lua_touserdata(L, index);
}

/* ---- reading: of a text that json_valid has accepted, so that only meanings can be wrong ---- */

struct reader {
    lua_State *L;
    struct lua_handler *h;
    const uint8_t *at, *end;
    const char *why;
};

static bool one_read(struct reader *r);

static void space_skip(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

static bool string_read(struct reader *r)
{
    const uint8_t *from = r->at++;
    bool escaped = false;
    for (;;) {
        r->at = plain_skip(r->at, r->end);
        if (*r->at == '"')
            break;
        escaped |= *r->at == '\\';
        r->at += *r->at == '\\' ? 2 : 1;
    }
    r->at++;
    if (!escaped) {
        lua_pushlstring(r->L, (const char *)from + 1, (size_t)(r->at - from - 2));
        return true;
    }
    struct strbuf *text = &r->h->scratch;
    strbuf_reset(text);
    struct json_value v = {JSON_STRING, slice_of(from, (size_t)(r->at - from))};
    if (!json_unescape(v, text)) {
        r->why = "a \\u escape is half of a surrogate pair";
        return false;
    }
    lua_pushlstring(r->L, text->size ? (const char *)text->data : "", text->size);
    return true;
}

static bool float_read(struct reader *r, const uint8_t *from)
{
    struct strbuf *text = &r->h->scratch;
    strbuf_reset(text);
    strbuf_put(text, from, (size_t)(r->at - from));
    double d = strtod(strbuf_cstr(text), NULL);
    if (!isfinite(d)) {
        r->why = "a number is too large";
        return false;
    }
    lua_pushnumber(r->L, d);
    return true;
}

static bool number_read(struct reader *r)
{
    const uint8_t *from = r->at;
    bool negative = *r->at == '-', whole = true, fits = true;
    uint64_t n = 0;
    for (r->at += negative; r->at < r->end; r->at++) {
        uint8_t c = *r->at;
        if (c >= '0' && c <= '9')
            fits &= !__builtin_mul_overflow(n, 10, &n) && !__builtin_add_overflow(n, c - '0', &n);
        else if (c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-')
            whole = false;
        else
            break;
    }
    if (!whole || !fits || n > (uint64_t)INT64_MAX + negative || (negative && n == 0))
        return float_read(r, from);
    lua_pushinteger(r->L, negative ? (lua_Integer)(0 - n) : (lua_Integer)n);
    return true;
}

static bool array_read(struct reader *r)
{
    lua_newtable(r->L);
    kept_push(r->L, KEPT_ARRAY);
    lua_setmetatable(r->L, -2);
    r->at++;
    space_skip(r);
    for (lua_Integer i = 1; *r->at != ']'; i++) {
        if (!one_read(r))
            return false;
        lua_rawseti(r->L, -2, i);
        space_skip(r);
        r->at += *r->at == ',';
    }
    r->at++;
    return true;
}

static bool object_read(struct reader *r)
{
    r->at++;
    space_skip(r);
    lua_createtable(r->L, 0, *r->at == '}' ? 0 : 2); /* few have one; growing is dear */
    while (*r->at != '}') {
        space_skip(r);
        if (!string_read(r))
            return false;
        space_skip(r);
        r->at++; /* the colon */
        if (!one_read(r))
            return false;
        lua_rawset(r->L, -3);
        space_skip(r);
        r->at += *r->at == ',';
        space_skip(r);
    }
    r->at++;
    return true;
}

static bool one_read(struct reader *r)
{
    luaL_checkstack(r->L, 4, "JSON");
    space_skip(r);
    switch (*r->at) {
    case '"':
        return string_read(r);
    case '[':
        return array_read(r);
    case '{':
        return object_read(r);
    case 't':
    case 'f':
        lua_pushboolean(r->L, *r->at == 't');
        r->at += *r->at == 't' ? 4 : 5;
        return true;
    case 'n':
        lua_pushlightuserdata(r->L, NULL);
        r->at += 4;
        return true;
    default:
        return number_read(r);
    }
}

bool value_push(lua_State *L, struct slice json, const char **why)
{
    budget_charge(L, json.size / BYTES_PER_STEP);
    if (!json_valid(json)) {
        *why = "not JSON";
        return false;
    }
    int top = lua_gettop(L);
    struct reader r = {L, handler_of(L), json.data, json.data + json.size, NULL};
    if (one_read(&r))
        return true;
    *why = r.why;
    lua_settop(L, top);
    return false;
}

/* ---- writing ---- */

struct writer {
    lua_State *L;
    struct strbuf *out;
    struct strbuf *keys; /* struct slice of the open objects' keys */
    const char *tag;
    unsigned depth;
};

static void one_write(struct writer *w, int index);

static void float_write(struct writer *w, double d)
{
    char text[40];
    if (!isfinite(d))
        error_raise(w->L, w->tag, "a number is %s, which JSON cannot say",
                    isnan(d) ? "not a number" : "infinite");
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    strbuf_put(w->out, text, (size_t)n);
    if (!strpbrk(text, ".e"))
        strbuf_put_text(w->out, ".0");
}

static void integer_write(struct strbuf *out, int64_t i)
{
    uint64_t magnitude = (uint64_t)i;
    if (i < 0) {
        strbuf_put_byte(out, '-');
        magnitude = 0 - magnitude;
    }
    strbuf_put_u64(out, magnitude);
}

static int key_compare(const void *a, const void *b)
{
    const struct slice *x = (const struct slice *)a, *y = (const struct slice *)b;
    int order = memcmp(x->data, y->data, x->size < y->size ? x->size : y->size);
    if (order != 0)
        return order;
    return x->size < y->size ? -1 : x->size > y->size;
}

/* Looks at the keys: strings are collected, the numbers' count and largest returned. */
static void keys_collect(struct writer *w, int table, lua_Integer *count, lua_Integer *largest)
{
    lua_State *L = w->L;
    lua_pushnil(L);
    while (lua_next(L, table)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING) {
            struct slice key;
            key.data = (const uint8_t *)lua_tolstring(L, -1, &key.size);
            strbuf_put(w->keys, &key, sizeof key);
        } else if (lua_isinteger(L, -1)) {
            lua_Integer i = lua_tointeger(L, -1);
            ++*count;
            if (i < 1)
                error_raise(L, w->tag, "a table has the key %lld; keys are strings, or 1 to n",
                            (long long)i);
            *largest = i > *largest ? i : *largest;
        } else {
            error_raise(L, w->tag, "a table has a key that is a %s; keys are strings, or 1 to n",
                        luaL_typename(L, -1));
        }
    }
}

static void object_write(struct writer *w, int table, size_t first)
{
    lua_State *L = w->L;
    size_t end = w->keys->size;
    size_t n = (end - first) / sizeof(struct slice);
    if (n > 1)
        qsort(w->keys->data + first, n, sizeof(struct slice), key_compare);
    strbuf_put_byte(w->out, '{');
    for (size_t at = first; at < end; at += sizeof(struct slice)) {
        struct slice key;
        memcpy(&key, w->keys->data + at, sizeof key);
        if (at > first)
            strbuf_put_byte(w->out, ',');
        json_quote(w->out, key);
        strbuf_put_byte(w->out, ':');
        lua_pushlstring(L, (const char *)key.data, key.size);
        lua_rawget(L, table);
        one_write(w, lua_gettop(L));
        lua_pop(L, 1);
    }
    strbuf_put_byte(w->out, '}');
    w->keys->size = first;
}

static void array_write(struct writer *w, int table, lua_Integer n)
{
    strbuf_put_byte(w->out, '[');
    for (lua_Integer i = 1; i <= n; i++) {
        if (i > 1)
            strbuf_put_byte(w->out, ',');
        lua_rawgeti(w->L, table, i);
        one_write(w, lua_gettop(w->L));
        lua_pop(w->L, 1);
    }
    strbuf_put_byte(w->out, ']');
}

static bool is_array(lua_State *L, int index)
{
    if (!lua_getmetatable(L, index))
        return false;
    kept_push(L, KEPT_ARRAY);
    bool equal = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return equal;
}

static void table_write(struct writer *w, int table)
{
    lua_State *L = w->L;
    if (++w->depth > JSON_DEPTH_MAX)
        error_raise(L, w->tag, "tables nested deeper than %d, or in a circle", JSON_DEPTH_MAX);
    luaL_checkstack(L, 8, "JSON");
    size_t first = w->keys->size;
    lua_Integer count = 0, largest = 0;
    keys_collect(w, table, &count, &largest);
    budget_charge(L, (size_t)count + w->keys->size - first);
    if (w->keys->size > first && count > 0)
        error_raise(L, w->tag, "a table has both numbers and strings as keys");
    if (count != largest)
        error_raise(L, w->tag, "an array has holes: %lld values, the last at %lld; use room.null",
                    (long long)count, (long long)largest);
    if (w->keys->size == first && (count > 0 || is_array(L, table)))
        array_write(w, table, count);
    else
        object_write(w, table, first);
    w->depth--;
}

static void one_write(struct writer *w, int index)
{
    lua_State *L = w->L;
    switch (lua_type(L, index)) {
    case LUA_TBOOLEAN:
        strbuf_put_text(w->out, lua_toboolean(L, index) ? "true" : "false");
        return;
    case LUA_TNUMBER:
        if (lua_isinteger(L, index))
            integer_write(w->out, lua_tointeger(L, index));
        else
            float_write(w, lua_tonumber(L, index));
        return;
    case LUA_TSTRING: {
        struct slice text;
        text.data = (const uint8_t *)lua_tolstring(L, index, &text.size);
        budget_charge(L, text.size / BYTES_PER_STEP);
        json_quote(w->out, text);
        if (w->out->size > STRING_MAX_BYTES)
            error_raise(L, w->tag, "more than %d bytes of JSON", STRING_MAX_BYTES);
        return;
    }
    case LUA_TTABLE:
        table_write(w, index);
        return;
    default:
        break;
    }
    if (!value_is_null(L, index))
        error_raise(L, w->tag, "a %s has no JSON", luaL_typename(L, index));
    strbuf_put_text(w->out, "null");
}

void value_write(lua_State *L, int index, struct strbuf *out, const char *tag)
{
    struct lua_handler *h = handler_of(L);
    struct writer w = {L, out, &h->keys, tag, 0};
    strbuf_reset(w.keys);
    if (lua_isnoneornil(L, index)) {
        strbuf_put_text(out, "null");
        return;
    }
    one_write(&w, lua_absindex(L, index));
}

struct slice value_text(lua_State *L, int index, const char *tag)
{
    struct lua_handler *h = handler_of(L);
    strbuf_reset(&h->text);
    value_write(L, index, &h->text, tag);
    return strbuf_slice(&h->text);
}
