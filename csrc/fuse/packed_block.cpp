#include "fuse/packed_block.h"

#include <algorithm>

#include "fuse/factor.h"

namespace lora_mmap {
namespace {

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

int64_t compute_nbytes(const Job& job) {
  return job.dtype == DType::F64 ? 8 : 4;
}

// Row stride of packed B, in elements: whole cache lines.
int64_t up_stride(const Job& job) {
  return round_up(std::max<int64_t>(rank_block(job), 1), 64 / compute_nbytes(job));
}

// Fetches a row that the block below reads, as far as a cache that keeps it until then.
void fetch_row(const std::byte* row, int64_t nbytes) {
  for (int64_t i = 0; i < nbytes; i += 64) __builtin_prefetch(row + i, 0, 2);
}

constexpr int64_t kPartNbytes = 12 << 10;  // of sums: they stay in L1 with what is added to them

// Whole panels.
int64_t part_cols(const TileOps& ops, int64_t size) {
  const int64_t panels = kPartNbytes / (ops.rows * ops.panel_nbytes);
  return std::max<int64_t>(panels, 1) * ops.panel_nbytes / size;
}

}  // namespace

int64_t rank_block(const Job& job) {
  const int64_t most = job.dtype == DType::F64 ? 112 : 256;  // the smallest block of either takes 81 KiB
  const int64_t rank = total_rank(job);
  const int64_t blocks = (rank + most - 1) / most;
  return blocks ? (rank + blocks - 1) / blocks : 0;
}

PackedLayout::PackedLayout(const TileOps& ops, const Job& job, int64_t rows, int64_t cols, bool keeps_sums) {
  const int64_t size = compute_nbytes(job);
  const int64_t rank = rank_block(job);
  const int64_t padded_cols = round_up(cols, ops.panel_nbytes / size);
  const int64_t padded_rows = round_up(rows, ops.rows);
  const int64_t part = keeps_sums ? ops.rows * part_cols(ops, size) : 0;
  const int64_t kept = total_rank(job) > rank ? padded_rows * padded_cols : part;
  up = static_cast<size_t>(rank * padded_cols * size);
  row = up + static_cast<size_t>(padded_rows * up_stride(job) * size);
  partial = row + static_cast<size_t>(round_up(std::max(padded_cols, rank) * 8, 64));
  nbytes = partial + static_cast<size_t>(kept * size);
}

PackedBlock::PackedBlock(const TileOps& ops, const Job& job, const Block& block, const PackedLayout& layout,
                         Workspace& workspace, std::byte* scratch)
    : ops_(ops),
      job_(job),
      block_(block),
      size_(compute_nbytes(job)),
      rank_(total_rank(job)),
      rank_block_(rank_block(job)),
      up_stride_(up_stride(job)),
      layout_(layout),
      workspace_(workspace),
      scratch_(scratch) {}

Sweep PackedBlock::sweep_of(int64_t begin, int64_t end, const void* base, int64_t base_stride, void* weight,
                            int64_t weight_stride) const {
  return {.up = scratch_ + layout_.up,
          .down = scratch_ + layout_.down,
          .up_stride = up_stride_,
          .rank = end - begin,
          .rows = block_.rows,
          .cols = block_.cols,
          .base = base,
          .weight = weight,
          .base_row_stride = base_stride,
          .weight_row_stride = weight_stride,
          .partial = scratch_ + layout_.partial,
          .first = begin == 0,
          .last = end == rank_,
          .ahead = ahead_,
          .ahead_row_stride = ahead_row_stride_};
}

bool PackedBlock::fuse(const void* base, int64_t base_stride, void* weight, int64_t weight_stride) {
  return sweep(base, base_stride, weight, weight_stride,
               [this](const Sweep& sweep) { return ops_.sweep(job_.dtype, sweep); });
}

// A part is a group of rows and as many columns as its sums take kPartNbytes, or what is left of either.
bool PackedBlock::next(Part& part) const {
  part.col += part.cols;
  if (part.col >= block_.cols || part.rows == 0) {
    part.row += part.rows;
    part.col = 0;
    part.rows = block_.rows - part.row >= ops_.rows ? ops_.rows : 1;
  }
  part.cols = std::min(part_cols(ops_, size_), block_.cols - part.col);
  return part.row < block_.rows;
}

// All rank blocks but the last, which is packed.
void PackedBlock::begin_sums() {
  for_each_rank_block([&](int64_t begin, int64_t end) {
    if (end < rank_)
      for (Part part{}; next(part);) sweep_part(part, end - begin, begin == 0);
  });
}

PanelBlock PackedBlock::sum(const Part& part) {
  const int64_t before = rank_block_ ? (rank_ - 1) / rank_block_ * rank_block_ : 0;
  sweep_part(part, rank_ - before, before == 0);
  return {part.rows, part.cols, part.rows, ops_.panel_nbytes, size_};
}

// With several rank blocks each part has its place in the whole block's panels.
std::byte* PackedBlock::sums_of(const Part& part) const {
  std::byte* partial = scratch_ + layout_.partial;
  if (rank_ <= rank_block_) return partial;
  const PanelBlock all{block_.rows, block_.cols, ops_.rows, ops_.panel_nbytes, size_};
  return partial + part.row * all.row_nbytes() + part.rows * part.col * size_;
}

void PackedBlock::sweep_part(const Part& part, int64_t ranks, bool first) {
  const int64_t element_nbytes = dtype_bits(job_.dtype) / 8;
  const std::byte* down = scratch_ + layout_.down + part.col * size_ * ranks;
  const auto* ahead = static_cast<const std::byte*>(ahead_);
  if (ahead) ahead += (part.row * ahead_row_stride_ + part.col) * element_nbytes;
  ops_.sweep(job_.dtype, {.up = scratch_ + layout_.up + part.row * up_stride_ * size_,
                          .down = down,
                          .up_stride = up_stride_,
                          .rank = ranks,
                          .rows = part.rows,
                          .cols = part.cols,
                          .base = down,
                          .weight = nullptr,
                          .base_row_stride = 0,
                          .weight_row_stride = 0,
                          .partial = sums_of(part),
                          .first = first,
                          .last = false,
                          .ahead = ahead,
                          .ahead_row_stride = ahead_row_stride_});
}

// Ranks [begin, end) of all terms laid end to end. Blocks come in the order of their rows within a range of
// columns, so A is often still there from the block before.
void PackedBlock::pack(int64_t begin, int64_t end) {
  const Workspace::Packed wanted{&job_, block_.col};
  const bool keep = rank_ <= rank_block_;
  const bool down_is_packed = keep && workspace_.packed == wanted;
  workspace_.packed = keep ? wanted : Workspace::Packed{};
  int64_t first = 0;
  for (const Term& term : job_.terms) {
    const int64_t from = std::max(begin - first, int64_t{0});
    const int64_t to = std::min(end - first, term.matrix.rank);
    if (from < to) {
      if (!down_is_packed) pack_down(term.matrix, from, to, first + from - begin, end - begin);
      pack_up(term.matrix, term.scale, from, to, first + from - begin);
    }
    first += term.matrix.rank;
  }
}

// Rows [from, to) of the term's A become rows `slot`... of every panel of `block_rank` rows.
void PackedBlock::pack_down(const Matrix& term, int64_t from, int64_t to, int64_t slot, int64_t block_rank) {
  const int32_t* map = term.col_map ? term.col_map + block_.col : nullptr;
  for (int64_t r = from; r < to; ++r, ++slot) {
    const int64_t first = r * term.down_row_stride + (map ? 0 : block_.col * term.down_col_stride);
    const std::byte* data = element_at(term.down, term.down_dtype, first);
    const FactorRow row = packable({term.down_dtype, data, term.down_col_stride, map}, block_.cols);
    ops_.pack_down(job_.dtype, row.dtype, row.data, block_.cols,
                   scratch_ + layout_.down + slot * ops_.panel_nbytes, block_rank * ops_.panel_nbytes);
  }
}

void PackedBlock::pack_up(const Matrix& term, double scale, int64_t from, int64_t to, int64_t slot) {
  const auto row_at = [&](int64_t m) {
    const int64_t up_row = term.row_map ? term.row_map[block_.row + m] : block_.row + m;
    return element_at(term.up, term.up_dtype, up_row * term.up_row_stride + from * term.up_col_stride);
  };
  const int64_t element_nbytes = dtype_bits(term.up_dtype) / 8;
  const int64_t below = std::min(block_.rows, job_.rows - block_.row - block_.rows);
  for (int64_t m = 0; m < below; ++m) fetch_row(row_at(block_.rows + m), (to - from) * element_nbytes);
  std::byte* out = scratch_ + layout_.up + slot * size_;
  const int64_t stride = up_stride_ * size_;
  if (term.up_col_stride == 1 && !term.row_map && is_packable(job_.dtype, term.up_dtype)) {
    const UpRows rows{row_at(0), to - from, block_.rows, term.up_row_stride * element_nbytes};
    return ops_.pack_up(job_.dtype, term.up_dtype, rows, scale, out, stride);
  }
  for (int64_t m = 0; m < block_.rows; ++m) {
    const FactorRow row = packable({term.up_dtype, row_at(m), term.up_col_stride}, to - from);
    ops_.pack_up(job_.dtype, row.dtype, {row.data, to - from}, scale, out + m * stride, stride);
  }
}

FactorRow PackedBlock::packable(const FactorRow& row, int64_t count) {
  return packable_row(job_.dtype, row, count, scratch_ + layout_.row);
}

}  // namespace lora_mmap
