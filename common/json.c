/* CORE. The JSON scanner: one forward pass, no recursion, no allocation. Every function takes and
 * returns positions [at, end) of the input; NULL means "not JSON". Iteration uses the same scanner
 * to find where a value ends, so it stays inside the input even if nobody validated it.
 *
 * Containers that are open form a stack of bits (1: object, 0: array) in one 64-bit word. */
#include "common/json.h"

#include "common/json_scan.h"
#include "common/limits.h"
#include "common/utf8.h"

_Static_assert(JSON_DEPTH_MAX <= 64, "the stack of open containers is one word");

static inline const uint8_t *space_skip(const uint8_t *at, const uint8_t *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
        at++;
    return at;
}

static const uint8_t *escape_scan(const uint8_t *at, const uint8_t *end)
{
    at++; /* the backslash */
    if (at == end)
        return NULL;
    switch (*at) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return at + 1;
    case 'u':
        return hex4(at + 1, end) >= 0 ? at + 5 : NULL;
    default:
        return NULL;
    }
}

/* string_scan from the first character that does not mean itself. */
static const uint8_t *string_scan_on(const uint8_t *at, const uint8_t *end)
{
    while (at < end && *at != '"') {
        if (*at == '\\') {
            at = escape_scan(at, end);
            if (!at)
                return NULL;
        } else {
            uint32_t code;
            size_t n = *at < 0x20 ? 0 : utf8_decode(slice_of(at, (size_t)(end - at)), &code);
            if (n == 0)
                return NULL;
            at += n;
        }
        at = plain_skip(at, end);
    }
    return at < end ? at + 1 : NULL;
}

/* From behind the opening quote to behind the closing one. */
static inline const uint8_t *string_scan(const uint8_t *at, const uint8_t *end)
{
    at = plain_skip(at, end);
    return at < end && *at == '"' ? at + 1 : string_scan_on(at, end);
}

static inline const uint8_t *digits_skip(const uint8_t *at, const uint8_t *end)
{
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at;
}

static const uint8_t *number_scan(const uint8_t *at, const uint8_t *end)
{
    if (*at == '-')
        at++;
    const uint8_t *start = at;
    at = digits_skip(at, end);
    if (at == start || (*start == '0' && at - start > 1))
        return NULL;
    if (at < end && *at == '.') {
        start = ++at;
        at = digits_skip(at, end);
        if (at == start)
            return NULL;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        start = at;
        at = digits_skip(at, end);
        if (at == start)
            return NULL;
    }
    return at;
}

static const uint8_t *word_scan(const uint8_t *at, const uint8_t *end, const char *word)
{
    size_t size = strlen(word);
    return (size_t)(end - at) >= size && memcmp(at, word, size) == 0 ? at + size : NULL;
}

static enum json_type type_at(uint8_t c)
{
    switch (c) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 't':
        return JSON_TRUE;
    case 'f':
        return JSON_FALSE;
    case 'n':
        return JSON_NULL;
    default:
        return c == '-' || (c >= '0' && c <= '9') ? JSON_NUMBER : JSON_NONE;
    }
}

static inline const uint8_t *scalar_scan(const uint8_t *at, const uint8_t *end)
{
    switch (type_at(*at)) {
    case JSON_STRING:
        return string_scan(at + 1, end);
    case JSON_NUMBER:
        return number_scan(at, end);
    case JSON_TRUE:
        return word_scan(at, end, "true");
    case JSON_FALSE:
        return word_scan(at, end, "false");
    case JSON_NULL:
        return word_scan(at, end, "null");
    default:
        return NULL;
    }
}

/* A member's name and colon, up to its value. */
static inline const uint8_t *name_scan(const uint8_t *at, const uint8_t *end)
{
    if (at == end || *at != '"')
        return NULL;
    at = string_scan(at + 1, end);
    if (!at)
        return NULL;
    at = space_skip(at, end);
    if (at == end || *at != ':')
        return NULL;
    return space_skip(at + 1, end);
}

struct nesting {
    uint64_t objects; /* lowest bit: the innermost open container is an object */
    unsigned depth;
};

/* Behind a value: closes what ends here and goes to the next value of what stays open. NULL: not
 * JSON. Depth 0 on return: the outermost value ended at the result. */
static const uint8_t *after_value(const uint8_t *at, const uint8_t *end, struct nesting *open)
{
    while (open->depth > 0) {
        at = space_skip(at, end);
        if (at == end)
            return NULL;
        bool object = open->objects & 1;
        if (*at == ',') {
            at = space_skip(at + 1, end);
            return object ? name_scan(at, end) : at;
        }
        if (*at != (object ? '}' : ']'))
            return NULL;
        at++;
        open->objects >>= 1;
        open->depth--;
    }
    return at;
}

/* Scans the container that begins at `at`; returns where it ends, or NULL. */
static const uint8_t *container_scan(const uint8_t *at, const uint8_t *end, unsigned depth_max)
{
    struct nesting open = {0};
    do {
        if (at == end)
            return NULL;
        bool object = *at == '{';
        if (object || *at == '[') {
            if (open.depth == depth_max)
                return NULL;
            open.objects = open.objects << 1 | object;
            open.depth++;
            at = space_skip(at + 1, end);
            if (at == end)
                return NULL;
            if (*at != (object ? '}' : ']')) {
                at = object ? name_scan(at, end) : at;
                if (!at)
                    return NULL;
                continue;
            }
            at++;
            open.objects >>= 1;
            open.depth--;
        } else {
            at = scalar_scan(at, end);
            if (!at)
                return NULL;
        }
        at = after_value(at, end, &open);
        if (!at)
            return NULL;
    } while (open.depth > 0);
    return at;
}

/* Scans the value that begins at `at`; returns where it ends, or NULL. */
static inline const uint8_t *value_scan(const uint8_t *at, const uint8_t *end, unsigned depth_max)
{
    if (at == end)
        return NULL;
    return *at == '{' || *at == '[' ? container_scan(at, end, depth_max) : scalar_scan(at, end);
}

bool json_valid(struct slice text)
{
    if (text.size == 0)
        return false;
    const uint8_t *end = text.data + text.size;
    const uint8_t *at = value_scan(space_skip(text.data, end), end, JSON_DEPTH_MAX);
    return at && space_skip(at, end) == end;
}

enum json_type json_type_of(struct slice text)
{
    if (text.size == 0)
        return JSON_NONE;
    const uint8_t *end = text.data + text.size;
    const uint8_t *at = space_skip(text.data, end);
    return at < end ? type_at(*at) : JSON_NONE;
}

struct json_iter json_members(struct slice text)
{
    enum json_type type = json_type_of(text);
    struct json_iter it = {.object = type == JSON_OBJECT};
    if (type != JSON_OBJECT && type != JSON_ARRAY)
        return it;
    const uint8_t *end = text.data + text.size;
    const uint8_t *at = space_skip(text.data, end) + 1;
    it.rest = slice_of(at, (size_t)(end - at));
    return it;
}

/* Ends an iteration for good: nothing is left to read. */
static bool iter_end(struct json_iter *it)
{
    *it = (struct json_iter){.object = it->object};
    return false;
}

bool json_next(struct json_iter *it)
{
    if (it->rest.size == 0)
        return iter_end(it);
    const uint8_t *end = it->rest.data + it->rest.size;
    const uint8_t *at = space_skip(it->rest.data, end);
    if (at < end && *at == ',')
        at = space_skip(at + 1, end);
    if (at == end || *at == '}' || *at == ']')
        return iter_end(it);
    if (it->object) {
        const uint8_t *name = at + 1;
        at = *at == '"' ? string_scan(name, end) : NULL;
        if (!at)
            return iter_end(it);
        it->name = slice_of(name, (size_t)(at - 1 - name));
        at = space_skip(at, end);
        if (at == end || *at != ':')
            return iter_end(it);
        at = space_skip(at + 1, end);
    }
    const uint8_t *after = value_scan(at, end, JSON_DEPTH_MAX);
    if (!after)
        return iter_end(it);
    it->value = (struct json_value){type_at(*at), slice_of(at, (size_t)(after - at))};
    it->rest = slice_of(after, (size_t)(end - after));
    return true;
}

static bool name_is(struct slice raw, const char *name)
{
    size_t size = strlen(name);
    if (raw.size < size) /* an escape is longer than what it means */
        return false;
    if (raw.size == 0 || !memchr(raw.data, '\\', raw.size))
        return raw.size == size && memcmp(raw.data, name, size) == 0;
    struct strbuf plain = {0};
    /* The quotes stand around raw in the input. */
    struct json_value quoted = {JSON_STRING, slice_of(raw.data - 1, raw.size + 2)};
    bool same = json_unescape(quoted, &plain) && slice_is(strbuf_slice(&plain), name);
    strbuf_free(&plain);
    return same;
}

struct json_value json_get(struct slice object, const char *name)
{
    struct json_value found = {0};
    struct json_iter it = json_members(object);
    while (it.object && json_next(&it)) {
        if (name_is(it.name, name))
            found = it.value;
    }
    return found;
}

/* The member at `at`, a name's place: behind its value, or NULL. */
static const uint8_t *member_scan(const uint8_t *at, const uint8_t *end, const char *name,
                                  struct json_value *found)
{
    const uint8_t *value = name_scan(at, end);
    const uint8_t *after = value ? value_scan(value, end, JSON_DEPTH_MAX - 1) : NULL;
    if (!after)
        return NULL;
    const uint8_t *quote = value; /* the name's last, before the colon and white space */
    while (*--quote != '"')
        ;
    if (name_is(slice_of(at + 1, (size_t)(quote - at - 1)), name))
        *found = (struct json_value){type_at(*value), slice_of(value, (size_t)(after - value))};
    return after;
}

bool json_find(struct slice text, const char *name, struct json_value *found)
{
    const uint8_t *end = text.data + text.size;
    const uint8_t *at = text.size > 0 ? space_skip(text.data, end) : end;
    *found = (struct json_value){0};
    if (at == end || *at != '{')
        return false;
    at = space_skip(at + 1, end);
    bool last = at < end && *at == '}';
    while (!last) {
        at = member_scan(at, end, name, found);
        at = at ? space_skip(at, end) : end;
        if (at == end || (*at != ',' && *at != '}'))
            return false;
        last = *at == '}';
        at = last ? at : space_skip(at + 1, end);
    }
    return space_skip(at + 1, end) == end;
}

bool json_u64(struct json_value v, uint64_t *out)
{
    const uint64_t largest = UINT64_C(1) << 53;
    if (v.type != JSON_NUMBER || v.raw.size == 0 || v.raw.size > 16)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < v.raw.size; i++) {
        if (v.raw.data[i] < '0' || v.raw.data[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(v.raw.data[i] - '0');
    }
    if (value > largest)
        return false;
    *out = value;
    return true;
}
