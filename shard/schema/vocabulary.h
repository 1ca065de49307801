/* CORE. Which JSON Schemas are taken: draft 7, every keyword known and well formed, references to
 * schemas of the same file only, none that leads back to itself without a step into the document.
 */
#ifndef STOA_SHARD_SCHEMA_VOCABULARY_H
#define STOA_SHARD_SCHEMA_VOCABULARY_H

#include "common/err.h"
#include "common/strbuf.h"

#define SCHEMA_MAX_BYTES (256 * 1024)
#define SCHEMA_PLACES_MAX 4096 /* schemas within a schema */

/* Gets each regular expression of the schema. False: it is not one; `why` says more. */
typedef bool vocabulary_pattern(void *arg, struct slice text, struct strbuf *why);

/* Checks a schema and writes it for the engine: without annotations, with STEP_KEYWORD in each.
 * False: `why` says where and what. */
bool vocabulary_prepare(struct slice text, struct strbuf *out, vocabulary_pattern *pattern,
                        void *arg, struct strbuf *why);

#endif
