/* CORE. Routes of the configuration: a path of the user's own in front of a key
 * (common/template.h). A part of the request stands, percent-decoded once, where the key names it.
 * With the raw dialect they serve what /events serves, which is SSE without an upgrade. */
#include "common/template.h"
#include "gateway/core.h"
#include "gateway/uploadista.h"

static const char *const id_names[] = {"{id}", "{uploadId}", "{jobId}"};
#define ID_NAMES (sizeof id_names / sizeof *id_names)

static bool is_id(struct slice piece)
{
    for (size_t i = 0; i < ID_NAMES; i++)
        if (slice_is(piece, id_names[i]))
            return true;
    return false;
}

/* Uploadista's clients may name the id in the query. */
static bool id_read(struct exchange *x)
{
    struct slice part = slice_of(NULL, 0);
    int found = uploadista_query_id(x, uploadista_is_flow(x->route), &x->id);
    if (found != ERR_NOT_FOUND)
        return found == ERR_OK;
    for (size_t i = 0; i < ID_NAMES && !part.data; i++)
        part = template_part(x->route->path, x->request->path, slice_text(id_names[i]));
    return http_decode(part, false, &x->id) == ERR_OK;
}

/* Whether x->id stands for this piece: a token's channel, or the id that was found. */
static bool is_given(const struct exchange *x, struct slice piece)
{
    return x->route->dialect == ROUTE_ORPC ? slice_is(piece, "{chn}")
                                           : x->id.size > 0 && is_id(piece);
}

/* The key of a request; false: a part cannot be decoded. */
bool own_route_key(struct exchange *x)
{
    struct slice key = slice_text(x->route->key), path = x->request->path, piece;
    if (x->route->dialect == ROUTE_UPLOADISTA && !id_read(x))
        return false;
    while (template_next(&key, &piece)) {
        if (piece.size == 1)
            strbuf_put_byte(&x->key, *piece.data);
        else if (is_given(x, piece))
            strbuf_put_slice(&x->key, strbuf_slice(&x->id));
        else if (http_decode(template_part(x->route->path, path, piece), false, &x->key) != ERR_OK)
            return false;
    }
    return true;
}

bool own_route_find(struct exchange *x)
{
    const struct gateway_options *options = &x->g->options;
    for (size_t i = 0; i < options->n_routes; i++) {
        const struct gateway_route *route = &options->routes[i];
        if (!template_matches(route->path, x->request->path))
            continue;
        x->route = route;
        x->replay = route->replay;
        strbuf_reset(&x->key);
        if (route->dialect != ROUTE_ORPC && !own_route_key(x)) /* its key is in the token */
            strbuf_reset(&x->key); /* refused as a key, with the reason */
        return true;
    }
    return false;
}

void own_route_run(struct exchange *x)
{
    if (x->route->dialect == ROUTE_UPLOADISTA)
        route_uploadista_own(x);
    else if (x->route->dialect == ROUTE_ORPC)
        route_orpc(x);
    else
        route_events(x);
}
