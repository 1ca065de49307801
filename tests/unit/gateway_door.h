/* Test support: the door of a room with a handler, as gateways see it: a shard that lets
 * connections in or not, acknowledges their frames, and keeps what it heard. For one test of
 * gateway_world.c. */
#ifndef STOA_TESTS_GATEWAY_DOOR_H
#define STOA_TESTS_GATEWAY_DOOR_H

#include "gateway_world.h"

#include "common/hash.h"
#include "proto/filter.h"

#define SEEN_MAX 8192

struct seen {
    enum message_type type;
    char session[64], text[1200]; /* JOIN: request; INPUT: frame; LEAVE: reason */
    uint64_t number;              /* JOIN: again; INPUT: counter; LEAVE: code */
    uint64_t flags;               /* INPUT: flags; LEAVE: clean */
};
static struct seen seen[SEEN_MAX];
static unsigned n_seen, n_read;

/* How the shard behaves; zero lets everybody in. */
static struct door {
    bool mute;      /* JOINs are kept for let_in */
    bool mute_acks; /* inputs are stored, nobody says so */
    unsigned nack, nacks, ack_code;
    unsigned status;
    const char *tag, *text, *id, *tags;
    const char *hello; /* what on_connect sends to its own connection */
    bool closes;       /* and then ends it */
    bool gone;         /* knows no session any more */
    bool let_in;       /* knows the session: it was let in at the room's beginning */
    uint64_t counter;  /* of JOINED for `again` */
} door;

static uint64_t join_cid;
static char join_key[300], last_session[64];

static struct slice only_to(const char *name)
{
    static struct strbuf out;
    struct slice to = slice_text(name);
    struct filter f = {.to = {&to, 1}};
    strbuf_reset(&out);
    ck_assert_int_eq(filter_encode(&out, &f), ERR_OK);
    return strbuf_slice(&out);
}

static struct slice all_but(const char *name)
{
    static struct strbuf out;
    struct slice except = slice_text(name);
    struct filter f = {.except = {&except, 1}};
    strbuf_reset(&out);
    ck_assert_int_eq(filter_encode(&out, &f), ERR_OK);
    return strbuf_slice(&out);
}

static struct slice tagged(const char *name)
{
    static struct strbuf out;
    struct slice tag = slice_text(name);
    struct filter f = {.tags = {&tag, 1}};
    strbuf_reset(&out);
    ck_assert_int_eq(filter_encode(&out, &f), ERR_OK);
    return strbuf_slice(&out);
}

static void say_to(enum message_type type, const char *key, struct message *m)
{
    m->type = type;
    m->key = slice_text(key);
    m->slot = slot_of(m->key, SEED);
    shard_says(m);
}

static void session_close_said(const char *key, const char *session, unsigned code,
                               const char *reason)
{
    struct message m = {.ep = 1};
    m.close.session = slice_text(session);
    m.close.code = code;
    m.close.reason = slice_text(reason);
    say_to(MSG_CLOSE, key, &m);
}

static void joined_say(uint64_t cid, const char *key, const char *session, bool again)
{
    struct message m = {.cid = cid};
    if (room_count(key) == 0)
        room_reborn(key, HISTORY); /* a connection's row is enough to be born */
    m.joined.session = slice_text(session);
    m.joined.status = again && door.gone ? 410 : door.status;
    m.joined.tag = slice_text(door.tag ? door.tag : "");
    m.joined.text = slice_text(door.text ? door.text : "");
    m.joined.id = slice_text(door.id ? door.id : "anon");
    m.joined.tags = slice_text(door.tags ? door.tags : "");
    m.joined.room_epoch = HISTORY;
    m.joined.head = door.let_in ? 0 : room_count(key);
    m.joined.counter = again ? door.counter : 0;
    say_to(MSG_JOINED, key, &m);
    if (again || door.status || door.let_in)
        return;
    if (door.hello)
        room_say(key, door.hello, EVENT_TRANSIENT, only_to(session));
    if (door.closes)
        session_close_said(key, session, 4001, "go away");
}

/* The JOIN that was kept is answered. */
static void let_in(void)
{
    joined_say(join_cid, join_key, last_session, false);
    settle();
}

static void ack_say(const char *key, const char *session, uint64_t counter, unsigned code)
{
    struct message m = {.ep = 1};
    m.input_ack.session = slice_text(session);
    m.input_ack.counter = counter;
    m.input_ack.code = code;
    say_to(MSG_INPUT_ACK, key, &m);
}

static struct seen *note(const struct message *m, struct slice session, struct slice text)
{
    ck_assert_uint_lt(n_seen, SEEN_MAX);
    struct seen *n = &seen[n_seen++];
    n->type = (enum message_type)m->type;
    snprintf(n->session, sizeof n->session, "%.*s", SLICE_FMT(session));
    snprintf(n->text, sizeof n->text, "%.*s", SLICE_FMT(text));
    ck_assert_uint_eq(m->slot, slot_of(m->key, SEED));
    return n;
}

static void on_join(const struct message *m)
{
    char key[300];
    struct seen *n = note(m, m->join.session, m->join.request);
    n->number = m->join.again;
    snprintf(key, sizeof key, "%.*s", SLICE_FMT(m->key));
    memcpy(join_key, key, sizeof key);
    memcpy(last_session, n->session, sizeof last_session);
    join_cid = m->cid;
    if (door.nacks > 0) {
        door.nacks--;
        struct message nack = {.cid = m->cid};
        nack.nack.code = door.nack;
        say_to(MSG_NACK, key, &nack);
    } else if (!door.mute) {
        joined_say(m->cid, key, n->session, m->join.again != 0);
    }
}

static void on_input(const struct message *m)
{
    char key[300];
    struct seen *n = note(m, m->input.session, m->input.frame);
    n->number = m->input.counter;
    n->flags = m->input.flags;
    snprintf(key, sizeof key, "%.*s", SLICE_FMT(m->key));
    if (!door.mute_acks)
        ack_say(key, n->session, door.ack_code ? n->number - 1 : n->number, door.ack_code);
}

static bool on_member(const struct message *m)
{
    if (m->type == MSG_JOIN) {
        on_join(m);
    } else if (m->type == MSG_INPUT) {
        on_input(m);
    } else if (m->type == MSG_LEAVE) {
        struct seen *n = note(m, m->leave.session, m->leave.reason);
        n->number = m->leave.code;
        n->flags = m->leave.clean;
    } else {
        return false;
    }
    return true;
}

/* The next thing that the shard heard; type 0 when there is none. */
static const struct seen *next(void)
{
    static const struct seen none;
    return n_read < n_seen ? &seen[n_read++] : &none;
}

#define ASSERT_NEXT(wanted_type, wanted_number, wanted_text) \
    do {                                                     \
        const struct seen *n_ = next();                      \
        ck_assert_uint_eq(n_->type, (wanted_type));          \
        ck_assert_uint_eq(n_->number, (wanted_number));      \
        ck_assert_str_eq(n_->text, (wanted_text));           \
    } while (0)

#endif
