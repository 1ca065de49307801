/* SHELL. Opens libstoa with what the configuration says about the cluster. */
#include "client/cli/library.h"

#include <stdio.h>
#include <string.h>

#include "common/config.h"

/* Whether some router of the list would be spoken to in clear. */
static bool any_tcp(const char *routers)
{
    for (const char *at = routers; *at; at += strcspn(at, ","), at += *at == ',')
        if (strncmp(at + strspn(at, " "), "ipc://", strlen("ipc://")) != 0)
            return true;
    return false;
}

/* A refused key shows as silence at the caller: the library's warnings say what is wrong, and here
 * follows what to do, in the configuration's words. */
static void warn(const struct cli *cli, const char *line, const char *hint)
{
    bool handshake = strstr(line, "link.handshake_failed") != NULL;
    fprintf(stderr, "stoa %s: %s%s%s\n", cli->command, line, handshake ? ": " : "",
            handshake ? hint : "");
}

static void warn_with_key(void *arg, int level, const char *line)
{
    (void)level;
    warn(arg, line,
         "the router must have a key too and list ours in cluster.curve.allowed or "
         "cluster.peers, and cluster.curve.server must be the router's public key");
}

static void warn_without_key(void *arg, int level, const char *line)
{
    (void)level;
    warn(arg, line,
         "the router may want a CURVE key: give cluster.curve.secret_file (stoa keygen makes one)");
}

stoa *library_open(const struct cli *cli)
{
    struct config config;
    struct strbuf problem = {0};
    char why[256];
    stoa *client = NULL;
    if (config_load(&config, cli->config, NULL, &problem) != ERR_OK) {
        cli_fail(cli, "%.*s", SLICE_FMT(strbuf_slice(&problem)));
    } else if (config.cluster.curve.required && !config.cluster.curve.secret_key &&
               any_tcp(cli->router)) {
        cli_fail(cli,
                 "%s would be in clear, and cluster.curve.required is set: give "
                 "cluster.curve.secret_file (stoa keygen makes one) or use ipc://",
                 cli->router);
    } else {
        stoa_options options = STOA_OPTIONS_INIT;
        options.routers = cli->router;
        options.cluster = config.cluster.name;
        options.name = "stoa";
        options.log_fn = cli->quiet                        ? NULL
                         : config.cluster.curve.secret_key ? warn_with_key
                                                           : warn_without_key;
        options.log_arg = (void *)cli; /* read only, by warn */
        options.log_level = STOA_LOG_WARN;
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
