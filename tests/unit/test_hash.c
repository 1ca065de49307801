/* Golden vectors of the hashes, and the random generator. A slot vector that changes moves every
 * room of every running cluster: change the code back, not the vector. */
#include "common/hash.h"
#include "common/limits.h"
#include "common/mem.h"
#include "common/rng.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define HEX16 "0123456789abcdef"
#define KEY_64 HEX16 HEX16 HEX16 HEX16
#define KEY_256 KEY_64 KEY_64 KEY_64 KEY_64

START_TEST(slots_are_golden)
{
    static const struct {
        const char *key;
        uint64_t seed;
        uint16_t slot;
    } table[] = {
        {"a", 0x0, 3615},
        {"a", 0x1, 10016},
        {"a", 0x5eed, 12819},
        {"a", 0xffffffffffffffff, 5974},
        {"upload:abc123", 0x0, 1925},
        {"upload:abc123", 0x1, 5601},
        {"upload:abc123", 0x5eed, 15617},
        {"upload:abc123", 0xffffffffffffffff, 2897},
        {"upload:0", 0x0, 7892},
        {"upload:0", 0x5eed, 8522},
        {"job:42", 0x1, 14910},
        {"job:42", 0xffffffffffffffff, 2722},
        {"room:general", 0x0, 10569},
        {"room:general", 0x5eed, 205},
        {"$system", 0x1, 10250},
        {"$system", 0xffffffffffffffff, 7181},
        {"café", 0x0, 13951},
        {"café", 0x5eed, 2510},
        {"orders:eu-west-1/2026-11-21", 0x1, 2388},
        {"orders:eu-west-1/2026-11-21", 0xffffffffffffffff, 5588},
        {KEY_256, 0x0, 15459},
        {KEY_256, 0x5eed, 1179},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_assert_msg(slot_of(slice_text(table[i].key), table[i].seed) == table[i].slot,
                      "%s, seed %llx: %u", table[i].key, (unsigned long long)table[i].seed,
                      slot_of(slice_text(table[i].key), table[i].seed));
}
END_TEST

START_TEST(slot_is_xxh3)
{
    /* Published values of XXH3 64-bit with seed 0. */
    ck_assert_uint_eq(hash_bytes("", 0, 0), UINT64_C(0x2d06800538d394c2));
    ck_assert_uint_eq(hash_bytes(NULL, 0, 0), UINT64_C(0x2d06800538d394c2));
    ck_assert_uint_eq(hash_bytes("abc", 3, 0), UINT64_C(0x78af5f94892f3950));
    ck_assert_uint_eq(slot_of(slice_text("abc"), 0), 0x78af5f94892f3950 & 16383);
    ck_assert_uint_ne(hash_bytes("abc", 3, 1), hash_bytes("abc", 3, 0));
}
END_TEST

START_TEST(slots_are_even)
{
    /* 64 groups of 256 slots, 64,000 keys: 1,000 a group, standard deviation 31. */
    uint32_t counts[64] = {0};
    for (int i = 0; i < 64000; i++) {
        char key[32];
        int n = snprintf(key, sizeof key, "upload:%d", i);
        uint16_t slot = slot_of(slice_of(key, (size_t)n), 0x5eed);
        ck_assert_uint_lt(slot, SLOT_COUNT);
        counts[slot / 256]++;
    }
    for (int i = 0; i < 64; i++) {
        ck_assert_uint_gt(counts[i], 830);
        ck_assert_uint_lt(counts[i], 1170);
    }
}
END_TEST

START_TEST(crc32c_is_castagnoli)
{
    uint8_t zeros[32] = {0};
    uint8_t ones[32];
    uint8_t up[32];
    memset(ones, 0xff, sizeof ones);
    for (int i = 0; i < 32; i++)
        up[i] = (uint8_t)i;
    const struct {
        const void *data;
        size_t size;
        uint32_t crc;
    } table[] = {
        /* the check value of the catalogue, then RFC 3720 B.4 */
        {"123456789", 9, 0xe3069283}, {"", 0, 0},           {zeros, 32, 0x8a9136aa},
        {ones, 32, 0x62a8ab43},       {up, 32, 0x46dd794e},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        ck_assert_uint_eq(crc32c(0, table[i].data, table[i].size), table[i].crc);
        ck_assert_uint_eq(crc32c_portable(0, table[i].data, table[i].size), table[i].crc);
    }
}
END_TEST

START_TEST(crc32c_ways_agree)
{
    uint8_t bytes[300];
    struct rng r;
    rng_seed(&r, 7);
    rng_bytes(&r, bytes, sizeof bytes);
    for (size_t from = 0; from < 9; from++) {
        for (size_t size = 0; from + size <= sizeof bytes; size++) {
            uint32_t whole = crc32c(0, bytes + from, size);
            ck_assert_uint_eq(whole, crc32c_portable(0, bytes + from, size));
            size_t half = size / 3;
            uint32_t part = crc32c(0, bytes + from, half);
            ck_assert_uint_eq(crc32c(part, bytes + from + half, size - half), whole);
        }
    }
}
END_TEST

START_TEST(sha256_is_fips_180)
{
    static const struct {
        const char *text;
        const char *hex;
    } table[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        uint8_t digest[32];
        char hex[65];
        sha256(digest, table[i].text, strlen(table[i].text));
        for (int j = 0; j < 32; j++)
            snprintf(hex + 2 * j, 3, "%02x", digest[j]);
        ck_assert_str_eq(hex, table[i].hex);
    }
}
END_TEST

START_TEST(rng_repeats)
{
    /* Seed 0: splitmix64 gives e220a8397b1dcdaf first, which is state[0]. */
    struct rng a, b;
    rng_seed(&a, 0);
    ck_assert_uint_eq(a.state[0], UINT64_C(0xe220a8397b1dcdaf));
    rng_seed(&a, 1234);
    rng_seed(&b, 1234);
    for (int i = 0; i < 1000; i++)
        ck_assert_uint_eq(rng_u64(&a), rng_u64(&b));
    struct rng c = {{1, 2, 3, 4}};
    /* First outputs of xoshiro256** from state 1, 2, 3, 4. */
    ck_assert_uint_eq(rng_u64(&c), 11520);
    ck_assert_uint_eq(rng_u64(&c), 0);
    ck_assert_uint_eq(rng_u64(&c), 1509978240);
}
END_TEST

START_TEST(rng_below_stays_below_and_is_even)
{
    struct rng r;
    rng_seed(&r, 3);
    uint32_t counts[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t v = rng_below(&r, 7);
        ck_assert_uint_lt(v, 7);
        counts[v]++;
    }
    for (int i = 0; i < 7; i++) {
        ck_assert_uint_gt(counts[i], 9500);
        ck_assert_uint_lt(counts[i], 10500);
    }
    ck_assert_uint_eq(rng_below(&r, 1), 0);
    for (int i = 0; i < 100; i++)
        ck_assert_uint_lt(rng_below(&r, (UINT64_C(1) << 63) + 1), (UINT64_C(1) << 63) + 1);
}
END_TEST

START_TEST(rng_bytes_fills_exactly)
{
    for (size_t size = 0; size < 40; size++) {
        struct rng r;
        rng_seed(&r, size);
        uint8_t *bytes = mem_alloc(size); /* the sanitizer guards its end */
        rng_bytes(&r, bytes, size);
        mem_free(bytes);
    }
}
END_TEST

/* Every process of a cluster compares it, of whatever version. */
START_TEST(cluster_id_is_golden)
{
    ck_assert_uint_eq(cluster_id(slice_text("stoa")), hash_bytes("stoa", 4, 2));
    ck_assert_uint_ne(cluster_id(slice_text("stoa")), cluster_id(slice_text("stob")));
    ck_assert_uint_eq(cluster_id(slice_text("stoa")), UINT64_C(0x6345f2febc5a6602));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("hash");
    TCase *t = tcase_create("hash");
    tcase_add_test(t, slots_are_golden);
    tcase_add_test(t, slot_is_xxh3);
    tcase_add_test(t, slots_are_even);
    tcase_add_test(t, cluster_id_is_golden);
    tcase_add_test(t, crc32c_is_castagnoli);
    tcase_add_test(t, crc32c_ways_agree);
    tcase_add_test(t, sha256_is_fips_180);
    tcase_add_test(t, rng_repeats);
    tcase_add_test(t, rng_below_stays_below_and_is_even);
    tcase_add_test(t, rng_bytes_fills_exactly);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
