/* CORE. The raw dialect: every frame is one payload as published, and nothing else is ever sent. A
 * reader without ids cannot be told of a gap, so it is closed instead of being fed past one. */
#include "gateway/core.h"

static void raw_encode(struct strbuf *out, const struct pack_source *source, const struct event *e)
{
    (void)source;
    frame_put_header(out, e->flags & EVENT_UTF8 ? FRAME_TEXT : FRAME_BINARY, e->payload.size);
    strbuf_put_slice(out, e->payload);
}

static bool raw_tell(struct gateway *g, struct subscription *sub, enum sub_status status,
                     const struct miss *miss, struct position head)
{
    (void)status;
    (void)head;
    if (!miss)
        return true;
    struct strbuf reason = {0};
    strbuf_put_text(&reason, "missed ");
    event_id_put(&reason, miss->from);
    strbuf_put_byte(&reason, ' ');
    event_id_put(&reason, miss->to);
    strbuf_put_byte(&reason, ' ');
    strbuf_put_text(&reason, miss_name(miss->reason));
    session_close(g, sub->session, miss->reason == MISS_SLOW ? 4008 : 4010, strbuf_slice(&reason));
    strbuf_free(&reason);
    return false;
}

static void raw_end(struct gateway *g, struct subscription *sub, unsigned code, struct slice reason)
{
    session_close(g, sub->session, code, reason);
}

/* What a client says is for the room's handler; rooms without one do not listen. */
static void raw_frame(struct gateway *g, struct session *s, struct slice payload, bool text)
{
    const char *message;
    struct slice response;
    if (list_empty(&s->subs))
        return;
    struct subscription *sub = LIST_ENTRY(s->subs.next, struct subscription, in_session);
    if (sub->member && text && member_answers(sub->member, payload, &response))
        session_say(g, s, response);
    else if (!identity_may(s->identity, RIGHT_SEND, room_key(sub->room)))
        session_close(g, s, 1008, slice_text("the token does not give the right to send"));
    else if (sub->member && !rate_take(g, s, room_key(sub->room)))
        rate_exceeded(g, sub, RATE_SOCKET_TEXT);
    else if (sub->member && member_input(g, sub->member, payload, text ? EVENT_UTF8 : 0,
                                         slice_of(NULL, 0), &message))
        session_close(g, s, 1013, slice_text(message));
}

static void raw_expired(struct gateway *g, struct session *s, const char *tag, const char *reason)
{
    (void)tag;
    session_close(g, s, 1008, slice_text(reason));
}

const struct dialect dialect_raw = {.index = DIALECT_RAW,
                                    .name = "raw",
                                    .encode = raw_encode,
                                    .tell = raw_tell,
                                    .end = raw_end,
                                    .frame = raw_frame,
                                    .expired = raw_expired};
