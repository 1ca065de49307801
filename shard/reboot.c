/* CORE. Gateways that start anew. A gateway that was killed says nothing; the connections that it
 * had are unconfirmed once its link is down, and are waited for, as it may only have been cut off.
 * When a process of the same name and another boot is there, which began after the last word of
 * the old one, there is nobody left to wait for: what came by the old one's links ends at once.
 *
 *   old boot's link is down, new boot comes up --.
 *   new boot is up, old boot's link goes down ---'--> over: on_close, recovered
 *
 * Two living gateways of one name are not taken for each other: each is heard after the other has
 * begun. Only memory knows all this; after a restart of the shard connections are waited for. */
#include "shard/actor.h"

/* Connections are not waited for longer, so nothing needs to be known longer. */
#define PAST_NS ((MEMBER_CONFIRM_MS + 1000) * NS_PER_MS)

static void forget(struct shard *s)
{
    struct past *past = VEC_AT(&s->past, struct past);
    size_t kept = 0;
    for (size_t i = 0; i < s->past.count; i++) {
        if (past[i].lost_ns + PAST_NS > s->now.mono_ns)
            past[kept++] = past[i];
    }
    s->past.count = kept;
}

static bool same_process(const struct past *past, const struct peer_info *info)
{
    return past->boot == info->boot && strcmp(past->name, info->name) == 0;
}

static bool has_life(const struct room *room, uint32_t life)
{
    const struct actor *a = room->actor;
    for (uint32_t i = 0; i < room->n_links; i++) {
        if (room->links[i].life == life)
            return true;
    }
    for (size_t i = 0; a && i < a->connections.count; i++) {
        if (VEC_AT(&a->connections, struct connection *)[i]->life == life)
            return true;
    }
    return false;
}

static void end_of(struct shard *s, struct past *past)
{
    size_t cursor = 0, rooms = 0;
    struct room *room;
    past->over = true;
    while ((room = (struct room *)map_next(s->rooms, &cursor)) != NULL) {
        if (!heap_has(&room->confirm) || !has_life(room, past->life))
            continue;
        heap_set(&s->confirms, &room->confirm, s->now.mono_ns);
        rooms++;
    }
    LOG(s->log, LOG_INFO, "shard.gateway_replaced", LOG_STR("name", past->name),
        LOG_U64("rooms", rooms));
}

void reboot_up(struct shard *s, uint32_t peer, const struct peer_info *info)
{
    struct client *client = s->clients[peer];
    client->since_ns = hub_heard_ns(s->hub, peer);
    forget(s);
    for (size_t i = 0; i < s->past.count; i++) {
        const struct past *past = &VEC_AT(&s->past, struct past)[i];
        if (same_process(past, info) && past->since_ns < client->since_ns)
            client->since_ns = past->since_ns;
    }
    for (size_t i = 0; i < s->past.count; i++) {
        struct past *past = &VEC_AT(&s->past, struct past)[i];
        if (!past->over && strcmp(past->name, info->name) == 0 && past->boot != info->boot &&
            client->since_ns >= past->heard_ns)
            end_of(s, past);
    }
}

void reboot_down(struct shard *s, uint32_t peer)
{
    const struct client *client = s->clients[peer];
    const struct peer_info *info = hub_info(s->hub, peer);
    forget(s);
    struct past *past = VEC_PUSH(&s->past, struct past);
    *past = (struct past){.life = client->life,
                          .boot = info->boot,
                          .since_ns = client->since_ns,
                          .heard_ns = hub_heard_ns(s->hub, peer),
                          .lost_ns = s->now.mono_ns};
    memcpy(past->name, info->name, sizeof past->name);
    for (uint32_t other = 1; other <= PEERS_MAX; other++) {
        const struct client *c = s->clients[other];
        const struct peer_info *theirs = c ? hub_info(s->hub, other) : NULL;
        if (other == peer || !c || c->role != ROLE_GATEWAY || !theirs)
            continue;
        if (strcmp(theirs->name, past->name) == 0 && theirs->boot != past->boot &&
            c->since_ns >= past->heard_ns) {
            end_of(s, past);
            return;
        }
    }
}

bool reboot_is_over(const struct shard *s, uint32_t life)
{
    for (size_t i = 0; life != 0 && i < s->past.count; i++) {
        const struct past *past = &VEC_AT(&s->past, struct past)[i];
        if (past->life == life)
            return past->over;
    }
    return false;
}
