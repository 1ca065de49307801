/* CORE. Filters of arbitrary bytes, asked about a connection whose names stand in the same bytes.
 * Decoding and asking agree on what is sound; what is sound is admitted by the plain rule and
 * encodes again to the same meaning. */
#include "common/limits.h"
#include "proto/filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct message_arena arena, arena_again;
static struct strbuf text;

static bool among(const struct filter_names *names, const struct slice *who, size_t n_who)
{
    for (size_t i = 0; i < names->count; i++) {
        for (size_t k = 0; k < n_who; k++) {
            if (slice_equal(names->at[i], who[k]))
                return true;
        }
    }
    return false;
}

static bool plain_rule(const struct filter *f, const struct slice who[2], struct slice tag)
{
    return !among(&f->except, who, 2) && (!f->to.at || among(&f->to, who, 2)) &&
           (!f->tags.at || among(&f->tags, &tag, 1));
}

static void same(const struct filter_names *a, const struct filter_names *b)
{
    STOA_ASSERT(!a->at == !b->at && a->count == b->count);
    for (size_t i = 0; i < a->count; i++)
        STOA_ASSERT(slice_equal(a->at[i], b->at[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* names of one byte each in front, so that they are met in the lists */
    if (size < 3)
        return 0;
    const struct slice who[] = {slice_of(data, 1), slice_of(data + 1, 1)};
    const struct slice tag = slice_of(data + 2, 1), bytes = slice_of(data + 3, size - 3);
    struct filter f, again;
    bool admits = filter_admits(bytes, who[0], who[1], &tag, 1);
    if (filter_decode(bytes, &arena, &f) != ERR_OK) {
        STOA_ASSERT(!admits);
        return 0;
    }
    STOA_ASSERT(admits == plain_rule(&f, who, tag));
    STOA_ASSERT(f.to.count + f.except.count + f.tags.count <= FILTER_MAX_BYTES);
    strbuf_reset(&text);
    int code = filter_encode(&text, &f);
    STOA_ASSERT(code == ERR_OK && text.size <= bytes.size); /* no form is shorter than ours */
    code = filter_decode(strbuf_slice(&text), &arena_again, &again);
    STOA_ASSERT(code == ERR_OK);
    same(&f.to, &again.to);
    same(&f.except, &again.except);
    same(&f.tags, &again.tags);
    STOA_ASSERT(filter_admits(strbuf_slice(&text), who[0], who[1], &tag, 1) == admits);
    return 0;
}
