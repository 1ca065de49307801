/* CORE. Pages of a room's retained log, and the truth about what a reader missed.
 *
 *   position            room                 answer
 *   (0,0)               floor 0              from the first event on, nothing missed
 *   (0,0)               floor F > 0          missed 0..F, for what raised the floor last
 *   (e,q) e = epoch     floor <= q <= head   from q on
 *   (e,q) e = epoch     q < floor            missed q..floor, for what raised the floor last; a
 *                                            joiner misses nothing if only broadcasts went
 *   (e,q) e = epoch     q > head             missed, epoch: the room lost events it had given out
 *   (e,q) e != epoch    any                  missed, epoch: another history; all that is retained
 *
 * A page ends by items, payload bytes, or the head's bound, and has at least one item. A record
 * that the disk gives back damaged is never served: the floor rises over it, reason epoch.
 *
 * Broadcasts of rooms with handlers (EVENT_TRANSIENT) are in the log for gateways that missed a
 * DELIVER: mode ALL gives them, so that the chain of prev has no gap; mode LATEST and `last`, what
 * joiners ask with, pass over them. */
#include "shard/state.h"

#include "common/mutant.h"

#define PARKED_MAX 4096
#define LIST_HEAD_MAX_BYTES (HEAD_MAX_BYTES - 1024)

struct resume replay_position(const struct room *room, enum replay_mode mode, uint64_t epoch,
                              uint64_t seq)
{
    bool beginning = epoch == 0 && seq == 0;
    if (!room)
        return (struct resume){
            .missed = !beginning, .miss_from = seq, .reason = beginning ? MISS_NONE : MISS_EPOCH};
    if (!beginning && (epoch != room->epoch || seq > room->head) && !STOA_MUTANT(EPOCH_UNCHECKED))
        return (struct resume){.base = room->floor,
                               .missed = true,
                               .miss_from = seq,
                               .miss_to = room->floor,
                               .reason = MISS_EPOCH};
    if (seq < room->floor && seq >= room->gone && mode == REPLAY_LATEST)
        return (struct resume){.base = room->floor, .passed = true};
    if (seq < room->floor && STOA_MUTANT(MISS_UNTOLD))
        return (struct resume){.base = room->floor};
    if (seq < room->floor)
        return (struct resume){.base = room->floor,
                               .missed = true,
                               .miss_from = seq,
                               .miss_to = room->floor,
                               .reason = (enum miss_reason)room->floor_reason};
    return (struct resume){.base = seq};
}

/* ---- one page ---- */

struct page {
    const struct msg_replay_req *request;
    bool latest;
    size_t max_items, max_bytes;
    uint64_t base;
    uint64_t prev;    /* of the first item */
    uint64_t reached; /* last item's seq, or the head when nothing follows it */
    uint64_t failed;  /* seq of the record that could not be read */
    size_t bytes;     /* payloads */
    size_t head_bytes;
};

static struct page page_begin(const struct msg_replay_req *request)
{
    struct page page = {.request = request, .latest = request->mode == REPLAY_LATEST};
    page.max_items = request->max_items && request->max_items < REPLAY_PAGE_MAX_ITEMS
                         ? (size_t)request->max_items
                         : REPLAY_PAGE_MAX_ITEMS;
    page.max_bytes = request->max_bytes && request->max_bytes < REPLAY_PAGE_MAX_BYTES
                         ? (size_t)request->max_bytes
                         : REPLAY_PAGE_MAX_BYTES;
    return page;
}

static bool skipped(const struct page *page, const struct room *room, uint64_t seq)
{
    if (page->request->last && retain_is_transient(room->retain, seq))
        return true;
    return (page->latest || STOA_MUTANT(CONFLATE_ALWAYS)) &&
           retain_superseded(room->retain, seq) != STOA_MUTANT(CONFLATE_OLDEST);
}

/* Where the newest `last` events begin. */
static uint64_t base_of_last(const struct page *page, const struct room *room)
{
    uint64_t base = room->head;
    for (uint64_t found = 0; base > room->floor; base--) {
        if (skipped(page, room, base) || retain_is_transient(room->retain, base))
            continue;
        if (found++ == page->request->last)
            break;
    }
    return base;
}

/* The record as an item behind `prev`; ERR_OK or what the store says of it. */
static int read_item(struct shard *s, const struct room *room, uint64_t seq, uint64_t prev,
                     struct event_item *item)
{
    struct store_record record;
    uint64_t lsn = retain_at(room->retain, seq)->lsn;
    TRY(s->store->vtable->read(s->store, room->class_no, lsn, &record));
    if (record.room_id != room->room_id || record.seq != seq)
        return ERR_CORRUPT;
    *item = (struct event_item){.prev = prev,
                                .seq = seq,
                                .ts = record.ts,
                                .flags = record.flags,
                                .conflate = record.conflate,
                                .filter = record.filter,
                                .payload = record.payload};
    return ERR_OK;
}

/* Fills s->scratch. ERR_OK, or the error of the record page->failed. */
static int page_fill(struct shard *s, struct page *page, const struct room *room)
{
    s->scratch.count = 0;
    page->reached = page->base;
    page->bytes = page->head_bytes = 0;
    uint64_t prev = page->prev;
    for (uint64_t seq = page->base + 1 + STOA_MUTANT(PAGE_OFF_BY_ONE); seq <= room->head; seq++) {
        if (skipped(page, room, seq))
            continue;
        uint32_t size = retain_at(room->retain, seq)->size;
        bool full = s->scratch.count >= page->max_items || page->bytes + size > page->max_bytes;
        if (full && s->scratch.count > 0)
            return ERR_OK;
        struct event_item item;
        page->failed = seq;
        TRY(read_item(s, room, seq, prev, &item));
        page->head_bytes += item_head_bytes(&item);
        if (page->head_bytes > LIST_HEAD_MAX_BYTES && s->scratch.count > 0)
            return ERR_OK;
        *VEC_PUSH(&s->scratch, struct event_item) = item;
        page->bytes += size;
        page->reached = prev = seq;
    }
    page->reached = room->head;
    return ERR_OK;
}

static void reply_header(const struct shard *s, struct message *reply, const struct room *room,
                         const struct resume *p)
{
    reply->type = MSG_REPLAY;
    reply->ep = s->slot_epoch[reply->slot];
    reply->replay.room_epoch = room ? room->epoch : 0;
    reply->replay.head = room ? room->head : 0;
    reply->replay.miss_from = p->miss_from;
    reply->replay.miss_to = p->miss_to;
    reply->replay.miss_reason = p->reason;
}

/* False: it does not fit the credit and nothing was sent. Runs inside read_begin .. read_end. */
static bool send_page(struct shard *s, uint32_t peer, struct message *reply, struct room *room,
                      const struct msg_replay_req *request)
{
    struct page page = page_begin(request);
    struct resume p = {0};
    for (;;) {
        p = request->last ? (struct resume){.base = room ? base_of_last(&page, room) : 0}
                          : replay_position(room, (enum replay_mode)request->mode, request->epoch,
                                            request->after);
        page.base = page.reached = p.base;
        page.prev = p.passed ? request->after : p.base;
        s->scratch.count = 0;
        if (!room || page_fill(s, &page, room) == ERR_OK)
            break;
        LOG(s->log, LOG_ERROR, "shard.damaged_record", LOG_SLICE("key", room_key(room)),
            LOG_U64("seq", page.failed));
        metric_add(s->metric.damaged, 1);
        room_floor_raise(s, room, page.failed, MISS_EPOCH);
        trim_schedule(s, room);
    }
    reply_header(s, reply, room, &p);
    reply->replay.after = page.reached;
    reply->replay.eof = page.reached == reply->replay.head || STOA_MUTANT(EOF_EARLY);
    reply->replay.items.at = VEC_AT(&s->scratch, struct event_item);
    reply->replay.items.count = s->scratch.count;
    if (!deliver_has_credit(s, peer, message_size_bound(reply)))
        return false;
    if (p.missed)
        metric_add(s->metric.missed[p.reason], 1);
    hub_send(s->hub, peer, reply);
    return true;
}

static bool answer_page(struct shard *s, uint32_t peer, uint64_t cid, uint16_t slot,
                        struct slice key, const struct msg_replay_req *request)
{
    struct room *room = rooms_find(s, key);
    if (room)
        room_retain_exactly(s, room);
    struct message reply = {.cid = cid, .slot = slot, .key = key};
    int code = s->store->vtable->read_begin(s->store);
    STOA_ASSERT(code == ERR_OK);
    bool sent = send_page(s, peer, &reply, room, request);
    s->store->vtable->read_end(s->store);
    return sent;
}

/* ---- requests ---- */

static void park(struct shard *s, uint32_t peer, const struct message *m)
{
    struct client *client = s->clients[peer];
    if (client->parked.count >= PARKED_MAX) {
        struct asker asker = {.peer = peer, .life = client->life, .cid = m->cid};
        send_nack(s, asker, m->key, m->slot, NACK_BUSY, 0);
        return;
    }
    *VEC_PUSH(&client->parked, struct parked) =
        (struct parked){.cid = m->cid, .request = m->replay_req, .key = buf_copy_slice(m->key)};
}

void replay_answer(struct shard *s, uint32_t peer, const struct message *m)
{
    uint16_t slot;
    enum nack_code code = slot_check(s, m, &slot);
    if (code == NACK_NONE && m->replay_req.mode > REPLAY_LATEST)
        code = NACK_INVALID;
    if (code != NACK_NONE) {
        struct asker asker = {.peer = peer, .life = s->clients[peer]->life, .cid = m->cid};
        send_nack(s, asker, m->key, slot, code, 0);
        return;
    }
    if (s->clients[peer]->parked.count > 0 ||
        !answer_page(s, peer, m->cid, slot, m->key, &m->replay_req))
        park(s, peer, m);
}

void replay_unpark(struct shard *s, uint32_t peer)
{
    struct vec *parked = &s->clients[peer]->parked;
    struct parked *at = VEC_AT(parked, struct parked);
    size_t done = 0;
    if (parked->count == 0)
        return;
    for (; done < parked->count; done++) {
        struct message asked = {.slot = SLOT_UNKNOWN, .key = buf_slice(at[done].key)};
        uint16_t slot;
        enum nack_code code = slot_check(s, &asked, &slot);
        struct asker asker = {.peer = peer, .life = s->clients[peer]->life, .cid = at[done].cid};
        if (code != NACK_NONE)
            send_nack(s, asker, asked.key, slot, code, 0);
        else if (!answer_page(s, peer, asker.cid, slot, asked.key, &at[done].request))
            break;
        buf_unref(at[done].key);
    }
    parked->count -= done;
    memmove(at, at + done, parked->count * sizeof *at);
}
