# libstoa is tested at its seams: the publisher's core in memory, the whole library over ipc.
stoa_test(client_publisher stoa_client stoa_proto root_client)
stoa_test(client_filter stoa_client stoa_proto root_client PkgConfig::MSGPACK)
stoa_test(client_caller stoa_client stoa_proto root_client)
stoa_test(client_random stoa_client router_core shard_core root_client)
stoa_test(client_threads stoa_client stoa_links stoa_proto root_client Threads::Threads)
stoa_test(client_rooms stoa_client stoa_links stoa_proto root_client Threads::Threads)

# The header by itself, in both languages; and the package as others meet it.
find_program(CXX_COMPILER NAMES c++ g++ clang++)
add_test(NAME client_header COMMAND ${CMAKE_C_COMPILER} -std=c99 -Wall -Wextra -Wpedantic -Werror
  -fsyntax-only -x c ${CMAKE_SOURCE_DIR}/client/stoa.h)
set(client_package_tests client_header)
if(CXX_COMPILER)
  add_test(NAME client_header_cxx COMMAND ${CXX_COMPILER} -std=c++11 -Wall -Wextra -Wpedantic -Werror
    -fsyntax-only -x c++ ${CMAKE_SOURCE_DIR}/client/stoa.h)
  list(APPEND client_package_tests client_header_cxx)
endif()
if(NOT STOA_SANITIZE) # a program of somebody else has no sanitizer in it
  add_test(NAME client_package COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/client_package.sh
    ${CMAKE_BINARY_DIR}/client ${CMAKE_CURRENT_SOURCE_DIR}/client_consumer.c ${CMAKE_C_COMPILER}
    $<IF:$<BOOL:${CXX_COMPILER}>,${CXX_COMPILER},none>)
  list(APPEND client_package_tests client_package)
endif()
set_tests_properties(${client_package_tests} PROPERTIES LABELS unit TIMEOUT 60)
