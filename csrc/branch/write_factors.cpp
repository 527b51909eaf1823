#include "branch/write_factors.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "base/error.h"
#include "base/float_env.h"
#include "base/thread_pool.h"
#include "branch/panel.h"
#include "branch/panel_store.h"
#include "branch/write_check.h"
#include "fuse/isa.h"

namespace lora_mmap {
namespace {

constexpr int64_t kPieceElements = 1 << 15;  // that one thread takes at a time

struct Piece {
  size_t job;
  Extent features;
};

// Appends pieces of about kPieceElements, cut between tiles.
void cut(const FactorWrite& write, size_t job, std::vector<Piece>& pieces) {
  if (write.is_empty()) return;
  const int64_t step = std::max(tile_begin(kPieceElements / write.ranks.size()), kTile);
  const Extent& all = write.features;
  for (int64_t at = all.begin; at < all.end;) {
    const int64_t end = std::min(tile_begin(at) + step, all.end);
    pieces.push_back({job, {at, end}});
    at = end;
  }
}

// Returns the number of elements that overflowed.
int64_t write_piece(const FactorWrite& write, const Extent& features, const BranchOps& ops) {
  const Axes axes = axes_of(write, features);
  PanelReader reader(write, axes, ops);
  const auto& [n, k] = axes;
  for (int64_t row = n.extent.begin; row < n.extent.end; row = tile_begin(row) + kTile) {
    const Extent rows{row, std::min(tile_begin(row) + kTile, n.extent.end)};
    for (int64_t col = k.extent.begin; col < k.extent.end; col = tile_begin(col) + kPanelCols) {
      const Extent cols{col, std::min(tile_begin(col) + kPanelCols, k.extent.end)};
      store_panel(write, axes, reader.read(rows, cols), ops);
    }
  }
  ops.publish();
  return reader.overflowed();
}

}  // namespace

std::vector<int64_t> write_factors(const std::vector<FactorWrite>& jobs, int threads,
                                   const std::optional<std::string>& isa) {
  if (threads < 1)
    throw Error(Fault::argument,
                "[write_factors] threads is " + std::to_string(threads) + ", expected 1 or more");
  const BranchOps& ops = choose_branch_ops(choose_kernel(isa).name());
  check_writes(jobs);

  std::vector<Piece> pieces;
  for (size_t i = 0; i < jobs.size(); ++i) cut(jobs[i], i, pieces);
  const auto overflowed = std::make_unique<std::atomic<int64_t>[]>(jobs.size());
  parallel_for(threads, static_cast<int64_t>(pieces.size()), [&](int, int64_t index) {
    const FloatEnv env;
    const Piece& piece = pieces[static_cast<size_t>(index)];
    const int64_t found = write_piece(jobs[piece.job], piece.features, ops);
    if (found) overflowed[piece.job].fetch_add(found, std::memory_order_relaxed);
  });
  return {overflowed.get(), overflowed.get() + jobs.size()};
}

}  // namespace lora_mmap
