/* CORE. Answers to calls with an id: a row for five minutes, so that a retry is answered, not run
 * again; in memory the id alone. */
#include "shard/actor.h"

#include "common/mutant.h"

#define FORGET_MAX 200 /* a turn */

static struct slice done_key(const struct done *d)
{
    _Static_assert(offsetof(struct done, msg_id) == offsetof(struct done, room_id) + 8,
                   "room and id are one key");
    return slice_of(&d->room_id, 8 + sizeof d->msg_id);
}

static struct done *done_create(struct shard *s, struct room *room, const uint8_t id[16])
{
    struct done *d = (struct done *)mem_zalloc(sizeof *d);
    d->room = room;
    d->room_id = room->room_id;
    room->dones++;
    memcpy(d->msg_id, id, sizeof d->msg_id);
    d->until_ms = s->clock_ms + CALL_ANSWER_KEPT_MS;
    list_push_back(&s->dones, &d->by_age);
    map_put(s->done_by_id, done_key(d), d);
    return d;
}

static void done_free(struct shard *s, struct done *d)
{
    list_remove(&d->by_age);
    d->room->dones--;
    (void)map_remove(s->done_by_id, done_key(d));
    buf_unref(d->value);
    mem_free(d);
}

struct done *done_find(struct shard *s, const struct room *room, const uint8_t id[16])
{
    struct done key = {.room_id = room->room_id};
    memcpy(key.msg_id, id, sizeof key.msg_id);
    if (STOA_MUTANT(CALL_AGAIN))
        return NULL;
    return room->room_id ? (struct done *)map_get(s->done_by_id, done_key(&key)) : NULL;
}

bool done_read(struct shard *s, const struct done *d, struct strbuf *out)
{
    const struct store_vtable *store = s->store->vtable;
    strbuf_reset(out);
    if (d->value) {
        strbuf_put_slice(out, buf_slice(d->value));
        return true;
    }
    struct slice value;
    int code = store->read_begin(s->store);
    STOA_ASSERT(code == ERR_OK);
    code = store->read_row(s->store, TABLE_DONE, d->room_id, slice_of(d->msg_id, 16), &value);
    if (code == ERR_OK)
        strbuf_put_slice(out, value);
    store->read_end(s->store);
    return code == ERR_OK;
}

void done_add(struct shard *s, struct room *room, const uint8_t id[16], struct slice value)
{
    if (!turn_begin(s) || !publish_born(s, room, room->head))
        return;
    struct store_row row = {
        .table = TABLE_DONE, .room_id = room->room_id, .name = slice_of(id, 16), .value = value};
    if (!turn_check(s, s->store->vtable->put_row(s->store, &row)))
        return;
    struct done *d = done_create(s, room, id);
    d->value = buf_copy_slice(value);
    *VEC_PUSH(&s->turn.dones, struct done *) = d;
    room->rows++;
}

/* How old it is nobody knows any more: its time begins anew. */
void done_row(struct shard *s, struct room *room, const struct store_row *row)
{
    if (row->name.size == 16 && !STOA_MUTANT(RECOVER_NO_ANSWERS))
        (void)done_create(s, room, row->name.data);
}

void done_forget(struct shard *s)
{
    LIST_EACH(at, after, &s->dones)
    {
        const struct done *d = LIST_ENTRY(at, struct done, by_age);
        if (d->until_ms > s->clock_ms || s->turn.dones_gone >= FORGET_MAX || !turn_begin(s))
            return;
        (void)turn_stage(s, d->room);
        d->room->rows--;
        if (!turn_check(s, s->store->vtable->delete_row(s->store, TABLE_DONE, d->room_id,
                                                        slice_of(d->msg_id, 16))))
            return;
        s->turn.dones_gone++;
    }
}

void done_settle(struct shard *s)
{
    for (; s->turn.dones_gone > 0; s->turn.dones_gone--)
        done_free(s, LIST_ENTRY(s->dones.next, struct done, by_age));
    for (size_t i = 0; i < s->turn.dones.count; i++) {
        struct done *d = VEC_AT(&s->turn.dones, struct done *)[i];
        buf_unref(d->value);
        d->value = NULL;
    }
}

void done_rollback(struct shard *s)
{
    s->turn.dones_gone = 0;
    for (size_t i = 0; i < s->turn.dones.count; i++)
        done_free(s, VEC_AT(&s->turn.dones, struct done *)[i]);
}
