// Attention of few rows, packed sequence by sequence, to the keys of their sequences, and what each of them pays; and
// what keys receive from many rows. Sums over heads can differ by rounding with the number of threads.
#include <omp.h>

#include "heads.h"
#include "rows.h"

namespace {

template <typename Element, typename Head>
struct Attention : Rows<Element> {
    using Rows<Element>::of_keys, Rows<Element>::of_queries, Rows<Element>::counts, Rows<Element>::batch;
    using Rows<Element>::heads, Rows<Element>::seq, Rows<Element>::width, Rows<Element>::rows, Rows<Element>::padded;
    using Rows<Element>::rows_before, Rows<Element>::panels_of, Rows<Element>::head_of, Rows<Element>::keys_of;
    using Rows<Element>::whole, Rows<Element>::filled_from, Rows<Element>::lanes_of, Rows<Element>::visible;

    const Element *values;
    Strides of_values;
    Element *attended;  // [rows, heads, width]
    float *paid;        // [seq, rows], or null: nobody asks

    const Element *values_of(int64_t task) const { return head_of(values, of_values, task); }

    // Keys of a head that are taken together, with all rows: they stay in the second-level cache, while those that come
    // next are fetched. They are all there are, or some of about as many each.
    int64_t stretch() const {
        int64_t most = (1 << 18) / (width * sizeof(Element)), stretches = (seq + most - 1) / most;
        return padded((seq + stretches - 1) / stretches);
    }
    int64_t stretches() const { return (seq + stretch() - 1) / stretch(); }
    bool keeps() const { return paid != nullptr && stretches() > 1; }  // powers, until the softmax is known

    struct Panel {  // of a head's rows; float32
        Softmax *softmax;
        float *gathered;  // [whole()][lanes]
        float *powers;    // [seq][lanes], and ...
        float *largest;   // [stretch][WIDE], the largest score when they were taken; both only if they are kept
    };
    int64_t floats_of_panel() const {
        return (2 + whole()) * WIDE + (keeps() ? padded(seq) + stretches() : 0) * WIDE;
    }
    Panel panel_at(float *memory, int64_t panel) const {
        float *own = memory + panel * floats_of_panel(), *powers = own + (2 + whole()) * WIDE;
        return {(Softmax *)own, own + 2 * WIDE, powers, powers + padded(seq) * WIDE};
    }

    // floats that a thread needs, in whole cache lines: scores and what is gathered with them, a head's, panels' ...
    int64_t floats_of_scores() const { return (stretch() + whole()) * WIDE; }
    int64_t floats_of_head() const { return (Head::floats(stretch(), width) + 15) / 16 * 16; }
    int64_t floats_of_panels() const {
        int64_t most = 0;
        for (int64_t sequence = 0; sequence < batch; sequence++)
            if (panels_of(counts[sequence]) > most) most = panels_of(counts[sequence]);
        return most * floats_of_panel();
    }
    int64_t floats_before_sums() const { return floats_of_scores() + floats_of_head() + floats_of_panels(); }
    // ... and what rows pay on the thread's heads, panel by panel, [key][lane]
    int64_t floats() const { return floats_before_sums() + (paid == nullptr ? 0 : lanes_before(batch) * seq); }
    int64_t lanes_before(int64_t sequence) const {
        int64_t sum = 0;
        for (int64_t before = 0; before < sequence; before++)
            for (int64_t start = 0; start < counts[before]; start += WIDE)
                sum += lanes_of(filled_from(start, counts[before]));
        return sum;
    }

    // `filled` rows of a panel, at most VECTORS * LANES, meet `count` keys from `start` on, while two parts are fetched
    template <int VECTORS>
    void meet(Head &kept, const uint8_t *visible, const Element *query, int64_t filled, int64_t start, int64_t count,
              float *memory, Panel panel, Part first, Part second) const {
        constexpr int64_t WIDE = VECTORS * LANES;
        float shrunk[WIDE], *scores = keeps() ? panel.powers + start * WIDE : memory;
        float *fresh = start == 0 ? panel.gathered : memory + stretch() * ::WIDE;
        if (start == 0) *panel.softmax = Softmax();
        kept.template score<VECTORS>(query, of_queries.row, filled, scores, first);
        panel.softmax->template take<VECTORS>(scores, count, kept.scale(), visible, shrunk);
        kept.template gather<VECTORS>(scores, fresh, second);
        if (keeps()) memcpy(panel.largest + start / stretch() * ::WIDE, panel.softmax->largest, WIDE * sizeof(float));
        for (int64_t k = 0; start > 0 && k < width; k++)
            for (int64_t lane = 0; lane < WIDE; lane++) {
                float &gathered = panel.gathered[k * WIDE + lane];
                gathered = gathered * shrunk[lane] + fresh[k * WIDE + lane];
            }
    }

    // What a panel has gathered comes to its rows. What they pay comes to `sums`, [key][VECTORS * LANES], or, `fresh`,
    // is the first that does; null: nobody asks.
    template <int VECTORS>
    void finish(const Panel &panel, int64_t filled, float scale, const float *scores, Element *to, float *sums,
                bool fresh) const {
        constexpr int64_t WIDE = VECTORS * LANES;
        float shares[WIDE], factors[WIDE];
        for (int64_t lane = 0; lane < WIDE; lane++) shares[lane] = 1.0f / panel.softmax->sums[lane];
        to_rows<VECTORS>(panel.gathered, shares, filled, width, to, heads * width);
        if (sums == nullptr) return;
        for (int64_t start = 0; start < seq; start += stretch()) {
            int64_t end = start + stretch() < seq ? start + stretch() : seq;
            const float *powers = keeps() ? panel.powers : scores, *then = panel.largest + start / stretch() * ::WIDE;
            for (int64_t lane = 0; lane < WIDE; lane++) {
                factors[lane] = shares[lane] / heads;
                if (keeps()) factors[lane] *= exponential(scale * (then[lane] - panel.softmax->largest[lane]));
            }
            for (int64_t key = start; key < end; key++)
                for (int64_t lane = 0; lane < WIDE; lane++) {
                    float share = powers[key * WIDE + lane] * factors[lane], &sum = sums[key * WIDE + lane];
                    sum = fresh ? share : sum + share;
                }
        }
    }

    // of what a head is made of `count` keys from `start` on, the `panel`th of `panels` parts
    Part part_of(const Element *head, Strides strides, int64_t start, int64_t count, int64_t panel,
                 int64_t panels) const {
        int64_t bytes = count * strides.row * sizeof(Element) / panels;
        return {(const char *)(head + start * strides.row) + panel * bytes, bytes};
    }

    // one head of one sequence, while the keys of `next` are fetched; `fresh`: the thread had none of it before
    void attend_head(int64_t task, int64_t next, float *memory, bool fresh) const {
        int64_t sequence = task / heads, head = task % heads, count = counts[sequence], panels = panels_of(count);
        float *panels_at = memory + floats_of_scores() + floats_of_head();
        for (int64_t start = 0; start < seq; start += stretch()) {
            int64_t keys = seq - start < stretch() ? seq - start : stretch();
            bool last = start + keys == seq;
            int64_t then = last ? next : task, then_start = last ? 0 : start + keys;
            int64_t then_keys = seq - then_start < stretch() ? seq - then_start : stretch();
            Head kept(keys, width, memory + floats_of_scores());
            kept.take_keys(keys_of(task) + start * of_keys.row, of_keys.row);
            kept.take_values(values_of(task) + start * of_values.row, of_values.row);
            const uint8_t *seen = visible == nullptr ? nullptr : this->visible_to(sequence) + start;
            float *sums = paid == nullptr ? nullptr : memory + floats_before_sums() + lanes_before(sequence) * seq;
            for (int64_t first = 0; first < count; first += WIDE) {
                int64_t number = first / WIDE, row = rows_before(sequence) + first, filled = filled_from(first, count);
                Panel panel = panel_at(panels_at, number);
                Part values = Head::TAKES_VALUES
                                  ? part_of(values_of(then), of_values, then_start, then_keys, number, panels)
                                  : part_of(values_of(task), of_values, start, keys, number, panels);
                Part next_keys = part_of(keys_of(then), of_keys, then_start, then_keys, number, panels);
                auto meet = filled > LANES ? &Attention::meet<2> : &Attention::meet<1>;
                (this->*meet)(kept, seen, this->query_of(row, head), filled, start, keys, memory, panel, values, next_keys);
                if (!last) continue;
                auto finish = filled > LANES ? &Attention::finish<2> : &Attention::finish<1>;
                Element *to = attended + (row * heads + head) * width;
                (this->*finish)(panel, filled, kept.scale(), memory, to, sums, fresh);
                if (paid != nullptr) sums += lanes_of(filled) * seq;
            }
        }
    }

    // what all rows pay for `key`, of all threads that had a head of their sequence; each has so many `floats`
    void add_up(int64_t key, const float *memory, int64_t floats, int64_t threads, float *to) const {
        int64_t tasks = batch * heads, lanes = 0;
        const float *first = memory + floats_before_sums();
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
    int64_t floats() const { return (padded(seq) * WIDE + Head::floats(seq, width) + 15) / 16 * 16 + sums(); }

    // `filled` rows of a head, at most VECTORS * LANES
    template <int VECTORS>
    void receive_panel(Head &kept, const uint8_t *seen, const Element *query, int64_t filled, const float *weight,
                       float *scores, float *sums) const {
        constexpr int64_t WIDE = VECTORS * LANES;
        float shares[WIDE], shrunk[WIDE];
        Softmax softmax;
        kept.template score<VECTORS>(query, of_queries.row, filled, scores, Part{(const char *)query, 0});
        softmax.template take<VECTORS>(scores, seq, kept.scale(), seen, shrunk);
        // lanes without a row hold anything, and no number times 0 is none either
        for (int64_t key = 0; key < seq; key++)
            for (int64_t lane = filled; lane < WIDE; lane++) scores[key * WIDE + lane] = 0.0f;
        for (int64_t lane = 0; lane < WIDE; lane++)
            shares[lane] = lane < filled ? weight[lane] / softmax.sums[lane] / heads : 0.0f;
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
            Head kept(seq, width, memory + padded(seq) * WIDE);
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
