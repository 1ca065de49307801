/* POST /publish: what is stored, what is answered, and what happens when routers and shards do not
 * answer as they should. */
#include "gateway_world.h"

START_TEST(test_single)
{
    struct client *c = ask(1, "POST /publish?key=k", NULL, "{\"n\": 1}");
    ck_assert_uint_eq(c->status, 200);
    ck_assert_str_eq(c->content_type, "application/json");
    ck_assert_str_eq(c->body, "{\"id\":\"100-1\",\"duplicate\":false}");
    c = ask(2, "POST /publish?key=k", "Content-Type: application/x-www-form-urlencoded", "a=b");
    ck_assert_str_eq(c->body, "{\"id\":\"100-2\",\"duplicate\":false}");
    ck_assert_uint_eq((unsigned)metric("stoa_publish_total", "result=\"ok\""), 2);
}
END_TEST

START_TEST(test_idempotent)
{
    /* SHA-256 of "abc", its first 16 bytes. */
    static const uint8_t digest[16] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                       0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23};
    struct client *c = ask(1, "POST /publish?key=k", "Idempotency-Key: abc", "1");
    ck_assert_str_eq(c->body, "{\"id\":\"100-1\",\"duplicate\":false}");
    ck_assert_mem_eq(last_msg_id, digest, 16);
    c = ask(2, "POST /publish?key=k", "idempotency-key: abc", "another body");
    ck_assert_str_eq(c->body, "{\"id\":\"100-1\",\"duplicate\":true}");
    ck_assert_uint_eq(room_count("k"), 1);
    char header[400] = "Idempotency-Key: ";
    memset(header + strlen(header), 'x', 256);
    ask(3, "POST /publish?key=k", header, "1");
    ASSERT_ERROR(&clients[3], 400, "BadRequest");
    header[strlen("Idempotency-Key: ") + 255] = 0;
    ck_assert_uint_eq(ask(4, "POST /publish?key=k", header, "1")->status, 200);
    ask(5, "POST /publish?key=k", "Idempotency-Key: ", "1");
    ASSERT_ERROR(&clients[5], 400, "BadRequest");
}
END_TEST

START_TEST(test_batch)
{
    const char *type = "Content-Type: application/x-ndjson; charset=utf-8";
    struct client *c = ask(1, "POST /publish?key=k", type, "{\"n\":3}\n\n{\"n\":4}\r\n5");
    ck_assert_str_eq(c->body,
                     "{\"id\":\"100-3\",\"first\":\"100-1\",\"count\":3,\"duplicate\":false}");
    ask(2, "POST /publish?key=k", type, "1\nnot json\n2\n");
    ASSERT_ERROR(&clients[2], 400, "BadRequest");
    ask(3, "POST /publish?key=k", type, "\n\n");
    ASSERT_ERROR(&clients[3], 400, "BadRequest");
    ck_assert_uint_eq(room_count("k"), 3);
    char lines[2 * 257 + 1];
    for (int i = 0; i < 257; i++)
        memcpy(lines + 2 * i, "7\n", 3);
    ask(4, "POST /publish?key=k", type, lines);
    ASSERT_ERROR(&clients[4], 413, "TooLarge");
    lines[2 * 256] = 0;
    c = ask(5, "POST /publish?key=k", type, lines);
    ck_assert_str_eq(c->body,
                     "{\"id\":\"100-259\",\"first\":\"100-4\",\"count\":256,\"duplicate\":false}");
    c = ask(6, "POST /publish?key=k", "Content-Type: application/x-ndjson\nStoa-Ephemeral: 1", "1");
    ck_assert_str_eq(c->body, "{\"id\":null,\"first\":null,\"count\":1,\"duplicate\":false}");
}
END_TEST

START_TEST(test_sizes)
{
    char *body = mem_zalloc(BATCH_MAX_BYTES + 16);
    memset(body, '1', BATCH_MAX_BYTES + 16);
    ask_bytes(1, "POST /publish?key=k", NULL, slice_of(body, PAYLOAD_MAX_BYTES + 1));
    ASSERT_ERROR(&clients[1], 413, "TooLarge");
    ask_bytes(2, "POST /publish?key=k", NULL, slice_of(body, PAYLOAD_MAX_BYTES));
    ck_assert_uint_eq(clients[2].status, 200);
    for (size_t i = PAYLOAD_MAX_BYTES / 2; i < BATCH_MAX_BYTES + 16; i += PAYLOAD_MAX_BYTES / 2)
        body[i] = '\n';
    ask_bytes(3, "POST /publish?key=k", "Content-Type: application/x-ndjson",
              slice_of(body, BATCH_MAX_BYTES + 8));
    ASSERT_ERROR(&clients[3], 413, "TooLarge");
    mem_free(body);
}
END_TEST

START_TEST(test_options_of_a_publish)
{
    struct client *raw = open_raw(9, "/events?key=k");
    struct client *c = ask(1, "POST /publish?key=k", "Stoa-Ephemeral: 1", "\"typing\"");
    ck_assert_str_eq(c->body, "{\"id\":null,\"duplicate\":false}");
    ck_assert_str_eq(frame(raw), "\"typing\"");
    ck_assert_uint_eq(room_count("k"), 0);
    ask(2, "POST /publish?key=k", "Stoa-Conflate: progress", "1");
    ask(3, "POST /publish?key=k", "Stoa-Conflate: progress", "2");
    struct client *log = ask(4, "GET /log?key=k", NULL, NULL);
    ck_assert_ptr_nonnull(strstr(log->body, "\"data\":1,\"conflate\":\"progress\"}"));
    struct client *late = open_raw(10, "/events?key=k&replay=all");
    ck_assert_str_eq(frame(late), "2");
    ck_assert_str_eq(rest(late), "");
    char header[128] = "Stoa-Conflate: ";
    memset(header + strlen(header), 'x', 65);
    ask(5, "POST /publish?key=k", header, "1");
    ASSERT_ERROR(&clients[5], 400, "BadRequest");
    ask(7, "POST /publish?key=k", "Stoa-Ephemeral: yes", "1");
    ASSERT_ERROR(&clients[7], 400, "BadRequest");
}
END_TEST

START_TEST(test_refused_for_now)
{
    static const unsigned codes[] = {NACK_BUSY, NACK_NOTOWNER, NACK_MOVED, NACK_FROZEN};
    for (unsigned i = 0; i < 4; i++) {
        faults.nack = codes[i];
        faults.nacks = 3;
        ask(i + 1, "POST /publish?key=k", NULL, "1");
        ck_assert_uint_eq(clients[i + 1].responses, 0);
        pass_ms(3000);
        ck_assert_uint_eq(clients[i + 1].status, 200);
    }
    ck_assert_uint_eq(room_count("k"), 4);
    faults.nack = NACK_BUSY;
    faults.nacks = 1000000;
    ask(10, "POST /publish?key=k", NULL, "1");
    pass_ms(9900);
    ck_assert_uint_eq(clients[10].responses, 0);
    pass_ms(200);
    ASSERT_ERROR(&clients[10], 503, "Busy");
    ck_assert_ptr_nonnull(strstr(clients[10].headers, "Retry-After: "));
    faults.nack = NACK_NOTOWNER;
    ask(11, "POST /publish?key=k", NULL, "1");
    pass_ms(10100);
    ASSERT_ERROR(&clients[11], 503, "Moving");
}
END_TEST

START_TEST(test_refused_for_good)
{
    static const struct {
        unsigned code, status;
        const char *tag;
    } table[] = {{NACK_DISK, 503, "\"tag\":\"DiskFull\""},
                 {NACK_STALE, 504, "\"tag\":\"Unknown\""},
                 {NACK_TOOBIG, 413, "\"tag\":\"TooLarge\""},
                 {NACK_DENIED, 403, "\"tag\":\"Forbidden\""},
                 {NACK_INVALID, 400, "\"tag\":\"BadRequest\""}};
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++) {
        faults.nack = table[i].code;
        faults.nacks = 1;
        struct client *c = ask(i + 1, "POST /publish?key=k", NULL, "1");
        ck_assert_uint_eq(c->status, table[i].status);
        ck_assert_ptr_nonnull(strstr(c->body, table[i].tag));
    }
    ck_assert_uint_eq((unsigned)metric("stoa_publish_total", "result=\"rejected\""), 3);
}
END_TEST

START_TEST(test_no_answer_is_unknown)
{
    faults.hold_packs = true;
    ask(1, "POST /publish?key=k", "Idempotency-Key: a", "1");
    pass_ms(10100);
    ASSERT_ERROR(&clients[1], 504, "Unknown");
    ck_assert_ptr_null(strstr(clients[1].headers, "Retry-After"));
    faults.hold_packs = false;
    struct client *c = ask(2, "POST /publish?key=k", "Idempotency-Key: a", "1");
    ck_assert_str_eq(c->body, "{\"id\":\"100-1\",\"duplicate\":true}");
}
END_TEST

/* The client goes away before the answer: nothing is answered to whoever comes next. */
START_TEST(test_client_leaves)
{
    faults.hold_packs = true;
    ask(1, "POST /publish?key=k", NULL, "1");
    hang_up(1, 1006);
    pass_ms(11000);
    ck_assert_uint_eq(clients[1].responses, 0);
}
END_TEST

START_TEST(test_router_lost)
{
    faults.hold_packs = true;
    ask(1, "POST /publish?key=k", NULL, "1");
    faults.hold_packs = false;
    ck_assert_uint_eq(n_pubs, 1);
    router_down(0);
    ck_assert_uint_eq(n_pubs, 1);
    const char *why = "";
    ck_assert(!gateway_ready(gateway, &why));
    ck_assert_str_eq(why, "no router answers");
    ask(2, "POST /publish?key=k", NULL, "2");
    router_up(0);
    ck_assert(gateway_ready(gateway, &why));
    /* Our own repetition is no duplicate for the client. */
    ck_assert_str_eq(clients[1].body, "{\"id\":\"100-1\",\"duplicate\":false}");
    ck_assert_str_eq(clients[2].body, "{\"id\":\"100-2\",\"duplicate\":false}");
    ck_assert_uint_eq(room_count("k"), 2);
}
END_TEST

/* Nobody remembers the id of an ephemeral event, so a repetition would be delivered again. */
START_TEST(test_router_lost_ephemeral)
{
    faults.hold_packs = true;
    ask(1, "POST /publish?key=k", "Stoa-Ephemeral: 1\n", "1");
    ask(2, "POST /publish?key=k", NULL, "2");
    faults.hold_packs = false;
    ck_assert_uint_eq(n_pubs, 2);
    router_down(0);
    ASSERT_ERROR(&clients[1], 504, "Unknown");
    router_up(0);
    ck_assert_uint_eq(n_pubs, 3);
    ck_assert_uint_eq(clients[2].status, 200);
}
END_TEST

START_TEST(test_no_router)
{
    router_down(0);
    ask(1, "POST /publish?key=k", NULL, "1");
    pass_ms(10100);
    ASSERT_ERROR(&clients[1], 503, "Moving");
    ck_assert_uint_eq(n_pubs, 0);
}
END_TEST

START_TEST(test_other_router)
{
    world_options();
    options.n_routers = 2;
    world_start();
    faults.lose_publishes = true;
    ask(1, "POST /publish?key=k", NULL, "1");
    faults.lose_publishes = false;
    router_down(0);
    ck_assert_str_eq(clients[1].body, "{\"id\":\"100-1\",\"duplicate\":false}");
    ck_assert_uint_eq(n_pubs, 2);
    ask(2, "POST /publish?key=k", NULL, "2");
    ck_assert_uint_eq(clients[2].status, 200);
    world_teardown();
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("publish");
    tcase_add_checked_fixture(tc, world_setup, world_teardown);
    tcase_add_test(tc, test_single);
    tcase_add_test(tc, test_idempotent);
    tcase_add_test(tc, test_batch);
    tcase_add_test(tc, test_sizes);
    tcase_add_test(tc, test_options_of_a_publish);
    tcase_add_test(tc, test_refused_for_now);
    tcase_add_test(tc, test_refused_for_good);
    tcase_add_test(tc, test_no_answer_is_unknown);
    tcase_add_test(tc, test_client_leaves);
    tcase_add_test(tc, test_router_lost);
    tcase_add_test(tc, test_router_lost_ephemeral);
    tcase_add_test(tc, test_no_router);
    TCase *two = tcase_create("two routers");
    tcase_add_test(two, test_other_router);
    Suite *suite = suite_create("gateway publish");
    suite_add_tcase(suite, tc);
    suite_add_tcase(suite, two);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
