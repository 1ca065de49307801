stoa_test(store_lmdb shard_store stoa_shell PkgConfig::LMDB)
