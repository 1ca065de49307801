/* CORE. What a handler may ask of the world: its own room, as it is within the running segment.
 *
 * Reads see the segment's own writes. Writes (state, attachments, alarm, log, sends, closes) are
 * buffered; at the segment's end they join the turn's transaction, and what is to be sent leaves
 * after the commit. A context and the connections it names are valid during one call of the
 * handler. Values are JSON text; slices given out live until the segment ends, slices taken are
 * copied at once. Functions that can fail fill *fault and return false; nothing has changed then.
 */
#ifndef STOA_SHARD_CONTEXT_H
#define STOA_SHARD_CONTEXT_H

#include <stdint.h>

#include "shard/handler.h"

struct connection;

#define CONTEXT_STATE_MAX_BYTES (2 * 1024 * 1024)
#define CONTEXT_TAGS_MAX 10
#define CONTEXT_TAG_MAX_CHARS 256
#define CONTEXT_SLEEP_MAX_MS 30000

/* ---- the room ---- */
struct slice context_type(const struct context *ctx); /* "chat" */
struct slice context_id(const struct context *ctx);   /* "lobby" of key "chat:lobby" */
struct slice context_key(const struct context *ctx);
/* Of whom this invocation is: the socket of a frame, NULL for direct sends, methods and alarms. */
struct connection *context_connection(const struct context *ctx);
/* Why an alarm runs again; NULL: it does not. */
const char *context_system_failure(const struct context *ctx);
int64_t context_now_ms(const struct context *ctx); /* the same within a segment */
uint64_t context_random(struct context *ctx);
/* A line of the log with the room's key. */
void context_print(struct context *ctx, struct slice text);

/* ---- state ---- */
/* False: there is none. */
bool context_recall(struct context *ctx, struct slice *state);
/* `version` of the state that recall gave; 0: none was said when it was saved. */
unsigned context_state_version(const struct context *ctx);
bool context_save(struct context *ctx, struct slice state, struct fault *fault);
/* Deletes state and alarm and the retained log when the handler has ended. */
void context_purge(struct context *ctx);

/* ---- connections, in the order in which they were accepted; open ones only, except the one of a
 * running PHASE_CLOSE ---- */
struct connection *context_next(struct context *ctx, struct connection *after); /* NULL: first */
size_t context_count(const struct context *ctx);
/* The oldest open one with this id. */
struct connection *context_by_id(struct context *ctx, struct slice id);
struct slice connection_session(const struct connection *c); /* unique, never used again */
struct slice connection_id(const struct connection *c);
size_t connection_tags(const struct connection *c);
struct slice connection_tag(const struct connection *c, size_t i);
struct slice connection_state(const struct connection *c);
struct slice connection_meta(const struct connection *c); /* empty outside PHASE_CONNECT */
bool connection_is_open(const struct connection *c);
bool connection_has_tag(const struct connection *c, struct slice tag);
bool context_send(struct context *ctx, struct connection *c, struct slice message,
                  struct fault *fault);
bool context_set_state(struct context *ctx, struct connection *c, struct slice state,
                       struct fault *fault);
/* code 1000, 1001, 1003, 1007..1014, 3000..4999; reason at most 123 bytes. One that is closing
 * already goes on as it was told first. */
bool context_close(struct context *ctx, struct connection *c, unsigned code, struct slice reason,
                   struct fault *fault);

/* ---- to many ---- */
/* (`to`, else those with any of `tags`, else everybody) less `except`. A string names a connection
 * by its session or by its id. NULL: not given; `to` or `tags` given without a name is nobody. */
struct recipients {
    const struct slice *tags, *to, *except;
    size_t n_tags, n_to, n_except;
};
/* For those who are connected now: not retained, never replayed. */
bool context_broadcast(struct context *ctx, struct slice message, const struct recipients *who,
                       struct fault *fault);
struct publish_wish {
    struct recipients who;
    struct slice conflate;
    struct slice meta; /* JSON: how parts of the message are typed (proto/typed.h); empty: plain */
    bool ephemeral;
};
/* Appends to the room's retained log, and so reaches everybody, now and on replay. */
bool context_publish(struct context *ctx, struct slice message, const struct publish_wish *wish,
                     struct fault *fault);
/* Appends a JSON array of retained events {"id","ts","data" or "base64","conflate"?} behind `after`
 * (empty or gone: from the oldest), this segment's own not among them: at most `limit` (0: 100; at
 * most 1000, more is refused) and about 2 MiB. */
bool context_log(struct context *ctx, struct slice after, unsigned limit, struct strbuf *out,
                 struct fault *fault);

/* ---- alarm ---- */
bool context_schedule_at(struct context *ctx, int64_t unix_ms, struct fault *fault);
void context_cancel(struct context *ctx);
bool context_next_alarm(const struct context *ctx, int64_t *unix_ms); /* false: none */

/* ---- what a run waits for: after one of these it must yield ---- */
bool context_sleep(struct context *ctx, int64_t ms, struct fault *fault);
enum sibling_verb { SIBLING_SEND, SIBLING_STATE, SIBLING_BROADCAST, SIBLING_CALL };
bool context_sibling(struct context *ctx, enum sibling_verb verb, struct slice type,
                     struct slice id, struct slice method, struct slice input, struct fault *fault);
/* An item of a streaming method. */
bool context_item(struct context *ctx, struct slice item, struct fault *fault);

#endif
