/* SHELL. stoa token check: what a token says, what that allows, until when, and why a gateway would
 * refuse it. A gateway tells nobody the reason; whoever has the keys may know it. Reads Stoa's own
 * tokens and both kinds of oRPC's; without a key it reads them too, and says so. */
#include <stdio.h>
#include <stdlib.h>

#include "client/cli/token.h"
#include "common/mem.h"
#include "common/token/claims.h"
#include "common/token/from_config.h"
#include "common/token/jws.h"
#include "common/token/orpc_token.h"

#define TTL_DEFAULT_MS INT64_C(604800000)
#define INPUT_MAX_BYTES (2u << 20)

enum kind { KIND_NONE, KIND_JWT, KIND_E1, KIND_E2 };
enum signature { SIGNATURE_UNCHECKED, SIGNATURE_WRONG, SIGNATURE_GOOD };

struct check {
    struct cli *cli;
    const char *secret_file, *public_key, *signing_key_file;
    struct strbuf token;
    struct config config;
    int64_t now_ms;
    enum kind kind;
    enum signature signature;
    const char *refused; /* NULL: a gateway would let it in now */
    struct jws jws;      /* of a JWT */
    struct slice claims; /* data NULL: not even readable */
    struct identity *who;
    struct orpc_claims orpc;
};

/* ---- what it is ---- */

static bool is_e1(struct slice claims)
{
    return json_valid(claims) && json_type_of(claims) == JSON_OBJECT &&
           json_get(claims, "chn").type != JSON_NONE && json_get(claims, "key").type == JSON_NONE &&
           json_get(claims, "prefix").type == JSON_NONE;
}

static void recognise(struct check *c)
{
    struct slice token = strbuf_slice(&c->token);
    if (token.size > 0 && token.data[0] == '{') {
        c->kind = KIND_E2;
        size_t dot = token.size;
        while (dot > 0 && token.data[dot - 1] != '.')
            dot--;
        if (dot > 0 && json_valid(slice_of(token.data, dot - 1)))
            c->claims = slice_of(token.data, dot - 1);
        return;
    }
    c->refused = jws_read(token, ORPC_TOKEN_MAX_BYTES, &c->jws);
    if (c->refused)
        return;
    c->kind = KIND_JWT;
    if (json_valid(c->jws.payload))
        c->claims = c->jws.payload;
    if (is_e1(c->jws.payload))
        c->kind = KIND_E1;
}

/* ---- Stoa's own ---- */

/* Keys of options, else of the configuration; NULL: none. False: told on stderr. */
static bool checker_make(struct check *c, struct token_checker **out)
{
    struct strbuf why = {0};
    *out = NULL;
    const char *path = c->secret_file ? c->secret_file : c->public_key;
    bool fine;
    if (path) {
        char *material = token_read_text(c->cli, path);
        if (!material)
            return false;
        /* of no kid: it is tried for every token of its algorithm */
        struct slice kid = c->jws.kid;
        char *name = kid.data ? mem_strndup((const char *)kid.data, kid.size) : NULL;
        const struct token_key_source key = {name, c->secret_file ? TOKEN_HS256 : c->jws.algorithm,
                                             slice_text(material)};
        const struct token_options options = {&key, 1, c->config.auth.iss, c->config.auth.aud,
                                              c->config.auth.max_ttl_ms};
        fine = token_checker_create(&options, out, &why) == ERR_OK;
        explicit_bzero(material, strlen(material));
        mem_free(material);
        mem_free(name);
    } else {
        if (c->config.auth.n_keys > 0)
            c->config.auth.mode = c->config.auth.mode ? c->config.auth.mode : mem_strdup("token");
        fine = token_checker_from_config(&c->config, out, &why) == ERR_OK;
    }
    if (!fine)
        fprintf(stderr, "%s\n", strbuf_cstr(&why));
    strbuf_free(&why);
    return fine;
}

static bool jwt_judge(struct check *c)
{
    struct token_checker *checker;
    const struct claims_rules rules = {c->config.auth.iss, c->config.auth.aud,
                                       c->config.auth.max_ttl_ms};
    struct slice kid = c->jws.kid.data ? c->jws.kid : slice_of("", 0);
    const char *wrong_claims = claims_read(c->jws.payload, kid, &rules, c->now_ms, &c->who);
    if (!checker_make(c, &checker))
        return false;
    c->refused = wrong_claims;
    if (checker) {
        struct identity *who = NULL;
        const char *wrong = token_check(checker, strbuf_slice(&c->token), c->now_ms, &who);
        c->signature = !wrong || (wrong_claims && strcmp(wrong, wrong_claims) == 0)
                           ? SIGNATURE_GOOD
                           : SIGNATURE_WRONG;
        c->refused = wrong;
        identity_unref(who);
        token_checker_destroy(&checker);
    }
    if (!c->refused && !identity_timely(c->who, c->now_ms))
        c->refused = c->now_ms < c->who->not_before_ms ? "it is not valid yet" : "it expired";
    return true;
}

/* ---- oRPC's ---- */

/* Tries one signing key; false: it is not the token's. */
static bool orpc_try(struct check *c, const char *key)
{
    struct orpc_claims claims;
    const char *wrong = orpc_token_read(slice_text(key), strbuf_slice(&c->token), &claims);
    if (!wrong) {
        orpc_claims_free(&c->orpc);
        c->orpc = claims;
    }
    c->refused = wrong;
    return !wrong;
}

static bool orpc_judge(struct check *c)
{
    const char *environment = getenv("STOA_ORPC_SIGNING_KEY");
    const char *file = c->signing_key_file ? c->signing_key_file : c->secret_file;
    bool good = false, tried = file != NULL;
    if (file) {
        char *key = token_read_text(c->cli, file);
        if (!key)
            return false;
        good = orpc_try(c, key);
        explicit_bzero(key, strlen(key));
        mem_free(key);
    }
    for (size_t i = 0; i < c->config.n_routes && !good && !file; i++)
        if (c->config.routes[i].signing_key) {
            tried = true;
            good = orpc_try(c, c->config.routes[i].signing_key);
        }
    if (!good && !file && environment && *environment != '\0') {
        tried = true;
        good = orpc_try(c, environment);
    }
    c->signature = good ? SIGNATURE_GOOD : tried ? SIGNATURE_WRONG : SIGNATURE_UNCHECKED;
    if (good && !orpc_claims_timely(&c->orpc, c->now_ms))
        c->refused = c->now_ms < c->orpc.not_before_ms ? "it is not valid yet" : "it expired";
    if (good) /* for what is printed: the key that it opens is its channel's */
        c->who = orpc_identity(&c->orpc, c->orpc.chn, (struct slice){0});
    return true;
}

/* ---- printing ---- */

static const char *kind_text(const struct check *c)
{
    static const char *const texts[] = {"no token", "JSON Web Token",
                                        "oRPC durable iterator, first kind (JSON Web Token)",
                                        "oRPC durable iterator, second kind (JSON and signature)"};
    return texts[c->kind];
}

static void names_put(struct strbuf *out, struct identity_names names, bool json)
{
    if (json)
        strbuf_put_byte(out, '[');
    for (size_t i = 0; i < names.count; i++) {
        if (i > 0)
            strbuf_put_text(out, json ? "," : " ");
        json_quote(out, names.at[i]);
    }
    if (json)
        strbuf_put_byte(out, ']');
}

static void rights_put(struct strbuf *out, unsigned rights, bool json)
{
    size_t before = out->size;
    for (unsigned i = 0; i < RIGHTS_COUNT; i++) {
        if (!(rights & 1u << i))
            continue;
        if (out->size > before)
            strbuf_put_text(out, json ? "," : " ");
        strbuf_printf(out, json ? "\"%s\"" : "%s", right_name((enum right)i));
    }
}

static void print_allowed(const struct check *c)
{
    const struct identity *who = c->who;
    struct strbuf line = {0};
    if (c->kind == KIND_JWT) {
        if (who->keys.count > 0) {
            strbuf_put_text(&line, " keys ");
            names_put(&line, who->keys, false);
        }
        if (who->prefixes.count > 0) {
            strbuf_put_text(&line, " prefixes ");
            names_put(&line, who->prefixes, false);
        }
    } else {
        strbuf_put_text(&line, " channel ");
        json_quote(&line, c->orpc.chn);
    }
    printf("opens:     %s\n", strbuf_cstr(&line) + 1);
    strbuf_reset(&line);
    rights_put(&line, who->rights, false);
    if (who->methods.count > 0) {
        strbuf_put_text(&line, line.size > 0 ? ", " : "");
        strbuf_put_text(&line, "methods ");
        names_put(&line, who->methods, false);
    }
    printf("allows:    %s\n", line.size > 0 ? strbuf_cstr(&line) : "nothing");
    strbuf_free(&line);
}

static void print_times(const struct check *c)
{
    const struct identity *who = c->who;
    struct strbuf line = {0};
    if (who->not_before_ms > c->now_ms) {
        token_put_time(&line, who->not_before_ms);
        strbuf_put_text(&line, ", in ");
        token_put_duration(&line, who->not_before_ms - c->now_ms);
        printf("begins:    %s\n", strbuf_cstr(&line));
        strbuf_reset(&line);
    }
    bool over = who->expires_ms <= c->now_ms;
    token_put_time(&line, who->expires_ms);
    strbuf_put_text(&line, over ? ", " : ", in ");
    token_put_duration(&line, over ? c->now_ms - who->expires_ms : who->expires_ms - c->now_ms);
    printf("%s   %s%s\n", over ? "expired:" : "expires:", strbuf_cstr(&line), over ? " ago" : "");
    strbuf_free(&line);
}

/* On one line, which its author need not have kept to. */
static void claims_put(struct strbuf *out, struct slice claims)
{
    size_t begin = out->size;
    strbuf_put_slice(out, claims);
    for (size_t i = begin; i < out->size; i++)
        if (out->data[i] < ' ')
            out->data[i] = ' ';
}

static void print_text(const struct check *c)
{
    static const char *const signatures[] = {
        "NOT CHECKED: there is no key (give --config with auth.keys, or --secret-file, "
        "--public-key, --signing-key-file)",
        "WRONG", "good"};
    struct strbuf claims = {0};
    printf("kind:      %s", kind_text(c));
    if (c->jws.text_.data) {
        printf(", %s", token_algorithm_name(c->jws.algorithm));
        if (c->jws.kid.data) {
            json_quote(&claims, c->jws.kid);
            printf(", kid %s", strbuf_cstr(&claims));
            strbuf_reset(&claims);
        }
    }
    putchar('\n');
    if (c->kind != KIND_NONE)
        printf("signature: %s\n", signatures[c->signature]);
    if (c->claims.data) {
        claims_put(&claims, c->claims);
        printf("claims:    %s\n", strbuf_cstr(&claims));
    }
    if (c->who) {
        print_allowed(c);
        print_times(c);
    }
    if (c->refused)
        printf("verdict:   refused: %s\n", c->refused);
    else
        printf("verdict:   %s\n", c->signature == SIGNATURE_GOOD
                                      ? "in force, unless it was revoked"
                                      : "unknown: whoever wrote it may have written anything");
    strbuf_free(&claims);
}

static void print_json(const struct check *c)
{
    static const char *const kinds[] = {"none", "jwt", "orpc-e1", "orpc-e2"},
                             *const signatures[] = {"unchecked", "wrong", "good"};
    struct strbuf out = {0};
    strbuf_printf(
        &out, "{\"kind\":\"%s\",\"signature\":\"%s\",\"accepted\":%s,\"refused\":", kinds[c->kind],
        signatures[c->signature], !c->refused && c->signature == SIGNATURE_GOOD ? "true" : "false");
    if (c->refused)
        json_quote(&out, slice_text(c->refused));
    else
        strbuf_put_text(&out, "null");
    if (c->claims.data) {
        strbuf_put_text(&out, ",\"claims\":");
        claims_put(&out, c->claims);
    }
    if (c->who) {
        strbuf_put_text(&out, ",\"rights\":[");
        rights_put(&out, c->who->rights, true);
        strbuf_put_text(&out, "],\"keys\":");
        names_put(&out, c->who->keys, true);
        strbuf_put_text(&out, ",\"prefixes\":");
        names_put(&out, c->who->prefixes, true);
        strbuf_put_text(&out, ",\"rpc\":");
        names_put(&out, c->who->methods, true);
        strbuf_put_text(&out, ",\"expires\":\"");
        token_put_time(&out, c->who->expires_ms);
        strbuf_printf(&out, "\",\"expires_in_s\":%lld",
                      (long long)(c->who->expires_ms - c->now_ms) / 1000);
    }
    printf("%s}\n", strbuf_cstr(&out));
    strbuf_free(&out);
}

/* ---- the verb ---- */

/* The argument; none: --token, else standard input. White space around it is nobody's. */
static int input(struct check *c, const char *given)
{
    if (!given && c->cli->token)
        given = c->cli->token;
    const char *file = given && given[0] == '@' ? given + 1 : NULL;
    int status = cli_input(c->cli, file, given, &c->token);
    size_t skip = 0;
    while (c->token.size > 0 && strchr(" \t\r\n", c->token.data[c->token.size - 1]))
        c->token.size--;
    while (skip < c->token.size && strchr(" \t\r\n", c->token.data[skip]))
        skip++;
    if (skip > 0)
        memmove(c->token.data, c->token.data + skip, c->token.size -= skip);
    return status;
}

static bool options_read(struct check *c, int argc, char **argv)
{
    static const struct option own[] = {{"secret-file", required_argument, NULL, 'S'},
                                        {"public-key", required_argument, NULL, 'P'},
                                        {"signing-key-file", required_argument, NULL, 'O'},
                                        {0}};
    for (int option; (option = cli_option(c->cli, argc, argv, "", own)) != -1;) {
        if (option == 'S')
            c->secret_file = optarg;
        else if (option == 'P')
            c->public_key = optarg;
        else if (option == 'O')
            c->signing_key_file = optarg;
        else
            return false;
    }
    if (c->secret_file && c->public_key)
        cli_misuse(c->cli, "give --secret-file or --public-key, not both");
    else if (argc - optind > 1)
        cli_misuse(c->cli, "token check takes one token");
    else
        return true;
    return false;
}

static int check_run(struct check *c)
{
    c->now_ms = token_now_ms();
    recognise(c);
    if (c->kind != KIND_NONE && !(c->kind == KIND_JWT ? jwt_judge(c) : orpc_judge(c)))
        return EXIT_FAILED;
    if (c->cli->json)
        print_json(c);
    else if (!c->cli->quiet)
        print_text(c);
    if (!c->refused && c->signature == SIGNATURE_GOOD)
        return EXIT_OK;
    return c->refused ? cli_fail(c->cli, "refused: %s", c->refused)
                      : cli_fail(c->cli, "the signature was not checked: give the key, by --config "
                                         "with auth.keys or by a file");
}

int token_check_verb(struct cli *cli, int argc, char **argv)
{
    struct check c = {.cli = cli};
    if (!options_read(&c, argc, argv))
        return EXIT_USAGE;
    int status = input(&c, optind < argc ? argv[optind] : NULL);
    if (status == EXIT_OK)
        status = token_config_load(cli, &c.config) ? check_run(&c) : EXIT_FAILED;
    if (c.config.origin_)
        config_free(&c.config);
    orpc_claims_free(&c.orpc);
    jws_free(&c.jws);
    identity_unref(c.who);
    strbuf_free(&c.token);
    return status;
}
