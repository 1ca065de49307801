/* CORE. Rooms whose code is not run any more, because it does not stop by itself.
 *
 * A handler over its budget is stopped and what it did is dropped; the room goes on. One that is
 * stopped STRIKES_MAX times within STRIKES_WITHIN_MS goes into quarantine: nothing of it runs, who
 * calls it is told so at once (503, nothing has run), frames are taken and dropped, alarms and
 * on_close wait. Its sockets stay, its log is read and published to as before. A room, or a whole
 * type, also gets here at the start of a shard, when the program knows that its code ended the
 * process before (shell_guard.h).
 *
 *   strike, strike, strike --> row in TABLE_QUARANTINE, with the turn --> VERB_RELEASE --> runs
 *
 * The row is the truth: it survives the process, and a turn that fails leaves it as it was. */
#ifndef STOA_SHARD_QUARANTINE_H
#define STOA_SHARD_QUARANTINE_H

#include "shard/state.h"

#define STRIKES_MAX 3
#define STRIKES_WITHIN_MS 60000
#define QUARANTINE_LOOK_MS 10000 /* how long what is due in a quarantined room is put off */

void quarantine_create(struct shard *s);
void quarantine_destroy(struct shard *s);
/* Found at start. */
void quarantine_row(struct shard *s, const struct room *room, const struct store_row *row);
/* What the program says of the last process; commits. */
void quarantine_suspects(struct shard *s, const struct shard_options *options);

/* Whether its code must not run: its own quarantine or its type's. */
bool room_quarantined(const struct shard *s, const struct room *room);
/* What its callers are told. */
void quarantine_fault(struct fault *out);
/* Its code was stopped in on_event, identify, ...; `why` says over which budget. Within a turn. */
void quarantine_strike(struct shard *s, struct actor *a, const char *in, struct slice why);
/* Ends what this room began. False: there is nothing. Within a turn. */
bool quarantine_release(struct shard *s, struct room *room);
void quarantine_settle(struct shard *s);
void quarantine_rollback(struct shard *s);
/* A frame was dropped. */
void quarantine_dropped(struct shard *s);
size_t quarantine_count(const struct shard *s);
/* [{"key":…,"type":…,"whole_type":…,"since":…,"why":…}], without the brackets; at most `limit`. */
void quarantine_list(const struct shard *s, struct strbuf *out, size_t limit);

/* ---- watch.c: the program's eye on code that runs ---- */
void watch_enter(struct shard *s, const struct room *room, const char *phase);
void watch_leave(struct shard *s, const struct room *room, enum phase phase);

#endif
