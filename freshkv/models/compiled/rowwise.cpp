// What happens to each row between products: norm, rotary embedding, gate. float32 and bfloat16; everything is computed
// in float32 and rounded once. A row's result does not depend on its neighbours.
#include "numbers.h"

namespace {

constexpr int64_t SUMS = 16;                // partial ones of a row, so that the compiler can use vectors
constexpr int64_t WORTH_THREADS = 1 << 14;  // elements below which threads cost more than they save

template <typename Element>
void norm(const Element *rows, const Element *weight, float eps, Element *normed, int64_t count, int64_t width,
          int64_t threads) {
#pragma omp parallel for num_threads(threads) if (count * width > WORTH_THREADS)
    for (int64_t row = 0; row < count; row++) {
        const Element *from = rows + row * width;
        Element *to = normed + row * width;
        float partial[SUMS] = {}, squares = 0;
        int64_t whole = width / SUMS * SUMS;
        for (int64_t start = 0; start < whole; start += SUMS)
            for (int64_t lane = 0; lane < SUMS; lane++) {
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
