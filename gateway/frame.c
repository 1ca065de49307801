/* CORE. Bytes as clients see them: WebSocket frame headers, base64, ids, the JSON of an event. What
 * is written here goes to the wire without another copy. */
#include "common/json.h"
#include "common/mutant.h"
#include "gateway/core.h"
#include "proto/typed.h"

void frame_put_header(struct strbuf *out, unsigned opcode, size_t size)
{
    uint8_t header[FRAME_HEADER_MAX_BYTES] = {(uint8_t)(0x80u | opcode)};
    size_t n = 2;
    if (size < 126) {
        header[1] = (uint8_t)size;
    } else if (size <= UINT16_MAX) {
        header[1] = 126;
        header[2] = (uint8_t)(size >> 8);
        header[3] = (uint8_t)size;
        n = 4;
    } else {
        header[1] = 127;
        for (unsigned i = 0; i < 8; i++)
            header[2 + i] = (uint8_t)((uint64_t)size >> (56 - 8 * i));
        n = 10;
    }
    strbuf_put(out, header, n);
}

void event_id_put(struct strbuf *out, struct position p)
{
    char id[EVENT_ID_MAX_BYTES];
    if (p.epoch == 0)
        p.seq = 0;
    strbuf_put(out, id, event_id_format(id, p));
}

void miss_put(struct strbuf *out, const struct miss *miss)
{
    strbuf_put_text(out, "{\"from\":\"");
    event_id_put(out, miss->from);
    strbuf_put_text(out, "\",\"to\":\"");
    event_id_put(out, miss->to);
    strbuf_put_text(out, "\",\"reason\":\"");
    strbuf_put_text(out, miss_name(miss->reason));
    strbuf_put_text(out, "\"}");
}

struct event event_of(const struct event_item *item)
{
    struct event e = {.seq = item->seq,
                      .ts = item->ts,
                      .flags = item->flags,
                      .payload = item->payload,
                      .filter = item->filter};
    if ((e.flags & EVENT_TYPED) && !STOA_MUTANT(TYPED_WHOLE) &&
        typed_value(item->payload, &e.payload))
        e.typed = item->payload;
    return e;
}

void event_json_put(struct strbuf *out, uint64_t epoch, const struct event *e,
                    struct slice conflate)
{
    strbuf_put_text(out, "{\"id\":\"");
    event_id_put(out, (struct position){epoch, e->seq});
    strbuf_printf(out, "\",\"ts\":%lld,", (long long)e->ts);
    if (e->flags & EVENT_JSON) {
        strbuf_put_text(out, "\"data\":");
        strbuf_put_slice(out, e->payload);
    } else {
        strbuf_put_text(out, "\"base64\":\"");
        base64_put(out, e->payload);
        strbuf_put_byte(out, '"');
    }
    if (conflate.size > 0) {
        strbuf_put_text(out, ",\"conflate\":");
        json_quote(out, conflate);
    }
    strbuf_put_byte(out, '}');
}
