// What happens to each row between products: norm, rotary embedding, gate. float32 and bfloat16; everything is computed
// in float32 and rounded once. A row's result does not depend on its neighbours.
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#pragma GCC target("prefer-vector-width=512")
#endif

namespace {

constexpr int64_t LANES = 16;               // partial sums of a row, so that the compiler can use vectors
constexpr int64_t WORTH_THREADS = 1 << 14;  // elements below which threads cost more than they save

typedef uint16_t BFloat16;

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

// e^x to about one unit in the last place from e^-87 to e^88; below, e^-87, and above, infinite
inline float exponential(float exponent) {
    float x = exponent < -87.0f ? -87.0f : exponent > 88.0f ? 88.0f : exponent;
    float whole = std::nearbyint(x * 1.44269504f);
    float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln 2 in two parts
    float series = 1.98756915e-4f;
    series = series * rest + 1.39819995e-3f;
    series = series * rest + 8.33345190e-3f;
    series = series * rest + 4.16657962e-2f;
    series = series * rest + 1.66666655e-1f;
    series = series * rest + 5.00000012e-1f;
    float fraction = series * rest * rest + rest + 1.0f;
    int32_t bits = ((int32_t)whole + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return exponent > 88.0f ? INFINITY : fraction * power;
}

template <typename Element>
void norm(const Element *rows, const Element *weight, float eps, Element *normed, int64_t count, int64_t width,
          int64_t threads) {
#pragma omp parallel for num_threads(threads) if (count * width > WORTH_THREADS)
    for (int64_t row = 0; row < count; row++) {
        const Element *from = rows + row * width;
        Element *to = normed + row * width;
        float partial[LANES] = {}, squares = 0;
        int64_t whole = width / LANES * LANES;
        for (int64_t start = 0; start < whole; start += LANES)
            for (int64_t lane = 0; lane < LANES; lane++) {
                float value = widen(from[start + lane]);
                partial[lane] += value * value;
            }
        for (int64_t k = whole; k < width; k++) partial[k - whole] += widen(from[k]) * widen(from[k]);
        for (float part : partial) squares += part;
        float scale = 1.0f / std::sqrt(squares / width + eps);
        for (int64_t k = 0; k < width; k++) narrow(widen(from[k]) * scale * widen(weight[k]), to[k]);
    }
}

// [count, 2, width] to [count, width]: silu of the first half times the second
template <typename Element>
void gate(const Element *both, Element *gated, int64_t count, int64_t width, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (count * width > WORTH_THREADS)
    for (int64_t row = 0; row < count; row++) {
        const Element *opened = both + row * 2 * width, *raised = opened + width;
        Element *to = gated + row * width;
        for (int64_t k = 0; k < width; k++) {
            float value = widen(opened[k]);
            narrow(value / (1.0f + exponential(-value)) * widen(raised[k]), to[k]);
        }
    }
}

// [count, heads, width]; cosine and sine are [count, width], the first half of the sine is negative
template <typename Element>
void rotate(const Element *rows, const float *cosine, const float *sine, Element *rotated, int64_t count, int64_t heads,
            int64_t width, int64_t threads) {
    int64_t half = width / 2;
#pragma omp parallel for num_threads(threads) if (count * heads * width > WORTH_THREADS)
    for (int64_t row = 0; row < count; row++) {
        const float *across = cosine + row * width, *up = sine + row * width;
        for (int64_t head = row * heads; head < (row + 1) * heads; head++) {
            const Element *left = rows + head * width, *right = left + half;
            Element *to = rotated + head * width;
            for (int64_t k = 0; k < half; k++)
                narrow(widen(left[k]) * across[k] + widen(right[k]) * up[k], to[k]);
            for (int64_t k = 0; k < half; k++)
                narrow(widen(right[k]) * across[half + k] + widen(left[k]) * up[half + k], to[half + k]);
        }
    }
}

}  // namespace

#define EXPORT(NAME, ELEMENT)                                                                                          \
    void norm_##NAME(const ELEMENT *rows, const ELEMENT *weight, float eps, ELEMENT *normed, int64_t count,            \
                     int64_t width, int64_t threads) {                                                                 \
        norm(rows, weight, eps, normed, count, width, threads);                                                        \
    }                                                                                                                  \
    void gate_##NAME(const ELEMENT *both, ELEMENT *gated, int64_t count, int64_t width, int64_t threads) {             \
        gate(both, gated, count, width, threads);                                                                      \
    }                                                                                                                  \
    void rotate_##NAME(const ELEMENT *rows, const float *cosine, const float *sine, ELEMENT *rotated, int64_t count,   \
                       int64_t heads, int64_t width, int64_t threads) {                                                \
        rotate(rows, cosine, sine, rotated, count, heads, width, threads);                                             \
    }

extern "C" {
EXPORT(float32, float)
EXPORT(bfloat16, BFloat16)
}
