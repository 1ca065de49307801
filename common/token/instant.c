/* CORE. See instant.h. */
#include "common/token/instant.h"

#include <math.h>
#include <stdlib.h>

#define NUMBER_MAX_BYTES 63
#define DATE_MAX_MS 8.64e15 /* of JavaScript, and less than 2^53 */

bool instant_read(struct json_value value, double *seconds)
{
    char text[NUMBER_MAX_BYTES + 1];
    if (value.type != JSON_NUMBER || value.raw.size > NUMBER_MAX_BYTES)
        return false;
    memcpy(text, value.raw.data, value.raw.size);
    text[value.raw.size] = '\0';
    *seconds = strtod(text, NULL);
    return isfinite(*seconds);
}

static int64_t bounded(double ms)
{
    return (int64_t)fmax(-DATE_MAX_MS, fmin(ms, DATE_MAX_MS));
}

int64_t instant_ms(double seconds)
{
    return bounded(floor(seconds * 1000));
}

int64_t instant_ms_from(double seconds)
{
    return bounded(ceil(seconds * 1000));
}
