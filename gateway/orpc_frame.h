/* CORE. What a client of the orpc dialect says: one message of oRPC's peer protocol, bytes in, what
 * it asks for out. A frame that is none asks for nothing, as oRPC has it: it is ignored. Text, or
 * binary with the same JSON in front of an 0xFF, behind which lies a body of raw bytes. */
#ifndef STOA_GATEWAY_ORPC_FRAME_H
#define STOA_GATEWAY_ORPC_FRAME_H

#include "common/json.h"

#define ORPC_ID_MAX_BYTES 256

enum orpc_word { ORPC_NOTHING, ORPC_SUBSCRIBE, ORPC_CALL, ORPC_UPDATE, ORPC_UNKNOWN, ORPC_ABORT };

struct orpc_frame {
    enum orpc_word word;
    struct slice id;        /* JSON as the client wrote it */
    struct json_value body; /* {"json","meta"}; JSON_NONE: nothing was sent */
    bool fit;               /* the body is one that oRPC's serializer wrote, or nothing */
    bool resumes;           /* a last-event-id came, perhaps an empty one */
    struct slice last_id;
    struct strbuf text_, data_; /* what last_id and a body in the address point into */
};

/* Slices point into `bytes` and the frame; free it with orpc_frame_free. */
void orpc_frame_read(struct slice bytes, struct orpc_frame *out);
void orpc_frame_free(struct orpc_frame *f);

/* The last parameter of this name, decoded as forms are ('+' is a space, a lone '%' itself),
 * appended to `out`. False: there is none. */
bool orpc_query_last(struct slice query, const char *name, struct strbuf *out);

#endif
