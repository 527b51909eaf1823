// Tiles of weights taken from what stands in them to what is wanted there, in one pass: checked by their
// hash, undone in registers, fused anew, hashed, and written last.
#pragma once

#include "cuda/kernels/corrections.cuh"
#include "cuda/kernels/terms.cuh"
#include "cuda/kernels/weight.cuh"

namespace lora_mmap::cuda {

template <class Format>
struct FormatTag {
  using Type = Format;
};

// use(FormatTag) of a weight of 16 or 32 bits.
template <class Use>
LORA_MMAP_DEVICE void with_format(u32 type, Use use) {
  if (type == kF16)
    use(FormatTag<F16>{});
  else if (type == kBF16)
    use(FormatTag<BF16>{});
  else
    use(FormatTag<F32>{});
}

LORA_MMAP_DEVICE TileRecord* tile_record(u64 record, u32 tile) {
  return record ? pointer_to<TileRecord>(record + sizeof(RecordHead)) + tile : nullptr;
}

LORA_MMAP_DEVICE u64 coded_address(u64 record, u32 n_tiles, u32 offset) {
  return record + sizeof(RecordHead) + n_tiles * u64{sizeof(TileRecord)} + offset * u64{4};
}

LORA_MMAP_DEVICE void tell(const StepParams& params, const StepRow& row, StepFlags what) {
  atomic_or(params.flags + row.flag * u64{4}, what);
}

// What the terms of a kernel's steps can be. Products of factors alone need far fewer registers than any
// terms, and less shared memory.
enum class Terms { pairs, any };

// The pristine bits of a tile while sums are in the registers: there too, or, where shared memory has room,
// in places that no other thread comes to.
template <Terms kTerms, class Bits>
struct Kept {
  Patch<Bits> held;

  LORA_MMAP_DEVICE void put(Patch<Bits>& bits) { held = bits; }
  LORA_MMAP_DEVICE Bits at(int m, int n) const { return held.value[m][n]; }
};
template <>
struct Kept<Terms::pairs, u32> {
  static LORA_MMAP_DEVICE u32& place(int m, int n) {
    u32* const park = reinterpret_cast<u32*>(shared_memory() + kParkOffset);
    return park[static_cast<u32>(m * Patch<u32>::kCols + n) * kThreads + threadIdx.x];
  }
  LORA_MMAP_DEVICE void put(Patch<u32>& bits) {
    bits.for_each([&](u32& each, int m, int n) { place(m, n) = each; });
  }
  LORA_MMAP_DEVICE u32 at(int m, int n) const { return place(m, n); }
};
template <class Bits, class Kept>
LORA_MMAP_DEVICE void take(const Kept& kept, Patch<Bits>& bits) {
  bits.for_each([&](Bits& each, int m, int n) { each = kept.at(m, n); });
}

// One tile of a step.
template <Terms kTerms>
struct StepTile {
  const StepRow& row;
  const Tile& tile;
  u32 number;  // of the tile among those of all steps

  LORA_MMAP_DEVICE u32 index() const { return number - row.first_tile; }  // in the records
  // Registers are scarce: what is asked for here is read anew each time. Null where there is no record.
  LORA_MMAP_DEVICE TileRecord* old() const { return tile_record(row.old_record, index()); }
  LORA_MMAP_DEVICE TileRecord* next() const { return tile_record(row.new_record, index()); }
  LORA_MMAP_DEVICE bool is_undone() const { return row.old_record != 0 && row.pristine.address == 0; }
  LORA_MMAP_DEVICE TermTile terms() const {
    return {{row.values.address, row.values.row_stride, row.values.col_stride, 0, 0, row.type, false}, tile};
  }
  template <class Bits>
  LORA_MMAP_DEVICE void load(const Place& place, Patch<Bits>& bits) const {
    const u32 nbytes = element_nbytes(row.type);
    if constexpr (kTerms == Terms::pairs)
      load_groups(place, nbytes, tile, bits);
    else
      load_bits(place, nbytes, tile, *reinterpret_cast<Stage<Bits>*>(shared_memory()), bits);
  }
  template <class Bits>
  LORA_MMAP_DEVICE void store(const Place& place, Patch<Bits>& bits) const {
    const u32 nbytes = element_nbytes(row.type);
    if constexpr (kTerms == Terms::pairs)
      store_groups(place, nbytes, tile, bits);
    else
      store_bits(place, nbytes, tile, *reinterpret_cast<Stage<Bits>*>(shared_memory()), bits);
  }
};

template <Terms kTerms>
LORA_MMAP_DEVICE void undo(const StepTile<kTerms>& at, const Patch<float>& acc, Patch<u32>& bits) {
  with_format(at.row.type, [&](auto tag) {
    using Format = typename decltype(tag)::Type;
    bits.for_each([&](u32& each, int m, int n) { each = undone_element<Format>(each, acc.value[m][n]); });
  });
  const TileRecord& old = *at.old();
  const u64 coded = coded_address(at.row.old_record, at.row.n_tiles, old.offset);
  correct({coded, old.count, old.escapes, element_nbytes(at.row.type)}, bits);
}
template <Terms kTerms>
LORA_MMAP_DEVICE void undo(const StepTile<kTerms>&, const Patch<double>&, Patch<u64>&) {
}  // has pristine values

// What a tile becomes, and how it differs from what undoing that would give.
template <class Bits>
struct Fused {
  Patch<Bits> bits;
  Patch<Bits> steps;
  bool overflow;
};

// `fused.bits` are the base's when this begins. No terms are not even a zero.
LORA_MMAP_DEVICE void fuse(const StepRow& row, const Patch<float>& acc, const Kept<Terms::any, u32>& pristine,
                           Fused<u32>& fused) {
  const bool has_terms = row.new_n_terms != 0;
  fused.overflow = false;
  with_format(row.type, [&](auto tag) {
    using Format = typename decltype(tag)::Type;
    fused.bits.for_each([&](u32& each, int m, int n) {
      if (has_terms) each = fused_element<Format>(each, acc.value[m][n], fused.overflow);
    });
    fused.steps.for_each([&](u32& each, int m, int n) {
      const u32 guess = undone_element<Format>(fused.bits.value[m][n], acc.value[m][n]);
      each = steps_between(sizeof(typename Format::Bits), guess, pristine.at(m, n));
    });
  });
}
// The base is what is pristine, and fetched here, each element once: registers are scarcer.
LORA_MMAP_DEVICE void fuse(const StepRow& row, const Patch<float>& acc,
                           const Kept<Terms::pairs, u32>& pristine, Fused<u32>& fused) {
  const bool has_terms = row.new_n_terms != 0;
  fused.overflow = false;
  with_format(row.type, [&](auto tag) {
    using Format = typename decltype(tag)::Type;
    fused.bits.for_each([&](u32& each, int m, int n) {
      const u32 value = each = pristine.at(m, n);
      if (has_terms) each = fused_element<Format>(each, acc.value[m][n], fused.overflow);
      const u32 guess = undone_element<Format>(each, acc.value[m][n]);
      fused.steps.value[m][n] = steps_between(sizeof(typename Format::Bits), guess, value);
    });
  });
}
LORA_MMAP_DEVICE void fuse(const StepRow& row, const Patch<double>& acc, const Kept<Terms::any, u64>&,
                           Fused<u64>& fused) {
  fused.overflow = false;
  if (row.new_n_terms == 0) return;
  fused.bits.for_each([&](u64& each, int m, int n) {
    if (!is_finite(double_of(each))) return;
    each = bits_of(add(double_of(each), acc.value[m][n]));
    fused.overflow |= !is_finite(double_of(each));
  });
}

constexpr u32 kNoRoom = 0xFFFFFFFFU;

// Words of the new record's memory for corrections, for the whole block; kNoRoom where it is full.
LORA_MMAP_DEVICE u32 take_words(const StepRow& row, u32 words) {
  u32* const shared = reinterpret_cast<u32*>(shared_memory());
  if (threadIdx.x == 0) {
    u32 taken = 0;
    if (words > 0) {
      taken = atomic_add(row.new_record, words);
      if (taken > row.capacity || row.capacity - taken < words) {
        atomic_add(row.new_record, 0U - words);
        taken = kNoRoom;
      }
    }
    shared[0] = taken;
  }
  block_barrier();
  const u32 offset = shared[0];
  block_barrier();
  return offset;
}

// Writes what brings `pristine` back from what is fused. False where there is no room.
template <Terms kTerms>
LORA_MMAP_DEVICE bool keep(const StepTile<kTerms>& at, Patch<u32>& steps, const Kept<kTerms, u32>& pristine) {
  const Corrections found = count_corrections(steps);
  Coded coded{0, found.count, found.escapes, element_nbytes(at.row.type)};
  const u32 offset = take_words(at.row, coded.words());
  if (offset == kNoRoom) return false;
  coded.address = coded_address(at.row.new_record, at.row.n_tiles, offset);
  encode(coded, found.share, steps, pristine);
  if (threadIdx.x == 0) {
    TileRecord& next = *at.next();
    next.offset = offset;
    next.count = static_cast<u16>(found.count);
    next.escapes = static_cast<u16>(found.escapes);
  }
  return true;
}
template <Terms kTerms>
LORA_MMAP_DEVICE bool keep(const StepTile<kTerms>&, Patch<u64>&, const Kept<kTerms, u64>&) {
  return false;  // nobody asks
}

// Elements beyond the rectangle, which are zeros, stay zeros: they are hashed with the others.
template <class T>
LORA_MMAP_DEVICE void clear_outside(const Tile& tile, Patch<T>& acc) {
  if (has(tile, static_cast<i32>(kPatchTile<T>.rows) - 1, static_cast<i32>(kPatchTile<T>.cols) - 1)) return;
  const PatchLanes<T> lanes{thread_index_again()};
  acc.for_each([&](T& each, int m, int n) {
    if (!has(tile, lanes.row(m), lanes.col(n))) each = T{0};
  });
}

template <Terms kTerms, class T>
LORA_MMAP_DEVICE void sum_terms(const StepParams& params, const StepTile<kTerms>& at, u32 first, u32 count,
                                Patch<T>& acc) {
  acc.clear();
#pragma unroll 1
  for (u32 k = 0; k < count; ++k) {
    const AnyTermRow& term = pointer_to<const AnyTermRow>(params.terms)[first + k];
    if constexpr (kTerms == Terms::pairs)
      multiply_factors(term.matrix, static_cast<T>(term.scale), at.tile, at.terms().template factors<T>(),
                       acc);
    else
      add_term(term, at.terms(), acc);
  }
  clear_outside(at.tile, acc);
}

// False where the record has no room for what the tile needs, and the weight keeps what it has.
template <Terms kTerms, class T, class Bits>
LORA_MMAP_DEVICE bool fuse_tile(const StepParams& params, const StepTile<kTerms>& at, const Patch<T>& acc,
                                const Kept<kTerms, Bits>& pristine) {
  Fused<Bits> fused;
  if constexpr (kTerms == Terms::any) {
    if (at.row.base.address != 0)
      at.load(at.row.base, fused.bits);
    else
      take(pristine, fused.bits);
  }
  fuse(at.row, acc, pristine, fused);
  if (fused.overflow) tell(params, at.row, kOverflow);
  if (at.next()->state == kUntouched) {
    if (at.row.corrections != 0 && !keep(at, fused.steps, pristine)) return false;
    const u64 hash = hash_tile(fused.bits);
    if (threadIdx.x == 0) at.next()->hash = hash;
  }
  at.store(at.row.weight, fused.bits);
  return true;
}

// The tile's pristine bits, but for what its old terms are needed for. False where it holds something else
// than what the old record knows.
template <Terms kTerms, class Bits>
LORA_MMAP_DEVICE bool load_tile(const StepParams& params, const StepTile<kTerms>& at, Patch<Bits>& bits) {
  at.load(at.row.weight, bits);
  if (at.row.old_record != 0 && params.force == 0 && hash_tile(bits) != at.old()->hash) {
    if (threadIdx.x == 0) {
      tell(params, at.row, kForeign);
      atomic_max(at.row.old_record + 4, at.index() + 1);
    }
    return false;
  }
  if (at.row.pristine.address != 0) at.load(at.row.pristine, bits);
  return true;
}

// True when the tile is as wanted and its records are to say so.
template <class T, Terms kTerms>
LORA_MMAP_DEVICE bool step_tile(const StepParams& params, const StepTile<kTerms>& at) {
  const StepRow& row = at.row;
  Patch<typename BitsOf<T>::Type> bits;
  if (!load_tile(params, at, bits)) return false;
  Kept<kTerms, typename BitsOf<T>::Type> kept;
  kept.put(bits);
  Patch<T> acc;
  // Everything is inlined, so there is one place where terms are summed.
#pragma unroll 1
  for (u32 layer = at.is_undone() ? 0 : 1; layer <= (row.new_record != 0 ? 1U : 0U); ++layer) {
    sum_terms(params, at, layer == 0 ? row.old_first_term : row.new_first_term,
              layer == 0 ? row.old_n_terms : row.new_n_terms, acc);
    if (layer != 0) continue;
    take(kept, bits);
    undo(at, acc, bits);
    kept.put(bits);
  }
  if (row.new_record != 0) {
    const bool fused = fuse_tile(params, at, acc, kept);
    if (!fused && threadIdx.x == 0) tell(params, row, kFull);
    return fused;
  }
  take(kept, bits);
  at.store(row.out.address != 0 ? row.out : row.weight, bits);
  return row.out.address == 0;
}

template <Terms kTerms, class T>
LORA_MMAP_DEVICE void step_tiles(const StepParams& params) {
  const StepRow* steps = pointer_to<const StepRow>(params.steps);
  u32 owner = 0;
#pragma unroll 1
  for (u32 number = blockIdx.x; number < params.n_tiles; number += gridDim.x) {
    const Tile tile = tile_at(steps, params.n_steps, kPatchTile<T>, number, owner);
    owner = tile.owner;
    const StepRow& row = steps[owner];
    const StepTile<kTerms> at{row, tile, number};
    const bool due = (row.old_record == 0 || at.old()->state == kWritten) &&
                     (row.new_record == 0 || at.next()->state != kWritten);
    if (!due || !step_tile<T>(params, at)) continue;
    block_barrier();  // everything is written, and everybody has seen the states
    if (threadIdx.x != 0) continue;
    if (row.new_record != 0) at.next()->state = kWritten;
    if (row.old_record != 0) at.old()->state = kUndone;
  }
}

}  // namespace lora_mmap::cuda
