/* SHELL. Rooms with handlers: what callers and sockets saw against the room's own account, which is
 * its state at the end. Decides R1 to R5.
 *
 * Two passes: entries in the order of time give calls, seats (one is what a socket has in a room)
 * and the account; then each step of the account is held against who asked for it. What a socket
 * hears is judged in the first pass, as it needs no account but in the end. Rooms whose account is
 * not there are passed over: their disk was lost. */
#include "internal.h"

#define R(n) HISTORY_ROOM_RULE(n)

struct room {
    uint32_t name;
    uint32_t end; /* rank of H_STEPS, or NONE */
    uint64_t steps;
    uint64_t acked; /* the highest step that anybody was told of by an answer, so far */
    uint64_t acked_calm;
    uint32_t armed; /* the latest arm without its alarm: a step's index, or NONE */
    bool bad;       /* its account is not whole, and that was told */
};

struct call {
    uint64_t msg;
    uint64_t floor; /* answered before it was asked */
    uint64_t at;    /* as answered, 0: not */
    uint32_t key;
    uint32_t submit, ack; /* ranks */
    uint32_t done;        /* rank of its step, or NONE */
    bool bad;
};

struct said {
    uint64_t msg;
    uint32_t rank;
};

struct seat {
    uint32_t key, who;
    uint32_t join, joined, leave; /* ranks, or NONE */
    uint64_t heard;               /* the latest step that it heard of, 0: none */
    uint64_t first_heard;
    uint32_t heard_rank;
    struct array says;     /* struct said; in the history's memory until the next check */
    size_t taken;          /* of them, by steps */
    uint32_t connect, end; /* ranks of steps, or NONE */
    bool bad;              /* told of already */
};

struct checker {
    struct history *h;
    uint32_t calm, deadline; /* ranks of the last of them, or NONE */
};

/* ---- finding ---- */

static struct room *room_of(struct history *h, uint32_t key)
{
    uint32_t *i = table_at(&h->room_index, key, 0);
    if (*i == NONE) {
        *i = (uint32_t)h->rooms.count;
        struct room *r = array_add(&h->rooms, sizeof *r);
        r->name = key;
        r->end = r->armed = NONE;
    }
    return (struct room *)h->rooms.data + *i;
}

static struct call *call_find(struct history *h, uint32_t key, uint64_t msg)
{
    uint32_t i = table_get(&h->call_index, key, msg);
    return i == NONE ? NULL : (struct call *)h->calls.data + i;
}

static struct seat *seat_find(struct history *h, uint32_t key, uint32_t who)
{
    uint32_t i = table_get(&h->seat_index, key, who);
    return i == NONE ? NULL : (struct seat *)h->seats.data + i;
}

/* The rank of a step of the account, or NONE. */
static uint32_t step_find(struct history *h, uint32_t key, uint64_t at)
{
    return table_get(&h->step_index, key, at);
}

/* ---- first pass ---- */

static void on_call(struct history *h, const struct history_entry *e, uint32_t rank)
{
    uint32_t *i = table_at(&h->call_index, e->key, e->msg);
    if (*i != NONE)
        return;
    uint64_t floor = room_of(h, e->key)->acked;
    *i = (uint32_t)h->calls.count;
    struct call *c = array_add(&h->calls, sizeof *c);
    *c = (struct call){
        .msg = e->msg, .floor = floor, .key = e->key, .submit = rank, .ack = NONE, .done = NONE};
}

static void on_result(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct call *c = call_find(h, e->key, e->msg);
    if (!c) {
        history_bad(h, rank, "a result of what was never called");
        return;
    }
    if (e->what != H_ACK)
        return;
    h->report.acks++;
    struct room *r = room_of(h, e->key);
    if (e->at > r->acked)
        r->acked = e->at;
    if (c->ack == NONE) {
        c->ack = rank;
        c->at = e->at;
    } else if (c->at != e->at && !c->bad) {
        c->bad = true;
        violated(h, R(1), e->key, c->ack, rank, "call %llu was answered as step %llu and as %llu",
                 (unsigned long long)c->msg, (unsigned long long)c->at, (unsigned long long)e->at);
    }
}

static void on_join(struct history *h, const struct history_entry *e, uint32_t rank)
{
    uint32_t *i = table_at(&h->seat_index, e->key, e->who);
    (void)room_of(h, e->key);
    if (*i != NONE) {
        history_bad(h, rank, "a socket joins a second time");
        return;
    }
    *i = (uint32_t)h->seats.count;
    struct seat *s = array_add(&h->seats, sizeof *s);
    *s = (struct seat){.key = e->key,
                       .who = e->who,
                       .join = rank,
                       .joined = NONE,
                       .leave = NONE,
                       .connect = NONE,
                       .end = NONE};
}

static void on_hear(struct history *h, struct seat *s, const struct history_entry *e, uint32_t rank)
{
    h->report.deliveries++;
    uint64_t before = s->heard;
    s->heard = e->at;
    if (before == 0)
        s->first_heard = e->at;
    uint32_t last = s->heard_rank;
    s->heard_rank = rank;
    if (s->bad)
        return;
    s->bad = s->leave != NONE || (before != 0 && e->at != before + 1);
    if (s->leave != NONE)
        violated(h, R(3), e->key, rank, s->leave, "%.*s hears of step %llu after its end",
                 SLICE_FMT(history_text(h, s->who)), (unsigned long long)e->at);
    else if (s->bad)
        violated(h, R(3), e->key, rank, last, "%.*s hears of step %llu after step %llu",
                 SLICE_FMT(history_text(h, s->who)), (unsigned long long)e->at,
                 (unsigned long long)before);
}

static void on_seat(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct seat *s = seat_find(h, e->key, e->who);
    if (!s) {
        history_bad(h, rank, "a socket that has not asked to join");
        return;
    }
    switch (e->op) {
    case H_JOINED:
        s->joined = rank;
        break;
    case H_LEAVE:
        if (s->leave == NONE)
            s->leave = rank;
        break;
    case H_SAY:
        *(struct said *)array_add(&s->says, sizeof(struct said)) = (struct said){e->msg, rank};
        break;
    default:
        on_hear(h, s, e, rank);
    }
}

static void on_step(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct room *r = room_of(h, e->key);
    uint32_t *i = table_at(&h->step_index, e->key, e->at);
    if (e->at != r->steps + 1 || *i != NONE || r->end != NONE)
        history_bad(h, rank, "the account of %.*s goes from step %llu to %llu",
                    SLICE_FMT(history_text(h, e->key)), (unsigned long long)r->steps,
                    (unsigned long long)e->at);
    *i = rank;
    r->steps = e->at;
    *(uint32_t *)array_add(&h->steps, sizeof rank) = rank;
}

static void on_steps(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct room *r = room_of(h, e->key);
    if (r->end != NONE || r->steps != e->at)
        history_bad(h, rank, "the account of %.*s has %llu steps, not %llu",
                    SLICE_FMT(history_text(h, e->key)), (unsigned long long)r->steps,
                    (unsigned long long)e->at);
    r->end = rank;
}

static void gather(struct checker *c, const struct history_entry *e, uint32_t rank)
{
    struct history *h = c->h;
    switch (e->op) {
    case H_CALL:
        on_call(h, e, rank);
        break;
    case H_RESULT:
        on_result(h, e, rank);
        break;
    case H_JOIN:
        on_join(h, e, rank);
        break;
    case H_JOINED:
    case H_LEAVE:
    case H_SAY:
    case H_HEAR:
        on_seat(h, e, rank);
        break;
    case H_STEP:
        on_step(h, e, rank);
        break;
    case H_STEPS:
        on_steps(h, e, rank);
        break;
    case H_CALM:
        c->calm = rank;
        for (size_t i = 0; i < h->rooms.count; i++) {
            struct room *r = (struct room *)h->rooms.data + i;
            r->acked_calm = r->acked;
        }
        break;
    case H_DEADLINE:
        c->deadline = rank;
        break;
    default: /* of logs */
        break;
    }
}

/* ---- second pass: each step of an account ---- */

static void step_of_call(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct call *c = call_find(h, e->key, e->msg);
    if (!c || c->done != NONE) {
        if (!c || !c->bad)
            violated(h, R(1), e->key, rank, c ? c->done : NONE,
                     c ? "call %llu was done twice" : "call %llu was done, and nobody asked for it",
                     (unsigned long long)e->msg);
        if (c)
            c->bad = true;
        return;
    }
    c->done = rank;
    if (!c->bad && e->at <= c->floor) {
        c->bad = true;
        violated(h, R(1), e->key, rank, c->submit,
                 "call %llu is step %llu, and step %llu was answered before it was asked",
                 (unsigned long long)e->msg, (unsigned long long)e->at,
                 (unsigned long long)c->floor);
    }
}

static void step_of_frame(struct history *h, struct seat *s, const struct history_entry *e,
                          uint32_t rank)
{
    const struct said *says = s->says.data;
    if (s->taken < s->says.count && says[s->taken].msg == e->msg) {
        s->taken++;
        return;
    }
    s->bad = true;
    if (s->taken < s->says.count)
        violated(h, R(5), e->key, rank, says[s->taken].rank,
                 "frame %llu of %.*s is taken where %llu follows", (unsigned long long)e->msg,
                 SLICE_FMT(history_text(h, s->who)), (unsigned long long)says[s->taken].msg);
    else
        violated(h, R(5), e->key, rank, NONE, "frame %llu of %.*s is taken, and all were before",
                 (unsigned long long)e->msg, SLICE_FMT(history_text(h, s->who)));
}

static void step_of_seat(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct seat *s = seat_find(h, e->key, e->who);
    struct slice who = history_text(h, e->who);
    const char *wrong = NULL;
    if (!s) {
        violated(h, R(2), e->key, rank, NONE, "%.*s is there and has not asked to join",
                 SLICE_FMT(who));
        return;
    }
    if (s->bad)
        return;
    if (e->what == H_DID_CONNECT && s->connect != NONE)
        wrong = "connects twice";
    else if (e->what == H_DID_CLOSE && s->end != NONE)
        wrong = "closes twice";
    else if (e->what != H_DID_CONNECT && s->connect == NONE)
        wrong = "does something before its connect";
    else if (s->end != NONE)
        wrong = "does something after its close";
    if (wrong) {
        s->bad = true;
        violated(h, R(2), e->key, rank, s->end != NONE ? s->end : s->connect, "%.*s %s",
                 SLICE_FMT(who), wrong);
    } else if (e->what == H_DID_CONNECT) {
        s->connect = rank;
    } else if (e->what == H_DID_CLOSE) {
        s->end = rank;
    } else {
        step_of_frame(h, s, e, rank);
    }
}

static void step_of_alarm(struct history *h, const struct history_entry *e, uint32_t rank)
{
    struct room *r = room_of(h, e->key);
    const struct history_entry *armed = r->armed == NONE ? NULL : entry_at(h, r->armed);
    if (!armed)
        violated(h, R(4), e->key, rank, NONE, "an alarm runs where none is armed");
    else if (e->number < armed->number)
        violated(h, R(4), e->key, rank, r->armed, "an alarm runs at %llu, which is due at %llu",
                 (unsigned long long)e->number, (unsigned long long)armed->number);
    r->armed = NONE;
}

static void judge_step(struct history *h, uint32_t rank)
{
    const struct history_entry *e = entry_at(h, rank);
    h->report.steps++;
    switch (e->what) {
    case H_DID_ARM:
        room_of(h, e->key)->armed = rank;
        step_of_call(h, e, rank);
        break;
    case H_DID_CALL:
        step_of_call(h, e, rank);
        break;
    case H_DID_ALARM:
        step_of_alarm(h, e, rank);
        break;
    default:
        step_of_seat(h, e, rank);
    }
}

/* ---- and what has no step ---- */

static void judge_call(struct history *h, const struct call *c)
{
    if (c->bad || c->ack == NONE || room_of(h, c->key)->end == NONE)
        return;
    if (c->done == NONE || entry_at(h, c->done)->at != c->at)
        violated(h, R(1), c->key, c->ack, c->done,
                 "call %llu was answered as step %llu, which it is not", (unsigned long long)c->msg,
                 (unsigned long long)c->at);
}

static void judge_heard(struct history *h, const struct seat *s)
{
    const struct room *r = room_of(h, s->key);
    struct slice who = history_text(h, s->who);
    if (s->first_heard == 0)
        return;
    if (s->heard > r->steps)
        violated(h, R(3), s->key, s->heard_rank, r->end,
                 "%.*s has heard of step %llu, and there are %llu", SLICE_FMT(who),
                 (unsigned long long)s->heard, (unsigned long long)r->steps);
    else if (step_find(h, s->key, s->first_heard) != s->connect)
        violated(h, R(3), s->key, s->heard_rank, s->connect,
                 "%.*s hears first of step %llu, which is not its connect", SLICE_FMT(who),
                 (unsigned long long)s->first_heard);
}

static void judge_seat(const struct checker *c, const struct seat *s)
{
    struct history *h = c->h;
    const struct room *r = room_of(h, s->key);
    struct slice who = history_text(h, s->who);
    if (s->bad || r->end == NONE)
        return;
    judge_heard(h, s);
    if (s->joined != NONE && s->connect == NONE)
        violated(h, R(2), s->key, s->joined, r->end, "%.*s was let in and never connected",
                 SLICE_FMT(who));
    if (c->deadline == NONE || s->join > c->calm)
        return;
    if (s->leave != NONE) {
        if (s->leave < c->calm && s->connect != NONE && s->end == NONE)
            violated(h, R(2), s->key, s->leave, s->connect, "%.*s has left and never closed",
                     SLICE_FMT(who));
        return;
    }
    if (s->joined == NONE || s->joined > c->calm)
        return;
    const struct said *next = (const struct said *)s->says.data + s->taken;
    if (s->end != NONE)
        violated(h, R(2), s->key, s->end, s->joined, "%.*s is there and has closed",
                 SLICE_FMT(who));
    else if (s->taken < s->says.count && next->rank < c->calm)
        violated(h, R(5), s->key, next->rank, r->end, "frame %llu of %.*s was never taken",
                 (unsigned long long)next->msg, SLICE_FMT(who));
    else if (s->heard < r->acked_calm && s->connect != NONE &&
             entry_at(h, s->connect)->at <= r->acked_calm)
        violated(h, R(3), s->key, s->heard ? s->heard_rank : s->joined, NONE,
                 "%.*s has heard of steps up to %llu, and step %llu was answered long ago",
                 SLICE_FMT(who), (unsigned long long)s->heard, (unsigned long long)r->acked_calm);
}

static void judge_room(const struct checker *c, const struct room *r)
{
    if (r->end == NONE && r->steps > 0)
        history_bad(c->h, NONE, "the account of %.*s has no end",
                    SLICE_FMT(history_text(c->h, r->name)));
    if (r->end == NONE || r->armed == NONE || c->deadline == NONE)
        return;
    uint64_t end = entry_at(c->h, r->end)->number;
    if (end != 0 && entry_at(c->h, r->armed)->number > end)
        return;
    const struct call *asked = call_find(c->h, r->name, entry_at(c->h, r->armed)->msg);
    if (asked && asked->ack != NONE && asked->ack < c->calm)
        violated(c->h, R(4), r->name, r->armed, asked->ack, "an alarm that was armed never runs");
}

static void says_free(struct history *h)
{
    for (size_t i = 0; i < h->seats.count; i++)
        mem_free(((struct seat *)h->seats.data + i)->says.data);
}

void check_rooms(struct history *h)
{
    struct checker c = {.h = h, .calm = NONE, .deadline = NONE};
    for (uint32_t i = 0; i < h->entries.count; i++)
        gather(&c, entry_at(h, i), i);
    for (size_t i = 0; i < h->steps.count && !h->report.bad[0]; i++)
        judge_step(h, ((uint32_t *)h->steps.data)[i]);
    if (!h->report.bad[0]) {
        for (size_t i = 0; i < h->calls.count; i++)
            judge_call(h, (struct call *)h->calls.data + i);
        for (size_t i = 0; i < h->seats.count; i++)
            judge_seat(&c, (struct seat *)h->seats.data + i);
        for (size_t i = 0; i < h->rooms.count; i++)
            judge_room(&c, (struct room *)h->rooms.data + i);
    }
    says_free(h);
}
