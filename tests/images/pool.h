/* SHELL. Runs many small checks in a few child processes, which may crash: a task whose process
 * ended counts as ended (with the store's own message) or crashed, and the rest goes on in
 * another one. */
#ifndef STOA_TESTS_IMAGES_POOL_H
#define STOA_TESTS_IMAGES_POOL_H

#include "check.h"

struct tally {
    uint64_t verdicts[VERDICTS];
    uint64_t told; /* problems printed so far */
};

typedef enum verdict pool_task(void *ctx, unsigned worker, uint64_t task, struct strbuf *why);

/* Tasks 0..count-1, in ascending order within a worker. Those verdicts of which `bad` has the bit
 * are printed, ten at most, with `name` and the task's number. */
void pool_run(const char *name, unsigned workers, uint64_t count, unsigned bad, pool_task *task,
              void *ctx, struct tally *tally);
/* The directories of this run, in memory and on a disk; each worker has one below the first, made
 * by pool_dir. */
extern char run_dir[64], disk_dir[64];
void pool_dir(char *out, size_t size, unsigned worker);
void remove_tree(const char *path);
/* How a child ended: the store's own end counts as ENDED. */
enum verdict verdict_of_end(int status, const char *last_words, struct strbuf *why);

#endif
