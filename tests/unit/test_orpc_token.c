/* CORE. oRPC's tokens: those that its own libraries made, and what each claim may be. Tokens of the
 * second kind are signed here, so that one claim is wrong at a time. */
#include <check.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "common/strbuf.h"
#include "common/token/orpc_token.h"

#define KEY "secret-key"
#define NOW_MS INT64_C(1800000000000)

static const char e1[] =
    "eyJhbGciOiJIUzI1NiJ9.eyJjaG4iOiJzb21lLXJvb20iLCJycGMiOlsicHVibGlzaE1lc3NhZ2UiXSwiYXR0Ijp7InVz"
    "ZXJJZCI6InVzZXItMTIzIn0sImlhdCI6MTcwMDAwMDAwMCwiZXhwIjo0MTAyNDQ0ODAwfQ.OzG3oBrGqeeZ1mfnc5a2Us"
    "sgdzp-RsUhzGu9y-j5Otw";
static const char e2[] =
    "{\"chn\":\"some-room\",\"tags\":[\"tag1\"],\"rpc\":[\"publishMessage\"],\"att\":{\"userId\":"
    "\"user-123\"},\"iat\":1700000000,\"exp\":4102444800}.fdCACwbQ-XaHB53gEYuvPcUx2RE4UFtqUGk6wsdmo"
    "jY";

static const char *check_at(const char *token, int64_t now_ms, struct orpc_claims *out)
{
    return orpc_token_check(slice_text(KEY), slice_text(token), now_ms, out);
}

static struct strbuf made;

/* base64url of the HMAC; `variant`: padded or not. */
static const char *sign(const char *json, int variant)
{
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    char text[64];
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, (const uint8_t *)KEY, strlen(KEY));
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)json, strlen(json));
    crypto_auth_hmacsha256_final(&state, mac);
    sodium_bin2base64(text, sizeof text, mac, sizeof mac, variant);
    strbuf_reset(&made);
    strbuf_printf(&made, "%s.%s", json, text);
    return strbuf_cstr(&made);
}

static bool accepted(const char *json)
{
    struct orpc_claims claims;
    bool fine =
        check_at(sign(json, sodium_base64_VARIANT_URLSAFE_NO_PADDING), NOW_MS, &claims) == NULL;
    if (fine)
        orpc_claims_free(&claims);
    return fine;
}

static void golden_check(const char *token, enum orpc_generation generation)
{
    struct orpc_claims claims;
    ck_assert_ptr_null(check_at(token, NOW_MS, &claims));
    ck_assert_int_eq(claims.generation, generation);
    ck_assert(slice_is(claims.chn, "some-room"));
    ck_assert_uint_eq(claims.rpc.count, 1);
    ck_assert(slice_is(claims.rpc.at[0], "publishMessage"));
    ck_assert(slice_is(claims.att, "{\"userId\":\"user-123\"}"));
    ck_assert_double_eq(claims.iat, 1700000000);
    ck_assert_double_eq(claims.exp, 4102444800);
    ck_assert_int_eq(claims.issued_ms, INT64_C(1700000000000));
    orpc_claims_free(&claims);
}

START_TEST(golden)
{
    golden_check(e1, ORPC_E1);
    golden_check(e2, ORPC_E2);
}
END_TEST

START_TEST(identity)
{
    struct orpc_claims claims;
    ck_assert_ptr_null(check_at(e2, NOW_MS, &claims));
    struct identity *who = orpc_identity(&claims, slice_text("chat:some-room"), slice_text("c-1"));
    orpc_claims_free(&claims);
    ck_assert(identity_may(who, RIGHT_SUBSCRIBE, slice_text("chat:some-room")));
    ck_assert(!identity_may(who, RIGHT_SUBSCRIBE, slice_text("chat:some-room2")));
    ck_assert(!identity_may(who, RIGHT_PUBLISH, slice_text("chat:some-room")));
    ck_assert(identity_may_call(who, slice_text("chat:some-room"), slice_text("publishMessage")));
    ck_assert(!identity_may_call(who, slice_text("chat:some-room"), slice_text("other")));
    ck_assert_uint_eq(who->tags.count, 1);
    ck_assert(slice_is(who->tags.at[0], "tag1"));
    ck_assert(slice_is(who->id, "c-1"));
    ck_assert(slice_is(who->attachment, "{\"userId\":\"user-123\"}"));
    ck_assert_int_eq(who->expires_ms, INT64_C(4102444800001));
    identity_unref(who);
}
END_TEST

/* The second kind is in force at `exp`, the first is not. */
START_TEST(expiry)
{
    struct orpc_claims claims;
    const int64_t exp_ms = INT64_C(4102444800000);
    ck_assert_ptr_null(check_at(e2, exp_ms, &claims));
    orpc_claims_free(&claims);
    ck_assert_ptr_nonnull(check_at(e2, exp_ms + 1, &claims));
    ck_assert_ptr_null(check_at(e1, exp_ms - 1, &claims));
    orpc_claims_free(&claims);
    ck_assert_ptr_nonnull(check_at(e1, exp_ms, &claims));
    ck_assert(accepted("{\"chn\":\"a\",\"iat\":1,\"exp\":1800000000.0}"));
    ck_assert(accepted("{\"chn\":\"a\",\"iat\":1,\"exp\":1800000000.5}"));
    ck_assert(!accepted("{\"chn\":\"a\",\"iat\":1,\"exp\":1799999999.999}"));
}
END_TEST

START_TEST(signature)
{
    struct orpc_claims claims;
    const char json[] = "{\"chn\":\"a.b \\u00e9.\",\"iat\":1,\"exp\":9999999999}";
    const int variants[] = {
        sodium_base64_VARIANT_ORIGINAL, sodium_base64_VARIANT_ORIGINAL_NO_PADDING,
        sodium_base64_VARIANT_URLSAFE, sodium_base64_VARIANT_URLSAFE_NO_PADDING};
    for (size_t i = 0; i < 4; i++) {
        ck_assert_ptr_null(check_at(sign(json, variants[i]), NOW_MS, &claims));
        ck_assert(slice_is(claims.chn, "a.b \xc3\xa9."));
        ck_assert(!claims.has_tags);
        orpc_claims_free(&claims);
    }
    ck_assert_ptr_nonnull(
        orpc_token_check(slice_text("secret-kez"), slice_text(e1), NOW_MS, &claims));
    ck_assert_ptr_nonnull(
        orpc_token_check(slice_text("secret-kez"), slice_text(e2), NOW_MS, &claims));
    ck_assert_ptr_nonnull(orpc_token_check(slice_text(""), slice_text(e2), NOW_MS, &claims));
    for (size_t i = 0; i < sizeof e2 - 1; i++) { /* one bit anywhere, and every beginning */
        char *other = mem_strdup(e2);
        other[i] ^= 1;
        ck_assert_ptr_nonnull(check_at(other, NOW_MS, &claims));
        other[i] = '\0';
        ck_assert_ptr_nonnull(check_at(other, NOW_MS, &claims));
        mem_free(other);
    }
}
END_TEST

#define TIMES ",\"iat\":1,\"exp\":9999999999}"
#define TAG64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

START_TEST(what_claims_may_be)
{
    static const char *const fine[] = {
        "{\"chn\":\"\"" TIMES,
        "{\"chn\":\"a\",\"tags\":[]" TIMES,
        "{\"chn\":\"a\",\"att\":null,\"rpc\":[],\"more\":{\"x\":1}" TIMES,
        "{\"chn\":1,\"chn\":\"a\"" TIMES,
        "{\"chn\":\"a\",\"tags\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\","
        "\"10\"]" TIMES,
        "{\"chn\":\"a\",\"tags\":[\"" TAG64 TAG64 TAG64 TAG64 "\"]" TIMES,
        "{\"chn\":\"a\",\"iat\":1700000000.25,\"exp\":1e12}",
        "{\"chn\":\"a\",\"nbf\":\"no matter\"" TIMES,
    };
    static const char *const wrong[] = {
        "{}",
        "{\"chn\":\"a\"}",
        "{\"chn\":\"a\",\"iat\":1}",
        "{\"chn\":\"a\",\"exp\":9999999999}",
        "{\"chn\":null" TIMES,
        "{\"chn\":7" TIMES,
        "{\"chn\":\"\\ud800\"" TIMES,
        "{\"chn\":\"a\",\"tags\":null" TIMES,
        "{\"chn\":\"a\",\"tags\":\"a\"" TIMES,
        "{\"chn\":\"a\",\"tags\":[1]" TIMES,
        "{\"chn\":\"a\",\"rpc\":null" TIMES,
        "{\"chn\":\"a\",\"rpc\":[null]" TIMES,
        "{\"chn\":\"a\",\"rpc\":{}" TIMES,
        "{\"chn\":\"a\",\"iat\":\"1\",\"exp\":9999999999}",
        "{\"chn\":\"a\",\"iat\":1,\"exp\":\"9999999999\"}",
        "{\"chn\":\"a\",\"iat\":1,\"exp\":1e999}",
        "{\"chn\":\"a\",\"iat\":1,\"exp\":null}",
        "{\"chn\":\"a\",\"iat\":1,\"exp\":9999999999",
        "{\"chn\":\"\xff\"" TIMES,
        "{\"chn\":\"a\",\"tags\":[\"" TAG64 TAG64 TAG64 TAG64 "a\"]" TIMES,
        "{\"chn\":\"a\",\"tags\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\","
        "\"11\"]" TIMES,
    };
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        ck_assert_msg(accepted(fine[i]), "%s", fine[i]);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ck_assert_msg(!accepted(wrong[i]), "%s", wrong[i]);
}
END_TEST

START_TEST(tags_same)
{
    static const struct {
        const char *before, *after;
        bool same;
    } cases[] = {{"", "", true},
                 {"", ",\"tags\":[]", false},
                 {",\"tags\":[\"a\",\"b\"]", ",\"tags\":[ \"a\", \"\\u0062\"]", true},
                 {",\"tags\":[\"a\",\"b\"]", ",\"tags\":[\"b\",\"a\"]", false},
                 {",\"tags\":[\"a\"]", ",\"tags\":[\"a\",\"b\"]", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct orpc_claims before, after;
        char json[128];
        snprintf(json, sizeof json, "{\"chn\":\"a\"%s" TIMES, cases[i].before);
        ck_assert_ptr_null(
            check_at(sign(json, sodium_base64_VARIANT_URLSAFE_NO_PADDING), NOW_MS, &before));
        snprintf(json, sizeof json, "{\"chn\":\"a\"%s" TIMES, cases[i].after);
        ck_assert_ptr_null(
            check_at(sign(json, sodium_base64_VARIANT_URLSAFE_NO_PADDING), NOW_MS, &after));
        ck_assert_int_eq(orpc_same_tags(&before, &after), cases[i].same);
        orpc_claims_free(&before);
        orpc_claims_free(&after);
    }
}
END_TEST

START_TEST(long_ones)
{
    struct orpc_claims claims;
    struct strbuf json = {0};
    strbuf_put_text(&json, "{\"chn\":\"a\",\"att\":\"");
    while (json.size < 1 << 20)
        strbuf_put_byte(&json, 'x');
    strbuf_put_text(&json, "\"" TIMES);
    ck_assert(!accepted(strbuf_cstr(&json)));
    strbuf_reset(&json);
    strbuf_put_text(&json, "eyJhbGciOiJIUzI1NiJ9.");
    while (json.size < 1 << 20)
        strbuf_put_byte(&json, 'x');
    ck_assert_ptr_nonnull(check_at(strbuf_cstr(&json), NOW_MS, &claims));
    strbuf_free(&json);
}
END_TEST

int main(void)
{
    TCase *cases = tcase_create("orpc_token");
    tcase_add_test(cases, golden);
    tcase_add_test(cases, identity);
    tcase_add_test(cases, expiry);
    tcase_add_test(cases, signature);
    tcase_add_test(cases, what_claims_may_be);
    tcase_add_test(cases, tags_same);
    tcase_add_test(cases, long_ones);
    Suite *suite = suite_create("orpc_token");
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    strbuf_free(&made);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
