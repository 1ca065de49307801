#!/bin/sh
# Installs libstoa somewhere, looks at what it shows to the linker, and builds a program against it:
# with pkg-config, shared and static, C and C++ (where there is a compiler for it); and, installed
# below a DESTDIR, with find_package.
#     client_package.sh CLIENT_BUILD_DIR CONSUMER.c CC CXX|none
set -eu
build=$1 consumer=$2 cc=$3 cxx=$4
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT

cmake -DCMAKE_INSTALL_PREFIX="$prefix" -P "$build/cmake_install.cmake" >"$prefix/installed"
library=$(dirname "$(find "$prefix" -name libstoa.so)")
sed -i "s|^prefix=.*|prefix=$prefix|" "$library/pkgconfig/stoa.pc" # it names the configured one

foreign() { # symbols that are defined for everybody and are not ours to define
    nm "$@" | awk 'NF == 3 && $2 ~ /^[A-Z]$/ && $3 !~ /^stoa_/ { print $3 }'
}
shown=$(foreign -D --defined-only "$library/libstoa.so"; foreign -g --defined-only "$library/libstoa.a")
[ -z "$shown" ] || { echo "libstoa shows symbols that are not stoa_*:" $shown >&2; exit 1; }

flags() {
    PKG_CONFIG_PATH="$library/pkgconfig" pkg-config "$@" stoa
}
try() { # NAME COMPILER...
    name=$1
    shift
    "$@" -o "$prefix/$name"
    LD_LIBRARY_PATH=$library "$prefix/$name" >/dev/null || { echo "$name: exit code $?" >&2; exit 1; }
}
warnings="-Wall -Wextra -Wpedantic -Werror"
try c-shared "$cc" -std=c11 $warnings "$consumer" $(flags --cflags --libs)
# Not by `pkg-config --static`: Debian's libzmq names archives there that Debian does not have.
try c-archive "$cc" -std=c11 $warnings "$consumer" $(flags --cflags) "$library/libstoa.a" \
    $(pkg-config --libs libzmq libxxhash libsodium msgpack) -pthread
if [ "$cxx" != none ]; then
    try cxx-shared "$cxx" -std=c++11 $warnings -x c++ "$consumer" -x none $(flags --cflags --libs)
fi

DESTDIR="$prefix/staged" cmake -DCMAKE_INSTALL_PREFIX=/opt/stoa -P "$build/cmake_install.cmake" >>"$prefix/installed"
mkdir "$prefix/project"
cat >"$prefix/project/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.20)
project(consumer C)
find_package(stoa REQUIRED)
if(NOT stoa_LIBRARY MATCHES "^$prefix/staged/")
  message(FATAL_ERROR "another one was found: \${stoa_LIBRARY}")
endif()
add_executable(consumer "$consumer")
target_link_libraries(consumer PRIVATE stoa::stoa)
EOF
cmake -S "$prefix/project" -B "$prefix/project/build" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_PREFIX_PATH="$prefix/staged/opt/stoa" >"$prefix/configured" 2>&1 || { cat "$prefix/configured" >&2; exit 1; }
cmake --build "$prefix/project/build" >"$prefix/built" 2>&1 || { cat "$prefix/built" >&2; exit 1; }
"$prefix/project/build/consumer" >/dev/null || { echo "find_package: exit code $?" >&2; exit 1; }
