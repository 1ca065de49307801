/* SHELL. What the io_* files share: a client and its life.
 *
 *   READING --whole request--> WAITING --respond--> READING (or LINGERING, or gone)
 *                                 |--stream--> STREAMING --> gone
 *                                 '--upgrade--> ADOPTING --> SOCKET --> gone
 *
 * A client is a number to the core: index in the table and generation. Ports are called by the core
 * in the middle of its work, so they only write, queue and mark; whatever would call the core again
 * (a connection that ended, the next pipelined request, an adoption) is put on the list of work and
 * done after. */
#ifndef STOA_GATEWAY_IO_CLIENT_H
#define STOA_GATEWAY_IO_CLIENT_H

#include <netinet/in.h>

#include "common/heap.h"
#include "common/limits.h"
#include "common/list.h"
#include "common/mem.h"
#include "gateway/http.h"
#include "gateway/io.h"

#define READ_CHUNK_BYTES (64 * KIB)
#define BACKLOG_MAX_BYTES (64 * KIB) /* pipelined bytes kept while an answer is due */
#define GATHER_MAX_BYTES (64 * KIB)  /* small pieces joined for one write */
#define WRITE_TURN_BYTES                                                                     \
    (512 * KIB)                 /* to one WebSocket per callback, then others get their turn \
                                 */
#define CLIENTS_RESERVE 128     /* above limits.sockets, to tell newcomers so */
#define DESCRIPTORS_RESERVE 128 /* for everything that is not a client */
#define LINGER_MS 3000
#define CLOSE_TIMEOUT_MS 10000 /* for a close that waits for what is queued */
#define READERS_KEPT 64
#define PIECES_KEPT 4096

enum client_state {
    CLIENT_FREE,
    CLIENT_READING,   /* HTTP: between requests, or in one */
    CLIENT_WAITING,   /* HTTP: the core has a request */
    CLIENT_STREAMING, /* HTTP: an event stream */
    CLIENT_LINGERING, /* HTTP: answered and shut down; what still comes is thrown away */
    CLIENT_ADOPTING,  /* to be handed to libwebsockets */
    CLIENT_SOCKET,    /* a WebSocket */
};

struct piece { /* part of a buf that is not written yet; holds a ref */
    struct piece *next;
    struct buf *buf;
    size_t offset;
    size_t size;
};

struct assembly { /* a WebSocket message that comes in fragments */
    struct strbuf bytes;
};

struct http_conn; /* io_http.c */
struct ip_entry;  /* io_limits.c */
struct lws;

struct client {
    uint32_t index;
    uint32_t generation; /* never 0 while in use */
    uint8_t state;
    bool known : 1;        /* the core was told of it: gateway_closed is due */
    bool owes_drained : 1; /* the core was told of a queue: gateway_drained is due */
    bool doomed : 1;       /* dropped with the next work */
    bool closing : 1;      /* nothing more is written after what is queued */
    bool held : 1;         /* libwebsockets keeps the rest of a write */
    bool heard : 1;        /* something came since the last ping */
    bool watched : 1;      /* pinged more often */
    bool established : 1;
    bool announced : 1;  /* gateway_established was called */
    bool paused : 1;     /* a WebSocket that is not read: the core takes no more of it */
    uint16_t close_code; /* ours to send, then what gateway_closed will say */
    uint32_t held_bytes;
    struct heap_node timer;
    struct list work; /* in io->work */
    struct piece *first;
    struct piece *last;
    size_t queued;          /* bytes in pieces */
    struct ip_entry *ip;    /* holds one of its sockets */
    struct http_conn *http; /* until adopted */
    struct lws *wsi;
    struct assembly *in; /* NULL between messages */
    char *close_reason;  /* NUL-terminated; NULL: none */
};

struct limits {
    uint64_t message_bytes;
    size_t body_bytes;
    uint64_t sockets;
    uint64_t sockets_per_ip;
    double connection_rate;
};

struct io {
    struct loop *loop;
    struct ev_loop *ev;
    struct gateway *gateway;
    struct log *log;
    struct limits limits;
    struct ips *ips;
    bool draining;
    bool entered; /* the core was called since gateway_turn */

    struct client **chunks; /* clients, in blocks that never move */
    size_t n_chunks;
    uint32_t *free_indexes;
    size_t n_free;
    size_t n_clients;
    size_t n_queued; /* clients with something queued */
    struct list work;
    struct heap timers;

    struct acceptor *acceptor;
    struct lws_context *context; /* io_lws.c */
    struct client *adopting;
    struct http_reader *readers[READERS_KEPT];
    size_t n_readers;
    struct piece *pieces; /* kept for reuse */
    size_t n_pieces;
    struct strbuf scratch; /* one answer's bytes */
    uint8_t *gather;       /* GATHER_MAX_BYTES */
    uint8_t *chunk;        /* READ_CHUNK_BYTES */
    struct metric *accepted;
    struct metric *connections;
};

/* For calls that take a pointer to bytes which they do not change. */
static inline void *unconst(const uint8_t *bytes)
{
    union {
        const uint8_t *from;
        void *to;
    } both = {bytes};
    return both.to;
}

/* io_client.c */
struct client *client_create(struct io *io);
struct client *client_find(const struct io *io, uint64_t id); /* NULL: gone */
static inline uint64_t client_id(const struct client *c)
{
    return (uint64_t)c->generation << 32 | c->index;
}
/* The end: tells the core and frees. Never within a call of the core. */
void client_end(struct io *io, struct client *c, unsigned code);
/* Safe anywhere: client_end happens with the next work. */
void client_doom(struct io *io, struct client *c);
void client_work(struct io *io, struct client *c); /* puts it on the list */
void client_timer(struct io *io, struct client *c, int64_t ms);
void client_push(struct io *io, struct client *c, struct buf *buf, size_t offset, size_t size);
void client_shift(struct io *io, struct client *c, size_t bytes); /* written: off the front */
void client_drop_queue(struct io *io, struct client *c);
/* The queue is empty: tells the core if it waits for that. Never within a call of the core. */
void client_tell_drained(struct io *io, struct client *c);
static inline struct tick io_now(const struct io *io)
{
    return loop_now(io->loop);
}

/* io_accept.c */
void accept_stop(struct io *io);
void accept_resume(struct io *io, int64_t mono_ns);
int64_t accept_deadline(const struct io *io);

/* io_http.c */
void http_start(struct io *io, int fd, const struct in6_addr *address, bool crowded);
void http_work(struct io *io, struct client *c);
void http_expired(struct io *io, struct client *c);
void http_respond(struct io *io, struct client *c, const struct http_response *response);
void http_stream(struct io *io, struct client *c, const struct http_response *head);
size_t http_write(struct io *io, struct client *c, struct buf *bytes, size_t offset, size_t size);
void http_close(struct io *io, struct client *c);
void http_upgrade(struct io *io, struct client *c, const char *subprotocol);
void http_drain(struct io *io, struct client *c);
void http_free(struct io *io, struct client *c); /* with its descriptor, unless handed on */
/* Takes descriptor and first bytes (canonical head and what came behind it) out of the client. */
int http_hand_on(struct io *io, struct client *c, struct strbuf *bytes);

/* io_lws.c */
MUST_USE int lws_start(struct io *io, const struct config *config, struct strbuf *why);
void lws_stop(struct io *io);
bool socket_speaks(const char *subprotocol);
void socket_adopt(struct io *io, struct client *c);
size_t socket_write(struct io *io, struct client *c, struct buf *bytes, size_t offset, size_t size);
void socket_close(struct io *io, struct client *c, unsigned code, struct slice reason);
void socket_kill(struct io *io, struct client *c);
void socket_pause(struct client *c, bool paused);
void socket_watch(struct io *io, struct client *c); /* established, and watched since now */
void socket_expired(struct io *io, struct client *c);

/* io_limits.c */
struct ips *ips_create(const struct config *config);
void ips_destroy(struct ips **ips);
void ips_configure(struct ips *ips, const struct config *config);
bool ips_trusts(const struct ips *ips, const struct in6_addr *address);
/* The client behind trusted proxies: the last address of X-Forwarded-For that is not one of them.
 */
void ips_forwarded(const struct ips *ips, const struct http_request *request,
                   struct in6_addr *address);
void ip_text(const struct in6_addr *address, char out[INET6_ADDRSTRLEN]);
/* Counts one more connection of the address. NULL: over a limit. */
struct ip_entry *ip_enter(struct ips *ips, const struct in6_addr *address,
                          const struct limits *limits, int64_t mono_ns);
bool ip_is(const struct ip_entry *entry, const struct in6_addr *address);
void ip_leave(struct ips *ips, struct ip_entry *entry); /* NULL is fine */

#endif
