/* SHELL. stoa config and stoa keygen. */
#include "common/config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "client/cli/cli.h"
#include "client/cli/local.h"
#include "common/token/from_config.h"

#define CURVE_TEXT_BYTES 40

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

/* Whether the keys of tokens are keys, and good ones. */
static int check_token_keys(const struct cli *cli, const struct config *config)
{
    struct strbuf text = {0};
    struct token_checker *checker = NULL;
    int status = EXIT_OK;
    if (token_checker_from_config(config, &checker, &text) != ERR_OK) {
        fprintf(stderr, "%s\n", strbuf_cstr(&text));
        status = EXIT_FAILED;
    } else if (!cli->quiet) {
        token_config_warnings(config, &text);
        if (text.size > 0)
            fprintf(stderr, "note: %s\n", strbuf_cstr(&text));
    }
    token_checker_destroy(&checker);
    strbuf_free(&text);
    return status;
}

/* No mistake, as a local cluster (stoa up) needs no key; elsewhere processes would not start. */
static void note_clear_links(const struct cli *cli, const struct config *config)
{
    if (config->cluster.curve.required && !config->cluster.curve.secret_key && !cli->quiet)
        fputs("note: cluster.curve.required is set without a key: only ipc endpoints will be used; "
              "for tcp give cluster.curve.secret_file (stoa keygen makes one)\n",
              stderr);
}

/* What code and schemas of rooms are is known to shards: theirs is asked, if it is here at all. */
static int check_rooms(const struct cli *cli, const struct config *config)
{
    char program[PATH_MAX];
    bool some = false;
    int status = 0;
    for (size_t i = 0; i < config->n_types; i++)
        some |= config_type_has_handler(&config->types[i]);
    if (!some || !local_program(cli, "stoa-shard", program))
        return EXIT_OK;
    pid_t child = fork();
    if (child == 0) {
        const char *argv[] = {program, "--check-rooms", cli->config ? "--config" : NULL,
                              cli->config, NULL};
        execv(program, (char *const *)argv);
        fprintf(stderr, "%s: %s\n", program, strerror(errno));
        _exit(EXIT_FAILED);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return cli_fail(cli, "%s: %s", program, strerror(errno));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? EXIT_OK : EXIT_FAILED;
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
    if (status == EXIT_OK)
        note_clear_links(cli, &config);
    if (status == EXIT_OK && strcmp(verb, "check") == 0)
        status = check_token_keys(cli, &config);
    if (status == EXIT_OK && strcmp(verb, "check") == 0)
        status = check_rooms(cli, &config);
    if (status == EXIT_OK && strcmp(verb, "show") == 0) {
        config_print(&config, cli->json, &text);
        print(&text);
    } else if (status == EXIT_OK && !cli->quiet) {
        puts("the configuration is fine");
    }
    config_free(&config);
    return status;
}

/* A new file that only this user can read; nothing is ever overwritten. */
static int secret_write(struct cli *cli, const char *path, const char *secret)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return cli_fail(cli, "%s is there already and is not overwritten: name a new file", path);
    if (fd < 0)
        return cli_fail(cli, "cannot create %s: %s", path, strerror(errno));
    bool written = dprintf(fd, "%s\n", secret) == CURVE_TEXT_BYTES + 1 && fsync(fd) == 0;
    int error = errno;
    if (close(fd) == 0 && written)
        return EXIT_OK;
    (void)unlink(path);
    return cli_fail(cli, "cannot write %s: %s", path, strerror(error));
}

/* What to paste: one key pair for every process; a publisher with a pair of its own is listed. */
static void snippet_print(FILE *out, const char *path, const char *public_key)
{
    fprintf(out,
            "# The public key is \"%s\".\n"
            "# For one key shared by all processes, paste:\n"
            "cluster: { curve: { secret_file: \"%s\", required: true } }\n"
            "# For a publisher with a key of its own, add to the cluster's configuration:\n"
            "#   cluster.curve.allowed: [\"%s\"]\n"
            "# and give the publisher, beside this secret_file, the cluster's public key as "
            "cluster.curve.server.\n",
            public_key, path, public_key);
}

int command_keygen(struct cli *cli, int argc, char **argv)
{
    char public_key[CURVE_TEXT_BYTES + 1], secret_key[CURVE_TEXT_BYTES + 1], full[PATH_MAX];
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return EXIT_USAGE;
    if (argc - optind > 1)
        return cli_misuse(cli, "keygen takes one file at most");
    const char *path = optind < argc ? argv[optind] : NULL;
    if (zmq_curve_keypair(public_key, secret_key) != 0)
        return cli_fail(cli, "this libzmq was built without CURVE");
    int status = path ? secret_write(cli, path, secret_key) : EXIT_OK;
    if (status == EXIT_OK && path && realpath(path, full))
        path = full; /* paths in a configuration are relative to its file */
    if (status == EXIT_OK && cli->json)
        printf("{\"public\":\"%s\",\"secret%s\":\"%s\"}\n", public_key, path ? "_file" : "",
               path ? path : secret_key);
    else if (status == EXIT_OK && !path)
        printf("%s\n", secret_key);
    if (status == EXIT_OK && !cli->json && !cli->quiet)
        snippet_print(path ? stdout : stderr, path ? path : "FILE", public_key);
    explicit_bzero(secret_key, sizeof secret_key);
    return status;
}
