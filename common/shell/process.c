/* SHELL. The few calls that every program makes around its loop. */
#include "common/shell/process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/err.h"
#include "common/shell/loop.h"

void process_random_bytes(void *out, size_t size)
{
    uint8_t *at = out;
    while (size > 0) {
        ssize_t n = getrandom(at, size, 0);
        if (n < 0 && errno == EINTR)
            continue;
        STOA_ASSERT(n > 0);
        at += n;
        size -= (size_t)n;
    }
}

uint64_t process_random(void)
{
    uint64_t value;
    process_random_bytes(&value, sizeof value);
    return value;
}

/* stderr is unbuffered here: one line, one write, so that lines of several processes sharing a pipe
 * do not mix (4 KiB is PIPE_BUF). A log that cannot be written is not worth dying for. */
static void stderr_write(void *ctx, const char *line, size_t size)
{
    (void)ctx;
    while (size > 0) {
        ssize_t n = write(STDERR_FILENO, line, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        line += n;
        size -= (size_t)n;
    }
}

static int64_t wall_ms(void *ctx)
{
    (void)ctx;
    return clock_now().wall_ms;
}

struct log process_log(const char *role, enum log_level level, enum log_format format)
{
    return (struct log){
        .level = level, .format = format, .role = role, .write = stderr_write, .wall_ms = wall_ms};
}

void process_raise_nofile(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    /* Refused only by policy; the old limit then stays in force and shows as EMFILE. */
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

void process_die_with_parent(void)
{
    pid_t parent = getppid();
    STOA_ASSERT(prctl(PR_SET_PDEATHSIG, SIGTERM) == 0);
    /* The parent may have died before the call: then nobody will tell. (Comparing with 1 would be
     * wrong: in a container the supervisor is process 1.) */
    if (getppid() != parent)
        raise(SIGTERM);
}

char *process_read_file(const char *path, size_t max, size_t *size)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return NULL;
    char *text = NULL;
    size_t used = 0, capacity = 0;
    int error = 0;
    for (;;) {
        if (used == capacity) {
            capacity = capacity ? capacity * 2 : 4096;
            char *larger = realloc(text, capacity + 1);
            STOA_ASSERT(larger);
            text = larger;
        }
        size_t n = fread(text + used, 1, capacity - used, file);
        used += n;
        if (used > max) {
            error = EFBIG;
            break;
        }
        if (n == 0) {
            error = ferror(file) ? EIO : 0;
            break;
        }
    }
    (void)fclose(file);
    if (error) {
        free(text);
        errno = error;
        return NULL;
    }
    text[used] = '\0';
    *size = used;
    return text;
}
