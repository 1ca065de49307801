/* CORE. Questions to other processes and the answers put together: /connections (one shard), /keys
 * and /top (every shard), /status (everybody). Who has not answered after ASK_TIMEOUT_MS is left
 * out, and the answer says so. */
#include <stdlib.h>

#include "common/json.h"
#include "common/utf8.h"
#include "gateway/core.h"

#define LIST_LIMIT_DEFAULT 100
#define LIST_LIMIT_MAX 1000
#define TOP_LIMIT_DEFAULT 20
#define TOP_LIMIT_MAX 1000
#define CONNECTIONS_MAX_BYTES MIB
#define JOINED_TIMEOUT_MS (2 * ASK_TIMEOUT_MS) /* the shard asks all gateways first */

struct inquiry;

struct part {
    struct call call;
    struct inquiry *of;
    uint32_t peer; /* 0: a shard or router that was not asked */
    bool answered;
    struct strbuf json; /* a valid JSON value when answered */
};

struct inquiry {
    struct timer timer;
    struct waiter waiter;
    void (*finish)(struct gateway *g, struct inquiry *q); /* answers */
    uint64_t limit;
    bool by_tag;
    struct strbuf tag; /* of connections */
    size_t n_open;
    size_t n_parts;
    struct part parts[];
};

static struct inquiry *inquiry_create(struct exchange *x, size_t parts_max, uint64_t limit,
                                      void (*finish)(struct gateway *g, struct inquiry *q))
{
    struct inquiry *q = mem_zalloc(sizeof *q + parts_max * sizeof q->parts[0]);
    q->limit = limit;
    q->finish = finish;
    waiter_begin(x->g, &q->waiter, x->client, exchange_cors(x));
    return q;
}

static void inquiry_end(struct gateway *g, struct inquiry *q)
{
    q->finish(g, q);
    waiter_drop(g, &q->waiter);
    timer_stop(g, &q->timer);
    for (size_t i = 0; i < q->n_parts; i++) {
        call_end(g, &q->parts[i].call);
        strbuf_free(&q->parts[i].json);
    }
    strbuf_free(&q->tag);
    mem_free(q);
}

static void inquiry_fire(struct gateway *g, struct timer *t)
{
    inquiry_end(g, LIST_ENTRY(t, struct inquiry, timer));
}

/* Asks one peer, or only notes that it could not be asked. */
static void inquiry_ask(struct gateway *g, struct inquiry *q, uint32_t peer,
                        const struct msg_ask *ask, struct slice key, uint16_t slot)
{
    struct part *part = &q->parts[q->n_parts++];
    part->of = q;
    part->peer = peer;
    if (!hub_is_up(g->hub, peer))
        return;
    call_begin(g, &part->call, CALL_ASK, peer);
    q->n_open++;
    struct message m = {.type = MSG_ASK, .cid = part->call.cid, .slot = slot, .key = key};
    m.ask = *ask;
    hub_send(g->hub, peer, &m);
}

static void inquiry_asked(struct gateway *g, struct inquiry *q, int64_t timeout_ms)
{
    if (q->n_open == 0) {
        inquiry_end(g, q);
        return;
    }
    q->timer.fire = inquiry_fire;
    timer_set(g, &q->timer, g->now.mono_ns + timeout_ms * NS_PER_MS);
}

static void part_done(struct gateway *g, struct part *part)
{
    struct inquiry *q = part->of;
    call_end(g, &part->call);
    if (--q->n_open == 0)
        inquiry_end(g, q);
}

void ask_on_answer(struct gateway *g, struct call *call, const struct message *m)
{
    struct part *part = LIST_ENTRY(call, struct part, call);
    if (m->answer.status == 0 && json_valid(m->answer.json)) {
        strbuf_put_slice(&part->json, m->answer.json);
        part->answered = true;
    }
    part_done(g, part);
}

void ask_peer_down(struct gateway *g, struct call *call)
{
    part_done(g, LIST_ENTRY(call, struct part, call));
}

void ask_destroy(struct gateway *g, struct call *call)
{
    struct inquiry *q = LIST_ENTRY(call, struct part, call)->of;
    waiter_drop(g, &q->waiter);
    inquiry_end(g, q);
}

static void ask_all_shards(struct gateway *g, struct inquiry *q, const struct msg_ask *ask)
{
    for (unsigned i = 0; i < g->options.n_shards; i++)
        inquiry_ask(g, q, g->shards[i].peer, ask, slice_of(NULL, 0), SLOT_UNKNOWN);
    inquiry_asked(g, q, ASK_TIMEOUT_MS);
}

static bool all_answered(const struct inquiry *q)
{
    for (size_t i = 0; i < q->n_parts; i++)
        if (!q->parts[i].answered)
            return false;
    return true;
}

/* The elements of the array that an answer has under `name`. */
static struct json_iter elements_of(const struct part *part, const char *name)
{
    struct json_value list = json_get(strbuf_slice(&part->json), name);
    return json_members(list.type == JSON_ARRAY ? list.raw : slice_text("[]"));
}

/* ---- connections and close ---- */

static bool has_tag(struct slice row, struct slice tag)
{
    struct json_value tags = json_get(row, "tags");
    struct json_iter it = json_members(tags.type == JSON_ARRAY ? tags.raw : slice_text("[]"));
    struct strbuf text = {0};
    bool has = false;
    while (!has && json_next(&it)) {
        strbuf_reset(&text);
        has = json_unescape(it.value, &text) && slice_equal(strbuf_slice(&text), tag);
    }
    strbuf_free(&text);
    return has;
}

static void connections_finish(struct gateway *g, struct inquiry *q)
{
    struct slice list = strbuf_slice(&q->parts[0].json);
    struct strbuf out = {0};
    if (!q->parts[0].answered || json_type_of(list) != JSON_ARRAY) {
        waiter_error(g, &q->waiter, "Moving", "no shard answers for this key just now; try again");
        return;
    }
    if (!q->by_tag) {
        waiter_answer(g, &q->waiter, "application/json", list);
        return;
    }
    struct json_iter it = json_members(list);
    strbuf_put_byte(&out, '[');
    while (json_next(&it)) {
        if (!has_tag(it.value.raw, strbuf_slice(&q->tag)))
            continue;
        if (out.size > 1)
            strbuf_put_byte(&out, ',');
        strbuf_put_slice(&out, it.value.raw);
    }
    strbuf_put_byte(&out, ']');
    waiter_answer(g, &q->waiter, "application/json", strbuf_slice(&out));
    strbuf_free(&out);
}

void route_connections(struct exchange *x)
{
    struct gateway *g = x->g;
    struct slice key = strbuf_slice(&x->key);
    uint16_t slot = slot_of(key, g->options.slot_seed);
    uint32_t owner = slots_owner(g->slots, slot).peer;
    struct strbuf tag = {0};
    int by_tag = http_query_get(x->request->query, "tag", &tag);
    const char *wrong = by_tag == ERR_INVALID ? "BadRequest" : owner == 0 ? "Moving" : NULL;
    if (wrong) {
        strbuf_free(&tag);
        exchange_error(x, wrong,
                       by_tag == ERR_INVALID ? "tag: one text, percent-encoded"
                                             : "no shard serves this key just now; try again");
        return;
    }
    struct inquiry *q = inquiry_create(x, 1, 0, connections_finish);
    q->by_tag = by_tag == ERR_OK;
    q->tag = tag;
    inquiry_ask(g, q, owner, &(struct msg_ask){.what = ASK_CONNECTIONS}, key, slot);
    inquiry_asked(g, q, JOINED_TIMEOUT_MS);
}

/* Of a key without a handler a connection is who its token says. */
static void connection_put(struct gateway *g, struct strbuf *out, const struct subscription *sub)
{
    const struct identity *who = subscription_identity(sub);
    strbuf_put_text(out, "{\"id\":");
    if (who && who->id.data) {
        json_quote(out, who->id);
    } else {
        strbuf_put_byte(out, '"');
        session_id_put(out, g, sub->session);
        strbuf_put_byte(out, '"');
    }
    strbuf_put_text(out, ",\"tags\":[");
    for (size_t i = 0; who && i < who->tags.count; i++) {
        if (i > 0)
            strbuf_put_byte(out, ',');
        json_quote(out, who->tags.at[i]);
    }
    strbuf_put_text(out, "],\"state\":null}");
}

static void connections_put(struct gateway *g, struct strbuf *out, struct room *room)
{
    const char *separator = "";
    LIST_EACH(cursor, after, &room->subs)
    {
        const struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_room);
        if (!sub->session->established || out->size > CONNECTIONS_MAX_BYTES)
            continue;
        strbuf_put_text(out, separator);
        connection_put(g, out, sub);
        separator = ",";
    }
}

static void own_status_put(struct gateway *g, struct strbuf *out)
{
    strbuf_put_text(out, "{\"role\":\"gateway\",\"name\":");
    json_quote(out, slice_text(g->options.self.name));
    strbuf_put_text(out, ",\"version\":");
    json_quote(out, slice_text(g->options.version ? g->options.version : ""));
    strbuf_put_text(out, ",\"address\":");
    json_quote(out, slice_text(g->options.address ? g->options.address : ""));
    strbuf_printf(out,
                  ",\"up\":true,\"boot\":\"%016llx\",\"draining\":%s,\"rooms\":%zu,"
                  "\"sockets\":%zu,\"lagging\":%.0f,\"deliveries\":%.0f,"
                  "\"publishes_in_flight\":%zu}",
                  (unsigned long long)g->options.self.boot, g->draining ? "true" : "false",
                  map_count(g->rooms), map_count(g->sessions), metric_value(g->m.lagging),
                  metric_value(g->m.deliveries), g->n_publishes);
}

/* A shard asks for this gateway's share: an array, to be joined with the others'. */
void ask_on_ask(struct gateway *g, uint32_t peer, const struct message *m)
{
    struct strbuf out = {0};
    struct room *room = m->ask.what == ASK_CONNECTIONS ? room_find(g, m->key) : NULL;
    strbuf_put_byte(&out, '[');
    if (m->ask.what == ASK_STATUS)
        own_status_put(g, &out);
    else if (room)
        connections_put(g, &out, room);
    strbuf_put_byte(&out, ']');
    struct message answer = {.type = MSG_ANSWER, .cid = m->cid, .slot = m->slot, .key = m->key};
    answer.answer.json = strbuf_slice(&out);
    hub_send(g->hub, peer, &answer);
    strbuf_free(&out);
}

static bool close_code_valid(uint64_t code)
{
    return code == 1000 || code == 1001 || code == 1008 || (code >= 1011 && code <= 1013) ||
           (code >= 3000 && code <= 4999);
}

void route_close(struct exchange *x)
{
    struct gateway *g = x->g;
    struct slice key = strbuf_slice(&x->key);
    uint64_t code = 1000;
    if (!exchange_number(x, "code", 1000, 4999, &code))
        return;
    if (!close_code_valid(code)) {
        exchange_error(x, "BadRequest", "code: 1000, 1001, 1008, 1011 to 1013 or 3000 to 4999");
        return;
    }
    uint16_t slot = slot_of(key, g->options.slot_seed);
    uint32_t owner = slots_owner(g->slots, slot).peer;
    if (owner == 0) {
        exchange_error(x, "Moving", "no shard serves this key just now; try again");
        return;
    }
    struct message m = {.type = MSG_CLOSE, .slot = slot, .key = key};
    m.close.code = code;
    m.close.reason = slice_text("closed by request");
    hub_send(g->hub, owner, &m);
    exchange_json(x, slice_text("{}"));
}

/* ---- keys ---- */

static int slice_order(const void *a, const void *b)
{
    const struct slice *left = a;
    const struct slice *right = b;
    size_t size = left->size < right->size ? left->size : right->size;
    int order = size ? memcmp(left->data, right->data, size) : 0;
    if (order != 0)
        return order;
    return left->size < right->size ? -1 : left->size > right->size;
}

struct key_row {
    size_t at, size;  /* of the key in the rows' text, which moves while it grows */
    struct slice key; /* set when all are there */
    struct json_value events, bytes;
};

struct key_rows {
    struct strbuf text;
    struct key_row *at;
    size_t count, capacity;
    bool more; /* a shard has more */
};

static int key_order(const void *a, const void *b)
{
    return slice_order(&((const struct key_row *)a)->key, &((const struct key_row *)b)->key);
}

static void keys_gather(struct key_rows *rows, const struct part *part)
{
    struct json_iter it = elements_of(part, "keys");
    while (json_next(&it)) {
        size_t before = rows->text.size;
        if (!json_unescape(json_get(it.value.raw, "key"), &rows->text)) {
            rows->text.size = before;
            continue;
        }
        if (rows->count == rows->capacity) {
            rows->capacity = rows->capacity ? 2 * rows->capacity : 64;
            rows->at = mem_realloc(rows->at, rows->capacity * sizeof *rows->at);
        }
        rows->at[rows->count++] = (struct key_row){.at = before,
                                                   .size = rows->text.size - before,
                                                   .events = json_get(it.value.raw, "events"),
                                                   .bytes = json_get(it.value.raw, "bytes")};
    }
    rows->more |= json_get(strbuf_slice(&part->json), "more").type == JSON_TRUE;
}

static void key_row_put(struct strbuf *out, const struct key_row *row)
{
    strbuf_put_text(out, "{\"key\":");
    json_quote(out, row->key);
    if (row->events.type == JSON_NUMBER) {
        strbuf_put_text(out, ",\"events\":");
        strbuf_put_slice(out, row->events.raw);
    }
    if (row->bytes.type == JSON_NUMBER) {
        strbuf_put_text(out, ",\"bytes\":");
        strbuf_put_slice(out, row->bytes.raw);
    }
    strbuf_put_byte(out, '}');
}

static void keys_finish(struct gateway *g, struct inquiry *q)
{
    struct key_rows rows = {0};
    struct strbuf out = {0};
    uint64_t given = 0;
    for (size_t i = 0; i < q->n_parts; i++)
        if (q->parts[i].answered)
            keys_gather(&rows, &q->parts[i]);
    for (size_t i = 0; i < rows.count; i++)
        rows.at[i].key = slice_of(rows.text.data + rows.at[i].at, rows.at[i].size);
    if (rows.count > 0)
        qsort(rows.at, rows.count, sizeof *rows.at, key_order);
    strbuf_put_text(&out, "{\"keys\":[");
    for (size_t i = 0; i < rows.count; i++) {
        if (i > 0 && slice_equal(rows.at[i].key, rows.at[i - 1].key))
            continue;
        if (given == q->limit) {
            rows.more = true;
            break;
        }
        if (given++ > 0)
            strbuf_put_byte(&out, ',');
        key_row_put(&out, &rows.at[i]);
    }
    strbuf_printf(&out, "],\"more\":%s,\"complete\":%s}", rows.more ? "true" : "false",
                  all_answered(q) ? "true" : "false");
    waiter_answer(g, &q->waiter, "application/json", strbuf_slice(&out));
    strbuf_free(&out);
    strbuf_free(&rows.text);
    mem_free(rows.at);
}

/* A part of a key as a parameter; false: answered. */
static bool key_part(struct exchange *x, const char *name, struct strbuf *out)
{
    int found = http_query_get(x->request->query, name, out);
    if (found == ERR_NOT_FOUND)
        strbuf_reset(out);
    if (found == ERR_INVALID || out->size > KEY_MAX_BYTES || !utf8_valid(strbuf_slice(out))) {
        exchange_error(x, "BadKey", "prefix, after: (the beginning of) a key");
        return false;
    }
    return true;
}

void route_keys(struct exchange *x)
{
    struct strbuf prefix = {0};
    struct strbuf after = {0};
    uint64_t limit = LIST_LIMIT_DEFAULT;
    if (exchange_who(x) && key_part(x, "prefix", &prefix) && key_part(x, "after", &after) &&
        exchange_allow_all(x, RIGHT_MANAGE, strbuf_slice(&prefix)) &&
        exchange_number(x, "limit", 1, LIST_LIMIT_MAX, &limit)) {
        struct inquiry *q = inquiry_create(x, x->g->options.n_shards, limit, keys_finish);
        ask_all_shards(x->g, q,
                       &(struct msg_ask){.what = ASK_KEYS,
                                         .prefix = strbuf_slice(&prefix),
                                         .after = strbuf_slice(&after),
                                         .limit = limit});
    }
    strbuf_free(&prefix);
    strbuf_free(&after);
}

/* ---- top ---- */

struct top_row {
    double per_second;
    struct slice row; /* JSON object, within a part */
};

static double number_of(struct json_value v)
{
    char digits[32] = {0};
    if (v.type != JSON_NUMBER || v.raw.size >= sizeof digits)
        return 0;
    memcpy(digits, v.raw.data, v.raw.size);
    return strtod(digits, NULL);
}

static int busy_order(const void *a, const void *b)
{
    const struct top_row *left = a;
    const struct top_row *right = b;
    if (left->per_second != right->per_second)
        return left->per_second > right->per_second ? -1 : 1;
    return slice_order(&left->row, &right->row);
}

static void top_finish(struct gateway *g, struct inquiry *q)
{
    struct strbuf rows = {0}; /* of struct top_row */
    struct strbuf out = {0};
    for (size_t i = 0; i < q->n_parts; i++) {
        if (!q->parts[i].answered)
            continue;
        struct json_iter it = elements_of(&q->parts[i], "rooms");
        while (json_next(&it)) {
            struct top_row row = {.row = it.value.raw};
            row.per_second = number_of(json_get(it.value.raw, "per_second"));
            strbuf_put(&rows, &row, sizeof row);
        }
    }
    size_t count = rows.size / sizeof(struct top_row);
    struct top_row *at = (struct top_row *)(void *)rows.data;
    if (count > 0)
        qsort(at, count, sizeof *at, busy_order);
    strbuf_put_text(&out, "{\"rooms\":[");
    for (size_t i = 0; i < count && i < q->limit; i++) {
        if (i > 0)
            strbuf_put_byte(&out, ',');
        strbuf_put_slice(&out, at[i].row);
    }
    strbuf_printf(&out, "],\"complete\":%s}", all_answered(q) ? "true" : "false");
    waiter_answer(g, &q->waiter, "application/json", strbuf_slice(&out));
    strbuf_free(&out);
    strbuf_free(&rows);
}

void route_top(struct exchange *x)
{
    uint64_t limit = TOP_LIMIT_DEFAULT;
    if (!exchange_allow_all(x, RIGHT_MANAGE, slice_of(NULL, 0)) ||
        !exchange_number(x, "limit", 1, TOP_LIMIT_MAX, &limit))
        return;
    struct inquiry *q = inquiry_create(x, x->g->options.n_shards, limit, top_finish);
    ask_all_shards(x->g, q, &(struct msg_ask){.what = ASK_TOP, .limit = limit});
}

/* ---- quarantine ---- */

static void reload_refused_put(struct gateway *g, const struct part *part, struct strbuf *out)
{
    struct json_value why = json_get(strbuf_slice(&part->json), "refused");
    const struct peer_info *info = hub_info(g->hub, part->peer);
    if (why.type != JSON_STRING || slice_is(why.raw, "\"\""))
        return;
    strbuf_put_text(out, out->size > 0 ? ",{\"name\":" : "{\"name\":");
    json_quote(out, slice_text(info ? info->name : ""));
    strbuf_put_text(out, ",\"why\":");
    strbuf_put_slice(out, why.raw);
    strbuf_put_byte(out, '}');
}

/* What the shards do not run, and which of them refused the last reload. */
static void quarantine_finish(struct gateway *g, struct inquiry *q)
{
    struct strbuf rooms = {0}, refused = {0}, out = {0};
    for (size_t i = 0; i < q->n_parts; i++) {
        if (!q->parts[i].answered)
            continue;
        struct json_iter it = elements_of(&q->parts[i], "rooms");
        while (json_next(&it)) {
            strbuf_put_text(&rooms, rooms.size > 0 ? "," : "");
            strbuf_put_slice(&rooms, it.value.raw);
        }
        reload_refused_put(g, &q->parts[i], &refused);
    }
    strbuf_put_text(&out, "{\"rooms\":[");
    strbuf_put_slice(&out, strbuf_slice(&rooms));
    strbuf_put_text(&out, "],\"refused\":[");
    strbuf_put_slice(&out, strbuf_slice(&refused));
    strbuf_printf(&out, "],\"complete\":%s}", all_answered(q) ? "true" : "false");
    waiter_answer(g, &q->waiter, "application/json", strbuf_slice(&out));
    strbuf_free(&rooms);
    strbuf_free(&refused);
    strbuf_free(&out);
}

void route_quarantine(struct exchange *x)
{
    if (!exchange_allow_all(x, RIGHT_MANAGE, slice_of(NULL, 0)))
        return;
    struct inquiry *q = inquiry_create(x, x->g->options.n_shards, 0, quarantine_finish);
    ask_all_shards(x->g, q, &(struct msg_ask){.what = ASK_QUARANTINE});
}

/* ---- status ---- */

/* What we know of a peer first, then what it says of itself. */
static void peer_status_put(struct gateway *g, struct strbuf *out, const struct part *part)
{
    static const char *const known[] = {"role", "name", "version", "address", "up"};
    const struct peer_info *info = hub_info(g->hub, part->peer);
    bool router = peer_is_router(g, part->peer);
    strbuf_printf(out, "{\"role\":\"%s\",\"name\":", router ? "router" : "shard");
    if (info)
        json_quote(out, slice_text(info->name));
    else
        strbuf_printf(out, "\"%s-%u\"", router ? "router" : "shard",
                      part->peer - 1 - (router ? 0 : g->options.n_routers));
    strbuf_put_text(out, ",\"version\":");
    json_quote(out, slice_text(info ? info->version : ""));
    if (g->options.endpoints) {
        strbuf_put_text(out, ",\"address\":");
        json_quote(out, slice_text(g->options.endpoints[part->peer - 1]));
    }
    strbuf_put_text(out, part->answered ? ",\"up\":true" : ",\"up\":false");
    struct json_iter it = json_members(strbuf_slice(&part->json));
    while (part->answered && it.object && json_next(&it)) {
        bool repeated = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            repeated |= slice_is(it.name, known[i]);
        if (repeated)
            continue;
        strbuf_put_text(out, ",\"");
        strbuf_put_slice(out, it.name);
        strbuf_put_text(out, "\":");
        strbuf_put_slice(out, it.value.raw);
    }
    strbuf_put_byte(out, '}');
}

static uint32_t peers_dialed(const struct gateway *g)
{
    return g->options.n_routers + g->options.n_shards;
}

/* Ourselves, who is dialed, then the other gateways as a shard knows them. */
static void status_finish(struct gateway *g, struct inquiry *q)
{
    struct strbuf out = {0};
    strbuf_put_text(&out, "{\"processes\":[");
    own_status_put(g, &out);
    for (size_t i = 0; i < peers_dialed(g); i++) {
        strbuf_put_byte(&out, ',');
        peer_status_put(g, &out, &q->parts[i]);
    }
    if (q->n_parts > peers_dialed(g) && q->parts[peers_dialed(g)].answered) {
        struct json_iter it = json_members(strbuf_slice(&q->parts[peers_dialed(g)].json));
        while (json_next(&it)) {
            strbuf_put_byte(&out, ',');
            strbuf_put_slice(&out, it.value.raw);
        }
    }
    strbuf_put_text(&out, "]}");
    waiter_answer(g, &q->waiter, "application/json", strbuf_slice(&out));
    strbuf_free(&out);
}

void route_status(struct exchange *x)
{
    struct gateway *g = x->g;
    const struct slice nothing = {0};
    if (!exchange_allow_all(x, RIGHT_MANAGE, nothing))
        return;
    struct inquiry *q = inquiry_create(x, peers_dialed(g) + 1, 0, status_finish);
    for (uint32_t peer = 1; peer <= peers_dialed(g); peer++)
        inquiry_ask(g, q, peer, &(struct msg_ask){.what = ASK_STATUS}, nothing, SLOT_UNKNOWN);
    for (uint32_t peer = g->options.n_routers + 1; peer <= peers_dialed(g); peer++) {
        if (!hub_is_up(g->hub, peer))
            continue;
        inquiry_ask(g, q, peer, &(struct msg_ask){.what = ASK_GATEWAYS}, nothing, SLOT_UNKNOWN);
        break;
    }
    inquiry_asked(g, q, JOINED_TIMEOUT_MS);
}
