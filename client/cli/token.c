/* SHELL. stoa token: new signs one, revoke asks a gateway to take some back; check is in
 * token_check.c. A token that was signed here is read as a gateway would, before it is given out.
 */
#include "client/cli/token.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "client/cli/http.h"
#include "common/mem.h"
#include "common/shell/process.h"
#include "common/tick.h"
#include "common/token/from_config.h"

#define FILE_MAX_BYTES (64 * 1024)
#define EXPIRES_DEFAULT "1h"
#define TTL_MAX_MS INT64_C(604800000) /* auth.max_ttl, where there is no configuration */

/* ---- what the verbs share ---- */

int64_t token_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / NS_PER_MS;
}

char *token_read_text(const struct cli *cli, const char *path)
{
    size_t size;
    char *text = process_read_file(path, FILE_MAX_BYTES, &size);
    if (!text) {
        cli_fail(cli, "cannot read %s: %s", path, strerror(errno));
        return NULL;
    }
    bool has_nul = strlen(text) != size;
    while (size > 0 && isspace((unsigned char)text[size - 1]))
        text[--size] = '\0';
    size_t skip = strspn(text, " \t\r\n");
    char *out = mem_strndup(text + skip, size - skip);
    explicit_bzero(text, size);
    free(text);
    if (!has_nul && *out != '\0')
        return out;
    cli_fail(cli, has_nul ? "%s holds a NUL; a secret is text (base64, say)" : "%s is empty", path);
    mem_free(out);
    return NULL;
}

bool token_config_load(const struct cli *cli, struct config *config)
{
    struct strbuf why = {0};
    bool fine = config_load(config, cli->config, NULL, &why) == ERR_OK;
    if (!fine)
        fprintf(stderr, "%s\n", strbuf_cstr(&why));
    strbuf_free(&why);
    return fine;
}

void token_put_time(struct strbuf *out, int64_t ms)
{
    char text[40];
    time_t seconds = (time_t)(ms / 1000 - (ms % 1000 < 0));
    struct tm parts;
    if (!gmtime_r(&seconds, &parts) ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        snprintf(text, sizeof text, "%lld s since 1970", (long long)seconds);
    strbuf_put_text(out, text);
}

void token_put_duration(struct strbuf *out, int64_t ms)
{
    static const struct {
        int64_t seconds;
        const char *name;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    int64_t left = ms / 1000;
    size_t i = 0;
    while (i < 3 && left < units[i].seconds)
        i++;
    strbuf_printf(out, "%lld %s", (long long)(left / units[i].seconds), units[i].name);
    left %= units[i].seconds;
    if (i < 2 && left >= units[i + 1].seconds)
        strbuf_printf(out, " %lld %s", (long long)(left / units[i + 1].seconds), units[i + 1].name);
}

/* Seconds since 1970, "2026-11-21T19:00:00Z", "+10m" or "-1h" from now. */
static bool time_read(const struct cli *cli, const char *option, const char *text, int64_t *ms)
{
    struct tm parts = {0};
    char *end = NULL;
    if (*text == '+' || *text == '-') {
        bool fine = config_duration(text + 1, ms) == ERR_OK;
        *ms = token_now_ms() + (*text == '-' ? -*ms : *ms);
        if (fine)
            return true;
    }
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    if (rest && *rest == '\0') {
        *ms = (int64_t)timegm(&parts) * 1000;
        return true;
    }
    double seconds = isdigit((unsigned char)*text) ? strtod(text, &end) : -1;
    if (seconds >= 0 && seconds < 1e11 && end && *end == '\0') {
        *ms = (int64_t)(seconds * 1000);
        return true;
    }
    cli_misuse(
        cli,
        "%s takes a time like 2026-11-21T19:00:00Z, seconds since 1970, or +10m and -1h from "
        "now, not \"%s\"",
        option, text);
    return false;
}

/* ---- new ---- */

struct texts {
    char *at[64];
    size_t count;
};

struct fresh { /* what the token shall say */
    struct texts keys, prefixes, rights, methods, tags;
    const char *id, *subject, *token_id, *attachment, *kid;
    const char *secret_file, *private_key, *algorithm;
    bool rights_said;
    int64_t ttl_ms, not_before_ms; /* 0: not said */
};

static bool text_add(const struct cli *cli, const char *option, struct texts *list,
                     struct slice text)
{
    if (list->count == sizeof list->at / sizeof *list->at) {
        cli_misuse(cli, "too many of %s", option);
        return false;
    }
    list->at[list->count++] = mem_strndup((const char *)text.data, text.size);
    return true;
}

/* "a,b" */
static bool texts_add(const struct cli *cli, const char *option, struct texts *list,
                      const char *text)
{
    while (*text != '\0') {
        size_t n = strcspn(text, ",");
        if (n > 0 && !text_add(cli, option, list, slice_of(text, n)))
            return false;
        text += n + (text[n] == ',');
    }
    return true;
}

static void fresh_free(struct fresh *f)
{
    struct texts *all[] = {&f->keys, &f->prefixes, &f->rights, &f->methods, &f->tags};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (size_t k = 0; k < all[i]->count; k++)
            mem_free(all[i]->at[k]);
}

enum {
    NEW_KEY = 'k',
    NEW_PREFIX = 2000,
    NEW_CAN,
    NEW_RPC,
    NEW_ID,
    NEW_SUB,
    NEW_JTI,
    NEW_TAGS,
    NEW_ATT,
    NEW_EXPIRES,
    NEW_NBF,
    NEW_KID,
    NEW_SECRET_FILE,
    NEW_PRIVATE_KEY,
    NEW_ALG
};

/* Times and JSON, which can be ill-formed. */
static bool value_take(const struct cli *cli, struct fresh *f, int option)
{
    if (option == NEW_NBF)
        return time_read(cli, "--nbf", optarg, &f->not_before_ms);
    if (option == NEW_EXPIRES) {
        if (config_duration(optarg, &f->ttl_ms) == ERR_OK && f->ttl_ms > 0)
            return true;
        cli_misuse(cli, "--expires takes a duration like 30s, 15m, 1h, 7d, not \"%s\"", optarg);
        return false;
    }
    f->attachment = optarg;
    if (json_valid(slice_text(optarg)))
        return true;
    cli_misuse(cli, "--att takes JSON; a text needs its quotes: '\"text\"'");
    return false;
}

static bool option_take(const struct cli *cli, struct fresh *f, int option)
{
    switch (option) {
    case NEW_KEY:
        return text_add(cli, "--key", &f->keys, slice_text(optarg));
    case NEW_PREFIX:
        return text_add(cli, "--prefix", &f->prefixes, slice_text(optarg));
    case NEW_CAN:
        f->rights_said = true;
        return texts_add(cli, "--can", &f->rights, optarg);
    case NEW_RPC:
        return texts_add(cli, "--rpc", &f->methods, optarg);
    case NEW_TAGS:
        return texts_add(cli, "--tags", &f->tags, optarg);
    case NEW_ID:
        f->id = optarg;
        return true;
    case NEW_SUB:
        f->subject = optarg;
        return true;
    case NEW_JTI:
        f->token_id = optarg;
        return true;
    case NEW_KID:
        f->kid = optarg;
        return true;
    case NEW_SECRET_FILE:
        f->secret_file = optarg;
        return true;
    case NEW_PRIVATE_KEY:
        f->private_key = optarg;
        return true;
    case NEW_ALG:
        f->algorithm = optarg;
        return true;
    default:
        return value_take(cli, f, option);
    }
}

static bool algorithm_named(const char *name, enum token_algorithm *out)
{
    for (unsigned i = 0; i < TOKEN_ALGORITHMS_COUNT; i++) {
        *out = (enum token_algorithm)i;
        if (strcmp(name, token_algorithm_name(*out)) == 0)
            return true;
    }
    return false;
}

/* A secret is of HS256, a PEM does not say which of the others it is for. */
static bool algorithm_fits(const struct fresh *f)
{
    enum token_algorithm algorithm;
    if (!f->algorithm)
        return !f->private_key;
    return algorithm_named(f->algorithm, &algorithm) &&
           !(f->private_key && algorithm == TOKEN_HS256) &&
           !(f->secret_file && algorithm != TOKEN_HS256);
}

static bool new_options(struct cli *cli, int argc, char **argv, struct fresh *f)
{
    static const struct option own[] = {{"key", required_argument, NULL, NEW_KEY},
                                        {"prefix", required_argument, NULL, NEW_PREFIX},
                                        {"can", required_argument, NULL, NEW_CAN},
                                        {"rpc", required_argument, NULL, NEW_RPC},
                                        {"id", required_argument, NULL, NEW_ID},
                                        {"sub", required_argument, NULL, NEW_SUB},
                                        {"jti", required_argument, NULL, NEW_JTI},
                                        {"tags", required_argument, NULL, NEW_TAGS},
                                        {"att", required_argument, NULL, NEW_ATT},
                                        {"expires", required_argument, NULL, NEW_EXPIRES},
                                        {"nbf", required_argument, NULL, NEW_NBF},
                                        {"kid", required_argument, NULL, NEW_KID},
                                        {"secret-file", required_argument, NULL, NEW_SECRET_FILE},
                                        {"private-key", required_argument, NULL, NEW_PRIVATE_KEY},
                                        {"alg", required_argument, NULL, NEW_ALG},
                                        {0}};
    for (int c; (c = cli_option(cli, argc, argv, "k:", own)) != -1;)
        if (c == '?' || !option_take(cli, f, c))
            return false;
    if (optind < argc)
        cli_misuse(cli, "token new takes options only, and there is \"%s\"", argv[optind]);
    else if (f->keys.count + f->prefixes.count == 0)
        cli_misuse(cli, "say what it opens: --key KEY or --prefix PREFIX (--prefix '' is all)");
    else if (f->secret_file && f->private_key)
        cli_misuse(cli, "give --secret-file or --private-key, not both");
    else if (!algorithm_fits(f))
        cli_misuse(cli, f->private_key   ? "--private-key needs --alg RS256 or --alg ES256"
                        : f->secret_file ? "--alg of a secret is HS256"
                                         : "--alg is HS256, RS256 or ES256");
    else
        return true;
    return false;
}

/* ---- claims ---- */

static void claim_name(struct strbuf *out, const char *name)
{
    strbuf_put_byte(out, out->size == 0 ? '{' : ',');
    json_quote(out, slice_text(name));
    strbuf_put_byte(out, ':');
}

static void claim_text(struct strbuf *out, const char *name, const char *text)
{
    if (!text)
        return;
    claim_name(out, name);
    json_quote(out, slice_text(text));
}

static void claim_time(struct strbuf *out, const char *name, int64_t ms)
{
    claim_name(out, name);
    strbuf_printf(out, ms % 1000 == 0 ? "%lld" : "%lld.%03d", (long long)(ms / 1000),
                  (int)(ms % 1000));
}

/* `alone`: a single text stands without brackets. */
static void claim_list(struct strbuf *out, const char *name, const struct texts *list, bool alone)
{
    alone = alone && list->count == 1;
    claim_name(out, name);
    if (!alone)
        strbuf_put_byte(out, '[');
    for (size_t i = 0; i < list->count; i++) {
        if (i > 0)
            strbuf_put_byte(out, ',');
        json_quote(out, slice_text(list->at[i]));
    }
    if (!alone)
        strbuf_put_byte(out, ']');
}

static void claims_put(const struct fresh *f, const struct config *config, int64_t now_ms,
                       struct strbuf *out)
{
    char random[33];
    http_random_key(random);
    claim_text(out, "iss", config->auth.iss);
    claim_text(out, "aud", config->auth.aud);
    claim_text(out, "sub", f->subject);
    claim_text(out, "jti", f->token_id ? f->token_id : random);
    claim_time(out, "iat", now_ms / 1000 * 1000);
    if (f->not_before_ms != 0)
        claim_time(out, "nbf", f->not_before_ms / 1000 * 1000);
    claim_time(out, "exp", now_ms / 1000 * 1000 + f->ttl_ms);
    if (f->keys.count > 0)
        claim_list(out, "key", &f->keys, true);
    if (f->prefixes.count > 0)
        claim_list(out, "prefix", &f->prefixes, true);
    if (f->rights_said)
        claim_list(out, "can", &f->rights, false);
    if (f->methods.count > 0)
        claim_list(out, "rpc", &f->methods, false);
    claim_text(out, "id", f->id);
    if (f->tags.count > 0)
        claim_list(out, "tags", &f->tags, false);
    if (f->attachment) {
        claim_name(out, "att");
        strbuf_put_text(out, f->attachment);
    }
    strbuf_put_byte(out, '}');
}

/* ---- signing ---- */

/* Signs, then reads what was signed. */
static int sign(struct cli *cli, const struct token_key_source *key, const struct config *config,
                struct slice claims, int64_t now_ms, struct strbuf *out)
{
    struct strbuf why = {0};
    struct token_checker *checker = NULL;
    struct identity *who = NULL;
    const struct token_options options = {.keys = key,
                                          .n_keys = 1,
                                          .issuer = config->auth.iss,
                                          .audience = config->auth.aud,
                                          .max_ttl_ms = config->auth.max_ttl_ms};
    int status = EXIT_OK;
    if (token_sign(key, claims, out, &why) != ERR_OK ||
        token_checker_create(&options, &checker, &why) != ERR_OK)
        status = cli_fail(cli, "the key %s", strbuf_cstr(&why));
    const char *wrong = checker ? token_check(checker, strbuf_slice(out), now_ms, &who) : NULL;
    if (wrong)
        status = cli_fail(cli, "a gateway would refuse this token: %s", wrong);
    identity_unref(who);
    token_checker_destroy(&checker);
    strbuf_free(&why);
    return status;
}

/* The key of --secret-file or --private-key; *material is freed by the caller. */
static bool key_of_file(const struct cli *cli, const struct fresh *f, char **material,
                        struct token_key_source *out)
{
    const char *path = f->secret_file ? f->secret_file : f->private_key;
    *out = (struct token_key_source){.kid = f->kid, .algorithm = TOKEN_HS256};
    if (f->algorithm)
        STOA_ASSERT(algorithm_named(f->algorithm, &out->algorithm)); /* as new_options saw to */
    *material = token_read_text(cli, path);
    out->material = *material ? slice_text(*material) : (struct slice){0};
    return *material != NULL;
}

static bool can_sign(const struct token_key_source *key)
{
    struct strbuf token = {0}, why = {0};
    bool fine = token_sign(key, slice_text("{}"), &token, &why) == ERR_OK;
    strbuf_free(&token);
    strbuf_free(&why);
    return fine;
}

/* The first of auth.keys that is named, or that has a private half. */
static bool key_of_config(const struct cli *cli, const struct fresh *f, const struct config *config,
                          struct token_key_source *out)
{
    bool named = false;
    for (size_t i = 0; i < config->auth.n_keys; i++) {
        const char *kid = config->auth.keys[i].kid;
        if (f->kid && (!kid || strcmp(kid, f->kid) != 0))
            continue;
        named = true;
        *out = token_key_from_config(config, i);
        if ((!f->algorithm || strcmp(f->algorithm, config->auth.keys[i].alg) == 0) && can_sign(out))
            return true;
    }
    if (config->auth.n_keys == 0)
        cli_fail(cli,
                 "there is no key to sign with: give --secret-file FILE, --private-key FILE, or "
                 "--config FILE with auth.keys");
    else if (f->kid && !named)
        cli_fail(cli, "no key of auth.keys has the kid %s", f->kid);
    else
        cli_fail(cli, "auth.keys has public keys only, which check and do not sign: give "
                      "--private-key FILE with --alg");
    return false;
}

static int new_make(struct cli *cli, const struct fresh *f)
{
    struct config config = {0};
    struct strbuf claims = {0}, token = {0};
    struct token_key_source key;
    char *material = NULL;
    bool own = f->secret_file || f->private_key;
    int status = EXIT_FAILED;
    int64_t now_ms = token_now_ms();
    if (own)
        config.auth.max_ttl_ms = f->ttl_ms > TTL_MAX_MS ? f->ttl_ms : TTL_MAX_MS;
    if (own ? key_of_file(cli, f, &material, &key)
            : token_config_load(cli, &config) && key_of_config(cli, f, &config, &key)) {
        claims_put(f, &config, now_ms, &claims);
        status = sign(cli, &key, &config, strbuf_slice(&claims), now_ms, &token);
    }
    if (status == EXIT_OK && cli->json)
        printf("{\"token\":\"%.*s\",\"claims\":%.*s}\n", SLICE_FMT(strbuf_slice(&token)),
               SLICE_FMT(strbuf_slice(&claims)));
    else if (status == EXIT_OK)
        printf("%.*s\n", SLICE_FMT(strbuf_slice(&token)));
    if (material)
        explicit_bzero(material, strlen(material));
    mem_free(material);
    if (config.origin_)
        config_free(&config);
    strbuf_free(&claims);
    strbuf_free(&token);
    return status;
}

int token_new(struct cli *cli, int argc, char **argv)
{
    struct fresh f = {0};
    int status = EXIT_USAGE;
    STOA_ASSERT(config_duration(EXPIRES_DEFAULT, &f.ttl_ms) == ERR_OK);
    if (new_options(cli, argc, argv, &f))
        status = new_make(cli, &f);
    fresh_free(&f);
    return status;
}

/* ---- revoke ---- */

static void revocation_put(struct strbuf *out, const char *name, const char *text,
                           const int64_t *before_ms)
{
    claim_text(out, name, text);
    if (before_ms) {
        claim_name(out, "before");
        strbuf_printf(out, "%lld", (long long)*before_ms);
    }
    strbuf_put_byte(out, '}');
}

static int revoke(const struct cli *cli, struct slice body)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    const struct http_call call = {
        .method = "POST", .body = body, .headers = headers, .timeout_s = cli->timeout_s};
    struct http_result r;
    bool maybe;
    int status = EXIT_OK;
    http_persist(cli, "/revoke", &call, true, &r, &maybe); /* twice is as good as once */
    if (r.status != 200) {
        http_complain(cli, &r);
        status = maybe ? EXIT_UNKNOWN : EXIT_FAILED;
    } else if (cli->json) {
        printf("%.*s\n", SLICE_FMT(strbuf_slice(&r.body)));
    } else if (!cli->quiet) {
        struct strbuf id = {0};
        if (json_valid(strbuf_slice(&r.body)))
            json_unescape(json_get(strbuf_slice(&r.body), "id"), &id);
        printf("%s\n", strbuf_cstr(&id));
        strbuf_free(&id);
    }
    http_result_free(&r);
    return status;
}

int token_revoke(struct cli *cli, int argc, char **argv)
{
    static const struct option own[] = {
        {"jti", required_argument, NULL, 'J'},    {"sub", required_argument, NULL, 'S'},
        {"key", required_argument, NULL, 'k'},    {"kid", required_argument, NULL, 'K'},
        {"before", required_argument, NULL, 'b'}, {0}};
    const char *name = NULL, *text = NULL;
    int64_t before_ms = 0;
    bool before = false;
    unsigned said = 0;
    for (int c; (c = cli_option(cli, argc, argv, "k:", own)) != -1;) {
        if (c == '?')
            return EXIT_USAGE;
        if (c == 'b') {
            before = true;
            if (!time_read(cli, "--before", optarg, &before_ms))
                return EXIT_USAGE;
            continue;
        }
        name = c == 'J' ? "jti" : c == 'S' ? "sub" : c == 'k' ? "key" : "kid";
        text = optarg;
        said++;
    }
    if (optind < argc)
        return cli_misuse(cli, "token revoke takes options only, and there is \"%s\"",
                          argv[optind]);
    if (said != 1)
        return cli_misuse(cli, "say what to revoke: one of --jti, --sub, --key, --kid");
    if (before && strcmp(name, "jti") == 0)
        return cli_misuse(cli, "--before goes with --sub, --key and --kid: a jti is one token");
    struct strbuf body = {0};
    revocation_put(&body, name, text, before ? &before_ms : NULL);
    int status = revoke(cli, strbuf_slice(&body));
    strbuf_free(&body);
    return status;
}

/* ---- the command ---- */

int command_token(struct cli *cli, int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(struct cli *cli, int argc, char **argv);
    } verbs[] = {{"new", token_new}, {"check", token_check_verb}, {"revoke", token_revoke}};
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].run(cli, argc - 1, argv + 1);
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return cli_option(cli, argc, argv, "", NULL); /* prints it and ends */
    return cli_misuse(cli, "say new, check or revoke");
}
