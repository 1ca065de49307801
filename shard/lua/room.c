/* CORE. The module "room": JSON, the clock and chance of the running segment, the log, and the two
 * ways of saying no. Each may be used while the file loads, too. */
#include "shard/lua/host.h"

#include <inttypes.h>
#include <stdio.h>

#define LINE_STEPS 2000 /* a line of the log is written by others */

static int64_t now_ms(struct lua_handler *h)
{
    if (h->ctx)
        return context_now_ms(h->ctx);
    return h->options.now_ms ? h->options.now_ms(h->options.arg) : 0;
}

uint64_t random_next(lua_State *L)
{
    struct lua_handler *h = handler_of(L);
    if (h->ctx)
        return context_random(h->ctx);
    return h->options.random ? h->options.random(h->options.arg) : 0;
}

int host_room_now_ms(lua_State *L)
{
    lua_pushinteger(L, now_ms(handler_of(L)));
    return 1;
}

/* A random UUID (RFC 9562, version 4). */
int host_room_uuid(lua_State *L)
{
    uint64_t a = (random_next(L) & ~UINT64_C(0xf000)) | 0x4000;
    uint64_t b = (random_next(L) & ~(UINT64_C(3) << 62)) | UINT64_C(2) << 62;
    char text[40];
    int n = snprintf(text, sizeof text,
                     "%08" PRIx64 "-%04" PRIx64 "-%04" PRIx64 "-%04" PRIx64 "-%012" PRIx64, a >> 32,
                     a >> 16 & 0xffff, a & 0xffff, b >> 48, b & UINT64_C(0xffffffffffff));
    lua_pushlstring(L, text, (size_t)n);
    return 1;
}

int host_room_log(lua_State *L)
{
    struct lua_handler *h = handler_of(L);
    int n = lua_gettop(L);
    luaL_Buffer line;
    luaL_buffinit(L, &line);
    for (int i = 1; i <= n; i++) {
        if (i > 1)
            luaL_addchar(&line, '\t');
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&line);
    }
    luaL_pushresult(&line);
    struct slice text;
    text.data = (const uint8_t *)lua_tolstring(L, -1, &text.size);
    budget_charge(L, LINE_STEPS + text.size);
    if (h->ctx)
        context_print(h->ctx, text);
    else if (h->options.print)
        h->options.print(h->options.arg, text);
    return 0;
}

static void status_take(lua_State *L, int index)
{
    lua_Integer status = luaL_checkinteger(L, index);
    luaL_argcheck(L, status >= 400 && status <= 599, index, "a status from 400 to 599");
}

static void error_begin(lua_State *L, const char *tag)
{
    struct fault *f = error_own(L);
    snprintf(f->tag, sizeof f->tag, "%s", tag);
}

/* room.refuse(status, text): raises, so that it works with and without `return`. */
int host_room_refuse(lua_State *L)
{
    status_take(L, 1);
    size_t size;
    const char *text = luaL_optlstring(L, 2, "", &size);
    error_begin(L, "UpgradeError");
    struct fault *f = &handler_of(L)->fault;
    f->status = (unsigned)lua_tointeger(L, 1);
    strbuf_put(&f->message, text, size);
    return error_raise_own(L);
}

/* room.error(code, {status=, message=, data=}): raises what the caller of a method will see. */
int host_room_error(lua_State *L)
{
    size_t size;
    const char *code = luaL_checklstring(L, 1, &size);
    luaL_argcheck(L, size > 0 && size < sizeof(((struct fault *)NULL)->tag), 1,
                  "a code of 1 to 63 bytes");
    error_begin(L, code);
    struct fault *f = &handler_of(L)->fault;
    if (lua_isnoneornil(L, 2)) {
        strbuf_put(&f->message, code, size);
        return error_raise_own(L);
    }
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, 2)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(name, "status") == 0) {
            status_take(L, lua_gettop(L));
            f->status = (unsigned)lua_tointeger(L, -1);
        } else if (strcmp(name, "message") == 0) {
            size_t n;
            const char *message = luaL_checklstring(L, lua_gettop(L), &n);
            strbuf_put(&f->message, message, n);
        } else if (strcmp(name, "data") == 0) {
            value_write(L, -1, &f->data, "RoomExecutionError");
        } else {
            return luaL_error(L, "room.error: unknown option '%s'; there are status, message, data",
                              name);
        }
        lua_pop(L, 1);
    }
    if (f->message.size == 0)
        strbuf_put(&f->message, code, size);
    return error_raise_own(L);
}

/* ---- json ---- */

int host_json_encode(lua_State *L)
{
    luaL_checkany(L, 1);
    struct slice text = value_text(L, 1, NULL);
    lua_pushlstring(L, (const char *)text.data, text.size);
    return 1;
}

int host_json_decode(lua_State *L)
{
    struct slice text;
    text.data = (const uint8_t *)luaL_checklstring(L, 1, &text.size);
    const char *why = "";
    if (!value_push(L, text, &why))
        return luaL_error(L, "json.decode: %s", why);
    return 1;
}

/* json.array(t): t is an array, even when it is empty. */
int host_json_array(lua_State *L)
{
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    kept_push(L, KEPT_ARRAY);
    if (lua_getmetatable(L, 1)) {
        if (!lua_rawequal(L, -1, -2))
            return luaL_error(L, "json.array: the table has a metatable of its own");
        lua_pop(L, 1);
    }
    lua_setmetatable(L, 1);
    return 1;
}

static int null_text(lua_State *L)
{
    lua_pushliteral(L, "null");
    return 1;
}

static void module_push(lua_State *L, const char *owner)
{
    lua_newtable(L);
    for (size_t i = 0; i < lua_members_count; i++) {
        const struct lua_member *m = &lua_members[i];
        if (strcmp(m->owner, owner) != 0)
            continue;
        if (m->is_function)
            lua_pushcfunction(L, member_function(owner, m->name));
        else if (strcmp(m->name, "null") == 0)
            lua_pushlightuserdata(L, NULL);
        else
            module_push(L, m->name); /* room.json */
        lua_setfield(L, -2, m->name);
    }
    face_push(L);
}

void room_open(lua_State *L)
{
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "array");
    lua_setfield(L, -2, "__metatable");
    kept_set(L, KEPT_ARRAY);
    lua_pushlightuserdata(L, NULL); /* all light userdata share one metatable; null is the only */
    lua_createtable(L, 0, 3);
    lua_pushcfunction(L, null_text);
    lua_setfield(L, -2, "__tostring");
    lua_pushliteral(L, "null");
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
    module_push(L, "room");
    kept_set(L, KEPT_ROOM);
}
