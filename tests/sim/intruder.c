/* CORE. A peer that has a gateway's role and no sense: valid messages with wrong contents, in the
 * wrong order, at the wrong shard. Nobody may fall over it, and what it publishes is a publish like
 * others where the slot is owned, and nothing where it is not. */
#include "sim.h"

static void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    (void)ctx, (void)peer, (void)info;
}

static void on_down(void *ctx, uint32_t peer)
{
    (void)ctx, (void)peer;
}

static void on_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    (void)ctx, (void)peer, (void)m, (void)packet;
}

void intruder_up(struct process *p, const struct hub_ports *ports, const struct hub_self *self)
{
    const struct hub_handler handler = {
        .ctx = p, .on_up = on_up, .on_down = on_down, .on_message = on_message};
    p->hub = hub_create(self, &handler, ports, guests_log(p->world), p->world->metrics,
                        rng_u64(&p->world->rng));
    for (unsigned i = 0; i < p->world->dice.count[SHARD]; i++)
        (void)hub_dial(p->hub);
    for (unsigned i = 0; i < p->world->dice.count[ROUTER]; i++)
        (void)hub_dial(p->hub);
}

static struct position somewhere(struct world *w, unsigned key)
{
    const struct vec *logs = &w->truth.keys[key].logs;
    struct position pos = {.epoch = draw(w, 2) ? rng_u64(&w->rng) : 0, .seq = draw(w, 9)};
    if (logs->count > 0 && chance(w, 700))
        pos.epoch = VEC_AT(logs, struct epoch_log *)[logs->count - 1]->epoch;
    if (chance(w, 100))
        pos.seq = rng_u64(&w->rng);
    return pos;
}

static void noise_publish(struct process *p, struct message *m)
{
    struct world *w = p->world;
    uint32_t number = truth_draw(w, p->who, false, true);
    struct msg *msg = truth_msg(w, number);
    struct strbuf text = {0};
    msg->parts = 1;
    msg->conflate = 0;
    msg->whom = FOR_ALL;
    msg->maybe = true;
    m->type = MSG_PUB;
    m->key = slice_text(w->truth.keys[msg->key].name);
    rng_bytes(&w->rng, m->pub.msg_id, sizeof m->pub.msg_id);
    m->pub.flags = msg->ephemeral ? PUB_EPHEMERAL : 0;
    m->pub.pid = draw(w, 3);
    m->pub.pseq = m->pub.pid ? draw(w, 3) : 0;
    m->pub.ts = process_now(p).wall_ms;
    truth_payload(w, number, 0, &text);
    struct slice part = strbuf_slice(&text);
    m->pub.payloads = (struct parts_list){&part, 1};
    truth_submit(w, number, 0);
    hub_send(p->hub, 1 + (uint32_t)draw(w, w->dice.count[SHARD]), m);
    strbuf_free(&text);
}

static void noise(struct process *p)
{
    struct world *w = p->world;
    unsigned key = (unsigned)draw(w, w->dice.keys);
    struct position pos = somewhere(w, key);
    struct message m = {.type = MSG_UNSUB,
                        .cid = draw(w, 5),
                        .slot = chance(w, 500) ? w->truth.keys[key].slot : SLOT_UNKNOWN,
                        .key = slice_text(w->truth.keys[key].name)};
    struct mark mark = {.key = m.key, .epoch = pos.epoch, .seq = pos.seq, .count = 1};
    switch (draw(w, 8)) {
    case 0:
        noise_publish(p, &m);
        return;
    case 1:
        m.type = MSG_SUB;
        m.sub.from_mode = draw(w, 3);
        m.sub.from_epoch = pos.epoch;
        m.sub.from_seq = pos.seq;
        break;
    case 2:
        m.type = MSG_SUBSYNC;
        m.key = (struct slice){0};
        m.subsync.full = draw(w, 4);
        m.subsync.rooms = (struct marks_list){&mark, 1};
        break;
    case 3:
        m.type = MSG_REPLAY_REQ;
        m.replay_req.epoch = pos.epoch;
        m.replay_req.after = pos.seq;
        m.replay_req.max_bytes = draw(w, 3) * 100;
        m.replay_req.max_items = draw(w, 4);
        m.replay_req.mode = draw(w, 3);
        m.replay_req.last = draw(w, 3);
        break;
    case 4:
        m.type = MSG_CREDIT;
        m.credit.granted = draw(w, 2) ? rng_u64(&w->rng) : draw(w, 1000);
        break;
    case 5: /* what only a shard says */
        m.type = MSG_PACK;
        m.pack.seq = pos.seq;
        break;
    case 6:
        m.type = MSG_ANSWER;
        m.answer.json = slice_text("{}");
        break;
    default:
        break;
    }
    hub_send(p->hub, 1 + (uint32_t)draw(w, w->dice.count[SHARD]), &m);
}

void intruder_turn(struct process *p)
{
    struct tick now = process_now(p);
    hub_tick(p->hub, now);
    if (p->world->storm) {
        if (!p->world->guests || now.mono_ns >= p->noise_ns)
            for (uint64_t n = draw(p->world, 3); n > 0; n--)
                noise(p);
        if (p->world->guests)
            wild_noise(p, now);
    }
    hub_flush(p->hub, now);
}
