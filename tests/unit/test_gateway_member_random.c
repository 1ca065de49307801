/* Connections of rooms with handlers under random trouble: links that are cut with messages on the
 * way, a shard that restarts or does not own the slot for a while, deliveries that are skipped,
 * clients that read slowly or whose 101 is late, rooms that refuse, close and do not take inputs.
 * The shard's rules are played here from a table of sessions; whatever happens,
 *
 *   a client gets the items that are for it from where it was let in, each once, in order, and all
 *   of them if it is still there when the trouble ends;
 *   the room gets a connection's frames each once, in order, and all of them likewise. */
#include "gateway_far.h"

#include "common/hash.h"
#include "common/rng.h"
#include "proto/filter.h"

#define RUNS 150
#define STEPS 250
#define CLIENTS 8
#define SESSIONS_MAX 2000
#define ITEMS_MAX 8000
#define KEY "chat:r"

struct session_row { /* what the shard knows of a connection */
    char name[64];
    uint64_t visit, head, counter, close_at;
    bool gone, confirmed; /* by a JOIN since the link came up */
};
static struct session_row rows[SESSIONS_MAX];
static size_t n_rows;

struct item {
    bool transient;
    char to[64], except[64]; /* session, or empty */
};
static struct item items[ITEMS_MAX + 1]; /* by seq */

static struct visit { /* what a client has said and seen */
    bool open, replays;
    uint64_t number;     /* in its request's query */
    uint64_t said, seen; /* frames said; seq of the last item seen */
} visits[CLIENTS];
static uint64_t n_visits, n_checked;

static struct rng dice;
static bool shard_is_up, has_slot, losing;

static bool chance(unsigned percent)
{
    return rng_below(&dice, 100) < percent;
}

/* ---- the shard ---- */

static void say_to(enum message_type type, struct message *m)
{
    m->type = type;
    m->key = slice_text(KEY);
    m->slot = slot_of(m->key, SEED);
    shard_says(m);
}

static struct session_row *row_of(struct slice name)
{
    for (size_t i = 0; i < n_rows; i++)
        if (slice_is(name, rows[i].name))
            return &rows[i];
    return NULL;
}

static void item_say(const char *to, const char *except, bool transient)
{
    struct strbuf filter = {0};
    struct slice names[] = {slice_text(to), slice_text(except)};
    struct filter f = {0};
    char payload[32];
    uint64_t seq = room_count(KEY) + 1;
    ck_assert_uint_le(seq, ITEMS_MAX);
    if (*to)
        f.to = (struct filter_names){&names[0], 1};
    if (*except)
        f.except = (struct filter_names){&names[1], 1};
    ck_assert_int_eq(filter_encode(&filter, &f), ERR_OK);
    items[seq] = (struct item){.transient = transient};
    snprintf(items[seq].to, sizeof items[seq].to, "%s", to);
    snprintf(items[seq].except, sizeof items[seq].except, "%s", except);
    snprintf(payload, sizeof payload, "%llu", (unsigned long long)seq);
    room_say(KEY, payload, transient ? EVENT_TRANSIENT : 0, strbuf_slice(&filter));
    strbuf_free(&filter);
}

static void joined_say(uint64_t cid, struct slice session, const struct session_row *row,
                       unsigned status)
{
    struct message m = {.cid = cid};
    m.joined.session = session;
    m.joined.status = status;
    m.joined.id = slice_text("x");
    m.joined.room_epoch = HISTORY;
    m.joined.head = row ? row->head : room_count(KEY);
    m.joined.counter = row ? row->counter : 0;
    say_to(MSG_JOINED, &m);
}

static void close_say(struct slice session, unsigned code)
{
    struct message m = {.ep = 1};
    m.close.session = session;
    m.close.code = code;
    say_to(MSG_CLOSE, &m);
}

static uint64_t visit_of(struct slice request)
{
    char text[512];
    snprintf(text, sizeof text, "%.*s", SLICE_FMT(request));
    const char *who = strstr(text, "\"who\":\"");
    ck_assert_ptr_nonnull(who);
    return strtoull(who + 7, NULL, 10);
}

static void on_join(const struct message *m)
{
    struct session_row *row = row_of(m->join.session);
    if (row && !row->gone) {
        row->confirmed = true;
        joined_say(m->cid, m->join.session, row, 0);
    } else if (row || m->join.again) {
        joined_say(m->cid, m->join.session, NULL, 410);
    } else if (chance(10)) {
        joined_say(m->cid, m->join.session, NULL, 403);
    } else if (chance(10)) {
        struct message nack = {.cid = m->cid};
        nack.nack.code = NACK_BUSY;
        say_to(MSG_NACK, &nack);
    } else {
        ck_assert_uint_lt(n_rows, SESSIONS_MAX);
        row = &rows[n_rows++];
        *row = (struct session_row){
            .head = room_count(KEY), .visit = visit_of(m->join.request), .confirmed = true};
        snprintf(row->name, sizeof row->name, "%.*s", SLICE_FMT(m->join.session));
        joined_say(m->cid, m->join.session, row, 0);
        item_say(row->name, "", true);
        item_say("", row->name, chance(80));
    }
}

static void ack_say(struct slice session, uint64_t counter, unsigned code)
{
    struct message m = {.ep = 1};
    m.input_ack.session = session;
    m.input_ack.counter = counter;
    m.input_ack.code = code;
    say_to(MSG_INPUT_ACK, &m);
}

static void on_input(const struct message *m)
{
    struct session_row *row = row_of(m->input.session);
    char expected[32];
    if (!row || row->gone) {
        close_say(m->input.session, 1012);
        return;
    }
    if (m->input.counter == row->counter + 1 && chance(10)) {
        ack_say(m->input.session, row->counter, NACK_BUSY);
        return;
    }
    if (m->input.counter > row->counter + 1)
        return;
    if (m->input.counter == row->counter + 1) {
        row->counter++;
        snprintf(expected, sizeof expected, "say %llu", (unsigned long long)row->counter);
        ck_assert(slice_is(m->input.frame, expected));
        item_say("", chance(50) ? row->name : "", chance(80));
    }
    ack_say(m->input.session, row->counter, 0);
}

static bool on_member(const struct message *m)
{
    if (m->type == MSG_JOIN) {
        on_join(m);
    } else if (m->type == MSG_INPUT) {
        on_input(m);
    } else if (m->type == MSG_LEAVE) {
        struct session_row *row = row_of(m->leave.session);
        if (row)
            row->gone = true;
    } else {
        return false;
    }
    return true;
}

/* ---- the clients ---- */

static bool is_for(const struct visit *v, const struct session_row *row, uint64_t seq)
{
    const struct item *i = &items[seq];
    if (seq <= row->head && (i->transient || !v->replays))
        return false;
    return (!*i->to || strcmp(i->to, row->name) == 0) && strcmp(i->except, row->name) != 0;
}

static const struct session_row *row_of_visit(const struct visit *v)
{
    for (size_t i = 0; i < n_rows; i++)
        if (rows[i].visit == v->number)
            return &rows[i];
    return NULL;
}

/* Nothing up to there that has not been seen was for this client. */
static void nothing_until(const struct visit *v, uint64_t seq)
{
    const struct session_row *row = row_of_visit(v);
    for (uint64_t i = v->seen + 1; i <= seq; i++)
        ck_assert_msg(!is_for(v, row, i), "visit %llu has not got %llu of %llu",
                      (unsigned long long)v->number, (unsigned long long)i,
                      (unsigned long long)seq);
}

/* Reads what has come: each item is the next one that is for this client. */
static void visit_read(unsigned n)
{
    struct visit *v = &visits[n];
    struct client *c = &clients[n];
    for (const char *text = frame(c); *text; text = frame(c)) {
        const struct session_row *row = row_of_visit(v);
        uint64_t seq = strtoull(text, NULL, 10);
        ck_assert_ptr_nonnull(row);
        ck_assert_msg(seq > v->seen && is_for(v, row, seq), "visit %llu got %llu behind %llu",
                      (unsigned long long)v->number, (unsigned long long)seq,
                      (unsigned long long)v->seen);
        nothing_until(v, seq - 1);
        v->seen = seq;
        n_checked++;
    }
}

static void visit_begin(unsigned n)
{
    struct client *c = &clients[n];
    char query[64];
    visits[n] = (struct visit){.open = true, .replays = chance(30), .number = ++n_visits};
    snprintf(query, sizeof query, "who=%llu%s", (unsigned long long)n_visits,
             visits[n].replays ? "&replay=all" : "");
    c->upgraded = c->established = c->closed = c->paused = c->stalled = false;
    c->responses = 0;
    c->queued = 0;
    c->read = c->out.size;
    c->late = chance(20);
    struct http_request r = {.method = HTTP_M_GET,
                             .upgrade = true,
                             .path = slice_text("/ws/chat/r"),
                             .query = slice_text(query)};
    gateway_request(gateway, n, &r, now);
}

static void visit_end(unsigned n, unsigned code)
{
    visit_read(n);
    visits[n].open = false;
    clients[n].upgraded = clients[n].late = false;
    gateway_closed(gateway, n, code, now);
}

/* Those whom the gateway has ended, or never let in. */
static void visits_tidy(void)
{
    for (unsigned n = 0; n < CLIENTS; n++) {
        struct client *c = &clients[n];
        if (!visits[n].open || !(c->closed || c->responses > 0))
            continue;
        visit_read(n);
        const struct session_row *row = row_of_visit(&visits[n]);
        ck_assert(!c->closed || c->code == 4444 || c->code == 1012);
        if (c->closed && c->code == 4444 && !losing)
            nothing_until(&visits[n], row->close_at);
        visit_end(n, c->closed ? c->code : 1006);
    }
}

/* ---- what happens ---- */

static void visitor_acts(unsigned n)
{
    struct visit *v = &visits[n];
    struct client *c = &clients[n];
    char text[32];
    if (!v->open) {
        visit_begin(n);
    } else if (chance(8)) {
        visit_end(n, chance(50) ? 1000 : 1006);
    } else if (chance(10)) {
        c->late = false;
    } else if (c->stalled) {
        c->stalled = false;
        c->queued = 0;
        gateway_drained(gateway, n, now);
    } else if (c->established && chance(10)) {
        c->stalled = true;
        c->queued = chance(50) ? 300 * KIB : 0;
    } else if (c->established && !c->closed && !c->paused) {
        snprintf(text, sizeof text, "say %llu", (unsigned long long)++v->said);
        gateway_frame(gateway, n, slice_text(text), true, now);
    }
}

static void room_acts(void)
{
    struct session_row *row = n_rows > 0 ? &rows[rng_below(&dice, n_rows)] : NULL;
    if (!shard_is_up || room_count(KEY) == 0)
        return;
    if (row && !row->gone && chance(15)) {
        row->gone = true;
        row->close_at = room_count(KEY);
        if (row->confirmed)
            close_say(slice_text(row->name), 4444);
    } else {
        item_say(row && chance(20) ? row->name : "", row && chance(20) ? row->name : "",
                 chance(70));
    }
}

static void unconfirm(void)
{
    for (size_t i = 0; i < n_rows; i++)
        rows[i].confirmed = false;
}

static void trouble(void)
{
    if (!shard_is_up) {
        shard_is_up = has_slot = true;
        shard_up(chance(50));
    } else if (!has_slot) {
        has_slot = true;
        shard_claim();
    } else if (chance(30)) {
        shard_is_up = false;
        unconfirm();
        shard_down();
    } else if (chance(30)) {
        has_slot = false;
        unconfirm();
        shard_withdraw();
    } else if (losing) {
        faults.lose_delivers = 1;
    }
}

static void step(void)
{
    unsigned what = (unsigned)rng_below(&dice, 100);
    if (what < 50)
        visitor_acts((unsigned)rng_below(&dice, CLIENTS));
    else if (what < 65)
        room_acts();
    else if (what < 75)
        trouble();
    else if (what < 80)
        pass_ms((int64_t)rng_below(&dice, 600));
    else if (what < 90)
        far_carry(); /* a little of what is on its way */
    else
        settle();
    visits_tidy();
}

static void calm_down(void)
{
    faults.lose_delivers = 0;
    while (!shard_is_up || !has_slot)
        trouble();
    for (unsigned n = 0; n < CLIENTS; n++) {
        clients[n].late = clients[n].stalled = false;
        if (clients[n].queued > 0 && !clients[n].closed) {
            clients[n].queued = 0;
            gateway_drained(gateway, n, now);
        }
    }
    pass_ms(12000);
    visits_tidy();
    settle();
}

static void judge(void)
{
    for (unsigned n = 0; n < CLIENTS; n++) {
        const struct visit *v = &visits[n];
        if (!v->open)
            continue;
        const struct session_row *row = row_of_visit(v);
        ck_assert(clients[n].established && !clients[n].closed);
        ck_assert(row && !row->gone);
        visit_read(n);
        nothing_until(v, room_count(KEY));
        ck_assert_uint_eq(row->counter, v->said);
    }
}

START_TEST(test_random)
{
    rng_seed(&dice, (uint64_t)_i + 1);
    memset(visits, 0, sizeof visits);
    n_rows = n_visits = n_checked = 0;
    shard_is_up = has_slot = true;
    losing = _i % 2 == 1;
    shard_hears = on_member;
    room_reborn(KEY, HISTORY);
    for (unsigned i = 0; i < STEPS; i++)
        step();
    calm_down();
    judge();
    ck_assert_uint_gt(n_checked, 20);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("random");
    tcase_add_checked_fixture(tc, world_setup, world_teardown);
    tcase_add_loop_test(tc, test_random, 0, RUNS);
    tcase_set_timeout(tc, 60);
    Suite *suite = suite_create("gateway member random");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
