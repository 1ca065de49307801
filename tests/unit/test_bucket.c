/* Token buckets: what passes in a burst, what comes back, against a model that counts tokens. */
#include "common/bucket.h"
#include "common/rng.h"
#include "common/tick.h"

#include <check.h>
#include <stdlib.h>

#define START_NS (INT64_C(77) * NS_PER_S)

static unsigned taken_of(struct bucket *b, double rate, unsigned asked, int64_t now_ns)
{
    unsigned taken = 0;
    for (unsigned i = 0; i < asked; i++)
        taken += bucket_take(b, rate, 1, now_ns) == 0;
    return taken;
}

START_TEST(burst_is_a_second)
{
    struct bucket b = {0};
    ck_assert_uint_eq(taken_of(&b, 20, 50, START_NS), 20);
    ck_assert_uint_eq(taken_of(&b, 20, 50, START_NS + NS_PER_S / 2), 10);
    ck_assert_uint_eq(taken_of(&b, 20, 50, START_NS + 100 * NS_PER_S), 20);
}
END_TEST

START_TEST(less_than_one_a_second)
{
    struct bucket b = {0};
    int64_t wait;
    ck_assert_int_eq(bucket_take(&b, 0.5, 1, START_NS), 0);
    wait = bucket_take(&b, 0.5, 1, START_NS);
    ck_assert_int_eq(wait, 2 * NS_PER_S);
    ck_assert_int_gt(bucket_take(&b, 0.5, 1, START_NS + wait - 1), 0);
    ck_assert_int_eq(bucket_take(&b, 0.5, 1, START_NS + wait), 0);
}
END_TEST

START_TEST(no_limit)
{
    struct bucket b = {0};
    ck_assert_uint_eq(taken_of(&b, 0, 10000, START_NS), 10000);
    ck_assert_uint_eq(taken_of(&b, -1, 100, START_NS), 100);
    ck_assert_uint_eq(taken_of(&b, 1e300, 10000, START_NS), 10000);
    ck_assert(bucket_is_full(&b, START_NS));
    ck_assert_int_eq(bucket_take(&b, 1, 0, START_NS), 0);
}
END_TEST

START_TEST(large_batch_goes_into_debt)
{
    struct bucket b = {0};
    ck_assert_int_eq(bucket_take(&b, 100, 256, START_NS), 0);
    ck_assert(!bucket_is_full(&b, START_NS));
    ck_assert_int_eq(bucket_take(&b, 100, 1, START_NS), 1560 * NS_PER_MS + 10 * NS_PER_MS);
    ck_assert_int_eq(bucket_take(&b, 100, 256, START_NS), 2560 * NS_PER_MS);
    ck_assert_int_eq(bucket_take(&b, 100, 256, START_NS + 2560 * NS_PER_MS), 0);
}
END_TEST

START_TEST(extremes_stay_in_range)
{
    struct bucket b = {0};
    ck_assert_int_eq(bucket_take(&b, 1e-300, UINT32_MAX, START_NS), 0);
    ck_assert_int_gt(bucket_take(&b, 1e-300, UINT32_MAX, START_NS), 0);
    ck_assert_int_gt(bucket_take(&b, 1e-300, 1, START_NS), 0);
    ck_assert(bucket_is_full(&b, INT64_MAX));
}
END_TEST

/* The rate changes with a reload: the bucket goes on from where it is. */
START_TEST(another_rate)
{
    struct bucket b = {0};
    ck_assert_uint_eq(taken_of(&b, 10, 100, START_NS), 10);
    ck_assert_uint_eq(taken_of(&b, 1000, 5000, START_NS), 0);
    ck_assert_uint_eq(taken_of(&b, 1000, 5000, START_NS + NS_PER_S / 4), 250);
}
END_TEST

/* Whole-numbered rates that divide a second, so that the model can count in whole nanoseconds. */
START_TEST(behaves_as_the_model)
{
    static const int64_t rates[] = {1, 2, 8, 20, 500, 1000};
    struct rng r;
    rng_seed(&r, 7 + (uint64_t)_i);
    struct bucket b = {0};
    int64_t rate = rates[rng_below(&r, 6)], token = NS_PER_S / rate, now = START_NS;
    int64_t held = NS_PER_S; /* in time */
    for (int step = 0; step < 20000; step++) {
        int64_t pause = (int64_t)rng_below(&r, (uint64_t)token * 3);
        uint32_t n = 1 + (uint32_t)rng_below(&r, 4);
        now += pause;
        held = held + pause < NS_PER_S ? held + pause : NS_PER_S;
        int64_t least = token * n < NS_PER_S ? token * n : NS_PER_S;
        bool passes = held >= least;
        int64_t wait = bucket_take(&b, (double)rate, n, now);
        if ((wait == 0) != passes || (wait > 0 && wait != least - held))
            ck_abort_msg("step %d: wait %lld, held %lld", step, (long long)wait, (long long)held);
        held -= passes ? token * n : 0;
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bucket");
    TCase *t = tcase_create("bucket");
    tcase_add_test(t, burst_is_a_second);
    tcase_add_test(t, less_than_one_a_second);
    tcase_add_test(t, no_limit);
    tcase_add_test(t, large_batch_goes_into_debt);
    tcase_add_test(t, extremes_stay_in_range);
    tcase_add_test(t, another_rate);
    tcase_add_loop_test(t, behaves_as_the_model, 0, 8);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
