/* Lua values and JSON: what goes out comes back the same, whatever it is; and what has no JSON. */
#include "lua_world.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

/* Decoded and encoded again, by a method that returns its input. */
START_TEST(round_trips)
{
    static const struct {
        const char *in, *out; /* NULL: the same */
    } table[] = {
        {"true", NULL},
        {"0", NULL},
        {"-1", NULL},
        {"9223372036854775807", NULL},
        {"-9223372036854775808", NULL},
        {"9007199254740993", NULL}, /* 2^53 + 1 */
        {"18446744073709551616", "1.8446744073709552e+19"},
        {"1.0", NULL},
        {"-0", "-0.0"},
        {"0.1", NULL},
        {"0.30000000000000004", NULL},
        {"1e300", "1e+300"},
        {"5e-324", "4.94065645841247e-324"},
        {"1.7976931348623157e308", "1.7976931348623157e+308"},
        {"1e2", "100.0"},
        {"\"\"", NULL},
        {"\"a\\u0000b\"", NULL},
        {"\"\\u00e9\\ud83d\\ude00\"", "\"\xc3\xa9\xf0\x9f\x98\x80\""},
        {"\"\\\"\\\\\\/\\n\"", "\"\\\"\\\\/\\n\""},
        {"[]", NULL},
        {"{}", NULL},
        {"[[],{},[{}]]", NULL},
        {"[null,1,null]", NULL},
        {"{\"a\":null}", NULL},
        {" { \"b\" : 1 , \"a\" : [ 1 , 2 ] } ", "{\"a\":[1,2],\"b\":1}"},
        {"{\"1\":\"a\",\"2\":\"b\"}", NULL},
        {"{\"a\":1,\"a\":2}", "{\"a\":2}"},
        {"{\"\":0,\"a\\u0000\":1,\"aa\":2}", NULL},
        {"null", "null"},
        {"", "null"},
    };
    struct handler *h = world_body("return input");
    struct context *w = world_create(h, "a");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *wanted = table[i].out ? table[i].out : table[i].in;
        ck_assert_str_eq(world_answer(w, "f", table[i].in), wanted);
    }
    char deep[129] = {0};
    memset(deep, '[', 64);
    memset(deep + 64, ']', 64);
    ck_assert_str_eq(world_answer(w, "f", deep), deep);
    world_destroy(w);
    h->vtable->destroy(h);
}
END_TEST

START_TEST(refused_input)
{
    struct handler *h = world_body("return input");
    struct context *w = world_create(h, "a");
    static const char *const table[] = {"{",     "nul",      "[1,]", "\"\\ud800\"",
                                        "1e999", "\"\xff\"", "01",   "{\"a\"}"};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        ck_assert_int_eq(world_call(w, "f", table[i]), RUN_FAILED);
        ck_assert_str_eq(w->fault.tag, "RoomValidationError");
    }
    char deep[131] = {0};
    memset(deep, '[', 65);
    memset(deep + 65, ']', 65);
    ck_assert_int_eq(world_call(w, "f", deep), RUN_FAILED);
    world_destroy(w);
    h->vtable->destroy(h);
}
END_TEST

START_TEST(writing)
{
    static const struct {
        const char *body, *answer;
    } table[] = {
        {"return { 1, 2, 3 }", "[1,2,3]"},
        {"return {}", "{}"},
        {"return room.json.array {}", "[]"},
        {"return room.json.array()", "[]"},
        {"return { a = room.null }", "{\"a\":null}"},
        {"return room.json.null == room.null", "true"},
        {"return tostring(room.null)", "\"null\""},
        {"return 1 / 2 + 1.5", "2.0"},
        {"return 'a\\xffb'", "\"a\xef\xbf\xbd"
                             "b\""},
        {"return room.json.encode { b = 1, a = 'x\\0y' }",
         "\"{\\\"a\\\":\\\"x\\\\u0000y\\\",\\\"b\\\":1}\""},
        {"return room.json.decode '{\"a\":[]}'", "{\"a\":[]}"},
        {"return #room.json.decode '[1,null,3]'", "3"},
        {"return room.json.decode '{\"a\":null}'.a == room.null", "true"},
        {"return math.type(room.json.decode '1') .. math.type(room.json.decode '1.0')",
         "\"integerfloat\""},
        {"room.json.decode '{'", "RoomExecutionError: room.lua:3: json.decode: not JSON"},
        {"return { 1, a = 2 }", "RoomExecutionError: a table has both numbers and strings as keys"},
        {"return { 1, nil, 3 }",
         "RoomExecutionError: an array has holes: 2 values, the last at 3; use room.null"},
        {"return { [0] = 1 }",
         "RoomExecutionError: a table has the key 0; keys are strings, or 1 to n"},
        {"return { [true] = 1 }",
         "RoomExecutionError: a table has a key that is a boolean; keys are strings, or 1 to n"},
        {"return 0 / 0", "RoomExecutionError: a number is not a number, which JSON cannot say"},
        {"return math.huge", "RoomExecutionError: a number is infinite, which JSON cannot say"},
        {"return print", "RoomExecutionError: a function has no JSON"},
        {"return ctx", "RoomExecutionError: a userdata has no JSON"},
        {"local t = {} t.t = t return t",
         "RoomExecutionError: tables nested deeper than 64, or in a circle"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_str_eq(world_eval(table[i].body), table[i].answer);
}
END_TEST

/* Keys in order, however many: equal values are equal texts. */
START_TEST(many_keys)
{
    ck_assert_str_eq(
        world_eval("local a, b = {}, {} for i = 1, 500 do a['k' .. i] = { i = i, j = 'x' } end "
                   "for i = 500, 1, -1 do b['k' .. i] = { j = 'x', i = i } end "
                   "local x, y = room.json.encode(a), room.json.encode(b) "
                   "return x == y and #x > 9000 and x:sub(1, 20)"),
        "\"{\\\"k1\\\":{\\\"i\\\":1,\\\"j\\\":\\\"x\\\"\"");
}
END_TEST

START_TEST(large_texts)
{
    struct handler *h = world_body("return { n = #input.text, text = input.text }");
    struct context *w = world_create(h, "a");
    enum { N = 200000 };
    struct strbuf input = {0};
    strbuf_put_text(&input, "{\"text\":\"");
    for (int i = 0; i < N / 4; i++)
        strbuf_put_text(&input, "\xf0\x9f\x98\x80");
    strbuf_put_text(&input, "\\u0000\"}");
    const char *answer = world_answer(w, "f", strbuf_cstr(&input));
    char head[] = "{\"n\":200001,\"text\":\"\xf0";
    ck_assert(strncmp(answer, head, strlen(head)) == 0);
    ck_assert_uint_eq(strlen(answer), strlen(head) - 1 + N + strlen("\\u0000\"}"));
    strbuf_free(&input);
    world_destroy(w);
    h->vtable->destroy(h);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lua_json");
    TCase *t = tcase_create("json");
    tcase_add_test(t, round_trips);
    tcase_add_test(t, refused_input);
    tcase_add_test(t, writing);
    tcase_add_test(t, many_keys);
    tcase_add_test(t, large_texts);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
