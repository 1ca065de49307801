/* CORE. The uploadista dialect: what the WebSockets of Uploadista's own servers say, frame by
 * frame, so that its clients work unchanged. Events are payloads as published, like in the raw
 * dialect; around them stand a few words of JSON:
 *
 *   begun      -> an upgrade that is not to be served is told why and closed
 *   first word -> "subscribed" (the key's log begins here), then "connection"
 *   missed     -> "error" with code MISSED: clients take no type that they do not know, and this
 *                 one they log and go on; the socket stays, what is still retained follows
 *   ping       <- JSON of that type, answered with "pong"; other JSON is ignored
 *
 * A viewer is one subscription and nothing else: leaving or being refused touches no other. */
#include "common/isotime.h"
#include "common/json.h"
#include "gateway/uploadista.h"

struct viewer *viewer_create(enum viewer_kind kind, bool flow, struct slice id)
{
    struct viewer *v = mem_zalloc(sizeof *v + id.size);
    v->kind = kind;
    v->flow = flow;
    v->id = slice_of(v + 1, id.size);
    if (id.size > 0)
        memcpy(v + 1, id.data, id.size);
    return v;
}

/* ---- to the client ---- */

static struct strbuf *words(struct gateway *g, const char *text)
{
    strbuf_reset(&g->control);
    strbuf_put_text(&g->control, text);
    return &g->control;
}

static void words_send(struct gateway *g, struct session *s)
{
    session_say(g, s, strbuf_slice(&g->control));
}

static void say_text(struct gateway *g, struct session *s, const char *text)
{
    session_say(g, s, slice_text(text));
}

static void timestamp_put(struct strbuf *out, const struct gateway *g)
{
    char text[ISOTIME_BYTES];
    size_t size = isotime_write(text, g->now.wall_ms);
    strbuf_put_text(out, "\"timestamp\":\"");
    strbuf_put(out, text, size);
    strbuf_put_text(out, "\"}");
}

static void say_subscribed(struct gateway *g, struct session *s, struct slice key)
{
    struct strbuf *out = words(g, "{\"type\":\"subscribed\",\"payload\":{\"eventKey\":");
    json_quote(out, key);
    strbuf_put_text(out, "},");
    timestamp_put(out, g);
    words_send(g, s);
}

static void say_connection(struct gateway *g, struct session *s)
{
    const struct viewer *v = s->viewer;
    struct strbuf *out =
        words(g, "{\"type\":\"connection\",\"message\":\"Uploadista WebSocket connected\",");
    if (v->id.size > 0) {
        strbuf_put_text(out, "\"id\":");
        json_quote(out, v->id);
        strbuf_put_text(out, v->flow ? ",\"jobId\":" : ",\"uploadId\":");
        json_quote(out, v->id);
        strbuf_put_byte(out, ',');
    }
    timestamp_put(out, g);
    words_send(g, s);
}

static void say_missed(struct gateway *g, struct session *s, const struct miss *miss)
{
    struct strbuf *out =
        words(g, "{\"type\":\"error\",\"message\":\"Events of this key are missing here\","
                 "\"code\":\"MISSED\",\"missed\":");
    miss_put(out, miss);
    strbuf_put_byte(out, ',');
    timestamp_put(out, g);
    words_send(g, s);
}

/* The original names what was refused by how it was given: without a token it has looked for
 * cookies. */
static void refuse(struct gateway *g, struct session *s)
{
    bool token = s->viewer->kind == VIEWER_TOKEN_REFUSED;
    const char *text = token ? "Authentication failed: invalid or expired token"
                             : "Authentication failed: invalid or expired cookies";
    struct strbuf *out = words(g, "{\"type\":\"auth-failed\",\"message\":\"");
    strbuf_put_text(out, text);
    strbuf_put_text(out, "\",\"code\":\"AUTH_FAILED\",\"authMethod\":\"");
    strbuf_put_text(out, token ? "token\"}" : "cookies\"}");
    words_send(g, s);
    session_close(g, s, 4001, slice_text(text));
}

static void uploadista_begun(struct gateway *g, struct session *s)
{
    switch (s->viewer->kind) {
    case VIEWER_OF_KEY: /* is told when the key is there */
        break;
    case VIEWER_TOKEN_REFUSED:
    case VIEWER_UNKNOWN:
        refuse(g, s);
        break;
    case VIEWER_ASTRAY:
        say_text(g, s,
                 "{\"type\":\"invalid-path\",\"message\":\"WebSocket path must start with "
                 "uploadista/ws/\",\"expectedPrefix\":\"uploadista/ws/\"}");
        session_close(g, s, 1000, slice_text("Invalid path"));
        break;
    case VIEWER_WITHOUT_ID:
        say_text(g, s,
                 s->viewer->flow ? "{\"type\":\"error\",\"message\":\"Job ID is required for flow "
                                   "event subscription\",\"code\":\"MISSING_JOB_ID\"}"
                                 : "{\"type\":\"error\",\"message\":\"Upload ID is required for "
                                   "upload event subscription\",\"code\":\"MISSING_UPLOAD_ID\"}");
        say_connection(g, s);
        break;
    case VIEWER_OF_NOTHING:
        say_connection(g, s);
        break;
    }
}

static bool uploadista_tell(struct gateway *g, struct subscription *sub, enum sub_status status,
                            const struct miss *miss, struct position head)
{
    struct session *s = sub->session;
    (void)status;
    (void)head;
    if (!s->viewer->greeted) {
        s->viewer->greeted = true;
        say_subscribed(g, s, room_key(sub->room));
        say_connection(g, s);
    }
    if (miss && !s->closing)
        say_missed(g, s, miss);
    return !s->closing;
}

static void uploadista_encode(struct strbuf *out, const struct pack_source *source,
                              const struct event *e)
{
    dialect_raw.encode(out, source, e);
}

static void uploadista_end(struct gateway *g, struct subscription *sub, unsigned code,
                           struct slice reason)
{
    session_close(g, sub->session, code, reason);
}

static void uploadista_expired(struct gateway *g, struct session *s, const char *tag,
                               const char *reason)
{
    (void)tag;
    session_close(g, s, 1008, slice_text(reason));
}

/* ---- from the client ---- */

static bool is_ping(struct slice object)
{
    struct strbuf type = {0};
    bool is =
        json_unescape(json_get(object, "type"), &type) && slice_is(strbuf_slice(&type), "ping");
    strbuf_free(&type);
    return is;
}

static void uploadista_frame(struct gateway *g, struct session *s, struct slice payload, bool text)
{
    (void)text; /* the original reads both */
    if (!json_valid(payload)) {
        say_text(g, s, "{\"type\":\"error\",\"message\":\"Invalid message format\"}");
    } else if (json_type_of(payload) == JSON_OBJECT && is_ping(payload)) {
        timestamp_put(words(g, "{\"type\":\"pong\","), g);
        words_send(g, s);
    }
}

const struct dialect dialect_uploadista = {.index = DIALECT_UPLOADISTA,
                                           .name = "uploadista",
                                           .encode = uploadista_encode,
                                           .tell = uploadista_tell,
                                           .end = uploadista_end,
                                           .frame = uploadista_frame,
                                           .begun = uploadista_begun,
                                           .expired = uploadista_expired};
