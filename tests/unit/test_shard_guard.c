/* Who begins in quarantine after a process that rooms' code ended. */
#include "common/rng.h"
#include "shard/guard.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define NOW INT64_C(1750000000000)

static struct guard_mark mark;
static struct guard_verdict verdict;

/* The process ended under `key`; the next one starts at `wall_ms`. Whether anybody is guilty. */
static bool ended(enum guard_state state, const char *key, int64_t wall_ms)
{
    mark.state = state;
    mark.signal = 11;
    mark.key_size = (uint16_t)strlen(key);
    memcpy(mark.key, key, mark.key_size);
    snprintf(mark.phase, sizeof mark.phase, "event");
    guard_verdict_free(&verdict);
    guard_judge(&mark, wall_ms, &verdict);
    ck_assert_uint_eq(mark.state, GUARD_IDLE);
    return verdict.guilty;
}

static void begin(void)
{
    memset(&mark, 0, sizeof mark);
    guard_judge(&mark, NOW, &verdict);
    ck_assert(!verdict.guilty && mark.version == GUARD_VERSION);
}

static void ck_guilty(const char *key, bool whole_type)
{
    ck_assert(verdict.guilty && verdict.whole_type == whole_type);
    ck_assert_str_eq(strbuf_cstr(&verdict.key), key);
    guard_verdict_free(&verdict);
}

START_TEST(who_does_not_come_back_is_guilty_at_once)
{
    begin();
    ck_assert(ended(GUARD_STUCK, "c:1", NOW));
    ck_guilty("c:1", false);
    ck_assert(!ended(GUARD_CRASHED, "c:1", NOW + 1)); /* it begins anew */
}
END_TEST

START_TEST(three_crashes_within_a_minute_are_too_many)
{
    begin();
    ck_assert(!ended(GUARD_CRASHED, "c:1", NOW));
    ck_assert(!ended(GUARD_CRASHED, "d:1", NOW + 1000));
    ck_assert(!ended(GUARD_CRASHED, "c:1", NOW + 61000)); /* the first one is too old */
    ck_assert(!ended(GUARD_CRASHED, "c:1", NOW + 62000));
    ck_assert(ended(GUARD_CRASHED, "c:1", NOW + 63000));
    ck_guilty("c:1", false);
}
END_TEST

START_TEST(several_rooms_take_their_type_along)
{
    begin();
    ck_assert(!ended(GUARD_CRASHED, "c:1", NOW));
    ck_assert(!ended(GUARD_CRASHED, "c:2", NOW + 1));
    ck_assert(ended(GUARD_CRASHED, "c:3", NOW + 2));
    ck_guilty("c:3", true);
    ck_assert(!ended(GUARD_CRASHED, "c:4", NOW + 3));
}
END_TEST

START_TEST(a_clock_set_back_accuses_nobody)
{
    begin();
    ck_assert(!ended(GUARD_CRASHED, "c:1", NOW));
    ck_assert(!ended(GUARD_CRASHED, "c:1", NOW + 1));
    ck_assert(!ended(GUARD_CRASHED, "c:1", NOW - 3600000));
}
END_TEST

START_TEST(who_was_killed_from_outside_is_not_guilty)
{
    begin();
    for (int i = 0; i < 5; i++) {
        ck_assert(!ended(GUARD_RUNS, "c:1", NOW + i));
        ck_assert(!ended(GUARD_IDLE, "c:1", NOW + i));
    }
    ck_assert_uint_eq(mark.n_ends, 0);
}
END_TEST

START_TEST(many_ends_are_kept_in_their_number)
{
    char key[32];
    begin();
    for (int i = 0; i < 30; i++) {
        snprintf(key, sizeof key, "t%d:1", i);
        ck_assert(!ended(GUARD_CRASHED, key, NOW + i));
    }
    ck_assert(!ended(GUARD_CRASHED, "c:1", NOW + 40));
    ck_assert(!ended(GUARD_CRASHED, "c:1", NOW + 41));
    ck_assert(ended(GUARD_CRASHED, "c:1", NOW + 42));
    ck_guilty("c:1", false);
}
END_TEST

START_TEST(a_mark_of_any_bytes_is_as_good_as_none)
{
    struct rng rng;
    rng_seed(&rng, 7);
    for (int i = 0; i < 2000; i++) {
        rng_bytes(&rng, (uint8_t *)&mark, sizeof mark);
        if (i % 2)
            mark.version = GUARD_VERSION;
        if (i % 4 == 3) {
            mark.state = GUARD_STUCK;
            mark.n_ends = (uint32_t)rng_below(&rng, 10);
        }
        guard_judge(&mark, NOW, &verdict);
        ck_assert_uint_eq(mark.version, GUARD_VERSION);
        ck_assert_uint_le(mark.n_ends, 8);
        guard_verdict_free(&verdict);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        who_does_not_come_back_is_guilty_at_once,  three_crashes_within_a_minute_are_too_many,
        several_rooms_take_their_type_along,       a_clock_set_back_accuses_nobody,
        who_was_killed_from_outside_is_not_guilty, many_ends_are_kept_in_their_number,
        a_mark_of_any_bytes_is_as_good_as_none};
    Suite *suite = suite_create("shard_guard");
    TCase *all = tcase_create("all");
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(all, tests[i]);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
