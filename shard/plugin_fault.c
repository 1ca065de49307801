/* CORE. Failures between a plug-in's codes and the tags that everybody else sees. */
#include "shard/plugin_internal.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const tags[] = {[STOA_ROOM_E_ROOM] = "RoomError",
                                   [STOA_ROOM_E_UPGRADE] = "UpgradeError",
                                   [STOA_ROOM_E_SEND] = "SendError",
                                   [STOA_ROOM_E_BROADCAST] = "BroadcastError",
                                   [STOA_ROOM_E_TOO_LARGE] = "AttachmentTooLargeError",
                                   [STOA_ROOM_E_VALIDATION] = "RoomValidationError",
                                   [STOA_ROOM_E_EXECUTION] = "RoomExecutionError",
                                   [STOA_ROOM_E_NOT_FOUND] = "RoomNotFoundError"};

/* What is not an error that a handler may end with is a handler that did not do its work. */
static const char *tag_of(stoa_room_rc rc)
{
    bool known = rc >= STOA_ROOM_E_ROOM && rc <= STOA_ROOM_E_NOT_FOUND;
    return tags[known ? rc : STOA_ROOM_E_EXECUTION];
}

stoa_room_rc rc_of_fault(const struct fault *f)
{
    for (stoa_room_rc rc = STOA_ROOM_E_ROOM; rc <= STOA_ROOM_E_NOT_FOUND; rc++) {
        if (strcmp(tags[rc], f->tag) == 0)
            return rc;
    }
    return STOA_ROOM_E_OTHER;
}

stoa_room_rc failed(struct stoa_room_ctx *x)
{
    x->error = (stoa_room_error){.rc = rc_of_fault(&x->fault),
                                 .tag = x->fault.tag,
                                 .message = strbuf_cstr(&x->fault.message),
                                 .data = bytes_of(strbuf_slice(&x->fault.data)),
                                 .status = x->fault.status};
    return x->error.rc;
}

static void fault_copy(struct fault *out, const struct fault *from)
{
    memcpy(out->tag, from->tag, sizeof out->tag);
    out->status = from->status;
    strbuf_reset(&out->message);
    strbuf_put_slice(&out->message, strbuf_slice(&from->message));
    strbuf_reset(&out->data);
    strbuf_put_slice(&out->data, strbuf_slice(&from->data));
}

stoa_room_rc failed_with(struct stoa_room_ctx *x, const struct fault *f)
{
    fault_copy(&x->fault, f);
    return failed(x);
}

void fault_of_rc(const struct stoa_room_ctx *x, stoa_room_rc rc, const char *where,
                 struct fault *out)
{
    if (x->error.rc == rc && x->fault.tag[0])
        fault_copy(out, &x->fault);
    else
        fault_set(out, tag_of(rc), "%s failed and did not say why (code %d)", where, (int)rc);
}

stoa_room_rc fault_rc(struct stoa_room_ctx *x, stoa_room_rc rc, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fault_set(&x->fault, tag_of(rc), "%s", text);
    return failed(x);
}
