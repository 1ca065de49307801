stoa_test(router router_core)
