/* CORE. What a key is inside, for jws.c and jws_key.c alone. */
#ifndef STOA_COMMON_TOKEN_JWS_KEY_H
#define STOA_COMMON_TOKEN_JWS_KEY_H

#include <cjose/jwk.h>

#include "common/token/jws.h"

struct jws_key {
    char *kid; /* "": none */
    enum token_algorithm algorithm;
    size_t signature_bytes;
    cjose_jwk_t *jwk;
};

#endif
