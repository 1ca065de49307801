/* SHELL (reads a file and the environment). One YAML file for every program, everything optional.
 * Values come from flags over environment over file over default, and remember where they came
 * from. Unknown or ill-typed fields are refused with file, line and path ("stoa.yaml:14:
 * types.chat.retension: unknown field, did you mean "retention"?"). The table in config_table.c is
 * the only list of fields: it drives parsing, environment names, `stoa config default`, `stoa
 * config show` and docs. */
#ifndef STOA_COMMON_CONFIG_H
#define STOA_COMMON_CONFIG_H

#include "common/err.h"
#include "common/strbuf.h"

#define CONFIG_TYPES_MAX 64
#define CONFIG_LIST_MAX 256

struct config_list {
    size_t count;
    char **at; /* NULL-terminated as well */
};

struct config_type { /* types.<name> */
    char *name;
    int64_t age_ms; /* retention.age, default 1h */
    uint64_t count; /* retention.count, default 10000 */
    uint64_t bytes; /* retention.bytes, default 16MiB */
    char *handler;  /* path of a .lua or .so file, "events" or NULL: a log without code */
    /* What is said here wins over what the handler's file says; NULL and 0: nothing is said. */
    char *on_duplicate; /* "allow", "replace", "reject" */
    unsigned max_connections;
    uint64_t max_connection_state; /* bytes */
    struct {
        char *state, *connection, *event, *broadcast;
    } schemas;                         /* JSON Schema files; NULL: everything fits */
    struct config_list headers;        /* that the handler's identify sees besides the usual ones */
    double rate_connection, rate_room; /* a second; 0: no limit */
    char *rate_over;                   /* "close", "drop" */
    bool presence;                     /* its rooms tell who is there */
};

struct config_peer { /* cluster.peers[]: who may be what; several of a key add up */
    char *key;       /* CURVE public key; has a _file twin */
    char *role;      /* "publisher", "gateway", "router", "shard" */
    char *name;      /* as the peer calls itself in its HELLO; NULL: any */
};

struct config_auth_key { /* auth.keys[]: what signs tokens */
    char *kid;           /* by which tokens name it; NULL: none */
    char *alg;           /* "HS256", "RS256", "ES256" */
    char *secret;        /* HS256; has a _file twin; masked */
    char *public_key;    /* the others: PEM, of a public or a private key; as above */
};

struct config_route { /* routes[]: parsed, checked */
    char *path, *key;
    char *dialect;            /* "raw", "uploadista", "orpc" */
    char *replay;             /* NULL: not said */
    char *signing_key;        /* orpc; NULL: not said; masked */
    int64_t retry_ms;         /* orpc */
    struct config_list types; /* that it serves; none: events */
};

struct config {
    struct {
        char *name;                 /* "stoa" */
        uint64_t seed;              /* slot hash seed; default 0: derived from the name */
        struct config_list routers; /* endpoints as dialed by others */
        struct config_list shards;
        struct {
            /* public_key and server_key are derived when a secret_key is given without them. */
            char *public_key, *secret_key, *server_key; /* each with _file twin; secret masked */
            struct config_list allowed;                 /* besides its own and the server's */
            bool required;
        } curve;
        struct config_peer peers[CONFIG_LIST_MAX]; /* instead of curve.allowed */
        size_t n_peers;
    } cluster;
    struct {
        char *listen;         /* publishers (L1); gateways connect to listen_gateway */
        char *listen_gateway; /* L2 */
        unsigned index;
    } router;
    struct {
        char *listen;          /* "0.0.0.0:7200" */
        unsigned index;        /* place in cluster.shards, from 0 */
        char *slots;           /* "LO-HI"; default: an even share by index */
        char *data_dir;        /* "data/shard-<index>" when NULL */
        char *sync;            /* "full" only, for now */
        uint64_t disk_reserve; /* bytes, 256MiB */
        uint64_t map_size;     /* bytes, 0: automatic */
    } shard;
    struct {
        char *listen; /* "127.0.0.1:8080" */
        struct config_list origins;
        bool origins_set;
        struct config_list trusted_proxies;
        char *page; /* HTML file served at GET / */
        struct {
            uint64_t message;         /* 512KiB */
            uint64_t sockets;         /* 100000 */
            uint64_t sockets_per_ip;  /* 0: no limit */
            uint64_t keys_per_socket; /* 1000 */
            double connection_rate;   /* per second and ip; "50/s"; 0: no limit */
        } limits;
    } gateway;
    struct {
        char *listen; /* NULL: by role */
    } monitor;
    struct {
        char *mode;         /* "none", "token"; NULL: not configured */
        char *iss, *aud;    /* what tokens must say; NULL: anything */
        int64_t max_ttl_ms; /* longer lived tokens are refused; 7d */
        struct config_auth_key keys[CONFIG_LIST_MAX];
        size_t n_keys;
    } auth;
    struct {
        char *format; /* "text", "json" */
        char *level;  /* "info" */
    } log;
    struct config_type types[CONFIG_TYPES_MAX];
    size_t n_types; /* types[0] is always "events" */
    struct config_route routes[CONFIG_LIST_MAX];
    size_t n_routes;
    void *origin_; /* where each value came from; private */
};

/* Loads. `path` NULL: $STOA_CONFIG, else ./stoa.yaml if it exists, else none. `overrides`:
 * NULL-terminated array of "dotted.path=value" from flags. On ERR_INVALID or ERR_IO `why` has one
 * line per problem. The result is owned by the caller (config_free) either way. */
MUST_USE int config_load(struct config *out, const char *path, const char *const *overrides,
                         struct strbuf *why);
void config_free(struct config *c);
/* Whether rooms of this type run code. */
bool config_type_has_handler(const struct config_type *type);
/* The slot seed in force (cluster.seed or derived from the name) and the cluster's id. */
uint64_t config_slot_seed(const struct config *c);
uint64_t config_cluster_id(const struct config *c);
/* The endpoint of gateways (L2) for a cluster.routers entry (L1): port + 1, or "<ipc
 * path>.gateway". */
void config_router_gateway_endpoint(const char *router, struct strbuf *out);
/* All fields with defaults, commented YAML / effective values with their source, secrets masked
 * (text or one JSON object) / dotted paths whose values differ, one a line. */
void config_print_default(struct strbuf *out);
void config_print(const struct config *c, bool json, struct strbuf *out);
void config_diff(const struct config *before, const struct config *after, struct strbuf *out);
/* "250ms", "30s", "5m", "1h", "7d", bare number: seconds. / "512KiB", "64MiB", "2GiB", bare: bytes.
 */
MUST_USE int config_duration(const char *text, int64_t *ms);
MUST_USE int config_size(const char *text, uint64_t *bytes);

#endif
