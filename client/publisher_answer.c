/* CORE. What the hub tells the publisher: answers to publishes and calls, and links that come and
 * go. An answer to a transmission that was given up (its cid is no longer flying) is ignored: the
 * publish goes out again and gets another. */
#include "client/publisher_internal.h"

/* ---- answers ---- */

static void packed(struct publisher *p, struct publish *publish, const struct msg_pack *pack)
{
    struct lane *l = publish->lane;
    l->attempts = 0;
    l->progress_ns = p->now.mono_ns;
    publish->id = (stoa_id){pack->room_epoch, pack->seq, pack->dup != 0};
    lane_end(p, publish, STOA_OK);
}

/* The outcome that a refusal means when it is final; STOA_OK: it is not. Rights change: what is
 * denied now may have been stored by a transmission whose answer was lost. */
static int final_status(uint64_t code, const struct publish *publish)
{
    bool ephemeral = publish->ephemeral;
    switch (code) {
    case NACK_TOOBIG:
        return STOA_TOO_LARGE;
    case NACK_DENIED:
        return publish->uncertain ? STOA_UNKNOWN : STOA_DENIED;
    case NACK_INVALID:
        return STOA_INVALID;
    case NACK_STALE:
        return STOA_UNKNOWN;
    case NACK_DISK:
        return ephemeral ? STOA_DISK : STOA_OK;
    default:
        return ephemeral ? STOA_BUSY : STOA_OK;
    }
}

static struct publish *find_numbered(const struct lane *l, uint64_t pseq)
{
    for (struct list *at = l->queue.next; at != &l->queue; at = at->next)
        if (publish_of(at)->pseq == pseq)
            return publish_of(at);
    return NULL;
}

static void out_of_order(struct publisher *p, struct publish *publish, uint64_t expected)
{
    struct lane *l = publish->lane;
    if (expected > publish->pseq) {
        /* The shard has taken this number, and numbers are never used twice, but it no longer
         * knows the id: stored once, and sending it under another number might store it again. */
        lane_end(p, publish, STOA_UNKNOWN);
        return;
    }
    struct publish *from = expected > 0 ? find_numbered(l, expected) : NULL;
    if (from) /* in flight, as it is not behind this one */
        lane_go_back(p, l, from, true);
    else
        lane_number_anew(p, l);
    if (l->attempts > 0)
        lane_pause(p, l, 0);
    else
        l->attempts = 1;
    lane_settle(p, l);
}

static void refused(struct publisher *p, struct publish *publish, const struct msg_nack *nack)
{
    struct lane *l = publish->lane;
    int status = final_status(nack->code, publish);
    l->progress_ns = p->now.mono_ns;
    publish->disk = nack->code == NACK_DISK;
    if (status != STOA_OK) {
        lane_end(p, publish, status);
        return;
    }
    if (nack->code == NACK_ORDER) {
        out_of_order(p, publish, nack->expected);
        return;
    }
    lane_go_back(p, l, publish, false);
    lane_pause(p, l, nack->retry_ms);
    lane_settle(p, l);
}

void publisher_lost_all(struct publisher *p)
{
    while (!list_empty(&p->flights))
        lane_end(p, publish_of(p->flights.next), STOA_UNKNOWN);
    size_t cursor = 0;
    for (struct lane *l; (l = map_next(p->lanes, &cursor)) != NULL;) {
        struct publish *first = lane_first_flying(l);
        if (!first)
            continue;
        lane_go_back(p, l, first, true);
        lane_settle(p, l);
    }
}

/* ---- the hub's events ---- */

static void on_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    (void)packet;
    struct publisher *p = ctx;
    if (peer != p->router)
        return;
    if (m->type == MSG_LOST) {
        publisher_lost_all(p);
        caller_lost(p->caller);
        return;
    }
    if (m->cid & CALLER_CID) {
        caller_answer(p->caller, m);
        return;
    }
    struct publish *publish = map_get(p->flying, map_id(&m->cid));
    if (publish && m->type == MSG_PACK)
        packed(p, publish, &m->pack);
    else if (publish && m->type == MSG_NACK)
        refused(p, publish, &m->nack);
}

static void router_use(struct publisher *p, uint32_t peer)
{
    const struct peer_info *info = hub_info(p->hub, peer);
    p->router = peer;
    caller_use(p->caller, peer);
    p->win_messages = info->win_msgs ? info->win_msgs : WINDOW_DEFAULT_MESSAGES;
    p->win_bytes = info->win_bytes ? info->win_bytes : WINDOW_DEFAULT_BYTES;
    LOG(p->log, LOG_INFO, "publisher.router", LOG_U64("peer", peer), LOG_STR("name", info->name));
}

static void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    struct publisher *p = ctx;
    (void)info;
    if (p->router == 0)
        router_use(p, peer);
}

static void on_down(void *ctx, uint32_t peer)
{
    struct publisher *p = ctx;
    if (peer != p->router)
        return;
    p->router = 0;
    publisher_lost_all(p);
    caller_use(p->caller, 0);
    for (uint32_t i = 1; i < p->n_routers; i++) {
        uint32_t other = (peer - 1 + i) % p->n_routers + 1;
        if (hub_is_up(p->hub, other)) {
            router_use(p, other);
            return;
        }
    }
    LOG0(p->log, LOG_WARN, "publisher.no_router");
}

struct hub_handler publisher_handler(struct publisher *p)
{
    return (struct hub_handler){
        .ctx = p, .on_up = on_up, .on_down = on_down, .on_message = on_message};
}
