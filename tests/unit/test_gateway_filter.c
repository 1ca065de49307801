/* Whom a publish is for: `tags`, `to` and `except` over HTTP and stoa.v1, and who then gets it: on
 * sockets and streams as it happens and from the log, by GET /log with its limits, and who may see
 * everything. */
#include "common/token/identity.h"
#include "gateway_world.h"

/* ---- tokens: "id/tag,tag", with a + before them `manage` as well ---- */

static const struct token_checker *const some_keys = (const void *)&some_keys;

static const char *check(const struct token_checker *keys, struct slice token, int64_t wall_ms,
                         struct identity **out)
{
    const struct slice all = {0};
    struct slice tags[8];
    struct identity who = {.rights = 1u << RIGHT_SUBSCRIBE | 1u << RIGHT_PUBLISH,
                           .expires_ms = wall_ms + 60000,
                           .prefixes = {&all, 1},
                           .tags = {tags, 0}};
    ck_assert_ptr_eq(keys, some_keys);
    if (token.size > 0 && token.data[0] == '+') {
        who.rights |= 1u << RIGHT_MANAGE;
        token = slice_of(token.data + 1, token.size - 1);
    }
    const uint8_t *slash = memchr(token.data, '/', token.size);
    ck_assert_ptr_nonnull(slash);
    who.id = slice_of(token.data, (size_t)(slash - token.data));
    for (const uint8_t *at = slash + 1, *end = token.data + token.size; at < end;) {
        const uint8_t *comma = memchr(at, ',', (size_t)(end - at));
        size_t size = (size_t)((comma ? comma : end) - at);
        tags[who.tags.count++] = slice_of(at, size);
        at += size + 1;
    }
    *out = identity_create(&who);
    return NULL;
}

static void with_tokens(void)
{
    world_options();
    options.tokens = some_keys;
    options.token_check = check;
    world_start();
}

static void publish(const char *query, const char *headers, const char *payload)
{
    char line[400], all[300];
    (void)snprintf(line, sizeof line, "POST /publish?key=k&token=p/%s", query);
    (void)snprintf(all, sizeof all, "%s", headers ? headers : "");
    struct client *c = ask(99, line, headers ? all : NULL, payload);
    ck_assert_msg(c->status == 200, "%s: %u %s", query, c->status, c->body);
}

/* ---- who gets it ---- */

enum { ANN = 1, BOB, CID, NONE, PEOPLE };
static const char *const people[PEOPLE] = {
    [ANN] = "ann/red,big", [BOB] = "bob/red", [CID] = "a%2Cb/blue", [NONE] = "/"};

static void everybody_looks(void)
{
    char target[100];
    for (unsigned i = 1; i < PEOPLE; i++) {
        (void)snprintf(target, sizeof target, "/events?key=k&token=%s", people[i]);
        open_raw(i, target);
    }
}

/* The numbers of those who got the payload, and nothing else. */
static const char *got(unsigned first, const char *payload)
{
    static char text[PEOPLE + 1];
    size_t n = 0;
    for (unsigned i = 1; i < PEOPLE; i++) {
        const char *f = frame(&clients[first + i]);
        if (!*f)
            continue;
        ck_assert_str_eq(f, payload);
        ck_assert_str_eq(rest(&clients[first + i]), "");
        text[n++] = (char)('0' + i);
    }
    text[n] = 0;
    return text;
}

static const struct {
    const char *query, *who;
} said[] = {
    {"", "1234"},
    {"&tags=red", "12"},
    {"&tags=blue,big", "13"},
    {"&tags=blue%2Cbig", "13"}, /* as form encoders write it */
    {"&tags=", ""},
    {"&tags", ""},
    {"&tags=,", ""},
    {"&tags=green", ""},
    {"&to=ann,bob", "12"},
    {"&targets=ann,bob", "12"},
    {"&to=a%2Cb,", "3"}, /* a bare comma stands there: this one is of the name */
    {"&to=a%2Cb,ann", "13"},
    {"&to=a%2Cb", ""}, /* `a` and `b` */
    {"&to=%61nn", "1"},
    {"&to=red", ""},
    {"&to=", ""}, /* not even who has no id */
    {"&to=,", ""},
    {"&except=ann", "234"},
    {"&exclude=ann,bob,zoe", "34"},
    {"&except=", "1234"},
    {"&except=red", "1234"},
    {"&tags=red&to=ann", "1"},
    {"&tags=red&to=ann,a%2Cb", "1"},
    {"&tags=blue&to=ann", ""},
    {"&tags=red&except=ann", "2"},
    {"&tags=red&to=ann,bob&except=bob", "1"},
    {"&to=ann&except=ann", ""},
    {"&tags=&except=ann", ""},
};

START_TEST(test_live)
{
    everybody_looks();
    publish(said[_i].query, NULL, "1");
    ck_assert_str_eq(got(0, "1"), said[_i].who);
    publish(said[_i].query, "Stoa-Ephemeral: 1", "2");
    ck_assert_str_eq(got(0, "2"), said[_i].who);
}
END_TEST

START_TEST(test_replayed)
{
    char line[300];
    publish(said[_i].query, NULL, "1");
    for (unsigned i = 1; i < PEOPLE; i++) {
        (void)snprintf(line, sizeof line, "/events?key=k&replay=all&token=%s", people[i]);
        open_raw(i, line);
        (void)snprintf(line, sizeof line, "GET /log?key=k&token=%s", people[i]);
        const struct client *log = ask(50 + i, line, NULL, NULL);
        bool told = strstr(log->body, "\"data\":1") != NULL;
        ck_assert(told == (strchr(said[_i].who, (char)('0' + i)) != NULL));
        ck_assert_ptr_nonnull(strstr(log->body, "\"head\":\"100-1\""));
        ck_assert_ptr_nonnull(strstr(log->body, "\"more\":false}"));
        ck_assert_ptr_null(strstr(log->body, "missed"));
    }
    ck_assert_str_eq(got(0, "1"), said[_i].who);
}
END_TEST

START_TEST(test_batches)
{
    everybody_looks();
    publish("&to=ann", "Content-Type: application/x-ndjson", "1\n2\n");
    ck_assert_str_eq(frame(&clients[ANN]), "1");
    ck_assert_str_eq(frame(&clients[ANN]), "2");
    ck_assert_str_eq(got(0, ""), "");
}
END_TEST

START_TEST(test_frames)
{
    static const struct {
        const char *members, *who;
    } table[] = {
        {"\"tags\":[\"blue\",\"big\"]", "13"},
        {"\"to\":[\"a,b\",\"b\\u006fb\"]", "23"},
        {"\"to\":[\"\"]", ""},
        {"\"to\":[]", ""},
        {"\"tags\":[]", ""},
        {"\"except\":[]", "1234"},
        {"\"tags\":[\"red\"],\"to\":[\"ann\",\"bob\"],\"except\":[\"bob\"]", "1"},
    };
    char text[300];
    everybody_looks();
    struct client *c = upgrade(20, "/stoa?token=p/", "Sec-WebSocket-Protocol: stoa.v1");
    ck_assert(c->upgraded);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        (void)snprintf(text, sizeof text, "{\"pub\":\"k\",\"data\":7,\"ref\":1,%s}",
                       table[i].members);
        say(20, text);
        ck_assert_ptr_nonnull(strstr(frame(c), "\"ok\":{\"id\":\"100-"));
        ck_assert_str_eq(got(0, "7"), table[i].who);
    }
    static const char *const wrong[] = {"\"to\":\"ann\"", "\"to\":null", "\"tags\":{}",
                                        "\"except\":[1]", "\"to\":[\"\\ud800\"]"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        (void)snprintf(text, sizeof text, "{\"pub\":\"k\",\"data\":7,\"ref\":1,%s}", wrong[i]);
        say(20, text);
        ck_assert_ptr_nonnull(strstr(frame(c), "arrays of strings"));
    }
    ck_assert_str_eq(got(0, ""), "");
}
END_TEST

static void is_refused(const char *query, unsigned status, const char *word)
{
    char line[FILTER_MAX_BYTES + 200];
    (void)snprintf(line, sizeof line, "POST /publish?key=k&token=p/&%s", query);
    struct client *c = ask(9, line, NULL, "1");
    ck_assert_uint_eq(c->status, status);
    ck_assert_msg(strstr(c->body, word) != NULL, "%s", c->body);
}

START_TEST(test_refused)
{
    char query[FILTER_MAX_BYTES + 100] = "to=";
    is_refused("to=a&to=b", 400, "at most once");
    is_refused("to=a&targets=a", 400, "at most once");
    is_refused("except=a&exclude=a", 400, "at most once");
    is_refused("tags=%ff", 400, "names of UTF-8");
    is_refused("tags=%c3,%a9", 400, "names of UTF-8");
    is_refused("tags=%00", 400, "percent-encoded");
    is_refused("tags=%4", 400, "percent-encoded");
    memset(query + 3, 'x', FILTER_MAX_BYTES);
    is_refused(query, 413, "TooLarge");
    is_refused(query, 413, "at most 4096 bytes");
    ck_assert_uint_eq(room_count("k"), 0);
    query[3 + FILTER_MAX_BYTES - 8] = 0; /* a map, the key, an array and a str16 */
    char line[sizeof query + 100];
    (void)snprintf(line, sizeof line, "POST /publish?key=k&token=p/&%s", query);
    ck_assert_uint_eq(ask(9, line, NULL, "1")->status, 200);
}
END_TEST

/* ---- streams and resumption ---- */

START_TEST(test_what_is_for_others_is_not_missed)
{
    publish("", NULL, "1");
    publish("&to=bob", NULL, "2");
    publish("&to=ann", NULL, "3");
    publish("&to=bob", NULL, "4");
    struct client *sse = open_sse(1, "/events?key=k&after=100-1&token=ann/", NULL);
    const char *text = rest(sse);
    ck_assert_ptr_nonnull(strstr(text, "id: 100-3\ndata: 3\n\n"));
    ck_assert_ptr_null(strstr(text, "missed"));
    ck_assert_ptr_null(strstr(text, "data: 2"));
    ck_assert_ptr_null(strstr(text, "data: 4"));
    struct client *v1 = upgrade(2, "/stoa?token=ann/", "Sec-WebSocket-Protocol: stoa.v1");
    say(2, "{\"sub\":\"k\",\"after\":\"100-3\"}");
    ck_assert_str_eq(frame(v1), "{\"sub\":\"k\",\"status\":\"resumed\",\"head\":\"100-4\"}");
    ck_assert_str_eq(frame(v1), "");
    publish("&to=ann", NULL, "5");
    ck_assert_ptr_nonnull(strstr(frame(v1), "\"id\":\"100-5\""));
    ck_assert_ptr_nonnull(strstr(rest(sse), "id: 100-5\ndata: 5\n\n"));
}
END_TEST

/* replay=N: the newest N that are for the reader. */
START_TEST(test_newest)
{
    struct client *c;
    publish("", NULL, "1");
    publish("&to=ann", NULL, "2");
    publish("&to=ann", NULL, "3");
    publish("", NULL, "4");
    for (int i = 0; i < 30; i++)
        publish("&to=bob", NULL, "0");
    publish("&to=ann", NULL, "5");
    publish("&to=bob", NULL, "0");
    c = open_raw(1, "/events?key=k&replay=1&token=ann/");
    ck_assert_str_eq(frame(c), "5");
    ck_assert_str_eq(frame(c), "");
    c = open_raw(2, "/events?key=k&replay=3&token=ann/");
    ck_assert_str_eq(frame(c), "3");
    ck_assert_str_eq(frame(c), "4");
    ck_assert_str_eq(frame(c), "5");
    ck_assert_str_eq(frame(c), "");
    c = open_raw(3, "/events?key=k&replay=100&token=ann/");
    ck_assert_str_eq(frame(c), "1");
    ck_assert_str_eq(frame(c), "2");
    c = open_raw(4, "/events?key=k&replay=2&token=zoe/");
    ck_assert_str_eq(frame(c), "1");
    ck_assert_str_eq(frame(c), "4");
    ck_assert_str_eq(frame(c), "");
    publish("", NULL, "6");
    ck_assert_str_eq(frame(c), "6");
}
END_TEST

/* More than a page: as many as the largest end of the log has that fits one. */
START_TEST(test_newest_beyond_a_page)
{
    for (int i = 0; i < 5; i++)
        publish("&to=ann", NULL, "1");
    for (int i = 0; i < 5; i++)
        publish("&to=bob", NULL, "0");
    faults.page_items = 7;
    struct client *c = open_raw(1, "/events?key=k&replay=2&token=ann/");
    ck_assert_str_eq(frame(c), "");
    publish("&to=ann", NULL, "2");
    ck_assert_str_eq(frame(c), "2");
    c = open_raw(2, "/events?key=k&replay=4&token=ann/");
    ck_assert_str_eq(frame(c), "2");
    ck_assert_str_eq(frame(c), "");
}
END_TEST

START_TEST(test_who_manages_may_overhear)
{
    publish("&to=ann", NULL, "1");
    struct client *all = open_sse(1, "/events?key=k&replay=all&filter=none&token=%2Bm/", NULL),
                  *own = open_sse(2, "/events?key=k&replay=all&token=%2Bm/", NULL),
                  *may_not = open_sse(3, "/events?key=k&replay=all&filter=none&token=bob/", NULL);
    publish("&to=bob", NULL, "2");
    publish("&to=zoe", "Stoa-Ephemeral: 1", "3");
    const char *text = rest(all);
    ck_assert(strstr(text, "data: 1\n") && strstr(text, "data: 2\n") && strstr(text, "data: 3\n"));
    text = rest(own);
    ck_assert(!strstr(text, "data: "));
    text = rest(may_not);
    ck_assert(!strstr(text, "data: 1\n") && strstr(text, "data: 2\n") && !strstr(text, "data: 3"));
    ask(4, "GET /events?key=k&filter=some&token=ann/", "Accept: text/event-stream", NULL);
    ASSERT_ERROR(&clients[4], 400, "BadRequest");
}
END_TEST

/* ---- GET /log ---- */

/* The payloads of the page, and a + when there is more. */
static const char *page(const char *query)
{
    static char text[500];
    char line[200];
    size_t n = 0;
    (void)snprintf(line, sizeof line, "GET /log?key=k&%s", query);
    const struct client *c = ask(60, line, NULL, NULL);
    ck_assert_uint_eq(c->status, 200);
    for (const char *at = c->body; (at = strstr(at, "\"data\":")) != NULL; n++)
        text[n] = *(at += 7);
    if (strstr(c->body, "\"more\":true}"))
        text[n++] = '+';
    text[n] = 0;
    ck_assert_ptr_null(strstr(c->body, "missed"));
    return text;
}

static void log_fill(void)
{
    static const char *const whom[] = {"", "&to=ann", "&to=bob", "&tags=red"};
    static const char order[] = "0012"                      /* 1234 */
                                "2222222222222222222222222" /* bob's alone */
                                "1031"                      /* 5678 */
                                "222";
    char payload[2] = "0";
    for (const char *o = order; *o; o++) {
        char next = payload[0];
        publish(whom[*o - '0'], NULL,
                *o == '2' ? "\"bob\"" : (payload[0] = (char)(next + 1), payload));
    }
}

START_TEST(test_pages_of_a_log)
{
    log_fill();
    faults.page_items = (uint64_t)_i;
    /* ann sees 1 2 3 4 5 6 7; who has no id 1 2 5; red 1 2 5 6 */
    ck_assert_str_eq(page("token=ann/red"), "1234567");
    ck_assert_str_eq(page("token=x/"), "125");
    ck_assert_str_eq(page("token=x/red"), "1256");
    ck_assert_str_eq(page("token=ann/red&limit=3"), "123+");
    ck_assert_str_eq(page("token=ann/red&limit=4&after=100-2"), "3456+");
    ck_assert_str_eq(page("token=x/&limit=2"), "12+");
    ck_assert_str_eq(page("token=x/&limit=3"), "125"); /* what follows is for others */
    ck_assert_str_eq(page("token=x/red&last=1"), "6");
    ck_assert_str_eq(page("token=x/red&last=3"), "256");
    ck_assert_str_eq(page("token=x/red&last=4"), "1256");
    ck_assert_str_eq(page("token=x/red&last=9"), "1256");
    ck_assert_str_eq(page("token=ann/red&last=2"), "67");
}
END_TEST

START_TEST(test_who_may_read_all)
{
    publish("&to=ann", NULL, "1");
    publish("&tags=red", NULL, "2");
    ck_assert_str_eq(page("token=%2Bm/"), "12");
    ck_assert_str_eq(page("token=%2Bm/&last=1"), "2");
    ck_assert_str_eq(page("token=m/"), "");
    ck_assert_str_eq(page("token=m/&last=5"), "");
}
END_TEST

START_TEST(test_nobody_is_asked)
{
    ask(1, "POST /publish?key=k&to=ann", NULL, "1");
    ask(1, "POST /publish?key=k&to=,", NULL, "2");
    ask(1, "POST /publish?key=k&except=ann", NULL, "3");
    struct client *c = open_raw(2, "/events?key=k&replay=all");
    ck_assert_str_eq(frame(c), "3"); /* who has no name is sent what is for nobody in particular */
    ck_assert_str_eq(frame(c), "");
    ck_assert_str_eq(page(""), "123");
    const char *text = rest(open_sse(3, "/events?key=k&replay=all&filter=none", NULL));
    ck_assert(strstr(text, "data: 1\n") && strstr(text, "data: 2\n") && strstr(text, "data: 3\n"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway filter");
    TCase *tokens = tcase_create("tokens"), *none = tcase_create("none");
    const int n_said = sizeof said / sizeof *said;
    tcase_add_checked_fixture(tokens, with_tokens, world_teardown);
    tcase_add_checked_fixture(none, world_setup, world_teardown);
    tcase_add_loop_test(tokens, test_live, 0, n_said);
    tcase_add_loop_test(tokens, test_replayed, 0, n_said);
    tcase_add_test(tokens, test_batches);
    tcase_add_test(tokens, test_frames);
    tcase_add_test(tokens, test_refused);
    tcase_add_test(tokens, test_what_is_for_others_is_not_missed);
    tcase_add_test(tokens, test_newest);
    tcase_add_test(tokens, test_newest_beyond_a_page);
    tcase_add_test(tokens, test_who_manages_may_overhear);
    tcase_add_loop_test(tokens, test_pages_of_a_log, 0, 6);
    tcase_add_test(tokens, test_who_may_read_all);
    tcase_add_test(none, test_nobody_is_asked);
    suite_add_tcase(suite, tokens);
    suite_add_tcase(suite, none);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
