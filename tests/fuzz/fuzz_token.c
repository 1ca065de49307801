/* CORE. Tokens of arbitrary bytes, and of arbitrary headers and claims under a good signature, so
 * that the fuzzer comes past it. Whatever is let in keeps the bounds of its claims and says what it
 * was signed to say; without a signature nothing is. */
#include <sodium.h>

#include "common/json.h"
#include "common/limits.h"
#include "common/token/jws.h"
#include "common/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SECRET "0123456789abcdef0123456789abcdef"
#define NOW_MS INT64_C(1700000000000)
#define TTL_MS INT64_C(604800000)

static struct token_checker *checker;
static struct strbuf token;

static void set_up(void)
{
    static const char public_key[] =
        "-----BEGIN PUBLIC KEY-----\n"
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n"
        "6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"
        "-----END PUBLIC KEY-----\n";
    const struct token_key_source keys[] = {{"hs", TOKEN_HS256, slice_text(SECRET)},
                                            {"es", TOKEN_ES256, slice_text(public_key)}};
    const struct token_options options = {keys, 2, NULL, NULL, TTL_MS};
    struct strbuf why = {0};
    STOA_ASSERT(token_checker_create(&options, &checker, &why) == ERR_OK);
}

static void bounded(struct identity_names names, size_t most, size_t shortest)
{
    STOA_ASSERT(names.count <= most);
    for (size_t i = 0; i < names.count; i++)
        STOA_ASSERT(names.at[i].size >= shortest && names.at[i].size <= KEY_MAX_BYTES);
}

static void let_in(const struct identity *who)
{
    STOA_ASSERT(who->keys.count + who->prefixes.count > 0);
    STOA_ASSERT(who->rights < 1u << RIGHTS_COUNT && slice_is(who->key_id, "hs"));
    STOA_ASSERT(who->expires_ms <= NOW_MS + 60000 + TTL_MS);
    bounded(who->keys, 256, 1);
    bounded(who->prefixes, 256, 0);
    bounded(who->methods, 256, 1);
    bounded(who->tags, 10, 1);
    for (size_t i = 0; i < who->keys.count; i++)
        STOA_ASSERT(key_valid(who->keys.at[i], false) && identity_covers(who, who->keys.at[i]));
    STOA_ASSERT(json_valid(who->claims));
    STOA_ASSERT(!who->attachment.data || json_valid(who->attachment));
}

static bool accepted(struct slice text)
{
    struct identity *who = NULL;
    const char *wrong = token_check(checker, text, NOW_MS, &who);
    STOA_ASSERT(!wrong == (who != NULL));
    if (who)
        let_in(who);
    identity_unref(who);
    return wrong == NULL;
}

static void part_put(struct slice bytes)
{
    size_t size = sodium_base64_encoded_len(bytes.size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_bin2base64((char *)strbuf_reserve(&token, size), size, bytes.data, bytes.size,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    strbuf_commit(&token, size - 1);
}

static void sign(struct slice header, struct slice claims)
{
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    strbuf_reset(&token);
    part_put(header);
    strbuf_put_byte(&token, '.');
    part_put(claims);
    crypto_auth_hmacsha256(mac, token.data, token.size, (const uint8_t *)SECRET);
    strbuf_put_byte(&token, '.');
    part_put(slice_of(mac, sizeof mac));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!checker)
        set_up();
    const uint8_t *line = size > 0 ? memchr(data, '\n', size) : NULL;
    if (!line) {
        STOA_ASSERT(!accepted(slice_of(data, size)));
        return 0;
    }
    /* a line of the header, then the claims */
    sign(slice_of(data, (size_t)(line - data)),
         slice_of(line + 1, size - (size_t)(line + 1 - data)));
    if (!accepted(strbuf_slice(&token)))
        return 0;
    token.data[token.size - 2] ^= 1; /* of the signature */
    STOA_ASSERT(!accepted(strbuf_slice(&token)));
    return 0;
}
