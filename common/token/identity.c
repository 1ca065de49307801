/* CORE. See identity.h. One allocation: the struct, its lists, then the bytes of all texts. */
#include "common/token/identity.h"

#include <string.h>

#include "common/err.h"
#include "common/mem.h"

const char *right_name(enum right right)
{
    static const char *const names[RIGHTS_COUNT] = {[RIGHT_SUBSCRIBE] = "subscribe",
                                                    [RIGHT_PUBLISH] = "publish",
                                                    [RIGHT_SEND] = "send",
                                                    [RIGHT_CALL] = "call",
                                                    [RIGHT_MANAGE] = "manage"};
    STOA_ASSERT((unsigned)right < RIGHTS_COUNT);
    return names[right];
}

static struct slice text_take(uint8_t **at, struct slice from)
{
    if (!from.data)
        return from;
    if (from.size > 0)
        memcpy(*at, from.data, from.size);
    struct slice copy = slice_of(*at, from.size);
    *at += from.size;
    return copy;
}

static struct identity_names names_take(struct slice **list, uint8_t **at,
                                        struct identity_names from)
{
    struct identity_names copy = {*list, from.count};
    for (size_t i = 0; i < from.count; i++)
        *(*list)++ = text_take(at, from.at[i]);
    return copy;
}

static size_t names_bytes(struct identity_names names)
{
    size_t bytes = 0;
    for (size_t i = 0; i < names.count; i++)
        bytes += names.at[i].size;
    return bytes;
}

struct identity *identity_create(const struct identity *from)
{
    size_t lists = from->keys.count + from->prefixes.count + from->methods.count + from->tags.count;
    size_t bytes = names_bytes(from->keys) + names_bytes(from->prefixes) +
                   names_bytes(from->methods) + names_bytes(from->tags) + from->id.size +
                   from->subject.size + from->token_id.size + from->key_id.size +
                   from->attachment.size + from->claims.size;
    struct identity *who = mem_alloc(sizeof *who + lists * sizeof(struct slice) + bytes);
    struct slice *list = (struct slice *)(void *)(who + 1);
    uint8_t *at = (uint8_t *)(list + lists);
    *who = *from;
    who->refs = 1;
    who->keys = names_take(&list, &at, from->keys);
    who->prefixes = names_take(&list, &at, from->prefixes);
    who->methods = names_take(&list, &at, from->methods);
    who->tags = names_take(&list, &at, from->tags);
    who->id = text_take(&at, from->id);
    who->subject = text_take(&at, from->subject);
    who->token_id = text_take(&at, from->token_id);
    who->key_id = text_take(&at, from->key_id);
    who->attachment = text_take(&at, from->attachment);
    who->claims = text_take(&at, from->claims);
    return who;
}

struct identity *identity_ref(struct identity *who)
{
    if (who)
        who->refs++;
    return who;
}

void identity_unref(struct identity *who)
{
    STOA_ASSERT(!who || who->refs > 0);
    if (who && --who->refs == 0)
        mem_free(who);
}

bool identity_covers(const struct identity *who, struct slice key)
{
    if (!who)
        return true;
    for (size_t i = 0; i < who->keys.count; i++)
        if (slice_equal(who->keys.at[i], key))
            return true;
    for (size_t i = 0; i < who->prefixes.count; i++) {
        struct slice prefix = who->prefixes.at[i];
        if (prefix.size == 0 ||
            (key.size >= prefix.size && memcmp(key.data, prefix.data, prefix.size) == 0))
            return true;
    }
    return false;
}

bool identity_may(const struct identity *who, enum right right, struct slice key)
{
    return !who || ((who->rights & 1u << right) && identity_covers(who, key));
}

bool identity_may_call(const struct identity *who, struct slice key, struct slice method)
{
    if (identity_may(who, RIGHT_CALL, key))
        return true;
    if (!identity_covers(who, key))
        return false;
    for (size_t i = 0; i < who->methods.count; i++)
        if (slice_equal(who->methods.at[i], method))
            return true;
    return false;
}

bool identity_timely(const struct identity *who, int64_t wall_ms)
{
    return !who || (wall_ms >= who->not_before_ms && wall_ms < who->expires_ms);
}

static bool same_text(struct slice a, struct slice b)
{
    return (a.data != NULL) == (b.data != NULL) && slice_equal(a, b);
}

bool identity_same_person(const struct identity *before, const struct identity *after)
{
    if (!same_text(before->id, after->id) || before->tags.count != after->tags.count)
        return false;
    for (size_t i = 0; i < before->tags.count; i++)
        if (!slice_equal(before->tags.at[i], after->tags.at[i]))
            return false;
    return true;
}
