/* SHELL. stoa-router's command line. */
#include "router/flags.h"

#include <getopt.h>
#include <stdio.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/shell/process.h"
#include "common/strbuf.h"

static const char usage[] =
    "usage: stoa-router [options]\n"
    "Forwards publishes of libstoa and gateways to the shards that own their keys.\n"
    "  -c, --config FILE         configuration (default $STOA_CONFIG, ./stoa.yaml)\n"
    "      --index N             which entry of cluster.routers this is (default 0)\n"
    "      --listen ADDR         for publishers: host:port or ipc:///path\n"
    "      --listen-gateway ADDR for gateways (default: port + 1, or path.gateway)\n"
    "      --monitor ADDR        /healthz, /readyz, /metrics (default " ROUTER_MONITOR_DEFAULT ")\n"
    "      --supervised          end when the parent process ends\n"
    "  -h, --help   -V, --version\n"
    "examples:\n"
    "  stoa-router --config stoa.yaml --index 0\n"
    "  stoa-router --config stoa.yaml --listen 0.0.0.0:7100 --monitor 0.0.0.0:8090\n";

static void override(struct flags *f, const char *field, const char *value)
{
    STOA_ASSERT(f->n_overrides < FLAGS_OVERRIDES_MAX);
    struct strbuf text = {0};
    strbuf_printf(&text, "%s=%s", field, value);
    strbuf_put_byte(&text, '\0');
    f->overrides[f->n_overrides++] = (char *)text.data;
}

int flags_read(struct flags *f, int argc, char **argv)
{
    enum { OPT_INDEX = 256, OPT_LISTEN, OPT_LISTEN_GATEWAY, OPT_MONITOR, OPT_SUPERVISED };
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"index", required_argument, NULL, OPT_INDEX},
        {"listen", required_argument, NULL, OPT_LISTEN},
        {"listen-gateway", required_argument, NULL, OPT_LISTEN_GATEWAY},
        {"monitor", required_argument, NULL, OPT_MONITOR},
        {"supervised", no_argument, NULL, OPT_SUPERVISED},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0}};
    static const char *const fields[] = {"router.index", "router.listen", "router.listen_gateway",
                                         "monitor.listen"};
    for (int opt; (opt = getopt_long(argc, argv, "c:hV", options, NULL)) != -1;) {
        if (opt == 'c')
            f->config_path = optarg;
        else if (opt == 'h')
            return fputs(usage, stdout) < 0 ? 2 : 1;
        else if (opt == 'V')
            return printf("stoa-router %s\n", STOA_VERSION) < 0 ? 2 : 1;
        else if (opt == OPT_SUPERVISED)
            f->supervised = true;
        else if (opt >= OPT_INDEX && f->n_overrides < FLAGS_OVERRIDES_MAX)
            override(f, fields[opt - OPT_INDEX], optarg);
        else
            return fputs(usage, stderr) < 0 ? 2 : 3;
    }
    if (optind < argc) {
        fprintf(stderr, "stoa-router: \"%s\" is no option\n%s", argv[optind], usage);
        return 3;
    }
    return 0;
}

void flags_free(struct flags *f)
{
    for (size_t i = 0; i < f->n_overrides; i++)
        mem_free(f->overrides[i]);
    f->n_overrides = 0;
}
