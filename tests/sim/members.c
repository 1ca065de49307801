/* CORE. Those who use the rooms of tally.c: members, each a socket at a time, which say frames and
 * hear of every step; callers, which ask again under the same id until they are answered. What they
 * do and see goes into the history. Their choices come from generators of their own. */
#include "sim.h"

#include <inttypes.h>

#include "common/json.h"

#define ACTS 60      /* of each, in a storm of any length */
#define LEAVES 15    /* one act in so many */
#define STALLS 10    /* likewise */
#define GIVES_UP 4   /* a caller that waits leaves so often, and asks anew */
#define ARMS 5       /* one call in so many sets the alarm */
#define BUSY 4       /* so much more often callers act */
#define QUIET 5      /* and so much less in a quiet room, whose alarms nothing else wakes */
#define SAYS_MAX 4   /* frames at once */
#define BY_LIBRARY 3 /* one call in so many goes through libstoa, not by HTTP */
#define CALL_MS 8000 /* of those, at most */

struct member {
    struct event act;
    struct socket socket;
    struct world *world;
    struct rng rng;
    unsigned index, room, visits;
    uint32_t who; /* of this visit */
    bool open;    /* it has asked to join and not left */
    bool inside;
};

struct caller {
    struct event act;
    struct socket socket;
    struct world *world;
    struct rng rng;
    unsigned room;
    uint32_t who;
    uint64_t msg; /* what it asks for; 0: nothing */
    bool arms, waiting;
    bool by_library; /* what it waits for; there is no leaving then */
    unsigned tries;
};

struct members {
    struct member sockets[MEMBERS_MAX];
    struct caller callers[CALLERS_MAX];
};

static int64_t pause_ns(struct world *w, struct rng *rng)
{
    return (int64_t)rng_below(rng, 2 * (uint64_t)w->dice.storm_ns / ACTS);
}

/* ---- members ---- */

static void member_entry(struct member *m, enum history_op op, uint64_t msg, uint64_t at)
{
    tally_entry(m->world, m->room,
                (struct history_entry){.op = op, .who = m->who, .msg = msg, .at = at});
}

static void member_soon(struct member *m)
{
    event_set(m->world, &m->act, pause_ns(m->world, &m->rng));
}

static void member_left(struct member *m)
{
    if (m->open)
        member_entry(m, H_LEAVE, 0, 0);
    m->open = m->inside = false;
    member_soon(m);
}

static void on_refused(struct socket *s, unsigned status, struct slice body)
{
    (void)status, (void)body;
    member_left(OWNER_OF(s, struct member, socket));
}

static void on_opened(struct socket *s)
{
    struct member *m = OWNER_OF(s, struct member, socket);
    m->inside = true;
    member_entry(m, H_JOINED, 0, 0);
    member_soon(m);
}

static void on_frame(struct socket *s, struct slice text)
{
    struct member *m = OWNER_OF(s, struct member, socket);
    uint64_t at = 0;
    if (!json_valid(text) || !json_u64(json_get(text, "made"), &at) || at == 0)
        world_fail(m->world, "a member hears %.*s", SLICE_FMT(text));
    else
        member_entry(m, H_HEAR, 0, at);
}

static void on_stream(struct socket *s, struct slice text)
{
    (void)s, (void)text;
}

static void on_closed(struct socket *s, unsigned code)
{
    (void)code;
    member_left(OWNER_OF(s, struct member, socket));
}

static const struct socket_handler member_handler = {.answered = on_refused,
                                                     .opened = on_opened,
                                                     .frame = on_frame,
                                                     .stream = on_stream,
                                                     .closed = on_closed};

/* Two members share an id. */
static void join(struct member *m)
{
    static const char *const wishes[] = {"", "&replay=all", "", "&replay=all&conflate=none"};
    char path[32], query[64], who[16];
    struct process *gateway = gateway_pick(m->world);
    if (!gateway)
        return;
    snprintf(who, sizeof who, "m%u-%u", m->index / 2, m->index % 2 + 2 * ++m->visits);
    snprintf(path, sizeof path, "/ws/made/t%u", m->room);
    snprintf(query, sizeof query, "name=%s%s", who, wishes[m->visits % 4]);
    struct http_request r = request_make(HTTP_M_GET, path, query);
    r.upgrade = true;
    m->who = history_name(m->world->history, slice_text(who));
    m->open = true;
    member_entry(m, H_JOIN, 0, 0);
    (void)socket_request(&m->socket, gateway, &r);
}

static void say(struct member *m)
{
    char text[24];
    for (uint64_t n = rng_below(&m->rng, SAYS_MAX); n > 0 && m->socket.gateway; n--) {
        uint64_t msg = tally_msg(m->world);
        snprintf(text, sizeof text, "%" PRIu64, msg);
        member_entry(m, H_SAY, msg, 0);
        socket_say(&m->socket, text);
    }
}

static void member_act(struct event *e)
{
    struct member *m = OWNER_OF(e, struct member, act);
    if (!m->world->storm) {
        socket_unstall(&m->socket);
        return;
    }
    if (!m->open) {
        join(m);
    } else if (m->inside && rng_below(&m->rng, LEAVES) == 0) {
        socket_leave(&m->socket);
        member_left(m);
        return;
    } else if (m->inside && !m->socket.ended) {
        if (m->socket.stalled)
            socket_unstall(&m->socket);
        else
            m->socket.stalled = rng_below(&m->rng, STALLS) == 0;
        say(m);
    }
    member_soon(m);
}

/* ---- callers ---- */

static void caller_entry(struct caller *c, enum history_op op, enum history_what what, uint64_t at)
{
    tally_entry(
        c->world, c->room,
        (struct history_entry){.op = op, .what = what, .who = c->who, .msg = c->msg, .at = at});
}

static void caller_soon(struct caller *c)
{
    int64_t ns = pause_ns(c->world, &c->rng);
    event_set(c->world, &c->act, c->room == TALLY_ROOMS - 1 ? ns * QUIET : ns / BUSY);
}

static void caller_told(struct caller *c, unsigned status, struct slice body)
{
    char digits[24] = "";
    c->waiting = c->by_library = false;
    if (status == 200) {
        if (body.size > 0 && body.size < sizeof digits)
            memcpy(digits, body.data, body.size);
        caller_entry(c, H_RESULT, H_ACK, strtoull(digits, NULL, 10));
        c->msg = 0;
    } else if (status == 503 || status == 504) {
        caller_entry(c, H_RESULT, H_UNKNOWN, 0);
    } else { /* it failed */
        caller_entry(c, H_RESULT, H_NACK, 0);
        if (c->tries == 1)
            tally_failed(c->world, c->msg);
        c->msg = 0;
    }
    caller_soon(c);
}

static void on_answered(struct socket *s, unsigned status, struct slice body)
{
    caller_told(OWNER_OF(s, struct caller, socket), status, body);
}

static void on_result(void *arg, int code, const stoa_result *r)
{
    struct caller *c = arg;
    if (code != STOA_OK && code != STOA_ROOM && code != STOA_UNKNOWN && code != STOA_TIMEOUT &&
        code != STOA_DISK)
        world_fail(c->world, "libstoa ends call %" PRIu64 " with %d", c->msg, code);
    bool tells = code == STOA_OK || code == STOA_ROOM;
    caller_told(c, tells ? (unsigned)r->status : 504, slice_of(r->data, r->data_size));
}

static void on_cut_off(struct socket *s, unsigned code)
{
    struct caller *c = OWNER_OF(s, struct caller, socket);
    (void)code;
    c->waiting = false;
    caller_soon(c);
}

static const struct socket_handler caller_handler = {.answered = on_answered, .closed = on_cut_off};

static void ask_by_http(struct caller *c, struct process *gateway, const char *text)
{
    char path[32];
    snprintf(path, sizeof path, "/api/made/t%u/%s", c->room, c->arms ? "arm" : "add");
    struct http_request r = request_make(HTTP_M_POST, path, "");
    request_header(&r, "Idempotency-Key", text);
    r.body = slice_text(text);
    (void)socket_request(&c->socket, gateway, &r);
}

static bool ask_by_library(struct caller *c, const char *text)
{
    char key[16];
    stoa_call_options o = {.size = sizeof o, .idempotency_key = text};
    snprintf(key, sizeof key, "made:t%u", c->room);
    o.timeout_ms = 500 + (int)rng_below(&c->rng, CALL_MS);
    const struct call_order order = {.type = MSG_CALL,
                                     .verb = VERB_METHOD,
                                     .key = slice_text(key),
                                     .name = slice_text(c->arms ? "arm" : "add"),
                                     .input = slice_text(text),
                                     .options = &o,
                                     .default_timeout_ms = CALL_MS};
    return library_ask(c->world, (unsigned)rng_below(&c->rng, LIBRARIES_MAX), &order, on_result, c);
}

static void call(struct caller *c)
{
    char text[24];
    struct process *gateway = gateway_pick(c->world);
    if (!gateway)
        return;
    if (c->msg == 0) {
        c->msg = tally_msg(c->world);
        c->arms = rng_below(&c->rng, ARMS) == 0;
        c->tries = 0;
    }
    c->tries++;
    snprintf(text, sizeof text, "%" PRIu64, c->msg);
    c->waiting = true;
    c->by_library = rng_below(&c->rng, BY_LIBRARY) == 0;
    caller_entry(c, H_CALL, 0, 0);
    if (c->by_library && ask_by_library(c, text))
        return;
    c->by_library = false;
    ask_by_http(c, gateway, text);
}

static void caller_act(struct event *e)
{
    struct caller *c = OWNER_OF(e, struct caller, act);
    struct world *w = c->world;
    if (c->waiting && !c->by_library && w->storm && rng_below(&c->rng, GIVES_UP) == 0) {
        socket_leave(&c->socket);
        c->waiting = false;
    }
    if (!c->waiting && (w->storm || c->msg != 0))
        call(c);
    if (c->waiting || w->storm)
        caller_soon(c);
}

/* ---- life ---- */

void members_add(struct world *w)
{
    if (!w->tally)
        return;
    w->members = mem_zalloc(sizeof *w->members);
    for (unsigned i = 0; i < MEMBERS_MAX; i++) {
        struct member *m = &w->members->sockets[i];
        m->act.fire = member_act;
        m->world = m->socket.world = w;
        m->socket.handler = &member_handler;
        m->socket.lag_ns = 3 * MS;
        m->index = i;
        m->room = i % (TALLY_ROOMS - 1);
        rng_seed(&m->rng, w->seed ^ (UINT64_C(0x6d656d62657273) + i));
        member_soon(m);
    }
    for (unsigned i = 0; i < CALLERS_MAX; i++) {
        struct caller *c = &w->members->callers[i];
        char who[16];
        snprintf(who, sizeof who, "caller-%u", i);
        c->who = history_name(w->history, slice_text(who));
        c->act.fire = caller_act;
        c->world = c->socket.world = w;
        c->socket.handler = &caller_handler;
        c->socket.lag_ns = 2 * MS;
        c->room = i % TALLY_ROOMS;
        rng_seed(&c->rng, w->seed ^ (UINT64_C(0x63616c6c657273) + i));
        caller_soon(c);
    }
}

void members_free(struct world *w)
{
    if (!w->members)
        return;
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        socket_free(&w->members->sockets[i].socket);
    for (unsigned i = 0; i < CALLERS_MAX; i++)
        socket_free(&w->members->callers[i].socket);
    mem_free(w->members);
}
