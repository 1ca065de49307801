/* Members of rooms that count them: who joins and who leaves is told once each, in order with the
 * room's events, through restarts, full disks and lost gateways; and what was told adds up to what
 * is listed, whatever happens in which order. */
#include "test_shard_actor_robot.h"

#include "common/json.h"

static struct rig_client *g;

static void begin(void)
{
    g = robot_begin();
    robot.on_close = NULL;
    rig->types[1].presence = true;
    shard_retypes(rig->shard, rig->types, rig->n_types);
    rig_sub(g, "c:1");
}

static const char *members(void)
{
    static char text[65536];
    const struct message *m =
        robot_call(g, (struct robot_call){.key = "c:1", .verb = VERB_PRESENCE});
    ck_assert_ptr_nonnull(m);
    ck_assert_uint_eq(m->result.status, 0);
    snprintf(text, sizeof text, "%.*s", SLICE_FMT(m->result.json));
    return text;
}

static const struct message *join(const char *session, const char *id, bool again)
{
    struct message m = {.type = MSG_JOIN, .slot = SLOT_UNKNOWN, .key = slice_text("c:1")};
    m.join.session = slice_text(session);
    m.join.request = slice_text(id);
    m.join.again = again;
    m.join.members = 1;
    uint64_t cid = rig_send(g, m);
    rig_pump(rig);
    const struct got *got = rig_answer(g, cid);
    return got ? &got->m : NULL;
}

#define MEMBER(id) "{\"id\":\"" id "\",\"state\":{\"n\":1}}"
#define ck_members(m_, seq_, list_)                                            \
    do {                                                                       \
        const struct message *told_ = (m_);                                    \
        ck_joined(told_, 0);                                                   \
        ck_assert_uint_eq(told_->joined.members_seq, seq_);                    \
        ck_assert(slice_is(told_->joined.members, "{\"members\":" list_ "}")); \
    } while (0)

START_TEST(members_are_told_from_a_seq_on)
{
    begin();
    robot.on_connect = "say hello";
    robot.on_close = "say left";
    ck_assert_str_eq(members(), "[]");
    ck_members(join("s1", "ann", false), 2, "[" MEMBER("ann") "]");
    const struct message *silent = robot_join(g, "c:1", "s2", "bob", false);
    ck_joined(silent, 0);
    ck_assert_uint_eq(silent->joined.members.size, 0);
    robot_input(g, "c:1", "s2", 1, "pub one");
    rig_pump(rig);
    robot_leave(g, "c:1", "s2", 1000);
    ck_assert_str_eq(rig_delivered(g, "c:1"),
                     "1:\"hello\" 2:{\"join\":" MEMBER(
                         "ann") "} "
                                "3:\"hello\" 4:{\"join\":" MEMBER(
                                    "bob") "} 5:\"one\" "
                                           "6:\"left\" 7:{\"leave\":{\"id\":\"bob\"}}");
    const struct message *page = rig_replay(g, "c:1", (struct msg_replay_req){.mode = REPLAY_ALL});
    ck_assert_uint_eq(page->replay.items.at[1].flags,
                      EVENT_JSON | EVENT_UTF8 | EVENT_TRANSIENT | EVENT_PRESENCE);
    ck_members(join("s1", "", true), 7, "[" MEMBER("ann") "]");
    robot_end();
}
END_TEST

START_TEST(connections_of_one_id_are_one_member)
{
    begin();
    (void)join("s1", "ann", false);
    ck_members(join("s2", "ann", false), 1, "[" MEMBER("ann") "]");
    robot_input(g, "c:1", "s2", 1, "att 9");
    rig_pump(rig);
    ck_assert_str_eq(members(), "[" MEMBER("ann") "]");
    robot_leave(g, "c:1", "s1", 1000);
    ck_assert_str_eq(members(), "[{\"id\":\"ann\",\"state\":9}]");
    robot_leave(g, "c:1", "s2", 1000);
    ck_assert_str_eq(members(), "[]");
    (void)join("s3", "bob", false);
    (void)join("s4", "ann", false);
    (void)join("s5", "ann", false);
    robot_leave(g, "c:1", "s4", 1000);
    robot_leave(g, "c:1", "s5", 1000);
    ck_assert_str_eq(
        rig_delivered(g, "c:1"),
        "1:{\"join\":" MEMBER("ann") "} 2:{\"leave\":{\"id\":\"ann\"}} "
                                     "3:{\"join\":" MEMBER("bob") "} 4:{\"join\":" MEMBER(
                                         "ann") "} "
                                                "5:{\"leave\":{\"id\":\"ann\"}}");
    robot_end();
}
END_TEST

START_TEST(a_restart_tells_nothing)
{
    begin();
    (void)join("s1", "ann", false);
    (void)join("s2", "bob", false);
    rig_crash(rig);
    rig_forget(g);
    rig_sub(g, "c:1");
    ck_members(join("s1", "", true), 2, "[" MEMBER("ann") "," MEMBER("bob") "]");
    ck_assert_str_eq(rig_delivered(g, "c:1"), "");
    rig_wait(rig, 16000); /* bob is nobody's any more */
    ck_assert_str_eq(rig_delivered(g, "c:1"), "3:{\"leave\":{\"id\":\"bob\"}}");
    rig_crash(rig);
    rig_wait(rig, 60000);
    ck_assert_str_eq(members(), "[]");
    robot_end();
}
END_TEST

START_TEST(a_turn_without_space_tells_nothing)
{
    begin();
    (void)join("s1", "ann", false);
    store_mem_fill(rig->store, 2);
    (void)robot_call(g, (struct robot_call){.key = "c:9", .verb = VERB_SEND, .input = "set 3"});
    ck_assert_int_eq((int)join("s2", "bob", false)->type, MSG_NACK);
    robot_leave(g, "c:1", "s1", 1000);
    ck_assert_str_eq(members(), "[" MEMBER("ann") "]");
    store_mem_fill(rig->store, 0);
    rig_wait(rig, 30000);
    ck_assert_str_eq(members(), "[]");
    ck_assert_ptr_null(strstr(rig_delivered(g, "c:1"), "bob"));
    robot_end();
}
END_TEST

START_TEST(who_is_refused_or_replaced_is_no_news)
{
    begin();
    robot.handler.traits.on_duplicate = DUPLICATE_REPLACE;
    (void)join("s1", "ann", false);
    (void)join("s2", "ann", false);
    robot_leave(g, "c:1", "s1", 1012);
    robot.on_connect = "fail";
    ck_joined(join("s3", "eve", false), 500);
    robot.on_connect = NULL;
    robot.refuses = true;
    ck_joined(join("s4", "max", false), 403);
    ck_assert_str_eq(rig_delivered(g, "c:1"), "1:{\"join\":" MEMBER("ann") "}");
    ck_assert_str_eq(members(), "[" MEMBER("ann") "]");
    robot_end();
}
END_TEST

START_TEST(types_without_it_count_nobody)
{
    g = robot_begin();
    rig_sub(g, "c:1");
    const struct message *joined = join("s1", "ann", false);
    ck_joined(joined, 0);
    ck_assert_uint_eq(joined->joined.members.size, 0);
    ck_assert_str_eq(rig_delivered(g, "c:1"), "");
    const struct message *asked =
        robot_call(g, (struct robot_call){.key = "c:1", .verb = VERB_PRESENCE});
    ck_assert_uint_eq(asked->result.status, 500);
    rig->types[1].presence = true; /* from now on */
    shard_retypes(rig->shard, rig->types, rig->n_types);
    ck_members(join("s1", "", true), 0, "[" MEMBER("ann") "]");
    robot_end();
}
END_TEST

START_TEST(a_list_that_is_too_long_is_cut)
{
    static char id[257];
    char session[16];
    begin();
    memset(id, 'a', sizeof id - 1);
    const struct message *joined = NULL;
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(session, sizeof session, "s%u", i);
        memcpy(id, session, strlen(session));
        if (i < 4999)
            (void)robot_join(g, "c:1", session, id, false);
        else
            joined = join(session, id, false);
        if (i % 100 == 0)
            rig_forget(g);
    }
    struct slice list = joined->joined.members;
    ck_assert(json_valid(list) && list.size <= 1024 * 1024 + 64);
    size_t n = 0;
    struct json_iter it = json_members(json_get(list, "members").raw);
    while (json_next(&it))
        n++;
    uint64_t more = 0;
    ck_assert(json_u64(json_get(list, "more"), &more));
    ck_assert_uint_eq(n + more, 5000);
    robot_end();
}
END_TEST

/* ---- whatever happens ---- */

#define PEOPLE 4
#define SOCKETS 8

/* What a client makes of what it was told: one bit a person. */
static unsigned told_of(struct slice list)
{
    unsigned bits = 0;
    struct json_iter it = json_members(list);
    while (json_next(&it)) {
        struct slice id = json_get(it.value.raw, "id").raw;
        ck_assert_uint_eq(id.size, 4); /* "p0" */
        bits |= 1u << (id.data[2] - '0');
    }
    return bits;
}

static unsigned add_up(unsigned bits, uint64_t after)
{
    for (size_t i = 0; i < g->got.count; i++) {
        const struct message *m = &VEC_AT(&g->got, struct got)[i].m;
        const struct events_list *items = &m->deliver.items;
        for (size_t k = 0; m->type == MSG_DELIVER && k < items->count; k++) {
            const struct event_item *item = &items->at[k];
            if (item->seq <= after || !(item->flags & EVENT_PRESENCE))
                continue;
            struct json_value in = json_get(item->payload, "join");
            struct json_value out = json_get(item->payload, "leave");
            bool joins = in.type == JSON_OBJECT;
            struct slice id = json_get(joins ? in.raw : out.raw, "id").raw;
            unsigned bit = 1u << (id.data[2] - '0');
            ck_assert_msg(joins == !(bits & bit), "%s told twice at %u", joins ? "join" : "leave",
                          (unsigned)item->seq);
            bits ^= bit;
        }
    }
    return bits;
}

static void one_step(struct rng *rng, bool up[SOCKETS], unsigned *names)
{
    unsigned n = (unsigned)rng_below(rng, SOCKETS);
    static char session[SOCKETS][16];
    char id[] = {'p', (char)('0' + n % PEOPLE), '\0'};
    switch (rng_below(rng, 8)) {
    case 0:
        if (rng_below(rng, 4) == 0) {
            rig_crash(rig);
            rig_sub(g, "c:1");
            for (unsigned i = 0; i < SOCKETS; i++) {
                if (up[i])
                    up[i] =
                        rng_below(rng, 4) > 0 && robot_join(g, "c:1", session[i], "", true) != NULL;
            }
        }
        break;
    case 1:
        rig_wait(rig, (int64_t)rng_below(rng, 20000));
        break;
    default:
        if (up[n]) {
            robot_leave(g, "c:1", session[n], 1000);
        } else {
            snprintf(session[n], sizeof session[n], "s%u", ++*names);
            (void)robot_join(g, "c:1", session[n], id, false);
        }
        up[n] = !up[n];
    }
}

static void lives(uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    bool up[SOCKETS] = {false};
    unsigned names = 0;
    begin();
    const struct message *joined = join("w", "p9", false);
    uint64_t after = joined->joined.members_seq;
    unsigned bits = told_of(json_get(joined->joined.members, "members").raw);
    for (unsigned i = 0; i < 200; i++) {
        one_step(&rng, up, &names);
        (void)robot_join(g, "c:1", "w", "", true);
        ck_assert_uint_eq(add_up(bits, after), told_of(slice_text(members())));
    }
    unsigned want = 1u << 9;
    for (unsigned k = 0; k < SOCKETS; k++)
        want |= up[k] ? 1u << k % PEOPLE : 0;
    for (unsigned i = 0; i < 20; i++) {
        rig_wait(rig, 1000);
        (void)robot_join(g, "c:1", "w", "", true);
    }
    ck_assert_uint_eq(told_of(slice_text(members())), want);
    robot_end();
}

START_TEST(what_is_told_adds_up)
{
    for (uint64_t seed = 1; seed <= 20; seed++)
        lives(seed);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {members_are_told_from_a_seq_on,
                                  connections_of_one_id_are_one_member,
                                  a_restart_tells_nothing,
                                  a_turn_without_space_tells_nothing,
                                  who_is_refused_or_replaced_is_no_news,
                                  types_without_it_count_nobody,
                                  a_list_that_is_too_long_is_cut,
                                  what_is_told_adds_up};
    return rig_run("shard_presence", tests, sizeof tests / sizeof *tests);
}
