/* SHELL. stoa-shard: opens its data directory, joins the shard core to store, sockets, clock,
 * signals and monitor, and runs. What it decides is only what the configuration leaves open: the
 * slots that a new directory is granted, and where to listen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/mem.h"
#include "common/shell/launch.h"
#include "common/shell/link.h"
#include "common/shell/loop.h"
#include "common/shell/monitor.h"
#include "common/shell/process.h"
#include "shard/shard.h"
#include "shard/store_lmdb.h"

#define MONITOR_PORT 8092 /* plus the index */
#define LISTEN_DEFAULT "0.0.0.0:7200"
#define GOODBYE_MS 100 /* for the last packets to leave */

struct program {
    struct launch launch;
    bool after_eio;
    struct config config;
    char name[32];
    struct log log;
    struct metrics *metrics;
    struct loop *loop;
    struct links *links;
    struct store *store;
    struct shard *shard;
    struct monitor *monitor;
    int64_t stop_ns; /* draining: when the loop ends; 0: not */
};

static const char usage[] =
    "usage: stoa-shard [options]\n"
    "Keeps the rooms of its slots: order, dedupe, retention, replay, on disk.\n"
    "  -c, --config FILE    configuration (default $STOA_CONFIG, ./stoa.yaml)\n"
    "      --index N        which entry of cluster.shards this is (default 0)\n"
    "      --data DIR       data directory (default data/shard-N)\n"
    "      --listen ADDR    for routers and gateways: host:port or ipc:///path\n"
    "      --slots LO-HI    slots of a new data directory (default: an even share)\n"
    "      --monitor ADDR   /healthz, /readyz, /metrics (default 127.0.0.1:8092 + index)\n"
    "      --set FIELD=VALUE  any field of the configuration\n"
    "      --after-eio      start although the disk failed under an earlier run\n"
    "      --supervised     end when the parent process ends\n"
    "  -h, --help   -V, --version\n"
    "examples:\n"
    "  stoa-shard --config stoa.yaml --index 0 --data /var/lib/stoa/shard-0\n"
    "  stoa-shard --config stoa.yaml --index 1 --listen 0.0.0.0:7200 --monitor 0.0.0.0:8090\n";

/* ---- what the loop calls ---- */

static int64_t on_turn(void *ctx, struct tick now)
{
    struct program *p = ctx;
    bool more = shard_turn(p->shard, now);
    if (p->stop_ns != 0) {
        if (!more && now.mono_ns >= p->stop_ns)
            loop_stop(p->loop);
        int64_t deadline = shard_deadline(p->shard);
        return more ? now.mono_ns : deadline < p->stop_ns ? deadline : p->stop_ns;
    }
    return more ? now.mono_ns : shard_deadline(p->shard);
}

static void on_term(void *ctx, struct tick now)
{
    struct program *p = ctx;
    LOG0(&p->log, LOG_INFO, "shard.drain");
    shard_drain(p->shard, now);
    p->stop_ns = now.mono_ns + GOODBYE_MS * NS_PER_MS;
}

static size_t types_of(const struct config *c, struct shard_type out[CONFIG_TYPES_MAX])
{
    for (size_t i = 0; i < c->n_types; i++)
        out[i] = (struct shard_type){.name = c->types[i].name,
                                     .retention = {.age_ms = c->types[i].age_ms,
                                                   .count = c->types[i].count,
                                                   .bytes = c->types[i].bytes}};
    return c->n_types;
}

static void on_reload(void *ctx, struct tick now)
{
    (void)now;
    struct program *p = ctx;
    struct config fresh;
    struct strbuf text = {0};
    const char *const *overrides = (const char *const *)p->launch.overrides;
    if (config_load(&fresh, p->launch.config_path, overrides, &text) != ERR_OK) {
        LOG(&p->log, LOG_ERROR, "shard.reload_refused", LOG_SLICE("why", strbuf_slice(&text)));
        config_free(&fresh);
    } else {
        struct shard_type types[CONFIG_TYPES_MAX];
        config_diff(&p->config, &fresh, &text);
        shard_retypes(p->shard, types, types_of(&fresh, types));
        p->log.level = launch_log_level(fresh.log.level);
        config_free(&p->config);
        p->config = fresh;
        LOG(&p->log, LOG_INFO, "shard.reload", LOG_SLICE("changed", strbuf_slice(&text)));
    }
    strbuf_free(&text);
}

static bool monitor_ready(void *ctx, struct strbuf *why)
{
    const struct program *p = ctx;
    if (p->stop_ns == 0)
        return true;
    strbuf_put_text(why, "draining");
    return false;
}

/* ---- start ---- */

/* shard.slots, or this index's even share of all slots. */
static int slots_granted(const struct config *c, struct shard_options *o, struct strbuf *why)
{
    unsigned long lo, hi;
    size_t n = c->cluster.shards.count > 0 ? c->cluster.shards.count : 1;
    if (c->shard.slots != NULL) {
        char *end;
        lo = strtoul(c->shard.slots, &end, 10);
        hi = *end == '-' ? strtoul(end + 1, &end, 10) : SLOT_COUNT;
        if (*end != '\0' || lo > hi || hi >= SLOT_COUNT) {
            strbuf_printf(why, "shard.slots is \"%s\"; write LO-HI within 0-%d", c->shard.slots,
                          SLOT_COUNT - 1);
            return ERR_INVALID;
        }
    } else if (c->shard.index >= n) {
        strbuf_printf(why, "shard.index is %u, but cluster.shards has %zu entries", c->shard.index,
                      n);
        return ERR_INVALID;
    } else {
        lo = (unsigned long)(SLOT_COUNT * c->shard.index / n);
        hi = (unsigned long)(SLOT_COUNT * (c->shard.index + 1) / n) - 1;
    }
    o->grant_lo = (uint16_t)lo;
    o->grant_hi = (uint16_t)hi;
    return ERR_OK;
}

static int store_start(struct program *p, struct strbuf *why)
{
    const struct config *c = &p->config;
    struct strbuf dir = {0};
    if (c->shard.data_dir != NULL)
        strbuf_put_text(&dir, c->shard.data_dir);
    else
        strbuf_printf(&dir, "data/shard-%u", c->shard.index);
    const struct store_lmdb_options options = {
        .dir = strbuf_cstr(&dir),
        .cluster = config_cluster_id(c),
        .cluster_name = c->cluster.name,
        .map_bytes = c->shard.map_size,
        .reserve_bytes = c->shard.disk_reserve,
        .after_eio = p->after_eio,
        .slot_seed = config_slot_seed(c),
    };
    int code = store_lmdb_open(&p->store, &options, &p->log, p->metrics, why);
    strbuf_free(&dir);
    return code;
}

static int shard_start(struct program *p, struct strbuf *why)
{
    const struct config *c = &p->config;
    struct shard_type types[CONFIG_TYPES_MAX];
    struct shard_options options = {
        .self = {.role = ROLE_SHARD,
                 .boot = process_random(),
                 .cluster = config_cluster_id(c),
                 .name = p->name,
                 .version = STOA_VERSION},
        .slot_seed = config_slot_seed(c),
        .types = types,
        .n_types = types_of(c, types),
        .grant = store_lmdb_is_new(p->store),
        .seed = process_random(),
        .payload_max_bytes = c->gateway.limits.message,
    };
    TRY(slots_granted(c, &options, why));
    store_lmdb_node(p->store, options.self.node);
    if (store_lmdb_boot(p->store, options.self.boot) != ERR_OK)
        LOG0(&p->log, LOG_WARN, "shard.no_space_at_start");
    struct hub_ports ports = links_ports(p->links);
    struct tick begun = clock_now();
    p->shard = shard_create(&options, p->store, &ports, &p->log, p->metrics, begun);
    LOG(&p->log, LOG_INFO, "shard.recovered",
        LOG_REAL("ms", (double)(clock_now().mono_ns - begun.mono_ns) / NS_PER_MS));
    return ERR_OK;
}

static int sockets_open(struct program *p, struct strbuf *why)
{
    const struct config *c = &p->config;
    const struct config_list *shards = &c->cluster.shards;
    const char *listen = c->shard.listen;
    if (listen == NULL && c->shard.index < shards->count &&
        strncmp(shards->at[c->shard.index], "ipc://", 6) == 0)
        listen = shards->at[c->shard.index];
    if (listen == NULL)
        listen = LISTEN_DEFAULT;
    TRY(links_listen(p->links, 0, listen, why));
    struct strbuf monitor_at = {0};
    if (c->monitor.listen != NULL)
        strbuf_put_text(&monitor_at, c->monitor.listen);
    else
        strbuf_printf(&monitor_at, "127.0.0.1:%u", MONITOR_PORT + c->shard.index);
    const struct monitor_handler monitor = {.ctx = p, .ready = monitor_ready};
    int code =
        monitor_listen(&p->monitor, p->loop, strbuf_cstr(&monitor_at), &monitor, p->metrics, why);
    if (code == ERR_OK)
        LOG(&p->log, LOG_INFO, "shard.ready", LOG_STR("listen", listen),
            LOG_STR("monitor", strbuf_cstr(&monitor_at)), LOG_STR("version", STOA_VERSION));
    strbuf_free(&monitor_at);
    return code;
}

static int program_start(struct program *p, struct strbuf *why)
{
    const struct config *c = &p->config;
    const struct loop_handler handler = {
        .ctx = p, .turn = on_turn, .on_term = on_term, .on_reload = on_reload};
    const struct links_curve curve = {.secret_key = c->cluster.curve.secret_key,
                                      .public_key = c->cluster.curve.public_key,
                                      .server_key = c->cluster.curve.server_key,
                                      .allowed = (const char *const *)c->cluster.curve.allowed.at,
                                      .required = c->cluster.curve.required};
    p->metrics = metrics_create();
    metric_set(metrics_gauge(p->metrics, "stoa_build_info",
                             "version=\"" STOA_VERSION "\",role=\"shard\"", "Always 1."),
               1);
    TRY(store_start(p, why));
    p->loop = loop_create(&handler);
    p->links = links_create(p->loop, &curve, &p->log);
    TRY(shard_start(p, why));
    links_attach(p->links, shard_hub(p->shard));
    return sockets_open(p, why);
}

static void program_end(struct program *p)
{
    monitor_close(&p->monitor);
    if (p->shard != NULL)
        shard_destroy(&p->shard); /* forgets its peers at the links */
    links_destroy(&p->links);
    loop_destroy(&p->loop);
    store_lmdb_close(&p->store);
    metrics_destroy(&p->metrics);
    config_free(&p->config);
    launch_free(&p->launch);
}

int main(int argc, char **argv)
{
    static struct program p = {.launch = {.program = "stoa-shard", .usage = usage}};
    const struct launch_flag flags[] = {
        {"index", "shard.index", NULL},
        {"data", "shard.data_dir", NULL},
        {"listen", "shard.listen", NULL},
        {"slots", "shard.slots", NULL},
        {"monitor", "monitor.listen", NULL},
        {"after-eio", NULL, &p.after_eio},
        {NULL, NULL, NULL},
    };
    struct strbuf why = {0};
    int done = launch_read(&p.launch, argc, argv, flags);
    if (done >= 0)
        return done;
    if (p.launch.supervised)
        process_die_with_parent();
    process_raise_nofile();
    int code =
        config_load(&p.config, p.launch.config_path, (const char *const *)p.launch.overrides, &why);
    if (code == ERR_OK) {
        snprintf(p.name, sizeof p.name, "shard-%u", p.config.shard.index);
        p.log = launch_log(p.name, p.config.log.format, p.config.log.level);
        code = program_start(&p, &why);
    }
    if (code == ERR_OK)
        loop_run(p.loop);
    else
        fprintf(stderr, "stoa-shard: %s\n", strbuf_cstr(&why));
    program_end(&p);
    strbuf_free(&why);
    return code == ERR_OK ? 0 : 1;
}
