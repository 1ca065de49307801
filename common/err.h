/* CORE. One error idiom for the whole tree.
 *
 * A function that can fail for an operating reason (bad input, full disk, lost peer) returns `int`:
 * ERR_OK or one of the negative codes below, and is marked MUST_USE. Programmer errors are asserts
 * (STOA_ASSERT, also in release builds). Allocation failure ends the process (mem.h): a server that
 * cannot get a few hundred bytes has no honest way on. errno never crosses a module border. */
#ifndef STOA_COMMON_ERR_H
#define STOA_COMMON_ERR_H

enum err {
    ERR_OK = 0,
    ERR_INVALID = -1,   /* the input breaks a rule of its format */
    ERR_TOO_LARGE = -2, /* the input breaks a bound of limits.h */
    ERR_FULL = -3,      /* no room now: queue, window, high-water mark; try later */
    ERR_GONE = -4,      /* the peer or object is no longer there */
    ERR_NOT_FOUND = -5, /* nothing under that name */
    ERR_IO = -6,        /* the operating system refused; the process that owns the data must stop */
    ERR_NO_SPACE = -7,  /* disk or map full; nothing was written; recoverable */
    ERR_CORRUPT = -8,   /* stored bytes do not match their checksum or format */
    ERR_REFUSED = -9,   /* someone else's: locked, another cluster, another version */
};

#define MUST_USE __attribute__((warn_unused_result))

/* Returns the constant name of a code ("ERR_INVALID"), for logs and tests. Never NULL. */
const char *err_name(int code);

/* Prints "file:line: expression" to stderr and aborts. Stays on in release builds. */
_Noreturn void assert_failed(const char *file, int line, const char *expression);
#define STOA_ASSERT(expr) ((expr) ? (void)0 : assert_failed(__FILE__, __LINE__, #expr))

/* Returns the error of `expr` from the calling function if there is one. */
#define TRY(expr)                \
    do {                         \
        int try_code_ = (expr);  \
        if (try_code_ != ERR_OK) \
            return try_code_;    \
    } while (0)

#endif
