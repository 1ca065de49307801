/* CORE. Client-visible event ids: "<base36(room_epoch)>-<seq>", for example "2k9v1x-42". The
 * reserved id "0" is the position before everything (0,0). */
#ifndef STOA_COMMON_BASE36_H
#define STOA_COMMON_BASE36_H

#include "common/err.h"
#include "common/slice.h"

/* A place in a room's history. (0,0) is before the first event of whatever history is born. */
struct position {
    uint64_t epoch;
    uint64_t seq;
};

#define EVENT_ID_MAX_BYTES 40 /* 13 + 1 + 20, NUL, rounded up */

/* Writes the id with a NUL; returns its length. */
size_t event_id_format(char out[EVENT_ID_MAX_BYTES], struct position p);
/* Accepts what event_id_format writes, and "0". ERR_INVALID for anything else (sign, upper case,
 * leading zeros, overflow, epoch 0 with a seq). */
MUST_USE int event_id_parse(struct slice text, struct position *out);

#endif
