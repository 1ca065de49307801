/* CORE. Keys of tokens: a secret's bytes, or PEM, to what libcjose signs and checks with. OpenSSL
 * reads the PEM (and that a point lies on its curve); a key of another kind, size or curve than its
 * algorithm wants is refused here. No message holds anything of a key. */
#include "common/token/jws_key.h"

#include <limits.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sodium.h>
#include <string.h>

#include "common/mem.h"

#define HS256_BYTES 32 /* of a signature, and of a secret that is worth it (RFC 7518, 3.2) */
#define RSA_MIN_BITS 2048
#define RSA_MAX_BITS 16384
#define P256_BYTES 32
#define NUMBERS_MAX 8

const char *token_algorithm_name(enum token_algorithm algorithm)
{
    static const char *const names[TOKEN_ALGORITHMS_COUNT] = {
        [TOKEN_HS256] = "HS256", [TOKEN_RS256] = "RS256", [TOKEN_ES256] = "ES256"};
    STOA_ASSERT((unsigned)algorithm < TOKEN_ALGORITHMS_COUNT);
    return names[algorithm];
}

const char *token_key_weakness(const struct token_key_source *key)
{
    if (key->algorithm == TOKEN_HS256 && key->material.size < HS256_BYTES)
        return "its secret is shorter than 32 bytes and might be guessed from one token; "
               "`openssl rand -base64 32` makes one";
    return NULL;
}

/* ---- numbers of a key ---- */

struct numbers { /* big-endian; wiped when freed */
    uint8_t *at[NUMBERS_MAX];
    size_t size[NUMBERS_MAX];
    size_t count;
};

/* `bytes` 0: as many as it takes. */
static bool number_take(const EVP_PKEY *key, const char *name, size_t bytes, struct numbers *out)
{
    BIGNUM *number = NULL;
    if (!EVP_PKEY_get_bn_param(key, name, &number))
        return false;
    size_t size = bytes > 0 ? bytes : (size_t)BN_num_bytes(number);
    uint8_t *at = mem_alloc(size);
    bool fits = BN_bn2binpad(number, at, (int)size) == (int)size;
    BN_clear_free(number);
    out->at[out->count] = at;
    out->size[out->count++] = size;
    return fits;
}

static void numbers_free(struct numbers *numbers)
{
    for (size_t i = 0; i < numbers->count; i++) {
        sodium_memzero(numbers->at[i], numbers->size[i]);
        mem_free(numbers->at[i]);
    }
}

static cjose_jwk_t *rsa_take(const EVP_PKEY *key, bool private_too)
{
    static const char *const names[NUMBERS_MAX] = {
        OSSL_PKEY_PARAM_RSA_E,         OSSL_PKEY_PARAM_RSA_N,
        OSSL_PKEY_PARAM_RSA_D,         OSSL_PKEY_PARAM_RSA_FACTOR1,
        OSSL_PKEY_PARAM_RSA_FACTOR2,   OSSL_PKEY_PARAM_RSA_EXPONENT1,
        OSSL_PKEY_PARAM_RSA_EXPONENT2, OSSL_PKEY_PARAM_RSA_COEFFICIENT1};
    struct numbers n = {0};
    bool fine = true;
    for (size_t i = 0; i < (private_too ? NUMBERS_MAX : 2) && fine; i++)
        fine = number_take(key, names[i], 0, &n);
    const cjose_jwk_rsa_keyspec spec = {.e = n.at[0],
                                        .elen = n.size[0],
                                        .n = n.at[1],
                                        .nlen = n.size[1],
                                        .d = n.at[2],
                                        .dlen = n.size[2],
                                        .p = n.at[3],
                                        .plen = n.size[3],
                                        .q = n.at[4],
                                        .qlen = n.size[4],
                                        .dp = n.at[5],
                                        .dplen = n.size[5],
                                        .dq = n.at[6],
                                        .dqlen = n.size[6],
                                        .qi = n.at[7],
                                        .qilen = n.size[7]};
    cjose_jwk_t *jwk = fine ? cjose_jwk_create_RSA_spec(&spec, NULL) : NULL;
    numbers_free(&n);
    return jwk;
}

static cjose_jwk_t *p256_take(const EVP_PKEY *key, bool private_too)
{
    struct numbers n = {0};
    bool fine = number_take(key, OSSL_PKEY_PARAM_EC_PUB_X, P256_BYTES, &n) &&
                number_take(key, OSSL_PKEY_PARAM_EC_PUB_Y, P256_BYTES, &n) &&
                (!private_too || number_take(key, OSSL_PKEY_PARAM_PRIV_KEY, P256_BYTES, &n));
    const cjose_jwk_ec_keyspec spec = {.crv = CJOSE_JWK_EC_P_256,
                                       .x = n.at[0],
                                       .xlen = n.size[0],
                                       .y = n.at[1],
                                       .ylen = n.size[1],
                                       .d = n.at[2],
                                       .dlen = n.size[2]};
    cjose_jwk_t *jwk = fine ? cjose_jwk_create_EC_spec(&spec, NULL) : NULL;
    numbers_free(&n);
    return jwk;
}

/* ---- PEM ---- */

/* A key behind a passphrase is no key: nobody is asked for it. */
static int passphrase_none(char *to, int size, int writing, void *ctx)
{
    (void)to, (void)size, (void)writing, (void)ctx;
    return -1;
}

static EVP_PKEY *pem_read(struct slice pem, bool private_half)
{
    BIO *bio = pem.size <= INT_MAX ? BIO_new_mem_buf(pem.data, (int)pem.size) : NULL;
    if (!bio)
        return NULL;
    EVP_PKEY *key = private_half ? PEM_read_bio_PrivateKey(bio, NULL, passphrase_none, NULL)
                                 : PEM_read_bio_PUBKEY(bio, NULL, passphrase_none, NULL);
    BIO_free(bio);
    return key;
}

/* NULL: it is of the kind and size that its algorithm wants. */
static const char *unfit(const EVP_PKEY *key, enum token_algorithm algorithm)
{
    char curve[32] = "";
    if (algorithm == TOKEN_RS256) {
        if (!EVP_PKEY_is_a(key, "RSA"))
            return "is no RSA key, as RS256 wants";
        if (EVP_PKEY_get_bits(key) < RSA_MIN_BITS)
            return "is an RSA key of less than 2048 bits: make a longer one";
        return EVP_PKEY_get_bits(key) <= RSA_MAX_BITS ? NULL
                                                      : "is an RSA key of more than 16384 bits";
    }
    bool is_p256 = EVP_PKEY_is_a(key, "EC") &&
                   EVP_PKEY_get_group_name(key, curve, sizeof curve, NULL) &&
                   strcmp(curve, SN_X9_62_prime256v1) == 0;
    return is_p256 ? NULL : "is no EC key on P-256, as ES256 wants";
}

static int pem_take(struct jws_key *key, struct slice pem, bool sign, struct strbuf *why)
{
    EVP_PKEY *read = pem_read(pem, true);
    const char *wrong = NULL;
    if (!read && !sign)
        read = pem_read(pem, false);
    if (!read)
        wrong = sign ? "is no private key: it must be PEM (-----BEGIN PRIVATE KEY-----) without a "
                       "passphrase"
                     : "is no key: it must be PEM (-----BEGIN PUBLIC KEY-----)";
    else
        wrong = unfit(read, key->algorithm);
    if (!wrong) {
        bool rsa = key->algorithm == TOKEN_RS256;
        key->signature_bytes = rsa ? (size_t)EVP_PKEY_get_size(read) : 2 * P256_BYTES;
        key->jwk = rsa ? rsa_take(read, sign) : p256_take(read, sign);
        if (!key->jwk)
            wrong = "is a key that cannot be used";
    }
    EVP_PKEY_free(read);
    ERR_clear_error();
    if (wrong)
        strbuf_put_text(why, wrong);
    return wrong ? ERR_INVALID : ERR_OK;
}

/* ---- the whole ---- */

static int secret_take(struct jws_key *key, struct slice secret, struct strbuf *why)
{
    key->signature_bytes = HS256_BYTES;
    if (secret.size > 0)
        key->jwk = cjose_jwk_create_oct_spec(secret.data, secret.size, NULL);
    if (!key->jwk)
        strbuf_put_text(why, "is empty; `openssl rand -base64 32` makes a secret");
    return key->jwk ? ERR_OK : ERR_INVALID;
}

int jws_key_create(const struct token_key_source *source, bool sign, struct jws_key **out,
                   struct strbuf *why)
{
    struct jws_key *key = mem_alloc(sizeof *key);
    *key = (struct jws_key){.kid = mem_strdup(source->kid ? source->kid : ""),
                            .algorithm = source->algorithm};
    int code = source->algorithm == TOKEN_HS256 ? secret_take(key, source->material, why)
                                                : pem_take(key, source->material, sign, why);
    if (code != ERR_OK)
        jws_key_destroy(&key);
    *out = key;
    return code;
}

void jws_key_destroy(struct jws_key **key)
{
    if (!*key)
        return;
    if ((*key)->jwk)
        cjose_jwk_release((*key)->jwk);
    mem_free((*key)->kid);
    mem_free(*key);
    *key = NULL;
}

const char *jws_key_id(const struct jws_key *key)
{
    return key->kid;
}

enum token_algorithm jws_key_algorithm(const struct jws_key *key)
{
    return key->algorithm;
}
