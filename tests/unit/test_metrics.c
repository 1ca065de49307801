/* The exposition, byte for byte, and which bucket a value falls into. */
#include "common/metrics.h"

#include <check.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static char *render(const struct metrics *m)
{
    static struct strbuf out;
    strbuf_reset(&out);
    metrics_render(m, &out);
    return (char *)(uintptr_t)strbuf_cstr(&out);
}

static void expect_line(const struct metrics *m, const char *line)
{
    char framed[200];
    snprintf(framed, sizeof framed, "\n%s\n", line);
    ck_assert_msg(strstr(render(m), framed) != NULL, "no line: %s", line);
}

START_TEST(counters_and_gauges)
{
    struct metrics *m = metrics_create();
    ck_assert_str_eq(render(m), "");
    struct metric *ok = metrics_counter(m, "stoa_publish_total", "result=\"ok\"", "Publishes.");
    struct metric *rooms = metrics_gauge(m, "stoa_rooms", "", "Rooms\nin \\memory.");
    struct metric *bad = metrics_counter(m, "stoa_publish_total", "result=\"bad\"", "Publishes.");
    metric_add(ok, 2);
    metric_add(ok, 40);
    metric_add(bad, UINT64_MAX);
    metric_set(rooms, 10);
    metric_move(rooms, -2.5);
    ck_assert_str_eq(render(m), "# HELP stoa_publish_total Publishes.\n"
                                "# TYPE stoa_publish_total counter\n"
                                "stoa_publish_total{result=\"ok\"} 42\n"
                                "stoa_publish_total{result=\"bad\"} 18446744073709551615\n"
                                "# HELP stoa_rooms Rooms\\nin \\\\memory.\n"
                                "# TYPE stoa_rooms gauge\n"
                                "stoa_rooms 7.5\n");
    ck_assert_double_eq(metric_value(ok), 42);
    ck_assert_double_eq(metric_value(rooms), 7.5);
    metrics_destroy(&m);
    ck_assert_ptr_null(m);
    metrics_destroy(&m);
}
END_TEST

START_TEST(same_name_and_labels_is_the_same_metric)
{
    struct metrics *m = metrics_create();
    char labels[] = "tag=\"a\"";
    struct metric *a = metrics_counter(m, "c_total", labels, "C.");
    ck_assert_ptr_eq(metrics_counter(m, "c_total", "tag=\"a\"", "C."), a);
    labels[5] = 'b'; /* names and labels were copied */
    ck_assert_ptr_ne(metrics_counter(m, "c_total", labels, "C."), a);
    ck_assert_ptr_ne(metrics_counter(m, "c_total", "", "C."), a);
    expect_line(m, "c_total{tag=\"a\"} 0");
    expect_line(m, "c_total{tag=\"b\"} 0");
    expect_line(m, "c_total 0");
    metrics_destroy(&m);
}
END_TEST

START_TEST(gauge_values)
{
    static const struct {
        double value;
        const char *text;
    } table[] = {
        {0, "g 0"},
        {-3, "g -3"},
        {1e15, "g 1000000000000000"},
        {0.5, "g 0.5"},
        {1e300, "g 1.0000000000000001e+300"},
        {NAN, "g NaN"},
        {INFINITY, "g +Inf"},
        {-INFINITY, "g -Inf"},
        {1e-9, "g 1.0000000000000001e-09"},
    };
    struct metrics *m = metrics_create();
    struct metric *g = metrics_gauge(m, "g", "", "G.");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        metric_set(g, table[i].value);
        expect_line(m, table[i].text);
    }
    metrics_destroy(&m);
}
END_TEST

START_TEST(seconds)
{
    struct metrics *m = metrics_create();
    struct metric *h = metrics_seconds(m, "t_seconds", "phase=\"x\"", "T.");
    metric_observe_ns(h, -7);
    metric_observe_ns(h, 50000);
    metric_observe_ns(h, 50001);
    metric_observe_ns(h, 1500000000);
    metric_observe_ns(h, 50000000000);
    metric_observe_ns(h, 50000000001);
    static const char *const lines[] = {
        "# TYPE t_seconds histogram",
        "t_seconds_bucket{phase=\"x\",le=\"0.00005\"} 2",
        "t_seconds_bucket{phase=\"x\",le=\"0.0001\"} 3",
        "t_seconds_bucket{phase=\"x\",le=\"1\"} 3",
        "t_seconds_bucket{phase=\"x\",le=\"2\"} 4",
        "t_seconds_bucket{phase=\"x\",le=\"20\"} 4",
        "t_seconds_bucket{phase=\"x\",le=\"50\"} 5",
        "t_seconds_bucket{phase=\"x\",le=\"+Inf\"} 6",
        "t_seconds_sum{phase=\"x\"} 101.500100002",
        "t_seconds_count{phase=\"x\"} 6",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        expect_line(m, lines[i]);
    ck_assert_double_eq(metric_value(h), 6);
    size_t buckets = 0;
    for (char *p = render(m); (p = strstr(p, "_bucket")); p++)
        buckets++;
    ck_assert_uint_eq(buckets, 20);
    metrics_destroy(&m);
}
END_TEST

START_TEST(sizes)
{
    static const struct {
        uint64_t value;
        const char *line; /* of the first bucket that counts it */
    } table[] = {
        {0, "n_bucket{le=\"1\"} 1"},
        {1, "n_bucket{le=\"1\"} 2"},
        {2, "n_bucket{le=\"2\"} 3"},
        {3, "n_bucket{le=\"4\"} 4"},
        {4, "n_bucket{le=\"4\"} 5"},
        {5, "n_bucket{le=\"8\"} 6"},
        {65536, "n_bucket{le=\"65536\"} 7"},
        {65537, "n_bucket{le=\"+Inf\"} 8"},
        {UINT32_MAX, "n_bucket{le=\"+Inf\"} 9"},
    };
    struct metrics *m = metrics_create();
    struct metric *h = metrics_sizes(m, "n", "", "N.");
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        metric_observe(h, table[i].value);
        sum += table[i].value;
        expect_line(m, table[i].line);
    }
    expect_line(m, "n_bucket{le=\"32768\"} 6");
    char line[64];
    snprintf(line, sizeof line, "n_sum %llu", (unsigned long long)sum);
    expect_line(m, line);
    expect_line(m, "n_count 9");
    metrics_destroy(&m);
}
END_TEST

START_TEST(another_kind_under_the_name)
{
    struct metrics *m = metrics_create();
    metrics_counter(m, "c", "", "C.");
    metrics_gauge(m, "c", "", "C.");
}
END_TEST

START_TEST(setting_a_counter)
{
    metric_set(metrics_counter(metrics_create(), "c", "", "C."), 1);
}
END_TEST

START_TEST(name_with_a_dash)
{
    metrics_counter(metrics_create(), "a-b", "", "C.");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("metrics");
    TCase *t = tcase_create("metrics");
    tcase_add_test(t, counters_and_gauges);
    tcase_add_test(t, same_name_and_labels_is_the_same_metric);
    tcase_add_test(t, gauge_values);
    tcase_add_test(t, seconds);
    tcase_add_test(t, sizes);
    tcase_add_test_raise_signal(t, another_kind_under_the_name, SIGABRT);
    tcase_add_test_raise_signal(t, setting_a_counter, SIGABRT);
    tcase_add_test_raise_signal(t, name_with_a_dash, SIGABRT);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
