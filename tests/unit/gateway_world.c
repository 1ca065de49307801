#include "gateway_far.h"

struct gateway *gateway;
struct metrics *metrics;
struct tick now;
struct client clients[CLIENTS_MAX];
struct gateway_options options;

/* ---- clients ---- */

static char *dup_slice(struct slice s)
{
    return mem_strndup(s.size ? (const char *)s.data : "", s.size);
}

static void client_respond(void *ctx, uint64_t client, const struct http_response *r)
{
    (void)ctx;
    struct client *c = &clients[client];
    c->responses++;
    c->status = r->status;
    mem_free(c->body);
    mem_free(c->headers);
    mem_free(c->content_type);
    c->body = dup_slice(r->body);
    c->headers = dup_slice(r->headers);
    c->content_type = mem_strdup(r->content_type ? r->content_type : "");
    c->close_answer = r->close;
}

static void client_stream(void *ctx, uint64_t client, const struct http_response *head)
{
    (void)ctx;
    struct client *c = &clients[client];
    c->streaming = true;
    c->status = head->status;
    mem_free(c->headers);
    c->headers = dup_slice(head->headers);
}

static void client_upgrade(void *ctx, uint64_t client, const char *subprotocol)
{
    (void)ctx;
    clients[client].upgraded = true;
    snprintf(clients[client].subprotocol, sizeof clients[client].subprotocol, "%s",
             subprotocol ? subprotocol : "");
}

static size_t client_write(void *ctx, uint64_t client, struct buf *bytes, size_t offset,
                           size_t size)
{
    (void)ctx;
    struct client *c = &clients[client];
    ck_assert(!c->closed && size > 0 && offset + size <= bytes->size);
    strbuf_put(&c->out, bytes->data + offset, size);
    c->writes++;
    c->last_buf = bytes;
    c->last_offset = offset;
    if (c->stalled)
        c->queued += size;
    return c->queued;
}

static void client_close(void *ctx, uint64_t client, unsigned code, struct slice reason)
{
    (void)ctx;
    struct client *c = &clients[client];
    ck_assert(!c->closed);
    ck_assert_uint_le(reason.size, 123);
    c->closed = true;
    c->code = code;
    snprintf(c->reason, sizeof c->reason, "%.*s", SLICE_FMT(reason));
}

static void client_pause(void *ctx, uint64_t client, bool paused)
{
    (void)ctx;
    ck_assert(clients[client].paused != paused);
    clients[client].paused = paused;
}

/* ---- the world ---- */

void world_start(void)
{
    static const struct gateway_type types[] = {
        {.name = "events"}, {.name = "few"}, {.name = "chat", .has_handler = true}};
    struct hub_ports hub_ports = {.send = far_gateway_send};
    struct gateway_ports ports = {.respond = client_respond,
                                  .stream = client_stream,
                                  .upgrade = client_upgrade,
                                  .write = client_write,
                                  .close = client_close,
                                  .pause = client_pause};
    options.self = (struct hub_self){.role = ROLE_GATEWAY,
                                     .node = {0xab, 0xcd, 0xef, 0x01},
                                     .boot = 5,
                                     .cluster = CLUSTER,
                                     .name = "gateway-0",
                                     .version = "0.1"};
    options.slot_seed = SEED;
    options.n_shards = 1;
    options.seed = 9;
    options.types = types;
    options.n_types = 3;
    options.version = "0.1";
    metrics = metrics_create();
    gateway = gateway_create(&options, &hub_ports, &ports, NULL, metrics);
    far_begin(options.n_routers);
    settle();
}

void world_options(void)
{
    now = (struct tick){.mono_ns = NS_PER_S, .wall_ms = 1700000000000};
    options = (struct gateway_options){.n_routers = 1,
                                       .payload_max_bytes = PAYLOAD_MAX_BYTES,
                                       .keys_per_socket = KEYS_PER_SOCKET_MAX,
                                       .loopback = true,
                                       .page = slice_text("<p>demo</p>")};
}

void world_setup(void)
{
    world_options();
    world_start();
}

void world_teardown(void)
{
    gateway_validate(gateway);
    gateway_destroy(&gateway);
    metrics_destroy(&metrics);
    far_end();
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        mem_free(clients[i].body);
        mem_free(clients[i].headers);
        mem_free(clients[i].content_type);
        strbuf_free(&clients[i].out);
    }
    memset(clients, 0, sizeof clients);
    shard_hears = NULL;
    ck_assert_uint_eq(buf_alive(), 0);
}

/* The 101s that were asked for have gone out. */
static void clients_establish(void)
{
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        if (clients[i].upgraded && !clients[i].established && !clients[i].late) {
            clients[i].established = true;
            gateway_established(gateway, i, now);
        }
}

void settle(void)
{
    for (unsigned turns = 0; turns < 100000; turns++) {
        far_carry();
        clients_establish();
        gateway_turn(gateway, now);
        gateway_validate(gateway);
        far_turn();
        if (far_idle())
            return;
    }
    ck_abort_msg("the world does not come to rest");
}

void pass_ms(int64_t ms)
{
    while (ms > 0) {
        int64_t step = ms < 50 ? ms : 50;
        now.mono_ns += step * NS_PER_MS;
        now.wall_ms += step;
        ms -= step;
        settle();
    }
}

/* ---- requests, from tests ---- */

static enum http_method method_of(struct slice name)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < 6; i++)
        if (slice_is(name, names[i]))
            return (enum http_method)(HTTP_M_GET + i);
    return HTTP_M_OTHER;
}

static void request(unsigned client, const char *line, const char *headers, struct slice body,
                    bool upgrade_wanted)
{
    struct http_request r = {.body = body, .upgrade = upgrade_wanted};
    const char *space = strchr(line, ' ');
    ck_assert_ptr_nonnull(space);
    r.method = method_of(slice_of(line, (size_t)(space - line)));
    const char *query = strchr(space, '?');
    const char *end = query ? query : space + strlen(space);
    r.path = slice_of(space + 1, (size_t)(end - space - 1));
    r.query = slice_text(query ? query + 1 : "");
    bool has_host = headers && strstr(headers, "Host:");
    if (!has_host)
        r.headers[r.n_headers++] =
            (struct http_header){slice_text("Host"), slice_text("localhost:8080")};
    while (headers && *headers) {
        const char *colon = strchr(headers, ':');
        const char *stop = strchr(headers, '\n');
        if (!stop)
            stop = headers + strlen(headers);
        r.headers[r.n_headers++] =
            (struct http_header){slice_of(headers, (size_t)(colon - headers)),
                                 slice_of(colon + 2, (size_t)(stop - colon - 2))};
        headers = *stop ? stop + 1 : stop;
    }
    gateway_request(gateway, client, &r, now);
    settle();
}

struct client *ask_bytes(unsigned client, const char *line, const char *headers, struct slice body)
{
    request(client, line, headers, body, false);
    return &clients[client];
}

struct client *ask(unsigned client, const char *line, const char *headers, const char *body)
{
    return ask_bytes(client, line, headers, slice_text(body ? body : ""));
}

struct client *upgrade(unsigned client, const char *target, const char *headers)
{
    char line[2048];
    snprintf(line, sizeof line, "GET %s", target);
    request(client, line, headers, slice_text(""), true);
    return &clients[client];
}

struct client *open_v1(unsigned client)
{
    struct client *c = upgrade(client, "/stoa", "Sec-WebSocket-Protocol: chat, stoa.v1");
    ck_assert(c->upgraded);
    ck_assert_str_eq(c->subprotocol, "stoa.v1");
    return c;
}

struct client *open_raw(unsigned client, const char *target)
{
    struct client *c = upgrade(client, target, NULL);
    ck_assert(c->upgraded);
    return c;
}

struct client *open_sse(unsigned client, const char *target, const char *headers)
{
    char line[2048];
    snprintf(line, sizeof line, "GET %s", target);
    struct client *c = ask(client, line, headers, NULL);
    ck_assert(c->streaming);
    return c;
}

void say(unsigned client, const char *text)
{
    gateway_frame(gateway, client, slice_text(text), true, now);
    settle();
}

void hang_up(unsigned client, unsigned code)
{
    gateway_closed(gateway, client, code, now);
    settle();
}

void drain_client(unsigned client)
{
    clients[client].stalled = false;
    clients[client].queued = 0;
    gateway_drained(gateway, client, now);
    settle();
}

static bool text_frame;
static char *frame_text;

const char *frame(struct client *c)
{
    if (c->read == c->out.size)
        return "";
    const uint8_t *at = c->out.data + c->read;
    size_t size = at[1];
    size_t header = 2;
    ck_assert(at[0] == 0x81 || at[0] == 0x82);
    text_frame = at[0] == 0x81;
    if (size == 126) {
        size = (size_t)at[2] << 8 | at[3];
        header = 4;
    } else if (size == 127) {
        size = 0;
        for (unsigned i = 0; i < 8; i++)
            size = size << 8 | at[2 + i];
        header = 10;
    }
    ck_assert_uint_le(c->read + header + size, c->out.size);
    static char kept[2 * MIB];
    ck_assert_uint_lt(size, sizeof kept);
    memcpy(kept, at + header, size);
    kept[size] = 0;
    frame_text = kept;
    c->read += header + size;
    return frame_text;
}

bool frame_was_text(void)
{
    return text_frame;
}

const char *rest(struct client *c)
{
    const char *text = strbuf_cstr(&c->out) + c->read;
    c->read = c->out.size;
    return text;
}

double metric(const char *name, const char *labels)
{
    return metric_value(metrics_counter(metrics, name, labels, ""));
}
