/* SHELL. WebSockets under libwebsockets: the only file with its header.
 *
 * libwebsockets gets a connection when the upgrade is accepted, with a canonical head in front of
 * the bytes that the client has sent already, answers 101 and from then on splits incoming frames,
 * answers pings and closes. Outgoing frames come framed from the core and go out through
 * LWS_WRITE_HTTP, which on an established WebSocket sends bytes as they are, keeping by itself what
 * the kernel did not take. Rules for that to be sound:
 *   - one call carries whole frames only, so that a pong of the library never falls into a frame;
 *   - nothing is written while the library keeps a rest (lws_partial_buffered), nor after a Close;
 *   - no extension is offered.
 *
 * Pings are ours: the library keeps its timers in one sorted list, which makes each of them cost a
 * walk past all other connections. A peer of which nothing was heard since the last ping is dropped
 * at the next.
 *
 * A connection that is not read answers no ping either; it is taken to be alive until it is read
 * again. Whoever is closed or killed is read, or its end would not be noticed.
 *
 * Known deviations from RFC 6455 of libwebsockets 4.1.6, which sees the bytes first: unmasked
 * frames of clients are accepted; a ping of more than 125 bytes ends the connection without a Close
 * frame; a Close that meets a half-written rest is not answered. A Close with one byte or with text
 * that is not UTF-8 is answered right, here. */
#include <libwebsockets.h>
#include <sys/socket.h>

#include "common/utf8.h"
#include "gateway/io_client.h"

#define RX_BUFFER_BYTES 256 /* allocated per connection */
#define TX_BYTES (2 * MIB)  /* at most so much is offered to the kernel at once */
#define REASON_MAX_BYTES 123
#define PING_BYTES 6

static const uint8_t ping[PING_BYTES] = {0x89, 4, 's', 't', 'o', 'a'};

/* --- closing --- */

static void set_reason(struct client *c, unsigned code, struct slice reason)
{
    c->closing = true;
    c->close_code = (uint16_t)code;
    mem_free(c->close_reason);
    size_t size = reason.size < REASON_MAX_BYTES ? reason.size : REASON_MAX_BYTES;
    while (size > 0 && !utf8_valid(slice_of(reason.data, size)))
        size--;
    c->close_reason = size ? mem_strndup((const char *)reason.data, size) : NULL;
}

/* For use as the result of a callback: libwebsockets then sends the Close and waits for its answer.
 */
static int send_close(struct client *c)
{
    size_t size = c->close_reason ? strlen(c->close_reason) : 0;
    lws_close_reason(c->wsi, (enum lws_close_status)c->close_code, (unsigned char *)c->close_reason,
                     size);
    return -1;
}

void socket_close(struct io *io, struct client *c, unsigned code, struct slice reason)
{
    if (c->closing)
        return;
    if (c->wsi)
        socket_pause(c, false);
    set_reason(c, code, reason);
    if (c->state != CLIENT_SOCKET)
        return; /* said after the adoption */
    client_timer(io, c, CLOSE_TIMEOUT_MS);
    lws_callback_on_writable(c->wsi);
}

void socket_pause(struct client *c, bool paused)
{
    if (c->paused == paused)
        return;
    c->paused = paused;
    c->heard = true;
    lws_rx_flow_control(c->wsi, !paused);
}

void socket_kill(struct io *io, struct client *c)
{
    client_drop_queue(io, c);
    socket_pause(c, false);
    c->closing = true;
    /* The library's own way to say this waits for a timer that it re-arms only when something
     * happens on a connection: in a quiet process that is seconds later. The end of the stream is
     * told at once. */
    shutdown(lws_get_socket_fd(c->wsi), SHUT_RDWR);
}

/* The peer broke a rule. What is queued for it is given up; the Close goes out as soon as it can.
 */
static int fail(struct io *io, struct client *c, unsigned code, const char *reason)
{
    client_drop_queue(io, c);
    set_reason(c, code, slice_text(reason));
    client_timer(io, c, CLOSE_TIMEOUT_MS);
    if (!lws_partial_buffered(c->wsi))
        return send_close(c);
    lws_callback_on_writable(c->wsi);
    return 0;
}

/* --- writing --- */

static bool can_write(struct client *c)
{
    return c->established && !c->held && !lws_partial_buffered(c->wsi);
}

/* False: the connection is broken. The library takes a pointer to bytes that it may change, but
 * does not change what is written this way. */
static bool put_raw(struct io *io, struct client *c, const uint8_t *bytes, size_t size)
{
    if (lws_write(c->wsi, unconst(bytes), size, LWS_WRITE_HTTP) < 0) {
        client_doom(io, c);
        return false;
    }
    if (lws_partial_buffered(c->wsi)) {
        c->held = true;
        c->held_bytes = (uint32_t)size;
        lws_callback_on_writable(c->wsi);
    }
    return true;
}

static size_t queued_bytes(const struct client *c)
{
    return c->queued + (c->held ? c->held_bytes : 0);
}

size_t socket_write(struct io *io, struct client *c, struct buf *bytes, size_t offset, size_t size)
{
    if (!c->first && can_write(c)) {
        if (!put_raw(io, c, bytes->data + offset, size))
            return 0;
    } else {
        client_push(io, c, bytes, offset, size);
        lws_callback_on_writable(c->wsi);
    }
    size_t queued = queued_bytes(c);
    c->owes_drained |= queued > 0;
    return queued;
}

/* Joins pieces from the front as long as they fit together. Returns what was joined. */
static size_t gather(struct io *io, const struct client *c)
{
    size_t size = 0;
    for (const struct piece *p = c->first; p && size + p->size <= GATHER_MAX_BYTES; p = p->next) {
        memcpy(io->gather + size, p->buf->data + p->offset, p->size);
        size += p->size;
    }
    return size;
}

static bool write_queue(struct io *io, struct client *c)
{
    size_t written = 0;
    while (c->first && can_write(c) && written < WRITE_TURN_BYTES) {
        const struct piece *p = c->first;
        const uint8_t *bytes = p->buf->data + p->offset;
        size_t size = p->size;
        if (p->next && size + p->next->size <= GATHER_MAX_BYTES) {
            size = gather(io, c);
            bytes = io->gather;
        }
        if (!put_raw(io, c, bytes, size))
            return false;
        client_shift(io, c, size);
        written += size;
    }
    return true;
}

static int on_writeable(struct io *io, struct client *c)
{
    if (!lws_partial_buffered(c->wsi))
        c->held = false;
    if (c->doomed || !write_queue(io, c))
        return -1;
    if (c->first || c->held) {
        lws_callback_on_writable(c->wsi);
        return 0;
    }
    if (c->closing)
        return c->close_code ? send_close(c) : 0;
    client_tell_drained(io, c);
    return 0;
}

/* --- reading --- */

static void announce(struct io *io, struct client *c)
{
    if (c->announced)
        return;
    c->announced = true;
    io->entered = true;
    gateway_established(io->gateway, client_id(c), io_now(io));
}

static void pass_frame(struct io *io, struct client *c, struct slice payload, bool text)
{
    io->entered = true;
    gateway_frame(io->gateway, client_id(c), payload, text, io_now(io));
}

static int on_message(struct io *io, struct client *c, struct slice payload, bool text)
{
    if (text && !utf8_valid(payload))
        return fail(io, c, 1007, "text is not UTF-8");
    pass_frame(io, c, payload, text);
    return 0;
}

/* A part of a message: at most RX_BUFFER_BYTES, at most to the end of its frame. */
static int on_receive(struct io *io, struct client *c, struct slice part)
{
    c->heard = true;
    if (c->closing || c->doomed)
        return 0;
    announce(io, c);
    if (c->closing || c->doomed)
        return 0;
    bool last = lws_is_final_fragment(c->wsi) && lws_remaining_packet_payload(c->wsi) == 0;
    size_t before = c->in ? c->in->bytes.size : 0;
    /* The library bounds neither messages nor the length that a frame may announce. */
    if (before + part.size > io->limits.message_bytes ||
        lws_remaining_packet_payload(c->wsi) > io->limits.message_bytes - before - part.size)
        return fail(io, c, 1009, "message too large");
    bool text = !lws_frame_is_binary(c->wsi);
    if (last && !c->in)
        return on_message(io, c, part, text);
    if (!c->in)
        c->in = mem_zalloc(sizeof *c->in);
    strbuf_put_slice(&c->in->bytes, part);
    if (!last)
        return 0;
    struct assembly *in = c->in;
    c->in = NULL;
    int result = on_message(io, c, strbuf_slice(&in->bytes), text);
    strbuf_free(&in->bytes);
    mem_free(in);
    return result;
}

/* The peer's Close: the library answers with the same bytes when this returns 0. */
static int on_peer_close(struct io *io, struct client *c, struct slice payload)
{
    if (c->closing)
        return 0;
    client_drop_queue(io, c);
    if (payload.size == 1)
        return fail(io, c, 1002, "malformed close");
    if (payload.size > 2 && !utf8_valid(slice_of(payload.data + 2, payload.size - 2)))
        return fail(io, c, 1007, "reason is not UTF-8");
    if (payload.size > 2)
        gateway_farewell(io->gateway, client_id(c), slice_of(payload.data + 2, payload.size - 2));
    c->closing = true;
    c->close_code = (uint16_t)(payload.size < 2 ? 1005 : payload.data[0] << 8 | payload.data[1]);
    client_timer(io, c, CLOSE_TIMEOUT_MS);
    return 0;
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
                    size_t size)
{
    (void)user;
    struct io *io = lws_context_user(lws_get_context(wsi));
    struct client *c = lws_get_opaque_user_data(wsi);
    switch (reason) {
    case LWS_CALLBACK_SERVER_NEW_CLIENT_INSTANTIATED:
        io->adopting->wsi = wsi;
        lws_set_opaque_user_data(wsi, io->adopting);
        return 0;
    case LWS_CALLBACK_ESTABLISHED:
        c->established = c->heard = true;
        return 0;
    case LWS_CALLBACK_RECEIVE:
        return on_receive(io, c, slice_of(in, size));
    case LWS_CALLBACK_RECEIVE_PONG:
        c->heard = true;
        return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return on_writeable(io, c);
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        return on_peer_close(io, c, slice_of(in, size));
    case LWS_CALLBACK_HTTP:
        return -1; /* the canonical head is an upgrade: this does not come */
    case LWS_CALLBACK_WSI_DESTROY:
        if (c && c->wsi == wsi) {
            c->wsi = NULL;
            client_end(io, c, c->closing && c->close_code ? c->close_code : 1006);
        }
        return 0;
    default:
        return 0;
    }
}

/* --- adoption --- */

#define PROTOCOL(name_)                                                           \
    {                                                                             \
        .name = (name_), .callback = on_event, .rx_buffer_size = RX_BUFFER_BYTES, \
        .tx_packet_size = TX_BYTES                                                \
    }

/* The first serves upgrades without a subprotocol; the others are echoed by name. */
static const struct lws_protocols protocols[] = {
    PROTOCOL("none"),
    PROTOCOL("stoa.v1"),
    {.name = NULL},
};

bool socket_speaks(const char *subprotocol)
{
    for (size_t i = 1; protocols[i].name; i++)
        if (subprotocol && strcmp(protocols[i].name, subprotocol) == 0)
            return true;
    return subprotocol == NULL;
}

static int64_t ping_interval(const struct client *c)
{
    return c->watched ? PING_WATCHED_INTERVAL_MS : PING_INTERVAL_MS;
}

/* It has just said what it wants to be watched for. */
void socket_watch(struct io *io, struct client *c)
{
    c->heard = true;
    client_timer(io, c, ping_interval(c));
}

void socket_adopt(struct io *io, struct client *c)
{
    uint64_t id = client_id(c);
    struct lws_vhost *vhost = lws_get_vhost_by_name(io->context, "default");
    strbuf_reset(&io->scratch);
    int fd = http_hand_on(io, c, &io->scratch);
    c->state = CLIENT_SOCKET;
    /* Sockets opened together do not ping together for ever. */
    int64_t interval = ping_interval(c);
    client_timer(io, c, interval - c->index * 2654435761u % (interval / 5));
    io->adopting = c;
    struct lws *wsi =
        lws_adopt_socket_vhost_readbuf(vhost, fd, (const char *)io->scratch.data, io->scratch.size);
    io->adopting = NULL;
    c = client_find(io, id);
    if (!c)
        return; /* the library gave it up, and said so */
    if (!wsi || !c->wsi) {
        LOG0(io->log, LOG_WARN, "gateway.adopt_failed");
        if (c->wsi)
            lws_set_opaque_user_data(c->wsi, NULL);
        c->wsi = NULL;
        client_end(io, c, 1006);
        return;
    }
    if (c->established)
        announce(io, c);
    if (c->closing && c->wsi)
        lws_callback_on_writable(c->wsi);
}

void socket_expired(struct io *io, struct client *c)
{
    if (c->closing || c->doomed || !(c->heard || c->paused) || !c->established) {
        socket_kill(io, c);
        return;
    }
    c->heard = false;
    client_timer(io, c, ping_interval(c));
    if (!c->first && can_write(c)) {
        put_raw(io, c, ping, sizeof ping);
        return;
    }
    struct buf *copy = buf_copy(ping, sizeof ping);
    client_push(io, c, copy, 0, sizeof ping);
    buf_unref(copy);
    lws_callback_on_writable(c->wsi);
}

/* --- life --- */

static struct log *library_log; /* the library's sink has no context argument */

/* All of it is for debugging: what peers cause has its place in the metrics, and the library calls
 * an ordinary adoption an error. */
static void on_library_log(int level, const char *line)
{
    (void)level;
    size_t size = strlen(line);
    while (size > 0 && line[size - 1] == '\n')
        size--;
    LOG(library_log, LOG_DEBUG, "gateway.library", LOG_SLICE("text", slice_of(line, size)));
}

int lws_start(struct io *io, const struct config *config, struct strbuf *why)
{
    static const lws_retry_bo_t no_pings = {.secs_since_valid_ping = 0,
                                            .secs_since_valid_hangup = 0};
    void *loops[] = {io->ev};
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN_SERVER,
        .protocols = protocols,
        .options = LWS_SERVER_OPTION_LIBEV | LWS_SERVER_OPTION_SKIP_SERVER_CANONICAL_NAME |
                   LWS_SERVER_OPTION_NO_LWS_SYSTEM_STATES,
        .foreign_loops = loops,
        .user = io,
        .vhost_name = "default",
        .gid = (gid_t)-1,
        .uid = (uid_t)-1,
        .count_threads = 1,
        .pt_serv_buf_size = 4096,
        .max_http_header_data = 1024, /* only the canonical head is parsed */
        .max_http_header_pool = 64,
        .timeout_secs = 5,
        .retry_and_idle_policy = &no_pings,
    };
    (void)config;
    library_log = io->log;
    lws_set_log_level(LLL_ERR | LLL_WARN, on_library_log);
    io->context = lws_create_context(&info);
    if (!io->context) {
        strbuf_put_text(why, "libwebsockets did not start; is libwebsockets-evlib-ev installed?");
        return ERR_IO;
    }
    STOA_ASSERT(lws_get_count_threads(io->context) == 1);
    return ERR_OK;
}

void lws_stop(struct io *io)
{
    if (!io->context)
        return;
    lws_context_destroy(io->context);
    /* With a foreign loop the library may finish in the loop's own time. */
    for (int i = 0; i < 100 && io->n_clients > 0; i++)
        ev_run(io->ev, EVRUN_NOWAIT);
    io->context = NULL;
}
