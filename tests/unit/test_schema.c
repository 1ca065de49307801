/* JSON Schemas: which are taken and what is said of the others; what fits and where the rest does
 * not; checks that would not end give up. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/json.h"
#include "common/mem.h"
#include "shard/schema/compile.h"
#include "shard/schema/vocabulary.h"

static struct schema *compiled(const char *text)
{
    struct schema *s = NULL;
    struct strbuf why = {0};
    ck_assert_msg(schema_compile(&s, slice_text(text), &why) == ERR_OK, "%s: %s", text,
                  strbuf_cstr(&why));
    ck_assert_uint_eq(why.size, 0);
    strbuf_free(&why);
    return s;
}

static bool fits(struct schema *s, struct slice json, struct strbuf *why)
{
    strbuf_reset(why);
    ck_assert(json_valid(json));
    bool fine = s->check(s, json, why);
    ck_assert(fine == (why->size == 0));
    return fine;
}

/* ---- schemas ---- */

struct refused {
    const char *schema, *why; /* a part of it */
};

static void refuse_all(const struct refused *at, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct schema *s = NULL;
        struct strbuf why = {0};
        ck_assert_msg(schema_compile(&s, slice_text(at[i].schema), &why) == ERR_INVALID, "%s",
                      at[i].schema);
        ck_assert_msg(strstr(strbuf_cstr(&why), at[i].why) != NULL, "%s: %s", at[i].schema,
                      strbuf_cstr(&why));
        strbuf_free(&why);
    }
}

START_TEST(what_is_no_schema)
{
    static const struct refused cases[] = {
        {"", "not JSON"},
        {"{", "not JSON"},
        {"[]", "a JSON object"},
        {"true", "a JSON object"},
        {"{\"a\":1}", "at the root: unknown keyword `a`"},
        {"{\"properties\":{\"a\":{\"maxlength\":1}}}",
         "at /properties/a: unknown keyword `maxlength`"},
        {"{\"properties\":{\"a/b\":{\"items\":[{},{\"typ\":1}]}}}",
         "at /properties/a~1b/items/1: unknown keyword `typ`"},
        {"{\"type\":\"text\"}", "at /type: no type is called `text`"},
        {"{\"type\":7}", "at /type: a type is a name"},
        {"{\"type\":[]}", "at /type: the list is empty"},
        {"{\"type\":[\"null\",\"nil\"]}", "no type is called `nil`"},
        {"{\"required\":true}", "at /required: it is a list of names"},
        {"{\"required\":[1]}", "at /required: it is a list of names"},
        {"{\"enum\":\"a\"}", "at /enum: it is a list of values"},
        {"{\"minimum\":\"1\"}", "at /minimum: it is a number"},
        {"{\"exclusiveMinimum\":true}", "at /exclusiveMinimum: it is a number"},
        {"{\"multipleOf\":0}", "at /multipleOf: it is a number above 0"},
        {"{\"multipleOf\":0.0e9}", "above 0"},
        {"{\"multipleOf\":-2}", "above 0"},
        {"{\"maxLength\":-1}", "at /maxLength: it is a count"},
        {"{\"maxLength\":1.5}", "it is a count"},
        {"{\"uniqueItems\":1}", "at /uniqueItems: it is true or false"},
        {"{\"pattern\":\"(\"}",
         "at /pattern: the pattern `(` does not compile: missing closing parenthesis"},
        {"{\"pattern\":1}", "at /pattern: it is a text"},
        {"{\"patternProperties\":{\"[\":{}}}",
         "at /patternProperties/[: the pattern `[` does not compile"},
        {"{\"properties\":[]}", "at /properties: it is an object of schemas"},
        {"{\"properties\":{\"a\":1}}", "at /properties/a: a schema is an object, true or false"},
        {"{\"properties\":{\"a\":{},\"a\":{}}}", "at /properties/a: it stands there twice"},
        {"{\"type\":\"null\",\"type\":\"null\"}", "twice in one schema: `type`"},
        {"{\"allOf\":{}}", "at /allOf: it is a list of schemas"},
        {"{\"anyOf\":[]}", "at /anyOf: the list is empty"},
        {"{\"oneOf\":[1]}", "at /oneOf/0: a schema is"},
        {"{\"not\":[]}", "at /not: a schema is"},
        {"{\"dependencies\":{\"a\":[1]}}", "at /dependencies/a: it is a list of names"},
        {"{\"$schema\":\"http://json-schema.org/draft-04/schema#\"}", "only draft 7"},
        {"{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\"}", "only draft 7"},
        {"{\"items\":{\"$id\":\"x\"}}", "at /items/$id: a name of the whole"},
        {"{\"title\":1}", "at /title: it is a text"},
        {"{\"pattern\":\"\\u0000\"}", "U+0000"},
    };
    refuse_all(cases, sizeof cases / sizeof *cases);
}
END_TEST

START_TEST(references_that_lead_nowhere)
{
    static const struct refused cases[] = {
        {"{\"$ref\":1}", "at /$ref: it refers to a schema of the same file"},
        {"{\"items\":{\"$ref\":\"http://example.com/s.json\"}}",
         "not `\"http://example.com/s.json\"`"},
        {"{\"items\":{\"$ref\":\"file:///etc/passwd\"}}", "of the same file"},
        {"{\"items\":{\"$ref\":\"other.json#/a\"}}", "of the same file"},
        {"{\"items\":{\"$ref\":\"#name\"}}", "of the same file"},
        {"{\"items\":{\"$ref\":\"\"}}", "of the same file"},
        {"{\"items\":{\"$ref\":\"#/definitions/a\"}}",
         "at /items: no schema stands where $ref \"#/definitions/a\" leads"},
        {"{\"items\":{\"$ref\":\"#/default\"},\"default\":{}}", "no schema stands where"},
        {"{\"items\":{\"$ref\":\"#/required\"},\"required\":[]}", "no schema stands where"},
        {"{\"$ref\":\"#\"}", "at the root: by $ref it leads back to itself"},
        {"{\"allOf\":[{\"$ref\":\"#\"}]}", "leads back to itself"},
        {"{\"definitions\":{\"a\":{\"$ref\":\"#/definitions/b\"},\"b\":{\"$ref\":\"#/definitions/"
         "a\"}}}",
         "leads back to itself"},
        {"{\"definitions\":{\"a\":{\"not\":{\"$ref\":\"#/definitions/a\"}}}}", "leads back"},
        {"{\"if\":{},\"then\":{\"anyOf\":[{\"$ref\":\"#\"},{}]}}", "leads back"},
        {"{\"dependencies\":{\"a\":{\"$ref\":\"#\"}}}", "leads back"},
        {"{\"items\":{\"$ref\":\"#\",\"type\":\"array\"}}", "beside $ref"},
    };
    refuse_all(cases, sizeof cases / sizeof *cases);
}
END_TEST

START_TEST(too_much_of_a_schema)
{
    struct strbuf text = {0}, why = {0};
    struct schema *s;
    strbuf_put_text(&text, "{\"anyOf\":[{}");
    for (size_t i = 0; i < SCHEMA_PLACES_MAX; i++)
        strbuf_put_text(&text, ",{}");
    strbuf_put_text(&text, "]}");
    ck_assert_int_eq(schema_compile(&s, strbuf_slice(&text), &why), ERR_INVALID);
    ck_assert_str_eq(strbuf_cstr(&why), "at /anyOf/4095: too many schemas within one");
    strbuf_reset(&text);
    strbuf_reset(&why);
    strbuf_put_text(&text, "{\"title\":\"");
    memset(strbuf_reserve(&text, SCHEMA_MAX_BYTES), 'x', SCHEMA_MAX_BYTES);
    strbuf_commit(&text, SCHEMA_MAX_BYTES);
    strbuf_put_text(&text, "\"}");
    ck_assert_int_eq(schema_compile(&s, strbuf_slice(&text), &why), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&why), "at most 262144 bytes"));
    strbuf_free(&text);
    strbuf_free(&why);
}
END_TEST

/* ---- documents ---- */

struct verdict {
    const char *schema, *json;
    const char *why; /* NULL: it fits; else a part of what is said */
};

static void judge_all(const struct verdict *at, size_t n)
{
    struct strbuf why = {0};
    for (size_t i = 0; i < n; i++) {
        struct schema *s = compiled(at[i].schema);
        bool fine = fits(s, slice_text(at[i].json), &why);
        ck_assert_msg(fine == !at[i].why, "%s of %s: %s", at[i].json, at[i].schema,
                      strbuf_cstr(&why));
        ck_assert_msg(fine || strstr(strbuf_cstr(&why), at[i].why), "%s of %s: %s", at[i].json,
                      at[i].schema, strbuf_cstr(&why));
        s->destroy(s);
    }
    strbuf_free(&why);
}

START_TEST(keywords)
{
    static const struct verdict cases[] = {
        {"{}", "null", NULL},
        {"{\"$schema\":\"http://json-schema.org/draft-07/schema#\",\"$id\":\"x\",\"title\":\"t\","
         "\"description\":\"d\",\"default\":1,\"examples\":[1],\"$comment\":\"c\",\"readOnly\":"
         "true}",
         "{}", NULL},
        {"{\"type\":\"object\"}", "[]", "at the root: Value type not permitted"},
        {"{\"type\":[\"object\",\"null\"]}", "null", NULL},
        {"{\"type\":\"integer\"}", "1", NULL},
        {"{\"type\":\"integer\"}", "-9223372036854775808", NULL},
        {"{\"type\":\"integer\"}", "1.5", "type"},
        {"{\"type\":\"number\"}", "1", NULL},
        {"{\"type\":\"boolean\"}", "\"true\"", "type"},
        {"{\"type\":\"string\"}", "1", "type"},
        {"{\"const\":{\"a\":[1,null]}}", "{\"a\":[1,null]}", NULL},
        {"{\"const\":{\"a\":[1,null]}}", "{\"a\":[1]}", "const"},
        {"{\"enum\":[\"a\",1,null]}", "null", NULL},
        {"{\"enum\":[\"a\",1,null]}", "\"b\"", "enum"},
        {"{\"minimum\":1,\"maximum\":3}", "3", NULL},
        {"{\"minimum\":1,\"maximum\":3}", "4", "less than or equal to 3"},
        {"{\"exclusiveMinimum\":1}", "1", "greater than 1"},
        {"{\"exclusiveMaximum\":1}", "1", "less than 1"},
        {"{\"multipleOf\":3}", "9", NULL},
        {"{\"multipleOf\":3}", "10", "multiple"},
        {"{\"multipleOf\":0.5}", "1.5", NULL},
        {"{\"minLength\":2,\"maxLength\":3}", "\"\xc3\xa4\xc3\xb6\xc3\xbc\"", NULL},
        {"{\"minLength\":2,\"maxLength\":3}", "\"\xc3\xa4\"", "length"},
        {"{\"maxLength\":3}", "\"abcd\"", "length"},
        {"{\"items\":{\"type\":\"string\"}}", "[\"a\",\"b\"]", NULL},
        {"{\"items\":{\"type\":\"string\"}}", "[\"a\",1]", "at /1: "},
        {"{\"items\":[{\"type\":\"string\"}],\"additionalItems\":false}", "[\"a\"]", NULL},
        {"{\"items\":[{\"type\":\"string\"}],\"additionalItems\":false}", "[\"a\",1]", "at "},
        {"{\"minItems\":1,\"maxItems\":1}", "[]", "fewer than 1"},
        {"{\"uniqueItems\":true}", "[1,2,3]", NULL},
        {"{\"uniqueItems\":true}", "[1,{\"a\":1},{\"a\":1}]", "unique"},
        {"{\"uniqueItems\":false}", "[1,1]", NULL},
        {"{\"contains\":{\"const\":1}}", "[0,1]", NULL},
        {"{\"contains\":{\"const\":1}}", "[0]", "contain"},
        {"{\"minProperties\":1,\"maxProperties\":1}", "{}", "propert"},
        {"{\"required\":[\"a\"]}", "{\"b\":1}", "Missing required property 'a'"},
        {"{\"properties\":{\"a\":{\"properties\":{\"b/c\":{\"type\":\"null\"}}}}}",
         "{\"a\":{\"b/c\":1}}", "at /a/b~1c: "},
        {"{\"properties\":{\"a\":true},\"additionalProperties\":false}", "{\"a\":1}", NULL},
        {"{\"properties\":{\"a\":true},\"additionalProperties\":false}", "{\"b\":1}", "'b'"},
        {"{\"properties\":{\"a\":false}}", "{\"a\":1}", "at "},
        {"{\"additionalProperties\":{\"type\":\"null\"}}", "{\"b\":1}", "at /b: "},
        {"{\"propertyNames\":{\"maxLength\":1}}", "{\"ab\":1}", "fit"},
        {"{\"propertyNames\":{\"pattern\":\"^a\"}}", "{\"ab\":1}", NULL},
        {"{\"dependencies\":{\"a\":[\"b\"]}}", "{\"a\":1}", "Missing dependency 'b'"},
        {"{\"dependencies\":{\"a\":{\"required\":[\"b\"]}}}", "{\"a\":1}", "'b'"},
        {"{\"dependencies\":{\"a\":{\"required\":[\"b\"]}}}", "{}", NULL},
        {"{\"allOf\":[{\"minimum\":1},{\"maximum\":2}]}", "3", "at the root"},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"maximum\":2}]}", "3", "at the root"},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"maximum\":2}]}", "null", NULL},
        {"{\"oneOf\":[{\"minimum\":1},{\"maximum\":2}]}", "1", "exactly one"},
        {"{\"oneOf\":[{\"minimum\":1},{\"maximum\":2}]}", "0", NULL},
        {"{\"not\":{\"type\":\"null\"}}", "null", "not"},
        {"{\"if\":{\"minimum\":5},\"then\":{\"multipleOf\":5},\"else\":{\"multipleOf\":2}}", "7",
         "at"},
        {"{\"if\":{\"minimum\":5},\"then\":{\"multipleOf\":5},\"else\":{\"multipleOf\":2}}", "4",
         NULL},
        {"{\"if\":{\"minimum\":5}}", "7", NULL},
    };
    judge_all(cases, sizeof cases / sizeof *cases);
}
END_TEST

START_TEST(patterns_and_formats)
{
    static const struct verdict cases[] = {
        {"{\"pattern\":\"b\"}", "\"abc\"", NULL},
        {"{\"pattern\":\"^b\"}", "\"abc\"", "pattern"},
        {"{\"pattern\":\"b$\"}", "\"ab\\n\"", "pattern"},
        {"{\"pattern\":\"^\\\\d+$\"}", "\"\xd9\xa3\"", "pattern"},
        {"{\"pattern\":\"^\\\\u00e4$\"}", "\"\xc3\xa4\"", NULL},
        {"{\"pattern\":\"^(?=a)(?!ab)\"}", "\"ac\"", NULL},
        {"{\"pattern\":\"^.$\"}", "\"\xf0\x9f\x98\x80\"", NULL},
        {"{\"pattern\":\"a\"}", "7", NULL},
        {"{\"pattern\":\"a.b\"}", "\"a\\u0000b\"", NULL},
        {"{\"patternProperties\":{\"^x-\":{\"type\":\"string\"}},\"additionalProperties\":false}",
         "{\"x-a\":\"1\"}", NULL},
        {"{\"patternProperties\":{\"^x-\":{\"type\":\"string\"}}}", "{\"x-a\":1}", "at /x-a: "},
        {"{\"patternProperties\":{\"^x-\":{\"type\":\"string\"}},\"additionalProperties\":false}",
         "{\"y-a\":\"1\"}", "'y-a'"},
        {"{\"format\":\"date\"}", "\"2026-02-30\"", "at the root"},
        {"{\"format\":\"date\"}", "\"2026-02-28\"", NULL},
        {"{\"format\":\"date\"}", "7", NULL},
        {"{\"format\":\"time\"}", "\"16:52:45Z\"", NULL},
        {"{\"format\":\"time\"}", "\"26:52:45Z\"", "time"},
        {"{\"format\":\"date-time\"}", "\"2026-07-18T16:52:45.123Z\"", NULL},
        {"{\"format\":\"date-time\"}", "\"yesterday\"", "date-time"},
        {"{\"format\":\"email\"}", "\"nobody\"", NULL},
    };
    judge_all(cases, sizeof cases / sizeof *cases);
}
END_TEST

START_TEST(references)
{
    static const struct verdict cases[] = {
        {"{\"definitions\":{\"n\":{\"type\":\"number\"}},\"items\":{\"$ref\":\"#/definitions/n\"}}",
         "[1,\"a\"]", "at /1: "},
        {"{\"$ref\":\"#/definitions/n\",\"definitions\":{\"n\":{\"type\":\"number\"}}}", "1", NULL},
        {"{\"$ref\":\"#/definitions/n\",\"definitions\":{\"n\":{\"type\":\"number\"}}}", "\"a\"",
         "type"},
        {"{\"$defs\":{\"a/b %\":{\"type\":\"null\"}},\"items\":{\"$ref\":\"#/$defs/a~1b%20%25\"}}",
         "[1]", "at /0: "},
        {"{\"properties\":{\"v\":{\"type\":\"number\"},\"next\":{\"$ref\":\"#\"}}}",
         "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":\"3\"}}}", "at /next/next/v: "},
        {"{\"properties\":{\"v\":{\"type\":\"number\"},\"next\":{\"$ref\":\"#\"}}}",
         "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3}}}", NULL},
        {"{\"allOf\":[{\"minimum\":2},{\"items\":{\"$ref\":\"#/allOf/0\"}}]}", "[1]", "at "},
        {"{\"items\":{\"$ref\":\"#/properties/a\"},\"properties\":{\"a\":{\"maximum\":2}}}", "[3]",
         "at /0: "},
    };
    judge_all(cases, sizeof cases / sizeof *cases);
}
END_TEST

/* ---- what would not end ---- */

static void repeat(struct strbuf *out, const char *text, size_t n)
{
    while (n-- > 0)
        strbuf_put_text(out, text);
}

/* In processor time, which is generous: seconds would be a failure, and forever is what it was. */
static void gives_up(const char *schema, struct slice json)
{
    struct strbuf why = {0};
    struct schema *s = compiled(schema);
    clock_t begun = clock();
    ck_assert_msg(!fits(s, json, &why), "%.200s", schema);
    ck_assert_str_eq(strbuf_cstr(&why), "it takes too long to tell whether it fits the schema");
    ck_assert_msg(clock() - begun < 20 * CLOCKS_PER_SEC, "%.200s", schema);
    ck_assert(s->check(s, slice_text("1"), &why) || why.size > 0); /* and goes on */
    s->destroy(s);
    strbuf_free(&why);
}

START_TEST(patterns_that_explode)
{
    static const char *const schemas[] = {
        "{\"pattern\":\"(a+)+$\"}",
        "{\"pattern\":\"^(a|a)*$\"}",
        "{\"pattern\":\"a+!!\"}",      /* a possessive run from each start */
        "{\"pattern\":\"(?:.*)*!!\"}", /* of nothing */
        "{\"pattern\":\"(.)(?=.*\\\\1!!)\"}",
    };
    struct strbuf text = {0};
    strbuf_put_byte(&text, '"');
    repeat(&text, "aaaaaaaaaaaaaaaa", 20000);
    strbuf_put_text(&text, "!\"");
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++)
        gives_up(schemas[i], strbuf_slice(&text));
    strbuf_reset(&text);
    strbuf_put_text(&text, "{\"");
    repeat(&text, "aaaaaaaaaaaaaaaa", 4);
    strbuf_put_text(&text, "!\":1}");
    gives_up("{\"patternProperties\":{\"^(a+)+$\":{}}}", strbuf_slice(&text));
    gives_up("{\"propertyNames\":{\"pattern\":\"^(a+)+$\"}}", strbuf_slice(&text));
    strbuf_free(&text);
}
END_TEST

START_TEST(long_texts_of_plain_patterns)
{
    struct strbuf text = {0}, why = {0};
    struct schema *s = compiled("{\"items\":{\"pattern\":\"^(?:[a-z]+ ?)*$\"}}");
    strbuf_put_text(&text, "[\"");
    repeat(&text, "words and more words ", 10000);
    strbuf_put_text(&text, "\"]");
    ck_assert_msg(fits(s, strbuf_slice(&text), &why), "%s", strbuf_cstr(&why));
    s->destroy(s);
    strbuf_free(&text);
    strbuf_free(&why);
}
END_TEST

START_TEST(schemas_that_explode)
{
    struct strbuf schema = {0}, text = {0};
    strbuf_put_text(&schema, "{\"$ref\":\"#/definitions/d0\",\"definitions\":{");
    for (int i = 0; i < 60; i++)
        strbuf_printf(&schema,
                      "\"d%d\":{\"oneOf\":[{\"$ref\":\"#/definitions/d%d\"},"
                      "{\"$ref\":\"#/definitions/d%d\"}]},",
                      i, i + 1, i + 1);
    strbuf_put_text(&schema, "\"d60\":{\"type\":\"null\"}}}");
    gives_up(strbuf_cstr(&schema), slice_text("1"));
    repeat(&text, "[", 60);
    strbuf_put_text(&text, "1");
    repeat(&text, "]", 60);
    gives_up("{\"anyOf\":[{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"minItems\":2},"
             "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"minItems\":2}]}",
             strbuf_slice(&text));
    strbuf_free(&schema);
    strbuf_free(&text);
}
END_TEST

START_TEST(documents_that_explode)
{
    struct strbuf text = {0};
    strbuf_put_byte(&text, '[');
    for (unsigned i = 0; i < 80000; i++)
        strbuf_printf(&text, "%u,", i);
    strbuf_put_text(&text, "0]");
    gives_up("{\"uniqueItems\":true}", strbuf_slice(&text));
    strbuf_reset(&text);
    strbuf_put_byte(&text, '{');
    for (unsigned i = 0; i < 40000; i++)
        strbuf_printf(&text, "\"k%u\":1,", i);
    strbuf_put_text(&text, "\"\":1}");
    struct strbuf schema = {0};
    strbuf_put_text(&schema, "{\"required\":[\"\"");
    repeat(&schema, ",\"a\"", 1000);
    strbuf_put_text(&schema, "]}");
    gives_up(strbuf_cstr(&schema), strbuf_slice(&text));
    strbuf_free(&schema);
    strbuf_free(&text);
}
END_TEST

START_TEST(many_values_are_no_explosion)
{
    struct strbuf text = {0}, why = {0};
    struct schema *s = compiled("{\"items\":{\"type\":\"integer\"}}");
    strbuf_put_byte(&text, '[');
    for (unsigned i = 0; i < 1000000; i++) /* 2 MB, as a room's state may have */
        strbuf_put_text(&text, "0,");
    strbuf_put_text(&text, "0]");
    ck_assert_msg(fits(s, strbuf_slice(&text), &why), "%s", strbuf_cstr(&why));
    text.data[text.size - 2] = '"';
    text.data[text.size - 1] = '"';
    strbuf_put_byte(&text, ']');
    ck_assert(!fits(s, strbuf_slice(&text), &why));
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&why), "fit"));
    s->destroy(s);
    strbuf_free(&text);
    strbuf_free(&why);
}
END_TEST

START_TEST(numbers_and_texts_at_the_edge)
{
    static const struct verdict cases[] = {
        {"{\"type\":\"number\"}", "1e308", NULL},
        {"{\"type\":\"number\"}", "1e999", "Number too big"},
        {"{\"type\":\"integer\"}", "9223372036854775807", NULL},
        {"{\"type\":\"integer\"}", "18446744073709551615", "type"},
        {"{\"type\":\"integer\"}", "1.0", NULL},
        {"{\"type\":\"integer\"}", "1e3", NULL},
        {"{\"type\":\"integer\"}", "1e300", "type"},
        {"{\"const\":1}", "1.0", NULL},
        {"{\"maximum\":10}", "18446744073709551615", "less than"},
        {"{\"maximum\":18446744073709551615}", "1", NULL},
        {"{\"multipleOf\":18446744073709551615}", "1", ""},
        {"{\"multipleOf\":3}", "18446744073709551615", ""},
        {"{\"multipleOf\":1e-300}", "18446744073709551615", ""},
        {"{\"type\":\"string\"}", "\"\\ud800\"", "surrogate"},
        {"{\"required\":[\"a\"]}", "{\"a\\u0000b\":1}", "'a'"},
    };
    struct strbuf why = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct schema *s = NULL;
        strbuf_reset(&why);
        int code = schema_compile(&s, slice_text(cases[i].schema), &why);
        if (code != ERR_OK)
            ck_assert_msg(cases[i].why && why.size > 0, "%s", cases[i].schema);
        else if (cases[i].why && !*cases[i].why)
            (void)s->check(s, slice_text(cases[i].json), &why); /* either way, and no fault */
        else
            judge_all(&cases[i], 1);
        if (s)
            s->destroy(s);
    }
    strbuf_free(&why);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("schema");
    TCase *tc = tcase_create("schema");
    tcase_add_test(tc, what_is_no_schema);
    tcase_add_test(tc, references_that_lead_nowhere);
    tcase_add_test(tc, too_much_of_a_schema);
    tcase_add_test(tc, keywords);
    tcase_add_test(tc, patterns_and_formats);
    tcase_add_test(tc, references);
    tcase_add_test(tc, patterns_that_explode);
    tcase_add_test(tc, long_texts_of_plain_patterns);
    tcase_add_test(tc, schemas_that_explode);
    tcase_add_test(tc, documents_that_explode);
    tcase_add_test(tc, many_values_are_no_explosion);
    tcase_add_test(tc, numbers_and_texts_at_the_edge);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
