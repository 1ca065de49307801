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

/* Origins, limits and log; everything else needs a restart, which the difference says. */
static void on_reload(void *ctx, struct tick now)
{
    (void)now;
    struct program *p = ctx;
    struct config fresh;
    struct strbuf text = {0};
    if (config_load(&fresh, p->flags.config_path, (const char *const *)p->flags.overrides, &text) !=
        ERR_OK) {
        LOG(&p->log, LOG_ERROR, "gateway.reload_refused", LOG_STR("why", strbuf_cstr(&text)));
        config_free(&fresh);
    } else {
        config_diff(p->is_reloaded ? &p->reloaded : &p->config, &fresh, &text);
        program_reload(p, &fresh);
        LOG(&p->log, LOG_INFO, "gateway.reload", LOG_STR("changed", strbuf_cstr(&text)));
    }
    strbuf_free(&text);
}

int main(int argc, char **argv)
{
    static struct program p;
    const struct loop_handler handler = {&p, on_turn, on_term, on_reload};
    flags_parse(&p.flags, argc, argv);
    if (p.flags.supervised)
        process_die_with_parent();
    program_configure(&p);
    program_start(&p, &handler);
    loop_run(p.loop);
    LOG0(&p.log, LOG_INFO, "gateway.stop");
    program_stop(&p);
    return 0;
}
