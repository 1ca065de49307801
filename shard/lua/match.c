/* CORE. Lua's patterns (manual, 6.4.1), with a count of steps: a pattern of a few repetitions can
 * take hours on a short text, inside C, where no hook looks. Every step here is charged like an
 * instruction, so that a match ends with the segment's budget.
 *
 * A backtracking matcher: here() answers where the pattern's rest, from `p`, ends if it matches the
 * text at `s`; NULL if it does not. */
#include "shard/lua/host.h"

#include <ctype.h>
#include <stdio.h>

#define CAPTURES_MAX 32
#define DEPTH_MAX 180     /* recursion of here() */
#define STEPS_AT_ONCE 512 /* charged together */
#define ESCAPE '%'

enum { CAPTURE_OPEN = -1, CAPTURE_POSITION = -2 };

struct matcher {
    lua_State *L;
    const char *text, *text_end, *pattern_end;
    unsigned depth, steps;
    int level;
    struct {
        const char *at;
        ptrdiff_t size;
    } captures[CAPTURES_MAX];
};

static const char *here(struct matcher *m, const char *s, const char *p);

static void step(struct matcher *m)
{
    if (++m->steps >= STEPS_AT_ONCE) {
        m->steps = 0;
        budget_charge(m->L, STEPS_AT_ONCE * 2);
    }
}

/* ---- single characters ---- */

/* Behind the class that begins at p. */
static const char *class_end(struct matcher *m, const char *p)
{
    if (*p++ == ESCAPE) {
        if (p == m->pattern_end)
            luaL_error(m->L, "malformed pattern (ends with '%%')");
        return p + 1;
    }
    if (p[-1] != '[')
        return p;
    if (p < m->pattern_end && *p == '^')
        p++;
    do { /* a ']' that comes first means itself */
        if (p == m->pattern_end)
            luaL_error(m->L, "malformed pattern (missing ']')");
        if (*p++ == ESCAPE) {
            if (p == m->pattern_end)
                luaL_error(m->L, "malformed pattern (missing ']')");
            p++;
        }
    } while (p == m->pattern_end || *p != ']');
    return p + 1;
}

static bool letter_matches(int c, int letter)
{
    bool is;
    switch (tolower(letter)) {
    case 'a':
        is = isalpha(c);
        break;
    case 'c':
        is = iscntrl(c);
        break;
    case 'd':
        is = isdigit(c);
        break;
    case 'g':
        is = isgraph(c);
        break;
    case 'l':
        is = islower(c);
        break;
    case 'p':
        is = ispunct(c);
        break;
    case 's':
        is = isspace(c);
        break;
    case 'u':
        is = isupper(c);
        break;
    case 'w':
        is = isalnum(c);
        break;
    case 'x':
        is = isxdigit(c);
        break;
    default:
        return letter == c;
    }
    return isupper(letter) ? !is : is;
}

/* The set from p, its '[', to `last`, its ']'. */
static bool set_matches(int c, const char *p, const char *last)
{
    bool wanted = true;
    if (*++p == '^') {
        wanted = false;
        p++;
    }
    while (p < last) {
        if (*p == ESCAPE) {
            if (letter_matches(c, (unsigned char)p[1]))
                return wanted;
            p += 2;
        } else if (p + 2 < last && p[1] == '-') {
            if ((unsigned char)p[0] <= c && c <= (unsigned char)p[2])
                return wanted;
            p += 3;
        } else {
            if ((unsigned char)*p == c)
                return wanted;
            p++;
        }
    }
    return !wanted;
}

static bool one_matches(struct matcher *m, const char *s, const char *p, const char *end)
{
    step(m);
    if (s >= m->text_end)
        return false;
    int c = (unsigned char)*s;
    switch (*p) {
    case '.':
        return true;
    case ESCAPE:
        return letter_matches(c, (unsigned char)p[1]);
    case '[':
        return set_matches(c, p, end - 1);
    default:
        return (unsigned char)*p == c;
    }
}

/* ---- repetitions ---- */

static const char *most(struct matcher *m, const char *s, const char *p, const char *end)
{
    ptrdiff_t n = 0;
    while (one_matches(m, s + n, p, end))
        n++;
    for (; n >= 0; n--) {
        const char *result = here(m, s + n, end + 1);
        if (result)
            return result;
    }
    return NULL;
}

static const char *fewest(struct matcher *m, const char *s, const char *p, const char *end)
{
    for (;;) {
        const char *result = here(m, s, end + 1);
        if (result)
            return result;
        if (!one_matches(m, s, p, end))
            return NULL;
        s++;
    }
}

/* ---- captures ---- */

static const char *capture_begin(struct matcher *m, const char *s, const char *p, ptrdiff_t size)
{
    if (m->level >= CAPTURES_MAX)
        luaL_error(m->L, "too many captures");
    m->captures[m->level].at = s;
    m->captures[m->level].size = size;
    m->level++;
    const char *result = here(m, s, p);
    if (!result)
        m->level--;
    return result;
}

static const char *capture_end(struct matcher *m, const char *s, const char *p)
{
    int i = m->level - 1;
    while (i >= 0 && m->captures[i].size != CAPTURE_OPEN)
        i--;
    if (i < 0)
        luaL_error(m->L, "invalid pattern capture");
    m->captures[i].size = s - m->captures[i].at;
    const char *result = here(m, s, p);
    if (!result)
        m->captures[i].size = CAPTURE_OPEN;
    return result;
}

static const char *capture_again(struct matcher *m, const char *s, int digit)
{
    int i = digit - '1';
    if (i < 0 || i >= m->level || m->captures[i].size == CAPTURE_OPEN)
        luaL_error(m->L, "invalid capture index %%%d", i + 1);
    ptrdiff_t n = m->captures[i].size;
    if (n == CAPTURE_POSITION || m->text_end - s < n)
        return NULL;
    budget_charge(m->L, (size_t)n / 16);
    return n == 0 || memcmp(m->captures[i].at, s, (size_t)n) == 0 ? s + n : NULL;
}

/* ---- %b and %f ---- */

static const char *balanced(struct matcher *m, const char *s, const char *p)
{
    if (m->pattern_end - p < 2)
        luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
    if (s >= m->text_end || *s != p[0])
        return NULL;
    size_t open = 1;
    while (++s < m->text_end) {
        step(m);
        if (*s == p[1]) {
            if (--open == 0)
                return s + 1;
        } else if (*s == p[0]) {
            open++;
        }
    }
    return NULL;
}

/* p stands behind the 'f'; its set is left out of *p if the frontier is here. */
static bool frontier(struct matcher *m, const char *s, const char **p)
{
    if (*p == m->pattern_end || **p != '[')
        luaL_error(m->L, "missing '[' after '%%f' in pattern");
    const char *end = class_end(m, *p);
    int before = s == m->text ? 0 : (unsigned char)s[-1];
    int now = s == m->text_end ? 0 : (unsigned char)*s;
    bool is = !set_matches(before, *p, end - 1) && set_matches(now, *p, end - 1);
    *p = end;
    return is;
}

/* ---- the whole ---- */

/* One class with what follows it. True: go on with *s and *p; false: *result is the answer. */
static bool single(struct matcher *m, const char **s, const char **p, const char **result)
{
    const char *end = class_end(m, *p);
    char suffix = end < m->pattern_end ? *end : '\0';
    switch (suffix) {
    case '*':
        *result = most(m, *s, *p, end);
        return false;
    case '+':
        *result = one_matches(m, *s, *p, end) ? most(m, *s + 1, *p, end) : NULL;
        return false;
    case '-':
        *result = fewest(m, *s, *p, end);
        return false;
    case '?':
        if (one_matches(m, *s, *p, end) && (*result = here(m, *s + 1, end + 1)) != NULL)
            return false;
        *p = end + 1;
        return true;
    default:
        *result = NULL;
        if (!one_matches(m, *s, *p, end))
            return false;
        ++*s;
        *p = end;
        return true;
    }
}

/* The things that only begin with '%'. True: done, go on or (with *s NULL) fail. */
static bool escaped(struct matcher *m, const char **s, const char **p)
{
    const char *at = *p + 1;
    if (at == m->pattern_end)
        return false;
    if (*at == 'b') {
        *s = balanced(m, *s, at + 1);
        *p = at + 3;
        return true;
    }
    if (*at == 'f') {
        at++;
        if (!frontier(m, *s, &at))
            *s = NULL;
        *p = at;
        return true;
    }
    if (*at < '0' || *at > '9')
        return false;
    *s = capture_again(m, *s, *at);
    *p = at + 1;
    return true;
}

static const char *here(struct matcher *m, const char *s, const char *p)
{
    if (++m->depth > DEPTH_MAX)
        luaL_error(m->L, "pattern too complex");
    const char *result = NULL;
    for (;;) {
        step(m);
        if (!s)
            break;
        if (p == m->pattern_end) {
            result = s;
            break;
        }
        if (*p == '(') {
            bool position = p + 1 < m->pattern_end && p[1] == ')';
            result =
                capture_begin(m, s, p + 1 + position, position ? CAPTURE_POSITION : CAPTURE_OPEN);
            break;
        }
        if (*p == ')') {
            result = capture_end(m, s, p + 1);
            break;
        }
        if (*p == '$' && p + 1 == m->pattern_end) {
            result = s == m->text_end ? s : NULL;
            break;
        }
        if (*p == ESCAPE && escaped(m, &s, &p))
            continue;
        if (!single(m, &s, &p, &result))
            break;
    }
    m->depth--;
    return result;
}

/* ---- results ---- */

static void capture_push(struct matcher *m, int i, const char *s, const char *end)
{
    if (i >= m->level) {
        if (i != 0)
            luaL_error(m->L, "invalid capture index %%%d", i + 1);
        lua_pushlstring(m->L, s, (size_t)(end - s));
        return;
    }
    ptrdiff_t size = m->captures[i].size;
    if (size == CAPTURE_OPEN)
        luaL_error(m->L, "unfinished capture");
    if (size == CAPTURE_POSITION)
        lua_pushinteger(m->L, m->captures[i].at - m->text + 1);
    else
        lua_pushlstring(m->L, m->captures[i].at, (size_t)size);
}

/* All captures; without any, the match if s is given. */
static int captures_push(struct matcher *m, const char *s, const char *end)
{
    int n = m->level == 0 && s ? 1 : m->level;
    luaL_checkstack(m->L, n, "too many captures");
    for (int i = 0; i < n; i++)
        capture_push(m, i, s, end);
    return n;
}

static struct matcher matcher_of(lua_State *L, struct slice text, struct slice pattern)
{
    struct matcher m = {.L = L};
    m.text = (const char *)text.data;
    m.text_end = m.text + text.size;
    m.pattern_end = (const char *)pattern.data + pattern.size;
    return m;
}

static const char *match_at(struct matcher *m, const char *s, const char *p)
{
    m->level = 0;
    m->depth = 0;
    return here(m, s, p);
}

static struct slice text_arg(lua_State *L, int index)
{
    struct slice s;
    s.data = (const uint8_t *)luaL_checklstring(L, index, &s.size);
    return s;
}

static int find_plain(lua_State *L, struct slice text, struct slice pattern, size_t from)
{
    budget_charge(L, text.size / 8);
    const uint8_t *at = pattern.size == 0
                            ? text.data + from
                            : (const uint8_t *)memmem(text.data + from, text.size - from,
                                                      pattern.data, pattern.size);
    if (!at) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, at - text.data + 1);
    lua_pushinteger(L, at - text.data + (lua_Integer)pattern.size);
    return 2;
}

/* Nothing in it means anything but itself. */
static bool is_plain(struct slice pattern)
{
    static const char magic[] = {'^', '$', '*', '+', '?', '.', '(', '[', '%', '-'};
    for (size_t i = 0; i < pattern.size; i++) {
        if (memchr(magic, pattern.data[i], sizeof magic))
            return false;
    }
    return true;
}

static int find(lua_State *L, bool is_find)
{
    struct slice text = text_arg(L, 1), pattern = text_arg(L, 2);
    lua_Integer init = luaL_optinteger(L, 3, 1);
    if (init < 0)
        init = -init > (lua_Integer)text.size ? 1 : (lua_Integer)text.size + init + 1;
    size_t from = init > 0 ? (size_t)init - 1 : 0;
    if (from > text.size) {
        lua_pushnil(L);
        return 1;
    }
    if (is_find && (lua_toboolean(L, 4) || is_plain(pattern)))
        return find_plain(L, text, pattern, from);
    const char *p = (const char *)pattern.data;
    bool anchored = pattern.size > 0 && *p == '^';
    struct matcher m = matcher_of(L, text, pattern);
    for (const char *s = m.text + from; s <= m.text_end; s++) {
        const char *end = match_at(&m, s, p + anchored);
        if (end && is_find) {
            lua_pushinteger(L, s - m.text + 1);
            lua_pushinteger(L, end - m.text);
            return 2 + captures_push(&m, NULL, NULL);
        }
        if (end)
            return captures_push(&m, s, end);
        if (anchored)
            break;
    }
    lua_pushnil(L);
    return 1;
}

int match_find(lua_State *L)
{
    return find(L, true);
}

int match_match(lua_State *L)
{
    return find(L, false);
}

/* Upvalues: text, pattern, where to go on, where the last match ended (-1: nowhere). */
static int gmatch_next(lua_State *L)
{
    struct slice text = text_arg(L, lua_upvalueindex(1));
    struct slice pattern = text_arg(L, lua_upvalueindex(2));
    struct matcher m = matcher_of(L, text, pattern);
    lua_Integer from = lua_tointeger(L, lua_upvalueindex(3));
    lua_Integer last = lua_tointeger(L, lua_upvalueindex(4));
    for (const char *s = m.text + from; s <= m.text_end; s++) {
        const char *end = match_at(&m, s, (const char *)pattern.data);
        if (!end || end - m.text == last)
            continue;
        lua_pushinteger(L, end - m.text);
        lua_pushvalue(L, -1);
        lua_replace(L, lua_upvalueindex(3));
        lua_replace(L, lua_upvalueindex(4));
        return captures_push(&m, s, end);
    }
    return 0;
}

int match_gmatch(lua_State *L)
{
    struct slice text = text_arg(L, 1);
    text_arg(L, 2);
    lua_Integer init = luaL_optinteger(L, 3, 1);
    if (init < 0)
        init = -init > (lua_Integer)text.size ? 1 : (lua_Integer)text.size + init + 1;
    lua_Integer from = init > 0 ? init - 1 : 0;
    if (from > (lua_Integer)text.size)
        from = (lua_Integer)text.size + 1;
    lua_settop(L, 2);
    lua_pushinteger(L, from);
    lua_pushinteger(L, -1);
    lua_pushcclosure(L, gmatch_next, 4);
    return 1;
}

/* ---- gsub ---- */

static void replacement_add(struct matcher *m, luaL_Buffer *out, const char *s, const char *end)
{
    lua_State *L = m->L;
    size_t n;
    const char *r = lua_tolstring(L, 3, &n), *r_end = r + n;
    for (; r < r_end; r++) {
        step(m);
        if (*r != ESCAPE) {
            luaL_addchar(out, *r);
            continue;
        }
        r++;
        if (r < r_end && *r == ESCAPE) {
            luaL_addchar(out, *r);
        } else if (r < r_end && *r == '0') {
            luaL_addlstring(out, s, (size_t)(end - s));
        } else if (r < r_end && *r >= '1' && *r <= '9') {
            capture_push(m, *r - '1', s, end);
            luaL_tolstring(L, -1, NULL);
            lua_remove(L, -2);
            luaL_addvalue(out);
        } else {
            luaL_error(L, "invalid use of '%%' in replacement string");
        }
    }
}

/* Returns whether the text changed there. */
static bool value_add(struct matcher *m, luaL_Buffer *out, const char *s, const char *end, int type)
{
    lua_State *L = m->L;
    if (type == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        int n = captures_push(m, s, end);
        lua_call(L, n, 1);
    } else if (type == LUA_TTABLE) {
        capture_push(m, 0, s, end);
        lua_gettable(L, 3);
    } else {
        replacement_add(m, out, s, end);
        return true;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        luaL_addlstring(out, s, (size_t)(end - s));
        return false;
    }
    if (!lua_isstring(L, -1))
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    luaL_addvalue(out);
    return true;
}

int match_gsub(lua_State *L)
{
    struct slice text = text_arg(L, 1), pattern = text_arg(L, 2);
    int type = lua_type(L, 3);
    luaL_argexpected(L,
                     type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION ||
                         type == LUA_TTABLE,
                     3, "string/function/table");
    lua_Integer most_often = luaL_optinteger(L, 4, (lua_Integer)text.size + 1);
    const char *p = (const char *)pattern.data;
    bool anchored = pattern.size > 0 && *p == '^';
    struct matcher m = matcher_of(L, text, pattern);
    const char *s = m.text, *last = NULL;
    lua_Integer n = 0;
    luaL_Buffer out;
    lua_settop(L, 4);
    if (type == LUA_TNUMBER)
        lua_tostring(L, 3);
    luaL_buffinit(L, &out);
    while (n < most_often) {
        const char *end = match_at(&m, s, p + anchored);
        if (end && end != last) {
            n++;
            value_add(&m, &out, s, end, type);
            s = last = end;
        } else if (s < m.text_end) {
            luaL_addchar(&out, *s++);
        } else {
            break;
        }
        if (anchored)
            break;
    }
    luaL_addlstring(&out, s, (size_t)(m.text_end - s));
    luaL_pushresult(&out);
    lua_pushinteger(L, n);
    return 2;
}
