/* SHELL. The table of clients and what all of them have: queues, timers, deferred work; and the
 * ports of the core, which find the client and pass on to io_http.c or io_lws.c.
 *
 * Clients lie in blocks that never move, because timers and lists point into them. One heap holds
 * all timers, so that a connection costs no watcher of its own for time. */
#include "gateway/io_client.h"

#include <stdlib.h>
#include <sys/resource.h>

#define CHUNK_CLIENTS 256

/* --- table --- */

static void table_grow(struct io *io)
{
    struct client *chunk = mem_zalloc(CHUNK_CLIENTS * sizeof *chunk);
    size_t first = io->n_chunks * CHUNK_CLIENTS;
    io->chunks = mem_realloc(io->chunks, (io->n_chunks + 1) * sizeof(struct client *));
    io->chunks[io->n_chunks++] = chunk;
    io->free_indexes =
        mem_realloc(io->free_indexes, (first + CHUNK_CLIENTS) * sizeof *io->free_indexes);
    for (size_t i = CHUNK_CLIENTS; i-- > 0;) {
        chunk[i].index = (uint32_t)(first + i);
        io->free_indexes[io->n_free++] = chunk[i].index;
    }
}

static struct client *client_at(const struct io *io, uint32_t index)
{
    return &io->chunks[index / CHUNK_CLIENTS][index % CHUNK_CLIENTS];
}

struct client *client_create(struct io *io)
{
    if (io->n_free == 0)
        table_grow(io);
    struct client *c = client_at(io, io->free_indexes[--io->n_free]);
    uint32_t generation = c->generation + 1;
    *c = (struct client){.index = c->index, .generation = generation ? generation : 1};
    c->state = CLIENT_READING;
    list_init(&c->work);
    io->n_clients++;
    metric_set(io->connections, (double)io->n_clients);
    return c;
}

struct client *client_find(const struct io *io, uint64_t id)
{
    uint32_t index = (uint32_t)id;
    if (index >= io->n_chunks * CHUNK_CLIENTS)
        return NULL;
    struct client *c = client_at(io, index);
    return c->state != CLIENT_FREE && c->generation == id >> 32 ? c : NULL;
}

void client_end(struct io *io, struct client *c, unsigned code)
{
    uint64_t id = client_id(c);
    bool known = c->known;
    client_drop_queue(io, c);
    heap_remove(&io->timers, &c->timer);
    if (!list_empty(&c->work))
        list_remove(&c->work);
    ip_leave(io->ips, c->ip);
    http_free(io, c);
    if (c->in)
        strbuf_free(&c->in->bytes);
    mem_free(c->in);
    mem_free(c->close_reason);
    c->state = CLIENT_FREE;
    io->free_indexes[io->n_free++] = c->index;
    io->n_clients--;
    metric_set(io->connections, (double)io->n_clients);
    if (known) {
        io->entered = true;
        gateway_closed(io->gateway, id, code, io_now(io));
    }
}

void client_doom(struct io *io, struct client *c)
{
    c->doomed = true;
    client_work(io, c);
}

void client_work(struct io *io, struct client *c)
{
    if (list_empty(&c->work))
        list_push_back(&io->work, &c->work);
}

void client_timer(struct io *io, struct client *c, int64_t ms)
{
    heap_set(&io->timers, &c->timer, io_now(io).mono_ns + ms * NS_PER_MS);
}

/* --- queues --- */

void client_push(struct io *io, struct client *c, struct buf *buf, size_t offset, size_t size)
{
    struct piece *p = io->pieces;
    if (p) {
        io->pieces = p->next;
        io->n_pieces--;
    } else {
        p = mem_alloc(sizeof *p);
    }
    *p = (struct piece){NULL, buf_ref(buf), offset, size};
    if (c->last)
        c->last->next = p;
    else {
        c->first = p;
        io->n_queued++;
    }
    c->last = p;
    c->queued += size;
}

static void shift_piece(struct io *io, struct client *c)
{
    struct piece *p = c->first;
    c->first = p->next;
    if (!c->first) {
        c->last = NULL;
        io->n_queued--;
    }
    c->queued -= p->size;
    buf_unref(p->buf);
    if (io->n_pieces < PIECES_KEPT) {
        p->next = io->pieces;
        io->pieces = p;
        io->n_pieces++;
    } else {
        mem_free(p);
    }
}

void client_shift(struct io *io, struct client *c, size_t bytes)
{
    while (bytes > 0) {
        struct piece *p = c->first;
        STOA_ASSERT(p);
        if (bytes < p->size) {
            p->offset += bytes;
            p->size -= bytes;
            c->queued -= bytes;
            return;
        }
        bytes -= p->size;
        shift_piece(io, c);
    }
}

void client_drop_queue(struct io *io, struct client *c)
{
    while (c->first)
        shift_piece(io, c);
}

void client_tell_drained(struct io *io, struct client *c)
{
    if (!c->owes_drained || c->closing || c->doomed)
        return;
    c->owes_drained = false;
    io->entered = true;
    gateway_drained(io->gateway, client_id(c), io_now(io));
}

/* --- ports --- */

static void port_respond(void *ctx, uint64_t id, const struct http_response *response)
{
    struct io *io = ctx;
    struct client *c = client_find(io, id);
    if (c && c->state == CLIENT_WAITING && !c->doomed)
        http_respond(io, c, response);
}

static void port_stream(void *ctx, uint64_t id, const struct http_response *head)
{
    struct io *io = ctx;
    struct client *c = client_find(io, id);
    if (c && c->state == CLIENT_WAITING && !c->doomed)
        http_stream(io, c, head);
}

static void port_upgrade(void *ctx, uint64_t id, const char *subprotocol)
{
    struct io *io = ctx;
    struct client *c = client_find(io, id);
    if (c && c->state == CLIENT_WAITING && !c->doomed)
        http_upgrade(io, c, subprotocol);
}

static size_t port_write(void *ctx, uint64_t id, struct buf *bytes, size_t offset, size_t size)
{
    struct io *io = ctx;
    struct client *c = client_find(io, id);
    if (!c || c->doomed || c->closing || size == 0)
        return 0;
    if (c->state == CLIENT_SOCKET)
        return socket_write(io, c, bytes, offset, size);
    if (c->state == CLIENT_STREAMING)
        return http_write(io, c, bytes, offset, size);
    return 0;
}

static void port_close(void *ctx, uint64_t id, unsigned code, struct slice reason)
{
    struct io *io = ctx;
    struct client *c = client_find(io, id);
    if (!c || c->doomed)
        return;
    if (code == 0 || c->state == CLIENT_WAITING)
        client_doom(io, c);
    else if (c->state == CLIENT_SOCKET || c->state == CLIENT_ADOPTING)
        socket_close(io, c, code, reason);
    else
        http_close(io, c);
}

static void port_pause(void *ctx, uint64_t id, bool paused)
{
    struct io *io = ctx;
    struct client *c = client_find(io, id);
    if (c && c->state == CLIENT_SOCKET && c->wsi && !c->doomed && !c->closing)
        socket_pause(c, paused);
}

static void port_watch(void *ctx, uint64_t id)
{
    struct io *io = ctx;
    struct client *c = client_find(io, id);
    if (!c || c->watched || c->doomed || c->closing)
        return;
    c->watched = true;
    if (c->state == CLIENT_SOCKET && c->established)
        socket_watch(io, c);
}

struct gateway_ports io_ports(struct io *io)
{
    return (struct gateway_ports){
        .ctx = io,
        .respond = port_respond,
        .stream = port_stream,
        .upgrade = port_upgrade,
        .write = port_write,
        .close = port_close,
        .pause = port_pause,
        .watch = port_watch,
    };
}

/* --- turns --- */

static void work_one(struct io *io, struct client *c)
{
    if (c->doomed && c->wsi)
        socket_kill(io, c);
    else if (c->doomed)
        client_end(io, c, 1006);
    else if (c->state == CLIENT_ADOPTING && !c->first)
        socket_adopt(io, c);
    else if (c->http)
        http_work(io, c);
}

/* What was put off; what that puts off in turn waits for the next pass. */
static void run_work(struct io *io)
{
    struct list now;
    if (list_empty(&io->work))
        return;
    now = io->work;
    now.next->prev = now.prev->next = &now;
    list_init(&io->work);
    while (!list_empty(&now)) {
        struct client *c = LIST_ENTRY(now.next, struct client, work);
        list_remove(&c->work);
        work_one(io, c);
    }
}

static void run_timers(struct io *io, struct tick now)
{
    struct heap_node *node;
    while ((node = heap_pop_due(&io->timers, now.mono_ns)) != NULL) {
        struct client *c = LIST_ENTRY(node, struct client, timer);
        if (c->state == CLIENT_SOCKET)
            socket_expired(io, c);
        else if (c->state == CLIENT_ADOPTING)
            client_end(io, c, 1006);
        else
            http_expired(io, c);
    }
}

int64_t io_turn(struct io *io, struct tick now)
{
    accept_resume(io, now.mono_ns);
    run_timers(io, now);
    run_work(io);
    io->entered = false;
    gateway_turn(io->gateway, now);
    run_work(io);
    if (io->entered || !list_empty(&io->work))
        return now.mono_ns;
    int64_t due = gateway_deadline(io->gateway);
    int64_t timer = heap_next(&io->timers);
    int64_t door = accept_deadline(io);
    due = due < timer ? due : timer;
    return due < door ? due : door;
}

/* --- life --- */

static void set_limits(struct io *io, const struct config *config)
{
    io->limits = (struct limits){
        .message_bytes = config->gateway.limits.message,
        /* A batch may be larger than a message; the core judges both exactly. */
        .body_bytes = BATCH_MAX_BYTES + BATCH_MAX_EVENTS * 2,
        .sockets = config->gateway.limits.sockets,
        .sockets_per_ip = config->gateway.limits.sockets_per_ip,
        .connection_rate = config->gateway.limits.connection_rate,
    };
    if (io->limits.body_bytes < io->limits.message_bytes)
        io->limits.body_bytes = io->limits.message_bytes;
    struct rlimit files;
    uint64_t reserve = CLIENTS_RESERVE + DESCRIPTORS_RESERVE;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= io->limits.sockets + reserve)
        return;
    io->limits.sockets = files.rlim_cur > 2 * reserve ? files.rlim_cur - reserve : reserve;
    LOG(io->log, LOG_INFO, "gateway.descriptors", LOG_U64("allowed", files.rlim_cur),
        LOG_U64("sockets", io->limits.sockets));
}

struct io *io_create(struct loop *loop, const struct config *config, struct log *log,
                     struct metrics *metrics, struct strbuf *why)
{
    struct io *io = mem_zalloc(sizeof *io);
    io->loop = loop;
    io->ev = loop_ev(loop);
    io->log = log;
    list_init(&io->work);
    set_limits(io, config);
    io->ips = ips_create(config);
    io->gather = mem_alloc(GATHER_MAX_BYTES);
    io->chunk = mem_alloc(READ_CHUNK_BYTES);
    io->accepted =
        metrics_counter(metrics, "stoa_connections_accepted_total", "", "Connections accepted");
    io->connections =
        metrics_gauge(metrics, "stoa_connections", "", "Connections of clients, of any kind");
    if (lws_start(io, config, why) != ERR_OK)
        io_destroy(&io);
    return io;
}

void io_attach(struct io *io, struct gateway *gateway)
{
    io->gateway = gateway;
}

void io_relimit(struct io *io, const struct config *config)
{
    set_limits(io, config);
    ips_configure(io->ips, config);
}

void io_drain(struct io *io)
{
    io->draining = true;
    for (uint32_t i = 0; i < io->n_chunks * CHUNK_CLIENTS; i++) {
        struct client *c = client_at(io, i);
        if (c->state != CLIENT_FREE && c->http)
            http_drain(io, c);
    }
}

bool io_quiet(const struct io *io)
{
    return io->n_queued == 0 && list_empty(&io->work);
}

uint64_t io_descriptors(const struct config *config)
{
    return config->gateway.limits.sockets + CLIENTS_RESERVE + DESCRIPTORS_RESERVE;
}

void io_destroy(struct io **iop)
{
    struct io *io = *iop;
    if (!io)
        return;
    io_stop_listening(io);
    for (uint32_t i = 0; i < io->n_chunks * CHUNK_CLIENTS; i++) {
        struct client *c = client_at(io, i);
        if (c->state != CLIENT_FREE && !c->wsi)
            client_end(io, c, 1006);
    }
    lws_stop(io); /* ends the WebSockets that are left */
    STOA_ASSERT(io->n_clients == 0);
    for (size_t i = 0; i < io->n_chunks; i++)
        mem_free(io->chunks[i]);
    mem_free(io->chunks);
    mem_free(io->free_indexes);
    heap_free(&io->timers);
    while (io->pieces) {
        struct piece *p = io->pieces;
        io->pieces = p->next;
        mem_free(p);
    }
    while (io->n_readers > 0)
        http_reader_destroy(&io->readers[--io->n_readers]);
    ips_destroy(&io->ips);
    strbuf_free(&io->scratch);
    mem_free(io->gather);
    mem_free(io->chunk);
    mem_free(io);
    *iop = NULL;
}
