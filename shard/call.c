/* CORE. What is asked of a room from outside: direct sends, broadcasts, methods, its state, its
 * connections, its alarm. What has an id and changes something is answered again, not done again.
 *
 * The answer of a done call, as its row has it: u32 status, u32 size of tag, u32 size of text, tag,
 * text, JSON; little-endian. */
#include "shard/actor.h"
#include "shard/quarantine.h"

#include "common/json.h"
#include "proto/typed.h"
#include "proto/wire.h"

/* ---- answers that are kept ---- */

static void done_keep(struct shard *s, const struct task *t, const struct fault *fault,
                      struct slice json)
{
    if (!dedupe_is_id(t->msg_id))
        return;
    struct slice tag = slice_text(fault ? fault->tag : "");
    struct slice text = fault ? fault_text(fault) : (struct slice){0};
    strbuf_reset(&s->row);
    uint8_t *head = strbuf_reserve(&s->row, 12);
    wire_put_le32(head, fault ? fault_status(fault) : 0);
    wire_put_le32(head + 4, (uint32_t)tag.size);
    wire_put_le32(head + 8, (uint32_t)text.size);
    strbuf_commit(&s->row, 12);
    strbuf_put_slice(&s->row, tag);
    strbuf_put_slice(&s->row, text);
    strbuf_put_slice(&s->row, json);
    done_add(s, t->actor->room, t->msg_id, strbuf_slice(&s->row));
}

static void answer_again(struct shard *s, const struct task *t, const struct done *done)
{
    struct fault fault = {0};
    struct slice value, json = {0};
    bool sound = done_read(s, done, &s->row) && s->row.size >= 12;
    value = strbuf_slice(&s->row);
    size_t tag = sound ? wire_get_le32(value.data + 4) : 0;
    size_t text = sound ? wire_get_le32(value.data + 8) : 0;
    if (!sound || value.size - 12 < tag || value.size - 12 - tag < text) {
        fault_set(&fault, "RoomError", "it was done, but its answer is lost");
    } else {
        const uint8_t *at = value.data + 12;
        json = slice_of(at + tag + text, value.size - 12 - tag - text);
        fault.status = wire_get_le32(value.data);
        if (fault.status != 0) {
            memcpy(fault.tag, at, tag < sizeof fault.tag ? tag : sizeof fault.tag - 1);
            strbuf_put(&fault.message, at + tag, text);
        }
    }
    reply_result(s, t, fault.tag[0] ? &fault : NULL, json, false, true);
    fault_free(&fault);
}

/* The run of the same call, which waits: it answers whoever asked last. */
static bool still_runs(const struct task *t)
{
    const struct actor *a = t->actor;
    LIST_EACH(at, after, &a->waiting)
    {
        struct task *other = &LIST_ENTRY(at, struct waiting, in_actor)->task;
        if (other->kind != TASK_CALL || memcmp(other->msg_id, t->msg_id, sizeof t->msg_id) != 0)
            continue;
        other->asker = t->asker;
        return true;
    }
    return false;
}

/* ---- ends of runs ---- */

void call_item(struct shard *s, struct task *t, struct slice item)
{
    if (t->what.streams) {
        reply_result(s, t, NULL, item, true, false);
        return;
    }
    strbuf_put_byte(&t->items, t->items.size == 0 ? '[' : ',');
    strbuf_put_slice(&t->items, item);
}

void call_ended(struct shard *s, struct task *t, const struct fault *fault, struct slice result)
{
    struct fault large = {0};
    if (!fault && t->items.size > 0) {
        if (result.size > 0)
            call_item(s, t, result);
        strbuf_put_byte(&t->items, ']');
        result = strbuf_slice(&t->items);
    }
    if (fault)
        result = strbuf_slice(&fault->data);
    if (result.size > BODY_MAX_BYTES) {
        fault_set(&large, "RoomError", "the answer has %zu bytes, not %d", result.size,
                  BODY_MAX_BYTES);
        fault = &large;
        result = (struct slice){0};
    }
    reply_result(s, t, fault, result, false, false);
    done_keep(s, t, fault, result);
    fault_free(&large);
}

/* ---- reads ---- */

static void answer_state(struct shard *s, struct task *t, struct room *room)
{
    const struct store_vtable *store = s->store->vtable;
    struct slice state = slice_text("null"), value;
    unsigned version;
    if (room->actor || room->rows == 0) {
        if (room->actor && room->actor->has_state)
            state = strbuf_slice(&room->actor->state);
        reply_result(s, t, NULL, state, false, false);
        return;
    }
    int code = store->read_begin(s->store);
    STOA_ASSERT(code == ERR_OK);
    code = store->read_row(s->store, TABLE_STATE, room->room_id, (struct slice){0}, &value);
    if (code == ERR_OK)
        (void)row_state(value, &version, &state);
    struct fault fault = {0};
    if (code != ERR_OK && code != ERR_NOT_FOUND)
        fault_set(&fault, "RoomError", "the state is damaged");
    reply_result(s, t, fault.tag[0] ? &fault : NULL, fault.tag[0] ? (struct slice){0} : state,
                 false, false);
    fault_free(&fault);
    store->read_end(s->store);
}

static void answer_connections(struct shard *s, struct task *t, struct room *room, struct slice tag)
{
    struct strbuf *out = &s->row;
    const struct actor *a = room->actor || room->rows > 0 ? actor_wake(s, room) : NULL;
    strbuf_reset(out);
    strbuf_put_byte(out, '[');
    for (size_t i = 0; a && i < a->connections.count; i++) {
        const struct connection *c = VEC_AT(&a->connections, struct connection *)[i];
        bool shown = !c->closing && !c->gone && !c->joining;
        if (!shown || (tag.size > 0 && !connection_has_tag(c, tag)))
            continue;
        strbuf_put_text(out, out->size > 1 ? ",{\"id\":" : "{\"id\":");
        json_quote(out, strbuf_slice(&c->id));
        strbuf_put_text(out, ",\"tags\":");
        strbuf_put_slice(out, strbuf_slice(&c->tags_json));
        strbuf_put_text(out, ",\"state\":");
        strbuf_put_slice(out, strbuf_slice(&c->state));
        strbuf_put_byte(out, '}');
    }
    strbuf_put_byte(out, ']');
    struct fault fault = {0};
    if (out->size > BODY_MAX_BYTES)
        fault_set(&fault, "RoomError", "too many connections for one answer: ask by tag");
    bool large = fault.tag[0] != '\0';
    reply_result(s, t, large ? &fault : NULL, large ? (struct slice){0} : strbuf_slice(out), false,
                 false);
    fault_free(&fault);
}

static void answer_presence(struct shard *s, struct task *t, struct room *room)
{
    struct strbuf *out = &s->row;
    struct fault fault = {0};
    const struct actor *a = room->actor || room->rows > 0 ? actor_wake(s, room) : NULL;
    strbuf_reset(out);
    if (!presence_counted(s, room))
        fault_set(&fault, "RoomError", "the shard's configuration has no presence for this type");
    else if (!a)
        strbuf_put_text(out, "[]");
    else if (presence_put(s, a, BODY_MAX_BYTES - 2, out) > 0)
        fault_set(&fault, "RoomError", "too many members for one answer");
    bool wrong = fault.tag[0] != '\0';
    reply_result(s, t, wrong ? &fault : NULL, wrong ? (struct slice){0} : strbuf_slice(out), false,
                 false);
    fault_free(&fault);
}

/* ---- what changes something ---- */

static void broadcast(struct shard *s, struct task *t)
{
    struct fault fault = {0};
    struct segment g;
    segment_begin(&g);
    struct context ctx = actor_context(s, t->actor, &g);
    const struct recipients everybody = {0};
    bool fine = json_valid(t->what.input);
    if (!fine)
        fault_set(&fault, "RoomValidationError", "the message is not JSON");
    else
        fine = handler_admits(t->actor->handler, BOUNDARY_BROADCAST, t->what.input,
                              "RoomValidationError", &fault);
    t->actor->segment = &g;
    fine = fine && context_broadcast(&ctx, t->what.input, &everybody, &fault);
    t->actor->segment = NULL;
    if (fine)
        segment_apply(s, t, &g);
    call_ended(s, t, fine ? NULL : &fault, (struct slice){0});
    segment_free(&g);
    fault_free(&fault);
}

/* A typed input in its parts; one that is none stays as it is. */
static void input_read(struct invocation *what, const struct msg_call *m)
{
    what->input = m->input;
    if (!(m->streams & CALL_TYPED) || typed_check(m->input) != NULL)
        return;
    struct typed t = typed_read(m->input);
    what->input = t.json.raw;
    what->meta = t.meta.raw;
}

static void change(struct shard *s, struct task *t, const struct msg_call *m)
{
    t->what = (struct invocation){.method = m->name,
                                  .streams = (m->streams & CALL_STREAMS) && t->asker.peer != 0};
    input_read(&t->what, m);
    actor_touch(s, t->actor);
    switch (m->verb) {
    case VERB_SEND:
        t->what.phase = PHASE_EVENT;
        break;
    case VERB_METHOD:
        t->what.phase = PHASE_CALL;
        break;
    case VERB_ALARM:
        t->what.phase = PHASE_ALARM;
        alarm_take(s, t->actor);
        break;
    default:
        broadcast(s, t);
        return;
    }
    segment_run(s, t);
}

static bool runs_code(enum call_verb verb)
{
    return verb == VERB_SEND || verb == VERB_METHOD || verb == VERB_ALARM;
}

static void answer_quarantined(struct shard *s, const struct task *t)
{
    struct fault fault = {0};
    quarantine_fault(&fault);
    reply_result(s, t, &fault, (struct slice){0}, false, false);
    fault_free(&fault);
}

/* Too many from outside; what siblings ask was asked of them by somebody whom their rate let. */
static bool over_rate(struct shard *s, const struct op *op)
{
    uint64_t retry_ms;
    bool by_sibling = op->waiter != 0 || op->call.chain.size > 0;
    if (by_sibling || op->call.verb == VERB_ALARM || room_rate_take(s, op->room, 1, &retry_ms))
        return false;
    struct answer *a = turn_answer(s, op);
    a->kind = ANSWER_NACK;
    a->code = NACK_RATE;
    a->retry_ms = retry_ms;
    return true;
}

void call_decide(struct shard *s, struct op *op)
{
    struct room *room = op->room;
    const struct msg_call *m = &op->call;
    struct actor nobody = {.room = room};
    struct task t = {.kind = TASK_CALL,
                     .actor = &nobody,
                     .packet = op->packet,
                     .asker = op->asker,
                     .waiter = op->waiter,
                     .chain = m->chain};
    memcpy(t.msg_id, m->msg_id, sizeof t.msg_id);
    if (m->verb == VERB_STATE) {
        answer_state(s, &t, room);
        return;
    }
    if (m->verb == VERB_CONNECTIONS) {
        answer_connections(s, &t, room, m->name);
        return;
    }
    if (m->verb == VERB_PRESENCE) {
        answer_presence(s, &t, room);
        return;
    }
    const struct done *done = dedupe_is_id(t.msg_id) ? done_find(s, room, t.msg_id) : NULL;
    if (done) {
        answer_again(s, &t, done);
        return;
    }
    if (runs_code((enum call_verb)m->verb) && room_quarantined(s, room)) {
        answer_quarantined(s, &t);
        return;
    }
    if (!s->has_space) {
        actors_refuse(s, op, NACK_DISK);
        return;
    }
    if (m->verb == VERB_RELEASE) {
        bool was = quarantine_release(s, room);
        reply_result(s, &t, NULL, slice_text(was ? "true" : "false"), false, false);
        return;
    }
    if (room->actor) {
        t.actor = room->actor;
        if (dedupe_is_id(t.msg_id) && still_runs(&t))
            return;
    }
    if (over_rate(s, op))
        return;
    t.actor = actor_wake(s, room);
    change(s, &t, m);
}
