/* CORE. JSON strings to text and back. Quoting never fails and never leaves JSON, whatever bytes it
 * is given; unescaping refuses what has no UTF-8, a lone half of a surrogate pair. */
#include "common/json.h"

#include "common/json_scan.h"
#include "common/utf8.h"

/* Appends what a \u escape means, the second half of a pair included. `at` stands behind the u. */
static const uint8_t *unicode_unescape(const uint8_t *at, const uint8_t *end, struct strbuf *out)
{
    int32_t code = hex4(at, end);
    if (code < 0 || (code >= 0xdc00 && code <= 0xdfff))
        return NULL;
    at += 4;
    if (code >= 0xd800 && code <= 0xdbff) {
        if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
            return NULL;
        int32_t low = hex4(at + 2, end);
        if (low < 0xdc00 || low > 0xdfff)
            return NULL;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        at += 6;
    }
    strbuf_commit(out, utf8_encode((uint32_t)code, strbuf_reserve(out, 4)));
    return at;
}

static const uint8_t *one_unescape(const uint8_t *at, const uint8_t *end, struct strbuf *out)
{
    static const char NAMES[] = "\"\\/bfnrt";
    static const char MEANINGS[] = "\"\\/\b\f\n\r\t";
    at++; /* the backslash */
    if (at == end)
        return NULL;
    if (*at == 'u')
        return unicode_unescape(at + 1, end, out);
    const char *name = *at ? strchr(NAMES, *at) : NULL;
    if (!name)
        return NULL;
    strbuf_put_byte(out, (uint8_t)MEANINGS[name - NAMES]);
    return at + 1;
}

bool json_unescape(struct json_value v, struct strbuf *out)
{
    if (v.type != JSON_STRING || v.raw.size < 2 || v.raw.data[0] != '"' ||
        v.raw.data[v.raw.size - 1] != '"')
        return false;
    size_t before = out->size;
    const uint8_t *at = v.raw.data + 1;
    const uint8_t *end = v.raw.data + v.raw.size - 1;
    while (at < end) {
        const uint8_t *escape = (const uint8_t *)memchr(at, '\\', (size_t)(end - at));
        const uint8_t *plain_end = escape ? escape : end;
        strbuf_put(out, at, (size_t)(plain_end - at));
        if (!escape)
            break;
        at = one_unescape(escape, end, out);
        if (!at) {
            out->size = before;
            return false;
        }
    }
    return true;
}

bool json_texts(struct slice array, struct strbuf *text, struct slice *at, size_t most,
                size_t *count)
{
    size_t from = text->size;
    bool sound = json_type_of(array) == JSON_ARRAY && json_valid(array);
    struct json_iter it = sound ? json_members(array) : (struct json_iter){0};
    *count = 0;
    while (sound && json_next(&it)) {
        size_t before = text->size;
        sound = *count < most && json_unescape(it.value, text);
        if (sound)
            at[(*count)++].size = text->size - before;
    }
    for (size_t i = 0; i < *count; from += at[i++].size) /* it does not move any more */
        at[i] = slice_of(text->data + from, at[i].size);
    return sound;
}

static void control_quote(struct strbuf *out, uint8_t byte)
{
    static const char DIGITS[] = "0123456789abcdef";
    const char *name = NULL;
    switch (byte) {
    case '\b':
        name = "\\b";
        break;
    case '\f':
        name = "\\f";
        break;
    case '\n':
        name = "\\n";
        break;
    case '\r':
        name = "\\r";
        break;
    case '\t':
        name = "\\t";
        break;
    case '"':
        name = "\\\"";
        break;
    case '\\':
        name = "\\\\";
        break;
    default:
        break;
    }
    if (name) {
        strbuf_put_text(out, name);
        return;
    }
    uint8_t escape[6] = {
        '\\', 'u', '0', '0', (uint8_t)DIGITS[byte >> 4], (uint8_t)DIGITS[byte & 15]};
    strbuf_put(out, escape, sizeof escape);
}

void json_quote(struct strbuf *out, struct slice text)
{
    static const uint8_t REPLACEMENT[] = {0xef, 0xbf, 0xbd}; /* U+FFFD */
    strbuf_put_byte(out, '"');
    const uint8_t *at = text.data;
    const uint8_t *end = text.size ? text.data + text.size : at;
    while (at < end) {
        const uint8_t *special = plain_skip(at, end);
        strbuf_put(out, at, (size_t)(special - at));
        at = special;
        if (at == end)
            break;
        if (*at < 0x80) {
            control_quote(out, *at++);
            continue;
        }
        uint32_t code;
        size_t n = utf8_decode(slice_of(at, (size_t)(end - at)), &code);
        if (n)
            strbuf_put(out, at, n);
        else
            strbuf_put(out, REPLACEMENT, sizeof REPLACEMENT);
        at += n ? n : 1;
    }
    strbuf_put_byte(out, '"');
}
