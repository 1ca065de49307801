/* CORE. Those who ask who is there, in the guests' worlds: stoa.v1 sockets in two rooms of "made",
 * one that does nothing and one that does anything, which count their members. A watcher is told of
 * nobody's coming twice and of nobody's going who was not there; behind a gap it gets the list
 * anew. In the calm every list is what the room itself says over HTTP, and every watcher is in it.
 * Their choices come from generators of their own. */
#include "sim.h"

#include "common/json.h"
#include "common/map.h"
#include "shard/context.h"

#define ACTS 40       /* of each, in a storm of any length */
#define CALM_TRIES 60 /* half seconds until all lists are the same */
#define RETRY_NS (200 * MS)

static const char *const rooms[WATCHED_ROOMS] = {"made:p0", "made:w1"};

struct watcher {
    struct event act;
    struct socket socket;
    struct world *world;
    struct rng rng;
    unsigned index, room;
    bool open;           /* it has asked for the socket */
    bool ready;          /* and may speak */
    bool subscribed;     /* it has said so, and nobody has said no */
    bool let_in;         /* somebody has said yes */
    bool told;           /* who is there */
    struct map *members; /* char *, owned, by id as it was written */
};

struct watchers {
    struct watcher at[WATCHERS_MAX];
    struct socket asker; /* of the room itself, in the end */
    struct strbuf answer;
    unsigned status;
    bool waiting;
};

/* ---- the list ---- */

static void forget_all(struct watcher *v)
{
    size_t cursor = 0;
    char *id;
    while ((id = map_next(v->members, &cursor)) != NULL) {
        (void)map_remove(v->members, slice_text(id));
        mem_free(id);
    }
    v->told = false;
}

static void come(struct watcher *v, struct slice member)
{
    struct slice id = json_get(member, "id").raw;
    if (id.size == 0 || json_get(member, "state").type == JSON_NONE)
        world_fail(v->world, "watcher %u is told of a member %.*s", v->index, SLICE_FMT(member));
    else if (map_get(v->members, id))
        world_fail(v->world, "watcher %u is told twice that %.*s is there", v->index,
                   SLICE_FMT(id));
    else {
        char *own = mem_strndup((const char *)id.data, id.size);
        map_put(v->members, slice_text(own), own);
    }
}

static void go(struct watcher *v, struct slice member)
{
    struct slice id = json_get(member, "id").raw;
    char *own = id.size > 0 ? map_remove(v->members, id) : NULL;
    if (!own)
        world_fail(v->world, "watcher %u is told that %.*s goes, who was not there", v->index,
                   SLICE_FMT(member));
    mem_free(own);
}

static void list_take(struct watcher *v, struct slice list)
{
    forget_all(v);
    v->told = true;
    struct json_iter it = json_members(list);
    while (json_next(&it))
        come(v, it.value.raw);
}

static void hear(struct watcher *v, struct slice frame)
{
    struct json_value list = json_get(frame, "members"), join = json_get(frame, "join"),
                      leave = json_get(frame, "leave");
    if (list.type == JSON_ARRAY)
        list_take(v, list.raw);
    else if (!v->told)
        world_fail(v->world, "watcher %u hears %.*s before the list", v->index, SLICE_FMT(frame));
    else if (join.type == JSON_OBJECT)
        come(v, join.raw);
    else
        go(v, leave.raw);
}

/* ---- its socket ---- */

static void soon(struct watcher *v)
{
    struct world *w = v->world;
    int64_t pause =
        w->storm ? (int64_t)rng_below(&v->rng, 2 * (uint64_t)w->dice.storm_ns / ACTS) : RETRY_NS;
    event_set(w, &v->act, pause);
}

static void on_opened(struct socket *s)
{
    OWNER_OF(s, struct watcher, socket)->ready = true;
}

static void on_frame(struct socket *s, struct slice text)
{
    struct watcher *v = OWNER_OF(s, struct watcher, socket);
    struct slice status = json_get(text, "status").raw;
    TRACE(v->world, "watcher %u hears %.*s", v->index, SLICE_FMT(text));
    if (json_get(text, "presence").type == JSON_STRING) {
        hear(v, text);
    } else if (json_get(text, "unsub").type == JSON_STRING ||
               json_get(text, "error").type == JSON_OBJECT) {
        v->subscribed = v->let_in = false;
        forget_all(v);
    } else if (status.size > 0) {
        v->let_in = true;
        if (slice_is(status, "\"missed\""))
            v->told = false; /* what it knew does not hold; the list comes */
    }
}

static void on_closed(struct socket *s, unsigned code)
{
    struct watcher *v = OWNER_OF(s, struct watcher, socket);
    (void)code;
    v->open = v->ready = v->subscribed = v->let_in = false;
    forget_all(v);
}

static void on_refused(struct socket *s, unsigned status, struct slice body)
{
    (void)status, (void)body;
    on_closed(s, 0);
}

static const struct socket_handler handler = {
    .answered = on_refused, .opened = on_opened, .frame = on_frame, .closed = on_closed};

static void connect_to(struct watcher *v)
{
    struct process *gateway = gateway_pick(v->world);
    if (!gateway)
        return;
    struct http_request r = request_make(HTTP_M_GET, "/stoa", "");
    request_header(&r, "Sec-WebSocket-Protocol", "stoa.v1");
    r.upgrade = true;
    v->open = true;
    (void)socket_request(&v->socket, gateway, &r);
}

static void subscribe(struct watcher *v)
{
    char text[120];
    snprintf(text, sizeof text,
             "{\"sub\":\"%s\",\"presence\":true,\"state\":{\"watcher\":\"o%u\"}}", rooms[v->room],
             v->index);
    forget_all(v);
    v->subscribed = true;
    socket_say(&v->socket, text);
}

static void disturb(struct watcher *v)
{
    char text[40];
    switch (rng_below(&v->rng, 8)) {
    case 0:
        socket_leave(&v->socket);
        on_closed(&v->socket, 0);
        break;
    case 1:
        snprintf(text, sizeof text, "{\"unsub\":\"%s\"}", rooms[v->room]);
        if (v->told)
            socket_say(&v->socket, text);
        break;
    case 2:
        v->socket.stalled = true;
        break;
    default:
        socket_unstall(&v->socket);
    }
}

static void watcher_act(struct event *e)
{
    struct watcher *v = OWNER_OF(e, struct watcher, act);
    if (!v->world->storm)
        socket_unstall(&v->socket);
    if (!v->open)
        connect_to(v);
    else if (v->ready && !v->socket.ended && !v->subscribed)
        subscribe(v);
    else if (v->ready && !v->socket.ended && v->world->storm)
        disturb(v);
    soon(v);
}

/* Its sub says who it is. False: it is nobody of ours. */
bool watchers_identify(struct slice request, struct persona *out)
{
    static char id[8];
    struct slice name = json_get(json_get(request, "client_state").raw, "watcher").raw;
    if (name.size < 3 || name.size - 2 >= sizeof id)
        return false;
    snprintf(id, sizeof id, "%.*s", (int)name.size - 2, (const char *)name.data + 1);
    *out = (struct persona){.id = slice_text(id)};
    return true;
}

bool watchers_is(const struct context *ctx)
{
    struct slice id = context_id(ctx);
    return id.size > 0 && id.data[0] == 'p';
}

/* ---- in the end ---- */

static void on_answered(struct socket *s, unsigned status, struct slice body)
{
    struct watchers *all = OWNER_OF(s, struct watchers, asker);
    all->waiting = false;
    all->status = status;
    strbuf_reset(&all->answer);
    strbuf_put_slice(&all->answer, body);
}

static void on_cut_off(struct socket *s, unsigned code)
{
    (void)code;
    OWNER_OF(s, struct watchers, asker)->waiting = false;
}

static const struct socket_handler asker_handler = {.answered = on_answered, .closed = on_cut_off};

static void ask(struct watchers *all, unsigned room)
{
    struct world *w = all->asker.world;
    char path[40];
    snprintf(path, sizeof path, "/api/made/%s/presence", rooms[room] + strlen("made:"));
    struct http_request r = request_make(HTTP_M_GET, path, "");
    struct process *gateway = gateway_pick(w);
    all->status = 0;
    all->waiting = gateway && socket_request(&all->asker, gateway, &r);
    for (int i = 0; i < CALM_TRIES && all->waiting && !w->failed; i++)
        world_run_for(w, 500 * MS);
}

/* NULL: its list is the room's; else what differs. */
static const char *differs(const struct watcher *v, struct slice list)
{
    size_t count = 0;
    struct json_iter it = json_members(list);
    if (!v->let_in && v->room > 0)
        return NULL; /* a room that does anything may let in nobody, and may be quarantined */
    if (!v->told)
        return "it is not told";
    for (; json_next(&it); count++)
        if (!map_get(v->members, json_get(it.value.raw, "id").raw))
            return "one is there whom it does not know";
    return count == map_count(v->members) ? NULL : "it knows somebody who is not there";
}

void watchers_check(struct world *w)
{
    struct watchers *all = w->watchers;
    for (unsigned i = 0; all && i < WATCHERS_MAX; i++) {
        struct watcher *v = &all->at[i];
        const char *why = "nobody answers";
        for (int tries = 0; why && tries < CALM_TRIES && !w->failed; tries++) {
            ask(all, v->room);
            if (all->status == 200)
                why = differs(v, strbuf_slice(&all->answer));
            if (why)
                world_run_for(w, 500 * MS);
        }
        if (why)
            world_fail(w, "in the calm, watcher %u of %s: %s; the room says %u %.*s", i,
                       rooms[v->room], why, all->status, SLICE_FMT(strbuf_slice(&all->answer)));
    }
}

/* ---- life ---- */

void watchers_add(struct world *w)
{
    if (!w->guests)
        return;
    w->watchers = mem_zalloc(sizeof *w->watchers);
    w->watchers->asker = (struct socket){.world = w, .handler = &asker_handler, .lag_ns = MS};
    for (unsigned i = 0; i < WATCHERS_MAX; i++) {
        struct watcher *v = &w->watchers->at[i];
        v->act.fire = watcher_act;
        v->world = v->socket.world = w;
        v->socket.handler = &handler;
        v->socket.lag_ns = 3 * MS;
        v->index = i;
        v->room = i % WATCHED_ROOMS;
        v->members = map_create(w->seed);
        rng_seed(&v->rng, w->seed ^ (UINT64_C(0x77617463686572) + i));
        soon(v);
    }
}

void watchers_free(struct world *w)
{
    if (!w->watchers)
        return;
    for (unsigned i = 0; i < WATCHERS_MAX; i++) {
        socket_free(&w->watchers->at[i].socket);
        forget_all(&w->watchers->at[i]);
        map_destroy(&w->watchers->at[i].members);
    }
    socket_free(&w->watchers->asker);
    strbuf_free(&w->watchers->answer);
    mem_free(w->watchers);
}
