/* Error names, allocation, strbuf and buf. */
#include "common/buf.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/strbuf.h"

#include <check.h>
#include <signal.h>
#include <stdlib.h>

START_TEST(every_code_has_a_name)
{
    static const struct {
        int code;
        const char *name;
    } table[] = {
        {ERR_OK, "ERR_OK"},
        {ERR_INVALID, "ERR_INVALID"},
        {ERR_TOO_LARGE, "ERR_TOO_LARGE"},
        {ERR_FULL, "ERR_FULL"},
        {ERR_GONE, "ERR_GONE"},
        {ERR_NOT_FOUND, "ERR_NOT_FOUND"},
        {ERR_IO, "ERR_IO"},
        {ERR_NO_SPACE, "ERR_NO_SPACE"},
        {ERR_CORRUPT, "ERR_CORRUPT"},
        {ERR_REFUSED, "ERR_REFUSED"},
        {-77, "ERR_UNNAMED"},
        {1, "ERR_UNNAMED"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_str_eq(err_name(table[i].code), table[i].name);
}
END_TEST

START_TEST(broken_assertion_aborts)
{
    STOA_ASSERT(1 + 1 == 3);
}
END_TEST

static int try_twice(int first, int second, int *steps)
{
    ++*steps;
    TRY(first);
    ++*steps;
    TRY(second);
    ++*steps;
    return ERR_OK;
}

START_TEST(try_returns_the_first_error)
{
    int steps = 0;
    ck_assert_int_eq(try_twice(ERR_OK, ERR_OK, &steps), ERR_OK);
    ck_assert_int_eq(steps, 3);
    steps = 0;
    ck_assert_int_eq(try_twice(ERR_FULL, ERR_GONE, &steps), ERR_FULL);
    ck_assert_int_eq(steps, 1);
}
END_TEST

START_TEST(allocation)
{
    void *a = mem_alloc(0);
    void *b = mem_zalloc(0);
    ck_assert_ptr_nonnull(a);
    ck_assert_ptr_nonnull(b);
    ck_assert_ptr_ne(a, b);
    uint8_t *zero = mem_zalloc(100);
    for (int i = 0; i < 100; i++)
        ck_assert_uint_eq(zero[i], 0);
    zero = mem_realloc(zero, 5000);
    ck_assert_uint_eq(zero[99], 0);
    char *text = mem_strdup("room");
    ck_assert_str_eq(text, "room");
    char *cut = mem_strndup("room:1", 4);
    ck_assert_str_eq(cut, "room");
    char *none = mem_strndup("x", 0);
    ck_assert_str_eq(none, "");
    uint8_t *copy = mem_dup("a\0b", 3);
    ck_assert_mem_eq(copy, "a\0b", 3);
    void *empty = mem_dup(NULL, 0);
    ck_assert_ptr_nonnull(empty);
    void *all[] = {a, b, zero, text, cut, none, copy, empty, NULL};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}
END_TEST

START_TEST(strbuf_appends)
{
    struct strbuf b = {0};
    strbuf_put(&b, NULL, 0);
    ck_assert_ptr_null(b.data);
    ck_assert_str_eq(strbuf_cstr(&b), "");
    ck_assert_uint_eq(b.size, 0);
    strbuf_put_text(&b, "ab");
    strbuf_put_byte(&b, 'c');
    strbuf_put_slice(&b, slice_text("de"));
    strbuf_put_slice(&b, slice_of(NULL, 0));
    strbuf_put(&b, "f\0g", 3);
    ck_assert(slice_equal(strbuf_slice(&b), slice_of("abcdef\0g", 8)));
    strbuf_reset(&b);
    ck_assert_uint_eq(b.size, 0);
    ck_assert_uint_gt(b.capacity, 0);
    memcpy(strbuf_reserve(&b, 1000), "xyz", 3);
    strbuf_commit(&b, 3);
    ck_assert_str_eq(strbuf_cstr(&b), "xyz");
    strbuf_free(&b);
    ck_assert_ptr_null(b.data);
    ck_assert_uint_eq(b.capacity, 0);
}
END_TEST

START_TEST(strbuf_numbers)
{
    static const struct {
        uint64_t value;
        const char *text;
    } table[] = {
        {0, "0"},
        {9, "9"},
        {10, "10"},
        {1234567890, "1234567890"},
        {UINT64_MAX, "18446744073709551615"},
    };
    struct strbuf b = {0};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        strbuf_reset(&b);
        strbuf_put_u64(&b, table[i].value);
        ck_assert_str_eq(strbuf_cstr(&b), table[i].text);
    }
    strbuf_free(&b);
}
END_TEST

START_TEST(strbuf_printf_grows_at_every_size)
{
    for (int size = 0; size < 300; size++) {
        struct strbuf b = {0};
        strbuf_printf(&b, "%*s|", size, "");
        strbuf_printf(&b, "%d", 42);
        ck_assert_uint_eq(b.size, (size_t)size + 3);
        ck_assert_str_eq(strbuf_cstr(&b) + size, "|42");
        strbuf_free(&b);
    }
}
END_TEST

static void release(void *owner)
{
    ++*(int *)owner;
}

START_TEST(buf_lives_as_long_as_its_references)
{
    size_t before = buf_alive();
    char bytes[] = "payload";
    struct buf *copy = buf_copy(bytes, 7);
    struct buf *again = buf_copy_slice(slice_of(bytes, 7));
    struct buf *empty = buf_copy(NULL, 0);
    int released = 0;
    struct buf *wrap = buf_wrap(bytes, 7, release, &released);
    ck_assert_uint_eq(buf_alive(), before + 4);
    bytes[0] = 'P';
    ck_assert(slice_is(buf_slice(copy), "payload"));
    ck_assert(slice_is(buf_slice(again), "payload"));
    ck_assert(slice_is(buf_slice(wrap), "Payload"));
    ck_assert_uint_eq(buf_slice(empty).size, 0);

    ck_assert_ptr_eq(buf_ref(wrap), wrap);
    buf_unref(wrap);
    ck_assert_int_eq(released, 0);
    buf_unref(wrap);
    ck_assert_int_eq(released, 1);
    buf_unref(NULL);
    buf_unref(copy);
    buf_unref(again);
    buf_unref(empty);
    ck_assert_uint_eq(buf_alive(), before);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("mem");
    TCase *t = tcase_create("mem");
    tcase_add_test(t, every_code_has_a_name);
    tcase_add_test_raise_signal(t, broken_assertion_aborts, SIGABRT);
    tcase_add_test(t, try_returns_the_first_error);
    tcase_add_test(t, allocation);
    tcase_add_test(t, strbuf_appends);
    tcase_add_test(t, strbuf_numbers);
    tcase_add_test(t, strbuf_printf_grows_at_every_size);
    tcase_add_test(t, buf_lives_as_long_as_its_references);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
