/* CORE. What the files of the uploadista dialect share: uploadista_route.c takes the requests,
 * session_uploadista.c speaks on the sockets. */
#ifndef STOA_GATEWAY_UPLOADISTA_H
#define STOA_GATEWAY_UPLOADISTA_H

#include "gateway/core.h"

enum viewer_kind {
    VIEWER_OF_KEY,        /* it has a subscription; all others have none */
    VIEWER_OF_NOTHING,    /* neither upload nor flow: it is greeted, no more */
    VIEWER_WITHOUT_ID,    /* told so, and greeted */
    VIEWER_TOKEN_REFUSED, /* told so, and closed */
    VIEWER_UNKNOWN,       /* it gave no token: as above */
    VIEWER_ASTRAY         /* not a path of WebSockets: as above */
};
struct viewer {
    enum viewer_kind kind;
    bool flow; /* of a job, else of an upload */
    bool greeted;
    struct slice id; /* as the client calls it; behind the struct, may be empty */
};
struct viewer *viewer_create(enum viewer_kind kind, bool flow, struct slice id);
void route_uploadista(struct exchange *x);     /* x->tail: behind /uploadista/ */
void route_uploadista_own(struct exchange *x); /* x->route, x->key and x->id are set */
bool uploadista_is_flow(const struct gateway_route *route);
/* The id that the query names, decoded into `out`. ERR_NOT_FOUND, ERR_INVALID. */
int uploadista_query_id(const struct exchange *x, bool flow, struct strbuf *out);

#endif
