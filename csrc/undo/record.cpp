#include "undo/record.h"

#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/fault_points.h"
#include "fuse/weight_format.h"

namespace lora_mmap {
namespace {

TileGrid checked_grid(int64_t rows, int64_t cols, DType dtype, bool corrections) {
  if (rows < 0 || cols < 0)
    throw Error(Fault::argument, "[Record] a rectangle of " + std::to_string(rows) + " x " +
                                     std::to_string(cols) + ", expected sizes of 0 or more");
  if (!is_weight_dtype(dtype) || (corrections && dtype == DType::F64))
    throw Error(Fault::argument, "[Record] a weight of type " + std::string(dtype_name(dtype)) +
                                     ", expected F16, BF16 or F32" + (corrections ? "" : " or F64"));
  return {rows, cols};
}

size_t taken_by(const CodedBytes& coded) {
  return journal_nbytes(coded.nbytes());
}

}  // namespace

uint8_t* CodingSpace::reserve(size_t nbytes) {
  fault_point(FaultPoint::encode);
  if (nbytes > capacity_) {
    capacity_ = 0;
    bytes_ = allocate_journal_bytes(nbytes);
    if (!bytes_) throw std::bad_alloc();
    capacity_ = nbytes;
  }
  return bytes_.get();
}

CodedBytes CodingSpace::take(size_t nbytes) noexcept {
  if (nbytes == 0) return {};
  JournalBytes fitting = fails_at(FaultPoint::fit) ? nullptr : allocate_journal_bytes(nbytes);
  if (fitting) {
    std::memcpy(fitting.get(), bytes_.get(), nbytes);
    return {std::move(fitting), nbytes};
  }
  capacity_ = 0;
  return {std::move(bytes_), nbytes};
}

Record::Record(int64_t rows, int64_t cols, DType dtype, bool corrections)
    : grid_(checked_grid(rows, cols, dtype, corrections)),
      dtype_(dtype),
      corrections_(corrections),
      tiles_(static_cast<size_t>(grid_.tiles())) {}

size_t Record::nbytes() const {
  return sizeof(*this) + tiles_.size() * sizeof(Tile) + all_coded_nbytes_.load(std::memory_order_relaxed);
}

size_t Record::backup_nbytes() const {
  return static_cast<size_t>(grid_.rows() * grid_.cols()) * (dtype_bits(dtype_) / 8);
}

void Record::set_state(int64_t tile, TileState state) {
  const TileState before = tiles_[static_cast<size_t>(tile)].state.exchange(state, std::memory_order_relaxed);
  written_.fetch_add((state == TileState::written) - (before == TileState::written),
                     std::memory_order_relaxed);
}

void Record::keep(int64_t tile, uint64_t hash, CodedBytes coded) noexcept {
  Tile& kept = tiles_[static_cast<size_t>(tile)];
  all_coded_nbytes_.fetch_add(taken_by(coded) - taken_by(kept.coded), std::memory_order_relaxed);
  kept.hash = hash;
  kept.coded = std::move(coded);
}

void Record::forget_corrections() {
  corrections_.store(false, std::memory_order_relaxed);
  for (Tile& tile : tiles_) tile.coded = CodedBytes();
  all_coded_nbytes_.store(0, std::memory_order_relaxed);
}

}  // namespace lora_mmap
