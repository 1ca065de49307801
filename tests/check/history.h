/* SHELL. The one oracle: a history of what every publisher, subscriber and shard saw, and whether
 * it keeps the promises (rules H1 to H12, and R1 to R5 of rooms with handlers). Every test that
 * breaks things on purpose writes one and is judged here: the simulator through the calls below,
 * programs and scripts as JSON lines.
 *
 * THE FORMAT. One JSON object a line, no blank lines, no unknown or repeated member, ASCII escapes
 * allowed. `t` is nanoseconds of one clock that all writers share (CLOCK_MONOTONIC of a host,
 * virtual time of a simulator); lines need not be in order, they are sorted by `t`, equal ones stay
 * as they are. Numbers are unsigned 64-bit decimal. An ID is as clients see it:
 * "<base36 epoch>-<seq>", or "0". A MSG is a number other than 0 that the test gives each publish
 * (it travels in the payload; a retry has the same, an event of a batch shares its batch's). A WHO
 * is any name. A bracketed member may be left out.
 *
 *   {"op":"publish","t","who","key","msg",["n"],["pseq"],["conflate"],["ephemeral"],["aim"],["but"]}
 *       submitted; once for each try, the first counts. n: events of the batch (1). pseq: this is
 *       the who's pseq-th ordered publish to the key (0: not ordered, as over HTTP). conflate:
 * text. ephemeral: true. aim, but: who gets it, as bits that the test allots to names and tags: a
 * subscriber with the bits A gets it when (aim == 0 or aim & A) and not but & A
 *   {"op":"answer","t","who","key","msg","result",["id"],["dup"]}
 *       result: "ack" (id: of the batch's last event; none for an ephemeral one) "nack" "unknown"
 *       "timeout" (gave up waiting, not told anything)
 *   {"op":"subscribe","t","who","key",["after"] | ["replay"],["conflated"],["aim"]}
 *       begins a subscription; a second one of the same who and key ends the first. after: ID.
 *       replay: "all" (what there is, no word of what is gone), "none" (default) or a number.
 * conflated: true for readers that catch up with superseded events left out (sockets, SSE)
 *   {"op":"verdict","t","who","key","status",["head"],["from","to","reason"]}
 *       status: "live" "resumed" "missed" (from, to: IDs; everything after from through to is gone;
 *       reason: "expired" "evicted" "slow" "purged" "epoch"). "missed" may come in mid-stream. With
 *       replay "none" deliveries begin after head, which is then required
 *   {"op":"deliver","t","who","key",["id"],["msg"]}
 *       no id: an ephemeral event, or one of a dialect without ids; msg is then required
 *   {"op":"close","t","who",["key"]}
 *       the subscription ended; without key all of who's, and it waits for no answer any more. A
 *       reconnect is a close and a subscribe with `after`
 *   {"op":"trim","t","key","id","reason"}
 *       from now on everything through id may be gone (reason: "expired" "evicted" "purged"), or
 *       the whole epoch of id ("epoch": disk lost, adopted). What is gone without it was lost
 *   {"op":"crash","t","who"}  {"op":"restart","t","who"}       a process
 *   {"op":"own","t","who","slot","epoch"}  {"op":"drop", the same}
 *       the shard's file says OWNED / no longer. A crash does not end ownership; a restarted shard
 *       may say `own` of the same epoch again
 *   {"op":"calm","t"}      the storm is over
 *   {"op":"deadline","t"}  by now what was asked for before the last calm must have happened
 *   {"op":"log","t","key","id","msg"}   a record of the final log, oldest first
 *   {"op":"head","t","key","from","id"} the end of the dump: records after from through id stand
 *       above. Each key with acks needs one, else nothing can be decided (bad input)
 *   {"op":"arm","t","key","msg","due"}  {"op":"fire","t","key","msg"}   an alarm and its effect
 *
 * A ROOM WITH A HANDLER, of a test: one that counts its steps from 1, keeps all of them in its
 * state and tells all sockets of each. A step is what some run of the handler did, and its number
 * is `at`. WHO of a socket is its own: who comes back has another name.
 *   {"op":"call","t","who","key","msg"}   asked of the room under an id of its own; once for each
 * try
 *   {"op":"result","t","who","key","msg","result",["at"]}   "ack": it was done in that step
 *   {"op":"join","t","who","key"}   a socket asks to be let in; "joined", the same: it is
 *   {"op":"say","t","who","key","msg"}   a frame of it
 *   {"op":"hear","t","who","key","at"}   it hears of a step
 *   {"op":"leave","t","who","key"}   it has ended, whoever ended it
 *   {"op":"step","t","key","at","what",["who"],["msg"],["due"]}   of the room's own account, read
 * in the end: what: "connect" "close" (who) "say" (who, msg) "call" (msg) "arm" (msg; due: when its
 * alarm is, by the room's clock) "alarm" (due: the room's clock). An alarm that is armed takes the
 * place of the one before
 *   {"op":"steps","t","key","at",["due"]}   the account has so many; alarms that are due later, by
 *       the room's clock, need not have run. A room without is not judged: its disk is lost
 *
 * THE RULES, per key. A violation is told under exactly one:
 *   H1  an acknowledged event stands at its id in the final log, or was trimmed
 *   H2  a message has one place: acks agree, the log has it once
 *   H3  one order: the log has no holes; everybody sees the same event at the same id, nobody one
 *       that was never published; an event acknowledged before an ephemeral one was submitted is
 *       not delivered after it
 *   H4  a subscription skips nothing and repeats nothing; a `missed` is true and needed. Lawful to
 *       skip: what is not aimed at it, and, when conflated, what a later event supersedes that was
 *       published before the skip. An ephemeral event comes at most once
 *   H5  what was delivered (acknowledged or not) is in the final log, or was trimmed
 *   H6  a slot has one owner at a time, epochs increase
 *   H7  the log has a publisher's ordered publishes in their order (those acknowledged: one whose
 *       outcome was unknown may come late)
 *   H8  a publish submitted after another's ack stands behind it
 *   H9  at a deadline every open subscription has all that was acknowledged before the calm
 *   H10 an alarm has its effect once, not before it is due
 *   H11 a message that was never acknowledged is in the log at most once, and in whole
 *   H12 at a deadline every publish submitted before the calm was told ack, nack or unknown
 * and per room with a handler:
 *   R1  a call that was answered is the step that the answer says, behind all that was answered
 * before it was asked; no call is two steps, and none is a step that nobody asked for R2  a
 * socket's steps begin with its only connect and end with its only close; at a deadline who was let
 * in has connected, who has left before the calm has closed, and who is there has not R3  a socket
 * hears every step from its own connect on, once, in order, nothing after its end; at a deadline
 * who is there has heard of all that was answered before the calm R4  an alarm runs only where one
 * was armed, not before it is due, and not again; at a deadline one that was answered before the
 * calm has run R5  frames of a socket are taken in the order in which they were said, once each and
 * none left out; at a deadline all that was said before the calm by who is there
 *
 * COST. O(n log n); a struct of about 120 bytes an entry. history_clear keeps all memory, so a
 * simulator uses one history for all its seeds. */
#ifndef STOA_TESTS_CHECK_HISTORY_H
#define STOA_TESTS_CHECK_HISTORY_H

#include "common/base36.h"
#include "common/strbuf.h"

enum history_op {
    H_PUBLISH = 1,
    H_ANSWER,
    H_SUBSCRIBE,
    H_VERDICT,
    H_DELIVER,
    H_CLOSE,
    H_TRIM,
    H_CRASH,
    H_RESTART,
    H_OWN,
    H_DROP,
    H_CALM,
    H_DEADLINE,
    H_LOG,
    H_HEAD,
    H_ARM,
    H_FIRE,
    H_CALL,
    H_RESULT,
    H_JOIN,
    H_JOINED,
    H_SAY,
    H_HEAR,
    H_LEAVE,
    H_STEP,
    H_STEPS,
    H_OPS
};

/* result of an answer, start of a subscription, status of a verdict, what a step is */
enum history_what {
    H_ACK = 1,
    H_NACK,
    H_UNKNOWN,
    H_TIMEOUT,
    H_NONE, /* replay none */
    H_ALL,
    H_LAST, /* replay N: `number` */
    H_AFTER,
    H_LIVE,
    H_RESUMED,
    H_MISSED,
    H_DID_CONNECT,
    H_DID_CLOSE,
    H_DID_SAY,
    H_DID_CALL,
    H_DID_ARM,
    H_DID_ALARM
};
enum history_reason { H_EXPIRED = 1, H_EVICTED, H_SLOW, H_PURGED, H_EPOCH };

/* Zero-initialise; fields as in the format. Names (who, key, conflate) are numbers from
 * history_name; 0 is none. */
struct history_entry {
    uint8_t op;
    uint8_t what;
    uint8_t reason;
    bool ephemeral;
    bool dup;
    bool conflated;
    bool has_id; /* answer, deliver, verdict (head): `id` is set */
    uint32_t who;
    uint32_t key;
    uint32_t conflate;
    uint32_t n;    /* 0 counts as 1 */
    uint32_t slot; /* own, drop */
    uint64_t t;
    uint64_t msg;
    uint64_t pseq;
    uint64_t number; /* N of replay; epoch of own and drop; due of arm and of a step */
    uint64_t at;     /* of a step: 0 is none */
    uint64_t aim;
    uint64_t but;
    struct position id;   /* also `after`, and the head of a verdict */
    struct position from; /* verdict missed, head */
    struct position to;   /* verdict missed */
    uint64_t line;        /* set by history_add: 1 for the first */
};

struct history_violation {
    int rule;          /* 1..12: H1 to H12; 13..17: R1 to R5 */
    uint32_t key;      /* 0: none (H6) */
    uint64_t lines[3]; /* the entries involved; 0: none */
    char text[200];    /* what happened, in words */
};
#define HISTORY_VIOLATIONS_KEPT 64
#define HISTORY_LOG_RULES 12
#define HISTORY_RULES 17
#define HISTORY_ROOM_RULE(n) (HISTORY_LOG_RULES + (n))

struct history_report {
    size_t entries;
    size_t keys;
    size_t acks;       /* that were checked */
    size_t deliveries; /* likewise */
    size_t crashes;
    size_t violations;
    size_t steps; /* of rooms, likewise */
    size_t by_rule[HISTORY_RULES + 1];
    struct history_violation kept[HISTORY_VIOLATIONS_KEPT]; /* the first ones found */
    char bad[200]; /* not empty: the history itself cannot be judged, and why */
};

struct history;
struct history *history_create(void);
void history_destroy(struct history **h);
void history_clear(struct history *h);
uint32_t history_name(struct history *h, struct slice text); /* the same number for the same text */
struct slice history_text(const struct history *h, uint32_t name);
void history_add(struct history *h, const struct history_entry *e);
size_t history_count(const struct history *h);

/* One line of JSON (without the newline). ERR_INVALID: `why` says what is wrong with it. */
MUST_USE int history_read(struct history *h, struct slice line, char why[120]);
/* Appends an entry as a line, newline included. Names are those of `h`. */
void history_write(const struct history *h, const struct history_entry *e, struct strbuf *out);
/* Appends everything that was added. */
void history_dump(const struct history *h, struct strbuf *out);

/* Decides. The report belongs to `h` and lives until the next call on it. */
const struct history_report *history_check(struct history *h);
/* Appends violations and counts as text. */
void history_print(const struct history *h, const struct history_report *r, struct strbuf *out);

/* Adds about n entries of a lawful history with everything in it: for speed figures and tests. */
void history_generate(struct history *h, size_t n, uint64_t seed);

#endif
