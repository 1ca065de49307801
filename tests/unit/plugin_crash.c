/* A room whose method `crash` ends its process, once (tests/process/test_room_c.py); frames are
 * kept as its state and go to everybody. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stoa_room.h"

static const stoa_room_host *host;

static stoa_room_rc crash_open(const stoa_room_host *table, stoa_room_bytes config,
                               const char **why)
{
    (void)config;
    (void)why;
    host = table;
    return STOA_ROOM_OK;
}

static stoa_room_rc on_event(stoa_room_ctx *ctx, void *mem, stoa_room_bytes event)
{
    (void)mem;
    stoa_room_rc rc = host->save(ctx, event);
    return rc ? rc : host->broadcast(ctx, event, NULL);
}

static stoa_room_rc on_call(stoa_room_ctx *ctx, void *mem, stoa_room_bytes method,
                            stoa_room_bytes input)
{
    (void)mem;
    (void)input;
    if (method.n != 5 || memcmp(method.p, "crash", 5) != 0)
        return STOA_ROOM_NONE;
    FILE *mark = fopen("crashed", "r"); /* the second time it is there, and the method answers */
    if (mark) {
        (void)fclose(mark);
        return host->result(ctx, STOA_ROOM_TEXT("\"survived\""));
    }
    (void)host->save(ctx, STOA_ROOM_TEXT("\"never\""));
    mark = fopen("crashed", "w");
    if (mark)
        (void)fclose(mark);
    abort();
}

static const stoa_room_vtable crash = {.abi = STOA_ROOM_ABI,
                                       .size = sizeof crash,
                                       .name = "crash",
                                       .open = crash_open,
                                       .on_event = on_event,
                                       .on_call = on_call};

const stoa_room_vtable *stoa_room_plugin(uint32_t host_abi)
{
    return host_abi == STOA_ROOM_ABI ? &crash : NULL;
}
