/* CORE. Tokens to identities: which key checks which token, what every claim may be, and that a
 * token of a foreign library is read as one of ours. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "common/token/token.h"
#include "token_samples.h"

#define NOW_MS INT64_C(1700000000000)
#define HOUR_MS INT64_C(3600000)
#define SECRET "0123456789abcdef0123456789abcdef"
#define HS256 "{\"alg\":\"HS256\"}"

static struct strbuf token, why;

static struct token_checker *checker_of(const struct token_key_source *keys, size_t n_keys,
                                        const char *issuer, const char *audience)
{
    const struct token_options options = {keys, n_keys, issuer, audience, 7 * 24 * HOUR_MS};
    struct token_checker *checker = NULL;
    ck_assert_int_eq(token_checker_create(&options, &checker, &why), ERR_OK);
    return checker;
}

static struct token_checker *plain_checker(void)
{
    const struct token_key_source key = {NULL, TOKEN_HS256, slice_text(SECRET)};
    return checker_of(&key, 1, NULL, NULL);
}

/* NULL: accepted. */
static const char *verdict(const struct token_checker *checker, struct identity **out)
{
    struct identity *who = NULL;
    const char *wrong = token_check(checker, strbuf_slice(&token), NOW_MS, &who);
    ck_assert_int_eq(wrong == NULL, who != NULL);
    if (out)
        *out = who;
    else
        identity_unref(who);
    return wrong;
}

static const char *claims_verdict(const struct token_checker *checker, const char *claims)
{
    sample_token(&token, HS256, claims, slice_text(SECRET));
    return verdict(checker, NULL);
}

START_TEST(every_claim)
{
    struct token_checker *checker = plain_checker();
    struct identity *who;
    static const char claims[] =
        "{\"exp\":1700003600.5,\"iat\":1699999999.25,\"nbf\":1699999000,\"key\":[\"upload:a\","
        "\"chat:\\u00e9\"],\"prefix\":\"job:\",\"can\":[\"publish\",\"call\"],\"rpc\":[\"ban\"],"
        "\"id\":\"c-1\",\"sub\":\"ann\",\"jti\":\"t-1\",\"tags\":[\"red\",\"big\"],\"att\":{\"a\": "
        "[1]},\"other\":true}";
    sample_token(&token, HS256, claims, slice_text(SECRET));
    ck_assert_ptr_null(verdict(checker, &who));
    ck_assert_int_eq(who->expires_ms, INT64_C(1700003600500));
    ck_assert_int_eq(who->issued_ms, INT64_C(1699999999250));
    ck_assert_int_eq(who->not_before_ms, INT64_C(1699999000000));
    ck_assert_uint_eq(who->keys.count, 2);
    ck_assert(slice_is(who->keys.at[0], "upload:a"));
    ck_assert(slice_is(who->keys.at[1], "chat:\xc3\xa9"));
    ck_assert_uint_eq(who->prefixes.count, 1);
    ck_assert(slice_is(who->prefixes.at[0], "job:"));
    ck_assert_uint_eq(who->rights, 1u << RIGHT_PUBLISH | 1u << RIGHT_CALL);
    ck_assert_uint_eq(who->methods.count, 1);
    ck_assert(slice_is(who->id, "c-1"));
    ck_assert(slice_is(who->subject, "ann"));
    ck_assert(slice_is(who->token_id, "t-1"));
    ck_assert_uint_eq(who->tags.count, 2);
    ck_assert(slice_is(who->tags.at[1], "big"));
    ck_assert(slice_is(who->attachment, "{\"a\": [1]}"));
    ck_assert(slice_is(who->claims, claims));
    identity_unref(who);
    sample_token(&token, HS256, "{\"exp\":1700003600,\"key\":\"k\"}", slice_text(SECRET));
    ck_assert_ptr_null(verdict(checker, &who));
    ck_assert_uint_eq(who->rights, 1u << RIGHT_SUBSCRIBE);
    ck_assert_int_eq(who->issued_ms, 0);
    ck_assert_int_eq(who->not_before_ms, 0);
    ck_assert_ptr_null(who->id.data);
    ck_assert_ptr_null(who->attachment.data);
    ck_assert(identity_covers(who, slice_text("k")) && !identity_covers(who, slice_text("kk")));
    identity_unref(who);
    token_checker_destroy(&checker);
}
END_TEST

#define EXP "\"exp\":1700003600"
#define T64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define T256 T64 T64 T64 T64

START_TEST(claims_accepted)
{
    static const char *const texts[] = {
        "{" EXP ",\"prefix\":\"\"}",
        "{" EXP ",\"prefix\":[\"a\",\"\"]}",
        "{" EXP ",\"key\":[\"a\"],\"can\":[]}",
        "{" EXP ",\"key\":[],\"prefix\":\"a\"}",
        "{" EXP ",\"key\":\"a\",\"att\":null,\"aud\":5,\"iss\":[]}",
        "{" EXP ",\"key\":\"" T256 "\",\"id\":\"" T256 "\",\"sub\":\"" T256 "\"}",
        "{\"exp\":17.000036e8,\"key\":\"a\"}",
        "{\"exp\":1,\"key\":\"a\"}", /* over: the clock is asked each time, not here */
        "{\"exp\":-5,\"key\":\"a\"}",
        "{\"exp\":1700003600,\"nbf\":1800000000,\"key\":\"a\"}",
        "{\"exp\":1700604800,\"key\":\"a\"}",                    /* max_ttl from now */
        "{\"exp\":1700604860,\"iat\":1700000060,\"key\":\"a\"}", /* a clock a minute ahead */
        "{\"exp\":1700000001,\"iat\":1699395201,\"key\":\"a\"}",
        " {" EXP ",\"key\":\"a\"}\n",
        "{\"\":1," EXP ",\"key\":\"a\"}",
    };
    struct token_checker *checker = plain_checker();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *wrong = claims_verdict(checker, texts[i]);
        ck_assert_msg(wrong == NULL, "%s: %s", texts[i], wrong);
    }
    token_checker_destroy(&checker);
}
END_TEST

START_TEST(claims_refused)
{
    static const char *const texts[] = {
        "",
        "x",
        "[]",
        "null",
        "{}",
        "{" EXP "}",
        "{\"key\":\"a\"}",
        "{" EXP ",\"key\":\"a\"",
        "{" EXP ",\"key\":\"a\",}",
        "{" EXP ",\"key\":\"\xff\"}",
        "{" EXP ",\"key\":\"\\ud800\"}",
        "{\"exp\":\"1700003600\",\"key\":\"a\"}",
        "{\"exp\":null,\"key\":\"a\"}",
        "{\"exp\":true,\"key\":\"a\"}",
        "{\"exp\":1e999,\"key\":\"a\"}",
        "{\"exp\":[1700003600],\"key\":\"a\"}",
        "{\"exp\":1700000000000,\"key\":\"a\"}", /* milliseconds */
        "{\"exp\":1700604801,\"key\":\"a\"}",    /* longer than max_ttl */
        "{\"exp\":1700000001,\"iat\":1699395200,\"key\":\"a\"}",
        "{\"exp\":1800003600,\"iat\":1800000000,\"key\":\"a\"}", /* issued in the future */
        "{" EXP ",\"iat\":\"now\",\"key\":\"a\"}",
        "{" EXP ",\"nbf\":null,\"key\":\"a\"}",
        "{" EXP ",\"key\":\"a\"," EXP "}",
        "{" EXP ",\"key\":\"a\",\"\\u006bey\":\"b\"}",
        "{" EXP ",\"key\":\"a\",\"x\":1,\"x\":2}",
        "{" EXP ",\"key\":[]}",
        "{" EXP ",\"key\":[],\"prefix\":[]}",
        "{" EXP ",\"key\":5}",
        "{" EXP ",\"key\":null}",
        "{" EXP ",\"key\":[\"a\",5]}",
        "{" EXP ",\"key\":{\"a\":1}}",
        "{" EXP ",\"key\":\"\"}",
        "{" EXP ",\"key\":\"" T256 "a\"}",
        "{" EXP ",\"key\":\"$x\"}",
        "{" EXP ",\"key\":\"a\\nb\"}",
        "{" EXP ",\"key\":[[\"a\"]]}",
        "{" EXP ",\"prefix\":null}",
        "{" EXP ",\"prefix\":5}",
        "{" EXP ",\"prefix\":[1]}",
        "{" EXP ",\"prefix\":\"$\"}",
        "{" EXP ",\"prefix\":\"a\\u0000\"}",
        "{" EXP ",\"key\":\"a\",\"can\":\"publish\"}",
        "{" EXP ",\"key\":\"a\",\"can\":[\"fly\"]}",
        "{" EXP ",\"key\":\"a\",\"can\":[1]}",
        "{" EXP ",\"key\":\"a\",\"can\":[\"Publish\"]}",
        "{" EXP ",\"key\":\"a\",\"can\":null}",
        "{" EXP ",\"key\":\"a\",\"can\":[\"send\",\"send\"]}",
        "{" EXP ",\"key\":\"a\",\"rpc\":\"ban\"}",
        "{" EXP ",\"key\":\"a\",\"rpc\":[\"\"]}",
        "{" EXP ",\"key\":\"a\",\"id\":\"\"}",
        "{" EXP ",\"key\":\"a\",\"id\":5}",
        "{" EXP ",\"key\":\"a\",\"id\":\"" T256 "a\"}",
        "{" EXP ",\"key\":\"a\",\"id\":null}",
        "{" EXP ",\"key\":\"a\",\"sub\":5}",
        "{" EXP ",\"key\":\"a\",\"jti\":5}",
        "{" EXP ",\"key\":\"a\",\"jti\":\"\"}",
        "{" EXP ",\"key\":\"a\",\"tags\":\"red\"}",
        "{" EXP ",\"key\":\"a\",\"tags\":[1]}",
        "{" EXP ",\"key\":\"a\",\"tags\":null}",
        "{" EXP ",\"key\":\"a\",\"tags\":[\"" T256 "a\"]}",
        "{" EXP ",\"key\":\"a\",\"tags\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\","
        "\"10\",\"11\"]}",
    };
    struct token_checker *checker = plain_checker();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        ck_assert_msg(claims_verdict(checker, texts[i]) != NULL, "%s", texts[i]);
    token_checker_destroy(&checker);
}
END_TEST

static void list_put(struct strbuf *out, const char *claim, unsigned count)
{
    strbuf_reset(out);
    strbuf_printf(out, "{" EXP ",\"key\":\"a\",\"%s\":[", claim);
    for (unsigned i = 0; i < count; i++)
        strbuf_printf(out, "%s\"%u\"", i > 0 ? "," : "", i);
    strbuf_put_text(out, "]}");
}

START_TEST(bounds)
{
    static const char *const lists[] = {"prefix", "rpc"};
    struct token_checker *checker = plain_checker();
    struct strbuf claims = {0};
    for (size_t i = 0; i < 2; i++) {
        list_put(&claims, lists[i], 256);
        ck_assert_ptr_null(claims_verdict(checker, strbuf_cstr(&claims)));
        list_put(&claims, lists[i], 257);
        ck_assert_ptr_nonnull(claims_verdict(checker, strbuf_cstr(&claims)));
    }
    for (size_t size = TOKEN_MAX_BYTES; size <= 1 << 20; size *= 8) { /* too long, though signed */
        strbuf_reset(&claims);
        strbuf_put_text(&claims, "{" EXP ",\"key\":\"a\",\"att\":\"");
        while (claims.size < size)
            strbuf_put_byte(&claims, 'x');
        strbuf_put_text(&claims, "\"}");
        ck_assert_ptr_nonnull(claims_verdict(checker, strbuf_cstr(&claims)));
    }
    strbuf_free(&claims);
    token_checker_destroy(&checker);
}
END_TEST

START_TEST(issuer_and_audience)
{
    static const struct {
        const char *more;
        bool fine;
    } cases[] = {{"\"iss\":\"me\",\"aud\":\"stoa\"", true},
                 {"\"iss\":\"me\",\"aud\":[\"x\",\"stoa\"]", true},
                 {"\"iss\":\"me\"", false},
                 {"\"aud\":\"stoa\"", false},
                 {"\"iss\":\"you\",\"aud\":\"stoa\"", false},
                 {"\"iss\":[\"me\"],\"aud\":\"stoa\"", false},
                 {"\"iss\":null,\"aud\":\"stoa\"", false},
                 {"\"iss\":\"me\",\"aud\":\"stoa2\"", false},
                 {"\"iss\":\"me\",\"aud\":[]", false},
                 {"\"iss\":\"me\",\"aud\":[1,\"stoa\"]", false},
                 {"\"iss\":\"me\",\"aud\":{\"stoa\":1}", false}};
    const struct token_key_source key = {NULL, TOKEN_HS256, slice_text(SECRET)};
    struct token_checker *checker = checker_of(&key, 1, "me", "stoa");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char claims[128];
        snprintf(claims, sizeof claims, "{" EXP ",\"key\":\"a\",%s}", cases[i].more);
        ck_assert_msg((claims_verdict(checker, claims) == NULL) == cases[i].fine, "%s", claims);
    }
    token_checker_destroy(&checker);
}
END_TEST

static void signed_by(const char *kid, enum token_algorithm algorithm, const char *material)
{
    const struct token_key_source key = {kid, algorithm, slice_text(material)};
    strbuf_reset(&token);
    ck_assert_int_eq(token_sign(&key, slice_text("{" EXP ",\"key\":\"a\"}"), &token, &why), ERR_OK);
}

/* Two secrets while they are changed, a provider's key beside them. */
START_TEST(keys_rotate)
{
    struct sample_key rsa = sample_key("RSA", 2048), other = sample_key("RSA", 2048),
                      p256 = sample_key("P-256", 0);
    const struct token_key_source keys[] = {{"old", TOKEN_HS256, slice_text("old secret")},
                                            {"new", TOKEN_HS256, slice_text("new secret")},
                                            {"idp", TOKEN_RS256, slice_text(rsa.public_pem)},
                                            {"", TOKEN_ES256, slice_text(p256.private_pem)}};
    const struct {
        const char *kid;
        enum token_algorithm algorithm;
        const char *material;
        const char *signer; /* NULL: refused */
    } cases[] = {
        {"old", TOKEN_HS256, "old secret", "old"},
        {"new", TOKEN_HS256, "new secret", "new"},
        {NULL, TOKEN_HS256, "new secret", "new"},
        {NULL, TOKEN_HS256, "old secret", "old"},
        {"idp", TOKEN_RS256, rsa.private_pem, "idp"},
        {NULL, TOKEN_RS256, rsa.private_pem, "idp"},
        {NULL, TOKEN_ES256, p256.private_pem, ""},
        {"old", TOKEN_HS256, "new secret", NULL},
        {"newer", TOKEN_HS256, "new secret", NULL},
        {NULL, TOKEN_HS256, "other secret", NULL},
        {"idp", TOKEN_HS256, "new secret", NULL},
        {"new", TOKEN_RS256, rsa.private_pem, NULL},
        {"idp", TOKEN_RS256, other.private_pem, NULL},
        {"idp", TOKEN_HS256, rsa.public_pem, NULL}, /* what is public is no secret */
        {NULL, TOKEN_HS256, rsa.public_pem, NULL},
        {"x", TOKEN_ES256, p256.private_pem, ""}, /* a key without a kid is for any */
        {"x", TOKEN_HS256, p256.public_pem, NULL},
    };
    struct token_checker *checker = checker_of(keys, 4, NULL, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct identity *who;
        signed_by(cases[i].kid, cases[i].algorithm, cases[i].material);
        const char *wrong = verdict(checker, &who);
        ck_assert_msg((wrong == NULL) == (cases[i].signer != NULL), "case %zu: %s", i, wrong);
        ck_assert(!who || slice_is(who->key_id, cases[i].signer));
        identity_unref(who);
    }
    token_checker_destroy(&checker);
    ck_assert_ptr_null(checker);
    sample_key_free(&rsa);
    sample_key_free(&other);
    sample_key_free(&p256);
}
END_TEST

START_TEST(unsigned_ones)
{
    struct token_checker *checker = plain_checker();
    static const char *const headers[] = {"{\"alg\":\"none\"}", HS256, "{\"alg\":\"RS256\"}",
                                          "{\"alg\":\"ES256\"}"};
    for (size_t i = 0; i < 4; i++) {
        strbuf_reset(&token);
        sample_parts(&token, slice_text(headers[i]), slice_text("{" EXP ",\"key\":\"a\"}"),
                     slice_of("", 0));
        ck_assert_ptr_nonnull(verdict(checker, NULL));
    }
    token_checker_destroy(&checker);
}
END_TEST

/* Of Python's standard library: hmac, json and base64. */
START_TEST(foreign)
{
    static const char text[] =
        "eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9.eyJzdWIiOiAielx1MDBmY3JpY2giLCAiZXhwIjogMTcwMDAwM"
        "zYwMC4yNSwgImtleSI6IFsidXBsb2FkOjEiLCAidXBsb2FkOjIiXSwgImNhbiI6IFsic3Vic2NyaWJlIiwgInB1Ymx"
        "pc2giXX0.9bvZYBqJ3shGyqJBhFjIvuEjILBPta4PdLAYBtq5bTY";
    struct token_checker *checker = plain_checker();
    struct identity *who;
    strbuf_reset(&token);
    strbuf_put_text(&token, text);
    ck_assert_ptr_null(verdict(checker, &who));
    ck_assert(slice_is(who->subject, "z\xc3\xbcrich"));
    identity_unref(who);
    token_checker_destroy(&checker);
}
END_TEST

START_TEST(no_keys)
{
    const struct token_key_source bad[] = {{"a", TOKEN_HS256, slice_text(SECRET)},
                                           {"b", TOKEN_RS256, slice_text("hidden text")}};
    const struct token_options options = {bad, 2, NULL, NULL, HOUR_MS};
    struct token_checker *checker = NULL;
    strbuf_reset(&why);
    ck_assert_int_eq(token_checker_create(&options, &checker, &why), ERR_INVALID);
    ck_assert_ptr_null(checker);
    ck_assert_str_eq(strbuf_cstr(&why),
                     "key 1, kid b: is no key: it must be PEM (-----BEGIN PUBLIC "
                     "KEY-----)");
    ck_assert_ptr_null(token_key_weakness(&bad[0]));
    const struct token_key_source weak = {NULL, TOKEN_HS256, slice_text("secret")};
    ck_assert_ptr_nonnull(token_key_weakness(&weak));
    strbuf_reset(&token);
    ck_assert_int_eq(token_sign(&weak, slice_text("[]"), &token, &why), ERR_INVALID);
    ck_assert_uint_eq(token.size, 0);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("token");
    tcase_add_test(cases, every_claim);
    tcase_add_test(cases, claims_accepted);
    tcase_add_test(cases, claims_refused);
    tcase_add_test(cases, bounds);
    tcase_add_test(cases, issuer_and_audience);
    tcase_add_test(cases, keys_rotate);
    tcase_add_test(cases, unsigned_ones);
    tcase_add_test(cases, foreign);
    tcase_add_test(cases, no_keys);
    Suite *suite = suite_create("token");
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    strbuf_free(&token);
    strbuf_free(&why);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
