/* The bounded reader: every form of every type, every truncation, and headers that lie. */
#include <check.h>
#include <stdlib.h>

#include "proto/mp.h"

#define BYTES(...) ((const uint8_t[]){__VA_ARGS__})
#define READER(...) mp_of(slice_of(BYTES(__VA_ARGS__), sizeof BYTES(__VA_ARGS__)))

static void expect_u64(struct mp r, uint64_t expected)
{
    uint64_t value = ~expected;
    ck_assert_int_eq(mp_u64(&r, &value), ERR_OK);
    ck_assert_uint_eq(value, expected);
    ck_assert(mp_end(&r));
}

static void expect_i64(struct mp r, int64_t expected)
{
    int64_t value = ~expected;
    ck_assert_int_eq(mp_i64(&r, &value), ERR_OK);
    ck_assert_int_eq(value, expected);
    ck_assert(mp_end(&r));
}

START_TEST(integers_of_every_form)
{
    expect_u64(READER(0x00), 0);
    expect_u64(READER(0x7f), 127);
    expect_u64(READER(0xcc, 0xff), 255);
    expect_u64(READER(0xcd, 0x01, 0x02), 0x102);
    expect_u64(READER(0xce, 0x01, 0x02, 0x03, 0x04), 0x1020304);
    expect_u64(READER(0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), UINT64_MAX);
    expect_u64(READER(0xd0, 0x7f), 127);
    expect_u64(READER(0xd1, 0x7f, 0xff), 32767);
    expect_u64(READER(0xd3, 0, 0, 0, 0, 0, 0, 0, 5), 5);
    expect_i64(READER(0xff), -1);
    expect_i64(READER(0xe0), -32);
    expect_i64(READER(0xd0, 0x80), -128);
    expect_i64(READER(0xd1, 0x80, 0x00), -32768);
    expect_i64(READER(0xd2, 0xff, 0xff, 0xff, 0xfe), -2);
    expect_i64(READER(0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0), INT64_MIN);
    expect_i64(READER(0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), INT64_MAX);
    expect_i64(READER(0xcc, 0x80), 128);
}
END_TEST

START_TEST(wrong_integers_leave_the_cursor)
{
    uint64_t u = 7;
    int64_t i = 7;
    struct mp negative = READER(0xff);
    struct mp before = negative;
    ck_assert_int_eq(mp_u64(&negative, &u), ERR_INVALID);
    ck_assert_ptr_eq(negative.at, before.at);
    struct mp large = READER(0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0);
    before = large;
    ck_assert_int_eq(mp_i64(&large, &i), ERR_INVALID);
    ck_assert_ptr_eq(large.at, before.at);
    struct mp text = READER(0xa1, 'x');
    ck_assert_int_eq(mp_u64(&text, &u), ERR_INVALID);
    struct mp real = READER(0xca, 0, 0, 0, 0);
    ck_assert_int_eq(mp_u64(&real, &u), ERR_INVALID);
    ck_assert_uint_eq(u, 7);
    ck_assert_int_eq(i, 7);
}
END_TEST

START_TEST(str_and_bin_are_not_confused)
{
    struct slice s;
    struct mp fix = READER(0xa2, 'h', 'i');
    ck_assert_int_eq(mp_str(&fix, 2, &s), ERR_OK);
    ck_assert(slice_is(s, "hi"));
    struct mp str8 = READER(0xd9, 2, 'h', 'i');
    ck_assert_int_eq(mp_str(&str8, 2, &s), ERR_OK);
    ck_assert(slice_is(s, "hi"));
    struct mp str16 = READER(0xda, 0, 2, 'h', 'i');
    ck_assert_int_eq(mp_str(&str16, 2, &s), ERR_OK);
    struct mp str32 = READER(0xdb, 0, 0, 0, 2, 'h', 'i');
    ck_assert_int_eq(mp_str(&str32, 2, &s), ERR_OK);
    ck_assert(mp_end(&str32));
    struct mp bin8 = READER(0xc4, 2, 1, 2);
    ck_assert_int_eq(mp_str(&bin8, 2, &s), ERR_INVALID);
    ck_assert_int_eq(mp_bin(&bin8, 2, &s), ERR_OK);
    ck_assert_uint_eq(s.size, 2);
    struct mp text = READER(0xa1, 'x');
    ck_assert_int_eq(mp_bin(&text, 2, &s), ERR_INVALID);
    struct mp over = READER(0xa3, 'a', 'b', 'c');
    ck_assert_int_eq(mp_str(&over, 2, &s), ERR_TOO_LARGE);
}
END_TEST

START_TEST(lying_headers)
{
    struct slice s;
    size_t count = 0;
    struct mp str32 = READER(0xdb, 0xff, 0xff, 0xff, 0xff, 'x');
    ck_assert_int_eq(mp_str(&str32, 100, &s), ERR_TOO_LARGE);
    ck_assert_int_eq(mp_str(&str32, SIZE_MAX, &s), ERR_INVALID);
    struct mp array32 = READER(0xdd, 0xff, 0xff, 0xff, 0xff, 0);
    ck_assert_int_eq(mp_array(&array32, 4096, &count), ERR_TOO_LARGE);
    ck_assert_int_eq(mp_array(&array32, SIZE_MAX, &count), ERR_INVALID);
    ck_assert_int_eq(mp_skip(&array32, 4), ERR_INVALID);
    struct mp map32 = READER(0xdf, 0xff, 0xff, 0xff, 0xff, 0);
    ck_assert_int_eq(mp_map(&map32, SIZE_MAX, &count), ERR_INVALID);
    ck_assert_int_eq(mp_skip(&map32, 4), ERR_INVALID);
    struct mp map = READER(0x82, 1, 2, 3);
    ck_assert_int_eq(mp_map(&map, 10, &count), ERR_INVALID);
    struct mp ext32 = READER(0xc9, 0xff, 0xff, 0xff, 0xff, 1);
    ck_assert_int_eq(mp_skip(&ext32, 4), ERR_INVALID);
}
END_TEST

/* One value of every kind. */
static const uint8_t kinds[] = {
    0x93,                                                            /* array of 3 */
    0xc0, 0xc2,                                                      /* nil, false */
    0x82, 0xa1, 'k', 0xc3, 0x05,                                     /* map of "k": true and 5: */
    0x9e,                                                            /* array of 14 */
    0xe1, 0xcc, 1,   0xd1, 0,    1,                                  /* integers */
    0xca, 1,    2,   3,    4,    0xcb, 1,    2, 3,    4, 5, 6, 7, 8, /* floats */
    0xd9, 1,    'x', 0xc4, 1,    0,    0xc5, 0, 1,    0,             /* str, bins */
    0xd4, 1,    0,                                                   /* fixext 1 */
    0xd8, 1,    1,   2,    3,    4,    5,    6, 7,    8,             /* fixext 16 */
    1,    2,    3,   4,    5,    6,    7,    8, 0xc7, 2, 1, 0, 0, 0xc8,
    0,    1,    1,   0,                   /* ext8, ext16 */
    0xdc, 0,    1,   0,    0xde, 0,    0, /* array16, map16 */
};

START_TEST(skips_every_kind)
{
    struct mp r = mp_of(slice_of(kinds, sizeof kinds));
    ck_assert_int_eq(mp_skip(&r, 4), ERR_OK);
    ck_assert(mp_end(&r));
    struct mp shallow = mp_of(slice_of(kinds, sizeof kinds));
    ck_assert_int_eq(mp_skip(&shallow, 3), ERR_TOO_LARGE);
}
END_TEST

START_TEST(every_truncation_is_an_error)
{
    for (size_t size = 0; size < sizeof kinds; size++) {
        uint8_t *exact = malloc(size ? size : 1); /* the sanitizer sees a read beyond it */
        memcpy(exact, kinds, size);
        struct mp r = {exact, exact + size};
        ck_assert_int_ne(mp_skip(&r, 4), ERR_OK);
        ck_assert_ptr_eq(r.at, exact);
        free(exact);
    }
}
END_TEST

START_TEST(depth_is_bounded)
{
    uint8_t nested[1000];
    memset(nested, 0x91, sizeof nested);
    nested[sizeof nested - 1] = 0;
    struct mp r = mp_of(slice_of(nested, sizeof nested));
    ck_assert_int_eq(mp_skip(&r, 4), ERR_TOO_LARGE);
    struct mp five = mp_of(slice_of(nested + sizeof nested - 5, 5));
    ck_assert_int_eq(mp_skip(&five, 4), ERR_OK);
    struct mp six = mp_of(slice_of(nested + sizeof nested - 6, 6));
    ck_assert_int_eq(mp_skip(&six, 4), ERR_TOO_LARGE);
    struct mp never_used = READER(0xc1);
    ck_assert_int_eq(mp_skip(&never_used, 4), ERR_INVALID);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mp");
    TCase *tc = tcase_create("reader");
    tcase_add_test(tc, integers_of_every_form);
    tcase_add_test(tc, wrong_integers_leave_the_cursor);
    tcase_add_test(tc, str_and_bin_are_not_confused);
    tcase_add_test(tc, lying_headers);
    tcase_add_test(tc, skips_every_kind);
    tcase_add_test(tc, every_truncation_is_an_error);
    tcase_add_test(tc, depth_is_bounded);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
