/* Tests of the counter in C, with Check. The room is linked in; stoa_test_load would take
 * counter.so as well.
 *
 *     cc counter.c counter_test.c $(pkg-config --cflags --libs stoa-room-test check) && ./a.out */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "stoa_room_test.h"

#define ONE "counter:one"

static stoa_test *t;

static void begin(void)
{
    t = stoa_test_create();
    ck_assert_msg(stoa_test_plugin(t, stoa_room_plugin, NULL) == 0, "%s", stoa_test_error(t));
}

static void end(void)
{
    stoa_test_destroy(t);
}

/* What a method returns; its failure fails the test and says what the room has said. */
static const char *called(const char *method, const char *input)
{
    const stoa_test_answer *a = stoa_test_call(t, ONE, method, input);
    ck_assert_msg(a->status == 0, "%s: %s\n%s", a->tag, a->message, stoa_test_printed(t));
    return a->json;
}

static stoa_test_connection *enter(const char *request)
{
    stoa_test_connection *c = stoa_test_connect(t, ONE, request);
    ck_assert_msg(c, "%s", stoa_test_last(t)->message);
    ck_assert_ptr_nonnull(stoa_test_received(c)); /* the count as it is */
    return c;
}

START_TEST(everybody_sees_it)
{
    stoa_test_connection *ann = enter("{\"query\":{\"name\":\"ann\"}}"), *bob = enter(NULL);
    ck_assert_str_eq(stoa_test_id(ann), "ann");
    stoa_test_receive(ann, "{\"add\":2}");
    stoa_test_receive(bob, "{\"add\":-5}");
    ck_assert_str_eq(stoa_test_received(bob), "{\"count\":2}");
    ck_assert_str_eq(stoa_test_received(bob), "{\"count\":-3}");
    ck_assert_ptr_null(stoa_test_received(bob));
    ck_assert_str_eq(stoa_test_state(t, ONE)->json, "{\"count\":-3}");
    ck_assert_str_eq(called("get", NULL), "-3");
    ck_assert_ptr_nonnull(strstr(stoa_test_connections(t, ONE, NULL)->json, "{\"added\":2}"));
}
END_TEST

START_TEST(refuses)
{
    const stoa_test_answer *a;
    ck_assert_ptr_null(stoa_test_connect(t, ONE, "{\"query\":{\"name\":\"\"}}"));
    ck_assert_uint_eq(stoa_test_last(t)->status, 400);
    ck_assert_str_eq(stoa_test_last(t)->message, "name must not be empty");
    a = stoa_test_send(t, ONE, "{\"plus\":1}");
    ck_assert_str_eq(a->tag, "RoomValidationError");
    a = stoa_test_call(t, ONE, "add", "{\"by\":1000000000001}");
    ck_assert_str_eq(a->tag, "RoomValidationError");
    called("add", "{\"by\":1000000000000}");
    a = stoa_test_call(t, ONE, "add", NULL);
    ck_assert_uint_eq(a->status, 409);
    ck_assert_str_eq(a->tag, "OutOfRange");
    ck_assert_str_eq(a->json, "{\"by\":1}");
    ck_assert_str_eq(stoa_test_call(t, ONE, "fly", NULL)->tag, "NoSuchMethod");
}
END_TEST

START_TEST(others_run_while_one_waits)
{
    stoa_test_connection *ann = enter(NULL);
    int64_t before = stoa_test_now(t);
    ck_assert_str_eq(called("add_later", "{\"by\":4,\"ms\":50}"), "4");
    ck_assert_int_eq(stoa_test_now(t), before + 50);
    ck_assert_str_eq(stoa_test_received(ann), "{\"count\":4}");
    ck_assert_str_eq(stoa_test_call(t, "counter:two", "copy", "{\"from\":\"one\"}")->json, "4");
}
END_TEST

START_TEST(survives)
{
    stoa_test_connection *ann = enter(NULL);
    called("add", "{\"by\":3}");
    ck_assert_int_eq(stoa_test_restart(t, 0), 0);
    ck_assert_str_eq(called("get", NULL), "3");
    stoa_test_fail_commits(t, 1);
    ck_assert_uint_eq(stoa_test_call(t, ONE, "add", NULL)->status, 503);
    stoa_test_fail_commits(t, 0);
    stoa_test_tick(t, 5000);
    ck_assert_str_eq(called("get", NULL), "3");
    ck_assert_int_eq(stoa_test_is_open(ann, NULL, NULL), 1);
}
END_TEST

START_TEST(idle_for_an_hour)
{
    called("add", NULL);
    ck_assert_int_eq(stoa_test_next_alarm(t, ONE), stoa_test_now(t) + 3600000);
    stoa_test_tick(t, 3600000);
    ck_assert_str_eq(called("get", NULL), "0");
    ck_assert_int_eq(stoa_test_next_alarm(t, ONE), -1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("counter");
    TCase *c = tcase_create("counter");
    tcase_add_checked_fixture(c, begin, end);
    tcase_add_test(c, everybody_sees_it);
    tcase_add_test(c, refuses);
    tcase_add_test(c, others_run_while_one_waits);
    tcase_add_test(c, survives);
    tcase_add_test(c, idle_for_an_hour);
    suite_add_tcase(s, c);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
