/* A context for handlers without a shard: what a room asks for is written down as lines of text, in
 * its order, and what it reads is what the test put there. */
#ifndef STOA_TESTS_LUA_WORLD_H
#define STOA_TESTS_LUA_WORLD_H

#include "shard/context.h"
#include "shard/lua/lua_handler.h"

#define WORLD_CONNECTIONS_MAX 8

struct connection {
    char session[32], id[32], tag[64];
    struct strbuf state, meta;
    bool open;
};

struct context {
    struct handler *handler;
    void *mem;
    char id[64], key[96];
    bool has_state;
    struct strbuf state;
    unsigned state_version;
    struct connection connections[WORLD_CONNECTIONS_MAX];
    size_t n_connections;
    struct connection *current;
    int64_t now_ms, alarm_ms; /* 0: no alarm */
    uint64_t random;
    struct strbuf done; /* lines */
    struct strbuf log;
    struct strbuf value; /* what slices given out point to */
    const char *refuse;  /* tag with which the next fallible function fails */
    /* of the last run */
    struct run *run;
    struct strbuf result;
    struct fault fault;
};

/* Loads the text or fails the test with why. `budget` 0: the default. */
struct handler *world_load(const char *text, uint64_t instructions, size_t memory_bytes);
/* The reason why the text is refused; valid until the next call. */
const char *world_refusal(const char *text);
struct context *world_create(struct handler *h, const char *id);
void world_destroy(struct context *w);
struct connection *world_join(struct context *w, const char *session, const char *id,
                              const char *tag, const char *state);

enum run_end world_run(struct context *w, const struct invocation *what);
enum run_end world_event(struct context *w, struct connection *c, const char *event);
enum run_end world_call(struct context *w, const char *method, const char *input);
enum run_end world_wake(struct context *w, const char *value, const struct fault *fault);
/* Runs the method and returns its result, or "TAG: message" (first line) if it fails. */
const char *world_answer(struct context *w, const char *method, const char *input);
/* What was done since the last look, one line each. */
const char *world_done(struct context *w);
const char *world_log(struct context *w);

/* A room of one method `f`, whose body is given. */
struct handler *world_body(const char *body);
const char *world_eval(const char *body);

#endif
