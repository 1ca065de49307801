# The rig: a shard with gateways and publishers around it, in memory.
add_library(shard_rig STATIC test_shard_rig.c)
target_link_libraries(shard_rig PUBLIC shard_core PkgConfig::CHECK)
target_compile_options(shard_rig PRIVATE -Wno-conversion -Wno-format-nonliteral)
stoa_test(store_mem shard_core)
foreach(subject context index publish retention deliver replay restart random)
  stoa_test(shard_${subject} shard_rig)
endforeach()
