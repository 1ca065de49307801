stoa_test(history stoa_check)
