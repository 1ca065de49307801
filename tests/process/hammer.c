/* SHELL. One publisher of the durability tests, on libstoa: bin/stoa-hammer.
 *
 * Publishes numbered events over many keys at a steady rate, catching up after every pause, and
 * writes one line for every outcome:
 *     KEY NUMBER EPOCH-SEQ DUPLICATE SUBMITTED_MS ACKNOWLEDGED_MS
 *     KEY NUMBER failed STATUS SUBMITTED_MS REPORTED_MS STATUS-IN-WORDS     (anything but STOA_OK)
 * Times are the monotonic clock's, which all processes of a machine share. The numbers of a key are
 * 1, 2, 3 ... in order of submission, so whoever reads the log sees what is missing, twice or out
 * of order. Every fourth event has an idempotency key: both ways of being recognised are used.
 *
 * The payload is {"p":PUBLISHER,"n":NUMBER,"pad":"..."}. Ends with 0 when every event was
 * acknowledged.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <stoa.h>

#define KEYS_MAX 4096
#define TURN_MS 5
#define CLOSE_WITHIN_MS 10000

struct hammer {
    stoa *stoa;
    uint64_t publisher, events, keys, rate, window;
    const char *prefix;
    uint64_t random;
    uint64_t numbers[KEYS_MAX];
    uint64_t submitted, reported, refused;
    int64_t started_ms;
};

struct shot {
    struct hammer *hammer;
    uint64_t key, number;
    int64_t submitted_ms;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void on_outcome(void *arg, int status, const stoa_id *id)
{
    struct shot *shot = arg;
    struct hammer *h = shot->hammer;
    char text[40];
    h->reported++;
    if (status == STOA_OK) {
        stoa_id_text(id, text);
        printf("%" PRIu64 " %" PRIu64 " %s %d %" PRId64 " %" PRId64 "\n", shot->key, shot->number,
               text, id->duplicate, shot->submitted_ms, now_ms());
    } else {
        h->refused++;
        printf("%" PRIu64 " %" PRIu64 " failed %d %" PRId64 " %" PRId64 " %s\n", shot->key,
               shot->number, status, shot->submitted_ms, now_ms(), stoa_strerror(status));
    }
    free(shot);
}

/* xorshift64: keys in no order that a batch of one key could hide behind. */
static uint64_t pick_key(struct hammer *h)
{
    h->random ^= h->random << 13;
    h->random ^= h->random >> 7;
    h->random ^= h->random << 17;
    return h->random % h->keys;
}

/* False: the library's queue is full. */
static bool submit(struct hammer *h)
{
    char key[64], payload[256], idempotency[64];
    stoa_publish_options options = STOA_PUBLISH_OPTIONS_INIT;
    struct shot *shot = malloc(sizeof *shot);
    uint64_t before = h->random, k = pick_key(h);
    *shot =
        (struct shot){.hammer = h, .key = k, .number = h->numbers[k] + 1, .submitted_ms = now_ms()};
    snprintf(key, sizeof key, "%s%" PRIu64, h->prefix, k);
    int n = snprintf(payload, sizeof payload,
                     "{\"p\":%" PRIu64 ",\"n\":%" PRIu64 ",\"pad\":\"%0128d\"}", h->publisher,
                     shot->number, 0);
    if (h->submitted % 4 == 0) {
        snprintf(idempotency, sizeof idempotency, "%" PRIu64 "/%" PRIu64, h->publisher,
                 shot->number);
        options.idempotency_key = idempotency;
    }
    int status = stoa_publish_async(h->stoa, key, payload, (size_t)n, &options, on_outcome, shot);
    if (status != STOA_OK) {
        free(shot);
        h->random = before;
        if (status == STOA_BUSY)
            return false;
        fprintf(stderr, "stoa-hammer: publish: %s\n", stoa_strerror(status));
        exit(1);
    }
    h->numbers[k]++;
    h->submitted++;
    return true;
}

static void run(struct hammer *h)
{
    h->started_ms = now_ms();
    while (h->reported < h->events) {
        uint64_t due = (uint64_t)(now_ms() - h->started_ms) * h->rate / 1000 + 1;
        while (h->submitted < h->events && h->submitted < due &&
               h->submitted - h->reported < h->window && submit(h)) {
        }
        if (stoa_poll(h->stoa, TURN_MS) < 0) {
            fprintf(stderr, "stoa-hammer: poll failed\n");
            exit(1);
        }
        fflush(stdout);
    }
}

static void on_log(void *arg, int level, const char *line)
{
    (void)arg;
    (void)level;
    fprintf(stderr, "%s\n", line);
}

int main(int argc, char **argv)
{
    static struct hammer h;
    char why[256], name[32];
    stoa_options options = STOA_OPTIONS_INIT;
    if (argc != 9) {
        fprintf(stderr, "usage: stoa-hammer ROUTERS CLUSTER PUBLISHER EVENTS KEYS PREFIX RATE "
                        "TIMEOUT_MS\n");
        return 2;
    }
    options.routers = argv[1];
    options.cluster = argv[2];
    h.publisher = strtoull(argv[3], NULL, 10);
    h.events = strtoull(argv[4], NULL, 10);
    h.keys = strtoull(argv[5], NULL, 10);
    h.prefix = argv[6];
    h.rate = strtoull(argv[7], NULL, 10);
    h.window = 1000;
    h.random = (h.publisher + 1) * UINT64_C(0x9e3779b97f4a7c15);
    options.timeout_ms = (int)strtol(argv[8], NULL, 10);
    options.log_fn = on_log;
    options.log_level = STOA_LOG_WARN;
    snprintf(name, sizeof name, "hammer-%" PRIu64, h.publisher);
    options.name = name;
    if (h.keys == 0 || h.keys > KEYS_MAX || h.rate == 0) {
        fprintf(stderr, "stoa-hammer: 1 to %d keys, a rate of 1 or more\n", KEYS_MAX);
        return 2;
    }
    if (stoa_open(&h.stoa, &options, why) != STOA_OK) {
        fprintf(stderr, "stoa-hammer: %s\n", why);
        return 1;
    }
    run(&h);
    stoa_close(h.stoa, CLOSE_WITHIN_MS);
    return h.refused == 0 ? 0 : 1;
}
