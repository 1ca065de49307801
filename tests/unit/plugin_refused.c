/* Libraries that the shard refuses (test_shard_plugin.c): without the symbol, built for another
 * ABI, not willing to work with this host. */
#include "stoa_room.h"

#if defined(PLUGIN_NONE)
STOA_ROOM_EXPORT int nothing_to_see_here;
#elif defined(PLUGIN_OLD)
static const stoa_room_vtable old = {.abi = STOA_ROOM_ABI + 7, .size = sizeof old, .name = "old"};
const stoa_room_vtable *stoa_room_plugin(uint32_t host_abi)
{
    (void)host_abi;
    return &old;
}
#elif defined(PLUGIN_NULL)
const stoa_room_vtable *stoa_room_plugin(uint32_t host_abi)
{
    (void)host_abi;
    return NULL;
}
#endif
