/* SHELL. Rows beside records: a store around the store under test that adds to each transaction, in
 * the same one, a row for every record that comes, takes the row of every record that goes, and
 * replaces a row of the record's room. Nobody but these tests knows the rows: the shard's core does
 * not see them. Whatever happens to the file, there is a row for each record and for no other. */
#ifndef STOA_TESTS_IMAGES_ROWS_H
#define STOA_TESTS_IMAGES_ROWS_H

#include "common/strbuf.h"
#include "shard/store.h"

/* Around `inner`, which stays the caller's. */
struct store *rows_store_create(struct store *inner);
void rows_store_destroy(struct store **s);

enum rows_verdict { ROWS_GOOD, ROWS_WRONG, ROWS_LOST };
/* Compares rows with records. `damaged`: the file was spoiled, so what is reported as damaged may
 * be missing, and rows of records that went unseen may be left. */
enum rows_verdict rows_check(struct store *s, bool damaged, struct strbuf *why);

#endif
