/* CORE. Even shares cover every slot exactly once, whatever the number of shards. */
#include "shard/grant.h"

#include "common/limits.h"

/* Decimal digits of a slot at *text; moves it behind them. */
static bool read_slot(const char **text, unsigned *slot)
{
    const char *at = *text;
    *slot = 0;
    while (*at >= '0' && *at <= '9' && *slot < SLOT_COUNT)
        *slot = *slot * 10 + (unsigned)(*at++ - '0');
    bool good = at != *text && *slot < SLOT_COUNT;
    *text = at;
    return good;
}

static int read_range(const char *slots, struct grant *out, struct strbuf *why)
{
    const char *at = slots;
    unsigned lo = 0, hi = 0;
    if (!read_slot(&at, &lo) || *at++ != '-' || !read_slot(&at, &hi) || *at != '\0' || lo > hi) {
        strbuf_printf(why, "shard.slots is \"%s\": write LO-HI within 0-%d", slots, SLOT_COUNT - 1);
        return ERR_INVALID;
    }
    *out = (struct grant){(uint16_t)lo, (uint16_t)hi};
    return ERR_OK;
}

int grant_slots_of(const char *slots, unsigned index, size_t shards, struct grant *out,
                   struct strbuf *why)
{
    if (slots != NULL)
        return read_range(slots, out, why);
    size_t n = shards > 0 ? shards : 1;
    if (index >= n || n > SLOT_COUNT) {
        strbuf_printf(why,
                      "shard.index is %u and cluster.shards has %zu entries: correct one of them, "
                      "or set shard.slots",
                      index, shards);
        return ERR_INVALID;
    }
    out->lo = (uint16_t)(SLOT_COUNT * index / n);
    out->hi = (uint16_t)(SLOT_COUNT * (index + 1) / n - 1);
    return ERR_OK;
}
