/* CORE. A schema of arbitrary bytes up to the first line break, then a document. A schema is taken
 * or refused with a reason; one that is taken judges every document, and always alike. */
#include "common/json.h"
#include "shard/schema/compile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct strbuf why;

static bool judge(struct schema *s, struct slice json)
{
    strbuf_reset(&why);
    bool fits = s->check(s, json, &why);
    STOA_ASSERT(fits == (why.size == 0));
    return fits;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? (const uint8_t *)memchr(data, '\n', size) : NULL;
    size_t n = end ? (size_t)(end - data) : size;
    struct slice json = end ? slice_of(end + 1, size - n - 1) : slice_text("null");
    struct schema *s;
    strbuf_reset(&why);
    if (schema_compile(&s, slice_of(data, n), &why) != ERR_OK) {
        STOA_ASSERT(why.size > 0);
        return 0;
    }
    STOA_ASSERT(why.size == 0);
    if (json_valid(json)) {
        bool fits = judge(s, json);
        STOA_ASSERT(judge(s, json) == fits);
    }
    s->destroy(s);
    return 0;
}
