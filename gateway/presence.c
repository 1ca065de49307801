/* CORE. Presence on stoa.v1: who asked for it is told who is there, then who comes and goes.
 *
 *   sub --JOIN members 1--> JOINED: the members as of a seq --the subscription passes it-->
 *     {"members"} --items of the room behind it--> {"join"}, {"leave"}
 *
 * The items come as broadcasts do, in order and repaired, and are written for those who asked
 * (fanout.c). Behind a gap the list is no longer true: it is asked for anew, by another JOIN. */
#include "common/json.h"
#include "gateway/core.h"

/* What the shard says, with the key before it: {"members":[]} becomes
 * {"presence":K,"members":[]}. */
static void frame_put(struct strbuf *out, struct slice quoted_key, struct slice json)
{
    static const char begin[] = "{\"presence\":";
    frame_put_header(out, FRAME_TEXT, sizeof begin - 1 + quoted_key.size + json.size);
    strbuf_put_text(out, begin);
    strbuf_put_slice(out, quoted_key);
    strbuf_put_byte(out, ',');
    strbuf_put(out, json.data + 1, json.size - 1);
}

static bool is_object(struct slice json)
{
    return json.size > 2 && json.data[0] == '{' && json.data[json.size - 1] == '}';
}

void presence_encode(struct strbuf *out, struct slice quoted_key, const struct event *e)
{
    if (is_object(e->payload))
        frame_put(out, quoted_key, e->payload);
}

bool presence_is_for(const struct subscription *sub, const struct pack_source *source, uint64_t seq)
{
    const struct presence *p = sub->presence;
    return p && p->known && p->at.epoch == source->epoch && seq > p->at.seq;
}

bool presence_due(const struct subscription *sub, struct position reached)
{
    const struct presence *p = sub->presence;
    return p && p->list.size > 0 && p->at.epoch == reached.epoch && p->at.seq <= reached.seq;
}

/* In the midst of a fan-out: a connection that takes no more is found out by its next event. */
void presence_tell(struct gateway *g, const struct subscription *sub)
{
    struct presence *p = sub->presence;
    struct strbuf key = {0}, text = {0};
    json_quote(&key, room_key(sub->room));
    frame_put(&text, strbuf_slice(&key), strbuf_slice(&p->list));
    struct buf *bytes = buf_copy_slice(strbuf_slice(&text));
    session_write(g, sub->session, bytes, 0, bytes->size);
    buf_unref(bytes);
    strbuf_free(&p->list);
    strbuf_free(&text);
    strbuf_free(&key);
}

void presence_reach(struct gateway *g, const struct subscription *sub)
{
    if (!sub->fresh && presence_due(sub, sub->pos))
        presence_tell(g, sub);
}

static void ask(struct gateway *g, const struct subscription *sub)
{
    struct presence *p = sub->presence;
    strbuf_free(&p->list);
    p->wanted = true;
    p->known = false;
    member_again(g, sub->member);
}

/* The shard's configuration is another one, be it for a moment. */
static void untold(struct gateway *g, struct subscription *sub)
{
    const struct slice why = slice_text("the room's shard tells no presence of this type (yet)");
    const struct refusal r = {.status = tag_status("Busy"), .tag = slice_text("Busy"), .text = why};
    if (sub->fresh)
        sub->session->dialect->refused(g, sub, &r);
    else
        sub->session->dialect->end(g, sub, 1013, why);
}

bool presence_joined(struct gateway *g, struct subscription *sub, const struct msg_joined *j)
{
    struct presence *p = sub->presence;
    if (!p || !p->wanted)
        return true;
    if (!p->asked) {
        ask(g, sub); /* the question came up while this answer was under way */
        return true;
    }
    if (!is_object(j->members)) {
        untold(g, sub);
        return false;
    }
    p->wanted = false;
    p->known = true;
    p->at = (struct position){j->room_epoch, j->members_seq};
    strbuf_put_slice(&p->list, j->members);
    presence_reach(g, sub);
    return true;
}

/* A list that is still to be told is true behind the gap, unless the history is another one now: a
 * disk that was put back has its own members. */
void presence_missed(struct gateway *g, struct subscription *sub, enum miss_reason reason)
{
    const struct presence *p = sub->presence;
    if (!p || p->wanted)
        return;
    bool is_ahead = p->list.size > 0 && p->at.epoch == sub->pos.epoch && sub->pos.seq <= p->at.seq;
    if (is_ahead && reason != MISS_EPOCH)
        presence_reach(g, sub);
    else
        ask(g, sub);
}

void presence_open(struct subscription *sub)
{
    sub->presence = mem_zalloc(sizeof *sub->presence);
    sub->presence->wanted = true;
}

void presence_free(struct subscription *sub)
{
    if (sub->presence)
        strbuf_free(&sub->presence->list);
    mem_free(sub->presence);
    sub->presence = NULL;
}
