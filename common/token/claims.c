/* CORE. See claims.h. Every claim that Stoa knows is of its type and within its bounds, or the
 * token is refused: a right that is misspelt is better met at once than missed later. Claims that
 * it does not know are left alone. All texts are unescaped into one buffer that is large enough not
 * to move: they are never longer than the JSON that they stand in. */
#include "common/token/claims.h"

#include "common/json.h"
#include "common/limits.h"
#include "common/mem.h"
#include "common/token/instant.h"
#include "common/token/jws.h"
#include "common/utf8.h"

#define LIST_MAX 256
#define TAGS_MAX 10
#define TEXT_MAX_BYTES 256
#define CLOCK_SKEW_MS 60000 /* that the issuer's clock may be ahead */

struct reading {
    struct slice claims;
    struct strbuf text;
    struct slice keys[LIST_MAX], prefixes[LIST_MAX], methods[LIST_MAX], rights[RIGHTS_COUNT],
        tags[TAGS_MAX], audiences[LIST_MAX];
    struct identity who;
};

/* True when the claim is absent, or a text of 1 to TEXT_MAX_BYTES bytes. */
static bool text_read(struct reading *r, const char *claim, struct slice *out)
{
    struct json_value value = json_get(r->claims, claim);
    size_t before = r->text.size;
    if (value.type == JSON_NONE)
        return true;
    if (!json_unescape(value, &r->text))
        return false;
    *out = slice_of(r->text.data + before, r->text.size - before);
    return out->size > 0 && out->size <= TEXT_MAX_BYTES;
}

/* True when the claim is absent, or a list of texts; `or_one`: or one text. */
static bool names_read(struct reading *r, const char *claim, bool or_one, struct slice *at,
                       size_t most, struct identity_names *out)
{
    struct json_value value = json_get(r->claims, claim);
    *out = (struct identity_names){at, 0};
    if (value.type == JSON_NONE)
        return true;
    if (value.type != JSON_STRING || !or_one)
        return json_texts(value.raw, &r->text, at, most, &out->count);
    size_t before = r->text.size;
    if (!json_unescape(value, &r->text))
        return false;
    at[0] = slice_of(r->text.data + before, r->text.size - before);
    out->count = 1;
    return true;
}

static bool bounded(struct identity_names names)
{
    for (size_t i = 0; i < names.count; i++)
        if (names.at[i].size == 0 || names.at[i].size > TEXT_MAX_BYTES)
            return false;
    return true;
}

static const char *keys_read(struct reading *r)
{
    struct identity_names *keys = &r->who.keys, *prefixes = &r->who.prefixes;
    if (!names_read(r, "key", true, r->keys, LIST_MAX, keys))
        return "its key is no text and no list of at most 256 texts";
    if (!names_read(r, "prefix", true, r->prefixes, LIST_MAX, prefixes))
        return "its prefix is no text and no list of at most 256 texts";
    if (keys->count + prefixes->count == 0)
        return "it names neither key nor prefix, and opens nothing; prefix \"\" is every key";
    for (size_t i = 0; i < keys->count; i++)
        if (!key_valid(keys->at[i], false))
            return "its key holds what no key can be";
    for (size_t i = 0; i < prefixes->count; i++)
        if (prefixes->at[i].size > 0 && !key_valid(prefixes->at[i], false))
            return "its prefix holds what no key can begin with";
    return NULL;
}

static const char *rights_read(struct reading *r)
{
    static const char unknown[] =
        "its can is no list of subscribe, publish, send, call, manage, each once";
    struct identity_names rights;
    r->who.rights = 0;
    if (!names_read(r, "can", false, r->rights, RIGHTS_COUNT, &rights))
        return unknown;
    if (json_get(r->claims, "can").type == JSON_NONE)
        r->who.rights = 1u << RIGHT_SUBSCRIBE;
    for (size_t i = 0; i < rights.count; i++) {
        unsigned right = 0;
        while (right < RIGHTS_COUNT && !slice_is(rights.at[i], right_name((enum right)right)))
            right++;
        if (right == RIGHTS_COUNT || (r->who.rights & 1u << right))
            return unknown;
        r->who.rights |= 1u << right;
    }
    if (!names_read(r, "rpc", false, r->methods, LIST_MAX, &r->who.methods) ||
        !bounded(r->who.methods))
        return "its rpc is no list of at most 256 method names";
    return NULL;
}

static const char *person_read(struct reading *r)
{
    if (!text_read(r, "id", &r->who.id))
        return "its id is no text of 1 to 256 bytes";
    if (!text_read(r, "sub", &r->who.subject))
        return "its sub is no text of 1 to 256 bytes";
    if (!text_read(r, "jti", &r->who.token_id))
        return "its jti is no text of 1 to 256 bytes";
    if (!names_read(r, "tags", false, r->tags, TAGS_MAX, &r->who.tags) || !bounded(r->who.tags))
        return "its tags are no list of at most 10 texts of 1 to 256 bytes";
    struct json_value att = json_get(r->claims, "att");
    if (att.type != JSON_NONE)
        r->who.attachment = att.raw;
    return NULL;
}

/* True when the claim is absent (*ms stays), or a number. */
static bool time_read(struct reading *r, const char *claim, int64_t (*to_ms)(double), int64_t *ms)
{
    struct json_value value = json_get(r->claims, claim);
    double seconds;
    if (value.type == JSON_NONE)
        return true;
    if (!instant_read(value, &seconds))
        return false;
    *ms = to_ms(seconds);
    return true;
}

static const char *times_read(struct reading *r, int64_t max_ttl_ms, int64_t wall_ms)
{
    struct identity *who = &r->who;
    int64_t issued_ms = wall_ms;
    if (json_get(r->claims, "exp").type == JSON_NONE)
        return "it has no exp: tokens without an end are refused";
    if (!time_read(r, "exp", instant_ms_from, &who->expires_ms) ||
        !time_read(r, "nbf", instant_ms_from, &who->not_before_ms) ||
        !time_read(r, "iat", instant_ms, &issued_ms))
        return "its exp, nbf or iat is no number of seconds";
    if (json_get(r->claims, "iat").type != JSON_NONE)
        who->issued_ms = issued_ms > 0 ? issued_ms : 0;
    /* An `iat` of tomorrow would let it outlive what remembers that it was revoked. */
    int64_t from_ms = issued_ms < wall_ms + CLOCK_SKEW_MS ? issued_ms : wall_ms + CLOCK_SKEW_MS;
    if (who->expires_ms > from_ms && who->expires_ms - from_ms > max_ttl_ms)
        return "it lives longer than auth.max_ttl (exp and iat are seconds, not milliseconds)";
    return NULL;
}

static const char *origin_read(struct reading *r, const struct claims_rules *rules)
{
    struct identity_names issuer, audiences;
    if (rules->issuer) {
        if (!names_read(r, "iss", true, r->audiences, 1, &issuer) || issuer.count != 1 ||
            json_get(r->claims, "iss").type != JSON_STRING ||
            !slice_is(issuer.at[0], rules->issuer))
            return "its iss is not auth.iss";
    }
    if (!rules->audience)
        return NULL;
    if (names_read(r, "aud", true, r->audiences, LIST_MAX, &audiences))
        for (size_t i = 0; i < audiences.count; i++)
            if (slice_is(audiences.at[i], rules->audience))
                return NULL;
    return "auth.aud is not in its aud";
}

const char *claims_read(struct slice claims, struct slice key_id, const struct claims_rules *rules,
                        int64_t wall_ms, struct identity **out)
{
    if (!json_valid(claims) || json_type_of(claims) != JSON_OBJECT)
        return "its claims are no JSON object";
    if (!json_members_distinct(claims))
        return "its claims have a member twice, or too many";
    struct reading *r = mem_alloc(sizeof *r);
    r->claims = claims;
    r->text = (struct strbuf){0};
    r->who = (struct identity){.claims = claims, .key_id = key_id};
    strbuf_reserve(&r->text, claims.size + 8);
    const char *wrong = keys_read(r);
    if (!wrong)
        wrong = rights_read(r);
    if (!wrong)
        wrong = person_read(r);
    if (!wrong)
        wrong = times_read(r, rules->max_ttl_ms, wall_ms);
    if (!wrong)
        wrong = origin_read(r, rules);
    if (!wrong)
        *out = identity_create(&r->who);
    strbuf_free(&r->text);
    mem_free(r);
    return wrong;
}
