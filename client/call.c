/* CORE. Checking and copying what callers ask of rooms; results. */
#include "client/call.h"

#include <stdlib.h>

#include "common/hash.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/utf8.h"

#define HEAD_SLACK_BYTES 128 /* of a CALL's head beside key and name */
#define NAME_MAX_BYTES 256
#define CODE_NORMAL 1000

/* ---- options of callers that were compiled against an older header ---- */

/* Whether the caller's struct has the field. */
#define GIVEN(options, field) \
    ((options) != NULL &&     \
     (options)->size >= offsetof(stoa_call_options, field) + sizeof((options)->field))

static struct slice idempotency_key_of(const struct call_order *order)
{
    const stoa_call_options *o = order->options;
    return GIVEN(o, idempotency_key) && o->idempotency_key ? slice_text(o->idempotency_key)
                                                           : slice_of(NULL, 0);
}

static int timeout_ms_of(const struct call_order *order)
{
    return GIVEN(order->options, timeout_ms) && order->options->timeout_ms > 0
               ? order->options->timeout_ms
               : order->default_timeout_ms;
}

/* ---- rules ---- */

static bool close_code_valid(int code)
{
    return code == 0 || code == 1000 || code == 1001 || code == 1008 ||
           (code >= 1011 && code <= 1013) || (code >= 3000 && code <= 4999);
}

static bool name_valid(const struct call_order *order)
{
    if (order->name.size > NAME_MAX_BYTES || !utf8_valid(order->name))
        return false;
    return order->verb != VERB_METHOD || order->name.size > 0;
}

static int input_check(const struct call_order *order)
{
    bool says = order->verb == VERB_SEND || order->verb == VERB_BROADCAST;
    if (order->type != MSG_CALL)
        return STOA_OK;
    if (order->input.size > PAYLOAD_HARD_MAX_BYTES)
        return STOA_TOO_LARGE;
    if (order->input.size > 0 && !order->input.data)
        return STOA_INVALID;
    return (says || order->input.size > 0) && !json_valid(order->input) ? STOA_INVALID : STOA_OK;
}

int call_check(const struct call_order *order)
{
    const stoa_call_options *o = order->options;
    if (!key_valid(order->key, false) || !name_valid(order) || !close_code_valid(order->close_code))
        return STOA_INVALID;
    if (o && o->size < sizeof o->size)
        return STOA_INVALID;
    struct slice id = idempotency_key_of(order);
    if (id.data && (id.size == 0 || id.size > IDEMPOTENCY_KEY_MAX_BYTES))
        return STOA_INVALID;
    if (GIVEN(o, timeout_ms) && o->timeout_ms < 0)
        return STOA_INVALID;
    return input_check(order);
}

/* ---- the copy ---- */

static struct slice bytes_take(uint8_t **at, struct slice from)
{
    struct slice copy = slice_of(*at, from.size);
    if (from.size > 0)
        memcpy(*at, from.data, from.size);
    *at += from.size;
    return copy;
}

struct call *call_create(const struct call_order *order)
{
    const stoa_call_options *o = order->options;
    struct slice id = idempotency_key_of(order);
    size_t text = order->key.size + order->name.size + order->input.size;
    struct call *c = malloc(sizeof *c + text);
    if (!c)
        return NULL;
    memset(c, 0, sizeof *c);
    uint8_t *at = (uint8_t *)(c + 1);
    list_init(&c->node);
    c->key = bytes_take(&at, order->key);
    c->name = bytes_take(&at, order->name);
    c->input = bytes_take(&at, order->input);
    c->type = order->type;
    c->verb = order->verb;
    c->close_code = (uint16_t)(order->close_code ? order->close_code : CODE_NORMAL);
    c->bytes = sizeof *c + text;
    c->wire_bytes = HEAD_SLACK_BYTES + text;
    c->timeout_ns = timeout_ms_of(order) * NS_PER_MS;
    c->on_item = GIVEN(o, on_item) ? o->on_item : NULL;
    c->item_arg = GIVEN(o, item_arg) ? o->item_arg : NULL;
    if (id.data) {
        uint8_t digest[32];
        sha256(digest, id.data, id.size);
        memcpy(c->msg_id, digest, sizeof c->msg_id);
        c->has_id = true;
    }
    return c;
}

void call_destroy(struct call *c)
{
    stoa_result_free(c->result);
    free(c);
}

/* ---- results ---- */

static const char *text_take(char **at, struct slice from)
{
    char *copy = *at;
    if (from.size > 0)
        memcpy(copy, from.data, from.size);
    copy[from.size] = '\0';
    *at += from.size + 1;
    return copy;
}

stoa_result *call_result(unsigned status, bool duplicate, struct slice tag, struct slice message,
                         struct slice data)
{
    stoa_result *r = mem_alloc(sizeof *r + tag.size + message.size + data.size + 3);
    char *at = (char *)(r + 1);
    *r = (stoa_result){.status = (int)status, .duplicate = duplicate, .data_size = data.size};
    r->data = text_take(&at, data);
    r->tag = text_take(&at, tag);
    r->message = text_take(&at, message);
    return r;
}

void stoa_result_free(stoa_result *result)
{
    mem_free(result);
}
