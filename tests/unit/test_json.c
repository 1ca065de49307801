/* The JSON scanner by table: verdicts, depth, iteration, text both ways. */
#include "common/json.h"
#include "common/limits.h"
#include "common/mem.h"
#include "common/rng.h"
#include "common/utf8.h"

#include <check.h>
#include <stdlib.h>

#define ROW(text)             \
    {                         \
        text, sizeof text - 1 \
    }

struct row {
    const char *text;
    size_t size;
};

/* Judges a copy of exact size, so that the sanitizer sees a read behind it. */
static bool valid(const char *text, size_t size)
{
    char *copy = mem_dup(text, size);
    bool verdict = json_valid(slice_of(copy, size));
    mem_free(copy);
    return verdict;
}

START_TEST(accepted)
{
    static const struct row table[] = {
        ROW("null"),
        ROW("true"),
        ROW("false"),
        ROW("0"),
        ROW("-0"),
        ROW("42"),
        ROW("-1.5e+10"),
        ROW("0.0E-0"),
        ROW("1e999"),
        ROW("123456789012345678901234567890"),
        ROW("\"\""),
        ROW("\"a\""),
        ROW("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\""),
        ROW("\"\\ud800\""),
        ROW("\"\\u0000\""),
        ROW("\"\x7f\""),
        ROW("\"caf\xc3\xa9 \xf0\x9f\x98\x80\""),
        ROW("\"eight by eight bytes and then a quote\""),
        ROW("[]"),
        ROW("{}"),
        ROW(" \t\r\n[ ] \n"),
        ROW("[1,2 , 3]"),
        ROW("[[],{},[[]]]"),
        ROW("{\"a\":1,\"a\":2}"),
        ROW("{ \"a\" : { \"b\" : [ null ] } , \"\" : \"\" }"),
        ROW("{\"a\":[{\"b\":{}}],\"c\":[[],[]]}"),
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_msg(valid(table[i].text, table[i].size), "%s", table[i].text);
}
END_TEST

START_TEST(refused)
{
    static const struct row table[] = {
        ROW(""),
        ROW(" "),
        ROW("nul"),
        ROW("nulll"),
        ROW("True"),
        ROW("+1"),
        ROW("-"),
        ROW("01"),
        ROW("-01"),
        ROW("1."),
        ROW(".5"),
        ROW("1.e5"),
        ROW("1e"),
        ROW("1e+"),
        ROW("0x10"),
        ROW("NaN"),
        ROW("Infinity"),
        ROW("1 2"),
        ROW("\""),
        ROW("\"a"),
        ROW("\"a\\"),
        ROW("\"a\\\""),
        ROW("\"\\x\""),
        ROW("\"\\u12\""),
        ROW("\"\\u12g4\""),
        ROW("\"\\u\""),
        ROW("'a'"),
        ROW("\"a\nb\""),
        ROW("\"a\0b\""),
        ROW("\"1234567\x1f\""),
        ROW("\"\xff\""),
        ROW("\"\xc3\""),
        ROW("\"\xed\xa0\x80\""),
        ROW("\"\xc0\x80\""),
        ROW("["),
        ROW("]"),
        ROW("[1"),
        ROW("[1,"),
        ROW("[1,]"),
        ROW("[,1]"),
        ROW("[1 2]"),
        ROW("[1}"),
        ROW("[]]"),
        ROW("{"),
        ROW("}"),
        ROW("{]"),
        ROW("{\"a\"}"),
        ROW("{\"a\":}"),
        ROW("{\"a\":1,}"),
        ROW("{\"a\":1,\"b\"}"),
        ROW("{\"a\":1 \"b\":2}"),
        ROW("{,}"),
        ROW("{a:1}"),
        ROW("{1:1}"),
        ROW("{\"a\":1]"),
        ROW("{\"a\" 1}"),
        ROW("[{\"a\":1}"),
        ROW("null\0"),
        ROW("\0"),
        ROW("\xef\xbb\xbfnull"),
        ROW("/**/null"),
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_msg(!valid(table[i].text, table[i].size), "%s", table[i].text);
    ck_assert(!json_valid(slice_of(NULL, 0)));
}
END_TEST

START_TEST(depth_is_bounded)
{
    for (int depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
        for (int shape = 0; shape < 4; shape++) {
            struct strbuf b = {0};
            for (int i = 0; i < depth; i++) {
                bool object = shape == 1 || (shape == 2 && i % 2);
                strbuf_put_text(&b, object ? "{\"a\":" : "[");
            }
            strbuf_put_text(&b, shape == 3 ? "[],[]" : "0");
            for (int i = depth; i-- > 0;) {
                bool object = shape == 1 || (shape == 2 && i % 2);
                strbuf_put_text(&b, object ? "}" : "]");
            }
            int deepest = depth + (shape == 3);
            ck_assert_int_eq(json_valid(strbuf_slice(&b)), deepest <= JSON_DEPTH_MAX);
            strbuf_free(&b);
        }
    }
    struct strbuf b = {0};
    for (int i = 0; i < 1000000; i++)
        strbuf_put_byte(&b, '[');
    ck_assert(!json_valid(strbuf_slice(&b)));
    strbuf_free(&b);
}
END_TEST

/* Each special byte at each place of the eight-byte steps. */
START_TEST(specials_at_every_offset)
{
    for (size_t at = 1; at < 40; at++) {
        char text[42];
        memset(text, 'x', sizeof text);
        text[0] = text[41] = '"';
        for (int byte = 0; byte < 256; byte++) {
            text[at] = (char)byte;
            bool expected = byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
            if (json_valid(slice_of(text, sizeof text)) != expected)
                ck_abort_msg("byte %02x at %zu", (unsigned)byte, at);
        }
    }
}
END_TEST

START_TEST(types)
{
    static const struct {
        const char *text;
        enum json_type type;
    } table[] = {
        {"", JSON_NONE},     {"  ", JSON_NONE},     {"?", JSON_NONE},    {"null", JSON_NULL},
        {"true", JSON_TRUE}, {"false", JSON_FALSE}, {" 1", JSON_NUMBER}, {"-1", JSON_NUMBER},
        {"\"", JSON_STRING}, {"\n[", JSON_ARRAY},   {"{}", JSON_OBJECT},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_int_eq(json_type_of(slice_text(table[i].text)), table[i].type);
}
END_TEST

START_TEST(members_in_order)
{
    struct slice text =
        slice_text(" { \"a\" : 1 , \"b\\n\":[1,{\"x\":2}],\"\":\"}\" , \"d\" : null } ");
    static const struct {
        const char *name, *raw;
        enum json_type type;
    } expected[] = {
        {"a", "1", JSON_NUMBER},
        {"b\\n", "[1,{\"x\":2}]", JSON_ARRAY},
        {"", "\"}\"", JSON_STRING},
        {"d", "null", JSON_NULL},
    };
    ck_assert(json_valid(text));
    struct json_iter it = json_members(text);
    for (size_t i = 0; i < 4; i++) {
        ck_assert(json_next(&it));
        ck_assert(slice_is(it.name, expected[i].name));
        ck_assert(slice_is(it.value.raw, expected[i].raw));
        ck_assert_int_eq(it.value.type, expected[i].type);
    }
    ck_assert(!json_next(&it));
    ck_assert(!json_next(&it));
    ck_assert_int_eq(it.value.type, JSON_NONE);
}
END_TEST

START_TEST(elements_in_order)
{
    struct json_iter it = json_members(slice_text("[true, [], \"a,b\" ,-2]"));
    static const char *const expected[] = {"true", "[]", "\"a,b\"", "-2"};
    for (size_t i = 0; i < 4; i++) {
        ck_assert(json_next(&it));
        ck_assert_uint_eq(it.name.size, 0);
        ck_assert(slice_is(it.value.raw, expected[i]));
    }
    ck_assert(!json_next(&it));

    static const char *const nothing[] = {"[]", "{}", " [ ] ", "1", "\"a\"", "", "null"};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        it = json_members(slice_text(nothing[i]));
        ck_assert(!json_next(&it));
    }
}
END_TEST

START_TEST(get_by_name)
{
    struct slice text = slice_text("{\"sub\":\"K\",\"n\":1,\"caf\\u00e9\":2,\"n\":3,\"a\\\"b\":4,"
                                   "\"\\ud800\":5,\"in\":{\"n\":6}}");
    static const struct {
        const char *name, *raw;
    } table[] = {
        {"sub", "\"K\""}, {"n", "3"}, {"caf\xc3\xa9", "2"}, {"a\"b", "4"}, {"in", "{\"n\":6}"},
    };
    ck_assert(json_valid(text));
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_msg(slice_is(json_get(text, table[i].name).raw, table[i].raw), "%s",
                      table[i].name);
    ck_assert(slice_is(json_get(json_get(text, "in").raw, "n").raw, "6"));
    ck_assert_int_eq(json_get(text, "absent").type, JSON_NONE);
    ck_assert_int_eq(json_get(text, "su").type, JSON_NONE);
    ck_assert_int_eq(json_get(text, "caf\\u00e9").type, JSON_NONE);
    ck_assert_int_eq(json_get(slice_text("[1]"), "").type, JSON_NONE);
    ck_assert_int_eq(json_get(slice_text("1"), "a").type, JSON_NONE);
}
END_TEST

static void find_agrees(struct slice text, const char *name)
{
    struct json_value found, wanted = {0};
    bool object = json_valid(text) && json_type_of(text) == JSON_OBJECT;
    if (object)
        wanted = json_get(text, name);
    bool said = json_find(text, name, &found);
    ck_assert_msg(said == object, "%.*s", SLICE_FMT(text));
    if (object)
        ck_assert_msg(found.raw.data == wanted.raw.data && found.raw.size == wanted.raw.size &&
                          found.type == wanted.type,
                      "%s of %.*s", name, SLICE_FMT(text));
}

/* One pass finds what two find, in objects, in what is nearly one, and at any depth. */
START_TEST(find_is_valid_and_get)
{
    static const char object[] = " { \"a\" : [1,{\"a\":2}] ,\"\\u0061\":3, \"b\":\"a long text, "
                                 "longer than a block \\\" \xc3\xa9 of sixteen bytes\",\"c\":{}}\n";
    static const char alphabet[] = "{}[]\",:\\u0 1ab";
    static const char *const names[] = {"a", "b", "c", ""};
    struct rng r;
    rng_seed(&r, 12);
    for (int i = 0; i < 20000; i++) {
        char *copy = mem_dup(object, sizeof object - 1);
        size_t size = sizeof object - 1 - (i % 3 == 0 ? rng_below(&r, 40) : 0);
        for (uint64_t changes = rng_below(&r, 3); changes > 0; changes--)
            copy[rng_below(&r, size)] = alphabet[rng_below(&r, sizeof alphabet - 1)];
        char *exact = mem_dup(copy, size); /* so that a sanitizer sees a step too far */
        find_agrees(slice_of(exact, size), names[rng_below(&r, 4)]);
        mem_free(exact);
        mem_free(copy);
    }
    for (size_t depth = 60; depth < 68; depth++) {
        struct strbuf text = {0};
        strbuf_put_text(&text, "{\"a\":");
        for (size_t i = 0; i < depth; i++)
            strbuf_put_byte(&text, '[');
        for (size_t i = 0; i < depth; i++)
            strbuf_put_byte(&text, ']');
        strbuf_put_byte(&text, '}');
        find_agrees(strbuf_slice(&text), "a");
        strbuf_free(&text);
    }
    find_agrees((struct slice){0}, "a");
}
END_TEST

START_TEST(iteration_stays_inside_anything)
{
    static const char alphabet[] = "{}[]\",:\\u0 1a";
    struct rng r;
    rng_seed(&r, 11);
    for (int i = 0; i < 20000; i++) {
        char bytes[24];
        size_t size = rng_below(&r, sizeof bytes);
        for (size_t j = 0; j < size; j++)
            bytes[j] = alphabet[rng_below(&r, sizeof alphabet - 1)];
        char *copy = mem_dup(bytes, size);
        struct json_iter it = json_members(slice_of(copy, size));
        size_t steps = 0;
        while (json_next(&it))
            steps++;
        json_get(slice_of(copy, size), "a");
        mem_free(copy);
        if (steps > sizeof bytes)
            ck_abort_msg("iteration does not end");
    }
}
END_TEST

START_TEST(unescape)
{
    static const struct {
        const char *raw;
        const char *text;
        size_t size;
    } table[] = {
        {"\"\"", "", 0},
        {"\"plain\"", "plain", 5},
        {"\"a\\\"\\\\\\/\\b\\f\\n\\r\\tz\"", "a\"\\/\b\f\n\r\tz", 10},
        {"\"\\u0041\\u00e9\\u20AC\"", "A\xc3\xa9\xe2\x82\xac", 6},
        {"\"\\uD83D\\ude00!\"", "\xf0\x9f\x98\x80!", 5},
        {"\"\\udbff\\udfff\"", "\xf4\x8f\xbf\xbf", 4},
        {"\"a\\u0000b\"", "a\0b", 3},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct strbuf b = {0};
        strbuf_put_text(&b, "<");
        struct json_value v = {JSON_STRING, slice_text(table[i].raw)};
        ck_assert(json_unescape(v, &b));
        ck_assert_uint_eq(b.size, table[i].size + 1);
        ck_assert_mem_eq(b.data + 1, table[i].text, table[i].size);
        strbuf_free(&b);
    }
    static const struct json_value bad[] = {
        {JSON_STRING, {(const uint8_t *)"\"x\\ud800\"", 9}},
        {JSON_STRING, {(const uint8_t *)"\"x\\udc00\"", 9}},
        {JSON_STRING, {(const uint8_t *)"\"\\ud800\\u0041\"", 14}},
        {JSON_STRING, {(const uint8_t *)"\"\\ud800\\n1234\"", 14}},
        {JSON_STRING, {(const uint8_t *)"\"\\", 2}},
        {JSON_STRING, {(const uint8_t *)"\"\\\"", 3}},
        {JSON_STRING, {(const uint8_t *)"\"\\u00\"", 6}},
        {JSON_STRING, {(const uint8_t *)"\"", 1}},
        {JSON_NUMBER, {(const uint8_t *)"12", 2}},
        {JSON_NONE, {NULL, 0}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct strbuf b = {0};
        strbuf_put_text(&b, "kept");
        ck_assert(!json_unescape(bad[i], &b));
        ck_assert_str_eq(strbuf_cstr(&b), "kept");
        strbuf_free(&b);
    }
}
END_TEST

START_TEST(texts_of_an_array)
{
    struct slice at[3];
    struct strbuf b = {0};
    size_t n;
    strbuf_put_text(&b, "<");
    ck_assert(json_texts(slice_text(" [\"a\", \"\", \"\\u00e9\"] "), &b, at, 3, &n) && n == 3);
    ck_assert(slice_is(at[0], "a") && at[1].size == 0 && slice_is(at[2], "\xc3\xa9"));
    ck_assert_str_eq(strbuf_cstr(&b), "<a\xc3\xa9");
    strbuf_reset(&b);
    ck_assert(!json_texts(slice_text("[\"a\",\"b\",\"c\"]"), &b, at, 2, &n) && n == 2);
    ck_assert(slice_is(at[0], "a") && slice_is(at[1], "b"));
    static const char *const bad[] = {"[\"a\",1]", "[\"a\",\"\\ud800\"]", "[\"a\",null]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        strbuf_reset(&b);
        ck_assert(!json_texts(slice_text(bad[i]), &b, at, 3, &n) && n == 1);
        ck_assert(slice_is(at[0], "a"));
    }
    ck_assert(!json_texts(slice_text("{\"a\":\"b\"}"), &b, at, 3, &n) && n == 0);
    ck_assert(!json_texts(slice_text("[\"a\""), &b, at, 3, &n) && n == 0);
    ck_assert(json_texts(slice_text("[]"), &b, at, 0, &n) && n == 0);
    strbuf_free(&b);
}
END_TEST

START_TEST(whole_numbers)
{
    static const struct {
        const char *raw;
        bool accepted;
        uint64_t value;
    } table[] = {
        {"0", true, 0},
        {"7", true, 7},
        {"9007199254740992", true, UINT64_C(1) << 53},
        {"9007199254740993", false, 0},
        {"18446744073709551616", false, 0},
        {"100000000000000000000000000000000000000000", false, 0},
        {"-1", false, 0},
        {"-0", false, 0},
        {"1.0", false, 0},
        {"1e3", false, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        uint64_t value = 99;
        struct json_value v = {JSON_NUMBER, slice_text(table[i].raw)};
        ck_assert_msg(json_u64(v, &value) == table[i].accepted, "%s", table[i].raw);
        ck_assert_uint_eq(value, table[i].accepted ? table[i].value : 99);
    }
    uint64_t value;
    ck_assert(!json_u64((struct json_value){JSON_STRING, slice_text("\"1\"")}, &value));
    ck_assert(!json_u64((struct json_value){0}, &value));
}
END_TEST

START_TEST(quote)
{
    static const struct {
        const char *text;
        size_t size;
        const char *quoted;
    } table[] = {
        {"", 0, "\"\""},
        {"abc", 3, "\"abc\""},
        {"a\"b\\c/", 6, "\"a\\\"b\\\\c/\""},
        {"\b\f\n\r\t\x01\x1f\0", 8, "\"\\b\\f\\n\\r\\t\\u0001\\u001f\\u0000\""},
        {"caf\xc3\xa9", 5, "\"caf\xc3\xa9\""},
        {"\xff\xc3", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct strbuf b = {0};
        json_quote(&b, slice_of(table[i].text, table[i].size));
        ck_assert_str_eq(strbuf_cstr(&b), table[i].quoted);
        strbuf_free(&b);
    }
    struct strbuf b = {0};
    json_quote(&b, slice_of(NULL, 0));
    ck_assert_str_eq(strbuf_cstr(&b), "\"\"");
    strbuf_free(&b);
}
END_TEST

START_TEST(quoted_bytes_come_back)
{
    struct rng r;
    rng_seed(&r, 12);
    for (int i = 0; i < 20000; i++) {
        uint8_t bytes[40];
        size_t size = rng_below(&r, sizeof bytes + 1);
        rng_bytes(&r, bytes, size);
        for (size_t j = 0; j < size && i % 2; j++)
            bytes[j] &= 0x7f; /* half of the rounds: valid UTF-8, which must survive */
        struct strbuf quoted = {0}, back = {0};
        json_quote(&quoted, slice_of(bytes, size));
        struct json_value v = {JSON_STRING, strbuf_slice(&quoted)};
        bool good = json_valid(v.raw) && json_unescape(v, &back) && utf8_valid(strbuf_slice(&back));
        if (utf8_valid(slice_of(bytes, size)))
            good = good && slice_equal(strbuf_slice(&back), slice_of(bytes, size));
        if (!good)
            ck_abort_msg("round %d", i);
        strbuf_free(&quoted);
        strbuf_free(&back);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("json");
    TCase *t = tcase_create("json");
    tcase_add_test(t, accepted);
    tcase_add_test(t, refused);
    tcase_add_test(t, depth_is_bounded);
    tcase_add_test(t, specials_at_every_offset);
    tcase_add_test(t, types);
    tcase_add_test(t, members_in_order);
    tcase_add_test(t, elements_in_order);
    tcase_add_test(t, get_by_name);
    tcase_add_test(t, find_is_valid_and_get);
    tcase_add_test(t, iteration_stays_inside_anything);
    tcase_add_test(t, unescape);
    tcase_add_test(t, texts_of_an_array);
    tcase_add_test(t, whole_numbers);
    tcase_add_test(t, quote);
    tcase_add_test(t, quoted_bytes_come_back);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
