/* SHELL. stoa-shard: flags, the loop's handlers, exit codes: 0 fine, 1 failed, 2 usage. */
#include <stdio.h>

#include "common/shell/process.h"
#include "shard/shell_program.h"

#define GOODBYE_MS 100 /* for the last packets to leave */

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
    "      --check-room FILE  only load a room's code, show what will hold, and end (--json)\n"
    "      --check-rooms    only load the code and the schemas of all room types, and end\n"
    "      --supervised     end when the parent process ends\n"
    "  -h, --help   -V, --version\n"
    "examples:\n"
    "  stoa-shard --config stoa.yaml --index 0 --data /var/lib/stoa/shard-0\n"
    "  stoa-shard --config stoa.yaml --index 1 --listen 0.0.0.0:7200 --monitor 0.0.0.0:8090\n";

static int64_t on_turn(void *ctx, struct tick now)
{
    struct program *p = ctx;
    type_codes_turn(&p->codes);
    bool more = shard_turn(p->shard, now);
    if (more)
        return now.mono_ns;
    int64_t deadline = shard_deadline(p->shard);
    if (p->stop_ns == 0)
        return deadline;
    if (now.mono_ns >= p->stop_ns)
        loop_stop(p->loop);
    return deadline < p->stop_ns ? deadline : p->stop_ns;
}

static void on_term(void *ctx, struct tick now)
{
    struct program *p = ctx;
    LOG0(&p->log, LOG_INFO, "shard.drain");
    shard_drain(p->shard, now);
    p->stop_ns = now.mono_ns + GOODBYE_MS * NS_PER_MS;
}

static void on_reload(void *ctx, struct tick now)
{
    (void)now;
    struct program *p = ctx;
    struct config fresh;
    if (launch_reload(&p->launch, &p->log, &p->config, &fresh))
        program_reload(p, &fresh);
    else
        config_free(&fresh);
}

int main(int argc, char **argv)
{
    static struct program p = {.launch = {.program = "stoa-shard", .usage = usage}};
    const char *room = NULL;
    bool json = false, rooms = false;
    const struct launch_flag flags[] = {
        {"index", "shard.index", NULL, NULL},
        {"data", "shard.data_dir", NULL, NULL},
        {"listen", "shard.listen", NULL, NULL},
        {"slots", "shard.slots", NULL, NULL},
        {"monitor", "monitor.listen", NULL, NULL},
        {"after-eio", NULL, &p.after_eio, NULL},
        {"check-room", NULL, NULL, &room},
        {"check-rooms", NULL, &rooms, NULL},
        {"json", NULL, &json, NULL},
        {NULL, NULL, NULL, NULL},
    };
    struct strbuf why = {0};
    int done = launch_read(&p.launch, argc, argv, flags);
    if (done >= 0)
        return done;
    p.launch.accept = program_accept;
    p.launch.accept_ctx = &p;
    if (p.launch.supervised)
        process_die_with_parent();
    process_raise_nofile();
    int code =
        config_load(&p.config, p.launch.config_path, (const char *const *)p.launch.overrides, &why);
    if (code == ERR_OK && room) {
        code = room_check(room, &p.config, json, &why);
    } else if (code == ERR_OK && rooms) {
        code = rooms_check(&p.config, &why);
    } else if (code == ERR_OK) {
        const struct loop_handler handler = {
            .ctx = &p, .turn = on_turn, .on_term = on_term, .on_reload = on_reload};
        snprintf(p.name, sizeof p.name, "shard-%u", p.config.shard.index);
        p.log = launch_log(p.name, p.config.log.format, p.config.log.level);
        code = program_start(&p, &handler, &why);
    }
    if (code == ERR_OK && !room && !rooms)
        loop_run(p.loop);
    else if (code != ERR_OK)
        fprintf(stderr, "stoa-shard: %s\n", strbuf_cstr(&why));
    program_stop(&p);
    strbuf_free(&why);
    return code == ERR_OK ? 0 : 1;
}
