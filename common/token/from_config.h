/* SHELL (pure, but config.h is a shell header). The keys of a configuration, as token.h wants them.
 * Problems are worded as config_load words them: file, line, path, what to do. */
#ifndef STOA_COMMON_TOKEN_FROM_CONFIG_H
#define STOA_COMMON_TOKEN_FROM_CONFIG_H

#include "common/config.h"
#include "common/token/token.h"

/* What checks the tokens of auth.keys; *out is NULL when auth.mode is not token. ERR_INVALID: `why`
 * has a line for each key that is none. */
MUST_USE int token_checker_from_config(const struct config *c, struct token_checker **out,
                                       struct strbuf *why);
/* A line for each key that is weak; for the log, or for who checks a configuration. */
void token_config_warnings(const struct config *c, struct strbuf *out);
/* auth.keys[place]; borrows from `c`. */
struct token_key_source token_key_from_config(const struct config *c, size_t place);

#endif
