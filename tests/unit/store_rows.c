/* SHELL. The rows of store_rows.h. */
#include "store_rows.h"

#include <check.h>

#include "common/strbuf.h"

void begin(struct store *s)
{
    ck_assert_int_eq(s->vtable->begin(s), ERR_OK);
}

void commit(struct store *s)
{
    ck_assert_int_eq(s->vtable->commit(s), ERR_OK);
}

int put_bytes(struct store *s, enum store_table table, uint64_t room_id, const char *name,
              struct slice value)
{
    const struct store_row row = {table, room_id, slice_text(name), value};
    return s->vtable->put_row(s, &row);
}

void put(struct store *s, enum store_table table, uint64_t room_id, const char *name,
         const char *value)
{
    ck_assert_int_eq(put_bytes(s, table, room_id, name, slice_text(value)), ERR_OK);
}

void delete_named(struct store *s, enum store_table table, uint64_t room_id, const char *name)
{
    ck_assert_int_eq(s->vtable->delete_row(s, table, room_id, slice_text(name)), ERR_OK);
}

static void tell_row(struct strbuf *out, int code, const struct store_row *row)
{
    strbuf_printf(out, "%d/%llx/%.*s", (int)row->table, (unsigned long long)row->room_id,
                  SLICE_FMT(row->name));
    if (code != ERR_OK) {
        ck_assert_int_eq(code, ERR_CORRUPT);
        ck_assert_uint_eq(row->value.size, 0);
        strbuf_put_text(out, "!\n");
    } else {
        strbuf_printf(out, "=%.*s\n", SLICE_FMT(row->value));
    }
}

static void on_row(void *ctx, const struct store_row *row)
{
    tell_row(ctx, ERR_OK, row);
}
static void on_damaged_row(void *ctx, const struct store_row *row)
{
    tell_row(ctx, ERR_CORRUPT, row);
}
static void on_read(void *ctx, int code, const struct store_row *row)
{
    tell_row(ctx, code, row);
}
static void no_slot(void *ctx, const struct store_slot *slot)
{
    (void)ctx, (void)slot;
}
static void no_room(void *ctx, const struct store_room *room)
{
    (void)ctx, (void)room;
}
static void no_record(void *ctx, unsigned class_no, const struct store_record *record)
{
    (void)ctx, (void)class_no, (void)record;
}
static void no_damage(void *ctx, unsigned class_no, uint64_t lsn)
{
    (void)ctx, (void)class_no, (void)lsn;
}

static struct strbuf text;

void scan_rows(struct store *s, void *ctx, void (*row)(void *ctx, const struct store_row *row),
               void (*damaged_row)(void *ctx, const struct store_row *row))
{
    const struct store_visitor visitor = {.ctx = ctx,
                                          .slot = no_slot,
                                          .room = no_room,
                                          .record = no_record,
                                          .damaged = no_damage,
                                          .row = row,
                                          .damaged_row = damaged_row};
    ck_assert_int_eq(s->vtable->scan(s, &visitor), ERR_OK);
}

const char *all_rows(struct store *s)
{
    strbuf_reset(&text);
    scan_rows(s, &text, on_row, on_damaged_row);
    return strbuf_cstr(&text);
}

const char *rows_of(struct store *s, enum store_table table, uint64_t room_id)
{
    strbuf_reset(&text);
    ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
    s->vtable->read_rows(s, table, room_id, on_read, &text);
    s->vtable->read_end(s);
    return strbuf_cstr(&text);
}

const char *one_row(struct store *s, enum store_table table, uint64_t room_id, const char *name)
{
    struct slice value = {0};
    strbuf_reset(&text);
    ck_assert_int_eq(s->vtable->read_begin(s), ERR_OK);
    int code = s->vtable->read_row(s, table, room_id, slice_text(name), &value);
    if (code == ERR_OK)
        strbuf_put_slice(&text, value);
    else
        strbuf_put_text(&text, err_name(code));
    s->vtable->read_end(s);
    return strbuf_cstr(&text);
}
