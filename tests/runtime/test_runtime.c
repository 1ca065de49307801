/* The cores together: publishing, delivery, resume and restarts through real gateways, routers and
 * shards in one thread; then the same under random kills, by seed. */
#include "common/json.h"
#include "mem_runtime.h"

#define KEYS 4
#define PUBLISHERS 4
#define READERS 6
#define RAW_READERS 3
#define PUBLISHES 60 /* of each publisher */
#define LOG_MAX (PUBLISHERS * PUBLISHES)

/* ---- simple clients ---- */

struct listener {
    unsigned status;
    struct strbuf body;
    struct strbuf frames[512];
    size_t n_frames;
    unsigned code; /* 0: open */
};

static void on_answer(void *ctx, unsigned status, struct slice body)
{
    struct listener *l = ctx;
    l->status = status;
    strbuf_reset(&l->body);
    strbuf_put_slice(&l->body, body);
}

static void on_frame(void *ctx, struct slice payload, bool text)
{
    struct listener *l = ctx;
    (void)text;
    ck_assert_uint_lt(l->n_frames, 512);
    strbuf_put_slice(&l->frames[l->n_frames++], payload);
}

static void on_closed(void *ctx, unsigned code)
{
    ((struct listener *)ctx)->code = code;
}

static struct client_handler handler_of(struct listener *l)
{
    return (struct client_handler){
        .ctx = l, .answered = on_answer, .frame = on_frame, .closed = on_closed};
}

static void listener_free(struct listener *l)
{
    strbuf_free(&l->body);
    for (size_t i = 0; i < l->n_frames; i++)
        strbuf_free(&l->frames[i]);
    *l = (struct listener){0};
}

static const char *nth(struct listener *l, size_t i)
{
    return i < l->n_frames ? strbuf_cstr(&l->frames[i]) : "";
}

static const char *ask(struct runtime *rt, unsigned gateway, const char *line, const char *body,
                       struct listener *l)
{
    struct client_handler handler = handler_of(l);
    l->status = 0;
    ck_assert(runtime_request(rt, gateway, line, NULL, slice_text(body), &handler) != 0);
    for (int i = 0; i < 700 && l->status == 0; i++)
        runtime_pass_ms(rt, 20);
    return strbuf_cstr(&l->body);
}

static uint64_t connect_to(struct runtime *rt, unsigned gateway, const char *target,
                           const char *subprotocol, struct listener *l)
{
    struct client_handler handler = handler_of(l);
    uint64_t id = runtime_upgrade(rt, gateway, target, subprotocol, &handler);
    runtime_settle(rt);
    return id;
}

static struct runtime *rt;
static struct listener answer;

static void setup(void)
{
    rt = runtime_create(&(struct runtime_options){
        .gateways = 2, .routers = 2, .shards = 2, .seed = 1, .retain_count = 100});
}

static void teardown(void)
{
    listener_free(&answer);
    runtime_destroy(&rt);
    ck_assert_uint_eq(buf_alive(), 0);
}

START_TEST(test_spine)
{
    struct listener raw = {0}, v1 = {0};
    connect_to(rt, 0, "/events?key=upload:1", NULL, &raw);
    uint64_t socket = connect_to(rt, 1, "/stoa", "stoa.v1", &v1);
    runtime_say(rt, socket, "{\"sub\":\"upload:1\"}");
    runtime_settle(rt);
    ck_assert_str_eq(nth(&v1, 0), "{\"sub\":\"upload:1\",\"status\":\"live\",\"head\":\"0\"}");
    char text[32];
    for (int n = 0; n < 20; n++) {
        snprintf(text, sizeof text, "{\"n\":%d}", n);
        ask(rt, (unsigned)n % 2, "POST /publish?key=upload:1", text, &answer);
        ck_assert_uint_eq(answer.status, 200);
    }
    for (size_t n = 0; n < 20; n++) {
        snprintf(text, sizeof text, "{\"n\":%zu}", n);
        ck_assert_str_eq(nth(&raw, n), text);
        ck_assert_ptr_nonnull(strstr(nth(&v1, n + 1), text));
    }
    ck_assert_uint_eq(raw.n_frames, 20);
    ck_assert_uint_eq(v1.n_frames, 21);
    ask(rt, 0, "POST /publish?key=upload:1", "\"x\"", &answer);
    const char *log = ask(rt, 1, "GET /log?key=upload:1&last=1", "", &answer);
    ck_assert_ptr_nonnull(strstr(log, "\"data\":\"x\"}],\"more\":false}"));
    listener_free(&raw);
    listener_free(&v1);
}
END_TEST

START_TEST(test_shards_killed)
{
    struct listener raws[20] = {0};
    char target[64];
    for (unsigned n = 0; n < 20; n++) {
        snprintf(target, sizeof target, "/events?key=room:%u", n);
        connect_to(rt, n % 2, target, NULL, &raws[n]);
    }
    for (unsigned round = 1; round <= 3; round++) {
        for (unsigned n = 0; n < 20; n++) {
            snprintf(target, sizeof target, "POST /publish?key=room:%u", n);
            ask(rt, (n + round) % 2, target, round == 1 ? "1" : round == 2 ? "2" : "3", &answer);
            ck_assert_uint_eq(answer.status, 200);
        }
        for (unsigned shard = 0; shard < 2; shard++) {
            runtime_kill(rt, SHARD, shard);
            runtime_pass_ms(rt, 500);
            runtime_start(rt, SHARD, shard);
        }
        runtime_settle(rt);
    }
    for (unsigned n = 0; n < 20; n++) {
        ck_assert_uint_eq(raws[n].n_frames, 3);
        ck_assert_str_eq(nth(&raws[n], 0), "1");
        ck_assert_str_eq(nth(&raws[n], 1), "2");
        ck_assert_str_eq(nth(&raws[n], 2), "3");
        ck_assert_uint_eq(raws[n].code, 0);
        listener_free(&raws[n]);
    }
}
END_TEST

START_TEST(test_retained_and_missed)
{
    struct listener v1 = {0}, raw = {0};
    char text[64], first[64];
    for (int n = 1; n <= 150; n++) {
        snprintf(text, sizeof text, "%d", n);
        const char *body = ask(rt, 0, "POST /publish?key=k", text, &answer);
        if (n == 2)
            snprintf(first, sizeof first, "%.*s", (int)strcspn(body + 7, "\""), body + 7);
    }
    uint64_t socket = connect_to(rt, 1, "/stoa", "stoa.v1", &v1);
    char frame[128];
    snprintf(frame, sizeof frame, "{\"sub\":\"k\",\"after\":\"%s\"}", first);
    runtime_say(rt, socket, frame);
    runtime_settle(rt);
    ck_assert_ptr_nonnull(strstr(nth(&v1, 0), "\"status\":\"missed\",\"missed\":{\"from\":\""));
    ck_assert_ptr_nonnull(strstr(nth(&v1, 0), "-50\",\"reason\":\"evicted\"}"));
    ck_assert_uint_eq(v1.n_frames, 101);
    ck_assert_ptr_nonnull(strstr(nth(&v1, 1), "\"data\":51}"));
    snprintf(frame, sizeof frame, "/events?key=k&after=%s", first);
    connect_to(rt, 1, frame, NULL, &raw);
    ck_assert_uint_eq(raw.code, 4010);
    ck_assert_uint_eq(raw.n_frames, 0);
    listener_free(&raw);
    connect_to(rt, 0, "/events?key=k&replay=3", NULL, &raw);
    ck_assert_uint_eq(raw.n_frames, 3);
    ck_assert_str_eq(nth(&raw, 0), "148");
    listener_free(&raw);
    listener_free(&v1);
}
END_TEST

START_TEST(test_disk_full)
{
    for (unsigned shard = 0; shard < 2; shard++)
        runtime_fill_disk(rt, shard, 1);
    ask(rt, 0, "POST /publish?key=k", "1", &answer);
    ck_assert_uint_eq(answer.status, 503);
    ck_assert_ptr_nonnull(strstr(strbuf_cstr(&answer.body), "DiskFull"));
    ask(rt, 0, "GET /log?key=k", "", &answer);
    ck_assert_uint_eq(answer.status, 200);
    for (unsigned shard = 0; shard < 2; shard++)
        runtime_fill_disk(rt, shard, 0);
    ask(rt, 0, "POST /publish?key=k", "1", &answer);
    ck_assert_uint_eq(answer.status, 200);
}
END_TEST

START_TEST(test_everybody_is_asked)
{
    struct listener raws[2] = {0};
    for (unsigned i = 0; i < 2; i++)
        connect_to(rt, i, "/events?key=k", NULL, &raws[i]);
    ask(rt, 0, "POST /publish?key=k", "1", &answer);
    const char *body = ask(rt, 0, "GET /connections?key=k", "", &answer);
    ck_assert_uint_eq(answer.status, 200);
    ck_assert_ptr_nonnull(strstr(body, "\"id\":\"01000000-"));
    ck_assert_ptr_nonnull(strstr(body, "\"id\":\"01010000-"));
    body = ask(rt, 0, "GET /keys", "", &answer);
    ck_assert_ptr_nonnull(strstr(body, "{\"keys\":[{\"key\":\"k\",\"events\":1,"));
    ck_assert_ptr_nonnull(strstr(body, "\"more\":false,\"complete\":true}"));
    body = ask(rt, 1, "GET /status", "", &answer);
    ck_assert_ptr_nonnull(strstr(body, "\"name\":\"gateway-1\""));
    ck_assert_ptr_nonnull(strstr(body, "\"name\":\"router-1\",\"version\":\"0.1\",\"up\":true"));
    ck_assert_ptr_nonnull(strstr(body, "\"name\":\"shard-1\",\"version\":\"0.1\",\"up\":true"));
    ask(rt, 0, "POST /close?key=k&code=4321", "", &answer);
    runtime_settle(rt);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_uint_eq(raws[i].code, 4321);
        listener_free(&raws[i]);
    }
}
END_TEST

/* ---- random kills ---- */

struct publisher {
    unsigned index, next, key;
    uint64_t client;
    bool waiting, again;
};

struct reader {
    uint64_t client;
    bool open, greeted, raw, stalled;
    unsigned key;        /* raw: its only one */
    char last[KEYS][64]; /* stoa.v1: id of the last event */
    uint64_t seq[KEYS];
    struct strbuf heard[64]; /* raw: what one connection heard, each payload ended by a comma */
    size_t n_heard;
};

struct story {
    struct runtime *rt;
    struct publisher publishers[PUBLISHERS];
    struct reader readers[READERS + RAW_READERS];
    unsigned acked;
    char id_of[LOG_MAX][64]; /* of each acknowledged publish */
};

static struct story *story;

static void publisher_answered(void *ctx, unsigned status, struct slice body)
{
    struct publisher *p = ctx;
    if (!p->waiting)
        return;
    p->waiting = false;
    p->again = status != 200;
    if (p->again) {
        ck_assert_msg(status == 503 || status == 504, "%u %.*s", status, SLICE_FMT(body));
        return;
    }
    struct slice id = json_get(body, "id").raw;
    ck_assert_uint_gt(id.size, 2);
    snprintf(story->id_of[p->index * PUBLISHES + p->next], 64, "%.*s", (int)id.size - 2,
             (const char *)id.data + 1);
    p->next++;
    story->acked++;
}

static void publisher_closed(void *ctx, unsigned code)
{
    struct publisher *p = ctx;
    (void)code;
    p->again = p->waiting;
    p->waiting = false;
}

static void publisher_go(struct story *s, struct publisher *p)
{
    char line[64], body[32], key[32];
    unsigned gateway = (unsigned)rng_below(runtime_rng(s->rt), 2);
    if (p->waiting || p->next == PUBLISHES)
        return;
    if (!p->again)
        p->key = (unsigned)rng_below(runtime_rng(s->rt), KEYS);
    snprintf(line, sizeof line, "POST /publish?key=room:%u", p->key);
    snprintf(body, sizeof body, "%u", p->index * PUBLISHES + p->next);
    snprintf(key, sizeof key, "p%u-%u", p->index, p->next);
    struct client_handler handler = {
        .ctx = p, .answered = publisher_answered, .closed = publisher_closed};
    p->waiting = true;
    p->client = runtime_request(s->rt, gateway, line, key, slice_text(body), &handler);
    if (p->client == 0) {
        p->waiting = false;
        p->again = true;
    }
}

static void v1_heard(struct reader *r, struct slice text)
{
    struct json_value id = json_get(text, "id");
    struct slice key = json_get(text, "key").raw;
    if (id.type != JSON_STRING) {
        ck_assert_msg(json_get(text, "missed").type == JSON_NONE, "%.*s", SLICE_FMT(text));
        return;
    }
    unsigned at = (unsigned)(key.data[key.size - 2] - '0');
    snprintf(r->last[at], sizeof r->last[at], "%.*s", (int)id.raw.size - 2,
             (const char *)id.raw.data + 1);
    uint64_t seq = strtoull(strchr(r->last[at], '-') + 1, NULL, 10);
    ck_assert_msg(seq == r->seq[at] + 1, "reader expected %llu: %.*s",
                  (unsigned long long)r->seq[at] + 1, SLICE_FMT(text));
    r->seq[at] = seq;
}

static void reader_frame(void *ctx, struct slice payload, bool text)
{
    struct reader *r = ctx;
    ck_assert(text);
    if (!r->raw) {
        v1_heard(r, payload);
        return;
    }
    strbuf_put_slice(&r->heard[r->n_heard], payload);
    strbuf_put_byte(&r->heard[r->n_heard], ',');
}

static void reader_closed(void *ctx, unsigned code)
{
    struct reader *r = ctx;
    ck_assert_msg(code == 1006, "closed with %u", code);
    r->open = r->stalled = false;
    r->n_heard++;
}

static void reader_refused(void *ctx, unsigned status, struct slice body)
{
    (void)body;
    ck_assert_uint_eq(status, 503);
    ((struct reader *)ctx)->open = false;
}

static void reader_connect(struct story *s, struct reader *r)
{
    unsigned gateway = (unsigned)rng_below(runtime_rng(s->rt), 2);
    struct client_handler handler = {
        .ctx = r, .frame = reader_frame, .closed = reader_closed, .answered = reader_refused};
    char target[96];
    if (r->open || r->n_heard >= 64)
        return;
    r->key = (unsigned)rng_below(runtime_rng(s->rt), KEYS);
    snprintf(target, sizeof target, "/events?key=room:%u", r->key);
    strbuf_reset(&r->heard[r->n_heard]);
    if (r->raw)
        strbuf_printf(&r->heard[r->n_heard], "%u:", r->key);
    r->client = runtime_upgrade(s->rt, gateway, r->raw ? target : "/stoa",
                                r->raw ? NULL : "stoa.v1", &handler);
    r->open = r->client != 0;
    r->greeted = false;
}

/* Once its socket is there, a stoa.v1 reader asks for its keys. */
static void reader_greet(struct story *s, struct reader *r)
{
    char target[96];
    if (!r->open || r->greeted || r->raw || !runtime_established(s->rt, r->client))
        return;
    r->greeted = true;
    for (unsigned key = 0; key < KEYS; key++) {
        snprintf(target, sizeof target, "{\"sub\":\"room:%u\",\"after\":\"%s\"}", key,
                 r->last[key][0] ? r->last[key] : "0");
        runtime_say(s->rt, r->client, target);
    }
}

static void reader_leave(struct story *s, struct reader *r)
{
    if (!r->open)
        return;
    runtime_hang_up(s->rt, r->client);
    r->open = r->stalled = false;
    r->n_heard++;
}

static void somebody_dies_or_rises(struct story *s)
{
    static const enum process_kind kinds[] = {GATEWAY, ROUTER, SHARD, SHARD};
    enum process_kind kind = kinds[rng_below(runtime_rng(s->rt), 4)];
    unsigned index = (unsigned)rng_below(runtime_rng(s->rt), 2);
    if (runtime_is_up(s->rt, kind, index))
        runtime_kill(s->rt, kind, index);
    else
        runtime_start(s->rt, kind, index);
}

static void something_happens(struct story *s)
{
    struct rng *rng = runtime_rng(s->rt);
    struct reader *r = &s->readers[rng_below(rng, READERS + RAW_READERS)];
    switch (rng_below(rng, 12)) {
    case 0:
        somebody_dies_or_rises(s);
        break;
    case 1:
        if (rng_below(rng, 4) == 0)
            reader_leave(s, r);
        break;
    case 2:
        if (r->open && !r->stalled) {
            r->stalled = true;
            runtime_stall(s->rt, r->client, true);
        }
        break;
    case 3:
        if (r->open && r->stalled) {
            r->stalled = false;
            runtime_stall(s->rt, r->client, false);
        }
        break;
    case 4:
    case 5:
        runtime_pass_ms(s->rt, (int64_t)rng_below(rng, 400));
        break;
    case 6:
        reader_connect(s, r);
        break;
    case 7:
        reader_greet(s, r);
        break;
    default:
        publisher_go(s, &s->publishers[rng_below(rng, PUBLISHERS)]);
        for (uint64_t n = rng_below(rng, 40); n > 0; n--)
            (void)runtime_step(s->rt);
    }
}

static void everybody_rises(struct story *s)
{
    for (unsigned index = 0; index < 2; index++)
        for (enum process_kind kind = GATEWAY; kind <= SHARD; kind++)
            if (!runtime_is_up(s->rt, kind, index))
                runtime_start(s->rt, kind, index);
    for (unsigned i = 0; i < READERS + RAW_READERS; i++) {
        struct reader *r = &s->readers[i];
        if (r->open && r->stalled)
            runtime_stall(s->rt, r->client, false);
        r->stalled = false;
    }
}

/* Faults have stopped: everything must come to its end. */
static void all_ends_well(struct story *s)
{
    everybody_rises(s);
    for (int round = 0; round < 4000 && s->acked < LOG_MAX; round++) {
        for (unsigned i = 0; i < PUBLISHERS; i++)
            publisher_go(s, &s->publishers[i]);
        for (unsigned i = 0; i < READERS; i++) {
            reader_connect(s, &s->readers[i]);
            reader_greet(s, &s->readers[i]);
        }
        runtime_pass_ms(s->rt, 100);
    }
    ck_assert_uint_eq(s->acked, LOG_MAX);
    runtime_pass_ms(s->rt, 12000);
}

/* The log of a key as "n,n,..."; checks ids against what was acknowledged. */
static void log_read(struct story *s, unsigned key, struct strbuf *payloads, unsigned *seen,
                     uint64_t *head)
{
    char line[64];
    struct listener l = {0};
    snprintf(line, sizeof line, "GET /log?key=room:%u&limit=1000", key);
    ask(s->rt, 0, line, "", &l);
    ck_assert_uint_eq(l.status, 200);
    struct json_iter it = json_members(json_get(strbuf_slice(&l.body), "events").raw);
    while (json_next(&it)) {
        uint64_t n = 0;
        struct slice id = json_get(it.value.raw, "id").raw;
        ck_assert(json_u64(json_get(it.value.raw, "data"), &n) && n < LOG_MAX);
        ck_assert_msg(slice_equal(slice_of(id.data + 1, id.size - 2), slice_text(s->id_of[n])),
                      "publish %u was acknowledged as %s, stored as %.*s", (unsigned)n, s->id_of[n],
                      SLICE_FMT(id));
        seen[n]++;
        ++*head;
        strbuf_printf(payloads, "%u,", (unsigned)n);
    }
    listener_free(&l);
}

static void check_readers(struct story *s, struct strbuf *logs, const uint64_t *heads)
{
    for (unsigned i = 0; i < READERS; i++)
        for (unsigned key = 0; key < KEYS; key++)
            ck_assert_uint_eq(s->readers[i].seq[key], heads[key]);
    for (unsigned i = READERS; i < READERS + RAW_READERS; i++) {
        struct reader *r = &s->readers[i];
        for (size_t n = 0; n <= r->n_heard && n < 64; n++) {
            if (r->heard[n].size <= 2)
                continue;
            const char *text = strbuf_cstr(&r->heard[n]);
            const char *log = strbuf_cstr(&logs[text[0] - '0']);
            const char *found = strstr(log, text + 2);
            while (found && found != log && found[-1] != ',')
                found = strstr(found + 1, text + 2);
            ck_assert_msg(found != NULL, "a raw reader heard %s of %s", text, log);
        }
    }
}

static uint64_t story_run(uint64_t seed, unsigned steps)
{
    struct strbuf logs[KEYS] = {0};
    uint64_t heads[KEYS] = {0};
    static unsigned seen[LOG_MAX];
    struct story *s = story = mem_zalloc(sizeof *s);
    memset(seen, 0, sizeof seen);
    s->rt = runtime_create(&(struct runtime_options){
        .gateways = 2, .routers = 2, .shards = 2, .seed = seed, .retain_count = 10000});
    for (unsigned i = 0; i < PUBLISHERS; i++)
        s->publishers[i].index = i;
    for (unsigned i = READERS; i < READERS + RAW_READERS; i++)
        s->readers[i].raw = true;
    for (unsigned i = 0; i < steps; i++)
        something_happens(s);
    all_ends_well(s);
    for (unsigned key = 0; key < KEYS; key++)
        log_read(s, key, &logs[key], seen, &heads[key]);
    for (unsigned n = 0; n < LOG_MAX; n++)
        ck_assert_msg(seen[n] == 1, "publish %u is stored %u times", n, seen[n]);
    check_readers(s, logs, heads);
    uint64_t transcript = runtime_transcript(s->rt);
    runtime_destroy(&s->rt);
    for (unsigned i = 0; i < READERS + RAW_READERS; i++)
        for (size_t n = 0; n < 64; n++)
            strbuf_free(&s->readers[i].heard[n]);
    for (unsigned key = 0; key < KEYS; key++)
        strbuf_free(&logs[key]);
    mem_free(s);
    ck_assert_uint_eq(buf_alive(), 0);
    return transcript;
}

START_TEST(test_random_kills)
{
    story_run((uint64_t)_i + 100, 1500);
}
END_TEST

START_TEST(test_same_seed_same_run)
{
    ck_assert_uint_eq(story_run(7, 400), story_run(7, 400));
    ck_assert_uint_ne(story_run(7, 400), story_run(8, 400));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("together");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_spine);
    tcase_add_test(tc, test_shards_killed);
    tcase_add_test(tc, test_retained_and_missed);
    tcase_add_test(tc, test_disk_full);
    tcase_add_test(tc, test_everybody_is_asked);
    TCase *random = tcase_create("random");
    tcase_add_loop_test(random, test_random_kills, 0, 20);
    tcase_add_test(random, test_same_seed_same_run);
    Suite *suite = suite_create("runtime");
    suite_add_tcase(suite, tc);
    suite_add_tcase(suite, random);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
