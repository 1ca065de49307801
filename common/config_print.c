/* SHELL (pure, but config.h is a shell header). Showing a configuration: every field with its
 * default, the effective values with their source, the difference of two. */
#include <stdio.h>

#include "common/config_internal.h"
#include "common/json.h"
#include "common/mem.h"

/* ---- default ---- */

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* An entry shows the form of a list whose entries have fields. */
static bool print_list_example(struct strbuf *out, const char *path)
{
    if (strcmp(path, "cluster.peers.*.key") == 0)
        strbuf_put_text(out, "  # peers:  # which public key may be which role, instead of "
                             "curve.allowed; name: optional\n"
                             "  #   - { key: \"...\", role: publisher }  # or gateway, router, "
                             "shard\n");
    if (strcmp(path, "auth.keys.*.kid") == 0)
        strbuf_put_text(out, "  # keys:  # what signs tokens (reload); old and new side by side "
                             "while they are changed\n"
                             "  #   - { kid: \"2026-11\", alg: HS256, secret_file: FILE }\n"
                             "  #   - { kid: \"idp-1\", alg: RS256, public_key_file: FILE }  # or "
                             "ES256\n");
    return has_prefix(path, "routes.") || has_prefix(path, "cluster.peers.") ||
           has_prefix(path, "auth.keys.");
}

/* The names of the sections that `path` lies in and `previous` does not. */
static void print_sections(struct strbuf *out, const char *path, const char *previous)
{
    size_t shared = 0, depth = 0, begin = 0;
    for (size_t i = 0; path[i] != '\0' && path[i] == previous[i]; i++)
        if (path[i] == '.')
            shared = i + 1;
    for (size_t i = 0; path[i] != '\0'; i++) {
        if (path[i] != '.')
            continue;
        struct slice name = slice_of(path + begin, i - begin);
        if (begin == 0 && i >= shared)
            strbuf_put_byte(out, '\n');
        if (i >= shared && slice_is(name, "*"))
            strbuf_printf(out, "%*sevents:  # declare more types beside it\n", (int)(2 * depth),
                          "");
        else if (i >= shared)
            strbuf_printf(out, "%*s%.*s:\n", (int)(2 * depth), "", SLICE_FMT(name));
        depth++;
        begin = i + 1;
    }
}

static void print_preset(struct strbuf *out, const struct field *f)
{
    if (!config_holds_list(f)) {
        strbuf_put_text(out, f->preset);
        return;
    }
    strbuf_put_byte(out, '[');
    json_quote(out, slice_text(f->preset));
    strbuf_put_byte(out, ']');
}

static void print_field(struct strbuf *out, const struct field *f)
{
    const char *name = f->path;
    int depth = 0;
    for (const char *dot; (dot = strchr(name, '.')) != NULL; name = dot + 1)
        depth++;
    size_t begin = out->size;
    strbuf_printf(out, "%*s%s%s:", 2 * depth, "", f->preset ? "" : "# ", name);
    if (f->preset) {
        strbuf_put_byte(out, ' ');
        print_preset(out, f);
    }
    size_t width = out->size - begin;
    strbuf_printf(out, "%*s# %s%s\n", width < 38 ? (int)(38 - width) : 2, "", f->doc,
                  f->reloadable ? " (reload)" : "");
    if (config_has_twin(f))
        strbuf_printf(out, "%*s# %s_file:\n", 2 * depth, "", name);
}

void config_print_default(struct strbuf *out)
{
    const char *previous = "";
    strbuf_put_text(out,
                    "# Every field of Stoa's configuration with its default; all are optional.\n"
                    "# Durations: 250ms 30s 5m 1h 7d. Sizes: 512KiB 64MiB. Fields marked "
                    "(reload) follow SIGHUP.\n");
    for (size_t i = 0; i < config_n_fields; i++) {
        const struct field *f = &config_fields[i];
        if (print_list_example(out, f->path))
            continue;
        print_sections(out, f->path, previous);
        print_field(out, f);
        previous = f->path;
    }
    strbuf_put_text(out, "\n# routes:\n"
                         "#   - { path: \"/progress/{id}\", key: \"upload:{id}\", dialect: raw, "
                         "replay: all }\n");
}

/* ---- show ---- */

struct show {
    const struct config *config;
    struct strbuf *out;
    bool json;
    bool first;
};

static void show_text(struct show *s, const char *path, const struct field *f, const void *base)
{
    size_t begin = s->out->size;
    strbuf_printf(s->out, "%s: ", path);
    if (config_value_is_set(f, base))
        config_value_text(f, base, false, s->out);
    size_t width = s->out->size - begin;
    strbuf_printf(s->out, "%*s# %s\n", width < 48 ? (int)(48 - width) : 2, "",
                  config_origin(s->config, path));
}

static void show_json(struct show *s, const char *path, const struct field *f, const void *base)
{
    if (!s->first)
        strbuf_put_byte(s->out, ',');
    json_quote(s->out, slice_text(path));
    strbuf_put_text(s->out, ":{\"value\":");
    config_value_text(f, base, true, s->out);
    strbuf_put_text(s->out, ",\"from\":");
    json_quote(s->out, slice_text(config_origin(s->config, path)));
    strbuf_put_byte(s->out, '}');
}

static void show_each(void *ctx, const char *path, const struct field *f, const void *base)
{
    struct show *s = ctx;
    if (s->json)
        show_json(s, path, f, base);
    else
        show_text(s, path, f, base);
    s->first = false;
}

void config_print(const struct config *c, bool json, struct strbuf *out)
{
    struct show show = {.config = c, .out = out, .json = json, .first = true};
    if (json)
        strbuf_put_byte(out, '{');
    config_each(c, show_each, &show);
    if (json)
        strbuf_put_text(out, "}\n");
}

/* ---- difference ---- */

struct entry {
    char *path;
    char *value;
    bool reloadable;
};
struct entries {
    struct entry *at;
    size_t count;
};

static void collect(void *ctx, const char *path, const struct field *f, const void *base)
{
    struct entries *all = ctx;
    struct strbuf value = {0};
    if (f->secret) { /* compared in clear, shown never */
        const char *secret = *(char *const *)(const void *)((const char *)base + f->offset);
        strbuf_put_text(&value, secret ? secret : "");
    } else {
        config_value_text(f, base, true, &value);
    }
    all->at = mem_realloc(all->at, (all->count + 1) * sizeof *all->at);
    all->at[all->count++] =
        (struct entry){mem_strdup(path), mem_strdup(strbuf_cstr(&value)), f->reloadable};
    strbuf_free(&value);
}

static const struct entry *entry_find(const struct entries *all, const char *path)
{
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->at[i].path, path) == 0)
            return &all->at[i];
    return NULL;
}

static void put_path(struct strbuf *out, const struct entry *e)
{
    strbuf_printf(out, "%s%s\n", e->path, e->reloadable ? "" : " (needs a restart)");
}

static void entries_free(struct entries *all)
{
    for (size_t i = 0; i < all->count; i++) {
        mem_free(all->at[i].path);
        mem_free(all->at[i].value);
    }
    mem_free(all->at);
}

void config_diff(const struct config *before, const struct config *after, struct strbuf *out)
{
    struct entries old = {0}, fresh = {0};
    config_each(before, collect, &old);
    config_each(after, collect, &fresh);
    for (size_t i = 0; i < fresh.count; i++) {
        const struct entry *e = &fresh.at[i], *was = entry_find(&old, e->path);
        if (!was || strcmp(was->value, e->value) != 0)
            put_path(out, e);
    }
    for (size_t i = 0; i < old.count; i++)
        if (!entry_find(&fresh, old.at[i].path))
            put_path(out, &old.at[i]);
    entries_free(&old);
    entries_free(&fresh);
}
