/* SHELL. The command `stoa`: global options, then one command of the table. */
#include <stdio.h>
#include <stdlib.h>

#include "client/cli/cli.h"
#include "client/cli/http.h"
#include "common/mem.h"
#include "common/shell/process.h"

#define SERVER_DEFAULT "http://127.0.0.1:8080"
#define TIMEOUT_DEFAULT_S 30

enum { OPTION_ROUTER = 1000, OPTION_TOKEN, OPTION_CONFIG, OPTION_JSON, OPTION_TIMEOUT };

static const struct option globals[] = {
    {"server", required_argument, NULL, 's'},
    {"router", required_argument, NULL, OPTION_ROUTER},
    {"token", required_argument, NULL, OPTION_TOKEN},
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"json", no_argument, NULL, OPTION_JSON},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
};
#define GLOBALS (sizeof globals / sizeof *globals)
#define OWN_MAX 16

static const char global_help[] =
    "Options of every command:\n"
    "  -s, --server URL   a gateway (STOA_SERVER, default " SERVER_DEFAULT ")\n"
    "      --router ADDR  publish, and ask rooms, by ZeroMQ through this router (STOA_ROUTER)\n"
    "      --token T      token, or @FILE (STOA_TOKEN)\n"
    "      --config F     configuration file (STOA_CONFIG)\n"
    "      --json         one JSON object a line\n"
    "      --timeout S    give up after S seconds (30)\n"
    "  -q, --quiet        say only what was asked for\n";

int cli_fail(const struct cli *cli, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fprintf(stderr, "stoa%s%s: ", cli->command ? " " : "", cli->command ? cli->command : "");
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    return EXIT_FAILED;
}

int cli_misuse(const struct cli *cli, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fprintf(stderr, "stoa%s%s: ", cli->command ? " " : "", cli->command ? cli->command : "");
    vfprintf(stderr, format, values);
    fprintf(stderr, " (stoa %s%s--help shows how)\n", cli->command ? cli->command : "",
            cli->command ? " " : "");
    va_end(values);
    return EXIT_USAGE;
}

bool cli_number(const struct cli *cli, const char *option, const char *text, uint64_t min,
                uint64_t max, uint64_t *out)
{
    char *end;
    *out = *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : UINT64_MAX;
    if (*out != UINT64_MAX && *end == '\0' && *out >= min && *out <= max)
        return true;
    cli_misuse(cli, "%s takes a number from %llu to %llu, not \"%s\"", option,
               (unsigned long long)min, (unsigned long long)max, text);
    return false;
}

/* A line's end in it would begin another header of the request. */
static const char *token_checked(struct cli *cli, const char *text)
{
    for (const char *c = text; *c; c++)
        if (*c < ' ' || *c > '~') {
            cli_misuse(cli, "the token holds a character that no token has, as a line's end");
            exit(EXIT_USAGE);
        }
    return text;
}

/* A token is never shown: not in messages, not in --json. */
static const char *token_value(struct cli *cli, const char *text)
{
    if (text[0] != '@')
        return token_checked(cli, text);
    size_t size;
    char *bytes = process_read_file(text + 1, 64 * 1024, &size);
    if (bytes == NULL) {
        cli_fail(cli, "cannot read the token from %s", text + 1);
        exit(EXIT_USAGE);
    }
    bytes[strcspn(bytes, "\r\n")] = '\0'; /* which lives as long as the process */
    return token_checked(cli, bytes);
}

/* False: not a global option. */
static bool global_option(struct cli *cli, int option)
{
    switch (option) {
    case 's':
        cli->server = optarg;
        return true;
    case 'q':
        return cli->quiet = true;
    case OPTION_ROUTER:
        cli->router = optarg;
        return true;
    case OPTION_TOKEN:
        cli->token = token_value(cli, optarg);
        return true;
    case OPTION_CONFIG:
        cli->config = optarg;
        return true;
    case OPTION_JSON:
        return cli->json = true;
    case OPTION_TIMEOUT: {
        char *end;
        cli->timeout_s = strtod(optarg, &end);
        if (*end != '\0' || !(cli->timeout_s > 0 && cli->timeout_s <= 86400)) {
            cli_misuse(cli, "--timeout takes seconds, not \"%s\"", optarg);
            exit(EXIT_USAGE);
        }
        return true;
    }
    case 'h':
        printf("%s\n%s", cli->help, global_help);
        exit(EXIT_OK);
    default:
        return false;
    }
}

/* getopt's own words name no command and no way on. */
static int option_refused(const struct cli *cli, int option, char **argv)
{
    const char *word = argv[optind - 1];
    if (option == ':')
        cli_misuse(cli, "%s needs a value", word);
    else if (optopt != 0 && word[0] == '-' && word[1] == '-')
        cli_misuse(cli, "%.*s takes no value", (int)strcspn(word, "="), word);
    else if (optopt != 0)
        cli_misuse(cli, "no option -%c", optopt);
    else
        cli_misuse(cli, "no option %s", word);
    return '?';
}

int cli_option(struct cli *cli, int argc, char **argv, const char *own_short,
               const struct option *own)
{
    struct option all[GLOBALS + OWN_MAX + 1];
    struct strbuf letters = {0};
    size_t n = 0;
    for (; own != NULL && own[n].name != NULL; n++) {
        STOA_ASSERT(n < OWN_MAX);
        all[n] = own[n];
    }
    memcpy(all + n, globals, sizeof globals);
    all[n + GLOBALS] = (struct option){0};
    strbuf_printf(&letters, ":%ss:qh", own_short);
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, strbuf_cstr(&letters), all, NULL)) != -1 &&
           global_option(cli, option))
        continue;
    strbuf_free(&letters);
    return option == '?' || option == ':' ? option_refused(cli, option, argv) : option;
}

static void print_help(FILE *out)
{
    fputs("stoa: durable rooms on your own machines\n\nusage: stoa COMMAND [options]\n\n", out);
    for (const struct command *c = cli_commands; c->name != NULL; c++)
        fprintf(out, "  %-9s %s\n", c->name, c->summary);
    fprintf(out,
            "\n%s\nexamples:\n  stoa up -d\n  stoa publish upload:abc123 "
            "'{\"type\":\"completed\"}'\n  stoa tail upload:abc123\n\n"
            "stoa COMMAND --help tells more of each.\n",
            global_help);
}

static const char *environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : otherwise;
}

/* Global options in front of the command. */
static void leading_options(struct cli *cli, int argc, char **argv)
{
    struct option options[GLOBALS + 2];
    memcpy(options, globals, sizeof globals);
    options[GLOBALS] = (struct option){"version", no_argument, NULL, 'V'};
    options[GLOBALS + 1] = (struct option){0};
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "+:s:qhV", options, NULL)) != -1;) {
        if (option == 'h') {
            print_help(stdout);
            exit(EXIT_OK);
        }
        if (option == 'V') {
            printf("stoa %s\n", STOA_VERSION);
            exit(EXIT_OK);
        }
        if (option == '?' || option == ':')
            option_refused(cli, option, argv);
        if (!global_option(cli, option))
            exit(EXIT_USAGE);
    }
}

static int run_command(struct cli *cli, int argc, char **argv)
{
    for (const struct command *c = cli_commands; c->name != NULL; c++) {
        if (strcmp(argv[0], c->name) != 0)
            continue;
        cli->command = c->name;
        cli->help = c->help;
        optind = 0; /* start anew with this command's arguments */
        return c->run(cli, argc, argv);
    }
    return cli_misuse(cli, "no command \"%s\"", argv[0]);
}

int main(int argc, char **argv)
{
    static struct cli cli; /* its token stays reachable until the end */
    cli = (struct cli){
        .server = environment("STOA_SERVER", SERVER_DEFAULT),
        .router = environment("STOA_ROUTER", NULL),
        .config = environment("STOA_CONFIG", NULL),
        .timeout_s = TIMEOUT_DEFAULT_S,
    };
    leading_options(&cli, argc, argv);
    if (optind == argc) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    const char *token = environment("STOA_TOKEN", NULL);
    if (token != NULL && cli.token == NULL)
        cli.token = token_value(&cli, token);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int status = run_command(&cli, argc - optind, argv + optind);
    curl_global_cleanup();
    if (fflush(stdout) != 0 && status == EXIT_OK)
        status = cli_fail(&cli, "cannot write the output");
    return status;
}
