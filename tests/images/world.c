/* SHELL. The world of the store's tests; world.h tells. */
#include "world.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/hash.h"
#include "common/mem.h"
#include "disk.h"
#include "rows.h"
#include "shard/store_lmdb.h"
#include "shard/vec.h"

#define CLUSTER 0x51u
#define SLOT_SEED 7
#define MAP_BYTES (UINT64_C(256) << 20)
#define MINUTE INT64_C(60000)
#define PARTS_MAX 6

enum asked_kind { ASKED_OP, ASKED_RETRY, ASKED_OTHER };
struct asked {
    enum asked_kind kind;
    size_t op;
};

static const struct shard_type types[] = {
    {.name = "events", .retention = {10 * MINUTE, 10000, 0}},
    {.name = "few", .retention = {30 * MINUTE, 12, 0}},
    {.name = "log", .retention = {0, 0, 0}},
    {.name = "brief", .retention = {6 * MINUTE, 0, 0}},
};
#define N_TYPES (sizeof types / sizeof *types)

char *world_last_words;

/* ---- history ---- */

struct history *history_create(uint64_t seed, bool big)
{
    void *at = mmap(NULL, sizeof(struct history), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    STOA_ASSERT(at != MAP_FAILED);
    struct history *h = at;
    h->seed = seed;
    h->big = big;
    h->now = (struct tick){.mono_ns = NS_PER_S, .wall_ms = INT64_C(1750000000000)};
    return h;
}

void history_free(struct history *h)
{
    munmap(h, sizeof *h);
}

const struct retention *world_retention(unsigned room)
{
    return &types[room % N_TYPES].retention;
}

/* Keys whose slots this shard owns and no token moves, found once. */
const char *world_key(unsigned room)
{
    static char keys[WORLD_ROOMS][32];
    STOA_ASSERT(room < WORLD_ROOMS);
    for (unsigned n = room; keys[room][0] == '\0'; n += WORLD_ROOMS) {
        char key[32];
        snprintf(key, sizeof key, "%s:%u", types[room % N_TYPES].name, n);
        if (slot_of(slice_text(key), SLOT_SEED) < WORLD_TOKENS_FROM)
            memcpy(keys[room], key, sizeof key);
    }
    return keys[room];
}

static size_t payload_size(const struct history *h, uint64_t dice)
{
    uint64_t kind = dice % 100, size = dice >> 8;
    if (kind < (h->big ? 25 : 3))
        return 5000 + size % (h->big ? 50000 : 12000);
    if (kind < 30)
        return 1000 + size % 2500;
    return size % 400;
}

struct slice world_payload(const struct history *h, size_t op, unsigned part)
{
    static uint64_t words[PAYLOAD_MAX / 8];
    struct rng rng;
    rng_seed(&rng, h->seed * 1000003 + op * 64 + part);
    size_t size = payload_size(h, rng_u64(&rng));
    for (size_t i = 0; i < size / 8 + 1; i++)
        words[i] = i < 8 ? rng_u64(&rng) : words[i - 8] * 31 + i;
    return slice_of(words, size);
}

/* ---- packets ---- */

static int shard_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct world *w = ctx;
    (void)peer;
    *VEC_PUSH(&w->to_gateway, struct buf *) = buf_copy(packet, size);
    return ERR_OK;
}

static void shard_forget(void *ctx, uint32_t peer)
{
    (void)peer;
    ((struct world *)ctx)->peer = 0;
}

static int gateway_send(void *ctx, uint32_t peer, const void *packet, size_t size)
{
    struct world *w = ctx;
    (void)peer;
    *VEC_PUSH(&w->to_shard, struct buf *) = buf_copy(packet, size);
    return ERR_OK;
}

static void move(struct vec *packets, struct hub *to, uint32_t peer, struct tick now)
{
    for (size_t i = 0; i < packets->count; i++) {
        struct buf *packet = VEC_AT(packets, struct buf *)[i];
        hub_packet(to, peer, packet, now);
        buf_unref(packet);
    }
    packets->count = 0;
}

void world_pump(struct world *w)
{
    for (bool moved = true; moved;) {
        hub_tick(w->hub, w->now);
        hub_flush(w->hub, w->now);
        shard_tick(w->shard, w->now);
        if (w->peer == 0 && w->to_shard.count > 0)
            w->peer = hub_accept(shard_hub(w->shard), 0, w->now);
        moved = w->to_shard.count > 0;
        move(&w->to_shard, shard_hub(w->shard), w->peer, w->now);
        moved |= shard_turn(w->shard, w->now);
        moved |= w->to_gateway.count > 0;
        move(&w->to_gateway, w->hub, 1, w->now);
        moved |= w->to_shard.count > 0;
    }
}

uint64_t world_send(struct world *w, struct message m)
{
    m.cid = ++w->last_cid;
    hub_send(w->hub, 1, &m);
    return m.cid;
}

static uint64_t ask(struct world *w, struct message m, enum asked_kind kind, size_t op)
{
    *VEC_PUSH(&w->asked, struct asked) = (struct asked){kind, op};
    return world_send(w, m);
}

/* ---- answers ---- */

static void on_op_answer(struct world *w, struct op_note *op, const struct message *m)
{
    size_t number = (size_t)(op - w->history->ops);
    if (m->type == MSG_PACK && !m->pack.dup && op->state == OP_SENT) {
        op->seq = m->pack.seq;
        op->epoch = m->pack.room_epoch;
        op->acked_at = (uint32_t)disk_recorded();
        atomic_signal_fence(memory_order_seq_cst);
        op->state = OP_ACKED;
    } else if (m->type == MSG_NACK &&
               (w->lenient || m->nack.code == NACK_DISK || m->nack.code == NACK_ORDER)) {
        op->acked_at = (uint32_t)disk_recorded();
        op->state = OP_REFUSED; /* ORDER: one before it in this turn was refused */
    } else {
        strbuf_printf(&w->problem, "op %zu: unexpected %s %s; ", number, message_name(m->type),
                      m->type == MSG_NACK ? nack_name(m->nack.code) : "");
    }
}

static void on_retry_answer(struct world *w, const struct op_note *op, const struct message *m)
{
    bool same = m->type == MSG_PACK && m->pack.dup && m->pack.seq == op->seq;
    bool unknown = m->type == MSG_NACK &&
                   (w->lenient || m->nack.code == NACK_STALE || m->nack.code == NACK_DISK);
    if (!same && !unknown)
        strbuf_printf(&w->problem, "a retry of op %zu was answered by %s; ",
                      (size_t)(op - w->history->ops), message_name(m->type));
}

static void on_message(void *ctx, uint32_t peer, const struct message *m, struct buf *packet)
{
    struct world *w = ctx;
    (void)peer, (void)packet;
    if (m->type == MSG_CLAIM) {
        for (size_t i = 0; i < m->claim.slots.count; i++) {
            const struct slot_range *range = &m->claim.slots.at[i];
            if (range->lo <= WORLD_TOKENS_FROM && WORLD_TOKENS_FROM <= range->hi)
                w->token = range->hi == WORLD_GRANTED - 1 ? range->epoch : UINT64_MAX;
        }
        return;
    }
    uint64_t place = m->cid - w->first_cid;
    if (m->cid < w->first_cid || place >= w->asked.count) {
        if (w->on_answer)
            w->on_answer(w->ctx, m);
        return;
    }
    struct asked *asked = &VEC_AT(&w->asked, struct asked)[place];
    if (asked->kind == ASKED_OP)
        on_op_answer(w, &w->history->ops[asked->op], m);
    else
        on_retry_answer(w, &w->history->ops[asked->op], m);
}

/* ---- life ---- */

static void on_up(void *ctx, uint32_t peer, const struct peer_info *info)
{
    (void)ctx, (void)peer, (void)info;
}

static void on_down(void *ctx, uint32_t peer)
{
    (void)ctx, (void)peer;
}

static void collect(void *ctx, const char *line, size_t size)
{
    (void)ctx;
    if (world_last_words) {
        size_t n = size < WORLD_LAST_WORDS ? size : WORLD_LAST_WORDS;
        memcpy(world_last_words, line, n);
        world_last_words[n - 1] = '\0';
    }
    if (getenv("IMAGES_LOG"))
        fwrite(line, 1, size, stderr);
}

static void start_shard(struct world *w)
{
    const struct history *h = w->history;
    struct shard_options options = {.self = {.role = ROLE_SHARD,
                                             .boot = w->life,
                                             .cluster = CLUSTER,
                                             .name = "shard-0",
                                             .version = "test"},
                                    .slot_seed = SLOT_SEED,
                                    .types = types,
                                    .n_types = N_TYPES,
                                    .grant = store_lmdb_is_new(w->file),
                                    .grant_hi = WORLD_GRANTED - 1,
                                    .seed = h->seed * 1000003 + w->life,
                                    .payload_max_bytes = PAYLOAD_MAX_BYTES};
    struct hub_ports to_gateway = {.ctx = w, .send = shard_send, .forget = shard_forget};
    struct hub_self self = {.role = ROLE_GATEWAY,
                            .boot = 100 + w->life,
                            .cluster = CLUSTER,
                            .name = "gateway",
                            .version = "test"};
    const struct hub_handler handler = {
        .ctx = w, .on_up = on_up, .on_down = on_down, .on_message = on_message};
    struct hub_ports to_shard = {.ctx = w, .send = gateway_send};
    int code = store_lmdb_boot(w->store, options.self.boot);
    STOA_ASSERT(code == ERR_OK || code == ERR_NO_SPACE);
    w->shard = shard_create(&options, w->store, &to_gateway, &w->log, w->metrics, w->now);
    w->hub = hub_create(&self, &handler, &to_shard, &w->log, w->metrics, 50 + w->life);
    uint32_t peer = hub_dial(w->hub);
    STOA_ASSERT(peer == 1);
    w->first_cid = 1;
    hub_connected(w->hub, 1, w->now);
    world_pump(w);
    STOA_ASSERT(hub_is_up(w->hub, 1));
    struct message credit = {.type = MSG_CREDIT, .credit = {.granted = UINT64_C(1) << 40}};
    hub_send(w->hub, 1, &credit);
    world_pump(w);
}

struct world *world_open(const char *dir, struct history *h, const struct world_start *start,
                         struct strbuf *why)
{
    struct world *w = mem_zalloc(sizeof *w);
    w->history = h;
    w->now = start->now;
    w->log = (struct log){.level = LOG_WARN, .write = collect};
    w->metrics = metrics_create();
    const struct store_lmdb_options options = {.dir = dir,
                                               .cluster = CLUSTER,
                                               .cluster_name = "images",
                                               .map_bytes = MAP_BYTES,
                                               .after_eio = start->after_eio,
                                               .slot_seed = SLOT_SEED};
    w->life = start->life;
    rng_seed(&w->rng, h->seed * 77 + w->life);
    w->pid = h->seed * 1000000 + w->life + 1;
    if (store_lmdb_open(&w->file, &options, &w->log, w->metrics, why) != ERR_OK) {
        world_close(&w);
        return NULL;
    }
    w->store = rows_store_create(w->file);
    start_shard(w);
    return w;
}

void world_close(struct world **world)
{
    struct world *w = *world;
    if (w == NULL)
        return;
    *world = NULL;
    if (w->shard)
        shard_destroy(&w->shard);
    if (w->hub)
        hub_destroy(&w->hub);
    struct vec *lists[] = {&w->to_shard, &w->to_gateway};
    for (size_t i = 0; i < 2; i++) {
        for (size_t n = 0; n < lists[i]->count; n++)
            buf_unref(VEC_AT(lists[i], struct buf *)[n]);
        vec_free(lists[i]);
    }
    vec_free(&w->asked);
    rows_store_destroy(&w->store);
    store_lmdb_close(&w->file);
    metrics_destroy(&w->metrics);
    strbuf_free(&w->problem);
    mem_free(w);
}

/* ---- the workload ---- */

struct message world_publish(const struct world *w, size_t number, struct slice parts[])
{
    static uint8_t copies[PARTS_MAX][PAYLOAD_MAX];
    const struct history *h = w->history;
    const struct op_note *op = &h->ops[number];
    struct message m = {
        .type = MSG_PUB, .slot = SLOT_UNKNOWN, .key = slice_text(world_key(op->room))};
    uint64_t id = number + 1;
    memcpy(m.pub.msg_id, &id, sizeof id);
    m.pub.ts = op->ts;
    for (unsigned i = 0; i < op->parts; i++) {
        struct slice payload = world_payload(h, number, i);
        memcpy(copies[i], payload.data, payload.size);
        parts[i] = slice_of(copies[i], payload.size);
    }
    m.pub.payloads = (struct parts_list){parts, op->parts};
    return m;
}

static void say_publish(struct world *w)
{
    struct history *h = w->history;
    struct slice parts[PARTS_MAX];
    size_t number = h->n_ops;
    unsigned room = (unsigned)rng_below(&w->rng, WORLD_ROOMS);
    h->ops[number] =
        (struct op_note){.kind = OP_PUBLISH,
                         .room = (uint8_t)room,
                         .parts = (uint8_t)(rng_below(&w->rng, 5) ? 1 : 2 + rng_below(&w->rng, 4)),
                         .ordered = room % 3 == 0,
                         .ts = w->now.wall_ms,
                         .sent_at = (uint32_t)disk_recorded(),
                         .acked_at = UINT32_MAX};
    atomic_signal_fence(memory_order_seq_cst);
    h->n_ops++;
    struct message m = world_publish(w, number, parts);
    if (h->ops[number].ordered) {
        m.pub.pid = w->pid;
        m.pub.pseq = ++w->next_pseq[room];
    }
    (void)ask(w, m, ASKED_OP, number);
}

static void say_purge(struct world *w)
{
    struct history *h = w->history;
    unsigned room = (unsigned)rng_below(&w->rng, WORLD_ROOMS);
    h->ops[h->n_ops] = (struct op_note){.kind = OP_PURGE,
                                        .room = (uint8_t)room,
                                        .ts = w->now.wall_ms,
                                        .sent_at = (uint32_t)disk_recorded(),
                                        .acked_at = UINT32_MAX};
    atomic_signal_fence(memory_order_seq_cst); /* a kill leaves no half note */
    h->n_ops++;
    struct message m = {
        .type = MSG_PURGE, .slot = SLOT_UNKNOWN, .key = slice_text(world_key(room))};
    (void)ask(w, m, ASKED_OP, h->n_ops - 1);
}

static void say_retry(struct world *w)
{
    struct history *h = w->history;
    struct slice parts[PARTS_MAX];
    if (h->n_ops == 0)
        return;
    size_t back = 1 + rng_below(&w->rng, h->n_ops < 300 ? h->n_ops : 300), op = h->n_ops - back;
    if (h->ops[op].kind == OP_PUBLISH && h->ops[op].state == OP_ACKED)
        (void)ask(w, world_publish(w, op, parts), ASKED_RETRY, op);
}

/* The shard's core grants tokens only to a new store; what moves slots will write them like this.
 */
static void move_tokens(struct world *w)
{
    struct history *h = w->history;
    struct store_slot slots[WORLD_GRANTED - WORLD_TOKENS_FROM];
    struct token_note *note = &h->tokens[h->n_tokens];
    const struct store_vtable *t = w->store->vtable;
    if (h->n_tokens == WORLD_TOKENS_MAX)
        return;
    *note = (struct token_note){2 + h->n_tokens, (uint32_t)disk_recorded(), UINT32_MAX};
    h->n_tokens++;
    for (uint16_t i = 0; i < WORLD_GRANTED - WORLD_TOKENS_FROM; i++)
        slots[i] = (struct store_slot){(uint16_t)(WORLD_TOKENS_FROM + i), note->epoch};
    int code = t->begin(w->store);
    if (code != ERR_OK)
        return;
    code = t->put_slots(w->store, slots, WORLD_GRANTED - WORLD_TOKENS_FROM);
    if (code == ERR_OK)
        code = t->commit(w->store);
    else
        t->abort(w->store);
    if (code == ERR_OK)
        note->acked_at = (uint32_t)disk_recorded();
}

/* What was refused takes no number of the publisher's. */
static void settle_pseq(struct world *w)
{
    for (size_t i = 0; i < w->asked.count; i++) {
        const struct asked *asked = &VEC_AT(&w->asked, struct asked)[i];
        const struct op_note *op = &w->history->ops[asked->op];
        if (asked->kind == ASKED_OP && op->ordered && op->state == OP_REFUSED)
            w->next_pseq[op->room]--;
    }
}

void world_turn(struct world *w)
{
    struct history *h = w->history;
    h->turns++;
    w->now.mono_ns += NS_PER_S;
    w->now.wall_ms += 1000 + (int64_t)rng_below(&w->rng, 9000);
    h->now = w->now;
    w->first_cid = w->last_cid + 1;
    w->asked.count = 0;
    uint64_t dice = rng_below(&w->rng, 100);
    if (dice < 6)
        move_tokens(w);
    uint64_t publishes = dice < 10 ? 25 : rng_below(&w->rng, 5);
    for (uint64_t i = 0; i < publishes && h->n_ops < WORLD_OPS_MAX - 1; i++)
        say_publish(w);
    if (dice % 10 == 0)
        say_retry(w);
    if (dice % 33 == 0 && h->n_ops < WORLD_OPS_MAX - 1)
        say_purge(w);
    world_pump(w);
    settle_pseq(w);
}
