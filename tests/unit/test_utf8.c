/* UTF-8 validity, character by character and as a whole, and the rules of keys. */
#include "common/limits.h"
#include "common/mem.h"
#include "common/utf8.h"

#include <check.h>
#include <stdlib.h>

/* Validity by the table of RFC 3629, section 4: first byte, and the range of the second. */
static bool oracle(const uint8_t *p, size_t n)
{
    static const struct {
        uint8_t first_lo, first_hi, second_lo, second_hi;
        size_t tails;
    } table[] = {
        {0x00, 0x7f, 0, 0, 0},       {0xc2, 0xdf, 0x80, 0xbf, 1}, {0xe0, 0xe0, 0xa0, 0xbf, 2},
        {0xe1, 0xec, 0x80, 0xbf, 2}, {0xed, 0xed, 0x80, 0x9f, 2}, {0xee, 0xef, 0x80, 0xbf, 2},
        {0xf0, 0xf0, 0x90, 0xbf, 3}, {0xf1, 0xf3, 0x80, 0xbf, 3}, {0xf4, 0xf4, 0x80, 0x8f, 3},
    };
    while (n > 0) {
        size_t row = 0;
        while (row < 9 && (p[0] < table[row].first_lo || p[0] > table[row].first_hi))
            row++;
        if (row == 9 || n < 1 + table[row].tails)
            return false;
        for (size_t i = 1; i <= table[row].tails; i++) {
            uint8_t lo = i == 1 ? table[row].second_lo : 0x80;
            uint8_t hi = i == 1 ? table[row].second_hi : 0xbf;
            if (p[i] < lo || p[i] > hi)
                return false;
        }
        n -= 1 + table[row].tails;
        p += 1 + table[row].tails;
    }
    return true;
}

/* A copy of exact size, so that the sanitizer sees a read behind it. */
static bool valid_at_the_edge(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = mem_dup(bytes, size);
    bool valid = utf8_valid(slice_of(copy, size));
    mem_free(copy);
    return valid;
}

START_TEST(all_short_sequences)
{
    /* Bytes at the borders of every range, in all combinations of up to four. */
    static const uint8_t edges[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                    0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
                                    0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff};
    const size_t n = sizeof edges;
    for (size_t i = 0; i < n * n * n * n; i++) {
        uint8_t bytes[4] = {edges[i % n], edges[i / n % n], edges[i / n / n % n],
                            edges[i / n / n / n]};
        for (size_t size = 1; size <= 4; size++) {
            if (utf8_valid(slice_of(bytes, size)) != oracle(bytes, size))
                ck_abort_msg("%02x %02x %02x %02x, size %zu", bytes[0], bytes[1], bytes[2],
                             bytes[3], size);
        }
    }
}
END_TEST

START_TEST(every_code_point_round_trips)
{
    for (uint32_t code = 0; code <= 0x10ffff; code++) {
        if (code >= 0xd800 && code <= 0xdfff)
            continue;
        uint8_t bytes[4];
        uint32_t decoded = 0xffffffff;
        size_t n = utf8_encode(code, bytes);
        if (!oracle(bytes, n) || utf8_decode(slice_of(bytes, n), &decoded) != n || decoded != code)
            ck_abort_msg("U+%04X", code);
        if (n > 1 && utf8_decode(slice_of(bytes, n - 1), &decoded) != 0)
            ck_abort_msg("U+%04X cut", code);
    }
    uint32_t code;
    ck_assert_uint_eq(utf8_decode(slice_of(NULL, 0), &code), 0);
}
END_TEST

START_TEST(one_bad_byte_anywhere)
{
    for (size_t size = 0; size <= 40; size++) {
        uint8_t bytes[40];
        memset(bytes, 'a', sizeof bytes);
        ck_assert(valid_at_the_edge(bytes, size));
        for (size_t at = 0; at < size; at++) {
            bytes[at] = 0xff;
            ck_assert(!valid_at_the_edge(bytes, size));
            bytes[at] = 0xc3; /* the start of a pair */
            ck_assert(!valid_at_the_edge(bytes, size));
            if (at + 1 < size) {
                bytes[at + 1] = 0xa9;
                ck_assert(valid_at_the_edge(bytes, size));
                bytes[at + 1] = 'a';
            }
            bytes[at] = 'a';
        }
    }
}
END_TEST

START_TEST(keys)
{
    static const struct {
        const char *key;
        bool valid, as_system;
    } table[] = {
        {"", false, false},
        {"a", true, true},
        {"upload:abc123", true, true},
        {"with space", true, true},
        {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", true, true},
        {"$sys", false, true},
        {"$", false, true},
        {"a$", true, true},
        {"a\nb", false, false},
        {"a\x1f", false, false},
        {"\x7f", false, false},
        {"a\xc2\x80", false, false},
        {"a\xc2\x9f", false, false},
        {"a\xc2\xa0", true, true},
        {"\xff", false, false},
        {"a\xc3", false, false},
        {"\xed\xa0\x80", false, false},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct slice key = slice_text(table[i].key);
        ck_assert_msg(key_valid(key, false) == table[i].valid, "row %zu", i);
        ck_assert_msg(key_valid(key, true) == table[i].as_system, "row %zu", i);
    }
    ck_assert(!key_valid(slice_of("a\0b", 3), true));
    char longest[KEY_MAX_BYTES + 1];
    memset(longest, 'k', sizeof longest);
    ck_assert(key_valid(slice_of(longest, KEY_MAX_BYTES), false));
    ck_assert(!key_valid(slice_of(longest, KEY_MAX_BYTES + 1), false));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("utf8");
    TCase *t = tcase_create("utf8");
    tcase_add_test(t, all_short_sequences);
    tcase_add_test(t, every_code_point_round_trips);
    tcase_add_test(t, one_bad_byte_anywhere);
    tcase_add_test(t, keys);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
