/* SHELL. The gateway's side of its clients, as main.c sees it: listens, reads HTTP, hands upgrades
 * to libwebsockets, and carries out what the core says through its ports. Everything runs on the
 * program's own libev loop; one thread.
 *
 *   io_accept.c   listening socket, accept, limits at the door
 *   io_client.c   table of clients, queues of what is not written yet, timers, deferred work
 *   io_http.c     HTTP connections and event streams on their own descriptors
 *   io_lws.c      WebSockets: the only file with libwebsockets.h
 *   io_limits.c   trusted proxies, counts and rates per address
 *
 * Order of calls: io_create, gateway_create with io_ports, io_attach, io_listen; io_turn once per
 * turn of the loop; at the end io_destroy, then gateway_destroy. */
#ifndef STOA_GATEWAY_IO_H
#define STOA_GATEWAY_IO_H

#include "common/config.h"
#include "common/metrics.h"
#include "common/shell/loop.h"
#include "gateway/gateway.h"

struct io;

/* `config` is read during the call only. NULL: `why` has the reason. */
struct io *io_create(struct loop *loop, const struct config *config, struct log *log,
                     struct metrics *metrics, struct strbuf *why);
void io_destroy(struct io **io);
struct gateway_ports io_ports(struct io *io);
void io_attach(struct io *io, struct gateway *gateway);
/* Listens on "host:port" (port 0: any); `bound` receives the address in force. */
MUST_USE int io_listen(struct io *io, const char *address, struct strbuf *bound,
                       struct strbuf *why);
/* Whether every address that "host:port" stands for is loopback. */
bool io_is_loopback(const char *address);
/* New limits after a reload; existing connections stay. */
void io_relimit(struct io *io, const struct config *config);
/* Runs the core and everything that was put off; returns the next deadline. */
int64_t io_turn(struct io *io, struct tick now);
/* From now on every answer closes its connection, and idle connections are closed. */
void io_drain(struct io *io);
/* Nothing is left to write to anybody. */
bool io_quiet(const struct io *io);
void io_stop_listening(struct io *io);
/* Descriptors this configuration needs: main.c sets the limit of the process to that. */
uint64_t io_descriptors(const struct config *config);

#endif
