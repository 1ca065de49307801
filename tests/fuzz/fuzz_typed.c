/* CORE. Typed payloads of arbitrary bytes. What is let pass comes apart into its members, and its
 * value is the member that everybody sees; the value of anything is JSON or there is none. */
#include "common/err.h"
#include "proto/typed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_json_or_none(struct json_value v)
{
    return v.type == JSON_NONE || json_valid(v.raw);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct slice payload = slice_of(data, size);
    struct slice value = {0};
    const char *wrong = typed_check(payload);
    bool is_object = typed_value(payload, &value);
    STOA_ASSERT(!is_object || (json_valid(payload) && json_valid(value)));
    if (wrong)
        return 0;
    const struct typed t = typed_read(payload);
    STOA_ASSERT(is_object && is_json_or_none(t.json) && is_json_or_none(t.meta));
    STOA_ASSERT(is_json_or_none(t.retry) && is_json_or_none(t.comments));
    if (t.json.type == JSON_NONE)
        STOA_ASSERT(slice_is(value, "null"));
    else
        STOA_ASSERT(value.data == t.json.raw.data && value.size == t.json.raw.size);
    return 0;
}
