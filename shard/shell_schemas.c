/* SHELL. Schemas are read and compiled anew at each reload, which is cheap; a set with one that
 * does not compile is none. */
#include "shard/shell_schemas.h"

#include <errno.h>
#include <string.h>

#include "common/hash.h"
#include "common/mem.h"
#include "common/shell/process.h"
#include "shard/schema/compile.h"
#include "shard/schema/vocabulary.h"

const char *type_schema_file(const struct config_type *type, enum boundary boundary)
{
    const char *const files[BOUNDARY_COUNT] = {[BOUNDARY_STATE] = type->schemas.state,
                                               [BOUNDARY_CONNECTION] = type->schemas.connection,
                                               [BOUNDARY_EVENT] = type->schemas.event,
                                               [BOUNDARY_BROADCAST] = type->schemas.broadcast};
    return files[boundary];
}

static void line_begin(struct strbuf *out, const struct config_type *type, enum boundary boundary)
{
    if (out->size > 0)
        strbuf_put_byte(out, '\n');
    strbuf_printf(out, "types.%s.schemas.%s: %s", type->name, boundary_name(boundary),
                  type_schema_file(type, boundary));
}

int schema_file_open(struct schema **out, const char *path, uint8_t digest[32], struct strbuf *why)
{
    size_t size = 0;
    char *text = process_read_file(path, SCHEMA_MAX_BYTES + 1, &size);
    if (!text) {
        strbuf_put_text(why, strerror(errno));
        return ERR_IO;
    }
    if (digest)
        sha256(digest, text, size);
    int code = schema_compile(out, slice_of(text, size), why);
    mem_free(text);
    return code;
}

static bool load_one(struct type_schemas *out, const struct config_type *type,
                     enum boundary boundary, struct strbuf *why)
{
    struct strbuf reason = {0};
    bool fine = schema_file_open(&out->at[boundary], type_schema_file(type, boundary),
                                 out->digest[boundary], &reason) == ERR_OK;
    if (!fine) {
        line_begin(why, type, boundary);
        strbuf_printf(why, ": %s", strbuf_cstr(&reason));
    }
    strbuf_free(&reason);
    return fine;
}

int type_schemas_load(struct type_schemas *out, const struct config_type *type, struct strbuf *why)
{
    bool fine = true;
    *out = (struct type_schemas){0};
    for (int b = 0; b < BOUNDARY_COUNT; b++) {
        if (type_schema_file(type, (enum boundary)b))
            fine &= load_one(out, type, (enum boundary)b, why);
    }
    if (fine)
        return ERR_OK;
    type_schemas_free(out);
    return ERR_INVALID;
}

void type_schemas_free(struct type_schemas *s)
{
    for (int b = 0; b < BOUNDARY_COUNT; b++) {
        if (s->at[b])
            s->at[b]->destroy(s->at[b]);
    }
    *s = (struct type_schemas){0};
}

void type_schemas_diff(const struct type_schemas *old, const struct type_schemas *fresh,
                       const struct config_type *type, struct strbuf *changed)
{
    for (int b = 0; b < BOUNDARY_COUNT; b++) {
        bool same = old && old->at[b] &&
                    memcmp(old->digest[b], fresh->digest[b], sizeof fresh->digest[b]) == 0;
        if (!fresh->at[b] || same)
            continue;
        line_begin(changed, type, (enum boundary)b);
        strbuf_put_text(changed, " is loaded");
    }
}
