/* JSON from strangers: whatever the bytes are, the scanner stays inside them, and what it accepts
 * can be taken apart completely. */
#include "common/err.h"
#include "common/json.h"
#include "common/limits.h"
#include "common/utf8.h"

/* Every part of accepted text is accepted text. Returns the number of values seen. */
static size_t walk(struct slice text, unsigned depth)
{
    STOA_ASSERT(depth <= JSON_DEPTH_MAX);
    size_t seen = 1;
    struct strbuf plain = {0};
    struct json_iter it = json_members(text);
    while (json_next(&it)) {
        STOA_ASSERT(it.value.raw.data >= text.data &&
                    it.value.raw.data + it.value.raw.size <= text.data + text.size);
        STOA_ASSERT(json_type_of(it.value.raw) == it.value.type);
        strbuf_reset(&plain);
        if (json_unescape(it.value, &plain))
            STOA_ASSERT(utf8_valid(strbuf_slice(&plain)));
        uint64_t number;
        if (json_u64(it.value, &number))
            STOA_ASSERT(number <= UINT64_C(1) << 53);
        seen += walk(it.value.raw, depth + 1);
    }
    strbuf_free(&plain);
    return seen;
}

/* As many values as there are commas and non-empty containers outside of strings, and one more. */
static size_t count(struct slice text)
{
    size_t values = 1;
    bool inside = false;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (inside && c == '\\')
            i++;
        else if (c == '"')
            inside = !inside;
        else if (!inside && c == ',')
            values++;
        else if (!inside && (c == '{' || c == '[')) {
            size_t next = i + 1;
            while (strchr(" \t\r\n", text.data[next]) && text.data[next])
                next++;
            values += text.data[next] != '}' && text.data[next] != ']';
        }
    }
    return values;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = slice_of(data, size);
    struct strbuf quoted = {0};
    struct strbuf back = {0};
    json_quote(&quoted, text);
    struct json_value v = {JSON_STRING, strbuf_slice(&quoted)};
    STOA_ASSERT(json_valid(v.raw) && json_unescape(v, &back));
    STOA_ASSERT(!utf8_valid(text) || slice_equal(strbuf_slice(&back), text));
    strbuf_free(&quoted);
    strbuf_free(&back);

    /* Also on what is not JSON: it must end, inside the bytes. */
    struct json_iter it = json_members(text);
    for (size_t steps = 0; json_next(&it); steps++)
        STOA_ASSERT(steps <= size);
    json_get(text, "a");
    if (json_valid(text)) {
        STOA_ASSERT(utf8_valid(text));
        STOA_ASSERT(walk(text, 0) == count(text));
    }
    return 0;
}
