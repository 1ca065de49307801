/* SHELL (pure, but config.h is a shell header). The only list of configuration fields: parsing,
 * environment names, `stoa config default` and `stoa config show` follow it. Bounds come from
 * limits.h. */
#include "common/config_internal.h"

#include "common/limits.h"

#define AT(member) .offset = offsetof(struct config, member)
#define IN_TYPE(member) .offset = offsetof(struct config_type, member)
#define IN_PEER(member) .offset = offsetof(struct config_peer, member)
#define IN_KEY(member) .offset = offsetof(struct config_auth_key, member)
#define IN_ROUTE(member) .offset = offsetof(struct config_route, member)

#define AGE_MAX_MS (INT64_C(3650) * 24 * 3600 * 1000)
#define RATE_MAX 1000000 /* a second */
#define STORE_MAX_BYTES (UINT64_C(1) << 46)

/* clang-format off */
const struct field config_fields[] = {
    {"cluster.name", FIELD_TEXT, AT(cluster.name), "stoa", "processes of another cluster are refused", NULL, NULL, 0, 0, false, false},
    {"cluster.seed", FIELD_NUMBER, AT(cluster.seed), "0", "seed of the hash from key to slot; 0: from the name; never changes once there is data", NULL, NULL, 0, 0, false, false},
    {"cluster.routers", FIELD_ENDPOINTS, AT(cluster.routers), "127.0.0.1:7100", "where publishers reach each router; gateways use the next port", NULL, NULL, 0, 0, false, false},
    {"cluster.shards", FIELD_ENDPOINTS, AT(cluster.shards), "127.0.0.1:7200", "every shard, in the order of shard.index", NULL, NULL, 0, 0, false, false},
    {"cluster.curve.secret", FIELD_KEY, AT(cluster.curve.secret_key), NULL, "this process's CURVE secret key (stoa keygen FILE)", NULL, NULL, 0, 0, true, false},
    {"cluster.curve.public", FIELD_KEY, AT(cluster.curve.public_key), NULL, "its public key; default: derived from the secret", NULL, NULL, 0, 0, false, false},
    {"cluster.curve.server", FIELD_KEY, AT(cluster.curve.server_key), NULL, "public key of routers and shards; default: this process's own (one key pair for all)", NULL, NULL, 0, 0, false, false},
    {"cluster.curve.allowed", FIELD_KEYS, AT(cluster.curve.allowed), NULL, "public keys that may connect besides its own and the server's", NULL, NULL, 0, 0, false, false},
    {"cluster.curve.required", FIELD_BOOL, AT(cluster.curve.required), "false", "refuse tcp links without a key", NULL, NULL, 0, 0, false, false},
    {"cluster.peers.*.key", FIELD_KEY, IN_PEER(key), NULL, "public key of the peer", NULL, NULL, 0, 0, false, false},
    {"cluster.peers.*.role", FIELD_TEXT, IN_PEER(role), NULL, "what it may be", "publisher|gateway|router|shard", "admin", 0, 0, false, false},
    {"cluster.peers.*.name", FIELD_TEXT, IN_PEER(name), NULL, "what it must call itself; default: anything", NULL, NULL, 0, 0, false, false},
    {"router.listen", FIELD_ENDPOINT, AT(router.listen), NULL, "for publishers; default: its entry of cluster.routers", NULL, NULL, 0, 0, false, false},
    {"router.listen_gateway", FIELD_ENDPOINT, AT(router.listen_gateway), NULL, "for gateways; default: the next port", NULL, NULL, 0, 0, false, false},
    {"router.index", FIELD_UNSIGNED, AT(router.index), "0", "place in cluster.routers, from 0", NULL, NULL, 0, CONFIG_LIST_MAX - 1, false, false},
    {"shard.listen", FIELD_ENDPOINT, AT(shard.listen), NULL, "default: port 7200, or its entry of cluster.shards if that is ipc", NULL, NULL, 0, 0, false, false},
    {"shard.index", FIELD_UNSIGNED, AT(shard.index), "0", "place in cluster.shards, from 0", NULL, NULL, 0, CONFIG_LIST_MAX - 1, false, false},
    {"shard.slots", FIELD_TEXT, AT(shard.slots), NULL, "LO-HI: slots that a new data directory gets; default: an even share", NULL, NULL, 0, 0, false, false},
    {"shard.data_dir", FIELD_PATH, AT(shard.data_dir), NULL, "default: data/shard-INDEX", NULL, NULL, 0, 0, false, false},
    {"shard.sync", FIELD_TEXT, AT(shard.sync), "full", "what an acknowledged event survives: full is power loss", "full", "relaxed|none", 0, 0, false, false},
    {"shard.disk_reserve", FIELD_SIZE, AT(shard.disk_reserve), "256MiB", "publishes are refused when less is free", NULL, NULL, 0, STORE_MAX_BYTES, false, false},
    {"shard.map_size", FIELD_SIZE, AT(shard.map_size), "0", "largest size of the data file; 0: automatic", NULL, NULL, 0, STORE_MAX_BYTES, false, false},
    {"gateway.listen", FIELD_TEXT, AT(gateway.listen), "127.0.0.1:8080", "HTTP and WebSocket", NULL, NULL, 0, 0, false, false},
    {"gateway.origins", FIELD_LIST, AT(gateway.origins), NULL, "origins of pages that may use this gateway; \"*\": all", NULL, NULL, 0, 0, false, true},
    {"gateway.trusted_proxies", FIELD_LIST, AT(gateway.trusted_proxies), NULL, "networks whose X-Forwarded-For is believed", NULL, NULL, 0, 0, false, false},
    {"gateway.page", FIELD_PATH, AT(gateway.page), NULL, "HTML file served at GET /", NULL, NULL, 0, 0, false, false},
    {"gateway.limits.message", FIELD_SIZE, AT(gateway.limits.message), "512KiB", "largest payload", NULL, NULL, 1, PAYLOAD_HARD_MAX_BYTES, false, true},
    {"gateway.limits.sockets", FIELD_NUMBER, AT(gateway.limits.sockets), "100000", "sockets of this process", NULL, NULL, 1, 10000000, false, true},
    {"gateway.limits.sockets_per_ip", FIELD_NUMBER, AT(gateway.limits.sockets_per_ip), "0", "0: no limit", NULL, NULL, 0, 10000000, false, true},
    {"gateway.limits.keys_per_socket", FIELD_NUMBER, AT(gateway.limits.keys_per_socket), "1000", "keys of one stoa.v1 socket", NULL, NULL, 1, KEYS_PER_SOCKET_MAX, false, true},
    {"gateway.limits.connection_rate", FIELD_RATE, AT(gateway.limits.connection_rate), "0", "new connections of one address, \"50/s\"; 0: no limit", NULL, NULL, 0, RATE_MAX, false, true},
    {"monitor.listen", FIELD_TEXT, AT(monitor.listen), NULL, "health and metrics; default: 127.0.0.1, 8090 gateway, 8091 router, 8092+index shard", NULL, NULL, 0, 0, false, false},
    {"auth.mode", FIELD_TEXT, AT(auth.mode), NULL, "token: who asks needs one; none: everybody who reaches the gateway may do everything. Needed beyond loopback", "none|token", NULL, 0, 0, false, true},
    {"auth.iss", FIELD_TEXT, AT(auth.iss), NULL, "what the iss of a token must be; default: anything", NULL, NULL, 0, 0, false, true},
    {"auth.aud", FIELD_TEXT, AT(auth.aud), NULL, "what must be in the aud of a token; default: anything", NULL, NULL, 0, 0, false, true},
    {"auth.max_ttl", FIELD_DURATION, AT(auth.max_ttl_ms), "7d", "tokens that live longer are refused; revocations are kept so long", NULL, NULL, 1000, AGE_MAX_MS, false, true},
    {"auth.keys.*.kid", FIELD_TEXT, IN_KEY(kid), NULL, "name of the key, as tokens say it", NULL, NULL, 0, 0, false, true},
    {"auth.keys.*.alg", FIELD_TEXT, IN_KEY(alg), NULL, "what it signs with", "HS256|RS256|ES256", NULL, 0, 0, false, true},
    {"auth.keys.*.secret", FIELD_TEXT, IN_KEY(secret), NULL, "HS256: the secret, 32 bytes or more", NULL, NULL, 0, 0, true, true},
    {"auth.keys.*.public_key", FIELD_TEXT, IN_KEY(public_key), NULL, "RS256, ES256: PEM", NULL, NULL, 0, 0, true, true},
    {"log.format", FIELD_TEXT, AT(log.format), "text", "text or json", "text|json", NULL, 0, 0, false, true},
    {"log.level", FIELD_TEXT, AT(log.level), "info", "debug, info, warn or error", "debug|info|warn|error", NULL, 0, 0, false, true},
    {"types.*.retention.age", FIELD_DURATION, IN_TYPE(age_ms), "1h", "events are kept so long at most", NULL, NULL, 1000, AGE_MAX_MS, false, true},
    {"types.*.retention.count", FIELD_NUMBER, IN_TYPE(count), "10000", "events of a key at most", NULL, NULL, 1, UINT64_C(1) << 40, false, true},
    {"types.*.retention.bytes", FIELD_SIZE, IN_TYPE(bytes), "16MiB", "payload bytes of a key at most", NULL, NULL, 1, STORE_MAX_BYTES, false, true},
    {"types.*.handler", FIELD_HANDLER, IN_TYPE(handler), NULL, "the rooms' code, a .lua or .so file; default: events, a retained log without code", NULL, NULL, 0, 0, false, true},
    {"types.*.on_duplicate", FIELD_TEXT, IN_TYPE(on_duplicate), NULL, "a connection id that is there already: allow, replace, reject; default: the handler's", "allow|replace|reject", NULL, 0, 0, false, true},
    {"types.*.max_connections", FIELD_UNSIGNED, IN_TYPE(max_connections), NULL, "of a room; default: the handler's, else 32768", NULL, NULL, 1, ROOM_CONNECTIONS_MAX, false, true},
    {"types.*.max_connection_state", FIELD_SIZE, IN_TYPE(max_connection_state), NULL, "JSON text of a connection's state; default: the handler's, else 2KiB", NULL, NULL, 1, CONNECTION_STATE_MAX_BYTES, false, true},
    {"types.*.headers", FIELD_LIST, IN_TYPE(headers), NULL, "that the handler's identify sees besides origin, user-agent and accept-language", NULL, NULL, 0, 0, false, true},
    {"types.*.presence", FIELD_BOOL, IN_TYPE(presence), "false", "its rooms tell who is there, a member being a connection id; needs a handler, which says who a connection is", NULL, NULL, 0, 0, false, true},
    {"types.*.rate.connection", FIELD_RATE, IN_TYPE(rate_connection), "0", "what one socket says to one room, \"20/s\", in bursts of a second's worth; 0: no limit", NULL, NULL, 0, RATE_MAX, false, true},
    {"types.*.rate.room", FIELD_RATE, IN_TYPE(rate_room), "0", "all that comes to one room; 0: no limit", NULL, NULL, 0, RATE_MAX, false, true},
    {"types.*.rate.over", FIELD_TEXT, IN_TYPE(rate_over), "close", "a raw frame over a rate: close (1008) or drop; what can be answered is told 429", "close|drop", NULL, 0, 0, false, true},
    {"types.*.schemas.state", FIELD_PATH, IN_TYPE(schemas.state), NULL, "JSON Schema file (draft 7) of the state that a room saves", NULL, NULL, 0, 0, false, true},
    {"types.*.schemas.connection", FIELD_PATH, IN_TYPE(schemas.connection), NULL, "... of a connection's state", NULL, NULL, 0, 0, false, true},
    {"types.*.schemas.event", FIELD_PATH, IN_TYPE(schemas.event), NULL, "... of frames and direct sends", NULL, NULL, 0, 0, false, true},
    {"types.*.schemas.broadcast", FIELD_PATH, IN_TYPE(schemas.broadcast), NULL, "... of what a room sends and publishes", NULL, NULL, 0, 0, false, true},
    {"routes.*.path", FIELD_TEXT, IN_ROUTE(path), NULL, "where it is served", NULL, NULL, 0, 0, false, false},
    {"routes.*.key", FIELD_TEXT, IN_ROUTE(key), NULL, "the key, from the path's parts", NULL, NULL, 0, 0, false, false},
    {"routes.*.dialect", FIELD_TEXT, IN_ROUTE(dialect), "raw", "framing", "raw|uploadista|orpc", NULL, 0, 0, false, false},
    {"routes.*.replay", FIELD_TEXT, IN_ROUTE(replay), NULL, "all, none or a number", NULL, NULL, 0, 0, false, false},
    {"routes.*.signing_key", FIELD_TEXT, IN_ROUTE(signing_key), NULL, "orpc: key of its tokens; default: $STOA_ORPC_SIGNING_KEY", NULL, NULL, 0, 0, true, false},
    {"routes.*.retry", FIELD_DURATION, IN_ROUTE(retry_ms), "250ms", "orpc: how soon a client subscribes again", NULL, NULL, 1, AGE_MAX_MS, false, false},
    {"routes.*.types", FIELD_LIST, IN_ROUTE(types), NULL, "types whose keys the route serves; default: events", NULL, NULL, 0, 0, false, false},
};
/* clang-format on */
const size_t config_n_fields = sizeof config_fields / sizeof *config_fields;

bool config_has_twin(const struct field *f)
{
    return f->secret || f->kind == FIELD_KEY;
}

bool config_holds_list(const struct field *f)
{
    return f->kind == FIELD_LIST || f->kind == FIELD_ENDPOINTS || f->kind == FIELD_KEYS;
}

static bool has_suffix(struct slice s, const char *suffix)
{
    size_t n = strlen(suffix);
    return s.size > n && memcmp(s.data + s.size - n, suffix, n) == 0;
}

const struct field *config_field(struct slice path, bool *is_file)
{
    *is_file = false;
    for (size_t i = 0; i < config_n_fields; i++)
        if (slice_is(path, config_fields[i].path))
            return &config_fields[i];
    if (!has_suffix(path, "_file"))
        return NULL;
    *is_file = true;
    path.size -= strlen("_file");
    for (size_t i = 0; i < config_n_fields; i++)
        if (config_has_twin(&config_fields[i]) && slice_is(path, config_fields[i].path))
            return &config_fields[i];
    return NULL;
}

static bool below(const char *path, struct slice section)
{
    return section.size == 0 || (strlen(path) > section.size && path[section.size] == '.' &&
                                 memcmp(path, section.data, section.size) == 0);
}

bool config_section(struct slice path)
{
    for (size_t i = 0; i < config_n_fields; i++)
        if (below(config_fields[i].path, path))
            return true;
    return false;
}

/* ---- "did you mean" ---- */

#define NAME_MAX 32

static size_t least(size_t a, size_t b, size_t c)
{
    size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Levenshtein distance; both at most NAME_MAX long. */
static size_t distance(struct slice a, struct slice b)
{
    size_t row[NAME_MAX + 1];
    for (size_t j = 0; j <= b.size; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.size; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size; j++) {
            size_t above = row[j];
            row[j] = least(above + 1, row[j - 1] + 1, diagonal + (a.data[i - 1] != b.data[j - 1]));
            diagonal = above;
        }
    }
    return row[b.size];
}

/* The segment of a field's path that follows `section`. */
static struct slice child_of(const char *path, struct slice section)
{
    const char *begin = path + section.size + (section.size > 0);
    return slice_of(begin, strcspn(begin, "."));
}

const char *config_suggestion(struct slice section, struct slice name, struct strbuf *scratch)
{
    struct slice best = {0};
    if (name.size == 0 || name.size > NAME_MAX)
        return NULL;
    size_t best_distance = name.size / 3 + 1; /* a third of the letters may be wrong */
    for (size_t i = 0; i < config_n_fields; i++) {
        if (!below(config_fields[i].path, section))
            continue;
        struct slice child = child_of(config_fields[i].path, section);
        if (child.size > NAME_MAX || slice_is(child, "*"))
            continue;
        size_t d = distance(name, child);
        if (d < best_distance || (d == best_distance && best.size == 0)) {
            best = child;
            best_distance = d;
        }
    }
    if (best.size == 0)
        return NULL;
    strbuf_reset(scratch);
    strbuf_put_slice(scratch, best);
    return strbuf_cstr(scratch);
}
