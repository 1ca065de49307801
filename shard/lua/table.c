/* CORE. The libraries `table`, `math` and `utf8` of a room: Lua's own, charged for the elements
 * that C walks over; chance is the room's. */
#include "shard/lua/host.h"

#define ELEMENTS_PER_STEP 2
#define COMPARISON_STEPS 8 /* of a sort, in elements */

static int go_on(lua_State *L, lua_Integer from, lua_Integer to)
{
    if (to > from)
        budget_charge(L, (size_t)((lua_Unsigned)to - (lua_Unsigned)from) / ELEMENTS_PER_STEP);
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

static lua_Integer length(lua_State *L)
{
    return lua_istable(L, 1) ? luaL_len(L, 1) : 0;
}

/* table.concat(t, sep, i, j), table.unpack(t, i, j) */
static int table_range(lua_State *L, int first)
{
    lua_Integer from = luaL_optinteger(L, first, 1);
    lua_Integer to = lua_isnoneornil(L, first + 1) ? length(L) : luaL_checkinteger(L, first + 1);
    return go_on(L, from, to);
}

static int table_concat(lua_State *L)
{
    return table_range(L, 3);
}

static int table_unpack(lua_State *L)
{
    return table_range(L, 2);
}

/* table.insert(t, position, v), table.remove(t, position): what is behind it moves. */
static int table_shift(lua_State *L)
{
    lua_Integer n = length(L);
    return go_on(L, lua_isinteger(L, 2) && lua_gettop(L) != 2 ? lua_tointeger(L, 2) : n, n);
}

static int table_remove(lua_State *L)
{
    lua_Integer n = length(L);
    return go_on(L, lua_isinteger(L, 2) ? lua_tointeger(L, 2) : n, n);
}

static int table_move(lua_State *L)
{
    return go_on(L, luaL_checkinteger(L, 2), luaL_checkinteger(L, 3));
}

static int table_sort(lua_State *L)
{
    lua_Integer n = length(L), steps = 0;
    for (lua_Integer half = n; half > 1 && steps < INT32_MAX; half /= 2)
        steps += n * COMPARISON_STEPS;
    return go_on(L, 0, steps);
}

static void library_push(lua_State *L, lua_CFunction open)
{
    lua_pushcfunction(L, open);
    lua_call(L, 0, 1);
}

void table_open(lua_State *L)
{
    static const luaL_Reg wrapped[] = {{"concat", table_concat}, {"unpack", table_unpack},
                                       {"insert", table_shift},  {"remove", table_remove},
                                       {"move", table_move},     {"sort", table_sort}};
    library_push(L, luaopen_table);
    for (size_t i = 0; i < sizeof wrapped / sizeof *wrapped; i++) {
        lua_getfield(L, -1, wrapped[i].name);
        lua_pushcclosure(L, wrapped[i].func, 1);
        lua_setfield(L, -2, wrapped[i].name);
    }
}

/* math.random as in the manual, with the room's chance. */
static int math_random(lua_State *L)
{
    lua_Integer low = 1, high;
    switch (lua_gettop(L)) {
    case 0:
        lua_pushnumber(L, (lua_Number)(random_next(L) >> 11) * 0x1p-53);
        return 1;
    case 1:
        high = luaL_checkinteger(L, 1);
        if (high == 0) {
            lua_pushinteger(L, (lua_Integer)random_next(L));
            return 1;
        }
        break;
    case 2:
        low = luaL_checkinteger(L, 1);
        high = luaL_checkinteger(L, 2);
        break;
    default:
        return luaL_error(L, "wrong number of arguments");
    }
    luaL_argcheck(L, low <= high, lua_gettop(L), "interval is empty");
    uint64_t span = (uint64_t)high - (uint64_t)low, mask = span;
    for (int shift = 1; shift < 64; shift *= 2)
        mask |= mask >> shift;
    uint64_t drawn = random_next(L) & mask;
    for (int i = 0; drawn > span && i < 64; i++)
        drawn = random_next(L) & mask;
    if (drawn > span)
        drawn -= span + 1;
    uint64_t number = (uint64_t)low + drawn;
    lua_pushinteger(L, (lua_Integer)number);
    return 1;
}

void math_open(lua_State *L)
{
    library_push(L, luaopen_math);
    lua_pushcfunction(L, math_random);
    lua_setfield(L, -2, "random");
    lua_pushnil(L);
    lua_setfield(L, -2, "randomseed");
}

void utf8_open(lua_State *L)
{
    static const char *const names[] = {"char", "codepoint", "len", "offset", NULL};
    library_push(L, luaopen_utf8);
    charged_set(L, names);
}
