/* SHELL. stoa bench: load through libstoa, sockets at a gateway, one thread with epoll. Every
 * payload carries the time of its (intended) publish, so a stalled server is charged for the wait.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "client/cli/library.h"
#include "client/cli/socket.h"
#include "common/mem.h"
#include "common/shell/process.h"
#include "common/tick.h"

#define SAMPLES_MAX 1000000
#define EVENTS_AT_ONCE 256
#define DRAIN_S 3

struct bench {
    struct cli *cli;
    const char *scenario;
    uint64_t seconds, size, in_flight, keys, sockets, rate;
    bool ephemeral;
    stoa *client;
    struct bench_socket *open;
    size_t n_open;
    int epoll;
    uint8_t *scratch;
    char *payload;
    char run[17]; /* keys of this run */
    uint64_t sent, acked, failed, outstanding, delivered;
    int64_t *samples; /* latency in ns: publish to ack, or to receive */
    size_t n_samples;
    bool measure_acks;
};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static void sample(struct bench *b, int64_t ns)
{
    if (b->n_samples < SAMPLES_MAX)
        b->samples[b->n_samples++] = ns;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double quantile_us(const struct bench *b, double q)
{
    size_t at = (size_t)(q * (double)b->n_samples);
    return b->n_samples == 0
               ? 0
               : (double)b->samples[at < b->n_samples ? at : b->n_samples - 1] / NS_PER_US;
}

static void on_ack(void *arg, int status, const stoa_id *id)
{
    (void)id;
    int64_t *published = arg;
    struct bench *b = *(struct bench **)(void *)(published + 1);
    b->outstanding--;
    if (status == STOA_OK)
        b->acked++;
    else
        b->failed++;
    if (b->measure_acks)
        sample(b, now_ns() - published[0]);
    mem_free(published);
}

static void on_message(void *ctx, struct slice payload)
{
    struct bench *b = ctx;
    static const char mark[] = "{\"t\":";
    b->delivered++;
    if (!b->measure_acks && payload.size > sizeof mark &&
        memcmp(payload.data, mark, sizeof mark - 1) == 0)
        sample(b, now_ns() - strtoll((const char *)payload.data + sizeof mark - 1, NULL, 10));
}

static bool publish_one(struct bench *b, int64_t intended)
{
    char key[64];
    snprintf(key, sizeof key, "bench:%s:%llu", b->run, (unsigned long long)(b->sent % b->keys));
    int head = snprintf(b->payload, b->size + 64, "{\"t\":%lld,\"p\":\"", (long long)intended);
    size_t size = b->size > (size_t)head + 2 ? b->size : (size_t)head + 2;
    memset(b->payload + head, 'x', size - (size_t)head - 2);
    memcpy(b->payload + size - 2, "\"}", 2);
    stoa_publish_options options = STOA_PUBLISH_OPTIONS_INIT;
    options.ephemeral = b->ephemeral;
    int64_t *note = mem_alloc(2 * sizeof *note);
    note[0] = intended;
    memcpy(note + 1, &b, sizeof b);
    if (stoa_publish_async(b->client, key, b->payload, size, &options, on_ack, note) != STOA_OK) {
        mem_free(note);
        return false;
    }
    b->sent++;
    b->outstanding++;
    return true;
}

/* Publishes what is due: as many as may be in flight, or at the rate. */
static void publish_due(struct bench *b, int64_t start)
{
    int64_t now = now_ns();
    for (;;) {
        int64_t intended = now;
        if (b->rate > 0) {
            intended = start + (int64_t)(b->sent * (uint64_t)NS_PER_S / b->rate);
            if (intended > now)
                return;
        } else if (b->outstanding >= b->in_flight ||
                   (b->n_open > 0 &&
                    b->sent * b->sockets > b->delivered + b->in_flight * b->sockets)) {
            return;
        }
        if (!publish_one(b, intended))
            return;
    }
}

static bool turn(struct bench *b, int timeout_ms)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int n = epoll_wait(b->epoll, events, EVENTS_AT_ONCE, timeout_ms);
    for (int i = 0; i < n; i++) {
        struct bench_socket *s = events[i].data.ptr;
        if (s != NULL && !socket_read(s, b->scratch, on_message, b)) {
            cli_fail(b->cli, "a socket was closed by the gateway");
            return false;
        }
    }
    stoa_poll(b->client, 0);
    return true;
}

static bool open_all(struct bench *b)
{
    struct epoll_event event = {.events = EPOLLIN};
    size_t want = strcmp(b->scenario, "publish") == 0 ? 0 : b->keys * b->sockets;
    b->epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(b->epoll, EPOLL_CTL_ADD, stoa_fd(b->client), &event);
    b->open = mem_zalloc((want + 1) * sizeof *b->open);
    for (; b->n_open < want; b->n_open++) {
        char key[64];
        struct bench_socket *s = &b->open[b->n_open];
        snprintf(key, sizeof key, "bench:%s:%zu", b->run, (size_t)(b->n_open % b->keys));
        if (!socket_open(b->cli, key, s))
            return false;
        event.data.ptr = s;
        epoll_ctl(b->epoll, EPOLL_CTL_ADD, s->fd, &event);
        if (!b->cli->quiet && !b->cli->json && b->n_open % 500 == 499)
            fprintf(stderr, "%zu of %zu sockets open\n", b->n_open + 1, want);
    }
    return true;
}

static bool run(struct bench *b)
{
    int64_t start = now_ns(), end = start + (int64_t)b->seconds * NS_PER_S;
    bool fine = true;
    while (fine && now_ns() < end) {
        publish_due(b, start);
        fine = turn(b, b->rate > 0 ? 0 : 1);
    }
    uint64_t acked = b->acked, delivered = b->delivered;
    double seconds = (double)(now_ns() - start) / (double)NS_PER_S;
    end = now_ns() + DRAIN_S * NS_PER_S;
    while (fine && now_ns() < end &&
           (b->outstanding > 0 || (b->n_open > 0 && b->delivered < b->sent * b->sockets)))
        fine = turn(b, 1);
    qsort(b->samples, b->n_samples, sizeof *b->samples, compare);
    const char *format = b->cli->json
                             ? "{\"scenario\":\"%s\",\"acks_per_s\":%.0f,\"deliveries_per_s\":%.0f,"
                               "\"published\":%llu,\"failed\":%llu,\"delivered\":%llu,"
                               "\"p50_us\":%.0f,\"p99_us\":%.0f,\"max_us\":%.0f}\n"
                             : "%s: %.0f acks/s, %.0f deliveries/s; %llu published, %llu failed, "
                               "%llu delivered; p50 %.0f us, p99 %.0f us, max %.0f us\n";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    printf(format, b->scenario, (double)acked / seconds, (double)delivered / seconds,
           (unsigned long long)b->sent, (unsigned long long)b->failed,
           (unsigned long long)b->delivered, quantile_us(b, 0.5), quantile_us(b, 0.99),
           quantile_us(b, 1));
#pragma GCC diagnostic pop
    return fine && b->failed == 0;
}

static bool read_options(struct bench *b, int argc, char **argv)
{
    static const struct option own[] = {
        {"seconds", required_argument, NULL, 'S'},   {"size", required_argument, NULL, 'Z'},
        {"in-flight", required_argument, NULL, 'W'}, {"keys", required_argument, NULL, 'K'},
        {"sockets", required_argument, NULL, 'C'},   {"rate", required_argument, NULL, 'R'},
        {"ephemeral", no_argument, NULL, 'e'},       {0}};
    for (int c; (c = cli_option(b->cli, argc, argv, "", own)) != -1;) {
        if (c == 'e') {
            b->ephemeral = true;
            continue;
        }
        uint64_t *field = c == 'S'   ? &b->seconds
                          : c == 'Z' ? &b->size
                          : c == 'W' ? &b->in_flight
                          : c == 'K' ? &b->keys
                          : c == 'C' ? &b->sockets
                          : c == 'R' ? &b->rate
                                     : NULL;
        uint64_t max = c == 'Z' ? 512 * 1024 : c == 'R' ? 1000000 : 100000;
        if (field == NULL || !cli_number(b->cli, "each of these options", optarg, 1, max, field))
            return false;
    }
    if (argc - optind != 1) {
        cli_misuse(b->cli, "name one scenario: publish, fanout or latency");
        return false;
    }
    b->scenario = argv[optind];
    bool known = strcmp(b->scenario, "publish") == 0 || strcmp(b->scenario, "fanout") == 0 ||
                 strcmp(b->scenario, "latency") == 0;
    if (!known)
        cli_misuse(b->cli, "no scenario \"%s\"; there are publish, fanout and latency",
                   b->scenario);
    else if (b->cli->router == NULL)
        cli_misuse(b->cli,
                   "say where to publish with --router, for example ipc://$PWD/data/run/router-0");
    return known && b->cli->router != NULL;
}

int command_bench(struct cli *cli, int argc, char **argv)
{
    struct bench b = {
        .cli = cli, .seconds = 5, .size = 200, .in_flight = 64, .keys = 1, .sockets = 1};
    if (!read_options(&b, argc, argv))
        return EXIT_USAGE;
    if (strcmp(b.scenario, "latency") == 0 && b.rate == 0)
        b.rate = 500;
    b.measure_acks = strcmp(b.scenario, "publish") == 0;
    snprintf(b.run, sizeof b.run, "%08llx", (unsigned long long)(process_random() & 0xffffffff));
    process_raise_nofile();
    b.client = library_open(cli);
    if (b.client == NULL)
        return EXIT_FAILED;
    b.scratch = mem_alloc(SOCKET_BUFFER_BYTES);
    b.payload = mem_alloc(b.size + 64);
    b.samples = mem_alloc(SAMPLES_MAX * sizeof *b.samples);
    bool fine = open_all(&b) && run(&b);
    for (size_t i = 0; i < b.n_open; i++)
        socket_close(&b.open[i]);
    stoa_close(b.client, 1000);
    close(b.epoll);
    mem_free(b.open);
    mem_free(b.scratch);
    mem_free(b.payload);
    mem_free(b.samples);
    return fine ? EXIT_OK : EXIT_FAILED;
}
