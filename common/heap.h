/* CORE. Intrusive binary min-heap of deadlines: all timers of a process in one, fed by one timer of
 * the operating system. A node belongs to at most one heap; zero-initialise it. */
#ifndef STOA_COMMON_HEAP_H
#define STOA_COMMON_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    int64_t due;  /* mono_ns */
    size_t place; /* index + 1 in its heap; 0: in none */
};

struct heap {
    struct heap_node **nodes;
    size_t count;
    size_t capacity;
};

void heap_free(struct heap *h);
/* Inserts the node, or moves it if it is already in. */
void heap_set(struct heap *h, struct heap_node *node, int64_t due);
void heap_remove(struct heap *h, struct heap_node *node); /* no-op when it is in none */
static inline bool heap_has(const struct heap_node *node)
{
    return node->place != 0;
}
/* Earliest deadline, TICK_NEVER when empty. */
int64_t heap_next(const struct heap *h);
/* Removes and returns the earliest node whose due <= now, or NULL. Ties leave in insertion order
 * only as far as the heap gives it: the same inputs always give the same order. */
struct heap_node *heap_pop_due(struct heap *h, int64_t now);

#endif
