/* CORE. Base64 (RFC 4648, padded): how payloads that are not JSON stand in JSON. */
#ifndef STOA_COMMON_BASE64_H
#define STOA_COMMON_BASE64_H

#include "common/strbuf.h"

size_t base64_size(size_t bytes);
void base64_put(struct strbuf *out, struct slice bytes);

#endif
