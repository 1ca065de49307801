/* CORE. The gateway's side of world.h: one link to the shard, connections that join, speak, listen
 * and leave as gateway/member.c has them do, questions with their answers.
 *
 * What the shipped gateway does for many sockets at a time is plain here: it subscribes to each
 * room once, gives an item to the connections that its filter admits, keeps inputs until they are
 * on disk and says JOIN again when the shard has started anew. The link's credit is without end, so
 * that no delivery is ever skipped. */
#include <stdio.h>

#include "common/json.h"
#include "common/mem.h"
#include "proto/filter.h"
#include "shard/room_test/internal.h"

#define CREDIT_ENDLESS (UINT64_C(1) << 50)
#define AGAIN_MS 250 /* as the gateway's MEMBER_RETRY_MS */

static struct world_connection *connection_at(const struct world *w, size_t i)
{
    return VEC_AT(&w->connections, struct world_connection *)[i];
}

static struct world_connection *connection_named(const struct world *w, struct slice session)
{
    for (size_t i = 0; i < w->connections.count; i++)
        if (slice_is(session, connection_at(w, i)->session))
            return connection_at(w, i);
    return NULL;
}

static struct message message_of(const struct world_connection *c, enum message_type type)
{
    return (struct message){.type = type, .slot = SLOT_UNKNOWN, .key = slice_text(c->key)};
}

void gateway_send(struct world *w, struct message *m)
{
    m->cid = ++w->last_cid;
    hub_send(w->hub, PEER_SHARD, m);
}

/* ---- answers ---- */

static bool is_awaited(const struct world *w, uint64_t cid)
{
    return w->awaited != 0 && cid == w->awaited;
}

static void answered(struct world *w, unsigned status, struct slice tag, struct slice text)
{
    w->answer->status = status;
    strbuf_put_slice(&w->answer->tag, tag);
    strbuf_put_slice(&w->answer->text, text);
    w->awaited = 0;
}

/* As over HTTP. */
static void on_nack(struct world *w, const struct message *m)
{
    static const struct {
        uint64_t code;
        unsigned status;
        const char *tag, *text;
    } table[] = {
        {NACK_DISK, 503, "DiskFull", "the shard's disk is full; nothing was changed"},
        {NACK_BUSY, 503, "Busy", "the room is busy; nothing has run, retry later"},
        {NACK_RATE, 429, "RateLimited", "too much at a time"},
        {NACK_TOOBIG, 413, "TooLarge", "the shard refused the input for its size"},
        {NACK_DENIED, 403, "Forbidden", "this call is refused"},
        {NACK_NONE, 400, "BadRequest", "the shard refused the call"},
    };
    size_t i = 0;
    if (!is_awaited(w, m->cid))
        return;
    while (table[i].code != m->nack.code && table[i].code != NACK_NONE)
        i++;
    answered(w, table[i].status, slice_text(table[i].tag), slice_text(table[i].text));
}

static void on_result(struct world *w, const struct message *m)
{
    const struct msg_result *r = &m->result;
    if (!is_awaited(w, m->cid) || r->more)
        return;
    strbuf_put_slice(&w->answer->json, r->json);
    answered(w, (unsigned)r->status, r->tag, r->text);
}

static void on_replay(struct world *w, const struct message *m)
{
    const struct msg_replay *r = &m->replay;
    if (!is_awaited(w, m->cid))
        return;
    struct strbuf *out = &w->answer->json;
    for (size_t i = 0; i < r->items.count; i++) {
        const struct event_item *item = &r->items.at[i];
        if (item->flags & EVENT_TRANSIENT)
            continue;
        if (out->size > 1)
            strbuf_put_byte(out, ',');
        if (item->flags & EVENT_JSON)
            strbuf_put_slice(out, item->payload);
        else
            json_quote(out, item->payload);
    }
    w->log_more = !r->eof && r->after > w->log_after;
    w->log_after = r->after;
    w->log_epoch = r->room_epoch;
    answered(w, 0, slice_text(""), slice_text(""));
}

/* ---- connections ---- */

static void connection_end(struct world_connection *c, unsigned code, struct slice reason)
{
    c->open = false;
    c->close_code = code;
    strbuf_put_slice(&c->close_reason, reason);
}

static void join_send(struct world *w, const struct world_connection *c, struct slice request,
                      struct message *m)
{
    *m = message_of(c, MSG_JOIN);
    m->join.session = slice_text(c->session);
    m->join.again = c->joined;
    m->join.request = request;
    gateway_send(w, m);
}

static void inputs_taken(struct world_connection *c, uint64_t counter)
{
    size_t n = 0;
    struct world_input *at = VEC_AT(&c->inputs, struct world_input);
    while (n < c->inputs.count && at[n].counter <= counter)
        strbuf_free(&at[n++].frame);
    if (n > 0 && n < c->inputs.count)
        memmove(at, at + n, (c->inputs.count - n) * sizeof *at);
    c->inputs.count -= n;
}

void gateway_inputs_send(struct world *w, struct world_connection *c)
{
    c->stalled = false;
    for (size_t i = 0; c->open && i < c->inputs.count; i++) {
        const struct world_input *in = &VEC_AT(&c->inputs, struct world_input)[i];
        struct message m = message_of(c, MSG_INPUT);
        m.input.session = slice_text(c->session);
        m.input.counter = in->counter;
        m.input.flags = in->flags;
        m.input.frame = strbuf_slice(&in->frame);
        gateway_send(w, &m);
    }
}

static void on_joined(struct world *w, const struct message *m)
{
    const struct msg_joined *j = &m->joined;
    struct world_connection *c = connection_named(w, j->session);
    if (c && j->status == 0) {
        if (!c->joined) {
            c->joined = c->open = true;
            c->head = j->head;
            strbuf_put_slice(&c->id, j->id);
            strbuf_put_slice(&c->tags, j->tags);
            strbuf_put_slice(&c->auto_request, j->auto_request);
            strbuf_put_slice(&c->auto_response, j->auto_response);
            (void)json_texts(j->tags, &c->names, c->tag, sizeof c->tag / sizeof *c->tag,
                             &c->n_tags);
        }
        inputs_taken(c, j->counter);
        gateway_inputs_send(w, c);
    } else if (c && c->joined && c->open) {
        connection_end(c, 1012, slice_text("the room has ended this connection"));
    }
    if (is_awaited(w, m->cid))
        answered(w, (unsigned)j->status, j->tag, j->text);
}

static void on_input_ack(struct world *w, const struct message *m)
{
    struct world_connection *c = connection_named(w, m->input_ack.session);
    if (!c)
        return;
    inputs_taken(c, m->input_ack.counter);
    if (m->input_ack.code != NACK_NONE) {
        c->stalled = true;
        c->again_ms = w->now.wall_ms + AGAIN_MS;
    }
}

static void leave_send(struct world *w, const struct world_connection *c, unsigned code,
                       struct slice reason, bool clean)
{
    struct message m = message_of(c, MSG_LEAVE);
    m.leave.session = slice_text(c->session);
    m.leave.code = code;
    m.leave.reason = reason;
    m.leave.clean = clean;
    gateway_send(w, &m);
}

static void on_close(struct world *w, const struct message *m)
{
    bool fine = m->close.code >= 1000 && m->close.code <= 4999;
    unsigned code = fine ? (unsigned)m->close.code : 1000;
    for (size_t i = 0; i < w->connections.count; i++) {
        struct world_connection *c = connection_at(w, i);
        bool meant = m->close.session.size > 0 ? slice_is(m->close.session, c->session)
                                               : slice_is(m->key, c->key);
        if (!meant || !c->open)
            continue;
        connection_end(c, code, m->close.reason);
        leave_send(w, c, code, m->close.reason, true);
    }
}

static void received_put(struct world_connection *c, struct slice payload)
{
    struct strbuf *message = VEC_PUSH(&c->received, struct strbuf);
    *message = (struct strbuf){0};
    strbuf_put_slice(message, payload);
}

static void on_deliver(struct world *w, const struct message *m)
{
    for (size_t i = 0; i < m->deliver.items.count; i++) {
        const struct event_item *item = &m->deliver.items.at[i];
        for (size_t k = 0; k < w->connections.count; k++) {
            struct world_connection *c = connection_at(w, k);
            bool new = item->flags &EVENT_EPHEMERAL || item->seq > c->head;
            if (!c->open || !new || !slice_is(m->key, c->key) ||
                !filter_admits(item->filter, slice_text(c->session), strbuf_slice(&c->id), c->tag,
                               c->n_tags))
                continue;
            received_put(c, item->payload);
        }
    }
}

/* ---- the link ---- */

static int link_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct world *w = ctx;
    (void)peer;
    *VEC_PUSH(&w->to_shard, struct buf *) = buf_copy(packet, size);
    return ERR_OK;
}

static void subscribe(struct world *w, const char *key)
{
    struct message m = {.type = MSG_SUB, .slot = SLOT_UNKNOWN, .key = slice_text(key)};
    gateway_send(w, &m);
}

static void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    struct world *w = ctx;
    struct message m = {.type = MSG_CREDIT, .slot = SLOT_UNKNOWN};
    (void)peer, (void)info;
    m.credit.granted = CREDIT_ENDLESS;
    gateway_send(w, &m);
    for (size_t i = 0; i < w->keys.count; i++)
        subscribe(w, VEC_AT(&w->keys, char *)[i]);
    for (size_t i = 0; i < w->connections.count; i++)
        if (connection_at(w, i)->open)
            join_send(w, connection_at(w, i), (struct slice){0}, &m);
}

static void on_down(void *ctx, uint32_t peer)
{
    (void)ctx, (void)peer;
}

static void on_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    struct world *w = ctx;
    (void)peer, (void)packet;
    switch (m->type) {
    case MSG_JOINED:
        on_joined(w, m);
        break;
    case MSG_INPUT_ACK:
        on_input_ack(w, m);
        break;
    case MSG_CLOSE:
        on_close(w, m);
        break;
    case MSG_DELIVER:
        on_deliver(w, m);
        break;
    case MSG_RESULT:
        on_result(w, m);
        break;
    case MSG_REPLAY:
        on_replay(w, m);
        break;
    case MSG_NACK:
        on_nack(w, m);
        break;
    case MSG_PACK:
        if (is_awaited(w, m->cid))
            answered(w, 0, slice_text(""), slice_text(""));
        break;
    default: /* slots and heads: there is one shard, and nothing is skipped */
        break;
    }
}

void gateway_create(struct world *w)
{
    struct hub_self self = {
        .role = ROLE_GATEWAY, .boot = 1, .cluster = 1, .name = "gateway", .version = "test"};
    struct hub_handler handler = {
        .ctx = w, .on_up = on_up, .on_down = on_down, .on_message = on_message};
    struct hub_ports ports = {.ctx = w, .send = link_send};
    w->gateway_metrics = metrics_create();
    w->hub = hub_create(&self, &handler, &ports, w->log, w->gateway_metrics, 2);
    uint32_t peer = hub_dial(w->hub);
    STOA_ASSERT(peer == PEER_SHARD);
}

void gateway_connect(struct world *w)
{
    hub_disconnected(w->hub, PEER_SHARD, w->now);
    hub_connected(w->hub, PEER_SHARD, w->now);
}

bool gateway_turn(struct world *w)
{
    bool any = w->to_gateway.count > 0;
    for (size_t i = 0; i < w->to_gateway.count; i++) {
        struct buf *packet = VEC_AT(&w->to_gateway, struct buf *)[i];
        hub_packet(w->hub, PEER_SHARD, packet, w->now);
        buf_unref(packet);
    }
    w->to_gateway.count = 0;
    hub_tick(w->hub, w->now);
    hub_flush(w->hub, w->now);
    return any;
}

static void connection_free(struct world_connection *c)
{
    struct strbuf *texts[] = {&c->id,           &c->tags,          &c->names,
                              &c->auto_request, &c->auto_response, &c->close_reason};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        strbuf_free(texts[i]);
    for (size_t i = 0; i < c->received.count; i++)
        strbuf_free(&VEC_AT(&c->received, struct strbuf)[i]);
    inputs_taken(c, UINT64_MAX);
    vec_free(&c->received);
    vec_free(&c->inputs);
    mem_free(c->key);
    mem_free(c);
}

void gateway_destroy(struct world *w)
{
    hub_destroy(&w->hub);
    metrics_destroy(&w->gateway_metrics);
    for (size_t i = 0; i < w->connections.count; i++)
        connection_free(connection_at(w, i));
    for (size_t i = 0; i < w->keys.count; i++)
        mem_free(VEC_AT(&w->keys, char *)[i]);
    vec_free(&w->connections);
    vec_free(&w->keys);
}

/* ---- what tests do ---- */

void gateway_subscribe(struct world *w, struct slice key)
{
    for (size_t i = 0; i < w->keys.count; i++)
        if (slice_is(key, VEC_AT(&w->keys, char *)[i]))
            return;
    char *copy = mem_strndup((const char *)key.data, key.size);
    *VEC_PUSH(&w->keys, char *) = copy;
    subscribe(w, copy);
}

struct world_connection *world_join(struct world *w, struct slice key, struct slice request,
                                    struct world_answer *refusal)
{
    struct world_connection *c = mem_zalloc(sizeof *c);
    struct message m;
    *refusal = (struct world_answer){0};
    gateway_subscribe(w, key);
    c->key = mem_strndup((const char *)key.data, key.size);
    (void)snprintf(c->session, sizeof c->session, "s%llu", (unsigned long long)++w->last_session);
    *VEC_PUSH(&w->connections, struct world_connection *) = c;
    m = message_of(c, MSG_JOIN);
    m.join.session = slice_text(c->session);
    m.join.request = request;
    world_ask(w, &m, refusal);
    if (c->joined)
        return c;
    /* What the shard may still make of it ends, as when a client gives up its upgrade. */
    if (refusal->status == 504)
        leave_send(w, c, 1006, (struct slice){0}, false);
    return NULL;
}

struct slice world_connection_id(const struct world_connection *c)
{
    return strbuf_slice(&c->id);
}

struct slice world_connection_session(const struct world_connection *c)
{
    return slice_text(c->session);
}

struct slice world_connection_tags(const struct world_connection *c)
{
    return strbuf_slice(&c->tags);
}

bool world_connection_open(const struct world_connection *c, unsigned *code, struct slice *reason)
{
    if (c->open)
        return true;
    *code = c->close_code;
    *reason = strbuf_slice(&c->close_reason);
    return false;
}

bool world_connection_take(struct world_connection *c, struct strbuf *message)
{
    if (c->given == c->received.count)
        return false;
    struct strbuf *next = &VEC_AT(&c->received, struct strbuf)[c->given++];
    *message = *next;
    *next = (struct strbuf){0};
    return true;
}

bool world_receive(struct world *w, struct world_connection *c, struct slice frame, bool text)
{
    if (!c->open)
        return false;
    if (text && c->auto_response.size > 0 && slice_equal(frame, strbuf_slice(&c->auto_request))) {
        received_put(c, strbuf_slice(&c->auto_response));
        return true;
    }
    struct world_input *in = VEC_PUSH(&c->inputs, struct world_input);
    *in = (struct world_input){.counter = ++c->said, .flags = text ? EVENT_UTF8 : 0};
    strbuf_put_slice(&in->frame, frame);
    struct message m = message_of(c, MSG_INPUT);
    m.input.session = slice_text(c->session);
    m.input.counter = in->counter;
    m.input.flags = in->flags;
    m.input.frame = frame;
    if (!c->stalled)
        gateway_send(w, &m);
    world_pump(w);
    return true;
}

void world_leave(struct world *w, struct world_connection *c, unsigned code, struct slice reason)
{
    if (!c->open)
        return;
    connection_end(c, code, reason);
    leave_send(w, c, code, reason, code != 1006);
    world_pump(w);
}
