/* SHELL. Lawful histories of any size: publishers, readers that reconnect, conflated progress,
 * ephemeral events, unknown outcomes, crashes. For speed figures and as a base to corrupt. */
#include <stdio.h>

#include "common/rng.h"
#include "internal.h"

#define READERS 4
#define PER_KEY 1000 /* entries, about */

struct maker {
    struct history *h;
    struct rng rng;
    struct history_entry base; /* key and time */
    uint64_t msg;
    uint32_t who[READERS];
    uint32_t publisher;
    uint32_t shard;
    uint32_t progress;
};

static void add(struct maker *m, struct history_entry e)
{
    e.t = ++m->base.t;
    e.key = m->base.key;
    history_add(m->h, &e);
}

static void begin(struct maker *m, uint32_t reader, uint64_t seq, uint64_t epoch)
{
    struct position at = {seq ? epoch : 0, seq};
    add(m, (struct history_entry){
               .op = H_SUBSCRIBE, .who = m->who[reader], .what = H_AFTER, .id = at});
    add(m,
        (struct history_entry){
            .op = H_VERDICT, .who = m->who[reader], .what = H_RESUMED, .id = at, .has_id = true});
}

static void event(struct maker *m, uint64_t epoch, uint64_t seq, uint64_t pseq)
{
    m->msg++;
    uint64_t dice = rng_below(&m->rng, 100);
    struct history_entry e = {.who = m->publisher, .msg = m->msg};
    e.op = H_PUBLISH;
    e.pseq = pseq;
    e.conflate = dice < 50 ? m->progress : 0;
    add(m, e);
    if (dice == 1) { /* the first answer is lost */
        add(m, (struct history_entry){
                   .op = H_ANSWER, .who = m->publisher, .msg = m->msg, .what = H_TIMEOUT});
        add(m, e);
    }
    add(m, (struct history_entry){.op = H_ANSWER,
                                  .who = m->publisher,
                                  .msg = m->msg,
                                  .what = H_ACK,
                                  .has_id = true,
                                  .id = {epoch, seq}});
    for (uint32_t r = 0; r < READERS; r++) {
        if (rng_below(&m->rng, 200) == 0) { /* it reconnects */
            add(m, (struct history_entry){.op = H_CLOSE, .who = m->who[r]});
            begin(m, r, seq - 1, epoch);
        }
        add(m, (struct history_entry){.op = H_DELIVER,
                                      .who = m->who[r],
                                      .msg = m->msg,
                                      .has_id = true,
                                      .id = {epoch, seq}});
    }
}

static void one_key(struct maker *m, size_t number, size_t end)
{
    char text[32];
    size_t size = (size_t)snprintf(text, sizeof text, "upload:%zu", number);
    m->base.key = history_name(m->h, slice_of(text, size));
    uint64_t epoch = number + 1, seq = 0, first = m->msg + 1;
    for (uint32_t r = 0; r < READERS; r++)
        begin(m, r, 0, epoch);
    while (history_count(m->h) + seq < end) {
        seq++;
        event(m, epoch, seq, seq);
    }
    for (uint64_t i = 0; i < seq; i++)
        add(m, (struct history_entry){.op = H_LOG, .msg = first + i, .id = {epoch, i + 1}});
    add(m, (struct history_entry){.op = H_HEAD, .id = {seq ? epoch : 0, seq}});
}

void history_generate(struct history *h, size_t n, uint64_t seed)
{
    struct maker m = {.h = h};
    rng_seed(&m.rng, seed);
    m.publisher = history_name(h, slice_text("publisher"));
    m.shard = history_name(h, slice_text("shard"));
    m.progress = history_name(h, slice_text("progress"));
    for (uint32_t r = 0; r < READERS; r++) {
        char text[16];
        size_t size = (size_t)snprintf(text, sizeof text, "reader%u", (unsigned)r);
        m.who[r] = history_name(h, slice_of(text, size));
    }
    for (size_t i = 0; history_count(h) < n; i++) {
        size_t end = history_count(h) + PER_KEY;
        one_key(&m, i, end < n ? end : n);
        m.base.key = 0;
        add(&m, (struct history_entry){.op = H_CRASH, .who = m.shard});
        add(&m, (struct history_entry){.op = H_RESTART, .who = m.shard});
    }
}
