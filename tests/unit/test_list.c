/* The intrusive list: order, removal while walking, and what an unlinked node is. */
#include "common/list.h"

#include <check.h>
#include <stdlib.h>

struct guest {
    int number;
    struct list link;
};

START_TEST(keeps_order)
{
    struct list head;
    list_init(&head);
    ck_assert(list_empty(&head));
    struct guest guests[5];
    for (int i = 0; i < 5; i++) {
        guests[i].number = i;
        list_push_back(&head, &guests[i].link);
    }
    ck_assert(!list_empty(&head));
    int expected = 0;
    LIST_EACH(node, after, &head)
    ck_assert_int_eq(LIST_ENTRY(node, struct guest, link)->number, expected++);
    ck_assert_int_eq(expected, 5);
}
END_TEST

START_TEST(removal_while_walking)
{
    struct list head;
    list_init(&head);
    struct guest guests[6];
    for (int i = 0; i < 6; i++) {
        guests[i].number = i;
        list_push_back(&head, &guests[i].link);
    }
    LIST_EACH(node, after, &head)
    {
        if (LIST_ENTRY(node, struct guest, link)->number % 2 == 0)
            list_remove(node);
    }
    int expected = 1;
    LIST_EACH(node, after, &head)
    {
        ck_assert_int_eq(LIST_ENTRY(node, struct guest, link)->number, expected);
        expected += 2;
    }
    ck_assert_int_eq(expected, 7);
    /* An unlinked node is an empty list; removing it again harms nobody. */
    ck_assert(list_empty(&guests[0].link));
    list_remove(&guests[0].link);
    list_push_back(&head, &guests[0].link);
    ck_assert_ptr_eq(head.prev, &guests[0].link);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("list");
    TCase *t = tcase_create("list");
    tcase_add_test(t, keeps_order);
    tcase_add_test(t, removal_while_walking);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
