/* Seeded random steps against a simple model: publishes with retries and lost answers, crashes at
 * any point, full disks, time. The model is what a client knows: which messages were acknowledged
 * and at which seq. Checked all the while:
 *   an acknowledged message is in the log at its seq, or below the floor that the shard tells
 *   no message is in the log twice; seqs have no holes; order within a publisher holds
 *   a subscriber that follows DELIVER, RESYNC and REPLAY has exactly the log */
#include "test_shard_rig.h"

#define KEYS 5
#define EVENTS_MAX 20000
#define STEPS 3000

struct sent { /* by id */
    unsigned key;
    uint32_t count;
    uint64_t pid, pseq;
    uint64_t cid;   /* of the latest try */
    uint64_t acked; /* last seq, 0: not */
    int64_t ts;
    bool closed; /* STALE: never tried again */
};

struct follower { /* a gateway's view of one room */
    uint64_t epoch, seq;
    uint64_t ids[EVENTS_MAX]; /* by seq: payload as a number, 0: not seen */
    uint64_t missed_to;
};

static struct rig *rig;
static struct rig_client *router, *gateway;
static struct rng rng;
static struct sent sent[EVENTS_MAX];
static uint64_t n_sent;
static struct follower follow[KEYS];
static uint64_t next_pseq[KEYS], pid[KEYS], pids;
static const char *const keys[KEYS] = {"a", "b", "c:1", "long:d", "few:e"};

static void try_send(uint64_t id)
{
    struct sent *s = &sent[id];
    char text[3][32];
    struct slice parts[3];
    for (uint32_t i = 0; i < s->count; i++) {
        snprintf(text[i], sizeof text[i], "%llu", (unsigned long long)(id * 4 + i));
        parts[i] = slice_text(text[i]);
    }
    s->cid = rig_publish(router, (struct rig_pub){.key = keys[s->key],
                                                  .at = parts,
                                                  .count = s->count,
                                                  .id = id,
                                                  .pid = s->pid,
                                                  .pseq = s->pseq,
                                                  .ts = s->ts,
                                                  .conflate = id % 3 ? NULL : "c"});
}

static void send_new(void)
{
    if (n_sent + 1 >= EVENTS_MAX / 4)
        return;
    uint64_t id = ++n_sent;
    unsigned key = (unsigned)rng_below(&rng, KEYS);
    sent[id] = (struct sent){
        .key = key, .count = 1 + (uint32_t)rng_below(&rng, 3), .ts = rig->now.wall_ms};
    if (rng_below(&rng, 2)) {
        sent[id].pid = pid[key];
        sent[id].pseq = ++next_pseq[key];
    }
    try_send(id);
}

/* As libstoa: a publisher whose order the shard does not know any more takes a new pid and gives
 * its unacknowledged messages new places. */
static void new_pid(unsigned key)
{
    pid[key] = ++pids;
    next_pseq[key] = 0;
    for (uint64_t id = 1; id <= n_sent; id++) {
        struct sent *s = &sent[id];
        if (s->key == key && s->pid && !s->acked && !s->closed) {
            s->pid = pid[key];
            s->pseq = ++next_pseq[key];
        }
    }
}

static void hear_answer(const struct message *m)
{
    for (uint64_t id = n_sent; id > 0; id--) {
        struct sent *s = &sent[id];
        if (s->cid != m->cid)
            continue;
        if (m->type == MSG_PACK) {
            ck_assert_uint_eq(m->pack.count, s->count);
            ck_assert(!s->acked || s->acked == m->pack.seq);
            s->acked = m->pack.seq;
        } else if (m->nack.code == NACK_STALE) {
            s->closed = true;
        } else if (m->nack.code == NACK_ORDER && rng_below(&rng, 8) == 0) {
            new_pid(s->key);
        }
        return;
    }
}

static unsigned key_index(struct slice key)
{
    unsigned k = 0;
    while (!slice_is(key, keys[k]))
        k++;
    return k;
}

static void pull(unsigned k)
{
    struct message m = {.type = MSG_REPLAY_REQ, .slot = SLOT_UNKNOWN, .key = slice_text(keys[k])};
    m.replay_req.epoch = follow[k].epoch;
    m.replay_req.after = follow[k].seq;
    m.replay_req.max_items = 1 + rng_below(&rng, 20);
    (void)rig_send(gateway, m);
}

static void take_items(struct follower *f, const struct events_list *items)
{
    for (size_t i = 0; i < items->count; i++) {
        const struct event_item *item = &items->at[i];
        if (item->flags & EVENT_EPHEMERAL)
            ck_assert(item->prev == item->seq && item->seq == f->seq);
        if (item->seq <= f->seq)
            continue;
        ck_assert_uint_eq(item->prev, f->seq);
        ck_assert_uint_eq(item->seq, f->seq + 1);
        char number[32] = {0};
        memcpy(number, item->payload.data, item->payload.size);
        f->ids[item->seq] = strtoull(number, NULL, 10);
        f->seq = item->seq;
    }
}

static void hear_gateway(const struct message *m)
{
    if (m->type == MSG_RESYNC) {
        for (size_t i = 0; i < m->resync.rooms.count; i++)
            pull(key_index(m->resync.rooms.at[i].key));
        return;
    }
    if (m->type != MSG_DELIVER && m->type != MSG_REPLAY)
        return;
    unsigned k = key_index(m->key);
    struct follower *f = &follow[k];
    if (m->type == MSG_DELIVER) {
        if (f->epoch == 0 && f->seq == 0)
            f->epoch = m->deliver.room_epoch;
        ck_assert_uint_eq(f->epoch, m->deliver.room_epoch); /* no damage here, so one history */
        if (m->deliver.items.at[0].prev > f->seq)
            pull(k);
        else
            take_items(f, &m->deliver.items);
        return;
    }
    if (m->replay.room_epoch == 0)
        return;
    f->epoch = m->replay.room_epoch;
    ck_assert_uint_ne(m->replay.miss_reason, MISS_EPOCH);
    if (m->replay.miss_to > f->seq)
        f->seq = f->missed_to = m->replay.miss_to;
    take_items(f, &m->replay.items);
    if (!m->replay.eof)
        pull(k);
}

static void hear(void)
{
    for (size_t i = 0; i < router->got.count; i++)
        hear_answer(&VEC_AT(&router->got, struct got)[i].m);
    rig_forget(router);
    for (size_t i = 0; i < gateway->got.count; i++)
        hear_gateway(&VEC_AT(&gateway->got, struct got)[i].m);
    rig_forget(gateway);
}

static void subscribe_all(uint64_t full)
{
    struct mark marks[KEYS];
    for (unsigned k = 0; k < KEYS; k++)
        marks[k] = (struct mark){
            .key = slice_text(keys[k]), .epoch = follow[k].epoch, .seq = follow[k].seq};
    struct message m = {.type = MSG_SUBSYNC, .slot = SLOT_UNKNOWN};
    m.subsync.full = full;
    m.subsync.rooms.at = marks;
    m.subsync.rooms.count = KEYS;
    (void)rig_send(gateway, m);
}

static void retry_some(void)
{
    for (uint64_t id = n_sent > 200 ? n_sent - 200 : 1; id <= n_sent; id++) {
        if (!sent[id].closed && rng_below(&rng, sent[id].acked ? 40 : 2) == 0)
            try_send(id);
    }
}

static void crash(void)
{
    if (rng_below(&rng, 2))
        rig_feed(rig); /* with full FIFOs */
    rig_crash(rig);
    subscribe_all(2);
}

static void advance(int64_t ms)
{
    int64_t mono = 300;
    rig->now.wall_ms += ms;
    rig->now.mono_ns += mono * NS_PER_MS;
}

static void step(void)
{
    uint64_t what = rng_below(&rng, 100);
    if (what < 60) {
        for (uint64_t n = rng_below(&rng, 4); n > 0; n--)
            send_new();
    } else if (what < 62) {
        (void)rig_publish(
            router,
            (struct rig_pub){.key = keys[rng_below(&rng, KEYS)], .text = "0", .ephemeral = true});
    } else if (what < 75) {
        retry_some();
    } else if (what < 78) {
        crash();
    } else if (what < 80) {
        store_mem_fill(rig->store, 1 + (unsigned)rng_below(&rng, 3));
    } else if (what < 86) {
        store_mem_fill(rig->store, 0);
    } else if (what < 88) {
        advance((int64_t)rng_below(&rng, 4 * MINUTE_MS));
    } else if (what < 89) {
        struct message m = {.type = MSG_PURGE, .slot = SLOT_UNKNOWN};
        m.key = slice_text(keys[rng_below(&rng, KEYS)]);
        (void)rig_send(gateway, m);
    } else if (what < 94) {
        subscribe_all(0);
    } else {
        advance((int64_t)rng_below(&rng, 5000));
    }
    if (rng_below(&rng, 3))
        rig_pump(rig);
    hear();
}

static void settle(void)
{
    store_mem_fill(rig->store, 0);
    for (int round = 0; round < 10; round++) {
        advance(1000);
        for (uint64_t id = 1; id <= n_sent; id++) {
            if (!sent[id].acked && !sent[id].closed && sent[id].pid == 0)
                try_send(id);
        }
        subscribe_all(2);
        rig_pump(rig);
        hear();
        rig_pump(rig);
        hear();
    }
}

static void check_follower(unsigned k)
{
    const struct follower *f = &follow[k];
    static bool seen[EVENTS_MAX];
    memset(seen, 0, sizeof seen);
    for (uint64_t seq = 1; seq <= f->seq; seq++) {
        uint64_t number = f->ids[seq];
        if (number == 0)
            continue; /* in a range that was told as missed */
        ck_assert_msg(!seen[number], "event %llu twice in %s", (unsigned long long)number, keys[k]);
        seen[number] = true;
        const struct sent *s = &sent[number / 4];
        ck_assert_uint_eq(s->key, k);
        if (s->acked)
            ck_assert_uint_eq(seq, s->acked - s->count + 1 + number % 4);
        if (number % 4 > 0 && f->ids[seq - 1])
            ck_assert_uint_eq(f->ids[seq - 1], number - 1); /* a batch stays together */
    }
    for (uint64_t id = 1; id <= n_sent; id++) {
        const struct sent *s = &sent[id];
        if (s->key == k && s->acked)
            ck_assert(f->ids[s->acked] == id * 4 + s->count - 1 || s->acked <= f->missed_to);
    }
}

static void run(uint64_t seed)
{
    struct shard_type types[] = {{.name = "events", .retention = {10 * MINUTE_MS, 400, 0}},
                                 {.name = "c", .retention = {MINUTE_MS, 0, 900}},
                                 {.name = "long", .retention = {0, 0, 0}},
                                 {.name = "few", .retention = {8 * HOUR_MS, 20, 0}}};
    rng_seed(&rng, seed);
    rig = rig_create(types, 4);
    router = rig_connect(rig, ROLE_ROUTER);
    gateway = rig_connect(rig, ROLE_GATEWAY);
    memset(sent, 0, sizeof sent);
    memset(follow, 0, sizeof follow);
    n_sent = 0;
    for (unsigned k = 0; k < KEYS; k++) {
        pid[k] = ++pids;
        next_pseq[k] = 0;
    }
    subscribe_all(2);
    for (int i = 0; i < STEPS; i++)
        step();
    settle();
    uint64_t acked = 0;
    for (uint64_t id = 1; id <= n_sent; id++) {
        acked += sent[id].acked != 0;
        /* Liveness: without an order to keep, every retry ends in an answer. */
        ck_assert(sent[id].acked || sent[id].closed || sent[id].pid);
    }
    ck_assert_uint_gt(acked, n_sent / 4);
    for (unsigned k = 0; k < KEYS; k++)
        check_follower(k);
    rig_destroy(rig);
}

START_TEST(random_steps_keep_the_promises)
{
    run(1000 + (uint64_t)_i);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shard_random");
    TCase *tcase = tcase_create("shard_random");
    tcase_add_loop_test(tcase, random_steps_keep_the_promises, 0, 6);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
