/* What the files of the probe in C share: text.c (JSON), acts.c (what it can do), probe.c (when).
 */
#ifndef STOA_EXAMPLES_PROBE_H
#define STOA_EXAMPLES_PROBE_H

#include <string.h>

#include "stoa_room.h"

extern const stoa_room_host *host;

/* ---- text.c ---- */

/* A text that grows in the segment's memory. */
struct text {
    stoa_room_ctx *ctx;
    char *p;
    size_t n, capacity;
};
void put(struct text *t, stoa_room_bytes bytes);
void put_text(struct text *t, const char *text);
void put_quoted(struct text *t, stoa_room_bytes text);
void put_number(struct text *t, int64_t n);
void put_value(struct text *t, stoa_room_bytes json); /* none is null */
/* Into an object that was begun with "{"; what is null or not there is left out. */
void put_member(struct text *t, const char *name, stoa_room_bytes value);
stoa_room_bytes bytes_of(const struct text *t);
int is(stoa_room_bytes text, const char *other);
/* The text of a member; p NULL: it has none. */
stoa_room_bytes text_of(stoa_room_ctx *ctx, stoa_room_bytes object, const char *name);
int64_t whole(stoa_room_bytes number);

/* ---- acts.c ---- */

/* The room's companion in memory. */
struct mem {
    char *kept;
    size_t n;
};

struct job {
    stoa_room_ctx *ctx;
    struct mem *mem;
    stoa_room_bytes act;   /* as it was asked for */
    stoa_room_bytes input; /* JSON; p NULL: none */
    stoa_room_bytes out;   /* JSON; p NULL: null */
    int event;             /* asked for by an event, not as a method */
    int tried;             /* an error becomes the result */
    int waits;             /* the result comes later */
};

struct act {
    const char *name;
    stoa_room_rc (*run)(struct job *job);
};
const struct act *act_named(stoa_room_bytes name);
/* The outcome of a job whose failure is a result becomes that. */
void caught(struct job *j, stoa_room_rc rc);

/* ---- probe.c ---- */

/* A job has ended: its result goes to whoever asked. */
stoa_room_rc finish(struct job *j, stoa_room_rc rc);

#endif
