/* CORE. Answers as bytes: status line, headers, body. The Date header is computed from the wall
 * clock that the caller hands in (proleptic Gregorian calendar, days counted from 1970-01-01, a
 * Thursday). */
#include <stdio.h>

#include "gateway/http.h"

static const struct {
    unsigned status;
    const char *reason;
} reasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {200, "OK"},
    {204, "No Content"},
    {304, "Not Modified"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {426, "Upgrade Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
};

static const char *status_reason(unsigned status)
{
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Status";
}

static void put_date(struct strbuf *out, int64_t wall_ms)
{
    static const char days[] = "ThuFriSatSunMonTueWed";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int64_t seconds = wall_ms > 0 ? wall_ms / 1000 : 0;
    int64_t day = seconds / 86400;
    unsigned rest = (unsigned)(seconds % 86400);
    /* Years begin in March here, so that the leap day is the last of its year. */
    int64_t shifted = day + 719468;
    int64_t era = shifted / 146097;
    unsigned of_era = (unsigned)(shifted - era * 146097);
    unsigned year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    unsigned of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned from_march = (5 * of_year + 2) / 153;
    unsigned of_month = of_year - (153 * from_march + 2) / 5 + 1;
    unsigned month = from_march < 10 ? from_march + 2 : from_march - 10; /* 0: January */
    int64_t year = (int64_t)year_of_era + era * 400 + (month < 2 ? 1 : 0);
    strbuf_printf(out, "Date: %.3s, %02u %.3s %04u %02u:%02u:%02u GMT\r\n",
                  days + 3 * (size_t)(day % 7), of_month, months + 3 * (size_t)month,
                  (unsigned)year, rest / 3600, rest / 60 % 60, rest % 60);
}

static void put_status(struct strbuf *out, unsigned status)
{
    strbuf_put_text(out, "HTTP/1.1 ");
    strbuf_put_u64(out, status);
    strbuf_put_byte(out, ' ');
    strbuf_put_text(out, status_reason(status));
    strbuf_put_text(out, "\r\n");
}

void http_answer_write(struct strbuf *out, const struct http_response *response,
                       const struct http_answer *how)
{
    bool bodiless = response->status == 204 || response->status == 304;
    put_status(out, response->status);
    put_date(out, how->wall_ms);
    if (response->content_type && !bodiless) {
        strbuf_put_text(out, "Content-Type: ");
        strbuf_put_text(out, response->content_type);
        strbuf_put_text(out, "\r\n");
    }
    if (!bodiless) {
        strbuf_put_text(out, "Content-Length: ");
        strbuf_put_u64(out, response->body.size);
        strbuf_put_text(out, "\r\n");
    }
    strbuf_put_slice(out, response->headers);
    if (!how->keep_alive)
        strbuf_put_text(out, "Connection: close\r\n");
    else if (how->minor == 0)
        strbuf_put_text(out, "Connection: keep-alive\r\n");
    strbuf_put_text(out, "\r\n");
    if (!bodiless && !how->head)
        strbuf_put_slice(out, response->body);
}

void http_stream_write(struct strbuf *out, const struct http_response *head,
                       const struct http_answer *how)
{
    put_status(out, head->status ? head->status : 200);
    put_date(out, how->wall_ms);
    strbuf_put_text(out, "Content-Type: text/event-stream\r\n"
                         "Cache-Control: no-store\r\n"
                         "X-Accel-Buffering: no\r\n"
                         "Connection: close\r\n");
    strbuf_put_slice(out, head->headers);
    strbuf_put_text(out, "\r\n");
}

void http_upgrade_write(struct strbuf *out, struct slice key, const char *subprotocol)
{
    strbuf_put_text(out, "GET / HTTP/1.1\r\n"
                         "Host: stoa\r\n"
                         "Upgrade: websocket\r\n"
                         "Connection: Upgrade\r\n"
                         "Sec-WebSocket-Version: 13\r\n"
                         "Sec-WebSocket-Key: ");
    strbuf_put_slice(out, key);
    if (subprotocol) {
        strbuf_put_text(out, "\r\nSec-WebSocket-Protocol: ");
        strbuf_put_text(out, subprotocol);
    }
    strbuf_put_text(out, "\r\n\r\n");
}
