/* CORE. The marks of a typed payload (typed.h) against its value. */
#ifndef STOA_PROTO_TYPED_META_H
#define STOA_PROTO_TYPED_META_H

#include "common/json.h"

enum typed_meta { META_FITS, META_MALFORMED, META_LEADS_NOWHERE };

/* Whether `meta` is an array of [type, segment ...], each of which leads to a part of the value.
 * Both are of a text that json_valid has accepted. */
enum typed_meta typed_meta_check(struct json_value json, struct json_value meta);

#endif
