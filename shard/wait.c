/* CORE. Runs that wait: for a time, or for the answer of a sibling.
 *
 * The segment before the wait is applied and goes with its turn; once that is on disk the sibling's
 * FIFO gets the call, like any other, or a router does if the sibling lies on another shard, and
 * its answer comes back behind its own commit. A call that has surely not run, because no router is
 * there or none knows the owner yet, is sent again until the time is up. Then the run goes on as an
 * op at the front of its room's FIFO. A room that is `exclusive` does nothing else meanwhile. */
#include "shard/actor.h"
#include "shard/quarantine.h"

#include "common/utf8.h"

#define CHAIN_ROOMS_MAX 8    /* that a call may have come through */
#define CHAIN_MAX_BYTES 2056 /* of CALL */
#define SIBLING_WAIT_NS (5 * NS_PER_S)
#define SIBLING_AGAIN_NS (100 * NS_PER_MS)
#define NO_SPACE_NS (200 * NS_PER_MS)

/* ---- the call to a sibling ---- */

static struct op *sibling_op(const struct task *t, struct segment *g, struct slice *key)
{
    static const uint64_t verbs[] = {[SIBLING_SEND] = VERB_SEND,
                                     [SIBLING_STATE] = VERB_STATE,
                                     [SIBLING_BROADCAST] = VERB_BROADCAST,
                                     [SIBLING_CALL] = VERB_METHOD};
    struct strbuf all = {0};
    strbuf_put_slice(&all, strbuf_slice(&g->sibling_key));
    strbuf_put_slice(&all, strbuf_slice(&g->sibling_method));
    strbuf_put_slice(&all, strbuf_slice(&g->sibling_input));
    size_t chain_at = all.size;
    strbuf_put_slice(&all, t->chain);
    if (t->chain.size > 0)
        strbuf_put_byte(&all, '\n');
    strbuf_put_slice(&all, room_key(t->actor->room));
    struct buf *packet = buf_copy_slice(strbuf_slice(&all));
    strbuf_free(&all);
    const uint8_t *at = packet->data;
    size_t method = g->sibling_key.size, input = method + g->sibling_method.size;
    struct op *op = op_create(0);
    op->kind = OP_CALL;
    op->packet = packet;
    op->bytes = (uint32_t)g->sibling_input.size;
    op->call.verb = verbs[g->verb];
    op->call.name = slice_of(at + method, g->sibling_method.size);
    op->call.input = slice_of(at + input, g->sibling_input.size);
    op->call.chain = slice_of(at + chain_at, packet->size - chain_at);
    *key = slice_of(at, g->sibling_key.size);
    return op;
}

static size_t chain_rooms(struct slice chain)
{
    size_t rooms = chain.size > 0;
    for (size_t i = 0; i < chain.size; i++)
        rooms += chain.data[i] == '\n';
    return rooms;
}

/* Whether one of the chain's lines is this key. */
static bool chain_has(struct slice chain, struct slice key)
{
    while (chain.size > 0) {
        const uint8_t *end = (const uint8_t *)memchr(chain.data, '\n', chain.size);
        size_t size = end ? (size_t)(end - chain.data) : chain.size;
        if (slice_equal(slice_of(chain.data, size), key))
            return true;
        chain = slice_of(chain.data + size + (end != NULL), chain.size - size - (end != NULL));
    }
    return false;
}

bool wait_is_reentrant(const struct room *room, struct slice chain)
{
    return room->held && chain_has(chain, room_key(room));
}

static const char reentrant[] = "reentrant: the room waits for this very call";

static bool may_call(struct shard *s, struct waiting *w, uint16_t *slot)
{
    const struct message asked = {.slot = SLOT_UNKNOWN, .key = w->sibling};
    enum nack_code code = slot_check(s, &asked, slot);
    struct slice chain = w->call->call.chain;
    if (code != NACK_NONE && code != NACK_NOTOWNER)
        fault_set(&w->fault, "RoomError", "the room cannot be called: %s", nack_name(code));
    else if (chain_rooms(chain) > CHAIN_ROOMS_MAX || chain.size > CHAIN_MAX_BYTES)
        fault_set(&w->fault, "RoomError", "the call came through %d rooms already",
                  CHAIN_ROOMS_MAX);
    if (w->fault.tag[0] != '\0' || code == NACK_NOTOWNER)
        return w->fault.tag[0] == '\0';
    const struct room *room = rooms_find(s, w->sibling);
    if (room && !fifo_has_room(room, w->call->bytes))
        fault_set(&w->fault, "RoomError", "the room is busy");
    else if (room && wait_is_reentrant(room, w->call->call.chain))
        fault_set(&w->fault, "RoomError", "%s", reentrant);
    return w->fault.tag[0] == '\0';
}

/* Through any router: it knows the owner. */
static bool call_afar(struct shard *s, struct waiting *w, uint16_t slot)
{
    uint32_t peer = hub_next_up(s->hub, 0);
    while (peer != 0 && (!s->clients[peer] || s->clients[peer]->role != ROLE_ROUTER))
        peer = hub_next_up(s->hub, peer);
    if (peer == 0) {
        fault_set(&w->fault, "RoomError", "not on this shard, and no router is connected");
        w->fault.status = 503;
        return false;
    }
    struct message m = {.type = MSG_CALL, .cid = w->number, .slot = slot, .key = w->sibling};
    m.call = w->call->call;
    hub_send(s->hub, peer, &m);
    return true;
}

/* ---- waiting ---- */

static void resume_push(struct shard *s, struct waiting *w)
{
    if (w->answered)
        return;
    w->answered = true;
    heap_remove(&s->waits_due, &w->due);
    struct op *op = op_create(0);
    op->kind = OP_RESUME;
    op->waiter = w->number;
    fifo_push_front(&s->ready, w->task.actor->room, op);
}

void wait_start(struct shard *s, struct task *t, struct segment *g, struct run *run)
{
    struct actor *a = t->actor;
    struct waiting *w = (struct waiting *)mem_zalloc(sizeof *w);
    w->task = *t;
    t->items = (struct strbuf){0};
    if (t->packet)
        (void)buf_ref(t->packet);
    w->run = run;
    w->number = ++s->last_wait & UINT32_MAX; /* it is the cid of a call that goes afar */
    w->is_sleep = g->wait != WAIT_SIBLING;
    list_init(&w->in_actor);
    list_push_back(&a->waiting, &w->in_actor);
    map_put(s->waits, map_id(&w->number), w);
    if (!w->is_sleep) {
        w->call = sibling_op(t, g, &w->sibling);
        w->call->waiter = w->number;
    }
    w->until_ns = s->now.mono_ns + (w->is_sleep ? g->sleep_ms * NS_PER_MS : SIBLING_WAIT_NS);
    heap_set(&s->waits_due, &w->due, w->until_ns);
    a->room->held = a->handler->traits.exclusive;
}

static void call_later(struct shard *s, struct waiting *w)
{
    int64_t again_ns = s->now.mono_ns + SIBLING_AGAIN_NS;
    heap_set(&s->waits_due, &w->due, again_ns < w->until_ns ? again_ns : w->until_ns);
}

static void call_go(struct shard *s, struct waiting *w)
{
    uint16_t slot;
    w->called = true;
    fault_free(&w->fault); /* why the last attempt did not get there */
    heap_set(&s->waits_due, &w->due, w->until_ns);
    if (!may_call(s, w, &slot)) {
        resume_push(s, w);
    } else if (slot_owned(s, slot)) {
        struct op *call = w->call;
        w->call = NULL;
        fifo_push(&s->ready, rooms_open(s, w->sibling, slot), call);
        w->sibling = (struct slice){0};
    } else if (!call_afar(s, w, slot)) {
        call_later(s, w);
    }
}

void wait_go(struct shard *s, struct actor *a)
{
    LIST_EACH(at, after, &a->waiting)
    {
        struct waiting *w = LIST_ENTRY(at, struct waiting, in_actor);
        if (w->call && !w->called && !w->answered)
            call_go(s, w);
    }
}

void wait_is_due(struct shard *s, struct waiting *w)
{
    if (w->call && w->called && !w->ready && s->now.mono_ns < w->until_ns) {
        call_go(s, w);
        return;
    }
    if (!w->is_sleep && !w->ready && w->fault.tag[0] == '\0')
        fault_set(&w->fault, "RoomError", "the room did not answer in time");
    resume_push(s, w);
}

void wait_answer(struct shard *s, uint64_t number, const struct fault *fault, struct slice value)
{
    struct waiting *w = (struct waiting *)map_get(s->waits, map_id(&number));
    if (!w || w->answered)
        return; /* too late, or gone with its room */
    w->ready = true;
    if (fault) {
        fault_set(&w->fault, fault->tag, "%.*s", SLICE_FMT(strbuf_slice(&fault->message)));
        w->fault.status = fault->status;
        strbuf_put_slice(&w->fault.data, strbuf_slice(&fault->data));
    } else {
        fault_free(&w->fault);
        strbuf_put_slice(&w->value, value);
    }
    resume_push(s, w);
}

void wait_refuse_reentrant(struct shard *s, uint32_t peer, const struct message *m)
{
    struct message reply = {
        .type = MSG_RESULT, .cid = m->cid, .slot = m->slot, .ep = m->ep, .key = m->key};
    reply.result.status = 500;
    reply.result.tag = slice_text("RoomError");
    reply.result.text = slice_text(reentrant);
    hub_send(s->hub, peer, &reply);
}

/* It has not run, and soon it might. */
static bool is_transient(uint64_t nack_code)
{
    return nack_code == NACK_NOTOWNER || nack_code == NACK_BUSY;
}

static void call_refused(struct shard *s, uint64_t number, uint64_t code)
{
    struct waiting *w = (struct waiting *)map_get(s->waits, map_id(&number));
    if (!w || w->answered)
        return;
    fault_set(&w->fault, "RoomError", "the room's shard refused the call: %s", nack_name(code));
    w->fault.status = 503;
    if (w->call && is_transient(code)) {
        call_later(s, w);
    } else {
        w->ready = true;
        resume_push(s, w);
    }
}

void wait_from_afar(struct shard *s, const struct message *m)
{
    struct fault fault = {0};
    if (m->type == MSG_NACK) {
        call_refused(s, m->cid, m->nack.code);
        return;
    }
    if (m->result.status != 0)
        fault_of_result(&m->result, &fault);
    wait_answer(s, m->cid, fault.status ? &fault : NULL,
                fault.status ? (struct slice){0} : m->result.json);
    fault_free(&fault);
}

/* ---- its end ---- */

void wait_free(struct shard *s, struct waiting *w)
{
    struct actor *a = w->task.actor;
    struct connection *c = w->task.connection;
    if (w->run) {
        watch_enter(s, a->room, "abandon");
        a->handler->vtable->abandon(a->handler, &w->run);
        watch_leave(s, a->room, PHASE_COUNT);
    }
    list_remove(&w->in_actor);
    (void)map_remove(s->waits, map_id(&w->number));
    heap_remove(&s->waits_due, &w->due);
    if (w->call)
        op_destroy(w->call);
    if (c && c->gone)
        member_touch(c); /* nothing keeps it any more */
    buf_unref(w->task.packet);
    strbuf_free(&w->task.items);
    strbuf_free(&w->value);
    fault_free(&w->fault);
    mem_free(w);
}

void wait_decide(struct shard *s, struct op *op)
{
    struct waiting *w = (struct waiting *)map_get(s->waits, map_id(&op->waiter));
    if (!w)
        return;
    w->answered = false;
    if (!s->has_space || room_quarantined(s, w->task.actor->room)) {
        w->ready = true;
        heap_set(&s->waits_due, &w->due, s->now.mono_ns + NO_SPACE_NS);
        return;
    }
    struct actor *a = w->task.actor;
    struct task t = w->task;
    struct run *run = w->run;
    const struct wake wake = {.fault = w->fault.tag[0] ? &w->fault : NULL,
                              .value = strbuf_slice(&w->value)};
    actor_touch(s, a);
    w->run = NULL;
    w->task.items = (struct strbuf){0};
    list_remove(&w->in_actor);
    a->room->held = false;
    segment_resume(s, &t, run, &wake);
    wait_free(s, w);
}
