/* CORE. JSON Web Tokens: text in, identity out. The keys decide how a token is checked, never the
 * token: its `kid` selects a key, its `alg` must be that key's, and what names no key is tried with
 * every key of its algorithm, as a key without a `kid` is with every token of its own. What is
 * wrong with a token is not told apart for whoever sent it.
 *
 * Checked here: size, form, signature, claims that are ill-typed or missing, `iss` and `aud`, and
 * that `exp` lies no further ahead of `iat` (without it: of now) than max_ttl. Not checked: whether
 * the clock lets it in, and whether it was revoked; that changes while a token is held.
 *
 * from_config.h (library target stoa_token_config) makes a checker from a `struct config`:
 * token_checker_from_config, token_config_warnings. */
#ifndef STOA_COMMON_TOKEN_TOKEN_H
#define STOA_COMMON_TOKEN_TOKEN_H

#include "common/err.h"
#include "common/strbuf.h"
#include "common/token/identity.h"

#define TOKEN_MAX_BYTES 8192

enum token_algorithm { TOKEN_HS256, TOKEN_RS256, TOKEN_ES256 };
#define TOKEN_ALGORITHMS_COUNT (TOKEN_ES256 + 1)
const char *token_algorithm_name(enum token_algorithm algorithm); /* "HS256" */

struct token_key_source { /* borrowed for the call */
    const char *kid;      /* NULL or "": none */
    enum token_algorithm algorithm;
    struct slice material; /* HS256: the secret's bytes; else PEM, of a public or a private key */
};

struct token_options { /* borrowed for the call */
    const struct token_key_source *keys;
    size_t n_keys;
    const char *issuer;   /* NULL: any, or none */
    const char *audience; /* NULL: any, or none */
    int64_t max_ttl_ms;
};

struct token_checker; /* keys, parsed */
/* ERR_INVALID: `why` says which key is no key, and of what length or kind it has to be. */
MUST_USE int token_checker_create(const struct token_options *options, struct token_checker **out,
                                  struct strbuf *why);
void token_checker_destroy(struct token_checker **checker);
/* NULL and *out, a reference of the caller's: the signature is good. Else what is wrong, for a log
 * or for `stoa token check`, a constant without anything of the token. */
const char *token_check(const struct token_checker *checker, struct slice token, int64_t wall_ms,
                        struct identity **out);

/* NULL, or why whoever holds one of its tokens might find this key; for a warning. */
const char *token_key_weakness(const struct token_key_source *key);

/* Appends a token of these claims (a JSON object), signed by this key. ERR_INVALID with why. */
MUST_USE int token_sign(const struct token_key_source *key, struct slice claims, struct strbuf *out,
                        struct strbuf *why);

#endif
