/* CORE. Routes of the configuration: a path of the user's own in front of a key. A part of the path
 * that is "{name}" takes one part of a request, which stands, percent-decoded once, where the key
 * has "{name}". They serve what /events serves: the raw dialect, or SSE without an upgrade. */
#include "gateway/core.h"

/* The next part of a path that began with '/': "/a/{b}" -> "a", "{b}". False: no more. */
static bool part_next(struct slice *path, struct slice *part)
{
    if (path->data == NULL)
        return false;
    const uint8_t *slash = path->size ? memchr(path->data, '/', path->size) : NULL;
    size_t size = slash ? (size_t)(slash - path->data) : path->size;
    *part = slice_of(path->data, size);
    *path = slash ? slice_of(slash + 1, path->size - size - 1) : slice_of(NULL, 0);
    return true;
}

static struct slice behind_slash(struct slice path)
{
    return slice_of(path.data + 1, path.size - 1);
}

static bool is_name(struct slice part)
{
    return part.size > 2 && part.data[0] == '{' && part.data[part.size - 1] == '}';
}

static bool matches(const struct gateway_route *route, struct slice path)
{
    struct slice pattern = behind_slash(slice_text(route->path)), wanted, part;
    path = behind_slash(path);
    while (part_next(&pattern, &wanted)) {
        if (!part_next(&path, &part))
            return false;
        if (is_name(wanted) ? part.size == 0 : !slice_equal(part, wanted))
            return false;
    }
    return path.data == NULL;
}

/* The part of `path` that stands where the route has `name`; data NULL: nowhere. */
static struct slice part_named(const struct gateway_route *route, struct slice path,
                               struct slice name)
{
    struct slice pattern = behind_slash(slice_text(route->path)), wanted, part;
    path = behind_slash(path);
    while (part_next(&pattern, &wanted) && part_next(&path, &part))
        if (is_name(wanted) && slice_equal(wanted, name))
            return part;
    return slice_of(NULL, 0);
}

/* The "{name}" at `at`, or the byte there. */
static struct slice token_at(struct slice key, size_t at)
{
    const uint8_t *end =
        key.data[at] == '{' ? memchr(key.data + at, '}', key.size - at) : key.data + at;
    return slice_of(key.data + at, end ? (size_t)(end - key.data) - at + 1 : 1);
}

/* The key of a request; false: a part cannot be decoded. */
static bool key_build(const struct gateway_route *route, struct slice path, struct strbuf *out)
{
    struct slice key = slice_text(route->key), token;
    for (size_t at = 0; at < key.size; at += token.size) {
        token = token_at(key, at);
        if (token.size == 1)
            strbuf_put_byte(out, *token.data);
        else if (http_decode(part_named(route, path, token), false, out) != ERR_OK)
            return false;
    }
    return true;
}

bool own_route_valid(const struct gateway_route *route, struct strbuf *why)
{
    struct slice pattern = behind_slash(slice_text(route->path)), part;
    while (part_next(&pattern, &part))
        if (!is_name(part) && part.size > 0 &&
            (memchr(part.data, '{', part.size) || memchr(part.data, '}', part.size))) {
            strbuf_printf(why, "routes: %s: a {name} stands for a whole part of the path",
                          route->path);
            return false;
        }
    struct slice key = slice_text(route->key), token;
    for (size_t at = 0; at < key.size; at += token.size) {
        token = token_at(key, at);
        if (token.size > 1 && !part_named(route, slice_text(route->path), token).data) {
            strbuf_printf(why, "routes: %s: the key has %.*s, the path has not; name a part of it",
                          route->path, SLICE_FMT(token));
            return false;
        }
    }
    return true;
}

bool own_route_find(struct exchange *x)
{
    const struct gateway_options *options = &x->g->options;
    for (size_t i = 0; i < options->n_routes; i++) {
        const struct gateway_route *route = &options->routes[i];
        if (!matches(route, x->request->path))
            continue;
        x->replay = route->replay;
        strbuf_reset(&x->key);
        if (!key_build(route, x->request->path, &x->key))
            strbuf_reset(&x->key); /* refused as a key, with the reason */
        return true;
    }
    return false;
}
