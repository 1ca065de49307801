/* CORE. The life of calls, see caller.h. */
#include "client/caller.h"

#include "common/hash.h"
#include "common/json.h"
#include "common/map.h"
#include "common/mem.h"
#include "common/mutant.h"
#include "common/rng.h"

#define PAUSE_WISH_MAX_MS 60000
#define SHIFT_MAX 6

struct caller {
    struct hub *hub;
    struct rng rng;
    struct tick now;
    uint32_t router; /* 0: none is up */
    uint64_t last_cid;
    size_t pending, in_flight, in_flight_bytes;
    struct map *flying;                  /* by cid */
    struct list queued, flights, paused; /* calls; flights: in the order of sending */
    struct list items, done;
    struct heap deadlines, timers;
};

static struct call *call_of(struct list *node)
{
    return LIST_ENTRY(node, struct call, node);
}

struct caller *caller_create(struct hub *hub, uint64_t seed)
{
    struct caller *c = mem_zalloc(sizeof *c);
    c->hub = hub;
    rng_seed(&c->rng, seed);
    c->flying = map_create(rng_u64(&c->rng));
    list_init(&c->queued);
    list_init(&c->flights);
    list_init(&c->paused);
    list_init(&c->items);
    list_init(&c->done);
    return c;
}

void caller_destroy(struct caller **caller)
{
    struct caller *c = *caller;
    if (!c)
        return;
    *caller = NULL;
    STOA_ASSERT(c->pending == 0 && list_empty(&c->done) && list_empty(&c->items));
    map_destroy(&c->flying);
    heap_free(&c->deadlines);
    heap_free(&c->timers);
    mem_free(c);
}

size_t caller_pending(const struct caller *c)
{
    return c->pending;
}

size_t caller_in_flight(const struct caller *c)
{
    return c->in_flight;
}

struct list *caller_items(struct caller *c)
{
    return &c->items;
}

struct list *caller_done(struct caller *c)
{
    return &c->done;
}

/* ---- from one state to the next ---- */

static void flight_begin(struct caller *c, struct call *call)
{
    do
        c->last_cid = (c->last_cid + 1) % CALLER_CID;
    while (map_get(c->flying, map_id(&(uint64_t){CALLER_CID | c->last_cid})));
    call->cid = CALLER_CID | c->last_cid;
    map_put(c->flying, map_id(&call->cid), call);
    c->in_flight++;
    c->in_flight_bytes += call->wire_bytes;
}

static void flight_end(struct caller *c, struct call *call)
{
    if (call->cid == 0)
        return;
    (void)map_remove(c->flying, map_id(&call->cid));
    call->cid = 0;
    c->in_flight--;
    c->in_flight_bytes -= call->wire_bytes;
}

/* Out of the state that it is in, and at the end of `list`. */
static void enter(struct caller *c, struct call *call, enum call_state state, struct list *list)
{
    if (state != CALL_FLYING)
        flight_end(c, call);
    heap_remove(&c->timers, &call->timer);
    list_remove(&call->node);
    list_push_back(list, &call->node);
    call->state = state;
}

static void finish(struct caller *c, struct call *call, int status, stoa_result *result)
{
    enter(c, call, CALL_DONE, &c->done);
    heap_remove(&c->deadlines, &call->deadline);
    call->status = status;
    call->result = result;
    c->pending--;
}

/* An end that no room has said. */
static void fail(struct caller *c, struct call *call, int status, const char *tag,
                 const char *message)
{
    static const struct {
        const char *tag;
        unsigned status;
    } known[] = {{"BadRequest", 400},  {"Forbidden", 403}, {"TooLarge", 413},
                 {"RateLimited", 429}, {"RoomError", 500}, {"RoomExecutionError", 500},
                 {"Unknown", 504}};
    unsigned http = 503;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].tag, tag) == 0)
            http = known[i].status;
    finish(c, call, status,
           call_result(http, false, slice_text(tag), slice_text(message), slice_of(NULL, 0)));
}

/* It has no answer and gets none any more. */
static void give_up(struct caller *c, struct call *call)
{
    bool maybe = call->cid != 0 || call->uncertain;
    if (maybe && !call_only_reads(call))
        fail(c, call, STOA_UNKNOWN, "Unknown",
             call->has_id ? "no answer in time; it may have run: call again with the same "
                            "idempotency key to learn it"
                          : "no answer in time; it may have run, and without an idempotency key "
                            "another call runs it anew");
    else if (call->nack == NACK_DISK)
        fail(c, call, STOA_DISK, "DiskFull", "the shard's disk is full; nothing was changed");
    else if (call->nack == NACK_RATE)
        fail(c, call, STOA_TIMEOUT, "RateLimited",
             "the room had more than its rate allows; nothing has run, ask more slowly");
    else if (call->nack == NACK_BUSY)
        fail(c, call, STOA_TIMEOUT, "Busy", "the room is busy; nothing has run, try later");
    else
        fail(c, call, STOA_TIMEOUT, "Moving",
             "no shard answers for this key just now; nothing has run, try later");
}

/* ---- sending ---- */

static void transmit(struct caller *c, struct call *call)
{
    struct message m = {
        .type = call->type, .cid = call->cid, .slot = SLOT_UNKNOWN, .key = call->key};
    if (call->type == MSG_CLOSE) {
        m.close.code = call->close_code;
        m.close.reason = slice_text("closed by request");
    } else if (call->type == MSG_CALL) {
        m.call.verb = call->verb;
        memcpy(m.call.msg_id, call->msg_id, sizeof m.call.msg_id);
        m.call.name = call->name;
        m.call.streams = call->on_item != NULL;
        m.call.input = call->input;
    }
    heap_set(&c->timers, &call->timer, c->now.mono_ns + CALL_SILENCE_MS * NS_PER_MS);
    hub_send(c->hub, c->router, &m);
}

/* The window lets one through when nothing is in flight, however large. */
static bool may_send(const struct caller *c)
{
    if (c->router == 0 || list_empty(&c->queued) || c->in_flight >= CALLS_IN_FLIGHT_MAX)
        return false;
    size_t next = LIST_ENTRY(c->queued.next, struct call, node)->wire_bytes;
    return c->in_flight == 0 || c->in_flight_bytes + next <= CALL_BYTES_IN_FLIGHT_MAX;
}

static void send_queued(struct caller *c)
{
    while (may_send(c)) {
        struct call *call = call_of(c->queued.next);
        enter(c, call, CALL_FLYING, &c->flights);
        flight_begin(c, call);
        call->attempts++;
        transmit(c, call);
    }
}

void caller_submit(struct caller *c, struct call *call, struct tick now)
{
    c->now = now;
    if (!call->has_id && !call_only_reads(call))
        rng_bytes(&c->rng, call->msg_id, sizeof call->msg_id);
    call->state = CALL_QUEUED;
    list_push_back(&c->queued, &call->node);
    heap_set(&c->deadlines, &call->deadline, now.mono_ns + call->timeout_ns);
    c->pending++;
}

/* ---- time ---- */

static void pause_call(struct caller *c, struct call *call, uint64_t wished_ms)
{
    uint64_t most = (uint64_t)PUBLISH_RETRY_MIN_MS
                    << (call->attempts < SHIFT_MAX ? call->attempts : SHIFT_MAX);
    if (most > PUBLISH_RETRY_MAX_MS)
        most = PUBLISH_RETRY_MAX_MS;
    uint64_t delay = most / 2 + rng_below(&c->rng, most / 2 + 1);
    if (wished_ms > 0) {
        delay = wished_ms < PAUSE_WISH_MAX_MS ? wished_ms : PAUSE_WISH_MAX_MS;
        delay += rng_below(&c->rng, delay / 4 + 1);
    }
    enter(c, call, CALL_PAUSED, &c->paused);
    heap_set(&c->timers, &call->timer, c->now.mono_ns + (int64_t)delay * NS_PER_MS);
}

static void expire(struct caller *c)
{
    int64_t now = c->now.mono_ns;
    struct heap_node *due;
    while ((due = heap_pop_due(&c->deadlines, now)) != NULL)
        give_up(c, LIST_ENTRY(due, struct call, deadline));
    while ((due = heap_pop_due(&c->timers, now)) != NULL) {
        struct call *call = LIST_ENTRY(due, struct call, timer);
        if (call->state == CALL_PAUSED)
            enter(c, call, CALL_QUEUED, &c->queued);
        else
            transmit(c, call); /* the same number: whichever copy is answered, it is answered */
    }
}

void caller_turn(struct caller *c, struct tick now)
{
    c->now = now;
    expire(c);
    send_queued(c);
}

int64_t caller_deadline(const struct caller *c)
{
    if (may_send(c))
        return c->now.mono_ns;
    int64_t deadline = heap_next(&c->deadlines), timer = heap_next(&c->timers);
    return deadline < timer ? deadline : timer;
}

/* ---- links ---- */

/* To the front of the queue, in the order in which they were sent. */
static void flights_back(struct caller *c, bool by_shard)
{
    struct list back;
    list_init(&back);
    while (!list_empty(&c->flights)) {
        struct call *call = call_of(c->flights.next);
        enter(c, call, CALL_QUEUED, &back);
        call->uncertain = true;
        call->losses += by_shard;
        if (STOA_MUTANT(LIBRARY_CALL_NEW_ID))
            rng_bytes(&c->rng, call->msg_id, sizeof call->msg_id);
    }
    while (!list_empty(&back)) {
        struct call *call = call_of(back.prev);
        list_remove(&call->node);
        list_push_back(c->queued.next, &call->node); /* in front of the first */
        if (call->losses >= CALL_LOSSES_MAX)
            give_up(c, call);
    }
}

void caller_use(struct caller *c, uint32_t router)
{
    flights_back(c, false);
    c->router = router;
}

void caller_lost(struct caller *c)
{
    flights_back(c, true);
}

/* ---- answers ---- */

/* The end of what went well. */
static void succeed(struct caller *c, struct call *call, bool duplicate, struct slice data)
{
    bool missed = call->on_item && call->uncertain;
    stoa_result *r =
        missed
            ? call_result(200, duplicate, slice_text("Missed"),
                          slice_text("a link was lost: items of the stream may be missing"), data)
            : call_result(200, duplicate, slice_of(NULL, 0), slice_of(NULL, 0), data);
    finish(c, call, missed ? STOA_MISSED : STOA_OK, r);
}

static void item_arrived(struct caller *c, struct call *call, struct slice json)
{
    heap_set(&c->timers, &call->timer, c->now.mono_ns + CALL_SILENCE_MS * NS_PER_MS);
    if (!call->on_item)
        return;
    struct call_item *item = mem_alloc(sizeof *item + json.size + 1);
    item->call = call;
    item->size = json.size;
    if (json.size > 0)
        memcpy(item->json, json.data, json.size);
    item->json[json.size] = '\0';
    list_init(&item->node);
    list_push_back(&c->items, &item->node);
}

/* What a handler raised is for its author's eyes: the shard's log has it. */
static void room_refused(struct caller *c, struct call *call, const struct msg_result *r)
{
    bool raised = slice_is(r->tag, "RoomExecutionError");
    struct slice text =
        raised ? slice_text("the room's handler failed; the shard's log says how") : r->text;
    struct slice tag = r->tag.size > 0 ? r->tag : slice_text("RoomError");
    struct slice data = json_valid(r->json) ? r->json : slice_of(NULL, 0);
    unsigned status = r->status >= 400 && r->status <= 599 ? (unsigned)r->status : 500;
    finish(c, call, STOA_ROOM, call_result(status, r->dup != 0, tag, text, data));
}

static void result_arrived(struct caller *c, struct call *call, const struct msg_result *r)
{
    struct slice json = r->json.size > 0 ? r->json : slice_text("null");
    if (r->status != 0)
        room_refused(c, call, r);
    else if (!json_valid(json))
        fail(c, call, STOA_ROOM, "RoomExecutionError", "the room answered with something not JSON");
    else if (r->more)
        item_arrived(c, call, json);
    else
        succeed(c, call, r->dup != 0, json);
}

/* A close and a purge are answered as a publish is. */
static void pack_arrived(struct caller *c, struct call *call, const struct msg_pack *pack)
{
    struct strbuf out = {0};
    char id[EVENT_ID_MAX_BYTES];
    (void)event_id_format(id, (struct position){pack->room_epoch, pack->seq});
    if (call->type == MSG_PURGE)
        strbuf_printf(&out, "{\"purged\":\"%s\"}", id);
    else
        strbuf_put_text(&out, "null");
    succeed(c, call, false, strbuf_slice(&out));
    strbuf_free(&out);
}

static void nack_arrived(struct caller *c, struct call *call, const struct msg_nack *nack)
{
    call->nack = (uint8_t)nack->code;
    switch (nack->code) {
    case NACK_TOOBIG:
        fail(c, call, STOA_TOO_LARGE, "TooLarge", "the shard refused the input for its size");
        return;
    case NACK_STALE:
        flight_end(c, call);
        call->uncertain = true;
        give_up(c, call);
        return;
    case NACK_DENIED:
        /* Rights change: a transmission whose answer was lost may have run. */
        flight_end(c, call);
        if (call->uncertain)
            give_up(c, call);
        else
            fail(c, call, STOA_DENIED, "Forbidden", "this call is refused");
        return;
    case NACK_INVALID:
    case NACK_ORDER:
        fail(c, call, STOA_INVALID, "BadRequest", "the cluster refused the call");
        return;
    default:
        pause_call(c, call, nack->retry_ms);
    }
}

void caller_answer(struct caller *c, const struct message *m)
{
    struct call *call = map_get(c->flying, map_id(&m->cid));
    if (STOA_MUTANT(LIBRARY_ANY_ANSWER) && call)
        call = call_of(c->flights.next);
    if (call && m->type == MSG_NACK)
        nack_arrived(c, call, &m->nack);
    else if (call && m->type == MSG_RESULT && call->type == MSG_CALL)
        result_arrived(c, call, &m->result);
    else if (call && m->type == MSG_PACK && call->type != MSG_CALL)
        pack_arrived(c, call, &m->pack);
}

/* ---- the end ---- */

void caller_abandon(struct caller *c)
{
    struct list *const all[] = {&c->flights, &c->paused, &c->queued};
    c->router = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        while (!list_empty(all[i]))
            fail(c, call_of(all[i]->next), STOA_UNKNOWN, "Unknown",
                 "the client was closed before the answer came");
}

/* ---- for tests ---- */

static size_t list_check(const struct list *list, enum call_state state)
{
    size_t count = 0;
    for (struct list *at = list->next; at != list; at = at->next, count++) {
        const struct call *call = call_of(at);
        STOA_ASSERT(call->state == state && (call->cid != 0) == (state == CALL_FLYING));
        STOA_ASSERT(heap_has(&call->deadline));
        STOA_ASSERT(heap_has(&call->timer) == (state != CALL_QUEUED));
    }
    return count;
}

void caller_validate(const struct caller *c)
{
    size_t flights = list_check(&c->flights, CALL_FLYING);
    size_t others = list_check(&c->queued, CALL_QUEUED) + list_check(&c->paused, CALL_PAUSED);
    STOA_ASSERT(flights == c->in_flight && flights == map_count(c->flying));
    STOA_ASSERT(flights + others == c->pending);
    STOA_ASSERT(c->router != 0 || flights == 0);
}
