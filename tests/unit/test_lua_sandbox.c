/* The sandbox: what rooms cannot reach, and what stops a room that does not stop: endless loops in
 * every hiding place, memory bombs, patterns and libraries that work in C. After each, the state is
 * whole and the next run is served. */
#include "lua_world.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

START_TEST(not_there)
{
    static const char *const names[] = {
        "io",       "os",     "package",        "debug", "load",       "dofile",
        "loadfile", "rawset", "collectgarbage", "_G",    "loadstring", "warn"};
    char body[128], wanted[160];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(body, sizeof body, "return %s ~= nil", names[i]);
        snprintf(wanted, sizeof wanted, "RoomExecutionError: room.lua:3: undefined variable '%s'",
                 names[i]);
        ck_assert_str_eq(world_eval(body), wanted);
    }
    ck_assert_str_eq(world_eval("return string.dump == nil and math.randomseed == nil"), "true");
}
END_TEST

START_TEST(refused)
{
    static const struct {
        const char *body, *answer;
    } table[] = {
        {"leak = 1",
         "room.lua:3: accidental global 'leak'; write local, or ctx.mem for what a room "
         "keeps"},
        {"_ENV.leak = 1",
         "room.lua:3: accidental global 'leak'; write local, or ctx.mem for what a "
         "room keeps"},
        {"string.rep = nil", "room.lua:3: this table is read-only (field 'rep')"},
        {"room.null = 1", "room.lua:3: this table is read-only (field 'null')"},
        {"room.json.encode = print", "room.lua:3: this table is read-only (field 'encode')"},
        {"ctx.mem = 1", "room.lua:3: field 'mem' cannot be set here"},
        {"setmetatable({}, { __gc = function() end })",
         "room.lua:3: rooms have no finalizers (__gc)"},
        {"setmetatable(string, {})", "room.lua:3: cannot change a protected metatable"},
        {"getmetatable('').__index = 1", "room.lua:3: attempt to index a boolean value"},
        {"setmetatable(_ENV, {})", "room.lua:3: cannot change a protected metatable"},
        {"require 'io'", "room.lua:3: require \"io\": there is only require \"room\""},
        {"('x'):rep(1e9)", "room.lua:3: string.rep would make more than 8388608 bytes"},
        {"ctx:nothing()", "room.lua:3: ctx has no field 'nothing'"},
        {"ctx.save({})", "room.lua:3: ctx is missing before the arguments: write ctx:method(...), "
                         "with a colon"},
        {"coroutine.yield(1)", "room.lua:3: attempt to yield from outside a coroutine"},
        {"local co = coroutine.running() error(select(2, coroutine.resume(co)), 0)",
         "cannot resume non-suspended coroutine"},
        {"error { tag = 'Mine' }", "the error is a table"},
        {"error()", "the error is a nil"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *answer = world_eval(table[i].body);
        ck_assert_msg(strstr(answer, table[i].answer), "%s\n  gave %s", table[i].body, answer);
    }
}
END_TEST

START_TEST(works)
{
    static const struct {
        const char *body, *answer;
    } table[] = {
        {"return pcall(error, 'x')", "false"},
        {"return select(2, pcall(error, 'x'))", "\"x\""},
        {"return select('#', pcall(function(...) return ... end, 1, 2, 3))", "4"},
        {"return select(2, xpcall(error, function(m) return m .. '!' end, 'x'))", "\"x!\""},
        {"return select(3, xpcall(function(a, b) return a, b end, print, 1, 2))", "2"},
        {"local f = coroutine.wrap(function(a) local b = coroutine.yield(a + 1) return b * 2 end) "
         "return { f(1), f(5) }",
         "[2,10]"},
        {"local co = coroutine.create(function() error('in') end) "
         "local ok, e = coroutine.resume(co) return { ok, e, coroutine.status(co) }",
         "[false,\"room.lua:3: in\",\"dead\"]"},
        {"local co = coroutine.create(function() coroutine.yield() end) coroutine.resume(co) "
         "local s = coroutine.status(co) return { s, coroutine.close(co), coroutine.status(co) }",
         "[\"suspended\",true,\"dead\"]"},
        {"local f = coroutine.wrap(function() error { a = 1 } end) "
         "return select(2, pcall(f)).a",
         "1"},
        {"local f = coroutine.wrap(function() error('x') end) return select(2, pcall(f))",
         "\"room.lua:3: x\""},
        {"local out for i = 1, 3 do local x <close> = setmetatable({}, "
         "{ __close = function() out = i end }) end return out",
         "3"},
        {"return ('%d %s'):format(5, 'a') .. ('ab'):rep(2, '-')", "\"5 aab-ab\""},
        {"local t = { 3, 1, 2 } table.sort(t) table.insert(t, 1, 0) table.remove(t) "
         "return table.concat(t, ',') .. #table.pack(table.unpack(t))",
         "\"0,1,23\""},
        {"local t = { 3, 1, 2 } table.sort(t, function(a, b) return a > b end) return t",
         "[3,2,1]"},
        {"return utf8.len('\xf0\x9f\x98\x80') + utf8.codepoint('a')", "98"},
        {"local n = math.random(5) return n >= 1 and n <= 5 and math.random() < 1", "true"},
        {"for i = 1, 100 do local n = math.random(-3, 3) assert(n >= -3 and n <= 3) end "
         "return #room.uuid()",
         "36"},
        {"return (room.uuid():find('^%x+%-%x+%-4%x%x%x%-[89ab]%x%x%x%-%x+$'))", "1"},
        {"return room.now_ms()", "1000000"},
        {"print('a', 1, nil, room.null) room.log('b')", "null"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_str_eq(world_eval(table[i].body), table[i].answer);
}
END_TEST

/* Our matcher and the manual's words. */
START_TEST(patterns)
{
    static const struct {
        const char *body, *answer;
    } table[] = {
        {"return { ('hello world'):find('o w') }", "[5,7]"},
        {"return { ('hello'):find('l', 1, true) }", "[3,3]"},
        {"return { ('a.b'):find('.', 2, true) }", "[2,2]"},
        {"return { ('abc'):find('', 10) }", "{}"},
        {"return { ('abc'):find('', 4) }", "[4,3]"},
        {"return { ('abc'):find('b', -2) }", "[2,2]"},
        {"return { ('key = value'):match('^(%w+)%s*=%s*(%w+)$') }", "[\"key\",\"value\"]"},
        {"return { ('  x '):match('^()%s*(.-)%s*()$') }", "[1,\"x\",5]"},
        {"return ('f(a(b)c)d'):match('%b()')", "\"(a(b)c)\""},
        {"return { ('THE (quick) fox'):find('%f[%a]%a+%f[%A]') }", "[1,3]"},
        {"return ('2024-01-02'):gsub('(%d+)-(%d+)-(%d+)', '%3/%2/%1')", "\"02/01/2024\""},
        {"return { ('abc'):gsub('%w', '%0%0') }", "[\"aabbcc\",3]"},
        {"return { ('abc'):gsub('', '-') }", "[\"-a-b-c-\",4]"},
        {"return ('hello world'):gsub('o', { o = '0' })", "\"hell0 w0rld\""},
        {"return ('abc'):gsub('b', function() return nil end)", "\"abc\""},
        {"return { ('aaa'):gsub('a', 'b', 2) }", "[\"bba\",2]"},
        {"return { ('aaa'):gsub('^a', 'b') }", "[\"baa\",1]"},
        {"local t = {} for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do t[k] = v end return t",
         "{\"a\":\"1\",\"b\":\"2\"}"},
        {"local n = 0 for w in ('one two'):gmatch('%a*') do n = n + 1 end return n", "2"},
        {"return ('x]y'):match('[]]') .. ('x]y'):match('[^]]')", "\"]x\""},
        {"return ('a-z'):match('[a%-]+') .. ('q'):match('[a-z]')", "\"a-q\""},
        {"return ('\"x\" \\'y\\''):match('([\"\\'])(.-)%1')", "\"\\\"\""},
        {"return ('ab12'):match('%a+%d-$') == 'ab12' and ('ab'):match('a?b?c?') == 'ab'", "true"},
        {"return ('x'):match('y') == nil and ('abc'):match('.-b') == 'ab'", "true"},
        {"return ('a\\0b'):match('%z') == nil and ('a\\0b'):find('\\0') == 2", "true"},
        {"return ('x'):find('[a')",
         "RoomExecutionError: room.lua:3: malformed pattern (missing ']')"},
        {"return ('x'):find('%')",
         "RoomExecutionError: room.lua:3: malformed pattern (ends with '%')"},
        {"return ('x'):find('(x')", "RoomExecutionError: room.lua:3: unfinished capture"},
        {"return ('x'):match('x)')", "RoomExecutionError: room.lua:3: invalid pattern capture"},
        {"return ('x'):find('%1')", "RoomExecutionError: room.lua:3: invalid capture index %1"},
        {"return ('x'):gsub('x', '%9')",
         "RoomExecutionError: room.lua:3: invalid capture index %9"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_str_eq(world_eval(table[i].body), table[i].answer);
}
END_TEST

static const char *const endless[] = {
    "while true do end",
    "pcall(function() while true do end end) return 'survived'",
    "while true do pcall(error) end",
    "while true do pcall(function() while true do end end) end",
    "xpcall(function() while true do end end, function() while true do end end)",
    "xpcall(error, function() while true do end end)",
    "coroutine.wrap(function() while true do end end)()",
    "local co = coroutine.create(function() while true do end end) "
    "coroutine.resume(co) return 'survived'",
    "while true do coroutine.wrap(function() pcall(function() while true do end end) end)() end",
    "table.sort({ 3, 2, 1 }, function() while true do end end)",
    "pcall(table.sort, { 3, 2, 1 }, function() pcall(function() while true do end end) end) "
    "return 'survived'",
    "table.sort({ 1, 2, 3 }, function() xpcall(function() while true do end end, "
    "function() while true do end end) end)",
    "table.sort({ 1, 2, 3 }, function() coroutine.wrap(function() while true do end end)() end)",
    "('x'):gsub('x', function() while true do end end)",
    "ctx:save(1) ctx:update(function() while true do end end)",
    "return tostring(setmetatable({}, { __tostring = function() while true do end end }))",
    "return setmetatable({}, { __index = function() while true do end end }).x",
    "local x <close> = setmetatable({}, { __close = function() while true do end end })",
    "local x <close> = setmetatable({}, { __close = function() while true do end end }) "
    "while true do end",
    "for _ in function() while true do end end do end",
    "goto a ::a:: goto a",
    "local function f() return f() end f()",
    "('a'):rep(3000):find(('a*'):rep(30) .. 'b')",
    "pcall(string.find, ('a'):rep(3000), ('a*'):rep(30) .. 'b') return 'survived'",
    "('a'):rep(30000):match(('.-'):rep(20) .. 'b')",
    "for _ in ('a'):rep(30000):gmatch(('a-'):rep(20) .. 'b') do end",
    "('a'):rep(30000):gsub(('a?'):rep(40) .. 'b', '')",
    "while true do ('x'):rep(8e6) end",
    "local s = ('x'):rep(4e6) while true do local _ = s .. 'y' end",
    "local s = ('x'):rep(8e6) while true do s:upper() end",
    "local s = ('x'):rep(8e6) while true do s:find('y', 1, true) end",
    "local s = ('x'):rep(8e6) while true do utf8.len(s) end",
    "local s = ('x'):rep(1e6) while true do room.json.encode(s) end",
    "local s = '[' .. ('1,'):rep(1e6) .. '1]' while true do room.json.decode(s) end",
    "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.concat(t) end",
    "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.insert(t, 1, 0) "
    "table.remove(t, 1) end",
    "local t = {} for i = 1, 1e5 do t[i] = -i end while true do table.sort(t) end",
    "table.move({}, 1, 1 << 40, 2)",
    "table.concat(setmetatable({}, { __len = function() return 1 << 40 end, __index = "
    "function() return '' end }))",
    "table.sort(setmetatable({}, { __len = function() return (1 << 31) - 2 end }), rawequal)",
    "local t = setmetatable({}, { __index = function(t, k) return k end }) "
    "while true do table.unpack(t, 1, 1e5) end",
    "while true do coroutine.wrap(function() for i = 1, 300 do end end)() end",
    "while true do print(('x'):rep(1000)) end",
};

static const char *const hungry[] = {
    "local t = {} while true do t[#t + 1] = {} end",
    "local s = 'x' while true do s = s .. s end",
    "pcall(function() local t = {} while true do t[#t + 1] = ('x'):rep(1e6) .. #t end end) "
    "return 'survived'",
    "xpcall(function() local t = {} while true do t[#t + 1] = ('x'):rep(1e6) .. #t end end, print) "
    "return 'survived'",
    "coroutine.wrap(function() local t = {} while true do t[#t + 1] = {} end end)()",
    "local t = {} for i = 1, 1e9 do t[i] = coroutine.create(function() end) end",
    "ctx.mem.hoard = {} while true do table.insert(ctx.mem.hoard, {}) end",
    "local t = {} for i = 1, 100 do t[i] = ('x'):rep(1e6) end return table.concat(t)",
    "return (('x'):rep(1e6):gsub('x', ('y'):rep(1000)))",
    "local t = {} for i = 1, 50 do t[i] = room.json.decode('[' .. ('{},'):rep(1e5) .. '1]') end",
};

/* Runs the body in a room beside another method, which must answer afterwards. */
static void stopped(const char *body, uint64_t instructions, const char *why)
{
    struct strbuf text = {0};
    strbuf_printf(&text,
                  "#!room name=test api=1\nlocal room = require \"room\"\n"
                  "return { rpc = { f = function(ctx, input) %s\nend,\n"
                  "g = function(ctx) return ctx.mem.hoard == nil and 'well' end } }\n",
                  body);
    struct handler *h = world_load(strbuf_cstr(&text), instructions, 24 << 20);
    strbuf_free(&text);
    struct context *w = world_create(h, "a"), *other = world_create(h, "b");
    for (int i = 0; i < 2; i++) {
        enum run_end end = world_call(w, "f", "");
        ck_assert_msg(end == RUN_KILLED, "%s\n  ended with %d: %s %.*s", body, end, w->fault.tag,
                      SLICE_FMT(w->fault.message));
        ck_assert_str_eq(w->fault.tag, "RoomExecutionError");
        ck_assert_msg(strstr(strbuf_cstr(&w->fault.message), why), "%s\n  gave %s", body,
                      strbuf_cstr(&w->fault.message));
        ck_assert_ptr_null(w->run);
        ck_assert_str_eq(world_answer(other, "g", ""), "\"well\"");
        ck_assert_str_eq(world_answer(w, "g", ""), "\"well\"");
    }
    world_destroy(w);
    world_destroy(other);
    h->vtable->destroy(h);
}

START_TEST(endless_loops)
{
    stopped(endless[_i], 3000000, "instructions at a stretch");
}
END_TEST

START_TEST(memory_bombs)
{
    stopped(hungry[_i], 100000000, "bytes of memory");
}
END_TEST

/* Recursion without end is an error like others: it may be caught. */
START_TEST(deep_recursion)
{
    static const char *const bodies[] = {
        "local function f() return 1 + f() end f()",
        "local function f() pcall(f) return error('x') end f()",
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(a, k) return a[k] end "
        "return t.x",
        "local function f() return coroutine.wrap(f)() end f()",
        "('x'):rep(1000):find(('('):rep(40))",
        "('x'):rep(1000):match(('x?'):rep(1000))",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct handler *h = world_body(bodies[i]);
        struct context *w = world_create(h, "a");
        enum run_end end = world_call(w, "f", "");
        ck_assert_msg(end == RUN_FAILED || end == RUN_KILLED, "%s: %d", bodies[i], end);
        world_destroy(w);
        h->vtable->destroy(h);
    }
    /* Each coroutine closes the one before it. */
    ck_assert_str_eq(
        world_eval("local before for i = 1, 1000 do local last = before before = "
                   "coroutine.create(function() local x <close> = setmetatable({}, { __close = "
                   "function() if last then assert(coroutine.close(last)) end end }) "
                   "coroutine.yield() end) coroutine.resume(before) end "
                   "return (coroutine.close(before))"),
        "false");
}
END_TEST

/* A clock of the shell's may stop a segment too. */
static bool overdue(void *arg)
{
    return ++*(int *)arg > 3;
}

START_TEST(overdue_segments)
{
    int asked = 0;
    struct lua_options options = {.overdue = overdue, .arg = &asked};
    struct handler *h;
    struct strbuf why = {0};
    ck_assert_int_eq(
        lua_handler_create(&h, "room.lua",
                           slice_text("#!room name=test api=1\nreturn { rpc = { f = function() "
                                      "while true do end end } }"),
                           &options, &why),
        ERR_OK);
    struct context *w = world_create(h, "a");
    ck_assert_int_eq(world_call(w, "f", ""), RUN_KILLED);
    ck_assert_int_eq(asked, 4);
    ck_assert_str_eq(strbuf_cstr(&w->fault.message), "stopped: too long at a stretch");
    world_destroy(w);
    h->vtable->destroy(h);
    strbuf_free(&why);
}
END_TEST

/* What runs leave behind is collected: a million of them fit a small state. */
START_TEST(nothing_stays)
{
    struct handler *h = world_body("local t = {} for i = 1, 10 do t[i] = { i } end "
                                   "ctx.mem.n = (ctx.mem.n or 0) + 1 return ctx.mem.n");
    struct context *w = world_create(h, "a");
    for (int i = 0; i < 200; i++)
        world_answer(w, "f", "");
    size_t before = lua_handler_memory_bytes(h);
    for (int i = 0; i < 20000; i++)
        world_answer(w, "f", "");
    ck_assert_uint_lt(lua_handler_memory_bytes(h), 2 * before + 100000);
    ck_assert_str_eq(world_answer(w, "f", ""), "20201");
    world_destroy(w);
    h->vtable->destroy(h);
}
END_TEST

/* Lua builds long texts outside of its own objects and frees them in a finalizer, which fails when
 * it is called with the C stack full: the text is lost to Lua. It comes back with the state. */
START_TEST(finalizers_that_fail)
{
    struct handler *h =
        world_body("if input then return 'well' end local x, t = 1 t = setmetatable({}, { __index "
                   "= function() pcall(table.unpack, t, 1, "
                   "x * 100) x = x + 1 pcall(function() local s = ('x'):rep(x * 1000) end) end }) "
                   "pcall(table.unpack, t, 1, 100)");
    struct context *w = world_create(h, "a");
    ck_assert_int_eq(world_call(w, "f", ""), RUN_KILLED);
    ck_assert_str_eq(world_answer(w, "f", "1"), "\"well\"");
    world_destroy(w);
    h->vtable->destroy(h); /* the leak detector looks */
}
END_TEST

static void count_renewal(void *arg, const char *file_name, size_t bytes)
{
    ck_assert_str_eq(file_name, "room.lua");
    ck_assert_uint_gt(bytes, 6 << 20);
    ++*(int *)arg;
}

/* What a file's own locals hoard is no room's: the state is made anew. */
START_TEST(hoards_of_the_file)
{
    static const char text[] =
        "#!room name=test api=1\nlocal kept = {}\nreturn { auto_response = { 'ping', 'pong' },\n"
        "identify = function() return { id = 'x' .. #kept } end,\n"
        "rpc = { hoard = function() while true do kept[#kept + 1] = ('x'):rep(10000) .. #kept end "
        "end,\n"
        "n = function(ctx) ctx.mem.n = (ctx.mem.n or 0) + 1 return ctx.mem.n end,\n"
        "kept = function() return #kept end,\n"
        "wait = function(ctx) ctx:sleep(10) return 'woke' end } }\n";
    int renewals = 0;
    struct lua_options options = {
        .memory_bytes = 8 << 20, .renewed = count_renewal, .arg = &renewals};
    struct handler *h;
    struct strbuf why = {0};
    struct persona who;
    struct fault fault = {0};
    ck_assert_int_eq(lua_handler_create(&h, "room.lua", slice_text(text), &options, &why), ERR_OK);
    struct context *w = world_create(h, "a"), *other = world_create(h, "b"),
                   *waits = world_create(h, "c"), *left = world_create(h, "d");
    const uint8_t *pong = h->traits.auto_response.data;
    for (int i = 1; i <= 3; i++) {
        ck_assert_str_eq(world_answer(other, "n", ""), "1");
        ck_assert_str_eq(world_answer(other, "n", ""), "2");
        ck_assert_int_eq(world_call(waits, "wait", ""), RUN_YIELDED);
        ck_assert_int_eq(world_call(left, "wait", ""), RUN_YIELDED);
        ck_assert_int_eq(world_call(w, "hoard", ""), RUN_KILLED);
        if (i == 2)
            ck_assert(h->vtable->identify(h, slice_text("{}"), &who, &fault) &&
                      slice_is(who.id, "x0"));
        ck_assert_str_eq(world_answer(w, "kept", ""), "0");
        ck_assert_str_eq(world_answer(w, "n", ""), "1");
        ck_assert_int_eq(renewals, i);
        ck_assert_int_eq(world_wake(waits, "", NULL), RUN_FAILED);
        ck_assert_str_eq(waits->fault.tag, "RoomExecutionError");
        ck_assert_ptr_null(waits->run);
        h->vtable->abandon(h, &left->run);
        ck_assert_int_eq(world_call(waits, "wait", ""), RUN_YIELDED);
        ck_assert_int_eq(world_wake(waits, "", NULL), RUN_DONE);
    }
    ck_assert_ptr_eq(h->traits.auto_response.data, pong); /* answers on their way point there */
    struct context *all[] = {w, other, waits, left};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        world_destroy(all[i]);
    h->vtable->destroy(h);
    strbuf_free(&why);
    fault_free(&fault);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lua_sandbox");
    TCase *t = tcase_create("sandbox");
    tcase_add_test(t, not_there);
    tcase_add_test(t, refused);
    tcase_add_test(t, works);
    tcase_add_test(t, patterns);
    tcase_add_loop_test(t, endless_loops, 0, sizeof endless / sizeof *endless);
    tcase_add_loop_test(t, memory_bombs, 0, sizeof hungry / sizeof *hungry);
    tcase_add_test(t, deep_recursion);
    tcase_add_test(t, overdue_segments);
    tcase_add_test(t, nothing_stays);
    tcase_add_test(t, finalizers_that_fail);
    tcase_add_test(t, hoards_of_the_file);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
