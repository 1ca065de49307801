/* CORE. What every handler shares, whatever its language: faults, names of phases,
 * schemas. */
#include "shard/handler.h"

#include <stdarg.h>
#include <stdio.h>

void fault_set(struct fault *f, const char *tag, const char *format, ...)
{
    (void)snprintf(f->tag, sizeof f->tag, "%s", tag);
    f->status = 0;
    strbuf_reset(&f->message);
    strbuf_reset(&f->data);
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int size = vsnprintf(NULL, 0, format, args);
    STOA_ASSERT(size >= 0);
    uint8_t *to = strbuf_reserve(&f->message, (size_t)size + 1);
    (void)vsnprintf((char *)to, (size_t)size + 1, format, again);
    strbuf_commit(&f->message, (size_t)size);
    va_end(again);
    va_end(args);
}

void fault_free(struct fault *f)
{
    strbuf_free(&f->message);
    strbuf_free(&f->data);
    *f = (struct fault){0};
}

const char *boundary_name(enum boundary boundary)
{
    static const char *const names[BOUNDARY_COUNT] = {[BOUNDARY_STATE] = "state",
                                                      [BOUNDARY_CONNECTION] = "connection",
                                                      [BOUNDARY_EVENT] = "event",
                                                      [BOUNDARY_BROADCAST] = "broadcast"};
    STOA_ASSERT(boundary < BOUNDARY_COUNT);
    return names[boundary];
}

bool handler_admits(const struct handler *h, enum boundary boundary, struct slice json,
                    const char *tag, struct fault *fault)
{
    struct schema *schema = h->schemas[boundary];
    struct strbuf why = {0};
    bool fits = !schema || schema->check(schema, json, &why);
    if (!fits)
        fault_set(fault, tag, "not what schemas.%s asks for: %s", boundary_name(boundary),
                  strbuf_cstr(&why));
    strbuf_free(&why);
    return fits;
}

const char *phase_name(enum phase phase)
{
    static const char *const names[PHASE_COUNT] = {
        [PHASE_CONNECT] = "connect", [PHASE_EVENT] = "event", [PHASE_CLOSE] = "close",
        [PHASE_ALARM] = "alarm",     [PHASE_CALL] = "call",   [PHASE_DECODE_ERROR] = "decode_error",
        [PHASE_ERROR] = "error"};
    STOA_ASSERT(phase < PHASE_COUNT);
    return names[phase];
}
