// Squares of numbers, turned: rows become columns.
#pragma once
#include "numbers.h"

#ifdef __AVX512F__
#include <immintrin.h>

namespace {

// 16 rows of 16 numbers of four bytes. In every step two vectors exchange what is twice as wide.
inline void turn(__m512i rows[16]) {
    __m512i other[16];
    for (int64_t row = 0; row < 16; row += 2) {
        other[row] = _mm512_unpacklo_epi32(rows[row], rows[row + 1]);
        other[row + 1] = _mm512_unpackhi_epi32(rows[row], rows[row + 1]);
    }
    for (int64_t row = 0; row < 16; row += 4)
        for (int64_t half = 0; half < 2; half++) {
            rows[row + 2 * half] = _mm512_unpacklo_epi64(other[row + half], other[row + 2 + half]);
            rows[row + 2 * half + 1] = _mm512_unpackhi_epi64(other[row + half], other[row + 2 + half]);
        }
    for (int64_t row = 0; row < 4; row++)  // a vector holds quarters of the columns row, row + 4, row + 8 and row + 12
        for (int64_t half = 0; half < 2; half++) {
            __m512i upper = rows[8 * half + row], lower = rows[8 * half + row + 4];
            other[8 * half + row] = _mm512_shuffle_i32x4(upper, lower, 0x88);
            other[8 * half + row + 4] = _mm512_shuffle_i32x4(upper, lower, 0xDD);
        }
    for (int64_t row = 0; row < 8; row++) {
        rows[row] = _mm512_shuffle_i32x4(other[row], other[8 + row], 0x88);
        rows[8 + row] = _mm512_shuffle_i32x4(other[row], other[8 + row], 0xDD);
    }
}

// from[16][16], rows `stride` apart, to to[16][16], rows `wide` apart
inline void turn(const float *from, int64_t stride, float *to, int64_t wide) {
    __m512i rows[16];
    for (int64_t row = 0; row < 16; row++) rows[row] = _mm512_loadu_si512(from + row * stride);
    turn(rows);
    for (int64_t row = 0; row < 16; row++) _mm512_storeu_si512(to + row * wide, rows[row]);
}

}  // namespace

#else

namespace {

inline void turn(const float *from, int64_t stride, float *to, int64_t wide) {
    for (int64_t row = 0; row < LANES; row++)
        for (int64_t column = 0; column < LANES; column++) to[row * wide + column] = from[column * stride + row];
}

}  // namespace

#endif
