// What a program counts that goes on when something is wrong. It defines PROGRAM before it includes this.
#pragma once
#include <cstdio>

static int failures = 0;

static inline void expect(const char *what, long long got, long long wanted) {
    if (got != wanted) printf("%s: %s: %lld, not %lld\n", PROGRAM, what, got, wanted);
    failures += got != wanted;
}

static inline void check(const char *what, bool right) {
    if (!right) printf("%s: %s is wrong\n", PROGRAM, what);
    failures += !right;
}
