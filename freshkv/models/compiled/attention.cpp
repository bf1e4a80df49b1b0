// Attention of few rows, packed sequence by sequence, to the keys of their sequences, and what each of them pays; and
// what keys receive from many rows. Sums over heads can differ by rounding with the number of threads.
#include <omp.h>

#include "heads.h"

namespace {

// How a tensor of heads lies; the elements of a head lie side by side. In elements.
struct Strides {
    int64_t head, batch, row;
};

// Rows of sequences, packed, and the keys of those sequences.
template <typename Element>
struct Rows {
    const Element *queries, *keys;
    Strides of_queries, of_keys;  // queries are packed: no stride of the batch
    const uint8_t *visible;       // [batch, seq], or null: all
    const int64_t *counts;        // rows of each sequence
    int64_t batch, heads, kv_heads, seq, width;

    int64_t rows_before(int64_t sequence) const {
        int64_t sum = 0;
        for (int64_t before = 0; before < sequence; before++) sum += counts[before];
        return sum;
    }
    int64_t rows() const { return rows_before(batch); }
    int64_t padded() const { return (seq + 31) / 32 * 32; }                // scores are written in tiles
    int64_t whole() const { return (width + LANES - 1) / LANES * LANES; }  // what is gathered is read in squares
    static int64_t panels_of(int64_t count) { return (count + WIDE - 1) / WIDE; }
    // of `count` rows those of the panel that begins with the row `start`, and the lanes that they take
    static int64_t filled_from(int64_t start, int64_t count) { return count - start < WIDE ? count - start : WIDE; }
    static int64_t lanes_of(int64_t filled) { return filled > LANES ? WIDE : LANES; }

    // of the heads of all sequences, the one of `task`
    const Element *head_of(const Element *all, Strides strides, int64_t task) const {
        int64_t kv_head = task % heads / (heads / kv_heads);
        return all + kv_head * strides.head + task / heads * strides.batch;
    }
    const Element *keys_of(int64_t task) const { return head_of(keys, of_keys, task); }
    const Element *query_of(int64_t row, int64_t head) const {
        return queries + row * of_queries.row + head * of_queries.head;
    }
    const uint8_t *visible_to(int64_t sequence) const { return visible == nullptr ? nullptr : visible + sequence * seq; }
};

template <typename Element, typename Head>
struct Attention : Rows<Element> {
    using Rows<Element>::of_keys, Rows<Element>::of_queries, Rows<Element>::counts, Rows<Element>::batch;
    using Rows<Element>::heads, Rows<Element>::seq, Rows<Element>::width, Rows<Element>::rows, Rows<Element>::padded;
    using Rows<Element>::rows_before, Rows<Element>::panels_of, Rows<Element>::head_of, Rows<Element>::keys_of;
    using Rows<Element>::whole, Rows<Element>::filled_from, Rows<Element>::lanes_of;

    const Element *values;
    Strides of_values;
    Element *attended;  // [rows, heads, width]
    float *paid;        // [seq, rows], or null: nobody asks

    const Element *values_of(int64_t task) const { return head_of(values, of_values, task); }

    // floats that a thread needs, in whole cache lines: one panel's and one head's ...
    int64_t floats_of_head() const { return ((padded() + whole()) * WIDE + Head::floats(seq, width) + 15) / 16 * 16; }
    // ... and what rows pay on the thread's heads, panel by panel, [key][lane]
    int64_t floats() const { return floats_of_head() + (paid == nullptr ? 0 : lanes_before(batch) * seq); }
    int64_t lanes_before(int64_t sequence) const {
        int64_t sum = 0;
        for (int64_t before = 0; before < sequence; before++)
            for (int64_t start = 0; start < counts[before]; start += WIDE)
                sum += lanes_of(filled_from(start, counts[before]));
        return sum;
    }

    // the `panel`th of `panels` parts of what a head is made of
    Part part_of(const Element *head, Strides strides, int64_t panel, int64_t panels) const {
        int64_t bytes = seq * strides.row * sizeof(Element) / panels;
        return {(const char *)head + panel * bytes, bytes};
    }

    // `filled` rows of a head, at most VECTORS * LANES; `scores` has room for [key][WIDE] and for what is gathered. What
    // they pay comes to `sums`, [key][VECTORS * LANES], or, `fresh`, is the first that does; null: nobody asks.
    template <int VECTORS>
    void attend_panel(Head &kept, const uint8_t *seen, const Element *query, int64_t filled, float *scores, Element *to,
                      float *sums, bool fresh, Part first, Part second) const {
        constexpr int64_t WIDE = VECTORS * LANES;
        float shares[WIDE], *gathered = scores + padded() * WIDE;
        kept.template score<VECTORS>(query, of_queries.row, filled, scores, first);
        exponentials<VECTORS>(scores, seq, kept.scale(), seen, shares);
        kept.template gather<VECTORS>(scores, gathered, second);
        to_rows<VECTORS>(gathered, shares, filled, width, to, heads * width);
        if (sums == nullptr) return;
        for (float &share : shares) share /= heads;
        for (int64_t key = 0; key < seq; key++)
            for (int64_t lane = 0; lane < WIDE; lane++) {
                float share = scores[key * WIDE + lane] * shares[lane], &sum = sums[key * WIDE + lane];
                sum = fresh ? share : sum + share;
            }
    }

    // one head of one sequence, while the heads of `next` are fetched; `fresh`: the thread had none of it before
    void attend_head(int64_t task, int64_t next, float *memory, bool fresh) const {
        int64_t sequence = task / heads, head = task % heads, count = counts[sequence];
        Head kept(seq, width, memory + (padded() + whole()) * WIDE);
        kept.take_keys(keys_of(task), of_keys.row);
        kept.take_values(values_of(task), of_values.row);
        const uint8_t *seen = this->visible_to(sequence);
        float *sums = paid == nullptr ? nullptr : memory + floats_of_head() + lanes_before(sequence) * seq;
        for (int64_t start = 0, panels = panels_of(count); start < count; start += WIDE) {
            int64_t panel = start / WIDE, row = rows_before(sequence) + start, filled = filled_from(start, count);
            Part next_values = part_of(values_of(Head::TAKES_VALUES ? next : task), of_values, panel, panels);
            Part next_keys = part_of(keys_of(next), of_keys, panel, panels);
            auto attend = filled > LANES ? &Attention::attend_panel<2> : &Attention::attend_panel<1>;
            (this->*attend)(kept, seen, this->query_of(row, head), filled, memory,
                            attended + (row * heads + head) * width, sums, fresh, next_values, next_keys);
            if (paid != nullptr) sums += lanes_of(filled) * seq;
        }
    }

    // what all rows pay for `key`, of all threads that had a head of their sequence; each has so many `floats`
    void add_up(int64_t key, const float *memory, int64_t floats, int64_t threads, float *to) const {
        int64_t tasks = batch * heads, lanes = 0;
        const float *first = memory + floats_of_head();
        for (int64_t sequence = 0; sequence < batch; sequence++)
            for (int64_t start = 0; start < counts[sequence]; start += WIDE) {
                int64_t filled = filled_from(start, counts[sequence]), wide = lanes_of(filled);
                memset(to, 0, filled * sizeof(float));
                for (int64_t thread = 0; thread < threads; thread++) {
                    int64_t begin = tasks * thread / threads, end = tasks * (thread + 1) / threads;
                    if (begin == end || begin >= (sequence + 1) * heads || end <= sequence * heads) continue;
                    const float *sums = first + thread * floats + lanes * seq + key * wide;
                    for (int64_t lane = 0; lane < filled; lane++) to[lane] += sums[lane];
                }
                to += filled;
                lanes += wide;
            }
    }

    int64_t run(int64_t threads) const {
        int64_t each = floats(), all_rows = rows();
        float *memory = (float *)aligned_alloc(64, (threads * each * sizeof(float) / 64 + 1) * 64);
        if (memory == nullptr) return -1;
#pragma omp parallel num_threads(threads)
        {
            int64_t all = omp_get_num_threads(), mine = omp_get_thread_num(), tasks = batch * heads;
            int64_t begin = tasks * mine / all, end = tasks * (mine + 1) / all;
            {
                [[maybe_unused]] typename Head::Scope scope;
                for (int64_t task = begin; task < end; task++)
                    attend_head(task, task + 1 < end ? task + 1 : task, memory + mine * each,
                                task == begin || task % heads == 0);
            }
#pragma omp barrier
#pragma omp for
            for (int64_t key = 0; key < (paid == nullptr ? 0 : seq); key++)
                add_up(key, memory, each, all, paid + key * all_rows);
        }
        free(memory);
        return 0;
    }
};

// What each key receives: the sum over rows of `weights` times what the row pays on average of its heads.
template <typename Element, typename Head>
struct Received : Rows<Element> {
    using Rows<Element>::of_queries, Rows<Element>::of_keys, Rows<Element>::counts, Rows<Element>::batch;
    using Rows<Element>::heads, Rows<Element>::seq, Rows<Element>::width, Rows<Element>::padded;
    using Rows<Element>::rows_before, Rows<Element>::panels_of;

    const float *weights;  // [rows]
    float *received;       // [batch, seq]

    int64_t sums() const { return seq * LANES; }  // floats of one sequence: [key][lane]
    int64_t floats() const { return (padded() * WIDE + Head::floats(seq, width) + 15) / 16 * 16 + sums(); }

    // `filled` rows of a head, at most VECTORS * LANES
    template <int VECTORS>
    void receive_panel(Head &kept, const uint8_t *seen, const Element *query, int64_t filled, const float *weight,
                       float *scores, float *sums) const {
        constexpr int64_t WIDE = VECTORS * LANES;
        float shares[WIDE];
        kept.template score<VECTORS>(query, of_queries.row, filled, scores, Part{(const char *)query, 0});
        exponentials<VECTORS>(scores, seq, kept.scale(), seen, shares);
        // lanes without a row hold anything, and no number times 0 is none either
        for (int64_t key = 0; key < seq; key++)
            for (int64_t lane = filled; lane < WIDE; lane++) scores[key * WIDE + lane] = 0.0f;
        for (int64_t lane = 0; lane < WIDE; lane++)
            shares[lane] = lane < filled ? shares[lane] * weight[lane] / heads : 0.0f;
        for (int64_t key = 0; key < seq; key++)
            for (int64_t half = 0; half < VECTORS; half++)
                for (int64_t lane = 0; lane < LANES; lane++)
                    sums[key * LANES + lane] += scores[key * WIDE + half * LANES + lane] * shares[half * LANES + lane];
    }

    // of a sequence the panels from `begin` to `end`, counted head by head
    void receive(int64_t sequence, int64_t begin, int64_t end, float *memory, float *sums) const {
        int64_t count = counts[sequence], panels = panels_of(count);
        for (int64_t head = 0; head < heads; head++) {
            int64_t first = head * panels, from = first < begin ? begin : first, to = first + panels < end ? first + panels : end;
            if (from >= to) continue;
            Head kept(seq, width, memory + padded() * WIDE);
            kept.take_keys(this->keys_of(sequence * heads + head), of_keys.row);
            for (int64_t panel = from; panel < to; panel++) {
                int64_t start = (panel - first) * WIDE, row = rows_before(sequence) + start;
                int64_t filled = count - start < WIDE ? count - start : WIDE;
                auto receive = filled > LANES ? &Received::receive_panel<2> : &Received::receive_panel<1>;
                (this->*receive)(kept, this->visible_to(sequence), this->query_of(row, head), filled, weights + row,
                                 memory, sums);
            }
        }
    }

    // One sequence after the other, whose panels the threads divide: a sequence does not depend on its batch.
    int64_t run(int64_t threads) const {
        float *memory = (float *)aligned_alloc(64, (threads * floats() * sizeof(float) / 64 + 1) * 64);
        if (memory == nullptr) return -1;
#pragma omp parallel num_threads(threads)
        {
            int64_t all = omp_get_num_threads(), mine = omp_get_thread_num();
            float *own = memory + mine * floats(), *own_sums = own + floats() - sums();
            [[maybe_unused]] typename Head::Scope scope;
            for (int64_t sequence = 0; sequence < batch; sequence++) {
                int64_t panels = heads * panels_of(counts[sequence]);
                memset(own_sums, 0, sums() * sizeof(float));
                receive(sequence, panels * mine / all, panels * (mine + 1) / all, own, own_sums);
#pragma omp barrier
#pragma omp for
                for (int64_t key = 0; key < seq; key++) {
                    float total = 0.0f;
                    for (int64_t thread = 0; thread < all; thread++)
                        for (int64_t lane = 0; lane < LANES; lane++)
                            total += memory[(thread + 1) * floats() - sums() + key * LANES + lane];
                    received[sequence * seq + key] = total;
                }
            }
        }
        free(memory);
        return 0;
    }
};

bool tiles_granted = false;

}  // namespace

// -1 where there is no memory, else 0. `strides` are those of queries (head, row), keys and values (head, batch, row).
#define ROWS(ELEMENT)                                                                                                \
    const ELEMENT *queries, const ELEMENT *keys, const int64_t *strides, const uint8_t *visible,                     \
        const int64_t *counts, int64_t batch, int64_t heads, int64_t kv_heads, int64_t seq, int64_t width
#define ATTENTION(ELEMENT, HEAD)                                                                                     \
    Attention<ELEMENT, HEAD> {                                                                                       \
        GIVEN(ELEMENT), values, Strides{strides[5], strides[6], strides[7]}, attended, paid                          \
    }
#define RECEIVED(ELEMENT, HEAD)                                                                                      \
    Received<ELEMENT, HEAD> { GIVEN(ELEMENT), weights, received }
#define GIVEN(ELEMENT)                                                                                               \
    Rows<ELEMENT> {                                                                                                  \
        queries, keys, Strides{strides[0], 0, strides[1]}, Strides{strides[2], strides[3], strides[4]}, visible,     \
            counts, batch, heads, kv_heads, seq, width                                                               \
    }

extern "C" {

// Once a process, before the others.
void prepare() {
#if TILES
    tiles_granted = ask_for_tiles() == 0;
#endif
}

int64_t attend_float32(ROWS(float), const float *values, float *attended, float *paid, int64_t threads) {
    return ATTENTION(float, PlainHead<float>).run(threads);
}

int64_t attend_bfloat16(ROWS(BFloat16), const BFloat16 *values, BFloat16 *attended, float *paid, int64_t threads) {
#if TILES
    if (tiles_granted && width % DEEP == 0) return ATTENTION(BFloat16, TiledHead).run(threads);
#endif
    return ATTENTION(BFloat16, PlainHead<BFloat16>).run(threads);
}

int64_t receive_float32(ROWS(float), const float *weights, float *received, int64_t threads) {
    return RECEIVED(float, PlainHead<float>).run(threads);
}

int64_t receive_bfloat16(ROWS(BFloat16), const float *weights, float *received, int64_t threads) {
#if TILES
    if (tiles_granted && width % DEEP == 0) return RECEIVED(BFloat16, TiledHead).run(threads);
#endif
    return RECEIVED(BFloat16, PlainHead<BFloat16>).run(threads);
}
}
