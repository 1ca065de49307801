/* Templates of routes: which paths they take, what a key gets of them, which are refused. */
#include "common/template.h"

#include <check.h>
#include <stdlib.h>

static const struct {
    const char *pattern, *key;
    bool valid;
} templates[] = {
    {"/a/{b}", "x:{b}", true}, {"/", "x", true},          {"/a/{b}", "{b}{b}", true},
    {"/a/{b}", "{", true}, /* no name: a brace of the key */
    {"/a/{b}", "}{b}", true},  {"/a/{b}", "{}", false},   {"/a/{b}", "{c}", false},
    {"/a", "{a}", false},      {"/a/x{b}", "{b}", false}, {"/a/{b", "k", false},
    {"/{}", "k", false},
};

START_TEST(fits)
{
    struct strbuf why = {0};
    ck_assert_int_eq(template_check(templates[_i].pattern, templates[_i].key, &why),
                     templates[_i].valid);
    ck_assert_int_eq(why.size == 0, templates[_i].valid);
    strbuf_free(&why);
}
END_TEST

static const struct {
    const char *pattern, *path;
    bool matches;
} paths[] = {
    {"/a/{b}", "/a/c", true},       {"/a/{b}", "/a/", false}, {"/a/{b}", "/a", false},
    {"/a/{b}", "/a/c/d", false},    {"/a/", "/a/", true},     {"/a/", "/a", false},
    {"/{x}/e/{y}", "/1/e/2", true}, {"/", "/", true},         {"/", "/a", false},
};

START_TEST(matches)
{
    ck_assert_int_eq(template_matches(paths[_i].pattern, slice_text(paths[_i].path)),
                     paths[_i].matches);
}
END_TEST

START_TEST(pieces)
{
    struct slice key = slice_text("a{x}{"), piece;
    ck_assert(template_next(&key, &piece) && slice_is(piece, "a"));
    ck_assert(template_next(&key, &piece) && slice_is(piece, "{x}"));
    ck_assert(slice_is(template_part("/j/{x}/{y}", slice_text("/j/7/8"), piece), "7"));
    ck_assert_ptr_null(template_part("/j/{y}", slice_text("/j/7"), piece).data);
    ck_assert(template_next(&key, &piece) && slice_is(piece, "{"));
    ck_assert(!template_next(&key, &piece));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("template");
    TCase *t = tcase_create("template");
    tcase_add_loop_test(t, fits, 0, sizeof templates / sizeof *templates);
    tcase_add_loop_test(t, matches, 0, sizeof paths / sizeof *paths);
    tcase_add_test(t, pieces);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
