/* SHELL. Lua values as JSON and back, in the test's own Lua state: as rooms see them (shard/lua),
 * without a budget. null within a value is test.null, a value that is null as a whole is nil. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "common/json.h"
#include "common/limits.h"
#include "shard/room_test/script.h"

#define ARRAY "stoa.array"

/* ---- reading ---- */

static void one_decode(lua_State *L, struct json_value v);

static void number_decode(lua_State *L, struct slice raw)
{
    struct strbuf *text = &script_of(L)->text;
    strbuf_reset(text);
    strbuf_put_slice(text, raw);
    if (lua_stringtonumber(L, strbuf_cstr(text)) == 0)
        luaL_error(L, "a number that Lua does not read: %s", strbuf_cstr(text));
}

static void members_decode(lua_State *L, struct json_value v)
{
    struct json_iter it = json_members(v.raw);
    lua_Integer n = 0;
    luaL_checkstack(L, 4, "a value is too deep");
    lua_newtable(L);
    if (v.type == JSON_ARRAY)
        luaL_setmetatable(L, ARRAY);
    while (json_next(&it)) {
        if (v.type == JSON_OBJECT) {
            struct strbuf *text = &script_of(L)->text;
            struct json_value name = {JSON_STRING,
                                      slice_of(it.name.data - 1, it.name.size + 2)}; /* quotes */
            strbuf_reset(text);
            if (!json_unescape(name, text))
                luaL_error(L, "a member's name is no text");
            lua_pushlstring(L, strbuf_cstr(text), text->size);
        }
        one_decode(L, it.value);
        if (v.type == JSON_OBJECT)
            lua_rawset(L, -3);
        else
            lua_rawseti(L, -2, ++n);
    }
}

static void one_decode(lua_State *L, struct json_value v)
{
    struct strbuf *text = &script_of(L)->text;
    switch (v.type) {
    case JSON_TRUE:
    case JSON_FALSE:
        lua_pushboolean(L, v.type == JSON_TRUE);
        break;
    case JSON_NUMBER:
        number_decode(L, v.raw);
        break;
    case JSON_STRING:
        strbuf_reset(text);
        if (!json_unescape(v, text))
            luaL_error(L, "a text with half of a surrogate pair");
        lua_pushlstring(L, strbuf_cstr(text), text->size);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        members_decode(L, v);
        break;
    default:
        lua_pushlightuserdata(L, NULL);
        break;
    }
}

static struct slice trimmed(struct slice s)
{
    while (s.size > 0 && strchr(" \t\r\n", s.data[0]))
        s = slice_of(s.data + 1, s.size - 1);
    while (s.size > 0 && strchr(" \t\r\n", s.data[s.size - 1]))
        s.size--;
    return s;
}

void value_decode(lua_State *L, struct slice json)
{
    json = trimmed(json);
    if (json.size == 0 || slice_is(json, "null"))
        lua_pushnil(L);
    else if (json_valid(json))
        one_decode(L, (struct json_value){json_type_of(json), json});
    else
        lua_pushlstring(L, (const char *)json.data, json.size);
}

/* ---- writing ---- */

static void one_encode(lua_State *L, int index, unsigned depth);

/* A table with the keys 1..n. */
static bool is_array(lua_State *L, int index)
{
    lua_Integer n = 0;
    if (luaL_getmetafield(L, index, "__name") != LUA_TNIL) {
        bool array = lua_isstring(L, -1) && strcmp(lua_tostring(L, -1), ARRAY) == 0;
        lua_pop(L, 1);
        if (array)
            return true;
    }
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
        n++;
    return n > 0 && (lua_Integer)lua_rawlen(L, index) == n;
}

static void array_encode(lua_State *L, int index, unsigned depth)
{
    struct strbuf *out = &script_of(L)->json;
    lua_Integer n = (lua_Integer)lua_rawlen(L, index);
    strbuf_put_byte(out, '[');
    for (lua_Integer i = 1; i <= n; i++) {
        if (i > 1)
            strbuf_put_byte(out, ',');
        lua_rawgeti(L, index, i);
        one_encode(L, lua_gettop(L), depth + 1);
        lua_pop(L, 1);
    }
    strbuf_put_byte(out, ']');
}

/* In the order of the names, so that equal values are equal texts. */
static void object_encode(lua_State *L, int index, unsigned depth)
{
    struct strbuf *out = &script_of(L)->json;
    lua_Integer n = 0;
    lua_newtable(L);
    int names = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "an object's keys are texts, not a %s", luaL_typename(L, -2));
        lua_pushvalue(L, -2);
        lua_rawseti(L, names, ++n);
    }
    lua_getglobal(L, "table");
    lua_getfield(L, -1, "sort");
    lua_pushvalue(L, names);
    lua_call(L, 1, 0);
    strbuf_put_byte(out, '{');
    for (lua_Integer i = 1; i <= n; i++) {
        size_t size;
        lua_rawgeti(L, names, i);
        const char *name = lua_tolstring(L, -1, &size);
        if (i > 1)
            strbuf_put_byte(out, ',');
        json_quote(out, slice_of(name, size));
        strbuf_put_byte(out, ':');
        lua_rawget(L, index);
        one_encode(L, lua_gettop(L), depth + 1);
        lua_pop(L, 1);
    }
    strbuf_put_byte(out, '}');
    lua_settop(L, names - 1);
}

static void number_encode(lua_State *L, int index)
{
    struct strbuf *out = &script_of(L)->json;
    if (lua_isinteger(L, index)) {
        strbuf_printf(out, "%" PRId64, (int64_t)lua_tointeger(L, index));
        return;
    }
    double d = lua_tonumber(L, index);
    if (!isfinite(d))
        luaL_error(L, "this number has no JSON");
    size_t from = out->size;
    strbuf_printf(out, "%.17g", d);
    if (!strpbrk(strbuf_cstr(out) + from, ".e"))
        strbuf_put_text(out, ".0");
}

static void one_encode(lua_State *L, int index, unsigned depth)
{
    struct strbuf *out = &script_of(L)->json;
    struct slice text;
    luaL_checkstack(L, 8, "a value is too deep");
    if (depth > JSON_DEPTH_MAX)
        luaL_error(L, "a value is too deep");
    switch (lua_type(L, index)) {
    case LUA_TBOOLEAN:
        strbuf_put_text(out, lua_toboolean(L, index) ? "true" : "false");
        return;
    case LUA_TNUMBER:
        number_encode(L, index);
        return;
    case LUA_TSTRING:
        text.data = (const uint8_t *)lua_tolstring(L, index, &text.size);
        json_quote(out, text);
        return;
    case LUA_TTABLE:
        if (is_array(L, index))
            array_encode(L, index, depth);
        else
            object_encode(L, index, depth);
        return;
    default:
        break;
    }
    if (!lua_isnil(L, index) && !(lua_islightuserdata(L, index) && !lua_touserdata(L, index)))
        luaL_error(L, "a %s has no JSON", luaL_typename(L, index));
    strbuf_put_text(out, "null");
}

struct slice value_encode(lua_State *L, int index)
{
    struct strbuf *out = &script_of(L)->json;
    strbuf_reset(out);
    one_encode(L, lua_absindex(L, index), 0);
    return strbuf_slice(out);
}

static int array(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_setmetatable(L, ARRAY);
    return 1;
}

static int encode(lua_State *L)
{
    luaL_checkany(L, 1);
    struct slice json = value_encode(L, 1);
    lua_pushlstring(L, (const char *)json.data, json.size);
    return 1;
}

void value_open(lua_State *L)
{
    luaL_newmetatable(L, ARRAY);
    lua_pop(L, 1);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    lua_pushcfunction(L, array);
    lua_setfield(L, -2, "array");
    lua_pushcfunction(L, encode);
    lua_setfield(L, -2, "encode");
}
