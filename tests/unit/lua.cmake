# Rooms in Lua: with a context that is the test's own (lua_world.c). Of shard_core only the faults are linked.
add_library(lua_world STATIC lua_world.c)
target_link_libraries(lua_world PUBLIC shard_lua shard_core PkgConfig::CHECK)
target_compile_options(lua_world PRIVATE -Wno-conversion -Wno-format-nonliteral)
foreach(subject load json sandbox ctx)
  stoa_test(lua_${subject} lua_world)
endforeach()

# On the shard's own core.
stoa_test(lua_shard shard_robot shard_lua shard_core)
target_compile_definitions(test_lua_shard PRIVATE EXAMPLES="${CMAKE_SOURCE_DIR}/examples" TESTS="${CMAKE_CURRENT_SOURCE_DIR}")
stoa_test(lua_meta shard_lua shard_core)
target_compile_definitions(test_lua_meta PRIVATE META="${CMAKE_SOURCE_DIR}/docs/room.meta.lua")
stoa_test(lua_match lua_world PkgConfig::LUA)
