// The fast kernel: factors packed to the compute type (fp32, fp64 for F64 weights), the weight swept once per
// rank block in register tiles. What depends on the instruction set is a TileOps; everything else is here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fuse/kernel.h"
#include "fuse/up_rows.h"

namespace lora_mmap {

// The rows of a block against all its columns, for one rank block.
struct Sweep {
  const void* up;     // B * scale: `rows` rows
  const void* down;   // A: panels of [rank][panel columns], in the order of the columns
  int64_t up_stride;  // in elements
  int64_t rank;
  int64_t rows;  // 1 .. TileOps::rows
  int64_t cols;
  const void* base;           // unit column stride
  void* weight;               // unit column stride
  int64_t base_row_stride;    // in elements
  int64_t weight_row_stride;  // in elements
  void* partial;              // accumulators between rank blocks: a full panel per row and kCols columns
  bool first;                 // accumulators start at zero, not at `partial`
  bool last;                  // they go to the weight, not to `partial`
  // What the next sweep works on, laid out as the base is, to be fetched meanwhile; null: what follows the
  // base.
  const void* ahead = nullptr;
  int64_t ahead_row_stride = 0;  // in elements
};

// What an instruction set provides. All function pointers and sizes are its own choice; plain C++ types only,
// so that nothing inline is instantiated with its compiler flags.
struct TileOps {
  int64_t rows;          // of a register tile
  int64_t panel_nbytes;  // columns of a register tile, in bytes of the compute type

  // Converts `count` elements of one row of A (`source`, any alignment) to the compute type of `weight`, in
  // the column order its sweep wants, writing panels `panel_stride` bytes apart; the tail of the last panel
  // becomes zeros. Only for F16, BF16 and F32 (F64 for F64 weights).
  void (*pack_down)(DType weight, DType source_dtype, const void* source, int64_t count, void* panels,
                    int64_t panel_stride);

  // Elements times `scale`, each rounded once to the compute type, row by row. Same source types as
  // pack_down; `out` is aligned to the compute type only: terms follow one another at any rank.
  void (*pack_up)(DType weight, DType source_dtype, const UpRows& rows, double scale, void* out,
                  int64_t out_stride_nbytes);

  // True when a result is not finite where the base was.
  bool (*sweep)(DType weight, const Sweep& sweep);
};

struct ElementOps;

class PackedKernel final : public Kernel {
 public:
  // All of these must outlive the kernel. `elements`: for what is not low-rank.
  PackedKernel(std::string_view name, const TileOps& ops, const ElementOps& elements)
      : name_(name), ops_(ops), elements_(elements) {}
  std::string_view name() const override { return name_; }
  Tiling tiling(const Job& job, size_t scratch_limit) const override;
  bool fuse(const Job& job, const Block& block, Workspace& workspace) const override;
  Tiling norm_tiling(const Gains& gains, size_t scratch_limit) const override;
  void sum_squares(const Gains& gains, const Block& block, const Tiling& tiling, Workspace& workspace,
                   double* sums) const override;

 private:
  std::string_view name_;
  const TileOps& ops_;
  const ElementOps& elements_;
};

}  // namespace lora_mmap
