/* CORE. Routes of the configuration: a path of the user's own in front of a key
 * (common/template.h). A part of the request stands, percent-decoded once, where the key names it.
 * They serve what /events serves: the raw dialect, or SSE without an upgrade. */
#include "common/template.h"
#include "gateway/core.h"

/* The key of a request; false: a part cannot be decoded. */
static bool key_build(const struct gateway_route *route, struct slice path, struct strbuf *out)
{
    struct slice key = slice_text(route->key), piece;
    while (template_next(&key, &piece)) {
        if (piece.size == 1)
            strbuf_put_byte(out, *piece.data);
        else if (http_decode(template_part(route->path, path, piece), false, out) != ERR_OK)
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
        x->replay = route->replay;
        strbuf_reset(&x->key);
        if (!key_build(route, x->request->path, &x->key))
            strbuf_reset(&x->key); /* refused as a key, with the reason */
        return true;
    }
    return false;
}
