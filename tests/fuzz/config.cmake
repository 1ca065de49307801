stoa_fuzz(config stoa_config stoa_common PkgConfig::YAML)
