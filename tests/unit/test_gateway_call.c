/* What is asked of rooms with handlers, over HTTP and in stoa.v1 frames: what the shard hears, what
 * the caller reads, and what is known when no answer comes. The shard is played here. */
#include "gateway_world.h"

#include "common/hash.h"
#include "common/limits.h"

#define CALLS_MAX 64

struct heard {
    uint64_t verb, streams, cid;
    uint8_t msg_id[16];
    char key[64], name[300], input[512];
    size_t input_size;
};
static struct heard heard[CALLS_MAX];
static unsigned n_heard;

/* What the shard says to the next call; NULL: nothing. */
static struct answer {
    bool mute;
    unsigned nacks, nack; /* the first `nacks` calls are refused so */
    const char *items[4]; /* before the result */
    struct msg_result result;
} answer;

static struct slice text(const char *s)
{
    return slice_text(s);
}

static void say_result(uint64_t cid, uint16_t slot, const struct msg_result *r)
{
    struct message m = {.type = MSG_RESULT, .cid = cid, .slot = slot};
    m.result = *r;
    shard_says(&m);
}

static bool on_call(const struct message *m)
{
    if (m->type != MSG_CALL)
        return false;
    ck_assert_uint_lt(n_heard, CALLS_MAX);
    struct heard *h = &heard[n_heard++];
    *h = (struct heard){.verb = m->call.verb,
                        .streams = m->call.streams,
                        .cid = m->cid,
                        .input_size = m->call.input.size};
    memcpy(h->msg_id, m->call.msg_id, sizeof h->msg_id);
    snprintf(h->key, sizeof h->key, "%.*s", SLICE_FMT(m->key));
    snprintf(h->name, sizeof h->name, "%.*s", SLICE_FMT(m->call.name));
    snprintf(h->input, sizeof h->input, "%.*s", SLICE_FMT(m->call.input));
    ck_assert_uint_eq(m->slot, slot_of(m->key, SEED));
    if (answer.nacks > 0) {
        answer.nacks--;
        struct message nack = {.type = MSG_NACK, .cid = m->cid, .slot = m->slot, .key = m->key};
        nack.nack.code = answer.nack;
        shard_says(&nack);
        return true;
    }
    for (size_t i = 0; i < 4 && answer.items[i]; i++)
        say_result(m->cid, m->slot, &(struct msg_result){.more = 1, .json = text(answer.items[i])});
    if (!answer.mute)
        say_result(m->cid, m->slot, &answer.result);
    return true;
}

static void setup(void)
{
    world_setup();
    memset(heard, 0, sizeof heard);
    n_heard = 0;
    answer = (struct answer){0};
    shard_hears = on_call;
}

static void returns(const char *json)
{
    answer.result = (struct msg_result){.json = text(json)};
}

START_TEST(test_method)
{
    returns("{\"status\":\"ok\"}");
    struct client *c = ask(1, "POST /api/chat/lobby/say", NULL, "{\"text\":\"hi\"}");
    ck_assert_uint_eq(c->status, 200);
    ck_assert_str_eq(c->body, "{\"status\":\"ok\"}");
    ck_assert_str_eq(c->content_type, "application/json");
    ck_assert_str_eq(c->headers, "");
    ck_assert_uint_eq(n_heard, 1);
    ck_assert_uint_eq(heard[0].verb, VERB_METHOD);
    ck_assert_str_eq(heard[0].key, "chat:lobby");
    ck_assert_str_eq(heard[0].name, "say");
    ck_assert_str_eq(heard[0].input, "{\"text\":\"hi\"}");
    ck_assert_uint_eq(heard[0].streams, 0);
    answer.result = (struct msg_result){0}; /* nothing returned, nothing given */
    ck_assert_str_eq(ask(2, "POST /api/chat/a%2Fb/router.p%69ng", NULL, NULL)->body, "null");
    ck_assert_str_eq(heard[1].key, "chat:a/b");
    ck_assert_str_eq(heard[1].name, "router.ping");
    ck_assert_uint_eq(heard[1].input_size, 0);
    ck_assert(memcmp(heard[0].msg_id, heard[1].msg_id, 16) != 0);
}
END_TEST

START_TEST(test_each_verb)
{
    static const struct {
        const char *line, *body;
        enum call_verb verb;
        const char *name, *answer;
    } table[] = {
        {"POST /api/chat/1/send", "{\"_tag\":\"Say\"}", VERB_SEND, "", "{\"ok\":true}"},
        {"POST /api/chat/1/broadcast", "[1]", VERB_BROADCAST, "", "{\"ok\":true}"},
        {"POST /api/chat/1/alarm", "", VERB_ALARM, "", "{\"ok\":true}"},
        {"GET /api/chat/1/state", "", VERB_STATE, "", "{\"n\":1}"},
        {"GET /api/chat/1/connections", "", VERB_CONNECTIONS, "", "{\"n\":1}"},
        {"GET /api/chat/1/connections?tag=user%3Aann", "", VERB_CONNECTIONS, "user:ann",
         "{\"n\":1}"},
        {"GET /connections?key=chat:1&tag=a", "", VERB_CONNECTIONS, "a", "{\"n\":1}"},
    };
    returns("{\"n\":1}");
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++) {
        struct client *c = ask(i + 1, table[i].line, NULL, table[i].body);
        ck_assert_msg(c->status == 200, "%s: %u", table[i].line, c->status);
        ck_assert_str_eq(c->body, table[i].answer);
        ck_assert_uint_eq(n_heard, i + 1);
        ck_assert_uint_eq(heard[i].verb, table[i].verb);
        ck_assert_str_eq(heard[i].key, "chat:1");
        ck_assert_str_eq(heard[i].name, table[i].name);
        ck_assert_str_eq(heard[i].input, table[i].body);
    }
    /* No tag is empty, so nobody has it. */
    ck_assert_str_eq(ask(20, "GET /api/chat/1/connections?tag=", NULL, NULL)->body, "[]");
    ck_assert_uint_eq(n_heard, sizeof table / sizeof *table);
}
END_TEST

static const struct {
    const char *line, *headers, *body;
    unsigned status;
    const char *tag;
} refusals[] = {
    {"POST /api/chat/1/send", NULL, "", 400, "RoomValidationError"},
    {"POST /api/chat/1/send", NULL, "{", 400, "RoomValidationError"},
    {"POST /api/chat/1/broadcast", NULL, "x", 400, "RoomValidationError"},
    {"POST /api/chat/1/say", NULL, "x", 400, "BadRequest"},
    {"POST /api/chat/1/%ff", NULL, "1", 404, "NoSuchMethod"},
    {"POST /api/chat/1/%zz", NULL, "1", 404, "NoSuchMethod"},
    {"POST /api/chat/1/a/b", NULL, "1", 404, "NotFound"},
    {"POST /api/chat/1/say", "Idempotency-Key: ", "1", 400, "BadRequest"},
    {"POST /api/chat/1/say", "Idempotency-Key: a\nIdempotency-Key: b", "1", 400, "BadRequest"},
    {"GET /api/chat/1/connections?tag=%ff", NULL, "", 400, "BadRequest"},
    {"GET /api/chat/1/connections?tag=a&tag=b", NULL, "", 400, "BadRequest"},
    {"GET /api/chat/1/presence", NULL, "", 404, "NotFound"},
    {"GET /presence?key=chat:1", NULL, "", 404, "NotFound"},
    {"GET /api/chat/1/say", NULL, "", 405, "MethodNotAllowed"},
    {"POST /api/chat/1/state", NULL, "", 405, "MethodNotAllowed"},
    {"POST /api/chat/1/send", "Content-Type: application/xml", "1", 415, "UnsupportedType"},
    {"POST /api/chat/1/broadcast", "Content-Type: multipart/form-data; boundary=x", "1", 415,
     "UnsupportedType"},
    {"POST /api/chat/1/say", "Content-Type: application/octet-stream", "1", 415, "UnsupportedType"},
    {"POST /api/chat/1/say", "Content-Type: application/json\nContent-Encoding: gzip", "1", 415,
     "UnsupportedType"},
    {"POST /api/few/1/say", NULL, "1", 409, "NoHandler"},
    {"POST /api/none/1/say", NULL, "1", 404, "NoSuchType"},
};

START_TEST(test_refusals)
{
    struct client *c = ask(1, refusals[_i].line, refusals[_i].headers, refusals[_i].body);
    ck_assert_msg(c->status == refusals[_i].status, "%s: %u %s", refusals[_i].line, c->status,
                  c->body ? c->body : "");
    ck_assert_ptr_nonnull(strstr(c->body, refusals[_i].tag));
    ck_assert_uint_eq(n_heard, 0);
}
END_TEST

START_TEST(test_size)
{
    char *body = mem_alloc(PAYLOAD_MAX_BYTES + 1);
    memset(body, '1', PAYLOAD_MAX_BYTES + 1);
    body[0] = body[PAYLOAD_MAX_BYTES - 1] = '"';
    returns("1");
    ask_bytes(1, "POST /api/chat/1/say", NULL, slice_of(body, PAYLOAD_MAX_BYTES));
    ck_assert_uint_eq(clients[1].status, 200);
    ck_assert_uint_eq(heard[0].input_size, PAYLOAD_MAX_BYTES);
    ask_bytes(2, "POST /api/chat/1/say", NULL, slice_of(body, PAYLOAD_MAX_BYTES + 1));
    ASSERT_ERROR(&clients[2], 413, "TooLarge");
    ck_assert_uint_eq(n_heard, 1);
    mem_free(body);
}
END_TEST

START_TEST(test_large_answers)
{
    /* A state has up to 2 MiB; what is collected of a stream is bounded. */
    static char state[BODY_MAX_BYTES];
    memset(state, '1', sizeof state - 1);
    returns(state);
    struct client *c = ask(1, "GET /api/chat/1/state", NULL, NULL);
    ck_assert_uint_eq(c->status, 200);
    ck_assert_uint_eq(strlen(c->body), sizeof state - 1);
    answer.items[0] = answer.items[1] = state + MIB;
    returns("null");
    ASSERT_ERROR(ask(2, "POST /api/chat/1/list", NULL, NULL), 500, "RoomError");
    answer.items[0] += 16;
    answer.items[1] = NULL;
    ck_assert_uint_eq(ask(3, "POST /api/chat/1/list", NULL, NULL)->status, 200);
}
END_TEST

START_TEST(test_errors_of_rooms)
{
    answer.result = (struct msg_result){
        .status = 409, .tag = text("Taken"), .text = text("a \"seat\""), .json = text("{\"n\":2}")};
    struct client *c = ask(1, "POST /api/chat/1/book", NULL, "1");
    ck_assert_uint_eq(c->status, 409);
    ck_assert_str_eq(c->body, "{\"error\":{\"tag\":\"Taken\",\"message\":\"a \\\"seat\\\"\","
                              "\"data\":{\"n\":2}}}");
    /* Names that rooms think up do not become labels. */
    ck_assert_uint_eq((unsigned)metric("stoa_refused_total", "tag=\"Taken\""), 0);
    ck_assert_uint_eq((unsigned)metric("stoa_refused_total", "tag=\"RoomError\""), 1);
    answer.result = (struct msg_result){
        .status = 500, .tag = text("RoomExecutionError"), .text = text("chat.lua:7: secret")};
    c = ask(2, "POST /api/chat/1/send", NULL, "1");
    ASSERT_ERROR(c, 500, "RoomExecutionError");
    ck_assert_ptr_null(strstr(c->body, "secret"));
    ck_assert_ptr_null(strstr(c->body, "data"));
    answer.result = (struct msg_result){.status = 429, .tag = text("RateLimited")};
    c = ask(3, "POST /api/chat/1/send", NULL, "1");
    ASSERT_ERROR(c, 429, "RateLimited");
    ck_assert_str_eq(c->headers, "Retry-After: 1\r\n");
    answer.result = (struct msg_result){.status = 7, .tag = text("NoSuchMethod")};
    ASSERT_ERROR(ask(4, "POST /api/chat/1/x", NULL, "1"), 404, "NoSuchMethod");
    returns("{broken");
    ASSERT_ERROR(ask(5, "POST /api/chat/1/x", NULL, "1"), 500, "RoomExecutionError");
}
END_TEST

START_TEST(test_same_key_same_id)
{
    answer.result = (struct msg_result){.json = text("1"), .dup = 1};
    struct client *c = ask(1, "POST /api/chat/1/say", "Idempotency-Key: k", "1");
    ck_assert_str_eq(c->body, "1");
    ck_assert_str_eq(c->headers, "Stoa-Duplicate: 1\r\n");
    c = ask(2, "POST /api/chat/1/send", "Idempotency-Key: k", "1");
    ck_assert_str_eq(c->body, "{\"ok\":true,\"duplicate\":true}");
    ck_assert_mem_eq(heard[0].msg_id, heard[1].msg_id, 16);
    /* A repeat that only the gateway knows of is the first one for the client. */
    c = ask(3, "POST /api/chat/1/send", NULL, "1");
    ck_assert_str_eq(c->body, "{\"ok\":true}");
    ck_assert_str_eq(c->headers, "");
    static const uint8_t none[16];
    ck_assert(memcmp(heard[2].msg_id, none, 16) != 0);
    (void)ask(4, "GET /api/chat/1/state", "Idempotency-Key: k", NULL);
    ck_assert_mem_eq(heard[3].msg_id, none, 16);
}
END_TEST

START_TEST(test_stream_into_array)
{
    answer.items[0] = "1";
    answer.items[1] = "{\"n\":2}";
    returns("null");
    struct client *c = ask(1, "POST /api/chat/1/list", NULL, NULL);
    ck_assert_str_eq(c->body, "[1,{\"n\":2}]");
    returns("\"end\"");
    ck_assert_str_eq(ask(2, "POST /api/chat/1/list", NULL, NULL)->body, "[1,{\"n\":2},\"end\"]");
}
END_TEST

START_TEST(test_a_lost_link_asks_again)
{
    answer.mute = true;
    answer.items[0] = "1"; /* of an attempt that is lost with its link */
    struct client *c = ask(1, "POST /api/chat/1/say", NULL, "1");
    ck_assert_uint_eq(n_heard, 1);
    ck_assert_uint_eq(c->responses, 0);
    shard_down();
    pass_ms(1000);
    answer = (struct answer){0};
    returns("7");
    shard_up(true);
    pass_ms(500);
    ck_assert_uint_eq(n_heard, 2);
    ck_assert_mem_eq(heard[0].msg_id, heard[1].msg_id, 16);
    ck_assert_str_eq(c->body, "7");
    ck_assert_uint_eq(c->responses, 1);
}
END_TEST

START_TEST(test_what_takes_its_shard_along)
{
    answer.mute = true;
    struct client *c = ask(1, "POST /api/chat/1/say", NULL, "1");
    for (unsigned i = 1; i <= 3; i++) {
        ck_assert_uint_eq(n_heard, i);
        ck_assert_uint_eq(c->responses, 0);
        shard_down();
        settle();
        shard_up(true);
        pass_ms(500);
    }
    ASSERT_ERROR(c, 504, "Unknown");
    ck_assert_uint_eq(n_heard, 3);
}
END_TEST

START_TEST(test_refused_for_now)
{
    returns("7");
    answer.nacks = 3;
    answer.nack = NACK_BUSY;
    struct client *c = ask(1, "POST /api/chat/1/say", NULL, "1");
    pass_ms(3000);
    ck_assert_uint_eq(n_heard, 4);
    ck_assert_str_eq(c->body, "7");
    answer.nacks = 1;
    answer.nack = NACK_DISK;
    c = ask(2, "POST /api/chat/1/say", NULL, "1");
    ASSERT_ERROR(c, 503, "DiskFull");
    ck_assert_str_eq(c->headers, "Retry-After: 1\r\n");
    answer.nacks = 1000;
    answer.nack = NACK_BUSY;
    c = ask(3, "POST /api/chat/1/say", NULL, "1");
    pass_ms(PUBLISH_TIMEOUT_MS);
    ASSERT_ERROR(c, 503, "Busy");
}
END_TEST

START_TEST(test_no_answer)
{
    answer.mute = true;
    struct client *c = ask(1, "POST /api/chat/1/say", "Idempotency-Key: k", "1");
    struct client *reader = ask(2, "GET /api/chat/1/state", NULL, NULL);
    pass_ms(4900);
    ck_assert_uint_eq(reader->responses, 0);
    pass_ms(200);
    ASSERT_ERROR(reader, 503, "Moving");
    pass_ms(4800);
    ck_assert_uint_eq(c->responses, 0);
    pass_ms(200);
    ASSERT_ERROR(c, 504, "Unknown");
    ck_assert_ptr_nonnull(strstr(c->body, "same key"));
    /* An answer that comes later is nobody's. */
    say_result(heard[0].cid, 0, &(struct msg_result){.json = text("1")});
    settle();
    ck_assert_uint_eq(c->responses, 1);
}
END_TEST

START_TEST(test_no_owner)
{
    shard_withdraw();
    settle();
    struct client *c = ask(1, "POST /api/chat/1/say", NULL, "1");
    pass_ms(PUBLISH_TIMEOUT_MS + 100);
    ASSERT_ERROR(c, 503, "Moving");
    ck_assert_uint_eq(n_heard, 0);
    c = ask(2, "POST /api/chat/1/say", NULL, "1");
    pass_ms(300);
    returns("7");
    shard_claim();
    pass_ms(300);
    ck_assert_str_eq(c->body, "7");
}
END_TEST

START_TEST(test_client_goes_first)
{
    answer.mute = true;
    (void)ask(1, "POST /api/chat/1/say", NULL, "1");
    hang_up(1, 1006);
    say_result(heard[0].cid, 0, &(struct msg_result){.json = text("1")});
    settle();
    ck_assert_uint_eq(clients[1].responses, 0);
}
END_TEST

START_TEST(test_v1_frames)
{
    struct client *c = open_v1(1);
    returns("{\"status\":\"ok\"}");
    say(1, "{\"call\":\"chat:1\",\"method\":\"s\\u0061y\",\"input\":{\"text\":1},\"ref\":[1]}");
    ck_assert_str_eq(frame(c), "{\"ref\":[1],\"ok\":{\"status\":\"ok\"}}");
    ck_assert_uint_eq(heard[0].verb, VERB_METHOD);
    ck_assert_str_eq(heard[0].name, "say");
    ck_assert_str_eq(heard[0].input, "{\"text\":1}");
    ck_assert_uint_eq(heard[0].streams, 1);
    say(1, "{\"send\":\"chat:1\",\"event\":{\"_tag\":\"Say\"},\"ref\":2}");
    ck_assert_str_eq(frame(c), "{\"ref\":2,\"ok\":{\"ok\":true}}");
    ck_assert_uint_eq(heard[1].verb, VERB_SEND);
    ck_assert_str_eq(heard[1].input, "{\"_tag\":\"Say\"}");
    answer.items[0] = "1";
    answer.items[1] = "";
    returns("3");
    say(1, "{\"call\":\"chat:1\",\"method\":\"list\",\"ref\":3}");
    ck_assert_str_eq(frame(c), "{\"ref\":3,\"item\":1}");
    ck_assert_str_eq(frame(c), "{\"ref\":3,\"item\":null}");
    ck_assert_str_eq(frame(c), "{\"ref\":3,\"ok\":3}");
    say(1, "{\"call\":\"chat:1\",\"method\":\"list\"}"); /* no ref: it wants to hear nothing */
    say(1, "{\"ping\":1}");
    ck_assert_str_eq(frame(c), "{\"pong\":1}");
    answer = (struct answer){
        .result = {.status = 404, .tag = text("NoSuchMethod"), .text = text("none")}};
    say(1, "{\"call\":\"chat:1\",\"method\":\"x\",\"ref\":4,\"idempotencyKey\":\"k\"}");
    ck_assert_str_eq(frame(c),
                     "{\"ref\":4,\"error\":{\"tag\":\"NoSuchMethod\",\"message\":\"none\","
                     "\"status\":404}}");
    say(1, "{\"call\":\"chat:1\",\"method\":7,\"ref\":5}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"tag\":\"BadRequest\""));
    say(1, "{\"send\":\"chat:1\",\"ref\":6}");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"tag\":\"RoomValidationError\""));
    say(1, "{\"call\":\"chat:1\",\"method\":\"x\",\"idempotencyKey\":\"\"}");
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"ref\":null,\"error\":{\"tag\":\"BadRequest\""));
    ck_assert_uint_eq(n_heard, 5);
    answer.mute = true;
    say(1, "{\"call\":\"chat:1\",\"method\":\"x\",\"ref\":9}");
    pass_ms(PUBLISH_TIMEOUT_MS + 100);
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"ref\":9,\"error\":{\"tag\":\"Unknown\""));
    say(1, "{\"call\":\"chat:1\",\"method\":\"x\",\"ref\":10}");
    hang_up(1, 1006);
    say_result(heard[n_heard - 1].cid, 0, &(struct msg_result){.json = text("1")});
    settle();
}
END_TEST

START_TEST(test_types_after_a_reload)
{
    static const struct gateway_type after[] = {{.name = "events"},
                                                {.name = "few", .has_handler = true}};
    struct client *few = open_raw(1, "/ws/few/1");
    struct client *other = open_raw(2, "/ws/other/1");
    struct client *v1 = open_v1(3);
    say(3, "{\"sub\":\"few:1\"}");
    ck_assert_ptr_nonnull(strstr(frame(v1), "\"status\":\"live\""));
    ASSERT_ERROR(ask(4, "POST /api/few/1/say", NULL, "1"), 409, "NoHandler");
    gateway_retypes(gateway, after, 2, now);
    settle();
    ck_assert(few->closed);
    ck_assert_uint_eq(few->code, 1012);
    ck_assert_ptr_nonnull(strstr(frame(v1), "{\"unsub\":\"few:1\",\"code\":1012"));
    ck_assert(!v1->closed && !other->closed);
    hang_up(1, 1012);
    returns("7");
    ck_assert_str_eq(ask(5, "POST /api/few/1/say", NULL, "1")->body, "7");
    ASSERT_ERROR(ask(6, "POST /api/chat/1/say", NULL, "1"), 404, "NoSuchType");
    room_publish("other:1", "1");
    ck_assert_str_eq(frame(other), "1");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway calls");
    TCase *c = tcase_create("calls");
    tcase_add_checked_fixture(c, setup, world_teardown);
    tcase_add_test(c, test_method);
    tcase_add_test(c, test_each_verb);
    tcase_add_loop_test(c, test_refusals, 0, sizeof refusals / sizeof *refusals);
    tcase_add_test(c, test_size);
    tcase_add_test(c, test_large_answers);
    tcase_add_test(c, test_errors_of_rooms);
    tcase_add_test(c, test_same_key_same_id);
    tcase_add_test(c, test_stream_into_array);
    tcase_add_test(c, test_a_lost_link_asks_again);
    tcase_add_test(c, test_what_takes_its_shard_along);
    tcase_add_test(c, test_refused_for_now);
    tcase_add_test(c, test_no_answer);
    tcase_add_test(c, test_no_owner);
    tcase_add_test(c, test_client_goes_first);
    tcase_add_test(c, test_v1_frames);
    tcase_add_test(c, test_types_after_a_reload);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
