/* The uploadista dialect, frame by frame: what its clients are told on every path, with every kind
 * of token, past a gap; and that a viewer who leaves or is refused is nobody else's concern. */
#include "common/token/identity.h"
#include "gateway_world.h"

#define NOW "2023-11-14T22:13:20.000Z" /* of world_options */
#define TIMED ",\"timestamp\":\"" NOW "\"}"
#define SUBSCRIBED(key) "{\"type\":\"subscribed\",\"payload\":{\"eventKey\":\"" key "\"}" TIMED
#define GREETING "{\"type\":\"connection\",\"message\":\"Uploadista WebSocket connected\""
#define CONNECTION(id) GREETING ",\"id\":\"" id "\",\"uploadId\":\"" id "\"" TIMED
#define JOB_CONNECTION(id) GREETING ",\"id\":\"" id "\",\"jobId\":\"" id "\"" TIMED
#define REFUSED_BY(method, as)                                                   \
    "{\"type\":\"auth-failed\",\"message\":\"Authentication failed: invalid or " \
    "expired " as "\",\"code\":\"AUTH_FAILED\",\"authMethod\":\"" method "\"}"

/* A socket, and all that it is told at once. */
static void opens(unsigned client, const char *target, const char *const *frames)
{
    struct client *c = open_raw(client, target);
    for (; *frames; frames++) {
        ck_assert_str_eq(frame(c), *frames);
        ck_assert(frame_was_text());
    }
    ck_assert_str_eq(rest(c), "");
}
#define OPENS(client, target, ...) opens(client, target, (const char *const[]){__VA_ARGS__, NULL})

static void tells(struct client *c, const char *wanted)
{
    ck_assert_str_eq(frame(c), wanted);
    ck_assert_str_eq(rest(c), "");
}

static double sockets(void)
{
    return metric_value(metrics_gauge(metrics, "stoa_sockets", "dialect=\"uploadista\"", ""));
}

START_TEST(test_frames)
{
    room_append("u1", "{\"a\":1}");
    room_append("u1", "not json");
    OPENS(1, "/uploadista/ws/upload/u1", SUBSCRIBED("u1"), CONNECTION("u1"), "{\"a\":1}",
          "not json");
    room_publish("u1", "\xe2\x82\xac live");
    tells(&clients[1], "\xe2\x82\xac live");
    room_publish_bytes("u1", "\xff\x01", 2, 0);
    settle();
    ck_assert_mem_eq(frame(&clients[1]), "\xff\x01", 3);
    ck_assert(!frame_was_text());
    OPENS(2, "/uploadista/ws/flow/job-1", SUBSCRIBED("job-1"), JOB_CONNECTION("job-1"));
    room_publish("job-1", "{\"type\":\"flow_event\"}");
    tells(&clients[2], "{\"type\":\"flow_event\"}");
    ck_assert_str_eq(rest(&clients[1]), "");
    ck_assert_double_eq(sockets(), 2);
    hang_up(1, 1000);
    room_publish("job-1", "2");
    tells(&clients[2], "2");
    ck_assert_double_eq(sockets(), 1);
}
END_TEST

/* One viewer of a key leaves; the others of the key stay. */
START_TEST(test_leaving_is_ones_own)
{
    for (unsigned i = 1; i <= 3; i++)
        OPENS(i, "/uploadista/ws/upload/u1", SUBSCRIBED("u1"), CONNECTION("u1"));
    hang_up(1, 1000);
    hang_up(2, 1006);
    room_publish("u1", "1");
    tells(&clients[3], "1");
    ck_assert_uint_eq(n_unsubs, 0);
}
END_TEST

static const struct {
    const char *target, *key, *id;
} names[] = {
    {"/uploadista/ws/upload/a%2Fb%20c", "a/b c", "a/b c"},
    {"/uploadista/ws/upload/a%252Fb+c", "a%2Fb+c", "a%2Fb+c"},
    {"/uploadista/ws/upload/a/b/", "a/b", "a/b"},
    {"/uploadista/ws/upload//a", "a", "a"},
    {"/uploadista/ws/upload/a?uploadId=b+%2F&token=x", "b /", "b /"},
    {"/uploadista/ws/upload?uploadId=b", "b", "b"},
    {"/uploadista/ws/upload/a?uploadId=&jobId=c", "a", "a"},
    {"/uploadista/ws/upload/%22q%22", "\"q\"", "\\\"q\\\""},
};

START_TEST(test_ids)
{
    char frames[2][512];
    struct client *c = open_raw(1, names[_i].target);
    snprintf(frames[0], sizeof frames[0], SUBSCRIBED("%s"), names[_i].id);
    snprintf(frames[1], sizeof frames[1], CONNECTION("%s"), names[_i].id, names[_i].id);
    ck_assert_str_eq(frame(c), frames[0]);
    ck_assert_str_eq(frame(c), frames[1]);
    room_publish(names[_i].key, "1");
    tells(c, "1");
}
END_TEST

START_TEST(test_without_id)
{
    OPENS(1, "/uploadista/ws/upload",
          "{\"type\":\"error\",\"message\":\"Upload ID is required for upload event "
          "subscription\",\"code\":\"MISSING_UPLOAD_ID\"}",
          GREETING TIMED);
    OPENS(2, "/uploadista/ws/flow/?uploadId=x",
          "{\"type\":\"error\",\"message\":\"Job ID is required for flow event "
          "subscription\",\"code\":\"MISSING_JOB_ID\"}",
          GREETING TIMED);
    OPENS(3, "/uploadista/ws/other/x", GREETING TIMED);
    OPENS(4, "/uploadista/ws/uploads/x", GREETING TIMED);
    for (unsigned i = 1; i <= 4; i++) {
        say(i, "{\"type\":\"ping\"}");
        tells(&clients[i], "{\"type\":\"pong\"" TIMED);
        ck_assert(!clients[i].closed);
    }
    ck_assert_uint_eq(n_subs, 0);
}
END_TEST

START_TEST(test_invalid_path)
{
    static const char *const targets[] = {"/uploadista/upload/x", "/uploadista/ws", "/uploadista/"};
    for (unsigned i = 0; i < 3; i++) {
        OPENS(i, targets[i],
              "{\"type\":\"invalid-path\",\"message\":\"WebSocket path must start with "
              "uploadista/ws/\",\"expectedPrefix\":\"uploadista/ws/\"}");
        ck_assert(clients[i].closed);
        ck_assert_uint_eq(clients[i].code, 1000);
        ck_assert_str_eq(clients[i].reason, "Invalid path");
    }
}
END_TEST

START_TEST(test_refused_by_http)
{
    static const struct {
        const char *target;
        unsigned status;
        const char *tag;
    } cases[] = {
        {"/uploadista/ws/upload/$stoa", 400, "BadKey"},
        {"/uploadista/ws/upload/%zz", 400, "BadKey"},
        {"/uploadista/ws/upload/x?uploadId=a&uploadId=b", 400, "BadKey"},
        {"/uploadista/ws/upload/x?after=y", 400, "BadId"},
        {"/uploadista/ws/upload/x?replay=some", 400, "BadRequest"},
        {"/uploadista/ws/upload/few:1", 403, "Forbidden"},
        {"/uploadista/ws/upload/chat:1", 403, "Forbidden"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct client *c = upgrade(i, cases[i].target, NULL);
        ck_assert_uint_eq(c->status, cases[i].status);
        ck_assert_ptr_nonnull(strstr(c->body, cases[i].tag));
        ck_assert(!c->upgraded);
    }
}
END_TEST

static const struct {
    const char *says, *answer;
} talk[] = {
    {"{\"type\":\"ping\",\"timestamp\":\"x\"}", "{\"type\":\"pong\"" TIMED},
    {" { \"a\" : [ ] , \"t\\u0079pe\" : \"pin\\u0067\" } ", "{\"type\":\"pong\"" TIMED},
    {"{\"type\":\"x\",\"type\":\"ping\"}", "{\"type\":\"pong\"" TIMED},
    {"{\"type\":\"ping\",\"type\":\"x\"}", ""},
    {"{\"type\":\"pinG\"}", ""},
    {"{\"type\":1}", ""},
    {"{\"type\":{\"type\":\"ping\"}}", ""},
    {"[\"ping\"]", ""},
    {"null", ""},
    {"\"ping\"", ""},
    {"{\"type\":\"subscribe-upload\",\"payload\":{\"uploadId\":\"x\"}}", ""},
    {"not json", "{\"type\":\"error\",\"message\":\"Invalid message format\"}"},
    {"", "{\"type\":\"error\",\"message\":\"Invalid message format\"}"},
    {"{\"type\":\"ping\"", "{\"type\":\"error\",\"message\":\"Invalid message format\"}"},
};

START_TEST(test_talk)
{
    OPENS(1, "/uploadista/ws/upload/u1", SUBSCRIBED("u1"), CONNECTION("u1"));
    for (unsigned i = 0; i < 30; i++) { /* no number of bad frames ends it */
        say(1, talk[_i].says);
        tells(&clients[1], talk[_i].answer);
    }
    room_publish("u1", "1");
    tells(&clients[1], "1");
}
END_TEST

/* Who asks and asks without reading is not given all the memory. */
START_TEST(test_endless_pings)
{
    open_raw(1, "/uploadista/ws/upload/u1");
    clients[1].stalled = true;
    for (unsigned i = 0; i < 1000000 && !clients[1].closed; i++)
        gateway_frame(gateway, 1, slice_text("{\"type\":\"ping\"}"), true, now);
    ck_assert(clients[1].closed);
    ck_assert_uint_eq(clients[1].code, 4008);
}
END_TEST

/* ---- what is replayed ---- */

START_TEST(test_replay)
{
    room_append("u1", "1");
    room_conflate("u1", "p", "2");
    room_conflate("u1", "p", "3");
    room_append("u1", "4");
    OPENS(1, "/uploadista/ws/upload/u1", SUBSCRIBED("u1"), CONNECTION("u1"), "1", "3", "4");
    OPENS(2, "/uploadista/ws/upload/u1?replay=none", SUBSCRIBED("u1"), CONNECTION("u1"));
    OPENS(3, "/uploadista/ws/upload/u1?replay=1", SUBSCRIBED("u1"), CONNECTION("u1"), "4");
    OPENS(4, "/uploadista/ws/upload/u1?after=100-3", SUBSCRIBED("u1"), CONNECTION("u1"), "4");
    room_publish("u1", "5");
    for (unsigned i = 1; i <= 4; i++)
        tells(&clients[i], "5");
}
END_TEST

#define MISSED(from, to, reason)                                                          \
    "{\"type\":\"error\",\"message\":\"Events of this key are missing here\",\"code\":"   \
    "\"MISSED\",\"missed\":{\"from\":\"" from "\",\"to\":\"" to "\",\"reason\":\"" reason \
    "\"}" TIMED

START_TEST(test_missed)
{
    for (unsigned i = 0; i < 5; i++)
        room_append("u1", "1");
    room_trim("u1", 3, MISS_EVICTED);
    OPENS(1, "/uploadista/ws/upload/u1?after=100-1", SUBSCRIBED("u1"), CONNECTION("u1"),
          MISSED("100-1", "100-3", "evicted"), "1", "1");
    OPENS(2, "/uploadista/ws/upload/u1?after=7-7", SUBSCRIBED("u1"), CONNECTION("u1"),
          MISSED("7-7", "100-3", "epoch"), "1", "1");
    OPENS(3, "/uploadista/ws/upload/u1", SUBSCRIBED("u1"), CONNECTION("u1"), "1", "1");
    room_publish("u1", "2");
    for (unsigned i = 1; i <= 3; i++)
        tells(&clients[i], "2");
}
END_TEST

/* A viewer that does not read is told what it lost and goes on. */
START_TEST(test_slow)
{
    static char big[64 * KIB + 1];
    memset(big, '1', sizeof big - 1);
    OPENS(1, "/uploadista/ws/upload/u1", SUBSCRIBED("u1"), CONNECTION("u1"));
    clients[1].stalled = true;
    for (unsigned i = 0; i < 10; i++)
        room_publish("u1", big);
    pass_ms(31000);
    ck_assert(!clients[1].closed);
    rest(&clients[1]);
    drain_client(1);
    const char *told = frame(&clients[1]);
    ck_assert_ptr_nonnull(strstr(told, "\"code\":\"MISSED\",\"missed\":{\"from\":\"100-4\",\"to\":"
                                       "\"100-10\",\"reason\":\"slow\"}"));
    room_publish("u1", "2");
    tells(&clients[1], "2");
}
END_TEST

/* ---- who may look ---- */

static const struct token_checker *const some_keys = (const void *)&some_keys;

/* A token is the key that it opens; what begins with '!' has no valid signature, with '?' no right
 * on any key. */
static const char *check(const struct token_checker *keys, struct slice token, int64_t wall_ms,
                         struct identity **out)
{
    ck_assert_ptr_eq(keys, some_keys);
    ck_assert_int_eq(wall_ms, now.wall_ms);
    if (token.data[0] == '!')
        return "bad signature";
    struct identity who = {.rights = token.data[0] == '?' ? 0 : 1u << RIGHT_SUBSCRIBE,
                           .expires_ms = 1700000060000,
                           .keys = {&token, 1}};
    *out = identity_create(&who);
    return NULL;
}

static void with_tokens(void)
{
    world_options();
    options.tokens = some_keys;
    options.token_check = check;
    world_start();
}

static void is_refused(unsigned client, const char *target, const char *headers, const char *told,
                       const char *reason)
{
    struct client *c = upgrade(client, target, headers);
    ck_assert(c->upgraded);
    tells(c, told);
    ck_assert(c->closed);
    ck_assert_uint_eq(c->code, 4001);
    ck_assert_str_eq(c->reason, reason);
}

START_TEST(test_refused)
{
    static const char *const by_token = REFUSED_BY("token", "token"),
                             *const by_nothing = REFUSED_BY("cookies", "cookies"),
                             *const token = "Authentication failed: invalid or expired token",
                             *const cookies = "Authentication failed: invalid or expired cookies";
    OPENS(1, "/uploadista/ws/upload/u1?token=u1", SUBSCRIBED("u1"), CONNECTION("u1"));
    is_refused(2, "/uploadista/ws/upload/u1?token=!u1", NULL, by_token, token);
    is_refused(3, "/uploadista/ws/upload/u1", NULL, by_nothing, cookies);
    is_refused(4, "/uploadista/ws/upload/u1?token=u2", NULL, by_token, token);
    is_refused(5, "/uploadista/ws/upload/u1?token=%3Fu1", NULL, by_token, token);
    is_refused(6, "/uploadista/ws/upload/u1", "Authorization: Bearer !u1", by_token, token);
    is_refused(7, "/uploadista/ws/upload/u1?uploadId=u2&token=u1", NULL, by_token, token);
    is_refused(8, "/uploadista/ws/other/x", NULL, by_nothing, cookies);
    is_refused(9, "/uploadista/ws/upload", NULL, by_nothing, cookies);
    for (unsigned i = 2; i <= 9; i++)
        hang_up(i, 4001);
    room_publish("u1", "1");
    tells(&clients[1], "1");
    ck_assert_uint_eq(n_unsubs, 0);
    ck_assert_uint_eq(n_subs, 2); /* and the gateway's own, of what was revoked */
    ck_assert_uint_eq((unsigned)metric("stoa_closes_total", "code=\"4001\""), 8);
    ck_assert_uint_eq((unsigned)metric("stoa_refused_total", "tag=\"Unauthorized\""), 5);
    ck_assert_uint_eq((unsigned)metric("stoa_refused_total", "tag=\"Forbidden\""), 3);
    struct client *twice = upgrade(10, "/uploadista/ws/upload/u1?token=u1&token=u2", NULL);
    ASSERT_ERROR(twice, 400, "BadRequest");
    OPENS(11, "/uploadista/nothing",
          "{\"type\":\"invalid-path\",\"message\":\"WebSocket path must start with "
          "uploadista/ws/\",\"expectedPrefix\":\"uploadista/ws/\"}");
}
END_TEST

START_TEST(test_expiry)
{
    OPENS(1, "/uploadista/ws/upload/u1?token=u1", SUBSCRIBED("u1"), CONNECTION("u1"));
    pass_ms(59900);
    ck_assert(!clients[1].closed);
    pass_ms(200);
    ck_assert(clients[1].closed);
    ck_assert_uint_eq(clients[1].code, 1008);
    ck_assert_str_eq(clients[1].reason, "Token expired");
    struct client *late = upgrade(2, "/uploadista/ws/upload/u1?token=u1", NULL);
    ck_assert_uint_eq(late->code, 4001);
}
END_TEST

/* ---- routes of the configuration ---- */

static const char *const few[] = {"few", NULL};
static const struct gateway_route own[] = {
    {.path = "/my/ws/upload/{id}", .key = "{id}", .dialect = ROUTE_UPLOADISTA, .replay = "all"},
    {.path = "/my/ws/flow/{id}", .key = "jobs/{id}", .dialect = ROUTE_UPLOADISTA},
    {.path = "/my/{team}/{jobId}",
     .key = "{team}/{jobId}",
     .dialect = ROUTE_UPLOADISTA,
     .replay = "none"},
    {.path = "/few/{id}", .key = "few:{id}", .dialect = ROUTE_UPLOADISTA, .types = few},
    {.path = "/only/{id}", .key = "{id}", .dialect = ROUTE_UPLOADISTA, .types = few},
    {.path = "/all", .key = "all", .dialect = ROUTE_UPLOADISTA},
    {.path = "/raw/{id}", .key = "few:{id}", .types = few},
};

static void own_routes(void)
{
    world_options();
    options.routes = own;
    options.n_routes = sizeof own / sizeof *own;
    world_start();
}

START_TEST(test_own_routes)
{
    room_append("u1", "1");
    room_append("jobs/j", "2");
    room_append("red/7", "3");
    OPENS(1, "/my/ws/upload/u1", SUBSCRIBED("u1"), CONNECTION("u1"), "1");
    OPENS(2, "/my/ws/flow/j", SUBSCRIBED("jobs/j"), JOB_CONNECTION("j"), "2");
    OPENS(3, "/my/ws/flow/x?jobId=j&uploadId=z", SUBSCRIBED("jobs/j"), JOB_CONNECTION("j"), "2");
    OPENS(4, "/my/red/7", SUBSCRIBED("red/7"), JOB_CONNECTION("7"));
    OPENS(5, "/my/red/7?replay=all", SUBSCRIBED("red/7"), JOB_CONNECTION("7"), "3");
    OPENS(6, "/few/1", SUBSCRIBED("few:1"), CONNECTION("1"));
    OPENS(7, "/all", SUBSCRIBED("all"), GREETING TIMED);
    open_raw(8, "/raw/1");
    room_publish("few:1", "4");
    tells(&clients[6], "4");
    tells(&clients[8], "4");
    upgrade(9, "/only/u1", NULL);
    ASSERT_ERROR(&clients[9], 403, "Forbidden");
    ask(10, "GET /my/ws/upload/u1", NULL, NULL);
    ASSERT_ERROR(&clients[10], 426, "UpgradeRequired");
}
END_TEST

static TCase *add(Suite *suite, const char *name, void (*setup)(void))
{
    TCase *tc = tcase_create(name);
    tcase_add_checked_fixture(tc, setup, world_teardown);
    suite_add_tcase(suite, tc);
    return tc;
}

int main(void)
{
    Suite *suite = suite_create("gateway uploadista");
    TCase *tc = add(suite, "frames", world_setup);
    tcase_add_test(tc, test_frames);
    tcase_add_test(tc, test_leaving_is_ones_own);
    tcase_add_loop_test(tc, test_ids, 0, sizeof names / sizeof *names);
    tcase_add_test(tc, test_without_id);
    tcase_add_test(tc, test_invalid_path);
    tcase_add_test(tc, test_refused_by_http);
    tcase_add_loop_test(tc, test_talk, 0, sizeof talk / sizeof *talk);
    tcase_add_test(tc, test_endless_pings);
    tcase_add_test(tc, test_replay);
    tcase_add_test(tc, test_missed);
    tcase_add_test(tc, test_slow);
    tc = add(suite, "tokens", with_tokens);
    tcase_add_test(tc, test_refused);
    tcase_add_test(tc, test_expiry);
    tcase_add_test(add(suite, "own routes", own_routes), test_own_routes);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
