# The rig: a shard with gateways and publishers around it, in memory.
add_library(shard_rig STATIC test_shard_rig.c)
target_link_libraries(shard_rig PUBLIC shard_core PkgConfig::CHECK)
target_compile_options(shard_rig PRIVATE -Wno-conversion -Wno-format-nonliteral)
stoa_test(store_mem shard_core)
foreach(subject context context_random index publish retention deliver replay restart random)
  stoa_test(shard_${subject} shard_rig)
endforeach()

# Rooms with a handler that does what it is told.
add_library(shard_robot STATIC test_shard_actor_robot.c)
target_link_libraries(shard_robot PUBLIC shard_rig)
target_compile_options(shard_robot PRIVATE -Wno-conversion -Wno-format-nonliteral)
foreach(subject rate actor actor_calls actor_random cold quarantine)
  stoa_test(shard_${subject} shard_robot)
endforeach()

# A room in C: the example's library, and small ones that must be refused.
stoa_test(shard_plugin shard_rig shard_plugin)
foreach(kind none old null)
  add_library(plugin_${kind} MODULE plugin_refused.c)
  target_link_libraries(plugin_${kind} PRIVATE stoa_room_header)
  string(TOUPPER ${kind} upper)
  target_compile_definitions(plugin_${kind} PRIVATE PLUGIN_${upper})
  set_target_properties(plugin_${kind} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/rooms/refused)
  add_dependencies(test_shard_plugin plugin_${kind})
endforeach()
add_library(plugin_crash MODULE plugin_crash.c)
target_link_libraries(plugin_crash PRIVATE stoa_room_header)
set_target_properties(plugin_crash PROPERTIES OUTPUT_NAME crash PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/rooms)
add_dependencies(test_shard_plugin room_counter)
target_link_libraries(test_shard_plugin PRIVATE stoa_room_header)
target_compile_definitions(test_shard_plugin PRIVATE ROOMS="${CMAKE_BINARY_DIR}/rooms")

# Tests of rooms in C.
stoa_test(room_world room_world shard_plugin)
add_dependencies(test_room_world room_counter)
target_compile_definitions(test_room_world PRIVATE ROOMS="${CMAKE_BINARY_DIR}/rooms")
