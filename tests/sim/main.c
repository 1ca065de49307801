/* SHELL. The simulator's command line. Seeds run in child processes, so that an assert of a core is
 * a finding with a seed like any other, and so that a mutant's crash harms nobody.
 *
 *   stoa-sim --seeds N [--first S] [--jobs J]   seeds S .. S+N-1 (S: 1)
 *   stoa-sim --fresh N                          N seeds that nobody has run
 *   stoa-sim --seed N [-v]                      one seed, with a trace of everything
 *   stoa-sim --list FILE                        the seeds of a file, one a line
 *   stoa-sim --mutants [--seeds N]              each mutant, at most N seeds (5000) */
#include "sim.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/mutant.h"

#define JOBS_MAX 64
#define TWICE_EVERY 50      /* so often a seed is run again, for its trace's hash */
#define SEED_SECONDS_MAX 60 /* of processor time */
#define FAILURES_SHOWN 20

enum mutant stoa_mutant = MUTANT_NONE;

struct options {
    uint64_t first, seeds, seed;
    bool one, verbose, mutants, fresh;
    const char *list, *only;
    unsigned jobs;
};

struct failure {
    uint64_t seed;
    char why[512];
};

struct job {       /* shared with the child that does it */
    uint64_t seed; /* being run */
    uint64_t done;
    _Atomic uint64_t failures; /* counted behind what is shown of it */
    struct failure shown[FAILURES_SHOWN];
    struct counters counters;
};

static const char *const mutant_names[] = {
    "none",
#define MUTANT(name, text) #name,
#include "common/mutants.def"
#undef MUTANT
};
static const char *const mutant_texts[] = {
    "",
#define MUTANT(name, text) text,
#include "common/mutants.def"
#undef MUTANT
};

/* ---- one child's work ---- */

struct bench {
    struct history *history;
    struct metrics *metrics;
};

static struct bench bench_create(void)
{
    /* worlds are made and thrown away: keep their memory */
    mallopt(M_MMAP_THRESHOLD, 64 * MIB);
    mallopt(M_TRIM_THRESHOLD, 512 * MIB);
    return (struct bench){history_create(), metrics_create()};
}

static void note_failure(struct job *job, uint64_t seed, const char *why)
{
    if (job->failures < FAILURES_SHOWN) {
        struct failure *f = &job->shown[job->failures];
        f->seed = seed;
        snprintf(f->why, sizeof f->why, "%s", why);
    }
    job->failures++;
}

static void seed_time_limit(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    rlim_t limit = (rlim_t)usage.ru_utime.tv_sec + (rlim_t)usage.ru_stime.tv_sec + SEED_SECONDS_MAX;
    setrlimit(RLIMIT_CPU, &(struct rlimit){limit, RLIM_INFINITY});
}

/* Answers tell counts, so every run begins to count anew. */
static void world_once(struct bench *b, uint64_t seed, bool verbose, struct counters *counters,
                       struct outcome *run)
{
    metrics_destroy(&b->metrics);
    b->metrics = metrics_create();
    world_run(seed, verbose, b->history, b->metrics, counters, run);
}

static void seed_run(struct bench *b, struct job *job, uint64_t seed, bool verbose, bool twice)
{
    struct outcome run, again;
    job->seed = seed;
    seed_time_limit();
    world_once(b, seed, verbose, &job->counters, &run);
    if (run.failed)
        note_failure(job, seed, run.why);
    if (!run.failed && buf_alive() != 0)
        note_failure(job, seed, "packets are never freed");
    if (twice && !run.failed) {
        world_once(b, seed, false, &job->counters, &again);
        if (again.failed || again.trace != run.trace)
            note_failure(job, seed, "the same seed is another run");
    }
    job->done++;
}

/* ---- children ---- */

struct work {             /* which seeds a child runs */
    const uint64_t *list; /* NULL: first, first + step ... */
    uint64_t first, step, count;
    const struct job
        *hunt; /* NULL, or all of them, `step`: only the first seed that fails counts */
};

/* A sibling found an earlier one. */
static bool hunt_over(const struct work *work, uint64_t seed)
{
    for (uint64_t i = 0; i < work->step; i++) {
        const struct job *job = &work->hunt[i];
        if (atomic_load(&job->failures) > 0 && job->shown[0].seed <= seed)
            return true;
    }
    return false;
}

static void work_do(const struct work *work, struct job *job)
{
    struct bench b = bench_create();
    for (uint64_t i = job->done; i < work->count; i++) {
        uint64_t seed = work->list ? work->list[i] : work->first + i * work->step;
        if (work->hunt && hunt_over(work, seed))
            break;
        seed_run(&b, job, seed, false, i % TWICE_EVERY == 0 && !work->hunt);
    }
    metrics_destroy(&b.metrics);
    history_destroy(&b.history);
}

#ifdef STOA_COVERAGE
void __gcov_dump(void);
#endif

static pid_t child_start(const struct work *work, struct job *job)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        perror("stoa-sim: fork");
        exit(2);
    }
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        if (work->hunt && !freopen("/dev/null", "w", stderr))
            _exit(2);
        work_do(work, job);
#ifdef STOA_COVERAGE /* tests/sim/coverage: counts are written by exit handlers only */
        __gcov_dump();
#endif
        _exit(0);
    }
    return pid;
}

/* An assert of a core, or a run without end: noted, and the child's work goes on behind it. */
static bool child_end(const struct work *work, struct job *job, int status)
{
    char why[64];
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU)
        snprintf(why, sizeof why, "no end within %d s", SEED_SECONDS_MAX);
    else if (WIFSIGNALED(status))
        snprintf(why, sizeof why, "signal %d (an assert of a core)", WTERMSIG(status));
    else
        snprintf(why, sizeof why, "exit status %d", WEXITSTATUS(status));
    note_failure(job, job->seed, why);
    job->done++;
    return work->hunt || job->done >= work->count;
}

static struct job *jobs_create(unsigned jobs)
{
    struct job *all =
        mmap(NULL, jobs * sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) {
        perror("stoa-sim: mmap");
        exit(2);
    }
    return all;
}

static void jobs_run(const struct work *work, struct job *jobs, unsigned count)
{
    pid_t pids[JOBS_MAX];
    unsigned running = count;
    for (unsigned i = 0; i < count; i++)
        pids[i] = child_start(&work[i], &jobs[i]);
    while (running > 0) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        for (unsigned i = 0; i < count; i++) {
            if (pids[i] != pid)
                continue;
            if (child_end(&work[i], &jobs[i], status))
                running--;
            else
                pids[i] = child_start(&work[i], &jobs[i]);
        }
    }
}

/* ---- telling ---- */

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void counters_add(struct counters *to, const struct counters *from)
{
    uint64_t *sum = (uint64_t *)(void *)to;
    for (size_t i = 0; i < sizeof *to / sizeof *sum; i++)
        sum[i] += ((const uint64_t *)(const void *)from)[i];
}

static void counters_tell(const struct counters *c)
{
    printf("%llu events, %llu packets, %llu crashes, %llu commits (%llu lost), %.0f h of virtual "
           "time\n",
           (unsigned long long)c->events, (unsigned long long)c->packets,
           (unsigned long long)c->crashes, (unsigned long long)c->commits,
           (unsigned long long)c->lost_commits, (double)c->ns / 3.6e12);
    printf("%llu messages, %llu acks (%llu duplicates recognised), %llu deliveries, %llu misses, "
           "%llu entries judged, %llu steps of rooms\n",
           (unsigned long long)c->messages, (unsigned long long)c->acks,
           (unsigned long long)c->duplicates, (unsigned long long)c->deliveries,
           (unsigned long long)c->misses, (unsigned long long)c->entries,
           (unsigned long long)c->steps);
    printf("faults:");
    for (unsigned i = 0; i < FAULTS; i++)
        printf("%s %s %llu", i ? "," : "", fault_name(i), (unsigned long long)c->faults[i]);
    printf("\n");
    if (c->rolled > 0)
        printf("%llu runs with a disk put back in time: %llu readers were told, %llu had caught up "
               "unnoticed\n",
               (unsigned long long)c->rolled, (unsigned long long)c->put_back_told,
               (unsigned long long)c->put_back_untold);
    if (c->excused > 0)
        printf("%llu runs ended early: a retry came after its window had passed, over HTTP or with "
               "clocks apart\n",
               (unsigned long long)c->excused);
}

static int batch_tell(const struct job *jobs, unsigned count, double seconds)
{
    struct counters sum = {0};
    uint64_t done = 0, failures = 0;
    for (unsigned i = 0; i < count; i++) {
        counters_add(&sum, &jobs[i].counters);
        done += jobs[i].done;
        failures += jobs[i].failures;
        for (unsigned n = 0; n < jobs[i].failures && n < FAILURES_SHOWN; n++)
            printf("seed %llu: %s\n", (unsigned long long)jobs[i].shown[n].seed,
                   jobs[i].shown[n].why);
    }
    counters_tell(&sum);
    printf("%llu seeds in %.1f s on %u cores: %.0f seeds/s a core, %llu violations\n",
           (unsigned long long)done, seconds, count, (double)done / seconds / count,
           (unsigned long long)failures);
    printf("%llu passed, %llu failed\n", (unsigned long long)(done - failures),
           (unsigned long long)failures);
    return failures > 0;
}

/* ---- what is asked for ---- */

static int run_batch(const struct options *o, const uint64_t *list, uint64_t n_list)
{
    struct work work[JOBS_MAX];
    struct job *jobs = jobs_create(o->jobs);
    uint64_t count = list ? n_list : o->seeds;
    double begun = seconds_now();
    for (unsigned i = 0; i < o->jobs; i++) {
        work[i] = (struct work){.first = o->first + i, .step = o->jobs};
        work[i].count = count / o->jobs + (i < count % o->jobs);
    }
    if (list) { /* in one piece each */
        uint64_t at = 0;
        for (unsigned i = 0; i < o->jobs; at += work[i++].count)
            work[i].list = list + at;
    }
    jobs_run(work, jobs, o->jobs);
    int failed = batch_tell(jobs, o->jobs, seconds_now() - begun);
    munmap(jobs, o->jobs * sizeof *jobs);
    return failed;
}

static int run_list(const struct options *o)
{
    FILE *file = fopen(o->list, "r");
    char line[256];
    uint64_t *list = NULL, count = 0;
    if (!file) {
        fprintf(stderr, "stoa-sim: %s: %s\n", o->list, strerror(errno));
        return 2;
    }
    while (fgets(line, sizeof line, file)) {
        char *end;
        uint64_t seed = strtoull(line, &end, 10);
        if (end == line)
            continue;
        list = mem_realloc(list, (count + 1) * sizeof *list);
        list[count++] = seed;
    }
    fclose(file);
    int failed = count ? run_batch(o, list, count) : 2;
    mem_free(list);
    return failed;
}

static int run_one(const struct options *o)
{
    struct job *job = jobs_create(1);
    struct bench b = bench_create();
    seed_run(&b, job, o->seed, o->verbose, true);
    int failed = batch_tell(job, 1, 1);
    metrics_destroy(&b.metrics);
    history_destroy(&b.history);
    return failed;
}

/* Each child takes every jobs-th mutant; here the mutants are the work and seeds run until one
 * shows. */
static uint64_t mutant_run(const struct options *o, enum mutant mutant, struct job *jobs)
{
    struct work work[JOBS_MAX];
    uint64_t killer = 0;
    stoa_mutant = mutant;
    memset(jobs, 0, o->jobs * sizeof *jobs);
    for (unsigned i = 0; i < o->jobs; i++)
        work[i] = (struct work){.first = o->first + i,
                                .step = o->jobs,
                                .count = (o->seeds + o->jobs - 1) / o->jobs,
                                .hunt = jobs};
    jobs_run(work, jobs, o->jobs);
    const struct failure *first = NULL;
    for (unsigned i = 0; i < o->jobs; i++)
        if (jobs[i].failures > 0 && (!first || jobs[i].shown[0].seed < first->seed))
            first = &jobs[i].shown[0];
    if (first) {
        killer = first->seed;
        printf("%-22s killed by seed %llu: %.120s\n", mutant_names[mutant],
               (unsigned long long)killer, first->why);
    }
    if (killer == 0)
        printf("%-22s SURVIVES %llu seeds (%s)\n", mutant_names[mutant],
               (unsigned long long)o->seeds, mutant_texts[mutant]);
    fflush(stdout);
    return killer;
}

static int run_mutants(const struct options *o)
{
    struct job *jobs = jobs_create(o->jobs);
    unsigned killed = 0, count = 0;
    double begun = seconds_now();
    for (enum mutant mutant = MUTANT_NONE + 1; mutant < MUTANTS; mutant++) {
        if (o->only && strcmp(o->only, mutant_names[mutant]) != 0)
            continue;
        count++;
        killed += mutant_run(o, mutant, jobs) != 0;
    }
    printf("%u of %u mutants killed in %.1f s\n", killed, count, seconds_now() - begun);
    printf("%u passed, %u failed\n", killed, count - killed);
    return killed < count;
}

/* ---- the command line ---- */

static const char usage[] =
    "usage: stoa-sim --seeds N [--first S]   seeds S .. S+N-1\n"
    "       stoa-sim --fresh N               N seeds from the clock; the first one is printed\n"
    "       stoa-sim --seed N [-v]           one seed; -v: everything that happens in it\n"
    "       stoa-sim --list FILE             the seeds of a file\n"
    "       stoa-sim --mutants [--only NAME] wrong versions of the rules, N seeds each (5000)\n"
    "       --jobs J                         so many processes (one a core)\n"
    "       --mutant NAME                    with any of the above: switched on\n";

static _Noreturn void bad_usage(const char *what)
{
    fprintf(stderr, "stoa-sim: %s\n%s", what, usage);
    exit(2);
}

static uint64_t number_of(const char *text)
{
    char *end = NULL;
    uint64_t number = text ? strtoull(text, &end, 10) : 0;
    if (!text || end == text || *end != '\0')
        bad_usage("a number is missing");
    return number;
}

static void mutant_set(const char *name)
{
    for (unsigned i = 1; name && i < MUTANTS; i++)
        if (strcmp(name, mutant_names[i]) == 0)
            stoa_mutant = (enum mutant)i;
    if (stoa_mutant == MUTANT_NONE)
        bad_usage("no such mutant");
}

static void options_read(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(flag, "--mutants") == 0) {
            o->mutants = true;
            continue;
        }
        if (strcmp(flag, "-v") == 0) {
            o->verbose = true;
            continue;
        }
        if (strcmp(flag, "--help") == 0 || strcmp(flag, "-h") == 0) {
            fputs(usage, stdout);
            exit(0);
        }
        i++;
        if (strcmp(flag, "--seeds") == 0) {
            o->seeds = number_of(value);
        } else if (strcmp(flag, "--first") == 0) {
            o->first = number_of(value);
        } else if (strcmp(flag, "--fresh") == 0) {
            o->fresh = true;
            o->seeds = number_of(value);
        } else if (strcmp(flag, "--seed") == 0) {
            o->one = true;
            o->seed = number_of(value);
        } else if (strcmp(flag, "--jobs") == 0) {
            o->jobs = (unsigned)number_of(value);
        } else if (strcmp(flag, "--list") == 0) {
            o->list = value;
        } else if (strcmp(flag, "--only") == 0) {
            o->only = value;
        } else if (strcmp(flag, "--mutant") == 0) {
            mutant_set(value);
        } else {
            bad_usage(flag);
        }
    }
}

int main(int argc, char **argv)
{
    struct options o = {.first = 1};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    o.jobs = cores > 0 ? (unsigned)cores : 1;
    options_read(&o, argc, argv);
    if (o.jobs < 1 || o.jobs > JOBS_MAX)
        bad_usage("--jobs: 1 to 64");
    if (o.fresh) {
        o.first = (uint64_t)time(NULL) * 1000000;
        printf("first seed %llu\n", (unsigned long long)o.first);
    }
    if (o.mutants) {
        o.seeds = o.seeds ? o.seeds : 5000;
        return run_mutants(&o);
    }
    if (o.one)
        return run_one(&o);
    if (o.list)
        return run_list(&o);
    if (o.seeds == 0)
        bad_usage("what is to be run?");
    return run_batch(&o, NULL, 0);
}
