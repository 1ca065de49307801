/* SHELL. Texts with places to be filled in: {room}, {i} (a connection's or room's index), {n} (the
 * sequence), {token} (a line of --tokens, by the room's index), {payload}, {payload_esc} (inside a
 * JSON string), {len}. */
#include <stdlib.h>

#include "common/mem.h"
#include "load.h"

static void piece_put(struct template *t, enum piece_kind kind, struct strbuf *text)
{
    if (kind == PIECE_TEXT && text->size == 0)
        return;
    if (t->count == PIECES_MAX)
        fail("a text with more than %d places", PIECES_MAX);
    t->pieces[t->count].kind = kind;
    t->pieces[t->count].text = strbuf_slice(text);
    t->count += 1;
    *text = (struct strbuf){0}; /* the piece's own now */
}

/* Behind the escape at `at`. */
static const char *escape_read(const char *at, struct strbuf *out)
{
    static const char names[] = "rnt\\", bytes[] = "\r\n\t\\";
    const char *known = strchr(names, at[1]);
    if (known) {
        strbuf_put_byte(out, (uint8_t)bytes[known - names]);
        return at + 2;
    }
    if (at[1] == 'x' && at[2] && at[3]) {
        const char hex[3] = {at[2], at[3], 0};
        strbuf_put_byte(out, (uint8_t)strtoul(hex, NULL, 16));
        return at + 4;
    }
    strbuf_put(out, at, 2);
    return at + 2;
}

void template_compile(struct template *t, const char *text, bool escapes)
{
    static const struct {
        const char *name;
        enum piece_kind kind;
    } places[] = {{"{room}", PIECE_ROOM},       {"{i}", PIECE_INDEX},
                  {"{token}", PIECE_TOKEN},     {"{n}", PIECE_NUMBER},
                  {"{payload}", PIECE_PAYLOAD}, {"{payload_esc}", PIECE_ESCAPED},
                  {"{len}", PIECE_SIZE}};
    const size_t n = sizeof places / sizeof *places;
    struct strbuf literal = {0};
    while (*text) {
        size_t i = 0;
        while (i < n && strncmp(text, places[i].name, strlen(places[i].name)) != 0)
            i++;
        if (i < n) {
            piece_put(t, PIECE_TEXT, &literal);
            piece_put(t, places[i].kind, &literal);
            text += strlen(places[i].name);
        } else if (escapes && text[0] == '\\' && text[1]) {
            text = escape_read(text, &literal);
        } else {
            strbuf_put_byte(&literal, (uint8_t)*text++);
        }
    }
    piece_put(t, PIECE_TEXT, &literal);
}

static void escaped_put(struct strbuf *out, struct slice text)
{
    uint8_t *at = strbuf_reserve(out, 2 * text.size + 1);
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '"')
            *at++ = '\\';
        *at++ = text.data[i];
    }
    out->size = (size_t)(at - out->data);
}

void template_put(struct strbuf *out, const struct template *t, const struct fill *fill)
{
    for (size_t i = 0; i < t->count; i++) {
        switch (t->pieces[i].kind) {
        case PIECE_TEXT:
            strbuf_put_slice(out, t->pieces[i].text);
            break;
        case PIECE_ROOM:
            strbuf_put_slice(out, fill->room);
            break;
        case PIECE_INDEX:
            strbuf_put_u64(out, fill->index);
            break;
        case PIECE_TOKEN:
            strbuf_put_slice(out, fill->token);
            break;
        case PIECE_NUMBER:
            strbuf_put_u64(out, fill->number);
            break;
        case PIECE_SIZE:
            strbuf_put_u64(out, fill->payload.size);
            break;
        case PIECE_PAYLOAD:
            strbuf_put_slice(out, fill->payload);
            break;
        case PIECE_ESCAPED:
            escaped_put(out, fill->payload);
            break;
        }
    }
}

struct fill fill_of(const struct load *l, uint32_t room, uint64_t number)
{
    const struct room *r = &l->rooms[room];
    struct fill fill = {.room = slice_of(r->name, r->name_size), .index = room, .number = number};
    if (l->n_tokens > 0)
        fill.token = l->tokens[room % l->n_tokens];
    return fill;
}
