/* SHELL (pure, but config.h is a shell header). What can be wrong with `auth` as a whole. No
 * message holds anything of a key. */
#include <stdio.h>
#include <string.h>

#include "common/config_internal.h"

#define KID_MAX_BYTES 256

static bool is_symmetric(const struct config_auth_key *key)
{
    return strcmp(key->alg, "HS256") == 0;
}

/* NULL: the fields of this key belong together. */
static const char *misfit(const struct config_auth_key *key)
{
    if (!key->alg)
        return "needs alg: HS256, RS256 or ES256";
    if (key->kid && (*key->kid == '\0' || strlen(key->kid) > KID_MAX_BYTES))
        return "a kid has 1 to 256 bytes; leave it out if tokens have none";
    if (is_symmetric(key) && key->public_key)
        return "has a public_key, which HS256 does not know: give secret_file";
    if (!is_symmetric(key) && key->secret)
        return "has a secret, which only HS256 knows: give public_key_file";
    if (!key->secret && !key->public_key)
        return is_symmetric(key) ? "needs secret_file (or secret)"
                                 : "needs public_key_file (or public_key)";
    return NULL;
}

static void check_key(const struct config *c, size_t place, struct strbuf *why)
{
    static const char *const fields[] = {"kid", "alg", "secret", "public_key"};
    const struct config_auth_key *key = &c->auth.keys[place];
    char path[32];
    snprintf(path, sizeof path, "auth.keys[%zu]", place);
    const char *where = config_entry_origin(c, path, fields, sizeof fields / sizeof *fields);
    const char *problem = misfit(key);
    if (problem)
        config_problem(why, where, path, "%s", problem);
    for (size_t i = 0; i < place && key->kid; i++)
        if (c->auth.keys[i].kid && strcmp(c->auth.keys[i].kid, key->kid) == 0)
            config_problem(why, where, path,
                           "has the kid of auth.keys[%zu]: tokens would not say which", i);
}

void config_auth_check(const struct config *c, struct strbuf *why)
{
    const char *mode = c->auth.mode;
    for (size_t i = 0; i < c->auth.n_keys; i++)
        check_key(c, i, why);
    if (mode && strcmp(mode, "token") == 0 && c->auth.n_keys == 0)
        config_problem(why, config_origin(c, "auth.mode"), "auth.mode",
                       "is token, but there is no key to check tokens with: add keys: [ { kid: "
                       "\"1\", alg: HS256, secret_file: FILE } ] to auth");
    if (!mode && c->auth.n_keys > 0)
        config_problem(why, "configuration", "auth.keys",
                       "are given, but auth.mode is not: add mode: token (or none)");
}
