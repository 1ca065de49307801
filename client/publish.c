/* CORE. Checking and copying what callers give. */
#include "client/publish.h"

#include <stdlib.h>

#include "common/hash.h"
#include "common/utf8.h"

#define HEAD_SLACK_BYTES                                                     \
    128 /* of a PUB's head beside key, conflate value, filter and part sizes \
         */
#define PART_HEAD_BYTES 5

/* ---- options ---- */

static struct slice conflate_of(const struct publish_order *order)
{
    const stoa_publish_options *o = order->options;
    return PUBLISH_GIVEN(o, conflate) && o->conflate ? slice_text(o->conflate) : slice_of(NULL, 0);
}

static struct slice idempotency_key_of(const struct publish_order *order)
{
    const stoa_publish_options *o = order->options;
    return PUBLISH_GIVEN(o, idempotency_key) && o->idempotency_key ? slice_text(o->idempotency_key)
                                                                   : slice_of(NULL, 0);
}

static bool ephemeral_of(const struct publish_order *order)
{
    return PUBLISH_GIVEN(order->options, ephemeral) && order->options->ephemeral != 0;
}

static int timeout_ms_of(const struct publish_order *order)
{
    return PUBLISH_GIVEN(order->options, timeout_ms) && order->options->timeout_ms > 0
               ? order->options->timeout_ms
               : order->default_timeout_ms;
}

/* ---- rules ---- */

static int parts_check(const struct publish_order *order)
{
    size_t sum = 0;
    if (order->n_parts == 0 || !order->parts)
        return STOA_INVALID;
    if (order->n_parts > BATCH_MAX_EVENTS)
        return STOA_TOO_LARGE;
    for (size_t i = 0; i < order->n_parts; i++) {
        if (!order->parts[i].data && order->parts[i].size > 0)
            return STOA_INVALID;
        if (order->parts[i].size > PAYLOAD_HARD_MAX_BYTES)
            return STOA_TOO_LARGE;
        sum += order->parts[i].size;
    }
    return sum > BATCH_MAX_BYTES ? STOA_TOO_LARGE : STOA_OK;
}

int publish_check(const struct publish_order *order)
{
    const stoa_publish_options *o = order->options;
    if (!key_valid(order->key, false))
        return STOA_INVALID;
    if (o && o->size < sizeof o->size)
        return STOA_INVALID;
    struct slice conflate = conflate_of(order), id = idempotency_key_of(order);
    if (conflate.size > CONFLATE_MAX_BYTES || !utf8_valid(conflate))
        return STOA_INVALID;
    if (id.data && (id.size == 0 || id.size > IDEMPOTENCY_KEY_MAX_BYTES))
        return STOA_INVALID;
    if (PUBLISH_GIVEN(o, timeout_ms) && o->timeout_ms < 0)
        return STOA_INVALID;
    struct strbuf filter = {0};
    int code = publish_filter(o, &filter);
    strbuf_free(&filter);
    return code != STOA_OK ? code : parts_check(order);
}

/* ---- the copy ---- */

static struct slice bytes_take(uint8_t **at, const void *data, size_t size)
{
    struct slice copy = slice_of(*at, size);
    if (size > 0)
        memcpy(*at, data, size);
    *at += size;
    return copy;
}

struct publish *publish_create(const struct publish_order *order)
{
    struct slice conflate = conflate_of(order), id = idempotency_key_of(order);
    size_t payload = 0;
    struct strbuf filter = {0};
    if (publish_filter(order->options, &filter) != STOA_OK) {
        strbuf_free(&filter);
        return NULL;
    }
    for (size_t i = 0; i < order->n_parts; i++)
        payload += order->parts[i].size;
    size_t size = sizeof(struct publish) + order->n_parts * sizeof(struct slice) + order->key.size +
                  conflate.size + filter.size + payload;
    struct publish *p = malloc(size);
    if (!p) {
        strbuf_free(&filter);
        return NULL;
    }
    memset(p, 0, sizeof *p);
    p->parts = (struct slice *)(p + 1);
    uint8_t *at = (uint8_t *)(p->parts + order->n_parts);
    list_init(&p->node);
    p->key = bytes_take(&at, order->key.data, order->key.size);
    p->conflate = bytes_take(&at, conflate.data, conflate.size);
    p->filter = bytes_take(&at, filter.data, filter.size);
    p->n_parts = order->n_parts;
    for (size_t i = 0; i < order->n_parts; i++)
        p->parts[i] = bytes_take(&at, order->parts[i].data, order->parts[i].size);
    p->bytes = size;
    p->wire_bytes = HEAD_SLACK_BYTES + order->n_parts * PART_HEAD_BYTES + order->key.size +
                    conflate.size + filter.size + payload;
    p->ephemeral = ephemeral_of(order);
    p->timeout_ns = timeout_ms_of(order) * NS_PER_MS;
    if (id.data) {
        uint8_t digest[32];
        sha256(digest, id.data, id.size);
        memcpy(p->msg_id, digest, sizeof p->msg_id);
        p->has_id = true;
    }
    strbuf_free(&filter);
    return p;
}

void publish_destroy(struct publish *p)
{
    free(p);
}
