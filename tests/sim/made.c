/* CORE. Rooms with a handler, in the guests' worlds: the type "made". Its rooms do anything that a
 * handler may ask for, in any order; all that is asked of them is answered, and a shard's
 * invariants hold. One promise is checked: a room "made:cN" counts, and a count that somebody was
 * told is on disk, so that nobody is ever told it again, nor one before it. */
#include "sim.h"

#include "common/json.h"
#include "shard/context.h"

#define TEXT_64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define TEXT_LONG TEXT_64 TEXT_64 /* more than a reason or a conflate value may have */

struct run {
    unsigned steps; /* until it ends */
};

static struct world *world_of(struct handler *h)
{
    return OWNER_OF(h, struct world, made);
}

static uint64_t odd(struct handler *h, uint64_t bound)
{
    return rng_below(&world_of(h)->odd, bound);
}

/* ---- what a segment does ---- */

/* A broadcast or an event of theirs begins so: the truth knows it and is not asked. */
static struct slice any_text(struct handler *h)
{
    static const char *const texts[] = {MADE_TEXT "1}", MADE_TEXT "\"\xc3\xa9\"}",
                                        MADE_TEXT "[\"a\",\"b\"]}", MADE_TEXT "no JSON"};
    return slice_text(texts[odd(h, 4)]);
}

static void to_one(struct handler *h, struct context *ctx, struct fault *fault)
{
    static const unsigned codes[] = {1000, 1001, 1003, 1005, 1008, 1015, 2999, 3000, 4000, 5000};
    static const char *const reasons[] = {TEXT_LONG, "\xff"};
    struct connection *c = odd(h, 2) ? context_connection(ctx) : context_next(ctx, NULL);
    if (c && odd(h, 3) == 0)
        c = context_next(ctx, c);
    if (odd(h, 6) == 0)
        c = context_by_id(ctx, slice_text("a"));
    if (!c)
        return;
    switch (odd(h, 5)) {
    case 0:
        (void)context_set_state(ctx, c, slice_text(odd(h, 4) ? "{\"s\":1}" : "no JSON"), fault);
        break;
    case 1:
        (void)context_close(ctx, c, codes[odd(h, 10)],
                            slice_text(odd(h, 8) ? "made" : reasons[odd(h, 2)]), fault);
        break;
    case 2:
        (void)connection_has_tag(c, slice_text("t"));
        (void)connection_meta(c);
        break;
    default:
        (void)context_send(ctx, c, any_text(h), fault);
    }
}

/* Nobody given, or up to three names, some of them nobody's. */
static size_t some_names(struct handler *h, struct slice names[3], const struct slice **at)
{
    static const char *const all[] = {"a", "b", "c", "t", "u", "never", "", TEXT_LONG};
    size_t count = odd(h, 4);
    for (size_t i = 0; i < count; i++)
        names[i] = slice_text(all[odd(h, 40) ? odd(h, 7) : 7]);
    *at = odd(h, 2) ? names : NULL;
    return *at ? count : 0;
}

static void to_many(struct handler *h, struct context *ctx, struct fault *fault)
{
    struct slice tags[3], to[3], except[3];
    struct publish_wish wish = {.ephemeral = odd(h, 3) == 0};
    if (odd(h, 3) > 0) {
        wish.who.n_tags = some_names(h, tags, &wish.who.tags);
        wish.who.n_to = some_names(h, to, &wish.who.to);
        wish.who.n_except = some_names(h, except, &wish.who.except);
    }
    if (odd(h, 4) == 0)
        wish.conflate = slice_text(odd(h, 10) ? "c" : TEXT_LONG);
    bool nobody = odd(h, 8) == 0, large = odd(h, 300) == 0;
    struct slice message = any_text(h);
    char *fat = large ? mem_zalloc(PAYLOAD_MAX_BYTES + 1) : NULL;
    if (fat)
        message = slice_of(fat, PAYLOAD_MAX_BYTES + 1);
    if (odd(h, 2))
        (void)context_broadcast(ctx, message, nobody ? NULL : &wish.who, fault);
    else
        (void)context_publish(ctx, message, nobody ? NULL : &wish, fault);
    mem_free(fat);
}

static void to_itself(struct handler *h, struct context *ctx, struct fault *fault)
{
    struct strbuf log = {0};
    struct slice state;
    int64_t at = context_now_ms(ctx) + (int64_t)odd(h, 3000) - 100;
    switch (odd(h, 8)) {
    case 0:
        (void)context_schedule_at(ctx, at, fault);
        break;
    case 1:
        context_cancel(ctx);
        break;
    case 2:
        (void)context_next_alarm(ctx, &at);
        break;
    case 3:
        (void)context_log(ctx, slice_text(odd(h, 3) ? "" : "zz"), (unsigned)odd(h, 3), &log, fault);
        break;
    case 4:
        if (odd(h, 4) == 0)
            context_purge(ctx);
        break;
    case 5:
        (void)context_recall(ctx, &state);
        (void)context_state_version(ctx);
        break;
    case 6:
        context_print(ctx, slice_text("made"));
        break;
    default:
        (void)context_save(ctx, slice_text(odd(h, 6) ? "{\"state\":1}" : "no JSON"), fault);
    }
}

static void act(struct handler *h, struct context *ctx)
{
    struct fault fault = {0};
    for (uint64_t n = odd(h, 4); n > 0; n--) {
        switch (odd(h, 3)) {
        case 0:
            to_one(h, ctx, &fault);
            break;
        case 1:
            to_many(h, ctx, &fault);
            break;
        default:
            to_itself(h, ctx, &fault);
        }
        fault_free(&fault);
    }
}

/* ---- counting ---- */

static enum run_end count(struct context *ctx, struct strbuf *result, struct fault *fault)
{
    struct slice state;
    char digits[24] = "0";
    if (context_recall(ctx, &state) && state.size < sizeof digits) {
        memcpy(digits, state.data, state.size);
        digits[state.size] = '\0';
    }
    snprintf(digits, sizeof digits, "%llu", strtoull(digits, NULL, 10) + 1);
    if (!context_save(ctx, slice_text(digits), fault))
        return RUN_FAILED;
    strbuf_put_text(result, digits);
    return RUN_DONE;
}

static bool counts(const struct context *ctx)
{
    struct slice id = context_id(ctx);
    return id.size > 0 && id.data[0] == 'c';
}

/* ---- runs ---- */

static bool wait_begin(struct handler *h, struct context *ctx, struct fault *fault)
{
    static const char *const types[] = {"made", "events", "never", ""};
    enum sibling_verb verb = (enum sibling_verb)odd(h, 4);
    switch (odd(h, 3)) {
    case 0:
        return context_sleep(ctx, odd(h, 10) ? (int64_t)odd(h, 2000) : 99999, fault);
    case 1:
        return context_item(ctx, any_text(h), fault);
    default:
        return context_sibling(ctx, verb, slice_text(types[odd(h, 8) ? 0 : odd(h, 4)]),
                               slice_text(odd(h, 3) ? "w1" : "w2"), slice_text("wild"), any_text(h),
                               fault);
    }
}

/* Ends, or waits for something. */
static enum run_end go_on(struct handler *h, struct context *ctx, struct run **run,
                          struct strbuf *result, struct fault *fault)
{
    struct run *r = *run;
    act(h, ctx);
    while (r->steps > 0) {
        r->steps--;
        if (wait_begin(h, ctx, fault))
            return RUN_YIELDED;
        fault_free(fault);
    }
    bool fails = odd(h, 8) == 0;
    mem_free(r);
    *run = NULL;
    if (fails) {
        fault_set(fault, odd(h, 2) ? "RoomExecutionError" : "Mine", "it did not work");
        return odd(h, 6) ? RUN_FAILED : RUN_KILLED;
    }
    if (result->size == 0)
        strbuf_put_text(result, "null");
    return RUN_DONE;
}

static enum run_end made_run(struct handler *h, struct context *ctx, void *mem,
                             const struct invocation *what, struct run **run, struct strbuf *result,
                             struct fault *fault)
{
    (void)mem;
    if (tally_is(ctx))
        return tally_run(world_of(h), ctx, what, run, result, fault);
    if (watchers_is(ctx))
        return RUN_ABSENT;
    if (counts(ctx)) {
        if (what->phase != PHASE_CALL || !slice_is(what->method, "count"))
            return RUN_ABSENT;
        return count(ctx, result, fault);
    }
    if (what->phase == PHASE_CALL && !slice_is(what->method, "wild"))
        return RUN_ABSENT;
    if (what->phase != PHASE_CALL && odd(h, 10) == 0)
        return RUN_ABSENT;
    if (what->phase == PHASE_EVENT && odd(h, 10) == 0) {
        fault_set(fault, "BadFrame", "it does not decode");
        return RUN_UNDECODED;
    }
    struct run *r = mem_zalloc(sizeof *r);
    r->steps = odd(h, 3) ? 0 : (unsigned)odd(h, 3);
    *run = r;
    return go_on(h, ctx, run, result, fault);
}

static enum run_end made_resume(struct handler *h, struct context *ctx, void *mem, struct run **run,
                                const struct wake *wake, struct strbuf *result, struct fault *fault)
{
    (void)mem, (void)wake;
    if (tally_is(ctx))
        return tally_resume(world_of(h), ctx, run, result, fault);
    return go_on(h, ctx, run, result, fault);
}

static void made_abandon(struct handler *h, struct run **run)
{
    (void)h;
    mem_free(*run);
    *run = NULL;
}

static void made_destroy(struct handler *h)
{
    (void)h;
}

/* One of a few identities, or none. */
static bool made_identify(struct handler *h, struct slice request, struct persona *out,
                          struct fault *fault)
{
    static const char *const ids[] = {"", "a", "b", "c", "\xff", TEXT_LONG TEXT_LONG TEXT_64};
    static const char *const tags[] = {
        "",
        "[]",
        "[\"t\"]",
        "[\"t\",\"u\"]",
        "[\"t\",\"t\"]",
        "{}",
        "[7]",
        "[\"\"]",
        "[\"0\",\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\"]"};
    if (!json_valid(request))
        world_fail(world_of(h), "identify is asked about %.*s", SLICE_FMT(request));
    if (tally_identify(world_of(h), request, out) || watchers_identify(request, out))
        return true;
    *out = (struct persona){.id = slice_text(ids[odd(h, 20) ? odd(h, 4) : odd(h, 6)]),
                            .tags = slice_text(tags[odd(h, 12) ? odd(h, 4) : odd(h, 9)])};
    if (odd(h, 12) == 0) {
        fault_set(fault, "RoomExecutionError", "identify failed");
        return false;
    }
    if (odd(h, 12) == 0) {
        out->status = 403;
        out->refusal = slice_text("not you");
    }
    if (odd(h, 3) == 0)
        out->state = slice_text("{\"x\":1}");
    if (odd(h, 3) == 0)
        out->meta = slice_text("{\"m\":1}");
    return true;
}

static void *made_load(struct handler *h, struct context *ctx)
{
    (void)ctx;
    return odd(h, 2) ? mem_alloc(1) : NULL;
}

static void made_unload(struct handler *h, void *mem)
{
    (void)h;
    mem_free(mem);
}

static const struct handler_vtable vtable = {.destroy = made_destroy,
                                             .identify = made_identify,
                                             .load = made_load,
                                             .unload = made_unload,
                                             .run = made_run,
                                             .resume = made_resume,
                                             .abandon = made_abandon};

void made_begin(struct world *w)
{
    static const struct handler_traits traits = HANDLER_TRAITS_DEFAULT;
    w->made = (struct handler){.vtable = &vtable, .traits = traits};
    struct handler_traits *t = &w->made.traits;
    t->on_duplicate = (enum on_duplicate)rng_below(&w->odd, 3);
    t->max_connections = rng_below(&w->odd, 2) ? 2 : 100;
    t->max_connection_state = rng_below(&w->odd, 2) ? 4 : 2048;
    t->alarm_retries = (unsigned)rng_below(&w->odd, 3);
    t->state_version = (unsigned)rng_below(&w->odd, 3);
    t->rollback = rng_below(&w->odd, 2);
    t->exclusive = rng_below(&w->odd, 2);
    if (rng_below(&w->odd, 2)) {
        strbuf_put_text(&t->auto_request, "ping");
        strbuf_put_text(&t->auto_response, "pong");
    }
}

void made_end(struct world *w)
{
    strbuf_free(&w->made.traits.auto_request);
    strbuf_free(&w->made.traits.auto_response);
}

/* ---- callers: what they are told ---- */

/* True: the number is new, and none that was told before the call began is above it. */
void made_told(struct world *w, unsigned room, uint64_t floor, struct slice body)
{
    char digits[24] = "";
    if (body.size < sizeof digits)
        memcpy(digits, body.data, body.size);
    uint64_t number = strtoull(digits, NULL, 10);
    if (w->rolled || w->lost_ns >= 0)
        return;
    if (number <= floor)
        world_fail(w, "made:c%u counts %.*s, and somebody was told %llu before", room,
                   SLICE_FMT(body), (unsigned long long)floor);
    for (size_t i = 0; i < w->told[room].count; i++)
        if (VEC_AT(&w->told[room], uint64_t)[i] == number)
            world_fail(w, "made:c%u counts %.*s twice", room, SLICE_FMT(body));
    *VEC_PUSH(&w->told[room], uint64_t) = number;
    if (number > w->highest[room])
        w->highest[room] = number;
}
