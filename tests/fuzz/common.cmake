stoa_fuzz(json stoa_common)
