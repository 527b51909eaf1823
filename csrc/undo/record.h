// What is kept of one rectangle of a weight, so that its pristine bits come back.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "undo/journal_memory.h"
#include "undo/tile_grid.h"

namespace lora_mmap {

enum class TileState : uint8_t {
  untouched,  // nothing is known of it
  written,    // it holds what the record's terms made, unless someone else wrote to it
  undone,     // it does not, but hash and corrections are those of what the terms would make again
};

// The corrections of one tile, in memory of their size.
class CodedBytes {
 public:
  CodedBytes() = default;
  CodedBytes(JournalBytes bytes, size_t nbytes) : bytes_(std::move(bytes)), nbytes_(nbytes) {}

  const uint8_t* data() const { return bytes_.get(); }
  size_t nbytes() const { return nbytes_; }

 private:
  JournalBytes bytes_;
  size_t nbytes_ = 0;
};

// Where a worker encodes one tile after the other: memory that is there before a weight is written, and is
// given away if there is no more when that has happened.
class CodingSpace {
 public:
  // At least `nbytes` bytes. Throws std::bad_alloc.
  uint8_t* reserve(size_t nbytes);

  // The first `nbytes` of them: a copy, or these themselves.
  CodedBytes take(size_t nbytes) noexcept;

 private:
  JournalBytes bytes_;
  size_t capacity_ = 0;
};

// Threads may write distinct tiles at the same time, and anyone may ask for sizes meanwhile.
class Record {
 public:
  // `corrections`: keep those, for F16, BF16 and F32. Throws Error(Fault::argument) for other types, and for
  // negative sizes.
  Record(int64_t rows, int64_t cols, DType dtype, bool corrections);

  const TileGrid& grid() const { return grid_; }
  DType dtype() const { return dtype_; }
  bool has_corrections() const { return corrections_; }

  // Everything that it holds.
  size_t nbytes() const;

  // What a copy of the rectangle would take.
  size_t backup_nbytes() const;

  // How many tiles are in TileState::written.
  int64_t written() const { return written_.load(std::memory_order_relaxed); }

  TileState state(int64_t tile) const { return at(tile).state.load(std::memory_order_relaxed); }
  void set_state(int64_t tile, TileState state);

  uint64_t hash(int64_t tile) const { return at(tile).hash; }
  const CodedBytes& coded(int64_t tile) const { return at(tile).coded; }

  // Of a tile that is written, before its state says so.
  void keep(int64_t tile, uint64_t hash, CodedBytes coded) noexcept;

  // Frees the corrections; hashes and states stay. Not while a call works on the record.
  void forget_corrections();

 private:
  struct Tile {
    uint64_t hash = 0;
    CodedBytes coded;
    std::atomic<TileState> state{TileState::untouched};
  };

  const Tile& at(int64_t tile) const { return tiles_[static_cast<size_t>(tile)]; }

  const TileGrid grid_;
  const DType dtype_;
  std::atomic<bool> corrections_;
  std::vector<Tile> tiles_;
  std::atomic<size_t> all_coded_nbytes_{0};
  std::atomic<int64_t> written_{0};
};

}  // namespace lora_mmap
