/* CORE. A validating JSON scanner (RFC 8259) over a slice. It never builds a tree and never
 * re-encodes: values come back as slices of the input, so a payload stays byte for byte what the
 * publisher sent. Own code because the tree-building libraries of the platform re-encode and bound
 * neither depth nor memory; a test compares its verdicts with jansson's. Strings must be valid
 * UTF-8. */
#ifndef STOA_COMMON_JSON_H
#define STOA_COMMON_JSON_H

#include "common/strbuf.h"

enum json_type {
    JSON_NONE,
    JSON_NULL,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

/* True when the whole slice is one JSON value with surrounding white space at most, nested at most
 * JSON_DEPTH_MAX deep. */
bool json_valid(struct slice text);

struct json_value {
    enum json_type type; /* JSON_NONE: absent */
    struct slice raw;    /* the value's bytes in the input, quotes included */
};

/* Iterates the members of an object or the elements of an array that json_valid has accepted.
 *   struct json_iter it = json_members(text);
 *   while (json_next(&it)) { it.name (raw, without quotes, still escaped), it.value } */
struct json_iter {
    struct slice rest;
    struct slice name;
    struct json_value value;
    bool object;
};
enum json_type json_type_of(struct slice text); /* by its first character; JSON_NONE if blank */
struct json_iter json_members(struct slice text);
bool json_next(struct json_iter *it);
/* Finds a member by its unescaped name (names with escapes are compared unescaped); last one wins.
 */
struct json_value json_get(struct slice object, const char *name);
/* The same of a text that nobody has looked at, in one pass. False: it is not a JSON object. */
bool json_find(struct slice text, const char *name, struct json_value *found);

/* Appends the unescaped text of a JSON string (raw with quotes). False: not a string, or a lone
 * surrogate escape. U+0000 is kept. */
bool json_unescape(struct json_value v, struct strbuf *out);
/* Appends the texts of an array of strings behind each other and points `at` to them, as long as
 * `text` is not written. False: it is no array, has more than `most`, or (*count < most) one that
 * has no text; the *count before that are there. */
bool json_texts(struct slice array, struct strbuf *text, struct slice *at, size_t most,
                size_t *count);
/* Non-negative integer without fraction or exponent, at most 2^53. */
bool json_u64(struct json_value v, uint64_t *out);
/* Appends `text` quoted and escaped (control characters, quote, backslash). Invalid UTF-8 bytes
 * become U+FFFD so that the result is always JSON. */
void json_quote(struct strbuf *out, struct slice text);

#endif
