/* SHELL. A writer killed in mid load (kill -9), or its power cut: an ext4 on a loop device that is
 * shut down by ioctl, so that only what was synced is there after mounting it again. The same
 * directory lives through all of them; what was sent and not answered is sent again, as publishers
 * do. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk.h"
#include "images.h"
#include "pool.h"

#define EXT4_SHUTDOWN _IOR('X', 125, uint32_t)
#define WITHOUT_LOG_FLUSH 2u
#define DISK_BYTES ((off_t)256 << 20)
#define LIFE_MAX_US 50000
#define OPS_LEFT_MIN 4000
#define CHECK_LIFE 500000

struct lives {
    const struct run_options *o;
    const char *name;
    char dir[96];
    struct history *history;
    struct rng rng;
    uint64_t acked, problems, slowest_us;
};

_Noreturn static void write_for_ever(const struct lives *l)
{
    struct strbuf why = {0};
    const struct world_start start = {l->history->lives, l->history->now, false};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fclose(stderr); /* a disk that is gone ends it with abort */
    if (l->o->ignore_syncs)
        disk_skip_syncs();
    struct world *w = world_open(l->dir, l->history, &start, &why);
    while (w != NULL && w->problem.size == 0 && l->history->n_ops < WORLD_OPS_MAX - OPS_LEFT_MIN)
        world_turn(w);
    for (;;)
        pause();
}

static uint64_t count_acked(const struct history *h)
{
    uint64_t n = 0;
    for (size_t i = 0; i < h->n_ops; i++)
        n += h->ops[i].kind == OP_PUBLISH && h->ops[i].state == OP_ACKED;
    return n;
}

/* Opens what is left, judges it, and brings the history up to it. */
static void judge_life(struct lives *l, uint64_t life)
{
    struct history *h = l->history;
    struct strbuf why = {0};
    const struct check check = {
        .dir = l->dir, .history = h, .cut = CHECK_NOW, .dice = rng_u64(&l->rng)};
    const struct world_start start = {CHECK_LIFE + (uint32_t)life, h->now, false};
    double begun = now_seconds();
    struct world *w = world_open(l->dir, h, &start, &why);
    uint64_t took = (uint64_t)((now_seconds() - begun) * 1e6);
    l->slowest_us = took > l->slowest_us ? took : l->slowest_us;
    enum verdict v = w ? check_world(&check, w, &why) : VERDICT_REFUSED;
    if (v == VERDICT_GOOD)
        check_settle(h, w);
    else if (!l->o->ignore_syncs)
        printf("  %s %llu: %s: %s\n", l->name, (unsigned long long)life, verdict_names[v],
               strbuf_cstr(&why));
    l->problems += v != VERDICT_GOOD;
    world_close(&w);
    strbuf_free(&why);
}

static void begin_history(struct lives *l, uint64_t life)
{
    if (l->history != NULL) {
        l->acked += count_acked(l->history);
        history_free(l->history);
        remove_tree(l->dir);
    }
    l->history = history_create(l->o->seed * 1000 + life, false);
}

static bool needs_another(const struct lives *l)
{
    return l->history == NULL || l->history->n_ops > WORLD_OPS_MAX / 6;
}

/* A writer, until some moment of its work. */
static pid_t live(struct lives *l)
{
    l->history->lives++;
    fflush(NULL);
    pid_t pid = fork();
    STOA_ASSERT(pid >= 0);
    if (pid == 0)
        write_for_ever(l);
    usleep((useconds_t)rng_below(&l->rng, LIFE_MAX_US));
    return pid;
}

static void end(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    STOA_ASSERT(waitpid(pid, &status, 0) == pid);
}

static bool conclude(struct lives *l, uint64_t n)
{
    l->acked += l->history ? count_acked(l->history) : 0;
    printf("%s: %llu, %llu publishes acknowledged; lost or wrong %llu; slowest start %.1f ms\n",
           l->name, (unsigned long long)n, (unsigned long long)l->acked,
           (unsigned long long)l->problems, (double)l->slowest_us / 1000);
    if (l->history)
        history_free(l->history);
    return l->problems == 0;
}

bool run_kills(const struct run_options *o)
{
    struct lives l = {.o = o, .name = "kill -9"};
    snprintf(l.dir, sizeof l.dir, "%s/killed", disk_dir);
    rng_seed(&l.rng, o->seed + 17);
    for (uint64_t i = 0; i < o->kills && l.problems == 0; i++) {
        if (needs_another(&l))
            begin_history(&l, i);
        end(live(&l));
        judge_life(&l, i);
    }
    return conclude(&l, o->kills);
}

/* ---- power ---- */

static bool run(const char *const argv[])
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

struct plug {
    char image[96], at[96];
};

static bool plug_in(const struct plug *p)
{
    const char *const argv[] = {"mount", "-t", "ext4", "-o", "loop", p->image, p->at, NULL};
    return run(argv);
}

static void plug_out(const struct plug *p)
{
    while (umount2(p->at, 0) != 0 && errno == EBUSY)
        usleep(1000); /* the writer's last pages are being dropped */
}

/* The mounts are seen by this process and its children only, and go with them. */
static bool plug_make(struct plug *p)
{
    snprintf(p->image, sizeof p->image, "%s/ext4", run_dir);
    snprintf(p->at, sizeof p->at, "%s/mounted", run_dir);
    const char *const mkfs[] = {"mkfs.ext4", "-q", p->image, NULL};
    int fd = open(p->image, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    bool made = fd >= 0 && ftruncate(fd, DISK_BYTES) == 0;
    if (fd >= 0)
        close(fd);
    return made && mkdir(p->at, 0700) == 0 && unshare(CLONE_NEWNS) == 0 &&
           mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 && run(mkfs) && plug_in(p);
}

static void cut_power(const struct plug *p)
{
    uint32_t how = WITHOUT_LOG_FLUSH;
    int fd = open(p->at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    STOA_ASSERT(fd >= 0);
    int rc = ioctl(fd, EXT4_SHUTDOWN, &how);
    close(fd);
    STOA_ASSERT(rc == 0);
}

static void cut_and_judge(struct lives *l, const struct plug *p, uint64_t life)
{
    pid_t pid = live(l);
    cut_power(p);
    end(pid);
    plug_out(p);
    STOA_ASSERT(plug_in(p));
    judge_life(l, life);
}

bool run_power_cuts(const struct run_options *o)
{
    struct lives l = {.o = o, .name = "power cut"};
    struct plug plug;
    rng_seed(&l.rng, o->seed + 19);
    if (!plug_make(&plug)) {
        printf("power cut: not run: cannot mount an ext4 on a loop device here (as root only)\n");
        return true;
    }
    snprintf(l.dir, sizeof l.dir, "%.80s/data", plug.at);
    for (uint64_t i = 0; i < o->rounds && l.problems == 0; i++) {
        if (needs_another(&l))
            begin_history(&l, i);
        cut_and_judge(&l, &plug, i);
    }
    bool good = conclude(&l, o->rounds);
    plug_out(&plug);
    return good != o->ignore_syncs;
}
