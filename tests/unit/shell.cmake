stoa_test(links stoa_links stoa_proto)
stoa_test(monitor stoa_shell)
