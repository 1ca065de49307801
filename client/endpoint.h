/* CORE. Endpoint texts of routers. */
#ifndef STOA_CLIENT_ENDPOINT_H
#define STOA_CLIENT_ENDPOINT_H

#include "common/err.h"
#include "common/slice.h"
#include "common/strbuf.h"

/* "tcp://host:port", "host:port" or "ipc:///path" as ZeroMQ wants it, up to 320 bytes. */
#define ENDPOINT_MAX_BYTES 320
MUST_USE int endpoint_parse(struct slice text, char out[ENDPOINT_MAX_BYTES], struct strbuf *why);

#endif
