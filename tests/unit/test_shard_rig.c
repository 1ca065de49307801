/* The rig of test_shard_*.c (test_shard_rig.h). */
#include "test_shard_rig.h"

#define CLUSTER 0xc1u

/* ---- transport ---- */

static int shard_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct rig *rig = ctx;
    for (size_t i = 0; i < RIG_CLIENTS; i++) {
        struct rig_client *c = &rig->clients[i];
        if (c->hub && c->connected && c->peer == peer)
            *VEC_PUSH(&c->inbox, struct buf *) = buf_copy(packet, size);
    }
    return ERR_OK;
}

static void shard_forget(void *ctx, uint32_t peer)
{
    struct rig *rig = ctx;
    for (size_t i = 0; i < RIG_CLIENTS; i++) {
        if (rig->clients[i].peer == peer)
            rig->clients[i].peer = 0;
    }
}

static int client_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct rig_client *c = ctx;
    (void)peer;
    *VEC_PUSH(&c->rig->to_shard, struct rig_packet) =
        (struct rig_packet){.from = c, .bytes = buf_copy(packet, size)};
    return ERR_OK;
}

static void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    (void)ctx;
    (void)peer;
    (void)info;
}

static void on_down(void *ctx, uint32_t peer)
{
    (void)ctx;
    (void)peer;
}

static void on_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    struct rig_client *c = ctx;
    (void)peer;
    struct got *g = VEC_PUSH(&c->got, struct got);
    *g = (struct got){.m = *m, .packet = buf_ref(packet)};
    struct events_list *items = m->type == MSG_DELIVER  ? &g->m.deliver.items
                                : m->type == MSG_REPLAY ? &g->m.replay.items
                                                        : NULL;
    if (items) {
        g->list = mem_dup(items->at, items->count * sizeof *items->at);
        items->at = g->list;
    } else if (m->type == MSG_RESYNC) {
        g->list = mem_dup(m->resync.rooms.at, m->resync.rooms.count * sizeof(struct mark));
        g->m.resync.rooms.at = g->list;
    } else if (m->type == MSG_CLAIM) {
        g->list = mem_dup(m->claim.slots.at, m->claim.slots.count * sizeof(struct slot_range));
        g->m.claim.slots.at = g->list;
    }
}

static void no_line(void *ctx, const char *line, size_t size)
{
    (void)ctx;
    if (getenv("RIG_LOG"))
        fwrite(line, 1, size, stderr);
}

/* ---- life ---- */

void rig_start(struct rig *rig)
{
    struct shard_options options = {.self = {.role = ROLE_SHARD,
                                             .boot = ++rig->boots,
                                             .cluster = CLUSTER,
                                             .name = "shard-0",
                                             .version = "test"},
                                    .slot_seed = RIG_SEED,
                                    .types = rig->types,
                                    .n_types = rig->n_types,
                                    .grant = true,
                                    .grant_lo = 0,
                                    .grant_hi = SLOT_COUNT - 1,
                                    .seed = rig->boots * 1000,
                                    .payload_max_bytes = PAYLOAD_MAX_BYTES,
                                    .suspects = rig->suspects,
                                    .n_suspects = rig->n_suspects,
                                    .watch = rig->watch};
    struct hub_ports ports = {.ctx = rig, .send = shard_send, .forget = shard_forget};
    rig->metrics = metrics_create();
    rig->shard = shard_create(&options, rig->store, &ports, &rig->log, rig->metrics, rig->now);
    shard_validate(rig->shard);
    for (size_t i = 0; i < RIG_CLIENTS; i++) {
        struct rig_client *c = &rig->clients[i];
        if (!c->hub || !c->connected)
            continue;
        c->peer = 0;
        hub_disconnected(c->hub, 1, rig->now);
        hub_connected(c->hub, 1, rig->now);
    }
}

static void drop_packets(struct rig *rig)
{
    for (size_t i = 0; i < rig->to_shard.count; i++)
        buf_unref(VEC_AT(&rig->to_shard, struct rig_packet)[i].bytes);
    rig->to_shard.count = 0;
    for (size_t c = 0; c < RIG_CLIENTS; c++) {
        struct vec *inbox = &rig->clients[c].inbox;
        for (size_t i = 0; i < inbox->count; i++)
            buf_unref(VEC_AT(inbox, struct buf *)[i]);
        inbox->count = 0;
    }
}

void rig_stop(struct rig *rig)
{
    shard_destroy(&rig->shard);
    metrics_destroy(&rig->metrics);
    store_mem_crash(rig->store);
    drop_packets(rig);
}

void rig_crash(struct rig *rig)
{
    rig_stop(rig);
    rig_start(rig);
    rig_pump(rig);
}

struct rig *rig_create(const struct shard_type *types, size_t n_types)
{
    static const struct shard_type usual = {.name = "events",
                                            .retention = {HOUR_MS, 10000, 16 * MIB}};
    struct rig *rig = mem_zalloc(sizeof *rig);
    rig->now = (struct tick){.mono_ns = NS_PER_S, .wall_ms = INT64_C(1750000000000)};
    rig->log = (struct log){.level = LOG_DEBUG, .write = no_line};
    rig->client_metrics = metrics_create();
    rig->n_types = n_types ? n_types : 1;
    memcpy(rig->types, n_types ? types : &usual, rig->n_types * sizeof usual);
    rig->store = store_mem_create();
    rig_start(rig);
    return rig;
}

void rig_destroy(struct rig *rig)
{
    rig_stop(rig);
    for (size_t i = 0; i < RIG_CLIENTS; i++) {
        struct rig_client *c = &rig->clients[i];
        rig_forget(c);
        hub_destroy(&c->hub);
        vec_free(&c->inbox);
        vec_free(&c->got);
    }
    drop_packets(rig);
    vec_free(&rig->to_shard);
    metrics_destroy(&rig->client_metrics);
    store_mem_destroy(&rig->store);
    mem_free(rig);
    ck_assert_uint_eq(buf_alive(), 0);
}

static struct rig_client *dial_as(struct rig *rig, enum role role, const char *name)
{
    static const char *const names[] = {"client-0", "client-1", "client-2", "client-3",
                                        "client-4", "client-5", "client-6", "client-7"};
    size_t i = 0;
    while (rig->clients[i].hub)
        i++;
    ck_assert_uint_lt(i, RIG_CLIENTS);
    struct rig_client *c = &rig->clients[i];
    c[0] = (struct rig_client){
        .rig = rig, .role = role, .name = name ? name : names[i], .connected = true};
    struct hub_self self = {
        .role = role, .boot = 100 + i, .cluster = CLUSTER, .name = c->name, .version = "test"};
    struct hub_handler handler = {
        .ctx = c, .on_up = on_up, .on_down = on_down, .on_message = on_message};
    struct hub_ports ports = {.ctx = c, .send = client_send};
    c->hub = hub_create(&self, &handler, &ports, &rig->log, rig->client_metrics, 50 + i);
    ck_assert_uint_eq(hub_dial(c->hub), 1);
    hub_connected(c->hub, 1, rig->now);
    rig_pump(rig);
    return c;
}

struct rig_client *rig_dial(struct rig *rig, enum role role)
{
    return dial_as(rig, role, NULL);
}

void rig_kill(struct rig_client *c)
{
    c->dead = c->deaf = true;
    c->connected = false;
}

struct rig_client *rig_namesake(const struct rig_client *c)
{
    return dial_as(c->rig, c->role, c->name);
}

struct rig_client *rig_connect(struct rig *rig, enum role role)
{
    struct rig_client *c = rig_dial(rig, role);
    ck_assert(hub_is_up(c->hub, 1));
    return c;
}

void rig_disconnect(struct rig_client *c)
{
    hub_goodbye(c->hub, c->rig->now);
    rig_pump(c->rig);
    c->connected = false;
}

/* ---- movement ---- */

void rig_feed(struct rig *rig)
{
    for (size_t i = 0; i < RIG_CLIENTS; i++) {
        if (rig->clients[i].hub && !rig->clients[i].dead)
            hub_flush(rig->clients[i].hub, rig->now);
    }
    shard_tick(rig->shard, rig->now);
    for (size_t i = 0; i < rig->to_shard.count; i++) {
        struct rig_packet p = VEC_AT(&rig->to_shard, struct rig_packet)[i];
        if (p.from->peer == 0)
            p.from->peer = hub_accept(shard_hub(rig->shard), 0, rig->now);
        hub_packet(shard_hub(rig->shard), p.from->peer, p.bytes, rig->now);
        buf_unref(p.bytes);
    }
    rig->to_shard.count = 0;
}

static bool clients_receive(struct rig *rig)
{
    bool moved = false;
    for (size_t c = 0; c < RIG_CLIENTS; c++) {
        struct rig_client *client = &rig->clients[c];
        for (size_t i = 0; !client->deaf && i < client->inbox.count; i++) {
            struct buf *b = VEC_AT(&client->inbox, struct buf *)[i];
            hub_packet(client->hub, 1, b, rig->now);
            buf_unref(b);
            moved = true;
        }
        if (!client->deaf)
            client->inbox.count = 0;
        if (client->hub && !client->dead) {
            hub_tick(client->hub, rig->now);
            hub_flush(client->hub, rig->now);
        }
    }
    return moved;
}

void rig_pump(struct rig *rig)
{
    for (bool moved = true; moved;) {
        rig_feed(rig);
        moved = shard_turn(rig->shard, rig->now);
        shard_validate(rig->shard);
        moved |= clients_receive(rig);
        moved |= rig->to_shard.count > 0;
    }
}

void rig_wait(struct rig *rig, int64_t ms)
{
    while (ms > 0) {
        int64_t step = ms < 500 ? ms : 500;
        rig->now.mono_ns += step * NS_PER_MS;
        rig->now.wall_ms += step;
        ms -= step;
        rig_pump(rig);
    }
}

void rig_jump(struct rig *rig, int64_t ms)
{
    rig->now.wall_ms += ms;
    /* So little that no link dies, yet enough for the next look at what is old. */
    for (int i = 0; i < 12; i++) {
        rig->now.mono_ns += NS_PER_S;
        rig_pump(rig);
    }
}

/* ---- saying ---- */

uint64_t rig_send(struct rig_client *c, struct message m)
{
    m.cid = ++c->last_cid;
    hub_send(c->hub, 1, &m);
    return m.cid;
}

void rig_id(uint8_t out[16], uint64_t id)
{
    memset(out, 0, 16);
    memcpy(out, &id, sizeof id);
}

uint64_t rig_publish(struct rig_client *c, struct rig_pub p)
{
    struct slice one = slice_text(p.text ? p.text : "");
    struct message m = {
        .type = MSG_PUB, .slot = p.slot ? p.slot : SLOT_UNKNOWN, .key = slice_text(p.key)};
    m.ep = p.ep;
    rig_id(m.pub.msg_id, p.id);
    m.pub.pid = p.pid;
    m.pub.pseq = p.pseq;
    m.pub.flags = (p.ephemeral ? PUB_EPHEMERAL : 0) | (p.typed ? PUB_TYPED : 0);
    m.pub.conflate = slice_text(p.conflate ? p.conflate : "");
    m.pub.filter = p.filter;
    m.pub.ts = p.ts ? p.ts : c->rig->now.wall_ms;
    m.pub.payloads.at = p.count ? p.at : &one;
    m.pub.payloads.count = p.count ? p.count : 1;
    return rig_send(c, m);
}

void rig_sub(struct rig_client *c, const char *key)
{
    struct message m = {.type = MSG_SUB, .slot = SLOT_UNKNOWN, .key = slice_text(key)};
    uint64_t cid = rig_send(c, m);
    rig_pump(c->rig);
    ck_assert_int_eq((int)rig_answer(c, cid)->m.type, MSG_SUBACK);
}

/* ---- hearing ---- */

const struct got *rig_answer(const struct rig_client *c, uint64_t cid)
{
    for (size_t i = c->got.count; i-- > 0;) {
        const struct got *g = &VEC_AT(&c->got, struct got)[i];
        if (g->m.cid == cid && g->m.type != MSG_ASK)
            return g;
    }
    return NULL;
}

const struct message *rig_ask(struct rig_client *c, struct rig_pub p)
{
    uint64_t cid = rig_publish(c, p);
    rig_pump(c->rig);
    const struct got *g = rig_answer(c, cid);
    return g ? &g->m : NULL;
}

const struct message *rig_replay(struct rig_client *c, const char *key, struct msg_replay_req req)
{
    struct message m = {.type = MSG_REPLAY_REQ, .slot = SLOT_UNKNOWN, .key = slice_text(key)};
    m.replay_req = req;
    uint64_t cid = rig_send(c, m);
    rig_pump(c->rig);
    const struct got *g = rig_answer(c, cid);
    return g ? &g->m : NULL;
}

void rig_forget(struct rig_client *c)
{
    for (size_t i = 0; i < c->got.count; i++) {
        struct got *g = &VEC_AT(&c->got, struct got)[i];
        buf_unref(g->packet);
        mem_free(g->list);
    }
    c->got.count = 0;
}

const struct message *rig_nth(const struct rig_client *c, uint64_t type, size_t nth)
{
    for (size_t i = 0; i < c->got.count; i++) {
        const struct got *g = &VEC_AT(&c->got, struct got)[i];
        if (g->m.type == type && nth-- == 0)
            return &g->m;
    }
    return NULL;
}

size_t rig_count(const struct rig_client *c, uint64_t type)
{
    size_t count = 0;
    while (rig_nth(c, type, count))
        count++;
    return count;
}

static char text[1 << 16];

static size_t put_items(size_t at, const struct events_list *items)
{
    for (size_t i = 0; i < items->count; i++) {
        const struct event_item *item = &items->at[i];
        int n = snprintf(text + at, sizeof text - at, "%s%llu%s:%.*s", at ? " " : "",
                         (unsigned long long)item->seq, item->flags & EVENT_EPHEMERAL ? "e" : "",
                         SLICE_FMT(item->payload));
        at += (size_t)n;
    }
    return at;
}

const char *rig_items(const struct events_list *items)
{
    text[0] = 0;
    (void)put_items(0, items);
    return text;
}

const char *rig_delivered(const struct rig_client *c, const char *key)
{
    size_t at = 0;
    text[0] = 0;
    for (size_t i = 0; i < c->got.count; i++) {
        const struct message *m = &VEC_AT(&c->got, struct got)[i].m;
        if (m->type == MSG_DELIVER && slice_is(m->key, key))
            at = put_items(at, &m->deliver.items);
    }
    return text;
}

double rig_metric(struct rig *rig, const char *name, const char *labels)
{
    return metric_value(metrics_counter(rig->metrics, name, labels, ""));
}

int rig_run(const char *name, const TTest *const *tests, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
