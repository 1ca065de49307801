/* CORE. Processes: the shipped cores with their ports, a clock of their own, and ways to die: at
 * once, or doomed. A doomed process has met its end in the middle of a call of its core (a packet
 * too many, a commit, a failed write): what it sends from then on never left, and when the call
 * returns it is gone. */
#include "sim.h"

#define RESTART_NS (400 * MS)
#define TEXT_48 "mem://0123456789/0123456789/0123456789/012345678"
#define ENDPOINT_LONG TEXT_48 TEXT_48 TEXT_48 TEXT_48 TEXT_48 TEXT_48 /* too long for a hint */

bool process_runs(const struct process *p)
{
    return p->up && !p->paused;
}

struct tick process_now(const struct process *p)
{
    int64_t now = p->world->now_ns;
    struct tick tick = {.mono_ns = NS_PER_S + now + now / 1000000 * p->ppm,
                        .wall_ms = WALL_START_MS + p->wall_ms + now / MS * p->wall_tenths / 10};
    if (p->disk && tick.wall_ms > p->disk->clock_ms)
        p->disk->clock_ms = tick.wall_ms;
    return tick;
}

/* When the process's own clock says `due`, in the world's. */
static int64_t world_delay(const struct process *p, int64_t due_ns)
{
    int64_t left = due_ns - process_now(p).mono_ns, rate = 1000000 + p->ppm;
    return left <= 0 ? 0 : left / rate * 1000000 + left % rate * 1000000 / rate + 1;
}

struct hub *process_hub(const struct process *p)
{
    switch (p->kind) {
    case GATEWAY:
        return gateway_hub(p->gateway);
    case ROUTER:
        return router_hub(p->router);
    case SHARD:
        return shard_hub(p->shard);
    case LIBRARY:
        return publisher_hub(p->publisher);
    default:
        return p->hub;
    }
}

void process_soon(struct process *p)
{
    struct world *w = p->world;
    if (!p->up || p->paused)
        return;
    int64_t in_ns = 1000 + (int64_t)draw(w, (uint64_t)w->dice.think_ns);
    if (!heap_has(&p->wake.node) || p->wake.node.due > w->now_ns + in_ns)
        event_set(w, &p->wake, in_ns);
}

void process_settle(struct process *p)
{
    if (p->up && p->doomed)
        process_crash(p, "its fuse");
}

static int64_t core_turn(struct process *p, struct tick now)
{
    bool more = false;
    switch (p->kind) {
    case GATEWAY:
        sockets_establish(p);
        gateway_turn(p->gateway, now);
        if (chance(p->world, 30) && !p->doomed)
            gateway_validate(p->gateway);
        return gateway_deadline(p->gateway);
    case ROUTER:
        router_turn(p->router, now);
        return router_deadline(p->router);
    case SHARD:
        more = shard_turn(p->shard, now);
        if (chance(p->world, 30) && !p->doomed)
            shard_validate(p->shard);
        return more ? now.mono_ns : shard_deadline(p->shard);
    case LIBRARY:
        library_turn(p);
        return publisher_deadline(p->publisher);
    case IMPOSTOR:
        impostor_turn(p);
        return wild_deadline(p);
    default:
        intruder_turn(p);
        return wild_deadline(p);
    }
}

static void process_wake(struct event *e)
{
    struct process *p = OWNER_OF(e, struct process, wake);
    struct world *w = p->world;
    if (!p->up || p->paused)
        return;
    int64_t deadline = core_turn(p, process_now(p));
    guests_turn(p);
    process_settle(p);
    if (!p->up || deadline == TICK_NEVER)
        return;
    int64_t in_ns = world_delay(p, deadline);
    if (in_ns < 20000)
        in_ns = 20000; /* a loop's turn takes its time */
    if (!heap_has(&p->wake.node) || p->wake.node.due > w->now_ns + in_ns)
        event_set(w, &p->wake, in_ns);
}

/* ---- starting ---- */

static struct hub_self self_of(struct process *p)
{
    static const enum role roles[] = {
        [GATEWAY] = ROLE_GATEWAY,   [ROUTER] = ROLE_ROUTER,    [SHARD] = ROLE_SHARD,
        [LIBRARY] = ROLE_PUBLISHER, [INTRUDER] = ROLE_GATEWAY, [IMPOSTOR] = ROLE_SHARD};
    struct hub_self self = {.role = roles[p->kind],
                            .boot = rng_u64(&p->world->rng),
                            .cluster = CLUSTER,
                            .name = p->name,
                            .version = "0.1",
                            .win_msgs = 1000,
                            .win_bytes = 64 * MIB,
                            .window_ms = IDEMPOTENCY_WINDOW_MIN_MS};
    self.node[0] = (uint8_t)(p->kind + 1);
    self.node[1] = (uint8_t)p->index;
    self.node[2] = p->node_generation;
    if (p->kind != SHARD)
        memcpy(self.node + 4, &self.boot, sizeof self.boot);
    return self;
}

/* As the configuration lists them: an impostor stands in the last place. */
static unsigned shards_dialed(const struct world *w)
{
    return w->dice.count[SHARD] + w->dice.count[IMPOSTOR];
}

static void gateway_up(struct process *p, const struct hub_ports *hub_ports)
{
    static const char *const headers[] = {"x-team", "origin", NULL};
    static const struct gateway_type types[] = {
        {.name = "events"},
        {.name = "short"},
        {.name = "made", .has_handler = true, .presence = true, .headers = headers}};
    struct world *w = p->world;
    struct gateway_ports ports = socket_ports(p);
    struct gateway_options options = {.self = self_of(p),
                                      .slot_seed = SLOT_SEED,
                                      .n_routers = w->dice.count[ROUTER],
                                      .n_shards = shards_dialed(w),
                                      .seed = rng_u64(&w->rng),
                                      .payload_max_bytes = PAYLOAD_MAX_BYTES,
                                      .keys_per_socket = KEYS_PER_SOCKET_MAX,
                                      .loopback = true,
                                      .types = types,
                                      .n_types = TYPES_COUNT + w->guests,
                                      .version = "0.1"};
    guests_gateway(p, &options);
    p->gateway = gateway_create(&options, hub_ports, &ports, guests_log(w), w->metrics);
}

static void router_up(struct process *p, const struct hub_ports *hub_ports)
{
    static const char *const endpoints[SHARDS_MAX + 1] = {"mem://0", "mem://1", "mem://2",
                                                          ENDPOINT_LONG};
    struct router_options options = {.self = self_of(p),
                                     .slot_seed = SLOT_SEED,
                                     .n_shards = shards_dialed(p->world),
                                     .shard_endpoints = endpoints,
                                     .seed = rng_u64(&p->world->rng)};
    p->router = router_create(&options, hub_ports, guests_log(p->world), p->world->metrics);
}

size_t types_of(struct world *w, struct shard_type types[TYPES_COUNT + 1])
{
    types[0] = (struct shard_type){.name = "events", .retention = w->dice.retention[0]};
    types[1] = (struct shard_type){.name = "short", .retention = w->dice.retention[1]};
    types[2] = (struct shard_type){
        .name = "made", .retention = w->dice.retention[1], .handler = &w->made, .presence = true};
    return TYPES_COUNT + w->guests;
}

static void shard_up(struct process *p, const struct hub_ports *hub_ports)
{
    struct world *w = p->world;
    unsigned share = SLOT_COUNT / w->dice.count[SHARD];
    bool last = p->index + 1 == w->dice.count[SHARD];
    struct shard_type types[TYPES_COUNT + 1];
    struct shard_options options = {
        .self = self_of(p),
        .slot_seed = SLOT_SEED,
        .types = types,
        .n_types = types_of(w, types),
        .grant = p->disk->fresh,
        .grant_lo = (uint16_t)(p->index * share),
        .grant_hi = (uint16_t)(last ? SLOT_COUNT - 1 : (p->index + 1) * share - 1),
        .seed = rng_u64(&w->rng),
        .payload_max_bytes = PAYLOAD_MAX_BYTES};
    p->shard = shard_create(&options, &p->disk->base, hub_ports, guests_log(w), w->metrics,
                            process_now(p));
}

void process_start(struct process *p)
{
    struct world *w = p->world;
    struct hub_ports ports = {.ctx = p, .send = net_send, .forget = net_forget};
    STOA_ASSERT(!p->up);
    p->up = true;
    p->paused = p->doomed = p->draining = false;
    p->fuse = 0;
    p->noise_ns = 0;
    TRACE(w, "%s starts", p->name);
    if (p->boots++ > 0)
        truth_entry(w, H_RESTART, p->who);
    if (p->kind == GATEWAY) {
        gateway_up(p, &ports);
    } else if (p->kind == ROUTER) {
        router_up(p, &ports);
    } else if (p->kind == SHARD) {
        shard_up(p, &ports);
    } else {
        const struct hub_self self = self_of(p);
        if (p->kind > LIBRARY)
            wild_ports(p, &ports);
        if (p->kind == LIBRARY)
            library_up(p, &ports, &self);
        else if (p->kind == IMPOSTOR)
            impostor_up(p, &ports, &self);
        else
            intruder_up(p, &ports, &self);
    }
    if (p->doomed) {
        process_crash(p, "its disk, at start");
        return;
    }
    net_up(p);
    process_soon(p);
}

static void process_restart(struct event *e)
{
    struct process *p = OWNER_OF(e, struct process, restart);
    if (!p->up)
        process_start(p);
}

/* ---- stopping ---- */

void process_crash(struct process *p, const char *why)
{
    struct world *w = p->world;
    STOA_ASSERT(p->up);
    TRACE(w, "%s dies of %s", p->name, why);
    p->up = p->paused = p->doomed = false;
    event_stop(w, &p->wake);
    event_stop(w, &p->resume);
    w->counters->crashes++;
    truth_entry(w, H_CRASH, p->who);
    net_down(p);
    if (p->kind == GATEWAY)
        sockets_down(p);
    if (p->kind == LIBRARY)
        library_down(p);
    gateway_destroy(&p->gateway);
    router_destroy(&p->router);
    shard_destroy(&p->shard);
    hub_destroy(&p->hub);
    if (p->disk)
        disk_crashed(p->disk);
    int64_t mean_ns = w->storm && chance(w, 300) ? 8 * RESTART_NS : RESTART_NS;
    event_set(w, &p->restart, draw_ns(w, mean_ns));
}

void process_pause(struct process *p, int64_t ns)
{
    if (!process_runs(p) || p->draining)
        return;
    TRACE(p->world, "%s is stopped for %lld ms", p->name, (long long)(ns / MS));
    p->paused = true;
    p->world->long_pause |= ns > 20 * NS_PER_S;
    p->world->counters->pauses++;
    event_set(p->world, &p->resume, ns);
}

static void process_resume(struct event *e)
{
    struct process *p = OWNER_OF(e, struct process, resume);
    if (p->draining && p->up && !p->paused) { /* the drain has had its time */
        process_crash(p, "its drain");
        return;
    }
    if (!p->up || !p->paused)
        return;
    TRACE(p->world, "%s goes on", p->name);
    p->paused = false;
    net_resumed(p);
    if (p->up && p->kind == GATEWAY)
        sockets_resumed(p);
    process_soon(p);
}

void process_drain(struct process *p)
{
    struct world *w = p->world;
    if (!process_runs(p) || p->draining)
        return;
    TRACE(w, "%s drains", p->name);
    p->draining = true;
    if (p->kind == GATEWAY)
        gateway_drain(p->gateway, process_now(p), 500);
    else if (p->kind == ROUTER)
        router_drain(p->router, process_now(p));
    else if (p->kind == SHARD)
        shard_drain(p->shard, process_now(p));
    process_settle(p);
    if (!p->up)
        return;
    event_set(w, &p->resume, draw_ns(w, 600 * MS));
    process_soon(p);
}

/* ---- the cluster ---- */

static void processes_of(struct world *w, enum kind kind)
{
    static const char *const names[] = {"shard",   "router",   "gateway",
                                        "library", "intruder", "impostor"};
    for (unsigned i = 0; i < w->dice.count[kind]; i++) {
        struct process *p = &w->processes[w->n_processes++];
        p->wake.fire = process_wake;
        p->restart.fire = process_restart;
        p->resume.fire = process_resume;
        p->world = w;
        p->kind = kind;
        p->index = i;
        p->wall_tenths = 10;
        snprintf(p->name, sizeof p->name, "%s-%u", names[kind], i);
        p->who = history_name(w->history, slice_text(p->name));
        if (kind == SHARD) {
            p->disk = &w->disks[i];
            disk_create(p->disk, p);
        }
    }
}

/* Dialers number their peers: routers first, then shards, as the programs do. */
static void connect_all(struct world *w, enum kind from, enum kind to, uint32_t first)
{
    for (unsigned i = 0; i < w->dice.count[from]; i++)
        for (unsigned j = 0; j < w->dice.count[to]; j++)
            net_connect(w, world_process(w, from, i), world_process(w, to, j), first + j);
}

void processes_add(struct world *w)
{
    for (enum kind kind = SHARD; kind < KINDS; kind++)
        processes_of(w, kind);
    connect_all(w, ROUTER, SHARD, 1);
    connect_all(w, GATEWAY, ROUTER, 1);
    connect_all(w, GATEWAY, SHARD, 1 + w->dice.count[ROUTER]);
    connect_all(w, LIBRARY, ROUTER, 1);
    connect_all(w, INTRUDER, SHARD, 1);
    connect_all(w, INTRUDER, ROUTER, 1 + w->dice.count[SHARD]);
    connect_all(w, ROUTER, IMPOSTOR, 1 + w->dice.count[SHARD]);
    connect_all(w, GATEWAY, IMPOSTOR, 1 + w->dice.count[ROUTER] + w->dice.count[SHARD]);
}
