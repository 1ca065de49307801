/* CORE. Another state in place of a full one. What a file's own locals hoard belongs to no room, so
 * no room can be made to let go of it; after a collection that left most of the memory in use,
 * every room of the type would be stopped for it. The text is loaded into a new state beside the
 * old one, and if that works the two change places: the handler, its traits and whoever points to
 * it stay. Rooms lose ctx.mem, as they do by hibernation. */
#include "shard/lua/host.h"

static void states_swap(struct lua_handler *a, struct lua_handler *b)
{
    lua_setallocf(a->L, budget_alloc, b); /* a state finds its handler by it */
    lua_setallocf(b->L, budget_alloc, a);
    struct lua_handler before = *a;
    a->L = b->L;
    a->used = b->used;
    a->pieces = b->pieces;
    a->spare = b->spare;
    memcpy(a->functions, b->functions, sizeof a->functions);
    memcpy(a->kept, b->kept, sizeof a->kept);
    b->L = before.L;
    b->used = before.used;
    b->pieces = before.pieces;
    b->spare = before.spare;
    memcpy(b->functions, before.functions, sizeof b->functions);
    memcpy(b->kept, before.kept, sizeof b->kept);
}

void state_renew(struct lua_handler *h)
{
    if (!h->full)
        return;
    struct handler *made = NULL;
    struct strbuf why = {0};
    struct lua_options options = h->options;
    size_t bytes = h->used;
    options.env = strbuf_slice(&h->env);
    h->full = false;
    if (lua_handler_create(&made, h->file_name, strbuf_slice(&h->source), &options, &why) ==
        ERR_OK) {
        struct lua_handler *fresh = (struct lua_handler *)made;
        states_swap(h, fresh);
        fresh->renewals = h->renewals++; /* of the runs of its state now */
        if (h->spare)
            h->spare->renewals = h->renewals;
        made->vtable->destroy(made);
        if (h->options.renewed)
            h->options.renewed(h->options.arg, h->file_name, bytes);
    }
    strbuf_free(&why);
}
