/* CORE. Publishers with libstoa: its core as a process that dials the routers. Each incarnation is
 * a publisher of its own; what a dead one had submitted nobody waits for. Callers of rooms
 * (members.c) ask through it, too; they learn nothing from a dead one and ask again. */
#include "sim.h"

#include "client/caller.h"

static void library_soon(struct library *l)
{
    struct world *w = l->world;
    event_set(w, &l->act, draw_ns(w, w->dice.pace_ns));
}

static struct library *library_of(struct process *p)
{
    return &p->world->libraries[p->index];
}

static uint64_t draw_odd(struct library *l, uint64_t bound)
{
    return rng_below(&l->world->odd, bound);
}

static void submit(struct library *l, uint32_t number, bool ordered)
{
    struct world *w = l->world;
    struct msg *m = truth_msg(w, number);
    struct strbuf texts[PARTS_MAX] = {{0}};
    stoa_slice parts[PARTS_MAX];
    char name[32], conflate[2] = {(char)('0' + m->conflate), '\0'};
    stoa_publish_options o = {.size = sizeof o};
    snprintf(name, sizeof name, "library-%u", number);
    o.idempotency_key = m->named ? name : NULL;
    o.conflate = m->conflate ? conflate : NULL;
    o.ephemeral = m->ephemeral;
    static const char *const some[] = {"", "somebody"};
    if (m->whom == FOR_SOME)
        o.to = some, o.n_to = number % 3;
    else if (m->whom == FOR_ALL_BUT_SOME)
        o.except = some, o.n_except = 1 + number % 2;
    o.timeout_ms = 500 + (int)draw(w, 8000);
    for (unsigned part = 0; part < m->parts; part++) {
        truth_payload(w, number, part, &texts[part]);
        parts[part] = (stoa_slice){texts[part].data, texts[part].size};
    }
    const struct publish_order order = {.key = slice_text(w->truth.keys[m->key].name),
                                        .parts = parts,
                                        .n_parts = m->parts,
                                        .options = &o,
                                        .default_timeout_ms = 8000};
    STOA_ASSERT(publish_check(&order) == STOA_OK);
    struct publish *publish = publish_create(&order);
    publish->arg = (void *)(uintptr_t)number;
    truth_submit(w, number, ordered && !m->ephemeral ? ++l->pseq[m->key] : 0);
    publisher_submit(l->process->publisher, publish, process_now(l->process));
    for (unsigned part = 0; part < m->parts; part++)
        strbuf_free(&texts[part]);
    process_soon(l->process);
    process_settle(l->process);
}

/* What a caller may get wrong is refused before anything is copied. */
static void mistake(struct library *l)
{
    static const char text[300] = "";
    static char long_name[IDEMPOTENCY_KEY_MAX_BYTES + 2];
    const stoa_slice good = {"1", 1}, none = {NULL, 1}, fat = {text, PAYLOAD_HARD_MAX_BYTES + 1};
    const stoa_slice half[3] = {
        {text, BATCH_MAX_BYTES / 2}, {text, BATCH_MAX_BYTES / 2}, {text, BATCH_MAX_BYTES / 2}};
    memset(long_name, 'x', sizeof long_name - 1);
    stoa_publish_options o = {.size = sizeof o};
    struct publish_order order = {
        .key = slice_text("k"), .parts = &good, .n_parts = 1, .options = &o};
    int expected = STOA_INVALID;
    switch (draw_odd(l, 12)) {
    case 0:
        order.key = slice_text("$k");
        break;
    case 1:
        o.size = sizeof o.size - 1;
        break;
    case 2:
        o.conflate = long_name;
        break;
    case 3:
        o.conflate = "\xff";
        break;
    case 4:
        o.idempotency_key = draw_odd(l, 2) ? "" : long_name;
        break;
    case 5:
        o.timeout_ms = -1;
        break;
    case 6:
        order.n_parts = 0;
        break;
    case 7:
        order.parts = NULL;
        break;
    case 8:
        order.parts = &none;
        break;
    case 9:
        order.parts = &fat;
        expected = STOA_TOO_LARGE;
        break;
    case 10:
        order.parts = half;
        order.n_parts = 3;
        expected = STOA_TOO_LARGE;
        break;
    default:
        order.n_parts = BATCH_MAX_EVENTS + 1;
        expected = STOA_TOO_LARGE;
    }
    if (publish_check(&order) != expected)
        world_fail(l->world, "libstoa takes a wrong order");
}

static void library_act(struct event *e)
{
    struct library *l = OWNER_OF(e, struct library, act);
    struct world *w = l->world;
    if (!w->storm)
        return;
    library_soon(l);
    if (!process_runs(l->process))
        return;
    if (w->guests && draw_odd(l, 8) == 0)
        mistake(l);
    for (uint64_t n = chance(w, 100) ? 1 + draw(w, 6) : 1; n > 0 && l->process->up; n--) {
        bool ordered = chance(w, 800);
        uint32_t number = truth_draw(w, l->who, ordered, !ordered || chance(w, 500));
        truth_msg(w, number)->form = guests_form(w);
        submit(l, number, ordered);
    }
}

static void ended(struct library *l, const struct publish *publish)
{
    uint32_t number = (uint32_t)(uintptr_t)publish->arg;
    enum history_what what = H_NACK;
    if (publish->status == STOA_OK)
        what = H_ACK;
    else if (publish->status == STOA_UNKNOWN)
        what = H_UNKNOWN;
    else if (publish->status != STOA_TIMEOUT && publish->status != STOA_DISK &&
             publish->status != STOA_BUSY)
        world_fail(l->world, "libstoa ends message %u with %d", number, publish->status);
    truth_answer(l->world, number, l->who, what,
                 (struct position){publish->id.epoch, publish->id.seq}, publish->id.duplicate);
}

/* ---- rooms ---- */

bool library_ask(struct world *w, unsigned index, const struct call_order *order,
                 stoa_result_fn *told, void *arg)
{
    struct library *l = &w->libraries[index];
    if (index >= w->dice.count[LIBRARY] || !l->process || !process_runs(l->process))
        return false;
    STOA_ASSERT(call_check(order) == STOA_OK);
    struct call *call = call_create(order);
    call->fn = told;
    call->arg = arg;
    caller_submit(publisher_caller(l->process->publisher), call, process_now(l->process));
    process_soon(l->process);
    process_settle(l->process);
    return true;
}

static void calls_ended(struct publisher *publisher)
{
    struct list *done = caller_done(publisher_caller(publisher));
    while (!list_empty(done)) {
        struct call *call = LIST_ENTRY(done->next, struct call, node);
        list_remove(&call->node);
        call->fn(call->arg, call->status, call->result);
        call_destroy(call);
    }
}

void library_turn(struct process *p)
{
    struct library *l = library_of(p);
    publisher_turn(p->publisher, process_now(p));
    publisher_validate(p->publisher);
    caller_validate(publisher_caller(p->publisher));
    calls_ended(p->publisher);
    struct list *done = publisher_done(p->publisher);
    while (!list_empty(done)) {
        struct publish *publish = LIST_ENTRY(done->next, struct publish, node);
        list_remove(&publish->node);
        ended(l, publish);
        publish_destroy(publish);
    }
}

void library_up(struct process *p, const struct hub_ports *ports, const struct hub_self *self)
{
    struct library *l = library_of(p);
    struct world *w = p->world;
    const struct publisher_options options = {
        .self = *self, .n_routers = w->dice.count[ROUTER], .seed = rng_u64(&w->rng)};
    char name[32];
    p->publisher = publisher_create(&options, ports, guests_log(w), w->metrics);
    *l = (struct library){.act = l->act, .process = p, .world = w};
    l->act.fire = library_act;
    snprintf(name, sizeof name, "library-%u.%llu", p->index, (unsigned long long)p->boots);
    l->who = history_name(w->history, slice_text(name));
    library_soon(l);
}

void library_down(struct process *p)
{
    struct library *l = library_of(p);
    publisher_abandon(p->publisher);
    caller_abandon(publisher_caller(p->publisher));
    calls_ended(p->publisher);
    struct list *done = publisher_done(p->publisher);
    while (!list_empty(done)) {
        struct publish *publish = LIST_ENTRY(done->next, struct publish, node);
        list_remove(&publish->node);
        truth_msg(p->world, (uint32_t)(uintptr_t)publish->arg)->maybe = true;
        publish_destroy(publish);
    }
    publisher_destroy(&p->publisher);
    truth_close(p->world, l->who, KEYS_MAX);
}
