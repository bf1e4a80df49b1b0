// The processor's unit that multiplies tiles of bfloat16 (AMX), where there is one: TILES says whether it is compiled in.
#pragma once
#include <cstdint>

#if defined(__linux__) && defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define TILES 1
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int64_t HIGH = 16;        // rows of a tile
constexpr int64_t DEEP = 32;        // bfloat16 elements of a tile's row: a cache line
constexpr int64_t LINE = 64;        // bytes of a tile's row
constexpr int64_t TILE = HIGH * DEEP;  // elements

struct alignas(LINE) TileShapes {  // eight tiles, all of full size
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE};
    uint8_t rows[16] = {HIGH, HIGH, HIGH, HIGH, HIGH, HIGH, HIGH, HIGH};
};

const TileShapes SHAPES;  // no local one: the compiler is not told how much of it is read, and may leave parts unwritten

struct UseTiles {  // as long as it exists, by the thread that made it
    UseTiles() { _tile_loadconfig(&SHAPES); }
    ~UseTiles() { _tile_release(); }
};

// Before tiles are loaded of what has just been written: the compiler does not know that they read memory.
inline void everything_is_written() { asm volatile("" ::: "memory"); }

// 0 if the operating system grants the unit; it has to be asked once a process.
inline int64_t ask_for_tiles() {
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}

}  // namespace
#else
#define TILES 0
#endif
