/* CORE. Names of what messages hold, and the fixed-width prefix: reading it, stamping it in place.
 * The fields behind it are written in message_encode.c and read in message_decode.c. */
#include "proto/message.h"

#include "common/mem.h"
#include "proto/mp.h"
#include "proto/prefix.h"
#include "proto/wire.h"

const char *role_name(enum role role)
{
    switch (role) {
    case ROLE_PUBLISHER:
        return "publisher";
    case ROLE_GATEWAY:
        return "gateway";
    case ROLE_ROUTER:
        return "router";
    case ROLE_SHARD:
        return "shard";
    case ROLE_ADMIN:
        return "admin";
    case ROLE_NONE:
        break;
    }
    return "unknown";
}

const char *nack_name(uint64_t code)
{
    static const char *const names[] = {
        [NACK_NONE] = "NONE",   [NACK_BUSY] = "BUSY",         [NACK_RATE] = "RATE",
        [NACK_MOVED] = "MOVED", [NACK_NOTOWNER] = "NOTOWNER", [NACK_FROZEN] = "FROZEN",
        [NACK_ORDER] = "ORDER", [NACK_TOOBIG] = "TOOBIG",     [NACK_DENIED] = "DENIED",
        [NACK_DISK] = "DISK",   [NACK_STALE] = "STALE",       [NACK_INVALID] = "INVALID",
    };
    return code < sizeof names / sizeof *names ? names[code] : "UNKNOWN";
}

const char *miss_name(uint64_t reason)
{
    static const char *const names[] = {
        [MISS_NONE] = "none", [MISS_EXPIRED] = "expired", [MISS_EVICTED] = "evicted",
        [MISS_SLOW] = "slow", [MISS_PURGED] = "purged",   [MISS_EPOCH] = "epoch",
    };
    return reason < sizeof names / sizeof *names ? names[reason] : "unknown";
}

static const char *type_name(uint64_t type)
{
    switch (type) {
#define MSG_BEGIN(lower, UPPER, code, way, doc) \
    case code:                                  \
        return #UPPER;
#define F_U64(name, doc)
#define F_I64(name, doc)
#define F_STR(name, max, doc)
#define F_BIN(name, max, doc)
#define F_ID16(name, doc)
#define F_LIST(kind, name, doc)
#define F_BODY(name, doc)
#define MSG_END
#include "proto/messages.def"
    default:
        return NULL;
    }
}

const char *message_name(uint64_t type)
{
    const char *name = type_name(type);
    return name ? name : "?";
}

bool message_known(uint64_t type)
{
    return type_name(type) != NULL;
}

void message_arena_free(struct message_arena *arena)
{
    mem_free(arena->memory);
    *arena = (struct message_arena){0};
}

int message_peek(struct slice head, struct message_prefix *out)
{
    const uint8_t *at = head.data;
    *out = (struct message_prefix){0};
    if (head.size > HEAD_MAX_BYTES)
        return ERR_TOO_LARGE;
    if (head.size <= PREFIX_KEY || at[0] != MP_ARRAY16 || at[PREFIX_VERSION] != ENVELOPE_VERSION ||
        at[PREFIX_TYPE] > MP_FIXINT_MAX || at[PREFIX_TYPE] == 0 || at[PREFIX_CID] != MP_U64 ||
        at[PREFIX_SLOT] != MP_U16 || at[PREFIX_EP] != MP_U64)
        return ERR_INVALID;
    if (wire_get_be16(at + 1) < PREFIX_ELEMENTS)
        return ERR_INVALID;
    struct message_prefix prefix = {
        .type = at[PREFIX_TYPE],
        .cid = wire_get_be64(at + PREFIX_CID + 1),
        .slot = wire_get_be16(at + PREFIX_SLOT + 1),
        .ep = wire_get_be64(at + PREFIX_EP + 1),
    };
    struct mp r = {at + PREFIX_KEY, at + head.size};
    TRY(mp_str(&r, KEY_MAX_BYTES, &prefix.key));
    if (prefix.slot >= SLOT_COUNT && prefix.slot != SLOT_UNKNOWN)
        return ERR_INVALID;
    *out = prefix;
    return ERR_OK;
}

void message_stamp(uint8_t *head, uint64_t cid, uint16_t slot, uint64_t ep)
{
    STOA_ASSERT(head[PREFIX_CID] == MP_U64 && head[PREFIX_SLOT] == MP_U16);
    wire_put_be64(head + PREFIX_CID + 1, cid);
    wire_put_be16(head + PREFIX_SLOT + 1, slot);
    wire_put_be64(head + PREFIX_EP + 1, ep);
}
