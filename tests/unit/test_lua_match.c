/* The host's patterns against Lua's own: random patterns on random texts give the same finds,
 * captures, replacements and errors. Every case is named by its number. */
#include "lua_world.h"

#include "common/json.h"
#include "common/rng.h"

#include <check.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

#define CASES 20000

/* One text in both: what string.find, match, gmatch and gsub give. */
static const char show[] =
    "local function show(text, pattern, replacement, init)\n"
    "  local out = {}\n"
    "  local function put(ok, ...)\n"
    "    out[#out + 1] = tostring(ok)\n"
    "    for i = 1, select('#', ...) do\n"
    "      local v = tostring((select(i, ...)))\n"
    "      out[#out + 1] = ok and v or v:gsub('^[^:]*:%d+: ', '')\n"
    "    end\n"
    "  end\n"
    "  put(pcall(function() return text:find(pattern, init) end))\n"
    "  put(pcall(function() return text:match(pattern, init) end))\n"
    "  put(pcall(function() return text:gsub(pattern, replacement) end))\n"
    "  put(pcall(function() return text:gsub(pattern, function(a) return a and '<' .. a .. '>' "
    "end,\n"
    "    3) end))\n"
    "  put(pcall(function() local t = {} for a, b in text:gmatch(pattern) do\n"
    "    t[#t + 1] = tostring(a) .. '/' .. tostring(b) end return table.concat(t, ' ') end))\n"
    "  return table.concat(out, '|')\n"
    "end\n";

static void random_text(struct rng *rng, const char *const *words, size_t n, unsigned most,
                        struct strbuf *out)
{
    strbuf_reset(out);
    for (uint64_t i = rng_below(rng, most + 1); i > 0; i--)
        strbuf_put_text(out, words[rng_below(rng, n)]);
}

static lua_State *stock_create(void)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    struct strbuf text = {0};
    strbuf_printf(&text, "%s return show", show);
    ck_assert_int_eq(luaL_dostring(L, strbuf_cstr(&text)), LUA_OK);
    strbuf_free(&text);
    return L;
}

START_TEST(as_lua_does)
{
    static const char *const letters[] = {"a", "b", "ab", "1", " ", "(", ")", "-", "]"};
    static const char *const pieces[] = {
        "a",    "b",     ".",     "%a",   "%d",   "%s",     "%w",     "%W", "%p", "[ab]",
        "[^a]", "[a-b]", "[]]",   "[%d]", "*",    "+",      "-",      "?",  "(",  ")",
        "()",   "(a)",   "(.-)",  "%1",   "%b()", "%f[%w]", "%f[%W]", "^",  "$",  "%",
        "[",    "%2",    "(%w*)", "%%",   "[%]]", "[a-",    "1"};
    static const char *const replacements[] = {"x", "%0", "%1", "%%", "%2", "<%0>", "%"};
    struct rng rng;
    rng_seed(&rng, 20240607);
    lua_State *L = stock_create();
    struct strbuf body = {0}, text = {0}, pattern = {0}, replacement = {0}, input = {0};
    strbuf_printf(&body,
                  "#!room name=test api=1\n%s return { rpc = { f = function(ctx, i) "
                  "return show(i[1], i[2], i[3], i[4]) end } }",
                  show);
    struct handler *h = world_load(strbuf_cstr(&body), 0, 0);
    struct context *w = world_create(h, "a");
    for (int i = 0; i < CASES; i++) {
        random_text(&rng, letters, sizeof letters / sizeof *letters, 8, &text);
        random_text(&rng, pieces, sizeof pieces / sizeof *pieces, 6, &pattern);
        random_text(&rng, replacements, sizeof replacements / sizeof *replacements, 2,
                    &replacement);
        int init = (int)rng_below(&rng, 12) - 4;
        lua_settop(L, 1);
        lua_pushvalue(L, 1);
        lua_pushstring(L, strbuf_cstr(&text));
        lua_pushstring(L, strbuf_cstr(&pattern));
        lua_pushstring(L, strbuf_cstr(&replacement));
        lua_pushinteger(L, init);
        ck_assert_int_eq(lua_pcall(L, 4, 1, 0), LUA_OK);
        strbuf_reset(&input);
        strbuf_put_byte(&input, '[');
        json_quote(&input, strbuf_slice(&text));
        strbuf_put_byte(&input, ',');
        json_quote(&input, strbuf_slice(&pattern));
        strbuf_put_byte(&input, ',');
        json_quote(&input, strbuf_slice(&replacement));
        strbuf_printf(&input, ",%d]", init);
        const char *answer = world_answer(w, "f", strbuf_cstr(&input));
        strbuf_reset(&body);
        json_quote(&body, slice_text(lua_tostring(L, -1)));
        ck_assert_msg(strcmp(answer, strbuf_cstr(&body)) == 0, "case %d: %s\n  gave %s\n  not  %s",
                      i, strbuf_cstr(&input), answer, strbuf_cstr(&body));
    }
    world_destroy(w);
    h->vtable->destroy(h);
    lua_close(L);
    strbuf_free(&body);
    strbuf_free(&text);
    strbuf_free(&pattern);
    strbuf_free(&replacement);
    strbuf_free(&input);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lua_match");
    TCase *t = tcase_create("match");
    tcase_add_test(t, as_lua_does);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
