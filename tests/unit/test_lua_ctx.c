/* What rooms do through ctx, as the shard sees it: each call of the API for authors, its errors,
 * and runs that wait. */
#include "lua_world.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define HEAD "#!room name=test api=1\nlocal room = require 'room'\nlocal M = { rpc = {} }\n"

static struct handler *handler;
static struct context *w;

static void begin(const char *text)
{
    struct strbuf all = {0};
    strbuf_printf(&all, HEAD "%s\nreturn M", text);
    handler = world_load(strbuf_cstr(&all), 5000000, 0);
    strbuf_free(&all);
    w = world_create(handler, "a");
}

static void end(void)
{
    world_destroy(w);
    handler->vtable->destroy(handler);
}

static const char *message(void)
{
    static char text[300];
    snprintf(text, sizeof text, "%s: %.*s", w->fault.tag, SLICE_FMT(w->fault.message));
    text[strcspn(text, "\n")] = '\0';
    return text;
}

START_TEST(state)
{
    begin("function M.rpc.get(ctx) return { ctx:recall() or 'none' } end\n"
          "function M.rpc.put(ctx, v) ctx:save(v) end\n"
          "function M.rpc.add(ctx) return ctx:update(function(s) s.n = s.n + 1 return s end) end\n"
          "function M.rpc.bad(ctx) ctx:save { f = print } end\n"
          "function M.rpc.none(ctx) ctx:update(function(s) s.n = 9 end) end\n"
          "function M.rpc.caught(ctx) local ok, e = pcall(ctx.save, ctx, { n = 1 })\n"
          "  return { ok, e.tag, e.message, tostring(e) } end");
    ck_assert_str_eq(world_answer(w, "get", ""), "[\"none\"]");
    ck_assert_str_eq(world_answer(w, "add", ""), "false");
    ck_assert_str_eq(world_done(w), "");
    world_answer(w, "put", "{\"n\":1}");
    ck_assert_str_eq(world_answer(w, "add", ""), "true");
    ck_assert_str_eq(world_done(w), "save {\"n\":1}\nsave {\"n\":2}\n");
    ck_assert_str_eq(world_answer(w, "get", ""), "[{\"n\":2}]");
    ck_assert_str_eq(world_answer(w, "bad", ""), "RoomError: a function has no JSON");
    ck_assert_str_eq(world_answer(w, "none", ""),
                     "RoomError: the function of ctx:update returned no state");
    ck_assert_str_eq(world_answer(w, "put", ""),
                     "RoomError: ctx:save needs a value; ctx:purge() deletes the state");
    ck_assert_str_eq(world_done(w), "");
    w->refuse = "RoomError";
    ck_assert_str_eq(world_answer(w, "caught", ""),
                     "[false,\"RoomError\",\"refused by the test\",\"RoomError: refused by the "
                     "test\"]");
    end();
}
END_TEST

START_TEST(events)
{
    begin("function M.decode_event(e) if e._tag then return e end error('unknown event') end\n"
          "function M.on_event(ctx, e) room.log(e._tag, ctx.connection and ctx.connection.id)\n"
          "  if e._tag == 'Boom' then error('boom') end end\n"
          "function M.on_decode_error(ctx, raw, err) room.log(raw, err.tag, err.message) end\n"
          "function M.on_error(ctx, phase, err) if err.tag == 'Known' then return end\n"
          "  room.log(phase, err.tag) error(err) end");
    struct connection *c = world_join(w, "s1", "ada", "", "null");
    ck_assert_int_eq(world_event(w, c, "{\"_tag\":\"Say\"}"), RUN_DONE);
    ck_assert_int_eq(world_event(w, NULL, "{\"_tag\":\"Say\"}"), RUN_DONE);
    ck_assert_str_eq(world_log(w), "Say\tada\nSay\tnil\n");
    ck_assert_int_eq(world_event(w, c, "{\"_tag\":\"Boom\"}"), RUN_FAILED);
    ck_assert_str_eq(message(), "RoomExecutionError: room.lua:6: boom");
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&w->fault.message), "stack traceback"));
    world_log(w);

    struct invocation failed = {.phase = PHASE_ERROR, .failed = PHASE_EVENT, .fault = &w->fault};
    struct fault fault = w->fault;
    memset(&w->fault, 0, sizeof w->fault);
    failed.fault = &fault;
    ck_assert_int_eq(world_run(w, &failed), RUN_FAILED);
    ck_assert_str_eq(world_log(w), "event\tRoomExecutionError\n");
    fault_set(&fault, "Known", "x");
    ck_assert_int_eq(world_run(w, &failed), RUN_DONE);

    ck_assert_int_eq(world_event(w, c, "no json"), RUN_UNDECODED);
    ck_assert_str_eq(message(), "RoomValidationError: the event is not JSON");
    ck_assert_int_eq(world_event(w, c, "{\"x\":1}"), RUN_UNDECODED);
    ck_assert_str_eq(message(), "RoomValidationError: room.lua:4: unknown event");
    fault_set(&fault, "RoomValidationError", "why");
    struct invocation undecoded = {
        .phase = PHASE_DECODE_ERROR, .input = slice_text("raw\xff"), .fault = &fault};
    ck_assert_int_eq(world_run(w, &undecoded), RUN_DONE);
    ck_assert_str_eq(world_log(w), "raw\xff\tRoomValidationError\twhy\n");
    fault_free(&fault);

    struct invocation alarm = {.phase = PHASE_ALARM};
    ck_assert_int_eq(world_run(w, &alarm), RUN_ABSENT);
    end();
}
END_TEST

START_TEST(connect_and_close)
{
    begin(
        "function M.on_connect(ctx) local c = ctx.connection\n"
        "  if c.id == 'evil' then room.refuse(403, 'no') end\n"
        "  room.log(c.id, c.tags[1], c.state.n, c.meta.color, ctx.connections:count())\n"
        "  c:send { hello = c.id } c:set_state { n = c.state.n + 1 } room.log(c.state.n) end\n"
        "function M.on_close(ctx, i) room.log(i.code, i.reason, i.clean, i.replaced, i.recovered,\n"
        "  ctx.connection.id) end");
    struct connection *c = world_join(w, "s1", "ada", "user:ada", "{\"n\":1}");
    strbuf_put_text(&c->meta, "{\"color\":\"red\"}");
    w->current = c;
    struct invocation connect = {.phase = PHASE_CONNECT};
    ck_assert_int_eq(world_run(w, &connect), RUN_DONE);
    ck_assert_str_eq(world_log(w), "ada\tuser:ada\t1\tred\t1\n2\n");
    ck_assert_str_eq(world_done(w), "send s1 {\"hello\":\"ada\"}\nset_state s1 {\"n\":2}\n");
    struct invocation closed = {
        .phase = PHASE_CLOSE, .code = 1006, .reason = slice_text("gone"), .recovered = true};
    ck_assert_int_eq(world_run(w, &closed), RUN_DONE);
    ck_assert_str_eq(world_log(w), "1006\tgone\tfalse\tfalse\ttrue\tada\n");
    w->current = world_join(w, "s2", "evil", "", "null");
    ck_assert_int_eq(world_run(w, &connect), RUN_FAILED);
    ck_assert_str_eq(message(), "UpgradeError: no");
    ck_assert_uint_eq(w->fault.status, 403);
    end();
}
END_TEST

START_TEST(recipients)
{
    begin("function M.on_event(ctx, e) local c, all = ctx.connection, ctx.connections\n"
          "  ctx:broadcast { a = 1 }\n"
          "  ctx:broadcast({ a = 1 }, { except = c })\n"
          "  ctx:broadcast({ a = 1 }, { tags = { 'x', 'y' }, except = { c, 'bob' } })\n"
          "  ctx:broadcast('m', { to = all:all() })\n"
          "  ctx:publish({ b = 2 }, { conflate = 'k', to = 'bob' })\n"
          "  ctx:publish({ b = 3 }, { ephemeral = true })\n"
          "end\n"
          "function M.rpc.past(ctx) return ctx:log { after = 'e-0', limit = 7 } end\n"
          "function M.rpc.old(ctx) ctx:broadcast(1, { tag = 'x' }) end\n"
          "function M.rpc.id(ctx) ctx:broadcast(1, { except_id = 'x' }) end\n"
          "function M.rpc.what(ctx) ctx:broadcast(1, { to = 5 }) end\n"
          "function M.rpc.bad(ctx) ctx:broadcast(print) end");
    struct connection *c = world_join(w, "s1", "ada", "x", "null");
    world_join(w, "s2", "bob", "y", "null");
    ck_assert_int_eq(world_event(w, c, "1"), RUN_DONE);
    ck_assert_str_eq(world_done(w), "broadcast {\"a\":1}\n"
                                    "broadcast {\"a\":1} except=s1\n"
                                    "broadcast {\"a\":1} tags=x,y except=s1,bob\n"
                                    "broadcast \"m\" to=s1,s2\n"
                                    "publish {\"b\":2} to=bob conflate=k\n"
                                    "ephemeral {\"b\":3}\n");
    ck_assert_str_eq(world_answer(w, "past", ""),
                     "[{\"data\":{\"after\":\"e-0\",\"limit\":7},\"id\":\"e-1\",\"ts\":5}]");
    ck_assert_str_eq(world_answer(w, "bad", ""), "BroadcastError: a function has no JSON");
    ck_assert_ptr_nonnull(strstr(world_answer(w, "old", ""), "unknown option 'tag'; write tags ="));
    ck_assert_ptr_nonnull(strstr(world_answer(w, "id", ""), "write except ="));
    ck_assert_ptr_nonnull(strstr(world_answer(w, "what", ""), "option 'to' is a number"));
    end();
}
END_TEST

START_TEST(connections)
{
    begin(
        "local kept\n"
        "function M.rpc.f(ctx) local all = ctx.connections:all() local ids = {}\n"
        "  for i, c in ipairs(all) do ids[i] = c.id .. (c:is_open() and '+' or '-') end\n"
        "  local tagged = ctx.connections:by_tag('t')\n"
        "  local far = ctx.connections:filter(function(c) return c ~= all[1] end)\n"
        "  kept = all[1]\n"
        "  return { ids, #tagged, far[1].id, ctx.connections:count(), ctx.connections:count('t'),\n"
        "    ctx.connections:by_id('bob').session, ctx.connections:by_id('zoe') == nil,\n"
        "    tostring(all[1]), all[1] == ctx.connections:all()[1], all[1].tags } end\n"
        "function M.rpc.late(ctx) return kept.id end\n"
        "function M.rpc.shut(ctx) local c = ctx.connections:all()[1] c:close(4000, 'bye')\n"
        "  return c:is_open() end\n"
        "function M.rpc.large(ctx) local c = ctx.connections:by_id('bob')\n"
        "  local ok, e = pcall(c.set_state, c, ('x'):rep(300)) return { e.tag, c.state } end\n"
        "function M.rpc.fail(ctx) ctx.connections:by_id('bob'):send(1) end");
    world_join(w, "s1", "ada", "t", "null");
    world_join(w, "s2", "bob", "", "{\"k\":1}");
    ck_assert_str_eq(world_answer(w, "f", ""), "[[\"ada+\",\"bob+\"],1,\"bob\",2,1,\"s2\",true,"
                                               "\"connection ada\",true,[\"t\"]]");
    ck_assert_ptr_nonnull(strstr(world_answer(w, "late", ""), "a connection is of another run"));
    ck_assert_str_eq(world_answer(w, "shut", ""), "false");
    ck_assert_str_eq(world_done(w), "close s1 4000 bye\n");
    ck_assert_str_eq(world_answer(w, "large", ""), "[\"AttachmentTooLargeError\",{\"k\":1}]");
    w->refuse = "SendError";
    ck_assert_str_eq(world_answer(w, "fail", ""), "SendError: refused by the test");
    end();
}
END_TEST

START_TEST(alarms_and_fields)
{
    begin("function M.init(env) M.color = env.color end\n"
          "function M.rpc.f(ctx) local a = ctx:next_alarm() ctx:schedule_in(5000)\n"
          "  local b = ctx:next_alarm() ctx:schedule_in('30 seconds') ctx:schedule_in('2m')\n"
          "  ctx:schedule_at(42) ctx:cancel_schedule()\n"
          "  return { a == nil, b, ctx.id, ctx.name, ctx.key, ctx.env.color, M.color,\n"
          "    ctx.system_failure == nil, ctx.connection == nil, ctx.meta == nil } end\n"
          "function M.rpc.bad(ctx, d) ctx:schedule_in(d) end\n"
          "function M.rpc.mem(ctx) ctx.mem.n = (ctx.mem.n or 0) + 1 return ctx.mem.n end");
    ck_assert_str_eq(world_answer(w, "f", ""),
                     "[true,1005000,\"a\",\"test\",\"test:a\",\"red\",\"red\",true,true,true]");
    ck_assert_str_eq(world_done(w),
                     "alarm 1005000\nalarm 1030000\nalarm 1120000\nalarm 42\ncancel \n");
    ck_assert_ptr_nonnull(strstr(world_answer(w, "bad", "\"5 parsecs\""), "a duration like"));
    ck_assert_ptr_nonnull(strstr(world_answer(w, "bad", "1e300"), "milliseconds"));
    ck_assert_str_eq(world_answer(w, "mem", ""), "1");
    ck_assert_str_eq(world_answer(w, "mem", ""), "2");
    struct context *other = world_create(handler, "b");
    ck_assert_str_eq(world_answer(other, "mem", ""), "1");
    world_destroy(other);
    handler->vtable->unload(handler, w->mem);
    w->mem = handler->vtable->load(handler, w);
    ck_assert_str_eq(world_answer(w, "mem", ""), "1");
    end();
}
END_TEST

START_TEST(methods)
{
    begin("M.rpc.router = { ping = function() return 'pong' end }\n"
          "function M.rpc.fail() room.error('TooFar', { status = 422, message = 'far',\n"
          "  data = { km = 5 } }) end\n"
          "function M.rpc.short() error(room.error('Short')) end\n"
          "function M.rpc.caught() local ok, e = pcall(room.error, 'A', { data = { 1 } })\n"
          "  return { e.tag, e.data, e.message } end\n"
          "function M.rpc.many(ctx, input, yield) for i = 1, input do yield { i = i } end\n"
          "  return 'last' end\n"
          "function M.rpc.empty(ctx, input, yield) end\n"
          "function M.rpc.two(ctx, input, yield) yield(1) yield(room.null) end\n"
          "function M.rpc.zero(ctx, input) return input == nil end");
    ck_assert_str_eq(world_answer(w, "router.ping", ""), "\"pong\"");
    ck_assert_str_eq(world_answer(w, "ping", ""), "absent");
    ck_assert_str_eq(world_answer(w, "router", ""), "absent");
    ck_assert_str_eq(world_answer(w, "fail", ""), "TooFar: far");
    ck_assert_uint_eq(w->fault.status, 422);
    ck_assert_str_eq(strbuf_cstr(&w->fault.data), "{\"km\":5}");
    ck_assert_str_eq(world_answer(w, "short", ""), "Short: Short");
    ck_assert_uint_eq(w->fault.data.size, 0);
    ck_assert_str_eq(world_answer(w, "caught", ""), "[\"A\",[1],\"A\"]");
    ck_assert_str_eq(world_answer(w, "many", "2"), "[{\"i\":1},{\"i\":2},\"last\"]");
    ck_assert_str_eq(world_answer(w, "many", "0"), "[\"last\"]");
    ck_assert_str_eq(world_answer(w, "empty", ""), "[]");
    ck_assert_str_eq(world_answer(w, "two", ""), "[1,null]");
    ck_assert_str_eq(world_answer(w, "zero", ""), "true");
    ck_assert_str_eq(world_answer(w, "zero", "null"), "true");
    struct invocation streamed = {.phase = PHASE_CALL,
                                  .input = slice_text("2"),
                                  .method = slice_text("many"),
                                  .streams = true};
    ck_assert_str_eq(world_done(w), "");
    ck_assert_int_eq(world_run(w, &streamed), RUN_DONE);
    ck_assert_str_eq(strbuf_cstr(&w->result), "\"last\"");
    ck_assert_str_eq(world_done(w), "item {\"i\":1}\nitem {\"i\":2}\n");
    end();
}
END_TEST

START_TEST(waiting)
{
    begin("function M.rpc.nap(ctx) room.log('a') ctx:sleep(50) room.log('b') ctx:sleep('1s')\n"
          "  return ctx.connection and ctx.connection.id or 'direct' end\n"
          "function M.rpc.ask(ctx) local r = ctx:room('counter')\n"
          "  r:send('x', { e = 1 }) local s = r:get_state('x') r:broadcast('x', 'm')\n"
          "  local ok, e = pcall(r.call, r, 'x', 'add', { n = 1 })\n"
          "  return { s == nil, ok, e.tag, e.data, r:call('x', 'get') } end\n"
          "function M.rpc.inner(ctx) local f = coroutine.wrap(function(a)\n"
          "    ctx:sleep(1) local b = coroutine.yield(a + 1) ctx:sleep(2) return b * 2 end)\n"
          "  local co = coroutine.create(function() ctx:sleep(3) return 'co' end)\n"
          "  return { f(1), f(5), { coroutine.resume(co) }, pcall(function() ctx:sleep(4) return 6 "
          "end) }\n"
          "end\n"
          "function M.rpc.never(ctx) ctx:save(1) return { pcall(ctx.update, ctx, function(s)\n"
          "  ctx:sleep(1) return s end) } end\n"
          "function M.rpc.deep(ctx) table.sort({ 3, 2, 1 }, function()\n"
          "  coroutine.wrap(function() ctx:sleep(1) end)() end) end\n"
          "function M.rpc.loop(ctx) pcall(function() ctx:sleep(1) while true do end end) end");
    ck_assert_int_eq(world_call(w, "nap", ""), RUN_YIELDED);
    struct context *other = world_create(handler, "b");
    ck_assert_int_eq(world_call(other, "nap", ""), RUN_YIELDED);
    ck_assert_int_eq(world_wake(w, "", NULL), RUN_YIELDED);
    ck_assert_int_eq(world_wake(w, "", NULL), RUN_DONE);
    ck_assert_str_eq(strbuf_cstr(&w->result), "\"direct\"");
    ck_assert_str_eq(world_done(w), "sleep 50\nsleep 1000\n");
    ck_assert_str_eq(world_log(w), "a\nb\n");
    world_destroy(other); /* abandons its run */

    ck_assert_int_eq(world_call(w, "ask", ""), RUN_YIELDED);
    ck_assert_int_eq(world_wake(w, "", NULL), RUN_YIELDED);
    ck_assert_int_eq(world_wake(w, "null", NULL), RUN_YIELDED);
    ck_assert_int_eq(world_wake(w, "", NULL), RUN_YIELDED);
    struct fault fault = {0};
    fault_set(&fault, "TooFar", "far");
    strbuf_put_text(&fault.data, "[1]");
    ck_assert_int_eq(world_wake(w, "", &fault), RUN_YIELDED);
    fault_free(&fault);
    ck_assert_int_eq(world_wake(w, "{\"n\":7}", NULL), RUN_DONE);
    ck_assert_str_eq(strbuf_cstr(&w->result), "[true,false,\"TooFar\",[1],{\"n\":7}]");
    ck_assert_str_eq(world_done(w), "sibling send counter:x  {\"e\":1}\n"
                                    "sibling state counter:x  \n"
                                    "sibling broadcast counter:x  \"m\"\n"
                                    "sibling call counter:x add {\"n\":1}\n"
                                    "sibling call counter:x get \n");

    ck_assert_int_eq(world_call(w, "inner", ""), RUN_YIELDED);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(world_wake(w, "", NULL), RUN_YIELDED);
    ck_assert_int_eq(world_wake(w, "", NULL), RUN_DONE);
    ck_assert_str_eq(strbuf_cstr(&w->result), "[2,10,[true,\"co\"],true,6]");
    world_done(w);

    ck_assert_ptr_nonnull(strstr(world_answer(w, "never", ""), "ctx:sleep cannot wait here"));
    ck_assert_ptr_nonnull(strstr(world_answer(w, "deep", ""), "ctx:sleep cannot wait here"));
    ck_assert_str_eq(world_done(w), "save 1\n");
    ck_assert_int_eq(world_call(w, "loop", ""), RUN_YIELDED);
    ck_assert_int_eq(world_wake(w, "", NULL), RUN_KILLED);
    end();
}
END_TEST

/* A connection that is gone after the wait is told as gone, and not mistaken for another. */
START_TEST(gone_while_waiting)
{
    begin(
        "function M.on_event(ctx) local c = ctx.connection ctx:sleep(1)\n"
        "  local ok, e = pcall(c.send, c, 1) local ok2, e2 = pcall(function() return c.state end)\n"
        "  room.log(c.id, c:is_open(), ok, ok or e.tag, ok2, ok2 or e2.message)\n"
        "  c:close(1000) end");
    struct connection *c = world_join(w, "s1", "ada", "", "{}");
    ck_assert_int_eq(world_event(w, c, "1"), RUN_YIELDED);
    ck_assert_int_eq(world_wake(w, "", NULL), RUN_DONE);
    ck_assert_str_eq(world_log(w), "ada\ttrue\ttrue\ttrue\ttrue\ttrue\n");
    c->open = true;
    ck_assert_int_eq(world_event(w, c, "1"), RUN_YIELDED);
    w->current = NULL;
    c->open = false;
    world_done(w);
    ck_assert_int_eq(world_wake(w, "", NULL), RUN_DONE);
    ck_assert_str_eq(world_log(w), "ada\tfalse\tfalse\tSendError\tfalse\tthe connection is gone\n");
    ck_assert_str_eq(world_done(w), "");
    end();
}
END_TEST

/* What belongs to one run is no key to another, of another room perhaps. */
START_TEST(nothing_kept)
{
    begin("local kept, co\n"
          "function M.rpc.keep(ctx) kept = ctx co = coroutine.create(function() ctx:sleep(1) end)\n"
          "  coroutine.resume(co) end\n"
          "function M.rpc.use(ctx) return { pcall(kept.save, kept, 1) } end\n"
          "function M.rpc.wake(ctx) return { coroutine.status(co), coroutine.resume(co) } end");
    ck_assert_int_eq(world_call(w, "keep", ""), RUN_YIELDED);
    struct context *other = world_create(handler, "b");
    ck_assert_ptr_nonnull(strstr(world_answer(other, "use", ""), "ctx is of another run"));
    ck_assert_str_eq(world_answer(other, "wake", ""),
                     "[\"normal\",false,\"cannot resume non-suspended coroutine\"]");
    ck_assert_str_eq(world_done(other), "");
    world_destroy(other);
    end();
}
END_TEST

START_TEST(purging)
{
    begin("function M.rpc.f(ctx) ctx:save(1) pcall(function() ctx:purge() end) ctx:save(2) end\n"
          "function M.rpc.g(ctx) table.sort({ 2, 1 }, function() pcall(ctx.purge, ctx) end) "
          "ctx:save(2) end\n"
          "function M.rpc.h(ctx) coroutine.wrap(function() ctx:purge() end)() ctx:save(2) end\n"
          "function M.on_error(ctx) ctx:purge() ctx:save(2) end");
    static const char *const names[] = {"f", "g", "h"};
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(world_call(w, names[i], ""), RUN_DONE);
        ck_assert_str_eq(strbuf_cstr(&w->result), "null");
        ck_assert_str_eq(world_done(w), i == 0 ? "save 1\npurge \n" : "purge \n");
    }
    struct fault fault = {0};
    fault_set(&fault, "X", "x");
    struct invocation failed = {.phase = PHASE_ERROR, .failed = PHASE_EVENT, .fault = &fault};
    ck_assert_int_eq(world_run(w, &failed), RUN_DONE);
    ck_assert_str_eq(world_done(w), "purge \n");
    fault_free(&fault);
    end();
}
END_TEST

START_TEST(borders)
{
    begin("M.state_version = 3\n"
          "function M.migrate(s, from) if s.bad then error('cannot') end\n"
          "  return { n = s.n, from = from } end\n"
          "function M.decode_state(s) if s.n < 0 then error('negative') end s.seen = true return s "
          "end\n"
          "function M.decode_connection(c) if c.odd then error('odd') end return { got = c } end\n"
          "function M.encode_broadcast(m) if m.secret then error { message = 'secret' } end\n"
          "  return { v = 1, m = m } end\n"
          "function M.rpc.get(ctx) return ctx:recall() end\n"
          "function M.rpc.put(ctx, s) ctx:save(s) end\n"
          "function M.rpc.say(ctx, m) ctx:broadcast(m) end\n"
          "function M.rpc.pub(ctx, m) ctx:publish(m) end\n"
          "function M.rpc.tell(ctx, m) ctx.connections:all()[1]:send(m) end\n"
          "function M.rpc.look(ctx, m) return ctx.connections:all()[1].state end");
    w->has_state = true;
    w->state_version = 1;
    strbuf_put_text(&w->state, "{\"n\":5}");
    ck_assert_str_eq(world_answer(w, "get", ""), "{\"from\":1,\"n\":5,\"seen\":true}");
    ck_assert_str_eq(world_done(w), "save {\"from\":1,\"n\":5}\n");
    ck_assert_str_eq(world_answer(w, "get", ""), "{\"from\":1,\"n\":5,\"seen\":true}");
    ck_assert_str_eq(world_done(w), "");
    ck_assert_str_eq(world_answer(w, "put", "{\"n\":-1}"), "RoomError: room.lua:7: negative");
    strbuf_reset(&w->state);
    strbuf_put_text(&w->state, "{\"n\":-1}");
    ck_assert_str_eq(world_answer(w, "get", ""), "RoomError: room.lua:7: negative");
    world_answer(w, "put", "{\"n\":1,\"bad\":true}");
    w->state_version = 0;
    ck_assert_str_eq(world_answer(w, "get", ""), "RoomError: room.lua:5: cannot");
    world_done(w);
    struct connection *c = world_join(w, "s1", "ada", "", "{\"k\":1}");
    world_answer(w, "say", "{}");
    world_answer(w, "pub", "{}");
    world_answer(w, "tell", "{}");
    ck_assert_str_eq(world_done(w), "broadcast {\"m\":{},\"v\":1}\npublish {\"m\":{},\"v\":1}\n"
                                    "send s1 {\"m\":{},\"v\":1}\n");
    ck_assert_str_eq(world_answer(w, "say", "{\"secret\":1}"), "BroadcastError: secret");
    ck_assert_str_eq(world_answer(w, "tell", "{\"secret\":1}"), "SendError: secret");
    ck_assert_str_eq(world_answer(w, "look", ""), "{\"got\":{\"k\":1}}");
    strbuf_reset(&c->state);
    strbuf_put_text(&c->state, "{\"odd\":1}");
    ck_assert_str_eq(world_answer(w, "look", ""), "RoomError: room.lua:8: odd");
    end();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lua_ctx");
    TCase *t = tcase_create("ctx");
    tcase_add_test(t, state);
    tcase_add_test(t, events);
    tcase_add_test(t, connect_and_close);
    tcase_add_test(t, recipients);
    tcase_add_test(t, connections);
    tcase_add_test(t, alarms_and_fields);
    tcase_add_test(t, methods);
    tcase_add_test(t, waiting);
    tcase_add_test(t, gone_while_waiting);
    tcase_add_test(t, nothing_kept);
    tcase_add_test(t, purging);
    tcase_add_test(t, borders);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
