/* SHELL. What the servers use: the processes that were named, and all their descendants. */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "load.h"

#define PROCESSES_MAX 512

struct process {
    int pid, parent;
    uint64_t ticks;
};

static bool process_read(int pid, struct process *out)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0)
        return false;
    text[size] = '\0';
    const char *behind_name = strrchr(text, ')');
    unsigned long user, system;
    *out = (struct process){.pid = pid};
    if (!behind_name ||
        sscanf(behind_name + 2, "%*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &out->parent,
               &user, &system) != 3)
        return false;
    out->ticks = user + system;
    return true;
}

static bool is_one_of(int pid, const struct process *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i].pid == pid)
            return true;
    }
    return false;
}

/* Those below the ones in the list are added, until there are no more. */
static size_t descendants_add(struct process *list, size_t count)
{
    for (size_t before = 0; before != count;) {
        DIR *directory = opendir("/proc");
        before = count;
        for (struct dirent *entry; directory && (entry = readdir(directory));) {
            int pid = (int)strtol(entry->d_name, NULL, 10);
            struct process p;
            if (count < PROCESSES_MAX && isdigit((unsigned char)entry->d_name[0]) &&
                pid != getpid() && !is_one_of(pid, list, count) && process_read(pid, &p) &&
                is_one_of(p.parent, list, count))
                list[count++] = p;
        }
        if (directory)
            closedir(directory);
    }
    return count;
}

static void memory_add(struct server_use *use, int pid)
{
    char path[64], line[256];
    double kib;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "Rss: %lf", &kib) == 1)
            use->rss_kib += kib;
        else if (sscanf(line, "Pss: %lf", &kib) == 1)
            use->pss_kib += kib;
    }
    if (file)
        fclose(file);
}

struct server_use server_use(const struct load *l, bool memory)
{
    struct process list[PROCESSES_MAX];
    struct server_use use = {0};
    size_t count = 0;
    for (uint32_t i = 0; i < l->options.n_pids; i++)
        count += process_read(l->options.pids[i], &list[count]);
    if (count > 0)
        count = descendants_add(list, count);
    for (size_t i = 0; i < count; i++) {
        use.cpu_s += (double)list[i].ticks / (double)sysconf(_SC_CLK_TCK);
        if (memory)
            memory_add(&use, list[i].pid);
    }
    return use;
}

double self_cpu_s(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}
