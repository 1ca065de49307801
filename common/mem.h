/* CORE. Allocation that does not fail: out of memory prints one line to stderr and aborts, as the
 * durable state is on disk and a restart is the recovery. Everything is freed with mem_free. */
#ifndef STOA_COMMON_MEM_H
#define STOA_COMMON_MEM_H

#include <stddef.h>

void *mem_alloc(size_t size);                  /* uninitialised; size 0 gives a unique pointer */
void *mem_zalloc(size_t size);                 /* zeroed */
void *mem_realloc(void *p, size_t size);       /* as realloc */
void *mem_dup(const void *bytes, size_t size); /* a copy */
char *mem_strdup(const char *text);
char *mem_strndup(const char *text, size_t n); /* NUL-terminated copy of exactly n bytes */
void mem_free(void *p);                        /* NULL is fine */

#endif
