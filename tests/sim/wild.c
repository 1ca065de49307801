/* CORE. Peers of a cluster that are no friends, in one seed of four: an intruder, which says
 * anything at all to shards and routers in any order, and an impostor, which listens where a shard
 * of the configuration should be. What they say are messages of every type with any content; and
 * now and then a packet of theirs is broken on its way: cut, flipped, doubled, out of the chain.
 *
 * Nobody may fall over them, and nothing that is promised to others may break. So much they are
 * trusted, as everybody in a cluster is: they publish nothing under the names of others and claim
 * no higher epoch of the slots of the world's keys, and when the storm is over the impostor claims
 * nothing. With the guests' keys they do as they like. */
#include "sim.h"

#include "proto/packet.h"

#define LIST_MAX 3
#define NOISES 400 /* of each, in a storm of any length */

struct wild { /* what the slices of one message point to */
    struct world *w;
    char texts[40][64];
    unsigned n_texts;
    struct event_item events[LIST_MAX];
    struct slice parts[LIST_MAX];
    struct mark marks[LIST_MAX];
    struct slot_range ranges[LIST_MAX];
    struct ring_member members[LIST_MAX];
};

static uint64_t odd(struct world *w, uint64_t bound)
{
    return rng_below(&w->odd, bound);
}

/* ---- any content ---- */

static uint64_t any_number(struct wild *x)
{
    struct world *w = x->w;
    switch (odd(w, 8)) {
    case 0:
        return 0;
    case 1:
        return rng_u64(&w->odd);
    case 2:
        return odd(w, 6000);
    default:
        return odd(w, 5);
    }
}

static struct slice any_text(struct wild *x)
{
    static const char *const texts[] = {"",     "",          "x",         "{}", "[1]",
                                        "\xff", "{\"a\":1}", "session-1", "[["};
    return slice_text(texts[odd(x->w, sizeof texts / sizeof *texts)]);
}

static struct slice guest_key(struct wild *x)
{
    char *text = x->texts[x->n_texts++ % 40];
    snprintf(text, sizeof x->texts[0], "guest%u", (unsigned)odd(x->w, GUEST_KEYS));
    return slice_text(text);
}

static struct slice any_key(struct wild *x, bool of_world)
{
    struct world *w = x->w;
    switch (odd(w, 12)) {
    case 0:
        return slice_text("");
    case 1:
        return slice_text("bad\x01key");
    case 2:
    case 3:
    case 4:
    case 5:
        return of_world ? slice_text(w->truth.keys[odd(w, w->dice.keys)].name) : guest_key(x);
    default:
        return guest_key(x);
    }
}

static struct parts_list any_parts(struct wild *x)
{
    size_t count = odd(x->w, LIST_MAX + 1);
    for (size_t i = 0; i < count; i++)
        x->parts[i] = any_text(x);
    return (struct parts_list){x->parts, count};
}

static struct events_list any_events(struct wild *x)
{
    size_t count = odd(x->w, LIST_MAX + 1);
    uint64_t seq = any_number(x);
    for (size_t i = 0; i < count; i++) {
        x->events[i] = (struct event_item){.prev = seq, .payload = any_text(x)};
        seq += odd(x->w, 8) ? 1 : any_number(x);
        x->events[i].seq = seq;
        x->events[i].ts = (int64_t)any_number(x);
        x->events[i].flags = (uint32_t)odd(x->w, 16);
        if (x->events[i].flags & EVENT_JSON) /* which nobody looks at again */
            x->events[i].payload = slice_text("{}");
    }
    return (struct events_list){x->events, count};
}

static struct marks_list any_marks(struct wild *x)
{
    size_t count = odd(x->w, LIST_MAX + 1);
    for (size_t i = 0; i < count; i++)
        x->marks[i] = (struct mark){.key = any_key(x, true),
                                    .epoch = any_number(x),
                                    .seq = any_number(x),
                                    .count = any_number(x)};
    return (struct marks_list){x->marks, count};
}

static struct ranges_list any_ranges(struct wild *x)
{
    size_t count = odd(x->w, LIST_MAX + 1);
    for (size_t i = 0; i < count; i++) {
        uint64_t lo = odd(x->w, SLOT_COUNT);
        x->ranges[i] = (struct slot_range){
            .lo = lo, .hi = lo + odd(x->w, SLOT_COUNT - lo), .epoch = any_number(x)};
    }
    return (struct ranges_list){x->ranges, count};
}

static struct members_list any_members(struct wild *x)
{
    size_t count = odd(x->w, LIST_MAX + 1);
    for (size_t i = 0; i < count; i++)
        x->members[i] = (struct ring_member){slice_text("m"), slice_text("mem://m"), any_number(x),
                                             any_number(x)};
    return (struct members_list){x->members, count};
}

static void any_fields(struct wild *x, struct message *m)
{
    switch (m->type) {
#define MSG_BEGIN(lower, UPPER, code, way, doc) \
    case MSG_##UPPER: {                         \
        struct msg_##lower *f = &m->lower;      \
        f->empty_ = 0;
#define F_U64(name, doc) f->name = any_number(x);
#define F_I64(name, doc) f->name = (int64_t)any_number(x);
#define F_STR(name, max, doc) f->name = any_text(x);
#define F_BIN(name, max, doc) f->name = any_text(x);
#define F_ID16(name, doc) rng_bytes(&x->w->odd, f->name, 16);
#define F_LIST(kind, name, doc) f->name = any_##kind(x);
#define F_BODY(name, doc) f->name = any_text(x);
#define MSG_END \
    break;      \
    }
#include "proto/messages.def"
#undef MSG_BEGIN
#undef F_U64
#undef F_I64
#undef F_STR
#undef F_BIN
#undef F_ID16
#undef F_LIST
#undef F_BODY
#undef MSG_END
    default:
        break;
    }
}

static const uint8_t types[] = {
#define MSG_BEGIN(lower, UPPER, code, way, doc) code,
#define F_U64(name, doc)
#define F_I64(name, doc)
#define F_STR(name, max, doc)
#define F_BIN(name, max, doc)
#define F_ID16(name, doc)
#define F_LIST(kind, name, doc)
#define F_BODY(name, doc)
#define MSG_END
#include "proto/messages.def"
#undef MSG_BEGIN
#undef F_U64
#undef F_I64
#undef F_STR
#undef F_BIN
#undef F_ID16
#undef F_LIST
#undef F_BODY
#undef MSG_END
};

static bool is_guest(struct slice key)
{
    return key.size > 5 && memcmp(key.data, "guest", 5) == 0;
}

/* What would be an event or an end of somebody else's goes to the guests' keys. */
static void any_message(struct wild *x, struct message *m)
{
    struct world *w = x->w;
    *m = (struct message){.type = types[odd(w, sizeof types)], .slot = SLOT_UNKNOWN};
    if (m->type == MSG_GOODBYE && odd(w, 20) > 0) /* links should live a little */
        m->type = MSG_ASK;
    any_fields(x, m);
    bool theirs = m->type == MSG_PUB || m->type == MSG_CEVT || m->type == MSG_CLOSE ||
                  m->type == MSG_DELIVER || m->type == MSG_SUBACK || m->type == MSG_RESYNC ||
                  m->type == MSG_REPLAY || m->type == MSG_PURGE;
    m->key = any_key(x, !theirs);
    if (m->type == MSG_PUB)
        m->pub.flags |= PUB_EPHEMERAL;
    m->cid = any_number(x);
    if (odd(w, 3) == 0)
        m->slot = slot_of(m->key, SLOT_SEED);
    else if (odd(w, 20) == 0)
        m->slot = (uint16_t)odd(w, SLOT_COUNT);
    m->ep = is_guest(m->key) ? any_number(x) : odd(w, 2);
}

/* ---- packets that are broken on their way ---- */

static bool has_publish(struct slice packet)
{
    struct packet_reader r;
    struct slice head, body;
    bool more = true;
    struct message_prefix prefix;
    if (packet_open(packet, &r) != ERR_OK)
        return true;
    while (packet_next(&r, &more, &head, &body) == ERR_OK && more)
        if (message_peek(head, &prefix) != ERR_OK || prefix.type == MSG_PUB)
            return true;
    return false;
}

/* A link message where none belongs, or a greeting that nobody should welcome. */
static void put_greeting(struct world *w, struct strbuf *out)
{
    static const enum message_type those[] = {MSG_HELLO, MSG_WELCOME, MSG_PING,
                                              MSG_RESET, MSG_GOODBYE, MSG_ERR};
    struct wild x = {.w = w};
    struct message m = {.type = those[odd(w, 6)], .slot = SLOT_UNKNOWN};
    any_fields(&x, &m);
    if (m.type == MSG_HELLO && odd(w, 2))
        m.hello.cluster = CLUSTER;
    if (m.type == MSG_HELLO && odd(w, 2))
        m.hello.proto_max = 1;
    message_encode(out, &m);
}

static void broken_send(struct process *p, uint32_t peer, struct strbuf *packet)
{
    struct world *w = p->world;
    struct packet_reader r;
    STOA_ASSERT(packet_open(strbuf_slice(packet), &r) == ERR_OK);
    uint64_t incarnation = r.header.incarnation, counter = r.header.counter;
    uint32_t count = r.header.count;
    switch (odd(w, 8)) {
    case 0:
        packet->size = odd(w, packet->size);
        break;
    case 1:
        packet->data[odd(w, 4)] ^= 1;
        break;
    case 2:
        count += odd(w, 2) ? 1 : (uint32_t)rng_u64(&w->odd);
        break;
    case 3:
        counter = odd(w, 4);
        break;
    case 4:
        incarnation = any_number(&(struct wild){.w = w});
        break;
    case 5:
    case 6:
        packet->size = 0;
        packet_begin(packet);
        count = 1 + (uint32_t)odd(w, 2);
        for (uint32_t i = 0; i < count; i++)
            put_greeting(w, packet);
        incarnation += odd(w, 2);
        counter = odd(w, 3) ? odd(w, 2) : counter;
        break;
    default: /* the sizes of its first message, its form, its type */
        packet->data[PACKET_HEADER_BYTES + odd(w, 13)] ^= (uint8_t)(1u << odd(w, 8));
    }
    if (packet->size > PACKET_HEADER_BYTES)
        packet_end(packet, count, incarnation, counter);
    (void)net_send(p, peer, packet->data, packet->size);
}

/* The port of their hubs: what follows a broken packet is beyond the chain, and the hubs begin
 * anew. */
static int wild_send(void *process, uint32_t peer, const void *packet, size_t size)
{
    struct process *p = process;
    struct world *w = p->world;
    if (!w->storm || odd(w, 40) > 0 || has_publish(slice_of(packet, size)))
        return net_send(process, peer, packet, size);
    struct strbuf copy = {0};
    if (odd(w, 3) == 0)
        (void)net_send(process, peer, packet, size);
    strbuf_put(&copy, packet, size);
    broken_send(p, peer, &copy);
    strbuf_free(&copy);
    return ERR_OK;
}

void wild_ports(struct process *p, struct hub_ports *ports)
{
    if (p->world->guests)
        ports->send = wild_send;
}

int64_t wild_deadline(const struct process *p)
{
    int64_t hub = hub_deadline(p->hub);
    return p->world->guests && p->world->storm && p->noise_ns < hub ? p->noise_ns : hub;
}

void wild_noise(struct process *p, struct tick now)
{
    struct wild x = {.w = p->world};
    struct message m;
    uint32_t peer = 0;
    if (now.mono_ns < p->noise_ns)
        return;
    p->noise_ns = now.mono_ns + (int64_t)odd(x.w, 2 * (uint64_t)x.w->dice.storm_ns / NOISES);
    for (uint64_t n = odd(x.w, 4); n > 0; n--) {
        for (uint64_t step = 1 + odd(x.w, 6); step > 0; step--)
            peer = hub_next_up(p->hub, peer);
        any_message(&x, &m);
        if (peer && (m.type != MSG_CLAIM || p->kind != IMPOSTOR)) /* see claim() */
            hub_send(p->hub, peer, &m);
    }
}

/* ---- the impostor ---- */

/* Slots of guests' keys, some of them from everybody else; now and then slots of the world's keys,
 * which then nobody serves. */
static void claim(struct process *p, uint32_t peer)
{
    struct world *w = p->world;
    struct slot_range ranges[GUEST_KEYS];
    struct message m = {.type = MSG_CLAIM, .slot = SLOT_UNKNOWN};
    char name[16];
    size_t count = 0;
    bool wide = odd(w, 12) == 0;
    for (unsigned i = 0; i < GUEST_KEYS && w->storm; i++) {
        bool shared = false;
        snprintf(name, sizeof name, "guest%u", i);
        uint16_t slot = slot_of(slice_text(name), SLOT_SEED);
        if (wide && odd(w, 4) == 0)
            slot = w->truth.keys[odd(w, w->dice.keys)].slot;
        for (unsigned key = 0; key < w->dice.keys; key++)
            shared |= w->truth.keys[key].slot == slot;
        if (odd(w, 4) > 0)
            ranges[count++] = (struct slot_range){slot, slot, shared ? 1 : odd(w, 4)};
    }
    m.claim.boot = odd(w, 20) ? p->boots : 7;
    m.claim.ready = odd(w, 10) > 0 || !w->storm;
    m.claim.slots = (struct ranges_list){ranges, count};
    if (!w->storm)
        m.claim.boot = p->boots;
    hub_send(p->hub, peer, &m);
}

static void impostor_on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    struct process *p = ctx;
    (void)info;
    if (!p->stranger || odd(p->world, 10) == 0)
        claim(p, peer);
}

static void impostor_on_down(void *ctx, uint32_t peer)
{
    (void)ctx, (void)peer;
}

static void impostor_answer(struct process *p, uint32_t peer, const struct message *asked)
{
    static const char *const texts[] = {
        "{}",
        "[]",
        "7",
        "no JSON",
        "{\"keys\":[{\"key\":7},{\"key\":\"a\",\"events\":\"x\"},{\"key\":\"a\"},{\"key\":\"ab\"}],"
        "\"more\":true}",
        "{\"rooms\":[{\"per_second\":\"x\"},{\"per_second\":1e3},{\"per_second\":1e3,\"key\":1},{}]"
        "}",
        "{\"rooms\":[{\"per_second\":1000000000000000000000000000000000000000}],\"keys\":{}}",
        "[{\"id\":\"x\"}]",
        "{\"role\":\"shard\",\"new\":1}"};
    struct world *w = p->world;
    struct message m = {
        .type = MSG_ANSWER, .cid = asked->cid, .slot = asked->slot, .key = asked->key};
    m.answer.status = odd(w, 8) ? 0 : 503;
    m.answer.json = slice_text(texts[odd(w, sizeof texts / sizeof *texts)]);
    hub_send(p->hub, peer, &m);
}

/* Questions are answered; so is what is asked of the guests' rooms, by anything. A publish never
 * is: it was stored nowhere. */
static void impostor_on_message(void *ctx, uint32_t peer, const struct message *m,
                                struct buf *packet)
{
    static const enum message_type answers[] = {MSG_SUBACK, MSG_REPLAY, MSG_NACK,  MSG_DELIVER,
                                                MSG_PACK,   MSG_CLOSE,  MSG_RESYNC};
    struct process *p = ctx;
    struct wild x = {.w = p->world};
    struct message answer = {.cid = m->cid, .slot = SLOT_UNKNOWN, .key = m->key};
    (void)packet;
    if (m->type == MSG_ASK) {
        impostor_answer(p, peer, m);
        return;
    }
    if (m->type == MSG_PUB || !is_guest(m->key) || odd(x.w, 4) == 0)
        return;
    answer.type = m->type == MSG_SUB && odd(x.w, 3)          ? MSG_SUBACK
                  : m->type == MSG_REPLAY_REQ && odd(x.w, 3) ? MSG_REPLAY
                                                             : answers[odd(x.w, 7)];
    any_fields(&x, &answer);
    hub_send(p->hub, peer, &answer);
}

void impostor_up(struct process *p, const struct hub_ports *ports, const struct hub_self *self)
{
    const struct hub_handler handler = {.ctx = p,
                                        .on_up = impostor_on_up,
                                        .on_down = impostor_on_down,
                                        .on_message = impostor_on_message};
    struct hub_self as = *self;
    if (odd(p->world, 8) == 0 && p->world->storm)
        as.role = (enum role)odd(p->world, ROLE_ADMIN + 3);
    as.boot = p->boots;
    p->hub = hub_create(&as, &handler, ports, guests_log(p->world), p->world->metrics,
                        rng_u64(&p->world->odd));
    p->quiet = false;
    p->stranger = as.role != ROLE_SHARD;
}

void impostor_turn(struct process *p)
{
    struct tick now = process_now(p);
    hub_tick(p->hub, now);
    if (p->world->storm)
        wild_noise(p, now);
    else
        p->doomed |= p->stranger; /* nobody listens to it: what it claimed it could not take back */
    if (odd(p->world, 600) == 0 || (!p->world->storm && !p->quiet))
        for (uint32_t peer = hub_next_up(p->hub, 0); peer; peer = hub_next_up(p->hub, peer))
            claim(p, peer);
    p->quiet = !p->world->storm;
    hub_flush(p->hub, now);
}
