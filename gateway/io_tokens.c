/* SHELL. The keys that tokens are signed with, from the configuration into the core, at the start
 * and when a reload changes them. */
#include <string.h>

#include "common/token/from_config.h"
#include "gateway/io_program.h"

bool program_accept(void *ctx, const struct config *fresh, struct strbuf *changed,
                    struct strbuf *why)
{
    struct program *p = ctx;
    struct token_checker *tokens = NULL;
    (void)changed; /* the difference of auth.keys says it */
    if (token_checker_from_config(fresh, &tokens, why) != ERR_OK)
        return false;
    token_checker_destroy(&p->fresh_tokens);
    p->fresh_tokens = tokens;
    return true;
}

void program_warn_of_keys(struct program *p, const struct config *config)
{
    struct strbuf text = {0};
    char *rest = NULL;
    token_config_warnings(config, &text);
    for (char *line = strtok_r((char *)strbuf_cstr(&text), "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest))
        LOG(&p->log, LOG_WARN, "auth.weak_key", LOG_STR("why", line));
    strbuf_free(&text);
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool has_key(const struct config *c, const struct config_auth_key *key)
{
    for (size_t i = 0; i < c->auth.n_keys; i++) {
        const struct config_auth_key *other = &c->auth.keys[i];
        if (same_text(other->kid, key->kid) && same_text(other->alg, key->alg) &&
            same_text(other->secret, key->secret) && same_text(other->public_key, key->public_key))
            return true;
    }
    return false;
}

/* The kids whose tokens may stay, NULL-terminated; "" for keys without one, which cannot be told
 * apart. */
static void list_kept(const struct config *before, const struct config *fresh,
                      const char *kept[CONFIG_LIST_MAX + 2])
{
    size_t count = 0;
    bool nameless = true;
    bool same_wishes = same_text(before->auth.iss, fresh->auth.iss) &&
                       same_text(before->auth.aud, fresh->auth.aud);
    for (size_t i = 0; same_wishes && i < before->auth.n_keys; i++) {
        const struct config_auth_key *key = &before->auth.keys[i];
        bool stays = has_key(fresh, key);
        if (!key->kid)
            nameless &= stays;
        else if (stays)
            kept[count++] = key->kid;
    }
    if (same_wishes && nameless)
        kept[count++] = "";
    kept[count] = NULL;
}

void program_retoken(struct program *p, const struct config *before, const struct config *fresh)
{
    const char *kept[CONFIG_LIST_MAX + 2];
    struct token_checker *old = p->tokens;
    list_kept(before, fresh, kept);
    program_warn_of_keys(p, fresh);
    p->tokens = p->fresh_tokens;
    p->fresh_tokens = NULL;
    gateway_retoken(p->gateway, p->tokens, fresh->auth.max_ttl_ms, kept, clock_now());
    token_checker_destroy(&old);
}
