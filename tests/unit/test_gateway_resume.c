/* Where a reader begins, and the truth about what it missed, in every dialect. */
#include "gateway_world.h"

#define KEY "k"

static void fill(unsigned count)
{
    char text[16];
    for (unsigned n = 1; n <= count; n++) {
        snprintf(text, sizeof text, "%u", n);
        room_append(KEY, text);
    }
}

static void expect_numbers(struct client *c, unsigned from, unsigned to)
{
    char text[16];
    for (unsigned n = from; n <= to; n++) {
        snprintf(text, sizeof text, "%u", n);
        ck_assert_str_eq(frame(c), text);
    }
    ck_assert_str_eq(frame(c), "");
}

static const struct {
    const char *query;
    unsigned from; /* first number replayed of 10; 11: none */
} starts[] = {
    {"", 11},
    {"&replay=none", 11},
    {"&replay=0", 11},
    {"&replay=all", 1},
    {"&replay=3", 8},
    {"&replay=500", 1},
    {"&after=0", 1},
    {"&after=100-4", 5},
    {"&after=100-10", 11},
    {"&after=100-0", 1},
    {"&after=100-7&replay=all", 8},
};

START_TEST(test_starts)
{
    char target[64];
    fill(10);
    snprintf(target, sizeof target, "/events?key=" KEY "%s", starts[_i].query);
    struct client *c = open_raw(1, target);
    expect_numbers(c, starts[_i].from, 10);
    room_publish(KEY, "11");
    expect_numbers(c, 11, 11);
}
END_TEST

START_TEST(test_small_pages)
{
    fill(100);
    faults.page_items = 7;
    struct client *c = open_raw(1, "/events?key=" KEY "&replay=all");
    expect_numbers(c, 1, 100);
    struct client *last = open_raw(2, "/events?key=" KEY "&replay=20");
    expect_numbers(last, 81, 100);
}
END_TEST

START_TEST(test_pages_are_shared)
{
    fill(10);
    faults.hold_pages = true;
    for (unsigned i = 1; i <= 20; i++)
        open_raw(i, "/events?key=" KEY "&after=100-5");
    open_raw(21, "/events?key=" KEY "&after=100-6");
    ck_assert_uint_eq(n_replays, 2);
    faults.hold_pages = false;
    release_pages();
    for (unsigned i = 1; i <= 20; i++) {
        ck_assert_ptr_eq(clients[i].last_buf, clients[1].last_buf);
        expect_numbers(&clients[i], 6, 10);
    }
    expect_numbers(&clients[21], 7, 10);
}
END_TEST

START_TEST(test_conflated)
{
    room_conflate(KEY, "p", "1");
    room_conflate(KEY, "p", "2");
    room_append(KEY, "3");
    room_conflate(KEY, "p", "4");
    room_conflate(KEY, "p", "5");
    struct client *c = open_raw(1, "/events?key=" KEY "&after=100-1");
    ck_assert_str_eq(frame(c), "3");
    ck_assert_str_eq(frame(c), "5");
    ck_assert_str_eq(frame(c), "");
    struct client *last = open_raw(2, "/events?key=" KEY "&replay=2");
    ck_assert_str_eq(frame(last), "3");
    ck_assert_str_eq(frame(last), "5");
    /* The newest event is one that was superseded when the page was read: nobody waits for it. */
    room_publish(KEY, "6");
    ck_assert_str_eq(frame(c), "6");
    ck_assert_str_eq(frame(last), "6");
}
END_TEST

START_TEST(test_malformed)
{
    static const struct {
        const char *query, *tag;
    } table[] = {
        {"&after=", "BadId"},         {"&after=x-y-z", "BadId"},     {"&after=100-", "BadId"},
        {"&after=-1", "BadId"},       {"&after=1&after=2", "BadId"}, {"&replay=some", "BadRequest"},
        {"&replay=-1", "BadRequest"}, {"&replay=", "BadRequest"},    {"&after=%zz", "BadId"}};
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++) {
        char target[64];
        snprintf(target, sizeof target, "/events?key=" KEY "%s", table[i].query);
        struct client *c = upgrade(i, target, NULL);
        ck_assert(!c->upgraded);
        ck_assert_uint_eq(c->status, 400);
        ck_assert_ptr_nonnull(strstr(c->body, table[i].tag));
    }
}
END_TEST

START_TEST(test_last_event_id)
{
    fill(5);
    struct client *c = open_sse(1, "/events?key=" KEY "&after=100-1", "Last-Event-ID: 100-3");
    ck_assert_str_eq(rest(c), "retry: 1000\n\nid: 100-4\ndata: 4\n\nid: 100-5\ndata: 5\n\n");
    ask(2, "GET /events?key=" KEY, "Last-Event-ID: nonsense", NULL);
    ASSERT_ERROR(&clients[2], 400, "BadId");
}
END_TEST

/* What the shard says is gone, and how it is told. */
static const struct {
    unsigned floor;
    enum miss_reason reason;
    const char *after, *to, *name;
} misses[] = {
    {5, MISS_EXPIRED, "100-2", "100-5", "expired"}, {5, MISS_EVICTED, "100-2", "100-5", "evicted"},
    {10, MISS_PURGED, "100-9", "100-10", "purged"}, {5, MISS_EXPIRED, "0", "100-5", "expired"},
    {3, MISS_EVICTED, "100-99", "100-3", "epoch"},  {0, MISS_NONE, "zz-7", "100-0", "epoch"},
};

START_TEST(test_missed)
{
    char target[80], wanted[256];
    fill(10);
    room_trim(KEY, misses[_i].floor, misses[_i].reason);
    snprintf(target, sizeof target, "/events?key=" KEY "&after=%s", misses[_i].after);
    struct client *raw = open_raw(1, target);
    ck_assert(raw->closed);
    ck_assert_uint_eq(raw->code, 4010);
    snprintf(wanted, sizeof wanted, "missed %s %s %s", misses[_i].after, misses[_i].to,
             misses[_i].name);
    ck_assert_str_eq(raw->reason, wanted);
    ck_assert_uint_eq(raw->out.size, 0);

    struct client *sse = open_sse(2, target, NULL);
    snprintf(wanted, sizeof wanted,
             "retry: 1000\n\nid: %s\nevent: missed\ndata: "
             "{\"from\":\"%s\",\"to\":\"%s\",\"reason\":\"%s\"}\n\n",
             misses[_i].to, misses[_i].after, misses[_i].to, misses[_i].name);
    const char *text = rest(sse);
    ck_assert_ptr_eq(strstr(text, wanted), text);
    if (misses[_i].floor < 10) {
        snprintf(target, sizeof target, "id: 100-%u\n", misses[_i].floor + 1);
        ck_assert_ptr_eq(strstr(text, target), text + strlen(wanted));
    }

    struct client *v1 = open_v1(3);
    snprintf(target, sizeof target, "{\"sub\":\"" KEY "\",\"after\":\"%s\"}", misses[_i].after);
    say(3, target);
    snprintf(wanted, sizeof wanted,
             "{\"sub\":\"k\",\"status\":\"missed\",\"missed\":{\"from\":\"%s\",\"to\":\"%s\","
             "\"reason\":\"%s\"},\"head\":\"100-10\"}",
             misses[_i].after, misses[_i].to, misses[_i].name);
    ck_assert_str_eq(frame(v1), wanted);

    snprintf(target, sizeof target, "GET /log?key=" KEY "&after=%s", misses[_i].after);
    struct client *log = ask(4, target, NULL, NULL);
    snprintf(wanted, sizeof wanted, "\"missed\":{\"from\":\"%s\",\"to\":\"%s\",\"reason\":\"%s\"}",
             misses[_i].after, misses[_i].to, misses[_i].name);
    ck_assert_ptr_nonnull(strstr(log->body, wanted));
    char label[40];
    snprintf(label, sizeof label, "reason=\"%s\"", misses[_i].name);
    ck_assert_uint_eq((unsigned)metric("stoa_missed_total", label), 3);
}
END_TEST

/* Whoever asks for what is retained has missed nothing. */
START_TEST(test_all_of_a_trimmed_log)
{
    fill(10);
    room_trim(KEY, 6, MISS_EVICTED);
    struct client *c = open_raw(1, "/events?key=" KEY "&replay=all");
    expect_numbers(c, 7, 10);
    struct client *some = open_raw(2, "/events?key=" KEY "&replay=8");
    expect_numbers(some, 7, 10);
    struct client *log = ask(3, "GET /log?key=" KEY, NULL, NULL);
    ck_assert_ptr_null(strstr(log->body, "missed"));
    ck_assert(!c->closed && !some->closed);
}
END_TEST

/* Subscribed before the first event, resumed after it: nothing was missed. */
START_TEST(test_before_the_first_event)
{
    struct client *early = open_v1(1);
    say(1, "{\"sub\":\"k\",\"after\":\"0\"}");
    ck_assert_str_eq(frame(early), "{\"sub\":\"k\",\"status\":\"resumed\",\"head\":\"0\"}");
    room_publish(KEY, "1");
    ck_assert_ptr_nonnull(strstr(frame(early), "\"id\":\"100-1\""));
    struct client *again = open_raw(2, "/events?key=" KEY "&after=0");
    expect_numbers(again, 1, 1);
}
END_TEST

START_TEST(test_log)
{
    fill(10);
    char wanted[256];
    struct client *c = ask(1, "GET /log?key=" KEY "&after=100-8", NULL, NULL);
    snprintf(
        wanted, sizeof wanted,
        "{\"key\":\"k\",\"head\":\"100-10\",\"events\":[{\"id\":\"100-9\",\"ts\":%lld,\"data\":"
        "9},{\"id\":\"100-10\",\"ts\":%lld,\"data\":10}],\"more\":false}",
        (long long)now.wall_ms, (long long)now.wall_ms);
    ck_assert_str_eq(c->body, wanted);
    c = ask(2, "GET /log?key=" KEY "&limit=3", NULL, NULL);
    ck_assert_ptr_nonnull(strstr(c->body, "\"data\":3}],\"more\":true}"));
    c = ask(3, "GET /log?key=" KEY "&last=2", "Accept: application/x-ndjson", NULL);
    snprintf(
        wanted, sizeof wanted,
        "{\"id\":\"100-9\",\"ts\":%lld,\"data\":9}\n{\"id\":\"100-10\",\"ts\":%lld,\"data\":10}\n",
        (long long)now.wall_ms, (long long)now.wall_ms);
    ck_assert_str_eq(c->content_type, "application/x-ndjson");
    ck_assert_str_eq(c->body, wanted);
    c = ask(4, "GET /log?key=nobody&after=0", NULL, NULL);
    ck_assert_str_eq(c->body, "{\"key\":\"nobody\",\"head\":\"0\",\"events\":[],\"more\":false}");
    room_append_bytes(KEY, "\xff", 1);
    c = ask(5, "GET /log?key=" KEY "&last=1", NULL, NULL);
    ck_assert_ptr_nonnull(strstr(c->body, "\"base64\":\"/w==\"}"));
    static const char *const bad[] = {"&limit=0", "&limit=1001", "&limit=x", "&last=0",
                                      "&last=3&after=0"};
    for (unsigned i = 0; i < 5; i++) {
        snprintf(wanted, sizeof wanted, "GET /log?key=" KEY "%s", bad[i]);
        ask(10 + i, wanted, NULL, NULL);
        ASSERT_ERROR(&clients[10 + i], 400, "BadRequest");
    }
    ask(20, "GET /log?key=" KEY "&after=1", NULL, NULL);
    ASSERT_ERROR(&clients[20], 400, "BadId");
    faults.page_items = 3; /* an answer of several pages */
    c = ask(21, "GET /log?key=" KEY "&after=0&limit=10", NULL, NULL);
    ck_assert_ptr_nonnull(strstr(c->body, "\"data\":10}],\"more\":true}"));
}
END_TEST

START_TEST(test_purge)
{
    struct client *live = open_v1(1);
    fill(3);
    say(1, "{\"sub\":\"k\",\"replay\":\"all\"}");
    struct client *c = ask(2, "DELETE /log?key=" KEY, NULL, NULL);
    ck_assert_str_eq(c->body, "{\"purged\":\"100-3\"}");
    c = ask(3, "GET /log?key=" KEY "&after=100-1", NULL, NULL);
    ck_assert_ptr_nonnull(strstr(c->body, "\"events\":[],\"missed\":{\"from\":\"100-1\",\"to\":"
                                          "\"100-3\",\"reason\":\"purged\"}"));
    rest(live);
    room_publish(KEY, "4");
    ck_assert_ptr_nonnull(strstr(frame(live), "\"id\":\"100-4\""));
    c = ask(4, "DELETE /api/upload/1", NULL, NULL);
    ck_assert_uint_eq(c->status, 200);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("resume");
    tcase_add_checked_fixture(tc, world_setup, world_teardown);
    tcase_add_loop_test(tc, test_starts, 0, sizeof starts / sizeof *starts);
    tcase_add_test(tc, test_small_pages);
    tcase_add_test(tc, test_pages_are_shared);
    tcase_add_test(tc, test_conflated);
    tcase_add_test(tc, test_malformed);
    tcase_add_test(tc, test_last_event_id);
    tcase_add_loop_test(tc, test_missed, 0, sizeof misses / sizeof *misses);
    tcase_add_test(tc, test_all_of_a_trimmed_log);
    tcase_add_test(tc, test_before_the_first_event);
    tcase_add_test(tc, test_log);
    tcase_add_test(tc, test_purge);
    Suite *suite = suite_create("gateway resume");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
