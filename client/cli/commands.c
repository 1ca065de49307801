/* SHELL. The table of commands with their help. */
#include <stddef.h>

#include "client/cli/cli.h"

const struct command cli_commands[] = {
    {"up", command_up, "start and supervise a local cluster",
     "usage: stoa up [options]\n"
     "Starts shards, routers and gateways on this machine and restarts what dies. Ctrl-C stops "
     "them.\n"
     "  -d, --detach         return when everything is ready (stoa down stops it)\n"
     "      --data DIR       where everything lies (data)\n"
     "      --listen ADDR    first gateway (127.0.0.1:8080); further ones take the next ports\n"
     "      --shards N       (2) fixed once data exists\n"
     "      --gateways N     (1)\n"
     "      --routers N      (1)\n"
     "      --page FILE      HTML page that gateways serve at /\n"
     "      --with 'CMD'     run a program with the cluster, in DIR; $STOA_ROUTER and $STOA_SERVER "
     "tell it where\n"
     "examples:\n"
     "  stoa up\n"
     "  stoa up -d --data /var/lib/stoa --gateways 2 --listen 127.0.0.1:9000\n"},
    {"down", command_down, "stop a local cluster",
     "usage: stoa down [--data DIR]\n"
     "Stops gateways, then routers, then shards, each in an orderly way.\n"
     "examples:\n"
     "  stoa down\n"
     "  stoa down --data /var/lib/stoa\n"},
    {"publish", command_publish, "append an event",
     "usage: stoa publish [options] KEY [JSON | --file F | -]\n"
     "Prints the event's id once it is on disk. Retries under one idempotency key for up to "
     "--timeout.\n"
     "  -k, --idempotency-key K  recognise a retry: the same key is the same event\n"
     "  -c, --conflate NAME      who catches up gets only the newest event of this name\n"
     "  -e, --ephemeral          to whoever is live, never stored\n"
     "  -b, --batch              a payload a line, all or none\n"
     "  -f, --file F             payload from a file\n"
     "Exit codes: 0 on disk, 1 not stored, 2 usage, 3 unknown (retry with the same -k).\n"
     "examples:\n"
     "  stoa publish upload:abc123 '{\"type\":\"completed\",\"size\":1048576}'\n"
     "  printf '1\\n2\\n3\\n' | stoa publish --batch job:7 -\n"},
    {"tail", command_tail, "print events as they come",
     "usage: stoa tail [options] KEY...\n"
     "ID<TAB>PAYLOAD a line; with several keys KEY<TAB>ID<TAB>PAYLOAD. Reconnects and resumes; "
     "what could not be\n"
     "given is told on stderr. An event that is not stored has - in place of an ID.\n"
     "  -n, --replay N|all|none  retained events first (none)\n"
     "  -a, --after ID           everything after this event\n"
     "  -r, --raw                payloads alone\n"
     "examples:\n"
     "  stoa tail upload:abc123\n"
     "  stoa tail -n all job:1 job:2\n"},
    {"log", command_log, "retained events of a key",
     "usage: stoa log [options] KEY\n"
     "  -a, --after ID  everything after this event\n"
     "  -l, --limit N   at most N\n"
     "  -n, --last N    the newest N (at most 1000)\n"
     "  -r, --raw       payloads alone\n"
     "examples:\n"
     "  stoa log upload:abc123\n"
     "  stoa log --last 10 --raw upload:abc123\n"},
    {"keys", command_keys, "list keys",
     "usage: stoa keys [PREFIX]\n"
     "examples:\n"
     "  stoa keys\n"
     "  stoa keys upload:\n"},
    {"room", command_room, "ask a room with a handler; check and test its code",
     "usage: stoa room VERB [options] TYPE:ID ...\n"
     "       stoa room check FILE\n"
     "       stoa room test FILE.lua ...\n"
     "Prints the room's answer as one line of JSON; connections one a line: "
     "ID<TAB>TAGS<TAB>STATE.\n"
     "  state KEY              its state, null without one\n"
     "  connections KEY        who is connected (-t TAG: only those)\n"
     "  presence KEY           its members, one a connection id\n"
     "  send KEY [JSON]        run its on_event, as a frame would\n"
     "  broadcast KEY [JSON]   to its connections, not kept\n"
     "  call KEY METHOD [JSON] call one of its methods\n"
     "  alarm KEY              fire its alarm now\n"
     "  close KEY              close its connections (-c CODE)\n"
     "  purge KEY              drop state, alarm and retained events\n"
     "  release KEY            end its quarantine (stoa status lists what is in one)\n"
     "  check FILE             load code as a shard would: what will hold, or FILE:LINE and the "
     "reason\n"
     "  test FILE.lua ...      run tests of rooms in memory: a line a case, failures with "
     "FILE:LINE\n"
     "Options:\n"
     "  -k, --idempotency-key K  recognise a retry (send, broadcast, call, alarm)\n"
     "  -f, --file F             JSON from a file; - or nothing given: from standard input (send, "
     "broadcast)\n"
     "  -t, --tag TAG   -c, --code CODE\n"
     "Exit codes: 0 done, 1 not done, 2 usage, 3 unknown (retry with the same -k).\n"
     "examples:\n"
     "  stoa room call chat:lobby say '{\"text\":\"hello\"}'\n"
     "  stoa room check rooms/chat.lua\n"
     "  stoa room test rooms/chat_test.lua\n"
     "  stoa room test rooms/*_test.lua && stoa reload\n"},
    {"status", command_status, "every process of the cluster",
     "usage: stoa status\n"
     "Looks twice, a second apart. PER SECOND: a gateway's deliveries, a router's and a shard's "
     "publishes.\n"
     "examples:\n"
     "  stoa status\n"
     "  stoa status --json\n"},
    {"top", command_top, "busiest rooms",
     "usage: stoa top [-n N]\n"
     "  -n, --limit N  how many (20)\n"
     "examples:\n"
     "  stoa top\n"
     "  watch stoa top -n 10\n"},
    {"logs", command_logs, "logs of a local cluster",
     "usage: stoa logs [-f] [--data DIR]\n"
     "  -f, --follow  go on as lines come\n"
     "examples:\n"
     "  stoa logs\n"
     "  stoa logs -f --data /var/lib/stoa\n"},
    {"config", command_config, "validate or show the configuration",
     "usage: stoa config check|show|default\n"
     "check: every problem with file, line and field. show: every value and where it came from, "
     "secrets masked.\n"
     "default: all fields, commented.\n"
     "examples:\n"
     "  stoa config check --config stoa.yaml\n"
     "  stoa config default > stoa.yaml\n"},
    {"reload", command_reload, "apply a changed configuration file",
     "usage: stoa reload [--data DIR]\n"
     "Applies auth, gateway.origins, gateway.limits, types and log, and prints what changed; a "
     "file "
     "with any\n"
     "mistake changes nothing.\n"
     "examples:\n"
     "  stoa reload\n"
     "  stoa reload --data /var/lib/stoa\n"},
    {"keygen", command_keygen, "make a CURVE key pair",
     "usage: stoa keygen [FILE]\n"
     "Writes a new secret key to FILE (mode 0600, never overwritten) for cluster.curve.secret_file "
     "and prints the\n"
     "lines to paste into stoa.yaml. Without FILE the secret key goes to stdout, the rest to "
     "stderr.\n"
     "examples:\n"
     "  stoa keygen curve.key\n"
     "  stoa keygen --json curve.key\n"},
    {"bench", command_bench, "put load on a cluster and measure",
     "usage: stoa bench publish|fanout|latency [options]\n"
     "publish: acknowledged events a second. fanout: deliveries a second to many sockets. latency: "
     "publish to receive\n"
     "at a steady rate. Publishes through --router (a local cluster's: "
     "ipc://$PWD/data/run/router-0).\n"
     "      --seconds S   how long (5)\n"
     "      --size N      payload bytes (200)\n"
     "      --in-flight N unacknowledged publishes (64)\n"
     "      --keys N      rooms (1)\n"
     "      --sockets N   sockets a room (1)\n"
     "      --rate N      latency: events a second (500)\n"
     "      --ephemeral   events that are not stored\n"
     "examples:\n"
     "  stoa bench publish --router ipc://$PWD/data/run/router-0\n"
     "  stoa bench fanout --router ipc://$PWD/data/run/router-0 --sockets 1000\n"},
    {NULL, NULL, NULL, NULL},
};
