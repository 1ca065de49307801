/* SHELL. stoa config and stoa keygen. */
#include "common/config.h"

#include <stdio.h>
#include <zmq.h>

#include "client/cli/cli.h"

static int check(struct cli *cli, struct config *config)
{
    struct strbuf why = {0};
    int code = config_load(config, cli->config, NULL, &why);
    if (code != ERR_OK)
        fprintf(stderr, "%.*s%s", SLICE_FMT(strbuf_slice(&why)),
                why.size > 0 && why.data[why.size - 1] == '\n' ? "" : "\n");
    strbuf_free(&why);
    return code == ERR_OK ? EXIT_OK : EXIT_FAILED;
}

static void print(struct strbuf *text)
{
    fwrite(text->data, 1, text->size, stdout);
    if (text->size > 0 && text->data[text->size - 1] != '\n')
        putchar('\n');
    strbuf_free(text);
}

int command_config(struct cli *cli, int argc, char **argv)
{
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return EXIT_USAGE;
    if (argc - optind != 1)
        return cli_misuse(cli, "say check, show or default");
    const char *verb = argv[optind];
    struct config config;
    struct strbuf text = {0};
    if (strcmp(verb, "default") == 0) {
        config_print_default(&text);
        print(&text);
        return EXIT_OK;
    }
    if (strcmp(verb, "check") != 0 && strcmp(verb, "show") != 0)
        return cli_misuse(cli, "no verb \"%s\"; there are check, show and default", verb);
    int status = check(cli, &config);
    if (status == EXIT_OK && strcmp(verb, "show") == 0) {
        config_print(&config, cli->json, &text);
        print(&text);
    } else if (status == EXIT_OK && !cli->quiet) {
        puts("the configuration is fine");
    }
    config_free(&config);
    return status;
}

int command_keygen(struct cli *cli, int argc, char **argv)
{
    char public_key[41], secret_key[41];
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return EXIT_USAGE;
    if (optind < argc)
        return cli_misuse(cli, "keygen takes no arguments");
    if (zmq_curve_keypair(public_key, secret_key) != 0)
        return cli_fail(cli, "this libzmq was built without CURVE");
    if (cli->json)
        printf("{\"public_key\":\"%s\",\"secret_key\":\"%s\"}\n", public_key, secret_key);
    else
        printf(
            "# keep the secret key to one process; name the public key where others must know it\n"
            "public_key: \"%s\"\nsecret_key: \"%s\"\n",
            public_key, secret_key);
    return EXIT_OK;
}
