/* SHELL. How events are printed by `stoa log` and `stoa tail`. */
#ifndef STOA_CLIENT_CLI_EVENT_H
#define STOA_CLIENT_CLI_EVENT_H

#include "client/cli/cli.h"

/* Decodes base64 (RFC 4648, padded) and appends. False: not base64. */
bool base64_decode(struct slice text, struct strbuf *out);
void base64_encode(struct slice bytes, struct strbuf *out);
/* "KEY<TAB>ID<TAB>PAYLOAD", without the key when `key` is NULL; the payload alone when `raw`. */
void event_print(const char *key, struct slice id, struct slice payload, bool raw);
/* "stoa: missed FROM..TO (REASON)" on stderr. */
void missed_print(struct slice missed_json);

#endif
