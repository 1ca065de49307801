/* A counting room under kills, full disks and lost links: whatever the gateway sends again until it
 * is answered has happened once, and who joined has left once. The state counts: 1 an input, 1000 a
 * call with an id, 1000000 a connection that is there. */
#include "test_shard_actor_robot.h"

#define KEY "c:count"
#define SESSIONS 4
#define STEPS 600

struct session {
    char name[16];
    bool joined, joining;
    uint64_t next;  /* last counter that was used */
    uint64_t acked; /* all up to this one */
};

static struct rig_client *g;
static struct rng rng;
static struct session sessions[SESSIONS];
static unsigned names;
static uint64_t inputs, ids, last_id; /* answered */
static uint64_t asked;                /* the call that is not answered yet; 0: none */

static unsigned dice(unsigned n)
{
    return (unsigned)rng_below(&rng, n);
}

/* ---- what the gateway heard ---- */

static struct session *session_of(struct slice name)
{
    for (size_t i = 0; i < SESSIONS; i++) {
        if (slice_is(name, sessions[i].name))
            return &sessions[i];
    }
    return NULL;
}

static void hear_one(const struct message *m)
{
    struct session *s = NULL;
    if (m->type == MSG_JOINED && (s = session_of(m->joined.session)) != NULL) {
        ck_assert_uint_eq(m->joined.status, 0);
        ck_assert_uint_ge(m->joined.counter, s->acked);
        s->joined = true;
        s->joining = false;
    } else if (m->type == MSG_INPUT_ACK && (s = session_of(m->input_ack.session)) != NULL) {
        ck_assert_uint_le(m->input_ack.counter, s->next);
        inputs += m->input_ack.counter > s->acked ? m->input_ack.counter - s->acked : 0;
        s->acked = m->input_ack.counter > s->acked ? m->input_ack.counter : s->acked;
    } else if (m->type == MSG_RESULT && asked != 0 && m->cid == g->last_cid) {
        ck_assert_uint_eq(m->result.status, 0);
        ids++;
        asked = 0;
    } else {
        ck_assert_int_ne((int)m->type, MSG_CLOSE);
    }
}

static void hear(void)
{
    rig_pump(rig);
    for (size_t i = 0; i < g->got.count; i++)
        hear_one(&VEC_AT(&g->got, struct got)[i].m);
    rig_forget(g);
}

/* ---- what it says, until it is answered ---- */

static void say_join(struct session *s, bool again)
{
    struct message m = {.type = MSG_JOIN, .slot = SLOT_UNKNOWN, .key = slice_text(KEY)};
    m.join.session = slice_text(s->name);
    m.join.request = slice_text("ann");
    m.join.again = again;
    (void)rig_send(g, m);
}

static void say_inputs(struct session *s, uint64_t from)
{
    for (uint64_t n = from; s->joined && n <= s->next; n++)
        robot_input(g, KEY, s->name, n, "add 1");
}

static void say_call(void)
{
    struct message m = {.type = MSG_CALL, .slot = SLOT_UNKNOWN, .key = slice_text(KEY)};
    m.call.verb = VERB_SEND;
    m.call.input = slice_text("add 1000");
    rig_id(m.call.msg_id, asked);
    (void)rig_send(g, m);
}

static void say_leave(struct session *s)
{
    struct message m = {.type = MSG_LEAVE, .slot = SLOT_UNKNOWN, .key = slice_text(KEY)};
    m.leave.session = slice_text(s->name);
    m.leave.code = 1000;
    (void)rig_send(g, m);
    *s = (struct session){0};
}

/* As a gateway does behind a new link. */
static void say_all_again(void)
{
    for (size_t i = 0; i < SESSIONS; i++) {
        struct session *s = &sessions[i];
        if (s->joined || s->joining)
            say_join(s, s->joined);
        say_inputs(s, s->acked + 1);
    }
    if (asked)
        say_call();
}

static void act_on_session(struct session *s)
{
    if (!s->joined && !s->joining) {
        snprintf(s->name, sizeof s->name, "s%u", ++names);
        s->joining = true;
        say_join(s, false);
    } else if (s->joined && s->acked == s->next && dice(8) == 0) {
        say_leave(s);
    } else if (s->joined) {
        s->next++;
        say_inputs(s, s->next);
    } else {
        say_join(s, false);
    }
}

static void crash(void)
{
    if (dice(2))
        rig_feed(rig); /* dies with all of that in the FIFO */
    else if (dice(2))
        (void)shard_turn(rig->shard, rig->now); /* or with the answers on the way */
    rig_crash(rig);
    say_all_again();
}

static void step(void)
{
    switch (dice(12)) {
    case 0:
        crash();
        break;
    case 1:
        store_mem_fill(rig->store, 1 + dice(4));
        break;
    case 2:
        store_mem_fill(rig->store, 0);
        break;
    case 3:
        rig_wait(rig, dice(2) ? 11000 : 400); /* out of memory, or not */
        break;
    case 4:
        say_all_again();
        break;
    case 5:
        if (!asked)
            asked = ++last_id;
        say_call();
        break;
    default:
        act_on_session(&sessions[dice(SESSIONS)]);
        break;
    }
    if (dice(3))
        hear();
}

static long long there(void)
{
    long long n = 0;
    for (const char *at = robot_connections(g, KEY, ""); (at = strstr(at, "\"id\"")) != NULL; at++)
        n++;
    return n;
}

static void check_quiet(void)
{
    store_mem_fill(rig->store, 0);
    for (int i = 0; i < 20; i++) {
        rig_wait(rig, 1000); /* who left while the disk was full is missed in 15 s */
        say_all_again();
        hear();
    }
    ck_assert_uint_eq(asked, 0);
    for (size_t i = 0; i < SESSIONS; i++)
        ck_assert_uint_eq(sessions[i].acked, sessions[i].next);
    long long n = there();
    long long state = strtoll(robot_state(g, KEY), NULL, 10);
    ck_assert_int_eq(state, (long long)(inputs + 1000 * ids) + 1000000 * n);
    rig_forget(g);
}

static void run(uint64_t seed)
{
    memset(sessions, 0, sizeof sessions);
    names = 0;
    inputs = ids = last_id = asked = 0;
    rng_seed(&rng, seed);
    g = robot_begin();
    robot.on_connect = "add 1000000";
    robot.on_close = "add -1000000";
    robot.handler.traits.rollback = dice(2);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < STEPS / 3; i++)
            step();
        check_quiet();
    }
    for (size_t i = 0; i < SESSIONS; i++) {
        if (sessions[i].joined)
            say_leave(&sessions[i]);
    }
    hear();
    check_quiet();
    ck_assert_int_eq(there(), 0);
    robot_end();
}

START_TEST(what_is_said_until_it_is_answered_happens_once)
{
    for (uint64_t seed = 1; seed <= 12; seed++)
        run((uint64_t)_i * 100 + seed);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shard_actor_random");
    TCase *tcase = tcase_create("random");
    tcase_set_timeout(tcase, 60);
    tcase_add_loop_test(tcase, what_is_said_until_it_is_answered_happens_once, 0, 4);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
