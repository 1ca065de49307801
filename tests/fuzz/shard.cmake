stoa_fuzz(record shard_store)
stoa_fuzz(lua shard_lua shard_core)
