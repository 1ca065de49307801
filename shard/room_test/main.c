/* SHELL. stoa-room-test, which `stoa room test` runs: test files in Lua, each in a Lua state of its
 * own. Exit codes: 0 all cases are fine, 1 some are not or there are none, 2 usage. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shard/room_test/script.h"

int main(int argc, char **argv)
{
    uint64_t cases = 0, failed = 0;
    bool complete = true;
    if (argc < 2 || argv[1][0] == '-') {
        bool help = argc >= 2 && (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0);
        fprintf(help ? stdout : stderr, "usage: stoa room test FILE.lua ...\n");
        return help ? 0 : 2;
    }
    for (int i = 1; i < argc; i++)
        complete &= script_run(argv[i], &cases, &failed) == ERR_OK;
    printf("%" PRIu64 " %s, %" PRIu64 " failed\n", cases, cases == 1 ? "case" : "cases", failed);
    return complete && failed == 0 && cases > 0 ? 0 : 1;
}
