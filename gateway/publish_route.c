/* CORE. POST /publish: from a request to a publish. One body is one payload, byte for byte; with
 * Content-Type application/x-ndjson each line that is not empty is one, all or none. */
#include "common/json.h"
#include "common/utf8.h"
#include "gateway/core.h"
#include "proto/typed.h"

static bool is_ndjson(const struct http_request *request)
{
    return http_header_has_token(http_media_type(request), "application/x-ndjson");
}

/* The lines of a batch; more than BATCH_MAX_EVENTS are counted, not kept. NULL: fine. */
static const char *batch_read(struct slice body, struct slice parts[BATCH_MAX_EVENTS],
                              size_t *count, const char **message)
{
    *count = 0;
    for (size_t at = 0; at < body.size;) {
        const uint8_t *newline = memchr(body.data + at, '\n', body.size - at);
        size_t end = newline ? (size_t)(newline - body.data) : body.size;
        struct slice line = slice_of(body.data + at, end - at);
        at = end + 1;
        if (line.size > 0 && line.data[line.size - 1] == '\r')
            line.size--;
        if (line.size == 0)
            continue;
        if (*count == BATCH_MAX_EVENTS) {
            *message = "a batch has at most 256 events and 1 MiB";
            return "TooLarge";
        }
        if (!json_valid(line)) {
            *message = "every line of a batch must be one JSON value; nothing was stored";
            return "BadRequest";
        }
        parts[(*count)++] = line;
    }
    *message = "a batch needs at least one line";
    return *count == 0 ? "BadRequest" : NULL;
}

/* Headers into the order; NULL: fine. */
static const char *headers_read(struct exchange *x, struct publish_order *order,
                                const char **message)
{
    const struct http_request *request = x->request;
    struct slice idempotency_key = http_header_get(request, "Idempotency-Key");
    struct slice ephemeral = http_header_get(request, "Stoa-Ephemeral");
    order->conflate = http_header_get(request, "Stoa-Conflate");
    static const char *const once[] = {"Idempotency-Key", "Stoa-Ephemeral", "Stoa-Conflate",
                                       "Stoa-Format"};
    for (size_t i = 0; i < sizeof once / sizeof *once; i++)
        if (http_header_repeated(request, once[i])) {
            *message = "Idempotency-Key, Stoa-Ephemeral, Stoa-Conflate, Stoa-Format: at most one "
                       "of each";
            return "BadRequest";
        }
    struct slice format = http_header_get(request, "Stoa-Format");
    if (format.data && !slice_is(format, "orpc")) {
        *message = "Stoa-Format: orpc, or without the header a payload as it is";
        return "BadRequest";
    }
    if (idempotency_key.data &&
        (idempotency_key.size == 0 || idempotency_key.size > IDEMPOTENCY_KEY_MAX_BYTES)) {
        *message = "Idempotency-Key: 1 to 255 bytes";
        return "BadRequest";
    }
    if (ephemeral.data && !slice_is(ephemeral, "1") && !slice_is(ephemeral, "0")) {
        *message = "Stoa-Ephemeral: 1 or 0";
        return "BadRequest";
    }
    if (order->conflate.data && (order->conflate.size == 0 || !utf8_valid(order->conflate))) {
        *message = "Stoa-Conflate: 1 to 64 bytes of UTF-8";
        return "BadRequest";
    }
    order->ephemeral = slice_is(ephemeral, "1");
    order->typed = format.data != NULL;
    order->idempotent = idempotency_key.data != NULL;
    publish_id(x->g, order, idempotency_key);
    return NULL;
}

/* NULL: fine. */
static const char *parts_check(const struct publish_order *order, const char **message)
{
    for (size_t i = 0; order->typed && i < order->n_parts; i++) {
        const char *wrong = typed_check(order->parts[i]);
        if (wrong) {
            *message = wrong;
            return "BadRequest";
        }
    }
    return NULL;
}

void route_publish(struct exchange *x)
{
    struct slice parts[BATCH_MAX_EVENTS];
    struct slice body = x->request->body;
    struct publish_order order = {.parts = &body, .n_parts = 1};
    struct strbuf filter = {0};
    const char *message = "";
    if (!exchange_key(x, RIGHT_PUBLISH))
        return;
    order.key = strbuf_slice(&x->key);
    const char *tag = headers_read(x, &order, &message);
    if (!tag)
        tag = filter_of_query(x->request->query, &filter, &message);
    order.filter = strbuf_slice(&filter);
    if (!tag && is_ndjson(x->request)) {
        order.batch = true;
        order.parts = parts;
        tag = batch_read(body, parts, &order.n_parts, &message);
    }
    if (!tag)
        tag = publish_check(x->g, &order, &message);
    if (!tag)
        tag = parts_check(&order, &message);
    if (tag)
        metric_add(x->g->m.publishes[PUBLISHED_REJECTED], 1);
    else
        tag = publish_begin(x->g, x->client, exchange_cors(x), &order, &message);
    if (tag)
        exchange_error(x, tag, message);
    strbuf_free(&filter);
}
