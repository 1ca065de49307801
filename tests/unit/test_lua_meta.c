/* docs/room.meta.lua, which editors read, and the host say the same: every function and field of
 * ctx, of what hangs on it, of the module and of the room's table, no more and no less. */
#include "common/strbuf.h"
#include "shard/lua/lua_handler.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static char text[65536];

static void meta_read(void)
{
    FILE *f = fopen(META, "r");
    ck_assert_ptr_nonnull(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    ck_assert_uint_lt(n, sizeof text - 1);
}

static bool module(const char *owner)
{
    return strcmp(owner, "room") == 0 || strcmp(owner, "json") == 0;
}

/* The line that stands for a member: of a class if it is a field. */
static bool stands(const struct lua_member *m)
{
    char line[160];
    if (m->is_function) {
        snprintf(line, sizeof line, "\nfunction %s%c%s(", m->owner, module(m->owner) ? '.' : ':',
                 m->name);
        return strstr(text, line) != NULL;
    }
    snprintf(line, sizeof line, "---@class %s\n", m->owner);
    if (!module(m->owner))
        line[10] = (char)(line[10] - 'a' + 'A');
    const char *from = strstr(text, line);
    ck_assert_msg(from, "no %s", line);
    const char *end = strstr(from, "\nlocal ");
    snprintf(line, sizeof line, "\n---@field %s ", m->name);
    const char *at = strstr(from, line);
    return at && end && at < end;
}

START_TEST(all_of_the_host_is_told)
{
    meta_read();
    ck_assert_uint_gt(lua_members_count, 40);
    for (size_t i = 0; i < lua_members_count; i++)
        ck_assert_msg(stands(&lua_members[i]), "%s.%s is not in docs/room.meta.lua",
                      lua_members[i].owner, lua_members[i].name);
}
END_TEST

static bool is_member(const char *owner, const char *name, bool is_function)
{
    for (size_t i = 0; i < lua_members_count; i++) {
        const struct lua_member *m = &lua_members[i];
        if (m->is_function == is_function && strcasecmp(m->owner, owner) == 0 &&
            strcmp(m->name, name) == 0)
            return true;
    }
    return false;
}

START_TEST(nothing_else_is_told)
{
    meta_read();
    char owner[64], name[64], mark;
    size_t functions = 0;
    for (const char *at = text; (at = strstr(at, "\nfunction ")); at++) {
        ck_assert_int_eq(sscanf(at, "\nfunction %63[a-z]%c%63[a-z_]", owner, &mark, name), 3);
        ck_assert_msg(is_member(owner, name, true), "the host has no %s%c%s", owner, mark, name);
        functions++;
    }
    ck_assert_uint_gt(functions, 30);
    static const char *const classes[] = {"Ctx", "Connection", "room", "json"};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        char head[64];
        snprintf(head, sizeof head, "---@class %s\n", classes[i]);
        const char *from = strstr(text, head);
        ck_assert_ptr_nonnull(from);
        const char *end = strstr(from, "\nlocal ");
        for (const char *at = from; (at = strstr(at, "\n---@field ")) && at < end; at++) {
            ck_assert_int_eq(sscanf(at, "\n---@field %63[a-z_]", name), 1);
            ck_assert_msg(is_member(classes[i], name, false), "the host has no %s.%s", classes[i],
                          name);
        }
    }
}
END_TEST

START_TEST(the_fields_of_a_room)
{
    meta_read();
    const char *from = strstr(text, "---@class Room\n");
    ck_assert_ptr_nonnull(from);
    size_t told = 0, n = 0;
    for (const char *at = from; (at = strstr(at, "\n---@field ")); at++) {
        char name[64];
        ck_assert_int_eq(sscanf(at, "\n---@field %63[a-z_]", name), 1);
        bool known = false;
        for (size_t i = 0; lua_room_field(i); i++)
            known |= strcmp(name, lua_room_field(i)) == 0;
        ck_assert_msg(known, "a room has no field %s", name);
        told++;
    }
    while (lua_room_field(n))
        n++;
    ck_assert_uint_eq(told, n);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lua_meta");
    TCase *t = tcase_create("meta");
    tcase_add_test(t, all_of_the_host_is_told);
    tcase_add_test(t, nothing_else_is_told);
    tcase_add_test(t, the_fields_of_a_room);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
