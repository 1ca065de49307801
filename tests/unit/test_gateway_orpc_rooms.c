/* Rooms with handlers in the orpc dialect: methods, streams of items, errors, members. The shard is
 * played here. */
#include "gateway_orpc.h"

/* ---- methods ---- */

static struct {
    unsigned calls, joins, leaves;
    uint64_t cid, streams;
    char name[128], input[256], request[2048], session[64];
    struct msg_result results[4];
    unsigned n_results;
    struct msg_joined joined;
    bool mute;
} shard;

static void say_result(uint64_t cid, const struct msg_result *r)
{
    struct message m = {.type = MSG_RESULT, .cid = cid};
    m.result = *r;
    shard_says(&m);
}

static bool room_hears(const struct message *m)
{
    if (m->type == MSG_CALL) {
        shard.calls++;
        shard.cid = m->cid;
        shard.streams = m->call.streams;
        snprintf(shard.name, sizeof shard.name, "%.*s", SLICE_FMT(m->call.name));
        snprintf(shard.input, sizeof shard.input, "%.*s", SLICE_FMT(m->call.input));
        for (unsigned i = 0; i < shard.n_results && !shard.mute; i++)
            say_result(m->cid, &shard.results[i]);
        return true;
    }
    if (m->type == MSG_JOIN) {
        struct message reply = {.type = MSG_JOINED, .cid = m->cid, .slot = m->slot, .key = m->key};
        shard.joins++;
        snprintf(shard.request, sizeof shard.request, "%.*s", SLICE_FMT(m->join.request));
        snprintf(shard.session, sizeof shard.session, "%.*s", SLICE_FMT(m->join.session));
        reply.joined = shard.joined;
        reply.joined.session = m->join.session;
        shard_says(&reply);
        return true;
    }
    shard.leaves += m->type == MSG_LEAVE;
    return m->type == MSG_LEAVE;
}

#define CHAT_CLAIMS                                                                             \
    "{\"chn\":\"r\",\"tags\":[\"t\"],\"rpc\":[\"say\",\"router\"],\"att\":{\"u\":1},\"iat\":1," \
    "\"exp\":4102444800}"

static struct client *open_chat(unsigned client)
{
    struct client *c = upgrade(client, target("/rooms/7", "ann", signed_token(CHAT_CLAIMS)), NULL);
    ck_assert(c->upgraded);
    return c;
}

static void setup(void)
{
    world_options();
    options.routes = own_routes;
    options.n_routes = 2;
    world_start();
    memset(&shard, 0, sizeof shard);
    shard_hears = room_hears;
}

static void returns(const char *json)
{
    shard.results[0] = (struct msg_result){.json = slice_text(json)};
    shard.n_results = 1;
}

#define CALL(id, body) "{\"i\":" id ",\"p\":{\"u\":\"/call\",\"b\":" body "}}"

START_TEST(test_call)
{
    struct client *c = open_chat(1);
    returns("\"Echo: Hello\"");
    say(1, CALL("\"3\"",
                "{\"json\":{\"path\":[\"router\",\"echo\"],\"input\":{\"text\":\"Hello\"}}}"));
    hears(c, "{\"i\":\"3\",\"p\":{\"b\":{\"json\":\"Echo: Hello\"}}}");
    ck_assert_str_eq(shard.name, "router.echo");
    ck_assert_str_eq(shard.input, "{\"text\":\"Hello\"}");
    ck_assert_uint_eq(shard.streams, 1);
    returns("null");
    say(1, CALL("\"4\"", "{\"json\":{\"path\":[\"say\"]}}"));
    hears(c, "{\"i\":\"4\",\"p\":{\"b\":{}}}");
    ck_assert_str_eq(shard.input, "");
    say(1, "{\"i\":\"5\",\"p\":{\"m\":\"GET\",\"u\":\"/call?data=%7B%22json%22:%7B%22path%22:"
           "%5B%22say%22%5D,%22input%22:%22a+b%22%7D%7D\"}}");
    hears(c, "{\"i\":\"5\",\"p\":{\"b\":{}}}");
    ck_assert_str_eq(shard.input, "\"a b\"");
    ck_assert_uint_eq(shard.calls, 3);
    say(1, CALL("\"6\"", "{\"json\":{\"path\":[\"other\"]}}"));
    hears(c,
          "{\"i\":\"6\",\"p\":{\"s\":403,\"b\":{\"json\":{\"defined\":false,\"code\":\"FORBIDDEN\","
          "\"status\":403,\"message\":\"Method \\\"other\\\" is not allowed.\"}}}}");
    ck_assert_uint_eq(shard.calls, 3);
}
END_TEST

START_TEST(test_call_that_is_none)
{
    static const struct {
        const char *body, *code;
    } table[] = {
        {"{}", "Input validation failed"},
        {"{\"json\":1}", "Input validation failed"},
        {"{\"json\":{\"path\":[]}}", "Input validation failed"},
        {"{\"json\":{\"path\":[1]}}", "Input validation failed"},
        {"{\"json\":{\"path\":\"say\"}}", "Input validation failed"},
        {"7", "Malformed request"},
        {"{\"json\":{\"path\":[\"say\"]},\"meta\":{}}", "Malformed request"},
        {"{\"json\":{\"path\":[\"say\"]},\"meta\":[[0,\"input\"]]}", "Malformed request"},
        {"{\"json\":{\"path\":[\"say\"]},\"meta\":[[1,\"__proto__\"]]}", "Malformed request"},
        {"{\"json\":{\"path\":[\"say\"]},\"meta\":[[1,\"path\",1]]}", "Malformed request"},
        {"{\"json\":{\"path\":[\"say\"]},\"meta\":[[\"1\",\"path\"]]}", "Malformed request"},
        {"{\"meta\":[[3]]}", "Malformed request"},
    };
    struct client *c = open_chat(1);
    char text[512];
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        snprintf(text, sizeof text, CALL("1", "%s"), table[i].body);
        say(1, text);
        const char *answer = frame(c);
        ck_assert_msg(strstr(answer, "\"s\":400") && strstr(answer, table[i].code), "%s: %s",
                      table[i].body, answer);
    }
    ck_assert_uint_eq(shard.calls, 0);
    returns("1");
    say(1, CALL("1", "{\"json\":{\"path\":[\"say\"],\"input\":{\"at\":[\"x\"]}},\"meta\":[[1,"
                     "\"input\",\"at\",0],[6,\"input\",\"\\u0061t\"],[2,\"path\",0]]}"));
    ck_assert_str_eq(shard.input,
                     "{\"json\":{\"at\":[\"x\"]},\"meta\":[[1,\"at\",0],[6,\"\\u0061t\"]]}");
    ck_assert_uint_eq(shard.streams, CALL_STREAMS | CALL_TYPED);
    hears(c, "{\"i\":1,\"p\":{\"b\":{\"json\":1}}}");
}
END_TEST

START_TEST(test_stream)
{
    struct client *c = open_chat(1);
    shard.results[0] = (struct msg_result){.more = 1, .json = slice_text("{\"n\":1}")};
    shard.results[1] = (struct msg_result){.more = 1, .json = slice_text("null")};
    shard.results[2] = (struct msg_result){.json = slice_text("{\"end\":true}")};
    shard.n_results = 3;
    say(1, CALL("\"2\"", "{\"json\":{\"path\":[\"say\"]}}"));
    hears(c, OPENED("\"2\""));
    hears(c, "{\"i\":\"2\",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":{\"n\":1}}}}");
    hears(c, "{\"i\":\"2\",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":null}}}");
    hears(c, "{\"i\":\"2\",\"t\":3,\"p\":{\"e\":\"done\",\"d\":{\"json\":{\"end\":true}}}}");
    shard.results[2] = (struct msg_result){.status = 409,
                                           .tag = slice_text("TAKEN"),
                                           .text = slice_text("no"),
                                           .json = slice_text("[1]")};
    say(1, CALL("\"3\"", "{\"json\":{\"path\":[\"say\"]}}"));
    hears(c, OPENED("\"3\""));
    (void)frame(c);
    (void)frame(c);
    hears(c,
          "{\"i\":\"3\",\"t\":3,\"p\":{\"e\":\"error\",\"d\":{\"json\":{\"defined\":false,\"code\":"
          "\"TAKEN\",\"status\":409,\"message\":\"no\",\"data\":[1]}}}}");
}
END_TEST

START_TEST(test_abort)
{
    struct client *c = open_chat(1);
    shard.mute = true;
    say(1, CALL("\"2\"", "{\"json\":{\"path\":[\"say\"]}}"));
    say(1, CALL("\"2\"", "{\"json\":{\"path\":[\"say\"]}}")); /* runs already */
    ck_assert_uint_eq(shard.calls, 1);
    uint64_t first = shard.cid;
    say_result(first, &(struct msg_result){.more = 1, .json = slice_text("1")});
    settle();
    say(1, "{\"i\":\"2\",\"t\":4}");
    say(1, CALL("\"2\"", "{\"json\":{\"path\":[\"say\"]}}"));
    ck_assert_uint_eq(shard.calls, 2);
    uint64_t second = shard.cid;
    say_result(first, &(struct msg_result){.json = slice_text("\"first\"")});
    say_result(second, &(struct msg_result){.json = slice_text("\"second\"")});
    settle();
    hears(c, OPENED("\"2\""));
    hears(c, "{\"i\":\"2\",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":1}}}");
    hears(c, "{\"i\":\"2\",\"p\":{\"b\":{\"json\":\"second\"}}}");
    hears(c, "");
}
END_TEST

START_TEST(test_errors_of_rooms)
{
    static const struct {
        const char *tag;
        unsigned status;
        const char *wanted;
    } table[] = {
        {"NOT_FOUND", 404,
         "\"s\":404,\"b\":{\"json\":{\"defined\":false,\"code\":\"NOT_FOUND\","
         "\"status\":404,\"message\":\"text\"}}"},
        {"RoomExecutionError", 500,
         "\"s\":500,\"b\":{\"json\":{\"defined\":false,\"code\":\"INTERNAL_SERVER_ERROR\","
         "\"status\":"
         "500,\"message\":\"Internal server error\"}}"},
        {"NoSuchMethod", 404,
         "\"s\":500,\"b\":{\"json\":{\"defined\":false,\"code\":\"INTERNAL_SERVER_ERROR\","
         "\"status\":"
         "500,\"message\":\"Internal server error\"}}"},
        {"RoomValidationError", 400,
         "\"s\":400,\"b\":{\"json\":{\"defined\":false,\"code\":"
         "\"BAD_REQUEST\",\"status\":400,\"message\":\"text\"}}"},
    };
    struct client *c = open_chat(1);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        shard.results[0] = (struct msg_result){
            .status = table[i].status, .tag = slice_text(table[i].tag), .text = slice_text("text")};
        shard.n_results = 1;
        say(1, CALL("1", "{\"json\":{\"path\":[\"say\"]}}"));
        const char *answer = frame(c);
        ck_assert_msg(strstr(answer, table[i].wanted), "%s", answer);
    }
    hang_up(1, 1000);
}
END_TEST

START_TEST(test_room_without_handler)
{
    world_teardown();
    world_options();
    options.orpc_signing_key = KEY;
    world_start();
    struct client *c = open_e2(1, "a", E2_CLAIMS);
    say(1, CALL("1", "{\"json\":{\"path\":[\"publishMessage\"]}}"));
    hears(c, "{\"i\":1,\"p\":{\"s\":404,\"b\":{\"json\":{\"defined\":false,\"code\":\"NOT_FOUND\","
             "\"status\":404,\"message\":\"this channel's room has no methods\"}}}}");
}
END_TEST

/* ---- members ---- */

START_TEST(test_join)
{
    struct client *c = open_chat(1);
    ck_assert_uint_eq(shard.joins, 0);
    shard.joined = (struct msg_joined){.id = slice_text("ann"), .tags = slice_text("[\"t\"]")};
    say(1, SUBSCRIBE("\"1\""));
    ck_assert_uint_eq(shard.joins, 1);
    hears(c, OPENED("\"1\""));
    ck_assert_ptr_nonnull(strstr(shard.request,
                                 "\"claims\":{\"chn\":\"r\",\"tags\":[\"t\"],\"rpc\":["
                                 "\"say\",\"router\"],\"att\":{\"u\":1},\"iat\":1,"
                                 "\"exp\":4102444800,\"id\":\"ann\"}"));
    ck_assert_ptr_null(strstr(shard.request, "token"));
    room_say("chat:7-r", "{\"hi\":1}", EVENT_JSON | EVENT_UTF8 | EVENT_TRANSIENT,
             slice_of(NULL, 0));
    settle();
    hears(c, "{\"i\":\"1\",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":{\"hi\":1}}}}");
    say(1, "{\"i\":\"1\",\"t\":4}");
    ck_assert_uint_eq(shard.leaves, 1);
    shard.joined = (struct msg_joined){
        .status = 403, .tag = slice_text("Forbidden"), .text = slice_text("not you")};
    say(1, SUBSCRIBE("\"2\""));
    hears(c,
          "{\"i\":\"2\",\"p\":{\"s\":403,\"b\":{\"json\":{\"defined\":false,\"code\":\"FORBIDDEN\","
          "\"status\":403,\"message\":\"not you\"}}}}");
    shard.joined = (struct msg_joined){.id = slice_text("ann")};
    say(1, SUBSCRIBE("\"2\""));
    hears(c, OPENED("\"2\""));
    hang_up(1, 1000);
    ck_assert_uint_eq(shard.leaves, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway orpc rooms");
    TCase *c = tcase_create("rooms");
    tcase_add_checked_fixture(c, setup, world_teardown);
    tcase_add_test(c, test_call);
    tcase_add_test(c, test_call_that_is_none);
    tcase_add_test(c, test_stream);
    tcase_add_test(c, test_abort);
    tcase_add_test(c, test_errors_of_rooms);
    tcase_add_test(c, test_room_without_handler);
    tcase_add_test(c, test_join);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
