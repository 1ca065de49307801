/* The stoa.v1 dialect, frame by frame. */
#include "gateway_world.h"

START_TEST(test_subscribe)
{
    struct client *c = open_v1(1);
    for (int n = 1; n <= 5; n++)
        room_append("k", "7");
    say(1, "{\"sub\":\"k\",\"replay\":2}");
    ck_assert_str_eq(frame(c), "{\"sub\":\"k\",\"status\":\"resumed\",\"head\":\"100-5\"}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"id\":\"100-4\""));
    ck_assert_ptr_nonnull(strstr(frame(c), "\"id\":\"100-5\""));
    say(1, "{\"sub\":\"k\",\"after\":\"100-4\"}"); /* starts it anew */
    ck_assert_str_eq(frame(c), "{\"sub\":\"k\",\"status\":\"resumed\",\"head\":\"100-5\"}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"id\":\"100-5\""));
    say(1, "{\"sub\":\"k\",\"replay\":\"none\",\"token\":\"t\",\"state\":{\"a\":1}}");
    ck_assert_str_eq(frame(c), "{\"sub\":\"k\",\"status\":\"live\",\"head\":\"100-5\"}");
    room_publish("k", "8");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"id\":\"100-6\""));
    ck_assert_str_eq(frame(c), "");
    say(1, "{\"unsub\":\"k\"}");
    ck_assert_str_eq(frame(c), "{\"unsub\":\"k\"}");
    room_publish("k", "9");
    ck_assert_str_eq(frame(c), "");
    say(1, "{\"unsub\":\"never\"}");
    ck_assert_str_eq(frame(c), "{\"unsub\":\"never\"}");
}
END_TEST

/* Keys and payloads that need care in JSON. */
START_TEST(test_strings)
{
    struct client *c = open_v1(1);
    say(1, " { \"sub\" : \"a\\\"\\u00e9\\\\\" } ");
    ck_assert_str_eq(frame(c), "{\"sub\":\"a\\\"é\\\\\",\"status\":\"live\",\"head\":\"0\"}");
    room_publish("a\"é\\", "{ \"b\" : [1, 2] }");
    const char *text = frame(c);
    ck_assert_ptr_nonnull(strstr(text, "{\"key\":\"a\\\"é\\\\\",\"id\":\"100-1\",\"ts\":"));
    ck_assert_ptr_nonnull(strstr(text, ",\"data\":{ \"b\" : [1, 2] }}"));
    room_publish("a\"é\\", "1},\"id\":\"x\""); /* must not forge a member */
    ck_assert_ptr_nonnull(strstr(frame(c), ",\"base64\":\"MX0sImlkIjoieCI=\"}"));
}
END_TEST

START_TEST(test_subscribe_refused)
{
    static const struct {
        const char *frame, *answer;
    } table[] = {
        {"{\"sub\":\"\"}", "\"error\":{\"tag\":\"BadKey\""},
        {"{\"sub\":\"$stoa:x\"}", "\"error\":{\"tag\":\"BadKey\""},
        {"{\"sub\":\"a\\u0000\"}", "\"error\":{\"tag\":\"BadKey\""},
        {"{\"sub\":\"k\",\"after\":\"x\"}", "{\"sub\":\"k\",\"error\":{\"tag\":\"BadId\""},
        {"{\"sub\":\"k\",\"after\":7}", "{\"sub\":\"k\",\"error\":{\"tag\":\"BadId\""},
        {"{\"sub\":\"k\",\"replay\":\"x\"}", "{\"sub\":\"k\",\"error\":{\"tag\":\"BadRequest\""},
        {"{\"sub\":\"k\",\"replay\":-1}", "{\"sub\":\"k\",\"error\":{\"tag\":\"BadRequest\""},
        {"{\"sub\":\"k\",\"presence\":true}", "rooms of this type do not count members"},
    };
    struct client *c = open_v1(1);
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++) {
        say(1, table[i].frame);
        const char *text = frame(c);
        ck_assert_ptr_nonnull(strstr(text, table[i].answer));
        ck_assert_ptr_nonnull(strstr(text, "\"status\":400}"));
    }
    ck_assert(!c->closed);
    say(1, "{\"sub\":\"k\"}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"live\""));
}
END_TEST

START_TEST(test_keys_per_socket)
{
    struct client *c = open_v1(1);
    char text[64];
    for (unsigned i = 0; i < 40; i++) {
        snprintf(text, sizeof text, "{\"sub\":\"k%u\"}", i);
        say(1, text);
    }
    rest(c);
    c->read = c->out.size;
    say(1, "{\"sub\":\"one more\"}");
    ck_assert_str_eq(frame(c),
                     "{\"sub\":\"one more\",\"error\":{\"tag\":\"BadRequest\",\"message\":"
                     "\"too many keys on this socket: unsubscribe some, or open another\","
                     "\"status\":400}}");
    say(1, "{\"sub\":\"k7\"}"); /* one of its own begins anew */
    ck_assert_str_eq(frame(c), "{\"sub\":\"k7\",\"status\":\"live\",\"head\":\"0\"}");
    say(1, "{\"unsub\":\"k1\"}");
    frame(c);
    say(1, "{\"sub\":\"one more\"}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"live\""));
}
END_TEST

static void few_keys(void)
{
    world_options();
    options.keys_per_socket = 40;
    world_start();
}

START_TEST(test_publish)
{
    struct client *c = open_v1(1);
    say(1, "{\"pub\":\"k\",\"data\": {\"a\":[1, 2]} ,\"ref\":7,\"idempotencyKey\":\"once\"}");
    ck_assert_str_eq(frame(c), "{\"ref\":7,\"ok\":{\"id\":\"100-1\",\"duplicate\":false}}");
    say(1, "{\"pub\":\"k\",\"data\":0,\"ref\":{\"x\":[]},\"idempotencyKey\":\"once\"}");
    ck_assert_str_eq(frame(c), "{\"ref\":{\"x\":[]},\"ok\":{\"id\":\"100-1\",\"duplicate\":true}}");
    struct client *log = ask(2, "GET /log?key=k", NULL, NULL);
    ck_assert_ptr_nonnull(strstr(log->body, "\"data\":{\"a\":[1, 2]}}"));
    say(1, "{\"pub\":\"k\",\"data\":\"text\"}");
    ck_assert_str_eq(frame(c), ""); /* without a ref nothing is answered */
    ck_assert_uint_eq(room_count("k"), 2);
    say(1, "{\"pub\":\"k\",\"data\":null,\"ephemeral\":true,\"conflate\":\"c\",\"ref\":\"r\"}");
    ck_assert_str_eq(frame(c), "{\"ref\":\"r\",\"ok\":{\"id\":null,\"duplicate\":false}}");
}
END_TEST

START_TEST(test_publish_refused)
{
    static const struct {
        const char *frame, *answer;
    } table[] = {
        {"{\"pub\":\"k\",\"ref\":1}", "{\"ref\":1,\"error\":{\"tag\":\"BadRequest\""},
        {"{\"pub\":\"\",\"data\":1,\"ref\":1}", "{\"ref\":1,\"error\":{\"tag\":\"BadKey\""},
        {"{\"pub\":\"k\",\"data\":1,\"tags\":\"a\"}",
         "{\"ref\":null,\"error\":{\"tag\":\"BadRequest\""},
        {"{\"pub\":\"k\",\"data\":1,\"ref\":2,\"idempotencyKey\":5}", "{\"ref\":2,\"error\":"},
        {"{\"pub\":\"k\",\"data\":1,\"ref\":2,\"idempotencyKey\":\"\"}", "{\"ref\":2,\"error\":"},
        {"{\"pub\":\"k\",\"data\":1,\"ref\":2,\"ephemeral\":1}", "{\"ref\":2,\"error\":"},
        {"{\"send\":\"k\",\"event\":{},\"ref\":3}", "{\"ref\":3,\"error\":{\"tag\":\"NoHandler\""},
        {"{\"call\":\"k\",\"method\":\"m\",\"ref\":\"x\"}",
         "{\"ref\":\"x\",\"error\":{\"tag\":\"NoHandler\""},
    };
    struct client *c = open_v1(1);
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++) {
        say(1, table[i].frame);
        ck_assert_ptr_nonnull(strstr(frame(c), table[i].answer));
    }
    ck_assert_uint_eq(n_pubs, 0);
    faults.nack = NACK_DISK;
    faults.nacks = 1;
    say(1, "{\"pub\":\"k\",\"data\":1,\"ref\":9}");
    ck_assert_str_eq(frame(c),
                     "{\"ref\":9,\"error\":{\"tag\":\"DiskFull\",\"message\":\"the shard's "
                     "disk is full; nothing was stored\",\"status\":503}}");
}
END_TEST

START_TEST(test_publishes_in_flight)
{
    struct client *c = open_v1(1);
    faults.hold_packs = true;
    for (int i = 0; i < 256; i++)
        say(1, "{\"pub\":\"k\",\"data\":1,\"ref\":1}");
    ck_assert_str_eq(frame(c), "");
    say(1, "{\"pub\":\"k\",\"data\":1,\"ref\":2}");
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"ref\":2,\"error\":{\"tag\":\"Busy\""));
    hang_up(1, 1001); /* the answers find nobody */
    pass_ms(11000);
}
END_TEST

START_TEST(test_ping)
{
    struct client *c = open_v1(1);
    say(1, "{\"ping\": {\"t\":[1,null]} }");
    ck_assert_str_eq(frame(c), "{\"pong\":{\"t\":[1,null]}}");
    say(1, "{\"token\":\"T\"}");
    ck_assert_str_eq(frame(c), "");
}
END_TEST

START_TEST(test_bad_frames)
{
    static const char *const bad[] = {"not json",
                                      "",
                                      "[]",
                                      "7",
                                      "{}",
                                      "{\"sub\":\"a\",\"pub\":\"b\"}",
                                      "{\"sub\":7}",
                                      "{\"what\":1}",
                                      "{\"sub\":\"k\"",
                                      "{\"sub\":null}"};
    struct client *c = open_v1(1);
    for (unsigned i = 0; i < 19; i++) {
        say(1, bad[i % 10]);
        ck_assert_ptr_nonnull(
            strstr(frame(c), "{\"error\":{\"tag\":\"BadRequest\",\"message\":\""));
        ck_assert(!c->closed);
    }
    gateway_frame(gateway, 1, slice_of("\x01\x02", 2), false, now);
    settle();
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"error\":"));
    ck_assert(c->closed);
    ck_assert_uint_eq(c->code, 1008);
    say(1, "{\"ping\":1}"); /* nothing is heard after that */
    ck_assert_str_eq(frame(c), "");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("v1");
    tcase_add_checked_fixture(tc, world_setup, world_teardown);
    tcase_add_test(tc, test_subscribe);
    tcase_add_test(tc, test_strings);
    tcase_add_test(tc, test_subscribe_refused);
    tcase_add_test(tc, test_publish);
    tcase_add_test(tc, test_publish_refused);
    tcase_add_test(tc, test_publishes_in_flight);
    tcase_add_test(tc, test_ping);
    tcase_add_test(tc, test_bad_frames);
    TCase *few = tcase_create("few keys");
    tcase_add_checked_fixture(few, few_keys, world_teardown);
    tcase_add_test(few, test_keys_per_socket);
    Suite *suite = suite_create("gateway v1");
    suite_add_tcase(suite, tc);
    suite_add_tcase(suite, few);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
