/* A room that behaves badly when it is told to (tests/process/test_guard.py): its method `hang`
 * does not come back, `crash` writes where nothing is, `leave` ends the process; `count` counts.
 * Frames that say "hang" or "crash" do the same; others go to everybody. */
#include <stdlib.h>
#include <string.h>

#include "stoa_room.h"

static const stoa_room_host *host;

static stoa_room_rc bad_open(const stoa_room_host *table, stoa_room_bytes config, const char **why)
{
    (void)config;
    (void)why;
    host = table;
    return STOA_ROOM_OK;
}

static int is(stoa_room_bytes text, const char *word)
{
    return text.n == strlen(word) && memcmp(text.p, word, text.n) == 0;
}

static volatile int zero;

static void misbehave(stoa_room_bytes how)
{
    while (is(how, "hang") || is(how, "\"hang\""))
        zero = 0;
    if (is(how, "crash") || is(how, "\"crash\"")) {
        volatile int *nowhere = (volatile int *)(size_t)(zero + 64);
        *nowhere = 1;
    }
    if (is(how, "leave"))
        exit(3);
}

static stoa_room_rc on_event(stoa_room_ctx *ctx, void *mem, stoa_room_bytes event)
{
    (void)mem;
    misbehave(event);
    return host->broadcast(ctx, event, NULL);
}

static stoa_room_rc on_call(stoa_room_ctx *ctx, void *mem, stoa_room_bytes method,
                            stoa_room_bytes input)
{
    (void)mem;
    (void)input;
    misbehave(method);
    return is(method, "count") ? host->result(ctx, STOA_ROOM_TEXT("1")) : STOA_ROOM_NONE;
}

static const stoa_room_vtable bad = {.abi = STOA_ROOM_ABI,
                                     .size = sizeof bad,
                                     .name = "bad",
                                     .open = bad_open,
                                     .on_event = on_event,
                                     .on_call = on_call};

const stoa_room_vtable *stoa_room_plugin(uint32_t host_abi)
{
    return host_abi == STOA_ROOM_ABI ? &bad : NULL;
}
