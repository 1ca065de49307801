/* Subscribers: SUBSYNC, credit and RESYNC, links that end, CLOSE, questions. */
#include "common/hash.h"
#include "test_shard_rig.h"

static void sync_with(struct rig_client *g, uint64_t full, const struct mark *marks, size_t count)
{
    struct message m = {.type = MSG_SUBSYNC, .slot = SLOT_UNKNOWN};
    m.subsync.full = full;
    m.subsync.rooms.at = marks;
    m.subsync.rooms.count = count;
    (void)rig_send(g, m);
    rig_pump(g->rig);
}

static const struct message *publish(struct rig_client *c, const char *key, const char *text)
{
    return rig_ask(c, (struct rig_pub){.key = key, .text = text});
}

START_TEST(each_gateway_gets_one_message_a_commit)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *a = rig_connect(rig, ROLE_GATEWAY), *b = rig_connect(rig, ROLE_GATEWAY);
    struct rig_client *c = rig_connect(rig, ROLE_GATEWAY);
    rig_sub(a, "k");
    rig_sub(b, "k");
    rig_sub(c, "other");
    (void)rig_publish(c, (struct rig_pub){.key = "k", .text = "x", .conflate = "p"});
    (void)rig_publish(c, (struct rig_pub){.key = "k", .text = "y"});
    rig_pump(rig);
    ck_assert_str_eq(rig_delivered(a, "k"), "1:x 2:y");
    ck_assert_str_eq(rig_delivered(b, "k"), "1:x 2:y");
    ck_assert_uint_eq(rig_count(a, MSG_DELIVER), 1);
    ck_assert(slice_is(rig_nth(b, MSG_DELIVER, 0)->deliver.items.at[0].conflate, "p"));
    ck_assert_uint_eq(rig_count(c, MSG_DELIVER), 0);
    (void)rig_send(
        a, (struct message){.type = MSG_UNSUB, .slot = SLOT_UNKNOWN, .key = slice_text("k")});
    rig_disconnect(b);
    (void)publish(c, "k", "z");
    ck_assert_str_eq(rig_delivered(a, "k"), "1:x 2:y");
    rig_destroy(rig);
}
END_TEST

START_TEST(subsync_finds_a_lost_last_event)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *g = rig_connect(rig, ROLE_GATEWAY);
    uint64_t epoch = publish(g, "k", "x")->pack.room_epoch;
    (void)publish(g, "k", "y");
    struct mark marks[] = {{.key = slice_text("k"), .epoch = epoch, .seq = 2},
                           {.key = slice_text("new")}};
    sync_with(g, 0, marks, 2);
    ck_assert_uint_eq(rig_count(g, MSG_RESYNC), 0);
    marks[0].seq = 1;
    sync_with(g, 0, marks, 2);
    ck_assert_uint_eq(rig_count(g, MSG_RESYNC), 1);
    const struct mark *told = rig_nth(g, MSG_RESYNC, 0)->resync.rooms.at;
    ck_assert_uint_eq(rig_nth(g, MSG_RESYNC, 0)->resync.rooms.count, 1);
    ck_assert(slice_is(told->key, "k") && told->epoch == epoch && told->seq == 2);
    marks[0].seq = 2, marks[0].epoch = epoch + 1;
    sync_with(g, 0, marks, 2);
    ck_assert_uint_eq(rig_count(g, MSG_RESYNC), 2);
    /* A mark subscribes. */
    (void)publish(g, "new", "n");
    ck_assert_str_eq(rig_delivered(g, "new"), "1:n");
    rig_destroy(rig);
}
END_TEST

START_TEST(a_complete_list_drops_the_rest)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *g = rig_connect(rig, ROLE_GATEWAY), *p = rig_connect(rig, ROLE_ROUTER);
    rig_sub(g, "a");
    rig_sub(g, "b");
    rig_sub(g, "c");
    struct mark a = {.key = slice_text("a")}, c = {.key = slice_text("c")};
    sync_with(g, 1, &a, 1);
    rig_sub(g, "late"); /* in the middle of the list */
    sync_with(g, 2, &c, 1);
    const char *keys[] = {"a", "b", "c", "late"};
    for (size_t i = 0; i < 4; i++)
        (void)publish(p, keys[i], "x");
    ck_assert_str_eq(rig_delivered(g, "a"), "1:x");
    ck_assert_str_eq(rig_delivered(g, "b"), "");
    ck_assert_str_eq(rig_delivered(g, "c"), "1:x");
    ck_assert_str_eq(rig_delivered(g, "late"), "1:x");
    /* After a crash the list alone restores the subscriptions. */
    rig_crash(rig);
    rig_forget(g);
    sync_with(g, 2, &a, 1);
    ck_assert_uint_eq(rig_count(g, MSG_RESYNC), 1);
    (void)publish(p, "a", "y");
    (void)publish(p, "c", "y");
    ck_assert_str_eq(rig_delivered(g, "a"), "2:y");
    ck_assert_str_eq(rig_delivered(g, "c"), "");
    rig_destroy(rig);
}
END_TEST

START_TEST(without_credit_nothing_is_sent_and_nothing_is_lost)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *g = rig_connect(rig, ROLE_GATEWAY), *p = rig_connect(rig, ROLE_ROUTER);
    struct rig_client *other = rig_connect(rig, ROLE_GATEWAY);
    rig_sub(g, "k");
    rig_sub(other, "k");
    char *big = mem_zalloc(256 * KIB + 1);
    memset(big, 'x', 256 * KIB);
    size_t published = 0;
    for (; published < 80; published++)
        (void)publish(p, "k", big);
    size_t before = rig_count(g, MSG_DELIVER);
    ck_assert_uint_lt(before, 64);
    ck_assert_uint_gt(before, 50);
    ck_assert_uint_le(hub_received_bytes(g->hub, 1), CREDIT_WINDOW_BYTES);
    /* The other gateway has granted anew meanwhile? No: it is as stalled, by itself. */
    ck_assert_uint_eq(rig_count(other, MSG_DELIVER), before);
    struct message ask = {.type = MSG_REPLAY_REQ, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    ask.replay_req.epoch = rig_nth(g, MSG_DELIVER, 0)->deliver.room_epoch;
    ask.replay_req.after = before;
    uint64_t waiting = rig_send(g, ask);
    rig_pump(rig);
    struct message credit = {.type = MSG_CREDIT, .slot = SLOT_UNKNOWN};
    credit.credit.granted = 3 * (uint64_t)CREDIT_WINDOW_BYTES;
    ck_assert_ptr_null(rig_answer(g, waiting));
    (void)rig_send(g, credit);
    rig_pump(rig);
    ck_assert_uint_eq(rig_count(g, MSG_RESYNC), 1);
    ck_assert_uint_eq(rig_nth(g, MSG_RESYNC, 0)->resync.rooms.at[0].seq, published);
    ck_assert_uint_eq(rig_count(other, MSG_RESYNC), 0);
    ck_assert_ptr_nonnull(rig_answer(g, waiting));
    ck_assert_uint_eq(rig_answer(g, waiting)->m.replay.items.at[0].seq, before + 1);
    (void)publish(p, "k", "live again");
    ck_assert_uint_eq(rig_count(g, MSG_DELIVER), before + 1);
    ck_assert_uint_eq(rig_count(other, MSG_DELIVER), before);
    /* Leaving while dirty leaves nothing behind. */
    rig_disconnect(other);
    rig_disconnect(g);
    mem_free(big);
    rig_destroy(rig);
}
END_TEST

START_TEST(close_reaches_every_subscribed_gateway)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *a = rig_connect(rig, ROLE_GATEWAY), *b = rig_connect(rig, ROLE_GATEWAY);
    struct rig_client *c = rig_connect(rig, ROLE_GATEWAY);
    rig_sub(a, "k");
    rig_sub(b, "k");
    struct message m = {.type = MSG_CLOSE, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    m.close.code = 4000;
    m.close.reason = slice_text("bye");
    (void)rig_send(a, m);
    rig_pump(rig);
    ck_assert_uint_eq(rig_nth(a, MSG_CLOSE, 0)->close.code, 4000);
    ck_assert(slice_is(rig_nth(b, MSG_CLOSE, 0)->close.reason, "bye"));
    ck_assert_uint_eq(rig_count(c, MSG_CLOSE), 0);
    /* A publisher, through a router, hears that it is on its way. */
    struct rig_client *r = rig_connect(rig, ROLE_ROUTER);
    m.close.code = 4001;
    uint64_t cid = rig_send(r, m);
    rig_pump(rig);
    ck_assert_int_eq((int)rig_answer(r, cid)->m.type, MSG_PACK);
    ck_assert_uint_eq(rig_nth(a, MSG_CLOSE, 1)->close.code, 4001);
    ck_assert_uint_eq(rig_count(b, MSG_CLOSE), 2);
    ck_assert_uint_eq(rig_count(r, MSG_CLOSE), 0);
    m.key = slice_text("nobody");
    cid = rig_send(r, m);
    m.slot = 1 + slot_of(m.key, 0) % (SLOT_COUNT - 1); /* of another seed */
    uint64_t foreign = rig_send(r, m);
    rig_pump(rig);
    ck_assert_int_eq((int)rig_answer(r, cid)->m.type, MSG_PACK);
    ck_nack(&rig_answer(r, foreign)->m, NACK_INVALID);
    cid = rig_send(
        r, (struct message){.type = MSG_PURGE, .slot = SLOT_UNKNOWN, .key = slice_text("k")});
    rig_pump(rig);
    ck_assert_int_eq((int)rig_answer(r, cid)->m.type, MSG_PACK);
    rig_destroy(rig);
}
END_TEST

static const char *ask(struct rig_client *g, const char *key, struct msg_ask question)
{
    static char json[8192];
    struct message m = {.type = MSG_ASK, .slot = SLOT_UNKNOWN, .key = slice_text(key)};
    m.ask = question;
    uint64_t cid = rig_send(g, m);
    rig_pump(g->rig);
    const struct got *got = rig_answer(g, cid);
    if (!got)
        return NULL;
    snprintf(json, sizeof json, "%.*s", SLICE_FMT(got->m.answer.json));
    return json;
}

START_TEST(keys_are_listed_in_order_and_in_pages)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *g = rig_connect(rig, ROLE_GATEWAY);
    const char *keys[] = {"b:2", "a:1", "b:1", "b:10", "c"};
    for (size_t i = 0; i < 5; i++)
        (void)publish(g, keys[i], "xy");
    rig_sub(g, "b:0"); /* without events: not listed */
    const char *json = ask(g, "", (struct msg_ask){.what = ASK_KEYS, .prefix = slice_text("b:")});
    ck_assert_str_eq(json,
                     "{\"keys\":[{\"key\":\"b:1\",\"head\":1,\"events\":1,\"bytes\":2},"
                     "{\"key\":\"b:10\",\"head\":1,\"events\":1,\"bytes\":2},"
                     "{\"key\":\"b:2\",\"head\":1,\"events\":1,\"bytes\":2}],\"more\":false}");
    json = ask(g, "", (struct msg_ask){.what = ASK_KEYS, .after = slice_text("b:1"), .limit = 1});
    ck_assert_str_eq(json, "{\"keys\":[{\"key\":\"b:10\",\"head\":1,\"events\":1,\"bytes\":2}],"
                           "\"more\":true}");
    (void)publish(g, "c", "z");
    json = ask(g, "", (struct msg_ask){.what = ASK_TOP, .limit = 1});
    ck_assert_ptr_nonnull(strstr(json, "{\"rooms\":[{\"key\":\"c\""));
    json = ask(g, "", (struct msg_ask){.what = ASK_STATUS});
    ck_assert_ptr_nonnull(strstr(json, "\"role\":\"shard\",\"name\":\"shard-0\""));
    ck_assert_ptr_nonnull(strstr(json, "\"rooms\":5,"));
    rig_destroy(rig);
}
END_TEST

static void answer_ask(struct rig_client *g, const char *json)
{
    const struct message *asked = rig_nth(g, MSG_ASK, 0);
    ck_assert_ptr_nonnull(asked);
    struct message m = {.type = MSG_ANSWER, .cid = asked->cid, .slot = SLOT_UNKNOWN};
    m.answer.json = slice_text(json);
    hub_send(g->hub, 1, &m);
    rig_pump(g->rig);
}

START_TEST(connections_are_collected_from_gateways)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *a = rig_connect(rig, ROLE_GATEWAY), *b = rig_connect(rig, ROLE_GATEWAY);
    struct rig_client *c = rig_connect(rig, ROLE_GATEWAY);
    ck_assert_str_eq(ask(a, "k", (struct msg_ask){.what = ASK_CONNECTIONS}), "[]");
    rig_sub(a, "k");
    rig_sub(b, "k");
    rig_sub(c, "k");
    struct message m = {.type = MSG_ASK, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    m.ask.what = ASK_CONNECTIONS;
    uint64_t cid = rig_send(a, m);
    rig_pump(rig);
    answer_ask(a, "[{\"id\":1}]");
    answer_ask(a, "[{\"id\":1}]"); /* again: not counted */
    answer_ask(b, " [ ] ");
    ck_assert_ptr_null(rig_answer(a, cid));
    rig_disconnect(c);
    ck_assert(slice_is(rig_answer(a, cid)->m.answer.json, "[{\"id\":1}]"));
    rig_forget(a);
    rig_forget(b);
    cid = rig_send(a, m);
    rig_pump(rig);
    answer_ask(b, "[2,3]");
    ck_assert_ptr_null(rig_answer(a, cid));
    rig_wait(rig, 1500); /* the other never answers */
    ck_assert(slice_is(rig_answer(a, cid)->m.answer.json, "[2,3]"));
    rig_destroy(rig);
}
END_TEST

/* Whatever a gateway says, it is answered or ignored, and the shard goes on. */
START_TEST(nonsense_is_refused)
{
    struct rig *rig = rig_create(NULL, 0);
    struct rig_client *g = rig_connect(rig, ROLE_GATEWAY);
    (void)publish(g, "k", "x");
    struct mark marks[] = {
        {.key = slice_text("")}, {.key = slice_text("a\tb")}, {.key = slice_text("k")}};
    sync_with(g, 7, marks, 3);
    ck_assert_uint_eq(rig_nth(g, MSG_RESYNC, 0)->resync.rooms.count, 1);
    struct message m = {.type = MSG_SUB, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    m.sub.from_mode = 9;
    uint64_t cid = rig_send(g, m);
    rig_pump(rig);
    ck_nack(&rig_answer(g, cid)->m, NACK_INVALID);
    m.sub.from_mode = FROM_HEAD;
    m.sub.session = slice_text("s"); /* comes with rooms that have handlers */
    cid = rig_send(g, m);
    rig_pump(rig);
    ck_nack(&rig_answer(g, cid)->m, NACK_INVALID);
    ck_nack(rig_replay(g, "", (struct msg_replay_req){0}), NACK_INVALID);
    ck_nack(rig_replay(g, "k", (struct msg_replay_req){.mode = 5}), NACK_INVALID);
    uint64_t huge = UINT64_MAX;
    const struct message *page = rig_replay(
        g, "k", (struct msg_replay_req){.last = huge, .max_items = huge, .max_bytes = huge});
    ck_assert_uint_eq(page->replay.items.count, 1);
    ck_assert_str_eq(ask(g, "k", (struct msg_ask){.what = 99}), "null");
    (void)rig_send(g, (struct message){.type = MSG_UNSUB, .slot = SLOT_UNKNOWN});
    (void)rig_send(g, (struct message){.type = MSG_CLOSE, .slot = SLOT_UNKNOWN});
    (void)rig_send(g, (struct message){.type = MSG_ANSWER, .slot = SLOT_UNKNOWN});
    (void)rig_send(g, (struct message){.type = MSG_CREDIT, .slot = SLOT_UNKNOWN});
    struct message none = {.type = MSG_PUB, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    cid = rig_send(g, none);
    rig_pump(rig);
    ck_nack(&rig_answer(g, cid)->m, NACK_INVALID);
    ck_assert_uint_eq(publish(g, "k", "y")->pack.seq, 2);
    ck_assert_int_gt(shard_deadline(rig->shard), rig->now.mono_ns); /* at rest */
    rig_destroy(rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        each_gateway_gets_one_message_a_commit,  subsync_finds_a_lost_last_event,
        a_complete_list_drops_the_rest,          without_credit_nothing_is_sent_and_nothing_is_lost,
        close_reaches_every_subscribed_gateway,  keys_are_listed_in_order_and_in_pages,
        connections_are_collected_from_gateways, nonsense_is_refused,
    };
    return rig_run("shard_deliver", tests, sizeof tests / sizeof *tests);
}
