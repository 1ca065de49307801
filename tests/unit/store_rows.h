/* SHELL. Rows for tests of the stores: written by a line, read as text. A row is "table/room in
 * hexadecimal/name=value", a damaged one ends with "!", and each has a line of its own. */
#ifndef STOA_TESTS_STORE_ROWS_H
#define STOA_TESTS_STORE_ROWS_H

#include "shard/store.h"

void begin(struct store *s);
void commit(struct store *s);
int put_bytes(struct store *s, enum store_table table, uint64_t room_id, const char *name,
              struct slice value);
void put(struct store *s, enum store_table table, uint64_t room_id, const char *name,
         const char *value);
void delete_named(struct store *s, enum store_table table, uint64_t room_id, const char *name);

/* The text stays until the next of these. */
const char *all_rows(struct store *s); /* as scan gives them */
const char *rows_of(struct store *s, enum store_table table, uint64_t room_id);
const char *one_row(struct store *s, enum store_table table, uint64_t room_id,
                    const char *name); /* its value, or the error's name */

/* Scans for rows alone. */
void scan_rows(struct store *s, void *ctx, void (*row)(void *ctx, const struct store_row *row),
               void (*damaged_row)(void *ctx, const struct store_row *row));

#endif
