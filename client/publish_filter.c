/* CORE. Whom a publish is for: a caller's lists of names into a filter (proto/filter.h). */
#include "client/publish.h"
#include "common/mem.h"
#include "common/utf8.h"
#include "proto/filter.h"

/* A caller's list: NULL is not given, which is not the same as given without a name. */
struct given {
    const char *const *names;
    size_t count;
    struct slice *at; /* owned */
};

static int given_read(struct given *g)
{
    if (!g->names)
        return g->count > 0 ? STOA_INVALID : STOA_OK;
    if (g->count > FILTER_MAX_BYTES) /* each takes one at least */
        return STOA_TOO_LARGE;
    g->at = mem_alloc((g->count + 1) * sizeof *g->at);
    for (size_t i = 0; i < g->count; i++) {
        if (!g->names[i])
            return STOA_INVALID;
        g->at[i] = slice_text(g->names[i]);
        if (!utf8_valid(g->at[i]))
            return STOA_INVALID;
    }
    return STOA_OK;
}

static struct filter_names names_of(const struct given *g)
{
    return (struct filter_names){g->at, g->count};
}

int publish_filter(const stoa_publish_options *o, struct strbuf *out)
{
    if (!PUBLISH_GIVEN(o, n_except))
        return STOA_OK;
    struct given tags = {o->tags, o->n_tags, NULL}, to = {o->to, o->n_to, NULL},
                 except = {o->except, o->n_except, NULL};
    int code = given_read(&tags);
    if (code == STOA_OK)
        code = given_read(&to);
    if (code == STOA_OK)
        code = given_read(&except);
    if (code == STOA_OK) {
        struct filter f = {.tags = names_of(&tags), .to = names_of(&to)};
        if (except.count > 0)
            f.except = names_of(&except);
        code = filter_encode(out, &f) == ERR_OK ? STOA_OK : STOA_TOO_LARGE;
    }
    mem_free(tags.at);
    mem_free(to.at);
    mem_free(except.at);
    return code;
}
