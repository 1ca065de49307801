/* SHELL. stoa-gateway: configuration, the parts, the loop. Decides nothing that a test would want.
 */
#include "common/shell/process.h"
#include "gateway/io_program.h"

#define DRAIN_SPREAD_MS 30000
#define DRAIN_MAX_MS 60000

static int64_t on_turn(void *ctx, struct tick now)
{
    struct program *p = ctx;
    int64_t due = io_turn(p->io, now);
    if (p->drain_until_ns == 0)
        return due;
    if ((gateway_drained_all(p->gateway) && io_quiet(p->io)) || now.mono_ns >= p->drain_until_ns)
        loop_stop(p->loop);
    return due < p->drain_until_ns ? due : p->drain_until_ns;
}

static void on_term(void *ctx, struct tick now)
{
    struct program *p = ctx;
    p->drain_until_ns = now.mono_ns + DRAIN_MAX_MS * NS_PER_MS;
    gateway_drain(p->gateway, now, DRAIN_SPREAD_MS);
    io_drain(p->io);
}

/* Tokens, origins, limits and log; everything else needs a restart, which the difference says. */
static void on_reload(void *ctx, struct tick now)
{
    (void)now;
    struct program *p = ctx;
    struct config fresh;
    const struct config *running = p->is_reloaded ? &p->reloaded : &p->config;
    if (launch_reload(&p->launch, &p->log, running, &fresh))
        program_reload(p, &fresh);
    else
        config_free(&fresh);
}

static const char usage[] =
    "Usage: stoa-gateway [options]\n"
    "Serves browsers and HTTP clients: WebSocket, SSE, publish.\n\n"
    "  --config FILE    configuration (default $STOA_CONFIG, then ./stoa.yaml)\n"
    "  --listen ADDR    gateway.listen, host:port\n"
    "  --monitor ADDR   monitor.listen, host:port\n"
    "  --page FILE      HTML served at GET /\n"
    "  --index N        number of this gateway: names it gateway-N\n"
    "  --name NAME      name in logs and links (default gateway-HOSTNAME)\n"
    "  --set FIELD=VALUE  any field of the configuration\n"
    "  --supervised     end with the parent process\n"
    "  --help, --version\n\n"
    "Examples:\n"
    "  stoa-gateway --config /etc/stoa.yaml\n"
    "  stoa-gateway --listen 127.0.0.1:8080 --page share/page.html\n\n"
    "SIGTERM drains (up to 60 s), a second one ends at once; SIGHUP reloads.\n";

int main(int argc, char **argv)
{
    static struct program p = {
        .launch = {
            .program = "stoa-gateway", .usage = usage, .accept = program_accept, .accept_ctx = &p}};
    const struct launch_flag flags[] = {
        {"listen", "gateway.listen", NULL, NULL}, {"monitor", "monitor.listen", NULL, NULL},
        {"page", "gateway.page", NULL, NULL},     {"index", NULL, NULL, &p.index},
        {"name", NULL, NULL, &p.given_name},      {NULL, NULL, NULL, NULL}};
    const struct loop_handler handler = {&p, on_turn, on_term, on_reload};
    int done = launch_read(&p.launch, argc, argv, flags);
    if (done >= 0)
        return done;
    if (p.launch.supervised)
        process_die_with_parent();
    program_configure(&p);
    program_start(&p, &handler);
    loop_run(p.loop);
    LOG0(&p.log, LOG_INFO, "gateway.stop");
    program_stop(&p);
    return 0;
}
