/* CORE. oRPC's tokens of arbitrary bytes, and arbitrary claims under a good signature of the second
 * kind. Whatever is let in keeps its bounds, and its identity opens one key alone. */
#include <sodium.h>

#include "common/err.h"
#include "common/json.h"
#include "common/token/orpc_token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_MS INT64_C(1700000000000)

static const uint8_t key[crypto_auth_hmacsha256_KEYBYTES] = "secret";
static struct strbuf token;

static bool accepted(struct slice text)
{
    struct orpc_claims claims;
    const struct slice room = slice_text("room");
    if (orpc_token_check(slice_of(key, sizeof key), text, NOW_MS, &claims) != NULL)
        return false;
    STOA_ASSERT(json_valid(claims.json) && claims.json.data[0] == '{');
    STOA_ASSERT(claims.tags.count <= ORPC_TAGS_MAX && claims.rpc.count <= ORPC_METHODS_MAX);
    STOA_ASSERT(claims.has_tags || claims.tags.count == 0);
    STOA_ASSERT(NOW_MS < claims.expires_ms && claims.not_before_ms <= NOW_MS);
    STOA_ASSERT(orpc_same_tags(&claims, &claims));
    struct identity *who = orpc_identity(&claims, room, slice_text("id"));
    STOA_ASSERT(identity_may(who, RIGHT_SUBSCRIBE, room) && identity_timely(who, NOW_MS));
    STOA_ASSERT(!identity_may(who, RIGHT_PUBLISH, room) && !identity_covers(who, slice_text("x")));
    for (size_t i = 0; i < claims.rpc.count; i++)
        STOA_ASSERT(identity_may_call(who, room, claims.rpc.at[i]));
    identity_unref(who);
    orpc_claims_free(&claims);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    char text[64];
    STOA_ASSERT(!accepted(slice_of(data, size)));
    if (size == 0 || data[0] != '{')
        return 0;
    crypto_auth_hmacsha256(mac, data, size, key);
    sodium_bin2base64(text, sizeof text, mac, sizeof mac, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    strbuf_reset(&token);
    strbuf_put(&token, data, size);
    strbuf_printf(&token, ".%s", text);
    if (accepted(strbuf_slice(&token))) {
        token.data[0] ^= 1;
        STOA_ASSERT(!accepted(strbuf_slice(&token)));
    }
    return 0;
}
