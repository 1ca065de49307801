/* CORE. Templates of routes (template.h). */
#include "common/template.h"

#include <string.h>

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

bool template_matches(const char *pattern, struct slice path)
{
    struct slice parts = behind_slash(slice_text(pattern)), wanted, part;
    path = behind_slash(path);
    while (part_next(&parts, &wanted)) {
        if (!part_next(&path, &part))
            return false;
        if (is_name(wanted) ? part.size == 0 : !slice_equal(part, wanted))
            return false;
    }
    return path.data == NULL;
}

struct slice template_part(const char *pattern, struct slice path, struct slice name)
{
    struct slice parts = behind_slash(slice_text(pattern)), wanted, part;
    path = behind_slash(path);
    while (part_next(&parts, &wanted) && part_next(&path, &part))
        if (is_name(wanted) && slice_equal(wanted, name))
            return part;
    return slice_of(NULL, 0);
}

bool template_next(struct slice *key, struct slice *piece)
{
    if (key->size == 0)
        return false;
    const uint8_t *end = key->data[0] == '{' ? memchr(key->data, '}', key->size) : NULL;
    size_t size = end ? (size_t)(end - key->data) + 1 : 1;
    *piece = slice_of(key->data, size);
    *key = slice_of(key->data + size, key->size - size);
    return true;
}

bool template_check(const char *pattern, const char *key, struct strbuf *why)
{
    struct slice parts = behind_slash(slice_text(pattern)), rest = slice_text(key), part;
    while (part_next(&parts, &part))
        if (!is_name(part) && part.size > 0 &&
            (memchr(part.data, '{', part.size) || memchr(part.data, '}', part.size))) {
            strbuf_put_text(why, "a {name} stands for a whole part of the path");
            return false;
        }
    while (template_next(&rest, &part))
        if (part.size > 1 && !template_part(pattern, slice_text(pattern), part).data) {
            strbuf_printf(why, "the key has %.*s, the path has not; name a part of it",
                          SLICE_FMT(part));
            return false;
        }
    return true;
}
