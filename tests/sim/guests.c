/* CORE. What one seed in four has besides: gateways configured in every way, logs that are written
 * and read, visitors, events that are no JSON, peers that are no friends. What is drawn for them
 * comes from a generator of their own, so that other seeds are the runs that they were. */
#include "sim.h"

#include "common/json.h"
#include "common/template.h"

#define SEEDS_WITH 4

static uint64_t odd(struct world *w, uint64_t bound)
{
    return rng_below(&w->odd, bound);
}

/* ---- logs: lines of text, or of JSON ---- */

static void on_line(void *ctx, const char *line, size_t size)
{
    struct world *w = ctx;
    bool whole = size > 1 && line[size - 1] == '\n' && !memchr(line, '\n', size - 1);
    if (!whole || (w->log.format == LOG_JSON && !json_valid(slice_of(line, size - 1))))
        world_fail(w, "a line of a log: %.*s", (int)size, line);
    TRACE(w, "log: %.*s", (int)size - 1, line);
}

struct log *guests_log(struct world *w)
{
    return w->guests ? &w->log : NULL;
}

/* ---- configurations ---- */

static const struct gateway_route own_routes[] = {
    {.path = "/own/{a}/{b}", .key = "guest-{a}-{b}", .replay = "3"},
    {.path = "/plain", .key = "guest1", .replay = NULL},
    {.path = "/plain/", .key = "guest2{", .replay = "none"},
    {.path = "/own/{a}/", .key = "guest}", .replay = "bad"},
    {.path = "/short/{x}/feed", .key = "short:{x}{x}", .replay = "all"}};
static const struct gateway_route bad_routes[] = {{.path = "/a{b}", .key = "k", .replay = NULL},
                                                  {.path = "/a/b}", .key = "k", .replay = NULL},
                                                  {.path = "/a/{b}", .key = "{c}", .replay = NULL},
                                                  {.path = "/{}", .key = "{}", .replay = NULL}};
#define OWN_ROUTES (sizeof own_routes / sizeof *own_routes)

static const char *const some_origins[] = {"https://app.example", ORIGIN_ALLOWED, NULL};
static const char *const any_origin[] = {"https://app.example", "*", NULL};
static const char *const no_origin[] = {NULL};
static const char *const *const origins[] = {NULL, some_origins, any_origin, no_origin};

static void routes_check(struct world *w)
{
    struct strbuf why = {0};
    for (size_t i = 0; i < OWN_ROUTES; i++)
        if (!template_check(own_routes[i].path, own_routes[i].key, &why))
            world_fail(w, "a route is refused: %s", strbuf_cstr(&why));
    for (size_t i = 0; i < sizeof bad_routes / sizeof *bad_routes; i++)
        if (template_check(bad_routes[i].path, bad_routes[i].key, &why))
            world_fail(w, "a route is taken: %s", bad_routes[i].path);
    strbuf_free(&why);
}

void guests_gateway(struct process *p, struct gateway_options *o)
{
    static const char *const endpoints[PROCESSES_MAX] = {
        "mem://a", "mem://b", "mem://c", "mem://d", "mem://e", "mem://f", "mem://g", "mem://h"};
    struct world *w = p->world;
    if (!w->guests)
        return;
    o->loopback = odd(w, 3) > 0;
    o->origins = origins[odd(w, 4)];
    o->routes = own_routes;
    o->n_routes = odd(w, OWN_ROUTES + 1);
    o->keys_per_socket = odd(w, 2) ? KEYS_MAX + 2 : KEYS_PER_SOCKET_MAX;
    if (odd(w, 2)) {
        o->endpoints = endpoints;
        o->address = "127.0.0.1:1";
        o->page = slice_text("<!doctype html>");
    }
    if (odd(w, 4) == 0)
        o->version = NULL;
}

/* What a program asks its core now and then, and tells it after a reload. */
void guests_turn(struct process *p)
{
    struct world *w = p->world;
    const char *why = NULL;
    if (!w->guests || odd(w, 40) > 0)
        return;
    switch (p->kind) {
    case GATEWAY:
        gateway_reorigins(p->gateway, origins[odd(w, 4)]);
        if (!gateway_ready(p->gateway, &why) && !why)
            world_fail(w, "%s is not ready and does not say why", p->name);
        if (gateway_drained_all(p->gateway) && !p->draining)
            world_fail(w, "%s has drained without being asked to", p->name);
        break;
    case ROUTER:
        if (router_drained(p->router) && !p->draining)
            world_fail(w, "%s has drained without being asked to", p->name);
        (void)router_ready(p->router);
        break;
    default:
        break;
    }
}

/* ---- events that are no JSON ---- */

enum form guests_form(struct world *w)
{
    return w->guests && odd(w, 4) == 0 ? (odd(w, 2) ? FORM_TEXT : FORM_BYTES) : FORM_JSON;
}

void guests_begin(struct world *w)
{
    w->guests = w->seed % SEEDS_WITH == SEEDS_WITH - 1;
    if (!w->guests)
        return;
    rng_seed(&w->odd, w->seed ^ UINT64_C(0x677565737473));
    w->log = (struct log){.level = (enum log_level)odd(w, 4),
                          .format = odd(w, 2) ? LOG_JSON : LOG_TEXT,
                          .role = odd(w, 2) ? "sim" : NULL,
                          .write = on_line,
                          .ctx = w};
    routes_check(w);
    made_begin(w);
    tally_begin(w);
    w->dice.count[INTRUDER] = odd(w, 2) > 0;
    w->dice.count[IMPOSTOR] = odd(w, 2) > 0;
}
