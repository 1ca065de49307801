/* CORE. Who is in a room of a type with `presence`: a member is a connection id, however many
 * connections have it, from the commit that lets its first one in to the commit in which the row of
 * its last one goes. So what is told is what is on disk: a restart tells nothing anew, and a turn
 * that fails has told nothing.
 *
 *   {"join":{"id":"ann","state":{...}}}    items of the room's log, transient as broadcasts are: in
 *   {"leave":{"id":"ann"}}                 order with the events, repaired as they are
 *
 * A connection that asks for the members gets them with its JOINED, and the seq behind which items
 * tell the rest. The state of a member is that of its oldest connection. */
#include "shard/actor.h"

#include "common/json.h"

bool presence_counted(const struct shard *s, const struct room *room)
{
    return s->types[room->type].presence;
}

static bool is_there(const struct connection *c)
{
    return !c->joining && !c->gone;
}

static bool others_are_there(const struct connection *c)
{
    const struct vec *all = &c->actor->connections;
    for (size_t i = 0; i < all->count; i++) {
        const struct connection *other = VEC_AT(all, struct connection *)[i];
        if (other != c && is_there(other) &&
            slice_equal(strbuf_slice(&other->id), strbuf_slice(&c->id)))
            return true;
    }
    return false;
}

static void put_member(struct strbuf *out, const struct connection *c, bool state)
{
    strbuf_put_text(out, "{\"id\":");
    json_quote(out, strbuf_slice(&c->id));
    if (state) {
        strbuf_put_text(out, ",\"state\":");
        strbuf_put_slice(out, strbuf_slice(&c->state));
    }
    strbuf_put_byte(out, '}');
}

static void tell(struct shard *s, const struct connection *c, bool joined)
{
    struct actor *a = c->actor;
    if (!presence_counted(s, a->room) || others_are_there(c) || !actor_is_heard(a))
        return;
    struct strbuf text = {0};
    strbuf_put_text(&text, joined ? "{\"join\":" : "{\"leave\":");
    put_member(&text, c, joined);
    strbuf_put_byte(&text, '}');
    struct event_item item = {.ts = s->clock_ms,
                              .flags = EVENT_JSON | EVENT_UTF8 | EVENT_TRANSIENT | EVENT_PRESENCE,
                              .payload = strbuf_slice(&text)};
    (void)actor_append(s, a, &item);
    *VEC_PUSH(&s->turn.kept, void *) = text.data; /* the staged event points into it */
}

void presence_tell_join(struct shard *s, const struct connection *c)
{
    tell(s, c, true);
}

void presence_tell_leave(struct shard *s, const struct connection *c)
{
    tell(s, c, false);
}

size_t presence_put(const struct shard *s, const struct actor *a, size_t max_bytes,
                    struct strbuf *out)
{
    struct map *told = map_create(s->map_seed);
    size_t left_out = 0, begin = out->size;
    strbuf_put_byte(out, '[');
    for (size_t i = 0; i < a->connections.count; i++) {
        struct connection *c = VEC_AT(&a->connections, struct connection *)[i];
        struct slice id = strbuf_slice(&c->id);
        size_t before = out->size;
        if (!is_there(c) || map_get(told, id))
            continue;
        map_put(told, id, c);
        if (left_out == 0 && map_count(told) > 1)
            strbuf_put_byte(out, ',');
        if (left_out == 0)
            put_member(out, c, true);
        if (left_out > 0 || out->size - begin >= max_bytes) {
            out->size = before;
            left_out++;
        }
    }
    strbuf_put_byte(out, ']');
    map_destroy(&told);
    return left_out;
}

void presence_list(const struct shard *s, const struct actor *a, struct strbuf *out)
{
    strbuf_put_text(out, "{\"members\":");
    size_t left_out = presence_put(s, a, PRESENCE_LIST_MAX_BYTES, out);
    if (left_out > 0)
        strbuf_printf(out, ",\"more\":%zu", left_out);
    strbuf_put_byte(out, '}');
}
