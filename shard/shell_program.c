/* SHELL. Puts the shard together: store, then core (which rebuilds its index), then sockets, so
 * that nobody reaches a shard that does not know its rooms yet. */
#include "shard/shell_program.h"

#include <malloc.h>
#include <string.h>

#include "common/limits.h"
#include "common/shell/process.h"
#include "shard/grant.h"

#define MONITOR_PORT 8092 /* plus the index */
#define LISTEN_DEFAULT "0.0.0.0:7200"
#define GIVE_BACK_S 60
#define GIVE_BACK_ROOMS 10000

/* Of keys that begin with $ (REVOCATIONS_KEY): neither their count nor their bytes let one go while
 * a token that it revokes may be in force. */
static struct shard_type system_type(const struct config *c)
{
    return (struct shard_type){.name = "$stoa",
                               .retention = {.age_ms = c->auth.max_ttl_ms + TOKEN_CLOCK_MARGIN_MS}};
}

static size_t types_of(const struct config *c, const struct type_codes *codes,
                       struct shard_type out[SHARD_TYPES_MAX])
{
    for (size_t i = 0; i < c->n_types; i++)
        out[i] = (struct shard_type){.name = c->types[i].name,
                                     .rate = c->types[i].rate_room,
                                     .handler = type_codes_handler(codes, c->types[i].name),
                                     .presence = c->types[i].presence,
                                     .retention = {.age_ms = c->types[i].age_ms,
                                                   .count = c->types[i].count,
                                                   .bytes = c->types[i].bytes}};
    out[c->n_types] = system_type(c);
    return c->n_types + 1;
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
    if (code == ERR_OK)
        p->guard = guard_open(strbuf_cstr(&dir), &p->log, &p->verdict);
    strbuf_free(&dir);
    return code;
}

static int codes_start(struct program *p, struct strbuf *why)
{
    struct strbuf loaded = {0};
    int code = type_codes_load(&p->fresh_codes, NULL, &p->config, &p->log, &loaded, why);
    type_codes_replace(&p->codes, &p->fresh_codes, &p->config);
    if (code == ERR_OK && loaded.size > 0)
        LOG(&p->log, LOG_INFO, "shard.handlers", LOG_SLICE("loaded", strbuf_slice(&loaded)));
    strbuf_free(&loaded);
    return code;
}

static void shard_start(struct program *p, struct grant grant)
{
    const struct config *c = &p->config;
    struct shard_type types[SHARD_TYPES_MAX];
    const struct shard_suspect suspect = {.key = strbuf_slice(&p->verdict.key),
                                          .whole_type = p->verdict.whole_type,
                                          .why = strbuf_slice(&p->verdict.why)};
    struct shard_options options = {
        .self = {.role = ROLE_SHARD,
                 .boot = process_random(),
                 .cluster = config_cluster_id(c),
                 .name = p->name,
                 .version = STOA_VERSION},
        .slot_seed = config_slot_seed(c),
        .types = types,
        .n_types = types_of(c, &p->codes, types),
        .grant = store_lmdb_is_new(p->store),
        .grant_lo = grant.lo,
        .grant_hi = grant.hi,
        .seed = process_random(),
        .payload_max_bytes = c->gateway.limits.message,
        .suspects = &suspect,
        .n_suspects = p->verdict.guilty,
        .watch = guard_watch(p->guard),
    };
    store_lmdb_node(p->store, options.self.node);
    /* A full disk cannot take the number; peers tell starts apart by what HELLO carries. */
    if (store_lmdb_boot(p->store, options.self.boot) != ERR_OK)
        LOG0(&p->log, LOG_WARN, "shard.boot_not_stored");
    if (p->codes.count > 0)
        guard_start(p->guard);
    struct hub_ports ports = links_ports(p->links);
    p->shard = shard_create(&options, p->store, &ports, &p->log, p->metrics, clock_now());
    links_attach(p->links, shard_hub(p->shard));
}

/* An ipc entry of cluster.shards is where this process listens; of a tcp one the port would be
 * known, but not the address within the container. */
static const char *listen_endpoint(const struct config *c)
{
    const struct config_list *shards = &c->cluster.shards;
    if (c->shard.listen != NULL)
        return c->shard.listen;
    if (c->shard.index < shards->count && strncmp(shards->at[c->shard.index], "ipc://", 6) == 0)
        return shards->at[c->shard.index];
    return LISTEN_DEFAULT;
}

static bool monitor_ready(void *ctx, struct strbuf *why)
{
    const struct program *p = ctx;
    if (p->stop_ns == 0)
        return true;
    strbuf_put_text(why, "draining");
    return false;
}

static int sockets_open(struct program *p, struct strbuf *why)
{
    const struct config *c = &p->config;
    struct strbuf monitor_at = {0};
    if (c->monitor.listen != NULL)
        strbuf_put_text(&monitor_at, c->monitor.listen);
    else
        strbuf_printf(&monitor_at, "127.0.0.1:%u", MONITOR_PORT + c->shard.index);
    const struct monitor_handler monitor = {.ctx = p, .ready = monitor_ready};
    int code = links_listen(p->links, 0, listen_endpoint(c), why);
    if (code == ERR_OK)
        code = monitor_listen(&p->monitor, p->loop, strbuf_cstr(&monitor_at), &monitor, p->metrics,
                              why);
    strbuf_free(&monitor_at);
    return code;
}

/* Packets are judged by the time of the wake-up that brought them. */
static void on_woken(struct ev_loop *loop, ev_check *w, int events)
{
    (void)loop, (void)events;
    struct program *p = w->data;
    shard_tick(p->shard, clock_now());
}

/* What rooms leave when they are put away lies in between: the allocator gives it back only if it
 * is asked, which takes some ms and so waits until it is worth it. */
static void on_give_back(struct ev_loop *loop, ev_timer *w, int events)
{
    (void)loop, (void)events;
    struct program *p = w->data;
    double cold = metric_value(metrics_gauge(p->metrics, "stoa_rooms", "state=\"cold\"", ""));
    if (cold < p->cold_before)
        p->cold_before = cold;
    if (cold - p->cold_before < GIVE_BACK_ROOMS)
        return;
    (void)malloc_trim(0);
    p->cold_before = cold;
}

static void give_back_start(struct program *p)
{
    (void)malloc_trim(0); /* recovery has held each room in full, if only for a moment */
    ev_timer_init(&p->give_back, on_give_back, GIVE_BACK_S, GIVE_BACK_S);
    p->give_back.data = p;
    ev_timer_start(loop_ev(p->loop), &p->give_back);
}

static void log_ready(struct program *p, int64_t begun_ns)
{
    struct metrics *m = p->metrics;
    LOG(&p->log, LOG_INFO, "shard.ready", LOG_STR("listen", listen_endpoint(&p->config)),
        LOG_REAL("slots", metric_value(metrics_gauge(m, "stoa_slots_owned", "", ""))),
        LOG_REAL("rooms", metric_value(metrics_gauge(m, "stoa_rooms", "state=\"stored\"", ""))),
        LOG_REAL("events", metric_value(metrics_gauge(m, "stoa_retained_events", "", ""))),
        LOG_I64("recovery_ms", (clock_now().mono_ns - begun_ns) / NS_PER_MS),
        LOG_STR("version", STOA_VERSION));
}

int program_start(struct program *p, const struct loop_handler *handler, struct strbuf *why)
{
    const struct config *c = &p->config;
    const struct links_curve curve = links_curve_of(c);
    int64_t begun_ns = clock_now().mono_ns;
    struct grant grant;
    TRY(grant_slots_of(c->shard.slots, c->shard.index, c->cluster.shards.count, &grant, why));
    p->metrics = metrics_create();
    metric_set(metrics_gauge(p->metrics, "stoa_build_info",
                             "version=\"" STOA_VERSION "\",role=\"shard\"", "Always 1."),
               1);
    TRY(codes_start(p, why));
    TRY(store_start(p, why));
    p->loop = loop_create(handler);
    p->links = links_create(p->loop, &curve, &p->log);
    shard_start(p, grant);
    ev_check_init(&p->woken, on_woken);
    ev_set_priority(&p->woken, EV_MAXPRI);
    p->woken.data = p;
    ev_check_start(loop_ev(p->loop), &p->woken);
    give_back_start(p);
    TRY(sockets_open(p, why));
    log_ready(p, begun_ns);
    return ERR_OK;
}

void program_stop(struct program *p)
{
    monitor_close(&p->monitor);
    if (p->loop != NULL) {
        ev_check_stop(loop_ev(p->loop), &p->woken);
        ev_timer_stop(loop_ev(p->loop), &p->give_back);
    }
    shard_destroy(&p->shard); /* forgets its peers at the links */
    guard_close(&p->guard);
    guard_verdict_free(&p->verdict);
    type_codes_free(&p->codes);
    links_destroy(&p->links);
    loop_destroy(&p->loop);
    store_lmdb_close(&p->store);
    metrics_destroy(&p->metrics);
    config_free(&p->config);
    launch_free(&p->launch);
}

bool program_accept(void *ctx, const struct config *fresh, struct strbuf *changed,
                    struct strbuf *why)
{
    struct program *p = ctx;
    int code = type_codes_load(&p->fresh_codes, &p->codes, fresh, &p->log, changed, why);
    if (code != ERR_OK)
        type_codes_free(&p->fresh_codes);
    shard_refused(p->shard, code == ERR_OK ? (struct slice){0} : strbuf_slice(why));
    return code == ERR_OK;
}

void program_reload(struct program *p, struct config *fresh)
{
    struct shard_type types[SHARD_TYPES_MAX];
    if (p->fresh_codes.count > 0)
        guard_start(p->guard);
    shard_retypes(p->shard, types, types_of(fresh, &p->fresh_codes, types));
    type_codes_replace(&p->codes, &p->fresh_codes, fresh);
    config_free(&p->config);
    p->config = *fresh;
}
