/* CORE. Sockets of the orpc dialect with one id on one key. A client keeps its id over reconnects,
 * and the socket that it has left may look alive for a while: what is sent to chosen connections
 * (`targets`, `tags`) is for the newest of them alone. Plain events reach all; so does the log, for
 * who asks for it is there. Only the sockets of this gateway are known here. */
#include "gateway/orpc.h"

struct twins {
    struct list sockets; /* of orpc.in_twins, the newest last */
    size_t name_size;
    uint8_t name[]; /* the key's size, the key, the id */
};

static void name_put(struct strbuf *out, const struct session *s)
{
    struct slice key = strbuf_slice(&s->orpc->key);
    strbuf_put_u64(out, key.size);
    strbuf_put_byte(out, ' ');
    strbuf_put_slice(out, key);
    strbuf_put_slice(out, s->identity->id);
}

static struct twins *twins_open(struct gateway *g, struct slice name)
{
    struct twins *t = map_get(g->twins, name);
    if (t)
        return t;
    t = mem_alloc(sizeof *t + name.size);
    list_init(&t->sockets);
    t->name_size = name.size;
    memcpy(t->name, name.data, name.size);
    map_put(g->twins, slice_of(t->name, t->name_size), t);
    return t;
}

/* Behind those that were opened before it. */
static void file(struct twins *t, struct orpc *o)
{
    struct list *before = t->sockets.prev;
    while (before != &t->sockets && LIST_ENTRY(before, struct orpc, in_twins)->birth > o->birth)
        before = before->prev;
    list_push_back(before->next, &o->in_twins);
}

void orpc_twin_enter(struct gateway *g, struct session *s)
{
    struct strbuf name = {0};
    struct orpc *o = s->orpc;
    if (!o->named || o->twins)
        return;
    name_put(&name, s);
    o->twins = twins_open(g, strbuf_slice(&name));
    file(o->twins, o);
    strbuf_free(&name);
}

void orpc_twin_leave(struct gateway *g, struct session *s)
{
    struct twins *t = s->orpc->twins;
    if (!t)
        return;
    s->orpc->twins = NULL;
    list_remove(&s->orpc->in_twins);
    if (!list_empty(&t->sockets))
        return;
    map_remove(g->twins, slice_of(t->name, t->name_size));
    mem_free(t);
}

bool orpc_is_stale(const struct session *s)
{
    const struct orpc *o = s->orpc;
    if (!o || !o->twins)
        return false;
    const struct list *last = o->twins->sockets.prev;
    while (last != &o->in_twins && LIST_ENTRY(last, const struct orpc, in_twins)->session->closing)
        last = last->prev;
    return last != &o->in_twins;
}
