/* CORE. Whether the marks of a typed payload lead to parts of its value. A client of the orpc
 * dialect gives up its stream over one that leads nowhere, and would again at every replay.
 *
 * The marks are sorted by their paths, then the value is walked once: whoever comes to a node takes
 * along the run of marks whose paths begin like its own, so that nothing is scanned that no mark
 * leads through, and a node's run is found by halving. */
#include <stdlib.h>

#include "common/limits.h"
#include "common/mem.h"
#include "proto/typed.h"
#include "proto/typed_meta.h"

struct mark {
    size_t first, count; /* its segments */
    bool met;
};

struct walk {
    struct strbuf text;     /* of all segments, unescaped */
    struct slice *segments; /* names, and places as decimals */
    struct mark *marks;
    size_t n_marks, n_segments;
    struct strbuf name; /* of the member at hand */
};

/* ---- reading ---- */

/* Counts marks and segments, and checks their types. */
static bool marks_count(struct json_value meta, struct walk *w)
{
    uint64_t number;
    if (meta.type != JSON_ARRAY)
        return false;
    struct json_iter it = json_members(meta.raw);
    for (; json_next(&it); w->n_marks++) {
        struct json_iter segment = json_members(it.value.raw);
        if (it.value.type != JSON_ARRAY || !json_next(&segment) ||
            !json_u64(segment.value, &number))
            return false;
        for (; json_next(&segment); w->n_segments++)
            if (segment.value.type != JSON_STRING && !json_u64(segment.value, &number))
                return false;
    }
    return true;
}

/* Their texts lie behind each other; `segments` has the sizes until all are there. */
static bool segments_read(struct json_value meta, struct walk *w)
{
    size_t mark = 0, at = 0;
    (void)strbuf_reserve(&w->text,
                         1); /* names may all be empty: they point somewhere all the same */
    struct json_iter it = json_members(meta.raw);
    for (; json_next(&it); mark++) {
        struct json_iter segment = json_members(it.value.raw);
        w->marks[mark].first = at;
        for (bool type = true; json_next(&segment); type = false) {
            size_t before = w->text.size;
            if (type)
                continue;
            if (segment.value.type != JSON_STRING)
                strbuf_put_slice(&w->text, segment.value.raw);
            else if (!json_unescape(segment.value, &w->text))
                return false;
            w->segments[at++].size = w->text.size - before;
        }
        w->marks[mark].count = at - w->marks[mark].first;
    }
    const uint8_t *text = w->text.data;
    for (size_t i = 0; i < at; text += w->segments[i++].size)
        w->segments[i] = slice_of(text, w->segments[i].size);
    return true;
}

/* ---- order ---- */

static int slice_order(struct slice a, struct slice b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common > 0 ? memcmp(a.data, b.data, common) : 0;
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

static int mark_order(const void *a, const void *b, void *arg)
{
    const struct mark *left = a, *right = b;
    const struct walk *w = arg;
    for (size_t i = 0; i < left->count && i < right->count; i++) {
        int order = slice_order(w->segments[left->first + i], w->segments[right->first + i]);
        if (order != 0)
            return order;
    }
    return (left->count > right->count) - (left->count < right->count);
}

/* ---- walking ---- */

struct run {
    size_t from, to;
};

static struct slice segment_at(const struct walk *w, size_t mark, size_t depth)
{
    return w->segments[w->marks[mark].first + depth];
}

/* The first mark of the run whose segment at this depth is `name` or comes behind it; or behind it
 * only. */
static size_t run_bound(const struct walk *w, struct run run, size_t depth, struct slice name,
                        bool behind)
{
    while (run.from < run.to) {
        size_t middle = run.from + (run.to - run.from) / 2;
        int order = slice_order(segment_at(w, middle, depth), name);
        if (order < 0 || (behind && order == 0))
            run.from = middle + 1;
        else
            run.to = middle;
    }
    return run.from;
}

static bool name_read(struct walk *w, const struct json_iter *it, bool object, size_t place)
{
    strbuf_reset(&w->name);
    if (!object) {
        strbuf_put_u64(&w->name, place);
        return true;
    }
    /* The quotes stand around the name in the input. */
    const struct json_value quoted = {JSON_STRING, slice_of(it->name.data - 1, it->name.size + 2)};
    return json_unescape(quoted, &w->name);
}

/* Marks what the run leads to from this value on; no deeper than values are. */
static void walk_value(struct walk *w, struct json_value value, struct run run, size_t depth)
{
    for (; run.from < run.to && w->marks[run.from].count == depth; run.from++)
        w->marks[run.from].met = true;
    bool object = value.type == JSON_OBJECT;
    if (run.from == run.to || (!object && value.type != JSON_ARRAY) || depth > JSON_DEPTH_MAX)
        return;
    struct json_iter it = json_members(value.raw);
    for (size_t place = 0; json_next(&it); place++) {
        if (!name_read(w, &it, object, place))
            continue;
        struct run inner = {.to = run.to};
        inner.from = run_bound(w, run, depth, strbuf_slice(&w->name), false);
        inner.to =
            run_bound(w, (struct run){inner.from, run.to}, depth, strbuf_slice(&w->name), true);
        if (inner.from < inner.to)
            walk_value(w, it.value, inner, depth + 1);
    }
}

static bool all_met(const struct walk *w)
{
    for (size_t i = 0; i < w->n_marks; i++)
        if (!w->marks[i].met)
            return false;
    return true;
}

enum typed_meta typed_meta_check(struct json_value json, struct json_value meta)
{
    struct walk w = {0};
    if (!marks_count(meta, &w))
        return META_MALFORMED;
    w.marks = mem_zalloc((w.n_marks + 1) * sizeof *w.marks);
    w.segments = mem_zalloc((w.n_segments + 1) * sizeof *w.segments);
    bool fits = segments_read(meta, &w) && (json.type != JSON_NONE || w.n_marks == 0);
    if (fits) {
        qsort_r(w.marks, w.n_marks, sizeof *w.marks, mark_order, &w);
        walk_value(&w, json, (struct run){0, w.n_marks}, 0);
        fits = all_met(&w);
    }
    strbuf_free(&w.text);
    strbuf_free(&w.name);
    mem_free(w.segments);
    mem_free(w.marks);
    return fits ? META_FITS : META_LEADS_NOWHERE;
}
