// The pattern that pattern_plant fills its memory with and pattern_probe looks for.
#pragma once
#include <cstddef>
#include <cstdint>

static const uint64_t PATTERN = 0x766770755f706174ull;

// Whether bytes of the pattern stand anywhere in `data`: 6 of its 8 in a row, at any offset.
static inline bool holds_pattern(const unsigned char *data, size_t bytes) {
    const unsigned char *pattern = (const unsigned char *)&PATTERN;
    for (size_t at = 0; at + 6 <= bytes; at++) {
        for (int from = 0; from < 3; from++) {
            int same = 0;
            while (same < 6 && data[at + same] == pattern[from + same]) same++;
            if (same == 6) return true;
        }
    }
    return false;
}
