/* CORE. Who asks, and what that allows: what a token says once its signature was checked. Made by
 * the readers of tokens (token.h: a JWT; the orpc dialect has another form), asked by everything
 * that opens, reads or writes a key. It holds what was signed and no verdict: whether it is still
 * in force depends on the clock and on what was revoked, and is asked each time. */
#ifndef STOA_COMMON_TOKEN_IDENTITY_H
#define STOA_COMMON_TOKEN_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/slice.h"

enum right { RIGHT_SUBSCRIBE, RIGHT_PUBLISH, RIGHT_SEND, RIGHT_CALL, RIGHT_MANAGE };
#define RIGHTS_COUNT (RIGHT_MANAGE + 1)
const char *right_name(enum right right); /* "subscribe" */

struct identity_names {
    const struct slice *at;
    size_t count;
};

struct identity { /* immutable once made; counted */
    uint32_t refs;
    unsigned rights;            /* of `can`: 1u << enum right */
    int64_t expires_ms;         /* wall clock: the first millisecond at which it is over */
    int64_t not_before_ms;      /* 0: from ever */
    int64_t issued_ms;          /* `iat`; 0: not said, which revocations by time take for oldest */
    struct identity_names keys; /* exact ones */
    struct identity_names prefixes; /* an empty one: every key */
    struct identity_names methods;  /* `rpc` */
    struct identity_names tags;
    struct slice id;         /* of the connection; data NULL: not said, as below */
    struct slice subject;    /* `sub` */
    struct slice token_id;   /* `jti` */
    struct slice key_id;     /* `kid` of the key that signed it */
    struct slice attachment; /* `att`, JSON, visible to the client */
    struct slice claims;     /* the JSON object as it was signed: what a room's handler sees */
};

/* A copy of `from` and of all that it points to, with one reference. */
struct identity *identity_create(const struct identity *from);
struct identity *identity_ref(struct identity *who); /* NULL stays NULL */
void identity_unref(struct identity *who);           /* NULL is fine */

/* Whether it covers the key, whatever for. NULL (nobody is asked who he is) covers every key. */
bool identity_covers(const struct identity *who, struct slice key);
/* Whether it may do this with the key. RIGHT_CALL says every method. */
bool identity_may(const struct identity *who, enum right right, struct slice key);
/* Whether it may call this method: by `call`, or because `rpc` names it. */
bool identity_may_call(const struct identity *who, struct slice key, struct slice method);
/* Whether the clock says that it is in force. */
bool identity_timely(const struct identity *who, int64_t wall_ms);
/* What a renewed token must keep: the same `id`, and the same `tags` in the same order. */
bool identity_same_person(const struct identity *before, const struct identity *after);

#endif
