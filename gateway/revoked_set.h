/* CORE. What was revoked: the events of the key $stoa:revoked as a set in memory, asked for every
 * identity that wants in. An event is one JSON object:
 *
 *   {"jti":J}               the token of this `jti`
 *   {"sub":S,"before":MS}   tokens of this `sub` that were issued at or before that time
 *   {"key":K,"before":MS}   the same for tokens that name this key in `key`
 *   {"kid":K,"before":MS}   the same for tokens that this key of auth.keys signed
 *
 * A token without `iat` counts as issued before any time. An entry leaves when no token that it is
 * about can still be in force: auth.max_ttl after it was said, and a margin for clocks that differ.
 */
#ifndef STOA_GATEWAY_REVOKED_SET_H
#define STOA_GATEWAY_REVOKED_SET_H

#include "common/strbuf.h"
#include "common/token/identity.h"

#define REVOKED_TEXT_MAX_BYTES 512

enum revoked_kind { REVOKED_JTI, REVOKED_SUB, REVOKED_KEY, REVOKED_KID };
#define REVOKED_KINDS (REVOKED_KID + 1)

struct revocation {
    enum revoked_kind kind;
    struct slice text;
    int64_t before_ms;
};

/* Reads an event, or what a client asks for. `now_ms` stands for a `before` that is not said; the
 * text is put into `text`. NULL: fine, else what is wrong with it. */
const char *revocation_read(struct slice json, int64_t now_ms, struct strbuf *text,
                            struct revocation *out);
void revocation_put(struct strbuf *out, const struct revocation *r); /* as an event */

struct revoked_set;

struct revoked_set *revoked_set_create(uint64_t seed, int64_t max_ttl_ms);
void revoked_set_destroy(struct revoked_set **set);
void revoked_set_retime(struct revoked_set *set, int64_t max_ttl_ms); /* of what is added later */
/* `said_ms`: the event's timestamp. */
void revoked_set_add(struct revoked_set *set, const struct revocation *r, int64_t said_ms);
void revoked_set_expire(struct revoked_set *set, int64_t wall_ms);
bool revoked_set_has(const struct revoked_set *set, const struct identity *who);
size_t revoked_set_count(const struct revoked_set *set);

#endif
