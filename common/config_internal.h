/* SHELL (pure, but config.h is a shell header). The table of configuration fields and what the
 * files around it share: config_table.c has the table, config_value.c turns texts into values and
 * back, config_key.c knows CURVE keys, config_yaml.c and config.c apply them, config_print.c shows
 * them. */
#ifndef STOA_COMMON_CONFIG_INTERNAL_H
#define STOA_COMMON_CONFIG_INTERNAL_H

#include "common/config.h"

#define CURVE_KEY_TEXT_BYTES 40
#define CURVE_KEY_BYTES 32

enum field_kind {
    FIELD_TEXT,      /* char * */
    FIELD_PATH,      /* char *, relative to the configuration file */
    FIELD_HANDLER,   /* char *: "events", or a path that ends in .lua or .so */
    FIELD_ENDPOINT,  /* char *: host:port, tcp://host:port, ipc://path */
    FIELD_LIST,      /* struct config_list */
    FIELD_ENDPOINTS, /* struct config_list of endpoints */
    FIELD_KEY,       /* char *: a CURVE key; has a twin PATH_file */
    FIELD_KEYS,      /* struct config_list of CURVE keys */
    FIELD_UNSIGNED,  /* unsigned */
    FIELD_NUMBER,    /* uint64_t */
    FIELD_SIZE,      /* uint64_t, bytes */
    FIELD_DURATION,  /* int64_t, milliseconds */
    FIELD_RATE,      /* double, per second */
    FIELD_BOOL,      /* bool */
};

struct field {
    const char *path; /* "types.*.retention.age": one segment stands for a type's name or a place */
    enum field_kind kind;
    size_t offset; /* in struct config, or in an entry of types, routes, peers, keys */
    const char
        *preset;     /* default, as one would write it; list entries joined by ','; NULL: unset */
    const char *doc; /* one line */
    const char *choices; /* "text|json": the values there are; NULL: any */
    const char *later;   /* "token": values that come in a later version */
    uint64_t min, max;   /* numbers, sizes, durations; max 0: no bound */
    bool secret;         /* masked when shown; has a twin PATH_file */
    bool reloadable;
};

extern const struct field config_fields[];
extern const size_t config_n_fields;

/* Whether the field may be given as PATH_file too. */
bool config_has_twin(const struct field *f);
/* Whether the field is a struct config_list. */
bool config_holds_list(const struct field *f);

/* The field of a canonical path ("types.*.handler"), or NULL. `is_file`: it is the twin. */
const struct field *config_field(struct slice path, bool *is_file);
/* Whether fields lie below this canonical path. */
bool config_section(struct slice path);
/* The child name of `section` that looks most like `name`, or NULL when none does. */
const char *config_suggestion(struct slice section, struct slice name, struct strbuf *scratch);

/* Sets a field from its text; what was there is freed. False: `why` has the reason. `base` is the
 * struct that the field's offset counts from. `directory`: for FIELD_PATH; NULL: as it is. */
bool config_value_set(const struct field *f, void *base, const char *text, const char *directory,
                      struct strbuf *why);
/* For the lists. */
bool config_value_append(const struct field *f, void *base, const char *text, struct strbuf *why);
void config_value_clear(const struct field *f, void *base);
/* As one would write it; "" when unset. `json`: as a JSON value. */
void config_value_text(const struct field *f, const void *base, bool json, struct strbuf *out);
bool config_value_is_set(const struct field *f, const void *base);

/* ---- where values come from ---- */
struct origin {
    char *path;
    char *from;
};
struct origins {
    struct origin *at;
    size_t count;
};
/* Notes that `path` (with the type's name) was set by `from`. */
void config_note_origin(struct config *c, const char *path, const char *from);
const char *config_origin(const struct config *c, const char *path); /* "default" */

/* Calls `each` for every field of every instance: types, routes, peers and keys that there are. */
void config_each(const struct config *c,
                 void (*each)(void *ctx, const char *path, const struct field *f, const void *base),
                 void *ctx);

/* Adds a type with its defaults, or finds it; NULL: too many. */
struct config_type *config_type_named(struct config *c, struct slice name);
/* Adds a route with its defaults, a peer, or a key of tokens; NULL: too many. */
void *config_route_new(struct config *c);
void *config_peer_new(struct config *c);
void *config_auth_key_new(struct config *c);

/* ---- problems, one line each ---- */
void config_problem(struct strbuf *why, const char *where, const char *path, const char *format,
                    ...) __attribute__((format(printf, 4, 5)));

/* Applies a YAML text. `name` is how messages call it, `directory` where its paths begin. */
int config_yaml_apply(struct config *c, const char *name, const char *directory, struct slice text,
                      struct strbuf *why);
/* Whether a text is a CURVE key; the reason does not hold it. */
bool config_key_check(const char *text, struct strbuf *why);
/* What can be wrong with `auth` as a whole; whether its keys are keys, token/from_config.h knows.
 */
void config_auth_check(const struct config *c, struct strbuf *why);
/* Where an entry of a list stands: where the first of its fields is given. `path`: "routes[0]". */
const char *config_entry_origin(const struct config *c, const char *path, const char *const *fields,
                                size_t n_fields);
/* Derives the keys that are not given. */
void config_keys_complete(struct config *c, struct strbuf *why);
/* Reads the file of a twin, trimmed, into the field. */
bool config_secret_file(const struct field *f, void *base, const char *path, const char *directory,
                        struct strbuf *why);

#endif
