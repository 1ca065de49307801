/* CORE. The caller: keeps every call until its outcome is known, sends it through the publisher's
 * router, and again when the answer was lost or a refusal was not final. What changes a room has an
 * id, so that a shard that has done it already answers again and does nothing.
 *
 *   queued --sent--> flying --RESULT, PACK---------------------------------> STOA_OK, STOA_ROOM
 *                    flying --NACK TOOBIG INVALID DENIED-------------------> refused for good
 *                    flying --NACK BUSY RATE MOVED NOTOWNER FROZEN DISK----> paused --> queued
 *                    flying --LOST, link down------------------------------> queued, uncertain
 *                    flying --CALL_SILENCE_MS without an answer------------> sent again, flying
 *   any --its time is over, or LOST three times under it (it may be this very call that ends the
 *         shard's process)--> STOA_UNKNOWN if it may have been done, else STOA_TIMEOUT or STOA_DISK
 *
 * Calls are first sent in the order in which they were submitted; one that is sent again may be
 * overtaken. At most CALLS_IN_FLIGHT_MAX are in flight; the others wait.
 *
 * Items of streams and outcomes are collected in lists, never told by a callback. A stream is not
 * told again: when a link was lost under it, items may be missing or come twice, and what would be
 * STOA_OK is STOA_MISSED. */
#ifndef STOA_CLIENT_CALLER_H
#define STOA_CLIENT_CALLER_H

#include "client/call.h"
#include "proto/hub.h"

#define CALLS_IN_FLIGHT_MAX 256
#define CALL_BYTES_IN_FLIGHT_MAX (1 * MIB)
#define CALL_SILENCE_MS 5000
#define CALL_LOSSES_MAX 3
/* Numbers of calls on the link that is shared with the publisher: this bit is theirs. */
#define CALLER_CID UINT64_C(0x80000000)

struct caller;

struct caller *caller_create(struct hub *hub, uint64_t seed);
/* Everything must have been taken back (caller_abandon). */
void caller_destroy(struct caller **caller);

/* Takes the call. */
void caller_submit(struct caller *c, struct call *call, struct tick now);
/* Sends what may be sent, times out. The hub is flushed by whoever owns it. */
void caller_turn(struct caller *c, struct tick now);
int64_t caller_deadline(const struct caller *c);

/* The router to be used from now on; 0: none. Answers through the one before are lost. */
void caller_use(struct caller *c, uint32_t router);
/* A shard may have lost answers to what is in flight. */
void caller_lost(struct caller *c);
/* A message whose cid has CALLER_CID. */
void caller_answer(struct caller *c, const struct message *m);

/* Calls taken and without outcome. */
size_t caller_pending(const struct caller *c);
size_t caller_in_flight(const struct caller *c);
/* Items of streams (struct call_item), each before its call is done; whoever takes one off the list
 * owns it. */
struct list *caller_items(struct caller *c);
/* Those whose outcome is known; whoever takes one off the list owns it. */
struct list *caller_done(struct caller *c);
/* Everything pending becomes STOA_UNKNOWN. */
void caller_abandon(struct caller *c);
/* For tests: the parts fit together (asserted). */
void caller_validate(const struct caller *c);

#endif
