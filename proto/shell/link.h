/* SHELL. ZeroMQ under a hub: the only file with zmq.h and czmq.h beside the programs' mains.
 *
 * A dialer is one DEALER to one endpoint, watched by a socket monitor; a listener is one ROUTER
 * with ROUTER_MANDATORY and HANDOVER. Every socket has IMMEDIATE, LINGER 0, MAXMSGSIZE, a
 * bound on unacknowledged TCP data and small high-water marks; every send is DONTWAIT. The ZMQ_FD
 * of each socket is watched by libev, and re-checked before every sleep (it is edge-triggered, and
 * our own sends eat edges). Packets are drained in bounded portions. CURVE on tcp when keys are
 * given; ipc is guarded by the mode of its directory. */
#ifndef STOA_PROTO_SHELL_LINK_H
#define STOA_PROTO_SHELL_LINK_H

#include "common/config.h"
#include "common/err.h"
#include "common/shell/loop.h"
#include "common/strbuf.h"
#include "proto/hub.h"

struct links;

struct links_curve {        /* all NULL: no CURVE */
    const char *secret_key; /* Z85, 40 characters: this process's secret key */
    const char *public_key; /* its public key; NULL: derived from the secret one */
    const char *server_key; /* public key of the cluster's listeners; NULL: this process's own */
    const char *const *allowed; /* who may connect besides public and server key; NULL-terminated */
    bool required;              /* refuse tcp endpoints without keys */
    /* Who may connect as what, instead of `allowed`; NULL: no roles. Own and server key may be
     * everything unless they stand here too. */
    const struct config_peer *peers;
    size_t n_peers;
};

/* What the configuration says; borrows from it. */
struct links_curve links_curve_of(const struct config *c);

/* The links drive `hub` (hub_packet, hub_connected ...) and fill in `ports`, which must be handed
 * to the core that creates the hub: create links, create the core with links_ports, then
 * links_attach. */
struct links *links_create(struct loop *loop, const struct links_curve *curve, struct log *log);
struct hub_ports links_ports(struct links *l);
void links_attach(struct links *l, struct hub *hub);
/* Endpoints: "tcp://host:port", "ipc:///path", or "host:port" (tcp). ERR_INVALID / ERR_REFUSED /
 * ERR_IO with a one-line reason. `peer` is what hub_dial returned. */
MUST_USE int links_dial(struct links *l, uint32_t peer, const char *endpoint, struct strbuf *why);
MUST_USE int links_listen(struct links *l, unsigned door, const char *endpoint, struct strbuf *why);
void links_destroy(struct links **l);

#endif
