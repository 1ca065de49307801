/* SHELL. HTTP to a gateway, on libcurl. */
#ifndef STOA_CLIENT_CLI_HTTP_H
#define STOA_CLIENT_CLI_HTTP_H

#include <curl/curl.h>

#include "client/cli/cli.h"

struct http_call {
    const char *method; /* "GET", "POST" */
    struct slice body;
    const char *const *headers; /* "Name: value", NULL-terminated; NULL: none */
    double timeout_s;
};

struct http_result {
    long status; /* 0: no answer */
    struct strbuf body;
    bool never_sent;               /* no answer, and the server cannot have seen the request */
    double retry_after_s;          /* 0: not told */
    char problem[CURL_ERROR_SIZE]; /* no answer: why */
};

void http_result_free(struct http_result *r);
/* `target`: path and query, already encoded. Fills in `out`, whatever happens. */
void http_run(const struct cli *cli, const char *target, const struct http_call *call,
              struct http_result *out);
/* The same request until it is answered for good or cli->timeout_s is over. `repeatable`: also when
 * an attempt may have been carried out unseen. *maybe: the last word is no, but one may have been.
 */
void http_persist(const struct cli *cli, const char *target, const struct http_call *call,
                  bool repeatable, struct http_result *out, bool *maybe);
/* Appends percent-encoded text that may stand in a query and in a part of a path. */
void http_encode(struct strbuf *target, struct slice text);
/* A random Idempotency-Key. */
void http_random_key(char out[33]);
/* Appends NAME=value, percent-encoded, with '?' or '&' in front as needed. */
void http_query_add(struct strbuf *target, const char *name, struct slice value);
/* GET that must answer 200: false after telling why on stderr. */
bool http_get(const struct cli *cli, const char *target, struct http_result *out);
/* Tells a failed call in one line: the server's own message, or that nobody answers and what to do.
 */
int http_complain(const struct cli *cli, const struct http_result *r);
/* A handle with the options that every request has (URL, token, user agent); the caller cleans up
 * both. */
CURL *http_handle(const struct cli *cli, const char *target, struct curl_slist **headers);

#endif
