/* CORE. Room types written in Lua 5.4: a handler (shard/handler.h) made of a file's text.
 *
 * One Lua state per room type, shared by its rooms; a run is a coroutine of it. The state is closed
 * to the world: no files, no clock, no chance but what the context or the options give. It holds
 * against its authors' mistakes: a segment over its budget of instructions or memory is stopped by
 * yielding out of its coroutine, which nothing in Lua can catch, and the room goes on with the next
 * event. */
#ifndef STOA_SHARD_LUA_HANDLER_H
#define STOA_SHARD_LUA_HANDLER_H

#include <stdint.h>

#include "shard/handler.h"

#define LUA_TEXT_MAX_BYTES (1024 * 1024)
#define LUA_MEMORY_DEFAULT_BYTES ((size_t)128 * 1024 * 1024)
#define LUA_INSTRUCTIONS_DEFAULT 40000000 /* less than a second of an empty loop */

/* Zeros are defaults. The functions may be NULL. */
struct lua_options {
    struct slice env;      /* JSON object for init(env) and ctx.env; empty: {} */
    uint64_t instructions; /* of one segment, of the load and of one identify */
    size_t memory_bytes;   /* of the whole state: all rooms of the type */
    /* The world outside of a run (load, init, identify); a run has its context. */
    int64_t (*now_ms)(void *arg);
    uint64_t (*random)(void *arg);
    void (*print)(void *arg, struct slice line);
    /* Asked every few thousand instructions: true stops the segment. For a shell with a clock. */
    bool (*overdue)(void *arg);
    /* The state stayed full after a collection, because the room's code keeps what it need not, and
     * was made anew from the same text: ctx.mem of all rooms is gone, runs that waited fail. */
    void (*renewed)(void *arg, const char *file_name, size_t bytes);
    void *arg;
};

/* The text begins with the line `#!room name=NAME api=1`. ERR_INVALID: *why says file, line or
 * field and what would be right. The handler is destroyed through its vtable. */
MUST_USE int lua_handler_create(struct handler **out, const char *file_name, struct slice text,
                                const struct lua_options *options, struct strbuf *why);

/* NAME of the first line; lives as long as the handler. */
const char *lua_handler_name(const struct handler *h);
size_t lua_handler_memory_bytes(const struct handler *h);

/* Everything that a room file can reach through `ctx` and `room`, for docs/room.meta.lua. */
struct lua_member {
    const char *owner; /* "ctx", "connections", "connection", "sibling", "room", "json" */
    const char *name;
    bool is_function;
};
extern const struct lua_member lua_members[];
extern const size_t lua_members_count;
/* The fields that a room's table may have; NULL behind the last. */
const char *lua_room_field(size_t i);

#endif
