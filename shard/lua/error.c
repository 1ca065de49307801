/* CORE. Errors as rooms see them and as the shard sees them.
 *
 * In Lua an error of the host is a table {tag, message, status, data} with a __tostring; room.error
 * and room.refuse make the same. Whatever else a room raises is a RoomExecutionError: its text and
 * traceback are for the log. */
#include "shard/lua/host.h"

#include <stdarg.h>
#include <stdio.h>

static int error_text(lua_State *L)
{
    lua_settop(L, 1);
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_pushliteral(L, "tag");
    lua_rawget(L, 1);
    lua_pushliteral(L, "message");
    lua_rawget(L, 1);
    const char *tag = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "error";
    const char *message = lua_type(L, 3) == LUA_TSTRING ? lua_tostring(L, 3) : "";
    lua_pushfstring(L, *message ? "%s: %s" : "%s", tag, message);
    return 1;
}

void error_open(lua_State *L)
{
    lua_createtable(L, 0, 3);
    lua_pushcfunction(L, error_text);
    lua_setfield(L, -2, "__tostring");
    lua_pushliteral(L, "error");
    lua_setfield(L, -2, "__metatable");
    lua_pushliteral(L, "error");
    lua_setfield(L, -2, "__name");
    kept_set(L, KEPT_ERROR);
}

static void error_table(lua_State *L, const char *tag)
{
    lua_createtable(L, 0, 4);
    lua_pushstring(L, tag);
    lua_setfield(L, -2, "tag");
    kept_push(L, KEPT_ERROR);
    lua_setmetatable(L, -2);
}

int error_raise(lua_State *L, const char *tag, const char *format, ...)
{
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (!tag)
        return luaL_error(L, "%s", message);
    luaL_checkstack(L, 6, "error");
    error_table(L, tag);
    lua_pushstring(L, message);
    lua_setfield(L, -2, "message");
    return lua_error(L);
}

void error_push(lua_State *L, const struct fault *fault)
{
    luaL_checkstack(L, 6, "error");
    error_table(L, fault->tag);
    lua_pushlstring(L, fault->message.size ? (const char *)fault->message.data : "",
                    fault->message.size);
    lua_setfield(L, -2, "message");
    if (fault->status) {
        lua_pushinteger(L, fault->status);
        lua_setfield(L, -2, "status");
    }
    const char *why;
    if (fault->data.size > 0 && value_push(L, strbuf_slice(&fault->data), &why))
        lua_setfield(L, -2, "data");
}

int error_raise_fault(lua_State *L, const struct fault *fault)
{
    error_push(L, fault);
    return lua_error(L);
}

int error_raise_own(lua_State *L)
{
    return error_raise_fault(L, &handler_of(L)->fault);
}

struct fault *error_own(lua_State *L)
{
    struct fault *f = &handler_of(L)->fault;
    f->tag[0] = '\0';
    f->status = 0;
    strbuf_reset(&f->message);
    strbuf_reset(&f->data);
    return f;
}

static bool is_error_table(lua_State *L, int index)
{
    if (!lua_istable(L, index) || !lua_getmetatable(L, index))
        return false;
    kept_push(L, KEPT_ERROR);
    bool equal = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return equal;
}

/* Pushes the text of the error at `index`; runs no code of the room. */
static void message_push(lua_State *L, int index)
{
    index = lua_absindex(L, index);
    if (lua_istable(L, index)) {
        lua_pushliteral(L, "message");
        lua_rawget(L, index);
        if (lua_type(L, -1) == LUA_TSTRING)
            return;
        lua_pop(L, 1);
    }
    if (lua_type(L, index) == LUA_TSTRING || lua_type(L, index) == LUA_TNUMBER) {
        lua_pushvalue(L, index);
        lua_tostring(L, -1);
        return;
    }
    lua_pushfstring(L, "the error is a %s", luaL_typename(L, index));
}

int error_raise_as(lua_State *L, const char *tag)
{
    message_push(L, -1);
    error_table(L, tag);
    lua_insert(L, -2);
    lua_setfield(L, -2, "message");
    return lua_error(L);
}

static void text_put(lua_State *L, int index, struct strbuf *out)
{
    size_t size;
    const char *text = lua_tolstring(L, index, &size);
    strbuf_put(out, text, size);
}

/* Whatever a room put into an error's data may fail to be JSON. */
static int data_write(lua_State *L)
{
    struct strbuf *out = (struct strbuf *)lua_touserdata(L, 2);
    value_write(L, 1, out, NULL);
    return 0;
}

static void table_fault(lua_State *co, struct fault *out)
{
    int table = lua_gettop(co);
    lua_getfield(co, table, "tag");
    snprintf(out->tag, sizeof out->tag, "%s",
             lua_type(co, -1) == LUA_TSTRING ? lua_tostring(co, -1) : "RoomExecutionError");
    lua_getfield(co, table, "status");
    if (lua_isinteger(co, -1) && lua_tointeger(co, -1) > 0 && lua_tointeger(co, -1) < 1000)
        out->status = (unsigned)lua_tointeger(co, -1);
    message_push(co, table);
    text_put(co, -1, &out->message);
    lua_getfield(co, table, "data");
    if (!lua_isnil(co, -1)) {
        lua_State *L = handler_of(co)->L;
        lua_pushcfunction(L, data_write);
        lua_xmove(co, L, 1);
        lua_pushlightuserdata(L, &out->data);
        if (lua_pcall(L, 2, 0, 0) != LUA_OK) {
            lua_pop(L, 1);
            strbuf_reset(&out->data);
        }
        lua_settop(co, table);
        return;
    }
    lua_settop(co, table);
}

void error_fault(lua_State *co, struct fault *out)
{
    out->tag[0] = '\0';
    out->status = 0;
    strbuf_reset(&out->message);
    strbuf_reset(&out->data);
    if (!lua_checkstack(co, 16)) {
        fault_set(out, "RoomExecutionError", "stack overflow");
        return;
    }
    if (is_error_table(co, -1)) {
        table_fault(co, out);
        return;
    }
    lua_State *L = handler_of(co)->L;
    message_push(co, -1);
    luaL_traceback(L, co, lua_tostring(co, -1), 0);
    lua_pop(co, 1);
    snprintf(out->tag, sizeof out->tag, "RoomExecutionError");
    text_put(L, -1, &out->message);
    lua_pop(L, 1);
}
