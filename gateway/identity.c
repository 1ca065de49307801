/* CORE. Who asks: the token of a request or frame becomes an identity, which is judged by the clock
 * and by what was revoked; then each right is asked of it.
 *
 *   text --cache, or token_check (signature)--> identity --clock, revoked.c--> in force
 *
 * The end of an identity is enforced where it holds something open: one timer in the heap for each
 * session, and for each subscription that came with a token of its own. The clock on the wall may
 * be set: a timer looks at it again at least every LOOK_AGAIN_MS, and it decides.
 *
 * Who opened a stoa.v1 socket without a token is `nobody`, who has no right; nobody at all (NULL)
 * is for auth.mode none, where all may do everything. */
#include "gateway/core.h"

#define LOOK_AGAIN_MS 30000
#define CACHE_MAX_ENTRIES 65536
#define CACHE_MAX_BYTES (64 * MIB)

static const char *const expired_text = "the token has expired: get a new one";

/* ---- tokens ---- */

static bool is_bearer(struct slice value, struct slice *token)
{
    static const char scheme[] = "bearer ";
    size_t size = sizeof scheme - 1;
    if (value.size < size)
        return false;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = value.data[i];
        if ((c >= 'A' && c <= 'Z' ? (uint8_t)(c - 'A' + 'a') : c) != (uint8_t)scheme[i])
            return false;
    }
    while (size < value.size && value.data[size] == ' ')
        size++;
    *token = slice_of(value.data + size, value.size - size);
    return true;
}

/* The token of a request; size 0: there is none. What the query says is decoded into `text`. */
static const char *token_find(const struct http_request *request, struct strbuf *text,
                              struct slice *token, const char **message)
{
    struct slice header = slice_of(NULL, 0);
    bool has_header = is_bearer(http_header_get(request, "Authorization"), &header);
    int found = http_query_get(request->query, "token", text);
    if (has_header && http_header_repeated(request, "Authorization")) {
        *message = "Authorization: at most one";
        return "BadRequest";
    }
    if (found == ERR_INVALID) {
        *message = "token: at most one in the query, percent-encoded";
        return "BadRequest";
    }
    bool has_query = found == ERR_OK && text->size > 0;
    if (has_header && has_query && !slice_equal(header, strbuf_slice(text))) {
        *message = "the header and the query name different tokens: send one";
        return "BadRequest";
    }
    *token = has_header ? header : has_query ? strbuf_slice(text) : slice_of(NULL, 0);
    return NULL;
}

const char *identity_of_token(struct gateway *g, struct slice token, struct identity **who,
                              const char **message)
{
    *who = NULL;
    if (!g->options.tokens)
        return NULL;
    struct identity *found = identity_ref(token_cache_get(g->tokens, token));
    if (!found) {
        metric_add(g->m.token_checks, 1);
        if (g->options.token_check(g->options.tokens, token, g->now.wall_ms, &found) != NULL) {
            *message = TOKEN_NO_GOOD;
            return "Unauthorized";
        }
        token_cache_put(g->tokens, token, found);
    }
    const char *tag = identity_judge(g, found, message);
    if (tag)
        identity_unref(found);
    else
        *who = found;
    return tag;
}

const char *identity_of_request(struct gateway *g, const struct http_request *request,
                                struct identity **who, const char **message)
{
    struct strbuf text = {0};
    struct slice token = {0};
    *who = NULL;
    if (!g->options.tokens)
        return NULL;
    const char *tag = token_find(request, &text, &token, message);
    if (!tag && token.size == 0) {
        *message = "a token is needed: send it as Authorization: Bearer, or as ?token=";
        tag = "Unauthorized";
    }
    if (!tag)
        tag = identity_of_token(g, token, who, message);
    strbuf_free(&text);
    return tag;
}

bool request_has_token(const struct gateway *g, const struct http_request *request)
{
    struct strbuf text = {0};
    struct slice token = {0};
    const char *message;
    bool has = g->options.tokens &&
               (token_find(request, &text, &token, &message) != NULL || token.size > 0);
    strbuf_free(&text);
    return has;
}

void gateway_refuse_token(struct gateway *g, uint64_t client, unsigned status, const char *tag,
                          const char *message)
{
    if (g->options.tokens)
        gateway_refuse(g, client, 401, "Unauthorized", TOKEN_NO_GOOD);
    else
        gateway_refuse(g, client, status, tag, message);
}

const char *identity_judge(struct gateway *g, const struct identity *who, const char **message)
{
    if (!who || who == g->nobody)
        return NULL;
    if (g->now.wall_ms >= who->expires_ms) {
        *message = expired_text;
        return "TokenExpired";
    }
    if (!identity_timely(who, g->now.wall_ms)) {
        *message = TOKEN_NO_GOOD;
        return "Unauthorized";
    }
    return revoked_judge(g, who, message);
}

/* ---- rights ---- */

bool exchange_who(struct exchange *x)
{
    const char *message = "", *tag;
    if (x->asked)
        return true;
    tag = identity_of_request(x->g, x->request, &x->who, &message);
    x->asked = tag == NULL;
    if (tag)
        exchange_error(x, tag, message);
    return x->asked;
}

bool exchange_maybe_who(struct exchange *x)
{
    if (x->asked || !x->g->options.tokens || request_has_token(x->g, x->request))
        return exchange_who(x);
    x->who = identity_ref(x->g->nobody);
    x->asked = true;
    return true;
}

bool exchange_allow(struct exchange *x, enum right right, struct slice key)
{
    if (!exchange_who(x))
        return false;
    if (identity_may(x->who, right, key))
        return true;
    exchange_error(x, "Forbidden",
                   identity_covers(x->who, key) ? "the token does not give this right on the key"
                                                : "the token does not name this key");
    return false;
}

static bool names_all(const struct identity *who, struct slice beginning)
{
    for (size_t i = 0; i < who->prefixes.count; i++) {
        struct slice prefix = who->prefixes.at[i];
        if (prefix.size == 0 || (beginning.size >= prefix.size &&
                                 memcmp(beginning.data, prefix.data, prefix.size) == 0))
            return true;
    }
    return false;
}

bool exchange_allow_all(struct exchange *x, enum right right, struct slice beginning)
{
    if (!exchange_who(x))
        return false;
    if (!x->who || ((x->who->rights & 1u << right) && names_all(x->who, beginning)))
        return true;
    exchange_error(x, "Forbidden",
                   "this is about many keys: it needs a token with the right `manage` and a "
                   "`prefix` that covers them all");
    return false;
}

static bool allows(const struct identity *who, enum right right, struct slice key,
                   struct slice method)
{
    return right == RIGHT_CALL ? identity_may_call(who, key, method)
                               : identity_may(who, right, key);
}

const char *session_refusal(const struct gateway *g, const struct session *s, enum right right,
                            struct slice key, struct slice method, const char **message)
{
    if (allows(s->identity, right, key, method))
        return NULL;
    const struct room *room = room_find(g, key);
    const struct subscription *sub = room ? subscription_find(s, room) : NULL;
    bool granted = sub && sub->identity;
    if (granted && allows(sub->identity, right, key, method))
        return NULL;
    if (s->identity == g->nobody && !granted) {
        *message = "this socket came without a token: send {\"token\":T}, or one with the sub";
        return "Unauthorized";
    }
    *message = "the token does not give this right on this key";
    return "Forbidden";
}

/* ---- the end of an identity ---- */

static void expiry_set(struct gateway *g, struct timer *t, const struct identity *who)
{
    if (!who || who == g->nobody) {
        timer_stop(g, t);
        return;
    }
    int64_t left_ms = who->expires_ms > g->now.wall_ms ? who->expires_ms - g->now.wall_ms : 0;
    if (left_ms > LOOK_AGAIN_MS)
        left_ms = LOOK_AGAIN_MS;
    timer_set(g, t, g->now.mono_ns + left_ms * NS_PER_MS);
}

static void session_expiry_fire(struct gateway *g, struct timer *t)
{
    struct session *s = LIST_ENTRY(t, struct session, expiry);
    if (s->closing)
        return;
    if (g->now.wall_ms < s->identity->expires_ms)
        expiry_set(g, t, s->identity);
    else
        session_unidentify(g, s, "TokenExpired", "Token expired", expired_text);
}

void session_unidentify(struct gateway *g, struct session *s, const char *tag, const char *reason,
                        const char *message)
{
    if (s->hold)
        hold_refuse(g, s, tag, message);
    else if (!s->closing)
        s->dialect->expired(g, s, tag, reason);
}

void session_identify(struct gateway *g, struct session *s, struct identity *who)
{
    identity_unref(s->identity);
    s->identity = who;
    s->expiry.fire = session_expiry_fire;
    expiry_set(g, &s->expiry, who);
}

static void subscription_expiry_fire(struct gateway *g, struct timer *t)
{
    struct subscription *sub = LIST_ENTRY(t, struct subscription, expiry);
    if (g->now.wall_ms < sub->identity->expires_ms)
        expiry_set(g, t, sub->identity);
    else
        sub->session->dialect->end(g, sub, 1008, slice_text("Token expired"));
}

void subscription_identify(struct gateway *g, struct subscription *sub, struct identity *who)
{
    STOA_ASSERT(!sub->identity);
    if (!who)
        return;
    sub->identity = identity_ref(who);
    sub->session->n_granted++;
    sub->expiry.fire = subscription_expiry_fire;
    expiry_set(g, &sub->expiry, who);
}

void subscription_unidentify(struct gateway *g, struct subscription *sub)
{
    if (!sub->identity)
        return;
    timer_stop(g, &sub->expiry);
    sub->session->n_granted--;
    identity_unref(sub->identity);
    sub->identity = NULL;
}

const char *session_renew(struct gateway *g, struct session *s, struct identity *who,
                          const char **message)
{
    if (s->identity && s->identity != g->nobody && !identity_same_person(s->identity, who)) {
        identity_unref(who);
        *message = "a renewed token carries the same id and the same tags: open another socket";
        return "Forbidden";
    }
    session_identify(g, s, who);
    LIST_EACH(cursor, after, &s->subs)
    {
        struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_session);
        if (!sub->identity && !identity_may(who, RIGHT_SUBSCRIBE, room_key(sub->room)))
            s->dialect->end(g, sub, 1008, slice_text("the renewed token does not cover this key"));
        if (s->closing)
            break;
    }
    return NULL;
}

/* ---- life ---- */

void identity_init(struct gateway *g)
{
    static const struct identity nobody = {.expires_ms = INT64_MAX};
    g->nobody = identity_create(&nobody);
    g->tokens = token_cache_create(g->options.seed, CACHE_MAX_ENTRIES, CACHE_MAX_BYTES);
    if (g->options.tokens)
        revoked_begin(g);
}

void identity_stop(struct gateway *g)
{
    identity_unref(g->nobody);
    token_cache_destroy(&g->tokens);
}

/* ---- after a reload ---- */

static bool is_kept(const char *const *kept, struct slice kid)
{
    for (; *kept; kept++)
        if (slice_is(kid, *kept))
            return true;
    return false;
}

/* Whether who was let in before may stay. */
static bool stays(const struct gateway *g, const struct session *s, const char *const *kept)
{
    if (s->dialect->own_tokens)
        return true;
    if (!s->identity)
        return !g->options.tokens;
    return s->identity == g->nobody || is_kept(kept, s->identity->key_id);
}

static void grants_review(struct gateway *g, struct session *s, const char *const *kept)
{
    LIST_EACH(cursor, after, &s->subs)
    {
        struct subscription *sub = LIST_ENTRY(cursor, struct subscription, in_session);
        if (sub->identity && !is_kept(kept, sub->identity->key_id))
            s->dialect->end(g, sub, 1008, slice_text("the keys of tokens have changed"));
        if (s->closing)
            return;
    }
}

void gateway_retoken(struct gateway *g, const struct token_checker *tokens, int64_t max_ttl_ms,
                     const char *const *kept, struct tick now)
{
    g->now = now;
    g->options.tokens = tokens;
    g->options.token_max_ttl_ms = max_ttl_ms;
    token_cache_clear(g->tokens);
    if (tokens)
        revoked_begin(g);
    else
        revoked_stop(g);
    LIST_EACH(cursor, after, &g->sessions_all)
    {
        struct session *s = LIST_ENTRY(cursor, struct session, all);
        if (!s->closing && !stays(g, s, kept))
            session_unidentify(g, s, "Unauthorized", "the keys of tokens have changed",
                               "the keys of tokens have changed: get a new token");
        else if (!s->closing && s->n_granted > 0)
            grants_review(g, s, kept);
    }
}
