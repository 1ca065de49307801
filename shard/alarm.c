/* CORE. Alarms: one a room, by the wall clock, at least once.
 *
 * The row leaves with the last segment of on_alarm. A failure that nobody handled makes it due
 * again after 2, 4, 8 ... seconds and up to a quarter more; after `alarm_retries` of those it is
 * dead: not tried again, but kept to be seen until the room schedules or cancels. A handler that
 * schedules anew, failing or not, has replaced what was. */
#include "shard/actor.h"
#include "shard/quarantine.h"

#include "common/mutant.h"

#define RETRY_FIRST_MS 2000
#define RETRY_DOUBLINGS_MAX 20
#define NO_SPACE_MS 1000

static void put_off(struct shard *s, struct room *room, int64_t ms)
{
    heap_set(&s->alarms, &room->alarm, s->clock_ms + ms);
}

void alarm_decide(struct shard *s, struct op *op)
{
    struct room *room = op->room;
    if (!s->has_space) {
        put_off(s, room, NO_SPACE_MS);
        return;
    }
    if (room_quarantined(s, room)) {
        put_off(s, room, QUARANTINE_LOOK_MS);
        return;
    }
    struct actor *a = actor_wake(s, room);
    if (!a->alarm.set || a->alarm.dead || a->alarm.run != 0 ||
        (a->alarm.due_ms > s->clock_ms && !STOA_MUTANT(ALARM_EARLY)))
        return;
    struct task t = {.kind = TASK_ALARM, .actor = a, .what = {.phase = PHASE_ALARM}};
    actor_touch(s, a);
    a->alarm.running = true;
    a->alarm.run = t.alarm = ++s->last_wait;
    segment_run(s, &t);
}

void alarm_take(struct shard *s, struct actor *a)
{
    if (!a->alarm.set)
        return;
    actor_touch(s, a);
    alarm_clear(s, a);
}

static int64_t retry_ms(struct shard *s, uint32_t failures)
{
    uint32_t doublings = failures - 1 < RETRY_DOUBLINGS_MAX ? failures - 1 : RETRY_DOUBLINGS_MAX;
    int64_t ms = (int64_t)RETRY_FIRST_MS << doublings;
    return ms + (int64_t)rng_below(&s->rng, (uint64_t)ms / 4 + 1);
}

void alarm_ended(struct shard *s, struct task *t, const struct fault *fault)
{
    struct actor *a = t->actor;
    struct alarm *alarm = &a->alarm;
    if (alarm->run != t->alarm)
        return; /* replaced or cancelled by the run itself */
    if (!fault) {
        alarm_clear(s, a);
        return;
    }
    alarm->run = 0;
    alarm->attempt++;
    strbuf_reset(&alarm->why);
    strbuf_put_slice(&alarm->why, strbuf_slice(&fault->message));
    alarm->dead = alarm->attempt > a->handler->traits.alarm_retries;
    if (!alarm->dead)
        alarm->due_ms = s->clock_ms + retry_ms(s, alarm->attempt);
    else
        LOG(s->log, LOG_ERROR, "room.alarm_dead", LOG_SLICE("key", room_key(a->room)),
            LOG_U64("attempts", alarm->attempt), LOG_SLICE("error", strbuf_slice(&alarm->why)));
    s->alarms_dead += (uint64_t)alarm->dead - a->room->alarm_dead;
    a->room->alarm_dead = alarm->dead;
    a->alarm_dirty = true;
}

void alarm_clear(struct shard *s, struct actor *a)
{
    strbuf_free(&a->alarm.why);
    s->alarms_dead -= a->room->alarm_dead;
    a->room->alarm_dead = false;
    a->alarm = (struct alarm){0};
    a->alarm_dirty = true;
}

static void arm(struct shard *s, struct room *room, const struct alarm *alarm)
{
    if (alarm->set && !alarm->dead && alarm->run == 0)
        heap_set(&s->alarms, &room->alarm, alarm->due_ms - STOA_MUTANT(ALARM_EARLY) * 500);
    else
        heap_remove(&s->alarms, &room->alarm);
}

void alarm_settle(struct shard *s, struct actor *a)
{
    arm(s, a->room, &a->alarm);
}

void alarm_reload(struct shard *s, struct room *room)
{
    const struct store_vtable *store = s->store->vtable;
    struct alarm alarm = {0};
    struct slice value;
    if (room->room_id != 0) {
        int code = store->read_begin(s->store);
        STOA_ASSERT(code == ERR_OK);
        code = store->read_row(s->store, TABLE_ALARM, room->room_id, (struct slice){0}, &value);
        if (code == ERR_OK && !row_alarm(value, &alarm))
            alarm.set = false;
        store->read_end(s->store);
    }
    s->alarms_dead += (uint64_t)alarm.dead - room->alarm_dead;
    room->alarm_dead = alarm.dead;
    arm(s, room, &alarm);
    strbuf_free(&alarm.why);
}
