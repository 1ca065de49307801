/* CORE. Private to shard/lua: what its files share.
 *
 *   handler.c   the vtable; a run: begin, resume, end     load.c    text to handler: fields checked
 *   budget.c    memory and instructions; stopping         sandbox.c base library, coroutines
 *   text.c      string library, bounded                   match.c   patterns, step by step
 *   value.c     Lua values and JSON                       error.c   faults and error tables
 *   ctx.c       ctx and siblings                          member.c  connections
 *   room.c      the module "room"                         table.c   table and math, bounded
 *   renew.c     another state in place of a full one
 *
 * Lua errors leave a C function by longjmp, so no C function of the host owns memory across a call
 * that may raise: texts are built in buffers of the handler. What the host itself needs (threads,
 * references) is not counted against the room: `unbounded` is on whenever no room code runs. */
#ifndef STOA_SHARD_LUA_HOST_H
#define STOA_SHARD_LUA_HOST_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "shard/context.h"
#include "shard/lua/lua_handler.h"

#define HOOK_STEPS 1000                    /* instructions between two looks at the budget */
#define STRING_MAX_BYTES (8 * 1024 * 1024) /* that rep and the like may make */
#define CLOSE_DEPTH_MAX 64                 /* of coroutine.close within __close */

/* The room's functions, by their references in the registry. */
enum function {
    FUNCTION_IDENTIFY,
    FUNCTION_INIT,
    FUNCTION_DECODE_EVENT,
    FUNCTION_DECODE_STATE,
    FUNCTION_DECODE_CONNECTION,
    FUNCTION_ENCODE_BROADCAST,
    FUNCTION_ON_CONNECT,
    FUNCTION_ON_EVENT,
    FUNCTION_ON_CLOSE,
    FUNCTION_ON_ALARM,
    FUNCTION_ON_DECODE_ERROR,
    FUNCTION_ON_ERROR,
    FUNCTION_MIGRATE,
    FUNCTION_COUNT
};
/* Other things that the registry keeps. */
enum kept {
    KEPT_ERROR, /* metatable of error tables */
    KEPT_ARRAY, /* metatable of arrays */
    KEPT_CTX,   /* metatables of the host's objects */
    KEPT_CONNECTIONS,
    KEPT_CONNECTION,
    KEPT_SIBLING,
    KEPT_ROOM,    /* the module */
    KEPT_GLOBALS, /* _ENV of the chunk */
    KEPT_METHODS, /* "router.ping" -> function */
    KEPT_ENV,     /* ctx.env */
    KEPT_COUNT
};

/* Of a thread, in its extra space: which threads a room may resume. */
enum co_kind {
    CO_PLAIN, /* the room's own */
    CO_RUN,   /* bottom of a run: the host's */
    CO_WAITS, /* passes on what the run waits for */
};

enum stop { STOP_NOT, STOP_STEPS, STOP_TIME, STOP_MEMORY, STOP_PURGE };

struct lua_handler;

/* An invocation: a coroutine. Between segments it is the shard's. */
struct run {
    lua_State *co;
    int co_ref;
    uint64_t serial;               /* names it: ctx and connections of other runs are refused */
    const struct invocation *what; /* during the first segment */
    enum phase phase;
    bool streams;         /* CALL: the caller takes items */
    bool collects;        /* CALL: it does not, and the method yields them */
    bool decoding;        /* EVENT: the frame is not yet the handler's */
    struct strbuf items;  /* JSON of collected items, comma behind each */
    struct strbuf result; /* JSON of what came back */
    struct strbuf meta;   /* CALL: how the input is typed, JSON; empty: not said */
    struct lua_mem *mem;
    uint64_t renewals; /* of the handler when it began: its coroutine is of that state */
};
/* The room's table in memory. */
struct lua_mem {
    int ref;
    uint64_t renewals; /* as above; of another state, there is none */
};

struct lua_handler {
    struct handler base;
    lua_State *L;
    struct lua_options options;
    char *name, *file_name;
    int functions[FUNCTION_COUNT];
    int kept[KEPT_COUNT];
    /* budget */
    size_t used, limit;
    struct piece *pieces; /* all memory of the state */
    bool unbounded;
    int64_t steps_left;
    enum stop stop;
    lua_State *current; /* the thread that runs room code */
    unsigned close_depth;
    /* the running segment */
    struct context *ctx; /* NULL: load, init, identify */
    struct run *run;
    struct run *spare;
    uint64_t runs, segments;
    struct strbuf source, env; /* what the state was made of, to make another */
    uint64_t renewals;
    bool full;         /* a collection left most of the memory in use */
    bool chain_yields; /* every coroutine below the running one could pass a wait on */
    bool waits;        /* a yield that asks the shard for something */
    const struct wake *wake;
    /* buffers that survive a raise */
    struct strbuf text, scratch, keys, names, meta;
    struct fault fault;
    struct persona identity;
    struct strbuf identity_text;
};

/* ---- budget.c ---- */
void *budget_alloc(void *ud, void *p, size_t old_size, size_t new_size);
void budget_lost_free(struct lua_handler *h); /* when the state is closed */
void budget_begin(struct lua_handler *h);
void budget_hook(lua_State *L, lua_Debug *event);
/* Work done in C, in instructions. Does not come back when the budget is spent. */
void budget_charge(lua_State *L, size_t steps);
/* Leaves the run; in C functions it does not come back. */
int budget_halt(lua_State *L);
/* After a failed protected call: true if it was no error but the end, which nobody may catch. */
bool budget_ended(struct lua_handler *h, int status);
static inline struct lua_handler *handler_of(lua_State *L)
{
    void *h;
    lua_getallocf(L, &h);
    return (struct lua_handler *)h;
}
static inline void kept_push(lua_State *L, enum kept what)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, handler_of(L)->kept[what]);
}
/* Keeps the value on top, which it pops. */
void kept_set(lua_State *L, enum kept what);

/* ---- value.c ---- */
/* Pushes the value; false (nothing pushed): not JSON, and why. May raise for want of memory. */
bool value_push(lua_State *L, struct slice json, const char **why);
/* Appends the value's JSON; raises an error with `tag` if it has none. */
void value_write(lua_State *L, int index, struct strbuf *out, const char *tag);
/* The same into the handler's own buffer. */
struct slice value_text(lua_State *L, int index, const char *tag);
bool value_is_null(lua_State *L, int index);

/* ---- error.c ---- */
void error_open(lua_State *L);
/* Raise an error table. */
int error_raise(lua_State *L, const char *tag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int error_raise_fault(lua_State *L, const struct fault *fault);
int error_raise_own(lua_State *L); /* the handler's own `fault` */
void error_push(lua_State *L, const struct fault *fault);
/* The handler's own fault, emptied, for a context function to fill. */
struct fault *error_own(lua_State *L);
/* Pops the error on top and raises it anew with another tag, its text kept. */
int error_raise_as(lua_State *L, const char *tag);
/* What the error on top of `co` says to the shard; the traceback too if it was nobody's intention.
 */
void error_fault(lua_State *co, struct fault *out);

/* ---- the others ---- */
void sandbox_open(lua_State *L);   /* pushes and keeps the globals */
void coroutine_open(lua_State *L); /* pushes the library */
void text_open(lua_State *L);      /* pushes the library */
void table_open(lua_State *L);
void math_open(lua_State *L);
void utf8_open(lua_State *L);
void room_open(lua_State *L);
void ctx_open(lua_State *L);
void member_open(lua_State *L);
/* Pushes a read-only face of the table on top, which it pops. */
void face_push(lua_State *L);
/* Wraps C functions so that they are charged for the lengths of their texts. */
void charged_set(lua_State *L, const char *const *names);
uint64_t random_next(lua_State *L);

/* match.c: the four pattern functions. */
int match_find(lua_State *L);
int match_match(lua_State *L);
int match_gmatch(lua_State *L);
int match_gsub(lua_State *L);

/* ctx.c, member.c */
void ctx_push(lua_State *L, struct run *r);
void member_push(lua_State *L, struct connection *c); /* nil for NULL */
/* The session of a connection object; empty: it is none. */
struct slice member_session(lua_State *L, int index);
/* Encodes a message for others into the handler's text. */
struct slice message_text(lua_State *L, int index, const char *tag);
/* The same of a state: the room's own function must be able to read it, else it raises. */
struct slice kept_text(lua_State *L, int index, enum function f, const char *tag);
void kept_check(lua_State *L, struct slice text, enum function f, const char *tag);
/* Applies one of the room's functions to the value on top; errors get `tag`. */
void function_apply(lua_State *L, enum function f, const char *tag);
/* Of ctx objects and of what hangs on them: raises unless it is of the running run. */
struct context *ctx_check(lua_State *L, uint64_t serial, const char *what);
bool waits_possible(lua_State *L);
/* The metatable of a kind of objects: its members by owner, its fields through `field`. */
void object_open(lua_State *L, enum kept kept, const char *owner, lua_CFunction field);
lua_CFunction member_function(const char *owner, const char *name);

/* renew.c: makes the state anew if it is full. Only while no run is under way. */
void state_renew(struct lua_handler *h);

/* load.c */
int load_enter(lua_State *L);
int init_enter(lua_State *L);
/* Checks the first line and takes it off the text; its end stays, so that line numbers hold. */
bool load_header(struct lua_handler *h, struct slice *text, struct strbuf *why);
/* identify.c */
bool identify_run(struct handler *h, struct slice request, struct persona *out,
                  struct fault *fault);

/* handler.c */
/* A streaming method's third argument. */
int item_yield(lua_State *L);
/* Runs a C function in a new coroutine of the room, without a context. False: *fault. */
bool job_run(struct lua_handler *h, lua_CFunction enter, void *argument, struct fault *fault);

#define METHOD(owner, name, function) int function(lua_State *L);
#define FIELD(owner, name)
#include "shard/lua/members.def"
#undef METHOD
#undef FIELD

#endif
