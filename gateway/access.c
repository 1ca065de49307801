/* CORE. Who may ask from where. A page on the web must not reach a developer's gateway: a foreign
 * Origin, and on a loopback listener a Host that is not loopback (a name that was rebound), is
 * refused for every method. Who is asked for a token needs no such rule for the Host: a page cannot
 * send what it does not have. The same list decides CORS. */
#include "gateway/core.h"

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c - 'A' + 'a') : c;
}

static bool same_text(struct slice a, struct slice b)
{
    if (a.size != b.size)
        return false;
    for (size_t i = 0; i < a.size; i++)
        if (lower(a.data[i]) != lower(b.data[i]))
            return false;
    return true;
}

static bool all_in(struct slice text, const char *allowed)
{
    for (size_t i = 0; i < text.size; i++)
        if (!strchr(allowed, text.data[i]) || text.data[i] == 0)
            return false;
    return true;
}

static struct slice drop_front(struct slice s, size_t n)
{
    return slice_of(s.data + n, s.size - n);
}

/* "localhost:8080" -> "localhost"; false: the port is no number. */
static bool host_split(struct slice authority, struct slice *host)
{
    size_t end = authority.size;
    while (end > 0 && authority.data[end - 1] != ':' && authority.data[end - 1] != ']')
        end--;
    bool port = end > 0 && authority.data[end - 1] == ':';
    *host = port ? slice_of(authority.data, end - 1) : authority;
    return !port || all_in(drop_front(authority, end), "0123456789");
}

static bool is_loopback(struct slice authority)
{
    struct slice host;
    if (!host_split(authority, &host) || host.size == 0)
        return false;
    const struct slice suffix = slice_text(".localhost");
    if (same_text(host, slice_text("localhost")) || slice_is(host, "[::1]"))
        return true;
    if (host.size > suffix.size)
        if (same_text(drop_front(host, host.size - suffix.size), suffix))
            return true;
    return host.size > 4 && memcmp(host.data, "127.", 4) == 0 && all_in(host, "0123456789.");
}

/* The authority of an http(s) origin; empty: another scheme. */
static struct slice origin_authority(struct slice origin)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(schemes[i]);
        if (origin.size > n && same_text(slice_of(origin.data, n), slice_text(schemes[i])))
            return drop_front(origin, n);
    }
    return slice_of(NULL, 0);
}

/* *any: the list allows every origin. */
static bool origin_allowed(const struct gateway *g, struct slice origin, struct slice host,
                           bool *any)
{
    struct slice authority = origin_authority(origin);
    *any = false;
    if (!g->options.origins) {
        if (authority.size == 0)
            return false;
        return g->options.loopback ? is_loopback(authority) : same_text(authority, host);
    }
    for (const char *const *at = g->options.origins; *at; at++) {
        if (strcmp(*at, "*") == 0) {
            *any = true;
            return true;
        }
        if (same_text(origin, slice_text(*at)))
            return true;
    }
    return false;
}

static bool printable(struct slice text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] <= 0x20 || text.data[i] >= 0x7f)
            return false;
    return true;
}

bool access_check(struct exchange *x)
{
    const struct gateway *g = x->g;
    struct slice host = http_header_get(x->request, "Host");
    struct slice origin = http_header_get(x->request, "Origin");
    bool any = false;
    if (!g->options.tokens && g->options.loopback && host.data && !is_loopback(host)) {
        exchange_error(x, "OriginRefused",
                       "this gateway listens on loopback only: address it as localhost");
        return false;
    }
    if (!origin.data)
        return true;
    if (http_header_repeated(x->request, "Origin") || !printable(origin) ||
        !origin_allowed(g, origin, host, &any)) {
        exchange_error(x, "OriginRefused", "this origin is not allowed: add it to gateway.origins");
        return false;
    }
    strbuf_put_text(&x->cors, "Access-Control-Allow-Origin: ");
    strbuf_put_slice(&x->cors, any ? slice_text("*") : origin);
    strbuf_put_text(&x->cors, "\r\nAccess-Control-Expose-Headers: Retry-After\r\n");
    if (!any)
        strbuf_put_text(&x->cors, "Vary: Origin\r\n");
    return true;
}
