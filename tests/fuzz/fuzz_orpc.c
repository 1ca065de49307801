/* CORE. Frames of the orpc dialect: first the reader alone, then a socket whose room has a handler
 * that lets everybody in and answers everything. A line of the input is a frame; one that begins
 * with a '#' is a query of the address. Whatever comes, what is said is JSON with the id that came,
 * and the socket stays. */
#include "common/utf8.h"
#include "gateway/orpc_frame.h"
#include "gateway_world.h"

#define SOCKET 1
#define LINES_MAX 32
#define LINE_MAX_BYTES 4096
/* {"chn":"r","rpc":["router","say"],"iat":1,"exp":4102444800} */
#define TARGET                                                                               \
    "/rooms?id=a&token=%7B%22chn%22%3A%22r%22%2C%22rpc%22%3A%5B%22router%22%2C%22say%22%5D%" \
    "2C%22iat%22%3A1%2C%22exp%22%3A4102444800%7D.HM24eByCgWEDuhc-BSZKs3FFae1eKz-NGvg9FGKpaY8"

/* The test world is written with Check's assertions; outside of a test they end the process. */
void _mark_point(const char *file, int line)
{
    (void)file, (void)line;
}

void _ck_assert_failed(const char *file, int line, const char *expr, const char *msg, ...)
{
    fprintf(stderr, "%s:%d: %s (%s)\n", file, line, expr, msg ? msg : "");
    abort();
}

static void read_alone(struct slice line)
{
    struct orpc_frame f;
    struct strbuf value = {0};
    orpc_frame_read(line, &f);
    STOA_ASSERT(f.word == ORPC_NOTHING || (f.id.size > 0 && f.id.size <= ORPC_ID_MAX_BYTES));
    STOA_ASSERT(f.word == ORPC_NOTHING || json_valid(f.id));
    STOA_ASSERT(!f.fit || f.body.type == JSON_NONE || json_valid(f.body.raw));
    orpc_frame_free(&f);
    if (orpc_query_last(line, "token", &value))
        STOA_ASSERT(value.size <= line.size);
    strbuf_free(&value);
}

static void check_frames(struct client *c)
{
    for (const char *text = frame(c); *text; text = frame(c)) {
        STOA_ASSERT(frame_was_text());
        STOA_ASSERT(json_valid(slice_text(text)));
        STOA_ASSERT(json_get(slice_text(text), "i").type != JSON_NONE);
        STOA_ASSERT(json_get(slice_text(text), "p").type == JSON_OBJECT);
    }
}

static void answer(const struct message *m, struct message *reply, enum message_type type)
{
    reply->type = type;
    reply->cid = m->cid;
    reply->key = m->key;
    reply->slot = m->slot;
    shard_says(reply);
}

static bool room_hears(const struct message *m)
{
    struct message reply = {0};
    if (m->type == MSG_JOIN) {
        reply.joined.session = m->join.session;
        reply.joined.id = slice_text("a");
        answer(m, &reply, MSG_JOINED);
    } else if (m->type == MSG_CALL) {
        STOA_ASSERT(m->call.input.size == 0 || json_valid(m->call.input));
        STOA_ASSERT(utf8_valid(m->call.name));
        reply.result.json = slice_text("[1]");
        reply.result.more = 1;
        answer(m, &reply, MSG_RESULT);
        reply.result.more = 0;
        answer(m, &reply, MSG_RESULT);
    } else {
        return m->type == MSG_LEAVE;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct gateway_route routes[] = {{.path = "/rooms",
                                                   .key = "chat:{chn}",
                                                   .dialect = ROUTE_ORPC,
                                                   .signing_key = "secret-key",
                                                   .retry_ms = 250}};
    world_options();
    options.routes = routes;
    options.n_routes = 1;
    world_start();
    shard_hears = room_hears;
    room_append("chat:r", "7");
    room_append("chat:r", "x");
    struct client *c = upgrade(SOCKET, TARGET, NULL);
    STOA_ASSERT(c->upgraded);
    for (size_t at = 0, n = 0; at < size && n < LINES_MAX; n++) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t length = end ? (size_t)(end - data) - at : size - at;
        struct slice line = slice_of(data + at, length < LINE_MAX_BYTES ? length : LINE_MAX_BYTES);
        at += length + 1;
        read_alone(line);
        gateway_frame(gateway, SOCKET, line, utf8_valid(line), now);
        settle();
        STOA_ASSERT(!c->closed);
        check_frames(c);
    }
    world_teardown();
    return 0;
}
