/* CORE. The typed payload of typed.h. */
#include "proto/typed.h"

#include "proto/typed_meta.h"

static struct json_value *member_of(struct typed *t, struct slice name)
{
    if (slice_is(name, "json"))
        return &t->json;
    if (slice_is(name, "meta"))
        return &t->meta;
    if (slice_is(name, "retry"))
        return &t->retry;
    return slice_is(name, "comments") ? &t->comments : NULL;
}

static bool is_texts(struct json_value texts)
{
    if (texts.type != JSON_ARRAY)
        return false;
    struct json_iter it = json_members(texts.raw);
    while (json_next(&it))
        if (it.value.type != JSON_STRING)
            return false;
    return true;
}

const char *typed_check(struct slice payload)
{
    if (json_type_of(payload) != JSON_OBJECT || !json_valid(payload))
        return "a payload of the format orpc is a JSON object {\"json\", \"meta\"}";
    struct typed t = {0};
    struct json_iter it = json_members(payload);
    while (json_next(&it)) {
        struct json_value *member = member_of(&t, it.name);
        if (!member)
            return "a payload of the format orpc has the members json, meta, retry and comments, "
                   "and no others";
        if (member->type != JSON_NONE)
            return "a payload of the format orpc has each member once";
        *member = it.value;
    }
    uint64_t retry;
    enum typed_meta fits = t.meta.type != JSON_NONE ? typed_meta_check(t.json, t.meta) : META_FITS;
    if (fits == META_MALFORMED)
        return "meta is an array of [type, name or place ...], each type and place a number";
    if (fits == META_LEADS_NOWHERE)
        return "each entry of meta leads to a part of json: [type, name or place ...] from its "
               "root";
    if (t.retry.type != JSON_NONE && !json_u64(t.retry, &retry))
        return "retry is a number of milliseconds";
    if (t.comments.type != JSON_NONE && !is_texts(t.comments))
        return "comments are an array of strings";
    return NULL;
}

struct typed typed_read(struct slice payload)
{
    struct typed t = {0};
    struct json_iter it = json_members(payload);
    while (json_next(&it)) {
        struct json_value *member = member_of(&t, it.name);
        if (member)
            *member = it.value;
    }
    return t;
}

bool typed_value(struct slice payload, struct slice *value)
{
    struct json_value json;
    if (!json_find(payload, "json", &json))
        return false;
    *value = json.type != JSON_NONE ? json.raw : slice_text("null");
    return true;
}
