// The keys and values of a head, and what rows make of them: scores, powers, sums.
//
// Rows lie across the lanes of vectors: a panel holds WIDE rows, and scores are [key][WIDE]. So the softmax needs no
// sums across lanes, and keys and values are multiplied as they lie; what is multiplied next is fetched meanwhile.
// Everything is float32. A row's result does not depend on its neighbours.
#pragma once
#include <cstdlib>

#include "numbers.h"
#include "tiles.h"
#include "turn.h"

namespace {

// sums[ROWS][WIDE] of elements[ROWS, inner] x columns[inner, WIDE], WIDE being VECTORS of lanes. Along the inner axis
// elements lie side by side, or, ACROSS, `stride` apart, and those of the ROWS the other way round.
template <int VECTORS, bool ACROSS, int ROWS>
void multiply_tile(const float *elements, int64_t stride, int64_t inner, const float *columns, float *products,
                   Ahead ahead) {
    constexpr int64_t WIDE = VECTORS * LANES;
    Lanes sums[ROWS][VECTORS] = {};
    for (int64_t k = 0; k < inner; k++, columns += WIDE, ahead.next += ahead.pace) {
        __builtin_prefetch(ahead.next, 0, 2);
        Lanes left = *(const Lanes *)columns, right = *(const Lanes *)(columns + WIDE - LANES);
#pragma GCC unroll 14
        for (int row = 0; row < ROWS; row++) {
            float element = ACROSS ? elements[k * stride + row] : elements[row * stride + k];
            sums[row][0] += element * left;
            if (VECTORS > 1) sums[row][VECTORS - 1] += element * right;
        }
    }
    for (int row = 0; row < ROWS; row++)
        for (int part = 0; part < VECTORS; part++) *(Lanes *)(products + row * WIDE + part * LANES) = sums[row][part];
}

typedef void (*MultiplyTile)(const float *, int64_t, int64_t, const float *, float *, Ahead);

template <int VECTORS, bool ACROSS>
MultiplyTile tile_of(int64_t rows) {
    static const MultiplyTile tiles[HIGHEST + 1] = {
        nullptr,
        multiply_tile<VECTORS, ACROSS, 1>,
        multiply_tile<VECTORS, ACROSS, 2>,
        multiply_tile<VECTORS, ACROSS, 3>,
        multiply_tile<VECTORS, ACROSS, 4>,
        multiply_tile<VECTORS, ACROSS, 5>,
        multiply_tile<VECTORS, ACROSS, 6>,
#ifdef __AVX512F__
        multiply_tile<VECTORS, ACROSS, 7>,
        multiply_tile<VECTORS, ACROSS, 8>,
        multiply_tile<VECTORS, ACROSS, 9>,
        multiply_tile<VECTORS, ACROSS, 10>,
        multiply_tile<VECTORS, ACROSS, 11>,
        multiply_tile<VECTORS, ACROSS, 12>,
        multiply_tile<VECTORS, ACROSS, 13>,
        multiply_tile<VECTORS, ACROSS, 14>,
#endif
    };
    return tiles[rows];
}

// A part of the bytes that are needed next.
struct Part {
    const char *first;
    int64_t bytes;
};

// [count, WIDE] products in tiles of nearly equal height, while `next` is fetched
template <int VECTORS, bool ACROSS>
void multiply(const float *elements, int64_t stride, int64_t count, int64_t inner, const float *columns, float *products,
              Part next) {
    int64_t tiles = (count + HIGHEST - 1) / HIGHEST, pace = (next.bytes + tiles * inner - 1) / (tiles * inner);
    for (int64_t tile = 0; tile < tiles; tile++) {
        int64_t first = count * tile / tiles, height = count * (tile + 1) / tiles - first;
        const float *from = elements + (ACROSS ? first : first * stride);
        Ahead ahead{next.first + tile * inner * pace, pace};
        tile_of<VECTORS, ACROSS>(height)(from, stride, inner, columns, products + first * VECTORS * LANES, ahead);
    }
}

// `count` rows of `width` elements, `stride` apart, times `scale`, to columns [width][WIDE]; lanes without a row are 0
template <int VECTORS, typename Element>
void to_columns(const Element *rows, int64_t stride, int64_t count, int64_t width, float scale, float *columns) {
    constexpr int64_t WIDE = VECTORS * LANES;
    float square[LANES * LANES], turned[LANES * LANES];
    for (int64_t start = 0; start < width; start += LANES)
        for (int64_t part = 0; part < WIDE; part += LANES) {
            int64_t deep = width - start < LANES ? width - start : LANES;
            for (int64_t lane = 0; lane < LANES; lane++)
                for (int64_t k = 0; k < LANES; k++)
                    square[lane * LANES + k] =
                        part + lane < count && k < deep ? widen(rows[(part + lane) * stride + start + k]) * scale : 0.0f;
            turn(square, LANES, turned, LANES);
            for (int64_t k = 0; k < deep; k++)
                memcpy(columns + (start + k) * WIDE + part, turned + k * LANES, LANES * sizeof(float));
        }
}

// The other way round: columns [width][WIDE], lane by lane times `shares`, to `count` rows.
template <int VECTORS, typename Element>
void to_rows(const float *columns, const float *shares, int64_t count, int64_t width, Element *rows, int64_t stride) {
    constexpr int64_t WIDE = VECTORS * LANES;
    float turned[LANES * LANES];
    for (int64_t start = 0; start < width; start += LANES)
        for (int64_t part = 0; part < count; part += LANES) {
            int64_t deep = width - start < LANES ? width - start : LANES;
            int64_t filled = count - part < LANES ? count - part : LANES;
            turn(columns + start * WIDE + part, WIDE, turned, LANES);
            for (int64_t lane = 0; lane < filled; lane++)
                for (int64_t k = 0; k < deep; k++)
                    narrow(turned[lane * LANES + k] * shares[part + lane], rows[(part + lane) * stride + start + k]);
        }
}

// A head's keys and values, multiplied in float32: [seq, width], widened into `memory` if they are narrower.
template <typename Element>
struct PlainHead {
    struct Scope {};
    static constexpr bool TAKES_VALUES = sizeof(Element) < sizeof(float);  // they have been read once a head is taken
    int64_t seq, width, keys_row = 0, values_row = 0;
    float *memory;  // floats(seq, width)
    const float *keys = nullptr, *values = nullptr;

    PlainHead(int64_t seq, int64_t width, float *memory) : seq(seq), width(width), memory(memory) {}
    static int64_t floats(int64_t seq, int64_t width) { return (TAKES_VALUES ? 2 * seq * width : 0) + width * WIDE; }
    float scale() const { return 1.0f; }  // that scores still need

    void take_keys(const float *all, int64_t stride) { keys = all, keys_row = stride; }
    void take_keys(const BFloat16 *all, int64_t stride) { take_keys(widened(all, stride, memory + width * WIDE), width); }
    void take_values(const float *all, int64_t stride) { values = all, values_row = stride; }
    void take_values(const BFloat16 *all, int64_t stride) {
        take_values(widened(all, stride, memory + width * WIDE + seq * width), width);
    }
    const float *widened(const BFloat16 *all, int64_t stride, float *wide) const {
        for (int64_t key = 0; key < seq; key++)
            for (int64_t k = 0; k < width; k++) wide[key * width + k] = widen(all[key * stride + k]);
        return wide;
    }
    // scores [key][VECTORS * LANES] of `filled` rows
    template <int VECTORS>
    void score(const Element *query, int64_t stride, int64_t filled, float *scores, Part next) {
        to_columns<VECTORS>(query, stride, filled, width, 1.0f / std::sqrt((float)width), memory);
        multiply<VECTORS, false>(keys, keys_row, seq, width, memory, scores, next);
    }
    // [width][VECTORS * LANES] sums of values, each times its power
    template <int VECTORS>
    void gather(const float *powers, float *gathered, Part next) {
        multiply<VECTORS, true>(values, values_row, width, seq, powers, gathered, next);
    }
};

#if TILES
// The same for bfloat16 by tiles: sums are float32, powers are rounded to meet the values. `width` is a multiple of DEEP.
struct TiledHead {
    using Scope = UseTiles;
    static constexpr bool TAKES_VALUES = true;  // keys are multiplied as they lie
    int64_t seq, width, blocks, keys_row = 0, pace = 0;  // blocks of DEEP keys
    uint16_t *queries, *last, *turned, *shares;
    const uint16_t *keys = nullptr;
    const char *fetched = nullptr;

    TiledHead(int64_t seq, int64_t width, float *memory) : seq(seq), width(width), blocks((seq + DEEP - 1) / DEEP) {
        queries = (uint16_t *)memory;        // [part of width][half of the rows][pair][row][2]
        last = queries + width * WIDE;       // [HIGH, width]: the keys of a tile that is not full
        turned = last + width * HIGH;        // [block][part of width][HIGH of width][DEEP keys]
        shares = turned + blocks * DEEP * width;  // [block][half of the rows][pair of keys][row][2]
    }
    static int64_t floats(int64_t seq, int64_t width) {
        int64_t padded = (seq + DEEP - 1) / DEEP * DEEP;
        return (width * WIDE + width * HIGH + padded * width + padded * WIDE) / 2;
    }
    float scale() const { return 1.0f / std::sqrt((float)width); }

    void take_keys(const uint16_t *all, int64_t stride) {
        keys = all, keys_row = stride;
        int64_t full = seq / HIGH * HIGH;
        memset(last, 0, width * HIGH * sizeof(uint16_t));
        for (int64_t key = full; key < seq; key++)
            memcpy(last + (key - full) * width, keys + key * keys_row, width * sizeof(uint16_t));
    }
    // [seq, width] to the other way round, tile by tile; keys that are none are 0
    void take_values(const uint16_t *values, int64_t value_stride) {
        for (int64_t key = 0; key < blocks * DEEP; key += HIGH)
            for (int64_t k = 0; k < width; k += DEEP) {
                __m512i pairs[HIGH];  // of each key DEEP / 2 pairs of elements, then of each pair HIGH keys
                for (int64_t row = 0; row < HIGH; row++)
                    pairs[row] = key + row < seq ? _mm512_loadu_si512(values + (key + row) * value_stride + k)
                                                 : _mm512_setzero_si512();
                turn(pairs);
                uint16_t *tile = turned + (key / DEEP * (width / HIGH) + k / HIGH) * TILE + key % DEEP;
                for (int64_t pair = 0; pair < HIGH; pair++) {
                    uint16_t *row = tile + pair * 2 / HIGH * TILE + pair * 2 % HIGH * DEEP;
                    _mm256_storeu_si256((__m256i *)row, _mm512_cvtepi32_epi16(pairs[pair]));
                    _mm256_storeu_si256((__m256i *)(row + DEEP), _mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs[pair], 16)));
                }
            }
    }

    template <int VECTORS>
    void score(const uint16_t *query, int64_t stride, int64_t filled, float *scores, Part next) {
        for (int64_t k = 0; k < width; k += DEEP)
            for (int64_t part = 0; part < VECTORS * LANES; part += LANES) {
                __m512i pairs[HIGH];  // of each row DEEP / 2 pairs of elements, then of each pair its rows
                for (int64_t row = 0; row < HIGH; row++)
                    pairs[row] = part + row < filled ? _mm512_loadu_si512(query + (part + row) * stride + k)
                                                     : _mm512_setzero_si512();
                turn(pairs);
                uint16_t *tile = queries + (k / DEEP * VECTORS + part / LANES) * TILE;
                for (int64_t pair = 0; pair < HIGH; pair++) _mm512_storeu_si512(tile + pair * DEEP, pairs[pair]);
            }
        everything_is_written();
        fetch_in(next, blocks * (width / DEEP));
        for (int64_t key = 0; key < blocks * DEEP; key += 2 * HIGH) {
            TiledRows upper{keys + key * keys_row, keys_row, DEEP}, lower{upper.first + HIGH * keys_row, keys_row, DEEP};
            if (key + HIGH > seq) upper = {last, width, DEEP};
            if (key + 2 * HIGH > seq) lower = {last, width, DEEP};
            multiply_tiles<VECTORS>(upper, lower, queries, width / DEEP, scores + key * VECTORS * LANES);
        }
    }

    template <int VECTORS>
    void gather(const float *powers, float *gathered, Part next) {
        __m512i interleaved = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                               6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        for (int64_t key = 0; key < blocks * DEEP; key += 2)
            for (int64_t half = 0; half < VECTORS; half++) {
                const float *from = powers + key * VECTORS * LANES + half * LANES;
                __m512 even = key < seq ? _mm512_loadu_ps(from) : _mm512_setzero_ps();
                __m512 odd = key + 1 < seq ? _mm512_loadu_ps(from + VECTORS * LANES) : _mm512_setzero_ps();
                __m512i both = _mm512_permutexvar_epi16(interleaved, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
                _mm512_storeu_si512(shares + (key / DEEP * VECTORS + half) * TILE + key % DEEP / 2 * DEEP, both);
            }
        everything_is_written();
        fetch_in(next, blocks * (width / DEEP));
        for (int64_t k = 0; k < width; k += 2 * HIGH) {
            TiledRows upper{turned + k / HIGH * TILE, DEEP, width / HIGH * TILE}, lower{upper.first + TILE, DEEP, upper.step};
            multiply_tiles<VECTORS>(upper, lower, shares, blocks, gathered + k * VECTORS * LANES);
        }
    }

    struct TiledRows {  // HIGH rows, a part of DEEP elements at a time; distances in elements
        const uint16_t *first;
        int64_t row, step;
    };

    // what is fetched from now on, in `steps` of multiply_tiles
    void fetch_in(Part next, int64_t steps) {
        fetched = next.first;
        pace = (next.bytes / steps / LINE + 1) * LINE;
    }

    // two tiles of rows times `columns` [step][half][pair][column][2], into `products` [2 * HIGH][VECTORS * LANES]
    template <int VECTORS>
    void multiply_tiles(TiledRows upper, TiledRows lower, const uint16_t *columns, int64_t steps, float *products) {
        constexpr int64_t STRIDE = VECTORS * LANES * sizeof(float);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t step = 0; step < steps; step++, columns += VECTORS * TILE, fetched += pace) {
            for (int64_t line = 0; line < pace; line += LINE) __builtin_prefetch(fetched + line, 0, 2);
            _tile_loadd(4, upper.first + step * upper.step, upper.row * sizeof(uint16_t));
            _tile_loadd(5, lower.first + step * lower.step, lower.row * sizeof(uint16_t));
            _tile_loadd(6, columns, LINE);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(2, 5, 6);
            if (VECTORS > 1) {
                _tile_loadd(7, columns + TILE, LINE);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(3, 5, 7);
            }
        }
        float *below = products + HIGH * VECTORS * LANES;
        _tile_stored(0, products, STRIDE);
        _tile_stored(2, below, STRIDE);
        if (VECTORS > 1) {
            _tile_stored(1, products + LANES, STRIDE);
            _tile_stored(3, below + LANES, STRIDE);
        }
    }
};
#endif

// What the softmax of a panel's rows knows of the keys so far.
struct Softmax {
    float largest[WIDE], sums[WIDE];  // of those of its lanes that are in use

    Softmax() {
        for (int64_t lane = 0; lane < WIDE; lane++) largest[lane] = -INFINITY, sums[lane] = 0.0f;
    }

    // e^(scale * (score - the row's largest so far)) in place of scores [count, lanes], lanes being VECTORS of them. What
    // came of the keys before is `shrunk` times as large now.
    template <int VECTORS>
    void take(float *scores, int64_t count, float scale, const uint8_t *visible, float *shrunk) {
        constexpr int64_t WIDE = VECTORS * LANES;
        float top[WIDE], total[WIDE] = {};
        memcpy(top, largest, sizeof top);
        for (int64_t key = 0; key < count; key++) {
            float *row = scores + key * WIDE;
            if (visible != nullptr && !visible[key])
                for (int64_t lane = 0; lane < WIDE; lane++) row[lane] = -INFINITY;
            for (int64_t lane = 0; lane < WIDE; lane++) top[lane] = row[lane] > top[lane] ? row[lane] : top[lane];
        }
        for (int64_t lane = 0; lane < WIDE; lane++) {
            float before = largest[lane];
            largest[lane] = top[lane];
            if (top[lane] == -INFINITY) top[lane] = 0.0f;  // nothing has been visible yet
            shrunk[lane] = exponential(scale * (before - top[lane]));
        }
        for (int64_t key = 0; key < count; key++)
            for (int64_t lane = 0; lane < WIDE; lane++) {
                float power = exponential_below(scale * (scores[key * WIDE + lane] - top[lane]));
                scores[key * WIDE + lane] = power;
                total[lane] += power;
            }
        for (int64_t lane = 0; lane < WIDE; lane++) sums[lane] = sums[lane] * shrunk[lane] + total[lane];
    }
};

}  // namespace
