/* CORE. The caller of libstoa against routers that do as the test says: every refusal, lost
 * answers, streams, the window, deadlines, the second router, and a room that must never do twice
 * what was asked once. */
#include "client/caller.h"
#include "client_net.h"
#include "common/rng.h"

#define LIBRARY 0
#define ROUTER(i) (1 + (i))
#define N_ROUTERS 2
#define ASKED_MAX 4096
#define ENDS_MAX 2048

struct asked { /* as a router got it */
    unsigned router;
    uint64_t type, cid, verb, streams, close_code;
    uint8_t msg_id[16];
    char key[32], name[32], input[32];
};

struct end {
    unsigned number;
    int status, http;
    bool duplicate;
    char tag[32], data[128];
};

static struct publisher *publisher;
static struct caller *caller;
static struct metrics *metrics;
static struct asked asked[ASKED_MAX];
static unsigned n_asked;
static struct end ends[ENDS_MAX];
static unsigned n_ends;
static char items[4096]; /* as they came, a space behind each */
static uint32_t router_peer[N_ROUTERS];
static void (*answering)(unsigned router, const struct message *m); /* NULL: the test answers */

/* ---- routers ---- */

static unsigned router_of(void *ctx)
{
    return (unsigned)((struct hub **)ctx - net_hubs) - ROUTER(0);
}

static void text_copy(char *out, size_t capacity, struct slice s)
{
    snprintf(out, capacity, "%.*s", (int)s.size, s.size ? (const char *)s.data : "");
}

static void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    (void)info;
    router_peer[router_of(ctx)] = peer;
}

static void on_down(void *ctx, uint32_t peer)
{
    (void)peer;
    router_peer[router_of(ctx)] = 0;
}

static void on_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    (void)peer;
    (void)packet;
    ck_assert_uint_lt(n_asked, ASKED_MAX);
    struct asked *a = &asked[n_asked++];
    *a = (struct asked){.router = router_of(ctx), .type = m->type, .cid = m->cid};
    text_copy(a->key, sizeof a->key, m->key);
    if (m->type == MSG_CALL) {
        a->verb = m->call.verb;
        a->streams = m->call.streams;
        memcpy(a->msg_id, m->call.msg_id, sizeof a->msg_id);
        text_copy(a->name, sizeof a->name, m->call.name);
        text_copy(a->input, sizeof a->input, m->call.input);
    } else if (m->type == MSG_CLOSE) {
        a->close_code = m->close.code;
    }
    if (answering)
        answering(a->router, m);
}

static void router_start(unsigned i)
{
    static uint64_t boots;
    struct hub_self self = net_self(ROLE_ROUTER, ROUTER(i), ++boots);
    const struct hub_handler handler = {
        .ctx = &net_hubs[ROUTER(i)], .on_up = on_up, .on_down = on_down, .on_message = on_message};
    const struct hub_ports ports = net_ports(ROUTER(i));
    net_hubs[ROUTER(i)] = hub_create(&self, &handler, &ports, NULL, metrics, boots);
    wire_connect(&wires[i]);
}

static void router_kill(unsigned i)
{
    struct hub *hub = net_hubs[ROUTER(i)];
    net_down(ROUTER(i));
    hub_destroy(&hub);
    router_peer[i] = 0;
}

static void send_back(unsigned router, struct message m)
{
    m.slot = SLOT_UNKNOWN;
    hub_send(net_hubs[ROUTER(router)], router_peer[router], &m);
}

static void answer_result(const struct asked *a, const char *json, bool more, bool dup)
{
    struct message m = {.type = MSG_RESULT, .cid = a->cid};
    m.result.more = more;
    m.result.dup = dup;
    m.result.json = slice_text(json);
    send_back(a->router, m);
}

static void answer_nack(const struct asked *a, enum nack_code code)
{
    struct message m = {.type = MSG_NACK, .cid = a->cid};
    m.nack.code = code;
    send_back(a->router, m);
}

static void tell_lost(unsigned router)
{
    send_back(router, (struct message){.type = MSG_LOST});
}

/* ---- the world ---- */

static void collect(void)
{
    struct list *some = caller_items(caller), *done = caller_done(caller);
    while (!list_empty(some)) {
        struct call_item *item = LIST_ENTRY(some->next, struct call_item, node);
        list_remove(&item->node);
        ck_assert_uint_eq(strlen(item->json), item->size);
        size_t used = strlen(items);
        snprintf(items + used, sizeof items - used, "%s ", item->json);
        mem_free(item);
    }
    while (!list_empty(done)) {
        struct call *c = LIST_ENTRY(done->next, struct call, node);
        list_remove(&c->node);
        ck_assert_uint_lt(n_ends, ENDS_MAX);
        struct end *e = &ends[n_ends++];
        ck_assert_ptr_nonnull(c->result);
        *e = (struct end){.number = (unsigned)(uintptr_t)c->arg,
                          .status = c->status,
                          .http = c->result->status,
                          .duplicate = c->result->duplicate != 0};
        snprintf(e->tag, sizeof e->tag, "%s", c->result->tag);
        snprintf(e->data, sizeof e->data, "%s", c->result->data);
        call_destroy(c);
    }
}

static void settle(void)
{
    bool moved;
    do {
        moved = false;
        publisher_turn(publisher, now);
        for (unsigned i = 0; i < N_ROUTERS; i++) {
            if (!net_hubs[ROUTER(i)])
                continue;
            hub_tick(net_hubs[ROUTER(i)], now);
            hub_flush(net_hubs[ROUTER(i)], now);
        }
        for (unsigned i = 0; i < n_wires; i++)
            while (wire_carry(&wires[i]))
                moved = true;
        caller_validate(caller);
    } while (moved || publisher_deadline(publisher) <= now.mono_ns);
    collect();
}

static void pass_ms(int64_t ms)
{
    while (ms > 0) {
        int64_t step = ms < 10 ? ms : 10;
        net_pass_ms(step);
        settle();
        ms -= step;
    }
}

static void set_up(void)
{
    net_begin();
    n_asked = n_ends = 0;
    items[0] = '\0';
    answering = NULL;
    metrics = metrics_create();
    const struct publisher_options options = {
        .self = net_self(ROLE_PUBLISHER, LIBRARY, 1), .n_routers = N_ROUTERS, .seed = 11};
    const struct hub_ports ports = net_ports(LIBRARY);
    publisher = publisher_create(&options, &ports, NULL, metrics);
    caller = publisher_caller(publisher);
    net_hubs[LIBRARY] = publisher_hub(publisher);
    for (unsigned i = 0; i < N_ROUTERS; i++) {
        wire_add(LIBRARY, i + 1, ROUTER(i));
        router_start(i);
        settle(); /* the first is up first */
    }
}

static void tear_down(void)
{
    answering = NULL;
    publisher_abandon(publisher);
    caller_abandon(caller);
    collect();
    net_down(LIBRARY);
    publisher_destroy(&publisher);
    for (unsigned i = 0; i < N_ROUTERS; i++)
        router_kill(i);
    metrics_destroy(&metrics);
    ck_assert_uint_eq(buf_alive(), 0);
}

static void no_item(void *arg, const char *json, size_t size)
{
    (void)arg;
    (void)json;
    (void)size;
}

static void ask(unsigned number, struct call_order order, const stoa_call_options *options)
{
    order.type = order.type ? order.type : MSG_CALL;
    order.key = order.key.data ? order.key : slice_text("poll:1");
    order.options = options;
    order.default_timeout_ms = 30000;
    ck_assert_int_eq(call_check(&order), STOA_OK);
    struct call *c = call_create(&order);
    c->arg = (void *)(uintptr_t)number;
    caller_submit(caller, c, now);
}

static void ask_method(unsigned number, const char *name)
{
    ask(number, (struct call_order){.verb = VERB_METHOD, .name = slice_text(name)}, NULL);
}

static const struct end *end_of(unsigned number)
{
    for (unsigned i = 0; i < n_ends; i++)
        if (ends[i].number == number)
            return &ends[i];
    return NULL;
}

static void ck_end(unsigned number, int status, const char *tag)
{
    const struct end *e = end_of(number);
    ck_assert_ptr_nonnull(e);
    ck_assert_int_eq(e->status, status);
    ck_assert_str_eq(e->tag, tag);
}

/* ---- tests ---- */

START_TEST(each_order_is_sent_as_what_it_is)
{
    const stoa_call_options streaming = {
        .size = sizeof streaming, .on_item = no_item, .idempotency_key = "mine"};
    ask(1, (struct call_order){.verb = VERB_SEND, .input = slice_text("{\"a\":1}")}, NULL);
    ask(2, (struct call_order){.verb = VERB_METHOD, .name = slice_text("m")}, &streaming);
    ask(3, (struct call_order){.verb = VERB_STATE}, &streaming);
    ask(4, (struct call_order){.verb = VERB_CONNECTIONS, .name = slice_text("tag")}, NULL);
    ask(5, (struct call_order){.type = MSG_CLOSE, .close_code = 4001}, NULL);
    ask(6, (struct call_order){.type = MSG_CLOSE}, NULL);
    ask(7, (struct call_order){.type = MSG_PURGE, .key = slice_text("other")}, NULL);
    settle();
    static const uint8_t nothing[16];
    ck_assert_uint_eq(n_asked, 7);
    ck_assert_uint_eq(asked[0].verb, VERB_SEND);
    ck_assert_str_eq(asked[0].input, "{\"a\":1}");
    ck_assert_str_eq(asked[0].key, "poll:1");
    ck_assert_uint_eq(asked[0].streams, 0);
    ck_assert_mem_ne(asked[0].msg_id, nothing, 16);
    ck_assert_str_eq(asked[1].name, "m");
    ck_assert_uint_eq(asked[1].streams, 1);
    uint8_t digest[32];
    sha256(digest, "mine", 4);
    ck_assert_mem_eq(asked[1].msg_id, digest, 16);
    ck_assert_str_eq(asked[3].name, "tag");
    ck_assert_mem_eq(asked[3].msg_id, nothing, 16);
    ck_assert_uint_eq(asked[4].type, MSG_CLOSE);
    ck_assert_uint_eq(asked[4].close_code, 4001);
    ck_assert_uint_eq(asked[5].close_code, 1000);
    ck_assert_uint_eq(asked[6].type, MSG_PURGE);
    ck_assert_str_eq(asked[6].key, "other");
    for (unsigned i = 0; i < 7; i++)
        ck_assert_uint_ne(asked[i].cid & CALLER_CID, 0);
}
END_TEST

START_TEST(answers_end_it)
{
    for (unsigned n = 1; n <= 4; n++)
        ask_method(n, "m");
    ask(5, (struct call_order){.type = MSG_PURGE}, NULL);
    settle();
    answer_result(&asked[0], "{\"votes\":3}", false, false);
    answer_result(&asked[1], "", false, true);
    struct message error = {.type = MSG_RESULT, .cid = asked[2].cid};
    error.result.status = 410;
    error.result.tag = slice_text("SoldOut");
    error.result.text = slice_text("no seat is left");
    error.result.json = slice_text("[7]");
    send_back(0, error);
    error.cid = asked[3].cid;
    error.result.status = 7; /* none of HTTP's for errors */
    error.result.tag = slice_text("");
    error.result.json = slice_text("{broken");
    send_back(0, error);
    struct message pack = {.type = MSG_PACK, .cid = asked[4].cid};
    pack.pack.room_epoch = 36;
    pack.pack.seq = 5;
    send_back(0, pack);
    settle();
    ck_assert_uint_eq(n_ends, 5);
    ck_end(1, STOA_OK, "");
    ck_assert_str_eq(end_of(1)->data, "{\"votes\":3}");
    ck_assert_int_eq(end_of(1)->http, 200);
    ck_assert(!end_of(1)->duplicate);
    ck_end(2, STOA_OK, "");
    ck_assert_str_eq(end_of(2)->data, "null");
    ck_assert(end_of(2)->duplicate);
    ck_end(3, STOA_ROOM, "SoldOut");
    ck_assert_int_eq(end_of(3)->http, 410);
    ck_assert_str_eq(end_of(3)->data, "[7]");
    ck_end(4, STOA_ROOM, "RoomError");
    ck_assert_int_eq(end_of(4)->http, 500);
    ck_assert_str_eq(end_of(4)->data, "");
    ck_end(5, STOA_OK, "");
    ck_assert_str_eq(end_of(5)->data, "{\"purged\":\"10-5\"}");
    answer_result(&asked[0], "1", false, false); /* once is enough */
    settle();
    ck_assert_uint_eq(n_ends, 5);
    ck_assert_uint_eq(caller_pending(caller), 0);
}
END_TEST

START_TEST(answers_that_make_no_sense_are_survived)
{
    ask_method(1, "m");
    ask(2, (struct call_order){.type = MSG_CLOSE}, NULL);
    settle();
    send_back(0, (struct message){.type = MSG_PACK, .cid = asked[0].cid});
    send_back(0, (struct message){.type = MSG_RESULT, .cid = asked[1].cid});
    send_back(0, (struct message){.type = MSG_RESULT, .cid = asked[1].cid + 1});
    send_back(0, (struct message){.type = MSG_RESULT, .cid = 1});
    settle();
    ck_assert_uint_eq(n_ends, 0);
    answer_result(&asked[0], "{not", false, false);
    settle();
    ck_end(1, STOA_ROOM, "RoomExecutionError");
}
END_TEST

static const struct {
    enum nack_code code;
    int status;
    const char *tag;
} final[] = {{NACK_TOOBIG, STOA_TOO_LARGE, "TooLarge"},
             {NACK_DENIED, STOA_DENIED, "Forbidden"},
             {NACK_INVALID, STOA_INVALID, "BadRequest"},
             {NACK_STALE, STOA_UNKNOWN, "Unknown"}};

START_TEST(final_refusals_end_it)
{
    ask_method(1, "m");
    settle();
    answer_nack(&asked[0], final[_i].code);
    settle();
    ck_end(1, final[_i].status, final[_i].tag);
}
END_TEST

static const struct {
    enum nack_code code;
    int status;
    const char *tag;
} passing[] = {{NACK_BUSY, STOA_TIMEOUT, "Busy"},     {NACK_RATE, STOA_TIMEOUT, "RateLimited"},
               {NACK_MOVED, STOA_TIMEOUT, "Moving"},  {NACK_NOTOWNER, STOA_TIMEOUT, "Moving"},
               {NACK_FROZEN, STOA_TIMEOUT, "Moving"}, {NACK_DISK, STOA_DISK, "DiskFull"}};

static enum nack_code always;

static void refuse_always(unsigned router, const struct message *m)
{
    struct message nack = {.type = MSG_NACK, .cid = m->cid};
    nack.nack.code = always;
    send_back(router, nack);
}

START_TEST(passing_refusals_are_tried_again_under_the_same_id)
{
    always = passing[_i].code;
    answering = refuse_always;
    ask_method(1, "m");
    settle();
    pass_ms(10000);
    ck_assert_uint_ge(n_asked, 5);
    ck_assert_uint_le(n_asked, 40); /* ever more slowly */
    ck_assert_uint_eq(n_ends, 0);
    for (unsigned i = 1; i < n_asked; i++)
        ck_assert_mem_eq(asked[i].msg_id, asked[0].msg_id, 16);
    pass_ms(21000);
    ck_end(1, passing[_i].status, passing[_i].tag);
    ck_assert_int_eq(end_of(1)->http, always == NACK_RATE ? 429 : 503);
}
END_TEST

START_TEST(time_is_over)
{
    const stoa_call_options brief = {.size = sizeof brief, .timeout_ms = 500};
    const struct call_order method = {.verb = VERB_METHOD, .name = slice_text("m")};
    ask(1, method, &brief);
    ask(2, (struct call_order){.verb = VERB_STATE}, &brief);
    settle();
    pass_ms(490);
    ck_assert_uint_eq(n_ends, 0);
    pass_ms(10);
    ck_end(1, STOA_UNKNOWN, "Unknown"); /* sent, no answer: nobody knows */
    ck_assert_int_eq(end_of(1)->http, 504);
    ck_end(2, STOA_TIMEOUT, "Moving"); /* reading does nothing */
    router_kill(0);
    router_kill(1);
    settle();
    ask(3, method, &brief);
    pass_ms(500);
    ck_end(3, STOA_TIMEOUT, "Moving"); /* never sent */
}
END_TEST

START_TEST(a_refusal_behind_a_lost_answer_leaves_it_open)
{
    ask_method(1, "m");
    ask_method(2, "m");
    settle();
    tell_lost(0);
    settle();
    ck_assert_uint_eq(n_asked, 4);
    answer_nack(&asked[2], NACK_DENIED);
    answer_nack(&asked[3], NACK_DISK);
    settle();
    ck_end(1, STOA_UNKNOWN, "Unknown");
    always = NACK_DISK;
    answering = refuse_always;
    pass_ms(31000);
    ck_end(2, STOA_UNKNOWN, "Unknown");
}
END_TEST

START_TEST(lost_answers_are_asked_for_again_in_order)
{
    for (unsigned n = 1; n <= 3; n++)
        ask_method(n, "m");
    settle();
    tell_lost(0);
    settle();
    ck_assert_uint_eq(n_asked, 6);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_mem_eq(asked[3 + i].msg_id, asked[i].msg_id, 16);
        ck_assert_uint_ne(asked[3 + i].cid, asked[i].cid);
    }
    answer_result(&asked[0], "1", false, false); /* of the transmission that was given up */
    answer_result(&asked[4], "2", false, true);
    settle();
    ck_assert_uint_eq(n_ends, 1);
    ck_assert_str_eq(end_of(2)->data, "2");
    ck_assert(end_of(2)->duplicate);
    tell_lost(0);
    settle();
    tell_lost(0);
    settle();
    ck_end(1, STOA_UNKNOWN, "Unknown"); /* it may be what ends the shard each time */
    ck_end(3, STOA_UNKNOWN, "Unknown");
    ck_assert_uint_eq(caller_pending(caller), 0);
}
END_TEST

START_TEST(another_router_takes_over)
{
    ask_method(1, "m");
    settle();
    router_kill(0);
    settle();
    ck_assert_uint_eq(n_asked, 2);
    ck_assert_uint_eq(asked[1].router, 1);
    ck_assert_mem_eq(asked[1].msg_id, asked[0].msg_id, 16);
    router_kill(1);
    settle();
    ask_method(2, "m");
    settle();
    ck_assert_uint_eq(n_asked, 2);
    router_start(1);
    settle();
    ck_assert_uint_eq(n_asked, 4);
    ck_assert_mem_eq(asked[2].msg_id, asked[0].msg_id, 16); /* first come, first sent */
    answer_result(&asked[2], "1", false, false);
    answer_result(&asked[3], "2", false, false);
    settle();
    ck_end(1, STOA_OK, "");
    ck_end(2, STOA_OK, "");
}
END_TEST

START_TEST(silence_is_asked_again_with_the_same_number)
{
    ask_method(1, "m");
    settle();
    pass_ms(CALL_SILENCE_MS + 10);
    ck_assert_uint_eq(n_asked, 2);
    ck_assert_uint_eq(asked[1].cid, asked[0].cid);
    answer_result(&asked[0], "1", false, false);
    answer_result(&asked[1], "1", false, true);
    settle();
    ck_assert_uint_eq(n_ends, 1);
    ck_end(1, STOA_OK, "");
    ck_assert(!end_of(1)->duplicate);
}
END_TEST

START_TEST(items_come_before_the_end)
{
    const stoa_call_options streaming = {.size = sizeof streaming, .on_item = no_item};
    const struct call_order method = {.verb = VERB_METHOD, .name = slice_text("m")};
    ask(1, method, &streaming);
    settle();
    answer_result(&asked[0], "[1]", true, false);
    answer_result(&asked[0], "", true, false);
    settle();
    ck_assert_str_eq(items, "[1] null ");
    ck_assert_uint_eq(n_ends, 0);
    pass_ms(CALL_SILENCE_MS - 100); /* an item is a sign of life */
    answer_result(&asked[0], "3", true, false);
    settle();
    pass_ms(CALL_SILENCE_MS - 100);
    ck_assert_uint_eq(n_asked, 1);
    answer_result(&asked[0], "\"end\"", false, false);
    settle();
    ck_assert_str_eq(items, "[1] null 3 ");
    ck_end(1, STOA_OK, "");
    ck_assert_str_eq(end_of(1)->data, "\"end\"");
}
END_TEST

START_TEST(a_stream_over_a_lost_link_says_so)
{
    const stoa_call_options streaming = {.size = sizeof streaming, .on_item = no_item};
    const struct call_order method = {.verb = VERB_METHOD, .name = slice_text("m")};
    ask(1, method, &streaming);
    ask_method(2, "m");
    settle();
    answer_result(&asked[0], "1", true, false);
    settle();
    router_kill(0);
    settle();
    answer_result(&asked[2], "9", false, true);
    answer_result(&asked[3], "9", false, true);
    settle();
    ck_end(1, STOA_MISSED, "Missed");
    ck_assert_str_eq(end_of(1)->data, "9");
    ck_end(2, STOA_OK, "");
}
END_TEST

START_TEST(the_window_bounds_what_is_in_flight)
{
    for (unsigned n = 0; n < CALLS_IN_FLIGHT_MAX + 10; n++)
        ask_method(n, "m");
    settle();
    ck_assert_uint_eq(n_asked, CALLS_IN_FLIGHT_MAX);
    ck_assert_uint_eq(caller_in_flight(caller), CALLS_IN_FLIGHT_MAX);
    answer_result(&asked[0], "1", false, false);
    answer_nack(&asked[1], NACK_BUSY); /* who pauses lets another go */
    settle();
    ck_assert_uint_eq(n_asked, CALLS_IN_FLIGHT_MAX + 2);
    caller_abandon(caller);
    collect();
    ck_assert_uint_eq(n_ends, CALLS_IN_FLIGHT_MAX + 10);
    ck_end(5, STOA_UNKNOWN, "Unknown");

    static char big[400000];
    memset(big, '1', sizeof big - 1);
    tear_down();
    set_up();
    for (unsigned n = 0; n < 4; n++)
        ask(n, (struct call_order){.verb = VERB_SEND, .input = slice_text(big)}, NULL);
    settle();
    ck_assert_uint_eq(n_asked, 2);
    answer_result(&asked[0], "", false, false);
    settle();
    ck_assert_uint_eq(n_asked, 3);
}
END_TEST

/* ---- orders ---- */

START_TEST(wrong_orders_are_refused)
{
    static char long_text[300], fat[PAYLOAD_HARD_MAX_BYTES + 2];
    memset(long_text, 'x', sizeof long_text - 1);
    memset(fat, '1', sizeof fat - 1);
    stoa_call_options o = STOA_CALL_OPTIONS_INIT;
    const struct call_order fine = {.type = MSG_CALL,
                                    .verb = VERB_METHOD,
                                    .key = slice_text("k"),
                                    .name = slice_text("m"),
                                    .options = &o};
    struct call_order order = fine;
    ck_assert_int_eq(call_check(&order), STOA_OK);
    order.key = slice_text("$k");
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    order.key = slice_text("");
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    order = fine;
    order.name = slice_text("");
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    order.name = slice_text(long_text);
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    order.name = slice_text("\xff");
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    order = fine;
    order.input = slice_text("{");
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    order.input = slice_of(NULL, 3);
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    order.input = slice_text(fat);
    ck_assert_int_eq(call_check(&order), STOA_TOO_LARGE);
    order.input = slice_text("1");
    ck_assert_int_eq(call_check(&order), STOA_OK);
    order.verb = VERB_SEND;
    order.input = slice_of(NULL, 0);
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    order = fine;
    order.type = MSG_CLOSE;
    static const int bad_codes[] = {-1, 999, 1005, 1006, 1010, 1014, 2999, 5000};
    for (size_t i = 0; i < sizeof bad_codes / sizeof *bad_codes; i++) {
        order.close_code = bad_codes[i];
        ck_assert_int_eq(call_check(&order), STOA_INVALID);
    }
    order = fine;
    o.idempotency_key = "";
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    o.idempotency_key = long_text;
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    o.idempotency_key = NULL;
    o.timeout_ms = -1;
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    o.timeout_ms = 0;
    o.size = 1;
    ck_assert_int_eq(call_check(&order), STOA_INVALID);
    o.size = offsetof(stoa_call_options, timeout_ms); /* an older program: the rest is not read */
    o.timeout_ms = -1;
    o.on_item = no_item;
    ck_assert_int_eq(call_check(&order), STOA_OK);
    struct call *c = call_create(&order);
    ck_assert_ptr_null(c->on_item);
    call_destroy(c);
}
END_TEST

/* ---- chance: links come and go, shards lose what they answer, and a room counts what it does ----
 */

#define SHARD_IDS 1024

static struct rng dice;
static uint8_t shard_done[SHARD_IDS][16];
static unsigned shard_count, shard_mood;

/* A shard that does each id once, and whose answers get lost. */
static void shard_like(unsigned router, const struct message *m)
{
    struct message result = {.type = MSG_RESULT, .cid = m->cid};
    char text[24];
    unsigned i = 0;
    uint64_t fate = rng_below(&dice, 10);
    if (fate < shard_mood / 2) {
        struct message nack = {.type = MSG_NACK, .cid = m->cid};
        nack.nack.code = NACK_BUSY;
        send_back(router, nack);
        return;
    }
    while (i < shard_count && memcmp(shard_done[i], m->call.msg_id, 16) != 0)
        i++;
    result.result.dup = i < shard_count;
    if (i == shard_count) {
        ck_assert_uint_lt(shard_count, SHARD_IDS);
        memcpy(shard_done[shard_count++], m->call.msg_id, 16);
    }
    snprintf(text, sizeof text, "%u", i);
    result.result.json = slice_text(text);
    if (fate >= shard_mood)
        send_back(router, result);
}

static void chance_step(void)
{
    unsigned i = (unsigned)rng_below(&dice, N_ROUTERS);
    switch (rng_below(&dice, 12)) {
    case 0:
        if (net_hubs[ROUTER(i)])
            router_kill(i);
        break;
    case 1:
        if (!net_hubs[ROUTER(i)])
            router_start(i);
        break;
    case 2:
        if (router_peer[i])
            tell_lost(i);
        break;
    case 3:
        wire_cut(&wires[i]);
        wire_connect(&wires[i]);
        break;
    default:
        pass_ms((int64_t)rng_below(&dice, 200));
    }
    settle();
}

START_TEST(what_is_asked_once_is_never_done_twice)
{
    unsigned asked_for = 0;
    rng_seed(&dice, (uint64_t)_i);
    shard_count = 0;
    shard_mood = 6;
    answering = shard_like;
    for (unsigned step = 0; step < 150; step++) {
        n_asked = 0;
        for (uint64_t n = rng_below(&dice, 4); n > 0; n--)
            ask_method(asked_for++, "put");
        chance_step();
    }
    shard_mood = 0;
    for (unsigned i = 0; i < N_ROUTERS; i++) {
        if (!net_hubs[ROUTER(i)])
            router_start(i);
        wire_connect(&wires[i]);
    }
    n_asked = 0;
    pass_ms(31000);
    ck_assert_uint_eq(n_ends, asked_for);
    ck_assert_uint_eq(caller_pending(caller), 0);
    ck_assert_uint_le(shard_count, asked_for); /* one id each, whatever happened */
    unsigned fine = 0, unknown = 0;
    static bool seen[SHARD_IDS];
    memset(seen, 0, sizeof seen);
    for (unsigned i = 0; i < n_ends; i++) {
        fine += ends[i].status == STOA_OK;
        unknown += ends[i].status == STOA_UNKNOWN;
        if (ends[i].status != STOA_OK)
            continue;
        unsigned value = (unsigned)strtoul(ends[i].data, NULL, 10);
        ck_assert(!seen[value]);
        seen[value] = true;
    }
    ck_assert_uint_ge(fine, asked_for / 2);
    ck_assert_uint_le(shard_count, fine + unknown); /* who was told no, is right */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("client_caller");
    TCase *tc = tcase_create("caller");
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, each_order_is_sent_as_what_it_is);
    tcase_add_test(tc, answers_end_it);
    tcase_add_test(tc, answers_that_make_no_sense_are_survived);
    tcase_add_loop_test(tc, final_refusals_end_it, 0, sizeof final / sizeof *final);
    tcase_add_loop_test(tc, passing_refusals_are_tried_again_under_the_same_id, 0,
                        sizeof passing / sizeof *passing);
    tcase_add_test(tc, time_is_over);
    tcase_add_test(tc, a_refusal_behind_a_lost_answer_leaves_it_open);
    tcase_add_test(tc, lost_answers_are_asked_for_again_in_order);
    tcase_add_test(tc, another_router_takes_over);
    tcase_add_test(tc, silence_is_asked_again_with_the_same_number);
    tcase_add_test(tc, items_come_before_the_end);
    tcase_add_test(tc, a_stream_over_a_lost_link_says_so);
    tcase_add_test(tc, the_window_bounds_what_is_in_flight);
    tcase_add_test(tc, wrong_orders_are_refused);
    tcase_add_loop_test(tc, what_is_asked_once_is_never_done_twice, 0, 40);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
