/* SHELL. What the files behind link.h share; nobody else includes it.
 *
 *   link.c           packets: sockets to hub, hub to sockets
 *   link_socket.c    making and closing sockets: options, CURVE, dialing, monitors, redialing
 *   link_endpoint.c  endpoint texts, socket files
 *   link_zap.c       which public keys may connect
 */
#ifndef STOA_PROTO_SHELL_LINK_INTERNAL_H
#define STOA_PROTO_SHELL_LINK_INTERNAL_H

#include "common/map.h"
#include "proto/shell/link.h"

#define CURVE_KEY_TEXT_BYTES 40
#define CURVE_KEY_BYTES 32
#define ENDPOINT_MAX_BYTES 320
#define SOCKET_PATH_MAX_BYTES 107 /* sockaddr_un.sun_path without its NUL */
#define ROUTING_ID_BYTES 12
#define ROUTING_ID_MAX_BYTES 255

struct link_endpoint {
    bool ipc;
    char text[ENDPOINT_MAX_BYTES]; /* as libzmq wants it */
    char path[SOCKET_PATH_MAX_BYTES + 1];
};

/* One ZeroMQ socket with packets: a DEALER to one peer, or the ROUTER of a door. */
struct link_socket {
    struct link_socket *next;
    struct links *links;
    struct link_endpoint endpoint;
    bool listener;
    void *zmq; /* NULL: a dialer that could not be opened, to be tried again */
    ev_io io;  /* on ZMQ_FD, which stays libzmq's */
    /* A call on the socket may have eaten the edge of its descriptor: look before sleeping. False
     * only after a receive that said EAGAIN, since when the descriptor has been telling the truth.
     */
    bool dirty;
    void *monitor; /* PAIR */
    ev_io monitor_io;
    bool monitor_dirty; /* as dirty: a reader that never tried is not woken */
    /* dialer */
    uint32_t peer;
    bool connected; /* as the hub was told */
    bool refused;   /* logged already */
    int64_t sign_ns, redial_ns;
    /* listener */
    unsigned door;
    struct map *by_identity; /* identity -> link_peer */
    /* Of the last refused handshake, and the last that ended early, that were logged. */
    int64_t refusal_ns, early_end_ns;
};

/* What libzmq calls the key of a connection's other end: its place in link_keys.at, in digits. */
#define USER_ID_MAX_BYTES 8

/* How to send to a peer of the hub. */
struct link_peer {
    uint32_t number;
    char user_id[USER_ID_MAX_BYTES]; /* of its last packet, when keys have roles */
    struct link_socket *socket;      /* borrowed */
    size_t identity_size;            /* 0: dialed */
    uint8_t identity[ROUTING_ID_MAX_BYTES];
};

struct link_key { /* may connect */
    uint8_t bytes[CURVE_KEY_BYTES];
    struct peer_right *rights; /* owned; NULL: every role */
    struct peer_key who;       /* the same, for the hub */
};

struct link_keys { /* owned copies; empty text: none */
    char secret[CURVE_KEY_TEXT_BYTES + 1];
    char public[CURVE_KEY_TEXT_BYTES + 1];
    char server[CURVE_KEY_TEXT_BYTES + 1];
    struct link_key *at; /* its own key, the server's and the listed ones */
    size_t count;
    bool roles; /* some of them may not be everything */
    bool given; /* a secret key is */
    bool required;
    const char *problem; /* what is wrong with the keys; NULL: nothing */
};

struct link_zap {
    void *zmq; /* REP; NULL: not needed so far */
    ev_io io;
};

struct links {
    struct loop *loop;
    struct log *log;
    struct hub *hub; /* borrowed; NULL until links_attach */
    void *context;
    struct link_keys keys;
    struct link_zap zap;
    struct link_socket *sockets;            /* owned */
    struct link_peer *peers[PEERS_MAX + 1]; /* owned; by number */
    ev_timer redial_timer;
    uint64_t last_monitor;
};

/* ---- link.c ---- */
bool link_socket_drain(struct link_socket *s);

/* ---- link_socket.c ---- */
MUST_USE int link_socket_dial(struct link_socket *s, struct strbuf *why);
MUST_USE int link_socket_listen(struct link_socket *s, struct strbuf *why);
/* True: there were events. */
bool link_monitor_drain(struct link_socket *s);
void link_socket_close(struct link_socket *s);
void link_redial_start(struct links *l);
void link_set_int(void *zmq, int option, int value);
/* ZMQ_EVENTS, which also makes the socket process what its I/O thread has told it. */
int link_events(void *zmq);
void link_watch(struct links *l, ev_io *io, void *zmq,
                void (*callback)(struct ev_loop *, ev_io *, int), void *data);

/* ---- link_endpoint.c ---- */
MUST_USE int link_endpoint_parse(const char *text, bool listen, struct link_endpoint *out,
                                 struct strbuf *why);
/* Makes way for a new socket file. */
MUST_USE int link_endpoint_clear(const struct link_endpoint *e, struct strbuf *why);

/* ---- link_zap.c ---- */
void link_keys_load(struct link_keys *keys, const struct links_curve *curve);
void link_keys_wipe(struct link_keys *keys);
/* The key that a connection was let in with; NULL: not from us. */
const struct link_key *link_key_of(const struct link_keys *keys, const char *user_id);
MUST_USE int link_zap_start(struct links *l, struct strbuf *why);
void link_zap_stop(struct links *l);

#endif
