/* CORE. Tests of the slots that a new shard is granted. */
#include <check.h>
#include <stdlib.h>

#include "common/limits.h"
#include "shard/grant.h"

static struct grant grant;
static struct strbuf why;

START_TEST(shares_cover_every_slot_once)
{
    for (size_t n = 1; n <= 100; n++) {
        unsigned next = 0;
        for (unsigned i = 0; i < n; i++) {
            ck_assert_int_eq(grant_slots_of(NULL, i, n, &grant, &why), ERR_OK);
            ck_assert_uint_eq(grant.lo, next);
            ck_assert_uint_ge(grant.hi, grant.lo);
            unsigned count = grant.hi - grant.lo + 1u;
            ck_assert(count == SLOT_COUNT / n || count == SLOT_COUNT / n + 1);
            next = grant.hi + 1u;
        }
        ck_assert_uint_eq(next, SLOT_COUNT);
    }
    ck_assert_int_eq(grant_slots_of(NULL, 0, 0, &grant, &why), ERR_OK);
    ck_assert(grant.lo == 0 && grant.hi == SLOT_COUNT - 1);
    strbuf_free(&why);
}
END_TEST

START_TEST(place_beyond_the_list)
{
    ck_assert_int_eq(grant_slots_of(NULL, 2, 2, &grant, &why), ERR_INVALID);
    ck_assert_int_eq(grant_slots_of(NULL, 1, 0, &grant, &why), ERR_INVALID);
    ck_assert_int_eq(grant_slots_of(NULL, 0, SLOT_COUNT + 1, &grant, &why), ERR_INVALID);
    strbuf_free(&why);
}
END_TEST

START_TEST(written_ranges)
{
    static const struct {
        const char *text;
        int code;
        unsigned lo, hi;
    } cases[] = {
        {"0-16383", ERR_OK, 0, 16383},
        {"5-5", ERR_OK, 5, 5},
        {"00-010", ERR_OK, 0, 10},
        {"0-16384", ERR_INVALID, 0, 0},
        {"9-3", ERR_INVALID, 0, 0},
        {"", ERR_INVALID, 0, 0},
        {"5", ERR_INVALID, 0, 0},
        {"5-", ERR_INVALID, 0, 0},
        {"-5", ERR_INVALID, 0, 0},
        {"1-2-3", ERR_INVALID, 0, 0},
        {" 1-2", ERR_INVALID, 0, 0},
        {"1-2 ", ERR_INVALID, 0, 0},
        {"+1-2", ERR_INVALID, 0, 0},
        {"1--2", ERR_INVALID, 0, 0},
        {"1-4294967298", ERR_INVALID, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_msg(grant_slots_of(cases[i].text, 9, 2, &grant, &why) == cases[i].code, "%s",
                      cases[i].text);
        if (cases[i].code == ERR_OK)
            ck_assert(grant.lo == cases[i].lo && grant.hi == cases[i].hi);
    }
    strbuf_free(&why);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("grant");
    TCase *t = tcase_create("grant");
    suite_add_tcase(suite, t);
    tcase_add_test(t, shares_cover_every_slot_once);
    tcase_add_test(t, place_beyond_the_list);
    tcase_add_test(t, written_ranges);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
