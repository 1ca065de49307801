/* SHELL. The history itself: entries, names, violations, and the order in which they are judged.
 * All memory is kept by history_clear: a simulator judges hundreds of small histories a second. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/hash.h"
#include "internal.h"

#define TABLES 9
#define ARRAYS 12

struct name {
    uint32_t start;
    uint32_t size;
    uint32_t next; /* in its bucket */
};

static size_t cell_of(const struct table *t, uint32_t a, uint64_t b)
{
    uint64_t x = (b ^ ((uint64_t)a << 40)) * 0x9e3779b97f4a7c15u + a;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    size_t i = (size_t)(x ^ (x >> 29)) & (t->size - 1);
    while (t->cells[i].generation == t->generation && (t->cells[i].a != a || t->cells[i].b != b))
        i = (i + 1) & (t->size - 1);
    return i;
}

static void table_grow(struct table *t)
{
    struct table bigger = {.size = t->size ? t->size * 2 : 64, .used = t->used, .generation = 1};
    bigger.cells = mem_zalloc(bigger.size * sizeof *bigger.cells);
    for (size_t i = 0; i < t->size; i++) {
        const struct cell *c = &t->cells[i];
        if (c->generation != t->generation)
            continue;
        struct cell *to = &bigger.cells[cell_of(&bigger, c->a, c->b)];
        *to = (struct cell){c->b, c->a, 1, c->value};
    }
    mem_free(t->cells);
    *t = bigger;
}

uint32_t *table_at(struct table *t, uint32_t a, uint64_t b)
{
    if (t->used * 2 >= t->size)
        table_grow(t);
    struct cell *c = &t->cells[cell_of(t, a, b)];
    if (c->generation != t->generation) {
        *c = (struct cell){b, a, t->generation, NONE};
        t->used++;
    }
    return &c->value;
}

uint32_t table_get(const struct table *t, uint32_t a, uint64_t b)
{
    if (t->used == 0)
        return NONE;
    const struct cell *c = &t->cells[cell_of(t, a, b)];
    return c->generation == t->generation ? c->value : NONE;
}

void table_clear(struct table *t)
{
    t->used = 0;
    if (t->size)
        t->generation++;
}

void *array_add(struct array *a, size_t size)
{
    if (a->count == a->capacity) {
        a->capacity = a->capacity ? a->capacity * 2 : 64;
        a->data = mem_realloc(a->data, a->capacity * size);
    }
    void *item = (char *)a->data + a->count++ * size;
    memset(item, 0, size);
    return item;
}

struct history *history_create(void)
{
    struct history *h = mem_zalloc(sizeof *h);
    history_clear(h);
    return h;
}

static struct table *const *tables_of(struct history *h, struct table *out[TABLES])
{
    out[0] = &h->message_index;
    out[1] = &h->key_index;
    out[2] = &h->epoch_index;
    out[3] = &h->scratch;
    out[4] = &h->scratch2;
    out[5] = &h->room_index;
    out[6] = &h->call_index;
    out[7] = &h->seat_index;
    out[8] = &h->step_index;
    return out;
}

static struct array *const *arrays_of(struct history *h, struct array *out[ARRAYS])
{
    out[0] = &h->messages;
    out[1] = &h->keys;
    out[2] = &h->epochs;
    out[3] = &h->claims;
    out[4] = &h->places;
    out[5] = &h->subs;
    out[6] = &h->owners;
    out[7] = &h->alarms;
    out[8] = &h->rooms;
    out[9] = &h->calls;
    out[10] = &h->seats;
    out[11] = &h->steps;
    return out;
}

void history_destroy(struct history **h)
{
    if (!*h)
        return;
    struct table *tables[TABLES];
    struct array *arrays[ARRAYS];
    for (size_t i = 0; i < TABLES; i++)
        mem_free(tables_of(*h, tables)[i]->cells);
    for (size_t i = 0; i < ARRAYS; i++)
        mem_free(arrays_of(*h, arrays)[i]->data);
    mem_free((*h)->entries.data);
    mem_free((*h)->names.data);
    mem_free((*h)->buckets);
    strbuf_free(&(*h)->text);
    mem_free(*h);
    *h = NULL;
}

static void forget_verdict(struct history *h)
{
    struct table *tables[TABLES];
    struct array *arrays[ARRAYS];
    for (size_t i = 0; i < TABLES; i++)
        table_clear(tables_of(h, tables)[i]);
    for (size_t i = 0; i < ARRAYS; i++)
        arrays_of(h, arrays)[i]->count = 0;
    memset(&h->report, 0, sizeof h->report);
}

void history_clear(struct history *h)
{
    forget_verdict(h);
    h->entries.count = 0;
    h->unsorted = false;
    h->names.count = 0;
    strbuf_reset(&h->text);
    if (h->n_buckets)
        memset(h->buckets, 0, h->n_buckets * sizeof *h->buckets);
    array_add(&h->names, sizeof(struct name)); /* 0 is no name */
}

static const struct name *name_at(const struct history *h, uint32_t i)
{
    return (const struct name *)h->names.data + i;
}

struct slice history_text(const struct history *h, uint32_t name)
{
    const struct name *n = name_at(h, name);
    return name ? slice_of(h->text.data + n->start, n->size) : slice_text("");
}

static void grow_buckets(struct history *h)
{
    h->n_buckets = h->n_buckets ? h->n_buckets * 4 : 256;
    mem_free(h->buckets);
    h->buckets = mem_zalloc(h->n_buckets * sizeof *h->buckets);
    for (uint32_t i = 1; i < h->names.count; i++) {
        struct name *n = (struct name *)h->names.data + i;
        size_t b = hash_bytes(h->text.data + n->start, n->size, 0) & (h->n_buckets - 1);
        n->next = h->buckets[b];
        h->buckets[b] = i;
    }
}

uint32_t history_name(struct history *h, struct slice text)
{
    if (h->names.count > h->n_buckets)
        grow_buckets(h);
    if (h->n_buckets == 0)
        grow_buckets(h);
    size_t b = hash_bytes(text.data, text.size, 0) & (h->n_buckets - 1);
    for (uint32_t i = h->buckets[b]; i; i = name_at(h, i)->next)
        if (slice_equal(history_text(h, i), text))
            return i;
    uint32_t i = (uint32_t)h->names.count;
    struct name *n = array_add(&h->names, sizeof *n);
    *n = (struct name){(uint32_t)h->text.size, (uint32_t)text.size, h->buckets[b]};
    h->buckets[b] = i;
    strbuf_put_slice(&h->text, text);
    return i;
}

void history_add(struct history *h, const struct history_entry *e)
{
    struct history_entry *mine = array_add(&h->entries, sizeof *mine);
    *mine = *e;
    mine->line = h->entries.count;
    if (mine->n == 0)
        mine->n = 1;
    if (h->entries.count > 1 && mine[-1].t > mine->t)
        h->unsorted = true;
}

size_t history_count(const struct history *h)
{
    return h->entries.count;
}

struct id_text id_text(struct position p)
{
    struct id_text out;
    if (p.epoch == 0 && p.seq != 0)
        snprintf(out.text, sizeof out.text, "?-%llu", (unsigned long long)p.seq);
    else
        event_id_format(out.text, p);
    return out;
}

void violated(struct history *h, int rule, uint32_t key, uint32_t a, uint32_t b, const char *format,
              ...)
{
    h->report.by_rule[rule]++;
    if (h->report.violations++ >= HISTORY_VIOLATIONS_KEPT)
        return;
    struct history_violation *v = &h->report.kept[h->report.violations - 1];
    *v = (struct history_violation){.rule = rule, .key = key};
    v->lines[0] = a == NONE ? 0 : entry_at(h, a)->line;
    v->lines[1] = b == NONE ? 0 : entry_at(h, b)->line;
    va_list args;
    va_start(args, format);
    vsnprintf(v->text, sizeof v->text, format, args);
    va_end(args);
}

void history_bad(struct history *h, uint32_t rank, const char *format, ...)
{
    if (h->report.bad[0])
        return;
    int n = 0;
    if (rank != NONE)
        n = snprintf(h->report.bad, sizeof h->report.bad,
                     "line %llu: ", (unsigned long long)entry_at(h, rank)->line);
    va_list args;
    va_start(args, format);
    vsnprintf(h->report.bad + n, sizeof h->report.bad - (size_t)n, format, args);
    va_end(args);
}

static int by_time(const void *x, const void *y)
{
    const struct history_entry *a = x, *b = y;
    if (a->t != b->t)
        return a->t < b->t ? -1 : 1;
    return a->line < b->line ? -1 : a->line > b->line;
}

const struct history_report *history_check(struct history *h)
{
    forget_verdict(h);
    h->report.entries = h->entries.count;
    if (h->unsorted)
        qsort(h->entries.data, h->entries.count, sizeof(struct history_entry), by_time);
    h->unsorted = false;
    gather_facts(h);
    if (!h->report.bad[0])
        build_places(h);
    if (!h->report.bad[0])
        check_readers(h);
    if (!h->report.bad[0])
        check_rooms(h);
    h->report.keys = h->keys.count;
    return &h->report;
}

void history_print(const struct history *h, const struct history_report *r, struct strbuf *out)
{
    size_t kept = r->violations;
    if (kept > HISTORY_VIOLATIONS_KEPT)
        kept = HISTORY_VIOLATIONS_KEPT;
    for (size_t i = 0; i < kept; i++) {
        const struct history_violation *v = &r->kept[i];
        bool log = v->rule <= HISTORY_LOG_RULES;
        strbuf_printf(out, "%c%d", log ? 'H' : 'R', log ? v->rule : v->rule - HISTORY_LOG_RULES);
        if (v->key)
            strbuf_printf(out, " key %.*s", SLICE_FMT(history_text(h, v->key)));
        for (size_t l = 0; l < 3; l++)
            if (v->lines[l])
                strbuf_printf(out, "%s %llu", l ? "," : " line", (unsigned long long)v->lines[l]);
        strbuf_printf(out, ": %s\n", v->text);
    }
    if (r->violations > kept)
        strbuf_printf(out, "... and %zu more\n", r->violations - kept);
    if (r->bad[0])
        strbuf_printf(out, "cannot be judged: %s\n", r->bad);
    strbuf_printf(out,
                  "%zu entries, %zu keys, %zu acks checked, %zu deliveries checked, %zu steps of "
                  "rooms checked, %zu crashes, %zu violations\n",
                  r->entries, r->keys, r->acks, r->deliveries, r->steps, r->crashes, r->violations);
}
