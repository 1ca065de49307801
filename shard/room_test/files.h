/* SHELL. The room types of a world: files of rooms, loaded as a shard loads them and again whenever
 * it starts anew, so that what a file keeps in its own variables is lost as in a cluster. */
#ifndef STOA_SHARD_ROOM_TEST_FILES_H
#define STOA_SHARD_ROOM_TEST_FILES_H

#include "common/config.h"
#include "shard/room_test/world.h"
#include "shard/shell_schemas.h"
#include "stoa_room.h"

#define ROOM_FILES_MAX 15

typedef const stoa_room_vtable *room_entry(uint32_t host_abi);

struct room_file {
    char *path; /* of a .lua or .so; NULL: its entry is linked in */
    room_entry *entry;
    char *name; /* of the type */
    struct handler *handler;
    struct config_type config;
    struct type_schemas schemas;
};

struct room_files {
    struct world *world;                         /* NULL: it has ended */
    void (*print)(void *arg, struct slice line); /* of a room outside of its runs */
    void *arg;
    struct room_file at[ROOM_FILES_MAX];
    size_t count;
};

/* Starts a world without rooms. The struct must stay where it is. */
void room_files_begin(struct room_files *f, struct log *log);
void room_files_end(struct room_files *f);
/* Another room type: from a file, or from `entry` if `path` is NULL. `config`: what a configuration
 * may say of it, a JSON object; empty: nothing; files of schemas are looked for beside the room's.
 * What is there already stays as it is. ERR_INVALID, ERR_IO: *why says what is wrong with it. */
MUST_USE int room_files_add(struct room_files *f, const char *path, room_entry *entry,
                            struct slice config, const char **name, struct strbuf *why);
/* kill -9 of the shard and its start. An error: a file does not load any more, the world has ended.
 */
MUST_USE int room_files_restart(struct room_files *f, bool gateways_too, struct strbuf *why);

#endif
