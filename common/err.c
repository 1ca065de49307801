/* CORE. Names of the error codes, and the end of a process that broke one of its own rules. */
#include "common/err.h"

#include <stdio.h>
#include <stdlib.h>

const char *err_name(int code)
{
    switch (code) {
    case ERR_OK:
        return "ERR_OK";
    case ERR_INVALID:
        return "ERR_INVALID";
    case ERR_TOO_LARGE:
        return "ERR_TOO_LARGE";
    case ERR_FULL:
        return "ERR_FULL";
    case ERR_GONE:
        return "ERR_GONE";
    case ERR_NOT_FOUND:
        return "ERR_NOT_FOUND";
    case ERR_IO:
        return "ERR_IO";
    case ERR_NO_SPACE:
        return "ERR_NO_SPACE";
    case ERR_CORRUPT:
        return "ERR_CORRUPT";
    case ERR_REFUSED:
        return "ERR_REFUSED";
    default:
        return "ERR_UNNAMED";
    }
}

_Noreturn void assert_failed(const char *file, int line, const char *expression)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, expression);
    abort();
}
