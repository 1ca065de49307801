/* Recipients against a model: random rooms, names, tags and closes; whoever is meant is reached by
 * exactly one piece of each send, nobody else by any. Names are short or so long that filters
 * overflow, which nobody may notice. */
#include "test_shard_rig.h"

#include "proto/filter.h"
#include "shard/actor.h"

#define CONNECTIONS 240
#define NAMES 90
#define ROUNDS 80

static struct shard shard;
static struct handler handler = {.traits = HANDLER_TRAITS_DEFAULT};
static struct actor actor = {.handler = &handler};
static struct segment segment;
static struct context ctx;
static struct rng rng;
static char ids[NAMES][80]; /* shared by several connections */
static char tags[6][16];

static size_t below(size_t bound)
{
    return (size_t)rng_below(&rng, bound);
}

static struct connection *nth(size_t i)
{
    return VEC_AT(&actor.connections, struct connection *)[i];
}

static void room_fill(void)
{
    size_t n = below(CONNECTIONS), width = below(2) == 0 ? 60 : 3;
    for (size_t i = 0; i < NAMES; i++)
        (void)snprintf(ids[i], sizeof ids[i], "%0*zu", (int)width, i);
    for (size_t i = 0; i < 6; i++)
        (void)snprintf(tags[i], sizeof tags[i], "tag%zu", i);
    for (size_t i = 0; i < n; i++) {
        struct connection *c = mem_zalloc(sizeof *c);
        c->actor = &actor;
        c->number = i + 1;
        c->session_size = (uint8_t)snprintf(c->session, sizeof c->session, "s%0*zu", (int)width, i);
        strbuf_put_text(&c->id, ids[below(NAMES)]);
        for (size_t k = below(4); k > 0; k--)
            c->tags[c->n_tags++] = slice_text(tags[below(6)]);
        c->closing = below(8) == 0;
        *VEC_PUSH(&actor.connections, struct connection *) = c;
    }
}

static void room_empty(void)
{
    for (size_t i = 0; i < actor.connections.count; i++) {
        strbuf_free(&nth(i)->id);
        mem_free(nth(i));
    }
    actor.connections.count = 0;
}

/* Some names: sessions, ids, and some that nobody has. */
static size_t some_names(struct slice out[2 * CONNECTIONS])
{
    size_t n = below(3) == 0 ? below(2 * CONNECTIONS) : below(5);
    for (size_t i = 0; i < n; i++) {
        if (below(4) == 0 && actor.connections.count > 0)
            out[i] = connection_session(nth(below(actor.connections.count)));
        else
            out[i] = slice_text(below(12) == 0 ? "nobody" : ids[below(NAMES)]);
    }
    return n;
}

static bool has(const struct slice *at, size_t n, struct slice name)
{
    for (size_t i = 0; i < n; i++) {
        if (slice_equal(at[i], name))
            return true;
    }
    return false;
}

static bool names(const struct slice *at, size_t n, const struct connection *c)
{
    return has(at, n, connection_session(c)) || has(at, n, connection_id(c));
}

/* The sentence of context.h: (to, else any of tags, else everybody) less except. */
static bool meant(const struct recipients *who, const struct connection *c)
{
    bool in = !who->to && !who->tags;
    if (who->to)
        in = names(who->to, who->n_to, c);
    else if (who->tags)
        for (size_t i = 0; i < c->n_tags; i++)
            in |= has(who->tags, who->n_tags, c->tags[i]);
    return in && !names(who->except, who->n_except, c);
}

static size_t times_reached(const struct connection *c, size_t from)
{
    size_t times = 0;
    for (size_t i = from; i < segment.outputs.count; i++) {
        const struct output *o = &VEC_AT(&segment.outputs, struct output)[i];
        struct slice filter = slice_of(segment.bytes.data + o->filter_at, o->filter_size);
        times += filter_admits(filter, connection_session(c), connection_id(c), c->tags, c->n_tags);
    }
    return times;
}

static void check_broadcast(const struct recipients *who, struct fault *fault)
{
    size_t before = segment.outputs.count;
    ck_assert(context_broadcast(&ctx, slice_text("1"), who, fault));
    for (size_t i = 0; i < actor.connections.count; i++) {
        const struct connection *c = nth(i);
        size_t wanted = connection_is_open(c) && meant(who, c);
        ck_assert_uint_eq(times_reached(c, before), wanted);
    }
}

/* For whoever it is kept: the close of a connection does not matter to it. Refused is fine when
 * `tags` or `except` do not fit, and then nothing is there. */
static bool check_publish(const struct recipients *who, struct fault *fault)
{
    size_t before = segment.outputs.count;
    const struct publish_wish wish = {.who = *who};
    if (!context_publish(&ctx, slice_text("1"), &wish, fault)) {
        ck_assert_uint_eq(segment.outputs.count, before);
        ck_assert_str_eq(fault->tag, "BroadcastError");
        return false;
    }
    for (size_t i = 0; i < actor.connections.count; i++)
        ck_assert_uint_eq(times_reached(nth(i), before), meant(who, nth(i)));
    return true;
}

START_TEST(everybody_who_is_meant_is_reached_once)
{
    static struct slice to[2 * CONNECTIONS], except[2 * CONNECTIONS], any[3];
    struct room *room = room_create(slice_text("chat:1"), 1);
    struct fault fault = {0};
    size_t pieces = 0, refused = 0;
    shard.payload_max_bytes = PAYLOAD_MAX_BYTES;
    actor.room = room;
    actor.segment = &segment;
    ctx = (struct context){.s = &shard, .actor = &actor, .segment = &segment, .phase = PHASE_EVENT};
    rng_seed(&rng, 17);
    for (size_t round = 0; round < ROUNDS; round++) {
        room_fill();
        segment_begin(&segment);
        for (size_t step = 0; step < 6; step++) {
            struct recipients who = {.except = except, .n_except = some_names(except)};
            if (below(2))
                who.to = to, who.n_to = some_names(to);
            if (below(3) == 0) {
                who.tags = any;
                for (who.n_tags = 0; who.n_tags < below(3); who.n_tags++)
                    any[who.n_tags] = slice_text(tags[below(6)]);
            }
            size_t before = segment.outputs.count;
            check_broadcast(&who, &fault);
            pieces += segment.outputs.count > before + 1;
            refused += !check_publish(&who, &fault);
            for (size_t k = below(4); k > 0 && actor.connections.count > 0; k--)
                ck_assert(context_close(&ctx, nth(below(actor.connections.count)), 1000,
                                        slice_text(""), &fault));
        }
        segment_free(&segment);
        room_empty();
    }
    ck_assert_uint_gt(pieces, 5); /* the bound was met */
    ck_assert_uint_gt(refused, 5);
    vec_free(&actor.connections);
    fault_free(&fault);
    room_destroy(&room);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {everybody_who_is_meant_is_reached_once};
    return rig_run("shard_context_random", tests, sizeof tests / sizeof *tests);
}
