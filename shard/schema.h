/* CORE. JSON Schemas of a room type, as the rooms' code meets them: what passes one of the four
 * boundaries fits, or is refused. The core knows only that a schema answers; schema/ makes one of a
 * file's text. */
#ifndef STOA_SHARD_SCHEMA_H
#define STOA_SHARD_SCHEMA_H

#include <stdbool.h>

#include "common/slice.h"
#include "common/strbuf.h"

enum boundary {
    BOUNDARY_STATE,      /* what a room saves */
    BOUNDARY_CONNECTION, /* the state of a connection, from identify and from set_state */
    BOUNDARY_EVENT,      /* frames and direct sends */
    BOUNDARY_BROADCAST,  /* what a room sends: send, broadcast, publish */
    BOUNDARY_COUNT
};
/* "state" ... as the configuration has it. */
const char *boundary_name(enum boundary boundary);

struct schema {
    /* False: `json`, which is valid, does not fit, or judging it would take too long; `why` gets
     * where (a JSON pointer) and what. */
    bool (*check)(struct schema *s, struct slice json, struct strbuf *why);
    void (*destroy)(struct schema *s);
};

#endif
