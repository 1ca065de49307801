/* SHELL. What a token costs that no gateway has seen yet: bench_tokens [SECONDS]. One line an
 * algorithm: the median of rounds of a hundred checks each, all on one core. */
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/mem.h"
#include "common/token/orpc_token.h"
#include "common/token/token.h"

#define SECRET "0123456789abcdef0123456789abcdef"
#define WALL_MS INT64_C(1700000000000)
#define CHECKS 100
#define ROUNDS_MAX 100000
#define CLAIMS                                                                                  \
    "{\"exp\":1700003600,\"iat\":1700000000,\"key\":[\"upload:4f1c\",\"job:77\"],\"can\":["     \
    "\"subscribe\",\"send\"],\"id\":\"c-1\",\"sub\":\"user-123\",\"jti\":\"5f0c2a\",\"tags\":[" \
    "\"red\"],\"att\":{\"name\":\"Ann\"}}"

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void jwt_check(const void *checker, struct slice token)
{
    struct identity *who = NULL;
    const char *wrong = token_check(checker, token, WALL_MS, &who);
    STOA_ASSERT(!wrong);
    identity_unref(who);
}

static void orpc_check(const void *checker, struct slice token)
{
    (void)checker;
    struct orpc_claims claims;
    const char *wrong = orpc_token_check(slice_text("secret-key"), token, WALL_MS, &claims);
    STOA_ASSERT(!wrong);
    orpc_claims_free(&claims);
}

static void measure(const char *name, void (*check)(const void *, struct slice),
                    const void *checker, struct slice token, double seconds)
{
    static double rounds[ROUNDS_MAX];
    size_t n = 0;
    double end = now_us() + seconds * 1e6;
    while (n < ROUNDS_MAX && (n < 3 || now_us() < end)) {
        double began = now_us();
        for (unsigned i = 0; i < CHECKS; i++)
            check(checker, token);
        rounds[n++] = (now_us() - began) / CHECKS;
    }
    qsort(rounds, n, sizeof *rounds, ascending);
    printf("%-8s %6.1f us a check (median of %zu rounds; fastest %.1f, 99 %% %.1f)\n", name,
           rounds[n / 2], n, rounds[0], rounds[n * 99 / 100]);
}

static char *pem_new(enum token_algorithm algorithm)
{
    EVP_PKEY *key = algorithm == TOKEN_RS256 ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    BIO *bio = BIO_new(BIO_s_mem());
    char *at = NULL;
    STOA_ASSERT(key && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1);
    long size = BIO_get_mem_data(bio, &at);
    char *pem = mem_strndup(at, (size_t)size);
    BIO_free(bio);
    EVP_PKEY_free(key);
    return pem;
}

static void jwt_measure(enum token_algorithm algorithm, double seconds)
{
    char *pem = algorithm == TOKEN_HS256 ? mem_strdup(SECRET) : pem_new(algorithm);
    const struct token_key_source key = {"2026-11", algorithm, slice_text(pem)};
    const struct token_options options = {&key, 1, NULL, NULL, INT64_C(604800000)};
    struct token_checker *checker = NULL;
    struct strbuf token = {0}, why = {0};
    STOA_ASSERT(token_checker_create(&options, &checker, &why) == ERR_OK);
    STOA_ASSERT(token_sign(&key, slice_text(CLAIMS), &token, &why) == ERR_OK);
    measure(token_algorithm_name(algorithm), jwt_check, checker, strbuf_slice(&token), seconds);
    token_checker_destroy(&checker);
    strbuf_free(&token);
    strbuf_free(&why);
    mem_free(pem);
}

int main(int argc, char **argv)
{
    static const char e1[] =
        "eyJhbGciOiJIUzI1NiJ9.eyJjaG4iOiJzb21lLXJvb20iLCJycGMiOlsicHVibGlzaE1lc3NhZ2UiXSwiYXR0Ijp7"
        "InVzZXJJZCI6InVzZXItMTIzIn0sImlhdCI6MTcwMDAwMDAwMCwiZXhwIjo0MTAyNDQ0ODAwfQ.OzG3oBrGqeeZ1m"
        "fnc5a2Ussgdzp-RsUhzGu9y-j5Otw";
    static const char e2[] =
        "{\"chn\":\"some-room\",\"tags\":[\"tag1\"],\"rpc\":[\"publishMessage\"],\"att\":{"
        "\"userId\":\"user-123\"},\"iat\":1700000000,\"exp\":4102444800}.fdCACwbQ-XaHB53gEYuvPcUx2R"
        "E4UFtqUGk6wsdmojY";
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 2;
    for (unsigned i = 0; i < TOKEN_ALGORITHMS_COUNT; i++)
        jwt_measure((enum token_algorithm)i, seconds);
    measure("oRPC E1", orpc_check, NULL, slice_text(e1), seconds);
    measure("oRPC E2", orpc_check, NULL, slice_text(e2), seconds);
    return EXIT_SUCCESS;
}
