#include "undo/tile_step.h"

#include <cstring>

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
  size_t pristine = 0;  // first what stands in the weight
  size_t base;          // what new terms are added to, where that is something else
  size_t fused;
  size_t numbers;  // Corrections
  size_t nonzero;
  size_t coded;
  size_t nbytes;

  ValuesLayout(DType dtype, int64_t elements) {
    const size_t element_nbytes = dtype_bits(dtype) / 8;
    const size_t values = round_up_64(static_cast<size_t>(elements) * element_nbytes);
    const bool has_corrections = dtype != DType::F64;
    base = pristine + values;
    fused = base + values;
    numbers = fused + values;
    const int64_t blocks = (elements + kCorrectionBlock - 1) / kCorrectionBlock;
    const auto in_blocks = static_cast<size_t>(has_corrections ? blocks * kCorrectionBlock : 0);
    nonzero = numbers + in_blocks * element_nbytes;
    coded = nonzero + round_up_64(in_blocks / 8);
    nbytes = coded + (has_corrections ? round_up_64(most_coded_nbytes(elements, element_nbytes)) : 0);
  }
};

void load(const Side& from, const Block& tile, void* to) {
  copy_rect(
      {to, from.at(tile), tile.rows, tile.cols, tile.cols, 1, from.row_stride, from.col_stride, from.nbytes});
}

void store(const void* from, const Side& to, const Block& tile) {
  copy_rect({to.at(tile), from, tile.rows, tile.cols, to.row_stride, to.col_stride, tile.cols, 1, to.nbytes});
}

class TileStep {
 public:
  TileStep(const TileKernel& kernel, const PreparedStep& step, int64_t index, const Ahead& ahead,
           TileScratch& scratch)
      : kernel_(kernel),
        step_(step),
        index_(index),
        tile_(step.grid().tile(index)),
        elements_(tile_.rows * tile_.cols),
        ahead_(ahead),
        nbytes_(static_cast<size_t>(elements_) * (dtype_bits(step.dtype()) / 8)),
        layout_(step.dtype(), elements_),
        scratch_(scratch),
        values_(scratch.values.reserve(layout_.nbytes)) {}

  TileOutcome run(bool force) {
    load(step_.weight(), tile_, pristine());
    if (step_.old() && !undo(*step_.old(), force)) return TileOutcome::foreign;
    if (step_.out()) {
      store(pristine(), *step_.out(), tile_);
      return TileOutcome::done;
    }
    const void* result = pristine();
    bool overflow = false;
    if (step_.next()) {
      const void* x = base(*step_.next());
      result = step_.next()->job.terms.empty() ? x : values_ + layout_.fused;
      overflow = fuse(*step_.next(), x);
    }
    store(result, step_.weight(), tile_);
    if (step_.next()) step_.next()->record->set_state(index_, TileState::written);
    if (step_.old()) step_.old()->record->set_state(index_, TileState::undone);
    return overflow ? TileOutcome::overflowed : TileOutcome::done;
  }

 private:
  std::byte* pristine() { return values_ + layout_.pristine; }

  // Brings the pristine values back. False if the tile is foreign.
  bool undo(const PreparedLayer& old, bool force) {
    if (!force && hash(pristine()) != old.record->hash(index_)) return false;
    if (old.values.data) {
      load(old.values, tile_, pristine());
      return true;
    }
    if (!old.job.terms.empty()) kernel_.undo(old.job, tile_, pristine(), ahead_, scratch_.old);
    correct(*old.record);
    return true;
  }

  void correct(const Record& record) {
    const uint8_t* coded = record.coded(index_);
    const size_t coded_nbytes = record.coded_nbytes(index_);
    if (step_.dtype() == DType::F32)
      apply_corrections(coded, coded_nbytes, reinterpret_cast<uint32_t*>(pristine()), elements_);
    else
      apply_corrections(coded, coded_nbytes, reinterpret_cast<uint16_t*>(pristine()), elements_);
  }

  const void* base(const PreparedLayer& next) {
    if (!next.values.data) return pristine();
    load(next.values, tile_, values_ + layout_.base);
    return values_ + layout_.base;
  }

  // What comes of the new terms on `x`, kept in their record. True if it overflows.
  bool fuse(const PreparedLayer& next, const void* x) {
    Record& record = *next.record;
    std::byte* fused = values_ + layout_.fused;
    const bool is_new = record.state(index_) == TileState::untouched;
    const bool has_terms = !next.job.terms.empty();
    if (!is_new || !record.has_corrections()) {
      const bool overflow = has_terms && kernel_.fuse(next.job, tile_, x, fused, ahead_, scratch_.next);
      if (is_new) record.keep(index_, hash(has_terms ? fused : x), nullptr, 0);
      return overflow;
    }
    const Corrections corrections{values_ + layout_.numbers,
                                  reinterpret_cast<uint64_t*>(values_ + layout_.nonzero)};
    bool overflow = false;
    if (has_terms)
      overflow = kernel_.fuse(next.job, tile_, x, pristine(), fused, corrections, ahead_, scratch_.next);
    else
      compare(x, corrections);
    const size_t coded_nbytes = encode(corrections);
    record.keep(index_, hash(has_terms ? fused : x), coded(), coded_nbytes);
    return overflow;
  }

  // What leads from x, with no terms in between, to the pristine values.
  void compare(const void* x, const Corrections& corrections) {
    visit_weight_format(step_.dtype(), [&]<class Format>(Format) {
      using Bits = typename Format::Bits;
      Numbering<Bits> numbering(corrections, pristine(), elements_);
      for (int64_t i = 0; i < elements_; ++i) numbering.add(i, static_cast<const Bits*>(x)[i]);
    });
  }

  uint8_t* coded() { return reinterpret_cast<uint8_t*>(values_ + layout_.coded); }

  size_t encode(const Corrections& corrections) {
    if (step_.dtype() == DType::F32)
      return encode_corrections(static_cast<const uint32_t*>(corrections.numbers), corrections.nonzero,
                                elements_, coded());
    return encode_corrections(static_cast<const uint16_t*>(corrections.numbers), corrections.nonzero,
                              elements_, coded());
  }

  uint64_t hash(const void* values) const { return hash_of(values, nbytes_, kernel_.hash()); }

  const TileKernel& kernel_;
  const PreparedStep& step_;
  const int64_t index_;
  const Block tile_;
  const int64_t elements_;
  const Ahead ahead_;
  const size_t nbytes_;
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
Ahead ahead_of(const PreparedStep& step, int64_t index) {
  if (index < 0 || step.weight().col_stride != 1) return {};
  return {step.weight().at(step.grid().tile(index)), step.weight().row_stride};
}

}  // namespace

size_t tile_values_nbytes(DType dtype, int64_t elements) {
  return ValuesLayout(dtype, elements).nbytes;
}

TileOutcome take_tile(const TileKernel& kernel, const PreparedStep& step, int64_t index, int64_t next,
                      bool force, TileScratch& scratch) {
  if (!is_due(step, index)) return TileOutcome::done;
  fault_point(FaultPoint::tile);
  return TileStep(kernel, step, index, ahead_of(step, next), scratch).run(force);
}

}  // namespace lora_mmap
