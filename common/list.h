/* CORE. Intrusive circular doubly linked list: no allocation, constant-time removal. A list head
 * and an unlinked node point to themselves. */
#ifndef STOA_COMMON_LIST_H
#define STOA_COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
static inline void list_push_back(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}
static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}
#define LIST_ENTRY(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))
/* Safe against removal of the current node only. */
#define LIST_EACH(cursor, after, head)                                                \
    for (struct list *cursor = (head)->next, *after = cursor->next; cursor != (head); \
         cursor = after, after = cursor->next)

#endif
