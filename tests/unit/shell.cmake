stoa_test(links stoa_links stoa_proto)
stoa_test(links_curve stoa_links stoa_proto)
stoa_test(monitor stoa_shell)
