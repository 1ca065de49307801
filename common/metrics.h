/* CORE. Counters, gauges and histograms of one process and their Prometheus text. Register once at
 * start (allocates), touch with plain integer stores afterwards. One thread. No key of a room is
 * ever a label: label sets are small and fixed. */
#ifndef STOA_COMMON_METRICS_H
#define STOA_COMMON_METRICS_H

#include "common/strbuf.h"

struct metrics;
struct metric;

struct metrics *metrics_create(void);
void metrics_destroy(struct metrics **m);

/* `labels` is "" or Prometheus label text without braces (`result="ok"`). Registering the same name
 * and labels again returns the same metric. `name`, `help`, `labels` are copied. */
struct metric *metrics_counter(struct metrics *m, const char *name, const char *labels,
                               const char *help);
struct metric *metrics_gauge(struct metrics *m, const char *name, const char *labels,
                             const char *help);
/* Seconds; buckets 1-2-5 from 50 us to 50 s. */
struct metric *metrics_seconds(struct metrics *m, const char *name, const char *labels,
                               const char *help);
/* Counts; buckets powers of two from 1 to 65536. */
struct metric *metrics_sizes(struct metrics *m, const char *name, const char *labels,
                             const char *help);

void metric_add(struct metric *metric, uint64_t n);    /* counter */
void metric_set(struct metric *metric, double value);  /* gauge */
void metric_move(struct metric *metric, double delta); /* gauge */
void metric_observe_ns(struct metric *metric,
                       int64_t ns); /* seconds histogram; negative counts as 0 */
void metric_observe(struct metric *metric, uint64_t value); /* sizes histogram */
double metric_value(const struct metric *metric); /* counter or gauge; histogram: its count */

/* Appends the exposition, families in registration order, each with HELP and TYPE once. */
void metrics_render(const struct metrics *m, struct strbuf *out);

#endif
