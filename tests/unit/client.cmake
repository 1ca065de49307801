# libstoa is tested at its seams: the publisher's core in memory, the whole library over ipc.
stoa_test(client_publisher stoa_client stoa_proto root_client)
stoa_test(client_random stoa_client router_core shard_core root_client)
stoa_test(client_threads stoa_client stoa_links stoa_proto root_client Threads::Threads)
