# A disk fails on demand: pwrite, writev, fdatasync and statvfs of the test stand before libc's.
stoa_test(store_lmdb shard_store)
stoa_test(grant shard_core)
