/* CORE. A schema from the text of its file. */
#ifndef STOA_SHARD_SCHEMA_COMPILE_H
#define STOA_SHARD_SCHEMA_COMPILE_H

#include "common/err.h"
#include "shard/schema.h"

/* ERR_INVALID: `why` says where in the schema and what. */
MUST_USE int schema_compile(struct schema **out, struct slice text, struct strbuf *why);

#endif
