/* CORE. A gateway: clients on one side (WebSocket raw and stoa.v1, SSE, HTTP), routers and shards
 * on the other. It decides everything and does no I/O: the program around it parses bytes into
 * requests, and carries out what comes through the ports. Ports never call back into the gateway.
 *
 * A client is a number that the program chose (index and generation, never a pointer). Its life:
 *   HTTP:  gateway_request -> (now or later) ports.respond, once per request; the connection may go
 * on SSE:   gateway_request -> ports.stream, then ports.write ..., ends by ports.close or
 * gateway_closed WS:    gateway_request (upgrade) -> ports.upgrade (or ports.respond with a
 * refusal) -> gateway_established -> gateway_frame / ports.write ... -> ports.close or
 * gateway_closed After gateway_closed the number is dead for the core; after ports.close the
 * program still calls gateway_closed once. */
#ifndef STOA_GATEWAY_GATEWAY_H
#define STOA_GATEWAY_GATEWAY_H

#include "common/buf.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/tick.h"
#include "gateway/request.h"
#include "proto/hub.h"

struct gateway;
struct identity;      /* common/token/identity.h */
struct token_checker; /* common/token/token.h */

struct gateway_ports {
    void *ctx;
    /* Answers a request. Borrows. */
    void (*respond)(void *ctx, uint64_t client, const struct http_response *response);
    /* Answers a request with an event stream: sends the head (status 200, SSE headers, CORS as
     * given); bytes follow through `write`, unframed. */
    void (*stream)(void *ctx, uint64_t client, const struct http_response *head);
    /* Completes the upgrade that was asked for (101 with this subprotocol, NULL: none). */
    void (*upgrade)(void *ctx, uint64_t client, const char *subprotocol);
    /* Writes bytes that are already framed for the wire (WebSocket frames, SSE text). Several
     * frames leave in one write; keeps a ref when it cannot write at once. Returns the bytes now
     * queued for this client, 0 when everything went to the kernel. Whenever the queue empties
     * later, the program calls gateway_drained. */
    size_t (*write)(void *ctx, uint64_t client, struct buf *bytes, size_t offset, size_t size);
    /* Ends a stream or a WebSocket (with this close code and reason, after what is queued); code 0:
     * drop the connection at once. */
    void (*close)(void *ctx, uint64_t client, unsigned code, struct slice reason);
    /* Stops reading a WebSocket, or goes on. NULL: the program cannot; then a socket whose room
     * does not keep up is closed sooner. */
    void (*pause)(void *ctx, uint64_t client, bool paused);
    /* From now on the end of this WebSocket, or of what an upgrade makes of this request, is to be
     * noticed sooner: PING_WATCHED_INTERVAL_MS. NULL: the program notices by other means. */
    void (*watch)(void *ctx, uint64_t client);
};

struct gateway_type { /* types of the configuration; borrowed */
    const char *name;
    bool has_handler; /* its keys are rooms that connections join */
    bool presence;    /* its rooms tell who is there */
    /* Request headers beside origin, user-agent and accept-language that its handler may see, in
     * lower case; NULL-terminated, NULL: none. */
    const char *const *headers;
    double connection_rate; /* of what one socket says to one room, a second; 0: no limit */
    bool room_rate;         /* its rooms have one, which the shard keeps */
    bool drops;             /* a raw frame beyond a rate is dropped, else its socket is closed */
};

enum route_dialect { ROUTE_RAW, ROUTE_UPLOADISTA, ROUTE_ORPC };
struct gateway_route { /* routes[] of the configuration; borrowed */
    const char *path, *key;
    const char *replay; /* when a request does not say; NULL: as the dialect has it */
    enum route_dialect dialect;
    const char *const *types; /* that it serves; NULL-terminated, NULL: events */
    const char *signing_key;  /* orpc; NULL: none */
    int64_t retry_ms;         /* orpc: how soon a client is to subscribe again */
};

struct gateway_options {
    struct hub_self self;
    uint64_t slot_seed;
    unsigned n_routers; /* peers 1..n_routers are dialed routers, */
    unsigned n_shards;  /* the next n_shards peers are dialed shards, in configuration order */
    uint64_t seed;
    uint64_t payload_max_bytes;
    unsigned keys_per_socket;
    bool loopback; /* the listener is loopback: rules for Host and Origin */
    /* Who is let in: auth.keys, borrowed, and what reads tokens with them (token.h). NULL:
     * auth.mode none, nobody is asked who he is. */
    const struct token_checker *tokens;
    const char *(*token_check)(const struct token_checker *tokens, struct slice token,
                               int64_t wall_ms, struct identity **out);
    int64_t token_max_ttl_ms;         /* auth.max_ttl */
    const char *const *origins;       /* gateway.origins; NULL-terminated, NULL: not configured */
    const struct gateway_type *types; /* declared ones; [0] is "events" */
    size_t n_types;
    const struct gateway_route *routes; /* valid ones: see template_check */
    size_t n_routes;
    const char *orpc_signing_key; /* of orpc routes that name none; NULL: none */
    const char *address;          /* where this gateway listens, for /status */
    const char *const *endpoints; /* of peer 1, 2, ... as dialed, for /status */
    struct slice page; /* what GET / serves: the demo page (HTML); borrowed, may be empty */
    const char *version;
};

struct gateway *gateway_create(const struct gateway_options *options,
                               const struct hub_ports *hub_ports, const struct gateway_ports *ports,
                               struct log *log, struct metrics *metrics);
void gateway_destroy(struct gateway **g);
struct hub *gateway_hub(struct gateway *g);

/* A complete request (head and body) of a client. Borrows everything. */
void gateway_request(struct gateway *g, uint64_t client, const struct http_request *request,
                     struct tick now);
/* Answers that do not need the core's state but must look like its own (parse errors, 413, 431
 * ...). */
void gateway_refuse(struct gateway *g, uint64_t client, unsigned status, const char *tag,
                    const char *message);
/* The same for a head that is too large because of a token: where tokens are asked for, 401. */
void gateway_refuse_token(struct gateway *g, uint64_t client, unsigned status, const char *tag,
                          const char *message);
/* The 101 is on its way; frames may be written from now on. */
void gateway_established(struct gateway *g, uint64_t client, struct tick now);
/* One whole inbound message, UTF-8 checked when `text`. */
void gateway_frame(struct gateway *g, uint64_t client, struct slice payload, bool text,
                   struct tick now);
void gateway_drained(struct gateway *g, uint64_t client, struct tick now);
/* The peer's Close frame has come, with this reason; gateway_closed follows. Who is not told so
 * knows only the code. */
void gateway_farewell(struct gateway *g, uint64_t client, struct slice reason);
/* Gone, for whatever reason; `code` is the peer's close code or 1006. */
void gateway_closed(struct gateway *g, uint64_t client, unsigned code, struct tick now);

/* End of a loop turn: packs and writes what was delivered, flushes the hub, runs what is due. */
void gateway_turn(struct gateway *g, struct tick now);
int64_t gateway_deadline(const struct gateway *g);

bool gateway_ready(const struct gateway *g, const char **why); /* a router answers, not draining */
/* SIGTERM: refuse upgrades, close sockets with 1012 spread over `spread_ms`, finish publishes. */
void gateway_drain(struct gateway *g, struct tick now, int64_t spread_ms);
bool gateway_drained_all(const struct gateway *g); /* nothing left that a drain waits for */
/* After a reload: the types that there are, borrowed as in the options. Sockets of rooms that run
 * code now and did not before, or the other way round, are closed with 1012: they come back by the
 * rules that hold now. The old types must still be there. */
void gateway_retypes(struct gateway *g, const struct gateway_type *types, size_t n_types,
                     struct tick now);
/* After a reload: origins and limits. Borrowed until the next call or gateway_destroy. */
void gateway_reorigins(struct gateway *g, const char *const *origins);
/* After a reload: who is let in. `kept`: the kids of keys that are as they were, NULL-terminated;
 * sockets whose token was signed by another one are closed with 1008. Borrowed until the next call
 * or gateway_destroy. */
void gateway_retoken(struct gateway *g, const struct token_checker *tokens, int64_t max_ttl_ms,
                     const char *const *kept, struct tick now);
void gateway_validate(const struct gateway *g); /* asserts invariants; tests and simulator */

#endif
