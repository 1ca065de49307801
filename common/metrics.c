/* CORE. Metrics of one process. A family (one name, HELP and TYPE) owns a list of metrics (one set
 * of labels each); both keep the order of registration, so that two scrapes compare line by line.
 *
 * Touching a metric costs a few integer operations and no branch on its name: the caller holds the
 * pointer from registration. Histogram counts are kept per bucket and summed up when rendered. */
#include "common/metrics.h"

#include "common/err.h"
#include "common/mem.h"

#include <math.h>

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_SECONDS, METRIC_SIZES };

#define SECONDS_BUCKETS 19
#define SIZES_BUCKETS 17
#define BUCKETS_MAX 20 /* the larger, and +Inf */

struct bound {
    int64_t ns;
    const char *text;
};

static const struct bound SECONDS_BOUNDS[SECONDS_BUCKETS] = {
    {50000, "0.00005"},  {100000, "0.0001"},  {200000, "0.0002"},  {500000, "0.0005"},
    {1000000, "0.001"},  {2000000, "0.002"},  {5000000, "0.005"},  {10000000, "0.01"},
    {20000000, "0.02"},  {50000000, "0.05"},  {100000000, "0.1"},  {200000000, "0.2"},
    {500000000, "0.5"},  {1000000000, "1"},   {2000000000, "2"},   {5000000000, "5"},
    {10000000000, "10"}, {20000000000, "20"}, {50000000000, "50"},
};

struct histogram {
    uint64_t count;
    uint64_t sum; /* nanoseconds, or what was counted */
    uint64_t buckets[BUCKETS_MAX];
};

struct metric {
    struct metric *next;
    char *labels;
    enum metric_kind kind;
    union {
        uint64_t counter;
        double gauge;
        struct histogram *histogram;
    };
};

struct family {
    struct family *next;
    char *name;
    char *help;
    enum metric_kind kind;
    struct metric *metrics;
};

struct metrics {
    struct family *families;
};

struct metrics *metrics_create(void)
{
    return (struct metrics *)mem_zalloc(sizeof(struct metrics));
}

static bool is_histogram(enum metric_kind kind)
{
    return kind == METRIC_SECONDS || kind == METRIC_SIZES;
}

static void family_destroy(struct family *f)
{
    for (struct metric *m = f->metrics, *next; m; m = next) {
        next = m->next;
        if (is_histogram(m->kind))
            mem_free(m->histogram);
        mem_free(m->labels);
        mem_free(m);
    }
    mem_free(f->name);
    mem_free(f->help);
    mem_free(f);
}

void metrics_destroy(struct metrics **m)
{
    if (!*m)
        return;
    for (struct family *f = (*m)->families, *next; f; f = next) {
        next = f->next;
        family_destroy(f);
    }
    mem_free(*m);
    *m = NULL;
}

static bool name_valid(const char *name)
{
    if (*name >= '0' && *name <= '9')
        return false;
    const char *p = name;
    while ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
           *p == '_' || *p == ':')
        p++;
    return p != name && *p == '\0';
}

static struct family *family_need(struct metrics *m, const char *name, const char *help,
                                  enum metric_kind kind)
{
    struct family **at = &m->families;
    for (; *at; at = &(*at)->next) {
        if (strcmp((*at)->name, name) == 0) {
            STOA_ASSERT((*at)->kind == kind);
            return *at;
        }
    }
    STOA_ASSERT(name_valid(name));
    struct family *f = (struct family *)mem_zalloc(sizeof *f);
    f->name = mem_strdup(name);
    f->help = mem_strdup(help);
    f->kind = kind;
    *at = f;
    return f;
}

static struct metric *metric_need(struct metrics *m, const char *name, const char *labels,
                                  const char *help, enum metric_kind kind)
{
    struct family *f = family_need(m, name, help, kind);
    struct metric **at = &f->metrics;
    for (; *at; at = &(*at)->next) {
        if (strcmp((*at)->labels, labels) == 0)
            return *at;
    }
    struct metric *metric = (struct metric *)mem_zalloc(sizeof *metric);
    metric->kind = kind;
    metric->labels = mem_strdup(labels);
    if (is_histogram(kind))
        metric->histogram = (struct histogram *)mem_zalloc(sizeof *metric->histogram);
    *at = metric;
    return metric;
}

struct metric *metrics_counter(struct metrics *m, const char *name, const char *labels,
                               const char *help)
{
    return metric_need(m, name, labels, help, METRIC_COUNTER);
}

struct metric *metrics_gauge(struct metrics *m, const char *name, const char *labels,
                             const char *help)
{
    return metric_need(m, name, labels, help, METRIC_GAUGE);
}

struct metric *metrics_seconds(struct metrics *m, const char *name, const char *labels,
                               const char *help)
{
    return metric_need(m, name, labels, help, METRIC_SECONDS);
}

struct metric *metrics_sizes(struct metrics *m, const char *name, const char *labels,
                             const char *help)
{
    return metric_need(m, name, labels, help, METRIC_SIZES);
}

void metric_add(struct metric *metric, uint64_t n)
{
    STOA_ASSERT(metric->kind == METRIC_COUNTER);
    metric->counter += n;
}

void metric_set(struct metric *metric, double value)
{
    STOA_ASSERT(metric->kind == METRIC_GAUGE);
    metric->gauge = value;
}

void metric_move(struct metric *metric, double delta)
{
    STOA_ASSERT(metric->kind == METRIC_GAUGE);
    metric->gauge += delta;
}

static void histogram_add(struct histogram *h, unsigned bucket, uint64_t value)
{
    h->buckets[bucket]++;
    h->count++;
    h->sum += value;
}

void metric_observe_ns(struct metric *metric, int64_t ns)
{
    STOA_ASSERT(metric->kind == METRIC_SECONDS);
    if (ns < 0)
        ns = 0;
    unsigned bucket = 0;
    while (bucket < SECONDS_BUCKETS && ns > SECONDS_BOUNDS[bucket].ns)
        bucket++;
    histogram_add(metric->histogram, bucket, (uint64_t)ns);
}

void metric_observe(struct metric *metric, uint64_t value)
{
    STOA_ASSERT(metric->kind == METRIC_SIZES);
    /* The bucket of 2^n holds the values above 2^(n-1). */
    unsigned bucket = value <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(value - 1);
    histogram_add(metric->histogram, bucket < SIZES_BUCKETS ? bucket : SIZES_BUCKETS, value);
}

double metric_value(const struct metric *metric)
{
    if (metric->kind == METRIC_COUNTER)
        return (double)metric->counter;
    if (metric->kind == METRIC_GAUGE)
        return metric->gauge;
    return (double)metric->histogram->count;
}

static void help_put(struct strbuf *out, const char *help)
{
    for (; *help; help++) {
        if (*help == '\n')
            strbuf_put_text(out, "\\n");
        else if (*help == '\\')
            strbuf_put_text(out, "\\\\");
        else
            strbuf_put_byte(out, (uint8_t)*help);
    }
}

static void real_put(struct strbuf *out, double value)
{
    const double exact = 9007199254740992.0; /* 2^53: integers up to here are themselves */
    if (isnan(value))
        strbuf_put_text(out, "NaN");
    else if (isinf(value))
        strbuf_put_text(out, value > 0 ? "+Inf" : "-Inf");
    else if (value >= -exact && value <= exact && value == (double)(int64_t)value)
        strbuf_printf(out, "%lld", (long long)value);
    else
        strbuf_printf(out, "%.17g", value);
}

/* name_suffix{labels,le="bound"}, without what is empty, and a space. */
static void sample_name_put(struct strbuf *out, const struct family *f, const char *suffix,
                            const char *labels, const char *bound)
{
    strbuf_put_text(out, f->name);
    strbuf_put_text(out, suffix);
    if (*labels || bound) {
        strbuf_put_byte(out, '{');
        strbuf_put_text(out, labels);
        if (bound)
            strbuf_printf(out, "%sle=\"%s\"", *labels ? "," : "", bound);
        strbuf_put_byte(out, '}');
    }
    strbuf_put_byte(out, ' ');
}

static void histogram_put(struct strbuf *out, const struct family *f, const struct metric *metric)
{
    const struct histogram *h = metric->histogram;
    unsigned n = f->kind == METRIC_SECONDS ? SECONDS_BUCKETS : SIZES_BUCKETS;
    uint64_t below = 0;
    for (unsigned i = 0; i <= n; i++) {
        struct strbuf bound = {0};
        if (i == n)
            strbuf_put_text(&bound, "+Inf");
        else if (f->kind == METRIC_SECONDS)
            strbuf_put_text(&bound, SECONDS_BOUNDS[i].text);
        else
            strbuf_put_u64(&bound, UINT64_C(1) << i);
        below += h->buckets[i];
        sample_name_put(out, f, "_bucket", metric->labels, strbuf_cstr(&bound));
        strbuf_put_u64(out, below);
        strbuf_put_byte(out, '\n');
        strbuf_free(&bound);
    }
    STOA_ASSERT(below == h->count);
    sample_name_put(out, f, "_sum", metric->labels, NULL);
    if (f->kind == METRIC_SECONDS)
        strbuf_printf(out, "%llu.%09llu\n", (unsigned long long)(h->sum / 1000000000),
                      (unsigned long long)(h->sum % 1000000000));
    else
        strbuf_printf(out, "%llu\n", (unsigned long long)h->sum);
    sample_name_put(out, f, "_count", metric->labels, NULL);
    strbuf_put_u64(out, h->count);
    strbuf_put_byte(out, '\n');
}

static void metric_put(struct strbuf *out, const struct family *f, const struct metric *metric)
{
    if (is_histogram(f->kind)) {
        histogram_put(out, f, metric);
        return;
    }
    sample_name_put(out, f, "", metric->labels, NULL);
    if (f->kind == METRIC_COUNTER)
        strbuf_put_u64(out, metric->counter);
    else
        real_put(out, metric->gauge);
    strbuf_put_byte(out, '\n');
}

void metrics_render(const struct metrics *m, struct strbuf *out)
{
    static const char *const TYPES[] = {"counter", "gauge", "histogram", "histogram"};
    for (const struct family *f = m->families; f; f = f->next) {
        strbuf_printf(out, "# HELP %s ", f->name);
        help_put(out, f->help);
        strbuf_printf(out, "\n# TYPE %s %s\n", f->name, TYPES[f->kind]);
        for (const struct metric *metric = f->metrics; metric; metric = metric->next)
            metric_put(out, f, metric);
    }
}
