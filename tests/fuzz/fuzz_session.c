/* CORE. A client's frames in the stoa.v1 dialect, and requests with their queries, against the
 * gateway's core with a cluster in memory: whatever comes, every answer is well formed, and the
 * gateway serves the next client. The input is text: lines that begin with a method are requests,
 * with WS openings of sockets of one key, all others are frames of one socket. Rooms with handlers
 * let everybody in and take everything; what a handler is told of a request is always JSON. */
#include "common/hash.h"
#include "common/json.h"
#include "common/utf8.h"
#include "gateway_world.h"

#define SOCKET 1
#define PROBE 2
#define REQUESTER 3 /* and on: one a line */
#define LINES_MAX 32
#define LINE_MAX_BYTES 2048

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

static const char *const methods[] = {"GET /", "POST /", "DELETE /", "PUT /", "OPTIONS /"};

static bool is_request(const char *line)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strncmp(line, methods[i], strlen(methods[i])) == 0)
            return true;
    return false;
}

static void check_frames(struct client *c)
{
    for (const char *text = frame(c); *text; text = frame(c)) {
        STOA_ASSERT(frame_was_text());
        STOA_ASSERT(json_valid(slice_text(text)));
        STOA_ASSERT(json_type_of(slice_text(text)) == JSON_OBJECT);
    }
}

/* ---- rooms with handlers ---- */

static void answer(const struct message *m, struct message *answer, enum message_type type)
{
    answer->type = type;
    answer->cid = m->cid;
    answer->key = m->key;
    answer->slot = m->slot;
    shard_says(answer);
}

static bool room_hears(const struct message *m)
{
    struct message reply = {0};
    if (m->type == MSG_JOIN) {
        STOA_ASSERT(json_valid(m->join.request));
        STOA_ASSERT(json_get(m->join.request, "query").type == JSON_OBJECT);
        reply.joined.session = m->join.session;
        reply.joined.id = m->join.session;
        reply.joined.tags = slice_text("[\"a\"]");
        answer(m, &reply, MSG_JOINED);
    } else if (m->type == MSG_INPUT) {
        reply.input_ack.session = m->input.session;
        reply.input_ack.counter = m->input.counter;
        answer(m, &reply, MSG_INPUT_ACK);
    } else if (m->type == MSG_CALL) {
        STOA_ASSERT(m->call.input.size == 0 || json_valid(m->call.input));
        reply.result.json = slice_text("[1]");
        answer(m, &reply, MSG_RESULT);
    } else {
        return m->type == MSG_LEAVE;
    }
    return true;
}

/* Let in, or refused with a tag. */
static void socket_line(unsigned n, const char *target)
{
    struct client *c = upgrade(REQUESTER + n, target, NULL);
    STOA_ASSERT(c->upgraded || c->responses == 1);
    if (c->upgraded && strncmp(target, "/uploadista/", 12) == 0)
        STOA_ASSERT(json_valid(slice_text(frame(c)))); /* it is told something, whatever it asked */
    if (c->upgraded && !c->closed && target[0] == '/')
        say(REQUESTER + n, target);
    hang_up(REQUESTER + n, 1000);
}

/* One answer; a refusal has a tag. */
static void request_line(unsigned n, const char *line)
{
    const char *const headers[] = {NULL, "Idempotency-Key: a\n", "Accept: text/event-stream\n",
                                   "Content-Type: application/x-ndjson\n", "Stoa-Format: orpc\n"};
    const char *body = n % 7 ? "{\"a\":1}\n2\n" : "{\"json\":1}";
    struct client *c = ask(REQUESTER + n, line, headers[n % 5], body);
    STOA_ASSERT(c->responses == 1 || c->streaming);
    STOA_ASSERT(c->status >= 200 && c->status < 600);
    if (c->status >= 400) {
        STOA_ASSERT(json_valid(slice_text(c->body)));
        struct json_value error = json_get(slice_text(c->body), "error");
        STOA_ASSERT(json_get(error.raw, "tag").type == JSON_STRING);
    }
    hang_up(REQUESTER + n, 1006);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    world_setup();
    shard_hears = room_hears;
    room_append("k", "7");
    room_append("k", "\"x\"");
    struct client *c = open_v1(SOCKET);
    char line[LINE_MAX_BYTES];
    for (size_t at = 0, n = 0; at < size && n < LINES_MAX; n++) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t length = end ? (size_t)(end - data) - at : size - at;
        size_t kept = length < sizeof line - 1 ? length : sizeof line - 1;
        memcpy(line, data + at, kept);
        line[kept] = 0;
        at += length + 1;
        if (is_request(line))
            request_line((unsigned)n, line);
        else if (strncmp(line, "WS /", 4) == 0)
            socket_line((unsigned)n, line + 3);
        else if (!c->closed && utf8_valid(slice_text(line))) /* the library lets nothing else in */
            say(SOCKET, line);
        check_frames(c);
    }
    struct client *probe = open_v1(PROBE);
    say(PROBE, "{\"ping\":\"alive\"}");
    STOA_ASSERT(strcmp(frame(probe), "{\"pong\":\"alive\"}") == 0);
    world_teardown();
    return 0;
}
