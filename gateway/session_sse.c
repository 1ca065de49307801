/* CORE. Server-sent events. A payload is split at every line end that an event stream knows (LF,
 * CR, CR LF), so that no payload can forge a field. */
#include "gateway/core.h"

static void data_put(struct strbuf *out, struct slice payload)
{
    size_t at = 0;
    for (;;) {
        size_t end = at;
        while (end < payload.size && payload.data[end] != '\n' && payload.data[end] != '\r')
            end++;
        strbuf_put_text(out, "data: ");
        strbuf_put(out, payload.data + at, end - at);
        strbuf_put_byte(out, '\n');
        if (end == payload.size)
            return;
        bool pair =
            payload.data[end] == '\r' && end + 1 < payload.size && payload.data[end + 1] == '\n';
        at = end + (pair ? 2 : 1);
    }
}

static void sse_encode(struct strbuf *out, const struct pack_source *source, const struct event *e)
{
    if (!(e->flags & (EVENT_EPHEMERAL | EVENT_TRANSIENT))) {
        strbuf_put_text(out, "id: ");
        event_id_put(out, (struct position){source->epoch, e->seq});
        strbuf_put_byte(out, '\n');
    }
    if (e->flags & EVENT_UTF8) {
        data_put(out, e->payload);
    } else {
        strbuf_put_text(out, "event: base64\ndata: ");
        base64_put(out, e->payload);
        strbuf_put_byte(out, '\n');
    }
    strbuf_put_byte(out, '\n');
}

/* Takes the text. */
static void stream_put(struct gateway *g, struct session *s, struct strbuf *text)
{
    struct buf *bytes = buf_copy_slice(strbuf_slice(text));
    session_write(g, s, bytes, 0, bytes->size);
    buf_unref(bytes);
    strbuf_free(text);
}

static bool sse_tell(struct gateway *g, struct subscription *sub, enum sub_status status,
                     const struct miss *miss, struct position head)
{
    (void)head;
    struct strbuf text = {0};
    if (!miss && status != SUB_LIVE)
        return true;
    strbuf_put_text(&text, "id: ");
    if (!miss) { /* without data: sets where a reconnect resumes, even before the first event */
        event_id_put(&text, sub->pos);
        strbuf_put_text(&text, "\n\n");
        stream_put(g, sub->session, &text);
        return true;
    }
    event_id_put(&text, miss->to);
    strbuf_put_text(&text, "\nevent: missed\ndata: ");
    miss_put(&text, miss);
    strbuf_put_text(&text, "\n\n");
    stream_put(g, sub->session, &text);
    return true;
}

static void sse_end(struct gateway *g, struct subscription *sub, unsigned code, struct slice reason)
{
    session_close(g, sub->session, code, reason);
}

static void sse_frame(struct gateway *g, struct session *s, struct slice payload, bool text)
{
    (void)g;
    (void)s;
    (void)payload;
    (void)text;
}

static void sse_expired(struct gateway *g, struct session *s, const char *tag, const char *reason)
{
    struct strbuf text = {0};
    strbuf_printf(&text, "event: end\ndata: {\"tag\":\"%s\"}\n\n", tag);
    stream_put(g, s, &text);
    session_close(g, s, 1008, slice_text(reason));
}

const struct dialect dialect_sse = {.index = DIALECT_SSE,
                                    .name = "sse",
                                    .encode = sse_encode,
                                    .tell = sse_tell,
                                    .end = sse_end,
                                    .frame = sse_frame,
                                    .expired = sse_expired};
