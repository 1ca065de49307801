/* CORE. Answers to HTTP requests, at once or later. A waiter stands for a request whose answer
 * needs a router or a shard; it forgets its client when the connection goes first. */
#include <stdio.h>

#include "common/json.h"
#include "gateway/core.h"

static const struct {
    const char *tag;
    unsigned status;
} tags[] = {
    {"BadRequest", 400},
    {"BadKey", 400},
    {"BadId", 400},
    {"RoomValidationError", 400},
    {"Unauthorized", 401},
    {"TokenExpired", 401},
    {"Forbidden", 403},
    {"OriginRefused", 403},
    {"NotFound", 404},
    {"NoSuchType", 404},
    {"NoSuchMethod", 404},
    {"MethodNotAllowed", 405},
    {"Duplicate", 409},
    {"NoHandler", 409},
    {"RoomFull", 409},
    {"TooLarge", 413},
    {"AttachmentTooLargeError", 413},
    {"UnsupportedType", 415},
    {"UpgradeRequired", 426},
    {"RateLimited", 429},
    {"RoomError", 500},
    {"RoomExecutionError", 500},
    {"UpgradeError", 500},
    {"SendError", 500},
    {"BroadcastError", 500},
    {"Busy", 503},
    {"Moving", 503},
    {"DiskFull", 503},
    {"Draining", 503},
    {"Unknown", 504},
};

_Static_assert(sizeof tags / sizeof *tags < TAGS_MAX, "each tag and the unknown have a place");

static size_t tag_index(const char *tag)
{
    size_t i = 0;
    while (i < sizeof tags / sizeof *tags && strcmp(tags[i].tag, tag) != 0)
        i++;
    return i;
}

bool tag_known(const char *tag)
{
    return tag_index(tag) < sizeof tags / sizeof *tags;
}

unsigned tag_status(const char *tag)
{
    size_t i = tag_index(tag);
    return i < sizeof tags / sizeof *tags ? tags[i].status : 500;
}

static struct metric *refused_metric(struct gateway *g, const char *tag)
{
    char label[64];
    snprintf(label, sizeof label, "tag=\"%s\"", tag);
    return metrics_counter(g->m.registry, "stoa_refused_total", label,
                           "Requests and frames answered with an error.");
}

bool rare_take(struct rare *r, struct tick now, uint64_t *more)
{
    if (now.mono_ns < r->due_ns) {
        r->held_back++;
        return false;
    }
    *more = r->held_back;
    r->held_back = 0;
    r->due_ns = now.mono_ns + NS_PER_S;
    return true;
}

void refused_note(struct gateway *g, const char *tag, const char *message)
{
    uint64_t more;
    metric_add(refused_metric(g, tag), 1);
    if (rare_take(&g->refusals[tag_index(tag)], g->now, &more))
        LOG(g->log, LOG_INFO, "gateway.refused", LOG_STR("tag", tag), LOG_STR("message", message),
            LOG_U64("more", more));
}

void refused_register(struct gateway *g)
{
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        (void)refused_metric(g, tags[i].tag);
}

void error_put(struct strbuf *out, const char *tag, const char *message, bool with_status)
{
    strbuf_put_text(out, "{\"tag\":\"");
    strbuf_put_text(out, tag);
    strbuf_put_text(out, "\",\"message\":");
    json_quote(out, slice_text(message));
    if (with_status) {
        strbuf_put_text(out, ",\"status\":");
        strbuf_put_u64(out, tag_status(tag));
    }
    strbuf_put_byte(out, '}');
}

void answer(struct gateway *g, uint64_t client, const char *cors, unsigned status,
            const char *content_type, struct slice body, const char *headers)
{
    struct strbuf extra = {0};
    strbuf_put_text(&extra, cors);
    strbuf_put_text(&extra, headers);
    struct http_response response = {.status = status,
                                     .content_type = content_type,
                                     .body = body,
                                     .headers = strbuf_slice(&extra),
                                     .close = g->draining};
    g->ports.respond(g->ports.ctx, client, &response);
    strbuf_free(&extra);
}

static void error_answer(struct gateway *g, uint64_t client, const char *cors, unsigned status,
                         const char *tag, const char *message, const char *headers,
                         uint64_t retry_s)
{
    struct strbuf body = {0};
    struct strbuf extra = {0};
    refused_note(g, tag, message);
    strbuf_put_text(&body, "{\"error\":");
    error_put(&body, tag, message, false);
    strbuf_put_byte(&body, '}');
    strbuf_put_text(&extra, headers);
    if (status == 401)
        strbuf_put_text(&extra, "WWW-Authenticate: Bearer\r\n");
    if (status == 503 || status == 429)
        strbuf_printf(&extra, "Retry-After: %llu\r\n", (unsigned long long)retry_s);
    answer(g, client, cors, status, "application/json", strbuf_slice(&body), strbuf_cstr(&extra));
    strbuf_free(&body);
    strbuf_free(&extra);
}

void answer_error(struct gateway *g, uint64_t client, const char *cors, const char *tag,
                  const char *message, const char *headers)
{
    error_answer(g, client, cors, tag_status(tag), tag, message, headers, 1);
}

void refusal_put(struct strbuf *out, const struct refusal *r, bool with_status)
{
    /* What a handler raised is for its author: the shard's log has it. */
    bool raised = slice_is(r->tag, "RoomExecutionError");
    strbuf_put_text(out, "{\"tag\":");
    json_quote(out, r->tag);
    strbuf_put_text(out, ",\"message\":");
    json_quote(out, raised ? slice_text("the room's handler failed; the shard's log says how")
                           : r->text);
    if (with_status)
        strbuf_printf(out, ",\"status\":%u", r->status);
    strbuf_put_byte(out, '}');
}

/* A room may invent tags; those are counted as one. */
void refusal_note(struct gateway *g, const struct refusal *r)
{
    struct strbuf tag = {0};
    strbuf_put_slice(&tag, r->tag);
    refused_note(g, tag_known(strbuf_cstr(&tag)) ? strbuf_cstr(&tag) : "UpgradeError",
                 "a room refused a connection");
    strbuf_free(&tag);
}

void answer_refusal(struct gateway *g, uint64_t client, const char *cors, const struct refusal *r)
{
    struct strbuf body = {0};
    refusal_note(g, r);
    strbuf_put_text(&body, "{\"error\":");
    refusal_put(&body, r, false);
    strbuf_put_byte(&body, '}');
    answer(g, client, cors, r->status, "application/json", strbuf_slice(&body),
           r->status == 503 || r->status == 429 ? "Retry-After: 1\r\n" : "");
    strbuf_free(&body);
}

void gateway_refuse(struct gateway *g, uint64_t client, unsigned status, const char *tag,
                    const char *message)
{
    error_answer(g, client, "", status, tag, message, "", 1);
}

/* ---- later ---- */

void waiter_begin(struct gateway *g, struct waiter *w, uint64_t client, const char *cors)
{
    *w = (struct waiter){.client = client, .waiting = true};
    if (*cors)
        w->cors = mem_strdup(cors);
    STOA_ASSERT(!map_get(g->waiters, map_id(&w->client)));
    map_put(g->waiters, map_id(&w->client), w);
}

void waiter_drop(struct gateway *g, struct waiter *w)
{
    if (w->waiting)
        map_remove(g->waiters, map_id(&w->client));
    mem_free(w->cors);
    w->cors = NULL;
    w->waiting = false;
}

void waiter_answer(struct gateway *g, struct waiter *w, const char *content_type, struct slice body)
{
    if (w->waiting)
        answer(g, w->client, w->cors ? w->cors : "", 200, content_type, body, "");
    waiter_drop(g, w);
}

void waiter_error(struct gateway *g, struct waiter *w, const char *tag, const char *message)
{
    if (w->waiting)
        answer_error(g, w->client, w->cors ? w->cors : "", tag, message, "");
    waiter_drop(g, w);
}

void waiter_limited(struct gateway *g, struct waiter *w, const char *message, uint64_t retry_ms)
{
    uint64_t retry_s = retry_ms / 1000 + (retry_ms % 1000 != 0);
    if (w->waiting)
        error_answer(g, w->client, w->cors ? w->cors : "", 429, "RateLimited", message, "",
                     retry_s > 0 ? retry_s : 1);
    waiter_drop(g, w);
}
