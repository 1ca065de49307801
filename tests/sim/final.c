/* CORE. The end of a run: every key's log is read over HTTP, compared with what the disks hold, and
 * given to the oracle; and what was "not stored" must not be there. */
#include "sim.h"

#include "common/json.h"

struct reading {
    struct socket socket;
    bool waiting;
    unsigned status;
    struct strbuf body;
};

static void on_answered(struct socket *s, unsigned status, struct slice body)
{
    struct reading *r = OWNER_OF(s, struct reading, socket);
    r->waiting = false;
    r->status = status;
    strbuf_reset(&r->body);
    strbuf_put_slice(&r->body, body);
}

static void on_closed(struct socket *s, unsigned code)
{
    (void)code;
    OWNER_OF(s, struct reading, socket)->waiting = false;
}

static const struct socket_handler handler = {.answered = on_answered, .closed = on_closed};

static bool ask(struct world *w, struct reading *r, unsigned key, struct position after)
{
    char query[128], id[EVENT_ID_MAX_BYTES];
    event_id_format(id, after);
    snprintf(query, sizeof query, "key=%s&limit=100&after=%s", w->truth.keys[key].name, id);
    struct http_request request = request_make(HTTP_M_GET, "/log", query);
    struct process *gateway = gateway_pick(w);
    r->waiting = true;
    r->status = 0;
    if (gateway)
        (void)socket_request(&r->socket, gateway, &request);
    for (int i = 0; i < 40 && r->waiting && !w->failed; i++)
        world_run_for(w, 500 * MS);
    if (r->status != 200)
        world_fail(w, "in the calm, the log of %s is answered %u %.*s", w->truth.keys[key].name,
                   r->status, (int)r->body.size, (const char *)r->body.data);
    return !w->failed;
}

static void entry(struct world *w, enum history_op op, unsigned key, struct position from,
                  struct position id, uint32_t msg)
{
    history_add(w->history, &(struct history_entry){.op = op,
                                                    .t = (uint64_t)w->now_ns,
                                                    .key = w->truth.keys[key].label,
                                                    .has_id = true,
                                                    .id = id,
                                                    .from = from,
                                                    .msg = msg});
}

static void check_event(struct world *w, unsigned key, struct slice event, struct position *at)
{
    struct position id = {0};
    uint32_t number = 0;
    unsigned part = 0;
    (void)json_id(event, "id", &id);
    struct epoch_log *log = truth_log(w, key, id.epoch);
    struct strbuf bytes = {0};
    bool fine = truth_parse(truth_data(event, &bytes), &number, &part) && log &&
                id.seq == at->seq + 1 && id.seq <= log->facts.count;
    strbuf_free(&bytes);
    if (fine) {
        const struct fact *f = &VEC_AT(&log->facts, struct fact)[id.seq - 1];
        fine = f->msg == number && f->part == part;
    }
    if (!fine)
        world_fail(w, "the log of %s has %.*s behind seq %llu", w->truth.keys[key].name,
                   SLICE_FMT(event), (unsigned long long)at->seq);
    entry(w, H_LOG, key, id, id, number);
    *at = id;
}

/* Where the log begins: behind what is gone, if that may be gone. */
static void check_floor(struct world *w, unsigned key, struct slice missed, struct position *at)
{
    struct verdict v = {0};
    const struct retention *r = &w->dice.retention[w->truth.keys[key].type];
    if (missed.size > 0 && truth_missed(missed, &v))
        *at = v.to;
    struct epoch_log *log = truth_log(w, key, at->epoch);
    if (!log)
        return;
    if (at->seq > truth_floor(w, key, log))
        world_fail(w, "the log of %s begins behind seq %llu, which retention keeps",
                   w->truth.keys[key].name, (unsigned long long)at->seq);
    if (at->seq < log->purged || (r->count > 0 && log->facts.count > at->seq + r->count))
        world_fail(w, "the log of %s gives what is gone", w->truth.keys[key].name);
    truth_allow(w, key, log, at->seq);
}

static void check_key(struct world *w, struct reading *r, unsigned key)
{
    const struct vec *logs = &w->truth.keys[key].logs;
    struct epoch_log *log = logs->count ? VEC_AT(logs, struct epoch_log *)[logs->count - 1] : NULL;
    if (log && (log->lost || log->expired))
        log = NULL;
    struct position at = {.epoch = log ? log->epoch : 0}, from = at;
    for (bool first = true, more = true; more; first = false) {
        if (!ask(w, r, key, first ? (struct position){0} : at))
            return;
        struct slice body = strbuf_slice(&r->body);
        struct slice missed = json_get(body, "missed").raw;
        if (first) {
            check_floor(w, key, missed, &at);
            from = at;
        } else if (missed.size > 0) { /* the rest grew old meanwhile */
            check_floor(w, key, missed, &at);
        }
        struct json_iter it = json_members(json_get(body, "events").raw);
        while (json_next(&it) && !w->failed)
            check_event(w, key, it.value.raw, &at);
        more = json_get(body, "more").type == JSON_TRUE && !w->failed;
    }
    if (log && (at.epoch != log->epoch || at.seq != log->facts.count))
        world_fail(w, "the log of %s ends at seq %llu of %zu", w->truth.keys[key].name,
                   (unsigned long long)at.seq, log->facts.count);
    entry(w, H_HEAD, key, from, at.seq ? at : (struct position){0}, 0);
}

static void check_refused(struct world *w)
{
    for (uint32_t number = 1; number <= w->truth.msgs.count; number++) {
        const struct msg *m = truth_msg(w, number);
        if (m->refused && !m->maybe && !m->acked && m->stored > 0)
            world_fail(w, "message %u was said not to be stored, and is", number);
    }
}

void final_check(struct world *w)
{
    struct reading r = {.socket = {.world = w, .handler = &handler, .lag_ns = MS}};
    for (unsigned key = 0; key < w->dice.keys && !w->failed; key++)
        check_key(w, &r, key);
    check_refused(w);
    w->counters->messages += w->truth.msgs.count;
    socket_leave(&r.socket);
    socket_free(&r.socket);
    strbuf_free(&r.body);
}
