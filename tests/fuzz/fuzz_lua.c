/* CORE. Room files made of the input: either its bytes as they are, or one snippet per byte, chosen
 * for trouble (loops, coroutines in each other, errors in handlers of errors, bombs, patterns,
 * closers). The code runs as identify, within small budgets. Nothing may crash, hang or leak; the
 * state answers a second time; and it gives all its memory back. */
#include "shard/lua/lua_handler.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char head[] = "#!room name=fuzz api=1\nlocal room = require 'room'\nlocal M = {}\n"
                           "local x, y, z, t, s, f, co = 1, 2.5, 0, {}, 'abc', print, nil\n"
                           "function M.identify(req)\n";
static const char tail[] = "\nend\nreturn M\n";

/* Statements. */
static const char *const snippets[] = {
    "x = x + 1 ",
    "y = y * x ",
    "s = s .. s ",
    "s = s:rep(3) ",
    "s = ('x'):rep(x * 1000) ",
    "s = s:sub(1, 40) ",
    "t = {} ",
    "t[#t + 1] = t ",
    "t[x] = s ",
    "t.k = { s, x } ",
    "t = setmetatable({}, { __index = f, __newindex = f, __call = f, __len = f }) ",
    "t = setmetatable({}, { __close = f, __tostring = f, __eq = f, __lt = f, __concat = f }) ",
    "setmetatable(t, { __gc = f }) ",
    "setmetatable(t, t) ",
    "f = function(...) f = print t = { ... } end ",
    "f = function(...) return ... end ",
    "f = function() error(t) end ",
    "f = function() error('e') end ",
    "f = function() coroutine.yield(x) end ",
    "f = function() return f() end ",
    "f = function() return 1 + f() end ",
    "f = function() while true do end end ",
    "f() ",
    "pcall(f, t) ",
    "xpcall(f, f, x) ",
    "pcall(pcall, f) ",
    "pcall(xpcall, f, f) ",
    "co = coroutine.create(f) ",
    "co = coroutine.running() ",
    "f = coroutine.wrap(f) ",
    "x = select(2, coroutine.resume(co, x)) and 1 or 2 ",
    "pcall(coroutine.resume, co) ",
    "pcall(coroutine.close, co) ",
    "s = coroutine.status(co) ",
    "pcall(table.sort, { 3, 1, 2, x }, f) ",
    "pcall(table.concat, t) ",
    "pcall(table.move, t, 1, x, 2) ",
    "pcall(table.insert, t, 1, s) ",
    "pcall(table.unpack, t, 1, x * 100) ",
    "s = tostring(t) ",
    "pcall(string.format, '%s%d%q', t, x, s) ",
    "pcall(string.gsub, s, '.', f) ",
    "pcall(string.gsub, s, '(a*)(b*)', '%2%1') ",
    "pcall(string.find, s, ('a*'):rep(20) .. 'z') ",
    "pcall(string.match, s, '%f[%w]%b()$') ",
    "for w in s:gmatch('%w-') do x = #w end ",
    "s = room.json.encode({ s, x, y }) ",
    "pcall(room.json.encode, t) ",
    "t = select(2, pcall(room.json.decode, s)) ",
    "t = room.json.array {} ",
    "pcall(room.error, 'E', { data = t }) ",
    "pcall(room.refuse, 403, s) ",
    "room.refuse(403, s) ",
    "error(t) ",
    "do return { id = s, state = t } end ",
    "do return t end ",
    "local c <close> = t ",
    "do goto out ::out:: end ",
    "repeat until pcall(f) ",
    "x = math.random(x) ",
    "s = utf8.char(x) ",
    "pcall(utf8.codepoint, s, 1, -1) ",
    "x = x << 60 ",
    "y = y // z ",
    "leak = 1 ",
    "string.x = 1 ",
};

/* What holds the statements that follow it, until a byte closes it or the text ends. */
static const struct {
    const char *open, *close;
} blocks[] = {
    {"do ", "end "},
    {"for i = 1, 9 do ", "end "},
    {"while x < 9 do x = x + 1 ", "end "},
    {"if x > 1 then ", "end "},
    {"f = function(...) ", "end "},
    {"pcall(function() ", "end) "},
    {"xpcall(f, function() ", "end) "},
    {"coroutine.wrap(function() ", "end)() "},
    {"co = coroutine.create(function() ", "end) "},
    {"table.sort({ 3, 1, 2 }, function() ", "end) "},
    {"s:gsub('.', function() ", "end) "},
    {"local c <close> = setmetatable({}, { __close = function() ", "end }) "},
    {"t = setmetatable({}, { __index = function() ", "end }) "},
};
#define SNIPPETS (sizeof snippets / sizeof *snippets)
#define BLOCKS (sizeof blocks / sizeof *blocks)
#define DEPTH_MAX 20

static void text_make(struct strbuf *text, const uint8_t *data, size_t size)
{
    const char *open[DEPTH_MAX];
    size_t depth = 0;
    strbuf_put_text(text, head);
    for (size_t i = 0; i < size; i++) {
        size_t n = data[i] % (SNIPPETS + BLOCKS + BLOCKS);
        if (n < SNIPPETS) {
            strbuf_put_text(text, snippets[n]);
        } else if (n < SNIPPETS + BLOCKS && depth < DEPTH_MAX) {
            strbuf_put_text(text, blocks[n - SNIPPETS].open);
            open[depth++] = blocks[n - SNIPPETS].close;
        } else if (n >= SNIPPETS + BLOCKS && depth > 0) {
            strbuf_put_text(text, open[--depth]);
        }
    }
    while (depth > 0)
        strbuf_put_text(text, open[--depth]);
    strbuf_put_text(text, tail);
}

static void ask(struct handler *h)
{
    struct persona who;
    struct fault fault = {0};
    struct slice request = slice_text("{\"query\":{\"a\":[1,2.5,null,\"x\"]},\"claims\":null}");
    (void)h->vtable->identify(h, request, &who, &fault);
    fault_free(&fault);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 2000)
        return 0;
    struct strbuf text = {0}, why = {0};
    if (data[0] == '#')
        strbuf_put(&text, data, size);
    else
        text_make(&text, data, size);
    struct lua_options options = {.instructions = 20000, .memory_bytes = 2 << 20};
    struct handler *h;
    if (lua_handler_create(&h, "fuzz.lua", strbuf_slice(&text), &options, &why) == ERR_OK) {
        ask(h);
        ask(h);
        h->vtable->destroy(h);
    } else {
        STOA_ASSERT(why.size > 0);
    }
    strbuf_free(&text);
    strbuf_free(&why);
    return 0;
}
