/* CORE. The only place that calls the allocator. A refusal ends the process here, so that no caller
 * carries a path that nobody can test. */
#include "common/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *checked(void *p, size_t size)
{
    if (!p) {
        fprintf(stderr, "out of memory: %zu bytes refused\n", size);
        abort();
    }
    return p;
}

/* malloc(0) may return NULL, which would look like a refusal. */
static size_t at_least_one(size_t size)
{
    return size ? size : 1;
}

void *mem_alloc(size_t size)
{
    return checked(malloc(at_least_one(size)), size);
}

void *mem_zalloc(size_t size)
{
    return checked(calloc(1, at_least_one(size)), size);
}

void *mem_realloc(void *p, size_t size)
{
    return checked(realloc(p, at_least_one(size)), size);
}

void *mem_dup(const void *bytes, size_t size)
{
    void *copy = mem_alloc(size);
    if (size)
        memcpy(copy, bytes, size);
    return copy;
}

char *mem_strndup(const char *text, size_t n)
{
    char *copy = (char *)mem_alloc(n + 1);
    if (n)
        memcpy(copy, text, n);
    copy[n] = '\0';
    return copy;
}

char *mem_strdup(const char *text)
{
    return mem_strndup(text, strlen(text));
}

void mem_free(void *p)
{
    free(p);
}
