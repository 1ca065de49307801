/* CORE. The byte layer of HTTP/1: bytes in, one complete request after the other out; answers to
 * bytes. Knows no socket and no clock. What it accepts is narrower than what HTTP allows to be
 * guessed: every head that two servers could read differently is refused, with an answer.
 *
 *   MORE -> (CONTINUE once) -> REQUEST -> http_reader_done -> MORE ...      REFUSED is final
 *
 * A reader owns the bytes of one connection that are not answered yet: the head and body of the
 * current request, and what the client sent after it (pipelined requests, or WebSocket frames
 * behind an upgrade). It is meant to be given back while a connection is idle: see
 * http_reader_idle. */
#ifndef STOA_GATEWAY_HTTP_H
#define STOA_GATEWAY_HTTP_H

#include "gateway/request.h"

struct http_reader;

enum http_step {
    HTTP_STEP_MORE,     /* bytes are missing */
    HTTP_STEP_CONTINUE, /* the client waits for "100 Continue" before it sends the body */
    HTTP_STEP_REQUEST,  /* http_reader_request has it */
    HTTP_STEP_REFUSED,  /* http_reader_refusal says why; the connection must be closed after the
                           answer */
};

/* Constants only: nothing of the input is in them. */
struct http_refusal {
    unsigned status;
    const char *tag;
    const char *message;
    const char *headers; /* extra headers of the answer, "" or lines ending in CRLF */
    bool for_token;      /* the head is too large because of a token */
};

struct http_reader *http_reader_create(void);
void http_reader_destroy(struct http_reader **r);
/* Empties it for another connection; keeps a moderate amount of memory. */
void http_reader_reset(struct http_reader *r);
/* Appends bytes as they came. The caller bounds what it puts behind a request: see
 * http_reader_rest. */
void http_reader_put(struct http_reader *r, struct slice bytes);
/* Reads on. Bodies above `body_max` bytes are refused (413), announced ones before they are read.
 */
enum http_step http_reader_step(struct http_reader *r, size_t body_max);

/* After REQUEST: fills `out`, whose slices point into the reader until http_reader_done. `peer_ip`
 * is left to the caller. */
void http_reader_request(const struct http_reader *r, struct http_request *out);
const struct http_refusal *http_reader_refusal(const struct http_reader *r);
/* Of the current request; after REFUSED as far as it was understood. */
bool http_reader_keep_alive(const struct http_reader *r);
bool http_reader_is_head(const struct http_reader *r);
unsigned http_reader_minor(const struct http_reader *r); /* HTTP/1.minor */
/* Forgets the current request, keeps what came behind it. */
void http_reader_done(struct http_reader *r);

bool http_reader_idle(const struct http_reader *r);    /* no byte of a next request is here */
bool http_reader_in_body(const struct http_reader *r); /* the head is complete, the body is not */
/* What is behind the current request: after an upgrade the first WebSocket frames. */
struct slice http_reader_rest(const struct http_reader *r);

struct http_answer {
    bool head;       /* of a HEAD request: no body */
    bool keep_alive; /* else "Connection: close" */
    unsigned minor;
    int64_t wall_ms; /* for the Date header */
};

/* Head and body of an answer. */
void http_answer_write(struct strbuf *out, const struct http_response *response,
                       const struct http_answer *how);
/* The head of an event stream that ends with the connection. */
void http_stream_write(struct strbuf *out, const struct http_response *head,
                       const struct http_answer *how);
/* The canonical head by which an accepted upgrade is handed on (key: 24 characters). */
void http_upgrade_write(struct strbuf *out, struct slice key, const char *subprotocol);

#endif
