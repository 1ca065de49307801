/* SHELL. Opens a data directory as a shard would and decides whether it is what a history allows:
 * everything acknowledged is there, byte for byte and in order; a batch, and a whole commit, is
 * there or not, and so are rows written with it; nothing refused is there; a retry is known again;
 * what follows is stored. */
#ifndef STOA_TESTS_IMAGES_CHECK_H
#define STOA_TESTS_IMAGES_CHECK_H

#include "world.h"

enum verdict {
    VERDICT_GOOD,
    VERDICT_REFUSED, /* did not open, and said why */
    VERDICT_WRONG,   /* opened, and gave out what was never written like that */
    VERDICT_LOST,    /* something acknowledged is gone and nobody was told */
    VERDICT_ENDED,   /* the store ended the process, with its message */
    VERDICT_CRASHED, /* the process ended otherwise */
    VERDICTS
};
extern const char *const verdict_names[VERDICTS];

#define CHECK_NOW UINT32_MAX

struct check {
    const char *dir;
    struct history *history;
    uint32_t cut; /* recorded events that had happened, CHECK_NOW: all */
    bool damaged; /* the file was spoiled: losses are fine when they are told */
    bool after_eio;
    uint64_t dice; /* which op is retried */
};

/* `why`: of any verdict but GOOD. */
enum verdict check_dir(const struct check *c, struct strbuf *why);
/* The same with a world that is open already, which stays open. */
enum verdict check_world(const struct check *c, struct world *w, struct strbuf *why);
/* For a history that goes on: what was sent and not answered is sent again, as publishers do. */
void check_settle(struct history *h, struct world *w);

#endif
