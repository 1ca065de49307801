stoa_test(config stoa_config PkgConfig::JANSSON)
