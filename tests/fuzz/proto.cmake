stoa_fuzz(envelope stoa_proto)
stoa_fuzz(filter stoa_proto)
stoa_fuzz(typed stoa_proto)
