/* CORE. Whom an event is for: a few bytes that travel with it from whoever published it, or from a
 * handler's broadcast, to the disk and to each gateway, which asks them about every connection.
 *
 * On the wire a msgpack map of "except", "to" and "tags", each at most once and each an array of
 * str; no bytes at all are the filter that admits everybody. A name in `to` and `except` is a
 * session or a connection's id. All that is said holds: with `to` and `tags` both given it is for
 * those named that have a tag (rooms, where `to` makes `tags` moot, say only `to`). What is
 * malformed, or has a key that this version does not know, admits nobody: it was meant to keep
 * somebody out. */
#ifndef STOA_PROTO_FILTER_H
#define STOA_PROTO_FILTER_H

#include "common/strbuf.h"
#include "proto/message.h"

struct filter_names {
    const struct slice *at; /* NULL: not given, which is not the same as given without a name */
    size_t count;
};

struct filter {
    struct filter_names to;
    struct filter_names except;
    struct filter_names tags;
};

/* Appends the filter; nothing for the one that admits everybody. ERR_TOO_LARGE: it would be longer
 * than FILTER_MAX_BYTES; nothing was appended. */
MUST_USE int filter_encode(struct strbuf *out, const struct filter *f);
/* Names point into `bytes`, lists lie in the arena until its next use. ERR_INVALID. */
MUST_USE int filter_decode(struct slice bytes, struct message_arena *arena, struct filter *out);
/* Whether a connection is in `to`, if that is given, has any of `tags`, if these are given, and is
 * not in `except`. An empty session or id is none: no name means it, nor does an empty one. Takes
 * no memory. */
bool filter_admits(struct slice filter, struct slice session, struct slice id,
                   const struct slice *tags, size_t n_tags);
/* Whether it names whom it is for (`to` or `tags`), not only whom it is not for. */
bool filter_chooses(struct slice filter);

#endif
