stoa_test(http gateway_core)
stoa_test(request gateway_core)
