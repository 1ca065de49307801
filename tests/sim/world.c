/* CORE. One run: draw the dice, build the world, the storm, the calm, the verdict. */
#include "sim.h"

#include <stdarg.h>

/* Within this long after the storm everything must have come to its end: the longest chain is a
 * shard's start, a publish's own patience (10 s) and one more try. */
#define CALM_NS (45 * NS_PER_S)
/* A run that needs more than this does not come to rest. */
#define EVENTS_MAX 2000000

void world_trace(const struct world *w, const char *format, ...)
{
    va_list args;
    printf("%12.6f ", (double)w->now_ns / 1e9);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

void world_fail(struct world *w, const char *format, ...)
{
    va_list args;
    if (w->failed)
        return;
    w->failed = true;
    va_start(args, format);
    vsnprintf(w->why, sizeof w->why, format, args);
    va_end(args);
    TRACE(w, "VIOLATION: %s", w->why);
}

uint64_t draw(struct world *w, uint64_t bound)
{
    return bound ? rng_below(&w->rng, bound) : 0;
}

bool chance(struct world *w, unsigned of_thousand)
{
    return of_thousand > 0 && rng_below(&w->rng, 1000) < of_thousand;
}

int64_t draw_ns(struct world *w, int64_t mean_ns)
{
    return (int64_t)draw(w, 2 * (uint64_t)mean_ns + 1);
}

void event_set(struct world *w, struct event *e, int64_t in_ns)
{
    heap_set(&w->events, &e->node, w->now_ns + (in_ns > 0 ? in_ns : 0));
}

void event_stop(struct world *w, struct event *e)
{
    heap_remove(&w->events, &e->node);
}

void world_mix(struct world *w, const void *bytes, size_t size)
{
    w->trace = hash_bytes(bytes, size, w->trace ^ (uint64_t)w->now_ns);
}

struct process *world_process(struct world *w, enum kind kind, unsigned index)
{
    for (unsigned i = 0; i < w->n_processes; i++)
        if (w->processes[i].kind == kind && w->processes[i].index == index)
            return &w->processes[i];
    return NULL;
}

/* Events until `end_ns`, or until something is wrong. */
static void run_until(struct world *w, int64_t end_ns)
{
    struct heap_node *node;
    while (!w->failed && !w->excused && (node = heap_pop_due(&w->events, end_ns)) != NULL) {
        w->now_ns = node->due;
        OWNER_OF(node, struct event, node)->fire(OWNER_OF(node, struct event, node));
        w->counters->events++;
        if (++w->fired > EVENTS_MAX)
            world_fail(w, "the world does not come to rest");
    }
    w->now_ns = end_ns;
}

void world_run_for(struct world *w, int64_t ns)
{
    run_until(w, w->now_ns + ns);
}

static void world_calm(struct world *w)
{
    TRACE(w, "---- the storm is over ----");
    w->storm = false;
    faults_heal(w);
}

static void world_free(struct world *w)
{
    for (unsigned i = 0; i < w->n_processes; i++)
        if (w->processes[i].up)
            process_crash(&w->processes[i], "the end");
    readers_free(w);
    posters_free(w);
    visitors_free(w);
    tally_end(w);
    made_end(w);
    for (unsigned i = 0; i < COUNTERS; i++)
        vec_free(&w->told[i]);
    net_free(w);
    for (unsigned i = 0; i < w->dice.count[SHARD]; i++)
        disk_destroy(&w->disks[i]);
    truth_destroy(w);
    heap_free(&w->events);
    members_free(w); /* whose events were in it */
    watchers_free(w);
    vec_free(&w->orphans);
    message_arena_free(&w->arena);
}

static void history_judge(struct world *w)
{
    const struct history_report *r = history_check(w->history);
    int rule = r->kept[0].rule;
    bool log = rule <= HISTORY_LOG_RULES;
    w->counters->entries += r->entries;
    w->counters->steps += r->steps;
    if (r->bad[0])
        world_fail(w, "the history cannot be judged: %s", r->bad);
    else if (r->violations > 0)
        world_fail(w, "%c%d: %s (%zu violations; entries %llu %llu %llu)", log ? 'H' : 'R',
                   log ? rule : rule - HISTORY_LOG_RULES, r->kept[0].text, r->violations,
                   (unsigned long long)r->kept[0].lines[0], (unsigned long long)r->kept[0].lines[1],
                   (unsigned long long)r->kept[0].lines[2]);
}

static void world_begin(struct world *w)
{
    rng_seed(&w->rng, w->seed);
    list_init(&w->sockets);
    history_clear(w->history);
    dice_roll(w);
    guests_begin(w);
    truth_create(w);
    processes_add(w);
    w->storm = true;
    for (unsigned i = 0; i < w->n_processes; i++)
        process_start(&w->processes[i]);
    readers_add(w);
    posters_add(w);
    visitors_add(w);
    members_add(w);
    watchers_add(w);
    faults_begin(w);
}

void world_run(uint64_t seed, bool verbose, struct history *history, struct metrics *metrics,
               struct counters *counters, struct outcome *run)
{
    struct world *w = mem_zalloc(sizeof *w);
    *w = (struct world){.seed = seed,
                        .verbose = verbose,
                        .lost_ns = -1,
                        .leap_ns = -1,
                        .history = history,
                        .metrics = metrics,
                        .counters = counters};
    world_begin(w);
    run_until(w, w->dice.storm_ns);
    if (!w->failed) {
        world_calm(w);
        run_until(w, w->now_ns + 2 * NS_PER_S); /* everybody is there again */
        if (w->dice.count[INTRUDER] > 0)        /* it waits for nothing */
            truth_close(w, world_process(w, INTRUDER, 0)->who, KEYS_MAX);
        truth_entry(w, H_CALM, 0);
        run_until(w, w->now_ns + CALM_NS);
        truth_allow_all(w);
        truth_entry(w, H_DEADLINE, 0);
    }
    if (!w->failed && !w->excused)
        visitors_check(w);
    if (!w->failed && !w->excused)
        final_check(w);
    if (!w->failed && !w->excused)
        watchers_check(w);
    if (!w->failed && !w->excused)
        tally_final(w);
    counters->excused += w->excused;
    counters->rolled += w->rolled;
    if (!w->failed && !w->excused && w->rolled)
        readers_check(w);
    else if (!w->failed && !w->excused)
        history_judge(w);
    counters->ns += (uint64_t)w->now_ns;
    run->failed = w->failed;
    run->trace = w->trace;
    memcpy(run->why, w->why, sizeof run->why);
    if (w->failed && verbose) {
        struct strbuf dump = {0};
        history_dump(history, &dump);
        printf("%s", strbuf_cstr(&dump));
        strbuf_free(&dump);
    }
    world_free(w);
    mem_free(w);
}
