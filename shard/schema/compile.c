/* CORE. Puts vocabulary and engine together: the first lets in only schemas on which the second
 * ends. */
#include "shard/schema/compile.h"

#include <string.h>

#include "common/mem.h"
#include "shard/schema/engine.h"
#include "shard/schema/vocabulary.h"

#define WHY_MAX_BYTES 512

struct compiled {
    struct schema schema; /* first: the one that is handed out */
    struct engine *engine;
};

/* A text for the engine, which may be empty. */
static const char *chars(struct slice s)
{
    return s.size > 0 ? (const char *)s.data : "";
}

static bool check(struct schema *s, struct slice json, struct strbuf *why)
{
    struct compiled *c = (struct compiled *)s;
    char said[WHY_MAX_BYTES];
    bool fits = engine_check(c->engine, chars(json), json.size, said, sizeof said);
    if (!fits)
        strbuf_put_text(why, said);
    return fits;
}

static void destroy(struct schema *s)
{
    struct compiled *c = (struct compiled *)s;
    engine_destroy(c->engine);
    mem_free(c);
}

static bool take_pattern(void *arg, struct slice text, struct strbuf *why)
{
    char said[WHY_MAX_BYTES];
    bool fine = engine_pattern((struct engine *)arg, chars(text), text.size, said, sizeof said);
    if (!fine)
        strbuf_put_text(why, said);
    return fine;
}

static bool load(struct engine *e, struct slice text, struct strbuf *why)
{
    char said[WHY_MAX_BYTES];
    struct strbuf prepared = {0};
    bool fine = vocabulary_prepare(text, &prepared, take_pattern, e, why);
    if (fine && !engine_load(e, (const char *)prepared.data, prepared.size, said, sizeof said)) {
        strbuf_put_text(why, said);
        fine = false;
    }
    strbuf_free(&prepared);
    return fine;
}

int schema_compile(struct schema **out, struct slice text, struct strbuf *why)
{
    struct engine *e = engine_create();
    if (!load(e, text, why)) {
        engine_destroy(e);
        return ERR_INVALID;
    }
    struct compiled *c = (struct compiled *)mem_alloc(sizeof *c);
    *c = (struct compiled){.schema = {.check = check, .destroy = destroy}, .engine = e};
    *out = &c->schema;
    return ERR_OK;
}
