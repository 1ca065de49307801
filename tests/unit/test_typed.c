/* Typed payloads: what is one, what is none and why, and what their readers are given. */
#include <check.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/rng.h"
#include "common/strbuf.h"
#include "proto/typed.h"

START_TEST(what_is_one)
{
    static const char *const fine[] = {
        "{}",
        "{\"json\":null}",
        "{\"json\":{\"n\":1},\"meta\":[]}",
        " { \"meta\" : [ [ 2 , 0 ] , [ 6 ] ] , \"json\" : [ null ] } ",
        "{\"json\":[[1,2],[3]],\"meta\":[[0,1,0],[0,0,1],[6,1],[6]]}",
        "{\"meta\":[[1,\"a b\"],[1,\"\\u00e9\"]],\"json\":{\"\u00e9\":1,\"a\\u0020b\":2}}",
        "{\"meta\":[]}",
        "{\"json\":{\"0\":1},\"meta\":[[1,0],[1,\"0\"]]}",
        "{\"json\":{\"a\":1,\"a\":{\"b\":1}},\"meta\":[[1,\"a\",\"b\"]]}",
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
        {"{\"json\":{\"a\":1},\"meta\":[[1,\"b\"]]}", "leads to"},
        {"{\"json\":{\"a\":1},\"meta\":[[1,\"a\",\"b\"]]}", "leads to"},
        {"{\"json\":{\"a\":1},\"meta\":[[1,\"a\"],[1,\"__proto__\"]]}", "leads to"},
        {"{\"json\":[1],\"meta\":[[1,1]]}", "leads to"},
        {"{\"json\":[1],\"meta\":[[1,\"length\"]]}", "leads to"},
        {"{\"json\":\"text\",\"meta\":[[1,0]]}", "leads to"},
        {"{\"json\":{\"a\":1},\"meta\":[[1,\"\\ud800\"]]}", "leads to"},
        {"{\"meta\":[[1,\"a\"]]}", "leads to"},
        {"{\"meta\":[[1,\"\"]]}", "leads to"},
        {"{\"meta\":[[3]]}", "leads to"}, /* undefined is no part of anything */
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

/* Ten thousand marks in the worst order are looked at once. */
START_TEST(many_marks)
{
    struct strbuf b = {0};
    strbuf_put_text(&b, "{\"json\":[");
    for (unsigned i = 0; i < 10000; i++)
        strbuf_printf(&b, "%s{\"at\":\"2026\"}", i ? "," : "");
    strbuf_put_text(&b, "],\"meta\":[");
    for (unsigned i = 0; i < 10000; i++)
        strbuf_printf(&b, "%s[1,%u,\"at\"]", i ? "," : "", 9999 - i);
    strbuf_put_text(&b, "]}");
    ck_assert(!typed_check(strbuf_slice(&b)));
    b.size -= 2;
    strbuf_put_text(&b, ",[1,10000,\"at\"]]}");
    ck_assert_ptr_nonnull(typed_check(strbuf_slice(&b)));
    strbuf_free(&b);
}
END_TEST

/* A random value, and the path to one of its parts. */
static void random_value(struct rng *rng, struct strbuf *out, struct strbuf *path, unsigned depth)
{
    static const char *const names[] = {"a", "b", "b c", "0"};
    unsigned count = depth < 4 ? (unsigned)rng_below(rng, 4) : 0;
    bool object = rng_below(rng, 2) != 0;
    if (count == 0) {
        strbuf_put_text(out, "7");
        return;
    }
    unsigned chosen = (unsigned)rng_below(rng, count);
    bool goes_on = rng_below(rng, 4) > 0;
    strbuf_put_byte(out, object ? '{' : '[');
    for (unsigned i = 0; i < count; i++) {
        if (i > 0)
            strbuf_put_byte(out, ',');
        if (object)
            strbuf_printf(out, "\"%s\":", names[i]);
        if (path && goes_on && i == chosen && object)
            strbuf_printf(path, ",\"%s\"", names[i]);
        else if (path && goes_on && i == chosen)
            strbuf_printf(path, ",%u", i);
        random_value(rng, out, i == chosen && goes_on ? path : NULL, depth + 1);
    }
    strbuf_put_byte(out, object ? '}' : ']');
}

START_TEST(random_paths)
{
    struct rng rng;
    rng_seed(&rng, 21);
    for (int i = 0; i < 3000; i++) {
        struct strbuf json = {0}, path = {0}, b = {0};
        random_value(&rng, &json, &path, 0);
        for (int lost = 0; lost < 2; lost++) {
            strbuf_reset(&b);
            strbuf_printf(&b, "{\"meta\":[[1],[2%.*s%s]],\"json\":%.*s}",
                          SLICE_FMT(strbuf_slice(&path)), lost ? ",\"nowhere\"" : "",
                          SLICE_FMT(strbuf_slice(&json)));
            ck_assert_msg((typed_check(strbuf_slice(&b)) != NULL) == lost, "%s", strbuf_cstr(&b));
        }
        strbuf_free(&json);
        strbuf_free(&path);
        strbuf_free(&b);
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
    tcase_add_test(tc, many_marks);
    tcase_add_test(tc, random_paths);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
