/* SHELL. Packets between ZeroMQ sockets and the hub.
 *
 * Receiving: every socket is drained until it says EAGAIN, in portions, from its descriptor's
 * callback and again before every sleep if it was touched since (`dirty`). A receive that says
 * EAGAIN has emptied the socket's mailbox, so from then on the descriptor announces what comes.
 * Small packets are copied into a buf, larger ones stay where libzmq put them.
 *
 * Sending never waits. libzmq looks at its mailbox only now and then while sending, so an EAGAIN
 * may be news that it has not read yet: the send is tried once more after reading them. */
#include "proto/shell/link.h"

#include <errno.h>
#include <stdio.h>
#include <zmq.h>

#include "common/mem.h"
#include "common/shell/process.h"
#include "proto/shell/link_internal.h"

#include <czmq.h> /* last: it brings syslog.h, whose macros would break log.h */

#define DRAIN_MAX_PACKETS 256
#define DRAIN_MAX_BYTES (4 * MIB)
#define COPY_MAX_BYTES (2 * KIB)
#define GOODBYE_LINGER_MS 200
#define ZMQ_SOCKETS_MAX 4096 /* three a dialer, with its monitor */

static bool on_pending(void *ctx);

struct links *links_create(struct loop *loop, const struct links_curve *curve, struct log *log)
{
    /* Signals are the loop's: CZMQ must not install its handlers with its first socket. */
    zsys_handler_set(NULL);
    struct links *l = mem_zalloc(sizeof *l);
    l->loop = loop;
    l->log = log;
    l->context = zmq_ctx_new();
    STOA_ASSERT(l->context);
    STOA_ASSERT(zmq_ctx_set(l->context, ZMQ_MAX_SOCKETS, ZMQ_SOCKETS_MAX) == 0);
    link_keys_load(&l->keys, curve);
    loop_add_source(loop, on_pending, l);
    link_redial_start(l);
    return l;
}

void links_attach(struct links *l, struct hub *hub)
{
    l->hub = hub;
}

void links_destroy(struct links **links)
{
    struct links *l = *links;
    if (!l)
        return;
    *links = NULL;
    loop_remove_source(l->loop, on_pending, l);
    ev_timer_stop(loop_ev(l->loop), &l->redial_timer);
    for (struct link_socket *s = l->sockets, *next; s; s = next) {
        next = s->next;
        if (s->zmq)
            link_set_int(s->zmq, ZMQ_LINGER, GOODBYE_LINGER_MS);
        link_socket_close(s);
        map_destroy(&s->by_identity);
        mem_free(s);
    }
    link_zap_stop(l);
    for (uint32_t n = 1; n <= PEERS_MAX; n++)
        mem_free(l->peers[n]);
    link_keys_wipe(&l->keys);
    while (zmq_ctx_term(l->context) != 0)
        STOA_ASSERT(errno == EINTR);
    mem_free(l);
}

/* ---- sending ---- */

static int send_error(int error)
{
    return error == EAGAIN || error == ENOMEM ? ERR_FULL : ERR_GONE;
}

static int send_part(void *zmq, const void *data, size_t size, int flags)
{
    zmq_msg_t msg;
    if (zmq_msg_init_size(&msg, size) != 0)
        return ERR_FULL;
    memcpy(zmq_msg_data(&msg), data, size);
    int rc = zmq_msg_send(&msg, zmq, flags | ZMQ_DONTWAIT);
    if (rc < 0 && errno == EAGAIN) {
        (void)link_events(zmq);
        rc = zmq_msg_send(&msg, zmq, flags | ZMQ_DONTWAIT);
    }
    if (rc >= 0)
        return ERR_OK;
    int error = errno;
    (void)zmq_msg_close(&msg);
    return send_error(error);
}

static int port_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct links *l = ctx;
    struct link_peer *p = peer <= PEERS_MAX ? l->peers[peer] : NULL;
    if (!p || !p->socket->zmq)
        return ERR_GONE;
    STOA_ASSERT(size <= PACKET_MAX_BYTES);
    p->socket->dirty = true;
    if (p->identity_size > 0)
        TRY(send_part(p->socket->zmq, p->identity, p->identity_size, ZMQ_SNDMORE));
    return send_part(p->socket->zmq, packet, size, 0);
}

static struct slice peer_identity(const struct link_peer *p)
{
    return slice_of(p->identity, p->identity_size);
}

static void port_forget(void *ctx, uint32_t peer)
{
    struct links *l = ctx;
    struct link_peer *p = l->peers[peer];
    if (!p)
        return;
    STOA_ASSERT(p->identity_size > 0);
    map_remove(p->socket->by_identity, peer_identity(p));
    l->peers[peer] = NULL;
    mem_free(p);
}

struct hub_ports links_ports(struct links *l)
{
    return (struct hub_ports){.ctx = l, .send = port_send, .forget = port_forget};
}

/* ---- receiving ---- */

static void message_release(void *owner)
{
    zmq_msg_t *msg = owner;
    (void)zmq_msg_close(msg);
    mem_free(msg);
}

/* Takes the message's content; the caller closes `msg` either way. */
static struct buf *message_to_buf(zmq_msg_t *msg)
{
    size_t size = zmq_msg_size(msg);
    if (size <= COPY_MAX_BYTES)
        return buf_copy(zmq_msg_data(msg), size);
    zmq_msg_t *owned = mem_alloc(sizeof *owned);
    STOA_ASSERT(zmq_msg_init(owned) == 0);
    STOA_ASSERT(zmq_msg_move(owned, msg) == 0);
    return buf_wrap(zmq_msg_data(owned), size, message_release, owned);
}

static struct link_peer *peer_accept(struct link_socket *s, struct slice identity)
{
    struct links *l = s->links;
    if (identity.size == 0 || identity.size > ROUTING_ID_MAX_BYTES)
        return NULL;
    struct link_peer *p = map_get(s->by_identity, identity);
    if (p)
        return p;
    uint32_t number = hub_accept(l->hub, s->door, loop_now(l->loop));
    if (number == 0)
        return NULL;
    STOA_ASSERT(number <= PEERS_MAX && !l->peers[number]);
    p = mem_zalloc(sizeof *p);
    p->number = number;
    p->socket = s;
    p->identity_size = identity.size;
    memcpy(p->identity, identity.data, identity.size);
    map_put(s->by_identity, peer_identity(p), p);
    l->peers[number] = p;
    return p;
}

/* Whose packet it is, by the key of the connection that brought it: after a HANDOVER a routing id
 * may have another owner. Without roles, and on ipc, all that get in are alike. Costs a look-up in
 * libzmq's properties of the connection and a comparison of a few digits. */
static bool peer_identified(struct link_socket *s, struct link_peer *p, zmq_msg_t *msg)
{
    struct links *l = s->links;
    if (!l->keys.roles || s->endpoint.ipc)
        return true;
    const char *user_id = zmq_msg_gets(msg, "User-Id");
    if (user_id && strcmp(user_id, p->user_id) == 0)
        return true;
    const struct link_key *key = user_id ? link_key_of(&l->keys, user_id) : NULL;
    if (!key)
        return false;
    snprintf(p->user_id, sizeof p->user_id, "%s", user_id);
    hub_identify(l->hub, p->number, &key->who, loop_now(l->loop));
    return true;
}

/* Reads over the remaining parts of a message. */
static void skip_parts(void *zmq, zmq_msg_t *msg)
{
    while (zmq_msg_more(msg) && zmq_msg_recv(msg, zmq, ZMQ_DONTWAIT) >= 0)
        continue;
}

static void packet_arrived(struct link_socket *s, uint32_t peer, zmq_msg_t *msg)
{
    struct buf *packet = message_to_buf(msg);
    hub_packet(s->links->hub, peer, packet, loop_now(s->links->loop));
    buf_unref(packet);
}

/* On a ROUTER a packet has its sender's identity in front and nothing behind. Anything else is not
 * from a Stoa process and is dropped. */
static bool router_receive(struct link_socket *s, zmq_msg_t *msg, size_t *size)
{
    if (zmq_msg_recv(msg, s->zmq, ZMQ_DONTWAIT) < 0)
        return false;
    uint8_t identity[ROUTING_ID_MAX_BYTES];
    size_t identity_size = zmq_msg_size(msg);
    if (!zmq_msg_more(msg) || identity_size > sizeof identity) {
        skip_parts(s->zmq, msg);
        return true;
    }
    memcpy(identity, zmq_msg_data(msg), identity_size);
    if (zmq_msg_recv(msg, s->zmq, ZMQ_DONTWAIT) < 0)
        return false; /* parts arrive together: only when the context ends */
    *size = zmq_msg_size(msg);
    if (zmq_msg_more(msg)) {
        skip_parts(s->zmq, msg);
        return true;
    }
    struct link_peer *p = peer_accept(s, slice_of(identity, identity_size));
    if (p && peer_identified(s, p, msg))
        packet_arrived(s, p->number, msg);
    return true;
}

static bool dealer_receive(struct link_socket *s, zmq_msg_t *msg, size_t *size)
{
    if (zmq_msg_recv(msg, s->zmq, ZMQ_DONTWAIT) < 0)
        return false;
    *size = zmq_msg_size(msg);
    if (zmq_msg_more(msg))
        skip_parts(s->zmq, msg);
    else
        packet_arrived(s, s->peer, msg);
    return true;
}

bool link_socket_drain(struct link_socket *s)
{
    size_t bytes = 0;
    zmq_msg_t msg;
    STOA_ASSERT(zmq_msg_init(&msg) == 0);
    bool more = true;
    unsigned packets = 0;
    while (packets < DRAIN_MAX_PACKETS && bytes < DRAIN_MAX_BYTES) {
        size_t size = 0;
        more = s->listener ? router_receive(s, &msg, &size) : dealer_receive(s, &msg, &size);
        if (!more)
            break;
        packets++;
        bytes += size;
    }
    (void)zmq_msg_close(&msg);
    s->dirty = more;
    return packets > 0;
}

static bool on_pending(void *ctx)
{
    struct links *l = ctx;
    bool worked = false;
    for (struct link_socket *s = l->sockets; s; s = s->next) {
        if (s->monitor && s->monitor_dirty)
            worked |= link_monitor_drain(s);
        if (s->zmq && s->dirty)
            worked |= link_socket_drain(s);
    }
    return worked;
}

/* ---- dialing and listening ---- */

static struct link_socket *socket_create(struct links *l, const struct link_endpoint *endpoint)
{
    STOA_ASSERT(l->hub); /* links_attach comes first */
    struct link_socket *s = mem_zalloc(sizeof *s);
    s->links = l;
    s->endpoint = *endpoint;
    s->next = l->sockets;
    l->sockets = s;
    return s;
}

static int socket_undo(struct link_socket *s, int code)
{
    link_socket_close(s);
    map_destroy(&s->by_identity);
    s->links->sockets = s->next;
    mem_free(s);
    return code;
}

/* Whether the endpoint may be used with the keys that there are. */
static int endpoint_secured(const struct links *l, const struct link_endpoint *e,
                            struct strbuf *why)
{
    if (e->ipc)
        return ERR_OK;
    if (l->keys.problem) {
        strbuf_printf(why, "%s: %s", e->text, l->keys.problem);
        return ERR_INVALID;
    }
    if (l->keys.required && !l->keys.given) {
        strbuf_printf(why,
                      "%s would be in clear, and cluster.curve.required is set: give "
                      "cluster.curve.secret_file (stoa keygen makes one) or use ipc://",
                      e->text);
        return ERR_REFUSED;
    }
    return ERR_OK;
}

int links_dial(struct links *l, uint32_t peer, const char *endpoint, struct strbuf *why)
{
    struct link_endpoint e;
    TRY(link_endpoint_parse(endpoint, false, &e, why));
    TRY(endpoint_secured(l, &e, why));
    STOA_ASSERT(peer != 0 && peer <= PEERS_MAX && !l->peers[peer]);
    struct link_socket *s = socket_create(l, &e);
    s->peer = peer;
    int code = link_socket_dial(s, why);
    if (code != ERR_OK)
        return socket_undo(s, code);
    struct link_peer *p = mem_zalloc(sizeof *p);
    p->number = peer;
    p->socket = s;
    l->peers[peer] = p;
    return ERR_OK;
}

int links_listen(struct links *l, unsigned door, const char *endpoint, struct strbuf *why)
{
    struct link_endpoint e;
    TRY(link_endpoint_parse(endpoint, true, &e, why));
    TRY(endpoint_secured(l, &e, why));
    if (e.ipc)
        TRY(link_endpoint_clear(&e, why));
    else if (l->keys.given)
        TRY(link_zap_start(l, why));
    struct link_socket *s = socket_create(l, &e);
    s->listener = true;
    s->door = door;
    s->by_identity = map_create(process_random());
    int code = link_socket_listen(s, why);
    return code == ERR_OK ? ERR_OK : socket_undo(s, code);
}
