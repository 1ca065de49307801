/* The verdicts of json_valid beside those of jansson, over documents and seeded mutations of them.
 *
 * The two differ by rule, and only so: jansson refuses numbers that its types cannot hold, escapes
 * that are half of a surrogate pair, and U+0000 in member names (RFC 8259 allows all three), and it
 * overlooks a NUL byte behind a number or a word; json_valid refuses nesting beyond JSON_DEPTH_MAX,
 * which no document here reaches. */
#include "common/mem.h"
#include "common/rng.h"
#include "common/slice.h"

#include <check.h>
#include <jansson.h>
#include <stdlib.h>

/* From common/json.h, whose JSON_* constants jansson.h names as well. */
bool json_valid(struct slice text);

static const char *const DOCUMENTS[] = {
    "null",
    "-12.5e-3",
    "\"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \\u00e9 \\ud83d\\ude00\"",
    "[1,2,3,[true,false,null],{\"a\":{}}]",
    " { \"type\" : \"upload-progress\" , \"data\" : { \"id\" : \"abc123\" , \"progress\" : 42 , "
    "\"total\" : 1048576 } , \"timestamp\" : \"2026-11-21T06:12:33.123Z\" } ",
    "{\"\":[],\"a\\\"b\":\"\\\\\\/\\b\\f\\n\\r\\t\",\"n\":[0,-0,0.5,1E+9,10]}",
    "[[[[[[[[\"deep\"]]]],{\"x\":[{\"y\":[]}]}]]]]",
};

/* Where jansson is stricter than the grammar. */
static bool stricter_by_rule(const json_error_t *e)
{
    switch (json_error_code(e)) {
    case json_error_numeric_overflow:
    case json_error_null_byte_in_key:
        return true;
    case json_error_invalid_syntax:
        return strncmp(e->text, "invalid Unicode '\\u", 19) == 0;
    default:
        return false;
    }
}

/* 1: both accept, 0: both refuse, -1: they differ by a rule above. */
static int compare(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = mem_dup(bytes, size); /* the sanitizer guards its end */
    bool ours = json_valid(slice_of(copy, size));
    json_error_t e;
    json_t *tree = json_loadb((const char *)copy, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    bool theirs = tree != NULL;
    json_decref(tree);
    mem_free(copy);
    if (ours == theirs)
        return ours;
    bool by_rule = ours ? stricter_by_rule(&e) : memchr(bytes, '\0', size) != NULL;
    if (by_rule)
        return -1;
    ck_abort_msg("ours %d, theirs %d (%s): %.*s", ours, theirs, theirs ? "" : e.text, (int)size,
                 (const char *)bytes);
}

/* One edit: a byte changed, inserted, dropped, doubled stretch, or the end cut off. */
static size_t mutate(struct rng *r, uint8_t *bytes, size_t size, size_t room)
{
    static const char LIKELY[] =
        "{}[]\",:\\/u0123456789abcdef+-.eE truefalsn\n\t\x01\x7f\xc3\xa9\xff";
    size_t at = rng_below(r, size + 1);
    bool likely = rng_below(r, 8) != 0;
    uint8_t byte = likely ? (uint8_t)LIKELY[rng_below(r, sizeof LIKELY)] : (uint8_t)rng_u64(r);
    switch (rng_below(r, 5)) {
    case 0:
        if (at < size)
            bytes[at] = byte;
        return size;
    case 1:
        if (size == room)
            return size;
        memmove(bytes + at + 1, bytes + at, size - at);
        bytes[at] = byte;
        return size + 1;
    case 2:
        if (at == size)
            return size;
        memmove(bytes + at, bytes + at + 1, size - at - 1);
        return size - 1;
    case 3: {
        size_t n = rng_below(r, 8);
        if (at + n > size || size + n > room)
            return size;
        memmove(bytes + at + n, bytes + at, size - at);
        return size + n;
    }
    default:
        return rng_below(r, 6) == 0 ? at : size;
    }
}

START_TEST(documents_agree)
{
    ck_assert_int_eq(compare((const uint8_t *)DOCUMENTS[_i], strlen(DOCUMENTS[_i])), 1);
    for (size_t size = 0; size < strlen(DOCUMENTS[_i]); size++)
        compare((const uint8_t *)DOCUMENTS[_i], size);
}
END_TEST

START_TEST(mutations_agree)
{
    struct rng r;
    rng_seed(&r, 900 + (uint64_t)_i);
    size_t counts[3] = {0};
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[400];
        size_t size = strlen(DOCUMENTS[_i]);
        memcpy(bytes, DOCUMENTS[_i], size);
        for (uint64_t edits = 1 + rng_below(&r, 3); edits > 0; edits--)
            size = mutate(&r, bytes, size, sizeof bytes);
        counts[1 + compare(bytes, size)]++;
    }
    /* Both verdicts were exercised, and the exceptions stayed exceptions. */
    ck_assert_uint_gt(counts[2], 100);
    ck_assert_uint_gt(counts[1], 100);
    ck_assert_uint_lt(counts[0], 2000);
}
END_TEST

START_TEST(differences_are_the_named_ones)
{
    static const char *const texts[] = {
        "1e999", "123456789012345678901234567890", "\"\\ud800\"", "\"\\udc00x\"", "{\"\\u0000\":1}",
    };

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        ck_assert_int_eq(compare((const uint8_t *)texts[i], strlen(texts[i])), -1);
    ck_assert_int_eq(compare((const uint8_t *)"1\0", 2), -1);
}
END_TEST

int main(void)
{
    const int n = sizeof DOCUMENTS / sizeof *DOCUMENTS;
    Suite *s = suite_create("json_oracle");
    TCase *t = tcase_create("json_oracle");
    tcase_add_loop_test(t, documents_agree, 0, n);
    tcase_add_loop_test(t, mutations_agree, 0, n);
    tcase_add_test(t, differences_are_the_named_ones);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
