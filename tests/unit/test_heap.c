/* The heap against a model: an array searched for its minimum. */
#include "common/heap.h"
#include "common/rng.h"
#include "common/tick.h"

#include <check.h>
#include <stdlib.h>

#define NODES 200

/* For checks inside long loops: a passing ck_assert costs a system call. */
#define must(condition)           \
    do {                          \
        if (!(condition))         \
            ck_assert(condition); \
    } while (0)

static int64_t model_next(const struct heap_node *nodes)
{
    int64_t next = TICK_NEVER;
    for (size_t i = 0; i < NODES; i++) {
        if (heap_has(&nodes[i]) && nodes[i].due < next)
            next = nodes[i].due;
    }
    return next;
}

static void heap_validate(const struct heap *h)
{
    for (size_t i = 0; i < h->count; i++) {
        must(h->nodes[i]->place == i + 1);
        must(i == 0 || h->nodes[(i - 1) / 2]->due <= h->nodes[i]->due);
    }
}

START_TEST(behaves_as_the_model)
{
    struct heap h = {0};
    struct heap_node nodes[NODES] = {0};
    bool in[NODES] = {0};
    int64_t dues[NODES] = {0};
    size_t count = 0;
    struct rng r;
    rng_seed(&r, 40 + (uint64_t)_i);
    for (int step = 0; step < 20000; step++) {
        size_t i = rng_below(&r, NODES);
        int64_t due = (int64_t)rng_below(&r, 500);
        switch (rng_below(&r, 4)) {
        case 0:
        case 1:
            heap_set(&h, &nodes[i], due);
            count += !in[i];
            in[i] = true;
            dues[i] = due;
            break;
        case 2:
            heap_remove(&h, &nodes[i]);
            count -= in[i];
            in[i] = false;
            break;
        default: {
            int64_t next = model_next(nodes);
            struct heap_node *node = heap_pop_due(&h, due);
            if (next > due) {
                must(node == NULL);
            } else {
                must(node != NULL);
                must(node->due == next);
                must(!heap_has(node));
                in[node - nodes] = false;
                count--;
            }
        }
        }
        must(h.count == count);
        must(heap_next(&h) == model_next(nodes));
        for (size_t j = 0; j < NODES; j++) {
            must(heap_has(&nodes[j]) == in[j]);
            must(!in[j] || nodes[j].due == dues[j]);
        }
        heap_validate(&h);
    }
    heap_free(&h);
    for (size_t j = 0; j < NODES; j++)
        ck_assert(!heap_has(&nodes[j]));
}
END_TEST

START_TEST(edges)
{
    struct heap h = {0};
    struct heap_node a = {0}, b = {0};
    ck_assert_int_eq(heap_next(&h), TICK_NEVER);
    ck_assert_ptr_null(heap_pop_due(&h, TICK_NEVER));
    heap_remove(&h, &a);
    heap_set(&h, &a, 10);
    heap_set(&h, &b, -5);
    ck_assert_int_eq(heap_next(&h), -5);
    ck_assert_ptr_null(heap_pop_due(&h, -6));
    ck_assert_ptr_eq(heap_pop_due(&h, 10), &b);
    ck_assert_ptr_null(heap_pop_due(&h, 9));
    ck_assert_ptr_eq(heap_pop_due(&h, 10), &a);
    ck_assert_uint_eq(h.count, 0);
    heap_free(&h);
}
END_TEST

START_TEST(same_inputs_same_order)
{
    size_t orders[2][NODES];
    for (int run = 0; run < 2; run++) {
        struct heap h = {0};
        struct heap_node nodes[NODES] = {0};
        for (int i = 0; i < NODES; i++)
            heap_set(&h, &nodes[i], i % 7);
        for (int i = 0; i < NODES; i++)
            orders[run][i] = (size_t)(heap_pop_due(&h, 100) - nodes);
        heap_free(&h);
    }
    ck_assert_mem_eq(orders[0], orders[1], sizeof orders[0]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("heap");
    TCase *t = tcase_create("heap");
    tcase_add_loop_test(t, behaves_as_the_model, 0, 4);
    tcase_add_test(t, edges);
    tcase_add_test(t, same_inputs_same_order);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
