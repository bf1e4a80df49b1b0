// Rows of sequences, packed, the keys that they meet, and how both lie in memory.
#pragma once
#include "numbers.h"

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
    static int64_t padded(int64_t keys) { return (keys + 31) / 32 * 32; }  // scores are written in tiles
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

}  // namespace
