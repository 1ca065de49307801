/* SHELL. The ZeroMQ sockets under the publisher's hub: one DEALER to each router, watched by a
 * socket monitor, all in one epoll descriptor that the caller waits on. Peer numbers of the hub are
 * 1..n in the order of the endpoints. One thread at a time. */
#ifndef STOA_CLIENT_TRANSPORT_H
#define STOA_CLIENT_TRANSPORT_H

#include "client/endpoint.h"
#include "common/strbuf.h"
#include "proto/hub.h"

#define ROUTERS_MAX 16

struct transport;

struct transport_keys { /* Z85 text; all NULL: no CURVE */
    const char *public_key, *secret_key, *server_key;
};

/* `routers`: endpoints with commas between them. `epoll` is borrowed. On ERR_INVALID or ERR_IO
 * `why` says what is wrong. */
MUST_USE int transport_create(struct transport **out, const char *routers,
                              const struct transport_keys *keys, int epoll, struct log *log,
                              struct strbuf *why);
void transport_destroy(struct transport **t);
uint32_t transport_routers(const struct transport *t);
struct hub_ports transport_ports(struct transport *t);
/* Begins to connect; the hub is borrowed until transport_destroy. */
MUST_USE int transport_start(struct transport *t, struct hub *hub, struct tick now,
                             struct strbuf *why);

/* Hands what has come to the hub, in bounded portions, and opens anew what has gone dead. */
void transport_receive(struct transport *t, struct tick now);
/* To be asked before waiting: whether there is something to receive that epoll does not tell,
 * because ZeroMQ's descriptors tell only of changes. */
bool transport_pending(struct transport *t);
int64_t transport_deadline(const struct transport *t);

#endif
