/* Event ids: one text per position, and nothing else parses. */
#include "common/base36.h"
#include "common/rng.h"

#include <check.h>
#include <signal.h>
#include <stdlib.h>

START_TEST(known_ids)
{
    static const struct {
        struct position p;
        const char *text;
    } table[] = {
        {{0, 0}, "0"},
        {{1, 0}, "1-0"},
        {{35, 9}, "z-9"},
        {{36, 10}, "10-10"},
        {{155786005, 42}, "2kr191-42"},
        {{UINT64_MAX, UINT64_MAX}, "3w5e11264sgsf-18446744073709551615"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char text[EVENT_ID_MAX_BYTES];
        ck_assert_uint_eq(event_id_format(text, table[i].p), strlen(table[i].text));
        ck_assert_str_eq(text, table[i].text);
        struct position p = {7, 7};
        ck_assert_int_eq(event_id_parse(slice_text(text), &p), ERR_OK);
        ck_assert_uint_eq(p.epoch, table[i].p.epoch);
        ck_assert_uint_eq(p.seq, table[i].p.seq);
    }
}
END_TEST

START_TEST(refused)
{
    static const char *const table[] = {
        "",
        "00",
        "0-0",
        "0-1",
        "1",
        "-",
        "1-",
        "-1",
        "1--1",
        "1-1-1",
        "A-1",
        "1-a",
        "01-1",
        "1-01",
        "+1-1",
        "1-+1",
        " 1-1",
        "1-1 ",
        "1-1\n",
        "1_1",
        "1-18446744073709551616",
        "3w5e11264sgsg-1",
        "10000000000000-1",
        "1-184467440737095516150",
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct position p = {7, 7};
        ck_assert_msg(event_id_parse(slice_text(table[i]), &p) == ERR_INVALID, "%s", table[i]);
        ck_assert_uint_eq(p.epoch, 7);
    }
    struct position p;
    ck_assert_int_eq(event_id_parse(slice_of(NULL, 0), &p), ERR_INVALID);
    ck_assert_int_eq(event_id_parse(slice_of("1-1\0", 4), &p), ERR_INVALID);
}
END_TEST

START_TEST(random_ids_round_trip)
{
    struct rng r;
    rng_seed(&r, 36);
    for (int i = 0; i < 10000; i++) {
        struct position p = {(rng_u64(&r) >> rng_below(&r, 64)) | 1,
                             rng_u64(&r) >> rng_below(&r, 64)};
        char text[EVENT_ID_MAX_BYTES];
        struct position back;
        size_t size = event_id_format(text, p);
        if (event_id_parse(slice_of(text, size), &back) != ERR_OK || back.epoch != p.epoch ||
            back.seq != p.seq)
            ck_abort_msg("%s", text);
    }
}
END_TEST

START_TEST(a_seq_needs_an_epoch)
{
    char text[EVENT_ID_MAX_BYTES];
    event_id_format(text, (struct position){0, 1});
}
END_TEST

int main(void)
{
    Suite *s = suite_create("base36");
    TCase *t = tcase_create("base36");
    tcase_add_test(t, known_ids);
    tcase_add_test(t, refused);
    tcase_add_test(t, random_ids_round_trip);
    tcase_add_test_raise_signal(t, a_seq_needs_an_epoch, SIGABRT);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
