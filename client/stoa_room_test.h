/* Tests of rooms in C: a shard in memory, with the code that ships, a clock that stands until it is
 * moved and a gateway that does what the test says. Rooms in C and in Lua; any test framework.
 *
 *     stoa_test *t = stoa_test_create();
 *     ck_assert_int_eq(stoa_test_load(t, "build/counter.so", NULL), 0);
 *     stoa_test_connection *ann = stoa_test_connect(t, "counter:one",
 * "{\"query\":{\"name\":\"ann\"}}"); ck_assert_str_eq(stoa_test_received(ann), "{\"count\":0}");
 *     stoa_test_receive(ann, "{\"add\":2}");
 *     ck_assert_str_eq(stoa_test_received(ann), "{\"count\":2}");
 *     ck_assert_str_eq(stoa_test_call(t, "counter:one", "get", NULL)->json, "2");
 *     stoa_test_destroy(t);
 *
 * Everything that a function causes has happened when it returns: handlers have run, what they did
 * is committed and sent. A handler that waits (a sleep, another room) is waited for: the clock
 * moves until its answer is there, 30 s at most. Two runs of a test are alike. Any number of shards
 * can be made; they know nothing of each other. One thread for each.
 *
 * Keys are "TYPE:ID". Texts are NUL-terminated UTF-8, JSON where it says so; those that functions
 * return live until the same function is called again for the same object, unless it says
 * otherwise. A null pointer where a key, path or text is needed ends the program. */
#ifndef STOA_ROOM_TEST_H
#define STOA_ROOM_TEST_H

#include <stddef.h>
#include <stdint.h>

#include "stoa_room.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct stoa_test stoa_test;                       /* a shard */
typedef struct stoa_test_connection stoa_test_connection; /* of a client; the shard owns it */

/* How something went: as over HTTP. */
typedef struct stoa_test_answer {
    unsigned status;     /* 0: fine */
    const char *tag;     /* "RoomValidationError"; "" if it is fine */
    const char *message; /* "" if there is none */
    const char *json;    /* the value, or the data of an error; "" if there is none */
} stoa_test_answer;

/* ---- the shard and its room types ---- */

/* An empty shard, at 2025-06-15 15:06:40 UTC. Never NULL. */
STOA_ROOM_EXPORT stoa_test *stoa_test_create(void);
/* Frees it, its connections and its libraries. NULL is fine. */
STOA_ROOM_EXPORT void stoa_test_destroy(stoa_test *t);
/* Adds the room type of a file, .so or .lua; its name is the file's own. `config`: what a
 * configuration may say of the type, a JSON object with on_duplicate, max_connections,
 * max_connection_state, schemas (files beside the room's); NULL: nothing. 0, or -1: stoa_test_error
 * says why. */
STOA_ROOM_EXPORT int stoa_test_load(stoa_test *t, const char *path, const char *config);
/* The same for a room that is linked into the test: stoa_test_plugin(t, stoa_room_plugin, NULL).
 * What it keeps in variables of its own outlives stoa_test_restart, unlike in a cluster. */
STOA_ROOM_EXPORT int stoa_test_plugin(stoa_test *t, const stoa_room_vtable *(*entry)(uint32_t),
                                      const char *config);
/* Why the last stoa_test_load, _plugin or _restart failed; "" if none has. */
STOA_ROOM_EXPORT const char *stoa_test_error(stoa_test *t);
/* What rooms have printed, and how handlers have failed, since the last time: lines. */
STOA_ROOM_EXPORT const char *stoa_test_printed(stoa_test *t);

/* ---- connections ---- */

/* A client connects. `request`: what identify sees, a JSON object with query, claims, headers, ip,
 * client_state; what is missing is empty; NULL: all of it. NULL: refused, stoa_test_last says how.
 */
STOA_ROOM_EXPORT stoa_test_connection *stoa_test_connect(stoa_test *t, const char *key,
                                                         const char *request);
STOA_ROOM_EXPORT const char *stoa_test_id(stoa_test_connection *c);
STOA_ROOM_EXPORT const char *stoa_test_session(stoa_test_connection *c); /* unique */
STOA_ROOM_EXPORT const char *stoa_test_tags(stoa_test_connection *c);    /* JSON array */
/* The client sends a text frame: JSON, or something that does not decode. 0, or -1: it is closed.
 */
STOA_ROOM_EXPORT int stoa_test_receive(stoa_test_connection *c, const char *frame);
/* A binary one, of any bytes. */
STOA_ROOM_EXPORT int stoa_test_receive_binary(stoa_test_connection *c, const void *frame,
                                              size_t size);
/* The oldest message that it got and that was not yet taken; NULL: there is none. */
STOA_ROOM_EXPORT const char *stoa_test_received(stoa_test_connection *c);
/* The client closes, code 1000 to 4999; 1006: it vanishes without a Close frame. reason NULL: none.
 */
STOA_ROOM_EXPORT void stoa_test_close(stoa_test_connection *c, unsigned code, const char *reason);
/* 1 while it is open; then 0, and why. `code` and `reason` may be NULL; the reason lives as long as
 * the connection. */
STOA_ROOM_EXPORT int stoa_test_is_open(stoa_test_connection *c, unsigned *code,
                                       const char **reason);

/* ---- what is asked of a room from outside; answers live until the next question of the shard ----
 */

/* POST /api/TYPE/ID/send: on_event without a connection. */
STOA_ROOM_EXPORT const stoa_test_answer *stoa_test_send(stoa_test *t, const char *key,
                                                        const char *event);
/* POST …/broadcast: to its connections; nothing runs. */
STOA_ROOM_EXPORT const stoa_test_answer *stoa_test_broadcast(stoa_test *t, const char *key,
                                                             const char *message);
/* POST …/METHOD. input NULL: none. What a method streams comes as one array. */
STOA_ROOM_EXPORT const stoa_test_answer *stoa_test_call(stoa_test *t, const char *key,
                                                        const char *method, const char *input);
/* GET …/state: "null" if there is none. */
STOA_ROOM_EXPORT const stoa_test_answer *stoa_test_state(stoa_test *t, const char *key);
/* GET …/connections: array of {id, tags, state}, oldest first. tag NULL: all. */
STOA_ROOM_EXPORT const stoa_test_answer *stoa_test_connections(stoa_test *t, const char *key,
                                                               const char *tag);
/* GET …/log: array of the retained events' data, oldest first. */
STOA_ROOM_EXPORT const stoa_test_answer *stoa_test_log(stoa_test *t, const char *key);
/* POST …/alarm: runs on_alarm now. */
STOA_ROOM_EXPORT const stoa_test_answer *stoa_test_fire_alarm(stoa_test *t, const char *key);
/* DELETE /api/TYPE/ID. */
STOA_ROOM_EXPORT const stoa_test_answer *stoa_test_purge(stoa_test *t, const char *key);
/* The answer of the last question, or of a connect that was refused. */
STOA_ROOM_EXPORT const stoa_test_answer *stoa_test_last(stoa_test *t);

/* ---- time ---- */

STOA_ROOM_EXPORT int64_t stoa_test_now(stoa_test *t); /* ms since 1970 */
/* Moves the clock, forwards; what falls due on the way runs at its own time. */
STOA_ROOM_EXPORT void stoa_test_tick(stoa_test *t, int64_t ms);
/* When the room's alarm is due, in ms since 1970; -1: it has none, or one that failed for good. */
STOA_ROOM_EXPORT int64_t stoa_test_next_alarm(stoa_test *t, const char *key);

/* ---- what goes wrong ---- */

/* kill -9 of the shard, and its start: what was committed is there, companions are not, sockets
 * stay. `gateways` not 0: these are killed as well, so every connection is lost, and on_close says
 * `recovered` 15 s later. 0, or -1: a file does not load any more, and nothing can be asked. */
STOA_ROOM_EXPORT int stoa_test_restart(stoa_test *t, int gateways);
/* The n-th commit from now on (1: the next) and all after it find the disk full; 0: there is space
 * again. */
STOA_ROOM_EXPORT void stoa_test_fail_commits(stoa_test *t, unsigned n);

#ifdef __cplusplus
}
#endif

#endif
