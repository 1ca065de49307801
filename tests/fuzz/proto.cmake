stoa_fuzz(envelope stoa_proto)
