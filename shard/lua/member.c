/* CORE. Connections as rooms see them. The object holds the session's name, not only the context's
 * pointer: in the next segment of the run (after a wait) the pointer is looked up anew, and the
 * connection may be gone. Two objects of one connection are equal. */
#include "shard/lua/host.h"

#include <stdio.h>

#define SESSION_BYTES 64

static const char member_kind;
struct member {
    const char *kind;
    uint64_t serial, segment;
    struct connection *c; /* of `segment`; NULL: gone */
    size_t session_size;
    char session[SESSION_BYTES];
};
enum { SLOT_ID = 1 };

void member_push(lua_State *L, struct connection *c)
{
    struct lua_handler *h = handler_of(L);
    if (!c) {
        lua_pushnil(L);
        return;
    }
    struct member *m = (struct member *)lua_newuserdatauv(L, sizeof *m, 1);
    struct slice session = connection_session(c), id = connection_id(c);
    STOA_ASSERT(session.size <= sizeof m->session);
    m->kind = &member_kind;
    m->serial = h->run->serial;
    m->segment = h->segments;
    m->c = c;
    m->session_size = session.size;
    memcpy(m->session, session.data, session.size);
    kept_push(L, KEPT_CONNECTION);
    lua_setmetatable(L, -2);
    lua_pushlstring(L, id.size ? (const char *)id.data : "", id.size);
    lua_setiuservalue(L, -2, SLOT_ID);
}

static struct member *member_at(lua_State *L, int index)
{
    if (lua_type(L, index) != LUA_TUSERDATA)
        return NULL;
    struct member *m = (struct member *)lua_touserdata(L, index);
    return m->kind == &member_kind ? m : NULL;
}

struct slice member_session(lua_State *L, int index)
{
    struct member *m = member_at(L, index);
    if (!m)
        return (struct slice){NULL, 0};
    ctx_check(L, m->serial, "a connection");
    return slice_of(m->session, m->session_size);
}

static struct connection *find(struct context *ctx, struct slice session)
{
    struct connection *c = context_connection(ctx);
    if (c && slice_equal(connection_session(c), session))
        return c;
    for (c = NULL; (c = context_next(ctx, c));) {
        if (slice_equal(connection_session(c), session))
            return c;
    }
    return NULL;
}

static struct member *member_of(lua_State *L, struct context **ctx)
{
    struct member *m = member_at(L, 1);
    if (!m)
        luaL_error(L, "the connection is missing before the arguments: write "
                      "connection:method(...), with a colon");
    *ctx = ctx_check(L, m->serial, "a connection");
    struct lua_handler *h = handler_of(L);
    if (m->segment != h->segments) {
        m->c = find(*ctx, slice_of(m->session, m->session_size));
        m->segment = h->segments;
    }
    return m;
}

static struct connection *present(lua_State *L, struct context **ctx, const char *tag)
{
    struct member *m = member_of(L, ctx);
    if (!m->c)
        error_raise(L, tag, "the connection is gone");
    return m->c;
}

/* ---- fields ---- */

static void json_push(lua_State *L, struct slice json)
{
    const char *why = "";
    if (json.size == 0)
        lua_pushnil(L);
    else if (!value_push(L, json, &why))
        error_raise(L, "RoomError", "what is kept of the connection cannot be read: %s", why);
}

static void tags_push(lua_State *L, struct connection *c)
{
    size_t n = connection_tags(c);
    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
        struct slice tag = connection_tag(c, i);
        lua_pushlstring(L, (const char *)tag.data, tag.size);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    kept_push(L, KEPT_ARRAY);
    lua_setmetatable(L, -2);
}

static int member_field(lua_State *L)
{
    struct context *ctx;
    struct member *m = member_of(L, &ctx);
    const char *name = luaL_checkstring(L, 2);
    if (strcmp(name, "id") == 0) {
        lua_getiuservalue(L, 1, SLOT_ID);
    } else if (strcmp(name, "session") == 0) {
        lua_pushlstring(L, m->session, m->session_size);
    } else if (strcmp(name, "state") == 0) {
        json_push(L, connection_state(present(L, &ctx, "RoomError")));
        if (value_is_null(L, -1))
            lua_pushnil(L);
        else
            function_apply(L, FUNCTION_DECODE_CONNECTION, "RoomError");
    } else if (strcmp(name, "tags") == 0) {
        tags_push(L, present(L, &ctx, "RoomError"));
    } else if (strcmp(name, "meta") == 0) {
        json_push(L, connection_meta(present(L, &ctx, "RoomError")));
    } else {
        return luaL_error(L, "a connection has no field '%s'", name);
    }
    return 1;
}

static int member_equal(lua_State *L)
{
    struct member *a = member_at(L, 1), *b = member_at(L, 2);
    lua_pushboolean(L, a && b && a->session_size == b->session_size &&
                           memcmp(a->session, b->session, a->session_size) == 0);
    return 1;
}

static int member_text(lua_State *L)
{
    struct member *m = member_at(L, 1);
    if (!m)
        return luaL_error(L, "no connection");
    lua_getiuservalue(L, 1, SLOT_ID);
    lua_pushfstring(L, "connection %s", lua_tostring(L, -1));
    return 1;
}

/* ---- methods ---- */

int host_connection_send(lua_State *L)
{
    struct context *ctx;
    struct connection *c = present(L, &ctx, "SendError");
    struct slice message = message_text(L, 2, "SendError");
    if (!context_send(ctx, c, message, error_own(L)))
        return error_raise_own(L);
    return 0;
}

int host_connection_set_state(lua_State *L)
{
    struct context *ctx;
    struct connection *c = present(L, &ctx, "RoomError");
    struct slice state = kept_text(L, 2, FUNCTION_DECODE_CONNECTION, "RoomError");
    if (!context_set_state(ctx, c, state, error_own(L)))
        return error_raise_own(L);
    return 0;
}

int host_connection_close(lua_State *L)
{
    struct context *ctx;
    struct member *m = member_of(L, &ctx);
    lua_Integer code = luaL_optinteger(L, 2, 1000);
    struct slice reason;
    reason.data = (const uint8_t *)luaL_optlstring(L, 3, "", &reason.size);
    unsigned known = code >= 0 && code <= UINT16_MAX ? (unsigned)code : 0; /* 0 is none */
    if (m->c && !context_close(ctx, m->c, known, reason, error_own(L)))
        return error_raise_own(L);
    return 0;
}

int host_connection_is_open(lua_State *L)
{
    struct context *ctx;
    struct member *m = member_of(L, &ctx);
    lua_pushboolean(L, m->c && connection_is_open(m->c));
    return 1;
}

void member_open(lua_State *L)
{
    object_open(L, KEPT_CONNECTION, "connection", member_field);
    kept_push(L, KEPT_CONNECTION);
    lua_pushcfunction(L, member_equal);
    lua_setfield(L, -2, "__eq");
    lua_pushcfunction(L, member_text);
    lua_setfield(L, -2, "__tostring");
    lua_pop(L, 1);
}
