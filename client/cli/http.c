/* SHELL. HTTP to a gateway. */
#include "client/cli/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/shell/process.h"
#include "common/tick.h"

#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 2000
#define BODY_MAX_BYTES (64u << 20) /* the longest page of a log, with room */

void http_result_free(struct http_result *r)
{
    strbuf_free(&r->body);
}

void http_random_key(char out[33])
{
    uint8_t bytes[16];
    process_random_bytes(bytes, sizeof bytes);
    for (int i = 0; i < 16; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

void http_query_add(struct strbuf *target, const char *name, struct slice value)
{
    bool first = target->size == 0 || memchr(target->data, '?', target->size) == NULL;
    strbuf_put_byte(target, first ? '?' : '&');
    strbuf_put_text(target, name);
    strbuf_put_byte(target, '=');
    http_encode(target, value);
}

void http_encode(struct strbuf *target, struct slice text)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("-._~:", c);
        if (plain && c != 0) {
            strbuf_put_byte(target, c);
        } else {
            strbuf_put_byte(target, '%');
            strbuf_put_byte(target, (uint8_t)hex[c >> 4]);
            strbuf_put_byte(target, (uint8_t)hex[c & 15]);
        }
    }
}

static size_t on_body(char *bytes, size_t unit, size_t count, void *ctx)
{
    struct strbuf *body = ctx;
    size_t size = unit * count;
    if (body->size + size > BODY_MAX_BYTES)
        return 0;
    strbuf_put(body, bytes, size);
    return size;
}

CURL *http_handle(const struct cli *cli, const char *target, struct curl_slist **headers)
{
    CURL *curl = curl_easy_init();
    STOA_ASSERT(curl != NULL);
    struct strbuf url = {0};
    strbuf_printf(&url, "%s%s", cli->server, target);
    curl_easy_setopt(curl, CURLOPT_URL, strbuf_cstr(&url));
    strbuf_free(&url);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "stoa/" STOA_VERSION);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L); /* a room may be called ".." */
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, 3000L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    *headers = curl_slist_append(NULL, "Expect:");
    if (cli->token != NULL) {
        struct strbuf bearer = {0};
        strbuf_printf(&bearer, "Authorization: Bearer %s", cli->token);
        *headers = curl_slist_append(*headers, strbuf_cstr(&bearer));
        strbuf_free(&bearer);
    }
    return curl;
}

static bool sure_never_sent(CURLcode code)
{
    return code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST ||
           code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL ||
           code == CURLE_COULDNT_RESOLVE_PROXY;
}

void http_run(const struct cli *cli, const char *target, const struct http_call *call,
              struct http_result *out)
{
    struct curl_slist *headers;
    *out = (struct http_result){0};
    CURL *curl = http_handle(cli, target, &headers);
    for (const char *const *h = call->headers; h != NULL && *h != NULL; h++)
        headers = curl_slist_append(headers, *h);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, call->method);
    if (strcmp(call->method, "POST") == 0) {
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS,
                         call->body.size > 0 ? (const char *)call->body.data : "");
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.size);
    }
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &out->body);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, out->problem);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)(call->timeout_s * 1000));
    CURLcode code = curl_easy_perform(curl);
    if (code == CURLE_OK) {
        curl_off_t wait = 0;
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &out->status);
        curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &wait);
        out->retry_after_s = (double)wait;
    } else {
        out->never_sent = sure_never_sent(code);
        if (out->problem[0] == '\0')
            snprintf(out->problem, sizeof out->problem, "%s", curl_easy_strerror(code));
    }
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / NS_PER_MS;
}

static void sleep_ms(int64_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * NS_PER_MS};
    nanosleep(&t, NULL);
}

void http_persist(const struct cli *cli, const char *target, const struct http_call *call,
                  bool repeatable, struct http_result *out, bool *maybe)
{
    int64_t end = now_ms() + (int64_t)(cli->timeout_s * 1000), wait = RETRY_MIN_MS;
    *maybe = false;
    for (;;) {
        struct http_call attempt = *call;
        double left = (double)(end - now_ms()) / 1000;
        attempt.timeout_s = left > 0.1 ? left : 0.1;
        http_run(cli, target, &attempt, out);
        bool unknown = (out->status == 0 && !out->never_sent) || out->status == 504;
        bool undone = out->never_sent || out->status == 503;
        int64_t pause = out->retry_after_s > 0 ? (int64_t)(out->retry_after_s * 1000) : wait;
        *maybe = out->status != 200 && (*maybe || unknown);
        if (!(undone || (repeatable && unknown)) || now_ms() + pause >= end)
            return;
        http_result_free(out);
        sleep_ms(pause);
        wait = wait * 2 < RETRY_MAX_MS ? wait * 2 : RETRY_MAX_MS;
    }
}

int http_complain(const struct cli *cli, const struct http_result *r)
{
    if (r->status == 0)
        return cli_fail(cli,
                        "no answer from %s: %s; is the gateway running there? (-s URL or "
                        "STOA_SERVER names another)",
                        cli->server, r->problem);
    struct slice body = strbuf_slice(&r->body);
    struct json_value error = json_valid(body) ? json_get(body, "error") : (struct json_value){0};
    struct strbuf tag = {0}, message = {0};
    if (error.type == JSON_OBJECT) {
        json_unescape(json_get(error.raw, "tag"), &tag);
        json_unescape(json_get(error.raw, "message"), &message);
    }
    int code = tag.size > 0 ? cli_fail(cli, "%s: %s", strbuf_cstr(&tag), strbuf_cstr(&message))
                            : cli_fail(cli, "%s answered with status %ld; is it a Stoa gateway?",
                                       cli->server, r->status);
    strbuf_free(&tag);
    strbuf_free(&message);
    return code;
}

bool http_get(const struct cli *cli, const char *target, struct http_result *out)
{
    const struct http_call call = {.method = "GET", .timeout_s = cli->timeout_s};
    http_run(cli, target, &call, out);
    if (out->status == 200 && json_valid(strbuf_slice(&out->body)))
        return true;
    http_complain(cli, out);
    http_result_free(out);
    return false;
}
