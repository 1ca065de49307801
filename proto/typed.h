/* CORE. A typed payload: what an oRPC server publishes. A JSON object of
 *
 *   json      the value; not there: undefined
 *   meta      which of its parts are more than JSON: [[type, segment ...] ...], a type being a
 *             number and the segments names and places on the way from the value to the part
 *   retry     milliseconds after which a reader that was cut off is to ask again
 *   comments  texts that go with the event
 *
 * each at most once, in any order, and nothing else: a member that nobody knows would be a misspelt
 * one, and its meaning lost. Readers of the orpc dialect get all of it, others the value alone. */
#ifndef STOA_PROTO_TYPED_H
#define STOA_PROTO_TYPED_H

#include "common/json.h"

struct typed { /* as they stand in the payload; JSON_NONE: not there */
    struct json_value json, meta, retry, comments;
};

/* NULL: the payload is one; else what is wrong with it. */
const char *typed_check(struct slice payload);
/* Takes apart what typed_check let pass. */
struct typed typed_read(struct slice payload);
/* The value that everybody may see, `null` for undefined, of a payload that nobody has looked at.
 * False: it is no JSON object. */
bool typed_value(struct slice payload, struct slice *value);

#endif
