/* CORE. Slot -> owner, built from CLAIMs alone: the highest epoch heard for a slot wins, and an
 * older one does not win again after a withdrawal. Two claims of one (slot, epoch) by different
 * nodes, or by one node from two boots whose links are both up, void the slot for both (nobody is
 * served) until one of them withdraws. A claim of epoch 0 is none. Routers and gateways hold one.
 */
#ifndef STOA_PROTO_SLOTS_H
#define STOA_PROTO_SLOTS_H

#include "common/log.h"
#include "proto/message.h"

struct slots;

struct slot_owner {
    uint32_t peer;  /* 0: nobody */
    uint64_t epoch; /* highest epoch heard, also when peer is 0 */
};

struct slots *slots_create(void);
void slots_destroy(struct slots **s);
/* Replaces everything that `peer` (a node, a boot) claimed before. */
void slots_claim(struct slots *s, uint32_t peer, const uint8_t node[16], uint64_t boot,
                 const struct slot_range *ranges, size_t count, struct log *log);
/* The peer's link is down: its claims stay (it will be back), but it is not routed to while down.
 */
void slots_peer_down(struct slots *s, uint32_t peer);
void slots_forget(struct slots *s, uint32_t peer);
/* Owner to route to now: peer 0 when nobody claims it, it is contested, or its owner's link is
 * down. */
struct slot_owner slots_owner(const struct slots *s, uint16_t slot);
unsigned slots_owned(const struct slots *s, uint32_t peer); /* slots that peer wins */
unsigned slots_unowned(const struct slots *s); /* slots without an owner to route to now */

#endif
