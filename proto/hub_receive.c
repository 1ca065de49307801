/* CORE. What arrives on a link: the check of its packet against the chain, link messages, and the
 * rest passed on.
 *
 *   accepted, packet                        | not up            | up
 *   ----------------------------------------+-------------------+---------------------------------
 *   HELLO (counter 1, another incarnation)  | refuse, or up     | down; then as left
 *   this incarnation, next counter          | RESET             | its messages
 *   this incarnation, other counter         | RESET             | down, RESET
 *   another incarnation                     | RESET             | dropped, RESET
 *
 *   dialed, packet                          | HELLO sent        | up
 *   ----------------------------------------+-------------------+---------------------------------
 *   this incarnation, next counter          | WELCOME: up       | its messages
 *   this incarnation, other counter         | HELLO anew        | down, HELLO anew
 *   this incarnation, counter 0             | RESET: HELLO anew | RESET: down, HELLO anew
 *   another incarnation                     | dropped           | dropped */
#include "proto/hub_internal.h"

#include "common/mutant.h"

/* ---- telling people ---- */

/* Whether a line may be written now; *suppressed: how many were not since the last one. */
static bool log_limit_pass(struct log_limit *limit, int64_t now_ns, uint64_t *suppressed)
{
    if (now_ns < limit->open_ns) {
        limit->suppressed++;
        return false;
    }
    *suppressed = limit->suppressed;
    *limit = (struct log_limit){.open_ns = now_ns + NS_PER_S};
    return true;
}

static void protocol_error(struct hub *hub, const struct peer *p, const char *what, uint64_t type)
{
    uint64_t suppressed = 0;
    metric_add(hub->protocol_errors, 1);
    if (log_limit_pass(&hub->errors, hub->now.mono_ns, &suppressed))
        LOG(hub->log, LOG_WARN, "link.protocol_error", LOG_U64("peer", p->number),
            LOG_STR("name", p->info.name), LOG_STR("what", what),
            LOG_STR("type", message_name(type)), LOG_U64("suppressed", suppressed));
}

static void refusal(struct hub *hub, const struct peer *p, const struct msg_hello *hello,
                    const char *why)
{
    uint64_t suppressed = 0;
    metric_add(hub->refused, 1);
    if (log_limit_pass(&hub->refusals, hub->now.mono_ns, &suppressed))
        LOG(hub->log, LOG_WARN, "link.refused", LOG_U64("peer", p->number),
            LOG_STR("as", role_name((enum role)hello->role)), LOG_SLICE("name", hello->name),
            LOG_STR("key", p->key ? p->key->label : ""), LOG_STR("why", why),
            LOG_U64("suppressed", suppressed));
}

static struct message error_message(uint64_t cid, enum nack_code code, const char *text)
{
    struct message m = link_message(MSG_ERR);
    m.cid = cid;
    m.err.code = code;
    m.err.text = slice_text(text);
    return m;
}

/* ---- HELLO and WELCOME ---- */

static void text_copy(char *out, size_t capacity, struct slice text)
{
    STOA_ASSERT(text.size < capacity);
    if (text.size > 0)
        memcpy(out, text.data, text.size);
    out[text.size] = 0;
}

static void info_set(struct peer *p, enum role role, const uint8_t node[16], uint64_t boot,
                     struct slice name, struct slice version)
{
    p->info = (struct peer_info){.role = role, .boot = boot};
    memcpy(p->info.node, node, sizeof p->info.node);
    text_copy(p->info.name, sizeof p->info.name, name);
    text_copy(p->info.version, sizeof p->info.version, version);
}

static bool role_valid(uint64_t role)
{
    return role > ROLE_NONE && role <= ROLE_ADMIN;
}

static bool key_allows(const struct peer_key *key, const struct msg_hello *hello)
{
    if (!key || !key->rights)
        return true;
    for (size_t i = 0; i < key->n_rights; i++) {
        const struct peer_right *right = &key->rights[i];
        if (right->role == (enum role)hello->role &&
            (right->name[0] == '\0' || slice_is(hello->name, right->name)))
            return true;
    }
    return false;
}

/* Why this HELLO is not welcome; NULL: it is. */
static const char *hello_objection(const struct hub *hub, const struct peer *p,
                                   const struct msg_hello *hello)
{
    if (hello->cluster != hub->self.cluster)
        return "foreign cluster";
    if (hello->proto_max < 1)
        return "no common version";
    if (!role_valid(hello->role))
        return "unknown role";
    if (hub->handler.admits &&
        !hub->handler.admits(hub->handler.ctx, p->door, (enum role)hello->role))
        return "role not admitted here";
    if (!key_allows(p->key, hello))
        return "this key may not be that role under that name: see cluster.peers of the listening "
               "process";
    return NULL;
}

static void queue_welcome(struct hub *hub, struct peer *p)
{
    struct message m = link_message(MSG_WELCOME);
    m.welcome.role = hub->self.role;
    memcpy(m.welcome.node, hub->self.node, sizeof m.welcome.node);
    m.welcome.boot = hub->self.boot;
    m.welcome.win_msgs = hub->self.win_msgs;
    m.welcome.win_bytes = hub->self.win_bytes;
    m.welcome.window_ms = hub->self.window_ms;
    m.welcome.name = slice_text(hub->self.name);
    m.welcome.version = slice_text(hub->self.version);
    peer_queue(hub, p, &m);
}

static void refuse_hello(struct hub *hub, struct peer *p, uint64_t incarnation, enum nack_code code,
                         const char *why)
{
    struct message answer = error_message(0, code, why);
    link_send_outside_chain(hub, p, incarnation, &answer);
}

/* A HELLO on an accepted link. */
static void hello_arrived(struct hub *hub, struct peer *p, const struct packet_header *header,
                          size_t packet_size, struct slice head, struct slice body)
{
    struct message m;
    p->heard_ns = hub->now.mono_ns;
    if (message_decode(head, body, &hub->arena, &m) != ERR_OK) {
        protocol_error(hub, p, "malformed HELLO", MSG_HELLO);
        refuse_hello(hub, p, header->incarnation, NACK_INVALID, "malformed HELLO");
        return;
    }
    struct msg_hello hello = m.hello; /* on_down may use the hub: nothing of it is needed after */
    const char *objection = hello_objection(hub, p, &hello);
    link_down(hub, p, "new incarnation");
    if (hub->closed)
        return;
    if (objection) {
        refusal(hub, p, &hello, objection);
        refuse_hello(hub, p, header->incarnation, NACK_DENIED, objection);
        return;
    }
    link_begin(hub, p, header->incarnation);
    p->received_counter = header->counter;
    p->received_bytes = packet_size;
    info_set(p, (enum role)hello.role, hello.node, hello.boot, hello.name, hello.version);
    queue_welcome(hub, p);
    link_up(hub, p);
}

/* The first message of the chain on a dialed link. */
static void welcome_arrived(struct hub *hub, struct peer *p, struct slice head, struct slice body)
{
    struct message m;
    if (message_decode(head, body, &hub->arena, &m) != ERR_OK || m.type != MSG_WELCOME ||
        !role_valid(m.welcome.role)) {
        protocol_error(hub, p, "no valid WELCOME", m.type);
        link_break(hub, p, "no valid WELCOME");
        return;
    }
    const struct msg_welcome *welcome = &m.welcome;
    info_set(p, (enum role)welcome->role, welcome->node, welcome->boot, welcome->name,
             welcome->version);
    p->info.win_msgs = welcome->win_msgs;
    p->info.win_bytes = welcome->win_bytes;
    p->info.window_ms = welcome->window_ms;
    link_up(hub, p);
}

/* ---- messages of the chain ---- */

static void goodbye_arrived(struct hub *hub, struct peer *p)
{
    link_down(hub, p, "goodbye");
    if (!p->dialed) {
        peer_forget(hub, p);
        return;
    }
    p->hello_due_ns = hub->now.mono_ns + LINK_HEARTBEAT_MS * NS_PER_MS;
    link_schedule(hub, p);
}

static void error_arrived(struct hub *hub, struct peer *p, struct slice head, struct slice body)
{
    struct message m;
    uint64_t suppressed = 0;
    if (message_decode(head, body, &hub->arena, &m) != ERR_OK || m.type != MSG_ERR) {
        protocol_error(hub, p, "malformed ERR", MSG_ERR);
        return;
    }
    if (log_limit_pass(&hub->errors, hub->now.mono_ns, &suppressed))
        LOG(hub->log, LOG_WARN, "link.error_from_peer", LOG_U64("peer", p->number),
            LOG_STR("name", p->info.name), LOG_STR("code", nack_name(m.err.code)),
            LOG_SLICE("text", m.err.text), LOG_U64("suppressed", suppressed));
}

/* A message that cannot be used: it has no effect, and the sender is told. */
static void reject(struct hub *hub, struct peer *p, const struct message_prefix *prefix,
                   const char *what)
{
    protocol_error(hub, p, what, prefix->type);
    struct message answer = error_message(prefix->cid, NACK_INVALID, what);
    hub_send(hub, p->number, &answer);
}

static void pass_on(struct hub *hub, struct peer *p, const struct message_prefix *prefix,
                    struct slice head, struct slice body, struct buf *packet)
{
    struct message m;
    if (hub->handler.on_raw)
        hub->handler.on_raw(hub->handler.ctx, p->number, prefix, head, body, packet);
    else if (!message_known(prefix->type))
        reject(hub, p, prefix, "unknown type");
    else if (message_decode(head, body, &hub->arena, &m) != ERR_OK)
        reject(hub, p, prefix, "malformed message");
    else
        hub->handler.on_message(hub->handler.ctx, p->number, &m, packet);
}

/* One message of the chain. False: the link has ended, `p` may be gone. */
static bool message_arrived(struct hub *hub, struct peer *p, struct slice head, struct slice body,
                            struct buf *packet)
{
    struct message_prefix prefix;
    if (p->state == LINK_HELLO_SENT) {
        welcome_arrived(hub, p, head, body);
        return p->state == LINK_UP;
    }
    if (message_peek(head, &prefix) != ERR_OK) {
        protocol_error(hub, p, "malformed prefix", 0);
        return true;
    }
    switch (prefix.type) {
    case MSG_PING:
        break;
    case MSG_GOODBYE:
        goodbye_arrived(hub, p);
        return false;
    case MSG_ERR:
        error_arrived(hub, p, head, body);
        break;
    case MSG_HELLO:
    case MSG_WELCOME:
    case MSG_RESET:
        reject(hub, p, &prefix, "out of place");
        break;
    default:
        pass_on(hub, p, &prefix, head, body, packet);
    }
    return p->state == LINK_UP;
}

/* ---- packets ---- */

static void malformed_packet(struct hub *hub, struct peer *p)
{
    protocol_error(hub, p, "malformed packet", 0);
    if (p->state != LINK_DOWN)
        link_break(hub, p, "malformed packet");
}

/* The packet's only message, when it is one. */
static bool single_message(const struct packet_reader *packet, struct slice *head,
                           struct slice *body, struct message_prefix *prefix)
{
    struct packet_reader r = *packet;
    bool more = false;
    return r.header.count == 1 && packet_next(&r, &more, head, body) == ERR_OK && more &&
           r.rest.size == 0 && message_peek(*head, prefix) == ERR_OK;
}

/* RESET, or ERR for a refused HELLO, on a dialed link. */
static void outside_chain_arrived(struct hub *hub, struct peer *p, const struct packet_reader *r)
{
    struct slice head, body;
    struct message_prefix prefix;
    if (p->state == LINK_DOWN || r->header.incarnation != p->incarnation)
        metric_add(hub->dropped, 1); /* about an incarnation that is over */
    else if (!single_message(r, &head, &body, &prefix))
        protocol_error(hub, p, "malformed packet", 0);
    else if (prefix.type == MSG_RESET)
        link_break(hub, p, "reset by peer");
    else if (prefix.type == MSG_ERR)
        error_arrived(hub, p, head, body);
    else
        protocol_error(hub, p, "out of place", prefix.type);
}

/* Whether the packet continues the chain; deals with it when it does not. */
static bool chain_continues(struct hub *hub, struct peer *p, const struct packet_header *header)
{
    bool current = p->state != LINK_DOWN && header->incarnation == p->incarnation;
    if (current && (header->counter == p->received_counter + 1 ||
                    (STOA_MUTANT(COUNTER_GAP) && header->counter > p->received_counter)))
        return true;
    metric_add(hub->dropped, 1);
    if (current) {
        link_break(hub, p, "packets lost");
        return false;
    }
    if (!p->dialed) {
        if (p->state == LINK_DOWN)
            p->heard_ns = hub->now.mono_ns; /* it lives, and will say HELLO */
        link_reset(hub, p, header->incarnation);
    }
    return false;
}

static void chain_arrived(struct hub *hub, struct peer *p, struct packet_reader *r,
                          struct buf *packet)
{
    p->heard_ns = hub->now.mono_ns;
    p->received_counter = r->header.counter;
    p->received_bytes += packet->size;
    for (;;) {
        struct slice head, body;
        bool more = false;
        if (packet_next(r, &more, &head, &body) != ERR_OK) {
            malformed_packet(hub, p);
            return;
        }
        if (!more || !message_arrived(hub, p, head, body, packet))
            return;
    }
}

void hub_packet(struct hub *hub, uint32_t peer, struct buf *packet, struct tick now)
{
    hub->now = now;
    struct peer *p = hub_find(hub, peer);
    if (!p || hub->closed)
        return;
    struct packet_reader r;
    struct slice head, body;
    struct message_prefix prefix;
    if (packet_open(buf_slice(packet), &r) != ERR_OK)
        malformed_packet(hub, p);
    else if (p->dialed && r.header.counter == 0)
        outside_chain_arrived(hub, p, &r);
    else if (!p->dialed && r.header.counter == 1 && r.header.incarnation != p->incarnation &&
             single_message(&r, &head, &body, &prefix) && prefix.type == MSG_HELLO)
        hello_arrived(hub, p, &r.header, packet->size, head, body);
    else if (chain_continues(hub, p, &r.header))
        chain_arrived(hub, p, &r, packet);
}
