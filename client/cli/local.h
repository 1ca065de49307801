/* SHELL. A local cluster's folder: where things lie, and what is written there for other commands.
 *
 *   DATA/run/            0700: sockets of the links, `lock` (held by the supervisor, its pid
 * inside), cluster.json (what runs where) DATA/logs/NAME.log   output of each process DATA/shard-N/
 * a shard's data DATA/shards          number of shards that this data was made with
 */
#ifndef STOA_CLIENT_CLI_LOCAL_H
#define STOA_CLIENT_CLI_LOCAL_H

#include <limits.h>
#include <sys/types.h>

#include "client/cli/cli.h"

#define LOCAL_PROCESSES_MAX 64

struct process {
    char name[32];
    char *argv[32];   /* owned; NULL-terminated */
    char listen[64];  /* gateways: host:port; else empty */
    char monitor[32]; /* host:port; empty: none (extra programs) */
    bool ready;       /* was ready once since its last start */
    pid_t pid;        /* 0: not running */
    int64_t again_ms; /* when to start it, 0: it runs */
    int64_t pause_ms; /* next pause before a restart */
    int64_t started_ms;
    unsigned refusals; /* ended by itself before it was ready, in a row */
};

struct local {
    const struct cli *cli;
    char data[4096]; /* absolute */
    int lock;        /* -1: not held */
    unsigned shards, gateways, routers;
    const char *page;
    char host[48]; /* of the first gateway, with its port */
    unsigned port;
    bool tokens; /* auth.mode is token */
    const char *extra[8];
    size_t n_extra;
    struct process processes[LOCAL_PROCESSES_MAX];
    size_t n_processes;
};

int64_t local_now_ms(void);
/* Reads the options of a command about a running cluster: --data, and -f where `follow` is given.
 * Returns an exit code. */
int local_data_option(struct cli *cli, int argc, char **argv, struct local *l, bool *follow);
/* Sets `data` from a path (made absolute); false after telling why. */
bool local_locate(struct local *l, const char *data);
/* Makes the folders and takes the lock; false after telling why. */
bool local_claim(struct local *l);
/* Checks and notes the number of shards. */
bool local_check_shards(struct local *l);
/* The supervisor's pid, 0 when none runs. */
pid_t local_supervisor(const struct local *l);
/* Takes in HOST:PORT of the first gateway; false after telling what is wrong with it. */
bool local_listen(struct local *l, const char *address);
/* The path of a program that lies beside this one; false after telling that it is missing. */
bool local_program(const struct cli *cli, const char *program, char out[PATH_MAX]);
/* Fills `processes`: commands, ports, endpoints. */
bool local_plan(struct local *l);
bool local_note(const struct local *l); /* writes cluster.json */
void local_free(struct local *l);
/* Runs until told to stop; `ready_fd` gets one byte when everything is ready ('+') or cannot be
 * ('-'). */
int local_supervise(struct local *l, int ready_fd);

#endif
