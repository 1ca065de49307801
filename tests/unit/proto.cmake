stoa_test(mp stoa_proto)
stoa_test(filter stoa_proto PkgConfig::MSGPACK)
stoa_test(typed stoa_proto)
stoa_test(message stoa_proto PkgConfig::MSGPACK)
target_sources(test_message PRIVATE message_samples.c)
stoa_test(packet stoa_proto)
foreach(subject hub hub_messages)
  stoa_test(${subject} stoa_proto)
  target_sources(test_${subject} PRIVATE hub_world.c)
endforeach()
stoa_test(slots stoa_proto)

# docs/protocol.md is what the code says it is.
add_test(NAME protocol_document
  COMMAND sh -c "'$<TARGET_FILE:stoa-describe>' | diff -u '${CMAKE_SOURCE_DIR}/docs/protocol.md' -")
set_tests_properties(protocol_document PROPERTIES LABELS unit)
