/* The router core between hubs in memory: what is forwarded, what is refused, and who gets the
 * answer. */
#include "common/limits.h"
#include "router_net.h"

#include "router/router_internal.h"

static unsigned owner_of(const char *key)
{
    unsigned owner = slot_of(slice_text(key), SEED) / (SLOT_COUNT / N_SHARDS);
    return owner < N_SHARDS ? owner : N_SHARDS - 1;
}

START_TEST(publish_reaches_the_owner_and_the_answer_comes_back)
{
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    ck_assert(router_ready(router));
    publish(p, 17, "upload:a");
    settle();
    ck_assert_uint_eq(p->packs, 1);
    ck_assert_uint_eq(p->last_cid, 17);
    ck_assert_uint_eq(p->last_seq, 1000017);
    struct node *shard = &nodes[SHARD(owner_of("upload:a"))];
    ck_assert_uint_eq(shard->publishes, 1);
    ck_assert_uint_eq(shard->last_slot, slot_of(slice_text("upload:a"), SEED));
    ck_assert_uint_eq(shard->last_ep, 5 + owner_of("upload:a"));
    ck_assert_uint_eq(shard->held_cid & 0xffffffff, 17);
    ck_assert(forwards("ok") == 1.0);
}
END_TEST

START_TEST(without_an_owner_the_asker_is_told_to_come_back)
{
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    ck_assert(!router_ready(router));
    publish(p, 1, "upload:a");
    settle();
    ck_assert_uint_eq(p->nacks, 1);
    ck_assert_uint_eq(p->last_cid, 1);
    ck_assert_uint_eq(p->last_nack, NACK_NOTOWNER);
    ck_assert_uint_ge(p->last_retry, 100);
    /* a shard that owns slots but is not ready to serve */
    unsigned owner = owner_of("upload:a");
    nodes[SHARD(owner)].not_ready = true;
    shard_start(owner);
    publish(p, 2, "upload:a");
    settle();
    ck_assert_uint_eq(p->nacks, 2);
    nodes[SHARD(owner)].not_ready = false;
    shard_claim(owner);
    settle();
    publish(p, 3, "upload:a");
    settle();
    ck_assert_uint_eq(p->packs, 1);
    /* and one that has gone */
    shard_kill(owner);
    publish(p, 4, "upload:a");
    settle();
    ck_assert_uint_eq(p->nacks, 3);
    ck_assert_uint_eq(p->last_hint_ep, 5 + owner);
    ck_assert(forwards("notowner") == 3.0);
}
END_TEST

START_TEST(lost_is_told_when_the_shard_serves_again)
{
    shard_start(0);
    nodes[SHARD(1)].n_ranges = 0;
    shard_start(1);
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    struct node *g = client_start(1, ROUTER_DOOR_GATEWAY, ROLE_GATEWAY);
    /* nothing was ever forwarded to shard 1: nothing can be lost */
    shard_kill(1);
    shard_start(1);
    ck_assert_uint_eq(p->losts + g->losts, 0);

    const char *key = "a";
    char name[8] = "a";
    while (owner_of(key) != 0) {
        name[0]++;
        key = name;
    }
    nodes[SHARD(0)].mute = true;
    publish(p, 1, key);
    settle();
    shard_kill(0);
    ck_assert_uint_eq(p->losts + g->losts, 0);
    nodes[SHARD(0)].not_ready = true;
    nodes[SHARD(0)].mute = false;
    shard_start(0);
    ck_assert_uint_eq(p->losts, 0);
    nodes[SHARD(0)].not_ready = false;
    shard_claim(0);
    settle();
    ck_assert_uint_eq(p->losts, 1);
    ck_assert_uint_eq(g->losts, 1);
    publish(p, 1, key); /* the resend */
    settle();
    ck_assert_uint_eq(p->packs, 1);
    ck_assert_uint_eq(p->losts, 1);
}
END_TEST

START_TEST(contested_slots_are_refused_for_both)
{
    nodes[SHARD(0)].ranges[0] = (struct slot_range){.lo = 0, .hi = 16383, .epoch = 3};
    nodes[SHARD(1)].ranges[0] = (struct slot_range){.lo = 0, .hi = 8191, .epoch = 3};
    shard_start(0);
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    shard_start(1);
    char low[16] = "k0", high[16] = "k0";
    for (unsigned i = 0; slot_of(slice_text(low), SEED) > 8191; i++)
        snprintf(low, sizeof low, "k%u", i);
    for (unsigned i = 0; slot_of(slice_text(high), SEED) <= 8191; i++)
        snprintf(high, sizeof high, "k%u", i);
    publish(p, 1, low);
    settle();
    ck_assert_uint_eq(p->nacks, 1);
    publish(p, 2, high);
    settle();
    ck_assert_uint_eq(p->packs, 1);
    ck_assert(logged("slots.contested"));
    /* one of them has moved on: the higher epoch wins */
    nodes[SHARD(1)].ranges[0].epoch = 4;
    shard_claim(1);
    settle();
    publish(p, 3, low);
    settle();
    ck_assert_uint_eq(p->packs, 2);
    ck_assert_uint_eq(nodes[SHARD(1)].publishes, 1);
    ck_assert_uint_eq(nodes[SHARD(1)].last_ep, 4);
}
END_TEST

static void raw_type(struct node *n, uint64_t type)
{
    struct message m = message_of(type, 1, "upload:a");
    hub_send(n->hub, n->peer, &m);
    settle();
}

START_TEST(each_door_takes_its_own_messages)
{
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    struct node *g = client_start(1, ROUTER_DOOR_GATEWAY, ROLE_GATEWAY);
    static const uint64_t never[] = {MSG_SUB,  MSG_SUBSYNC, MSG_DELIVER, MSG_CLAIM, MSG_RING,
                                     MSG_PACK, MSG_CREDIT,  MSG_CEVT,    MSG_JOIN,  MSG_RESULT};
    double refused = 0;
    for (size_t i = 0; i < sizeof never / sizeof *never; i++) {
        raw_type(p, never[i]);
        raw_type(g, never[i]);
        refused += 2;
        ck_assert(forwards("invalid") == refused);
    }
    ck_assert(logged("link.error_from_peer"));
    raw_type(g, MSG_CLOSE); /* gateways have the shard's own door */
    raw_type(g, MSG_CALL);
    ck_assert(forwards("invalid") == refused + 2);
    raw_type(p, MSG_PURGE);
    raw_type(p, MSG_CLOSE);
    ck_assert_uint_eq(p->packs, 2);
    raw_type(p, MSG_CALL);
    ck_assert_uint_eq(p->results, 1);
    ck_assert(forwards("ok") == 3.0);
    /* a client may not claim slots, whatever it sends */
    ck_assert_uint_eq(slot_of(slice_text("upload:a"), SEED),
                      nodes[SHARD(owner_of("upload:a"))].last_slot);
}
END_TEST

static void call_from(struct node *shard, uint64_t cid, const char *key)
{
    struct message m = message_of(MSG_CALL, cid, key);
    hub_send(shard->hub, shard->peer, &m);
    settle();
}

START_TEST(a_stream_is_under_way_until_its_end)
{
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    struct node *shard = &nodes[SHARD(owner_of("chat:a"))];
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    shard->mute = true;
    struct message m = message_of(MSG_CALL, 77, "chat:a");
    hub_send(p->hub, p->peer, &m);
    settle();
    ck_assert_uint_eq(router_outstanding(router), 1);
    for (unsigned item = 0; item < 3; item++) {
        struct message result = message_of(MSG_RESULT, shard->held_cid, "");
        result.result.more = item < 2;
        hub_send(shard->hub, shard->peer, &result);
        settle();
        ck_assert_uint_eq(router_outstanding(router), item < 2);
        ck_assert_uint_eq(p->results, item + 1);
        ck_assert_uint_eq(p->last_cid, 77);
    }
}
END_TEST

START_TEST(a_shard_calls_a_room_of_another)
{
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    unsigned owner = owner_of("chat:a");
    struct node *from = &nodes[SHARD((owner + 1) % N_SHARDS)];
    call_from(from, 31, "chat:a");
    ck_assert_uint_eq(from->answers, 1);
    ck_assert_uint_eq(from->last_cid, 31);
    call_from(from, UINT64_C(0x100000001), "chat:a"); /* would stamp over the way back */
    ck_assert_uint_eq(from->answers + from->nacks, 1);
    shard_kill(owner);
    call_from(from, 32, "chat:a");
    ck_assert_uint_eq(from->nacks, 1);
    ck_assert_uint_eq(from->last_cid, 32);
}
END_TEST

START_TEST(roles_come_in_by_their_own_door)
{
    struct node *g = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_GATEWAY);
    struct node *s = client_start(1, ROUTER_DOOR_GATEWAY, ROLE_PUBLISHER);
    ck_assert(!hub_is_up(g->hub, g->peer));
    ck_assert(!hub_is_up(s->hub, s->peer));
    struct node *a = client_start(2, ROUTER_DOOR_PUBLISH, ROLE_ADMIN);
    ck_assert(hub_is_up(a->hub, a->peer));
}
END_TEST

/* What was revoked is said by gateways, which ask for the right. */
START_TEST(our_own_keys_are_written_by_gateways_only)
{
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    struct node *g = client_start(1, ROUTER_DOOR_GATEWAY, ROLE_GATEWAY);
    publish(p, 1, REVOCATIONS_KEY);
    publish(g, 2, REVOCATIONS_KEY);
    struct message purge = message_of(MSG_PURGE, 3, REVOCATIONS_KEY);
    hub_send(p->hub, p->peer, &purge);
    settle();
    ck_assert_uint_eq(p->nacks, 2);
    ck_assert_uint_eq(p->last_nack, NACK_INVALID);
    ck_assert_uint_eq(g->packs, 1);
    ck_assert_uint_eq(nodes[SHARD(owner_of(REVOCATIONS_KEY))].publishes, 1);
}
END_TEST

START_TEST(hostile_prefixes_have_no_effect)
{
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    publish(p, UINT64_C(0x100000001), "upload:a"); /* would stamp over the way back */
    settle();
    ck_assert_uint_eq(p->packs + p->nacks, 0);
    ck_assert(forwards("invalid") == 1.0);
    publish(p, 2, "bad\x01key");
    settle();
    ck_assert_uint_eq(p->last_nack, NACK_INVALID);
    publish(p, 3, "");
    settle();
    ck_assert_uint_eq(p->nacks, 2);
    struct message m = message_of(MSG_PURGE, 4, "upload:a");
    m.slot = (uint16_t)(slot_of(slice_text("upload:a"), SEED) ^ 1);
    hub_send(p->hub, p->peer, &m);
    settle();
    ck_assert_uint_eq(p->nacks, 3);
    ck_assert_uint_eq(p->last_cid, 4);
    m.slot = slot_of(slice_text("upload:a"), SEED);
    m.cid = 5;
    hub_send(p->hub, p->peer, &m);
    settle();
    ck_assert_uint_eq(p->packs, 1);
    for (unsigned i = 0; i < N_SHARDS; i++)
        ck_assert_uint_eq(nodes[SHARD(i)].publishes, i == owner_of("upload:a"));
}
END_TEST

/* Flips bytes of real packets on their way in: nothing may break, and the link comes back. */
START_TEST(damaged_packets_do_no_harm)
{
    struct rng rng;
    rng_seed(&rng, (uint64_t)_i + 1);
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    for (unsigned round = 0; round < 200; round++) {
        publish(p, round, "upload:a");
        hub_flush(p->hub, now);
        for (struct parcel *parcel = first_parcel; parcel; parcel = parcel->next)
            if (parcel->to == ROUTER && parcel->from == CLIENT(0)) {
                uint8_t *bytes = (uint8_t *)(uintptr_t)parcel->bytes->data;
                size_t skip = rng_below(&rng, 4) == 0 ? 0 : PACKET_HEADER_BYTES;
                bytes[skip + rng_below(&rng, parcel->bytes->size - skip)] ^=
                    (uint8_t)(1u << rng_below(&rng, 8));
            }
        settle();
        pass_ms(300);
        hub_tick(p->hub, now);
        settle();
        if (!hub_is_up(p->hub, p->peer))
            client_reconnect(p);
    }
    for (unsigned i = 0; i < N_SHARDS; i++)
        ck_assert(hub_is_up(router_hub(router), i + 1) || nodes[SHARD(i)].hub);
    ck_assert(hub_is_up(p->hub, p->peer));
}
END_TEST

START_TEST(an_answer_never_reaches_a_later_incarnation)
{
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    struct node *shard = &nodes[SHARD(owner_of("upload:a"))];
    shard->mute = true;
    publish(p, 9, "upload:a");
    settle();
    uint64_t asked_before = shard->held_cid;
    client_reconnect(p);
    publish(p, 9, "upload:a"); /* the same cid, of another life */
    settle();
    ck_assert_uint_ne(asked_before, shard->held_cid);
    shard_answer(shard, asked_before, 111);
    settle();
    ck_assert_uint_eq(p->packs, 0);
    ck_assert(replies_stale() == 1.0);
    shard_answer(shard, shard->held_cid, 222);
    settle();
    ck_assert_uint_eq(p->packs, 1);
    ck_assert_uint_eq(p->last_seq, 222);
    /* numbers that nobody has, and a shard's own */
    shard_answer(shard, UINT64_C(0x0001000100000009), 1);
    shard_answer(shard, UINT64_C(0xffffffffffffffff), 1);
    shard_answer(shard, 9, 1);
    settle();
    ck_assert(replies_stale() == 4.0);
}
END_TEST

START_TEST(ten_thousand_answers_find_their_askers)
{
    enum { CLIENTS = 8, EACH = 1250 };
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    for (unsigned c = 0; c < CLIENTS; c++)
        client_start(c, c % 2, c % 2 ? ROLE_GATEWAY : ROLE_PUBLISHER);
    for (unsigned n = 0; n < EACH; n++) {
        for (unsigned c = 0; c < CLIENTS; c++) {
            char key[32];
            snprintf(key, sizeof key, "upload:%u-%u", c, n % 37);
            publish_as(&nodes[CLIENT(c)], n, key, c + 1, n);
        }
        if (n % 50 == 0)
            settle();
    }
    settle();
    uint64_t at_shards = 0;
    for (unsigned i = 0; i < N_SHARDS; i++) {
        ck_assert_uint_gt(nodes[SHARD(i)].publishes, 0);
        at_shards += nodes[SHARD(i)].publishes;
    }
    ck_assert_uint_eq(at_shards, CLIENTS * EACH);
    for (unsigned c = 0; c < CLIENTS; c++) {
        ck_assert_uint_eq(nodes[CLIENT(c)].packs, EACH);
        for (unsigned n = 0; n < EACH; n++)
            ck_assert_uint_eq(nodes[CLIENT(c)].seq_of_cid[n], (c + 1) * 1000000 + n);
    }
}
END_TEST

START_TEST(ring_hints_follow_the_shards)
{
    shard_start(0);
    struct node *g = client_start(0, ROUTER_DOOR_GATEWAY, ROLE_GATEWAY);
    ck_assert_uint_ge(g->rings, 1);
    ck_assert_uint_eq(g->ring_members, N_SHARDS);
    ck_assert_uint_eq(g->ring_ranges, 1);
    ck_assert_uint_eq(g->ring_up, 1);
    shard_start(1);
    shard_start(2);
    ck_assert_uint_eq(g->ring_ranges, 3);
    ck_assert_uint_eq(g->ring_up, 3);
    shard_kill(1);
    ck_assert_uint_eq(g->ring_ranges, 2);
    ck_assert_uint_eq(g->ring_up, 2);
    ck_assert(metric_value(metrics_gauge(router_metrics, "stoa_slots_unowned", "", "")) ==
              SLOT_COUNT / N_SHARDS);
}
END_TEST

static void ask(struct node *n, uint64_t cid, const char *key, enum ask_what what)
{
    struct message m = message_of(MSG_ASK, cid, key);
    m.ask.what = what;
    hub_send(n->hub, n->peer, &m);
    settle();
}

START_TEST(questions_are_answered_here_or_by_the_owner)
{
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_ADMIN);
    ask(p, 1, "upload:a", ASK_CONNECTIONS);
    ck_assert_uint_eq(p->answer_status, 503);
    ck_assert(json_valid(strbuf_slice(&p->answer)));
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    ask(p, 2, "upload:a", ASK_CONNECTIONS);
    ck_assert_uint_eq(p->answers, 2);
    ck_assert_uint_eq(p->last_cid, 2);
    ck_assert(slice_is(strbuf_slice(&p->answer), "{\"from\":\"shard\"}"));
    ask(p, 3, "", ASK_STATUS);
    ck_assert_uint_eq(p->answers, 3);
    ck_assert_uint_eq(p->answer_status, 0);
    ck_assert(json_valid(strbuf_slice(&p->answer)));
    uint64_t value = 1;
    ck_assert(json_u64(json_get(strbuf_slice(&p->answer), "slots_unowned"), &value) && value == 0);
    ck_assert(json_u64(json_get(strbuf_slice(&p->answer), "publishers"), &value) && value == 1);
    ask(p, 4, "", ASK_KEYS);
    ck_assert_uint_eq(p->answer_status, 400);
    ck_assert(json_valid(strbuf_slice(&p->answer)));
}
END_TEST

START_TEST(draining_waits_for_what_was_forwarded)
{
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    struct node *shard = &nodes[SHARD(owner_of("upload:a"))];
    shard->mute = true;
    publish(p, 1, "upload:a");
    settle();
    router_drain(router, now);
    ck_assert(!router_ready(router));
    settle();
    ck_assert(!router_drained(router));
    publish(p, 2, "upload:a");
    settle();
    ck_assert_uint_eq(p->last_nack, NACK_BUSY);
    shard_answer(shard, shard->held_cid, 1);
    settle();
    ck_assert_uint_eq(p->packs, 1);
    ck_assert(router_drained(router));
    ck_assert(!hub_is_up(p->hub, p->peer));
}
END_TEST

START_TEST(draining_ends_without_the_answer_too)
{
    for (unsigned i = 0; i < N_SHARDS; i++)
        shard_start(i);
    struct node *p = client_start(0, ROUTER_DOOR_PUBLISH, ROLE_PUBLISHER);
    nodes[SHARD(owner_of("upload:a"))].mute = true;
    publish(p, 1, "upload:a");
    settle();
    router_drain(router, now);
    ck_assert_int_le(router_deadline(router), now.mono_ns + ROUTER_DRAIN_MS * NS_PER_MS);
    pass_ms(ROUTER_DRAIN_MS);
    settle();
    ck_assert(router_drained(router));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("router");
    TCase *tc = tcase_create("core");
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, publish_reaches_the_owner_and_the_answer_comes_back);
    tcase_add_test(tc, without_an_owner_the_asker_is_told_to_come_back);
    tcase_add_test(tc, lost_is_told_when_the_shard_serves_again);
    tcase_add_test(tc, contested_slots_are_refused_for_both);
    tcase_add_test(tc, each_door_takes_its_own_messages);
    tcase_add_test(tc, a_stream_is_under_way_until_its_end);
    tcase_add_test(tc, a_shard_calls_a_room_of_another);
    tcase_add_test(tc, roles_come_in_by_their_own_door);
    tcase_add_test(tc, our_own_keys_are_written_by_gateways_only);
    tcase_add_test(tc, hostile_prefixes_have_no_effect);
    tcase_add_loop_test(tc, damaged_packets_do_no_harm, 0, 10);
    tcase_add_test(tc, an_answer_never_reaches_a_later_incarnation);
    tcase_add_test(tc, ten_thousand_answers_find_their_askers);
    tcase_add_test(tc, ring_hints_follow_the_shards);
    tcase_add_test(tc, questions_are_answered_here_or_by_the_owner);
    tcase_add_test(tc, draining_waits_for_what_was_forwarded);
    tcase_add_test(tc, draining_ends_without_the_answer_too);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
