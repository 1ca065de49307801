/* Publishing to a shard: order, the output gate, dedupe, batches, ephemerals, fairness, fencing. */
#include "test_shard_rig.h"

#include "common/hash.h"

START_TEST(events_get_seqs_in_order_and_reach_the_gateway)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *gateway = rig_connect(rig, ROLE_GATEWAY);
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    rig_sub(gateway, "k");
    for (uint64_t i = 1; i <= 3; i++)
        (void)rig_publish(router,
                          (struct rig_pub){.key = "k", .text = i == 2 ? "x" : "{}", .id = i});
    rig_pump(rig);
    ck_assert_str_eq(rig_delivered(gateway, "k"), "1:{} 2:x 3:{}");
    ck_assert_uint_eq(rig_count(gateway, MSG_DELIVER), 1); /* one commit, one message */
    ck_assert_uint_eq(store_mem_commits(rig->store), 2);   /* the grant, the turn */
    const struct message *d = rig_nth(gateway, MSG_DELIVER, 0);
    ck_assert_uint_eq(d->deliver.items.at[0].prev, 0);
    ck_assert_uint_eq(d->deliver.items.at[2].prev, 2);
    ck_assert_uint_eq(d->deliver.items.at[0].flags, EVENT_JSON | EVENT_UTF8);
    ck_assert_uint_eq(d->deliver.items.at[1].flags, EVENT_UTF8);
    ck_pack(&rig_answer(router, 3)->m, 3, 0);
    ck_assert_uint_eq(rig_answer(router, 3)->m.pack.room_epoch, d->deliver.room_epoch);
    ck_assert_uint_eq(rig_answer(router, 3)->m.pack.window_ms, HOUR_MS);
    rig_destroy(rig);
}
END_TEST

START_TEST(claims_follow_the_link)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    struct rig_client *gateway = rig_connect(rig, ROLE_GATEWAY);
    const struct message *claim = rig_nth(router, MSG_CLAIM, 0);
    ck_assert_uint_eq(claim->claim.slots.count, 1);
    ck_assert_uint_eq(claim->claim.slots.at[0].hi, SLOT_COUNT - 1);
    ck_assert_uint_eq(claim->claim.slots.at[0].epoch, 1);
    ck_assert_uint_eq(claim->claim.ready, 1);
    ck_assert_uint_eq(rig_count(gateway, MSG_CLAIM), 1);
    rig_destroy(rig);
}
END_TEST

static double refused_links(struct rig *rig)
{
    return metric_value(metrics_counter(rig->metrics, "stoa_link_refused_total", "", ""));
}

/* Only routers and gateways have business with a shard. */
START_TEST(others_are_refused_at_the_door)
{
    static const enum role strangers[] = {ROLE_PUBLISHER, ROLE_SHARD, ROLE_ADMIN};
    struct rig *rig = rig_create(NULL, 0);
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        struct rig_client *c = rig_dial(rig, strangers[i]);
        ck_assert(!hub_is_up(c->hub, 1));
        ck_assert(refused_links(rig) == (double)(i + 1));
        ck_assert_uint_eq(c->got.count, 0);
    }
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    ck_pack(rig_ask(router, (struct rig_pub){.key = "k", .text = "a"}), 1, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(nothing_leaves_before_its_commit)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *gateway = rig_connect(rig, ROLE_GATEWAY);
    rig_sub(gateway, "k");
    ck_pack(
        rig_ask(gateway, (struct rig_pub){.key = "k", .text = "a", .id = 1, .pid = 5, .pseq = 1}),
        1, 0);
    store_mem_fill(rig->store, 1);
    uint64_t first = rig_publish(
        gateway, (struct rig_pub){.key = "k", .text = "b", .id = 2, .pid = 5, .pseq = 2});
    uint64_t newborn = rig_publish(gateway, (struct rig_pub){.key = "new", .text = "b", .id = 2});
    uint64_t known = rig_publish(gateway, (struct rig_pub){.key = "k", .text = "a", .id = 1});
    rig_pump(rig);
    ck_nack(&rig_answer(gateway, first)->m, NACK_DISK);
    ck_nack(&rig_answer(gateway, newborn)->m, NACK_DISK);
    ck_pack(&rig_answer(gateway, known)->m, 1, 1);
    ck_assert_str_eq(rig_delivered(gateway, "k"), "1:a");
    store_mem_fill(rig->store, 0);
    rig_wait(rig, 500);
    ck_pack(
        rig_ask(gateway, (struct rig_pub){.key = "k", .text = "b", .id = 2, .pid = 5, .pseq = 2}),
        2, 0);
    ck_pack(rig_ask(gateway, (struct rig_pub){.key = "new", .text = "b", .id = 2}), 1, 0);
    rig_destroy(rig);
}
END_TEST

/* The disk fills between intake and commit: everything of the turn is taken back exactly. */
START_TEST(a_commit_that_fails_takes_everything_back)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *gateway = rig_connect(rig, ROLE_GATEWAY);
    rig_sub(gateway, "k");
    rig_sub(gateway, "live");
    (void)rig_ask(gateway, (struct rig_pub){.key = "k", .text = "a", .conflate = "p"});
    store_mem_fill(rig->store, 2); /* the next commit succeeds, then one is found out */
    (void)rig_ask(gateway, (struct rig_pub){.key = "other", .text = "a"});
    rig_forget(gateway);
    uint64_t cids[4];
    cids[0] =
        rig_publish(gateway, (struct rig_pub){.key = "k", .text = "b", .id = 9, .conflate = "p"});
    cids[1] = rig_publish(gateway, (struct rig_pub){.key = "k", .text = "b", .id = 9});
    cids[2] = rig_publish(gateway, (struct rig_pub){.key = "k", .text = "c", .pid = 4, .pseq = 1});
    cids[3] = rig_publish(gateway, (struct rig_pub){.key = "k", .text = "d", .pid = 4, .pseq = 2});
    rig_pump(rig);
    for (size_t i = 0; i < 4; i++)
        ck_nack(&rig_answer(gateway, cids[i])->m, NACK_DISK);
    ck_assert_uint_eq(rig_count(gateway, MSG_DELIVER), 0);
    const struct message *page =
        rig_replay(gateway, "k", (struct msg_replay_req){.mode = REPLAY_LATEST});
    ck_assert_str_eq(rig_items(&page->replay.items), "1:a");
    /* Without a disk there is still the present. */
    (void)rig_ask(gateway, (struct rig_pub){.key = "live", .text = "x", .ephemeral = true});
    ck_assert_str_eq(rig_delivered(gateway, "live"), "0e:x");
    store_mem_fill(rig->store, 0);
    rig_wait(rig, 500);
    ck_nack(rig_ask(gateway, (struct rig_pub){.key = "k", .text = "d", .pid = 4, .pseq = 2}),
            NACK_ORDER);
    ck_pack(rig_ask(gateway, (struct rig_pub){.key = "k", .text = "b", .id = 9}), 2, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(a_retry_is_recognised_also_after_a_crash)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    uint64_t twin[2];
    for (size_t i = 0; i < 2; i++) /* both wait for the same commit */
        twin[i] = rig_publish(router, (struct rig_pub){.key = "k", .text = "a", .id = 1});
    rig_pump(rig);
    ck_pack(&rig_answer(router, twin[0])->m, 1, 0);
    ck_pack(&rig_answer(router, twin[1])->m, 1, 1);
    uint64_t epoch = rig_answer(router, twin[1])->m.pack.room_epoch;
    ck_assert_uint_ne(epoch, 0);
    rig_crash(rig);
    const struct message *again =
        rig_ask(router, (struct rig_pub){.key = "k", .text = "other body", .id = 1});
    ck_pack(again, 1, 1);
    ck_assert_uint_eq(again->pack.room_epoch, epoch);
    ck_pack(rig_ask(router, (struct rig_pub){.key = "k2", .text = "a", .id = 1}), 1, 0);
    /* No id, no memory. */
    ck_pack(rig_ask(router, (struct rig_pub){.key = "k", .text = "a"}), 2, 0);
    ck_pack(rig_ask(router, (struct rig_pub){.key = "k", .text = "a"}), 3, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(a_publisher_keeps_its_order)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    struct rig_pub p = {.key = "k", .text = "a", .id = 1, .pid = 77, .pseq = 2};
    const struct message *m = rig_ask(router, p);
    ck_nack(m, NACK_ORDER);
    ck_assert_uint_eq(m->nack.expected, 1);
    p.pseq = 1;
    ck_pack(rig_ask(router, p), 1, 0);
    p = (struct rig_pub){.key = "k", .text = "c", .id = 3, .pid = 77, .pseq = 3};
    m = rig_ask(router, p);
    ck_nack(m, NACK_ORDER);
    ck_assert_uint_eq(m->nack.expected, 2);
    p.id = 2, p.pseq = 2;
    ck_pack(rig_ask(router, p), 2, 0);
    rig_crash(rig);
    p.id = 4, p.pseq = 4;
    ck_nack(rig_ask(router, p), NACK_ORDER);
    p.pseq = 3;
    ck_pack(rig_ask(router, p), 3, 0);
    /* A new incarnation resends an old message under its old id: recognised, and counted. */
    ck_pack(
        rig_ask(router, (struct rig_pub){.key = "k", .text = "c", .id = 4, .pid = 78, .pseq = 1}),
        3, 1);
    ck_pack(
        rig_ask(router, (struct rig_pub){.key = "k", .text = "d", .id = 5, .pid = 78, .pseq = 2}),
        4, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(a_batch_is_all_or_none)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *gateway = rig_connect(rig, ROLE_GATEWAY);
    rig_sub(gateway, "k");
    struct slice parts[BATCH_MAX_EVENTS + 1];
    for (size_t i = 0; i < BATCH_MAX_EVENTS + 1; i++)
        parts[i] = slice_text("x");
    struct rig_pub batch = {.key = "k", .at = parts, .count = 3, .id = 1};
    const struct message *m = rig_ask(gateway, batch);
    ck_pack(m, 3, 0);
    ck_assert_uint_eq(m->pack.count, 3);
    m = rig_ask(gateway, batch);
    ck_pack(m, 3, 1);
    ck_assert_uint_eq(m->pack.count, 3);
    ck_assert_str_eq(rig_delivered(gateway, "k"), "1:x 2:x 3:x");
    rig_crash(rig);
    m = rig_ask(gateway, batch);
    ck_pack(m, 3, 1);
    ck_assert_uint_eq(m->pack.count, 3);
    batch.id = 2, batch.count = BATCH_MAX_EVENTS;
    ck_pack(rig_ask(gateway, batch), 3 + BATCH_MAX_EVENTS, 0);
    batch.id = 3, batch.count = BATCH_MAX_EVENTS + 1;
    ck_nack(rig_ask(gateway, batch), NACK_TOOBIG);
    rig_destroy(rig);
}
END_TEST

START_TEST(ephemerals_pass_in_order_and_leave_no_trace)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *gateway = rig_connect(rig, ROLE_GATEWAY);
    rig_sub(gateway, "k");
    uint64_t commits = store_mem_commits(rig->store);
    const struct message *m =
        rig_ask(gateway, (struct rig_pub){.key = "k", .text = "t", .ephemeral = true});
    ck_pack(m, 0, 0);
    ck_assert_uint_eq(m->pack.room_epoch, 0);
    ck_assert_uint_eq(store_mem_commits(rig->store), commits);
    (void)rig_publish(gateway, (struct rig_pub){.key = "k", .text = "a"});
    (void)rig_publish(gateway, (struct rig_pub){.key = "k", .text = "t", .ephemeral = true});
    (void)rig_publish(gateway, (struct rig_pub){.key = "k", .text = "b"});
    rig_pump(rig);
    ck_assert_str_eq(rig_delivered(gateway, "k"), "0e:t 1:a 1e:t 2:b");
    const struct message *page = rig_replay(gateway, "k", (struct msg_replay_req){0});
    ck_assert_str_eq(rig_items(&page->replay.items), "1:a 2:b");
    rig_destroy(rig);
}
END_TEST

START_TEST(a_full_queue_is_busy_at_once)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    uint64_t last = 0;
    for (size_t i = 0; i < ROOM_FIFO_MAX_MESSAGES + 1; i++)
        last = rig_publish(router, (struct rig_pub){.key = "noisy", .text = "x"});
    uint64_t quiet = rig_publish(router, (struct rig_pub){.key = "quiet", .text = "y"});
    rig_feed(rig);
    /* The noisy room fills two turns, the quiet one is in the first. */
    ck_assert(shard_turn(rig->shard, rig->now));
    ck_assert_uint_eq(store_mem_commits(rig->store), 2);
    rig->clients[0].deaf = false;
    rig_pump(rig);
    ck_nack(&rig_answer(router, last)->m, NACK_BUSY);
    ck_pack(&rig_answer(router, quiet)->m, 1, 0);
    bool before_the_rest = false;
    for (size_t i = 0; i < router->got.count; i++) {
        const struct message *m = &VEC_AT(&router->got, struct got)[i].m;
        if (m->cid == quiet)
            before_the_rest = !rig_answer(router, last - 1) || i < router->got.count - 400;
    }
    ck_assert(before_the_rest);
    ck_assert_uint_eq(rig_count(router, MSG_PACK), ROOM_FIFO_MAX_MESSAGES + 1);
    rig_destroy(rig);
}
END_TEST

START_TEST(a_quiet_room_waits_a_quantum_not_a_queue)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    char *big = mem_zalloc(100 * KIB + 1);
    memset(big, 'x', 100 * KIB);
    for (size_t i = 0; i < 30; i++)
        (void)rig_publish(router, (struct rig_pub){.key = "noisy", .text = big});
    uint64_t quiet = rig_publish(router, (struct rig_pub){.key = "quiet", .text = "y"});
    rig_pump(rig);
    size_t place = 0;
    while (VEC_AT(&router->got, struct got)[place].m.cid != quiet)
        place++;
    ck_assert_uint_le(place, 2); /* the claim, at most one of the noisy room's */
    ck_assert_uint_eq(rig_count(router, MSG_PACK), 31);
    mem_free(big);
    rig_destroy(rig);
}
END_TEST

START_TEST(what_breaks_a_rule_is_refused)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    ck_nack(rig_ask(router, (struct rig_pub){.key = "a\nb", .text = "x"}), NACK_INVALID);
    ck_nack(rig_ask(router, (struct rig_pub){.key = "", .text = "x"}), NACK_INVALID);
    uint16_t slot = slot_of(slice_text("k"), RIG_SEED);
    ck_nack(rig_ask(router, (struct rig_pub){.key = "k", .text = "x", .slot = slot + 1}),
            NACK_INVALID);
    ck_pack(rig_ask(router, (struct rig_pub){.key = "k", .text = "x", .slot = slot, .ep = 1}), 1,
            0);
    char *big = mem_zalloc(PAYLOAD_MAX_BYTES + 2);
    memset(big, 'x', PAYLOAD_MAX_BYTES + 1);
    ck_nack(rig_ask(router, (struct rig_pub){.key = "k", .text = big}), NACK_TOOBIG);
    big[PAYLOAD_MAX_BYTES] = 0;
    ck_pack(rig_ask(router, (struct rig_pub){.key = "k", .text = big}), 2, 0);
    mem_free(big);
    ck_assert_double_eq(rig_metric(rig, "stoa_publish_total", "result=\"toobig\""), 1);
    ck_assert_double_eq(rig_metric(rig, "stoa_publish_total", "result=\"ok\""), 2);
    /* Subscribing is for gateways. */
    struct message sub = {.type = MSG_SUB, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    uint64_t cid = rig_send(router, sub);
    rig_pump(rig);
    ck_assert_ptr_null(rig_answer(router, cid)); /* ERR is the link's own */
    rig_destroy(rig);
}
END_TEST

START_TEST(a_higher_epoch_fences_the_slot)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    uint16_t slot = slot_of(slice_text("k"), RIG_SEED);
    ck_pack(rig_ask(router, (struct rig_pub){.key = "k", .text = "x", .ep = 1}), 1, 0);
    uint64_t queued = rig_publish(router, (struct rig_pub){.key = "k", .text = "x", .ep = 1});
    uint64_t fencing = rig_publish(router, (struct rig_pub){.key = "k", .text = "x", .ep = 2});
    rig_pump(rig);
    ck_nack(&rig_answer(router, queued)->m, NACK_NOTOWNER);
    ck_nack(&rig_answer(router, fencing)->m, NACK_NOTOWNER);
    ck_nack(rig_ask(router, (struct rig_pub){.key = "k", .text = "x", .ep = 1}), NACK_NOTOWNER);
    const struct message *claim = rig_nth(router, MSG_CLAIM, 1);
    ck_assert_ptr_nonnull(claim);
    ck_assert_uint_eq(claim->claim.slots.count, 2);
    ck_assert_uint_eq(claim->claim.slots.at[0].hi, slot - 1u);
    ck_assert_uint_eq(claim->claim.slots.at[1].lo, slot + 1u);
    rig_destroy(rig);
}
END_TEST

START_TEST(an_answer_never_reaches_another_link)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    uint64_t cid = rig_publish(router, (struct rig_pub){.key = "k", .text = "x"});
    rig_feed(rig); /* queued at the shard */
    hub_disconnected(router->hub, 1, rig->now);
    hub_connected(router->hub, 1, rig->now);
    rig_pump(rig);
    ck_assert(hub_is_up(router->hub, 1));
    ck_assert_ptr_null(rig_answer(router, cid));
    ck_pack(rig_ask(router, (struct rig_pub){.key = "k", .text = "x"}), 2, 0);
    rig_destroy(rig);
}
END_TEST

START_TEST(draining_refuses_and_finishes)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *router = rig_connect(rig, ROLE_ROUTER);
    uint64_t queued = rig_publish(router, (struct rig_pub){.key = "k", .text = "x"});
    rig_feed(rig);
    shard_drain(rig->shard, rig->now);
    rig_pump(rig);
    ck_pack(&rig_answer(router, queued)->m, 1, 0);
    ck_assert(!hub_is_up(router->hub, 1));
    rig_destroy(rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        events_get_seqs_in_order_and_reach_the_gateway,
        claims_follow_the_link,
        others_are_refused_at_the_door,
        nothing_leaves_before_its_commit,
        a_commit_that_fails_takes_everything_back,
        a_retry_is_recognised_also_after_a_crash,
        a_publisher_keeps_its_order,
        a_batch_is_all_or_none,
        ephemerals_pass_in_order_and_leave_no_trace,
        a_full_queue_is_busy_at_once,
        a_quiet_room_waits_a_quantum_not_a_queue,
        what_breaks_a_rule_is_refused,
        a_higher_epoch_fences_the_slot,
        an_answer_never_reaches_another_link,
        draining_refuses_and_finishes,
    };
    return rig_run("shard_publish", tests, sizeof tests / sizeof *tests);
}
