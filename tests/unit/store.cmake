# A disk fails on demand: pwrite, writev, fdatasync and statvfs of the tests stand before libc's.
foreach(subject store_lmdb store_disk store_rows)
  stoa_test(${subject} shard_store)
  target_sources(test_${subject} PRIVATE store_rig.c)
endforeach()
target_link_libraries(test_store_rows PRIVATE shard_core PkgConfig::LMDB)
stoa_test(grant shard_core)
