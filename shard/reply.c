/* CORE. What rooms with handlers say to gateways: built while the turn is decided, with bytes of
 * its own, and let out behind the commit. If the turn fails, a JOINED or RESULT becomes NACK DISK,
 * an INPUT_ACK says what was on disk before, and a CLOSE was never meant. */
#include "shard/actor.h"

#include "common/mutant.h"
#include "common/utf8.h"

#define TEXT_MAX_BYTES 1024

/* ---- faults, as others see them ---- */

unsigned fault_status(const struct fault *f)
{
    static const struct {
        const char *tag;
        unsigned status;
    } known[] = {
        {"RoomValidationError", 400},
        {"RoomNotFoundError", 404},
        {"NoSuchMethod", 404},
        {"Duplicate", 409},
        {"NoHandler", 409},
        {"RoomFull", 409},
        {"TooLarge", 413},
        {"RateLimited", 429},
        {"AttachmentTooLargeError", 413},
    };
    if (f->status != 0)
        return f->status;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].tag, f->tag) == 0)
            return known[i].status;
    }
    return 500;
}

struct slice fault_text(const struct fault *f)
{
    struct slice text = strbuf_slice(&f->message);
    if (strcmp(f->tag, "RoomExecutionError") == 0)
        return slice_text("the room's handler failed");
    if (!utf8_valid(text))
        return slice_text("the message is not text");
    while (text.size > TEXT_MAX_BYTES || !utf8_valid(text))
        text.size = text.size > TEXT_MAX_BYTES ? TEXT_MAX_BYTES : text.size - 1;
    return text;
}

/* ---- building ---- */

static struct reply *reply_create(uint64_t type, const struct room *room, uint64_t cid, size_t size)
{
    struct reply *r = (struct reply *)mem_alloc(sizeof *r + size);
    *r = (struct reply){.m = {.type = type, .cid = cid, .slot = room->slot}, .size = size};
    return r;
}

static struct slice reply_keep(struct reply *r, struct slice text)
{
    STOA_ASSERT(text.size <= r->size - r->used);
    uint8_t *at = r->bytes + r->used;
    if (text.size > 0)
        memcpy(at, text.data, text.size);
    r->used += text.size;
    return slice_of(at, text.size);
}

void reply_joined(struct shard *s, struct room *room, struct asker asker, struct slice session,
                  const struct connection *c, const struct fault *fault)
{
    struct slice tag = slice_text(fault ? fault->tag : "");
    struct slice text = fault ? fault_text(fault) : (struct slice){0};
    struct slice id = c ? strbuf_slice(&c->id) : (struct slice){0};
    struct slice tags = c ? strbuf_slice(&c->tags_json) : (struct slice){0};
    struct strbuf members = {0};
    if (c && c->wants_members && presence_counted(s, room))
        presence_list(s, c->actor, &members);
    struct reply *r =
        reply_create(MSG_JOINED, room, asker.cid,
                     session.size + tag.size + text.size + id.size + tags.size + members.size);
    struct msg_joined *j = &r->m.joined;
    j->session = reply_keep(r, session);
    j->tag = reply_keep(r, tag);
    j->text = reply_keep(r, text);
    j->id = reply_keep(r, id);
    j->tags = reply_keep(r, tags);
    j->status = fault ? fault_status(fault) : 0;
    j->head = c && c->head < room->head && !STOA_MUTANT(JOIN_HEAD_LATE) ? c->head : room->head;
    j->counter = c && !STOA_MUTANT(INPUT_AGAIN) ? c->counter : 0;
    j->members_seq = room->head;
    j->members = reply_keep(r, strbuf_slice(&members));
    strbuf_free(&members);
    if (c) { /* the handler outlives the turn */
        const struct handler_traits *traits = &c->actor->handler->traits;
        j->auto_request = strbuf_slice(&traits->auto_request);
        j->auto_response = strbuf_slice(&traits->auto_response);
    }
    (void)turn_reply(s, room, asker, r);
}

void reply_result(struct shard *s, const struct task *t, const struct fault *fault,
                  struct slice json, bool more, bool dup)
{
    if (t->asker.peer == 0 && t->waiter == 0)
        return;
    struct slice tag = slice_text(fault ? fault->tag : "");
    struct slice text = fault ? fault_text(fault) : (struct slice){0};
    struct reply *r =
        reply_create(MSG_RESULT, t->actor->room, t->asker.cid, tag.size + text.size + json.size);
    r->waiter = t->waiter;
    r->m.result.status = fault ? fault_status(fault) : 0;
    r->m.result.more = more;
    r->m.result.dup = dup;
    r->m.result.tag = reply_keep(r, tag);
    r->m.result.text = reply_keep(r, text);
    r->m.result.json = reply_keep(r, json);
    (void)turn_reply(s, t->actor->room, t->asker, r);
}

void reply_close_session(struct shard *s, struct room *room, struct asker asker,
                         struct slice session, unsigned code, struct slice reason)
{
    struct reply *r = reply_create(MSG_CLOSE, room, 0, session.size + reason.size);
    r->m.close.session = reply_keep(r, session);
    r->m.close.code = code;
    r->m.close.reason = reply_keep(r, reason);
    (void)turn_reply(s, room, asker, r);
}

void reply_close(struct shard *s, const struct connection *c, unsigned code, struct slice reason)
{
    struct asker asker = {.peer = c->peer, .life = c->life};
    if (c->peer != 0)
        reply_close_session(s, c->actor->room, asker, member_session(c), code, reason);
}

static void ack_add(struct shard *s, const struct connection *c, enum nack_code code)
{
    struct asker asker = {.peer = c->peer, .life = c->life};
    struct reply *r = reply_create(MSG_INPUT_ACK, c->actor->room, 0, c->session_size);
    r->m.input_ack.session = reply_keep(r, member_session(c));
    r->m.input_ack.counter = c->counter;
    r->m.input_ack.code = code;
    r->durable = c->durable;
    (void)turn_reply(s, c->actor->room, asker, r);
}

/* One a turn and connection: the last one counts. */
void reply_ack(struct shard *s, struct connection *c, enum nack_code code)
{
    struct vec *answers = &s->turn.answers;
    if (c->ack_turn == s->turns) {
        struct reply *r = VEC_AT(answers, struct answer)[c->ack - 1].reply;
        r->m.input_ack.counter = c->counter;
        r->m.input_ack.code = code;
        return;
    }
    ack_add(s, c, code);
    c->ack_turn = s->turns;
    c->ack = (uint32_t)answers->count;
}

/* Each has one of its own: what came before it is acknowledged, and it is not. */
void reply_refused(struct shard *s, struct connection *c)
{
    ack_add(s, c, NACK_RATE);
    c->ack_turn = 0;
}

/* ---- letting out ---- */

bool reply_fails(struct reply *reply)
{
    struct message *m = &reply->m;
    if (m->type == MSG_CLOSE) {
        m->type = 0;
        return true;
    }
    if (m->type == MSG_INPUT_ACK) {
        m->input_ack.counter = reply->durable;
        m->input_ack.code = NACK_DISK;
        return true;
    }
    if (reply->waiter == 0)
        return false;
    m->result.status = 503;
    m->result.tag = slice_text("RoomError");
    m->result.text = slice_text("the shard has no space");
    return true;
}

void fault_of_result(const struct msg_result *result, struct fault *out)
{
    size_t size = result->tag.size < sizeof out->tag ? result->tag.size : sizeof out->tag - 1;
    if (size > 0)
        memcpy(out->tag, result->tag.data, size);
    out->status = (unsigned)result->status;
    strbuf_put_slice(&out->message, result->text);
    strbuf_put_slice(&out->data, result->json);
}

static void tell_run(struct shard *s, const struct reply *r)
{
    const struct msg_result *result = &r->m.result;
    struct fault fault = {0};
    if (result->status != 0)
        fault_of_result(result, &fault);
    wait_answer(s, r->waiter, result->status ? &fault : NULL, result->json);
    fault_free(&fault);
}

void reply_send(struct shard *s, const struct answer *a)
{
    struct reply *r = a->reply;
    if (r->waiter != 0) {
        tell_run(s, r);
        return;
    }
    if (r->m.type == 0 || !asker_is_there(s, a->asker))
        return;
    r->m.ep = s->slot_epoch[a->room->slot];
    r->m.key = room_key(a->room);
    if (r->m.type == MSG_JOINED)
        r->m.joined.room_epoch = a->room->epoch;
    hub_send(s->hub, a->asker.peer, &r->m);
}
