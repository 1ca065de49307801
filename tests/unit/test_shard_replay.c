/* Replay: pages, conflation, and the truth about what is missing. */
#include "test_shard_rig.h"

static struct rig *rig;
static struct rig_client *g;

static void publish(const char *text, const char *conflate)
{
    struct rig_pub p = {.key = "k", .text = text, .conflate = conflate};
    const struct message *m = rig_ask(g, p);
    ck_assert_int_eq((int)m->type, MSG_PACK);
}

static void begin(const struct shard_type *types, size_t n)
{
    rig = rig_create(types, n);
    g = rig_connect(rig, ROLE_GATEWAY);
}

static uint64_t room_epoch(void)
{
    return rig_replay(g, "k", (struct msg_replay_req){.last = 1})->replay.room_epoch;
}

static void check_page(struct msg_replay_req req, const char *items, uint64_t after, bool eof)
{
    const struct message *m = rig_replay(g, "k", req);
    ck_assert_int_eq((int)m->type, MSG_REPLAY);
    ck_assert_str_eq(rig_items(&m->replay.items), items);
    ck_assert_uint_eq(m->replay.after, after);
    ck_assert_uint_eq(m->replay.eof, eof);
    uint64_t prev = m->replay.items.count ? m->replay.items.at[0].prev : 0;
    for (size_t i = 0; i < m->replay.items.count; i++) {
        ck_assert_uint_eq(m->replay.items.at[i].prev, prev);
        prev = m->replay.items.at[i].seq;
    }
}

START_TEST(a_room_without_events_is_empty)
{
    begin(NULL, 0);
    check_page((struct msg_replay_req){0}, "", 0, true);
    const struct message *m = rig_replay(g, "k", (struct msg_replay_req){.epoch = 5, .after = 7});
    ck_assert_uint_eq(m->replay.miss_reason, MISS_EPOCH);
    ck_assert_uint_eq(m->replay.room_epoch, 0);
    ck_assert_uint_eq(m->replay.eof, 1);
    rig_destroy(rig);
}
END_TEST

START_TEST(pages_end_by_items_by_bytes_and_have_one_at_least)
{
    begin(NULL, 0);
    const char *texts[] = {"aa", "bb", "cc", "dd", "ee"};
    for (size_t i = 0; i < 5; i++)
        publish(texts[i], NULL);
    check_page((struct msg_replay_req){.max_items = 2}, "1:aa 2:bb", 2, false);
    check_page((struct msg_replay_req){.max_bytes = 5}, "1:aa 2:bb", 2, false);
    check_page((struct msg_replay_req){.max_bytes = 1}, "1:aa", 1, false);
    uint64_t epoch = room_epoch();
    check_page((struct msg_replay_req){.epoch = epoch, .after = 3}, "4:dd 5:ee", 5, true);
    check_page((struct msg_replay_req){.epoch = epoch, .after = 5}, "", 5, true);
    check_page((struct msg_replay_req){.epoch = epoch, .after = 0}, "1:aa 2:bb 3:cc 4:dd 5:ee", 5,
               true);
    check_page((struct msg_replay_req){.last = 2}, "4:dd 5:ee", 5, true);
    check_page((struct msg_replay_req){.last = 2, .max_items = 1}, "4:dd", 4, false);
    check_page((struct msg_replay_req){.last = 99}, "1:aa 2:bb 3:cc 4:dd 5:ee", 5, true);
    rig_destroy(rig);
}
END_TEST

START_TEST(conflation_keeps_the_newest_in_its_place)
{
    begin(NULL, 0);
    publish("p1", "p");
    publish("a", NULL);
    publish("p2", "p");
    publish("q1", "q");
    publish("p3", "p");
    publish("b", NULL);
    struct msg_replay_req latest = {.mode = REPLAY_LATEST};
    check_page(latest, "2:a 4:q1 5:p3 6:b", 6, true);
    check_page((struct msg_replay_req){.mode = REPLAY_ALL}, "1:p1 2:a 3:p2 4:q1 5:p3 6:b", 6, true);
    latest.max_items = 1;
    check_page(latest, "2:a", 2, false);
    latest.epoch = room_epoch(), latest.after = 2;
    check_page(latest, "4:q1", 4, false); /* 3 is superseded, 4 is next */
    check_page((struct msg_replay_req){.mode = REPLAY_LATEST, .last = 3}, "4:q1 5:p3 6:b", 6, true);
    check_page((struct msg_replay_req){.mode = REPLAY_LATEST, .last = 4}, "2:a 4:q1 5:p3 6:b", 6,
               true);
    rig_crash(rig);
    check_page((struct msg_replay_req){.mode = REPLAY_LATEST}, "2:a 4:q1 5:p3 6:b", 6, true);
    rig_destroy(rig);
}
END_TEST

/* An event is superseded by one for the same readers only: who may not see the newer keeps the
 * older. */
START_TEST(conflation_leaves_each_reader_his_newest)
{
    static const uint8_t to_a[] = {0x81, 0xa2, 't', 'o', 0x91, 0xa1, 'a'},
                         to_b[] = {0x81, 0xa2, 't', 'o', 0x91, 0xa1, 'b'};
    struct rig_pub all = {.key = "k", .conflate = "p"}, a = all, b = all;
    begin(NULL, 0);
    a.filter = slice_of(to_a, sizeof to_a);
    b.filter = slice_of(to_b, sizeof to_b);
    all.text = a.text = b.text = "1";
    rig_ask(g, all);
    rig_ask(g, a);
    rig_ask(g, b);
    all.text = a.text = b.text = "2";
    rig_ask(g, a);
    struct msg_replay_req latest = {.mode = REPLAY_LATEST};
    check_page(latest, "1:1 3:1 4:2", 4, true);
    rig_ask(g, all);
    check_page(latest, "3:1 4:2 5:2", 5, true);
    rig_crash(rig);
    check_page(latest, "3:1 4:2 5:2", 5, true);
    const struct message *m = rig_replay(g, "k", latest);
    ck_assert(slice_equal(m->replay.items.at[0].filter, b.filter));
    ck_assert(slice_equal(m->replay.items.at[1].filter, a.filter));
    ck_assert_uint_eq(m->replay.items.at[2].filter.size, 0);
    rig_destroy(rig);
}
END_TEST

/* A publisher's word that a payload is typed holds for JSON objects alone. */
START_TEST(typed_is_a_flag_of_objects)
{
    static const char *const texts[] = {"{\"json\":1}", " {}", "[1]", "{\"json\":", "x"};
    struct rig_pub p = {.key = "k", .typed = true};
    begin(NULL, 0);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        p.text = texts[i];
        ck_assert_int_eq((int)rig_ask(g, p)->type, MSG_PACK);
    }
    p.typed = false;
    p.text = texts[0];
    rig_ask(g, p);
    const struct message *m = rig_replay(g, "k", (struct msg_replay_req){0});
    for (size_t i = 0; i < m->replay.items.count; i++)
        ck_assert_uint_eq((m->replay.items.at[i].flags & EVENT_TYPED) != 0, i < 2);
    ck_assert_uint_eq(m->replay.items.count, 6);
    rig_destroy(rig);
}
END_TEST

static void check_miss(uint64_t epoch, uint64_t after, uint64_t from, uint64_t to,
                       enum miss_reason reason, const char *items)
{
    const struct message *m =
        rig_replay(g, "k", (struct msg_replay_req){.epoch = epoch, .after = after});
    ck_assert_uint_eq(m->replay.miss_reason, reason);
    ck_assert_uint_eq(m->replay.miss_from, from);
    ck_assert_uint_eq(m->replay.miss_to, to);
    ck_assert_str_eq(rig_items(&m->replay.items), items);
    if (m->replay.items.count > 0)
        ck_assert_uint_eq(m->replay.items.at[0].prev, reason ? to : after);
    struct message sub = {.type = MSG_SUB, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    sub.sub.from_mode = FROM_AFTER;
    sub.sub.from_epoch = epoch;
    sub.sub.from_seq = after;
    uint64_t cid = rig_send(g, sub);
    rig_pump(rig);
    const struct message *ack = &rig_answer(g, cid)->m;
    ck_assert_int_eq((int)ack->type, MSG_SUBACK);
    ck_assert_uint_eq(ack->suback.status, reason ? SUB_MISSED : SUB_RESUMED);
    ck_assert_uint_eq(ack->suback.miss_from, from);
    ck_assert_uint_eq(ack->suback.miss_to, to);
}

START_TEST(the_truth_table_of_misses)
{
    struct shard_type types[] = {{.name = "events", .retention = {HOUR_MS, 3, 0}}};
    begin(types, 1);
    publish("a", NULL);
    publish("b", NULL);
    uint64_t e = room_epoch();
    check_miss(0, 0, 0, 0, MISS_NONE, "1:a 2:b"); /* before everything, nothing gone */
    check_miss(e, 1, 0, 0, MISS_NONE, "2:b");
    check_miss(e, 2, 0, 0, MISS_NONE, "");
    check_miss(e, 3, 3, 0, MISS_EPOCH, "1:a 2:b"); /* above the head */
    check_miss(e + 1, 1, 1, 0, MISS_EPOCH, "1:a 2:b");
    check_miss(0, 1, 1, 0, MISS_EPOCH, "1:a 2:b"); /* no such history */
    publish("c", NULL);
    publish("d", NULL);
    publish("e", NULL);
    check_miss(0, 0, 0, 2, MISS_EVICTED, "3:c 4:d 5:e");
    check_miss(e, 0, 0, 2, MISS_EVICTED, "3:c 4:d 5:e");
    check_miss(e, 1, 1, 2, MISS_EVICTED, "3:c 4:d 5:e");
    check_miss(e, 2, 0, 0, MISS_NONE, "3:c 4:d 5:e");
    check_miss(e + 1, 4, 4, 2, MISS_EPOCH, "3:c 4:d 5:e");
    rig_jump(rig, HOUR_MS + 1);
    check_miss(e, 2, 2, 5, MISS_EXPIRED, "");
    check_miss(e, 5, 0, 0, MISS_NONE, "");
    publish("f", NULL);
    uint64_t cid = rig_send(
        g, (struct message){.type = MSG_PURGE, .slot = SLOT_UNKNOWN, .key = slice_text("k")});
    rig_pump(rig);
    ck_pack(&rig_answer(g, cid)->m, 6, 0);
    check_miss(e, 5, 5, 6, MISS_PURGED, "");
    publish("g", NULL);
    check_miss(e, 1, 1, 6, MISS_PURGED, "7:g");
    rig_crash(rig);
    check_miss(e, 1, 1, 6, MISS_PURGED, "7:g");
    check_miss(e, 6, 0, 0, MISS_NONE, "7:g");
    ck_assert_double_gt(rig_metric(rig, "stoa_missed_total", "reason=\"purged\""), 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(a_purge_keeps_ids_and_order)
{
    begin(NULL, 0);
    struct rig_pub p = {.key = "k", .text = "a", .id = 1, .pid = 3, .pseq = 1};
    ck_pack(rig_ask(g, p), 1, 0);
    (void)rig_send(
        g, (struct message){.type = MSG_PURGE, .slot = SLOT_UNKNOWN, .key = slice_text("k")});
    ck_pack(rig_ask(g, p), 1, 1);
    rig_crash(rig);
    ck_pack(rig_ask(g, p), 1, 1);
    p = (struct rig_pub){.key = "k", .text = "b", .id = 2, .pid = 3, .pseq = 2};
    ck_pack(rig_ask(g, p), 2, 0);
    check_page((struct msg_replay_req){.last = 9}, "2:b", 2, true);
    rig_destroy(rig);
}
END_TEST

START_TEST(a_record_damaged_under_way_is_never_served)
{
    begin(NULL, 0);
    publish("a", NULL);
    publish("b", NULL);
    publish("c", NULL);
    store_mem_damage(rig->store, 0, 2);
    uint64_t e = room_epoch();
    check_miss(0, 0, 0, 2, MISS_EPOCH, "3:c");
    check_miss(e, 1, 1, 2, MISS_EPOCH, "3:c");
    check_miss(e, 2, 0, 0, MISS_NONE, "3:c");
    rig_crash(rig);
    ck_assert_uint_eq(room_epoch(), e); /* the hole accounts for it */
    check_miss(e, 1, 1, 2, MISS_EPOCH, "3:c");
    publish("d", NULL);
    check_miss(e, 3, 0, 0, MISS_NONE, "4:d");
    rig_destroy(rig);
}
END_TEST

/* Long conflate values and filters: a page ends by its head's bound too. */
START_TEST(a_page_never_outgrows_its_head)
{
    begin(NULL, 0);
    char *filter = mem_zalloc(FILTER_MAX_BYTES);
    struct slice payload = slice_text("x");
    for (uint64_t i = 0; i < 40; i++) {
        struct message m = {.type = MSG_PUB, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
        m.pub.filter = slice_of(filter, FILTER_MAX_BYTES);
        m.pub.ts = rig->now.wall_ms;
        m.pub.payloads = (struct parts_list){.at = &payload, .count = 1};
        (void)rig_send(g, m);
    }
    rig_sub(g, "k");
    uint64_t reached = 0, epoch = 0;
    for (size_t pages = 0; reached < 40; pages++) {
        ck_assert_uint_lt(pages, 10);
        const struct message *m =
            rig_replay(g, "k", (struct msg_replay_req){.epoch = epoch, .after = reached});
        epoch = m->replay.room_epoch;
        ck_assert_uint_eq(m->replay.items.at[0].prev, reached);
        ck_assert_uint_gt(m->replay.after, reached);
        reached = m->replay.after;
    }
    mem_free(filter);
    rig_destroy(rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_room_without_events_is_empty,
        pages_end_by_items_by_bytes_and_have_one_at_least,
        conflation_keeps_the_newest_in_its_place,
        conflation_leaves_each_reader_his_newest,
        typed_is_a_flag_of_objects,
        the_truth_table_of_misses,
        a_purge_keeps_ids_and_order,
        a_record_damaged_under_way_is_never_served,
        a_page_never_outgrows_its_head,
    };
    return rig_run("shard_replay", tests, sizeof tests / sizeof *tests);
}
