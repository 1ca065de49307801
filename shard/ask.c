/* CORE. Questions of operators and of listings, answered as JSON. One of them needs others: who is
 * connected to a room is known to the gateways, so it is asked of each that is subscribed and the
 * arrays are joined; after ASK_WAIT_NS the answer is what came until then. */
#include "shard/quarantine.h"

#include "common/json.h"

#include <stdlib.h>

#define ASK_LIMIT_MAX 1000
#define ASK_TOP_DEFAULT 20
#define ASK_WAIT_NS (1 * NS_PER_S)
#define JOINED_MAX_BYTES (BODY_MAX_BYTES - KIB)

struct ask_wait {
    uint64_t id; /* the cid under which gateways were asked */
    struct asker asker;
    int64_t due_ns;
    struct strbuf joined; /* elements so far, with commas */
    struct vec peers;     /* uint32_t: not yet heard */
    struct buf *key;
};

static void send_answer(struct shard *s, struct asker asker, struct slice key, struct strbuf *json)
{
    struct message m = {.type = MSG_ANSWER, .cid = asker.cid, .slot = SLOT_UNKNOWN, .key = key};
    m.answer.json = strbuf_slice(json);
    if (asker_is_there(s, asker))
        hub_send(s->hub, asker.peer, &m);
    strbuf_free(json);
}

/* ---- the best few of many rooms ---- */

struct pick {
    struct slice key;
    struct room *room; /* NULL: a cold one */
    uint64_t head;
    uint32_t busy;
};

static int by_key(const void *a, const void *b)
{
    struct slice x = ((const struct pick *)a)->key, y = ((const struct pick *)b)->key;
    int order = memcmp(x.data, y.data, x.size < y.size ? x.size : y.size);
    if (order != 0)
        return order;
    return x.size < y.size ? -1 : x.size > y.size;
}

static int by_busy(const void *a, const void *b)
{
    uint32_t x = ((const struct pick *)a)->busy, y = ((const struct pick *)b)->busy;
    if (x != y)
        return x > y ? -1 : 1;
    return by_key(a, b);
}

/* Keeps the first `limit` of everything pushed; sorts when twice as many have come. */
static void picks_cut(struct vec *picks, size_t limit, int (*order)(const void *, const void *))
{
    if (picks->count > 0)
        qsort(picks->at, picks->count, sizeof(struct pick), order);
    if (picks->count > limit)
        picks->count = limit;
}

static bool begins_with(struct slice key, struct slice prefix)
{
    return prefix.size == 0 ||
           (key.size >= prefix.size && memcmp(key.data, prefix.data, prefix.size) == 0);
}

static bool is_behind(struct slice key, struct slice after)
{
    int order = memcmp(key.data, after.data, key.size < after.size ? key.size : after.size);
    return order > 0 || (order == 0 && key.size > after.size);
}

static void put_number(struct strbuf *out, const char *name, uint64_t value)
{
    strbuf_printf(out, ",\"%s\":", name);
    strbuf_put_u64(out, value);
}

static void put_pick(struct shard *s, struct strbuf *out, const struct pick *pick, bool first)
{
    struct room *room = pick->room;
    if (room)
        room_retain_exactly(s, room);
    strbuf_put_text(out, first ? "{\"key\":" : ",{\"key\":");
    json_quote(out, pick->key);
    put_number(out, "head", pick->head);
    put_number(out, "events", room ? room->head - room->floor : 0);
    put_number(out, "bytes", room ? room->retained_bytes : 0);
}

/* ---- keys, top ---- */

static void keys_add(const struct shard *s, const struct msg_ask *ask, struct vec *picks,
                     const struct pick *pick, uint16_t slot, size_t limit)
{
    bool own = pick->key.size > 0 && pick->key.data[0] == '$'; /* ours, no client can name it */
    if (own || !begins_with(pick->key, ask->prefix) || !slot_owned(s, slot) ||
        (ask->after.size > 0 && !is_behind(pick->key, ask->after)))
        return;
    *VEC_PUSH(picks, struct pick) = *pick;
    if (picks->count >= 2 * limit + 2)
        picks_cut(picks, limit + 1, by_key);
}

static void answer_keys(struct shard *s, struct asker asker, const struct message *m)
{
    const struct msg_ask *ask = &m->ask;
    size_t limit = ask->limit && ask->limit < ASK_LIMIT_MAX ? (size_t)ask->limit : ASK_LIMIT_MAX;
    struct vec picks = {0};
    size_t cursor = 0;
    struct room *room;
    while ((room = (struct room *)map_next(s->by_id, &cursor)) != NULL) {
        const struct pick pick = {.key = room_key(room), .room = room, .head = room->head};
        keys_add(s, ask, &picks, &pick, room->slot, limit);
    }
    cursor = 0;
    const struct cold_room *cold;
    while ((cold = (const struct cold_room *)map_next(s->cold, &cursor)) != NULL) {
        const struct pick pick = {.key = cold_key(cold), .head = cold->head};
        keys_add(s, ask, &picks, &pick, cold->slot, limit);
    }
    picks_cut(&picks, limit + 1, by_key);
    struct strbuf json = {0};
    strbuf_put_text(&json, "{\"keys\":[");
    for (size_t i = 0; i < picks.count && i < limit; i++) {
        put_pick(s, &json, &VEC_AT(&picks, struct pick)[i], i == 0);
        strbuf_put_byte(&json, '}');
    }
    strbuf_printf(&json, "],\"more\":%s}", picks.count > limit ? "true" : "false");
    vec_free(&picks);
    send_answer(s, asker, m->key, &json);
}

static void answer_top(struct shard *s, struct asker asker, const struct message *m)
{
    size_t limit = m->ask.limit ? (size_t)m->ask.limit : ASK_TOP_DEFAULT;
    if (limit > ASK_LIMIT_MAX)
        limit = ASK_LIMIT_MAX;
    struct vec picks = {0};
    size_t cursor = 0;
    struct room *room;
    while ((room = (struct room *)map_next(s->by_id, &cursor)) != NULL) {
        uint32_t busy = room_busy(room, s->clock_ms);
        if (busy == 0)
            continue;
        *VEC_PUSH(&picks, struct pick) =
            (struct pick){.key = room_key(room), .room = room, .head = room->head, .busy = busy};
        if (picks.count >= 2 * limit + 2)
            picks_cut(&picks, limit, by_busy);
    }
    picks_cut(&picks, limit, by_busy);
    struct strbuf json = {0};
    strbuf_put_text(&json, "{\"rooms\":[");
    for (size_t i = 0; i < picks.count; i++) {
        const struct pick *pick = &VEC_AT(&picks, struct pick)[i];
        put_pick(s, &json, pick, i == 0);
        strbuf_printf(&json, ",\"per_second\":%.1f,\"gateways\":%u}", pick->busy / 10.0,
                      (unsigned)pick->room->n_subs);
    }
    strbuf_put_text(&json, "]}");
    vec_free(&picks);
    send_answer(s, asker, m->key, &json);
}

/* ---- status ---- */

static void answer_status(struct shard *s, struct asker asker, const struct message *m)
{
    struct store_stats stats = {0};
    s->store->vtable->stats(s->store, &stats);
    struct strbuf json = {0};
    strbuf_put_text(&json, "{\"role\":\"shard\",\"name\":");
    json_quote(&json, slice_text(s->self.name));
    strbuf_put_text(&json, ",\"version\":");
    json_quote(&json, slice_text(s->self.version));
    strbuf_printf(&json, ",\"boot\":\"%016llx\"", (unsigned long long)s->self.boot);
    put_number(&json, "slots", s->slots_owned);
    put_number(&json, "rooms", map_count(s->by_id) + map_count(s->cold));
    put_number(&json, "subscribed", s->rooms_subscribed);
    put_number(&json, "events", s->retained_events);
    put_number(&json, "bytes", s->retained_bytes);
    put_number(&json, "commits", s->commits);
    put_number(&json, "published", s->published);
    put_number(&json, "disk_bytes", stats.bytes);
    put_number(&json, "disk_free_bytes", stats.disk_free_bytes);
    put_number(&json, "quarantined", quarantine_count(s));
    strbuf_printf(&json, ",\"space\":%s,\"draining\":%s}", s->has_space ? "true" : "false",
                  s->draining ? "true" : "false");
    send_answer(s, asker, m->key, &json);
}

static void answer_quarantine(struct shard *s, struct asker asker, const struct message *m)
{
    struct strbuf json = {0};
    strbuf_put_text(&json, "{\"rooms\":[");
    quarantine_list(s, &json, ASK_LIMIT_MAX);
    strbuf_put_text(&json, "],\"refused\":");
    json_quote(&json, strbuf_slice(&s->refused));
    strbuf_put_byte(&json, '}');
    send_answer(s, asker, m->key, &json);
}

/* ---- connections ---- */

static void wait_free(struct shard *s, struct ask_wait *wait)
{
    (void)map_remove(s->asks, map_id(&wait->id));
    strbuf_free(&wait->joined);
    vec_free(&wait->peers);
    buf_unref(wait->key);
    mem_free(wait);
}

static void wait_finish(struct shard *s, struct ask_wait *wait)
{
    struct strbuf json = {0};
    strbuf_put_byte(&json, '[');
    strbuf_put_slice(&json, strbuf_slice(&wait->joined));
    strbuf_put_byte(&json, ']');
    send_answer(s, wait->asker, buf_slice(wait->key), &json);
    wait_free(s, wait);
}

static bool wait_heard(struct ask_wait *wait, uint32_t peer)
{
    uint32_t *peers = VEC_AT(&wait->peers, uint32_t);
    for (size_t i = 0; i < wait->peers.count; i++) {
        if (peers[i] != peer)
            continue;
        peers[i] = peers[--wait->peers.count];
        return true;
    }
    return false;
}

static struct ask_wait *wait_create(struct shard *s, struct asker asker, struct slice key)
{
    struct ask_wait *wait = (struct ask_wait *)mem_zalloc(sizeof *wait);
    do
        wait->id = ++s->last_ask;
    while (wait->id == 0 || map_get(s->asks, map_id(&wait->id)));
    wait->asker = asker;
    wait->due_ns = s->now.mono_ns + ASK_WAIT_NS;
    wait->key = buf_copy_slice(key);
    map_put(s->asks, map_id(&wait->id), wait);
    return wait;
}

static void wait_ask(struct shard *s, struct ask_wait *wait, uint32_t peer, struct message *ask)
{
    ask->type = MSG_ASK;
    ask->cid = wait->id;
    hub_send(s->hub, peer, ask);
    *VEC_PUSH(&wait->peers, uint32_t) = peer;
}

static void ask_connections(struct shard *s, struct asker asker, const struct message *m)
{
    struct ask_wait *wait = wait_create(s, asker, m->key);
    const struct room *room = rooms_find(s, m->key);
    for (uint16_t i = 0; room && i < room->n_subs; i++) {
        struct message ask = {.slot = room->slot, .key = m->key};
        ask.ask.what = ASK_CONNECTIONS;
        wait_ask(s, wait, room->subs[i].peer, &ask);
    }
    if (wait->peers.count == 0)
        wait_finish(s, wait);
}

/* Gateways have no links to each other: what they say of themselves goes through a shard. */
static void ask_gateways(struct shard *s, struct asker asker, const struct message *m)
{
    struct ask_wait *wait = wait_create(s, asker, m->key);
    for (uint32_t peer = hub_next_up(s->hub, 0); peer != 0; peer = hub_next_up(s->hub, peer)) {
        if (peer == asker.peer || !s->clients[peer] || s->clients[peer]->role != ROLE_GATEWAY)
            continue;
        struct message ask = {.slot = SLOT_UNKNOWN};
        ask.ask.what = ASK_STATUS;
        wait_ask(s, wait, peer, &ask);
    }
    if (wait->peers.count == 0)
        wait_finish(s, wait);
}

/* What stands between the brackets of a JSON array; empty for anything else. */
static struct slice array_elements(struct slice json)
{
    if (!json_valid(json) || json_type_of(json) != JSON_ARRAY)
        return (struct slice){0};
    const uint8_t *open = (const uint8_t *)memchr(json.data, '[', json.size);
    const uint8_t *close = json.data + json.size;
    while (*--close != ']')
        ;
    struct slice inner = slice_of(open + 1, (size_t)(close - open - 1));
    struct json_iter it = json_members(json);
    return json_next(&it) ? inner : (struct slice){0};
}

void ask_collect(struct shard *s, uint32_t peer, const struct message *m)
{
    struct ask_wait *wait = (struct ask_wait *)map_get(s->asks, map_id(&m->cid));
    if (!wait || !wait_heard(wait, peer))
        return;
    struct slice elements =
        m->answer.status == 0 ? array_elements(m->answer.json) : (struct slice){0};
    if (elements.size > 0 && wait->joined.size + elements.size < JOINED_MAX_BYTES) {
        if (wait->joined.size > 0)
            strbuf_put_byte(&wait->joined, ',');
        strbuf_put_slice(&wait->joined, elements);
    }
    if (wait->peers.count == 0)
        wait_finish(s, wait);
}

void ask_client_gone(struct shard *s, uint32_t peer)
{
    size_t cursor = 0;
    struct ask_wait *wait;
    while ((wait = (struct ask_wait *)map_next(s->asks, &cursor)) != NULL) {
        if (wait_heard(wait, peer) && wait->peers.count == 0)
            wait_finish(s, wait);
    }
}

void ask_tick(struct shard *s)
{
    size_t cursor = 0;
    struct ask_wait *wait;
    while ((wait = (struct ask_wait *)map_next(s->asks, &cursor)) != NULL) {
        if (wait->due_ns <= s->now.mono_ns)
            wait_finish(s, wait);
    }
}

int64_t ask_deadline(const struct shard *s)
{
    int64_t due = TICK_NEVER;
    size_t cursor = 0;
    const struct ask_wait *wait;
    while ((wait = (const struct ask_wait *)map_next(s->asks, &cursor)) != NULL)
        due = wait->due_ns < due ? wait->due_ns : due;
    return due;
}

void ask_free(struct shard *s)
{
    size_t cursor = 0;
    struct ask_wait *wait;
    while ((wait = (struct ask_wait *)map_next(s->asks, &cursor)) != NULL)
        wait_free(s, wait);
    map_destroy(&s->asks);
}

/* ---- dispatch ---- */

void ask_answer(struct shard *s, uint32_t peer, const struct message *m)
{
    struct asker asker = {.peer = peer, .life = s->clients[peer]->life, .cid = m->cid};
    switch (m->ask.what) {
    case ASK_STATUS:
        answer_status(s, asker, m);
        return;
    case ASK_KEYS:
        answer_keys(s, asker, m);
        return;
    case ASK_TOP:
        answer_top(s, asker, m);
        return;
    case ASK_QUARANTINE:
        answer_quarantine(s, asker, m);
        return;
    case ASK_CONNECTIONS:
        ask_connections(s, asker, m);
        return;
    case ASK_GATEWAYS:
        ask_gateways(s, asker, m);
        return;
    default: {
        struct message reply = {.type = MSG_ANSWER, .cid = m->cid, .slot = SLOT_UNKNOWN};
        reply.answer.status = 400;
        reply.answer.json = slice_text("null");
        hub_send(s->hub, peer, &reply);
    }
    }
}
