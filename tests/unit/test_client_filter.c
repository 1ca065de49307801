/* libstoa: whom a publish is for. A caller's lists become the filter that gateways ask; what breaks
 * a rule is refused; callers compiled against an older header are not read beyond their struct. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "client/publish.h"
#include "proto/filter.h"

static const char *const ann_bob[] = {"ann", "bob"}, *const red[] = {"red"}, *const nobody[1];

static const stoa_publish_options plain = {.size = sizeof plain};

/* Whether somebody of this id, with the tag red if `tagged`, is given it. */
static bool is_for(const stoa_publish_options *o, const char *id, bool tagged)
{
    const struct slice tag = slice_text("red");
    struct strbuf filter = {0};
    ck_assert_int_eq(publish_filter(o, &filter), STOA_OK);
    bool admitted =
        filter_admits(strbuf_slice(&filter), slice_of(NULL, 0), slice_text(id), &tag, tagged);
    strbuf_free(&filter);
    return admitted;
}

START_TEST(lists_mean_what_they_say)
{
    stoa_publish_options o = plain;
    ck_assert(is_for(NULL, "zoe", false) && is_for(&o, "zoe", false));
    o.to = ann_bob, o.n_to = 2;
    ck_assert(is_for(&o, "ann", false) && is_for(&o, "bob", false) && !is_for(&o, "zoe", true));
    o.tags = red, o.n_tags = 1;
    ck_assert(is_for(&o, "ann", true) && !is_for(&o, "ann", false));
    o.except = ann_bob, o.n_except = 1;
    ck_assert(!is_for(&o, "ann", true) && is_for(&o, "bob", true));
    o = plain;
    o.to = nobody; /* given, without a name */
    ck_assert(!is_for(&o, "ann", true));
    o = plain;
    o.tags = nobody;
    ck_assert(!is_for(&o, "ann", true));
    o = plain;
    o.except = nobody;
    ck_assert(is_for(&o, "ann", true));
}
END_TEST

START_TEST(an_older_caller_says_nothing)
{
    stoa_publish_options o = {.size = offsetof(stoa_publish_options, tags)};
    o.to = o.tags = (const char *const *)(uintptr_t)8; /* is not looked at */
    o.n_to = 7;
    ck_assert(is_for(&o, "zoe", false));
}
END_TEST

static int refusal(stoa_publish_options o)
{
    const stoa_slice part = {"1", 1};
    const struct publish_order order = {
        .key = slice_text("k"), .parts = &part, .n_parts = 1, .options = &o};
    struct strbuf filter = {0};
    int code = publish_filter(&o, &filter);
    ck_assert_uint_eq(filter.size, 0);
    strbuf_free(&filter);
    ck_assert_int_eq(publish_check(&order), code);
    return code;
}

START_TEST(what_breaks_a_rule_is_refused)
{
    static char long_name[FILTER_MAX_BYTES + 1];
    static const char *many[FILTER_MAX_BYTES + 1];
    const char *const one_missing[] = {"ann", NULL}, *const no_text[] = {"\xff"},
                      *const too_long[] = {long_name};
    memset(long_name, 'x', FILTER_MAX_BYTES);
    for (size_t i = 0; i <= FILTER_MAX_BYTES; i++)
        many[i] = "";
    stoa_publish_options o = plain;
    o.n_to = 1;
    ck_assert_int_eq(refusal(o), STOA_INVALID);
    o.to = one_missing, o.n_to = 2;
    ck_assert_int_eq(refusal(o), STOA_INVALID);
    o.to = no_text, o.n_to = 1;
    ck_assert_int_eq(refusal(o), STOA_INVALID);
    o.to = too_long;
    ck_assert_int_eq(refusal(o), STOA_TOO_LARGE);
    o.to = many, o.n_to = FILTER_MAX_BYTES + 1;
    ck_assert_int_eq(refusal(o), STOA_TOO_LARGE);
    o.n_to = FILTER_MAX_BYTES;
    ck_assert_int_eq(refusal(o), STOA_TOO_LARGE);
    o.n_to = 7;
    ck_assert(!is_for(&o, "ann", true));
}
END_TEST

START_TEST(it_is_copied)
{
    char name[] = "ann";
    const char *const to[] = {name};
    stoa_publish_options o = plain;
    o.to = to, o.n_to = 1;
    const stoa_slice part = {"1", 1};
    const struct publish_order order = {
        .key = slice_text("k"), .parts = &part, .n_parts = 1, .options = &o};
    struct publish *p = publish_create(&order);
    name[0] = 'b', name[1] = 'o', name[2] = 'b';
    ck_assert(filter_admits(p->filter, slice_of(NULL, 0), slice_text("ann"), NULL, 0));
    ck_assert(!filter_admits(p->filter, slice_of(NULL, 0), slice_text("bob"), NULL, 0));
    publish_destroy(p);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client filter");
    TCase *tc = tcase_create("client filter");
    tcase_add_test(tc, lists_mean_what_they_say);
    tcase_add_test(tc, an_older_caller_says_nothing);
    tcase_add_test(tc, what_breaks_a_rule_is_refused);
    tcase_add_test(tc, it_is_copied);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
