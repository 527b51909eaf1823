#include "undo/tile_step.h"

#include <utility>

#include "base/fault_points.h"
#include "fuse/copy.h"
#include "fuse/weight_format.h"
#include "undo/numbering.h"

namespace lora_mmap {
namespace {

size_t round_up_64(size_t nbytes) {
  return (nbytes + 63) / 64 * 64;
}

// Offsets into the memory for a tile's own values.
struct ValuesLayout {
  size_t current = 0;  // what stands in the weight, where its rows are not contiguous
  size_t pristine;
  size_t base;   // what new terms are added to, likewise
  size_t fused;  // what goes to the weight, likewise
  size_t steps;  // Corrections
  size_t nonzero;
  size_t nbytes;

  ValuesLayout(DType dtype, int64_t elements) {
    const size_t element_nbytes = dtype_bits(dtype) / 8;
    const size_t values = round_up_64(static_cast<size_t>(elements) * element_nbytes);
    const int64_t blocks = (elements + kCorrectionBlock - 1) / kCorrectionBlock;
    const auto in_blocks = static_cast<size_t>(dtype == DType::F64 ? 0 : blocks * kCorrectionBlock);
    pristine = current + values;
    base = pristine + values;
    fused = base + values;
    steps = fused + values;
    nonzero = steps + in_blocks * element_nbytes;
    nbytes = nonzero + round_up_64(in_blocks / 8);
  }
};

// What corrections take at most.
size_t coding_nbytes(DType dtype, int64_t elements) {
  return dtype == DType::F64 ? 0 : most_coded_nbytes(elements, dtype_bits(dtype) / 8);
}

Rect rect_of(const Block& tile, const Side& to, const Side& from) {
  return {to.at(tile),   from.at(tile),   tile.rows,       tile.cols, to.row_stride,
          to.col_stride, from.row_stride, from.col_stride, to.nbytes};
}

class TileStep {
 public:
  TileStep(const TileKernel& kernel, const PreparedStep& step, int64_t index, TileRows ahead,
           TileScratch& scratch)
      : kernel_(kernel),
        step_(step),
        index_(index),
        tile_(step.grid().tile(index)),
        elements_(tile_.rows * tile_.cols),
        element_nbytes_(dtype_bits(step.dtype()) / 8),
        ahead_(ahead),
        layout_(step.dtype(), elements_),
        scratch_(scratch),
        values_(scratch.values.reserve(layout_.nbytes)) {}

  TileOutcome run(bool force) {
    const TileRows current = rows_of(step_.weight(), layout_.current);
    if (step_.old() && !force && hash(current) != step_.old()->record->hash(index_))
      return TileOutcome::foreign;
    if (!step_.next()) {
      restore(*step_.old(), current);
      return TileOutcome::done;
    }
    const TileRows pristine = step_.old() ? pristine_of(*step_.old(), current) : current;
    const bool overflow = fuse(*step_.next(), pristine);
    if (step_.old()) step_.old()->record->set_state(index_, TileState::undone);
    return overflow ? TileOutcome::overflowed : TileOutcome::done;
  }

 private:
  // Memory of the tile's own, and as a side of which this tile alone stands there.
  TileRows own(size_t offset) const { return {values_ + offset, tile_.cols}; }
  Side side(TileRows rows) const {
    return {rows.data - (tile_.row * rows.stride + tile_.col) * element_nbytes_, rows.stride, 1,
            element_nbytes_};
  }

  void copy(const Side& from, const Side& to) const { copy_rect(rect_of(tile_, to, from)); }

  // The rows as they stand, or a copy at `offset`.
  TileRows rows_of(const Side& from, size_t offset) const {
    if (from.col_stride == 1) return {from.at(tile_), from.row_stride};
    copy(from, side(own(offset)));
    return own(offset);
  }

  // Where what is meant for `to` is made: there, or at `offset`, for put() to bring it there.
  TileRows place_for(const Side& to, size_t offset) const {
    return to.col_stride == 1 ? TileRows{to.at(tile_), to.row_stride} : own(offset);
  }
  void put(TileRows rows, const Side& to) const {
    if (rows.data != to.at(tile_)) copy(side(rows), to);
  }

  // The pristine values to where they are wanted.
  void restore(const PreparedLayer& old, TileRows current) {
    const Side& to = step_.out() ? *step_.out() : step_.weight();
    if (old.values.data) {
      copy(old.values, to);
    } else {
      const TileRows rows = place_for(to, layout_.pristine);
      undo(old, current, rows);
      put(rows, to);
    }
    if (!step_.out()) old.record->set_state(index_, TileState::undone);
  }

  TileRows pristine_of(const PreparedLayer& old, TileRows current) {
    if (old.values.data) return rows_of(old.values, layout_.pristine);
    const TileRows pristine = own(layout_.pristine);
    undo(old, current, pristine);
    return pristine;
  }

  void undo(const PreparedLayer& old, TileRows current, TileRows pristine) {
    if (!old.job.terms.empty())
      kernel_.undo(old.job, tile_, current, pristine, ahead_, scratch_.old);
    else if (current.data != pristine.data)
      copy(side(current), side(pristine));
    if (step_.dtype() == DType::F32)
      correct<uint32_t>(*old.record, pristine);
    else
      correct<uint16_t>(*old.record, pristine);
  }

  template <class Number>
  void correct(const Record& record, TileRows pristine) const {
    const CodedBytes& coded = record.coded(index_);
    apply_corrections<Number>(
        coded.data(), coded.nbytes(),
        {reinterpret_cast<Number*>(pristine.data), tile_.rows, tile_.cols, pristine.stride});
  }

  // What comes of the new terms goes to the weight, what undo needs to their record. Nothing fails once the
  // first element is written: what is encoded has its memory by then. True if it overflows.
  bool fuse(const PreparedLayer& next, TileRows pristine) {
    Record& record = *next.record;
    const bool is_new = record.state(index_) == TileState::untouched;
    const bool encodes = is_new && record.has_corrections();
    uint8_t* room = encodes ? scratch_.coded.reserve(coding_nbytes(step_.dtype(), elements_)) : nullptr;
    const TileRows x = next.values.data ? rows_of(next.values, layout_.base) : pristine;
    const TileRows fused = place_for(step_.weight(), layout_.fused);
    const bool overflow = encodes ? record_tile(next.job, x, pristine, fused) : fuse_tile(next.job, x, fused);
    CodedBytes coded = encodes ? encode(room) : CodedBytes();
    if (is_new) record.keep(index_, hash(fused), std::move(coded));
    put(fused, step_.weight());
    record.set_state(index_, TileState::written);
    return overflow;
  }

  bool fuse_tile(const Job& job, TileRows x, TileRows fused) {
    if (!job.terms.empty()) return kernel_.fuse(job, tile_, x, fused, ahead_, scratch_.next);
    if (x.data != fused.data) copy(side(x), side(fused));
    return false;
  }

  bool record_tile(const Job& job, TileRows x, TileRows pristine, TileRows fused) {
    if (!job.terms.empty())
      return kernel_.record(job, tile_, x, pristine, fused, corrections(), ahead_, scratch_.next);
    visit_weight_format(step_.dtype(),
                        [&]<class Format>(Format) { compare<typename Format::Bits>(x, pristine); });
    return fuse_tile(job, x, fused);
  }

  // What leads from x, with no terms in between, to the pristine values.
  template <class Bits>
  void compare(TileRows x, TileRows pristine) const {
    Numbering<Bits> numbering(corrections(), elements_);
    for (int64_t m = 0; m < tile_.rows; ++m) {
      const auto* from = reinterpret_cast<const Bits*>(x.data) + m * x.stride;
      const auto* to = reinterpret_cast<const Bits*>(pristine.data) + m * pristine.stride;
      for (int64_t n = 0; n < tile_.cols; ++n) numbering.add(m * tile_.cols + n, from[n], to[n]);
    }
  }

  Corrections corrections() const {
    return {values_ + layout_.steps, reinterpret_cast<uint64_t*>(values_ + layout_.nonzero)};
  }

  CodedBytes encode(uint8_t* out) const {
    const auto [steps, nonzero] = corrections();
    return scratch_.coded.take(kernel_.encode()(step_.dtype(), steps, nonzero, elements_, out));
  }

  uint64_t hash(TileRows rows) const {
    const auto row_nbytes = static_cast<size_t>(tile_.cols * element_nbytes_);
    if (row_nbytes % kHashStepNbytes == 0)
      return hash_of_rows(rows.data, tile_.rows, row_nbytes, rows.stride * element_nbytes_, kernel_.hash());
    const TileRows contiguous = rows.stride == tile_.cols ? rows : own(layout_.current);
    if (rows.data != contiguous.data) copy(side(rows), side(contiguous));
    return hash_of(contiguous.data, static_cast<size_t>(tile_.rows) * row_nbytes, kernel_.hash());
  }

  const TileKernel& kernel_;
  const PreparedStep& step_;
  const int64_t index_;
  const Block tile_;
  const int64_t elements_;
  const int64_t element_nbytes_;
  const TileRows ahead_;
  const ValuesLayout layout_;
  TileScratch& scratch_;
  std::byte* values_;
};

// Whether there is anything to do.
bool is_due(const PreparedStep& step, int64_t index) {
  if (step.old() && step.old()->record->state(index) != TileState::written) return false;
  return !step.next() || step.next()->record->state(index) != TileState::written;
}

// The weight's rows at tile `index`, where they are contiguous.
TileRows ahead_of(const PreparedStep& step, int64_t index) {
  if (index < 0 || step.weight().col_stride != 1) return {};
  return {step.weight().at(step.grid().tile(index)), step.weight().row_stride};
}

}  // namespace

size_t tile_values_nbytes(DType dtype, int64_t elements) {
  return ValuesLayout(dtype, elements).nbytes + coding_nbytes(dtype, elements);
}

TileOutcome take_tile(const TileKernel& kernel, const PreparedStep& step, int64_t index, int64_t next,
                      bool force, TileScratch& scratch) {
  if (!is_due(step, index)) return TileOutcome::done;
  fault_point(FaultPoint::tile);
  return TileStep(kernel, step, index, ahead_of(step, next), scratch).run(force);
}

}  // namespace lora_mmap
