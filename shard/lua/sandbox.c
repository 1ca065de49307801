/* CORE. What of Lua's base library and coroutines a room gets.
 *
 * Globals live behind an empty table that refuses writes: an accidental global is an error with
 * file and line, and so is a misspelt one. Libraries are read-only faces. There is no load, no
 * rawset, no collectgarbage, no finalizer (setmetatable refuses __gc).
 *
 * pcall, xpcall and coroutine.resume are the host's: an end that nobody may catch passes through
 * them (budget.c), and a wait for the shard passes from a coroutine within to the run's own. */
#include "shard/lua/host.h"

static int face_write(lua_State *L)
{
    return luaL_error(L, "this table is read-only (field '%s')", luaL_tolstring(L, 2, NULL));
}

void face_push(lua_State *L)
{
    lua_newtable(L);
    lua_createtable(L, 0, 3);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, face_write);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_remove(L, -2);
}

/* ---- base ---- */

static int global_missing(lua_State *L)
{
    return luaL_error(L, "undefined variable '%s'", luaL_tolstring(L, 2, NULL));
}

static int global_write(lua_State *L)
{
    return luaL_error(L, "accidental global '%s'; write local, or ctx.mem for what a room keeps",
                      luaL_tolstring(L, 2, NULL));
}

static int protected_end(lua_State *L, int status, lua_KContext extra)
{
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - (int)extra;
    if (budget_ended(handler_of(L), status))
        return budget_halt(L);
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    return 2;
}

static int base_pcall(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_pushboolean(L, 1);
    lua_insert(L, 1);
    int status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, protected_end);
    return protected_end(L, status, 0);
}

/* Upvalue: the room's message handler. When the budget's error passes, it is raised within the
 * hook, while no hook would look: room code that ran here could run for ever. */
static int message_handle(lua_State *L)
{
    if (handler_of(L)->stop != STOP_NOT)
        return 1;
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    return 1;
}

static int base_xpcall(lua_State *L)
{
    int n = lua_gettop(L);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, message_handle, 1);
    lua_replace(L, 2);
    lua_pushboolean(L, 1);
    lua_pushvalue(L, 1);
    lua_rotate(L, 3, 2);
    int status = lua_pcallk(L, n - 2, LUA_MULTRET, 2, 2, protected_end);
    return protected_end(L, status, 2);
}

static int base_setmetatable(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, lua_isnoneornil(L, 2) || lua_istable(L, 2), 2, "nil or table");
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
        return luaL_error(L, "cannot change a protected metatable");
    if (lua_istable(L, 2)) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL)
            return luaL_error(L, "rooms have no finalizers (__gc)");
    }
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

static int base_require(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    if (strcmp(name, "room") != 0)
        return luaL_error(L, "require \"%s\": there is only require \"room\"", name);
    kept_push(L, KEPT_ROOM);
    return 1;
}

/* ---- coroutines ---- */

static intptr_t *kind(lua_State *co)
{
    return (intptr_t *)lua_getextraspace(co);
}

static lua_State *thread_check(lua_State *L, int index)
{
    lua_State *co = lua_tothread(L, index);
    luaL_argexpected(L, co, index, "coroutine");
    return co;
}

static int waited(lua_State *L, int status, lua_KContext k);

/* Resumes `co` with what was moved onto it. Its results are moved to L; -1: its error is. */
static int co_resume(lua_State *L, lua_State *co, int arguments)
{
    struct lua_handler *h = handler_of(L);
    int results;
    bool chain = h->chain_yields;
    h->chain_yields = chain && lua_isyieldable(L);
    h->current = co;
    int status = lua_resume(co, L, arguments, &results);
    h->current = L;
    h->chain_yields = chain;
    if (budget_ended(h, status))
        return budget_halt(L);
    if (status == LUA_YIELD && h->waits) {
        *kind(co) = CO_WAITS;
        return lua_yieldk(L, 0, (lua_KContext)co, waited);
    }
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        return -1;
    }
    if (!lua_checkstack(L, results + 1)) {
        lua_pop(co, results);
        lua_pushliteral(L, "too many results to resume");
        return -1;
    }
    lua_xmove(co, L, results);
    return results;
}

static int resume_begin(lua_State *L, lua_State *co, int arguments)
{
    if (*kind(co) != CO_PLAIN || (lua_status(co) == LUA_OK && co == L)) {
        lua_pushliteral(L, "cannot resume non-suspended coroutine");
        return -1;
    }
    if (lua_status(co) == LUA_OK && lua_gettop(co) == 0) {
        lua_pushliteral(L, "cannot resume dead coroutine");
        return -1;
    }
    if (!lua_checkstack(co, arguments)) {
        lua_pushliteral(L, "too many arguments to resume");
        return -1;
    }
    lua_xmove(L, co, arguments);
    return co_resume(L, co, arguments);
}

/* Closes what a failed or suspended coroutine left open; the recursion is bounded here because this
 * Lua does not. */
static int co_close(lua_State *L, lua_State *co)
{
    struct lua_handler *h = handler_of(L);
    if (h->close_depth >= CLOSE_DEPTH_MAX)
        return luaL_error(L, "coroutines closed within each other too deep");
    h->close_depth++;
    h->current = co;
    int status = lua_resetthread(co);
    h->current = L;
    h->close_depth--;
    if (budget_ended(h, status))
        return budget_halt(L);
    return status;
}

static int resume_end(lua_State *L, int results)
{
    lua_pushboolean(L, results >= 0);
    if (results < 0)
        results = 1;
    lua_insert(L, -(results + 1));
    return results + 1;
}

static int wrap_end(lua_State *L, lua_State *co, int results)
{
    if (results >= 0)
        return results;
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD && co_close(L, co) != LUA_OK)
        lua_xmove(co, L, 1);
    if (lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int wrap_call(lua_State *L);

/* The wait that passed through here is over. */
static int waited(lua_State *L, int status, lua_KContext k)
{
    (void)status;
    lua_State *co = (lua_State *)k;
    *kind(co) = CO_PLAIN;
    int results = co_resume(L, co, 0);
    lua_Debug info;
    lua_getstack(L, 0, &info);
    lua_getinfo(L, "f", &info);
    bool wrapped = lua_tocfunction(L, -1) == wrap_call;
    lua_pop(L, 1);
    return wrapped ? wrap_end(L, co, results) : resume_end(L, results);
}

static int co_create(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    budget_charge(L, HOOK_STEPS); /* what it may do before its hook looks for the first time */
    lua_State *co = lua_newthread(L);
    *kind(co) = CO_PLAIN;
    lua_sethook(co, budget_hook, LUA_MASKCOUNT, HOOK_STEPS);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    return 1;
}

static int co_resume_call(lua_State *L)
{
    lua_State *co = thread_check(L, 1);
    return resume_end(L, resume_begin(L, co, lua_gettop(L) - 1));
}

static int wrap_call(lua_State *L)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    return wrap_end(L, co, resume_begin(L, co, lua_gettop(L)));
}

static int co_wrap(lua_State *L)
{
    co_create(L);
    lua_pushcclosure(L, wrap_call, 1);
    return 1;
}

static int co_yield (lua_State *L)
{
    if (*kind(L) == CO_RUN)
        return luaL_error(L, "attempt to yield from outside a coroutine");
    return lua_yield(L, lua_gettop(L));
}

static const char *co_state(lua_State *L, lua_State *co)
{
    if (L == co)
        return "running";
    if (*kind(co) != CO_PLAIN)
        return "normal";
    if (lua_status(co) == LUA_YIELD)
        return "suspended";
    if (lua_status(co) != LUA_OK)
        return "dead";
    lua_Debug info;
    if (lua_getstack(co, 0, &info))
        return "normal";
    return lua_gettop(co) == 0 ? "dead" : "suspended";
}

static int co_status(lua_State *L)
{
    lua_pushstring(L, co_state(L, thread_check(L, 1)));
    return 1;
}

static int co_running(lua_State *L)
{
    lua_pushthread(L);
    lua_pushboolean(L, *kind(L) == CO_RUN);
    return 2;
}

static int co_isyieldable(lua_State *L)
{
    lua_pushboolean(L, *kind(L) != CO_RUN && lua_isyieldable(L));
    return 1;
}

static int co_close_call(lua_State *L)
{
    lua_State *co = thread_check(L, 1);
    const char *state = co_state(L, co);
    if (strcmp(state, "suspended") != 0 && strcmp(state, "dead") != 0)
        return luaL_error(L, "cannot close a %s coroutine", state);
    if (co_close(L, co) == LUA_OK) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushboolean(L, 0);
    lua_xmove(co, L, 1);
    return 2;
}

void coroutine_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"create", co_create},    {"resume", co_resume_call},      {"wrap", co_wrap},
        {"yield", co_yield },     {"status", co_status},           {"running", co_running},
        {"close", co_close_call}, {"isyieldable", co_isyieldable}, {NULL, NULL},
    };
    luaL_newlib(L, functions);
}

/* ---- all of it ---- */

static void base_push(lua_State *L)
{
    static const char *const taken[] = {"assert",   "error",    "getmetatable", "ipairs",  "next",
                                        "pairs",    "rawequal", "rawget",       "rawlen",  "select",
                                        "tonumber", "tostring", "type",         "_VERSION"};
    static const luaL_Reg own[] = {
        {"pcall", base_pcall},     {"xpcall", base_xpcall},  {"setmetatable", base_setmetatable},
        {"require", base_require}, {"print", host_room_log}, {NULL, NULL},
    };
    lua_newtable(L);
    lua_pushcfunction(L, luaopen_base); /* into the registry's globals, which no room sees */
    lua_call(L, 0, 1);
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        lua_getfield(L, -1, taken[i]);
        lua_setfield(L, -3, taken[i]);
    }
    lua_pop(L, 1);
    luaL_setfuncs(L, own, 0);
}

void sandbox_open(lua_State *L)
{
    static const struct {
        const char *name;
        void (*open)(lua_State *L);
    } libraries[] = {{"string", text_open},
                     {"table", table_open},
                     {"math", math_open},
                     {"utf8", utf8_open},
                     {"coroutine", coroutine_open}};
    lua_newtable(L); /* _ENV: empty, so that every write is seen */
    base_push(L);
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        libraries[i].open(L);
        face_push(L);
        lua_setfield(L, -2, libraries[i].name);
    }
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, global_missing);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_createtable(L, 0, 3);
    lua_insert(L, -2);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, global_write);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    kept_set(L, KEPT_GLOBALS);
}
