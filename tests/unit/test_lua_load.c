/* Loading of room files: what is refused, with which words, and what a file's fields become; and
 * identify, which needs no room. */
#include "lua_world.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define HEAD "#!room name=test api=1\n"

START_TEST(refusals)
{
    static const struct {
        const char *text, *why;
    } table[] = {
        {"", "room.lua:1: no room file"},
        {"return {}", "room.lua:1: no room file"},
        {"#!room name=chat\nreturn {}", "room.lua:1: api= is missing"},
        {"#!room api=1\nreturn {}", "room.lua:1: name= is missing"},
        {"#!room name=a/b api=1\nreturn {}", "room.lua:1: name= is missing, or"},
        {"#!room name=chat api=2\nreturn {}", "room.lua:1: this host speaks api=1 only"},
        {"#!room name=chat api=1 color=red\nreturn {}", "only name= and api= are known"},
        {HEAD "local M = {}\nreturn M +", "room.lua:3: unexpected symbol"},
        {HEAD "\n\nerror('broken')", "room.lua:4: broken"},
        {HEAD "return 5", "the file returns a number; it must return the room's table"},
        {HEAD "", "the file returns a nil"},
        {HEAD "return { on_evnt = function() end }",
         "room.lua: a room has no field 'on_evnt'; did you mean 'on_event'?"},
        {HEAD "return { zzzzzzzzzz = 1 }", "room.lua: a room has no field 'zzzzzzzzzz'"},
        {HEAD "return { connection_cap = 1 }", "is now called 'max_connection_state'"},
        {HEAD "return { on_event = 5 }", "field 'on_event' is a number; it must be a function"},
        {HEAD "return { max_connections = 0 }", "must be an integer from 1 to 32768"},
        {HEAD "return { max_connections = 1.5 }", "must be an integer from 1 to 32768"},
        {HEAD "return { max_connection_state = 16385 }", "from 1 to 16384"},
        {HEAD "return { alarm_retries = 101 }", "from 0 to 100"},
        {HEAD "return { on_duplicate = 'never' }", "\"allow\", \"replace\" or \"reject\""},
        {HEAD "return { rollback = 1 }", "field 'rollback' is a number; it must be true or false"},
        {HEAD "return { auto_response = { 'ping' } }", "{ request, response }, two texts"},
        {HEAD "return { auto_response = { '', 'a' } }", "1 to 2048 bytes"},
        {HEAD "return { rpc = { say = 1 } }", "the method 'say' is a number"},
        {HEAD "return { rpc = { state = function() end } }", "'state' is reserved"},
        {HEAD "return { rpc = { presence = function() end } }", "'presence' is reserved"},
        {HEAD "return { rpc = { ['a b'] = function() end } }", "other characters"},
        {HEAD "return { rpc = { function() end } }", "a method without a name"},
        {HEAD "local t = {}\nt.t = t\nreturn { rpc = t }", "nested deeper than 4"},
        {HEAD "return { 1 }", "a field without a name"},
        {HEAD "x = 1", "room.lua:2: accidental global 'x'"},
        {HEAD "local x = undefinedd", "room.lua:2: undefined variable 'undefinedd'"},
        {HEAD "while true do end", "stopped: more than"},
        {HEAD "local t = {}\nwhile true do t[#t + 1] = ('x'):rep(1e6) .. #t end", "of memory"},
        {HEAD "require 'os'", "there is only require \"room\""},
        {HEAD "return { init = function() error('no env') end }", "room.lua:2: no env"},
        {"\x1bLua", "room.lua:1: no room file"},
        {HEAD "\x1bLua", "room.lua:2: "},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *why = world_refusal(table[i].text);
        ck_assert_msg(strstr(why, table[i].why), "%s\n  gave: %s\n  not:  %s", table[i].text, why,
                      table[i].why);
    }
}
END_TEST

START_TEST(fields)
{
    struct handler *h = world_load(HEAD "return { on_duplicate = 'replace', max_connections = 7,\n"
                                        "max_connection_state = 4096, alarm_retries = 0,\n"
                                        "state_version = 3, rollback = true, exclusive = true,\n"
                                        "auto_response = { 'ping', 'pong' } }",
                                   0, 0);
    ck_assert_str_eq(lua_handler_name(h), "test");
    ck_assert_int_eq(h->traits.on_duplicate, DUPLICATE_REPLACE);
    ck_assert_uint_eq(h->traits.max_connections, 7);
    ck_assert_uint_eq(h->traits.max_connection_state, 4096);
    ck_assert_uint_eq(h->traits.alarm_retries, 0);
    ck_assert_uint_eq(h->traits.state_version, 3);
    ck_assert(h->traits.rollback && h->traits.exclusive);
    ck_assert(slice_is(strbuf_slice(&h->traits.auto_request), "ping"));
    ck_assert(slice_is(strbuf_slice(&h->traits.auto_response), "pong"));
    h->vtable->destroy(h);

    h = world_load(HEAD "return {}", 0, 0);
    ck_assert_int_eq(h->traits.on_duplicate, DUPLICATE_ALLOW);
    ck_assert_uint_eq(h->traits.max_connections, 32768);
    ck_assert_uint_eq(h->traits.max_connection_state, 2048);
    ck_assert_uint_eq(h->traits.alarm_retries, 6);
    ck_assert(!h->traits.rollback && !h->traits.exclusive);
    ck_assert_uint_eq(h->traits.auto_request.size, 0);
    h->vtable->destroy(h);
}
END_TEST

static const char *identity(struct handler *h, const char *request)
{
    static char text[600];
    struct persona who;
    struct fault fault = {0};
    if (!h->vtable->identify(h, slice_text(request), &who, &fault))
        snprintf(text, sizeof text, "%s: %.*s", fault.tag, SLICE_FMT(fault.message));
    else if (who.status)
        snprintf(text, sizeof text, "%u %.*s", who.status, SLICE_FMT(who.refusal));
    else
        snprintf(text, sizeof text, "%.*s|%.*s|%.*s|%.*s", SLICE_FMT(who.id), SLICE_FMT(who.tags),
                 SLICE_FMT(who.state), SLICE_FMT(who.meta));
    text[strcspn(text, "\n")] = '\0';
    fault_free(&fault);
    return text;
}

START_TEST(who_they_are)
{
    struct handler *h = world_load(
        HEAD "local room = require 'room'\nlocal M = {}\n"
             "function M.identify(req)\n"
             "  if req.query.userId == 'evil' then return room.refuse(403, 'not you') end\n"
             "  if req.query.userId == 'odd' then error(room.refuse(409, 'odd')) end\n"
             "  if req.query.userId == 'bug' then return nil + 1 end\n"
             "  if req.query.userId == 'list' then return 5 end\n"
             "  if req.query.userId == 'typo' then return { idd = 'x' } end\n"
             "  if req.query.userId == 'number' then return { id = 5 } end\n"
             "  if req.query.userId == 'tags' then return { tags = { 1 } } end\n"
             "  if req.query.userId == 'loop' then while true do end end\n"
             "  if req.query.userId == 'empty' then return { tags = {} } end\n"
             "  if req.query.userId == 'nothing' then return end\n"
             "  local user = req.claims and req.claims.sub or req.query.userId or 'anon'\n"
             "  return { id = user, tags = { 'user:' .. user }, meta = req.headers.origin,\n"
             "    state = { userId = user, joinedAt = room.now_ms() } }\n"
             "end\nreturn M",
        2000000, 0);
    static const struct {
        const char *request, *answer;
    } table[] = {
        {"{\"query\":{\"userId\":\"ada\"},\"claims\":null,\"headers\":{\"origin\":\"o\"}}",
         "ada|[\"user:ada\"]|{\"joinedAt\":1234,\"userId\":\"ada\"}|\"o\""},
        {"{\"query\":{},\"claims\":{\"sub\":\"bob\"},\"headers\":{}}",
         "bob|[\"user:bob\"]|{\"joinedAt\":1234,\"userId\":\"bob\"}|"},
        {"{\"query\":{},\"headers\":{}}",
         "anon|[\"user:anon\"]|{\"joinedAt\":1234,\"userId\":\"anon\"}|"},
        {"{\"query\":{\"userId\":\"evil\"}}", "403 not you"},
        {"{\"query\":{\"userId\":\"odd\"}}", "409 odd"},
        {"{\"query\":{\"userId\":\"bug\"}}",
         "RoomExecutionError: room.lua:7: attempt to perform arithmetic on a nil value"},
        {"{\"query\":{\"userId\":\"list\"}}",
         "UpgradeError: identify returned a number; it must return a table"},
        {"{\"query\":{\"userId\":\"typo\"}}",
         "UpgradeError: identify: unknown field 'idd'; there are id, tags, state, meta"},
        {"{\"query\":{\"userId\":\"number\"}}",
         "UpgradeError: identify: id must be a text, not a number"},
        {"{\"query\":{\"userId\":\"tags\"}}", "UpgradeError: identify: tag 1 is a number; tags are "
                                              "texts"},
        {"{\"query\":{\"userId\":\"loop\"}}",
         "RoomExecutionError: stopped: more than 2000000 instructions at a stretch"},
        {"{\"query\":{\"userId\":\"empty\"}}", "|[]||"},
        {"{\"query\":{\"userId\":\"nothing\"}}", "|||"},
        {"[", "UpgradeError: the request is no JSON object: not JSON"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_str_eq(identity(h, table[i].request), table[i].answer);
    h->vtable->destroy(h);
}
END_TEST

/* Without identify the token speaks, and the query is trusted for nothing. */
START_TEST(who_the_token_says)
{
    struct handler *h = world_load(HEAD "return {}", 0, 0);
    ck_assert_str_eq(identity(h, "{\"query\":{\"id\":\"x\",\"userId\":\"y\"},\"claims\":null}"),
                     "|||");
    ck_assert_str_eq(identity(h, "{\"query\":{},\"claims\":{\"id\":\"a\",\"tags\":[\"t\"],"
                                 "\"att\":{\"n\":1},\"sub\":\"s\"}}"),
                     "a|[\"t\"]|{\"n\":1}|");
    h->vtable->destroy(h);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lua_load");
    TCase *t = tcase_create("load");
    tcase_add_test(t, refusals);
    tcase_add_test(t, fields);
    tcase_add_test(t, who_they_are);
    tcase_add_test(t, who_the_token_says);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
