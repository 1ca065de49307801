/* CORE. See jws.h. A header is looked at by the scanner of json.h, so that both readers of it (we,
 * and libcjose by jansson) see the same algorithm: what they could see differently is refused. */
#include "common/token/jws.h"

#include <cjose/header.h>
#include <cjose/jws.h>
#include <openssl/err.h>
#include <sodium.h>
#include <stdlib.h>

#include "common/json.h"
#include "common/limits.h"
#include "common/token/jws_key.h"
#include "common/utf8.h"

#define SIGNATURE_MAX_BYTES 2048 /* RSA of 16,384 bits */

static const char not_compact[] =
    "it is no JWT: that has three parts of base64url, joined by two dots";
static const char no_header[] = "its header is no JSON object with an alg";

/* ---- reading ---- */

bool json_members_distinct(struct slice object)
{
    struct strbuf text = {0};
    size_t end[JWS_MEMBERS_MAX + 1] = {0}, count = 0;
    struct json_iter it = json_members(object);
    bool distinct = true;
    strbuf_reserve(&text, object.size); /* a name may be empty, and a slice of it is none then */
    while (distinct && json_next(&it)) {
        struct json_value name = {JSON_STRING, slice_of(it.name.data - 1, it.name.size + 2)};
        distinct = count < JWS_MEMBERS_MAX && json_unescape(name, &text);
        if (!distinct)
            break;
        struct slice fresh = slice_of(text.data + end[count], text.size - end[count]);
        for (size_t i = 0; i < count && distinct; i++)
            distinct = !slice_equal(fresh, slice_of(text.data + end[i], end[i + 1] - end[i]));
        end[++count] = text.size;
    }
    strbuf_free(&text);
    return distinct;
}

/* Appends the bytes; nothing but the alphabet of base64url, no padding, no bits left over. */
static bool part_decode(struct slice part, struct strbuf *out)
{
    size_t size = 0;
    uint8_t *at = strbuf_reserve(out, part.size);
    if (part.size == 0 || sodium_base642bin(at, part.size, (const char *)part.data, part.size, NULL,
                                            &size, NULL, sodium_base64_VARIANT_URLSAFE_NO_PADDING))
        return false;
    strbuf_commit(out, size);
    return true;
}

/* The first part of `rest`, which begins behind its dot then. */
static struct slice part_take(struct slice *rest)
{
    const uint8_t *dot = rest->size > 0 ? memchr(rest->data, '.', rest->size) : NULL;
    size_t size = dot ? (size_t)(dot - rest->data) : rest->size;
    struct slice part = slice_of(rest->data, size);
    *rest = slice_of(rest->data + size + (dot != NULL), rest->size - size - (dot != NULL));
    return part;
}

static bool algorithm_named(struct slice name, enum token_algorithm *out)
{
    for (unsigned i = 0; i < TOKEN_ALGORITHMS_COUNT; i++) {
        *out = (enum token_algorithm)i;
        if (slice_is(name, token_algorithm_name(*out)))
            return true;
    }
    return false;
}

static const char *header_read(struct slice header, struct jws *out)
{
    struct strbuf text = {0};
    const char *wrong = NULL;
    if (!json_valid(header) || json_type_of(header) != JSON_OBJECT)
        return no_header;
    if (!json_members_distinct(header))
        return "its header has a member twice, or too many";
    struct json_value kid = json_get(header, "kid");
    if (!json_unescape(json_get(header, "alg"), &text))
        wrong = no_header;
    else if (!algorithm_named(strbuf_slice(&text), &out->algorithm))
        wrong = "its algorithm is none of HS256, RS256, ES256";
    else if (json_get(header, "crit").type != JSON_NONE)
        wrong = "its header says crit: an extension that must be understood, and is not";
    strbuf_free(&text);
    if (wrong || kid.type == JSON_NONE)
        return wrong;
    size_t before = out->text_.size; /* which has room enough not to move */
    if (!json_unescape(kid, &out->text_))
        return "the kid of its header is no text";
    out->kid = slice_of(out->text_.data + before, out->text_.size - before);
    return NULL;
}

const char *jws_read(struct slice token, size_t most_bytes, struct jws *out)
{
    if (token.size > most_bytes)
        return "it is too long";
    if (token.size == 0 || token.data[token.size - 1] == '.')
        return not_compact;
    struct slice rest = token, parts[3];
    struct strbuf header = {0};
    *out = (struct jws){.token = token};
    for (size_t i = 0; i < 3; i++)
        parts[i] = part_take(&rest);
    if (rest.size > 0)
        return not_compact;
    strbuf_reserve(&out->text_, token.size + 8); /* payload and kid: less than the token */
    const char *wrong = not_compact;
    if (part_decode(parts[1], &out->text_) && part_decode(parts[0], &header)) {
        out->payload = strbuf_slice(&out->text_);
        wrong = header_read(strbuf_slice(&header), out);
    }
    strbuf_free(&header);
    if (wrong)
        jws_free(out);
    return wrong;
}

void jws_free(struct jws *jws)
{
    strbuf_free(&jws->text_);
    *jws = (struct jws){0};
}

/* ---- signatures ---- */

/* Whether the last part decodes to as many bytes as the key's signatures have. */
static bool signature_sized(const struct jws_key *key, struct slice token)
{
    uint8_t signature[SIGNATURE_MAX_BYTES];
    size_t begin = token.size, size = 0;
    while (begin > 0 && token.data[begin - 1] != '.')
        begin--;
    return sodium_base642bin(signature, sizeof signature, (const char *)token.data + begin,
                             token.size - begin, NULL, &size, NULL,
                             sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0 &&
           size == key->signature_bytes;
}

bool jws_verify(const struct jws_key *key, const struct jws *jws)
{
    if (jws->algorithm != key->algorithm || !signature_sized(key, jws->token))
        return false;
    cjose_jws_t *read = cjose_jws_import((const char *)jws->token.data, jws->token.size, NULL);
    bool good = read && cjose_jws_verify(read, key->jwk, NULL);
    if (read)
        cjose_jws_release(read);
    if (!good)
        ERR_clear_error(); /* or TLS of this thread takes it for its own */
    return good;
}

int jws_sign(const struct jws_key *key, struct slice payload, struct strbuf *out)
{
    const char *text = NULL;
    cjose_header_t *header = cjose_header_new(NULL);
    bool fine =
        header &&
        cjose_header_set(header, CJOSE_HDR_ALG, token_algorithm_name(key->algorithm), NULL) &&
        cjose_header_set(header, "typ", "JWT", NULL) &&
        (*key->kid == '\0' || cjose_header_set(header, CJOSE_HDR_KID, key->kid, NULL));
    cjose_jws_t *made =
        fine ? cjose_jws_sign(key->jwk, header, payload.data, payload.size, NULL) : NULL;
    fine = made && cjose_jws_export(made, &text, NULL);
    if (fine)
        strbuf_put_text(out, text);
    if (made)
        cjose_jws_release(made);
    if (header)
        cjose_header_release(header);
    ERR_clear_error();
    return fine ? ERR_OK : ERR_INVALID;
}
