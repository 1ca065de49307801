/* CORE. Time is an argument, never a call: every step of a core is told what time it is. Only the
 * programs (common/shell/loop.h) read a clock; tests and the simulator make theirs up. */
#ifndef STOA_COMMON_TICK_H
#define STOA_COMMON_TICK_H

#include <stdint.h>

struct tick {
    int64_t mono_ns; /* monotonic nanoseconds from an arbitrary origin: timers, durations */
    int64_t wall_ms; /* wall clock, milliseconds since 1970: timestamps that people see */
};

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

/* "No deadline": larger than every real mono_ns. */
#define TICK_NEVER INT64_MAX

#endif
