/* SHELL. The history checker judged itself: each corrupted history breaks exactly one rule, which
 * is the one it is rejected for, and the lawful ones, with everything in them that looks like a
 * fault, are accepted. A history is JSON lines; `t` is put in by the line's place. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "history.h"

/* Shorthand: P publish, A ack, D deliver, L log; `k` is the key, `p` the publisher, `a` a reader.
 */
#define P(m) "{'op':'publish','who':'p','key':'k','msg':" #m "}\n"
#define PX(m, more) "{'op':'publish','who':'p','key':'k','msg':" #m "," more "}\n"
#define A(m, s) "{'op':'answer','who':'p','key':'k','msg':" #m ",'result':'ack','id':'1-" #s "'}\n"
#define AR(m, r) "{'op':'answer','who':'p','key':'k','msg':" #m ",'result':'" r "'}\n"
#define D(m, s) "{'op':'deliver','who':'a','key':'k','msg':" #m ",'id':'1-" #s "'}\n"
#define DE(m) "{'op':'deliver','who':'a','key':'k','msg':" #m "}\n"
#define L(m, s) "{'op':'log','key':'k','msg':" #m ",'id':'1-" #s "'}\n"
#define HEAD(f, s) "{'op':'head','key':'k','from':'" f "','id':'1-" #s "'}\n"
#define SUB(more) "{'op':'subscribe','who':'a','key':'k'," more "}\n"
#define ALL SUB("'replay':'all'")
#define MISS(f, t, r)                                                               \
    "{'op':'verdict','who':'a','key':'k','status':'missed','from':'" f "','to':'" t \
    "','reason':'" r "'}\n"
#define TRIM(id, r) "{'op':'trim','key':'k','id':'" id "','reason':'" r "'}\n"
#define CLOSE "{'op':'close','who':'a'}\n"
#define CRASH "{'op':'crash','who':'s'}\n{'op':'restart','who':'s'}\n"
#define OWN(w, e) "{'op':'own','who':'" w "','slot':7,'epoch':" #e "}\n"
#define DROP(w, e) "{'op':'drop','who':'" w "','slot':7,'epoch':" #e "}\n"
#define CALM "{'op':'calm'}\n"
#define DEADLINE "{'op':'deadline'}\n"
#define PA(m, s) P(m) A(m, s)
#define ROOM_RULE(n) HISTORY_ROOM_RULE(n)
/* Of rooms: the key is `r`; a and b are sockets, p calls. */
#define CALL(m) "{'op':'call','who':'p','key':'r','msg':" #m "}\n"
#define RESULT(m, n) "{'op':'result','who':'p','key':'r','msg':" #m ",'result':'ack','at':" #n "}\n"
#define OPEN(w) "{'op':'join','who':'" w "','key':'r'}\n{'op':'joined','who':'" w "','key':'r'}\n"
#define SAY(w, m) "{'op':'say','who':'" w "','key':'r','msg':" #m "}\n"
#define HEAR(w, n) "{'op':'hear','who':'" w "','key':'r','at':" #n "}\n"
#define LEAVE(w) "{'op':'leave','who':'" w "','key':'r'}\n"
#define STEP(n, what, more) "{'op':'step','key':'r','at':" #n ",'what':'" what "'," more "}\n"
#define CONNECTED(n, w) STEP(n, "connect", "'who':'" w "'")
#define CLOSED(n, w) STEP(n, "close", "'who':'" w "'")
#define SAID(n, w, m) STEP(n, "say", "'who':'" w "','msg':" #m)
#define CALLED(n, m) STEP(n, "call", "'msg':" #m)
#define ARMED(n, m, due) STEP(n, "arm", "'msg':" #m ",'due':" #due)
#define RANG(n, due) STEP(n, "alarm", "'due':" #due)
#define STEPS(n) "{'op':'steps','key':'r','at':" #n "}\n"
#define END CALM DEADLINE
#define THREE PA(1, 1) PA(2, 2) PA(3, 3)
#define LOG3 L(1, 1) L(2, 2) L(3, 3) HEAD("0", 3)

static void fill(struct history *h, const char *text)
{
    char line[512], why[120];
    for (int t = 1; *text; t++) {
        size_t n = (size_t)snprintf(line, sizeof line, "{\"t\":%d,", t);
        for (text++; *text != '\n'; text++)
            line[n++] = *text == '\'' ? '"' : *text;
        text++;
        if (history_read(h, slice_of(line, n), why) != ERR_OK)
            ck_abort_msg("%.*s: %s", (int)n, line, why);
    }
}

static const struct {
    const char *name;
    int rule;
    const char *text;
} corrupted[] = {
    {"acked, not in the log", 1, THREE L(1, 1) L(2, 2) HEAD("0", 2)},
    {"acked, another stands there", 1, P(4) THREE L(1, 1) L(4, 2) L(3, 3) HEAD("0", 3)},
    {"gone without a trim", 1, THREE L(2, 2) L(3, 3) HEAD("1-1", 3)},
    {"gone beyond the trim", 1, THREE TRIM("1-1", "evicted") L(3, 3) HEAD("1-2", 3)},
    {"half of an acked batch lost", 1, PX(1, "'n':2") A(1, 2) L(1, 1) HEAD("0", 1)},
    {"two acks of a message", 2, PA(1, 1) P(1) A(1, 2) P(2) A(2, 2) L(1, 1) L(2, 2) HEAD("0", 2)},
    {"an acked message twice in the log", 2, PA(1, 1) L(1, 1) L(1, 2) HEAD("0", 2)},
    {"a hole in the log", 3, PA(1, 1) P(2) PA(3, 3) L(1, 1) L(3, 3) HEAD("0", 3)},
    {"a reader sees another event at an id", 3, THREE ALL D(1, 1) D(3, 2) LOG3},
    {"delivered, never published", 3, PA(1, 1) ALL D(1, 1) D(9, 2) L(1, 1) HEAD("0", 1)},
    {"stored, never published", 3, PA(1, 1) L(1, 1) L(9, 2) HEAD("0", 2)},
    {"an id twice in the log", 3, PA(1, 1) P(2) L(1, 1) L(2, 1) HEAD("0", 1)},
    {"delivered to whom it is not aimed at", 3,
     PX(1, "'aim':2") A(1, 1) SUB("'replay':'all','aim':1") D(1, 1) L(1, 1) HEAD("0", 1)},
    {"an ephemeral one overtakes", 3,
     PX(9, "'ephemeral':true,'n':1") ALL P(1) A(1, 1) PX(8, "'ephemeral':true") DE(8) D(1, 1)
         L(1, 1) HEAD("0", 1)},
    {"a gap", 4, THREE ALL D(1, 1) D(3, 3) LOG3},
    {"a repeat", 4, THREE ALL D(1, 1) D(2, 2) D(2, 2) D(3, 3) LOG3},
    {"backwards", 4, THREE SUB("'after':'1-2'") D(1, 1) LOG3},
    {"a gap over a reconnect", 4, THREE ALL D(1, 1) CLOSE SUB("'after':'1-1'") D(3, 3) LOG3},
    {"a miss of what is there", 4,
     THREE SUB("'after':'0'") MISS("0", "1-2", "expired") D(3, 3) LOG3},
    {"a miss of what is there, from a history's beginning", 4,
     THREE SUB("'after':'0'") MISS("1-0", "1-2", "expired") D(3, 3) LOG3},
    {"a miss that begins behind what is owed", 4,
     THREE TRIM("1-2", "evicted") SUB("'after':'0'") MISS("1-1", "1-2", "evicted") D(3, 3) L(3, 3)
         HEAD("1-2", 3)},
    {"a miss of more than was trimmed", 4,
     THREE TRIM("1-1", "evicted") SUB("'after':'0'") MISS("0", "1-2", "evicted") D(3, 3) L(2, 2)
         L(3, 3) HEAD("1-1", 3)},
    {"trimmed, and not told", 4,
     THREE TRIM("1-1", "expired") SUB("'after':'0'") D(2, 2) D(3, 3) L(2, 2) L(3, 3)
         HEAD("1-1", 3)},
    {"skipped, superseded only later", 4,
     PX(1, "'conflate':'c'") A(1, 1) PA(2, 2) SUB("'replay':'all','conflated':true") D(2, 2)
         PX(3, "'conflate':'c'") A(3, 3) D(3, 3) LOG3},
    {"superseded, left out of a full reading", 4,
     PX(1, "'conflate':'c'") A(1, 1) PX(2, "'conflate':'c'") A(2, 2) ALL D(2, 2) L(1, 1) L(2, 2)
         HEAD("0", 2)},
    {"an ephemeral event twice", 4, ALL PX(1, "'ephemeral':true") DE(1) DE(1)},
    {"a delivery after the close", 4, PA(1, 1) ALL CLOSE D(1, 1) L(1, 1) HEAD("0", 1)},
    {"begins past what was submitted later", 4,
     PA(1, 1) SUB("'replay':'none'") "{'op':'verdict','who':'a','key':'k','status':'live','head':'"
                                     "1-2'}\n" PA(2, 2) PA(3, 3) D(3, 3) LOG3},
    {"more than was asked for", 4,
     THREE SUB(
         "'replay':1") "{'op':'verdict','who':'a','key':'k','status':'live','head':'1-3'}\n" D(2, 2)
         D(3, 3) LOG3},
    {"another history, not told", 4,
     PA(1, 1) ALL D(1, 1) TRIM("1-1", "epoch")
         P(2) "{'op':'answer','who':'p','key':'k','msg':2,'result':'ack','id':'2-1'}\n"
              "{'op':'deliver','who':'a','key':'k','msg':2,'id':'2-1'}\n"
              "{'op':'log','key':'k','msg':2,'id':'2-1'}\n{'op':'head','key':'k','from':'0','id':'"
              "2-1'}\n"},
    {"an ephemeral one overtakes, in a history that nobody lost", 3,
     PX(9, "'ephemeral':true") SUB("'after':'2-0'") PA(1, 1) PX(8, "'ephemeral':true")
         DE(8) "{'op':'deliver','who':'a','key':'k','msg':1,'id':'2-1'}\n" TRIM(
             "1-1", "epoch") "{'op':'log','key':'k','msg':1,'id':'2-1'}\n"
                             "{'op':'head','key':'k','from':'0','id':'2-1'}\n"},
    {"delivered, lost in a crash", 5, PA(1, 1) P(2) ALL D(1, 1) D(2, 2) CRASH L(1, 1) HEAD("0", 1)},
    {"two owners", 6, OWN("x", 1) OWN("y", 2)},
    {"an epoch again", 6, OWN("x", 2) DROP("x", 2) OWN("y", 2)},
    {"dropped by a stranger", 6, OWN("x", 1) DROP("y", 1)},
    {"a publisher's order", 7,
     PX(1, "'pseq':1") PX(2, "'pseq':2") A(2, 1) A(1, 2) L(2, 1) L(1, 2) HEAD("0", 2)},
    {"before what was acked earlier", 8, P(1) A(1, 2) P(2) A(2, 1) L(2, 1) L(1, 2) HEAD("0", 2)},
    {"a reader behind", 9, THREE ALL D(1, 1) CALM DEADLINE LOG3},
    {"an alarm early", 10,
     "{'op':'arm','key':'k','msg':1,'due':50}\n{'op':'fire','key':'k','msg':1}\n"},
    {"an alarm twice", 10,
     "{'op':'arm','key':'k','msg':1,'due':1}\n{'op':'fire','key':'k','msg':1}\n"
     "{'op':'fire','key':'k','msg':1}\n"},
    {"refused, and there twice", 11, P(1) AR(1, "nack") L(1, 1) L(1, 2) HEAD("0", 2)},
    {"half a batch", 11, PX(1, "'n':2") AR(1, "timeout") L(1, 1) HEAD("0", 1)},
    {"a publisher stuck", 12, P(1) AR(1, "timeout") CALM DEADLINE},
    {"a call answered and not done", ROOM_RULE(1), CALL(1) RESULT(1, 1) STEPS(0)},
    {"a call answered as another step", ROOM_RULE(1),
     CALL(1) CALL(2) RESULT(1, 2) CALLED(1, 1) CALLED(2, 2) STEPS(2)},
    {"a call done twice", ROOM_RULE(1), CALL(1) RESULT(1, 1) CALLED(1, 1) CALLED(2, 1) STEPS(2)},
    {"a call done twice, never answered", ROOM_RULE(1), CALL(1) CALLED(1, 1) CALLED(2, 1) STEPS(2)},
    {"a retry has another answer", ROOM_RULE(1),
     CALL(1) RESULT(1, 1) CALL(1) RESULT(1, 2) CALLED(1, 1) STEPS(1)},
    {"a call that nobody made", ROOM_RULE(1), CALLED(1, 7) STEPS(1)},
    {"a call before what was answered earlier", ROOM_RULE(1),
     CALL(1) RESULT(1, 2) CALL(2) CALLED(1, 2) CALLED(2, 1) STEPS(2)},
    {"no connect", ROOM_RULE(2), OPEN("a") STEPS(0)},
    {"two connects", ROOM_RULE(2), OPEN("a") CONNECTED(1, "a") CONNECTED(2, "a") STEPS(2)},
    {"no close", ROOM_RULE(2), OPEN("a") LEAVE("a") END CONNECTED(1, "a") STEPS(1)},
    {"two closes", ROOM_RULE(2),
     OPEN("a") LEAVE("a") END CONNECTED(1, "a") CLOSED(2, "a") CLOSED(3, "a") STEPS(3)},
    {"a close of who is there", ROOM_RULE(2),
     OPEN("a") END CONNECTED(1, "a") CLOSED(2, "a") STEPS(2)},
    {"a frame after the close", ROOM_RULE(2),
     OPEN("a") SAY("a", 1) LEAVE("a") CONNECTED(1, "a") CLOSED(2, "a") SAID(3, "a", 1) STEPS(3)},
    {"a frame before the connect", ROOM_RULE(2),
     OPEN("a") SAY("a", 1) SAID(1, "a", 1) CONNECTED(2, "a") STEPS(2)},
    {"a stranger", ROOM_RULE(2), CONNECTED(1, "x") STEPS(1)},
    {"a step not heard", ROOM_RULE(3),
     OPEN("a") HEAR("a", 1) CALL(1) CALL(2) HEAR("a", 3) CONNECTED(1, "a") CALLED(2, 1) CALLED(3, 2)
         STEPS(3)},
    {"a step heard twice", ROOM_RULE(3),
     OPEN("a") HEAR("a", 1) HEAR("a", 1) CONNECTED(1, "a") STEPS(1)},
    {"heard after the end", ROOM_RULE(3),
     OPEN("a") HEAR("a", 1) LEAVE("a") HEAR("a", 2) CONNECTED(1, "a") CLOSED(2, "a") STEPS(2)},
    {"heard before the own connect", ROOM_RULE(3),
     CALL(1) OPEN("a") HEAR("a", 1) HEAR("a", 2) CALLED(1, 1) CONNECTED(2, "a") STEPS(2)},
    {"heard, and not in the account", ROOM_RULE(3),
     OPEN("a") HEAR("a", 1) HEAR("a", 2) CONNECTED(1, "a") STEPS(1)},
    {"answered long ago, not heard", ROOM_RULE(3),
     OPEN("a") HEAR("a", 1) CALL(1) RESULT(1, 2) END CONNECTED(1, "a") CALLED(2, 1) STEPS(2)},
    {"an alarm that never runs", ROOM_RULE(4), CALL(1) RESULT(1, 1) END ARMED(1, 1, 50) STEPS(1)},
    {"an alarm without an arm", ROOM_RULE(4),
     CALL(1) RESULT(1, 1) ARMED(1, 1, 50) RANG(2, 50) RANG(3, 60) STEPS(3)},
    {"an alarm too early", ROOM_RULE(4), CALL(1) ARMED(1, 1, 50) RANG(2, 49) STEPS(2)},
    {"a frame twice", ROOM_RULE(5),
     OPEN("a") SAY("a", 1) CONNECTED(1, "a") SAID(2, "a", 1) SAID(3, "a", 1) STEPS(3)},
    {"a frame left out", ROOM_RULE(5),
     OPEN("a") SAY("a", 1) SAY("a", 2) CONNECTED(1, "a") SAID(2, "a", 2) STEPS(2)},
    {"a frame never taken", ROOM_RULE(5), OPEN("a") SAY("a", 1) END CONNECTED(1, "a") STEPS(1)},
};

START_TEST(rejected)
{
    struct history *h = history_create();
    fill(h, corrupted[_i].text);
    const struct history_report *r = history_check(h);
    struct strbuf out = {0};
    history_print(h, r, &out);
    if (r->bad[0] || r->violations == 0 || r->by_rule[corrupted[_i].rule] != r->violations)
        ck_abort_msg("%s (rule %d): %s", corrupted[_i].name, corrupted[_i].rule, strbuf_cstr(&out));
    ck_assert_uint_eq(r->violations, 1);
    ck_assert(r->kept[0].lines[0] > 0);
    strbuf_free(&out);
    history_destroy(&h);
}
END_TEST

static const struct {
    const char *name;
    const char *text;
} lawful[] = {
    {"nothing", ""},
    {"read live and resumed", PA(1, 1) ALL D(1, 1) PA(2, 2) CLOSE SUB("'after':'1-1'") D(2, 2)
                                  CRASH PA(3, 3) D(3, 3) CALM DEADLINE LOG3},
    {"a true miss", THREE TRIM("1-2", "expired") SUB("'after':'0'") MISS("0", "1-2", "expired")
                        D(3, 3) CALM DEADLINE L(3, 3) HEAD("1-2", 3)},
    {"a true miss, from a history's beginning",
     THREE TRIM("1-2", "expired") SUB("'after':'0'") MISS("1-0", "1-2", "expired") D(3, 3) L(3, 3)
         HEAD("1-2", 3)},
    {"acknowledged in a lost history, stored again behind an ephemeral one",
     PA(1, 1) TRIM("1-1", "epoch") SUB("'after':'2-0'") PX(8, "'ephemeral':true")
         DE(8) "{'op':'deliver','who':'a','key':'k','msg':1,'id':'2-1'}\n"
               "{'op':'log','key':'k','msg':1,'id':'2-1'}\n{'op':'head','key':'k','from':'0','id':'"
               "2-1'}\n"},
    {"a miss in mid-stream", ALL PA(1, 1) D(1, 1) PA(2, 2) PA(3, 3) TRIM("1-2", "evicted")
                                 MISS("1-1", "1-2", "slow") D(3, 3) L(3, 3) HEAD("1-2", 3)},
    {"trimmed after it was read",
     ALL THREE D(1, 1) D(2, 2) D(3, 3) TRIM("1-3", "purged") HEAD("1-3", 3)},
    {"a lost disk, told",
     PA(1, 1) ALL D(1, 1) TRIM("1-1", "epoch") MISS("1-1", "2-0", "epoch")
         P(2) "{'op':'answer','who':'p','key':'k','msg':2,'result':'ack','id':'2-1'}\n"
              "{'op':'deliver','who':'a','key':'k','msg':2,'id':'2-1'}\n"
              "{'op':'log','key':'k','msg':2,'id':'2-1'}\n{'op':'head','key':'k','from':'0','id':'"
              "2-1'}\n"},
    {"an id from the future",
     PA(1, 1) SUB("'after':'9-7'") MISS("9-7", "1-0", "epoch") D(1, 1) L(1, 1) HEAD("0", 1)},
    {"superseded, left out",
     PX(1, "'conflate':'c'") A(1, 1) PA(2, 2) PX(3, "'conflate':'c'") A(3, 3)
         SUB("'replay':'all','conflated':true") D(2, 2) D(3, 3) CALM DEADLINE LOG3},
    {"ephemeral, lost or once",
     ALL PX(8, "'ephemeral':true") AR(8, "ack") DE(8) PX(9, "'ephemeral':true") AR(9, "ack")
         PA(1, 1) D(1, 1) CLOSE SUB("'after':'1-1'") CALM DEADLINE L(1, 1) HEAD("0", 1)},
    {"refused, unknown, timed out: there or not",
     P(1) AR(1, "nack") P(2) AR(2, "unknown") P(3) AR(3, "timeout") P(4) AR(4, "nack") PA(5, 3)
         ALL D(1, 1) D(2, 2) D(5, 3) L(1, 1) L(2, 2) L(5, 3) HEAD("0", 3)},
    {"retried, the same answer", P(1) AR(1, "timeout") P(1) A(1, 1) A(1, 1) L(1, 1) HEAD("0", 1)},
    {"filters and a batch", PX(1, "'aim':2") A(1, 1) PX(2, "'but':1") A(2, 2) PX(3, "'n':2") A(3, 4)
                                SUB("'replay':'all','aim':1") D(3, 3) D(3, 4) CALM DEADLINE L(1, 1)
                                    L(2, 2) L(3, 3) L(3, 4) HEAD("0", 4)},
    {"a slot that moves and comes back, a restart",
     OWN("x", 1) OWN("x", 1) DROP("x", 1) OWN("y", 2) DROP("y", 2) OWN("x", 3)},
    {"who left waits for nothing", P(1) "{'op':'close','who':'p'}\n" CALM DEADLINE},
    {"an alarm", "{'op':'arm','key':'k','msg':1,'due':2}\n{'op':'fire','key':'k','msg':1}\n"},
    {"the last two, then live",
     THREE SUB(
         "'replay':2") "{'op':'verdict','who':'a','key':'k','status':'live','head':'1-3'}\n" D(2, 2)
         D(3, 3) PA(4, 4) D(4, 4) CALM DEADLINE L(1, 1) L(2, 2) L(3, 3) L(4, 4) HEAD("0", 4)},
    {"a room in use",
     OPEN("a") HEAR("a", 1) CALL(1) SAY("a", 7) OPEN("b") HEAR("b", 3) RESULT(1, 2) CRASH HEAR(
         "a", 2) HEAR("a", 3) SAY("a", 8) HEAR("a", 4) HEAR("b", 4) LEAVE("b") HEAR("a", 5) CALL(2)
         RESULT(2, 6) HEAR("a", 6) HEAR("a", 7) END CONNECTED(1, "a") CALLED(2, 1) CONNECTED(3, "b")
             SAID(4, "a", 7) CLOSED(5, "b") ARMED(6, 2, 50) RANG(7, 51) SAID(8, "a", 8) STEPS(8)},
    {"a room: unknown outcomes, done or not, and a retry with its answer",
     CALL(1) "{'op':'result','who':'p','key':'r','msg':1,'result':'unknown'}\n" CALL(2) CALL(3)
         CALL(3) RESULT(3, 2) CALL(3) RESULT(3, 2) END CALLED(1, 1) CALLED(2, 3) STEPS(2)},
    {"a room: who left before it was in, frames of who left, an alarm put off",
     "{'op':'join','who':'a','key':'r'}\n" LEAVE("a") OPEN("b") SAY("b", 1) SAY("b", 2) LEAVE("b")
         CALL(1) CALL(2) RESULT(1, 5) RESULT(2, 6) END CONNECTED(1, "a") CONNECTED(2, "b")
             SAID(3, "b", 1) CLOSED(4, "b") ARMED(5, 1, 90) ARMED(6, 2, 70) CLOSED(7, "a")
                 RANG(8, 70) STEPS(8)},
    {"a room: an alarm that is due later",
     CALL(1) RESULT(1, 1) END ARMED(1, 1, 50) "{'op':'steps','key':'r','at':1,'due':49}\n"},
    {"a room whose disk is lost", OPEN("a") HEAR("a", 1) CALL(1) RESULT(1, 2) END},
    {"two publishes at once, acks out of order",
     P(1) P(2) A(2, 2) A(1, 1) L(1, 1) L(2, 2) HEAD("0", 2)},
};

START_TEST(accepted)
{
    struct history *h = history_create();
    fill(h, lawful[_i].text);
    for (int twice = 0; twice < 2; twice++) {
        const struct history_report *r = history_check(h);
        struct strbuf out = {0};
        history_print(h, r, &out);
        if (r->bad[0] || r->violations)
            ck_abort_msg("%s: %s", lawful[_i].name, strbuf_cstr(&out));
        strbuf_free(&out);
    }
    history_destroy(&h);
}
END_TEST

START_TEST(refused_lines)
{
    static const char *const table[] = {
        "",
        "{}",
        "{\"op\":\"calm\"}",
        "{\"op\":\"calm\",\"t\":1,\"t\":1}",
        "{\"op\":\"calm\",\"t\":-1}",
        "{\"op\":\"calm\",\"t\":18446744073709551616}",
        "{\"op\":\"calm\",\"t\":1}x",
        "{\"op\":\"calm\",\"t\":1,\"who\":\"a\"}",
        "{\"op\":\"storm\",\"t\":1}",
        "{\"op\":\"log\",\"t\":1,\"key\":\"k\",\"id\":\"1-0\",\"msg\":1}",
        "{\"op\":\"log\",\"t\":1,\"key\":\"k\",\"id\":\"0-1\",\"msg\":1}",
        "{\"op\":\"log\",\"t\":1,\"key\":\"\xff\",\"id\":\"1-1\",\"msg\":1}",
        "{\"op\":\"result\",\"t\":1,\"who\":\"p\",\"key\":\"r\",\"msg\":1,\"result\":\"ack\"}",
        "{\"op\":\"hear\",\"t\":1,\"who\":\"a\",\"key\":\"r\",\"at\":0}",
        "{\"op\":\"step\",\"t\":1,\"key\":\"r\",\"at\":1,\"what\":\"call\",\"who\":\"a\"}"};
    struct history *h = history_create();
    char why[120];
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (history_read(h, slice_text(table[i]), why) == ERR_OK)
            ck_abort_msg("%s", table[i]);
    ck_assert_uint_eq(history_count(h), 0);
    history_destroy(&h);
}
END_TEST

START_TEST(acks_without_a_log_cannot_be_judged)
{
    struct history *h = history_create();
    fill(h, THREE);
    ck_assert(history_check(h)->bad[0]);
    history_clear(h);
    fill(h, THREE LOG3);
    ck_assert(!history_check(h)->bad[0]);
    history_destroy(&h);
}
END_TEST

/* What is written reads back as the same bytes, in any order of lines, with the same verdict. */
START_TEST(round_trip)
{
    struct history *a = history_create(), *b = history_create();
    for (size_t i = 0; i < sizeof lawful / sizeof *lawful; i++) {
        history_clear(a);
        history_clear(b);
        fill(a, lawful[i].text);
        struct strbuf one = {0}, two = {0};
        history_dump(a, &one);
        const char *end = strbuf_cstr(&one) + one.size;
        char why[120];
        for (const char *p = end; p > (const char *)one.data;) { /* last line first */
            const char *start = p - 1;
            while (start > (const char *)one.data && start[-1] != '\n')
                start--;
            ck_assert_int_eq(history_read(b, slice_of(start, (size_t)(p - 1 - start)), why),
                             ERR_OK);
            p = start;
        }
        ck_assert_uint_eq(history_check(b)->violations, 0);
        history_dump(b, &two); /* sorted by now */
        ck_assert_str_eq(strbuf_cstr(&one), strbuf_cstr(&two));
        strbuf_free(&one);
        strbuf_free(&two);
    }
    history_destroy(&a);
    history_destroy(&b);
}
END_TEST

START_TEST(accounts_that_cannot_be_judged)
{
    static const char *const table[] = {CALL(1) CALLED(2, 1) STEPS(2), CALL(1) CALLED(1, 1),
                                        CALL(1) CALLED(1, 1) STEPS(2), RESULT(1, 1), HEAR("a", 1)};
    struct history *h = history_create();
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        history_clear(h);
        fill(h, table[i]);
        ck_assert_msg(history_check(h)->bad[0], "%s", table[i]);
    }
    history_destroy(&h);
}
END_TEST

START_TEST(generated_is_lawful)
{
    struct history *h = history_create();
    for (uint64_t seed = 0; seed < 50; seed++) {
        history_clear(h);
        history_generate(h, 3000, seed);
        const struct history_report *r = history_check(h);
        ck_assert_uint_ge(r->entries, 3000);
        ck_assert_uint_eq(r->violations, 0);
        ck_assert(!r->bad[0] && r->deliveries > 1000 && r->acks > 300);
    }
    history_destroy(&h);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("history");
    TCase *t = tcase_create("history");
    tcase_add_loop_test(t, rejected, 0, sizeof corrupted / sizeof *corrupted);
    tcase_add_loop_test(t, accepted, 0, sizeof lawful / sizeof *lawful);
    tcase_add_test(t, refused_lines);
    tcase_add_test(t, acks_without_a_log_cannot_be_judged);
    tcase_add_test(t, accounts_that_cannot_be_judged);
    tcase_add_test(t, round_trip);
    tcase_add_test(t, generated_is_lawful);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
