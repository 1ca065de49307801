/* SHELL. A raw WebSocket subscriber for stoa bench: opens blocking, reads without blocking. Plain
 * http only. */
#ifndef STOA_CLIENT_CLI_SOCKET_H
#define STOA_CLIENT_CLI_SOCKET_H

#include "client/cli/cli.h"

#define SOCKET_BUFFER_BYTES (256 * 1024)

struct bench_socket {
    int fd;
    struct strbuf part; /* an unfinished frame */
};

/* Opens ws://.../events?key=KEY at the server; false after telling why. */
bool socket_open(const struct cli *cli, const char *key, struct bench_socket *s);
/* Reads what there is and gives each message to `on_message`; false: the connection ended.
 * `scratch` has SOCKET_BUFFER_BYTES. */
bool socket_read(struct bench_socket *s, uint8_t *scratch,
                 void (*on_message)(void *ctx, struct slice payload), void *ctx);
void socket_close(struct bench_socket *s);

#endif
