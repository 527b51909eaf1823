#include "fuse/term_block.h"

#include "fuse/factor.h"

namespace lora_mmap {
namespace {

size_t round_up_64(size_t nbytes) {
  return (nbytes + 63) / 64 * 64;
}

// Whether more is done than multiplying factors.
bool has_change(const Term& term) {
  return term.times || term.times_base || term.matrix.is_whole();
}

// What is multiplied out is scaled on the way only where nothing else is done to it.
double scale_of_product(const Term& term) {
  return term.times || term.times_base ? 1.0 : term.scale;
}

}  // namespace

TermNeeds::TermNeeds(const Job& job, bool norms) : sum(!norms) {
  for (const Term& term : job.terms) {
    low_rank += term.matrix.ranks() + (term.times ? term.times->ranks() : 0);
    base |= norms || term.times_base || term.gain;
    change |= norms || term.gain;
    if (term.is_low_rank() && !norms) continue;
    const int64_t whole = term.matrix.is_whole() + (term.times && term.times->is_whole());
    products = std::max<int64_t>(products, 1 + term.times.has_value() - whole);
    wholes = std::max<int64_t>(wholes, whole + term.gain.has_value());
    all_wholes += whole + term.gain.has_value();
  }
}

TermLayout::TermLayout(const TermNeeds& needs, const PanelBlock& shape, size_t stage_nbytes) {
  const auto row = static_cast<size_t>(shape.row_nbytes());
  up = down + static_cast<size_t>(needs.ranks_at_once()) * row;
  const int64_t up_elements = needs.low_rank ? shape.rows * TermNeeds::kRanks : 0;
  sum = up + static_cast<size_t>(up_elements * shape.element_nbytes);
  products = sum + (needs.sum ? shape.nbytes() : 0);
  wholes = products + static_cast<size_t>(needs.products) * shape.nbytes();
  base = wholes + static_cast<size_t>(needs.whole_rows()) * WholeRows::scratch_nbytes(shape);
  change = base + (needs.base ? row : 0);
  copy = change + (needs.change ? row : 0);
  stage = copy + std::max(WholeRows::copy_nbytes(shape), static_cast<size_t>(TermNeeds::kRanks * 8));
  nbytes = round_up_64(stage + stage_nbytes);
}

PanelBlock panel_block(const TileOps& ops, const Job& job, int64_t rows, int64_t cols) {
  return {rows, cols, ops.rows, ops.panel_nbytes, job.dtype == DType::F64 ? 8 : 4};
}

TermBlock::TermBlock(const TileOps& ops, const ElementOps& elements, DType order, const Job& job,
                     const Block& block, const TermNeeds& needs, const TermLayout& layout, Rows base,
                     Workspace& workspace)
    : ops_(ops),
      elements_(elements),
      order_(order),
      job_(job),
      block_(block),
      needs_(needs),
      layout_(layout),
      shape_(panel_block(ops, job, needs.strip_rows(ops, block.rows), block.cols)),
      base_(base),
      scratch_(workspace.reserve(layout.nbytes)),
      operands_(job.terms.size()) {
  const Workspace::Packed wanted{&job, block.col};
  down_is_packed_ = needs.keeps_down() && workspace.packed == wanted;
  workspace.packed = needs.keeps_down() ? wanted : Workspace::Packed{};
}

RowShape TermBlock::row_shape() const {
  return {order_ == DType::F64, shape_.cols, shape_.panels(), shape_.panel_nbytes};
}

// The first strip packs A and prepares what the others use too.
bool TermBlock::next_strip() {
  if (strip_ >= 0) down_is_packed_ |= needs_.keeps_down();
  strip_ = strip_ < 0 ? 0 : strip_ + shape_.rows;
  shape_.rows = std::min(shape_.rows, block_.rows - strip_);
  next_rank_ = 0;
  return shape_.rows > 0;
}

bool TermBlock::fuse(Rows weight) {
  bool overflow = false;
  while (next_strip()) overflow |= fuse_strip(weight);
  return overflow;
}

// False if there was nothing to sum, and the accumulators are not even zero.
bool TermBlock::sum_strip() {
  std::byte* sum = scratch_ + layout_.sum;
  bool from_zero = true;
  for (size_t i = 0; i < job_.terms.size(); ++i) {
    const Term& term = job_.terms[i];
    if (term.is_low_rank()) {
      if (term.matrix.rank == 0) continue;
      multiply(term.matrix, term.scale, sum, from_zero);
    } else {
      if (from_zero) std::memset(sum, 0, shape_.nbytes());
      Operands& operands = begin(i);
      for (int64_t m = 0; m < shape_.rows; ++m) add_row(term, operands, m);
    }
    from_zero = false;
  }
  return !from_zero;
}

bool TermBlock::fuse_strip(Rows weight) {
  const int64_t nbytes = dtype_bits(job_.dtype) / 8;
  const bool summed = sum_strip();
  return sweep({.up = scratch_,
                .down = scratch_,
                .up_stride = TermNeeds::kRanks,
                .rank = 0,
                .rows = shape_.rows,
                .cols = shape_.cols,
                .base = base_.data + strip_ * base_.row_stride * nbytes,
                .weight = weight.data + strip_ * weight.row_stride * nbytes,
                .base_row_stride = base_.row_stride,
                .weight_row_stride = weight.row_stride,
                .partial = scratch_ + layout_.sum,
                .first = !summed,
                .last = true});
}

TermBlock::Operands& TermBlock::begin(size_t index) {
  const Term& term = job_.terms[index];
  Operands& operands = operands_[index];
  n_products_ = 0;
  if (!needs_.keeps_wholes()) n_wholes_ = 0;
  prepare(operands.matrix, term.matrix, scale_of_product(term));
  if (term.times) prepare(operands.times, *term.times, 1.0);
  if (term.gain) prepare(operands.gain, term.gain->factors, 1.0);
  return operands;
}

void TermBlock::prepare(Operand& operand, const Matrix& matrix, double scale) {
  if (matrix.is_whole()) {
    if (operand.whole && needs_.keeps_wholes()) return;
    std::byte* scratch =
        scratch_ + layout_.wholes + static_cast<size_t>(n_wholes_++) * WholeRows::scratch_nbytes(shape_);
    operand.whole.emplace(ops_, order_, shape_, matrix, block_, scratch, scratch_ + layout_.copy);
    return;
  }
  operand.product = scratch_ + layout_.products + static_cast<size_t>(n_products_++) * shape_.nbytes();
  multiply(matrix, scale, operand.product, true);
}

PanelRow TermBlock::row_of(Operand& operand, int64_t m) {
  return operand.whole ? operand.whole->row(strip_ + m) : shape_.row(operand.product, m);
}

PanelRow TermBlock::base_row(int64_t m) {
  std::byte* panels = scratch_ + layout_.base;
  const std::byte* row = element_at(base_.data, job_.dtype, (strip_ + m) * base_.row_stride);
  const int64_t nbytes = dtype_bits(job_.dtype) / 8;
  if (strip_ + m + 1 < block_.rows) prefetch_row(row + base_.row_stride * nbytes, shape_.cols * nbytes);
  ops_.pack_down(order_, job_.dtype, row, shape_.cols, panels, shape_.panel_nbytes);
  return {panels, shape_.panel_nbytes};
}

PanelRow TermBlock::change_row(const Term& term, Operands& operands, int64_t m) {
  if (!has_change(term)) return row_of(operands.matrix, m);
  const PanelRow change{scratch_ + layout_.change, shape_.panel_nbytes};
  std::memset(change.data, 0, static_cast<size_t>(shape_.row_nbytes()));
  add_change(term, operands, change, m);
  return change;
}

void TermBlock::add_change(const Term& term, Operands& operands, PanelRow acc, int64_t m) {
  const RowShape shape = row_shape();
  const PanelRow matrix = row_of(operands.matrix, m);
  if (term.times)
    elements_.add_product(shape, acc, matrix, term.scale, row_of(operands.times, m));
  else if (term.times_base)
    elements_.add_product(shape, acc, matrix, term.scale, base_row(m));
  else
    elements_.add_scaled(shape, acc, matrix, term.scale);
}

void TermBlock::add_row(const Term& term, Operands& operands, int64_t m) {
  const PanelRow acc = shape_.row(scratch_ + layout_.sum, m);
  if (!term.gain) return add_change(term, operands, acc, m);
  const PanelRow change = change_row(term, operands, m);
  elements_.add_gained(row_shape(), acc, base_row(m), change, row_of(operands.gain, m), term.gain->weight);
}

void TermBlock::multiply(const Matrix& matrix, double scale, std::byte* panels, bool from_zero) {
  const bool fetches = order_ == job_.dtype;  // a sweep fetches the base for what comes after it
  if (matrix.rank == 0 && from_zero) std::memset(panels, 0, shape_.nbytes());
  std::byte* down = scratch_ + layout_.down + (needs_.keeps_down() ? next_rank_ * shape_.row_nbytes() : 0);
  next_rank_ += matrix.rank;
  for (int64_t begin = 0; begin < matrix.rank; begin += TermNeeds::kRanks) {
    const int64_t end = std::min(begin + TermNeeds::kRanks, matrix.rank);
    if (!down_is_packed_) pack_down(matrix, begin, end, down);
    pack_up(matrix, begin, end, scale);
    sweep({.up = scratch_ + layout_.up,
           .down = down,
           .up_stride = TermNeeds::kRanks,
           .rank = end - begin,
           .rows = shape_.rows,
           .cols = shape_.cols,
           .base = fetches ? element_at(base_.data, job_.dtype, strip_ * base_.row_stride) : down,
           .weight = nullptr,
           .base_row_stride = fetches ? base_.row_stride : 0,
           .weight_row_stride = 0,
           .partial = panels,
           .first = from_zero && begin == 0,
           .last = false});
  }
}

// Rows [begin, end) of A.
void TermBlock::pack_down(const Matrix& matrix, int64_t begin, int64_t end, std::byte* to) {
  const int32_t* map = matrix.col_map ? matrix.col_map + block_.col : nullptr;
  for (int64_t r = begin; r < end; ++r, to += shape_.panel_nbytes) {
    const int64_t first = r * matrix.down_row_stride + (map ? 0 : block_.col * matrix.down_col_stride);
    const std::byte* data = element_at(matrix.down, matrix.down_dtype, first);
    const FactorRow row = packable_row(order_, {matrix.down_dtype, data, matrix.down_col_stride, map},
                                       shape_.cols, scratch_ + layout_.copy);
    ops_.pack_down(order_, row.dtype, row.data, shape_.cols, to, (end - begin) * shape_.panel_nbytes);
  }
}

void TermBlock::pack_up(const Matrix& matrix, int64_t begin, int64_t end, double scale) {
  std::byte* to = scratch_ + layout_.up;
  for (int64_t m = block_.row + strip_; m < block_.row + strip_ + shape_.rows; ++m) {
    const int64_t row = matrix.row_map ? matrix.row_map[m] : m;
    const int64_t first = row * matrix.up_row_stride + begin * matrix.up_col_stride;
    const std::byte* data = element_at(matrix.up, matrix.up_dtype, first);
    const FactorRow source = packable_row(order_, {matrix.up_dtype, data, matrix.up_col_stride}, end - begin,
                                          scratch_ + layout_.copy);
    ops_.pack_up(order_, source.dtype, {source.data, end - begin}, scale, to, 0);
    to += TermNeeds::kRanks * shape_.element_nbytes;
  }
}

// The full groups at once, then row by row (see PanelBlock).
bool TermBlock::sweep(Sweep s) {
  const int64_t rows = s.rows;
  const int64_t nbytes = dtype_bits(order_) / 8;
  s.rows = shape_.rows_in_groups();
  bool overflow = s.rows > 0 && ops_.sweep(order_, s);
  for (int64_t done = s.rows, step = done; done < rows; ++done, step = 1) {
    s.rows = 1;
    s.up = static_cast<const std::byte*>(s.up) + step * TermNeeds::kRanks * shape_.element_nbytes;
    s.base = static_cast<const std::byte*>(s.base) + step * s.base_row_stride * nbytes;
    s.weight = static_cast<std::byte*>(s.weight) + step * s.weight_row_stride * nbytes;
    s.partial = static_cast<std::byte*>(s.partial) + step * shape_.row_nbytes();
    overflow |= ops_.sweep(order_, s);
  }
  return overflow;
}

}  // namespace lora_mmap
