/* Routes, methods, keys, origins, CORS: who may ask what, and the refusals byte for byte. */
#include "gateway_world.h"

START_TEST(test_error_body)
{
    struct client *c = ask(1, "GET /nowhere", NULL, NULL);
    ck_assert_uint_eq(c->status, 404);
    ck_assert_str_eq(c->content_type, "application/json");
    ck_assert_str_eq(c->body, "{\"error\":{\"tag\":\"NotFound\",\"message\":\"there is nothing at "
                              "this address\"}}");
    ck_assert_str_eq(c->headers, "");
    gateway_refuse(gateway, 2, 431, "BadRequest", "the head is too large");
    ck_assert_uint_eq(clients[2].status, 431);
    ck_assert_str_eq(clients[2].body,
                     "{\"error\":{\"tag\":\"BadRequest\",\"message\":\"the head is too large\"}}");
    ck_assert_uint_eq((unsigned)metric("stoa_refused_total", "tag=\"NotFound\""), 1);
}
END_TEST

static const struct {
    const char *line;
    unsigned status;
    const char *tag;
} refusals[] = {
    {"GET /nowhere", 404, "NotFound"},
    {"GET /publish/x", 404, "NotFound"},
    {"PUT /publish?key=a", 405, "MethodNotAllowed"},
    {"GET /publish?key=a", 405, "MethodNotAllowed"},
    {"DELETE /events?key=a", 405, "MethodNotAllowed"},
    {"HEAD /events?key=a", 405, "MethodNotAllowed"},
    {"POST /publish?key=", 400, "BadKey"},
    {"POST /publish", 400, "BadKey"},
    {"POST /publish?key=$stoa:x", 400, "BadKey"},
    {"POST /publish?key=a%00b", 400, "BadKey"},
    {"POST /publish?key=a%0ab", 400, "BadKey"},
    {"POST /publish?key=%ff", 400, "BadKey"},
    {"POST /publish?key=%zz", 400, "BadKey"},
    {"POST /publish?key=a&key=b", 400, "BadKey"},
    {"GET /log?key=%c2%85", 400, "BadKey"},
    {"GET /connections", 400, "BadKey"},
    {"GET /events?key=a&uploadId=b", 400, "BadRequest"},
    {"GET /events", 400, "BadKey"},
    {"GET /events?key=few:1", 403, "Forbidden"},
    {"GET /own/x", 404, "NotFound"},
    {"GET /ws/upload/1", 426, "UpgradeRequired"},
    {"GET /ws/upload/1/2", 404, "NotFound"},
    {"GET /ws/upload", 404, "NotFound"},
    {"GET /ws/upload/", 400, "BadKey"},
    {"GET /ws//x", 404, "NotFound"},
    {"GET /stoa", 426, "UpgradeRequired"},
    {"GET /uploadista/ws/upload/1", 426, "UpgradeRequired"},
    {"GET /uploadista/api/upload/1", 404, "NotFound"},
    {"POST /uploadista/ws/upload/1", 405, "MethodNotAllowed"},
    {"GET /iterator", 503, "Busy"},
    {"POST /api/x/1/send", 409, "NoHandler"},
    {"POST /api/few/1/broadcast", 409, "NoHandler"},
    {"GET /api/few/1/state", 409, "NoHandler"},
    {"GET /api/x/1/state", 404, "NoSuchType"},
    {"GET /api/x/1/presence", 404, "NoSuchType"},
    {"POST /api/few/1/alarm", 409, "NoHandler"},
    {"POST /api/few/1/vote", 409, "NoHandler"},
    {"POST /api/x/1/vote", 404, "NoSuchType"},
    {"GET /api/few/1/vote", 405, "MethodNotAllowed"},
    {"POST /api/few/1/state", 405, "MethodNotAllowed"},
    {"GET /api/few/1", 405, "MethodNotAllowed"},
    {"GET /api/few", 404, "NotFound"},
    {"GET /api/few/1/", 404, "NotFound"},
    {"GET /presence?key=k", 409, "NoHandler"},
    {"GET /keys?limit=0", 400, "BadRequest"},
    {"GET /keys?prefix=%ff", 400, "BadKey"},
    {"GET /keys?after=%zz", 400, "BadKey"},
    {"GET /top?limit=x", 400, "BadRequest"},
};

START_TEST(test_refusals)
{
    struct client *c = ask(1, refusals[_i].line, NULL, "1");
    ck_assert_msg(c->status == refusals[_i].status, "%s: %u %s", refusals[_i].line, c->status,
                  c->body ? c->body : "");
    ck_assert_ptr_nonnull(strstr(c->body, refusals[_i].tag));
    ck_assert_uint_eq(c->responses, 1);
}
END_TEST

START_TEST(test_key_length)
{
    char line[400] = "POST /publish?key=";
    size_t at = strlen(line);
    memset(line + at, 'k', 257);
    ask(1, line, NULL, "1");
    ASSERT_ERROR(&clients[1], 400, "BadKey");
    line[at + 256] = 0;
    ck_assert_uint_eq(ask(2, line, NULL, "1")->status, 200);
}
END_TEST

START_TEST(test_paths_are_decoded_once)
{
    ask(1, "POST /publish?key=up%3Aload%2525+x", NULL, "1");
    ck_assert_uint_eq(room_count("up:load%25 x"), 1);
    struct client *c = open_raw(2, "/ws/up/a%252Fb+c");
    room_publish("up:a%2Fb+c", "7");
    ck_assert_str_eq(frame(c), "7");
    struct client *log = ask(3, "GET /api/up/a%252Fb+c/log?last=1", NULL, NULL);
    ck_assert_ptr_nonnull(strstr(log->body, "{\"key\":\"up:a%2Fb+c\""));
    ck_assert_str_eq(ask(4, "GET /api/up/a/connections", NULL, NULL)->body, "[]");
    ck_assert_uint_eq(ask(5, "POST /api/up/a/close", NULL, NULL)->status, 200);
}
END_TEST

START_TEST(test_methods)
{
    struct client *c = ask(1, "PUT /log?key=a", NULL, NULL);
    ck_assert_uint_eq(c->status, 405);
    ck_assert_str_eq(c->headers, "Allow: GET, HEAD, DELETE, OPTIONS\r\n");
    c = ask(2, "OPTIONS /publish", NULL, NULL);
    ck_assert_uint_eq(c->status, 204);
    ck_assert_str_eq(c->headers, "Allow: POST, OPTIONS\r\n");
    c = ask(3, "HEAD /log?key=a", NULL, NULL);
    ck_assert_uint_eq(c->status, 200);
    c = ask(4, "GET /", NULL, NULL);
    ck_assert_str_eq(c->content_type, "text/html; charset=utf-8");
    ck_assert_str_eq(c->body, "<p>demo</p>");
    c = ask(5, "GET /ws/a/b", NULL, NULL);
    ck_assert_str_eq(c->headers, "Upgrade: websocket\r\n");
}
END_TEST

START_TEST(test_accept)
{
    static const struct {
        const char *accept;
        bool admits;
    } table[] = {{"text/event-stream", true},    {"*/*", true},
                 {"text/html, */*;q=0.1", true}, {"TEXT/*", true},
                 {"application/json", false},    {"text/html;a=*/*", false}};
    for (unsigned i = 0; i < 6; i++) {
        char header[64];
        snprintf(header, sizeof header, "Accept: %s", table[i].accept);
        struct client *c = ask(i + 1, "GET /events?key=k", header, NULL);
        ck_assert_int_eq(c->streaming, table[i].admits);
        if (!table[i].admits)
            ASSERT_ERROR(c, 426, "UpgradeRequired");
    }
    ck_assert(ask(20, "GET /events?key=k", NULL, NULL)->streaming);
}
END_TEST

START_TEST(test_subprotocol)
{
    struct client *c = upgrade(1, "/stoa", NULL);
    ck_assert(!c->upgraded);
    ASSERT_ERROR(c, 400, "BadRequest");
    c = upgrade(2, "/stoa", "Sec-WebSocket-Protocol: stoa.v2");
    ck_assert(!c->upgraded);
    open_v1(3);
    c = upgrade(4, "/events?key=k", "Sec-WebSocket-Protocol: stoa.v1");
    ck_assert(c->upgraded);
    ck_assert_str_eq(c->subprotocol, "");
}
END_TEST

static const struct {
    const char *headers;
    bool passes;
} loopback[] = {
    {"Host: localhost", true},
    {"Host: LocalHost:8080", true},
    {"Host: 127.0.0.1:8080", true},
    {"Host: 127.8.9.1", true},
    {"Host: [::1]:8080", true},
    {"Host: [::1]", true},
    {"Host: app.localhost:1", true},
    {"Host: evil.example", false},
    {"Host: 127.0.0.1.evil.example", false},
    {"Host: localhost.evil.example", false},
    {"Host: evillocalhost", false},
    {"Host: localhost:80a", false},
    {"Host: ", false},
    {"Origin: http://localhost:3000", true},
    {"Origin: https://127.0.0.1", true},
    {"Origin: http://[::1]:5173", true},
    {"Origin: https://evil.example", false},
    {"Origin: http://localhost.evil.example", false},
    {"Origin: file://localhost", false},
    {"Origin: null", false},
};

START_TEST(test_loopback)
{
    struct client *c = ask(1, "POST /publish?key=a", loopback[_i].headers, "1");
    if (loopback[_i].passes) {
        ck_assert_uint_eq(c->status, 200);
    } else {
        ASSERT_ERROR(c, 403, "OriginRefused");
        ck_assert_ptr_null(strstr(c->headers, "Access-Control"));
    }
    upgrade(2, "/events?key=k", loopback[_i].headers);
    ck_assert_int_eq(clients[2].upgraded, loopback[_i].passes);
    ask(3, "OPTIONS /publish?key=a", loopback[_i].headers, NULL);
    ck_assert_uint_eq(clients[3].status, loopback[_i].passes ? 204 : 403);
}
END_TEST

START_TEST(test_cors)
{
    const char *origin = "Origin: http://localhost:3000";
    const char *allowed = "Access-Control-Allow-Origin: http://localhost:3000\r\n"
                          "Access-Control-Expose-Headers: Retry-After\r\nVary: Origin\r\n";
    struct client *c = ask(1, "POST /publish?key=a", origin, "1"); /* answered later */
    ck_assert_str_eq(c->headers, allowed);
    c = ask(2, "GET /nowhere", origin, NULL);
    ck_assert_str_eq(c->headers, allowed);
    c = ask(3, "GET /events?key=a", origin, NULL);
    ck_assert(c->streaming);
    ck_assert_str_eq(c->headers, allowed);
    c = ask(4, "OPTIONS /log?key=a", origin, NULL);
    ck_assert_uint_eq(c->status, 204);
    ck_assert_ptr_nonnull(strstr(c->headers, "Access-Control-Max-Age: 600\r\n"));
    ck_assert_ptr_nonnull(
        strstr(c->headers, "Access-Control-Allow-Methods: GET, HEAD, DELETE, OPTIONS\r\n"));
    ck_assert_ptr_nonnull(strstr(c->headers, "Idempotency-Key"));
}
END_TEST

START_TEST(test_configured_origins)
{
    static const char *const list[] = {"https://app.example.com", "http://other:81", NULL};
    static const char *const any[] = {"*", NULL};
    gateway_reorigins(gateway, list);
    ck_assert_uint_eq(ask(1, "POST /publish?key=a", "Origin: https://app.example.com", "1")->status,
                      200);
    ask(2, "POST /publish?key=a", "Origin: http://localhost:3000", "1");
    ASSERT_ERROR(&clients[2], 403, "OriginRefused");
    ask(3, "POST /publish?key=a", "Origin: http://app.example.com", "1");
    ASSERT_ERROR(&clients[3], 403, "OriginRefused");
    ask(4, "POST /publish?key=a", "Origin: http://other", "1");
    ASSERT_ERROR(&clients[4], 403, "OriginRefused");
    gateway_reorigins(gateway, any);
    struct client *c = ask(5, "POST /publish?key=a", "Origin: https://evil.example", "1");
    ck_assert_uint_eq(c->status, 200);
    ck_assert_ptr_nonnull(strstr(c->headers, "Access-Control-Allow-Origin: *\r\n"));
    ask(6, "POST /publish?key=a", "Origin: https://evil.example\nHost: evil.example", "1");
    ASSERT_ERROR(&clients[6], 403, "OriginRefused"); /* the name was rebound to loopback */
}
END_TEST

static void public_listener(void)
{
    world_options();
    options.loopback = false;
    world_start();
}

START_TEST(test_own_origin)
{
    const char *own = "Origin: https://stoa.example.com\nHost: stoa.example.com";
    ck_assert_uint_eq(ask(1, "POST /publish?key=a", own, "1")->status, 200);
    ask(2, "POST /publish?key=a", "Origin: https://evil.example\nHost: stoa.example.com", "1");
    ASSERT_ERROR(&clients[2], 403, "OriginRefused");
    ask(3, "POST /publish?key=a", "Origin: http://localhost:3000\nHost: stoa.example.com", "1");
    ASSERT_ERROR(&clients[3], 403, "OriginRefused");
    ck_assert_uint_eq(ask(4, "POST /publish?key=a", "Host: whatever", "1")->status, 200);
}
END_TEST

/* ---- configured routes ---- */

static const struct gateway_route own[] = {
    {.path = "/progress/{id}", .key = "upload:{id}", .replay = "all"},
    {.path = "/jobs/{team}/{job}/events", .key = "{team}/{job}", .replay = NULL},
    {.path = "/few/{id}", .key = "few:{id}", .replay = NULL},
    {.path = "/fixed", .key = "one", .replay = NULL},
};

static void own_routes(void)
{
    world_options();
    options.routes = own;
    options.n_routes = sizeof own / sizeof *own;
    world_start();
}

static const struct {
    const char *line;
    unsigned status; /* 0: a stream */
    const char *tag;
} own_cases[] = {
    {"GET /progress/a", 0, NULL},
    {"GET /progress/a%2Fb", 0, NULL},
    {"GET /progress/", 404, "NotFound"},
    {"GET /progress", 404, "NotFound"},
    {"GET /progress/a/b", 404, "NotFound"},
    {"GET /progress/%00", 400, "BadKey"},
    {"GET /progress/%zz", 400, "BadKey"},
    {"GET /progress/a?after=x", 400, "BadId"},
    {"POST /progress/a", 405, "MethodNotAllowed"},
    {"GET /jobs/red/7/events", 0, NULL},
    {"GET /jobs/red/7/event", 404, "NotFound"},
    {"GET /jobs/red/7/events/", 404, "NotFound"},
    {"GET /jobs//7/events", 404, "NotFound"},
    {"GET /few/1", 403, "Forbidden"},
    {"GET /fixed", 0, NULL},
    {"GET /fixed/", 404, "NotFound"},
    {"GET /log?key=a", 200, NULL},
};

START_TEST(test_own_routes)
{
    struct client *c = ask(1, own_cases[_i].line, NULL, NULL);
    if (own_cases[_i].tag) {
        ck_assert_uint_eq(c->status, own_cases[_i].status);
        ck_assert_ptr_nonnull(strstr(c->body, own_cases[_i].tag));
    } else
        ck_assert_int_eq(c->streaming, own_cases[_i].status == 0);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("routes");
    tcase_add_checked_fixture(tc, world_setup, world_teardown);
    tcase_add_test(tc, test_error_body);
    tcase_add_loop_test(tc, test_refusals, 0, sizeof refusals / sizeof *refusals);
    tcase_add_test(tc, test_key_length);
    tcase_add_test(tc, test_paths_are_decoded_once);
    tcase_add_test(tc, test_methods);
    tcase_add_test(tc, test_accept);
    tcase_add_test(tc, test_subprotocol);
    tcase_add_loop_test(tc, test_loopback, 0, sizeof loopback / sizeof *loopback);
    tcase_add_test(tc, test_cors);
    tcase_add_test(tc, test_configured_origins);
    TCase *open = tcase_create("public listener");
    tcase_add_checked_fixture(open, public_listener, world_teardown);
    tcase_add_test(open, test_own_origin);
    Suite *suite = suite_create("gateway routes");
    suite_add_tcase(suite, tc);
    suite_add_tcase(suite, open);
    TCase *configured = tcase_create("configured routes");
    tcase_add_checked_fixture(configured, own_routes, world_teardown);
    tcase_add_loop_test(configured, test_own_routes, 0, sizeof own_cases / sizeof *own_cases);
    suite_add_tcase(suite, configured);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
