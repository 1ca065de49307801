/* CORE. Signed texts in compact form (RFC 7515), by libcjose: header.payload.signature, each part
 * in base64url. libcjose checks and makes signatures; what it leaves to its caller is decided here,
 * before it sees a token: strict base64url (one text for one meaning), no member of a header twice,
 * no `crit`, an algorithm that is the key's, a signature of the length that the key makes. */
#ifndef STOA_COMMON_TOKEN_JWS_H
#define STOA_COMMON_TOKEN_JWS_H

#include "common/token/token.h"

#define JWS_MEMBERS_MAX 256 /* of a header, or of a token's claims */

struct jws {              /* one that was read; nothing of it is believed yet */
    struct slice token;   /* borrowed */
    struct slice payload; /* decoded, in text_ */
    struct slice kid;     /* data NULL: none */
    enum token_algorithm algorithm;
    struct strbuf text_;
};

/* NULL: it has the form. Else what is wrong, a constant, and nothing to free. */
const char *jws_read(struct slice token, size_t most_bytes, struct jws *out);
void jws_free(struct jws *jws);

struct jws_key;
/* `sign`: with its private half, else with its public half alone, whichever the PEM holds. */
MUST_USE int jws_key_create(const struct token_key_source *source, bool sign, struct jws_key **out,
                            struct strbuf *why);
void jws_key_destroy(struct jws_key **key);
const char *jws_key_id(const struct jws_key *key); /* "": none */
enum token_algorithm jws_key_algorithm(const struct jws_key *key);
/* Whether this key made it. */
bool jws_verify(const struct jws_key *key, const struct jws *jws);
/* Appends payload, signed. */
MUST_USE int jws_sign(const struct jws_key *key, struct slice payload, struct strbuf *out);

/* Whether no two members of this object have one name, and they are not too many. */
bool json_members_distinct(struct slice object);

#endif
