/* CORE. A room with a handler comes into memory when it has something to do, is written with the
 * turn that changed it, and leaves when it has been idle or when that turn found no space.
 *
 * While it is away nothing is lost but the handler's companion: state, alarm and connections are
 * rows; which link a connection came by stays with the room. A run that waits keeps it in memory.
 */
#include "shard/actor.h"
#include "shard/quarantine.h"

#include "common/mutant.h"

#include <stdlib.h>

struct context actor_context(struct shard *s, struct actor *a, struct segment *g)
{
    return (struct context){.s = s, .actor = a, .segment = g, .now_ms = s->clock_ms};
}

void actor_touch(struct shard *s, struct actor *a)
{
    a->used_ns = s->now.mono_ns;
    list_remove(&a->lru);
    list_push_back(&s->actors, &a->lru);
    if (a->touched)
        return;
    a->touched = true;
    *VEC_PUSH(&s->turn.actors, struct actor *) = a;
}

/* ---- reading ---- */

struct reading {
    struct shard *s;
    struct actor *actor;
};

static void row_is_damaged(struct shard *s, const struct actor *a, const char *what)
{
    metric_add(s->metric.damaged, 1);
    LOG(s->log, LOG_ERROR, "room.damaged_row", LOG_SLICE("key", room_key(a->room)),
        LOG_STR("what", what));
}

static void read_connection(void *ctx, int code, const struct store_row *row)
{
    const struct reading *r = (const struct reading *)ctx;
    struct actor *a = r->actor;
    struct connection *c = row->name.size >= 1 && row->name.size <= SESSION_MAX_BYTES
                               ? member_create(a, row->name, 0)
                               : NULL;
    if (!c)
        return;
    if (code != ERR_OK || !row_connection(row->value, c)) {
        row_is_damaged(r->s, a, "connection");
        a->connections.count--;
        member_free(c);
        return;
    }
    c->stored = true;
    c->lost_ns = r->s->start_ns;
    if (c->number >= a->next_number)
        a->next_number = c->number + 1;
}

static int by_number(const void *left, const void *right)
{
    const struct connection *a = *(const struct connection *const *)left;
    const struct connection *b = *(const struct connection *const *)right;
    return (a->number > b->number) - (a->number < b->number);
}

/* Rows came by session; handlers see connections by number, and so are the links kept. */
static void connections_arrange(struct actor *a)
{
    struct room *room = a->room;
    struct connection **at = VEC_AT(&a->connections, struct connection *);
    if (a->connections.count > 1)
        qsort(at, a->connections.count, sizeof *at, by_number);
    uint32_t l = 0;
    for (size_t i = 0; i < a->connections.count; i++) {
        while (l < room->n_links && room->links[l].number < at[i]->number)
            l++;
        if (l == room->n_links || room->links[l].number != at[i]->number)
            continue;
        at[i]->peer = room->links[l].peer;
        at[i]->life = room->links[l].life;
        at[i]->lost_ns = room->links[l].lost_ns;
    }
    mem_free(room->links);
    room->links = NULL;
    room->n_links = 0;
}

static void actor_read(struct shard *s, struct actor *a)
{
    const struct store_vtable *store = s->store->vtable;
    uint64_t id = a->room->room_id;
    struct slice none = {0}, value, state;
    int code = store->read_begin(s->store);
    STOA_ASSERT(code == ERR_OK);
    code = store->read_row(s->store, TABLE_STATE, id, none, &value);
    a->state_stored = code != ERR_NOT_FOUND;
    bool found = a->state_stored && !STOA_MUTANT(RECOVER_NO_STATE);
    if (found && code == ERR_OK && row_state(value, &a->state_version, &state)) {
        a->has_state = true;
        strbuf_put_slice(&a->state, state);
    } else if (found) {
        row_is_damaged(s, a, "state");
    }
    code = store->read_row(s->store, TABLE_ALARM, id, none, &value);
    a->alarm_stored = code != ERR_NOT_FOUND;
    if (code != ERR_NOT_FOUND && (code != ERR_OK || !row_alarm(value, &a->alarm)))
        row_is_damaged(s, a, "alarm");
    struct reading r = {.s = s, .actor = a};
    store->read_rows(s->store, TABLE_CONNECTION, id, read_connection, &r);
    store->read_end(s->store);
    connections_arrange(a);
}

static void companion_load(struct shard *s, struct actor *a)
{
    struct segment g;
    segment_begin(&g);
    struct context ctx = actor_context(s, a, &g);
    a->segment = &g;
    watch_enter(s, a->room, "load");
    a->mem = a->handler->vtable->load(a->handler, &ctx);
    watch_leave(s, a->room, PHASE_COUNT);
    a->segment = NULL;
    segment_free(&g);
}

struct actor *actor_wake(struct shard *s, struct room *room)
{
    struct actor *a = room->actor;
    if (a) {
        a->used_ns = s->now.mono_ns;
        return a;
    }
    a = (struct actor *)mem_zalloc(sizeof *a);
    a->room = room;
    a->handler = room_handler(s, room);
    a->next_number = 1;
    a->used_ns = s->now.mono_ns;
    a->by_session = map_create(s->map_seed);
    list_init(&a->lru);
    list_init(&a->waiting);
    list_push_back(&s->actors, &a->lru);
    if (room->rows > 0)
        actor_read(s, a);
    room->actor = a;
    if (!room_quarantined(s, room))
        companion_load(s, a);
    return a;
}

/* ---- leaving ---- */

/* What is on disk keeps its link; what was to go with a turn that failed is unconfirmed. */
static void links_keep(struct shard *s, struct actor *a)
{
    struct room *room = a->room;
    struct connection **at = VEC_AT(&a->connections, struct connection *);
    STOA_ASSERT(!room->links);
    if (a->connections.count == 0)
        return;
    room->links = (struct link *)mem_alloc(a->connections.count * sizeof *room->links);
    for (size_t i = 0; i < a->connections.count; i++) {
        struct connection *c = at[i];
        if (c->stored && (c->leaving || c->gone))
            member_unconfirm(s, c);
        if (c->stored)
            room->links[room->n_links++] = (struct link){
                .number = c->number, .peer = c->peer, .life = c->life, .lost_ns = c->lost_ns};
    }
    if (room->n_links == 0) {
        mem_free(room->links);
        room->links = NULL;
    }
}

static void actor_free(struct shard *s, struct actor *a)
{
    links_keep(s, a);
    if (a->mem) {
        watch_enter(s, a->room, "unload");
        a->handler->vtable->unload(a->handler, a->mem);
        watch_leave(s, a->room, PHASE_COUNT);
    }
    for (size_t i = 0; i < a->connections.count; i++)
        member_free(VEC_AT(&a->connections, struct connection *)[i]);
    vec_free(&a->connections);
    vec_free(&a->dirty);
    map_destroy(&a->by_session);
    strbuf_free(&a->state);
    strbuf_free(&a->alarm.why);
    list_remove(&a->lru);
    a->room->actor = NULL;
    mem_free(a);
}

bool actor_sleep(struct shard *s, struct actor *a)
{
    if (!list_empty(&a->waiting))
        return false;
    STOA_ASSERT(!a->touched && !a->segment);
    actor_free(s, a);
    return true;
}

static void tell_abandoned(struct shard *s, const struct task *t, const struct fault *fault)
{
    if (t->kind == TASK_JOIN)
        reply_joined(s, t->actor->room, t->asker, member_session(t->connection), NULL, fault);
    else if (t->kind == TASK_CALL)
        reply_result(s, t, fault, (struct slice){0}, false, false);
}

void actor_drop(struct shard *s, struct actor *a, const struct fault *fault)
{
    LIST_EACH(at, after, &a->waiting)
    {
        struct waiting *w = LIST_ENTRY(at, struct waiting, in_actor);
        if (fault)
            tell_abandoned(s, &w->task, fault);
        wait_free(s, w);
    }
    struct room *room = a->room;
    room->held = false;
    actor_free(s, a);
    fifo_settle(&s->ready, room);
}

/* ---- writing ---- */

static bool put(struct shard *s, const struct actor *a, enum store_table table, struct slice name)
{
    struct store_row row = {
        .table = table, .room_id = a->room->room_id, .name = name, .value = strbuf_slice(&s->row)};
    return turn_check(s, s->store->vtable->put_row(s->store, &row));
}

static bool drop(struct shard *s, const struct actor *a, enum store_table table, struct slice name)
{
    return turn_check(s, s->store->vtable->delete_row(s->store, table, a->room->room_id, name));
}

static bool write_connection(struct shard *s, struct actor *a, const struct connection *c)
{
    if (c->gone && STOA_MUTANT(LEFT_ROW_STAYS))
        return true;
    if (c->gone) {
        a->room->rows -= c->stored;
        return !c->stored || drop(s, a, TABLE_CONNECTION, member_session(c));
    }
    if (c->joining)
        return true;
    a->room->rows += !c->stored;
    strbuf_reset(&s->row);
    row_of_connection(c, &s->row);
    return put(s, a, TABLE_CONNECTION, member_session(c));
}

/* A value of the room that is there (in s->row) or is not, and its row that was or was not. */
static bool write_value(struct shard *s, struct actor *a, enum store_table table, bool there,
                        bool *stored)
{
    bool was = *stored;
    *stored = there;
    a->room->rows += (uint32_t)there - (uint32_t)was;
    if (there)
        return put(s, a, table, (struct slice){0});
    return !was || drop(s, a, table, (struct slice){0});
}

static bool write_state(struct shard *s, struct actor *a)
{
    strbuf_reset(&s->row);
    row_of_state(a->state_version, strbuf_slice(&a->state), &s->row);
    return write_value(s, a, TABLE_STATE, a->has_state, &a->state_stored);
}

static bool write_alarm(struct shard *s, struct actor *a)
{
    if (STOA_MUTANT(ALARM_ROW_STAYS) && !a->alarm.set)
        return true;
    strbuf_reset(&s->row);
    row_of_alarm(&a->alarm, &s->row);
    return write_value(s, a, TABLE_ALARM, a->alarm.set, &a->alarm_stored);
}

static bool actor_write(struct shard *s, struct actor *a)
{
    if (!a->state_dirty && !a->alarm_dirty && a->dirty.count == 0)
        return true;
    s->turn.asked = true;
    if (!turn_begin(s) || !publish_born(s, a->room, a->room->head))
        return false;
    if (a->state_dirty && !write_state(s, a))
        return false;
    if (a->alarm_dirty && !write_alarm(s, a))
        return false;
    for (size_t i = 0; i < a->dirty.count; i++) {
        if (!write_connection(s, a, VEC_AT(&a->dirty, struct connection *)[i]))
            return false;
    }
    a->room->touched = s->clock_ms;
    return true;
}

void actors_write(struct shard *s)
{
    if (!s->turn.failed)
        done_forget(s);
    for (size_t i = 0; i < s->turn.actors.count && !s->turn.failed; i++)
        (void)actor_write(s, VEC_AT(&s->turn.actors, struct actor *)[i]);
}

/* ---- after the commit ---- */

static bool is_awaited(const struct actor *a, const struct connection *c)
{
    LIST_EACH(at, after, &a->waiting)
    {
        if (LIST_ENTRY(at, struct waiting, in_actor)->task.connection == c)
            return true;
    }
    return false;
}

static void connections_settle(struct actor *a)
{
    bool some_went = false;
    for (size_t i = 0; i < a->dirty.count; i++) {
        struct connection *c = VEC_AT(&a->dirty, struct connection *)[i];
        c->dirty = false;
        c->stored = !c->gone && !c->joining;
        c->durable = c->counter;
        some_went |= c->gone;
    }
    a->dirty.count = 0;
    if (!some_went)
        return;
    struct connection **at = VEC_AT(&a->connections, struct connection *);
    size_t kept = 0;
    for (size_t i = 0; i < a->connections.count; i++) {
        if (at[i]->gone && !is_awaited(a, at[i]))
            member_free(at[i]);
        else
            at[kept++] = at[i];
    }
    a->connections.count = kept;
}

void actors_settle(struct shard *s)
{
    for (size_t i = 0; i < s->turn.actors.count; i++) {
        struct actor *a = VEC_AT(&s->turn.actors, struct actor *)[i];
        a->touched = a->state_dirty = a->alarm_dirty = false;
        connections_settle(a);
        alarm_settle(s, a);
        wait_go(s, a);
    }
    done_settle(s);
    quarantine_settle(s);
}

void actors_rollback(struct shard *s)
{
    struct fault fault = {0};
    fault_set(&fault, "RoomError", "the shard has no space");
    fault.status = 503;
    for (size_t i = 0; i < s->turn.actors.count; i++) {
        struct actor *a = VEC_AT(&s->turn.actors, struct actor *)[i];
        struct room *room = a->room;
        a->touched = false;
        if (STOA_MUTANT(ACTOR_SURVIVES)) {
            a->state_dirty = a->alarm_dirty = false;
            connections_settle(a);
            continue;
        }
        actor_drop(s, a, &fault);
        alarm_reload(s, room);
        for (uint32_t l = 0; l < room->n_links; l++) {
            if (room->links[l].peer == 0)
                member_watch(s, room, s->now.mono_ns - MEMBER_CONFIRM_MS * NS_PER_MS + NS_PER_S);
        }
    }
    s->turn.actors.count = 0;
    fault_free(&fault);
    done_rollback(s);
    quarantine_rollback(s);
}

void actors_idle(struct shard *s)
{
    int64_t before = s->now.mono_ns - ACTOR_IDLE_MS * NS_PER_MS;
    while (!list_empty(&s->actors)) {
        struct actor *a = LIST_ENTRY(s->actors.next, struct actor, lru);
        if (a->used_ns > before)
            return;
        struct room *room = a->room;
        if (room->first_op || !actor_sleep(s, a)) {
            a->used_ns = s->now.mono_ns;
            list_remove(&a->lru);
            list_push_back(&s->actors, &a->lru);
        } else {
            rooms_drop_if_blank(s, room);
        }
    }
}
