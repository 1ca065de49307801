stoa_test(links stoa_shell stoa_proto)
stoa_test(monitor stoa_shell)
