/* HTTP requests from arbitrary bytes: never reads outside of what came, never loops, and splits of
 * the same bytes give the same requests. The first byte chooses how the input is cut. */
#include <stdlib.h>

#include "common/hash.h"
#include "gateway/http.h"

#define BODY_MAX 4096
#define REQUESTS_MAX 64

static uint64_t mix_slice(uint64_t sum, struct slice s)
{
    return hash_bytes(s.data ? s.data : (const uint8_t *)"", s.size, sum);
}

static uint64_t mix_request(uint64_t sum, const struct http_reader *r)
{
    static struct http_request request;
    http_reader_request(r, &request);
    STOA_ASSERT(request.path.size > 0 && request.path.data[0] == '/');
    STOA_ASSERT(request.body.size <= BODY_MAX);
    sum = mix_slice(sum + request.method, request.path);
    sum = mix_slice(sum, request.query);
    for (size_t i = 0; i < request.n_headers; i++) {
        sum = mix_slice(sum, request.headers[i].name);
        sum = mix_slice(sum, request.headers[i].value);
    }
    struct strbuf text = {0};
    (void)http_decode(request.path, false, &text);
    strbuf_reset(&text);
    (void)http_query_get(request.query, "key", &text);
    strbuf_free(&text);
    return mix_slice(sum + request.upgrade, request.body);
}

/* A digest of everything that was understood, when the bytes come in pieces of `cut`. */
static uint64_t digest(const uint8_t *data, size_t size, size_t cut)
{
    struct http_reader *r = http_reader_create();
    uint64_t sum = 1;
    unsigned requests = 0;
    size_t at = 0;
    for (;;) {
        enum http_step step = http_reader_step(r, BODY_MAX);
        if (step == HTTP_STEP_REQUEST) {
            sum = mix_request(sum, r);
            http_reader_done(r);
            if (++requests == REQUESTS_MAX)
                break;
        } else if (step == HTTP_STEP_REFUSED) {
            sum = sum * 31 + 7;
            break;
        } else if (step == HTTP_STEP_MORE) {
            if (at == size)
                break;
            size_t piece = cut < size - at ? cut : size - at;
            http_reader_put(r, slice_of(data + at, piece));
            at += piece;
        }
    }
    http_reader_destroy(&r);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t cut = data[0] % 17 + 1;
    uint64_t whole = digest(data + 1, size - 1, size);
    STOA_ASSERT(digest(data + 1, size - 1, cut) == whole);
    return 0;
}
