/* examples/chat/chat.lua in C, to compare the two: the same frames in and out, the same state. It
 * passes the tests of the one in Lua. */
#include <stddef.h>
#include <string.h>

#include "stoa_room.h"

static const stoa_room_host *host;

/* The pieces as one text, which lives as long as the segment. */
static stoa_room_bytes join(stoa_room_ctx *ctx, const stoa_room_bytes *pieces, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += pieces[i].n;
    char *text = host->alloc(ctx, size), *end = text;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].n > 0)
            memcpy(end, pieces[i].p, pieces[i].n);
        end += pieces[i].n;
    }
    return (stoa_room_bytes){text, size};
}
#define JOIN(ctx, ...)                                \
    join(ctx, (const stoa_room_bytes[]){__VA_ARGS__}, \
         sizeof((const stoa_room_bytes[]){__VA_ARGS__}) / sizeof(stoa_room_bytes))

static stoa_room_bytes decimal(stoa_room_ctx *ctx, int64_t number)
{
    uint64_t left = (uint64_t)number; /* of times and counts: not negative */
    size_t at = 20;
    char *text = host->alloc(ctx, at);
    do
        text[--at] = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    return (stoa_room_bytes){text + at, 20 - at};
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
    int64_t number = 0; /* a count of its own: digits, and far from overflowing */
    for (size_t i = 0; i < json.n && json.p[i] >= '0' && json.p[i] <= '9'; i++)
        number = number * 10 + (json.p[i] - '0');
    return number;
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
    stoa_room_bytes inner = {quoted.p + 1, quoted.n - 2}; /* escaped, without the quotes */
    who->tags = JOIN(ctx, STOA_ROOM_TEXT("[\"user:"), inner, STOA_ROOM_TEXT("\"]"));
    who->state = JOIN(ctx, STOA_ROOM_TEXT("{\"userId\":"), quoted, STOA_ROOM_TEXT("}"));
    return STOA_ROOM_OK;
}

static stoa_room_bytes user_of(stoa_room_ctx *ctx)
{
    stoa_room_conn *c = host->connection(ctx);
    return c ? host->json_get(host->conn_state(c), "userId") : STOA_ROOM_TEXT("\"system\"");
}

/* {"_tag":TAG,"userId":USER} to everybody else; TAG in quotes. */
static stoa_room_rc tell_others(stoa_room_ctx *ctx, stoa_room_bytes tag)
{
    stoa_room_bytes self = host->conn_session(host->connection(ctx));
    const stoa_room_recipients others = {.except = &self, .n_except = 1};
    return host->broadcast(ctx,
                           JOIN(ctx, STOA_ROOM_TEXT("{\"_tag\":"), tag,
                                STOA_ROOM_TEXT(",\"userId\":"), user_of(ctx), STOA_ROOM_TEXT("}")),
                           &others);
}

/* ---- what happens ---- */

static stoa_room_rc put_count(stoa_room_ctx *ctx, stoa_room_bytes created, int64_t count)
{
    return host->save(ctx, JOIN(ctx, STOA_ROOM_TEXT("{\"createdAt\":"), created,
                                STOA_ROOM_TEXT(",\"messageCount\":"), decimal(ctx, count),
                                STOA_ROOM_TEXT("}")));
}

/* A pure function knows no clock: identify leaves the time to be told here. */
static stoa_room_rc date(stoa_room_ctx *ctx, stoa_room_bytes now)
{
    return host->set_state(ctx, host->connection(ctx),
                           JOIN(ctx, STOA_ROOM_TEXT("{\"userId\":"), user_of(ctx),
                                STOA_ROOM_TEXT(",\"joinedAt\":"), now, STOA_ROOM_TEXT("}")));
}

static stoa_room_rc on_connect(stoa_room_ctx *ctx, void *mem)
{
    stoa_room_bytes state, now = decimal(ctx, host->now_ms(ctx));
    (void)mem;
    stoa_room_rc rc = host->recall(ctx, &state);
    if (rc == STOA_ROOM_NONE)
        rc = put_count(ctx, now, 0);
    if (rc == STOA_ROOM_OK)
        rc = date(ctx, now);
    return rc ? rc : tell_others(ctx, STOA_ROOM_TEXT("\"UserJoined\""));
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
    stoa_room_bytes state;
    stoa_room_rc rc = host->recall(ctx, &state);
    if (rc == STOA_ROOM_OK)
        rc = put_count(ctx, host->json_get(state, "createdAt"),
                       number_of(host->json_get(state, "messageCount")) + 1);
    if (rc != STOA_ROOM_OK && rc != STOA_ROOM_NONE)
        return rc;
    return host->broadcast(ctx,
                           JOIN(ctx, STOA_ROOM_TEXT("{\"_tag\":\"Message\",\"text\":"), text,
                                STOA_ROOM_TEXT(",\"userId\":"), user_of(ctx),
                                STOA_ROOM_TEXT(",\"ts\":"), decimal(ctx, host->now_ms(ctx)),
                                STOA_ROOM_TEXT("}")),
                           NULL);
}

static stoa_room_rc on_event(stoa_room_ctx *ctx, void *mem, stoa_room_bytes event)
{
    (void)mem;
    if (is(host->json_get(event, "_tag"), "\"Say\""))
        return say(ctx, host->json_get(event, "text"));
    return host->connection(ctx) ? tell_others(ctx, STOA_ROOM_TEXT("\"Typing\"")) : STOA_ROOM_OK;
}

static stoa_room_rc on_close(stoa_room_ctx *ctx, void *mem, const stoa_room_close_info *info)
{
    (void)mem;
    (void)info;
    return tell_others(ctx, STOA_ROOM_TEXT("\"UserLeft\""));
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
