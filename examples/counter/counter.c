/* A room in C: a counter that everybody in the room sees.
 *
 *   types: { counter: { handler: rooms/counter.so } }
 *
 *   frame    {"add": 2}                    adds; everybody gets {"count": N}
 *   methods  get                           the count
 *            add {"by": 2}                 adds; the new count
 *            add_later {"by": 2, "ms": 50} the same after a while; other frames go on meanwhile
 *            copy {"from": "other"}        takes over the count of another counter
 *
 * A counter that nobody touches for an hour goes back to 0. `?name=ann` says who one is, and each
 * connection's state counts what it added itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stoa_room.h"

#define IDLE_MS (60 * 60 * 1000)
#define COUNT_MAX INT64_C(1000000000000)

static const stoa_room_host *host;

/* ---- numbers ---- */

/* A whole number of at most COUNT_MAX either way; 0: it is something else. */
static int number_of(stoa_room_bytes json, int64_t *out)
{
    char text[32];
    char *end;
    if (json.n == 0 || json.n >= sizeof text || strchr("-0123456789", json.p[0]) == NULL)
        return 0;
    memcpy(text, json.p, json.n);
    text[json.n] = '\0';
    *out = strtoll(text, &end, 10);
    return *end == '\0' && *out <= COUNT_MAX && *out >= -COUNT_MAX;
}

/* {"NAME":VALUE} for the rest of the segment. */
static stoa_room_bytes object_of(stoa_room_ctx *ctx, const char *name, int64_t value)
{
    char *text = host->alloc(ctx, 64);
    int size = snprintf(text, 64, "{\"%s\":%lld}", name, (long long)value);
    return (stoa_room_bytes){text, (size_t)size};
}

/* ---- the count ---- */

static stoa_room_rc recall(stoa_room_ctx *ctx, int64_t *count)
{
    stoa_room_bytes state;
    *count = 0;
    stoa_room_rc rc = host->recall(ctx, &state);
    if (rc == STOA_ROOM_NONE)
        return STOA_ROOM_OK;
    if (rc != STOA_ROOM_OK)
        return rc;
    if (!number_of(host->json_get(state, "count"), count))
        return host->fail(ctx, STOA_ROOM_E_ROOM, "the stored state has no count");
    return STOA_ROOM_OK;
}

static stoa_room_rc put(stoa_room_ctx *ctx, int64_t count)
{
    stoa_room_bytes state = object_of(ctx, "count", count);
    stoa_room_rc rc = host->save(ctx, state);
    if (rc == STOA_ROOM_OK)
        rc = host->broadcast(ctx, state, NULL);
    return rc ? rc : host->schedule_in(ctx, IDLE_MS);
}

static stoa_room_rc add(stoa_room_ctx *ctx, int64_t by, int64_t *count)
{
    stoa_room_rc rc = recall(ctx, count);
    if (rc != STOA_ROOM_OK)
        return rc;
    *count += by;
    if (*count > COUNT_MAX || *count < -COUNT_MAX)
        return host->fail_with(ctx, "OutOfRange", 409, "the counter ends at 1000000000000",
                               object_of(ctx, "by", by));
    return put(ctx, *count);
}

/* ---- connections ---- */

static stoa_room_rc identify(stoa_room_ctx *ctx, stoa_room_bytes request,
                             stoa_room_identity *identity)
{
    stoa_room_bytes name = host->json_get(host->json_get(request, "query"), "name");
    if (!name.p)
        return STOA_ROOM_OK;
    if (host->json_text(ctx, name, &identity->id) != STOA_ROOM_OK || identity->id.n == 0)
        return host->refuse(ctx, 400, "name must not be empty");
    identity->state = STOA_ROOM_TEXT("{\"added\":0}");
    return STOA_ROOM_OK;
}

static stoa_room_rc on_connect(stoa_room_ctx *ctx, void *mem)
{
    int64_t count;
    (void)mem;
    stoa_room_rc rc = recall(ctx, &count);
    return rc ? rc : host->send(ctx, host->connection(ctx), object_of(ctx, "count", count));
}

static stoa_room_rc decode_event(stoa_room_bytes event, const char **why)
{
    int64_t by;
    *why = "an event is {\"add\": N} with a whole number";
    return number_of(host->json_get(event, "add"), &by) ? STOA_ROOM_OK : STOA_ROOM_E_VALIDATION;
}

static stoa_room_rc on_event(stoa_room_ctx *ctx, void *mem, stoa_room_bytes event)
{
    stoa_room_conn *who = host->connection(ctx); /* NULL: sent over HTTP */
    int64_t by = 0, count, added = 0;
    (void)mem;
    (void)number_of(host->json_get(event, "add"), &by);
    stoa_room_rc rc = add(ctx, by, &count);
    if (rc != STOA_ROOM_OK || !who)
        return rc;
    (void)number_of(host->json_get(host->conn_state(who), "added"), &added);
    return host->set_state(ctx, who, object_of(ctx, "added", added + by));
}

static stoa_room_rc on_alarm(stoa_room_ctx *ctx, void *mem)
{
    stoa_room_bytes zero = STOA_ROOM_TEXT("{\"count\":0}");
    (void)mem;
    stoa_room_rc rc = host->save(ctx, zero);
    return rc ? rc : host->broadcast(ctx, zero, NULL);
}

/* ---- methods ---- */

static stoa_room_rc answer(stoa_room_ctx *ctx, int64_t count)
{
    char *text = host->alloc(ctx, 32);
    int size = snprintf(text, 32, "%lld", (long long)count);
    return host->result(ctx, (stoa_room_bytes){text, (size_t)size});
}

static stoa_room_rc add_and_answer(stoa_room_ctx *ctx, int64_t by)
{
    int64_t count;
    stoa_room_rc rc = add(ctx, by, &count);
    return rc ? rc : answer(ctx, count);
}

static stoa_room_rc slept(stoa_room_ctx *ctx, void *mem, stoa_room_rc rc, stoa_room_bytes value,
                          void *ud)
{
    int64_t *by = ud;
    (void)mem;
    (void)value;
    if (ctx && rc == STOA_ROOM_OK) /* NULL: this room will not go on */
        rc = add_and_answer(ctx, *by);
    free(by);
    return rc;
}

static stoa_room_rc add_later(stoa_room_ctx *ctx, stoa_room_bytes input, int64_t by)
{
    int64_t ms = 0;
    (void)number_of(host->json_get(input, "ms"), &ms);
    int64_t *kept = malloc(sizeof *kept);
    if (!kept)
        return host->fail(ctx, STOA_ROOM_E_EXECUTION, "out of memory");
    *kept = by;
    stoa_room_rc rc = host->sleep(ctx, ms, slept, kept);
    if (rc != STOA_ROOM_OK)
        free(kept);
    return rc;
}

static stoa_room_rc copied(stoa_room_ctx *ctx, void *mem, stoa_room_rc rc, stoa_room_bytes value,
                           void *ud)
{
    int64_t count = 0;
    (void)mem;
    (void)ud;
    if (!ctx || rc != STOA_ROOM_OK)
        return rc;
    (void)number_of(host->json_get(value, "count"), &count); /* null: it has never counted */
    rc = put(ctx, count);
    return rc ? rc : answer(ctx, count);
}

static stoa_room_rc copy(stoa_room_ctx *ctx, stoa_room_bytes input)
{
    stoa_room_bytes from;
    if (host->json_text(ctx, host->json_get(input, "from"), &from) != STOA_ROOM_OK)
        return host->fail(ctx, STOA_ROOM_E_VALIDATION, "`from` is the id of a counter");
    return host->room_state(ctx, host->name(ctx), from, copied, NULL);
}

static int is(stoa_room_bytes text, const char *name)
{
    return text.n == strlen(name) && memcmp(text.p, name, text.n) == 0;
}

static stoa_room_rc on_call(stoa_room_ctx *ctx, void *mem, stoa_room_bytes method,
                            stoa_room_bytes input)
{
    int64_t by = 1, count;
    (void)mem;
    if (is(method, "get")) {
        stoa_room_rc rc = recall(ctx, &count);
        return rc ? rc : answer(ctx, count);
    }
    if (is(method, "copy"))
        return copy(ctx, input);
    int later = is(method, "add_later");
    if (!later && !is(method, "add"))
        return STOA_ROOM_NONE;
    stoa_room_bytes said = host->json_get(input, "by");
    if (said.p && !number_of(said, &by))
        return host->fail(ctx, STOA_ROOM_E_VALIDATION, "`by` is a whole number");
    return later ? add_later(ctx, input, by) : add_and_answer(ctx, by);
}

/* ---- the table ---- */

static stoa_room_rc counter_open(const stoa_room_host *table, stoa_room_bytes config,
                                 const char **why)
{
    (void)config;
    if (table->size < sizeof *table) {
        *why = "the shard is older than this room: it needs the functions for JSON";
        return STOA_ROOM_E_ROOM;
    }
    host = table;
    return STOA_ROOM_OK;
}

static const stoa_room_traits traits = {.auto_request = "ping", .auto_response = "pong"};

static const stoa_room_vtable counter = {.abi = STOA_ROOM_ABI,
                                         .size = sizeof counter,
                                         .name = "counter",
                                         .traits = &traits,
                                         .open = counter_open,
                                         .identify = identify,
                                         .decode_event = decode_event,
                                         .on_connect = on_connect,
                                         .on_event = on_event,
                                         .on_alarm = on_alarm,
                                         .on_call = on_call};

const stoa_room_vtable *stoa_room_plugin(uint32_t host_abi)
{
    return host_abi == STOA_ROOM_ABI ? &counter : NULL;
}
