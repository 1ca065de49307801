/* SHELL (pure, but config.h is a shell header). CURVE keys in a configuration: 32 bytes as 40
 * characters of Z85 (ZeroMQ's RFC 32). One key pair is enough for a cluster: the public key follows
 * from the secret one, and listeners have our own key unless another is named. Filled in here, so
 * that the links, libstoa and `stoa config show` agree. No message holds a key. */
#include <sodium.h>
#include <string.h>

#include "common/config_internal.h"
#include "common/mem.h"

_Static_assert(CURVE_KEY_BYTES == crypto_scalarmult_SCALARBYTES, "CURVE is Curve25519");
_Static_assert(CURVE_KEY_BYTES == crypto_scalarmult_BYTES, "CURVE is Curve25519");

static const char z85[] =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/* Five characters are four bytes. False: not Z85. */
static bool group_decode(const char *text, uint8_t out[4])
{
    uint64_t value = 0;
    for (size_t i = 0; i < 5; i++) {
        const char *at = memchr(z85, text[i], sizeof z85 - 1);
        if (!at)
            return false;
        value = value * 85 + (uint64_t)(at - z85);
    }
    for (size_t i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (24 - 8 * i));
    return value <= UINT32_MAX;
}

static void group_encode(const uint8_t bytes[4], char out[5])
{
    uint32_t value = 0;
    for (size_t i = 0; i < 4; i++)
        value = value << 8 | bytes[i];
    for (size_t i = 5; i-- > 0; value /= 85)
        out[i] = z85[value % 85];
}

static bool key_decode(const char *text, uint8_t out[CURVE_KEY_BYTES])
{
    for (size_t i = 0; i < CURVE_KEY_BYTES / 4; i++)
        if (!group_decode(text + 5 * i, out + 4 * i))
            return false;
    return true;
}

bool config_key_check(const char *text, struct strbuf *why)
{
    uint8_t key[CURVE_KEY_BYTES];
    size_t size = strlen(text);
    bool valid = size == CURVE_KEY_TEXT_BYTES && key_decode(text, key);
    sodium_memzero(key, sizeof key);
    if (valid)
        return true;
    strbuf_put_text(why, "is not a CURVE key: ");
    if (size != CURVE_KEY_TEXT_BYTES)
        strbuf_printf(why, "%zu characters where a key has %d", size, CURVE_KEY_TEXT_BYTES);
    else
        strbuf_printf(why, "%d characters, but not Z85", CURVE_KEY_TEXT_BYTES);
    strbuf_put_text(why, "; stoa keygen makes keys");
    return false;
}

static void public_of(const char *secret, char out[CURVE_KEY_TEXT_BYTES + 1])
{
    uint8_t secret_key[CURVE_KEY_BYTES], public_key[CURVE_KEY_BYTES];
    bool valid = key_decode(secret, secret_key); /* as when the field was set */
    STOA_ASSERT(valid && crypto_scalarmult_base(public_key, secret_key) == 0);
    for (size_t i = 0; i < CURVE_KEY_BYTES / 4; i++)
        group_encode(public_key + 4 * i, out + 5 * i);
    out[CURVE_KEY_TEXT_BYTES] = '\0';
    sodium_memzero(secret_key, sizeof secret_key);
}

void config_keys_complete(struct config *c, struct strbuf *why)
{
    char public_key[CURVE_KEY_TEXT_BYTES + 1];
    if (!c->cluster.curve.secret_key) {
        bool curve = c->cluster.curve.public_key || c->cluster.curve.server_key ||
                     c->cluster.curve.allowed.count > 0;
        if (curve || c->cluster.n_peers > 0)
            config_problem(why, "configuration", curve ? "cluster.curve" : "cluster.peers",
                           "has keys, but none of this process: give %ssecret_file (stoa keygen "
                           "makes one)",
                           curve ? "" : "cluster.curve.");
        return;
    }
    public_of(c->cluster.curve.secret_key, public_key);
    if (!c->cluster.curve.public_key) {
        c->cluster.curve.public_key = mem_strdup(public_key);
        config_note_origin(c, "cluster.curve.public", "cluster.curve.secret");
    } else if (strcmp(c->cluster.curve.public_key, public_key) != 0) {
        config_problem(
            why, config_origin(c, "cluster.curve.public"), "cluster.curve.public",
            "is not the public key of cluster.curve.secret; leave it out, it is derived");
    }
    if (!c->cluster.curve.server_key) {
        c->cluster.curve.server_key = mem_strdup(public_key);
        config_note_origin(c, "cluster.curve.server", "cluster.curve.secret");
    }
}
