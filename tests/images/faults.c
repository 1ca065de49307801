/* SHELL. The k-th call that writes, grows or syncs the file fails, for each k, in the first start
 * and in mid work, once and from then on: EIO (of a sync: with the loss of what it should have made
 * durable), ENOSPC, a short write. Whatever the store then does, nothing acknowledged is missing,
 * nothing refused is there, and a disk that answered EIO is not opened again unasked. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk.h"
#include "images.h"
#include "pool.h"

#define TURNS_BEFORE 15
#define TURNS_FAILING 25
#define TURNS_HEALED 5

enum { END_FINE, END_NOT_OPENED = 3, END_PROBLEM };

struct fault_case {
    enum disk_fault fault;
    bool forever, first_start;
    unsigned k;
};

static struct fault_case case_of(uint64_t task)
{
    return (struct fault_case){.fault = (enum disk_fault)(task % FAULT_KINDS),
                               .forever = task / FAULT_KINDS % 2,
                               .first_start = task / FAULT_KINDS / 2 % 2,
                               .k = 1 + (unsigned)(task / FAULT_KINDS / 4)};
}

static size_t acked(const struct history *h)
{
    size_t n = 0;
    for (size_t i = 0; i < h->n_ops; i++)
        n += h->ops[i].state == OP_ACKED;
    return n;
}

static void turns(struct world *w, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        world_turn(w);
}

_Noreturn static void work(const char *dir, struct history *h, struct fault_case c, char *words)
{
    const struct world_start start = {1, h->now, false};
    struct strbuf why = {0};
    world_last_words = words;
    if (c.first_start)
        disk_fail(c.fault, c.k, c.forever);
    struct world *w = world_open(dir, h, &start, &why);
    if (w == NULL) {
        snprintf(words, WORLD_LAST_WORDS, "%s", strbuf_cstr(&why));
        _exit(END_NOT_OPENED);
    }
    if (w->token == 0) /* no space for the grant: it serves nothing, the next start grants */
        _exit(END_NOT_OPENED);
    turns(w, TURNS_BEFORE);
    if (!c.first_start)
        disk_fail(c.fault, c.k, c.forever);
    turns(w, TURNS_FAILING);
    disk_heal();
    size_t before = acked(h);
    turns(w, TURNS_HEALED); /* on the disk that recovered, work goes on */
    if (w->problem.size == 0 && acked(h) == before)
        strbuf_put_text(&w->problem, "nothing is stored on a disk that works again");
    if (w->problem.size > 0) {
        snprintf(words, WORLD_LAST_WORDS, "%s", strbuf_cstr(&w->problem));
        _exit(END_PROBLEM);
    }
    _exit(END_FINE); /* without closing: as killed */
}

static bool has_marker(const char *dir)
{
    char path[120];
    snprintf(path, sizeof path, "%s/io-error", dir);
    return access(path, F_OK) == 0;
}

static enum verdict judge(const char *dir, struct history *h, int status, const char *words,
                          struct strbuf *why)
{
    struct check check = {.dir = dir, .history = h, .cut = CHECK_NOW};
    enum verdict end = WIFEXITED(status) ? VERDICT_GOOD : verdict_of_end(status, words, why);
    if (end == VERDICT_CRASHED)
        return end;
    if (WIFEXITED(status) && WEXITSTATUS(status) == END_PROBLEM) {
        strbuf_put_text(why, words);
        return VERDICT_WRONG;
    }
    bool eio = end == VERDICT_ENDED && strstr(words, "Input/output error") != NULL;
    if (eio != has_marker(dir)) {
        strbuf_put_text(why, ": the marker of EIO says otherwise");
        return VERDICT_WRONG;
    }
    if (eio && check_dir(&check, why) != VERDICT_REFUSED) {
        strbuf_put_text(why, ": opened in spite of the marker");
        return VERDICT_WRONG;
    }
    strbuf_reset(why);
    check.after_eio = eio;
    enum verdict v = check_dir(&check, why);
    return v == VERDICT_GOOD ? end : v;
}

static enum verdict try_fault(void *ctx, unsigned worker, uint64_t task, struct strbuf *why)
{
    const struct run_options *o = ctx;
    struct fault_case c = case_of(task);
    char *words =
        mmap(NULL, WORLD_LAST_WORDS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct history *h = history_create(o->seed + task, task % 5 == 0);
    char dir[80];
    int status;
    STOA_ASSERT(words != MAP_FAILED);
    pool_dir(dir, sizeof dir, worker);
    remove_tree(dir);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fclose(stderr); /* abort is expected; what was said is in `words` */
        work(dir, h, c, words);
    }
    STOA_ASSERT(pid > 0 && waitpid(pid, &status, 0) == pid);
    enum verdict v = judge(dir, h, status, words, why);
    strbuf_printf(why, " [status %d, fault %d, k %u, %s, %s]", status, c.fault, c.k,
                  c.forever ? "for ever" : "once", c.first_start ? "first start" : "at work");
    history_free(h);
    munmap(words, WORLD_LAST_WORDS);
    return v;
}

bool run_faults(const struct run_options *o)
{
    struct tally tally = {0};
    uint64_t cases = o->faults * FAULT_KINDS * 4;
    struct run_options own = *o;
    pool_run("fault", o->workers, cases, ~(1u << VERDICT_GOOD | 1u << VERDICT_ENDED), try_fault,
             &own, &tally);
    const uint64_t *v = tally.verdicts;
    uint64_t failed = cases - v[VERDICT_GOOD] - v[VERDICT_ENDED];
    printf("failing disk: %llu cases; went on or did not start %llu, ended by the store %llu; "
           "wrong %llu, acknowledged lost %llu, did not open later %llu, crashed %llu\n",
           (unsigned long long)cases, (unsigned long long)v[VERDICT_GOOD],
           (unsigned long long)v[VERDICT_ENDED], (unsigned long long)v[VERDICT_WRONG],
           (unsigned long long)v[VERDICT_LOST], (unsigned long long)v[VERDICT_REFUSED],
           (unsigned long long)v[VERDICT_CRASHED]);
    return failed == 0;
}
