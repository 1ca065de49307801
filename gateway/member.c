/* CORE. A connection of a room with a handler: the subscription's other half, which the shard knows
 * by name.
 *
 *   JOIN --JOINED 0--> joined, confirmed --link down, slot moved--> joined --JOIN again-->
 * confirmed
 *     |--JOINED 4xx, 5xx--> refused: the upgrade, or the `sub`, is answered with that
 *     '--nothing in time--> 503, and LEAVE: whatever the shard has made of the JOIN ends
 *
 * It joins once its room is settled here, so that everything behind JOINED.head reaches it: what
 * passed before it could be written to is asked for again, transient items included.
 *
 * Inputs are kept until the shard has them on disk and are sent again from there on whenever the
 * shard comes to know the member anew; the shard takes each counter once. While too many wait, the
 * socket is not read.
 *
 * A close that the shard orders comes behind what it delivered before: the member waits in
 * g->endings until its subscription is live again, and is ended behind the fan-out. */
#include "common/json.h"
#include "common/mutant.h"
#include "gateway/core.h"

static struct slice name_of(const struct member *mb)
{
    return slice_of(mb->name, mb->name_size);
}

static struct message message_of(const struct member *mb, enum message_type type)
{
    const struct room *room = mb->sub->room;
    return (struct message){.type = type, .slot = room->slot, .key = room_key(room)};
}

/* ---- life ---- */

static void join_timed(struct gateway *g, struct member *mb)
{
    mb->due_ns = g->now.mono_ns + UPGRADE_TIMEOUT_MS * NS_PER_MS;
    list_push_back(&g->joins, &mb->joining);
    if (!heap_has(&g->join_timer.node))
        timer_set(g, &g->join_timer, mb->due_ns);
}

void member_open(struct gateway *g, struct subscription *sub, struct strbuf *request)
{
    struct member *mb = mem_zalloc(sizeof *mb);
    struct position name = {g->options.self.boot, ++g->last_member};
    mb->sub = sub;
    mb->request = *request;
    *request = (struct strbuf){0};
    mb->name_size = (uint8_t)event_id_format(mb->name, name);
    list_init(&mb->joining);
    list_init(&mb->ending);
    list_init(&mb->retry);
    list_init(&mb->inputs);
    map_put(g->members, name_of(mb), mb);
    sub->member = mb;
    sub->room->n_members++;
    if (type_presence(g, room_key(sub->room)) && g->ports.watch)
        g->ports.watch(g->ports.ctx, sub->session->client);
    if (sub->session->established) /* else its upgrade is held, and hold.c looks at the clock */
        join_timed(g, mb);
}

static void full_set(struct gateway *g, struct member *mb, bool full)
{
    struct session *s = mb->sub->session;
    bool was_paused = s->n_full > 0;
    if (mb->full == full)
        return;
    mb->full = full;
    s->n_full = (uint16_t)(full ? s->n_full + 1 : s->n_full - 1);
    bool paused = s->n_full > 0;
    if (paused != was_paused && !s->closing && g->ports.pause)
        g->ports.pause(g->ports.ctx, s->client, paused);
}

static void input_free(struct member *mb, struct input *in)
{
    list_remove(&in->in_member);
    mb->n_inputs--;
    mb->inputs_bytes -= in->frame.size;
    mem_free(in);
}

/* `tag`: what whoever waits for an input's answer is told. */
static void member_free(struct gateway *g, struct member *mb, const char *tag, const char *message)
{
    struct session *s = mb->sub->session;
    while (!list_empty(&mb->inputs)) {
        struct input *in = LIST_ENTRY(mb->inputs.next, struct input, in_member);
        if (in->ref.size > 0)
            v1_input_done(g, s, in->ref, tag, message);
        input_free(mb, in);
    }
    full_set(g, mb, false);
    call_end(g, &mb->call);
    map_remove(g->members, name_of(mb));
    list_remove(&mb->joining);
    list_remove(&mb->ending);
    list_remove(&mb->retry);
    mb->sub->member = NULL;
    mb->sub->room->n_members--;
    strbuf_free(&mb->request);
    strbuf_free(&mb->names);
    strbuf_free(&mb->autos);
    mem_free(mb->close_reason);
    mem_free(mb);
}

void member_leave(struct gateway *g, struct subscription *sub, unsigned code, struct slice reason,
                  bool clean)
{
    struct member *mb = sub->member;
    if (!mb)
        return;
    /* Without an owner nobody can be told; who owns the room next will miss it. */
    if (mb->announced && sub->room->owner && !STOA_MUTANT(LEAVE_UNTOLD)) {
        struct message m = message_of(mb, MSG_LEAVE);
        m.leave.session = name_of(mb);
        m.leave.code = code;
        m.leave.reason = reason;
        m.leave.clean = clean;
        hub_send(g->hub, sub->room->owner, &m);
    }
    if (mb->joined)
        member_free(g, mb, "Unknown", "the connection ended before the room had answered");
    else
        member_free(g, mb, "Moving", "the connection was not let in; nothing has run");
}

bool member_owed(const struct member *mb, struct position after)
{
    return mb && mb->joined &&
           (mb->head.epoch == 0 || (after.epoch == mb->head.epoch && after.seq >= mb->head.seq));
}

/* ---- inputs ---- */

static void input_send(struct gateway *g, const struct member *mb, const struct input *in)
{
    struct message m = message_of(mb, MSG_INPUT);
    m.input.session = name_of(mb);
    m.input.counter = in->counter;
    m.input.flags = in->flags;
    m.input.frame = in->frame;
    hub_send(g->hub, mb->sub->room->owner, &m);
}

static bool may_send(const struct member *mb)
{
    return mb->confirmed && !mb->stalled;
}

static void inputs_send(struct gateway *g, struct member *mb)
{
    mb->stalled = false;
    if (STOA_MUTANT(INPUT_NOT_AGAIN) && mb->counter > mb->n_inputs)
        return;
    LIST_EACH(cursor, after, &mb->inputs)
    input_send(g, mb, LIST_ENTRY(cursor, struct input, in_member));
}

static struct input *input_create(struct member *mb, struct slice frame, struct slice ref)
{
    struct input *in = mem_zalloc(sizeof *in + frame.size + ref.size);
    uint8_t *at = (uint8_t *)(in + 1);
    if (frame.size > 0)
        memcpy(at, frame.data, frame.size);
    if (ref.size > 0)
        memcpy(at + frame.size, ref.data, ref.size);
    in->frame = slice_of(at, frame.size);
    in->ref = slice_of(at + frame.size, ref.size);
    in->counter = ++mb->counter;
    list_push_back(&mb->inputs, &in->in_member);
    mb->n_inputs++;
    mb->inputs_bytes += frame.size;
    return in;
}

const char *member_input(struct gateway *g, struct member *mb, struct slice frame, uint32_t flags,
                         struct slice ref, const char **message)
{
    *message = "the room does not keep up";
    if (mb->n_inputs >= INPUTS_HARD_MAX || mb->inputs_bytes + frame.size > INPUTS_HARD_MAX_BYTES)
        return "Busy";
    struct input *in = input_create(mb, frame, ref);
    in->flags = flags;
    if (may_send(mb))
        input_send(g, mb, in);
    if (mb->n_inputs >= INPUTS_MAX || mb->inputs_bytes >= INPUTS_MAX_BYTES)
        full_set(g, mb, true);
    return NULL;
}

/* The first `counter` have been judged; `tag`: what whoever waits is told, NULL: they are handled.
 */
static void inputs_acked(struct gateway *g, struct member *mb, uint64_t counter, const char *tag,
                         const char *message)
{
    while (!list_empty(&mb->inputs)) {
        struct input *in = LIST_ENTRY(mb->inputs.next, struct input, in_member);
        if (in->counter > counter)
            break;
        if (in->ref.size > 0)
            v1_input_done(g, mb->sub->session, in->ref, tag, message);
        input_free(mb, in);
    }
    if (mb->n_inputs <= INPUTS_MAX / 2 && mb->inputs_bytes <= INPUTS_MAX_BYTES / 2)
        full_set(g, mb, false);
}

/* ---- later again ---- */

static bool passes(uint64_t nack)
{
    return nack == NACK_BUSY || nack == NACK_RATE || nack == NACK_MOVED || nack == NACK_NOTOWNER ||
           nack == NACK_FROZEN || nack == NACK_ORDER || nack == NACK_DISK;
}

static void retry_later(struct gateway *g, struct member *mb)
{
    if (!list_empty(&mb->retry))
        return;
    list_push_back(&g->member_retries, &mb->retry);
    if (!heap_has(&g->member_timer.node))
        timer_set(g, &g->member_timer, g->now.mono_ns + MEMBER_RETRY_MS * NS_PER_MS);
}

static void retry_fire(struct gateway *g, struct timer *t)
{
    (void)t;
    while (!list_empty(&g->member_retries)) {
        struct member *mb = LIST_ENTRY(g->member_retries.next, struct member, retry);
        list_remove(&mb->retry);
        if (mb->confirmed)
            inputs_send(g, mb);
        else if (room_settled(mb->sub->room))
            member_settled(g, mb);
    }
}

/* ---- joining ---- */

void member_settled(struct gateway *g, struct member *mb)
{
    struct room *room = mb->sub->room;
    if (mb->confirmed || mb->call.cid != 0 || !list_empty(&mb->retry))
        return;
    call_begin(g, &mb->call, CALL_JOIN, room->owner);
    struct message m = message_of(mb, MSG_JOIN);
    m.cid = mb->call.cid;
    m.join.session = name_of(mb);
    m.join.again = mb->joined;
    m.join.request = strbuf_slice(&mb->request);
    if (mb->sub->presence)
        m.join.members = mb->sub->presence->asked = mb->sub->presence->wanted;
    mb->announced = true;
    hub_send(g->hub, room->owner, &m);
}

void member_unown(struct gateway *g, struct member *mb)
{
    mb->confirmed = false;
    call_end(g, &mb->call);
}

void member_again(struct gateway *g, struct member *mb)
{
    mb->confirmed = false;
    if (room_settled(mb->sub->room))
        member_settled(g, mb);
}

static void refused(struct gateway *g, struct member *mb, const struct refusal *r)
{
    struct subscription *sub = mb->sub;
    if (mb->joined)
        sub->session->dialect->end(g, sub, 1012, slice_text("the room has ended this connection"));
    else if (sub->session->hold)
        hold_refuse_room(g, sub->session, r);
    else
        sub->session->dialect->refused(g, sub, r);
}

/* Id and tags, by which filters are judged. */
static void names_read(struct member *mb, const struct msg_joined *j)
{
    size_t count;
    mb->names = (struct strbuf){0};
    strbuf_put_slice(&mb->names, j->id);
    (void)json_texts(j->tags, &mb->names, mb->tags, MEMBER_TAGS_MAX, &count); /* the shard's care */
    mb->n_tags = (uint8_t)count;
    mb->id = slice_of(mb->names.data, j->id.size);
}

static void autos_read(struct member *mb, const struct msg_joined *j)
{
    strbuf_reset(&mb->autos);
    strbuf_put_slice(&mb->autos, j->auto_request);
    strbuf_put_slice(&mb->autos, j->auto_response);
    mb->auto_request_size = j->auto_request.size;
}

bool member_answers(const struct member *mb, struct slice frame, struct slice *response)
{
    size_t at = mb->auto_request_size;
    if (at == 0 || !slice_equal(frame, slice_of(mb->autos.data, at)))
        return false;
    *response = slice_of(mb->autos.data + at, mb->autos.size - at);
    return true;
}

static void let_in(struct member *mb, const struct msg_joined *j)
{
    struct subscription *sub = mb->sub;
    struct room *room = sub->room;
    mb->joined = true;
    mb->head = (struct position){j->room_epoch, j->head};
    list_remove(&mb->joining);
    strbuf_free(&mb->request);
    names_read(mb, j);
    room_born(room, mb->head);
    if (sub->start == START_LIVE) {
        sub->pos = mb->head;
        sub->pinned = true;
    }
}

void member_on_joined(struct gateway *g, struct call *call, const struct message *m)
{
    struct member *mb = LIST_ENTRY(call, struct member, call);
    const struct msg_joined *j = &m->joined;
    call_end(g, call);
    if (j->status != 0) {
        bool fine = j->status >= 400 && j->status <= 599;
        struct refusal r = {
            .status = fine ? (unsigned)j->status : 500, .tag = j->tag, .text = j->text};
        mb->announced = false; /* the shard has forgotten it */
        refused(g, mb, &r);
        return;
    }
    if (!mb->joined)
        let_in(mb, j);
    autos_read(mb, j); /* anew each time: the handler may be another */
    mb->confirmed = true;
    /* A refusal that went down with the link is not told again. */
    bool limited = type_of_key(g, room_key(mb->sub->room))->room_rate;
    inputs_acked(g, mb, j->counter, limited ? "Unknown" : NULL,
                 "the answer is lost; it was handled, or refused for the room's rate");
    inputs_send(g, mb);
    if (presence_joined(g, mb->sub, j))
        subscription_kick(g, mb->sub);
}

void member_on_nack(struct gateway *g, struct call *call, const struct message *m)
{
    static const struct {
        uint64_t code;
        const char *tag, *text;
    } table[] = {
        {NACK_DISK, "DiskFull", "the shard's disk is full; nobody is let in"},
        {NACK_RATE, "RateLimited", "too many connections just now"},
        {NACK_TOOBIG, "TooLarge", "the request is too large"},
        {NACK_DENIED, "Forbidden", "the room does not let this connection in"},
        {NACK_NONE, "BadRequest", "the shard refused the connection"},
    };
    struct member *mb = LIST_ENTRY(call, struct member, call);
    bool final = m->nack.code == NACK_DISK || m->nack.code == NACK_RATE;
    size_t i = 0;
    call_end(g, call);
    if (mb->joined || (passes(m->nack.code) && !final)) {
        retry_later(g, mb);
        return;
    }
    while (table[i].code != m->nack.code && table[i].code != NACK_NONE)
        i++;
    struct refusal r = {.status = tag_status(table[i].tag),
                        .tag = slice_text(table[i].tag),
                        .text = slice_text(table[i].text)};
    refused(g, mb, &r);
}

static void join_fire(struct gateway *g, struct timer *t)
{
    const struct refusal late = {
        .status = tag_status("Moving"),
        .tag = slice_text("Moving"),
        .text = slice_text("the key's shard does not answer just now; subscribe again")};
    while (!list_empty(&g->joins)) {
        struct member *mb = LIST_ENTRY(g->joins.next, struct member, joining);
        if (mb->due_ns > g->now.mono_ns) {
            timer_set(g, t, mb->due_ns);
            return;
        }
        struct subscription *sub = mb->sub;
        member_leave(g, sub, 1006, slice_of(NULL, 0), false);
        sub->session->dialect->refused(g, sub, &late);
    }
}

/* ---- what the shard says of a session ---- */

static struct member *member_named(struct gateway *g, uint32_t peer, struct slice name)
{
    struct member *mb = map_get(g->members, name);
    return mb && mb->sub->room->owner == peer ? mb : NULL;
}

/* It is one too many for the room; those before it are handled. */
static void input_refused(struct gateway *g, struct member *mb, uint64_t counter)
{
    struct subscription *sub = mb->sub;
    bool raw = sub->session->dialect->index == DIALECT_RAW;
    if (counter > 0)
        inputs_acked(g, mb, counter - 1, NULL, NULL);
    if (list_empty(&mb->inputs))
        return; /* told before */
    struct input *in = LIST_ENTRY(mb->inputs.next, struct input, in_member);
    if (in->counter != counter)
        return;
    if (!raw)
        v1_input_done(g, sub->session, in->ref, "RateLimited", RATE_ROOM_TEXT);
    input_free(mb, in);
    inputs_acked(g, mb, counter, NULL, NULL); /* reads on, if it may */
    if (raw)
        rate_exceeded(g, sub, RATE_ROOM_TEXT);
}

void member_on_input_ack(struct gateway *g, uint32_t peer, const struct message *m)
{
    struct member *mb = member_named(g, peer, m->input_ack.session);
    if (!mb || !mb->confirmed)
        return;
    if (m->input_ack.code == NACK_RATE) {
        input_refused(g, mb, m->input_ack.counter);
        return;
    }
    inputs_acked(g, mb, m->input_ack.counter, NULL, NULL);
    if (m->input_ack.code == NACK_NONE)
        return;
    if (passes(m->input_ack.code)) {
        mb->stalled = true;
        retry_later(g, mb);
        return;
    }
    struct subscription *sub = mb->sub;
    sub->session->dialect->end(g, sub, 1008, slice_text("the room refuses this frame"));
}

void member_on_close(struct gateway *g, uint32_t peer, const struct message *m)
{
    struct member *mb = member_named(g, peer, m->close.session);
    if (!mb || !list_empty(&mb->ending))
        return;
    if (!mb->joined) {
        const struct refusal r = {.status = tag_status("Busy"),
                                  .tag = slice_text("Busy"),
                                  .text = slice_text("the room has ended this connection")};
        call_end(g, &mb->call);
        mb->announced = false;
        refused(g, mb, &r);
        return;
    }
    bool fine = m->close.code >= 1000 && m->close.code <= 4999;
    mb->close_code = (uint16_t)(fine ? m->close.code : 1000);
    mb->close_reason = mem_strndup(m->close.reason.size ? (const char *)m->close.reason.data : "",
                                   m->close.reason.size);
    list_push_back(&g->endings, &mb->ending);
}

void member_turn(struct gateway *g)
{
    struct list due;
    list_init(&due);
    while (!list_empty(&g->endings)) {
        struct list *node = g->endings.next;
        list_remove(node);
        list_push_back(&due, node);
    }
    while (!list_empty(&due)) {
        struct member *mb = LIST_ENTRY(due.next, struct member, ending);
        struct subscription *sub = mb->sub;
        list_remove(&mb->ending);
        if (sub->state != SUBS_LIVE || sub->room->repair) {
            list_push_back(&g->endings, &mb->ending);
            continue;
        }
        char *reason = mb->close_reason;
        mb->close_reason = NULL;
        sub->session->dialect->end(g, sub, mb->close_code, slice_text(reason));
        mem_free(reason);
    }
}

void member_init(struct gateway *g)
{
    list_init(&g->joins);
    list_init(&g->endings);
    list_init(&g->member_retries);
    g->join_timer.fire = join_fire;
    g->member_timer.fire = retry_fire;
}

void member_validate(const struct gateway *g)
{
    size_t cursor = 0;
    const struct member *mb;
    while ((mb = map_next(g->members, &cursor)) != NULL) {
        size_t inputs = 0;
        STOA_ASSERT(mb->sub->member == mb);
        STOA_ASSERT(!mb->confirmed || (mb->joined && mb->announced));
        STOA_ASSERT(!mb->confirmed || mb->sub->room->owner != 0);
        STOA_ASSERT(!mb->joined || list_empty(&mb->joining));
        STOA_ASSERT(mb->joined || mb->sub->state == SUBS_WAITING);
        STOA_ASSERT(mb->call.cid == 0 || mb->sub->room->owner != 0);
        LIST_EACH(node, after, &mb->inputs)
        inputs++;
        STOA_ASSERT(inputs == mb->n_inputs && inputs <= INPUTS_HARD_MAX);
    }
}
