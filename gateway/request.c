/* CORE. Helpers over a parsed request: headers without case, percent-decoding, query parameters.
 * Nothing here trusts its input; what is decoded is decoded exactly once. */
#include "gateway/request.h"

#include <string.h>

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

static bool equal_nocase(struct slice a, const char *text, size_t size)
{
    if (a.size != size)
        return false;
    for (size_t i = 0; i < size; i++)
        if (lower(a.data[i]) != lower((uint8_t)text[i]))
            return false;
    return true;
}

struct slice http_header_get(const struct http_request *request, const char *name)
{
    size_t size = strlen(name);
    for (size_t i = 0; i < request->n_headers; i++)
        if (equal_nocase(request->headers[i].name, name, size))
            return request->headers[i].value;
    return slice_of(NULL, 0);
}

bool http_header_repeated(const struct http_request *request, const char *name)
{
    size_t size = strlen(name);
    unsigned count = 0;
    for (size_t i = 0; i < request->n_headers; i++)
        count += equal_nocase(request->headers[i].name, name, size);
    return count > 1;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

struct slice http_media_type(const struct http_request *request)
{
    struct slice type = http_header_get(request, "Content-Type");
    const uint8_t *end = type.size ? memchr(type.data, ';', type.size) : NULL;
    if (end)
        type.size = (size_t)(end - type.data);
    while (type.size > 0 && is_blank(type.data[type.size - 1]))
        type.size--;
    return type;
}

static bool ends_nocase(struct slice a, const char *text)
{
    size_t size = strlen(text);
    return a.size > size && equal_nocase(slice_of(a.data + a.size - size, size), text, size);
}

bool http_may_be_json(const struct http_request *request)
{
    static const char *const unsaid[] = {"", "text/plain", "application/x-www-form-urlencoded"};
    struct slice coding = http_header_get(request, "Content-Encoding");
    struct slice type = http_media_type(request);
    if (coding.size > 0 && !equal_nocase(coding, "identity", strlen("identity")))
        return false;
    for (size_t i = 0; i < sizeof unsaid / sizeof *unsaid; i++)
        if (equal_nocase(type, unsaid[i], strlen(unsaid[i])))
            return true;
    return ends_nocase(type, "/json") || ends_nocase(type, "+json");
}

bool http_header_has_token(struct slice value, const char *token)
{
    size_t size = strlen(token);
    size_t at = 0;
    while (at < value.size) {
        size_t end = at;
        while (end < value.size && value.data[end] != ',')
            end++;
        size_t from = at;
        size_t to = end;
        while (from < to && is_blank(value.data[from]))
            from++;
        while (to > from && is_blank(value.data[to - 1]))
            to--;
        if (equal_nocase(slice_of(value.data + from, to - from), token, size))
            return true;
        at = end + 1;
    }
    return false;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int http_decode(struct slice raw, bool query, struct strbuf *out)
{
    for (size_t i = 0; i < raw.size; i++) {
        uint8_t c = raw.data[i];
        if (c == '%') {
            if (raw.size - i < 3)
                return ERR_INVALID;
            int high = hex_digit(raw.data[i + 1]);
            int low = hex_digit(raw.data[i + 2]);
            if (high < 0 || low < 0)
                return ERR_INVALID;
            c = (uint8_t)(high * 16 + low);
            i += 2;
        } else if (c == '+' && query) {
            c = ' ';
        }
        if (c == 0)
            return ERR_INVALID;
        strbuf_put_byte(out, c);
    }
    return ERR_OK;
}

/* Whether a raw parameter name, once decoded, is `name`. */
static bool name_matches(struct slice raw, const char *name)
{
    struct strbuf decoded = {0};
    bool same =
        http_decode(raw, true, &decoded) == ERR_OK && slice_is(strbuf_slice(&decoded), name);
    strbuf_free(&decoded);
    return same;
}

int http_query_raw(struct slice query, const char *name, struct slice *out)
{
    bool seen = false;
    size_t at = 0;
    while (at < query.size) {
        const uint8_t *amp = memchr(query.data + at, '&', query.size - at);
        size_t end = amp ? (size_t)(amp - query.data) : query.size;
        struct slice pair = slice_of(query.data + at, end - at);
        const uint8_t *equals = pair.size ? memchr(pair.data, '=', pair.size) : NULL;
        size_t name_size = equals ? (size_t)(equals - pair.data) : pair.size;
        if (name_size && name_matches(slice_of(pair.data, name_size), name)) {
            if (seen)
                return ERR_INVALID;
            seen = true;
            *out = equals ? slice_of(equals + 1, pair.size - name_size - 1)
                          : slice_of(pair.data + pair.size, 0);
        }
        at = end + 1;
    }
    return seen ? ERR_OK : ERR_NOT_FOUND;
}

int http_query_get(struct slice query, const char *name, struct strbuf *out)
{
    struct slice raw;
    TRY(http_query_raw(query, name, &raw));
    return http_decode(raw, true, out);
}
