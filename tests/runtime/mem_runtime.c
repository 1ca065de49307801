#include "mem_runtime.h"

#define SEED 42
#define CLUSTER 7
#define PROCESSES_MAX (GATEWAYS_MAX + ROUTERS_MAX + SHARDS_MAX)
#define CONNECTIONS_MAX 64
#define CLIENTS_MAX 4096

struct process {
    struct runtime *rt;
    enum process_kind kind;
    unsigned index;
    char name[16];
    uint64_t boots;
    bool up;
    struct gateway *gateway;
    struct router *router;
    struct shard *shard;
    struct store *store; /* a shard's; outlives it */
    struct metrics *metrics;
};

struct parcel {
    struct parcel *next;
    bool to_dialer;
    struct buf *bytes;
};

struct connection {
    struct process *dialer, *listener;
    uint32_t dialed;   /* the dialer's number */
    uint32_t accepted; /* the listener's number, 0: not heard of */
    struct parcel *first, **last;
    bool connected;
};

struct client {
    struct process *gateway; /* NULL: not in use any more */
    struct client_handler handler;
    struct strbuf in; /* WebSocket bytes not yet a whole frame */
    bool upgraded, established, closed, stalled;
    size_t queued;
};

struct runtime {
    struct runtime_options options;
    struct tick now;
    struct rng rng;
    uint64_t transcript;
    struct process processes[PROCESSES_MAX];
    unsigned n_processes;
    struct connection connections[CONNECTIONS_MAX];
    unsigned n_connections;
    struct client clients[CLIENTS_MAX];
    uint64_t n_clients;
    bool moved; /* something happened in this round */
};

static void transcribe(struct runtime *rt, const void *bytes, size_t size)
{
    rt->transcript = hash_bytes(bytes, size, rt->transcript);
}

static struct hub *hub_of(const struct process *p)
{
    switch (p->kind) {
    case GATEWAY:
        return gateway_hub(p->gateway);
    case ROUTER:
        return router_hub(p->router);
    case SHARD:
        return shard_hub(p->shard);
    }
    return NULL;
}

static struct process *process_of(const struct runtime *rt, enum process_kind kind, unsigned index)
{
    for (unsigned i = 0; i < rt->n_processes; i++)
        if (rt->processes[i].kind == kind && rt->processes[i].index == index)
            return (struct process *)&rt->processes[i];
    ck_abort_msg("no such process");
    return NULL;
}

/* ---- packets ---- */

static int port_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct process *p = ctx;
    struct runtime *rt = p->rt;
    for (unsigned i = 0; i < rt->n_connections; i++) {
        struct connection *c = &rt->connections[i];
        bool from_dialer = c->dialer == p && c->dialed == peer;
        bool from_listener = c->listener == p && c->accepted == peer;
        if (!from_dialer && !from_listener)
            continue;
        if (!c->connected)
            return ERR_GONE;
        struct parcel *parcel = mem_alloc(sizeof *parcel);
        *parcel = (struct parcel){.to_dialer = from_listener, .bytes = buf_copy(packet, size)};
        *c->last = parcel;
        c->last = &parcel->next;
        rt->moved = true;
        return ERR_OK;
    }
    return ERR_GONE;
}

static void port_forget(void *ctx, uint32_t peer)
{
    struct process *p = ctx;
    for (unsigned i = 0; i < p->rt->n_connections; i++) {
        struct connection *c = &p->rt->connections[i];
        if (c->listener == p && c->accepted == peer)
            c->accepted = 0;
    }
}

static void parcel_take(struct connection *c)
{
    struct parcel *parcel = c->first;
    c->first = parcel->next;
    if (!c->first)
        c->last = &c->first;
    buf_unref(parcel->bytes);
    mem_free(parcel);
}

static void connection_clear(struct connection *c)
{
    while (c->first)
        parcel_take(c);
}

static unsigned door_of(const struct connection *c)
{
    return c->listener->kind == ROUTER ? ROUTER_DOOR_GATEWAY : 0;
}

static void connection_carry(struct runtime *rt, struct connection *c)
{
    struct parcel *parcel = c->first;
    struct buf *bytes = buf_ref(parcel->bytes);
    bool to_dialer = parcel->to_dialer;
    parcel_take(c);
    transcribe(rt, bytes->data, bytes->size);
    if (to_dialer) {
        hub_packet(hub_of(c->dialer), c->dialed, bytes, rt->now);
    } else {
        if (!c->accepted)
            c->accepted = hub_accept(hub_of(c->listener), door_of(c), rt->now);
        hub_packet(hub_of(c->listener), c->accepted, bytes, rt->now);
    }
    buf_unref(bytes);
}

/* ---- clients ---- */

static struct client *client_of(struct runtime *rt, uint64_t id)
{
    ck_assert_uint_lt(id, CLIENTS_MAX);
    return &rt->clients[id];
}

static void client_end(struct client *c, unsigned code)
{
    if (!c->gateway || c->closed)
        return;
    c->closed = true;
    if (c->handler.closed)
        c->handler.closed(c->handler.ctx, code);
}

static void port_respond(void *ctx, uint64_t id, const struct http_response *r)
{
    struct process *p = ctx;
    struct client *c = client_of(p->rt, id);
    transcribe(p->rt, r->body.data ? r->body.data : (const uint8_t *)"", r->body.size);
    p->rt->moved = true;
    c->closed = true; /* one request a connection */
    if (c->handler.answered)
        c->handler.answered(c->handler.ctx, r->status, r->body);
}

static void port_stream(void *ctx, uint64_t id, const struct http_response *head)
{
    (void)ctx;
    (void)id;
    (void)head;
}

static void port_upgrade(void *ctx, uint64_t id, const char *subprotocol)
{
    struct process *p = ctx;
    (void)subprotocol;
    client_of(p->rt, id)->upgraded = true;
    p->rt->moved = true;
}

/* The 101s that were asked for have gone out. */
static void clients_establish(struct process *p)
{
    for (uint64_t id = 1; id <= p->rt->n_clients; id++) {
        struct client *c = &p->rt->clients[id];
        if (c->gateway != p || !c->upgraded || c->established || c->closed)
            continue;
        c->established = true;
        gateway_established(p->gateway, id, p->rt->now);
    }
}

/* Hands whole frames to the handler. */
static void client_read(struct client *c)
{
    size_t at = 0;
    while (c->in.size - at >= 2 && !c->closed) {
        const uint8_t *head = c->in.data + at;
        size_t size = head[1];
        size_t header = size == 126 ? 4 : size == 127 ? 10 : 2;
        ck_assert_uint_ge(c->in.size - at, header);
        if (header > 2)
            size = 0;
        for (size_t i = 2; i < header; i++)
            size = size << 8 | head[i];
        ck_assert_uint_ge(c->in.size - at, header + size);
        c->handler.frame(c->handler.ctx, slice_of(head + header, size), head[0] == 0x81);
        at += header + size;
    }
    strbuf_reset(&c->in);
}

static size_t port_write(void *ctx, uint64_t id, struct buf *bytes, size_t offset, size_t size)
{
    struct process *p = ctx;
    struct client *c = client_of(p->rt, id);
    ck_assert(c->gateway == p && !c->closed);
    transcribe(p->rt, bytes->data + offset, size);
    strbuf_put(&c->in, bytes->data + offset, size);
    if (c->stalled)
        c->queued += size;
    else
        client_read(c);
    return c->queued;
}

static void port_close(void *ctx, uint64_t id, unsigned code, struct slice reason)
{
    struct process *p = ctx;
    (void)reason;
    client_of(p->rt, id)->stalled = false;
    client_read(client_of(p->rt, id));
    client_end(client_of(p->rt, id), code);
    p->rt->moved = true;
}

static uint64_t client_new(struct runtime *rt, struct process *gateway,
                           const struct client_handler *handler)
{
    ck_assert_uint_lt(rt->n_clients + 1, CLIENTS_MAX);
    uint64_t id = ++rt->n_clients;
    rt->clients[id] = (struct client){.gateway = gateway, .handler = *handler};
    return id;
}

static uint64_t client_ask(struct runtime *rt, unsigned gateway, const char *line,
                           const struct http_header *header, struct slice body, bool upgrade,
                           const struct client_handler *handler)
{
    struct process *p = process_of(rt, GATEWAY, gateway);
    struct http_request r = {.body = body, .upgrade = upgrade};
    if (!p->up)
        return 0;
    const char *space = strchr(line, ' ');
    const char *query = strchr(line, '?');
    const char *end = query ? query : line + strlen(line);
    r.method = strncmp(line, "POST", 4) == 0 ? HTTP_M_POST : HTTP_M_GET;
    r.path = slice_of(space + 1, (size_t)(end - space - 1));
    r.query = slice_text(query ? query + 1 : "");
    r.headers[r.n_headers++] = (struct http_header){slice_text("Host"), slice_text("localhost")};
    if (header->name.data)
        r.headers[r.n_headers++] = *header;
    uint64_t id = client_new(rt, p, handler);
    gateway_request(p->gateway, id, &r, rt->now);
    rt->moved = true;
    return id;
}

uint64_t runtime_request(struct runtime *rt, unsigned gateway, const char *line,
                         const char *idempotency_key, struct slice body,
                         const struct client_handler *handler)
{
    struct http_header header = {0};
    if (idempotency_key)
        header = (struct http_header){slice_text("Idempotency-Key"), slice_text(idempotency_key)};
    return client_ask(rt, gateway, line, &header, body, false, handler);
}

uint64_t runtime_upgrade(struct runtime *rt, unsigned gateway, const char *target,
                         const char *subprotocol, const struct client_handler *handler)
{
    char line[512];
    struct http_header header = {0};
    if (subprotocol)
        header =
            (struct http_header){slice_text("Sec-WebSocket-Protocol"), slice_text(subprotocol)};
    snprintf(line, sizeof line, "GET %s", target);
    return client_ask(rt, gateway, line, &header, slice_text(""), true, handler);
}

void runtime_say(struct runtime *rt, uint64_t id, const char *text)
{
    struct client *c = client_of(rt, id);
    if (c->gateway && c->established && !c->closed)
        gateway_frame(c->gateway->gateway, id, slice_text(text), true, rt->now);
    rt->moved = true;
}

bool runtime_established(const struct runtime *rt, uint64_t id)
{
    return rt->clients[id].established;
}

void runtime_hang_up(struct runtime *rt, uint64_t id)
{
    struct client *c = client_of(rt, id);
    if (!c->gateway)
        return;
    gateway_closed(c->gateway->gateway, id, 1006, rt->now);
    c->gateway = NULL;
    strbuf_free(&c->in);
    rt->moved = true;
}

void runtime_stall(struct runtime *rt, uint64_t id, bool stalled)
{
    struct client *c = client_of(rt, id);
    c->stalled = stalled;
    if (stalled || !c->gateway || c->closed)
        return;
    client_read(c);
    c->queued = 0;
    gateway_drained(c->gateway->gateway, id, rt->now);
    rt->moved = true;
}

/* ---- processes ---- */

static struct hub_self self_of(struct process *p)
{
    static const enum role roles[] = {
        [GATEWAY] = ROLE_GATEWAY, [ROUTER] = ROLE_ROUTER, [SHARD] = ROLE_SHARD};
    static const char *const names[] = {"gateway", "router", "shard"};
    snprintf(p->name, sizeof p->name, "%s-%u", names[p->kind], p->index);
    struct hub_self self = {.role = roles[p->kind],
                            .boot = ++p->boots,
                            .cluster = CLUSTER,
                            .name = p->name,
                            .version = "0.1",
                            .win_msgs = 1000,
                            .win_bytes = 64 * MIB,
                            .window_ms = IDEMPOTENCY_WINDOW_MIN_MS};
    self.node[0] = (uint8_t)(p->kind + 1);
    self.node[1] = (uint8_t)p->index;
    return self;
}

static void gateway_up(struct process *p, const struct hub_ports *hub_ports)
{
    static const struct gateway_type types[] = {{.name = "events"}};
    struct gateway_ports ports = {.ctx = p,
                                  .respond = port_respond,
                                  .stream = port_stream,
                                  .upgrade = port_upgrade,
                                  .write = port_write,
                                  .close = port_close};
    struct gateway_options options = {.self = self_of(p),
                                      .slot_seed = SEED,
                                      .n_routers = p->rt->options.routers,
                                      .n_shards = p->rt->options.shards,
                                      .seed = rng_u64(&p->rt->rng),
                                      .payload_max_bytes = PAYLOAD_MAX_BYTES,
                                      .keys_per_socket = KEYS_PER_SOCKET_MAX,
                                      .loopback = true,
                                      .types = types,
                                      .n_types = 1,
                                      .version = "0.1"};
    p->gateway = gateway_create(&options, hub_ports, &ports, NULL, p->metrics);
}

static void router_up(struct process *p, const struct hub_ports *hub_ports)
{
    static const char *const endpoints[SHARDS_MAX] = {"mem://0", "mem://1", "mem://2"};
    struct router_options options = {.self = self_of(p),
                                     .slot_seed = SEED,
                                     .n_shards = p->rt->options.shards,
                                     .shard_endpoints = endpoints,
                                     .seed = rng_u64(&p->rt->rng)};
    p->router = router_create(&options, hub_ports, NULL, p->metrics);
}

static void shard_up(struct process *p, const struct hub_ports *hub_ports)
{
    unsigned share = SLOT_COUNT / p->rt->options.shards;
    bool last = p->index + 1 == p->rt->options.shards;
    bool grant = !p->store;
    struct shard_type type = {
        .name = "events",
        .retention = {.age_ms = 3600000, .count = p->rt->options.retain_count, .bytes = 16 * MIB}};
    if (!p->store)
        p->store = store_mem_create();
    struct shard_options options = {
        .self = self_of(p),
        .slot_seed = SEED,
        .types = &type,
        .n_types = 1,
        .grant = grant,
        .grant_lo = (uint16_t)(p->index * share),
        .grant_hi = (uint16_t)(last ? SLOT_COUNT - 1 : (p->index + 1) * share - 1),
        .seed = rng_u64(&p->rt->rng),
        .payload_max_bytes = PAYLOAD_MAX_BYTES};
    p->shard = shard_create(&options, p->store, hub_ports, NULL, p->metrics, p->rt->now);
}

static void process_up(struct process *p)
{
    struct hub_ports ports = {.ctx = p, .send = port_send, .forget = port_forget};
    ck_assert(!p->up);
    p->metrics = metrics_create();
    if (p->kind == GATEWAY)
        gateway_up(p, &ports);
    else if (p->kind == ROUTER)
        router_up(p, &ports);
    else
        shard_up(p, &ports);
    p->up = true;
    for (unsigned i = 0; i < p->rt->n_connections; i++) {
        struct connection *c = &p->rt->connections[i];
        if ((c->dialer != p && c->listener != p) || !c->dialer->up || !c->listener->up)
            continue;
        c->connected = true;
        hub_connected(hub_of(c->dialer), c->dialed, p->rt->now);
    }
    p->rt->moved = true;
}

static void process_down(struct process *p)
{
    ck_assert(p->up);
    p->up = false;
    for (unsigned i = 0; i < p->rt->n_connections; i++) {
        struct connection *c = &p->rt->connections[i];
        if (c->dialer != p && c->listener != p)
            continue;
        connection_clear(c);
        c->accepted = 0;
        if (c->connected && c->dialer->up)
            hub_disconnected(hub_of(c->dialer), c->dialed, p->rt->now);
        c->connected = false;
    }
    for (uint64_t id = 1; p->kind == GATEWAY && id <= p->rt->n_clients; id++) {
        struct client *c = &p->rt->clients[id];
        if (c->gateway != p)
            continue;
        client_end(c, 1006);
        c->gateway = NULL;
        strbuf_free(&c->in);
    }
    gateway_destroy(&p->gateway);
    router_destroy(&p->router);
    shard_destroy(&p->shard);
    if (p->store)
        store_mem_crash(p->store);
    metrics_destroy(&p->metrics);
}

static bool process_turn(struct process *p)
{
    switch (p->kind) {
    case GATEWAY:
        clients_establish(p);
        gateway_turn(p->gateway, p->rt->now);
        gateway_validate(p->gateway);
        return false;
    case ROUTER:
        router_turn(p->router, p->rt->now);
        return false;
    case SHARD:
        return shard_turn(p->shard, p->rt->now);
    }
    return false;
}

/* ---- the world ---- */

static void processes_add(struct runtime *rt, enum process_kind kind, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        rt->processes[rt->n_processes++] = (struct process){.rt = rt, .kind = kind, .index = i};
}

/* Dialers number their peers in this order: routers, then shards. */
static void connections_add(struct runtime *rt, enum process_kind from, enum process_kind to,
                            uint32_t first_number)
{
    for (unsigned i = 0; i < rt->n_processes; i++)
        for (unsigned j = 0; j < rt->n_processes; j++) {
            if (rt->processes[i].kind != from || rt->processes[j].kind != to)
                continue;
            struct connection *c = &rt->connections[rt->n_connections++];
            *c = (struct connection){.dialer = &rt->processes[i],
                                     .listener = &rt->processes[j],
                                     .dialed = first_number + rt->processes[j].index};
            c->last = &c->first;
        }
}

struct runtime *runtime_create(const struct runtime_options *options)
{
    struct runtime *rt = mem_zalloc(sizeof *rt);
    rt->options = *options;
    rt->now = (struct tick){.mono_ns = NS_PER_S, .wall_ms = 1700000000000};
    rng_seed(&rt->rng, options->seed);
    processes_add(rt, SHARD, options->shards);
    processes_add(rt, ROUTER, options->routers);
    processes_add(rt, GATEWAY, options->gateways);
    connections_add(rt, ROUTER, SHARD, 1);
    connections_add(rt, GATEWAY, ROUTER, 1);
    connections_add(rt, GATEWAY, SHARD, 1 + options->routers);
    for (unsigned i = 0; i < rt->n_processes; i++)
        process_up(&rt->processes[i]);
    runtime_settle(rt);
    return rt;
}

void runtime_destroy(struct runtime **rt_p)
{
    struct runtime *rt = *rt_p;
    for (uint64_t id = 1; id <= rt->n_clients; id++)
        rt->clients[id].handler = (struct client_handler){0};
    for (unsigned i = 0; i < rt->n_processes; i++) {
        if (rt->processes[i].up)
            process_down(&rt->processes[i]);
        store_mem_destroy(&rt->processes[i].store);
    }
    mem_free(rt);
    *rt_p = NULL;
}

struct tick runtime_now(const struct runtime *rt)
{
    return rt->now;
}

struct rng *runtime_rng(struct runtime *rt)
{
    return &rt->rng;
}

uint64_t runtime_transcript(const struct runtime *rt)
{
    return rt->transcript;
}

/* One packet, of a connection drawn by the seed. */
static bool carry_one(struct runtime *rt)
{
    unsigned first = (unsigned)rng_below(&rt->rng, rt->n_connections);
    for (unsigned i = 0; i < rt->n_connections; i++) {
        struct connection *c = &rt->connections[(first + i) % rt->n_connections];
        if (!c->first)
            continue;
        connection_carry(rt, c);
        return true;
    }
    return false;
}

bool runtime_step(struct runtime *rt)
{
    if (rng_below(&rt->rng, 3) != 0 && carry_one(rt))
        return true;
    bool more = false;
    rt->moved = false;
    for (unsigned i = 0; i < rt->n_processes; i++)
        if (rt->processes[i].up)
            more |= process_turn(&rt->processes[i]);
    return more || rt->moved || carry_one(rt);
}

void runtime_settle(struct runtime *rt)
{
    for (unsigned i = 0; runtime_step(rt); i++)
        ck_assert_msg(i < 1000000, "the world does not come to rest");
}

void runtime_pass_ms(struct runtime *rt, int64_t ms)
{
    while (ms > 0) {
        int64_t step = ms < 20 ? ms : 20;
        rt->now.mono_ns += step * NS_PER_MS;
        rt->now.wall_ms += step;
        ms -= step;
        runtime_settle(rt);
    }
}

void runtime_kill(struct runtime *rt, enum process_kind kind, unsigned index)
{
    process_down(process_of(rt, kind, index));
}

void runtime_start(struct runtime *rt, enum process_kind kind, unsigned index)
{
    process_up(process_of(rt, kind, index));
}

bool runtime_is_up(const struct runtime *rt, enum process_kind kind, unsigned index)
{
    return process_of(rt, kind, index)->up;
}

void runtime_fill_disk(struct runtime *rt, unsigned shard, unsigned nth)
{
    store_mem_fill(process_of(rt, SHARD, shard)->store, nth);
}
