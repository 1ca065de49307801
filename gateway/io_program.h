/* SHELL. The program that main.c runs: its parts, how they are put together and taken apart. */
#ifndef STOA_GATEWAY_IO_PROGRAM_H
#define STOA_GATEWAY_IO_PROGRAM_H

#include "common/config.h"
#include "common/shell/launch.h"
#include "common/shell/monitor.h"
#include "common/token/token.h"
#include "gateway/io.h"
#include "proto/shell/link.h"

struct program {
    struct launch launch;
    const char *index, *given_name; /* of the command line, or NULL */
    char host[57];                  /* names a gateway that was given neither */
    char name[65];                  /* in logs and links */
    struct config config;           /* of the start; parts keep pointers into it */
    struct config reloaded;         /* origins, limits and log once `is_reloaded` */
    bool is_reloaded;
    struct gateway_type types[2][CONFIG_TYPES_MAX]; /* in force, and of the last reload, in turn */
    unsigned types_at;
    struct token_checker *tokens;       /* NULL: auth.mode none */
    struct token_checker *fresh_tokens; /* of a reload under way */
    struct gateway_route routes[CONFIG_LIST_MAX];
    const char *endpoints[2 * CONFIG_LIST_MAX]; /* as dialed: routers, then shards */
    struct log log;
    struct metrics *metrics;
    struct loop *loop;
    struct links *links;
    struct io *io;
    struct gateway *gateway;
    struct monitor *monitor;
    char *orpc_key; /* of routes that name none; NULL: none */
    char *page;
    size_t page_size;
    int64_t drain_until_ns; /* 0: not draining */
};

/* Each ends the process with a line on stderr when it cannot do its part. */
void program_configure(struct program *p);
void program_start(struct program *p, const struct loop_handler *handler);
void program_stop(struct program *p);
/* launch.accept: whether the keys of a freshly loaded configuration are keys. */
bool program_accept(void *program, const struct config *fresh, struct strbuf *changed,
                    struct strbuf *why);
/* Warns of keys that could be guessed. */
void program_warn_of_keys(struct program *p, const struct config *config);
/* Puts the keys in force that program_accept was shown last. */
void program_retoken(struct program *p, const struct config *before, const struct config *fresh);
/* Puts a freshly loaded configuration in force as far as that goes without a restart; takes it. */
void program_reload(struct program *p, struct config *fresh);

#endif
