/* JSON for the probe: a value is put together in memory of the segment, and taken apart by the
 * host's functions. */
#include "probe.h"

#include <stdio.h>
#include <stdlib.h>

void put(struct text *t, stoa_room_bytes bytes)
{
    if (t->capacity - t->n < bytes.n) {
        size_t wider = 2 * t->capacity + bytes.n + 64;
        char *p = host->alloc(t->ctx, wider);
        if (t->n > 0)
            memcpy(p, t->p, t->n);
        t->p = p;
        t->capacity = wider;
    }
    if (bytes.n > 0)
        memcpy(t->p + t->n, bytes.p, bytes.n);
    t->n += bytes.n;
}

void put_text(struct text *t, const char *text)
{
    put(t, (stoa_room_bytes){text, strlen(text)});
}

void put_quoted(struct text *t, stoa_room_bytes text)
{
    put(t, host->json_quote(t->ctx, text));
}

void put_number(struct text *t, int64_t n)
{
    char digits[24];
    (void)snprintf(digits, sizeof digits, "%lld", (long long)n);
    put_text(t, digits);
}

void put_value(struct text *t, stoa_room_bytes json)
{
    put(t, json.n > 0 ? json : STOA_ROOM_TEXT("null"));
}

stoa_room_bytes bytes_of(const struct text *t)
{
    return (stoa_room_bytes){t->p, t->n};
}

int is(stoa_room_bytes text, const char *other)
{
    return text.n == strlen(other) && memcmp(text.p, other, text.n) == 0;
}

void put_member(struct text *t, const char *name, stoa_room_bytes value)
{
    if (!value.p || is(value, "null"))
        return;
    put_text(t, t->n > 1 ? ",\"" : "\"");
    put_text(t, name);
    put_text(t, "\":");
    put(t, value);
}

/* The text of a member; p NULL: it has none. */
stoa_room_bytes text_of(stoa_room_ctx *ctx, stoa_room_bytes object, const char *name)
{
    stoa_room_bytes text;
    (void)host->json_text(ctx, host->json_get(object, name), &text);
    return text;
}

int64_t whole(stoa_room_bytes number)
{
    char digits[24] = "";
    if (number.p && number.n < sizeof digits)
        memcpy(digits, number.p, number.n);
    return strtoll(digits, NULL, 10);
}
