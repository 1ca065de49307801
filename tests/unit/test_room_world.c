/* The world of room tests (shard/room_test/world.h) as tests in C use it: the counter of
 * examples/counter, from where it was built. */
#include "shard/room_test/world.h"
#include "shard/shell_plugin.h"

#include "common/mem.h"

#include <check.h>
#include <stdlib.h>

static struct log no_log = {.level = LOG_ERROR + 1};
static struct handler *counter;
static struct world *world;

static void begin(void)
{
    struct strbuf why = {0};
    ck_assert_int_eq(plugin_load_file(&counter, ROOMS "/counter.so", slice_text(""), &why), ERR_OK);
    world = world_create(&no_log);
    world_type(world, &(struct shard_type){.name = "counter",
                                           .handler = counter,
                                           .retention = {.age_ms = 3600000, .count = 100}});
    world_start(world);
    strbuf_free(&why);
}

static void end(void)
{
    world_destroy(&world);
    ck_assert_ptr_null(world);
    counter->vtable->destroy(counter);
}

static const struct slice key = {(const uint8_t *)"counter:one", 11};

static struct world_connection *enter(const char *request)
{
    struct world_answer refusal;
    struct world_connection *c = world_join(world, key, slice_text(request), &refusal);
    ck_assert_ptr_nonnull(c);
    world_answer_free(&refusal);
    return c;
}

static void ck_took(struct world_connection *c, const char *wanted)
{
    struct strbuf message = {0};
    ck_assert(world_connection_take(c, &message));
    ck_assert(slice_is(strbuf_slice(&message), wanted));
    strbuf_free(&message);
}

static void ck_call(enum call_verb verb, const char *name, const char *input, unsigned status,
                    const char *wanted)
{
    struct world_answer a;
    world_call(world, key, verb, slice_text(name), slice_text(input), &a);
    ck_assert_uint_eq(a.status, status);
    ck_assert(slice_is(status ? strbuf_slice(&a.tag) : strbuf_slice(&a.json), wanted));
    world_answer_free(&a);
}

START_TEST(frames_calls_and_closes)
{
    begin();
    struct world_connection *ann = enter("{\"query\":{\"name\":\"ann\"}}");
    struct strbuf none = {0};
    unsigned code;
    struct slice reason;
    ck_assert(slice_is(world_connection_id(ann), "ann"));
    ck_took(ann, "{\"count\":0}");
    ck_assert(world_receive(world, ann, slice_text("{\"add\":2}"), true));
    ck_took(ann, "{\"count\":2}");
    ck_assert(!world_connection_take(ann, &none));
    ck_call(VERB_METHOD, "get", "", 0, "2");
    ck_call(VERB_METHOD, "other", "", 404, "NoSuchMethod");
    ck_assert(world_connection_open(ann, &code, &reason));
    world_leave(world, ann, 1000, slice_text("bye"));
    ck_assert(!world_connection_open(ann, &code, &reason));
    ck_assert_uint_eq(code, 1000);
    ck_assert(slice_is(reason, "bye"));
    ck_assert(!world_receive(world, ann, slice_text("{\"add\":2}"), true));
    ck_call(VERB_CONNECTIONS, "", "", 0, "[]");
    end();
}
END_TEST

START_TEST(refusals_have_their_status)
{
    struct world_answer refusal;
    begin();
    ck_assert_ptr_null(world_join(world, key, slice_text("{\"query\":{\"name\":\"\"}}"), &refusal));
    ck_assert_uint_eq(refusal.status, 400);
    ck_assert(slice_is(strbuf_slice(&refusal.text), "name must not be empty"));
    world_answer_free(&refusal);
    end();
}
END_TEST

START_TEST(crashes_full_disks_and_the_clock)
{
    int64_t due;
    begin();
    struct world_connection *ann = enter("{\"query\":{}}");
    ck_took(ann, "{\"count\":0}");
    ck_assert(world_receive(world, ann, slice_text("{\"add\":1}"), true));
    world_fill(world, 1);
    ck_call(VERB_METHOD, "add", "{\"by\":5}", 503, "DiskFull");
    world_fill(world, 0);
    world_stop(world, false);
    world_start(world);
    ck_assert(world_receive(world, ann, slice_text("{\"add\":1}"), true));
    ck_took(ann, "{\"count\":1}");
    ck_took(ann, "{\"count\":2}");
    ck_assert(world_alarm(world, key, &due));
    ck_assert_int_eq(due, world_now_ms(world) + 3600000);
    world_wait(world, 3600000);
    ck_took(ann, "{\"count\":0}");
    ck_assert(!world_alarm(world, key, &due));
    end();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("room_world");
    TCase *tcase = tcase_create("room_world");
    tcase_add_test(tcase, frames_calls_and_closes);
    tcase_add_test(tcase, refusals_have_their_status);
    tcase_add_test(tcase, crashes_full_disks_and_the_clock);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
