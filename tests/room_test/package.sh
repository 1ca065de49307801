#!/bin/sh
# Installs libstoa-room-test somewhere, looks at what it shows to the linker, and builds and runs the
# counter's test against it with pkg-config, as its author would.
#     package.sh ROOM_TEST_BUILD_DIR EXAMPLES CC CXX|none
set -eu
build=$1 examples=$2 cc=$3 cxx=$4
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT

cmake -DCMAKE_INSTALL_PREFIX="$prefix" -P "$build/cmake_install.cmake" >"$prefix/installed"
library=$(dirname "$(find "$prefix" -name libstoa-room-test.so)")
sed -i "s|^prefix=.*|prefix=$prefix|" "$library/pkgconfig/stoa-room-test.pc" # it names the configured one

shown=$(nm -D --defined-only "$library/libstoa-room-test.so" | awk '$3 !~ /^stoa_test_/ { print $3 }')
[ -z "$shown" ] || { echo "libstoa-room-test shows symbols that are not stoa_test_*:" $shown >&2; exit 1; }

flags=$(PKG_CONFIG_PATH="$library/pkgconfig" pkg-config --cflags --libs stoa-room-test check)
"$cc" -std=c11 -Wall -Wextra -Werror -o "$prefix/counter_test" \
    "$examples/counter/counter.c" "$examples/counter/counter_test.c" $flags
LD_LIBRARY_PATH=$library "$prefix/counter_test" >"$prefix/out" || { cat "$prefix/out"; exit 1; }

# What docs/testing-rooms.md shows.
{
    awk '/^```c$/ { f = 1; next } /^```$/ { f = 0 } f' "$examples/../docs/testing-rooms.md"
    cat <<'END'
int main(void)
{
    Suite *suite = suite_create("shown");
    TCase *c = tcase_create("shown");
    tcase_add_test(c, everybody_sees_it);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    return srunner_ntests_failed(runner);
}
END
} >"$prefix/shown.c"
"$cc" -std=c11 -Wall -Wextra -Werror -o "$prefix/shown" "$examples/counter/counter.c" "$prefix/shown.c" $flags
LD_LIBRARY_PATH=$library "$prefix/shown" >"$prefix/out" || { cat "$prefix/out"; exit 1; }

header=$(find "$prefix" -name stoa_room_test.h)
"$cc" -std=c99 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c "$header"
if [ "$cxx" != none ]; then
    "$cxx" -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ "$header"
fi
