/* CORE. The dice of a seed, and the storm that they make. Each seed draws which faults it has and
 * how often, so that some runs see one kind alone and others all at once. */
#include "sim.h"

const char *fault_name(enum trouble fault)
{
    static const char *const names[] = {[FAULT_RESET] = "reset",
                                        [FAULT_CUT] = "cut",
                                        [FAULT_ISOLATE] = "isolate",
                                        [FAULT_SLOW] = "slow",
                                        [FAULT_KILL] = "kill",
                                        [FAULT_FUSE] = "kill in mid turn",
                                        [FAULT_COMMIT] = "kill at commit",
                                        [FAULT_PAUSE] = "pause",
                                        [FAULT_FULL] = "disk full",
                                        [FAULT_IO] = "I/O error",
                                        [FAULT_CLOCK] = "clock",
                                        [FAULT_LEAP] = "window passes",
                                        [FAULT_DRAIN] = "drain",
                                        [FAULT_EMPTY] = "disk emptied",
                                        [FAULT_ROLLBACK] = "disk put back",
                                        [FAULT_RETYPE] = "retention changed"};
    return names[fault];
}

/* ---- dice ---- */

static int64_t draw_log(struct world *w, int64_t least, int64_t most)
{
    int64_t bound = least;
    while (bound < most && chance(w, 800))
        bound *= 2;
    return bound > most ? most : bound;
}

static struct retention retention_draw(struct world *w, bool small)
{
    static const int64_t ages[] = {0, 2000, 20000, 3600000, 3600000};
    static const uint64_t counts[] = {3, 12, 40, 0, 10000};
    static const uint64_t sizes[] = {600, 4000, 0, 16 * MIB, 16 * MIB};
    return (struct retention){.age_ms = ages[draw(w, 5)],
                              .count = counts[draw(w, small ? 3 : 5)],
                              .bytes = sizes[small ? draw(w, 5) : 1 + draw(w, 4)]};
}

static void dice_load(struct world *w)
{
    struct dice *d = &w->dice;
    d->storm_ns = chance(w, 700)   ? (int64_t)(2 + draw(w, 8)) * NS_PER_S
                  : chance(w, 850) ? (int64_t)(10 + draw(w, 20)) * NS_PER_S
                                   : (int64_t)(30 + draw(w, 50)) * NS_PER_S;
    unsigned publishers = d->posters + d->count[LIBRARY];
    d->pace_ns = d->storm_ns * publishers / (int64_t)(20 + draw(w, 150));
    d->payload_max = chance(w, 200) ? 20 * KIB : 500;
    d->fat = 60;
    d->kernel_bytes = chance(w, 500) ? 4096 : draw(w, 3) * 200;
    d->queue_factor = chance(w, 300) ? 1000 : 1;
    d->conflate = chance(w, 500) ? 400 : 0;
    d->ephemeral = chance(w, 500) ? 150 : 0;
    d->batch = chance(w, 500) ? 150 : 0;
    d->idempotent = chance(w, 200) ? 0 : 800;
    d->purge = chance(w, 200) ? 60 : 0;
    d->retention[0] = retention_draw(w, chance(w, 400));
    d->retention[1] = retention_draw(w, true);
    if (chance(w, 4)) { /* a shard looks for idle rooms ten minutes after its start */
        d->storm_ns = 800 * NS_PER_S;
        d->pace_ns = d->storm_ns * publishers / 200;
        d->readers = 2;
        d->days = true;
    }
    if (chance(w, 8)) { /* enough to use up a gateway's credit before its link is given up */
        d->storm_ns = 4 * NS_PER_S;
        d->pace_ns = d->storm_ns * publishers / 120;
        d->payload_max = 400 * KIB;
        d->batch = 0;
        d->fat = 900;
        d->jitter_ns = d->delay_ns = 20 * MS;
    }
}

static void dice_faults(struct world *w)
{
    struct dice *d = &w->dice;
    for (unsigned i = 0; i < FAULTS; i++)
        d->weight[i] = chance(w, 450) ? 0 : 1 + (unsigned)draw(w, 10);
    if (!chance(w, 200))
        d->weight[FAULT_EMPTY] = 0;
    if (d->weight[FAULT_EMPTY] > 0 && chance(w, 600)) { /* who lags meets another history */
        d->queue_factor = 2000;
        d->kernel_bytes = 0;
    }
    if (d->weight[FAULT_EMPTY] > 0 && chance(w, 500) &&
        !d->days) { /* young rooms, whose next event is on its way */
        d->weight[FAULT_EMPTY] += 15;
        d->delay_ns = 10 * MS;
        d->pace_ns = 20 * MS;
    }
    if (!chance(w, 100))
        d->weight[FAULT_LEAP] = 0;
    if (!chance(w, 150))
        d->weight[FAULT_RETYPE] = 0;
    if (!chance(w, 30))
        d->weight[FAULT_ROLLBACK] = 0;
    if (!chance(w, 300) ||
        d->weight[FAULT_LEAP] > 0) /* a publisher's clock ahead of that: a limit */
        d->weight[FAULT_CLOCK] = 0;
    d->fault_ns = chance(w, 50) ? 3600 * NS_PER_S : d->storm_ns / (int64_t)(2 + draw(w, 25));
    if (d->days) {
        memset(d->weight, 0, sizeof d->weight);
        d->weight[FAULT_RESET] = d->weight[FAULT_COMMIT] = 1;
        d->weight[FAULT_LEAP] = 3;
        d->fault_ns = 25 * NS_PER_S;
    }
    if (chance(w, 200)) {
        d->loss = (unsigned)draw(w, 60);
        d->twice = (unsigned)draw(w, 60);
        d->shuffle = (unsigned)draw(w, 200);
    }
}

void dice_roll(struct world *w)
{
    struct dice *d = &w->dice;
    d->count[SHARD] = 1 + (unsigned)draw(w, SHARDS_MAX);
    d->count[ROUTER] = chance(w, 800) ? ROUTERS_COUNT : 1;
    d->count[GATEWAY] = 1 + (unsigned)draw(w, GATEWAYS_MAX);
    d->count[LIBRARY] = (unsigned)draw(w, LIBRARIES_MAX + 1);
    d->count[INTRUDER] = chance(w, 150);
    d->keys = 1 + (unsigned)draw(w, KEYS_MAX);
    d->readers = 1 + (unsigned)draw(w, READERS_MAX);
    d->posters = 1 + (unsigned)draw(w, POSTERS_MAX);
    d->delay_ns = draw_log(w, 20000, 4 * MS);
    d->jitter_ns = draw_log(w, 10000, 8 * MS);
    d->think_ns = draw_log(w, 5000, 2 * MS);
    d->pipe_max = chance(w, 100) ? 4 + (unsigned)draw(w, 30) : 10000;
    dice_load(w);
    dice_faults(w);
}

/* ---- faults ---- */

static struct process *victim(struct world *w)
{
    return &w->processes[draw(w, w->n_processes)];
}

static struct disk *some_disk(struct world *w)
{
    return &w->disks[draw(w, w->dice.count[SHARD])];
}

static struct conn *some_conn(struct world *w)
{
    return &w->conns[draw(w, w->n_conns)];
}

static int64_t draw_length(struct world *w)
{
    return chance(w, 600) ? draw_ns(w, 300 * MS) : draw_ns(w, 6 * NS_PER_S);
}

static void cut(struct world *w, struct conn *c, unsigned ways)
{
    int64_t ns = draw_length(w);
    if (ways & 1)
        net_cut(&c->to_listener, ns);
    if (ways & 2)
        net_cut(&c->to_dialer, ns);
    event_set(w, &c->heal, ns);
}

static void isolate(struct world *w, struct process *p)
{
    unsigned ways = 1 + (unsigned)draw(w, 3);
    for (unsigned i = 0; i < p->n_conns; i++)
        cut(w, p->conns[i], ways);
}

static void slow(struct world *w, struct conn *c)
{
    struct pipe *p = draw(w, 2) ? &c->to_dialer : &c->to_listener;
    p->slow_until_ns = w->now_ns + draw_length(w);
    p->slow_factor = 2 + (unsigned)draw(w, 119);
}

static void clock_fault(struct world *w)
{
    static const int64_t jumps[] = {3600000, -3600000, 600000, -600000, 5000, -5000, 90000000};
    struct process *p = victim(w);
    w->skewed = true;
    if (chance(w, 700)) {
        int64_t jump = jumps[draw(w, chance(w, 100) ? 7 : 6)];
        p->wall_ms += jump;
        if (p->kind == SHARD && jump > IDEMPOTENCY_WINDOW_MIN_MS / 2)
            w->leap_ns = w->now_ns;
    } else if (chance(w, 500)) {
        static const int64_t tenths[] = {10, 9, 11, 1, 100};
        p->wall_tenths = tenths[draw(w, p->kind == SHARD ? 4 : 5)];
    }
}

/* All of an hour passes on the shards' clocks while a publisher waits for answers that do not come:
 * what it sends again then is older than what is remembered. */
static void leap_fire(struct event *e)
{
    struct world *w = OWNER_OF(e, struct world, leap);
    w->leap_ns = w->now_ns;
    for (unsigned i = 0; i < w->dice.count[SHARD]; i++)
        w->disks[i].process->wall_ms += w->dice.days && chance(w, 500) ? 26 * 3600000 : 4000000;
}

static void leap(struct world *w)
{
    struct process *p = world_process(w, LIBRARY, (unsigned)draw(w, w->dice.count[LIBRARY]));
    if (!p || heap_has(&w->leap.node))
        return;
    for (unsigned i = 0; i < p->n_conns; i++) {
        net_cut(&p->conns[i]->to_dialer, 6 * NS_PER_S);
        event_set(w, &p->conns[i]->heal, 3 * NS_PER_S);
    }
    event_set(w, &w->leap, draw_ns(w, NS_PER_S));
}

static void retype(struct world *w)
{
    struct retention *r = &w->dice.retention[draw(w, TYPES_COUNT)];
    for (unsigned i = 0; i < w->dice.count[SHARD]; i++)
        if (!process_runs(w->disks[i].process))
            return;
    if (r->count == 0 || r->count > 4)
        r->count = r->count ? r->count / 2 : 30;
    struct shard_type types[TYPES_COUNT + 1];
    size_t n_types = types_of(w, types);
    for (unsigned i = 0; i < w->dice.count[SHARD]; i++) {
        struct process *p = w->disks[i].process;
        shard_retypes(p->shard, types, n_types);
        process_soon(p);
    }
}

static void disk_fault(struct world *w, enum trouble fault)
{
    struct disk *d = some_disk(w);
    switch (fault) {
    case FAULT_COMMIT:
        d->commit_fuse = 1 + (unsigned)draw(w, 3);
        d->commit_end = draw(w, 2) ? COMMIT_LOSES_AND_DIES : COMMIT_KEEPS_AND_DIES;
        break;
    case FAULT_FULL:
        d->full_until_ns = w->now_ns + draw_length(w);
        d->full_odds = chance(w, 500) ? 1000 : 50 + (unsigned)draw(w, 900);
        d->full_seen = draw(w, 2);
        break;
    case FAULT_IO:
        d->io_fuse = 1 + (unsigned)draw(w, 20);
        break;
    case FAULT_ROLLBACK:
        if (!d->old) {
            if (!d->fresh) /* without its slots it is a new disk, which FAULT_EMPTY is for */
                disk_keep(d);
            break;
        }
        if (d->process->up)
            process_crash(d->process, "an old copy of its disk");
        disk_put_back(d);
        break;
    default: /* FAULT_EMPTY */
        if (d->process->up)
            process_crash(d->process, "its disk's loss");
        disk_empty(d);
    }
}

static void process_fault(struct world *w, enum trouble fault)
{
    struct process *p = victim(w);
    switch (fault) {
    case FAULT_KILL:
        if (p->up)
            process_crash(p, "a kill");
        break;
    case FAULT_FUSE:
        p->fuse = 1 + (unsigned)draw(w, 10);
        break;
    case FAULT_PAUSE:
        process_pause(p, chance(w, 50) ? draw_ns(w, 30 * NS_PER_S) : draw_length(w));
        break;
    default: /* FAULT_DRAIN */
        if (p->kind <= GATEWAY)
            process_drain(p);
    }
}

static void fault_do(struct world *w, enum trouble fault)
{
    TRACE(w, "fault: %s", fault_name(fault));
    w->counters->faults[fault]++;
    switch (fault) {
    case FAULT_RESET:
        net_reset(some_conn(w), draw_ns(w, 200 * MS));
        break;
    case FAULT_CUT:
        cut(w, some_conn(w), 1 + (unsigned)draw(w, 3));
        break;
    case FAULT_ISOLATE:
        isolate(w, victim(w));
        break;
    case FAULT_SLOW:
        slow(w, some_conn(w));
        break;
    case FAULT_CLOCK:
        clock_fault(w);
        break;
    case FAULT_LEAP:
        leap(w);
        break;
    case FAULT_RETYPE:
        retype(w);
        break;
    case FAULT_KILL:
    case FAULT_FUSE:
    case FAULT_PAUSE:
    case FAULT_DRAIN:
        process_fault(w, fault);
        break;
    default:
        disk_fault(w, fault);
    }
}

static void storm_fire(struct event *e)
{
    struct world *w = OWNER_OF(e, struct world, fault);
    unsigned sum = 0;
    if (!w->storm)
        return;
    for (unsigned i = 0; i < FAULTS; i++)
        sum += w->dice.weight[i];
    uint64_t at = draw(w, sum);
    for (unsigned i = 0; i < FAULTS && sum > 0; i++) {
        if (at < w->dice.weight[i]) {
            fault_do(w, i);
            break;
        }
        at -= w->dice.weight[i];
    }
    event_set(w, &w->fault, draw_ns(w, w->dice.fault_ns));
}

void faults_begin(struct world *w)
{
    for (unsigned i = 0; i < w->n_processes; i++)
        if (chance(w, 50))
            w->processes[i].ppm = (int64_t)draw(w, 100001) - 50000;
    w->fault.fire = storm_fire;
    w->leap.fire = leap_fire;
    event_set(w, &w->fault, draw_ns(w, w->dice.fault_ns));
}

void faults_heal(struct world *w)
{
    w->dice.loss = w->dice.twice = w->dice.shuffle = 0;
    w->dice.pipe_max = 10000;
    for (unsigned i = 0; i < w->dice.count[SHARD]; i++) {
        w->disks[i].full_until_ns = 0;
        w->disks[i].io_fuse = w->disks[i].commit_fuse = 0;
        if (w->disks[i].fresh && w->disks[i].process->up) /* found no space for its slots */
            process_crash(w->disks[i].process, "its operator");
    }
    for (unsigned i = 0; i < w->n_conns; i++) {
        struct conn *c = &w->conns[i];
        c->to_dialer.slow_until_ns = c->to_listener.slow_until_ns = 0;
        event_set(w, &c->heal, 0);
    }
    for (unsigned i = 0; i < w->n_processes; i++) {
        struct process *p = &w->processes[i];
        p->fuse = 0;
        if (p->paused || p->draining)
            event_set(w, &p->resume, draw_ns(w, 100 * MS));
        if (!p->up)
            event_set(w, &p->restart, draw_ns(w, 200 * MS));
    }
}
