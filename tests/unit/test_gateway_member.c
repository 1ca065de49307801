/* Connections of rooms with handlers: how they are let in, what of theirs reaches the room, what of
 * the room's reaches them, how they end, and what is left of that when the shard goes away in
 * between. The shard's rules about members are played here. */
#include "gateway_door.h"

static void setup(void)
{
    world_setup();
    n_seen = n_read = 0;
    door = (struct door){0};
    shard_hears = on_member;
}

/* A member of chat:r that says nothing and was let in. */
static struct client *open_member(unsigned client, const char *id)
{
    char target[64];
    snprintf(target, sizeof target, "/ws/chat/r?userId=%s", id);
    door.id = id;
    struct client *c = open_raw(client, target);
    ck_assert_uint_eq(next()->type, MSG_JOIN);
    return c;
}

/* ---- in ---- */

START_TEST(test_join)
{
    door.mute = true;
    struct client *c = upgrade(1, "/ws/chat/r?userId=an%20n&flag&userId=x&u=%22",
                               "Origin: http://localhost:1\nUser-Agent: T/1\nX-Other: no\n"
                               "Accept-Language: de");
    ASSERT_NEXT(MSG_JOIN, 0,
                "{\"query\":{\"userId\":\"an n\",\"flag\":\"\",\"u\":\"\\\"\"},\"claims\":null,"
                "\"headers\":{\"origin\":\"http://localhost:1\",\"user-agent\":\"T/1\","
                "\"accept-language\":\"de\"},\"ip\":\"\",\"client_state\":null}");
    ck_assert(!c->upgraded && c->responses == 0);
    door.hello = "\"welcome\"";
    let_in();
    ck_assert(c->upgraded);
    ck_assert_str_eq(frame(c), "\"welcome\"");
    ck_assert(frame_was_text());
    room_publish("chat:r", "1");
    ck_assert_str_eq(frame(c), "1");
    ck_assert_uint_eq(n_replays, 0);
}
END_TEST

/* The 101 goes out late: what the room said since the connection was let in is still for it,
 * and nothing of before. */
START_TEST(test_late_upgrade)
{
    room_append("chat:r", "\"old\"");
    room_say("chat:r", "\"old too\"", EVENT_TRANSIENT, slice_text(""));
    clients[1].late = true;
    door.hello = "\"welcome\"";
    upgrade(1, "/ws/chat/r", NULL);
    ck_assert(clients[1].upgraded);
    room_say("chat:r", "\"all\"", EVENT_TRANSIENT, slice_text(""));
    room_say("chat:r", "\"not you\"", EVENT_TRANSIENT, only_to("somebody"));
    room_publish("chat:r", "2");
    clients[1].late = false;
    settle();
    ck_assert_str_eq(frame(&clients[1]), "\"welcome\"");
    ck_assert_str_eq(frame(&clients[1]), "\"all\"");
    ck_assert_str_eq(frame(&clients[1]), "2");
    ck_assert_str_eq(frame(&clients[1]), "");
    room_say("chat:r", "\"live\"", EVENT_TRANSIENT, slice_text(""));
    settle();
    ck_assert_str_eq(frame(&clients[1]), "\"live\"");
}
END_TEST

/* The shard let it in and died before anybody heard of it. */
START_TEST(test_answer_lost)
{
    door.mute = true;
    struct client *c = upgrade(1, "/ws/chat/r", NULL);
    char session[64];
    memcpy(session, last_session, sizeof session);
    shard_down();
    room_reborn("chat:r", HISTORY);
    room_say("chat:r", "\"welcome\"", EVENT_TRANSIENT, only_to(session));
    room_say("chat:r", "\"all\"", EVENT_TRANSIENT, slice_text(""));
    door = (struct door){.let_in = true};
    shard_up(true);
    ck_assert_uint_eq(n_seen, 2);
    ck_assert_uint_eq(seen[1].number, 0);
    ck_assert_str_eq(seen[1].session, session);
    ck_assert_str_eq(seen[1].text, seen[0].text);
    ck_assert_str_eq(frame(c), "\"welcome\"");
    ck_assert_str_eq(frame(c), "\"all\"");
}
END_TEST

START_TEST(test_refused)
{
    door = (struct door){.status = 403, .tag = "UpgradeError", .text = "not \"you\""};
    struct client *c = upgrade(1, "/ws/chat/r", NULL);
    ck_assert_uint_eq(c->status, 403);
    ck_assert_str_eq(c->body,
                     "{\"error\":{\"tag\":\"UpgradeError\",\"message\":\"not \\\"you\\\"\"}}");
    door = (struct door){.status = 409, .tag = "RoomFull", .text = "32768 are in"};
    c = upgrade(2, "/ws/chat/r", NULL);
    ASSERT_ERROR(c, 409, "RoomFull");
    door = (struct door){.status = 7, .tag = "TheirOwn", .text = "secret"};
    c = upgrade(3, "/ws/chat/r", NULL);
    ASSERT_ERROR(c, 500, "TheirOwn");
    door = (struct door){.status = 500, .tag = "RoomExecutionError", .text = "line 7"};
    ck_assert_ptr_null(strstr(upgrade(4, "/ws/chat/r", NULL)->body, "line 7"));
    for (unsigned i = 0; i < 4; i++)
        ck_assert_uint_eq(next()->type, MSG_JOIN);
    ck_assert_uint_eq(next()->type, 0); /* the shard knows that they have ended */
    char query[1000] = "/ws/chat/r?";
    for (unsigned i = 0; i < 101; i++)
        snprintf(query + strlen(query), sizeof query - strlen(query), "a%u&", i);
    c = upgrade(5, query, NULL);
    ASSERT_ERROR(c, 400, "BadRequest");
    c = upgrade(6, "/ws/chat/r?a=%zz", NULL);
    ASSERT_ERROR(c, 400, "BadRequest");
}
END_TEST

START_TEST(test_no_answer)
{
    door.mute = true;
    struct client *c = upgrade(1, "/ws/chat/r", NULL);
    ck_assert_uint_eq(next()->type, MSG_JOIN);
    pass_ms(9900);
    ck_assert_uint_eq(c->responses, 0);
    pass_ms(200);
    ASSERT_ERROR(c, 503, "Moving");
    ASSERT_NEXT(MSG_LEAVE, 1006, "");
    let_in(); /* too late */
    ck_assert(!c->upgraded);
}
END_TEST

START_TEST(test_shard_cannot)
{
    door.nack = NACK_BUSY;
    door.nacks = 2;
    struct client *c = upgrade(1, "/ws/chat/r", NULL);
    ck_assert(!c->upgraded);
    pass_ms(600);
    ck_assert(c->upgraded);
    door.nack = NACK_DISK;
    door.nacks = 1;
    c = upgrade(2, "/ws/chat/r", NULL);
    ASSERT_ERROR(c, 503, "DiskFull");
    ck_assert_uint_eq(n_seen, 5);
    ck_assert_uint_eq(seen[4].type, MSG_LEAVE); /* an earlier JOIN may have let it in */
    ck_assert_str_eq(seen[4].session, seen[3].session);
}
END_TEST

/* ---- inputs ---- */

START_TEST(test_inputs)
{
    open_member(1, "ann");
    say(1, "{\"_tag\":\"Say\"}");
    ASSERT_NEXT(MSG_INPUT, 1, "{\"_tag\":\"Say\"}");
    ck_assert_uint_eq(seen[1].flags, EVENT_UTF8);
    ck_assert_str_eq(seen[1].session, seen[0].session);
    gateway_frame(gateway, 1, slice_of("\x00\xff", 2), false, now);
    settle();
    ck_assert_uint_eq(next()->number, 2);
    ck_assert_uint_eq(seen[2].flags, 0);
}
END_TEST

/* The shard comes back, knows the connection, and has handled the first input only. */
START_TEST(test_inputs_again)
{
    struct client *c = open_member(1, "ann");
    char session[64];
    memcpy(session, seen[0].session, sizeof session);
    door.mute_acks = true;
    say(1, "1");
    say(1, "2");
    n_read = n_seen;
    shard_down();
    say(1, "3");
    ck_assert_uint_eq(next()->type, 0);
    door.counter = 1;
    shard_up(true);
    ASSERT_NEXT(MSG_JOIN, 1, "");
    ck_assert_str_eq(seen[n_read - 1].session, session);
    ASSERT_NEXT(MSG_INPUT, 2, "2");
    ASSERT_NEXT(MSG_INPUT, 3, "3");
    ack_say("chat:r", session, 3, 0);
    settle();
    door.mute_acks = false;
    shard_withdraw(); /* the slot goes to nobody, and comes back */
    shard_claim();
    settle();
    ASSERT_NEXT(MSG_JOIN, 1, "");
    ck_assert_uint_eq(next()->type, 0);
    say(1, "4");
    ASSERT_NEXT(MSG_INPUT, 4, "4");
    room_publish("chat:r", "\"still here\"");
    ck_assert_str_eq(frame(c), "\"still here\"");
}
END_TEST

START_TEST(test_forgotten)
{
    struct client *c = open_member(1, "ann");
    door.gone = true;
    shard_down();
    shard_up(true);
    ASSERT_NEXT(MSG_JOIN, 1, "");
    ck_assert(c->closed);
    ck_assert_uint_eq(c->code, 1012);
    ck_assert_uint_eq(next()->type, 0);
}
END_TEST

START_TEST(test_input_not_taken)
{
    open_member(1, "ann");
    door.ack_code = NACK_DISK;
    say(1, "1");
    ASSERT_NEXT(MSG_INPUT, 1, "1");
    say(1, "2");
    ck_assert_uint_eq(next()->type, 0); /* waits behind the first */
    door.ack_code = 0;
    pass_ms(300);
    ASSERT_NEXT(MSG_INPUT, 1, "1");
    ASSERT_NEXT(MSG_INPUT, 2, "2");
    door.ack_code = NACK_DENIED;
    say(1, "3");
    ck_assert(clients[1].closed);
    ck_assert_uint_eq(clients[1].code, 1008);
}
END_TEST

START_TEST(test_too_many_inputs)
{
    struct client *c = open_member(1, "ann");
    door.mute_acks = true;
    for (unsigned i = 1; i < 256; i++)
        say(1, "x");
    ck_assert(!c->paused);
    say(1, "x");
    ck_assert(c->paused);
    ack_say("chat:r", seen[0].session, 100, 0);
    settle();
    ck_assert(c->paused);
    ack_say("chat:r", seen[0].session, 128, 0);
    settle();
    ck_assert(!c->paused);
    for (unsigned i = 128; i < 1024; i++) /* its program does not stop */
        say(1, "x");
    ck_assert(c->paused && !c->closed);
    say(1, "x");
    ck_assert(c->closed);
    ck_assert_uint_eq(c->code, 1013);
    ck_assert_str_eq(c->reason, "the room does not keep up");
}
END_TEST

START_TEST(test_large_inputs)
{
    struct client *c = open_member(1, "ann");
    size_t size = 512 * KIB;
    char *frame_bytes = mem_alloc(size);
    memset(frame_bytes, 'x', size);
    door.mute_acks = true;
    for (unsigned i = 0; i < 8; i++) {
        ck_assert(c->paused == (i > 1));
        gateway_frame(gateway, 1, slice_of(frame_bytes, size), true, now);
        settle();
    }
    ck_assert(!c->closed);
    say(1, "x");
    ck_assert_uint_eq(c->code, 1013);
    mem_free(frame_bytes);
}
END_TEST

/* ---- whom the room's items are for ---- */

START_TEST(test_filters)
{
    door.tags = "[\"user:ann\",\"a\\u00e9\"]";
    struct client *ann = open_member(1, "ann");
    door.tags = "[\"user:bob\"]";
    struct client *bob = open_member(2, "bob");
    struct client *tom = open_member(3, "bob");
    const char *session_of_bob = seen[1].session;
    struct client *reader = open_sse(4, "/api/chat/r/events", NULL);
    ck_assert_ptr_nonnull(strstr(rest(reader), "id: "));
    ck_assert_uint_eq(n_seen, 3);
    room_say("chat:r", "1", 0, only_to("bob"));
    room_say("chat:r", "2", EVENT_TRANSIENT, only_to(session_of_bob));
    room_say("chat:r", "3", 0, all_but("bob"));
    room_say("chat:r", "4", EVENT_TRANSIENT, tagged("a\xc3\xa9"));
    room_say("chat:r", "5", 0, slice_text(""));
    room_say("chat:r", "6", 0, tagged("user:bob"));
    room_say("chat:r", "7", 0, slice_text("\xc1")); /* broken: for nobody */
    settle();
    static const char *const ann_gets[] = {"3", "4", "5", ""};
    static const char *const bob_gets[] = {"1", "2", "5", "6", ""};
    static const char *const tom_gets[] = {"1", "5", "6", ""};
    for (unsigned i = 0; i < 4; i++)
        ck_assert_str_eq(frame(ann), ann_gets[i]);
    for (unsigned i = 0; i < 5; i++)
        ck_assert_str_eq(frame(bob), bob_gets[i]);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_str_eq(frame(tom), tom_gets[i]);
    const char *text = rest(reader);
    ck_assert_ptr_nonnull(strstr(text, "data: 3\n"));
    ck_assert_ptr_nonnull(strstr(text, "data: 5\n"));
    ck_assert_ptr_null(strstr(text, "data: 1\n"));
    ck_assert_ptr_null(strstr(text, "data: 6\n"));
    ck_assert_ptr_null(strstr(text, "data: 7\n"));
    ck_assert_uint_eq(bob->writes, 1); /* stretches behind each other */
}
END_TEST

/* What is for everybody is framed once, whatever was before it. */
START_TEST(test_shared)
{
    struct client *ann = open_member(1, "ann");
    struct client *bob = open_member(2, "bob");
    room_say("chat:r", "1", 0, all_but("ann"));
    room_say("chat:r", "2", EVENT_TRANSIENT, slice_text(""));
    settle();
    ck_assert_ptr_eq(ann->last_buf, bob->last_buf);
    ck_assert_uint_gt(ann->last_offset, bob->last_offset);
    ck_assert_str_eq(frame(ann), "2");
    ck_assert_str_eq(frame(bob), "1");
    room_publish("chat:r", "3");
    ck_assert_ptr_eq(ann->last_buf, bob->last_buf);
    ck_assert_uint_eq(ann->last_offset, bob->last_offset);
}
END_TEST

/* Who reads too slowly catches up with everything that was for it since it was let in. */
START_TEST(test_slow)
{
    struct client *c = open_member(1, "ann");
    char *large = mem_zalloc(200 * KIB);
    memset(large, '7', 200 * KIB - 1);
    c->stalled = true;
    room_publish("chat:r", large);
    room_publish("chat:r", large);
    room_publish("chat:r", "0");
    room_say("chat:r", "1", EVENT_TRANSIENT, slice_text(""));
    room_say("chat:r", "2", EVENT_TRANSIENT, only_to("bob"));
    room_publish("chat:r", "3");
    frame(c);
    frame(c);
    ck_assert_str_eq(frame(c), "");
    drain_client(1);
    ck_assert_str_eq(frame(c), "0");
    ck_assert_str_eq(frame(c), "1");
    ck_assert_str_eq(frame(c), "3");
    ck_assert_str_eq(frame(c), "");
    mem_free(large);
}
END_TEST

/* The log is given as to anybody up to where it was let in, and whole from there. */
START_TEST(test_replay)
{
    room_append("chat:r", "1");
    room_say("chat:r", "2", EVENT_TRANSIENT, slice_text(""));
    room_append("chat:r", "3");
    door.hello = "\"welcome\"";
    struct client *c = open_raw(1, "/ws/chat/r?replay=all");
    static const char *const gets[] = {"1", "3", "\"welcome\"", ""};
    for (unsigned i = 0; i < 4; i++)
        ck_assert_str_eq(frame(c), gets[i]);
    c = open_raw(2, "/ws/chat/r?replay=1");
    ck_assert_str_eq(frame(c), "3");
    ck_assert_str_eq(frame(c), "\"welcome\"");
    ck_assert_str_eq(frame(c), "");
    c = open_raw(3, "/ws/chat/r?after=100-1&conflate=none");
    ck_assert_str_eq(frame(c), "3");
    ck_assert_str_eq(frame(c), "\"welcome\"");
    ck_assert_str_eq(frame(c), "");
    struct client *log = ask(4, "GET /api/chat/r/log", NULL, NULL);
    ck_assert_ptr_nonnull(strstr(log->body, "\"data\":3"));
    ck_assert_ptr_null(strstr(log->body, "welcome"));
    ck_assert_ptr_null(strstr(log->body, "\"data\":2"));
    c = open_sse(5, "/api/chat/r/events?replay=all", NULL);
    ck_assert_ptr_null(strstr(rest(c), "data: 2\n"));
    room_say("chat:r", "4", EVENT_TRANSIENT, slice_text(""));
    settle();
    ck_assert_str_eq(rest(c), "data: 4\n\n"); /* no id: nothing to go on from */
}
END_TEST

/* It was let in long ago, and some of what it was sent since is gone: it is told so, and gets the
 * rest. */
START_TEST(test_replay_behind_what_is_gone)
{
    open_v1(1);
    door.mute = door.let_in = true;
    say(1, "{\"sub\":\"chat:r\",\"replay\":\"all\"}");
    room_say("chat:r", "1", EVENT_TRANSIENT, slice_text(""));
    room_say("chat:r", "2", EVENT_TRANSIENT, slice_text(""));
    room_say("chat:r", "3", EVENT_TRANSIENT, slice_text(""));
    room_trim("chat:r", 1, MISS_EVICTED);
    let_in();
    const char *first = frame(&clients[1]);
    ck_assert_ptr_nonnull(strstr(first, "\"missed\":{\"from\":\"100-0\",\"to\":\"100-1\""));
    ck_assert_ptr_nonnull(strstr(frame(&clients[1]), "\"data\":2"));
    ck_assert_ptr_nonnull(strstr(frame(&clients[1]), "\"data\":3"));
    ck_assert_str_eq(frame(&clients[1]), "");
}
END_TEST

/* ---- ends ---- */

START_TEST(test_leave)
{
    open_member(1, "ann");
    gateway_farewell(gateway, 1, slice_text("bye"));
    hang_up(1, 4000);
    ASSERT_NEXT(MSG_LEAVE, 4000, "bye");
    ck_assert_uint_eq(seen[1].flags, 1);
    open_member(2, "ann");
    ck_assert_str_ne(seen[2].session, seen[0].session);
    hang_up(2, 1006);
    ASSERT_NEXT(MSG_LEAVE, 1006, "");
    ck_assert_uint_eq(seen[3].flags, 0);
    open_member(3, "ann");
    shard_down(); /* nobody can be told: the shard will miss it */
    hang_up(3, 1000);
    shard_up(false);
    ck_assert_uint_eq(next()->type, 0);
}
END_TEST

START_TEST(test_closed_by_room)
{
    struct client *c = open_member(1, "ann");
    struct client *other = open_member(2, "bob");
    room_say("chat:r", "\"last words\"", EVENT_TRANSIENT, slice_text(""));
    session_close_said("chat:r", seen[0].session, 4007, "enough");
    settle();
    ck_assert_str_eq(frame(c), "\"last words\"");
    ck_assert_uint_eq(c->code, 4007);
    ck_assert_str_eq(c->reason, "enough");
    ASSERT_NEXT(MSG_LEAVE, 4007, "enough");
    ck_assert_uint_eq(seen[2].flags, 1);
    ck_assert(!other->closed);
    shard_close("chat:r", 1000, "all of you");
    settle();
    ck_assert(other->closed);
    ASSERT_NEXT(MSG_LEAVE, 1000, "all of you");
    session_close_said("chat:r", "unknown-1", 1012, "");
    settle();
}
END_TEST

/* on_connect speaks, and closes: both reach a client whose 101 is not out yet. */
START_TEST(test_closed_at_once)
{
    door.hello = "\"no\"";
    door.closes = true;
    clients[1].late = true;
    struct client *c = upgrade(1, "/ws/chat/r", NULL);
    ck_assert(c->upgraded && !c->closed);
    clients[1].late = false;
    settle();
    ck_assert_str_eq(frame(c), "\"no\"");
    ck_assert_uint_eq(c->code, 4001);
    ck_assert_str_eq(c->reason, "go away");
}
END_TEST

START_TEST(test_drain)
{
    struct client *c = open_member(1, "ann");
    door.mute = true;
    struct client *held = upgrade(2, "/ws/chat/r", NULL);
    gateway_drain(gateway, now, 1000);
    pass_ms(100);
    ck_assert_uint_eq(c->code, 1012);
    ASSERT_ERROR(held, 503, "Draining");
    ck_assert_uint_eq(next()->type, MSG_JOIN);
    unsigned codes = 0;
    for (const struct seen *n = next(); n->type; n = next())
        codes += n->type == MSG_LEAVE ? (unsigned)n->number : 0;
    ck_assert_uint_eq(codes, 1012 + 1006);
    hang_up(1, 1012);
    ck_assert(gateway_drained_all(gateway));
}
END_TEST

/* ---- stoa.v1 ---- */

START_TEST(test_v1)
{
    struct client *c = open_v1(1);
    room_append("chat:r", "0");
    door.hello = "\"welcome\"";
    say(1, "{\"sub\":\"chat:r\",\"state\":{\"name\":\"A\"}}");
    ck_assert_ptr_nonnull(strstr(next()->text, ",\"client_state\":{\"name\":\"A\"}}"));
    ck_assert_str_eq(frame(c), "{\"sub\":\"chat:r\",\"status\":\"live\",\"head\":\"100-1\"}");
    const char *text = frame(c);
    ck_assert_ptr_nonnull(strstr(text, ",\"data\":\"welcome\"}"));
    ck_assert_ptr_null(strstr(text, "\"id\""));
    say(1, "{\"send\":\"chat:r\",\"event\":{ \"a\":1 },\"ref\":\"x\"}");
    ASSERT_NEXT(MSG_INPUT, 1, "{ \"a\":1 }");
    ck_assert_str_eq(frame(c), "{\"ref\":\"x\",\"ok\":null}");
    say(1, "{\"send\":\"chat:r\",\"event\":2}");
    ASSERT_NEXT(MSG_INPUT, 2, "2");
    ck_assert_str_eq(frame(c), "");
    say(1, "{\"send\":\"chat:r\",\"ref\":1}");
    ck_assert_ptr_nonnull(
        strstr(frame(c), "{\"ref\":1,\"error\":{\"tag\":\"RoomValidationError\""));
    say(1, "{\"send\":\"chat:r\",\"event\":2,\"idempotencyKey\":\"k\",\"ref\":1}");
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"ref\":1,\"error\":{\"tag\":\"BadRequest\""));
    say(1, "{\"sub\":\"chat:r\"}"); /* anew: another connection */
    ASSERT_NEXT(MSG_LEAVE, 1000, "");
    ck_assert_uint_eq(next()->type, MSG_JOIN);
    ck_assert_ptr_nonnull(strstr(frame(c), "\"status\":\"live\""));
    frame(c);
    session_close_said("chat:r", last_session, 4002, "out");
    settle();
    ck_assert_str_eq(frame(c), "{\"unsub\":\"chat:r\",\"code\":4002,\"reason\":\"out\"}");
    ck_assert(!c->closed);
    ASSERT_NEXT(MSG_LEAVE, 4002, "out");
    say(1, "{\"sub\":\"chat:r\"}");
    say(1, "{\"unsub\":\"chat:r\"}");
    ck_assert_uint_eq(next()->type, MSG_JOIN);
    ASSERT_NEXT(MSG_LEAVE, 1000, "");
}
END_TEST

START_TEST(test_v1_refused)
{
    struct client *c = open_v1(1);
    door = (struct door){.status = 409, .tag = "Duplicate", .text = "already in"};
    say(1, "{\"sub\":\"chat:r\"}");
    ck_assert_str_eq(frame(c), "{\"sub\":\"chat:r\",\"error\":{\"tag\":\"Duplicate\",\"message\":"
                               "\"already in\",\"status\":409}}");
    ck_assert_uint_eq(next()->type, MSG_JOIN);
    ck_assert_uint_eq(next()->type, 0);
    door = (struct door){.mute = true};
    say(1, "{\"sub\":\"chat:s\"}");
    say(1, "{\"send\":\"chat:s\",\"event\":1,\"ref\":5}");
    pass_ms(10100);
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"ref\":5,\"error\":{\"tag\":\"Moving\""));
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"sub\":\"chat:s\",\"error\":{\"tag\":\"Moving\""));
    ck_assert_uint_eq(next()->type, MSG_JOIN);
    ASSERT_NEXT(MSG_LEAVE, 1006, "");
    say(1, "{\"sub\":\"chat:s\"}");
    say(1, "{\"send\":\"chat:s\",\"event\":1,\"ref\":6}"); /* waits for the door */
    ck_assert_uint_eq(next()->type, MSG_JOIN);
    ck_assert_uint_eq(next()->type, 0);
    door.mute = false;
    let_in();
    ASSERT_NEXT(MSG_INPUT, 1, "1");
    ck_assert_ptr_nonnull(strstr(frame(c), "\"status\":\"live\""));
    ck_assert_str_eq(frame(c), "{\"ref\":6,\"ok\":null}");
    door.mute_acks = true;
    say(1, "{\"send\":\"chat:s\",\"event\":1,\"ref\":7}");
    say(1, "{\"unsub\":\"chat:s\"}");
    ck_assert_ptr_nonnull(strstr(frame(c), "{\"ref\":7,\"error\":{\"tag\":\"Unknown\""));
    ck_assert_str_eq(frame(c), "{\"unsub\":\"chat:s\"}");
}
END_TEST

/* Two keys of one socket: full is full, and it goes on when both have room. */
START_TEST(test_v1_full)
{
    struct client *c = open_v1(1);
    say(1, "{\"sub\":\"chat:r\"}");
    say(1, "{\"sub\":\"chat:s\"}");
    const char *r = seen[0].session, *s = seen[1].session;
    door.mute_acks = true;
    for (unsigned i = 0; i < 256; i++) {
        say(1, "{\"send\":\"chat:r\",\"event\":1}");
        say(1, "{\"send\":\"chat:s\",\"event\":1}");
    }
    ck_assert(c->paused);
    ack_say("chat:r", r, 256, 0);
    settle();
    ck_assert(c->paused);
    ack_say("chat:s", s, 256, 0);
    settle();
    ck_assert(!c->paused);
    for (unsigned i = 0; i < 256; i++)
        say(1, "{\"send\":\"chat:r\",\"event\":1}");
    ck_assert(c->paused);
    say(1, "{\"unsub\":\"chat:r\"}");
    ck_assert(!c->paused && !c->closed);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("member");
    tcase_add_checked_fixture(tc, setup, world_teardown);
    tcase_add_test(tc, test_join);
    tcase_add_test(tc, test_late_upgrade);
    tcase_add_test(tc, test_answer_lost);
    tcase_add_test(tc, test_refused);
    tcase_add_test(tc, test_no_answer);
    tcase_add_test(tc, test_shard_cannot);
    tcase_add_test(tc, test_inputs);
    tcase_add_test(tc, test_inputs_again);
    tcase_add_test(tc, test_forgotten);
    tcase_add_test(tc, test_input_not_taken);
    tcase_add_test(tc, test_too_many_inputs);
    tcase_add_test(tc, test_large_inputs);
    tcase_add_test(tc, test_filters);
    tcase_add_test(tc, test_shared);
    tcase_add_test(tc, test_slow);
    tcase_add_test(tc, test_replay);
    tcase_add_test(tc, test_replay_behind_what_is_gone);
    tcase_add_test(tc, test_leave);
    tcase_add_test(tc, test_closed_by_room);
    tcase_add_test(tc, test_closed_at_once);
    tcase_add_test(tc, test_drain);
    tcase_add_test(tc, test_v1);
    tcase_add_test(tc, test_v1_refused);
    tcase_add_test(tc, test_v1_full);
    Suite *suite = suite_create("gateway member");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
