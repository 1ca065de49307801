/* CORE. Binary min-heap over pointers to nodes that live in their owners. Each node knows its
 * place, so moving or removing a timer needs no search. */
#include "common/heap.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/tick.h"

#define FIRST_CAPACITY 16

static void heap_place(struct heap *h, size_t index, struct heap_node *node)
{
    h->nodes[index] = node;
    node->place = index + 1;
}

static void sift_up(struct heap *h, size_t index)
{
    struct heap_node *node = h->nodes[index];
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (h->nodes[parent]->due <= node->due)
            break;
        heap_place(h, index, h->nodes[parent]);
        index = parent;
    }
    heap_place(h, index, node);
}

static void sift_down(struct heap *h, size_t index)
{
    struct heap_node *node = h->nodes[index];
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->nodes[child + 1]->due < h->nodes[child]->due)
            child++;
        if (node->due <= h->nodes[child]->due)
            break;
        heap_place(h, index, h->nodes[child]);
        index = child;
    }
    heap_place(h, index, node);
}

void heap_free(struct heap *h)
{
    for (size_t i = 0; i < h->count; i++)
        h->nodes[i]->place = 0;
    mem_free(h->nodes);
    *h = (struct heap){0};
}

void heap_set(struct heap *h, struct heap_node *node, int64_t due)
{
    if (heap_has(node)) {
        STOA_ASSERT(node->place <= h->count && h->nodes[node->place - 1] == node);
        bool earlier = due < node->due;
        node->due = due;
        if (earlier)
            sift_up(h, node->place - 1);
        else
            sift_down(h, node->place - 1);
        return;
    }
    if (h->count == h->capacity) {
        h->capacity = h->capacity ? h->capacity * 2 : FIRST_CAPACITY;
        h->nodes =
            (struct heap_node **)mem_realloc(h->nodes, h->capacity * sizeof(struct heap_node *));
    }
    node->due = due;
    h->nodes[h->count++] = node;
    sift_up(h, h->count - 1);
}

void heap_remove(struct heap *h, struct heap_node *node)
{
    if (!heap_has(node))
        return;
    size_t index = node->place - 1;
    STOA_ASSERT(index < h->count && h->nodes[index] == node);
    node->place = 0;
    struct heap_node *last = h->nodes[--h->count];
    if (last == node)
        return;
    heap_place(h, index, last);
    sift_up(h, index);
    sift_down(h, last->place - 1);
}

int64_t heap_next(const struct heap *h)
{
    return h->count ? h->nodes[0]->due : TICK_NEVER;
}

struct heap_node *heap_pop_due(struct heap *h, int64_t now)
{
    if (h->count == 0 || h->nodes[0]->due > now)
        return NULL;
    struct heap_node *node = h->nodes[0];
    heap_remove(h, node);
    return node;
}
