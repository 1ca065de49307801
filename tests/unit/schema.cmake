stoa_test(schema shard_schema)
