// Attention of few rows, packed sequence by sequence, to the keys of their sequences, and what each of them pays.
//
// Rows lie across the lanes of vectors: a panel holds WIDE rows, and scores are [key][WIDE]. So the softmax needs no
// sums across lanes, and keys and values are multiplied as they lie; what is multiplied next is fetched meanwhile.
// Everything is float32. A row's result does not depend on its neighbours; what it pays, summed over heads, can differ
// by rounding with the number of threads.
#include <cstdlib>
#include <omp.h>

#include "numbers.h"

namespace {

struct Ahead {         // what is fetched while a tile is computed
    const char *next;  // the first byte
    int64_t pace;      // bytes an inner element; a line that is asked for twice costs nothing
};

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

// A head's keys or values [seq, width] as float32, in `wide` if they are not that already, and how far rows are apart.
struct Wide {
    const float *rows;
    int64_t stride;
};
Wide as_float(const float *head, int64_t stride, int64_t, int64_t, float *) { return {head, stride}; }
Wide as_float(const BFloat16 *head, int64_t stride, int64_t seq, int64_t width, float *wide) {
    for (int64_t row = 0; row < seq; row++)
        for (int64_t k = 0; k < width; k++) wide[row * width + k] = widen(head[row * stride + k]);
    return {wide, width};
}

// e^(score - the row's largest) in place of scores [seq, WIDE]; `shares` becomes one over their sums
template <int VECTORS>
void exponentials(float *scores, int64_t seq, const uint8_t *visible, float *shares) {
    constexpr int64_t WIDE = VECTORS * LANES;
    float largest[WIDE], sums[WIDE] = {};
    for (float &each : largest) each = -INFINITY;
    for (int64_t key = 0; key < seq; key++) {
        float *row = scores + key * WIDE;
        if (visible != nullptr && !visible[key])
            for (int64_t lane = 0; lane < WIDE; lane++) row[lane] = -INFINITY;
        for (int64_t lane = 0; lane < WIDE; lane++) largest[lane] = row[lane] > largest[lane] ? row[lane] : largest[lane];
    }
    for (int64_t key = 0; key < seq; key++)
        for (int64_t lane = 0; lane < WIDE; lane++) {
            float power = exponential(scores[key * WIDE + lane] - largest[lane]);
            scores[key * WIDE + lane] = power;
            sums[lane] += power;
        }
    for (int64_t lane = 0; lane < WIDE; lane++) shares[lane] = 1.0f / sums[lane];
}

// How a tensor of heads lies; the elements of a head lie side by side. In elements.
struct Strides {
    int64_t head, batch, row;
};

template <typename Element>
struct Attention {
    const Element *queries, *keys, *values;
    Strides of_queries, of_keys, of_values;  // queries are packed: no stride of the batch
    const uint8_t *visible;                  // [batch, seq], or null: all
    const int64_t *counts;                   // rows of each sequence
    int64_t batch, heads, kv_heads, seq, width;
    Element *attended;  // [rows, heads, width]
    float *paid;        // [seq, rows], or null: nobody asks

    int64_t rows_before(int64_t sequence) const {
        int64_t sum = 0;
        for (int64_t before = 0; before < sequence; before++) sum += counts[before];
        return sum;
    }
    int64_t rows() const { return rows_before(batch); }
    // floats that a thread needs: one panel's and one head's; what it has summed of `paid`, except for the first thread
    int64_t floats() const { return (seq + 2 * width) * WIDE + 2 * seq * width + (paid == nullptr ? 0 : rows() * seq); }

    const Element *keys_of(int64_t task) const { return head_of(keys, of_keys, task); }
    const Element *values_of(int64_t task) const { return head_of(values, of_values, task); }
    const Element *head_of(const Element *all, Strides strides, int64_t task) const {
        int64_t kv_head = task % heads / (heads / kv_heads);
        return all + kv_head * strides.head + task / heads * strides.batch;
    }
    // the `panel`th of `panels` parts of what a head is made of
    Part part_of(const Element *head, Strides strides, int64_t panel, int64_t panels) const {
        int64_t bytes = seq * strides.row * sizeof(Element) / panels;
        return {(const char *)head + panel * bytes, bytes};
    }

    // `filled` rows of a head, at most WIDE, with room for `columns` [2 * width][WIDE] and `scores` [key][WIDE]
    template <int VECTORS>
    void attend_panel(Wide head_keys, Wide head_values, const uint8_t *seen, const Element *query, int64_t filled,
                      float *columns, float *scores, Element *to, float *sums, Part first, Part second) const {
        constexpr int64_t WIDE = VECTORS * LANES;
        float scale = 1.0f / std::sqrt((float)width), shares[WIDE], *gathered = columns + width * WIDE;
        for (int64_t lane = 0; lane < WIDE; lane++)
            for (int64_t k = 0; k < width; k++)
                columns[k * WIDE + lane] = lane < filled ? widen(query[lane * of_queries.row + k]) * scale : 0.0f;
        multiply<VECTORS, false>(head_keys.rows, head_keys.stride, seq, width, columns, scores, first);
        exponentials<VECTORS>(scores, seq, seen, shares);
        multiply<VECTORS, true>(head_values.rows, head_values.stride, width, seq, scores, gathered, second);
        for (int64_t lane = 0; lane < filled; lane++)
            for (int64_t k = 0; k < width; k++)
                narrow(gathered[k * WIDE + lane] * shares[lane], to[lane * heads * width + k]);
        if (sums == nullptr) return;
        int64_t stride = rows();
        for (float &share : shares) share /= heads;
        for (int64_t key = 0; key < seq; key++)
            for (int64_t lane = 0; lane < filled; lane++)
                sums[key * stride + lane] += scores[key * WIDE + lane] * shares[lane];
    }

    // one head of one sequence, while the heads of `next` are fetched
    void attend_head(int64_t task, int64_t next, float *memory, float *sums) const {
        int64_t sequence = task / heads, head = task % heads, count = counts[sequence];
        float *scores = memory, *columns = scores + seq * WIDE, *wide = columns + 2 * width * WIDE;
        Wide head_keys = as_float(keys_of(task), of_keys.row, seq, width, wide);
        Wide head_values = as_float(values_of(task), of_values.row, seq, width, wide + seq * width);
        bool read = head_values.rows == wide + seq * width;  // the values have been read; else their turn comes
        const uint8_t *seen = visible == nullptr ? nullptr : visible + sequence * seq;
        int64_t panels = (count + WIDE - 1) / WIDE;
        for (int64_t panel = 0; panel < panels; panel++) {
            int64_t start = panel * WIDE, row = rows_before(sequence) + start;
            Part next_values = part_of(values_of(read ? next : task), of_values, panel, panels);
            int64_t filled = count - start < WIDE ? count - start : WIDE;
            auto attend = filled > LANES ? &Attention::attend_panel<2> : &Attention::attend_panel<1>;
            (this->*attend)(head_keys, head_values, seen, queries + row * of_queries.row + head * of_queries.head,
                            filled, columns, scores, attended + (row * heads + head) * width,
                            sums == nullptr ? nullptr : sums + row, next_values,
                            part_of(keys_of(next), of_keys, panel, panels));
        }
    }

    int64_t run(int64_t threads) const {
        float *memory = (float *)aligned_alloc(64, (threads * floats() * sizeof(float) / 64 + 1) * 64);
        if (memory == nullptr) return -1;
        int64_t paying = paid == nullptr ? 0 : rows() * seq;
#pragma omp parallel num_threads(threads)
        {
            int64_t all = omp_get_num_threads(), mine = omp_get_thread_num(), tasks = batch * heads;
            float *own = memory + mine * floats(), *sums = paid;
            if (paid != nullptr && mine > 0) sums = own + floats() - paying;
            if (paid != nullptr) memset(sums, 0, paying * sizeof(float));
            int64_t end = tasks * (mine + 1) / all;
            for (int64_t task = tasks * mine / all; task < end; task++)
                attend_head(task, task + 1 < end ? task + 1 : task, own, sums);
#pragma omp barrier
#pragma omp for
            for (int64_t place = 0; place < paying; place++)
                for (int64_t thread = 1; thread < all; thread++)
                    paid[place] += memory[(thread + 1) * floats() - paying + place];
        }
        free(memory);
        return 0;
    }
};

}  // namespace

// -1 where there is no memory, else 0. `strides` are those of queries (head, row), keys and values (head, batch, row).
#define EXPORT(NAME, ELEMENT)                                                                                          \
    int64_t attend_##NAME(const ELEMENT *queries, const ELEMENT *keys, const ELEMENT *values, const int64_t *strides,  \
                          const uint8_t *visible, const int64_t *counts, int64_t batch, int64_t heads,                 \
                          int64_t kv_heads, int64_t seq, int64_t width, ELEMENT *attended, float *paid,                \
                          int64_t threads) {                                                                           \
        Strides of_queries{strides[0], 0, strides[1]}, of_keys{strides[2], strides[3], strides[4]},                    \
            of_values{strides[5], strides[6], strides[7]};                                                             \
        return Attention<ELEMENT>{queries, keys,  values,   of_queries, of_keys, of_values, visible, counts,           \
                                  batch,   heads, kv_heads, seq,        width,   attended,  paid}                      \
            .run(threads);                                                                                             \
    }

extern "C" {
EXPORT(float32, float)
EXPORT(bfloat16, BFloat16)
}
