/* CORE. Event ids from strangers: what is accepted is exactly what would be written. */
#include "common/base36.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct position p;
    if (event_id_parse(slice_of(data, size), &p) != ERR_OK)
        return 0;
    char text[EVENT_ID_MAX_BYTES];
    if (p.epoch == 0 && p.seq == 0) {
        STOA_ASSERT(size == 1 && data[0] == '0');
        return 0;
    }
    STOA_ASSERT(event_id_format(text, p) == size && memcmp(text, data, size) == 0);
    return 0;
}
