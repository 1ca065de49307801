/* CORE. Subscribers: stoa.v1 sockets with several keys, raw sockets and event streams with one.
 * They come, drop, resume from the last id that they have processed, unsubscribe, read slowly or
 * not at all for a while; everything that they hear goes into the history. */
#include "sim.h"

#include "common/json.h"

#define ACT_NS (700 * MS)
#define DOUBT_NS (5 * NS_PER_S)                 /* so long after a loss events of before may come */
#define SLOW_NS (CONN_LAG_MAX_MS * 9 / 10 * MS) /* by the fastest clock that a gateway may have */

static void reader_soon(struct reader *r, int64_t mean_ns)
{
    event_set(r->world, &r->act, draw_ns(r->world, mean_ns));
}

static int key_of(const struct world *w, struct slice name)
{
    for (unsigned i = 0; i < w->dice.keys; i++)
        if (slice_is(name, w->truth.keys[i].name))
            return (int)i;
    return -1;
}

/* ---- beginning ---- */

/* Where a reader begins that holds nothing: everything, nothing, a few, or at an id that some
 * publisher was told. */
static struct beginning beginning_draw(struct reader *r, unsigned key)
{
    struct world *w = r->world;
    struct beginning b = {0};
    switch (draw(w, 5)) {
    case 0:
        b.start = H_ALL;
        break;
    case 1:
        b.start = H_LAST;
        b.number = 1 + draw(w, 5);
        break;
    case 2:
        b.start = H_AFTER;
        if (chance(w, 700))
            b.after = w->truth.keys[key].acked;
        break;
    default:
        b.start = H_NONE;
    }
    return b;
}

static struct beginning beginning_of(struct reader *r, unsigned key)
{
    if (r->dialect != READER_RAW && r->held[key].known)
        return (struct beginning){.start = H_AFTER, .after = r->held[key].pos};
    return beginning_draw(r, key);
}

static void beginning_query(const struct beginning *b, struct strbuf *out)
{
    char id[EVENT_ID_MAX_BYTES];
    if (b->start == H_ALL) {
        strbuf_put_text(out, "&replay=all");
    } else if (b->start == H_LAST) {
        strbuf_printf(out, "&replay=%llu", (unsigned long long)b->number);
    } else if (b->start == H_AFTER) {
        event_id_format(id, b->after);
        strbuf_printf(out, "&after=%s", id);
    }
}

static void subscribe_note(struct reader *r, unsigned key, const struct beginning *b)
{
    r->subscribed |= 1u << key;
    r->told &= ~(1u << key);
    r->greedy &= ~(1u << key);
    r->greedy |= (unsigned)(b->start == H_ALL) << key;
    truth_subscribe(r->world, r->who, key, b->start, b->after, b->number);
}

/* A second sub of a key begins with its verdict: what comes before it is still the first one's, and
 * so is a miss, which is why a second one names no position. */
static void subscribe_say(struct reader *r, unsigned key, bool anew)
{
    struct strbuf text = {0};
    struct beginning b = beginning_of(r, key);
    while (anew && b.start == H_AFTER)
        b = beginning_draw(r, key);
    char id[EVENT_ID_MAX_BYTES];
    strbuf_printf(&text, "{\"sub\":\"%s\"", r->world->truth.keys[key].name);
    if (b.start == H_ALL) {
        strbuf_put_text(&text, ",\"replay\":\"all\"");
    } else if (b.start == H_LAST) {
        strbuf_printf(&text, ",\"replay\":%llu", (unsigned long long)b.number);
    } else if (b.start == H_AFTER) {
        event_id_format(id, b.after);
        strbuf_printf(&text, ",\"after\":\"%s\"", id);
    }
    strbuf_put_byte(&text, '}');
    if (anew) {
        r->again[key] = b;
        r->anew |= 1u << key;
    } else {
        subscribe_note(r, key, &b);
    }
    socket_say(&r->socket, strbuf_cstr(&text));
    strbuf_free(&text);
}

static unsigned only_key(const struct reader *r)
{
    return (unsigned)__builtin_ctz(r->keys);
}

static void reader_connect(struct reader *r)
{
    struct world *w = r->world;
    struct process *gateway = gateway_pick(w);
    struct strbuf query = {0};
    char id[EVENT_ID_MAX_BYTES];
    if (!gateway)
        return;
    r->open = true;
    r->connected_ns = w->now_ns;
    r->leaving = r->anew = 0;
    if (r->dialect == READER_RAW)
        memset(r->held, 0, sizeof r->held);
    r->from_now = false;
    struct http_request request = request_make(HTTP_M_GET, "/stoa", "");
    if (r->dialect == READER_V1) {
        request_header(&request, "Sec-WebSocket-Protocol", "stoa.v1");
        request.upgrade = true;
        (void)socket_request(&r->socket, gateway, &request);
        return;
    }
    unsigned key = only_key(r);
    struct beginning b = beginning_of(r, key);
    strbuf_printf(&query, "key=%s", w->truth.keys[key].name);
    request.path = slice_text("/events");
    if (r->dialect == READER_SSE && b.start == H_AFTER) {
        event_id_format(id, b.after);
        request_header(&request, "Last-Event-ID", id);
    } else {
        beginning_query(&b, &query);
    }
    request.upgrade = r->dialect == READER_RAW;
    r->from_now = b.start == H_NONE;
    request.query = strbuf_slice(&query);
    subscribe_note(r, key, &b);
    (void)socket_request(&r->socket, gateway, &request);
    strbuf_free(&query);
}

/* ---- hearing ---- */

static void hold(struct reader *r, unsigned key, struct position pos)
{
    r->held[key] = (struct position_held){.pos = pos, .known = true};
}

static void hear(struct reader *r, unsigned key, struct position id, struct slice payload)
{
    if (!truth_deliver(r->world, r->who, key, &id, payload, r->greedy >> key & 1))
        return;
    r->greedy &= ~(1u << key);
    if (r->from_now && !r->world->rolled && !truth_follows(r->world, key, r->opened, id))
        world_fail(r->world, "reader-%u was answered, and then missed what was published",
                   r->index);
    r->from_now = false;
    if (r->dialect == READER_RAW)
        hold(r, key, id);
}

static void reader_over(struct reader *r)
{
    r->open = false;
    if (r->subscribed)
        truth_close(r->world, r->who, KEYS_MAX);
    r->subscribed = 0;
    reader_soon(r, ACT_NS / 2);
}

static void on_opened(struct socket *s)
{
    struct reader *r = OWNER_OF(s, struct reader, socket);
    if (r->from_now)
        r->opened = truth_end(r->world, only_key(r));
    for (unsigned key = 0; r->dialect == READER_V1 && key < r->world->dice.keys; key++)
        if (r->keys >> key & 1)
            subscribe_say(r, key, false);
}

static void on_answered(struct socket *s, unsigned status, struct slice body)
{
    struct reader *r = OWNER_OF(s, struct reader, socket);
    if (status != 503)
        world_fail(r->world, "a reader is refused with %u %.*s", status, SLICE_FMT(body));
    reader_over(r);
}

static void on_closed(struct socket *s, unsigned code)
{
    static const unsigned lawful[] = {1006, 1012, 4008, 4010};
    struct reader *r = OWNER_OF(s, struct reader, socket);
    bool known = false;
    for (size_t i = 0; i < sizeof lawful / sizeof *lawful; i++)
        known |= code == lawful[i];
    known |= r->world->guests && (code == 1000 || code == 4321); /* a visitor asked for that */
    if (!known || (code == 4010 && r->dialect != READER_RAW))
        world_fail(r->world, "a reader is closed with %u", code);
    reader_over(r);
}

/* "slow" may be said to who has read nothing for long, though the log still has it all. */
static void verdict(struct reader *r, unsigned key, const struct verdict *v)
{
    struct world *w = r->world;
    if (v->status == H_MISSED) {
        r->from_now = false;
        w->counters->put_back_told += r->deceived >> key & 1;
        r->deceived &= ~(1u << key);
    }
    if (v->status == H_MISSED && v->reason == H_SLOW && !r->slow && !w->long_pause && !w->rolled &&
        truth_log(w, key, v->to.epoch) &&
        truth_floor(w, key, truth_log(w, key, v->to.epoch)) < v->to.seq)
        world_fail(w, "reader-%u is called slow", r->index);
    truth_verdict(w, r->who, key, v);
}

static void v1_verdict(struct reader *r, unsigned key, struct slice text)
{
    struct verdict v = {0};
    struct position head;
    struct slice status = json_get(text, "status").raw;
    bool fine = json_id(text, "head", &head) || slice_is(json_get(text, "head").raw, "\"0\"");
    if (slice_is(json_get(text, "head").raw, "\"0\""))
        head = (struct position){0};
    v.head = &head;
    if (slice_is(status, "\"missed\""))
        fine &= truth_missed(json_get(text, "missed").raw, &v);
    else if (slice_is(status, "\"live\""))
        v.status = H_LIVE;
    else if (slice_is(status, "\"resumed\""))
        v.status = H_RESUMED;
    if (!fine || v.status == 0) {
        world_fail(r->world, "a verdict that cannot be read: %.*s", SLICE_FMT(text));
        return;
    }
    verdict(r, key, &v);
    if (v.status == H_LIVE)
        hold(r, key, head);
    else if (v.status == H_MISSED)
        hold(r, key, v.to);
}

static void v1_event(struct reader *r, unsigned key, struct slice text)
{
    struct position pos = {0};
    struct strbuf bytes = {0};
    struct slice data = truth_data(text, &bytes);
    bool has_id = json_get(text, "id").type == JSON_STRING;
    if (has_id && !json_id(text, "id", &pos)) {
        world_fail(r->world, "an event with a bad id: %.*s", SLICE_FMT(text));
        strbuf_free(&bytes);
        return;
    }
    hear(r, key, has_id ? pos : (struct position){0}, data);
    strbuf_free(&bytes);
    if (has_id)
        hold(r, key, pos);
}

static int frame_key(const struct world *w, struct slice text, const char *member)
{
    struct slice raw = json_get(text, member).raw;
    return raw.size > 2 ? key_of(w, slice_of(raw.data + 1, raw.size - 2)) : -1;
}

static void v1_unsubscribed(struct reader *r, unsigned key, int64_t again_ns)
{
    if (r->subscribed >> key & 1)
        truth_close(r->world, r->who, key);
    r->subscribed &= ~(1u << key);
    r->anew &= ~(1u << key);
    r->leaving &= ~(1u << key);
    reader_soon(r, again_ns);
}

/* Somebody closed the key: a second sub may be under way, or an unsub, whose answer comes too. */
static void v1_ended(struct reader *r, unsigned key)
{
    if (r->anew >> key & 1) {
        socket_leave(&r->socket); /* it cannot tell which of the two has ended */
        reader_over(r);
    } else if (r->leaving >> key & 1) {
        truth_close(r->world, r->who, key);
        r->subscribed &= ~(1u << key);
    } else {
        v1_unsubscribed(r, key, ACT_NS);
    }
}

static void on_v1(struct reader *r, struct slice text)
{
    struct world *w = r->world;
    int key = frame_key(w, text, "key");
    if (key >= 0) {
        v1_event(r, (unsigned)key, text);
        return;
    }
    key = frame_key(w, text, "sub");
    if (key >= 0 && json_get(text, "error").type != JSON_NONE) {
        v1_unsubscribed(r, (unsigned)key, ACT_NS);
        return;
    }
    if (key >= 0) {
        if (r->anew >> key & 1 && json_get(text, "missed").type == JSON_NONE) {
            r->anew &= ~(1u << key);
            truth_close(w, r->who, (unsigned)key);
            subscribe_note(r, (unsigned)key, &r->again[key]);
        }
        r->told |= 1u << key;
        v1_verdict(r, (unsigned)key, text);
        return;
    }
    key = frame_key(w, text, "unsub");
    if (key >= 0 && w->guests && json_get(text, "code").type == JSON_NUMBER)
        v1_ended(r, (unsigned)key);
    else if (key < 0 || !(r->leaving >> key & 1))
        world_fail(w, "a frame that cannot be understood: %.*s", SLICE_FMT(text));
    else
        v1_unsubscribed(r, (unsigned)key, ACT_NS);
}

static void on_frame(struct socket *s, struct slice payload)
{
    struct reader *r = OWNER_OF(s, struct reader, socket);
    struct world *w = r->world;
    TRACE(w, "reader-%u hears %.*s", r->index, SLICE_FMT(payload));
    unsigned key = only_key(r);
    if (r->dialect == READER_V1) {
        on_v1(r, payload);
    } else if (w->lost_ns >= 0 && r->connected_ns < w->lost_ns + DOUBT_NS && !r->held[key].known &&
               truth_doubtful(w, payload)) {
        socket_leave(s); /* it cannot tell which history it hears */
        reader_over(r);
    } else {
        hear(r, key, (struct position){.epoch = r->held[key].pos.epoch}, payload);
    }
}

/* One event of an event stream. */
static void on_stream(struct socket *s, struct slice text)
{
    struct reader *r = OWNER_OF(s, struct reader, socket);
    struct position pos = {0};
    struct slice data = {0};
    struct strbuf bytes = {0};
    bool has_id = false, missed = false, base64 = false;
    unsigned key = only_key(r);
    TRACE(r->world, "reader-%u hears %.*s", r->index, (int)text.size - 1, (const char *)text.data);
    for (size_t at = 0; at < text.size;) {
        const uint8_t *end = memchr(text.data + at, '\n', text.size - at);
        struct slice line = slice_of(text.data + at, (size_t)(end - (text.data + at)));
        at += line.size + 1;
        if (line.size > 4 && memcmp(line.data, "id: ", 4) == 0)
            has_id = event_id_parse(slice_of(line.data + 4, line.size - 4), &pos) == ERR_OK;
        else if (slice_is(line, "event: missed"))
            missed = true;
        else if (slice_is(line, "event: base64"))
            base64 = true;
        else if (line.size > 6 && memcmp(line.data, "data: ", 6) == 0 && data.size == 0)
            data = slice_of(line.data + 6, line.size - 6);
    }
    if (missed) {
        struct verdict v = {0};
        if (!truth_missed(data, &v) || v.to.epoch != pos.epoch || v.to.seq != pos.seq)
            world_fail(r->world, "a miss that cannot be read: %.*s", SLICE_FMT(data));
        verdict(r, key, &v);
    } else if (data.size > 0) {
        if (base64) {
            struct strbuf json = {0};
            strbuf_printf(&json, "{\"base64\":\"%.*s\"}", SLICE_FMT(data));
            data = truth_data(strbuf_slice(&json), &bytes);
            strbuf_free(&json);
        }
        hear(r, key, has_id ? pos : (struct position){0}, data);
        strbuf_free(&bytes);
    } else if (has_id) {
        truth_verdict(r->world, r->who, key, &(struct verdict){.status = H_LIVE, .head = &pos});
    }
    if (has_id)
        hold(r, key, pos);
}

static const struct socket_handler handler = {.answered = on_answered,
                                              .opened = on_opened,
                                              .frame = on_frame,
                                              .stream = on_stream,
                                              .closed = on_closed};

/* ---- acting ---- */

static void v1_act(struct reader *r)
{
    struct world *w = r->world;
    unsigned key = (unsigned)draw(w, w->dice.keys);
    if (!r->socket.opened || r->socket.ended)
        return;
    for (unsigned i = 0; i < w->dice.keys; i++)
        if ((r->keys & ~r->subscribed & ~r->leaving) >> i & 1)
            subscribe_say(r, i, false);
    if (w->storm && (r->subscribed & ~r->leaving) >> key & 1 && chance(w, 200)) {
        char text[64];
        r->leaving |= 1u << key;
        snprintf(text, sizeof text, "{\"unsub\":\"%s\"}", w->truth.keys[key].name);
        socket_say(&r->socket, text);
    } else if (w->storm && (r->told & r->subscribed & ~r->leaving & ~r->anew) >> key & 1 &&
               chance(w, 150)) {
        subscribe_say(r, key, true);
    }
}

static void reader_act(struct event *e)
{
    struct reader *r = OWNER_OF(e, struct reader, act);
    struct world *w = r->world;
    if (!r->open) {
        if (chance(w, 100) && r->dialect == READER_V1) /* it has forgotten where it was */
            memset(r->held, 0, sizeof r->held);
        reader_connect(r);
    } else if (r->socket.stalled) {
        if (!w->storm || chance(w, r->stubborn ? 10 : 300)) {
            r->slow = w->now_ns - r->stalled_ns > SLOW_NS;
            r->woken_ns = w->now_ns;
            socket_unstall(&r->socket);
        }
    } else if (w->storm && chance(w, 120)) {
        socket_leave(&r->socket);
        reader_over(r);
    } else if (w->storm && chance(w, 150) && r->socket.id != 0) {
        r->socket.stalled = true;
        if (!heap_has(&r->socket.read.node) || w->now_ns > r->woken_ns + NS_PER_S)
            r->stalled_ns = w->now_ns; /* else it has not read yet since it last stalled */
        event_stop(w, &r->socket.read);
    } else if (r->dialect == READER_V1) {
        v1_act(r);
    }
    if (!heap_has(&r->act.node))
        reader_soon(r, ACT_NS);
}

void readers_add(struct world *w)
{
    for (unsigned i = 0; i < w->dice.readers; i++) {
        struct reader *r = &w->readers[i];
        char name[24];
        snprintf(name, sizeof name, "reader-%u", i);
        r->act.fire = reader_act;
        r->world = r->socket.world = w;
        r->socket.handler = &handler;
        r->socket.lag_ns = chance(w, 200) ? 300 * MS : 2 * MS;
        r->stubborn = chance(w, 200);
        r->index = i;
        r->who = history_name(w->history, slice_text(name));
        r->dialect = (int)draw(w, 4) % 3;
        unsigned first = (unsigned)draw(w, w->dice.keys);
        if (r->dialect != READER_V1 && w->truth.keys[first].type != 0)
            first = 0; /* /events serves the type events alone */
        r->keys = 1u << first;
        for (unsigned key = 0; key < w->dice.keys && r->dialect == READER_V1; key++)
            r->keys |= (unsigned)draw(w, 2) << key;
        reader_soon(r, ACT_NS / 4);
    }
}

void readers_put_back(struct world *w, unsigned key, uint64_t epoch, uint64_t seq)
{
    for (unsigned i = 0; i < w->dice.readers; i++) {
        struct reader *r = &w->readers[i];
        if (r->held[key].pos.epoch == epoch && r->held[key].pos.seq > seq &&
            r->dialect != READER_RAW)
            r->deceived |= 1u << key;
    }
}

/* For runs that the oracle does not judge. */
void readers_check(struct world *w)
{
    for (unsigned i = 0; i < w->dice.readers; i++) {
        const struct reader *r = &w->readers[i];
        w->counters->put_back_untold += (unsigned)__builtin_popcount(r->deceived);
        for (unsigned key = 0; key < w->dice.keys; key++) {
            struct position end = truth_end(w, key), at = r->held[key].pos;
            uint64_t seen = truth_seen(w, key, end);
            bool listens = r->open && r->socket.opened && r->subscribed >> key & 1 &&
                           r->dialect != READER_RAW && r->held[key].known;
            struct epoch_log *log = truth_log(w, key, end.epoch);
            if (r->greedy >> key & 1 && log && truth_floor(w, key, log) >= seen)
                continue; /* it asked for all, and there is nothing */
            if (listens && seen > 0 && (at.epoch != end.epoch || at.seq < seen || at.seq > end.seq))
                world_fail(w, "reader-%u is at seq %llu of %s, whose end is %llu", i,
                           (unsigned long long)at.seq, w->truth.keys[key].name,
                           (unsigned long long)end.seq);
        }
    }
}

void readers_free(struct world *w)
{
    for (unsigned i = 0; i < READERS_MAX; i++)
        socket_free(&w->readers[i].socket);
}
