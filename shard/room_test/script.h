/* SHELL. What the files of the test runner share: value.c (Lua values and JSON), script.c (worlds
 * and connections as Lua sees them), files.c (rooms), main.c (the program). test.lua is the API for
 * authors. */
#ifndef STOA_SHARD_ROOM_TEST_SCRIPT_H
#define STOA_SHARD_ROOM_TEST_SCRIPT_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "common/err.h"
#include "common/log.h"
#include "common/strbuf.h"

/* One test file. Lua errors leave C functions by longjmp, so that what they build lies here. */
struct script {
    lua_State *L;
    const char *path; /* of the test file; rooms are looked for beside it */
    struct log log;
    struct strbuf lines; /* what rooms and the shard have said in this case */
    struct strbuf json, text;
};

/* ERR_INVALID: it could not be run to its end, and says so itself on stdout. */
MUST_USE int script_run(const char *path, uint64_t *cases, uint64_t *failed);
struct script *script_of(lua_State *L);

/* ---- value.c ---- */
void value_open(lua_State *L); /* null and array, into the table on top */
/* Pushes a JSON value, nil for null and for no text at all; a text that is not JSON as a string. */
void value_decode(lua_State *L, struct slice json);
/* The JSON of a value, in script.json; raises if it has none. */
struct slice value_encode(lua_State *L, int index);

/* ---- script.c ---- */
int world_open(lua_State *L); /* world(): a new one */

#endif
