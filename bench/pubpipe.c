/* SHELL. A pipe into a cluster, through libstoa: for load generators and measurements.
 *
 *   pubpipe ENDPOINT IN_FLIGHT [--ephemeral]
 *       reads lines "KEY<TAB>PAYLOAD", publishes each, and writes "ok" or "fail CODE" for each, in
 *       the order in which the outcomes come
 *   pubpipe ENDPOINT IN_FLIGHT --self SECONDS [--size N] [--keys K] [--ephemeral]
 *       publishes by itself and writes "ACKS_PER_SECOND P50_US P99_US"
 *
 * ENDPOINT is a router's, or several with commas. --cluster NAME: the cluster's name. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stoa.h"

#define LINE_MAX_BYTES (2u << 20)
#define OUT_BYTES (64u << 10)
#define TICK_MS 100
#define CLOSE_MS 5000
#define WARM_MS 10000

struct pipe {
    stoa *client;
    unsigned long in_flight, outstanding;
    bool ephemeral;
    int failed; /* of stdout */
    /* lines in */
    char *in;
    size_t in_size, in_capacity, in_at; /* in_at: where the next line begins */
    bool eof;
    /* lines out */
    char out[OUT_BYTES];
    size_t out_size;
    /* --self */
    double seconds;
    unsigned long size, keys;
    uint64_t acks, failures;
    int64_t end_ns;
    uint32_t *latencies_us;
    size_t n_latencies, latencies_capacity;
    struct note *spare;
};

struct note { /* a publish of --self under way */
    struct note *next;
    struct pipe *pipe;
    int64_t begun_ns;
};

static void *must(void *memory)
{
    if (memory)
        return memory;
    fputs("pubpipe: out of memory\n", stderr);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* ---- stdout ---- */

static void out_flush(struct pipe *p)
{
    size_t at = 0;
    while (at < p->out_size && !p->failed) {
        ssize_t n = write(STDOUT_FILENO, p->out + at, p->out_size - at);
        if (n > 0)
            at += (size_t)n;
        else if (errno != EINTR)
            p->failed = 1;
    }
    p->out_size = 0;
}

static void on_ack(void *arg, int status, const stoa_id *id)
{
    struct pipe *p = arg;
    (void)id;
    if (p->out_size + 32 > sizeof p->out)
        out_flush(p);
    char *at = p->out + p->out_size;
    int n = status == STOA_OK ? snprintf(at, 32, "ok\n") : snprintf(at, 32, "fail %d\n", status);
    p->out_size += (size_t)n;
    p->outstanding--;
}

/* ---- stdin ---- */

static void in_read(struct pipe *p)
{
    if (p->in_at > 0) {
        memmove(p->in, p->in + p->in_at, p->in_size - p->in_at);
        p->in_size -= p->in_at;
        p->in_at = 0;
    }
    if (p->in_size == p->in_capacity) {
        if (p->in_capacity >= LINE_MAX_BYTES) {
            fputs("pubpipe: a line is too long\n", stderr);
            exit(2);
        }
        p->in_capacity = p->in_capacity ? p->in_capacity * 2 : 256 << 10;
        p->in = must(realloc(p->in, p->in_capacity));
    }
    ssize_t n = read(STDIN_FILENO, p->in + p->in_size, p->in_capacity - p->in_size);
    if (n > 0)
        p->in_size += (size_t)n;
    else if (n == 0 || errno != EINTR)
        p->eof = true;
}

/* Publishes the next line. False: there is no whole one, or the queue is full. */
static bool line_publish(struct pipe *p, bool *full)
{
    char *line = p->in + p->in_at;
    char *end = p->in_size > p->in_at ? memchr(line, '\n', p->in_size - p->in_at) : NULL;
    if (!end)
        return false;
    char *tab = memchr(line, '\t', (size_t)(end - line));
    if (!tab) {
        fputs("pubpipe: a line without a tab\n", stderr);
        exit(2);
    }
    *tab = '\0';
    stoa_publish_options options = STOA_PUBLISH_OPTIONS_INIT;
    options.ephemeral = p->ephemeral;
    p->outstanding++;
    int code =
        stoa_publish_async(p->client, line, tab + 1, (size_t)(end - tab - 1), &options, on_ack, p);
    if (code == STOA_BUSY) {
        *tab = '\t';
        p->outstanding--;
        *full = true;
        return false;
    }
    if (code != STOA_OK)
        on_ack(p, code, NULL);
    p->in_at = (size_t)(end + 1 - p->in);
    return true;
}

static int run_pipe(struct pipe *p)
{
    bool full = false;
    while (!p->failed && (!p->eof || p->outstanding > 0)) {
        bool want = !p->eof && !full && p->outstanding < p->in_flight;
        struct pollfd fds[] = {{.fd = stoa_fd(p->client), .events = POLLIN},
                               {.fd = want ? STDIN_FILENO : -1, .events = POLLIN}};
        if (poll(fds, 2, TICK_MS) < 0 && errno != EINTR)
            return 1;
        if (want && fds[1].revents)
            in_read(p);
        do {
            full = false;
            while (p->outstanding < p->in_flight && line_publish(p, &full))
                continue;
        } while (stoa_poll(p->client, 0) > 0);
        out_flush(p);
    }
    return p->failed;
}

/* ---- --self ---- */

static void on_self_ack(void *arg, int status, const stoa_id *id)
{
    struct note *note = arg;
    struct pipe *p = note->pipe;
    (void)id;
    int64_t now = now_ns();
    note->next = p->spare;
    p->spare = note;
    p->outstanding--;
    if (now >= p->end_ns)
        return;
    if (status != STOA_OK) {
        p->failures++;
        return;
    }
    p->acks++;
    if (p->n_latencies == p->latencies_capacity) {
        p->latencies_capacity = p->latencies_capacity ? p->latencies_capacity * 2 : 1 << 20;
        p->latencies_us =
            must(realloc(p->latencies_us, p->latencies_capacity * sizeof *p->latencies_us));
    }
    p->latencies_us[p->n_latencies++] = (uint32_t)((now - note->begun_ns) / 1000);
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t percentile(const struct pipe *p, double part)
{
    if (p->n_latencies == 0)
        return 0;
    return p->latencies_us[(size_t)((double)(p->n_latencies - 1) * part)];
}

/* Fills the window. */
static void self_fill(struct pipe *p, const char *payload, uint64_t *number)
{
    stoa_publish_options options = STOA_PUBLISH_OPTIONS_INIT;
    options.ephemeral = p->ephemeral;
    while (p->spare && p->outstanding < p->in_flight) {
        char key[40];
        struct note *note = p->spare;
        snprintf(key, sizeof key, "bench:%lu", (unsigned long)(*number % p->keys));
        note->begun_ns = now_ns();
        if (stoa_publish_async(p->client, key, payload, p->size, &options, on_self_ack, note) !=
            STOA_OK)
            return;
        p->spare = note->next;
        p->outstanding++;
        ++*number;
    }
}

static int run_self(struct pipe *p)
{
    uint64_t number = 0;
    char *payload = must(malloc(p->size + 1));
    memset(payload, '7', p->size); /* a JSON number */
    stoa_publish_options options = STOA_PUBLISH_OPTIONS_INIT;
    options.timeout_ms = WARM_MS;
    int code = stoa_publish(p->client, "bench:0", payload, p->size, &options, NULL);
    if (code != STOA_OK) {
        fprintf(stderr, "pubpipe: %s\n", stoa_strerror(code));
        return 1;
    }
    struct note *notes = must(calloc(p->in_flight, sizeof *notes));
    for (unsigned long i = 0; i < p->in_flight; i++) {
        notes[i] = (struct note){.next = p->spare, .pipe = p};
        p->spare = &notes[i];
    }
    int64_t begun = now_ns();
    p->end_ns = begun + (int64_t)(p->seconds * 1e9);
    while (now_ns() < p->end_ns) {
        self_fill(p, payload, &number);
        (void)stoa_poll(p->client, TICK_MS);
    }
    stoa_close(p->client, CLOSE_MS); /* callbacks use the notes */
    p->client = NULL;
    qsort(p->latencies_us, p->n_latencies, sizeof *p->latencies_us, compare_u32);
    printf("%.0f %u %u\n", (double)p->acks / p->seconds, percentile(p, .5), percentile(p, .99));
    if (p->failures)
        fprintf(stderr, "pubpipe: %llu failed\n", (unsigned long long)p->failures);
    free(payload);
    free(notes);
    return p->failures > 0;
}

/* ---- arguments ---- */

static int usage(void)
{
    fputs("pubpipe ENDPOINT IN_FLIGHT [--ephemeral] [--cluster NAME]\n"
          "        [--self SECONDS [--size N] [--keys K]]\n",
          stderr);
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"ephemeral", no_argument, NULL, 'e'},     {"self", required_argument, NULL, 's'},
        {"size", required_argument, NULL, 'n'},    {"keys", required_argument, NULL, 'k'},
        {"cluster", required_argument, NULL, 'c'}, {0}};
    static struct pipe p = {.size = 300, .keys = 16};
    stoa_options options = STOA_OPTIONS_INIT;
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (c == 'e')
            p.ephemeral = true;
        else if (c == 's')
            p.seconds = strtod(optarg, NULL);
        else if (c == 'n')
            p.size = strtoul(optarg, NULL, 10);
        else if (c == 'k')
            p.keys = strtoul(optarg, NULL, 10);
        else if (c == 'c')
            options.cluster = optarg;
        else
            return usage();
    }
    if (argc - optind != 2 || p.keys == 0)
        return usage();
    options.routers = argv[optind];
    p.in_flight = strtoul(argv[optind + 1], NULL, 10);
    char why[256];
    if (p.in_flight == 0)
        return usage();
    if (stoa_open(&p.client, &options, why) != STOA_OK) {
        fprintf(stderr, "pubpipe: %s\n", why);
        return 1;
    }
    int status = p.seconds > 0 ? run_self(&p) : run_pipe(&p);
    stoa_close(p.client, CLOSE_MS);
    free(p.in);
    free(p.latencies_us);
    return status;
}
