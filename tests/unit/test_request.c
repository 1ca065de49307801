/* Helpers over a parsed request. */
#include <check.h>
#include <stdlib.h>

#include "gateway/request.h"

START_TEST(headers_without_case_first_wins)
{
    static struct http_request request;
    request.n_headers = 3;
    request.headers[0] = (struct http_header){slice_text("ACCEPT"), slice_text("a")};
    request.headers[1] = (struct http_header){slice_text("Accept"), slice_text("b")};
    request.headers[2] = (struct http_header){slice_text("Empty"), slice_text("")};
    ck_assert(slice_is(http_header_get(&request, "accept"), "a"));
    ck_assert_ptr_null(http_header_get(&request, "accep").data);
    ck_assert_ptr_null(http_header_get(&request, "acceptt").data);
    ck_assert_ptr_nonnull(http_header_get(&request, "empty").data);
}
END_TEST

START_TEST(tokens_of_a_list)
{
    static const struct {
        const char *value;
        const char *token;
        bool found;
    } cases[] = {
        {"upgrade", "upgrade", true},
        {"keep-alive, Upgrade", "upgrade", true},
        {" \tUpgrade\t ,x", "upgrade", true},
        {",,upgrade,,", "upgrade", true},
        {"upgraded", "upgrade", false},
        {"up grade", "upgrade", false},
        {"", "upgrade", false},
        {"stoa.v1,stoa.v2", "stoa.v2", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(http_header_has_token(slice_text(cases[i].value), cases[i].token) ==
                          cases[i].found,
                      "%s in \"%s\"", cases[i].token, cases[i].value);
    ck_assert(!http_header_has_token(slice_of(NULL, 0), "x"));
}
END_TEST

static const struct {
    const char *type, *coding;
    bool json;
} bodies[] = {
    {NULL, NULL, true},
    {"", NULL, true},
    {"application/json", NULL, true},
    {"Application/JSON ; charset=utf-8", NULL, true},
    {"application/problem+json", NULL, true},
    {"text/json", NULL, true},
    {"text/plain;charset=UTF-8", NULL, true},
    {"application/x-www-form-urlencoded", NULL, true},
    {"application/json", "identity", true},
    {"application/json", "gzip", false},
    {NULL, "br", false},
    {"+json", NULL, false},
    {"/json", NULL, false},
    {"json", NULL, false},
    {"application/jsonp", NULL, false},
    {"application/x-ndjson", NULL, false},
    {"application/octet-stream", NULL, false},
    {"multipart/form-data; boundary=json", NULL, false},
    {"image/png", NULL, false},
};

START_TEST(bodies_that_may_be_json)
{
    struct http_request r = {0};
    if (bodies[_i].type)
        r.headers[r.n_headers++] =
            (struct http_header){slice_text("content-type"), slice_text(bodies[_i].type)};
    if (bodies[_i].coding)
        r.headers[r.n_headers++] =
            (struct http_header){slice_text("Content-Encoding"), slice_text(bodies[_i].coding)};
    ck_assert_int_eq(http_may_be_json(&r), bodies[_i].json);
}
END_TEST

START_TEST(decoding_happens_once)
{
    static const struct {
        const char *raw;
        bool query;
        const char *text; /* NULL: refused */
    } cases[] = {
        {"abc", false, "abc"},   {"a%20b", false, "a b"},
        {"a+b", false, "a+b"},   {"a+b", true, "a b"},
        {"a%2Bb", true, "a+b"},  {"%2F%2f", false, "//"},
        {"%2541", false, "%41"}, {"%c3%A9", false, "\xc3\xa9"},
        {"%", false, NULL},      {"%4", false, NULL},
        {"%4g", false, NULL},    {"%00", false, NULL},
        {"%zz", false, NULL},    {"", false, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct strbuf out = {0};
        int code = http_decode(slice_text(cases[i].raw), cases[i].query, &out);
        ck_assert_int_eq(code, cases[i].text ? ERR_OK : ERR_INVALID);
        if (cases[i].text)
            ck_assert_str_eq(strbuf_cstr(&out), cases[i].text);
        strbuf_free(&out);
    }
}
END_TEST

START_TEST(query_parameters)
{
    static const struct {
        const char *query;
        int code;
        const char *value;
    } cases[] = {
        {"key=a", ERR_OK, "a"},
        {"x=1&key=a%26b&y", ERR_OK, "a&b"},
        {"k%65y=a", ERR_OK, "a"},
        {"key=", ERR_OK, ""},
        {"key", ERR_OK, ""},
        {"key=a=b", ERR_OK, "a=b"},
        {"key=a;b", ERR_OK, "a;b"},
        {"", ERR_NOT_FOUND, NULL},
        {"keys=a", ERR_NOT_FOUND, NULL},
        {"&&=&", ERR_NOT_FOUND, NULL},
        {"key=a&key=b", ERR_INVALID, NULL},
        {"key=a&k%65y=a", ERR_INVALID, NULL},
        {"key=%", ERR_INVALID, NULL},
        {"key=%00", ERR_INVALID, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct strbuf out = {0};
        ck_assert_int_eq(http_query_get(slice_text(cases[i].query), "key", &out), cases[i].code);
        if (cases[i].value)
            ck_assert_str_eq(strbuf_cstr(&out), cases[i].value);
        strbuf_free(&out);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("request");
    TCase *all = tcase_create("request");
    tcase_add_test(all, headers_without_case_first_wins);
    tcase_add_test(all, tokens_of_a_list);
    tcase_add_loop_test(all, bodies_that_may_be_json, 0, sizeof bodies / sizeof *bodies);
    tcase_add_test(all, decoding_happens_once);
    tcase_add_test(all, query_parameters);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
