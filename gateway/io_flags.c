/* SHELL. Command line of stoa-gateway. */
#include "gateway/io_flags.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/shell/process.h"
#include "common/strbuf.h"

static const char help[] =
    "Usage: stoa-gateway [options]\n"
    "Serves browsers and HTTP clients: WebSocket, SSE, publish.\n\n"
    "  --config FILE    configuration (default $STOA_CONFIG, then ./stoa.yaml)\n"
    "  --listen ADDR    gateway.listen, host:port\n"
    "  --monitor ADDR   monitor.listen, host:port\n"
    "  --page FILE      HTML served at GET /\n"
    "  --index N        number of this gateway, for its name (default 0)\n"
    "  --name NAME      name in logs and links (default gateway-N)\n"
    "  --supervised     end with the parent process\n"
    "  --help, --version\n\n"
    "Examples:\n"
    "  stoa-gateway --config /etc/stoa.yaml\n"
    "  stoa-gateway --listen 127.0.0.1:8080 --page share/page.html\n\n"
    "SIGTERM drains (up to 60 s), a second one ends at once; SIGHUP reloads.\n";

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},  {"listen", required_argument, NULL, 'l'},
    {"monitor", required_argument, NULL, 'm'}, {"page", required_argument, NULL, 'p'},
    {"index", required_argument, NULL, 'i'},   {"name", required_argument, NULL, 'n'},
    {"supervised", no_argument, NULL, 's'},    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},       {NULL, 0, NULL, 0},
};

_Noreturn static void refuse(const char *what, const char *value)
{
    fprintf(stderr, "stoa-gateway: %s \"%s\" is not understood; see --help\n", what, value);
    exit(2);
}

static void put_override(struct flags *f, const char *path, const char *value)
{
    struct strbuf text = {0};
    if (f->n_overrides == FLAG_OVERRIDES_MAX)
        refuse("one option too many,", path);
    strbuf_printf(&text, "%s=%s", path, value);
    f->overrides[f->n_overrides++] = mem_strdup(strbuf_cstr(&text));
    strbuf_free(&text);
}

static void set_index(struct flags *f, const char *value)
{
    char *end;
    unsigned long index = strtoul(value, &end, 10);
    if (end == value || *end != '\0' || index > 65535)
        refuse("--index", value);
    if (f->name)
        return;
    struct strbuf text = {0};
    strbuf_printf(&text, "gateway-%lu", index);
    f->name = mem_strdup(strbuf_cstr(&text));
    strbuf_free(&text);
}

void flags_parse(struct flags *f, int argc, char **argv)
{
    int flag;
    while ((flag = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (flag) {
        case 'c':
            f->config_path = optarg;
            break;
        case 'l':
            put_override(f, "gateway.listen", optarg);
            break;
        case 'm':
            put_override(f, "monitor.listen", optarg);
            break;
        case 'p':
            f->page_path = optarg;
            break;
        case 'i':
            set_index(f, optarg);
            break;
        case 'n':
            mem_free(f->name);
            f->name = mem_strdup(optarg);
            break;
        case 's':
            f->supervised = true;
            break;
        case 'h':
            exit(fputs(help, stdout) < 0);
        case 'v':
            exit(puts("stoa-gateway " STOA_VERSION) < 0);
        default:
            exit(2); /* getopt has said why */
        }
    }
    if (optind < argc)
        refuse("the argument", argv[optind]);
    if (!f->name)
        f->name = mem_strdup("gateway-0");
}

void flags_free(struct flags *f)
{
    for (size_t i = 0; i < f->n_overrides; i++)
        mem_free(f->overrides[i]);
    mem_free(f->name);
}
