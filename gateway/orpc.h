/* CORE. What the files of the orpc dialect share: session_orpc.c (stream and frames), orpc_call.c
 * (methods), orpc_route.c (who is let in). */
#ifndef STOA_GATEWAY_ORPC_H
#define STOA_GATEWAY_ORPC_H

#include "common/token/orpc_token.h"
#include "gateway/core.h"
#include "gateway/orpc_frame.h"

struct twins;

struct orpc { /* of a session */
    struct session *session;
    const struct gateway_route *route;
    bool named;           /* E2: the connection has an id, and its token can be changed */
    bool opened;          /* the stream has its response: events may follow */
    struct strbuf key;    /* the room's */
    struct strbuf stream; /* the stream's id, JSON; empty: there is none */
    struct form form;     /* of its events */
    struct list calls;    /* of struct orpc_call, that run */
    uint64_t last_call;
    uint64_t birth;      /* later ones are newer sockets */
    struct twins *twins; /* while subscribed: sockets with its id; NULL: not among any */
    struct list in_twins;
};

/* ---- session_orpc.c ---- */
/* What a response or an item begins with, up to its body, in g->control. */
struct strbuf *orpc_say_begin(struct gateway *g, struct slice id, const char *text);
void orpc_say(struct gateway *g, struct session *s);
/* {"defined","code","status","message","data"?}; data size 0: none. */
void orpc_error_put(struct strbuf *out, struct slice code, unsigned status, struct slice message,
                    struct slice data);
void orpc_refuse(struct gateway *g, struct session *s, struct slice id, const char *code,
                 unsigned status, const char *message);
void orpc_refuse_malformed(struct gateway *g, struct session *s, struct slice id);

/* ---- orpc_call.c ---- */
void orpc_call(struct gateway *g, struct session *s, const struct orpc_frame *f);
bool orpc_call_runs(const struct orpc *o, struct slice id);
/* What it still brings is for nobody. */
void orpc_call_abort(struct orpc *o, struct slice id);
void orpc_calls_free(struct orpc *o);
void orpc_call_done(struct gateway *g, struct session *s, struct slice ref, struct slice ok,
                    struct slice error);
void orpc_call_item(struct gateway *g, struct session *s, struct slice ref, struct slice item);
/* An error of ours in oRPC's words. NULL: the tag is a room's own, and stays. */
const char *orpc_code(struct slice tag, unsigned *status);
const char *orpc_code_of_status(unsigned status);

/* ---- orpc_twins.c: sockets of one id ---- */
void orpc_twin_enter(struct gateway *g, struct session *s);
void orpc_twin_leave(struct gateway *g, struct session *s);

/* ---- orpc_route.c ---- */
/* Who a token says that its bearer is, on this key. `id`: data NULL: the token's kind has none. */
struct identity *orpc_who(const struct orpc_claims *claims, struct slice key, struct slice id);
struct slice orpc_signing_key(const struct gateway *g, const struct gateway_route *route);

#endif
