/* SHELL. DEALERs with their monitors. HANDSHAKE_SUCCEEDED, not CONNECTED, tells that a router can
 * be spoken to. libzmq reconnects by itself after a lost connection, but not after a refused key or
 * a protocol error: a dialer that has shown no sign of life for a while is opened anew.
 *
 * ZMQ_FD is edge-triggered, and any call on a socket may eat an edge: after sending,
 * transport_pending asks each socket that was used. */
#include "client/transport.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <zmq.h>

#include "common/mem.h"

#define RECONNECT_MIN_MS 50
#define RECONNECT_MAX_MS 1000
#define CONNECT_TIMEOUT_MS 3000
#define HANDSHAKE_TIMEOUT_MS 5000
#define REDIAL_AFTER_MS 1000  /* after a refusal */
#define REDIAL_SILENT_MS 8000 /* connecting, and nothing heard from libzmq */
#define MONITOR_HWM 1000
#define KEEPALIVE_IDLE_S 15
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT 3
#define MAX_MESSAGE_SLACK_BYTES KIB
#define ROUTING_ID_BYTES 12
#define CURVE_KEY_TEXT_BYTES 40
/* Of one socket in one turn: who takes what it brought has a chance before more comes. */
#define DRAIN_PACKETS 256
#define DRAIN_BYTES (4 * MIB)

_Static_assert(REDIAL_SILENT_MS > CONNECT_TIMEOUT_MS + RECONNECT_MAX_MS &&
                   REDIAL_SILENT_MS > HANDSHAKE_TIMEOUT_MS + RECONNECT_MAX_MS,
               "a dialer that libzmq is still trying is left alone");

struct dialer {
    struct transport *transport;
    uint32_t peer;
    char endpoint[ENDPOINT_MAX_BYTES];
    void *zmq;     /* NULL: could not be opened, to be tried again */
    void *monitor; /* PAIR */
    int fd, monitor_fd;
    bool connected; /* as the hub was told */
    bool refused;   /* logged already */
    bool dirty;     /* used since it last said that there is nothing to receive */
    int64_t redial_ns;
};

struct transport {
    void *context;
    int epoll;
    struct hub *hub;
    struct log *log;
    struct tick now;
    bool curve;
    char public_key[CURVE_KEY_TEXT_BYTES + 1], secret_key[CURVE_KEY_TEXT_BYTES + 1],
        server_key[CURVE_KEY_TEXT_BYTES + 1];
    unsigned last_monitor;
    uint32_t n_dialers;
    struct dialer dialers[ROUTERS_MAX];
};

/* ---- sockets ---- */

static void set_int(void *zmq, int option, int value)
{
    STOA_ASSERT(zmq_setsockopt(zmq, option, &value, sizeof value) == 0);
}

static void set_bytes(void *zmq, int option, const void *value, size_t size)
{
    STOA_ASSERT(zmq_setsockopt(zmq, option, value, size) == 0);
}

static void set_options(struct dialer *d)
{
    const struct transport *t = d->transport;
    void *zmq = d->zmq;
    uint8_t id[ROUTING_ID_BYTES];
    STOA_ASSERT(getrandom(id, sizeof id, 0) == sizeof id);
    id[0] |= 1; /* a leading zero is libzmq's own */
    set_bytes(zmq, ZMQ_ROUTING_ID, id, sizeof id);
    int64_t max = PACKET_MAX_BYTES + MAX_MESSAGE_SLACK_BYTES;
    set_bytes(zmq, ZMQ_MAXMSGSIZE, &max, sizeof max);
    set_int(zmq, ZMQ_LINGER, 0);
    set_int(zmq, ZMQ_SNDHWM, LINK_HWM_PACKETS);
    set_int(zmq, ZMQ_RCVHWM, LINK_HWM_PACKETS);
    set_int(zmq, ZMQ_TCP_MAXRT, LINK_DEAD_MS); /* no heartbeats of ZeroMQ's: see link_socket.c */
    set_int(zmq, ZMQ_HANDSHAKE_IVL, HANDSHAKE_TIMEOUT_MS);
    set_int(zmq, ZMQ_TCP_KEEPALIVE, 1);
    set_int(zmq, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S);
    set_int(zmq, ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S);
    set_int(zmq, ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT);
    set_int(zmq, ZMQ_IMMEDIATE, 1);
    set_int(zmq, ZMQ_RECONNECT_IVL, RECONNECT_MIN_MS);
    set_int(zmq, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    set_int(zmq, ZMQ_CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS);
    if (strchr(d->endpoint, '[')) /* only then: names must not resolve to ::1 first */
        set_int(zmq, ZMQ_IPV6, 1);
    if (!t->curve || strncmp(d->endpoint, "ipc:", 4) == 0)
        return;
    set_bytes(zmq, ZMQ_CURVE_SERVERKEY, t->server_key, sizeof t->server_key);
    set_bytes(zmq, ZMQ_CURVE_PUBLICKEY, t->public_key, sizeof t->public_key);
    set_bytes(zmq, ZMQ_CURVE_SECRETKEY, t->secret_key, sizeof t->secret_key);
}

static int watch(const struct transport *t, void *zmq)
{
    int fd = -1;
    size_t size = sizeof fd;
    STOA_ASSERT(zmq_getsockopt(zmq, ZMQ_FD, &fd, &size) == 0);
    struct epoll_event event = {.events = EPOLLIN};
    STOA_ASSERT(epoll_ctl(t->epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    return fd;
}

static int monitor_open(struct dialer *d)
{
    struct transport *t = d->transport;
    char address[64];
    snprintf(address, sizeof address, "inproc://monitor-%u", ++t->last_monitor);
    if (zmq_socket_monitor(d->zmq, address, ZMQ_EVENT_ALL) != 0)
        return ERR_IO;
    d->monitor = zmq_socket(t->context, ZMQ_PAIR);
    if (!d->monitor)
        return ERR_IO;
    set_int(d->monitor, ZMQ_LINGER, 0);
    set_int(d->monitor, ZMQ_RCVHWM, MONITOR_HWM);
    if (zmq_connect(d->monitor, address) != 0)
        return ERR_IO;
    d->monitor_fd = watch(t, d->monitor);
    return ERR_OK;
}

static int dialer_open(struct dialer *d, struct strbuf *why)
{
    d->redial_ns = d->transport->now.mono_ns + REDIAL_SILENT_MS * NS_PER_MS;
    d->dirty = true;
    d->zmq = zmq_socket(d->transport->context, ZMQ_DEALER);
    if (d->zmq) {
        set_options(d);
        d->fd = watch(d->transport, d->zmq);
        if (monitor_open(d) == ERR_OK && zmq_connect(d->zmq, d->endpoint) == 0)
            return ERR_OK;
    }
    strbuf_printf(why, "cannot dial %s: %s", d->endpoint, zmq_strerror(errno));
    return ERR_IO;
}

/* Descriptors leave the epoll first: libzmq closes them later, in a thread of its own. */
static void dialer_close(struct dialer *d)
{
    int epoll = d->transport->epoll;
    if (d->monitor) {
        if (d->monitor_fd >= 0)
            (void)epoll_ctl(epoll, EPOLL_CTL_DEL, d->monitor_fd, NULL);
        (void)zmq_socket_monitor(d->zmq, NULL, 0);
        (void)zmq_close(d->monitor);
    }
    if (d->zmq) {
        (void)epoll_ctl(epoll, EPOLL_CTL_DEL, d->fd, NULL);
        (void)zmq_close(d->zmq);
    }
    d->monitor = d->zmq = NULL;
    d->fd = d->monitor_fd = -1;
}

/* ---- the monitor ---- */

static void dialer_up(struct dialer *d)
{
    struct transport *t = d->transport;
    if (d->connected)
        hub_disconnected(t->hub, d->peer, t->now);
    d->connected = true;
    d->refused = false;
    d->dirty = true;
    hub_connected(t->hub, d->peer, t->now);
}

static void dialer_down(struct dialer *d)
{
    if (!d->connected)
        return;
    d->connected = false;
    hub_disconnected(d->transport->hub, d->peer, d->transport->now);
}

static void dialer_failed(struct dialer *d, const char *what)
{
    dialer_down(d);
    d->redial_ns = d->transport->now.mono_ns + REDIAL_AFTER_MS * NS_PER_MS;
    if (!d->refused)
        LOG(d->transport->log, LOG_WARN, "link.handshake_failed", LOG_STR("endpoint", d->endpoint),
            LOG_STR("why", what));
    d->refused = true;
}

static void monitor_event(struct dialer *d, uint16_t event)
{
    if (!d->refused) /* else libzmq may have given up, whatever it tells besides */
        d->redial_ns = d->transport->now.mono_ns + REDIAL_SILENT_MS * NS_PER_MS;
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        dialer_up(d);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        dialer_failed(d, "the router does not allow our key");
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        dialer_failed(d, "the router does not speak as we do (CURVE on one side only?)");
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        dialer_failed(
            d, "the connection ended within the handshake (is our key in the router's "
               "cluster.curve.allowed or cluster.peers, and curve_server_key the router's?)");
        break;
    case ZMQ_EVENT_DISCONNECTED:
        dialer_down(d);
        break;
    default: /* on its way: just a sign of life */
        break;
    }
}

/* An event is two parts: its number and value, and an endpoint that we know already. */
static void monitor_drain(struct dialer *d)
{
    uint8_t head[6], endpoint[ENDPOINT_MAX_BYTES];
    while (zmq_recv(d->monitor, head, sizeof head, ZMQ_DONTWAIT) == sizeof head) {
        (void)zmq_recv(d->monitor, endpoint, sizeof endpoint, ZMQ_DONTWAIT);
        uint16_t event;
        memcpy(&event, head, sizeof event);
        monitor_event(d, event);
    }
}

/* ---- packets ---- */

static int port_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct transport *t = ctx;
    struct dialer *d = &t->dialers[peer - 1];
    if (!d->zmq)
        return ERR_GONE;
    d->dirty = true;
    if (zmq_send(d->zmq, packet, size, ZMQ_DONTWAIT) >= 0)
        return ERR_OK;
    return errno == EAGAIN ? ERR_FULL : ERR_GONE;
}

struct hub_ports transport_ports(struct transport *t)
{
    return (struct hub_ports){.ctx = t, .send = port_send};
}

static void dialer_drain(struct dialer *d)
{
    struct transport *t = d->transport;
    d->dirty = true;
    size_t taken = 0;
    for (int i = 0; i < DRAIN_PACKETS && taken < DRAIN_BYTES; i++) {
        zmq_msg_t bytes;
        zmq_msg_init(&bytes);
        if (zmq_msg_recv(&bytes, d->zmq, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&bytes);
            d->dirty = false;
            return;
        }
        /* On the stack: the publisher keeps no refs. */
        struct buf packet = {.refs = 1, .size = zmq_msg_size(&bytes), .data = zmq_msg_data(&bytes)};
        hub_packet(t->hub, d->peer, &packet, t->now);
        STOA_ASSERT(packet.refs == 1);
        taken += packet.size;
        zmq_msg_close(&bytes);
    }
}

static void dialer_redial(struct dialer *d)
{
    struct strbuf why = {0};
    dialer_close(d);
    if (dialer_open(d, &why) != ERR_OK) {
        LOG(d->transport->log, LOG_ERROR, "link.redial_failed",
            LOG_SLICE("why", strbuf_slice(&why)));
        dialer_close(d);
    }
    strbuf_free(&why);
}

void transport_receive(struct transport *t, struct tick now)
{
    t->now = now;
    for (uint32_t i = 0; i < t->n_dialers; i++) {
        struct dialer *d = &t->dialers[i];
        if (d->zmq) {
            dialer_drain(d);
            monitor_drain(d);
        }
        if (!d->connected && now.mono_ns >= d->redial_ns)
            dialer_redial(d);
    }
}

bool transport_pending(struct transport *t)
{
    bool pending = false;
    for (uint32_t i = 0; i < t->n_dialers; i++) {
        struct dialer *d = &t->dialers[i];
        int events = 0;
        size_t size = sizeof events;
        if (!d->zmq || !d->dirty || zmq_getsockopt(d->zmq, ZMQ_EVENTS, &events, &size) != 0)
            continue;
        d->dirty = (events & ZMQ_POLLIN) != 0;
        pending |= d->dirty;
    }
    return pending;
}

int64_t transport_deadline(const struct transport *t)
{
    int64_t due = TICK_NEVER;
    for (uint32_t i = 0; i < t->n_dialers; i++)
        if (!t->dialers[i].connected && t->dialers[i].redial_ns < due)
            due = t->dialers[i].redial_ns;
    return due;
}

/* ---- making ---- */

static int key_copy(char out[CURVE_KEY_TEXT_BYTES + 1], const char *name, const char *text,
                    struct strbuf *why)
{
    uint8_t key[32];
    if (!text || strlen(text) != CURVE_KEY_TEXT_BYTES || !zmq_z85_decode(key, text)) {
        strbuf_printf(why, "%s: a CURVE key is 40 characters of Z85 (stoa keygen makes one)", name);
        return ERR_INVALID;
    }
    memcpy(out, text, CURVE_KEY_TEXT_BYTES + 1);
    return ERR_OK;
}

/* The secret key is enough: the public one follows from it, and a cluster that shares one pair has
 * it at its routers too. */
static int keys_load(struct transport *t, const struct transport_keys *keys, struct strbuf *why)
{
    t->curve = keys->public_key || keys->secret_key || keys->server_key;
    if (!t->curve)
        return ERR_OK;
    if (!zmq_has("curve")) {
        strbuf_put_text(why, "this build of libzmq has no CURVE");
        return ERR_INVALID;
    }
    TRY(key_copy(t->secret_key, "curve_secret_key", keys->secret_key, why));
    if (zmq_curve_public(t->public_key, t->secret_key) != 0) {
        strbuf_put_text(why, "curve_secret_key: libzmq derives no public key from it");
        return ERR_INVALID;
    }
    if (keys->public_key && strcmp(keys->public_key, t->public_key) != 0) {
        strbuf_put_text(why, "curve_public_key is not that of curve_secret_key; leave it out");
        return ERR_INVALID;
    }
    const char *server = keys->server_key ? keys->server_key : t->public_key;
    return key_copy(t->server_key, "curve_server_key", server, why);
}

static int endpoint_add(struct transport *t, struct slice text, struct strbuf *why)
{
    while (text.size > 0 && text.data[0] == ' ')
        text = slice_of(text.data + 1, text.size - 1);
    while (text.size > 0 && text.data[text.size - 1] == ' ')
        text.size--;
    if (text.size == 0)
        return ERR_OK;
    if (t->n_dialers == ROUTERS_MAX) {
        strbuf_printf(why, "at most %d routers", ROUTERS_MAX);
        return ERR_INVALID;
    }
    struct dialer *d = &t->dialers[t->n_dialers++];
    *d = (struct dialer){.transport = t, .peer = t->n_dialers, .fd = -1, .monitor_fd = -1};
    return endpoint_parse(text, d->endpoint, why);
}

static int endpoints_load(struct transport *t, const char *routers, struct strbuf *why)
{
    for (const char *at = routers; at && *at;) {
        size_t size = strcspn(at, ",");
        TRY(endpoint_add(t, slice_of(at, size), why));
        at += size + (at[size] == ',');
    }
    if (t->n_dialers > 0)
        return ERR_OK;
    strbuf_put_text(why, "no router given: say where to publish, like tcp://127.0.0.1:7100");
    return ERR_INVALID;
}

int transport_create(struct transport **out, const char *routers, const struct transport_keys *keys,
                     int epoll, struct log *log, struct strbuf *why)
{
    struct transport *t = mem_zalloc(sizeof *t);
    *out = t;
    t->epoll = epoll;
    t->log = log;
    TRY(endpoints_load(t, routers, why));
    TRY(keys_load(t, keys, why));
    t->context = zmq_ctx_new();
    if (t->context)
        return ERR_OK;
    strbuf_printf(why, "no ZeroMQ context: %s", zmq_strerror(errno));
    return ERR_IO;
}

void transport_destroy(struct transport **transport)
{
    struct transport *t = *transport;
    if (!t)
        return;
    *transport = NULL;
    for (uint32_t i = 0; i < t->n_dialers; i++)
        dialer_close(&t->dialers[i]);
    if (t->context)
        while (zmq_ctx_term(t->context) != 0 && errno == EINTR)
            continue;
    explicit_bzero(t->secret_key, sizeof t->secret_key);
    mem_free(t);
}

uint32_t transport_routers(const struct transport *t)
{
    return t->n_dialers;
}

int transport_start(struct transport *t, struct hub *hub, struct tick now, struct strbuf *why)
{
    t->hub = hub;
    t->now = now;
    for (uint32_t i = 0; i < t->n_dialers; i++)
        TRY(dialer_open(&t->dialers[i], why));
    return ERR_OK;
}
