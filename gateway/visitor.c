/* CORE. Who asks for a connection, as far as a room's handler may know: query, address and a few
 * headers. A raw socket's visitor lives as long as its request; a stoa.v1 session keeps its own,
 * because each of its keys may be another room. */
#include "common/json.h"
#include "gateway/core.h"

struct visitor {
    struct slice query, ip; /* all slices point behind the headers */
    size_t n_headers;
    struct http_header headers[];
};

static const char *const usual[] = {"origin", "user-agent", "accept-language"};
#define USUAL_COUNT (sizeof usual / sizeof *usual)

static struct slice bytes_take(uint8_t **at, struct slice from)
{
    if (from.size > 0)
        memcpy(*at, from.data, from.size);
    struct slice copy = slice_of(*at, from.size);
    *at += from.size;
    return copy;
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 'a' - 'A') : c;
}

static bool name_is(struct slice name, const char *wanted)
{
    size_t size = strlen(wanted);
    if (name.size != size)
        return false;
    for (size_t i = 0; i < size; i++)
        if (lower(name.data[i]) != lower((uint8_t)wanted[i]))
            return false;
    return true;
}

/* Whether any handler may see it. */
static bool is_wanted(const struct gateway *g, struct slice name)
{
    for (size_t i = 0; i < USUAL_COUNT; i++)
        if (name_is(name, usual[i]))
            return true;
    for (size_t t = 0; t < g->options.n_types; t++)
        for (const char *const *at = g->options.types[t].headers; at && *at; at++)
            if (name_is(name, *at))
                return true;
    return false;
}

static bool has_handlers(const struct gateway *g)
{
    for (size_t i = 0; i < g->options.n_types; i++)
        if (g->options.types[i].has_handler)
            return true;
    return false;
}

struct visitor *visitor_of(const struct gateway *g, const struct http_request *request)
{
    if (!has_handlers(g))
        return NULL;
    size_t count = 0, bytes = request->query.size + request->peer_ip.size;
    for (size_t i = 0; i < request->n_headers; i++) {
        const struct http_header *h = &request->headers[i];
        if (!is_wanted(g, h->name))
            continue;
        count++;
        bytes += h->name.size + h->value.size;
    }
    struct visitor *v = mem_alloc(sizeof *v + count * sizeof *v->headers + bytes);
    uint8_t *at = (uint8_t *)&v->headers[count];
    v->n_headers = 0;
    v->query = bytes_take(&at, request->query);
    v->ip = bytes_take(&at, request->peer_ip);
    for (size_t i = 0; i < request->n_headers; i++) {
        const struct http_header *h = &request->headers[i];
        if (!is_wanted(g, h->name))
            continue;
        struct http_header *copy = &v->headers[v->n_headers++];
        copy->name = bytes_take(&at, h->name);
        copy->value = bytes_take(&at, h->value);
    }
    return v;
}

/* ---- the request ---- */

/* "a=b&c" -> "a=b". False: no more. */
static bool pair_next(struct slice *query, struct slice *pair)
{
    if (query->size == 0)
        return false;
    const uint8_t *end = memchr(query->data, '&', query->size);
    size_t size = end ? (size_t)(end - query->data) : query->size;
    *pair = slice_of(query->data, size);
    size_t taken = end ? size + 1 : size;
    *query = slice_of(query->data + taken, query->size - taken);
    return true;
}

/* A parameter that comes again does not count: the first is what URLSearchParams.get gives. */
static bool came_before(const struct slice *names, size_t count, struct slice name)
{
    for (size_t i = 0; i < count; i++)
        if (slice_equal(names[i], name))
            return true;
    return false;
}

static bool text_put(struct strbuf *out, struct slice raw)
{
    struct strbuf text = {0};
    bool fine = http_decode(raw, true, &text) == ERR_OK;
    json_quote(out, strbuf_slice(&text));
    strbuf_free(&text);
    return fine;
}

/* A token is for the gateway, in whatever spelling it came. */
static bool is_token(struct slice raw)
{
    struct strbuf name = {0};
    bool is = http_decode(raw, true, &name) == ERR_OK && slice_is(strbuf_slice(&name), "token");
    strbuf_free(&name);
    return is;
}

/* Names are compared as they were sent: two spellings of one name are both given, and the JSON's
 * reader takes the last. */
static bool query_put(struct strbuf *out, struct slice query)
{
    struct slice pair, names[QUERY_PARAMETERS_MAX];
    size_t count = 0;
    strbuf_put_byte(out, '{');
    while (pair_next(&query, &pair)) {
        const uint8_t *equals = pair.size ? memchr(pair.data, '=', pair.size) : NULL;
        struct slice name = slice_of(pair.data, equals ? (size_t)(equals - pair.data) : pair.size);
        struct slice value =
            equals ? slice_of(equals + 1, pair.size - name.size - 1) : slice_of(pair.data, 0);
        if (pair.size == 0 || is_token(name) || came_before(names, count, name))
            continue;
        if (count == QUERY_PARAMETERS_MAX)
            return false;
        if (count > 0)
            strbuf_put_byte(out, ',');
        names[count++] = name;
        if (!text_put(out, name))
            return false;
        strbuf_put_byte(out, ':');
        if (!text_put(out, value))
            return false;
    }
    strbuf_put_byte(out, '}');
    return true;
}

/* The first header of the name, if there is one. */
static void header_put(struct strbuf *out, const struct visitor *v, const char *name, bool *any)
{
    for (size_t i = 0; i < v->n_headers; i++) {
        if (!name_is(v->headers[i].name, name))
            continue;
        if (*any)
            strbuf_put_byte(out, ',');
        *any = true;
        strbuf_put_byte(out, '"');
        for (const char *c = name; *c; c++)
            strbuf_put_byte(out, lower((uint8_t)*c));
        strbuf_put_text(out, "\":");
        json_quote(out, v->headers[i].value);
        return;
    }
}

const char *visitor_request(const struct visitor *v, const struct gateway_type *type,
                            const struct identity *who, struct slice client_state,
                            struct strbuf *out, const char **message)
{
    bool any = false;
    strbuf_put_text(out, "{\"query\":");
    *message = "the query: at most 100 parameters, percent-encoded";
    if (!query_put(out, v->query))
        return "BadRequest";
    strbuf_put_text(out, ",\"claims\":");
    strbuf_put_slice(out, who && who->claims.size > 0 ? who->claims : slice_text("null"));
    strbuf_put_text(out, ",\"headers\":{");
    for (size_t i = 0; i < USUAL_COUNT; i++)
        header_put(out, v, usual[i], &any);
    for (const char *const *at = type->headers; at && *at; at++) {
        bool again = false;
        for (size_t i = 0; i < USUAL_COUNT; i++)
            again |= name_is(slice_text(*at), usual[i]);
        if (!again)
            header_put(out, v, *at, &any);
    }
    strbuf_put_text(out, "},\"ip\":");
    json_quote(out, v->ip);
    strbuf_put_text(out, ",\"client_state\":");
    strbuf_put_slice(out, client_state.size > 0 ? client_state : slice_text("null"));
    strbuf_put_byte(out, '}');
    *message = "query, headers and state are too much together";
    return out->size > JOIN_REQUEST_MAX_BYTES ? "TooLarge" : NULL;
}
