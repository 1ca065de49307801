/* CORE. See revoked_set.h: one map for each kind, and one list of all in the order in which they
 * leave. */
#include "gateway/revoked_set.h"

#include <string.h>

#include "common/err.h"
#include "common/json.h"
#include "common/limits.h"
#include "common/list.h"
#include "common/map.h"
#include "common/mem.h"

struct entry {
    struct list leaving; /* in set.leaving, by ends_ms as far as events come in the order of time */
    enum revoked_kind kind;
    int64_t before_ms, ends_ms;
    size_t size;
    uint8_t text[];
};

struct revoked_set {
    struct map *of[REVOKED_KINDS];
    struct list leaving;
    int64_t max_ttl_ms;
};

static const char *const kind_names[REVOKED_KINDS] = {
    [REVOKED_JTI] = "jti", [REVOKED_SUB] = "sub", [REVOKED_KEY] = "key", [REVOKED_KID] = "kid"};

/* ---- one revocation ---- */

const char *revocation_read(struct slice json, int64_t now_ms, struct strbuf *text,
                            struct revocation *out)
{
    static const char *const usage =
        "say what is revoked: {\"jti\":J}, or {\"sub\":S}, {\"key\":K} or {\"kid\":K} with "
        "\"before\":MS if not until now";
    unsigned kinds = 0;
    struct json_value found = {0};
    if (json_type_of(json) != JSON_OBJECT || !json_valid(json))
        return "the body is one JSON object";
    for (unsigned kind = 0; kind < REVOKED_KINDS; kind++) {
        struct json_value v = json_get(json, kind_names[kind]);
        if (v.type == JSON_NONE)
            continue;
        kinds++;
        found = v;
        out->kind = (enum revoked_kind)kind;
    }
    strbuf_reset(text);
    if (kinds != 1)
        return usage;
    if (!json_unescape(found, text) || text->size == 0 || text->size > REVOKED_TEXT_MAX_BYTES)
        return "jti, sub, key, kid: a string of 1 to 512 bytes";
    struct json_value before = json_get(json, "before");
    uint64_t ms = (uint64_t)now_ms;
    if (before.type != JSON_NONE && (out->kind == REVOKED_JTI || !json_u64(before, &ms)))
        return "before: milliseconds since 1970, and not with jti, which is revoked whenever it "
               "was issued";
    out->text = strbuf_slice(text);
    out->before_ms = (int64_t)ms;
    return NULL;
}

void revocation_put(struct strbuf *out, const struct revocation *r)
{
    strbuf_printf(out, "{\"%s\":", kind_names[r->kind]);
    json_quote(out, r->text);
    if (r->kind != REVOKED_JTI)
        strbuf_printf(out, ",\"before\":%lld", (long long)r->before_ms);
    strbuf_put_byte(out, '}');
}

/* ---- the set ---- */

struct revoked_set *revoked_set_create(uint64_t seed, int64_t max_ttl_ms)
{
    struct revoked_set *set = mem_zalloc(sizeof *set);
    for (unsigned kind = 0; kind < REVOKED_KINDS; kind++)
        set->of[kind] = map_create(seed + kind);
    list_init(&set->leaving);
    set->max_ttl_ms = max_ttl_ms;
    return set;
}

static void entry_drop(struct revoked_set *set, struct entry *e)
{
    list_remove(&e->leaving);
    (void)map_remove(set->of[e->kind], slice_of(e->text, e->size));
    mem_free(e);
}

void revoked_set_destroy(struct revoked_set **set_p)
{
    struct revoked_set *set = *set_p;
    if (!set)
        return;
    while (!list_empty(&set->leaving))
        entry_drop(set, LIST_ENTRY(set->leaving.next, struct entry, leaving));
    for (unsigned kind = 0; kind < REVOKED_KINDS; kind++)
        map_destroy(&set->of[kind]);
    mem_free(set);
    *set_p = NULL;
}

void revoked_set_retime(struct revoked_set *set, int64_t max_ttl_ms)
{
    set->max_ttl_ms = max_ttl_ms;
}

static struct entry *entry_create(struct revoked_set *set, const struct revocation *r)
{
    struct entry *e = mem_zalloc(sizeof *e + r->text.size);
    e->kind = r->kind;
    e->size = r->text.size;
    memcpy(e->text, r->text.data, r->text.size);
    list_init(&e->leaving);
    map_put(set->of[r->kind], slice_of(e->text, e->size), e);
    return e;
}

void revoked_set_add(struct revoked_set *set, const struct revocation *r, int64_t said_ms)
{
    struct entry *e = map_get(set->of[r->kind], r->text);
    if (!e)
        e = entry_create(set, r);
    int64_t ends_ms = said_ms + set->max_ttl_ms + TOKEN_CLOCK_MARGIN_MS;
    if (r->before_ms > e->before_ms)
        e->before_ms = r->before_ms;
    if (ends_ms > e->ends_ms)
        e->ends_ms = ends_ms;
    list_remove(&e->leaving);
    list_push_back(&set->leaving, &e->leaving);
}

void revoked_set_expire(struct revoked_set *set, int64_t wall_ms)
{
    while (!list_empty(&set->leaving)) {
        struct entry *e = LIST_ENTRY(set->leaving.next, struct entry, leaving);
        if (e->ends_ms > wall_ms)
            return;
        entry_drop(set, e);
    }
}

/* Whether tokens with this text that were issued then are revoked. */
static bool names(const struct revoked_set *set, enum revoked_kind kind, struct slice text,
                  int64_t issued_ms)
{
    const struct map *map = set->of[kind];
    if (!text.data || map_count(map) == 0)
        return false;
    const struct entry *e = map_get(map, text);
    return e && (kind == REVOKED_JTI || issued_ms == 0 || issued_ms <= e->before_ms);
}

bool revoked_set_has(const struct revoked_set *set, const struct identity *who)
{
    if (names(set, REVOKED_JTI, who->token_id, 0) ||
        names(set, REVOKED_SUB, who->subject, who->issued_ms) ||
        names(set, REVOKED_KID, who->key_id, who->issued_ms))
        return true;
    for (size_t i = 0; i < who->keys.count; i++)
        if (names(set, REVOKED_KEY, who->keys.at[i], who->issued_ms))
            return true;
    return false;
}

size_t revoked_set_count(const struct revoked_set *set)
{
    size_t count = 0;
    for (unsigned kind = 0; kind < REVOKED_KINDS; kind++)
        count += map_count(set->of[kind]);
    return count;
}
