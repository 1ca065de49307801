/* CORE. Token buckets (bucket.h). */
#include "common/bucket.h"

#include "common/tick.h"

/* A rate so low that its token takes longer is as good as this one; sums of it stay in range. */
#define TOKEN_MAX_NS (INT64_C(366) * 86400 * NS_PER_S)
#define COST_MAX_NS (INT64_MAX / 4)

static int64_t token_ns(double per_second)
{
    double ns = (double)NS_PER_S / per_second;
    return ns < (double)TOKEN_MAX_NS ? (int64_t)ns : TOKEN_MAX_NS;
}

int64_t bucket_take(struct bucket *b, double per_second, uint32_t n, int64_t now_ns)
{
    if (!(per_second > 0) || n == 0)
        return 0;
    int64_t token = token_ns(per_second);
    int64_t holds = token > NS_PER_S ? token : NS_PER_S;
    int64_t cost = token > 0 && n > COST_MAX_NS / token ? COST_MAX_NS : token * n;
    int64_t full = b->full_ns > now_ns ? b->full_ns : now_ns;
    int64_t wait = full + (cost < holds ? cost : holds) - holds - now_ns;
    if (wait > 0)
        return wait;
    b->full_ns = full + cost;
    return 0;
}

bool bucket_is_full(const struct bucket *b, int64_t now_ns)
{
    return b->full_ns <= now_ns;
}
