/* The slot table: highest epoch wins, contested slots serve nobody, a down owner is not routed to.
 */
#include <check.h>

#include "proto/slots.h"

static const uint8_t node_a[16] = {1};
static const uint8_t node_b[16] = {2};

static void claim(struct slots *s, uint32_t peer, const uint8_t node[16], uint64_t boot,
                  uint64_t lo, uint64_t hi, uint64_t epoch)
{
    struct slot_range range = {lo, hi, epoch};
    slots_claim(s, peer, node, boot, &range, 1, NULL);
}

static void expect_owner(const struct slots *s, uint16_t slot, uint32_t peer, uint64_t epoch)
{
    struct slot_owner owner = slots_owner(s, slot);
    ck_assert_uint_eq(owner.peer, peer);
    ck_assert_uint_eq(owner.epoch, epoch);
}

START_TEST(nobody_at_first)
{
    struct slots *s = slots_create();
    expect_owner(s, 0, 0, 0);
    expect_owner(s, SLOT_COUNT - 1, 0, 0);
    ck_assert_uint_eq(slots_unowned(s), SLOT_COUNT);
    ck_assert_uint_eq(slots_owned(s, 1), 0);
    slots_destroy(&s);
    ck_assert_ptr_null(s);
}
END_TEST

START_TEST(two_shards_share)
{
    struct slots *s = slots_create();
    claim(s, 1, node_a, 1, 0, 8191, 1);
    claim(s, 2, node_b, 1, 8192, SLOT_COUNT - 1, 1);
    expect_owner(s, 8191, 1, 1);
    expect_owner(s, 8192, 2, 1);
    ck_assert_uint_eq(slots_owned(s, 1), 8192);
    ck_assert_uint_eq(slots_unowned(s), 0);
    slots_destroy(&s);
}
END_TEST

START_TEST(highest_epoch_wins_in_any_order)
{
    struct slots *s = slots_create();
    claim(s, 1, node_a, 1, 0, 99, 5);
    claim(s, 2, node_b, 1, 50, 59, 6);
    claim(s, 1, node_a, 1, 0, 99, 5); /* the old owner repeats itself */
    expect_owner(s, 50, 2, 6);
    expect_owner(s, 49, 1, 5);
    ck_assert_uint_eq(slots_owned(s, 1), 90);
    ck_assert_uint_eq(slots_owned(s, 2), 10);
    slots_destroy(&s);
}
END_TEST

START_TEST(an_older_epoch_does_not_win_again)
{
    struct slots *s = slots_create();
    claim(s, 1, node_a, 1, 0, 0, 5);
    claim(s, 2, node_b, 1, 0, 0, 6);
    slots_forget(s, 2);
    expect_owner(s, 0, 0, 6);
    claim(s, 1, node_a, 1, 0, 0, 7);
    expect_owner(s, 0, 1, 7);
    slots_destroy(&s);
}
END_TEST

START_TEST(contested_serves_nobody_until_withdrawn)
{
    struct slots *s = slots_create();
    claim(s, 1, node_a, 1, 0, 9, 3);
    claim(s, 2, node_b, 1, 5, 14, 3);
    expect_owner(s, 4, 1, 3);
    expect_owner(s, 5, 0, 3);
    expect_owner(s, 10, 2, 3);
    ck_assert_uint_eq(slots_owned(s, 1), 5);
    slots_peer_down(s, 2); /* down is not withdrawn */
    expect_owner(s, 5, 0, 3);
    claim(s, 2, node_b, 1, 10, 14, 3);
    expect_owner(s, 5, 1, 3);
    claim(s, 2, node_b, 1, 5, 5, 4); /* a higher epoch settles it as well */
    expect_owner(s, 5, 2, 4);
    slots_destroy(&s);
}
END_TEST

START_TEST(one_node_from_two_boots)
{
    struct slots *s = slots_create();
    claim(s, 1, node_a, 10, 0, 9, 3);
    claim(s, 2, node_a, 11, 0, 9, 3);
    expect_owner(s, 0, 0, 3);
    slots_peer_down(s, 1); /* it now runs elsewhere */
    expect_owner(s, 0, 2, 3);
    claim(s, 1, node_a, 10, 0, 9, 3);
    expect_owner(s, 0, 0, 3);
    claim(s, 1, node_a, 11, 0, 9, 3); /* one process behind two links */
    ck_assert_uint_ne(slots_owner(s, 0).peer, 0);
    slots_destroy(&s);
}
END_TEST

START_TEST(a_down_owner_keeps_its_slots)
{
    struct slots *s = slots_create();
    claim(s, 1, node_a, 1, 0, SLOT_COUNT - 1, 1);
    slots_peer_down(s, 1);
    expect_owner(s, 7, 0, 1);
    ck_assert_uint_eq(slots_owned(s, 1), SLOT_COUNT);
    ck_assert_uint_eq(slots_unowned(s), SLOT_COUNT);
    claim(s, 1, node_a, 2, 0, SLOT_COUNT - 1, 1); /* restarted */
    expect_owner(s, 7, 1, 1);
    slots_claim(s, 1, node_a, 2, NULL, 0, NULL); /* gave all away */
    expect_owner(s, 7, 0, 1);
    slots_peer_down(s, 99); /* strangers are no matter */
    slots_forget(s, 99);
    slots_destroy(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("slots");
    TCase *tc = tcase_create("table");
    tcase_add_test(tc, nobody_at_first);
    tcase_add_test(tc, two_shards_share);
    tcase_add_test(tc, highest_epoch_wins_in_any_order);
    tcase_add_test(tc, an_older_epoch_does_not_win_again);
    tcase_add_test(tc, contested_serves_nobody_until_withdrawn);
    tcase_add_test(tc, one_node_from_two_boots);
    tcase_add_test(tc, a_down_owner_keeps_its_slots);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
