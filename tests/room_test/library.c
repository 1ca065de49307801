/* SHELL. libstoa-room-test as authors of rooms use it: rooms from files in Lua and in C, what
 * cannot be loaded or asked, frames, closes, crashes, full disks. What the rooms do is tested
 * elsewhere. ROOMS is where the libraries of the examples are. */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stoa_room_test.h"

static stoa_test *t;

static void begin(void)
{
    t = stoa_test_create();
}

static void end(void)
{
    stoa_test_destroy(t);
}

static void load_probe(const char *name, const char *config)
{
    char path[1024];
    const char *rooms = getenv("ROOMS");
    bool lua = strstr(name, ".lua");
    (void)snprintf(path, sizeof path, "%s/%s", lua || !rooms ? SOURCE : rooms, name);
    ck_assert_msg(stoa_test_load(t, path, config) == 0, "%s", stoa_test_error(t));
}

static const char *const probes[] = {"probe.lua", "probe.so"};

START_TEST(asks)
{
    load_probe(probes[_i], NULL);
    ck_assert_str_eq(stoa_test_call(t, "probe:a", "save", "{\"state\":{\"n\":1}}")->json, "null");
    ck_assert_str_eq(stoa_test_state(t, "probe:a")->json, "{\"n\":1}");
    ck_assert_str_eq(stoa_test_state(t, "probe:b")->json, "null");
    stoa_test_call(t, "probe:a", "publish", "{\"message\":\"kept\"}");
    stoa_test_connection *c = stoa_test_connect(
        t, "probe:a", "{\"query\":{\"id\":\"ann\",\"tags\":\"x\"},\"claims\":{\"sub\":\"a\"}}");
    ck_assert_str_eq(stoa_test_tags(c), "[\"x\"]");
    ck_assert_uint_gt(strlen(stoa_test_session(c)), 0);
    ck_assert_ptr_nonnull(strstr(stoa_test_received(c), "\"claims\":{\"sub\":\"a\"}"));
    ck_assert_uint_eq(stoa_test_broadcast(t, "probe:a", "[1]")->status, 0);
    ck_assert_str_eq(stoa_test_received(c), "[1]");
    ck_assert_str_eq(stoa_test_connections(t, "probe:a", "x")->json,
                     "[{\"id\":\"ann\",\"tags\":[\"x\"],\"state\":null}]");
    ck_assert_str_eq(stoa_test_connections(t, "probe:a", "y")->json, "[]");
    ck_assert_str_eq(stoa_test_log(t, "probe:a")->json, "[\"kept\"]");
    ck_assert_uint_eq(stoa_test_send(t, "probe:a", "{\"act\":\"fail\"}")->status, 500);
    ck_assert_ptr_nonnull(strstr(stoa_test_printed(t), "as asked"));
    ck_assert_str_eq(stoa_test_printed(t), "");
    ck_assert_uint_eq(stoa_test_purge(t, "probe:a")->status, 0);
    ck_assert_str_eq(stoa_test_last(t)->tag, "");
    ck_assert_str_eq(stoa_test_state(t, "probe:a")->json, "null");
    ck_assert_str_eq(stoa_test_log(t, "probe:a")->json, "[]");
}
END_TEST

START_TEST(frames)
{
    const char *reason;
    unsigned code;
    load_probe(probes[_i], NULL);
    stoa_test_connection *a = stoa_test_connect(t, "probe:a", "{\"query\":{\"id\":\"a\"}}");
    stoa_test_connection *b = stoa_test_connect(t, "probe:a", NULL);
    (void)stoa_test_received(a), (void)stoa_test_received(b);
    ck_assert_int_eq(stoa_test_receive(a, "ping"), 0);
    ck_assert_str_eq(stoa_test_received(a), "pong");
    ck_assert_int_eq(stoa_test_receive_binary(a, "\xff\0", 2), 0);
    ck_assert_ptr_nonnull(strstr(stoa_test_received(a), "RoomValidationError"));
    stoa_test_close(a, 4001, "bye");
    ck_assert_int_eq(stoa_test_receive(a, "{}"), -1);
    ck_assert_ptr_null(stoa_test_received(a));
    ck_assert_int_eq(stoa_test_is_open(a, &code, &reason), 0);
    ck_assert_uint_eq(code, 4001);
    ck_assert_str_eq(reason, "bye");
    ck_assert_ptr_nonnull(strstr(stoa_test_received(b), "4001"));
    stoa_test_close(b, 1006, NULL);
    ck_assert_str_eq(stoa_test_call(t, "probe:a", "count", NULL)->json, "0");
}
END_TEST

START_TEST(time_and_faults)
{
    load_probe(probes[_i], NULL);
    stoa_test_connection *a = stoa_test_connect(t, "probe:a", NULL);
    (void)stoa_test_received(a);
    int64_t now = stoa_test_now(t);
    ck_assert_int_eq(stoa_test_next_alarm(t, "probe:a"), -1);
    stoa_test_call(t, "probe:a", "wake_in", "{\"ms\":500}");
    ck_assert_int_eq(stoa_test_next_alarm(t, "probe:a"), now + 500);
    stoa_test_tick(t, 499);
    ck_assert_ptr_null(stoa_test_received(a));
    stoa_test_tick(t, 1);
    ck_assert_ptr_nonnull(strstr(stoa_test_received(a), "alarm"));
    stoa_test_tick(t, -5);
    ck_assert_int_eq(stoa_test_now(t), now + 500);
    ck_assert_uint_eq(stoa_test_fire_alarm(t, "probe:a")->status, 0);
    ck_assert_ptr_nonnull(stoa_test_received(a));
    stoa_test_call(t, "probe:a", "remember", "{\"text\":\"x\"}");
    ck_assert_int_eq(stoa_test_restart(t, 0), 0);
    ck_assert_str_eq(stoa_test_call(t, "probe:a", "memory", NULL)->json, "null");
    ck_assert_int_eq(stoa_test_is_open(a, NULL, NULL), 1);
    stoa_test_fail_commits(t, 2);
    ck_assert_uint_eq(stoa_test_call(t, "probe:a", "save", "{\"state\":1}")->status, 0);
    ck_assert_str_eq(stoa_test_call(t, "probe:a", "save", "{\"state\":2}")->tag, "DiskFull");
    stoa_test_fail_commits(t, 0);
    ck_assert_str_eq(stoa_test_state(t, "probe:a")->json, "1");
    ck_assert_int_eq(stoa_test_restart(t, 1), 0);
    ck_assert_int_eq(stoa_test_is_open(a, NULL, NULL), 0);
}
END_TEST

static void refused_file(const char *path, const char *config, const char *why)
{
    ck_assert_int_eq(stoa_test_load(t, path, config), -1);
    ck_assert_msg(strstr(stoa_test_error(t), why), "%s: %s", path, stoa_test_error(t));
}

START_TEST(refusals)
{
    const char *probe = SOURCE "/probe.lua";
    refused_file("absent.lua", NULL, "No such file");
    refused_file("./absent.so", NULL, "absent.so");
    refused_file(SOURCE "/probe_test.lua", NULL, "no room file");
    refused_file(probe, "[]", "is an object");
    refused_file(probe, "{", "is an object");
    refused_file(probe, "{\"handler\":1}", "handler: not a field");
    refused_file(probe, "{\"max_connections\":0}", "1 to 32768");
    refused_file(probe, "{\"max_connection_state\":16385}", "1 to 16384");
    refused_file(probe, "{\"on_duplicate\":\"no\"}", "allow, replace or reject");
    load_probe("probe.lua", "{\"on_duplicate\":\"reject\",\"max_connections\":2,"
                            "\"max_connection_state\":100}");
    ck_assert_str_eq(stoa_test_error(t), "");
    ck_assert_ptr_nonnull(stoa_test_connect(t, "probe:a", "{\"query\":{\"id\":\"a\"}}"));
    ck_assert_ptr_null(stoa_test_connect(t, "probe:a", "{\"query\":{\"id\":\"a\"}}"));
    ck_assert_uint_eq(stoa_test_last(t)->status, 409);
    ck_assert_ptr_null(stoa_test_connect(t, "probe:a", "{\"id\":\"a\"}"));
    ck_assert_str_eq(stoa_test_last(t)->message, "id: not something that identify sees");
    ck_assert_ptr_null(stoa_test_connect(t, "probe:a", "no JSON"));
    ck_assert_uint_eq(stoa_test_last(t)->status, 400);
    ck_assert_uint_ne(stoa_test_call(t, "nowhere:a", "x", NULL)->status, 0);
}
END_TEST

/* A file that is gone when the shard starts anew: nothing answers, nothing crashes. */
START_TEST(does_not_start_again)
{
    char path[] = "/tmp/stoa-test-XXXXXX.lua";
    int fd = mkstemps(path, 4);
    FILE *file = fdopen(fd, "w");
    fputs("#!room name=gone api=1\nreturn {}\n", file);
    fclose(file);
    ck_assert_int_eq(stoa_test_load(t, path, NULL), 0);
    stoa_test_connection *c = stoa_test_connect(t, "gone:a", NULL);
    ck_assert_ptr_nonnull(c);
    remove(path);
    ck_assert_int_eq(stoa_test_restart(t, 0), -1);
    ck_assert_ptr_nonnull(strstr(stoa_test_error(t), "No such file"));
    ck_assert_int_eq(stoa_test_restart(t, 0), -1);
    ck_assert_int_eq(stoa_test_load(t, path, NULL), -1);
    ck_assert_uint_eq(stoa_test_state(t, "gone:a")->status, 503);
    ck_assert_uint_eq(stoa_test_log(t, "gone:a")->status, 503);
    ck_assert_uint_eq(stoa_test_purge(t, "gone:a")->status, 503);
    ck_assert_ptr_null(stoa_test_connect(t, "gone:a", NULL));
    ck_assert_int_eq(stoa_test_receive(c, "{}"), -1);
    ck_assert_ptr_null(stoa_test_received(c));
    ck_assert_str_eq(stoa_test_id(c), "");
    ck_assert_int_eq(stoa_test_is_open(c, NULL, NULL), 0);
    ck_assert_int_eq(stoa_test_next_alarm(t, "gone:a"), -1);
    stoa_test_tick(t, 1000);
    stoa_test_close(c, 1000, NULL);
    stoa_test_fail_commits(t, 1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("room_library");
    TCase *c = tcase_create("library");
    tcase_add_checked_fixture(c, begin, end);
    tcase_add_loop_test(c, asks, 0, 2);
    tcase_add_loop_test(c, frames, 0, 2);
    tcase_add_loop_test(c, time_and_faults, 0, 2);
    tcase_add_test(c, refusals);
    tcase_add_test(c, does_not_start_again);
    suite_add_tcase(s, c);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
