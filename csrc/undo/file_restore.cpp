#include "undo/file_restore.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "base/fault_points.h"
#include "fuse/copy.h"
#include "fuse/isa.h"
#include "undo/file_blocks.h"
#include "undo/strip_hashes.h"
#include "undo/tile_kernel.h"

namespace lora_mmap {
namespace {

using Values = FileReader::Values;

Block exchanged(const Block& block) {
  return {block.col, block.row, block.cols, block.rows};
}

struct Due {
  int64_t index;
  Block tile;
};

// What a worker keeps from block to block, so as not to allocate for each.
struct Lent {
  StripHashes hashes;
  std::vector<Due> due;
  std::vector<Block> tiles;
};

// One item, in the rows and columns of its record; a FileReader's are exchanged where it is turned.
class RestoredPart {
 public:
  RestoredPart(const FileRestore& item, const FileReader& reader)
      : part_(item.part), record_(*item.record), reader_(reader), grid_(record_.grid()) {}

  // Tiles that lie in a block of whole ones and hold what the record's terms made.
  template <class Visit>
  void for_each_due(const Block& block, Visit visit) const {
    const int64_t down = (grid_.rows() + grid_.tile_rows() - 1) / grid_.tile_rows();
    for (int64_t row = block.row; row < block.row + block.rows; row += grid_.tile_rows())
      for (int64_t col = block.col; col < block.col + block.cols; col += grid_.tile_cols()) {
        const int64_t index = row / grid_.tile_rows() + col / grid_.tile_cols() * down;
        if (record_.state(index) == TileState::written) visit(index);
      }
  }

  bool is_due(const Block& reading) const {
    bool found = false;
    for_each_due(turned(reading), [&](int64_t) { found = true; });
    return found;
  }

  // The tiles that are due in `reading`, a row of tiles after the other. foreign(tile) for those whose hash
  // is another, unless `force`.
  template <class Foreign>
  void find_due(const Block& reading, HashSteps take, bool force, Lent& lent, Foreign foreign) const {
    const Block all = turned(reading);
    lent.due.clear();
    for (int64_t row = all.row; row < all.row + all.rows; row += grid_.tile_rows()) {
      lent.tiles.clear();
      for_each_due({row, all.col, grid_.tile_rows(), all.cols}, [&](int64_t index) {
        fault_point(FaultPoint::tile);
        lent.tiles.push_back(grid_.tile(index));
        lent.due.push_back({index, lent.tiles.back()});
      });
      if (force || lent.tiles.empty()) continue;
      const std::vector<uint64_t>& hashes = lent.hashes.of(elements(), lent.tiles, take);
      const Due* first = lent.due.data() + lent.due.size() - hashes.size();
      for (size_t i = 0; i < hashes.size(); ++i)
        if (hashes[i] != record_.hash(first[i].index)) foreign(first[i].tile);
    }
  }

  // Writes the tiles that are due in `strip`, a part of the block that `values` are of.
  void write(const Block& strip, const std::vector<Due>& due, const Block& block,
             const Values& values) const {
    int64_t count = 0;
    for (const Due& one : due) count += one.tile.rows * one.tile.cols;
    const bool whole = count == strip.rows * strip.cols;
    if (whole) copy(strip, block, values);
    for (const Due& one : due) {
      if (!whole) copy(turned(one.tile), block, values);
      record_.set_state(one.index, TileState::undone);
    }
  }

  // The reader's rows that a row of tiles takes.
  int64_t strip_rows() const { return reader_.turned() ? grid_.tile_cols() : grid_.tile_rows(); }

 private:
  Block turned(const Block& block) const { return reader_.turned() ? exchanged(block) : block; }

  WeightElements elements() const {
    return {static_cast<const std::byte*>(part_.address), part_.row_stride, part_.col_stride,
            element_nbytes()};
  }

  void copy(const Block& part, const Block& block, const Values& values) const {
    const int64_t first = (part.row - block.row) * values.row_stride + (part.col - block.col);
    copy_rect(reader_.onto(part, {values.data + first * element_nbytes(), values.row_stride}));
  }

  int64_t element_nbytes() const { return dtype_bits(part_.dtype) / 8; }

  const FilePart& part_;
  Record& record_;
  const FileReader& reader_;
  const TileGrid& grid_;
};

class Restoring {
 public:
  Restoring(const std::vector<FileRestore>& items, HashSteps take, bool force, int workers)
      : items_(items), take_(take), force_(force), lent_(static_cast<size_t>(workers)) {}

  // Strip by strip, so that what is hashed is still in the cache when it is written.
  void restore(const FileBlocks::Work& work) {
    const RestoredPart part(items_[work.part], work.reader);
    if (stopped_.load(std::memory_order_relaxed) || !part.is_due(work.block)) return;
    const Values values = work.reader.read(work.block, work.workspace);
    Lent& lent = lent_[static_cast<size_t>(work.worker)];
    const Block& block = work.block;
    for (int64_t row = block.row; row < block.row + block.rows; row += part.strip_rows()) {
      const int64_t rows = std::min(part.strip_rows(), block.row + block.rows - row);
      const Block strip{row, block.col, rows, block.cols};
      bool ours = true;
      part.find_due(strip, take_, force_, lent, [&](const Block& tile) {
        ours = false;
        report({static_cast<int64_t>(work.part), tile.row, tile.col});
      });
      if (!ours) return;
      part.write(strip, lent.due, block, values);
    }
  }

  std::vector<ForeignTile> foreign() {
    std::sort(foreign_.begin(), foreign_.end());
    return std::move(foreign_);
  }

 private:
  void report(const ForeignTile& tile) {
    stopped_.store(true, std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    foreign_.push_back(tile);
  }

  const std::vector<FileRestore>& items_;
  const HashSteps take_;
  const bool force_;
  std::vector<Lent> lent_;
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::vector<ForeignTile> foreign_;
};

void check_record(const FileRestore& item, size_t index) {
  const auto refuse = [&](const std::string& what) {
    throw Error(Fault::argument, "[restore_from_file] item " + std::to_string(index) + ": " + what);
  };
  const auto form = [](int64_t rows, int64_t cols, DType dtype) {
    return std::to_string(rows) + " x " + std::to_string(cols) + " " + std::string(dtype_name(dtype));
  };
  if (!item.record) refuse("no record");
  const std::string recorded =
      form(item.record->grid().rows(), item.record->grid().cols(), item.record->dtype());
  const std::string given = form(item.part.rows, item.part.cols, item.part.dtype);
  if (recorded != given) refuse("the record is of " + recorded + ", the weight of " + given);
}

}  // namespace

std::vector<ForeignTile> restore_from_file(const std::vector<FileRestore>& items, int threads, bool force,
                                           const std::optional<std::string>& isa) {
  FileBlocks blocks("restore_from_file", threads, isa);
  std::vector<FilePart> parts;
  for (const FileRestore& item : items) parts.push_back(item.part);
  check_parts("restore_from_file", parts);
  for (size_t i = 0; i < items.size(); ++i) check_record(items[i], i);
  check_files(parts);
  for (const FileRestore& item : items) {
    const TileGrid& grid = item.record->grid();
    blocks.add(item.part, std::max<int64_t>(grid.tile_rows(), 1), std::max<int64_t>(grid.tile_cols(), 1));
  }
  Restoring restoring(items, choose_tile_kernel(choose_kernel(isa).name()).hash(), force, blocks.workers());
  blocks.for_each([&](const FileBlocks::Work& work) { restoring.restore(work); });
  return restoring.foreign();
}

}  // namespace lora_mmap
