/* CORE. Rooms that keep an account, in the guests' worlds: "made:t0" to "made:t2". Whatever happens
 * to such a room is a step, numbered from 1: it is added to the account, which is the room's state,
 * and told to all sockets. In the end the account is read over HTTP and given to the oracle, which
 * holds it against what callers and sockets saw (rules R1 to R5 of history.h). members.c has those.
 *
 * The state is {"n":STEPS,"s":"STEP;STEP;..."}, a step `c WHO` (connect), `x WHO` (close), `s WHO
 * MSG` (frame), `k MSG` (call), `a MSG DUE` (call that sets the alarm), `r NOW` (alarm): one
 * string, as it is read again at every step. Who a socket is says its tag: ids are shared, so that
 * connections are replaced and refused. */
#include "sim.h"

#include <inttypes.h>

#include "common/json.h"
#include "shard/context.h"

#define ALARM_MS 3000   /* at most, until an alarm that is set */
#define ALARM_LATE_S 20 /* one that is due so long before the end has run */
#define SLEEP_MS 300    /* of a call that waits before it does anything */
#define FAILS_EVERY 12  /* calls */
#define CLOSES_EVERY 20 /* calls: the oldest connection */
#define READ_TRIES 40

struct run {
    uint64_t msg;
    bool arms;
};

struct tally_room {
    uint32_t label;
    bool lost; /* with its disk */
};

struct tally {
    struct tally_room rooms[TALLY_ROOMS];
    struct vec failed; /* uint64_t: calls that were tried once and failed, and so rolled back */
    uint64_t last_msg;
    char id[16], tags[40]; /* of who was identified last */
};

static const char *const names[TALLY_ROOMS] = {"made:t0", "made:t1", "made:t2"};

/* ---- a step ---- */

static uint64_t number_of(struct slice word)
{
    char digits[24] = "";
    if (word.size > 0 && word.size < sizeof digits)
        memcpy(digits, word.data, word.size);
    return strtoull(digits, NULL, 10);
}

static struct slice inner(struct slice array)
{
    return array.size < 2 ? (struct slice){0} : slice_of(array.data + 1, array.size - 2);
}

/* To everybody, each once: in one broadcast, in two that share the sockets, or one by one. Who is
 * just joining is not among those that a handler can list. */
static bool tell_all(struct context *ctx, uint64_t n, bool joins, struct fault *fault)
{
    const struct slice some = slice_text("m0");
    const struct recipients to = {.to = &some, .n_to = 1},
                            except = {.except = &some, .n_except = 1};
    struct strbuf text = {0};
    strbuf_printf(&text, MADE_TEXT "%" PRIu64 "}", n);
    struct slice told = strbuf_slice(&text);
    bool fine = true;
    if (n % 4 == 0) {
        fine = context_broadcast(ctx, told, &to, fault) &&
               context_broadcast(ctx, told, &except, fault);
    } else if (n % 4 == 1 && !joins) {
        for (struct connection *c = context_next(ctx, NULL); c && fine; c = context_next(ctx, c))
            fine = !connection_is_open(c) || context_send(ctx, c, told, fault);
    } else {
        fine = context_broadcast(ctx, told, NULL, fault);
    }
    strbuf_free(&text);
    return fine;
}

/* Adds the step to the account and tells everybody; its number, or 0: *fault says why not. */
static uint64_t step_add(struct context *ctx, struct slice step, struct fault *fault)
{
    struct slice state = slice_text("{\"n\":0,\"s\":\"\"}");
    struct strbuf next = {0};
    bool joins = step.data[0] == 'c';
    uint64_t n = 0;
    (void)context_recall(ctx, &state);
    (void)json_u64(json_get(state, "n"), &n);
    struct slice before = inner(json_get(state, "s").raw);
    n++;
    strbuf_printf(&next, "{\"n\":%" PRIu64 ",\"s\":\"", n);
    strbuf_put_slice(&next, before);
    strbuf_put_slice(&next, step);
    strbuf_put_text(&next, ";\"}");
    bool fine = context_save(ctx, strbuf_slice(&next), fault) && tell_all(ctx, n, joins, fault);
    strbuf_free(&next);
    return fine ? n : 0;
}

static enum run_end step_of(struct context *ctx, char kind, uint64_t msg, struct fault *fault)
{
    char text[80];
    struct connection *c = context_connection(ctx);
    struct slice who = c ? connection_tag(c, 0) : (struct slice){0};
    switch (kind) {
    case 's':
        snprintf(text, sizeof text, "s %.*s %" PRIu64, SLICE_FMT(who), msg);
        break;
    case 'r':
        snprintf(text, sizeof text, "r %" PRId64, context_now_ms(ctx));
        break;
    default:
        snprintf(text, sizeof text, "%c %.*s", kind, SLICE_FMT(who));
    }
    return step_add(ctx, slice_text(text), fault) > 0 ? RUN_DONE : RUN_FAILED;
}

/* ---- runs ---- */

bool tally_is(const struct context *ctx)
{
    struct slice id = context_id(ctx);
    return id.size > 0 && id.data[0] == 't';
}

static enum run_end call_do(struct world *w, struct context *ctx, const struct run *r,
                            struct strbuf *result, struct fault *fault)
{
    char text[80];
    int64_t due = context_now_ms(ctx) + (int64_t)rng_below(&w->odd, ALARM_MS);
    if (r->arms)
        snprintf(text, sizeof text, "a %" PRIu64 " %" PRId64, r->msg, due);
    else
        snprintf(text, sizeof text, "k %" PRIu64, r->msg);
    uint64_t n = step_add(ctx, slice_text(text), fault);
    if (n == 0 || (r->arms && !context_schedule_at(ctx, due, fault)))
        return RUN_FAILED;
    struct connection *c = rng_below(&w->odd, CLOSES_EVERY) == 0 ? context_next(ctx, NULL) : NULL;
    if (c && connection_is_open(c) &&
        !context_close(ctx, c, 4000, slice_text("its time is over"), fault))
        return RUN_FAILED;
    if (w->made.traits.rollback && rng_below(&w->odd, FAILS_EVERY) == 0) {
        fault_set(fault, "Mine", "it did not work");
        return RUN_FAILED;
    }
    strbuf_printf(result, "%" PRIu64, n);
    return RUN_DONE;
}

static enum run_end call_begin(struct world *w, struct context *ctx, const struct invocation *what,
                               struct run **run, struct strbuf *result, struct fault *fault)
{
    struct run r = {.arms = slice_is(what->method, "arm")};
    if (!r.arms && !slice_is(what->method, "add"))
        return RUN_ABSENT;
    r.msg = number_of(what->input);
    if (rng_below(&w->odd, 4) == 0 &&
        context_sleep(ctx, (int64_t)rng_below(&w->odd, SLEEP_MS), fault)) {
        *run = mem_alloc(sizeof r);
        **run = r;
        return RUN_YIELDED;
    }
    return call_do(w, ctx, &r, result, fault);
}

enum run_end tally_run(struct world *w, struct context *ctx, const struct invocation *what,
                       struct run **run, struct strbuf *result, struct fault *fault)
{
    switch (what->phase) {
    case PHASE_CONNECT:
        return step_of(ctx, 'c', 0, fault);
    case PHASE_CLOSE:
        return step_of(ctx, 'x', 0, fault);
    case PHASE_ALARM:
        return step_of(ctx, 'r', 0, fault);
    case PHASE_EVENT:
        return step_of(ctx, 's', number_of(what->input), fault);
    case PHASE_CALL:
        return call_begin(w, ctx, what, run, result, fault);
    default:
        return RUN_ABSENT;
    }
}

enum run_end tally_resume(struct world *w, struct context *ctx, struct run **run,
                          struct strbuf *result, struct fault *fault)
{
    struct run r = **run;
    mem_free(*run);
    *run = NULL;
    return call_do(w, ctx, &r, result, fault);
}

/* ?name=m0-7 is a socket of m0. False: it is nobody of ours. */
bool tally_identify(struct world *w, struct slice request, struct persona *out)
{
    struct tally *t = w->tally;
    struct slice name = inner(json_get(json_get(request, "query").raw, "name").raw);
    const uint8_t *cut = name.size > 0 ? memchr(name.data, '-', name.size) : NULL;
    if (!cut || name.size >= sizeof t->id)
        return false;
    snprintf(t->id, sizeof t->id, "%.*s", (int)(cut - name.data), (const char *)name.data);
    snprintf(t->tags, sizeof t->tags, "[\"%.*s\"]", SLICE_FMT(name));
    *out = (struct persona){.id = slice_text(t->id), .tags = slice_text(t->tags)};
    return true;
}

/* ---- what the oracle is told ---- */

void tally_entry(struct world *w, unsigned room, struct history_entry e)
{
    e.t = (uint64_t)w->now_ns;
    e.key = w->tally->rooms[room].label;
    history_add(w->history, &e);
}

void tally_failed(struct world *w, uint64_t msg)
{
    *VEC_PUSH(&w->tally->failed, uint64_t) = msg;
}

uint64_t tally_msg(struct world *w)
{
    return ++w->tally->last_msg;
}

static struct process *owner_of(struct world *w, unsigned room)
{
    unsigned count = w->dice.count[SHARD];
    unsigned owner = slot_of(slice_text(names[room]), SLOT_SEED) / (SLOT_COUNT / count);
    return world_process(w, SHARD, owner < count ? owner : count - 1);
}

void tally_lost(struct process *shard)
{
    struct world *w = shard->world;
    for (unsigned i = 0; w->tally && i < TALLY_ROOMS; i++)
        w->tally->rooms[i].lost |= owner_of(w, i) == shard;
}

/* ---- the account, in the end ---- */

struct reading {
    struct socket socket;
    struct strbuf body;
    unsigned status;
    bool waiting;
};

static void on_answered(struct socket *s, unsigned status, struct slice body)
{
    struct reading *r = OWNER_OF(s, struct reading, socket);
    r->waiting = false;
    r->status = status;
    strbuf_reset(&r->body);
    strbuf_put_slice(&r->body, body);
}

static void on_closed(struct socket *s, unsigned code)
{
    (void)code;
    OWNER_OF(s, struct reading, socket)->waiting = false;
}

static const struct socket_handler handler = {.answered = on_answered, .closed = on_closed};

static bool was_rolled_back(const struct tally *t, uint64_t msg)
{
    for (size_t i = 0; i < t->failed.count; i++)
        if (VEC_AT(&t->failed, uint64_t)[i] == msg)
            return true;
    return false;
}

static struct slice cut(struct slice *text, char at)
{
    const uint8_t *end = text->size > 0 ? memchr(text->data, at, text->size) : NULL;
    struct slice word = end ? slice_of(text->data, (size_t)(end - text->data)) : *text;
    *text = end ? slice_of(end + 1, text->size - word.size - 1) : (struct slice){0};
    return word;
}

static void tell_step(struct world *w, unsigned room, uint64_t at, struct slice step)
{
    static const char kinds[] = "cxskar"; /* in the order of enum history_what */
    struct slice rest = step, word = cut(&rest, ' ');
    const char *kind = word.size == 1 ? strchr(kinds, word.data[0]) : NULL;
    if (!kind) {
        world_fail(w, "the account of %s has %.*s", names[room], SLICE_FMT(step));
        return;
    }
    struct history_entry e = {.op = H_STEP, .at = at};
    e.what = (uint8_t)(H_DID_CONNECT + (kind - kinds));
    if (e.what <= H_DID_SAY)
        e.who = history_name(w->history, cut(&rest, ' '));
    if (e.what == H_DID_SAY || e.what == H_DID_CALL || e.what == H_DID_ARM)
        e.msg = number_of(cut(&rest, ' '));
    if (e.what == H_DID_ARM || e.what == H_DID_ALARM)
        e.number = number_of(rest);
    if (e.msg > 0 && was_rolled_back(w->tally, e.msg))
        world_fail(w, "call %" PRIu64 " failed, and %s keeps what it did", e.msg, names[room]);
    tally_entry(w, room, e);
}

static void tell_account(struct world *w, unsigned room, struct slice state)
{
    uint64_t n = 0, seen = 0;
    (void)json_u64(json_get(state, "n"), &n);
    struct slice steps = inner(json_get(state, "s").raw);
    while (steps.size > 0)
        tell_step(w, room, ++seen, cut(&steps, ';'));
    if (seen != n)
        world_fail(w, "%s has %" PRIu64 " steps and counts %" PRIu64, names[room], seen, n);
    int64_t clock = process_now(owner_of(w, room)).wall_ms - ALARM_LATE_S * 1000;
    tally_entry(w, room, (struct history_entry){.op = H_STEPS, .at = n, .number = (uint64_t)clock});
}

static void read_account(struct world *w, struct reading *r, unsigned room)
{
    char path[32];
    snprintf(path, sizeof path, "/api/made/%s/state", names[room] + strlen("made:"));
    struct http_request request = request_make(HTTP_M_GET, path, "");
    r->status = 0;
    for (int tries = 0; tries < READ_TRIES && r->status != 200 && !w->failed; tries++) {
        struct process *gateway = gateway_pick(w);
        r->waiting = gateway && socket_request(&r->socket, gateway, &request);
        for (int i = 0; i < READ_TRIES && r->waiting && !w->failed; i++)
            world_run_for(w, 500 * MS);
    }
    if (r->status == 200)
        tell_account(w, room, strbuf_slice(&r->body));
    else
        world_fail(w, "in the calm, the state of %s is answered %u %.*s", names[room], r->status,
                   (int)r->body.size, (const char *)r->body.data);
}

void tally_final(struct world *w)
{
    struct reading r = {.socket = {.world = w, .handler = &handler, .lag_ns = MS}};
    if (!w->tally || w->rolled || w->leap_ns >= 0)
        return; /* what answers were remembered is forgotten: a retry may be done again */
    for (unsigned i = 0; i < TALLY_ROOMS && !w->failed; i++)
        if (!w->tally->rooms[i].lost)
            read_account(w, &r, i);
    socket_leave(&r.socket);
    socket_free(&r.socket);
    strbuf_free(&r.body);
}

/* ---- life ---- */

void tally_begin(struct world *w)
{
    w->tally = mem_zalloc(sizeof *w->tally);
    for (unsigned i = 0; i < TALLY_ROOMS; i++)
        w->tally->rooms[i].label = history_name(w->history, slice_text(names[i]));
}

void tally_end(struct world *w)
{
    if (!w->tally)
        return;
    vec_free(&w->tally->failed);
    mem_free(w->tally);
}
