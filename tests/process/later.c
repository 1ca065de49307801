/* SHELL. A wall clock that tests move: bin/libstoa-later.so, preloaded into the processes of a
 * cluster. CLOCK_REALTIME is ahead by as many seconds as the file $STOA_LATER says (eight bytes,
 * this machine's order); the test writes the file while they run. What waits for hours, such as
 * retention, is seen in seconds. No other clock is touched.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *t);

static const volatile int64_t *ahead_s;

__attribute__((constructor)) static void map_file(void)
{
    const char *path = getenv("STOA_LATER");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof *ahead_s, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED)
        ahead_s = at;
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *t)
{
    int status = (int)syscall(SYS_clock_gettime, clock, t);
    if (status == 0 && clock == CLOCK_REALTIME && ahead_s != NULL)
        t->tv_sec += *ahead_s;
    return status;
}
