/* CORE. A wall-clock time as ISO 8601 in UTC with milliseconds: "2026-11-21T18:02:35.120Z". */
#ifndef STOA_COMMON_ISOTIME_H
#define STOA_COMMON_ISOTIME_H

#include <stddef.h>
#include <stdint.h>

#define ISOTIME_BYTES 32       /* enough for every int64_t, with the NUL */
#define ISOTIME_CLOCK_BYTES 13 /* of its end: "18:02:35.120Z" */

/* Returns the bytes without the NUL. A time before 1970 is a clock that was never set: 1970. */
size_t isotime_write(char out[ISOTIME_BYTES], int64_t wall_ms);

#endif
