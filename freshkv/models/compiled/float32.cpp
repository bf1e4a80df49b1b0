// products[count, outputs] = rows[count, inner] x weight + bias, float32, for weights that are read once a product.
//
// A weight is laid out in panels of WIDE outputs: [panel][inner][WIDE]. While one panel is multiplied, the next one is
// fetched into the second-level cache, evenly, so that bringing weights and multiplying overlap. Every element of a
// product is summed in one order, whatever the number of rows: a row's product does not depend on its neighbours.
#include <cstdlib>
#include <omp.h>

#include "numbers.h"

namespace {

constexpr int64_t CACHE_LINE = 64;    // bytes
constexpr int64_t MOST_ROWS = 256;    // rows that go through a panel together; with ...
constexpr int64_t MOST_INNER = 512;  // ... these of the inner axis they stay in the second-level cache

// ROWS rows, laid out [inner][ROWS], times a panel. FETCHES: lines asked for an inner element.
template <int ROWS, int FETCHES>
void multiply_tile(const float *rows, int64_t inner, const float *weight, float *products, int64_t stride, bool add,
                   Ahead ahead) {
    Lanes sums[ROWS][2] = {};
    for (const float *end = rows + inner * ROWS; rows < end; rows += ROWS, weight += WIDE, ahead.next += ahead.pace) {
        if (FETCHES > 0) __builtin_prefetch(ahead.next, 0, 2);
        if (FETCHES > 1) __builtin_prefetch(ahead.next + CACHE_LINE, 0, 2);
        Lanes left = *(const Lanes *)weight, right = *(const Lanes *)(weight + LANES);
#pragma GCC unroll 14
        for (int row = 0; row < ROWS; row++) {
            sums[row][0] += rows[row] * left;
            sums[row][1] += rows[row] * right;
        }
    }
    for (int row = 0; row < ROWS; row++) {
        Lanes *to = (Lanes *)(products + row * stride), *beside = (Lanes *)(products + row * stride + LANES);
        *to = add ? *to + sums[row][0] : sums[row][0];
        *beside = add ? *beside + sums[row][1] : sums[row][1];
    }
}

typedef void (*MultiplyTile)(const float *, int64_t, const float *, float *, int64_t, bool, Ahead);

template <int FETCHES>
MultiplyTile tile_of(int64_t rows) {
    static const MultiplyTile tiles[HIGHEST + 1] = {
        nullptr,
        multiply_tile<1, FETCHES>,
        multiply_tile<2, FETCHES>,
        multiply_tile<3, FETCHES>,
        multiply_tile<4, FETCHES>,
        multiply_tile<5, FETCHES>,
        multiply_tile<6, FETCHES>,
#ifdef __AVX512F__
        multiply_tile<7, FETCHES>,
        multiply_tile<8, FETCHES>,
        multiply_tile<9, FETCHES>,
        multiply_tile<10, FETCHES>,
        multiply_tile<11, FETCHES>,
        multiply_tile<12, FETCHES>,
        multiply_tile<13, FETCHES>,
        multiply_tile<14, FETCHES>,
#endif
    };
    return tiles[rows];
}

struct Tiles {  // rows in tiles of nearly equal height
    int64_t count, tiles;
    explicit Tiles(int64_t count) : count(count), tiles((count + HIGHEST - 1) / HIGHEST) {}
    int64_t first(int64_t tile) const { return count * tile / tiles; }
    int64_t height(int64_t tile) const { return first(tile + 1) - first(tile); }
};

// [count, inner] to [tile][inner][row of the tile]
void lay_out(const float *rows, int64_t row_stride, int64_t inner, const Tiles &tiles, float *laid) {
    constexpr int64_t PIECE = CACHE_LINE / sizeof(float);
#pragma omp for collapse(2)
    for (int64_t tile = 0; tile < tiles.tiles; tile++)
        for (int64_t start = 0; start < inner; start += PIECE) {
            int64_t first = tiles.first(tile), height = tiles.height(tile);
            int64_t end = start + PIECE < inner ? start + PIECE : inner;
            for (int64_t row = 0; row < height; row++)
                for (int64_t k = start; k < end; k++)
                    laid[first * inner + k * height + row] = rows[(first + row) * row_stride + k];
        }
}

// all rows times one panel; the panel behind it is fetched unless it is not this thread's
void multiply_panel(const float *laid, const Tiles &tiles, int64_t inner, const float *weight, const float *bias,
                    float *products, int64_t stride, bool fetch) {
    for (int64_t row = 0; bias != nullptr && row < tiles.count; row++)
        for (int64_t lane = 0; lane < WIDE; lane++) products[row * stride + lane] = bias[lane];
    for (int64_t start = 0; start < inner; start += MOST_INNER) {
        int64_t deep = inner - start < MOST_INNER ? inner - start : MOST_INNER;
        const char *behind = (const char *)(weight + (start + deep) * WIDE);
        int64_t fetches = !fetch && start + deep == inner ? 0 : tiles.tiles == 1 ? 2 : 1;
        int64_t pace = WIDE * sizeof(float) / tiles.tiles;
        for (int64_t tile = 0; tile < tiles.tiles; tile++) {
            int64_t first = tiles.first(tile), height = tiles.height(tile);
            MultiplyTile multiply = fetches == 0   ? tile_of<0>(height)
                                    : fetches == 1 ? tile_of<1>(height)
                                                   : tile_of<2>(height);
            multiply(laid + first * inner + start * height, deep, weight + start * WIDE, products + first * stride,
                     stride, bias != nullptr || start > 0, Ahead{behind + tile * deep * pace, pace});
        }
    }
}

}  // namespace

extern "C" {

// 0 if this library can be used here.
int64_t prepare() { return 0; }

// Outputs of a panel.
int64_t panel_width() { return WIDE; }

// -1 where there is no memory, else 0. `outputs` is a multiple of panel_width(), and so the row stride of `products`.
int64_t multiply(const float *rows, int64_t row_stride, const float *weight, const float *bias, float *products,
                 int64_t count, int64_t inner, int64_t outputs, int64_t threads) {
    float *laid = (float *)aligned_alloc(CACHE_LINE, (count * inner * sizeof(float) / CACHE_LINE + 1) * CACHE_LINE);
    if (laid == nullptr) return -1;
#pragma omp parallel num_threads(threads)
    {
        int64_t all = omp_get_num_threads(), mine = omp_get_thread_num(), panels = outputs / WIDE;
        int64_t begin = panels * mine / all, end = panels * (mine + 1) / all;
        for (int64_t start = 0; start < count; start += MOST_ROWS)
            lay_out(rows + start * row_stride, row_stride, inner, Tiles(count - start < MOST_ROWS ? count - start : MOST_ROWS),
                    laid + start * inner);
        for (int64_t start = 0; start < count; start += MOST_ROWS) {
            Tiles tiles(count - start < MOST_ROWS ? count - start : MOST_ROWS);
            for (int64_t panel = begin; panel < end; panel++)
                multiply_panel(laid + start * inner, tiles, inner, weight + panel * inner * WIDE,
                               bias == nullptr ? nullptr : bias + panel * WIDE,
                               products + start * outputs + panel * WIDE, outputs, panel + 1 < end);
        }
    }
    free(laid);
    return 0;
}
}
