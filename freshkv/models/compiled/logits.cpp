// Of each row of float32 logits: the largest one, where it is first, and the sum of e^(logit - largest). One pass over
// memory: a row is taken in pieces that stay in the first-level cache. A row's result does not depend on its neighbours.
#include "numbers.h"

namespace {

constexpr int64_t PIECE = 1024;  // logits
constexpr int64_t SUMS = 16;     // partial ones, so that the compiler can use vectors

float largest_of(const float *logits, int64_t count) {
    float partial[SUMS], largest = -INFINITY;
    for (float &each : partial) each = -INFINITY;
    int64_t whole = count / SUMS * SUMS;
    for (int64_t start = 0; start < whole; start += SUMS)
        for (int64_t lane = 0; lane < SUMS; lane++)
            partial[lane] = logits[start + lane] > partial[lane] ? logits[start + lane] : partial[lane];
    for (int64_t k = whole; k < count; k++) largest = logits[k] > largest ? logits[k] : largest;
    for (float each : partial) largest = each > largest ? each : largest;
    return largest;
}

// what is no number stays none: it is in the sum, whatever the largest
float sum_of(const float *logits, int64_t count, float largest) {
    float partial[SUMS] = {}, sum = 0;
    int64_t whole = count / SUMS * SUMS;
    for (int64_t start = 0; start < whole; start += SUMS)
        for (int64_t lane = 0; lane < SUMS; lane++) partial[lane] += exponential_below(logits[start + lane] - largest);
    for (int64_t k = whole; k < count; k++) sum += exponential_below(logits[k] - largest);
    for (float each : partial) sum += each;
    return sum;
}

}  // namespace

extern "C" void summarise(const float *logits, int64_t row_stride, int64_t count, int64_t vocabulary, float *largest,
                          int64_t *places, float *sums, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (count > 1)
    for (int64_t row = 0; row < count; row++) {
        const float *from = logits + row * row_stride;
        float most = -INFINITY;
        double sum = 0;
        int64_t piece_of_most = 0;
        for (int64_t start = 0; start < vocabulary; start += PIECE) {
            int64_t size = vocabulary - start < PIECE ? vocabulary - start : PIECE;
            float here = largest_of(from + start, size);
            if (here > most) {
                sum *= exponential(most - here);
                most = here;
                piece_of_most = start;
            }
            // nothing has a share as long as all there was is minus infinity
            sum += sum_of(from + start, size, most == -INFINITY ? 0.0f : most);
        }
        int64_t place = piece_of_most;
        while (place < vocabulary && from[place] != most) place++;
        largest[row] = most;
        places[row] = place < vocabulary ? place : 0;
        sums[row] = (float)sum;
    }
}
