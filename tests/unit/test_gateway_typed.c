/* Typed payloads (Stoa-Format: orpc) at a gateway: checked when published, and given to readers of
 * every dialect but orpc as their value alone, live, from the log and by GET /log. */
#include "gateway_world.h"

#define DATED "{\"json\":{\"at\":\"2026-01-01\"},\"meta\":[[1,\"at\"]],\"retry\":500}"

START_TEST(readers_get_the_value)
{
    struct client *raw = open_raw(1, "/events?key=k");
    struct client *sse = open_sse(2, "/events?key=k", NULL);
    struct client *v1 = open_v1(3);
    say(3, "{\"sub\":\"k\"}");
    frame(v1);
    rest(sse);
    struct client *c = ask(4, "POST /publish?key=k", "Stoa-Format: orpc", DATED);
    ck_assert_str_eq(c->body, "{\"id\":\"100-1\",\"duplicate\":false}");
    ck_assert_str_eq(frame(raw), "{\"at\":\"2026-01-01\"}");
    ck_assert(frame_was_text());
    ck_assert_ptr_nonnull(strstr(rest(sse), "data: {\"at\":\"2026-01-01\"}\n"));
    ck_assert_ptr_nonnull(strstr(frame(v1), "\"data\":{\"at\":\"2026-01-01\"}}"));
    ask(4, "POST /publish?key=k", "Stoa-Format: orpc", "{}");
    ck_assert_str_eq(frame(raw), "null");
    struct client *late = open_raw(5, "/events?key=k&replay=all");
    ck_assert_str_eq(frame(late), "{\"at\":\"2026-01-01\"}");
    ck_assert_str_eq(frame(late), "null");
    c = ask(6, "GET /log?key=k", NULL, NULL);
    ck_assert_ptr_nonnull(strstr(c->body, "\"data\":{\"at\":\"2026-01-01\"}}"));
    ck_assert_ptr_nonnull(strstr(c->body, "\"data\":null}"));
    ck_assert_ptr_null(strstr(c->body, "meta"));
}
END_TEST

START_TEST(batches_and_ephemerals)
{
    struct client *raw = open_raw(1, "/events?key=k");
    ask(2, "POST /publish?key=k", "Stoa-Format: orpc\nContent-Type: application/x-ndjson",
        "{\"json\":1}\n{\"json\":[2],\"meta\":[]}\n");
    ck_assert_str_eq(frame(raw), "1");
    ck_assert_str_eq(frame(raw), "[2]");
    ask(2, "POST /publish?key=k", "Stoa-Format: orpc\nContent-Type: application/x-ndjson",
        "{\"json\":3}\n{\"value\":4}\n");
    ASSERT_ERROR(&clients[2], 400, "BadRequest");
    ck_assert_uint_eq(room_count("k"), 2);
    ask(2, "POST /publish?key=k", "Stoa-Format: orpc\nStoa-Ephemeral: 1", "{\"json\":\"typing\"}");
    ck_assert_str_eq(frame(raw), "\"typing\"");
}
END_TEST

START_TEST(what_is_malformed_is_refused)
{
    ask(1, "POST /publish?key=k", "Stoa-Format: orpc", "[1]");
    ASSERT_ERROR(&clients[1], 400, "BadRequest");
    ck_assert_ptr_nonnull(strstr(clients[1].body, "JSON object"));
    ask(1, "POST /publish?key=k", "Stoa-Format: orpc", "{\"json\":1,\"meta\":[[\"date\"]]}");
    ASSERT_ERROR(&clients[1], 400, "BadRequest");
    ck_assert_ptr_nonnull(strstr(clients[1].body, "meta is an array"));
    ask(1, "POST /publish?key=k", "Stoa-Format: orpc", "{\"json\":{},\"meta\":[[1,\"at\"]]}");
    ASSERT_ERROR(&clients[1], 400, "BadRequest");
    ck_assert_ptr_nonnull(strstr(clients[1].body, "each entry of meta leads to"));
    ask(1, "POST /publish?key=k", "Stoa-Format: json", "{\"json\":1}");
    ASSERT_ERROR(&clients[1], 400, "BadRequest");
    ask(1, "POST /publish?key=k", "Stoa-Format: orpc\nStoa-Format: orpc", "{\"json\":1}");
    ASSERT_ERROR(&clients[1], 400, "BadRequest");
    ck_assert_uint_eq(room_count("k"), 0);
    ask(1, "POST /publish?key=k", NULL, DATED); /* plain: as it is */
    struct client *raw = open_raw(2, "/events?key=k&replay=all");
    ck_assert_str_eq(frame(raw), DATED);
}
END_TEST

/* A shard's word is not trusted: what is none is given as it is. */
START_TEST(a_flag_that_lies)
{
    struct client *raw = open_raw(1, "/events?key=k");
    room_say("k", "{\"json\":1,", EVENT_TYPED, slice_of(NULL, 0));
    settle();
    ck_assert_str_eq(frame(raw), "{\"json\":1,");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_typed");
    TCase *tc = tcase_create("gateway_typed");
    tcase_add_checked_fixture(tc, world_setup, world_teardown);
    tcase_add_test(tc, readers_get_the_value);
    tcase_add_test(tc, batches_and_ephemerals);
    tcase_add_test(tc, what_is_malformed_is_refused);
    tcase_add_test(tc, a_flag_that_lies);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
