/* CORE. Signatures of tokens: the vectors of RFC 7515, what has not the form, what is no key. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "common/token/jws.h"
#include "token_samples.h"

#define MOST TOKEN_MAX_BYTES

static struct strbuf token, why;

static struct jws_key *key_of(enum token_algorithm algorithm, struct slice material, bool sign)
{
    const struct token_key_source source = {NULL, algorithm, material};
    struct jws_key *key = NULL;
    strbuf_reset(&why);
    if (jws_key_create(&source, sign, &key, &why) != ERR_OK)
        ck_assert_ptr_null(key);
    return key;
}

static bool verifies(const struct jws_key *key, struct slice text)
{
    struct jws jws;
    if (jws_read(text, MOST, &jws) != NULL)
        return false;
    bool good = jws_verify(key, &jws);
    jws_free(&jws);
    return good;
}

START_TEST(rfc_7515)
{
    const struct {
        const char *token;
        enum token_algorithm algorithm;
        struct slice material;
    } cases[] = {{rfc_hs256, TOKEN_HS256, rfc_hs256_secret()},
                 {rfc_rs256, TOKEN_RS256, slice_text(rfc_rs256_public)},
                 {rfc_es256, TOKEN_ES256, slice_text(rfc_es256_public)}};
    for (size_t i = 0; i < 3; i++) {
        struct jws jws;
        struct jws_key *key = key_of(cases[i].algorithm, cases[i].material, false);
        ck_assert_ptr_nonnull(key);
        ck_assert_ptr_null(jws_read(slice_text(cases[i].token), MOST, &jws));
        ck_assert_int_eq(jws.algorithm, cases[i].algorithm);
        ck_assert_ptr_null(jws.kid.data);
        ck_assert(slice_is(jws.payload, "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n "
                                        "\"http://example.com/is_root\":true}"));
        ck_assert(jws_verify(key, &jws));
        jws_free(&jws);
        for (size_t k = 0; k < 3; k++) /* the others' tokens are not of this key */
            ck_assert_int_eq(verifies(key, slice_text(cases[k].token)), i == k);
        jws_key_destroy(&key);
    }
}
END_TEST

/* Every bit of a token counts, and so does every byte that is left out or added. */
static void damage(const char *good, enum token_algorithm algorithm, struct slice material)
{
    struct jws_key *key = key_of(algorithm, material, false);
    size_t size = strlen(good);
    char *bad = mem_alloc(size + 2);
    memcpy(bad, good, size + 1);
    ck_assert(verifies(key, slice_of(bad, size)));
    for (size_t i = 0; i < size; i++) {
        for (unsigned bit = 0; bit < 8; bit += algorithm == TOKEN_HS256 ? 1 : 7) {
            bad[i] = (char)((unsigned char)good[i] ^ 1u << bit);
            ck_assert_msg(!verifies(key, slice_of(bad, size)), "byte %zu, bit %u", i, bit);
        }
        bad[i] = good[i];
        ck_assert(!verifies(key, slice_of(bad, i)));
    }
    for (unsigned extra = 0; extra < 256; extra++) {
        bad[size] = (char)extra;
        ck_assert(!verifies(key, slice_of(bad, size + 1)));
    }
    mem_free(bad);
    jws_key_destroy(&key);
}

START_TEST(damaged)
{
    damage(rfc_hs256, TOKEN_HS256, rfc_hs256_secret());
    damage(rfc_rs256, TOKEN_RS256, slice_text(rfc_rs256_public));
    damage(rfc_es256, TOKEN_ES256, slice_text(rfc_es256_public));
}
END_TEST

START_TEST(malformed)
{
    static const char *const texts[] = {"",
                                        ".",
                                        "..",
                                        "...",
                                        "a",
                                        "a.b",
                                        "a.b.c",
                                        "a.b.c.d",
                                        "e30.e30.",
                                        "e30..e30",
                                        ".e30.e30",
                                        "eyJhbGciOiJIUzI1NiJ9.e30.c2ln.",
                                        "eyJhbGciOiJIUzI1NiJ9.e30.c2ln.c2ln",
                                        "{}.{}.{}",
                                        "eyJhbGciOiJIUzI1NiJ9=.e30.c2ln",
                                        "eyJhbGciOiJIUzI1NiJ9.e30=.c2ln",
                                        " eyJhbGciOiJIUzI1NiJ9.e30.c2ln",
                                        "eyJhbGciOiJIUzI1NiJ9.e30+.c2ln",
                                        "eyJhbGciOiJIUzI1NiJ9.e3/0.c2ln",
                                        "eyJhbGciOiJIUzI1NiJ9.e31.c2ln"};
    static const char *const headers[] = {"",
                                          "x",
                                          "[]",
                                          "\"HS256\"",
                                          "null",
                                          "{}",
                                          "{\"alg\":null}",
                                          "{\"alg\":256}",
                                          "{\"alg\":[\"HS256\"]}",
                                          "{\"alg\":\"none\"}",
                                          "{\"alg\":\"None\"}",
                                          "{\"alg\":\"NONE\"}",
                                          "{\"alg\":\"hs256\"}",
                                          "{\"alg\":\"HS256 \"}",
                                          "{\"alg\":\"HS512\"}",
                                          "{\"alg\":\"PS256\"}",
                                          "{\"alg\":\"HS256\\u0000\"}",
                                          "{\"alg\":\"HS256\",\"alg\":\"HS256\"}",
                                          "{\"alg\":\"HS256\",\"\\u0061lg\":\"none\"}",
                                          "{\"alg\":\"HS256\",\"crit\":[\"exp\"]}",
                                          "{\"alg\":\"HS256\",\"crit\":null}",
                                          "{\"alg\":\"HS256\",\"kid\":1}",
                                          "{\"alg\":\"HS256\",\"kid\":null}",
                                          "{\"alg\":\"HS256\",\"kid\":\"a\",\"kid\":\"a\"}",
                                          "{\"alg\":\"HS256\"",
                                          "{\"alg\":\"HS256\"}}",
                                          "{\"alg\":\"HS256\",}",
                                          "{\"alg\":\"HS256\",\"x\":\"\xff\"}"};
    struct jws jws;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        ck_assert_msg(jws_read(slice_text(texts[i]), MOST, &jws) != NULL, "%s", texts[i]);
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        sample_token(&token, headers[i], "{}", slice_text("s"));
        ck_assert_msg(jws_read(strbuf_slice(&token), MOST, &jws) != NULL, "%s", headers[i]);
    }
    sample_token(&token, "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"\\u0061/\\n\",\"x\":{}}",
                 "{}", slice_text("s"));
    ck_assert_ptr_null(jws_read(strbuf_slice(&token), MOST, &jws));
    ck_assert(slice_is(jws.kid, "a/\n"));
    jws_free(&jws);
    ck_assert_ptr_nonnull(jws_read(strbuf_slice(&token), token.size - 1, &jws));
}
END_TEST

START_TEST(no_keys)
{
    struct sample_key rsa = sample_key("RSA", 2048), short_rsa = sample_key("RSA", 1024),
                      p256 = sample_key("P-256", 0), p384 = sample_key("P-384", 0),
                      edwards = sample_key("ED25519", 0);
    const struct {
        enum token_algorithm algorithm;
        const char *material;
        bool sign, fine;
    } cases[] = {
        {TOKEN_HS256, "", false, false},
        {TOKEN_HS256, "s", true, true},
        {TOKEN_RS256, rsa.public_pem, false, true},
        {TOKEN_RS256, rsa.private_pem, false, true},
        {TOKEN_RS256, rsa.private_pem, true, true},
        {TOKEN_RS256, rsa.public_pem, true, false},
        {TOKEN_RS256, short_rsa.public_pem, false, false},
        {TOKEN_RS256, short_rsa.private_pem, true, false},
        {TOKEN_RS256, p256.public_pem, false, false},
        {TOKEN_RS256, edwards.public_pem, false, false},
        {TOKEN_ES256, p256.public_pem, false, true},
        {TOKEN_ES256, p256.private_pem, true, true},
        {TOKEN_ES256, p256.public_pem, true, false},
        {TOKEN_ES256, p384.public_pem, false, false},
        {TOKEN_ES256, p384.private_pem, true, false},
        {TOKEN_ES256, rsa.public_pem, false, false},
        {TOKEN_ES256, edwards.private_pem, true, false},
        {TOKEN_ES256, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", false, false},
        {TOKEN_RS256, "secret", false, false},
        {TOKEN_RS256, "", false, false},
        {TOKEN_RS256, /* behind a passphrase, which nobody is asked for */
         "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
         "MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhx9yecHUhmXAICCAAw\n"
         "DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEEPGD4xzFdapj3T5W/NYazVYEgZAb\n"
         "eemtQTt/sO0JisT0ZLLGQgroTIEqA5CqAsMqoNGrrH4qLC1YSfuXo3u4hsNRWRiT\n"
         "3jNjsFuDcsQYTCCFR4J/VywnN8aJt6W2cWu0dxtuWDdGGROqoEwxGdZBPz7lGfh7\n"
         "a+K4ez51S3DguUv+OIMO2jEvZ7U8mGfOB4/6bvzx5SAAofvthhgCZDaukm3VqMw=\n"
         "-----END ENCRYPTED PRIVATE KEY-----\n",
         true, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct jws_key *key =
            key_of(cases[i].algorithm, slice_text(cases[i].material), cases[i].sign);
        ck_assert_msg((key != NULL) == cases[i].fine, "case %zu: %s", i, strbuf_cstr(&why));
        ck_assert(cases[i].fine == (why.size == 0));
        jws_key_destroy(&key);
    }
    sample_key_free(&rsa);
    sample_key_free(&short_rsa);
    sample_key_free(&p256);
    sample_key_free(&p384);
    sample_key_free(&edwards);
}
END_TEST

START_TEST(signs_and_verifies)
{
    struct sample_key rsa = sample_key("RSA", 2048), p256 = sample_key("P-256", 0);
    const struct {
        enum token_algorithm algorithm;
        const char *sign, *check;
    } cases[] = {{TOKEN_HS256, "a secret", "a secret"},
                 {TOKEN_RS256, rsa.private_pem, rsa.public_pem},
                 {TOKEN_ES256, p256.private_pem, p256.public_pem}};
    for (size_t i = 0; i < 3; i++) {
        struct jws_key *signer = key_of(cases[i].algorithm, slice_text(cases[i].sign), true),
                       *checker = key_of(cases[i].algorithm, slice_text(cases[i].check), false);
        for (unsigned n = 0; n < 50; n++) { /* numbers of a signature with leading zeros, too */
            struct jws jws;
            char text[32];
            snprintf(text, sizeof text, "{\"n\":%u}", n);
            strbuf_reset(&token);
            ck_assert_int_eq(jws_sign(signer, slice_text(text), &token), ERR_OK);
            ck_assert_ptr_null(jws_read(strbuf_slice(&token), MOST, &jws));
            ck_assert(slice_is(jws.payload, text));
            ck_assert(jws_verify(checker, &jws));
            ck_assert(jws_verify(signer, &jws));
            jws_free(&jws);
        }
        jws_key_destroy(&signer);
        jws_key_destroy(&checker);
    }
    sample_key_free(&rsa);
    sample_key_free(&p256);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("jws");
    tcase_add_test(cases, rfc_7515);
    tcase_add_test(cases, damaged);
    tcase_add_test(cases, malformed);
    tcase_add_test(cases, no_keys);
    tcase_add_test(cases, signs_and_verifies);
    Suite *suite = suite_create("jws");
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    strbuf_free(&token);
    strbuf_free(&why);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
