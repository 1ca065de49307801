/* CORE. Per-room FIFOs and deficit round robin (fifo.h).
 *
 * A room enters the ring of ready rooms with one quantum. It is served while its first op costs no
 * more than its deficit; then it gets another quantum and goes to the back. So over a round every
 * ready room gets the same bytes, and a turn that ends in the middle goes on there. */
#include "shard/fifo.h"

#include "common/err.h"
#include "common/mem.h"

/* An event costs this beside its payload, so that many small ones are not free. */
#define EVENT_COST_BYTES 64

struct op *op_create(uint32_t n_parts)
{
    struct op *op = (struct op *)mem_alloc(sizeof *op + n_parts * sizeof op->parts[0]);
    *op = (struct op){.n_parts = n_parts};
    return op;
}

void op_destroy(struct op *op)
{
    buf_unref(op->packet);
    mem_free(op);
}

bool fifo_has_room(const struct room *room, uint32_t bytes)
{
    return room->queued_ops < ROOM_FIFO_MAX_MESSAGES &&
           (room->queued_ops == 0 || room->queued_bytes + bytes <= ROOM_FIFO_MAX_BYTES);
}

/* A held room has nothing to do but what wakes the run that holds it. */
static bool has_work(const struct room *room)
{
    return room->first_op && (!room->held || room->first_op->kind == OP_RESUME);
}

void fifo_settle(struct list *ready, struct room *room)
{
    if (!has_work(room)) {
        list_remove(&room->ready);
    } else if (list_empty(&room->ready)) {
        list_push_back(ready, &room->ready);
        room->deficit = DRR_QUANTUM_BYTES;
    }
}

void fifo_push(struct list *ready, struct room *room, struct op *op)
{
    op->next = NULL;
    op->room = room;
    if (room->last_op)
        room->last_op->next = op;
    else
        room->first_op = op;
    room->last_op = op;
    room->queued_ops++;
    room->queued_bytes += op->bytes;
    fifo_settle(ready, room);
}

void fifo_push_front(struct list *ready, struct room *room, struct op *op)
{
    op->next = room->first_op;
    op->room = room;
    room->first_op = op;
    if (!room->last_op)
        room->last_op = op;
    room->queued_ops++;
    room->queued_bytes += op->bytes;
    fifo_settle(ready, room);
}

static int32_t op_cost(const struct op *op)
{
    return (int32_t)(op->bytes + EVENT_COST_BYTES * (op->n_parts + 1));
}

static struct op *pop_from(struct room *room)
{
    struct op *op = room->first_op;
    room->first_op = op->next;
    if (!room->first_op)
        room->last_op = NULL;
    room->queued_ops--;
    room->queued_bytes -= op->bytes;
    room->deficit -= op_cost(op);
    if (!has_work(room))
        list_remove(&room->ready);
    return op;
}

struct op *fifo_pop(struct list *ready, size_t events_left, size_t bytes_left)
{
    while (!list_empty(ready)) {
        struct room *room = LIST_ENTRY(ready->next, struct room, ready);
        const struct op *op = room->first_op;
        if (op_cost(op) > room->deficit) {
            room->deficit += DRR_QUANTUM_BYTES;
            list_remove(&room->ready);
            list_push_back(ready, &room->ready);
            continue;
        }
        if (op->n_parts > events_left || op->bytes > bytes_left)
            return NULL;
        return pop_from(room);
    }
    return NULL;
}

struct op *fifo_take_all(struct room *room)
{
    struct op *all = room->first_op;
    room->first_op = room->last_op = NULL;
    room->queued_ops = room->queued_bytes = 0;
    list_remove(&room->ready);
    return all;
}
