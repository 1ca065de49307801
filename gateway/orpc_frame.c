/* CORE. Messages of oRPC's peer protocol (orpc_frame.h):
 *
 *   {"i":"3","p":{"u":"/call","m":"POST","h":{…},"b":{"json":…,"meta":[…]}}}     a request
 *   {"i":"3","t":4}                                                              its end
 *
 * `i` may be any JSON and is only ever repeated; `u` is a path or an absolute address, of which the
 * path counts; with the method GET the body stands in `?data=`. */
#include "gateway/orpc_frame.h"

#include "proto/typed_meta.h"

/* ---- forms ---- */

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void form_decode(struct slice raw, struct strbuf *out)
{
    for (size_t i = 0; i < raw.size; i++) {
        bool escape = raw.data[i] == '%' && i + 2 < raw.size && hex_value(raw.data[i + 1]) >= 0 &&
                      hex_value(raw.data[i + 2]) >= 0;
        if (escape) {
            strbuf_put_byte(
                out, (uint8_t)(hex_value(raw.data[i + 1]) * 16 + hex_value(raw.data[i + 2])));
            i += 2;
        } else {
            strbuf_put_byte(out, raw.data[i] == '+' ? ' ' : raw.data[i]);
        }
    }
}

/* What stands before the first `stop`; *rest: behind it. */
static struct slice cut(struct slice text, uint8_t stop, struct slice *rest)
{
    const uint8_t *at = text.size ? memchr(text.data, stop, text.size) : NULL;
    size_t size = at ? (size_t)(at - text.data) : text.size;
    size_t taken = at ? size + 1 : size;
    *rest = slice_of(text.data + taken, text.size - taken);
    return slice_of(text.data, size);
}

bool orpc_query_last(struct slice query, const char *name, struct strbuf *out)
{
    struct slice found = {0}, pair, raw_name, value;
    struct strbuf decoded = {0};
    bool any = false;
    while (query.size > 0) {
        pair = cut(query, '&', &query);
        if (pair.size == 0)
            continue;
        raw_name = cut(pair, '=', &value);
        strbuf_reset(&decoded);
        form_decode(raw_name, &decoded);
        if (slice_is(strbuf_slice(&decoded), name)) {
            found = value;
            any = true;
        }
    }
    strbuf_free(&decoded);
    form_decode(found, out);
    return any;
}

/* ---- the address ---- */

static struct slice behind(struct slice text, size_t n)
{
    return slice_of(text.data + n, text.size - n);
}

static bool is_letter(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The bytes of "scheme:" in front; 0: there is none. */
static size_t scheme_size(struct slice address)
{
    size_t i = 0;
    while (i < address.size &&
           (is_letter(address.data[i]) ||
            (i > 0 && strchr("0123456789+-.", address.data[i]) && address.data[i] != 0)))
        i++;
    return i > 0 && i < address.size && address.data[i] == ':' ? i + 1 : 0;
}

/* Path and query of an address; false: it is relative, which no client sends. */
static bool address_split(struct slice address, struct slice *path, struct slice *query)
{
    struct slice rest;
    size_t scheme = scheme_size(address);
    if (scheme == 0 && (address.size == 0 || address.data[0] != '/'))
        return false;
    address = cut(behind(address, scheme), '#', &rest);
    *path = cut(address, '?', query);
    if (scheme == 0 || path->size < 2 || path->data[0] != '/' || path->data[1] != '/')
        return true;
    (void)cut(behind(*path, 2), '/', path); /* the host */
    return true;
}

static enum orpc_word word_of(struct slice path)
{
    while (path.size > 0 && path.data[0] == '/')
        path = behind(path, 1);
    while (path.size > 0 && path.data[path.size - 1] == '/')
        path.size--;
    if (slice_is(path, "subscribe"))
        return ORPC_SUBSCRIBE;
    if (slice_is(path, "call"))
        return ORPC_CALL;
    return slice_is(path, "updateToken") ? ORPC_UPDATE : ORPC_UNKNOWN;
}

/* Whether a body is {"json"?, "meta"?} and every path of meta leads to a part of json. */
static bool body_fits(struct json_value body)
{
    if (body.type == JSON_NONE)
        return true;
    if (body.type != JSON_OBJECT)
        return false;
    struct json_value json = json_get(body.raw, "json"), meta = json_get(body.raw, "meta");
    return meta.type == JSON_NONE || typed_meta_check(json, meta) == META_FITS;
}

/* ---- a message ---- */

static bool same_but_case(struct slice a, const char *lower)
{
    if (a.size != strlen(lower))
        return false;
    for (size_t i = 0; i < a.size; i++)
        if ((is_letter(a.data[i]) ? a.data[i] | 0x20 : a.data[i]) != lower[i])
            return false;
    return true;
}

/* The header may be a list: its last counts. */
static void last_id_read(struct json_value headers, struct orpc_frame *out)
{
    struct json_iter it = json_members(headers.raw);
    while (json_next(&it)) {
        struct json_value value = it.value;
        if (!same_but_case(it.name, "last-event-id"))
            continue;
        if (value.type == JSON_ARRAY) {
            struct json_iter list = json_members(value.raw);
            while (json_next(&list))
                value = list.value;
        }
        strbuf_reset(&out->text_);
        out->resumes = value.type == JSON_STRING && json_unescape(value, &out->text_);
    }
    out->last_id = strbuf_slice(&out->text_);
}

/* With GET the body stands in the address. */
static void body_read(struct json_value method, struct slice query, struct json_value given,
                      struct orpc_frame *out)
{
    out->body = given;
    if (method.type == JSON_STRING && slice_is(method.raw, "\"GET\"")) {
        out->body = (struct json_value){0};
        if (orpc_query_last(query, "data", &out->data_) && out->data_.size > 0) {
            struct slice data = strbuf_slice(&out->data_);
            out->fit = json_valid(data);
            out->body = (struct json_value){json_type_of(data), data};
        }
    }
    out->fit = out->fit && body_fits(out->body);
}

static void request_read(struct json_value p, struct orpc_frame *out)
{
    struct json_value address = json_get(p.raw, "u"), headers = json_get(p.raw, "h"),
                      method = json_get(p.raw, "m");
    struct strbuf text = {0};
    struct slice path, query;
    bool shaped = (headers.type == JSON_NONE || headers.type == JSON_OBJECT) &&
                  (method.type == JSON_NONE || method.type == JSON_STRING);
    out->fit = true;
    if (shaped && address.type == JSON_STRING && json_unescape(address, &text) &&
        address_split(strbuf_slice(&text), &path, &query)) {
        out->word = word_of(path);
        if (headers.type == JSON_OBJECT)
            last_id_read(headers, out);
        body_read(method, query, json_get(p.raw, "b"), out);
    }
    strbuf_free(&text);
}

void orpc_frame_read(struct slice bytes, struct orpc_frame *out)
{
    struct slice blob;
    *out = (struct orpc_frame){.word = ORPC_NOTHING};
    bytes = cut(bytes, 0xFF, &blob); /* which stands in no UTF-8 */
    if (json_type_of(bytes) != JSON_OBJECT || !json_valid(bytes))
        return;
    struct json_value id = json_get(bytes, "i"), type = json_get(bytes, "t"),
                      p = json_get(bytes, "p");
    uint64_t number = 1;
    out->id = id.raw;
    if (id.type == JSON_NONE || id.raw.size > ORPC_ID_MAX_BYTES ||
        (type.type != JSON_NONE && !json_u64(type, &number)))
        return;
    if (number == 4)
        out->word = ORPC_ABORT;
    else if (number == 1 && p.type == JSON_OBJECT)
        request_read(p, out);
}

void orpc_frame_free(struct orpc_frame *f)
{
    strbuf_free(&f->text_);
    strbuf_free(&f->data_);
}
