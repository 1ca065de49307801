/* CORE. Named wrong versions of the rules, for the simulator to find: STOA_MUTANT(NAME) is false
 * for ever unless the cores are compiled with STOA_MUTANTS, as tests/sim does a second time. Each
 * name stands at one place of the cores and in mutants.def, which says what is wrong with it. */
#ifndef STOA_COMMON_MUTANT_H
#define STOA_COMMON_MUTANT_H

#ifdef STOA_MUTANTS
enum mutant {
    MUTANT_NONE,
#define MUTANT(name, text) MUTANT_##name,
#include "common/mutants.def"
#undef MUTANT
    MUTANTS
};
extern enum mutant stoa_mutant; /* the one that is switched on */
#define STOA_MUTANT(name) (stoa_mutant == MUTANT_##name)
#else
#define STOA_MUTANT(name) 0
#endif

#endif
