/* SHELL (makes keys). See token_samples.h. */
#include "token_samples.h"

#include <check.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sodium.h>

#include "common/mem.h"

#define RFC_CLAIMS                                                                             \
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0" \
    "cnVlfQ"

const char rfc_hs256[] = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." RFC_CLAIMS
                         ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const char rfc_rs256[] =
    "eyJhbGciOiJSUzI1NiJ9." RFC_CLAIMS
    ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5"
    "jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L"
    "07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUi"
    "pUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const char rfc_es256[] =
    "eyJhbGciOiJFUzI1NiJ9." RFC_CLAIMS
    ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const char rfc_rs256_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAofgWCuLjybRlzo0tZWJj\n"
                                "NiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEz\n"
                                "P1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo\n"
                                "9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTB\n"
                                "EMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxX\n"
                                "FvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp\n"
                                "oQIDAQAB\n-----END PUBLIC KEY-----\n";
const char rfc_es256_public[] = "-----BEGIN PUBLIC KEY-----\n"
                                "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n"
                                "6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n"
                                "-----END PUBLIC KEY-----\n";

struct slice rfc_hs256_secret(void)
{
    static const char text[] =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    static uint8_t secret[64];
    size_t size = 0;
    ck_assert_int_eq(sodium_base642bin(secret, sizeof secret, text, strlen(text), NULL, &size, NULL,
                                       sodium_base64_VARIANT_URLSAFE_NO_PADDING),
                     0);
    return slice_of(secret, size);
}

static void part_put(struct strbuf *out, struct slice bytes)
{
    size_t size = sodium_base64_encoded_len(bytes.size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_bin2base64((char *)strbuf_reserve(out, size), size, bytes.data, bytes.size,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    strbuf_commit(out, size - 1);
}

void sample_parts(struct strbuf *out, struct slice header, struct slice claims,
                  struct slice signature)
{
    part_put(out, header);
    strbuf_put_byte(out, '.');
    part_put(out, claims);
    strbuf_put_byte(out, '.');
    part_put(out, signature);
}

void sample_token(struct strbuf *out, const char *header, const char *claims, struct slice secret)
{
    uint8_t mac[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    strbuf_reset(out);
    part_put(out, slice_text(header));
    strbuf_put_byte(out, '.');
    part_put(out, slice_text(claims));
    crypto_auth_hmacsha256_init(&state, secret.data, secret.size);
    crypto_auth_hmacsha256_update(&state, out->data, out->size);
    crypto_auth_hmacsha256_final(&state, mac);
    strbuf_put_byte(out, '.');
    part_put(out, slice_of(mac, sizeof mac));
}

static char *bio_text(BIO *bio)
{
    char *at = NULL;
    long size = BIO_get_mem_data(bio, &at);
    char *text = mem_strndup(at, (size_t)size);
    BIO_free(bio);
    return text;
}

struct sample_key sample_key(const char *kind, unsigned bits)
{
    struct sample_key out;
    EVP_PKEY *key = strcmp(kind, "RSA") == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)bits)
                    : strcmp(kind, "ED25519") == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")
                                                   : EVP_PKEY_Q_keygen(NULL, NULL, "EC", kind);
    BIO *secret = BIO_new(BIO_s_mem()), *open = BIO_new(BIO_s_mem());
    ck_assert_ptr_nonnull(key);
    ck_assert_int_eq(PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL), 1);
    ck_assert_int_eq(PEM_write_bio_PUBKEY(open, key), 1);
    EVP_PKEY_free(key);
    out.private_pem = bio_text(secret);
    out.public_pem = bio_text(open);
    return out;
}

void sample_key_free(struct sample_key *key)
{
    mem_free(key->private_pem);
    mem_free(key->public_pem);
}
