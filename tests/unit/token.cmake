stoa_test(orpc_token stoa_token stoa_common PkgConfig::SODIUM)
stoa_test(token stoa_token stoa_common)
