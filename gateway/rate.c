/* CORE. The rate of a connection: what one socket says to one room, counted before anything is
 * handed on: frames of raw sockets; send, call and pub of stoa.v1, whether the key is subscribed or
 * not. What is answered here (a ping, a frame that is not one) is not counted. A room's own rate is
 * kept where the room is; how its refusals end is the same:
 *
 *   can be answered (stoa.v1)   RateLimited; beyond the socket's own rate the key ends, 1008,
 *                               unless its type drops
 *   cannot (raw)                the socket is closed, 1008, or the frame is dropped and counted
 *
 * A bucket that is full again is as good as none: those are forgotten whenever they have doubled.
 */
#include "gateway/core.h"

#define SWEEP_LEAST 16
/* A rate of one an hour would let a socket that makes up keys fill the memory. */
#define RATED_KEYS_MAX (2 * KEYS_PER_SOCKET_MAX)

struct rated_key {
    struct bucket allowance;
    uint16_t key_size;
    uint8_t key[];
};

struct rates {
    struct map *keys; /* struct rated_key, owned */
    size_t sweep_at;
};

static struct slice rated_key(const struct rated_key *k)
{
    return slice_of(k->key, k->key_size);
}

static void sweep(struct gateway *g, struct rates *r)
{
    size_t cursor = 0;
    struct rated_key *k;
    while ((k = map_next(r->keys, &cursor)) != NULL) {
        if (!bucket_is_full(&k->allowance, g->now.mono_ns))
            continue;
        map_remove(r->keys, rated_key(k));
        mem_free(k);
    }
    size_t left = map_count(r->keys);
    r->sweep_at = left < SWEEP_LEAST / 2      ? SWEEP_LEAST
                  : left < RATED_KEYS_MAX / 2 ? 2 * left
                                              : RATED_KEYS_MAX;
}

static struct rated_key *rated_key_create(struct rates *r, struct slice key)
{
    struct rated_key *k = mem_zalloc(sizeof *k + key.size);
    k->key_size = (uint16_t)key.size;
    memcpy(k->key, key.data, key.size);
    map_put(r->keys, rated_key(k), k);
    return k;
}

/* NULL: too many are owed something. */
static struct rated_key *rated_key_open(struct gateway *g, struct session *s, struct slice key)
{
    struct rates *r = s->rates;
    if (!r) {
        r = s->rates = mem_zalloc(sizeof *r);
        r->keys = map_create(rng_u64(&g->rng));
        r->sweep_at = SWEEP_LEAST;
    }
    struct rated_key *k = map_get(r->keys, key);
    if (k)
        return k;
    if (map_count(r->keys) >= r->sweep_at)
        sweep(g, r);
    return map_count(r->keys) < RATED_KEYS_MAX ? rated_key_create(r, key) : NULL;
}

bool rate_take(struct gateway *g, struct session *s, struct slice key)
{
    double rate = type_of_key(g, key)->connection_rate;
    if (rate <= 0)
        return true;
    struct rated_key *k = rated_key_open(g, s, key);
    return k && bucket_take(&k->allowance, rate, 1, g->now.mono_ns) == 0;
}

void rate_free(struct session *s)
{
    if (!s->rates)
        return;
    size_t cursor = 0;
    struct rated_key *k;
    while ((k = map_next(s->rates->keys, &cursor)) != NULL) {
        map_remove(s->rates->keys, rated_key(k));
        mem_free(k);
    }
    map_destroy(&s->rates->keys);
    mem_free(s->rates);
    s->rates = NULL;
}

void rate_exceeded(struct gateway *g, struct subscription *sub, const char *reason)
{
    if (type_of_key(g, room_key(sub->room))->drops) {
        metric_add(g->m.dropped_frames, 1);
        return;
    }
    refused_note(g, "RateLimited", reason);
    sub->session->dialect->end(g, sub, 1008, slice_text(reason));
}

void rate_validate(const struct session *s)
{
    STOA_ASSERT(!s->rates || map_count(s->rates->keys) <= RATED_KEYS_MAX);
}
