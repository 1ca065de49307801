stoa_fuzz(http gateway_core)
