/* CORE. The library `string` of a room: Lua's own functions, charged for the texts they are given;
 * patterns by match.c; rep with a bound on what it makes; no dump. */
#include "shard/lua/host.h"

#define BYTES_PER_STEP 16

/* Upvalue: the function of Lua's. */
static int charged(lua_State *L)
{
    size_t bytes = 0;
    int n = lua_gettop(L);
    for (int i = 1; i <= n; i++)
        bytes += lua_type(L, i) == LUA_TSTRING ? lua_rawlen(L, i) : 0;
    budget_charge(L, bytes / BYTES_PER_STEP);
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

void charged_set(lua_State *L, const char *const *names)
{
    for (; *names; names++) {
        lua_getfield(L, -1, *names);
        lua_pushcclosure(L, charged, 1);
        lua_setfield(L, -2, *names);
    }
}

/* Upvalue: Lua's own. */
static int text_rep(lua_State *L)
{
    size_t size, between;
    luaL_checklstring(L, 1, &size);
    lua_Integer n = luaL_checkinteger(L, 2);
    luaL_optlstring(L, 3, "", &between);
    if (n > 0 && size + between > 0) {
        if ((uint64_t)n > STRING_MAX_BYTES / (size + between))
            return luaL_error(L, "string.rep would make more than %d bytes", STRING_MAX_BYTES);
        budget_charge(L, (size + between) * (size_t)n / BYTES_PER_STEP);
    }
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

void text_open(lua_State *L)
{
    static const char *const names[] = {"byte", "char", "format",   "len",    "lower",   "upper",
                                        "sub",  "pack", "packsize", "unpack", "reverse", NULL};
    static const luaL_Reg patterns[] = {{"find", match_find},
                                        {"match", match_match},
                                        {"gmatch", match_gmatch},
                                        {"gsub", match_gsub},
                                        {NULL, NULL}};
    lua_pushcfunction(L, luaopen_string);
    lua_call(L, 0, 1);
    charged_set(L, names);
    luaL_setfuncs(L, patterns, 0);
    lua_getfield(L, -1, "rep");
    lua_pushcclosure(L, text_rep, 1);
    lua_setfield(L, -2, "rep");
    lua_pushnil(L);
    lua_setfield(L, -2, "dump");
    lua_pushliteral(L, ""); /* the metatable of all texts: theirs to use, nobody's to see */
    lua_getmetatable(L, -1);
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
}
