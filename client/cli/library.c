/* SHELL. Opens libstoa with what the configuration says about the cluster. */
#include "client/cli/library.h"

#include "common/config.h"

stoa *library_open(const struct cli *cli)
{
    struct config config;
    struct strbuf problem = {0};
    char why[256];
    stoa *client = NULL;
    if (config_load(&config, cli->config, NULL, &problem) != ERR_OK) {
        cli_fail(cli, "%.*s", SLICE_FMT(strbuf_slice(&problem)));
    } else {
        stoa_options options = STOA_OPTIONS_INIT;
        options.routers = cli->router;
        options.cluster = config.cluster.name;
        options.name = "stoa";
        options.curve_public_key = config.cluster.curve.public_key;
        options.curve_secret_key = config.cluster.curve.secret_key;
        options.curve_server_key = config.cluster.curve.server_key;
        if (stoa_open(&client, &options, why) != STOA_OK) {
            cli_fail(cli, "%s", why);
            client = NULL;
        }
    }
    config_free(&config);
    strbuf_free(&problem);
    return client;
}
