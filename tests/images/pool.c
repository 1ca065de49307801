/* SHELL. The workers share the counter of tasks and the results with their parent. */
#include "pool.h"

#include <ftw.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mem.h"

#define WORKERS_MAX 16
#define BLOCK 64 /* tasks that a worker takes at once: neighbours are cheap */
#define WHY_BYTES 400
#define PRINTED_MAX 10

struct shared_worker {
    uint64_t task, block_end;
    bool running; /* a task */
    char last_words[WORLD_LAST_WORDS];
};

struct shared {
    _Atomic uint64_t next;
    _Atomic uint64_t verdicts[VERDICTS];
    _Atomic uint64_t n_bad;
    char bad[PRINTED_MAX][WHY_BYTES];
    struct shared_worker workers[WORKERS_MAX];
};

char run_dir[64], disk_dir[64];

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

void remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void pool_dir(char *out, size_t size, unsigned worker)
{
    snprintf(out, size, "%s/%u", run_dir, worker);
    (void)mkdir(out, 0700);
}

enum verdict verdict_of_end(int status, const char *last_words, struct strbuf *why)
{
    bool own = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT &&
               strstr(last_words, "store.failed") != NULL;
    strbuf_printf(why, "ended by signal %d, having said: %.300s",
                  WIFSIGNALED(status) ? WTERMSIG(status) : 0, last_words);
    return own ? VERDICT_ENDED : VERDICT_CRASHED;
}

struct pool {
    const char *name;
    uint64_t count;
    unsigned bad;
    pool_task *task;
    void *ctx;
    struct shared *shared;
};

static void conclude(struct pool *p, uint64_t task, enum verdict v, struct strbuf *why)
{
    struct shared *s = p->shared;
    atomic_fetch_add(&s->verdicts[v], 1);
    if (!(p->bad & 1u << v))
        return;
    uint64_t n = atomic_fetch_add(&s->n_bad, 1);
    if (n < PRINTED_MAX)
        snprintf(s->bad[n], WHY_BYTES, "%s %llu: %s: %s", p->name, (unsigned long long)task,
                 verdict_names[v], strbuf_cstr(why));
}

_Noreturn static void work(struct pool *p, unsigned number)
{
    struct shared_worker *me = &p->shared->workers[number];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    world_last_words = me->last_words;
    for (;;) {
        while (me->task < me->block_end) {
            struct strbuf why = {0};
            me->running = true;
            me->last_words[0] = '\0';
            enum verdict v = p->task(p->ctx, number, me->task, &why);
            conclude(p, me->task, v, &why);
            me->running = false;
            me->task++;
            strbuf_free(&why);
        }
        me->task = atomic_fetch_add(&p->shared->next, BLOCK);
        me->block_end = me->task + BLOCK < p->count ? me->task + BLOCK : p->count;
        if (me->task >= p->count)
            _exit(0);
    }
}

static pid_t start(struct pool *p, unsigned number)
{
    fflush(NULL);
    pid_t pid = fork();
    STOA_ASSERT(pid >= 0);
    if (pid == 0)
        work(p, number);
    return pid;
}

void pool_run(const char *name, unsigned workers, uint64_t count, unsigned bad, pool_task *task,
              void *ctx, struct tally *tally)
{
    struct shared *s =
        mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    STOA_ASSERT(s != MAP_FAILED && workers <= WORKERS_MAX);
    struct pool p = {name, count, bad, task, ctx, s};
    pid_t pids[WORKERS_MAX];
    for (unsigned i = 0; i < workers; i++)
        pids[i] = start(&p, i);
    for (unsigned i = 0; i < workers;) {
        int status;
        STOA_ASSERT(waitpid(pids[i], &status, 0) == pids[i]);
        struct shared_worker *w = &s->workers[i];
        if (!w->running) {
            STOA_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            i++;
            continue;
        }
        struct strbuf why = {0};
        conclude(&p, w->task, verdict_of_end(status, w->last_words, &why), &why);
        strbuf_free(&why);
        w->running = false;
        w->task++;
        pids[i] = start(&p, i);
    }
    for (unsigned v = 0; v < VERDICTS; v++)
        tally->verdicts[v] += s->verdicts[v];
    for (uint64_t i = 0; i < s->n_bad && i < PRINTED_MAX && tally->told < PRINTED_MAX; i++) {
        printf("  %s\n", s->bad[i]);
        tally->told++;
    }
    munmap(s, sizeof *s);
}
