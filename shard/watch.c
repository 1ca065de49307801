/* CORE. Around every call into a room's code: the program is told which room it is, so that it can
 * end a process that does not come back and name the culprit, and says how long it took. A turn
 * whose code has taken long ends early: who is done is answered, and links hear of the shard. */
#include "shard/quarantine.h"

void watch_enter(struct shard *s, const struct room *room, const char *phase)
{
    if (s->watch.enter)
        s->watch.enter(s->watch.ctx, room_key(room), phase);
}

void watch_leave(struct shard *s, const struct room *room, enum phase phase)
{
    if (!s->watch.leave)
        return;
    int64_t ns = s->watch.leave(s->watch.ctx);
    s->turn.code_ns += ns;
    if (phase < PHASE_COUNT && s->types[room->type].seconds[phase])
        metric_observe_ns(s->types[room->type].seconds[phase], ns);
}
