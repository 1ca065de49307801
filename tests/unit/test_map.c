/* The map against a model that cannot be wrong: an array in insertion order, searched linearly. */
#include "common/map.h"
#include "common/mem.h"
#include "common/rng.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define KEYS 400

struct item {
    char key[24];
    size_t size;
};

/* For checks inside long loops: a passing ck_assert costs a system call. */
#define must(condition)           \
    do {                          \
        if (!(condition))         \
            ck_assert(condition); \
    } while (0)

static struct item items[KEYS];

struct model {
    struct item *at[KEYS]; /* in insertion order */
    size_t count;
};

static void items_fill(void)
{
    for (size_t i = 0; i < KEYS; i++)
        items[i].size = (size_t)snprintf(items[i].key, sizeof items[i].key, "room:%zu", i * i);
    items[0].size = 0; /* the empty key is a key */
}

static struct slice item_key(const struct item *i)
{
    return slice_of(i->key, i->size);
}

static size_t model_find(const struct model *model, const struct item *item)
{
    size_t i = 0;
    while (i < model->count && model->at[i] != item)
        i++;
    return i;
}

static void model_remove(struct model *model, size_t i)
{
    memmove(&model->at[i], &model->at[i + 1], (--model->count - i) * sizeof *model->at);
}

static void check_same(const struct map *m, const struct model *model)
{
    ck_assert_uint_eq(map_count(m), model->count);
    size_t cursor = 0;
    for (size_t i = 0; i < model->count; i++)
        must(map_next(m, &cursor) == model->at[i]);
    ck_assert_ptr_null(map_next(m, &cursor));
    ck_assert_ptr_null(map_next(m, &cursor));
}

/* Walks the map and removes about one in `every` on the way. */
static void sweep(struct map *m, struct model *model, struct rng *r, uint64_t every)
{
    size_t cursor = 0, at = 0;
    struct item *item;
    while ((item = map_next(m, &cursor))) {
        ck_assert_ptr_eq(item, model->at[at]);
        if (rng_below(r, every) == 0) {
            ck_assert_ptr_eq(map_remove(m, item_key(item)), item);
            model_remove(model, at);
        } else {
            at++;
        }
    }
    ck_assert_uint_eq(at, model->count);
}

START_TEST(behaves_as_the_model)
{
    struct rng r;
    rng_seed(&r, 100 + (uint64_t)_i);
    struct map *m = map_create(rng_u64(&r));
    struct model model = {0};
    items_fill();
    /* Few different keys keep the map small and its runs of the index wrapping around. */
    uint64_t keys = _i % 2 ? KEYS : 12;
    for (int step = 0; step < 20000; step++) {
        struct item *item = &items[rng_below(&r, keys)];
        size_t place = model_find(&model, item);
        bool present = place < model.count;
        must(map_get(m, item_key(item)) == (present ? item : NULL));
        /* The share of puts drifts, so that the map grows and drains in turn. */
        bool put = rng_below(&r, 100) < (step / 2000 % 2 ? 35 : 65);
        if (put && !present) {
            map_put(m, item_key(item), item);
            model.at[model.count++] = item;
        } else if (!put) {
            must(map_remove(m, item_key(item)) == (present ? item : NULL));
            if (present)
                model_remove(&model, place);
        }
        if (step % 97 == 0)
            check_same(m, &model);
        if (step % 211 == 0)
            map_shrink(m);
        if (step % 1999 == 0)
            sweep(m, &model, &r, 1 + rng_below(&r, 4));
    }
    check_same(m, &model);
    map_destroy(&m);
    ck_assert_ptr_null(m);
    map_destroy(&m);
}
END_TEST

START_TEST(empty_map)
{
    struct map *m = map_create(1);
    size_t cursor = 0;
    ck_assert_uint_eq(map_count(m), 0);
    ck_assert_ptr_null(map_get(m, slice_text("a")));
    ck_assert_ptr_null(map_remove(m, slice_text("a")));
    ck_assert_ptr_null(map_next(m, &cursor));
    map_destroy(&m);
}
END_TEST

START_TEST(same_key_twice_is_a_programmer_error)
{
    struct map *m = map_create(1);
    int value;
    map_put(m, slice_text("a"), &value);
    map_put(m, slice_text("a"), &value);
}
END_TEST

START_TEST(ids_are_keys)
{
    uint64_t ids[3] = {0, UINT64_MAX, 77};
    struct map *m = map_create(9);
    for (int i = 0; i < 3; i++)
        map_put(m, map_id(&ids[i]), &ids[i]);
    for (int i = 0; i < 3; i++) {
        uint64_t same = ids[i];
        ck_assert_ptr_eq(map_get(m, map_id(&same)), &ids[i]);
    }
    map_destroy(&m);
}
END_TEST

START_TEST(memory_an_entry)
{
    enum { N = 100000 };
    uint64_t *ids = mem_alloc(N * sizeof *ids);
    struct map *m = map_create(5);
    size_t sum = 0, largest = 0;
    for (uint64_t i = 0; i < N; i++) {
        ids[i] = i;
        map_put(m, map_id(&ids[i]), &ids[i]);
        if (i >= 10000) {
            size_t each = map_bytes(m) / (i + 1);
            largest = each > largest ? each : largest;
            sum += each;
        }
    }
    ck_assert_uint_le(largest, 40);
    ck_assert_uint_le(sum / (N - 10000), 34);
    for (uint64_t i = 0; i < N; i++)
        must(map_get(m, map_id(&i)) == &ids[i]);
    size_t most = map_bytes(m);
    map_shrink(m);
    ck_assert_uint_eq(map_bytes(m), most); /* nothing to give back */
    for (uint64_t i = 0; i < N - 100; i++)
        must(map_remove(m, map_id(&ids[i])) == &ids[i]);
    ck_assert_uint_eq(map_bytes(m), most);
    map_shrink(m);
    ck_assert_uint_le(map_bytes(m), 10000);
    for (uint64_t i = 0; i < N; i++)
        must(map_get(m, map_id(&i)) == (i < N - 100 ? NULL : &ids[i]));
    map_destroy(&m);
    mem_free(ids);
}
END_TEST

/* A queue of live entries under everlasting turnover: memory stays what its length needs. */
START_TEST(turnover_does_not_grow)
{
    enum { LIVE = 1000, ROUNDS = 200000 };
    uint64_t ids[LIVE];
    struct map *m = map_create(6);
    size_t settled = 0;
    struct rng r;
    rng_seed(&r, 8);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        /* _i: 0 oldest first, 1 newest first, 2 any */
        uint64_t *id = &ids[i % LIVE];
        if (i >= LIVE) {
            if (_i == 1)
                id = &ids[LIVE - 1];
            else if (_i == 2)
                id = &ids[rng_below(&r, LIVE)];
            must(map_remove(m, map_id(id)) == id);
        }
        *id = i + 1;
        map_put(m, map_id(id), id);
        if (i == 3 * LIVE)
            settled = map_bytes(m);
    }
    ck_assert_uint_eq(map_count(m), LIVE);
    ck_assert_uint_le(map_bytes(m), settled + settled / 2);
    ck_assert_uint_le(map_bytes(m), 60 * LIVE);
    map_destroy(&m);
}
END_TEST

/* Draining through map_next from the start each time must not walk over all holes again. */
START_TEST(draining_from_the_front)
{
    enum { N = 200000 };
    uint64_t *ids = mem_alloc(N * sizeof *ids);
    struct map *m = map_create(7);
    for (uint64_t i = 0; i < N; i++) {
        ids[i] = i;
        map_put(m, map_id(&ids[i]), &ids[i]);
    }
    for (uint64_t i = 0; i < N; i++) {
        size_t cursor = 0;
        uint64_t *first = map_next(m, &cursor);
        must(first == &ids[i]);
        map_remove(m, map_id(first));
    }
    ck_assert_uint_eq(map_count(m), 0);
    map_destroy(&m);
    mem_free(ids);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("map");
    TCase *t = tcase_create("map");
    tcase_add_loop_test(t, behaves_as_the_model, 0, 8);
    tcase_add_test(t, empty_map);
    tcase_add_test_raise_signal(t, same_key_twice_is_a_programmer_error, SIGABRT);
    tcase_add_test(t, ids_are_keys);
    tcase_add_test(t, memory_an_entry);
    tcase_add_loop_test(t, turnover_does_not_grow, 0, 3);
    tcase_add_test(t, draining_from_the_front);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
