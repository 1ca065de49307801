/* Presence as stoa.v1 tells it: the members where the subscription has come as far as they were
 * counted, then who comes and goes; to those who asked, and to nobody else. And what a room's
 * auto_response answers. The shard's rules are played here. */
#include "gateway_world.h"

#include "common/hash.h"
#include "proto/message.h"

static struct shard_side {
    unsigned joins, asked; /* JOINs, and those that want the members */
    bool mute;             /* they are kept */
    bool counts_nobody;    /* the shard's configuration is another one */
    uint64_t cid, members; /* of the last JOIN */
    uint64_t seq;          /* members_seq; 0: the head */
    char session[64];
    const char *request, *response; /* auto_response */
} side;

static void say_to(enum message_type type, struct message *m)
{
    m->type = type;
    m->key = slice_text("chat:r");
    m->slot = slot_of(m->key, SEED);
    shard_says(m);
}

static void answer(void)
{
    struct message m = {.cid = side.cid};
    if (room_count("chat:r") == 0)
        room_reborn("chat:r", HISTORY);
    m.joined.session = slice_text(side.session);
    m.joined.id = slice_text("me");
    m.joined.room_epoch = HISTORY;
    m.joined.head = room_count("chat:r");
    m.joined.members_seq = side.seq ? side.seq : m.joined.head;
    if (side.members && !side.counts_nobody)
        m.joined.members = slice_text("{\"members\":[1]}");
    m.joined.auto_request = slice_text(side.request ? side.request : "");
    m.joined.auto_response = slice_text(side.response ? side.response : "");
    say_to(MSG_JOINED, &m);
}

static bool on_message(const struct message *m)
{
    if (m->type == MSG_LEAVE || m->type == MSG_INPUT)
        return true;
    if (m->type != MSG_JOIN)
        return false;
    side.joins++;
    side.asked += m->join.members != 0;
    side.cid = m->cid;
    side.members = m->join.members;
    snprintf(side.session, sizeof side.session, "%.*s", SLICE_FMT(m->join.session));
    if (!side.mute)
        answer();
    return true;
}

static const struct gateway_type types[] = {{.name = "events"},
                                            {.name = "chat", .has_handler = true, .presence = true},
                                            {.name = "mute", .has_handler = true}};

static void setup(void)
{
    world_setup();
    side = (struct shard_side){0};
    shard_hears = on_message;
    gateway_retypes(gateway, types, sizeof types / sizeof *types, now);
}

static void item(const char *payload)
{
    room_say("chat:r", payload, EVENT_TRANSIENT | EVENT_PRESENCE | EVENT_JSON | EVENT_UTF8,
             slice_text(""));
}

#define SUB "{\"sub\":\"chat:r\",\"presence\":true}"
#define PRESENCE(what) "{\"presence\":\"chat:r\"," what "}"
#define ck_frame(c_, text_) ck_assert_str_eq(frame(c_), text_)
#define ck_data(c_, data_) ck_assert_ptr_nonnull(strstr(frame(c_), ",\"data\":" data_ "}"))

START_TEST(test_told)
{
    struct client *c = open_v1(1);
    struct client *deaf = open_v1(2);
    say(2, "{\"sub\":\"chat:r\",\"presence\":false}");
    frame(deaf);
    struct client *raw = open_raw(3, "/ws/chat/r");
    struct client *sse = open_sse(4, "/api/chat/r/events", NULL);
    (void)rest(sse);
    say(1, SUB);
    ck_assert_uint_eq(side.asked, 1);
    ck_assert_ptr_nonnull(strstr(frame(c), "\"status\":\"live\""));
    ck_frame(c, PRESENCE("\"members\":[1]"));
    room_publish("chat:r", "1");
    item("{\"join\":{\"id\":\"a\"}}");
    room_say("chat:r", "2", EVENT_JSON | EVENT_UTF8, slice_text(""));
    item("{\"leave\":{\"id\":\"a\"}}");
    settle();
    ck_data(c, "1");
    ck_frame(c, PRESENCE("\"join\":{\"id\":\"a\"}"));
    ck_data(c, "2");
    ck_frame(c, PRESENCE("\"leave\":{\"id\":\"a\"}"));
    ck_frame(c, "");
    ck_data(deaf, "1");
    ck_data(deaf, "2");
    ck_frame(deaf, "");
    ck_frame(raw, "1");
    ck_frame(raw, "2");
    ck_frame(raw, "");
    ck_assert_ptr_null(strstr(rest(sse), "join"));
    say(1, "{\"unsub\":\"chat:r\"}");
    ck_frame(c, "{\"unsub\":\"chat:r\"}");
    item("{\"join\":{\"id\":\"b\"}}");
    settle();
    ck_frame(c, "");
}
END_TEST

/* Counted as of a seq in the midst of what is delivered at once. */
START_TEST(test_where_it_was_counted)
{
    struct client *c = open_v1(1);
    room_append("chat:r", "0");
    side.mute = true;
    say(1, SUB);
    side.seq = 4;
    answer();
    room_say("chat:r", "1", EVENT_JSON | EVENT_UTF8, slice_text(""));
    item("{\"join\":{\"id\":\"in the list\"}}");
    room_say("chat:r", "2", EVENT_JSON | EVENT_UTF8, slice_text(""));
    item("{\"join\":{\"id\":\"a\"}}");
    room_say("chat:r", "3", EVENT_JSON | EVENT_UTF8, slice_text(""));
    settle();
    ck_frame(c, "{\"sub\":\"chat:r\",\"status\":\"live\",\"head\":\"100-1\"}");
    ck_data(c, "1");
    ck_data(c, "2");
    ck_frame(c, PRESENCE("\"members\":[1]"));
    ck_frame(c, PRESENCE("\"join\":{\"id\":\"a\"}"));
    ck_data(c, "3");
    ck_frame(c, "");
}
END_TEST

START_TEST(test_behind_a_replay)
{
    struct client *c = open_v1(1);
    room_append("chat:r", "1");
    item("{\"join\":{\"id\":\"long ago\"}}");
    room_append("chat:r", "2");
    say(1, "{\"sub\":\"chat:r\",\"presence\":true,\"replay\":\"all\"}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"status\":\"resumed\""));
    ck_data(c, "1");
    ck_data(c, "2");
    ck_frame(c, PRESENCE("\"members\":[1]"));
    item("{\"leave\":{\"id\":\"a\"}}");
    settle();
    ck_frame(c, PRESENCE("\"leave\":{\"id\":\"a\"}"));
}
END_TEST

/* A lost DELIVER is repaired; a lost shard is rejoined without a word. */
START_TEST(test_repaired)
{
    struct client *c = open_v1(1);
    room_append("chat:r", "0");
    say(1, SUB);
    frame(c);
    ck_frame(c, PRESENCE("\"members\":[1]"));
    faults.lose_delivers = 1;
    item("{\"join\":{\"id\":\"a\"}}");
    settle();
    ck_frame(c, "");
    item("{\"join\":{\"id\":\"b\"}}");
    settle();
    ck_frame(c, PRESENCE("\"join\":{\"id\":\"a\"}"));
    ck_frame(c, PRESENCE("\"join\":{\"id\":\"b\"}"));
    shard_down();
    shard_up(true);
    pass_ms(2000);
    ck_assert_uint_eq(side.joins, 2);
    ck_assert_uint_eq(side.asked, 1);
    item("{\"leave\":{\"id\":\"a\"}}");
    settle();
    ck_frame(c, PRESENCE("\"leave\":{\"id\":\"a\"}"));
    ck_frame(c, "");
}
END_TEST

/* Behind a gap nobody knows any more who is there. */
START_TEST(test_missed)
{
    struct client *c = open_v1(1);
    room_append("chat:r", "0");
    say(1, SUB);
    frame(c);
    frame(c);
    faults.lose_delivers = 2;
    item("{\"join\":{\"id\":\"a\"}}");
    room_say("chat:r", "1", EVENT_JSON | EVENT_UTF8, slice_text(""));
    settle();
    room_trim("chat:r", 3, MISS_EXPIRED);
    room_publish("chat:r", "2");
    settle();
    ck_assert_ptr_nonnull(strstr(frame(c), "\"status\":\"missed\""));
    ck_assert_uint_eq(side.asked, 2);
    ck_data(c, "2");
    ck_frame(c, PRESENCE("\"members\":[1]"));
    item("{\"leave\":{\"id\":\"a\"}}");
    settle();
    ck_frame(c, PRESENCE("\"leave\":{\"id\":\"a\"}"));
}
END_TEST

/* The answer that brings the members is lost with the link: they are asked for again. */
START_TEST(test_answer_lost)
{
    struct client *c = open_v1(1);
    room_append("chat:r", "0");
    side.mute = true;
    say(1, SUB);
    shard_down();
    side.mute = false;
    shard_up(true);
    pass_ms(2000);
    ck_assert_uint_eq(side.asked, 2);
    frame(c);
    ck_frame(c, PRESENCE("\"members\":[1]"));
    ck_frame(c, "");
}
END_TEST

START_TEST(test_refused)
{
    static const struct {
        const char *frame, *message;
    } table[] = {
        {"{\"sub\":\"mute:r\",\"presence\":true}", "rooms of this type do not count members"},
        {"{\"sub\":\"plain\",\"presence\":true}", "rooms of this type do not count members"},
        {"{\"sub\":\"chat:r\",\"presence\":1}", "presence: true or false"},
        {"{\"sub\":\"chat:r\",\"presence\":null}", "presence: true or false"},
    };
    struct client *c = open_v1(1);
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++) {
        say(1, table[i].frame);
        const char *text = frame(c);
        ck_assert_msg(strstr(text, table[i].message) && strstr(text, "\"BadRequest\""), "%s", text);
    }
    ck_assert_uint_eq(side.joins, 0);
}
END_TEST

/* Shard and gateway do not agree: the subscription ends, and says why. */
START_TEST(test_configured_apart)
{
    struct client *c = open_v1(1);
    side.counts_nobody = true;
    say(1, SUB);
    const char *text = frame(c);
    ck_assert_msg(strstr(text, "{\"sub\":\"chat:r\",\"error\":{\"tag\":\"Busy\""), "%s", text);
    side.counts_nobody = false;
    say(1, SUB);
    frame(c);
    ck_frame(c, PRESENCE("\"members\":[1]"));
    static const struct gateway_type after[] = {{.name = "events"},
                                                {.name = "chat", .has_handler = true}};
    struct client *plain = open_v1(2);
    side.members = 0;
    say(2, "{\"sub\":\"chat:r\"}");
    frame(plain);
    gateway_retypes(gateway, after, 2, now);
    settle();
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"unsub\":\"chat:r\",\"code\":1012"));
    ck_frame(plain, "");
    ck_assert(!c->closed && !plain->closed);
}
END_TEST

START_TEST(test_auto_response)
{
    struct client *c = open_v1(1);
    side.request = "{\"ping\":1}";
    side.response = "{\"pong\":1}";
    say(1, "{\"sub\":\"chat:r\"}");
    frame(c);
    say(1, "{\"send\":\"chat:r\",\"event\":{\"ping\":1},\"ref\":7}");
    const char *text = frame(c);
    ck_assert_msg(strstr(text, "{\"key\":\"chat:r\",\"ts\":") &&
                      strstr(text, ",\"data\":{\"pong\":1}}"),
                  "%s", text);
    ck_frame(c, "{\"ref\":7,\"ok\":null}");
    say(1, "{\"unsub\":\"chat:r\"}");
    frame(c);
    side.request = "ping";
    side.response = "pong";
    say(1, "{\"sub\":\"chat:r\"}");
    frame(c);
    say(1, "{\"send\":\"chat:r\",\"event\":\"ping\"}");
    ck_assert_ptr_nonnull(strstr(frame(c), ",\"base64\":\"cG9uZw==\"}"));
    say(1, "{\"send\":\"chat:r\",\"event\":\"pin\"}");
    ck_frame(c, "");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("presence");
    tcase_add_checked_fixture(tc, setup, world_teardown);
    tcase_add_test(tc, test_told);
    tcase_add_test(tc, test_where_it_was_counted);
    tcase_add_test(tc, test_behind_a_replay);
    tcase_add_test(tc, test_repaired);
    tcase_add_test(tc, test_missed);
    tcase_add_test(tc, test_answer_lost);
    tcase_add_test(tc, test_refused);
    tcase_add_test(tc, test_configured_apart);
    tcase_add_test(tc, test_auto_response);
    Suite *suite = suite_create("gateway presence");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
