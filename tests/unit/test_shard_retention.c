/* Retention: exact on reading, physical later, and what dedupe may forget. */
#include "test_shard_rig.h"

static struct rig *rig;
static struct rig_client *g;

static void begin(struct retention retention)
{
    struct shard_type types[] = {{.name = "events", .retention = retention}, {.name = "long"}};
    rig = rig_create(types, 2);
    g = rig_connect(rig, ROLE_GATEWAY);
}

static const struct message *publish(const char *key, const char *text, uint64_t id, int64_t ts)
{
    return rig_ask(g, (struct rig_pub){.key = key, .text = text, .id = id, .ts = ts});
}

static const char *all(const char *key)
{
    return rig_items(&rig_replay(g, key, (struct msg_replay_req){.last = 999})->replay.items);
}

static uint64_t on_disk(void)
{
    struct store_stats stats;
    rig->store->vtable->stats(rig->store, &stats);
    return stats.records[0] + stats.records[1];
}

START_TEST(age_is_exact_on_reading)
{
    begin((struct retention){10 * MINUTE_MS, 0, 0});
    (void)publish("k", "a", 0, 0);
    rig->now.wall_ms += 1;
    (void)publish("k", "b", 0, 0);
    rig->now.wall_ms += 10 * MINUTE_MS - 1;
    ck_assert_str_eq(all("k"), "1:a 2:b");
    rig->now.wall_ms += 1;
    ck_assert_str_eq(all("k"), "2:b");
    rig->now.wall_ms += 1;
    ck_assert_str_eq(all("k"), "");
    /* A clock that runs backwards brings nothing back, and time goes on from where it was. */
    rig->now.wall_ms -= HOUR_MS;
    ck_assert_str_eq(all("k"), "");
    (void)publish("k", "c", 0, 0);
    ck_assert_str_eq(all("k"), "3:c");
    rig_destroy(rig);
}
END_TEST

START_TEST(count_and_bytes_evict)
{
    begin((struct retention){HOUR_MS, 3, 10});
    for (size_t i = 0; i < 5; i++)
        (void)publish("k", "xx", 0, 0);
    ck_assert_str_eq(all("k"), "3:xx 4:xx 5:xx");
    (void)publish("k", "1234567", 0, 0);
    ck_assert_str_eq(all("k"), "5:xx 6:1234567");
    (void)publish("k", "12345678901", 0, 0);
    ck_assert_str_eq(all("k"), "");
    ck_assert_double_eq(metric_value(metrics_gauge(rig->metrics, "stoa_retained_events", "", "")),
                        0);
    rig_crash(rig);
    ck_assert_str_eq(all("k"), "");
    (void)publish("k", "z", 0, 0);
    ck_assert_str_eq(all("k"), "8:z");
    rig_destroy(rig);
}
END_TEST

START_TEST(trimming_by_age_makes_late_retries_stale)
{
    begin((struct retention){MINUTE_MS, 0, 0});
    int64_t sent = rig->now.wall_ms;
    ck_pack(publish("k", "a", 1, sent), 1, 0);
    rig_jump(rig, 5 * MINUTE_MS - 30000); /* expired, but the id's window is five minutes */
    ck_assert_str_eq(all("k"), "");
    ck_pack(publish("k", "a", 1, sent), 1, 1);
    ck_assert_uint_eq(on_disk(), 1);
    rig_jump(rig, MINUTE_MS);
    ck_assert_uint_eq(on_disk(), 0);
    ck_nack(publish("k", "a", 1, sent), NACK_STALE);
    rig_crash(rig);
    ck_nack(publish("k", "a", 1, sent), NACK_STALE);
    /* Any room of the class: nobody knows what an unknown message of that age was. */
    ck_nack(publish("k2", "a", 1, sent), NACK_STALE);
    const struct message *page = rig_replay(g, "k", (struct msg_replay_req){0});
    ck_assert_uint_eq(page->replay.head, 1);
    ck_assert_uint_eq(page->replay.miss_reason, MISS_EXPIRED);
    ck_assert_uint_eq(page->replay.miss_to, 1);
    ck_pack(publish("k", "b", 2, 0), 2, 0); /* the head survived its record */
    rig_destroy(rig);
}
END_TEST

START_TEST(a_hot_room_does_not_keep_what_it_evicted)
{
    begin((struct retention){HOUR_MS, 10, 0});
    int64_t sent = rig->now.wall_ms;
    for (uint64_t i = 1; i <= 100; i++)
        (void)rig_publish(g, (struct rig_pub){.key = "k", .text = "x", .id = i});
    rig_pump(rig);
    (void)publish("quiet", "q", 1, 0);
    rig_jump(rig, 4 * MINUTE_MS);
    ck_assert_uint_eq(on_disk(), 101);
    ck_pack(publish("k", "x", 7, sent), 7, 1); /* evicted, still known */
    rig_jump(rig, MINUTE_MS + 1);
    ck_assert_uint_eq(on_disk(), 11);
    ck_nack(publish("k", "x", 90, sent), NACK_STALE);
    ck_pack(publish("k", "x", 91, sent), 91, 1);
    ck_pack(publish("quiet", "q", 1, sent), 1, 1);
    rig_crash(rig);
    ck_nack(publish("k", "x", 90, sent), NACK_STALE);
    ck_pack(publish("k", "x", 91, sent), 91, 1);
    const struct message *page = rig_replay(g, "k", (struct msg_replay_req){0});
    ck_assert_uint_eq(page->replay.miss_to, 90);
    ck_assert_uint_eq(page->replay.miss_reason, MISS_EVICTED);
    ck_assert_uint_eq(page->replay.items.count, 10);
    rig_destroy(rig);
}
END_TEST

/* While publishes go on, the disk does not grow: trims go with the appends. */
START_TEST(trims_keep_up_with_a_stream)
{
    begin((struct retention){MINUTE_MS, 0, 0});
    uint64_t most = 0;
    for (uint64_t second = 0; second < 1200; second++) {
        rig->now.wall_ms += 1000;
        rig->now.mono_ns += NS_PER_S;
        for (size_t i = 0; i < 3; i++)
            (void)rig_publish(g, (struct rig_pub){.key = i ? "a" : "b", .text = "x"});
        rig_pump(rig);
        most = on_disk() > most ? on_disk() : most;
    }
    ck_assert_uint_le(most, 3 * (5 * 60 + 20));
    ck_assert_uint_ge(most, 3 * 5 * 60);
    rig_destroy(rig);
}
END_TEST

START_TEST(unlimited_types_stay)
{
    begin((struct retention){10 * HOUR_MS, 0, 0}); /* in the long class beside the unlimited one */
    (void)publish("long:1", "keep", 1, 0);
    (void)publish("k", "go", 1, 0);
    rig_jump(rig, 10 * HOUR_MS + 10);
    ck_assert_str_eq(all("long:1"), "1:keep");
    ck_assert_str_eq(all("k"), "");
    ck_assert_uint_eq(on_disk(), 1);
    ck_pack(publish("long:1", "keep", 1, 1), 1, 1);
    rig_crash(rig);
    ck_assert_str_eq(all("long:1"), "1:keep");
    rig_destroy(rig);
}
END_TEST

static struct seen {
    size_t rooms;
} seen;

static void on_slot(void *ctx, const struct store_slot *slot)
{
    (void)ctx;
    (void)slot;
}
static void on_room(void *ctx, const struct store_room *room)
{
    (void)ctx;
    (void)room;
    seen.rooms++;
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

static size_t rows(void)
{
    const struct store_visitor v = {
        .slot = on_slot, .room = on_room, .record = on_record, .damaged = on_damaged};
    seen.rooms = 0;
    ck_assert_int_eq(rig->store->vtable->scan(rig->store, &v), ERR_OK);
    return seen.rooms;
}

START_TEST(rows_of_forgotten_rooms_go)
{
    begin((struct retention){MINUTE_MS, 0, 0});
    int64_t sent = rig->now.wall_ms;
    (void)publish("k", "a", 1, 0);
    (void)publish("watched", "a", 1, 0);
    rig_sub(g, "watched");
    rig_jump(rig, 23 * HOUR_MS);
    ck_assert_uint_eq(rows(), 2);
    rig_jump(rig, 2 * HOUR_MS);
    rig_wait(rig, 11 * MINUTE_MS);
    ck_assert_uint_eq(rows(), 1);
    ck_nack(publish("k", "a", 1, sent), NACK_STALE);
    rig_crash(rig);
    ck_nack(publish("k", "a", 1, sent), NACK_STALE);
    ck_pack(publish("k", "b", 2, 0), 1, 0);
    ck_pack(publish("watched", "b", 2, 0), 2, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(trims_go_on_when_the_disk_is_full)
{
    begin((struct retention){MINUTE_MS, 0, 0});
    for (size_t i = 0; i < 50; i++)
        (void)rig_publish(g, (struct rig_pub){.key = "k", .text = "x"});
    rig_pump(rig);
    store_mem_fill(rig->store, 1);
    ck_nack(publish("k", "y", 0, 0), NACK_DISK);
    ck_assert_str_ne(all("k"), "");
    rig_jump(rig, 10 * MINUTE_MS);
    ck_assert_uint_eq(on_disk(), 0);
    ck_nack(publish("k", "y", 0, 0), NACK_DISK);
    store_mem_fill(rig->store, 0);
    ck_pack(publish("k", "y", 0, 0), 51, 0);
    rig_destroy(rig);
}
END_TEST

/* Publishers that try again all the time must not keep the shard from what makes space for them. */
START_TEST(publishes_that_find_no_space_do_not_hold_trims_up)
{
    begin((struct retention){MINUTE_MS, 0, 0});
    for (size_t i = 0; i < 50; i++)
        (void)publish("k", "x", 0, 0);
    store_mem_fragment(rig->store, true);
    for (int64_t ms = 0; ms < 10 * MINUTE_MS; ms += 250) {
        ck_nack(publish("k", "y", 0, 0), NACK_DISK);
        ck_nack(publish("unborn", "y", 0, 0), NACK_DISK);
        rig_wait(rig, 250);
    }
    ck_assert_uint_eq(on_disk(), 0);
    store_mem_fragment(rig->store, false);
    rig_wait(rig, 1000);
    ck_pack(publish("k", "y", 0, 0), 51, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(a_reload_changes_retention_at_once)
{
    begin((struct retention){HOUR_MS, 100, 0});
    for (size_t i = 0; i < 5; i++)
        (void)publish("k", "x", 0, 0);
    struct shard_type types[] = {{.name = "events", .retention = {8 * HOUR_MS, 2, 0}}};
    shard_retypes(rig->shard, types, 1);
    shard_validate(rig->shard);
    ck_assert_str_eq(all("k"), "4:x 5:x");
    rig_jump(rig, 2 * HOUR_MS); /* born into the short class, kept for the long time */
    ck_assert_str_eq(all("k"), "4:x 5:x");
    rig_destroy(rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        age_is_exact_on_reading,
        count_and_bytes_evict,
        trimming_by_age_makes_late_retries_stale,
        a_hot_room_does_not_keep_what_it_evicted,
        trims_keep_up_with_a_stream,
        unlimited_types_stay,
        rows_of_forgotten_rooms_go,
        trims_go_on_when_the_disk_is_full,
        publishes_that_find_no_space_do_not_hold_trims_up,
        a_reload_changes_retention_at_once,
    };
    return rig_run("shard_retention", tests, sizeof tests / sizeof *tests);
}
