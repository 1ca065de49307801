/* SHELL. What the verbs of `stoa token` share. */
#ifndef STOA_CLIENT_CLI_TOKEN_H
#define STOA_CLIENT_CLI_TOKEN_H

#include "client/cli/cli.h"
#include "common/config.h"
#include "common/token/token.h"

int token_new(struct cli *cli, int argc, char **argv);
int token_revoke(struct cli *cli, int argc, char **argv);
int token_check_verb(struct cli *cli, int argc, char **argv);

int64_t token_now_ms(void); /* wall clock */
/* A file of at most 64 KiB as text without white space around it, to be freed with mem_free; NULL
 * after telling why on stderr. */
char *token_read_text(const struct cli *cli, const char *path);
/* The configuration; false after telling what is wrong with it on stderr. Free it either way. */
bool token_config_load(const struct cli *cli, struct config *config);
/* "2026-11-21T19:02:40Z" */
void token_put_time(struct strbuf *out, int64_t ms);
/* "59 min", "2 h 5 min", "6 d 3 h" */
void token_put_duration(struct strbuf *out, int64_t ms);

#endif
