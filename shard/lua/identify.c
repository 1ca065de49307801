/* CORE. Who a connection is: the room's identify(req), or what the token says. No room is touched
 * and no context is there. */
#include "shard/lua/host.h"

#include "common/json.h"

struct question {
    struct slice request;
    struct lua_handler *h;
};

/* Of the table at `index`: its field as JSON behind what the buffer holds; false: it has none. */
static bool json_field(lua_State *L, int index, const char *name, struct strbuf *out)
{
    if (lua_getfield(L, index, name) == LUA_TNIL) {
        lua_pop(L, 1);
        return false;
    }
    value_write(L, -1, out, "UpgradeError");
    lua_pop(L, 1);
    return true;
}

static void id_check(lua_State *L, int type)
{
    if (type != LUA_TNIL && type != LUA_TSTRING)
        error_raise(L, "UpgradeError", "identify: id must be a text, not a %s",
                    lua_typename(L, type));
}

static void tags_check(lua_State *L, int type)
{
    if (type == LUA_TNIL)
        return;
    if (type != LUA_TTABLE)
        error_raise(L, "UpgradeError", "identify: tags must be a list of texts");
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    for (lua_Integer i = 1; i <= n; i++) {
        if (lua_rawgeti(L, -1, i) != LUA_TSTRING)
            error_raise(L, "UpgradeError", "identify: tag %lld is a %s; tags are texts",
                        (long long)i, luaL_typename(L, -1));
        lua_pop(L, 1);
    }
    kept_push(L, KEPT_ARRAY);
    if (n > 0)
        lua_pop(L, 1);
    else
        lua_setmetatable(L, -2); /* {} is the empty list here */
}

/* The table at `index` becomes the answer; the names are of its fields. */
static void answer_take(lua_State *L, int index, const char *const names[4])
{
    struct lua_handler *h = handler_of(L);
    struct strbuf *text = &h->identity_text;
    size_t at[5];
    strbuf_reset(text);
    at[0] = 0;
    id_check(L, lua_getfield(L, index, names[0]));
    if (!lua_isnil(L, -1)) {
        size_t size;
        const char *id = lua_tolstring(L, -1, &size);
        strbuf_put(text, id, size);
    }
    lua_pop(L, 1);
    at[1] = text->size;
    tags_check(L, lua_getfield(L, index, names[1]));
    lua_pop(L, 1);
    for (int i = 1; i < 4; i++) {
        if (names[i])
            json_field(L, index, names[i], text);
        at[i + 1] = text->size;
    }
    struct slice *parts[4] = {&h->identity.id, &h->identity.tags, &h->identity.state,
                              &h->identity.meta};
    for (int i = 0; i < 4 && text->size > 0; i++)
        *parts[i] = slice_of(text->data + at[i], at[i + 1] - at[i]);
}

/* What is null in the request is not there. */
static void nulls_remove(lua_State *L, int table)
{
    lua_pushnil(L);
    while (lua_next(L, table)) {
        bool null = value_is_null(L, -1);
        lua_pop(L, 1);
        if (null) {
            lua_pushvalue(L, -1);
            lua_pushnil(L);
            lua_rawset(L, table);
        }
    }
}

static int identify_enter(lua_State *L)
{
    static const char *const own[4] = {"id", "tags", "state", "meta"};
    static const char *const of_claims[4] = {"id", "tags", "att", NULL};
    struct question *q = (struct question *)lua_touserdata(L, 1);
    const char *why = "";
    if (!value_push(L, q->request, &why) || !lua_istable(L, -1))
        return error_raise(L, "UpgradeError", "the request is no JSON object: %s", why);
    nulls_remove(L, lua_gettop(L));
    int function = q->h->functions[FUNCTION_IDENTIFY];
    if (lua_rawgeti(L, LUA_REGISTRYINDEX, function) != LUA_TFUNCTION) {
        lua_pop(L, 1);
        if (lua_getfield(L, -1, "claims") == LUA_TTABLE) {
            nulls_remove(L, lua_gettop(L));
            answer_take(L, lua_gettop(L), of_claims);
        }
        return 0;
    }
    lua_insert(L, -2);
    lua_call(L, 1, 1);
    if (lua_isnil(L, -1))
        return 0;
    if (!lua_istable(L, -1))
        return error_raise(L, "UpgradeError", "identify returned a %s; it must return a table",
                           luaL_typename(L, -1));
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        bool known = false;
        for (int i = 0; i < 4; i++)
            known |= strcmp(name, own[i]) == 0;
        if (!known)
            return error_raise(L, "UpgradeError",
                               "identify: unknown field '%s'; there are id, tags, state, meta",
                               name);
        lua_pop(L, 1);
    }
    answer_take(L, lua_gettop(L), own);
    if (q->h->identity.state.size > 0 && q->h->functions[FUNCTION_DECODE_CONNECTION] != LUA_NOREF)
        kept_check(L, q->h->identity.state, FUNCTION_DECODE_CONNECTION, "UpgradeError");
    return 0;
}

bool identify_run(struct handler *base, struct slice request, struct persona *out,
                  struct fault *fault)
{
    struct lua_handler *h = (struct lua_handler *)base;
    state_renew(h);
    struct question q = {request, h};
    memset(&h->identity, 0, sizeof h->identity);
    strbuf_reset(&h->identity_text);
    bool ok = job_run(h, identify_enter, &q, fault);
    *out = (struct persona){0};
    if (ok) {
        *out = h->identity;
        return true;
    }
    out->stopped = h->stop != STOP_NOT && h->stop != STOP_PURGE;
    if (strcmp(fault->tag, "UpgradeError") != 0 || fault->status == 0)
        return false;
    strbuf_reset(&h->identity_text); /* room.refuse */
    strbuf_put_slice(&h->identity_text, strbuf_slice(&fault->message));
    out->status = fault->status;
    out->refusal = strbuf_slice(&h->identity_text);
    return true;
}
