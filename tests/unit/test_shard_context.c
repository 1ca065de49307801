/* What a handler asks for (context.h): an actor is built by hand, a segment runs, and what it left
 * behind is read. Each output's filter is asked as a gateway asks it. */
#include "test_shard_rig.h"

#include "common/json.h"
#include "proto/filter.h"
#include "shard/actor.h"

#define WHY(fault) ((const char *)strbuf_cstr(&(fault).message))

static struct shard shard;
static struct handler handler = {.traits = HANDLER_TRAITS_DEFAULT};
static struct actor actor;
static struct segment segment;
static struct context ctx;
static struct fault fault;

static struct slice text(const char *s)
{
    return slice_text(s);
}

static struct connection *join(const char *session, const char *id)
{
    struct connection *c = mem_zalloc(sizeof *c);
    c->actor = &actor;
    c->number = ++actor.next_number;
    c->session_size = (uint8_t)strlen(session);
    memcpy(c->session, session, strlen(session) + 1);
    strbuf_put_text(&c->id, id);
    strbuf_put_text(&c->state, "null");
    *VEC_PUSH(&actor.connections, struct connection *) = c;
    return c;
}

static void next_segment(void)
{
    if (actor.segment)
        segment_free(&segment);
    segment_begin(&segment);
    actor.segment = &segment;
}

static void begin_in(struct shard *s, struct room *room)
{
    actor = (struct actor){.room = room, .handler = &handler};
    ctx = (struct context){
        .s = s, .actor = &actor, .segment = &segment, .phase = PHASE_EVENT, .now_ms = 1000};
    next_segment();
}

static void begin(void)
{
    static struct type declared[] = {{.name = (char *)"events", .name_size = 6},
                                     {.name = (char *)"chat", .name_size = 4}};
    memset(&shard, 0, sizeof shard);
    memcpy(shard.types, declared, sizeof declared);
    shard.n_types = 2;
    shard.payload_max_bytes = PAYLOAD_MAX_BYTES;
    rng_seed(&shard.rng, 5);
    begin_in(&shard, room_create(text("chat:lobby:2"), 7));
}

static void end_in(void)
{
    segment_free(&segment);
    for (size_t i = 0; i < actor.connections.count; i++) {
        struct connection *c = VEC_AT(&actor.connections, struct connection *)[i];
        strbuf_free(&c->id);
        strbuf_free(&c->state);
        strbuf_free(&c->meta);
        mem_free(c);
    }
    vec_free(&actor.connections);
    strbuf_free(&actor.state);
    fault_free(&fault);
}

static void end(void)
{
    end_in();
    room_destroy(&actor.room);
}

static struct slice bytes_at(uint32_t at, uint32_t size)
{
    return slice_of(segment.bytes.data + at, size);
}

/* "a c": ids of the open ones whom the n-th output reaches. */
static const char *reached(size_t nth)
{
    static char names[256];
    names[0] = 0;
    ck_assert_uint_lt(nth, segment.outputs.count);
    const struct output *o = &VEC_AT(&segment.outputs, struct output)[nth];
    struct slice filter = bytes_at(o->filter_at, o->filter_size);
    for (size_t i = 0; i < actor.connections.count; i++) {
        const struct connection *c = VEC_AT(&actor.connections, struct connection *)[i];
        if (!filter_admits(filter, connection_session(c), connection_id(c), c->tags, c->n_tags))
            continue;
        size_t used = strlen(names);
        (void)snprintf(names + used, sizeof names - used, "%s%s", used ? " " : "",
                       (const char *)c->session);
    }
    return names;
}

static const char *payload(size_t nth)
{
    static char out[128];
    const struct output *o = &VEC_AT(&segment.outputs, struct output)[nth];
    (void)snprintf(out, sizeof out, "%.*s", SLICE_FMT(bytes_at(o->payload_at, o->payload_size)));
    return out;
}

#define ck_fault(did_, tag_)                      \
    do {                                          \
        ck_assert(!(did_));                       \
        ck_assert_str_eq(fault.tag, tag_);        \
        ck_assert_uint_gt(fault.message.size, 0); \
    } while (0)
#define ck_slice(slice_, text_) \
    ck_assert_msg(slice_is((slice_), (text_)), "%.*s", SLICE_FMT(slice_))

START_TEST(a_room_knows_its_key_in_parts)
{
    begin();
    ck_slice(context_key(&ctx), "chat:lobby:2");
    ck_slice(context_type(&ctx), "chat");
    ck_slice(context_id(&ctx), "lobby:2");
    ck_assert_int_eq(context_now_ms(&ctx), 1000);
    ck_assert(context_random(&ctx) != context_random(&ctx));
    end();
}
END_TEST

START_TEST(state_is_read_as_the_segment_wrote_it)
{
    begin();
    struct slice state;
    ck_assert(!context_recall(&ctx, &state));
    strbuf_put_text(&actor.state, "{\"n\":1}");
    actor.has_state = true;
    actor.state_version = 3;
    handler.traits.state_version = 4;
    ck_assert(context_recall(&ctx, &state));
    ck_slice(state, "{\"n\":1}");
    ck_assert_uint_eq(context_state_version(&ctx), 3);
    ck_assert(context_save(&ctx, text("{\"n\":2}"), &fault));
    struct slice old;
    ck_assert(context_recall(&ctx, &old));
    ck_assert(context_save(&ctx, text("[3]"), &fault));
    ck_slice(old, "{\"n\":2}"); /* given out before; good until the end */
    ck_assert(context_recall(&ctx, &state));
    ck_slice(state, "[3]");
    ck_assert(context_save(&ctx, state, &fault)); /* its own bytes */
    ck_assert(context_recall(&ctx, &state));
    ck_slice(state, "[3]");
    ck_assert_uint_eq(context_state_version(&ctx), 4);
    ck_slice(strbuf_slice(&actor.state), "{\"n\":1}"); /* nothing but the segment was written */
    next_segment();
    ck_assert(context_recall(&ctx, &state));
    ck_slice(state, "{\"n\":1}");
    handler.traits.state_version = 0;
    end();
}
END_TEST

START_TEST(a_state_that_is_no_json_or_too_large_changes_nothing)
{
    begin();
    struct slice state;
    ck_assert(context_save(&ctx, text("1"), &fault));
    const char *bad[] = {"", "{", "nul", "1 2", "\"\xff\"", "undefined"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_fault(context_save(&ctx, text(bad[i]), &fault), "RoomError");
    char *large = mem_alloc(CONTEXT_STATE_MAX_BYTES + 1);
    memset(large, ' ', CONTEXT_STATE_MAX_BYTES + 1);
    large[0] = '1';
    ck_fault(context_save(&ctx, slice_of(large, CONTEXT_STATE_MAX_BYTES + 1), &fault), "RoomError");
    ck_assert(context_recall(&ctx, &state));
    ck_slice(state, "1");
    ck_assert(context_save(&ctx, slice_of(large, CONTEXT_STATE_MAX_BYTES), &fault));
    mem_free(large);
    end();
}
END_TEST

START_TEST(connections_come_in_the_order_of_acceptance_open_ones_only)
{
    begin();
    struct connection *a = join("s1", "ann"), *b = join("s2", "bob"), *c = join("s3", "ann");
    ck_assert_ptr_eq(context_next(&ctx, NULL), a);
    ck_assert_ptr_eq(context_next(&ctx, a), b);
    ck_assert_ptr_eq(context_next(&ctx, b), c);
    ck_assert_ptr_null(context_next(&ctx, c));
    ck_assert_ptr_eq(context_by_id(&ctx, text("ann")), a);
    ck_assert_ptr_null(context_by_id(&ctx, text("s1")));
    ck_assert(context_close(&ctx, a, 4000, text("bye"), &fault));
    ck_assert(context_close(&ctx, a, 4001, text("again"), &fault)); /* the first one stands */
    ck_assert(!connection_is_open(a));
    ck_assert_ptr_eq(context_by_id(&ctx, text("ann")), c);
    b->closing = true;
    ck_assert_ptr_eq(context_next(&ctx, NULL), c);
    ck_assert_ptr_eq(context_next(&ctx, a), c);
    ck_assert_uint_eq(context_count(&ctx), 1);
    ck_assert_uint_eq(segment.closes.count, 1);
    const struct close_wish *wish = VEC_AT(&segment.closes, struct close_wish);
    ck_assert_ptr_eq(wish->connection, a);
    ck_assert_uint_eq(wish->code, 4000);
    ck_slice(bytes_at(wish->reason_at, wish->reason_size), "bye");
    next_segment();
    ck_assert(connection_is_open(a)); /* nobody took the wish over: it was dropped */
    ctx.phase = PHASE_CLOSE;
    ctx.connection = b;
    ck_assert_uint_eq(context_count(&ctx), 3); /* the one that goes is still to be seen */
    ck_assert_ptr_eq(context_next(&ctx, a), b);
    ck_assert(!connection_is_open(b));
    end();
}
END_TEST

START_TEST(a_close_needs_a_code_that_may_be_sent)
{
    begin();
    struct connection *a = join("s1", "ann");
    const unsigned bad[] = {0, 999, 1002, 1004, 1005, 1006, 1015, 2000, 2999, 5000, 65536 + 1000};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_fault(context_close(&ctx, a, bad[i], text(""), &fault), "RoomError");
    char reason[125];
    memset(reason, 'r', sizeof reason);
    ck_fault(context_close(&ctx, a, 1000, slice_of(reason, 124), &fault), "RoomError");
    ck_fault(context_close(&ctx, a, 1000, text("\xc3"), &fault), "RoomError");
    ck_assert(connection_is_open(a));
    ck_assert(context_close(&ctx, a, 1000, slice_of(reason, 123), &fault));
    const unsigned good[] = {1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        next_segment();
        ck_assert(context_close(&ctx, a, good[i], text(""), &fault));
    }
    end();
}
END_TEST

START_TEST(an_attachment_has_a_cap_and_the_last_one_counts)
{
    begin();
    struct connection *a = join("s1", "ann"), *b = join("s2", "bob");
    char large[2049];
    memset(large, '7', sizeof large);
    ck_fault(context_set_state(&ctx, a, slice_of(large, 2049), &fault), "AttachmentTooLargeError");
    ck_assert_ptr_nonnull(strstr(WHY(fault), "2049"));
    ck_fault(context_set_state(&ctx, a, text("{,}"), &fault), "RoomError");
    ck_slice(connection_state(a), "null");
    ck_assert_uint_eq(segment.states.count, 0);
    ck_assert(context_set_state(&ctx, b, text("{\"b\":1}"), &fault));
    ck_assert(context_set_state(&ctx, a, text("1"), &fault));
    struct slice before = connection_state(a);
    for (int i = 0; i < 100; i++) /* the buffer grows under the slice */
        ck_assert(context_set_state(&ctx, a, slice_of(large, 2048), &fault));
    ck_slice(before, "1");
    ck_assert_uint_eq(connection_state(a).size, 2048);
    ck_slice(connection_state(b), "{\"b\":1}");
    ck_assert_uint_eq(segment.states.count, 2);
    ck_assert_ptr_eq(VEC_AT(&segment.states, struct state_change)[0].connection, a);
    next_segment();
    ck_slice(connection_state(a), "null");
    end();
}
END_TEST

START_TEST(tags_are_compared_whole_and_meta_is_there_while_it_joins)
{
    begin();
    struct connection *a = join("s1", "ann");
    a->tags[0] = text("red");
    a->tags[1] = text("blue");
    a->n_tags = 2;
    ck_assert_uint_eq(connection_tags(a), 2);
    ck_slice(connection_tag(a, 1), "blue");
    ck_assert_uint_eq(connection_tag(a, 2).size, 0);
    ck_assert(connection_has_tag(a, text("red")));
    ck_assert(!connection_has_tag(a, text("re")));
    ck_assert(!connection_has_tag(a, text("reds")));
    strbuf_put_text(&a->meta, "{}");
    ck_assert_uint_eq(connection_meta(a).size, 0);
    a->joining = true;
    ck_slice(connection_meta(a), "{}");
    end();
}
END_TEST

START_TEST(a_send_is_for_one_session)
{
    begin();
    struct connection *a = join("s1", "ann");
    join("s2", "ann");
    ck_assert(context_send(&ctx, a, text("{\"hi\":1}"), &fault));
    ck_assert_str_eq(reached(0), "s1");
    ck_assert_str_eq(payload(0), "{\"hi\":1}");
    ck_assert_int_eq(VEC_AT(&segment.outputs, struct output)[0].kind, OUTPUT_BROADCAST);
    ck_fault(context_send(&ctx, a, text("hi"), &fault), "SendError");
    char *large = mem_alloc(PAYLOAD_MAX_BYTES + 1);
    memset(large, '1', PAYLOAD_MAX_BYTES + 1);
    ck_fault(context_send(&ctx, a, slice_of(large, PAYLOAD_MAX_BYTES + 1), &fault), "SendError");
    ck_assert(context_send(&ctx, a, slice_of(large, PAYLOAD_MAX_BYTES), &fault));
    mem_free(large);
    ck_assert(context_close(&ctx, a, 1000, text(""), &fault));
    ck_fault(context_send(&ctx, a, text("1"), &fault), "SendError");
    ck_assert_uint_eq(segment.outputs.count, 2);
    end();
}
END_TEST

static void tag(struct connection *c, const char *name)
{
    c->tags[c->n_tags++] = text(name);
}

static const char *broadcast(const struct recipients *who)
{
    ck_assert(context_broadcast(&ctx, text("1"), who, &fault));
    return reached(segment.outputs.count - 1);
}

START_TEST(recipients_are_to_else_tags_else_all_less_except)
{
    begin();
    struct connection *a = join("s1", "ann"), *b = join("s2", "bob"), *c = join("s3", "ann");
    tag(a, "x");
    tag(b, "y");
    tag(b, "x");
    tag(c, "z");
    ck_assert_str_eq(broadcast(NULL), "s1 s2 s3");
    ck_assert_uint_eq(VEC_AT(&segment.outputs, struct output)[0].filter_size, 0);
    struct slice ann[] = {text("ann")}, s2[] = {text("s2")}, x[] = {text("x")},
                 yz[] = {text("y"), text("z")}, none[1];
    ck_assert_str_eq(broadcast(&(struct recipients){.to = ann, .n_to = 1}), "s1 s3");
    ck_assert_str_eq(broadcast(&(struct recipients){.to = s2, .n_to = 1}), "s2");
    ck_assert_str_eq(broadcast(&(struct recipients){.tags = x, .n_tags = 1}), "s1 s2");
    ck_assert_str_eq(broadcast(&(struct recipients){.tags = yz, .n_tags = 2}), "s2 s3");
    ck_assert_str_eq(broadcast(&(struct recipients){.except = s2, .n_except = 1}), "s1 s3");
    ck_assert_str_eq(broadcast(&(struct recipients){.except = ann, .n_except = 1}), "s2");
    ck_assert_str_eq(broadcast(&(struct recipients){.to = ann, .n_to = 1, .tags = yz, .n_tags = 2}),
                     "s1 s3");
    ck_assert_str_eq(
        broadcast(&(struct recipients){.tags = x, .n_tags = 1, .except = ann, .n_except = 1}),
        "s2");
    ck_assert_str_eq(broadcast(&(struct recipients){.to = none}), ""); /* given, and nobody */
    ck_assert_str_eq(broadcast(&(struct recipients){.tags = none}), "");
    ck_assert_str_eq(broadcast(&(struct recipients){.except = none}), "s1 s2 s3");
    ck_fault(context_broadcast(&ctx, text("{"), NULL, &fault), "BroadcastError");
    end();
}
END_TEST

START_TEST(who_leaves_gets_what_was_sent_before_only)
{
    begin();
    struct connection *a = join("s1", "ann");
    join("s2", "bob");
    struct connection *c = join("s3", "cid");
    c->closing = true;
    ck_assert_str_eq(broadcast(NULL), "s1 s2");
    ck_assert(context_close(&ctx, a, 1000, text(""), &fault));
    ck_assert_str_eq(broadcast(NULL), "s2");
    struct slice names[] = {text("ann"), text("s3"), text("bob")};
    ck_assert_str_eq(broadcast(&(struct recipients){.to = names, .n_to = 3}), "s2");
    ck_assert_str_eq(reached(0), "s1 s2");
    ctx.phase = PHASE_CLOSE; /* its socket is gone, so it needs no name */
    ctx.connection = c;
    next_segment();
    (void)broadcast(NULL);
    ck_assert_uint_eq(VEC_AT(&segment.outputs, struct output)[0].filter_size, 0);
    end();
}
END_TEST

START_TEST(a_broadcast_to_an_empty_room_succeeds_and_sends_nothing)
{
    begin();
    ck_assert(context_broadcast(&ctx, text("1"), NULL, &fault));
    join("s1", "ann")->closing = true;
    ck_assert(context_broadcast(&ctx, text("1"), NULL, &fault));
    ck_assert_uint_eq(segment.outputs.count, 0);
    ck_fault(context_broadcast(&ctx, text("x"), NULL, &fault), "BroadcastError");
    ck_assert(context_publish(&ctx, text("2"), NULL, &fault)); /* for those who come later */
    ck_assert_uint_eq(segment.outputs.count, 1);
    end();
}
END_TEST

/* Connections "s0" ... with ids long enough that their names do not fit one filter. */
#define MANY 300
static char many_ids[MANY][64];
static struct slice many[MANY];

static void join_many(void)
{
    for (size_t i = 0; i < MANY; i++) {
        char session[8];
        (void)snprintf(session, sizeof session, "s%zu", i);
        (void)snprintf(many_ids[i], sizeof many_ids[i],
                       "a-rather-long-name-of-somebody-who-is-here-%zu", i);
        many[i] = text(many_ids[i]);
        join(session, many_ids[i]);
    }
}

/* How many outputs reach the connection. */
static size_t times_reached(const struct connection *c)
{
    size_t times = 0;
    for (size_t i = 0; i < segment.outputs.count; i++) {
        const struct output *o = &VEC_AT(&segment.outputs, struct output)[i];
        ck_assert_uint_le(o->filter_size, FILTER_MAX_BYTES);
        times += filter_admits(bytes_at(o->filter_at, o->filter_size), connection_session(c),
                               connection_id(c), c->tags, c->n_tags);
    }
    return times;
}

static void check_reached(size_t from, size_t upto, size_t but)
{
    struct connection *const *at = VEC_AT(&actor.connections, struct connection *);
    for (size_t i = 0; i < MANY; i++)
        ck_assert_uint_eq(times_reached(at[i]), i >= from && i < upto && i != but);
}

START_TEST(a_broadcast_whose_names_do_not_fit_goes_out_in_pieces)
{
    begin();
    join_many();
    struct slice last[] = {many[7]};
    struct recipients who = {.to = many, .n_to = 200, .except = last, .n_except = 1};
    ck_assert(context_broadcast(&ctx, text("1"), &who, &fault));
    check_reached(0, 200, 7);
    next_segment();
    who = (struct recipients){.except = many, .n_except = 250};
    ck_assert(context_broadcast(&ctx, text("1"), &who, &fault));
    check_reached(250, MANY, MANY);
    next_segment();
    struct slice twice[MANY];
    memcpy(twice, many, sizeof twice);
    twice[0] = text("s5"); /* also there by its id */
    who = (struct recipients){.to = twice, .n_to = MANY};
    ck_assert(context_broadcast(&ctx, text("1"), &who, &fault));
    check_reached(1, MANY, MANY);
    next_segment();
    for (size_t i = 0; i < MANY; i++) { /* all but two leave */
        struct connection *c = VEC_AT(&actor.connections, struct connection *)[i];
        if (i != 100 && i != 101)
            ck_assert(context_close(&ctx, c, 1001, text(""), &fault));
    }
    ck_assert(context_broadcast(&ctx, text("1"), NULL, &fault));
    ck_assert_uint_eq(segment.outputs.count, 1);
    check_reached(100, 102, MANY);
    segment.outputs.count = 0;
    who = (struct recipients){.to = many, .n_to = MANY};
    ck_assert(context_broadcast(&ctx, text("1"), &who, &fault));
    check_reached(100, 102, MANY);
    end();
}
END_TEST

START_TEST(a_publish_splits_to_and_nothing_else)
{
    begin();
    join_many();
    struct slice twice[MANY];
    memcpy(twice, many, sizeof twice);
    twice[0] = many[9];
    twice[1] = many[200];
    twice[MANY - 1] = text("s5"); /* far from its id */
    struct slice one[] = {many[20]};
    struct publish_wish wish = {.who = {.to = twice, .n_to = MANY, .except = one, .n_except = 1}};
    ck_assert(context_publish(&ctx, text("{\"e\":1}"), &wish, &fault));
    ck_assert_uint_gt(segment.outputs.count, 1);
    check_reached(2, MANY - 1, 20);
    for (size_t i = 0; i < segment.outputs.count; i++) {
        ck_assert_int_eq(VEC_AT(&segment.outputs, struct output)[i].kind, OUTPUT_PUBLISH);
        ck_assert_str_eq(payload(i), "{\"e\":1}");
    }
    next_segment();
    wish.conflate = text("position");
    ck_fault(context_publish(&ctx, text("1"), &wish, &fault), "BroadcastError");
    wish = (struct publish_wish){.who = {.except = many, .n_except = MANY}};
    ck_fault(context_publish(&ctx, text("1"), &wish, &fault), "BroadcastError");
    wish = (struct publish_wish){.who = {.to = many, .n_to = 2, .except = many, .n_except = MANY}};
    ck_fault(context_publish(&ctx, text("1"), &wish, &fault), "BroadcastError");
    ck_assert_uint_eq(segment.outputs.count, 0);
    end();
}
END_TEST

START_TEST(a_publish_carries_conflation_and_types_and_may_be_ephemeral)
{
    begin();
    struct publish_wish wish = {.conflate = text("pos")};
    ck_assert(context_publish(&ctx, text("1"), &wish, &fault));
    wish.ephemeral = true;
    ck_assert(context_publish(&ctx, text("2"), &wish, &fault));
    const struct output *o = VEC_AT(&segment.outputs, struct output);
    ck_assert_int_eq(o[0].kind, OUTPUT_PUBLISH);
    ck_slice(bytes_at(o[0].conflate_at, o[0].conflate_size), "pos");
    ck_assert_int_eq(o[1].kind, OUTPUT_EPHEMERAL);
    char key[CONFLATE_MAX_BYTES + 1];
    memset(key, 'k', sizeof key);
    wish.conflate = slice_of(key, sizeof key);
    ck_fault(context_publish(&ctx, text("2"), &wish, &fault), "BroadcastError");
    ck_fault(context_publish(&ctx, text(""), NULL, &fault), "BroadcastError");
    wish = (struct publish_wish){.meta = text("[[]]")};
    ck_fault(context_publish(&ctx, text("7"), &wish, &fault), "BroadcastError");
    wish.meta = text("[[0]]");
    ck_assert(context_publish(&ctx, text("7"), &wish, &fault));
    o = VEC_AT(&segment.outputs, struct output);
    ck_slice(bytes_at(o[2].payload_at, o[2].payload_size), "{\"json\":7,\"meta\":[[0]]}");
    ck_assert(o[2].typed && !o[1].typed && segment.outputs.count == 3);
    end();
}
END_TEST

START_TEST(what_one_segment_sends_is_bounded)
{
    begin();
    join("s1", "ann");
    char *large = mem_alloc(PAYLOAD_MAX_BYTES);
    memset(large, '1', PAYLOAD_MAX_BYTES);
    size_t sent = 0;
    while (context_broadcast(&ctx, slice_of(large, PAYLOAD_MAX_BYTES), NULL, &fault))
        sent++;
    ck_assert_uint_eq(sent, SEGMENT_MAX_BYTES / PAYLOAD_MAX_BYTES);
    ck_assert_str_eq(fault.tag, "BroadcastError");
    ck_assert_uint_eq(segment.outputs.count, sent);
    mem_free(large);
    end();
}
END_TEST

START_TEST(an_alarm_is_one_and_the_running_one_is_not_seen)
{
    begin();
    int64_t ms;
    ck_assert(!context_next_alarm(&ctx, &ms));
    actor.alarm = (struct alarm){.set = true, .due_ms = 500};
    ck_assert(context_next_alarm(&ctx, &ms));
    ck_assert_int_eq(ms, 500);
    ck_assert(context_schedule_at(&ctx, 900, &fault));
    ck_assert(context_next_alarm(&ctx, &ms));
    ck_assert_int_eq(ms, 900);
    context_cancel(&ctx);
    ck_assert(!context_next_alarm(&ctx, &ms));
    ck_assert(context_schedule_at(&ctx, -5, &fault)); /* past times are due at once */
    ck_assert(context_next_alarm(&ctx, &ms));
    ck_assert_int_eq(ms, 0);
    ck_fault(context_schedule_at(&ctx, INT64_MAX, &fault), "RoomError");
    next_segment();
    actor.alarm.running = true;
    ck_assert(!context_next_alarm(&ctx, &ms));
    actor.alarm.running = false;
    actor.alarm.dead = true;
    ck_assert(!context_next_alarm(&ctx, &ms));
    end();
}
END_TEST

START_TEST(a_run_waits_for_one_thing)
{
    begin();
    ck_fault(context_sleep(&ctx, CONTEXT_SLEEP_MAX_MS + 1, &fault), "RoomError");
    ck_fault(context_sleep(&ctx, -1, &fault), "RoomError");
    ck_assert(context_sleep(&ctx, 30, &fault));
    ck_assert_int_eq(segment.wait, WAIT_SLEEP);
    ck_assert_int_eq(segment.sleep_ms, 30);
    ck_fault(context_sleep(&ctx, 1, &fault), "RoomError");
    ck_fault(
        context_sibling(&ctx, SIBLING_STATE, text("chat"), text("b"), text(""), text(""), &fault),
        "RoomError");
    end();
}
END_TEST

static bool call(const char *type, const char *id, const char *method, const char *input)
{
    return context_sibling(&ctx, SIBLING_CALL, text(type), text(id), text(method), text(input),
                           &fault);
}

START_TEST(a_sibling_is_of_a_declared_type)
{
    begin();
    ck_fault(call("game", "1", "m", "1"), "RoomNotFoundError");
    ck_assert_uint_eq(fault.status, 404);
    ck_fault(call("chat", "", "m", "1"), "RoomError");
    ck_fault(call("chat", "a\n", "m", "1"), "RoomError");
    ck_fault(call("chat", "a", "", "1"), "RoomError");
    ck_fault(call("chat", "a", "m", "{"), "RoomError");
    ck_fault(
        context_sibling(&ctx, SIBLING_SEND, text("chat"), text("a"), text(""), text(""), &fault),
        "RoomError");
    ck_assert_int_eq(segment.wait, WAIT_NONE);
    ck_assert(call("chat", "a:b", "m", ""));
    ck_assert_int_eq(segment.wait, WAIT_SIBLING);
    ck_assert_int_eq(segment.verb, SIBLING_CALL);
    ck_slice(strbuf_slice(&segment.sibling_key), "chat:a:b");
    ck_slice(strbuf_slice(&segment.sibling_method), "m");
    ck_assert_uint_eq(segment.sibling_input.size, 0);
    end();
}
END_TEST

START_TEST(items_of_a_stream_are_json)
{
    begin();
    ck_assert(context_item(&ctx, text("{\"i\":1}"), &fault));
    ck_fault(context_item(&ctx, text("i"), &fault), "SendError");
    ck_assert_uint_eq(segment.items.count, 1);
    const struct state_change *item = VEC_AT(&segment.items, struct state_change);
    ck_slice(bytes_at(item->at, item->size), "{\"i\":1}");
    context_purge(&ctx);
    ck_assert(segment.purge);
    end();
}
END_TEST

/* ---- the log, in a shard ---- */

static const char *log_of(const char *after, unsigned limit)
{
    static char out[2048];
    struct strbuf json = {0};
    if (!context_log(&ctx, text(after), limit, &json, &fault))
        return fault.tag;
    ck_assert(json_valid(strbuf_slice(&json)));
    (void)snprintf(out, sizeof out, "%s", strbuf_cstr(&json));
    strbuf_free(&json);
    return out;
}

/* The log as one line of "seq:data", the epoch and times left out. */
static const char *brief(const char *json)
{
    static char out[512];
    size_t used = 0;
    out[0] = 0;
    for (const char *at = json; (at = strstr(at, "{\"id\":\"")); at++) {
        const char *seq = strchr(at, '-') + 1, *data = strchr(strstr(at, "\"ts\":"), ',') + 1;
        used += (size_t)snprintf(out + used, sizeof out - used, "%s%.*s:%.*s", used ? " " : "",
                                 (int)strcspn(seq, "\""), seq, (int)strcspn(data, "}"), data);
    }
    return out;
}

START_TEST(the_log_is_what_is_retained)
{
    const struct shard_type types[] = {{.name = "events", .retention = {.count = 3}}};
    struct rig *rig = rig_create(types, 1);
    struct rig_client *g = rig_connect(rig, ROLE_GATEWAY);
    rig_sub(g, "k");
    rig_pump(rig);
    begin_in(rig->shard, rooms_find(rig->shard, text("k")));
    ck_assert_str_eq(log_of("", 0), "[]"); /* nothing yet */
    end_in();
    const char *texts[] = {"1", "{\"b\":2}", "\xff\x01", "\"four\""};
    for (size_t i = 0; i < 4; i++)
        rig_ask(g, (struct rig_pub){.key = "k", .text = texts[i], .conflate = i == 3 ? "c" : NULL});
    begin_in(rig->shard, rooms_find(rig->shard, text("k")));
    ck_assert_str_eq(
        brief(log_of("", 0)),
        "2:\"data\":{\"b\":2 3:\"base64\":\"/wE=\" 4:\"data\":\"four\",\"conflate\":\"c\"");
    ck_assert_str_eq(brief(log_of("", 1)), "2:\"data\":{\"b\":2");
    ck_assert_str_eq(brief(log_of("0", 1)), "2:\"data\":{\"b\":2");
    char id[EVENT_ID_MAX_BYTES];
    (void)event_id_format(id, (struct position){actor.room->epoch, 3});
    ck_assert_str_eq(brief(log_of(id, 9)), "4:\"data\":\"four\",\"conflate\":\"c\"");
    (void)event_id_format(id, (struct position){actor.room->epoch, 4});
    ck_assert_str_eq(log_of(id, 9), "[]");
    (void)event_id_format(id, (struct position){actor.room->epoch, 1}); /* gone: from the oldest */
    ck_assert_str_eq(brief(log_of(id, 1)), "2:\"data\":{\"b\":2");
    (void)event_id_format(id, (struct position){actor.room->epoch + 1, 4}); /* another history */
    ck_assert_str_eq(brief(log_of(id, 1)), "2:\"data\":{\"b\":2");
    ck_assert_str_eq(log_of("what", 1), "BadId");
    ck_assert_str_eq(log_of("", 9) + strlen(log_of("", 9)) - 2, "}]");
    end_in();
    rig_destroy(rig);
}
END_TEST

START_TEST(the_log_passes_over_what_the_disk_gives_back_damaged)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *g = rig_connect(rig, ROLE_GATEWAY);
    for (int i = 0; i < 4; i++)
        rig_ask(g, (struct rig_pub){.key = "k", .text = "{}"});
    begin_in(rig->shard, rooms_find(rig->shard, text("k")));
    store_mem_damage(rig->store, actor.room->class_no, retain_at(actor.room->retain, 2)->lsn);
    ck_assert_str_eq(brief(log_of("", 0)), "3:\"data\":{ 4:\"data\":{");
    end_in();
    rig_destroy(rig);
}
END_TEST

/* As if the turn had appended it: to the store and the index, or to the turn alone. */
static void append(struct rig *rig, uint32_t flags, const char *payload_, bool staged)
{
    struct shard *s = rig->shard;
    struct room *room = actor.room;
    const struct store_vtable *store = rig->store->vtable;
    const struct store_record record = {.lsn = ++s->next_lsn,
                                        .room_id = room->room_id,
                                        .seq = ++room->head,
                                        .ts = 5000,
                                        .flags = flags,
                                        .slot = room->slot,
                                        .payload = text(payload_)};
    retain_push(room->retain, record.seq, record.lsn, record.ts, (uint32_t)record.payload.size,
                (struct slice){0}, (struct slice){0});
    if (staged) {
        struct event_item item = {
            .seq = record.seq, .ts = record.ts, .flags = flags, .payload = record.payload};
        struct stage *stage = VEC_AT(&s->turn.stages, struct stage);
        uint32_t place = (uint32_t)s->turn.staged.count + 1;
        *VEC_PUSH(&s->turn.staged, struct staged) = (struct staged){.item = item};
        if (stage->last)
            VEC_AT(&s->turn.staged, struct staged)[stage->last - 1].next = place;
        else
            stage->first = place;
        stage->last = place;
        return;
    }
    ck_assert_int_eq(store->begin(rig->store), ERR_OK);
    ck_assert_int_eq(store->append(rig->store, room->class_no, &record), ERR_OK);
    ck_assert_int_eq(store->commit(rig->store), ERR_OK);
}

START_TEST(the_log_has_what_the_turn_will_commit_and_nothing_transient)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *g = rig_connect(rig, ROLE_GATEWAY);
    rig_ask(g, (struct rig_pub){.key = "k", .text = "1"});
    struct shard *s = rig->shard;
    begin_in(s, rooms_find(s, text("k")));
    append(rig, EVENT_JSON | EVENT_TRANSIENT, "2", false);
    append(rig, EVENT_JSON, "3", false);
    ck_assert_str_eq(brief(log_of("", 0)), "1:\"data\":1 3:\"data\":3");
    *VEC_PUSH(&s->turn.stages, struct stage) =
        (struct stage){.room = actor.room, .head = actor.room->head};
    actor.room->stage = (uint32_t)s->turn.stages.count;
    append(rig, EVENT_JSON, "4", true);
    append(rig, EVENT_JSON | EVENT_TRANSIENT, "5", true);
    append(rig, EVENT_JSON, "6", true);
    ck_assert_str_eq(brief(log_of("", 0)), "1:\"data\":1 3:\"data\":3 4:\"data\":4 6:\"data\":6");
    ck_assert_str_eq(brief(log_of("", 3)), "1:\"data\":1 3:\"data\":3 4:\"data\":4");
    char id[EVENT_ID_MAX_BYTES];
    (void)event_id_format(id, (struct position){actor.room->epoch, 4});
    ck_assert_str_eq(brief(log_of(id, 0)), "6:\"data\":6");
    s->turn.stages.count = s->turn.staged.count = 0; /* the turn was never there */
    actor.room->stage = 0;
    for (; actor.room->head > 3; actor.room->head--)
        retain_pop_newest(actor.room->retain);
    end_in();
    rig_stop(rig);
    rig_destroy(rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_room_knows_its_key_in_parts,
        state_is_read_as_the_segment_wrote_it,
        a_state_that_is_no_json_or_too_large_changes_nothing,
        connections_come_in_the_order_of_acceptance_open_ones_only,
        a_close_needs_a_code_that_may_be_sent,
        an_attachment_has_a_cap_and_the_last_one_counts,
        tags_are_compared_whole_and_meta_is_there_while_it_joins,
        a_send_is_for_one_session,
        recipients_are_to_else_tags_else_all_less_except,
        who_leaves_gets_what_was_sent_before_only,
        a_broadcast_to_an_empty_room_succeeds_and_sends_nothing,
        a_broadcast_whose_names_do_not_fit_goes_out_in_pieces,
        a_publish_splits_to_and_nothing_else,
        a_publish_carries_conflation_and_types_and_may_be_ephemeral,
        what_one_segment_sends_is_bounded,
        an_alarm_is_one_and_the_running_one_is_not_seen,
        a_run_waits_for_one_thing,
        a_sibling_is_of_a_declared_type,
        items_of_a_stream_are_json,
        the_log_is_what_is_retained,
        the_log_passes_over_what_the_disk_gives_back_damaged,
        the_log_has_what_the_turn_will_commit_and_nothing_transient,
    };
    return rig_run("shard_context", tests, sizeof tests / sizeof *tests);
}
