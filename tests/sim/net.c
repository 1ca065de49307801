/* CORE. Connections as ZeroMQ gives them: in each direction a FIFO with delays, until a reset loses
 * what is under way and the dialer connects anew. A cut holds packets back (they come when it is
 * healed, unless the connection was given up meanwhile); a silent death tells the dialer nothing
 * for seconds. In the harsher mode packets are also lost, doubled and shuffled one by one, which
 * ZeroMQ never does: the hub's counters must notice. */
#include "sim.h"

#include "proto/packet.h"

#define AGAIN_NS (200 * MS)
#define SILENT_NS (3500 * MS)

static struct pipe *pipe_towards(struct conn *c, bool to_dialer)
{
    return to_dialer ? &c->to_dialer : &c->to_listener;
}

/* ---- packets ---- */

static void pipe_arm(struct pipe *p)
{
    struct world *w = p->conn->world;
    if (!p->first || p->cut)
        event_stop(w, &p->arrival);
    else
        event_set(w, &p->arrival, p->first->at_ns - w->now_ns);
}

static struct buf *pipe_take(struct pipe *p)
{
    struct parcel *parcel = p->first;
    struct buf *bytes = parcel->bytes;
    p->first = parcel->next;
    p->count--;
    mem_free(parcel);
    return bytes;
}

static void pipe_clear(struct pipe *p)
{
    while (p->first)
        buf_unref(pipe_take(p));
    event_stop(p->conn->world, &p->arrival);
}

/* What had reached the other side before a reset is still read there. */
static void pipe_reset(struct pipe *p)
{
    struct world *w = p->conn->world;
    unsigned keep = chance(w, 500) ? (unsigned)draw(w, p->count + 1) : 0;
    struct parcel **at = &p->first;
    for (unsigned i = 0; i < keep; i++)
        at = &(*at)->next;
    while (*at) {
        struct parcel *gone = *at;
        *at = gone->next;
        buf_unref(gone->bytes);
        mem_free(gone);
        p->count--;
    }
    if (!p->first)
        event_stop(w, &p->arrival);
}

static void pipe_insert(struct pipe *p, const void *packet, size_t size, int64_t at_ns)
{
    struct parcel *parcel = mem_alloc(sizeof *parcel);
    struct parcel **at = &p->first;
    while (*at && (*at)->at_ns <= at_ns)
        at = &(*at)->next;
    *parcel = (struct parcel){.next = *at, .at_ns = at_ns, .bytes = buf_copy(packet, size)};
    *at = parcel;
    p->count++;
}

static int64_t pipe_delay(struct world *w, const struct pipe *p)
{
    int64_t delay = w->dice.delay_ns + (int64_t)draw(w, (uint64_t)w->dice.jitter_ns + 1);
    return w->now_ns < p->slow_until_ns ? delay * p->slow_factor : delay;
}

static void pipe_put(struct world *w, struct pipe *p, const void *packet, size_t size)
{
    if (chance(w, w->dice.loss))
        return;
    unsigned copies = chance(w, w->dice.twice) ? 2 : 1;
    for (unsigned i = 0; i < copies; i++) {
        int64_t at_ns = w->now_ns + pipe_delay(w, p);
        if (!chance(w, w->dice.shuffle) && at_ns < p->last_ns)
            at_ns = p->last_ns;
        if (at_ns > p->last_ns)
            p->last_ns = at_ns;
        pipe_insert(p, packet, size, at_ns);
    }
    pipe_arm(p);
}

/* What the fields say that decide what happens next. */
static void describe_fields(const struct message *m, char *out, size_t size)
{
    typedef unsigned long long llu;
    switch (m->type) {
    case MSG_REPLAY:
        snprintf(out, size, "epoch %llx miss %llu..%llu (%llu) items %zu after %llu of %llu%s",
                 (llu)m->replay.room_epoch, (llu)m->replay.miss_from, (llu)m->replay.miss_to,
                 (llu)m->replay.miss_reason, m->replay.items.count, (llu)m->replay.after,
                 (llu)m->replay.head, m->replay.eof ? " eof" : "");
        break;
    case MSG_REPLAY_REQ:
        snprintf(out, size, "epoch %llx after %llu last %llu mode %llu", (llu)m->replay_req.epoch,
                 (llu)m->replay_req.after, (llu)m->replay_req.last, (llu)m->replay_req.mode);
        break;
    case MSG_DELIVER:
        if (m->deliver.items.count == 0)
            break;
        snprintf(out, size, "epoch %llx prev %llu, %zu to seq %llu", (llu)m->deliver.room_epoch,
                 (llu)m->deliver.items.at[0].prev, m->deliver.items.count,
                 (llu)m->deliver.items.at[m->deliver.items.count - 1].seq);
        break;
    case MSG_SUB:
        snprintf(out, size, "epoch %llx after %llu", (llu)m->sub.from_epoch, (llu)m->sub.from_seq);
        break;
    case MSG_SUBACK:
        snprintf(out, size, "epoch %llx head %llu", (llu)m->suback.room_epoch, (llu)m->suback.head);
        break;
    case MSG_SUBSYNC:
        snprintf(out, size, "full %llu, %zu rooms", (llu)m->subsync.full, m->subsync.rooms.count);
        break;
    case MSG_PACK:
        snprintf(out, size, "epoch %llx seq %llu%s", (llu)m->pack.room_epoch, (llu)m->pack.seq,
                 m->pack.dup ? " dup" : "");
        break;
    case MSG_NACK:
        snprintf(out, size, "%s expected %llu", nack_name(m->nack.code), (llu)m->nack.expected);
        break;
    case MSG_PUB:
        snprintf(out, size, "pid %llx pseq %llu id %02x%02x", (llu)m->pub.pid, (llu)m->pub.pseq,
                 m->pub.msg_id[0], m->pub.msg_id[1]);
        break;
    default:
        break;
    }
}

static void describe(struct world *w, const struct pipe *p, struct slice packet)
{
    struct packet_reader r;
    struct slice head, body;
    bool more = true;
    const struct conn *c = p->conn;
    const char *from = p->to_dialer ? c->listener->name : c->dialer->name;
    const char *to = p->to_dialer ? c->dialer->name : c->listener->name;
    if (packet_open(packet, &r) != ERR_OK)
        return;
    while (packet_next(&r, &more, &head, &body) == ERR_OK && more) {
        char fields[160] = "";
        struct message m;
        if (message_decode(head, body, &w->arena, &m) != ERR_OK)
            continue;
        describe_fields(&m, fields, sizeof fields);
        world_trace(w, "%s -> %s  %s %.*s cid %llx %s (#%llu of %llx)", from, to,
                    message_name(m.type), SLICE_FMT(m.key), (unsigned long long)m.cid, fields,
                    (unsigned long long)r.header.counter, (unsigned long long)r.header.incarnation);
    }
}

/* An intruder takes any. */
static unsigned door_of(struct process *dialer)
{
    if (dialer->kind == INTRUDER && dialer->world->guests)
        return rng_below(&dialer->world->odd, 2) ? ROUTER_DOOR_PUBLISH : ROUTER_DOOR_GATEWAY;
    return dialer->kind == LIBRARY || dialer->kind == INTRUDER ? ROUTER_DOOR_PUBLISH
                                                               : ROUTER_DOOR_GATEWAY;
}

static void pipe_fire(struct event *e)
{
    struct pipe *p = OWNER_OF(e, struct pipe, arrival);
    struct conn *c = p->conn;
    struct world *w = c->world;
    struct process *to = p->to_dialer ? c->dialer : c->listener;
    if (!to->up || c->dead) {
        pipe_clear(p);
        return;
    }
    if (to->paused)
        return; /* net_resumed goes on */
    struct buf *bytes = pipe_take(p);
    world_mix(w, bytes->data, bytes->size);
    w->counters->packets++;
    if (w->verbose)
        describe(w, p, buf_slice(bytes));
    struct tick now = process_now(to);
    uint32_t peer = c->dialed;
    if (!p->to_dialer) {
        if (!c->accepted)
            c->accepted = hub_accept(process_hub(to), door_of(c->dialer), now);
        peer = c->accepted;
    }
    if (to->kind == SHARD)
        shard_tick(to->shard, now);
    if (peer)
        hub_packet(process_hub(to), peer, bytes, now);
    buf_unref(bytes);
    pipe_arm(p);
    process_soon(to);
    process_settle(to);
}

bool net_dead_process_sends(struct process *p)
{
    if (p->fuse > 0 && --p->fuse == 0)
        p->doomed = true;
    return p->doomed;
}

int net_send(void *process, uint32_t peer, const void *packet, size_t size)
{
    struct process *p = process;
    if (net_dead_process_sends(p))
        return ERR_OK;
    for (unsigned i = 0; i < p->n_conns; i++) {
        struct conn *c = p->conns[i];
        bool dials = c->dialer == p;
        if ((dials ? c->dialed : c->accepted) != peer)
            continue;
        struct pipe *pipe = pipe_towards(c, !dials);
        if (!c->connected)
            return ERR_GONE;
        if (pipe->count >= p->world->dice.pipe_max)
            return ERR_FULL;
        if (!c->dead)
            pipe_put(p->world, pipe, packet, size);
        return ERR_OK;
    }
    return ERR_GONE;
}

void net_forget(void *process, uint32_t peer)
{
    struct process *p = process;
    for (unsigned i = 0; i < p->n_conns; i++)
        if (p->conns[i]->listener == p && p->conns[i]->accepted == peer)
            p->conns[i]->accepted = 0;
}

/* ---- connections ---- */

/* The dialer's hub hears of its socket when the dialer runs. */
static void conn_tell(struct conn *c)
{
    struct process *p = c->dialer;
    if (!p->up || p->paused || c->told == c->connected)
        return;
    c->told = c->connected;
    if (c->connected)
        hub_connected(process_hub(p), c->dialed, process_now(p));
    else
        hub_disconnected(process_hub(p), c->dialed, process_now(p));
    process_soon(p);
    process_settle(p);
}

void net_reset(struct conn *c, int64_t again_ns)
{
    struct world *w = c->world;
    TRACE(w, "reset %s - %s", c->dialer->name, c->listener->name);
    pipe_reset(&c->to_listener);
    pipe_reset(&c->to_dialer);
    c->connected = c->dead = false;
    event_set(w, &c->change, again_ns);
    conn_tell(c);
}

/* A new socket has a new name at the other side; a reconnected one keeps it. */
static void conn_open(struct conn *c)
{
    if (chance(c->world, 200))
        c->accepted = 0;
    c->connected = true;
    c->dead = false;
    conn_tell(c);
}

static void conn_change(struct event *e)
{
    struct conn *c = OWNER_OF(e, struct conn, change);
    struct world *w = c->world;
    if (c->connected) { /* a silent death, or a cut, has been noticed */
        net_reset(c, AGAIN_NS);
        return;
    }
    if (!c->dialer->up)
        return;
    if (c->told) /* paused, and has not even heard of the end */
        conn_tell(c);
    if (!c->listener->up || c->to_listener.cut || c->to_dialer.cut || c->told)
        event_set(w, &c->change, AGAIN_NS / 2 + draw_ns(w, AGAIN_NS));
    else
        conn_open(c);
}

void net_cut(struct pipe *p, int64_t ns)
{
    struct conn *c = p->conn;
    TRACE(c->world, "cut %s %s %s for %lld ms", c->dialer->name, p->to_dialer ? "<-" : "->",
          c->listener->name, (long long)(ns / MS));
    p->cut = true;
    pipe_arm(p);
    if (c->connected && ns > SILENT_NS)
        event_set(c->world, &c->change, SILENT_NS + draw_ns(c->world, NS_PER_S));
}

static void conn_heal(struct event *e)
{
    struct conn *c = OWNER_OF(e, struct conn, heal);
    c->to_listener.cut = c->to_dialer.cut = false;
    pipe_arm(&c->to_listener);
    pipe_arm(&c->to_dialer);
}

void net_up(struct process *p)
{
    for (unsigned i = 0; i < p->n_conns; i++) {
        struct conn *c = p->conns[i];
        if (c->dialer == p) {
            c->told = false;
            c->accepted = 0;
            event_set(p->world, &c->change, draw_ns(p->world, 10 * MS));
        }
    }
}

void net_down(struct process *p)
{
    struct world *w = p->world;
    for (unsigned i = 0; i < p->n_conns; i++) {
        struct conn *c = p->conns[i];
        if (c->dialer == p) {
            pipe_clear(&c->to_dialer);
            if (!chance(w, 500)) /* the kernel may still hand over what was written */
                pipe_clear(&c->to_listener);
            c->connected = c->dead = c->told = false;
            event_stop(w, &c->change);
            continue;
        }
        pipe_clear(&c->to_listener);
        c->accepted = 0;
        if (c->connected && chance(w, 250)) {
            pipe_clear(&c->to_dialer);
            c->dead = true;
            event_set(w, &c->change, SILENT_NS);
        } else if (c->connected) {
            net_reset(c, draw_ns(w, AGAIN_NS));
        }
    }
}

void net_resumed(struct process *p)
{
    for (unsigned i = 0; i < p->n_conns; i++) {
        struct conn *c = p->conns[i];
        pipe_arm(pipe_towards(c, c->dialer == p));
        if (c->dialer == p)
            conn_tell(c);
        if (!p->up)
            return;
    }
}

static void pipe_create(struct pipe *p, struct conn *c, bool to_dialer)
{
    *p = (struct pipe){.arrival = {.fire = pipe_fire}, .conn = c, .to_dialer = to_dialer};
}

void net_connect(struct world *w, struct process *dialer, struct process *listener, uint32_t dialed)
{
    STOA_ASSERT(w->n_conns < CONNS_MAX);
    struct conn *c = &w->conns[w->n_conns++];
    *c = (struct conn){.heal = {.fire = conn_heal},
                       .change = {.fire = conn_change},
                       .world = w,
                       .dialer = dialer,
                       .listener = listener,
                       .dialed = dialed};
    pipe_create(&c->to_listener, c, false);
    pipe_create(&c->to_dialer, c, true);
    dialer->conns[dialer->n_conns++] = c;
    listener->conns[listener->n_conns++] = c;
}

void net_free(struct world *w)
{
    for (unsigned i = 0; i < w->n_conns; i++) {
        pipe_clear(&w->conns[i].to_listener);
        pipe_clear(&w->conns[i].to_dialer);
    }
}
