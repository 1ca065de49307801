/* Rooms in Lua on the shard's own core, with its store, its turns and its commits: the chat room of
 * the examples and of the design, unchanged, and a room that waits, fails, loops and forgets. */
#include "shard/lua/lua_handler.h"
#include "test_shard_actor_robot.h"

static struct handler *handler;
static struct rig_client *g;

static int64_t now_ms(void *arg)
{
    (void)arg;
    return 77;
}

static void begin(struct slice text)
{
    struct lua_options options = {.now_ms = now_ms, .instructions = 1000000};
    struct strbuf why = {0};
    if (lua_handler_create(&handler, "room.lua", text, &options, &why) != ERR_OK)
        ck_abort_msg("%s", strbuf_cstr(&why));
    strbuf_free(&why);
    struct shard_type types[] = {
        {.name = "events", .retention = {HOUR_MS, 10000, 16 * MIB}},
        {.name = "c", .retention = {HOUR_MS, 10000, 16 * MIB}, .handler = handler}};
    rig = rig_create(types, 2);
    g = rig_connect(rig, ROLE_GATEWAY);
    rig_sub(g, "c:1");
}

static void begin_file(const char *path)
{
    static char text[65536];
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    begin(slice_of(text, n));
}

static void end(void)
{
    rig_destroy(rig);
    handler->vtable->destroy(handler);
}

static void say(const char *session, uint64_t counter, const char *frame)
{
    robot_input(g, "c:1", session, counter, frame);
    rig_pump(rig);
}

static const char *call(const char *name, const char *input)
{
    static char text[2048];
    static uint64_t id = 1000;
    const struct message *m = robot_call(
        g, (struct robot_call){
               .key = "c:1", .verb = VERB_METHOD, .name = name, .input = input, .id = ++id});
    if (!m)
        return "waits";
    ck_assert_int_eq((int)m->type, MSG_RESULT);
    const struct msg_result *r = &m->result;
    if (r->status == 0)
        snprintf(text, sizeof text, "0 %.*s", SLICE_FMT(r->json));
    else
        snprintf(text, sizeof text, "%llu %.*s: %.*s %.*s", (unsigned long long)r->status,
                 SLICE_FMT(r->tag), SLICE_FMT(r->text), SLICE_FMT(r->json));
    return text;
}

/* The texts delivered, times taken out. */
static const char *delivered(void)
{
    static char text[4096];
    const char *from = rig_delivered(g, "c:1");
    char *to = text;
    while (*from && to < text + sizeof text - 8) {
        if (strncmp(from, "\"ts\":", 5) == 0) {
            from += 5 + strspn(from + 5, "0123456789");
            memcpy(to, "TS", 2);
            to += 2;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
    rig_forget(g);
    return text;
}

#define ADA "{\"query\":{\"userId\":\"ada\"},\"claims\":null,\"headers\":{},\"ip\":\"::1\"}"
#define ANON "{\"query\":{},\"claims\":null,\"headers\":{},\"ip\":\"::1\"}"

static void chat(const char *path)
{
    begin_file(path);
    ck_joined(robot_join(g, "c:1", "s1", ADA, false), 0);
    ck_joined(robot_join(g, "c:1", "s2", ANON, false), 0);
    ck_assert_str_eq(delivered(), "1:{\"_tag\":\"UserJoined\",\"userId\":\"ada\"} "
                                  "2:{\"_tag\":\"UserJoined\",\"userId\":\"anon\"}");
    say("s1", 1, "{\"_tag\":\"Say\",\"text\":\"h\\u0000i \xf0\x9f\x98\x80\"}");
    say("s2", 1, "{\"_tag\":\"Typing\"}");
    say("s2", 2, "{\"_tag\":\"Shout\"}");
    say("s2", 3, "no json");
    ck_assert_str_eq(delivered(),
                     "3:{\"_tag\":\"Message\",\"text\":\"h\\u0000i \xf0\x9f\x98\x80\",TS,"
                     "\"userId\":\"ada\"} 4:{\"_tag\":\"Typing\",\"userId\":\"anon\"}");
    ck_assert_str_eq(robot_connections(g, "c:1", "user:ada"),
                     "[{\"id\":\"ada\",\"tags\":[\"user:ada\"],\"state\":{\"joinedAt\":77,"
                     "\"userId\":\"ada\"}}]");
    ck_assert_ptr_nonnull(strstr(robot_state(g, "c:1"), "\"messageCount\":1"));

    rig_crash(rig);
    ck_assert_ptr_nonnull(strstr(robot_state(g, "c:1"), "\"messageCount\":1"));
    ck_joined(robot_join(g, "c:1", "s1", "", true), 0);
    ck_joined(robot_join(g, "c:1", "s2", "", true), 0);
    rig_sub(g, "c:1");
    rig_forget(g);
    say("s1", 2, "{\"_tag\":\"Say\",\"text\":\"again\"}");
    robot_leave(g, "c:1", "s2", 1006);
    ck_assert_str_eq(delivered(),
                     "5:{\"_tag\":\"Message\",\"text\":\"again\",TS,\"userId\":\"ada\"} "
                     "6:{\"_tag\":\"UserLeft\",\"userId\":\"anon\"}");
    ck_assert_ptr_nonnull(strstr(robot_state(g, "c:1"), "\"messageCount\":2"));
}

START_TEST(the_chat_of_the_examples)
{
    chat(EXAMPLES "/chat/chat.lua");
    ck_assert_str_eq(call("say", "{\"text\":\"from the back\"}"), "0 {\"status\":\"ok\"}");
    ck_assert_str_eq(delivered(), "7:{\"_tag\":\"Message\",\"text\":\"from the back\",TS,"
                                  "\"userId\":\"system\"}");
    ck_assert_ptr_nonnull(strstr(call("say", "{}"), "400 "));
    ck_assert_ptr_nonnull(strstr(robot_state(g, "c:1"), "\"messageCount\":3"));
    const struct message *m = robot_call(g, (struct robot_call){.key = "c:never",
                                                                .verb = VERB_METHOD,
                                                                .name = "say",
                                                                .input = "{\"text\":\"x\"}",
                                                                .id = 1});
    ck_result(m, 0, "{\"status\":\"ok\"}");
    ck_assert_str_eq(robot_state(g, "c:never"), "null");
    end();
}
END_TEST

START_TEST(the_chat_of_the_design)
{
    chat(TESTS "/lua_chat.lua");
    end();
}
END_TEST

static const char probe[] =
    "#!room name=probe api=1\nlocal room = require 'room'\nlocal M = { rpc = {} }\n"
    "function M.rpc.set(ctx, v) ctx:save(v) ctx.mem.seen = true end\n"
    "function M.rpc.get(ctx) return { ctx:recall() or room.null, ctx.mem.seen or false } end\n"
    "function M.rpc.nap(ctx) ctx:broadcast 'before' ctx:sleep(1000) ctx:broadcast 'after'\n"
    "  return 'slept' end\n"
    "function M.rpc.loop(ctx) ctx:save 'lost' ctx:broadcast 'lost' pcall(function()\n"
    "  while true do end end) end\n"
    "function M.rpc.bomb(ctx) ctx.mem.t = {} while true do\n"
    "  table.insert(ctx.mem.t, ('x'):rep(1e6) .. #ctx.mem.t) end end\n"
    "function M.rpc.fail(ctx) ctx:save 'kept' ctx:broadcast 'kept' error('secret') end\n"
    "function M.rpc.own() room.error('Mine', { status = 418, message = 'm', data = { 1 } }) end\n"
    "function M.rpc.later(ctx) ctx:schedule_in(5000) return ctx:next_alarm() ~= nil end\n"
    "function M.on_alarm(ctx) ctx:broadcast { alarm = ctx.system_failure or room.null }\n"
    "  if ctx:recall() == 'angry' then error('angry') end end\n"
    "function M.rpc.ask(ctx, key) local r = ctx:room('c')\n"
    "  local ok, e = pcall(r.call, r, key, 'own')\n"
    "  return { r:get_state(key) or room.null, r:call(key, 'get'), e.tag, e.data } end\n"
    "function M.rpc.gone(ctx) ctx:save(1) ctx:purge() end\n"
    "function M.rpc.list(ctx) return ctx:log() end\n"
    "function M.rpc.publish(ctx, v) ctx:publish(v) end\n"
    "return M\n";

START_TEST(a_room_that_does_everything)
{
    begin(slice_text(probe));
    ck_assert_str_eq(call("get", ""), "0 [null,false]");
    ck_assert_str_eq(call("set", "{\"n\":9007199254740993}"), "0 null");
    ck_assert_str_eq(call("get", ""), "0 [{\"n\":9007199254740993},true]");
    ck_joined(robot_join(g, "c:1", "s1", ANON, false), 0);
    ck_assert_str_eq(call("nap", ""), "waits");
    ck_assert_str_eq(delivered(), "1:\"before\"");
    rig_wait(rig, 1500);
    ck_assert_str_eq(delivered(), "2:\"after\"");

    ck_assert_str_eq(call("loop", ""), "500 RoomExecutionError: the room's handler failed ");
    ck_assert_str_eq(call("bomb", ""), "500 RoomExecutionError: the room's handler failed ");
    ck_assert_str_eq(delivered(), "");
    ck_assert_str_eq(robot_state(g, "c:1"), "{\"n\":9007199254740993}");
    ck_assert_str_eq(call("fail", ""), "500 RoomExecutionError: the room's handler failed ");
    ck_assert_str_eq(delivered(), "3:\"kept\"");
    ck_assert_str_eq(call("own", ""), "418 Mine: m [1]");

    ck_assert_str_eq(call("later", ""), "0 true");
    rig_wait(rig, 6000);
    ck_assert_str_eq(delivered(), "4:{\"alarm\":null}");
    ck_assert_str_eq(call("set", "\"angry\""), "0 null");
    ck_assert_str_eq(call("later", ""), "0 true");
    rig_forget(g);
    rig_wait(rig, 8500);
    const char *alarms = delivered();
    ck_assert_ptr_nonnull(strstr(alarms, "5:{\"alarm\":null} 6:{\"alarm\":\""));

    rig_wait(rig, 200000); /* retries end; it leaves memory, and its table with it */
    ck_assert_str_eq(call("get", ""), "0 [\"angry\",false]");
    ck_assert_str_eq(call("publish", "5"), "0 null");
    ck_assert_ptr_nonnull(strstr(call("list", ""), "\"data\":5"));
    ck_assert_str_eq(call("gone", ""), "0 null");
    ck_assert_str_eq(robot_state(g, "c:1"), "null");
    ck_assert_str_eq(call("list", ""), "0 []");
    end();
}
END_TEST

START_TEST(rooms_ask_each_other)
{
    begin(slice_text(probe));
    const char *answer = call("ask", "\"2\"");
    ck_assert_str_eq(answer, "0 [null,[null,false],\"Mine\",[1]]");
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {the_chat_of_the_examples, the_chat_of_the_design,
                                  a_room_that_does_everything, rooms_ask_each_other};
    return rig_run("lua_shard", tests, sizeof tests / sizeof *tests);
}
