# Less work a check: an input may take 5 s, and each branch is slower here.
target_compile_definitions(shard_schema PRIVATE STOA_SCHEMA_WORK_MAX=100000)
stoa_fuzz(schema shard_schema)
