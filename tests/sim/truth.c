/* CORE. What is durable, seen at the disks' commits; what everybody was told, for the oracle; and
 * the checks that need both: nobody is told of an event that is not on a disk at that moment, a
 * record goes only when retention lets it, a room is born anew only when nothing of it is left, and
 * what was "not stored" is not there. */
#include "sim.h"

#include "common/json.h"
#include "common/limits.h"

#define AIM_SOME 1u
#define AIM_OTHERS 2u

/* ---- entries ---- */

static void entry(struct world *w, struct history_entry e)
{
    e.t = (uint64_t)w->now_ns;
    const uint64_t mixed[] = {e.op, e.what, e.msg, e.id.epoch, e.id.seq};
    world_mix(w, mixed, sizeof mixed);
    if (w->verbose) {
        struct strbuf line = {0};
        history_write(w->history, &e, &line);
        world_trace(w, "%.*s", (int)line.size - 1, (const char *)line.data);
        strbuf_free(&line);
    }
    history_add(w->history, &e);
}

void truth_entry(struct world *w, enum history_op op, uint32_t who)
{
    entry(w, (struct history_entry){.op = op, .who = who});
}

static uint32_t label_of(const struct world *w, unsigned key)
{
    return key < KEYS_MAX ? w->truth.keys[key].label : 0;
}

/* ---- messages ---- */

struct msg *truth_msg(struct world *w, uint32_t number)
{
    STOA_ASSERT(number > 0 && number <= w->truth.msgs.count);
    return &VEC_AT(&w->truth.msgs, struct msg)[number - 1];
}

/* Drawn by hashes, so that other draws stay what they are. */
bool truth_picky(const struct world *w)
{
    return hash_bytes("picky", 5, w->seed) % 2 == 0;
}

static enum whom whom_of(const struct world *w, uint32_t number)
{
    uint64_t n = hash_bytes(&number, sizeof number, w->seed ^ 7) % 100;
    if (!truth_picky(w) || n >= 25)
        return FOR_ALL;
    return n < 17 ? FOR_SOME : FOR_ALL_BUT_SOME;
}

uint32_t truth_draw(struct world *w, uint32_t who, bool ordered, bool named)
{
    const struct dice *dice = &w->dice;
    struct msg *m = VEC_PUSH(&w->truth.msgs, struct msg);
    *m = (struct msg){.key = (unsigned)draw(w, dice->keys), .parts = 1, .who = who};
    m->ephemeral = chance(w, dice->ephemeral);
    if (!m->ephemeral && chance(w, dice->batch))
        m->parts = (uint16_t)(2 + draw(w, PARTS_MAX - 1));
    if (!m->ephemeral && chance(w, dice->conflate))
        m->conflate = (uint16_t)(1 + draw(w, CONFLATES));
    m->named = named && !m->ephemeral;
    m->whom = whom_of(w, (uint32_t)w->truth.msgs.count);
    (void)ordered;
    return (uint32_t)w->truth.msgs.count;
}

void truth_submit(struct world *w, uint32_t number, uint64_t pseq)
{
    struct msg *m = truth_msg(w, number);
    if (m->tries++ == 0)
        m->first_ns = w->now_ns;
    entry(w,
          (struct history_entry){.op = H_PUBLISH,
                                 .who = m->who,
                                 .key = label_of(w, m->key),
                                 .msg = number,
                                 .n = m->parts,
                                 .pseq = pseq,
                                 .conflate = m->conflate ? w->conflates[m->whom][m->conflate] : 0,
                                 .aim = m->whom == FOR_SOME ? AIM_SOME : 0,
                                 .but = m->whom == FOR_ALL_BUT_SOME ? AIM_OTHERS : 0,
                                 .ephemeral = m->ephemeral});
}

void truth_payload(struct world *w, uint32_t number, unsigned part, struct strbuf *out)
{
    enum form form = truth_msg(w, number)->form;
    if (form == FORM_TYPED)
        strbuf_put_text(out, "{\"json\":");
    strbuf_printf(out, "{\"m\":%u,\"p\":%u", number, part);
    /* the size is a function of the message: every try sends the same bytes */
    uint64_t hash = hash_bytes(&number, sizeof number, w->seed + part);
    size_t pad =
        hash % 1000 < w->dice.fat ? (hash >> 8) % (w->dice.payload_max + 1) : (hash >> 8) % 40;
    if (form == FORM_TEXT || form == FORM_BYTES) {
        strbuf_put_text(out, form == FORM_TEXT ? "\n\rx\r\n\n" : "\n\xff");
        memset(strbuf_reserve(out, pad), form == FORM_TEXT ? 'x' : 0, pad);
        strbuf_commit(out, pad);
        return;
    }
    strbuf_put_text(out, ",\"x\":\"");
    memset(strbuf_reserve(out, pad), 'x', pad);
    strbuf_commit(out, pad);
    strbuf_put_text(out, form == FORM_TYPED ? "\"},\"meta\":[[1,\"x\"]]}" : "\"}");
}

bool truth_parse(struct slice payload, uint32_t *number, unsigned *part)
{
    char text[48];
    size_t size = payload.size < sizeof text - 1 ? payload.size : sizeof text - 1;
    if (size == 0)
        return false;
    memcpy(text, payload.data, size);
    text[size] = '\0';
    return sscanf(text, "{\"m\":%u,\"p\":%u", number, part) == 2 ||
           sscanf(text, "{\"p\":%u,\"m\":%u", part, number) == 2;
}

static unsigned base64_digit(uint8_t c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (unsigned)(at - digits) : 64;
}

struct slice truth_data(struct slice event, struct strbuf *out)
{
    struct json_value data = json_get(event, "data");
    struct slice text = json_get(event, "base64").raw;
    unsigned word = 0, bits = 0;
    if (data.type != JSON_NONE || text.size < 2)
        return data.raw;
    for (size_t i = 1; i + 1 < text.size && text.data[i] != '='; i++) {
        unsigned digit = base64_digit(text.data[i]);
        if (digit == 64)
            return (struct slice){0};
        word = word << 6 | digit;
        bits += 6;
        if (bits >= 8)
            strbuf_put_byte(out, (uint8_t)(word >> (bits -= 8)));
    }
    return strbuf_slice(out);
}

/* Whether the message stands at the id on a disk, now. */
static void answer_check(struct world *w, uint32_t number, struct position id)
{
    struct msg *m = truth_msg(w, number);
    struct epoch_log *log = truth_log(w, m->key, id.epoch);
    if (m->ephemeral)
        return;
    if (!log || id.seq == 0 || id.seq > log->facts.count) {
        world_fail(w, "message %u is acknowledged at a place that is on no disk (seq %llu)", number,
                   (unsigned long long)id.seq);
        return;
    }
    const struct fact *f = &VEC_AT(&log->facts, struct fact)[id.seq - 1];
    if (f->msg != number || f->part + 1 != m->parts)
        world_fail(w, "message %u is acknowledged where message %u stands", number, f->msg);
}

void truth_answer(struct world *w, uint32_t number, uint32_t who, enum history_what what,
                  struct position id, bool dup)
{
    struct msg *m = truth_msg(w, number);
    if (what == H_ACK && !w->rolled)
        answer_check(w, number, id);
    if (what == H_ACK && !m->ephemeral)
        w->truth.keys[m->key].acked = id;
    m->acked |= what == H_ACK;
    m->maybe |= what == H_UNKNOWN || what == H_TIMEOUT;
    m->refused |= what == H_NACK;
    w->counters->acks += what == H_ACK;
    w->counters->duplicates += dup;
    entry(w, (struct history_entry){.op = H_ANSWER,
                                    .what = what,
                                    .who = who,
                                    .key = label_of(w, m->key),
                                    .msg = number,
                                    .has_id = what == H_ACK && !m->ephemeral,
                                    .id = id,
                                    .dup = dup});
}

/* ---- logs ---- */

struct epoch_log *truth_log(struct world *w, unsigned key, uint64_t epoch)
{
    const struct vec *logs = &w->truth.keys[key].logs;
    for (size_t i = 0; i < logs->count; i++)
        if (VEC_AT(logs, struct epoch_log *)[i]->epoch == epoch)
            return VEC_AT(logs, struct epoch_log *)[i];
    return NULL;
}

static struct fact *fact_at(const struct epoch_log *log, uint64_t seq)
{
    return &VEC_AT(&log->facts, struct fact)[seq - 1];
}

uint64_t truth_floor(struct world *w, unsigned key, struct epoch_log *log)
{
    const struct retention *r = &w->dice.retention[w->truth.keys[key].type];
    uint64_t head = log->facts.count, floor = log->purged;
    if (log->lost)
        return head;
    if (r->count > 0 && head > r->count && head - r->count > floor)
        floor = head - r->count;
    while (log->upto < head)
        log->bytes += fact_at(log, ++log->upto)->size;
    while (r->bytes > 0 && log->bytes > r->bytes)
        log->bytes -= fact_at(log, ++log->floor)->size;
    if (log->floor > floor)
        floor = log->floor;
    int64_t clock_ms = w->disks[log->shard].clock_ms;
    while (r->age_ms > 0 && log->aged < head &&
           fact_at(log, log->aged + 1)->ts + r->age_ms <= clock_ms)
        log->aged++;
    return log->aged > floor ? log->aged : floor;
}

void truth_allow(struct world *w, unsigned key, struct epoch_log *log, uint64_t seq)
{
    uint64_t floor = truth_floor(w, key, log);
    uint64_t to = seq < floor ? seq : floor;
    if (to <= log->trimmed)
        return;
    log->trimmed = to;
    entry(w, (struct history_entry){.op = H_TRIM,
                                    .key = label_of(w, key),
                                    .has_id = true,
                                    .id = {log->epoch, to},
                                    .reason = to <= log->purged ? H_PURGED
                                              : to <= log->aged ? H_EXPIRED
                                                                : H_EVICTED});
}

void truth_allow_all(struct world *w)
{
    for (unsigned key = 0; key < w->dice.keys; key++) {
        const struct vec *logs = &w->truth.keys[key].logs;
        for (size_t i = 0; i < logs->count; i++)
            truth_allow(w, key, VEC_AT(logs, struct epoch_log *)[i], UINT64_MAX);
    }
}

/* ---- what a transaction does ---- */

void truth_append(struct disk *d, const struct store_record *record)
{
    struct world *w = d->process->world;
    if (record->flags & EVENT_PRESENCE)
        return; /* watchers.c judges it */
    if (w->guests && record->payload.size >= strlen(MADE_TEXT) &&
        memcmp(record->payload.data, MADE_TEXT, strlen(MADE_TEXT)) == 0)
        return; /* of a room with a handler */
    struct fact *f = VEC_PUSH(&d->appended, struct fact);
    unsigned part = 0;
    *f = (struct fact){.part = (uint16_t)record->batch_index,
                       .parts = (uint16_t)record->batch_count,
                       .size = (uint32_t)record->payload.size,
                       .ts = record->ts,
                       .room_id = record->room_id,
                       .seq = record->seq,
                       .lsn = record->lsn};
    if (record->conflate.size > 0)
        f->conflate = (uint16_t)(record->conflate.data[0] - '0');
    struct slice payload = record->payload;
    if (record->flags & EVENT_TYPED)
        payload = json_get(payload, "json").raw;
    if (!truth_parse(payload, &f->msg, &part) || f->msg > w->truth.msgs.count)
        world_fail(w, "%s stores what nobody published", d->process->name);
    else if (part != f->part || f->parts != truth_msg(w, f->msg)->parts)
        world_fail(w, "%s stores a part of message %u in another place", d->process->name, f->msg);
    unsigned share = SLOT_COUNT / w->dice.count[SHARD];
    unsigned owner = record->slot / share;
    if (owner >= w->dice.count[SHARD])
        owner = w->dice.count[SHARD] - 1;
    if (owner != d->process->index)
        world_fail(w, "%s stores an event of a slot that it does not own", d->process->name);
}

void truth_room(struct disk *d, const struct store_room *row)
{
    struct world *w = d->process->world;
    if (w->guests && row->key.size > 5 && memcmp(row->key.data, "made:", 5) == 0)
        return;
    struct row *r = VEC_PUSH(&d->rooms, struct row);
    *r = (struct row){.room_id = row->room_id, .epoch = row->epoch, .key = KEYS_MAX};
    r->purged = row->purged ? row->floor : 0;
    for (unsigned i = 0; i < w->dice.keys; i++)
        if (slice_is(row->key, w->truth.keys[i].name))
            r->key = i;
    if (r->key == KEYS_MAX)
        world_fail(w, "%s stores a room that nobody named", d->process->name);
}

void truth_removed(struct disk *d, uint64_t lsn)
{
    *VEC_PUSH(&d->removed, uint64_t) = lsn;
}

void truth_expired(struct disk *d, uint64_t room_id)
{
    *VEC_PUSH(&d->expired, uint64_t) = room_id;
}

void truth_abort(struct disk *d)
{
    d->appended.count = d->rooms.count = d->removed.count = d->expired.count = 0;
}

static void born(struct world *w, struct disk *d, const struct row *row)
{
    struct key_truth *key = &w->truth.keys[row->key];
    struct epoch_log *log = truth_log(w, row->key, row->epoch);
    if (log) {
        if (row->purged > log->purged)
            log->purged = row->purged;
        return;
    }
    for (size_t i = 0; i < key->logs.count; i++) {
        struct epoch_log *old = VEC_AT(&key->logs, struct epoch_log *)[i];
        if (truth_floor(w, row->key, old) < old->facts.count)
            world_fail(w, "%s begins %s anew while events of it are retained", d->process->name,
                       key->name);
        else
            truth_allow(w, row->key, old, old->facts.count);
    }
    log = mem_zalloc(sizeof *log);
    *log = (struct epoch_log){
        .epoch = row->epoch, .room_id = row->room_id, .shard = d->process->index};
    *VEC_PUSH(&key->logs, struct epoch_log *) = log;
}

static struct epoch_log *log_of_room(struct world *w, uint64_t room_id, unsigned *key)
{
    for (*key = 0; *key < w->dice.keys; (*key)++) {
        const struct vec *logs = &w->truth.keys[*key].logs;
        for (size_t i = 0; i < logs->count; i++)
            if (VEC_AT(logs, struct epoch_log *)[i]->room_id == room_id)
                return VEC_AT(logs, struct epoch_log *)[i];
    }
    return NULL;
}

static void note_place(struct disk *d, uint64_t lsn, struct epoch_log *log, uint64_t seq)
{
    while (d->by_lsn.count <= lsn)
        *VEC_PUSH(&d->by_lsn, struct place) = (struct place){0};
    VEC_AT(&d->by_lsn, struct place)[lsn] = (struct place){log, seq};
}

static void stored(struct world *w, struct disk *d, struct fact *f)
{
    struct epoch_log *log = log_of_room(w, f->room_id, &f->key);
    struct msg *m = truth_msg(w, f->msg);
    if (!log || f->seq != log->facts.count + 1 || f->key != m->key) {
        world_fail(w, "%s stores message %u out of its log's order (seq %llu)", d->process->name,
                   f->msg, (unsigned long long)f->seq);
        return;
    }
    struct epoch_log *before = m->stored ? truth_log(w, m->key, m->epoch) : NULL;
    if (before && before->lost) {
        memmove(m->lost + 1, m->lost, (LOST_MAX - 1) * sizeof *m->lost);
        m->lost[0] = (struct position){m->stored == m->parts ? m->epoch : 0, m->last};
        m->stored = 0;
    }
    if (f->part != m->stored && m->forgotten && (m->by_request || w->skewed))
        w->excused = true; /* a request does not say when its publish was first tried, and what a
                              publisher says whose clock is ahead is not to be believed */
    else if (f->part != m->stored && w->rolled)
        w->excused = true; /* half of a batch's copy, or what it had forgotten meanwhile */
    else if (f->part != m->stored)
        world_fail(w, "message %u is stored again, at seq %llu after %llu", f->msg,
                   (unsigned long long)f->seq, (unsigned long long)m->last);
    m->stored = (uint16_t)(f->part + 1);
    m->epoch = log->epoch;
    m->last = f->seq;
    *VEC_PUSH(&log->facts, struct fact) = *f;
    note_place(d, f->lsn, log, f->seq);
}

/* Nobody can resume in it any more. */
static void epoch_over(struct world *w, unsigned key, const struct epoch_log *log)
{
    entry(w, (struct history_entry){.op = H_TRIM,
                                    .key = label_of(w, key),
                                    .has_id = true,
                                    .id = {log->epoch, log->facts.count},
                                    .reason = H_EPOCH});
}

static void row_gone(struct world *w, const struct disk *d, uint64_t room_id)
{
    unsigned key;
    struct epoch_log *log = log_of_room(w, room_id, &key);
    if (!log && w->guests)
        return; /* of a room with a handler */
    if (!log || truth_floor(w, key, log) < log->facts.count)
        world_fail(w, "%s forgets a room of which events are retained", d->process->name);
    else if (fact_at(log, log->facts.count)->ts + ROOM_META_MIN_MS > d->clock_ms)
        world_fail(w, "%s forgets a room within a day", d->process->name);
    else {
        log->expired = true;
        truth_allow(w, key, log, UINT64_MAX);
        epoch_over(w, key, log);
    }
}

void truth_commit(struct disk *d)
{
    struct world *w = d->process->world;
    for (size_t i = 0; i < d->rooms.count; i++)
        born(w, d, &VEC_AT(&d->rooms, struct row)[i]);
    for (size_t i = 0; i < d->appended.count; i++)
        stored(w, d, &VEC_AT(&d->appended, struct fact)[i]);
    for (size_t i = 0; i < d->removed.count; i++) {
        uint64_t lsn = VEC_AT(&d->removed, uint64_t)[i], key = 0;
        const struct place *place =
            lsn < d->by_lsn.count ? &VEC_AT(&d->by_lsn, struct place)[lsn] : NULL;
        if (!place || !place->log)
            continue;
        unsigned of = 0;
        (void)key;
        (void)log_of_room(w, place->log->room_id, &of);
        truth_msg(w, fact_at(place->log, place->seq)->msg)->forgotten = true;
        if (place->seq > truth_floor(w, of, place->log))
            world_fail(w, "%s deletes seq %llu of %s, which retention keeps", d->process->name,
                       (unsigned long long)place->seq, w->truth.keys[of].name);
    }
    for (size_t i = 0; i < d->expired.count; i++)
        row_gone(w, d, VEC_AT(&d->expired, uint64_t)[i]);
    truth_abort(d);
}

/* What is lost with a disk may have superseded what readers skipped, though nobody was told where
 * it stood: somebody reads it now. */
static void witness(struct world *w, unsigned key, const struct epoch_log *log)
{
    uint32_t who = history_name(w->history, slice_text("witness"));
    for (uint64_t seq = 1; seq <= log->facts.count; seq++) {
        const struct fact *f = fact_at(log, seq);
        if (f->conflate == 0 || truth_msg(w, f->msg)->acked)
            continue;
        entry(w, (struct history_entry){.op = H_SUBSCRIBE,
                                        .what = H_AFTER,
                                        .who = who,
                                        .key = label_of(w, key),
                                        .has_id = true,
                                        .id = {log->epoch, seq - 1},
                                        .aim = AIM_SOME,
                                        .conflated = true});
        entry(w, (struct history_entry){.op = H_DELIVER,
                                        .who = who,
                                        .key = label_of(w, key),
                                        .has_id = true,
                                        .id = {log->epoch, seq},
                                        .msg = f->msg});
        truth_close(w, who, key);
    }
}

void truth_lost(struct disk *d)
{
    struct world *w = d->process->world;
    w->lost_ns = w->now_ns;
    tally_lost(d->process);
    for (unsigned key = 0; key < w->dice.keys; key++) {
        const struct vec *logs = &w->truth.keys[key].logs;
        for (size_t i = 0; i < logs->count; i++) {
            struct epoch_log *log = VEC_AT(logs, struct epoch_log *)[i];
            if (log->lost || log->shard != d->process->index)
                continue;
            log->lost = true;
            witness(w, key, log);
            epoch_over(w, key, log);
        }
    }
}

void truth_kept(struct disk *d)
{
    struct world *w = d->process->world;
    for (unsigned key = 0; key < w->dice.keys; key++) {
        const struct vec *logs = &w->truth.keys[key].logs;
        for (size_t i = 0; i < logs->count; i++) {
            struct epoch_log *log = VEC_AT(logs, struct epoch_log *)[i];
            if (log->shard == d->process->index)
                log->old_purged = log->purged;
        }
    }
}

static void log_put_back(struct world *w, struct epoch_log *log, uint64_t lsn)
{
    while (log->facts.count > 0 && fact_at(log, log->facts.count)->lsn >= lsn) {
        struct msg *m = truth_msg(w, fact_at(log, log->facts.count--)->msg);
        m->stored = 0;
        m->maybe = true;
    }
    log->purged = log->old_purged;
    log->trimmed = log->floor = log->upto = log->bytes = log->aged = 0;
}

void truth_put_back(struct disk *d)
{
    struct world *w = d->process->world;
    w->rolled = true;
    for (unsigned key = 0; key < w->dice.keys; key++) {
        struct vec *logs = &w->truth.keys[key].logs;
        size_t kept = 0;
        for (size_t i = 0; i < logs->count; i++) {
            struct epoch_log *log = VEC_AT(logs, struct epoch_log *)[i];
            if (log->shard == d->process->index && !log->lost) {
                log_put_back(w, log, d->old_lsn);
                readers_put_back(w, key, log->epoch, log->facts.count);
            }
            VEC_AT(logs, struct epoch_log *)[kept] = log;
            if (log->facts.count > 0 || log->lost)
                kept++;
            else { /* born since */
                vec_free(&log->facts);
                mem_free(log);
            }
        }
        logs->count = kept;
    }
    d->by_lsn.count = d->old_lsn;
}

/* ---- what readers see ---- */

void truth_subscribe(struct world *w, uint32_t who, unsigned key, enum history_what start,
                     struct position after, uint64_t number)
{
    entry(w, (struct history_entry){.op = H_SUBSCRIBE,
                                    .what = start,
                                    .who = who,
                                    .key = label_of(w, key),
                                    .has_id = start == H_AFTER,
                                    .id = after,
                                    .number = number,
                                    .conflated = true});
}

static enum history_reason reason_of(struct slice text)
{
    static const char *const names[] = {[H_EXPIRED] = "\"expired\"",
                                        [H_EVICTED] = "\"evicted\"",
                                        [H_SLOW] = "\"slow\"",
                                        [H_PURGED] = "\"purged\"",
                                        [H_EPOCH] = "\"epoch\""};
    for (unsigned i = H_EXPIRED; i <= H_EPOCH; i++)
        if (slice_is(text, names[i]))
            return (enum history_reason)i;
    return 0;
}

bool json_id(struct slice object, const char *name, struct position *out)
{
    struct slice raw = json_get(object, name).raw;
    return raw.size > 2 && event_id_parse(slice_of(raw.data + 1, raw.size - 2), out) == ERR_OK;
}

bool truth_missed(struct slice json, struct verdict *v)
{
    v->status = H_MISSED;
    v->reason = reason_of(json_get(json, "reason").raw);
    return json_id(json, "from", &v->from) && json_id(json, "to", &v->to) && v->reason != 0;
}

void truth_verdict(struct world *w, uint32_t who, unsigned key, const struct verdict *v)
{
    if (v->status == H_MISSED) {
        struct epoch_log *log = truth_log(w, key, v->to.epoch);
        w->counters->misses++;
        if (log)
            truth_allow(w, key, log, v->to.seq);
    }
    entry(w, (struct history_entry){.op = H_VERDICT,
                                    .what = v->status,
                                    .who = who,
                                    .key = label_of(w, key),
                                    .has_id = v->head != NULL,
                                    .id = v->head ? *v->head : (struct position){0},
                                    .from = v->from,
                                    .to = v->to,
                                    .reason = v->reason});
}

/* The place of an event whose dialect tells no id; (0,0): it has none. */
static struct position place_of(const struct msg *m, unsigned part, uint64_t epoch)
{
    for (unsigned i = 0; i < LOST_MAX; i++)
        if (epoch != 0 && m->lost[i].epoch == epoch)
            return (struct position){epoch, m->lost[i].seq + 1 - m->parts + part};
    if (m->ephemeral || part >= m->stored)
        return (struct position){0};
    return (struct position){m->epoch, m->last + 1 - m->stored + part};
}

bool truth_doubtful(struct world *w, struct slice payload)
{
    uint32_t number = 0;
    unsigned part = 0;
    return truth_parse(payload, &number, &part) && number > 0 && number <= w->truth.msgs.count &&
           truth_msg(w, number)->lost[0].epoch != 0;
}

static void deliver_check(struct world *w, uint32_t number, unsigned part, struct position id)
{
    const struct msg *m = truth_msg(w, number);
    struct epoch_log *log = truth_log(w, m->key, id.epoch);
    if (id.seq == 0 && m->ephemeral)
        return;
    if (!log || id.seq == 0 || id.seq > log->facts.count)
        world_fail(w, "message %u is delivered before it is on a disk", number);
    else if (fact_at(log, id.seq)->msg != number || fact_at(log, id.seq)->part != part)
        world_fail(w, "message %u is delivered at seq %llu, where another stands", number,
                   (unsigned long long)id.seq);
}

bool truth_deliver(struct world *w, uint32_t who, unsigned key, struct position *id,
                   struct slice payload, bool first_of_all)
{
    uint32_t number = 0;
    unsigned part = 0;
    w->counters->deliveries++;
    if (!truth_parse(payload, &number, &part) || number == 0 || number > w->truth.msgs.count ||
        truth_msg(w, number)->key != key) {
        world_fail(w, "somebody reads what nobody published there");
        return false;
    }
    if (id->seq == 0)
        *id = place_of(truth_msg(w, number), part, id->epoch);
    if (!w->rolled)
        deliver_check(w, number, part, *id);
    if (id->seq > 0 && first_of_all && !w->failed &&
        !w->rolled) /* nobody is told of what it could not get */
        truth_allow(w, key, truth_log(w, key, id->epoch), id->seq - 1);
    entry(w, (struct history_entry){.op = H_DELIVER,
                                    .who = who,
                                    .key = label_of(w, key),
                                    .has_id = id->seq > 0,
                                    .id = *id,
                                    .msg = number});
    return id->seq > 0;
}

struct position truth_end(struct world *w, unsigned key)
{
    const struct vec *logs = &w->truth.keys[key].logs;
    if (logs->count == 0)
        return (struct position){0};
    const struct epoch_log *log = VEC_AT(logs, struct epoch_log *)[logs->count - 1];
    if (log->lost || log->expired)
        return (struct position){0};
    return (struct position){log->epoch, log->facts.count};
}

uint64_t truth_seen(struct world *w, unsigned key, struct position end)
{
    const struct epoch_log *log = truth_log(w, key, end.epoch);
    uint64_t seq = log ? end.seq : 0;
    while (seq > 0 && truth_msg(w, fact_at(log, seq)->msg)->whom == FOR_SOME)
        seq--;
    return seq;
}

bool truth_follows(struct world *w, unsigned key, struct position end, struct position id)
{
    const struct epoch_log *log = truth_log(w, key, id.epoch);
    uint64_t seq = end.epoch == id.epoch ? end.seq + 1 : 1;
    for (; log && !log->lost && seq < id.seq; seq++)
        if (fact_at(log, seq)->conflate == 0 && /* else it may have caught up meanwhile */
            truth_msg(w, fact_at(log, seq)->msg)->whom != FOR_SOME)
            return false;
    return true;
}

void truth_close(struct world *w, uint32_t who, unsigned key)
{
    entry(w, (struct history_entry){.op = H_CLOSE, .who = who, .key = label_of(w, key)});
}

/* ---- life ---- */

void truth_create(struct world *w)
{
    for (unsigned i = 0; i < w->dice.keys; i++) {
        struct key_truth *key = &w->truth.keys[i];
        key->type = i % 3 == 2 ? 1 : 0;
        snprintf(key->name, sizeof key->name, "%s:%u-%llx", key->type ? "short" : "room", i,
                 (unsigned long long)(w->seed & 0xff));
        key->label = history_name(w->history, slice_text(key->name));
        key->slot = slot_of(slice_text(key->name), SLOT_SEED);
    }
    for (unsigned i = 1; i <= CONFLATES; i++) {
        for (unsigned whom = 0; whom < WHOM_COUNT; whom++) {
            const char text[3] = {(char)('0' + i), whom ? (char)('a' + whom) : '\0'};
            w->conflates[whom][i] = history_name(w->history, slice_text(text));
        }
    }
}

void truth_destroy(struct world *w)
{
    for (unsigned i = 0; i < KEYS_MAX; i++) {
        struct vec *logs = &w->truth.keys[i].logs;
        for (size_t n = 0; n < logs->count; n++) {
            vec_free(&VEC_AT(logs, struct epoch_log *)[n]->facts);
            mem_free(VEC_AT(logs, struct epoch_log *)[n]);
        }
        vec_free(logs);
    }
    vec_free(&w->truth.msgs);
}
