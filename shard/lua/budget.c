/* CORE. What a segment may use: memory, counted by the state's allocator, and instructions, counted
 * by a hook and by the host's own C functions.
 *
 * A segment over its budget is not failed but left: the coroutine yields and is never resumed, so
 * that no pcall, no xpcall and no coroutine.wrap of the room sees it. Where Lua cannot yield (in a
 * comparison of table.sort, in a metamethod that C called) an error is raised instead; the host's
 * pcall, xpcall and resume know by `stop` that it is none of theirs and pass it on.
 *
 *     room code -> hook -> yield ----------------------------> host: RUN_KILLED
 *     sort -> comparison -> hook -> error -> sort -> pcall -> yield -> host: RUN_KILLED
 *
 * Running out of memory is an error of Lua's own; whoever catches it first turns it into a stop. */
#include "shard/lua/host.h"

#include "common/mem.h"

#define LARGE_BYTES 4096      /* allocations from here on cost time for their bytes too */
#define BYTES_PER_STEP_LOG2 4 /* copying 16 bytes is about an instruction */

/* A loop that joins long texts does little but allocate: the next instruction shall look. */
static void large_charge(struct lua_handler *h, size_t size)
{
    h->steps_left -= (int64_t)(size >> BYTES_PER_STEP_LOG2);
    if (h->steps_left < 0 && h->current)
        lua_sethook(h->current, budget_hook, LUA_MASKCOUNT, 1);
}

/* Before every piece of memory of a state: they are a list, from which the state's end frees what
 * Lua has lost. It loses the long texts of luaL_Buffer when their finalizer is called with the C
 * stack or the memory full. */
struct piece {
    struct piece *next, *before;
};
_Static_assert(sizeof(struct piece) % 16 == 0, "what follows is aligned as malloc's");

static struct piece *piece_of(void *p)
{
    return p ? (struct piece *)p - 1 : NULL;
}

static void *piece_resize(struct lua_handler *h, struct piece *piece, size_t size)
{
    bool is_new = !piece;
    piece = (struct piece *)mem_realloc(piece, sizeof *piece + size);
    if (is_new) {
        piece->next = h->pieces;
        piece->before = NULL;
        h->pieces = piece;
    } else if (piece->before) {
        piece->before->next = piece;
    } else {
        h->pieces = piece;
    }
    if (piece->next)
        piece->next->before = piece;
    return piece + 1;
}

static void piece_free(struct lua_handler *h, struct piece *piece)
{
    if (piece->before)
        piece->before->next = piece->next;
    else
        h->pieces = piece->next;
    if (piece->next)
        piece->next->before = piece->before;
    mem_free(piece);
}

void budget_lost_free(struct lua_handler *h)
{
    while (h->pieces)
        piece_free(h, h->pieces);
}

void *budget_alloc(void *ud, void *p, size_t old_size, size_t new_size)
{
    struct lua_handler *h = (struct lua_handler *)ud;
    if (!p)
        old_size = 0; /* it is a kind of object then */
    if (new_size == 0) {
        h->used -= old_size;
        if (p)
            piece_free(h, piece_of(p));
        return NULL;
    }
    if (new_size > old_size && !h->unbounded) {
        if (h->used - old_size + new_size > h->limit)
            return NULL;
        if (new_size >= LARGE_BYTES)
            large_charge(h, new_size);
    }
    h->used = h->used - old_size + new_size;
    return piece_resize(h, piece_of(p), new_size);
}

void budget_begin(struct lua_handler *h)
{
    h->steps_left = (int64_t)h->options.instructions;
    h->stop = STOP_NOT;
    h->waits = false;
    h->chain_yields = true;
    h->close_depth = 0;
}

int budget_halt(lua_State *L)
{
    /* Should anything run on (a __close, a message handler), it ends at its first instruction. */
    lua_sethook(L, budget_hook, LUA_MASKCOUNT, 1);
    if (lua_isyieldable(L))
        return lua_yield(L, 0);
    return luaL_error(L, "stopped");
}

static bool overdue(const struct lua_handler *h)
{
    return h->options.overdue && h->options.overdue(h->options.arg);
}

void budget_hook(lua_State *L, lua_Debug *event)
{
    (void)event;
    struct lua_handler *h = handler_of(L);
    if (h->stop == STOP_NOT) {
        h->steps_left -= HOOK_STEPS;
        if (h->steps_left >= 0 && !overdue(h))
            return;
        h->stop = h->steps_left < 0 ? STOP_STEPS : STOP_TIME;
    }
    budget_halt(L);
}

void budget_charge(lua_State *L, size_t steps)
{
    struct lua_handler *h = handler_of(L);
    if (h->unbounded)
        return;
    h->steps_left -= (int64_t)(steps < INT32_MAX ? steps : INT32_MAX);
    if (h->steps_left >= 0 && (steps < HOOK_STEPS || !overdue(h)))
        return;
    if (h->stop == STOP_NOT)
        h->stop = h->steps_left < 0 ? STOP_STEPS : STOP_TIME;
    budget_halt(L);
}

bool budget_ended(struct lua_handler *h, int status)
{
    if (status == LUA_ERRMEM && h->stop == STOP_NOT)
        h->stop = STOP_MEMORY;
    return h->stop != STOP_NOT;
}

void kept_set(lua_State *L, enum kept what)
{
    handler_of(L)->kept[what] = luaL_ref(L, LUA_REGISTRYINDEX);
}
