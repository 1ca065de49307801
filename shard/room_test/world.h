/* CORE. A world for tests of rooms: the shard that ships, a store in memory, a gateway that does
 * what it is told, a clock that stands until it is moved. Everything that a step causes has
 * happened when its function comes back. The Lua test runner is made of it; tests in C may use it
 * as it is.
 *
 *   world_create -> world_type ... -> world_start -> world_join, world_call ... -> world_destroy
 *
 * A handler that waits (sleep, a sibling) is waited for: the clock moves until the answer is there,
 * WORLD_PATIENCE_MS at most. */
#ifndef STOA_SHARD_ROOM_TEST_WORLD_H
#define STOA_SHARD_ROOM_TEST_WORLD_H

#include "common/log.h"
#include "common/strbuf.h"
#include "proto/message.h"
#include "shard/handler.h"
#include "shard/shard.h"

#define WORLD_BEGIN_MS INT64_C(1750000000000)
#define WORLD_PATIENCE_MS 30000

struct world;
struct world_connection; /* the world's; lives as long */

/* How a step ended; freed by whoever asked. */
struct world_answer {
    unsigned status; /* 0: fine, else as over HTTP */
    struct strbuf tag, text;
    struct strbuf json; /* the value, or the error's data; empty: none */
};
void world_answer_free(struct world_answer *a);

/* `log` is borrowed. */
struct world *world_create(struct log *log);
/* Handlers are the caller's and outlive the world. */
void world_destroy(struct world **w);

/* A room type, or another handler for it; at once if the shard runs. `type->name` is copied. */
void world_type(struct world *w, const struct shard_type *type);
void world_start(struct world *w);
/* The shard is killed: what it had in memory is lost, what it had committed stays. Connections stay
 * at the gateway and are back with world_start; `gateways_too`: these are killed as well. */
void world_stop(struct world *w, bool gateways_too);

int64_t world_now_ms(const struct world *w);
uint64_t world_random(struct world *w);
/* The clock moves, in steps no longer than anything in the shard waits for. */
void world_wait(struct world *w, int64_t ms);
/* The n-th commit from now on (1: the next one) and all behind it find the disk full; 0: there is
 * space again. */
void world_fill(struct world *w, unsigned nth);

/* `request` as identify gets it. NULL: refused, *refusal says how. */
struct world_connection *world_join(struct world *w, struct slice key, struct slice request,
                                    struct world_answer *refusal);
struct slice world_connection_id(const struct world_connection *c);
struct slice world_connection_session(const struct world_connection *c);
struct slice world_connection_tags(const struct world_connection *c); /* JSON array */
/* While it is open nothing is written; then why it was closed. */
bool world_connection_open(const struct world_connection *c, unsigned *code, struct slice *reason);
/* The oldest message that it got and that was not yet taken; false: none. */
bool world_connection_take(struct world_connection *c, struct strbuf *message);
/* A frame from the client. False: the connection is closed. */
bool world_receive(struct world *w, struct world_connection *c, struct slice frame, bool text);
/* The client closes; 1006: it is lost without a Close frame. */
void world_leave(struct world *w, struct world_connection *c, unsigned code, struct slice reason);

/* Anything that is asked of a room from outside. */
void world_call(struct world *w, struct slice key, enum call_verb verb, struct slice name,
                struct slice input, struct world_answer *out);
void world_purge(struct world *w, struct slice key, struct world_answer *out);
/* Retained events, oldest first, as a JSON array. */
void world_log(struct world *w, struct slice key, struct world_answer *out);
/* When the room's alarm is due. False: it has none, or one that failed for good. */
bool world_alarm(struct world *w, struct slice key, int64_t *due_ms);

#endif
