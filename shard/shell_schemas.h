/* SHELL. The JSON Schemas of a room type, from the files that the configuration names. */
#ifndef STOA_SHARD_SHELL_SCHEMAS_H
#define STOA_SHARD_SHELL_SCHEMAS_H

#include "common/config.h"
#include "shard/schema.h"

struct type_schemas {
    struct schema *at[BOUNDARY_COUNT];  /* owned; NULL: none */
    uint8_t digest[BOUNDARY_COUNT][32]; /* of their files */
};

/* One schema from a file, whose digest goes to `digest` unless that is NULL. */
MUST_USE int schema_file_open(struct schema **out, const char *path, uint8_t digest[32],
                              struct strbuf *why);
/* ERR_INVALID, with a line for each that does not load in `why`; then there are none. */
MUST_USE int type_schemas_load(struct type_schemas *out, const struct config_type *type,
                               struct strbuf *why);
void type_schemas_free(struct type_schemas *s);
/* A line for each of `fresh` that is not in `old`; NULL: there were none. */
void type_schemas_diff(const struct type_schemas *old, const struct type_schemas *fresh,
                       const struct config_type *type, struct strbuf *changed);
/* The file of a boundary, or NULL. */
const char *type_schema_file(const struct config_type *type, enum boundary boundary);

#endif
