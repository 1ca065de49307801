/* CORE. See orpc_token.h. What a claim may be, and by how much of a second a token outlives its
 * `exp`, differs between the two kinds: E1 is over at `exp`, E2 after it. A claim that stands twice
 * counts as JavaScript reads it: the last one. */
#include "common/token/orpc_token.h"

#include <sodium.h>

#include "common/err.h"
#include "common/json.h"
#include "common/token/instant.h"
#include "common/token/jws.h"
#include "common/utf8.h"

#define HMAC_TEXT_MAX_BYTES 64

static const char wrong_signature[] = "its signature is not of this signing key";
static const char wrong_claims[] =
    "its claims are no JSON object with chn (text), rpc, iat and exp, as oRPC writes them";

/* ---- signatures ---- */

/* base64url, or base64, padded or not: as the original's decoder takes it. */
static bool signature_decode(struct slice text, uint8_t out[crypto_auth_hmacsha256_BYTES])
{
    char plain[HMAC_TEXT_MAX_BYTES];
    size_t size = 0;
    for (unsigned padding = 0; padding < 2 && text.size > 0; padding++)
        text.size -= text.data[text.size - 1] == '=';
    if (text.size > sizeof plain)
        return false;
    for (size_t i = 0; i < text.size; i++)
        plain[i] = text.data[i] == '+' ? '-' : text.data[i] == '/' ? '_' : (char)text.data[i];
    return sodium_base642bin(out, crypto_auth_hmacsha256_BYTES, plain, text.size, NULL, &size, NULL,
                             sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0 &&
           size == crypto_auth_hmacsha256_BYTES;
}

static const char *e2_open(struct slice signing_key, struct slice token, struct orpc_claims *out)
{
    uint8_t given[crypto_auth_hmacsha256_BYTES], made[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    size_t dot = token.size;
    while (dot > 0 && token.data[dot - 1] != '.')
        dot--;
    if (dot == 0 || !signature_decode(slice_of(token.data + dot, token.size - dot), given))
        return "it is no oRPC token: that is JSON, a dot, and 32 bytes in base64url";
    crypto_auth_hmacsha256_init(&state, signing_key.data, signing_key.size);
    crypto_auth_hmacsha256_update(&state, token.data, dot - 1);
    crypto_auth_hmacsha256_final(&state, made);
    sodium_memzero(&state, sizeof state);
    bool good = sodium_memcmp(given, made, sizeof made) == 0;
    sodium_memzero(made, sizeof made);
    if (!good)
        return wrong_signature;
    strbuf_reserve(&out->text_, 2 * token.size + 8); /* the claims, and their texts: it stays put */
    strbuf_put(&out->text_, token.data, dot - 1);
    return NULL;
}

static const char *e1_open(struct slice signing_key, struct slice token, struct orpc_claims *out)
{
    const struct token_key_source source = {.algorithm = TOKEN_HS256, .material = signing_key};
    struct jws_key *key = NULL;
    struct strbuf why = {0};
    struct jws jws;
    const char *wrong = jws_read(token, ORPC_TOKEN_MAX_BYTES, &jws);
    if (wrong)
        return wrong;
    bool good = jws_key_create(&source, false, &key, &why) == ERR_OK && jws_verify(key, &jws);
    if (good) {
        strbuf_reserve(&out->text_, 2 * token.size + 8);
        strbuf_put_slice(&out->text_, jws.payload);
    }
    jws_key_destroy(&key);
    jws_free(&jws);
    strbuf_free(&why);
    return good ? NULL : wrong_signature;
}

/* ---- claims ---- */

static size_t utf16_units(struct slice text)
{
    size_t units = 0;
    uint32_t code;
    while (text.size > 0) {
        size_t n = utf8_decode(text, &code);
        STOA_ASSERT(n > 0); /* of a JSON text that is valid */
        units += code > 0xffff ? 2 : 1;
        text = slice_of(text.data + n, text.size - n);
    }
    return units;
}

/* `most` names at most; what is absent are none. */
static bool names_read(struct orpc_claims *out, const char *claim, struct slice *at, size_t most,
                       struct identity_names *names)
{
    struct json_value value = json_get(out->json, claim);
    *names = (struct identity_names){at, 0};
    return value.type == JSON_NONE || json_texts(value.raw, &out->text_, at, most, &names->count);
}

static bool tags_read(struct orpc_claims *out)
{
    struct json_value value = json_get(out->json, "tags");
    out->has_tags = value.type != JSON_NONE;
    if (out->has_tags)
        out->tags_json = value.raw;
    if (!names_read(out, "tags", out->names_, ORPC_TAGS_MAX, &out->tags))
        return false;
    for (size_t i = 0; i < out->tags.count; i++)
        if (utf16_units(out->tags.at[i]) > ORPC_TAG_MAX_CHARACTERS)
            return false;
    return true;
}

static bool times_read(struct orpc_claims *out)
{
    struct json_value nbf = json_get(out->json, "nbf");
    double not_before = 0;
    bool fine = instant_read(json_get(out->json, "iat"), &out->iat) &&
                instant_read(json_get(out->json, "exp"), &out->exp);
    if (fine && out->generation == ORPC_E1 && nbf.type != JSON_NONE)
        fine = instant_read(nbf, &not_before);
    if (!fine)
        return false;
    out->issued_ms = instant_ms(out->iat);
    out->not_before_ms = instant_ms_from(not_before);
    out->expires_ms =
        out->generation == ORPC_E1 ? instant_ms_from(out->exp) : instant_ms(out->exp) + 1;
    return true;
}

static const char *claims_read(struct orpc_claims *out)
{
    out->json = strbuf_slice(&out->text_);
    if (!json_valid(out->json) || json_type_of(out->json) != JSON_OBJECT)
        return wrong_claims;
    size_t before = out->text_.size;
    if (!json_unescape(json_get(out->json, "chn"), &out->text_))
        return wrong_claims;
    out->chn = slice_of(out->text_.data + before, out->text_.size - before);
    if (!names_read(out, "rpc", out->names_ + ORPC_TAGS_MAX, ORPC_METHODS_MAX, &out->rpc))
        return wrong_claims;
    if (out->generation == ORPC_E1 && json_get(out->json, "rpc").type == JSON_NONE)
        return wrong_claims;
    if (out->generation == ORPC_E2 && !tags_read(out))
        return "its tags are not at most 10 texts of at most 256 characters";
    struct json_value att = json_get(out->json, "att");
    if (att.type != JSON_NONE)
        out->att = att.raw;
    return times_read(out) ? NULL : wrong_claims;
}

const char *orpc_token_read(struct slice signing_key, struct slice token, struct orpc_claims *out)
{
    *out = (struct orpc_claims){0};
    if (token.size > ORPC_TOKEN_MAX_BYTES)
        return "it is too long";
    out->generation = token.size > 0 && token.data[0] == '{' ? ORPC_E2 : ORPC_E1;
    const char *wrong = signing_key.size == 0        ? "there is no signing key"
                        : out->generation == ORPC_E2 ? e2_open(signing_key, token, out)
                                                     : e1_open(signing_key, token, out);
    if (!wrong)
        wrong = claims_read(out);
    if (wrong)
        orpc_claims_free(out);
    return wrong;
}

bool orpc_claims_timely(const struct orpc_claims *claims, int64_t wall_ms)
{
    return claims->not_before_ms <= wall_ms && wall_ms < claims->expires_ms;
}

const char *orpc_token_check(struct slice signing_key, struct slice token, int64_t wall_ms,
                             struct orpc_claims *out)
{
    const char *wrong = orpc_token_read(signing_key, token, out);
    if (wrong || orpc_claims_timely(out, wall_ms))
        return wrong;
    orpc_claims_free(out);
    return "it is not in force: it expired, or begins later";
}

void orpc_claims_free(struct orpc_claims *claims)
{
    strbuf_free(&claims->text_);
    *claims = (struct orpc_claims){0};
}

/* ---- who it is ---- */

bool orpc_same_tags(const struct orpc_claims *before, const struct orpc_claims *after)
{
    if (before->has_tags != after->has_tags || before->tags.count != after->tags.count)
        return false;
    for (size_t i = 0; i < before->tags.count; i++)
        if (!slice_equal(before->tags.at[i], after->tags.at[i]))
            return false;
    return true;
}

struct identity *orpc_identity(const struct orpc_claims *claims, struct slice key, struct slice id)
{
    const struct identity who = {.rights = 1u << RIGHT_SUBSCRIBE,
                                 .expires_ms = claims->expires_ms,
                                 .not_before_ms = claims->not_before_ms,
                                 .issued_ms = claims->issued_ms,
                                 .keys = {&key, 1},
                                 .methods = claims->rpc,
                                 .tags = claims->tags,
                                 .id = id,
                                 .attachment = claims->att,
                                 .claims = claims->json};
    return identity_create(&who);
}
