/* CORE. See token.h. Without a `kid`, in the token or of a key, every such key of the token's
 * algorithm is tried, which is as many signatures as keys were configured, and none for a token
 * that has not the form. */
#include "common/token/token.h"

#include "common/json.h"
#include "common/mem.h"
#include "common/token/claims.h"
#include "common/token/jws.h"

struct token_checker {
    struct jws_key **keys;
    size_t n_keys;
    char *issuer, *audience;
    struct claims_rules rules;
};

static char *text_copy(const char *text)
{
    return text ? mem_strdup(text) : NULL;
}

int token_checker_create(const struct token_options *options, struct token_checker **out,
                         struct strbuf *why)
{
    struct token_checker *checker = mem_alloc(sizeof *checker);
    *checker = (struct token_checker){.keys = mem_alloc(options->n_keys * sizeof *checker->keys),
                                      .issuer = text_copy(options->issuer),
                                      .audience = text_copy(options->audience)};
    checker->rules = (struct claims_rules){checker->issuer, checker->audience, options->max_ttl_ms};
    *out = checker;
    for (size_t i = 0; i < options->n_keys; i++) {
        struct strbuf reason = {0};
        int code = jws_key_create(&options->keys[i], false, &checker->keys[i], &reason);
        if (code == ERR_OK)
            checker->n_keys++;
        else
            strbuf_printf(why, "key %zu%s%s: %s", i, options->keys[i].kid ? ", kid " : "",
                          options->keys[i].kid ? options->keys[i].kid : "", strbuf_cstr(&reason));
        strbuf_free(&reason);
        if (code != ERR_OK) {
            token_checker_destroy(out);
            return code;
        }
    }
    return ERR_OK;
}

void token_checker_destroy(struct token_checker **checker)
{
    struct token_checker *c = *checker;
    if (!c)
        return;
    for (size_t i = 0; i < c->n_keys; i++)
        jws_key_destroy(&c->keys[i]);
    mem_free(c->keys);
    mem_free(c->issuer);
    mem_free(c->audience);
    mem_free(c);
    *checker = NULL;
}

/* The key that made it; NULL and why not. */
static const struct jws_key *signer_of(const struct token_checker *checker, const struct jws *jws,
                                       const char **wrong)
{
    *wrong = jws->kid.data ? "no key has its kid" : "no key is of its algorithm";
    for (size_t i = 0; i < checker->n_keys; i++) {
        const struct jws_key *key = checker->keys[i];
        bool named = jws->kid.data && *jws_key_id(key) != '\0';
        if (named && !slice_is(jws->kid, jws_key_id(key)))
            continue;
        if (jws_key_algorithm(key) != jws->algorithm) {
            if (named)
                *wrong = "its algorithm is not that of the key with its kid";
            continue;
        }
        if (jws_verify(key, jws))
            return key;
        *wrong = named ? "its signature is not of the key with its kid"
                       : "its signature is not of any key of its algorithm";
    }
    return NULL;
}

const char *token_check(const struct token_checker *checker, struct slice token, int64_t wall_ms,
                        struct identity **out)
{
    struct jws jws;
    const char *wrong = jws_read(token, TOKEN_MAX_BYTES, &jws);
    if (wrong)
        return wrong;
    const struct jws_key *key = signer_of(checker, &jws, &wrong);
    if (key)
        wrong =
            claims_read(jws.payload, slice_text(jws_key_id(key)), &checker->rules, wall_ms, out);
    jws_free(&jws);
    return wrong;
}

int token_sign(const struct token_key_source *source, struct slice claims, struct strbuf *out,
               struct strbuf *why)
{
    struct jws_key *key = NULL;
    if (!json_valid(claims) || json_type_of(claims) != JSON_OBJECT) {
        strbuf_put_text(why, "the claims are no JSON object");
        return ERR_INVALID;
    }
    int code = jws_key_create(source, true, &key, why);
    if (code != ERR_OK)
        return code;
    code = jws_sign(key, claims, out);
    if (code != ERR_OK)
        strbuf_put_text(why, "this key cannot sign");
    jws_key_destroy(&key);
    return code;
}
