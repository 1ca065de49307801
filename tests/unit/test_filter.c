/* Filters: who is admitted, by a table and against a plain reading of the rule; what is malformed
 * admits nobody and takes no memory; msgpack-c reads what is written. */
#include <check.h>
#include <msgpack.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/rng.h"
#include "proto/filter.h"

#define NAMES(...)                                              \
    ((struct filter_names){(const struct slice[]){__VA_ARGS__}, \
                           sizeof((struct slice[]){__VA_ARGS__}) / sizeof(struct slice)})
#define S(text)                                   \
    {                                             \
        (const uint8_t *)(text), sizeof(text) - 1 \
    }
#define BYTES(...) \
    slice_of(((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__}))

static const struct slice nobody_at[1];
#define NOBODY ((struct filter_names){nobody_at, 0})

/* Whether the connection s1 with id `ann` and the tags red and big is admitted. */
static bool admits_ann(const struct filter *f)
{
    const struct slice tags[] = {S("red"), S("big")};
    struct strbuf b = {0};
    ck_assert_int_eq(filter_encode(&b, f), ERR_OK);
    bool admits = filter_admits(strbuf_slice(&b), slice_text("s1"), slice_text("ann"), tags, 2);
    strbuf_free(&b);
    return admits;
}

START_TEST(the_rule)
{
    const struct {
        struct filter f;
        bool admitted;
    } cases[] = {
        {{.to = {0}}, true},
        {{.to = NAMES(S("s1"))}, true},
        {{.to = NAMES(S("bob"), S("ann"))}, true},
        {{.to = NAMES(S("bob"))}, false},
        {{.to = NAMES(S("red"))}, false},
        {{.to = NOBODY}, false},
        {{.tags = NAMES(S("blue"), S("big"))}, true},
        {{.tags = NAMES(S("blue"))}, false},
        {{.tags = NAMES(S("ann"))}, false},
        {{.tags = NOBODY}, false},
        {{.except = NAMES(S("s1"))}, false},
        {{.except = NAMES(S("ann"))}, false},
        {{.except = NAMES(S("red"), S("an"), S("anna"), S("s2"))}, true},
        {{.except = NOBODY}, true},
        {{.to = NAMES(S("ann")), .except = NAMES(S("s1"))}, false},
        {{.to = NAMES(S("bob")), .tags = NAMES(S("red"))}, false},
        {{.to = NAMES(S("ann")), .tags = NAMES(S("blue"))}, false},
        {{.to = NAMES(S("ann")), .tags = NAMES(S("blue"), S("red"))}, true},
        {{.to = NAMES(S("ann")), .tags = NOBODY}, false},
        {{.to = NOBODY, .tags = NAMES(S("red"))}, false},
        {{.to = NAMES(S("ann")), .tags = NAMES(S("red")), .except = NAMES(S("ann"))}, false},
        {{.tags = NAMES(S("red")), .except = NAMES(S("ann"))}, false},
        {{.tags = NAMES(S("red")), .except = NAMES(S("bob"))}, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(admits_ann(&cases[i].f) == cases[i].admitted, "case %zu", i);
}
END_TEST

/* Who has no id is not named by anything, not even by an empty name. */
START_TEST(nobody_in_particular)
{
    const struct slice none = {0}, red = S("red");
    struct strbuf b = {0};
    const struct filter to = {.to = NAMES(S(""), S("ann"))};
    ck_assert_int_eq(filter_encode(&b, &to), ERR_OK);
    ck_assert(!filter_admits(strbuf_slice(&b), none, none, NULL, 0));
    ck_assert(!filter_admits(strbuf_slice(&b), none, slice_text(""), &red, 1));
    strbuf_reset(&b);
    const struct filter rest = {.tags = NAMES(S("red")), .except = NAMES(S(""))};
    ck_assert_int_eq(filter_encode(&b, &rest), ERR_OK);
    ck_assert(filter_admits(strbuf_slice(&b), none, none, &red, 1));
    ck_assert(!filter_admits(strbuf_slice(&b), none, none, NULL, 0));
    strbuf_free(&b);
}
END_TEST

START_TEST(everybody_is_no_bytes)
{
    struct strbuf b = {0};
    struct filter everybody = {0}, out;
    struct message_arena arena = {0};
    ck_assert_int_eq(filter_encode(&b, &everybody), ERR_OK);
    ck_assert_uint_eq(b.size, 0);
    ck_assert(filter_admits(slice_of(NULL, 0), slice_text("s"), slice_text(""), NULL, 0));
    ck_assert_int_eq(filter_decode(slice_of(NULL, 0), &arena, &out), ERR_OK);
    ck_assert(!out.to.at && !out.except.at && !out.tags.at);
    ck_assert(filter_admits(BYTES(0x80), slice_text("s"), slice_text(""), NULL, 0));
    message_arena_free(&arena);
}
END_TEST

START_TEST(golden)
{
    struct strbuf b = {0};
    struct filter f = {.to = NAMES(S("a")), .except = NAMES(S("b"), S("")), .tags = NOBODY};
    ck_assert_int_eq(filter_encode(&b, &f), ERR_OK);
    ck_assert(slice_equal(strbuf_slice(&b),
                          BYTES(0x83, 0xa6, 'e', 'x', 'c', 'e', 'p', 't', 0x92, 0xa1, 'b', 0xa0,
                                0xa2, 't', 'o', 0x91, 0xa1, 'a', 0xa4, 't', 'a', 'g', 's', 0x90)));
    strbuf_free(&b);
}
END_TEST

START_TEST(too_large_appends_nothing)
{
    static uint8_t long_name[FILTER_MAX_BYTES];
    static struct slice many[FILTER_MAX_BYTES];
    struct strbuf b = {0};
    const struct slice one = slice_of(long_name, sizeof long_name);
    struct filter f = {.except = {&one, 1}};
    strbuf_put_text(&b, "before");
    ck_assert_int_eq(filter_encode(&b, &f), ERR_TOO_LARGE);
    ck_assert(slice_is(strbuf_slice(&b), "before"));
    f.except = (struct filter_names){many, FILTER_MAX_BYTES};
    ck_assert_int_eq(filter_encode(&b, &f), ERR_TOO_LARGE);
    ck_assert(slice_is(strbuf_slice(&b), "before"));
    strbuf_reset(&b);
    f.except.count = FILTER_MAX_BYTES - 11; /* a map, its key and an array16 */
    ck_assert_int_eq(filter_encode(&b, &f), ERR_OK);
    ck_assert_uint_eq(b.size, FILTER_MAX_BYTES);
    ck_assert(filter_admits(strbuf_slice(&b), slice_text("s"), slice_text("i"), NULL, 0));
    /* Nobody has the empty name. */
    ck_assert(filter_admits(strbuf_slice(&b), slice_text("s"), slice_text(""), NULL, 0));
    strbuf_free(&b);
}
END_TEST

/* Must be refused by both readers. */
static void expect_refused(struct slice bytes)
{
    struct message_arena arena = {0};
    struct filter out;
    ck_assert_int_eq(filter_decode(bytes, &arena, &out), ERR_INVALID);
    ck_assert_ptr_null(arena.memory);
    const struct slice tag = S("t");
    ck_assert(!filter_admits(bytes, slice_text("a"), slice_text("b"), &tag, 1));
}

START_TEST(malformed_admits_nobody)
{
    expect_refused(BYTES(0xc0));
    expect_refused(BYTES(0x90));
    expect_refused(BYTES(0x80, 0x80));                               /* bytes behind it */
    expect_refused(BYTES(0x81, 0xa2, 't', 'o'));                     /* no list */
    expect_refused(BYTES(0x81, 0xa2, 't', 'o', 0xa1, 'a'));          /* a str for a list */
    expect_refused(BYTES(0x81, 0xa2, 't', 'o', 0x91, 0x01));         /* a number for a name */
    expect_refused(BYTES(0x81, 0xa2, 't', 'o', 0x91, 0xc4, 1, 'a')); /* a bin for a name */
    expect_refused(BYTES(0x81, 0xa2, 't', 'o', 0x92, 0xa1, 'a'));    /* one name is missing */
    expect_refused(BYTES(0x81, 0xa2, 'o', 'f', 0x91, 0xa1, 'a'));    /* an unknown key */
    expect_refused(
        BYTES(0x82, 0xa2, 't', 'o', 0x91, 0xa1, 'a', 0xa2, 't', 'o', 0x91, 0xa1, 'a')); /* twice */
    expect_refused(BYTES(0x84, 0xa2, 't', 'o', 0x90, 0, 0, 0, 0));
    /* bombs */
    expect_refused(BYTES(0xdf, 0xff, 0xff, 0xff, 0xff));
    expect_refused(BYTES(0x81, 0xa2, 't', 'o', 0xdd, 0xff, 0xff, 0xff, 0xff, 0xa1, 'a'));
    expect_refused(BYTES(0x81, 0xa2, 't', 'o', 0x91, 0xdb, 0xff, 0xff, 0xff, 0xff, 'a'));
    uint8_t longer[FILTER_MAX_BYTES + 1] = {0x81, 0xa2, 't', 'o', 0x91, 0xda};
    longer[6] = (sizeof longer - 8) >> 8;
    longer[7] = (sizeof longer - 8) & 0xff;
    expect_refused(slice_of(longer, sizeof longer));
}
END_TEST

/* ---- random filters ---- */

#define RANDOM_NAMES 6
struct sample {
    struct filter f;
    struct slice names[3][RANDOM_NAMES];
};

/* Names of a small world, so that they meet. */
static struct slice random_name(struct rng *rng)
{
    static const char *const world[] = {"",
                                        "a",
                                        "b",
                                        "c",
                                        "ann",
                                        "a name of more than 31 bytes, "
                                        "so that it has a str8"};
    return slice_text(world[rng_below(rng, sizeof world / sizeof *world)]);
}

static void random_names(struct rng *rng, struct slice *names, struct filter_names *out)
{
    if (rng_below(rng, 3) == 0)
        return;
    *out = (struct filter_names){names, rng_below(rng, RANDOM_NAMES + 1)};
    for (size_t i = 0; i < out->count; i++)
        names[i] = random_name(rng);
}

static void random_filter(struct rng *rng, struct sample *s)
{
    *s = (struct sample){0};
    random_names(rng, s->names[0], &s->f.to);
    random_names(rng, s->names[1], &s->f.except);
    random_names(rng, s->names[2], &s->f.tags);
}

static bool among(const struct filter_names *names, struct slice name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (slice_equal(names->at[i], name))
            return true;
    }
    return false;
}

static bool named(const struct filter_names *names, struct slice session, struct slice id)
{
    return (session.size > 0 && among(names, session)) || (id.size > 0 && among(names, id));
}

static bool plain_rule(const struct filter *f, struct slice session, struct slice id,
                       const struct slice *tags, size_t n_tags)
{
    bool tagged = !f->tags.at;
    for (size_t i = 0; i < n_tags; i++)
        tagged |= among(&f->tags, tags[i]);
    return tagged && (!f->to.at || named(&f->to, session, id)) && !named(&f->except, session, id);
}

static void same_names(const struct filter_names *a, const struct filter_names *b)
{
    ck_assert(!a->at == !b->at);
    ck_assert_uint_eq(a->count, b->count);
    for (size_t i = 0; i < a->count; i++)
        ck_assert(slice_equal(a->at[i], b->at[i]));
}

START_TEST(random_filters_admit_by_the_rule)
{
    struct rng rng;
    struct message_arena arena = {0};
    size_t admitted = 0;
    rng_seed(&rng, 7);
    for (int i = 0; i < 20000; i++) {
        struct sample s;
        struct filter out;
        struct strbuf b = {0};
        random_filter(&rng, &s);
        ck_assert_int_eq(filter_encode(&b, &s.f), ERR_OK);
        ck_assert_int_eq(filter_decode(strbuf_slice(&b), &arena, &out), ERR_OK);
        same_names(&s.f.to, &out.to);
        same_names(&s.f.except, &out.except);
        same_names(&s.f.tags, &out.tags);
        struct slice session = random_name(&rng), id = random_name(&rng);
        struct slice tags[] = {random_name(&rng), random_name(&rng)};
        size_t n_tags = rng_below(&rng, 3);
        bool admits = filter_admits(strbuf_slice(&b), session, id, tags, n_tags);
        ck_assert(admits == plain_rule(&s.f, session, id, tags, n_tags));
        admitted += admits;
        strbuf_free(&b);
    }
    ck_assert_uint_gt(admitted, 2000);
    ck_assert_uint_lt(admitted, 18000);
    message_arena_free(&arena);
}
END_TEST

START_TEST(damage_is_survived_and_msgpack_c_agrees)
{
    struct rng rng;
    struct message_arena arena = {0};
    rng_seed(&rng, 8);
    for (int i = 0; i < 3000; i++) {
        struct sample s;
        struct strbuf b = {0};
        struct filter out;
        random_filter(&rng, &s);
        ck_assert_int_eq(filter_encode(&b, &s.f), ERR_OK);
        if (b.size > 0) {
            msgpack_unpacked u;
            size_t used = 0;
            msgpack_unpacked_init(&u);
            ck_assert_int_eq(msgpack_unpack_next(&u, (const char *)b.data, b.size, &used),
                             MSGPACK_UNPACK_SUCCESS);
            ck_assert_uint_eq(used, b.size);
            ck_assert_int_eq(u.data.type, MSGPACK_OBJECT_MAP);
            msgpack_unpacked_destroy(&u);
        }
        for (size_t size = 1; size < b.size; size++) { /* each in memory of its exact size */
            uint8_t *cut = malloc(size);
            memcpy(cut, b.data, size);
            expect_refused(slice_of(cut, size));
            free(cut);
        }
        for (size_t k = 0; k < b.size; k++) {
            uint8_t before = b.data[k];
            b.data[k] = (uint8_t)rng_u64(&rng);
            struct slice session = random_name(&rng), id = random_name(&rng), tag = id;
            bool admits = filter_admits(strbuf_slice(&b), session, id, &tag, 1);
            if (filter_decode(strbuf_slice(&b), &arena, &out) == ERR_OK)
                ck_assert(admits == plain_rule(&out, session, id, &tag, 1));
            else
                ck_assert(!admits);
            b.data[k] = before;
        }
        strbuf_free(&b);
    }
    message_arena_free(&arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("filter");
    TCase *tc = tcase_create("filter");
    tcase_add_test(tc, the_rule);
    tcase_add_test(tc, nobody_in_particular);
    tcase_add_test(tc, everybody_is_no_bytes);
    tcase_add_test(tc, golden);
    tcase_add_test(tc, too_large_appends_nothing);
    tcase_add_test(tc, malformed_admits_nobody);
    tcase_add_test(tc, random_filters_admit_by_the_rule);
    tcase_add_test(tc, damage_is_survived_and_msgpack_c_agrees);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
