/* SHELL. Building the gateway's program from its configuration, and its end. */
#include "gateway/io_program.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/mem.h"
#include "common/shell/process.h"
#include "common/token/from_config.h"

#define PAGE_MAX_BYTES (4 * MIB)
#define ORPC_KEY_MAX_BYTES (64 * KIB)
#define MONITOR_DEFAULT "127.0.0.1:8090"

_Noreturn static void fail(struct strbuf *why)
{
    fprintf(stderr, "stoa-gateway: %s\n", strbuf_cstr(why));
    exit(1);
}

/* As the core takes them; NULL: not configured. */
static const char *const *origins(const struct config *config)
{
    return config->gateway.origins_set ? (const char *const *)config->gateway.origins.at : NULL;
}

static void set_log(struct program *p)
{
    if (p->given_name)
        snprintf(p->name, sizeof p->name, "%s", p->given_name);
    else if (p->index)
        snprintf(p->name, sizeof p->name, "gateway-%s", p->index);
    else
        snprintf(p->name, sizeof p->name, "gateway-%s", p->host);
    p->log = launch_log(p->name, p->config.log.format, p->config.log.level);
}

static const struct gateway_type *read_types(struct program *p, const struct config *c)
{
    p->types_at = 1 - p->types_at;
    struct gateway_type *types = p->types[p->types_at];
    for (size_t i = 0; i < c->n_types; i++) {
        const struct config_list *headers = &c->types[i].headers;
        types[i] = (struct gateway_type){
            .name = c->types[i].name,
            .has_handler = config_type_has_handler(&c->types[i]),
            .presence = c->types[i].presence,
            .headers = headers->count ? (const char *const *)headers->at : NULL,
            .connection_rate = c->types[i].rate_connection,
            .room_rate = c->types[i].rate_room > 0,
            .drops = c->types[i].rate_over && strcmp(c->types[i].rate_over, "drop") == 0};
    }
    return types;
}

void program_reload(struct program *p, struct config *fresh)
{
    struct config before = p->reloaded;
    bool had = p->is_reloaded;
    p->reloaded = *fresh;
    p->is_reloaded = true;
    gateway_retypes(p->gateway, read_types(p, &p->reloaded), p->reloaded.n_types, clock_now());
    gateway_reorigins(p->gateway, origins(&p->reloaded));
    program_retoken(p, had ? &before : &p->config, &p->reloaded);
    io_relimit(p->io, &p->reloaded);
    if (had)
        config_free(&before);
}

/* libwebsockets sizes its tables by this limit, so it is set to what is needed, not to what is
 * allowed. */
static void limit_descriptors(const struct program *p)
{
    struct rlimit limit;
    uint64_t need = io_descriptors(&p->config);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = need < limit.rlim_max ? need : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void check_policy(struct program *p)
{
    struct strbuf why = {0};
    const char *listen = p->config.gateway.listen;
    bool none = !p->config.auth.mode;
    if (none && !io_is_loopback(listen)) {
        strbuf_printf(&why,
                      "gateway.listen is %s, which is not only this machine, and auth is not "
                      "configured. Write \"auth: { mode: token, keys: [...] }\" to ask for tokens, "
                      "\"auth: { mode: none }\" to let everybody in, or listen on 127.0.0.1.",
                      listen);
        fail(&why);
    }
    if (!none && strcmp(p->config.auth.mode, "none") == 0 && !io_is_loopback(listen))
        LOG(&p->log, LOG_WARN, "gateway.open_to_all", LOG_STR("listen", listen));
}

static enum route_dialect dialect_of(const char *name)
{
    if (strcmp(name, "uploadista") == 0)
        return ROUTE_UPLOADISTA;
    return strcmp(name, "orpc") == 0 ? ROUTE_ORPC : ROUTE_RAW;
}

static void read_routes(struct program *p)
{
    for (size_t i = 0; i < p->config.n_routes; i++) {
        const struct config_route *given = &p->config.routes[i];
        p->routes[i] = (struct gateway_route){
            .path = given->path,
            .key = given->key,
            .replay = given->replay,
            .dialect = dialect_of(given->dialect),
            .types = given->types.count ? (const char *const *)given->types.at : NULL,
            .signing_key = given->signing_key,
            .retry_ms = given->retry_ms};
    }
}

/* Of routes that name no key: the variable, or the file that its twin names. */
static void read_orpc_key(struct program *p)
{
    const char *key = getenv("STOA_ORPC_SIGNING_KEY"), *path = getenv("STOA_ORPC_SIGNING_KEY_FILE");
    struct strbuf why = {0};
    size_t size = 0;
    if (key && *key) {
        p->orpc_key = mem_strdup(key);
    } else if (path && *path) {
        p->orpc_key = process_read_file(path, ORPC_KEY_MAX_BYTES, &size);
        if (!p->orpc_key) {
            strbuf_printf(&why, "STOA_ORPC_SIGNING_KEY_FILE %s: %s", path, strerror(errno));
            fail(&why);
        }
        while (size > 0 && (p->orpc_key[size - 1] == '\n' || p->orpc_key[size - 1] == '\r'))
            p->orpc_key[--size] = 0;
    }
}

void program_configure(struct program *p)
{
    struct strbuf why = {0};
    if (config_load(&p->config, p->launch.config_path, (const char *const *)p->launch.overrides,
                    &why) != ERR_OK)
        fail(&why);
    if (gethostname(p->host, sizeof p->host - 1) != 0)
        snprintf(p->host, sizeof p->host, "0");
    set_log(p);
    check_policy(p);
    const char *page = p->config.gateway.page;
    if (page && !(p->page = process_read_file(page, PAGE_MAX_BYTES, &p->page_size))) {
        strbuf_printf(&why, "gateway.page %s: %s", page, strerror(errno));
        fail(&why);
    }
    if (token_checker_from_config(&p->config, &p->tokens, &why) != ERR_OK)
        fail(&why);
    program_warn_of_keys(p, &p->config);
    read_routes(p);
    read_orpc_key(p);
    limit_descriptors(p);
}

static bool is_ready(void *ctx, struct strbuf *why)
{
    const struct program *p = ctx;
    const char *reason = "";
    bool ready = gateway_ready(p->gateway, &reason);
    if (!ready)
        strbuf_put_text(why, reason);
    return ready;
}

static void create_gateway(struct program *p)
{
    struct config *c = &p->config;
    size_t n_routers = c->cluster.routers.count;
    for (size_t i = 0; i < n_routers; i++)
        p->endpoints[i] = c->cluster.routers.at[i];
    for (size_t i = 0; i < c->cluster.shards.count; i++)
        p->endpoints[n_routers + i] = c->cluster.shards.at[i];
    struct gateway_options options = {
        .self = {.role = ROLE_GATEWAY,
                 .boot = process_random(),
                 .cluster = config_cluster_id(c),
                 .name = p->name,
                 .version = STOA_VERSION,
                 .win_bytes = CREDIT_WINDOW_BYTES},
        .slot_seed = config_slot_seed(c),
        .n_routers = (unsigned)c->cluster.routers.count,
        .n_shards = (unsigned)c->cluster.shards.count,
        .seed = process_random(),
        .payload_max_bytes = c->gateway.limits.message,
        .keys_per_socket = (unsigned)c->gateway.limits.keys_per_socket,
        .loopback = io_is_loopback(c->gateway.listen),
        .tokens = p->tokens,
        .token_check = token_check,
        .token_max_ttl_ms = c->auth.max_ttl_ms,
        .origins = origins(c),
        .types = read_types(p, c),
        .n_types = c->n_types,
        .routes = p->routes,
        .n_routes = c->n_routes,
        .orpc_signing_key = p->orpc_key,
        .address = c->gateway.listen,
        .endpoints = p->endpoints,
        .page = slice_of(p->page, p->page_size),
        .version = STOA_VERSION,
    };
    process_random_bytes(options.self.node, sizeof options.self.node);
    struct hub_ports hub_ports = links_ports(p->links);
    struct gateway_ports ports = io_ports(p->io);
    p->gateway = gateway_create(&options, &hub_ports, &ports, &p->log, p->metrics);
    io_attach(p->io, p->gateway);
    links_attach(p->links, gateway_hub(p->gateway));
}

static void dial(struct program *p)
{
    const struct config_list *routers = &p->config.cluster.routers;
    const struct config_list *shards = &p->config.cluster.shards;
    struct strbuf why = {0};
    uint32_t peer = 1;
    for (size_t i = 0; i < routers->count; i++) {
        struct strbuf endpoint = {0};
        config_router_gateway_endpoint(routers->at[i], &endpoint);
        if (links_dial(p->links, peer++, strbuf_cstr(&endpoint), &why) != ERR_OK)
            fail(&why);
        strbuf_free(&endpoint);
    }
    for (size_t i = 0; i < shards->count; i++)
        if (links_dial(p->links, peer++, shards->at[i], &why) != ERR_OK)
            fail(&why);
}

void program_start(struct program *p, const struct loop_handler *handler)
{
    struct strbuf why = {0};
    const struct links_curve curve = links_curve_of(&p->config);
    const struct monitor_handler monitor = {p, is_ready, NULL};
    const char *monitor_at = p->config.monitor.listen;
    p->metrics = metrics_create();
    metric_set(metrics_gauge(p->metrics, "stoa_build_info",
                             "version=\"" STOA_VERSION "\",role=\"gateway\"", "Always 1"),
               1);
    p->loop = loop_create(handler);
    p->links = links_create(p->loop, &curve, &p->log);
    p->io = io_create(p->loop, &p->config, &p->log, p->metrics, &why);
    if (!p->io)
        fail(&why);
    create_gateway(p);
    dial(p);
    struct strbuf bound = {0};
    if (monitor_listen(&p->monitor, p->loop, monitor_at ? monitor_at : MONITOR_DEFAULT, &monitor,
                       p->metrics, &why) != ERR_OK ||
        io_listen(p->io, p->config.gateway.listen, &bound, &why) != ERR_OK)
        fail(&why);
    struct strbuf url = {0};
    strbuf_printf(&url, "http://%s", strbuf_cstr(&bound));
    LOG(&p->log, LOG_INFO, "gateway.ready", LOG_STR("url", strbuf_cstr(&url)));
    strbuf_free(&url);
    strbuf_free(&bound);
}

/* Stops taking connections, then ends what is left: sockets, links, the core, the loop. */
void program_stop(struct program *p)
{
    io_stop_listening(p->io);
    monitor_close(&p->monitor);
    hub_goodbye(gateway_hub(p->gateway), clock_now());
    io_destroy(&p->io);
    links_destroy(&p->links);
    gateway_destroy(&p->gateway);
    token_checker_destroy(&p->tokens);
    loop_destroy(&p->loop);
    metrics_destroy(&p->metrics);
    config_free(&p->config);
    if (p->is_reloaded)
        config_free(&p->reloaded);
    mem_free(p->page);
    mem_free(p->orpc_key);
    launch_free(&p->launch);
}
