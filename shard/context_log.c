/* CORE. A handler reads its room's retained log: what is on disk, and behind it what this turn has
 * decided before the running segment and will commit together with it. Transient items are not
 * part of it, as for every reader. */
#include "shard/actor.h"

#include "common/base36.h"
#include "common/base64.h"
#include "common/json.h"
#include "proto/typed.h"

#define LOG_ANSWER_MAX_BYTES (2 * MIB)

static void put_event(struct strbuf *out, uint64_t epoch, const struct event_item *e)
{
    char id[EVENT_ID_MAX_BYTES];
    (void)event_id_format(id, (struct position){epoch, e->seq});
    strbuf_printf(out, "{\"id\":\"%s\",\"ts\":%lld,", id, (long long)e->ts);
    if (e->flags & EVENT_JSON) {
        struct slice value = e->payload;
        if ((e->flags & EVENT_TYPED) && !typed_value(e->payload, &value))
            value = e->payload;
        strbuf_put_text(out, "\"data\":");
        strbuf_put_slice(out, value);
    } else {
        strbuf_put_text(out, "\"base64\":\"");
        base64_put(out, e->payload);
        strbuf_put_byte(out, '"');
    }
    if (e->conflate.size > 0) {
        strbuf_put_text(out, ",\"conflate\":");
        json_quote(out, e->conflate);
    }
    strbuf_put_byte(out, '}');
}

struct listing {
    struct shard *s;
    struct room *room;
    struct strbuf *out;
    size_t begun; /* size of `out` before */
    unsigned limit, given;
    uint64_t failed; /* seq of the record that the disk gave back damaged */
};

/* False: there is no room for it, or for more. */
static bool list_item(struct listing *l, const struct event_item *item)
{
    if (item->flags & (EVENT_TRANSIENT | EVENT_EPHEMERAL))
        return true;
    bool first = l->given == 0;
    if (l->given == l->limit ||
        (!first && l->out->size - l->begun + item->payload.size > LOG_ANSWER_MAX_BYTES))
        return false;
    if (!first)
        strbuf_put_byte(l->out, ',');
    put_event(l->out, l->room->epoch, item);
    l->given++;
    return true;
}

static bool list_stored(struct listing *l, uint64_t after, uint64_t upto, bool *full)
{
    for (uint64_t seq = after + 1; seq <= upto && !*full; seq++) {
        struct store_record record;
        if (retain_is_transient(l->room->retain, seq))
            continue; /* not worth a read */
        int code = l->s->store->vtable->read(l->s->store, l->room->class_no,
                                             retain_at(l->room->retain, seq)->lsn, &record);
        if (code != ERR_OK || record.room_id != l->room->room_id || record.seq != seq) {
            l->failed = seq;
            return false;
        }
        const struct event_item item = {.seq = seq,
                                        .ts = record.ts,
                                        .flags = record.flags,
                                        .conflate = record.conflate,
                                        .payload = record.payload};
        *full = !list_item(l, &item);
    }
    return true;
}

static void list_staged(struct listing *l, const struct stage *stage, uint64_t after)
{
    const struct staged *staged = VEC_AT(&l->s->turn.staged, struct staged);
    for (uint32_t at = stage->first; at != 0; at = staged[at - 1].next) {
        const struct event_item *item = &staged[at - 1].item;
        if (item->seq > after && !list_item(l, item))
            return;
    }
}

/* False: a record was damaged. */
static bool list_all(struct listing *l, struct position after)
{
    const struct room *room = l->room;
    const struct stage *stage =
        room->stage ? &VEC_AT(&l->s->turn.stages, struct stage)[room->stage - 1] : NULL;
    bool known = after.epoch == room->epoch && after.seq >= room->floor && after.seq <= room->head;
    uint64_t base = known ? after.seq : room->floor; /* what went before it is not told */
    uint64_t stored = stage ? stage->head : room->head;
    bool full = false;
    strbuf_put_byte(l->out, '[');
    int code = l->s->store->vtable->read_begin(l->s->store);
    STOA_ASSERT(code == ERR_OK);
    bool whole = list_stored(l, base, stored, &full);
    l->s->store->vtable->read_end(l->s->store);
    if (whole && !full && stage)
        list_staged(l, stage, base);
    strbuf_put_byte(l->out, ']');
    return whole;
}

bool context_log(struct context *ctx, struct slice after, unsigned limit, struct strbuf *out,
                 struct fault *fault)
{
    struct listing l = {.s = ctx->s, .room = ctx->actor->room, .out = out, .begun = out->size};
    struct position from = {0};
    if (limit > LOG_LIMIT_MAX) {
        fault_set(fault, "RoomError", "the limit of a log is 1 to %d events", LOG_LIMIT_MAX);
        return false;
    }
    if (after.size > 0 && event_id_parse(after, &from) != ERR_OK) {
        fault_set(fault, "BadId", "`after` is not the id of an event");
        fault->status = 400;
        return false;
    }
    l.limit = limit == 0 ? LOG_LIMIT_DEFAULT : limit;
    room_retain_exactly(l.s, l.room);
    while (!list_all(&l, from)) { /* never serve what is damaged: as for every other reader */
        LOG(l.s->log, LOG_ERROR, "shard.damaged_record", LOG_SLICE("key", room_key(l.room)),
            LOG_U64("seq", l.failed));
        metric_add(l.s->metric.damaged, 1);
        room_floor_raise(l.s, l.room, l.failed, MISS_EPOCH);
        trim_schedule(l.s, l.room);
        out->size = l.begun;
        l.given = 0;
    }
    return true;
}
