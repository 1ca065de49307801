/* SHELL. Histograms, and all figures as one line of JSON. */
#include <stdio.h>

#include "common/mem.h"
#include "load.h"

#define STEPS (1u << HISTOGRAM_STEP_BITS)

static size_t place_of(uint64_t ns)
{
    if (ns < 2 * STEPS)
        return (size_t)ns;
    int power = 63 - __builtin_clzll(ns) - HISTOGRAM_STEP_BITS;
    size_t place = ((size_t)power << HISTOGRAM_STEP_BITS) + (size_t)(ns >> power);
    return place < HISTOGRAM_SIZE ? place : HISTOGRAM_SIZE - 1;
}

static uint64_t middle_of(size_t place)
{
    if (place < 2 * STEPS)
        return place;
    unsigned power = (unsigned)(place >> HISTOGRAM_STEP_BITS) - 1;
    return ((place - ((uint64_t)power << HISTOGRAM_STEP_BITS)) << power) +
           (UINT64_C(1) << power) / 2;
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    h->at[place_of(ns)]++;
    h->count++;
    h->sum += ns;
    if (ns > h->max)
        h->max = ns;
}

static double quantile_us(const struct histogram *h, double q)
{
    uint64_t wanted = (uint64_t)(q * (double)h->count + 0.5), seen = 0;
    for (size_t i = 0; i < HISTOGRAM_SIZE && h->count > 0; i++) {
        seen += h->at[i];
        if (seen >= (wanted > 0 ? wanted : 1))
            return (double)(middle_of(i) < h->max ? middle_of(i) : h->max) / 1e3;
    }
    return 0;
}

/* Rooms whose subscribers have not all seen the same in the same order. */
static uint64_t rooms_that_differ(const struct load *l)
{
    const struct subscriber **first =
        (const struct subscriber **)mem_zalloc(l->options.rooms * sizeof *first);
    bool *differs = (bool *)mem_zalloc(l->options.rooms * sizeof *differs);
    uint64_t count = 0;
    for (uint32_t i = 0; i < l->options.conns; i++) {
        const struct subscriber *s = &l->subscribers[i], **other = &first[s->link.room];
        if (s->link.state != STATE_OPEN)
            continue;
        if (!*other)
            *other = s;
        else if (((*other)->hash != s->hash || (*other)->received != s->received))
            differs[s->link.room] = true;
    }
    for (uint32_t i = 0; i < l->options.rooms; i++)
        count += differs[i];
    mem_free(first);
    mem_free(differs);
    return count;
}

static void put(struct strbuf *out, const char *name, double value)
{
    strbuf_printf(out, "%s\"%s\":%.15g", out->size > 1 ? "," : "", name, value);
}

static double per(double value, double count)
{
    return count > 0 ? value / count : 0;
}

static void counts_put(struct strbuf *out, const struct load *l)
{
    const struct figures *f = &l->figures;
    put(out, "conns", (double)f->opened);
    put(out, "conn_failed", (double)f->failed);
    put(out, "conn_closed", (double)f->closed);
    put(out, "rooms", l->options.rooms);
    put(out, "published", (double)f->published);
    put(out, "expected", (double)f->expected);
    put(out, "delivered", (double)f->delivered);
    put(out, "lost", (double)f->expected - (double)f->delivered);
    put(out, "dup", (double)f->dups);
    put(out, "out_of_order", (double)f->out_of_order);
    put(out, "gaps", (double)f->gaps);
    put(out, "rooms_order_differs", (double)rooms_that_differ(l));
    put(out, "ignored", (double)f->ignored);
    put(out, "bad_status", (double)f->bad_status);
    put(out, "bad_status_last", f->last_bad_status);
    put(out, "pub_reconnects", (double)f->reconnects);
    put(out, "pub_backlog_max", (double)f->backlog_max);
    put(out, "stalls", (double)f->stalls);
}

/* How long the measured time was. */
static double seconds_of(const struct load *l)
{
    const struct figures *f = &l->figures;
    if (l->options.no_pub)
        return 1;
    if (l->options.count < 0)
        return l->options.duration;
    return f->last_ns > l->measured_from ? (double)(f->last_ns - l->measured_from) / 1e9
                                         : f->wall_s;
}

static void times_put(struct strbuf *out, const struct load *l)
{
    const struct figures *f = &l->figures;
    const struct histogram *d = &f->delivery;
    double seconds = seconds_of(l);
    put(out, "p50_us", quantile_us(d, .5));
    put(out, "p90_us", quantile_us(d, .9));
    put(out, "p99_us", quantile_us(d, .99));
    put(out, "p999_us", quantile_us(d, .999));
    put(out, "max_us", (double)d->max / 1e3);
    put(out, "mean_us", per((double)d->sum / 1e3, (double)d->count));
    put(out, "deliveries_per_s", per((double)f->delivered_window, seconds));
    put(out, "publish_per_s", per((double)f->published, seconds));
    put(out, "acks_per_s", per((double)f->acked_window, seconds));
    put(out, "ack_p50_us", quantile_us(&f->ack, .5));
    put(out, "ack_p99_us", quantile_us(&f->ack, .99));
    put(out, "ack_max_us", (double)f->ack.max / 1e3);
    put(out, "connect_s", f->connect_s);
    put(out, "connects_per_s", per((double)f->opened, f->connect_s));
    put(out, "connect_p50_us", quantile_us(&f->connect, .5));
    put(out, "connect_p99_us", quantile_us(&f->connect, .99));
    put(out, "gen_cpu_pct", per(100 * f->self_cpu_s, f->wall_s));
    if (l->options.replay > 0) {
        put(out, "publish_s", f->publish_s);
        put(out, "replay_s", f->replay_s);
        put(out, "replayed_per_s", per((double)f->delivered, f->replay_s));
    }
}

static void servers_put(struct strbuf *out, const struct load *l)
{
    const struct figures *f = &l->figures;
    double opened = (double)f->opened, busy_s = f->ended.cpu_s - f->begun.cpu_s;
    put(out, "srv_rss0_kb", f->before.rss_kib);
    put(out, "srv_rss_conn_kb", f->held.rss_kib);
    put(out, "srv_rss_end_kb", f->ended.rss_kib);
    put(out, "rss_per_conn_b", per((f->held.rss_kib - f->before.rss_kib) * 1024, opened));
    put(out, "pss_per_conn_b", per((f->held.pss_kib - f->before.pss_kib) * 1024, opened));
    put(out, "srv_cpu_pct", per(100 * busy_s, f->wall_s));
    put(out, "srv_cpu_us_per_delivery", per(1e6 * busy_s, (double)f->delivered_window));
    put(out, "srv_cpu_us_per_connect", per(1e6 * (f->connected.cpu_s - f->before.cpu_s), opened));
    put(out, "idle_cpu_pct", per(100 * (f->held.cpu_s - f->held_from.cpu_s), l->options.hold));
}

void report(const struct load *l)
{
    struct strbuf out = {0};
    strbuf_put_byte(&out, '{');
    counts_put(&out, l);
    times_put(&out, l);
    if (l->options.n_pids > 0)
        servers_put(&out, l);
    strbuf_put_byte(&out, '}');
    puts(strbuf_cstr(&out));
    strbuf_free(&out);
}
