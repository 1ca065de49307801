/* The codec: random structs of every message go out and come back, msgpack-c agrees with what is
 * written, and what is malformed is refused without reading beyond it or taking memory for it. */
#include <stdlib.h>

#include "message_samples.h"
#include "proto/mp.h"
#include "proto/prefix.h"

#define SEEDS 60

/* ---- one encoded message, each part in memory of its exact size ---- */

struct wire {
    uint8_t *head, *body;
    size_t head_size, body_size;
};

static uint8_t *exact_copy(const uint8_t *at, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (size)
        memcpy(copy, at, size);
    return copy;
}

static struct wire encode(const struct message *m)
{
    struct strbuf b = {0};
    message_encode(&b, m);
    ck_assert_uint_ge(message_size_bound(m), b.size);
    struct wire w = {.head_size = b.data[0] | b.data[1] << 8 | b.data[2] << 16,
                     .body_size = b.data[4] | b.data[5] << 8 | b.data[6] << 16};
    ck_assert_uint_eq(8 + w.head_size + w.body_size, b.size);
    ck_assert_uint_ge(message_head_bound(m), w.head_size);
    w.head = exact_copy(b.data + 8, w.head_size);
    w.body = exact_copy(b.data + 8 + w.head_size, w.body_size);
    strbuf_free(&b);
    return w;
}

static void wire_free(struct wire *w)
{
    free(w->head);
    free(w->body);
}

static int decode(const struct wire *w, struct message_arena *arena, struct message *out)
{
    return message_decode(slice_of(w->head, w->head_size), slice_of(w->body, w->body_size), arena,
                          out);
}

START_TEST(round_trip)
{
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    struct message_arena arena = {0};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct message m, out;
        rng_seed(&g->rng, seed);
        random_message(g, row, &m);
        struct wire w = encode(&m);
        ck_assert_int_eq(decode(&w, &arena, &out), ERR_OK);
        same_prefix(&m, &out);
        row->same(&m, &out);
        struct wire again = encode(&out);
        ck_assert_uint_eq(w.head_size, again.head_size);
        ck_assert_mem_eq(w.head, again.head, w.head_size);
        wire_free(&again);
        wire_free(&w);
    }
    message_arena_free(&arena);
    free(g);
}
END_TEST

START_TEST(msgpack_c_agrees)
{
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct message m;
        rng_seed(&g->rng, 1000 + seed);
        random_message(g, row, &m);
        struct wire w = encode(&m);
        msgpack_unpacked u;
        msgpack_unpacked_init(&u);
        size_t used = 0;
        ck_assert_int_eq(msgpack_unpack_next(&u, (const char *)w.head, w.head_size, &used),
                         MSGPACK_UNPACK_SUCCESS);
        ck_assert_uint_eq(used, w.head_size);
        ck_assert_int_eq(u.data.type, MSGPACK_OBJECT_ARRAY);
        seen_prefix(u.data.via.array.ptr, &m);
        row->seen(&u.data.via.array, &m);
        msgpack_unpacked_destroy(&u);
        wire_free(&w);
    }
    free(g);
}
END_TEST

START_TEST(every_truncation_is_an_error)
{
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    struct message_arena arena = {0};
    for (uint64_t seed = 0; seed < 4; seed++) {
        struct message m, out;
        rng_seed(&g->rng, 2000 + seed);
        random_message(g, row, &m);
        struct wire w = encode(&m);
        for (size_t size = 0; size < w.head_size; size++) {
            struct wire cut = {exact_copy(w.head, size), w.body, size, w.body_size};
            ck_assert_int_ne(decode(&cut, &arena, &out), ERR_OK);
            free(cut.head);
        }
        if (w.body_size > 0 && !row->loose_body) {
            struct wire cut = w;
            cut.body_size--;
            ck_assert_int_eq(decode(&cut, &arena, &out), ERR_INVALID);
            ck_assert_uint_eq(out.type, row->type); /* what an ERR needs */
            ck_assert_uint_eq(out.cid, m.cid);
        }
        wire_free(&w);
    }
    message_arena_free(&arena);
    free(g);
}
END_TEST

START_TEST(random_damage_never_crashes)
{
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    struct message_arena arena = {0};
    struct message m, out;
    rng_seed(&g->rng, 3000);
    random_message(g, row, &m);
    struct wire w = encode(&m);
    for (int i = 0; i < 3000; i++) {
        struct wire bad = {exact_copy(w.head, w.head_size), w.body, w.head_size, w.body_size};
        for (uint64_t k = 1 + rng_below(&g->rng, 3); k > 0; k--)
            bad.head[rng_below(&g->rng, bad.head_size)] = (uint8_t)rng_u64(&g->rng);
        if (decode(&bad, &arena, &out) == ERR_OK && out.type == row->type)
            row->same(&out, &out); /* reads every slice */
        free(bad.head);
    }
    ck_assert_uint_le(arena.capacity, 4 * HEAD_ARRAY_MAX * sizeof(struct event_item));
    wire_free(&w);
    message_arena_free(&arena);
    free(g);
}
END_TEST

/* Ends of the head's elements: ends[k] is where the k-th field behind the prefix begins. */
static size_t field_ends(const struct wire *w, size_t *ends, size_t max)
{
    struct mp r = {w->head, w->head + w->head_size};
    size_t elements = 0;
    ck_assert_int_eq(mp_array(&r, HEAD_ARRAY_MAX, &elements), ERR_OK);
    ck_assert_uint_le(elements - PREFIX_ELEMENTS + 1, max);
    for (size_t i = 0; i <= elements; i++) {
        if (i >= PREFIX_ELEMENTS)
            ends[i - PREFIX_ELEMENTS] = (size_t)(r.at - w->head);
        if (i < elements)
            ck_assert_int_eq(mp_skip(&r, HEAD_DEPTH_MAX), ERR_OK);
    }
    return elements - PREFIX_ELEMENTS;
}

START_TEST(short_heads_are_filled_with_zero)
{
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    struct message_arena arena = {0};
    size_t ends[32];
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct message m, out;
        rng_seed(&g->rng, 4000 + seed);
        random_message(g, row, &m);
        struct wire w = encode(&m);
        size_t fields = field_ends(&w, ends, 32);
        for (size_t kept = 0; kept <= fields; kept++) {
            struct message expected = m;
            row->forget(&expected, kept);
            struct wire body_of = encode(&expected); /* forgotten lists have no bytes */
            struct wire cut = {exact_copy(w.head, ends[kept]), body_of.body, ends[kept],
                               body_of.body_size};
            cut.head[2] = (uint8_t)(PREFIX_ELEMENTS + kept);
            ck_assert_int_eq(decode(&cut, &arena, &out), ERR_OK);
            row->same(&expected, &out);
            free(cut.head);
            wire_free(&body_of);
        }
        wire_free(&w);
    }
    message_arena_free(&arena);
    free(g);
}
END_TEST

START_TEST(unknown_trailing_fields_are_skipped)
{
    static const uint8_t more[] = {
        0x92, 0x91, 0x81, 0x01, 0x02, 0xc0,          /* [[{1: 2}], nil]: as deep as is allowed */
        0xa3, 'n',  'e',  'w',                       /* "new" */
        0xcb, 1,    2,    3,    4,    5,    6, 7, 8, /* a float */
    };
    const struct row *row = &rows[_i];
    struct generator *g = calloc(1, sizeof *g);
    struct message_arena arena = {0};
    struct message m, out;
    rng_seed(&g->rng, 5000);
    random_message(g, row, &m);
    struct wire w = encode(&m);
    struct wire longer = {malloc(w.head_size + sizeof more), w.body, w.head_size + sizeof more,
                          w.body_size};
    memcpy(longer.head, w.head, w.head_size);
    memcpy(longer.head + w.head_size, more, sizeof more);
    longer.head[2] = (uint8_t)(w.head[2] + 3);
    ck_assert_int_eq(decode(&longer, &arena, &out), ERR_OK);
    row->same(&m, &out);
    longer.head[2]--; /* bytes behind the array */
    ck_assert_int_eq(decode(&longer, &arena, &out), ERR_INVALID);
    free(longer.head);
    wire_free(&w);
    message_arena_free(&arena);
    free(g);
}
END_TEST

/* ---- heads written by hand ---- */

/* A head with prefix t, cid 9, empty key, and these bytes as its fields. */
static struct wire head_with(uint8_t type, uint8_t fields, const uint8_t *bytes, size_t size)
{
    uint8_t prefix[] = {0xdc, 0,    0,    1,    0, 0xcf, 0, 0, 0, 0, 0, 0, 0,    9,
                        0xcd, 0xff, 0xff, 0xcf, 0, 0,    0, 0, 0, 0, 0, 0, 0xd9, 0};
    prefix[2] = PREFIX_ELEMENTS + fields;
    prefix[PREFIX_TYPE] = type;
    struct wire w = {malloc(sizeof prefix + size), NULL, sizeof prefix + size, 0};
    memcpy(w.head, prefix, sizeof prefix);
    if (size)
        memcpy(w.head + sizeof prefix, bytes, size);
    return w;
}

static int decode_fields(uint8_t type, uint8_t fields, const uint8_t *bytes, size_t size,
                         const char *body, struct message_arena *arena, struct message *out)
{
    static struct wire w; /* stays until the next call, as `out` points into it */
    wire_free(&w);
    w = head_with(type, fields, bytes, size);
    return message_decode(slice_of(w.head, w.head_size), slice_text(body), arena, out);
}
#define DECODE(type, fields, body, ...)                         \
    decode_fields(type, fields, (const uint8_t[]){__VA_ARGS__}, \
                  sizeof((const uint8_t[]){__VA_ARGS__}), body, &arena, &out)

START_TEST(entries_follow_the_same_rules)
{
    struct message_arena arena = {0};
    struct message out;
    /* DELIVER [epoch 5, [[1, 2], [2, 3, -1, 1, "c", bin, 3, new [nil], new]]] */
    ck_assert_int_eq(DECODE(MSG_DELIVER, 2, "abc", 0x05, 0x92, 0x92, 0x01, 0x02, 0x99, 0x02, 0x03,
                            0xff, 0x01, 0xa1, 'c', 0xc4, 0x00, 0x03, 0x91, 0xc0, 0xc3),
                     ERR_OK);
    const struct events_list *items = &out.deliver.items;
    SAME(items->count, 2);
    SAME(items->at[0].seq, 2);
    SAME(items->at[0].ts, 0);
    SAME(items->at[0].payload.size, 0);
    ck_assert_int_eq(items->at[1].ts, -1);
    ck_assert(slice_is(items->at[1].conflate, "c"));
    message_arena_free(&arena);
}
END_TEST

START_TEST(bombs_take_no_memory)
{
    struct message_arena arena = {0};
    struct message out;
    /* lists that claim 2^32-1, 65535 and 4096 entries */
    ck_assert_int_eq(DECODE(MSG_SUBSYNC, 2, "", 0, 0xdd, 0xff, 0xff, 0xff, 0xff), ERR_TOO_LARGE);
    ck_assert_int_eq(DECODE(MSG_SUBSYNC, 2, "", 0, 0xdc, 0xff, 0xff, 0), ERR_TOO_LARGE);
    ck_assert_int_eq(DECODE(MSG_SUBSYNC, 2, "", 0, 0xdc, 0x10, 0x00, 0), ERR_INVALID);
    /* a str of 4 GiB, as a field and skipped */
    ck_assert_int_eq(DECODE(MSG_UNSUB, 1, "", 0xdb, 0xff, 0xff, 0xff, 0xff, 'x'), ERR_TOO_LARGE);
    ck_assert_int_eq(DECODE(MSG_PING, 1, "", 0xdb, 0xff, 0xff, 0xff, 0xff, 'x'), ERR_INVALID);
    /* too deep, and a million nested arrays' beginning */
    ck_assert_int_eq(DECODE(MSG_PING, 1, "", 0x91, 0x91, 0x91, 0x91, 0x00), ERR_TOO_LARGE);
    ck_assert_int_eq(
        DECODE(MSG_DELIVER, 2, "", 0, 0x91, 0x98, 0, 0, 0, 0, 0xa0, 0xc4, 0, 0, 0x91, 0x91, 0x00),
        ERR_TOO_LARGE);
    ck_assert_uint_le(arena.capacity, 1024); /* the last one had an honest list of one entry */
    ck_assert_uint_eq(out.cid, 9);
    message_arena_free(&arena);
}
END_TEST

START_TEST(wrong_values)
{
    struct message_arena arena = {0};
    struct message out;
    /* a str that is not UTF-8; a bin where a str is due; an id of 15 bytes; a negative u64 */
    ck_assert_int_eq(DECODE(MSG_UNSUB, 1, "", 0xa2, 0xc3, 0x28), ERR_INVALID);
    ck_assert_int_eq(DECODE(MSG_UNSUB, 1, "", 0xc4, 1, 'x'), ERR_INVALID);
    ck_assert_int_eq(
        DECODE(MSG_PUB, 1, "", 0xc4, 15, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        ERR_INVALID);
    ck_assert_int_eq(DECODE(MSG_CREDIT, 1, "", 0xff), ERR_INVALID);
    /* slots: lo > hi, beyond the last */
    ck_assert_int_eq(DECODE(MSG_CLAIM, 3, "", 0, 0, 0x91, 0x93, 2, 1, 1), ERR_INVALID);
    ck_assert_int_eq(DECODE(MSG_CLAIM, 3, "", 0, 0, 0x91, 0x93, 2, 0xcd, 0x40, 0x00, 1),
                     ERR_INVALID);
    /* sizes that are more, less, and overflow */
    ck_assert_int_eq(DECODE(MSG_CEVT, 5, "abc", 0xa0, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                            0, 0, 0, 0, 0, 0, 0x92, 2, 1),
                     ERR_OK);
    ck_assert_int_eq(DECODE(MSG_CEVT, 5, "abc", 0xa0, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                            0, 0, 0, 0, 0, 0, 0x92, 2, 2),
                     ERR_INVALID);
    ck_assert_int_eq(DECODE(MSG_CEVT, 5, "abc", 0xa0, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                            0, 0, 0, 0, 0, 0, 0x91, 2),
                     ERR_INVALID);
    ck_assert_int_eq(DECODE(MSG_CEVT, 5, "abc", 0xa0, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                            0, 0, 0, 0, 0, 0, 0x92, 4, 0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                            0xff, 0xff),
                     ERR_INVALID);
    /* a body where none belongs */
    ck_assert_int_eq(DECODE(MSG_CREDIT, 1, "x", 0x01), ERR_INVALID);
    message_arena_free(&arena);
}
END_TEST

START_TEST(unknown_type_gives_the_prefix)
{
    struct message_arena arena = {0};
    struct message out;
    ck_assert_int_eq(DECODE(99, 1, "whatever", 0xc1), ERR_OK);
    ck_assert_uint_eq(out.type, 99);
    ck_assert_uint_eq(out.cid, 9);
    ck_assert(!message_known(99));
    ck_assert_str_eq(message_name(99), "?");
    message_arena_free(&arena);
}
END_TEST

START_TEST(prefix_has_one_form_only)
{
    static const struct {
        size_t at;
        uint8_t value;
    } cases[] = {{0, 0xdd},  {2, 5},     {3, 2},     {4, 0},     {4, 0xcc}, {5, 0xce},
                 {14, 0xce}, {15, 0x40}, {17, 0xd3}, {26, 0xc4}, {27, 1}};
    struct message_prefix p;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wire w = head_with(MSG_PING, 0, NULL, 0);
        ck_assert_int_eq(message_peek(slice_of(w.head, w.head_size), &p), ERR_OK);
        w.head[cases[i].at] = cases[i].value;
        ck_assert_msg(message_peek(slice_of(w.head, w.head_size), &p) != ERR_OK, "case %zu", i);
        ck_assert_uint_eq(p.type, 0);
        wire_free(&w);
    }
    struct wire w = head_with(MSG_PING, 0, NULL, 0);
    w.head[15] = 0x3f; /* slot 0x3fff, the last one */
    ck_assert_int_eq(message_peek(slice_of(w.head, w.head_size), &p), ERR_OK);
    ck_assert_uint_eq(p.slot, SLOT_COUNT - 1);
    message_stamp(w.head, UINT64_MAX, 5, 6);
    ck_assert_int_eq(message_peek(slice_of(w.head, w.head_size), &p), ERR_OK);
    ck_assert(p.cid == UINT64_MAX && p.slot == 5 && p.ep == 6 && p.type == MSG_PING);
    wire_free(&w);
}
END_TEST

START_TEST(longest_key)
{
    char key[KEY_MAX_BYTES + 1];
    memset(key, 'k', sizeof key);
    struct message_arena arena = {0};
    for (size_t size = 254; size <= KEY_MAX_BYTES; size++) {
        struct message out, m = {.type = MSG_PURGE, .key = slice_of(key, size)};
        struct wire w = encode(&m);
        ck_assert_int_eq(decode(&w, &arena, &out), ERR_OK);
        SAME_SLICE(out.key, m.key);
        if (size == KEY_MAX_BYTES) { /* one more is refused */
            uint8_t *longer = malloc(w.head_size + 1);
            memcpy(longer, w.head, w.head_size);
            longer[w.head_size] = 'k';
            longer[PREFIX_KEY + 2]++;
            ck_assert_int_eq(
                message_decode(slice_of(longer, w.head_size + 1), slice_text(""), &arena, &out),
                ERR_TOO_LARGE);
            free(longer);
        }
        wire_free(&w);
    }
    message_arena_free(&arena);
}
END_TEST

/* ---- golden bytes ---- */

static void expect_hex(const struct message *m, const char *hex)
{
    struct strbuf b = {0}, text = {0};
    message_encode(&b, m);
    for (size_t i = 0; i < b.size; i++)
        strbuf_printf(&text, "%02x", b.data[i]);
    ck_assert_str_eq(strbuf_cstr(&text), hex);
    strbuf_free(&b);
    strbuf_free(&text);
}

START_TEST(golden)
{
    expect_hex(&(struct message){.type = MSG_PING, .slot = SLOT_UNKNOWN},
               "1c00000000000000"
               "dc00060103cf0000000000000000cdffffcf0000000000000000d900");
    struct message pack = {
        .type = MSG_PACK, .cid = 0x500000007, .slot = 77, .ep = 3, .key = slice_text("a:b")};
    pack.pack = (struct msg_pack){.room_epoch = 0x1234, .seq = 42, .count = 1, .window_ms = 300000};
    expect_hex(&pack, "2a00000000000000"
                      "dc000b010bcf0000000500000007cd004dcf0000000000000003d903613a62"
                      "cd12342a0100ce000493e0");
    struct event_item item = {.prev = 41,
                              .seq = 42,
                              .ts = 1000,
                              .flags = EVENT_JSON | EVENT_UTF8,
                              .conflate = slice_text("p"),
                              .payload = slice_text("{}")};
    struct message deliver = {.type = MSG_DELIVER, .slot = 1, .ep = 1, .key = slice_text("k")};
    deliver.deliver.room_epoch = 5;
    deliver.deliver.items = (struct events_list){&item, 1};
    expect_hex(&deliver, "2b00000002000000"
                         "dc0008011ecf0000000000000000cd0001cf0000000000000001d9016b"
                         "059197292acd03e803a170c40002"
                         "7b7d");
}
END_TEST

START_TEST(names)
{
    ck_assert_str_eq(message_name(MSG_REPLAY_REQ), "REPLAY_REQ");
    ck_assert_str_eq(role_name(ROLE_SHARD), "shard");
    ck_assert_str_eq(role_name(ROLE_NONE), "unknown");
    ck_assert_str_eq(nack_name(NACK_STALE), "STALE");
    ck_assert_str_eq(nack_name(NACK_INVALID), "INVALID");
    ck_assert_str_eq(nack_name(1000), "UNKNOWN");
    ck_assert_str_eq(miss_name(MISS_EPOCH), "epoch");
    ck_assert_str_eq(miss_name(1000), "unknown");
    for (int i = 0; i < n_rows; i++)
        ck_assert_str_eq(message_name(rows[i].type), rows[i].name);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("message");
    TCase *all = tcase_create("every message");
    tcase_add_loop_test(all, round_trip, 0, n_rows);
    tcase_add_loop_test(all, msgpack_c_agrees, 0, n_rows);
    tcase_add_loop_test(all, every_truncation_is_an_error, 0, n_rows);
    tcase_add_loop_test(all, random_damage_never_crashes, 0, n_rows);
    tcase_add_loop_test(all, short_heads_are_filled_with_zero, 0, n_rows);
    tcase_add_loop_test(all, unknown_trailing_fields_are_skipped, 0, n_rows);
    suite_add_tcase(suite, all);
    TCase *tc = tcase_create("by hand");
    tcase_add_test(tc, entries_follow_the_same_rules);
    tcase_add_test(tc, bombs_take_no_memory);
    tcase_add_test(tc, wrong_values);
    tcase_add_test(tc, unknown_type_gives_the_prefix);
    tcase_add_test(tc, prefix_has_one_form_only);
    tcase_add_test(tc, longest_key);
    tcase_add_test(tc, golden);
    tcase_add_test(tc, names);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
