/* Typed payloads: what is one, what is none and why, and what their readers are given. */
#include <check.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/strbuf.h"
#include "proto/typed.h"

START_TEST(what_is_one)
{
    static const char *const fine[] = {
        "{}",
        "{\"json\":null}",
        "{\"json\":{\"n\":1},\"meta\":[]}",
        " { \"meta\" : [ [ 1 , \"at\" ] , [ 6 , \"a\" , 0 , \"b\" ] , [ 2 ] ] , \"json\" : 1 } ",
        "{\"json\":1,\"retry\":500,\"comments\":[\"c\",\"\"]}",
        "{\"retry\":0,\"comments\":[]}",
        "{\"json\":{\"json\":1,\"json\":2,\"other\":3}}", /* the value is anybody's */
    };
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        ck_assert_msg(!typed_check(slice_text(fine[i])), "%s: %s", fine[i],
                      typed_check(slice_text(fine[i])));
}
END_TEST

START_TEST(what_is_none)
{
    static const struct {
        const char *text, *why;
    } wrong[] = {
        {"", "JSON object"},
        {"[]", "JSON object"},
        {"\"{}\"", "JSON object"},
        {"{\"json\":1", "JSON object"},
        {"{\"json\":1} x", "JSON object"},
        {"{\"json\":1,\"metas\":[]}", "no others"},
        {"{\"js\\u006fn\":1}", "no others"},
        {"{\"json\":1,\"json\":2}", "each member once"},
        {"{\"json\":1,\"meta\":null}", "meta is"},
        {"{\"json\":1,\"meta\":{}}", "meta is"},
        {"{\"json\":1,\"meta\":[1]}", "meta is"},
        {"{\"json\":1,\"meta\":[[]]}", "meta is"},
        {"{\"json\":1,\"meta\":[[\"1\"]]}", "meta is"},
        {"{\"json\":1,\"meta\":[[-1]]}", "meta is"},
        {"{\"json\":1,\"meta\":[[1,null]]}", "meta is"},
        {"{\"json\":1,\"meta\":[[1,0.5]]}", "meta is"},
        {"{\"json\":1,\"retry\":-1}", "retry is"},
        {"{\"json\":1,\"retry\":\"5\"}", "retry is"},
        {"{\"json\":1,\"comments\":\"c\"}", "comments are"},
        {"{\"json\":1,\"comments\":[1]}", "comments are"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const char *why = typed_check(slice_text(wrong[i].text));
        ck_assert_msg(why && strstr(why, wrong[i].why), "%s: %s", wrong[i].text,
                      why ? why : "let pass");
    }
}
END_TEST

START_TEST(its_parts)
{
    struct typed t = typed_read(
        slice_text("{\"comments\":[\"c\"],\"meta\":[[1]],\"retry\":5,\"json\": \"2026\" }"));
    ck_assert(slice_is(t.json.raw, "\"2026\""));
    ck_assert(slice_is(t.meta.raw, "[[1]]"));
    ck_assert(slice_is(t.retry.raw, "5"));
    ck_assert(slice_is(t.comments.raw, "[\"c\"]"));
    t = typed_read(slice_text("{}"));
    ck_assert_int_eq(t.json.type, JSON_NONE);
    ck_assert_int_eq(t.comments.type, JSON_NONE);
}
END_TEST

START_TEST(its_value)
{
    struct slice value = {0};
    ck_assert(typed_value(slice_text("{\"meta\":[],\"json\":{\"a\" : 1}}"), &value));
    ck_assert(slice_is(value, "{\"a\" : 1}"));
    ck_assert(typed_value(slice_text("{\"meta\":[]}"), &value));
    ck_assert(slice_is(value, "null"));
    static const char text[] = "{\"json\":{\"a\":[1,\"x\\u0041\"]},\"meta\":[[1,\"a\"]]}";
    for (size_t size = 0; size + 1 < sizeof text - 1; size++) { /* cut off: memory of that size */
        uint8_t *cut = malloc(size + 1);
        memcpy(cut, text, size);
        ck_assert(!typed_value(slice_of(cut, size), &value));
        ck_assert(typed_check(slice_of(cut, size)) != NULL);
        free(cut);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("typed");
    TCase *tc = tcase_create("typed");
    tcase_add_test(tc, what_is_one);
    tcase_add_test(tc, what_is_none);
    tcase_add_test(tc, its_parts);
    tcase_add_test(tc, its_value);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
