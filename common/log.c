/* CORE. One event, one line, built in a fixed buffer: logging allocates nothing.
 *
 * Keys, reasons and names in fields come from strangers. So a value never ends its line or its
 * quotes, whatever bytes it holds: controls (C0, DEL, C1, and U+2028/2029, where some viewers
 * break lines) and bytes that are not UTF-8 are written as escapes. One value takes at most 1 KiB,
 * so that a long one does not push the others out; fields that no longer fit are left out. */
#include "common/log.h"

#include "common/err.h"
#include "common/isotime.h"
#include "common/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#define LINE_MAX_BYTES 4096
#define VALUE_MAX_BYTES 1024
#define NUMBER_MAX_BYTES 32
#define LINE_END_BYTES 2 /* "}\n" */

struct line {
    enum log_format format;
    size_t size;
    char bytes[LINE_MAX_BYTES];
};

static const char *const LEVELS[] = {"debug", "info", "warn", "error"};

static size_t line_room(const struct line *l)
{
    return sizeof l->bytes - LINE_END_BYTES - l->size;
}

static void line_put(struct line *l, const void *bytes, size_t size)
{
    STOA_ASSERT(size <= line_room(l));
    memcpy(l->bytes + l->size, bytes, size);
    l->size += size;
}

static void line_text(struct line *l, const char *text)
{
    line_put(l, text, strlen(text));
}

/* Only for text of known small size. */
static __attribute__((format(printf, 2, 3))) void line_printf(struct line *l, const char *format,
                                                              ...)
{
    char text[64];
    va_list args;
    va_start(args, format);
    int size = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    STOA_ASSERT(size >= 0 && (size_t)size < sizeof text);
    line_put(l, text, (size_t)size);
}

/* For people, without the day. */
static void line_time(struct line *l, int64_t wall_ms)
{
    char text[ISOTIME_BYTES];
    size_t size = isotime_write(text, wall_ms);
    if (l->format == LOG_JSON)
        line_put(l, text, size);
    else
        line_put(l, text + size - ISOTIME_CLOCK_BYTES, ISOTIME_CLOCK_BYTES - 1);
}

/* What a character becomes inside quotes; returns its bytes of the input. */
static size_t char_escape(enum log_format format, struct slice text, char out[8], size_t *out_size)
{
    uint32_t code = 0;
    size_t n = utf8_decode(text, &code);
    int size;
    if (n == 0) {
        size = format == LOG_JSON ? snprintf(out, 8, "\\ufffd")
                                  : snprintf(out, 8, "\\x%02x", (unsigned)text.data[0]);
        n = 1;
    } else if (code == '"' || code == '\\') {
        size = snprintf(out, 8, "\\%c", (int)code);
    } else if (code == '\n') {
        size = snprintf(out, 8, "\\n");
    } else if (code < 0x20 || (code >= 0x7f && code <= 0x9f) || code == 0x2028 || code == 0x2029) {
        size = snprintf(out, 8, "\\u%04x", (unsigned)code);
    } else {
        memcpy(out, text.data, n);
        size = (int)n;
    }
    *out_size = (size_t)size;
    return n;
}

static bool is_bare(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != 0 && strchr("-_.:/@+,%$#*~;()[]<>!?&|^", c));
}

/* True when a text value can stand without quotes and mean the same. */
static bool value_is_bare(struct slice text)
{
    if (text.size == 0 || text.size > VALUE_MAX_BYTES - 2)
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (!is_bare(text.data[i]))
            return false;
    }
    return true;
}

/* `budget` includes the quotes and the dots of a cut. */
static void line_value(struct line *l, struct slice text, size_t budget)
{
    if (l->format == LOG_TEXT && value_is_bare(text) && text.size <= budget) {
        line_put(l, text.data, text.size);
        return;
    }
    size_t room = budget - 2 - 3;
    line_text(l, "\"");
    while (text.size > 0) {
        char out[8];
        size_t out_size;
        size_t n = char_escape(l->format, text, out, &out_size);
        if (out_size > room) {
            line_text(l, "...");
            break;
        }
        line_put(l, out, out_size);
        room -= out_size;
        text = slice_of(text.data + n, text.size - n);
    }
    line_text(l, "\"");
}

static void line_number(struct line *l, const struct log_field *f)
{
    switch (f->kind) {
    case LOG_FIELD_U64:
        line_printf(l, "%llu", (unsigned long long)f->u64);
        break;
    case LOG_FIELD_I64:
        line_printf(l, "%lld", (long long)(int64_t)f->u64);
        break;
    case LOG_FIELD_DOUBLE:
        if (l->format == LOG_JSON && !isfinite(f->real))
            line_text(l, "null");
        else
            line_printf(l, "%.6g", f->real);
        break;
    case LOG_FIELD_TEXT:
        break;
    }
}

/* False: no room, nothing was written. Names are constants of this code and need no escape. */
static bool line_field(struct line *l, const struct log_field *f)
{
    size_t name = strlen(f->name);
    if (line_room(l) < name + 4 + NUMBER_MAX_BYTES)
        return false;
    line_text(l, l->format == LOG_JSON ? ",\"" : " ");
    line_text(l, f->name);
    line_text(l, l->format == LOG_JSON ? "\":" : "=");
    if (f->kind != LOG_FIELD_TEXT) {
        line_number(l, f);
        return true;
    }
    size_t room = line_room(l);
    line_value(l, f->text, room < VALUE_MAX_BYTES ? room : VALUE_MAX_BYTES);
    return true;
}

static void line_head(struct line *l, const struct log *log, enum log_level level,
                      const char *event)
{
    if (l->format == LOG_JSON) {
        line_text(l, "{");
        if (log->wall_ms) {
            line_text(l, "\"time\":\"");
            line_time(l, log->wall_ms(log->ctx));
            line_text(l, "\",");
        }
        line_printf(l, "\"level\":\"%s\",\"event\":", LEVELS[level]);
        line_value(l, slice_text(event), VALUE_MAX_BYTES);
    } else {
        if (log->wall_ms) {
            line_time(l, log->wall_ms(log->ctx));
            line_text(l, " ");
        }
        line_printf(l, "%-5s ", LEVELS[level]);
        line_value(l, slice_text(event), VALUE_MAX_BYTES);
    }
    if (log->role) {
        struct log_field role = LOG_STR("role", log->role);
        (void)line_field(l, &role);
    }
}

void log_emit(struct log *log, enum log_level level, const char *event,
              const struct log_field *fields, size_t n_fields)
{
    STOA_ASSERT(level >= LOG_DEBUG && level <= LOG_ERROR);
    if (level < log->level)
        return;
    struct line l;
    l.format = log->format;
    l.size = 0;
    line_head(&l, log, level, event);
    for (size_t i = 0; i < n_fields; i++) {
        if (!line_field(&l, &fields[i]))
            break;
    }
    /* The room for these two was kept by line_room. */
    if (l.format == LOG_JSON)
        l.bytes[l.size++] = '}';
    l.bytes[l.size++] = '\n';
    log->write(log->ctx, l.bytes, l.size);
}
