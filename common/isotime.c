/* CORE. See isotime.h. */
#include "common/isotime.h"

#include <stdio.h>

#include "common/err.h"

#define MS_PER_DAY INT64_C(86400000)
#define DAYS_PER_400_YEARS 146097

static int days_of_year(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 ? 366 : 365;
}

/* Day since 1970 to a date. The calendar repeats every 400 years, so the year is found in few
 * steps. */
static void date_of(int64_t days, int64_t *year, int *month, int *day)
{
    static const int MONTH_DAYS[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    *year = 1970 + days / DAYS_PER_400_YEARS * 400;
    days %= DAYS_PER_400_YEARS;
    for (; days >= days_of_year(*year); ++*year)
        days -= days_of_year(*year);
    int rest = (int)days;
    for (*month = 1;; ++*month) {
        int size = MONTH_DAYS[*month - 1] + (*month == 2 && days_of_year(*year) == 366);
        if (rest < size)
            break;
        rest -= size;
    }
    *day = rest + 1;
}

size_t isotime_write(char out[ISOTIME_BYTES], int64_t wall_ms)
{
    int64_t year;
    int month, day;
    if (wall_ms < 0)
        wall_ms = 0;
    int ms = (int)(wall_ms % MS_PER_DAY);
    date_of(wall_ms / MS_PER_DAY, &year, &month, &day);
    int size =
        snprintf(out, ISOTIME_BYTES, "%04lld-%02d-%02dT%02d:%02d:%02d.%03dZ", (long long)year,
                 month, day, ms / 3600000, ms / 60000 % 60, ms / 1000 % 60, ms % 1000);
    STOA_ASSERT(size > ISOTIME_CLOCK_BYTES && size < ISOTIME_BYTES);
    return (size_t)size;
}
