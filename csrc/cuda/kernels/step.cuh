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

// One tile of a step. The record's entries are null where there is no record.
struct StepTile {
  const StepRow& row;
  const Tile& tile;
  u32 index;  // of the tile in the records
  TileRecord* old;
  TileRecord* next;

  LORA_MMAP_DEVICE bool is_undone() const { return old != nullptr && row.pristine.address == 0; }
  LORA_MMAP_DEVICE TermTile terms() const {
    return {{row.values.address, row.values.row_stride, row.values.col_stride, 0, 0, row.type, false}, tile};
  }
  template <class Bits>
  LORA_MMAP_DEVICE void load(const Place& place, Patch<Bits>& bits) const {
    load_bits(place, element_nbytes(row.type), tile, *reinterpret_cast<Stage<Bits>*>(shared_memory()), bits);
  }
  template <class Bits>
  LORA_MMAP_DEVICE void store(const Place& place, Patch<Bits>& bits) const {
    store_bits(place, element_nbytes(row.type), tile, *reinterpret_cast<Stage<Bits>*>(shared_memory()), bits);
  }
};

LORA_MMAP_DEVICE void undo(const StepTile& at, const Patch<float>& acc, Patch<u32>& bits) {
  with_format(at.row.type, [&](auto tag) {
    using Format = typename decltype(tag)::Type;
    bits.for_each([&](u32& each, int m, int n) { each = undone_element<Format>(each, acc.value[m][n]); });
    const u64 coded = coded_address(at.row.old_record, at.row.n_tiles, at.old->offset);
    correct(Coded<Format>{coded, at.old->count, at.old->escapes}, bits);
  });
}
LORA_MMAP_DEVICE void undo(const StepTile&, const Patch<double>&, Patch<u64>&) {}  // has pristine values

// `values` become the sums. No terms are not even a zero. True where one overflows.
LORA_MMAP_DEVICE bool fuse(const StepRow& row, const Patch<float>& acc, Patch<u32>& values) {
  bool overflow = false;
  if (row.new_n_terms == 0) return overflow;
  with_format(row.type, [&](auto tag) {
    using Format = typename decltype(tag)::Type;
    values.for_each(
        [&](u32& each, int m, int n) { each = fused_element<Format>(each, acc.value[m][n], overflow); });
  });
  return overflow;
}
LORA_MMAP_DEVICE bool fuse(const StepRow& row, const Patch<double>& acc, Patch<u64>& values) {
  bool overflow = false;
  if (row.new_n_terms == 0) return overflow;
  values.for_each([&](u64& each, int m, int n) {
    if (!is_finite(double_of(each))) return;
    each = bits_of(add(double_of(each), acc.value[m][n]));
    overflow |= !is_finite(double_of(each));
  });
  return overflow;
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

// Writes what brings `pristine` back from `fused` by the sums. False where there is no room.
LORA_MMAP_DEVICE bool keep(const StepTile& at, const Patch<float>& acc, Patch<u32>& fused,
                           Patch<u32>& pristine) {
  bool kept = true;
  with_format(at.row.type, [&](auto tag) {
    using Format = typename decltype(tag)::Type;
    Patch<u32> steps;
    steps.for_each([&](u32& each, int m, int n) {
      const u32 guess = undone_element<Format>(fused.value[m][n], acc.value[m][n]);
      each = steps_between<Format>(guess, pristine.value[m][n]);
    });
    const Corrections found = count_corrections(steps);
    Coded<Format> coded{0, found.count, found.escapes};
    const u32 offset = take_words(at.row, coded.words());
    kept = offset != kNoRoom;
    if (!kept) return;
    coded.address = coded_address(at.row.new_record, at.row.n_tiles, offset);
    encode(coded, found.share, steps, pristine);
    if (threadIdx.x != 0) return;
    at.next->offset = offset;
    at.next->count = static_cast<u16>(found.count);
    at.next->escapes = static_cast<u16>(found.escapes);
  });
  return kept;
}
LORA_MMAP_DEVICE bool keep(const StepTile&, const Patch<double>&, Patch<u64>&, Patch<u64>&) {
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

template <class T>
LORA_MMAP_DEVICE void sum_terms(const StepParams& params, const StepTile& at, u32 first, u32 count,
                                Patch<T>& acc) {
  acc.clear();
#pragma unroll 1
  for (u32 k = 0; k < count; ++k)
    add_term(pointer_to<const AnyTermRow>(params.terms)[first + k], at.terms(), acc);
  clear_outside(at.tile, acc);
}

// False where the record has no room for what the tile needs, and the weight keeps what it has.
template <class T, class Bits>
LORA_MMAP_DEVICE bool fuse_tile(const StepParams& params, const StepTile& at, const Patch<T>& acc,
                                Patch<Bits>& pristine) {
  Patch<Bits> fused = pristine;
  if (at.row.base.address != 0) at.load(at.row.base, fused);
  const bool overflow = fuse(at.row, acc, fused);
  if (at.next->state == kUntouched) {
    if (at.row.corrections != 0 && !keep(at, acc, fused, pristine)) return false;
    const u64 hash = hash_tile(fused);
    if (threadIdx.x == 0) at.next->hash = hash;
  }
  if (overflow) tell(params, at.row, kOverflow);
  at.store(at.row.weight, fused);
  return true;
}

// True when the tile is as wanted and its records are to say so.
template <class T>
LORA_MMAP_DEVICE bool step_tile(const StepParams& params, const StepTile& at) {
  const StepRow& row = at.row;
  Patch<typename BitsOf<T>::Type> bits;
  at.load(row.weight, bits);
  if (at.old && params.force == 0 && hash_tile(bits) != at.old->hash) {
    if (threadIdx.x == 0) {
      tell(params, row, kForeign);
      atomic_max(row.old_record + 4, at.index + 1);
    }
    return false;
  }
  if (row.pristine.address != 0) at.load(row.pristine, bits);
  Patch<T> acc;
  // Everything is inlined, so there is one place where terms are summed.
#pragma unroll 1
  for (u32 layer = at.is_undone() ? 0 : 1; layer <= (at.next ? 1U : 0U); ++layer) {
    sum_terms(params, at, layer == 0 ? row.old_first_term : row.new_first_term,
              layer == 0 ? row.old_n_terms : row.new_n_terms, acc);
    if (layer == 0) undo(at, acc, bits);
  }
  if (at.next) {
    const bool fused = fuse_tile(params, at, acc, bits);
    if (!fused && threadIdx.x == 0) tell(params, row, kFull);
    return fused;
  }
  at.store(row.out.address != 0 ? row.out : row.weight, bits);
  return row.out.address == 0;
}

template <class T>
LORA_MMAP_DEVICE void step_tiles(const StepParams& params) {
  const StepRow* steps = pointer_to<const StepRow>(params.steps);
  u32 owner = 0;
#pragma unroll 1
  for (u32 index = blockIdx.x; index < params.n_tiles; index += gridDim.x) {
    const Tile tile = tile_at(steps, params.n_steps, kPatchTile<T>, index, owner);
    owner = tile.owner;
    const StepRow& row = steps[owner];
    const u32 within = index - row.first_tile;
    const StepTile at{row, tile, within, tile_record(row.old_record, within),
                      tile_record(row.new_record, within)};
    const bool due = (!at.old || at.old->state == kWritten) && (!at.next || at.next->state != kWritten);
    if (!due || !step_tile<T>(params, at)) continue;
    block_barrier();  // everything is written, and everybody has seen the states
    if (threadIdx.x != 0) continue;
    if (at.next) at.next->state = kWritten;
    if (at.old) at.old->state = kUndone;
  }
}

}  // namespace lora_mmap::cuda
