/* CORE. See token_cache.h: a map by the token's text, and a list in the order of use. */
#include "gateway/token_cache.h"

#include <string.h>

#include "common/err.h"
#include "common/list.h"
#include "common/map.h"
#include "common/mem.h"

struct entry {
    struct list used; /* in cache.used, the latest last */
    struct identity *who;
    size_t size;
    uint8_t token[];
};

struct token_cache {
    struct map *entries;
    struct list used;
    size_t max_entries, max_bytes, bytes;
};

struct token_cache *token_cache_create(uint64_t seed, size_t max_entries, size_t max_bytes)
{
    struct token_cache *c = mem_zalloc(sizeof *c);
    c->entries = map_create(seed);
    c->max_entries = max_entries;
    c->max_bytes = max_bytes;
    list_init(&c->used);
    return c;
}

static struct slice token_of(const struct entry *e)
{
    return slice_of(e->token, e->size);
}

/* What an entry costs at most: its text, and the identity, whose texts are copies of parts of it
 * and stand in the claims as well. */
static size_t cost(size_t token_size)
{
    return sizeof(struct entry) + sizeof(struct identity) + 3 * token_size;
}

static void forget_oldest(struct token_cache *c)
{
    struct entry *e = LIST_ENTRY(c->used.next, struct entry, used);
    list_remove(&e->used);
    (void)map_remove(c->entries, token_of(e));
    c->bytes -= cost(e->size);
    identity_unref(e->who);
    mem_free(e);
}

void token_cache_clear(struct token_cache *c)
{
    while (!list_empty(&c->used))
        forget_oldest(c);
    map_shrink(c->entries);
}

void token_cache_destroy(struct token_cache **c)
{
    if (!*c)
        return;
    token_cache_clear(*c);
    map_destroy(&(*c)->entries);
    mem_free(*c);
    *c = NULL;
}

struct identity *token_cache_get(struct token_cache *c, struct slice token)
{
    struct entry *e = map_get(c->entries, token);
    if (!e)
        return NULL;
    list_remove(&e->used);
    list_push_back(&c->used, &e->used);
    return e->who;
}

void token_cache_put(struct token_cache *c, struct slice token, struct identity *who)
{
    if (cost(token.size) > c->max_bytes || token.size == 0)
        return;
    while (map_count(c->entries) >= c->max_entries || c->bytes + cost(token.size) > c->max_bytes)
        forget_oldest(c);
    struct entry *e = mem_zalloc(sizeof *e + token.size);
    e->who = identity_ref(who);
    e->size = token.size;
    memcpy(e->token, token.data, token.size);
    list_init(&e->used);
    list_push_back(&c->used, &e->used);
    map_put(c->entries, token_of(e), e);
    c->bytes += cost(token.size);
}

size_t token_cache_count(const struct token_cache *c)
{
    return map_count(c->entries);
}
