// What the other files share: numbers of float32 and bfloat16, vectors of them, and what is fetched ahead.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#pragma GCC target("prefer-vector-width=512")
#endif

namespace {

#ifdef __AVX512F__
constexpr int64_t LANES = 16, HIGHEST = 14;  // a tile's sums, two vectors and an element fit 32 registers
#else
constexpr int64_t LANES = 8, HIGHEST = 6;  // 16 registers
#endif
constexpr int64_t WIDE = 2 * LANES;  // columns of a tile

typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
typedef uint16_t BFloat16;

struct Ahead {         // what is fetched while a tile is computed
    const char *next;  // the first byte
    int64_t pace;      // bytes an inner element; a line that is asked for twice costs nothing
};

inline float widen(float value) { return value; }
inline float widen(BFloat16 value) {
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

inline void narrow(float value, float &to) { to = value; }
inline void narrow(float value, BFloat16 &to) {  // to nearest, ties to even; what is no number stays none
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    to = (BFloat16)(value != value ? 0x7FC0 : rounded);
}

// e^x from e^-87 to e^88, to about one unit in the last place; of what is no number, none
inline float power_of(float x) {
    constexpr float SHIFTS = 12582912.0f;  // 3 * 2^22: what is added to it is rounded to a whole number
    float shifted = x * 1.44269504f + SHIFTS, whole = shifted - SHIFTS;
    float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln 2 in two parts
    float series = 1.98756915e-4f;
    series = series * rest + 1.39819995e-3f;
    series = series * rest + 8.33345190e-3f;
    series = series * rest + 4.16657962e-2f;
    series = series * rest + 1.66666655e-1f;
    series = series * rest + 5.00000012e-1f;
    series = series * rest + 1.0f;
    series = series * rest + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + (127u << 23);  // 2^whole
    float power;
    memcpy(&power, &bits, sizeof power);
    return series * power;
}

// e^x; 0 below e^-87, and infinite above e^88
inline float exponential(float exponent) {
    float power = power_of(exponent < -87.0f ? -87.0f : exponent > 88.0f ? 88.0f : exponent);
    return exponent < -87.0f ? 0.0f : exponent > 88.0f ? INFINITY : power;
}

// the same where nothing lies above 0, as with differences to the largest
inline float exponential_below(float exponent) {
    float power = power_of(exponent < -87.0f ? -87.0f : exponent);
    return exponent < -87.0f ? 0.0f : power;
}

}  // namespace
