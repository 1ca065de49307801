/* The scan at start: what a crash keeps, and what damaged records cost. */
#include "test_shard_rig.h"

static struct rig *rig;
static struct rig_client *g;

static void begin(void)
{
    rig = rig_create(NULL, 0);
    g = rig_connect(rig, ROLE_GATEWAY);
}

static const struct message *publish(const char *key, const char *text, uint64_t id)
{
    return rig_ask(g, (struct rig_pub){.key = key, .text = text, .id = id});
}

static uint64_t epoch_of(const char *key)
{
    return rig_replay(g, key, (struct msg_replay_req){.last = 1})->replay.room_epoch;
}

static const struct message *from_start(const char *key)
{
    return rig_replay(g, key, (struct msg_replay_req){0});
}

START_TEST(everything_committed_is_there_again)
{
    begin();
    for (uint64_t i = 1; i <= 5; i++)
        (void)publish(i % 2 ? "odd" : "even", "x", i);
    uint64_t odd = epoch_of("odd"), even = epoch_of("even");
    ck_assert_uint_ne(odd, even);
    (void)rig_publish(g, (struct rig_pub){.key = "odd", .text = "queued"});
    rig_feed(rig); /* dies with this in the FIFO */
    rig_crash(rig);
    ck_assert_uint_eq(epoch_of("odd"), odd);
    ck_assert_uint_eq(epoch_of("even"), even);
    ck_assert_str_eq(rig_items(&from_start("odd")->replay.items), "1:x 2:x 3:x");
    ck_assert_str_eq(rig_items(&from_start("even")->replay.items), "1:x 2:x");
    ck_pack(publish("odd", "y", 9), 4, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(a_hole_costs_the_room_that_has_it_only)
{
    begin();
    for (uint64_t i = 1; i <= 3; i++) { /* lsn 1 3 5 and 2 4 6 */
        (void)publish("a", "x", i);
        rig->now.wall_ms += 10;
        (void)publish("b", "x", i);
    }
    int64_t sent = rig->now.wall_ms;
    uint64_t a = epoch_of("a"), b = epoch_of("b");
    store_mem_damage(rig->store, 0, 3);
    rig_crash(rig);
    ck_assert_uint_eq(epoch_of("a"), a);
    ck_assert_uint_eq(epoch_of("b"), b);
    ck_assert_str_eq(rig_items(&from_start("b")->replay.items), "1:x 2:x 3:x");
    const struct message *m = from_start("a");
    ck_assert_str_eq(rig_items(&m->replay.items), "3:x");
    ck_assert_uint_eq(m->replay.miss_reason, MISS_EPOCH);
    ck_assert_uint_eq(m->replay.miss_to, 2);
    /* Was it stored? The record that would say so is damaged: unknown, never twice. */
    ck_nack(rig_ask(g, (struct rig_pub){.key = "a", .text = "x", .id = 2, .ts = sent - 20}),
            NACK_STALE);
    ck_pack(publish("a", "x", 3), 3, 1);
    ck_pack(publish("a", "new", 4), 4, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(a_damaged_newest_record_gives_new_epochs_once)
{
    begin();
    (void)publish("a", "x", 1);
    (void)publish("b", "x", 1);
    (void)publish("a", "y", 2); /* lsn 3 */
    (void)publish("c", "x", 1); /* has a record behind it: proven */
    uint64_t a = epoch_of("a"), b = epoch_of("b"), c = epoch_of("c");
    store_mem_damage(rig->store, 0, 3);
    rig_crash(rig);
    uint64_t a2 = epoch_of("a");
    ck_assert_uint_ne(a2, a); /* seq 2 of the old epoch must not be given out again */
    ck_assert_uint_ne(epoch_of("b"), b);
    ck_assert_uint_eq(epoch_of("c"), c);
    const struct message *m = rig_replay(g, "a", (struct msg_replay_req){.epoch = a, .after = 2});
    ck_assert_uint_eq(m->replay.miss_reason, MISS_EPOCH);
    rig->now.wall_ms += 1; /* what was first sent by the time of the damage is stale */
    (void)publish("a", "after", 3);
    ck_assert_str_eq(rig_items(&from_start("a")->replay.items), "2:after");
    ck_assert_uint_eq(from_start("a")->replay.miss_reason, MISS_EPOCH);
    rig_crash(rig); /* the damaged record is still there; it was dealt with */
    ck_assert_uint_eq(epoch_of("a"), a2);
    ck_assert_uint_eq(epoch_of("c"), c);
    ck_pack(publish("a", "z", 4), 3, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(a_foreign_grant_does_not_come_twice)
{
    begin();
    rig_stop(rig);
    struct store *fresh = store_mem_create();
    store_mem_destroy(&rig->store);
    rig->store = fresh;
    rig_start(rig);
    rig_pump(rig);
    ck_pack(publish("k", "x", 1), 1, 0);
    uint64_t commits = store_mem_commits(rig->store);
    rig_crash(rig);
    ck_assert_uint_eq(store_mem_commits(rig->store), commits);
    ck_pack(publish("k", "x", 2), 2, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(time_goes_on_from_where_the_log_was)
{
    begin();
    (void)publish("k", "x", 1);
    int64_t ts = from_start("k")->replay.items.at[0].ts;
    rig->now.wall_ms -= HOUR_MS;
    rig_crash(rig);
    (void)publish("k", "y", 2);
    const struct message *m = from_start("k");
    ck_assert_int_ge(m->replay.items.at[1].ts, ts);
    rig_destroy(rig);
}
END_TEST

static uint64_t only_room;

static void on_slot(void *ctx, const struct store_slot *slot)
{
    (void)ctx;
    (void)slot;
}
static void on_room(void *ctx, const struct store_room *room)
{
    (void)ctx;
    only_room = room->room_id;
}
static void on_record(void *ctx, unsigned class_no, const struct store_record *record)
{
    (void)ctx;
    (void)class_no;
    (void)record;
}
static void on_damaged(void *ctx, unsigned class_no, uint64_t lsn)
{
    (void)ctx;
    (void)class_no;
    (void)lsn;
}

START_TEST(a_lost_row_is_another_history_without_duplicates)
{
    begin();
    int64_t ts = rig->now.wall_ms;
    (void)publish("k", "x", 1);
    uint64_t epoch = epoch_of("k");
    const struct store_visitor v = {
        .slot = on_slot, .room = on_room, .record = on_record, .damaged = on_damaged};
    ck_assert_int_eq(rig->store->vtable->scan(rig->store, &v), ERR_OK);
    ck_assert_int_eq(rig->store->vtable->begin(rig->store), ERR_OK);
    ck_assert_int_eq(rig->store->vtable->delete_room(rig->store, only_room), ERR_OK);
    ck_assert_int_eq(rig->store->vtable->commit(rig->store), ERR_OK);
    rig->now.wall_ms += 5;
    rig_crash(rig);
    ck_nack(rig_ask(g, (struct rig_pub){.key = "k", .text = "x", .id = 1, .ts = ts}), NACK_STALE);
    ck_pack(publish("k", "y", 2), 1, 0);
    const struct message *m =
        rig_replay(g, "k", (struct msg_replay_req){.epoch = epoch, .after = 1});
    ck_assert_uint_eq(m->replay.miss_reason, MISS_EPOCH);
    ck_assert_uint_ne(m->replay.room_epoch, epoch);
    rig_destroy(rig);
}
END_TEST

START_TEST(classes_are_separate_logs)
{
    struct shard_type types[] = {{.name = "events", .retention = {HOUR_MS, 0, 0}},
                                 {.name = "chat", .retention = {7 * 24 * HOUR_MS, 0, 0}}};
    rig = rig_create(types, 2);
    g = rig_connect(rig, ROLE_GATEWAY);
    (void)publish("chat:1", "x", 1);
    (void)publish("e", "x", 1);
    struct store_stats stats;
    rig->store->vtable->stats(rig->store, &stats);
    ck_assert_uint_eq(stats.records[0], 1);
    ck_assert_uint_eq(stats.records[1], 1);
    rig_jump(rig, 2 * HOUR_MS);
    rig->store->vtable->stats(rig->store, &stats);
    ck_assert_uint_eq(stats.records[0], 0);
    ck_assert_uint_eq(stats.records[1], 1);
    rig_crash(rig);
    ck_assert_str_eq(rig_items(&from_start("chat:1")->replay.items), "1:x");
    ck_pack(publish("chat:1", "x", 1), 1, 1);
    rig_destroy(rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        everything_committed_is_there_again,
        a_hole_costs_the_room_that_has_it_only,
        a_damaged_newest_record_gives_new_epochs_once,
        a_foreign_grant_does_not_come_twice,
        time_goes_on_from_where_the_log_was,
        a_lost_row_is_another_history_without_duplicates,
        classes_are_separate_logs,
    };
    return rig_run("shard_restart", tests, sizeof tests / sizeof *tests);
}
