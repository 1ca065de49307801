/* SHELL. libstoa as the commands use it: the cluster's name and keys come from the configuration.
 */
#ifndef STOA_CLIENT_CLI_LIBRARY_H
#define STOA_CLIENT_CLI_LIBRARY_H

#include "client/cli/cli.h"
#include "client/stoa.h"

/* Opens a publisher to cli->router; NULL after telling why. The caller closes it, and
 * keeps `cli` until then: warnings are told in its name. */
stoa *library_open(const struct cli *cli);

#endif
