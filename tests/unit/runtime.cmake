# The real cores of all parts in one thread, without sockets, disk, clock or randomness.
set(runtime_dir ${CMAKE_SOURCE_DIR}/tests/runtime)
add_executable(test_runtime ${runtime_dir}/test_runtime.c ${runtime_dir}/mem_runtime.c)
target_include_directories(test_runtime PRIVATE ${runtime_dir})
target_link_libraries(test_runtime PRIVATE gateway_core router_core shard_core PkgConfig::CHECK)
target_compile_options(test_runtime PRIVATE -Wno-conversion -Wno-format-nonliteral
  -Wno-format-extra-args)
add_test(NAME runtime COMMAND test_runtime)
set_tests_properties(runtime PROPERTIES LABELS unit TIMEOUT 300
  ENVIRONMENT "CK_DEFAULT_TIMEOUT=120;ASAN_OPTIONS=detect_leaks=1")
