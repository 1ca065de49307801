/* HTTP byte layer: every accepted stream is fed whole and cut at every byte, with the same result;
 * every hostile one is refused with its status. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/mem.h"
#include "gateway/http.h"

#define BODY_MAX 64

static struct http_request request; /* large: not on the stack of every test */

/* What a stream of bytes gives, as one text: "GET /p?q [Name=value;] {body} keep|close\n" each. */
static void describe(const struct http_reader *r, struct strbuf *out)
{
    static const char *const methods[] = {"GET",    "HEAD",    "POST", "PUT",
                                          "DELETE", "OPTIONS", "OTHER"};
    http_reader_request(r, &request);
    strbuf_printf(out, "%s %.*s?%.*s [", methods[request.method], SLICE_FMT(request.path),
                  SLICE_FMT(request.query));
    for (size_t i = 0; i < request.n_headers; i++)
        strbuf_printf(out, "%.*s=%.*s;", SLICE_FMT(request.headers[i].name),
                      SLICE_FMT(request.headers[i].value));
    strbuf_printf(out, "] {%.*s} 1.%u %s%s\n", SLICE_FMT(request.body), http_reader_minor(r),
                  http_reader_keep_alive(r) ? "keep" : "close", request.upgrade ? " upgrade" : "");
}

/* Feeds in pieces of `cut` bytes. "!STATUS TAG\n" stands for a refusal, "100\n" for CONTINUE. */
static char *run(const char *bytes, size_t size, size_t cut)
{
    struct http_reader *r = http_reader_create();
    struct strbuf out = {0};
    size_t at = 0;
    for (;;) {
        enum http_step step = http_reader_step(r, BODY_MAX);
        if (step == HTTP_STEP_REQUEST) {
            describe(r, &out);
            http_reader_done(r);
        } else if (step == HTTP_STEP_REFUSED) {
            const struct http_refusal *why = http_reader_refusal(r);
            ck_assert(why->message[0] != '\0');
            ck_assert(!http_reader_keep_alive(r));
            strbuf_printf(&out, "!%u %s%s\n", why->status, why->tag,
                          why->for_token ? " token" : "");
            break;
        } else if (step == HTTP_STEP_CONTINUE) {
            strbuf_put_text(&out, "100\n");
        } else if (at < size) {
            size_t piece = cut < size - at ? cut : size - at;
            http_reader_put(r, slice_of(bytes + at, piece));
            at += piece;
        } else {
            break;
        }
    }
    if (!http_reader_idle(r) && http_reader_refusal(r)->status == 0)
        strbuf_put_text(&out, "...\n");
    http_reader_destroy(&r);
    char *text = mem_strdup(strbuf_cstr(&out));
    strbuf_free(&out);
    return text;
}

static const struct {
    const char *bytes;
    const char *result;
} accepted[] = {
    {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /? [Host=x;] {} 1.1 keep\n"},
    {"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /? [Host=x;] {} 1.1 keep\n"},
    {"GET /a%2Fb/../c//d+e?k=v&w HTTP/1.1\r\nHost: x:80\r\nA:b\r\nC: \t d e \t \r\nE:\r\n\r\n",
     "GET /a%2Fb/../c//d+e?k=v&w [Host=x:80;A=b;C=d e;E=;] {} 1.1 keep\n"},
    {"GET /? HTTP/1.1\r\nHost:\r\n\r\n", "GET /? [Host=;] {} 1.1 keep\n"},
    {"GET / HTTP/1.0\r\n\r\n", "GET /? [] {} 1.0 close\n"},
    {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
     "GET /? [Connection=Keep-Alive;] {} 1.0 keep\n"},
    {"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
     "GET /? [Host=x;Connection=close;] {} 1.1 close\n"},
    {"HEAD /h HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "HEAD /h? [Host=[::1]:8080;] {} 1.1 keep\n"},
    {"PATCH /h HTTP/1.1\r\nHost: x\r\n\r\n", "OTHER /h? [Host=x;] {} 1.1 keep\n"},
    {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS /? [Host=x;] {} 1.1 keep\n"},
    {"GET http://x/p?q=1 HTTP/1.1\r\nHost: X\r\n\r\n", "GET /p?q=1 [Host=X;] {} 1.1 keep\n"},
    {"GET https://x?q HTTP/1.1\r\nHost: x\r\n\r\n", "GET /?q [Host=x;] {} 1.1 keep\n"},
    {"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
     "POST /p? [Host=x;Content-Length=5;] {hello} 1.1 keep\n"},
    {"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: y\r\n\r\n",
     "POST /p? [Host=x;Content-Length=0;] {} 1.1 keep\nGET /? [Host=y;] {} 1.1 keep\n"},
    {"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nabPOST /q HTTP/1.1\r\nHost: "
     "x\r\nContent-Length: 3\r\n\r\ncdeGE",
     "POST /p? [Host=x;Content-Length=2;] {ab} 1.1 keep\nPOST /q? [Host=x;Content-Length=3;] {cde} "
     "1.1 keep\n...\n"},
    {"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;a=\"b "
     "c\"\r\n!\r\n"
     "0\r\nTrailer: t\r\n\r\nGET / HTTP/1.1\r\nHost: y\r\n\r\n",
     "POST /p? [Host=x;Transfer-Encoding=chunked;] {hello!} 1.1 keep\nGET /? [Host=y;] {} 1.1 "
     "keep\n"},
    {"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
     "Chunked\r\n\r\n00A\r\n0123456789\r\n000\r\n\r\n",
     "POST /p? [Host=x;Transfer-Encoding=Chunked;] {0123456789} 1.1 keep\n"},
    {"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
     "GET /? [Host=x;Upgrade=h2c;Connection=upgrade;] {} 1.1 keep\n"},
    {"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: "
     "1\r\n\r\nzGET / "
     "HTTP/1.1\r\nHost: x\r\n\r\n",
     "POST /? [Host=x;Upgrade=h2c;Connection=upgrade;Content-Length=1;] {z} 1.1 keep\nGET /? "
     "[Host=x;] {} 1.1 keep\n"},
};

START_TEST(accepts_whole_and_cut_everywhere)
{
    const char *bytes = accepted[_i].bytes;
    size_t size = strlen(bytes);
    for (size_t cut = 1; cut <= size; cut++) {
        char *got = run(bytes, size, cut);
        ck_assert_str_eq(got, accepted[_i].result);
        mem_free(got);
    }
}
END_TEST

#define HOST "Host: x\r\n"
#define UPGRADE "GET / HTTP/1.1\r\n" HOST "Upgrade: websocket\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define CHUNKED "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"

static const struct {
    const char *bytes;
    const char *result;
} refused[] = {
    {"\x16\x03\x01\x02", "!400 BadRequest\n"},
    {"hello\r\n\r\n", "!400 BadRequest\n"},
    {"get / HTTP/1.1\r\nHost: x\r\n\r\n", "!400 BadRequest\n"},
    {"\r\n\r\n\r\n\r\n\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\nHost: x\n\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\r\n Host: x\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\r\nHost : x\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\r\nHost: x\r\n: 1\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", "!400 BadRequest\n"},
    {"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", "!400 BadRequest\n"},
    {"GET / \tHTTP/1.1\r\nHost: x\r\n\r\n", "!400 BadRequest\n"},
    {"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", "!400 BadRequest\n"},
    {"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", "!400 BadRequest\n"},
    {"GET a HTTP/1.1\r\nHost: x\r\n\r\n", "!400 BadRequest\n"},
    {"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", "!400 BadRequest\n"},
    {"GET http://x/ HTTP/1.1\r\nHost: y\r\n\r\n", "!400 BadRequest\n"},
    {"GET http://?q HTTP/1.0\r\n\r\n", "!400 BadRequest\n"},
    {"GET /\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.10\r\nHost: x\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTX/1.1\r\nHost: x\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.2\r\nHost: x\r\n\r\n", "!505 BadRequest\n"},
    {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", "!505 BadRequest\n"},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "!505 BadRequest\n"},
    {"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", "!405 MethodNotAllowed\n"},
    {"GET / HTTP/1.1\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", "!400 BadRequest\n"},
    {"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", "!400 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "!400 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
     "!400 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\na", "!400 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\na", "!400 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\na", "!400 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 0x1\r\n\r\na", "!400 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\na", "!400 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\n",
     "!400 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 65\r\n\r\n", "!413 TooLarge\n"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n", "!501 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n", "!501 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
     "!400 BadRequest\n"},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "!400 BadRequest\n"},
    {CHUNKED "41\r\n", "!413 TooLarge\n"},
    {CHUNKED "40\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n1\r\n",
     "!413 TooLarge\n"},
    {CHUNKED "fffffffffffffffff\r\n", "!413 TooLarge\n"},
    {CHUNKED "3\r\nabcXX0\r\n\r\n", "!400 BadRequest\n"},
    {CHUNKED "3\r\nabcd\r\n", "!400 BadRequest\n"},
    {CHUNKED "3\nabc\n0\n\n", "!400 BadRequest\n"},
    {CHUNKED "\r\n", "!400 BadRequest\n"},
    {CHUNKED "g\r\n", "!400 BadRequest\n"},
    {CHUNKED " 3\r\nabc\r\n", "!400 BadRequest\n"},
    {CHUNKED "3 \r\nabc\r\n", "!400 BadRequest\n"},
    {CHUNKED "-3\r\nabc\r\n", "!400 BadRequest\n"},
    {CHUNKED "0x3\r\nabc\r\n", "!400 BadRequest\n"},
    {CHUNKED "3;a\nb\r\nabc\r\n", "!400 BadRequest\n"},
    {CHUNKED "0\r\n folded\r\n\r\n", "!400 BadRequest\n"},
    {CHUNKED "0\r\nT: a\nb\r\n\r\n", "!400 BadRequest\n"},
    {CHUNKED "0\r\n\rX", "!400 BadRequest\n"},
    {"POST / HTTP/1.1\r\n" HOST "Expect: tea\r\nContent-Length: 1\r\n\r\n", "!417 BadRequest\n"},
    {"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     "Sec-WebSocket-Version: 13\r\n" KEY "\r\n",
     "!400 BadRequest\n"},
    {"GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
     "13\r\n" KEY "\r\n",
     "!400 BadRequest\n"},
    {UPGRADE "Sec-WebSocket-Version: 13\r\n" KEY "\r\n", "!400 BadRequest\n"},
    {UPGRADE "Connection: keep-alive\r\nSec-WebSocket-Version: 13\r\n" KEY "\r\n",
     "!400 BadRequest\n"},
    {UPGRADE "Connection: Upgrade\r\n" KEY "\r\n", "!426 UpgradeRequired\n"},
    {UPGRADE "Connection: Upgrade\r\nSec-WebSocket-Version: 99\r\n" KEY "\r\n",
     "!426 UpgradeRequired\n"},
    {UPGRADE "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n" KEY
             "\r\n",
     "!426 UpgradeRequired\n"},
    {UPGRADE "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n", "!400 BadRequest\n"},
    {UPGRADE "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" KEY KEY "\r\n",
     "!400 BadRequest\n"},
    {UPGRADE
     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvcnQ=\r\n\r\n",
     "!400 BadRequest\n"},
    {UPGRADE "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
             "dGhlIHNhbXBsZSBub25jZR==\r\n\r\n",
     "!400 BadRequest\n"},
    {UPGRADE "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" KEY
             "Content-Length: 1\r\n\r\na",
     "!400 BadRequest\n"},
};

START_TEST(refuses_whole_and_cut_everywhere)
{
    const char *bytes = refused[_i].bytes;
    size_t size = strlen(bytes);
    for (size_t cut = size; cut > 0; cut = cut > 16 ? cut / 2 : cut - 1) {
        char *got = run(bytes, size, cut);
        /* In pieces the preface of HTTP/2 is not known as such when its method is refused. */
        bool cut_preface = bytes[0] == 'P' && bytes[2] == 'I' && cut < 14;
        ck_assert_str_eq(got, cut_preface ? "!400 BadRequest\n" : refused[_i].result);
        mem_free(got);
    }
}
END_TEST

START_TEST(head_bounds_are_exact)
{
    static const char first[] = "GET / HTTP/1.1\r\nHost: x\r\nA: ";
    static const char last[] = "\r\n\r\n";
    for (int over = 0; over < 2; over++) {
        struct strbuf head = {0};
        strbuf_put_text(&head, first);
        while (head.size < HTTP_HEAD_MAX_BYTES - strlen(last) + (size_t)over)
            strbuf_put_byte(&head, 'a');
        strbuf_put_text(&head, last);
        char *got = run((const char *)head.data, head.size, head.size);
        ck_assert(over ? strcmp(got, "!431 BadRequest\n") == 0 : strncmp(got, "GET /? ", 7) == 0);
        mem_free(got);
        strbuf_free(&head);
    }
}
END_TEST

START_TEST(endless_heads_are_refused_before_they_end)
{
    static const char *const beginnings[] = {
        "GET /",
        "GET / HTTP/1.1\r\nHost: x\r\nA: ",
        "GET /a?b=c&token=",
        "GET /a?token=",
        "GET /a?atoken=",
        "GET /a?token=b&c=",
        "GET /a HTTP/1.1\r\nHost: x\r\nauthorIzation: Bearer ",
        "GET /a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer b\r\nA: "};
    static const char *const results[] = {"!414 BadRequest\n",       "!431 BadRequest\n",
                                          "!414 BadRequest token\n", "!414 BadRequest token\n",
                                          "!414 BadRequest\n",       "!414 BadRequest\n",
                                          "!431 BadRequest token\n", "!431 BadRequest\n"};
    for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        struct strbuf head = {0};
        strbuf_put_text(&head, beginnings[i]);
        while (head.size <= HTTP_HEAD_MAX_BYTES)
            strbuf_put_byte(&head, 'a');
        char *got = run((const char *)head.data, head.size, 1000);
        ck_assert_str_eq(got, results[i]);
        mem_free(got);
        strbuf_free(&head);
    }
}
END_TEST

START_TEST(header_count_is_bounded)
{
    for (int over = 0; over < 2; over++) {
        struct strbuf head = {0};
        strbuf_put_text(&head, "GET / HTTP/1.1\r\nHost: x\r\n");
        for (int i = 0; i < HTTP_HEADERS_MAX - 1 + over; i++)
            strbuf_put_text(&head, "A: b\r\n");
        strbuf_put_text(&head, "\r\n");
        char *got = run((const char *)head.data, head.size, head.size);
        ck_assert(over ? strcmp(got, "!431 BadRequest\n") == 0 : strncmp(got, "GET /? ", 7) == 0);
        mem_free(got);
        strbuf_free(&head);
    }
}
END_TEST

START_TEST(chunk_framing_is_bounded)
{
    struct strbuf body = {0};
    strbuf_put_text(&body, CHUNKED "1;");
    for (int i = 0; i < 9 * KIB; i++)
        strbuf_put_byte(&body, 'e');
    char *got = run((const char *)body.data, body.size, 512);
    ck_assert_str_eq(got, "!400 BadRequest\n");
    mem_free(got);
    strbuf_free(&body);
}
END_TEST

START_TEST(expectation_is_answered_once)
{
    static const char head[] =
        "POST /p HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    struct http_reader *r = http_reader_create();
    http_reader_put(r, slice_text(head));
    ck_assert_int_eq(http_reader_step(r, BODY_MAX), HTTP_STEP_CONTINUE);
    ck_assert_int_eq(http_reader_step(r, BODY_MAX), HTTP_STEP_MORE);
    ck_assert(http_reader_in_body(r));
    http_reader_put(r, slice_text("abc"));
    ck_assert_int_eq(http_reader_step(r, BODY_MAX), HTTP_STEP_REQUEST);
    http_reader_request(r, &request);
    ck_assert(slice_is(request.body, "abc"));
    http_reader_done(r);
    ck_assert(http_reader_idle(r));
    /* Who has sent the body does not wait. */
    http_reader_put(r, slice_text(head));
    http_reader_put(r, slice_text("abc"));
    ck_assert_int_eq(http_reader_step(r, BODY_MAX), HTTP_STEP_REQUEST);
    http_reader_destroy(&r);
}
END_TEST

START_TEST(upgrade_keeps_what_follows)
{
    static const char head[] =
        UPGRADE "Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n" KEY "\r\n";
    struct http_reader *r = http_reader_create();
    http_reader_put(r, slice_text(head));
    http_reader_put(r, slice_text("\x81\x80 frame"));
    ck_assert_int_eq(http_reader_step(r, BODY_MAX), HTTP_STEP_REQUEST);
    http_reader_request(r, &request);
    ck_assert(request.upgrade);
    ck_assert(slice_is(http_reader_rest(r), "\x81\x80 frame"));
    http_reader_done(r);
    http_reader_put(r, slice_text(" more"));
    ck_assert(slice_is(http_reader_rest(r), "\x81\x80 frame more"));
    http_reader_destroy(&r);
}
END_TEST

START_TEST(many_pipelined_requests_in_one_piece)
{
    struct strbuf all = {0};
    for (int i = 0; i < 2000; i++)
        strbuf_printf(&all, "POST /%d HTTP/1.1\r\n" HOST "Content-Length: 4\r\n\r\n%04d", i, i);
    struct http_reader *r = http_reader_create();
    int n = 0;
    for (size_t at = 0; at < all.size || n < 2000;) {
        enum http_step step = http_reader_step(r, BODY_MAX);
        if (step == HTTP_STEP_REQUEST) {
            char body[12];
            http_reader_request(r, &request);
            snprintf(body, sizeof body, "%04d", n++);
            ck_assert(slice_is(request.body, body));
            http_reader_done(r);
        } else {
            ck_assert_int_eq(step, HTTP_STEP_MORE);
            size_t piece = all.size - at < 5000 ? all.size - at : 5000;
            http_reader_put(r, slice_of(all.data + at, piece));
            at += piece;
        }
    }
    ck_assert_int_eq(n, 2000);
    ck_assert(http_reader_idle(r));
    http_reader_destroy(&r);
    strbuf_free(&all);
}
END_TEST

START_TEST(reset_reader_starts_anew)
{
    struct http_reader *r = http_reader_create();
    http_reader_put(r, slice_text("nonsense\r\n\r\n"));
    ck_assert_int_eq(http_reader_step(r, BODY_MAX), HTTP_STEP_REFUSED);
    ck_assert_int_eq(http_reader_step(r, BODY_MAX), HTTP_STEP_REFUSED);
    http_reader_reset(r);
    ck_assert(http_reader_idle(r));
    http_reader_put(r, slice_text("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"));
    ck_assert_int_eq(http_reader_step(r, BODY_MAX), HTTP_STEP_REQUEST);
    http_reader_destroy(&r);
}
END_TEST

/* 1,800,000,000 s after 1970 is a Friday. */
#define WALL_MS INT64_C(1800000000000)
#define DATE "Date: Fri, 15 Jan 2027 08:00:00 GMT\r\n"

START_TEST(answers_as_bytes)
{
    static const struct {
        struct http_response response;
        struct http_answer how;
        const char *bytes;
    } cases[] = {
        {{.status = 200, .content_type = "text/plain"},
         {.keep_alive = true, .minor = 1},
         "HTTP/1.1 200 OK\r\n" DATE "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"},
        {{.status = 200, .content_type = "text/plain"},
         {.keep_alive = true, .minor = 1, .head = true},
         "HTTP/1.1 200 OK\r\n" DATE "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n"},
        {{.status = 503, .content_type = "text/plain"},
         {.minor = 1},
         "HTTP/1.1 503 Service Unavailable\r\n" DATE
         "Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"},
        {{.status = 200, .content_type = "text/plain"},
         {.keep_alive = true},
         "HTTP/1.1 200 OK\r\n" DATE
         "Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi"},
        {{.status = 204},
         {.keep_alive = true, .minor = 1},
         "HTTP/1.1 204 No Content\r\n" DATE "\r\n"},
        {{.status = 599},
         {.keep_alive = true, .minor = 1},
         "HTTP/1.1 599 Status\r\n" DATE "Content-Length: 2\r\n\r\nhi"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct strbuf out = {0};
        struct http_response response = cases[i].response;
        struct http_answer how = cases[i].how;
        response.body = slice_text("hi");
        how.wall_ms = WALL_MS;
        http_answer_write(&out, &response, &how);
        ck_assert_str_eq(strbuf_cstr(&out), cases[i].bytes);
        strbuf_free(&out);
    }
}
END_TEST

START_TEST(dates_over_leap_years)
{
    static const struct {
        int64_t seconds;
        const char *date;
    } cases[] = {
        {0, "Date: Thu, 01 Jan 1970 00:00:00 GMT"},
        {951782400, "Date: Tue, 29 Feb 2000 00:00:00 GMT"},
        {951868799, "Date: Tue, 29 Feb 2000 23:59:59 GMT"},
        {951868800, "Date: Wed, 01 Mar 2000 00:00:00 GMT"},
        {1767225599, "Date: Wed, 31 Dec 2025 23:59:59 GMT"},
        {4107542400, "Date: Mon, 01 Mar 2100 00:00:00 GMT"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct strbuf out = {0};
        struct http_response response = {.status = 204};
        struct http_answer how = {
            .minor = 1, .keep_alive = true, .wall_ms = cases[i].seconds * 1000};
        http_answer_write(&out, &response, &how);
        ck_assert_ptr_nonnull(strstr(strbuf_cstr(&out), cases[i].date));
        strbuf_free(&out);
    }
}
END_TEST

START_TEST(stream_and_upgrade_heads)
{
    struct strbuf out = {0};
    struct http_response head = {.status = 200, .headers = slice_text("Vary: Origin\r\n")};
    struct http_answer how = {.minor = 1, .wall_ms = WALL_MS};
    http_stream_write(&out, &head, &how);
    ck_assert_str_eq(strbuf_cstr(&out),
                     "HTTP/1.1 200 OK\r\n" DATE "Content-Type: text/event-stream\r\n"
                     "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\nConnection: close\r\n"
                     "Vary: Origin\r\n\r\n");
    strbuf_reset(&out);
    http_upgrade_write(&out, slice_text("dGhlIHNhbXBsZSBub25jZQ=="), "stoa.v1");
    struct http_reader *r = http_reader_create();
    http_reader_put(r, strbuf_slice(&out));
    ck_assert_int_eq(http_reader_step(r, BODY_MAX), HTTP_STEP_REQUEST);
    http_reader_request(r, &request);
    ck_assert(request.upgrade);
    ck_assert(slice_is(http_header_get(&request, "sec-websocket-protocol"), "stoa.v1"));
    http_reader_destroy(&r);
    strbuf_free(&out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http");
    TCase *requests = tcase_create("requests");
    tcase_add_loop_test(requests, accepts_whole_and_cut_everywhere, 0,
                        (int)(sizeof accepted / sizeof *accepted));
    tcase_add_loop_test(requests, refuses_whole_and_cut_everywhere, 0,
                        (int)(sizeof refused / sizeof *refused));
    tcase_add_test(requests, head_bounds_are_exact);
    tcase_add_test(requests, endless_heads_are_refused_before_they_end);
    tcase_add_test(requests, header_count_is_bounded);
    tcase_add_test(requests, chunk_framing_is_bounded);
    tcase_add_test(requests, expectation_is_answered_once);
    tcase_add_test(requests, upgrade_keeps_what_follows);
    tcase_add_test(requests, many_pipelined_requests_in_one_piece);
    tcase_add_test(requests, reset_reader_starts_anew);
    suite_add_tcase(suite, requests);
    TCase *answers = tcase_create("answers");
    tcase_add_test(answers, answers_as_bytes);
    tcase_add_test(answers, dates_over_leap_years);
    tcase_add_test(answers, stream_and_upgrade_heads);
    suite_add_tcase(suite, answers);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
