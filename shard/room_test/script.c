/* SHELL. Worlds and connections as objects of the test's Lua state. Thin: what authors see is made
 * of these in test.lua. */
#include "shard/room_test/script.h"

#include <stdio.h>

#include "common/mem.h"
#include "shard/room_test/files.h"

#define WORLD "stoa.world"
#define CONNECTION "stoa.connection"

struct script_world {
    struct script *script;
    struct room_files rooms;
};

struct script_connection {
    struct world *world;
    struct world_connection *connection;
};

/* What a room says outside of its runs. */
static void line_put(void *arg, struct slice line)
{
    struct script *s = arg;
    strbuf_put_slice(&s->lines, line);
    strbuf_put_byte(&s->lines, '\n');
}

/* ---- worlds ---- */

static struct script_world *world_check(lua_State *L)
{
    struct script_world *sw = luaL_checkudata(L, 1, WORLD);
    luaL_argcheck(L, sw->rooms.world, 1, "this world has ended");
    return sw;
}

static int world_collect(lua_State *L)
{
    struct script_world *sw = luaL_checkudata(L, 1, WORLD);
    room_files_end(&sw->rooms);
    return 0;
}

int world_open(lua_State *L)
{
    struct script *s = script_of(L);
    struct script_world *sw = lua_newuserdatauv(L, sizeof *sw, 0);
    *sw = (struct script_world){.script = s, .rooms = {.print = line_put, .arg = s}};
    room_files_begin(&sw->rooms, &s->log);
    luaL_setmetatable(L, WORLD);
    return 1;
}

/* Beside the test file, unless it says from where. */
static char *path_of(const struct script *s, const char *path)
{
    struct strbuf out = {0};
    const char *slash = strrchr(s->path, '/');
    if (path[0] != '/' && slash)
        strbuf_put(&out, s->path, (size_t)(slash - s->path) + 1);
    strbuf_put_text(&out, path);
    char *copy = mem_strdup(strbuf_cstr(&out));
    strbuf_free(&out);
    return copy;
}

/* load(path, config): the type's name. */
static int world_load(lua_State *L)
{
    struct script_world *sw = world_check(L);
    const char *given = luaL_checkstring(L, 2), *name = "";
    struct strbuf *why = &sw->script->text;
    struct slice config = lua_isnoneornil(L, 3) ? (struct slice){0} : value_encode(L, 3);
    char *path = path_of(sw->script, given);
    strbuf_reset(why);
    int code = room_files_add(&sw->rooms, path, NULL, config, &name, why);
    mem_free(path);
    if (code != ERR_OK)
        return luaL_error(L, "%s", strbuf_cstr(why));
    lua_pushstring(L, name);
    return 1;
}

static int world_restart(lua_State *L)
{
    struct script_world *sw = world_check(L);
    struct strbuf *why = &sw->script->text;
    strbuf_reset(why);
    if (room_files_restart(&sw->rooms, lua_toboolean(L, 2), why) != ERR_OK)
        return luaL_error(L, "%s", strbuf_cstr(why));
    return 0;
}

/* ---- time and faults ---- */

static int world_tick(lua_State *L)
{
    struct script_world *sw = world_check(L);
    lua_Integer ms = luaL_checkinteger(L, 2);
    luaL_argcheck(L, ms >= 0, 2, "time does not run backwards");
    world_wait(sw->rooms.world, ms);
    return 0;
}

static int world_time(lua_State *L)
{
    lua_pushinteger(L, world_now_ms(world_check(L)->rooms.world));
    return 1;
}

static int world_full(lua_State *L)
{
    struct script_world *sw = world_check(L);
    lua_Integer n = luaL_checkinteger(L, 2);
    luaL_argcheck(L, n >= 0 && n <= 1000000, 2, "0 to 1000000");
    world_fill(sw->rooms.world, (unsigned)n);
    return 0;
}

static struct slice check_slice(lua_State *L, int index)
{
    size_t size;
    const char *text = luaL_checklstring(L, index, &size);
    return slice_of(text, size);
}

static int world_next_alarm(lua_State *L)
{
    struct script_world *sw = world_check(L);
    int64_t due;
    if (world_alarm(sw->rooms.world, check_slice(L, 2), &due))
        lua_pushinteger(L, due);
    else
        lua_pushnil(L);
    return 1;
}

/* ---- questions ---- */

static void put_text(lua_State *L, const char *name, const struct strbuf *text)
{
    lua_pushlstring(L, text->size ? (const char *)text->data : "", text->size);
    lua_setfield(L, -2, name);
}

/* true, value; or false, {status, tag, message, data}. Takes the answer. */
static int answer_push(lua_State *L, struct world_answer *a)
{
    struct strbuf *json = &script_of(L)->json;
    lua_pushboolean(L, a->status == 0);
    if (a->status != 0) {
        lua_newtable(L);
        lua_pushinteger(L, a->status);
        lua_setfield(L, -2, "status");
        put_text(L, "tag", &a->tag);
        put_text(L, "message", &a->text);
    }
    strbuf_reset(json);
    strbuf_put_slice(json, strbuf_slice(&a->json));
    world_answer_free(a);
    value_decode(L, strbuf_slice(json));
    if (lua_istable(L, -2))
        lua_setfield(L, -2, "data");
    return 2;
}

/* call(key, verb, name, input) */
static int world_asked(lua_State *L)
{
    static const char *const verbs[] = {
        [VERB_SEND] = "send",   [VERB_BROADCAST] = "broadcast",     [VERB_METHOD] = "method",
        [VERB_STATE] = "state", [VERB_CONNECTIONS] = "connections", [VERB_ALARM] = "alarm",
        [VERB_ALARM + 1] = NULL};
    struct script_world *sw = world_check(L);
    struct slice key = check_slice(L, 2);
    enum call_verb verb = (enum call_verb)luaL_checkoption(L, 3, NULL, verbs);
    struct slice name = check_slice(L, 4);
    bool empty = lua_isnoneornil(L, 5) && verb != VERB_SEND && verb != VERB_BROADCAST;
    struct slice input = empty ? (struct slice){0} : value_encode(L, 5);
    struct world_answer a;
    world_call(sw->rooms.world, key, verb, name, input, &a);
    return answer_push(L, &a);
}

static int world_purged(lua_State *L)
{
    struct script_world *sw = world_check(L);
    struct world_answer a;
    world_purge(sw->rooms.world, check_slice(L, 2), &a);
    return answer_push(L, &a);
}

static int world_logged(lua_State *L)
{
    struct script_world *sw = world_check(L);
    struct world_answer a;
    world_log(sw->rooms.world, check_slice(L, 2), &a);
    return answer_push(L, &a);
}

/* ---- connections ---- */

/* join(key, request): connection, id, tags, session; or nil, {status, tag, message}. */
static int world_joined(lua_State *L)
{
    struct script_world *sw = world_check(L);
    struct slice key = check_slice(L, 2);
    struct world_answer refusal;
    struct script_connection *sc = lua_newuserdatauv(L, sizeof *sc, 1);
    luaL_setmetatable(L, CONNECTION);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1); /* the world lives as long as its connections */
    sc->world = sw->rooms.world;
    sc->connection = world_join(sw->rooms.world, key, value_encode(L, 3), &refusal);
    if (!sc->connection) {
        answer_push(L, &refusal);
        lua_pushnil(L);
        lua_replace(L, -3);
        return 2;
    }
    world_answer_free(&refusal);
    struct slice id = world_connection_id(sc->connection);
    struct slice session = world_connection_session(sc->connection);
    lua_pushlstring(L, id.size ? (const char *)id.data : "", id.size);
    value_decode(L, world_connection_tags(sc->connection));
    lua_pushlstring(L, (const char *)session.data, session.size);
    return 4;
}

static struct script_connection *connection_check(lua_State *L)
{
    return luaL_checkudata(L, 1, CONNECTION);
}

/* receive(frame, text): whether it was open. */
static int connection_receive(lua_State *L)
{
    struct script_connection *sc = connection_check(L);
    lua_pushboolean(
        L, world_receive(sc->world, sc->connection, check_slice(L, 2), lua_toboolean(L, 3)));
    return 1;
}

static int connection_leave(lua_State *L)
{
    struct script_connection *sc = connection_check(L);
    lua_Integer code = luaL_checkinteger(L, 2);
    struct slice reason = check_slice(L, 3);
    luaL_argcheck(L, code >= 1000 && code <= 4999, 2, "a close code is 1000 to 4999");
    luaL_argcheck(L, reason.size <= 123, 3, "a close reason has at most 123 bytes");
    world_leave(sc->world, sc->connection, (unsigned)code, reason);
    return 0;
}

static int connection_take(lua_State *L)
{
    struct script_connection *sc = connection_check(L);
    struct strbuf message, *json = &script_of(L)->json;
    lua_newtable(L);
    for (lua_Integer i = 1; world_connection_take(sc->connection, &message); i++) {
        strbuf_free(json);
        *json = message;
        value_decode(L, strbuf_slice(json));
        if (lua_isnil(L, -1)) { /* a list has no holes */
            lua_pop(L, 1);
            lua_pushlightuserdata(L, NULL);
        }
        lua_rawseti(L, -2, i);
    }
    return 1;
}

/* open, or false with code and reason. */
static int connection_status(lua_State *L)
{
    struct script_connection *sc = connection_check(L);
    unsigned code;
    struct slice reason;
    bool open = world_connection_open(sc->connection, &code, &reason);
    lua_pushboolean(L, open);
    if (open)
        return 1;
    lua_pushinteger(L, code);
    lua_pushlstring(L, reason.size ? (const char *)reason.data : "", reason.size);
    return 3;
}

/* ---- the file ---- */

static const luaL_Reg world_functions[] = {
    {"load", world_load},   {"restart", world_restart}, {"tick", world_tick},
    {"now", world_time},    {"fill", world_full},       {"alarm", world_next_alarm},
    {"call", world_asked},  {"purge", world_purged},    {"log", world_logged},
    {"join", world_joined}, {"__gc", world_collect},    {NULL, NULL}};
static const luaL_Reg connection_functions[] = {{"receive", connection_receive},
                                                {"leave", connection_leave},
                                                {"take", connection_take},
                                                {"status", connection_status},
                                                {NULL, NULL}};

static void class_open(lua_State *L, const char *name, const luaL_Reg *functions)
{
    luaL_newmetatable(L, name);
    luaL_setfuncs(L, functions, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

struct script *script_of(lua_State *L)
{
    struct script *s;
    memcpy(&s, lua_getextraspace(L), sizeof s);
    return s;
}

/* Of what the shard says only the rooms' own matters to their author. */
static void line_keep(void *ctx, const char *line, size_t size)
{
    struct script *s = ctx;
    if (memmem(line, size, " room.", 6))
        strbuf_put(&s->lines, line, size);
}

/* lines(): what was said since the last time. */
static int lines_take(lua_State *L)
{
    struct strbuf *lines = &script_of(L)->lines;
    lua_pushlstring(L, lines->size ? (const char *)lines->data : "", lines->size);
    strbuf_reset(lines);
    return 1;
}

extern const unsigned char test_lua[];
extern const size_t test_lua_size;

/* Leaves the API's `run` on the stack. */
static int prelude_load(lua_State *L)
{
    luaL_openlibs(L);
    class_open(L, WORLD, world_functions);
    class_open(L, CONNECTION, connection_functions);
    if (luaL_loadbuffer(L, (const char *)test_lua, test_lua_size, "=test") != LUA_OK)
        return lua_error(L);
    lua_newtable(L);
    value_open(L);
    lua_pushcfunction(L, world_open);
    lua_setfield(L, -2, "world");
    lua_pushcfunction(L, lines_take);
    lua_setfield(L, -2, "lines");
    lua_call(L, 1, 1);
    lua_pushstring(L, script_of(L)->path);
    lua_call(L, 1, 3);
    return 3;
}

int script_run(const char *path, uint64_t *cases, uint64_t *failed)
{
    struct script s = {.path = path};
    struct script *self = &s;
    s.log = (struct log){.level = LOG_INFO, .write = line_keep, .ctx = &s};
    s.L = luaL_newstate();
    STOA_ASSERT(s.L);
    memcpy(lua_getextraspace(s.L), &self, sizeof self);
    lua_pushcfunction(s.L, prelude_load);
    bool ran = lua_pcall(s.L, 0, 3, 0) == LUA_OK;
    if (!ran)
        fprintf(stderr, "stoa room test: %s\n", luaL_tolstring(s.L, -1, NULL));
    bool complete = ran && lua_toboolean(s.L, 1);
    *cases += ran ? (uint64_t)lua_tointeger(s.L, 2) : 0;
    *failed += ran ? (uint64_t)lua_tointeger(s.L, 3) : 0;
    lua_close(s.L);
    strbuf_free(&s.lines);
    strbuf_free(&s.json);
    strbuf_free(&s.text);
    return complete ? ERR_OK : ERR_INVALID;
}
