/* SHELL. The code of room types, from files: read at the start, read again at a reload. */
#ifndef STOA_SHARD_SHELL_ROOMS_H
#define STOA_SHARD_SHELL_ROOMS_H

#include "common/config.h"
#include "common/log.h"
#include "shard/handler.h"
#include "shard/shell_schemas.h"

/* The handler of one type, and its schemas. */
struct type_code {
    char *type, *path;
    uint8_t digest[32]; /* of the file that it came from */
    struct handler *handler;
    struct type_schemas schemas;
    struct handler_traits own; /* what its file says; scalars only */
    bool borrowed;             /* still the running set's, too */
};

struct type_codes {
    struct type_code at[CONFIG_TYPES_MAX];
    size_t count;
    struct log *log;
};

/* Loads the handlers of all types that name a file, and their schemas. `running`: those in force,
 * NULL at the start; what has not changed is borrowed from them, and `changed` gets a line for each
 * file that has. ERR_INVALID: some do not load; `why` has a line for each. `log` is borrowed for
 * the life of the handlers. */
MUST_USE int type_codes_load(struct type_codes *out, struct type_codes *running,
                             const struct config *config, struct log *log, struct strbuf *changed,
                             struct strbuf *why);
/* The handler of a type, or NULL. */
struct handler *type_codes_handler(const struct type_codes *codes, const char *type);
/* `fresh` takes the place of `running`, whose rest is destroyed: the shard must have `fresh`
 * already. */
void type_codes_replace(struct type_codes *running, struct type_codes *fresh,
                        const struct config *config);
/* Destroys what is not borrowed. */
void type_codes_free(struct type_codes *codes);
/* A turn of the shard begins: code that takes a second of it is stopped. */
void type_codes_turn(const struct type_codes *codes);

/* One handler from a file.lua or file.so; `codes` watches its time, NULL: nobody. */
MUST_USE int type_code_open(struct handler **out, const char *path, struct type_codes *codes,
                            struct strbuf *why);
/* Loads a file and prints what will hold of it, as the type that names it if there is one. */
MUST_USE int room_check(const char *path, const struct config *config, bool json,
                        struct strbuf *why);
/* Loads all that the configuration names, and nothing else. */
MUST_USE int rooms_check(const struct config *config, struct strbuf *why);
/* What the configuration says of a type wins over what the file says. */
void type_code_configure(struct handler_traits *traits, const struct config_type *type);

#endif
