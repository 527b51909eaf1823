// The descriptor tables that the grouped kernels walk. Read by NVRTC, nvcc and the host compiler alike, so it
// includes nothing and names its own integers. Addresses are device addresses; strides are in elements.
#pragma once

namespace lora_mmap::cuda {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i32 = int;
using i64 = long long;

enum Type : u32 { kF16, kBF16, kF32, kF64, kE4M3, kE5M2, kE4M3FNUZ, kE5M2FNUZ };

// What the host knows of addresses and strides, so that no thread has to find out.
enum TermLayout : u8 {
  kDownBytes = 1,   // elements of A are not even aligned to their own size
  kUpBytes = 2,     // likewise B
  kDownRows16 = 4,  // the rows of A begin at multiples of 16 bytes
  kUpRows16 = 8,    // likewise B
};

// One low-rank term of a job: see fuse/job.h. Its rank is not 0.
struct TermRow {
  u64 down;     // A [rank, cols], each row contiguous
  u64 up;       // B [rows, rank], each row contiguous
  u64 row_map;  // [rows] of i32: the row of B for each row of the job; 0: the same
  u64 col_map;  // [cols] of i32: the column of A for each column of the job; 0: the same
  i64 down_row_stride;
  i64 up_row_stride;
  double scale;
  i32 rank;
  u8 down_type;  // Type
  u8 up_type;
  u8 layout;  // of TermLayout
  u8 reserved;
};

constexpr i32 kWholeMatrix = -1;  // in place of a rank: the values at `down` themselves

// A matrix of a term of any kind: see Matrix in fuse/job.h.
struct MatrixRow {
  u64 down;
  u64 up;
  u64 row_map;  // of i32, or 0
  u64 col_map;
  i64 down_row_stride;
  i64 down_col_stride;
  i64 up_row_stride;
  i64 up_col_stride;
  i32 rank;
  u8 down_type;  // Type
  u8 up_type;
  u8 layout;  // kDownBytes, kUpBytes
  u8 reserved;
};

enum TermParts : u32 { kTimes = 1, kTimesBase = 2, kGain = 4 };

// A term of any kind: see Term in fuse/job.h.
struct AnyTermRow {
  MatrixRow matrix;
  MatrixRow times;  // where `parts` has kTimes
  MatrixRow gain;   // where it has kGain
  double scale;
  double gain_weight;
  u32 parts;  // of TermParts
  u32 reserved;
};

// One rectangle of a weight, of less than 2^31 rows and columns. Its tiles are numbered row of tiles by row
// of tiles, from first_tile on.
struct JobRow {
  u64 weight;
  u64 base;  // pristine values: `weight` itself, or memory that does not overlap it
  i64 rows;
  i64 cols;
  i64 weight_row_stride;
  i64 weight_col_stride;
  i64 base_row_stride;
  i64 base_col_stride;
  u32 first_tile;
  u32 tiles_across;
  u32 type;  // Type of weight and base
  u32 first_term;
  u32 n_terms;
  u32 flag;  // index into the flags: set to 1 where a result is not finite and the base was
};

// What a fuse kernel is launched with. lora_mmap_fuse_terms and, for fp64 weights, lora_mmap_fuse_terms_f64
// take every job; their terms are AnyTermRow. Those of the others are TermRow. lora_mmap_fuse_any takes every
// job but those with fp64 weights, which are lora_mmap_fuse_f64's. The rest have the weight's type in their
// names and need more: weight and base have groups (of four elements from a multiple of four, which follow
// each other, aligned as one), and
// - lora_mmap_fuse_ordered_*: A and B of each term are both F16, both BF16 or both F32, have groups too, no
//   map of columns and a rank that is a multiple of four;
// - lora_mmap_fuse_fast_*: there is a term, A and B of each are both F16 or (from sm_80 on) both BF16,
//   without maps, and the rows of weight and base begin at multiples of 16 bytes and are eight columns long
//   or a multiple.
// Blocks take tiles blockIdx.x, blockIdx.x + gridDim.x, ...
struct FuseParams {
  u64 jobs;     // JobRow[n_jobs], ascending first_tile
  u64 terms;    // TermRow[] or AnyTermRow[]
  u64 flags;    // u32 each
  u32 n_tiles;  // leaves room for a grid more below 2^32
  u32 n_jobs;
};

// One job of gains, in two launches, each with tiles of its own: see fuse/gains.h.
struct GainsRow {
  u64 base;
  i64 rows;
  i64 cols;
  i64 base_row_stride;
  i64 base_col_stride;
  u64 groups;  // of i32, or 0
  u64 magnitude;
  u64 magnitude_map;  // of i32, or 0
  u64 out;
  u64 first_sum;  // of its rows, or columns, among the sums
  u32 first_tile;
  u32 n_groups;
  u32 type;  // Type of the base
  u32 term;  // an AnyTermRow without a gain
  u32 by_columns;
  u32 flag;  // set to 1 where a norm or what comes out is not finite
  u32 magnitude_type;
  u32 magnitude_bytes;  // not even aligned to their own size
};

// First lora_mmap_norms and lora_mmap_norms_f64 write the sums of squares, a tile of theirs being the rows,
// or the columns, of a tile of the fuse kernels, from one end of the job to the other; then lora_mmap_gains
// makes gains of them, kThreads a tile.
struct GainsParams {
  u64 jobs;  // GainsRow[n_jobs], ascending first_tile
  u64 terms;
  u64 sums;  // of double
  u64 flags;
  u32 n_tiles;
  u32 n_jobs;
};

// What is kept of one rectangle of a weight on its device: a RecordHead, a TileRecord for each of its tiles
// (those of kTermsTile, or kTermsF64Tile), row of tiles by row of tiles, and behind them coded corrections.
// All zeros when it is new.
struct RecordHead {
  u32 used;     // words of 4 bytes taken by corrections
  u32 foreign;  // 1 + the last tile found to hold what this record does not know; 0: none
};

enum TileState : u32 { kUntouched, kWritten, kUndone };

struct TileRecord {
  u64 hash;     // of W'
  u32 offset;   // of its corrections behind the tiles, in words
  u16 count;    // of them
  u16 escapes;  // of those, the ones that do not fit into a byte
  u32 state;    // TileState
  u32 reserved;
};

// Weights may lie anywhere, as those of JobRow. Places that are 0 are not there.
struct Place {
  u64 address;
  i64 row_stride;
  i64 col_stride;
  u64 in_groups;  // 1: of four elements from a multiple of four, which follow each other, aligned as one
};
struct StepRow {
  Place weight;
  Place pristine;  // where W0 stands; with old terms, not there: it is undone
  Place base;      // what is fused to; not there: W0
  Place values;    // what terms may read of the base
  Place out;       // where W0 goes, in place of the weight
  u64 old_record;  // 0: the weight holds W0
  u64 new_record;  // 0: the weight is to hold W0
  i64 rows;
  i64 cols;
  u32 first_tile;
  u32 tiles_across;
  u32 type;  // Type
  u32 old_first_term;
  u32 old_n_terms;
  u32 new_first_term;
  u32 new_n_terms;
  u32 n_tiles;      // of the rectangle, and so of its records
  u32 capacity;     // of the new record, in words of corrections
  u32 corrections;  // 1: the new record keeps those
  u32 flag;         // index into the flags
  u32 reserved;
};

enum StepFlags : u32 { kOverflow = 1, kFull = 2, kForeign = 4 };

// lora_mmap_step_pairs takes steps without a base, whose terms are all products of factors and whose places
// are in groups; lora_mmap_step any but those of fp64 weights, which are lora_mmap_step_f64's. What a tile of
// a step needs beyond what there is leaves the tile as it was, and says so in the flags.
struct StepParams {
  u64 steps;    // StepRow[n_steps], ascending first_tile
  u64 terms;    // AnyTermRow[]
  u64 flags;    // u32 each, of StepFlags, added to what is there
  u32 n_tiles;  // as FuseParams
  u32 n_steps;
  u32 force;  // 1: hashes are not looked at
};

// One strided rectangle to copy, of less than 2^31 rows and columns: see fuse/copy.h.
struct CopyRow {
  u64 dst;
  u64 src;
  i64 rows;
  i64 cols;
  i64 dst_row_stride;
  i64 dst_col_stride;
  i64 src_row_stride;
  i64 src_col_stride;
  u32 first_tile;
  u32 tiles_across;
  u32 element_nbytes;  // 1, 2, 4, 8 or 16
  u32 reserved;
};

struct CopyParams {
  u64 rects;  // CopyRow[n_rects], ascending first_tile
  u32 n_tiles;
  u32 n_rects;
};

// For measuring the FFMA ceiling: every thread runs `rounds` * kProbeChain fp32 fma on its registers.
struct ProbeParams {
  u64 sink;  // float; written only if the sums come out as no sums can
  u32 rounds;
  float factor;
};
constexpr u32 kProbeChain = 256;

// Blocks have kThreads threads. Tiles are cut from a job's rows and columns, or from a rectangle's.
constexpr u32 kThreads = 256;
struct TileSize {
  u32 rows;
  u32 cols;
};
constexpr TileSize kOrderedTile{128, 128};
constexpr TileSize kF64Tile{64, 64};
constexpr TileSize kFastTile{128, 64};
constexpr TileSize kTermsTile{64, 128};
constexpr TileSize kTermsF64Tile{64, 64};
constexpr TileSize kCopyTile{16, 256};

// Dynamic shared memory, in bytes. lora_mmap_fuse_ordered_* and lora_mmap_fuse_any have the factors of 16
// ranks there; the former stage 16-bit weights behind them, from sm_80 on: before, nothing can be copied
// there behind a kernel's back.
constexpr u32 kOrderedRanks = 16;
constexpr u32 kOrderedFactorsNbytes = kOrderedRanks * (kOrderedTile.rows + kOrderedTile.cols) * 4;
constexpr u32 kOrderedStageNbytes = kOrderedTile.rows * kOrderedTile.cols * 2;
constexpr u32 kF64Ranks = 16;
constexpr u32 kF64SharedNbytes = kF64Ranks * (kF64Tile.rows + kF64Tile.cols) * 8;
// lora_mmap_fuse_fast_* have two chunks of B and A, rows eight elements longer than they are so that no two
// rows of a matrix begin in one bank, and behind them 16-bit weights in the same manner.
constexpr u32 kFastRanks = 32;
constexpr u32 kFastUpPitch = kFastRanks + 8;
constexpr u32 kFastDownPitch = kFastTile.cols + 8;
constexpr u32 kFastFactorsNbytes = (kFastTile.rows * kFastUpPitch + kFastRanks * kFastDownPitch) * 2;
constexpr u32 kFastStageNbytes = kFastTile.rows * kFastDownPitch * 2;
// lora_mmap_fuse_terms, lora_mmap_norms and their like have the factors of 16 ranks there, or a tile of
// values.
constexpr u32 kTermsRanks = 16;
constexpr u32 kTermsSharedNbytes = kTermsTile.rows * kTermsTile.cols * 4;
static_assert(kTermsSharedNbytes == kTermsF64Tile.rows * kTermsF64Tile.cols * 8, "one size for both");
// lora_mmap_step_pairs has there, behind factors, an element's bits for every element of the tile.
constexpr u32 kParkOffset = kTermsRanks * (kTermsTile.rows + kTermsTile.cols) * 4;
constexpr u32 kStepPairsSharedNbytes = kParkOffset + kTermsTile.rows * kTermsTile.cols * 4;
constexpr u32 kNormLanes = 16;  // of the sum over a row

}  // namespace lora_mmap::cuda
