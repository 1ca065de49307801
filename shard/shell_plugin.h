/* SHELL. A room type's shared library, from its file to a handler. */
#ifndef STOA_SHARD_SHELL_PLUGIN_H
#define STOA_SHARD_SHELL_PLUGIN_H

#include "shard/handler.h"

/* ERR_INVALID: *why is one line with the file and the reason. The library stays open until the
 * handler is destroyed through its vtable. `config`: JSON for the plug-in's open; empty: {}. */
MUST_USE int plugin_load_file(struct handler **out, const char *path, struct slice config,
                              struct strbuf *why);
/* The same from the file's bytes, as a library of its own: the loader takes a path that it has open
 * for the library that it has open, so a file that has changed comes this way. */
MUST_USE int plugin_load_copy(struct handler **out, const char *path, struct slice bytes,
                              struct slice config, struct strbuf *why);

#endif
