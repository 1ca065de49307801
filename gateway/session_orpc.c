/* CORE. The orpc dialect: the socket of oRPC's durable iterators, so that their clients work
 * unchanged. One socket, one room, and at most one stream of its events at a time, under the id
 * that the client gave to its latest `subscribe`:
 *
 *   -> {"i":"2","p":{"u":"/subscribe","b":{},"h":{"last-event-id":"3"}}}
 *   <- {"i":"2","p":{"h":{"content-type":"text/event-stream"}}}     from here on nothing is lost
 *   <- {"i":"2","t":3,"p":{"e":"message","d":{"json":…},"m":{"id":"4","retry":250}}}
 *
 * Ids are decimal seqs. They name no history: one above the head is of another, and gets all there
 * is. There is no frame to tell a gap by; the next event tells it in its comments. A room with a
 * handler is joined by `subscribe`. */
#include "gateway/orpc.h"
#include "proto/typed.h"

#define STREAM_TEXT ",\"p\":{\"h\":{\"content-type\":\"text/event-stream\"}}}"
#define E1_BEFORE_MS 1000 /* the first kind's clients get what came since they were let in */

/* ---- events ---- */

#define PIECES_MAX 20

/* A frame in pieces; base64: of the piece that is to be written so. */
struct pieces {
    struct slice at[PIECES_MAX];
    size_t count, bytes;
    struct slice base64;
};

static void piece(struct pieces *p, struct slice text)
{
    STOA_ASSERT(p->count < PIECES_MAX);
    p->at[p->count++] = text;
    p->bytes += text.size;
}

static void piece_text(struct pieces *p, const char *text)
{
    piece(p, slice_text(text));
}

/* "d": {"json":…,"meta":…} */
static void data_pieces(struct pieces *p, const struct event *e, const struct typed *t)
{
    if (e->typed.data) {
        piece_text(p, "{");
        if (t->json.type != JSON_NONE) {
            piece_text(p, "\"json\":");
            piece(p, t->json.raw);
        }
        if (t->meta.type != JSON_NONE && !slice_is(t->meta.raw, "[]")) {
            piece_text(p, t->json.type != JSON_NONE ? ",\"meta\":" : "\"meta\":");
            piece(p, t->meta.raw);
        }
        piece_text(p, "}");
    } else if (e->flags & EVENT_JSON) {
        piece_text(p, "{\"json\":");
        piece(p, e->payload);
        piece_text(p, "}");
    } else {
        piece_text(p, "{\"json\":{\"base64\":\"");
        p->base64 = e->payload;
        piece(p, slice_of(NULL, 0));
        p->bytes += base64_size(e->payload.size);
        piece_text(p, "\"}}");
    }
}

/* A list of comments without its brackets. */
static struct slice list_inside(struct json_value list)
{
    bool any = list.type == JSON_ARRAY;
    if (any) {
        struct json_iter it = json_members(list.raw);
        any = json_next(&it);
    }
    return any ? slice_of(list.raw.data + 1, list.raw.size - 2) : slice_of(NULL, 0);
}

/* "m": {"id":…,"retry":…,"comments":[…]}, in `meta`; nothing when it would be empty. */
static void meta_put(struct strbuf *meta, const struct pack_source *source, const struct event *e,
                     const struct typed *t)
{
    struct slice own = source->form ? strbuf_slice(&source->form->comment) : slice_of(NULL, 0);
    struct slice given = list_inside(t->comments);
    bool kept = !(e->flags & (EVENT_EPHEMERAL | EVENT_TRANSIENT)) && source->epoch != 0;
    if (kept) {
        strbuf_put_text(meta, ",\"id\":\"");
        strbuf_put_u64(meta, e->seq);
        strbuf_put_byte(meta, '"');
    }
    if (t->retry.type != JSON_NONE) {
        strbuf_put_text(meta, ",\"retry\":");
        strbuf_put_slice(meta, t->retry.raw);
    } else if (kept && source->form) {
        strbuf_put_text(meta, ",\"retry\":");
        strbuf_put_u64(meta, (uint64_t)source->form->retry_ms);
    }
    if (own.size > 0 || given.size > 0) {
        strbuf_put_text(meta, ",\"comments\":[");
        strbuf_put_slice(meta, own);
        if (own.size > 0 && given.size > 0)
            strbuf_put_byte(meta, ',');
        strbuf_put_slice(meta, given);
        strbuf_put_byte(meta, ']');
    }
}

static void orpc_encode(struct strbuf *out, const struct pack_source *source, const struct event *e)
{
    struct pieces p = {.count = 0};
    uint8_t room[128];
    struct strbuf meta = {.data = room, .capacity = sizeof room};
    struct typed t = {0};
    if (e->typed.data)
        t = typed_read(e->typed);
    bool grows = t.comments.type != JSON_NONE || t.retry.type != JSON_NONE ||
                 (source->form && source->form->comment.size > 0);
    if (grows)
        meta = (struct strbuf){0};
    meta_put(&meta, source, e, &t);
    piece_text(&p, "{\"i\":");
    piece(&p, source->form ? source->form->id : slice_text("null"));
    piece_text(&p, ",\"t\":3,\"p\":{\"e\":\"message\",\"d\":");
    data_pieces(&p, e, &t);
    if (meta.size > 0) {
        piece_text(&p, ",\"m\":{");
        piece(&p, slice_of(meta.data + 1, meta.size - 1));
        piece_text(&p, "}");
    }
    piece_text(&p, "}}");
    frame_put_header(out, FRAME_TEXT, p.bytes);
    for (size_t i = 0; i < p.count; i++) {
        if (p.at[i].data)
            strbuf_put_slice(out, p.at[i]);
        else
            base64_put(out, p.base64);
    }
    if (grows)
        strbuf_free(&meta);
}

/* ---- words that are no events ---- */

struct strbuf *orpc_say_begin(struct gateway *g, struct slice id, const char *text)
{
    strbuf_reset(&g->control);
    strbuf_put_text(&g->control, "{\"i\":");
    strbuf_put_slice(&g->control, id);
    strbuf_put_text(&g->control, text);
    return &g->control;
}

void orpc_say(struct gateway *g, struct session *s)
{
    session_say(g, s, strbuf_slice(&g->control));
}

void orpc_error_put(struct strbuf *out, struct slice code, unsigned status, struct slice message,
                    struct slice data)
{
    strbuf_put_text(out, "{\"defined\":false,\"code\":");
    json_quote(out, code);
    strbuf_printf(out, ",\"status\":%u,\"message\":", status);
    json_quote(out, message);
    if (data.size > 0) {
        strbuf_put_text(out, ",\"data\":");
        strbuf_put_slice(out, data);
    }
    strbuf_put_byte(out, '}');
}

static void refuse_with(struct gateway *g, struct session *s, struct slice id, struct slice code,
                        unsigned status, struct slice message)
{
    struct strbuf *out = orpc_say_begin(g, id, ",\"p\":{\"s\":");
    strbuf_printf(out, "%u,\"b\":{\"json\":", status);
    orpc_error_put(out, code, status, message, slice_of(NULL, 0));
    strbuf_put_text(out, "}}}");
    orpc_say(g, s);
}

void orpc_refuse(struct gateway *g, struct session *s, struct slice id, const char *code,
                 unsigned status, const char *message)
{
    refuse_with(g, s, id, slice_text(code), status, slice_text(message));
}

void orpc_refuse_malformed(struct gateway *g, struct session *s, struct slice id)
{
    orpc_refuse(g, s, id, "BAD_REQUEST", 400,
                "Malformed request. Ensure the request body is properly formatted and the "
                "'Content-Type' header is set correctly.");
}

/* ---- the stream ---- */

static void stream_open(struct gateway *g, struct session *s)
{
    struct orpc *o = s->orpc;
    o->opened = true;
    (void)orpc_say_begin(g, strbuf_slice(&o->stream), STREAM_TEXT);
    orpc_say(g, s);
}

static void stream_name(struct session *s, struct slice id)
{
    struct orpc *o = s->orpc;
    o->opened = false;
    strbuf_reset(&o->stream);
    strbuf_put_slice(&o->stream, id);
    strbuf_free(&o->form.comment);
    o->form.id = strbuf_slice(&o->stream);
    o->form.retry_ms = o->route->retry_ms;
    o->form.hash = hash_bytes(o->form.id.data, o->form.id.size, (uint64_t)o->form.retry_ms);
    s->form = &o->form;
}

static struct subscription *stream_subscription(const struct session *s)
{
    return list_empty(&s->subs) ? NULL : LIST_ENTRY(s->subs.next, struct subscription, in_session);
}

static void comment_put(struct strbuf *out, const struct miss *miss)
{
    strbuf_reset(out);
    strbuf_put_text(out, "\"missed ");
    event_id_put(out, miss->from);
    strbuf_put_byte(out, ' ');
    event_id_put(out, miss->to);
    strbuf_put_byte(out, ' ');
    strbuf_put_text(out, miss_name(miss->reason));
    strbuf_put_byte(out, '"');
}

static bool orpc_tell(struct gateway *g, struct subscription *sub, enum sub_status status,
                      const struct miss *miss, struct position head)
{
    struct session *s = sub->session;
    (void)status;
    (void)head;
    if (!s->orpc->opened)
        stream_open(g, s);
    if (miss)
        comment_put(&s->orpc->form.comment, miss);
    return !s->closing;
}

static void stream_forget(struct gateway *g, struct session *s)
{
    orpc_twin_leave(g, s);
    strbuf_reset(&s->orpc->stream);
    strbuf_free(&s->orpc->form.comment);
    s->form = NULL;
}

static void orpc_end(struct gateway *g, struct subscription *sub, unsigned code,
                     struct slice reason)
{
    session_close(g, sub->session, code, reason);
}

/* The room lets nobody in by this request: the client may ask again. */
static void orpc_refused(struct gateway *g, struct subscription *sub, const struct refusal *r)
{
    struct session *s = sub->session;
    unsigned status = r->status;
    const char *code = orpc_code(r->tag, &status);
    bool hidden = slice_is(r->tag, "RoomExecutionError");
    subscription_free(g, sub);
    refusal_note(g, r);
    if (!code)
        code = orpc_code_of_status(status);
    refuse_with(g, s, strbuf_slice(&s->orpc->stream), slice_text(code), status,
                hidden ? slice_text("Internal server error") : r->text);
    stream_forget(g, s);
}

/* ---- subscribe ---- */

/* Digits alone are an id; a number that no seq reaches is above every head. */
static bool seq_read(struct slice text, uint64_t *seq)
{
    *seq = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        uint64_t digit = text.data[i] - '0';
        *seq = *seq > (UINT64_MAX - digit) / 10 ? UINT64_MAX : *seq * 10 + digit;
    }
    return text.size > 0;
}

static void start_of(const struct session *s, const struct orpc_frame *f, struct start *start)
{
    uint64_t seq;
    *start = (struct start){.kind = START_LIVE};
    if (!f->resumes && !s->orpc->named) {
        start->kind = START_ALL;
        start->since_ms = s->identity->issued_ms - E1_BEFORE_MS;
    } else if (f->resumes && seq_read(f->last_id, &seq)) {
        start->kind = seq == 0 ? START_ALL : START_AFTER;
        start->after.seq = seq;
        start->bare = seq > 0;
    }
}

/* The room's request for the join; nothing for rooms without a handler. NULL: fine. */
static const char *join_request(const struct gateway *g, const struct session *s,
                                struct strbuf *request, const char **message)
{
    const struct gateway_type *type = type_with_handler(g, strbuf_slice(&s->orpc->key));
    if (!type)
        return NULL;
    *message = "this type has a handler since this socket was opened: connect again";
    if (!s->visitor)
        return "Moving";
    return visitor_request(s->visitor, type, s->identity, slice_of(NULL, 0), request, message);
}

static void stream_refuse(struct gateway *g, struct session *s, const char *tag,
                          const char *message)
{
    unsigned status = 500;
    const char *code = orpc_code(slice_text(tag), &status);
    refused_note(g, tag, message);
    orpc_refuse(g, s, strbuf_slice(&s->orpc->stream), code ? code : "INTERNAL_SERVER_ERROR", status,
                message);
    stream_forget(g, s);
}

static void on_subscribe(struct gateway *g, struct session *s, const struct orpc_frame *f)
{
    struct orpc *o = s->orpc;
    struct subscription *old = stream_subscription(s);
    struct strbuf request = {0};
    struct start start;
    const char *message = "";
    start_of(s, f, &start);
    if (old && !o->opened)
        stream_open(g, s); /* nobody is left waiting */
    bool goes_on = old && old->state == SUBS_LIVE && start.kind == START_LIVE;
    stream_name(s, f->id);
    if (goes_on) {
        stream_open(g, s);
        return;
    }
    if (old)
        subscription_free(g, old);
    const char *tag = join_request(g, s, &request, &message);
    if (tag)
        stream_refuse(g, s, tag, message);
    else if (subscription_open(g, s, strbuf_slice(&o->key), &start,
                               request.size > 0 ? &request : NULL))
        orpc_twin_enter(g, s);
    else
        stream_refuse(g, s, "Busy", "this gateway holds too many keys; try another");
    strbuf_free(&request);
}

/* ---- updateToken ---- */

/* NULL: the token may take the place of the session's; *who is a reference. */
static const char *token_judge(struct gateway *g, const struct session *s, struct slice token,
                               struct identity **who)
{
    const struct orpc *o = s->orpc;
    struct orpc_claims claims, before = {0};
    struct strbuf chn = {0};
    const char *wrong = NULL, *message;
    if (orpc_token_check(orpc_signing_key(g, o->route), token, g->now.wall_ms, &claims) != NULL)
        return "Invalid Token";
    before.has_tags = json_get(s->identity->claims, "tags").type != JSON_NONE;
    before.tags = s->identity->tags;
    bool same = json_unescape(json_get(s->identity->claims, "chn"), &chn) &&
                slice_equal(strbuf_slice(&chn), claims.chn);
    if (claims.generation != ORPC_E2)
        wrong = "Invalid Token";
    else if (!same)
        wrong = "Updated token must have the same channel with the original token";
    else if (!orpc_same_tags(&before, &claims))
        wrong = "Updated token must have the exact same tags with the original token";
    if (!wrong) {
        *who = orpc_who(&claims, strbuf_slice(&o->key), s->identity->id);
        if (identity_judge(g, *who, &message) != NULL) {
            identity_unref(*who);
            wrong = "Invalid Token";
        }
    }
    strbuf_free(&chn);
    orpc_claims_free(&claims);
    return wrong;
}

static void on_update(struct gateway *g, struct session *s, const struct orpc_frame *f)
{
    struct json_value json = {0};
    struct strbuf token = {0};
    struct identity *who = NULL;
    if (f->body.type == JSON_OBJECT)
        json = json_get(f->body.raw, "json");
    if (!f->fit) {
        orpc_refuse_malformed(g, s, f->id);
    } else if (json.type != JSON_OBJECT || !json_unescape(json_get(json.raw, "token"), &token)) {
        orpc_refuse(g, s, f->id, "BAD_REQUEST", 400, "Input validation failed");
    } else {
        const char *wrong = token_judge(g, s, strbuf_slice(&token), &who);
        if (wrong) {
            refused_note(g, "Unauthorized",
                         "a token that was to renew another is not valid for it");
            orpc_refuse(g, s, f->id, "UNAUTHORIZED", 401, wrong);
        } else {
            session_identify(g, s, who);
            (void)orpc_say_begin(g, f->id, ",\"p\":{\"b\":{}}}");
            orpc_say(g, s);
        }
    }
    strbuf_free(&token);
}

/* ---- frames ---- */

/* Of the stream: nothing more is sent. Of a call: its answer is not. */
static void on_abort(struct gateway *g, struct session *s, struct slice id)
{
    struct subscription *sub = stream_subscription(s);
    if (!slice_equal(id, strbuf_slice(&s->orpc->stream))) {
        orpc_call_abort(s->orpc, id);
        return;
    }
    if (sub)
        subscription_free(g, sub);
    stream_forget(g, s);
}

static void request_run(struct gateway *g, struct session *s, const struct orpc_frame *f)
{
    if (slice_equal(f->id, strbuf_slice(&s->orpc->stream)) || orpc_call_runs(s->orpc, f->id))
        return; /* it runs already */
    if (f->word == ORPC_SUBSCRIBE) {
        on_subscribe(g, s, f);
    } else if (f->word == ORPC_CALL) {
        orpc_call(g, s, f);
    } else if (f->word == ORPC_UPDATE && s->orpc->named) {
        on_update(g, s, f);
    } else {
        (void)orpc_say_begin(g, f->id, ",\"p\":{\"s\":404,\"b\":\"No procedure matched\"}}");
        orpc_say(g, s);
    }
}

static void orpc_expired(struct gateway *g, struct session *s, const char *tag, const char *reason)
{
    (void)tag;
    session_close(g, s, 1008, slice_text(reason));
}

static void orpc_frame(struct gateway *g, struct session *s, struct slice payload, bool text)
{
    struct orpc_frame f;
    (void)text;
    if (g->now.wall_ms >= s->identity->expires_ms) {
        orpc_expired(g, s, "TokenExpired", "Token expired");
        return;
    }
    orpc_frame_read(payload, &f);
    if (f.word == ORPC_ABORT)
        on_abort(g, s, f.id);
    else if (f.word != ORPC_NOTHING)
        request_run(g, s, &f);
    orpc_frame_free(&f);
}

void orpc_free(struct gateway *g, struct session *s)
{
    struct orpc *o = s->orpc;
    if (!o)
        return;
    orpc_calls_free(o);
    orpc_twin_leave(g, s);
    strbuf_free(&o->key);
    strbuf_free(&o->stream);
    strbuf_free(&o->form.comment);
    mem_free(o);
    s->orpc = NULL;
    s->form = NULL;
}

const struct dialect dialect_orpc = {.index = DIALECT_ORPC,
                                     .name = "orpc",
                                     .own_tokens = true,
                                     .encode = orpc_encode,
                                     .tell = orpc_tell,
                                     .end = orpc_end,
                                     .frame = orpc_frame,
                                     .refused = orpc_refused,
                                     .call_done = orpc_call_done,
                                     .call_item = orpc_call_item,
                                     .expired = orpc_expired};
