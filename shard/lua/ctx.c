/* CORE. `ctx` as rooms see it, and `ctx:room(name)`. Objects of the host are full userdata that
 * name the run they belong to: kept in a variable and used by another run, they are refused,
 * because what they stand for is another room by then. */
#include "shard/lua/host.h"

#include <stdio.h>

/* Full userdata come from the host alone, so that the first word tells them apart. */
static const char ctx_kind, connections_kind, sibling_kind;
struct object {
    const char *kind;
    uint64_t serial; /* of the run */
};
enum { SLOT_CONNECTION = 1, SLOT_TYPE = 1 };

#define METHOD(owner, name, function) {#owner, #name, true},
#define FIELD(owner, name) {#owner, #name, false},
const struct lua_member lua_members[] = {
#include "shard/lua/members.def"
};
#undef METHOD
#undef FIELD
const size_t lua_members_count = sizeof lua_members / sizeof *lua_members;

#define METHOD(owner, name, function) function,
#define FIELD(owner, name) NULL,
static const lua_CFunction member_functions[] = {
#include "shard/lua/members.def"
};
#undef METHOD
#undef FIELD

lua_CFunction member_function(const char *owner, const char *name)
{
    for (size_t i = 0; i < lua_members_count; i++) {
        if (strcmp(lua_members[i].owner, owner) == 0 && strcmp(lua_members[i].name, name) == 0)
            return member_functions[i];
    }
    return NULL;
}

/* ---- objects ---- */

/* Upvalues: the methods, the owner's word, and the function that knows its fields. */
static int object_index(lua_State *L)
{
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL)
        return 1;
    return lua_tocfunction(L, lua_upvalueindex(2))(L);
}

static int object_write(lua_State *L)
{
    return luaL_error(L, "field '%s' cannot be set here", luaL_tolstring(L, 2, NULL));
}

void object_open(lua_State *L, enum kept kept, const char *owner, lua_CFunction field)
{
    lua_createtable(L, 0, 6);
    lua_newtable(L);
    for (size_t i = 0; i < lua_members_count; i++) {
        if (strcmp(lua_members[i].owner, owner) == 0 && lua_members[i].is_function) {
            lua_pushcfunction(L, member_functions[i]);
            lua_setfield(L, -2, lua_members[i].name);
        }
    }
    lua_pushcfunction(L, field);
    lua_pushcclosure(L, object_index, 2);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, object_write);
    lua_setfield(L, -2, "__newindex");
    lua_pushstring(L, owner);
    lua_setfield(L, -2, "__name");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    kept_set(L, kept);
}

static void object_push(lua_State *L, const char *object_kind, uint64_t serial, enum kept kept)
{
    struct object *o = (struct object *)lua_newuserdatauv(L, sizeof *o, 1);
    o->kind = object_kind;
    o->serial = serial;
    kept_push(L, kept);
    lua_setmetatable(L, -2);
}

struct context *ctx_check(lua_State *L, uint64_t serial, const char *what)
{
    struct lua_handler *h = handler_of(L);
    if (!h->ctx || !h->run || h->run->serial != serial)
        luaL_error(L, "%s is of another run; it cannot be kept for later", what);
    return h->ctx;
}

static struct context *object_context(lua_State *L, const char *object_kind, const char *name)
{
    struct object *o = (struct object *)lua_touserdata(L, 1);
    if (lua_type(L, 1) != LUA_TUSERDATA || o->kind != object_kind)
        luaL_error(L, "%s is missing before the arguments: write %s:method(...), with a colon",
                   name, name);
    return ctx_check(L, o->serial, name);
}

static struct context *ctx_of(lua_State *L)
{
    return object_context(L, &ctx_kind, "ctx");
}

static void slice_push(lua_State *L, struct slice s)
{
    lua_pushlstring(L, s.size ? (const char *)s.data : "", s.size);
}

void ctx_push(lua_State *L, struct run *r)
{
    object_push(L, &ctx_kind, r->serial, KEPT_CTX);
}

static int connection_field(lua_State *L, struct context *ctx)
{
    if (lua_getiuservalue(L, 1, SLOT_CONNECTION) == LUA_TUSERDATA)
        return 1;
    member_push(L, context_connection(ctx));
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, SLOT_CONNECTION);
    return 1;
}

static int mem_field(lua_State *L)
{
    struct lua_mem *mem = handler_of(L)->run->mem;
    if (mem && mem->renewals != handler_of(L)->renewals)
        *mem = (struct lua_mem){.ref = LUA_NOREF, .renewals = handler_of(L)->renewals};
    if (!mem) {
        lua_newtable(L);
        return 1;
    }
    if (lua_rawgeti(L, LUA_REGISTRYINDEX, mem->ref) != LUA_TTABLE) {
        lua_newtable(L);
        lua_pushvalue(L, -1);
        mem->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    return 1;
}

/* How the method's input is typed, or nil. */
static int meta_field(lua_State *L)
{
    const char *why = "";
    struct slice meta = strbuf_slice(&handler_of(L)->run->meta);
    if (meta.size == 0)
        lua_pushnil(L);
    else if (!value_push(L, meta, &why))
        return luaL_error(L, "ctx.meta cannot be read: %s", why);
    return 1;
}

static int ctx_field(lua_State *L)
{
    struct context *ctx = ctx_of(L);
    const char *name = luaL_checkstring(L, 2);
    if (strcmp(name, "connection") == 0)
        return connection_field(L, ctx);
    if (strcmp(name, "meta") == 0)
        return meta_field(L);
    if (strcmp(name, "connections") == 0)
        object_push(L, &connections_kind, ((struct object *)lua_touserdata(L, 1))->serial,
                    KEPT_CONNECTIONS);
    else if (strcmp(name, "mem") == 0)
        return mem_field(L);
    else if (strcmp(name, "id") == 0)
        slice_push(L, context_id(ctx));
    else if (strcmp(name, "name") == 0)
        slice_push(L, context_type(ctx));
    else if (strcmp(name, "key") == 0)
        slice_push(L, context_key(ctx));
    else if (strcmp(name, "env") == 0)
        kept_push(L, KEPT_ENV);
    else if (strcmp(name, "system_failure") == 0)
        lua_pushstring(L, context_system_failure(ctx));
    else
        return luaL_error(L, "ctx has no field '%s'", name);
    return 1;
}

/* ---- values at the room's borders ---- */

/* A text, a number or an error table of the room's own function becomes an error with `tag`. */
void function_apply(lua_State *L, enum function f, const char *tag)
{
    struct lua_handler *h = handler_of(L);
    if (h->functions[f] == LUA_NOREF)
        return;
    lua_rawgeti(L, LUA_REGISTRYINDEX, h->functions[f]);
    lua_insert(L, -2);
    int status = lua_pcall(L, 1, 1, 0);
    if (status == LUA_OK)
        return;
    if (budget_ended(h, status))
        budget_halt(L);
    error_raise_as(L, tag);
}

struct slice message_text(lua_State *L, int index, const char *tag)
{
    luaL_checkany(L, index);
    lua_pushvalue(L, index);
    function_apply(L, FUNCTION_ENCODE_BROADCAST, tag);
    return value_text(L, -1, tag);
}

struct slice kept_text(lua_State *L, int index, enum function f, const char *tag)
{
    struct slice text = value_text(L, index, tag);
    index = lua_absindex(L, index);
    if (handler_of(L)->functions[f] == LUA_NOREF)
        return text;
    kept_check(L, text, f, tag);
    return value_text(L, index, tag); /* the room's function may have written others */
}

void kept_check(lua_State *L, struct slice text, enum function f, const char *tag)
{
    const char *why = "";
    if (!value_push(L, text, &why))
        error_raise(L, tag, "what is to be kept cannot be read: %s", why);
    if (f != FUNCTION_DECODE_CONNECTION || !value_is_null(L, -1))
        function_apply(L, f, tag);
    lua_pop(L, 1);
}

static bool recall(lua_State *L, struct context *ctx)
{
    struct lua_handler *h = handler_of(L);
    struct slice state;
    const char *why = "";
    if (!context_recall(ctx, &state))
        return false;
    if (!value_push(L, state, &why))
        error_raise(L, "RoomError", "the saved state cannot be read: %s", why);
    unsigned version = context_state_version(ctx);
    if (h->functions[FUNCTION_MIGRATE] == LUA_NOREF || version >= h->base.traits.state_version) {
        function_apply(L, FUNCTION_DECODE_STATE, "RoomError");
        return true;
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, h->functions[FUNCTION_MIGRATE]);
    lua_insert(L, -2);
    lua_pushinteger(L, version);
    int status = lua_pcall(L, 2, 1, 0);
    if (budget_ended(h, status))
        budget_halt(L);
    if (status != LUA_OK)
        error_raise_as(L, "RoomError");
    if (!context_save(ctx, value_text(L, -1, "RoomError"), error_own(L)))
        error_raise_own(L);
    function_apply(L, FUNCTION_DECODE_STATE, "RoomError");
    return true;
}

int host_ctx_recall(lua_State *L)
{
    if (!recall(L, ctx_of(L)))
        lua_pushnil(L);
    return 1;
}

static int save(lua_State *L, struct context *ctx, int index)
{
    if (!context_save(ctx, kept_text(L, index, FUNCTION_DECODE_STATE, "RoomError"), error_own(L)))
        return error_raise_own(L);
    return 0;
}

int host_ctx_save(lua_State *L)
{
    struct context *ctx = ctx_of(L);
    if (lua_isnoneornil(L, 2))
        return error_raise(L, "RoomError", "ctx:save needs a value; ctx:purge() deletes the state");
    return save(L, ctx, 2);
}

int host_ctx_update(lua_State *L)
{
    struct context *ctx = ctx_of(L);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    if (!recall(L, ctx)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    lua_call(L, 1, 1); /* no waiting in between: the state would be another by then */
    if (lua_isnil(L, -1))
        return error_raise(L, "RoomError", "the function of ctx:update returned no state");
    save(L, ctx, -1);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- to many ---- */

/* Appends whom the value on top names, one or a list; returns how many. */
static size_t names_take(lua_State *L, const char *option, struct strbuf *names)
{
    struct slice name = member_session(L, -1);
    if (name.size == 0 && lua_type(L, -1) == LUA_TSTRING)
        name.data = (const uint8_t *)lua_tolstring(L, -1, &name.size);
    if (name.data) {
        strbuf_put(names, &name, sizeof name);
        return 1;
    }
    if (!lua_istable(L, -1))
        luaL_error(L, "option '%s' is a %s; it must be a text, a connection or a list of them",
                   option, luaL_typename(L, -1));
    size_t n = 0;
    lua_Integer count = (lua_Integer)lua_rawlen(L, -1);
    for (lua_Integer i = 1; i <= count; i++) {
        if (lua_rawgeti(L, -1, i) == LUA_TTABLE)
            luaL_error(L, "option '%s' is a list of lists", option);
        n += names_take(L, option, names);
        lua_pop(L, 1);
    }
    return n;
}

static int option_unknown(lua_State *L, const char *name)
{
    if (strcmp(name, "tag") == 0)
        return luaL_error(L, "unknown option 'tag'; write tags =");
    if (strcmp(name, "except_id") == 0)
        return luaL_error(L, "unknown option 'except_id'; write except =");
    return luaL_error(L, "unknown option '%s'", name);
}

/* Reads the table at 3. The slices point into its strings and connections. */
static void options_take(lua_State *L, struct publish_wish *wish, bool publishing)
{
    struct strbuf *names = &handler_of(L)->names;
    size_t *const counts[] = {&wish->who.n_tags, &wish->who.n_to, &wish->who.n_except};
    static const char *const words[] = {"tags", "to", "except"};
    size_t first[3] = {0, 0, 0};
    bool given[3] = {false, false, false};
    strbuf_reset(names);
    if (lua_isnoneornil(L, 3))
        return;
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, 3)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        int i = 0;
        while (i < 3 && strcmp(name, words[i]) != 0)
            i++;
        if (i < 3) {
            given[i] = true;
            first[i] = names->size;
            *counts[i] = names_take(L, name, names);
        } else if (publishing && strcmp(name, "conflate") == 0) {
            wish->conflate.data =
                (const uint8_t *)luaL_checklstring(L, lua_gettop(L), &wish->conflate.size);
        } else if (publishing && strcmp(name, "meta") == 0) {
            struct strbuf *meta = &handler_of(L)->meta;
            strbuf_reset(meta);
            value_write(L, lua_gettop(L), meta, "BroadcastError");
            wish->meta = strbuf_slice(meta);
        } else if (publishing && strcmp(name, "ephemeral") == 0) {
            wish->ephemeral = lua_toboolean(L, -1);
        } else {
            option_unknown(L, name);
        }
        lua_pop(L, 1);
    }
    /* A list without names is not the same as no list: nobody is in it. */
    static const struct slice nobody;
    const struct slice **const lists[] = {&wish->who.tags, &wish->who.to, &wish->who.except};
    for (int i = 0; i < 3; i++)
        if (given[i])
            *lists[i] = *counts[i] > 0
                            ? (const struct slice *)(const void *)(names->data + first[i])
                            : &nobody;
}

int host_ctx_broadcast(lua_State *L)
{
    struct context *ctx = ctx_of(L);
    struct publish_wish wish = {0};
    lua_settop(L, 3);
    struct slice message = message_text(L, 2, "BroadcastError");
    options_take(L, &wish, false);
    if (!context_broadcast(ctx, message, &wish.who, error_own(L)))
        return error_raise_own(L);
    return 0;
}

int host_ctx_publish(lua_State *L)
{
    struct context *ctx = ctx_of(L);
    struct publish_wish wish = {0};
    lua_settop(L, 3);
    struct slice message = message_text(L, 2, "BroadcastError");
    options_take(L, &wish, true);
    if (!context_publish(ctx, message, &wish, error_own(L)))
        return error_raise_own(L);
    return 0;
}

int host_ctx_log(lua_State *L)
{
    struct context *ctx = ctx_of(L);
    struct slice after = {NULL, 0};
    lua_Integer limit = 0; /* as usual */
    lua_settop(L, 2);
    if (!lua_isnil(L, 2)) {
        luaL_checktype(L, 2, LUA_TTABLE);
        lua_getfield(L, 2, "after");
        if (!lua_isnil(L, 3))
            after.data = (const uint8_t *)luaL_checklstring(L, 3, &after.size);
        lua_getfield(L, 2, "limit");
        limit = luaL_optinteger(L, 4, limit);
        if (limit < 0 || limit > UINT32_MAX)
            limit = UINT32_MAX; /* which is refused */
    }
    struct strbuf *text = &handler_of(L)->text;
    const char *why = "";
    strbuf_reset(text);
    if (!context_log(ctx, after, (unsigned)limit, text, error_own(L)))
        return error_raise_own(L);
    if (!value_push(L, strbuf_slice(text), &why))
        return error_raise(L, "RoomError", "the log cannot be read: %s", why);
    return 1;
}

/* ---- time ---- */

/* Milliseconds, or since 1970; what is too many or too few is for the room to say. */
static int64_t ms_check(lua_State *L, int index)
{
    lua_Number ms = luaL_checknumber(L, index);
    luaL_argcheck(L, ms >= -1e18 && ms <= 1e18, index, "milliseconds");
    return (int64_t)ms;
}

/* Milliseconds: a number, or a text like "30s", "5m", "30 seconds". */
static int64_t duration_check(lua_State *L, int index)
{
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {{"ms", 1},          {"s", 1000},        {"m", 60000},       {"h", 3600000},
                 {"d", 86400000},    {"second", 1000},   {"seconds", 1000},  {"minute", 60000},
                 {"minutes", 60000}, {"hour", 3600000},  {"hours", 3600000}, {"day", 86400000},
                 {"days", 86400000}, {"millisecond", 1}, {"milliseconds", 1}};
    if (lua_type(L, index) == LUA_TNUMBER)
        return ms_check(L, index);
    const char *text = luaL_checkstring(L, index), *at = text;
    int64_t n = 0;
    while (*at >= '0' && *at <= '9' && at - text < 12)
        n = n * 10 + (*at++ - '0');
    const char *unit = at + (*at == ' ');
    for (size_t i = 0; at > text && i < sizeof units / sizeof *units; i++) {
        if (strcmp(unit, units[i].name) == 0)
            return n * units[i].ms;
    }
    return luaL_argerror(L, index, "milliseconds or a duration like \"250ms\", \"30s\", \"5m\"");
}

int host_ctx_schedule_in(lua_State *L)
{
    struct context *ctx = ctx_of(L);
    int64_t ms = duration_check(L, 2), after = ms > 0 ? ms : 0;
    if (!context_schedule_at(ctx, context_now_ms(ctx) + after, error_own(L)))
        return error_raise_own(L);
    return 0;
}

int host_ctx_schedule_at(lua_State *L)
{
    struct context *ctx = ctx_of(L);
    if (!context_schedule_at(ctx, ms_check(L, 2), error_own(L)))
        return error_raise_own(L);
    return 0;
}

int host_ctx_cancel_schedule(lua_State *L)
{
    context_cancel(ctx_of(L));
    return 0;
}

int host_ctx_next_alarm(lua_State *L)
{
    int64_t at;
    if (context_next_alarm(ctx_of(L), &at))
        lua_pushinteger(L, at);
    else
        lua_pushnil(L);
    return 1;
}

int host_ctx_purge(lua_State *L)
{
    context_purge(ctx_of(L));
    handler_of(L)->stop = STOP_PURGE;
    return budget_halt(L);
}

/* ---- waiting ---- */

bool waits_possible(lua_State *L)
{
    return lua_isyieldable(L) && handler_of(L)->chain_yields;
}

static void waits_check(lua_State *L, const char *what)
{
    if (!waits_possible(L))
        luaL_error(L,
                   "%s cannot wait here: within ctx:update, a comparison, a metamethod or a "
                   "function that a library calls",
                   what);
}

/* Woken: pushes the answer. */
static int woken(lua_State *L, int status, lua_KContext k)
{
    (void)status;
    struct lua_handler *h = handler_of(L);
    h->waits = false;
    const struct wake *wake = h->wake;
    if (wake->fault)
        return error_raise_fault(L, wake->fault);
    if (k == 0 || wake->value.size == 0)
        return 0;
    const char *why = "";
    if (!value_push(L, wake->value, &why))
        return error_raise(L, "RoomError", "the answer cannot be read: %s", why);
    if (value_is_null(L, -1))
        lua_pushnil(L);
    return 1;
}

static int wait(lua_State *L, bool wants_value)
{
    handler_of(L)->waits = true;
    return lua_yieldk(L, 0, wants_value, woken);
}

int host_ctx_sleep(lua_State *L)
{
    struct context *ctx = ctx_of(L);
    int64_t ms = duration_check(L, 2);
    waits_check(L, "ctx:sleep");
    if (!context_sleep(ctx, ms, error_own(L)))
        return error_raise_own(L);
    return wait(L, false);
}

int host_ctx_room(lua_State *L)
{
    ctx_of(L);
    luaL_checkstring(L, 2);
    object_push(L, &sibling_kind, ((struct object *)lua_touserdata(L, 1))->serial, KEPT_SIBLING);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, SLOT_TYPE);
    return 1;
}

static int sibling_ask(lua_State *L, enum sibling_verb verb, int method, int input)
{
    struct context *ctx = object_context(L, &sibling_kind, "ctx:room(name)");
    struct slice type, id, name = {NULL, 0}, value = {NULL, 0};
    lua_settop(L, 4);
    id.data = (const uint8_t *)luaL_checklstring(L, 2, &id.size);
    if (method)
        name.data = (const uint8_t *)luaL_checklstring(L, method, &name.size);
    waits_check(L, "a call of another room");
    lua_getiuservalue(L, 1, SLOT_TYPE);
    type.data = (const uint8_t *)lua_tolstring(L, -1, &type.size);
    if (input && !lua_isnil(L, input))
        value = value_text(L, input, "RoomError");
    if (!context_sibling(ctx, verb, type, id, name, value, error_own(L)))
        return error_raise_own(L);
    return wait(L, verb == SIBLING_STATE || verb == SIBLING_CALL);
}

int host_sibling_send(lua_State *L)
{
    luaL_checkany(L, 3);
    return sibling_ask(L, SIBLING_SEND, 0, 3);
}

int host_sibling_get_state(lua_State *L)
{
    return sibling_ask(L, SIBLING_STATE, 0, 0);
}

int host_sibling_broadcast(lua_State *L)
{
    luaL_checkany(L, 3);
    return sibling_ask(L, SIBLING_BROADCAST, 0, 3);
}

int host_sibling_call(lua_State *L)
{
    return sibling_ask(L, SIBLING_CALL, 3, 4);
}

/* ---- connections of the room ---- */

static struct context *connections_of(lua_State *L)
{
    return object_context(L, &connections_kind, "ctx.connections");
}

static int list(lua_State *L, struct context *ctx, const struct slice *tag)
{
    lua_newtable(L);
    lua_Integer n = 0;
    for (struct connection *c = NULL; (c = context_next(ctx, c));) {
        if (tag && !connection_has_tag(c, *tag))
            continue;
        budget_charge(L, 10);
        member_push(L, c);
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

int host_connections_all(lua_State *L)
{
    return list(L, connections_of(L), NULL);
}

int host_connections_by_tag(lua_State *L)
{
    struct context *ctx = connections_of(L);
    struct slice tag;
    tag.data = (const uint8_t *)luaL_checklstring(L, 2, &tag.size);
    return list(L, ctx, &tag);
}

int host_connections_by_id(lua_State *L)
{
    struct context *ctx = connections_of(L);
    struct slice id;
    id.data = (const uint8_t *)luaL_checklstring(L, 2, &id.size);
    member_push(L, context_by_id(ctx, id));
    return 1;
}

int host_connections_filter(lua_State *L)
{
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    list(L, connections_of(L), NULL);
    lua_newtable(L);
    lua_Integer n = 0, count = (lua_Integer)lua_rawlen(L, 3);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_pushvalue(L, 2);
        lua_rawgeti(L, 3, i);
        lua_call(L, 1, 1);
        bool taken = lua_toboolean(L, -1);
        lua_pop(L, 1);
        if (!taken)
            continue;
        lua_rawgeti(L, 3, i);
        lua_rawseti(L, 4, ++n);
    }
    return 1;
}

int host_connections_count(lua_State *L)
{
    struct context *ctx = connections_of(L);
    if (lua_isnoneornil(L, 2)) {
        lua_pushinteger(L, (lua_Integer)context_count(ctx));
        return 1;
    }
    struct slice tag;
    tag.data = (const uint8_t *)luaL_checklstring(L, 2, &tag.size);
    lua_Integer n = 0;
    for (struct connection *c = NULL; (c = context_next(ctx, c));)
        n += connection_has_tag(c, tag);
    lua_pushinteger(L, n);
    return 1;
}

static int no_field(lua_State *L)
{
    return luaL_error(L, "no method '%s' here", luaL_tolstring(L, 2, NULL));
}

void ctx_open(lua_State *L)
{
    object_open(L, KEPT_CTX, "ctx", ctx_field);
    object_open(L, KEPT_CONNECTIONS, "connections", no_field);
    object_open(L, KEPT_SIBLING, "sibling", no_field);
}
