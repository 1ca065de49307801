/* CORE. One HTTP request as the program parsed it, and one answer. Plain data between http.c
 * (bytes) and the gateway core (meaning). All slices are borrowed for the call. */
#ifndef STOA_GATEWAY_REQUEST_H
#define STOA_GATEWAY_REQUEST_H

#include "common/err.h"
#include "common/slice.h"
#include "common/strbuf.h"

#define HTTP_HEADERS_MAX 100 /* nginx's and Apache's default count */

enum http_method {
    HTTP_M_GET,
    HTTP_M_HEAD,
    HTTP_M_POST,
    HTTP_M_PUT,
    HTTP_M_DELETE,
    HTTP_M_OPTIONS,
    HTTP_M_OTHER
};

struct http_header {
    struct slice name;  /* as sent; compare without case */
    struct slice value; /* outer white space removed */
};

struct http_request {
    enum http_method method;
    struct slice path;  /* raw, still percent-encoded, without query; begins with '/' */
    struct slice query; /* raw, without '?' */
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t n_headers;
    struct slice body;
    bool upgrade; /* a WebSocket upgrade that passed the handshake's checks (RFC 6455 4.2.1) */
    struct slice peer_ip; /* text, after trusted proxies */
};

struct http_response {
    unsigned status;
    const char *content_type; /* NULL: no body */
    struct slice body;
    /* Extra headers, each "Name: value\r\n"; may be empty. Never contains input that was not
     * checked. */
    struct slice headers;
    bool close; /* close the connection afterwards */
};

/* The value of a header (first one), size 0 and data NULL when absent. */
struct slice http_header_get(const struct http_request *request, const char *name);
/* Whether a header stands there more than once: what it says then depends on who reads it. */
bool http_header_repeated(const struct http_request *request, const char *name);
/* True when a comma-separated header holds the token (without case). */
bool http_header_has_token(struct slice value, const char *token);
/* What Content-Type says without parameters, as sent; empty: nothing. */
struct slice http_media_type(const struct http_request *request);
/* Whether the body may be JSON text by what is said of it: nothing, JSON, or what clients say
 * that were not told what to say (curl -d, fetch). Not: another type, any Content-Encoding. */
bool http_may_be_json(const struct http_request *request);
/* Percent-decodes once ('+' stays '+' in a path, is a space in a query). ERR_INVALID: broken
 * escape, NUL. */
MUST_USE int http_decode(struct slice raw, bool query, struct strbuf *out);
/* A query parameter as it stands there. ERR_NOT_FOUND, ERR_INVALID (it occurs twice). */
MUST_USE int http_query_raw(struct slice query, const char *name, struct slice *out);
/* A query parameter, decoded into `out`. ERR_NOT_FOUND, ERR_INVALID (also when it occurs twice). */
MUST_USE int http_query_get(struct slice query, const char *name, struct strbuf *out);

#endif
