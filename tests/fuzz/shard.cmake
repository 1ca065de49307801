stoa_fuzz(record shard_store)
