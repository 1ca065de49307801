/* SHELL. stoa tail: one event stream per key, read until the command is ended. A stream that breaks
 * is opened again after a jittered pause, from the last id that was seen; what could not be given
 * is told on stderr. Everything is asked for, conflated events too and those that are for others,
 * which who may manage the key is given: a log is read whole. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "client/cli/event.h"
#include "client/cli/http.h"
#include "common/limits.h"
#include "common/mem.h"
#include "common/shell/process.h"
#include "common/tick.h"

#define RETRY_MIN_MS 250 /* full jitter up to the double, as browsers' clients do */
#define RETRY_MAX_MS 10000
#define SILENCE_S 45 /* three comments of an event stream */

struct stream {
    const struct cli *cli;
    const char *key;
    bool print_key, raw;
    struct strbuf id;  /* of the last event; sent as Last-Event-ID */
    bool has_id, told; /* this event has one; the silence of the gateway was told */
    struct strbuf line, data, event;
    const char *first; /* query of the first request: "replay=all", "after=ID" */
    CURL *curl;
    struct curl_slist *headers;
    int64_t again_ms; /* when to open it, 0: it is open */
    int64_t pause_ms;
    long refused; /* status that ends the command */
    struct strbuf refusal;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / NS_PER_MS;
}

/* ---- the event-stream format ---- */

/* As GET /log has it: `data` when the payload is JSON, else `base64`. */
static void print_json(const struct stream *s, struct slice payload)
{
    struct strbuf out = {0};
    strbuf_put_text(&out, "{\"key\":");
    json_quote(&out, slice_text(s->key));
    strbuf_put_text(&out, ",\"id\":");
    if (s->has_id)
        json_quote(&out, strbuf_slice(&s->id));
    else
        strbuf_put_text(&out, "null");
    if (json_valid(payload)) {
        strbuf_put_text(&out, ",\"data\":");
        strbuf_put_slice(&out, payload);
    } else {
        strbuf_put_text(&out, ",\"base64\":\"");
        base64_encode(payload, &out);
        strbuf_put_byte(&out, '"');
    }
    printf("%.*s}\n", SLICE_FMT(strbuf_slice(&out)));
    strbuf_free(&out);
}

/* `end` is about the stream: why it ended is learned when it is opened again. */
static bool is_of_key(struct slice event)
{
    return event.size == 0 || slice_is(event, "message") || slice_is(event, "base64");
}

static void dispatch(struct stream *s)
{
    struct slice data = strbuf_slice(&s->data), event = strbuf_slice(&s->event);
    if (data.size > 0 && data.data[data.size - 1] == '\n')
        data.size--;
    if (slice_is(event, "missed")) {
        if (!s->cli->quiet)
            missed_print(data);
    } else if (s->data.size > 0 && is_of_key(event)) {
        struct slice id = s->has_id ? strbuf_slice(&s->id) : slice_text("-"); /* ephemeral */
        struct strbuf payload = {0};
        if (slice_is(event, "base64") && base64_decode(data, &payload))
            data = strbuf_slice(&payload);
        if (s->cli->json)
            print_json(s, data);
        else
            event_print(s->print_key ? s->key : NULL, id, data, s->raw);
        strbuf_free(&payload);
    }
    strbuf_reset(&s->data);
    strbuf_reset(&s->event);
    s->has_id = false;
}

static void take_line(struct stream *s, struct slice line)
{
    if (line.size == 0) {
        dispatch(s);
        return;
    }
    const uint8_t *colon = memchr(line.data, ':', line.size);
    if (colon == line.data)
        return;
    struct slice name = colon ? slice_of(line.data, (size_t)(colon - line.data)) : line,
                 value = {0};
    if (colon != NULL) {
        size_t skip = name.size + 1 + (name.size + 1 < line.size && colon[1] == ' ');
        value = slice_of(line.data + skip, line.size - skip);
    }
    if (slice_is(name, "data")) {
        strbuf_put_slice(&s->data, value);
        strbuf_put_byte(&s->data, '\n');
    } else if (slice_is(name, "event")) {
        strbuf_reset(&s->event);
        strbuf_put_slice(&s->event, value);
    } else if (slice_is(name, "id")) {
        strbuf_reset(&s->id);
        strbuf_put_slice(&s->id, value);
        s->has_id = true;
    }
}

static size_t on_bytes(char *bytes, size_t unit, size_t count, void *ctx)
{
    struct stream *s = ctx;
    size_t size = unit * count;
    long status = 0;
    curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        if (s->refusal.size < 64 * KIB)
            strbuf_put(&s->refusal, bytes, size);
        return size;
    }
    s->pause_ms = RETRY_MIN_MS;
    s->told = false;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != '\n') {
            strbuf_put_byte(&s->line, (uint8_t)bytes[i]);
            continue;
        }
        struct slice line = strbuf_slice(&s->line);
        if (line.size > 0 && line.data[line.size - 1] == '\r')
            line.size--;
        take_line(s, line);
        strbuf_reset(&s->line);
    }
    fflush(stdout);
    return s->line.size + s->data.size > 4 * PAYLOAD_HARD_MAX_BYTES ? 0 : size;
}

/* ---- connections ---- */

/* Where the key's events stream: /events has keys of the type `events` only. */
static void put_path(struct strbuf *target, const char *key)
{
    const char *colon = strchr(key, ':');
    struct strbuf encoded = {0};
    if (colon == NULL || colon == key || colon[1] == '\0') {
        strbuf_put_text(target, "/events?conflate=none&filter=none");
        http_query_add(target, "key", slice_text(key));
        return;
    }
    http_query_add(&encoded, "", slice_of(key, (size_t)(colon - key))); /* "?=TYPE" */
    strbuf_printf(target, "/api/%s/", strbuf_cstr(&encoded) + 2);
    strbuf_reset(&encoded);
    http_query_add(&encoded, "", slice_text(colon + 1));
    strbuf_printf(target, "%s/events?conflate=none&filter=none", strbuf_cstr(&encoded) + 2);
    strbuf_free(&encoded);
}

static void stream_open(struct stream *s, CURLM *multi)
{
    struct strbuf target = {0}, last = {0};
    put_path(&target, s->key);
    if (s->id.size == 0)
        strbuf_printf(&target, "&%s", s->first);
    s->curl = http_handle(s->cli, strbuf_cstr(&target), &s->headers);
    s->headers = curl_slist_append(s->headers, "Accept: text/event-stream");
    if (s->id.size > 0) {
        strbuf_printf(&last, "Last-Event-ID: %.*s", SLICE_FMT(strbuf_slice(&s->id)));
        s->headers = curl_slist_append(s->headers, strbuf_cstr(&last));
    }
    curl_easy_setopt(s->curl, CURLOPT_HTTPHEADER, s->headers);
    curl_easy_setopt(s->curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(s->curl, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(s->curl, CURLOPT_PRIVATE, s);
    curl_easy_setopt(s->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(s->curl, CURLOPT_LOW_SPEED_TIME, (long)SILENCE_S);
    curl_multi_add_handle(multi, s->curl);
    s->again_ms = 0;
    strbuf_free(&target);
    strbuf_free(&last);
}

static void stream_close(struct stream *s, CURLM *multi)
{
    if (s->curl == NULL)
        return;
    curl_multi_remove_handle(multi, s->curl);
    curl_easy_cleanup(s->curl);
    curl_slist_free_all(s->headers);
    s->curl = NULL;
    s->headers = NULL;
    strbuf_reset(&s->line);
    strbuf_reset(&s->data);
    strbuf_reset(&s->event);
}

/* A 4xx is final: asking again would get the same. */
static bool stream_ended(struct stream *s, CURLM *multi)
{
    long status = 0;
    curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
    stream_close(s, multi);
    if (status >= 400 && status < 500 && status != 429) {
        struct http_result r = {.status = status, .body = s->refusal};
        http_complain(s->cli, &r);
        return false;
    }
    if (status != 200 && !s->told && !s->cli->quiet) {
        cli_fail(s->cli,
                 "no events from %s just now; trying again (-s URL or STOA_SERVER names "
                 "another)",
                 s->cli->server);
        s->told = true;
    }
    strbuf_reset(&s->refusal);
    int64_t jitter = (int64_t)(process_random() % (uint64_t)s->pause_ms);
    s->again_ms = now_ms() + s->pause_ms / 2 + jitter;
    s->pause_ms = s->pause_ms * 2 < RETRY_MAX_MS ? s->pause_ms * 2 : RETRY_MAX_MS;
    return true;
}

static bool turn(struct stream *streams, size_t n, CURLM *multi)
{
    int running, left;
    int64_t now = now_ms();
    for (size_t i = 0; i < n; i++)
        if (streams[i].again_ms != 0 && streams[i].again_ms <= now)
            stream_open(&streams[i], multi);
    curl_multi_perform(multi, &running);
    for (CURLMsg *m; (m = curl_multi_info_read(multi, &left)) != NULL;) {
        struct stream *s = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s);
        if (!stream_ended(s, multi))
            return false;
    }
    curl_multi_poll(multi, NULL, 0, 100, NULL);
    return !ferror(stdout);
}

int command_tail(struct cli *cli, int argc, char **argv)
{
    static const struct option own[] = {{"replay", required_argument, NULL, 'n'},
                                        {"after", required_argument, NULL, 'a'},
                                        {"raw", no_argument, NULL, 'r'},
                                        {0}};
    const char *replay = "none", *after = NULL;
    bool raw = false;
    uint64_t number;
    for (int c; (c = cli_option(cli, argc, argv, "n:a:r", own)) != -1;) {
        if (c == 'n')
            replay = optarg;
        else if (c == 'a')
            after = optarg;
        else if (c == 'r')
            raw = true;
        else
            return EXIT_USAGE;
    }
    if (optind == argc)
        return cli_misuse(cli, "give one key or several");
    if (strcmp(replay, "all") != 0 && strcmp(replay, "none") != 0 &&
        !cli_number(cli, "-n (all, none or a number)", replay, 0, UINT32_MAX, &number))
        return EXIT_USAGE;
    struct strbuf first = {0};
    http_query_add(&first, after ? "after" : "replay", slice_text(after ? after : replay));
    size_t n = (size_t)(argc - optind);
    struct stream *streams = mem_zalloc(n * sizeof *streams);
    CURLM *multi = curl_multi_init();
    for (size_t i = 0; i < n; i++)
        streams[i] = (struct stream){.cli = cli,
                                     .key = argv[optind + (int)i],
                                     .print_key = n > 1,
                                     .raw = raw,
                                     .first = strbuf_cstr(&first) + 1,
                                     .again_ms = 1,
                                     .pause_ms = RETRY_MIN_MS};
    while (turn(streams, n, multi))
        continue;
    for (size_t i = 0; i < n; i++) {
        stream_close(&streams[i], multi);
        strbuf_free(&streams[i].id);
        strbuf_free(&streams[i].line);
        strbuf_free(&streams[i].data);
        strbuf_free(&streams[i].event);
        strbuf_free(&streams[i].refusal);
    }
    curl_multi_cleanup(multi);
    mem_free(streams);
    strbuf_free(&first);
    return EXIT_FAILED;
}
