/* SHELL (pure, but config.h is a shell header). See from_config.h. */
#include "common/token/from_config.h"

#include <stdio.h>
#include <string.h>

#include "common/config_internal.h"
#include "common/mem.h"
#include "common/token/jws.h"

struct token_key_source token_key_from_config(const struct config *c, size_t place)
{
    const struct config_auth_key *key = &c->auth.keys[place];
    unsigned algorithm = 0;
    while (strcmp(key->alg, token_algorithm_name((enum token_algorithm)algorithm)) != 0)
        algorithm++; /* one of them, as config_load saw to */
    return (struct token_key_source){
        key->kid, (enum token_algorithm)algorithm,
        slice_text(algorithm == TOKEN_HS256 ? key->secret : key->public_key)};
}

/* Where the material stands: "stoa.yaml:3", and "auth.keys[0].secret". */
static const char *material_path(const struct config *c, size_t place, char path[64])
{
    snprintf(path, 64, "auth.keys[%zu].%s", place,
             c->auth.keys[place].secret ? "secret" : "public_key");
    return config_origin(c, path);
}

int token_checker_from_config(const struct config *c, struct token_checker **out,
                              struct strbuf *why)
{
    *out = NULL;
    struct strbuf reason = {0};
    size_t before = why->size;
    char path[64];
    struct token_key_source *keys = mem_alloc(c->auth.n_keys * sizeof *keys);
    for (size_t i = 0; i < c->auth.n_keys; i++) { /* one by one, for the words */
        struct jws_key *key = NULL;
        keys[i] = token_key_from_config(c, i);
        strbuf_reset(&reason);
        const char *where = material_path(c, i, path);
        if (jws_key_create(&keys[i], false, &key, &reason) != ERR_OK)
            config_problem(why, where, path, "%s", strbuf_cstr(&reason));
        jws_key_destroy(&key);
    }
    int code = why->size == before ? ERR_OK : ERR_INVALID;
    if (code == ERR_OK && c->auth.mode && strcmp(c->auth.mode, "token") == 0) {
        const struct token_options options = {.keys = keys,
                                              .n_keys = c->auth.n_keys,
                                              .issuer = c->auth.iss,
                                              .audience = c->auth.aud,
                                              .max_ttl_ms = c->auth.max_ttl_ms};
        code = token_checker_create(&options, out, why);
    }
    mem_free(keys);
    strbuf_free(&reason);
    return code;
}

void token_config_warnings(const struct config *c, struct strbuf *out)
{
    char path[64];
    for (size_t i = 0; i < c->auth.n_keys; i++) {
        const struct token_key_source key = token_key_from_config(c, i);
        const char *weakness = token_key_weakness(&key);
        const char *where = material_path(c, i, path);
        if (weakness)
            config_problem(out, where, path, "%s", weakness);
    }
}
