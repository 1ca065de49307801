/* SHELL. stoa-crash-images: what is left of the store after cut power, damage, failing disks and
 * kills. Exit codes: 0 all held, 1 something did not, 2 usage. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "images.h"
#include "pool.h"

static const char usage[] =
    "usage: stoa-crash-images [options]\n"
    "Runs the shard and its store, and judges what cut power, damage, failing disks and kills\n"
    "leave of what was acknowledged. Without a part named, all but the real power cuts.\n"
    "  --count N        images of simulated power cuts (default 2000)\n"
    "  --rot N          files with a bit flipped, a page zeroed, an end cut off (default 600)\n"
    "  --faults N       the k-th call to the disk fails, k = 1..N, of every kind (default 40)\n"
    "  --kills N        kill -9 in mid load (default 20)\n"
    "  --rounds N       real power cuts: ext4 on a loop device, as root (default 0)\n"
    "  --ignore-syncs   the check of the check: images and power cuts must fail if nothing is "
    "synced\n"
    "  --seed N         (default 1)   --workers N  processes (default 2)\n"
    "  --dir DIR        a real file system for what needs one (default /tmp)\n"
    "IMAGES_LOG=1 in the environment shows the log of shard and store.\n"
    "examples:\n"
    "  stoa-crash-images --count 20000\n"
    "  stoa-crash-images --rounds 20\n";

static pid_t runner;

static void pass_on(int signal_no)
{
    (void)signal_no;
    kill(runner, SIGKILL);
}

/* The run itself is a child: whatever ends it, what it made goes. Its own children end with it. */
static int supervise(void)
{
    int status = 0;
    struct sigaction action = {.sa_handler = pass_on};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    while (waitpid(runner, &status, 0) < 0)
        continue;
    remove_tree(run_dir);
    remove_tree(disk_dir);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    if (*text == '\0' || *end != '\0') {
        fprintf(stderr, "stoa-crash-images: \"%s\" is not a number\n", text);
        exit(2);
    }
    return n;
}

static bool run_all(const struct run_options *o)
{
    const struct {
        uint64_t wanted;
        bool (*run)(const struct run_options *o);
    } parts[] = {{o->images, run_images},
                 {o->rot, run_rot},
                 {o->faults, run_faults},
                 {o->kills, run_kills},
                 {o->rounds, run_power_cuts}};
    unsigned passed = 0, failed = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].wanted == 0)
            continue;
        bool good = parts[i].run(o);
        passed += good;
        failed += !good;
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed == 0;
}

static bool make_dirs(const char *memory, const char *disk)
{
    snprintf(run_dir, sizeof run_dir, "%s/stoa-images-XXXXXX", memory);
    snprintf(disk_dir, sizeof disk_dir, "%s/stoa-images-XXXXXX", disk);
    bool made = mkdtemp(run_dir) != NULL;
    if (made && mkdtemp(disk_dir) != NULL)
        return true;
    fprintf(stderr, "stoa-crash-images: cannot make a directory in %s\n", made ? disk : memory);
    if (made)
        (void)rmdir(run_dir);
    return false;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"count", 1, NULL, 'c'},   {"rot", 1, NULL, 'r'},
        {"faults", 1, NULL, 'f'},  {"kills", 1, NULL, 'k'},
        {"rounds", 1, NULL, 'p'},  {"seed", 1, NULL, 's'},
        {"workers", 1, NULL, 'w'}, {"ignore-syncs", 0, NULL, 'i'},
        {"dir", 1, NULL, 'd'},     {"help", 0, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    struct run_options o = {.seed = 1, .workers = 2};
    const char *disk = "/tmp";
    bool named = false;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        named |= strchr("crfkp", c) != NULL;
        switch (c) {
        case 'c':
            o.images = number(optarg);
            break;
        case 'r':
            o.rot = number(optarg);
            break;
        case 'f':
            o.faults = number(optarg);
            break;
        case 'k':
            o.kills = number(optarg);
            break;
        case 'p':
            o.rounds = number(optarg);
            break;
        case 's':
            o.seed = number(optarg);
            break;
        case 'w':
            o.workers = (unsigned)number(optarg);
            break;
        case 'i':
            o.ignore_syncs = true;
            break;
        case 'd':
            disk = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (optind < argc || o.workers < 1 || o.workers > 16) {
        fputs(usage, stderr);
        return 2;
    }
    if (!named)
        o = (struct run_options){o.seed, o.workers, 2000, 600, 40, 20, 0, o.ignore_syncs};
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!make_dirs(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", disk))
        return 1;
    runner = fork();
    if (runner != 0)
        return runner < 0 ? 1 : supervise();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return run_all(&o) ? 0 : 1;
}
