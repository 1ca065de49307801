/* CORE. Runs a handler, segment by segment.
 *
 *   run / resume  -> done, absent      what it did is applied, the task ends well
 *                 -> yielded           what it did is applied, the run waits (wait.c)
 *                 -> undecoded         on_decode_error; without one it is counted and ignored; a
 *                                      direct send is refused; so is, without a run, what does
 *                                      not fit the type's schema
 *                 -> failed, killed    on_error, in the same segment unless that is dropped
 *                                      (killed, or `rollback`); not handled: the task fails
 *
 * A method that fails with a tag of its own has answered: nothing is wrong with the room. An
 * on_connect that fails leaves nothing behind. */
#include "shard/actor.h"
#include "shard/quarantine.h"

#include <stdio.h>

#include "common/json.h"
#include "common/mutant.h"

struct running {
    struct shard *s;
    struct task *t;
    struct segment segment;
    struct context ctx;
    struct run *run;
    struct strbuf result;
    struct fault fault;
    bool dropped; /* what it did must not stay */
    enum phase stopped_in;
    struct strbuf stopped; /* over which budget; empty: it was not */
};

static const char execution_error[] = "RoomExecutionError";

static void running_begin(struct running *r, struct shard *s, struct task *t)
{
    struct actor *a = t->actor;
    *r = (struct running){.s = s, .t = t};
    segment_begin(&r->segment);
    r->ctx = actor_context(s, a, &r->segment);
    r->ctx.connection = t->connection;
    r->ctx.phase = t->what.phase;
    if (t->kind == TASK_ALARM && a->alarm.attempt > 0)
        r->ctx.system_failure = strbuf_cstr(&a->alarm.why);
    a->segment = &r->segment;
}

static void note_stop(struct running *r, enum run_end end, enum phase phase)
{
    if (end != RUN_KILLED)
        return;
    r->stopped_in = phase;
    strbuf_reset(&r->stopped);
    strbuf_put_slice(&r->stopped, strbuf_slice(&r->fault.message));
}

static enum run_end invoke(struct running *r, const struct invocation *what)
{
    struct actor *a = r->t->actor;
    r->ctx.phase = what->phase;
    watch_enter(r->s, a->room, phase_name(what->phase));
    enum run_end end =
        a->handler->vtable->run(a->handler, &r->ctx, a->mem, what, &r->run, &r->result, &r->fault);
    watch_leave(r->s, a->room, what->phase);
    note_stop(r, end, what->phase);
    return end;
}

static void segment_renew(struct running *r)
{
    segment_free(&r->segment);
    segment_begin(&r->segment);
}

static void log_fault(const struct running *r, enum phase phase, const struct fault *fault,
                      bool handled)
{
    LOG(r->s->log, handled ? LOG_INFO : LOG_WARN, "room.failed",
        LOG_SLICE("key", room_key(r->t->actor->room)), LOG_STR("phase", phase_name(phase)),
        LOG_STR("tag", fault->tag), LOG_SLICE("error", strbuf_slice(&fault->message)),
        LOG_STR("handled", handled ? "yes" : "no"));
}

static void count_fault(const struct running *r, enum phase phase)
{
    metric_add(r->s->types[r->t->actor->room->type].errors[phase], 1);
}

/* ---- failing ---- */

/* on_error. RUN_FAILED: r->fault is what the task fails with. */
static enum run_end handle_fault(struct running *r)
{
    struct task *t = r->t;
    struct fault failed = r->fault;
    r->fault = (struct fault){0};
    const struct invocation what = {
        .phase = PHASE_ERROR, .failed = t->what.phase, .fault = &failed};
    enum run_end end = invoke(r, &what);
    bool handled = end == RUN_DONE || end == RUN_YIELDED;
    log_fault(r, what.failed, &failed, handled);
    if (end == RUN_FAILED || end == RUN_KILLED) {
        count_fault(r, PHASE_ERROR);
        log_fault(r, PHASE_ERROR, &r->fault, false);
    }
    r->dropped |= end == RUN_KILLED;
    if (end == RUN_YIELDED)
        t->what.phase = PHASE_ERROR;
    if (handled && t->what.phase != PHASE_CALL) {
        fault_free(&failed);
        return end;
    }
    fault_free(&r->fault);
    r->fault = failed;
    return RUN_FAILED;
}

static enum run_end failed(struct running *r, enum run_end end)
{
    struct task *t = r->t;
    bool answered = end == RUN_FAILED && t->kind == TASK_CALL && t->what.phase == PHASE_CALL &&
                    strcmp(r->fault.tag, execution_error) != 0;
    if (end == RUN_KILLED ||
        (t->actor->handler->traits.rollback && !STOA_MUTANT(ROLLBACK_KEEPS_WRITES)))
        segment_renew(r);
    if (answered)
        return RUN_FAILED;
    count_fault(r, t->what.phase);
    if (t->what.phase != PHASE_ERROR)
        return handle_fault(r);
    log_fault(r, PHASE_ERROR, &r->fault, false);
    return RUN_FAILED;
}

static enum run_end undecoded(struct running *r)
{
    struct task *t = r->t;
    if (t->kind == TASK_CALL) {
        (void)snprintf(r->fault.tag, sizeof r->fault.tag, "RoomValidationError");
        r->fault.status = 400;
        return RUN_FAILED;
    }
    struct fault fault = r->fault;
    r->fault = (struct fault){0};
    const struct invocation what = {
        .phase = PHASE_DECODE_ERROR, .input = t->what.input, .fault = &fault};
    t->what.phase = PHASE_DECODE_ERROR;
    enum run_end end = invoke(r, &what);
    if (end == RUN_ABSENT) {
        metric_add(r->s->metric.undecoded, 1);
        LOG(r->s->log, LOG_INFO, "room.undecoded", LOG_SLICE("key", room_key(t->actor->room)),
            LOG_SLICE("error", strbuf_slice(&fault.message)));
    }
    fault_free(&fault);
    return end == RUN_FAILED || end == RUN_KILLED ? failed(r, end) : end;
}

/* ---- ending ---- */

static void task_ended(struct running *r, const struct fault *fault)
{
    struct task *t = r->t;
    switch (t->kind) {
    case TASK_JOIN:
        member_joined(r->s, t, fault);
        break;
    case TASK_LEAVE:
        member_left(r->s, t);
        break;
    case TASK_ALARM:
        alarm_ended(r->s, t, fault);
        break;
    case TASK_CALL:
        call_ended(r->s, t, fault, strbuf_slice(&r->result));
        break;
    case TASK_INPUT:
        break;
    }
    strbuf_free(&t->items);
}

static void segment_ended(struct running *r, enum run_end end)
{
    struct task *t = r->t;
    if (end == RUN_UNDECODED)
        end = undecoded(r);
    else if (end == RUN_FAILED || end == RUN_KILLED)
        end = failed(r, end);
    else if (end == RUN_ABSENT && t->kind == TASK_CALL && t->what.phase == PHASE_CALL)
        fault_set(&r->fault, "NoSuchMethod", "the room has no method %.*s",
                  SLICE_FMT(t->what.method));
    t->actor->segment = NULL;
    bool failing = end == RUN_FAILED || r->fault.tag[0] != '\0';
    if (!r->dropped && !(failing && t->kind == TASK_JOIN))
        segment_apply(r->s, t, &r->segment);
    if (end == RUN_YIELDED)
        wait_start(r->s, t, &r->segment, r->run);
    else
        task_ended(r, failing ? &r->fault : NULL);
    if (r->stopped.size > 0) {
        char in[32];
        (void)snprintf(in, sizeof in, "on_%s", phase_name(r->stopped_in));
        quarantine_strike(r->s, t->actor, in, strbuf_slice(&r->stopped));
    }
    segment_free(&r->segment);
    strbuf_free(&r->result);
    strbuf_free(&r->stopped);
    fault_free(&r->fault);
}

/* What is not even JSON is the handler's to judge. */
static bool event_fits(struct running *r)
{
    const struct task *t = r->t;
    struct handler *h = t->actor->handler;
    return t->what.phase != PHASE_EVENT || !h->schemas[BOUNDARY_EVENT] ||
           !json_valid(t->what.input) ||
           handler_admits(h, BOUNDARY_EVENT, t->what.input, "RoomValidationError", &r->fault);
}

void segment_run(struct shard *s, struct task *t)
{
    struct running r;
    running_begin(&r, s, t);
    segment_ended(&r, event_fits(&r) ? invoke(&r, &t->what) : RUN_UNDECODED);
}

void segment_resume(struct shard *s, struct task *t, struct run *run, const struct wake *wake)
{
    struct running r;
    struct actor *a = t->actor;
    running_begin(&r, s, t);
    r.run = run;
    watch_enter(s, a->room, phase_name(t->what.phase));
    enum run_end end =
        a->handler->vtable->resume(a->handler, &r.ctx, a->mem, &r.run, wake, &r.result, &r.fault);
    watch_leave(s, a->room, t->what.phase);
    note_stop(&r, end, t->what.phase);
    segment_ended(&r, end);
}
