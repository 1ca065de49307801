/* CORE. Templates of routes: a path of the user's own in front of a key. A part of the path that is
 * "{name}" takes one part of a request, and stands for it where the key has "{name}". */
#ifndef STOA_COMMON_TEMPLATE_H
#define STOA_COMMON_TEMPLATE_H

#include <stdbool.h>

#include "common/slice.h"
#include "common/strbuf.h"

/* Whether the path, which begins with '/', takes this one. */
bool template_matches(const char *pattern, struct slice path);
/* The next piece of a key's template: a "{name}" or a byte. False: no more. */
bool template_next(struct slice *key, struct slice *piece);
/* The part of `path` that stands where the pattern has `name` ("{name}"); data NULL: nowhere. */
struct slice template_part(const char *pattern, struct slice path, struct slice name);
/* Whether path and key fit together; `why` says what does not. */
bool template_check(const char *pattern, const char *key, struct strbuf *why);

#endif
