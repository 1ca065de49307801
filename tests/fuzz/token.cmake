stoa_fuzz(token stoa_token stoa_common)
target_link_libraries(fuzz_token PRIVATE PkgConfig::SODIUM)
stoa_fuzz(orpc_token stoa_token stoa_common)
target_link_libraries(fuzz_orpc_token PRIVATE PkgConfig::SODIUM)
