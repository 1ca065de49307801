/* SHELL (makes keys). Keys, and tokens of any header and claims, for the tests of tokens. */
#ifndef STOA_TESTS_TOKEN_SAMPLES_H
#define STOA_TESTS_TOKEN_SAMPLES_H

#include "common/strbuf.h"

/* of RFC 7515, appendix A */
extern const char rfc_hs256[], rfc_rs256[], rfc_es256[], rfc_rs256_public[], rfc_es256_public[];
struct slice rfc_hs256_secret(void);

/* header.claims.signature, the signature an HMAC by `secret`. */
void sample_token(struct strbuf *out, const char *header, const char *claims, struct slice secret);
/* header.claims.signature, each part given. */
void sample_parts(struct strbuf *out, struct slice header, struct slice claims,
                  struct slice signature);

/* PEM of a new key, to be freed with mem_free; `kind`: "RSA" (of `bits`), or a curve, or "ED25519".
 */
struct sample_key {
    char *private_pem, *public_pem;
};
struct sample_key sample_key(const char *kind, unsigned bits);
void sample_key_free(struct sample_key *key);

#endif
