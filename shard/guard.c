/* CORE. The judgement over a process that rooms' code ended (guard.h). */
#include "shard/guard.h"

#include <string.h>

#define ENDS_KEPT (sizeof((struct guard_mark *)0)->ends / sizeof(struct guard_end))

static struct slice key_of(const struct guard_end *end)
{
    return slice_of(end->key, end->key_size);
}

static struct slice type_of(struct slice key)
{
    const uint8_t *colon = (const uint8_t *)memchr(key.data, ':', key.size);
    return slice_of(key.data, colon ? (size_t)(colon - key.data) : 0);
}

/* It was written by a process that may have died in the middle of that, or by another version. */
static bool is_sound(const struct guard_mark *mark)
{
    bool sound = mark->version == GUARD_VERSION && mark->state <= GUARD_STUCK &&
                 mark->n_ends <= ENDS_KEPT && mark->key_size <= KEY_MAX_BYTES &&
                 memchr(mark->phase, 0, sizeof mark->phase) != NULL;
    for (uint32_t i = 0; sound && i < mark->n_ends; i++)
        sound = mark->ends[i].key_size <= KEY_MAX_BYTES;
    return sound;
}

static void end_add(struct guard_mark *mark, int64_t wall_ms)
{
    if (mark->n_ends == ENDS_KEPT) {
        memmove(mark->ends, mark->ends + 1, (ENDS_KEPT - 1) * sizeof *mark->ends);
        mark->n_ends--;
    }
    struct guard_end *end = &mark->ends[mark->n_ends++];
    end->wall_ms = wall_ms;
    end->key_size = mark->key_size;
    memcpy(end->key, mark->key, mark->key_size);
}

static bool is_recent(const struct guard_end *end, int64_t wall_ms)
{
    int64_t age = wall_ms - end->wall_ms;
    return age >= 0 && age <= GUARD_WITHIN_MS;
}

/* Ends by rooms of this type; *others: by another one than `key`. */
static unsigned ends_count(const struct guard_mark *mark, struct slice key, int64_t wall_ms,
                           bool *others)
{
    unsigned n = 0;
    *others = false;
    for (uint32_t i = mark->n_ends; i-- > 0 && n < GUARD_ENDS_MAX;) {
        const struct guard_end *end = &mark->ends[i];
        if (!is_recent(end, wall_ms) || !slice_equal(type_of(key_of(end)), type_of(key)))
            continue;
        n++;
        *others |= !slice_equal(key_of(end), key);
    }
    return n;
}

static void ends_forget(struct guard_mark *mark, struct slice key, bool whole_type)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < mark->n_ends; i++) {
        struct slice other = key_of(&mark->ends[i]);
        bool gone =
            whole_type ? slice_equal(type_of(other), type_of(key)) : slice_equal(other, key);
        if (!gone)
            mark->ends[kept++] = mark->ends[i];
    }
    mark->n_ends = kept;
}

static void judge(struct guard_mark *mark, int64_t wall_ms, struct guard_verdict *out)
{
    struct slice key = slice_of(mark->key, mark->key_size);
    bool others, stuck = mark->state == GUARD_STUCK;
    end_add(mark, wall_ms);
    bool often = ends_count(mark, key, wall_ms, &others) == GUARD_ENDS_MAX;
    if (!stuck && !often)
        return;
    out->guilty = true;
    out->whole_type = often && others;
    strbuf_put_slice(&out->key, key);
    if (stuck)
        strbuf_printf(&out->why, "did not come back (%s), and the process was ended", mark->phase);
    else
        strbuf_printf(&out->why,
                      "%s ended the process %d times within %d s, last by signal %d (%s)",
                      out->whole_type ? "rooms of its type" : "its code", GUARD_ENDS_MAX,
                      GUARD_WITHIN_MS / 1000, (int)mark->signal, mark->phase);
    ends_forget(mark, strbuf_slice(&out->key), out->whole_type);
}

void guard_judge(struct guard_mark *mark, int64_t wall_ms, struct guard_verdict *out)
{
    *out = (struct guard_verdict){0};
    if (!is_sound(mark))
        memset(mark, 0, sizeof *mark);
    else if (mark->key_size > 0 && (mark->state == GUARD_CRASHED || mark->state == GUARD_STUCK))
        judge(mark, wall_ms, out);
    mark->version = GUARD_VERSION;
    mark->state = GUARD_IDLE;
    mark->key_size = 0;
    mark->signal = 0;
}

void guard_verdict_free(struct guard_verdict *v)
{
    strbuf_free(&v->key);
    strbuf_free(&v->why);
}
