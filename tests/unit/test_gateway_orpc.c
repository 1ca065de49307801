/* The orpc dialect against a cluster in memory: the frames that were captured from the original,
 * byte for byte, and what is decided beyond them: who is let in, the stream, filters, tokens. */
#include "gateway_orpc.h"
#include "proto/filter.h"

static void setup(void)
{
    world_options();
    options.orpc_signing_key = KEY;
    world_start();
}

static struct client *open_e1(unsigned client)
{
    struct client *c = upgrade(client, target("/iterator", NULL, E1_TOKEN), NULL);
    ck_assert(c->upgraded);
    return c;
}

/* A subscribed client of the second kind. */
static struct client *subscribed(unsigned client, const char *id, const char *claims)
{
    struct client *c = open_e2(client, id, claims);
    say(client, SUBSCRIBE("\"1\""));
    hears(c, OPENED("\"1\""));
    return c;
}

/* ---- who is let in ---- */

static void refused(struct client *c, unsigned status, const char *body)
{
    ck_assert_uint_eq(c->status, status);
    ck_assert_str_eq(c->body, body);
    ck_assert(strncmp(c->content_type, "text/plain", 10) == 0);
    ck_assert(!c->upgraded);
}

START_TEST(test_refusals)
{
    const char *good = E2_CLAIMS "." E2_SIGNATURE;
    refused(ask(1, "GET /iterator", NULL, NULL), 426, "Expected WebSocket upgrade");
    ck_assert_ptr_nonnull(strstr(clients[1].headers, "Upgrade: websocket"));
    refused(ask(2, "POST /iterator?id=a&token=b", NULL, "x"), 426, "Expected WebSocket upgrade");
    refused(upgrade(3, "/iterator", NULL), 401, "ID is required");
    refused(upgrade(4, target("/iterator", NULL, good), NULL), 401, "ID is required");
    refused(upgrade(5, "/iterator?id=a", NULL), 401, "Token is required");
    refused(upgrade(6, "/iterator?id=&token=", NULL), 401, "Token is required");
    refused(upgrade(7, "/iterator?id=a&token=abc", NULL), 401, "Invalid Token");
    refused(upgrade(8, "/iterator?token=a.b.c", NULL), 401, "Invalid Token");
    refused(upgrade(9, target("/iterator", "a", E2_CLAIMS "." E2_SIGNATURE "x"), NULL), 401,
            "Invalid Token");
    refused(upgrade(10,
                    target("/iterator", "a",
                           signed_token("{\"chn\":\"r\",\"iat\":1,\"exp\":1699999999}")),
                    NULL),
            401, "Invalid Token");
    ck_assert(upgrade(11, target("/iterator", "a", good), NULL)->upgraded);
    ck_assert(upgrade(12, target("/iterator", "", good), NULL)->upgraded);
    ck_assert(upgrade(13, target("/iterator", NULL, E1_TOKEN), NULL)->upgraded);
}
END_TEST

START_TEST(test_last_parameter_counts)
{
    char text[24576];
    snprintf(text, sizeof text, "/iterator?token=no&id=x&%s",
             strchr(target("/iterator", "a", E2_CLAIMS "." E2_SIGNATURE), '?') + 1);
    ck_assert(upgrade(1, text, NULL)->upgraded);
    snprintf(text, sizeof text, "%s&token=no",
             target("/iterator", "a", E2_CLAIMS "." E2_SIGNATURE));
    refused(upgrade(2, text, NULL), 401, "Invalid Token");
    /* A '+' is a space. */
    signed_token("{\"chn\":\"a b\",\"iat\":1,\"exp\":4102444800}");
    char *space = strchr(token_text, ' ');
    *space = '+';
    snprintf(text, sizeof text, "/iterator?id=a&token=%s", token_text);
    ck_assert(upgrade(3, text, NULL)->upgraded);
}
END_TEST

START_TEST(test_no_signing_key)
{
    world_teardown();
    world_setup();
    struct client *c = upgrade(1, target("/iterator", "a", E2_CLAIMS "." E2_SIGNATURE), NULL);
    ck_assert_uint_eq(c->status, 503);
    ck_assert_ptr_nonnull(strstr(c->body, "STOA_ORPC_SIGNING_KEY"));
    ck_assert_uint_eq(ask(2, "GET /iterator", NULL, NULL)->status, 503);
}
END_TEST

START_TEST(test_own_route)
{
    world_teardown();
    world_options();
    options.routes = own_routes;
    options.n_routes = 2;
    world_start();
    const char *good = E2_CLAIMS "." E2_SIGNATURE;
    refused(upgrade(1, target("/plain", "a", good), NULL), 401, "Invalid Token");
    ck_assert_uint_eq(upgrade(2, target("/iterator", "a", good), NULL)->status, 503);
    ck_assert(upgrade(3, target("/rooms/7", "a", good), NULL)->upgraded);
}
END_TEST

START_TEST(test_channels_that_are_no_keys)
{
    struct client *c = upgrade(
        1, target("/iterator", "a", signed_token("{\"chn\":\"\",\"iat\":1,\"exp\":4102444800}")),
        NULL);
    ASSERT_ERROR(c, 400, "BadKey");
    c = upgrade(
        2, target("/iterator", "a", signed_token("{\"chn\":\"$x\",\"iat\":1,\"exp\":4102444800}")),
        NULL);
    ASSERT_ERROR(c, 400, "BadKey");
    c = upgrade(
        3,
        target("/iterator", "a", signed_token("{\"chn\":\"chat:1\",\"iat\":1,\"exp\":4102444800}")),
        NULL);
    ASSERT_ERROR(c, 403, "Forbidden");
}
END_TEST

/* ---- the stream ---- */

START_TEST(test_subscribe)
{
    struct client *c = open_e2(1, "a", E2_CLAIMS);
    room_publish("some-room", "{\"n\":0}");
    hears(c, "");
    say(1, SUBSCRIBE("\"1\""));
    hears(c, OPENED("\"1\""));
    room_publish("some-room", "{\"n\":1}");
    hears(c, EVENT("\"1\"", "{\"n\":1}", "2"));
    say(1, SUBSCRIBE("7")); /* takes the place of the other */
    hears(c, OPENED("7"));
    room_publish("some-room", "2");
    hears(c, EVENT("7", "2", "3"));
    hears(c, "");
    say(1, SUBSCRIBE("7")); /* runs already */
    hears(c, "");
    say(1, "{\"i\":7,\"t\":4}");
    room_publish("some-room", "3");
    hears(c, "");
    say(1, RESUME("{\"a\": [1]}", "3"));
    hears(c, OPENED("{\"a\": [1]}"));
    hears(c, EVENT("{\"a\": [1]}", "3", "4"));
    hears(c, "");
    ck_assert_double_eq(
        metric_value(metrics_gauge(metrics, "stoa_sockets", "dialect=\"orpc\"", "")), 1);
}
END_TEST

static void append_many(unsigned from, unsigned to)
{
    char text[16];
    for (unsigned i = from; i <= to; i++) {
        snprintf(text, sizeof text, "%u", i);
        room_append("some-room", text);
    }
}

/* The stream opens, then those events and no others. */
static void receives(struct client *c, unsigned from, unsigned to)
{
    char wanted[256];
    hears(c, OPENED("\"x\""));
    for (unsigned i = from; i <= to; i++) {
        snprintf(wanted, sizeof wanted,
                 "{\"i\":\"x\",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":%u},\"m\":{\"id\":"
                 "\"%u\",\"retry\":250}}}",
                 i, i);
        hears(c, wanted);
    }
    hears(c, "");
}

START_TEST(test_resume)
{
    static const struct {
        const char *last;
        unsigned from;
    } table[] = {{"6", 7},
                 {"0", 1},
                 {"012", 13},
                 {"11", 12},
                 {"", 13},
                 {"abc", 13},
                 {"7x", 13},
                 {"-1", 13},
                 {"12", 13},
                 {"13", 1},
                 {"99999999999999999999999", 1}};
    char text[256];
    append_many(1, 12); /* over the edge where numbers sorted as texts go wrong */
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++) {
        struct client *c = open_e2(i + 1, "a", E2_CLAIMS);
        snprintf(
            text, sizeof text,
            "{\"i\":\"x\",\"p\":{\"u\":\"/subscribe\",\"b\":{},\"h\":{\"Last-Event-ID\":\"%s\"}}}",
            table[i].last);
        say(i + 1, text);
        receives(c, table[i].from, 12);
    }
}
END_TEST

START_TEST(test_first_kind_gets_what_came_since_its_token)
{
    now.wall_ms = 1699999998000; /* two seconds before its iat */
    room_publish("some-room", "1");
    now.wall_ms = 1699999999000;
    room_publish("some-room", "2");
    now.wall_ms = 1700000001000;
    room_publish("some-room", "3");
    struct client *c = open_e1(1);
    say(1, SUBSCRIBE("\"0\""));
    hears(c, OPENED("\"0\""));
    hears(c, EVENT("\"0\"", "2", "2"));
    hears(c, EVENT("\"0\"", "3", "3"));
    hears(c, "");
    room_publish("some-room", "4");
    hears(c, EVENT("\"0\"", "4", "4"));
    say(1, "{\"i\":\"1\",\"p\":{\"u\":\"/updateToken\",\"b\":{\"json\":{\"token\":\"x\"}}}}");
    hears(c, "{\"i\":\"1\",\"p\":{\"s\":404,\"b\":\"No procedure matched\"}}");
}
END_TEST

START_TEST(test_missed)
{
    append_many(1, 10);
    room_trim("some-room", 4, MISS_EXPIRED);
    struct client *c = open_e2(1, "a", E2_CLAIMS);
    say(1, RESUME("\"x\"", "2"));
    hears(c, OPENED("\"x\""));
    hears(c, "{\"i\":\"x\",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":5},\"m\":{\"id\":\"5\","
             "\"retry\":250,\"comments\":[\"missed 100-2 100-4 expired\"]}}}");
    hears(c, EVENT("\"x\"", "6", "6"));
}
END_TEST

START_TEST(test_another_history)
{
    append_many(1, 5);
    room_reborn("some-room", HISTORY + 1);
    append_many(1, 2);
    struct client *c = open_e2(1, "a", E2_CLAIMS);
    say(1, RESUME("\"x\"", "5"));
    receives(c, 1, 2);
}
END_TEST

static void publish_typed(unsigned client, const char *body)
{
    struct client *c = ask(client, "POST /publish?key=some-room", "Stoa-Format: orpc", body);
    ck_assert_uint_eq(c->status, 200);
}

START_TEST(test_payloads)
{
    struct client *c = subscribed(1, "a", E2_CLAIMS);
    room_publish("some-room", "hello");
    hears(c, EVENT("\"1\"", "{\"base64\":\"aGVsbG8=\"}", "1"));
    publish_typed(2, "{\"json\":{\"n\":\"1\"},\"meta\":[[0,\"n\"]]}");
    hears(c, "{\"i\":\"1\",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":{\"n\":\"1\"},"
             "\"meta\":[[0,\"n\"]]},\"m\":{\"id\":\"2\",\"retry\":250}}}");
    publish_typed(3, "{\"comments\":[\"c\"],\"retry\":500,\"json\":{\"message\":\"hi\"}}");
    hears(c, "{\"i\":\"1\",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":{\"message\":\"hi\"}},"
             "\"m\":{\"id\":\"3\",\"retry\":500,\"comments\":[\"c\"]}}}");
    publish_typed(4, "{}");
    hears(c, "{\"i\":\"1\",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{},\"m\":{\"id\":\"4\","
             "\"retry\":250}}}");
    room_publish_bytes("some-room", "5", 1, EVENT_EPHEMERAL);
    settle();
    hears(c, "{\"i\":\"1\",\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":5}}}");
}
END_TEST

/* ---- many streams, one frame ---- */

START_TEST(test_streams_of_one_name_share_their_frames)
{
    struct client *a = subscribed(1, "a", E2_CLAIMS);
    struct client *b = subscribed(2, "b", E2_CLAIMS);
    struct client *other = open_e2(3, "c", E2_CLAIMS);
    say(3, SUBSCRIBE("\"2\""));
    hears(other, OPENED("\"2\""));
    room_publish("some-room", "1");
    ck_assert_ptr_eq(a->last_buf, b->last_buf);
    ck_assert_ptr_ne(a->last_buf, other->last_buf);
    hears(a, EVENT("\"1\"", "1", "1"));
    hears(b, EVENT("\"1\"", "1", "1"));
    hears(other, EVENT("\"2\"", "1", "1"));
}
END_TEST

START_TEST(test_more_names_than_places)
{
    char text[128], wanted[256];
    for (unsigned i = 0; i < 200; i++) {
        struct client *c = open_e2(i + 1, "a", E2_CLAIMS);
        snprintf(text, sizeof text, "{\"i\":%u,\"p\":{\"u\":\"/subscribe\"}}", i);
        say(i + 1, text);
        ck_assert_str_ne(frame(c), "");
    }
    for (unsigned n = 1; n <= 3; n++) {
        room_publish("some-room", "\"x\"");
        for (unsigned i = 0; i < 200; i++) {
            snprintf(
                wanted, sizeof wanted,
                "{\"i\":%u,\"t\":3,\"p\":{\"e\":\"message\",\"d\":{\"json\":\"x\"},\"m\":{\"id\":"
                "\"%u\",\"retry\":250}}}",
                i, n);
            hears(&clients[i + 1], wanted);
        }
    }
}
END_TEST

/* ---- filters ---- */

static void publish_to(const char *payload, const char *to, const char *except, const char *tag)
{
    struct slice names[3] = {slice_text(to ? to : ""), slice_text(except ? except : ""),
                             slice_text(tag ? tag : "")};
    struct filter f = {0};
    struct strbuf bytes = {0};
    if (to)
        f.to = (struct filter_names){&names[0], 1};
    if (except)
        f.except = (struct filter_names){&names[1], 1};
    if (tag)
        f.tags = (struct filter_names){&names[2], 1};
    ck_assert_int_eq(filter_encode(&bytes, &f), ERR_OK);
    room_say("some-room", payload, EVENT_JSON | EVENT_UTF8, strbuf_slice(&bytes));
    settle();
    strbuf_free(&bytes);
}

#define OTHER_CLAIMS "{\"chn\":\"some-room\",\"iat\":1700000000,\"exp\":4102444800}"

START_TEST(test_filters)
{
    struct client *a = subscribed(1, "ann", E2_CLAIMS); /* has tag1 */
    struct client *b = subscribed(2, "bob", OTHER_CLAIMS);
    publish_to("1", "bob", NULL, NULL);
    publish_to("2", NULL, "ann", NULL);
    publish_to("3", NULL, NULL, "tag1");
    publish_to("4", NULL, NULL, NULL);
    hears(a, EVENT("\"1\"", "3", "3"));
    hears(a, EVENT("\"1\"", "4", "4"));
    hears(a, "");
    hears(b, EVENT("\"1\"", "1", "1"));
    hears(b, EVENT("\"1\"", "2", "2"));
    hears(b, EVENT("\"1\"", "4", "4"));
    hears(b, "");
    struct client *again = open_e2(3, "ann", E2_CLAIMS); /* the log is filtered likewise */
    say(3, RESUME("\"x\"", "0"));
    hears(again, OPENED("\"x\""));
    hears(again, EVENT("\"x\"", "3", "3"));
    hears(again, EVENT("\"x\"", "4", "4"));
    hears(again, "");
}
END_TEST

START_TEST(test_newest_of_one_id)
{
    struct client *old = subscribed(1, "ann", E2_CLAIMS);
    publish_to("1", "ann", NULL, NULL);
    hears(old, EVENT("\"1\"", "1", "1"));
    struct client *young = open_e2(2, "ann", E2_CLAIMS);
    publish_to("2", "ann", NULL, NULL); /* the newer one does not listen yet */
    hears(old, EVENT("\"1\"", "2", "2"));
    say(2, SUBSCRIBE("\"1\""));
    hears(young, OPENED("\"1\""));
    say(1, RESUME("\"2\"", "2")); /* which makes it no newer */
    hears(old, OPENED("\"2\""));
    publish_to("3", "ann", NULL, NULL);
    publish_to("4", NULL, NULL, "tag1");
    publish_to("5", NULL, "bob", NULL);
    hears(old, EVENT("\"2\"", "5", "5"));
    hears(old, "");
    hears(young, EVENT("\"1\"", "3", "3"));
    hears(young, EVENT("\"1\"", "4", "4"));
    hears(young, EVENT("\"1\"", "5", "5"));
    hang_up(2, 1006);
    publish_to("6", "ann", NULL, NULL);
    hears(old, EVENT("\"2\"", "6", "6"));
}
END_TEST

/* ---- the token while connected ---- */

static void update(unsigned client, const char *token)
{
    char text[8192];
    struct strbuf quoted = {0};
    json_quote(&quoted, slice_text(token));
    snprintf(text, sizeof text,
             "{\"i\":\"u\",\"p\":{\"u\":\"/updateToken\",\"b\":{\"json\":{\"token\":%s}}}}",
             strbuf_cstr(&quoted));
    say(client, text);
    strbuf_free(&quoted);
}

#define UNAUTHORIZED(message)                                                    \
    "{\"i\":\"u\",\"p\":{\"s\":401,\"b\":{\"json\":{\"defined\":false,\"code\":" \
    "\"UNAUTHORIZED\",\"status\":401,\"message\":\"" message "\"}}}}"

START_TEST(test_update_token)
{
    struct client *c = subscribed(1, "a", E2_CLAIMS);
    update(1, "x");
    hears(c, UNAUTHORIZED("Invalid Token"));
    update(1, E1_TOKEN);
    hears(c, UNAUTHORIZED("Invalid Token"));
    update(1, signed_token("{\"chn\":\"x\",\"tags\":[\"tag1\"],\"iat\":1,\"exp\":4102444800}"));
    hears(c, UNAUTHORIZED("Updated token must have the same channel with the original token"));
    update(1, signed_token("{\"chn\":\"some-room\",\"iat\":1,\"exp\":4102444800}"));
    hears(c, UNAUTHORIZED("Updated token must have the exact same tags with the original token"));
    update(1, signed_token("{\"chn\":\"some-room\",\"tags\":[\"tag1\",\"b\"],\"iat\":1,\"exp\":"
                           "4102444800}"));
    hears(c, UNAUTHORIZED("Updated token must have the exact same tags with the original token"));
    say(1, "{\"i\":\"u\",\"p\":{\"u\":\"/updateToken\",\"b\":{}}}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"status\":400"));
    update(1, signed_token("{\"chn\":\"some-room\",\"tags\":[\"tag1\"],\"rpc\":[\"other\"],"
                           "\"iat\":1,\"exp\":1700000100}"));
    hears(c, "{\"i\":\"u\",\"p\":{\"b\":{}}}");
    say(1,
        "{\"i\":\"c\",\"p\":{\"u\":\"/call\",\"b\":{\"json\":{\"path\":[\"publishMessage\"]}}}}");
    hears(c,
          "{\"i\":\"c\",\"p\":{\"s\":403,\"b\":{\"json\":{\"defined\":false,\"code\":\"FORBIDDEN\","
          "\"status\":403,\"message\":\"Method \\\"publishMessage\\\" is not allowed.\"}}}}");
    pass_ms(101 * 1000); /* its end is enforced, though nobody says a word */
    ck_assert(c->closed);
    ck_assert_uint_eq(c->code, 1008);
    ck_assert_str_eq(c->reason, "Token expired");
}
END_TEST

/* ---- frames ---- */

START_TEST(test_bad_frames_are_ignored)
{
    static const char *const frames[] = {"",
                                         "x",
                                         "[]",
                                         "1",
                                         "{}",
                                         "{\"i\":\"1\"}",
                                         "{\"i\":\"1\",\"p\":null}",
                                         "{\"i\":\"1\",\"p\":{}}",
                                         "{\"i\":\"1\",\"p\":{\"u\":1}}",
                                         "{\"i\":\"1\",\"p\":{\"u\":\"subscribe\"}}",
                                         "{\"i\":\"1\",\"p\":{\"u\":\"\"}}",
                                         "{\"p\":{\"u\":\"/subscribe\"}}",
                                         "{\"i\":\"1\",\"t\":3,\"p\":{\"u\":\"/subscribe\"}}",
                                         "{\"i\":\"1\",\"t\":2,\"p\":{\"u\":\"/subscribe\"}}",
                                         "{\"i\":\"1\",\"t\":\"1\",\"p\":{\"u\":\"/subscribe\"}}",
                                         "{\"i\":\"1\",\"p\":{\"u\":\"/subscribe\",\"h\":1}}",
                                         "{\"i\":\"1\",\"p\":{\"u\":\"/subscribe\",\"m\":[]}}",
                                         "{\"i\":\"9\",\"t\":4}"};
    struct client *c = open_e2(1, "a", E2_CLAIMS);
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
        say(1, frames[i]);
    hears(c, "");
    ck_assert(!c->closed);
    say(1, "{\"i\":\"1\",\"p\":{\"u\":\"/nothing\"}}");
    hears(c, "{\"i\":\"1\",\"p\":{\"s\":404,\"b\":\"No procedure matched\"}}");
    say(1, "{\"i\":\"1\",\"p\":{\"u\":\"/Subscribe\"}}");
    hears(c, "{\"i\":\"1\",\"p\":{\"s\":404,\"b\":\"No procedure matched\"}}");
}
END_TEST

static void says_bytes(unsigned client, const void *bytes, size_t size)
{
    gateway_frame(gateway, client, slice_of(bytes, size), false, now);
    settle();
}

START_TEST(test_addresses_and_binary)
{
    static const char *const addresses[] = {"/subscribe/", "/subscribe?x=1",
                                            "http://a.example/subscribe", "orpc:/subscribe",
                                            "https://a.example:1/subscribe/?q#f"};
    char text[256];
    struct client *c = open_e2(1, "a", E2_CLAIMS);
    for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        snprintf(text, sizeof text, "{\"i\":%u,\"t\":1,\"p\":{\"u\":\"%s\",\"m\":\"POST\"}}", i,
                 addresses[i]);
        says_bytes(1, text, strlen(text));
        snprintf(text, sizeof text, OPENED("%u"), i);
        hears(c, text);
    }
    const char *with_blob = "{\"i\":77,\"p\":{\"u\":\"/subscribe\"}}\xff\x00\x01";
    says_bytes(1, with_blob, strlen(with_blob) + 2);
    hears(c, OPENED("77"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway orpc");
    TCase *c = tcase_create("streams");
    tcase_add_checked_fixture(c, setup, world_teardown);
    tcase_add_test(c, test_refusals);
    tcase_add_test(c, test_last_parameter_counts);
    tcase_add_test(c, test_no_signing_key);
    tcase_add_test(c, test_own_route);
    tcase_add_test(c, test_channels_that_are_no_keys);
    tcase_add_test(c, test_subscribe);
    tcase_add_test(c, test_resume);
    tcase_add_test(c, test_first_kind_gets_what_came_since_its_token);
    tcase_add_test(c, test_missed);
    tcase_add_test(c, test_another_history);
    tcase_add_test(c, test_payloads);
    tcase_add_test(c, test_streams_of_one_name_share_their_frames);
    tcase_add_test(c, test_more_names_than_places);
    tcase_add_test(c, test_filters);
    tcase_add_test(c, test_newest_of_one_id);
    tcase_add_test(c, test_update_token);
    tcase_add_test(c, test_bad_frames_are_ignored);
    tcase_add_test(c, test_addresses_and_binary);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
