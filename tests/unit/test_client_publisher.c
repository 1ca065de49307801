/* The publisher of libstoa against routers that do as the test says: every refusal, losses, the
 * windows, the deadlines, the second router. */
#include "client_net.h"

#define PUBLISHER 0
#define ROUTER(i) (1 + (i))
#define N_ROUTERS 2
#define PUBS_MAX 4096
#define DONE_MAX 4096
#define WIN_MESSAGES 300
#define WIN_BYTES (1 * MIB)

struct pub { /* as a router got it */
    unsigned router;
    uint64_t cid, pid, pseq, flags;
    int64_t ts;
    uint8_t msg_id[16];
    char key[32], payload[32];
    size_t parts;
};

struct end {
    char payload[32];
    int status;
    stoa_id id;
};

static struct publisher *publisher;
static struct metrics *metrics;
static struct pub pubs[PUBS_MAX];
static unsigned n_pubs;
static struct end done[DONE_MAX];
static unsigned n_done;
static uint32_t router_peer[N_ROUTERS]; /* the publisher's number there */

/* ---- routers ---- */

static unsigned router_of(void *ctx)
{
    return (unsigned)((struct hub **)ctx - net_hubs) - ROUTER(0);
}

static void text_copy(char out[32], struct slice s)
{
    snprintf(out, 32, "%.*s", (int)(s.size < 31 ? s.size : 31), (const char *)s.data);
}

static void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    ck_assert_int_eq(info->role, ROLE_PUBLISHER);
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
    ck_assert_uint_eq(m->type, MSG_PUB);
    ck_assert_uint_lt(n_pubs, PUBS_MAX);
    struct pub *p = &pubs[n_pubs++];
    *p = (struct pub){.router = router_of(ctx),
                      .cid = m->cid,
                      .pid = m->pub.pid,
                      .pseq = m->pub.pseq,
                      .flags = m->pub.flags,
                      .ts = m->pub.ts,
                      .parts = m->pub.payloads.count};
    memcpy(p->msg_id, m->pub.msg_id, sizeof p->msg_id);
    text_copy(p->key, m->key);
    text_copy(p->payload, m->pub.payloads.at[0]);
}

static void router_start(unsigned i)
{
    static uint64_t boots;
    struct hub_self self = net_self(ROLE_ROUTER, ROUTER(i), ++boots);
    self.win_msgs = WIN_MESSAGES;
    self.win_bytes = WIN_BYTES;
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

/* ---- the world ---- */

static void collect(void)
{
    struct list *list = publisher_done(publisher);
    while (!list_empty(list)) {
        struct publish *p = LIST_ENTRY(list->next, struct publish, node);
        list_remove(&p->node);
        ck_assert_uint_lt(n_done, DONE_MAX);
        struct end *e = &done[n_done++];
        *e = (struct end){.status = p->status, .id = p->id};
        text_copy(e->payload, p->parts[0]);
        publish_destroy(p);
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
        publisher_validate(publisher);
    } while (moved);
    collect();
}

/* Time goes by in steps in which links stay alive. */
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
    metrics = metrics_create();
    const struct publisher_options options = {
        .self = net_self(ROLE_PUBLISHER, PUBLISHER, 1), .n_routers = N_ROUTERS, .seed = 11};
    const struct hub_ports ports = net_ports(PUBLISHER);
    publisher = publisher_create(&options, &ports, NULL, metrics);
    net_hubs[PUBLISHER] = publisher_hub(publisher);
    for (unsigned i = 0; i < N_ROUTERS; i++) {
        wire_add(PUBLISHER, i + 1, ROUTER(i));
        router_start(i);
        settle(); /* the first is up first */
    }
}

static void tear_down(void)
{
    publisher_abandon(publisher);
    collect();
    net_down(PUBLISHER);
    publisher_destroy(&publisher);
    for (unsigned i = 0; i < N_ROUTERS; i++)
        router_kill(i);
    metrics_destroy(&metrics);
    ck_assert_uint_eq(buf_alive(), 0);
}

static void submit_with(const char *key, struct slice payload, const stoa_publish_options *options)
{
    const stoa_slice part = {payload.data, payload.size};
    const struct publish_order order = {.key = slice_text(key),
                                        .parts = &part,
                                        .n_parts = 1,
                                        .options = options,
                                        .default_timeout_ms = 30000};
    ck_assert_int_eq(publish_check(&order), STOA_OK);
    publisher_submit(publisher, publish_create(&order), now);
}

static void submit(const char *key, const char *payload)
{
    submit_with(key, slice_text(payload), NULL);
}

static void submit_many(const char *key, unsigned n)
{
    char text[16];
    for (unsigned i = 0; i < n; i++) {
        snprintf(text, sizeof text, "%u", i);
        submit(key, text);
    }
}

static void answer(unsigned router, const struct message *m)
{
    ck_assert_uint_ne(router_peer[router], 0);
    hub_send(net_hubs[ROUTER(router)], router_peer[router], m);
}

static void pack(unsigned at, uint64_t seq)
{
    struct message m = {.type = MSG_PACK, .cid = pubs[at].cid, .slot = SLOT_UNKNOWN};
    m.pack.room_epoch = 99;
    m.pack.seq = seq;
    m.pack.count = pubs[at].parts;
    answer(pubs[at].router, &m);
}

static void nack(unsigned at, enum nack_code code, uint64_t expected, uint64_t retry_ms)
{
    struct message m = {.type = MSG_NACK, .cid = pubs[at].cid, .slot = SLOT_UNKNOWN};
    m.nack.code = code;
    m.nack.expected = expected;
    m.nack.retry_ms = retry_ms;
    answer(pubs[at].router, &m);
}

static void lost(unsigned router)
{
    struct message m = {.type = MSG_LOST, .slot = SLOT_UNKNOWN};
    answer(router, &m);
}

static void expect_done(unsigned at, const char *payload, int status)
{
    ck_assert_uint_lt(at, n_done);
    ck_assert_str_eq(done[at].payload, payload);
    ck_assert_int_eq(done[at].status, status);
}

static void expect_pub(unsigned at, const char *payload, uint64_t pseq)
{
    ck_assert_uint_lt(at, n_pubs);
    ck_assert_str_eq(pubs[at].payload, payload);
    ck_assert_uint_eq(pubs[at].pseq, pseq);
}

static bool same_publish(unsigned a, unsigned b)
{
    return memcmp(pubs[a].msg_id, pubs[b].msg_id, 16) == 0 && pubs[a].ts == pubs[b].ts;
}

/* ---- stories ---- */

START_TEST(acknowledged_in_order)
{
    submit_many("upload:a", 3);
    settle();
    ck_assert_uint_eq(n_pubs, 3);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(pubs[i].pseq, i + 1);
        ck_assert_uint_eq(pubs[i].pid, pubs[0].pid);
        ck_assert_uint_ne(pubs[i].pid, 0);
        pack(i, 10 + i);
    }
    settle();
    ck_assert_uint_eq(n_done, 3);
    expect_done(0, "0", STOA_OK);
    ck_assert_uint_eq(done[2].id.seq, 12);
    ck_assert_uint_eq(done[2].id.epoch, 99);
    ck_assert_uint_eq(publisher_pending(publisher), 0);
}
END_TEST

START_TEST(answers_nobody_waits_for_change_nothing)
{
    submit("k", "a");
    settle();
    pack(0, 1);
    pack(0, 2);
    nack(0, NACK_ORDER, 7, 0);
    struct message m = {.type = MSG_PACK, .cid = 123456, .slot = SLOT_UNKNOWN};
    answer(0, &m);
    settle();
    ck_assert_uint_eq(n_done, 1);
    ck_assert_uint_eq(done[0].id.seq, 1);
    submit("k", "b");
    settle();
    expect_pub(1, "b", 2);
    ck_assert_uint_eq(pubs[1].pid, pubs[0].pid);
}
END_TEST

static const struct {
    enum nack_code code;
    int status;
} finals[] = {{NACK_TOOBIG, STOA_TOO_LARGE},
              {NACK_DENIED, STOA_DENIED},
              {NACK_INVALID, STOA_INVALID},
              {NACK_STALE, STOA_UNKNOWN}};

START_TEST(refused_for_good)
{
    submit_many("k", 3);
    settle();
    pack(0, 1);
    nack(1, finals[_i].code, 0, 0);
    nack(2, NACK_ORDER, 2, 0); /* as a shard does: 2 was not stored */
    settle();
    expect_done(1, "1", finals[_i].status);
    ck_assert_uint_eq(n_done, 2);
    expect_pub(3, "2", 1); /* nobody waits for number 2 for ever */
    ck_assert_uint_ne(pubs[3].pid, pubs[2].pid);
    ck_assert(same_publish(2, 3));
    pack(3, 2);
    settle();
    expect_done(2, "2", STOA_OK);
}
END_TEST

static const enum nack_code passing[] = {NACK_BUSY,     NACK_RATE,   NACK_MOVED,
                                         NACK_NOTOWNER, NACK_FROZEN, NACK_DISK};

START_TEST(refused_for_now)
{
    submit_many("k", 3);
    settle();
    for (unsigned i = 0; i < 3; i++)
        nack(i, i == 0 ? passing[_i] : NACK_ORDER, 1, 0);
    settle();
    ck_assert_uint_eq(n_pubs, 3); /* not at once */
    pass_ms(PUBLISH_RETRY_MIN_MS + 10);
    ck_assert_uint_eq(n_pubs, 6);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(pubs[3 + i].pseq, i + 1);
        ck_assert_uint_eq(pubs[3 + i].pid, pubs[0].pid);
        ck_assert_uint_ne(pubs[3 + i].cid, pubs[i].cid);
        ck_assert(same_publish(i, 3 + i));
        pack(3 + i, i + 1);
    }
    settle();
    ck_assert_uint_eq(n_done, 3);
}
END_TEST

START_TEST(refusals_in_a_row_are_probed_by_one)
{
    submit_many("k", 50);
    settle();
    nack(0, NACK_BUSY, 0, 0);
    settle();
    pass_ms(200);
    ck_assert_uint_eq(n_pubs, 100);
    nack(50, NACK_BUSY, 0, 0);
    settle();
    unsigned before = n_pubs;
    pass_ms(2 * PUBLISH_RETRY_MAX_MS);
    ck_assert_uint_eq(n_pubs, before + 1);
    expect_pub(before, "0", 1);
    pack(before, 1);
    settle();
    ck_assert_uint_eq(n_pubs, before + 50); /* progress opens the window again */
}
END_TEST

START_TEST(the_wish_of_a_refusal_is_kept)
{
    submit("k", "a");
    settle();
    nack(0, NACK_BUSY, 0, 3000);
    settle();
    pass_ms(2900);
    ck_assert_uint_eq(n_pubs, 1);
    pass_ms(1000);
    ck_assert_uint_eq(n_pubs, 2);
}
END_TEST

/* The shard has not got number 2: back to it, at once, numbers stay. */
START_TEST(order_within_the_window)
{
    submit_many("k", 4);
    settle();
    pack(0, 1);
    nack(2, NACK_ORDER, 2, 0);
    settle();
    ck_assert_uint_eq(n_pubs, 7);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(pubs[4 + i].pseq, i + 2);
        ck_assert_uint_eq(pubs[4 + i].pid, pubs[0].pid);
        pack(4 + i, 2 + i);
    }
    nack(3, NACK_ORDER, 2, 0); /* late, of a transmission given up */
    settle();
    ck_assert_uint_eq(n_done, 4);
    ck_assert_uint_eq(n_pubs, 7);
}
END_TEST

/* The shard has forgotten this publisher: number 1 is acknowledged and gone. */
START_TEST(order_before_the_window)
{
    submit_many("k", 3);
    settle();
    pack(0, 1);
    nack(1, NACK_ORDER, 1, 0);
    settle();
    ck_assert_uint_eq(n_pubs, 5);
    expect_pub(3, "1", 1);
    expect_pub(4, "2", 2);
    ck_assert_uint_ne(pubs[3].pid, pubs[0].pid);
    ck_assert_uint_eq(pubs[3].pid, pubs[4].pid);
    ck_assert(same_publish(1, 3) && same_publish(2, 4));
}
END_TEST

/* The shard has taken the number, but does not know the id any more: nobody may guess. */
START_TEST(order_beyond_the_number_is_unknown)
{
    submit_many("k", 2);
    settle();
    nack(0, NACK_ORDER, 2, 0);
    settle();
    expect_done(0, "0", STOA_UNKNOWN);
    expect_pub(2, "1", 1);
    ck_assert_uint_ne(pubs[2].pid, pubs[0].pid);
    pack(2, 9);
    settle();
    expect_done(1, "1", STOA_OK);
}
END_TEST

START_TEST(lost_answers_are_asked_for_again)
{
    submit_many("a", 2);
    submit_many("b", 2);
    settle();
    pack(0, 1);
    settle();
    lost(0);
    settle();
    ck_assert_uint_eq(n_pubs, 7);
    for (unsigned i = 4; i < 7; i++)
        pack(i, 1);
    settle();
    ck_assert_uint_eq(n_done, 4);
    lost(0);
    settle();
    ck_assert_uint_eq(n_pubs, 7);
}
END_TEST

START_TEST(silence_is_a_loss)
{
    submit_many("k", 2);
    settle();
    pass_ms(PUBLISH_SILENCE_MS - 20);
    ck_assert_uint_eq(n_pubs, 2);
    pass_ms(40);
    ck_assert_uint_eq(n_pubs, 4);
    ck_assert(same_publish(0, 2) && same_publish(1, 3));
}
END_TEST

START_TEST(another_router_takes_over)
{
    submit_many("k", 3);
    settle();
    pack(0, 1);
    settle();
    router_kill(0);
    settle();
    ck_assert_uint_eq(n_pubs, 5);
    ck_assert_uint_eq(pubs[3].router, 1);
    expect_pub(3, "1", 2);
    ck_assert_uint_eq(pubs[3].pid, pubs[0].pid);
    router_start(0); /* coming back is no reason to change */
    pack(3, 2);
    pack(4, 3);
    submit("k", "next");
    settle();
    ck_assert_uint_eq(pubs[5].router, 1);
    router_kill(1);
    settle();
    ck_assert_uint_eq(pubs[6].router, 0);
    pack(6, 4);
    settle();
    ck_assert_uint_eq(n_done, 4);
}
END_TEST

START_TEST(waits_for_a_router)
{
    router_kill(0);
    router_kill(1);
    settle();
    submit_many("k", 3);
    pass_ms(5000);
    ck_assert_uint_eq(n_pubs, 0);
    ck_assert_uint_eq(publisher_pending(publisher), 3);
    router_start(1);
    settle();
    ck_assert_uint_eq(n_pubs, 3);
}
END_TEST

START_TEST(a_lost_packet_is_noticed)
{
    submit("k", "a");
    publisher_turn(publisher, now);
    wire_drop(wire_first(&wires[0]));
    pass_ms(3000);
    ck_assert_uint_eq(n_pubs, 1);
    expect_pub(0, "a", 1);
    pack(0, 1);
    settle();
    expect_done(0, "a", STOA_OK);
}
END_TEST

static const stoa_publish_options brief = {.size = sizeof brief, .timeout_ms = 1000};

START_TEST(never_sent_is_timeout)
{
    router_kill(0);
    router_kill(1);
    submit_with("k", slice_text("a"), &brief);
    pass_ms(990);
    ck_assert_uint_eq(n_done, 0);
    pass_ms(10);
    expect_done(0, "a", STOA_TIMEOUT);
}
END_TEST

START_TEST(sent_and_silent_is_unknown)
{
    submit_with("k", slice_text("a"), &brief);
    submit("k", "b");
    settle();
    pass_ms(1000);
    expect_done(0, "a", STOA_UNKNOWN);
    expect_pub(2, "b", 1); /* its number may never be filled */
    ck_assert_uint_ne(pubs[2].pid, pubs[1].pid);
    ck_assert(same_publish(1, 2));
}
END_TEST

START_TEST(only_refused_is_certain)
{
    submit_with("busy", slice_text("a"), &brief);
    submit_with("disk", slice_text("b"), &brief);
    settle();
    for (unsigned ms = 0, answered = 0; ms < 1000; ms += 10) {
        for (; answered < n_pubs; answered++)
            nack(answered, strcmp(pubs[answered].key, "busy") == 0 ? NACK_BUSY : NACK_DISK, 0, 0);
        pass_ms(10);
    }
    ck_assert_uint_eq(n_done, 2);
    expect_done(strcmp(done[0].payload, "a") == 0 ? 0 : 1, "a", STOA_TIMEOUT);
    expect_done(strcmp(done[0].payload, "b") == 0 ? 0 : 1, "b", STOA_DISK);
}
END_TEST

/* Answers of an earlier transmission were lost: a later refusal does not make it certain. */
START_TEST(once_uncertain_always_uncertain)
{
    submit_with("k", slice_text("a"), &brief);
    settle();
    lost(0);
    settle();
    nack(1, NACK_BUSY, 0, 2000);
    settle();
    pass_ms(1000);
    expect_done(0, "a", STOA_UNKNOWN);
}
END_TEST

/* Rights change: what is denied now may have been stored before. What breaks a rule never was. */
START_TEST(a_refusal_after_a_loss)
{
    static const enum nack_code codes[] = {NACK_DENIED, NACK_TOOBIG, NACK_INVALID};
    static const int statuses[] = {STOA_UNKNOWN, STOA_TOO_LARGE, STOA_INVALID};
    submit("k", "a");
    settle();
    lost(0);
    settle();
    nack(1, codes[_i], 0, 0);
    settle();
    expect_done(0, "a", statuses[_i]);
}
END_TEST

START_TEST(window_of_a_key)
{
    submit_many("k", PUBLISH_WINDOW_PER_KEY + 10);
    submit("other", "x");
    settle();
    ck_assert_uint_eq(n_pubs, PUBLISH_WINDOW_PER_KEY + 1);
    unsigned held = 0;
    for (unsigned i = 0; i < n_pubs; i++)
        held += strcmp(pubs[i].key, "k") == 0;
    ck_assert_uint_eq(held, PUBLISH_WINDOW_PER_KEY);
    pack(0, 1);
    settle();
    ck_assert_uint_eq(n_pubs, PUBLISH_WINDOW_PER_KEY + 2);
}
END_TEST

START_TEST(window_in_all)
{
    char key[16];
    for (unsigned i = 0; i < WIN_MESSAGES + 50; i++) {
        snprintf(key, sizeof key, "k%u", i);
        submit(key, "x");
    }
    settle();
    ck_assert_uint_eq(n_pubs, WIN_MESSAGES);
    ck_assert_uint_eq(publisher_in_flight(publisher), WIN_MESSAGES);
    for (unsigned i = 0; i < WIN_MESSAGES + 50; i++) {
        pack(i, 1);
        settle();
    }
    ck_assert_uint_eq(n_done, WIN_MESSAGES + 50);
}
END_TEST

START_TEST(window_of_bytes)
{
    size_t size = 300 * KIB;
    uint8_t *big = mem_zalloc(size);
    char key[16];
    for (unsigned i = 0; i < 5; i++) {
        snprintf(key, sizeof key, "k%u", i);
        submit_with(key, slice_of(big, size), NULL);
    }
    settle();
    ck_assert_uint_eq(n_pubs, 3);
    for (unsigned i = 0; i < 5; i++) {
        pack(i, 1);
        settle();
    }
    ck_assert_uint_eq(n_done, 5);
    mem_free(big);
}
END_TEST

static const stoa_publish_options fleeting = {.size = sizeof fleeting, .ephemeral = 1};

START_TEST(ephemerals_go_once)
{
    submit("k", "a");
    submit_with("k", slice_text("e"), &fleeting);
    submit("k", "b");
    settle();
    expect_pub(1, "e", 0);
    ck_assert_uint_eq(pubs[1].pid, 0);
    ck_assert_uint_eq(pubs[1].flags, PUB_EPHEMERAL);
    expect_pub(2, "b", 2);
    lost(0);
    settle();
    expect_done(0, "e", STOA_UNKNOWN);
    ck_assert_uint_eq(n_pubs, 5);
    submit_with("k", slice_text("f"), &fleeting);
    settle();
    nack(5, NACK_BUSY, 0, 0);
    settle();
    expect_done(1, "f", STOA_BUSY);
}
END_TEST

/* A flood of ephemerals without answers does not stand in the way of its key for ever. */
START_TEST(ephemerals_time_out)
{
    const stoa_publish_options o = {.size = sizeof o, .ephemeral = 1, .timeout_ms = 1000};
    for (unsigned i = 0; i < PUBLISH_WINDOW_PER_KEY; i++)
        submit_with("k", slice_text("e"), &o);
    submit("k", "a");
    settle();
    ck_assert_uint_eq(n_pubs, PUBLISH_WINDOW_PER_KEY);
    pass_ms(1000);
    ck_assert_uint_eq(n_pubs, PUBLISH_WINDOW_PER_KEY + 1);
    ck_assert_uint_eq(n_done, PUBLISH_WINDOW_PER_KEY);
}
END_TEST

START_TEST(same_name_same_id)
{
    const stoa_publish_options o = {.size = sizeof o, .idempotency_key = "once"};
    uint8_t digest[32];
    sha256(digest, "once", 4);
    submit_with("k", slice_text("a"), &o);
    submit_with("k", slice_text("b"), &o);
    submit("k", "c");
    settle();
    ck_assert_mem_eq(pubs[0].msg_id, digest, 16);
    ck_assert_mem_eq(pubs[1].msg_id, digest, 16);
    ck_assert_mem_ne(pubs[2].msg_id, digest, 16);
}
END_TEST

START_TEST(idle_keys_are_forgotten)
{
    submit("k", "a");
    settle();
    pack(0, 1);
    settle();
    ck_assert_uint_eq(publisher_lanes(publisher), 1);
    pass_ms(LANE_IDLE_MS - 100);
    submit("k", "b"); /* numbering goes on */
    settle();
    expect_pub(1, "b", 2);
    pack(1, 2);
    settle();
    pass_ms(LANE_IDLE_MS);
    ck_assert_uint_eq(publisher_lanes(publisher), 0);
    submit("k", "c");
    settle();
    expect_pub(2, "c", 1);
    ck_assert_uint_ne(pubs[2].pid, pubs[0].pid);
}
END_TEST

START_TEST(abandoned_is_unknown)
{
    submit_many("a", 300);
    submit_many("b", 3);
    submit_with("b", slice_text("e"), &fleeting);
    settle();
    publisher_abandon(publisher);
    publisher_validate(publisher);
    collect();
    ck_assert_uint_eq(n_done, 304);
    expect_done(0, "e", STOA_UNKNOWN);
    for (unsigned i = 0; i < 303; i++) { /* a key's as submitted */
        char text[16];
        snprintf(text, sizeof text, "%u", i < 300 ? i : i - 300);
        expect_done(1 + i, text, STOA_UNKNOWN);
    }
    ck_assert_uint_eq(publisher_pending(publisher), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("client_publisher");
    TCase *t = tcase_create("publisher");
    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, acknowledged_in_order);
    tcase_add_test(t, answers_nobody_waits_for_change_nothing);
    tcase_add_loop_test(t, refused_for_good, 0, 4);
    tcase_add_loop_test(t, refused_for_now, 0, 6);
    tcase_add_test(t, refusals_in_a_row_are_probed_by_one);
    tcase_add_test(t, the_wish_of_a_refusal_is_kept);
    tcase_add_test(t, order_within_the_window);
    tcase_add_test(t, order_before_the_window);
    tcase_add_test(t, order_beyond_the_number_is_unknown);
    tcase_add_test(t, lost_answers_are_asked_for_again);
    tcase_add_test(t, silence_is_a_loss);
    tcase_add_test(t, another_router_takes_over);
    tcase_add_test(t, waits_for_a_router);
    tcase_add_test(t, a_lost_packet_is_noticed);
    tcase_add_test(t, never_sent_is_timeout);
    tcase_add_test(t, sent_and_silent_is_unknown);
    tcase_add_test(t, only_refused_is_certain);
    tcase_add_test(t, once_uncertain_always_uncertain);
    tcase_add_loop_test(t, a_refusal_after_a_loss, 0, 3);
    tcase_add_test(t, window_of_a_key);
    tcase_add_test(t, window_in_all);
    tcase_add_test(t, window_of_bytes);
    tcase_add_test(t, ephemerals_go_once);
    tcase_add_test(t, ephemerals_time_out);
    tcase_add_test(t, same_name_same_id);
    tcase_add_test(t, idle_keys_are_forgotten);
    tcase_add_test(t, abandoned_is_unknown);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
