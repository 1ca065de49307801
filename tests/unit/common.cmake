foreach(name mem hash bucket template map heap list log metrics utf8 json base36)
  stoa_test(${name} stoa_common)
endforeach()
stoa_test(json_oracle stoa_common PkgConfig::JANSSON)
