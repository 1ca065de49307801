stoa_fuzz(json stoa_common)
stoa_fuzz(id stoa_common)
