/* What a room must ask for: rollback, exclusive, its number of retries. In Lua: strict.lua. */
#include <stdlib.h>

#include "probe.h"

const stoa_room_host *host;

static stoa_room_bytes count_of(stoa_room_ctx *ctx, int64_t n)
{
    struct text t = {.ctx = ctx};
    put_text(&t, "{\"n\":");
    put_number(&t, n);
    put_text(&t, "}");
    return bytes_of(&t);
}

static stoa_room_rc counted(stoa_room_ctx *ctx, void *mem, stoa_room_rc rc, stoa_room_bytes value,
                            void *ud)
{
    int64_t *before = ud;
    (void)mem;
    (void)value;
    if (ctx && rc == STOA_ROOM_OK) {
        struct text t = {.ctx = ctx};
        put_number(&t, *before + 1);
        rc = host->save(ctx, count_of(ctx, *before + 1));
        rc = rc ? rc : host->broadcast(ctx, bytes_of(&t), NULL);
    }
    free(before);
    return rc;
}

static stoa_room_rc on_event(stoa_room_ctx *ctx, void *mem, stoa_room_bytes event)
{
    stoa_room_bytes state;
    (void)mem;
    stoa_room_rc rc = host->recall(ctx, &state);
    if (rc != STOA_ROOM_OK && rc != STOA_ROOM_NONE)
        return rc;
    int64_t *before = malloc(sizeof *before);
    if (!before)
        return host->fail(ctx, STOA_ROOM_E_EXECUTION, "out of memory");
    *before = whole(host->json_get(state, "n"));
    rc = host->sleep(ctx, whole(host->json_get(event, "ms")), counted, before);
    if (rc != STOA_ROOM_OK)
        free(before);
    return rc;
}

static stoa_room_rc leave_traces(stoa_room_ctx *ctx, int64_t n)
{
    stoa_room_rc rc = host->save(ctx, count_of(ctx, n));
    rc = rc ? rc : host->broadcast(ctx, STOA_ROOM_TEXT("\"a trace\""), NULL);
    return rc ? rc : host->schedule_in(ctx, 1000);
}

static stoa_room_rc fail(stoa_room_ctx *ctx)
{
    return host->fail(ctx, STOA_ROOM_E_EXECUTION, "as asked");
}

static stoa_room_rc failed_later(stoa_room_ctx *ctx, void *mem, stoa_room_rc rc,
                                 stoa_room_bytes value, void *ud)
{
    (void)mem;
    (void)value;
    (void)ud;
    if (!ctx || rc != STOA_ROOM_OK)
        return rc;
    rc = leave_traces(ctx, 2);
    return rc ? rc : fail(ctx);
}

static stoa_room_rc on_call(stoa_room_ctx *ctx, void *mem, stoa_room_bytes method,
                            stoa_room_bytes input)
{
    (void)mem;
    (void)input;
    if (is(method, "wake"))
        return host->schedule_in(ctx, 5);
    int later = is(method, "fail_later");
    if (!later && !is(method, "fail"))
        return STOA_ROOM_NONE;
    stoa_room_rc rc = leave_traces(ctx, 1);
    if (rc != STOA_ROOM_OK)
        return rc;
    return later ? host->sleep(ctx, 10, failed_later, NULL) : fail(ctx);
}

static stoa_room_rc on_alarm(stoa_room_ctx *ctx, void *mem)
{
    (void)mem;
    return fail(ctx);
}

static stoa_room_rc strict_open(const stoa_room_host *table, stoa_room_bytes config,
                                const char **why)
{
    (void)config;
    (void)why;
    host = table;
    return STOA_ROOM_OK;
}

static const stoa_room_traits traits = {.rollback = 1, .exclusive = 1, .alarm_retries = 1};

static const stoa_room_vtable strict = {.abi = STOA_ROOM_ABI,
                                        .size = sizeof strict,
                                        .name = "strict",
                                        .traits = &traits,
                                        .open = strict_open,
                                        .on_event = on_event,
                                        .on_alarm = on_alarm,
                                        .on_call = on_call};

const stoa_room_vtable *stoa_room_plugin(uint32_t host_abi)
{
    return host_abi == STOA_ROOM_ABI ? &strict : NULL;
}
