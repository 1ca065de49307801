/* Rates at the gateway: what a socket may say to a room, how it learns that it said too much, and
 * what a shard's refusals become. The shard is played here: it lets everybody in and notes what
 * it hears. */
#include "gateway_world.h"

#include "common/hash.h"

static unsigned n_inputs, n_calls;
static uint64_t counter, joined_counter;
static char session[64];
static struct shard_rules {
    bool mute;        /* inputs are stored, nobody says so */
    uint64_t refuses; /* the input of this number is one too many */
    unsigned call_nacks;
    uint64_t retry_ms;
} rules;

static void say_to(enum message_type type, struct slice key, struct message *m)
{
    m->type = type;
    m->key = key;
    m->slot = slot_of(key, SEED);
    shard_says(m);
}

static void ack_say(struct slice key, uint64_t upto, unsigned code)
{
    struct message m = {.ep = 1};
    m.input_ack.session = slice_text(session);
    m.input_ack.counter = upto;
    m.input_ack.code = code;
    say_to(MSG_INPUT_ACK, key, &m);
}

static void on_join(const struct message *m)
{
    struct message reply = {.cid = m->cid};
    char key[64];
    snprintf(key, sizeof key, "%.*s", SLICE_FMT(m->key));
    snprintf(session, sizeof session, "%.*s", SLICE_FMT(m->join.session));
    if (room_count(key) == 0)
        room_reborn(key, HISTORY);
    reply.joined.session = m->join.session;
    reply.joined.id = slice_text("anon");
    reply.joined.room_epoch = HISTORY;
    reply.joined.head = room_count(key);
    reply.joined.counter = m->join.again ? joined_counter : 0;
    say_to(MSG_JOINED, m->key, &reply);
}

static void on_call(const struct message *m)
{
    struct message reply = {.cid = m->cid};
    n_calls++;
    if (rules.call_nacks > 0) {
        rules.call_nacks--;
        reply.nack.code = NACK_RATE;
        reply.nack.retry_ms = rules.retry_ms;
        say_to(MSG_NACK, m->key, &reply);
    } else if (!rules.mute) {
        reply.result.json = slice_text("1");
        say_to(MSG_RESULT, m->key, &reply);
    }
}

static bool on_room(const struct message *m)
{
    if (m->type == MSG_JOIN) {
        on_join(m);
    } else if (m->type == MSG_CALL) {
        on_call(m);
    } else if (m->type == MSG_INPUT) {
        n_inputs++;
        counter = m->input.counter;
        if (!rules.mute)
            ack_say(m->key, counter, counter == rules.refuses ? NACK_RATE : NACK_NONE);
    } else {
        return m->type == MSG_LEAVE;
    }
    return true;
}

/* Five a second; with a room's rate, and dropping; one an hour; without. */
static const struct gateway_type types[] = {
    {.name = "events", .connection_rate = 5},
    {.name = "chat", .has_handler = true, .connection_rate = 5},
    {.name = "drop", .has_handler = true, .connection_rate = 5, .room_rate = true, .drops = true},
    {.name = "slow", .has_handler = true, .connection_rate = 1.0 / 3600},
    {.name = "free", .has_handler = true, .room_rate = true}};

static void setup(void)
{
    world_setup();
    gateway_retypes(gateway, types, sizeof types / sizeof *types, now);
    n_inputs = n_calls = 0;
    counter = joined_counter = 0;
    rules = (struct shard_rules){0};
    shard_hears = on_room;
}

#define SAY_MANY(client_, n_, text_)      \
    do {                                  \
        for (int i_ = 0; i_ < (n_); i_++) \
            say((client_), (text_));      \
    } while (0)

static double limited(void)
{
    return metric("stoa_refused_total", "tag=\"RateLimited\"");
}

START_TEST(test_raw_is_closed)
{
    struct client *c = open_raw(1, "/ws/chat/r"), *other = open_raw(2, "/ws/chat/r");
    SAY_MANY(1, 5, "1");
    ck_assert(!c->closed);
    say(1, "1");
    ck_assert(c->closed);
    ck_assert_uint_eq(c->code, 1008);
    ck_assert_str_eq(c->reason, "too much on this socket in a short time; go slower");
    ck_assert_uint_eq(n_inputs, 5);
    SAY_MANY(2, 5, "1");
    ck_assert(!other->closed && limited() == 1);
    gateway_validate(gateway);
}
END_TEST

START_TEST(test_raw_is_dropped)
{
    struct client *c = open_raw(1, "/ws/drop/r");
    SAY_MANY(1, 9, "1");
    ck_assert_uint_eq(n_inputs, 5);
    pass_ms(400);
    SAY_MANY(1, 9, "1");
    ck_assert_uint_eq(n_inputs, 7);
    ck_assert_uint_eq(counter, 7); /* no gap */
    ck_assert(!c->closed && metric("stoa_dropped_frames_total", "") == 11 && limited() == 0);
}
END_TEST

/* A log without code does not listen: nothing is counted. */
START_TEST(test_raw_of_a_log)
{
    struct client *c = open_raw(1, "/events?key=k");
    SAY_MANY(1, 20, "1");
    ck_assert(!c->closed && metric("stoa_dropped_frames_total", "") == 0);
}
END_TEST

START_TEST(test_v1)
{
    struct client *c = open_v1(1);
    say(1, "{\"sub\":\"chat:r\"}");
    frame(c);
    for (int i = 0; i < 2; i++) {
        say(1, "{\"send\":\"chat:r\",\"event\":1,\"ref\":1}");
        ck_assert_str_eq(frame(c), "{\"ref\":1,\"ok\":null}");
        say(1, "{\"call\":\"chat:r\",\"method\":\"m\",\"ref\":2}");
        ck_assert_str_eq(frame(c), "{\"ref\":2,\"ok\":1}");
    }
    say(1, "{\"ping\":1}"); /* not the room's */
    frame(c);
    say(1, "{\"pub\":\"chat:r\",\"data\":1}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"key\":\"chat:r\""));
    say(1, "{\"send\":\"chat:r\",\"event\":1,\"ref\":3}");
    ck_assert_str_eq(frame(c),
                     "{\"ref\":3,\"error\":{\"tag\":\"RateLimited\",\"message\":\"too much "
                     "on this socket in a short time; go slower\",\"status\":429}}");
    ck_assert_str_eq(frame(c), "{\"unsub\":\"chat:r\",\"code\":1008,\"reason\":\"too much on this "
                               "socket in a short time; go slower\"}");
    say(1, "{\"sub\":\"chat:r\"}"); /* anew, with the bucket as it is */
    frame(c);
    say(1, "{\"send\":\"chat:r\",\"event\":1}");
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"ref\":null,\"error\":{\"tag\":\"RateLimited\""));
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"unsub\":\"chat:r\""));
    say(1, "{\"pub\":\"chat:s\",\"data\":1,\"ref\":4}");
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"ref\":4,\"ok\":{\"id\""));
    ck_assert(!c->closed && limited() == 2);
}
END_TEST

/* Keys that a socket makes up are remembered as long as they are owed something, and so many. */
START_TEST(test_many_keys)
{
    struct client *c = open_v1(1);
    char text[96];
    for (unsigned i = 0; i < 2010; i++) {
        snprintf(text, sizeof text, "{\"call\":\"slow:%u\",\"method\":\"m\",\"ref\":%u}", i, i);
        say(1, text);
        bool fine = strstr(frame(c), "\"ok\":1") != NULL;
        ck_assert_int_eq(fine, i < 2000);
        snprintf(text, sizeof text, "{\"call\":\"chat:%u\",\"method\":\"m\"}", i);
        if (i < 1000)
            say(1, text);
        if (i % 50 == 49)
            pass_ms(1000); /* those of five a second are full again */
    }
    gateway_validate(gateway);
    pass_ms(2000 * 1000);
    say(1, "{\"call\":\"slow:3000\",\"method\":\"m\",\"ref\":1}");
    ck_assert_ptr_nonnull(strstr(frame(c), "RateLimited"));
    pass_ms(1700 * 1000);
    say(1, "{\"call\":\"slow:3000\",\"method\":\"m\",\"ref\":1}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"ok\":1"));
    hang_up(1, 1000);
}
END_TEST

/* The room refuses the second of three inputs. */
START_TEST(test_room_refuses_an_input)
{
    struct client *c = open_v1(1), *raw = open_raw(2, "/ws/free/r");
    say(1, "{\"sub\":\"free:r\"}");
    frame(c);
    rules.refuses = 2;
    for (int i = 1; i <= 3; i++) {
        char text[96];
        snprintf(text, sizeof text, "{\"send\":\"free:r\",\"event\":1,\"ref\":%d}", i);
        say(1, text);
    }
    ck_assert_str_eq(frame(c), "{\"ref\":1,\"ok\":null}");
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"ref\":2,\"error\":{\"tag\":\"RateLimited\""));
    ck_assert_str_eq(frame(c), "{\"ref\":3,\"ok\":null}");
    ack_say(slice_text("free:r"), 2, NACK_RATE); /* again: nobody waits for it */
    settle();
    ck_assert_str_eq(frame(c), "");
    rules.refuses = 5;
    say(1, "{\"send\":\"free:r\",\"event\":1}");
    say(1, "{\"send\":\"free:r\",\"event\":1}"); /* said without a ref, refused all the same */
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"ref\":null,\"error\":{\"tag\":\"RateLimited\""));
    ck_assert(!raw->closed);
}
END_TEST

START_TEST(test_room_refuses_a_raw_frame)
{
    struct client *c = open_raw(1, "/ws/free/r");
    rules.refuses = 2;
    say(1, "1");
    ck_assert(!c->closed);
    say(1, "2");
    ck_assert(c->closed);
    ck_assert_uint_eq(c->code, 1008);
    c = open_raw(2, "/ws/drop/r");
    say(2, "1");
    say(2, "2");
    say(2, "3");
    ck_assert(!c->closed && metric("stoa_dropped_frames_total", "") == 1);
    ck_assert_uint_eq(n_inputs, 5);
}
END_TEST

/* The shard has judged two inputs, and its answers are lost: one may have been refused. */
START_TEST(test_lost_refusal)
{
    struct client *c = open_v1(1);
    say(1, "{\"sub\":\"free:r\"}");
    frame(c);
    rules.mute = true;
    for (int i = 1; i <= 3; i++)
        say(1, "{\"send\":\"free:r\",\"event\":1,\"ref\":1}");
    shard_down();
    rules.mute = false;
    joined_counter = 2;
    shard_up(true);
    for (int i = 1; i <= 2; i++)
        ck_assert_ptr_nonnull(strstr(frame(c), "{\"ref\":1,\"error\":{\"tag\":\"Unknown\""));
    ck_assert_str_eq(frame(c), "{\"ref\":1,\"ok\":null}");
}
END_TEST

START_TEST(test_http)
{
    rules.call_nacks = 2;
    rules.retry_ms = 9001;
    struct client *c = ask(1, "POST /api/free/r/m", NULL, "1");
    ASSERT_ERROR(c, 429, "RateLimited");
    ck_assert_ptr_nonnull(strstr(c->headers, "Retry-After: 10\r\n"));
    rules.retry_ms = 0;
    c = ask(2, "POST /api/free/r/send", NULL, "1");
    ASSERT_ERROR(c, 429, "RateLimited");
    ck_assert_ptr_nonnull(strstr(c->headers, "Retry-After: 1\r\n"));
    faults.nack = NACK_RATE;
    faults.nacks = 1;
    faults.retry_ms = 1000;
    c = ask(3, "POST /publish?key=k", NULL, "1");
    ASSERT_ERROR(c, 429, "RateLimited");
    ck_assert_ptr_nonnull(strstr(c->headers, "Retry-After: 1\r\n"));
    for (unsigned i = 4; i < 24; i++) /* connections of HTTP have no rate */
        ck_assert_uint_eq(ask(i, "POST /publish?key=k", NULL, "1")->status, 200);
    ck_assert(limited() == 3);
}
END_TEST

/* An attempt went down with its link, and may have run: a refusal of the next one is no answer. */
START_TEST(test_uncertain)
{
    rules.mute = true;
    struct client *c = ask(1, "POST /api/free/r/m", NULL, "1");
    shard_down();
    rules.mute = false;
    rules.call_nacks = 2;
    rules.retry_ms = 500;
    shard_up(true);
    pass_ms(300);
    ck_assert(c->responses == 0 && n_calls >= 2);
    pass_ms(3000);
    ck_assert_uint_eq(c->status, 200);
    faults.lose_publishes = true;
    c = ask(2, "POST /publish?key=k", NULL, "1");
    router_down(0);
    faults.lose_publishes = false;
    faults.nack = NACK_RATE;
    faults.nacks = 1;
    faults.retry_ms = 500;
    router_up(0);
    pass_ms(3000);
    ck_assert_uint_eq(c->status, 200);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("rates");
    tcase_add_checked_fixture(tc, setup, world_teardown);
    tcase_set_timeout(tc, 60);
    const TTest *const tests[] = {test_raw_is_closed,
                                  test_raw_is_dropped,
                                  test_raw_of_a_log,
                                  test_v1,
                                  test_many_keys,
                                  test_room_refuses_an_input,
                                  test_lost_refusal,
                                  test_http,
                                  test_room_refuses_a_raw_frame,
                                  test_uncertain};
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tc, tests[i]);
    Suite *s = suite_create("gateway rates");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
