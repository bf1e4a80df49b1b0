// products[count, outputs] = rows[count, inner] x weight + bias, bfloat16 by the tile unit of the processor (AMX).
//
// A weight is laid out in panels of WIDE outputs: [panel][inner / DEEP][half of the panel][pair of inner][output][2],
// the form in which the unit multiplies. While a part of a panel is multiplied, the part behind it is fetched into the
// second-level cache, evenly. Sums are float32, in the order of the inner axis, whatever the number of rows: a row's
// product does not depend on its neighbours.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "tiles.h"

#if TILES
#include <omp.h>

namespace {

constexpr int64_t HALF = 16, WIDE = 2 * HALF;    // outputs of a tile, of a panel
constexpr int64_t CACHE_LINE = 64;               // bytes
constexpr int64_t MOST_ROWS = 256;               // rows that go through a panel together
constexpr int64_t MOST_STEPS = 8;                // tiles along the inner axis whose weights stay in the first-level cache
constexpr int64_t FETCHES = 4;                   // places in a step where lines are asked for

struct Ahead {                 // what is fetched while tiles are multiplied
    const char *next, *end;
    int64_t lines;             // at a time
    void fetch() {
        for (int64_t line = 0; line < lines && next < end; line++, next += CACHE_LINE) __builtin_prefetch(next, 0, 2);
    }
};

// One or two tiles of rows (the second `apart` elements behind the first) times a part of a panel, into `sums`.
template <bool TWO>
void multiply_tiles(const uint16_t *rows, int64_t apart, int64_t steps, const uint16_t *weight, Ahead ahead, float *sums,
                    bool add) {
    constexpr int64_t STRIDE = WIDE * sizeof(float);
    float *below = sums + HIGH * WIDE;
    everything_is_written();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (add) {
        _tile_loadd(0, sums, STRIDE);
        _tile_loadd(1, sums + HALF, STRIDE);
    }
    if (add && TWO) {
        _tile_loadd(2, below, STRIDE);
        _tile_loadd(3, below + HALF, STRIDE);
    }
    for (int64_t step = 0; step < steps; step++, rows += TILE, weight += 2 * TILE) {
        _tile_loadd(4, rows, CACHE_LINE);
        ahead.fetch();
        _tile_loadd(6, weight, CACHE_LINE);
        ahead.fetch();
        _tile_loadd(7, weight + TILE, CACHE_LINE);
        ahead.fetch();
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (TWO) {
            _tile_loadd(5, rows + apart, CACHE_LINE);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        ahead.fetch();
    }
    _tile_stored(0, sums, STRIDE);
    _tile_stored(1, sums + HALF, STRIDE);
    if (TWO) {
        _tile_stored(2, below, STRIDE);
        _tile_stored(3, below + HALF, STRIDE);
    }
}

// [count, inner] to [tile of rows][inner / DEEP][row of the tile][DEEP], zeros where there is nothing
void lay_out(const uint16_t *rows, int64_t row_stride, int64_t count, int64_t inner, uint16_t *laid) {
    int64_t tiles = (count + HIGH - 1) / HIGH, steps = (inner + DEEP - 1) / DEEP;
#pragma omp for collapse(2)
    for (int64_t tile = 0; tile < tiles; tile++)
        for (int64_t step = 0; step < steps; step++) {
            uint16_t *to = laid + (tile * steps + step) * TILE;
            int64_t deep = inner - step * DEEP < DEEP ? inner - step * DEEP : DEEP;
            for (int64_t row = tile * HIGH; row < (tile + 1) * HIGH; row++, to += DEEP) {
                if (row >= count || deep < DEEP) memset(to, 0, CACHE_LINE);
                if (row < count) memcpy(to, rows + row * row_stride + step * DEEP, deep * sizeof(uint16_t));
            }
        }
}

// up to MOST_ROWS rows, laid out, times one panel, into `sums` [rows, WIDE]
void multiply_panel(const uint16_t *laid, int64_t tiles, int64_t steps, const uint16_t *weight, float *sums, bool fetch) {
    int64_t pairs = (tiles + 1) / 2;
    for (int64_t start = 0; start < steps; start += MOST_STEPS) {
        int64_t deep = steps - start < MOST_STEPS ? steps - start : MOST_STEPS;
        const char *behind = (const char *)(weight + (start + deep) * 2 * TILE);
        int64_t lines = !fetch && start + deep == steps ? 0 : deep * 2 * TILE * sizeof(uint16_t) / CACHE_LINE;
        for (int64_t pair = 0; pair < pairs; pair++) {
            int64_t from = lines * pair / pairs, to = lines * (pair + 1) / pairs;
            Ahead ahead{behind + from * CACHE_LINE, behind + to * CACHE_LINE, (to - from) / (deep * FETCHES) + 1};
            const uint16_t *rows = laid + (2 * pair * steps + start) * TILE;
            auto multiply = 2 * pair + 1 < tiles ? multiply_tiles<true> : multiply_tiles<false>;
            multiply(rows, steps * TILE, deep, weight + start * 2 * TILE, ahead, sums + 2 * pair * HIGH * WIDE, start > 0);
        }
    }
}

// rounded once, to the nearest
void round_rows(const float *sums, int64_t count, const float *bias, uint16_t *products, int64_t stride) {
    __m512 left = _mm512_setzero_ps(), right = left;
    if (bias != nullptr) left = _mm512_loadu_ps(bias), right = _mm512_loadu_ps(bias + HALF);
    for (int64_t row = 0; row < count; row++, sums += WIDE, products += stride) {
        __m512 first = _mm512_add_ps(_mm512_load_ps(sums), left);
        __m512 second = _mm512_add_ps(_mm512_load_ps(sums + HALF), right);
        _mm512_storeu_si512(products, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
}

}  // namespace

extern "C" {

// 0 if this library can be used here: the operating system has to grant the tile unit.
int64_t prepare() { return ask_for_tiles(); }

// Outputs of a panel.
int64_t panel_width() { return WIDE; }

// -1 where there is no memory, else 0. `outputs` is a multiple of panel_width(), and so the row stride of `products`.
int64_t multiply(const uint16_t *rows, int64_t row_stride, const uint16_t *weight, const float *bias,
                 uint16_t *products, int64_t count, int64_t inner, int64_t outputs, int64_t threads) {
    int64_t steps = (inner + DEEP - 1) / DEEP, tiles = (count + HIGH - 1) / HIGH;
    uint16_t *laid = (uint16_t *)aligned_alloc(CACHE_LINE, tiles * steps * TILE * sizeof(uint16_t));
    if (laid == nullptr) return -1;
#pragma omp parallel num_threads(threads)
    {
        UseTiles tiles_in_use;
        alignas(CACHE_LINE) float sums[MOST_ROWS * WIDE];
        int64_t all = omp_get_num_threads(), mine = omp_get_thread_num(), panels = outputs / WIDE;
        int64_t begin = panels * mine / all, end = panels * (mine + 1) / all;
        lay_out(rows, row_stride, count, inner, laid);
        for (int64_t start = 0; start < count; start += MOST_ROWS) {
            int64_t some = count - start < MOST_ROWS ? count - start : MOST_ROWS;
            for (int64_t panel = begin; panel < end; panel++) {
                multiply_panel(laid + start * steps * DEEP, (some + HIGH - 1) / HIGH, steps,
                               weight + panel * steps * 2 * TILE, sums, panel + 1 < end);
                round_rows(sums, some, bias == nullptr ? nullptr : bias + panel * WIDE,
                           products + start * outputs + panel * WIDE, outputs);
            }
        }
    }
    free(laid);
    return 0;
}
}
#else
extern "C" {
int64_t prepare() { return -1; }
int64_t panel_width() { return 0; }
int64_t multiply(const uint16_t *, int64_t, const uint16_t *, const float *, uint16_t *, int64_t, int64_t, int64_t,
                 int64_t) {
    return -1;
}
}
#endif
