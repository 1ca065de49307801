/* CORE. What a segment leaves behind, at its end: the actor changes at once, so that the next
 * segment of the turn sees it; sends become records of the room's log, or staged ephemeral events;
 * closes wait behind the commit. Its bytes stay until the turn has been let out. */
#include "shard/actor.h"

static struct slice part(const struct segment *g, uint32_t at, uint32_t size)
{
    return slice_of(g->bytes.data + at, size);
}

static void apply_states(const struct segment *g)
{
    for (size_t i = 0; i < g->states.count; i++) {
        const struct state_change *change = &VEC_AT(&g->states, struct state_change)[i];
        struct connection *c = change->connection;
        strbuf_reset(&c->state);
        strbuf_put_slice(&c->state, part(g, change->at, change->size));
        member_touch(c);
    }
}

static void apply_closes(struct shard *s, const struct segment *g)
{
    for (size_t i = 0; i < g->closes.count; i++) {
        const struct close_wish *wish = &VEC_AT(&g->closes, struct close_wish)[i];
        struct connection *c = wish->connection;
        if (c->closing)
            continue;
        c->closing = true;
        c->close_code = (uint16_t)wish->code;
        member_touch(c);
        reply_close(s, c, wish->code, part(g, wish->reason_at, wish->reason_size));
    }
}

static void apply_values(struct shard *s, struct actor *a, const struct segment *g)
{
    if (g->state_set) {
        strbuf_reset(&a->state);
        strbuf_put_slice(&a->state, strbuf_slice(&g->state));
        a->state_version = a->handler->traits.state_version;
        a->has_state = a->state_dirty = true;
    }
    if (g->alarm != ALARM_KEPT)
        alarm_clear(s, a);
    if (g->alarm == ALARM_SET) {
        a->alarm.set = true;
        a->alarm.due_ms = g->alarm_ms;
    }
}

/* ---- sends ---- */

bool actor_is_heard(const struct actor *a)
{
    if (a->room->n_subs > 0)
        return true;
    for (size_t i = 0; i < a->connections.count; i++) {
        const struct connection *c = VEC_AT(&a->connections, struct connection *)[i];
        if (!c->closing && !c->gone)
            return true;
    }
    return false;
}

bool actor_append(struct shard *s, struct actor *a, struct event_item *item)
{
    struct room *room = a->room;
    struct store_record record = {.batch_count = 1};
    s->turn.asked = true;
    s->turn.events++;
    s->turn.bytes += item->payload.size;
    return turn_begin(s) && publish_born(s, room, room->head) &&
           publish_append(s, room, item, &record);
}

static void apply_outputs(struct shard *s, struct actor *a, struct segment *g)
{
    bool heard = actor_is_heard(a);
    for (size_t i = 0; i < g->outputs.count; i++) {
        const struct output *o = &VEC_AT(&g->outputs, struct output)[i];
        struct event_item item = {.flags = EVENT_JSON | EVENT_UTF8, /* context_send.c looked */
                                  .ts = s->clock_ms,
                                  .conflate = part(g, o->conflate_at, o->conflate_size),
                                  .filter = part(g, o->filter_at, o->filter_size),
                                  .payload = part(g, o->payload_at, o->payload_size)};
        item.flags |= o->typed ? EVENT_TYPED : 0;
        if (o->kind == OUTPUT_EPHEMERAL)
            publish_ephemeral(s, a->room, &item);
        if (o->kind == OUTPUT_EPHEMERAL || (o->kind == OUTPUT_BROADCAST && !heard))
            continue;
        if (o->kind == OUTPUT_BROADCAST)
            item.flags |= EVENT_TRANSIENT;
        if (!actor_append(s, a, &item))
            return;
    }
    if (g->outputs.count == 0)
        return;
    *VEC_PUSH(&s->turn.kept, void *) = g->bytes.data; /* staged events point into it */
    g->bytes = (struct strbuf){0};
}

void actor_purge(struct shard *s, struct actor *a)
{
    actor_touch(s, a);
    strbuf_reset(&a->state);
    a->has_state = false;
    a->state_dirty = true;
    alarm_clear(s, a);
    publish_purge(s, a->room);
}

void segment_apply(struct shard *s, struct task *t, struct segment *g)
{
    struct actor *a = t->actor;
    actor_touch(s, a);
    apply_states(g);
    apply_values(s, a, g);
    for (size_t i = 0; i < g->items.count; i++) {
        const struct state_change *item = &VEC_AT(&g->items, struct state_change)[i];
        call_item(s, t, part(g, item->at, item->size));
    }
    apply_closes(s, g);
    apply_outputs(s, a, g);
    if (g->purge)
        actor_purge(s, a);
}
