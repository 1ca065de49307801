/* Packet framing: what was put in comes out, and nothing malformed gets through. */
#include <check.h>
#include <stdlib.h>

#include "common/rng.h"
#include "proto/packet.h"

static void put_ping(struct strbuf *b, uint64_t cid)
{
    message_encode(b, &(struct message){.type = MSG_PING, .cid = cid, .slot = SLOT_UNKNOWN});
}

/* Reads a packet to its end; the count of messages, or the error. */
static int read_all(struct slice packet)
{
    struct packet_reader r;
    struct slice head, body;
    bool more = true;
    int count = 0;
    TRY(packet_open(packet, &r));
    for (;;) {
        TRY(packet_next(&r, &more, &head, &body));
        if (!more)
            return count;
        count++;
    }
}

START_TEST(round_trip)
{
    struct strbuf b = {0};
    packet_begin(&b);
    for (uint64_t cid = 0; cid < 5; cid++)
        put_ping(&b, cid);
    packet_end(&b, 5, 0x1122334455667788, 9);
    struct packet_reader r;
    struct slice head, body;
    bool more = false;
    ck_assert_int_eq(packet_open(strbuf_slice(&b), &r), ERR_OK);
    ck_assert_uint_eq(r.header.count, 5);
    ck_assert_uint_eq(r.header.incarnation, 0x1122334455667788);
    ck_assert_uint_eq(r.header.counter, 9);
    for (uint64_t cid = 0; cid < 5; cid++) {
        struct message_prefix p;
        ck_assert_int_eq(packet_next(&r, &more, &head, &body), ERR_OK);
        ck_assert(more);
        ck_assert_int_eq(message_peek(head, &p), ERR_OK);
        ck_assert_uint_eq(p.cid, cid);
    }
    ck_assert_int_eq(packet_next(&r, &more, &head, &body), ERR_OK);
    ck_assert(!more);
    strbuf_free(&b);
}
END_TEST

START_TEST(forwarded_message_is_stamped_in_place)
{
    struct strbuf first = {0}, second = {0};
    struct slice parts[] = {slice_text("payload")};
    struct message m = {.type = MSG_PUB, .cid = 1, .slot = SLOT_UNKNOWN, .key = slice_text("k")};
    m.pub.payloads = (struct parts_list){parts, 1};
    packet_begin(&first);
    message_encode(&first, &m);
    packet_end(&first, 1, 1, 1);
    struct packet_reader r;
    struct slice head, body;
    bool more;
    ck_assert_int_eq(packet_open(strbuf_slice(&first), &r), ERR_OK);
    ck_assert_int_eq(packet_next(&r, &more, &head, &body), ERR_OK);
    packet_begin(&second);
    size_t at = packet_put_raw(&second, head, body);
    message_stamp(second.data + at, 0xaabb00000001, 77, 5);
    packet_end(&second, 1, 2, 1);
    struct message out;
    struct message_arena arena = {0};
    ck_assert_int_eq(packet_open(strbuf_slice(&second), &r), ERR_OK);
    ck_assert_int_eq(packet_next(&r, &more, &head, &body), ERR_OK);
    ck_assert_int_eq(message_decode(head, body, &arena, &out), ERR_OK);
    ck_assert_uint_eq(out.cid, 0xaabb00000001);
    ck_assert_uint_eq(out.slot, 77);
    ck_assert_uint_eq(out.ep, 5);
    ck_assert(slice_is(out.key, "k"));
    ck_assert(slice_is(out.pub.payloads.at[0], "payload"));
    message_arena_free(&arena);
    strbuf_free(&first);
    strbuf_free(&second);
}
END_TEST

static void make_two(struct strbuf *b)
{
    packet_begin(b);
    put_ping(b, 1);
    put_ping(b, 2);
    packet_end(b, 2, 3, 4);
}

START_TEST(every_truncation_is_an_error)
{
    struct strbuf b = {0};
    make_two(&b);
    ck_assert_int_eq(read_all(strbuf_slice(&b)), 2);
    for (size_t size = 0; size < b.size; size++) {
        uint8_t *exact = malloc(size ? size : 1);
        memcpy(exact, b.data, size);
        ck_assert_int_lt(read_all(slice_of(exact, size)), 0);
        free(exact);
    }
    strbuf_free(&b);
}
END_TEST

START_TEST(malformed_frames)
{
    static const struct {
        size_t at;
        uint8_t value;
        int code;
    } cases[] = {
        {0, 'T', ERR_INVALID},     {1, 2, ERR_INVALID},     {2, 1, ERR_INVALID},
        {3, 1, ERR_INVALID},       {4, 3, ERR_INVALID},     {4, 1, ERR_INVALID},
        {7, 0xff, ERR_INVALID},    {24, 0xff, ERR_INVALID}, {27, 0xff, ERR_TOO_LARGE},
        {31, 0xff, ERR_TOO_LARGE}, {28, 1, ERR_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct strbuf b = {0};
        make_two(&b);
        b.data[cases[i].at] = cases[i].value;
        ck_assert_msg(read_all(strbuf_slice(&b)) < 0, "case %zu", i);
        strbuf_free(&b);
    }
    uint8_t *large = calloc(1, PACKET_MAX_BYTES + 1);
    large[0] = 'S';
    large[1] = 1;
    ck_assert_int_eq(read_all(slice_of(large, PACKET_MAX_BYTES + 1)), ERR_TOO_LARGE);
    free(large);
}
END_TEST

START_TEST(random_damage_never_reads_beyond)
{
    struct rng rng;
    rng_seed(&rng, 11);
    struct strbuf b = {0};
    make_two(&b);
    for (int i = 0; i < 20000; i++) {
        uint8_t *copy = malloc(b.size);
        memcpy(copy, b.data, b.size);
        for (uint64_t k = rng_below(&rng, 4); k > 0; k--)
            copy[rng_below(&rng, b.size)] = (uint8_t)rng_u64(&rng);
        (void)read_all(slice_of(copy, b.size));
        free(copy);
    }
    strbuf_free(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("packet");
    TCase *tc = tcase_create("framing");
    tcase_add_test(tc, round_trip);
    tcase_add_test(tc, forwarded_message_is_stamped_in_place);
    tcase_add_test(tc, every_truncation_is_an_error);
    tcase_add_test(tc, malformed_frames);
    tcase_add_test(tc, random_damage_never_reads_beyond);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
