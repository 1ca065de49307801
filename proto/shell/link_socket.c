/* SHELL. The life of the ZeroMQ sockets behind the links.
 *
 * A dialer's socket monitor tells when the peer can be spoken to: HANDSHAKE_SUCCEEDED, not
 * CONNECTED, because a refused key connects too. libzmq reconnects by itself after a lost
 * connection, but not after a protocol error or a refused key; a dialer that has shown no sign of
 * life for a while is therefore opened anew. Each opening has a fresh routing id, so that the
 * listener's HANDOVER is needed only when the same socket comes back before its old connection was
 * noticed dead. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <zmq.h>

#include "common/shell/process.h"
#include "proto/shell/link_internal.h"

#define RECONNECT_MIN_MS 50
#define RECONNECT_MAX_MS 1000
#define CONNECT_TIMEOUT_MS 3000
#define HANDSHAKE_TIMEOUT_MS 5000
#define REDIAL_AFTER_MS 1000  /* after a refusal */
#define REDIAL_SILENT_MS 8000 /* connecting, and nothing heard from libzmq */
#define MONITOR_HWM 1000
#define EARLY_END_QUIET_NS (60 * NS_PER_S)
#define KEEPALIVE_IDLE_S 15
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT 3
#define MAX_MESSAGE_SLACK_BYTES KIB

_Static_assert(REDIAL_SILENT_MS > CONNECT_TIMEOUT_MS + RECONNECT_MAX_MS &&
                   REDIAL_SILENT_MS > HANDSHAKE_TIMEOUT_MS + RECONNECT_MAX_MS,
               "a dialer that libzmq is still trying is left alone");

/* ---- small things ---- */

void link_set_int(void *zmq, int option, int value)
{
    STOA_ASSERT(zmq_setsockopt(zmq, option, &value, sizeof value) == 0);
}

static void set_bytes(void *zmq, int option, const void *value, size_t size)
{
    STOA_ASSERT(zmq_setsockopt(zmq, option, value, size) == 0);
}

int link_events(void *zmq)
{
    int events = 0;
    size_t size = sizeof events;
    return zmq_getsockopt(zmq, ZMQ_EVENTS, &events, &size) == 0 ? events : 0;
}

void link_watch(struct links *l, ev_io *io, void *zmq,
                void (*callback)(struct ev_loop *, ev_io *, int), void *data)
{
    int fd = -1;
    size_t size = sizeof fd;
    STOA_ASSERT(zmq_getsockopt(zmq, ZMQ_FD, &fd, &size) == 0);
    ev_io_init(io, callback, fd, EV_READ);
    io->data = data;
    ev_io_start(loop_ev(l->loop), io);
}

/* No heartbeats of ZeroMQ's: libzmq 4.3.4 aborts when one is due on a connection that broke while
 * it did not read it, e.g. behind a HANDOVER ("Assertion failed: !_io_error"). The hub has its own,
 * and what it sends every second makes TCP notice that nobody answers. */
static void set_options(void *zmq)
{
    link_set_int(zmq, ZMQ_LINGER, 0);
    link_set_int(zmq, ZMQ_SNDHWM, LINK_HWM_PACKETS);
    link_set_int(zmq, ZMQ_RCVHWM, LINK_HWM_PACKETS);
    int64_t max = PACKET_MAX_BYTES + MAX_MESSAGE_SLACK_BYTES;
    set_bytes(zmq, ZMQ_MAXMSGSIZE, &max, sizeof max);
    link_set_int(zmq, ZMQ_TCP_MAXRT, LINK_DEAD_MS);
    link_set_int(zmq, ZMQ_HANDSHAKE_IVL, HANDSHAKE_TIMEOUT_MS);
    link_set_int(zmq, ZMQ_TCP_KEEPALIVE, 1);
    link_set_int(zmq, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S);
    link_set_int(zmq, ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S);
    link_set_int(zmq, ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT);
}

static void *socket_open(struct link_socket *s, int type, struct strbuf *why)
{
    void *zmq = zmq_socket(s->links->context, type);
    if (!zmq) {
        strbuf_printf(why, "%s: no ZeroMQ socket: %s", s->endpoint.text, zmq_strerror(errno));
        return NULL;
    }
    set_options(zmq);
    if (strchr(s->endpoint.text, '[')) /* only then: names must not resolve to ::1 first */
        link_set_int(zmq, ZMQ_IPV6, 1);
    return zmq;
}

static void on_readable(struct ev_loop *ev, ev_io *w, int events)
{
    (void)ev;
    (void)events;
    (void)link_socket_drain(w->data);
}

/* ---- monitors ---- */

static void dialer_up(struct link_socket *s)
{
    struct links *l = s->links;
    if (s->connected)
        hub_disconnected(l->hub, s->peer, loop_now(l->loop));
    s->connected = true;
    s->refused = false;
    s->redial_ns = 0;
    s->dirty = true;
    hub_connected(l->hub, s->peer, loop_now(l->loop));
}

static void dialer_down(struct link_socket *s)
{
    if (!s->connected)
        return;
    s->connected = false;
    hub_disconnected(s->links->hub, s->peer, loop_now(s->links->loop));
}

/* Ends with what to do; our public key is what the other side has to allow. */
static void dialer_failed(struct link_socket *s, const char *what)
{
    dialer_down(s);
    s->redial_ns = loop_now(s->links->loop).mono_ns + REDIAL_AFTER_MS * NS_PER_MS;
    if (!s->refused)
        LOG(s->links->log, LOG_WARN, "link.handshake_failed", LOG_STR("endpoint", s->endpoint.text),
            LOG_STR("why", what), LOG_STR("our_key", s->links->keys.public));
    s->refused = true;
}

static const char *protocol_failure(uint32_t error)
{
    if (error == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
        return "one side has a CURVE key and the other none: give both cluster.curve.secret_file, "
               "or none";
    if (error == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)
        return "CURVE keys that do not fit: cluster.curve.server must be the public key of the "
               "side that listens";
    return "the other side does not speak ZeroMQ as we do";
}

/* Whoever sees first that only one side has a key closes, and the other sees no more than this. */
static const char *early_end(const struct link_socket *s)
{
    if (s->endpoint.ipc)
        return "the connection ended within the handshake";
    if (!s->links->keys.given)
        return "the connection ended within the handshake: if the other side has a CURVE key, this "
               "one needs cluster.curve.secret_file too";
    return s->listener ? "the connection ended within the handshake: a process without a CURVE "
                         "key, or a probe of the port"
                       : "the connection ended within the handshake: the peer needs a CURVE key, "
                         "and cluster.curve.server must be its public key";
}

/* Refused keys are told by link_zap.c, which has the key. A probe that comes all the time must not
 * fill the log. */
static void listener_event(struct link_socket *s, uint16_t event, uint32_t error)
{
    struct links *l = s->links;
    int64_t now = loop_now(l->loop).mono_ns;
    bool protocol = event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL;
    if (!protocol && event != ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        return;
    hub_refused_handshake(l->hub);
    int64_t *told_ns = protocol ? &s->refusal_ns : &s->early_end_ns;
    if (*told_ns != 0 && now - *told_ns < (protocol ? NS_PER_S : EARLY_END_QUIET_NS))
        return;
    *told_ns = now;
    LOG(l->log, LOG_WARN, "link.handshake_refused", LOG_STR("endpoint", s->endpoint.text),
        LOG_STR("why", protocol ? protocol_failure(error) : early_end(s)));
}

static void dialer_event(struct link_socket *s, uint16_t event, uint32_t error)
{
    s->sign_ns = loop_now(s->links->loop).mono_ns;
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        dialer_up(s);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        dialer_failed(
            s, "the peer does not allow our key: add it to the peer's cluster.curve.allowed or "
               "cluster.peers");
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        dialer_failed(s, protocol_failure(error));
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        dialer_failed(s, early_end(s));
        break;
    case ZMQ_EVENT_DISCONNECTED:
        dialer_down(s);
        break;
    default: /* on its way: just a sign of life */
        break;
    }
}

/* An event is two parts: its number and value, and an endpoint that we know already. */
bool link_monitor_drain(struct link_socket *s)
{
    uint8_t head[6], endpoint[ENDPOINT_MAX_BYTES];
    s->monitor_dirty = false;
    for (bool worked = false;; worked = true) {
        if (zmq_recv(s->monitor, head, sizeof head, ZMQ_DONTWAIT) != sizeof head)
            return worked;
        (void)zmq_recv(s->monitor, endpoint, sizeof endpoint, ZMQ_DONTWAIT);
        uint16_t event;
        uint32_t value;
        memcpy(&event, head, sizeof event);
        memcpy(&value, head + sizeof event, sizeof value);
        if (s->listener)
            listener_event(s, event, value);
        else
            dialer_event(s, event, value);
    }
}

static void on_monitor(struct ev_loop *ev, ev_io *w, int events)
{
    (void)ev;
    (void)events;
    (void)link_monitor_drain(w->data);
}

static int monitor_open(struct link_socket *s, struct strbuf *why)
{
    struct links *l = s->links;
    char address[64];
    snprintf(address, sizeof address, "inproc://monitor-%llu",
             (unsigned long long)++l->last_monitor);
    int failures = ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL;
    int events = s->listener ? failures : ZMQ_EVENT_ALL;
    if (zmq_socket_monitor(s->zmq, address, events) == 0)
        s->monitor = zmq_socket(l->context, ZMQ_PAIR);
    if (!s->monitor) {
        strbuf_printf(why, "%s: no monitor: %s", s->endpoint.text, zmq_strerror(errno));
        return ERR_IO;
    }
    link_set_int(s->monitor, ZMQ_LINGER, 0);
    link_set_int(s->monitor, ZMQ_RCVHWM, MONITOR_HWM);
    if (zmq_connect(s->monitor, address) != 0) {
        strbuf_printf(why, "%s: no monitor: %s", s->endpoint.text, zmq_strerror(errno));
        return ERR_IO;
    }
    link_watch(l, &s->monitor_io, s->monitor, on_monitor, s);
    s->monitor_dirty = true;
    return ERR_OK;
}

/* ---- dialing ---- */

static void curve_client(struct link_socket *s)
{
    const struct link_keys *keys = &s->links->keys;
    if (s->endpoint.ipc || !keys->given)
        return;
    set_bytes(s->zmq, ZMQ_CURVE_SERVERKEY, keys->server, CURVE_KEY_TEXT_BYTES + 1);
    set_bytes(s->zmq, ZMQ_CURVE_PUBLICKEY, keys->public, CURVE_KEY_TEXT_BYTES + 1);
    set_bytes(s->zmq, ZMQ_CURVE_SECRETKEY, keys->secret, CURVE_KEY_TEXT_BYTES + 1);
}

int link_socket_dial(struct link_socket *s, struct strbuf *why)
{
    s->sign_ns = loop_now(s->links->loop).mono_ns;
    s->redial_ns = 0;
    s->zmq = socket_open(s, ZMQ_DEALER, why);
    if (!s->zmq)
        return ERR_IO;
    uint8_t id[ROUTING_ID_BYTES];
    process_random_bytes(id, sizeof id);
    id[0] |= 1; /* a leading zero is libzmq's own */
    set_bytes(s->zmq, ZMQ_ROUTING_ID, id, sizeof id);
    link_set_int(s->zmq, ZMQ_IMMEDIATE, 1);
    link_set_int(s->zmq, ZMQ_RECONNECT_IVL, RECONNECT_MIN_MS);
    link_set_int(s->zmq, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    link_set_int(s->zmq, ZMQ_CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS);
    curve_client(s);
    link_watch(s->links, &s->io, s->zmq, on_readable, s);
    s->dirty = true;
    TRY(monitor_open(s, why));
    if (zmq_connect(s->zmq, s->endpoint.text) == 0)
        return ERR_OK;
    strbuf_printf(why, "cannot dial %s: %s", s->endpoint.text, zmq_strerror(errno));
    return ERR_INVALID;
}

void link_socket_close(struct link_socket *s)
{
    struct ev_loop *ev = loop_ev(s->links->loop);
    if (s->monitor) {
        ev_io_stop(ev, &s->monitor_io);
        (void)zmq_socket_monitor(s->zmq, NULL, 0);
        (void)zmq_close(s->monitor);
        s->monitor = NULL;
    }
    if (s->zmq) {
        ev_io_stop(ev, &s->io);
        (void)zmq_close(s->zmq);
        s->zmq = NULL;
    }
}

static void dialer_redial(struct link_socket *s)
{
    struct strbuf why = {0};
    link_socket_close(s);
    if (link_socket_dial(s, &why) != ERR_OK) {
        LOG(s->links->log, LOG_ERROR, "link.redial_failed", LOG_SLICE("why", strbuf_slice(&why)));
        link_socket_close(s);
    }
    strbuf_free(&why);
}

static void on_redial_timer(struct ev_loop *ev, ev_timer *w, int events)
{
    (void)ev;
    (void)events;
    struct links *l = w->data;
    int64_t now = loop_now(l->loop).mono_ns;
    for (struct link_socket *s = l->sockets; s; s = s->next) {
        if (s->listener || s->connected)
            continue;
        bool due = s->redial_ns != 0 && now >= s->redial_ns;
        if (!s->zmq || due || now - s->sign_ns >= REDIAL_SILENT_MS * NS_PER_MS)
            dialer_redial(s);
    }
}

void link_redial_start(struct links *l)
{
    ev_timer_init(&l->redial_timer, on_redial_timer, 1., 1.);
    l->redial_timer.data = l;
    ev_timer_start(loop_ev(l->loop), &l->redial_timer);
}

/* ---- listening ---- */

static void curve_server(struct link_socket *s)
{
    const struct link_keys *keys = &s->links->keys;
    if (s->endpoint.ipc || !keys->given)
        return;
    static const char domain[] = "stoa";
    link_set_int(s->zmq, ZMQ_CURVE_SERVER, 1);
    set_bytes(s->zmq, ZMQ_CURVE_SECRETKEY, keys->secret, CURVE_KEY_TEXT_BYTES + 1);
    set_bytes(s->zmq, ZMQ_ZAP_DOMAIN, domain, sizeof domain - 1);
}

static const char *bind_advice(int error)
{
    switch (error) {
    case EADDRINUSE:
        return "another process listens there: stop it, or configure another address";
    case EADDRNOTAVAIL:
    case ENODEV:
        return "this machine does not have that address: use one of its own, or 0.0.0.0";
    case EACCES:
    case EPERM:
        return "not permitted: ports below 1024 need privileges, socket files a directory of this "
               "user";
    default:
        return "check the address";
    }
}

int link_socket_listen(struct link_socket *s, struct strbuf *why)
{
    s->zmq = socket_open(s, ZMQ_ROUTER, why);
    if (!s->zmq)
        return ERR_IO;
    link_set_int(s->zmq, ZMQ_ROUTER_MANDATORY, 1);
    link_set_int(s->zmq, ZMQ_ROUTER_HANDOVER, 1);
    curve_server(s);
    if (!s->endpoint.ipc)
        TRY(monitor_open(s, why));
    link_watch(s->links, &s->io, s->zmq, on_readable, s);
    s->dirty = true;
    /* The socket file is made within zmq_bind: nobody but this user may ever connect to it. */
    mode_t mask = umask(0177);
    int rc = zmq_bind(s->zmq, s->endpoint.text);
    int error = errno;
    (void)umask(mask);
    if (rc == 0)
        return ERR_OK;
    strbuf_printf(why, "cannot listen on %s: %s; %s", s->endpoint.text, zmq_strerror(error),
                  bind_advice(error));
    return ERR_IO;
}
