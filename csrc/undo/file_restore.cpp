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
#include "undo/tile_hash.h"
#include "undo/tile_kernel.h"

namespace lora_mmap {
namespace {

using Values = FileReader::Values;

Block exchanged(const Block& block) {
  return {block.col, block.row, block.cols, block.rows};
}

// One item by the tiles of its record, whose blocks are along the file's rows as the reader's are.
class RestoredPart {
 public:
  RestoredPart(const FileRestore& item, const FileReader& reader)
      : part_(item.part),
        record_(*item.record),
        reader_(reader),
        down_((record_.grid().rows() + record_.grid().tile_rows() - 1) / record_.grid().tile_rows()) {}

  // visit(index, tile) for those that are due in a block of whole tiles, until it says false. False then.
  template <class Visit>
  bool for_each_due(const Block& block, Visit visit) const {
    const Block mine = reader_.turned() ? exchanged(block) : block;
    const TileGrid& grid = record_.grid();
    for (int64_t row = mine.row; row < mine.row + mine.rows; row += grid.tile_rows())
      for (int64_t col = mine.col; col < mine.col + mine.cols; col += grid.tile_cols()) {
        const int64_t index = row / grid.tile_rows() + col / grid.tile_cols() * down_;
        if (record_.state(index) != TileState::written) continue;
        const Block tile = grid.tile(index);
        if (!visit(index, reader_.turned() ? exchanged(tile) : tile)) return false;
      }
    return true;
  }

  bool is_due(const Block& block) const {
    return !for_each_due(block, [](int64_t, const Block&) { return false; });
  }

  // The height of a row of tiles in the reader's rows.
  int64_t strip_rows() const {
    return reader_.turned() ? record_.grid().tile_cols() : record_.grid().tile_rows();
  }

  // Where the record's own rows and columns have it.
  std::pair<int64_t, int64_t> place(const Block& tile) const {
    return reader_.turned() ? std::pair(tile.col, tile.row) : std::pair(tile.row, tile.col);
  }

  // True if the weight's elements there are what the record says.
  bool is_ours(int64_t index, HashSteps take, Workspace& workspace) const {
    return hash_of_weight(record_.grid().tile(index), take, workspace) == record_.hash(index);
  }

  void write(const Block& strip, const Block& block, const Values& values) const {
    int64_t due = 0;
    for_each_due(strip, [&](int64_t, const Block& tile) { return due += tile.rows * tile.cols, true; });
    const bool whole = due == strip.rows * strip.cols;
    if (whole) copy(strip, block, values);
    for_each_due(strip, [&](int64_t index, const Block& tile) {
      if (!whole) copy(tile, block, values);
      record_.set_state(index, TileState::undone);
      return true;
    });
  }

 private:
  void copy(const Block& part, const Block& block, const Values& values) const {
    const int64_t first = (part.row - block.row) * values.row_stride + (part.col - block.col);
    copy_rect(reader_.onto(part, {values.data + first * element_nbytes(), values.row_stride}));
  }

  int64_t element_nbytes() const { return dtype_bits(part_.dtype) / 8; }

  uint64_t hash_of_weight(const Block& tile, HashSteps take, Workspace& workspace) const {
    const int64_t nbytes = element_nbytes();
    const std::byte* first = static_cast<const std::byte*>(part_.address) +
                             (tile.row * part_.row_stride + tile.col * part_.col_stride) * nbytes;
    const auto row_nbytes = static_cast<size_t>(tile.cols * nbytes);
    if (part_.col_stride == 1 && row_nbytes % kHashStepNbytes == 0)
      return hash_of_rows(first, tile.rows, row_nbytes, part_.row_stride * nbytes, take);
    std::byte* dense = workspace.reserve(static_cast<size_t>(tile.rows) * row_nbytes);
    copy_rect({dense, first, tile.rows, tile.cols, tile.cols, 1, part_.row_stride, part_.col_stride, nbytes});
    return hash_of(dense, static_cast<size_t>(tile.rows) * row_nbytes, take);
  }

  const FilePart& part_;
  Record& record_;
  const FileReader& reader_;
  const int64_t down_;
};

class Restoring {
 public:
  Restoring(const std::vector<FileRestore>& items, HashSteps take, bool force, int workers)
      : items_(items), take_(take), force_(force), dense_(static_cast<size_t>(workers)) {}

  void restore(const FileBlocks::Work& work) {
    const RestoredPart part(items_[work.part], work.reader);
    if (stopped_.load(std::memory_order_relaxed) || !part.is_due(work.block)) return;
    const Values values = work.reader.read(work.block, work.workspace);
    const Block& block = work.block;
    for (int64_t row = block.row; row < block.row + block.rows; row += part.strip_rows()) {
      const int64_t rows = std::min(part.strip_rows(), block.row + block.rows - row);
      const Block strip{row, block.col, rows, block.cols};
      if (!is_ours(part, strip, work)) return;
      part.write(strip, block, values);
    }
  }

  std::vector<ForeignTile> foreign() {
    std::sort(foreign_.begin(), foreign_.end());
    return std::move(foreign_);
  }

 private:
  bool is_ours(const RestoredPart& part, const Block& strip, const FileBlocks::Work& work) {
    bool ours = true;
    part.for_each_due(strip, [&](int64_t index, const Block& tile) {
      fault_point(FaultPoint::tile);
      if (force_ || part.is_ours(index, take_, dense_[static_cast<size_t>(work.worker)])) return true;
      ours = false;
      report(work.part, part.place(tile));
      return true;
    });
    return ours;
  }

  void report(size_t item, std::pair<int64_t, int64_t> place) {
    stopped_.store(true, std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    foreign_.push_back({static_cast<int64_t>(item), place.first, place.second});
  }

  const std::vector<FileRestore>& items_;
  const HashSteps take_;
  const bool force_;
  std::vector<Workspace> dense_;  // for tiles that are not dense rows
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::vector<ForeignTile> foreign_;
};

void check_record(const FileRestore& item, size_t index) {
  const auto refuse = [&](const std::string& what) {
    throw Error(Fault::argument, "[restore_from_file] item " + std::to_string(index) + ": " + what);
  };
  if (!item.record) refuse("no record");
  const TileGrid& grid = item.record->grid();
  if (grid.rows() != item.part.rows || grid.cols() != item.part.cols ||
      item.record->dtype() != item.part.dtype)
    refuse("the record is of " + std::to_string(grid.rows()) + " x " + std::to_string(grid.cols()) + " " +
           std::string(dtype_name(item.record->dtype())) + ", the weight of " +
           std::to_string(item.part.rows) + " x " + std::to_string(item.part.cols) + " " +
           std::string(dtype_name(item.part.dtype)));
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
  for (const FileRestore& item : items)
    blocks.add(item.part, std::max<int64_t>(item.record->grid().tile_rows(), 1),
               std::max<int64_t>(item.record->grid().tile_cols(), 1));
  Restoring restoring(items, choose_tile_kernel(choose_kernel(isa).name()).hash(), force, blocks.workers());
  blocks.for_each([&](const FileBlocks::Work& work) { restoring.restore(work); });
  return restoring.foreign();
}

}  // namespace lora_mmap
