/* examples/chat/chat.lua in C, to compare the two: the same frames in and out, the same state. It
 * passes the tests of the one in Lua. */
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stoa_room.h"

static const stoa_room_host *host;

/* printf to bytes that live as long as the segment. */
__attribute__((format(printf, 3, 4))) static stoa_room_bytes
text_of(stoa_room_ctx *ctx, size_t room, const char *format, ...)
{
    va_list list;
    char *text = host->alloc(ctx, room);
    va_start(list, format);
    int size = vsnprintf(text, room, format, list);
    va_end(list);
    return (stoa_room_bytes){text, (size_t)size};
}

static int is(stoa_room_bytes json, const char *wanted)
{
    return json.n == strlen(wanted) && memcmp(json.p, wanted, json.n) == 0;
}

static int is_text(stoa_room_bytes json)
{
    return json.n > 0 && json.p[0] == '"';
}

static int64_t number_of(stoa_room_bytes json)
{
    char text[24] = {0};
    if (json.n >= sizeof text)
        return 0;
    memcpy(text, json.p, json.n);
    return strtoll(text, NULL, 10);
}

/* ---- who ---- */

static stoa_room_rc identify(stoa_room_ctx *ctx, stoa_room_bytes request, stoa_room_identity *who)
{
    stoa_room_bytes claims = host->json_get(request, "claims");
    stoa_room_bytes said = is(claims, "null")
                               ? host->json_get(host->json_get(request, "query"), "userId")
                               : host->json_get(claims, "sub");
    stoa_room_bytes user = STOA_ROOM_TEXT("anon");
    if (is_text(said)) {
        stoa_room_rc rc = host->json_text(ctx, said, &user);
        if (rc != STOA_ROOM_OK)
            return rc;
    }
    stoa_room_bytes quoted = host->json_quote(ctx, user);
    who->id = user;
    /* `"user:` and what follows the opening quote */
    who->tags = text_of(ctx, quoted.n + 16, "[\"user:%.*s]", (int)quoted.n - 1, quoted.p + 1);
    who->state = text_of(ctx, quoted.n + 16, "{\"userId\":%.*s}", (int)quoted.n, quoted.p);
    return STOA_ROOM_OK;
}

static stoa_room_bytes user_of(stoa_room_ctx *ctx)
{
    stoa_room_conn *c = host->connection(ctx);
    return c ? host->json_get(host->conn_state(c), "userId") : STOA_ROOM_TEXT("\"system\"");
}

/* {"_tag":TAG,"userId":USER} to everybody else. */
static stoa_room_rc tell_others(stoa_room_ctx *ctx, const char *tag)
{
    stoa_room_bytes user = user_of(ctx);
    stoa_room_bytes self = host->conn_session(host->connection(ctx));
    const stoa_room_recipients others = {.except = &self, .n_except = 1};
    return host->broadcast(
        ctx,
        text_of(ctx, user.n + 64, "{\"_tag\":\"%s\",\"userId\":%.*s}", tag, (int)user.n, user.p),
        &others);
}

/* ---- what happens ---- */

static stoa_room_rc put_count(stoa_room_ctx *ctx, int64_t created, int64_t count)
{
    return host->save(ctx,
                      text_of(ctx, 96, "{\"createdAt\":%" PRId64 ",\"messageCount\":%" PRId64 "}",
                              created, count));
}

/* A pure function knows no clock: identify leaves the time to be told here. */
static stoa_room_rc date(stoa_room_ctx *ctx)
{
    stoa_room_bytes user = user_of(ctx);
    return host->set_state(ctx, host->connection(ctx),
                           text_of(ctx, user.n + 64, "{\"userId\":%.*s,\"joinedAt\":%" PRId64 "}",
                                   (int)user.n, user.p, host->now_ms(ctx)));
}

static stoa_room_rc on_connect(stoa_room_ctx *ctx, void *mem)
{
    stoa_room_bytes state;
    (void)mem;
    stoa_room_rc rc = host->recall(ctx, &state);
    if (rc == STOA_ROOM_NONE)
        rc = put_count(ctx, host->now_ms(ctx), 0);
    if (rc == STOA_ROOM_OK)
        rc = date(ctx);
    return rc ? rc : tell_others(ctx, "UserJoined");
}

static stoa_room_rc decode_event(stoa_room_bytes event, const char **why)
{
    stoa_room_bytes tag = host->json_get(event, "_tag");
    *why = "neither Say nor Typing";
    if (is(tag, "\"Typing\""))
        return STOA_ROOM_OK;
    return is(tag, "\"Say\"") && is_text(host->json_get(event, "text")) ? STOA_ROOM_OK
                                                                        : STOA_ROOM_E_VALIDATION;
}

static stoa_room_rc say(stoa_room_ctx *ctx, stoa_room_bytes text)
{
    stoa_room_bytes state, user = user_of(ctx);
    stoa_room_rc rc = host->recall(ctx, &state);
    if (rc == STOA_ROOM_OK)
        rc = put_count(ctx, number_of(host->json_get(state, "createdAt")),
                       number_of(host->json_get(state, "messageCount")) + 1);
    if (rc != STOA_ROOM_OK && rc != STOA_ROOM_NONE)
        return rc;
    return host->broadcast(
        ctx,
        text_of(ctx, text.n + user.n + 96,
                "{\"_tag\":\"Message\",\"text\":%.*s,\"userId\":%.*s,\"ts\":%" PRId64 "}",
                (int)text.n, text.p, (int)user.n, user.p, host->now_ms(ctx)),
        NULL);
}

static stoa_room_rc on_event(stoa_room_ctx *ctx, void *mem, stoa_room_bytes event)
{
    (void)mem;
    if (is(host->json_get(event, "_tag"), "\"Say\""))
        return say(ctx, host->json_get(event, "text"));
    return host->connection(ctx) ? tell_others(ctx, "Typing") : STOA_ROOM_OK;
}

static stoa_room_rc on_close(stoa_room_ctx *ctx, void *mem, const stoa_room_close_info *info)
{
    (void)mem;
    (void)info;
    return tell_others(ctx, "UserLeft");
}

static stoa_room_rc on_call(stoa_room_ctx *ctx, void *mem, stoa_room_bytes method,
                            stoa_room_bytes input)
{
    stoa_room_bytes text = host->json_get(input, "text");
    (void)mem;
    if (!is(method, "say"))
        return STOA_ROOM_NONE;
    if (!is_text(text))
        return host->fail_with(ctx, "BadRequest", 400, "say {\"text\": \"...\"}",
                               (stoa_room_bytes){0});
    stoa_room_rc rc = say(ctx, text);
    return rc ? rc : host->result(ctx, STOA_ROOM_TEXT("{\"status\":\"ok\"}"));
}

/* ---- the table ---- */

static stoa_room_rc chat_open(const stoa_room_host *table, stoa_room_bytes config, const char **why)
{
    (void)config;
    if (table->size < offsetof(stoa_room_host, json_valid)) {
        *why = "the shard is older than this room: it needs the functions for JSON";
        return STOA_ROOM_E_ROOM;
    }
    host = table;
    return STOA_ROOM_OK;
}

static const stoa_room_traits traits = {.on_duplicate = "allow"};

static const stoa_room_vtable chat = {.abi = STOA_ROOM_ABI,
                                      .size = sizeof chat,
                                      .name = "chat",
                                      .traits = &traits,
                                      .open = chat_open,
                                      .identify = identify,
                                      .decode_event = decode_event,
                                      .on_connect = on_connect,
                                      .on_event = on_event,
                                      .on_close = on_close,
                                      .on_call = on_call};

const stoa_room_vtable *stoa_room_plugin(uint32_t host_abi)
{
    return host_abi == STOA_ROOM_ABI ? &chat : NULL;
}
