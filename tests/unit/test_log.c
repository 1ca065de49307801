/* Log lines, byte for byte: both formats, hostile values, cuts. */
#include "common/json.h"
#include "common/log.h"
#include "common/rng.h"
#include "common/strbuf.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>

struct sink {
    struct strbuf text;
    size_t lines;
    int64_t now;
};

static void sink_write(void *ctx, const char *line, size_t size)
{
    struct sink *s = ctx;
    strbuf_put(&s->text, line, size);
    s->lines++;
}

static int64_t sink_time(void *ctx)
{
    return ((struct sink *)ctx)->now;
}

static struct log log_make(struct sink *s, enum log_format format)
{
    return (struct log){.level = LOG_DEBUG, .format = format, .write = sink_write, .ctx = s};
}

static void expect(struct sink *s, const char *line)
{
    ck_assert_str_eq(strbuf_cstr(&s->text), line);
    strbuf_free(&s->text);
    s->lines = 0;
}

START_TEST(text_line)
{
    struct sink s = {.now = INT64_C(1795241553123)};
    struct log log = log_make(&s, LOG_TEXT);
    struct log *l = &log;
    LOG(l, LOG_INFO, "shard.open", LOG_STR("dir", "/data"), LOG_U64("slots", 8192));
    expect(&s, "info  shard.open dir=/data slots=8192\n");
    log.role = "shard-0";
    log.wall_ms = sink_time;
    LOG(l, LOG_ERROR, "x", LOG_I64("delta", -5), LOG_U64("max", UINT64_MAX), LOG_REAL("r", 0.25),
        LOG_SLICE("key", slice_of("room:1 and more", 6)));
    expect(&s, "06:12:33.123 error x role=shard-0 delta=-5 max=18446744073709551615 r=0.25 "
               "key=room:1\n");
    LOG0(l, LOG_WARN, "drain");
    expect(&s, "06:12:33.123 warn  drain role=shard-0\n");
}
END_TEST

START_TEST(json_line)
{
    struct sink s = {.now = INT64_C(1795241553123)};
    struct log log = log_make(&s, LOG_JSON);
    struct log *l = &log;
    LOG0(l, LOG_DEBUG, "tick");
    expect(&s, "{\"level\":\"debug\",\"event\":\"tick\"}\n");
    log.role = "gateway";
    log.wall_ms = sink_time;
    LOG(l, LOG_INFO, "room.open", LOG_STR("key", "a\"b\nc"), LOG_U64("n", 3), LOG_I64("i", -3),
        LOG_REAL("r", 1.5), LOG_REAL("nan", NAN), LOG_REAL("inf", INFINITY));
    expect(&s, "{\"time\":\"2026-11-21T06:12:33.123Z\",\"level\":\"info\",\"event\":\"room.open\","
               "\"role\":\"gateway\",\"key\":\"a\\\"b\\nc\",\"n\":3,\"i\":-3,\"r\":1.5,"
               "\"nan\":null,\"inf\":null}\n");
}
END_TEST

START_TEST(dates)
{
    static const struct {
        int64_t ms;
        const char *time;
    } table[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {INT64_C(951782400000), "2000-02-29T00:00:00.000Z"},
        {INT64_C(951868799999), "2000-02-29T23:59:59.999Z"},
        {INT64_C(951868800000), "2000-03-01T00:00:00.000Z"},
        {INT64_C(1709251199000), "2024-02-29T23:59:59.000Z"},
        {INT64_C(1767225599999), "2025-12-31T23:59:59.999Z"},
        {INT64_C(1767225600000), "2026-01-01T00:00:00.000Z"},
        {INT64_C(4107542400000), "2100-03-01T00:00:00.000Z"},
        {INT64_C(253402300799999), "9999-12-31T23:59:59.999Z"},
        {-1, "1970-01-01T00:00:00.000Z"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct sink s = {.now = table[i].ms};
        struct log log = log_make(&s, LOG_JSON);
        log.wall_ms = sink_time;
        log_emit(&log, LOG_INFO, "t", NULL, 0);
        ck_assert_mem_eq(strbuf_cstr(&s.text), "{\"time\":\"", 9);
        ck_assert_msg(memcmp(s.text.data + 9, table[i].time, 24) == 0, "%s", table[i].time);
        strbuf_free(&s.text);
    }
    static const int64_t extremes[] = {INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < 2; i++) {
        struct sink s = {.now = extremes[i]};
        struct log log = log_make(&s, LOG_JSON);
        log.wall_ms = sink_time;
        log_emit(&log, LOG_INFO, "t", NULL, 0);
        ck_assert(json_valid(strbuf_slice(&s.text)));
        strbuf_free(&s.text);
    }
}
END_TEST

START_TEST(levels_below_are_dropped)
{
    struct sink s = {0};
    struct log log = log_make(&s, LOG_TEXT);
    log.level = LOG_WARN;
    struct log *l = &log;
    LOG0(l, LOG_INFO, "no");
    LOG(l, LOG_DEBUG, "no", LOG_U64("n", 1));
    log_emit(&log, LOG_INFO, "no", NULL, 0);
    ck_assert_uint_eq(s.lines, 0);
    LOG0(l, LOG_WARN, "yes");
    LOG(l, LOG_ERROR, "yes", LOG_U64("n", 1));
    ck_assert_uint_eq(s.lines, 2);
    strbuf_free(&s.text);
    l = NULL;
    LOG0(l, LOG_ERROR, "nobody listens");
    LOG(l, LOG_ERROR, "nobody listens", LOG_U64("n", 1));
}
END_TEST

START_TEST(hostile_values_stay_values)
{
    static const struct {
        const char *value;
        const char *text;
    } table[] = {
        {"", "\"\""},
        {"plain:key-1", "plain:key-1"},
        {"two words", "\"two words\""},
        {"a=b", "\"a=b\""},
        {"x\n12:00:00.000 error forged", "\"x\\n12:00:00.000 error forged\""},
        {"x\" level=error", "\"x\\\" level=error\""},
        {"back\\slash", "\"back\\\\slash\""},
        {"\r\t\x1b[31m", "\"\\u000d\\u0009\\u001b[31m\""},
        {"del\x7f", "\"del\\u007f\""},
        {"c1\xc2\x9b", "\"c1\\u009b\""},
        {"line\xe2\x80\xa8sep", "\"line\\u2028sep\""},
        {"caf\xc3\xa9", "\"caf\xc3\xa9\""},
        {"bad\xff\xc3", "\"bad\\xff\\xc3\""},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct sink s = {0};
        struct log log = log_make(&s, LOG_TEXT);
        struct log *l = &log;
        LOG(l, LOG_INFO, "e", LOG_STR("key", table[i].value), LOG_U64("n", 1));
        struct strbuf line = {0};
        strbuf_printf(&line, "info  e key=%s n=1\n", table[i].text);
        expect(&s, strbuf_cstr(&line));
        strbuf_free(&line);
    }
}
END_TEST

START_TEST(any_bytes_give_one_good_line)
{
    struct rng r;
    rng_seed(&r, 21);
    for (int round = 0; round < 3000; round++) {
        uint8_t bytes[3][2000];
        struct log_field fields[12];
        for (int i = 0; i < 12; i++) {
            rng_bytes(&r, bytes[i % 3], sizeof bytes[0]);
            if (round % 3 == 0)
                memset(bytes[i % 3], round % 2 ? '\n' : 'a', sizeof bytes[0]);
            fields[i] = LOG_SLICE("field", slice_of(bytes[i % 3], rng_below(&r, 2001)));
        }
        struct sink s = {.now = (int64_t)round * 86400000};
        struct log log = log_make(&s, round % 2 ? LOG_JSON : LOG_TEXT);
        log.role = "router-0";
        log.wall_ms = sink_time;
        log_emit(&log, LOG_INFO, "e", fields, rng_below(&r, 13));
        struct slice line = strbuf_slice(&s.text);
        bool good = s.lines == 1 && line.size <= 4096 &&
                    (uint8_t *)memchr(line.data, '\n', line.size) == line.data + line.size - 1;
        if (log.format == LOG_JSON)
            good = good && json_valid(line);
        if (!good)
            ck_abort_msg("round %d: %.*s", round, SLICE_FMT(line));
        strbuf_free(&s.text);
    }
}
END_TEST

START_TEST(long_values_are_cut)
{
    char value[3000];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    struct sink s = {0};
    struct log log = log_make(&s, LOG_TEXT);
    struct log *l = &log;
    LOG(l, LOG_INFO, "e", LOG_STR("long", value), LOG_U64("after", 7));
    ck_assert_uint_eq(s.text.size, strlen("info  e long=") + 1024 + strlen(" after=7\n"));
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&s.text), "vvv...\" after=7\n"));
    strbuf_free(&s.text);

    /* What no longer fits is left out, and the line still ends well. */
    log.format = LOG_JSON;
    LOG(l, LOG_INFO, "e", LOG_STR("a", value), LOG_STR("b", value), LOG_STR("c", value),
        LOG_STR("d", value), LOG_STR("e", value), LOG_U64("after", 7));
    ck_assert_uint_le(s.text.size, 4096);
    ck_assert(json_valid(strbuf_slice(&s.text)));
    ck_assert_int_eq(json_get(strbuf_slice(&s.text), "d").type, JSON_STRING);
    strbuf_free(&s.text);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("log");
    TCase *t = tcase_create("log");
    tcase_add_test(t, text_line);
    tcase_add_test(t, json_line);
    tcase_add_test(t, dates);
    tcase_add_test(t, levels_below_are_dropped);
    tcase_add_test(t, hostile_values_stay_values);
    tcase_add_test(t, any_bytes_give_one_good_line);
    tcase_add_test(t, long_values_are_cut);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
