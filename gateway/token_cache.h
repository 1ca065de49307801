/* CORE. Tokens whose signature was found good lately, and what they say: from the text of a token
 * to its identity. It holds the signature's result and no verdict, so whoever finds an identity
 * here still asks the clock and the revocations. Bounded in entries and bytes; who was not asked
 * for longest leaves first. */
#ifndef STOA_GATEWAY_TOKEN_CACHE_H
#define STOA_GATEWAY_TOKEN_CACHE_H

#include "common/token/identity.h"

struct token_cache;

struct token_cache *token_cache_create(uint64_t seed, size_t max_entries, size_t max_bytes);
void token_cache_destroy(struct token_cache **c);
struct identity *token_cache_get(struct token_cache *c, struct slice token); /* borrowed, or NULL */
/* The token must not be in it. Keeps a reference of its own. */
void token_cache_put(struct token_cache *c, struct slice token, struct identity *who);
void token_cache_clear(struct token_cache *c);
size_t token_cache_count(const struct token_cache *c);

#endif
