/* SHELL. stoa-router: reads the configuration, joins the router core to its sockets, clock, signals
 * and monitor, and runs. No decision is made here. */
#include <stdio.h>

#include "common/config.h"
#include "common/shell/launch.h"
#include "common/shell/loop.h"
#include "common/shell/monitor.h"
#include "common/shell/process.h"
#include "proto/shell/link.h"
#include "router/router.h"

#define LISTEN_DEFAULT "127.0.0.1:7100"

struct program {
    struct launch launch;
    struct config config;   /* of the start: what runs points into it */
    struct config reloaded; /* once is_reloaded: the last one that was good, for its differences */
    bool is_reloaded;
    char name[32];
    struct log log;
    struct metrics *metrics;
    struct loop *loop;
    struct links *links;
    struct router *router;
    struct monitor *monitor;
};

#define MONITOR_DEFAULT "127.0.0.1:8091"

static const char usage[] =
    "usage: stoa-router [options]\n"
    "Forwards publishes of libstoa and gateways to the shards that own their keys.\n"
    "  -c, --config FILE         configuration (default $STOA_CONFIG, ./stoa.yaml)\n"
    "      --index N             which entry of cluster.routers this is (default 0)\n"
    "      --listen ADDR         for publishers: host:port or ipc:///path\n"
    "      --listen-gateway ADDR for gateways (default: port + 1, or path.gateway)\n"
    "      --monitor ADDR        /healthz, /readyz, /metrics (default " MONITOR_DEFAULT ")\n"
    "      --set FIELD=VALUE     any field of the configuration\n"
    "      --supervised          end when the parent process ends\n"
    "  -h, --help   -V, --version\n"
    "examples:\n"
    "  stoa-router --config stoa.yaml --index 0\n"
    "  stoa-router --config stoa.yaml --listen 0.0.0.0:7100 --monitor 0.0.0.0:8090\n";

/* ---- what the loop calls ---- */

static int64_t on_turn(void *ctx, struct tick now)
{
    struct program *p = ctx;
    router_turn(p->router, now);
    if (router_drained(p->router))
        loop_stop(p->loop);
    return router_deadline(p->router);
}

static void on_term(void *ctx, struct tick now)
{
    struct program *p = ctx;
    router_drain(p->router, now);
}

static void on_reload(void *ctx, struct tick now)
{
    (void)now;
    struct program *p = ctx;
    struct config fresh;
    const struct config *running = p->is_reloaded ? &p->reloaded : &p->config;
    if (!launch_reload(&p->launch, &p->log, running, &fresh)) { /* only the log follows */
        config_free(&fresh);
        return;
    }
    if (p->is_reloaded)
        config_free(&p->reloaded);
    p->reloaded = fresh;
    p->is_reloaded = true;
}

static bool monitor_ready(void *ctx, struct strbuf *why)
{
    const struct program *p = ctx;
    if (router_ready(p->router))
        return true;
    strbuf_put_text(why, "draining, or no shard has claimed slots yet");
    return false;
}

/* ---- start ---- */

static struct router *router_start(struct program *p)
{
    const struct config *c = &p->config;
    struct router_options options = {
        .self = {.role = ROLE_ROUTER,
                 .boot = process_random(),
                 .cluster = config_cluster_id(c),
                 .name = p->name,
                 .version = STOA_VERSION},
        .slot_seed = config_slot_seed(c),
        .n_shards = (unsigned)c->cluster.shards.count,
        .shard_endpoints = (const char *const *)c->cluster.shards.at,
        .seed = process_random(),
    };
    process_random_bytes(options.self.node, sizeof options.self.node);
    struct hub_ports ports = links_ports(p->links);
    return router_create(&options, &ports, &p->log, p->metrics);
}

static int sockets_open(struct program *p, struct strbuf *why)
{
    const struct config *c = &p->config;
    const struct config_list *routers = &c->cluster.routers;
    const char *listen = c->router.listen;
    if (!listen && c->router.index < routers->count)
        listen = routers->at[c->router.index];
    if (!listen && routers->count > 0) {
        strbuf_printf(why, "router.index is %u, but cluster.routers has %zu entries",
                      c->router.index, routers->count);
        return ERR_INVALID;
    }
    if (!listen)
        listen = LISTEN_DEFAULT;
    struct strbuf gateway = {0};
    if (c->router.listen_gateway)
        strbuf_put_text(&gateway, c->router.listen_gateway);
    else
        config_router_gateway_endpoint(listen, &gateway);
    int code = links_listen(p->links, ROUTER_DOOR_PUBLISH, listen, why);
    if (code == ERR_OK)
        code = links_listen(p->links, ROUTER_DOOR_GATEWAY, strbuf_cstr(&gateway), why);
    for (uint32_t n = 1; code == ERR_OK && n <= c->cluster.shards.count; n++)
        code = links_dial(p->links, n, c->cluster.shards.at[n - 1], why);
    if (code == ERR_OK)
        LOG(&p->log, LOG_INFO, "router.start", LOG_STR("listen", listen),
            LOG_STR("listen_gateway", strbuf_cstr(&gateway)),
            LOG_U64("shards", c->cluster.shards.count), LOG_STR("version", STOA_VERSION));
    strbuf_free(&gateway);
    return code;
}

static int program_start(struct program *p, struct strbuf *why)
{
    const struct config *c = &p->config;
    if (c->cluster.shards.count == 0) {
        strbuf_put_text(why, "cluster.shards is empty: name the shards' endpoints");
        return ERR_INVALID;
    }
    const struct loop_handler handler = {
        .ctx = p, .turn = on_turn, .on_term = on_term, .on_reload = on_reload};
    const struct links_curve curve = links_curve_of(c);
    p->metrics = metrics_create();
    metric_set(metrics_gauge(p->metrics, "stoa_build_info",
                             "version=\"" STOA_VERSION "\",role=\"router\"", "Always 1."),
               1);
    p->loop = loop_create(&handler);
    p->links = links_create(p->loop, &curve, &p->log);
    p->router = router_start(p);
    links_attach(p->links, router_hub(p->router));
    TRY(sockets_open(p, why));
    const struct monitor_handler monitor = {.ctx = p, .ready = monitor_ready};
    return monitor_listen(&p->monitor, p->loop,
                          c->monitor.listen ? c->monitor.listen : MONITOR_DEFAULT, &monitor,
                          p->metrics, why);
}

static void program_end(struct program *p)
{
    monitor_close(&p->monitor);
    router_destroy(&p->router); /* forgets its peers at the links */
    links_destroy(&p->links);
    loop_destroy(&p->loop);
    metrics_destroy(&p->metrics);
    config_free(&p->config);
    if (p->is_reloaded)
        config_free(&p->reloaded);
    launch_free(&p->launch);
}

int main(int argc, char **argv)
{
    static struct program p = {.launch = {.program = "stoa-router", .usage = usage}};
    struct strbuf why = {0};
    const struct launch_flag flags[] = {{"index", "router.index", NULL, NULL},
                                        {"listen", "router.listen", NULL, NULL},
                                        {"listen-gateway", "router.listen_gateway", NULL, NULL},
                                        {"monitor", "monitor.listen", NULL, NULL},
                                        {NULL, NULL, NULL, NULL}};
    int done = launch_read(&p.launch, argc, argv, flags);
    if (done >= 0)
        return done;
    if (p.launch.supervised)
        process_die_with_parent();
    process_raise_nofile();
    int code =
        config_load(&p.config, p.launch.config_path, (const char *const *)p.launch.overrides, &why);
    if (code == ERR_OK) {
        snprintf(p.name, sizeof p.name, "router-%u", p.config.router.index);
        p.log = launch_log(p.name, p.config.log.format, p.config.log.level);
        code = program_start(&p, &why);
    }
    if (code == ERR_OK)
        loop_run(p.loop);
    else
        fprintf(stderr, "stoa-router: %s\n", strbuf_cstr(&why));
    program_end(&p);
    strbuf_free(&why);
    return code == ERR_OK ? 0 : 1;
}
