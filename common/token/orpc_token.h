/* CORE. The two kinds of tokens of oRPC's durable iterators: text in, claims out, identity from
 * them. E1 is a JWT (HS256, keyed by the signing key's bytes), E2 is `json.sig`: the claims as they
 * were written and HMAC-SHA256 over them; an E2 token begins with '{'. The key that a token opens
 * is the route's template applied to `chn`, so whoever knows the route builds it. */
#ifndef STOA_COMMON_TOKEN_ORPC_TOKEN_H
#define STOA_COMMON_TOKEN_ORPC_TOKEN_H

#include "common/strbuf.h"
#include "common/token/identity.h"

#define ORPC_TOKEN_MAX_BYTES 16384
#define ORPC_TAGS_MAX 10
#define ORPC_TAG_MAX_CHARACTERS 256 /* as JavaScript counts: UTF-16 units */
#define ORPC_METHODS_MAX 256

enum orpc_generation { ORPC_E1, ORPC_E2 };

struct orpc_claims { /* slices lie in text_ and live until orpc_claims_free */
    enum orpc_generation generation;
    struct slice chn;           /* unescaped; may be empty */
    bool has_tags;              /* E2: `tags` was there, though perhaps empty */
    struct slice tags_json;     /* as it was signed; data NULL: absent */
    struct identity_names tags; /* in its order */
    struct identity_names rpc;  /* method names; none when absent */
    struct slice att;           /* JSON as it was signed; data NULL: absent */
    struct slice json;          /* the object of claims as it was signed */
    double iat, exp;            /* seconds, as they were written */
    int64_t issued_ms;
    int64_t expires_ms;    /* the first millisecond at which it is over */
    int64_t not_before_ms; /* E1's `nbf`; 0: from ever */
    struct strbuf text_;
    struct slice names_[ORPC_TAGS_MAX + ORPC_METHODS_MAX];
};

/* NULL: the signature and the claims are good; free `out` with orpc_claims_free. Else what is
 * wrong, a constant without anything of the token, and nothing to free. */
const char *orpc_token_read(struct slice signing_key, struct slice token, struct orpc_claims *out);
/* The same, and the clock lets it in: what a server asks. */
const char *orpc_token_check(struct slice signing_key, struct slice token, int64_t wall_ms,
                             struct orpc_claims *out);
bool orpc_claims_timely(const struct orpc_claims *claims, int64_t wall_ms);
void orpc_claims_free(struct orpc_claims *claims);

/* What updateToken asks besides the same `chn`: the same tags, in the same order. */
bool orpc_same_tags(const struct orpc_claims *before, const struct orpc_claims *after);

/* A reference of the caller's: may subscribe to `key` alone, and call the methods of `rpc` there.
 * `id` is the query's; data NULL: none. */
struct identity *orpc_identity(const struct orpc_claims *claims, struct slice key, struct slice id);

#endif
