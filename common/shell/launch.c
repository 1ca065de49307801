/* SHELL. Flags by getopt_long, built from the program's table and the common ones. */
#include "common/shell/launch.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/mem.h"
#include "common/shell/process.h"
#include "common/strbuf.h"

enum { OPTION_SUPERVISED = 256, OPTION_SET, OPTION_FLAG };

#define FLAGS_MAX 16

/* `field` NULL: the value says FIELD=VALUE itself. */
static bool override(struct launch *l, const char *field, const char *value)
{
    struct strbuf text = {0};
    if (l->n_overrides == LAUNCH_OVERRIDES_MAX || (field == NULL && strchr(value, '=') == NULL))
        return false;
    strbuf_printf(&text, "%s%s%s", field ? field : "", field ? "=" : "", value);
    l->overrides[l->n_overrides++] = mem_strndup((const char *)text.data, text.size);
    strbuf_free(&text);
    return true;
}

static size_t options_build(struct option *options, const struct launch_flag *flags)
{
    static const struct option common[] = {{"config", required_argument, NULL, 'c'},
                                           {"supervised", no_argument, NULL, OPTION_SUPERVISED},
                                           {"set", required_argument, NULL, OPTION_SET},
                                           {"help", no_argument, NULL, 'h'},
                                           {"version", no_argument, NULL, 'V'}};
    size_t n = sizeof common / sizeof *common, i = 0;
    memcpy(options, common, sizeof common);
    for (; flags[i].name != NULL; i++) {
        STOA_ASSERT(i < FLAGS_MAX);
        options[n++] =
            (struct option){flags[i].name, flags[i].set ? no_argument : required_argument, NULL,
                            OPTION_FLAG + (int)i};
    }
    options[n] = (struct option){0};
    return i;
}

static int usage_error(const struct launch *l)
{
    fprintf(stderr, "%s", l->usage);
    return 2;
}

int launch_read(struct launch *l, int argc, char **argv, const struct launch_flag *flags)
{
    struct option options[FLAGS_MAX + 6];
    size_t n_flags = options_build(options, flags);
    for (int c; (c = getopt_long(argc, argv, "c:hV", options, NULL)) != -1;) {
        size_t flag = (size_t)(c - OPTION_FLAG);
        if (c == 'c') {
            l->config_path = optarg;
        } else if (c == 'h') {
            return fputs(l->usage, stdout) < 0 ? 1 : 0;
        } else if (c == 'V') {
            return printf("%s %s\n", l->program, STOA_VERSION) < 0 ? 1 : 0;
        } else if (c == OPTION_SUPERVISED) {
            l->supervised = true;
        } else if (c != OPTION_SET && (c < OPTION_FLAG || flag >= n_flags)) {
            return usage_error(l);
        } else if (c != OPTION_SET && flags[flag].set != NULL) {
            *flags[flag].set = true;
        } else if (c != OPTION_SET && flags[flag].text != NULL) {
            *flags[flag].text = optarg;
        } else if (!override(l, c == OPTION_SET ? NULL : flags[flag].field, optarg)) {
            fprintf(stderr, "%s: --set takes FIELD=VALUE, and at most %d fields can be set\n",
                    l->program, LAUNCH_OVERRIDES_MAX);
            return 2;
        }
    }
    if (optind == argc)
        return -1;
    fprintf(stderr, "%s: \"%s\" is no option\n", l->program, argv[optind]);
    return usage_error(l);
}

void launch_free(struct launch *l)
{
    for (size_t i = 0; i < l->n_overrides; i++)
        mem_free(l->overrides[i]);
    l->n_overrides = 0;
}

enum log_level launch_log_level(const char *text)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (size_t i = 0; text && i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0)
            return (enum log_level)i;
    return LOG_INFO;
}

struct log launch_log(const char *role, const char *format, const char *level)
{
    bool json = format != NULL && strcmp(format, "json") == 0;
    return process_log(role, launch_log_level(level), json ? LOG_JSON : LOG_TEXT);
}

bool launch_reload(const struct launch *l, struct log *log, const struct config *running,
                   struct config *fresh)
{
    struct strbuf changed = {0}, why = {0};
    char event[64];
    const char *role = strchr(l->program, '-') + 1; /* "stoa-shard" */
    bool fine =
        config_load(fresh, l->config_path, (const char *const *)l->overrides, &why) == ERR_OK;
    if (fine)
        config_diff(running, fresh, &changed);
    if (fine && l->accept)
        fine = l->accept(l->accept_ctx, fresh, &changed, &why);
    snprintf(event, sizeof event, fine ? "%s.reload" : "%s.reload_refused", role);
    if (fine) {
        *log = launch_log(log->role, fresh->log.format, fresh->log.level);
        LOG(log, LOG_INFO, event, LOG_SLICE("changed", strbuf_slice(&changed)));
    } else {
        LOG(log, LOG_ERROR, event, LOG_SLICE("why", strbuf_slice(&why)));
    }
    strbuf_free(&changed);
    strbuf_free(&why);
    return fine;
}
