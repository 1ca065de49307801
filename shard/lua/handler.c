/* CORE. The vtable of Lua room types: invocations become coroutines of the type's state.
 *
 *   run      enter() decodes what came in and calls the room's function in a fresh coroutine
 *   resume   goes on where the coroutine waits; the waiting function takes h->wake
 *   end      returned: its value as JSON; raised: a fault with traceback; stopped: the coroutine is
 *            dropped as it stands, nothing in it runs again
 *
 * Everything that may raise runs inside the coroutine, where running out of memory ends the run. */
#include "shard/lua/host.h"

#include <stdio.h>

#include "common/json.h"
#include "common/mem.h"

static struct lua_handler *lua_of(struct handler *h)
{
    return (struct lua_handler *)h;
}

/* ---- runs ---- */

/* A coroutine that ended well is used again. */
static struct run *run_create(struct lua_handler *h, lua_CFunction enter, void *argument)
{
    struct run *r = h->spare;
    h->spare = NULL;
    if (!r) {
        r = (struct run *)mem_zalloc(sizeof *r);
        r->co = lua_newthread(h->L);
        r->co_ref = luaL_ref(h->L, LUA_REGISTRYINDEX);
        *(intptr_t *)lua_getextraspace(r->co) = CO_RUN;
    }
    lua_sethook(r->co, budget_hook, LUA_MASKCOUNT, HOOK_STEPS);
    r->serial = ++h->runs;
    r->renewals = h->renewals;
    r->streams = r->collects = r->decoding = false;
    strbuf_reset(&r->items);
    strbuf_reset(&r->result);
    strbuf_reset(&r->meta);
    lua_pushcfunction(r->co, enter);
    lua_pushlightuserdata(r->co, argument ? argument : r);
    return r;
}

static void run_destroy(struct lua_handler *h, struct run *r)
{
    if (r->renewals == h->renewals)
        luaL_unref(h->L, LUA_REGISTRYINDEX, r->co_ref);
    strbuf_free(&r->items);
    strbuf_free(&r->result);
    strbuf_free(&r->meta);
    mem_free(r);
}

static void run_release(struct lua_handler *h, struct run *r, bool reusable)
{
    r->serial = 0;
    if (reusable && !h->spare &&
        r->result.capacity + r->items.capacity + r->meta.capacity < STRING_MAX_BYTES / 64) {
        lua_settop(r->co, 0);
        h->spare = r;
        return;
    }
    run_destroy(h, r);
}

/* Runs the coroutine until it ends, waits or is stopped. */
static int go(struct lua_handler *h, struct context *ctx, struct run *r, int arguments)
{
    int results;
    h->ctx = ctx;
    h->run = r;
    h->segments++;
    budget_begin(h);
    h->current = r->co;
    h->unbounded = false;
    int status = lua_resume(r->co, h->L, arguments, &results);
    h->unbounded = true;
    h->current = NULL;
    budget_ended(h, status);
    if (h->stop == STOP_NOT && status == LUA_YIELD && !h->waits)
        h->stop = STOP_STEPS; /* by nothing that the host knows */
    h->ctx = NULL;
    h->run = NULL;
    return status;
}

static void mem_forget(struct lua_handler *h, struct lua_mem *mem)
{
    if (mem->renewals == h->renewals)
        luaL_unref(h->L, LUA_REGISTRYINDEX, mem->ref);
    mem->ref = LUA_NOREF;
}

static enum run_end killed(struct lua_handler *h, struct lua_mem *mem, struct fault *fault)
{
    if (h->stop == STOP_MEMORY) {
        fault_set(fault, "RoomExecutionError", "stopped: more than %zu bytes of memory", h->limit);
        if (mem) /* what it hoarded shall not stop the type's other rooms */
            mem_forget(h, mem);
        lua_gc(h->L, LUA_GCCOLLECT, 0);
        h->full = h->used > h->limit / 4 * 3;
    } else if (h->stop == STOP_TIME) {
        fault_set(fault, "RoomExecutionError", "stopped: too long at a stretch");
    } else {
        fault_set(fault, "RoomExecutionError", "stopped: more than %llu instructions at a stretch",
                  (unsigned long long)h->options.instructions);
    }
    return RUN_KILLED;
}

static enum run_end segment(struct lua_handler *h, struct context *ctx, struct run **run,
                            int arguments, struct strbuf *result, struct fault *fault)
{
    struct run *r = *run;
    struct lua_mem *mem = r->mem;
    int status = go(h, ctx, r, arguments);
    enum run_end end = RUN_DONE;
    if (h->stop == STOP_NOT && status == LUA_YIELD)
        return RUN_YIELDED;
    if (h->stop != STOP_NOT && h->stop != STOP_PURGE) {
        *run = NULL;
        run_release(h, r, false);
        return killed(h, mem, fault);
    }
    if (h->stop == STOP_NOT && status != LUA_OK) {
        error_fault(r->co, fault);
        end = r->decoding ? RUN_UNDECODED : RUN_FAILED;
        if (r->decoding && strcmp(fault->tag, "RoomExecutionError") == 0)
            snprintf(fault->tag, sizeof fault->tag, "RoomValidationError");
    } else if (result && h->stop == STOP_NOT) {
        strbuf_put_slice(result, strbuf_slice(&r->result));
    } else if (result) {
        strbuf_put_text(result, "null");
    }
    *run = NULL;
    run_release(h, r, status == LUA_OK);
    return end;
}

bool job_run(struct lua_handler *h, lua_CFunction enter, void *argument, struct fault *fault)
{
    struct run *r = run_create(h, enter, argument);
    r->mem = NULL;
    return segment(h, NULL, &r, 1, NULL, fault) == RUN_DONE;
}

/* ---- entering: C functions at the bottom of the coroutines ---- */

static void input_push(lua_State *L, struct run *r, struct slice input)
{
    const char *why = NULL;
    r->decoding = r->phase == PHASE_EVENT;
    if (input.size == 0 && r->phase == PHASE_CALL)
        lua_pushnil(L);
    else if (!value_push(L, input, &why))
        error_raise(L, "RoomValidationError",
                    json_valid(input) ? "the %s cannot be read: %s" : "the %s is %s",
                    r->phase == PHASE_CALL ? "method's input" : "event", why);
    if (r->phase == PHASE_EVENT)
        function_apply(L, FUNCTION_DECODE_EVENT, "RoomValidationError");
    else if (value_is_null(L, -1))
        lua_pushnil(L), lua_replace(L, -2);
    r->decoding = false;
}

static void close_push(lua_State *L, const struct invocation *what)
{
    lua_createtable(L, 0, 5);
    lua_pushinteger(L, what->code);
    lua_setfield(L, -2, "code");
    lua_pushlstring(L, what->reason.size ? (const char *)what->reason.data : "", what->reason.size);
    lua_setfield(L, -2, "reason");
    lua_pushboolean(L, what->clean);
    lua_setfield(L, -2, "clean");
    lua_pushboolean(L, what->replaced);
    lua_setfield(L, -2, "replaced");
    lua_pushboolean(L, what->recovered);
    lua_setfield(L, -2, "recovered");
}

/* Pushes what follows ctx; returns how many. */
static int arguments_push(lua_State *L, struct run *r)
{
    const struct invocation *what = r->what;
    switch (r->phase) {
    case PHASE_EVENT:
        input_push(L, r, what->input);
        return 1;
    case PHASE_CALL:
        input_push(L, r, what->input);
        lua_pushinteger(L, (lua_Integer)r->serial);
        lua_pushcclosure(L, item_yield, 1);
        return 2;
    case PHASE_CLOSE:
        close_push(L, what);
        return 1;
    case PHASE_DECODE_ERROR:
        lua_pushlstring(L, what->input.size ? (const char *)what->input.data : "",
                        what->input.size);
        error_push(L, what->fault);
        return 2;
    case PHASE_ERROR:
        lua_pushstring(L, phase_name(what->failed));
        error_push(L, what->fault);
        return 2;
    case PHASE_CONNECT:
    case PHASE_ALARM:
    case PHASE_COUNT:
        break;
    }
    return 0;
}

static int left(lua_State *L, int status, lua_KContext k)
{
    (void)status;
    struct run *r = (struct run *)k;
    if (r->phase != PHASE_CALL)
        return 0;
    struct slice value = value_text(L, -1, "RoomExecutionError");
    if (!r->collects) {
        strbuf_put_slice(&r->result, value);
        return 0;
    }
    strbuf_put_byte(&r->result, '[');
    if (lua_isnil(L, -1) && r->items.size > 0)
        r->items.size--; /* the last comma */
    strbuf_put_slice(&r->result, strbuf_slice(&r->items));
    if (!lua_isnil(L, -1))
        strbuf_put_slice(&r->result, value);
    strbuf_put_byte(&r->result, ']');
    return 0;
}

static const enum function functions[PHASE_COUNT] = {
    [PHASE_CONNECT] = FUNCTION_ON_CONNECT, [PHASE_EVENT] = FUNCTION_ON_EVENT,
    [PHASE_CLOSE] = FUNCTION_ON_CLOSE,     [PHASE_ALARM] = FUNCTION_ON_ALARM,
    [PHASE_CALL] = FUNCTION_COUNT,         [PHASE_DECODE_ERROR] = FUNCTION_ON_DECODE_ERROR,
    [PHASE_ERROR] = FUNCTION_ON_ERROR,
};

/* Pushes the function of the invocation, or nil. */
static bool target_push(struct lua_handler *h, lua_State *L, const struct invocation *what)
{
    if (what->phase != PHASE_CALL)
        return lua_rawgeti(L, LUA_REGISTRYINDEX, h->functions[functions[what->phase]]) ==
               LUA_TFUNCTION;
    lua_rawgeti(L, LUA_REGISTRYINDEX, h->kept[KEPT_METHODS]);
    lua_pushlstring(L, what->method.size ? (const char *)what->method.data : "", what->method.size);
    int type = lua_rawget(L, -2);
    lua_remove(L, -2);
    return type == LUA_TFUNCTION;
}

static int enter(lua_State *L)
{
    struct run *r = (struct run *)lua_touserdata(L, 1);
    target_push(handler_of(L), L, r->what);
    if (r->phase == PHASE_CALL) { /* a third parameter: it yields items */
        lua_Debug info;
        lua_pushvalue(L, -1);
        lua_getinfo(L, ">u", &info);
        r->collects = info.nparams >= 3 && !r->streams;
    }
    ctx_push(L, r);
    int n = 1 + arguments_push(L, r);
    lua_callk(L, n, 1, (lua_KContext)r, left);
    return left(L, LUA_OK, (lua_KContext)r);
}

int item_yield(lua_State *L)
{
    struct lua_handler *h = handler_of(L);
    struct context *ctx = ctx_check(L, (uint64_t)lua_tointeger(L, lua_upvalueindex(1)), "yield");
    struct run *r = h->run;
    luaL_checkany(L, 1);
    struct slice item = value_text(L, 1, "RoomExecutionError");
    if (r->streams) {
        if (!context_item(ctx, item, error_own(L)))
            return error_raise_own(L);
        return 0;
    }
    if (r->items.size + item.size > STRING_MAX_BYTES)
        return luaL_error(L, "more than %d bytes of items", STRING_MAX_BYTES);
    strbuf_put_slice(&r->items, item);
    strbuf_put_byte(&r->items, ',');
    return 0;
}

/* ---- vtable ---- */

static enum run_end vtable_run(struct handler *base, struct context *ctx, void *mem,
                               const struct invocation *what, struct run **run,
                               struct strbuf *result, struct fault *fault)
{
    struct lua_handler *h = lua_of(base);
    *run = NULL;
    state_renew(h);
    bool there = target_push(h, h->L, what);
    lua_pop(h->L, 1);
    if (!there)
        return RUN_ABSENT;
    struct run *r = run_create(h, enter, NULL);
    r->what = what;
    r->phase = what->phase;
    r->streams = what->phase == PHASE_CALL && what->streams;
    strbuf_put_slice(&r->meta, what->meta);
    r->mem = (struct lua_mem *)mem;
    *run = r;
    enum run_end end = segment(h, ctx, run, 1, what->phase == PHASE_CALL ? result : NULL, fault);
    r = *run;
    if (r)
        r->what = NULL;
    return end;
}

static enum run_end vtable_resume(struct handler *base, struct context *ctx, void *mem,
                                  struct run **run, const struct wake *wake, struct strbuf *result,
                                  struct fault *fault)
{
    struct lua_handler *h = lua_of(base);
    if ((*run)->renewals != h->renewals) {
        run_destroy(h, *run);
        *run = NULL;
        fault_set(fault, "RoomExecutionError", "the memory of the room's type was full meanwhile");
        return RUN_FAILED;
    }
    (*run)->mem = (struct lua_mem *)mem;
    h->wake = wake;
    enum run_end end = segment(h, ctx, run, 0, (*run)->phase == PHASE_CALL ? result : NULL, fault);
    h->wake = NULL;
    return end;
}

static void vtable_abandon(struct handler *base, struct run **run)
{
    if (*run)
        run_destroy(lua_of(base), *run);
    *run = NULL;
}

static void *vtable_load(struct handler *base, struct context *ctx)
{
    (void)base;
    (void)ctx;
    struct lua_mem *mem = (struct lua_mem *)mem_zalloc(sizeof *mem);
    mem->ref = LUA_NOREF;
    return mem;
}

static void vtable_unload(struct handler *base, void *mem)
{
    struct lua_mem *m = (struct lua_mem *)mem;
    if (!m)
        return;
    mem_forget(lua_of(base), m);
    mem_free(m);
}

static void vtable_destroy(struct handler *base)
{
    struct lua_handler *h = lua_of(base);
    if (h->spare)
        run_destroy(h, h->spare);
    lua_close(h->L);
    budget_lost_free(h);
    strbuf_free(&h->text);
    strbuf_free(&h->scratch);
    strbuf_free(&h->keys);
    strbuf_free(&h->names);
    strbuf_free(&h->meta);
    strbuf_free(&h->identity_text);
    strbuf_free(&h->source);
    strbuf_free(&h->env);
    fault_free(&h->fault);
    strbuf_free(&h->base.traits.auto_request);
    strbuf_free(&h->base.traits.auto_response);
    mem_free(h->name);
    mem_free(h->file_name);
    mem_free(h);
}

static const struct handler_vtable vtable = {
    .destroy = vtable_destroy,
    .identify = identify_run,
    .load = vtable_load,
    .unload = vtable_unload,
    .run = vtable_run,
    .resume = vtable_resume,
    .abandon = vtable_abandon,
};

static struct lua_handler *handler_create(const char *file_name, const struct lua_options *options)
{
    struct lua_handler *h = (struct lua_handler *)mem_zalloc(sizeof *h);
    h->base.vtable = &vtable;
    h->base.traits = (struct handler_traits)HANDLER_TRAITS_DEFAULT;
    h->options = *options;
    if (h->options.instructions == 0)
        h->options.instructions = LUA_INSTRUCTIONS_DEFAULT;
    h->limit = options->memory_bytes ? options->memory_bytes : LUA_MEMORY_DEFAULT_BYTES;
    h->file_name = mem_strdup(file_name);
    h->unbounded = true;
    for (int i = 0; i < FUNCTION_COUNT; i++)
        h->functions[i] = LUA_NOREF;
    for (int i = 0; i < KEPT_COUNT; i++)
        h->kept[i] = LUA_NOREF;
    h->L = lua_newstate(budget_alloc, h);
    STOA_ASSERT(h->L);
    *(intptr_t *)lua_getextraspace(h->L) = CO_PLAIN;
    error_open(h->L);
    member_open(h->L);
    ctx_open(h->L);
    room_open(h->L);
    sandbox_open(h->L);
    return h;
}

int lua_handler_create(struct handler **out, const char *file_name, struct slice text,
                       const struct lua_options *options, struct strbuf *why)
{
    *out = NULL;
    struct lua_handler *h = handler_create(file_name, options);
    strbuf_put_slice(&h->source, text);
    strbuf_put_slice(&h->env, options->env);
    struct fault fault = {0};
    bool ok = load_header(h, &text, why);
    if (ok) {
        ok = job_run(h, load_enter, &text, &fault) && job_run(h, init_enter, NULL, &fault);
        if (!ok) {
            struct slice message = strbuf_slice(&fault.message);
            const uint8_t *trace = message.size > 0
                                       ? memmem(message.data, message.size, "\nstack traceback", 16)
                                       : NULL;
            if (trace)
                message.size = (size_t)(trace - message.data);
            strbuf_put_slice(why, message);
        }
    }
    fault_free(&fault);
    h->options.env = slice_text("");
    if (!ok) {
        vtable_destroy(&h->base);
        return ERR_INVALID;
    }
    *out = &h->base;
    return ERR_OK;
}

const char *lua_handler_name(const struct handler *h)
{
    return ((const struct lua_handler *)h)->name;
}

size_t lua_handler_memory_bytes(const struct handler *h)
{
    return ((const struct lua_handler *)h)->used;
}
