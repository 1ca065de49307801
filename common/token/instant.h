/* CORE. Instants as tokens write them: JSON numbers, seconds since 1970, often with a fraction. */
#ifndef STOA_COMMON_TOKEN_INSTANT_H
#define STOA_COMMON_TOKEN_INSTANT_H

#include "common/json.h"

/* False: it is no finite number. */
bool instant_read(struct json_value value, double *seconds);
/* The millisecond that it lies in, and the first one that does not lie before it; within what a
 * date has in any language. */
int64_t instant_ms(double seconds);
int64_t instant_ms_from(double seconds);

#endif
