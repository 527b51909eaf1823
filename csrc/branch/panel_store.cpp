#include "branch/panel_store.h"

#include <algorithm>
#include <cstring>

namespace lora_mmap {
namespace {

bool leaves_any(const Axis& axis, const Extent& extent) {
  if (!axis.map) return false;
  for (int64_t at = extent.begin; at < extent.end; ++at)
    if (axis.leaves(at)) return true;
  return false;
}

// A panel on its way into a branch of elements of type Bits.
template <class Bits>
class Store {
 public:
  Store(const FactorWrite& write, const Axes& axes, const Panel& panel)
      : branch_(static_cast<std::byte*>(write.branch)), axes_(axes), panel_(panel) {}

  void into_tiles(PackTiles pack) const {
    for (int64_t k = panel_.k.begin; k < panel_.k.end;) {
      const int64_t whole = panel_.has_all_rows ? whole_tiles(k) : 0;
      if (whole > 0) {
        pack(panel_.rows, (k - panel_.k.begin) * kSize, whole, tile(k), axes_.k.pitch * kSize);
        k += whole * kTile;
      } else {
        const Extent part{k, std::min(tile_begin(k) + kTile, panel_.k.end)};
        into_part_of_tile(part);
        k = part.end;
      }
    }
  }

  void into_plain() const {
    const bool one_run = axes_.k.pitch == 1 && !leaves_any(axes_.k, panel_.k);
    for (int64_t row = panel_.n.begin; row < panel_.n.end; ++row) {
      if (!panel_.rows[within_tile(row)]) continue;
      std::byte* to = branch_ + row * axes_.n.pitch * kSize;
      if (one_run) {
        std::memcpy(to + panel_.k.begin * kSize, panel_.rows[within_tile(row)],
                    static_cast<size_t>(panel_.k.size() * kSize));
        continue;
      }
      for (int64_t k = panel_.k.begin; k < panel_.k.end; ++k)
        if (!axes_.k.leaves(k)) put(value(row, k), to + k * axes_.k.pitch * kSize);
    }
  }

 private:
  static constexpr auto kSize = static_cast<int64_t>(sizeof(Bits));

  static void put(const std::byte* from, std::byte* to) { std::memcpy(to, from, sizeof(Bits)); }

  const std::byte* value(int64_t row, int64_t k) const {
    return panel_.rows[within_tile(row)] + (k - panel_.k.begin) * kSize;
  }

  // The one that has column k.
  std::byte* tile(int64_t k) const {
    return branch_ + (panel_.n.begin / kTile * axes_.n.pitch + k / kTile * axes_.k.pitch) * kSize;
  }

  // The number of tiles that begin at k, one after another, and are written whole.
  int64_t whole_tiles(int64_t k) const {
    if (within_tile(k)) return 0;
    int64_t count = 0;
    for (; k + kTile <= panel_.k.end && !leaves_any(axes_.k, {k, k + kTile}); k += kTile) ++count;
    return count;
  }

  void into_part_of_tile(const Extent& part) const {
    std::byte* to = tile(part.begin);
    const bool leaves = leaves_any(axes_.k, part);
    for (int64_t n = panel_.n.begin; n < panel_.n.end; ++n) {
      if (!panel_.rows[within_tile(n)]) continue;
      std::byte* row = to + row_offset(within_tile(n)) * kSize;
      if (leaves)
        into_row_with_gaps(value(n, part.begin), part, row);
      else
        into_row(value(n, part.begin), part, row);
    }
  }

  void into_row_with_gaps(const std::byte* from, const Extent& part, std::byte* to) const {
    for (int64_t k = part.begin; k < part.end; ++k, from += kSize)
      if (!axes_.k.leaves(k)) put(from, to + column_offset(within_tile(k)) * kSize);
  }

  // Two neighbours at a time where there are two.
  static void into_row(const std::byte* from, const Extent& part, std::byte* to) {
    int64_t k = within_tile(part.begin);
    const int64_t end = k + part.size();
    if (k & 1) {
      put(from, to + column_offset(k++) * kSize);
      from += kSize;
    }
    for (; k + 1 < end; k += 2, from += 2 * kSize)
      std::memcpy(to + column_offset(k) * kSize, from, 2 * sizeof(Bits));
    if (k < end) put(from, to + column_offset(k) * kSize);
  }

  std::byte* const branch_;
  const Axes& axes_;
  const Panel& panel_;
};

template <class Bits>
void store(const FactorWrite& write, const Axes& axes, const Panel& panel, PackTiles pack) {
  const Store<Bits> store(write, axes, panel);
  if (write.layout == BranchLayout::plain)
    store.into_plain();
  else
    store.into_tiles(pack);
}

}  // namespace

void store_panel(const FactorWrite& write, const Axes& axes, const Panel& panel, const BranchOps& ops) {
  if (dtype_bits(write.dtype) == 16)
    store<uint16_t>(write, axes, panel, ops.pack_tiles_16);
  else
    store<uint32_t>(write, axes, panel, ops.pack_tiles_32);
}

}  // namespace lora_mmap
