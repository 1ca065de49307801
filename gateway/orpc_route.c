/* CORE. Who is let in on the orpc dialect. The route has a signing key of its own, whatever
 * auth.mode is: the token that an oRPC server made with it says which channel (`chn`), which
 * methods and until when. Checks, their order and their bodies are the original's:
 *
 *   no upgrade 426 -> no id (E2) 401 -> no token 401 -> token not good 401 -> 101
 *
 * Before them stands what the original cannot meet: a route without a signing key, 503. Behind them
 * a channel that is no key, 400, or of a type that the route does not serve, 403. */
#include "gateway/orpc.h"

static const struct gateway_route usual = {
    .path = "/iterator", .key = "{chn}", .dialect = ROUTE_ORPC, .retry_ms = 250};

struct slice orpc_signing_key(const struct gateway *g, const struct gateway_route *route)
{
    const char *key = route->signing_key ? route->signing_key : g->options.orpc_signing_key;
    return key ? slice_text(key) : slice_of(NULL, 0);
}

/* A room's handler knows a connection by the claim `id`, which is not in these tokens: the
 * connection has chosen it. */
struct identity *orpc_who(const struct orpc_claims *claims, struct slice key, struct slice id)
{
    struct identity *signed_by = orpc_identity(claims, key, id);
    struct strbuf told = {0};
    size_t end = claims->json.size;
    if (!id.data)
        return signed_by;
    while (claims->json.data[end - 1] != '}')
        end--;
    strbuf_put(&told, claims->json.data, end - 1);
    strbuf_put_text(&told, ",\"id\":");
    json_quote(&told, id);
    strbuf_put_byte(&told, '}');
    struct identity with_id = *signed_by;
    with_id.claims = strbuf_slice(&told);
    struct identity *who = identity_create(&with_id);
    identity_unref(signed_by);
    strbuf_free(&told);
    return who;
}

static void refuse(struct exchange *x, unsigned status, const char *tag, const char *text,
                   const char *headers)
{
    refused_note(x->g, tag, text);
    answer(x->g, x->client, exchange_cors(x), status, "text/plain;charset=UTF-8", slice_text(text),
           headers);
}

/* The first kind of tokens is a JWT, and its clients send no id. */
static bool is_first_kind(struct slice token)
{
    size_t dots = 0;
    for (size_t i = 0; i < token.size; i++)
        dots += token.data[i] == '.';
    return token.size > 0 && token.data[0] != '{' && dots == 2;
}

static void session_begin(struct exchange *x, const struct orpc_claims *claims)
{
    struct gateway *g = x->g;
    struct session *s = session_open(g, x->client, &dialect_orpc);
    struct orpc *o = mem_zalloc(sizeof *o);
    o->route = x->route;
    o->named = claims->generation == ORPC_E2;
    strbuf_put_slice(&o->key, strbuf_slice(&x->key));
    list_init(&o->calls);
    list_init(&o->in_twins);
    o->session = s;
    o->birth = ++g->last_orpc;
    s->orpc = o;
    s->visitor = visitor_of(g, x->request);
    session_identify(g, s, identity_ref(x->who));
    session_admit(g, s, exchange_cors(x));
}

/* A template with a literal type names it: "orders:{chn}" serves orders. */
static bool names_type(const struct gateway_route *route)
{
    const char *colon = strchr(route->key, ':'), *brace = strchr(route->key, '{');
    return !route->types && colon && (!brace || colon < brace);
}

/* The token is good: whether its channel is one to be served here. */
static void enter(struct exchange *x, const struct orpc_claims *claims, struct slice id)
{
    const char *message = "", *tag;
    x->id.size = 0;
    strbuf_put_slice(&x->id, claims->chn);
    strbuf_reset(&x->key);
    if (!own_route_key(x))
        strbuf_reset(&x->key); /* refused as a key, with the reason */
    x->who = orpc_who(claims, strbuf_slice(&x->key), id);
    x->asked = true;
    tag = identity_judge(x->g, x->who, &message);
    if (tag && strcmp(tag, "Busy") == 0)
        exchange_error(x, tag, message);
    else if (tag)
        refuse(x, 401, "Unauthorized", "Invalid Token", "");
    else if (x->g->draining)
        exchange_error(x, "Draining", "this gateway is shutting down; connect to another one");
    else if (exchange_admit(x, RIGHT_SUBSCRIBE) && (names_type(x->route) || exchange_serves(x)))
        session_begin(x, claims);
}

static void judge(struct exchange *x, bool has_id, struct slice id, struct slice token)
{
    struct orpc_claims claims;
    if (!has_id && !is_first_kind(token))
        refuse(x, 401, "Unauthorized", "ID is required", "");
    else if (token.size == 0)
        refuse(x, 401, "Unauthorized", "Token is required", "");
    else if (orpc_token_check(orpc_signing_key(x->g, x->route), token, x->g->now.wall_ms,
                              &claims) != NULL)
        refuse(x, 401, "Unauthorized", "Invalid Token", "");
    else {
        enter(x, &claims, claims.generation == ORPC_E2 ? id : slice_of(NULL, 0));
        orpc_claims_free(&claims);
    }
}

void route_orpc(struct exchange *x)
{
    struct strbuf id = {0}, token = {0};
    if (!x->route)
        x->route = &usual;
    if (orpc_signing_key(x->g, x->route).size == 0) {
        exchange_error(x, "Busy",
                       "this gateway has no signing key for oRPC's tokens: set signing_key_file of "
                       "the route, or STOA_ORPC_SIGNING_KEY, and start it again");
    } else if (!x->request->upgrade) {
        refuse(x, 426, "UpgradeRequired", "Expected WebSocket upgrade", "Upgrade: websocket\r\n");
    } else {
        strbuf_put_byte(&id, 0); /* so that an empty id is one too */
        bool has_id = orpc_query_last(x->request->query, "id", &id);
        (void)orpc_query_last(x->request->query, "token", &token);
        judge(x, has_id, slice_of(id.data + 1, id.size - 1), strbuf_slice(&token));
    }
    strbuf_free(&id);
    strbuf_free(&token);
}
