/* CORE. The rate of a room: all that comes to it from outside, whoever says it: publishes, sends,
 * calls, inputs of connections. Its type says how much a second; a bucket in the room's memory
 * counts, so it begins anew with the process. What is known already (an id that was done, a number
 * that was taken) costs nothing, and neither does what is refused; a turn that finds no space gives
 * back what it took. Alarms, on_close and what siblings ask are not counted. */
#include "shard/state.h"

bool room_rate_take(struct shard *s, struct room *room, uint32_t n, uint64_t *retry_ms)
{
    double rate = s->types[room->type].rate;
    *retry_ms = 0;
    if (!(rate > 0))
        return true; /* most types: nothing is counted, so nothing may have to be given back */
    (void)turn_stage(s, room);
    int64_t wait = bucket_take(&room->allowance, rate, n, s->now.mono_ns);
    *retry_ms = (uint64_t)((wait + NS_PER_MS - 1) / NS_PER_MS);
    return wait == 0;
}

bool room_rate_forgets(const struct shard *s, const struct room *room)
{
    return s->types[room->type].rate <= 0 || bucket_is_full(&room->allowance, s->now.mono_ns);
}
