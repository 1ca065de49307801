/* libstoa's publisher against the real cores of routers and shards, while wires break, packets are
 * lost, processes die and disks fill up, all drawn from a seed. What the shards have stored at the
 * end is compared with what the publisher was told. */
#include "client_net.h"
#include "common/rng.h"
#include "router/router.h"
#include "shard/shard.h"
#include "shard/store_mem.h"

#define PUBLISHER 0
#define N_ROUTERS 2
#define ROUTER(i) (1 + (i))
#define N_SHARDS 2
#define SHARD(i) (1 + N_ROUTERS + (i))
#define N_KEYS 6
#define PUBLISHES 600
#define PARTS_MAX 4
#define SLOT_SEED 42
#define SEEDS 80

struct story { /* one publish */
    unsigned key, parts;
    unsigned stored; /* events of it that the shards have */
    uint64_t seq;    /* of its last event there */
    unsigned first;  /* the publish whose idempotency key it uses; itself: its own */
    bool shared;     /* others use its key */
    bool ephemeral;
    bool ended;
    int status;
    stoa_id id;
};

static struct publisher *publisher;
static struct router *routers[N_ROUTERS];
static struct shard *shards[N_SHARDS];
static struct store *stores[N_SHARDS];
static struct metrics *metrics;
static struct rng rng;
static uint64_t boots;
static struct story stories[PUBLISHES];
static unsigned n_stories, n_ended;

static bool chance(unsigned of_thousand)
{
    return rng_below(&rng, 1000) < of_thousand;
}

static unsigned draw(unsigned bound)
{
    return (unsigned)rng_below(&rng, bound);
}

/* ---- processes ---- */

static void router_start(unsigned i)
{
    static const char *const endpoints[N_SHARDS] = {"mem://0", "mem://1"};
    const struct router_options options = {.self = net_self(ROLE_ROUTER, ROUTER(i), ++boots),
                                           .slot_seed = SLOT_SEED,
                                           .n_shards = N_SHARDS,
                                           .shard_endpoints = endpoints,
                                           .seed = rng_u64(&rng)};
    const struct hub_ports ports = net_ports(ROUTER(i));
    routers[i] = router_create(&options, &ports, NULL, metrics);
    net_hubs[ROUTER(i)] = router_hub(routers[i]);
}

static void router_kill(unsigned i)
{
    net_down(ROUTER(i));
    router_destroy(&routers[i]);
}

static void shard_start(unsigned i)
{
    static const struct shard_type type = {.name = "events"};
    unsigned share = SLOT_COUNT / N_SHARDS;
    const struct shard_options options = {.self = net_self(ROLE_SHARD, SHARD(i), ++boots),
                                          .slot_seed = SLOT_SEED,
                                          .types = &type,
                                          .n_types = 1,
                                          .grant = true,
                                          .grant_lo = (uint16_t)(i * share),
                                          .grant_hi = (uint16_t)((i + 1) * share - 1),
                                          .seed = rng_u64(&rng),
                                          .payload_max_bytes = PAYLOAD_MAX_BYTES};
    const struct hub_ports ports = net_ports(SHARD(i));
    shards[i] = shard_create(&options, stores[i], &ports, NULL, metrics, now);
    ck_assert_ptr_nonnull(shards[i]);
    net_hubs[SHARD(i)] = shard_hub(shards[i]);
}

static void shard_kill(unsigned i)
{
    net_down(SHARD(i));
    shard_destroy(&shards[i]);
    store_mem_crash(stores[i]);
}

static void publisher_start(void)
{
    const struct publisher_options options = {.self = net_self(ROLE_PUBLISHER, PUBLISHER, ++boots),
                                              .n_routers = N_ROUTERS,
                                              .seed = rng_u64(&rng)};
    const struct hub_ports ports = net_ports(PUBLISHER);
    publisher = publisher_create(&options, &ports, NULL, metrics);
    net_hubs[PUBLISHER] = publisher_hub(publisher);
}

static void world_start(uint64_t seed)
{
    net_begin();
    rng_seed(&rng, seed);
    metrics = metrics_create();
    publisher_start();
    for (unsigned i = 0; i < N_SHARDS; i++) {
        stores[i] = store_mem_create();
        shard_start(i);
    }
    for (unsigned i = 0; i < N_ROUTERS; i++) {
        router_start(i);
        wire_add(PUBLISHER, i + 1, ROUTER(i));
        for (unsigned n = 0; n < N_SHARDS; n++)
            wire_add(ROUTER(i), n + 1, SHARD(n));
    }
}

static void world_end(void)
{
    net_down(PUBLISHER);
    publisher_destroy(&publisher);
    for (unsigned i = 0; i < N_ROUTERS; i++)
        router_kill(i);
    for (unsigned i = 0; i < N_SHARDS; i++) {
        shard_kill(i);
        store_mem_destroy(&stores[i]);
    }
    metrics_destroy(&metrics);
    ck_assert_uint_eq(buf_alive(), 0);
}

/* ---- publishing ---- */

static void submit(void)
{
    unsigned at = n_stories++;
    struct story *y = &stories[at];
    char key[16], name[16], texts[PARTS_MAX][32];
    stoa_slice parts[PARTS_MAX];
    stoa_publish_options o = {.size = sizeof o};
    *y = (struct story){.key = draw(N_KEYS), .parts = 1, .first = at};
    if (at > 0 && chance(60)) { /* again under the name of an earlier one */
        unsigned other = stories[draw(at)].first;
        if (!stories[other].ephemeral) {
            y->first = other;
            y->key = stories[other].key;
            y->parts = stories[other].parts;
            stories[other].shared = true;
        }
    } else if (chance(50)) {
        y->ephemeral = true;
    } else if (chance(150)) {
        y->parts = 2 + draw(PARTS_MAX - 1);
    }
    if (chance(200))
        o.timeout_ms = 100 + (int)draw(4000);
    snprintf(key, sizeof key, "upload:%u", y->key);
    snprintf(name, sizeof name, "name-%u", y->first);
    o.idempotency_key = y->ephemeral ? NULL : name;
    o.ephemeral = y->ephemeral;
    for (unsigned i = 0; i < y->parts; i++) {
        int size = snprintf(texts[i], sizeof texts[i], "%u %u", y->first, i);
        parts[i] = (stoa_slice){texts[i], (size_t)size};
    }
    const struct publish_order order = {.key = slice_text(key),
                                        .parts = parts,
                                        .n_parts = y->parts,
                                        .options = &o,
                                        .default_timeout_ms = 3600 * 1000};
    ck_assert_int_eq(publish_check(&order), STOA_OK);
    struct publish *p = publish_create(&order);
    p->arg = y;
    publisher_submit(publisher, p, now);
}

static void collect(void)
{
    struct list *list = publisher_done(publisher);
    while (!list_empty(list)) {
        struct publish *p = LIST_ENTRY(list->next, struct publish, node);
        struct story *y = p->arg;
        list_remove(&p->node);
        ck_assert(!y->ended);
        y->ended = true;
        y->status = p->status;
        y->id = p->id;
        n_ended++;
        publish_destroy(p);
    }
}

/* ---- turns ---- */

static void turn_one(unsigned node)
{
    if (node == PUBLISHER) {
        publisher_turn(publisher, now);
        publisher_validate(publisher);
        collect();
    } else if (node < SHARD(0)) {
        router_turn(routers[node - ROUTER(0)], now);
    } else {
        shard_tick(shards[node - SHARD(0)], now);
        (void)shard_turn(shards[node - SHARD(0)], now);
    }
}

static void turn_all(void)
{
    for (unsigned node = 0; node < SHARD(N_SHARDS); node++)
        if (net_hubs[node])
            turn_one(node);
}

static void settle(void)
{
    bool moved;
    do {
        moved = false;
        turn_all();
        for (unsigned i = 0; i < n_wires; i++)
            while (wire_carry(&wires[i]))
                moved = true;
    } while (moved);
}

/* ---- faults ---- */

static void fault(void)
{
    struct wire *w = &wires[draw(n_wires)];
    unsigned router = draw(N_ROUTERS), shard = draw(N_SHARDS);
    switch (draw(6)) {
    case 0:
    case 1:
        wire_cut(w);
        break;
    case 2: /* a packet is lost without a trace */
        if (wire_first(w))
            wire_drop(wire_first(w));
        break;
    case 3:
        if (routers[router])
            router_kill(router);
        break;
    case 4:
        if (shards[shard])
            shard_kill(shard);
        break;
    default:
        store_mem_fill(stores[shard], draw(3));
        break;
    }
}

static void heal(unsigned of_thousand)
{
    for (unsigned i = 0; i < N_ROUTERS; i++)
        if (!routers[i] && chance(of_thousand))
            router_start(i);
    for (unsigned i = 0; i < N_SHARDS; i++) {
        if (chance(of_thousand))
            store_mem_fill(stores[i], 0);
        if (!shards[i] && chance(of_thousand))
            shard_start(i);
    }
    for (unsigned i = 0; i < n_wires; i++)
        if (chance(of_thousand))
            wire_connect(&wires[i]);
}

static void step(void)
{
    if (n_stories < PUBLISHES && chance(250))
        submit();
    if (chance(700))
        (void)wire_carry(&wires[draw(n_wires)]);
    unsigned node = draw(SHARD(N_SHARDS));
    if (net_hubs[node] && chance(700))
        turn_one(node);
    if (chance(100))
        net_pass_ms(1 + draw(30));
    if (chance(4))
        fault();
    heal(10);
}

/* ---- the verdict ---- */

struct inspection {
    struct {
        uint64_t id;
        unsigned key;
    } rooms[N_KEYS];
    unsigned n_rooms;
};

static void see_slot(void *ctx, const struct store_slot *slot)
{
    (void)ctx;
    (void)slot;
}

static void see_room(void *ctx, const struct store_room *room)
{
    struct inspection *in = ctx;
    ck_assert_uint_lt(in->n_rooms, N_KEYS);
    in->rooms[in->n_rooms].id = room->room_id;
    in->rooms[in->n_rooms++].key = room->key.data[room->key.size - 1] - (unsigned)'0';
}

static unsigned key_of(const struct inspection *in, uint64_t room_id)
{
    for (unsigned i = 0; i < in->n_rooms; i++)
        if (in->rooms[i].id == room_id)
            return in->rooms[i].key;
    ck_abort_msg("a record without a room");
    return 0;
}

static void see_record(void *ctx, unsigned class_no, const struct store_record *record)
{
    char text[32];
    unsigned at, part;
    (void)class_no;
    snprintf(text, sizeof text, "%.*s", (int)record->payload.size,
             (const char *)record->payload.data);
    ck_assert_int_eq(sscanf(text, "%u %u", &at, &part), 2);
    struct story *y = &stories[at];
    ck_assert(!y->ephemeral);
    ck_assert_uint_eq(y->key, key_of(ctx, record->room_id));
    ck_assert_uint_eq(part, y->stored); /* in order, and each once */
    ck_assert_uint_lt(part, y->parts);
    ck_assert(part == 0 || record->seq == y->seq + 1);
    y->stored++;
    y->seq = record->seq;
}

static void see_damage(void *ctx, unsigned class_no, uint64_t lsn)
{
    (void)ctx;
    (void)class_no;
    (void)lsn;
    ck_abort();
}

static void inspect(void)
{
    for (unsigned i = 0; i < N_SHARDS; i++) {
        struct inspection in = {0};
        const struct store_visitor visitor = {.ctx = &in,
                                              .slot = see_slot,
                                              .room = see_room,
                                              .record = see_record,
                                              .damaged = see_damage};
        ck_assert_int_eq(stores[i]->vtable->scan(stores[i], &visitor), ERR_OK);
    }
}

static void judge_one(const struct story *y, uint64_t last_seq[N_KEYS])
{
    const struct story *first = &stories[y->first];
    if (y->ephemeral)
        return;
    if (y->status == STOA_OK) {
        ck_assert_uint_eq(first->stored, first->parts); /* nothing acknowledged is lost */
        ck_assert_uint_eq(y->id.seq, first->seq);
    } else if (!y->shared && first == y && y->status != STOA_UNKNOWN) {
        ck_assert_uint_eq(y->stored, 0); /* certainly not stored */
    }
    ck_assert(y->stored == 0 || y->stored == y->parts);
    if (y->status != STOA_OK || y->shared || first != y)
        return;
    ck_assert_uint_gt(y->seq, last_seq[y->key]); /* as submitted */
    last_seq[y->key] = y->seq;
}

START_TEST(faults_by_seed)
{
    uint64_t last_seq[N_KEYS] = {0};
    unsigned ok = 0;
    world_start((uint64_t)_i + 1);
    heal(1000);
    while (n_stories < PUBLISHES)
        step();
    for (int i = 0; i < 3000; i++)
        step();
    /* from here on nothing breaks, and nobody may be stuck */
    for (int ms = 0; ms < 120000 && publisher_pending(publisher) > 0; ms += 20) {
        heal(1000);
        net_pass_ms(20);
        settle();
    }
    ck_assert_uint_eq(publisher_pending(publisher), 0);
    ck_assert_uint_eq(n_ended, PUBLISHES);
    inspect();
    for (unsigned i = 0; i < PUBLISHES; i++) {
        judge_one(&stories[i], last_seq);
        ok += stories[i].status == STOA_OK;
    }
    ck_assert_uint_gt(ok, PUBLISHES / 2); /* else the seed shows little */
    world_end();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("client_random");
    TCase *t = tcase_create("random");
    tcase_add_loop_test(t, faults_by_seed, 0, SEEDS);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
