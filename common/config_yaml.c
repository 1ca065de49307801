/* SHELL (pure, but config.h is a shell header). A configuration file's text, read event by event
 * with libyaml, which knows line numbers. Each name is looked up in the table by its canonical
 * path, in which a type's name or a place in a list stands as "*". All problems are told, not
 * only the first; what is wrong is skipped as a whole. */
#include <stdio.h>
#include <yaml.h>

#include "common/config_internal.h"
#include "common/mem.h"

struct walk {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one, valid while `has_event` */
    bool has_event;
    bool broken; /* not YAML: nothing more can be read */
    const char *name;
    const char *directory;
    struct config *config;
    struct strbuf *why;
};

struct place {               /* of the value that is being read */
    struct strbuf canonical; /* "types.*.retention" */
    struct strbuf shown;     /* "types.chat.retention" */
    void *base;              /* what offsets of its fields count from */
};

static unsigned long line_of(const struct walk *w)
{
    return (unsigned long)w->event.start_mark.line + 1;
}

static void problem_at(struct walk *w, unsigned long line, const char *path, const char *text)
{
    struct strbuf where = {0};
    strbuf_printf(&where, "%s:%lu", w->name, line);
    config_problem(w->why, strbuf_cstr(&where), path, "%s", text);
    strbuf_free(&where);
}

static void problem_here(struct walk *w, struct place *p, const char *text)
{
    problem_at(w, line_of(w), strbuf_cstr(&p->shown), text);
}

/* The next event; STREAM_END and `broken` when the text is not YAML. */
static yaml_event_type_t next(struct walk *w)
{
    if (w->has_event)
        yaml_event_delete(&w->event);
    w->has_event = false;
    if (!w->broken && yaml_parser_parse(&w->parser, &w->event)) {
        w->has_event = true;
        return w->event.type;
    }
    if (!w->broken) {
        unsigned long line = (unsigned long)w->parser.problem_mark.line + 1;
        problem_at(w, line, NULL, w->parser.problem ? w->parser.problem : "not readable as YAML");
    }
    w->broken = true;
    return YAML_STREAM_END_EVENT;
}

/* Past the rest of the value whose first event is the current one. */
static void skip(struct walk *w)
{
    unsigned depth = 0;
    for (yaml_event_type_t type = w->has_event ? w->event.type : YAML_STREAM_END_EVENT;
         type != YAML_STREAM_END_EVENT; type = next(w)) {
        if (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT)
            depth++;
        else if (type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT)
            depth--;
        if (depth == 0)
            return;
    }
}

/* ---- scalars ---- */

static const char *scalar(const struct walk *w)
{
    return (const char *)w->event.data.scalar.value;
}

static bool scalar_has_nul(const struct walk *w)
{
    return strlen(scalar(w)) != w->event.data.scalar.length;
}

/* "", ~ and null, unquoted. */
static bool is_null(const struct walk *w)
{
    if (w->event.type != YAML_SCALAR_EVENT || w->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *text = scalar(w);
    return *text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0;
}

static void note(struct walk *w, struct place *p, unsigned long line)
{
    struct strbuf from = {0};
    strbuf_printf(&from, "%s:%lu", w->name, line);
    config_note_origin(w->config, strbuf_cstr(&p->shown), strbuf_cstr(&from));
    strbuf_free(&from);
}

static void read_list(struct walk *w, struct place *p, const struct field *f)
{
    struct strbuf why = {0};
    unsigned long line = line_of(w);
    if (w->event.type != YAML_SEQUENCE_START_EVENT) {
        problem_here(w, p, "must be a list, like [a, b]");
        skip(w);
        return;
    }
    config_value_clear(f, p->base);
    while (next(w) != YAML_SEQUENCE_END_EVENT && !w->broken) {
        strbuf_reset(&why);
        if (w->event.type != YAML_SCALAR_EVENT || scalar_has_nul(w)) {
            problem_here(w, p, "an entry is not a text");
            skip(w);
        } else if (!config_value_append(f, p->base, scalar(w), &why)) {
            problem_here(w, p, strbuf_cstr(&why));
        }
    }
    note(w, p, line);
    strbuf_free(&why);
}

static void read_scalar(struct walk *w, struct place *p, const struct field *f, bool is_file)
{
    struct strbuf why = {0};
    if (w->event.type != YAML_SCALAR_EVENT) {
        problem_here(w, p, "must be a single value");
        skip(w);
        return;
    }
    bool fine = false;
    if (is_null(w))
        strbuf_put_text(&why, "has no value; leave the line out for the default");
    else if (scalar_has_nul(w))
        strbuf_put_text(&why, "holds a NUL");
    else if (is_file)
        fine = config_secret_file(f, p->base, scalar(w), w->directory, &why);
    else
        fine = config_value_set(f, p->base, scalar(w), w->directory, &why);
    if (!fine) {
        problem_here(w, p, strbuf_cstr(&why));
    } else {
        if (is_file)
            p->shown.size -= strlen("_file");
        note(w, p, line_of(w));
    }
    strbuf_free(&why);
}

static void read_field(struct walk *w, struct place *p, const struct field *f, bool is_file)
{
    if (config_holds_list(f))
        read_list(w, p, f);
    else
        read_scalar(w, p, f, is_file);
}

/* ---- sections ---- */

static void read_mapping(struct walk *w, struct place *section);

static void place_enter(struct place *p, const struct place *parent)
{
    *p = (struct place){.base = parent->base};
    strbuf_put_slice(&p->canonical, strbuf_slice(&parent->canonical));
    strbuf_put_slice(&p->shown, strbuf_slice(&parent->shown));
}

static void place_free(struct place *p)
{
    strbuf_free(&p->canonical);
    strbuf_free(&p->shown);
}

static void place_name(struct strbuf *path, const char *name)
{
    if (path->size > 0)
        strbuf_put_byte(path, '.');
    strbuf_put_text(path, name);
}

/* Lists whose entries have fields. */
struct list_kind {
    const char *path;
    void *(*entry_new)(struct config *c);
    const char *not_a_list, *not_an_entry, *too_many;
};
static const struct list_kind lists[] = {
    {"routes", config_route_new, "must be a list of routes: - { path: ..., key: ... }",
     "must be a route: { path: ..., key: ... }", "one route too many"},
    {"cluster.peers", config_peer_new, "must be a list of peers: - { key: ..., role: ... }",
     "must be a peer: { key: ..., role: ... }", "one peer too many"},
    {"auth.keys", config_auth_key_new,
     "must be a list of keys: - { kid: ..., alg: ..., secret_file: ... }",
     "must be a key: { kid: ..., alg: ..., secret_file: ... }", "one key too many"},
};

/* NULL: not such a list. */
static const struct list_kind *list_kind_of(const struct place *p)
{
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (slice_is(strbuf_slice(&p->canonical), lists[i].path))
            return &lists[i];
    return NULL;
}

static void read_entries(struct walk *w, struct place *list, const struct list_kind *kind)
{
    if (w->event.type != YAML_SEQUENCE_START_EVENT) {
        problem_here(w, list, kind->not_a_list);
        skip(w);
        return;
    }
    for (size_t i = 0; next(w) != YAML_SEQUENCE_END_EVENT && !w->broken; i++) {
        struct place entry;
        place_enter(&entry, list);
        place_name(&entry.canonical, "*");
        strbuf_printf(&entry.shown, "[%zu]", i);
        if (w->event.type != YAML_MAPPING_START_EVENT) {
            problem_here(w, &entry, kind->not_an_entry);
            skip(w);
        } else if ((entry.base = kind->entry_new(w->config)) == NULL) {
            problem_here(w, &entry, kind->too_many);
            skip(w);
        } else {
            read_mapping(w, &entry);
        }
        place_free(&entry);
    }
}

static void read_section(struct walk *w, struct place *p)
{
    const struct list_kind *list = list_kind_of(p);
    if (list && !is_null(w)) {
        read_entries(w, p, list);
    } else if (w->event.type == YAML_MAPPING_START_EVENT) {
        read_mapping(w, p);
    } else if (!is_null(w)) {
        problem_here(w, p, "has fields of its own: write them indented below it");
        skip(w);
    }
}

static void refuse_unknown(struct walk *w, struct place *p, const struct place *parent,
                           const char *name, unsigned long line)
{
    struct strbuf text = {0}, scratch = {0};
    strbuf_put_text(&text, "unknown field");
    const char *like =
        config_suggestion(strbuf_slice(&parent->canonical), slice_text(name), &scratch);
    if (like)
        strbuf_printf(&text, ", did you mean \"%s\"?", like);
    problem_at(w, line, strbuf_cstr(&p->shown), strbuf_cstr(&text));
    strbuf_free(&text);
    strbuf_free(&scratch);
    skip(w);
}

/* A type's name: what may stand before the ':' of a key and in a path. */
static bool type_name_ok(const char *name)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t n = strlen(name);
    return n > 0 && n <= 64 && strspn(name, letters) == n;
}

/* The value below `name` of `section`; the current event is its first. */
static void read_value(struct walk *w, const struct place *section, const char *name,
                       unsigned long line)
{
    struct place p;
    bool is_file;
    bool is_type = slice_is(strbuf_slice(&section->canonical), "types");
    place_enter(&p, section);
    place_name(&p.canonical, is_type ? "*" : name);
    place_name(&p.shown, name);
    const struct field *f = config_field(strbuf_slice(&p.canonical), &is_file);
    if (w->event.type == YAML_ALIAS_EVENT) {
        problem_here(w, &p, "YAML aliases are not understood here");
    } else if (is_type && !type_name_ok(name)) {
        problem_at(w, line, strbuf_cstr(&p.shown),
                   "a type's name is made of letters, digits, '_' and '-', at most 64");
        skip(w);
    } else if (is_type && (p.base = config_type_named(w->config, slice_text(name))) == NULL) {
        problem_here(w, &p, "one type too many");
        skip(w);
    } else if (f && strchr(name, '.') == NULL) {
        read_field(w, &p, f, is_file);
    } else if (strchr(name, '.') == NULL && config_section(strbuf_slice(&p.canonical))) {
        read_section(w, &p);
    } else {
        refuse_unknown(w, &p, section, name, line);
    }
    place_free(&p);
}

/* Names of one mapping; a secret and its _file twin count as one. */
struct names {
    char **at;
    size_t count;
};

static bool names_add(struct names *names, const char *name)
{
    size_t n = strlen(name);
    if (n > 5 && strcmp(name + n - 5, "_file") == 0)
        n -= 5;
    for (size_t i = 0; i < names->count; i++)
        if (strncmp(names->at[i], name, n) == 0 && names->at[i][n] == '\0')
            return false;
    names->at = mem_realloc(names->at, (names->count + 1) * sizeof *names->at);
    names->at[names->count++] = mem_strndup(name, n);
    return true;
}

static void names_free(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        mem_free(names->at[i]);
    mem_free(names->at);
}

static void refuse_twice(struct walk *w, const struct place *section, const char *name,
                         unsigned long line)
{
    struct strbuf path = {0};
    strbuf_put_slice(&path, strbuf_slice(&section->shown));
    place_name(&path, name);
    problem_at(w, line, strbuf_cstr(&path), "given twice");
    strbuf_free(&path);
    skip(w);
}

static void read_mapping(struct walk *w, struct place *section)
{
    struct names names = {0};
    while (next(w) != YAML_MAPPING_END_EVENT && !w->broken) {
        unsigned long line = line_of(w);
        if (w->event.type != YAML_SCALAR_EVENT || scalar_has_nul(w)) {
            problem_here(w, section, "a field's name must be a text");
            skip(w);
            next(w);
            skip(w);
            continue;
        }
        char *name = mem_strdup(scalar(w));
        next(w);
        if (!w->broken) {
            if (names_add(&names, name))
                read_value(w, section, name, line);
            else
                refuse_twice(w, section, name, line);
        }
        mem_free(name);
    }
    names_free(&names);
}

static void read_document(struct walk *w)
{
    struct place top = {.base = w->config};
    while (!w->broken && next(w) != YAML_STREAM_END_EVENT) {
        if (w->event.type == YAML_MAPPING_START_EVENT) {
            read_mapping(w, &top);
        } else if (w->event.type == YAML_SCALAR_EVENT ||
                   w->event.type == YAML_SEQUENCE_START_EVENT) {
            if (!is_null(w))
                problem_at(w, line_of(w), NULL, "the file must hold fields, like \"gateway:\"");
            skip(w);
        } else if (w->event.type == YAML_DOCUMENT_END_EVENT) {
            if (next(w) == YAML_DOCUMENT_START_EVENT)
                problem_at(w, line_of(w), NULL, "a second document; there can be one");
            break;
        }
    }
    place_free(&top);
}

int config_yaml_apply(struct config *c, const char *name, const char *directory, struct slice text,
                      struct strbuf *why)
{
    struct walk w = {.name = name, .directory = directory, .config = c, .why = why};
    size_t before = why->size;
    STOA_ASSERT(yaml_parser_initialize(&w.parser));
    yaml_parser_set_input_string(&w.parser, text.data, text.size);
    read_document(&w);
    if (w.has_event)
        yaml_event_delete(&w.event);
    yaml_parser_delete(&w.parser);
    return why->size == before ? ERR_OK : ERR_INVALID;
}
