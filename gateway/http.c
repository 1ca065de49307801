/* CORE. HTTP/1 requests from bytes: http-parser splits the head, this file decides what may pass
 * and takes the body.
 *
 *   bytes:  [ answered ][ head | body ][ not parsed yet, or behind the request ]
 *           0           base           base + parsed                          size
 *
 * Bytes of a head are looked at line by line before the parser sees them, so that lines which
 * servers are known to read differently never reach it: a line ending without CR, a continued
 * (folded) line. A body in chunks is decoded in place: its bytes move down to where the body ends,
 * over the framing. Slices into the bytes are kept as offsets from `base`, because the memory may
 * move while bytes arrive. */
#include "gateway/http.h"

#include <strings.h>

/* Both headers have an enum of that name; the library's is not needed. */
#define http_method http_parser_library_method
#include <http_parser.h>
#undef http_method

#include "common/limits.h"
#include "common/mem.h"
#include "gateway/http_chunked.h"

#define KEEP_CAPACITY_BYTES (64 * KIB) /* memory that a reset reader keeps */
#define BLANK_LINES_MAX 4              /* before a request line */
#define KEY_SIZE 24                    /* base64 of 16 bytes */

struct span {
    uint32_t at; /* from base */
    uint32_t size;
};

struct http_reader {
    http_parser parser;
    struct strbuf bytes;
    size_t base;
    size_t parsed;    /* bytes from base that the parser has seen */
    size_t line;      /* where the line begins that is being collected */
    size_t line_end;  /* of the request line */
    size_t head_size; /* 0: the head is not complete */
    size_t body_size;
    size_t length; /* announced by Content-Length */
    size_t body_max;
    struct chunked chunks;
    unsigned blank_lines;
    unsigned n_headers;
    bool in_value;
    bool has_line; /* the request line is complete */
    bool head_done;
    bool complete;
    bool chunked;
    bool expects_continue;
    bool keep_alive;
    bool upgrade;
    struct span target, path, query;
    struct span names[HTTP_HEADERS_MAX];
    struct span values[HTTP_HEADERS_MAX];
    struct http_refusal refusal;
};

static int refuse(struct http_reader *r, unsigned status, const char *tag, const char *message)
{
    if (r->refusal.status == 0)
        r->refusal = (struct http_refusal){status, tag, message, "", false};
    return -1;
}

static int refuse_bad(struct http_reader *r, const char *message)
{
    return refuse(r, 400, "BadRequest", message);
}

static int refuse_large(struct http_reader *r)
{
    return refuse(r, 413, "TooLarge", "The body is too large; send less, or in parts.");
}

static struct slice span_slice(const struct http_reader *r, struct span s)
{
    return slice_of(r->bytes.data + r->base + s.at, s.size);
}

/* Joins pieces that the parser reports one by one: they are neighbours in memory. */
static void span_extend(struct http_reader *r, struct span *s, const char *at, size_t size)
{
    size_t offset = (size_t)((const uint8_t *)at - (r->bytes.data + r->base));
    if (s->size == 0)
        s->at = (uint32_t)offset;
    s->size += (uint32_t)size;
}

static bool equal_nocase(struct slice s, const char *text)
{
    return s.size == strlen(text) && strncasecmp((const char *)s.data, text, s.size) == 0;
}

/* --- what a head must satisfy --- */

static struct slice header_value(const struct http_reader *r, const char *name, unsigned *count)
{
    struct slice value = slice_of(NULL, 0);
    *count = 0;
    for (unsigned i = 0; i < r->n_headers; i++) {
        if (!equal_nocase(span_slice(r, r->names[i]), name))
            continue;
        if ((*count)++ == 0)
            value = span_slice(r, r->values[i]);
    }
    return value;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_alpha(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_host(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        uint8_t c = s.data[i];
        if (!is_digit(c) && !is_alpha(c) && (c == 0 || !strchr("-._~:[]%!$&'()*+;=", c)))
            return false;
    }
    return true;
}

static bool is_name(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        uint8_t c = s.data[i];
        if (!is_digit(c) && !is_alpha(c) && (c == 0 || !strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return s.size > 0;
}

/* Splits the target. An absolute one ("http://host/path") must name the host that the Host header
 * names. */
static int check_target(struct http_reader *r, struct slice host)
{
    struct slice target = span_slice(r, r->target);
    size_t at = 0;
    for (size_t i = 0; i < target.size; i++)
        if (target.data[i] <= ' ' || target.data[i] == 0x7f || target.data[i] == '#')
            return refuse_bad(r, "The request target has a character that it must not have.");
    if (r->parser.method == HTTP_OPTIONS && slice_is(target, "*")) {
        r->path = (struct span){r->target.at, 0};
        return 0;
    }
    if (target.size && target.data[0] != '/') {
        size_t scheme = target.size >= 8 && target.data[4] == 's' ? 8 : 7;
        const char *text = scheme == 8 ? "https://" : "http://";
        if (target.size < scheme || !equal_nocase(slice_of(target.data, scheme), text))
            return refuse_bad(r, "The request target must begin with '/'.");
        for (at = scheme; at < target.size && target.data[at] != '/' && target.data[at] != '?';)
            at++;
        struct slice authority = slice_of(target.data + scheme, at - scheme);
        if (authority.size == 0 || authority.size != host.size || !is_host(authority) ||
            strncasecmp((const char *)authority.data, (const char *)host.data, host.size) != 0)
            return refuse_bad(r, "The request target and the Host header name different hosts.");
    }
    const uint8_t *mark = memchr(target.data + at, '?', target.size - at);
    size_t end = mark ? (size_t)(mark - target.data) : target.size;
    r->path = (struct span){r->target.at + (uint32_t)at, (uint32_t)(end - at)};
    if (mark)
        r->query =
            (struct span){r->target.at + (uint32_t)end + 1, (uint32_t)(target.size - end - 1)};
    return 0;
}

static int check_host(struct http_reader *r, struct slice *host)
{
    unsigned hosts;
    *host = header_value(r, "host", &hosts);
    if (hosts > 1)
        return refuse_bad(r, "More than one Host header.");
    if (hosts == 0 && r->parser.http_minor == 1)
        return refuse_bad(r, "HTTP/1.1 needs a Host header.");
    if (!is_host(*host))
        return refuse_bad(r, "The Host header is not a host name.");
    return 0;
}

/* How long the body is. Chunked is the only coding, and never together with a length. */
static int check_framing(struct http_reader *r)
{
    unsigned codings;
    unsigned lengths;
    struct slice coding = header_value(r, "transfer-encoding", &codings);
    (void)header_value(r, "content-length", &lengths);
    if (codings && lengths)
        return refuse_bad(r, "Content-Length and Transfer-Encoding exclude each other.");
    if (codings > 1 || lengths > 1)
        return refuse_bad(r, "The length of the body is stated more than once.");
    if (codings && r->parser.http_minor == 0)
        return refuse_bad(r, "HTTP/1.0 has no Transfer-Encoding.");
    if (codings && !equal_nocase(coding, "chunked"))
        return refuse(r, 501, "BadRequest", "The only Transfer-Encoding supported is chunked.");
    if (lengths && r->parser.content_length > r->body_max)
        return refuse_large(r);
    r->chunked = codings > 0;
    r->length = lengths ? (size_t)r->parser.content_length : 0;
    return 0;
}

static int check_expect(struct http_reader *r)
{
    unsigned count;
    struct slice value = header_value(r, "expect", &count);
    if (count == 0 || r->parser.http_minor == 0)
        return 0;
    if (count > 1 || !equal_nocase(value, "100-continue"))
        return refuse(r, 417, "BadRequest", "The only expectation supported is 100-continue.");
    r->expects_continue = true;
    return 0;
}

static bool is_key(struct slice key)
{
    if (key.size != KEY_SIZE || key.data[22] != '=' || key.data[23] != '=')
        return false;
    for (size_t i = 0; i < 22; i++)
        if (!is_digit(key.data[i]) && !is_alpha(key.data[i]) && key.data[i] != '+' &&
            key.data[i] != '/')
            return false;
    /* 16 bytes leave four unused bits in the last character, which are zero. */
    return strchr("AQgw", key.data[21]) != NULL;
}

/* RFC 6455 4.2.1. An upgrade to anything else is not asked for, as far as this server is concerned.
 */
static int check_upgrade(struct http_reader *r)
{
    unsigned count;
    struct slice upgrade = header_value(r, "upgrade", &count);
    if (!http_header_has_token(upgrade, "websocket"))
        return 0;
    if (count > 1)
        return refuse_bad(r, "More than one Upgrade header.");
    if (r->parser.method != HTTP_GET || r->parser.http_minor != 1)
        return refuse_bad(r, "A WebSocket begins with a GET of HTTP/1.1.");
    if (!http_header_has_token(header_value(r, "connection", &count), "upgrade"))
        return refuse_bad(r, "A WebSocket needs the header \"Connection: Upgrade\".");
    struct slice version = header_value(r, "sec-websocket-version", &count);
    if (count != 1 || !slice_is(version, "13")) {
        refuse(r, 426, "UpgradeRequired", "Only version 13 of the WebSocket protocol is spoken.");
        r->refusal.headers = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        return -1;
    }
    struct slice key = header_value(r, "sec-websocket-key", &count);
    if (count != 1 || !is_key(key))
        return refuse_bad(r, "Sec-WebSocket-Key must be 16 bytes in base64, once.");
    if (r->chunked || r->length)
        return refuse_bad(r, "A WebSocket upgrade has no body.");
    r->upgrade = true;
    return 0;
}

static int check_head(struct http_reader *r)
{
    struct slice host;
    for (unsigned i = 0; i < r->n_headers; i++)
        if (!is_name(span_slice(r, r->names[i])))
            return refuse_bad(r, "A header name is malformed.");
    if (r->parser.http_major != 1 || r->parser.http_minor > 1)
        return refuse(r, 505, "BadRequest", "This server speaks HTTP/1.1 and HTTP/1.0.");
    if (r->parser.method == HTTP_CONNECT)
        return refuse(r, 405, "MethodNotAllowed", "This server is not a proxy.");
    if (check_host(r, &host) || check_target(r, host) || check_framing(r) || check_expect(r))
        return -1;
    return check_upgrade(r);
}

/* --- the parser's callbacks --- */

static int on_url(http_parser *p, const char *at, size_t size)
{
    struct http_reader *r = p->data;
    span_extend(r, &r->target, at, size);
    return 0;
}

static int on_header_field(http_parser *p, const char *at, size_t size)
{
    struct http_reader *r = p->data;
    if (r->in_value || r->n_headers == 0) {
        if (r->n_headers == HTTP_HEADERS_MAX)
            return refuse(r, 431, "BadRequest", "Too many headers.");
        r->n_headers++;
        r->names[r->n_headers - 1] = r->values[r->n_headers - 1] = (struct span){0};
        r->in_value = false;
    }
    span_extend(r, &r->names[r->n_headers - 1], at, size);
    return 0;
}

static int on_header_value(http_parser *p, const char *at, size_t size)
{
    struct http_reader *r = p->data;
    r->in_value = true;
    span_extend(r, &r->values[r->n_headers - 1], at, size);
    return 0;
}

/* White space around values: the parser drops what is in front. */
static void trim_values(struct http_reader *r)
{
    for (unsigned i = 0; i < r->n_headers; i++) {
        struct span *v = &r->values[i];
        const uint8_t *data = r->bytes.data + r->base + v->at;
        while (v->size && (data[v->size - 1] == ' ' || data[v->size - 1] == '\t'))
            v->size--;
    }
}

static int on_headers_complete(http_parser *p)
{
    struct http_reader *r = p->data;
    trim_values(r);
    if (check_head(r))
        return -1;
    r->head_done = true;
    r->keep_alive = http_should_keep_alive(p) != 0;
    return 1; /* the parser is not to look for a body */
}

static const http_parser_settings settings = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
};

/* --- the reader --- */

static void request_begin(struct http_reader *r)
{
    http_parser_init(&r->parser, HTTP_REQUEST);
    r->parser.data = r;
    r->parsed = r->line = r->head_size = r->body_size = r->length = 0;
    r->chunks = (struct chunked){0};
    r->blank_lines = r->n_headers = 0;
    r->in_value = r->has_line = r->head_done = r->complete = r->chunked = false;
    r->expects_continue = r->keep_alive = r->upgrade = false;
    r->target = r->path = r->query = (struct span){0};
    r->refusal = (struct http_refusal){0};
}

struct http_reader *http_reader_create(void)
{
    struct http_reader *r = mem_zalloc(sizeof *r);
    request_begin(r);
    return r;
}

void http_reader_destroy(struct http_reader **r)
{
    if (*r)
        strbuf_free(&(*r)->bytes);
    mem_free(*r);
    *r = NULL;
}

void http_reader_reset(struct http_reader *r)
{
    if (r->bytes.capacity > KEEP_CAPACITY_BYTES) {
        strbuf_free(&r->bytes);
        r->bytes = (struct strbuf){0};
    }
    strbuf_reset(&r->bytes);
    r->base = 0;
    request_begin(r);
}

void http_reader_put(struct http_reader *r, struct slice bytes)
{
    /* Moving costs at most as much as what was answered since the last move. */
    if (r->base > r->bytes.size / 2) {
        memmove(r->bytes.data, r->bytes.data + r->base, r->bytes.size - r->base);
        r->bytes.size -= r->base;
        r->base = 0;
    }
    strbuf_put_slice(&r->bytes, bytes);
}

static size_t available(const struct http_reader *r)
{
    return r->bytes.size - r->base;
}

/* Method, target, version, with one space between: the parser is more patient. */
static bool is_request_line(const uint8_t *line, size_t size)
{
    static const char form[] = " HTTP/d.d";
    size_t tail = sizeof form - 1;
    size_t spaces = 0;
    for (size_t i = 0; i < size; i++)
        spaces += line[i] == ' ';
    if (spaces != 2 || size < tail || line[0] == ' ')
        return false;
    const uint8_t *version = line + size - tail;
    return memcmp(version, form, strlen(" HTTP/")) == 0 && is_digit(version[6]) &&
           version[7] == '.' && is_digit(version[8]);
}

static int check_line(struct http_reader *r, const uint8_t *line, size_t size)
{
    if (size == 0 || line[size - 1] != '\r')
        return refuse_bad(r, "Lines must end with CR and LF.");
    if (size == 1 && !r->has_line)
        return ++r->blank_lines > BLANK_LINES_MAX ? refuse_bad(r, "A request line is missing.") : 0;
    if (!r->has_line && !is_request_line(line, size - 1))
        return refuse_bad(r, "The request line is malformed.");
    if (r->has_line && (line[0] == ' ' || line[0] == '\t'))
        return refuse_bad(r, "Continued header lines are not supported.");
    for (size_t i = 0; i + 1 < size; i++)
        if ((line[i] < ' ' && line[i] != '\t') || line[i] == 0x7f)
            return refuse_bad(r, "A header has a control character.");
    return 0;
}

/* The beginning of a line: a CR must be followed by LF. */
static int check_part(struct http_reader *r, const uint8_t *line, size_t size)
{
    const uint8_t *cr = memchr(line, '\r', size);
    return cr && cr + 1 < line + size ? refuse_bad(r, "Lines must end with CR and LF.") : 0;
}

/* Looks at the lines of the head that are complete and sets head_size at its end. */
static int scan_lines(struct http_reader *r)
{
    const uint8_t *data = r->bytes.data + r->base;
    size_t size = available(r);
    while (r->head_size == 0 && r->line < size) {
        const uint8_t *end = memchr(data + r->line, '\n', size - r->line);
        if (!end)
            return check_part(r, data + r->line, size - r->line);
        size_t length = (size_t)(end - (data + r->line));
        if (check_line(r, data + r->line, length))
            return -1;
        r->line += length + 1;
        if (length == 1 && r->has_line)
            r->head_size = r->line;
        else if (length > 1 && !r->has_line) {
            r->has_line = true;
            r->line_end = r->line;
        }
    }
    return 0;
}

static void parse_failed(struct http_reader *r)
{
    static const char preface[] = "PRI * HTTP/2.0";
    if (available(r) >= sizeof preface - 1 &&
        memcmp(r->bytes.data + r->base, preface, sizeof preface - 1) == 0)
        refuse(r, 505, "BadRequest", "This server speaks HTTP/1.1 and HTTP/1.0.");
    switch (HTTP_PARSER_ERRNO(&r->parser)) {
    case HPE_INVALID_VERSION:
        refuse_bad(r, "The HTTP version is malformed.");
        break;
    case HPE_INVALID_METHOD:
        refuse_bad(r, "The request method is unknown.");
        break;
    case HPE_UNEXPECTED_CONTENT_LENGTH:
    case HPE_INVALID_CONTENT_LENGTH:
        refuse_bad(r, "Content-Length is malformed or contradicted.");
        break;
    case HPE_HEADER_OVERFLOW:
        refuse(r, 431, "BadRequest", "The head of the request is too large.");
        break;
    default:
        refuse_bad(r, "The request is malformed.");
        break;
    }
}

/* Feeds the parser up to `end` (from base). */
static int feed(struct http_reader *r, size_t end)
{
    if (end <= r->parsed)
        return 0;
    size_t size = end - r->parsed;
    const char *data = (const char *)r->bytes.data + r->base + r->parsed;
    size_t eaten = http_parser_execute(&r->parser, &settings, data, size);
    r->parsed += eaten;
    if (r->refusal.status)
        return -1;
    if (HTTP_PARSER_ERRNO(&r->parser) != HPE_OK || eaten != size) {
        parse_failed(r);
        return -1;
    }
    /* The two must agree on where the head ends. */
    if (r->head_done != (r->head_size == end))
        return refuse_bad(r, "The request is malformed.");
    return 0;
}

#define LONG_TOKEN_BYTES (HTTP_HEAD_MAX_BYTES / 2) /* of a head that is too large */

/* Whether a line, of the request or of a header, holds a token of such a size. */
static bool holds_long_token(const char *line, size_t size, bool of_request)
{
    static const char header[] = "authorization:";
    const char *end = line + size, *token = NULL;
    if (!of_request)
        return size > sizeof header + LONG_TOKEN_BYTES &&
               strncasecmp(line, header, sizeof header - 1) == 0;
    for (const char *at = line; !token && end - at > 7; at++)
        if ((*at == '?' || *at == '&') && memcmp(at + 1, "token=", 6) == 0)
            token = at + 7;
    const char *stop = token ? memchr(token, '&', (size_t)(end - token)) : NULL;
    return token && (stop ? stop : end) - token > (ptrdiff_t)LONG_TOKEN_BYTES;
}

/* Whether a token is what makes the head too large: it is then refused as other tokens are. */
static bool has_long_token(const struct http_reader *r)
{
    const char *head = (const char *)r->bytes.data + r->base;
    size_t size = r->head_size ? r->head_size : available(r);
    for (size_t from = 0; from < size;) {
        const char *end = memchr(head + from, '\n', size - from);
        size_t length = end ? (size_t)(end - (head + from)) : size - from;
        if (holds_long_token(head + from, length, from == 0))
            return true;
        from += length + 1;
    }
    return false;
}

static int step_head(struct http_reader *r)
{
    if (scan_lines(r))
        return -1;
    size_t end = r->head_size ? r->head_size : available(r);
    if (end > HTTP_HEAD_MAX_BYTES) {
        bool in_line = !r->has_line || r->line_end > HTTP_HEAD_MAX_BYTES;
        refuse(r, in_line ? 414 : 431, "BadRequest",
               in_line ? "The request target is too long."
                       : "The head of the request is too large.");
        r->refusal.for_token = has_long_token(r);
        return -1;
    }
    return feed(r, end);
}

/* Decoded bytes of a body lie where its framing was; what is not parsed follows them directly. */
static void close_gap(struct http_reader *r)
{
    size_t want = r->head_size + r->body_size;
    uint8_t *data = r->bytes.data + r->base;
    if (r->parsed == want)
        return;
    memmove(data + want, data + r->parsed, available(r) - r->parsed);
    r->bytes.size -= r->parsed - want;
    r->parsed = want;
}

static int step_chunks(struct http_reader *r)
{
    uint8_t *data = r->bytes.data + r->base;
    size_t taken;
    size_t made;
    int code = chunked_decode(&r->chunks, slice_of(data + r->parsed, available(r) - r->parsed),
                              data + r->parsed, r->body_max - r->body_size, &taken, &made);
    if (code != ERR_OK)
        return code == ERR_TOO_LARGE ? refuse_large(r)
                                     : refuse_bad(r, "The chunked body is malformed.");
    r->body_size += made;
    r->parsed += taken;
    close_gap(r);
    r->complete = r->chunks.state == CHUNK_DONE;
    return 0;
}

static int step_body(struct http_reader *r)
{
    if (r->chunked)
        return step_chunks(r);
    size_t here = available(r) - r->parsed;
    size_t size = here < r->length - r->body_size ? here : r->length - r->body_size;
    r->body_size += size;
    r->parsed += size;
    r->complete = r->body_size == r->length;
    return 0;
}

enum http_step http_reader_step(struct http_reader *r, size_t body_max)
{
    if (r->refusal.status)
        return HTTP_STEP_REFUSED;
    if (r->complete)
        return HTTP_STEP_REQUEST;
    if (available(r) == 0)
        return HTTP_STEP_MORE;
    r->body_max = body_max;
    if (!r->head_done && step_head(r))
        return HTTP_STEP_REFUSED;
    if (r->head_done && step_body(r))
        return HTTP_STEP_REFUSED;
    if (r->complete)
        return HTTP_STEP_REQUEST;
    if (r->head_done && r->expects_continue) {
        r->expects_continue = false;
        if (r->body_size == 0)
            return HTTP_STEP_CONTINUE;
    }
    return HTTP_STEP_MORE;
}

static enum http_method method_of(const struct http_reader *r)
{
    switch (r->parser.method) {
    case HTTP_GET:
        return HTTP_M_GET;
    case HTTP_HEAD:
        return HTTP_M_HEAD;
    case HTTP_POST:
        return HTTP_M_POST;
    case HTTP_PUT:
        return HTTP_M_PUT;
    case HTTP_DELETE:
        return HTTP_M_DELETE;
    case HTTP_OPTIONS:
        return HTTP_M_OPTIONS;
    default:
        return HTTP_M_OTHER;
    }
}

void http_reader_request(const struct http_reader *r, struct http_request *out)
{
    STOA_ASSERT(r->complete);
    out->method = method_of(r);
    out->path = r->path.size ? span_slice(r, r->path) : slice_text("/");
    out->query = r->query.size ? span_slice(r, r->query) : slice_of(NULL, 0);
    out->n_headers = r->n_headers;
    for (unsigned i = 0; i < r->n_headers; i++)
        out->headers[i] =
            (struct http_header){span_slice(r, r->names[i]), span_slice(r, r->values[i])};
    out->body = slice_of(r->bytes.data + r->base + r->head_size, r->body_size);
    out->upgrade = r->upgrade;
    out->peer_ip = slice_of(NULL, 0);
}

const struct http_refusal *http_reader_refusal(const struct http_reader *r)
{
    return &r->refusal;
}

bool http_reader_keep_alive(const struct http_reader *r)
{
    return r->keep_alive && r->refusal.status == 0;
}

bool http_reader_is_head(const struct http_reader *r)
{
    return r->has_line && r->parser.method == HTTP_HEAD;
}

unsigned http_reader_minor(const struct http_reader *r)
{
    return r->parser.http_major == 1 && r->parser.http_minor == 0 ? 0 : 1;
}

void http_reader_done(struct http_reader *r)
{
    STOA_ASSERT(r->complete);
    r->base += r->parsed;
    if (r->base == r->bytes.size) {
        r->base = 0;
        strbuf_reset(&r->bytes);
    }
    request_begin(r);
}

bool http_reader_idle(const struct http_reader *r)
{
    return available(r) == 0 && r->refusal.status == 0;
}

bool http_reader_in_body(const struct http_reader *r)
{
    return r->head_done && !r->complete;
}

struct slice http_reader_rest(const struct http_reader *r)
{
    if (available(r) == 0)
        return slice_of(NULL, 0);
    return slice_of(r->bytes.data + r->base + r->parsed, available(r) - r->parsed);
}
