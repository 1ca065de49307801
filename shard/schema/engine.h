/* CORE. The validator proper, in plain C types: valijson over RapidJSON, patterns by PCRE2. Nothing
 * is thrown across this border. Schemas come from vocabulary.c, which has checked them and put
 * STEP_KEYWORD into each, by which the work of a check is counted. */
#ifndef STOA_SHARD_SCHEMA_ENGINE_H
#define STOA_SHARD_SCHEMA_ENGINE_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* [weight, unique]: a visit of the schema costs that many comparisons for each member, item or
 * piece of text of the value; `unique`: its items are compared with one another. */
#define STEP_KEYWORD "stoa-step"

struct engine;

struct engine *engine_create(void);
void engine_destroy(struct engine *e);
/* A regular expression that the schema will use. False: `why` says what is wrong with it. */
bool engine_pattern(struct engine *e, const char *text, size_t size, char *why, size_t why_size);
/* The schema, once. */
bool engine_load(struct engine *e, const char *text, size_t size, char *why, size_t why_size);
/* Whether a document fits. It gives up, and says so, when that takes more than a fixed amount of
 * work. */
bool engine_check(struct engine *e, const char *text, size_t size, char *why, size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
