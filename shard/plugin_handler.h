/* CORE. Room types written in C: a handler (shard/handler.h) made of a plug-in's table
 * (client/stoa_room.h), wherever that comes from: shell_plugin.c opens libraries, tests and the
 * simulator link theirs in. */
#ifndef STOA_SHARD_PLUGIN_HANDLER_H
#define STOA_SHARD_PLUGIN_HANDLER_H

#include "shard/handler.h"
#include "stoa_room.h"

struct plugin_options {
    struct slice config;          /* JSON for open; empty: {} */
    void (*release)(void *owner); /* of the library, after the last call into it; may be NULL */
    void *owner;
};

/* ERR_INVALID: *why names the file, what is wrong with it and what to do; nothing was released. The
 * handler is destroyed through its vtable. */
MUST_USE int plugin_handler_create(struct handler **out, const char *file_name,
                                   const stoa_room_vtable *plugin,
                                   const struct plugin_options *options, struct strbuf *why);

/* The table's name; lives as long as the handler. */
const char *plugin_handler_name(const struct handler *h);

#endif
